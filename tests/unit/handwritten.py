"""Bytes written out by hand, without the code that is tested."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any


def attributes(*parts: tuple[int, bytes]) -> bytes:
    """Netlink attributes, kind and payload each: struct nlattr of linux/netlink.h."""
    written = b""
    for kind, payload in parts:
        padding = b"\0" * (-len(payload) % 4)
        written += struct.pack("=HH", 4 + len(payload), kind) + payload + padding
    return written


class ToldSocket:
    """A netlink socket that answers with these datagrams, and keeps what it was asked."""

    def __init__(self, datagrams: Iterable[bytes] = ()) -> None:
        self.answers = [*datagrams]
        self.sent: list[bytes] = []

    def __call__(self, *_: object) -> Any:
        return self

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        """Like any other."""

    def settimeout(self, _: float) -> None:
        """Like any other."""

    def send(self, data: bytes) -> None:
        self.sent.append(data)

    def recv(self, _: int) -> bytes:
        if not self.answers:
            raise TimeoutError("timed out")
        return self.answers.pop(0)
