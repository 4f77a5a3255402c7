"""How the health of a director's real servers is told: plain values, as events carry them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saltext.lvs.health import State
from saltext.lvs.model import Cluster, ManagedBy, VirtualServer, VirtualServerConfig
from saltext.lvs.observed import Move
from saltext.lvs.overlay import Found, Name
from saltext.lvs.policy import Decision

# Salt's bus throws away what is larger than a megabyte.
MOST_LISTED = 1000

Change = dict[str, Any]


@dataclass(slots=True)
class Edit:
    """What came of deciding a virtual server.

    before, after
        As it was in the kernel, and as it is now; ``None`` where it is not there.

    problem
        Why it could not be set.
    """

    decision: Decision | None = None
    before: VirtualServer | None = None
    after: VirtualServer | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """How a virtual server is as a whole.

    kept
        Those that have failed and keep their clients.

    problem
        Why it is not as it should be.
    """

    quorum: bool = True
    sorry: bool = False
    kept: tuple[str, ...] = ()
    problem: str | None = None


def of_real_servers(
    cluster: Cluster,
    name: str,
    edit: Edit,
    moves: Sequence[Move],
    found: Mapping[Name, Found],
    silent: bool,
) -> list[Change]:
    """What has changed of a virtual server's real servers.

    silent
        Other weights alone are no news.
    """
    config = cluster.virtual_servers[name]
    before, after = _weights(edit.before), _weights(edit.after)
    moved = {move.name[1]: move for move in moves}
    others = not silent and before != after
    told = []
    for share in config.real_servers:
        if not others and share.name not in moved:
            continue
        place = str(cluster.real_servers[share.name].address), share.port
        weights = before.get(place), after.get(place)
        if share.name not in moved and weights[0] == weights[1]:
            continue
        one, move = found.get((name, share.name)), moved.get(share.name)
        told.append(
            {
                **_named(config, share.name),
                "was": move.was if move else one and one.state,
                "now": move.now if move else one and one.state,
                "reason": one.reason if one else "",
                "weight_was": weights[0],
                "weight_now": weights[1],
                "why": _share(edit.decision, share.name)[1],
            }
        )
    return told


def _named(config: VirtualServerConfig, real_server: str) -> Change:
    named = {"virtual_server": config.name, "real_server": real_server}
    # Nobody but keepalived sets its weight.
    kept = config.managed_by is ManagedBy.KEEPALIVED
    return {**named, "managed_by": config.managed_by.value} if kept else named


def _weights(server: VirtualServer | None) -> dict[tuple[str, int], int]:
    """By address and port, as text: addresses take long to compare."""
    if server is None:
        return {}
    return {(str(real.key.address), real.key.port): real.weight for real in server.real_servers}


def _share(decision: Decision | None, real_server: str) -> tuple[int | None, str]:
    share = decision.shares.get(real_server) if decision is not None else None
    return (share.weight, share.why) if share is not None else (None, "")


def of_whole(name: str, before: Standing, now: Standing) -> list[Change]:
    """What has changed of a virtual server as a whole."""
    if now == before:
        return []
    words = {True: State.UP.value, False: State.DOWN.value}
    return [
        {
            "virtual_server": name,
            "was": words[before.quorum],
            "now": words[now.quorum],
            "sorry": now.sorry,
            "kept": list(now.kept[:MOST_LISTED]),
            "kept_count": len(now.kept),
            "problem": now.problem,
        }
    ]


def summary(
    config: VirtualServerConfig, states: Mapping[str, int], standing: Standing
) -> dict[str, Any]:
    """A virtual server in the whole state.

    states
        How many of its real servers are in each.
    """
    return {
        "virtual_server": config.name,
        "managed_by": config.managed_by.value,
        "states": dict(states),
        "unchecked": len(config.real_servers) - sum(states.values()),
        "quorum": standing.quorum,
        "sorry": standing.sorry,
        "kept": len(standing.kept),
        "problem": standing.problem,
    }


def not_up(
    names: Collection[Name],
    found: Mapping[Name, Found],
    decisions: Mapping[str, Decision],
    booted: float,
) -> list[dict[str, Any]]:
    """Those that are not up, in the whole state: the first of them.

    booted
        When the clock that they are dated by began, in seconds since 1970.
    """
    told = []
    for name in list(names)[:MOST_LISTED]:
        one = found[name]
        weight, why = _share(decisions.get(name[0]), name[1])
        told.append(
            {
                "virtual_server": name[0],
                "real_server": name[1],
                "now": one.state,
                "since": round(booted + one.since, 3) if one.since else None,
                "reason": one.reason,
                "weight": weight,
                "why": why,
            }
        )
    return told
