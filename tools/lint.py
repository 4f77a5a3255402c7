"""Check the source: ``python3 -m tools.lint [--junitxml FILE]``, each check counts as one test."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

from tests.lab import cache
from tools.parts import CHECKOUT

SLS_FOLDERS = ("lvs", "_reactors", "orch", "pillar.example")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all checks; returns 1 if one of them found something."""
    parser = argparse.ArgumentParser(prog="python3 -m tools.lint", description=__doc__)
    parser.add_argument("--junitxml", type=Path, metavar="FILE", help="write the results there")
    chosen = parser.parse_args(arguments)
    failed = [title for title, command in checks().items() if not _passes(title, command)]
    if chosen.junitxml:
        chosen.junitxml.write_bytes(_report(list(checks()), failed))
    return 1 if failed else 0


def checks() -> Mapping[str, list[str]]:
    """Return the commands by what they check."""
    python, sls = _sls_files()
    ruff = ["ruff", "check", "--quiet"]
    return {
        "ruff": [*ruff, "."],
        "ruff, on SLS in Python": [*ruff, "--extension", "sls:python", *python],
        "ruff's format": ["ruff", "format", "--quiet", "--check", "."],
        "mypy": ["mypy", "--no-error-summary"],
        "salt-lint": ["salt-lint", *sls],
    }


def _sls_files() -> tuple[list[str], list[str]]:
    """Return the SLS files that are Python, and the others."""
    files = [path for name in SLS_FOLDERS for path in sorted((CHECKOUT / name).rglob("*.sls"))]
    python = {str(path) for path in files if path.read_text().startswith("#!py")}
    return sorted(python), [str(path) for path in files if str(path) not in python]


def _passes(title: str, command: list[str]) -> bool:
    print(f"lint: {title}", flush=True)
    programs = Path(sys.executable).parent
    caches = {name: str(cache.folder() / "lint") for name in ("RUFF_CACHE_DIR", "MYPY_CACHE_DIR")}
    done = subprocess.run(
        [programs / command[0], *command[1:]], cwd=CHECKOUT, env=os.environ | caches, check=False
    )
    return done.returncode == 0


def _report(titles: list[str], failed: list[str]) -> bytes:
    suite = ElementTree.Element("testsuite", name="lint")
    for title in titles:
        case = ElementTree.SubElement(suite, "testcase", classname="lint", name=title)
        if title in failed:
            ElementTree.SubElement(case, "failure", message="see its output")
    return ElementTree.tostring(suite)


if __name__ == "__main__":
    sys.exit(main())
