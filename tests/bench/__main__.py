"""Inside the lab, ``python -m tests.bench``: measure, print a table, and tell of missed goals."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.bench import (
    alerts,
    bus,
    directors,
    gaps,
    healthy,
    peers,
    plot,
    realserver,
    reloading,
    results,
    suite,
)
from tests.bench.results import Result
from tests.bench.suite import Pace, Samples

RESULTS = suite.CHECKOUT / "build" / "bench.json"
PAGE = suite.CHECKOUT / "docs" / "performance.md"
CURVE_PICTURE = "cost-per-real-server.png"
LOSSES_PICTURE = "loss-of-vips.png"


@dataclass(frozen=True)
class Part:
    """What is measured in a number of rounds, and what it shows."""

    measure: Callable[[int, Samples, Pace], None]
    results: Callable[[Samples], list[Result]]


TABLE = {
    "spread": Part(partial(suite.run, suite.SPREAD_JOBS), suite.spread),
    "one": Part(partial(suite.run, suite.ONE_JOBS), suite.one),
    "memory": Part(partial(suite.run, suite.MEMORY_JOBS), suite.memory),
    "curve": Part(partial(suite.run, suite.CURVE_JOBS), suite.curve),
}
REAL_SERVER = {
    "lost": Part(partial(suite.run, realserver.LOST_JOBS), realserver.lost),
    "many": Part(partial(suite.run, realserver.MANY_JOBS), realserver.many),
    "idle": Part(partial(suite.run, realserver.IDLE_JOBS), realserver.idle),
    "bus": Part(bus.measure, bus.results),
}
DIRECTOR = {
    "vrrp": Part(directors.measure, directors.results),
    "reload": Part(reloading.measure, reloading.results),
    "failover": Part(gaps.measure, gaps.results),
    "health": Part(healthy.measure, healthy.results),
    "dying": Part(healthy.measure_views, healthy.views),
}
MASTER = {
    "alerts": Part(alerts.measure, alerts.results),
}
PARTS = TABLE | REAL_SERVER | DIRECTOR | MASTER


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
    parts = chosen.parts or list(PARTS)
    by_part = _measure(parts, chosen.rounds, samples)
    found = _of(by_part, parts)
    results.write(RESULTS, found, keep=bool(chosen.parts))
    _draw(parts, samples, RESULTS.parent)
    if chosen.docs:
        _draw(parts, samples, PAGE.parent / "images")
        text = _for_page(*(_of(by_part, names) for names in (TABLE, REAL_SERVER, DIRECTOR, MASTER)))
        PAGE.write_text(results.into_page(PAGE.read_text(), text))
    return _tell(found, samples)


def _draw(parts: Sequence[str], samples: Samples, folder: Path) -> None:
    """Draw what these parts have measured."""
    if "curve" in parts:
        plot.draw(suite.points(samples), folder / CURVE_PICTURE)
    if {"lost", "bus"} <= set(parts):
        times = realserver.times(samples) | bus.times(samples)
        plot.draw_losses(times, folder / LOSSES_PICTURE)


def _measure(names: Sequence[str], rounds: int, samples: Samples) -> dict[str, list[Result]]:
    """Run parts, one after the other; their results, by part."""
    found: dict[str, list[Result]] = {}
    pace = Pace()
    for name in names:
        print(f"{name}:", flush=True)
        PARTS[name].measure(rounds, samples, pace)
        found[name] = PARTS[name].results(samples)
    return found


def _of(by_part: Mapping[str, list[Result]], names: Iterable[str]) -> list[Result]:
    """The results of some parts."""
    return [row for name in names for row in by_part[name]]


def _tell(found: Sequence[Result], samples: Samples) -> int:
    """Print the results; returns the exit status."""
    print(f"\n{results.table(found)}\n\n{RESULTS} has it for machines")
    if samples.warning():
        print(samples.warning())
    missed = results.missed(found)
    for row in missed:
        print(f"MISSED: {row.name}: {row.goal}")
    return 1 if missed else 0


def _for_page(
    table: Sequence[Result],
    real_server: Sequence[Result],
    director: Sequence[Result],
    master: Sequence[Result],
) -> str:
    python, linux = platform.python_version(), platform.release()
    return f"""
With Python {python} on the lab's Linux {linux}. The table of a director, medians of the rounds:

{results.markdown(table)}

The VIPs of a real server:

{results.markdown(real_server)}

keepalived on a director:

{results.markdown(director)}

What the master answers and tells:

{results.markdown(master)}
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
