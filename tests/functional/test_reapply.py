"""lvs.reapply under Salt's own loader: who looks, what follows, and what is told.

Where something would be changed, what changes it is a stand-in: the machine that runs these is
nobody's real server.
"""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError
from saltext.lvs import budget, locking, realserver

from tests.functional.conftest import Minion, MinionMaker, example

INTERFACE = "lvs-test-none"
LACKS = f"{INTERFACE} does not hold 10.10.10.10/32"
APPLIED = {
    "sysctl_|-net.ipv4.conf.all.arp_ignore_|-x_|-present": {
        "__id__": "net.ipv4.conf.all.arp_ignore",
        "result": True,
        "changes": {},
        "comment": "",
    },
    "dummy_|-lvs-vip-interface_|-dummy0_|-present": {
        "__id__": "lvs-vip-interface",
        "result": True,
        "changes": {"10.10.10.10/32": {"old": None, "new": INTERFACE}},
        "comment": "changed",
    },
    "file_|-lvs-minion-config_|-x_|-managed": {
        "__id__": "lvs-minion-config",
        "result": False,
        "changes": {},
        "comment": "the disk is full",
    },
}


class Machine:
    """Stand-ins for the two functions that would change something, and what they were asked."""

    def __init__(self, minion: Minion) -> None:
        self.asked: list[Any] = []
        self.applied: Any = APPLIED
        self.refusal = ""
        functions = minion.caller.sminion.functions
        functions["dummy.repair"] = self._repair
        functions["state.apply"] = self._apply

    def _repair(self) -> dict[str, Any]:
        self.asked.append("dummy.repair")
        if self.refusal:
            raise CommandExecutionError(self.refusal)
        return {"operations": [f"create dummy interface {INTERFACE}"]}

    def _apply(self, *arguments: Any, **options: Any) -> Any:
        self.asked.append(("state.apply", arguments, options))
        return self.applied


@pytest.fixture
def rs1(minion: MinionMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Minion:
    """A real server whose interface is nowhere."""
    monkeypatch.setattr(realserver, "RECORD", str(tmp_path / "dummy.json"))
    monkeypatch.setattr(locking, "FOLDER", str(tmp_path / "locks"))
    pillar = example("production")
    pillar["lvs"].update(vip_interface=INTERFACE, vip_persistence=False)
    return minion("rs1", pillar)


@pytest.fixture
def machine(rs1: Minion, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """The same, after an apply: so its VIP is lost."""
    monkeypatch.setattr(realserver, "lacks", lambda _duty: (LACKS,))
    return Machine(rs1)


NOT_NEEDED: dict[str, tuple[str, Any, str]] = {
    "a director": ("lb1", None, "lb1 is no real server"),
    "a virtualization host": ("kvm1", None, "kvm1 is no real server"),
    "one that plays no part": ("elsewhere", None, "elsewhere is no real server"),
    "one without the cluster's pillar": ("rs1", {}, "the pillar describes no cluster"),
    "one of another pillar": ("rs1", {"web": {}}, "the pillar describes no cluster"),
}


@pytest.mark.parametrize(("minion_id", "pillar", "why"), NOT_NEEDED.values(), ids=NOT_NEEDED.keys())
def test_who_is_no_real_server_answers_at_once(
    minion: MinionMaker, minion_id: str, pillar: Any, why: str
) -> None:
    assert minion(minion_id, pillar).call("lvs.reapply") == {"needed": False, "why": [why]}


def test_what_no_apply_has_put_there_is_not_lost(rs1: Minion) -> None:
    machine = Machine(rs1)
    assert rs1.call("lvs.reapply") == {"needed": False, "why": ["nothing lacks"]}
    assert machine.asked == []


def test_what_lacks_is_put_back_first_and_then_the_highstate_runs(
    rs1: Minion, machine: Machine
) -> None:
    assert rs1.call("lvs.reapply", splay=0) == {
        "needed": True,
        "why": [LACKS],
        "queued": False,
        "repaired": [f"create dummy interface {INTERFACE}"],
        "changed": ["lvs-vip-interface"],
        "failed": {"lvs-minion-config": "the disk is full"},
    }
    assert machine.asked == ["dummy.repair", ("state.apply", ("lvs",), {"queue": True})]


def test_a_repair_that_fails_is_told_and_the_highstate_runs_all_the_same(
    rs1: Minion, machine: Machine
) -> None:
    machine.refusal = "pyroute2 is missing"
    machine.applied = {}
    assert rs1.call("lvs.reapply", splay=0) == {
        "needed": True,
        "why": [LACKS],
        "queued": False,
        "repaired": ["pyroute2 is missing"],
        "changed": [],
        "failed": {},
    }


def test_a_highstate_that_did_not_run_is_an_error(rs1: Minion, machine: Machine) -> None:
    machine.applied = ["Pillar failed to render"]
    with pytest.raises(CommandExecutionError, match="did not run: .*Pillar failed to render"):
        rs1.call("lvs.reapply", splay=0)


def test_the_wait_is_random_and_within_the_splay(
    rs1: Minion, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[Any] = []
    monkeypatch.setattr(random, "uniform", lambda low, high: waits.append((low, high)) or 0.0)
    rs1.call("lvs.reapply")
    rs1.call("lvs.reapply", splay=600)
    assert waits == [(0, 30), (0, 600)]


def test_a_second_call_leaves_the_highstate_to_the_first(rs1: Minion, machine: Machine) -> None:
    path = f"{locking.FOLDER}/reapply"
    rs1.call("lvs.reapply", splay=0)
    machine.asked.clear()
    with locking.exclusive(path):
        assert rs1.call("lvs.reapply", splay=0) == {
            "needed": True,
            "why": [LACKS],
            "queued": True,
            "repaired": [f"create dummy interface {INTERFACE}"],
        }
    assert machine.asked == ["dummy.repair"]


@pytest.mark.parametrize("splay", [-1, 3601, "30", None, True])
def test_a_splay_is_seconds_and_not_too_many(minion: MinionMaker, splay: Any) -> None:
    with pytest.raises(SaltInvocationError) as caught:
        minion("lb1").call("lvs.reapply", splay=splay)
    shown = "missing" if splay is None else repr(splay)
    assert str(caught.value) == f"splay is {shown}; it should be seconds, from 0 to 3600"


def test_a_wrong_pillar_is_told_with_its_path(minion: MinionMaker) -> None:
    pillar = example("production")
    pillar["lvs"]["virtual_servers"]["web"]["port"] = 70000
    with pytest.raises(SaltInvocationError, match="lvs:virtual_servers:web:port is 70000"):
        minion("rs1", pillar).call("lvs.reapply")


def test_a_look_that_finds_nothing_takes_milliseconds(rs1: Minion) -> None:
    rs1.call("lvs.reapply")
    took = []
    for _ in range(20):
        began = time.perf_counter()
        rs1.call("lvs.reapply")
        took.append(time.perf_counter() - began)
    # Salt's own call is in it, and this machine may be busy: the best of them tells.
    assert min(took) < 0.05


def test_what_a_reactor_has_put_back_often_enough_is_left_to_a_person(
    rs1: Minion, machine: Machine
) -> None:
    for _ in range(budget.MOST["reapply"]):
        assert rs1.call("lvs.reapply", splay=0, automatic=True)["needed"]
    asked = len(machine.asked)
    with pytest.raises(CommandExecutionError, match="left to a person now"):
        rs1.call("lvs.reapply", splay=0, automatic=True)
    assert len(machine.asked) == asked
    assert rs1.call("lvs.reapply", splay=0)["needed"]
