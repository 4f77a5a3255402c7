"""What the kernel would do with a packet: its own answer, as ``ip route get`` asks for it.

Nothing is sent and nothing is changed; it needs no other package and no privilege. The kernel goes
through its rules, its tables and, for a packet that comes in, its reverse-path filter as it would
for the packet; marks and firewalls play no part. Names and numbers are those of
``linux/rtnetlink.h``.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from saltext.lvs.errors import KernelError
from saltext.lvs.model import Address
from saltext.lvs.netlink import (
    NLM_F_DUMP,
    U32,
    MalformedMessage,
    Refused,
    answers,
    attribute,
    attributes,
    number,
    request,
)
from saltext.lvs.rtnetlink import NETLINK_ROUTE

RTM_NEWROUTE = 24
RTM_GETROUTE = 26
RTA_DST = 1
RTA_SRC = 2
RTA_IIF = 3
RTA_OIF = 4
RTA_GATEWAY = 5
RTA_PREFSRC = 7
RTA_VIA = 18

# linux/neighbour.h, and struct ndmsg: family, interface, state, flags, type
RTM_NEWNEIGH = 28
RTM_GETNEIGH = 30
NDA_DST = 1
NTF_PROXY = 0x08
NDMSG = struct.Struct("=BxxxIHBB")

ANSWERS = (RTM_NEWROUTE, RTM_NEWNEIGH)
# A kernel without IPv6
NO_IPV6 = {errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT}

# rtm_type, by name
LOCAL, UNICAST = "local", "unicast"
KINDS = (
    "unspec",
    UNICAST,
    LOCAL,
    "broadcast",
    "anycast",
    "multicast",
    "blackhole",
    "unreachable",
    "prohibit",
    "throw",
    "nat",
    "xresolve",
)

# struct rtmsg: family, bits of destination and source, tos, table, protocol, scope, type, flags
RTMSG = struct.Struct("=BBBBBBBBI")
U16 = struct.Struct("=H")
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
ADDRESS_BYTES: dict[int, int] = {socket.AF_INET: 4, socket.AF_INET6: 16}

# The kernel answers within the system call that asks; this only bounds the unforeseen.
TIMEOUT_SECONDS = 2

WORDS = {
    errno.EACCES: "a prohibit route forbids it",
    errno.EINVAL: "a blackhole route swallows it, or this machine does not hold its source address",
    errno.EHOSTUNREACH: "an unreachable route refuses it",
    errno.ENETUNREACH: "no route leads there",
    errno.ENODEV: "there is no such interface",
}
WORDS_COMING_IN = {
    # Linux before 6.13; later ones say EINVAL here too.
    errno.EXDEV: "the reverse-path filter drops it, or no route leads back",
    errno.EINVAL: "the reverse-path filter drops it, or its source address cannot be right",
    errno.EHOSTUNREACH: "this machine does not hold the address and does not forward",
    errno.ENETUNREACH: "no route leads there",
    errno.ENODEV: "there is no such interface",
}


@dataclass(frozen=True, slots=True)
class Route:
    """What the kernel does with a packet.

    kind
        ``local`` if it takes the packet itself, ``unicast`` if it sends it on; also ``broadcast``,
        ``multicast``, ``anycast``.

    interface
        By which it leaves; ``lo`` for a local one.

    source
        The address that a packet without one would get; ``None`` if the kernel does not say.

    gateway
        The next router; ``None`` for a destination on the same link.
    """

    kind: str
    interface: str
    source: Address | None = None
    gateway: Address | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """The kernel drops the packet.

    number
        Its reason, as in ``errno.h``.

    coming_in
        Whether the packet came from outside.
    """

    number: int
    coming_in: bool = False

    def __str__(self) -> str:
        words = WORDS_COMING_IN if self.coming_in else WORDS
        name = errno.errorcode.get(self.number, str(self.number))
        return f"{words.get(self.number, os.strerror(self.number))} ({name})"


def lookup(
    destination: Address, source: Address | None = None, coming_in: str | None = None
) -> Route | Refusal:
    """Ask the kernel what it would do with a packet.

    source
        The address that it comes from; without one, a packet of this machine's own that has none
        yet.

    coming_in
        The interface by which it arrives; without one it is this machine's own.

    Raises :class:`~saltext.lvs.errors.KernelError` if the kernel does not answer.
    """
    interface = 0
    if coming_in is not None:
        try:
            interface = socket.if_nametoindex(coming_in)
        except OSError:
            return Refusal(errno.ENODEV, coming_in=True)
    try:
        (answer,) = _ask(RTM_GETROUTE, 0, _request(destination, source, interface))
    except Refused as error:
        return Refusal(error.errno or 0, coming_in is not None)
    return _decode(answer)


def proxied() -> frozenset[tuple[str, Address]]:
    """The IPv6 addresses for which this machine may answer neighbours in the place of others, each
    with the name of the interface.

    Raises :class:`~saltext.lvs.errors.KernelError` if the kernel does not answer.
    """
    try:
        found = _ask(RTM_GETNEIGH, NLM_F_DUMP, NDMSG.pack(socket.AF_INET6, 0, 0, NTF_PROXY, 0))
    except Refused as error:
        if error.errno in NO_IPV6:
            return frozenset()
        raise KernelError("list neighbour proxies", error.errno or 0) from error
    return frozenset(map(_decode_proxy, found))


def _request(destination: Address, source: Address | None, interface: int) -> bytes:
    bits = destination.max_prefixlen
    head = RTMSG.pack(FAMILIES[destination.version], bits, bits if source else 0, 0, 0, 0, 0, 0, 0)
    parts = [head, attribute(RTA_DST, destination.packed)]
    if source is not None:
        parts.append(attribute(RTA_SRC, source.packed))
    if interface:
        parts.append(attribute(RTA_IIF, U32.pack(interface)))
    return b"".join(parts)


def _ask(kind: int, flags: int, payload: bytes) -> list[bytes]:
    """Send one request and return the payloads of all answers to it; of a request for one, one."""
    sort = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    several = bool(flags & NLM_F_DUMP)
    try:
        with socket.socket(socket.AF_NETLINK, sort, NETLINK_ROUTE) as kernel:
            kernel.settimeout(TIMEOUT_SECONDS)
            kernel.send(request(kind, flags, payload))
            found = list(answers(kernel, ANSWERS, several))
    except Refused:
        raise
    except OSError as error:
        raise KernelError("look up a route", error.errno or errno.ETIMEDOUT) from error
    if several:
        return found
    if not found:
        raise MalformedMessage("an answer that is neither a route nor an error")
    return found[:1]


def _decode(payload: bytes) -> Route:
    if len(payload) < RTMSG.size:
        raise MalformedMessage(f"a route of {len(payload)} bytes")
    family, _, _, _, _, _, _, kind, _ = RTMSG.unpack_from(payload)
    if kind >= len(KINDS):
        raise MalformedMessage(f"a route of type {kind}")
    found = dict(attributes(payload[RTMSG.size :]))
    return Route(
        kind=KINDS[kind],
        interface=_interface(found),
        source=_address(found, RTA_PREFSRC, family),
        gateway=_gateway(found, family),
    )


def _decode_proxy(payload: bytes) -> tuple[str, Address]:
    if len(payload) < NDMSG.size:
        raise MalformedMessage(f"a neighbour of {len(payload)} bytes")
    family, index, _, _, _ = NDMSG.unpack_from(payload)
    found = dict(attributes(payload[NDMSG.size :]))
    return _name(index), _unpacked(found.get(NDA_DST, b""), family)


def _interface(found: Mapping[int, bytes]) -> str:
    if RTA_OIF not in found:
        return ""
    return _name(number(U32, found, RTA_OIF))


def _name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:  # it has just gone
        return f"#{index}"


def _gateway(found: Mapping[int, bytes], family: int) -> Address | None:
    if RTA_VIA not in found:
        return _address(found, RTA_GATEWAY, family)
    # struct rtvia: a router of the other family
    return _unpacked(found[RTA_VIA][U16.size :], number(U16, found, RTA_VIA))


def _address(found: Mapping[int, bytes], kind: int, family: int) -> Address | None:
    return _unpacked(found[kind], family) if kind in found else None


def _unpacked(packed: bytes, family: int) -> Address:
    if len(packed) != ADDRESS_BYTES.get(family):
        raise MalformedMessage(f"an address of {len(packed)} bytes in family {family}")
    return ipaddress.ip_address(packed)
