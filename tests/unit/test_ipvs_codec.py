"""Bytes of IPVS's netlink messages: written and read without a kernel."""

from __future__ import annotations

import contextlib
import ipaddress
import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from saltext.lvs import ipvs, netlink
from saltext.lvs.errors import LvsError
from saltext.lvs.model import Forward, VirtualServer

from tests.unit.tables import real_server, virtual_server, virtual_servers


def encoded_key(*parts: tuple[int, bytes]) -> bytes:
    """Attributes written out by hand: struct nlattr of linux/netlink.h."""
    written = b""
    for kind, payload in parts:
        padding = b"\0" * (-len(payload) % 4)
        written += struct.pack("=HH", 4 + len(payload), kind) + payload + padding
    return written


def test_a_virtual_server_is_written_as_the_uapi_header_says() -> None:
    server = virtual_server("tcp 10.10.10.10:80", scheduler="wlc", persistence=5)
    assert ipvs.encode_virtual_server(server) == encoded_key(
        (1, b"\x02\x00"),
        (2, b"\x06\x00"),
        (3, b"\x0a\x0a\x0a\x0a" + b"\0" * 12),
        (4, b"\x00\x50"),
        (6, b"wlc\0"),
        (7, b"\x01\x00\x00\x00\xff\xff\xff\xff"),
        (8, b"\x05\x00\x00\x00"),
        (9, b"\xff\xff\xff\xff"),
    )


def test_a_firewall_mark_stands_in_the_place_of_address_and_port() -> None:
    key = ipvs.VirtualServerKey(None, None, 0, 7, 6)
    assert ipvs.encode_virtual_server_key(key) == encoded_key(
        (1, b"\x0a\x00"), (5, b"\x07\x00\x00\x00")
    )


def test_a_real_server_is_written_as_the_uapi_header_says() -> None:
    server = replace(real_server("10.10.10.41:8080", 50, Forward.MASQ), upper_threshold=9)
    assert ipvs.encode_real_server(server) == encoded_key(
        (1, b"\x0a\x0a\x0a\x29" + b"\0" * 12),
        (2, b"\x1f\x90"),
        (3, b"\x00\x00\x00\x00"),
        (4, b"\x32\x00\x00\x00"),
        (5, b"\x09\x00\x00\x00"),
        (6, b"\x00\x00\x00\x00"),
        (11, b"\x02\x00"),
    )


NETMASKS = {
    "every IPv4 client for itself": ("tcp 10.10.10.10:80", 32, b"\xff\xff\xff\xff"),
    "IPv4 clients by network, in network order": ("tcp 10.10.10.10:80", 20, b"\xff\xff\xf0\x00"),
    "IPv6 clients by network, a prefix in host order": (
        "tcp [fd00::1]:80",
        64,
        b"\x40\x00\x00\x00",
    ),
}


@pytest.mark.parametrize(("of", "netmask", "written"), NETMASKS.values(), ids=NETMASKS.keys())
def test_a_netmask_is_written_for_its_family(of: str, netmask: int, written: bytes) -> None:
    assert ipvs.encode_netmask(virtual_server(of, netmask=netmask)) == written


@given(virtual_servers())
def test_what_is_written_reads_back_the_same(server: VirtualServer) -> None:
    assert ipvs.decode_virtual_server(ipvs.encode_virtual_server(server)) == server.settings()
    for real in server.real_servers:
        written = ipvs.encode_real_server(real)
        assert ipvs.decode_real_server(written, server.key.family)[0] == real


def test_flags_that_the_kernel_sets_by_itself_are_passed_over() -> None:
    hashed = netlink.attribute(ipvs.IPVS_SVC_ATTR_FLAGS, struct.pack("=LL", 0x2 | 0x10, 0xFFFFFFFF))
    server = virtual_server("tcp 10.10.10.10:80", scheduler="sh")
    decoded = ipvs.decode_virtual_server(ipvs.encode_virtual_server(server) + hashed)
    assert decoded == replace(server, scheduler_flags=0x10)


def test_an_attribute_of_a_newer_kernel_is_passed_over() -> None:
    server = virtual_server("tcp 10.10.10.10:80")
    written = ipvs.encode_virtual_server(server) + netlink.attribute(99, b"new")
    assert ipvs.decode_virtual_server(written) == server


def test_a_kernel_that_tells_no_family_means_the_virtual_servers() -> None:
    server = real_server("10.10.10.41:80")
    written = ipvs.encode_real_server(server)
    without_family = written[: -len(netlink.attribute(ipvs.IPVS_DEST_ATTR_ADDR_FAMILY, b"\0\0"))]
    assert ipvs.decode_real_server(without_family, 4)[0] == server


DAMAGED = {
    "an attribute longer than its message": struct.pack("=HH", 40, 1) + b"\x02\x00\x00\x00",
    "an attribute shorter than its header": struct.pack("=HH", 2, 1) + b"\0" * 8,
    "no address family": netlink.attribute(ipvs.IPVS_SVC_ATTR_PORT, b"\0\x50"),
    "an address family of one byte": netlink.attribute(ipvs.IPVS_SVC_ATTR_AF, b"\x02"),
    "an address of three bytes": encoded_key((1, b"\x02\0"), (2, b"\x06\0"), (3, b"\x0a\x0a\x0a")),
    "a protocol that IPVS has not": encoded_key((1, b"\x02\0"), (2, b"\x01\0"), (3, b"\0" * 16)),
    "nothing": b"",
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(netlink.MalformedMessage):
        ipvs.decode_virtual_server(data)


@given(st.binary(max_size=256))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for read in (
        lambda: list(netlink.messages(data)),
        lambda: list(netlink.attributes(data)),
        lambda: ipvs.decode_virtual_server(data),
        lambda: ipvs.decode_real_server(data, 4),
    ):
        with contextlib.suppress(LvsError):
            read()


def test_an_address_of_the_kernels_union_reads_by_family() -> None:
    data = ipaddress.ip_address("10.10.10.10").packed + b"\0" * 12
    assert str(ipvs.decode_address(data, 4)) == "10.10.10.10"
    assert str(ipvs.decode_address(data, 6)) == "a0a:a0a::"
