"""Which weight each real server gets: its health, the operator's wishes, and limits on harm.

Nothing here reads a clock or a table: :func:`decide` answers the same for the same values, in
whatever order they come.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from saltext.lvs.model import OnFailure


@dataclass(frozen=True, slots=True)
class Wish:
    """What an operator wants of a real server, whatever its health.

    drain, maintenance
        No new clients.

    served
        In this virtual server it has clients although its host is drained.

    weight
        In place of the configured one.

    until
        When it ends, in seconds since 1970; ``None``: when it is taken back. Where one weight is
        wished besides a drain, only the weight ends.

    why
        In the operator's words.

    at
        When it was said, in seconds since 1970.
    """

    drain: bool = False
    weight: int | None = None
    until: float | None = None
    maintenance: bool = False
    served: bool = False
    why: str = ""
    at: float = 0


@dataclass(frozen=True, slots=True)
class Server:
    """One real server of one virtual server.

    weight
        The configured one; 0 where it is not enabled.

    serves
        What its checks say; ``None`` if nobody knows.

    since
        When that began, on the caller's clock; 0 if that is not known.

    was_away
        Whether it has been out since it is watched: slow start is for those.

    wish
        The operator's, if one is in force.

    backup
        It serves only while too few others do.

    now
        Its weight in the kernel; ``None``: it is not there, or what is there does not count.

    reason
        Of what its checks say, in words.

    in_progress
        Connections from before its return stand on it, and the scheduler counts them.

    held
        It answers, but fails too often to be let back yet: *serves* is False.
    """

    name: str
    weight: int
    serves: bool | None = None
    since: float = 0
    was_away: bool = False
    wish: Wish | None = None
    backup: bool = False
    now: int | None = None
    reason: str = ""
    in_progress: bool = False
    held: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """What a virtual server's pillar says of failures.

    min_in_service
        The share of the capacity that failures must leave, 0 to 1. What counts is the configured
        weight of each that a person has not taken out: another weight of an operator's moves no
        limit.

    sorry
        Whether there is a sorry server; it takes the place of that floor.

    slow_start
        Seconds in which the weight grows after a return.

    quorum, hysteresis
        The least sum of weights with which the virtual server counts as up, and by how much more or
        less that is gained or lost.
    """

    on_failure: OnFailure = OnFailure.DRAIN
    min_in_service: float = 0.5
    sorry: bool = False
    slow_start: float = 0
    quorum: int = 1
    hysteresis: int = 0


@dataclass(frozen=True, slots=True)
class Share:
    """What a real server gets.

    weight
        ``None``: it is not in the table.

    why
        One sentence for people; empty where it is as configured.
    """

    weight: int | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """What a virtual server's real servers get.

    kept
        Those that have failed and stay, because too few would be left.

    sorry
        Whether the sorry server serves.

    quorum
        Whether enough serve.

    again
        When it must be decided anew, on the caller's clock, if nothing happens.
    """

    shares: Mapping[str, Share]
    kept: tuple[str, ...] = ()
    sorry: bool = False
    quorum: bool = True
    again: float | None = None


def decide(
    servers: Sequence[Server], limits: Limits, at: float, had_quorum: bool = True
) -> Decision:
    """The weights of a virtual server's real servers.

    An operator's wish comes first, then health, then the limits: what has failed goes in the order
    in which it failed, until too few would be left. But where just one has failed and another one
    is known to serve, that is hardly the fault of the checks: it goes, however much it weighs.
    Before a failed one is kept, the backups come in, and those that only wait for their return.
    What nobody knows stays as it is. What is out already is not put back for the reason alone that
    a person has taken others out.

    servers
        All of them, each with a name of its own.

    at
        The time on the clock of :attr:`Server.since`, in seconds.

    had_quorum
        Whether it had its quorum before.
    """
    sides = _sides(servers, limits)
    backups = sides.backups if _needs_backups(sides, servers, limits, had_quorum) else ()
    kept = () if limits.sorry else _kept(sides)
    released = () if limits.sorry else _released(sides)
    serving = (*sides.mains, *backups, *released)
    quorum = _sum(serving) >= _threshold(servers, limits, had_quorum)
    sorry = limits.sorry and not quorum
    inside = frozenset(server.name for server in (() if sorry else (*serving, *kept)))
    steps = [_ramp(server, limits, at)[1] for server in servers if server.name in inside]
    return Decision(
        {server.name: _share(server, server.name in inside, limits, at) for server in servers},
        tuple(sorted(server.name for server in kept)),
        sorry,
        quorum,
        min((step for step in steps if step is not None), default=None),
    )


# --------------------------------------------------------------------------------------------------
# Who is where


class _Standing(enum.Enum):
    """What is to be said of a real server before the others are looked at."""

    UNWANTED = enum.auto()
    SERVING = enum.auto()
    # Nobody knows how it is, and it is in the kernel in some way.
    UNJUDGED = enum.auto()
    HELD = enum.auto()
    FAILED = enum.auto()


def _standing(server: Server) -> _Standing:
    if not _full(server):
        return _Standing.UNWANTED
    if server.serves is None:
        return _Standing.SERVING if server.now is None else _Standing.UNJUDGED
    if server.serves:
        return _Standing.SERVING
    return _Standing.HELD if server.held else _Standing.FAILED


def _full(server: Server) -> int:
    """Its weight when all is well, as a person wants it."""
    wish = server.wish
    if wish is None:
        return server.weight
    if wish.drain or wish.maintenance:
        return 0
    return server.weight if wish.weight is None else wish.weight


def _sum(servers: Iterable[Server]) -> int:
    return sum(map(_full, servers))


def _counted(server: Server) -> int:
    """What it counts for the floor."""
    return server.weight if _full(server) else 0


def _capacity(servers: Iterable[Server]) -> int:
    return sum(map(_counted, servers))


@dataclass(frozen=True, slots=True)
class _Sides:
    """Who could serve, and who should not; the last two in the order in which they go out.

    floor
        The least capacity that failures must leave.

    one_failed
        Just one has failed, so it is not the checks that are wrong.
    """

    mains: tuple[Server, ...]
    backups: tuple[Server, ...]
    failed: tuple[Server, ...]
    held: tuple[Server, ...]
    floor: int
    one_failed: bool


def _sides(servers: Sequence[Server], limits: Limits) -> _Sides:
    found: dict[_Standing, list[Server]] = {standing: [] for standing in _Standing}
    for server in sorted(servers, key=lambda server: (server.since, server.name)):
        found[_standing(server)].append(server)
    able = [*found[_Standing.SERVING], *filter(_as_it_is, found[_Standing.UNJUDGED])]
    held = sorted(found[_Standing.HELD], key=lambda server: not server.backup)
    # A backup that is in now takes others' place: it cannot just go either.
    failed = [server for server in found[_Standing.FAILED] if not server.backup or server.now]
    there = any(server.now is not None for server in servers)
    still_in = [server for server in failed if not _is_out(server, limits, there)]
    by_hand = any(server.weight and not _full(server) for server in servers)
    return _Sides(
        mains=tuple(server for server in able if not server.backup),
        backups=tuple(server for server in able if server.backup),
        failed=tuple(still_in if _sum((*able, *held)) or by_hand else failed),
        held=tuple(held),
        floor=_floor(servers, limits),
        one_failed=len(failed) == 1,
    )


def _is_out(server: Server, limits: Limits, there: bool) -> bool:
    """Whether it was taken out before; *there*: the table holds some of them."""
    if server.now is None:
        return there and limits.on_failure is OnFailure.REMOVE
    return server.now == 0


def _floor(servers: Iterable[Server], limits: Limits) -> int:
    if limits.sorry:
        return 0
    capacity = _capacity(server for server in servers if not server.backup)
    # 0.07 * 100 is a little more than 7.
    return math.ceil(limits.min_in_service * capacity - 1e-6)


# --------------------------------------------------------------------------------------------------
# Who is let in, and who is kept


def _needs_backups(
    sides: _Sides, servers: Iterable[Server], limits: Limits, had_quorum: bool
) -> bool:
    # As with the quorum: those that came in go when clearly enough others are back.
    came_in = any(server.now for server in sides.backups)
    enough = _threshold(servers, limits, had_quorum and not came_in)
    return _sum(sides.mains) < enough or _capacity(sides.mains) < sides.floor


def _threshold(servers: Iterable[Server], limits: Limits, had_quorum: bool) -> int:
    """The least sum of weights for the quorum: keepalived.conf(5), hysteresis.

    More than all together without backups cannot be asked for, and something has to serve.
    """
    wanted = limits.quorum + (-limits.hysteresis if had_quorum else limits.hysteresis)
    return max(min(wanted, sum(server.weight for server in servers if not server.backup)), 1)


def _kept(sides: _Sides) -> tuple[Server, ...]:
    """Those that have failed and cannot be taken out."""
    able = (*sides.mains, *sides.backups)
    if sides.one_failed and any(server.serves for server in able):
        return ()
    return _remaining(sides.failed, _capacity((*able, *sides.held)), sides.floor)


def _released(sides: _Sides) -> tuple[Server, ...]:
    """Those that should wait, but answer, and without which too few would be left.

    A failed one that is kept is no help: where there is one, all that answer are let in.
    """
    # A real server that answers is never held back where nobody else would serve.
    return _remaining(sides.held, _capacity((*sides.mains, *sides.backups)), max(sides.floor, 1))


def _remaining(going: tuple[Server, ...], others: int, least: int) -> tuple[Server, ...]:
    """Those that stay when each goes, in order, without which not too little would be left."""
    total, staying = others + _capacity(going), []
    for server in going:
        if total - _counted(server) >= least:
            total -= _counted(server)
        else:
            staying.append(server)
    return tuple(staying)


# --------------------------------------------------------------------------------------------------
# What each gets


def _share(server: Server, inside: bool, limits: Limits, at: float) -> Share:
    match _standing(server):
        case _Standing.UNWANTED:
            return Share(0, _by_whom(server))
        case _Standing.UNJUDGED:
            return _unjudged(server)
        case _Standing.SERVING:
            return _serving(server, inside, limits, at)
        case _Standing.HELD:
            return _held(server, inside, limits)
        case _Standing.FAILED:
            return _failed(server, inside, limits)


def _by_whom(server: Server) -> str:
    wish = server.wish
    if wish is None:
        return ""
    if wish.maintenance:
        return _because("in maintenance", wish.why)
    return _because("drained by an operator", wish.why) if wish.drain else _overridden(server)


def _overridden(server: Server) -> str:
    """Empty where the weight is the configured one."""
    wish = server.wish
    if wish is None or wish.weight is None or wish.weight == server.weight:
        return ""
    return _because(f"an operator's weight in place of {server.weight}", wish.why)


def _because(what: str, why: str) -> str:
    return f"{what}: {why}" if why else what


def _as_it_is(server: Server) -> int:
    """The weight of one that nobody has judged: a person may change it, but not put it back."""
    if not server.now:
        return 0
    has_own = server.wish is not None and server.wish.weight is not None
    return _full(server) if has_own else server.now


def _unjudged(server: Server) -> Share:
    weight = _as_it_is(server)
    if weight == _full(server):
        return Share(weight, _overridden(server))
    return Share(weight, _because("not checked yet, so it stays as it was", server.reason))


def _serving(server: Server, inside: bool, limits: Limits, at: float) -> Share:
    if not inside:
        return Share(0, IDLE if server.backup else _TOO_FEW)
    weight, full = _ramp(server, limits, at)[0], _full(server)
    if weight < full:
        return Share(weight, f"slow start: {weight} of {full} so far")
    return Share(weight, _overridden(server) or (_STANDING_IN if server.backup else ""))


IDLE = "a backup: others serve"
_STANDING_IN = "a backup: too few others serve"
_TOO_FEW = "too few serve, so the sorry server does"


def _held(server: Server, inside: bool, limits: Limits) -> Share:
    if inside:
        return Share(_full(server), "back before its time, because too few others serve")
    return _out(limits, _because("fails too often, so it has to wait", server.reason))


def _failed(server: Server, inside: bool, limits: Limits) -> Share:
    if not inside:
        return _out(limits, _because("failed", server.reason))
    weight = min(server.now or _full(server), _full(server))
    return Share(weight, _because("failed, but kept, as too few others serve", server.reason))


def _out(limits: Limits, why: str) -> Share:
    return Share(None if limits.on_failure is OnFailure.REMOVE else 0, why)


# --------------------------------------------------------------------------------------------------
# Slow start

STEPS = 10
# In steps: who comes at the very moment that was named must not come too early by a rounding.
SLACK = 1e-3


def _ramp(server: Server, limits: Limits, at: float) -> tuple[int, float | None]:
    """The weight of one that serves, and when it becomes more.

    One on which connections stand is not cold. And a scheduler that counts them would give it none
    at all with a low weight: wlc takes a single SYN_RECV that nobody completes for 256 others.
    """
    full = _full(server)
    returned = server.serves and server.was_away and server.since
    if not (returned and limits.slow_start) or server.in_progress:
        return full, None
    step = max(math.floor((at - server.since) * STEPS / limits.slow_start + SLACK), 0)
    weight = _part(full, step)
    later = (n for n in range(step + 1, STEPS + 1) if _part(full, n) > weight)
    return weight, next((server.since + n * limits.slow_start / STEPS for n in later), None)


def _part(full: int, step: int) -> int:
    return min(max(full * step // STEPS, 1), full)
