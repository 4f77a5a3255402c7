"""VIPs that a real server is no longer to hold: they go when nobody uses them any more."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from saltext.lvs import arp, dummywatch, links, realserver, rtnetlink, watch
from saltext.lvs.errors import InUse
from saltext.lvs.links import Duty

from tests.functional.conftest import Minion, example
from tests.lab.waiting import until

pytestmark = pytest.mark.usefixtures("netns", "real_server")

VIP, VIP6 = links.as_vips(["10.10.10.10", "fd00::10"])
DUTY = Duty("prod", "dummy0", (VIP, VIP6), heals=True)
DISABLED = replace(DUTY, vips=(), enabled=False)
OWN = {"10.10.10.10": "10.10.10.41", "fd00::10": "fd00::41"}


def ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True, capture_output=True)


def held(interface: str = "dummy0") -> list[str]:
    link = rtnetlink.read(interface)
    return [str(item.address) for item in link.addresses if not item.by_kernel] if link else []


@pytest.fixture
def real_server(netns: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that holds its VIPs, after an apply; they leave after a second and a half."""
    monkeypatch.setattr(realserver, "REPAIR", str(tmp_path / "repair"))
    monkeypatch.setattr(realserver, "ASKED", str(tmp_path / "asked"))
    monkeypatch.setattr(realserver, "RECORD", str(tmp_path / "state" / "dummy.json"))
    monkeypatch.setattr(realserver, "LEAVE_AFTER_SECONDS", 1.5)
    ip("link add eth0 type veth peer name far")
    ip("link set eth0 up")
    for address in ("10.10.10.41/24", "fd00::41/64 nodad"):
        ip(f"address add {address} dev eth0")
    arp.silence(["eth0"])
    realserver.present(DUTY)


@pytest.fixture
def client() -> Iterator[Callable[[str], Callable[[], None]]]:
    """Open a connection to a VIP from the machine's own address; returns what ends it."""
    opened: list[socket.socket] = []

    def close() -> None:
        for one in opened:
            one.close()

    def connect(vip: str) -> Callable[[], None]:
        family = socket.AF_INET6 if ":" in vip else socket.AF_INET
        listening = socket.create_server((vip, 8080), family=family)
        asking = socket.create_connection((vip, 8080), 5, source_address=(OWN[vip], 0))
        serving, _ = listening.accept()
        opened.extend([listening, asking, serving])
        return close

    yield connect
    close()


def test_a_vip_stays_until_nobody_has_used_it_for_a_while(
    client: Callable[[str], Callable[[], None]],
) -> None:
    close = client("10.10.10.10")
    first = realserver.present(DISABLED)
    assert first.ops == ()
    assert {item.vip: item.connections for item in first.leaving} == {VIP: 1, VIP6: 0}
    time.sleep(1.6)
    # Nobody uses the IPv6 one: a later apply takes it away, and the other one stays.
    assert [str(op) for op in realserver.present(DISABLED).ops] == [
        "remove fd00::10/128 from dummy0"
    ]
    assert held() == ["10.10.10.10/32"]
    close()
    until(lambda: not realserver.plan(DISABLED).leaving or _idle(), "the end of the connection")
    # It was in use a moment ago: the while begins now.
    assert realserver.present(DISABLED).ops == ()
    time.sleep(1.6)
    assert [str(op) for op in realserver.present(DISABLED).ops] == [
        "remove 10.10.10.10/32 from dummy0"
    ]
    assert realserver.recorded("dummy0") == realserver.Record()
    assert realserver.present(DISABLED) == realserver.Outcome(())


def _idle() -> bool:
    return all(item.connections == 0 for item in realserver.plan(DISABLED).leaving)


def test_force_does_not_wait(client: Callable[[str], Callable[[], None]]) -> None:
    client("fd00::10")
    assert [str(op) for op in realserver.present(DISABLED, force=True).ops] == [
        "remove 10.10.10.10/32 from dummy0",
        "remove fd00::10/128 from dummy0",
    ]


def test_who_is_enabled_again_keeps_what_it_has() -> None:
    realserver.present(DISABLED)
    assert realserver.recorded("dummy0").vips == ()
    assert realserver.present(DUTY) == realserver.Outcome((), unwatched=(VIP, VIP6))
    assert realserver.recorded("dummy0") == realserver.Record(("10.10.10.10/32", "fd00::10/128"))


def test_the_plan_says_what_stays_and_changes_nothing() -> None:
    planned = realserver.plan(DISABLED)
    assert planned.ops == ()
    assert [str(item) for item in planned.leaving] == [
        f"{vip} stays for now: it goes once nobody has used it for 1.5 seconds"
        for vip in ("10.10.10.10/32", "fd00::10/128")
    ]
    assert realserver.recorded("dummy0").leaving == {}


def test_what_is_given_up_and_lost_is_not_put_back() -> None:
    realserver.present(DISABLED)
    ip("link delete dummy0")
    assert realserver.heal(DUTY) == realserver.Outcome(())
    assert held() == []


def test_the_watcher_lets_go_and_tells(client: Callable[[str], Callable[[], None]]) -> None:
    sent: list[dict[str, Any]] = []
    close = client("10.10.10.10")
    watcher = watch.Watcher(dummywatch.Memory(duty=DISABLED), "rs1", sent.extend)
    realserver.present(DISABLED)
    watcher.start(repeat=0.5)
    try:
        until(lambda: held() == ["10.10.10.10/32"], "the first VIP to go", seconds=10)
        time.sleep(2)
        assert held() == ["10.10.10.10/32"]
        state = [event for event in sent if event["tag"] == "state"][-1]
        (leaving,) = state["leaving"]
        assert (state["enabled"], leaving["address"], leaving["connections"]) == (
            False,
            "10.10.10.10",
            1,
        )
        close()
        until(lambda: held() == [], "the second VIP to go", seconds=10)
        until(lambda: len(_released(sent)) == 2, "the second event", seconds=5)
    finally:
        assert watcher.stop()
    assert _released(sent) == [
        ("fd00::10", "held", "released"),
        ("10.10.10.10", "held", "released"),
    ]
    assert realserver.recorded("dummy0") == realserver.Record()


def _released(sent: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    changes = [change for event in sent for change in event.get("changes", ())]
    return [(change["address"], change["was"], change["now"]) for change in changes]


def test_a_clock_that_is_set_back_makes_no_vip_stay_for_long() -> None:
    ahead = realserver.Record(leaving={"10.10.10.10/32": time.time() + 3600})
    realserver._note("dummy0", ahead)
    assert realserver.release(DISABLED).ops == ()
    time.sleep(1.6)
    assert [str(op) for op in realserver.release(DISABLED).ops] == [
        "remove 10.10.10.10/32 from dummy0"
    ]


def test_a_watcher_whose_pillar_has_it_enabled_lets_nothing_go() -> None:
    realserver.present(DISABLED)
    watcher = watch.Watcher(dummywatch.Memory(duty=DUTY), "rs1", lambda _: None)
    watcher.start(repeat=3600)
    try:
        time.sleep(3)
    finally:
        assert watcher.stop()
    assert held() == ["10.10.10.10/32", "fd00::10/128"]


def test_absent_refuses_while_connections_need_a_vip(
    client: Callable[[str], Callable[[], None]],
) -> None:
    client("10.10.10.10")
    with pytest.raises(InUse) as caught:
        realserver.absent(DUTY)
    assert str(caught.value) == (
        "connections need the VIPs that would go: 10.10.10.10 (1). Drain this real server and wait "
        "until they have ended, or use force=True"
    )
    assert held() == ["10.10.10.10/32", "fd00::10/128"]
    assert realserver.recorded("dummy0").vips == ("10.10.10.10/32", "fd00::10/128")
    # Where another interface holds it as well, nothing is lost.
    realserver.present(replace(DUTY, interface="lo"))
    realserver.absent(DUTY)
    assert held() == []
    assert held("lo") == ["127.0.0.1/8", "10.10.10.10/32", "fd00::10/128"]


def test_the_plan_knows_that_vips_will_be_elsewhere(
    client: Callable[[str], Callable[[], None]],
) -> None:
    client("10.10.10.10")
    planned = realserver.plan_absent(DUTY, elsewhere=DUTY.vips)
    assert [str(op) for op in planned][-1] == "delete dummy interface dummy0"
    with pytest.raises(InUse):
        realserver.plan_absent(DUTY, elsewhere=(VIP6,))


def test_absent_with_force_takes_it_away_all_the_same(
    client: Callable[[str], Callable[[], None]],
) -> None:
    client("10.10.10.10")
    realserver.absent(DUTY, force=True)
    assert rtnetlink.read("dummy0") is None


# -------------------------------------------------------------------------------------------------
# Other places for VIPs than a dummy interface


def test_the_loopback_holds_vips_and_keeps_what_it_has() -> None:
    duty = replace(DUTY, interface="lo")
    assert [str(op) for op in realserver.present(duty).ops] == [
        "add 10.10.10.10/32 to lo",
        "add fd00::10/128 to lo",
    ]
    assert realserver.present(duty) == realserver.Outcome(())
    ip("address delete 10.10.10.10/32 dev lo")
    outcome = realserver.heal(duty)
    assert outcome is not None
    assert [str(op) for op in outcome.ops] == ["add 10.10.10.10/32 to lo"]
    realserver.absent(duty, force=True)
    assert held("lo") == ["127.0.0.1/8"]


def test_a_tunnels_end_is_brought_up_and_stays() -> None:
    duty = replace(DUTY, interface="gate", vips=(VIP,))
    ip("link add gate type ipip local 10.10.10.41 remote any")
    assert [str(op) for op in realserver.present(duty).ops] == [
        "bring up gate",
        "add 10.10.10.10/32 to gate",
    ]
    assert realserver.present(duty) == realserver.Outcome(())
    realserver.absent(duty, force=True)
    link = rtnetlink.read("gate")
    assert link is not None
    assert (link.up, held("gate")) == (True, [])


def test_a_tunnels_end_that_is_gone_is_not_replaced_by_a_dummy_interface() -> None:
    duty = replace(DUTY, interface="gate", vips=(VIP,))
    ip("link add gate type ipip local 10.10.10.41 remote any")
    realserver.present(duty)
    ip("link delete gate")
    for act in (realserver.present, realserver.heal):
        with pytest.raises(links.NotOurs, match="^gate is gone, which others make"):
            act(duty)
    assert rtnetlink.read("gate") is None
    ip("link add gate type ipip local 10.10.10.41 remote any")
    realserver.heal(duty)
    assert held("gate") == ["10.10.10.10/32"]


def test_a_vip_that_is_leaving_counts_where_vips_move() -> None:
    realserver.present(DISABLED)
    assert realserver.former_interfaces("lo", DUTY.vips) == ["dummy0"]


def test_many_interfaces_with_many_vips() -> None:
    duties = [
        Duty(
            "prod",
            f"dummy{n}",
            links.as_vips([f"10.{n}.{i // 250}.{i % 250 + 1}" for i in range(1000)]),
        )
        for n in (1, 2)
    ]
    for duty in duties:
        assert len(realserver.present(duty).ops) == 1001
    for duty in duties:
        assert realserver.present(duty) == realserver.Outcome(())
        memory = dummywatch.Memory(duty=duty)
        assert [event["tag"] for event in dummywatch.look(memory, "rs1", 3600)] == ["state"]
        before = time.thread_time()
        for _ in range(20):
            assert list(dummywatch.look(memory, "rs1", 3600, changed=False)) == []
        # The grain of the lab's clock is 10 ms.
        assert time.thread_time() - before < 0.5
    assert held() == ["10.10.10.10/32", "fd00::10/128"]


# -------------------------------------------------------------------------------------------------
# Through Salt


@pytest.fixture
def rs1(tmp_path: Path) -> Minion:
    pillar = example("production")
    pillar["lvs"]["vip_persistence"] = False
    pillar["lvs"]["real_servers"]["rs1"]["enabled"] = False
    return Minion("rs1", pillar, tmp_path)


def test_a_disabled_real_server_says_what_it_does(
    rs1: Minion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(realserver, "LEAVE_AFTER_SECONDS", 10.0)
    realserver.present(replace(DUTY, vips=(VIP,)), force=True)
    on_purpose = "rs1 is not enabled: it is to hold no VIP, on purpose."
    stays = "10.10.10.10/32 stays for now: it goes once nobody has used it for 10 seconds."
    until = "dummy0, until nobody uses it"
    given_up = {"10.10.10.10/32": {"old": "dummy0", "new": until}}
    tested = rs1.state("dummy.present", "dummy0", test=True)
    assert (tested["result"], tested["changes"]) == (None, given_up)
    assert rs1.state("dummy.present", "dummy0") == {
        "name": "dummy0",
        "result": True,
        "changes": given_up,
        "comment": "dummy0 was changed:\n"
        f"- give up 10.10.10.10/32 on {until}\n{on_purpose}\n{stays}",
    }
    for test in (True, False):
        assert rs1.state("dummy.present", "dummy0", test=test) == {
            "name": "dummy0",
            "result": True,
            "changes": {},
            "comment": f"dummy0 is as it should be.\n{on_purpose}\n{stays}",
        }
    time.sleep(10.1)
    done = rs1.state("dummy.present", "dummy0")
    gone = {"10.10.10.10/32": {"old": "dummy0", "new": None}}
    assert (done["result"], done["changes"]) == (True, gone)
    assert rs1.state("dummy.present", "dummy0")["comment"] == (
        f"dummy0 is as it should be.\n{on_purpose}"
    )


def test_absent_through_salt_says_who_needs_it(
    rs1: Minion, client: Callable[[str], Callable[[], None]]
) -> None:
    client("10.10.10.10")
    for test in (True, False):
        refused = rs1.state("dummy.absent", "dummy0", test=test)
        assert (refused["result"], refused["changes"]) == (False, {})
        assert refused["comment"].startswith("connections need the VIPs that would go: 10.10.10.10")
    assert rs1.state("dummy.absent", "dummy0", force=True)["result"] is True


def test_a_list_has_the_loopback_where_it_holds_vips(rs1: Minion) -> None:
    assert list(rs1.call("dummy.list")) == ["dummy0"]
    realserver.present(replace(DUTY, interface="lo"))
    listed = rs1.call("dummy.list")
    assert list(listed) == ["lo", "dummy0"]
    ours = {item["address"]: item["ours"] for item in listed["lo"]["addresses"]}
    assert (listed["lo"]["kind"], ours["127.0.0.1/8"], ours["10.10.10.10/32"]) == ("", False, True)


def test_the_record_is_for_root_alone() -> None:
    record = Path(realserver.RECORD)
    assert record.stat().st_mode & 0o777 == 0o600
    assert json.loads(record.read_text()) == {
        "dummy0": {
            "vips": ["10.10.10.10/32", "fd00::10/128"],
            "leaving": {},
            "existing": False,
        }
    }
