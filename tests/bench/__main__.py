"""Inside the lab, ``python -m tests.bench``: measure, print a table, and tell of missed goals."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench import peers, plot, results, suite
from tests.bench.results import Result
from tests.bench.suite import Job, Samples

RESULTS = suite.CHECKOUT / "build" / "bench.json"
PICTURE = "cost-per-real-server.png"


@dataclass(frozen=True)
class Part:
    """Jobs that are run in turn, and what they show."""

    jobs: list[Job]
    results: Callable[[Samples], list[Result]]


PARTS = {
    "spread": Part(suite.SPREAD_JOBS, suite.spread),
    "one": Part(suite.ONE_JOBS, suite.one),
    "memory": Part(suite.MEMORY_JOBS, suite.memory),
    "curve": Part(suite.CURVE_JOBS, suite.curve),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the command line asks for; returns 1 if a goal is missed."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    unknown = set(chosen.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    if os.environ.get("SALTEXT_LVS_IN_LAB") != "1":
        print("this needs the lab's kernel: make bench", file=sys.stderr)
        return 2
    _stay_on_one_processor()
    peers.compile_floor()
    started = time.monotonic()
    samples = Samples()
    found: list[Result] = []
    names = chosen.parts or list(PARTS)
    for name in names:
        print(f"{name}:", flush=True)
        suite.run(PARTS[name].jobs, chosen.rounds, samples)
        found += PARTS[name].results(samples)
    results.write(RESULTS, found, keep=bool(chosen.parts))
    if "curve" in names:
        for folder in {RESULTS.parent, chosen.pictures}:
            plot.draw(suite.points(samples), folder / PICTURE)
    print(f"\n{results.table(found)}\n")
    print(f"{RESULTS} has it for machines ({time.monotonic() - started:.0f} s)")
    missed = results.missed(found)
    for row in missed:
        print(f"MISSED: {row.name}: {row.goal}")
    return 1 if missed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"one of {', '.join(PARTS)}")
    parser.add_argument("--rounds", type=int, default=5, help="of which the medians are (5)")
    parser.add_argument(
        "--pictures", type=Path, default=RESULTS.parent, help="another folder for the picture"
    )
    return parser


def _stay_on_one_processor() -> None:
    """User-mode Linux has but one; a kernel of this machine's own would move us about."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


if __name__ == "__main__":
    sys.exit(main())
