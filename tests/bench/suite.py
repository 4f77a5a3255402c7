"""What is measured: rounds of jobs, medians, and the results with their goals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from pathlib import Path
from statistics import median, quantiles
from typing import ClassVar, Protocol

from tests.bench.results import Goal, Numbers, Result, at_most, faster, result, within_floor
from tests.bench.tables import Size

CHECKOUT = Path(__file__).resolve().parents[2]
SPREAD = Size(1000, 10)
ONE = Size(1, 10_000)
# pyroute2 takes seconds for what takes us milliseconds: a tenth, times ten.
PYROUTE2_SHARE = 10
PYROUTE2 = Size(SPREAD.virtual_servers // PYROUTE2_SHARE, SPREAD.real_servers_each)
CURVE = tuple(Size(number, 10) for number in (100, 300, 1000, 3000, 10_000))
# The kernel takes a network apart in the background, which would cost whoever is measured next.
REST_SECONDS = 0.2
MILLISECONDS = "ms"
# Some 20 ms, and by how much longer they take on a processor that is shared with other work.
PIECE_OF_WORK = 1_000_000
SLOW = 1.3
# What a run takes longer at most where its jobs are disturbed.
PATIENCE_SECONDS = 90


class Scale(Protocol):
    """How large a task is, and which program (a module) does it."""

    worker: ClassVar[str]

    @property
    def numbers(self) -> tuple[int, ...]:
        """The size, as that program takes it."""


Job = tuple[str, Scale]
# By name, what one job has measured: once, or several times.
Steps = Mapping[str, float | Sequence[float]]


@dataclass
class Samples:
    """The steps of all jobs so far, and how many of them other work on this machine disturbed."""

    taken: dict[tuple[str, Scale, str], list[float]] = field(default_factory=dict)
    jobs: int = 0
    disturbed: int = 0

    def add(self, job: Job, steps: Steps, *, disturbed: bool = False) -> None:
        """Keep the steps of one job."""
        self.jobs += 1
        self.disturbed += disturbed
        for step, value in steps.items():
            values = value if isinstance(value, Sequence) else [value]
            self.taken.setdefault((*job, step), []).extend(values)

    def all(self, job: str, size: Scale, step: str) -> list[float]:
        """Every measurement of a step."""
        return self.taken[job, size, step]

    def median(self, job: str, size: Scale, *steps: str) -> float:
        """The median of a step; of several, that of their sum in each round."""
        runs = (self.all(job, size, step) for step in steps)
        return float(median(sum(run) for run in zip(*runs, strict=True)))

    def percentile(self, number: int, job: str, size: Scale, step: str) -> float:
        """What so many of a hundred measurements of a step stay below."""
        return quantiles(self.all(job, size, step), n=100, method="inclusive")[number - 1]

    def warning(self) -> str:
        """What is to be said of a run if a part of it was disturbed."""
        if self.disturbed * 10 <= self.jobs:
            return ""
        return f"this machine was busy: {self.disturbed} of {self.jobs} jobs were disturbed"


class Pace:
    """How fast the processor is for us: other work on it makes us slower, whatever we do."""

    def __init__(self) -> None:
        self._fastest = inf
        self._patience_seconds: float = PATIENCE_SECONDS

    def is_slow(self) -> bool:
        """Whether a piece of work takes longer now than it did at best."""
        started = time.perf_counter()
        for _ in range(PIECE_OF_WORK):
            pass
        took = time.perf_counter() - started
        self._fastest = min(self._fastest, took)
        return took > SLOW * self._fastest

    def undisturbed(self, job: Callable[[], Steps]) -> tuple[Steps, bool]:
        """Run a job, and again if it was disturbed, as long as patience lasts; returns its steps
        and whether it was disturbed.
        """
        while True:
            started = time.monotonic()
            slow_before = self.is_slow()
            steps = job()
            disturbed = self.is_slow() or slow_before
            if not disturbed or self._patience_seconds <= 0:
                return steps, disturbed
            self._patience_seconds -= time.monotonic() - started


def run(jobs: Sequence[Job], rounds: int, samples: Samples, pace: Pace) -> None:
    """Run jobs in turn, so that whatever slows the machine down slows all of them, and again."""
    for number in range(1, rounds + 1):
        started = time.monotonic()
        for job in jobs:
            steps, disturbed = pace.undisturbed(partial(run_job, *job))
            samples.add(job, steps, disturbed=disturbed)
        seconds = time.monotonic() - started
        print(f"round {number} of {rounds}: {len(jobs)} jobs in {seconds:.0f} s", flush=True)


def run_job(name: str, size: Scale) -> Steps:
    """Run one job in a process of its own; returns its steps."""
    output = subprocess.run(
        [sys.executable, "-m", size.worker, name, *map(str, size.numbers)],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT / "_utils")},
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    time.sleep(REST_SECONDS)
    steps: Steps = json.loads(output)
    return steps


# --------------------------------------------------------------------------------------------------
# One table of 10,000 real servers

SPREAD_JOBS: list[Job] = [
    ("floor", SPREAD),
    ("ipvsadm", SPREAD),
    ("create", SPREAD),
    ("acknowledge", SPREAD),
    ("change", SPREAD),
    ("pyroute2", PYROUTE2),
]


def spread(samples: Samples) -> list[Result]:
    """1,000 virtual servers with 10 real servers each."""
    at = samples.median
    by_ipvsadm = at("ipvsadm", SPREAD, "create")
    listing = at("ipvsadm", SPREAD, "list")
    created = at("create", SPREAD, "create")
    nothing = at("change", SPREAD, "nothing")
    floor_dump = at("floor", SPREAD, "dump")
    like_nothing = at_most(1.1 * nothing, "1.1 times an apply that changes nothing")
    rows = [
        _row(
            f"create {SPREAD}, read back and verified, against ipvsadm -R",
            Numbers(created, by_ipvsadm, at("floor", SPREAD, "create and dump")),
            faster(10, "ipvsadm -R"),
            within_floor(3),
        ),
        _row(
            f"create {SPREAD}, acknowledged only, against ipvsadm -R",
            Numbers(at("acknowledge", SPREAD, "create"), by_ipvsadm, at("floor", SPREAD, "create")),
            faster(17, "ipvsadm -R"),
        ),
        _row(
            f"apply {SPREAD} that changes nothing, against ipvsadm -Sn",
            Numbers(nothing, listing, floor_dump),
            faster(1.3, "ipvsadm -Sn"),
        ),
    ]
    for step, words in (("weights", "weights"), ("replace", "real servers")):
        rows.append(
            _row(
                f"apply {SPREAD} with 1 % other {words}, against ipvsadm -Sn and -R",
                Numbers(
                    at("change", SPREAD, step),
                    at("ipvsadm", SPREAD, "list", step),
                    at("floor", SPREAD, "dump", step, "dump what was touched"),
                ),
                like_nothing,
            )
        )
    rows += [
        _row(
            f"list {SPREAD} as plain values, against ipvsadm -Sn",
            Numbers(at("change", SPREAD, "list"), listing, floor_dump),
        ),
        _row(
            f"read {SPREAD}, against ipvsadm -Sn",
            Numbers(at("change", SPREAD, "read"), listing, floor_dump),
        ),
    ]
    return rows + _against_pyroute2(samples, nothing)


def _against_pyroute2(samples: Samples, nothing: float) -> list[Result]:
    def of(*steps: str) -> float:
        return samples.median("pyroute2", PYROUTE2, *steps) * PYROUTE2_SHARE

    note = f"(its {PYROUTE2}, times {PYROUTE2_SHARE})"
    at = samples.median
    weights = at("change", SPREAD, "weights")
    return [
        _row(
            f"create {SPREAD}, read back and verified, against pyroute2 {note}",
            Numbers(at("create", SPREAD, "create"), of("create")),
        ),
        _row(
            f"apply {SPREAD} that changes nothing, against reading by pyroute2 {note}",
            Numbers(nothing, of("list")),
        ),
        _row(
            f"apply {SPREAD} with 1 % other weights, against pyroute2 {note}",
            Numbers(weights, of("list", "weights")),
        ),
    ]


# --------------------------------------------------------------------------------------------------
# One virtual server

ONE_JOBS: list[Job] = [("floor", ONE), ("ipvsadm", ONE), ("create", ONE), ("change", ONE)]


def one(samples: Samples) -> list[Result]:
    """One virtual server with 10,000 real servers."""
    at = samples.median
    return [
        _row(
            f"create {ONE}, read back and verified, against ipvsadm -R",
            Numbers(
                at("create", ONE, "create"),
                at("ipvsadm", ONE, "create"),
                at("floor", ONE, "create and dump"),
            ),
        ),
        _row(
            f"apply {ONE} that changes nothing, against ipvsadm -Sn",
            Numbers(
                at("change", ONE, "nothing"), at("ipvsadm", ONE, "list"), at("floor", ONE, "dump")
            ),
        ),
        _row(
            f"apply {ONE} with 1 % other weights, against ipvsadm -Sn and -R",
            Numbers(
                at("change", ONE, "weights"),
                at("ipvsadm", ONE, "list", "weights"),
                at("floor", ONE, "dump", "weights", "dump what was touched"),
            ),
        ),
    ]


# --------------------------------------------------------------------------------------------------
# Growth: of memory, and of the cost of one real server

MEMORY_JOBS: list[Job] = [("memory", SPREAD)]


def memory(samples: Samples) -> list[Result]:
    """What a process grows by."""
    goal = at_most(60, "60 MB")
    return [
        result(
            f"memory to create {SPREAD}, {what}",
            "MB",
            Numbers(samples.median("memory", SPREAD, step)),
            goal,
        )
        for step, what in (("apply", "beside its dict"), ("dict and apply", "with its dict"))
    ]


CURVE_JOBS: list[Job] = [(job, size) for size in CURVE for job in ("floor", "create")]


@dataclass(frozen=True)
class Point:
    """The cost of one real server of a table, in microseconds."""

    real_servers: int
    ours: float
    floor: float


def points(samples: Samples) -> list[Point]:
    """The curve: from 1,000 to 100,000 real servers."""
    return [
        Point(
            size.real_servers,
            samples.median("create", size, "create") * 1000 / size.real_servers,
            samples.median("floor", size, "create and dump") * 1000 / size.real_servers,
        )
        for size in CURVE
    ]


def curve(samples: Samples) -> list[Result]:
    """The cost of one real server by the size of the table, and by how much it grows."""
    found = points(samples)
    rows = [
        result(
            f"create and verify one real server of {point.real_servers:,}",
            "µs",
            Numbers(point.ours, floor=point.floor),
        )
        for point in found
    ]
    return [*rows, growth(found)]


def growth(found: Sequence[Point]) -> Result:
    """By how much the cost of a real server grows, from the smallest table to the largest."""
    first, last = found[0], found[-1]
    return result(
        f"growth of the cost of a real server from {first.real_servers:,} to {last.real_servers:,}",
        "times",
        Numbers(last.ours / first.ours, floor=last.floor / first.floor),
        at_most(1.3, "1.3 times"),
    )


def _row(name: str, numbers: Numbers, *goals: Goal) -> Result:
    return result(name, MILLISECONDS, numbers, *goals)
