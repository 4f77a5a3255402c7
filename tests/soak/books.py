"""What a journal of incidents and a mailbox say, held against what happened. Pure: no lab, no
clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# A subject as the journal has it: group and name.
Subject = tuple[str, str]
# A minion that was killed may be missed for so long, in seconds.
MISSED_SECONDS = 120.0
LOGIN = ("master", "answer")


@dataclass(frozen=True)
class Truth:
    """Something was in trouble, from when to when, in seconds since 1970."""

    subject: Subject
    began: float
    ended: float


@dataclass(frozen=True)
class Death:
    """A program was killed: ``master``, ``engine``, ``relay``, or a minion's by its id."""

    victim: str
    at: float


@dataclass(frozen=True)
class Received:
    """One mail: its Message-ID, and the incident that it says it tells of."""

    message_id: str
    incident: str


def problems(
    incidents: Sequence[Mapping[str, Any]],
    mails: Iterable[Received],
    truths: Iterable[Truth],
    deaths: Iterable[Death],
) -> list[str]:
    """What is lost, told twice, or told of nothing; a sentence each.

    incidents
        All that the journal has, as ``saltext.lvs.incidents.as_data`` gives them.
    """
    known = list(truths)
    return [
        *_lost_or_doubled(incidents, known),
        *_unexplained(incidents, known, list(deaths)),
        *_unsent(incidents, list(mails)),
    ]


def repeated(mails: Iterable[Received]) -> int:
    """How many mails came again, with a Message-ID that had come before."""
    return sum(times - 1 for times in Counter(mail.message_id for mail in mails).values())


def _lost_or_doubled(
    incidents: Sequence[Mapping[str, Any]], truths: Iterable[Truth]
) -> Iterable[str]:
    for truth in truths:
        found = [one["id"] for one in incidents if _tells(one, truth)]
        if len(found) != 1:
            yield f"{truth.subject} is in {len(found)} incidents: {', '.join(found) or 'none'}"


def _unexplained(
    incidents: Iterable[Mapping[str, Any]], truths: Iterable[Truth], deaths: Sequence[Death]
) -> Iterable[str]:
    known = list(truths)
    for one in incidents:
        if one["closed"] is None:
            yield f"{one['id']} is not over: {sorted(subjects(one))}"
        if any(_tells(one, truth) for truth in known):
            continue
        if not all(_is_missed(subject, one["opened"], deaths) for subject in subjects(one)):
            yield f"{one['id']} tells of what did not happen: {sorted(subjects(one))}"


def _unsent(incidents: Iterable[Mapping[str, Any]], mails: Sequence[Received]) -> Iterable[str]:
    written = {one["id"]: len(one["told"]) for one in incidents}
    came = Counter(incident for _, incident in {(m.message_id, m.incident) for m in mails})
    for name, letters in written.items():
        if came[name] != letters:
            yield f"{name}: {letters} letters were written, and {came[name]} different ones came"
    for name in came.keys() - written.keys():
        yield f"a mail came of {name!r}, which the journal does not have"


def subjects(incident: Mapping[str, Any]) -> set[Subject]:
    """What an incident is about."""
    told = (part["trouble"]["subject"] for part in incident["parts"])
    return {(one["group"], one["name"]) for one in told}


def _tells(incident: Mapping[str, Any], truth: Truth) -> bool:
    """Whether an incident is about something that was in trouble, at that time."""
    closed = incident["closed"]
    is_then = incident["opened"] <= truth.ended and (closed is None or closed >= truth.began)
    return is_then and truth.subject in subjects(incident)


def _is_missed(subject: Subject, at: float, deaths: Iterable[Death]) -> bool:
    """Whether a director is in trouble by the death of its minion shortly before, or does not
    answer because it has to log in again at a master that died.
    """
    return any(
        (subject[0] == f"director {death.victim}" or (death.victim, subject[1]) == LOGIN)
        and 0 <= at - death.at <= MISSED_SECONDS
        for death in deaths
    )
