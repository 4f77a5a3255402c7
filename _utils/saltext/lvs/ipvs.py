"""The kernel's IPVS table over generic netlink: encode, decode, talk.

A plain blocking socket for each operation, so it works in any thread, after any fork and on any
event loop. Names and numbers are those of ``linux/ip_vs.h``, ``linux/netlink.h`` and
``linux/genetlink.h``. Encoding never reads, decoding never writes; an attribute that a newer kernel
adds is passed over.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType

from saltext.lvs import locking
from saltext.lvs import plan as planning
from saltext.lvs.errors import KernelError, NotAvailable
from saltext.lvs.model import (
    Address,
    Forward,
    Protocol,
    RealServer,
    RealServerKey,
    VirtualServer,
    VirtualServerKey,
)
from saltext.lvs.netlink import (
    NETLINK_CAP_ACK,
    NETLINK_GENERIC,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    NLMSGHDR,
    RECEIVE_BYTES,
    SO_RCVBUFFORCE,
    SOL_NETLINK,
    U32,
    MalformedMessage,
    attribute,
    attributes,
    error_number,
    messages,
)
from saltext.lvs.plan import Action, Op, Table

# --------------------------------------------------------------------------------------------------
# Numbers

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
IPVS_SVC_ATTR_AF = 1
IPVS_SVC_ATTR_PROTOCOL = 2
IPVS_SVC_ATTR_ADDR = 3
IPVS_SVC_ATTR_PORT = 4
IPVS_SVC_ATTR_FWMARK = 5
IPVS_SVC_ATTR_SCHED_NAME = 6
IPVS_SVC_ATTR_FLAGS = 7
IPVS_SVC_ATTR_TIMEOUT = 8
IPVS_SVC_ATTR_NETMASK = 9
IPVS_SVC_ATTR_PE_NAME = 11
IPVS_DEST_ATTR_ADDR = 1
IPVS_DEST_ATTR_PORT = 2
IPVS_DEST_ATTR_FWD_METHOD = 3
IPVS_DEST_ATTR_WEIGHT = 4
IPVS_DEST_ATTR_U_THRESH = 5
IPVS_DEST_ATTR_L_THRESH = 6
IPVS_DEST_ATTR_ACTIVE_CONNS = 7
IPVS_DEST_ATTR_INACT_CONNS = 8
IPVS_DEST_ATTR_PERSIST_CONNS = 9
IPVS_DEST_ATTR_ADDR_FAMILY = 11
IP_VS_SVC_F_PERSISTENT = 0x1
IP_VS_SVC_F_ONEPACKET = 0x4
IP_VS_SVC_F_SCHED = 0x38
IP_VS_CONN_F_FWD_MASK = 0x7

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

PROTOCOL_NUMBERS = {
    Protocol.TCP: socket.IPPROTO_TCP,
    Protocol.UDP: socket.IPPROTO_UDP,
    Protocol.SCTP: socket.IPPROTO_SCTP,
}
PROTOCOLS = {int(number): protocol for protocol, number in PROTOCOL_NUMBERS.items()}
FAMILY_NUMBERS = {4: socket.AF_INET, 6: socket.AF_INET6}
FAMILIES = {int(number): family for family, number in FAMILY_NUMBERS.items()}
# IP_VS_CONN_F_MASQ, _LOCALNODE, _TUNNEL and _DROUTE
FORWARD_NUMBERS = {Forward.MASQ: 0, Forward.LOCAL: 1, Forward.TUNNEL: 2, Forward.DIRECT: 3}
FORWARDS = {number: forward for forward, number in FORWARD_NUMBERS.items()}

GENLMSGHDR = struct.Struct("=BBH")
U16 = struct.Struct("=H")
BE16 = struct.Struct("!H")
FLAGS = struct.Struct("=LL")

# A batch well below the socket's send buffer (net.core.wmem_max is 208 KiB by default).
BATCH_BYTES = 96 * 1024
RECEIVE_BUFFER_BYTES = 4 << 20
# A dump is cut into parts of 32 KiB; only a virtual server within one part is read in one moment.
REAL_SERVERS_READ_AT_ONCE = 91
ATTEMPTS = 3
NOT_LOADED = "this kernel has no IPVS loaded; load it with: modprobe ip_vs"
LOCK = f"{locking.FOLDER}/ipvs"


# --------------------------------------------------------------------------------------------------
# Encode


def encode_virtual_server_key(key: VirtualServerKey) -> bytes:
    """The attributes by which the kernel finds a virtual server."""
    family = attribute(IPVS_SVC_ATTR_AF, U16.pack(FAMILY_NUMBERS[key.family]))
    if key.protocol is None or key.address is None:
        return family + attribute(IPVS_SVC_ATTR_FWMARK, U32.pack(key.fwmark))
    return (
        family
        + attribute(IPVS_SVC_ATTR_PROTOCOL, U16.pack(PROTOCOL_NUMBERS[key.protocol]))
        + attribute(IPVS_SVC_ATTR_ADDR, encode_address(key.address))
        + attribute(IPVS_SVC_ATTR_PORT, BE16.pack(key.port))
    )


def encode_virtual_server(server: VirtualServer) -> bytes:
    """All attributes of a virtual server: a SET resets what it leaves out to its default."""
    flags = server.scheduler_flags & IP_VS_SVC_F_SCHED
    if server.persistence:
        flags |= IP_VS_SVC_F_PERSISTENT
    if server.one_packet:
        flags |= IP_VS_SVC_F_ONEPACKET
    encoded = (
        encode_virtual_server_key(server.key)
        + attribute(IPVS_SVC_ATTR_SCHED_NAME, server.scheduler.encode() + b"\0")
        + attribute(IPVS_SVC_ATTR_FLAGS, FLAGS.pack(flags, 0xFFFFFFFF))
        + attribute(IPVS_SVC_ATTR_TIMEOUT, U32.pack(server.persistence))
        + attribute(IPVS_SVC_ATTR_NETMASK, encode_netmask(server))
    )
    if server.persistence_engine:
        encoded += attribute(IPVS_SVC_ATTR_PE_NAME, server.persistence_engine.encode() + b"\0")
    return encoded


def encode_real_server(server: RealServer) -> bytes:
    """All attributes of a real server."""
    family = FAMILY_NUMBERS[server.key.address.version]
    return (
        attribute(IPVS_DEST_ATTR_ADDR, encode_address(server.key.address))
        + attribute(IPVS_DEST_ATTR_PORT, BE16.pack(server.key.port))
        + attribute(IPVS_DEST_ATTR_FWD_METHOD, U32.pack(FORWARD_NUMBERS[server.forward]))
        + attribute(IPVS_DEST_ATTR_WEIGHT, U32.pack(server.weight))
        + attribute(IPVS_DEST_ATTR_U_THRESH, U32.pack(server.upper_threshold))
        + attribute(IPVS_DEST_ATTR_L_THRESH, U32.pack(server.lower_threshold))
        + attribute(IPVS_DEST_ATTR_ADDR_FAMILY, U16.pack(family))
    )


def encode_address(address: Address) -> bytes:
    """The kernel's union nf_inet_addr: 16 bytes, of which IPv4 uses the first four."""
    return address.packed.ljust(16, b"\0")


def encode_netmask(server: VirtualServer) -> bytes:
    """An address mask for IPv4, but a prefix length in host order for IPv6."""
    if server.key.family == 6:
        return U32.pack(server.netmask)
    return ipaddress.IPv4Network((0, server.netmask)).netmask.packed


def encode_op(op: Op) -> bytes:
    """The attributes of one operation's message."""
    if op.real_server is None:
        whole = op.action is not Action.DELETE_VIRTUAL_SERVER
        server = op.virtual_server
        encoded = encode_virtual_server(server) if whole else encode_virtual_server_key(server.key)
        return attribute(IPVS_CMD_ATTR_SERVICE, encoded)
    return attribute(
        IPVS_CMD_ATTR_SERVICE, encode_virtual_server_key(op.virtual_server.key)
    ) + attribute(IPVS_CMD_ATTR_DEST, encode_real_server(op.real_server))


# --------------------------------------------------------------------------------------------------
# Decode


def decode_virtual_server(data: bytes) -> VirtualServer:
    """A virtual server, without its real servers, from the attributes of IPVS_CMD_ATTR_SERVICE."""
    found = dict(attributes(data))
    family = FAMILIES.get(_number(U16, found, IPVS_SVC_ATTR_AF))
    if family is None:
        raise MalformedMessage("a virtual server of no known address family")
    flags = _number(FLAGS, found, IPVS_SVC_ATTR_FLAGS)
    persistent = bool(flags & IP_VS_SVC_F_PERSISTENT)
    return VirtualServer(
        key=_decode_key(found, family),
        scheduler=_string(found, IPVS_SVC_ATTR_SCHED_NAME),
        persistence=_number(U32, found, IPVS_SVC_ATTR_TIMEOUT) if persistent else 0,
        netmask=_decode_netmask(found, family),
        one_packet=bool(flags & IP_VS_SVC_F_ONEPACKET),
        scheduler_flags=flags & IP_VS_SVC_F_SCHED,
        persistence_engine=_string(found, IPVS_SVC_ATTR_PE_NAME),
    )


def _decode_key(found: dict[int, bytes], family: int) -> VirtualServerKey:
    mark = _number(U32, found, IPVS_SVC_ATTR_FWMARK)
    if mark:
        return VirtualServerKey(None, None, 0, mark, family)
    number = _number(U16, found, IPVS_SVC_ATTR_PROTOCOL)
    if number not in PROTOCOLS:
        raise MalformedMessage(f"a virtual server of protocol {number}, which IPVS does not know")
    address = decode_address(found.get(IPVS_SVC_ATTR_ADDR, b""), family)
    return VirtualServerKey.of(PROTOCOLS[number], address, _number(BE16, found, IPVS_SVC_ATTR_PORT))


def _decode_netmask(found: dict[int, bytes], family: int) -> int:
    number = _number(U32, found, IPVS_SVC_ATTR_NETMASK)
    return number if family == 6 else number.bit_count()


@dataclass(frozen=True, slots=True)
class Connections:
    """How many connections a real server carries now; persistent clients count apart."""

    active: int
    inactive: int
    persistent: int


def decode_real_server(data: bytes, family: int) -> tuple[RealServer, Connections]:
    """A real server and its connections, from the attributes of IPVS_CMD_ATTR_DEST.

    family
        That of its virtual server, for kernels that do not tell a real server's own (before Linux
        3.18).
    """
    found = dict(attributes(data))
    own = FAMILIES.get(_number(U16, found, IPVS_DEST_ATTR_ADDR_FAMILY), family)
    method = _number(U32, found, IPVS_DEST_ATTR_FWD_METHOD) & IP_VS_CONN_F_FWD_MASK
    if method not in FORWARDS:
        raise MalformedMessage(f"a real server with forwarding method {method}")
    server = RealServer(
        key=RealServerKey(
            decode_address(found.get(IPVS_DEST_ATTR_ADDR, b""), own),
            _number(BE16, found, IPVS_DEST_ATTR_PORT),
        ),
        forward=FORWARDS[method],
        weight=_number(U32, found, IPVS_DEST_ATTR_WEIGHT),
        upper_threshold=_number(U32, found, IPVS_DEST_ATTR_U_THRESH),
        lower_threshold=_number(U32, found, IPVS_DEST_ATTR_L_THRESH),
    )
    connections = Connections(
        active=_number(U32, found, IPVS_DEST_ATTR_ACTIVE_CONNS),
        inactive=_number(U32, found, IPVS_DEST_ATTR_INACT_CONNS),
        persistent=_number(U32, found, IPVS_DEST_ATTR_PERSIST_CONNS),
    )
    return server, connections


def decode_address(data: bytes, family: int) -> Address:
    """An address from the kernel's union nf_inet_addr."""
    if len(data) < 16:
        raise MalformedMessage(f"an address of {len(data)} bytes")
    return ipaddress.IPv6Address(data[:16]) if family == 6 else ipaddress.IPv4Address(data[:4])


def _number(shape: struct.Struct, found: dict[int, bytes], kind: int) -> int:
    data = found.get(kind)
    if data is None:
        return 0
    if len(data) < shape.size:
        raise MalformedMessage(f"attribute {kind} has {len(data)} bytes instead of {shape.size}")
    return int(shape.unpack_from(data)[0])


def _string(found: dict[int, bytes], kind: int) -> str:
    return found.get(kind, b"").split(b"\0", 1)[0].decode("ascii", "replace")


# --------------------------------------------------------------------------------------------------
# Talk


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The IPVS table as read, and the connections that it carried at that moment."""

    table: dict[VirtualServerKey, VirtualServer]
    connections: dict[tuple[VirtualServerKey, RealServerKey], Connections] = field(
        default_factory=dict
    )


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
        try:
            self._enlarge()
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
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)

    def _find_family(self) -> int:
        name = attribute(CTRL_ATTR_FAMILY_NAME, IPVS_GENL_NAME)
        try:
            for answer in self._ask(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, NLM_F_ACK, name, "find IPVS"):
                found = dict(attributes(answer))
                if CTRL_ATTR_FAMILY_ID in found:
                    return _number(U16, found, CTRL_ATTR_FAMILY_ID)
        except KernelError as error:
            if error.number != errno.ENOENT:
                raise
        raise NotAvailable(NOT_LOADED)

    def read(self, only: Collection[VirtualServerKey] | None = None) -> Snapshot:
        """Read the table.

        only
            The virtual servers whose real servers matter; all of them by default.
        """
        for _ in range(ATTEMPTS):
            snapshot = self._read_once(only)
            # A virtual server of more than one part may change between two of them, and the kernel
            # does not say so.
            long = [
                key
                for key, server in snapshot.table.items()
                if len(server.real_servers) > REAL_SERVERS_READ_AT_ONCE
            ]
            if not long or self._read_once(long).table == {k: snapshot.table[k] for k in long}:
                break
        return snapshot

    def _read_once(self, only: Collection[VirtualServerKey] | None) -> Snapshot:
        snapshot = Snapshot({})
        for settings in self._virtual_servers():
            key = settings.key
            if only is not None and key not in only:
                continue
            found: dict[RealServerKey, RealServer] = {}
            for server, connections in self._real_servers(key):
                found[server.key] = server
                snapshot.connections[key, server.key] = connections
            ordered = sorted(found.values(), key=lambda server: server.key.sort_key())
            snapshot.table[key] = replace(settings, real_servers=tuple(ordered))
        return snapshot

    def _virtual_servers(self) -> list[VirtualServer]:
        answers = self._ask(
            self._family, IPVS_CMD_GET_SERVICE, NLM_F_DUMP, b"", "list virtual servers"
        )
        return [
            decode_virtual_server(data)
            for answer in answers
            for kind, data in attributes(answer)
            if kind == IPVS_CMD_ATTR_SERVICE
        ]

    def _real_servers(self, key: VirtualServerKey) -> list[tuple[RealServer, Connections]]:
        request = attribute(IPVS_CMD_ATTR_SERVICE, encode_virtual_server_key(key))
        answers = self._ask(
            self._family, IPVS_CMD_GET_DEST, NLM_F_DUMP, request, f"list the real servers of {key}"
        )
        return [
            decode_real_server(data, key.family)
            for answer in answers
            for kind, data in attributes(answer)
            if kind == IPVS_CMD_ATTR_DEST
        ]

    def send(self, ops: Sequence[Op]) -> dict[int, int]:
        """Carry out operations in order, many to a batch, and return the error number of each that
        failed, by index.

        A failed operation does not stop those behind it: the kernel takes each message by itself.
        """
        failed: dict[int, int] = {}
        for start, batch in _batches(ops):
            first = self._sequence + 1
            last = first + len(batch) - 1
            self._sequence = last
            self._socket.sendall(b"".join(self._numbered(batch, first)))
            for sequence, error in self._until_acknowledged(last):
                if error and first <= sequence <= last:
                    failed[start + sequence - first] = error
        return failed

    def _numbered(self, batch: Sequence[tuple[int, bytes]], first: int) -> Iterator[bytes]:
        for index, (command, payload) in enumerate(batch):
            # Errors are always told; that the rest went well needs telling only once.
            acknowledge = NLM_F_ACK if index == len(batch) - 1 else 0
            yield _message(self._family, command, acknowledge, first + index, payload)

    def _until_acknowledged(self, last: int) -> Iterator[tuple[int, int]]:
        while True:
            for kind, sequence, payload in self._receive():
                if kind == NLMSG_ERROR:
                    yield sequence, error_number(payload)
                    if sequence == last:
                        return

    def _ask(
        self, family: int, command: int, flags: int, payload: bytes, operation: str
    ) -> list[bytes]:
        self._sequence += 1
        self._socket.sendall(_message(family, command, flags, self._sequence, payload))
        answers: list[bytes] = []
        while True:
            for kind, sequence, data in self._receive():
                if sequence != self._sequence:
                    continue
                if kind in (NLMSG_ERROR, NLMSG_DONE):
                    number = error_number(data) if data else 0
                    if number:
                        raise KernelError(operation, number, _hint(number))
                    return answers
                answers.append(data[GENLMSGHDR.size :])

    def _receive(self) -> list[tuple[int, int, bytes]]:
        data = self._socket.recv(RECEIVE_BYTES)
        if not data:
            raise MalformedMessage("the kernel closed the netlink socket")
        return list(messages(data))


def _message(family: int, command: int, flags: int, sequence: int, payload: bytes) -> bytes:
    length = NLMSGHDR.size + GENLMSGHDR.size + len(payload)
    header = NLMSGHDR.pack(length, family, NLM_F_REQUEST | flags, sequence, 0)
    return header + GENLMSGHDR.pack(command, IPVS_GENL_VERSION, 0) + payload


def _batches(ops: Sequence[Op]) -> Iterator[tuple[int, list[tuple[int, bytes]]]]:
    """Cut operations into batches of encoded messages: index of the first one, commands and
    payloads.
    """
    batch: list[tuple[int, bytes]] = []
    start = size = 0
    for index, op in enumerate(ops):
        payload = encode_op(op)
        if batch and size + len(payload) > BATCH_BYTES:
            yield start, batch
            batch, start, size = [], index, 0
        batch.append((COMMANDS[op.action], payload))
        size += len(payload) + NLMSGHDR.size + GENLMSGHDR.size
    if batch:
        yield start, batch


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
        The whole table as read at the end.

    left
        Operations that are still missing: another writer works against us.
    """

    ops: tuple[Op, ...]
    table: Table
    left: tuple[Op, ...] = ()


def loaded() -> bool:
    """Whether the kernel has IPVS loaded; to ask IPVS itself would load it."""
    return os.path.exists("/proc/thread-self/net/ip_vs")


def read() -> Snapshot:
    """Read the kernel's whole table, and load nothing for it."""
    if not loaded():
        raise NotAvailable(NOT_LOADED)
    with Client() as client:
        return client.read()


def apply(
    desired: Table,
    purge: bool = False,
    leave: Collection[VirtualServerKey] = (),
) -> Outcome:
    """Make the kernel's table hold *desired*: read, plan, act, and read again.

    Arguments as for :func:`saltext.lvs.plan.plan`. Writers of this library take turns. Where the
    table changes under the plan by another hand it is planned again, three times at most, and what
    is missing then is returned as ``left``.

    Raises :class:`KernelError` for an operation that the kernel refuses; the others have been
    carried out, and the next apply completes it.
    """
    with locking.exclusive(LOCK), Client() as client:
        before = client.read().table
        ops = planning.plan(before, desired, purge, leave)
        if not ops:
            return Outcome((), before)
        for _ in range(ATTEMPTS):
            _refuse(ops, client.send(ops))
            now = client.read().table
            ops = planning.plan(now, desired, purge, leave)
            if not ops:
                break
        scope = {*desired, *(before if purge else ())} - set(leave)
        done = planning.plan(_within(scope, before), _within(scope, now), purge=True)
        return Outcome(done, now, ops)


def _within(scope: Collection[VirtualServerKey], table: Table) -> Table:
    """The part of a table that an apply was about: what another hand did elsewhere is not its
    doing.
    """
    return {key: server for key, server in table.items() if key in scope}


def _refuse(ops: Sequence[Op], failed: dict[int, int]) -> None:
    """Raise for the first real refusal; a sign of another writer is no refusal."""
    real = {i: number for i, number in failed.items() if number not in CONFLICTS[ops[i].action]}
    if not real:
        return
    index = min(real)
    op, number = ops[index], real[index]
    hint = _hint(number)
    if number == errno.ENOENT and op.real_server is None:
        hint = f"is the scheduler there? modprobe ip_vs_{op.virtual_server.scheduler}"
    carried_out = f"{len(ops) - len(failed)} of {len(ops)} operations were carried out"
    done = f"{carried_out}; the next apply completes them"
    raise KernelError(str(op), number, f"{hint}; {done}" if hint else done)
