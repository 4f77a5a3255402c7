"""The conversation with the kernel when it is not one: damaged, repeated, endless and silent
answers, from a socket that says what it was told to say.
"""

from __future__ import annotations

import contextlib
import errno
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from saltext.lvs import ipvs, netlink, plan, wire
from saltext.lvs.errors import KernelError, LvsError
from saltext.lvs.model import RealServer, VirtualServer
from saltext.lvs.table import Table

from tests.unit.tables import real_server, table, tables, virtual_server, virtual_servers

CONTROL, FAMILY = 16, 0x1F
ERROR, DONE = 2, 3
ACKNOWLEDGE = 4
# The family lookup is the first request of a client, so what a test asks begins with the second.
FIRST = 2
HEADER = struct.Struct("=LHHLLBBH")


def message(kind: int, sequence: int, payload: bytes, flags: int = 0) -> bytes:
    """struct nlmsghdr of linux/netlink.h, and what follows."""
    padding = b"\0" * (-len(payload) % 4)
    return struct.pack("=LHHLL", 16 + len(payload), kind, flags, sequence, 99) + payload + padding


def told(payload: bytes, sequence: int = FIRST, command: int = 1) -> bytes:
    """An answer of IPVS, behind struct genlmsghdr."""
    return message(FAMILY, sequence, struct.pack("=BBH", command, 1, 0) + payload)


def error(number: int, sequence: int = FIRST) -> bytes:
    """NLMSG_ERROR with an error number; 0 is the acknowledgement."""
    return message(ERROR, sequence, struct.pack("=i", -number) + bytes(16))


def done(sequence: int = FIRST) -> bytes:
    return message(DONE, sequence, bytes(4))


FAMILY_FOUND = (
    message(CONTROL, 1, struct.pack("=BBH", 1, 2, 0) + netlink.attribute(1, b"\x1f\0")),
    error(0, sequence=1),
)


class Silent(OSError):
    """The client waits, and nothing will come."""

    def __init__(self) -> None:
        super().__init__(errno.EAGAIN, "nothing will come")


WAITED = "cannot hear the kernel's IPVS"


class ToldSocket:
    """A netlink socket that answers with these datagrams, and then no more; it acknowledges if it
    is obedient.
    """

    def __init__(self, datagrams: Iterable[bytes] = (), obedient: bool = False) -> None:
        self.answers = [*FAMILY_FOUND, *datagrams]
        self.obedient = obedient
        self.sent: list[bytes] = []

    def __call__(self, *_: object) -> ToldSocket:
        return self

    def setsockopt(self, *_: object) -> None:
        """Like any other."""

    def close(self) -> None:
        """Like any other."""

    def sendall(self, data: bytes) -> None:
        self.sent.append(data)
        if self.obedient:
            self.answers += [
                error(0, sequence)
                for _, flags, sequence, _, _ in split(data)
                if flags & ACKNOWLEDGE and len(self.sent) > 1
            ]

    def recv(self, _: int) -> bytes:
        if not self.answers:
            raise Silent
        return self.answers.pop(0)


def split(data: bytes) -> Iterator[tuple[int, int, int, int, bytes]]:
    """The messages that a client sent: type, flags, sequence, command, attributes."""
    while data:
        length, kind, flags, sequence, _, command, _, _ = HEADER.unpack_from(data)
        yield kind, flags, sequence, command, data[HEADER.size : length]
        data = data[length:]


@contextlib.contextmanager
def client(speaks: ToldSocket) -> Iterator[ipvs.Client]:
    """A client on such a socket."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ipvs.socket, "socket", speaks)
        opened = ipvs.Client()
    with opened:
        yield opened


WEB = virtual_server(
    "tcp 10.10.10.10:80",
    *(real_server(f"10.10.10.{41 + number}:80", number) for number in range(4)),
)
SERVICE = wire.pack_key(WEB.key)


def service_told(server: VirtualServer, sequence: int = FIRST) -> bytes:
    """A virtual server as the kernel tells it, with its statistics."""
    packed = (
        wire.pack_key(server.key) + wire.pack_settings(server) + netlink.attribute(10, bytes(8))
    )
    return told(netlink.attribute(1, packed), sequence)


def real_server_told(server: RealServer, sequence: int = FIRST) -> bytes:
    """A real server as Linux tells it from 5.3 on: its address family comes last but statistics."""
    packed = wire.pack_real_key(server.key)
    counters = b"".join(netlink.attribute(kind, bytes(4)) for kind in (7, 8, 9))
    attributes = packed[8:] + wire.pack_real_settings(server) + counters + packed[:8]
    return told(netlink.attribute(2, attributes + netlink.attribute(10, bytes(8))), sequence, 5)


def conversation(server: VirtualServer) -> list[bytes]:
    """What the kernel answers to one who reads the table of this virtual server."""
    parts = [real_server_told(real, FIRST + 1) for real in server.real_servers]
    return [
        service_told(server),
        done(),
        *(b"".join(parts[start : start + 3]) for start in range(0, len(parts), 3)),
        done(FIRST + 1),
    ]


def test_a_sound_conversation_is_understood() -> None:
    with client(ToldSocket(conversation(WEB))) as kernel:
        assert Table(kernel.packed()) == table(WEB)


RS = WEB.real_servers[1]
OTHERS = table(virtual_server("tcp 10.10.10.10:80", RS))
DESTINATION = real_server_told(RS)
DAMAGED: dict[str, tuple[list[bytes], type[Exception], str]] = {
    "silence": ([], KernelError, WAITED),
    "an empty datagram": (
        [b""],
        netlink.MalformedMessage,
        "a datagram of 0 bytes is no netlink message",
    ),
    "datagrams shorter than a header": (
        [DESTINATION[:9]] * 1000,
        netlink.MalformedMessage,
        "a datagram of 9 bytes is no netlink message",
    ),
    "a message of no length": (
        [struct.pack("=LHHLL", 0, FAMILY, 0, FIRST, 0), done()],
        netlink.MalformedMessage,
        "a netlink message of 0 bytes does not fit its datagram",
    ),
    "a message of no length that ends a list": (
        [struct.pack("=LHHLL", 0, DONE, 0, FIRST, 0)],
        netlink.MalformedMessage,
        "a netlink message of 0 bytes does not fit its datagram",
    ),
    "a message longer than its datagram": (
        [DESTINATION[:-4], done()],
        netlink.MalformedMessage,
        "does not fit its datagram",
    ),
    "a list that does not end": ([DESTINATION] * 1000, KernelError, WAITED),
    "the end of another list": ([DESTINATION, done(FIRST + 7)], KernelError, WAITED),
    "an error of another request": ([error(errno.EPERM, FIRST - 1)], KernelError, WAITED),
    "an error without its number": (
        [message(ERROR, FIRST, b"\xff")],
        netlink.MalformedMessage,
        "a netlink error without its number",
    ),
    "an error at the end of a list": (
        [message(DONE, FIRST, struct.pack("=i", -errno.EPERM))],
        KernelError,
        r"Operation not permitted \(EPERM\); this needs root \(CAP_NET_ADMIN\)",
    ),
    "an error number that nobody knows": ([error(4000)], KernelError, r"\(4000\)"),
    "an error number that none can be": (
        [error(2**31)],
        netlink.MalformedMessage,
        "a netlink error with the number 2147483648",
    ),
    "a success that is none": (
        [error(-1)],
        netlink.MalformedMessage,
        "a netlink error with the number -1",
    ),
    "a real server cut off within": (
        [told(netlink.attribute(2, DESTINATION[24:-22]), command=5), done()],
        netlink.MalformedMessage,
        "a netlink attribute of 8 bytes does not fit its message",
    ),
}


@pytest.mark.parametrize(("datagrams", "kind", "words"), DAMAGED.values(), ids=DAMAGED.keys())
def test_a_list_of_real_servers_that_is_damaged_is_refused_and_never_waited_out(
    datagrams: list[bytes], kind: type[Exception], words: str
) -> None:
    with client(ToldSocket(datagrams)) as kernel, pytest.raises(kind, match=words):
        kernel._real_servers(SERVICE, None)


AGAIN = [real_server_told(RS, FIRST + 1), done(FIRST + 1)]
HARMLESS = {
    "one that is told twice, and once when asked again": [DESTINATION, DESTINATION, done(), *AGAIN],
    "one that is told twice in a datagram": [DESTINATION * 2 + done(), *AGAIN],
    "an answer to an older request": [error(errno.EPERM, 1), DESTINATION, done()],
    "another family's message": [
        DESTINATION + message(CONTROL, FIRST, DESTINATION[16:]),
        message(CONTROL, FIRST, DESTINATION[16:]),
        done(),
    ],
    "an attribute that nobody knows": [
        told(netlink.attribute(77, b"new") + DESTINATION[20:], command=5),
        done(),
    ],
    "a longer end": [DESTINATION, message(DONE, FIRST, bytes(40))],
    "an end without a number": [DESTINATION, message(DONE, FIRST, b"")],
    "an end in the same datagram": [DESTINATION + done()],
}


@pytest.mark.parametrize("datagrams", HARMLESS.values(), ids=HARMLESS.keys())
def test_what_does_no_harm_is_passed_over(datagrams: list[bytes]) -> None:
    with client(ToldSocket(datagrams)) as kernel:
        found = kernel._real_servers(SERVICE, None)
    assert Table({SERVICE: wire.Packed(wire.pack_settings(WEB), found)}) == OTHERS


def test_real_servers_need_not_have_the_same_flags() -> None:
    first, second = (real_server_told(real) for real in WEB.real_servers[:2])
    flagged = second[:6] + struct.pack("=H", 0x12) + second[8:]
    with client(ToldSocket([first + flagged, done()])) as kernel:
        found = kernel._real_servers(SERVICE, None)
    assert found == {
        wire.pack_real_key(real.key): wire.pack_real_settings(real) for real in WEB.real_servers[:2]
    }


def test_virtual_servers_may_be_told_with_what_nobody_knows() -> None:
    unknown = netlink.attribute(77, b"new")
    for payload in (unknown + service_told(WEB)[20:], service_told(WEB)[20:] + unknown):
        with client(ToldSocket([told(payload), done()])) as kernel:
            assert kernel._virtual_servers(None) == {SERVICE: wire.pack_settings(WEB)}


NO_FAMILY: dict[str, tuple[list[bytes], type[Exception], str]] = {
    "an answer without a number": (
        [message(CONTROL, 1, struct.pack("=BBH", 1, 2, 0)), error(0, 1)],
        LvsError,
        "no IPVS loaded",
    ),
    "a number of one byte": (
        [message(CONTROL, 1, bytes(4) + netlink.attribute(1, b"\x1f")), error(0, 1)],
        LvsError,
        "no IPVS loaded",
    ),
    "no such family": ([error(errno.ENOENT, 1)], LvsError, "no IPVS loaded"),
    "another error": ([error(errno.EIO, 1)], KernelError, r"cannot find IPVS: .* \(EIO\)"),
    "nothing": ([], KernelError, WAITED),
}


@pytest.mark.parametrize(("datagrams", "kind", "words"), NO_FAMILY.values(), ids=NO_FAMILY.keys())
def test_where_ipvs_cannot_be_found_no_socket_stays_open(
    datagrams: list[bytes], kind: type[Exception], words: str
) -> None:
    closed = []
    speaks = ToldSocket()
    speaks.answers = list(datagrams)
    speaks.close = lambda: closed.append(True)  # type: ignore[method-assign]
    with pytest.raises(kind, match=words), client(speaks):
        pass
    assert closed == [True]


# --------------------------------------------------------------------------------------------------
# Anything at all


@st.composite
def hostile(draw: st.DrawFn) -> list[bytes]:
    """A conversation, with some of it cut, changed, repeated, left out, or in another order."""
    datagrams = conversation(draw(virtual_servers()))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(datagrams) - 1))
        data = bytearray(datagrams[at])
        act = draw(st.sampled_from(["cut", "change", "repeat", "drop", "swap", "join", "invent"]))
        if act == "cut":
            datagrams[at] = bytes(data[: draw(st.integers(0, len(data)))])
        elif act == "change" and data:
            for _ in range(draw(st.integers(1, 4))):
                data[draw(st.integers(0, min(len(data) - 1, 80)))] = draw(
                    st.sampled_from([0, 1, 2, 3, 4, 15, 16, 24, 127, 255])
                )
            datagrams[at] = bytes(data)
        elif act == "repeat":
            datagrams[at:at] = [bytes(data)] * draw(st.integers(1, 3))
        elif act == "drop" and len(datagrams) > 1:
            del datagrams[at]
        elif act == "swap":
            datagrams[at], datagrams[0] = datagrams[0], datagrams[at]
        elif act == "join":
            datagrams[at : at + 2] = [b"".join(datagrams[at : at + 2])]
        else:
            datagrams.insert(at, draw(st.binary(max_size=64)))
    return datagrams


READERS: dict[str, Callable[[ipvs.Client], object]] = {
    "the whole table": lambda kernel: kernel.read().connections,
    "one virtual server": lambda kernel: kernel.packed([SERVICE]),
    "any answer": lambda kernel: kernel.ask(4, netlink.NLM_F_DUMP, b"", "ask"),
    "acknowledgements": lambda kernel: kernel.send(plan.plan({}, table(WEB))),
}


@pytest.mark.timeout(120)
@settings(max_examples=1000, deadline=2000)
@given(hostile(), st.sampled_from(sorted(READERS)))
def test_any_answers_are_read_refused_or_waited_for(datagrams: list[bytes], reader: str) -> None:
    with client(ToldSocket(datagrams)) as kernel, contextlib.suppress(LvsError):
        READERS[reader](kernel)


# --------------------------------------------------------------------------------------------------
# What is sent


def sent(ops: Sequence[plan.Op]) -> list[list[tuple[int, int, int, int, bytes]]]:
    """The batches in which operations go out, each a list of messages."""
    speaks = ToldSocket(obedient=True)
    with client(speaks) as kernel:
        assert kernel.send(ops) == {}
    return [list(split(batch)) for batch in speaks.sent[1:]]


def in_batches(size: int, ops: Sequence[plan.Op]) -> list[list[tuple[int, int, int, int, bytes]]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ipvs, "BATCH_BYTES", size)
        return sent(ops)


@given(tables, tables, st.integers(1, 2000))
def test_wherever_a_batch_ends_each_operation_is_what_it_is_alone(
    current: Table, desired: Table, size: int
) -> None:
    ops = plan.plan(current, desired, purge=True)
    batches = in_batches(size, ops)
    alone = in_batches(1, ops)
    assert [len(batch) for batch in alone] == [1] * len(ops)
    assert [(kind, number, command, payload)
            for batch in batches for kind, _, number, command, payload in batch] == [
        (kind, number, command, payload)
        for batch in alone for kind, _, number, command, payload in batch
    ]  # fmt: skip
    assert [command for batch in alone for _, _, _, command, _ in batch] == [
        ipvs.COMMANDS[op.action] for op in ops
    ]
    for batch in batches:
        flags = [flags for _, flags, _, _, _ in batch]
        assert flags == [1] * (len(batch) - 1) + [1 | ACKNOWLEDGE]


def test_a_batch_of_one_virtual_server_after_another_ends_between_two_of_them() -> None:
    servers = [virtual_server(f"tcp 10.20.0.{number}:80", RS) for number in range(200)]
    ops = plan.plan({}, table(*servers))
    batches = in_batches(4000, ops)
    assert len(batches) > 5
    commands = [command for batch in batches for _, _, _, command, _ in batch]
    assert commands == [ipvs.IPVS_CMD_NEW_SERVICE, ipvs.IPVS_CMD_NEW_DEST] * 200


def test_errors_are_told_by_the_operation_that_they_are_about() -> None:
    ops = plan.plan({}, table(WEB))
    speaks = ToldSocket([error(errno.EEXIST, FIRST + 1) + error(errno.ESRCH, FIRST + 3),
                         error(errno.EEXIST, 1), error(0, FIRST + 4)])  # fmt: skip
    with client(speaks) as kernel:
        assert kernel.send(ops) == {1: errno.EEXIST, 3: errno.ESRCH}


def test_a_message_that_cannot_be_sent_is_an_error_of_the_kernels() -> None:
    speaks = ToldSocket()

    def refuse(_: bytes) -> None:
        raise OSError(errno.ENOBUFS, "no buffer space")

    with client(speaks) as kernel:
        speaks.sendall = refuse  # type: ignore[method-assign]
        for act in (kernel.packed, kernel.read, lambda: kernel.send(plan.plan({}, table(WEB)))):
            with pytest.raises(KernelError, match=r"cannot tell the kernel's IPVS: .*ENOBUFS"):
                act()
