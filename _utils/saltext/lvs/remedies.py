"""What minions say that they have put right automatically: by themselves, or as a reactor asked.

What is in these events the minion says, and nobody has looked whether it is so: that is why such a
claim opens, closes and changes no incident. It is written down as what it is, and told as an event.
"""

from __future__ import annotations

import re
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeGuard

from saltext.lvs.journal import Action, short
from saltext.lvs.reading import NAME

# What reactors call, and what of it says that something was changed.
CALLED = {
    "dummy.repair": "operations",
    "lvs.reapply": "repaired",
    "lvs.reweight": "operations",
}
PUBLISHED = re.compile(r"salt/job/(\d{1,30})/new")
RETURNED = re.compile(r"salt/job/(\d{1,30})/ret/([^/]{1,300})")
# Jobs whose end is waited for.
MOST_JOBS = 1000
# Of a minion, within an hour: more than these say nothing new.
MOST_CLAIMS, CLAIMS_SECONDS = 60, 3600.0
MOST_MINIONS = 10_000
MOST_SHOWN = 5
CHANGED = "changed: "
# Of one claim: those that follow are most likely of the same incident.
MOST_SERVERS = 50


@dataclass(frozen=True, slots=True)
class Claim:
    """What a minion says that it has done.

    servers
        The real servers whose weights it changed, each after its virtual server, where it says so:
        names, but nobody has looked whether there are such.
    """

    action: Action
    servers: tuple[tuple[str, str], ...] = ()


class Claims:
    """Takes events, and finds the claims in them."""

    def __init__(self) -> None:
        self._begun: OrderedDict[str, float] = OrderedDict()
        self._lately: OrderedDict[str, deque[float]] = OrderedDict()

    def of_job(self, tag: str, data: Mapping[str, Any], at: float) -> Claim | None:
        """What an event of a job claims; None for most of them.

        at
            When it was heard, in seconds since 1970.
        """
        function = data.get("fun")
        if not isinstance(function, str) or function not in CALLED:
            return None
        published = PUBLISHED.fullmatch(tag)
        if published is not None:
            self._begun[published[1]] = at
            while len(self._begun) > MOST_JOBS:
                self._begun.popitem(last=False)
            return None
        returned = RETURNED.fullmatch(tag)
        if returned is None or data.get("id") != returned[2] or not _is_automatic(data):
            return None
        began = self._begun.get(returned[1], at)
        return self._counted(Claim(_of_return(returned[2], data, began, at)))

    def of_beacon(
        self, minion_id: str, beacon: str, data: Mapping[str, Any], at: float
    ) -> Claim | None:
        """What an event of a beacon claims; None where the minion leaves it to others."""
        if data.get("acted") is not True:
            return None
        changes = [one for one in _list(data.get("changes")) if isinstance(one, Mapping)]
        told = list(_sentences(beacon, changes))
        if not told:
            return None
        action = Action(
            at=at,
            cluster="",
            minion=minion_id,
            subject=beacon,
            what="the minion itself",
            cause=f"what its beacon {beacon} saw",
            result=CHANGED + _listed(told),
            changed=True,
        )
        servers = _servers(changes) if beacon == "real_server" else ()
        return self._counted(Claim(action, servers))

    def _counted(self, claim: Claim) -> Claim | None:
        """The claim, unless there are too many of that minion."""
        action = claim.action
        times = self._lately.setdefault(action.minion, deque(maxlen=MOST_CLAIMS))
        self._lately.move_to_end(action.minion)
        while len(self._lately) > MOST_MINIONS:
            self._lately.popitem(last=False)
        if len(times) == MOST_CLAIMS and 0 <= action.at - times[0] < CLAIMS_SECONDS:
            return None
        times.append(action.at)
        return claim


def _is_automatic(data: Mapping[str, Any]) -> bool:
    given = data.get("fun_args")
    return isinstance(given, list) and any(
        isinstance(one, dict) and one.get("automatic") is True for one in given
    )


def _of_return(minion_id: str, data: Mapping[str, Any], began: float, at: float) -> Action:
    function = str(data["fun"])
    answer = data.get("return")
    done = answer.get(CALLED[function]) if isinstance(answer, dict) else None
    told = [_text(one) for one in _list(done)]
    if not isinstance(answer, dict):
        result = f"failed: {_text(answer)}"
    else:
        result = CHANGED + _listed(told) if told else "nothing was to be changed"
    return Action(
        at=began,
        cluster="",
        minion=minion_id,
        subject=function,
        what=function,
        cause="a reactor asked",
        result=result,
        took_seconds=max(0.0, at - began),
        changed=bool(told),
    )


def _sentences(beacon: str, changes: Iterable[Mapping[Any, Any]]) -> Iterator[str]:
    for change in changes:
        if beacon == "real_server" and _is_weight(change):
            names = f"{_text(change.get('real_server'))} in {_text(change.get('virtual_server'))}"
            weights = f"{_text(change.get('weight_was'))} to {_text(change.get('weight_now'))}"
            yield f"weight of {names} from {weights}"
        elif beacon == "dummy" and change.get("repaired") is True:
            what = change.get("address") or change.get("sysctl")
            yield f"{_text(what)} put right"


def _is_weight(change: Mapping[Any, Any]) -> bool:
    return bool(change.get("weight_was") != change.get("weight_now"))


def _servers(changes: Iterable[Mapping[Any, Any]]) -> tuple[tuple[str, str], ...]:
    return tuple(islice(_named(changes), MOST_SERVERS))


def _named(changes: Iterable[Mapping[Any, Any]]) -> Iterator[tuple[str, str]]:
    for change in changes:
        virtual_server, real_server = change.get("virtual_server"), change.get("real_server")
        if _is_weight(change) and _is_name(virtual_server) and _is_name(real_server):
            yield virtual_server, real_server


def _is_name(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and NAME.fullmatch(value) is not None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _listed(told: list[str]) -> str:
    more = len(told) - MOST_SHOWN
    return "; ".join(told[:MOST_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _text(value: Any) -> str:
    # Of a large value, only its beginning is made a text at all.
    if isinstance(value, str):
        return short(value[:400])[:200]
    return str(value) if value is None or isinstance(value, (int, float, bool)) else "?"
