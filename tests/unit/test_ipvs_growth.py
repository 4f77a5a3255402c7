"""Nothing grows faster than the table: four times as many virtual servers or real servers take four
times as many calls, whatever is done with them.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from saltext.lvs import ipvsadm, plan
from saltext.lvs.table import Table

from tests.unit.test_ipvs_client import (
    FIRST,
    ToldSocket,
    client,
    done,
    real_server_told,
    service_told,
)

Data = dict[str, dict[str, Any]]


def calls(act: Callable[[], object]) -> int:
    """How many functions are called, Python's own included."""
    count = 0

    def counted(_: FrameType, event: str, __: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(counted)
    try:
        act()
    finally:
        sys.setprofile(None)
    return count


def wide(size: int, weight: int = 1) -> Data:
    """Many virtual servers, each with its own weights."""
    return {
        f"tcp 10.{number >> 8}.{number & 255}.10:80": {
            "persistence": number,
            "real_servers": {f"10.20.0.{real}:80": {"weight": weight + number} for real in (1, 2)},
        }
        for number in range(size)
    }


def deep(size: int, weight: int = 1) -> Data:
    """One virtual server with many real servers, each with its own weight."""
    return {
        "tcp 10.10.10.10:80": {
            "real_servers": {
                f"10.20.{number >> 8}.{number & 255}:80": {"weight": weight + number}
                for number in range(size)
            }
        }
    }


Shape = Callable[..., Data]


def read(data: Data) -> Callable[[], object]:
    """A client that is told this table."""
    servers = list(Table.from_data(data).values())
    datagrams = [*map(service_told, servers), done()]
    for at, server in enumerate(servers, FIRST + 1):
        told = [real_server_told(real, at) for real in server.real_servers]
        datagrams += [b"".join(told[start : start + 90]) for start in range(0, len(told), 90)]
        datagrams.append(done(at))
    speaks = ToldSocket(datagrams)
    # So that what is counted is ours: the list of answers is taken from its end.
    speaks.answers.reverse()
    speaks.recv = lambda _: speaks.answers.pop()  # type: ignore[method-assign]

    def reading() -> None:
        with client(speaks) as kernel:
            assert len(kernel.packed()) == len(data)

    return reading


def send(data: Data) -> Callable[[], object]:
    ops = plan.plan({}, Table.from_data(data))
    speaks = ToldSocket(obedient=True)

    def sending() -> None:
        with client(speaks) as kernel:
            kernel.send(ops)

    return sending


def planned(shape: Shape, size: int) -> tuple[plan.Op, ...]:
    return plan.plan(Table.from_data(shape(size)), Table.from_data(shape(size, weight=2)))


def rules(shape: Shape, size: int) -> str:
    return ipvsadm.write(Table.from_data(shape(size)).values())


ACTS: dict[str, Callable[[Shape, int], Callable[[], object]]] = {
    "reading plain values": lambda shape, size: lambda: Table.from_data(shape(size)),
    "writing plain values": lambda shape, size: Table.from_data(shape(size)).as_data,
    "taking typed values": lambda shape, size: (
        lambda: Table.of(Table.from_data(shape(size)).values())
    ),
    "planning all anew": lambda shape, size: lambda: plan.plan({}, Table.from_data(shape(size))),
    "planning changes": lambda shape, size: lambda: planned(shape, size),
    "planning to delete all": lambda shape, size: (
        lambda: plan.plan(Table.from_data(shape(size)), {}, purge=True)
    ),
    "telling changes": lambda shape, size: lambda: plan.changes(planned(shape, size)),
    "writing ipvsadm's rules": lambda shape, size: lambda: rules(shape, size),
    "reading ipvsadm's rules": lambda shape, size: functools.partial(
        ipvsadm.read, rules(shape, size)
    ),
    "reading the kernel's answers": lambda shape, size: read(shape(size)),
    "writing the kernel's messages": lambda shape, size: send(shape(size)),
}


@pytest.mark.parametrize("shape", [wide, deep], ids=["virtual servers", "real servers"])
@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS.keys())
def test_four_times_as_many_take_four_times_as_long(
    act: Callable[[Shape, int], Callable[[], object]], shape: Shape
) -> None:
    few, many = (calls(act(shape, size)) for size in (500, 2000))
    assert few > 100
    assert many < 4.4 * few
