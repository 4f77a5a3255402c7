"""Inside the lab, ``python -m tests.bench``: measure, print a table, and tell of missed goals."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.bench import peers, plot, results, suite
from tests.bench.results import Result
from tests.bench.suite import Job, Pace, Samples

RESULTS = suite.CHECKOUT / "build" / "bench.json"
PAGE = suite.CHECKOUT / "docs" / "performance.md"
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
    if chosen.docs and chosen.parts:
        parser.error("--docs is for all parts")
    if os.environ.get("SALTEXT_LVS_IN_LAB") != "1":
        print("this needs the lab's kernel: make bench", file=sys.stderr)
        return 2
    _stay_on_one_processor()
    peers.compile_floor()
    samples = Samples()
    found = _measure(chosen.parts or list(PARTS), chosen.rounds, samples)
    results.write(RESULTS, found, keep=bool(chosen.parts))
    if "curve" in (chosen.parts or PARTS):
        plot.draw(suite.points(samples), RESULTS.parent / PICTURE)
    if chosen.docs:
        plot.draw(suite.points(samples), PAGE.parent / "images" / PICTURE)
        PAGE.write_text(results.into_page(PAGE.read_text(), _for_page(found, chosen.rounds)))
    return _tell(found, samples)


def _measure(names: Sequence[str], rounds: int, samples: Samples) -> list[Result]:
    """Run parts, one after the other."""
    found: list[Result] = []
    pace = Pace()
    for name in names:
        print(f"{name}:", flush=True)
        suite.run(PARTS[name].jobs, rounds, samples, pace)
        found += PARTS[name].results(samples)
    return found


def _tell(found: Sequence[Result], samples: Samples) -> int:
    """Print the results; returns the exit status."""
    print(f"\n{results.table(found)}\n\n{RESULTS} has it for machines")
    if samples.warning():
        print(samples.warning())
    missed = results.missed(found)
    for row in missed:
        print(f"MISSED: {row.name}: {row.goal}")
    return 1 if missed else 0


def _for_page(found: Sequence[Result], rounds: int) -> str:
    python, linux = platform.python_version(), platform.release()
    return f"""
Medians of {rounds} rounds, with Python {python} on the lab's Linux {linux}:

{results.markdown(found)}
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"one of {', '.join(PARTS)}")
    parser.add_argument("--rounds", type=int, default=5, help="of which the medians are (5)")
    parser.add_argument(
        "--docs", action="store_true", help="put the numbers and the picture into docs"
    )
    return parser


def _stay_on_one_processor() -> None:
    """User-mode Linux has but one; a kernel of this machine's own would move us about."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


if __name__ == "__main__":
    sys.exit(main())
