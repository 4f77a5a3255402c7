"""VIPs on a dummy interface of a real kernel: put there, lost, seen, put back."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import json
import logging
import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from saltext.lvs import arp, dummywatch, links, locking, realserver, rtnetlink, watch
from saltext.lvs.errors import KernelError
from saltext.lvs.links import Action, Duty, NotOurs, Op
from saltext.lvs.rtnetlink import MARK, HeldAddress, Link

from tests.functional.conftest import Minion, example
from tests.kernel.commands import ip

pytestmark = pytest.mark.usefixtures("netns")

OWN = ipaddress.ip_address("10.10.10.41")
VIP, VIP6 = links.as_vips(["10.10.10.10", "fd00::10"])
DUTY = Duty("prod", "dummy0", (VIP,), OWN)
BOTH = replace(DUTY, vips=(VIP, VIP6))
CONF = "/proc/sys/net/ipv4/conf"


def routes() -> list[str]:
    """The networks that would be sent to dummy0, but for the kernel's own link-local one."""
    told = [
        subprocess.run(
            ["ip", family, "route", "show", "dev", "dummy0"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for family in ("-4", "-6")
    ]
    found = [line.split()[0] for line in "".join(told).splitlines()]
    return [network for network in found if not network.startswith("fe80")]


def addresses() -> list[str]:
    """What iproute2 says that dummy0 holds."""
    told = subprocess.run(
        ["ip", "-json", "address", "show", "dummy0"], capture_output=True, text=True
    )
    if told.returncode:
        return []
    return [
        f"{item['local']}/{item['prefixlen']}"
        for item in json.loads(told.stdout)[0]["addr_info"]
        if item["scope"] != "link"
    ]


def settings(interface: str, ignore: int, announce: int) -> None:
    Path(f"{CONF}/{interface}/arp_ignore").write_text(str(ignore))
    Path(f"{CONF}/{interface}/arp_announce").write_text(str(announce))


def made(duty: Duty = DUTY, **options: Any) -> list[str]:
    return [str(op) for op in realserver.present(duty, **options).ops]


@pytest.fixture(autouse=True)
def real_server(netns: object) -> None:
    """A network card with the real server's own address, and ARP as it should be."""
    ip("link add eth0 type veth peer name far")
    ip("address add 10.10.10.41/24 dev eth0")
    ip("link set eth0 up")
    ip("link set far up")
    settings("all", 1, 2)


@pytest.fixture(autouse=True)
def own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(realserver, "REPAIR", str(tmp_path / "repair"))
    monkeypatch.setattr(realserver, "ASKED", str(tmp_path / "asked"))
    monkeypatch.setattr(realserver, "REPAIRED", str(tmp_path / "repaired"))
    monkeypatch.setattr(realserver, "RECORD", str(tmp_path / "state" / "dummy.json"))


@pytest.fixture
def memory() -> dummywatch.Memory:
    return dummywatch.Memory(duty=BOTH)


def applied(duty: Duty = DUTY) -> None:
    """As if an apply had put the VIPs there, and something had taken them away."""
    realserver._note(duty.interface, realserver.Record(tuple(map(str, duty.vips))))


# -------------------------------------------------------------------------------------------------
# Present and absent


def test_present_makes_it_so_and_a_second_time_does_nothing() -> None:
    assert made(BOTH) == [
        "create dummy interface dummy0",
        "add 10.10.10.10/32 to dummy0",
        "add fd00::10/128 to dummy0",
    ]
    assert made(BOTH) == []
    link = rtnetlink.read("dummy0")
    assert link is not None
    ours = tuple(held for held in link.addresses if not held.by_kernel)
    assert replace(link, addresses=ours) == Link(
        "dummy0", "dummy", True, False, (HeldAddress(VIP, MARK), HeldAddress(VIP6, MARK))
    )
    assert addresses() == ["10.10.10.10/32", "fd00::10/128"]
    assert routes() == []


def test_an_ipv6_vip_works_at_once() -> None:
    made(BOTH)
    told = Path("/proc/net/if_inet6").read_text()
    # Permanent, and neither tentative nor failed in the search for duplicates (linux/if_addr.h).
    assert [line.split()[4] for line in told.splitlines() if line.startswith("fd00")] == ["82"]


def test_an_interface_that_autoloading_has_made_is_taken_as_it_is() -> None:
    ip("link add dummy0 type dummy")
    assert made() == [
        "bring up, without ARP, dummy interface dummy0",
        "add 10.10.10.10/32 to dummy0",
    ]


def test_a_race_for_the_interface_is_won_by_whoever_comes_first() -> None:
    create = links.plan("dummy0", None, ())
    assert links.carry_out(create) == list(create)
    assert links.carry_out(create) == []


@pytest.mark.parametrize("spoil", ["add", "remove", "delete"])
def test_what_has_changed_since_the_plan_is_no_error(spoil: str) -> None:
    made(BOTH)
    adding = links.plan("dummy0", Link("dummy0"), (VIP,))
    removing = links.plan_absent(rtnetlink.read("dummy0"), (), force=False)
    if spoil == "add":
        assert links.carry_out(adding) == []
    elif spoil == "remove":
        ip("address delete 10.10.10.10/32 dev dummy0")
        assert [str(op) for op in links.carry_out(removing)] == [
            "remove fd00::10/128 from dummy0",
            "delete dummy interface dummy0",
        ]
    else:
        ip("link delete dummy0")
        assert links.carry_out([*adding, *removing]) == []


def test_what_is_ours_and_no_longer_wanted_goes_and_what_is_foreign_stays() -> None:
    made(BOTH)
    ip("address add 192.0.2.7/32 dev dummy0")
    other = replace(DUTY, vips=links.as_vips(["10.10.10.11"]))
    assert made(other, force=True) == [
        "add 10.10.10.11/32 to dummy0",
        "remove 10.10.10.10/32 from dummy0",
        "remove fd00::10/128 from dummy0",
    ]
    assert sorted(addresses()) == ["10.10.10.11/32", "192.0.2.7/32"]
    link = rtnetlink.read("dummy0")
    assert link is not None
    assert [str(address) for address in links.foreign(link, other.vips)] == ["192.0.2.7/32"]


def test_the_guides_prefix_is_mended_with_its_route() -> None:
    ip("link add dummy0 type dummy")
    ip("address add 10.10.10.10/24 dev dummy0")
    ip("address add fd00::10/64 dev dummy0")
    ip("link set dummy0 up")
    assert routes() == ["10.10.10.0/24", "fd00::/64"]
    made(BOTH)
    assert addresses() == ["10.10.10.10/32", "fd00::10/128"]
    assert routes() == []


def test_an_interface_of_another_kind_is_left_alone() -> None:
    duty = replace(DUTY, interface="eth0")
    before = rtnetlink.read("eth0")
    for act in (realserver.present, realserver.absent):
        with pytest.raises(NotOurs) as caught:
            act(duty)
        assert str(caught.value).startswith("eth0 is there already and is a veth interface, on ")
    assert rtnetlink.read("eth0") == before


def test_absent_takes_it_away_and_a_second_time_does_nothing() -> None:
    made(BOTH)
    outcome = realserver.absent(DUTY)
    assert [str(op) for op in outcome.ops] == [
        "remove 10.10.10.10/32 from dummy0",
        "remove fd00::10/128 from dummy0",
        "delete dummy interface dummy0",
    ]
    assert realserver.absent(DUTY) == links.Outcome(())
    assert rtnetlink.read("dummy0") is None


def test_absent_leaves_an_interface_that_others_use() -> None:
    made()
    ip("address add 192.0.2.7/32 dev dummy0")
    with pytest.raises(NotOurs):
        realserver.absent(DUTY)
    assert addresses() == ["10.10.10.10/32", "192.0.2.7/32"]
    realserver.absent(DUTY, force=True)
    assert rtnetlink.read("dummy0") is None


def test_ipv6_that_is_off_is_said_in_words() -> None:
    made()
    Path("/proc/sys/net/ipv6/conf/dummy0/disable_ipv6").write_text("1")
    with pytest.raises(KernelError) as caught:
        made(BOTH)
    assert (caught.value.number, str(caught.value)) == (
        errno.EACCES,
        "cannot add fd00::10/128 to dummy0: Permission denied (EACCES); "
        "IPv6 is off: net.ipv6.conf.dummy0.disable_ipv6",
    )


def test_what_an_apply_that_fails_half_way_has_put_there_is_watched() -> None:
    ip("link add dummy0 type dummy")
    Path("/proc/sys/net/ipv6/conf/dummy0/disable_ipv6").write_text("1")
    with pytest.raises(KernelError, match="cannot add fd00::10/128 to dummy0"):
        made(replace(DUTY, vips=(VIP6, VIP)))
    # The one that the kernel refuses is no reason to be without the other.
    assert addresses() == ["10.10.10.10/32"]
    assert realserver.recorded("dummy0").vips == ("10.10.10.10/32",)
    ip("address delete 10.10.10.10/32 dev dummy0")
    realserver.heal(BOTH)
    assert addresses() == ["10.10.10.10/32"]


def test_vips_that_nobody_has_noted_are_watched_from_the_next_apply_on() -> None:
    made(BOTH)
    Path(realserver.RECORD).unlink()
    assert realserver.plan(BOTH).unwatched == (VIP, VIP6)
    outcome = realserver.present(BOTH)
    assert (outcome.ops, outcome.unwatched) == ((), (VIP, VIP6))
    assert realserver.plan(BOTH).unwatched == ()
    assert realserver.recorded("dummy0").vips == ("10.10.10.10/32", "fd00::10/128")


def test_absent_that_breaks_off_is_completed_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    made(BOTH)

    def refuse(*_: Any) -> None:
        raise KernelError("try", errno.EPERM)

    with monkeypatch.context() as broken:
        broken.setattr(links, "carry_out", refuse)
        with pytest.raises(KernelError):
            realserver.absent(BOTH)
    # Still known as ours, and nobody puts it back.
    assert realserver.former_interfaces("dummy0", ()) == ["dummy0"]
    assert realserver.due(BOTH, realserver.recorded("dummy0")).vips == ()
    realserver.absent(BOTH)
    assert realserver.former_interfaces("dummy0", ()) == ["dummy0"]
    realserver.forget("dummy0")
    assert realserver.former_interfaces("dummy0", ()) == []


def test_an_error_half_way_leaves_what_the_next_apply_completes() -> None:
    made()
    off = Path("/proc/sys/net/ipv6/conf/dummy0/disable_ipv6")
    off.write_text("1")
    more = replace(DUTY, vips=links.as_vips(["10.10.10.10", "10.10.10.11", "fd00::10"]))
    with pytest.raises(KernelError):
        made(more)
    assert addresses() == ["10.10.10.10/32", "10.10.10.11/32"]
    off.write_text("0")
    assert made(more) == ["add fd00::10/128 to dummy0"]


def test_it_works_while_an_event_loop_runs() -> None:
    async def on_the_loop() -> list[str]:
        return made()

    threads = threading.active_count()
    assert asyncio.run(on_the_loop()) == [
        "create dummy interface dummy0",
        "add 10.10.10.10/32 to dummy0",
    ]
    assert addresses() == ["10.10.10.10/32"]
    assert threading.active_count() == threads


def test_no_descriptor_is_left_open() -> None:
    made()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        realserver.absent(DUTY)
        made()
        list(dummywatch.look(dummywatch.Memory(duty=DUTY), "rs1", 3600))
    assert len(os.listdir("/proc/self/fd")) == before


# -------------------------------------------------------------------------------------------------
# ARP


NOISY = {
    "nothing is set": [("all", 0, 0)],
    "only the answers are off": [("all", 1, 0)],
    "only the dummy interface is quiet": [("all", 0, 0), ("default", 1, 2)],
    "the card's own value is larger": [("all", 1, 2), ("eth0", 3, 0)],
}


@pytest.mark.parametrize("values", NOISY.values(), ids=NOISY.keys())
def test_no_vip_comes_while_it_would_be_heard(values: list[tuple[str, int, int]]) -> None:
    for interface, ignore, announce in values:
        settings(interface, ignore, announce)
    with pytest.raises(arp.Noisy):
        made()
    assert rtnetlink.read("dummy0") is None
    assert made(check_arp=False) != []


def test_it_is_enough_that_the_card_is_quiet() -> None:
    settings("all", 0, 0)
    settings("eth0", 1, 2)
    ip("link add eth1 type veth peer name far1")
    assert made() != []


def test_directors_that_are_reached_by_another_card_count_too(memory: dummywatch.Memory) -> None:
    ip("link add eth1 type veth peer name far1")
    ip("address add 192.0.2.41/24 dev eth1")
    ip("link set eth1 up")
    there = ipaddress.ip_address("192.0.2.2")
    duty = replace(DUTY, directors=(there,))
    settings("eth1", 4, 0)
    assert realserver.faults(DUTY) == ()
    assert [fault.interface for fault in realserver.faults(duty)] == ["eth1"]
    with pytest.raises(arp.Noisy):
        realserver.present(duty)
    applied(duty)
    memory.duty = duty
    assert told(memory) == [
        ("10.10.10.10", None, "lost"),
        ("net.ipv4.conf.eth1.arp_ignore", None, 4),
    ]
    realserver.heal(duty)
    assert Path(f"{CONF}/eth1/arp_ignore").read_text().strip() == "1"
    assert addresses() == ["10.10.10.10/32"]


def test_an_ipv6_vip_asks_for_no_setting() -> None:
    settings("all", 0, 0)
    assert made(replace(DUTY, vips=(VIP6,))) != []


# -------------------------------------------------------------------------------------------------
# Seen


def told(memory: dummywatch.Memory) -> list[tuple[Any, ...]]:
    """The changes of one look, in short."""
    return [
        (change.get("address") or change.get("sysctl"), change["was"], change["now"])
        for event in dummywatch.look(memory, "rs1", repeat=3600)
        if event["tag"] == "change"
        for change in event["changes"]
    ]


@pytest.mark.parametrize(
    ("harm", "lost"),
    [
        ("link delete dummy0", ["10.10.10.10", "fd00::10"]),
        ("address delete 10.10.10.10/32 dev dummy0", ["10.10.10.10"]),
        ("link set dummy0 down", ["fd00::10"]),
    ],
    ids=["deleted", "one VIP removed", "down: IPv4 still serves, IPv6 is gone"],
)
def test_a_loss_and_its_return_are_seen(
    harm: str, lost: list[str], memory: dummywatch.Memory
) -> None:
    made(BOTH)
    assert told(memory) == []
    ip(harm)
    assert told(memory) == [(address, "held", "lost") for address in lost]
    assert told(memory) == []
    made(BOTH)
    assert told(memory) == [(address, "lost", "restored") for address in lost]


def test_a_vip_with_another_prefix_is_not_held(memory: dummywatch.Memory) -> None:
    made(BOTH)
    told(memory)
    ip("address add 10.10.10.10/24 dev dummy0")
    ip("address delete 10.10.10.10/32 dev dummy0")
    assert told(memory) == [("10.10.10.10", "held", "lost")]


def test_what_lacks_at_the_first_look_is_news(memory: dummywatch.Memory) -> None:
    applied(BOTH)
    assert told(memory) == [("10.10.10.10", None, "lost"), ("fd00::10", None, "lost")]


def test_settings_that_are_changed_back_are_seen(memory: dummywatch.Memory) -> None:
    made(BOTH)
    told(memory)
    settings("all", 0, 2)
    assert told(memory) == [("net.ipv4.conf.all.arp_ignore", 1, 0)]
    settings("eth0", 1, 0)
    assert told(memory) == [("net.ipv4.conf.eth0.arp_ignore", 0, 1)]


def test_the_events_tell_the_whole_truth(memory: dummywatch.Memory) -> None:
    made(BOTH)
    ip("address delete 10.10.10.10/32 dev dummy0")
    change, state = list(dummywatch.look(memory, "rs1", repeat=3600))
    since = change["changes"][0]["since"]
    envelope = {key: change[key] for key in ("id", "cluster", "boot_id", "at")}
    assert (change["id"], change["cluster"], since) == ("rs1", "prod", change["at"])
    assert change == {
        **envelope,
        "tag": "change",
        "seq": change["seq"],
        "acted": False,
        "healing": False,
        "changes": [
            {
                "interface": "dummy0",
                "address": "10.10.10.10",
                "was": None,
                "now": "lost",
                "since": since,
                "count": 1,
                "repaired": False,
            }
        ],
    }
    assert state == {
        **envelope,
        "tag": "state",
        "seq": change["seq"] + 1,
        "interface": "dummy0",
        "vips": [
            {"address": "10.10.10.10", "now": "lost", "since": since, "count": 1},
            {"address": "fd00::10", "now": "held", "since": None, "count": 0},
        ],
        "sysctls": {
            "net.ipv4.conf.all.arp_ignore": 1,
            "net.ipv4.conf.all.arp_announce": 2,
            "net.ipv4.conf.eth0.arp_ignore": 0,
            "net.ipv4.conf.eth0.arp_announce": 0,
        },
        "quiet": True,
        "enabled": True,
        "leaving": [],
    }
    assert json.loads(json.dumps([change, state])) == [change, state]


def test_a_look_works_on_the_running_event_loop(memory: dummywatch.Memory) -> None:
    applied(BOTH)

    async def on_the_loop() -> list[tuple[Any, ...]]:
        return told(memory)

    assert asyncio.run(on_the_loop()) == [
        ("10.10.10.10", None, "lost"),
        ("fd00::10", None, "lost"),
    ]


# -------------------------------------------------------------------------------------------------
# Put back


def test_a_repair_puts_back_what_lacks() -> None:
    made(BOTH)
    ip("address delete 10.10.10.10/32 dev dummy0")
    outcome = realserver.repair(BOTH)
    assert outcome is not None
    assert [str(op) for op in outcome.ops] == ["add 10.10.10.10/32 to dummy0"]
    assert sorted(addresses()) == ["10.10.10.10/32", "fd00::10/128"]


def test_a_repair_where_nothing_lacks_touches_nothing() -> None:
    made()
    settings("eth0", 0, 0)
    assert realserver.repair(DUTY) == realserver.Outcome(())
    assert Path(f"{CONF}/eth0/arp_ignore").read_text().strip() == "0"
    assert not Path(realserver.REPAIRED).exists()


def test_a_repair_sets_arp_right_before_the_vip_comes() -> None:
    applied()
    settings("all", 0, 0)
    realserver.repair(DUTY)
    assert [Path(f"{CONF}/all/{name}").read_text().strip() for name in arp.QUIET] == ["1", "2"]
    assert addresses() == ["10.10.10.10/32"]


def test_a_repair_sets_the_cards_own_value_right_where_that_one_counts() -> None:
    applied()
    settings("eth0", 3, 0)
    assert realserver.repair(DUTY) == realserver.Outcome(
        (Op(Action.CREATE, "dummy0"), Op(Action.ADD, "dummy0", VIP)), silenced=True
    )
    assert Path(f"{CONF}/eth0/arp_ignore").read_text().strip() == "1"
    settings("all", 0, 0)
    assert realserver.heal(DUTY) == realserver.Outcome((), silenced=True)


def test_two_repairs_are_a_while_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    rests: list[float] = []

    def sleep(seconds: float) -> None:
        rests.append(seconds)

    monkeypatch.setattr(realserver.time, "sleep", sleep)
    applied()
    for _ in range(2):
        realserver.repair(DUTY)
        ip("link delete dummy0")
    assert rests[0] == 0.0
    assert 0.0 < rests[1] <= realserver.SECONDS_BETWEEN_REPAIRS


def test_a_repair_takes_nothing_away() -> None:
    made(BOTH)
    applied(DUTY)
    ip("address delete 10.10.10.10/32 dev dummy0")
    realserver.repair(DUTY)
    assert sorted(addresses()) == ["10.10.10.10/32", "fd00::10/128"]


def test_a_vip_that_no_apply_has_put_there_is_not_lost(memory: dummywatch.Memory) -> None:
    assert told(memory) == []
    made(DUTY)
    assert told(memory) == []
    ip("link delete dummy0")
    assert told(memory) == [("10.10.10.10", "held", "lost")]
    assert [str(op) for op in realserver.repair(BOTH).ops] == [  # type: ignore[union-attr]
        "create dummy interface dummy0",
        "add 10.10.10.10/32 to dummy0",
    ]


def test_a_vip_that_an_apply_has_taken_away_is_not_lost_even_by_an_older_pillar(
    memory: dummywatch.Memory,
) -> None:
    made(BOTH)
    assert told(memory) == []
    made(DUTY)
    assert told(memory) == []
    realserver.absent(DUTY, force=True)
    assert told(memory) == []
    assert realserver.repair(BOTH) == realserver.Outcome(())
    assert addresses() == []


def test_a_record_that_somebody_has_spoilt_counts_as_none(memory: dummywatch.Memory) -> None:
    made(BOTH)
    Path(realserver.RECORD).write_text("{")
    assert told(memory) == []
    made(BOTH)
    assert realserver.recorded("dummy0").vips == ("10.10.10.10/32", "fd00::10/128")
    assert Path(realserver.RECORD).stat().st_mode & 0o777 == 0o600


def test_a_repair_with_another_in_line_does_nothing() -> None:
    with locking.exclusive(f"{realserver.ASKED}.line"):
        assert realserver.repair(DUTY) is None
    assert addresses() == []


# -------------------------------------------------------------------------------------------------
# Read


def test_reading_agrees_with_iproute2() -> None:
    made(BOTH)
    ip("link add br0 type bridge")
    ip("address add 192.0.2.1 peer 192.0.2.2/32 dev br0")
    told = json.loads(
        subprocess.run(["ip", "-json", "-details", "address"], capture_output=True).stdout
    )
    expected = [
        (
            link["ifname"],
            link.get("linkinfo", {}).get("info_kind", ""),
            "UP" in link["flags"],
            "NOARP" not in link["flags"],
            [f"{item['local']}/{item['prefixlen']}" for item in link["addr_info"]],
        )
        for link in told
    ]
    found = [
        (link.name, link.kind, link.up, link.arp, [str(held.address) for held in link.addresses])
        for link in rtnetlink.read_all()
    ]
    assert found == expected


def test_a_glance_finds_who_else_holds_an_address() -> None:
    made()
    assert rtnetlink.glance("dummy0", OWN) == (rtnetlink.read("dummy0"), ("eth0",))
    assert rtnetlink.glance("dummy0", VIP.ip) == (rtnetlink.read("dummy0"), ())
    assert rtnetlink.glance("nothing", OWN) == (None, ("eth0",))


def test_a_read_that_a_change_has_interrupted_is_done_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # More than fits one datagram, so that something can happen between two.
    subprocess.run(
        ["ip", "-batch", "-"],
        input="".join(f"address add 10.1.{n >> 8}.{n & 255}/32 dev eth0\n" for n in range(2000)),
        text=True,
        check=True,
    )
    split = rtnetlink.messages
    datagrams: list[int] = []

    def interrupted(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
        datagrams.append(len(data))
        if len(datagrams) == 2:  # the first one tells of the interface
            ip("address add 192.0.2.7/32 dev lo")
        return split(data)

    monkeypatch.setattr(rtnetlink, "messages", interrupted)
    loopback, holders = rtnetlink.glance("lo", OWN)
    assert loopback is not None
    assert ipaddress.ip_interface("192.0.2.7/32") in {held.address for held in loopback.addresses}
    assert holders == ("eth0",)


# -------------------------------------------------------------------------------------------------
# Through Salt


@pytest.fixture
def rs1(tmp_path: Path) -> Minion:
    watch.memories.clear()
    # Salt's own handlers write to streams that pytest has closed by then.
    logging.raiseExceptions = False
    pillar = example("production")
    pillar["lvs"]["vip_persistence"] = False
    return Minion("rs1", pillar, tmp_path)


PRESENT = {
    "dummy0": {"old": None, "new": "up"},
    "10.10.10.10/32": {"old": None, "new": "dummy0"},
}


def test_the_state_makes_it_so_as_its_test_said_and_a_second_run_is_empty(rs1: Minion) -> None:
    tested = rs1.state("dummy.present", "dummy0", test=True)
    assert (tested["result"], tested["changes"]) == (None, PRESENT)
    assert rtnetlink.read("dummy0") is None
    assert rs1.state("dummy.present", "dummy0") == {
        "name": "dummy0",
        "result": True,
        "changes": PRESENT,
        "comment": "dummy0 was changed:\n"
        "- create dummy interface dummy0\n"
        "- add 10.10.10.10/32 to dummy0",
    }
    for test in (True, False):
        assert rs1.state("dummy.present", "dummy0", test=test) == {
            "name": "dummy0",
            "result": True,
            "changes": {},
            "comment": "dummy0 is as it should be.",
        }
    (listed,) = rs1.call("dummy.list").values()
    assert (listed["up"], listed["arp"]) == (True, False)
    assert {"address": "10.10.10.10/32", "ours": True} in listed["addresses"]
    assert rs1.call("dummy.check")["lacking"] == []


def test_the_state_names_a_foreign_address_and_leaves_it(rs1: Minion) -> None:
    made()
    ip("address add 192.0.2.7/24 dev dummy0")
    assert rs1.state("dummy.present", "dummy0", addresses=["10.10.10.11"], force=True) == {
        "name": "dummy0",
        "result": True,
        "changes": {
            "10.10.10.11/32": {"old": None, "new": "dummy0"},
            "10.10.10.10/32": {"old": "dummy0", "new": None},
        },
        "comment": "dummy0 was changed:\n"
        "- add 10.10.10.11/32 to dummy0\n"
        "- remove 10.10.10.10/32 from dummy0\n"
        "192.0.2.7/24 is not ours: left alone.",
    }


def test_the_state_refuses_a_vip_that_would_be_heard_unless_told_otherwise(rs1: Minion) -> None:
    settings("all", 0, 2)
    # A state before this one may be about to set it.
    assert rs1.state("dummy.present", "dummy0", test=True)["result"] is None
    fault = (
        "this machine answers ARP requests for its VIPs on eth0: net.ipv4.conf.all.arp_ignore and "
        "net.ipv4.conf.eth0.arp_ignore is 0, it should be 1"
    )
    assert rs1.state("dummy.present", "dummy0") == {
        "name": "dummy0",
        "result": False,
        "changes": {},
        "comment": f"no VIP is added while {fault}",
    }
    forced = rs1.state("dummy.present", "dummy0", check_arp=False)
    assert (forced["result"], forced["changes"]) == (True, PRESENT)
    assert f"Beware: {fault}." in rs1.state("dummy.present", "dummy0")["comment"]


def test_a_state_that_fails_half_way_reports_what_it_did(rs1: Minion) -> None:
    made()
    Path("/proc/sys/net/ipv6/conf/dummy0/disable_ipv6").write_text("1")
    answer = rs1.state("dummy.present", "dummy0", addresses=["10.10.10.11", "fd00::10"])
    assert (answer["result"], answer["changes"]) == (
        False,
        {
            "10.10.10.11/32": {"old": None, "new": "dummy0"},
            "10.10.10.10/32": {"old": "dummy0", "new": "dummy0, until nobody uses it"},
        },
    )
    assert answer["comment"].startswith("cannot add fd00::10/128 to dummy0: Permission denied")


def test_the_state_takes_it_away(rs1: Minion) -> None:
    made()
    gone = {
        "10.10.10.10/32": {"old": "dummy0", "new": None},
        "dummy0": {"old": "up", "new": None},
    }
    tested = rs1.state("dummy.absent", "dummy0", test=True)
    assert (tested["result"], tested["changes"]) == (None, gone)
    assert addresses() == ["10.10.10.10/32"]
    done = rs1.state("dummy.absent", "dummy0")
    assert (done["result"], done["changes"]) == (True, gone)
    assert rs1.state("dummy.absent", "dummy0")["changes"] == {}


def test_the_beacon_sees_the_loss_and_the_reactors_call_puts_it_back(rs1: Minion) -> None:
    rs1.call("dummy.present")
    (state,) = rs1.call("dummy.look")
    assert (state["tag"], state["quiet"]) == ("state", True)
    ip("link delete dummy0")
    (lost,) = rs1.call("dummy.look")
    assert [change["now"] for change in lost["changes"]] == ["lost"]
    assert rs1.call("dummy.repair") == {
        "interface": "dummy0",
        "operations": ["create dummy interface dummy0", "add 10.10.10.10/32 to dummy0"],
        "changes": PRESENT,
        "foreign": [],
        "left": [],
        "queued": False,
    }
    (restored,) = rs1.call("dummy.look")
    assert [change["now"] for change in restored["changes"]] == ["restored"]
    assert rs1.call("dummy.repair")["operations"] == []
