"""For pytest: levels of tests that belong inside the lab say so, and do not pass by skipping."""

from __future__ import annotations

import os

import pytest


def require(level: str) -> None:
    """Fail, saying how to run ``level`` (a folder), when this is not the lab."""
    if os.environ.get("SALTEXT_LVS_IN_LAB") != "1":
        pytest.exit(
            f"{level} needs the lab's kernel: python -m tests.lab run -- python -m pytest {level}",
            returncode=pytest.ExitCode.USAGE_ERROR,
        )
