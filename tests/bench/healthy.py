"""What watching real servers costs a director, how soon a dead one is out, and what clients see:
ours, beside keepalived's own checks at the same pace.

The costs are measured on addresses of one machine; what clients see, on a small cluster whose
director is in turn ours, as a highstate from the example pillar has made it, and plain keepalived.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from tests.bench.realserver import Load, within
from tests.bench.results import Goal, Numbers, Result, at_most, result
from tests.bench.suite import CHECKOUT, MILLISECONDS, Job, Pace, Samples, Steps, run
from tests.lab import VIP, Lab, services
from tests.lab.bus import Bus
from tests.lab.client import Client
from tests.lab.cluster import SaltCluster
from tests.lab.lab import HOSTS
from tests.lab.waiting import until

PROCESSOR = "µs of a processor"
# Of a processor, in percent, that 10,000 real servers asked by tcp every 2 s may take.
SHARE = 70


@dataclass(frozen=True)
class Asked:
    """How many real servers a director asks, how often each, and for how many seconds, or how often
    some of them die.
    """

    worker: ClassVar[str] = "tests.bench.asking"

    real_servers: int
    interval_ms: int
    times: int

    @property
    def numbers(self) -> tuple[int, int, int]:
        return self.real_servers, self.interval_ms, self.times


THOUSAND = Asked(1000, 1000, 10)
TEN_THOUSAND = Asked(10_000, 2000, 10)
# Each asked twice. The lab has one processor, and does the real servers' half on it as well.
FIVE_THOUSAND = Asked(5_000, 2000, 10)
ONE = Asked(10, 1000, 8)
ONE_QUICK = Asked(10, 100, 20)
RACK = Asked(1000, 1000, 2)
# Each job measures for seconds, or many times.
ROUNDS = 1
SIDES = ("ours", "keepalived")
JOBS: list[Job] = [
    *((f"cost, {side}", THOUSAND) for side in SIDES),
    *((f"one dies, {side}", size) for size in (ONE, ONE_QUICK) for side in SIDES),
    *((f"half die, {side}", RACK) for side in SIDES),
    *((f"cost, {side}", TEN_THOUSAND) for side in SIDES),
    ("both, ours", FIVE_THOUSAND),
]


def measure(_rounds: int, samples: Samples, pace: Pace) -> None:
    """What it costs to ask, and how soon who dies is out."""
    run(JOBS, ROUNDS, samples, pace)


def results(samples: Samples) -> list[Result]:
    """The costs, and the times."""
    return [*_costs(samples), *_deaths(samples)]


def _both(samples: Samples, kind: str, load: Asked, step: str) -> Numbers:
    return Numbers(*(samples.median(f"{kind}, {side}", load, step) for side in SIDES))


def below(most: float, unit: str) -> Goal:
    """At most so much."""
    return at_most(most, f"{most:g} {unit}")


def no_dearer(times: float) -> Goal:
    """At most so many times the peer."""
    return Goal(
        f"at most {times:g} times keepalived",
        lambda numbers: numbers.peer is not None and numbers.ours <= times * numbers.peer,
    )


def _costs(samples: Samples) -> list[Result]:
    rows = []
    for load in (THOUSAND, TEN_THOUSAND):
        name = f"{load.real_servers:,} real servers asked every {load.interval_ms / 1000:g} s"
        each = _both(samples, "cost", load, "each")
        rows += [
            result(f"{name}: a check, against TCP_CHECK", PROCESSOR, each, no_dearer(1)),
            result(
                f"{name}, in all",
                "% of a CPU",
                _both(samples, "cost", load, "share"),
                below(SHARE, "%"),
            ),
            result(
                f"{name}, memory", "MB", _both(samples, "cost", load, "memory"), below(150, "MB")
            ),
            result(
                f"{name}: the beacon's call meanwhile, median",
                MILLISECONDS,
                Numbers(samples.median("cost, ours", load, "calls")),
                within(2),
            ),
            result(
                f"{name}, checks not made in time",
                "%",
                Numbers(
                    *(
                        max(0.0, 100 - samples.median(f"cost, {side}", load, "kept up"))
                        for side in SIDES
                    )
                ),
            ),
        ]
    name = f"{FIVE_THOUSAND.real_servers:,} real servers asked by path and tcp every 2 s, in all"
    both = Numbers(samples.median("both, ours", FIVE_THOUSAND, "share"))
    missed = max(0.0, 100 - samples.median("both, ours", FIVE_THOUSAND, "kept up"))
    return [
        *rows,
        result(name, "% of a CPU", both, below(SHARE, "%")),
        result(f"{name}: checks not made in time", "%", Numbers(missed)),
    ]


def _deaths(samples: Samples) -> list[Result]:
    rows = []
    for load in (ONE, ONE_QUICK):
        name = f"port closed, until weight 0 (asked every {load.interval_ms} ms), median"
        numbers = _both(samples, "one dies", load, "took")
        # On average half an interval passes before anybody asks.
        rows.append(result(name, MILLISECONDS, numbers, within(load.interval_ms)))
    name = f"{RACK.real_servers // 2} of {RACK.real_servers:,} die at once, until all have weight 0"
    numbers = _both(samples, "half die", RACK, "took")
    return [*rows, result(name, MILLISECONDS, numbers, within(2 * RACK.interval_ms))]


# --------------------------------------------------------------------------------------------------
# What clients see

MASTER, DIRECTOR = "master", "lb1"
REAL_SERVERS = ("rs1", "rs2")
PILLAR = "/srv/pillar/production/lvs.sls"
CONFIG = "/etc/keepalived/keepalived.conf"
TAG = f"salt/beacon/{DIRECTOR}/real_server/change"
# Every other request is the failed one's, and nobody is kept with one: the outage shows at once.
PERSISTENCE = "      persistence: 5\n"
# keepalived knows no hold for those that fail again and again.
CHECK = "      check: {interval: 1, connect_timeout: 1, hold: {flaps: 0}}\n"
EDITS = (
    ("advert_int: 3", "advert_int: 1"),
    ("scheduler: wlc", "scheduler: rr"),
    (PERSISTENCE, CHECK),
)
CLIENTS = [f"10.10.10.{number}" for number in range(101, 105)]
PER_SECOND, TIMEOUT_SECONDS = 50, 0.2
# Who has not noticed by then never does.
PATIENCE_SECONDS = 8.0
EACH = 3
FULL = 50
LOOK_SECONDS = 0.02
# What the SLS lvs.master writes: which events the master answers.
MASTER_SNIPPET = CHECKOUT / "lvs" / "files" / "master.conf"

PLAIN_REAL_SERVER = """\
    real_server 10.10.10.4{number} 80 {{
        weight 50
        inhibit_on_failure
        TCP_CHECK {{
            connect_timeout 1
            retry 0
        }}
    }}
"""
PLAIN = """\
global_defs {
    router_id lb1
}
vrrp_instance VirtIP_10 {
    state MASTER
    interface eth0
    virtual_router_id 10
    priority 150
    advert_int 1
    virtual_ipaddress {
        10.10.10.10
    }
}
virtual_server 10.10.10.10 80 {
    delay_loop 1
    lb_algo rr
    lb_kind DR
    protocol TCP
"""

LOAD = Load(1)
WORDS = {
    "process dies": "the web server's process ends",
    "host vanishes": "the real server's cable is pulled",
    "dummy0 deleted": "the real server loses its dummy0",
}


def measure_views(_rounds: int, samples: Samples, pace: Pace) -> None:
    """Make the cluster, and let rs1 fail in turn, with one side and the other."""
    began = time.monotonic()
    names = (MASTER, DIRECTOR, *REAL_SERVERS, "client")
    with Lab({name: HOSTS[name] for name in names}) as lab, _cluster(lab) as cluster:
        print(f"a cluster in {time.monotonic() - began:.0f} s", flush=True)
        sides = Views(cluster)
        for took in sides.by_reactor():
            samples.add(("by reactor", LOAD), {"took": took}, disturbed=pace.is_slow())
            print(f"  seen dead, set by the reactor after {took:.0f}", flush=True)
        for side in SIDES:
            sides.become(side)
            for kind in (*WORDS,) * EACH:
                slow = pace.is_slow()
                steps = sides.fail(side, kind)
                samples.add((f"{kind}, {side}", LOAD), steps, disturbed=pace.is_slow() or slow)
                shown = ", ".join(f"{step} {value:.0f}" for step, value in steps.items())
                print(f"  {side}, {kind}: {shown}", flush=True)


@contextmanager
def _cluster(lab: Lab) -> Iterator[SaltCluster]:
    """A director with a minion; the real servers are made by hand, so that nobody mends them."""
    for name in REAL_SERVERS:
        _make_dummy0(lab, name)
    lab[MASTER].write("/etc/salt/master.d/saltext-lvs.conf", MASTER_SNIPPET.read_text())
    with closing(SaltCluster(lab, minions=[DIRECTOR])) as cluster:
        cluster.start()
        cluster.wait()
        text = cluster.master.read(PILLAR)
        for edit in EDITS:
            text = text.replace(*edit)
        cluster.master.write(PILLAR, text)
        returned = cluster.highstate()[DIRECTOR]
        failed = [state for state in returned.values() if state["result"] is False]
        if failed:
            raise RuntimeError(f"the highstate failed: {failed}")
        yield cluster


def _make_dummy0(lab: Lab, name: str) -> None:
    quiet = [f"net.ipv4.conf.all.{setting}" for setting in ("arp_ignore=1", "arp_announce=2")]
    lab[name].run(["sysctl", "-qw", *quiet], check=True)
    lines = f"link add dummy0 type dummy\nlink set dummy0 up\naddress add {VIP}/32 dev dummy0\n"
    lab[name].run(["ip", "-batch", "-"], check=True, input=lines)


class Views:
    """Makes the director one side or the other, fails rs1, and tells what clients saw of it."""

    def __init__(self, cluster: SaltCluster) -> None:
        self.cluster = cluster
        self.lab = cluster.lab
        self.client = Client(self.lab["client"])
        self._kinds: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
            "process dies": (self._stop_web, lambda: services.start(self.lab["rs1"], "lab-web")),
            "host vanishes": (self.lab["rs1"].link_down, self.lab["rs1"].link_up),
            "dummy0 deleted": (self._delete_dummy0, lambda: _make_dummy0(self.lab, "rs1")),
        }

    def become(self, side: str) -> None:
        """Ours it is from the beginning; keepalived is what comes after it."""
        if side == "keepalived":
            director = self.lab[DIRECTOR]
            for name in ("salt-minion", "keepalived"):
                director.run(["service", name, "stop"], check=True)
            services.wait_until_gone(director, "keepalived")
            director.run(["ipvsadm", "-C"], check=True)
            real = "".join(PLAIN_REAL_SERVER.format(number=number) for number in (1, 2))
            director.write(CONFIG, f"{PLAIN}{real}}}\n", mode=0o600)
            director.run(["service", "keepalived", "start"], check=True)
        until(self._serves, "both real servers to serve", seconds=60, pause=0.5)

    def by_reactor(self) -> Iterator[float]:
        """rs1's process dies while all is left to the master: milliseconds from the moment that the
        watcher saw it until its weight is 0.
        """
        self._set("reaction: reactor\n  ", "")
        for _ in range(EACH):
            with Bus(self.cluster.master) as bus:
                self._stop_web()
                until(lambda: self._weight() == 0, "weight 0", seconds=60, pause=LOOK_SECONDS)
                at = time.time()
                told = until(
                    lambda: next((e for e in bus.events if e.tag == TAG), None), "an event"
                )
            yield (at - told.data["at"]) * 1000
            services.start(self.lab["rs1"], "lab-web")
            until(lambda: self._weight() == FULL, "its weight again", seconds=60, pause=0.5)
            time.sleep(1)
        self._set("", "reaction: reactor\n  ")

    def _set(self, more: str, less: str) -> None:
        """Put something at the head of the pillar, take something away, and apply it."""
        text = self.cluster.master.read(PILLAR)
        text = text.replace(less, "") if less else text.replace("lvs:\n  ", f"lvs:\n  {more}", 1)
        self.cluster.master.write(PILLAR, text)
        self.cluster.salt(DIRECTOR, "state.apply", timeout=300)
        self.cluster.salt(DIRECTOR, "saltutil.refresh_pillar", "wait=True")
        # The watcher reads its pillar when it comes to it.
        time.sleep(5)

    def _weight(self) -> int | None:
        """What the director's kernel has for rs1."""
        saved = self.lab[DIRECTOR].run(["ipvsadm", "-Sn"], check=True).stdout
        found = re.search(r" -r 10\.10\.10\.41:80 .*-w (\d+)", saved)
        return int(found[1]) if found else None

    def _serves(self) -> bool:
        replies = self.client.get(VIP, sources=CLIENTS, requests=16)
        return not replies.errors and len(replies.by_server()) == len(REAL_SERVERS)

    def _stop_web(self) -> None:
        self.lab["rs1"].run(["service", "lab-web", "stop"], check=True)

    def _delete_dummy0(self) -> None:
        self.lab["rs1"].run(["ip", "link", "delete", "dummy0"], check=True)

    def fail(self, side: str, kind: str) -> Steps:
        """rs1 fails and comes back: for how long requests failed, and how many."""
        harm, mend = self._kinds[kind]
        with Bus(self.cluster.master) as bus:
            steps = self._failed(harm)
            # When the event came, against when the watcher saw it.
            if side == "ours":
                lag = time.time() - time.monotonic()
                told = until(
                    lambda: next((e for e in bus.events if e.tag == TAG), None), "an event"
                )
                steps["told"] = (told.at + lag - told.data["at"]) * 1000
        mend()
        until(self._serves, "both real servers to serve", seconds=60, pause=0.5)
        time.sleep(1)
        return steps

    def _failed(self, harm: Callable[[], Any]) -> dict[str, float]:
        asking = self.client.keep_asking(
            VIP, sources=CLIENTS, per_second=PER_SECOND, timeout=TIMEOUT_SECONDS
        )
        with asking:
            first_reply = time.monotonic()
            time.sleep(1)
            struck = time.monotonic()
            harm()
            time.sleep(PATIENCE_SECONDS)
        replies = asking.replies
        began = replies.all[0].ended + struck - first_reply
        last = max((r.ended for r in replies.errors if r.ended > began), default=began)
        return {"outage": (last - began) * 1000, "failed": float(len(replies.errors))}


def views(samples: Samples) -> list[Result]:
    """How long clients are harmed, and how soon the master knows."""
    rows = []
    for kind, words in WORDS.items():
        for step, what, unit in (
            ("outage", "requests fail for", MILLISECONDS),
            ("failed", "requests that fail", "of 50 a second"),
        ):
            numbers = Numbers(*(samples.median(f"{kind}, {side}", LOAD, step) for side in SIDES))
            goal = [no_dearer(1.5)] if step == "outage" else []
            rows.append(result(f"{words} (asked every 1 s): {what}", unit, numbers, *goal))
    told = [value for kind in WORDS for value in samples.all(f"{kind}, ours", LOAD, "told")]
    name = "seen dead, until the event is on the master's bus, median"
    middle = sorted(told)[len(told) // 2]
    rows.append(result(name, MILLISECONDS, Numbers(middle), within(150)))
    name = "seen dead, until the reactor alone has set weight 0, median"
    took = Numbers(samples.median("by reactor", LOAD, "took"))
    return [*rows, result(name, MILLISECONDS, took, within(1500))]
