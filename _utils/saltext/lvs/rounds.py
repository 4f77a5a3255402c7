"""When a cluster's directors shall announce its VIPs again: not too often, but after each cause.

Each real server that has been heard on ARP is a cause, and its neighbours are right again only with
an announcement that comes later. So a cause that comes too soon after a round gets the next one,
and all that come before that one are covered by it. Here it is decided; the runner keeps the book,
and the directors wait where a round is not to begin at once.

When the master asks who holds VIPs is decided in the same way; and there one round is at work at a
time, however long it takes, while at most one more waits.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

# The same as each director keeps to by itself (garp.SECONDS_BETWEEN).
SECONDS_BETWEEN = 5.0
# For how long it is remembered that a minion is no real server: to find out takes a tenth of a
# second, and events can be forged.
STRANGER_SECONDS = 60.0
# More accepted minions than that, and the oldest are forgotten sooner.
STRANGERS = 1000
# For how long a round is remembered: events of before may still wait for a reactor.
KEPT_SECONDS = 60.0
# Who is at work says so more often than that, unless its process has ended.
BUSY_SECONDS = 30.0
# Who waits for that one to be done looks so often, and says before then that it still waits.
WAIT_SECONDS = 1.0
STILL_THERE_SECONDS = 3.0


def told_at(stamp: object, now: float) -> float:
    """When an event came, in seconds since 1970, by the time that the master stamps on it; now,
    where that is none, or still to come.
    """
    try:
        told = datetime.fromisoformat(str(stamp))
    except ValueError:
        return now
    # Salt writes UTC, before 3008 without saying so.
    told = told if told.tzinfo else told.replace(tzinfo=timezone.utc)
    return min(told.timestamp(), now)


@dataclass(frozen=True, slots=True)
class Round:
    """The last announcement that was asked for.

    cluster
        Its name.

    at
        When it begins, in seconds since 1970.

    real_servers
        Whose causes it can cover: those of the cluster, by minion id.

    busy_until
        Until when somebody is at work for that cluster, as far as is known.
    """

    cluster: str
    at: float
    real_servers: frozenset[str]
    busy_until: float = 0.0


@dataclass(frozen=True, slots=True)
class Book:
    """What is known of rounds, and of who was asked for in vain.

    rounds
        The last one, by who was asked: two clusters may have one name, which has a default.

    strangers
        Minions that were no real servers when somebody looked, with the time.
    """

    rounds: Mapping[str, Round] = field(default_factory=dict)
    strangers: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def load(cls, text: str, now: float) -> Book:
        """What was written, without what plays no part any more; nothing from other text."""
        try:
            written = json.loads(text)
            rounds = {
                str(asked): Round(
                    str(item["cluster"]),
                    float(item["at"]),
                    frozenset(map(str, item["real_servers"])),
                    float(item.get("busy_until", 0.0)),
                )
                for asked, item in written["rounds"].items()
            }
            strangers = {str(name): float(at) for name, at in written["strangers"].items()}
        except (ValueError, TypeError, KeyError, AttributeError):
            return cls()
        return cls(rounds, strangers)._current(now)

    def dump(self) -> str:
        """The text that :meth:`load` reads."""
        written: dict[str, Any] = {
            "rounds": {
                asked: {
                    "cluster": one.cluster,
                    "at": one.at,
                    "real_servers": sorted(one.real_servers),
                    "busy_until": one.busy_until,
                }
                for asked, one in self.rounds.items()
            },
            "strangers": dict(self.strangers),
        }
        return json.dumps(written)

    def covering(self, minion_id: str, told: float) -> str | None:
        """The cluster whose last round began, or is to begin, after this real server's cause, and
        covers it.

        told
            When the cause was told, in seconds since 1970.
        """
        for one in self.rounds.values():
            if one.at > told and minion_id in one.real_servers:
                return one.cluster
        return None

    def knows_as_stranger(self, minion_id: str) -> bool:
        """Whether the minion was no real server when somebody looked, a moment ago."""
        return minion_id in self.strangers

    def with_stranger(self, minion_id: str, now: float) -> Book:
        """The same, knowing of a minion that it is no real server."""
        newest = sorted(self.strangers.items(), key=lambda item: item[1])[1 - STRANGERS :]
        return replace(self, strangers={**dict(newest), minion_id: now})

    def with_cause(
        self,
        cluster: str,
        directors: Collection[str],
        real_servers: Collection[str],
        now: float,
        told: float | None = None,
    ) -> tuple[Book, float | None]:
        """The same after a cause, and in how many seconds the round begins that it needs; ``None``
        if one that is asked for already covers it.

        cluster
            Its name, to be told.

        directors, real_servers
            Those of the cluster, by minion id.

        told
            When the cause was told, in seconds since 1970; by default now.
        """
        asked = _key(directors)
        last = self.rounds.get(asked)
        if last is not None and last.at > (now if told is None else told):
            return self, None
        at = now if last is None else max(now, last.at + SECONDS_BETWEEN)
        busy_until = 0.0 if last is None else last.busy_until
        one = Round(cluster, at, frozenset(real_servers), busy_until)
        return self._with(asked, one), at - now

    def round_of(self, directors: Collection[str]) -> Round | None:
        """The last round that was booked for a cluster."""
        return self.rounds.get(_key(directors))

    def at_turn(
        self, directors: Collection[str], booked: Round, now: float
    ) -> tuple[Book, Round | None, float]:
        """The same when a round is due; the round as it is now, and the seconds it has to wait.

        Where that is none it begins, and is at work until :meth:`at_work` says otherwise. ``None``
        for a round that another one covers.
        """
        asked = _key(directors)
        last = self.rounds.get(asked, booked)
        is_busy = last.busy_until > now
        if last.at != booked.at and (is_busy or last.at <= now):
            return self, None, 0.0  # The other one began after this one's cause, or waits.
        if is_busy:
            # As long as it waits it covers every cause that comes.
            waits = replace(last, at=now + STILL_THERE_SECONDS)
            return self._with(asked, waits), waits, WAIT_SECONDS
        begins = replace(last, at=now, busy_until=now + BUSY_SECONDS)
        return self._with(asked, begins), begins, 0.0

    def at_work(self, directors: Collection[str], until: float) -> Book:
        """The same where whoever is at work for a cluster will be until then."""
        asked = _key(directors)
        last = self.rounds.get(asked)
        return self if last is None else self._with(asked, replace(last, busy_until=until))

    def _with(self, asked: str, one: Round) -> Book:
        return replace(self, rounds={**self.rounds, asked: one})

    def without(self, directors: Collection[str], booked: Book, before: Book) -> Book:
        """The same without a round that nobody could be asked for; the one before it still counts.

        booked, before
            The book with that round, and as it was then without it.
        """
        asked = _key(directors)
        if self.rounds.get(asked) != booked.rounds.get(asked):
            return self  # It is over, or the last one is somebody else's by now.
        left = {key: one for key, one in self.rounds.items() if key != asked}
        last = before.rounds.get(asked)
        return replace(self, rounds={**left, asked: last} if last else left)

    def _current(self, now: float) -> Book:
        """Without what is over, and what a clock that was set back has left in the future."""
        return Book(
            {asked: one for asked, one in self.rounds.items() if _matters(one, now)},
            {name: at for name, at in self.strangers.items() if 0 <= now - at < STRANGER_SECONDS},
        )


def _matters(one: Round, now: float) -> bool:
    ahead = max(SECONDS_BETWEEN, STILL_THERE_SECONDS)
    if one.at - now > ahead or one.busy_until - now > BUSY_SECONDS:
        return False
    return now - one.at < KEPT_SECONDS or one.busy_until > now


def _key(directors: Collection[str]) -> str:
    # No minion id that a pillar may name has a blank in it.
    return " ".join(sorted(directors))
