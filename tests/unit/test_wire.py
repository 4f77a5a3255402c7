"""Virtual servers and real servers as the kernel's bytes, without a kernel."""

from __future__ import annotations

import contextlib
import ipaddress
import struct
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from saltext.lvs import netlink, wire
from saltext.lvs.errors import LvsError
from saltext.lvs.model import (
    Forward,
    TunnelChecksum,
    TunnelType,
    VirtualServer,
    VirtualServerKey,
)

from tests.unit.handwritten import attributes
from tests.unit.tables import real_server, virtual_server, virtual_servers


def test_a_virtual_server_is_written_as_the_uapi_header_says() -> None:
    server = virtual_server("tcp 10.10.10.10:80", scheduler="wlc", persistence=5)
    assert wire.pack_key(server.key) == attributes(
        (1, b"\x02\x00"),
        (2, b"\x06\x00"),
        (3, b"\x0a\x0a\x0a\x0a" + b"\0" * 12),
        (4, b"\x00\x50"),
    )
    assert wire.pack_settings(server) == attributes(
        (6, b"wlc\0"),
        (7, b"\x01\x00\x00\x00\xff\xff\xff\xff"),
        (8, b"\x05\x00\x00\x00"),
        (9, b"\xff\xff\xff\xff"),
    )


def test_a_firewall_mark_stands_in_the_place_of_address_and_port() -> None:
    key = VirtualServerKey(None, None, 0, 7, 6)
    assert wire.pack_key(key) == attributes((1, b"\x0a\x00"), (5, b"\x07\x00\x00\x00"))


def test_a_persistence_engine_stands_behind_the_scheduler_as_the_kernel_writes_it() -> None:
    server = virtual_server("udp 10.10.10.10:5060", scheduler="rr", persistence_engine="sip")
    assert wire.pack_settings(server).startswith(attributes((6, b"rr\0"), (11, b"sip\0")))


def test_a_real_server_is_written_as_the_uapi_header_says() -> None:
    server = replace(real_server("10.10.10.41:8080", 50, Forward.MASQ), upper_threshold=9)
    assert wire.pack_real_key(server.key) == attributes(
        (11, b"\x02\x00"),
        (1, b"\x0a\x0a\x0a\x29" + b"\0" * 12),
        (2, b"\x1f\x90"),
    )
    assert wire.pack_real_settings(server) == attributes(
        (3, b"\x00\x00\x00\x00"),
        (4, b"\x32\x00\x00\x00"),
        (13, b"\x00"),
        (14, b"\x00\x00"),
        (15, b"\x00\x00"),
        (5, b"\x09\x00\x00\x00"),
        (6, b"\x00\x00\x00\x00"),
    )


def test_a_tunnels_port_is_in_network_order_and_its_flags_are_not() -> None:
    server = replace(
        real_server("10.10.10.41:80", 1, Forward.TUNNEL),
        tunnel_type=TunnelType.GUE,
        tunnel_port=6080,
        tunnel_checksum=TunnelChecksum.REMOTE,
    )
    tunnel = attributes((13, b"\x01"), (14, b"\x17\xc0"), (15, b"\x02\x00"))
    assert tunnel in wire.pack_real_settings(server)


NETMASKS = {
    "every IPv4 client for itself": (32, 4, b"\xff\xff\xff\xff"),
    "IPv4 clients by network, in network order": (20, 4, b"\xff\xff\xf0\x00"),
    "IPv6 clients by network, a prefix in host order": (64, 6, b"\x40\x00\x00\x00"),
}


@pytest.mark.parametrize(("prefix", "family", "written"), NETMASKS.values(), ids=NETMASKS.keys())
def test_a_netmask_is_written_for_its_family(prefix: int, family: int, written: bytes) -> None:
    assert wire.pack_netmask(prefix, family) == written


@given(virtual_servers())
def test_what_is_packed_unpacks_the_same(server: VirtualServer) -> None:
    key = wire.pack_key(server.key)
    assert wire.unpack_virtual_server(key, wire.pack_virtual_server(server)) == server


@given(virtual_servers(), st.randoms(use_true_random=False))
def test_attributes_in_any_order_repack_to_the_same_bytes(
    server: VirtualServer, random: Random
) -> None:
    key, settings = wire.pack_key(server.key), wire.pack_settings(server)
    assert wire.repack_virtual_server(shuffled(key + settings, random)) == (key, settings)
    family = wire.FAMILY_NUMBERS[server.key.family]
    for real in server.real_servers:
        real_key, real_settings = wire.pack_real_key(real.key), wire.pack_real_settings(real)
        mixed = shuffled(real_key + real_settings, random)
        assert wire.repack_real_server(mixed, family)[:2] == (real_key, real_settings)


def shuffled(data: bytes, random: Random) -> bytes:
    """The same attributes in another order, with one among them that nobody knows yet."""
    parts = [netlink.attribute(kind, payload) for kind, payload in netlink.attributes(data)]
    parts.append(netlink.attribute(99, b"new"))
    random.shuffle(parts)
    return b"".join(parts)


def test_what_the_kernel_adds_to_a_virtual_server_by_itself_is_passed_over() -> None:
    server = virtual_server("tcp 10.10.10.10:80", scheduler="sh", scheduler_flags=0x10)
    key, settings = wire.pack_key(server.key), wire.pack_settings(server)
    hashed = netlink.attribute(7, struct.pack("=LL", 0x2 | 0x10, 0xFFFFFFFF))
    assert wire.repack_virtual_server(key + settings + hashed) == (key, settings)


def test_the_time_of_a_persistence_that_is_off_means_nothing() -> None:
    server = virtual_server("tcp 10.10.10.10:80")
    key, settings = wire.pack_key(server.key), wire.pack_settings(server)
    stale = netlink.attribute(8, struct.pack("=L", 300))
    assert wire.repack_virtual_server(key + settings + stale) == (key, settings)


def test_an_older_kernel_tells_neither_the_family_nor_tunnels_of_a_real_server() -> None:
    server = real_server("10.10.10.41:80")
    old = attributes(
        (1, b"\x0a\x0a\x0a\x29" + b"\0" * 12),
        (2, b"\x00\x50"),
        (3, b"\x03\x00\x00\x00"),
        (4, b"\x01\x00\x00\x00"),
        (5, b"\x00\x00\x00\x00"),
        (6, b"\x00\x00\x00\x00"),
    )
    key, settings, counters = wire.repack_real_server(old, wire.FAMILY_NUMBERS[4])
    assert wire.unpack_real_server(key, settings) == server
    assert wire.unpack_counters(counters) == wire.Connections(0, 0, 0)


def test_a_kind_of_tunnel_that_nobody_knows_yet_is_kept_and_only_its_name_is_unknown() -> None:
    server = replace(real_server("10.10.10.41:80"), forward=Forward.TUNNEL)
    known, unknown = attributes((13, b"\0")), attributes((13, b"\x07"))
    newer = wire.pack_real_settings(server).replace(known, unknown)
    data = wire.pack_real_key(server.key) + newer
    key, settings, _ = wire.repack_real_server(data, wire.FAMILY_NUMBERS[4])
    assert settings == newer
    with pytest.raises(netlink.MalformedMessage, match="does not know tunnel type 7"):
        wire.unpack_real_server(key, settings)


DAMAGED = {
    "an attribute longer than its message": struct.pack("=HH", 40, 1) + b"\x02\x00\x00\x00",
    "an attribute shorter than its header": struct.pack("=HH", 2, 1) + b"\0" * 8,
    "no address family": attributes((4, b"\0\x50")),
    "an address family of one byte": attributes((1, b"\x02")),
    "an address of three bytes": attributes((1, b"\x02\0"), (2, b"\x06\0"), (3, b"\x0a\x0a\x0a")),
    "nothing": b"",
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(netlink.MalformedMessage):
        wire.repack_virtual_server(data)
    with pytest.raises(netlink.MalformedMessage):
        wire.repack_real_server(data, wire.FAMILY_NUMBERS[4])


# Bytes that nobody would make by chance: real ones, cut, doubled, or with some of them changed.
whole = virtual_servers().map(
    lambda server: b"".join(
        (
            wire.pack_key(server.key) + wire.pack_settings(server),
            *(
                wire.pack_real_key(real.key) + wire.pack_real_settings(real)
                for real in server.real_servers
            ),
        )
    )
)


@st.composite
def hostile(draw: st.DrawFn) -> bytes:
    """Bytes for a decoder that trusts nobody."""
    data = bytearray(draw(st.one_of(st.binary(max_size=512), whole)))
    for _ in range(draw(st.integers(0, 8)) if data else 0):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))])


@settings(max_examples=2000, deadline=1000)
@given(hostile())
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for read in (
        lambda: list(netlink.messages(data)),
        lambda: list(netlink.attributes(data)),
        lambda: wire.unpack_settings(*wire.repack_virtual_server(data)),
        lambda: wire.unpack_real_server(*wire.repack_real_server(data, 2)[:2]),
        lambda: wire.VirtualServerReader().read(data),
        lambda: wire.is_usual(data),
        lambda: wire.unpack_key(data),
        lambda: wire.unpack_real_key(data),
        lambda: wire.unpack_counters(data),
    ):
        with contextlib.suppress(LvsError):
            read()


@given(st.lists(virtual_servers(), max_size=6), st.integers(0, 40))
def test_a_reader_of_many_virtual_servers_reads_each_as_if_it_were_alone(
    servers: list[VirtualServer], counters: int
) -> None:
    reader = wire.VirtualServerReader()
    statistics = netlink.attribute(wire.IPVS_SVC_ATTR_STATS, bytes(counters))
    for server in servers:
        key, settings = wire.pack_key(server.key), wire.pack_settings(server)
        assert reader.read(key + settings + statistics) == (key, settings)


def test_an_address_of_the_kernels_union_reads_by_family() -> None:
    data = ipaddress.ip_address("10.10.10.10").packed + b"\0" * 12
    assert str(wire.unpack_address(data, 4)) == "10.10.10.10"
    assert str(wire.unpack_address(data, 6)) == "a0a:a0a::"
