"""IPVS tables for tests: built by hand, and drawn by hypothesis."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import replace

from hypothesis import strategies as st
from saltext.lvs.model import (
    CHECKSUMS_OF,
    MAX_PERSISTENCE_SECONDS,
    MAX_THRESHOLD,
    MAX_WEIGHT,
    Forward,
    Protocol,
    RealServer,
    RealServerKey,
    Scheduler,
    TunnelType,
    VirtualServer,
    VirtualServerKey,
    in_order,
)
from saltext.lvs.plan import Action, Op
from saltext.lvs.table import Table
from saltext.lvs.wire import Packed

FORWARDS = (Forward.MASQ, Forward.TUNNEL, Forward.DIRECT)
# The kernel of the lab has no module for "twos"; it came with Linux 5.12 and few build it.
SCHEDULERS = tuple(s.value for s in Scheduler if s is not Scheduler.TWOS)


def key(text: str) -> VirtualServerKey:
    """``tcp 10.10.10.10:80`` as a key."""
    protocol, _, endpoint = text.partition(" ")
    address, _, port = endpoint.rpartition(":")
    return VirtualServerKey.of(
        Protocol(protocol), ipaddress.ip_address(address.strip("[]")), int(port)
    )


def real_server(endpoint: str, weight: int = 1, forward: Forward = Forward.DIRECT) -> RealServer:
    """``10.10.10.41:80`` as a real server."""
    address, _, port = endpoint.rpartition(":")
    return RealServer(
        RealServerKey(ipaddress.ip_address(address.strip("[]")), int(port)), forward, weight
    )


def virtual_server(text: str, *servers: RealServer, **settings: object) -> VirtualServer:
    """A virtual server with its real servers in order."""
    of = key(text)
    server = replace(VirtualServer.empty(of), real_servers=in_order(servers))
    return replace(server, **settings)  # type: ignore[arg-type]


def table(*servers: VirtualServer) -> Table:
    """A table of virtual servers."""
    return Table.of(servers)


def carried_out(current: Mapping[VirtualServerKey, VirtualServer], ops: Sequence[Op]) -> Table:
    """The table after some operations: what a kernel would do, in memory, and as strict as one."""
    now = dict(Table.from_mapping(current).packed)
    for op in ops:
        there = op.service in now
        if op.action is Action.ADD_VIRTUAL_SERVER:
            assert not there, f"EEXIST: {op}"
            now[op.service] = Packed(op.now, {})
            continue
        assert there, f"ESRCH: {op}"
        held = now[op.service]
        if op.action is Action.DELETE_VIRTUAL_SERVER:
            del now[op.service]
        elif op.action is Action.SET_VIRTUAL_SERVER:
            now[op.service] = Packed(op.now, held.real_servers)
        else:
            now[op.service] = Packed(held.settings, _with_real_server(held.real_servers, op))
    return Table(now)


def _with_real_server(held: Mapping[bytes, bytes], op: Op) -> dict[bytes, bytes]:
    there = op.real in held
    assert there is (op.action is not Action.ADD_REAL_SERVER), f"EEXIST or ENOENT: {op}"
    left = {real: settings for real, settings in held.items() if real != op.real}
    return left if op.action is Action.DELETE_REAL_SERVER else {**left, op.real: op.now}


# --------------------------------------------------------------------------------------------------
# Drawn at random: few keys, so that two tables often meet, and every setting.

_V4 = st.sampled_from([ipaddress.IPv4Address("10.10.10.10"), ipaddress.IPv4Address("10.10.10.11")])
_V6 = st.sampled_from([ipaddress.IPv6Address("fd00::10"), ipaddress.IPv6Address("fd00::11")])
_PORTS = st.sampled_from([53, 80, 443])
_KEYS = st.builds(VirtualServerKey.of, st.sampled_from(Protocol), st.one_of(_V4, _V6), _PORTS)
_MARKS = st.builds(
    lambda mark, family: VirtualServerKey(None, None, 0, mark, family),
    st.sampled_from([1, 7, 0xFFFFFFFF]),
    st.sampled_from([4, 6]),
)


@st.composite
def real_servers(draw: st.DrawFn, of: VirtualServerKey) -> tuple[RealServer, ...]:
    """Some real servers of a virtual server, in the order of their keys."""
    chosen: dict[RealServerKey, RealServer] = {}
    for number in draw(st.lists(st.integers(1, 5), max_size=4, unique=True)):
        forward = draw(st.sampled_from(FORWARDS))
        # Only a tunnel reaches a real server of the other family.
        crosses = forward is Forward.TUNNEL and of.protocol is not None and draw(st.booleans())
        base = "fd00::" if (of.family == 6) is not crosses else "10.20.0.0"
        # ipvsadm and keepalived keep the port where the packet keeps it.
        port = of.port if forward is not Forward.MASQ else draw(st.sampled_from([of.port, 8080]))
        upper = draw(st.integers(0, MAX_THRESHOLD))
        tunnel = forward is Forward.TUNNEL
        kind = draw(st.sampled_from(TunnelType)) if tunnel else TunnelType.IPIP
        server = RealServer(
            RealServerKey(ipaddress.ip_address(base) + number, port),
            forward,
            draw(st.integers(0, MAX_WEIGHT)),
            upper,
            draw(st.integers(0, upper)),
            kind,
            draw(st.integers(1, 65535)) if kind is TunnelType.GUE else 0,
            draw(st.sampled_from(CHECKSUMS_OF[kind])),
        )
        chosen[server.key] = server
    return in_order(chosen.values())


@st.composite
def virtual_servers(draw: st.DrawFn) -> VirtualServer:
    """A virtual server of any kind that the kernel takes."""
    of = draw(st.one_of(_KEYS, _MARKS))
    whole = 128 if of.family == 6 else 32
    persistence = draw(st.one_of(st.just(0), st.integers(1, MAX_PERSISTENCE_SECONDS)))
    return VirtualServer(
        key=of,
        scheduler=draw(st.sampled_from(SCHEDULERS)),
        persistence=persistence,
        netmask=draw(st.integers(1, whole)) if persistence else whole,
        one_packet=of.protocol is Protocol.UDP and draw(st.booleans()),
        scheduler_flags=draw(st.sampled_from([0, 8, 16, 32, 56])),
        persistence_engine="sip"
        if persistence and of.protocol is Protocol.UDP and draw(st.booleans())
        else "",
        real_servers=draw(real_servers(of)),
    )


tables = st.lists(virtual_servers(), max_size=5, unique_by=lambda server: server.key).map(
    lambda servers: table(*servers)
)
