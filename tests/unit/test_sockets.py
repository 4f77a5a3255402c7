"""What the kernel tells of sockets: understood, refused where damaged, read from /proc where it has
no socket diagnosis.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from saltext.lvs import netlink, sockets
from saltext.lvs.errors import KernelError, LvsError
from saltext.lvs.model import Address, Protocol
from saltext.lvs.sockets import Listening

from tests.unit.handwritten import ToldSocket

ERROR, DONE, SOCK_DIAG = 2, 3, 20
V4, V6 = socket.AF_INET, socket.AF_INET6


def address(text: str) -> Address:
    return ipaddress.ip_address(text)


VIP, OTHER, VIP6 = address("10.10.10.10"), address("10.10.10.11"), address("fd00::10")
MAPPED = address("::ffff:10.10.10.10")


def message(kind: int, payload: bytes, sequence: int = 1) -> bytes:
    """struct nlmsghdr of linux/netlink.h, and what follows."""
    padding = b"\0" * (-len(payload) % 4)
    return struct.pack("=LHHLL", 16 + len(payload), kind, 0, sequence, 99) + payload + padding


def told(of: Address, port: int = 80, v6only: int | None = None, sequence: int = 1) -> bytes:
    """struct inet_diag_msg of linux/inet_diag.h, and attributes."""
    family = V4 if of.version == 4 else V6
    identity = struct.pack("!HH16s16s", port, 4711, of.packed, bytes(16)) + struct.pack("=IQ", 0, 1)
    rest = netlink.attribute(8, b"\0")
    if v6only is not None:
        rest += netlink.attribute(11, bytes([v6only]))
    return message(
        SOCK_DIAG, struct.pack("=BBBB", family, 1, 0, 0) + identity + bytes(20) + rest, sequence
    )


def done(number: int = 0, sequence: int = 1) -> bytes:
    return message(DONE, struct.pack("=i", -number), sequence)


def refused(number: int) -> bytes:
    return message(ERROR, struct.pack("=i", -number) + bytes(16))


class ToldDumps(ToldSocket):
    """A kernel that answers each dump with these datagrams, by protocol and family; with an empty
    list to what is not named.
    """

    def __init__(self, told: dict[tuple[Protocol, int], Iterable[bytes]]) -> None:
        super().__init__()
        self.told = {
            (sockets.NUMBERS[kind], family): [*data] for (kind, family), data in told.items()
        }

    def send(self, data: bytes) -> None:
        family, protocol = data[16:18]
        self.answers = list(self.told.get((protocol, family), [done()]))


@contextlib.contextmanager
def kernel(told: dict[tuple[Protocol, int], Iterable[bytes]]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sockets.socket, "socket", ToldDumps(told))
        yield


TCP4, TCP6 = (Protocol.TCP, V4), (Protocol.TCP, V6)
UDP4, UDP6 = (Protocol.UDP, V4), (Protocol.UDP, V6)
CONVERSATION = {
    TCP4: [told(VIP) + told(VIP), told(OTHER), done()],
    TCP6: [told(MAPPED) + told(VIP6), done()],
    UDP4: [told(VIP), done()],
}


def test_connections_of_all_kinds_are_counted_by_address() -> None:
    with kernel(CONVERSATION):
        assert sockets.connections([VIP, VIP6, address("10.10.10.12")]) == {
            VIP: 4,
            VIP6: 1,
            address("10.10.10.12"): 0,
        }


def test_nothing_is_asked_about_no_address() -> None:
    with kernel({kind: [] for kind in (TCP4, TCP6, UDP4, UDP6)}):
        assert sockets.connections([]) == {}


def test_listeners_are_told_in_order_and_once() -> None:
    anywhere, anywhere6 = address("0.0.0.0"), address("::")
    conversation = {
        TCP4: [told(VIP, 443) + told(anywhere, 80) + told(anywhere, 80), done()],
        TCP6: [told(anywhere6, 80, 1), told(anywhere6, 81, 0) + told(MAPPED, 82, 0), done()],
        UDP4: [told(anywhere, 0) + told(anywhere, 53), done()],
        UDP6: [told(VIP6, 53), done()],
    }
    with kernel(conversation):
        assert sockets.listeners() == (
            Listening(Protocol.TCP, anywhere, 80),
            Listening(Protocol.TCP, VIP, 82),
            Listening(Protocol.TCP, VIP, 443),
            Listening(Protocol.TCP, anywhere6, 80, v6only=True),
            Listening(Protocol.TCP, anywhere6, 81, v6only=False),
            Listening(Protocol.UDP, anywhere, 53),
            Listening(Protocol.UDP, VIP6, 53, v6only=None),
        )


# --------------------------------------------------------------------------------------------------
# Damaged

CUT = "does not fit its datagram"
DAMAGED: dict[str, tuple[list[bytes], type[Exception], str]] = {
    "silence": ([], KernelError, r"cannot list the sockets of this machine: .* \(ETIMEDOUT\)"),
    "an empty datagram": ([b""], netlink.MalformedMessage, "a datagram of 0 bytes"),
    "a datagram shorter than a header": ([done()[:9]], netlink.MalformedMessage, "of 9 bytes"),
    "a message of no length": ([bytes(16), done()], netlink.MalformedMessage, CUT),
    "a message longer than its datagram": ([told(VIP)[:-4]], netlink.MalformedMessage, CUT),
    "a list that does not end": ([told(VIP)] * 100, KernelError, "ETIMEDOUT"),
    "the end of another list": ([told(VIP), done(sequence=2)], KernelError, "ETIMEDOUT"),
    "a socket that is cut off": (
        [message(SOCK_DIAG, told(VIP)[16:80]), done()],
        netlink.MalformedMessage,
        "64 bytes are no socket of family 2",
    ),
    "a socket of another family": (
        [told(VIP6), done()],
        netlink.MalformedMessage,
        "80 bytes are no socket of family 2",
    ),
    "an end without its number": (
        [message(DONE, b"\xff")],
        netlink.MalformedMessage,
        "a netlink error without its number",
    ),
    "a refusal": ([refused(errno.EPERM)], KernelError, "EPERM"),
    "a refusal at the end": ([told(VIP), done(errno.ENOMEM)], KernelError, "ENOMEM"),
}


@pytest.mark.parametrize(("datagrams", "kind", "words"), DAMAGED.values(), ids=DAMAGED)
def test_damage_is_told_apart_from_an_answer(
    datagrams: list[bytes], kind: type[Exception], words: str
) -> None:
    with kernel({TCP4: datagrams}):
        with pytest.raises(kind, match=words):
            sockets.connections([VIP])
        with pytest.raises(kind, match=words):
            sockets.listeners()


def test_what_belongs_to_another_request_is_passed_over() -> None:
    with kernel({TCP4: [told(VIP, sequence=7) + told(VIP) + message(16, b""), done()]}):
        assert sockets.connections([VIP]) == {VIP: 1}


def test_attributes_that_are_cut_off_are_refused() -> None:
    damaged = bytearray(told(VIP6, v6only=1)[16:])
    damaged[-8:-6] = struct.pack("=H", 60)
    refused = pytest.raises(netlink.MalformedMessage, match="a netlink attribute of 60 bytes")
    with kernel({TCP6: [message(SOCK_DIAG, bytes(damaged)), done()]}), refused:
        sockets.listeners()


@st.composite
def hostile(draw: st.DrawFn) -> list[bytes]:
    """A conversation with some of it cut, changed, left out, or in another order."""
    datagrams = [told(VIP, v6only=0) + told(OTHER), told(VIP6, v6only=1), done()]
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(datagrams) - 1))
        data = bytearray(datagrams[at])
        act = draw(st.sampled_from(["cut", "change", "drop", "swap", "invent"]))
        if act == "cut":
            datagrams[at] = bytes(data[: draw(st.integers(0, len(data)))])
        elif act == "change" and data:
            value = draw(st.sampled_from([0, 1, 2, 3, 4, 10, 15, 16, 20, 127, 255]))
            data[draw(st.integers(0, len(data) - 1))] = value
            datagrams[at] = bytes(data)
        elif act == "drop" and len(datagrams) > 1:
            del datagrams[at]
        elif act == "swap":
            datagrams[at], datagrams[0] = datagrams[0], datagrams[at]
        else:
            datagrams.insert(at, draw(st.binary(max_size=120)))
    return datagrams


@settings(max_examples=500, deadline=2000)
@given(hostile(), st.sampled_from([TCP4, TCP6, UDP4, UDP6]))
def test_any_answers_are_read_refused_or_waited_for(
    datagrams: list[bytes], kind: tuple[Protocol, int]
) -> None:
    with kernel({kind: datagrams}):
        with contextlib.suppress(LvsError):
            assert sockets.connections([VIP, VIP6]).keys() == {VIP, VIP6}
        with contextlib.suppress(LvsError):
            assert all(isinstance(found, Listening) for found in sockets.listeners())


# --------------------------------------------------------------------------------------------------
# The files of /proc

TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0A0A0A0A:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 21 1 0
   1: 0A0A0A0A:0050 640A0A0A:A001 01 00000000:00000000 00:00000000 00000000     0        0 22 1 0
   2: 0A0A0A0A:0050 640A0A0A:A002 03 00000000:00000000 01:00000064 00000000     0        0 0 1 0
 103: 0A0A0A0A:0050 640A0A0A:A003 06 00000000:00000000 03:00000FF5 00000000     0        0 0 3 0
 104: 0A0A0A0A:0050 640A0A0A:A004 05 00000000:00000000 03:00000FF5 00000000     0        0 0 3 0
"""
TCP6_LINES = """\
  sl  local_address                         remote_address                        st tx_queue
   0: 00000000000000000000000000000000:0051 00000000000000000000000000000000:0000 0A 0:0 0
   1: 0000000000000000FFFF00000A0A0A0A:0051 0000000000000000FFFF0000640A0A0A:A001 01 0:0 0
   2: 000000FD000000000000000010000000:0051 000000FD000000000000000064000000:A001 08 0:0 0
"""
UDP = """\
   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
 2101: 00000000:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 23 2 0
 2102: 0A0A0A0A:0035 640A0A0A:A001 01 00000000:00000000 00:00000000 00000000     0        0 24 2 0
"""

LITTLE_ENDIAN = pytest.mark.skipif(
    struct.pack("=H", 1) != b"\x01\0", reason="the lines are those of a little-endian machine"
)


@pytest.fixture(params=[refused(errno.ENOENT), done(errno.ENOENT), refused(errno.EOPNOTSUPP)])
def undiagnosed(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A kernel without socket diagnosis, and its files."""
    for name, text in {"tcp": TCP, "tcp6": TCP6_LINES, "udp": UDP}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(sockets, "PROC", str(tmp_path))
    told = {kind: [request.param] for kind in (TCP4, TCP6, UDP4, UDP6)}
    monkeypatch.setattr(sockets.socket, "socket", ToldDumps(told))
    return tmp_path


@LITTLE_ENDIAN
@pytest.mark.usefixtures("undiagnosed")
def test_the_files_tell_the_same() -> None:
    assert sockets.connections([VIP, VIP6, OTHER]) == {VIP: 5, VIP6: 1, OTHER: 0}
    assert sockets.listeners() == (
        Listening(Protocol.TCP, VIP, 80),
        Listening(Protocol.TCP, address("::"), 81, v6only=None),
        Listening(Protocol.UDP, address("0.0.0.0"), 53),
    )


def test_a_kernel_without_netlink_diagnosis_has_the_files(
    undiagnosed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> ToldSocket:
        raise OSError(errno.EPROTONOSUPPORT, "Protocol not supported")

    monkeypatch.setattr(sockets.socket, "socket", none)
    assert len(sockets.listeners()) == 3


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "   0: 0A0A0A:0050 00000000:0000 0A 0:0 0",
        "   0: 0A0A0A0A:0050 00000000:0000 0G 0:0 0",
        "   0: 000000FD000000000000000010000000:0051 00000000:0000 0A 0:0 0",
        "   0: 0A0A0A0A:0050 00000000:0000 0A",
    ],
    ids=["no line", "a short address", "no state", "an IPv6 address", "a line that ends too early"],
)
def test_a_line_that_no_kernel_writes_is_refused(undiagnosed: Path, line: str) -> None:
    (undiagnosed / "tcp").write_text(f"header\n{line}\n")
    with pytest.raises(sockets.MalformedLine, match="no socket can be read from the line"):
        sockets.listeners()
