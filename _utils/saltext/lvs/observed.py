"""What all checks of a director have found, by real server: verdicts in, changes out.

Thousands of verdicts come each second, and nearly all say what the one before said: these cost one
step of the machine. Nothing here opens anything, and the time is handed in, on the clock of
:func:`saltext.lvs.overlay.clock`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from saltext.lvs import health as machine
from saltext.lvs.checks import Verdict
from saltext.lvs.health import Health, Rules, State
from saltext.lvs.overlay import Found, Name

# The others say that something may change soon, which is no news yet.
TOLD = frozenset({State.UP, State.DOWN, State.HELD})
UNKNOWN = State.UNKNOWN.value
UNASKED = "not asked yet"
LATER_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Move:
    """A real server that has come into another state, in one virtual server."""

    name: Name
    was: str
    now: str
    found: Found


@dataclass(slots=True)
class Observed:
    """What is known of each check, and of each real server by all its checks. One thread's.

    found
        By virtual server and real server; of who goes on as before, as old as its last change: see
        :meth:`refresh`.

    urgent, later
        Virtual servers to be decided anew: at once; or when something is known of all their real
        servers, or a little later. That a real server is up is not urgent where nothing was known
        of it: so it is for all of them after a start.

    known
        What was known of a real server before the first verdict, from who watched before.
    """

    found: dict[Name, Found] = field(default_factory=dict)
    urgent: set[str] = field(default_factory=set)
    later: dict[str, float] = field(default_factory=dict)
    known: dict[Name, Found] = field(default_factory=dict)
    _unknown: Counter[str] = field(default_factory=Counter)
    _checks: dict[Any, tuple[Name, Rules]] = field(default_factory=dict)
    _healths: dict[Any, Health] = field(default_factory=dict)
    _keys: dict[Name, list[Any]] = field(default_factory=dict)
    _holds: dict[Any, float] = field(default_factory=dict)
    _told: dict[Name, str] = field(default_factory=dict)
    _moved: dict[Name, str] = field(default_factory=dict)

    def set_checks(self, keys: Iterable[Any], rules: Mapping[str, Rules]) -> None:
        """Make these the checks; what is known of one that stays is kept.

        keys
            As of :class:`saltext.lvs.checksets.Key`.

        rules
            By virtual server.
        """
        wanted: dict[Any, tuple[Name, Rules]] = {}
        self._keys = {}
        for key in keys:
            name = key.virtual_server, key.real_server
            wanted[key] = name, rules[key.virtual_server]
            self._keys.setdefault(name, []).append(key)
        self._checks = wanted
        healths = self._healths
        self._healths = {key: healths.get(key) or Health(reason=UNASKED) for key in wanted}
        self._holds = {key: until for key, until in self._holds.items() if key in wanted}
        for by_name in (self._told, self._moved, self.known):
            for name in by_name.keys() - self._keys.keys():
                del by_name[name]
        before, self.found = self.found, {}
        self._unknown = Counter(name[0] for name in self._keys)
        for name in self._keys:
            self.found[name] = self._as_it_was(name, before.get(name))
            self._unknown[name[0]] -= self.found[name].state != UNKNOWN
            # A check more or less may make another one the worst.
            self._note(name, before.get(name) or self.found[name])

    def _as_it_was(self, name: Name, before: Found | None) -> Found:
        """Whoever is asked in another way from now on is what it was until it has answered."""
        found = self._judged(name, before)
        if found.serves is not None or before is None or before.serves is None:
            return found
        self.known.setdefault(name, before)
        return self._judged(name, before)

    def remember(self, known: Mapping[Name, Found]) -> None:
        """What somebody else knew who watched before; counts until a verdict says otherwise."""
        self.known = dict(known)
        self._told = {name: found.state for name, found in known.items()}

    def take(self, verdicts: Sequence[Verdict], at: float) -> bool:
        """Learn from verdicts; whether something must be decided anew at once."""
        checks, healths, step = self._checks, self._healths, machine.step
        for verdict in verdicts:
            key = verdict.key
            name, rules = checks[key]
            before = healths[key]
            after = step(before, rules, verdict.ok, verdict.reason, at, verdict.milliseconds)
            healths[key] = after
            if after.state is not before.state or after.unasked != before.unasked:
                self._hold(key, after)
                self._step(name)
        return bool(self.urgent)

    def tick(self, at: float) -> None:
        """Let those come back whose hold is over."""
        for key in [key for key, until in self._holds.items() if until <= at]:
            name, rules = self._checks[key]
            del self._holds[key]
            self._healths[key] = machine.tick(self._healths[key], rules, at)
            self._step(name)

    def next_tick(self) -> float | None:
        """When :meth:`tick` may change something."""
        return min(self._holds.values(), default=None)

    def moves(self, waiting: Collection[str]) -> list[Move]:
        """Who has come into another state since this was last called.

        waiting
            Virtual servers that are not decided yet: what there is of them stays for later.
        """
        moved, self._moved = self._moved, {}
        found = []
        for name, was in moved.items():
            if name[0] in waiting:
                self._moved[name] = was
            elif was != self._told[name]:
                found.append(Move(name, was, self._told[name], self.found[name]))
        return found

    def take_later(self, at: float) -> set[str]:
        """Those of :attr:`later` whose time has come; they are not in it any more."""
        ready = {
            name
            for name, since in self.later.items()
            if not self._unknown[name] or at - since >= LATER_SECONDS
        }
        for name in ready:
            del self.later[name]
        return ready

    def refresh(self, names: Iterable[Name] | None = None) -> None:
        """Have :attr:`found` tell the last verdict of some, or of all, with its time."""
        for name in list(self._keys if names is None else names):
            self.found[name] = self._judged(name, self.found[name])

    # ----------------------------------------------------------------------------------------------

    def _hold(self, key: Any, after: Health) -> None:
        self._holds.pop(key, None)
        if after.held_until is not None:
            self._holds[key] = after.held_until

    def _step(self, name: Name) -> None:
        before = self.found[name]
        self.found[name] = self._judged(name, before)
        known = (before.state == UNKNOWN) - (self.found[name].state == UNKNOWN)
        self._unknown[name[0]] -= known
        self._note(name, before)

    def _note(self, name: Name, before: Found) -> None:
        """What a change means: who has to be decided anew, and what is to be told."""
        now = self.found[name]
        if now.serves is not before.serves or _is_held(now) is not _is_held(before):
            if before.state == UNKNOWN and now.serves and not now.was_away:
                self.later.setdefault(name[0], now.checked or 0.0)
            else:
                self.urgent.add(name[0])
        if State(now.state) not in TOLD or now.state == self._told.get(name):
            return
        was = self._told.get(name, UNKNOWN)
        self._told[name] = now.state
        if (was, now.state) != (UNKNOWN, State.UP.value):
            self._moved.setdefault(name, was)

    def _judged(self, name: Name, before: Found | None) -> Found:
        keys, healths = self._keys[name], self._healths
        several = len(keys) > 1
        health = machine.overall(healths[key] for key in keys) if several else healths[keys[0]]
        serves, since = machine.serves(health.state), health.since
        known = self.known.get(name)
        if known is not None and serves is None and known.serves is False:
            serves = False
        if known is not None and serves is known.serves:
            since = known.since
        elif serves is not None:
            self.known.pop(name, None)
        away = serves is False or bool(before and before.was_away) or bool(known and known.was_away)
        falls = 0 if before is None else before.falls + bool(before.serves and serves is False)
        # By position: this is done for all of them at once.
        return Found(
            health.state.value,
            serves,
            since,
            health.reason,
            away,
            health.checked,
            health.milliseconds,
            health.count,
            bool(before and before.busy and before.serves and serves),
            falls,
        )


def _is_held(found: Found) -> bool:
    return found.state == State.HELD.value
