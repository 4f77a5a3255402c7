"""Frames of a path check, byte by byte: what is sent, what comes back, what the kernel passes on.

A SYN for the VIP goes to a real server's MAC address, as IPVS's direct routing sends a client's;
the answer goes past IPVS. Nothing here opens a socket. Numbers are those of ``linux/if_ether.h``,
``linux/filter.h`` and the RFCs named beside them.
"""

from __future__ import annotations

import enum
import ipaddress
import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from saltext.lvs.reading import Address

ETH_P_IP = 0x0800
ETH_P_ARP = 0x0806
ETH_P_IPV6 = 0x86DD
ARPHRD_ETHER = 1
ARPOP_REQUEST = 1
ARPOP_REPLY = 2
BROADCAST = b"\xff" * 6
NOBODY = b"\0" * 6

# IANA's protocol numbers
ICMP = 1
TCP = 6
ICMPV6 = 58
# RFC 792
UNREACHABLE = 3
REDIRECT = 5
# RFC 4443 section 3.1; RFC 4861 section 4
UNREACHABLE_IPV6 = 1
NEIGHBOR_SOLICITATION = 135
NEIGHBOR_ADVERTISEMENT = 136
REDIRECT_IPV6 = 137
SOURCE_LINK_LAYER_ADDRESS = 1
TARGET_LINK_LAYER_ADDRESS = 2
REDIRECTED_HEADER = 4
# Who forwards lowers it: so a receiver knows that this comes from its own network.
HOP_LIMIT = 255

# RFC 9293 section 3.1
FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10
FLAGS = FIN | SYN | RST | ACK
WINDOW = 64240
# Its maximum segment size, as every client names one: some firewalls drop a SYN without.
SYN_OPTIONS = struct.pack("!BBH", 2, 4, 1460)

# Above those that the kernel takes for connections of its own (net.ipv4.ip_local_port_range), so
# that answers to a director's other traffic are not copied to us.
OWN_PORTS = range(61000, 65536)

ETHERNET = struct.Struct("!6s6sH")
ARP = struct.Struct("!HHBBH6s4s6s4s")
IPV4 = struct.Struct("!BBHHHBBH4s4s")
IPV6 = struct.Struct("!IHBB16s16s")
PSEUDO = struct.Struct("!16s16sII")
PSEUDO_IPV4 = struct.Struct("!4s4sBBH")
SEGMENT = struct.Struct("!HHIIBBHHH")
SOLICITATION = struct.Struct("!BBHI16sBB6s")
# The part of a TCP header that an ICMP message is sure to bring back
BEGINNING = struct.Struct("!HHI")
U16 = struct.Struct("!H")

ETHERNET_OF = {4: ETH_P_IP, 6: ETH_P_IPV6}
L2 = ETHERNET.size
DONT_FRAGMENT = 0x4000
FRAGMENT = 0x1FFF


def checksum(data: bytes) -> int:
    """The Internet's checksum (RFC 1071) of an even number of bytes."""
    return _folded(_added(data))


def _added(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    return total


def _folded(total: int) -> int:
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


# --------------------------------------------------------------------------------------------------
# What is sent


class Aim:
    """Where segments go, and from where; what they have in common is made once.

    mac
        The real server's hardware address.

    own_mac, source
        The sender's, and the address that answers come to.

    vip, port
        What the segments are for: the real server takes them only if it holds that VIP.
    """

    __slots__ = ("_port", "_reset", "_syn", "mac")

    def __init__(
        self, mac: bytes, own_mac: bytes, source: Address, vip: Address, port: int
    ) -> None:
        self.mac, self._port = mac, port
        self._syn = _common(ETHERNET_OF[vip.version], (mac, own_mac), (source, vip), SYN_OPTIONS)
        self._reset = _common(ETHERNET_OF[vip.version], (mac, own_mac), (source, vip), b"")

    def syn(self, own_port: int, sequence: int) -> bytes:
        """The first segment of a connection."""
        header, total = self._syn
        return header + _segment(self._port, own_port, sequence, SYN, SYN_OPTIONS, total)

    def reset(self, own_port: int, sequence: int) -> bytes:
        """What ends a connection that :meth:`syn` began with the same numbers.

        Its own sequence number follows the SYN's: any other one would be taken for forged
        (RFC 5961).
        """
        header, total = self._reset
        return header + _segment(self._port, own_port, (sequence + 1) & 0xFFFFFFFF, RST, b"", total)


def _common(
    kind: int, macs: tuple[bytes, bytes], ends: tuple[Address, Address], options: bytes
) -> tuple[bytes, int]:
    """A segment's headers, and the sum of its pseudo-header and options."""
    length = SEGMENT.size + len(options)
    source, vip = (end.packed for end in ends)
    ethernet = ETHERNET.pack(*macs, kind)
    if kind == ETH_P_IPV6:
        header = IPV6.pack(6 << 28, length, TCP, 64, source, vip)
        return ethernet + header, _added(PSEUDO.pack(source, vip, length, TCP) + options)
    fields = (0x45, 0, IPV4.size + length, 0, DONT_FRAGMENT, 64, TCP)
    check = checksum(IPV4.pack(*fields, 0, source, vip))
    pseudo = PSEUDO_IPV4.pack(source, vip, 0, TCP, length)
    return ethernet + IPV4.pack(*fields, check, source, vip), _added(pseudo + options)


def _segment(
    port: int, own_port: int, sequence: int, flags: int, options: bytes, total: int
) -> bytes:
    """A TCP header and its options; ``total`` is the sum of what never changes."""
    words = (SEGMENT.size + len(options)) // 4 << 4
    total += own_port + port + (sequence >> 16) + (sequence & 0xFFFF)
    check = _folded(total + (words << 8 | flags) + WINDOW)
    return SEGMENT.pack(own_port, port, sequence, 0, words, flags, WINDOW, check, 0) + options


def who_has(address: Address, source: Address, own_mac: bytes) -> bytes:
    """The question for a machine's hardware address: by ARP, or by neighbour discovery."""
    if isinstance(address, ipaddress.IPv6Address):
        return _solicitation(address, source, own_mac)
    fields = (ARPHRD_ETHER, ETH_P_IP, 6, 4, ARPOP_REQUEST)
    body = ARP.pack(*fields, own_mac, source.packed, NOBODY, address.packed)
    return ETHERNET.pack(BROADCAST, own_mac, ETH_P_ARP) + body


def _solicitation(address: ipaddress.IPv6Address, source: Address, own_mac: bytes) -> bytes:
    """RFC 4861 section 4.3, to the group that the address itself names (RFC 4291 section 2.7.1)."""
    end = address.packed[-3:]
    group = bytes.fromhex("ff0200000000000000000001ff") + end
    message = _soliciting(0, address, own_mac)
    pseudo = PSEUDO.pack(source.packed, group, len(message), ICMPV6)
    message = _soliciting(checksum(pseudo + message), address, own_mac)
    header = IPV6.pack(6 << 28, len(message), ICMPV6, HOP_LIMIT, source.packed, group)
    return ETHERNET.pack(b"\x33\x33\xff" + end, own_mac, ETH_P_IPV6) + header + message


def _soliciting(check: int, address: ipaddress.IPv6Address, own_mac: bytes) -> bytes:
    option = (SOURCE_LINK_LAYER_ADDRESS, 1, own_mac)
    return SOLICITATION.pack(NEIGHBOR_SOLICITATION, 0, check, 0, address.packed, *option)


# --------------------------------------------------------------------------------------------------
# What comes back


class Meaning(enum.Enum):
    """What a frame says."""

    SERVES = "SYN and ACK"
    REFUSES = "RST"
    RETURNED = "our own SYN"
    REDIRECTED = "an ICMP redirect for our SYN"
    UNREACHABLE = "ICMP unreachable for our SYN"
    PRESENT = "an answer by ARP or neighbour discovery"


@dataclass(frozen=True, slots=True)
class Heard:
    """A frame that has a meaning for us.

    mac
        Who sent it.

    address
        The VIP of the SYN, packed; of :attr:`Meaning.PRESENT` the address that is answered for.

    port, own_port, sequence
        Of the SYN that it answers or brings back.
    """

    meaning: Meaning
    mac: bytes
    address: bytes
    port: int = 0
    own_port: int = 0
    sequence: int = 0


def heard(frame: bytes) -> Heard | None:
    """Read a frame; ``None`` for one that says nothing to us, or is cut off.

    Checksums are not looked at: between machines on one host they are never filled in.
    """
    try:
        kind = U16.unpack_from(frame, 12)[0]
        reader = _READERS.get(kind)
        return reader(frame) if reader is not None else None
    except (struct.error, IndexError):
        return None


def _read_arp(frame: bytes) -> Heard | None:
    kind, of, _, _, operation, mac, address, _, _ = ARP.unpack_from(frame, L2)
    if (kind, of, operation) != (ARPHRD_ETHER, ETH_P_IP, ARPOP_REPLY):
        return None
    return Heard(Meaning.PRESENT, mac, address)


def _read_ipv4(frame: bytes) -> Heard | None:
    protocol = frame[L2 + 9]
    if U16.unpack_from(frame, L2 + 6)[0] & FRAGMENT or protocol not in (TCP, ICMP):
        return None
    at = L2 + (frame[L2] & 0x0F) * 4
    if protocol == TCP:
        return _read_tcp(frame, at, frame[L2 + 12 : L2 + 16], frame[L2 + 16 : L2 + 20])
    meaning = {UNREACHABLE: Meaning.UNREACHABLE, REDIRECT: Meaning.REDIRECTED}.get(frame[at])
    return meaning and _read_inner_ipv4(frame, at + 8, meaning)


def _read_inner_ipv4(frame: bytes, at: int, meaning: Meaning) -> Heard | None:
    if frame[at + 9] != TCP:
        return None
    vip = frame[at + 16 : at + 20]
    return _read_inner_tcp(frame, at + (frame[at] & 0x0F) * 4, meaning, vip)


def _read_ipv6(frame: bytes) -> Heard | None:
    protocol, at = frame[L2 + 6], L2 + IPV6.size
    if protocol == TCP:
        return _read_tcp(frame, at, frame[L2 + 8 : L2 + 24], frame[L2 + 24 : L2 + 40])
    if protocol != ICMPV6:
        return None
    kind = frame[at]
    if kind == NEIGHBOR_ADVERTISEMENT:
        return _read_advertisement(frame, at)
    if kind == UNREACHABLE_IPV6:
        return _read_inner_ipv6(frame, at + 8, Meaning.UNREACHABLE)
    if kind == REDIRECT_IPV6:
        inner = _option(frame, at + 40, REDIRECTED_HEADER)
        return _read_inner_ipv6(frame, inner + 8, Meaning.REDIRECTED) if inner else None
    return None


def _read_advertisement(frame: bytes, at: int) -> Heard:
    option = _option(frame, at + 24, TARGET_LINK_LAYER_ADDRESS)
    mac = frame[option + 2 : option + 8] if option else frame[6:12]
    return Heard(Meaning.PRESENT, mac, frame[at + 8 : at + 24])


def _option(frame: bytes, at: int, kind: int) -> int:
    """Where an option of neighbour discovery begins; 0 if it is not there."""
    while at + 8 <= len(frame) and frame[at + 1]:
        if frame[at] == kind:
            return at
        at += frame[at + 1] * 8
    return 0


def _read_inner_ipv6(frame: bytes, at: int, meaning: Meaning) -> Heard | None:
    if frame[at + 6] != TCP:
        return None
    return _read_inner_tcp(frame, at + IPV6.size, meaning, frame[at + 24 : at + 40])


def _read_inner_tcp(frame: bytes, at: int, meaning: Meaning, vip: bytes) -> Heard:
    own_port, port, sequence = BEGINNING.unpack_from(frame, at)
    return Heard(meaning, frame[6:12], vip, port, own_port, sequence)


def _read_tcp(frame: bytes, at: int, source: bytes, destination: bytes) -> Heard | None:
    sent_from, sent_to, sequence, acknowledged, _, flags, _, _, _ = SEGMENT.unpack_from(frame, at)
    flags &= FLAGS
    if flags == SYN:
        return Heard(Meaning.RETURNED, frame[6:12], destination, sent_to, sent_from, sequence)
    if flags not in (SYN | ACK, RST | ACK):
        return None
    meaning = Meaning.SERVES if flags & SYN else Meaning.REFUSES
    answered = (acknowledged - 1) & 0xFFFFFFFF
    return Heard(meaning, frame[6:12], source, sent_from, sent_to, answered)


_READERS = {ETH_P_ARP: _read_arp, ETH_P_IP: _read_ipv4, ETH_P_IPV6: _read_ipv6}


# --------------------------------------------------------------------------------------------------
# What the kernel passes on

# linux/bpf_common.h: load from a place, or from behind the IPv4 header; compare; keep bits; end.
LD, LDH, LDB = 0x20, 0x28, 0x30
LDH_X, LDB_X = 0x48, 0x50
LDX_HEADER = 0xB1
JEQ, JGE, JSET = 0x15, 0x35, 0x45
AND = 0x54
RET = 0x06
# SKF_AD_OFF + SKF_AD_PKTTYPE: what kind of packet it is to this machine
PACKET_TYPE = (1 << 32) - 0x1000 + 4
PACKET_HOST = 0
WHOLE = 0xFFFF
# With more addresses of its own than that, a machine's filter does not look at them.
MOST_ADDRESSES = 24

Instruction = tuple[int, int, int, int]
_INSTRUCTION = struct.Struct("=HBBI")
# An instruction before its jumps are known: code, number, and where to go if it is so, and if not
# (a label, or nothing for the next instruction). A text alone is a label.
_Line = tuple[int, int, str, str] | str


def kernel_filter(own: Collection[Address]) -> tuple[Instruction, ...]:
    """A program for the kernel (BPF) that passes on what may answer a path check, and no more.

    That is: SYN and ACK, or RST, to one of :data:`OWN_PORTS`; a SYN that comes from one of them;
    ICMP about such a SYN; and answers to ARP and neighbour discovery.

    own
        The addresses that checks are sent from: what concerns others is dropped. Of IPv6 the last
        four bytes are compared, which is enough for a filter; none at all means any address.
    """
    addresses = own if len(own) <= MOST_ADDRESSES else ()
    ipv4 = [int(address) for address in addresses if address.version == 4]
    ipv6 = [int(address) & 0xFFFFFFFF for address in addresses if address.version == 6]
    anyone = not addresses
    return _assembled(
        [
            (LD, PACKET_TYPE, "", ""),
            (JEQ, PACKET_HOST, "", "drop"),
            (LDH, 12, "", ""),
            (JEQ, ETH_P_IP, "ipv4", ""),
            (JEQ, ETH_P_IPV6, "ipv6", ""),
            (JEQ, ETH_P_ARP, "", "drop"),
            (LDH, L2 + 6, "", ""),
            (JEQ, ARPOP_REPLY, "take", "drop"),
            *_ipv4_lines(ipv4, anyone),
            *_ipv6_lines(ipv6, anyone),
            "drop",
            (RET, 0, "", ""),
            "take",
            (RET, WHOLE, "", ""),
        ]
    )


def _ipv4_lines(own: Sequence[int], anyone: bool) -> list[_Line]:
    low = OWN_PORTS.start
    return [
        "ipv4",
        (LDH, L2 + 6, "", ""),
        (JSET, FRAGMENT, "drop", ""),
        (LDX_HEADER, L2, "", ""),
        (LDB, L2 + 9, "", ""),
        (JEQ, ICMP, "icmp", ""),
        (JEQ, TCP, "", "drop"),
        (LDB_X, L2 + 13, "", ""),
        (AND, FLAGS, "", ""),
        (JEQ, SYN, "own SYN", ""),
        (JEQ, SYN | ACK, "answer", ""),
        (JEQ, RST | ACK, "", "drop"),
        "answer",
        (LDH_X, L2 + 2, "", ""),
        (JGE, low, "to us", "drop"),
        "own SYN",
        (LDH_X, L2, "", ""),
        (JGE, low, "", "drop"),
        *_among(own, L2 + 12, anyone),
        # An IPv4 header that an ICMP message brings back is ours, which has no options.
        "icmp",
        (LDB_X, L2, "", ""),
        (JEQ, REDIRECT, "about", ""),
        (JEQ, UNREACHABLE, "", "drop"),
        "about",
        (LDB_X, L2 + 8 + 9, "", ""),
        (JEQ, TCP, "", "drop"),
        (LDH_X, L2 + 8 + IPV4.size, "", ""),
        (JGE, low, "", "drop"),
        "to us",
        *_among(own, L2 + 16, anyone),
    ]


def _ipv6_lines(own: Sequence[int], anyone: bool) -> list[_Line]:
    low, after = OWN_PORTS.start, L2 + IPV6.size
    return [
        "ipv6",
        (LDB, L2 + 6, "", ""),
        (JEQ, ICMPV6, "icmpv6", ""),
        (JEQ, TCP, "", "drop"),
        (LDB, after + 13, "", ""),
        (AND, FLAGS, "", ""),
        (JEQ, SYN, "own SYN 6", ""),
        (JEQ, SYN | ACK, "answer 6", ""),
        (JEQ, RST | ACK, "", "drop"),
        "answer 6",
        (LDH, after + 2, "", ""),
        (JGE, low, "to us 6", "drop"),
        "own SYN 6",
        (LDH, after, "", ""),
        (JGE, low, "", "drop"),
        *_among(own, L2 + 20, anyone),
        "icmpv6",
        (LDB, after, "", ""),
        (JEQ, NEIGHBOR_ADVERTISEMENT, "to us 6", ""),
        (JEQ, REDIRECT_IPV6, "to us 6", ""),
        (JEQ, UNREACHABLE_IPV6, "", "drop"),
        "to us 6",
        *_among(own, L2 + 36, anyone),
    ]


def _among(own: Sequence[int], place: int, anyone: bool) -> list[_Line]:
    """Take the packet if one of our addresses is at a place, and drop it otherwise."""
    if anyone:
        return [(RET, WHOLE, "", "")]
    compare: list[_Line] = [(JEQ, number, "take", "") for number in own]
    return [(LD, place, "", ""), *compare, (RET, 0, "", "")]


def _assembled(lines: Sequence[_Line]) -> tuple[Instruction, ...]:
    places: dict[str, int] = {}
    code: list[tuple[int, int, str, str]] = []
    for line in lines:
        if isinstance(line, str):
            places[line] = len(code)
        else:
            code.append(line)
    return tuple(
        (operation, _jump(places, here, yes), _jump(places, here, no), number)
        for here, (operation, number, yes, no) in enumerate(code)
    )


def _jump(places: dict[str, int], here: int, label: str) -> int:
    return places[label] - here - 1 if label else 0


def packed_filter(program: Sequence[Instruction]) -> bytes:
    """A program as the kernel reads it: ``struct sock_filter`` for each instruction."""
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in program)
