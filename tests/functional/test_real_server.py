"""The beacon real_server under Salt's own beacon runner, on a machine without IPVS."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import salt.beacons
import salt.loader
from saltext.lvs import description, healthwatch, overlay, watch, wishes

from tests.functional.conftest import Minion, MinionMaker, example

pytestmark = pytest.mark.usefixtures("without_ipvs")

BEACON = "real_server"


@pytest.fixture(autouse=True)
def own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing was seen yet by the process that tests share, nor by one before."""
    made = healthwatch.Memory.listener

    def elsewhere(memory: healthwatch.Memory) -> healthwatch.Driver:
        memory.health = str(tmp_path / "run" / "health.json")
        memory.wishes_path = str(tmp_path / "wishes.json")
        return made(memory)

    monkeypatch.setattr(healthwatch.Memory, "listener", elsewhere)
    monkeypatch.setattr(description, "read", lambda: None)
    watch.memories.clear()
    yield
    watch.release()


@pytest.fixture
def ports() -> Iterator[dict[str, socket.socket]]:
    """Two real servers on this machine."""
    found = {"rs1": socket.create_server(("127.1.0.1", 0), backlog=256)}
    port = found["rs1"].getsockname()[1]
    found["rs2"] = socket.create_server(("127.1.0.2", port), backlog=256)
    yield found
    for listener in found.values():
        listener.close()


def pillar(ports: dict[str, socket.socket]) -> dict[str, Any]:
    port = ports["rs1"].getsockname()[1]
    given = example("production")
    given["lvs"]["real_servers"] = {"rs1": "127.1.0.1", "rs2": "127.1.0.2"}
    given["lvs"]["virtual_servers"]["web"].update(
        port=port, check={"types": ["tcp"], "interval": 0.1, "connect_timeout": 1}
    )
    return given


class Beacons:
    """Salt's own beacon runner, with this beacon configured."""

    def __init__(self, minion: Minion, config: list[Any]) -> None:
        self.config = {BEACON: config}
        opts = {**minion.caller.opts, "beacons": self.config}
        functions = minion.caller.sminion.functions
        self.modules = salt.loader.beacons(opts, functions)
        self.runner = salt.beacons.Beacon(opts, functions)

    def tick(self) -> list[dict[str, Any]]:
        """One tick of Salt's, with what the watcher could not send: no bus here takes it."""
        found: list[dict[str, Any]] = self.runner.process(self.config, {})
        return found

    def ticks(self, count: int = 1) -> list[dict[str, Any]]:
        """Ticks, until so many events have come."""
        found = self.tick()
        end = time.monotonic() + 20
        while len(found) < count and time.monotonic() < end:
            time.sleep(0.05)
            found += self.tick()
        return found


def test_the_first_look_tells_the_whole_state(
    minion: MinionMaker, ports: dict[str, socket.socket]
) -> None:
    beacons = Beacons(minion("lb1", pillar(ports)), [{"repeat": 3600}])
    (event,) = beacons.ticks(1)
    assert event["tag"] == "salt/beacon/lb1/real_server/state"
    told = {key: event["data"][key] for key in event["data"] if key not in ("boot_id", "seq", "at")}
    unknown = {"now": "unknown", "since": None, "reason": "not asked yet"}
    assert told == {
        "id": "lb1",
        "cluster": "prod",
        "acts": True,
        "virtual_servers": [
            {
                "virtual_server": "web",
                "managed_by": "salt",
                "states": {"unknown": 2},
                "unchecked": 0,
                "quorum": True,
                "sorry": False,
                "kept": 0,
                "problem": None,
            }
        ],
        "virtual_server_count": 1,
        "not_up": [
            {
                "virtual_server": "web",
                "real_server": name,
                **unknown,
                "weight": None,
                "why": "",
            }
            for name in ("rs1", "rs2")
        ],
        "not_up_count": 2,
        "checks": 2,
        "asked": 0,
        "waiting": 0,
        "problem": None,
    }


def test_a_change_is_told_and_that_it_could_not_be_set(
    minion: MinionMaker, ports: dict[str, socket.socket]
) -> None:
    beacons = Beacons(minion("lb1", pillar(ports)), [{"repeat": 3600}])
    beacons.ticks(1)
    end = time.monotonic() + 20
    found = watch.memories[BEACON].observed.found  # type: ignore[attr-defined]
    while [one.state for one in found.values()] != ["up", "up"] and time.monotonic() < end:
        time.sleep(0.05)
    ports["rs1"].close()
    events: list[dict[str, Any]] = []
    while not (changes := _changes(events)) and time.monotonic() < end:
        time.sleep(0.05)
        events += beacons.tick()
    (change,) = changes
    words = ("virtual_server", "was", "now", "weight_was", "weight_now")
    assert [change[word] for word in words] == ["web", "up", "down", None, None]
    (told,) = [event["data"] for event in events if event["data"].get("changes") == changes]
    assert (event_tag(events), told["acted"]) == ("salt/beacon/lb1/real_server/change", False)


def event_tag(events: list[dict[str, Any]]) -> str:
    tags = {event["tag"] for event in events}
    (tag,) = tags
    return str(tag)


def _changes(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        change
        for event in events
        for change in event["data"].get("changes", [])
        if change.get("real_server") == "rs1"
    ]


def test_a_refresh_of_the_modules_is_no_news(
    minion: MinionMaker, ports: dict[str, socket.socket]
) -> None:
    lb1 = minion("lb1", pillar(ports))
    beacons = Beacons(lb1, [])
    assert event_tag(beacons.ticks(1)) == "salt/beacon/lb1/real_server/state"
    found = watch.memories[BEACON].observed.found  # type: ignore[attr-defined]
    end = time.monotonic() + 20
    while [one.state for one in found.values()] != ["up", "up"] and time.monotonic() < end:
        time.sleep(0.05)
    beacons.modules[f"{BEACON}.close"]([])
    beacons.tick()
    lb1.caller.sminion.gen_modules()
    again = Beacons(lb1, []).ticks(0)
    assert [event for event in again if event["tag"].endswith("state")] == []
    assert [one.state for one in found.values()] == ["up", "up"]


@pytest.mark.parametrize("minion_id", ["rs1", "elsewhere"])
def test_who_is_no_director_asks_nobody(
    minion: MinionMaker, minion_id: str, ports: dict[str, socket.socket]
) -> None:
    beacons = Beacons(minion(minion_id, pillar(ports)), [])
    assert beacons.tick() == []
    time.sleep(0.3)
    assert beacons.tick() == []
    assert watch.memories[BEACON].asked == 0  # type: ignore[attr-defined]


def test_a_wrong_pillar_is_logged_once_and_kills_no_beacon(
    minion: MinionMaker, caplog: pytest.LogCaptureFixture, ports: dict[str, socket.socket]
) -> None:
    given = pillar(ports)
    given["lvs"]["virtual_servers"]["web"]["port"] = 70000
    beacons = Beacons(minion("lb1", given), [])
    end = time.monotonic() + 20
    told: list[Any] = []
    while not told and time.monotonic() < end:
        assert beacons.tick() == []
        time.sleep(0.05)
        told = [one for one in caplog.records if "can be watched" in one.getMessage()]
    time.sleep(1.5)
    told = [one for one in caplog.records if "can be watched" in one.getMessage()]
    assert [record.levelname for record in told] == ["ERROR"]
    assert "lvs:virtual_servers:web:port is 70000" in told[0].getMessage()
    assert watch.watchers[BEACON].alive()


def test_without_a_pillar_it_goes_by_what_was_applied_last(
    minion: MinionMaker, ports: dict[str, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = pillar(ports)
    monkeypatch.setattr(description, "read", lambda: {"lvs": given["lvs"]})
    beacons = Beacons(minion("lb1", {}), [])
    (event,) = beacons.ticks(1)
    assert (event["data"]["cluster"], event["data"]["checks"]) == ("prod", 2)


RIGHT = "The configuration of beacon real_server is right."
NO_LIST = "The configuration of beacon real_server must be a list of mappings."
NO_NUMBER = "The option repeat of beacon real_server must be a number above 0."
NO_TIME = "The option gather of beacon real_server must be a number, 0 or more."
CONFIGS: dict[str, tuple[Any, bool, str]] = {
    "nothing": ([], True, RIGHT),
    "all of its own and Salt's": (
        [{"interval": 1}, {"repeat": 0.5}, {"gather": 0}, {"_beacon_name": BEACON}],
        True,
        RIGHT,
    ),
    "no list": ({"repeat": 30}, False, NO_LIST),
    "a list of words": (["repeat"], False, NO_LIST),
    "a misspelt option": ([{"repaet": 30}], False, "Beacon real_server does not know: repaet."),
    "a word for a number": ([{"repeat": "often"}], False, NO_NUMBER),
    "a flag for a number": ([{"repeat": True}], False, NO_NUMBER),
    "no time at all": ([{"repeat": 0}], False, NO_NUMBER),
    "a time before": ([{"gather": -1}], False, NO_TIME),
}


@pytest.mark.parametrize(("config", "valid", "why"), CONFIGS.values(), ids=CONFIGS.keys())
def test_the_beacon_checks_its_configuration(
    minion: MinionMaker, config: Any, valid: bool, why: str
) -> None:
    beacons = Beacons(minion("lb1"), [])
    assert beacons.modules[f"{BEACON}.validate"](config) == (valid, why)


def test_the_beacon_can_be_closed_at_any_time(
    minion: MinionMaker, ports: dict[str, socket.socket]
) -> None:
    beacons = Beacons(minion("lb1", pillar(ports)), [])
    beacons.ticks(1)
    beacons.modules[f"{BEACON}.close"]([])
    assert watch.watchers == {}


def test_the_paths_are_those_that_jobs_read() -> None:
    memory = healthwatch.Memory()
    assert (memory.health, memory.wishes_path) == (overlay.HEALTH, wishes.WISHES)
