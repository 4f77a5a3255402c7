"""What each beacon's watcher is and runs: one registry for the process, by beacon name.

A :class:`Watcher` is a thread that looks as soon as the kernel says that something has changed, and
once a second besides. What it looks at, what it knows of it and what it tells is its
:class:`Memory`'s matter, which lives as long as the library in memory: a refresh of the pillar or
of the modules is no news.
"""

from __future__ import annotations

import abc
import contextlib
import logging
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from saltext.lvs import rtnetlink
from saltext.lvs.errors import LvsError

log = logging.getLogger(__name__)

Events = list[dict[str, Any]]

# Salt makes its beacons anew when it is asked to; before there is a master that changes nothing.
_ASK_EVERY_SECONDS = 5
LOOK_EVERY_SECONDS = 1.0
# A machine with a thousand containers changes its addresses all the time.
LOOKS_APART_SECONDS = 0.01
# Without a beacon that asks for it nobody wants it any more: Salt does not always say so.
DESERTED_SECONDS = 600.0
MOST_EVENTS = 1000
TAKEN_SECONDS = 0.002
END_WITHIN_SECONDS = 5.0
# The minion's loop stands still meanwhile.
UNWATCH_SECONDS = 1.0


class Listener(Protocol):
    """What says that it is time to look; see :class:`~saltext.lvs.rtnetlink.Listener`."""

    def wait(self, seconds: float) -> bool:
        """Wait for news, or for so long; False if nothing came."""

    def wake(self) -> None:
        """End a wait, from whatever thread."""

    def close(self) -> None:
        """Give back what it holds."""


@dataclass(slots=True)
class Memory(abc.ABC):
    """What one watcher remembers, and how it looks.

    pillar
        The pillar's ``lvs`` that the duty was read from.

    asked
        When a pillar was last asked for, on a clock that is never set.

    teller
        What gets events out; it outlives a watcher, and a bus that hangs.
    """

    pillar: object = None
    asked: float = float("-inf")
    teller: Teller | None = None

    @abc.abstractmethod
    def look(
        self, minion_id: str, repeat: float, act: bool, changed: bool
    ) -> Iterator[dict[str, Any]]:
        """Look once and give out the events that follow, each as soon as it is known.

        repeat
            Seconds between two tellings of the whole state.

        act
            Do what is to be done, and not only tell.

        changed
            False if the listener has heard of nothing since the last look.
        """

    @abc.abstractmethod
    def lose_track(self) -> None:
        """A look has failed: what has changed meanwhile is not known."""

    def listener(self) -> Listener:
        """What says that it is time to look; whoever asks for it closes it."""
        return rtnetlink.Listener()


Kind = TypeVar("Kind", bound=Memory)

memories: dict[str, Memory] = {}
watchers: dict[str, Watcher] = {}


def memory(beacon: str, kind: type[Kind]) -> Kind:
    """What the watcher of a beacon remembers; nothing at first."""
    known = memories.get(beacon)
    if not isinstance(known, kind):
        known = memories[beacon] = kind()
    return known


def should_ask(memory: Memory, now: float) -> bool:
    """Whether it is time to ask for a pillar again, which then counts as asked for.

    now
        Seconds on a clock that is never set.
    """
    if now - memory.asked < _ASK_EVERY_SECONDS:
        return False
    memory.asked = now
    return True


# --------------------------------------------------------------------------------------------------
# At once


class Teller:
    """A thread that gets events out, in their order: who puts a VIP back must not wait for a bus.

    send
        Takes events and gets them out at once; what it raises leaves them for :meth:`unsent`.
    """

    def __init__(self, send: Callable[[Events], None]) -> None:
        self._send = send
        self._waiting: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._taken = threading.Event()
        self._unsent: deque[dict[str, Any]] = deque(maxlen=MOST_EVENTS)
        self._process = os.getpid()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="lvs-tell", daemon=True)

    def start(self) -> None:
        """Begin to send, unless it has begun."""
        if self._thread.ident is None:
            self._thread.start()

    def usable(self) -> bool:
        """Whether it is this process's, and has not ended."""
        begun = self._thread.ident is not None
        here = self._process == os.getpid() and not self._ending
        return here and (self._thread.is_alive() or not begun)

    def tell(self, event: dict[str, Any]) -> None:
        """Have an event sent, and let it be taken up before the caller works on: Python gives a
        thread that works its turn for longer. A bus that has hung for long only gets later events.
        """
        while self._waiting.qsize() >= MOST_EVENTS:
            with contextlib.suppress(queue.Empty):
                self._waiting.get_nowait()
        self._taken.clear()
        self._waiting.put(event)
        self._taken.wait(TAKEN_SECONDS)

    def unsent(self) -> Events:
        """What could not be sent, once."""
        return [self._unsent.popleft() for _ in range(len(self._unsent))]

    def end(self) -> None:
        """Have it end when all is sent; whoever has something to tell after that needs another."""
        self._ending = True
        self._waiting.put(None)

    def ended(self, seconds: float) -> bool:
        """Wait for its end so long, and say whether it has come."""
        if self._process != os.getpid() or self._thread.ident is None:
            return True
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (event := self._waiting.get()) is not None:
            self._taken.set()
            try:
                self._send([dict(event)])
            except Exception as error:  # noqa: BLE001 -- whatever Salt's bus may raise
                log.debug("An event waits for the next tick: %s", error)
                self._unsent.append(event)


class Watcher:
    """A thread that looks whenever something has changed, and has told what follows from it.

    memory
        What it knows and keeps; while it runs, nobody else may look with it.

    send
        As for :class:`Teller`; what could not be sent comes with the next :meth:`poll`.

    Raises :class:`~saltext.lvs.errors.LvsError` or OSError where it cannot be started.
    """

    def __init__(self, memory: Memory, minion_id: str, send: Callable[[Events], None]) -> None:
        self._memory = memory
        self._minion_id = minion_id
        if memory.teller is None or not memory.teller.usable():
            memory.teller = Teller(send)
        self._teller = memory.teller
        self._repeat = float("inf")
        self._process = os.getpid()
        self._polled = time.monotonic()
        self._stopping = False
        self._trouble = ""
        self._listener = memory.listener()
        self._thread = threading.Thread(target=self._run, name="lvs-watch", daemon=True)

    def start(self, repeat: float) -> None:
        """Begin to look."""
        self._repeat = repeat
        try:
            self._teller.start()
            self._thread.start()
        except RuntimeError:
            self._listener.close()
            raise

    def poll(self, repeat: float) -> Events:
        """Say that somebody still listens, and return what could not be sent."""
        self._polled = time.monotonic()
        self._repeat = repeat
        return self._teller.unsent()

    def alive(self) -> bool:
        """Whether it runs, in this process."""
        return not self.elsewhere() and self._thread.is_alive()

    def elsewhere(self) -> bool:
        """Whether it belongs to another process: a fork has the object, but not the thread."""
        return self._process != os.getpid()

    def stop(self, seconds: float = END_WITHIN_SECONDS) -> bool:
        """End it, wait for that so long, and say whether it has ended; of another process there is
        nothing to end.
        """
        if self.elsewhere():
            return True
        self._stopping = True
        if self._thread.is_alive():
            self._listener.wake()
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        changed = True
        try:
            while not self._ended():
                self._look(changed)
                changed = self._waited()
        finally:
            if not self._stopping:
                self._teller.end()  # nobody wants it any more; after a refresh somebody does
            self._listener.close()

    def _waited(self) -> bool:
        """Wait for news; whether there are any. What waits may do work of its own, and fail."""
        try:
            return self._listener.wait(LOOK_EVERY_SECONDS)
        except Exception:
            log.exception("The watcher has lost what it waits for, and begins to wait anew")
        self._memory.lose_track()
        self._rest(LOOK_EVERY_SECONDS)
        listener, self._listener = self._listener, self._memory.listener()
        listener.close()
        return True

    def _ended(self) -> bool:
        return self._stopping or time.monotonic() - self._polled > DESERTED_SECONDS

    def _look(self, changed: bool) -> None:
        began = time.monotonic()
        try:
            for event in self._memory.look(self._minion_id, self._repeat, True, changed):
                self._teller.tell(event)
        except Exception as error:  # a watcher that dies sees nothing any more
            if str(error) != self._trouble:
                log.exception("Cannot look at what this machine's watcher is to look at")
            self._trouble = str(error)
            self._memory.lose_track()
            self._rest(LOOK_EVERY_SECONDS)
            return
        self._trouble = ""
        if changed:
            self._rest(LOOKS_APART_SECONDS - (time.monotonic() - began))

    def _rest(self, seconds: float) -> None:
        if seconds > 0 and not self._stopping:
            time.sleep(seconds)


def watch(
    beacon: str,
    kind: type[Memory],
    minion_id: str,
    repeat: float,
    sender: Callable[[], Callable[[Events], None]],
) -> Events:
    """Keep a watcher running for a beacon, and return what it could not send itself.

    kind
        What it looks at, and how.

    sender
        Makes what gets events out, once for each watcher.

    Where it cannot run, this call looks in its place, and only tells.
    """
    watcher = watchers.get(beacon)
    if watcher is not None and watcher.elsewhere():
        return []  # a job, forked from the minion whose watcher it is
    if watcher is None or not watcher.alive():
        try:
            watcher = watchers[beacon] = Watcher(memory(beacon, kind), minion_id, sender())
            watcher.start(repeat)
        except (LvsError, OSError, RuntimeError) as error:
            log.error("Beacon %s looks once a second only: %s", beacon, error)
            watchers.pop(beacon, None)
            # Without repairs: they may wait, and this is the minion's own loop.
            return list(memory(beacon, kind).look(minion_id, repeat, act=False, changed=True))
    return watcher.poll(repeat)


def unwatch(beacon: str) -> None:
    """End the watcher of a beacon, or have it end as soon as it can; what it knew stays."""
    watcher = watchers.get(beacon)
    if watcher is not None and watcher.stop(UNWATCH_SECONDS):
        watchers.pop(beacon)


def release() -> None:
    """End all watchers of this process: the library is about to be replaced.

    Raises RuntimeError if one does not end.
    """
    ended = {beacon: watcher.stop() for beacon, watcher in watchers.items()}
    watchers.clear()
    for beacon, known in memories.items():
        if known.teller is not None:
            known.teller.end()
            ended[beacon] = known.teller.ended(END_WITHIN_SECONDS) and ended.get(beacon, True)
            known.teller = None
    running = [beacon for beacon, has_ended in ended.items() if not has_ended]
    if running:
        raise RuntimeError(f"the watchers of {', '.join(running)} are still at work")
