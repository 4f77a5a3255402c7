"""A hand from outside: deletes the interface with the VIPs, and says when, and when they are back.

``python harm.py ADDRESS...`` needs the standard library alone and runs in the network of whoever
starts it. For each line that it reads it deletes ``dummy0`` and writes two lines: when it asked the
kernel to, as soon as that was done, and when all the addresses were there again; both in seconds of
``time.monotonic()``, which is the same for all processes of a kernel.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections.abc import Iterator

INTERFACE = "dummy0"
PATIENCE_SECONDS = 20.0
# linux/netlink.h, linux/rtnetlink.h, linux/if_addr.h
NETLINK_ROUTE = 0
NLM_F_REQUEST = 1
NLM_F_ACK = 4
RTM_DELLINK = 17
RTM_NEWADDR = 20
RTMGRP_ADDRESSES = 0x10 | 0x100
IFA_ADDRESS = 1
HEADER = struct.Struct("=LHHLL")
LINK = struct.Struct("=BxHiII")
ADDRESS_BYTES = 8


def main() -> None:
    """Delete the interface whenever we are told to."""
    wanted = {_packed(address) for address in sys.argv[1:]}
    for _ in sys.stdin:
        with _changes() as changes:
            print(_delete(), flush=True)
            print(_back(changes, set(wanted)), flush=True)


def _packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def _changes() -> socket.socket:
    changes = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE)
    changes.bind((0, RTMGRP_ADDRESSES))
    changes.settimeout(PATIENCE_SECONDS)
    return changes


def _delete() -> float:
    """Delete the interface; returns when that began."""
    link = LINK.pack(socket.AF_UNSPEC, 0, socket.if_nametoindex(INTERFACE), 0, 0)
    flags = NLM_F_REQUEST | NLM_F_ACK
    request = HEADER.pack(HEADER.size + len(link), RTM_DELLINK, flags, 1, 0) + link
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE) as kernel:
        began = time.monotonic()
        kernel.send(request)
        answer = kernel.recv(1 << 16)
    (number,) = struct.unpack_from("=i", answer, HEADER.size)
    if number:
        raise SystemExit(f"the kernel does not delete {INTERFACE}: error {-number}")
    return began


def _back(changes: socket.socket, missing: set[bytes]) -> float:
    """Wait until every address has come back; returns when the last one had."""
    while missing:
        for kind, payload in _messages(changes.recv(1 << 16)):
            if kind == RTM_NEWADDR:
                missing -= set(_values(payload, IFA_ADDRESS))
    return time.monotonic()


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        length, kind, *_ = HEADER.unpack_from(data)
        yield kind, data[HEADER.size : length]
        data = data[(length + 3) & ~3 :]


def _values(address: bytes, wanted: int) -> Iterator[bytes]:
    """The values of an attribute of an address."""
    data = address[ADDRESS_BYTES:]
    while data:
        length, kind = struct.unpack_from("=HH", data)
        if kind == wanted:
            yield data[4:length]
        data = data[(length + 3) & ~3 :]


if __name__ == "__main__":
    main()
