"""What the lab is doing, told to the person who waits for it."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def step(words: str, *, dot_every: float = 2.0) -> Iterator[None]:
    """Say what the ``with`` block does, with a dot now and then, and how long it took."""
    begun = time.monotonic()
    done = threading.Event()

    def dots() -> None:
        while not done.wait(dot_every):
            _say(".")

    _say(f"{words} ...")
    thread = threading.Thread(target=dots, daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        _finish(done, thread, " failed\n")
        raise
    _finish(done, thread, f" {time.monotonic() - begun:.0f} s\n")


def _finish(done: threading.Event, thread: threading.Thread, words: str) -> None:
    done.set()
    thread.join()
    _say(words)


def _say(words: str) -> None:
    sys.stdout.write(words)
    sys.stdout.flush()
