"""Virtual servers that change hands between keepalived and Salt, without clients noticing.

From keepalived to Salt: at a reload keepalived deletes what its file does not name any more. So
whoever signals it watches the table meanwhile, and puts back at once what goes. The kernel keeps
the connections of a deleted real server, and gives them to the one that takes its place.

From Salt to keepalived: keepalived adds what is there already, is refused by the kernel, and takes
it for its own all the same, with whatever settings it has. So it gets the pillar's settings before.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace

from saltext.lvs import ipvs, locking, overlay, sysctls
from saltext.lvs import plan as planning
from saltext.lvs import table as tables
from saltext.lvs.errors import InvalidConfig, WrongState
from saltext.lvs.loading import blocks_of
from saltext.lvs.model import Cluster, ManagedBy, VirtualServer, VirtualServerKey, in_order
from saltext.lvs.plan import Action, Op
from saltext.lvs.table import Table
from saltext.lvs.trackfiles import Weight

# With 1, the kernel ends a connection whose packet comes while its real server is away.
# So many are read whole at each look, in a millisecond or two.
FEW = 8
EXPIRE_NODEST_CONN = f"{sysctls.IPVS_FOLDER}/expire_nodest_conn"


def named_in(text: str) -> frozenset[VirtualServerKey]:
    """The virtual servers that a configuration of keepalived's names, without its groups."""
    return frozenset(_keys(text))


def _keys(text: str) -> Iterator[VirtualServerKey]:
    for head, lines in blocks_of(text, "virtual_server").items():
        words = head.split()
        said = (line.split() for line in lines)
        protocol = next((line[1].lower() for line in said if line[0] == "protocol"), "tcp")
        with contextlib.suppress(InvalidConfig):
            if words[0] == "fwmark":
                # The family may follow from the real servers: one of the two is meant.
                yield tables.virtual_server_key(f"fwmark {words[1]}")
                yield tables.virtual_server_key(f"fwmark {words[1]} (IPv6)")
            elif words[0] != "group" and len(words) > 1:
                address = f"[{words[0]}]" if ":" in words[0] else words[0]
                yield tables.virtual_server_key(f"{protocol} {address}:{words[1]}")


# --------------------------------------------------------------------------------------------------
# From keepalived to Salt


class Watch:
    """Puts back, at each call, what is missing of some virtual servers.

    away
        For how many seconds the longest of their absences lasted at most: from the begin of a look
        that found it there to the end of the one that has put it back.
    """

    def __init__(
        self, kernel: ipvs.Client, wanted: Mapping[VirtualServerKey, VirtualServer]
    ) -> None:
        self._kernel = kernel
        self._wanted = Table.from_mapping(wanted).packed
        created = planning.plan_packed({}, self._wanted)
        self._services = [op for op in created if op.action is Action.ADD_VIRTUAL_SERVER]
        self._real_servers: dict[bytes, list[Op]] = {op.service: [] for op in created}
        for op in created:
            if op.action is Action.ADD_REAL_SERVER:
                self._real_servers[op.service].append(op)
        self.away = 0.0
        self.put_back: set[VirtualServerKey] = set()
        self._looked_at = time.monotonic()

    def __call__(self) -> None:
        """Look once, and act."""
        began = time.monotonic()
        if self._look():
            self.away = max(self.away, time.monotonic() - self._looked_at)
        self._looked_at = began
        # Whoever deletes needs the processor too, and there may be just one.
        time.sleep(time.monotonic() - began)

    def _look(self) -> bool:
        if len(self._wanted) <= FEW:
            return bool(self.repair())
        # To add what is there is refused; no question costs less.
        refused = self._kernel.send(self._services)
        gone = [op for at, op in enumerate(self._services) if at not in refused]
        self._kernel.send([real for op in gone for real in self._real_servers[op.service]])
        self.put_back |= {op.virtual_server for op in gone}
        return bool(gone)

    def repair(self) -> tuple[Op, ...]:
        """Look at all of them whole, and act; returns what was missing."""
        ops = planning.plan_packed(self._kernel.packed(list(self._wanted)), self._wanted)
        if ops:
            self._kernel.send(ops)
            self.put_back |= {op.virtual_server for op in ops}
        return ops


def _finish(watch: Watch) -> None:
    left: tuple[Op, ...] = ()
    for _ in range(ipvs.ATTEMPTS):
        left = watch.repair()
        if not left:
            return
    what = "; ".join(str(op) for op in left)
    raise WrongState(f"what keepalived gave up is not back in the table: {what}")


@contextlib.contextmanager
def watched(cluster: Cluster, moved: Collection[VirtualServerKey]) -> Iterator[Watch | None]:
    """Keep some virtual servers in the table while somebody takes them out; ``None`` for none.

    Other writers of this library wait meanwhile, so what health and wishes say at the begin holds.
    """
    if not moved:
        yield None
        return
    with ExitStack() as stack:
        stack.enter_context(locking.exclusive(ipvs.LOCK))
        kernel = stack.enter_context(ipvs.client())
        stack.enter_context(_connections_spared())
        stack.enter_context(_before_others())
        watch = Watch(kernel, decided(cluster, moved))
        try:
            yield watch
        finally:
            _finish(watch)


def decided(
    cluster: Cluster, moved: Collection[VirtualServerKey]
) -> dict[VirtualServerKey, VirtualServer]:
    """What some virtual servers should be now: who is drained or dead gets no clients.

    Raises what :func:`saltext.lvs.overlay.current` raises.
    """
    table = overlay.current(cluster, ipvs.read(moved).table).table
    return {key: table[key] for key in moved}


@contextlib.contextmanager
def _connections_spared() -> Iterator[None]:
    """What is cut off for a moment would else be ended for good."""
    before = _setting()
    if before != "1":
        yield
        return
    _set("0")
    try:
        yield
    finally:
        _set(before)


@contextlib.contextmanager
def _before_others() -> Iterator[None]:
    """Let this thread run as soon as it has something to do; it rests between its looks."""
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except OSError:  # in a container without the right to it, it takes its turn
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)


def _setting() -> str:
    try:
        with open(EXPIRE_NODEST_CONN, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _set(value: str) -> None:
    # Without the right to, it is no worse than a real server's going.
    with contextlib.suppress(OSError), open(EXPIRE_NODEST_CONN, "w", encoding="ascii") as file:
        file.write(value)


# --------------------------------------------------------------------------------------------------
# From Salt to keepalived


def adopted(
    cluster: Cluster,
    weights: Mapping[tuple[str, str], Weight],
    held: Collection[VirtualServerKey],
    loaded: Collection[VirtualServerKey],
) -> dict[VirtualServerKey, VirtualServer]:
    """What keepalived will find in the kernel and take for its own, as it is to be then.

    held
        What the kernel has.

    loaded
        What keepalived keeps already.
    """
    found = {
        config.name: config
        for config in cluster.virtual_servers.values()
        if config.managed_by is ManagedBy.KEEPALIVED
        # Salt keeps no groups, so none of them comes from there.
        and not config.group
        and config.key in held
        and config.key not in loaded
    }
    as_ours = {name: replace(config, managed_by=ManagedBy.SALT) for name, config in found.items()}
    table = replace(cluster, virtual_servers=as_ours).table()
    return {
        config.key: _weighed(cluster, name, table[config.key], weights)
        for name, config in found.items()
    }


def _weighed(
    cluster: Cluster,
    name: str,
    server: VirtualServer,
    weights: Mapping[tuple[str, str], Weight],
) -> VirtualServer:
    """With the weights that keepalived will give, so that none changes twice."""
    config = cluster.virtual_servers[name]
    effective = {
        (cluster.real_servers[share.name].address, share.port): weights[name, share.name].effective
        for share in config.real_servers
        if (name, share.name) in weights
    }
    reals = [
        replace(
            real,
            weight=effective.get((real.key.address, real.key.port), real.weight),
        )
        for real in server.real_servers
    ]
    return replace(server, real_servers=in_order(reals))


@dataclass(frozen=True, slots=True)
class Moves:
    """Which virtual servers change hands."""

    to_salt: Collection[VirtualServerKey]
    to_keepalived: Mapping[VirtualServerKey, VirtualServer]


def moves(cluster: Cluster, weights: Mapping[tuple[str, str], Weight], loaded: str | None) -> Moves:
    """What changes hands between what keepalived has loaded and what the pillar says.

    loaded
        The text that keepalived has loaded; ``None`` where that of a running one is not to be seen,
        and ``""`` where none runs.
    """
    if loaded is None:
        # What it keeps is its own: a real server that it has found dead would get clients.
        return Moves(frozenset(), {})
    kept = named_in(loaded)
    to_salt = cluster.table().keys() & kept
    if not ipvs.loaded():
        return Moves(to_salt, {})
    concerned = cluster.keepalived_keys() - kept
    held = ipvs.read(concerned).table if concerned else {}
    return Moves(to_salt, adopted(cluster, weights, held, kept))


def prepare(planned: Moves) -> None:
    """Give what keepalived will take over the pillar's settings first."""
    if planned.to_keepalived:
        ipvs.apply(planned.to_keepalived)
