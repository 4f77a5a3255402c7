"""The dummy module, state, beacon and reactor under Salt's own loader.

The machine that runs these is nobody's real server: nothing here changes it. What changes something
is at the kernel level.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import salt.beacons
import salt.loader
from salt.exceptions import CommandExecutionError, SaltInvocationError
from saltext.lvs import realserver, watch

from tests.functional.conftest import Minion, MinionMaker, example

# No machine has it.
INTERFACE = "lvs-test-none"
OPERATIONS = [f"create dummy interface {INTERFACE}", f"add 10.10.10.10/32 to {INTERFACE}"]
CHANGES = {
    INTERFACE: {"old": None, "new": "up"},
    "10.10.10.10/32": {"old": None, "new": INTERFACE},
}


@pytest.fixture
def rs1(minion: MinionMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Minion:
    """A real server of the production example, with an interface that was there and is nowhere."""
    pillar = example("production")
    # Left to the reactor: nothing here may change this machine.
    pillar["lvs"].update(vip_interface=INTERFACE, reaction="reactor", vip_persistence=False)
    record = tmp_path / "dummy.json"
    record.write_text(json.dumps({INTERFACE: {"vips": ["10.10.10.10/32"], "leaving": {}}}))
    monkeypatch.setattr(realserver, "RECORD", str(record))
    return minion("rs1", pillar)


def faults(rs1: Minion) -> list[str]:
    """What is wrong with this machine's own settings."""
    found: list[str] = rs1.call("dummy.plan")["faults"]
    return found


# -------------------------------------------------------------------------------------------------
# Module


def test_the_plan_comes_from_the_pillar(rs1: Minion) -> None:
    planned = rs1.call("dummy.plan")
    assert planned == {
        "interface": INTERFACE,
        "operations": OPERATIONS,
        "changes": CHANGES,
        "foreign": [],
        "leaving": [],
        "enabled": True,
        "faults": planned["faults"],
        "persisted_by": None,
        "warnings": [],
    }
    assert json.loads(json.dumps(planned)) == planned


def test_a_plan_may_be_for_any_interface_and_vips(rs1: Minion, minion: MinionMaker) -> None:
    for one in (rs1, minion("elsewhere", {})):
        vips = ["fd00::10", "10.10.10.11"]
        planned = one.call("dummy.plan", "lvs-test-two", vips, persist=False)
        assert planned["operations"] == [
            "create dummy interface lvs-test-two",
            "add fd00::10/128 to lvs-test-two",
            "add 10.10.10.11/32 to lvs-test-two",
        ]


def test_a_director_holds_no_vip_here(minion: MinionMaker) -> None:
    pillar = example("production")
    pillar["lvs"].update(vip_interface=INTERFACE, vip_persistence=False)
    assert minion("lb1", pillar).call("dummy.plan")["operations"] == OPERATIONS[:1]


def test_without_a_pillar_nothing_is_guessed(minion: MinionMaker) -> None:
    with pytest.raises(SaltInvocationError, match="lvs is missing"):
        minion("rs1", {}).call("dummy.plan")


def test_a_wrong_pillar_is_named_with_its_path(minion: MinionMaker) -> None:
    pillar = example("production")
    pillar["lvs"]["virtual_servers"]["web"]["port"] = 70000
    with pytest.raises(SaltInvocationError, match="lvs:virtual_servers:web:port is 70000"):
        minion("rs1", pillar).call("dummy.plan")


@pytest.mark.parametrize("function", ["dummy.plan", "dummy.present"])
def test_the_guides_prefix_is_refused_with_the_reason(rs1: Minion, function: str) -> None:
    with pytest.raises(SaltInvocationError) as caught:
        rs1.call(function, INTERFACE, "10.10.10.10/24")
    assert str(caught.value) == (
        "addresses:0 is '10.10.10.10/24'; it should be 10.10.10.10/32: any other prefix makes a "
        "route to its whole network through the dummy interface, and once the real interface has "
        "been down for a moment, all that this machine sends to its neighbours is lost there "
        "(force_prefix takes it all the same)"
    )


def test_the_guides_prefix_can_be_forced(rs1: Minion) -> None:
    planned = rs1.call("dummy.plan", INTERFACE, "10.10.10.10/24", force_prefix=True)
    assert planned["operations"] == [*OPERATIONS[:1], f"add 10.10.10.10/24 to {INTERFACE}"]


def test_a_real_server_that_is_not_enabled_is_to_hold_no_vip(minion: MinionMaker) -> None:
    pillar = example("production")
    pillar["lvs"].update(vip_interface=INTERFACE, vip_persistence=False)
    pillar["lvs"]["real_servers"]["rs1"]["enabled"] = False
    planned = minion("rs1", pillar).call("dummy.plan")
    assert (planned["operations"], planned["enabled"]) == (OPERATIONS[:1], False)


def test_a_name_of_the_kernels_own_is_planned_and_refused_where_it_is_not_there(
    rs1: Minion,
) -> None:
    # In test mode, a state before may be about to load its module.
    assert rs1.call("dummy.plan", "gre0")["operations"] == [
        "bring up gre0",
        "add 10.10.10.10/32 to gre0",
    ]
    with pytest.raises(CommandExecutionError) as caught:
        rs1.call("dummy.present", "gre0")
    assert str(caught.value) == "there is no gre0: `modprobe ip_gre` makes it"


def test_a_check_says_in_words_what_is_wrong(rs1: Minion) -> None:
    checked = rs1.call("dummy.check")
    gone = (
        f"{INTERFACE} does not hold 10.10.10.10/32, so the kernel drops what clients send to it: "
        "run state.apply, or dummy.present"
    )
    nobody = "nothing listens on TCP 10.10.10.10:80: start the service on it"
    noisy = faults(rs1)
    assert checked == {
        "ok": False,
        "findings": [*noisy, gone, nobody],
        "warnings": [],
        "interface": INTERFACE,
        "vips": ["10.10.10.10/32"],
        "lacking": ["10.10.10.10/32"],
        "foreign": [],
        "enabled": True,
        "sysctls": checked["sysctls"],
        "virtual_servers": {
            "web": {
                "arp": checked["virtual_servers"]["web"]["arp"],
                "accepted": {"ok": False, "reason": gone},
                "listening": {"ok": False, "reason": nobody},
                "source": {"ok": False, "reason": gone},
            }
        },
    }
    assert checked["virtual_servers"]["web"]["arp"]["ok"] is not bool(noisy)
    assert {"net.ipv4.conf.all.arp_ignore", "net.ipv4.conf.all.arp_announce"} <= set(
        checked["sysctls"]
    )
    assert json.loads(json.dumps(checked)) == checked


def test_a_disabled_real_server_is_right_without_its_vip(minion: MinionMaker) -> None:
    pillar = example("production")
    pillar["lvs"].update(vip_interface=INTERFACE, vip_persistence=False)
    pillar["lvs"]["real_servers"]["rs1"]["enabled"] = False
    checked = minion("rs1", pillar).call("dummy.check")
    assert checked["warnings"] == [
        "the pillar has this real server disabled: it gives up its VIPs on purpose, and nothing is "
        "asked about them"
    ]
    found = {key: checked[key] for key in ("ok", "findings", "vips", "enabled", "virtual_servers")}
    assert found == {
        "ok": True,
        "findings": [],
        "vips": [],
        "enabled": False,
        "virtual_servers": {},
    }


def test_a_client_that_is_no_address_is_refused(rs1: Minion) -> None:
    with pytest.raises(SaltInvocationError, match="clients:0 is 'nobody'"):
        rs1.call("dummy.check", "nobody")


def test_who_must_hold_no_vip_is_all_right(minion: MinionMaker) -> None:
    checked = minion("lb1").call("dummy.check")
    assert (checked["ok"], checked["findings"], checked["vips"]) == (True, [], [])


def test_a_list_tells_of_dummy_interfaces_only(rs1: Minion) -> None:
    listed = rs1.call("dummy.list")
    assert isinstance(listed, dict)
    assert "lo" not in listed


@pytest.mark.parametrize("minion_id", ["lb1", "kvm1", "elsewhere"])
def test_a_repair_is_for_real_servers_only(minion: MinionMaker, minion_id: str) -> None:
    with pytest.raises(CommandExecutionError, match=f"{minion_id} is no realserver"):
        minion(minion_id).call("dummy.repair")


# -------------------------------------------------------------------------------------------------
# State


def test_the_state_in_test_mode_tells_what_would_change(rs1: Minion) -> None:
    assert rs1.state("dummy.present", INTERFACE, test=True) == {
        "name": INTERFACE,
        "result": None,
        "changes": CHANGES,
        "comment": "\n".join(
            [
                f"{INTERFACE} would be changed:",
                *(f"- {line}" for line in OPERATIONS),
                *(f"Beware: {fault}." for fault in faults(rs1)),
            ]
        ),
    }


def test_the_state_refuses_the_guides_prefix(rs1: Minion) -> None:
    for test in (True, False):
        answer = rs1.state("dummy.present", INTERFACE, addresses=["10.10.10.10/24"], test=test)
        assert (answer["result"], answer["changes"]) == (False, {})
        assert answer["comment"].startswith("addresses:0 is '10.10.10.10/24'; it should be")


def test_the_state_refuses_a_name_of_the_kernels_own(rs1: Minion) -> None:
    assert rs1.state("dummy.present", "gre0") == {
        "name": "gre0",
        "result": False,
        "changes": {},
        "comment": "there is no gre0: `modprobe ip_gre` makes it",
    }


@pytest.mark.parametrize("test", [True, False])
def test_what_is_not_there_is_absent(rs1: Minion, test: bool) -> None:
    assert rs1.state("dummy.absent", INTERFACE, test=test) == {
        "name": INTERFACE,
        "result": True,
        "changes": {},
        "comment": f"{INTERFACE} is not there.",
    }


# -------------------------------------------------------------------------------------------------
# Beacon


@pytest.fixture(autouse=True)
def nothing_seen_yet() -> Iterator[None]:
    """What watchers remember lives as long as the process, and the tests share one."""
    watch.memories.clear()
    yield
    watch.release()


class Beacons:
    """Salt's own beacon runner, with one beacon configured."""

    def __init__(self, minion: Minion, config: list[Any]) -> None:
        self.config = {"dummy": config}
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


def test_the_first_look_tells_what_lacks_and_the_whole_state(rs1: Minion) -> None:
    beacons = Beacons(rs1, [{"repeat": 3600}])
    change, state = beacons.ticks(2)
    assert beacons.tick() == []
    assert [event["tag"] for event in (change, state)] == [
        "salt/beacon/rs1/dummy/change",
        "salt/beacon/rs1/dummy/state",
    ]
    envelope = ("id", "cluster")
    assert [change["data"][key] for key in envelope] == ["rs1", "prod"]
    (lost,) = (item for item in change["data"]["changes"] if "address" in item)
    assert lost == {
        "interface": INTERFACE,
        "address": "10.10.10.10",
        "was": None,
        "now": "lost",
        "since": change["data"]["at"],
        "count": 1,
        "repaired": False,
    }
    assert state["data"]["vips"] == [
        {"address": "10.10.10.10", "now": "lost", "since": change["data"]["at"], "count": 1}
    ]
    assert state["data"]["quiet"] is (not faults(rs1))


def test_a_refresh_of_the_modules_is_no_news(rs1: Minion) -> None:
    assert len(Beacons(rs1, []).ticks(2)) == 2
    rs1.caller.sminion.gen_modules()
    assert Beacons(rs1, []).tick() == []


def test_the_whole_state_is_told_again(rs1: Minion) -> None:
    beacons = Beacons(rs1, [{"repeat": 0.000001}])
    beacons.ticks(2)
    assert beacons.ticks(1)[0]["tag"] == "salt/beacon/rs1/dummy/state"


def test_two_beacons_remember_apart(rs1: Minion) -> None:
    assert len(rs1.call("dummy.look", beacon="one")) == 2
    assert len(rs1.call("dummy.look", beacon="two")) == 2
    assert rs1.call("dummy.look", beacon="one") == []


@pytest.mark.parametrize("minion_id", ["lb1", "elsewhere"])
def test_who_must_hold_no_vip_tells_nothing(minion: MinionMaker, minion_id: str) -> None:
    assert Beacons(minion(minion_id), []).tick() == []


def test_a_wrong_pillar_is_logged_once_and_kills_no_beacon(
    minion: MinionMaker, caplog: pytest.LogCaptureFixture
) -> None:
    pillar = example("production")
    pillar["lvs"]["virtual_servers"]["web"]["port"] = 70000
    beacons = Beacons(minion("rs1", pillar), [])
    assert [beacons.tick() for _ in range(3)] == [[], [], []]
    told = [record for record in caplog.records if "beacon dummy" in record.getMessage()]
    assert [record.levelname for record in told] == ["ERROR"]
    assert "lvs:virtual_servers:web:port is 70000" in told[0].getMessage()


CONFIGS: dict[str, tuple[Any, bool, str]] = {
    "nothing": ([], True, "The configuration of beacon dummy is right."),
    "all of its own and Salt's": (
        [{"interval": 1}, {"repeat": 0.5}, {"enabled": True}, {"_beacon_name": "dummy"}],
        True,
        "The configuration of beacon dummy is right.",
    ),
    "no list": (
        {"repeat": 30},
        False,
        "The configuration of beacon dummy must be a list of mappings.",
    ),
    "a list of words": (
        ["repeat"],
        False,
        "The configuration of beacon dummy must be a list of mappings.",
    ),
    "a misspelt option": ([{"repaet": 30}], False, "Beacon dummy does not know: repaet."),
    "a word for a number": (
        [{"repeat": "often"}],
        False,
        "The option repeat of beacon dummy must be a number of seconds above 0.",
    ),
    "no time at all": (
        [{"repeat": 0}],
        False,
        "The option repeat of beacon dummy must be a number of seconds above 0.",
    ),
}


@pytest.mark.parametrize(("config", "valid", "why"), CONFIGS.values(), ids=CONFIGS.keys())
def test_the_beacon_checks_its_configuration(
    rs1: Minion, config: Any, valid: bool, why: str
) -> None:
    assert Beacons(rs1, []).modules["dummy.validate"](config) == (valid, why)


def test_the_beacon_can_be_closed_at_any_time(rs1: Minion) -> None:
    beacons = Beacons(rs1, [])
    beacons.ticks(2)
    beacons.modules["dummy.close"]([])
    assert watch.watchers == {}
    assert beacons.tick() == []
