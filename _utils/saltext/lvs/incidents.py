"""Incidents: what is wrong with a cluster, since when, and what became of it; values only.

A look at a cluster finds troubles. Those that belong together become one incident, which a person
is told of once, in one thread of mail: when it begins, when it grows, and when it is over.
:py:mod:`saltext.lvs.folding` says which belong together and when something is told.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

# What an incident remembers of its own course; older moments are counted, not kept.
MOST_MOMENTS = 60


class Severity(enum.Enum):
    """How soon a person should look; the values are the words of pillar, events and answers."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """The higher, the sooner."""
        return tuple(Severity).index(self)


class Kind(enum.Enum):
    """What a letter tells of an incident; the values are the words of events and webhooks.

    OPENED, MORE, AGAIN, CLOSED
        It has begun; it has grown; it has come back after it was over; it is over.

    PASSED
        It began and was over before anybody was told.

    REMINDER
        It still lasts.
    """

    OPENED = "opened"
    MORE = "more"
    AGAIN = "again"
    CLOSED = "closed"
    PASSED = "passed"
    REMINDER = "reminder"


@dataclass(frozen=True, slots=True, order=True)
class Subject:
    """What may be in trouble.

    group
        Troubles of one group may become one incident: ``servers``, ``vips``, ``director lb1``.

    name
        What a person calls it; within its group it is that one and no other.
    """

    group: str
    name: str


@dataclass(frozen=True, slots=True)
class Trouble:
    """What one look found wrong with one subject.

    title, over
        What is so, and what is said when it is over, in a few words: ``rs1:80 OUT of web``,
        ``rs1:80 back in web``.

    reason
        Why, as those say who looked: ``connection refused``.

    virtual_server
        The one that has fewer in service by it; empty where there is none.

    told_by
        The minions whose answer says so.

    done, advice
        What was done automatically; what a person may do. Sentences, or empty.

    commands
        What to enter on the master to look further.

    urgent
        Told at once. What is not waits until it is clear what becomes of it.
    """

    subject: Subject
    severity: Severity
    title: str
    over: str
    reason: str = ""
    virtual_server: str = ""
    told_by: tuple[str, ...] = ()
    done: str = ""
    advice: str = ""
    commands: tuple[str, ...] = ()
    urgent: bool = True


@dataclass(frozen=True, slots=True)
class Standing:
    """How many real servers of a virtual server are in service, of how many that should be."""

    virtual_server: str
    in_service: int
    of: int


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a cluster found.

    at
        When, in seconds since 1970.

    bad, good
        What is in trouble, and what was found well. What is in neither nobody could judge.

    known
        All that the cluster has, so that what it has no more can be told from what nobody could
        judge; None if that is not known.

    meanwhile
        What was in trouble since the look before, and may be well again.
    """

    cluster: str
    at: float
    bad: tuple[Trouble, ...] = ()
    good: frozenset[Subject] = frozenset()
    known: frozenset[Subject] | None = None
    standings: tuple[Standing, ...] = ()
    meanwhile: tuple[Trouble, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """One trouble of an incident, and its course.

    since, until
        When it was first seen, and since when it has been over; None while it lasts.

    times
        How often it began.
    """

    trouble: Trouble
    since: float
    until: float | None = None
    times: int = 1

    @property
    def lasts(self) -> bool:
        """Whether it is not over."""
        return self.until is None


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened in the course of an incident, in words."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Told:
    """That a letter was written, and how bad it was by then."""

    kind: Kind
    at: float
    severity: Severity


@dataclass(frozen=True, slots=True)
class Incident:
    """Troubles that belong together, from when they begin until they are over.

    id
        Unique, without blanks: it is in file names, commands and message ids.

    opened, closed
        When, in seconds since 1970; None while it is open.

    moments, omitted
        Its course, oldest first, and how many moments after the first few are not kept.

    told
        The letters that were written of it.

    calm_seconds
        For how long all must be well before it is over; it grows with every return.

    news_at
        Since when there is something to tell that was not told; None if there is nothing.
    """

    id: str
    cluster: str
    group: str
    opened: float
    parts: tuple[Part, ...]
    closed: float | None = None
    moments: tuple[Moment, ...] = ()
    omitted: int = 0
    told: tuple[Told, ...] = ()
    calm_seconds: float = 0
    news_at: float | None = None

    @property
    def severity(self) -> Severity:
        """That of its worst trouble so far."""
        return max((part.trouble.severity for part in self.parts), key=lambda one: one.rank)

    @property
    def lasting(self) -> tuple[Part, ...]:
        """Its troubles that are not over."""
        return tuple(part for part in self.parts if part.lasts)

    @property
    def well_since(self) -> float | None:
        """Since when all of it has been over; None while something lasts."""
        ends = [part.until for part in self.parts]
        return None if None in ends else max(end for end in ends if end is not None)

    @property
    def returns(self) -> int:
        """How often one of its troubles came back."""
        return sum(part.times - 1 for part in self.parts)


@dataclass(frozen=True, slots=True)
class Letter:
    """What a person is to be told of an incident now.

    number
        Which letter of the incident it is, from 1.
    """

    kind: Kind
    incident: Incident
    at: float
    number: int
    standings: tuple[Standing, ...] = ()


def as_data(incident: Incident) -> dict[str, Any]:
    """An incident as plain values: for the journal, for answers, for webhooks."""
    found = asdict(incident)
    found["severity"] = incident.severity.value
    for part in found["parts"]:
        part["trouble"]["severity"] = part["trouble"]["severity"].value
        part["trouble"]["told_by"] = list(part["trouble"]["told_by"])
        part["trouble"]["commands"] = list(part["trouble"]["commands"])
    for told in found["told"]:
        told["kind"], told["severity"] = told["kind"].value, told["severity"].value
    return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}


def from_data(data: Mapping[str, Any]) -> Incident:
    """The incident that :py:func:`as_data` made plain values of.

    Raises KeyError, TypeError or ValueError for anything else.
    """
    fields = {key: value for key, value in data.items() if key != "severity"}
    fields["parts"] = tuple(map(_part, data["parts"]))
    fields["moments"] = tuple(Moment(**moment) for moment in data["moments"])
    fields["told"] = tuple(
        Told(Kind(told["kind"]), told["at"], Severity(told["severity"])) for told in data["told"]
    )
    return Incident(**fields)


def _part(data: Mapping[str, Any]) -> Part:
    trouble = dict(data["trouble"])
    trouble["subject"] = Subject(**trouble["subject"])
    trouble["severity"] = Severity(trouble["severity"])
    trouble["told_by"] = tuple(trouble["told_by"])
    trouble["commands"] = tuple(trouble["commands"])
    return Part(**{**data, "trouble": Trouble(**trouble)})
