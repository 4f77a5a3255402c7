"""One thread's event loop: descriptors, by epoll(7), and timers; nothing in it ever blocks.

The minion's own loop is not used: it belongs to Salt, and a check must not wait for a beacon.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import select
import time
from collections.abc import Callable

READABLE = select.EPOLLIN
WRITABLE = select.EPOLLOUT
# The kernel tells of these unasked.
BROKEN = select.EPOLLERR | select.EPOLLHUP

Handler = Callable[[int], None]
# So many at a time, so that timers get their turn between.
MOST_EVENTS = 512


class Timer:
    """Something that is to happen later; :meth:`cancel` forgets it."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """Without effect once it has happened."""
        self.call = None


class Loop:
    """Calls what waits for descriptors and for time.

    clock
        In seconds; it is never set.

    :attr:`now` is what it said last, at the latest when something happened: to read it for each
    check would cost as much as a connection where that is a system call (virtual machines).
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.now = clock()
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._once: set[int] = set()
        self._timers: list[tuple[float, int, Timer]] = []
        self._serial = itertools.count()

    def watch(self, descriptor: int, events: int, handler: Handler) -> None:
        """Call ``handler`` with what happens on a descriptor, until :meth:`forget`."""
        self._epoll.register(descriptor, events)
        self._handlers[descriptor] = handler

    def once(self, descriptor: int, events: int, handler: Handler, again: bool = False) -> None:
        """Call ``handler`` with the first thing that happens on a descriptor, and no more.

        After that it may be closed without :meth:`forget`, which saves a system call.

        again
            Whether it was waited for before, in this way too.
        """
        change = self._epoll.modify if again else self._epoll.register
        change(descriptor, events | select.EPOLLONESHOT)
        self._handlers[descriptor] = handler
        self._once.add(descriptor)

    def forget(self, descriptor: int) -> None:
        """Wait for it no more; before it is closed.

        To close it is not enough: a job that was forked meanwhile may have it still, and then the
        kernel goes on telling of it, under a number that is another one's by then.
        """
        self._once.discard(descriptor)
        if self._handlers.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Call something after so many seconds."""
        timer = Timer(call)
        heapq.heappush(self._timers, (self.now + seconds, next(self._serial), timer))
        return timer

    def look(self) -> float:
        """Read the clock anew."""
        self.now = self._clock()
        return self.now

    def step(self, seconds: float) -> None:
        """Wait for something to happen, so long at most, and call who waits for it."""
        wait = max(0.0, min(seconds, self._until_timer()))
        # A signal is no event.
        with contextlib.suppress(InterruptedError):
            happened = self._epoll.poll(wait, MOST_EVENTS)
            self.look()
            for descriptor, events in happened:
                self._call(descriptor, events)
        self._call_timers()

    def _call(self, descriptor: int, events: int) -> None:
        # One that an earlier handler of this round has closed is not there any more.
        handler = self._handlers.get(descriptor)
        if handler is None:
            return
        if descriptor in self._once:
            self._once.remove(descriptor)
            del self._handlers[descriptor]
        handler(events)

    def close(self) -> None:
        """Give back the descriptor."""
        self._epoll.close()

    def _until_timer(self) -> float:
        while self._timers and self._timers[0][2].call is None:
            heapq.heappop(self._timers)
        return self._timers[0][0] - self.now if self._timers else float("inf")

    def _call_timers(self) -> None:
        while self._timers and self._timers[0][0] <= self.now:
            _, _, timer = heapq.heappop(self._timers)
            if timer.call is not None:
                call, timer.call = timer.call, None
                call()
