"""What verdicts make of a real server: a table of states, and one step.

A check's verdicts go in one after the other, with the time on a clock that is never set; what comes
out is a value. Too few verdicts in a row change nothing. A real server that fails again and again
is held out for longer each time before it may come back.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace


class State(enum.Enum):
    """How a real server is, by one check or by all."""

    UNKNOWN = "unknown"
    UP = "up"
    FALLING = "falling"
    DOWN = "down"
    RISING = "rising"
    HELD = "held"


@dataclass(frozen=True, slots=True)
class Rules:
    """When verdicts change a state.

    rise, fall
        So many good ones in a row bring a real server back, so many bad ones take it out.

    flaps, within
        The fall with which there are so many within these seconds makes the return wait; 0 is
        never.

    hold, longest_hold
        How long it must be good before it is back, in seconds: the first time, and at the most.
        Each further fall doubles it, until the real server has served for *within* seconds.
    """

    rise: int = 1
    fall: int = 1
    flaps: int = 3
    within: float = 300
    hold: float = 30
    longest_hold: float = 600


@dataclass(frozen=True, slots=True)
class Health:
    """What is known by one check of one real server in one virtual server.

    since
        When it began to serve, or ceased to: FALLING still serves, RISING and HELD do not yet.

    reason
        The last verdict's.

    count
        Verdicts in a row against the state; of HELD, good ones.

    checked, milliseconds
        When the last verdict came, and how long it took.

    falls
        When it went down lately.

    held_until
        Of HELD alone: when it may come back.

    hold
        The seconds that the next return has to wait; 0 where it need not.

    unasked
        How often in a row it could not be asked.
    """

    state: State = State.UNKNOWN
    since: float = 0
    reason: str = ""
    count: int = 0
    checked: float | None = None
    milliseconds: float | None = None
    falls: tuple[float, ...] = ()
    held_until: float | None = None
    hold: float = 0
    unasked: int = 0


# What a verdict means in a state: the state for now, and that with enough of the kind in a row; of
# HELD, when its time is over.
TRANSITIONS: Mapping[tuple[State, bool], tuple[State, State]] = {
    (State.UNKNOWN, True): (State.UP, State.UP),
    (State.UNKNOWN, False): (State.UNKNOWN, State.DOWN),
    (State.UP, True): (State.UP, State.UP),
    (State.UP, False): (State.FALLING, State.DOWN),
    (State.FALLING, True): (State.UP, State.UP),
    (State.FALLING, False): (State.FALLING, State.DOWN),
    (State.DOWN, True): (State.RISING, State.UP),
    (State.DOWN, False): (State.DOWN, State.DOWN),
    (State.RISING, True): (State.RISING, State.UP),
    (State.RISING, False): (State.DOWN, State.DOWN),
    (State.HELD, True): (State.HELD, State.UP),
    (State.HELD, False): (State.DOWN, State.DOWN),
}

SERVES: Mapping[State, bool | None] = {
    State.UNKNOWN: None,
    State.UP: True,
    State.FALLING: True,
    State.DOWN: False,
    State.RISING: False,
    State.HELD: False,
}

# By these names they are found at once; Python 3.11 takes a while to find a member of an enum.
_UP, _DOWN, _HELD, _UNKNOWN = State.UP, State.DOWN, State.HELD, State.UNKNOWN


def serves(state: State) -> bool | None:
    """Whether clients may be sent to a real server in that state; ``None`` if nobody knows."""
    return SERVES[state]


# --------------------------------------------------------------------------------------------------
# One check


def step(
    health: Health,
    rules: Rules,
    ok: bool | None,
    reason: str,
    at: float,
    milliseconds: float | None = None,
) -> Health:
    """What is known after a verdict.

    ok
        ``None`` if it could not be asked: the reason is told, and the state stays.

    at
        When the verdict came, in seconds on a clock that is never set.
    """
    state = health.state
    if (state is _UP and ok) or (state is _DOWN and ok is False):
        # Nearly all verdicts end here, thousands a second: hence without a call, and by position.
        return Health(
            state, health.since, reason, 0, at, milliseconds, health.falls, None, health.hold
        )
    unasked = health.unasked + 1 if ok is None else 0
    told = replace(health, reason=reason, checked=at, milliseconds=milliseconds, unasked=unasked)
    return told if ok is None else _judged(told, rules, ok, at)


def tick(health: Health, rules: Rules, at: float) -> Health:
    """What is known without a verdict: a hold is over, if there were good ones meanwhile.

    Whoever watches calls it at :attr:`Health.held_until`.
    """
    if health.state is _HELD and health.count and _is_over(health, rules, at):
        return _moved(health, rules, _UP, at)
    return health


def _judged(health: Health, rules: Rules, ok: bool, at: float) -> Health:
    for_now, then = TRANSITIONS[health.state, ok]
    if for_now is then:
        return _moved(health, rules, then, at)
    counted = replace(health, state=for_now, count=health.count + 1)
    if health.state is _HELD:
        enough = _is_over(health, rules, at)
    else:
        enough = counted.count >= (rules.rise if ok else rules.fall)
    return _moved(health, rules, then, at) if enough else counted


def _is_over(health: Health, rules: Rules, at: float) -> bool:
    return not rules.flaps or health.held_until is None or at >= health.held_until


def _moved(health: Health, rules: Rules, to: State, at: float) -> Health:
    was, now = SERVES[health.state], SERVES[to]
    if to is _DOWN and (was or health.state is _HELD):
        health = _fallen(health, rules, at)
    if to is _UP and was is False and health.state is not _HELD and health.hold:
        return replace(health, state=_HELD, count=0, held_until=at + health.hold)
    since = health.since if was is now else at
    return replace(health, state=to, since=since, count=0, held_until=None)


def _fallen(health: Health, rules: Rules, at: float) -> Health:
    """It has failed once more; one that was held had not come back, but it counts."""
    if SERVES[health.state] and at - health.since >= rules.within:
        health = replace(health, falls=(), hold=0)
    recent = [fall for fall in health.falls if at - fall < rules.within]
    falls = (*recent, at)[-max(rules.flaps, 1) :]
    damped = rules.flaps and (health.hold or len(falls) >= rules.flaps)
    hold = min(health.hold * 2 or rules.hold, rules.longest_hold) if damped else 0
    return replace(health, falls=falls, hold=hold)


# --------------------------------------------------------------------------------------------------
# Several checks

# After so many attempts a check that never could be asked is not waited for any longer.
MOST_UNASKED = 3
# The first one that any of them is in.
WORST = (State.DOWN, State.HELD, State.RISING, State.UNKNOWN, State.FALLING, State.UP)


def overall(healths: Iterable[Health]) -> Health:
    """What several checks of one real server say together: the worst decides.

    It serves since the last of them let it, or does not since the first of them failed. One that
    could never be asked has no say where another one has.
    """
    every = list(healths)
    asked = [health for health in every if not _is_mute(health)] or every
    if not asked:
        return Health()
    worst = min(asked, key=lambda health: (WORST.index(health.state), health.since))
    alike = [health.since for health in asked if SERVES[health.state] is SERVES[worst.state]]
    since = max(alike) if SERVES[worst.state] else min(alike)
    return worst if worst.since == since else replace(worst, since=since)


def _is_mute(health: Health) -> bool:
    return health.state is _UNKNOWN and health.unasked >= MOST_UNASKED
