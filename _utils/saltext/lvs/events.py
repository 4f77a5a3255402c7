"""The envelope of our events: who tells it, when, and which of all it is.

An event is known by its minion's id, the boot and a number: a receiver counts it once.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

_numbers: Iterator[int] | None = None


def event(tag: str, minion_id: str, cluster: str, at: float, **content: Any) -> dict[str, Any]:
    """Return one event as a beacon gives it out.

    tag
        What becomes the end of Salt's tag: ``change`` or ``state``.

    at
        When it was seen, in seconds since 1970.

    content
        What it says.
    """
    return {
        "tag": tag,
        "id": minion_id,
        "cluster": cluster,
        "boot_id": boot_id(),
        "seq": next_number(),
        "at": at,
        **content,
    }


def next_number() -> int:
    """A number that no event of this machine has had since it was booted.

    It starts at the milliseconds since the boot, so that a restarted minion goes on above what it
    gave out before (no minion tells a thousand events a second). Watchers share it; jobs, which are
    forks, must not use it.
    """
    global _numbers
    if _numbers is None:
        _numbers = itertools.count(time.monotonic_ns() // 1_000_000)
    return next(_numbers)


def boot_id() -> str:
    """What tells this boot of the kernel from every other."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
