"""Which ARP settings would let a VIP be heard, and on which interface that matters."""

from __future__ import annotations

import ipaddress

import pytest
from saltext.lvs import arp
from saltext.lvs.arp import Setting
from saltext.lvs.rtnetlink import HeldAddress, Link


def settings(**values: tuple[int, int]) -> dict[Setting, int]:
    """arp_ignore and arp_announce of ``all`` and of interfaces."""
    return {
        Setting(interface, name): value
        for interface, pair in values.items()
        for name, value in zip(("arp_ignore", "arp_announce"), pair, strict=True)
    }


def answers(blamed: str, value: int) -> str:
    return (
        f"this machine answers ARP requests for its VIPs on eth0: {blamed} is {value}, "
        "it should be 1"
    )


def announces(blamed: str, value: int) -> str:
    return (
        f"this machine names a VIP as sender in its own ARP requests on eth0: {blamed} is {value}, "
        "it should be 2"
    )


BOTH = "net.ipv4.conf.all.{0} and net.ipv4.conf.eth0.{0}"
CASES = {
    "set for all interfaces": (settings(all=(1, 2), eth0=(0, 0)), []),
    "set for the interface that clients come in on": (settings(all=(0, 0), eth0=(1, 2)), []),
    "one in each place: the kernel takes the larger": (settings(all=(1, 0), eth0=(0, 2)), []),
    "answers only its own subnet": (settings(all=(2, 2), eth0=(0, 0)), []),
    "nothing is set": (
        settings(all=(0, 0), eth0=(0, 0)),
        [answers(BOTH.format("arp_ignore"), 0), announces(BOTH.format("arp_announce"), 0)],
    ),
    "only the answers are off": (
        settings(all=(1, 0), eth0=(0, 0)),
        [announces(BOTH.format("arp_announce"), 0)],
    ),
    "1 is too little to announce": (
        settings(all=(1, 1), eth0=(0, 0)),
        [announces("net.ipv4.conf.all.arp_announce", 1)],
    ),
    "a larger number is no stronger one: 3 answers for the VIP": (
        settings(all=(1, 2), eth0=(3, 0)),
        [answers("net.ipv4.conf.eth0.arp_ignore", 3)],
    ),
    "8 answers nobody at all": (settings(all=(8, 2), eth0=(0, 0)), []),
    "no interface to the outside": (settings(all=(0, 0)), []),
}


@pytest.mark.parametrize(("values", "expected"), CASES.values(), ids=CASES.keys())
def test_faults(values: dict[Setting, int], expected: list[str]) -> None:
    assert [str(fault) for fault in arp.faults(values)] == expected


def test_every_interface_is_judged_by_itself() -> None:
    found = arp.faults(settings(all=(0, 0), eth0=(1, 2), eth1=(0, 2)))
    assert [(fault.interface, fault.name, fault.effective) for fault in found] == [
        ("eth1", "arp_ignore", 0)
    ]


def test_a_dot_in_an_interfaces_name_is_a_slash_in_the_settings() -> None:
    setting = Setting("eth0.100", "arp_ignore")
    assert str(setting) == "net.ipv4.conf.eth0/100.arp_ignore"
    assert setting.path == "/proc/sys/net/ipv4/conf/eth0.100/arp_ignore"


def link(name: str, address: str, kind: str = "", loopback: bool = False) -> Link:
    held = HeldAddress(ipaddress.ip_interface(address))
    return Link(name, kind, True, True, (held,), loopback)


LINKS = [
    link("lo", "127.0.0.1/8", loopback=True),
    link("eth0", "10.10.10.41/24"),
    link("br0", "192.0.2.41/24", "bridge"),
    link("dummy0", "10.10.10.10/32", "dummy"),
]
INGRESS = {
    "where its own address is": ("10.10.10.41", ("eth0",)),
    "a bridge may have it": ("192.0.2.41", ("br0",)),
    "an address that no interface has: all to the outside": ("198.51.100.1", ("eth0", "br0")),
    "no address is known: all to the outside": (None, ("eth0", "br0")),
    "a VIP is never the way in": ("10.10.10.10", ("eth0", "br0")),
}


@pytest.mark.parametrize(("address", "expected"), INGRESS.values(), ids=INGRESS.keys())
def test_ingress(address: str | None, expected: tuple[str, ...]) -> None:
    own = ipaddress.ip_address(address) if address else None
    assert arp.ingress(LINKS, own) == expected
