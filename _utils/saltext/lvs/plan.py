"""What must be done to turn one IPVS table into another, as values and in an order that drops
nobody.

:func:`plan` is a pure function. Test mode, apply, the reported changes and drift detection all use
its operations.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from saltext.lvs.model import Forward, RealServer, RealServerKey, VirtualServer, VirtualServerKey

Table = Mapping[VirtualServerKey, VirtualServer]


class Action(enum.Enum):
    """The six things that can be done to an IPVS table; the values are words for comments."""

    ADD_VIRTUAL_SERVER = "add"
    ADD_REAL_SERVER = "add real server"
    SET_REAL_SERVER = "change real server"
    SET_VIRTUAL_SERVER = "change"
    DELETE_REAL_SERVER = "delete real server"
    DELETE_VIRTUAL_SERVER = "delete"


@dataclass(frozen=True, slots=True)
class Op:
    """One operation on the table.

    virtual_server
        The virtual server it concerns, without its real servers.

    real_server
        The real server that is added, changed or deleted; ``None`` where the virtual server itself
        is.

    was
        What stood there before a change or deletion.
    """

    action: Action
    virtual_server: VirtualServer
    real_server: RealServer | None = None
    was: VirtualServer | RealServer | None = None

    def __str__(self) -> str:
        if self.real_server is None:
            return f"{self.action.value} virtual server {self.virtual_server.key}"
        return f"{self.action.value} {self.real_server.key} of {self.virtual_server.key}"


def plan(
    current: Table,
    desired: Table,
    purge: bool = False,
    leave: Collection[VirtualServerKey] = (),
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
    """
    wanted = {key: server for key, server in desired.items() if key not in leave}
    added = [key for key in wanted if key not in current]
    kept = [key for key in wanted if key in current]
    gone = [key for key in current if key not in desired and key not in leave] if purge else []
    changes = [_real_server_ops(current[key], wanted[key]) for key in kept]
    return (
        *(op for key in added for op in _creation(wanted[key])),
        *_of(changes, Action.ADD_REAL_SERVER),
        *sorted(_of(changes, Action.SET_REAL_SERVER), key=_lowers),
        *(op for key in kept for op in _settings_ops(current[key], wanted[key])),
        *_of(changes, Action.DELETE_REAL_SERVER),
        *(op for key in gone for op in _deletion(current[key])),
    )


def _creation(server: VirtualServer) -> list[Op]:
    settings = server.settings()
    return [
        Op(Action.ADD_VIRTUAL_SERVER, settings),
        *(Op(Action.ADD_REAL_SERVER, settings, real_server) for real_server in server.real_servers),
    ]


def _deletion(server: VirtualServer) -> list[Op]:
    # The kernel drops the real servers with it.
    return [Op(Action.DELETE_VIRTUAL_SERVER, server.settings(), None, server)]


def _settings_ops(current: VirtualServer, wanted: VirtualServer) -> list[Op]:
    # While a scheduler is being replaced the kernel has none for a moment, so never without need.
    if current.settings() == wanted.settings():
        return []
    return [Op(Action.SET_VIRTUAL_SERVER, wanted.settings(), None, current.settings())]


def _real_server_ops(current: VirtualServer, wanted: VirtualServer) -> list[Op]:
    have = {server.key: server for server in current.real_servers}
    want = {server.key: server for server in wanted.real_servers}
    settings = wanted.settings()
    return [
        *(Op(Action.ADD_REAL_SERVER, settings, want[key]) for key in want if key not in have),
        *(
            Op(Action.SET_REAL_SERVER, settings, want[key], have[key])
            for key in want
            if key in have and not same_real_server(have[key], want[key])
        ),
        *(
            Op(Action.DELETE_REAL_SERVER, settings, have[key], have[key])
            for key in have
            if key not in want
        ),
    ]


def same_real_server(have: RealServer, want: RealServer) -> bool:
    """Whether the kernel's real server is the wanted one.

    For an address of the director itself the kernel answers "local" whatever forwarding was asked
    for (__ip_vs_update_dest in net/netfilter/ipvs/ip_vs_ctl.c).
    """
    if have.forward is Forward.LOCAL:
        return _settled(have) == _settled(want)
    return have == want


def _settled(server: RealServer) -> tuple[Any, ...]:
    return (server.key, server.weight, server.upper_threshold, server.lower_threshold)


def _of(changes: Iterable[Iterable[Op]], action: Action) -> list[Op]:
    return [op for ops in changes for op in ops if op.action is action]


def _lowers(op: Op) -> bool:
    assert isinstance(op.was, RealServer) and op.real_server is not None
    return op.real_server.weight < op.was.weight


# --------------------------------------------------------------------------------------------------
# For people and for Salt's returns


def describe(server: VirtualServer | RealServer) -> dict[str, Any]:
    """The settings of a virtual or real server as plain, JSON-clean values, without its key."""
    return {
        item.name: _word(getattr(server, item.name))
        for item in fields(server)
        if item.name not in ("key", "real_servers")
    }


def changes(ops: Iterable[Op]) -> dict[str, dict[str, Any]]:
    """The operations as Salt reports changes: one ``old``/``new`` for each virtual server and real
    server.

    ``None`` stands for "is not there". A change names just the settings that differ, and what comes
    or goes just those that are not the kernel's defaults.
    """
    found: dict[str, dict[str, Any]] = {}
    for op in ops:
        found[_subject(op.virtual_server, op.real_server)] = _old_new(op)
        if op.action is Action.DELETE_VIRTUAL_SERVER and isinstance(op.was, VirtualServer):
            for server in op.was.real_servers:
                found[_subject(op.was, server)] = {"old": _telling(server), "new": None}
    return found


def _subject(virtual_server: VirtualServer, real_server: RealServer | None) -> str:
    if real_server is None:
        return str(virtual_server.key)
    return f"{virtual_server.key} -> {real_server.key}"


def _old_new(op: Op) -> dict[str, Any]:
    now = op.real_server or op.virtual_server
    if op.action in (Action.ADD_VIRTUAL_SERVER, Action.ADD_REAL_SERVER):
        return {"old": None, "new": _telling(now)}
    if op.action in (Action.DELETE_VIRTUAL_SERVER, Action.DELETE_REAL_SERVER):
        return {"old": _telling(now), "new": None}
    assert op.was is not None
    old, new = describe(op.was), describe(now)
    differ = [name for name in new if old[name] != new[name]]
    return {
        "old": {name: old[name] for name in differ},
        "new": {name: new[name] for name in differ},
    }


def _telling(server: VirtualServer | RealServer) -> dict[str, Any]:
    """The settings worth a line in a report."""
    always = {"scheduler", "forward", "weight"}
    unset = {"netmask": 128 if isinstance(server, VirtualServer) and server.key.family == 6 else 32}
    return {
        name: value
        for name, value in describe(server).items()
        if name in always or (value and value != unset.get(name))
    }


def as_data(table: Table) -> dict[str, dict[str, Any]]:
    """A table as plain values, by virtual server and real server: what ``ipvs.list`` returns."""
    return {
        str(key): {
            **describe_key(key),
            **describe(table[key]),
            "real_servers": {
                str(server.key): {**describe_key(server.key), **describe(server)}
                for server in table[key].real_servers
            },
        }
        for key in sorted(table, key=VirtualServerKey.sort_key)
    }


def describe_key(key: VirtualServerKey | RealServerKey) -> dict[str, Any]:
    """What identifies a virtual or real server, as plain values."""
    if isinstance(key, VirtualServerKey) and key.protocol is None:
        return {"fwmark": key.fwmark, "family": key.family}
    found: dict[str, Any] = {"address": str(key.address), "port": key.port}
    if isinstance(key, VirtualServerKey) and key.protocol is not None:
        found = {"protocol": key.protocol.value, **found}
    return found


def _word(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value
