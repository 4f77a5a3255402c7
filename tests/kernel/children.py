"""Forked children, as Salt's jobs are."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable

SECONDS = 60


def start(act: Callable[[], object]) -> int:
    """Start a forked child that does this, and ends with 0 if all went well; its number."""
    child = os.fork()
    if child:
        return child
    try:
        signal.alarm(SECONDS)
        act()
        os._exit(0)
    except BaseException:  # noqa: BLE001 -- a child that returned would be a second pytest
        traceback.print_exc(file=sys.__stderr__)
        os._exit(1)


def wait(child: int) -> int:
    """How a child ended: its exit code, or the number of the signal that killed it, negative."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill(child: int) -> int:
    """Kill a child that is to live no longer; how it ended."""
    os.kill(child, signal.SIGKILL)
    return wait(child)
