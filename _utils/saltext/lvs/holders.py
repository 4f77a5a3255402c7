"""Who holds each VIP, by what all directors of a cluster report: one of them, several, or nobody.

A fail-over looks like trouble for a moment: two directors hold the VIP until the old master hears
the new one, or nobody does until a backup has waited for three advertisements. So a look is
repeated until all is well, or something has been wrong for longer than that takes.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from saltext.lvs.instances import VrrpInstance
from saltext.lvs.model import Cluster

# RFC 5798 section 6.1: a backup waits for three advertisements and a part of one. One more second
# for the election and for the answers' way.
_TAKEOVER_ADVERTS = 4
# Two that hear each other settle it with the next advertisement.
_CLAIMS_ADVERTS = 2
_SLACK_SECONDS = 1.0
# Nobody waits for longer than this, whatever advert_int a pillar has.
LONGEST_SECONDS = 60.0
PAUSE_SECONDS = 1.0
# For a director's answer: one that works needs a tenth of it.
ANSWER_SECONDS = 10
_STATES = ("MASTER", "BACKUP", "FAULT", "STOP")


class Verdict(enum.Enum):
    """Who holds a VIP; the values are the words that events and answers have."""

    HELD = "held"
    SEVERAL = "split_brain"
    NOBODY = "unheld"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Report:
    """What one director says of itself.

    held
        The VIPs that are on its interfaces; None where it gave no answer.

    states
        What its keepalived says of each VRRP instance, as far as it does: a word of VRRP's.

    why
        Why there is no answer.
    """

    director: str
    held: frozenset[str] | None
    states: Mapping[str, str] = field(default_factory=dict)
    priorities: Mapping[str, int] = field(default_factory=dict)
    why: str = ""

    def seen(self, instance: str) -> str:
        """How that director sees an instance, for a person."""
        if self.held is None:
            return f"{self.director}: {self.why}"
        state = self.states.get(instance, "state unknown")
        priority = self.priorities.get(instance)
        return f"{self.director}: {state}" + (f" (priority {priority})" if priority else "")


@dataclass(frozen=True, slots=True)
class Standing:
    """How it is with one VIP.

    holders, silent
        The directors that hold it, and those that gave no answer.

    sides
        What each director sees.
    """

    address: str
    instance: str
    verdict: Verdict
    holders: tuple[str, ...]
    silent: tuple[str, ...]
    sides: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.address} ({self.instance}) {_WORDS[self.verdict](self)}"

    def as_data(self) -> dict[str, Any]:
        """As functions and events tell it."""
        return {
            "vrrp_instance": self.instance,
            "verdict": self.verdict.value,
            "holders": list(self.holders),
            "silent": list(self.silent),
            "sides": list(self.sides),
        }


_WORDS: Mapping[Verdict, Callable[[Standing], str]] = {
    Verdict.HELD: lambda it: f"is held by {it.holders[0]}",
    Verdict.SEVERAL: lambda it: (
        f"is held by {' and '.join(it.holders)} at once ({'; '.join(it.sides)}): they do not hear "
        "each other's advertisements. Look at the network between them and at firewalls (VRRP is "
        "IP protocol 112), then at virtual_router_id and passwords"
    ),
    Verdict.NOBODY: lambda it: (
        f"is held by no director ({'; '.join(it.sides)}). Look at keepalived on each: "
        "salt 'LB*' keepalived.status"
    ),
    Verdict.UNKNOWN: lambda it: (
        f"is held by no director that answers; no answer from {', '.join(it.silent)}"
    ),
}


def report(director: str, answer: Any, cluster: Cluster) -> Report:
    """A director's own answer to ``keepalived.status``, with no more in it than may be there.

    answer
        Whatever came back: a minion may return anything. None is no answer.
    """
    instances = answer.get("vrrp_instances") if isinstance(answer, Mapping) else None
    if not isinstance(instances, Mapping):
        why = "no answer" if answer is None else "an answer that is none"
        return Report(director, None, why=why)
    vips = {str(vip) for _, vip in _vips(cluster)}
    told = {name: instances.get(name) for name in cluster.vrrp_instances}
    found = {name: item for name, item in told.items() if isinstance(item, Mapping)}
    held = {
        address
        for item in found.values()
        for address in _list(item.get("vips_held"))
        if isinstance(address, str) and address in vips
    }
    return Report(
        director,
        frozenset(held),
        {name: str(it["state"]) for name, it in found.items() if it.get("state") in _STATES},
        {name: it["priority"] for name, it in found.items() if type(it.get("priority")) is int},
    )


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def standings(cluster: Cluster, reports: Iterable[Report]) -> tuple[Standing, ...]:
    """How it is with each VIP of a cluster, by what its directors report at one time."""
    told = list(reports)
    silent = tuple(each.director for each in told if each.held is None)
    found = []
    for instance, address in _vips(cluster):
        holders = tuple(each.director for each in told if each.held and str(address) in each.held)
        sides = tuple(each.seen(instance) for each in told)
        verdict = _verdict(len(holders), bool(silent))
        found.append(Standing(str(address), instance, verdict, holders, silent, sides))
    return tuple(found)


def _verdict(holders: int, some_silent: bool) -> Verdict:
    if holders > 1:
        return Verdict.SEVERAL
    if holders:
        return Verdict.HELD
    return Verdict.UNKNOWN if some_silent else Verdict.NOBODY


def _vips(cluster: Cluster) -> Iterable[tuple[str, Any]]:
    for name, instance in cluster.vrrp_instances.items():
        for vip in instance.vips:
            yield name, vip.ip


def patience(instance: VrrpInstance, verdict: Verdict) -> float:
    """For how many seconds a fail-over may look like this."""
    adverts = _CLAIMS_ADVERTS if verdict is Verdict.SEVERAL else _TAKEOVER_ADVERTS
    return min(adverts * instance.advert_int + _SLACK_SECONDS, LONGEST_SECONDS)


def settle(
    cluster: Cluster,
    ask: Callable[[], Iterable[Report]],
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    known: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Standing, ...]:
    """Look until each VIP is held by one, or has been in the same trouble for longer than a
    fail-over takes; returns the last look.

    known
        Troubles that were told, the verdict's word by address: they are not waited for.

    ask
        Asks all directors, and returns what they report.

    clock
        Gives seconds that are never set.
    """
    since: dict[str, float] = {}
    end = clock() + 2 * LONGEST_SECONDS
    while True:
        found = standings(cluster, ask())
        now = clock()
        troubled = [one for one in found if one.verdict is not Verdict.HELD and _is_new(one, known)]
        since = {each.address: since.get(each.address, now) for each in troubled}
        left = [since[each.address] + _patience(cluster, each) - now for each in troubled]
        # Trouble that comes and goes is told as it is by then.
        wait = min(max(left, default=0), end - now)
        if wait <= 0:
            return found
        sleep(min(wait, PAUSE_SECONDS))


def _is_new(standing: Standing, known: Mapping[str, str]) -> bool:
    return known.get(standing.address) != standing.verdict.value


def _patience(cluster: Cluster, standing: Standing) -> float:
    return patience(cluster.vrrp_instances[standing.instance], standing.verdict)


@dataclass(frozen=True, slots=True)
class News:
    """What is to be told of a cluster after a look.

    troubles
        What is known of VIPs in trouble from now on: the verdict's word, by address.

    told
        VIPs that have got into trouble, or out of it.
    """

    troubles: Mapping[str, str]
    told: tuple[Standing, ...]


def news(before: Mapping[str, str], found: Iterable[Standing]) -> News:
    """What is news in a look, and what will not be news again.

    What nobody can tell, because a director is silent, is neither: an outage of the master's own
    network must not end an alarm, nor raise one.

    before
        The troubles that are known.
    """
    troubles: dict[str, str] = {}
    told = []
    for standing in found:
        was = before.get(standing.address, "")
        now = "" if standing.verdict is Verdict.HELD else standing.verdict.value
        # Who is silent may hold it as well.
        if standing.silent and standing.verdict is not Verdict.SEVERAL:
            now = was
        if now != was:
            told.append(standing)
        if now:
            troubles[standing.address] = now
    return News(troubles, tuple(told))


def load(text: str) -> dict[str, dict[str, str]]:
    """The troubles of each cluster as :func:`dump` wrote them; none from other text."""
    try:
        written = json.loads(text)
        return {
            str(cluster): {str(address): str(word) for address, word in troubles.items()}
            for cluster, troubles in written.items()
        }
    except (ValueError, AttributeError):
        return {}


def dump(troubles: Mapping[str, Mapping[str, str]]) -> str:
    """The text that :func:`load` reads: what is known of each cluster that has troubles."""
    return json.dumps({cluster: dict(known) for cluster, known in troubles.items() if known})


# --------------------------------------------------------------------------------------------------
# What the last look saw

# After so long the directors are asked for whatever they tell: the pillar may have changed, and
# what they tell may be forged.
LOOK_EVERY_SECONDS = 600.0


def seen(
    before: str, cluster: Cluster, reports: Iterable[Report], now: float
) -> dict[str, dict[str, Any]]:
    """What the last look saw at each director: what its events tell is held against that, and where
    it is the same, nobody needs to look.

    Of each there are ``at``, in seconds since 1970, ``vips``, those of its cluster, and ``held``,
    or None where it gave no answer.

    before
        What was written until now, as JSON.
    """
    try:
        written = {str(name): dict(one) for name, one in json.loads(before).items()}
        kept = {k: v for k, v in written.items() if 0 <= now - v["at"] < LOOK_EVERY_SECONDS}
    except (ValueError, TypeError, KeyError, AttributeError):
        kept = {}
    vips = [str(vip) for _, vip in _vips(cluster)]
    for one in reports:
        held = None if one.held is None else sorted(one.held)
        kept[one.director] = {"at": now, "vips": vips, "held": held}
    return kept
