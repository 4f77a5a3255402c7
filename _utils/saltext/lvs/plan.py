"""What must be done to turn one IPVS table into another, as values and in an order that drops
nobody.

:func:`plan` is a pure function. Test mode, apply, the reported changes and drift detection all use
its operations.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from saltext.lvs import wire
from saltext.lvs.model import (
    WHOLE_PREFIX,
    Forward,
    RealServer,
    RealServerKey,
    VirtualServer,
    VirtualServerKey,
)
from saltext.lvs.table import NO_KEY, Table, describe, describe_real_server
from saltext.lvs.wire import Packed, PackedTable

Servers = Mapping[VirtualServerKey, VirtualServer]


class Action(enum.Enum):
    """The six things that can be done to an IPVS table; the values are words for comments."""

    ADD_VIRTUAL_SERVER = "add"
    ADD_REAL_SERVER = "add real server"
    SET_REAL_SERVER = "change real server"
    SET_VIRTUAL_SERVER = "change"
    DELETE_REAL_SERVER = "delete real server"
    DELETE_VIRTUAL_SERVER = "delete"


class Op(NamedTuple):
    """One operation on the table, packed as the kernel takes it.

    service
        The key of the virtual server that it concerns.

    real
        The key of the real server that is added, changed or deleted; empty where the virtual server
        itself is.

    now, was
        Its settings after and before; empty where it is not there.

    dropped
        The real servers that go with a deleted virtual server.
    """

    action: Action
    service: bytes
    real: bytes = b""
    now: bytes = b""
    was: bytes = b""
    dropped: Mapping[bytes, bytes] = {}

    def __str__(self) -> str:
        if not self.real:
            return f"{self.action.value} virtual server {self.virtual_server}"
        return f"{self.action.value} {self.real_server} of {self.virtual_server}"

    @property
    def virtual_server(self) -> VirtualServerKey:
        """The virtual server that it concerns."""
        return wire.unpack_key(self.service)

    @property
    def real_server(self) -> RealServerKey | None:
        """The real server that it concerns, if it does."""
        return wire.unpack_real_key(self.real) if self.real else None

    def after(self) -> VirtualServer | RealServer | None:
        """What it leaves there, as a typed value; None for a deletion."""
        return self._unpacked(self.now)

    def before(self) -> VirtualServer | RealServer | None:
        """What stood there, as a typed value; None for an addition."""
        return self._unpacked(self.was)

    def _unpacked(self, settings: bytes) -> VirtualServer | RealServer | None:
        if not settings:
            return None
        if self.real:
            return wire.unpack_real_server(self.real, settings)
        return wire.unpack_settings(self.service, settings)


def plan(
    current: Servers,
    desired: Servers,
    purge: bool = False,
    leave: Collection[VirtualServerKey] = (),
    absent: Collection[VirtualServerKey] = (),
) -> tuple[Op, ...]:
    """Return the operations that make *current* hold *desired*, capacity first.

    New virtual servers come with their real servers, then real servers are added, raised, lowered
    and changed, then settings change, then what is no longer wanted goes: at no point do fewer real
    servers take connections than both tables agree on. Applying the result and planning again gives
    nothing.

    current, desired
        Tables by virtual server; *desired* is complete for each virtual server that it names.

    purge
        Also delete virtual servers that *desired* does not name.

    leave
        Virtual servers that somebody else keeps, which are never touched.

    absent
        Virtual servers to delete, whatever *purge* says.
    """
    return plan_packed(
        Table.from_mapping(current).packed,
        Table.from_mapping(desired).packed,
        purge,
        {wire.pack_key(key) for key in leave},
        {wire.pack_key(key) for key in absent},
    )


def plan_packed(
    current: PackedTable,
    desired: PackedTable,
    purge: bool = False,
    leave: Collection[bytes] = (),
    absent: Collection[bytes] = (),
) -> tuple[Op, ...]:
    """The same on packed tables."""
    steps = _Steps()
    for key, wanted in desired.items():
        if key in leave:
            continue
        held = current.get(key)
        if held is None:
            steps.create(key, wanted)
        elif held != wanted:
            steps.change(key, held, wanted)
    for key in sorted(current if purge else absent):
        if key in current and key not in desired and key not in leave:
            steps.delete(key, current[key])
    return steps.in_order()


class _Steps:
    """Operations, gathered by the step of the order in which they belong."""

    def __init__(self) -> None:
        self.created: list[Op] = []
        self.added: list[Op] = []
        self.raised: list[Op] = []
        self.lowered: list[Op] = []
        self.settings: list[Op] = []
        self.taken_out: list[Op] = []
        self.deleted: list[Op] = []

    def in_order(self) -> tuple[Op, ...]:
        return (
            *self.created,
            *self.added,
            *self.raised,
            *self.lowered,
            *self.settings,
            *self.taken_out,
            *self.deleted,
        )

    def create(self, key: bytes, wanted: Packed) -> None:
        self.created.append(Op(Action.ADD_VIRTUAL_SERVER, key, b"", wanted.settings))
        self.created += [
            Op(Action.ADD_REAL_SERVER, key, real, settings)
            for real, settings in wanted.real_servers.items()
        ]

    def change(self, key: bytes, held: Packed, wanted: Packed) -> None:
        for real, now in wanted.real_servers.items():
            was = held.real_servers.get(real)
            if was is None:
                self.added.append(Op(Action.ADD_REAL_SERVER, key, real, now))
            elif not wire.same_real_server(was, now):
                step = self.lowered if wire.weight_of(now) < wire.weight_of(was) else self.raised
                step.append(Op(Action.SET_REAL_SERVER, key, real, now, was))
        # While a scheduler is being replaced the kernel has none for a moment, so never without
        # need.
        if held.settings != wanted.settings:
            self.settings.append(
                Op(Action.SET_VIRTUAL_SERVER, key, b"", wanted.settings, held.settings)
            )
        self.taken_out += [
            Op(Action.DELETE_REAL_SERVER, key, real, b"", was)
            for real, was in held.real_servers.items()
            if real not in wanted.real_servers
        ]

    def delete(self, key: bytes, held: Packed) -> None:
        # The kernel drops the real servers with it.
        self.deleted.append(
            Op(Action.DELETE_VIRTUAL_SERVER, key, b"", b"", held.settings, held.real_servers)
        )


# --------------------------------------------------------------------------------------------------
# For people and for Salt's returns


def changes(ops: Iterable[Op]) -> dict[str, dict[str, Any]]:
    """The operations as Salt reports changes: one ``old``/``new`` for each virtual server and real
    server.

    ``None`` stands for "is not there". A change names just the settings that differ, and what comes
    or goes just those that are not the kernel's defaults.
    """
    found: dict[str, dict[str, Any]] = {}
    for op in ops:
        found[_subject(op.service, op.real)] = _old_new(op.before(), op.after())
        for real, settings in op.dropped.items():
            gone = wire.unpack_real_server(real, settings)
            found[_subject(op.service, real)] = _old_new(gone, None)
    return found


def _subject(service: bytes, real: bytes) -> str:
    key = str(wire.unpack_key(service))
    return f"{key} -> {wire.unpack_real_key(real)}" if real else key


def _old_new(
    before: VirtualServer | RealServer | None, after: VirtualServer | RealServer | None
) -> dict[str, Any]:
    if before is None or after is None:
        return {"old": _telling(before), "new": _telling(after)}
    old, new = _described(before), _described(after)
    differ = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return {
        "old": {name: old.get(name) for name in differ},
        "new": {name: new.get(name) for name in differ},
    }


def _described(server: VirtualServer | RealServer) -> dict[str, Any]:
    return describe(server) if isinstance(server, VirtualServer) else describe_real_server(server)


def _telling(server: VirtualServer | RealServer | None) -> dict[str, Any] | None:
    """The settings worth a line in a report."""
    if server is None:
        return None
    always = {"scheduler", "forward", "weight"}
    unset = (
        _UNSET[server.key.family]
        if isinstance(server, VirtualServer)
        else _UNSET_OF_REAL_SERVERS[server.forward]
    )
    return {
        name: value
        for name, value in _described(server).items()
        if name in always or value != unset[name]
    }


# The kernel's defaults, by address family and by forward.
_UNSET = {
    family: describe(VirtualServer.empty(VirtualServerKey(None, None, 0, 0, family)))
    for family in WHOLE_PREFIX
}
_UNSET_OF_REAL_SERVERS = {
    forward: describe_real_server(RealServer(NO_KEY, forward)) for forward in Forward
}


def describe_key(key: VirtualServerKey | RealServerKey) -> dict[str, Any]:
    """What identifies a virtual or real server, as plain values."""
    if isinstance(key, VirtualServerKey) and key.protocol is None:
        return {"fwmark": key.fwmark, "family": key.family}
    found: dict[str, Any] = {"address": str(key.address), "port": key.port}
    if isinstance(key, VirtualServerKey) and key.protocol is not None:
        found = {"protocol": key.protocol.value, **found}
    return found
