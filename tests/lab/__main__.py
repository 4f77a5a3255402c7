"""The lab's command line: ``python -m tests.lab run|setup``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tests.lab import machine
from tests.lab.errors import LabError


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks; returns the exit status."""
    chosen = _parser().parse_args(arguments)
    try:
        return _do(chosen)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 70


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("setup", help="download what the lab needs, once")
    run = actions.add_parser("run", help="run one command on a kernel that has IPVS")
    run.add_argument("--cpu", type=int, help="processor to run on (default: a free one)")
    run.add_argument("--mem", default="4G", help="memory of user-mode Linux (default: 4G)")
    run.add_argument("--tty", action="store_true", help="give the command this terminal")
    run.add_argument("command", nargs="+", metavar="COMMAND")
    return parser


def _do(chosen: argparse.Namespace) -> int:
    if chosen.action == "setup":
        machine.prepare()
        return 0
    return machine.run(chosen.command, cpu=chosen.cpu, memory=chosen.mem, terminal=chosen.tty)


if __name__ == "__main__":
    sys.exit(main())
