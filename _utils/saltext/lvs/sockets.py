"""Which connections and listeners this machine's sockets have, by the kernel's socket diagnosis.

It reads over a plain netlink socket, as ``ss`` does: it changes nothing, and needs no other package
and no privilege. Where the kernel has no socket diagnosis, or may not load its module, the text
files of /proc tell the same at more cost. Names and numbers are those of ``linux/sock_diag.h``,
``linux/inet_diag.h`` and the kernel's ``net/tcp_states.h``.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import re
import socket
import struct
import sys
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from saltext.lvs.errors import KernelError, LvsError
from saltext.lvs.model import Address, Protocol
from saltext.lvs.netlink import (
    NLM_F_DUMP,
    MalformedMessage,
    answers,
    attribute,
    attributes,
    request,
)

# linux/netlink.h
NETLINK_SOCK_DIAG = 4

# linux/sock_diag.h
SOCK_DIAG_BY_FAMILY = 20

# linux/inet_diag.h
INET_DIAG_REQ_BYTECODE = 1
INET_DIAG_SKV6ONLY = 11
INET_DIAG_BC_JMP = 1
INET_DIAG_BC_S_COND = 7
ANY_PORT = -1

# net/tcp_states.h; a UDP socket is ESTABLISHED when it has a peer, and CLOSE when it has none.
TCP_ESTABLISHED, TCP_SYN_SENT, TCP_SYN_RECV, TCP_FIN_WAIT1, TCP_FIN_WAIT2 = range(1, 6)
TCP_CLOSE, TCP_CLOSE_WAIT, TCP_LAST_ACK, TCP_LISTEN, TCP_CLOSING, TCP_NEW_SYN_RECV = range(7, 13)

CONNECTED = frozenset(
    {
        TCP_ESTABLISHED,
        TCP_SYN_SENT,
        TCP_SYN_RECV,
        TCP_FIN_WAIT1,
        TCP_FIN_WAIT2,
        TCP_CLOSE_WAIT,
        TCP_LAST_ACK,
        TCP_CLOSING,
        TCP_NEW_SYN_RECV,
    }
)
LISTENING = {Protocol.TCP: frozenset({TCP_LISTEN}), Protocol.UDP: frozenset({TCP_CLOSE})}

NUMBERS = {Protocol.TCP: socket.IPPROTO_TCP, Protocol.UDP: socket.IPPROTO_UDP}
FAMILIES = (socket.AF_INET, socket.AF_INET6)
BITS = {socket.AF_INET: 32, socket.AF_INET6: 128}

# struct inet_diag_req_v2 up to the socket's identity, which a dump leaves at zero
REQUEST = struct.Struct("=BBBBI48x")
# struct inet_diag_msg up to its interface; the rest is of no use here
SOCKET = struct.Struct("=Bxxx2s2x16s16xI")
SOCKET_BYTES = 72
OWN_ADDRESS = {socket.AF_INET: slice(8, 12), socket.AF_INET6: slice(8, 24)}
# struct inet_diag_bc_op, and struct inet_diag_hostcond before its address
OPERATION = struct.Struct("=BBH")
HOST = struct.Struct("=BBxxi")
JUMP_BYTES = OPERATION.size

# The kernel tries one address after the other for each of its sockets. Past so many it is cheaper
# to be told of every socket.
FILTERED = 32

TIMEOUT_SECONDS = 5

# Of the calling thread's network namespace, which need not be that of its process.
PROC = "/proc/thread-self/net"
FILES = {
    (Protocol.TCP, socket.AF_INET): "tcp",
    (Protocol.TCP, socket.AF_INET6): "tcp6",
    (Protocol.UDP, socket.AF_INET): "udp",
    (Protocol.UDP, socket.AF_INET6): "udp6",
}
# Slot, local and remote end, state: get_tcp4_sock() in net/ipv4/tcp_ipv4.c, and its like.
LINE = re.compile(
    r" *[0-9]+: ((?:[0-9A-F]{8}){1,4}):([0-9A-F]{4}) [0-9A-F]+:[0-9A-F]{4} ([0-9A-F]{2}) .*"
)

# The kernel has no socket diagnosis, or none for this protocol.
LACKING = {errno.ENOENT, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP}
MAPPED = bytes(10) + b"\xff\xff"
OPERATION_IN_WORDS = "list the sockets of this machine"


class MalformedLine(LvsError):
    """A line that no known kernel writes: nothing is guessed from it."""


@dataclass(frozen=True, slots=True)
class Listening:
    """A socket that takes what comes to an address and a port.

    address
        ``0.0.0.0`` or ``::`` for every address of its family; ``::`` takes IPv4 too, unless
        v6only.

    v6only
        Whether an IPv6 socket takes no IPv4. ``None`` where the kernel does not say.

    device
        The one interface on which it hears; empty for any, and where the kernel does not say.
    """

    protocol: Protocol
    address: Address
    port: int
    v6only: bool | None = False
    device: str = ""


def connections(addresses: Collection[Address]) -> dict[Address, int]:
    """Count the connections that each of these local addresses has now.

    These are TCP connections from the first SYN to the last FIN (neither listeners nor TIME_WAIT),
    and UDP sockets that have a peer. What is a client of an IPv4 address through an IPv6 socket is
    counted as IPv4. While connections come and go, one may be missed: a zero that matters wants a
    second look.

    Raises :class:`~saltext.lvs.errors.KernelError` if the kernel does not answer.
    """
    found: Counter[bytes] = Counter()
    for protocol in NUMBERS:
        for family in _families(addresses):
            own = _own_addresses(protocol, family, _host_filter(addresses, family))
            for packed, count in own.items():
                found[_wide(packed)] += count
    return {address: found[_wide(address.packed)] for address in addresses}


def listeners() -> tuple[Listening, ...]:
    """List the sockets that take TCP connections or UDP packets of anybody, in a fixed order.

    Raises :class:`~saltext.lvs.errors.KernelError` if the kernel does not answer.
    """
    found = {
        _listening(protocol, entry)
        for protocol, states in LISTENING.items()
        for family in FAMILIES
        for entry in _sockets(protocol, family, states)
        if entry.port
    }
    return tuple(sorted(found, key=_order))


def _families(addresses: Collection[Address]) -> tuple[socket.AddressFamily, ...]:
    """The kinds of sockets that may have such an address: an IPv6 one may have an IPv4 address."""
    if not addresses:
        return ()
    return FAMILIES if any(address.version == 4 for address in addresses) else FAMILIES[1:]


def _order(entry: Listening) -> tuple[str, int, bytes, int, str]:
    address = entry.address
    return entry.protocol.value, address.version, address.packed, entry.port, entry.device


# --------------------------------------------------------------------------------------------------
# Sockets, from either source


@dataclass(frozen=True, slots=True)
class _Socket:
    """A socket's own end. The address has 16 bytes, an IPv4 one as IPv6 writes it."""

    family: int
    address: bytes
    port: int
    v6only: bool | None = None
    interface: int = 0


def _own_addresses(
    protocol: Protocol, family: socket.AddressFamily, filtering: bytes
) -> Counter[bytes]:
    """Count connections by their own address, packed; there may be many of them."""
    own = OWN_ADDRESS[family]
    try:
        return Counter(answer[own] for answer in _diagnosed(protocol, family, CONNECTED, filtering))
    except _Lacking:
        return Counter(entry.address for entry in _listed(protocol, family, CONNECTED))


def _sockets(
    protocol: Protocol, family: socket.AddressFamily, states: Collection[int]
) -> tuple[_Socket, ...]:
    try:
        return tuple(_decode(answer) for answer in _diagnosed(protocol, family, states))
    except _Lacking:
        return tuple(_listed(protocol, family, states))


def _listening(protocol: Protocol, entry: _Socket) -> Listening:
    address = _address(entry)
    return Listening(
        protocol,
        address,
        entry.port,
        v6only=entry.v6only if address.version == 6 else False,
        device=_device(entry.interface),
    )


def _address(entry: _Socket) -> Address:
    """An IPv6 socket with an IPv4 address hears IPv4 alone."""
    if entry.address.startswith(MAPPED):
        return ipaddress.IPv4Address(entry.address[len(MAPPED) :])
    return ipaddress.IPv6Address(entry.address)


def _wide(packed: bytes) -> bytes:
    return MAPPED + packed if len(packed) == 4 else packed


def _device(index: int) -> str:
    if not index:
        return ""
    try:
        return socket.if_indextoname(index)
    except OSError:  # it has just gone, and nothing can be heard there
        return f"#{index}"


# --------------------------------------------------------------------------------------------------
# Socket diagnosis


class _Lacking(Exception):
    """The kernel has no socket diagnosis for this."""


def _diagnosed(
    protocol: Protocol,
    family: socket.AddressFamily,
    states: Collection[int],
    filtering: bytes = b"",
) -> Iterator[bytes]:
    """The kernel's answer for each socket, as they come: ``struct inet_diag_msg``."""
    mask = sum(1 << state for state in states)
    asked = REQUEST.pack(family, NUMBERS[protocol], 0, 0, mask)
    if filtering:
        asked += attribute(INET_DIAG_REQ_BYTECODE, filtering)
    try:
        with _connected() as kernel:
            kernel.send(request(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, asked))
            for payload in answers(kernel, {SOCK_DIAG_BY_FAMILY}, several=True):
                if len(payload) < SOCKET_BYTES or payload[0] != family:
                    raise MalformedMessage(f"{len(payload)} bytes are no socket of family {family}")
                yield payload
    except OSError as error:
        if error.errno in LACKING:
            raise _Lacking from error
        raise KernelError(OPERATION_IN_WORDS, error.errno or errno.ETIMEDOUT) from error


def _connected() -> socket.socket:
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    kernel = socket.socket(socket.AF_NETLINK, kind, NETLINK_SOCK_DIAG)
    kernel.settimeout(TIMEOUT_SECONDS)
    return kernel


def _decode(payload: bytes) -> _Socket:
    family, port, source, interface = SOCKET.unpack_from(payload)
    return _Socket(
        family=family,
        address=source if family == socket.AF_INET6 else _wide(source[:4]),
        port=int.from_bytes(port, "big"),
        v6only=_v6only(payload) if family == socket.AF_INET6 else False,
        interface=interface,
    )


def _v6only(payload: bytes) -> bool | None:
    value = dict(attributes(payload[SOCKET_BYTES:])).get(INET_DIAG_SKV6ONLY)
    return bool(value[0]) if value else None


def _host_filter(addresses: Collection[Address], family: socket.AddressFamily) -> bytes:
    """A program for the kernel that lets pass a socket with one of these addresses of its own.

    Each step compares one: if it is the socket's, the next instruction jumps to the end, which lets
    it pass; if not, that instruction is skipped. The last step has none, so that its skip leads
    behind the end, which drops the socket. IPv4 addresses are compared with mapped ones too.
    """
    usable = [address for address in addresses if address.version == 4 or family != socket.AF_INET]
    if len(usable) > FILTERED:
        return b""
    program = b""
    for address in usable:
        # A skip of four more than is left is the kernel's way to say no.
        passing = OPERATION.pack(INET_DIAG_BC_JMP, JUMP_BYTES, JUMP_BYTES + len(program))
        program = _condition(address) + (passing + program if program else b"")
    return program


def _condition(address: Address) -> bytes:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    length = OPERATION.size + HOST.size + len(address.packed)
    return (
        OPERATION.pack(INET_DIAG_BC_S_COND, length, length + JUMP_BYTES)
        + HOST.pack(family, BITS[family], ANY_PORT)
        + address.packed
    )


# --------------------------------------------------------------------------------------------------
# The files of /proc


def _listed(
    protocol: Protocol, family: socket.AddressFamily, states: Collection[int]
) -> Iterator[_Socket]:
    """The same from /proc, which tells neither v6only nor an interface; without a file there are
    none of that kind.
    """
    with contextlib.suppress(FileNotFoundError):
        path = f"{PROC}/{FILES[protocol, family]}"
        with open(path, encoding="ascii", errors="replace") as lines:
            next(lines, None)
            for line in lines:
                entry, state = _parse(line, family)
                if state in states:
                    yield entry


def _parse(line: str, family: socket.AddressFamily) -> tuple[_Socket, int]:
    found = LINE.match(line)
    if found is None or len(found[1]) * 4 != BITS[family]:
        raise MalformedLine(f"no socket can be read from the line {line.strip()!r}")
    # Words of four bytes, each printed as a number of this machine.
    words = [int(found[1][at : at + 8], 16) for at in range(0, len(found[1]), 8)]
    packed = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
    entry = _Socket(
        family, _wide(packed), int(found[2], 16), None if family == socket.AF_INET6 else False
    )
    return entry, int(found[3], 16)
