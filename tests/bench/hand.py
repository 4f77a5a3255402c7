"""The program ``harm.py``, held on a leash."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

PROGRAM = Path(__file__).with_name("harm.py")

Start = Callable[..., "subprocess.Popen[Any]"]


class Hand:
    """Deletes ``dummy0``: ``with Hand(addresses) as hand: began = hand.strike()``.

    addresses
        What has to come back after it.

    start
        What starts a program where the interface is: by default here.
    """

    def __init__(self, addresses: Sequence[str], start: Start = subprocess.Popen) -> None:
        command = [sys.executable, str(PROGRAM), *addresses]
        self._process = start(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def __enter__(self) -> Hand:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def strike(self) -> float:
        """Delete the interface; returns when the kernel was asked to, in seconds of
        ``time.monotonic()``.
        """
        self._process.stdin.write("\n")
        return self._heard()

    def back(self) -> float:
        """Wait until the addresses are back, and return when they were."""
        return self._heard()

    def _heard(self) -> float:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("nobody deletes dummy0 any more, or nobody puts it back")
        return float(line)
