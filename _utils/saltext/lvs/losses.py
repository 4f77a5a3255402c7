"""What a real server has lost and got back, from one look to the next.

:func:`step` is a pure function of what was known, what is seen and the time; whoever looks keeps
what it returns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

HELD = "held"
LOST = "lost"
RESTORED = "restored"
RELEASED = "released"

# What one look tells of a VIP, by whether it was held before (None: this is its first look) and is
# held now.
NEWS: Mapping[tuple[bool | None, bool], tuple[str | None, str] | None] = {
    (None, True): None,
    (None, False): (None, LOST),
    (True, True): None,
    (True, False): (HELD, LOST),
    (False, True): (LOST, RESTORED),
    (False, False): None,
}


@dataclass(frozen=True, slots=True)
class Sight:
    """What one look saw.

    interface
        The one that should hold the VIPs.

    vips
        By address, whether it holds them.

    settings
        The values of the ARP settings, by name.

    faulty
        The names of those that let a VIP be heard.
    """

    interface: str
    vips: Mapping[str, bool]
    settings: Mapping[str, int] = field(default_factory=dict)
    faulty: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Vip:
    """What is known of one VIP.

    since
        When its last loss was first seen, in seconds since 1970.

    count
        How often it was lost since it is watched.
    """

    held: bool
    since: float | None = None
    count: int = 0


@dataclass(frozen=True, slots=True)
class Known:
    """What is known after a look.

    whole_told
        When the whole state was told last, on a clock that is never set.
    """

    vips: Mapping[tuple[str, str], Vip] = field(default_factory=dict)
    settings: Mapping[str, int] = field(default_factory=dict)
    whole_told: float | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What follows from a look.

    changes
        What has changed since the last one, as an event lists it.

    whole
        Whether the whole state is due to be told.
    """

    known: Known
    changes: tuple[Mapping[str, Any], ...]
    whole: bool


def step(known: Known, sight: Sight, at: float, clock: float, repeat: float) -> Step:
    """Return what is news in a look.

    A VIP or a setting that is seen for the first time is news if something is wrong with it.

    at
        The time, in seconds since 1970.

    clock
        The time on a clock that is never set, in seconds.

    repeat
        Seconds between two tellings of the whole state.
    """
    whole = is_due(known, clock, repeat)
    vips: dict[tuple[str, str], Vip] = {}
    changes: list[Mapping[str, Any]] = []
    for address, held in sight.vips.items():
        key = (sight.interface, address)
        before = known.vips.get(key)
        vips[key] = _after(before, held, at)
        news = NEWS[before.held if before else None, held]
        if news:
            changes.append(_vip_change(key, vips[key], *news))
    changes += _setting_changes(known.settings, sight)
    now = Known(vips, dict(sight.settings), clock if whole else known.whole_told)
    return Step(now, tuple(changes), whole)


def is_due(known: Known, clock: float, repeat: float) -> bool:
    """Whether it is time to tell the whole state; arguments as of :func:`step`."""
    return known.whole_told is None or clock - known.whole_told >= repeat


def _after(before: Vip | None, held: bool, at: float) -> Vip:
    if before is None:
        return Vip(held) if held else Vip(held, at, 1)
    if before.held and not held:
        return Vip(held, at, before.count + 1)
    return replace(before, held=held)


def released(interface: str, address: str, at: float) -> dict[str, Any]:
    """A VIP that was given up on purpose, as an event lists it."""
    return _vip_change((interface, address), Vip(False, at), HELD, RELEASED)


def _vip_change(key: tuple[str, str], vip: Vip, was: str | None, now: str) -> dict[str, Any]:
    interface, address = key
    return {
        "interface": interface,
        "address": address,
        "was": was,
        "now": now,
        "since": vip.since,
        "count": vip.count,
        "repaired": False,
    }


def _setting_changes(before: Mapping[str, int], sight: Sight) -> list[dict[str, Any]]:
    return [
        _setting_change(name, before.get(name), value, sight)
        for name, value in sight.settings.items()
        if value != before.get(name) and (name in before or name in sight.faulty)
    ]


def _setting_change(name: str, was: int | None, now: int, sight: Sight) -> dict[str, Any]:
    return {
        "sysctl": name,
        "was": was,
        "now": now,
        "quiet": name not in sight.faulty,
        "repaired": False,
    }


def wrong(known: Known, sight: Sight) -> list[Mapping[str, Any]]:
    """All that is wrong, as an event lists it, whether that is new or not."""
    lost = [_vip_change(key, vip, LOST, LOST) for key, vip in known.vips.items() if not vip.held]
    noisy = [
        _setting_change(name, value, value, sight)
        for name, value in sight.settings.items()
        if name in sight.faulty
    ]
    return [*lost, *noisy]


def whole_state(known: Known, sight: Sight) -> dict[str, Any]:
    """The whole truth as an event tells it."""
    return {
        "interface": sight.interface,
        "vips": [
            {
                "address": address,
                "now": HELD if vip.held else LOST,
                "since": vip.since,
                "count": vip.count,
            }
            for (_, address), vip in known.vips.items()
        ],
        "sysctls": dict(sight.settings),
        "quiet": not sight.faulty,
    }
