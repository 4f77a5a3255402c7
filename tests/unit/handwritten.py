"""Bytes written out by hand, without the code that is tested."""

from __future__ import annotations

import struct


def attributes(*parts: tuple[int, bytes]) -> bytes:
    """Netlink attributes, kind and payload each: struct nlattr of linux/netlink.h."""
    written = b""
    for kind, payload in parts:
        padding = b"\0" * (-len(payload) % 4)
        written += struct.pack("=HH", 4 + len(payload), kind) + payload + padding
    return written
