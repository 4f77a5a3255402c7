"""Programs of the system, as the tests call them."""

from __future__ import annotations

import subprocess


def run(command: str, text: str = "", check: bool = True) -> str:
    """What a program says, of which no word has a space in it.

    text
        What it reads.

    check
        Whether it must not fail.
    """
    return subprocess.run(
        command.split(), input=text, check=check, capture_output=True, text=True
    ).stdout


def ip(command: str) -> None:
    """Change the network."""
    run(f"ip {command}")


def ipvsadm(*options: str, text: str = "", check: bool = True) -> str:
    """What ipvsadm says to these options, in one word or in many."""
    return run(" ".join(("ipvsadm", *options)), text, check)
