"""The pinned requirements: ``NAME.in`` says what we want, ``NAME.txt`` what exactly we take."""

from __future__ import annotations

import re
from pathlib import Path

from tools import installer

FOLDER = Path(__file__).resolve().parents[1] / "requirements"
# What other systems need says nothing here.
ELSEWHERE = re.compile(r"; (sys_platform|os_name) == '(win32|nt)'")


def lines(name: str) -> list[str]:
    """Return the lines of one file, without comments and blank ones."""
    rows = (row.partition("#")[0].strip() for row in (FOLDER / name).read_text().splitlines())
    return [row for row in rows if row]


def pinned(name: str, package: str) -> str:
    """Return the version that one file pins for a package."""
    return next(row.partition("==")[2] for row in lines(name) if row.startswith(f"{package}=="))


def lock() -> None:
    """Resolve each ``.in`` file anew, for all the Pythons that we support, into its ``.txt``."""
    for source in sorted(FOLDER.glob("*.in")):
        target = source.with_suffix(".txt")
        installer.resolve(source, target)
        kept = [row for row in target.read_text().splitlines() if not ELSEWHERE.search(row)]
        target.write_text("\n".join(kept) + "\n")
        print(f"{target.name}: {len(kept)} packages")
