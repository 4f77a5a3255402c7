"""What is measured of the master's answers: an event until the job that it causes, trouble until
somebody has a mail of it, a storm of events, and a heap of mails that wait.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from tests.bench.realserver import Load, within
from tests.bench.results import Numbers, Result, at_most, result
from tests.bench.suite import MILLISECONDS, Job, Pace, Samples, Steps, run
from tests.integration import alerting
from tests.lab.bus import Bus, Event, fire
from tests.lab.cluster import MINIONS, SaltCluster
from tests.lab.waiting import until

REACTIONS, DEATHS = 12, 4
STORM = 500
# In which a storm is told of, and what it took is given back.
AFTER_STORM_SECONDS = 60
TAG = "salt/beacon/lb1/real_server/change"
FUNCTION = "lvs.reweight"
REST_SECONDS = 2.0
ENGINE = """\
for one in /proc/[0-9]*; do
    tr '\\0' ' ' <$one/cmdline 2>/dev/null | grep -q 'lvs_alerts' && cat $one/statm
done
"""
PAGE_BYTES = 4096


@dataclass(frozen=True)
class Heap:
    """How many mails wait."""

    worker: ClassVar[str] = "tests.bench.sending"

    mails: int

    @property
    def numbers(self) -> tuple[int]:
        return (self.mails,)


ONE = Load(1)
REACTION: Job = ("reaction", ONE)
MAIL: Job = ("mail", ONE)
STORMED: Job = ("storm", ONE)
HEAP = Heap(10_000)
HEAP_JOBS: list[Job] = [("outbox", HEAP), ("smtplib", HEAP)]


def measure(_rounds: int, samples: Samples, pace: Pace) -> None:
    """Send a heap of mails, then make a cluster, and let it tell."""
    run(HEAP_JOBS, 1, samples, pace)
    began = time.monotonic()
    with (
        alerting.lab_of("master", *MINIONS) as lab,
        alerting.cluster_in(lab) as cluster,
        Bus(cluster.master) as bus,
    ):
        print(f"a cluster that mails in {time.monotonic() - began:.0f} s", flush=True)
        for _ in range(REACTIONS):
            steps, disturbed = pace.undisturbed(partial(_reaction, cluster, bus))
            samples.add(REACTION, steps, disturbed=disturbed)
        for _ in range(DEATHS):
            alerting.begin_anew(cluster)
            slow = pace.is_slow()
            steps = _mail(cluster, bus)
            samples.add(MAIL, steps, disturbed=pace.is_slow() or slow)
        alerting.begin_anew(cluster)
        samples.add(STORMED, _storm(cluster, bus))
    print(f"all of it in {time.monotonic() - began:.0f} s")


def _reaction(cluster: SaltCluster, bus: Bus) -> Steps:
    """A director tells what it leaves to the master; the milliseconds until its job is there."""
    before = len(bus.events)
    change = {"virtual_server": "web", "real_server": "rs1", "was": "up", "now": "down"}
    fire(cluster.lab["lb1"], [(TAG, {"id": "lb1", "acted": False, "changes": [change]})])

    def job() -> Event | None:
        return _first(bus.events[before:], fun=FUNCTION)

    published = until(job, "the job", pause=0.01)
    told = _first(bus.events[before:], tag=TAG)
    assert told is not None
    time.sleep(REST_SECONDS)
    return {"job": (published.at - told.at) * 1000}


def _mail(cluster: SaltCluster, bus: Bus) -> Steps:
    """A web server ends; the milliseconds from the event until the relay has the mail."""
    before = len(bus.events)
    alerting.service(cluster.lab["rs1"], "lab-web", "stop")
    alerting.mailed(cluster, lambda it: "rs1:80 OUT" in it, "a mail")
    event = next(one for one in bus.events[before:] if one.tag.endswith("/real_server/change"))
    taken = cluster.master.run(["sh", "-c", "stat -c %.Y /var/mail/lab/*.eml | head -1"]).stdout
    alerting.service(cluster.lab["rs1"], "lab-web", "start")
    at = float(taken) - (time.time() - time.monotonic())
    return {"taken": (at - event.at) * 1000}


def _storm(cluster: SaltCluster, bus: Bus) -> Steps:
    """As many events as in a large outage, within a second, with true trouble among them."""
    events: list[tuple[str, Any]] = [
        (
            TAG,
            {
                "id": "lb1",
                "acted": True,
                "changes": [{"virtual_server": "web", "real_server": f"rs{number}", "now": "down"}],
            },
        )
        for number in range(STORM)
    ]
    held = _memory(cluster)
    alerting.service(cluster.lab["rs1"], "lab-web", "stop")
    fire(cluster.lab["lb1"], events, per_second=STORM)
    asked = time.monotonic()
    answered = cluster.salt("lb2", "test.ping")["lb2"] is True
    took = time.monotonic() - asked
    alerting.mailed(cluster, lambda it: "rs1:80 OUT" in it, "a mail")
    time.sleep(AFTER_STORM_SECONDS)
    heard = sum(one.tag == TAG for one in bus.events)
    assert answered
    assert heard >= STORM, f"{heard} events came"
    alerting.service(cluster.lab["rs1"], "lab-web", "start")
    return {
        "mails": len(cluster.mails()),
        "answer": took * 1000,
        "grown": _memory(cluster) - held,
    }


def _memory(cluster: SaltCluster) -> float:
    """Megabytes that the engine holds."""
    lines = cluster.master.run(["sh", "-c", ENGINE]).stdout.splitlines()
    assert lines, "the engine does not run"
    return max(int(line.split()[1]) for line in lines) * PAGE_BYTES / (1 << 20)


def _first(events: list[Event], tag: str = "", fun: str = "") -> Event | None:
    for event in events:
        if event.tag == tag or (fun and event.tag.endswith("/new") and event.data["fun"] == fun):
            return event
    return None


def results(samples: Samples) -> list[Result]:
    """How soon, how many, and what it takes."""
    ours, alone = (samples.median(*job, "seconds") * 1000 / HEAP.mails for job in HEAP_JOBS)

    def row(name: str, unit: str, value: float, limit: float) -> Result:
        goal = within(limit) if unit == MILLISECONDS else at_most(limit, f"{limit:g}")
        return result(name, unit, Numbers(value), goal)

    return [
        row(
            "event on the master's bus, until the job that it causes, median",
            MILLISECONDS,
            samples.median(*REACTION, "job"),
            100,
        ),
        row(
            "event on the master's bus, until the relay has the first mail, median",
            MILLISECONDS,
            samples.median(*MAIL, "taken"),
            2000,
        ),
        row(f"mails of {STORM} events in a second", "mails", samples.median(*STORMED, "mails"), 3),
        row(
            f"a minion's answer to test.ping after {STORM} events",
            MILLISECONDS,
            samples.median(*STORMED, "answer"),
            5000,
        ),
        row(
            f"growth of the engine a minute after {STORM} events",
            "MB",
            samples.median(*STORMED, "grown"),
            3,
        ),
        result(
            f"one mail of {HEAP.mails:,} that wait, against smtplib alone",
            MILLISECONDS,
            Numbers(ours, alone),
            at_most(4 * alone, "4 times smtplib alone"),
        ),
        row(
            f"growth of a process that sends {HEAP.mails:,} mails",
            "MB",
            samples.median("outbox", HEAP, "grown"),
            10,
        ),
    ]
