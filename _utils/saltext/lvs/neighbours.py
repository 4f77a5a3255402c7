"""Which hardware address the kernel has for a neighbour: the table that IPVS sends by.

It is read once and then kept as the kernel tells of changes, because asking for each packet would
cost more than sending it. Reading needs no other package and no privilege. Names and numbers are
those of ``linux/neighbour.h``.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator

from saltext.lvs.errors import KernelError
from saltext.lvs.netlink import (
    NLM_F_DUMP,
    MalformedMessage,
    answers,
    attributes,
    messages,
    request,
)
from saltext.lvs.routes import NDA_DST, NDMSG, RTM_GETNEIGH, RTM_NEWNEIGH
from saltext.lvs.rtnetlink import NETLINK_ROUTE

RTM_DELNEIGH = 29
RTMGRP_NEIGH = 0x4
NDA_LLADDR = 2

# With one of these states the kernel sends to the address that it has: NUD_VALID in net/neighbour.h
NUD_REACHABLE, NUD_STALE, NUD_DELAY, NUD_PROBE = 0x02, 0x04, 0x08, 0x10
NUD_NOARP, NUD_PERMANENT = 0x40, 0x80
USABLE = NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE | NUD_NOARP | NUD_PERMANENT

FAMILIES = (socket.AF_INET, socket.AF_INET6)
MAC_BYTES = 6
TIMEOUT_SECONDS = 2
RECEIVE_BYTES = 1 << 16
# asm-generic/socket.h
SO_RCVBUFFORCE = 33
BUFFER_BYTES = 4 << 20
OPERATION = "read the neighbour table"

_Key = tuple[int, bytes]


class Neighbours:
    """The neighbour table of this network namespace, as of the last :meth:`drain`.

    Belongs to one thread. Its descriptor is inherited by forked processes, which must not use it.

    Raises :class:`~saltext.lvs.errors.KernelError` if the kernel does not answer.
    """

    def __init__(self) -> None:
        self._found: dict[_Key, bytes] = {}
        self._kernel = _connected()
        try:
            self._kernel.setblocking(False)
            # Thousands of entries change together, and a table that is read anew takes longer.
            with contextlib.suppress(OSError):
                self._kernel.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
            self._kernel.bind((0, RTMGRP_NEIGH))
            self._read()
        except BaseException:
            self._kernel.close()
            raise

    def fileno(self) -> int:
        """The descriptor that is readable when the table has changed."""
        return self._kernel.fileno()

    def mac(self, interface: int, address: bytes) -> bytes | None:
        """The hardware address to which the kernel would send now; ``None`` if it has to ask first.

        interface
            Its number.

        address
            The neighbour's, packed.
        """
        return self._found.get((interface, address))

    def drain(self) -> None:
        """Take in what has changed."""
        while True:
            try:
                data = self._kernel.recv(RECEIVE_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise KernelError(OPERATION, error.errno or 0) from error
                # More has changed than could be queued.
                self._read()
                continue
            for kind, _, _, payload in messages(data):
                self._take(kind, payload)

    def close(self) -> None:
        """Give back the descriptor."""
        self._kernel.close()

    def _read(self) -> None:
        self._found.clear()
        for payload in _table():
            self._take(RTM_NEWNEIGH, payload)

    def _take(self, kind: int, payload: bytes) -> None:
        entry = _decoded(payload) if kind in (RTM_NEWNEIGH, RTM_DELNEIGH) else None
        if entry is None:
            return
        key, mac = entry
        if mac is None or kind == RTM_DELNEIGH:
            self._found.pop(key, None)
        else:
            self._found[key] = mac


def _connected() -> socket.socket:
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    try:
        return socket.socket(socket.AF_NETLINK, kind, NETLINK_ROUTE)
    except OSError as error:
        raise KernelError(OPERATION, error.errno or errno.EIO) from error


def _table() -> Iterator[bytes]:
    """Every entry of both families, as the kernel has it now."""
    asked = request(RTM_GETNEIGH, NLM_F_DUMP, NDMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0))
    try:
        with contextlib.closing(_connected()) as kernel:
            kernel.settimeout(TIMEOUT_SECONDS)
            kernel.send(asked)
            yield from answers(kernel, {RTM_NEWNEIGH}, several=True)
    except OSError as error:
        raise KernelError(OPERATION, error.errno or errno.ETIMEDOUT) from error


def _decoded(payload: bytes) -> tuple[_Key, bytes | None] | None:
    """Whose entry it is, and the hardware address if it can be used; ``None`` for a bridge's."""
    if len(payload) < NDMSG.size:
        raise MalformedMessage(f"a neighbour of {len(payload)} bytes")
    family, index, state, _, _ = NDMSG.unpack_from(payload)
    if family not in FAMILIES:
        return None
    found = dict(attributes(payload[NDMSG.size :]))
    mac = found.get(NDA_LLADDR, b"")
    usable = state & USABLE and len(mac) == MAC_BYTES
    return (index, found.get(NDA_DST, b"")), mac if usable else None
