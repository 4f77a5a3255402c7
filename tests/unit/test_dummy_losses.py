"""What a look tells: losses and returns once each, the whole truth every so often."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from saltext.lvs import losses
from saltext.lvs.losses import Known, Sight

REPEAT = 30
IGNORE = "net.ipv4.conf.all.arp_ignore"
ANNOUNCE = "net.ipv4.conf.all.arp_announce"


def sight(held: bool, ignore: int = 1, announce: int = 2) -> Sight:
    values = {IGNORE: ignore, ANNOUNCE: announce}
    right = {IGNORE: 1, ANNOUNCE: 2}
    faulty = frozenset(name for name in values if values[name] != right[name])
    return Sight("dummy0", {"10.10.10.10": held}, values, faulty)


def looks(*sights: Sight) -> list[list[Any]]:
    """The changes of looks that are a second apart, from 1000 on."""
    known, told = Known(), []
    for second, seen in enumerate(sights):
        step = losses.step(known, seen, 1000.0 + second, 5.0 + second, REPEAT)
        known = step.known
        told.append(list(step.changes))
    return told


def change(was: str | None, now: str, since: float, count: int) -> dict[str, Any]:
    return {
        "interface": "dummy0",
        "address": "10.10.10.10",
        "was": was,
        "now": now,
        "since": since,
        "count": count,
        "repaired": False,
    }


def setting(name: str, was: int | None, now: int, quiet: bool) -> dict[str, Any]:
    return {"sysctl": name, "was": was, "now": now, "quiet": quiet, "repaired": False}


HELD, LOST = sight(True), sight(False)
CASES = {
    "all is well from the start": ([HELD, HELD], [[], []]),
    "what lacks at the first look is news: that is the reboot": (
        [LOST, LOST],
        [[change(None, "lost", 1000.0, 1)], []],
    ),
    "a loss is told once, and its return with the time of the loss": (
        [HELD, LOST, LOST, HELD, HELD],
        [
            [],
            [change("held", "lost", 1001.0, 1)],
            [],
            [change("lost", "restored", 1001.0, 1)],
            [],
        ],
    ),
    "losses are counted": (
        [LOST, HELD, LOST],
        [
            [change(None, "lost", 1000.0, 1)],
            [change("lost", "restored", 1000.0, 1)],
            [change("held", "lost", 1002.0, 2)],
        ],
    ),
    "a setting that is changed back is told, with whether that is heard": (
        [HELD, sight(True, ignore=0), HELD, sight(True, ignore=2)],
        [
            [],
            [setting(IGNORE, 1, 0, False)],
            [setting(IGNORE, 0, 1, True)],
            [setting(IGNORE, 1, 2, False)],
        ],
    ),
    "a setting that is wrong at the first look is news": (
        [sight(True, announce=0), sight(True, announce=0)],
        [[setting(ANNOUNCE, None, 0, False)], []],
    ),
    "what happens at once is told at once": (
        [HELD, sight(False, ignore=0)],
        [[], [change("held", "lost", 1001.0, 1), setting(IGNORE, 1, 0, False)]],
    ),
}


@pytest.mark.parametrize(("sights", "expected"), CASES.values(), ids=CASES.keys())
def test_changes(sights: list[Sight], expected: list[list[Any]]) -> None:
    assert looks(*sights) == expected


def test_a_vip_that_is_no_longer_wanted_is_forgotten_without_a_word() -> None:
    other = Sight("dummy0", {"10.10.10.11": True})
    both = Sight("dummy0", {"10.10.10.10": True, "10.10.10.11": True})
    assert looks(both, other, both) == [[], [], []]


def test_the_whole_is_told_at_the_first_look_and_every_so_often() -> None:
    known, told = Known(), []
    # Clocks that are set jump; this one must not follow them.
    for clock in (100.0, 101.0, 129.9, 130.0, 131.0, 160.0, 200.0, 229.0, 230.0):
        step = losses.step(known, HELD, -clock, clock, REPEAT)
        known = step.known
        told.append(step.whole)
    assert told == [True, False, False, True, False, True, True, False, True]


def test_what_was_given_up_is_told_as_such() -> None:
    assert losses.released("dummy0", "10.10.10.10", 1000.0) == change("held", "released", 1000.0, 0)


def test_the_whole_truth() -> None:
    seen = Sight(
        "dummy0", {"10.10.10.10": False, "fd00::10": True}, {IGNORE: 0}, frozenset({IGNORE})
    )
    step = losses.step(Known(), seen, 1000.0, 5.0, REPEAT)
    assert losses.whole_state(step.known, seen) == {
        "interface": "dummy0",
        "vips": [
            {"address": "10.10.10.10", "now": "lost", "since": 1000.0, "count": 1},
            {"address": "fd00::10", "now": "held", "since": None, "count": 0},
        ],
        "sysctls": {IGNORE: 0},
        "quiet": False,
    }


@given(st.lists(st.booleans(), min_size=1, max_size=20))
def test_who_heard_all_changes_knows_the_state(held: list[bool]) -> None:
    told = [news for look in looks(*map(sight, held)) for news in look]
    believed = {"restored": True, "lost": False}[told[-1]["now"]] if told else True
    assert believed == held[-1]
    assert sum(news["now"] == "lost" for news in told) == max(
        (news["count"] for news in told), default=0
    )
