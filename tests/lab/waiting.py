"""Wait for something to become true, within a limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from tests.lab.errors import LabError

Result = TypeVar("Result")


def until(
    condition: Callable[[], Result], what: str, *, seconds: float = 30, pause: float = 0.1
) -> Result:
    """Call ``condition`` every ``pause`` seconds until its answer is true, and return that.

    Raises ``LabError``, with ``what`` was awaited, after ``seconds``.
    """
    end = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > end:
            raise LabError(f"waited {seconds:g} s in vain for {what}")
        time.sleep(pause)
