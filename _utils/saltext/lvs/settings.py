"""What IPVS has beside its table: timeouts, synchronization daemons, a version, and two big levers.

Each value is encoded and decoded by functions that talk to nobody; the functions that do talk read
first, write what differs, and read back what the kernel made of it. Names and numbers are those of
``linux/ip_vs.h``; an attribute that a newer kernel adds is passed over.
"""

from __future__ import annotations

import enum
import errno
import ipaddress
import socket
import struct
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

from saltext.lvs import ipvs, locking, model, plan, wire
from saltext.lvs.errors import InvalidConfig, KernelError, LvsError
from saltext.lvs.ipvs import IPVS_CMD_ATTR_SERVICE
from saltext.lvs.model import MAX_PORT, VirtualServerKey
from saltext.lvs.netlink import (
    NLM_F_ACK,
    NLM_F_DUMP,
    U32,
    MalformedMessage,
    attribute,
    attributes,
    cut,
    nested,
    number,
)
from saltext.lvs.reading import Address, Section, as_address
from saltext.lvs.wire import U16

# --------------------------------------------------------------------------------------------------
# Numbers of linux/ip_vs.h

IPVS_CMD_NEW_DAEMON = 9
IPVS_CMD_DEL_DAEMON = 10
IPVS_CMD_GET_DAEMON = 11
IPVS_CMD_SET_CONFIG = 12
IPVS_CMD_GET_CONFIG = 13
IPVS_CMD_GET_INFO = 15
IPVS_CMD_ZERO = 16
IPVS_CMD_FLUSH = 17
IPVS_CMD_ATTR_DAEMON = 3
IPVS_CMD_ATTR_TIMEOUT_TCP = 4
IPVS_CMD_ATTR_TIMEOUT_TCP_FIN = 5
IPVS_CMD_ATTR_TIMEOUT_UDP = 6
IPVS_DAEMON_ATTR_STATE = 1
IPVS_DAEMON_ATTR_MCAST_IFN = 2
IPVS_DAEMON_ATTR_SYNC_ID = 3
IPVS_DAEMON_ATTR_SYNC_MAXLEN = 4
IPVS_DAEMON_ATTR_MCAST_GROUP = 5
IPVS_DAEMON_ATTR_MCAST_GROUP6 = 6
IPVS_DAEMON_ATTR_MCAST_PORT = 7
IPVS_DAEMON_ATTR_MCAST_TTL = 8
IPVS_INFO_ATTR_VERSION = 1
IPVS_INFO_ATTR_CONN_TAB_SIZE = 2

U8 = struct.Struct("=B")

# IP_VS_SYNC_GROUP and IP_VS_SYNC_PORT in net/netfilter/ipvs/ip_vs_sync.c; before Linux 4.3 there
# was no other choice, and a kernel that does not tell means these.
SYNC_GROUP = ipaddress.IPv4Address("224.0.0.81")
SYNC_PORT = 8848
SYNC_TTL = 1
# start_sync_thread(): a backup's buffer holds at least so much, and nobody's more than a UDP
# datagram does.
MIN_BACKUP_MAXLEN = 1024
MAX_DATAGRAM_BYTES = 65535
UDP_HEADERS_BYTES = {4: 28, 6: 48}


class NotTaken(LvsError):
    """The kernel answered yes, but what it then told is something else."""


# --------------------------------------------------------------------------------------------------
# Timeouts


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds of silence after which IPVS forgets a connection.

    tcp
        An established TCP connection.

    tcpfin
        A TCP connection of which one end has been closed.

    udp
        A UDP client and its real server.
    """

    tcp: int
    tcpfin: int
    udp: int

    def as_data(self) -> dict[str, int]:
        """As plain values."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


# tcp_timeouts and udp_timeouts in net/netfilter/ipvs/ip_vs_proto_{tcp,udp}.c
DEFAULT_TIMEOUTS = Timeouts(900, 120, 300)
TIMEOUT_ATTRIBUTES = {
    "tcp": IPVS_CMD_ATTR_TIMEOUT_TCP,
    "tcpfin": IPVS_CMD_ATTR_TIMEOUT_TCP_FIN,
    "udp": IPVS_CMD_ATTR_TIMEOUT_UDP,
}


def wanted_timeouts(values: Mapping[str, Any]) -> dict[str, int]:
    """Check the timeouts that somebody asked for, and leave out those that are None.

    Raises :class:`InvalidConfig`.
    """
    wanted = model.read_timeouts(Section(values, "timeouts"))
    if not wanted:
        raise InvalidConfig("timeouts", None, "at least one of tcp, tcpfin, udp, in seconds")
    return wanted


def encode_timeouts(timeouts: Timeouts) -> bytes:
    """The attributes of SET_CONFIG."""
    return b"".join(
        attribute(kind, U32.pack(getattr(timeouts, name)))
        for name, kind in TIMEOUT_ATTRIBUTES.items()
    )


def decode_timeouts(data: bytes) -> Timeouts:
    """The answer to GET_CONFIG; a protocol that the kernel was built without counts 0 seconds."""
    found = dict(attributes(data))
    return Timeouts(
        **{name: _number(U32, found, kind) for name, kind in TIMEOUT_ATTRIBUTES.items()}
    )


# --------------------------------------------------------------------------------------------------
# Synchronization daemons


class SyncState(enum.Enum):
    """Which end a daemon is: the one that tells of its connections, or the one that learns them."""

    MASTER = "master"
    BACKUP = "backup"


def sync_state(word: Any, path: str = "state") -> SyncState:
    """The state that a word means; raises :class:`InvalidConfig`."""
    for state in SyncState:
        if isinstance(word, str) and word.lower() == state.value:
            return state
    raise InvalidConfig(path, word, f"one of {', '.join(state.value for state in SyncState)}")


# IP_VS_STATE_MASTER and IP_VS_STATE_BACKUP
SYNC_STATE_NUMBERS = {SyncState.MASTER: 1, SyncState.BACKUP: 2}
SYNC_STATES = {number: state for state, number in SYNC_STATE_NUMBERS.items()}


@dataclass(frozen=True, slots=True)
class SyncDaemon:
    """A kernel thread that synchronizes connections between directors; one of each state at most.

    interface
        The network interface on which it multicasts, or listens.

    syncid
        0 to 255. A backup listens to masters with its own number only; with 0 it listens to all.

    multicast_group, port
        Where the messages go: a multicast address, IPv4 or IPv6, and a UDP port.

    ttl
        How many routers a message may pass, plus one; IPv6 calls it hop limit.

    maxlen
        Bytes of connections in one message at most; 0 leaves it to the kernel, which goes by the
        interface.
    """

    state: SyncState
    interface: str
    syncid: int = 0
    multicast_group: Address = SYNC_GROUP
    port: int = SYNC_PORT
    ttl: int = SYNC_TTL
    maxlen: int = 0

    @classmethod
    def from_data(cls, values: Mapping[str, Any], path: str = "sync_daemon") -> SyncDaemon:
        """Check the settings that somebody asked for; None means the default.

        Raises :class:`InvalidConfig` with the path of what is wrong.
        """
        section = Section(values, path)
        state = sync_state(section.raw("state"), section.at("state"))
        group = _multicast_group(section)
        most = MAX_DATAGRAM_BYTES - UDP_HEADERS_BYTES[group.version]
        least = MIN_BACKUP_MAXLEN if state is SyncState.BACKUP else 1
        daemon = cls(
            state=state,
            interface=section.interface("interface"),
            syncid=section.integer("syncid", 0, 255, 0),
            multicast_group=group,
            port=section.integer("port", 1, MAX_PORT, SYNC_PORT),
            ttl=section.integer("ttl", 1, 255, SYNC_TTL),
            maxlen=section.integer("maxlen", least, most, 0),
        )
        section.finish()
        return daemon

    def as_data(self) -> dict[str, str | int]:
        """As plain values."""
        return {
            "state": self.state.value,
            "interface": self.interface,
            "syncid": self.syncid,
            "multicast_group": str(self.multicast_group),
            "port": self.port,
            "ttl": self.ttl,
            "maxlen": self.maxlen,
        }

    def is_met_by(self, running: SyncDaemon | None) -> bool:
        """Whether a daemon that runs is the one that is wanted; *maxlen* only where it was said."""
        if running is None:
            return False
        return self == (running if self.maxlen else replace(running, maxlen=0))


def _multicast_group(section: Section) -> Address:
    value = section.raw("multicast_group")
    if value is None:
        return SYNC_GROUP
    path = section.at("multicast_group")
    group = as_address(value, path)
    if not group.is_multicast:
        raise InvalidConfig(path, value, f"a multicast address such as {SYNC_GROUP} or ff02::81")
    return group


def encode_sync_daemon(daemon: SyncDaemon) -> bytes:
    """The attribute of NEW_DAEMON."""
    group = daemon.multicast_group
    kind = IPVS_DAEMON_ATTR_MCAST_GROUP6 if group.version == 6 else IPVS_DAEMON_ATTR_MCAST_GROUP
    encoded = (
        attribute(IPVS_DAEMON_ATTR_STATE, U32.pack(SYNC_STATE_NUMBERS[daemon.state]))
        + attribute(IPVS_DAEMON_ATTR_MCAST_IFN, daemon.interface.encode() + b"\0")
        + attribute(IPVS_DAEMON_ATTR_SYNC_ID, U32.pack(daemon.syncid))
        + attribute(kind, group.packed)
        + attribute(IPVS_DAEMON_ATTR_MCAST_PORT, U16.pack(daemon.port))
        + attribute(IPVS_DAEMON_ATTR_MCAST_TTL, U8.pack(daemon.ttl))
    )
    if daemon.maxlen:
        encoded += attribute(IPVS_DAEMON_ATTR_SYNC_MAXLEN, U16.pack(daemon.maxlen))
    return attribute(IPVS_CMD_ATTR_DAEMON, encoded)


def encode_sync_state(state: SyncState) -> bytes:
    """The attribute of DEL_DAEMON."""
    encoded = attribute(IPVS_DAEMON_ATTR_STATE, U32.pack(SYNC_STATE_NUMBERS[state]))
    return attribute(IPVS_CMD_ATTR_DAEMON, encoded)


def decode_sync_daemon(data: bytes) -> SyncDaemon:
    """One daemon, from the attributes of IPVS_CMD_ATTR_DAEMON."""
    found = dict(attributes(data))
    state = _number(U32, found, IPVS_DAEMON_ATTR_STATE)
    if state not in SYNC_STATES:
        raise MalformedMessage(f"a sync daemon of state {state}")
    name = found.get(IPVS_DAEMON_ATTR_MCAST_IFN, b"").split(b"\0", 1)[0]
    return SyncDaemon(
        state=SYNC_STATES[state],
        interface=name.decode("ascii", "replace"),
        syncid=_number(U32, found, IPVS_DAEMON_ATTR_SYNC_ID),
        multicast_group=_decode_group(found),
        port=_number(U16, found, IPVS_DAEMON_ATTR_MCAST_PORT) or SYNC_PORT,
        ttl=_number(U8, found, IPVS_DAEMON_ATTR_MCAST_TTL) or SYNC_TTL,
        maxlen=_number(U16, found, IPVS_DAEMON_ATTR_SYNC_MAXLEN),
    )


def _decode_group(found: Mapping[int, bytes]) -> Address:
    if IPVS_DAEMON_ATTR_MCAST_GROUP6 in found:
        return ipaddress.IPv6Address(cut(found, IPVS_DAEMON_ATTR_MCAST_GROUP6, 16))
    if IPVS_DAEMON_ATTR_MCAST_GROUP in found:
        return ipaddress.IPv4Address(cut(found, IPVS_DAEMON_ATTR_MCAST_GROUP, 4))
    return SYNC_GROUP


# --------------------------------------------------------------------------------------------------
# Information


@dataclass(frozen=True, slots=True)
class Info:
    """What IPVS says of itself.

    version
        Such as ``1.2.1``.

    connection_table_size
        Number of buckets of the connection table. Fixed when the module is loaded; since Linux 7.1
        it grows and shrinks with the connections, from 0 before the first virtual server.
    """

    version: str
    connection_table_size: int


def decode_info(data: bytes) -> Info:
    """The answer to GET_INFO."""
    found = dict(attributes(data))
    code = _number(U32, found, IPVS_INFO_ATTR_VERSION)
    # NVERSION() in the header: a byte for each part.
    version = f"{code >> 16 & 0xFF}.{code >> 8 & 0xFF}.{code & 0xFF}"
    return Info(version, _number(U32, found, IPVS_INFO_ATTR_CONN_TAB_SIZE))


def _number(shape: struct.Struct, found: Mapping[int, bytes], kind: int) -> int:
    """0 where a kernel does not tell it."""
    return number(shape, found, kind) if kind in found else 0


# --------------------------------------------------------------------------------------------------
# Talk


def read_timeouts() -> Timeouts:
    """The timeouts as the kernel has them."""
    with ipvs.client() as client:
        return _timeouts(client)


def plan_timeouts(wanted: Mapping[str, int]) -> tuple[Timeouts | None, Timeouts]:
    """What :func:`set_timeouts` would return; without IPVS loaded None, and the kernel's own."""
    before = read_timeouts() if ipvs.loaded() else None
    return before, replace(before or DEFAULT_TIMEOUTS, **wanted)


def set_timeouts(wanted: Mapping[str, int]) -> tuple[Timeouts, Timeouts]:
    """Set some timeouts (see :func:`wanted_timeouts`), keep the others: those before, those after.

    Raises :class:`NotTaken` where the kernel keeps its own.
    """
    with _changing() as client:
        before = _timeouts(client)
        target = replace(before, **wanted)
        if target == before:
            return before, before
        client.ask(IPVS_CMD_SET_CONFIG, NLM_F_ACK, encode_timeouts(target), "set the timeouts")
        after = _timeouts(client)
    if after != target:
        raise NotTaken(f"IPVS was told the timeouts {target.as_data()}, and has {after.as_data()}")
    return before, after


def _timeouts(client: ipvs.Client) -> Timeouts:
    answers = client.ask(IPVS_CMD_GET_CONFIG, NLM_F_ACK, b"", "read the timeouts")
    return decode_timeouts(b"".join(answers))


def read_sync_daemons() -> dict[SyncState, SyncDaemon]:
    """The synchronization daemons that run."""
    with ipvs.client() as client:
        return _sync_daemons(client)


def _sync_daemons(client: ipvs.Client) -> dict[SyncState, SyncDaemon]:
    answers = client.ask(IPVS_CMD_GET_DAEMON, NLM_F_DUMP, b"", "list the sync daemons")
    found = [
        decode_sync_daemon(data)
        for answer in answers
        for data in nested(answer, IPVS_CMD_ATTR_DAEMON)
    ]
    return {daemon.state: daemon for daemon in found}


def plan_sync_daemon(wanted: SyncDaemon) -> tuple[SyncDaemon | None, SyncDaemon]:
    """What :func:`start_sync_daemon` would return."""
    before = plan_no_sync_daemon(wanted.state)
    return before, before if before is not None and wanted.is_met_by(before) else wanted


def plan_no_sync_daemon(state: SyncState) -> SyncDaemon | None:
    """What :func:`stop_sync_daemon` would return."""
    return read_sync_daemons().get(state) if ipvs.loaded() else None


def start_sync_daemon(wanted: SyncDaemon) -> tuple[SyncDaemon | None, SyncDaemon]:
    """Let a daemon run with these settings: the one before, the one after.

    One that runs with other settings is stopped first, because the kernel cannot change a setting;
    if the new one then cannot be started, the old one is put back.

    Raises :class:`KernelError` where the kernel refuses, :class:`NotTaken` where it runs with other
    settings than it was told (Linux before 4.3 knows no group, port, ttl and maxlen).
    """
    with _changing() as client:
        before = _sync_daemons(client).get(wanted.state)
        if before is not None and wanted.is_met_by(before):
            return before, before
        # Found out before the old one is stopped.
        _expect_interface(wanted)
        if before is not None:
            _stop(client, before.state)
        try:
            _start(client, wanted)
        except KernelError:
            if before is not None:
                _start(client, before)
            raise
        after = _sync_daemons(client).get(wanted.state)
    if after is None or not wanted.is_met_by(after):
        has = after.as_data() if after else None
        raise NotTaken(f"IPVS was told to run the sync daemon {wanted.as_data()}, and has {has}")
    return before, after


def stop_sync_daemon(state: SyncState) -> SyncDaemon | None:
    """Stop a daemon, and return what ran; None where none did."""
    with _changing() as client:
        before = _sync_daemons(client).get(state)
        if before is not None:
            _stop(client, state)
        return before


def _start(client: ipvs.Client, daemon: SyncDaemon) -> None:
    subject = f"start the {daemon.state.value} sync daemon on {daemon.interface}"
    client.ask(IPVS_CMD_NEW_DAEMON, NLM_F_ACK, encode_sync_daemon(daemon), subject)


def _stop(client: ipvs.Client, state: SyncState) -> None:
    # There may be no answer to wait for: kthread_stop() returns EINTR for a thread that was started
    # a moment ago and has not run yet, and netlink acknowledges everything but EINTR.
    client.tell(IPVS_CMD_DEL_DAEMON, encode_sync_state(state))
    if state in _sync_daemons(client):
        raise NotTaken(f"IPVS was told to stop the {state.value} sync daemon, and it still runs")


def _expect_interface(daemon: SyncDaemon) -> None:
    try:
        socket.if_nametoindex(daemon.interface)
    except OSError as error:
        subject = f"start the {daemon.state.value} sync daemon on {daemon.interface}"
        raise KernelError(subject, error.errno or errno.ENODEV) from error


def read_info() -> Info:
    """IPVS's version, and the size of its connection table."""
    with ipvs.client() as client:
        answers = client.ask(IPVS_CMD_GET_INFO, NLM_F_ACK, b"", "read IPVS's version")
        return decode_info(b"".join(answers))


def zero(key: VirtualServerKey | None = None) -> None:
    """Set the counters of one virtual server and its real servers to zero; without a key, all
    counters.
    """
    payload, subject = b"", "zero all counters"
    if key is not None:
        payload = attribute(IPVS_CMD_ATTR_SERVICE, wire.pack_key(key))
        subject = f"zero the counters of {key}"
    with _changing() as client, absence_explained():
        client.ask(IPVS_CMD_ZERO, NLM_F_ACK, payload, subject)


def flush(leave: Collection[VirtualServerKey] = ()) -> ipvs.Outcome:
    """Delete every virtual server: the kernel does it at one stroke, unless some are to be left.

    leave
        Virtual servers that another program keeps.
    """
    if leave:
        # An apply would load it.
        ipvs.expect_loaded()
        return ipvs.apply({}, purge=True, leave=leave)
    with _changing() as client:
        before = client.read().table
        client.ask(IPVS_CMD_FLUSH, NLM_F_ACK, b"", "delete all virtual servers")
        after = client.read().table
    return ipvs.Outcome(
        plan.plan(before, after, purge=True), after, plan.plan(after, {}, purge=True)
    )


@contextmanager
def absence_explained() -> Iterator[None]:
    """Say what ESRCH means here: its own text speaks of processes."""
    try:
        yield
    except KernelError as error:
        if error.number != errno.ESRCH:
            raise
        hint = "there is no such virtual server"
        raise KernelError(error.operation, error.number, hint) from error


@contextmanager
def _changing() -> Iterator[ipvs.Client]:
    """A conversation that changes something: writers take turns, those of the table too."""
    with locking.exclusive(ipvs.LOCK), ipvs.client() as client:
        yield client
