"""What went through each virtual server and real server: the kernel's counters, and rates.

The kernel counts on each CPU, and an estimator gathers the counts every two seconds: what is read
here stands still between two gatherings, and for as long as ``net.ipv4.vs.run_estimation`` is 0.
Names and numbers are those of ``linux/ip_vs.h``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from saltext.lvs import ipvs, settings, wire
from saltext.lvs.errors import InvalidConfig
from saltext.lvs.ipvs import (
    IPVS_CMD_ATTR_DEST,
    IPVS_CMD_ATTR_SERVICE,
    IPVS_CMD_GET_DEST,
    IPVS_CMD_GET_SERVICE,
)
from saltext.lvs.model import RealServerKey, VirtualServerKey
from saltext.lvs.netlink import (
    NLM_F_ACK,
    NLM_F_DUMP,
    MalformedMessage,
    attribute,
    attributes,
    nested,
)
from saltext.lvs.wire import (
    IPVS_DEST_ATTR_STATS,
    IPVS_DEST_ATTR_STATS64,
    IPVS_SVC_ATTR_STATS,
    IPVS_SVC_ATTR_STATS64,
)

# A gathering every two seconds: in less, a rate would be nothing or twice too much.
MIN_INTERVAL_SECONDS = 2
MAX_INTERVAL_SECONDS = 60


@dataclass(frozen=True, slots=True)
class _Figures:
    """What the kernel counts."""

    connections: float = 0
    incoming_packets: float = 0
    outgoing_packets: float = 0
    incoming_bytes: float = 0
    outgoing_bytes: float = 0

    def as_data(self) -> dict[str, float]:
        """As plain values."""
        return {name: getattr(self, name) for name in NAMES}


@dataclass(frozen=True, slots=True)
class Counters(_Figures):
    """Since the virtual server or real server was added, or its counters were zeroed: whole
    numbers.
    """


@dataclass(frozen=True, slots=True)
class Rates(_Figures):
    """The same, per second."""


# IPVS_STATS_ATTR_CONNS, _INPKTS, _OUTPKTS, _INBYTES, _OUTBYTES, then _CPS, _INPPS, _OUTPPS, _INBPS,
# _OUTBPS, which are bytes and not bits.
NAMES = tuple(part.name for part in fields(_Figures))
COUNTER_ATTRIBUTES = dict(enumerate(NAMES, 1))
RATE_ATTRIBUTES = dict(enumerate(NAMES, 1 + len(NAMES)))


@dataclass(frozen=True, slots=True)
class Stats:
    """Counters, and how fast they grow."""

    counters: Counters = Counters()
    rates: Rates = Rates()

    def as_data(self) -> dict[str, float | dict[str, float]]:
        """As plain values."""
        return {**self.counters.as_data(), "per_second": self.rates.as_data()}


Key = tuple[VirtualServerKey, RealServerKey | None]


@dataclass(frozen=True, slots=True)
class Reading:
    """The statistics of all virtual servers and real servers at one moment.

    stats
        By virtual server and real server; None stands for the virtual server as a whole.

    at
        Seconds of a clock that never goes back.
    """

    stats: Mapping[Key, Stats]
    at: float = field(default=0, compare=False)

    def as_data(self) -> dict[str, dict[str, Any]]:
        """As plain values, in the order of their keys: by virtual server, and within by real
        server.
        """
        data: dict[str, dict[str, Any]] = {}
        for service, server in sorted(self.stats, key=_order):
            told: dict[str, Any] = dict(self.stats[service, server].as_data())
            if server is None:
                data[str(service)] = {**told, "real_servers": {}}
            else:
                data[str(service)]["real_servers"][str(server)] = told
        return data


def _order(key: Key) -> tuple[Any, ...]:
    service, server = key
    return service.sort_key(), () if server is None else server.sort_key()


def decode_virtual_server(data: bytes) -> tuple[VirtualServerKey, Stats]:
    """A virtual server and its statistics, from the attributes of IPVS_CMD_ATTR_SERVICE."""
    key, _ = wire.repack_virtual_server(data)
    return wire.unpack_key(key), _decode(data, IPVS_SVC_ATTR_STATS64, IPVS_SVC_ATTR_STATS)


def decode_real_server(data: bytes, family: int) -> tuple[RealServerKey, Stats]:
    """A real server and its statistics, from the attributes of IPVS_CMD_ATTR_DEST.

    family
        That of its virtual server, 4 or 6, for kernels that do not tell a real server's own (before
        Linux 3.18).
    """
    key, _, _ = wire.repack_real_server(data, wire.FAMILY_NUMBERS[family])
    return wire.unpack_real_key(key), _decode(data, IPVS_DEST_ATTR_STATS64, IPVS_DEST_ATTR_STATS)


def _decode(data: bytes, wide: int, narrow: int) -> Stats:
    """Kernels before Linux 4.1 have only the narrow one: counters that begin again at 2^32."""
    found = dict(attributes(data))
    return decode_stats(found.get(wide, found.get(narrow, b"")))


def decode_stats(data: bytes) -> Stats:
    """Statistics from the attributes of IPVS_*_ATTR_STATS64, or of the older IPVS_*_ATTR_STATS."""
    found = dict(attributes(data))
    return Stats(
        Counters(**{name: _number(found, kind) for kind, name in COUNTER_ATTRIBUTES.items()}),
        Rates(**{name: _number(found, kind) for kind, name in RATE_ATTRIBUTES.items()}),
    )


def _number(found: Mapping[int, bytes], kind: int) -> int:
    # How wide a number is differs between the two attributes, and within the older one.
    data = found.get(kind, bytes(4))
    if len(data) not in (4, 8):
        raise MalformedMessage(f"a counter of {len(data)} bytes")
    return int.from_bytes(data, sys.byteorder)


# --------------------------------------------------------------------------------------------------
# Rates


def as_interval(value: object) -> float | None:
    """Check the seconds over which somebody wants rates; None means the kernel's own."""
    if value is None:
        return None
    if type(value) in (int, float) and MIN_INTERVAL_SECONDS <= value <= MAX_INTERVAL_SECONDS:  # type: ignore[operator]
        return float(value)  # type: ignore[arg-type]
    expected = f"a number of seconds from {MIN_INTERVAL_SECONDS} to {MAX_INTERVAL_SECONDS}"
    raise InvalidConfig("interval", value, expected)


def with_rates(before: Reading, after: Reading) -> Reading:
    """The later reading, with rates over the time between the two.

    What came meanwhile counts from 0, and so does what was zeroed.
    """
    seconds = after.at - before.at
    measured = {
        key: Stats(stats.counters, _rates(_counters(before, key), stats.counters, seconds))
        for key, stats in after.stats.items()
    }
    return Reading(measured, after.at)


def _counters(reading: Reading, key: Key) -> Counters:
    return reading.stats[key].counters if key in reading.stats else Counters()


def _rates(before: Counters, after: Counters, seconds: float) -> Rates:
    grown = {}
    for name in NAMES:
        now, then = getattr(after, name), getattr(before, name)
        grown[name] = round((now - then if now >= then else now) / seconds, 3)
    return Rates(**grown)


# --------------------------------------------------------------------------------------------------
# Talk


def measure(interval: float | None = None, only: VirtualServerKey | None = None) -> Reading:
    """Read the statistics, of one virtual server or of all.

    interval
        Seconds over which rates are taken, by reading twice (see :func:`as_interval`); None gives
        the kernel's own, which look back over the last few seconds, whole numbers.
    """
    with ipvs.client() as client:
        first = _read(client, only)
        if interval is None:
            return first
        time.sleep(interval)
        return with_rates(first, _read(client, only))


def connections_ever() -> dict[VirtualServerKey, int]:
    """How many connections each virtual server has been given since it was added; one question."""
    with ipvs.client() as client:
        return {
            key: int(stats.counters.connections) for key, stats in _virtual_servers(client, None)
        }


def _read(client: ipvs.Client, only: VirtualServerKey | None) -> Reading:
    at = time.monotonic()
    stats: dict[Key, Stats] = {}
    for key, data in _virtual_servers(client, only):
        stats[key, None] = data
        stats.update({(key, real): found for real, found in _real_servers(client, key)})
    return Reading(stats, at)


def _virtual_servers(
    client: ipvs.Client, only: VirtualServerKey | None
) -> list[tuple[VirtualServerKey, Stats]]:
    if only is None:
        answers = client.ask(IPVS_CMD_GET_SERVICE, NLM_F_DUMP, b"", "list virtual servers")
    else:
        request = attribute(IPVS_CMD_ATTR_SERVICE, wire.pack_key(only))
        with settings.absence_explained():
            answers = client.ask(IPVS_CMD_GET_SERVICE, NLM_F_ACK, request, f"read {only}")
    return [
        decode_virtual_server(data)
        for answer in answers
        for data in nested(answer, IPVS_CMD_ATTR_SERVICE)
    ]


def _real_servers(client: ipvs.Client, key: VirtualServerKey) -> list[tuple[RealServerKey, Stats]]:
    request = attribute(IPVS_CMD_ATTR_SERVICE, wire.pack_key(key))
    answers = client.ask(IPVS_CMD_GET_DEST, NLM_F_DUMP, request, f"list the real servers of {key}")
    return [
        decode_real_server(data, key.family)
        for answer in answers
        for data in nested(answer, IPVS_CMD_ATTR_DEST)
    ]
