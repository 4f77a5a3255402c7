"""What only a real master and a real minion can show: a loss on the master's bus, and its answer.

One small cluster, made once: a master and a real server, highstated from the example pillar.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from tests.bench.hand import Hand
from tests.bench.realserver import Load, within
from tests.bench.results import Numbers, Result, result
from tests.bench.suite import CHECKOUT, MILLISECONDS, Job, Pace, Samples, Steps
from tests.lab import HOSTS, VIP, Lab
from tests.lab.bus import Bus, Event
from tests.lab.cluster import SaltCluster
from tests.lab.waiting import until

MASTER, MINION = "master", "rs1"
PILLAR = "/srv/pillar/production/lvs.sls"
SERVERS = "  virtual_servers:\n"
TAG = f"salt/beacon/{MINION}/dummy/change"
# After three repairs in a minute a minion leaves it to a person.
LOCAL_ROUNDS = 3
REACTOR_ROUNDS = 8
# Asked by the master, a minion repairs something once in three seconds at most.
REST_SECONDS = 3.2
# A refreshed pillar reaches the watcher with the beacon's next tick.
TICK_SECONDS = 2.5

BUS = Load(1)
LOCAL: Job = ("bus, local", BUS)
REACTOR: Job = ("bus, reactor", BUS)


def measure(_rounds: int, samples: Samples, pace: Pace) -> None:
    """Make the cluster, and take dummy0 away, again and again."""
    began = time.monotonic()
    with (
        Lab({name: HOSTS[name] for name in (MASTER, MINION)}) as lab,
        _cluster(lab) as cluster,
        Bus(cluster.master) as bus,
        Hand([VIP], lab[MINION].popen) as hand,
    ):
        print(f"a master and a real server in {time.monotonic() - began:.0f} s", flush=True)
        for _ in range(LOCAL_ROUNDS):
            slow = pace.is_slow()
            steps = _strike(hand, bus)
            samples.add(LOCAL, steps, disturbed=pace.is_slow() or slow)
        _leave_it_to_the_master(cluster)
        for _ in range(REACTOR_ROUNDS):
            steps, disturbed = pace.undisturbed(partial(_strike, hand, bus))
            samples.add(REACTOR, steps, disturbed=disturbed)
    print(f"{len(samples.all(*REACTOR, 'back'))} losses in {time.monotonic() - began:.0f} s")


@contextmanager
def _cluster(lab: Lab) -> Iterator[SaltCluster]:
    """The master, which answers losses, and its minion, a real server."""
    snippet = CHECKOUT / "lvs/files/master.conf"
    lab[MASTER].write("/etc/salt/master.d/saltext-lvs.conf", snippet.read_text())
    with SaltCluster(lab, minions=[MINION], web_servers=()) as cluster:
        returned = cluster.highstate()[MINION]
        failed = [state for state in returned.values() if state["result"] is False]
        if failed:
            raise RuntimeError(f"the highstate failed: {failed}")
        yield cluster


def _leave_it_to_the_master(cluster: SaltCluster) -> None:
    pillar = cluster.master.read(PILLAR)
    cluster.master.write(PILLAR, pillar.replace(SERVERS, f"  reaction: reactor\n{SERVERS}"))
    cluster.salt(MINION, "saltutil.refresh_pillar", "wait=True")
    time.sleep(TICK_SECONDS)


def _strike(hand: Hand, bus: Bus) -> Steps:
    """Delete the interface; the milliseconds until the master knows, and until it is back."""
    before = len(bus.events)
    began = hand.strike()
    told = until(lambda: _told(bus.events[before:]), "the event", pause=0.01)
    back = hand.back()
    time.sleep(REST_SECONDS)
    return {"bus": (told - began) * 1000, "back": (back - began) * 1000}


def _told(events: Sequence[Event]) -> float | None:
    """When the first event of a loss came."""
    told = (event for event in events if event.tag == TAG)
    return next((event.at for event in told if any(map(_is_loss, event.data["changes"]))), None)


def _is_loss(change: Mapping[str, Any]) -> bool:
    return change.get("now") == "lost"


def results(samples: Samples) -> list[Result]:
    """How soon a loss is on the master's bus, and how soon the master has it put back."""
    rows = [
        (f"dummy0 deleted, until the event is on the master's bus ({words})", job, "bus", 150)
        for words, job in (("reaction: local", LOCAL), ("reaction: reactor", REACTOR))
    ]
    rows.append(
        ("dummy0 deleted, until it is put back by the reactor alone", REACTOR, "back", 2000)
    )
    return [
        result(
            f"{name}, median",
            MILLISECONDS,
            Numbers(samples.median(*job, step)),
            within(limit),
        )
        for name, job, step, limit in rows
    ]


def times(samples: Samples) -> dict[str, list[float]]:
    """When what follows a loss has happened, in milliseconds, of each loss."""
    return {
        "on the master's bus": [*samples.all(*LOCAL, "bus"), *samples.all(*REACTOR, "bus")],
        "put back by the reactor alone": samples.all(*REACTOR, "back"),
    }
