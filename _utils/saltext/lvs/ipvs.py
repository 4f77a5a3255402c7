"""The kernel's IPVS over generic netlink: talk, read the table, change it.

A plain blocking socket for each operation, so it works in any thread, after any fork and on any
event loop. Names and numbers are those of ``linux/ip_vs.h``, ``linux/netlink.h`` and
``linux/genetlink.h``; what stands in the messages is ``wire.py``'s.
"""

from __future__ import annotations

import errno
import itertools
import os
import socket
import struct
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple

from saltext.lvs import locking, wire
from saltext.lvs import plan as planning
from saltext.lvs.errors import KeptElsewhere, KernelError, NotAvailable
from saltext.lvs.model import RealServerKey, VirtualServer, VirtualServerKey
from saltext.lvs.netlink import (
    NETLINK_CAP_ACK,
    NETLINK_GENERIC,
    NLA_TYPE_MASK,
    NLATTR,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    NLMSGHDR,
    RECEIVE_BYTES,
    SO_RCVBUFFORCE,
    SOL_NETLINK,
    MalformedMessage,
    attribute,
    attributes,
    error_number,
    messages,
    nested,
)
from saltext.lvs.plan import Action, Op, Servers
from saltext.lvs.table import Table
from saltext.lvs.wire import U16, Connections, Packed, PackedTable

# linux/genetlink.h
GENL_ID_CTRL = 16
CTRL_CMD_GETFAMILY = 3
CTRL_ATTR_FAMILY_ID = 1
CTRL_ATTR_FAMILY_NAME = 2

# linux/ip_vs.h
IPVS_GENL_NAME = b"IPVS\0"
IPVS_GENL_VERSION = 1
IPVS_CMD_NEW_SERVICE = 1
IPVS_CMD_SET_SERVICE = 2
IPVS_CMD_DEL_SERVICE = 3
IPVS_CMD_GET_SERVICE = 4
IPVS_CMD_NEW_DEST = 5
IPVS_CMD_SET_DEST = 6
IPVS_CMD_DEL_DEST = 7
IPVS_CMD_GET_DEST = 8
IPVS_CMD_ATTR_SERVICE = 1
IPVS_CMD_ATTR_DEST = 2

COMMANDS = {
    Action.ADD_VIRTUAL_SERVER: IPVS_CMD_NEW_SERVICE,
    Action.SET_VIRTUAL_SERVER: IPVS_CMD_SET_SERVICE,
    Action.DELETE_VIRTUAL_SERVER: IPVS_CMD_DEL_SERVICE,
    Action.ADD_REAL_SERVER: IPVS_CMD_NEW_DEST,
    Action.SET_REAL_SERVER: IPVS_CMD_SET_DEST,
    Action.DELETE_REAL_SERVER: IPVS_CMD_DEL_DEST,
}

# Answers that say "the table is not what you read": another writer was there, so plan again.
CONFLICTS = {
    Action.ADD_VIRTUAL_SERVER: {errno.EEXIST},
    Action.SET_VIRTUAL_SERVER: {errno.ESRCH},
    Action.DELETE_VIRTUAL_SERVER: {errno.ESRCH},
    Action.ADD_REAL_SERVER: {errno.EEXIST, errno.ESRCH},
    Action.SET_REAL_SERVER: {errno.ENOENT, errno.ESRCH},
    Action.DELETE_REAL_SERVER: {errno.ENOENT, errno.ESRCH},
}

# struct nlmsghdr and struct genlmsghdr in one
HEAD = struct.Struct("=LHHLLBBH")
GENLMSGHDR_BYTES = 4

# A batch well below the socket's send buffer (net.core.wmem_max is 208 KiB by default).
BATCH_BYTES = 120 * 1024
RECEIVE_BUFFER_BYTES = 4 << 20
SEND_BUFFER_BYTES = 1 << 20
# linux/../asm-generic/socket.h
SO_SNDBUFFORCE = 32
# The answers to so many questions fit into a receive buffer that could not be enlarged; beyond, one
# dump of all virtual servers costs less than asking for each.
ASKED_BY_NAME = 128
ATTEMPTS = 3
# Seconds before a list that came out torn is asked for again.
PAUSES = (0, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256)

# Of connections, packed: by the packed keys of a virtual server and a real server of it.
Counters = dict[bytes, dict[bytes, bytes]]

NOT_LOADED = "this kernel has no IPVS loaded; load it with: modprobe ip_vs"
LOCK = f"{locking.FOLDER}/ipvs"


# --------------------------------------------------------------------------------------------------
# Talk


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The IPVS table as read, and the connections that it carried at that moment.

    counters
        Packed, by the packed keys of virtual server and real server.

    settled
        Each virtual server, with its real servers, is as it was at one moment. False where another
        program changed the table all the while: then parts may be of different moments.
    """

    table: Table
    counters: Counters = field(default_factory=dict)
    settled: bool = True

    @property
    def connections(self) -> dict[tuple[VirtualServerKey, RealServerKey], Connections]:
        """The connections of each real server."""
        return {
            (wire.unpack_key(service), wire.unpack_real_key(real)): wire.unpack_counters(packed)
            for service, counts in self.counters.items()
            for real, packed in counts.items()
        }


class Client:
    """One conversation with the kernel's IPVS, in the network namespace of the calling thread.

    Use it as a context manager and for one operation: a socket that outlives a fork would be shared
    with the child.

    Raises :class:`NotAvailable` where the kernel has no IPVS, :class:`KernelError` where it
    refuses.
    """

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, NETLINK_GENERIC)
        self._sequence = 0
        self._usual: dict[int, bool] = {}
        self._in_parts: set[bytes] = set()
        try:
            self._enlarge()
            self._family = GENL_ID_CTRL
            self._family = self._find_family()
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def _enlarge(self) -> None:
        self._socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        for forced, plain, size in (
            (SO_RCVBUFFORCE, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES),
            (SO_SNDBUFFORCE, socket.SO_SNDBUF, SEND_BUFFER_BYTES),
        ):
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, forced, size)
            except PermissionError:
                self._socket.setsockopt(socket.SOL_SOCKET, plain, size)

    def _find_family(self) -> int:
        name = attribute(CTRL_ATTR_FAMILY_NAME, IPVS_GENL_NAME)
        try:
            for answer in self.ask(CTRL_CMD_GETFAMILY, NLM_F_ACK, name, "find IPVS"):
                found = dict(attributes(answer))
                if len(found.get(CTRL_ATTR_FAMILY_ID, b"")) == U16.size:
                    return int(U16.unpack(found[CTRL_ATTR_FAMILY_ID])[0])
        except KernelError as error:
            if error.number != errno.ENOENT:
                raise
        raise NotAvailable(NOT_LOADED)

    def ask(self, command: int, flags: int, payload: bytes, operation: str) -> list[bytes]:
        """Send one request, and return the attributes of each message of the answer.

        command
            IPVS_CMD_*.

        flags
            NLM_F_DUMP for what answers with a list, NLM_F_ACK for what would not answer otherwise.

        payload
            The request's attributes.

        operation
            What this is about, in words that end "cannot ...", for the error.

        Raises :class:`~saltext.lvs.errors.KernelError`.
        """
        self._request(command, flags, payload)
        answers: list[bytes] = []
        while True:
            for kind, _, sequence, data in messages(self._receive()):
                if sequence != self._sequence:
                    continue
                if kind in (NLMSG_ERROR, NLMSG_DONE):
                    _raise_for(data, operation)
                    return answers
                answers.append(data[GENLMSGHDR_BYTES:])

    def tell(self, command: int, payload: bytes) -> None:
        """Send one request and wait for no answer: the kernel has carried it out when this returns.

        An error is not seen, so what came of it has to be read.
        """
        self._request(command, 0, payload)

    def _request(self, command: int, flags: int, payload: bytes) -> None:
        self._sequence += 1
        self._send(self._head(command, flags, self._sequence, len(payload)) + payload)

    def _head(self, command: int, flags: int, sequence: int, size: int) -> bytes:
        return HEAD.pack(
            *(HEAD.size + size, self._family, NLM_F_REQUEST | flags, sequence, 0),
            *(command, IPVS_GENL_VERSION, 0),
        )

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise KernelError("tell the kernel's IPVS", error.errno or errno.EIO) from error

    def _receive(self) -> bytes:
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except OSError as error:
            raise KernelError("hear the kernel's IPVS", error.errno or errno.EIO) from error
        if len(data) < NLMSGHDR.size:
            raise MalformedMessage(f"a datagram of {len(data)} bytes is no netlink message")
        return data

    # -- read --------------------------------------------------------------------------------------

    def read(self, only: Collection[VirtualServerKey] | None = None) -> Snapshot:
        """Read the table, and once more where it changed meanwhile.

        only
            The virtual servers that matter; all of them by default.
        """
        services = None if only is None else [wire.pack_key(key) for key in only]
        for _ in range(ATTEMPTS):
            counters: Counters = {}
            packed = self.packed(services, counters=counters)
            settled = self.settled(packed, packed, counters) and (
                self._virtual_servers(services)
                == {key: held.settings for key, held in packed.items()}
            )
            if settled:
                break
        return Snapshot(Table(packed), counters, settled)

    def packed(
        self,
        services: Collection[bytes] | None = None,
        counters: Counters | None = None,
        expected: PackedTable | None = None,
    ) -> PackedTable:
        """Read the table, or some virtual servers of it by their packed keys.

        counters
            Takes the connection counters.

        expected
            What may well be there: a virtual server that reads the same is given as this very
            object, and its bytes are in memory once.
        """
        table: PackedTable = {}
        for key, own in self._virtual_servers(services).items():
            held = Packed(own, self._real_servers(key, counters))
            likely = expected.get(key) if expected else None
            table[key] = likely if likely == held else held
        return table

    def settled(
        self,
        table: PackedTable,
        services: Collection[bytes],
        counters: Counters | None = None,
    ) -> bool:
        """Whether those of *services* that were too long to be told in one moment read the same
        again; if not, they are put into the table as they are now.

        The kernel tells a long list in parts (32 KiB, or less where memory is short), and does not
        say when it changed between two.
        """
        same = True
        for key in services:
            held = table.get(key)
            if held and key in self._in_parts:
                again = self._real_servers(key, counters)
                same = same and again == held.real_servers
                table[key] = Packed(held.settings, again)
        return same

    def _virtual_servers(self, only: Collection[bytes] | None) -> dict[bytes, bytes]:
        """Settings by key."""
        if only is not None and len(only) <= ASKED_BY_NAME:
            return dict(_keys_and_settings(self._named(only)))
        for pause in PAUSES:
            time.sleep(pause)
            answers = self.ask(IPVS_CMD_GET_SERVICE, NLM_F_DUMP, b"", "list virtual servers")
            told = _keys_and_settings(answers)
            found = dict(told)
            # For some milliseconds after many were added, Linux 7 moves them to a larger hash
            # table, and a list in several parts repeats some and leaves out as many others.
            if len(found) == len(told):
                break
        return found if only is None else {key: found[key] for key in only if key in found}

    def _named(self, services: Collection[bytes]) -> list[bytes]:
        """What the kernel tells of those virtual servers that are there: asked all at once, each
        is answered by one message or by an error.
        """
        first = self._sequence + 1
        self._sequence += len(services)
        questions = []
        for sequence, key in enumerate(services, first):
            named = attribute(IPVS_CMD_ATTR_SERVICE, key)
            questions.append(self._head(IPVS_CMD_GET_SERVICE, 0, sequence, len(named)) + named)
        # The kernel refuses a datagram of nothing.
        if questions:
            self._send(b"".join(questions))
        answers: list[bytes] = []
        waiting = set(range(first, self._sequence + 1))
        while waiting:
            for kind, _, sequence, data in messages(self._receive()):
                if sequence not in waiting:
                    continue
                waiting.remove(sequence)
                if kind != NLMSG_ERROR:
                    answers.append(data[GENLMSGHDR_BYTES:])
                elif error_number(data) != errno.ESRCH:
                    _raise_for(data, "read a virtual server")
        return answers

    def _real_servers(self, service: bytes, counters: Counters | None) -> dict[bytes, bytes]:
        """Settings by key; of a virtual server that is not there none, as the kernel says it."""
        for _ in range(ATTEMPTS):
            found: dict[bytes, bytes] = {}
            counts: dict[bytes, bytes] = {}
            # One that comes while a list is being read can show another one twice.
            if self._dump_real_servers(service, found, counts) == len(found):
                break
        if counters is not None:
            counters[service] = counts
        return found

    def _dump_real_servers(
        self, service: bytes, found: dict[bytes, bytes], counts: dict[bytes, bytes]
    ) -> int:
        """Read a virtual server's real servers into *found*, and their connection counters into
        *counts*; returns how many were told.
        """
        self._request(IPVS_CMD_GET_DEST, NLM_F_DUMP, attribute(IPVS_CMD_ATTR_SERVICE, service))
        told = parts = 0
        while True:
            data = self._receive()
            length, kind, _, sequence, _ = NLMSGHDR.unpack_from(data)
            parts += kind == self._family
            if (
                kind == self._family
                and sequence == self._sequence
                and self._is_usual(data, length)
                and self._read_frames(data, length, found, counts)
            ):
                told += len(data) // length
                continue
            for kind, _, sequence, payload in messages(data):
                if sequence != self._sequence:
                    continue
                if kind in (NLMSG_ERROR, NLMSG_DONE):
                    _raise_for(payload, "list real servers of a virtual server")
                    if parts > 1:
                        self._in_parts.add(service)
                    return told
                if kind == self._family:
                    told += 1
                    self._read_message(payload[GENLMSGHDR_BYTES:], service, found, counts)

    def _is_usual(self, data: bytes, length: int) -> bool:
        """Whether a datagram is real servers in the usual form, all of one length."""
        if length not in self._usual:
            frame = data[:length]
            self._usual[length] = (
                length % 4 == 0
                and _is_nested(frame[HEAD.size :], IPVS_CMD_ATTR_DEST)
                and wire.is_usual(frame)
            )
        return self._usual[length] and len(data) % length == 0

    @staticmethod
    def _read_frames(
        data: bytes, length: int, found: dict[bytes, bytes], counts: dict[bytes, bytes]
    ) -> bool:
        """Read a datagram of real servers all of one length; False where something else is in it,
        and all of it has to be read again.
        """
        head = data[: wire.HEAD_BYTES]
        for own, address, settings, counters, family in wire.real_server_frames(length).iter_unpack(
            data
        ):
            if own != head:
                return False
            key = family + address
            found[key] = settings
            counts[key] = counters
        return True

    @staticmethod
    def _read_message(
        payload: bytes, service: bytes, found: dict[bytes, bytes], counts: dict[bytes, bytes]
    ) -> None:
        family = wire.FAMILY_NUMBERS[wire.family_of(service)]
        for data in nested(payload, IPVS_CMD_ATTR_DEST):
            key, settings, counters = wire.repack_real_server(data, family)
            found[key] = settings
            counts[key] = counters

    # -- write -------------------------------------------------------------------------------------

    def send(self, ops: Sequence[Op]) -> dict[int, int]:
        """Carry out operations in order, many to a batch, and return the error number of each that
        failed, by index.

        A failed operation does not stop those behind it: the kernel takes each message by itself.
        """
        failed: dict[int, int] = {}
        start = 0
        while start < len(ops):
            first = self._sequence + 1
            batch = self._batch(ops, start)
            self._send(b"".join(batch))
            last = self._sequence
            for sequence, error in self._until_acknowledged(last):
                if error and first <= sequence <= last:
                    failed[start + sequence - first] = error
            start += last - first + 1
        return failed

    def _batch(self, ops: Sequence[Op], start: int) -> list[bytes]:
        """The messages of as many operations as go into one batch: head, attributes, head, ..."""
        family, sequence = self._family, self._sequence
        parts: list[bytes] = []
        size = 0
        # What the last one had in common with the one before need not be looked up again.
        service, named, action, command = b"", b"", None, 0
        for op in itertools.islice(ops, start, None):
            if op.service is not service:
                service, named = op.service, attribute(IPVS_CMD_ATTR_SERVICE, op.service)
            payload = _attributes_of(op, named)
            length = HEAD.size + len(payload)
            size += length
            if size > BATCH_BYTES and parts:
                break
            # Only now: the last one's command is written once more below.
            if op.action is not action:
                action, command = op.action, COMMANDS[op.action]
            sequence += 1
            parts += (
                HEAD.pack(
                    length, family, NLM_F_REQUEST, sequence, 0, command, IPVS_GENL_VERSION, 0
                ),
                payload,
            )
        # Errors are always told; that the rest went well needs telling only once.
        parts[-2] = self._head(command, NLM_F_ACK, sequence, len(parts[-1]))
        self._sequence = sequence
        return parts

    def _until_acknowledged(self, last: int) -> Iterator[tuple[int, int]]:
        while True:
            for kind, _, sequence, payload in messages(self._receive()):
                if kind == NLMSG_ERROR:
                    yield sequence, error_number(payload)
                    if sequence == last:
                        return


_WHOLE_REAL_SERVER = NLATTR.pack(
    NLATTR.size + wire.REAL_KEY_BYTES + wire.REAL_SETTINGS_BYTES, IPVS_CMD_ATTR_DEST
)
_REAL_SERVER_KEY = NLATTR.pack(NLATTR.size + wire.REAL_KEY_BYTES, IPVS_CMD_ATTR_DEST)


def _attributes_of(op: Op, named: bytes) -> bytes:
    """The attributes of an operation's message; *named* is its virtual server's nested key."""
    if op.real:
        if op.now:
            return named + _WHOLE_REAL_SERVER + op.real + op.now
        return named + _REAL_SERVER_KEY + op.real
    return attribute(IPVS_CMD_ATTR_SERVICE, op.service + op.now)


def _keys_and_settings(answers: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
    """The virtual servers that the kernel told, in its order."""
    reader = wire.VirtualServerReader()
    found = []
    for answer in answers:
        if _is_nested(answer, IPVS_CMD_ATTR_SERVICE):
            found.append(reader.read(answer[NLATTR.size :]))
        else:
            found += map(reader.read, nested(answer, IPVS_CMD_ATTR_SERVICE))
    return found


def _is_nested(answer: bytes, kind: int) -> bool:
    """Whether an answer is one nested attribute of that kind, and nothing else."""
    if len(answer) < NLATTR.size:
        return False
    length, found = NLATTR.unpack_from(answer)
    return bool(found & NLA_TYPE_MASK == kind and length == len(answer))


def _raise_for(data: bytes, operation: str) -> None:
    number = error_number(data) if data else 0
    if number:
        raise KernelError(operation, number, _hint(number))


def _hint(number: int) -> str:
    return "this needs root (CAP_NET_ADMIN)" if number == errno.EPERM else ""


# --------------------------------------------------------------------------------------------------
# Converge


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an apply did.

    ops
        The difference between the table before and after, as operations: what really changed.

    table
        The whole table: what was touched as read at the end, the rest as read before. Of an edit
        just the one virtual server.

    left
        Operations that are still missing: another writer works against us.
    """

    ops: tuple[Op, ...]
    table: Table
    left: tuple[Op, ...] = ()


def loaded() -> bool:
    """Whether the kernel has IPVS loaded; to ask IPVS itself would load it."""
    return os.path.exists("/proc/thread-self/net/ip_vs")


def expect_loaded() -> None:
    """Raise :class:`~saltext.lvs.errors.NotAvailable` unless the kernel has IPVS loaded."""
    if not loaded():
        raise NotAvailable(NOT_LOADED)


def client() -> Client:
    """A conversation with IPVS where it is loaded; nothing is loaded for it.

    Raises :class:`~saltext.lvs.errors.NotAvailable`.
    """
    expect_loaded()
    return Client()


def read(only: Collection[VirtualServerKey] | None = None) -> Snapshot:
    """Read the kernel's table, or some virtual servers of it, and load nothing for it."""
    with client() as kernel:
        return kernel.read(only)


def apply(
    desired: Servers,
    purge: bool = False,
    leave: Collection[VirtualServerKey] = (),
    absent: Collection[VirtualServerKey] = (),
    verify: bool = True,
    adjust: Callable[[Table], Servers] | None = None,
) -> Outcome:
    """Make the kernel's table hold *desired*: read, plan, act, and read again.

    Writers of this library take turns. Where the table changes under the plan by another hand it is
    planned again, three times at most, and what is missing then is returned as ``left``.

    desired, purge, leave, absent
        As for :func:`saltext.lvs.plan.plan`.

    verify
        Read back what was touched. Without, the kernel's acknowledgements are believed: then a
        foreign writer in between is not seen.

    adjust
        Gets the table as it is, while no other writer of this library can change it, and returns
        what is desired in place of *desired*; what it raises comes out.

    Raises :class:`KernelError` for an operation that the kernel refuses; the others have been
    carried out, and the next apply completes it.
    """
    goal = _Goal(
        Table.from_mapping(desired).packed,
        purge,
        frozenset(map(wire.pack_key, leave)),
        frozenset(map(wire.pack_key, absent)),
    )
    with locking.exclusive(LOCK), Client() as kernel:
        before = kernel.packed(expected=goal.desired)
        if adjust is not None:
            adjusted = Table.from_mapping(adjust(Table(before)))
            goal = goal._replace(desired=adjusted.packed)
        ops = goal.missing(before)
        if ops and not kernel.settled(before, {op.service for op in ops}):
            ops = goal.missing(before)
        return _carried_out(kernel, goal, before, ops, verify)


class _Goal(NamedTuple):
    """What an apply is to reach: the arguments of a plan."""

    desired: PackedTable
    purge: bool
    leave: Collection[bytes]
    absent: Collection[bytes]

    def missing(self, now: PackedTable, about: Collection[bytes] | None = None) -> tuple[Op, ...]:
        """What is to be done yet, or what of it concerns some virtual servers."""
        if about is None:
            return planning.plan_packed(now, *self)
        return planning.plan_packed(_within(about, now), _within(about, self.desired), *self[1:])


def edit(
    key: VirtualServerKey,
    change: Callable[[VirtualServer | None], VirtualServer | None],
    leave: Collection[VirtualServerKey] = (),
) -> Outcome:
    """Change one virtual server, and nothing else of the table.

    change
        Gets it as it is, or None where it is not there, and returns it as it shall be, or None
        where it shall not be there. Called again when another writer was in between, three times at
        most; what it raises comes out.

    leave
        Virtual servers that somebody else keeps.

    Raises :class:`~saltext.lvs.errors.KeptElsewhere`, and what :func:`apply` does.
    """
    if key in leave:
        raise KeptElsewhere.virtual_server(str(key))
    service = wire.pack_key(key)

    with locking.exclusive(LOCK), Client() as kernel:
        before = now = kernel.packed([service])
        kernel.settled(now, now)
        for _ in range(ATTEMPTS):
            changed = change(Table(now).get(key))
            wanted = Table.of([] if changed is None else [changed]).packed
            ops = planning.plan_packed(now, wanted, purge=True)
            if not ops:
                break
            failed = kernel.send(ops)
            _refuse(ops, failed)
            now = kernel.packed([service])
            ops = planning.plan_packed(now, wanted, purge=True)
            # Where the kernel took everything, a difference came after it, and is for the caller
            # to judge; a conflict came before.
            if not failed:
                break
        return Outcome(planning.plan_packed(before, now, purge=True), Table(now), ops)


def _carried_out(
    kernel: Client, goal: _Goal, before: PackedTable, ops: tuple[Op, ...], verify: bool
) -> Outcome:
    """Send operations until nothing is missing, but not for ever."""
    first, now, touched, undisturbed = ops, dict(before), dict[bytes, None](), True
    for _ in range(ATTEMPTS):
        if not ops:
            break
        failed = kernel.send(ops)
        _refuse(ops, failed)
        if not (verify or failed):
            return Outcome(ops, Table(now))
        touched.update(dict.fromkeys(op.service for op in ops))
        _update(now, touched, kernel.packed(touched, expected=goal.desired))
        ops = goal.missing(now, touched)
        undisturbed = undisturbed and not failed and not ops
    if undisturbed:
        return Outcome(first, Table(now))
    done = planning.plan_packed(_within(touched, before), _within(touched, now), purge=True)
    return Outcome(done, Table(now), ops)


def _update(table: PackedTable, touched: Collection[bytes], read: PackedTable) -> None:
    """Put what was read again into a table; what is not there any more goes."""
    for key in touched:
        if key in read:
            table[key] = read[key]
        else:
            table.pop(key, None)


def _within(about: Collection[bytes], table: PackedTable) -> PackedTable:
    """The part of a table that an apply was about: what another hand did elsewhere is not its
    doing.
    """
    return {key: table[key] for key in about if key in table}


def _refuse(ops: Sequence[Op], failed: dict[int, int]) -> None:
    """Raise for the first real refusal; a sign of another writer is no refusal."""
    real = {i: number for i, number in failed.items() if number not in CONFLICTS[ops[i].action]}
    if not real:
        return
    index = min(real)
    op, number = ops[index], real[index]
    carried_out = f"{len(ops) - len(failed)} of {len(ops)} operations were carried out"
    done = f"{carried_out}; the next apply completes them"
    hint = _refusal(op, number)
    raise KernelError(str(op), number, f"{hint}; {done}" if hint else done)


def _refusal(op: Op, number: int) -> str:
    """What the kernel may mean; it does not say more than a number."""
    after = op.after()
    if number == errno.ENOENT and isinstance(after, VirtualServer):
        engine = after.persistence_engine
        pe = f" ip_vs_pe_{engine}" if engine else ""
        return f"is the scheduler there? modprobe -a ip_vs_{after.scheduler}{pe}"
    if number == errno.EINVAL and op.real:
        return (
            "the kernel takes unicast addresses only, the virtual server's address family unless "
            "forward is tunnel, and needs an address of its own"
        )
    return _hint(number)
