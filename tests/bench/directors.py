"""What only a real director shows: how soon the master knows what keepalived tells, and its death.

One small cluster, made once: a master and a director, highstated from the example pillar.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench.realserver import Load, within
from tests.bench.results import Numbers, Result, result
from tests.bench.suite import MILLISECONDS, Job, Pace, Samples, Steps
from tests.lab import HOSTS, VIP, Lab, services
from tests.lab.bus import Bus, Event
from tests.lab.cluster import SaltCluster
from tests.lab.host import Host
from tests.lab.waiting import until

MASTER, DIRECTOR, INSTANCE = "master", "lb1", "VirtIP_10"
PILLAR = "/srv/pillar/production/lvs.sls"
FIFO = "/var/lib/saltext-lvs/vrrp.fifo"
TAG = f"salt/beacon/{DIRECTOR}/keepalived_vrrp/change"
# Nothing here is about waiting for elections.
QUICK = ("advert_int: 3", "advert_int: 1")
LINES = 40
KILLS = 8
PAUSE_SECONDS = 0.3

LOAD = Load(1)
TOLD: Job = ("fifo", LOAD)
KILLED: Job = ("killed", LOAD)


class Poke:
    """The program ``poke.py`` in a host."""

    def __init__(self, host: Host) -> None:
        program = Path(__file__).with_name("poke.py")
        self._process = host.popen(
            [sys.executable, str(program), FIFO],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def __enter__(self) -> Poke:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def tell(self, line: str) -> float:
        """Have it do what a line says, and return when it began to."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        return float(self._process.stdout.readline())


def measure(_rounds: int, samples: Samples, pace: Pace) -> None:
    """Make the cluster, write lines, and kill keepalived again and again."""
    began = time.monotonic()
    with (
        Lab({name: HOSTS[name] for name in (MASTER, DIRECTOR)}) as lab,
        _cluster(lab) as cluster,
        Bus(cluster.master) as bus,
    ):
        print(f"a master and a director in {time.monotonic() - began:.0f} s", flush=True)
        with Poke(lab[DIRECTOR]) as poke:
            # One that was disturbed is done again, and what is known already is no news.
            priorities = itertools.cycle(range(100, 150))
            for _ in range(LINES):
                steps, disturbed = pace.undisturbed(partial(_line, poke, bus, priorities))
                samples.add(TOLD, steps, disturbed=disturbed)
            for _ in range(KILLS):
                slow = pace.is_slow()
                steps = _kill(poke, bus, lab[DIRECTOR])
                samples.add(KILLED, steps, disturbed=pace.is_slow() or slow)
    print(f"{LINES} lines and {KILLS} deaths in {time.monotonic() - began:.0f} s")


@contextmanager
def _cluster(lab: Lab) -> Iterator[SaltCluster]:
    with SaltCluster(lab, minions=[DIRECTOR], web_servers=()) as cluster:
        pillar = cluster.master.read(PILLAR)
        cluster.master.write(PILLAR, pillar.replace(*QUICK))
        returned = cluster.highstate()[DIRECTOR]
        failed = [state for state in returned.values() if state["result"] is False]
        if failed:
            raise RuntimeError(f"the highstate failed: {failed}")
        _wait_for_vip(lab[DIRECTOR])
        yield cluster


def _line(poke: Poke, bus: Bus, priorities: Iterator[int]) -> Steps:
    """keepalived tells of a new priority; the milliseconds until the master knows."""
    before, priority = len(bus.events), next(priorities)
    began = poke.tell(f'INSTANCE "{INSTANCE}" MASTER_PRIORITY {priority}')
    told = _heard(bus, before, lambda change: change.get("priority") == priority)
    time.sleep(PAUSE_SECONDS)
    return {"told": (told - began) * 1000}


def _kill(poke: Poke, bus: Bus, director: Host) -> Steps:
    """keepalived dies as the master; the milliseconds until Salt's master knows."""
    before = len(bus.events)
    pid = director.read("/run/keepalived.pid").strip()
    began = poke.tell(f"kill {pid}")
    told = _heard(bus, before, lambda change: change.get("now") != "MASTER")
    services.wait_until_gone(director, "keepalived")
    services.start(director, "keepalived")
    _wait_for_vip(director)
    time.sleep(1)
    return {"told": (told - began) * 1000}


def _heard(bus: Bus, before: int, fits: Callable[[Mapping[str, Any]], bool]) -> float:
    """When the first event with a change that fits came."""

    def first() -> float | None:
        return next((e.at for e in bus.events[before:] if any(map(fits, _changes(e)))), None)

    return until(first, "the event", pause=0.005)


def _changes(event: Event) -> list[Mapping[str, Any]]:
    if event.tag != TAG:
        return []
    return [change for change in event.data["changes"] if change.get("vrrp_instance") == INSTANCE]


def _wait_for_vip(director: Host) -> None:
    show = ["ip", "-brief", "address", "show", "dev", "eth0"]
    until(lambda: f"{VIP}/32" in director.run(show).stdout, "the VIP", seconds=60, pause=0.3)


def results(samples: Samples) -> list[Result]:
    """How soon the master knows."""
    rows = [
        ("keepalived writes a line, until the event is on the master's bus, median", 50, 150),
        ("keepalived writes a line, until the event is on the master's bus, 99 %", 99, 500),
    ]
    return [
        *(_row(name, samples.percentile(share, *TOLD, "told"), most) for name, share, most in rows),
        _row(
            "keepalived killed, until the event is on the master's bus, longest",
            max(samples.all(*KILLED, "told")),
            1000,
        ),
    ]


def _row(name: str, milliseconds: float, limit: float) -> Result:
    return result(name, MILLISECONDS, Numbers(milliseconds), within(limit))
