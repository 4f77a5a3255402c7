"""Which interfaces and addresses the kernel has, over a plain routing-netlink socket.

Reading needs no other package and no privilege, and takes a fraction of a millisecond: so a beacon
may use it on the minion's own event loop. Of changes only addresses are made here, many at once.
Names and numbers are those of ``linux/rtnetlink.h``, ``linux/if_link.h`` and ``linux/if_addr.h``.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import select
import socket
import struct
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from saltext.lvs.errors import KernelError
from saltext.lvs.model import Address, Interface
from saltext.lvs.netlink import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLMSG_DONE,
    NLMSG_ERROR,
    U32,
    MalformedMessage,
    attribute,
    attributes,
    error_number,
    messages,
    request,
)

# linux/netlink.h
NETLINK_ROUTE = 0
NLM_F_DUMP_INTR = 0x10

# linux/rtnetlink.h
RTM_GETLINK = 18
RTM_NEWADDR = 20
RTM_DELADDR = 21
RTM_GETADDR = 22
RTEXT_FILTER_SKIP_STATS = 0x8

RTMGRP_LINK = 0x1
RTMGRP_IPV4_IFADDR = 0x10
RTMGRP_IPV6_IFADDR = 0x100

# linux/if_link.h, linux/if.h
IFLA_IFNAME = 3
IFLA_LINKINFO = 18
IFLA_EXT_MASK = 29
IFLA_INFO_KIND = 1
IFF_UP = 0x1
IFF_LOOPBACK = 0x8
IFF_NOARP = 0x80

# linux/if_addr.h; in IFA_PROTO, 1 to 3 are addresses that the kernel itself has made.
IFA_ADDRESS = 1
IFA_LOCAL = 2
IFA_FLAGS = 8
IFA_PROTO = 11
# No route to the prefix, and no wait for duplicate address detection (IPv6), which would find the
# director's.
IFA_F_NODAD = 0x02
IFA_F_NOPREFIXROUTE = 0x200
IFAPROT_UNSPEC = 0
IFAPROT_KERNEL_LL = 3

IFINFOMSG = struct.Struct("=BxHiII")
IFADDRMSG = struct.Struct("=BBBBI")

# What we write into IFA_PROTO (Linux 5.18 and later), as routing daemons mark their routes. The
# kernel's own marks end at 3, and iproute2's list of names (etc/iproute2/rt_addrprotos) leaves this
# one free.
MARK = 99

# The kernel answers within the system call that asks; this only bounds the unforeseen.
TIMEOUT_SECONDS = 2
RECEIVE_BYTES = 1 << 16
ATTEMPTS = 5
# So many acknowledgements find room in a socket's buffer, whatever its limit.
AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class HeldAddress:
    """An address that an interface holds.

    mark
        Who put it there (IFA_PROTO): :data:`MARK` for us; 0 for nobody who says so, and on kernels
        that do not tell.
    """

    address: Interface
    mark: int = IFAPROT_UNSPEC

    @property
    def ours(self) -> bool:
        """Whether it bears our mark."""
        return self.mark == MARK

    @property
    def by_kernel(self) -> bool:
        """Whether the kernel made it itself, as it does link-local ones."""
        return IFAPROT_UNSPEC < self.mark <= IFAPROT_KERNEL_LL or self.address.is_link_local


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface and what it holds.

    kind
        The kernel's word for a virtual interface (``dummy``, ``bridge``, ``veth``); empty for a
        physical one.

    up, arp
        Whether it was set up, and whether ARP is on for it.
    """

    name: str
    kind: str = "dummy"
    up: bool = True
    arp: bool = False
    addresses: tuple[HeldAddress, ...] = ()
    loopback: bool = False
    index: int = field(default=0, compare=False)


class Listener:
    """Says when an interface or an address has changed; what has changed, a look tells.

    Nothing that happens after it was made is missed: what the kernel could not queue counts as a
    change too. Its descriptors are inherited by forked processes, which must not use them.
    """

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._kernel = socket.socket(socket.AF_NETLINK, kind, NETLINK_ROUTE)
        self._closing = threading.Lock()
        try:
            self._kernel.bind((0, RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR))
            self._waker, self._woken = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        except BaseException:
            self._kernel.close()
            raise
        self._poll = select.poll()
        self._poll.register(self._kernel, select.POLLIN)
        self._poll.register(self._waker, select.POLLIN)

    def add(self, descriptor: int) -> None:
        """Have a wait end too when there is something to read from another descriptor."""
        self._poll.register(descriptor, select.POLLIN)

    def remove(self, descriptor: int) -> None:
        """Take one away that was added; before it is closed, since its number may be used again."""
        self._poll.unregister(descriptor)

    def wait(self, seconds: float) -> bool:
        """Wait for a change, for :meth:`wake`, or for so long; False if nothing came."""
        if not self._poll.poll(seconds * 1000):
            return False
        self._drain()
        return True

    def _drain(self) -> None:
        while True:
            try:
                self._kernel.recv(RECEIVE_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                # More has changed than could be queued: go on reading, and then look.
                if error.errno != errno.ENOBUFS:
                    raise KernelError("watch the network interfaces", error.errno or 0) from error

    def wake(self) -> None:
        """End a wait, from whatever thread; without effect once it is closed."""
        with self._closing, contextlib.suppress(BlockingIOError):
            if self._woken >= 0:
                os.write(self._woken, b"!")

    def close(self) -> None:
        """Give back the descriptors; nobody may wait any more."""
        with self._closing:
            if self._woken < 0:
                return
            self._kernel.close()
            os.close(self._waker)
            os.close(self._woken)
            # The numbers may be somebody else's from now on.
            self._waker = self._woken = -1


def read(name: str) -> Link | None:
    """Read one interface with its addresses; ``None`` if there is none of that name.

    Raises :class:`~saltext.lvs.errors.KernelError` if the kernel does not answer.
    """
    link, _ = glance(name, None)
    return link


def glance(name: str, address: Address | None) -> tuple[Link | None, tuple[str, ...]]:
    """Read one interface, and the names of the others that hold an address.

    This is as little as a beacon's look needs: what other interfaces hold is not decoded.
    """
    packed = address.packed if address is not None else None
    with _connected() as kernel:
        link = _read_link(kernel, name)
        raw = _read_addresses(kernel)
    index = link.index if link is not None else 0
    held = tuple(item.decoded() for item in raw if item.index == index)
    holders = {item.index for item in raw if item.packed == packed and item.index != index}
    return link and replace(link, addresses=held), tuple(_names(sorted(holders)))


def read_all() -> tuple[Link, ...]:
    """Read every interface with its addresses, in the kernel's order."""
    with _connected() as kernel:
        found = _ask(kernel, RTM_GETLINK, NLM_F_DUMP, _link_request())
        raw = _read_addresses(kernel)
    links = [_decode_link(data) for data in found]
    return tuple(
        replace(link, addresses=tuple(item.decoded() for item in raw if item.index == link.index))
        for link in links
    )


def _names(indexes: Iterable[int]) -> Iterator[str]:
    for index in indexes:
        try:
            yield socket.if_indextoname(index)
        except OSError:  # it has just gone
            continue


# -------------------------------------------------------------------------------------------------
# Ask


def _connected() -> socket.socket:
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    try:
        kernel = socket.socket(socket.AF_NETLINK, kind, NETLINK_ROUTE)
    except OSError as error:
        raise KernelError("read the network interfaces", error.errno or errno.EIO) from error
    kernel.settimeout(TIMEOUT_SECONDS)
    return kernel


def _read_link(kernel: socket.socket, name: str) -> Link | None:
    asked = _link_request() + attribute(IFLA_IFNAME, name.encode() + b"\0")
    try:
        for data in _ask(kernel, RTM_GETLINK, 0, asked):
            return _decode_link(data)
    except KernelError as error:
        if error.number != errno.ENODEV:
            raise
    return None


def _link_request() -> bytes:
    # Without its counters, an interface is a third as long.
    quiet = attribute(IFLA_EXT_MASK, U32.pack(RTEXT_FILTER_SKIP_STATS))
    return IFINFOMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + quiet


def _read_addresses(kernel: socket.socket) -> list[_RawAddress]:
    asked = IFADDRMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    found = (_raw_address(data) for data in _ask(kernel, RTM_GETADDR, NLM_F_DUMP, asked))
    return [item for item in found if item is not None]


def _ask(kernel: socket.socket, kind: int, flags: int, asked: bytes) -> list[bytes]:
    """Send one request and return the payloads of all answers to it."""
    try:
        for _ in range(ATTEMPTS):
            answers, whole = _ask_once(kernel, kind, flags, asked)
            if whole:
                return answers
    except OSError as error:
        raise KernelError("read the network interfaces", error.errno or errno.EIO) from error
    raise KernelError(
        "read the network interfaces", errno.EINTR, f"they changed during each of {ATTEMPTS} reads"
    )


def _ask_once(
    kernel: socket.socket, kind: int, flags: int, asked: bytes
) -> tuple[list[bytes], bool]:
    """The answers, and whether nothing changed while the kernel gave them out."""
    kernel.send(request(kind, flags, asked))
    answers: list[bytes] = []
    whole = True
    while True:
        for answer, answer_flags, _, payload in messages(kernel.recv(RECEIVE_BYTES)):
            whole = whole and not answer_flags & NLM_F_DUMP_INTR
            if answer in (NLMSG_DONE, NLMSG_ERROR):
                # A dump that broke off ends with the reason; one that did not, with 0 or nothing.
                number = error_number(payload) if payload or answer == NLMSG_ERROR else 0
                if number:
                    raise KernelError("read the network interfaces", number)
                return answers, whole
            answers.append(payload)
            if not flags & NLM_F_DUMP:
                return answers, whole


# -------------------------------------------------------------------------------------------------
# Change


def add_addresses(index: int, addresses: Sequence[Interface]) -> list[int]:
    """Put addresses on an interface, marked as ours, without a route to their network and without
    duplicate address detection.

    Returns an error number for each, 0 where it is there now.

    Raises :class:`~saltext.lvs.errors.KernelError` if the kernel does not answer.
    """
    flags = NLM_F_CREATE | NLM_F_EXCL
    return _change(RTM_NEWADDR, flags, [_address(index, one) + _ours(one) for one in addresses])


def delete_addresses(index: int, addresses: Sequence[Interface]) -> list[int]:
    """Take addresses from an interface; returns and raises as :func:`add_addresses`."""
    return _change(RTM_DELADDR, 0, [_address(index, one) for one in addresses])


def _address(index: int, address: Interface) -> bytes:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    packed = address.ip.packed
    return (
        IFADDRMSG.pack(family, address.network.prefixlen, 0, 0, index)
        + attribute(IFA_LOCAL, packed)
        + attribute(IFA_ADDRESS, packed)
    )


def _ours(address: Interface) -> bytes:
    flags = IFA_F_NOPREFIXROUTE | (IFA_F_NODAD if address.version == 6 else 0)
    return attribute(IFA_FLAGS, U32.pack(flags)) + attribute(IFA_PROTO, bytes([MARK]))


def _change(kind: int, flags: int, requests: Sequence[bytes]) -> list[int]:
    """Send requests, many at once, and return the error number of each."""
    with _connected() as kernel:
        numbers: list[int] = []
        try:
            for start in range(0, len(requests), AT_ONCE):
                numbers += _change_some(kernel, kind, flags, requests[start : start + AT_ONCE])
        except OSError as error:
            raise KernelError("change addresses", error.errno or errno.EIO) from error
        return numbers


def _change_some(
    kernel: socket.socket, kind: int, flags: int, requests: Sequence[bytes]
) -> list[int]:
    kernel.send(b"".join(request(kind, NLM_F_ACK | flags, one) for one in requests))
    numbers: list[int] = []
    # The kernel answers in the order of the requests.
    while len(numbers) < len(requests):
        for answer, _, _, payload in messages(kernel.recv(RECEIVE_BYTES)):
            if answer == NLMSG_ERROR:
                numbers.append(error_number(payload))
    return numbers


# -------------------------------------------------------------------------------------------------
# Decode


def _decode_link(data: bytes) -> Link:
    if len(data) < IFINFOMSG.size:
        raise MalformedMessage(f"an interface in {len(data)} bytes")
    _, _, index, flags, _ = IFINFOMSG.unpack_from(data)
    found = dict(attributes(data[IFINFOMSG.size :]))
    details = dict(attributes(found.get(IFLA_LINKINFO, b"")))
    return Link(
        name=_text(found.get(IFLA_IFNAME, b"")),
        kind=_text(details.get(IFLA_INFO_KIND, b"")),
        up=bool(flags & IFF_UP),
        arp=not flags & IFF_NOARP,
        loopback=bool(flags & IFF_LOOPBACK),
        index=index,
    )


@dataclass(frozen=True, slots=True)
class _RawAddress:
    """An address before it is made a value: most are passed over."""

    index: int
    packed: bytes
    prefix: int
    mark: int

    def decoded(self) -> HeldAddress:
        return _held(self.packed, self.prefix, self.mark)


@lru_cache(maxsize=8192)
def _held(packed: bytes, prefix: int, mark: int) -> HeldAddress:
    """Kept, because a beacon sees the same addresses at every look, and making one is slow."""
    return HeldAddress(ipaddress.ip_interface((packed, prefix)), mark)


def _raw_address(data: bytes) -> _RawAddress | None:
    """An address with its interface's number; ``None`` for another family than IPv4 and IPv6."""
    if len(data) < IFADDRMSG.size:
        raise MalformedMessage(f"an address in {len(data)} bytes")
    family, prefix, _, _, index = IFADDRMSG.unpack_from(data)
    if family not in (socket.AF_INET, socket.AF_INET6):
        return None
    found = dict(attributes(data[IFADDRMSG.size :]))
    # On a point-to-point interface IFA_ADDRESS is the other end's.
    packed = found.get(IFA_LOCAL) or found.get(IFA_ADDRESS, b"")
    size = 4 if family == socket.AF_INET else 16
    if len(packed) != size or prefix > size * 8:
        raise MalformedMessage(f"an address of {len(packed)} bytes with prefix {prefix}")
    return _RawAddress(index, packed, prefix, (found.get(IFA_PROTO) or b"\0")[0])


def _text(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
