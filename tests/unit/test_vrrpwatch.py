"""What a director is to watch by its pillar, and what a watcher of keepalived makes of a storm."""

from __future__ import annotations

import ipaddress
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from saltext.lvs import model, running, vrrpwatch
from saltext.lvs.errors import InvalidConfig
from saltext.lvs.running import Vip
from saltext.lvs.vrrpwatch import Duty, Memory

PILLAR: dict[str, Any] = {
    "lvs": {
        "name": "prod",
        "directors": {
            "lb1": {"interface": "ens3", "address": "10.10.10.21"},
            "lb2": {"address": "10.10.10.22"},
        },
        "real_servers": {"rs1": {"address": "10.10.10.41"}},
        "vrrp_instances": {
            "VirtIP_10": {
                "interface": "eth0",
                "virtual_router_id": 10,
                "advert_int": 3,
                "virtual_ipaddress": ["10.10.10.10"],
                "virtual_ipaddress_excluded": [
                    {"address": "10.10.10.11", "interface": "eth1"},
                ],
            }
        },
        "virtual_servers": {
            "web": {
                "address": "10.10.10.10",
                "port": 80,
                "managed_by": "keepalived",
                "check": {"types": ["path", "tcp"]},
                "real_servers": {"rs1": {}},
            },
            "marked": {
                "fwmark": 7,
                "check": {"port": 8080},
                "managed_by": "keepalived",
                "real_servers": {"rs1": {}},
            },
        },
    }
}


def duty(minion_id: str) -> Duty | None:
    return vrrpwatch.duty_of(model.from_pillar(PILLAR), minion_id)


def vip(address: str, interface: str) -> Vip:
    return Vip(ipaddress.ip_address(address), interface)


@pytest.mark.parametrize("keepalived", [{"instance": "foo"}, {"extra": {"instance": "foo"}}])
def test_a_director_watches_the_keepalived_of_the_pillars_name(keepalived: dict[str, Any]) -> None:
    pillar = {"lvs": {**PILLAR["lvs"], "keepalived": keepalived}}
    found = vrrpwatch.duty_of(model.from_pillar(pillar), "lb1")
    assert found is not None
    assert found.instance == "foo"


def test_a_director_watches_what_it_holds_itself_and_knows_servers_by_name() -> None:
    found = duty("lb1")
    assert found is not None
    assert found.vips == {"VirtIP_10": (vip("10.10.10.10", "ens3"), vip("10.10.10.11", "eth1"))}
    assert found.advert_seconds == 3.0
    assert found.virtual_servers == {"[10.10.10.10]:tcp:80": "web", "FWM 7": "marked"}
    real_servers = found.real_servers
    assert real_servers["[10.10.10.10]:tcp:80", "[10.10.10.41]:tcp:80"] == "rs1"
    assert real_servers["FWM 7", "[10.10.10.41]:none:0"] == "rs1"
    marks = model.from_pillar(PILLAR).path_marks.values()
    assert found.ignored == {f"FWM {mark}" for mark in marks} != set()


def test_each_director_has_its_own_interface() -> None:
    found = duty("lb2")
    assert found is not None
    assert found.vips["VirtIP_10"][0] == vip("10.10.10.10", "eth0")


def test_who_is_no_director_watches_nothing() -> None:
    assert duty("rs1") is None
    memory = Memory()
    vrrpwatch.brief(memory, PILLAR, "rs1")
    assert list(memory.look("rs1", 30, act=False, changed=True)) == []


def test_a_wrong_pillar_is_told_once_and_the_last_right_one_kept_to() -> None:
    memory = Memory()
    vrrpwatch.brief(memory, PILLAR, "lb1")
    right = memory.duty
    wrong = {"lvs": {"vip_interface": "an interface with spaces"}}
    with pytest.raises(InvalidConfig):
        vrrpwatch.brief(memory, wrong, "lb1")
    vrrpwatch.brief(memory, wrong, "lb1")
    vrrpwatch.brief(memory, {}, "lb1")
    assert memory.duty == right
    vrrpwatch.brief(memory, {"other": 1}, "lb1")
    assert memory.duty is None


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Memory]:
    """A watcher's, with pipes, on a machine without keepalived."""
    monkeypatch.setattr(running, "process", lambda *_: None)
    paths = tuple(str(tmp_path / name) for name in ("vrrp.fifo", "lvs.fifo"))
    for path in paths:
        os.mkfifo(path, 0o600)
    made = Memory(duty=duty("lb1"), paths=paths)
    ears = made.listener()
    ears.attend()
    yield made
    ears.close()


def write(memory: Memory, lines: list[str]) -> None:
    with open(memory.paths[1], "wb", buffering=0) as pipe:
        for line in lines:
            pipe.write(f"{line}\n".encode())


def look(memory: Memory, repeat: float = 3600) -> list[dict[str, Any]]:
    return list(memory.look("lb1", repeat, act=True, changed=True))


def test_a_storm_of_lines_is_told_in_time_and_in_events_that_the_bus_takes(memory: Memory) -> None:
    look(memory)
    lines = [
        f"RS [10.20.{number // 250}.{number % 250}]:tcp:80 [10.10.10.10]:tcp:80 DOWN"
        for number in range(5500)
    ]
    write(memory, lines)
    began = time.process_time()
    events = look(memory)
    assert time.process_time() - began < 1
    assert [len(event["changes"]) for event in events] == [500] * 11
    told = [change["real_server"] for event in events for change in event["changes"]]
    assert told == [line.split()[1] for line in lines]
    (state,) = look(memory, repeat=0)
    assert (len(state["down"]), state["down_count"]) == (1000, 5500)
    assert len(repr(state)) < 500_000


def test_what_keepalived_checks_through_is_no_virtual_server(memory: Memory) -> None:
    look(memory)
    (mark, *_) = model.from_pillar(PILLAR).path_marks.values()
    write(memory, [f"RS [10.10.10.41]:none:0 FWM {mark} DOWN", f"VS FWM {mark} DOWN"])
    (state,) = look(memory, repeat=0)
    assert (state["tag"], state["down"]) == ("state", [])


def test_lines_outlive_a_look_that_fails(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    look(memory)
    write(memory, ["VS [10.10.10.10]:tcp:80 DOWN"])
    with monkeypatch.context() as patched:

        def fail() -> None:
            raise OSError("the kernel does not answer")

        patched.setattr(running, "here", fail)
        with pytest.raises(OSError, match="does not answer"):
            look(memory)
    memory.lose_track()
    (event,) = look(memory)
    assert [change["virtual_server"] for change in event["changes"]] == ["web"]
