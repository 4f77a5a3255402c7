"""Which troubles are one incident, and when a person is told of it.

A machine without a clock: looks and times are handed in, incidents and letters come out. What
begins together is one incident; what comes and goes is folded into it, and the more often it does,
the longer all must be well until it counts as over. When a letter is due follows from the incident
alone, so that it makes no difference who asks, how often, or after which restart.

An incident is open until it has been well for long enough *and* that may be told: its last letter
closes it, as of the time since when it had been well. So nothing that is still to be told can be
forgotten with what is over.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from saltext.lvs.incidents import (
    MOST_MOMENTS,
    Incident,
    Kind,
    Letter,
    Look,
    Moment,
    Part,
    Severity,
    Standing,
    Subject,
    Told,
    Trouble,
)

LONGEST_CALM_SECONDS = 900.0
LONGEST_GAP_SECONDS = 3600.0
# An incident with so many takes no more; those that follow are another one, so none is lost.
MOST_PARTS = 5000
# A storm lasts until nothing has joined it for so many times *fold*.
STORM_FOLDS = 10
# What happens to more than these in one look is one moment, which names the first few.
MOST_SENTENCES, MOST_NAMED = 10, 5
# Of its course, how it began is kept as long as how it goes on.
FIRST_MOMENTS = 20
# What is further ahead of now was written while the clock was wrong.
MOST_SKEW_SECONDS = 60.0
_ENDS = (Kind.CLOSED, Kind.PASSED)


def _always(_: Severity, at: float) -> float:
    return at


@dataclass(frozen=True, slots=True)
class Rules:
    """How troubles are folded; all times in seconds.

    settle
        For how long all must be well before an incident is over; it doubles with every return.

    flap_within
        What comes back within this time after its end is the same incident.

    fold
        What begins within this time after an incident joins it; between two letters is at least
        this time. Also how long is waited with what is not urgent.

    storm
        An incident of so many troubles goes on taking in new ones of its group.

    remind
        How often it is told again while it lasts; 0 for never.

    quiet
        The earliest time, at or after one that is given, at which a severity may be told. Given
        its own answer it answers the same.
    """

    settle: float = 30
    flap_within: float = 600
    fold: float = 60
    storm: int = 5
    remind: float = 4 * 3600
    quiet: Callable[[Severity, float], float] = _always


@dataclass(frozen=True, slots=True)
class Step:
    """What follows from a look, or from the time.

    incidents
        All of the book, as they are now.

    changed
        Those of them that are not as they were.
    """

    incidents: tuple[Incident, ...]
    changed: tuple[Incident, ...] = ()
    letters: tuple[Letter, ...] = ()


def step(book: Sequence[Incident], look: Look, rules: Rules, new_id: Callable[[], str]) -> Step:
    """What follows from a look.

    book
        The incidents of that cluster that are open, or were within *flap_within*.

    look
        What is both bad and good in it counts as bad.

    new_id
        Makes the id of an incident.
    """
    known = _not_ahead(book, look.at)
    at = _latest(known, look.at)
    if look.meanwhile:
        was = replace(look, bad=(*look.meanwhile, *look.bad))
        known = _seen(known, was, at, rules, new_id)
    return _told(book, _seen(known, look, at, rules, new_id), at, rules, look.standings)


def tick(
    book: Sequence[Incident], now: float, rules: Rules, standings: tuple[Standing, ...] = ()
) -> Step:
    """What follows from the time alone: an incident of which the last look saw all well is over
    when no other look has come meanwhile.

    standings
        As of the last look.
    """
    known = _not_ahead(book, now)
    return _told(book, known, _latest(known, now), rules, standings)


def due_at(book: Sequence[Incident], rules: Rules, now: float) -> float | None:
    """When :func:`tick` has something to do, which is never before *now*; ``None`` if that takes
    another look.

    now
        Seconds since 1970: what was due before quiet hours and comes too late waits until they are
        over.
    """
    if any(_is_ahead(one, now) for one in book):
        return now
    at = _latest(book, now)
    plans = [plan for plan in (_plan(one, rules) for one in book) if plan is not None]
    times = [rules.quiet(plan.severity, max(plan.ready, at)) for plan in plans]
    return min((time for time in times if time < math.inf), default=None)


def forget(book: Iterable[Incident], now: float, rules: Rules) -> tuple[Incident, ...]:
    """A book without the incidents that have been over for too long to come back."""
    return tuple(one for one in book if _may_go_on(one, now, rules))


def _may_go_on(incident: Incident, at: float, rules: Rules) -> bool:
    return incident.closed is None or at - incident.closed <= rules.flap_within


# --------------------------------------------------------------------------------------------------
# Clocks that are set


def _not_ahead(book: Iterable[Incident], now: float) -> list[Incident]:
    """The incidents; those from the future have *now* in place of every time that is to come.

    Otherwise what a wrong clock wrote would keep them open until the right one is there as well.
    """
    return [_cut(one, now) if _is_ahead(one, now) else one for one in book]


def _is_ahead(incident: Incident, now: float) -> bool:
    return _newest(incident) > now + MOST_SKEW_SECONDS


def _cut(incident: Incident, now: float) -> Incident:
    def cut(at: float | None) -> float | None:
        return None if at is None else min(at, now)

    return replace(
        incident,
        opened=min(incident.opened, now),
        closed=cut(incident.closed),
        news_at=cut(incident.news_at),
        parts=tuple(
            replace(part, since=min(part.since, now), until=cut(part.until))
            for part in incident.parts
        ),
        moments=tuple(replace(one, at=min(one.at, now)) for one in incident.moments),
        told=tuple(replace(one, at=min(one.at, now)) for one in incident.told),
    )


def _latest(book: Iterable[Incident], now: float) -> float:
    """The time: never before what is in the book."""
    return max((now, *map(_newest, book)))


def _newest(incident: Incident) -> float:
    return max(
        incident.opened,
        *(one.at for one in incident.moments[-1:]),
        *(one.at for one in incident.told[-1:]),
        incident.opened if incident.news_at is None else incident.news_at,
    )


# --------------------------------------------------------------------------------------------------
# What a look means


class _Change(enum.Enum):
    """What may become of a trouble in a look, as it is said of many."""

    BEGAN = "in trouble"
    AGAIN = "in trouble again"
    WORSE = "worse"
    OVER = "well again"
    GONE = "no longer configured"


def _sentence(change: _Change, trouble: Trouble) -> str:
    why = f" ({trouble.reason})" if trouble.reason else ""
    return {
        _Change.BEGAN: f"{trouble.title}{why}",
        _Change.AGAIN: f"{trouble.title} again{why}",
        _Change.WORSE: f"{trouble.title}: {trouble.severity.value} now{why}",
        _Change.OVER: trouble.over,
        _Change.GONE: f"{trouble.subject.name} is no longer configured",
    }[change]


def _sentences(change: _Change, troubles: Sequence[Trouble]) -> list[str]:
    if len(troubles) <= MOST_SENTENCES:
        return [_sentence(change, trouble) for trouble in troubles]
    names = ", ".join(trouble.subject.name for trouble in troubles[:MOST_NAMED])
    return [f"{len(troubles)} {change.value}: {names} and {len(troubles) - MOST_NAMED} others"]


@dataclass(slots=True)
class _Draft:
    """An incident as it was, and what becomes of it in this look."""

    incident: Incident
    parts: dict[Subject, Part]
    changes: dict[_Change, list[Trouble]]

    @classmethod
    def of(cls, incident: Incident) -> _Draft:
        parts = {part.trouble.subject: part for part in incident.parts}
        return cls(incident, parts, {change: [] for change in _Change})

    @property
    def is_open(self) -> bool:
        return self.incident.closed is None or bool(self.changes[_Change.AGAIN])

    def begin(self, trouble: Trouble, at: float) -> None:
        self.parts[trouble.subject] = Part(trouble, at)
        self.changes[_Change.BEGAN].append(trouble)

    def go_on(self, trouble: Trouble) -> None:
        part = self.parts[trouble.subject]
        times = part.times
        if not part.lasts:
            times += 1
            self.changes[_Change.AGAIN].append(trouble)
        if trouble.severity.rank > max(part.trouble.severity.rank, _told_rank(self.incident)):
            self.changes[_Change.WORSE].append(trouble)
        self.parts[trouble.subject] = replace(part, trouble=trouble, until=None, times=times)

    def end(self, change: _Change, part: Part, at: float) -> None:
        self.parts[part.trouble.subject] = replace(part, until=at)
        self.changes[change].append(part.trouble)

    def finished(self, at: float, rules: Rules) -> Incident:
        before = self.incident
        changed = replace(
            before,
            parts=tuple(self.parts.values()),
            closed=None if self.is_open else before.closed,
            calm_seconds=self._calm(rules),
            news_at=at if before.news_at is None and self._has_news() else before.news_at,
        )
        moments = [
            Moment(at, text)
            for change, troubles in self.changes.items()
            for text in _sentences(change, troubles)
        ]
        return _with_moments(changed, moments)

    def _has_news(self) -> bool:
        """Whether this goes beyond what was told."""
        if not self.incident.told:
            return False
        came_back = self.incident.closed is not None and self.is_open
        return came_back or bool(self.changes[_Change.BEGAN] or self.changes[_Change.WORSE])

    def _calm(self, rules: Rules) -> float:
        """For how long all must be well: twice the time, if this is a return of its own.

        Where many come back one after the other, those after the first are the same return.
        """
        before = self.incident
        if not self.changes[_Change.AGAIN]:
            return before.calm_seconds
        times = max(part.times for part in before.parts)
        if before.well_since is None and all(one.times <= times for one in self.parts.values()):
            return before.calm_seconds
        longest = max(LONGEST_CALM_SECONDS, rules.settle)
        return min(max(before.calm_seconds, 1.0) * 2, longest)


def _with_moments(incident: Incident, moments: Sequence[Moment]) -> Incident:
    found = (*incident.moments, *moments)
    spare = max(0, len(found) - MOST_MOMENTS)
    kept = found[:FIRST_MOMENTS] + found[FIRST_MOMENTS + spare :] if spare else found
    return replace(incident, moments=kept, omitted=incident.omitted + spare)


def _seen(
    book: Sequence[Incident], look: Look, at: float, rules: Rules, new_id: Callable[[], str]
) -> list[Incident]:
    # The youngest that is open is the last.
    ordered = sorted(book, key=lambda one: (one.closed is None, one.opened, one.id))
    drafts = [_Draft.of(one) for one in ordered]
    owners = _owners([draft for draft in drafts if _may_go_on(draft.incident, at, rules)])
    troubles = _one_each(look.bad)
    new: dict[str, list[Trouble]] = {}
    for subject, trouble in troubles.items():
        if subject in owners:
            owners[subject].go_on(trouble)
        else:
            new.setdefault(subject.group, []).append(trouble)
    for draft in drafts:
        if draft.is_open:
            _end(draft, look, troubles, at)
    for group, some in new.items():
        fresh = Incident("", look.cluster, group, at, (), calm_seconds=rules.settle)
        _begin(drafts, some, fresh, rules, new_id)
    return [draft.finished(at, rules) for draft in drafts]


def _owners(drafts: Sequence[_Draft]) -> dict[Subject, _Draft]:
    """Whose each trouble is: of several, the one in which it lasts, or the youngest."""
    found = {subject: draft for draft in drafts for subject in draft.parts}
    for draft in drafts:
        found.update((subject, draft) for subject, part in draft.parts.items() if part.lasts)
    return found


def _one_each(troubles: Iterable[Trouble]) -> dict[Subject, Trouble]:
    """The troubles by subject, in the order of their names; of several the worst."""
    ordered = sorted(
        troubles,
        key=lambda one: (
            one.subject.group,
            one.subject.name,
            one.severity.rank,
            one.title,
            one.reason,
        ),
    )
    return {trouble.subject: trouble for trouble in ordered}


def _end(draft: _Draft, look: Look, bad: Mapping[Subject, Trouble], at: float) -> None:
    """Those of its troubles that are over."""
    for subject, part in draft.parts.items():
        if not part.lasts or subject in bad:
            continue
        if look.known is not None and subject not in look.known:
            draft.end(_Change.GONE, part, at)
        elif subject in look.good:
            draft.end(_Change.OVER, part, at)


def _begin(
    drafts: list[_Draft],
    troubles: Iterable[Trouble],
    fresh: Incident,
    rules: Rules,
    new_id: Callable[[], str],
) -> None:
    """Troubles that belong to no incident yet: the youngest of their group takes them, or a new
    one does, made of a fresh one.
    """
    at = fresh.opened
    owner = next((one for one in reversed(drafts) if _takes(one, fresh.group, at, rules)), None)
    for trouble in troubles:
        if owner is None or len(owner.parts) >= MOST_PARTS:
            owner = _Draft.of(replace(fresh, id=new_id()))
            drafts.append(owner)
        owner.begin(trouble, at)


def _takes(draft: _Draft, group: str, at: float, rules: Rules) -> bool:
    if draft.incident.group != group or not draft.is_open:
        return False
    if at - draft.incident.opened <= rules.fold:
        return True
    youngest = max(part.since for part in draft.parts.values())
    return len(draft.parts) >= rules.storm and at - youngest <= rules.fold * STORM_FOLDS


# --------------------------------------------------------------------------------------------------
# What is told


class _Known(enum.Enum):
    """What a person believes of an incident."""

    NOTHING = enum.auto()
    BEGUN = enum.auto()
    ENDED = enum.auto()


def _known(incident: Incident) -> _Known:
    if not incident.told:
        return _Known.NOTHING
    return _Known.ENDED if incident.told[-1].kind in _ENDS else _Known.BEGUN


# Which letters may come next, by what is known and by whether something lasts; the first that is
# ready is written.
_NEXT: Mapping[tuple[_Known, bool], tuple[Kind, ...]] = {
    (_Known.NOTHING, True): (Kind.OPENED,),
    (_Known.NOTHING, False): (Kind.PASSED,),
    (_Known.BEGUN, True): (Kind.MORE, Kind.REMINDER),
    (_Known.BEGUN, False): (Kind.CLOSED,),
    (_Known.ENDED, True): (Kind.AGAIN,),
    (_Known.ENDED, False): (Kind.CLOSED,),
}


@dataclass(frozen=True, slots=True)
class _Plan:
    """The next letter of an incident, and from when on it is ready."""

    kind: Kind
    ready: float
    severity: Severity


def _plan(incident: Incident, rules: Rules) -> _Plan | None:
    """The next letter, if nothing new is seen; an incident that is over has none."""
    if incident.closed is not None:
        return None
    kinds = _NEXT[_known(incident), incident.well_since is None]
    times = {kind: _READY[kind](incident, rules) for kind in kinds}
    kind = min(kinds, key=lambda one: times[one])
    return _Plan(kind, times[kind], incident.severity) if times[kind] < math.inf else None


def _opened_ready(incident: Incident, rules: Rules) -> float:
    return incident.opened + _patience(incident, rules)


def _news_ready(incident: Incident, rules: Rules) -> float:
    """What is new waits until the last letter is old enough, unless that did not say how bad."""
    if incident.news_at is None:
        return math.inf
    if incident.severity is Severity.CRITICAL and _told_rank(incident) < Severity.CRITICAL.rank:
        return incident.news_at
    return max(incident.news_at + _patience(incident, rules), _after_gap(incident, rules))


def _passed_ready(incident: Incident, _: Rules) -> float:
    well_since = incident.well_since
    return math.inf if well_since is None else well_since + incident.calm_seconds


def _closed_ready(incident: Incident, rules: Rules) -> float:
    """Nobody waits to hear that something is over of whose return he does not know."""
    ready = _passed_ready(incident, rules)
    is_waited_for = _known(incident) is _Known.BEGUN
    return ready if is_waited_for else max(ready, _after_gap(incident, rules))


def _reminder_ready(incident: Incident, rules: Rules) -> float:
    return incident.told[-1].at + (rules.remind or math.inf)


_READY: Mapping[Kind, Callable[[Incident, Rules], float]] = {
    Kind.OPENED: _opened_ready,
    Kind.PASSED: _passed_ready,
    Kind.MORE: _news_ready,
    Kind.AGAIN: _news_ready,
    Kind.CLOSED: _closed_ready,
    Kind.REMINDER: _reminder_ready,
}


def _patience(incident: Incident, rules: Rules) -> float:
    """How long is waited with what is not urgent."""
    return 0.0 if any(part.trouble.urgent for part in incident.lasting) else rules.fold


def _after_gap(incident: Incident, rules: Rules) -> float:
    """When its last letter is old enough for another one: the more there were, the later.

    A return that is told is two letters, its beginning and its end, and each doubles the gap.
    """
    more = sum(one.kind in (Kind.MORE, Kind.AGAIN) for one in incident.told)
    ends = sum(one.kind in _ENDS for one in incident.told)
    gap = rules.fold * 2.0 ** min(more + max(ends - 1, 0), 20)
    return incident.told[-1].at + min(gap, max(LONGEST_GAP_SECONDS, rules.fold))


def _told_rank(incident: Incident) -> int:
    """That of the worst that was told of it; less than any if nothing was."""
    return max((one.severity.rank for one in incident.told), default=-1)


def _told(
    before: Iterable[Incident],
    after: Iterable[Incident],
    now: float,
    rules: Rules,
    standings: tuple[Standing, ...],
) -> Step:
    known = {one.id: one for one in before}
    incidents: list[Incident] = []
    letters: list[Letter] = []
    for one in after:
        plan = _plan(one, rules)
        if plan is None or plan.ready > now or rules.quiet(plan.severity, now) > now:
            incidents.append(one)
            continue
        told = _with_letter(one, plan.kind, now)
        incidents.append(told)
        letters.append(Letter(plan.kind, told, now, len(told.told), standings))
    changed = tuple(one for one in incidents if known.get(one.id) != one)
    return Step(tuple(incidents), changed, tuple(letters))


def _with_letter(incident: Incident, kind: Kind, now: float) -> Incident:
    return replace(
        incident,
        told=(*incident.told, Told(kind, now, incident.severity)),
        news_at=None,
        closed=incident.well_since if kind in _ENDS else None,
    )
