"""Run the levels of tests and count them: ``python3 -m tools.levels [LEVEL ...]``, by default all.

Several levels run side by side, in two lanes, each on one half of the processors; what they print
is kept, and shown if they fail. One alone prints as it goes. A
level that ran nothing has failed. What failed is named once more below the table; the last line is
the sum: ``N passed, N failed, N skipped``.

In the lab a dozen daemons share one processor with whatever else the machine does. Where one or two
files have failures there, they are run once more, in a new lab. What then passes is counted as
passed, and named below the table as unsteady with what it said at first: a test that is named there
is to be mended, or what it tests.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

from tests.lab import cache
from tools.counts import Count, read_failed_files, read_failures, read_report
from tools.errors import PrepareError
from tools.groups import ProcessGroups
from tools.parts import CHECKOUT, ENVIRONMENTS
from tools.prepare import prepare

# In the checkout, because it is the one folder of the machine that the lab can write to.
REPORTS = CHECKOUT / "build" / "reports"
SHOWN_LINES = 400
# Where more files than these have failures, that is no accident. One failure may bring others in
# its file with it, whose tests share a cluster.
MOST_UNSTEADY_FILES = 2


@dataclass(frozen=True)
class Level:
    """A kind of test: where it is, what it takes, and the lane in which it runs: shared out so that
    both end at about the same time.
    """

    name: str
    arguments: tuple[str, ...]
    environment: str = "dev"
    parts: tuple[str, ...] = ()
    in_lab: bool = False
    lane: int = 1
    limit_minutes: int = 25

    def command(self, report: Path, files: Sequence[str] = ()) -> list[str]:
        """The command that runs the level, or some of its files only."""
        python = str(ENVIRONMENTS[self.environment].python)
        lab = [python, "-m", "tests.lab", "run", "--"] if self.in_lab else []
        arguments = _pytest(*files) if files else self.arguments
        return [*lab, python, *arguments, f"--junitxml={report}"]


@dataclass(frozen=True)
class Result:
    """How a level ended."""

    level: str
    count: Count
    seconds: float = 0
    note: str = ""
    failures: Sequence[str] = ()
    unsteady: Sequence[str] = ()


def _pytest(*arguments: str) -> tuple[str, ...]:
    return ("-m", "pytest", *arguments)


def _without(files: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"--ignore={file}" for file in files)


SALTS = ("salt-3008", "salt-3007", "salt-3006")
LAB = ("salt-3008", "wheels", "packages", "lab")
KERNEL = "tests/kernel"
# What is about keepalived, and asking real servers; the rest is tables and VIPs.
DIRECTORS = tuple(
    f"{KERNEL}/test_{name}.py"
    for name in (
        "conffile",
        "importing",
        "keepalived",
        "keepalived_fuzz",
        "keepalived_moves",
        "keepalived_path",
        "keepalived_reload",
        "probe",
        "probe_scale",
        "vrrp_watch",
    )
)
INTEGRATION = "tests/integration"
CLUSTER = (f"{INTEGRATION}/test_cluster.py", f"{INTEGRATION}/test_health.py")
FAILOVERS = tuple(
    f"{INTEGRATION}/test_{name}.py"
    for name in ("adopting", "failovers", "keepalived_moves", "mastership")
)
ALERTS = (f"{INTEGRATION}/test_alerts.py",)
DEATHS = tuple(f"{INTEGRATION}/test_{name}.py" for name in ("killed_tellers", "reboots"))
LEVELS = {
    level.name: level
    for level in (
        Level("lint", ("-m", "tools.lint")),
        Level("unit", _pytest("tests/unit"), parts=("packages", "lab")),
        Level("golden", _pytest("tests/golden"), parts=("packages",)),
        Level("functional-3008", _pytest("tests/functional")),
        Level("functional-3007", _pytest("tests/functional"), environment="salt-3007"),
        Level("functional-3006", _pytest("tests/functional"), environment="salt-3006"),
        Level("install-check", _pytest("tests/install"), parts=SALTS),
        Level(
            "kernel-tables",
            _pytest(KERNEL, *_without(DIRECTORS)),
            parts=(*LAB, *SALTS),
            in_lab=True,
            lane=0,
        ),
        Level("kernel-directors", _pytest(*DIRECTORS), parts=LAB, in_lab=True, lane=0),
        # What one cluster does in its life, and where real servers die.
        Level("integration-cluster", _pytest(*CLUSTER), parts=LAB, in_lab=True),
        Level("integration-failovers", _pytest(*FAILOVERS), parts=LAB, in_lab=True),
        Level("integration-alerts", _pytest(*ALERTS), parts=LAB, in_lab=True),
        Level("integration-deaths", _pytest(*DEATHS), parts=LAB, in_lab=True, lane=0),
        Level(
            "integration-others",
            _pytest(INTEGRATION, *_without((*CLUSTER, *FAILOVERS, *ALERTS, *DEATHS))),
            parts=LAB,
            in_lab=True,
            lane=0,
        ),
    )
}
GROUPS = {
    group: tuple(name for name in LEVELS if name.startswith(f"{group}-"))
    for group in ("functional", "kernel", "integration")
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the levels that the command line names; returns 0 if all of them passed."""
    parser = argparse.ArgumentParser(prog="python3 -m tools.levels", description=__doc__)
    known = ", ".join((*GROUPS, *LEVELS))
    parser.add_argument("levels", nargs="*", metavar="LEVEL", help=f"one of {known}")
    chosen = [
        level
        for name in parser.parse_args(arguments).levels or list(LEVELS)
        for level in GROUPS.get(name, (name,))
    ]
    unknown = set(chosen) - set(LEVELS)
    if unknown:
        parser.error(f"no such level: {', '.join(sorted(unknown))}; there are {known}")
    levels = [LEVELS[name] for name in chosen]
    if any(level.in_lab for level in levels) and os.geteuid() != 0:
        print("the lab makes namespaces and mounts: run it as root (try sudo)", file=sys.stderr)
        return 1
    try:
        parts = {part for level in levels for part in (level.environment, *level.parts)}
        prepare([*parts, "dev"])
    except PrepareError as error:
        print(f"set-up: {error}", file=sys.stderr)
        return 1
    return show(run(levels))


def run(levels: Sequence[Level]) -> list[Result]:
    """Run levels, in two lanes if there are several, and return how each ended."""
    REPORTS.mkdir(parents=True, exist_ok=True)
    groups = ProcessGroups()
    lanes = [[level for level in levels if level.lane == lane] for lane in (0, 1)]
    with ThreadPoolExecutor(len(lanes)) as pool:
        try:
            futures = [
                pool.submit(_run_lane, lane, processors, groups, alone=len(levels) == 1)
                for lane, processors in zip(lanes, halves(os.sched_getaffinity(0)), strict=True)
            ]
            _wait(futures, groups, alone=len(levels) == 1)
        finally:
            groups.end()
    results = {result.level: result for future in futures for result in future.result()}
    return [results[level.name] for level in levels]


def halves(processors: set[int]) -> tuple[set[int], set[int]]:
    """Share processors between the two lanes."""
    numbers = sorted(processors)
    middle = len(numbers) // 2
    return set(numbers[middle:]), set(numbers[:middle] or numbers)


def _wait(futures: Sequence[Future[list[Result]]], groups: ProcessGroups, *, alone: bool) -> None:
    """Wait for all lanes, and say now and then what is still running."""
    started = time.monotonic()
    while wait(futures, timeout=None if alone else 60).not_done:
        print(f"{time.monotonic() - started:.0f} s: {', '.join(groups.names())}", flush=True)


def _run_lane(
    levels: Sequence[Level], processors: set[int], groups: ProcessGroups, *, alone: bool
) -> list[Result]:
    """Run levels one after the other."""
    if not alone:
        # Of this thread, from which the processes inherit it.
        os.sched_setaffinity(0, processors)
    return [_run_level(level, groups, alone=alone) for level in levels]


def _run_level(level: Level, groups: ProcessGroups, *, alone: bool) -> Result:
    unavailable = ENVIRONMENTS[level.environment].unavailable()
    if unavailable:
        return Result(level.name, Count(skipped=1), note=unavailable)
    started = time.monotonic()
    result = _run_once(level, level.name, groups, alone=alone)
    files = to_repeat(level, result, REPORTS / f"{level.name}.xml")
    if files:
        again = _run_once(level, f"{level.name}-again", groups, files, alone=alone)
        result = replace(repeated(result, again), seconds=time.monotonic() - started)
        print(f"{level.name}, with {' and '.join(files)} once more: {result.count}", flush=True)
    return result


def _run_once(
    level: Level, name: str, groups: ProcessGroups, files: Sequence[str] = (), *, alone: bool
) -> Result:
    report, output = REPORTS / f"{name}.xml", REPORTS / f"{name}.log"
    report.unlink(missing_ok=True)
    started = time.monotonic()
    status = groups.run(
        name,
        level.command(report, files),
        cwd=CHECKOUT,
        output=None if alone else output,
        seconds=level.limit_minutes * 60,
    )
    count, note = judge(status, read_report(report), level.limit_minutes)
    seconds = time.monotonic() - started
    result = Result(level.name, count, seconds, note, read_failures(report))
    if not alone:
        _tell(result, output)
    return result


def to_repeat(level: Level, result: Result, report: Path) -> list[str]:
    """The files of a level to be run once more: none where that would hide what is broken."""
    if not level.in_lab or result.note:
        return []
    files = read_failed_files(report, CHECKOUT)
    return files if "" not in files and len(files) <= MOST_UNSTEADY_FILES else []


def repeated(first: Result, again: Result) -> Result:
    """How a level ended of which the files of what failed were run once more."""
    if again.count.failed:
        return replace(first, failures=(*first.failures, *again.failures))
    count = Count(first.count.ran, 0, first.count.skipped)
    return replace(first, count=count, failures=(), unsteady=first.failures)


def judge(status: int | None, count: Count, limit_minutes: int) -> tuple[Count, str]:
    """Return the count and a note, with a failure more where the count does not tell of it."""
    if status is None:
        return count + Count(failed=1), f"did not end within {limit_minutes} minutes"
    if count.ran == 0:
        return count + Count(failed=1), f"ran no test (status {status})"
    if status and not count.failed:
        return count + Count(failed=1), f"ended with status {status}"
    return count, ""


def _tell(result: Result, output: Path) -> None:
    """Say in one line how a level ended, and all if it failed."""
    print(f"{result.level}: {result.count} ({result.seconds:.0f} s) {result.note}".rstrip())
    if result.count.failed:
        lines = output.read_text(errors="replace").splitlines()
        print("\n".join(f"{result.level} | {line}" for line in lines[-SHOWN_LINES:]))
    sys.stdout.flush()


def show(results: Sequence[Result]) -> int:
    """Print the table and the sum; returns the exit status."""
    print(f"\n{'level':<22}{'ran':>7}{'passed':>8}{'failed':>8}{'skipped':>9}{'seconds':>9}")
    for result in results:
        count = result.count
        numbers = f"{count.ran:>7}{count.passed:>8}{count.failed:>8}{count.skipped:>9}"
        print(f"{result.level:<22}{numbers}{result.seconds:>9.1f}  {result.note}".rstrip())
    for heading, lines in {
        "unsteady, to be mended: failed, and passed when run once more:": _lines(
            results, lambda result: result.unsteady
        ),
        "failed:": _lines(results, lambda result: result.failures),
    }.items():
        if lines:
            print(f"\n{heading}", *lines, sep="\n  ")
    total = sum((result.count for result in results), Count())
    print(f"\n{total}", flush=True)
    return 1 if total.failed else 0


def _lines(results: Sequence[Result], tests: Callable[[Result], Sequence[str]]) -> list[str]:
    return [f"{result.level}: {test}" for result in results for test in tests(result)]


def _stop(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    for signal_number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signal_number, _stop)
    os.environ["SALTEXT_LVS_CACHE"] = str(cache.folder())
    sys.exit(main())
