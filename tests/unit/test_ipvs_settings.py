"""IPVS's timeouts, sync daemons and information as bytes, and what is refused before any are
sent: without a kernel.
"""

from __future__ import annotations

import contextlib
import ipaddress
import struct
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from saltext.lvs import model, netlink, settings
from saltext.lvs.errors import InvalidConfig, LvsError
from saltext.lvs.settings import Info, SyncDaemon, SyncState, Timeouts

from tests.unit.handwritten import attributes

GUIDE = SyncDaemon(SyncState.MASTER, "eth0", syncid=10)


def in_daemon(data: bytes) -> bytes:
    """What stands within IPVS_CMD_ATTR_DAEMON."""
    ((kind, inside),) = netlink.attributes(data)
    assert kind == 3
    return inside


# --------------------------------------------------------------------------------------------------
# Timeouts


def test_timeouts_are_written_as_the_uapi_header_says() -> None:
    assert settings.encode_timeouts(Timeouts(900, 120, 300)) == attributes(
        (4, b"\x84\x03\x00\x00"), (5, b"\x78\x00\x00\x00"), (6, b"\x2c\x01\x00\x00")
    )


seconds = st.integers(1, model.MAX_TIMEOUT_SECONDS)


@given(st.builds(Timeouts, seconds, seconds, seconds))
def test_timeouts_read_back_the_same(timeouts: Timeouts) -> None:
    assert settings.decode_timeouts(settings.encode_timeouts(timeouts)) == timeouts


def test_a_protocol_that_the_kernel_lacks_has_no_timeout() -> None:
    assert settings.decode_timeouts(attributes((6, b"\x2c\x01\x00\x00"))) == Timeouts(0, 0, 300)


def test_only_what_is_named_is_wanted() -> None:
    values = {"tcp": 1800, "tcpfin": None, "udp": None}
    assert settings.wanted_timeouts(values) == {"tcp": 1800}


NO_TIMEOUTS = {
    "nothing at all": ({"tcp": None}, "timeouts is missing"),
    "0, which the kernel takes for 'as it is'": ({"tcp": 0}, "timeouts:tcp is 0"),
    "more than the kernel's clock can count": ({"udp": 2_147_484}, "timeouts:udp is 2147484"),
    "a fraction": ({"tcpfin": 1.5}, "timeouts:tcpfin is 1.5"),
    "a word": ({"tcp": "900"}, "timeouts:tcp is '900'"),
    "True": ({"tcp": True}, "timeouts:tcp is True"),
    "a state that IPVS has no setting for": ({"tcp": 1, "sctp": 9}, "timeouts:sctp is 9"),
}


@pytest.mark.parametrize(("values", "told"), NO_TIMEOUTS.values(), ids=NO_TIMEOUTS.keys())
def test_what_is_no_timeout_is_refused(values: Mapping[str, Any], told: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        settings.wanted_timeouts(values)
    assert str(caught.value).startswith(f"{told}; it should be ")


# --------------------------------------------------------------------------------------------------
# Synchronization daemons


def test_a_sync_daemon_is_written_as_the_uapi_header_says() -> None:
    assert in_daemon(settings.encode_sync_daemon(GUIDE)) == attributes(
        (1, b"\x01\x00\x00\x00"),
        (2, b"eth0\0"),
        (3, b"\x0a\x00\x00\x00"),
        (5, b"\xe0\x00\x00\x51"),
        (7, b"\x90\x22"),
        (8, b"\x01"),
    )


def test_an_ipv6_group_and_a_length_have_attributes_of_their_own() -> None:
    daemon = SyncDaemon(
        SyncState.BACKUP, "eth0", 255, ipaddress.ip_address("ff02::81"), 9999, 64, 1400
    )
    assert in_daemon(settings.encode_sync_daemon(daemon)) == attributes(
        (1, b"\x02\x00\x00\x00"),
        (2, b"eth0\0"),
        (3, b"\xff\x00\x00\x00"),
        (6, b"\xff\x02" + b"\0" * 13 + b"\x81"),
        (7, b"\x0f\x27"),
        (8, b"\x40"),
        (4, b"\x78\x05"),
    )


def test_a_daemon_is_stopped_by_its_state() -> None:
    assert settings.encode_sync_state(SyncState.BACKUP) == attributes(
        (3, attributes((1, b"\x02\x00\x00\x00")))
    )


names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.:@-]{0,14}", fullmatch=True)
groups = st.one_of(
    st.integers(0, 2**28 - 1).map(lambda rest: ipaddress.IPv4Address((0xE << 28) + rest)),
    st.integers(0, 2**120 - 1).map(lambda rest: ipaddress.IPv6Address((0xFF << 120) + rest)),
)


@st.composite
def daemons(draw: st.DrawFn) -> SyncDaemon:
    """Sync daemons of every kind that the kernel takes."""
    state, group = draw(st.sampled_from(SyncState)), draw(groups)
    least = settings.MIN_BACKUP_MAXLEN if state is SyncState.BACKUP else 1
    most = 65535 - settings.UDP_HEADERS_BYTES[group.version]
    return SyncDaemon(
        state,
        draw(names),
        draw(st.integers(0, 255)),
        group,
        draw(st.integers(1, 65535)),
        draw(st.integers(1, 255)),
        draw(st.one_of(st.just(0), st.integers(least, most))),
    )


@given(daemons())
def test_a_sync_daemon_reads_back_the_same(daemon: SyncDaemon) -> None:
    written = settings.encode_sync_daemon(daemon)
    assert settings.decode_sync_daemon(in_daemon(written)) == daemon


@given(daemons())
def test_a_sync_daemon_goes_through_plain_values(daemon: SyncDaemon) -> None:
    data = daemon.as_data()
    assert SyncDaemon.from_data({**data, "maxlen": data["maxlen"] or None}) == daemon


def test_a_kernel_that_tells_no_group_has_the_one_that_there_always_was() -> None:
    old = attributes((1, b"\x01\0\0\0"), (2, b"eth0\0"), (3, b"\x0a\0\0\0"))
    assert settings.decode_sync_daemon(old) == GUIDE


def test_what_a_newer_kernel_adds_is_passed_over() -> None:
    new = attributes((99, b"new"))
    written = in_daemon(settings.encode_sync_daemon(GUIDE))
    assert settings.decode_sync_daemon(written + new) == GUIDE
    timeouts = Timeouts(1, 2, 3)
    assert settings.decode_timeouts(settings.encode_timeouts(timeouts) + new) == timeouts


MET = {
    "by the same settings": (GUIDE, True),
    "by the length that the kernel chose": (
        SyncDaemon(SyncState.MASTER, "eth0", 10, maxlen=1472),
        True,
    ),
    "not by another number": (SyncDaemon(SyncState.MASTER, "eth0", 11), False),
    "not by another port": (SyncDaemon(SyncState.MASTER, "eth0", 10, port=8849), False),
    "not by nothing": (None, False),
}


@pytest.mark.parametrize(("running", "met"), MET.values(), ids=MET.keys())
def test_a_wish_is_met(running: SyncDaemon | None, met: bool) -> None:
    assert GUIDE.is_met_by(running) is met


def test_a_length_that_was_said_counts() -> None:
    wanted = SyncDaemon(SyncState.MASTER, "eth0", 10, maxlen=1400)
    assert not wanted.is_met_by(GUIDE)
    assert wanted.is_met_by(wanted)


NO_DAEMONS = {
    "no state": ({"state": None}, "sync_daemon:state is missing"),
    "another state": ({"state": "slave"}, "sync_daemon:state is 'slave'"),
    "no interface": ({"interface": None}, "sync_daemon:interface is missing"),
    "an interface with a longer name than any": (
        {"interface": "a" * 16},
        "sync_daemon:interface is 'aaaaaaaaaaaaaaaa'",
    ),
    "a syncid beyond a byte": ({"syncid": 256}, "sync_daemon:syncid is 256"),
    "a group that is one machine": (
        {"multicast_group": "10.10.10.10"},
        "sync_daemon:multicast_group is '10.10.10.10'",
    ),
    "a group that is no address": (
        {"multicast_group": "all"},
        "sync_daemon:multicast_group is 'all'",
    ),
    "no port": ({"port": 0}, "sync_daemon:port is 0"),
    "a ttl that goes nowhere": ({"ttl": 0}, "sync_daemon:ttl is 0"),
    "a length beyond a datagram": ({"maxlen": 65508}, "sync_daemon:maxlen is 65508"),
    "a length beyond a datagram of IPv6": (
        {"maxlen": 65488, "multicast_group": "ff02::81"},
        "sync_daemon:maxlen is 65488",
    ),
    "a length that the kernel would make longer": (
        {"state": "backup", "maxlen": 1023},
        "sync_daemon:maxlen is 1023",
    ),
    "a key that there is not": ({"group": "224.0.0.81"}, "sync_daemon:group is '224.0.0.81'"),
}


@pytest.mark.parametrize(("change", "told"), NO_DAEMONS.values(), ids=NO_DAEMONS.keys())
def test_what_is_no_sync_daemon_is_refused(change: Mapping[str, Any], told: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        SyncDaemon.from_data({"state": "master", "interface": "eth0", **change})
    assert str(caught.value).startswith(f"{told}; it should be ")


# --------------------------------------------------------------------------------------------------
# Information, and hostile bytes


def test_the_version_is_a_byte_for_each_part() -> None:
    told = attributes((1, b"\x01\x02\x01\x00"), (2, b"\x00\x10\x00\x00"))
    assert settings.decode_info(told) == Info("1.2.1", 4096)


DAMAGED: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "a timeout of two bytes": (settings.decode_timeouts, attributes((4, b"\x84\x03"))),
    "a sync daemon without a state": (settings.decode_sync_daemon, attributes((2, b"eth0\0"))),
    "a state that is neither": (settings.decode_sync_daemon, attributes((1, b"\x03\0\0\0"))),
    "an IPv4 group of three bytes": (
        settings.decode_sync_daemon,
        attributes((1, b"\x01\0\0\0"), (5, b"\xe0\0\0")),
    ),
    "an IPv6 group of four bytes": (
        settings.decode_sync_daemon,
        attributes((1, b"\x01\0\0\0"), (6, b"\xff\x02\0\0")),
    ),
    "a version of one byte": (settings.decode_info, attributes((1, b"\x01"))),
    "an attribute longer than its message": (settings.decode_info, struct.pack("=HHL", 40, 1, 0)),
}


@pytest.mark.parametrize(("decode", "data"), DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_bytes_are_refused(decode: Callable[[bytes], object], data: bytes) -> None:
    with pytest.raises(netlink.MalformedMessage):
        decode(data)


fragments = st.lists(
    st.tuples(st.integers(0, 9), st.one_of(st.binary(max_size=20), st.just(b"\x01\0\0\0")))
).map(lambda parts: attributes(*parts))


@given(st.one_of(st.binary(max_size=256), fragments))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for decode in (settings.decode_timeouts, settings.decode_sync_daemon, settings.decode_info):
        with contextlib.suppress(LvsError):
            decode(data)
