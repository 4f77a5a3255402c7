"""The bytes that all netlink families share: messages, attributes, errors.

Names and numbers are those of ``linux/netlink.h``. Nothing here opens a socket.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Collection, Iterator, Mapping

from saltext.lvs.errors import LvsError

NETLINK_GENERIC = 16
NETLINK_CAP_ACK = 10
SOL_NETLINK = 270
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP = 0x300
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLA_TYPE_MASK = 0x3FFF
# asm-generic/socket.h: root may go beyond net.core.rmem_max.
SO_RCVBUFFORCE = 33

NLMSGHDR = struct.Struct("=LHHLL")
NLATTR = struct.Struct("=HH")
ERROR = struct.Struct("=i")
U32 = struct.Struct("=L")

# linux/err.h
MAX_ERRNO = 4095

# The kernel fills at most 32 KiB of a dump at a time.
RECEIVE_BYTES = 1 << 16


class MalformedMessage(LvsError):
    """Bytes that are no netlink message: never from a kernel, so nothing is guessed from them."""


class Refused(OSError):
    """The kernel's answer is an error number."""


def attribute(kind: int, payload: bytes) -> bytes:
    """One netlink attribute, padded to four bytes."""
    length = 4 + len(payload)
    return NLATTR.pack(length, kind) + payload + b"\0" * (-length % 4)


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Walk over netlink attributes; one that is cut off raises :class:`MalformedMessage`."""
    position, end = 0, len(data)
    while position + 4 <= end:
        length, kind = NLATTR.unpack_from(data, position)
        if length < 4 or position + length > end:
            raise MalformedMessage(
                f"a netlink attribute of {length} bytes does not fit its message"
            )
        yield kind & NLA_TYPE_MASK, data[position + 4 : position + length]
        position += (length + 3) & ~3


def nested(data: bytes, kind: int) -> Iterator[bytes]:
    """What the attributes of one kind hold; those of another kind are passed over."""
    return (payload for found, payload in attributes(data) if found == kind)


def cut(found: Mapping[int, bytes], kind: int, size: int) -> bytes:
    """The first bytes of one attribute; one that is shorter raises :class:`MalformedMessage`."""
    data = found.get(kind, b"")
    if len(data) < size:
        raise MalformedMessage(f"attribute {kind} has {len(data)} bytes instead of {size}")
    return data[:size]


def number(shape: struct.Struct, found: Mapping[int, bytes], kind: int) -> int:
    """The number in one attribute, or the first of several; none raises like a short one."""
    return int(shape.unpack(cut(found, kind, shape.size))[0])


def messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Split a datagram into netlink messages: type, flags, sequence number, payload."""
    position, end = 0, len(data)
    while position + NLMSGHDR.size <= end:
        length, kind, flags, sequence, _ = NLMSGHDR.unpack_from(data, position)
        if length < NLMSGHDR.size or position + length > end:
            raise MalformedMessage(f"a netlink message of {length} bytes does not fit its datagram")
        yield kind, flags, sequence, data[position + NLMSGHDR.size : position + length]
        position += (length + 3) & ~3


def error_number(payload: bytes) -> int:
    """The error number of NLMSG_ERROR or NLMSG_DONE, positive as in ``errno.h``; 0 is success."""
    if len(payload) < ERROR.size:
        raise MalformedMessage("a netlink error without its number")
    error = -int(ERROR.unpack_from(payload)[0])
    if not 0 <= error <= MAX_ERRNO:
        raise MalformedMessage(f"a netlink error with the number {error}")
    return error


def request(kind: int, flags: int, payload: bytes) -> bytes:
    """One request, the first and only one on its socket."""
    length = NLMSGHDR.size + len(payload)
    return NLMSGHDR.pack(length, kind, NLM_F_REQUEST | flags, 1, 0) + payload


def answers(kernel: socket.socket, kinds: Collection[int], several: bool) -> Iterator[bytes]:
    """The payloads of the answers to a :func:`request`, as they come.

    kinds
        The types of message that are answers.

    several
        Whether it is a list, which has an end; otherwise the datagram that brings one is the last.

    Raises :class:`Refused`, what the socket raises, and :class:`MalformedMessage`.
    """
    come = False
    while several or not come:
        data = kernel.recv(RECEIVE_BYTES)
        if len(data) < NLMSGHDR.size:
            raise MalformedMessage(f"a datagram of {len(data)} bytes is no netlink message")
        for kind, _, sequence, payload in messages(data):
            if sequence != 1:
                continue
            if kind in (NLMSG_ERROR, NLMSG_DONE):
                # What the kernel does not know is told in either.
                refused = error_number(payload)
                if refused:
                    raise Refused(refused, "refused")
                return
            if kind in kinds:
                come = True
                yield payload
