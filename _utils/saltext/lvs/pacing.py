"""When each check runs next: spread over its interval, jittered, and never twice at a time.

Nothing here reads a clock: the time is handed in, in seconds on a clock that is never set. A check
keeps a place of its own in the interval, whatever else is added or taken away. What comes late does
not come twice: a check that is still running when it should begin again just misses a turn, and
after a standstill of the whole machine each waits for its next place instead of all at once.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

# Steps of the golden ratio fill a circle evenly, however many there will be (Knuth, The Art of
# Computer Programming, volume 3, section 6.4).
GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, slots=True)
class Pace:
    """How often something runs.

    interval
        Seconds from one turn to the next.

    jitter
        Up to what share of the interval a turn comes later, 0 to 1: so that machines that were
        started together do not stay in step.

    warmup
        Seconds within which the first turn comes; by default the interval.
    """

    interval: float = 10
    jitter: float = 0.1
    warmup: float | None = None

    def __post_init__(self) -> None:
        if not (self.interval > 0 and 0 <= self.jitter <= 1 and (self.warmup or 0) >= 0):
            raise ValueError(f"{self} cannot be kept")


@dataclass(slots=True)
class _Turn:
    """Where something is in its pace.

    anchor, number
        Its place number 0 in time, the others are whole intervals later; the number of the last
        one that it has waited for.

    entry
        Its valid entry in the queue; 0 while it runs.
    """

    pace: Pace
    anchor: float
    number: int = -1
    entry: int = 0
    running: bool = False


class Schedule:
    """The turns of a set of keys.

    seed
        Makes places and jitter the same on every run, for tests.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._random = random.Random(seed)
        self._place = self._random.random()
        self._turns: dict[Hashable, _Turn] = {}
        self._queue: list[tuple[float, int, Hashable]] = []
        self._entries = itertools.count(1)

    def __len__(self) -> int:
        return len(self._turns)

    def set(self, wanted: Mapping[Hashable, Pace], now: float) -> None:
        """Make this the set of keys; those whose pace is as it was are not touched."""
        for key in self._turns.keys() - wanted.keys():
            del self._turns[key]
        for key, pace in wanted.items():
            self._put(key, pace, now)

    def _put(self, key: Hashable, pace: Pace, now: float) -> None:
        turn = self._turns.get(key)
        if turn is not None and turn.pace == pace:
            return
        self._place = (self._place + GOLDEN) % 1
        anchor = now + self._place * pace.interval
        running = turn is not None and turn.running
        self._turns[key] = turn = _Turn(pace, anchor, running=running)
        if not running and pace.warmup is None:
            turn.number = 0
            self._queue_at(key, turn, anchor)
        elif not running and pace.warmup is not None:
            self._queue_at(key, turn, now + self._place * pace.warmup)

    def due(self, now: float, most: int | None = None) -> list[Hashable]:
        """Whose turn it is, the longest due first; each is running from now on.

        most
            So many at a time; by default all.
        """
        found: list[Hashable] = []
        while self._queue and self._queue[0][0] <= now and len(found) != most:
            when, entry, key = heapq.heappop(self._queue)
            turn = self._turns.get(key)
            if turn is None or turn.entry != entry:
                continue
            if now - when >= turn.pace.interval:
                self._next(key, turn, now)
                continue
            turn.entry, turn.running = 0, True
            found.append(key)
        return found

    def done(self, key: Hashable, now: float, again_in: float | None = None) -> None:
        """Something has run: its next turn comes at its next place, or in so many seconds."""
        turn = self._turns.get(key)
        if turn is None or not turn.running:
            return
        turn.running = False
        if again_in is None:
            self._next(key, turn, now)
        else:
            self._queue_at(key, turn, now + again_in)

    def next_at(self) -> float | None:
        """When somebody's turn comes; ``None`` if nobody waits."""
        while self._queue:
            when, entry, key = self._queue[0]
            turn = self._turns.get(key)
            if turn is not None and turn.entry == entry:
                return when
            heapq.heappop(self._queue)
        return None

    def _next(self, key: Hashable, turn: _Turn, now: float) -> None:
        interval = turn.pace.interval
        # Counted, because by rounding alone a place could come twice.
        turn.number = max(turn.number, math.floor((now - turn.anchor) / interval)) + 1
        place = turn.anchor + turn.number * interval
        later = self._random.random() * turn.pace.jitter * interval if turn.pace.jitter else 0.0
        self._queue_at(key, turn, place + later)

    def _queue_at(self, key: Hashable, turn: _Turn, when: float) -> None:
        turn.entry = next(self._entries)
        heapq.heappush(self._queue, (when, turn.entry, key))
