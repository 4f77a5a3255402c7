"""Frames of a path check, byte by byte, and the kernel's filter for what comes back."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from saltext.lvs import frames
from saltext.lvs.frames import Aim, Heard, Instruction, Meaning

LB1, RS1 = bytes.fromhex("02000a0a0a0b"), bytes.fromhex("02000a0a0a29")
OWN, OWN6 = ipaddress.ip_address("10.10.10.11"), ipaddress.ip_address("fd00::11")
VIP, VIP6 = ipaddress.ip_address("10.10.10.10"), ipaddress.ip_address("fd00::10")
REAL, REAL6 = ipaddress.ip_address("10.10.10.41"), ipaddress.ip_address("fd00::41")
AIM = Aim(RS1, LB1, OWN, VIP, 80)
AIM6 = Aim(RS1, LB1, OWN6, VIP6, 80)
PORT, SEQUENCE = 61003, 0x01020304  # 0xee4b

# Written down from the RFCs; the checksums were added up by hand.
ETHERNET = "02000a0a0a29 02000a0a0a0b"
SENT: dict[str, tuple[bytes, str]] = {
    "a SYN": (
        AIM.syn(PORT, SEQUENCE),
        f"{ETHERNET} 0800 45 00 002c 0000 4000 40 06 12a4 0a0a0a0b 0a0a0a0a "
        "ee4b 0050 01020304 00000000 60 02 faf0 826b 0000 020405b4",
    ),
    "a RST": (
        AIM.reset(PORT, SEQUENCE),
        f"{ETHERNET} 0800 45 00 0028 0000 4000 40 06 12a8 0a0a0a0b 0a0a0a0a "
        "ee4b 0050 01020305 00000000 50 04 faf0 9a24 0000",
    ),
    "a SYN of IPv6": (
        AIM6.syn(PORT, SEQUENCE),
        f"{ETHERNET} 86dd 60000000 0018 06 40 fd000000000000000000000000000011 "
        "fd000000000000000000000000000010 ee4b 0050 01020304 00000000 60 02 faf0 b071 0000 "
        "020405b4",
    ),
    "a question by ARP": (
        frames.who_has(REAL, OWN, LB1),
        "ffffffffffff 02000a0a0a0b 0806 0001 0800 06 04 0001 02000a0a0a0b 0a0a0a0b 000000000000 "
        "0a0a0a29",
    ),
    "a question by neighbour discovery": (
        frames.who_has(REAL6, OWN6, LB1),
        "3333ff000041 02000a0a0a0b 86dd 60000000 0020 3a ff fd000000000000000000000000000011 "
        "ff0200000000000000000001ff000041 87 00 68f5 00000000 fd000000000000000000000000000041 "
        "01 01 02000a0a0a0b",
    ),
}


@pytest.mark.parametrize(("frame", "wanted"), SENT.values(), ids=SENT.keys())
def test_what_is_sent_is_as_the_standards_say(frame: bytes, wanted: str) -> None:
    assert frame.hex() == bytes.fromhex(wanted).hex()


@given(
    aim=st.sampled_from([AIM, AIM6]),
    port=st.sampled_from(frames.OWN_PORTS),
    sequence=st.integers(0, 2**32 - 1),
    name=st.sampled_from(["syn", "reset"]),
)
def test_every_checksum_is_right(aim: Aim, port: int, sequence: int, name: str) -> None:
    """As RFC 1071 has it: with the checksum in it the sum is all ones."""
    frame = getattr(aim, name)(port, sequence)
    at = 34 if aim is AIM else 54
    ends = frame[26:34] if at == 34 else frame[22:54]
    pseudo = ends + struct.pack("!II", len(frame) - at, 6)
    assert ones(pseudo + frame[at:]) == 0
    if at == 34:
        assert ones(frame[14:34]) == 0


def ones(data: bytes) -> int:
    return sum(struct.unpack(f"!{len(data) // 2}H", data)) % 0xFFFF


# -------------------------------------------------------------------------------------------------
# What comes back

BACK = "02000a0a0a0b 02000a0a0a29"
IP = f"{BACK} 0800 45 00 002c 0000 4000 40"
IP6 = f"{BACK} 86dd 60000000 0018"
V, O = "0a0a0a0a", "0a0a0a0b"  # noqa: E741
V6, O6, R6 = (f"fd00{'0' * 24}00{last}" for last in ("10", "11", "41"))
ABOUT = {"address": VIP.packed, "port": 80, "own_port": PORT, "sequence": SEQUENCE}
ABOUT6 = {**ABOUT, "address": VIP6.packed}
INNER = f"45 00 002c 0000 4000 3f 06 0000 {O} {V} ee4b 0050 01020304"
INNER6 = f"60000000 0018 06 3f {O6} {V6} ee4b 0050 01020304 00000000 6002 faf0 0000 0000"
REDIRECT6 = f"89 00 0000 00000000 {V6} {V6}"
LINK_LAYER = "02 01 02000a0a0a0b"
RESULTS: dict[str, tuple[str, Heard | None]] = {
    "SYN and ACK": (
        f"{IP} 06 0000 {V} {O} 0050 ee4b aaaaaaaa 01020305 60 12 faf0 0000 0000 020405b4",
        Heard(Meaning.SERVES, RS1, **ABOUT),
    ),
    "RST": (
        f"{IP} 06 0000 {V} {O} 0050 ee4b 00000000 01020305 50 14 0000 0000 0000",
        Heard(Meaning.REFUSES, RS1, **ABOUT),
    ),
    "the same with an option in the header of IPv4": (
        f"{BACK} 0800 46 00 002c 0000 4000 40 06 0000 {V} {O} 01010101 "
        "0050 ee4b 00000000 01020305 50 14 0000 0000 0000",
        Heard(Meaning.REFUSES, RS1, **ABOUT),
    ),
    "our own SYN": (
        f"{IP} 06 0000 {O} {V} ee4b 0050 01020304 00000000 60 02 faf0 0000 0000",
        Heard(Meaning.RETURNED, RS1, **ABOUT),
    ),
    "an ICMP redirect": (
        f"{IP} 01 0000 0a0a0a29 {O} 05 01 0000 {V} {INNER}",
        Heard(Meaning.REDIRECTED, RS1, **ABOUT),
    ),
    "ICMP unreachable": (
        f"{IP} 01 0000 0a0a0a29 {O} 03 0a 0000 00000000 {INNER}",
        Heard(Meaning.UNREACHABLE, RS1, **ABOUT),
    ),
    "SYN and ACK of IPv6": (
        f"{IP6} 06 40 {V6} {O6} 0050 ee4b aaaaaaaa 01020305 60 12 faf0 0000 0000",
        Heard(Meaning.SERVES, RS1, **ABOUT6),
    ),
    "RST of IPv6": (
        f"{IP6} 06 40 {V6} {O6} 0050 ee4b 00000000 01020305 50 14 0000 0000 0000",
        Heard(Meaning.REFUSES, RS1, **ABOUT6),
    ),
    "our own SYN of IPv6": (
        f"{IP6} 06 3f {O6} {V6} ee4b 0050 01020304 00000000 60 02 faf0 0000 0000",
        Heard(Meaning.RETURNED, RS1, **ABOUT6),
    ),
    "a redirect of IPv6, behind another option": (
        f"{IP6} 3a ff {R6} {O6} {REDIRECT6} {LINK_LAYER} 04 09 000000000000 {INNER6}",
        Heard(Meaning.REDIRECTED, RS1, **ABOUT6),
    ),
    "unreachable by ICMPv6": (
        f"{IP6} 3a ff {R6} {O6} 01 01 0000 00000000 {INNER6}",
        Heard(Meaning.UNREACHABLE, RS1, **ABOUT6),
    ),
    "an answer by ARP": (
        f"{BACK} 0806 0001 0800 06 04 0002 02000a0a0a2a 0a0a0a29 02000a0a0a0b 0a0a0a0b",
        Heard(Meaning.PRESENT, bytes.fromhex("02000a0a0a2a"), REAL.packed),
    ),
    "a neighbour's advertisement": (
        f"{IP6} 3a ff {R6} {O6} 88 00 0000 60000000 {R6} 02 01 02000a0a0a2a",
        Heard(Meaning.PRESENT, bytes.fromhex("02000a0a0a2a"), REAL6.packed),
    ),
    "one that names no address but its frame's": (
        f"{IP6} 3a ff {R6} {O6} 88 00 0000 40000000 {R6}",
        Heard(Meaning.PRESENT, RS1, REAL6.packed),
    ),
}
SILENT: dict[str, str] = {
    "an ACK alone": f"{IP} 06 0000 {V} {O} 0050 ee4b aaaaaaaa 01020305 50 10 faf0 0000 0000",
    "a FIN": f"{IP} 06 0000 {V} {O} 0050 ee4b aaaaaaaa 01020305 50 11 faf0 0000 0000",
    "a fragment": f"{BACK} 0800 45 00 002c 0000 0001 40 06 0000 {V} {O} 0050 ee4b aaaaaaaa "
    "01020305 60 12 faf0 0000 0000",
    "UDP": f"{IP} 11 0000 {V} {O} 0050 ee4b 0008 0000",
    "a ping": f"{IP} 01 0000 {V} {O} 08 00 0000 {V} {INNER}",
    "ICMP about UDP": f"{IP} 01 0000 {V} {O} 03 03 0000 00000000 "
    f"45 00 002c 0000 4000 3f 11 0000 {O} {V} ee4b 0050 01020304",
    "a question by ARP": f"{BACK} 0806 0001 0800 06 04 0001 02000a0a0a2a 0a0a0a29 000000000000 {O}",
    "a neighbour's solicitation": f"{IP6} 3a ff {R6} {O6} 87 00 0000 00000000 {O6}",
    "a router's solicitation": f"{IP6} 3a ff {R6} {O6} 85 00 0000 00000000",
    "a router's advertisement": f"{IP6} 3a ff {R6} {O6} 86 00 0000 00000000 00000000 00000000",
    "a redirect that brings nothing back": f"{IP6} 3a ff {R6} {O6} {REDIRECT6} {LINK_LAYER}",
    "an option of no length": f"{IP6} 3a ff {R6} {O6} {REDIRECT6} 02 00 02000a0a0a0b {INNER6}",
    "something else": f"{BACK} 88cc 0000",
}


@pytest.mark.parametrize(("text", "meant"), RESULTS.values(), ids=RESULTS.keys())
def test_what_comes_back_is_understood(text: str, meant: Heard) -> None:
    assert frames.heard(bytes.fromhex(text)) == meant


@pytest.mark.parametrize("text", SILENT.values(), ids=SILENT.keys())
def test_what_is_no_answer_says_nothing(text: str) -> None:
    assert frames.heard(bytes.fromhex(text)) is None


@given(
    text=st.sampled_from([text for text, _ in RESULTS.values()]),
    length=st.integers(0, 120),
    changed=st.lists(st.tuples(st.integers(0, 119), st.integers(0, 255)), max_size=8),
)
def test_no_frame_whatever_makes_it_fail(
    text: str, length: int, changed: list[tuple[int, int]]
) -> None:
    frame = bytearray(bytes.fromhex(text))
    for place, byte in changed:
        if place < len(frame):
            frame[place] = byte
    frames.heard(bytes(frame[:length]))


# -------------------------------------------------------------------------------------------------
# The kernel's filter

HOST, OTHER_HOST, OUTGOING = 0, 3, 4


def passes(program: Sequence[Instruction], frame: bytes, kind: int = HOST) -> bool:
    """Run a program as the kernel does (Documentation/networking/filter.rst)."""
    accumulator = index = at = 0
    while True:
        code, yes, no, number = program[at]
        at += 1
        if code == frames.RET:
            return bool(number)
        if code in SIZES:
            size, base = SIZES[code][0], index if SIZES[code][1] else 0
            if number == frames.PACKET_TYPE:
                accumulator = kind
                continue
            part = frame[base + number : base + number + size]
            if len(part) < size:
                return False
            accumulator = int.from_bytes(part, "big")
        elif code == frames.LDX_HEADER:
            if number >= len(frame):
                return False
            index = (frame[number] & 0x0F) * 4
        elif code == frames.AND:
            accumulator &= number
        else:
            at += yes if JUMPS[code](accumulator, number) else no


SIZES = {
    frames.LD: (4, False),
    frames.LDH: (2, False),
    frames.LDB: (1, False),
    frames.LDH_X: (2, True),
    frames.LDB_X: (1, True),
}
JUMPS: dict[int, Any] = {
    frames.JEQ: lambda a, k: a == k,
    frames.JGE: lambda a, k: a >= k,
    frames.JSET: lambda a, k: bool(a & k),
}
OURS = frames.kernel_filter([OWN, OWN6])
ANYBODYS = frames.kernel_filter([])
OTHERS = frames.kernel_filter([VIP, VIP6, *(OWN + number for number in range(1, 9))])
MANY = frames.kernel_filter([OWN + number for number in range(100, 200)])


@pytest.mark.parametrize("text", [text for text, _ in RESULTS.values()], ids=RESULTS.keys())
def test_every_answer_passes_and_only_to_us(text: str) -> None:
    frame = bytes.fromhex(text)
    assert passes(OURS, frame) and passes(ANYBODYS, frame) and passes(MANY, frame)
    assert not passes(OURS, frame, OUTGOING) and not passes(OURS, frame, OTHER_HOST)
    # An answer by ARP is let through whoever it is for.
    assert passes(OTHERS, frame) == (frame[12:14] == b"\x08\x06")


@pytest.mark.parametrize("text", SILENT.values(), ids=SILENT.keys())
def test_hardly_anything_else_passes(text: str) -> None:
    assert passes(OURS, bytes.fromhex(text)) == (REDIRECT6 in text)


@pytest.mark.parametrize(
    ("source", "destination", "flags"),
    [
        ("c350", "0050", "02"),
        ("0050", "c350", "12"),
        ("0050", "ea60", "12"),
        ("ee4b", "0050", "10"),
    ],
    ids=[
        "a client's SYN",
        "an answer to a connection of the director's own",
        "the same at the last of the kernel's ports",
        "what a client says from one of our ports",
    ],
)
def test_a_directors_own_traffic_does_not_pass(source: str, destination: str, flags: str) -> None:
    tcp = f"{source} {destination} aaaaaaaa 01020305 60 {flags} faf0 0000 0000 020405b4"
    for ends in (f"{IP} 06 0000 0a0a0a64 {O}", f"{IP6} 06 40 fd00{'0' * 24}0100 {O6}"):
        assert not passes(ANYBODYS, bytes.fromhex(f"{ends} {tcp}"))


def test_a_clients_syn_from_one_of_our_ports_does_not_pass() -> None:
    tcp = "ee4b 0050 aaaaaaaa 00000000 60 02 faf0 0000 0000 020405b4"
    assert not passes(OURS, bytes.fromhex(f"{IP} 06 0000 0a0a0a64 {O} {tcp}"))
    assert not passes(OURS, bytes.fromhex(f"{IP6} 06 40 fd00{'0' * 24}0100 {O6} {tcp}"))


@given(text=st.sampled_from([text for text, _ in RESULTS.values()]), length=st.integers(0, 120))
def test_a_frame_that_is_cut_off_ends_every_program(text: str, length: int) -> None:
    passes(OURS, bytes.fromhex(text)[:length])


def test_a_program_is_packed_as_the_kernel_reads_it() -> None:
    assert frames.packed_filter([(0x15, 1, 2, 3)]) == struct.pack("=HBBI", 0x15, 1, 2, 3)
