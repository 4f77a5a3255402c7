"""IPVS's statistics as bytes, and rates from two readings: without a kernel."""

from __future__ import annotations

import contextlib
import ipaddress
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from saltext.lvs import netlink, stats, wire
from saltext.lvs.errors import InvalidConfig, LvsError
from saltext.lvs.model import RealServerKey
from saltext.lvs.stats import Counters, Rates, Reading, Stats

from tests.unit.handwritten import attributes
from tests.unit.tables import key, virtual_server

WEB = key("tcp 10.10.10.10:80")
RS1 = RealServerKey(ipaddress.ip_address("10.10.10.41"), 80)


def numbers(shape: str, *values: int) -> bytes:
    """Attributes 1, 2, 3 ... with a number each, by a format of struct."""
    return attributes(
        *((kind, struct.pack(f"={shape[kind - 1]}", value)) for kind, value in enumerate(values, 1))
    )


WIDE = numbers("Q" * 10, 2**40, 2, 3, 4, 5, 6, 7, 8, 9, 2**33)
NARROW = numbers("LLLQQLLLLL", 1, 2, 3, 2**40, 5, 6, 7, 8, 9, 10)
KINDS = {
    "64 bits each": (WIDE, Stats(Counters(2**40, 2, 3, 4, 5), Rates(6, 7, 8, 9, 2**33))),
    "mixed widths, as older kernels tell": (
        NARROW,
        Stats(Counters(1, 2, 3, 2**40, 5), Rates(6, 7, 8, 9, 10)),
    ),
    "with padding, and what a newer kernel adds": (
        WIDE + attributes((11, b""), (12, b"new")),
        Stats(Counters(2**40, 2, 3, 4, 5), Rates(6, 7, 8, 9, 2**33)),
    ),
    "nothing": (b"", Stats()),
}


@pytest.mark.parametrize(("data", "read"), KINDS.values(), ids=KINDS.keys())
def test_numbers_are_read(data: bytes, read: Stats) -> None:
    assert stats.decode_stats(data) == read


def test_a_number_of_another_width_is_refused() -> None:
    with pytest.raises(netlink.MalformedMessage, match="a counter of 3 bytes"):
        stats.decode_stats(attributes((1, b"\1\2\3")))


def service(*more: tuple[int, bytes]) -> bytes:
    return (
        wire.pack_key(WEB)
        + wire.pack_settings(virtual_server("tcp 10.10.10.10:80"))
        + attributes(*more)
    )


def test_the_wider_numbers_are_preferred() -> None:
    read = (WEB, stats.decode_stats(WIDE))
    assert stats.decode_virtual_server(service((10, NARROW), (12, WIDE))) == read


def test_a_kernel_without_wide_numbers_gives_the_narrow_ones() -> None:
    read = (WEB, stats.decode_stats(NARROW))
    assert stats.decode_virtual_server(service((10, NARROW))) == read


def test_a_real_server_is_read_with_its_own_attributes() -> None:
    written = wire.pack_real_key(RS1) + attributes((3, b"\3\0\0\0"), (10, NARROW), (12, WIDE))
    assert stats.decode_real_server(written, 4) == (RS1, stats.decode_stats(WIDE))


@given(st.binary(max_size=256))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for decode in (
        lambda: stats.decode_stats(data),
        lambda: stats.decode_virtual_server(data),
        lambda: stats.decode_virtual_server(service((12, data))),
        lambda: stats.decode_real_server(data, 4),
    ):
        with contextlib.suppress(LvsError):
            decode()


# --------------------------------------------------------------------------------------------------
# Rates


def reading(at: float, **counters: int) -> Reading:
    return Reading({(WEB, None): Stats(Counters(**counters), Rates(99, 99, 99, 99, 99))}, at)


def test_rates_are_what_came_in_a_second() -> None:
    before = reading(100.0, connections=10, incoming_bytes=1000)
    after = reading(104.0, connections=20, incoming_bytes=1010)
    assert stats.with_rates(before, after) == Reading(
        {
            (WEB, None): Stats(
                Counters(connections=20, incoming_bytes=1010),
                Rates(connections=2.5, incoming_bytes=2.5),
            )
        }
    )


def test_what_came_meanwhile_counts_from_nothing() -> None:
    after = reading(2.0, connections=4)
    (measured,) = stats.with_rates(Reading({}, 0), after).stats.values()
    assert measured == Stats(Counters(connections=4), Rates(connections=2))


def test_what_was_zeroed_meanwhile_counts_from_nothing() -> None:
    before, after = reading(0, connections=1000), reading(2.0, connections=4)
    (measured,) = stats.with_rates(before, after).stats.values()
    assert measured == Stats(Counters(connections=4), Rates(connections=2))


def test_what_went_meanwhile_is_not_told_of() -> None:
    assert stats.with_rates(reading(0, connections=1), Reading({}, 2)).stats == {}


counters = st.builds(Counters, *[st.integers(0, 2**63)] * 5)


@given(counters, counters, st.floats(2, 60))
def test_no_rate_is_below_nothing(first: Counters, second: Counters, seconds: float) -> None:
    measured = stats.with_rates(
        Reading({(WEB, None): Stats(first)}, 0), Reading({(WEB, None): Stats(second)}, seconds)
    ).stats[WEB, None]
    assert measured.counters == second
    assert min(measured.rates.as_data().values()) >= 0


def test_plain_values_are_flat_but_for_the_rates() -> None:
    assert Stats(Counters(1, 2, 3, 4, 5), Rates(0.5, 1, 1.5, 2, 2.5)).as_data() == {
        "connections": 1,
        "incoming_packets": 2,
        "outgoing_packets": 3,
        "incoming_bytes": 4,
        "outgoing_bytes": 5,
        "per_second": {
            "connections": 0.5,
            "incoming_packets": 1,
            "outgoing_packets": 1.5,
            "incoming_bytes": 2,
            "outgoing_bytes": 2.5,
        },
    }


INTERVALS = {"none": (None, None), "the shortest": (2, 2.0), "the longest": (60, 60.0)}


@pytest.mark.parametrize(("value", "read"), INTERVALS.values(), ids=INTERVALS.keys())
def test_an_interval_is_read(value: Any, read: float | None) -> None:
    assert stats.as_interval(value) == read


NO_INTERVALS = {
    "shorter than the kernel's own": 1.9,
    "longer than anybody waits": 61,
    "a word": "10",
    "True": True,
    "not a number": float("nan"),
}


@pytest.mark.parametrize("value", NO_INTERVALS.values(), ids=NO_INTERVALS.keys())
def test_what_is_no_interval_is_refused(value: Any) -> None:
    with pytest.raises(InvalidConfig, match="^interval is .*; it should be a number of seconds"):
        stats.as_interval(value)
