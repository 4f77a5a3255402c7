"""The watcher of a director's real servers, on a table in memory: in what order it sets, tells and
writes, and what it leaves alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from saltext.lvs import description, healthwatch, ipvs, model, overlay, wishes
from saltext.lvs.checks import Verdict
from saltext.lvs.errors import CommandFailed, DamagedState, KernelError
from saltext.lvs.ipvs import Outcome
from saltext.lvs.model import VirtualServer, VirtualServerKey
from saltext.lvs.policy import Wish
from saltext.lvs.table import Table

Events = list[dict[str, Any]]


def pillar(count: int = 1, reaction: str = "both", **settings: Any) -> dict[str, Any]:
    """So many virtual servers, each with rs1 and rs2."""
    web = {
        "port": 80,
        "check": {"types": ["tcp"]},
        "min_in_service": 0,
        "slow_start": 0,
        "real_servers": {"rs1": {"weight": 50}, "rs2": {"weight": 50}},
        **settings,
    }
    return {
        "lvs": {
            "name": "prod",
            "directors": {"lb1": {"router_id": "A"}},
            "real_servers": {"rs1": "10.10.10.41", "rs2": "10.10.10.42"},
            "reaction": reaction,
            "virtual_servers": {
                f"web{number}": {**web, "address": f"10.10.10.{number}"}
                for number in range(1, count + 1)
            },
        }
    }


@dataclass
class Kernel:
    """A table that is edited as the kernel's is."""

    table: dict[VirtualServerKey, VirtualServer] = field(default_factory=dict)
    edited: list[str] = field(default_factory=list)
    seconds: float = 0
    error: Exception | None = None

    def edit(
        self,
        key: VirtualServerKey,
        change: Callable[[VirtualServer | None], VirtualServer | None],
    ) -> Outcome:
        clock.now += self.seconds
        self.edited.append(str(key.address))
        if self.error is not None:
            raise self.error
        changed = change(self.table.get(key))
        if changed is not None:
            self.table[key] = changed
        return Outcome((), Table({}))

    def weights(self) -> list[list[int]]:
        return [[real.weight for real in one.real_servers] for one in self.table.values()]


@dataclass
class Clock:
    """Seconds since the boot, and since 1970."""

    now: float = 1000.0
    wall: float = 1.8e9

    def __call__(self) -> float:
        return self.now


clock = Clock()


class Engine:
    """Asks nobody."""

    waiting = 0

    def set(self, checks: Any) -> None:
        pass


@dataclass
class Watched:
    memory: healthwatch.Memory
    kernel: Kernel

    def look(self, *verdicts: tuple[str, str, bool], repeat: float = 3600) -> Events:
        """One look, after these verdicts."""
        found = [
            Verdict(key, ok, f"{ok}", 1, clock.now)
            for key in (check.key for check in self.memory.duty.checks if self.memory.duty)
            for virtual_server, real_server, ok in verdicts
            if (key.virtual_server, key.real_server) == (virtual_server, real_server)
        ]
        self.memory.observed.take(found, clock.now)
        return list(self.memory.look("lb1", repeat, True, True))

    def changes(self, events: Events) -> list[dict[str, Any]]:
        return [one for event in events if event["tag"] == "change" for one in event["changes"]]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    one = Kernel()
    monkeypatch.setattr(ipvs, "edit", one.edit)
    return one


Watching = Callable[..., Watched]


@pytest.fixture
def watched(kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watching:
    """A watcher whose real servers are all up, and that has told and written everything."""
    clock.now, clock.wall = 1000.0, 1.8e9
    monkeypatch.setattr(overlay, "clock", clock)
    monkeypatch.setattr(healthwatch.time, "time", lambda: clock.wall)
    monkeypatch.setattr(description, "read", lambda: None)

    def begin(given: dict[str, Any], up: bool = True) -> Watched:
        memory = healthwatch.Memory(
            health=str(tmp_path / "health.json"), wishes_path=str(tmp_path / "wishes.json")
        )
        memory.driver = type("Driver", (), {"engine": Engine()})()  # type: ignore[assignment]
        kernel.table = dict(model.from_pillar(given).table())
        healthwatch.brief(memory, given)
        one = Watched(memory, kernel)
        list(memory.look("lb1", 3600, True, True))
        names = list(given["lvs"]["virtual_servers"])
        if up:
            one.look(*((name, server, True) for name in names for server in ("rs1", "rs2")))
        for _ in range(3):
            clock.now += 30
            one.look()
        clock.now += 1
        kernel.edited.clear()
        return one

    return begin


def in_short(changes: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    words = ("virtual_server", "real_server", "was", "now", "weight_was", "weight_now")
    return [tuple(one.get(word) for word in words) for one in changes]


DOWN = ("web1", "rs1", False)
OUT = ("web1", "rs1", "up", "down", 50, 0)


def test_it_sets_first_and_tells_then(watched: Watching) -> None:
    one = watched(pillar())
    one.memory.observed.take(
        [Verdict(one.memory.duty.checks[0].key, False, "refused", 1, clock.now)], clock.now
    )
    events = one.memory.look("lb1", 3600, True, True)
    event = next(events)
    assert one.kernel.weights() == [[0, 50]]
    assert (event["tag"], event["id"], event["cluster"], event["acted"]) == (
        "change",
        "lb1",
        "prod",
        True,
    )
    assert in_short(event["changes"]) == [OUT]
    assert event["changes"][0]["reason"] == "refused"
    assert list(events) == []


def test_just_the_virtual_server_that_is_concerned_is_touched(watched: Watching) -> None:
    one = watched(pillar(3))
    one.look(DOWN)
    # Once more when the file tells of it: who read the older one may have undone it.
    assert one.kernel.edited == ["10.10.10.1", "10.10.10.1"]
    one.kernel.edited.clear()
    clock.now += 30
    one.look()
    assert one.kernel.edited == []


def test_what_a_job_set_by_the_older_file_is_set_right_and_told(watched: Watching) -> None:
    one = watched(pillar())
    one.memory.write_at = clock.now + 1
    assert in_short(one.changes(one.look(DOWN))) == [OUT]
    one.kernel.table = dict(model.from_pillar(pillar()).table())
    clock.now += 1
    assert in_short(one.changes(one.look())) == [("web1", "rs1", "down", "down", 50, 0)]
    assert one.kernel.weights() == [[0, 50]]


def test_the_file_tells_what_was_found(watched: Watching) -> None:
    one = watched(pillar())
    one.look(DOWN)
    read = overlay.read(one.memory.health)
    assert read is not None
    assert read.servers["web1", "rs1"] == overlay.Found(
        "down", False, clock.now, "False", True, clock.now, 1.0, 0, falls=1
    )
    assert read.quorum == {"web1": True}


def test_the_file_is_written_now_and_then_also_when_nothing_changes(watched: Watching) -> None:
    one = watched(pillar())
    before = os.stat(one.memory.health).st_ino
    clock.now += healthwatch.WRITE_EVERY_SECONDS - 5
    one.look()
    clock.now += 5
    between = os.stat(one.memory.health).st_ino
    one.look()
    assert (between == before, os.stat(one.memory.health).st_ino == before) == (True, False)


def test_many_virtual_servers_are_set_slice_by_slice_and_none_is_told_before(
    watched: Watching,
) -> None:
    one = watched(pillar(5))
    one.memory.gather = 0
    one.kernel.seconds = healthwatch.SLICE_SECONDS * 0.6
    one.memory.write_at = clock.now + 60
    names = [f"web{number}" for number in range(1, 6)]
    events = one.look(*((name, "rs1", False) for name in names))
    told = one.changes(events)
    assert len(one.kernel.edited) == len(told) == 2
    assert one.memory.seconds_left() == 0
    for _ in range(3):
        told += one.changes(one.look())
    assert sorted(change["virtual_server"] for change in told) == names
    assert {(change["weight_was"], change["weight_now"]) for change in told} == {(50, 0)}
    assert one.memory.queue == {}


def test_what_follows_soon_is_told_together(watched: Watching) -> None:
    one = watched(pillar(2))
    assert len(one.changes(one.look(DOWN))) == 1
    clock.now += 0.01
    assert one.look(("web1", "rs2", False)) == []
    assert 0 < one.memory.seconds_left() <= one.memory.gather
    clock.now += 0.02
    assert one.look(("web2", "rs1", False)) == []
    assert one.kernel.weights() == [[0, 0], [0, 50]]
    clock.now += one.memory.gather
    (event,) = one.look()
    assert [change[:2] for change in in_short(event["changes"])] == [
        ("web1", None) if "real_server" not in change else ("web1", "rs2")
        for change in event["changes"]
        if change["virtual_server"] == "web1"
    ] + [("web2", "rs1")]


def test_who_leaves_it_to_the_reactor_touches_nothing(watched: Watching) -> None:
    one = watched(pillar(reaction="reactor"))
    (event,) = one.look(DOWN)
    assert in_short(event["changes"]) == [("web1", "rs1", "up", "down", None, None)]
    assert (event["acted"], one.kernel.weights()) == (False, [[50, 50]])


def test_the_reactor_is_told_of_nothing_that_jobs_cannot_read_yet(watched: Watching) -> None:
    one = watched(pillar(2, reaction="reactor"))
    (event,) = one.look(DOWN)
    assert in_short(event["changes"]) == [("web1", "rs1", "up", "down", None, None)]
    clock.now += healthwatch.GATHER_SECONDS + 0.01
    assert one.look(("web2", "rs1", False)) == []
    assert one.memory.seconds_left() == pytest.approx(one.memory.write_at - clock.now)
    clock.now = one.memory.write_at
    (event,) = one.look()
    read = overlay.read(one.memory.health)
    assert read is not None
    assert (in_short(event["changes"]), read.servers["web2", "rs1"].state) == (
        [("web2", "rs1", "up", "down", None, None)],
        "down",
    )
    assert one.look() == []


def test_what_time_alone_changes_is_set_also_where_the_reactor_acts(watched: Watching) -> None:
    one = watched(pillar(reaction="reactor", slow_start=100, scheduler="wrr"))
    one.look(DOWN)
    (server,) = one.kernel.table.values()
    out = replace(server.real_servers[0], weight=0)
    in_again = replace(server.real_servers[0], weight=1)
    one.kernel.table[server.key] = replace(server, real_servers=(out, server.real_servers[1]))
    clock.now += 10
    (event,) = one.look(("web1", "rs1", True))
    assert in_short(event["changes"]) == [("web1", "rs1", "down", "up", None, None)]
    # Nobody has let it in yet.
    clock.now += 10
    assert (one.look(), one.kernel.weights()) == ([], [[0, 50]])
    one.kernel.table[server.key] = replace(server, real_servers=(in_again, server.real_servers[1]))
    seen = []
    for _ in range(9):
        clock.now += 10
        assert one.look() == []
        seen.append(one.kernel.weights()[0][0])
    assert seen == [10, 15, 20, 25, 30, 35, 40, 45, 50]


@pytest.mark.parametrize("weight", [7, 0])
def test_a_wish_ends_by_itself_also_where_the_reactor_acts(watched: Watching, weight: int) -> None:
    one = watched(pillar(reaction="reactor"))
    wish = Wish(weight=weight, until=clock.wall + 60)
    wishes.change({("web1", "rs1"): wish}, one.memory.wishes_path, clock.wall)
    (server,) = one.kernel.table.values()
    wished = replace(server.real_servers[0], weight=weight)
    one.kernel.table[server.key] = replace(server, real_servers=(wished, server.real_servers[1]))
    assert (one.look(), one.kernel.weights()) == ([], [[weight, 50]])
    clock.wall += 61
    clock.now += 61
    (event,) = one.look()
    assert (event["acted"], one.kernel.weights()) == (True, [[50, 50]])


def test_the_quorum_is_remembered_also_where_the_reactor_acts(watched: Watching) -> None:
    one = watched(pillar(reaction="reactor", quorum=80, hysteresis=20))
    one.look(DOWN)
    read = overlay.read(one.memory.health)
    assert read is not None
    assert read.quorum == {"web1": False}


def test_what_cannot_be_set_is_told_once_and_tried_every_second(watched: Watching) -> None:
    one = watched(pillar())
    one.kernel.error = KernelError("add", 12)
    (event,) = one.look(DOWN)
    assert event["acted"] is False
    real, whole = event["changes"]
    assert in_short([real]) == [("web1", "rs1", "up", "down", None, None)]
    assert whole["problem"] == "cannot add: Cannot allocate memory (ENOMEM)"
    for _ in range(3):
        clock.now += healthwatch.AGAIN_SECONDS
        assert one.look() == []
    one.kernel.error = None
    clock.now += healthwatch.AGAIN_SECONDS
    (event,) = one.look()
    assert in_short(event["changes"][:1]) == [("web1", "rs1", "down", "down", 50, 0)]
    assert (event["acted"], event["changes"][-1]["problem"]) == (True, None)


def test_what_fails_in_a_look_is_decided_anew_at_the_next(watched: Watching) -> None:
    one = watched(pillar())
    one.kernel.error = ValueError("nobody has thought of it")
    with pytest.raises(ValueError, match="nobody"):
        one.look(DOWN)
    one.memory.lose_track()
    one.kernel.error = None
    assert [change[:4] for change in in_short(one.changes(one.look()))] == [OUT[:4]]
    assert one.kernel.weights() == [[0, 50]]


def test_who_was_out_comes_back_when_nobody_is_asked_any_more(watched: Watching) -> None:
    one = watched(pillar(2))
    one.look(DOWN)
    assert one.kernel.weights() == [[0, 50], [50, 50]]
    one.kernel.edited.clear()
    healthwatch.brief(one.memory, pillar(2, check={"types": []}))
    one.look()
    assert (one.kernel.weights(), one.kernel.edited) == ([[50, 50], [50, 50]], ["10.10.10.1"])


# --------------------------------------------------------------------------------------------------
# Wishes


def test_only_those_of_whom_something_else_is_wished_are_decided_anew(watched: Watching) -> None:
    one = watched(pillar(3))
    wishes.change({("web2", "rs1"): Wish(drain=True)}, one.memory.wishes_path, clock.wall)
    one.look()
    assert (one.kernel.weights(), one.kernel.edited) == (
        [[50, 50], [0, 50], [50, 50]],
        ["10.10.10.2"],
    )
    one.kernel.edited.clear()
    wishes.change({("*", "rs2"): Wish(weight=7)}, one.memory.wishes_path, clock.wall)
    one.look()
    assert one.kernel.weights() == [[50, 7], [0, 7], [50, 7]]
    assert sorted(one.kernel.edited) == ["10.10.10.1", "10.10.10.2", "10.10.10.3"]
    one.kernel.edited.clear()
    one.look()
    assert one.kernel.edited == []


def test_a_wish_ends_by_the_wall_clock_and_is_back_where_that_is_set_back(
    watched: Watching,
) -> None:
    one = watched(pillar())
    wish = Wish(weight=7, until=clock.wall + 60)
    wishes.change({("web1", "rs1"): wish}, one.memory.wishes_path, clock.wall)
    found = []
    for passed in (0, 59, 1, 1, -30, 1, 30):
        clock.wall += passed
        one.look()
        found.append(one.kernel.weights()[0][0])
    assert found == [7, 7, 50, 50, 7, 7, 50]


def test_a_wish_that_a_job_notes_while_it_has_the_table_counts(
    watched: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = watched(pillar())
    edit = one.kernel.edit

    def late(key: Any, change: Any) -> Outcome:
        wishes.change({("web1", "rs2"): Wish(drain=True)}, one.memory.wishes_path, clock.wall)
        return edit(key, change)

    monkeypatch.setattr(ipvs, "edit", late)
    one.look(DOWN)
    assert one.kernel.weights() == [[0, 0]]


def test_while_wishes_cannot_be_read_nobody_gets_more(watched: Watching, tmp_path: Path) -> None:
    (tmp_path / "wishes.json").write_text("{")
    one = watched(pillar(), up=False)
    (server,) = one.kernel.table.values()
    drained = replace(server.real_servers[0], weight=0)
    one.kernel.table[server.key] = replace(server, real_servers=(drained, server.real_servers[1]))
    told = one.changes(one.look(("web1", "rs1", True), ("web1", "rs2", True)))
    assert one.kernel.weights() == [[0, 50]]
    assert told[-1]["problem"].startswith(healthwatch.CAUTIOUS)
    one.look(("web1", "rs2", False))
    assert one.kernel.weights() == [[0, 0]]
    (tmp_path / "wishes.json").unlink()
    clock.now += 1
    told = one.changes(one.look(("web1", "rs2", True)))
    assert one.kernel.weights() == [[50, 50]]
    assert told[-1]["problem"] is None


def test_wishes_that_were_read_before_hold_while_they_cannot_be_read(watched: Watching) -> None:
    one = watched(pillar())
    wishes.change({("web1", "rs1"): Wish(drain=True)}, one.memory.wishes_path, clock.wall)
    one.look()
    Path(one.memory.wishes_path).write_text("{", encoding="utf-8")
    with pytest.raises(DamagedState):
        wishes.read(one.memory.wishes_path)
    one.look(("web1", "rs2", False))
    clock.now += 30
    *_, state = one.look(("web1", "rs2", True), repeat=1)
    assert (one.kernel.weights(), one.memory.wishes_path in state["problem"]) == ([[0, 50]], True)


# --------------------------------------------------------------------------------------------------
# What is asked


def test_who_is_no_director_has_nothing_to_do(watched: Watching) -> None:
    given = pillar()
    memory = healthwatch.Memory()
    healthwatch.brief(memory, given)
    assert list(memory.look("rs1", 30, True, True)) == []
    assert memory.duty is None


def test_a_pillar_that_is_not_there_yet_changes_nothing_and_one_without_cluster_ends_it(
    watched: Watching,
) -> None:
    one = watched(pillar())
    healthwatch.brief(one.memory, {})
    one.look()
    assert one.memory.duty is not None
    healthwatch.brief(one.memory, {"_errors": ["the master cannot render it"]})
    one.look()
    assert one.memory.duty is not None
    healthwatch.brief(one.memory, {"something": "else"})
    assert list(one.memory.look("lb1", 30, True, True)) == []
    assert one.memory.duty is None


def test_the_same_pillar_in_another_object_is_not_read_again(watched: Watching) -> None:
    one = watched(pillar())
    duty = one.memory.duty
    healthwatch.brief(one.memory, json.loads(json.dumps(pillar())))
    one.look()
    assert one.memory.duty is duty


def test_an_event_of_ten_thousand_changes_is_many_events(watched: Watching) -> None:
    one = watched(pillar())
    one.memory.untold = [(True, {"virtual_server": "web1"})] * (healthwatch.MOST_CHANGES * 2 + 1)
    events = one.look()
    assert [len(event["changes"]) for event in events] == [500, 500, 1]


def test_by_the_description_as_last_applied_the_same_is_asked(
    watched: Watching, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given = pillar(2)
    one = watched(given)
    assert one.memory.duty is not None
    text = description.file_of(given, "lb1").text
    memory = healthwatch.Memory()
    memory.driver = one.memory.driver
    memory.health = str(tmp_path / "other.json")
    monkeypatch.setattr(description, "read", lambda: json.loads(text))
    (state,) = memory.look("lb1", 30, True, True)
    assert memory.duty is not None
    assert (memory.duty.checks, memory.duty.rules) == (
        one.memory.duty.checks,
        one.memory.duty.rules,
    )
    assert (state["tag"], state["cluster"]) == ("state", "prod")
    # The pillar, once it is there, takes its place.
    healthwatch.brief(memory, pillar(3))
    list(memory.look("lb1", 30, True, True))
    assert len(memory.duty.checks) == 6


def test_who_is_no_director_any_more_asks_nobody_and_has_nothing_to_do(watched: Watching) -> None:
    one = watched(pillar(2, slow_start=100, scheduler="wrr"))
    one.look(DOWN, ("web2", "rs1", False))
    clock.now += 10
    one.look(("web1", "rs1", True))
    asked: list[Any] = []
    assert one.memory.driver is not None
    one.memory.driver.engine.set = asked.append  # type: ignore[method-assign]
    given = pillar(2)
    given["lvs"]["directors"] = {"lb2": {"router_id": "LVS_B"}}
    healthwatch.brief(one.memory, given)
    assert list(one.memory.look("lb1", 3600, True, True)) == []
    assert (asked, one.memory.seconds_left()) == ([()], float("inf"))
    assert (one.memory.observed.found, one.memory.in_engine) == ({}, None)


def test_wishes_that_could_not_be_read_once_are_read_again(
    watched: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = watched(pillar())
    wishes.change({("*", "rs1"): Wish(drain=True)}, one.memory.wishes_path, clock.wall)
    read = wishes.read

    def fails(path: str) -> wishes.Wishes:
        raise CommandFailed("cannot read it: Too many open files")

    monkeypatch.setattr(wishes, "read", fails)
    one.look()
    monkeypatch.setattr(wishes, "read", read)
    clock.now += 1
    one.look()
    assert one.kernel.weights() == [[0, 50]]
