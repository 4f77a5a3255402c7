"""The kernel's list of connections: lines of several kernels, filtered, counted and paged."""

from __future__ import annotations

import contextlib
import itertools
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from saltext.lvs import connections
from saltext.lvs.connections import Connection, Listing
from saltext.lvs.errors import InvalidConfig, LvsError

HEADER = b"Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n"
OLD_HEADER = b"Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires\n"
IPV6 = b"fd00:0000:0000:0000:0000:0000:0000:00"

# A line of the kernel, and what it means.
LINES = {
    "IPv4": (
        b"TCP 0A0A0A64 9C40 0A0A0A0A 0050 0A0A0A29 0050 ESTABLISHED     899\n",
        Connection(
            "tcp",
            "10.10.10.100:40000",
            "tcp 10.10.10.10:80",
            "10.10.10.41:80",
            "ESTABLISHED",
            899,
        ),
    ),
    "IPv6": (
        b"TCP %s64 87AE %s10 0050 %s41 1F90 TIME_WAIT       119\n" % (IPV6, IPV6, IPV6),
        Connection(
            "tcp",
            "[fd00::64]:34734",
            "tcp [fd00::10]:80",
            "[fd00::41]:8080",
            "TIME_WAIT",
            119,
        ),
    ),
    "an IPv4 real server of an IPv6 virtual server": (
        b"UDP %s64 0035 %s10 0035 0A0A0A29 0035 UDP             299\n" % (IPV6, IPV6),
        Connection("udp", "[fd00::64]:53", "udp [fd00::10]:53", "10.10.10.41:53", "UDP", 299),
    ),
    "a name longer than its column": (
        b"SCTP 0A0A0A64 9C40 0A0A0A0A 0009 0A0A0A29 0009 ESTABLISHED     899\n",
        Connection(
            "sctp",
            "10.10.10.100:40000",
            "sctp 10.10.10.10:9",
            "10.10.10.41:9",
            "ESTABLISHED",
            899,
        ),
    ),
    "a client that persistence keeps": (
        b"TCP 0A0A0A00 0000 0A0A0A0A 0050 0A0A0A29 0050 ASSURED         299\n",
        Connection(
            "tcp",
            "10.10.10.0:0",
            "tcp 10.10.10.10:80",
            "10.10.10.41:80",
            "ASSURED",
            299,
            template=True,
        ),
    ),
    "the same, before Linux 4.18": (
        b"TCP 0A0A0A00 0000 0A0A0A0A 0050 0A0A0A29 0050 NONE            299\n",
        Connection(
            "tcp",
            "10.10.10.0:0",
            "tcp 10.10.10.10:80",
            "10.10.10.41:80",
            "NONE",
            299,
            template=True,
        ),
    ),
    "a client that a firewall mark's persistence keeps": (
        b"IP  0A0A0A64 0000 00000007 0000 0A0A0A29 0000 NONE             59\n",
        Connection("ip", "10.10.10.100:0", "fwmark 7", "10.10.10.41:0", "NONE", 59, template=True),
    ),
    "the same with IPv6": (
        b"IP  %s64 0000 0001:0007:%s 0000 %s41 0000 NONE             59\n"
        % (IPV6, b":".join([b"0000"] * 6), IPV6),
        Connection(
            "ip",
            "[fd00::64]:0",
            "fwmark 65543 (IPv6)",
            "[fd00::41]:0",
            "NONE",
            59,
            template=True,
        ),
    ),
    "a call that a persistence engine knows": (
        b"UDP 0A0A0A64 0000 0A0A0A0A 13C4 0A0A0A29 13C4 UDP              60 sip call 7@\xff\n",
        Connection(
            "udp",
            "10.10.10.100:0",
            "udp 10.10.10.10:5060",
            "10.10.10.41:5060",
            "UDP",
            60,
            persistence_engine="sip",
            persistence_data="call 7@\\xff",
        ),
    ),
    "a timer that should have fired": (
        b"TCP 0A0A0A64 9C40 0A0A0A0A 0050 0A0A0A29 0050 CLOSE     184467440737095516\n",
        Connection("tcp", "10.10.10.100:40000", "tcp 10.10.10.10:80", "10.10.10.41:80", "CLOSE", 0),
    ),
}


@pytest.mark.parametrize(("line", "meant"), LINES.values(), ids=LINES.keys())
def test_a_line_is_read(line: bytes, meant: Connection) -> None:
    assert connections.read([line]).page == (meant,)


@pytest.mark.parametrize("header", [HEADER, OLD_HEADER], ids=["new", "before Linux 2.6.37"])
def test_the_headline_is_no_connection(header: bytes) -> None:
    assert connections.read([header]) == Listing(0, 0, {}, {})


DAMAGED = {
    "nothing": b"\n",
    "too few columns": b"TCP 0A0A0A64 9C40 0A0A0A0A 0050 0A0A0A29 0050 ESTABLISHED\n",
    "a short address": b"TCP 0A0A0A 9C40 0A0A0A0A 0050 0A0A0A29 0050 ESTABLISHED 899\n",
    "an address of other letters": b"TCP 0A0A0A6G 9C40 0A0A0A0A 0050 0A0A0A29 0050 CLOSE 899\n",
    "a port of five digits": b"TCP 0A0A0A64 09C40 0A0A0A0A 0050 0A0A0A29 0050 ESTABLISHED 899\n",
    "a time in words": b"TCP 0A0A0A64 9C40 0A0A0A0A 0050 0A0A0A29 0050 ESTABLISHED soon\n",
}


@pytest.mark.parametrize("line", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_line_is_refused(line: bytes) -> None:
    with pytest.raises(connections.MalformedLine, match="^the kernel's list of connections has"):
        connections.read([HEADER, line])


words = st.sampled_from([line for line, _ in LINES.values()])
damaged = st.tuples(words, st.integers(0, 80), st.binary(max_size=4)).map(
    lambda parts: parts[0][: parts[1]] + parts[2] + parts[0][parts[1] + 1 :]
)


@given(st.lists(st.one_of(st.binary(max_size=120), words, damaged)))
def test_any_bytes_are_read_or_refused(lines: list[bytes]) -> None:
    tests = connections.filters(client="10.10.10.0/24")
    with contextlib.suppress(LvsError):
        connections.read(lines)
    with contextlib.suppress(LvsError):
        connections.read(lines, tests)


# --------------------------------------------------------------------------------------------------
# Filters


def told(**wanted: Any) -> list[str]:
    """The names of the lines above that pass."""
    return [
        name
        for name, (line, _) in LINES.items()
        if connections.read([line], connections.filters(**wanted)).total
    ]


ALL = list(LINES)
FILTERS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "nothing": ({}, ALL),
    "a protocol": ({"protocol": "sctp"}, ["a name longer than its column"]),
    "a state, in any case": (
        {"state": "established"},
        ["IPv4", "a name longer than its column"],
    ),
    "a client": (
        {"client": "10.10.10.100", "protocol": "TCP"},
        ["IPv4", "a timer that should have fired"],
    ),
    "an IPv6 client, however it is written": (
        {"client": "FD00:0::64", "state": "TIME_WAIT"},
        ["IPv6"],
    ),
    "a network of clients": (
        {"client": "10.10.10.0/25", "state": "ASSURED"},
        ["a client that persistence keeps"],
    ),
    "an IPv6 network of clients": ({"client": "fd00::/64", "protocol": "tcp"}, ["IPv6"]),
    "a network without clients": ({"client": "10.10.11.0/24"}, []),
    "a virtual server": ({"virtual_server": "sctp 10.10.10.10:9"}, [ALL[3]]),
    "an IPv6 virtual server": ({"virtual_server": "tcp [fd00::10]:80"}, ["IPv6"]),
    "a virtual server of any protocol": ({"virtual_server": "[fd00::10]:53"}, [ALL[2]]),
    "a VIP with all its ports": ({"virtual_server": "fd00::10"}, ["IPv6", ALL[2]]),
    "a firewall mark": ({"virtual_server": "fwmark 7"}, [ALL[6]]),
    "a firewall mark for IPv6": ({"virtual_server": "fwmark 65543 (IPv6)"}, [ALL[7]]),
    "a real server": ({"real_server": "10.10.10.41:5060"}, [ALL[8]]),
    "a real server with all its ports": (
        {"real_server": "10.10.10.41", "protocol": "udp"},
        [ALL[2], ALL[8]],
    ),
    "what no line passes": ({"client": "10.10.10.100", "state": "ASSURED"}, []),
}


@pytest.mark.parametrize(("wanted", "passing"), FILTERS.values(), ids=FILTERS.keys())
def test_a_filter_lets_pass(wanted: dict[str, Any], passing: list[str]) -> None:
    assert told(**wanted) == passing


NO_FILTERS: dict[str, dict[str, Any]] = {
    "a protocol that IPVS has not": {"protocol": "icmp"},
    "a state of two words": {"state": "SYN RECV"},
    "no state": {"state": 7},
    "a client by name": {"client": "rs1"},
    "a network that is none": {"client": "10.10.10.0/33"},
    "a virtual server by name": {"virtual_server": "web"},
    "a virtual server of an unknown protocol": {"virtual_server": "quic 10.10.10.10:443"},
    "a mark beyond 32 bits": {"virtual_server": "fwmark 4294967296"},
    "a real server with a protocol": {"real_server": "tcp 10.10.10.41:80"},
    "a port beyond 16 bits": {"real_server": "10.10.10.41:65536"},
    "half an address": {"real_server": "10.10.10"},
    "brackets around nothing": {"real_server": "[]:80"},
}


@pytest.mark.parametrize("wanted", NO_FILTERS.values(), ids=NO_FILTERS.keys())
def test_what_is_no_filter_is_refused(wanted: dict[str, Any]) -> None:
    (name,) = wanted
    with pytest.raises(InvalidConfig, match=f"^{name} is .*; it should be "):
        connections.filters(**wanted)


@given(st.text(max_size=40))
def test_any_text_is_a_filter_or_is_refused(text: str) -> None:
    for name in ("protocol", "client", "virtual_server", "real_server", "state"):
        with contextlib.suppress(InvalidConfig):
            connections.read([LINES["IPv4"][0]], connections.filters(**{name: text}))


# --------------------------------------------------------------------------------------------------
# Counts and pages


def many(number: int) -> Iterator[bytes]:
    """The lines of as many connections, spread over three real servers and two states."""
    yield HEADER
    states = itertools.cycle([b"ESTABLISHED", b"FIN_WAIT"])
    servers = itertools.cycle([0x2A, 0x29, 0x2B])
    for index, server, state in zip(range(number), servers, states, strict=False):
        client = (b"%08X" % (0x0A000000 + index // 60000), b"%04X" % (index % 60000 + 1024))
        yield b"TCP %s %s 0A0A0A0A 0050 0A0A0A%02X 0050 %-11s     899\n" % (*client, server, state)


def test_all_that_match_are_counted_and_a_page_is_shown() -> None:
    listing = connections.read(many(12), offset=5, limit=2)
    assert listing.as_data() == {
        "total": 12,
        "templates": 0,
        "by_state": {"ESTABLISHED": 6, "FIN_WAIT": 6},
        "by_real_server": {
            "10.10.10.41:80": {"ESTABLISHED": 2, "FIN_WAIT": 2},
            "10.10.10.42:80": {"ESTABLISHED": 2, "FIN_WAIT": 2},
            "10.10.10.43:80": {"ESTABLISHED": 2, "FIN_WAIT": 2},
        },
        "connections": [
            {
                "protocol": "tcp",
                "client": "10.0.0.0:1029",
                "virtual_server": "tcp 10.10.10.10:80",
                "real_server": "10.10.10.43:80",
                "state": "FIN_WAIT",
                "expires": 899,
                "template": False,
            },
            {
                "protocol": "tcp",
                "client": "10.0.0.0:1030",
                "virtual_server": "tcp 10.10.10.10:80",
                "real_server": "10.10.10.42:80",
                "state": "ESTABLISHED",
                "expires": 899,
                "template": False,
            },
        ],
    }


def test_what_a_persistence_engine_knows_is_told_only_where_there_is_one() -> None:
    _, call = LINES["a call that a persistence engine knows"]
    assert call.as_data()["persistence_engine"] == "sip"
    assert "persistence_data" not in LINES["IPv4"][1].as_data()


@given(st.integers(0, 40), st.integers(0, 50), st.integers(1, 50))
def test_pages_one_after_another_are_the_whole_list(number: int, start: int, limit: int) -> None:
    whole = connections.read(many(number), limit=connections.MAX_LIMIT).page
    listing = connections.read(many(number), offset=start, limit=limit)
    assert (listing.total, listing.page) == (number, whole[start : start + limit])


def test_many_connections_take_no_more_memory_than_few() -> None:
    def peak(number: int) -> int:
        tracemalloc.start()
        try:
            assert connections.read(many(number)).total == number
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(1000)
    few, more = peak(1000), peak(50_000)
    assert more < few + 10_000


PAGES: dict[str, dict[str, Any]] = {
    "before the first": {"offset": -1},
    "less than nothing": {"limit": -1},
    "more than a return can hold": {"limit": 10_001},
    "a word": {"limit": "all"},
}


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES.keys())
def test_what_is_no_page_is_refused(page: dict[str, Any]) -> None:
    (name,) = page
    with pytest.raises(InvalidConfig, match=f"^{name} is .*; it should be a whole number"):
        connections.as_page(**page)


def test_a_page_is_a_hundred_connections() -> None:
    assert connections.as_page() == (0, 100)
    assert connections.as_page(200, 0) == (200, 0)
