"""Packets on the wire: what a host's interface sends and receives, decoded."""

from __future__ import annotations

import ctypes
import ipaddress
import socket
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from tests.lab import namespaces

ETH_P_ALL = 3  # linux/if_ether.h
KINDS = {0x0800: "ipv4", 0x0806: "arp", 0x86DD: "ipv6"}
PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 112: "vrrp"}
OPERATIONS = {1: "request", 2: "reply"}
PACKET_OUTGOING = 4  # linux/if_packet.h
SO_ATTACH_FILTER = 26  # asm-generic/socket.h
# What machines say of their addresses: ARP and ICMPv6. In the kernel's filter language
# (linux/filter.h): load the type; ARP is taken; of IPv6 load the next header; ICMPv6 is taken.
NEIGHBOURS = (
    (0x28, 0, 0, 12),
    (0x15, 3, 0, 0x0806),
    (0x15, 0, 3, 0x86DD),
    (0x30, 0, 0, 20),
    (0x15, 0, 1, 58),
    (0x06, 0, 0, 0xFFFF),
    (0x06, 0, 0, 0),
)


@dataclass(frozen=True)
class Packet:
    """One frame. ``at`` is in seconds of ``time.monotonic()``; what a kind does not have is empty.

    For ARP ``source`` and ``destination`` are the sender's and the target's protocol addresses and
    ``operation`` is request or reply.
    """

    at: float
    outgoing: bool
    source_mac: str
    destination_mac: str
    kind: str
    source: str = ""
    destination: str = ""
    operation: str = ""
    protocol: str = ""
    source_port: int = 0
    destination_port: int = 0
    payload: bytes = b""  # of IP: with the transport's header
    frame: bytes = field(default=b"", compare=False, repr=False)  # all of it, as it was


def decode(frame: bytes, at: float = 0.0, outgoing: bool = False) -> Packet:
    """Read an Ethernet frame."""
    (number,) = struct.unpack_from("!H", frame, 12)
    kind = KINDS.get(number, hex(number))
    macs = (frame[6:12].hex(":"), frame[0:6].hex(":"))
    readers = {"arp": _arp, "ipv4": _ipv4, "ipv6": _ipv6}
    fields = readers[kind](frame[14:]) if kind in readers else {}
    return Packet(at, outgoing, *macs, kind, **fields, frame=frame)


def _arp(body: bytes) -> dict[str, Any]:
    (operation,) = struct.unpack_from("!H", body, 6)
    return {
        "operation": OPERATIONS.get(operation, str(operation)),
        "source": str(ipaddress.IPv4Address(body[14:18])),
        "destination": str(ipaddress.IPv4Address(body[24:28])),
    }


def _ipv4(body: bytes) -> dict[str, Any]:
    header = (body[0] & 0x0F) * 4
    (length,) = struct.unpack_from("!H", body, 2)
    return {
        "source": str(ipaddress.IPv4Address(body[12:16])),
        "destination": str(ipaddress.IPv4Address(body[16:20])),
        **_transport(body[9], body[header:length]),
    }


def _ipv6(body: bytes) -> dict[str, Any]:
    (length,) = struct.unpack_from("!H", body, 4)
    return {
        "source": str(ipaddress.IPv6Address(body[8:24])),
        "destination": str(ipaddress.IPv6Address(body[24:40])),
        **_transport(body[6], body[40 : 40 + length]),
    }


def _transport(number: int, payload: bytes) -> dict[str, Any]:
    protocol = PROTOCOLS.get(number, str(number))
    fields: dict[str, Any] = {"protocol": protocol, "payload": payload}
    if protocol in ("tcp", "udp") and len(payload) >= 4:
        fields["source_port"], fields["destination_port"] = struct.unpack_from("!HH", payload)
    return fields


def _attach(packets: socket.socket, lines: Sequence[tuple[int, int, int, int]]) -> None:
    """Have the kernel pass on only what a filter takes."""
    code = b"".join(struct.pack("=HBBI", *line) for line in lines)
    kept = ctypes.create_string_buffer(code)
    program = struct.pack("@HP", len(lines), ctypes.addressof(kept))
    packets.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


class Capture:
    """Collects packets for the time of a ``with`` block, which gives the (growing) list of them.

    With ``neighbours`` only ARP and ICMPv6 count, so that it may run for long.
    """

    def __init__(self, process: int, interface: str, neighbours: bool = False) -> None:
        self._process = process
        self._interface = interface
        self._neighbours = neighbours
        self._packets: list[Packet] = []
        self._stop = threading.Event()

    def __enter__(self) -> list[Packet]:
        self._socket = namespaces.in_network_of(self._process, self._open)
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()
        return self._packets

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()

    def _open(self) -> socket.socket:
        packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        packets.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        packets.settimeout(0.05)
        if self._neighbours:
            _attach(packets, NEIGHBOURS)
        packets.bind((self._interface, ETH_P_ALL))
        return packets

    def _collect(self) -> None:
        """Read until told to stop, and then what is still in the queue."""
        while True:
            try:
                frame, address = self._socket.recvfrom(65535)
            except TimeoutError:
                if self._stop.is_set():
                    return
                continue
            outgoing = address[2] == PACKET_OUTGOING
            self._packets.append(decode(frame, time.monotonic(), outgoing))
