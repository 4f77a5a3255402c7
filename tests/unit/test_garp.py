"""What neighbours are told of a VIP, byte by byte, and whose VIPs these are."""

from __future__ import annotations

import ipaddress
import struct
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from saltext.lvs import garp, model
from saltext.lvs.errors import InvalidConfig
from saltext.lvs.rtnetlink import Link

from tests.lab.capture import decode

LB1 = bytes.fromhex("02000a0a0a0b")
VIP = ipaddress.ip_address("10.10.10.10")
VIP6 = ipaddress.ip_address("fd00::10")

# Written down from the RFCs; the checksums were added up by hand.
TO_ALL = "ffffffffffff 02000a0a0a0b 0806"
TO_ALL_NODES = "333300000001 02000a0a0a0b 86dd"
IPV6 = "60000000 0020 3a ff fd000000000000000000000000000010 ff020000000000000000000000000001"
TARGET = "fd000000000000000000000000000010 02 01 02000a0a0a0b"
FRAMES: dict[str, tuple[Any, bool, list[str]]] = {
    "a VIP of IPv4, as a request and as a reply": (
        VIP,
        False,
        [
            f"{TO_ALL} 0001 0800 06 04 0001 02000a0a0a0b 0a0a0a0a 000000000000 0a0a0a0a",
            f"{TO_ALL} 0001 0800 06 04 0002 02000a0a0a0b 0a0a0a0a 02000a0a0a0b 0a0a0a0a",
        ],
    ),
    "a VIP of IPv4 on a machine that forwards, the same": (
        VIP,
        True,
        [
            f"{TO_ALL} 0001 0800 06 04 0001 02000a0a0a0b 0a0a0a0a 000000000000 0a0a0a0a",
            f"{TO_ALL} 0001 0800 06 04 0002 02000a0a0a0b 0a0a0a0a 02000a0a0a0b 0a0a0a0a",
        ],
    ),
    "a VIP of IPv6": (VIP6, False, [f"{TO_ALL_NODES} {IPV6} 88 00 4669 20000000 {TARGET}"]),
    "a VIP of IPv6 on a router": (
        VIP6,
        True,
        [f"{TO_ALL_NODES} {IPV6} 88 00 c668 a0000000 {TARGET}"],
    ),
}


@pytest.mark.parametrize(("vip", "router", "frames"), FRAMES.values(), ids=FRAMES.keys())
def test_the_frames_are_those_of_the_standards(vip: Any, router: bool, frames: list[str]) -> None:
    assert garp.frames_for(vip, LB1, router) == tuple(bytes.fromhex(frame) for frame in frames)


@given(address=st.ip_addresses(v=6), mac=st.binary(min_size=6, max_size=6), router=st.booleans())
def test_a_receiver_finds_every_advertisement_whole(
    address: ipaddress.IPv6Address, mac: bytes, router: bool
) -> None:
    (frame,) = garp.frames_for(address, mac, router)
    packet = decode(frame)
    # As RFC 1071 has it: with the checksum in it the sum is all ones.
    pseudo = frame[22:54] + struct.pack("!II", len(packet.payload), 58)
    words = struct.unpack(f"!{(40 + len(packet.payload)) // 2}H", pseudo + packet.payload)
    assert sum(words) % 0xFFFF == 0
    assert (packet.source, packet.destination) == (str(address), "ff02::1")
    assert packet.payload[8:24] == address.packed
    assert packet.payload[26:] == frame[6:12] == mac


LINKS: dict[str, tuple[Link, str]] = {
    "a network card": (Link("eth0", kind="", arp=True), ""),
    "a VLAN, a bridge, a bond": (Link("bond0.10", kind="vlan", arp=True), ""),
    "loopback": (
        Link("lo", kind="", arp=True, loopback=True),
        "lo holds it, which is a loopback interface: nobody is there to hear",
    ),
    "a dummy interface": (
        Link("dummy0", kind="dummy", arp=True),
        "dummy0 holds it, which is a dummy interface: nobody is there to hear",
    ),
    "one without ARP": (
        Link("eth0", kind="", arp=False),
        "eth0 holds it, which has ARP off (NOARP)",
    ),
    "one that is down": (Link("eth0", kind="", arp=True, up=False), "eth0 holds it, which is down"),
}


@pytest.mark.parametrize(("link", "why"), LINKS.values(), ids=LINKS.keys())
def test_only_where_neighbours_are_somebody_can_hear(link: Link, why: str) -> None:
    assert garp.inaudible(link) == why


# -------------------------------------------------------------------------------------------------
# Whose VIPs

CLUSTER = model.from_pillar(
    yaml.safe_load(
        """
        lvs:
          name: prod
          directors: {lb1: {}, lb2: {}}
          real_servers: {rs1: {address: 10.10.10.41}, rs6: {address: "fd00::41"}}
          vrrp_instances:
            VirtIP_10:
              interface: eth0
              virtual_router_id: 10
              virtual_ipaddress: [10.10.10.10, 10.10.10.20]
            VirtIP_6: {interface: eth0, virtual_router_id: 10, virtual_ipaddress: ["fd00::10"]}
          virtual_servers:
            web: {address: 10.10.10.10, port: 80, real_servers: [rs1]}
            marked: {address: "fd00::10", fwmark: 7, real_servers: [rs6]}
        """
    )
)
ALONE = model.from_pillar(
    yaml.safe_load(
        """
        lvs:
          directors: [lb1]
          real_servers: {rs1: {address: 10.10.10.41}}
          virtual_servers: {web: {address: 10.10.10.30, port: 80, real_servers: [rs1]}}
        """
    )
)


def written(vips: tuple[model.Address, ...]) -> list[str]:
    return [str(vip) for vip in vips]


def test_all_vips_are_those_of_instances_and_of_virtual_servers_each_once() -> None:
    assert written(garp.vips(CLUSTER)) == ["10.10.10.10", "10.10.10.20", "fd00::10"]
    assert written(garp.vips(ALONE)) == ["10.10.10.30"]


@pytest.mark.parametrize(
    ("asked", "vip"),
    [("10.10.10.20", "10.10.10.20"), ("fd00::10", "fd00::10"), ("FD00:0::0010", "fd00::10")],
    ids=["IPv4", "IPv6", "IPv6, written at length"],
)
def test_one_vip_may_be_asked_for(asked: str, vip: str) -> None:
    assert written(garp.vips(CLUSTER, asked)) == [vip]


@pytest.mark.parametrize(
    "asked",
    ["10.10.10.41", "10.10.10.10/32", "", "*", "10.10.10.10\n", "eth0", 168430090, ["10.10.10.10"]],
    ids=[
        "a real server's own",
        "one with a prefix",
        "nothing",
        "a star",
        "one with a line's end",
        "an interface",
        "a number that would be one",
        "a list",
    ],
)
def test_what_is_no_vip_is_refused_and_those_that_are_are_named(asked: Any) -> None:
    with pytest.raises(InvalidConfig) as caught:
        garp.vips(CLUSTER, asked)
    assert str(caught.value) == (
        f"address is {asked!r}; it should be a VIP of cluster prod: "
        "10.10.10.10, 10.10.10.20, fd00::10"
    )
