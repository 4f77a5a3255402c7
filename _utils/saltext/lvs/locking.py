"""Locks between the processes of one machine: jobs are processes, and several may run at once.

A child that is forked meanwhile shares the descriptor, and with it the lock. So a lock is given
back by LOCK_UN and not by closing alone, and a child begins with closing what it inherited: it
would keep the lock of a parent that is killed, even against itself.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from saltext.lvs.errors import CommandFailed, NotAvailable

# A folder of root's own: in /run/lock anybody could hold a lock against us.
FOLDER = "/run/saltext-lvs"
# The longest apply takes a few seconds; a repair that has to wait for another three.
PATIENCE_SECONDS = 60.0


@contextmanager
def exclusive(path: str, wait: bool = True) -> Iterator[bool]:
    """Keep every other caller with the same file out; yields whether that is so.

    wait
        Wait until the lock is free; otherwise yield False where it is taken.

    Raises :class:`~saltext.lvs.errors.NotAvailable` where it cannot be had, or is not free within
    :data:`PATIENCE_SECONDS`: whoever has it is stuck, and so would everybody else be.
    """
    descriptor = _opened(path)
    try:
        got = _locked(descriptor, wait)
        if wait and not got:
            raise NotAvailable(
                f"{path} has been locked for {PATIENCE_SECONDS:g} seconds by process "
                f"{_holder(descriptor)}; is it stopped or stuck?"
            )
        try:
            if got:
                _sign(descriptor)
            yield got
        finally:
            if got and descriptor in _ours:
                fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        _close(descriptor)


# The descriptors that this process opened; no fork comes between opening one and noting it.
_ours: set[int] = set()
_opening = threading.Lock()


def _opened(path: str) -> int:
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        with _opening:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(path, flags, 0o600)
            _ours.add(descriptor)
        return descriptor
    except OSError as error:
        raise NotAvailable(f"cannot lock {path}: {error.strerror}; this needs root") from error


def _close(descriptor: int) -> None:
    with _opening:
        if descriptor in _ours:
            _ours.remove(descriptor)
            os.close(descriptor)


def _begin_child() -> None:
    while _ours:
        os.close(_ours.pop())
    _opening.release()


os.register_at_fork(
    before=_opening.acquire, after_in_parent=_opening.release, after_in_child=_begin_child
)


def _locked(descriptor: int, wait: bool) -> bool:
    """Take the lock, within :data:`PATIENCE_SECONDS` or at once; whether it was to be had."""
    end = time.monotonic() + PATIENCE_SECONDS
    pause = 0.001
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait or time.monotonic() >= end:
                return False
            # flock(2) has no limit of time, and a signal would reach the main thread only.
            time.sleep(pause)
            pause = min(pause * 2, 0.05)
        else:
            return True


def _sign(descriptor: int) -> None:
    """Leave word of who has the lock."""
    with suppress(OSError):  # a full /run is no reason not to have it
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)


def _holder(descriptor: int) -> str:
    return os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"


@contextmanager
def turn(path: str) -> Iterator[bool]:
    """Take turns at work that finds out itself what is to be done: one does it, one stands in line.

    Yields True when it is the caller's turn. Yields False at once where somebody is in line
    already: that one has not looked yet, so it will see all that the caller would.
    """
    with ExitStack() as at_work:
        with exclusive(f"{path}.line", wait=False) as in_line:
            if in_line:
                at_work.enter_context(exclusive(path))
        yield in_line


# --------------------------------------------------------------------------------------------------
# Not too often


def pace(stamp: str, seconds: float) -> None:
    """Wait until the last call for the same file is so long ago, and note this one.

    Only one at a time may call it: whoever has a lock, or whose turn it is.

    Raises :class:`~saltext.lvs.errors.CommandFailed` where the file cannot be written.
    """
    time.sleep(rest(stamp, seconds, time.time()))
    _touch(stamp)


def rest(stamp: str, seconds: float, now: float) -> float:
    """The seconds that are left until the last call is so long ago."""
    try:
        passed = now - os.stat(stamp).st_mtime
    except FileNotFoundError:
        return 0.0
    # A clock that was set back in between must not make it wait for long.
    return min(max(seconds - passed, 0.0), seconds)


def _touch(stamp: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(stamp, flags, 0o600)
        try:
            os.utime(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise CommandFailed(f"cannot write {stamp}: {error.strerror}") from error
