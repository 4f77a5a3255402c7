"""Locks between the processes of one machine: jobs are processes, and several may run at once.

A lock is given back by LOCK_UN and not by closing alone: a job that is forked meanwhile inherits
the descriptor, and with it the lock.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from saltext.lvs.errors import NotAvailable

# A folder of root's own: in /run/lock anybody could hold a lock against us.
FOLDER = "/run/saltext-lvs"


@contextmanager
def exclusive(path: str, wait: bool = True) -> Iterator[bool]:
    """Keep every other caller with the same file out; yields whether that is so.

    wait
        Wait until the lock is free; otherwise yield False where it is taken.
    """
    descriptor = _opened(path)
    try:
        got = _locked(descriptor, wait)
        try:
            yield got
        finally:
            if got:
                fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def _opened(path: str) -> int:
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise NotAvailable(f"cannot lock {path}: {error.strerror}; this needs root") from error


def _locked(descriptor: int, wait: bool) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


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
