"""The beacon keepalived_vrrp under Salt's own beacon runner, on a machine without keepalived."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import salt.beacons
import salt.loader
from salt.exceptions import CommandExecutionError
from saltext.lvs import fifos, running, vrrpwatch, watch

from tests.functional.conftest import Minion, MinionMaker, example

BEACON = "keepalived_vrrp"


@pytest.fixture(autouse=True)
def no_keepalived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing runs and no pipe is there; nothing was seen yet by the process that tests share."""
    made = vrrpwatch.Memory.listener

    def elsewhere(memory: vrrpwatch.Memory) -> vrrpwatch.Ears:
        memory.paths = tuple(str(tmp_path / Path(path).name) for path in fifos.PATHS)
        memory.pid_file = str(tmp_path / "keepalived.pid")
        return made(memory)

    monkeypatch.setattr(vrrpwatch.Memory, "listener", elsewhere)
    monkeypatch.setattr(running, "process", lambda *_: None)
    watch.memories.clear()
    yield
    watch.release()


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


@pytest.fixture
def lb1(minion: MinionMaker) -> Minion:
    """The first director of the production example."""
    return minion("lb1")


def test_the_first_look_tells_the_whole_state(lb1: Minion, tmp_path: Path) -> None:
    beacons = Beacons(lb1, [{"repeat": 3600}])
    (event,) = beacons.ticks(1)
    assert beacons.tick() == []
    assert event["tag"] == "salt/beacon/lb1/keepalived_vrrp/state"
    told = {key: event["data"][key] for key in event["data"] if key not in ("boot_id", "seq", "at")}
    assert told == {
        "id": "lb1",
        "cluster": "prod",
        "running": False,
        "answers": None,
        "pipes": {
            str(tmp_path / name): f"{tmp_path / name}: No such file or directory"
            for name in ("vrrp.fifo", "lvs.fifo")
        },
        "vrrp_instances": [
            {
                "vrrp_instance": "VirtIP_10",
                "now": None,
                "since": None,
                "priority": None,
                "vips": ["10.10.10.10"],
                "vips_held": [],
                "problem": None,
            }
        ],
        "sync_groups": [],
        "down": [],
        "down_count": 0,
    }


def test_a_refresh_of_the_modules_is_no_news(lb1: Minion) -> None:
    assert len(Beacons(lb1, []).ticks(1)) == 1
    lb1.caller.sminion.gen_modules()
    assert Beacons(lb1, []).tick() == []


def test_the_whole_state_is_told_again(lb1: Minion) -> None:
    beacons = Beacons(lb1, [{"repeat": 0.000001}])
    tags = {event["tag"] for event in beacons.ticks(3)}
    assert tags == {"salt/beacon/lb1/keepalived_vrrp/state"}


@pytest.mark.parametrize("minion_id", ["rs1", "elsewhere"])
def test_who_is_no_director_tells_nothing(minion: MinionMaker, minion_id: str) -> None:
    beacons = Beacons(minion(minion_id), [])
    assert beacons.tick() == []
    time.sleep(0.2)
    assert beacons.tick() == []


def test_a_wrong_pillar_is_logged_once_and_kills_no_beacon(
    minion: MinionMaker, caplog: pytest.LogCaptureFixture
) -> None:
    pillar = example("production")
    pillar["lvs"]["virtual_servers"]["web"]["port"] = 70000
    beacons = Beacons(minion("lb1", pillar), [])
    assert [beacons.tick() for _ in range(3)] == [[], [], []]
    told = [record for record in caplog.records if f"beacon {BEACON}" in record.getMessage()]
    assert [record.levelname for record in told] == ["ERROR"]
    assert "lvs:virtual_servers:web:port is 70000" in told[0].getMessage()


RIGHT = "The configuration of beacon keepalived_vrrp is right."
NO_LIST = "The configuration of beacon keepalived_vrrp must be a list of mappings."
NO_NUMBER = "The option repeat of beacon keepalived_vrrp must be a number above 0."
CONFIGS: dict[str, tuple[Any, bool, str]] = {
    "nothing": ([], True, RIGHT),
    "all of its own and Salt's": (
        [{"interval": 1}, {"repeat": 0.5}, {"enabled": True}, {"_beacon_name": BEACON}],
        True,
        RIGHT,
    ),
    "no list": ({"repeat": 30}, False, NO_LIST),
    "a list of words": (["repeat"], False, NO_LIST),
    "a misspelt option": (
        [{"repaet": 30}],
        False,
        "Beacon keepalived_vrrp does not know: repaet.",
    ),
    "a word for a number": ([{"repeat": "often"}], False, NO_NUMBER),
    "a flag for a number": ([{"repeat": True}], False, NO_NUMBER),
    "no time at all": ([{"repeat": 0}], False, NO_NUMBER),
}


@pytest.mark.parametrize(("config", "valid", "why"), CONFIGS.values(), ids=CONFIGS.keys())
def test_the_beacon_checks_its_configuration(
    lb1: Minion, config: Any, valid: bool, why: str
) -> None:
    assert Beacons(lb1, []).modules[f"{BEACON}.validate"](config) == (valid, why)


def test_the_beacon_can_be_closed_at_any_time(lb1: Minion) -> None:
    beacons = Beacons(lb1, [])
    beacons.ticks(1)
    beacons.modules[f"{BEACON}.close"]([])
    assert watch.watchers == {}
    assert beacons.tick() == []


def test_who_looks_by_hand_sees_the_same_and_leaves_the_pipes_alone(lb1: Minion) -> None:
    (event,) = lb1.call("keepalived.look")
    assert (event["tag"], event["running"], event["pipes"]) == ("state", False, {})
    assert [one["vips"] for one in event["vrrp_instances"]] == [["10.10.10.10"]]
    assert lb1.call("keepalived.look") == []
    Beacons(lb1, []).ticks(1)
    with pytest.raises(CommandExecutionError, match="has a watcher, which looks for itself"):
        lb1.call("keepalived.look", BEACON)


def test_without_keepalived_there_are_no_stats(lb1: Minion) -> None:
    with pytest.raises(CommandExecutionError, match="keepalived does not run"):
        lb1.call("keepalived.stats")
