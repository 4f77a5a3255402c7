"""What a director's IPVS table should hold now: the pillar, what the checks found, and what an
operator wished, in one.

The watching thread, ``state.apply`` and the operator's functions all decide here, so that none of
them undoes what another one did. Whoever acts on a decision reads verdicts and wishes under
:data:`saltext.lvs.ipvs.LOCK`, as :func:`saltext.lvs.ipvs.edit` and ``apply`` have it while they ask
what to change.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from saltext.lvs import events, files, ipvs, policy, wire
from saltext.lvs import wishes as wishing
from saltext.lvs.errors import WrongState
from saltext.lvs.health import State
from saltext.lvs.model import (
    Cluster,
    ManagedBy,
    OnFailure,
    RealServer,
    RealServerKey,
    RealServerShare,
    Scheduler,
    VirtualServer,
    VirtualServerConfig,
    in_order,
)
from saltext.lvs.plan import Servers
from saltext.lvs.table import Table

HEALTH = "/run/saltext-lvs/health.json"
# A watcher writes several times in that time, whatever it finds.
STALE_SECONDS = 60.0
FOLDER_MODE = 0o755
READABLE = 0o644
# A comment that nobody reads to its end hides what matters.
MOST_NOTES = 20
HELD = State.HELD.value

Name = tuple[str, str]


def clock() -> float:
    """Seconds since the machine was booted, those asleep too: what verdicts are dated by."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


# --------------------------------------------------------------------------------------------------
# What the checks found


@dataclass(frozen=True, slots=True)
class Found:
    """What the checks of one real server in one virtual server found, all of them together.

    state
        A value of :class:`saltext.lvs.health.State`.

    serves
        Whether it is to have clients for that; None is unknown.

    since, checked
        When it came into that state, and when it was last asked, on :func:`clock`.

    reason
        In words.

    was_away
        It has been out since somebody watches: its weight comes back slowly.

    milliseconds
        How long the last answer took.

    count
        Verdicts in a row that speak against the state.

    busy
        Connections stood on it when it came back.

    falls
        How often it has ceased to serve since somebody watches.
    """

    state: str
    serves: bool | None
    since: float
    reason: str = ""
    was_away: bool = False
    checked: float | None = None
    milliseconds: float | None = None
    count: int = 0
    busy: bool = False
    falls: int = 0


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What the checks found of all, by the names of virtual server and real server.

    boot_id
        The boot that they are of.

    at
        When they were written, on :func:`clock`.

    quorum
        Whether each virtual server has its quorum, as last decided.

    watched
        Whether somebody asks again and again; otherwise, that was once.
    """

    boot_id: str
    at: float
    servers: Mapping[Name, Found] = field(default_factory=dict)
    quorum: Mapping[str, bool] = field(default_factory=dict)
    watched: bool = True

    def age(self, at: float) -> float:
        """Seconds since they were written."""
        return max(at - self.at, 0.0)

    def stale(self, at: float) -> bool:
        """Whether they are so old that nobody watches any more."""
        return self.age(at) > STALE_SECONDS


def write(verdicts: Verdicts, path: str = HEALTH) -> None:
    """Write verdicts down for other processes, whole.

    Raises :class:`~saltext.lvs.errors.CommandFailed`.
    """
    servers: dict[str, dict[str, list[object]]] = {}
    for (virtual_server, real_server), found in verdicts.servers.items():
        servers.setdefault(virtual_server, {})[real_server] = _as_list(found)
    text = json.dumps(
        {
            "boot_id": verdicts.boot_id,
            "at": verdicts.at,
            "watched": verdicts.watched,
            "quorum": dict(verdicts.quorum),
            "virtual_servers": servers,
        }
    )
    files.make_folder(os.path.dirname(path), FOLDER_MODE)
    files.write(path, text, files.Access(READABLE, os.geteuid(), os.getegid()))


def _as_list(found: Found) -> list[object]:
    """In the order of the fields; a later version may add some at the end."""
    return [
        found.state,
        found.serves,
        round(found.since, 3),
        found.reason,
        found.was_away,
        None if found.checked is None else round(found.checked, 3),
        None if found.milliseconds is None else round(found.milliseconds, 2),
        found.count,
        found.busy,
        found.falls,
    ]


_FIELDS = 10


def read(path: str = HEALTH) -> Verdicts | None:
    """The verdicts as last written in this boot; None where nobody has watched in it.

    Raises :class:`~saltext.lvs.errors.WrongState` for a damaged file: to take it for none would
    send clients to the dead.
    """
    text = files.read(path)
    if text is None:
        return None
    try:
        data = json.loads(text[0])
        if data["boot_id"] != events.boot_id():
            return None
        servers = {
            (virtual_server, real_server): Found(*values[:_FIELDS])
            for virtual_server, own in data["virtual_servers"].items()
            for real_server, values in own.items()
        }
        return Verdicts(
            data["boot_id"],
            float(data["at"]),
            servers,
            dict(data["quorum"]),
            bool(data.get("watched", True)),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WrongState(
            f"{path} is damaged; the beacon real_server writes it anew, or take it away"
        ) from error


# --------------------------------------------------------------------------------------------------
# What is to be


@dataclass(frozen=True, slots=True)
class Overlaid:
    """A whole table as it should be, and why it is not just the pillar's.

    decisions
        By the name of the virtual server; where nothing is said of one, it is as configured.

    notes
        Sentences for people: what is not as the pillar has it, and why.
    """

    table: Table
    decisions: Mapping[str, policy.Decision] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def decide(
    config: VirtualServerConfig,
    cluster: Cluster,
    verdicts: Verdicts | None,
    wishes: wishing.Wishes,
    held: VirtualServer | None,
    at: float,
    wall: float,
) -> policy.Decision:
    """What each real server of a virtual server should weigh now.

    held
        The virtual server as it stands in the kernel: who was never checked stays as it is there.

    at
        The time on :func:`clock`.

    wall
        The time in seconds since 1970, which wishes end by.
    """
    return _decide(config, cluster, verdicts, wishes, _weights(held), at, wall)


def _decide(
    config: VirtualServerConfig,
    cluster: Cluster,
    verdicts: Verdicts | None,
    wishes: wishing.Wishes,
    now: Mapping[RealServerKey, int],
    at: float,
    wall: float,
    anew: bool = False,
) -> policy.Decision:
    stale = verdicts is not None and verdicts.stale(at)
    # What an old check said is nothing where nobody is to be asked any more.
    known = verdicts.servers if verdicts is not None and config.asked else {}
    servers = [
        _server(
            share,
            config,
            cluster,
            known.get((config.name, share.name)),
            wishing.of(wishes, config.name, share.name, wall),
            now.get(_key(cluster, share)),
            stale,
            anew,
        )
        for share in config.real_servers
    ]
    had_quorum = verdicts is None or verdicts.quorum.get(config.name, True)
    return policy.decide(servers, limits(config), at, had_quorum)


def limits(config: VirtualServerConfig) -> policy.Limits:
    """The limits that the pillar sets for a virtual server."""
    return policy.Limits(
        on_failure=config.on_failure,
        min_in_service=config.min_in_service,
        sorry=config.sorry_server is not None,
        slow_start=config.slow_start,
        quorum=config.quorum,
        hysteresis=config.hysteresis,
    )


# What these schedulers go by is how many connections a real server has.
_COUNTING = frozenset(
    (Scheduler.LC, Scheduler.WLC, Scheduler.SED, Scheduler.NQ, Scheduler.LBLC, Scheduler.LBLCR)
)


def _server(
    share: RealServerShare,
    config: VirtualServerConfig,
    cluster: Cluster,
    found: Found | None,
    wish: policy.Wish | None,
    now: int | None,
    stale: bool,
    anew: bool,
) -> policy.Server:
    weight = weight_of(cluster, share)
    if wish is not None and not cluster.real_servers[share.name].enabled:
        # It gives up its VIPs: whatever weight somebody wished before, clients would reach nobody.
        wish = replace(wish, weight=None)
    # Who is never checked has the pillar's weight: what was there says nothing of its health.
    if found is None:
        return policy.Server(share.name, weight, wish=wish, backup=share.backup)
    serves = found.serves
    if stale and serves is False and now:
        # Somebody gave it clients again, and nobody has asked it since.
        serves = None
    if serves is None and anew and not stale and now:
        # An old weight of the pillar's; that it was taken out is another matter.
        now = None
    if _cannot_be_asked(found):
        # No check has ever taken it out: a weight of 0 is one of an operator's, or an old one.
        now = None
    return policy.Server(
        name=share.name,
        weight=weight,
        serves=serves,
        since=found.since,
        was_away=found.was_away,
        wish=wish,
        backup=share.backup,
        now=now,
        reason=found.reason,
        in_progress=found.busy and config.scheduler in _COUNTING,
        held=found.state == HELD,
    )


def _cannot_be_asked(found: Found) -> bool:
    """Whether somebody tries, and never got an answer of any kind."""
    tried = found.checked is not None and not found.count
    return tried and found.serves is None and not found.was_away


def busy(
    config: VirtualServerConfig, cluster: Cluster, verdicts: Verdicts, held: VirtualServer | None
) -> dict[Name, Found]:
    """Those that are about to come back while connections stand on them still, noted as such.

    Only before they get new ones can these be told apart. The kernel is asked where it matters.
    """
    out = {real.key for real in held.real_servers if not real.weight} if held else set()
    returning = {
        (config.name, share.name): _key(cluster, share)
        for share in config.real_servers
        if _key(cluster, share) in out
        and (found := verdicts.servers.get((config.name, share.name)))
        and found.serves
        and found.was_away
    }
    if not returning or not config.slow_start or config.scheduler not in _COUNTING:
        return {}
    counts = ipvs.read([config.key]).connections
    return {
        name: replace(verdicts.servers[name], busy=True)
        for name, key in returning.items()
        if (count := counts.get((config.key, key))) and count.active
    }


def _key(cluster: Cluster, share: RealServerShare) -> RealServerKey:
    return RealServerKey(cluster.real_servers[share.name].address, share.port)


def desired(
    cluster: Cluster,
    verdicts: Verdicts | None,
    wishes: wishing.Wishes,
    held: Servers,
    at: float,
    wall: float,
    base: Servers | None = None,
) -> Overlaid:
    """The whole table of a cluster: the pillar's, with what was found and wished laid over it.

    held
        The table as it stands in the kernel.

    base
        The pillar's table, where it is known already.

    The other arguments are those of :func:`decide`.
    """
    table = Table.from_mapping(cluster.table() if base is None else base)
    packed, decisions, notes = dict(table.packed), dict[str, policy.Decision](), list[str]()
    for config in _concerned(cluster, verdicts, wishes):
        decision = _decide(
            config, cluster, verdicts, wishes, _weights(held.get(config.key)), at, wall, anew=True
        )
        decisions[config.name] = decision
        notes += _notes(config, cluster, decision)
        wanted = table[config.key]
        overlaid = _with_weights(wanted, config, decision, cluster)
        if overlaid != wanted:
            packed[wire.pack_key(config.key)] = wire.pack_virtual_server(overlaid)
    if not decisions:
        return Overlaid(table)
    return Overlaid(Table(packed), decisions, (*_about(verdicts, at), *bounded(notes)))


def current(cluster: Cluster, held: Servers, base: Servers | None = None) -> Overlaid:
    """The whole table by what is known at this moment on this machine; see :func:`desired`.

    Raises what :func:`read` and :func:`saltext.lvs.wishes.read` raise.
    """
    verdicts, wishes = read(HEALTH), wishing.read(wishing.WISHES)
    return desired(cluster, verdicts, wishes, held, clock(), time.time(), base)


class Latest:
    """Verdicts and wishes as they are on disk now, read once as long as they do not change."""

    def __init__(self) -> None:
        self._verdicts: tuple[object, Verdicts | None] = (None, None)
        self._wishes: tuple[object, wishing.Wishes] = (None, wishing.Wishes())

    def verdicts(self) -> Verdicts | None:
        """As of :func:`read`."""
        if (version := _version(HEALTH)) != self._verdicts[0] or version is None:
            self._verdicts = (version, read(HEALTH))
        return self._verdicts[1]

    def wishes(self) -> wishing.Wishes:
        """As of :func:`saltext.lvs.wishes.read`."""
        if (version := _version(wishing.WISHES)) != self._wishes[0] or version is None:
            self._wishes = (version, wishing.read(wishing.WISHES))
        return self._wishes[1]

    def decide(
        self, config: VirtualServerConfig, cluster: Cluster, held: VirtualServer | None
    ) -> policy.Decision:
        """As of :func:`decide`, by what is known at this moment."""
        return decide(config, cluster, self.verdicts(), self.wishes(), held, clock(), time.time())


def _version(path: str) -> object:
    """What tells a file from the one that takes its place."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def at_boot(cluster: Cluster) -> Table:
    """The table for the next boot: of health nothing will be known then, of wishes all."""
    wishes = wishing.read(wishing.WISHES)
    return desired(cluster, None, wishes, {}, clock(), time.time()).table


def _concerned(
    cluster: Cluster, verdicts: Verdicts | None, wishes: wishing.Wishes
) -> Iterator[VirtualServerConfig]:
    """The virtual servers that may not be just as the pillar has them."""
    named = {name for name, _ in wishes.wishes}
    hosts = {host for name, host in wishes.wishes if name == wishing.EVERYWHERE}
    if verdicts is not None:
        named |= {name for name, quorum in verdicts.quorum.items() if not quorum}
        named |= {
            name
            for (name, _), found in verdicts.servers.items()
            if found.was_away or not found.serves
        }
    for config in cluster.virtual_servers.values():
        if config.managed_by is ManagedBy.SALT and (
            config.name in named
            or any(share.backup or share.name in hosts for share in config.real_servers)
        ):
            yield config


def _weights(held: VirtualServer | None) -> dict[RealServerKey, int]:
    return {} if held is None else {real.key: real.weight for real in held.real_servers}


def changed(
    server: VirtualServer, config: VirtualServerConfig, decision: policy.Decision, cluster: Cluster
) -> VirtualServer:
    """A virtual server of the kernel's with the weights decided on, for
    :func:`saltext.lvs.ipvs.edit`.

    Whatever else it has stays. A real server that is missing is added where failed ones are taken
    out of the table; elsewhere, somebody is yet to apply the pillar.
    """
    there = {real.key for real in server.real_servers}
    missing = [
        real
        for real in cluster.in_kernel(config).real_servers
        if real.key not in there and config.on_failure is OnFailure.REMOVE
    ]
    whole = replace(server, real_servers=(*server.real_servers, *missing))
    return _with_weights(whole, config, decision, cluster)


def _with_weights(
    server: VirtualServer, config: VirtualServerConfig, decision: policy.Decision, cluster: Cluster
) -> VirtualServer:
    """The virtual server with the weights decided on, and with the sorry server where it serves."""
    weights = {
        _key(cluster, share): decision.shares[share.name].weight for share in config.real_servers
    }
    sorry = _sorry_server(config)
    real_servers = [] if sorry is None or not decision.sorry or sorry.key in weights else [sorry]
    for real in server.real_servers:
        weight = weights.get(real.key, real.weight)
        is_sorry = sorry is not None and real.key == sorry.key and real.key not in weights
        if weight is not None and not is_sorry:
            real_servers.append(real if weight == real.weight else replace(real, weight=weight))
    return replace(server, real_servers=in_order(real_servers))


def _sorry_server(config: VirtualServerConfig) -> RealServer | None:
    """The sorry server as one more real server."""
    sorry = config.sorry_server
    if sorry is None:
        return None
    return RealServer(
        key=RealServerKey(sorry.address, sorry.port),
        forward=config.forward,
        weight=1,
        tunnel_type=config.tunnel.type,
        tunnel_port=config.tunnel.port,
        tunnel_checksum=config.tunnel.checksum,
    )


# --------------------------------------------------------------------------------------------------
# For people


def _notes(
    config: VirtualServerConfig, cluster: Cluster, decision: policy.Decision
) -> Iterator[str]:
    """What is not as the pillar has it, and why; that a backup waits is as the pillar has it."""
    for share in config.real_servers:
        found = decision.shares[share.name]
        if found.why and found.why != policy.IDLE:
            yield _note(config.name, share.name, found, weight_of(cluster, share))
    if decision.sorry:
        yield f"{config.name}: the sorry server serves, because too few real servers do"


def _note(virtual_server: str, real_server: str, share: policy.Share, configured: int) -> str:
    if share.weight is None:
        what = "is out of the table"
    elif share.weight == configured:
        what = f"has weight {share.weight}"
    else:
        what = f"has weight {share.weight} instead of {configured}"
    return f"{real_server} of {virtual_server} {what}: {share.why}"


def weight_of(cluster: Cluster, share: RealServerShare) -> int:
    """The weight that the pillar gives a real server."""
    return share.weight if cluster.real_servers[share.name].enabled else 0


def _about(verdicts: Verdicts | None, at: float) -> Iterator[str]:
    if verdicts is not None and verdicts.stale(at):
        yield (
            f"the real servers were last checked {verdicts.age(at) / 60:.0f} minutes ago: what was "
            "found then holds, until the beacon real_server runs again"
        )


def bounded(notes: Sequence[str]) -> tuple[str, ...]:
    """As many as anybody reads."""
    if len(notes) <= MOST_NOTES:
        return tuple(notes)
    return (*notes[:MOST_NOTES], f"and {len(notes) - MOST_NOTES} more; lvs.health tells all")
