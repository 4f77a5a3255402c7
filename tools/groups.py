"""Processes that we start, each in a group of its own, so that all of it can be ended."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

# How long a group may take to end after each of these, before the next one is tried. Ctrl-C comes
# first: it is what lets pytest tear down what its tests hold.
ENDINGS = ((signal.SIGINT, 15), (signal.SIGTERM, 15), (signal.SIGKILL, 15))


class Ended(Exception):
    """Everything has been told to end, and so has what asked for this."""


class ProcessGroups:
    """The groups that are running, by name; for use from several threads."""

    def __init__(self) -> None:
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()
        self._ended = False

    def names(self) -> list[str]:
        """Return the names of those that are running."""
        with self._lock:
            return list(self._running)

    def run(
        self, name: str, command: list[str], *, cwd: Path, output: Path | None, seconds: float
    ) -> int | None:
        """Run a command and return its status, or None if it was ended for taking too long.

        output
            The file that takes what it prints, or None for our own output.
        seconds
            How long it may take.

        Raises Ended if everything has been ended before or meanwhile.
        """
        with _opened(output) as stream, self._lock:
            if self._ended:
                raise Ended
            process = subprocess.Popen(
                # If we are killed outright, so are they.
                ["setpriv", "--pdeathsig", "TERM", *command],
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT if stream else None,
                start_new_session=True,
            )
            self._running[name] = process
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _end(process)
            with self._lock:
                del self._running[name]
        if self._ended:
            raise Ended
        return status

    def end(self) -> None:
        """End whatever runs, and let nothing start any more."""
        with self._lock:
            self._ended = True
            running = list(self._running.values())
        for process in running:
            _end(process)


@contextmanager
def _opened(output: Path | None) -> Iterator[IO[bytes] | None]:
    if output is None:
        yield None
    else:
        with output.open("wb") as stream:
            yield stream


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a group, also what its first process has left behind."""
    for number, seconds in ENDINGS:
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
    process.wait()
