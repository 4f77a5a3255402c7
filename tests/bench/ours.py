"""Our own side: each function is one timed act, from the pillar's dict to its end."""

from __future__ import annotations

from typing import Any

from saltext.lvs import ipvs
from saltext.lvs.table import Table


def apply(data: dict[str, Any]) -> None:
    """Make the kernel hold the table: read, plan, write, read again and compare."""
    outcome = ipvs.apply(Table.from_data(data))
    if outcome.left:
        raise RuntimeError(f"{len(outcome.left)} operations are left")


def acknowledged(data: dict[str, Any]) -> None:
    """The same, but for the kernel's word that it has done all: nothing is read again."""
    ipvs.apply(Table.from_data(data), verify=False)


def listed() -> dict[str, Any]:
    """Read the kernel's table into plain values."""
    return ipvs.read().table.as_data()


def read() -> None:
    """Read the kernel's table."""
    ipvs.read()
