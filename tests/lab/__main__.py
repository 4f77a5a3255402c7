"""The lab: hosts with IPVS in the memory of this machine. It must run as root."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tests.lab import machine
from tests.lab.errors import LabError

EPILOG = """\
environment:
  SALTEXT_LVS_CACHE      where downloads are kept (default: saltext-lvs in the user's cache)
  SALTEXT_LVS_LAB        native: this machine's own kernel; uml: user-mode Linux
                         (default: native where the kernel has IPVS and dummy interfaces)
  SALTEXT_LVS_SALT_VENV  the Salt that hosts run (default: salt-3008 in the cache)

tests/lab/README.md tells the rest.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks; returns the exit status."""
    chosen = _parser().parse_args(arguments)
    try:
        return _do(chosen)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 70


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.lab",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("setup", help="download what the lab needs, once")
    run = actions.add_parser("run", help="run one command on a kernel that has IPVS")
    run.add_argument("--tty", action="store_true", help="give the command this terminal")
    run.add_argument("command", nargs="+", metavar="COMMAND")
    shell = actions.add_parser("shell", help="bring the cluster up, and a shell to try it")
    shell.add_argument("--hosts-only", action="store_true", help="no Salt: it is there in seconds")
    for action in (run, shell):
        action.add_argument("--cpu", type=int, help="processor to run on (default: a free one)")
        action.add_argument("--mem", default="4G", help="memory of user-mode Linux (default: 4G)")
    return parser


def _do(chosen: argparse.Namespace) -> int:
    if chosen.action == "setup":
        machine.prepare()
        return 0
    if chosen.action == "shell":
        options = ["--hosts-only"] if chosen.hosts_only else []
        command = [sys.executable, "-m", "tests.lab.shell", *options]
        return machine.run(command, cpu=chosen.cpu, memory=chosen.mem, terminal=True)
    return machine.run(chosen.command, cpu=chosen.cpu, memory=chosen.mem, terminal=chosen.tty)


if __name__ == "__main__":
    sys.exit(main())
