"""The threads that send what waits: one that looks, and one for each lane that has something."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Mapping

from saltext.lvs import outbox
from saltext.lvs.errors import LvsError
from saltext.lvs.journal import Journal, Unreadable
from saltext.lvs.outbox import Outbox, Way

log = logging.getLogger(__name__)


class Sender:
    """Sends what is in a book's outbox, as long as no other process does.

    ways
        How to send, by the parcels' way.

    clock
        Gives seconds since 1970.
    """

    LOOK_SECONDS = 5.0
    STOP_SECONDS = 10.0

    def __init__(
        self, journal: Journal, ways: Mapping[str, Way], clock: Callable[[], float]
    ) -> None:
        self._outbox, self._ways, self._clock = Outbox(journal), ways, clock
        self._wakes = threading.Event()
        self._over = threading.Event()
        self._lanes: dict[str, threading.Thread] = {}
        self._thread = threading.Thread(target=self._run, name="lvs-sender", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def wake(self) -> None:
        """Something waits."""
        self._wakes.set()

    def stop(self) -> None:
        """Begin nothing new; returns when what is being sent is, or after some seconds."""
        self._over.set()
        self._wakes.set()
        for thread in (self._thread, *self._lanes.copy().values()):
            thread.join(self.STOP_SECONDS)

    def _run(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(LvsError), self._outbox.sender() as ours:
                while ours and not self._over.is_set():
                    self._rest(self._look())
            self._rest(self.LOOK_SECONDS)

    def _rest(self, seconds: float) -> None:
        if not self._over.is_set():
            self._wakes.wait(seconds)
            self._wakes.clear()

    def _look(self) -> float:
        """Have a thread for each lane that is due; returns after how many seconds to look again."""
        now = self._clock()
        try:
            for lane in self._outbox.lanes_due(now):
                if lane not in self._lanes:
                    thread = threading.Thread(target=self._send, args=(lane,), daemon=True)
                    self._lanes[lane] = thread
                    thread.start()
            due = self._outbox.next_at()
        except Unreadable as error:
            log.error("%s; it was put aside as %s", error, self._outbox.journal.renew())
            return self.LOOK_SECONDS
        except LvsError as error:
            log.error("Nothing is sent: %s", error)
            return self.LOOK_SECONDS
        # What is due already has a thread, which wakes this one when it ends.
        later = due is not None and due > now
        return min(due - now, self.LOOK_SECONDS) if later and due else self.LOOK_SECONDS

    def _send(self, lane: str) -> None:
        try:
            outbox.deliver_lane(self._outbox, lane, self._ways, self._clock, self._over.is_set)
        except LvsError as error:
            log.error("Nothing is sent in lane %s: %s", lane, error)
            # A book that cannot be used now is not asked in a circle.
            self._over.wait(self.LOOK_SECONDS)
        finally:
            del self._lanes[lane]
            # What was queued after this thread's last look gets another one.
            self._wakes.set()
