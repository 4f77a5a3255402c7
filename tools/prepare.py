"""Set up what the tests and the demo need: ``python3 -m tools.prepare [PART ...]``.

Everything goes to the cache folder, but for Debian packages, which apt installs. It needs Python
3.10 or newer and nothing else; a part that is ready is left alone. Parts, by default all:

  dev        virtualenv for the tests and checks, with Salt 3008
  salt-3008  virtualenv with Salt and nothing else: what the machines in the lab run
  salt-3007  virtualenv for the tests on that release
  salt-3006  virtualenv for the tests on that release
  wheels     what the machines in the lab install with pip, for they have no other network
  packages   Debian packages that the tests use (needs root)
  lab        the kernel of the lab, and packages for the machines in it (needs root)
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import FrameType

from tests.lab import cache
from tools import installer, interpreters, requirements
from tools.errors import PrepareError
from tools.parts import PARTS, Environment, Part


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare the parts that the command line names; returns the exit status."""
    description, _, parts = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python3 -m tools.prepare",
        description=description,
        epilog=parts,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART")
    parser.add_argument("--lock", action="store_true", help="resolve requirements/*.in anew")
    chosen = parser.parse_args(arguments)
    unknown = set(chosen.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    try:
        prepare(chosen.parts or list(PARTS))
        if chosen.lock:
            requirements.lock()
    except PrepareError as error:
        print(f"set-up: {error}", file=sys.stderr)
        return 1
    return 0


def prepare(names: Sequence[str]) -> None:
    """Make the parts that are missing or out of date; raises PrepareError."""
    with cache.locked("prepare"):
        missing = [PARTS[name] for name in PARTS if name in names and not PARTS[name].is_ready()]
        if not missing:
            return
        if any(part.needs_root for part in missing) and os.geteuid() != 0:
            raise PrepareError("needs root, for packages and namespaces: run it with sudo")
        titles = ", ".join(part.name for part in missing)
        print(f"set-up: {titles}; once, in {cache.folder()}", flush=True)
        _make_all(missing)


def _make_all(parts: Sequence[Part]) -> None:
    """Make parts in order, but virtualenvs two at a time: one alone keeps one processor busy."""
    virtualenvs = [part for part in parts if isinstance(part, Environment)]
    if virtualenvs:
        installer.ensure_uv(interpreters.own())
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(_make, virtualenvs))
        installer.prune()
    for part in parts:
        if part not in virtualenvs:
            _make(part)


def _make(part: Part) -> None:
    started = time.monotonic()
    result = part.make()
    print(f"set-up: {part.name}: {result} ({time.monotonic() - started:.0f} s)", flush=True)


def _stop(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    # So that whatever has to be taken back is, also when we are told to end.
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(main())
