"""When a cluster's directors shall announce its VIPs again: not too often, but after each cause.

Each real server that has been heard on ARP is a cause, and its neighbours are right again only with
an announcement that comes later. So a cause that comes too soon after a round gets the next one,
and all that come before that one are covered by it. Here it is decided; the runner keeps the book,
and the directors wait where a round is not to begin at once.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

# The same as each director keeps to by itself (garp.SECONDS_BETWEEN).
SECONDS_BETWEEN = 5.0
# For how long it is remembered that a minion is no real server: to find out takes a tenth of a
# second, and events can be forged.
STRANGER_SECONDS = 60.0
# More accepted minions than that, and the oldest are forgotten sooner.
STRANGERS = 1000


@dataclass(frozen=True, slots=True)
class Round:
    """The last announcement that was asked for.

    cluster
        Its name.

    at
        When it begins, in seconds since 1970.

    real_servers
        Whose causes it can cover: those of the cluster, by minion id.
    """

    cluster: str
    at: float
    real_servers: frozenset[str]


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
                }
                for asked, one in self.rounds.items()
            },
            "strangers": dict(self.strangers),
        }
        return json.dumps(written)

    def covering(self, minion_id: str, now: float) -> str | None:
        """The cluster whose next round is still to come and covers a cause of this real server."""
        for one in self.rounds.values():
            if one.at > now and minion_id in one.real_servers:
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
    ) -> tuple[Book, float | None]:
        """The same after a cause, and in how many seconds the round begins that it needs; ``None``
        if one that is asked for already covers it.

        cluster
            Its name, to be told.

        directors, real_servers
            Those of the cluster, by minion id.
        """
        asked = _key(directors)
        last = self.rounds.get(asked)
        if last is not None and last.at > now:
            return self, None
        at = now if last is None else max(now, last.at + SECONDS_BETWEEN)
        rounds = {**self.rounds, asked: Round(cluster, at, frozenset(real_servers))}
        return replace(self, rounds=rounds), at - now

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
            {
                asked: one
                for asked, one in self.rounds.items()
                if abs(one.at - now) <= SECONDS_BETWEEN
            },
            {name: at for name, at in self.strangers.items() if 0 <= now - at < STRANGER_SECONDS},
        )


def _key(directors: Collection[str]) -> str:
    # No minion id that a pillar may name has a blank in it.
    return " ".join(sorted(directors))
