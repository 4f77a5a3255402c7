"""What a director's table should hold: pillar, verdicts and wishes in one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from saltext.lvs import description, model, operating, overlay, persistence
from saltext.lvs.errors import DamagedState, WrongState
from saltext.lvs.overlay import Found, Verdicts
from saltext.lvs.policy import Wish
from saltext.lvs.table import Table
from saltext.lvs.wire import Connections
from saltext.lvs.wishes import Wishes

AT, WALL = 1000.0, 1.8e9
NAMES = ("rs1", "rs2", "rs3", "rs4")
NOTHING = Wishes()
UP = Found("up", True, 100, "answers")
DOWN = Found("down", False, 900, "refused")
UNKNOWN = Found("unknown", None, 900)
UNASKABLE = replace(UNKNOWN, reason="no such address", checked=990)


def cluster(**settings: Any) -> model.Cluster:
    return model.from_pillar(pillar(**settings))


def pillar(**settings: Any) -> dict[str, Any]:
    real_servers = {name: {"weight": 50} for name in NAMES}
    web = {"address": "10.10.10.10", "port": 80, "real_servers": real_servers, **settings}
    return {
        "lvs": {
            "name": "prod",
            "directors": {"lb1": {"router_id": "A", "address": "10.10.10.11"}},
            "real_servers": {name: f"10.10.10.4{name[-1]}" for name in NAMES},
            "virtual_servers": {"web": web},
        }
    }


def verdicts(at: float = AT, **found: Found) -> Verdicts:
    every = {**dict.fromkeys(NAMES, UP), **found}
    return Verdicts("boot", at, {("web", name): one for name, one in every.items()})


def table(of: model.Cluster, *weights: int | None) -> Table:
    """The pillar's table with other weights; one of None is not there."""
    (server,) = of.table().values()
    real_servers = tuple(
        replace(real, weight=weight)
        for real, weight in zip(server.real_servers, weights, strict=True)
        if weight is not None
    )
    return Table.of([replace(server, real_servers=real_servers)])


def weights(of: Table) -> list[tuple[int, int]]:
    """By the last digit of the real server's address."""
    (server,) = of.values()
    return [(int(str(real.key.address)[-1]), real.weight) for real in server.real_servers]


ALL = (50, 50, 50, 50)
DRAIN_2 = Wishes({("web", "rs2"): Wish(drain=True, why="disk")})
DRAIN_2_EVERYWHERE = Wishes({("*", "rs2"): Wish(drain=True)})
STALE = AT - 600


CASES = {
    "nothing is known: the pillar counts": ({}, None, NOTHING, (50, 0, 5, None), ALL),
    "a dead one is out": ({}, verdicts(rs2=DOWN), NOTHING, ALL, (50, 0, 50, 50)),
    "a dead one stays out": ({}, verdicts(rs2=DOWN), NOTHING, (50, 0, 50, 50), (50, 0, 50, 50)),
    "a dead one is out of the table": (
        {"on_failure": "remove"},
        verdicts(rs2=DOWN),
        NOTHING,
        ALL,
        (50, None, 50, 50),
    ),
    "a live one has the pillar's weight": ({}, verdicts(), NOTHING, (50, 0, 5, None), ALL),
    "who is unknown is not put back": (
        {},
        verdicts(rs2=UNKNOWN),
        NOTHING,
        (50, 0, 50, 50),
        (50, 0, 50, 50),
    ),
    "who is unknown gets a new weight": ({}, verdicts(rs2=UNKNOWN), NOTHING, (50, 5, 50, 50), ALL),
    "who cannot be asked, and was never taken out, has the pillar's weight": (
        {},
        verdicts(rs1=UNASKABLE, rs2=UNASKABLE),
        NOTHING,
        (50, 0, 50, 50),
        ALL,
    ),
    "who cannot be asked any more, and was taken out, stays out": (
        {},
        verdicts(rs2=replace(UNASKABLE, was_away=True)),
        NOTHING,
        (50, 0, 50, 50),
        (50, 0, 50, 50),
    ),
    "who is failing, but not often enough yet, is not put back": (
        {},
        verdicts(rs2=replace(UNASKABLE, count=1)),
        NOTHING,
        (50, 0, 50, 50),
        (50, 0, 50, 50),
    ),
    "an old verdict is nothing where there are no checks any more": (
        {"check": {"types": []}},
        verdicts(rs2=DOWN),
        NOTHING,
        (50, 0, 50, 50),
        ALL,
    ),
    "one that is not checked has the pillar's weight": (
        {},
        Verdicts("boot", AT, {}),
        NOTHING,
        (50, 0, 50, 50),
        ALL,
    ),
    "a drained one is out, without verdicts": ({}, None, DRAIN_2, ALL, (50, 0, 50, 50)),
    "a drained one is out, though it is well": ({}, verdicts(), DRAIN_2, ALL, (50, 0, 50, 50)),
    "a drained host is out": ({}, None, DRAIN_2_EVERYWHERE, ALL, (50, 0, 50, 50)),
    "a wish that is over is none": (
        {},
        None,
        Wishes({("web", "rs2"): Wish(weight=7, until=WALL - 1)}),
        ALL,
        ALL,
    ),
    "an operator's weight": (
        {},
        None,
        Wishes({("web", "rs2"): Wish(weight=7)}),
        ALL,
        (50, 7, 50, 50),
    ),
    "old verdicts: who was out stays out": (
        {},
        verdicts(STALE, rs2=DOWN),
        NOTHING,
        (50, 0, 50, 50),
        (50, 0, 50, 50),
    ),
    "old verdicts: who was out of the table stays so": (
        {"on_failure": "remove"},
        verdicts(STALE, rs2=DOWN),
        NOTHING,
        (50, None, 50, 50),
        (50, None, 50, 50),
    ),
    "old verdicts: who has clients again keeps them": (
        {},
        verdicts(STALE, rs2=DOWN),
        NOTHING,
        (50, 9, 50, 50),
        (50, 9, 50, 50),
    ),
    "the floor keeps the last ones that failed": (
        {"min_in_service": 0.75},
        verdicts(rs1=DOWN, rs2=replace(DOWN, since=950)),
        NOTHING,
        ALL,
        (0, 50, 50, 50),
    ),
    "a backup waits": (
        {
            "real_servers": {
                **{key: {"weight": 50} for key in NAMES[:3]},
                "rs4": {"weight": 50, "backup": True},
            }
        },
        None,
        NOTHING,
        ALL,
        (50, 50, 50, 0),
    ),
}


@pytest.mark.parametrize(
    ("settings", "known", "wishes", "held", "wanted"), CASES.values(), ids=CASES.keys()
)
def test_the_table_is_the_pillars_with_what_is_known(
    settings: dict[str, Any],
    known: Verdicts | None,
    wishes: Wishes,
    held: tuple[int | None, ...],
    wanted: tuple[int | None, ...],
) -> None:
    of = cluster(**settings)
    found = overlay.desired(of, known, wishes, table(of, *held), AT, WALL)
    assert found.table == table(of, *wanted)
    # What is so is left so.
    again = overlay.desired(of, known, wishes, found.table, AT, WALL)
    assert (again.table, again.notes) == (found.table, found.notes)


@pytest.mark.parametrize("known", [None, verdicts()], ids=["never checked", "up"])
def test_a_wished_weight_is_none_for_who_is_not_enabled(known: Verdicts | None) -> None:
    described = pillar()
    described["lvs"]["real_servers"]["rs2"] = {"address": "10.10.10.42", "enabled": False}
    of = model.from_pillar(described)
    wishes = Wishes({("web", "rs2"): Wish(weight=10), ("*", "rs2"): Wish(weight=20)})
    found = overlay.desired(of, known, wishes, table(of, 50, 10, 50, 50), AT, WALL)
    assert (found.table, found.notes) == (table(of, 50, 0, 50, 50), ())


def test_draining_one_after_the_other_leaves_nobody_out_where_none_can_be_asked() -> None:
    of = cluster()
    config = of.virtual_servers["web"]
    known = verdicts(**dict.fromkeys(NAMES, UNASKABLE))
    (held,) = table(of, *ALL).values()
    for name in NAMES:
        for wishes in (Wishes({("*", name): Wish(drain=True)}), NOTHING):
            decision = overlay.decide(config, of, known, wishes, held, AT, WALL)
            held = overlay.changed(held, config, decision, of)
    assert [real.weight for real in held.real_servers] == [*ALL]


def test_it_is_said_why_the_table_is_not_the_pillars() -> None:
    of = cluster()
    found = overlay.desired(
        of, verdicts(STALE, rs3=DOWN), DRAIN_2, table(of, *ALL[:2], 0, 50), AT, WALL
    )
    assert found.notes == (
        "the real servers were last checked 10 minutes ago: what was found then holds, until the "
        "beacon real_server runs again",
        "rs2 of web has weight 0 instead of 50: drained by an operator: disk",
        "rs3 of web has weight 0 instead of 50: failed: refused",
    )


def test_nothing_is_said_where_nothing_is_known() -> None:
    of = cluster()
    base = Table.from_mapping(of.table())
    found = overlay.desired(of, None, NOTHING, {}, AT, WALL, base)
    assert found.table is base
    assert (found.decisions, found.notes) == ({}, ())


def test_many_notes_are_cut() -> None:
    assert overlay.bounded(["a"] * 25) == (*["a"] * 20, "and 5 more; lvs.health tells all")


FOUND = st.builds(
    Found,
    state=st.sampled_from(["up", "down", "unknown", "held", "rising", "falling"]),
    serves=st.sampled_from([True, False, None]),
    since=st.floats(0, AT),
    was_away=st.booleans(),
    checked=st.none() | st.floats(0, AT),
    count=st.integers(0, 2),
)
WISH = st.builds(Wish, drain=st.booleans(), weight=st.none() | st.integers(0, 100))
WEIGHTS = st.lists(st.none() | st.integers(0, 100), min_size=4, max_size=4)


@given(
    found=st.dictionaries(st.sampled_from(NAMES), FOUND),
    wishes=st.dictionaries(st.tuples(st.sampled_from(["web", "*"]), st.sampled_from(NAMES)), WISH),
    held=WEIGHTS,
    at=st.sampled_from([AT, STALE]),
    on_failure=st.sampled_from(["drain", "remove"]),
)
def test_applying_twice_changes_nothing_more(
    found: dict[str, Found],
    wishes: dict[tuple[str, str], Wish],
    held: list[int | None],
    at: float,
    on_failure: str,
) -> None:
    of = cluster(on_failure=on_failure)
    known = Verdicts("boot", at, {("web", name): one for name, one in found.items()})
    once = overlay.desired(of, known, Wishes(wishes), table(of, *held), AT, WALL).table
    twice = overlay.desired(of, known, Wishes(wishes), once, AT, WALL).table
    assert weights(once) == weights(twice)
    for name in NAMES:
        if wishes.get(("web", name), Wish()).drain:
            assert dict(weights(once)).get(int(name[-1]), 0) == 0


def test_one_virtual_server_is_changed_and_else_stays_as_it_is() -> None:
    of = cluster()
    config = of.virtual_servers["web"]
    (held,) = table(of, 50, 50, 50, None).values()
    foreign = replace(
        held.real_servers[0], key=replace(held.real_servers[0].key, port=81), upper_threshold=9
    )
    held = replace(held, scheduler="rr", real_servers=model.in_order([*held.real_servers, foreign]))
    decision = overlay.decide(config, of, verdicts(rs2=DOWN), NOTHING, held, AT, WALL)
    changed = overlay.changed(held, config, decision, of)
    assert changed == replace(
        held,
        real_servers=tuple(
            replace(real, weight=0) if str(real.key.address).endswith("42") else real
            for real in held.real_servers
        ),
    )


@pytest.mark.parametrize(
    ("scheduler", "active", "wanted"),
    [("wlc", 1, 50), ("wlc", 0, 5), ("wrr", 1, 5)],
    ids=["wlc would starve it", "it is cold", "wrr counts no connections"],
)
def test_who_comes_back_with_connections_begins_with_its_whole_weight(
    monkeypatch: pytest.MonkeyPatch, scheduler: str, active: int, wanted: int
) -> None:
    of = cluster(slow_start=100, scheduler=scheduler)
    config = of.virtual_servers["web"]
    (held,) = table(of, 50, 0, 50, 50).values()
    counted = {(config.key, held.real_servers[1].key): Connections(active, 7, 0)}
    read = SimpleNamespace(connections=counted)
    monkeypatch.setattr("saltext.lvs.ipvs.read", lambda only: read)
    back = Found("up", True, AT - 10, "answers", was_away=True)
    known = verdicts(rs2=back)
    found = overlay.busy(config, of, known, held)
    assert found == ({("web", "rs2"): replace(back, busy=True)} if wanted == 50 else {})
    known = replace(known, servers={**known.servers, **found})
    decision = overlay.decide(config, of, known, NOTHING, held, AT, WALL)
    assert decision.shares["rs2"].weight == wanted


# --------------------------------------------------------------------------------------------------
# On disk


def test_verdicts_are_read_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saltext.lvs.events.boot_id", lambda: "boot")
    path = str(tmp_path / "run" / "health.json")
    assert overlay.read(path) is None
    one = Found("falling", True, 1.5, "no answer", True, 2.25, 0.5, 2, True, 3)
    known = Verdicts(
        "boot", AT, {("web", "rs1"): one, ("web", "rs2"): UNKNOWN}, {"web": False}, False
    )
    overlay.write(known, path)
    assert overlay.read(path) == known
    assert Path(path).stat().st_mode & 0o777 == 0o644
    overlay.write(replace(known, boot_id="another"), path)
    assert overlay.read(path) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"boot_id": "boot"}',
        '{"boot_id": "boot", "at": 1, "quorum": {}, "virtual_servers": {"web": {"rs1": []}}}',
    ],
)
def test_damaged_verdicts_are_not_taken_for_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr("saltext.lvs.events.boot_id", lambda: "boot")
    path = tmp_path / "health.json"
    path.write_text(text)
    with pytest.raises(WrongState, match="is damaged"):
        overlay.read(str(path))


def test_verdicts_are_stale_after_a_minute() -> None:
    known = Verdicts("boot", AT)
    assert (known.stale(AT + 60), known.stale(AT + 61)) == (False, True)


def test_a_description_is_a_pillar_for_one_director(tmp_path: Path) -> None:
    path = str(tmp_path / "cluster.json")
    assert description.read(path) is None
    given_pillar = pillar()
    given_pillar["lvs"]["directors"]["lb2"] = {"router_id": "B", "address": "10.10.10.12"}
    Path(path).write_text(description.file_of(given_pillar, "lb1", path).text)
    kept = description.read(path)
    assert kept is not None
    assert kept["lvs"]["directors"] == {"lb1": {"address": "10.10.10.11"}}
    assert model.from_pillar(kept).virtual_servers == cluster().virtual_servers
    Path(path).write_text("[]")
    with pytest.raises(DamagedState):
        description.read(path)


def test_what_a_check_sends_is_not_told_with_what_changes(tmp_path: Path) -> None:
    path = str(tmp_path / "cluster.json")
    secret = pillar(check={"types": ["tcp"], "send": "AUTH opensesame\r\n"})
    new = description.file_of(secret, "lb1", path)
    assert "opensesame" in new.text
    for change in (persistence.Change(path, None, new), persistence.Change(path, new, None)):
        assert change.as_data() == {"diff": persistence.NOT_TOLD}


# --------------------------------------------------------------------------------------------------
# Waiting


def test_a_drain_waits_until_nobody_is_served() -> None:
    counts = iter([3, 3, 1, 0])
    now = [0.0]
    told: list[tuple[float, int]] = []
    found = operating.wait(
        lambda: {"web": next(counts)},
        10,
        lambda after, connections: told.append((after, connections["web"])),
        clock=lambda: now[0],
        sleep=lambda seconds: now.__setitem__(0, now[0] + seconds),
    )
    assert found == ({"web": 0}, 1.5)
    assert told == [(0, 3), (1.5, 0)]


def test_how_a_wait_goes_on_is_told_now_and_then() -> None:
    now = [0.0]
    told: list[float] = []
    operating.wait(
        lambda: {"web": 100 - int(now[0])},
        20,
        lambda after, connections: told.append(after),
        clock=lambda: now[0],
        sleep=lambda seconds: now.__setitem__(0, now[0] + seconds),
    )
    assert told == [0, 5, 10, 15, 20]


def test_a_drain_does_not_wait_for_ever() -> None:
    now = [0.0]
    found = operating.wait(
        lambda: {"web": 1},
        1.2,
        lambda after, connections: None,
        clock=lambda: now[0],
        sleep=lambda seconds: now.__setitem__(0, now[0] + seconds),
    )
    assert found == ({"web": 1}, pytest.approx(1.2))
