"""What an operator asks of real servers: drain, maintenance, another weight; and how they are.

A wish is noted first, then set at once, on this director: a highstate, the watcher and the next
boot keep to it. Of what keepalived keeps, the files of weights follow from the wishes.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

from saltext.lvs import (
    boot,
    checksets,
    description,
    events,
    fresh,
    ipvs,
    locking,
    model,
    overlay,
    plan,
    probe,
    trackfiles,
)
from saltext.lvs import wishes as wishing
from saltext.lvs.checks import Check, Verdict
from saltext.lvs.errors import InvalidConfig, LvsError, WrongState
from saltext.lvs.health import State
from saltext.lvs.model import (
    MAX_WEIGHT,
    Cluster,
    ManagedBy,
    RealServerKey,
    RealServerShare,
    VirtualServer,
    VirtualServerConfig,
)
from saltext.lvs.plan import Op
from saltext.lvs.policy import Wish

# Nobody means longer: what should last is for the pillar.
LONGEST_SECONDS = 366 * 24 * 3600
MOST_WAIT_SECONDS = 24 * 3600
# How often at most it is told how a wait goes on.
TELL_SECONDS = 5.0
POLL_SECONDS = 0.5
# How often at most the real servers of a virtual server are asked because somebody says so.
TURN_SECONDS = 10.0
TURNS = f"{locking.FOLDER}/reweight"
# Before who has failed, but not often enough to be dead, is asked once more.
AGAIN_SECONDS = 0.5

Name = tuple[str, str]
Said = Mapping[Name, Wish]
Edits = dict[Name, Wish | None]


@dataclass(frozen=True, slots=True)
class Done:
    """What was done at once.

    ops
        To the kernel's table.

    left
        What another program works against.

    given
        Where keepalived gives another weight now.
    """

    ops: tuple[Op, ...] = ()
    left: tuple[Op, ...] = ()
    given: tuple[trackfiles.Given, ...] = ()

    def as_data(self) -> dict[str, Any]:
        """As ``ipvs.apply`` returns it."""
        changes = dict(plan.changes(self.ops))
        for one in self.given:
            changes.update(one.as_changes())
        return {
            "operations": [*map(str, self.ops), *map(str, self.given)],
            "changes": changes,
            "left": [str(op) for op in self.left],
        }


# --------------------------------------------------------------------------------------------------
# Who is meant


def named(cluster: Cluster, real_server: object, virtual_server: object = None) -> tuple[Name, ...]:
    """The places that a real server has, or the one that is meant.

    Raises :class:`~saltext.lvs.errors.InvalidConfig` for a name that the pillar does not have.
    """
    if virtual_server is not None:
        one_of("virtual_server", virtual_server, cluster.virtual_servers)
    found = tuple(
        (config.name, share.name)
        for config in cluster.virtual_servers.values()
        for share in config.real_servers
        if share.name == real_server and virtual_server in (None, config.name)
    )
    if found:
        return found
    several = {
        share.name: share
        for config in cluster.virtual_servers.values()
        if virtual_server in (None, config.name)
        for share in config.real_servers
    }
    one_of("real_server", real_server, several)
    raise AssertionError("one that is known has a place")


def _still_named(
    cluster: Cluster, real_server: str, virtual_server: str | None
) -> tuple[Name, ...]:
    """As :func:`named`; none for one that the pillar has no more, but of which something is wished.

    What is wished of it would be in force again when its name comes back.
    """
    try:
        return named(cluster, real_server, virtual_server)
    except InvalidConfig:
        said = wishing.read(wishing.WISHES).wishes
        if any(real_server == host and virtual_server in (None, name) for name, host in said):
            return ()
        raise


def one_of(path: str, name: object, known: Mapping[str, Any]) -> None:
    """Raise :class:`~saltext.lvs.errors.InvalidConfig` for a name that is not known."""
    if not isinstance(name, str) or name not in known:
        several = ", ".join(known) or "there is none"
        raise InvalidConfig(path, name, f"the name of one in the pillar: {several}")


def _of_salt(cluster: Cluster, places: Iterable[Name]) -> list[Name]:
    return [
        place for place in places if cluster.virtual_servers[place[0]].managed_by is ManagedBy.SALT
    ]


# --------------------------------------------------------------------------------------------------
# Wishes


def drain(
    cluster: Cluster, real_server: str, virtual_server: str | None, why: str, now: float
) -> Done:
    """No new clients for a real server, in one virtual server or everywhere."""
    places = named(cluster, real_server, virtual_server)

    def drained(wish: Wish) -> Wish:
        return replace(wish, drain=True, served=False, why=why or wish.why, at=now)

    def edit(said: Said) -> Edits:
        return _edits(said, _concerned(said, real_server, virtual_server), drained)

    return _change(cluster, places, edit, now)


def undrain(cluster: Cluster, real_server: str, virtual_server: str | None, now: float) -> Done:
    """Take a drain back; in one virtual server also that of the whole host."""
    places = _still_named(cluster, real_server, virtual_server)

    def edit(said: Said) -> Edits:
        host = said.get((wishing.EVERYWHERE, real_server), Wish())
        in_spite = virtual_server is not None and host.drain

        def undrained(wish: Wish) -> Wish:
            why = "" if wish.weight is None else wish.why
            return replace(wish, drain=False, served=in_spite, why=why, at=now)

        return _edits(said, _concerned(said, real_server, virtual_server), undrained)

    return _change(cluster, places, edit, now)


def maintain(cluster: Cluster, real_server: str, on: bool, why: str, now: float) -> Done:
    """A host in maintenance has no clients anywhere, whatever else is wished of it."""
    places = (named if on else _still_named)(cluster, real_server, None)

    def maintained(wish: Wish) -> Wish:
        # A drain that stays, stays for its reason.
        said = why or wish.why if on or wish.drain else ""
        return replace(wish, maintenance=on, why=said, at=now)

    def edit(said: Said) -> Edits:
        return _edits(said, [(wishing.EVERYWHERE, real_server)], maintained)

    return _change(cluster, places, edit, now)


def set_weight(
    cluster: Cluster,
    virtual_server: str,
    real_server: str,
    weight: int | None,
    seconds: float | None,
    why: str,
    now: float,
) -> Done:
    """Another weight than the pillar's, for a time or until it is taken back with ``None``."""
    one_of("virtual_server", virtual_server, cluster.virtual_servers)
    places = (named if weight is not None else _still_named)(cluster, real_server, virtual_server)
    if weight and not cluster.real_servers[real_server].enabled:
        raise WrongState(
            f"{real_server} is not enabled in the pillar, so it gives up its VIPs: enable it there"
        )
    if seconds is not None and not _of_salt(cluster, places):
        raise InvalidConfig(
            "seconds", seconds, "left out: keepalived keeps a weight until it is reset"
        )
    until = None if seconds is None or weight is None else now + seconds

    def weighed(wish: Wish) -> Wish:
        return replace(wish, weight=weight, until=until, why=why or wish.why, at=now)

    def edit(said: Said) -> Edits:
        return _edits(said, [(virtual_server, real_server)], weighed)

    return _change(cluster, places, edit, now)


def _concerned(said: Said, real_server: str, virtual_server: str | None) -> Iterator[Name]:
    """Where something is to be wished: in one virtual server, or of the host and wherever something
    was said of it, which would stand before that.
    """
    yield virtual_server or wishing.EVERYWHERE, real_server
    if virtual_server is None:
        yield from (key for key in said if key[1] == real_server)


def _edits(said: Said, keys: Iterable[Name], to: Callable[[Wish], Wish]) -> Edits:
    return {key: wishing.or_none(to(said.get(key, Wish()))) for key in keys}


def _change(cluster: Cluster, places: Iterable[Name], edit: wishing.Edit, now: float) -> Done:
    wishing.revise(edit, wishing.WISHES, now)
    return _settle(cluster, places)


def keepalived_weight(
    cluster: Cluster, virtual_server: str, real_server: str, weight: int | None, now: float
) -> tuple[trackfiles.Weight, trackfiles.Weight]:
    """The same of one that keepalived keeps, where it has a file; returns its old and its new one.

    Raises what :func:`saltext.lvs.trackfiles.set_weight` does.
    """
    as_weight(weight)
    trackfiles.expect(cluster, virtual_server, real_server, trackfiles.FOLDER)

    def weighed(wish: Wish) -> Wish:
        return replace(wish, weight=weight, until=None, at=now)

    def edit(said: Said) -> Edits:
        return _edits(said, [(virtual_server, real_server)], weighed)

    wishing.revise(edit, wishing.WISHES, now)
    given = trackfiles.follow(cluster, virtual_server, real_server, trackfiles.FOLDER)
    return given.old, given.new


# --------------------------------------------------------------------------------------------------
# Set


def _settle(cluster: Cluster, places: Iterable[Name]) -> Done:
    """Set what follows at once, and for the next boot: as much of it as can be.

    Raises :class:`~saltext.lvs.errors.WrongState` where some could not.
    """
    places, troubles = tuple(places), _Troubles()
    names = dict.fromkeys(virtual_server for virtual_server, _ in _of_salt(cluster, places))
    done = _set(cluster, names, troubles)
    with troubles.of("the next boot"), wishing.locked(wishing.WISHES):
        boot.keep_table(overlay.at_boot(_applied(cluster)).values())
    given = []
    for virtual_server, real_server in places:
        if cluster.virtual_servers[virtual_server].managed_by is ManagedBy.KEEPALIVED:
            with troubles.of(virtual_server):
                given.append(
                    trackfiles.follow(cluster, virtual_server, real_server, trackfiles.FOLDER)
                )
    troubles.tell()
    return replace(done, given=tuple(one for one in given if one.old != one.new))


def _applied(cluster: Cluster) -> Cluster:
    """The cluster as it was applied last: a pillar that nobody has applied yet is for no boot."""
    kept = description.read()
    return cluster if kept is None else model.from_pillar(kept)


def settle(cluster: Cluster, names: Iterable[str]) -> Done:
    """Decide virtual servers anew, and set what follows.

    Where IPVS is not loaded there is nothing to set yet. Raises
    :class:`~saltext.lvs.errors.WrongState` where some could not be set; the others have been.
    """
    troubles = _Troubles()
    done = _set(cluster, names, troubles)
    troubles.tell()
    return done


class _Troubles:
    """What went wrong with some, while the others are gone on with."""

    def __init__(self) -> None:
        self._found: list[str] = []

    @contextlib.contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Note an error of ours, and go on."""
        try:
            yield
        except LvsError as error:
            self._found.append(f"{name}: {error}")

    def tell(self) -> None:
        """Raise :class:`~saltext.lvs.errors.WrongState` if there was any."""
        if self._found:
            told = "; ".join(self._found)
            raise WrongState(f"it is noted, but could not be set now: {told}")


def _set(cluster: Cluster, names: Iterable[str], troubles: _Troubles) -> Done:
    if not ipvs.loaded():
        return Done()
    ops: list[Op] = []
    left: list[Op] = []
    latest = overlay.Latest()
    for name in names:
        config = cluster.virtual_servers[name]
        with troubles.of(name):
            outcome = ipvs.edit(config.key, _decider(latest, cluster, config))
            ops += outcome.ops
            left += outcome.left
    return Done(tuple(ops), tuple(left))


def _decider(
    latest: overlay.Latest, cluster: Cluster, config: VirtualServerConfig
) -> Callable[[VirtualServer | None], VirtualServer | None]:
    def changed(held: VirtualServer | None) -> VirtualServer | None:
        # By what is known now, while nobody else can change the table.
        if held is None:
            return None
        decision = latest.decide(config, cluster, held)
        return overlay.changed(held, config, decision, cluster)

    return changed


# --------------------------------------------------------------------------------------------------
# Wait


def active(cluster: Cluster, places: Iterable[Name]) -> dict[str, int]:
    """The active connections of a real server, by virtual server."""
    if not ipvs.loaded():
        return {}
    keys = {
        name: [(key, _address(cluster, name, real_server)) for key in config.keys]
        for name, real_server in places
        if (config := cluster.virtual_servers[name])
    }
    found = ipvs.read([key for several in keys.values() for key, _ in several]).connections
    return {
        name: sum(found[place].active for place in several if place in found)
        for name, several in keys.items()
    }


def _address(cluster: Cluster, virtual_server: str, real_server: str) -> RealServerKey:
    shares = cluster.virtual_servers[virtual_server].real_servers
    port = next(share.port for share in shares if share.name == real_server)
    return RealServerKey(cluster.real_servers[real_server].address, port)


def wait(
    count: Callable[[], Mapping[str, int]],
    seconds: float,
    tell: Callable[[float, Mapping[str, int]], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[dict[str, int], float]:
    """Wait until nobody is served any more, but only so long; what is open then, and how long that
    took. *tell* hears of the first and the last, and of changes every :data:`TELL_SECONDS`.
    """
    began = clock()
    last: dict[str, int] | None = None
    due = 0.0
    while True:
        found, passed = dict(count()), clock() - began
        over = not any(found.values()) or passed >= seconds
        if found != last and (over or passed >= due):
            tell(passed, found)
            last, due = found, passed + TELL_SECONDS
        if over:
            return found, passed
        sleep(min(POLL_SECONDS, max(seconds - passed, 0.001)))


def as_seconds(path: str, value: Any, most: float) -> float:
    """A number of seconds from 0.

    Raises :class:`~saltext.lvs.errors.InvalidConfig`.
    """
    if type(value) not in (int, float) or not 0 <= value <= most:
        raise InvalidConfig(path, value, f"a number of seconds from 0 to {most}")
    return float(value)


def as_duration(path: str, value: Any) -> float | None:
    """For how many seconds something is wished; None for until it is taken back.

    Raises :class:`~saltext.lvs.errors.InvalidConfig`.
    """
    if value is None:
        return None
    if type(value) not in (int, float) or not 0 < value <= LONGEST_SECONDS:
        raise InvalidConfig(path, value, f"a number of seconds above 0, {LONGEST_SECONDS} at most")
    return float(value)


def as_weight(value: Any) -> int | None:
    """A weight, or None for the pillar's.

    Raises :class:`~saltext.lvs.errors.InvalidConfig`.
    """
    if value is None or (type(value) is int and 0 <= value <= MAX_WEIGHT):
        return None if value is None else int(value)
    raise InvalidConfig("weight", value, f"a whole number from 0 to {MAX_WEIGHT}, or None")


# --------------------------------------------------------------------------------------------------
# How they are


def told(cluster: Cluster, only: str | None = None) -> dict[str, Any]:
    """What is known of real servers and what follows from it, as plain values."""
    if only is not None:
        one_of("virtual_server", only, cluster.virtual_servers)
    latest = overlay.Latest()
    verdicts, at = latest.verdicts(), overlay.clock()
    view = _View(cluster, latest, verdicts, at, time.time() - at)
    table = ipvs.read().table if ipvs.loaded() else {}
    return {
        "watched": verdicts is not None and verdicts.watched and not verdicts.stale(at),
        "age": None if verdicts is None else round(verdicts.age(at), 1),
        "virtual_servers": {
            config.name: _of_virtual_server(view, config, table.get(config.keys[0]))
            for config in cluster.virtual_servers.values()
            if only in (None, config.name)
        },
        "wishes_for_nobody": [*_for_nobody(view, only)],
    }


@dataclass(frozen=True, slots=True)
class _View:
    """What is known; *since_1970* turns :func:`saltext.lvs.overlay.clock` into that."""

    cluster: Cluster
    latest: overlay.Latest
    verdicts: overlay.Verdicts | None
    at: float
    since_1970: float


def _of_virtual_server(
    view: _View, config: VirtualServerConfig, held: VirtualServer | None
) -> dict[str, Any]:
    answer: dict[str, Any] = {"managed_by": config.managed_by.value}
    decision = None
    if config.managed_by is ManagedBy.SALT:
        decision = view.latest.decide(config, view.cluster, held)
        answer.update(quorum=decision.quorum, sorry=decision.sorry, kept=list(decision.kept))
    weights = {} if held is None else {real.key: real.weight for real in held.real_servers}
    answer["real_servers"] = {
        share.name: {
            **_of_health(view, config, share),
            "weight": weights.get(_address(view.cluster, config.name, share.name)),
            "configured": overlay.weight_of(view.cluster, share),
            "why": "" if decision is None else decision.shares[share.name].why,
            "wish": _of_wish(view, config.name, share.name),
        }
        for share in config.real_servers
    }
    return answer


def _of_health(view: _View, config: VirtualServerConfig, share: RealServerShare) -> dict[str, Any]:
    limits = {"rise": config.check.rise, "fall": config.check.fall}
    found = view.verdicts and view.verdicts.servers.get((config.name, share.name))
    if not found:
        nothing = dict.fromkeys(("since", "checked", "ms"))
        return {"state": "unknown", "reason": "", "count": 0, "falls": 0, **nothing, **limits}
    return {
        "state": found.state,
        "reason": found.reason,
        "count": found.count,
        "since": _moment(view.since_1970 + found.since) if found.since else None,
        "checked": None if found.checked is None else round(view.at - found.checked, 1),
        "ms": found.milliseconds,
        "falls": found.falls,
        **limits,
    }


def _of_wish(view: _View, virtual_server: str, real_server: str) -> dict[str, Any] | None:
    now = view.since_1970 + view.at
    wish = wishing.of(view.latest.wishes(), virtual_server, real_server, now)
    return None if wish is None else _as_data(wish)


def _for_nobody(view: _View, only: str | None) -> Iterator[dict[str, Any]]:
    """What is wished of those that the pillar does not have there, or no more."""
    places = {
        (name, share.name)
        for config in view.cluster.virtual_servers.values()
        for share in config.real_servers
        for name in (config.name, wishing.EVERYWHERE)
    }
    for (name, host), wish in view.latest.wishes().wishes.items():
        if (name, host) not in places and only in (None, name):
            yield {"virtual_server": name, "real_server": host, **_as_data(wish)}


def _as_data(wish: Wish) -> dict[str, Any]:
    return {
        "drain": wish.drain,
        "maintenance": wish.maintenance,
        "weight": wish.weight,
        "until": None if wish.until is None else _moment(wish.until),
        "why": wish.why,
        "at": _moment(wish.at),
    }


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


# --------------------------------------------------------------------------------------------------
# Ask again


def reweight(cluster: Cluster, virtual_server: str | None, real_server: str | None) -> Done:
    """Set the weights that follow from health; who was not asked lately is asked now.

    Where a watcher runs it has just asked. Without one all are asked, once in
    :data:`TURN_SECONDS`, and the answers are noted as the watcher's are.
    """
    if virtual_server is not None:
        one_of("virtual_server", virtual_server, cluster.virtual_servers)
    if real_server is not None:
        named(cluster, real_server, virtual_server)
    names = [
        config.name
        for config in cluster.virtual_servers.values()
        if config.managed_by is ManagedBy.SALT
        and virtual_server in (None, config.name)
        and (real_server is None or any(s.name == real_server for s in config.real_servers))
    ]
    _ask(cluster)
    return settle(cluster, names)


def _ask(cluster: Cluster) -> None:
    if _is_watched(overlay.read(overlay.HEALTH)):
        return
    with locking.turn(TURNS) as ours:
        # All are asked, also for those who come meanwhile and leave it to this one.
        if not ours:
            return
        locking.pace(f"{TURNS}.stamp", TURN_SECONDS)
        verdicts, asked = overlay.read(overlay.HEALTH), checksets.names(cluster)
        known = {} if verdicts is None else verdicts.servers
        found = {name: one for name, one in known.items() if name in asked}
        names = [
            name
            for name, config in cluster.virtual_servers.items()
            if config.managed_by is ManagedBy.SALT
        ]
        found.update(_answers(cluster, names, found))
        if _is_watched(overlay.read(overlay.HEALTH)):
            return  # Somebody has begun to watch meanwhile, and knows better.
        quorum = {} if verdicts is None else verdicts.quorum
        told_at = overlay.clock()
        overlay.write(
            overlay.Verdicts(events.boot_id(), told_at, found, quorum, watched=False),
            overlay.HEALTH,
        )


def _is_watched(verdicts: overlay.Verdicts | None) -> bool:
    return verdicts is not None and verdicts.watched and not verdicts.stale(overlay.clock())


def _answers(
    cluster: Cluster, names: Sequence[str], before: Mapping[Name, overlay.Found]
) -> Iterator[tuple[Name, overlay.Found]]:
    """What the real servers say now; one that could not be asked leaves what was known.

    Who serves as far as is known is asked again, and is dead when it has failed ``fall`` times.
    """
    at = overlay.clock()
    until = at + fresh.IN_ALL_SECONDS
    asked = {
        (name, share.name): checksets.of_one(cluster, cluster.virtual_servers[name], share)
        for name in names
        for share in cluster.virtual_servers[name].real_servers
        if cluster.real_servers[share.name].enabled
    }
    failures: Counter[Name] = Counter()
    while asked and (left := until - overlay.clock()) > 0:
        again: dict[Name, tuple[Check, ...]] = {}
        for place, verdict in _said(asked.values(), left):
            known, fall = before.get(place), cluster.virtual_servers[place[0]].check.fall
            failures[place] += not verdict.ok
            if not verdict.ok and failures[place] < fall and _may_serve(known):
                again[place] = asked[place]
            else:
                yield place, _found(verdict, known, at)
        asked = again
        if asked:
            time.sleep(AGAIN_SECONDS)


def _may_serve(known: overlay.Found | None) -> bool:
    return known is None or known.serves is not False


def _said(asked: Iterable[Sequence[Check]], within: float) -> Iterator[tuple[Name, Verdict]]:
    """What each real server says, by all of its checks: the first that fails, or one that does
    not.
    """
    by_name: dict[Name, list[Verdict]] = {}
    for verdict in probe.ask([check for several in asked for check in several], within):
        assert isinstance(verdict.key, checksets.Key)
        place = verdict.key.virtual_server, verdict.key.real_server
        by_name.setdefault(place, []).append(verdict)
    for place, several in by_name.items():
        told = [one for one in several if one.ok is False] or [one for one in several if one.ok]
        if told:
            yield place, told[0]


def _found(verdict: Verdict, before: overlay.Found | None, at: float) -> overlay.Found:
    serves = verdict.ok is True
    same = before is not None and before.serves is serves
    return overlay.Found(
        state=(State.UP if serves else State.DOWN).value,
        serves=serves,
        since=before.since if before is not None and same else at,
        reason=verdict.reason,
        # Who is back gets all of its weight: nobody is there for the steps of a slow start.
        was_away=not serves,
        checked=at,
        milliseconds=verdict.milliseconds,
    )
