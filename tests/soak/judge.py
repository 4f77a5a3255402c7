"""What directors told of their VRRP states, held against what they did. Pure: no lab, no clock."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

BEACON = "keepalived_vrrp"
STATES = ("MASTER", "BACKUP", "FAULT", "STOP")
# As keepalived runs a notify script, behind the time: INSTANCE "VirtIP_10" MASTER 150.
NOTIFIED = re.compile(r'(?P<at>[0-9.]+) INSTANCE "?(?P<instance>[^" ]+)"? (?P<state>[A-Z]+) \d+')


@dataclass(frozen=True)
class Transition:
    """One director's instance entered a state, in seconds since 1970."""

    director: str
    instance: str
    state: str
    at: float


def done(director: str, log: str) -> list[Transition]:
    """The transitions in what a director's notify script wrote."""
    found = (NOTIFIED.fullmatch(line) for line in log.splitlines())
    return [
        Transition(director, line["instance"], line["state"], float(line["at"]))
        for line in found
        if line and line["state"] in STATES
    ]


def counted_once(events: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Each event once, by (id, boot_id, seq), in the order of each director's own numbers."""
    by_key = {(event["id"], event["boot_id"], event["seq"]): event for event in events}
    boots = list(dict.fromkeys(event["boot_id"] for event in by_key.values()))
    return [
        event
        for _, event in sorted(
            by_key.items(), key=lambda item: (item[0][0], boots.index(item[0][1]), item[0][2])
        )
    ]


def told(events: Iterable[Mapping[str, Any]]) -> list[Transition]:
    """The transitions that ``change`` events tell, counted once, in order."""
    return [
        Transition(
            event["id"], change["vrrp_instance"], change["now"], change.get("at", event["at"])
        )
        for event in counted_once(events)
        for change in event["changes"]
        if change.get("vrrp_instance") and change.get("now") in STATES
        if change.get("was") != change["now"]
    ]


def states(transitions: Iterable[Transition], director: str) -> list[str]:
    """The states of one director, in order."""
    return [item.state for item in transitions if item.director == director]


def missing(were: Sequence[str], heard: Sequence[str], *, killed: bool = False) -> str:
    """What is wrong with the states that were heard; empty where they are those that were.

    killed
        Whether keepalived was, before them: nobody is left then to run a script. That it has
        stopped is true all the same.
    """
    right = [list(were), ["STOP", *were]] if killed else [list(were)]
    if list(heard) in right:
        return ""
    return f"it was {' '.join(were) or 'nothing'}, and was told as {' '.join(heard) or 'nothing'}"
