"""Incidents and what waits to be sent, as plain values that a person reads on a terminal."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import Any

from saltext.lvs.incidents import Incident, Part
from saltext.lvs.journal import Action
from saltext.lvs.mails import clean, duration
from saltext.lvs.outbox import Parcel, Queue

# What stands in for names of which there are too many.
MOST_NAMED = 5


def short(incident: Incident) -> dict[str, Any]:
    """An incident in a few words."""
    parts = incident.lasting or incident.parts
    named = [_words(part) for part in parts[:MOST_NAMED]]
    more = len(parts) - len(named)
    return {
        "id": incident.id,
        "cluster": clean(incident.cluster),
        "severity": incident.severity.value,
        "opened": time_of(incident.opened),
        "closed": None if incident.closed is None else time_of(incident.closed),
        "what": named + ([f"and {more} more"] if more else []),
        "letters": len(incident.told),
    }


def in_full(incident: Incident, actions: Iterable[Action] = ()) -> dict[str, Any]:
    """All that is known of an incident.

    actions
        What was done automatically.
    """
    end = incident.closed
    return {
        **short(incident),
        "lasted": None if end is None else duration(end - incident.opened),
        "what": [_part(part) for part in incident.parts],
        "course": [f"{time_of(one.at)} {clean(one.text)}" for one in incident.moments],
        "omitted": incident.omitted,
        "letters": [f"{time_of(one.at)} {one.kind.value}" for one in incident.told],
        "actions": [_action(one) for one in sorted(actions, key=lambda one: one.at)],
    }


def _action(action: Action) -> str:
    who = f"{clean(action.minion)}: {clean(action.what)}"
    return f"{time_of(action.at)} {who} ({clean(action.cause)}): {clean(action.result)}"


def _words(part: Part) -> str:
    trouble = part.trouble
    reason = f" ({clean(trouble.reason)})" if trouble.reason else ""
    return f"{clean(trouble.title)}{reason}"


def _part(part: Part) -> dict[str, Any]:
    trouble = part.trouble
    return {
        "what": clean(trouble.title),
        "reason": clean(trouble.reason),
        "severity": trouble.severity.value,
        "since": time_of(part.since),
        "until": None if part.until is None else time_of(part.until),
        "times": part.times,
        "told_by": [clean(one) for one in trouble.told_by],
        "done": clean(trouble.done),
        "advice": clean(trouble.advice),
        "commands": list(trouble.commands),
    }


def waiting(queue: Queue) -> dict[str, Any]:
    """What waits in a lane."""
    return {
        "lane": queue.lane,
        "waiting": queue.waiting,
        "oldest": time_of(queue.oldest),
        "tries": queue.tries,
        "why": clean(queue.why),
        "next": time_of(queue.next_at) if queue.next_at else None,
    }


def refused(parcel: Parcel) -> dict[str, Any]:
    """What somebody did not take, or nobody."""
    return {
        "lane": parcel.lane,
        "incident": parcel.incident,
        "at": None if parcel.done_at is None else time_of(parcel.done_at),
        "outcome": parcel.outcome,
        "why": clean(parcel.refused or parcel.why),
    }


def time_of(at: float) -> str:
    """A time in UTC, by ISO 8601."""
    moment = datetime.datetime.fromtimestamp(at, datetime.timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
