"""keepalived.send_garp under Salt's own loader.

The machine that runs these holds none of the VIPs, so nothing is sent here. What is sent is at the
kernel level.
"""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError
from saltext.lvs import garp, locking

from tests.functional.conftest import Minion, MinionMaker, example

VIP = "198.51.100.10"  # RFC 5737: nobody has it
VIP6 = "2001:db8::10"
NOT_HELD = "no interface of this machine holds it"
SILENT = {"announced": {}, "silent": {VIP: NOT_HELD, VIP6: NOT_HELD}, "queued": False}


@pytest.fixture(autouse=True)
def budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks of our own, so that no other run on this machine is waited for."""
    monkeypatch.setattr(garp, "TURN", str(tmp_path / "turn"))
    monkeypatch.setattr(garp, "ANNOUNCED", str(tmp_path / "announced"))


@pytest.fixture
def pillar() -> dict[str, Any]:
    """The production example with VIPs that this machine does not hold."""
    found = example("production")
    found["lvs"]["virtual_servers"]["web"]["address"] = VIP
    instances = found["lvs"]["vrrp_instances"]
    instances["VirtIP_10"]["virtual_ipaddress"] = [VIP]
    instances["VirtIP_6"] = {
        "interface": "eth0",
        "virtual_router_id": 10,
        "virtual_ipaddress": [VIP6],
    }
    return found


@pytest.fixture
def lb1(minion: MinionMaker, pillar: dict[str, Any]) -> Minion:
    """The first director."""
    return minion("lb1", pillar)


def test_what_a_director_does_not_hold_is_not_announced(lb1: Minion) -> None:
    answer = lb1.call("keepalived.send_garp")
    assert answer == SILENT
    assert json.loads(json.dumps(answer)) == answer


def test_one_vip_can_be_asked_for(lb1: Minion) -> None:
    answer = lb1.call("keepalived.send_garp", "2001:DB8:0::10")
    assert answer == {"announced": {}, "silent": {VIP6: NOT_HELD}, "queued": False}


@pytest.mark.parametrize("address", ["10.10.10.41", f"{VIP}/32", "*", 7])
def test_an_address_that_is_no_vip_of_the_pillar_is_refused(lb1: Minion, address: Any) -> None:
    with pytest.raises(SaltInvocationError) as caught:
        lb1.call("keepalived.send_garp", address=address)
    assert str(caught.value) == (
        f"address is {address!r}; it should be a VIP of cluster prod: {VIP}, {VIP6}"
    )


@pytest.mark.parametrize("delay", [-1, 61, "5", True, float("nan")])
def test_a_delay_is_seconds_and_not_too_many(lb1: Minion, delay: Any) -> None:
    with pytest.raises(SaltInvocationError) as caught:
        lb1.call("keepalived.send_garp", delay=delay)
    assert str(caught.value) == f"delay is {delay!r}; it should be seconds, from 0 to 60"


def test_a_delay_comes_before_everything_else(lb1: Minion) -> None:
    began = time.monotonic()
    assert lb1.call("keepalived.send_garp", delay=0.4) == SILENT
    assert time.monotonic() - began >= 0.4


@pytest.mark.parametrize("minion_id", ["rs1", "kvm1", "elsewhere"])
def test_only_directors_announce(
    minion: MinionMaker, pillar: dict[str, Any], minion_id: str
) -> None:
    with pytest.raises(CommandExecutionError, match=f"{minion_id} is no director of cluster prod"):
        minion(minion_id, pillar).call("keepalived.send_garp")


def test_without_a_pillar_nothing_is_guessed(minion: MinionMaker) -> None:
    with pytest.raises(SaltInvocationError, match="lvs is missing"):
        minion("lb1", {}).call("keepalived.send_garp")


def test_who_comes_too_soon_waits(lb1: Minion, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garp, "SECONDS_BETWEEN", 1.0)
    lb1.call("keepalived.send_garp")
    began = time.monotonic()
    assert lb1.call("keepalived.send_garp") == SILENT
    assert time.monotonic() - began > 0.5


def test_who_finds_somebody_in_line_is_told_so_unless_for_one_vip(
    lb1: Minion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(garp, "SECONDS_BETWEEN", 0.0)
    in_line, over = threading.Event(), threading.Event()

    def stand_in_line() -> None:
        with locking.exclusive(f"{garp.TURN}.line"):
            in_line.set()
            over.wait(20)

    waiting = threading.Thread(target=stand_in_line)
    waiting.start()
    try:
        assert in_line.wait(20)
        assert lb1.call("keepalived.send_garp") == {"announced": {}, "silent": {}, "queued": True}
        assert not os.path.exists(garp.ANNOUNCED)
        assert lb1.call("keepalived.send_garp", VIP) == {
            "announced": {},
            "silent": {VIP: NOT_HELD},
            "queued": False,
        }
    finally:
        over.set()
        waiting.join()
