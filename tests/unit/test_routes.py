"""The kernel's answers about routes: understood, told in words, refused where damaged."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from saltext.lvs import netlink, routes
from saltext.lvs.errors import KernelError, LvsError
from saltext.lvs.model import Address
from saltext.lvs.netlink import attribute
from saltext.lvs.routes import Refusal, Route

from tests.unit.handwritten import ToldSocket

ERROR, DONE, NEW_ROUTE, NEW_NEIGHBOUR = 2, 3, 24, 28
DST, IIF, OIF, GATEWAY, PREFSRC, VIA = 1, 3, 4, 5, 7, 18
UNICAST, LOCAL = 1, 2
LO = socket.if_nametoindex("lo")


def address(text: str) -> Address:
    return ipaddress.ip_address(text)


VIP, CLIENT, ROUTER = address("10.10.10.10"), address("192.0.2.1"), address("10.10.10.1")
VIP6 = address("fd00::10")


def message(kind: int, payload: bytes, sequence: int = 1) -> bytes:
    padding = b"\0" * (-len(payload) % 4)
    return struct.pack("=LHHLL", 16 + len(payload), kind, 0, sequence, 9) + payload + padding


def route(kind: int, *parts: bytes, family: int = socket.AF_INET) -> bytes:
    head = struct.pack("=BBBBBBBBI", family, 32, 0, 0, 254, 0, 0, kind, 0)
    return message(NEW_ROUTE, head + b"".join(parts))


def refused(number: int) -> bytes:
    return message(ERROR, struct.pack("=i", -number) + bytes(16))


def u32(number: int) -> bytes:
    return struct.pack("=L", number)


@contextlib.contextmanager
def kernel(*datagrams: bytes) -> Iterator[ToldSocket]:
    told = ToldSocket(datagrams)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(routes.socket, "socket", told)
        yield told


ANSWERS = {
    "a local address": (route(LOCAL, attribute(OIF, u32(LO))), Route("local", "lo")),
    "a router and a source": (
        route(
            UNICAST,
            attribute(OIF, u32(LO)),
            attribute(GATEWAY, ROUTER.packed),
            attribute(PREFSRC, VIP.packed),
        ),
        Route("unicast", "lo", VIP, ROUTER),
    ),
    "a router of the other family": (
        route(
            UNICAST, attribute(OIF, u32(LO)), attribute(VIA, struct.pack("=H", 10) + VIP6.packed)
        ),
        Route("unicast", "lo", None, VIP6),
    ),
    "an interface that has just gone": (
        route(UNICAST, attribute(OIF, u32(2**31 - 1))),
        Route("unicast", "#2147483647"),
    ),
    "no interface": (route(6), Route("blackhole", "")),
    "a refusal": (refused(errno.ENETUNREACH), Refusal(errno.ENETUNREACH)),
}


@pytest.mark.parametrize(("datagram", "expected"), ANSWERS.values(), ids=ANSWERS)
def test_an_answer_is_understood(datagram: bytes, expected: Route | Refusal) -> None:
    with kernel(message(NEW_ROUTE, b"", sequence=7), datagram):
        assert routes.lookup(CLIENT, VIP) == expected


def test_a_question_names_both_ends_and_the_interface() -> None:
    with kernel(route(LOCAL), route(LOCAL)) as told:
        routes.lookup(VIP, CLIENT, "lo")
        routes.lookup(VIP6)
    parts = attribute(DST, VIP.packed) + attribute(2, CLIENT.packed) + attribute(IIF, u32(LO))
    first = struct.pack("=BBBBBBBBI", 2, 32, 32, 0, 0, 0, 0, 0, 0) + parts
    second = struct.pack("=BBBBBBBBI", 10, 128, 0, 0, 0, 0, 0, 0, 0) + attribute(DST, VIP6.packed)
    assert told.sent == [
        struct.pack("=LHHLL", 16 + len(payload), 26, 1, 1, 0) + payload
        for payload in (first, second)
    ]


def test_an_interface_that_is_not_there_is_a_refusal() -> None:
    assert routes.lookup(VIP, CLIENT, "lvs-test-none") == Refusal(errno.ENODEV, coming_in=True)


WORDS = {
    Refusal(errno.ENETUNREACH): "no route leads there (ENETUNREACH)",
    Refusal(errno.EHOSTUNREACH): "an unreachable route refuses it (EHOSTUNREACH)",
    Refusal(errno.EACCES): "a prohibit route forbids it (EACCES)",
    Refusal(errno.EXDEV, coming_in=True): (
        "the reverse-path filter drops it, or no route leads back (EXDEV)"
    ),
    Refusal(errno.EINVAL, coming_in=True): (
        "the reverse-path filter drops it, or its source address cannot be right (EINVAL)"
    ),
    Refusal(errno.EHOSTUNREACH, coming_in=True): (
        "this machine does not hold the address and does not forward (EHOSTUNREACH)"
    ),
    Refusal(errno.ENOMEM): "Cannot allocate memory (ENOMEM)",
    Refusal(4000): "Unknown error 4000 (4000)",
}


@pytest.mark.parametrize(("refusal", "words"), WORDS.items(), ids=WORDS.values())
def test_a_refusal_has_words(refusal: Refusal, words: str) -> None:
    assert str(refusal) == words


def proxy(of: Address, index: int = LO) -> bytes:
    head = struct.pack("=BxxxIHBB", 10, index, 0, 8, 0)
    return message(NEW_NEIGHBOUR, head + attribute(1, of.packed))


def test_proxies_are_listed() -> None:
    with kernel(proxy(VIP6) + proxy(VIP6), message(DONE, bytes(4))):
        assert routes.proxied() == {("lo", VIP6)}


def test_without_ipv6_there_are_no_proxies() -> None:
    with kernel(refused(errno.EAFNOSUPPORT)):
        assert routes.proxied() == frozenset()
    with kernel(refused(errno.ENOMEM)), pytest.raises(KernelError, match="ENOMEM"):
        routes.proxied()


DAMAGED: dict[str, tuple[list[bytes], type[Exception], str]] = {
    "silence": ([], KernelError, "cannot look up a route: .* [(]ETIMEDOUT[)]"),
    "an empty datagram": ([b""], netlink.MalformedMessage, "a datagram of 0 bytes"),
    "a cut route": (
        [message(NEW_ROUTE, bytes(4))],
        netlink.MalformedMessage,
        "a route of 4 bytes",
    ),
    "a route of no known type": ([route(99)], netlink.MalformedMessage, "a route of type 99"),
    "a short address": (
        [route(UNICAST, attribute(GATEWAY, b"\1\2\3"))],
        netlink.MalformedMessage,
        "an address of 3 bytes in family 2",
    ),
    "an address of no known family": (
        [route(UNICAST, attribute(GATEWAY, ROUTER.packed), family=99)],
        netlink.MalformedMessage,
        "an address of 4 bytes in family 99",
    ),
    "a short interface": (
        [route(UNICAST, attribute(OIF, b"\1"))],
        netlink.MalformedMessage,
        "attribute 4 has 1 bytes instead of 4",
    ),
    "success without a route": (
        [refused(0)],
        netlink.MalformedMessage,
        "neither a route nor an error",
    ),
}


@pytest.mark.parametrize(("datagrams", "kind", "words"), DAMAGED.values(), ids=DAMAGED)
def test_damage_is_told_apart_from_an_answer(
    datagrams: list[bytes], kind: type[Exception], words: str
) -> None:
    with kernel(*datagrams), pytest.raises(kind, match=words):
        routes.lookup(CLIENT, VIP)


@st.composite
def hostile(draw: st.DrawFn) -> list[bytes]:
    """Answers of which some bytes were cut off or changed."""
    sound = [told for told, _ in ANSWERS.values()] + [proxy(VIP6), message(DONE, bytes(4))]
    datagrams = [bytearray(draw(st.sampled_from(sound))) for _ in range(draw(st.integers(1, 3)))]
    for data in datagrams:
        if draw(st.booleans()):
            del data[draw(st.integers(0, len(data))) :]
        for _ in range(draw(st.integers(0, 4))):
            if data:
                value = draw(st.sampled_from([0, 1, 2, 4, 7, 10, 18, 28, 127, 255]))
                data[draw(st.integers(0, len(data) - 1))] = value
    return [bytes(data) for data in datagrams]


@settings(max_examples=500, deadline=2000)
@given(hostile())
def test_any_answers_are_read_refused_or_waited_for(datagrams: list[bytes]) -> None:
    with kernel(*datagrams), contextlib.suppress(LvsError):
        assert isinstance(routes.lookup(CLIENT, VIP), Route | Refusal)
    with kernel(*datagrams), contextlib.suppress(LvsError):
        assert isinstance(routes.proxied(), frozenset)
