"""What keepalived's lines say, and what follows from them and from the VIPs that are here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from saltext.lvs import vrrp
from saltext.lvs.vrrp import Instance, Known, Notice, Problem, Sight, Subject

VIP = "10.10.10.10"
NAME = "VirtIP_10"
HERE = Sight({NAME: {VIP: True}})
AWAY = Sight({NAME: {VIP: False}})


# --------------------------------------------------------------------------------------------------
# Lines


def of_instance(name: str, word: str, priority: int) -> Notice:
    return Notice(Subject.INSTANCE, name, word, priority)


LINES: dict[str, tuple[bytes, Notice | None]] = {
    "a state": (b'INSTANCE "VirtIP_10" MASTER 150', of_instance(NAME, "MASTER", 150)),
    "a priority": (
        b'INSTANCE "VirtIP_10" BACKUP_PRIORITY 130',
        of_instance(NAME, "BACKUP_PRIORITY", 130),
    ),
    "another master": (
        b'INSTANCE "VirtIP_10" MASTER_RX_LOWER_PRI 150',
        of_instance(NAME, "MASTER_RX_LOWER_PRI", 150),
    ),
    "a state that keepalived does not know": (
        b'INSTANCE "VirtIP_10" {UNKNOWN} 150',
        of_instance(NAME, "{UNKNOWN}", 150),
    ),
    "quotes and words within a name": (
        b'INSTANCE "a" MASTER 1" BACKUP 2',
        of_instance('a" MASTER 1', "BACKUP", 2),
    ),
    "a group": (b'GROUP "G1" FAULT 0', Notice(Subject.GROUP, "G1", "FAULT", 0)),
    "a virtual server": (
        b"VS [10.10.10.10]:tcp:80 UP",
        Notice(Subject.VIRTUAL_SERVER, "[10.10.10.10]:tcp:80", "UP"),
    ),
    "one of IPv6": (
        b"VS [fd00::10]:tcp:80 DOWN",
        Notice(Subject.VIRTUAL_SERVER, "[fd00::10]:tcp:80", "DOWN"),
    ),
    "one of a group": (b"VS [web]:0 UP", Notice(Subject.VIRTUAL_SERVER, "[web]:0", "UP")),
    "one of a mark": (b"VS FWM 65541 UP", Notice(Subject.VIRTUAL_SERVER, "FWM 65541", "UP")),
    "a real server": (
        b"RS [10.10.10.41]:tcp:80 [10.10.10.10]:tcp:80 DOWN",
        Notice(
            Subject.REAL_SERVER,
            "[10.10.10.10]:tcp:80",
            "DOWN",
            real_server="[10.10.10.41]:tcp:80",
        ),
    ),
    "a real server of a mark": (
        b"RS [10.10.10.41]:none:0 FWM 65541 UP",
        Notice(Subject.REAL_SERVER, "FWM 65541", "UP", real_server="[10.10.10.41]:none:0"),
    ),
    "a NUL at the end": (
        b"VS [10.10.10.10]:tcp:80 UP\0",
        Notice(Subject.VIRTUAL_SERVER, "[10.10.10.10]:tcp:80", "UP"),
    ),
    "only NULs": (b"\0\0", None),
    "nothing": (b"", None),
    "another word at the start": (b'HELLO "x" MASTER 1', None),
    "no quotes": (b"INSTANCE x MASTER 1", None),
    "no priority": (b'INSTANCE "x" MASTER', None),
    "a priority that is none": (b'INSTANCE "x" MASTER -1', None),
    "a line within a name": (b'INSTANCE "x\ny" MASTER 1', None),
    "a terminal's escape": (b'INSTANCE "\x1b[2J" MASTER 1', None),
    "a real server that is neither up nor down": (b"RS [10.0.0.1]:tcp:80 [x]:0 MAYBE", None),
    "a line that is too long": (b'INSTANCE "' + b"x" * 5000 + b'" MASTER 1', None),
}


@pytest.mark.parametrize(("line", "expected"), LINES.values(), ids=LINES.keys())
def test_a_line_is_read(line: bytes, expected: Notice | None) -> None:
    assert vrrp.parse(line) == expected


def test_a_name_in_no_known_letters_can_still_be_told() -> None:
    found = vrrp.parse(b'INSTANCE "\xff" MASTER 1')
    assert found is not None
    assert found.name == "\\xff"


@given(st.binary())
def test_no_bytes_raise(line: bytes) -> None:
    found = vrrp.parse(line)
    assert found is None or isinstance(found, Notice)


names = st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"]), min_size=1)
words = st.sampled_from([*vrrp.STATES, "{UNKNOWN}"])
priorities = st.integers(0, 255)


@given(name=names, word=words, priority=priorities)
def test_what_keepalived_writes_is_read(name: str, word: str, priority: int) -> None:
    line = f'INSTANCE "{name}" {word} {priority}'.encode()
    assert vrrp.parse(line) == of_instance(name, word, priority)


# --------------------------------------------------------------------------------------------------
# What follows


def heard(known: Known, *lines: str, sight: Sight = HERE) -> tuple[Known, list[Any]]:
    notices = [notice for line in lines if (notice := vrrp.parse(line.encode()))]
    known, changes = vrrp.heard(known, notices, sight, at=5.0)
    return known, list(changes)


def change(was: str | None, now: str | None, by: str = "fifo", **more: Any) -> dict[str, Any]:
    return {
        "vrrp_instance": NAME,
        "was": was,
        "now": now,
        "priority": 150,
        "vips_held": [VIP],
        "problem": None,
        "by": by,
        **more,
    }


def known(state: str | None = "MASTER", **more: Any) -> Known:
    return Known({NAME: Instance(state, 150, 1.0, **more)})


HEARD: dict[str, tuple[Known, list[str], list[Any]]] = {
    "the first state": (
        Known(),
        ['INSTANCE "VirtIP_10" MASTER 150'],
        [change(None, "MASTER")],
    ),
    "each of several, in order": (
        known(),
        [f'INSTANCE "VirtIP_10" {word} 150' for word in ("BACKUP", "FAULT", "BACKUP", "MASTER")],
        [
            change("MASTER", "BACKUP"),
            change("BACKUP", "FAULT"),
            change("FAULT", "BACKUP"),
            change("BACKUP", "MASTER"),
        ],
    ),
    "what is known already": (known(), ['INSTANCE "VirtIP_10" MASTER 150'], []),
    "another priority": (
        known(),
        ['INSTANCE "VirtIP_10" MASTER_PRIORITY 130'],
        [change("MASTER", "MASTER", priority=130, notice="MASTER_PRIORITY")],
    ),
    "a priority of an instance that nobody knew": (
        Known(),
        ['INSTANCE "VirtIP_10" BACKUP_PRIORITY 130'],
        [change(None, "BACKUP", priority=130, notice="BACKUP_PRIORITY")],
    ),
    "another master, each time": (
        known(),
        ['INSTANCE "VirtIP_10" MASTER_RX_LOWER_PRI 150'] * 2,
        [change("MASTER", "MASTER", notice="MASTER_RX_LOWER_PRI")] * 2,
    ),
    "a word that nobody knows": (known(), ['INSTANCE "VirtIP_10" {UNKNOWN} 150'], []),
    "an instance that is deleted": (
        known(),
        ['INSTANCE "VirtIP_10" DELETED 150', 'INSTANCE "VirtIP_10" BACKUP 150'],
        [change("MASTER", "DELETED"), change(None, "BACKUP")],
    ),
    "groups": (
        known(),
        ['GROUP "G" BACKUP 0', 'GROUP "G" BACKUP 0', 'GROUP "G" MASTER 0'],
        [
            {"sync_group": "G", "was": None, "now": "BACKUP", "by": "fifo"},
            {"sync_group": "G", "was": "BACKUP", "now": "MASTER", "by": "fifo"},
        ],
    ),
    "servers": (
        known(),
        ["RS [1.2.3.4]:tcp:80 [10.10.10.10]:tcp:80 DOWN", "VS [10.10.10.10]:tcp:80 DOWN"],
        [
            {
                "virtual_server": "[10.10.10.10]:tcp:80",
                "real_server": "[1.2.3.4]:tcp:80",
                "was": None,
                "now": "DOWN",
                "by": "fifo",
            },
            {
                "virtual_server": "[10.10.10.10]:tcp:80",
                "was": None,
                "now": "DOWN",
                "by": "fifo",
            },
        ],
    ),
}


@pytest.mark.parametrize(("before", "lines", "told"), HEARD.values(), ids=HEARD.keys())
def test_lines_are_told(before: Known, lines: list[str], told: list[Any]) -> None:
    assert heard(before, *lines)[1] == told


def test_a_line_that_puts_things_right_says_so() -> None:
    before = known(problem=Problem.DEAD)
    _, told = heard(before, 'INSTANCE "VirtIP_10" BACKUP 150', sight=AWAY)
    assert told == [change("MASTER", "BACKUP", vips_held=[])]


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), words, priorities), max_size=30))
def test_of_each_instance_every_state_is_told_once_and_in_order(
    lines: list[tuple[str, str, int]],
) -> None:
    notices = [of_instance(*line) for line in lines]
    _, told = vrrp.heard(Known(), notices, Sight({}), 1.0)
    for name in ("a", "b"):
        mine = [one for one in told if one["vrrp_instance"] == name]
        state: str | None = None
        wanted = []
        for word in (line[1] for line in lines if line[0] == name):
            after = vrrp.STATES.get(word) or state or vrrp.IMPLIED.get(word)
            if after != state:
                wanted.append((state, after))
            state = None if after == "DELETED" else after
        assert [(one["was"], one["now"]) for one in mine if one["was"] != one["now"]] == wanted


@given(cuts=st.integers(0, 20), lines=st.lists(st.tuples(st.just("a"), words, priorities)))
def test_it_is_the_same_in_how_many_pieces_lines_come(
    cuts: int, lines: list[tuple[str, str, int]]
) -> None:
    notices = [of_instance(*line) for line in lines]
    whole = vrrp.heard(Known(), notices, HERE, 1.0)
    first, told = vrrp.heard(Known(), notices[:cuts], HERE, 1.0)
    second, more = vrrp.heard(first, notices[cuts:], HERE, 1.0)
    assert (second, told + more) == whole


# --------------------------------------------------------------------------------------------------
# Looks


def seen(before: Known, sight: Sight, clock: float) -> tuple[Known, list[Any]]:
    after, changes = vrrp.seen(before, sight, at=5.0, clock=clock)
    return after, list(changes)


def with_(sight: Sight, **more: Any) -> Sight:
    values = {"vips": sight.vips, "running": sight.running, "answers": sight.answers, **more}
    return Sight(**values)


# What is known, what is seen, how long it has to last, and what is told then.
PROBLEMS: dict[str, tuple[Known, Sight, float, dict[str, Any]]] = {
    "a VIP is missing on the master": (
        known(),
        AWAY,
        1.0,
        change(
            "MASTER", "MASTER", "netlink", vips_held=[], problem="VIPs are missing on the master"
        ),
    ),
    "a VIP is held on a backup": (
        known("BACKUP"),
        HERE,
        1.0,
        change("BACKUP", "BACKUP", "netlink", problem="VIPs are held without being master"),
    ),
    "a VIP is held in state FAULT": (
        known("FAULT"),
        HERE,
        1.0,
        change("FAULT", "FAULT", "netlink", problem="VIPs are held without being master"),
    ),
    "keepalived has died": (
        known(),
        with_(HERE, running=False),
        0.0,
        change("MASTER", "MASTER", "process", problem="keepalived does not run, and VIPs are here"),
    ),
    "keepalived hangs": (
        known(),
        with_(HERE, answers=False),
        0.0,
        change("MASTER", "MASTER", "process", problem="keepalived does not answer"),
    ),
    "keepalived hangs on a backup": (
        known("BACKUP"),
        with_(AWAY, answers=False),
        0.0,
        change("BACKUP", "BACKUP", "process", vips_held=[], problem="keepalived does not answer"),
    ),
}


@pytest.mark.parametrize(
    ("before", "sight", "settle", "told"), PROBLEMS.values(), ids=PROBLEMS.keys()
)
def test_a_problem_is_told_once_when_it_has_lasted_and_once_when_it_is_over(
    before: Known, sight: Sight, settle: float, told: dict[str, Any]
) -> None:
    after, news = seen(before, sight, 100.0)
    if settle:
        assert news == []
        after, news = seen(after, sight, 100.0 + settle - 0.01)
        assert news == []
        after, news = seen(after, sight, 100.0 + settle)
    assert news == [told]
    assert seen(after, sight, 200.0)[1] == []
    right = HERE if told["now"] == "MASTER" else AWAY
    _, news = seen(after, with_(right, answers=True), 201.0)
    over = {**told, "vips_held": [VIP] if told["now"] == "MASTER" else [], "problem": None}
    assert news == [over]


def test_a_transition_is_no_problem() -> None:
    now = known("BACKUP")
    for clock in range(10):
        now, news = seen(now, HERE, 100.0 + clock)
        assert news == []
        now, news = seen(now, AWAY, 100.5 + clock)
        assert news == []


SIGHTS: dict[str, tuple[Known, Sight, list[Any]]] = {
    "what is there for the first time is no news": (Known(), HERE, []),
    "an answer to the first question is no news": (
        Known(),
        with_(HERE, said={NAME: ("MASTER", 150)}),
        [],
    ),
    "an answer that says otherwise": (
        known("BACKUP"),
        with_(HERE, said={NAME: ("MASTER", 150)}),
        [change("BACKUP", "MASTER", "dump")],
    ),
    "without anybody who tells, who holds the VIP is master": (
        known("BACKUP"),
        with_(HERE, by_vips_alone=True),
        [change("BACKUP", "MASTER", "netlink")],
    ),
    "and who does not is none": (
        known(),
        with_(AWAY, by_vips_alone=True),
        [change("MASTER", "BACKUP", "netlink", vips_held=[])],
    ),
    "of an instance without VIPs nothing can be told so": (
        known(),
        Sight({NAME: {}}, by_vips_alone=True),
        [],
    ),
}


@pytest.mark.parametrize(("before", "sight", "told"), SIGHTS.values(), ids=SIGHTS.keys())
def test_what_is_seen_is_told(before: Known, sight: Sight, told: list[Any]) -> None:
    assert seen(before, sight, 1.0)[1] == told


def test_a_keepalived_that_ends_without_a_word_has_stopped() -> None:
    gone = with_(AWAY, running=False)
    after, news = seen(known(), gone, 100.0)
    assert news == []
    after, news = seen(after, gone, 101.9)
    assert news == []
    _, news = seen(after, gone, 102.0)
    assert news == [change("MASTER", "STOP", "process", vips_held=[])]


def test_a_new_suspicion_is_worth_a_question_and_an_old_one_is_not() -> None:
    first, _ = seen(known(), AWAY, 1.0)
    second, _ = seen(first, AWAY, 1.5)
    assert vrrp.is_new_suspicion(known(), first)
    assert not vrrp.is_new_suspicion(first, second)
    assert not vrrp.is_new_suspicion(first, known())


def test_the_whole_state_lists_what_is_down_and_not_what_is_up() -> None:
    now, _ = heard(
        known(),
        'GROUP "G" MASTER 0',
        "VS [10.10.10.10]:tcp:80 UP",
        "RS [1.2.3.4]:tcp:80 [10.10.10.10]:tcp:80 DOWN",
    )
    now, _ = seen(now, HERE, 1.0)
    assert vrrp.whole_state(now, HERE) == {
        "vrrp_instances": [
            {
                "vrrp_instance": NAME,
                "now": "MASTER",
                "since": 1.0,
                "priority": 150,
                "vips": [VIP],
                "vips_held": [VIP],
                "problem": None,
            }
        ],
        "sync_groups": [{"sync_group": "G", "now": "MASTER", "since": 5.0}],
        "down": [
            {
                "virtual_server": "[10.10.10.10]:tcp:80",
                "real_server": "[1.2.3.4]:tcp:80",
                "since": 5.0,
            }
        ],
    }
    assert vrrp.whole_state(vrrp.without_servers(now), HERE)["down"] == []


SERVER = ("[10.10.10.10]:tcp:80", "[1.2.3.4]:tcp:80")


def everything() -> Known:
    before = known("FAULT", held=(VIP,), problem=Problem.SURPLUS)
    return heard(before, 'GROUP "G" FAULT 0', "RS {1} {0} DOWN".format(*SERVER))[0]


def test_what_is_gone_is_told_once_and_forgotten() -> None:
    before = everything()
    after, told = vrrp.without(before, {"other"}, {"other"}, {(SERVER[0], None)})
    assert list(told) == [
        change("FAULT", "DELETED", "dump", vips_held=[]),
        {"sync_group": "G", "was": "FAULT", "now": "DELETED", "by": "dump"},
        {
            "virtual_server": SERVER[0],
            "real_server": SERVER[1],
            "was": "DOWN",
            "now": "DELETED",
            "by": "dump",
        },
    ]
    assert after == Known()


def test_what_is_there_or_what_nobody_can_tell_of_stays() -> None:
    before = everything()
    assert vrrp.without(before) == (before, ())
    assert vrrp.without(before, {NAME}, {"G"}, {SERVER}) == (before, ())


def test_an_instance_of_which_nobody_has_told_goes_without_a_word() -> None:
    assert vrrp.without(known(None), ()) == (Known(), ())


states = st.sampled_from([None, "MASTER", "BACKUP", "FAULT", "STOP"])
sights = st.builds(
    Sight,
    vips=st.just({NAME: {VIP: True}}) | st.just({NAME: {VIP: False}}) | st.just({NAME: {}}),
    running=st.booleans(),
    answers=st.sampled_from([None, True, False]),
    said=st.just({}) | st.builds(lambda state: {NAME: (state, 1)}, st.sampled_from(["MASTER"])),
    by_vips_alone=st.booleans(),
)


@given(state=states, looks=st.lists(sights, max_size=20))
def test_whoever_adds_up_what_was_told_knows_what_the_watcher_knows(
    state: str | None, looks: list[Sight]
) -> None:
    now, clock = known(state), 100.0
    told_state, told_problem = state, None
    for sight in looks:
        clock += 0.7
        now, changes = seen(now, sight, clock)
        for one in changes:
            assert one["was"] in (told_state, one["now"])
            told_state, told_problem = one["now"], one["problem"]
        one_now: Mapping[str, Instance] = now.instances
        wrong = one_now[NAME].problem
        assert told_problem == (wrong.value if wrong else None)
        if told_state is not None:
            assert told_state == one_now[NAME].state
        told_state = one_now[NAME].state
