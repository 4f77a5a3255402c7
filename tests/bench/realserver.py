"""What is measured of a real server's VIPs: jobs, and the results with their goals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tests.bench.results import Goal, Numbers, Result, at_most, result
from tests.bench.suite import MILLISECONDS, Job, Samples


@dataclass(frozen=True)
class Load:
    """How many VIPs a job has, and how often it does its task (or how many seconds it takes)."""

    worker: ClassVar[str] = "tests.bench.watching"

    vips: int
    times: int = 1

    @property
    def numbers(self) -> tuple[int, int]:
        return self.vips, self.times


# --------------------------------------------------------------------------------------------------
# Lost, told, put back: of each of the rounds, all together

LOST = Load(2, 40)
LOST_JOBS: list[Job] = [("reactor", LOST), ("local", LOST)]


def lost(samples: Samples) -> list[Result]:
    """How soon the loss of the interface is told, and put right by the real server itself."""
    rows = []
    for reaction in ("local", "reactor"):
        name = f"dummy0 deleted, until the event is queued (reaction: {reaction})"
        middle = samples.median(reaction, LOST, "queued")
        worst = samples.percentile(99, reaction, LOST, "queued")
        rows += [_row(f"{name}, median", middle, 4), _row(f"{name}, 99th percentile", worst, 15)]
    back = samples.median("local", LOST, "back")
    return [*rows, _row("dummy0 deleted, until it is put back locally, median", back, 20)]


def times(samples: Samples) -> dict[str, list[float]]:
    """When what follows a loss has happened, in milliseconds, of each loss."""
    return {
        "event queued": samples.all("local", LOST, "queued"),
        "put back by the real server": samples.all("local", LOST, "back"),
    }


def _row(name: str, milliseconds: float, limit: float) -> Result:
    return result(name, MILLISECONDS, Numbers(milliseconds), within(limit))


def within(milliseconds: float) -> Goal:
    """At most so long."""
    words = f"{milliseconds:g} ms" if milliseconds < 1000 else f"{milliseconds / 1000:g} s"
    return at_most(milliseconds, words)


# --------------------------------------------------------------------------------------------------
# Many VIPs, and a beacon that has nothing to do

MANY = Load(1000)
# One program for each address takes seconds: a tenth, times ten.
SHARE = 10
FEW = Load(MANY.vips // SHARE)
MANY_JOBS: list[Job] = [("many", MANY), ("ip -batch", MANY), ("one ip each", FEW)]


def many(samples: Samples) -> list[Result]:
    """1,000 VIPs."""
    rows = []
    for step, words, limit in (
        ("create", "on a new interface", 1000),
        ("nothing", "looked at again, where nothing is to be done", 250),
    ):
        ours = samples.median("many", MANY, step)
        batch = samples.median("ip -batch", MANY, step)
        each = samples.median("one ip each", FEW, step) * SHARE
        name = f"{MANY.vips:,} VIPs {words}"
        rows += [
            result(f"{name}, against ip -batch", MILLISECONDS, Numbers(ours, batch), within(limit)),
            result(
                f"{name}, against one ip for each (its {FEW.vips}, times {SHARE})",
                MILLISECONDS,
                Numbers(ours, each),
            ),
        ]
    return rows


IDLE = Load(1, 2)
IDLE_JOBS: list[Job] = [("idle", IDLE)]


def idle(samples: Samples) -> list[Result]:
    """The beacon while nothing happens."""
    share = samples.median("idle", IDLE, "both")
    name = "the beacon while nothing happens"
    return [result(name, "% of a CPU", Numbers(share), at_most(0.1, "0.1 %"))]
