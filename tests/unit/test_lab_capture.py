"""Frames as they are on the wire, and what the lab reads in them."""

from __future__ import annotations

import pytest

from tests.lab.capture import Packet, decode

ETHERNET = "02000a0a0a29 02000a0a0a0b"  # to rs1, from lb1
MACS = {"source_mac": "02:00:0a:0a:0a:0b", "destination_mac": "02:00:0a:0a:0a:29"}
UDP = "1f90 0035 000a 0000 6869"  # 8080 to 53, "hi"


def ipv4(protocol: str, length: str, options: str = "", first: str = "45") -> str:
    return f"{first} 00 {length} 0000 4000 40 {protocol} 0000 0a0a0a65 0a0a0a0a {options}"


FRAMES = {
    "an ARP request": (
        "0806 0001 0800 06 04 0001 02000a0a0a0b 0a0a0a0b 000000000000 0a0a0a29",
        {
            "kind": "arp",
            "operation": "request",
            "source": "10.10.10.11",
            "destination": "10.10.10.41",
        },
    ),
    "an ARP reply": (
        "0806 0001 0800 06 04 0002 02000a0a0a0b 0a0a0a0a 02000a0a0a29 0a0a0a65",
        {
            "kind": "arp",
            "operation": "reply",
            "source": "10.10.10.10",
            "destination": "10.10.10.101",
        },
    ),
    "UDP over IPv4, without the padding of a short frame": (
        f"0800 {ipv4('11', '001e')} {UDP} 000000000000",
        {
            "kind": "ipv4",
            "source": "10.10.10.101",
            "destination": "10.10.10.10",
            "protocol": "udp",
            "source_port": 8080,
            "destination_port": 53,
            "payload": bytes.fromhex(UDP),
        },
    ),
    "TCP over IPv4 with options": (
        f"0800 {ipv4('06', '001c', options='01010100', first='46')} c000 0050",
        {
            "kind": "ipv4",
            "source": "10.10.10.101",
            "destination": "10.10.10.10",
            "protocol": "tcp",
            "source_port": 49152,
            "destination_port": 80,
            "payload": bytes.fromhex("c0000050"),
        },
    ),
    "VRRP, which has no ports": (
        f"0800 {ipv4('70', '0018')} 210a9601",
        {
            "kind": "ipv4",
            "source": "10.10.10.101",
            "destination": "10.10.10.10",
            "protocol": "vrrp",
            "payload": bytes.fromhex("210a9601"),
        },
    ),
    "a protocol without a name": (
        f"0800 {ipv4('2f', '0014')}",
        {
            "kind": "ipv4",
            "source": "10.10.10.101",
            "destination": "10.10.10.10",
            "protocol": "47",
        },
    ),
    "ICMP over IPv6": (
        "86dd 60000000 0004 3a ff fd000000000000000000000000000001"
        " fd000000000000000000000000000002 87000000",
        {
            "kind": "ipv6",
            "source": "fd00::1",
            "destination": "fd00::2",
            "protocol": "icmpv6",
            "payload": bytes.fromhex("87000000"),
        },
    ),
    "what is neither ARP nor IP": ("88cc 0207", {"kind": "0x88cc"}),
}


@pytest.mark.parametrize(("frame", "expected"), FRAMES.values(), ids=FRAMES)
def test_a_frame_is_read_as(frame: str, expected: dict[str, object]) -> None:
    packet = decode(bytes.fromhex(ETHERNET + frame), at=1.5, outgoing=True)
    assert packet == Packet(at=1.5, outgoing=True, **MACS, **expected)  # type: ignore[arg-type]
