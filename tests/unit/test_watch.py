"""The threads of a beacon's watcher outlive what they run into."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from saltext.lvs import watch


class Waits:
    """Waits; what it is told to raise, it raises once."""

    def __init__(self, errors: list[Exception]) -> None:
        self.errors = errors
        self.closed = False

    def wait(self, seconds: float) -> bool:
        time.sleep(0.01)
        if self.errors:
            raise self.errors.pop()
        return True

    def wake(self) -> None:
        """It does not sleep for long."""

    def close(self) -> None:
        self.closed = True


@dataclass(slots=True)
class Counts(watch.Memory):
    """Tells each look."""

    looks: int = 0
    lost: int = 0
    errors: list[Exception] = field(default_factory=list)
    listeners: list[Waits] = field(default_factory=list)

    def look(
        self, minion_id: str, repeat: float, act: bool, changed: bool
    ) -> Iterator[dict[str, Any]]:
        self.looks += 1
        yield {"tag": "change", "number": self.looks}

    def lose_track(self) -> None:
        self.lost += 1

    def listener(self) -> Waits:
        self.listeners.append(Waits(self.errors))
        return self.listeners[-1]


def until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_watcher_goes_on_with_another_listener(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LOOK_EVERY_SECONDS", 0.01)
    memory = Counts()
    watcher = watch.Watcher(memory, "lb1", lambda events: None)
    watcher.start(30)
    try:
        until(lambda: memory.looks > 1)
        memory.errors.append(UnicodeError("as a check's handler may"))
        until(lambda: len(memory.listeners) == 2)
        looks = memory.looks
        until(lambda: memory.looks > looks + 2)
        assert (watcher.alive(), memory.lost, memory.listeners[0].closed) == (True, 1, True)
    finally:
        watcher.stop()
    assert memory.listeners[1].closed


def test_a_watcher_takes_no_teller_that_is_about_to_end() -> None:
    goes_on, seen = threading.Event(), []

    def send(events: list[dict[str, Any]]) -> None:
        goes_on.wait(10)
        seen.extend(events)

    memory = Counts()
    first = watch.Teller(send)
    memory.teller = first
    first.start()
    first.tell({"number": 0})
    first.end()
    assert (first.usable(), first.ended(0)) == (False, False)
    watcher = watch.Watcher(memory, "lb1", send)
    watcher.start(30)
    goes_on.set()
    try:
        until(lambda: len(seen) > 2)
        assert memory.teller is not first
    finally:
        watcher.stop()
        assert memory.teller is not None
        memory.teller.end()
