"""Ask many real servers whether they serve: one thread, no blocking, no thread of its own.

An :class:`Engine` is given checks, stepped by whoever has a thread for it, and hands out verdicts
as values. It keeps no state of health: what a verdict means is for others to say.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import time
from collections.abc import Callable, Collection, Hashable, Iterable
from dataclasses import dataclass

from saltext.lvs.checks import Asker, Check, Exec, Flight, How, Path, Verdict
from saltext.lvs.errors import KernelError
from saltext.lvs.loop import READABLE, Handler, Loop, Timer
from saltext.lvs.pacing import Schedule
from saltext.lvs.paths import Paths, Wire
from saltext.lvs.programs import LOOK_EVERY_SECONDS, Runner
from saltext.lvs.streams import Caller, not_asked

# What the rest of the process may want to open meanwhile.
SPARE_DESCRIPTORS = 128
FEWEST_DESCRIPTORS = 8
# Programs take more than descriptors: a process each.
MOST_PROGRAMS = 32
COSTS: dict[type, int] = {Exec: 4, Path: 0}
OUT_OF_DESCRIPTORS = {errno.EMFILE, errno.ENFILE}
RECOUNT_SECONDS = 5.0
STEP_SECONDS = 1.0
# Where this thread had to wait for longer than that, its time counts for no real server.
STOOD_STILL_SECONDS = 0.1
AGAIN_SECONDS = 1.0
# In steps of LOOK_EVERY_SECONDS.
REAPED_WITHIN = 5
# Turns that are closer together than that are begun in one go.
GRAIN_SECONDS = 0.005
# So many are begun before those that are being asked get their turn again.
MOST_AT_ONCE = 128


def free_descriptors() -> int:
    """How many descriptors this process may still open for checks, by its limit (RLIMIT_NOFILE)."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    return max(FEWEST_DESCRIPTORS, limit - used - SPARE_DESCRIPTORS)


@dataclass(slots=True)
class _Running:
    check: Check
    began: float
    cost: int
    flight: Flight | None = None
    timer: Timer | None = None
    again: bool = False


class Flights:
    """Checks that are being asked, each once; those for which there is no room wait in line.

    descriptors
        How many may be open at a time.
    """

    def __init__(self, loop: Loop, descriptors: int | None = None) -> None:
        self.loop = loop
        self._most = descriptors
        self._free = free_descriptors() if descriptors is None else descriptors
        self._programs = MOST_PROGRAMS
        self._paths: Paths | None = None
        self._askers: dict[Hashable, tuple[How, Asker]] = {}
        self._running: dict[Hashable, _Running] = {}
        # In the order in which they came, programs in a line of their own: dicts, so that one can
        # be taken out.
        self._lines: tuple[dict[Hashable, Check], dict[Hashable, Check]] = ({}, {})
        self._verdicts: list[Verdict] = []

    @property
    def busy(self) -> int:
        """How many are being asked."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """How many wait in line."""
        return sum(map(len, self._lines))

    def begin(self, check: Check) -> None:
        """Ask, as soon as there is room."""
        key, (others, programs) = check.key, self._lines
        if key in self._running or key in others or key in programs:
            raise ValueError(f"{key} is being asked already")
        line = self._line(check)
        if _cost(check) and (line or not self._has_room(check)):
            line[check.key] = check
        else:
            self._start(check)

    def stop(self, key: Hashable) -> None:
        """Ask no more, without a verdict; without effect if it is not being asked."""
        for line in self._lines:
            line.pop(key, None)
        running = self._ended(key)
        if running is not None and running.flight is not None:
            running.flight.stop()

    def forget(self, key: Hashable) -> None:
        """:meth:`stop`, for good."""
        self.stop(key)
        self._askers.pop(key, None)

    def step(self, seconds: float) -> list[Verdict]:
        """Wait for something to happen, so long at most; the verdicts that there are by then."""
        self.loop.step(0 if self._verdicts else seconds)
        self._admit()
        verdicts, self._verdicts = self._verdicts, []
        return verdicts

    def wires(self) -> tuple[Wire, ...]:
        """The packet sockets in use."""
        return self._paths.wires() if self._paths is not None else ()

    def close(self) -> None:
        """End everything and give back all descriptors, but for the loop's."""
        programs = any(isinstance(one.check.how, Exec) for one in self._running.values())
        for key in (*self._running, *self._lines[0], *self._lines[1]):
            self.stop(key)
        for _ in range(REAPED_WITHIN if programs else 0):
            # Those that were killed are this process's to bury.
            self.loop.step(LOOK_EVERY_SECONDS)
        if self._paths is not None:
            self._paths.close()
            self._paths = None
        self._askers.clear()

    def _has_room(self, check: Check) -> bool:
        if isinstance(check.how, Exec) and self._programs <= 0:
            return False
        # One alone is tried, however little there is.
        return self._free >= _cost(check) or not self._running

    def _line(self, check: Check) -> dict[Hashable, Check]:
        return self._lines[isinstance(check.how, Exec)]

    def _admit(self) -> None:
        for line in self._lines:
            while line:
                key, check = next(iter(line.items()))
                if not self._has_room(check):
                    break
                del line[key]
                if not self._start(check):
                    return

    def _start(self, check: Check) -> bool:
        """False if there turned out to be no room."""
        key = check.key
        running = _Running(check, self.loop.now, _cost(check))
        self._running[key] = running
        self._take(running, 1)
        try:
            flight = self._asker(check).start(
                self.loop, check.timeout, lambda ok, reason: self._over(key, ok, reason)
            )
        except KernelError as error:
            return self._refused(running, error.number, str(error))
        except OSError as error:
            return self._refused(running, error.errno or errno.EIO)
        if self._running.get(key) is running:
            running.flight = flight
            running.timer = self.loop.later(check.timeout, lambda: self._expire(key))
        return True

    def _refused(self, running: _Running, number: int, reason: str = "") -> bool:
        key = running.check.key
        if number in OUT_OF_DESCRIPTORS and len(self._running) > 1:
            # Somebody else has taken what was left: wait until one of ours is over.
            self._ended(key)
            self._free = 0
            self.loop.later(RECOUNT_SECONDS, self._recount)
            self._put_first(running.check)
            return False
        # Nobody has been asked: this says nothing of anybody's health.
        self._over(key, None, reason or not_asked(number, str(running.check.how)))
        return True

    def _put_first(self, check: Check) -> None:
        line = self._line(check)
        others = dict(line)
        line.clear()
        line.update({check.key: check} | others)

    def _recount(self) -> None:
        in_use = sum(running.cost for running in self._running.values())
        free = free_descriptors()
        self._free = free if self._most is None else min(free, self._most - in_use)

    def _expire(self, key: Hashable) -> None:
        running = self._running[key]
        assert running.flight is not None
        timeout = running.check.timeout
        late = self.loop.now - running.began - timeout
        if late > STOOD_STILL_SECONDS and not running.again:
            # Nobody was here to see an answer, or to say the next word: it may be there by now.
            running.again = True
            running.timer = self.loop.later(min(timeout, AGAIN_SECONDS), lambda: self._expire(key))
            return
        self._over(key, *running.flight.expired())

    def _over(self, key: Hashable, ok: bool | None, reason: str) -> None:
        running = self._ended(key)
        if running is None:
            return
        at = self.loop.now
        took = (at - running.began) * 1000
        self._verdicts.append(Verdict(key, ok, reason, took, at))

    def _ended(self, key: Hashable) -> _Running | None:
        running = self._running.pop(key, None)
        if running is not None:
            self._take(running, -1)
            if running.timer is not None:
                running.timer.cancel()
        return running

    def _take(self, running: _Running, times: int) -> None:
        self._free -= running.cost * times
        if isinstance(running.check.how, Exec):
            self._programs -= times

    def _asker(self, check: Check) -> Asker:
        how, asker = self._askers.get(check.key, (None, None))
        if asker is None or how is not check.how:
            asker = self._made(check.how)
            self._askers[check.key] = (check.how, asker)
        return asker

    def _made(self, how: How) -> Asker:
        if isinstance(how, Exec):
            return Runner(how)
        if not isinstance(how, Path):
            return Caller.of(how)
        if self._paths is None:
            self._paths = Paths(self.loop)
        return self._paths.asker(how)


def _cost(check: Check) -> int:
    return COSTS.get(type(check.how), 1)


class Engine:
    """Asks a set of checks again and again, each at its own pace.

    Belongs to one thread. Its descriptors are inherited by forked processes, which must not use
    it: not even :meth:`close`.

    clock
        In seconds; it is never set.

    seed
        Makes the order of checks the same on every run, for tests.

    descriptors
        How many may be open at a time; by default what this process's limit leaves.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        seed: int | None = None,
        descriptors: int | None = None,
    ) -> None:
        self._loop = Loop(clock)
        self._flights = Flights(self._loop, descriptors)
        self._schedule = Schedule(seed)
        self._checks: dict[Hashable, Check] = {}
        self._bad: dict[Hashable, int] = {}

    @property
    def busy(self) -> int:
        """How many checks are being asked now."""
        return self._flights.busy

    @property
    def waiting(self) -> int:
        """For how many the turn has come, and no descriptor is free."""
        return self._flights.waiting

    def wires(self) -> tuple[Wire, ...]:
        """The packet sockets in use."""
        return self._flights.wires()

    def set(self, checks: Iterable[Check]) -> None:
        """Make these the checks, by their keys.

        One that is as it was goes on as if nothing had happened. One that asks for something else
        begins anew, and what it was just asking is forgotten.
        """
        wanted = {check.key: check for check in checks}
        for key in self._checks.keys() - wanted.keys():
            self._bad.pop(key, None)
            self._flights.forget(key)
        for key, check in wanted.items():
            if key in self._checks and not _asks_the_same(self._checks[key], check):
                self._restart(key)
        now = self._loop.look()
        self._checks = wanted
        self._schedule.set({key: check.pace for key, check in wanted.items()}, now)

    def _restart(self, key: Hashable) -> None:
        self._bad.pop(key, None)
        self._flights.forget(key)
        self._schedule.done(key, self._loop.now)

    def listen(self, descriptor: int, call: Handler) -> None:
        """Have a step end too when there is something to read from another descriptor; it is read
        by ``call``.
        """
        self._loop.watch(descriptor, READABLE, call)

    def step(self, seconds: float = STEP_SECONDS) -> list[Verdict]:
        """Ask whose turn it is, and wait for something to happen, so long at most.

        Returns the verdicts that have come, in their order; it may return without any.
        """
        for key in self._schedule.due(self._loop.look(), MOST_AT_ONCE):
            self._flights.begin(self._checks[key])
        verdicts = self._flights.step(min(seconds, self._until_due()))
        for verdict in verdicts:
            self._schedule.done(verdict.key, verdict.at, self._again_in(verdict))
        return verdicts

    def close(self) -> None:
        """End everything and give back all descriptors."""
        self._flights.close()
        self._loop.close()

    def _until_due(self) -> float:
        at = self._schedule.next_at()
        if at is None:
            return float("inf")
        left = at - self._loop.now
        return max(GRAIN_SECONDS, left) if left > 0 else 0.0

    def _again_in(self, verdict: Verdict) -> float | None:
        """Seconds until a bad answer is asked for again before its turn; ``None`` for its turn."""
        if verdict.ok:
            self._bad.pop(verdict.key, None)
        if verdict.ok is not False:
            return None
        check = self._checks[verdict.key]
        bad = self._bad[verdict.key] = self._bad.get(verdict.key, 0) + 1
        return check.delay_before_retry if bad <= check.retry else None


def _asks_the_same(one: Check, other: Check) -> bool:
    return (one.how, one.timeout) == (other.how, other.timeout)


def ask(checks: Collection[Check], within: float) -> list[Verdict]:
    """Carry out each of some checks once, all at a time as far as there is room.

    within
        Seconds in all. What has no verdict by then gets one that says so, with ``ok`` None.

    Returns the verdicts in the order of the checks.
    """
    loop = Loop()
    flights = Flights(loop)
    found: dict[Hashable, Verdict] = {}
    until = loop.now + within
    try:
        for check in checks:
            flights.begin(check)
        while len(found) < len(checks) and (left := until - loop.look()) > 0:
            found.update((verdict.key, verdict) for verdict in flights.step(left))
    finally:
        with contextlib.suppress(OSError):
            flights.close()
        loop.close()
    reason = f"not asked to the end within {within:g} s"
    late = Verdict(None, None, reason, within * 1000, loop.now)
    return [found.get(check.key) or _for(check.key, late) for check in checks]


def _for(key: Hashable, verdict: Verdict) -> Verdict:
    return Verdict(key, verdict.ok, verdict.reason, verdict.milliseconds, verdict.at)
