"""What clients see of a failover and of a reload: with keepalived alone, and with ours on top.

One cluster. In turn its directors are ours, as one highstate from the example pillar has made them
(a minion with its beacon, the configuration from the pillar, reloads by the state), and plain: the
same keepalived with a configuration as one writes it by hand, no minion, reloads by ``kill -HUP``.

All hosts of the lab share one processor, so that Salt's own work holds up clients there as it does
on no director. Hence a second client, which asks a real server at its own address meanwhile: what
it waits for longer is not keepalived's doing, and is taken off.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial

from tests.bench.realserver import Load
from tests.bench.results import Goal, Numbers, Result, at_most, result
from tests.bench.suite import MILLISECONDS, Job, Pace, Samples, Steps
from tests.lab import VIP, Lab, services
from tests.lab.client import Asking, Client
from tests.lab.cluster import SaltCluster
from tests.lab.host import Host
from tests.lab.lab import HOSTS
from tests.lab.waiting import until
from tests.soak.failovers import cluster_of

MASTER, DIRECTORS = "master", ("lb1", "lb2")
PILLAR = "/srv/pillar/production/lvs.sls"
CONFIG = "/etc/keepalived/keepalived.conf"
# A failback takes three of these; the example's three seconds only cost time here.
QUICK = ("advert_int: 3", "advert_int: 1")
CLIENTS = [f"10.10.10.{number}" for number in range(101, 105)]
# Each request that gets no answer is given up soon: one that waits for TCP to send again would
# only tell when TCP did. Failovers are measured with these, to 20 ms.
PER_SECOND, TIMEOUT_SECONDS = 50, 0.2
# A reload must not cost a request, so one may take as long as a client has patience.
RELOAD_TIMEOUT_SECONDS = 2.0
REAL_SERVER = "10.10.10.41"
# A failover counts as no longer if it is within noise: how a process is scheduled on a processor
# that everything shares.
NOISE = 1.1
NOISE_MS = 40
TURNS = 2
EACH = 2

LOAD = Load(1)
KINDS = ("stop", "kill", "reload")

# The guide's, by hand.
PLAIN = """\
global_defs {{
    router_id {name}
    lvs_sync_daemon eth0 VirtIP_10 id 10
}}
vrrp_instance VirtIP_10 {{
    state {state}
    interface eth0
    virtual_router_id 10
    priority {priority}
    advert_int 1
    authentication {{
        auth_type PASS
        auth_pass MY_PASS
    }}
    virtual_ipaddress {{
        10.10.10.10
    }}
}}
virtual_server 10.10.10.10 80 {{
    delay_loop 10
    lb_algo wlc
    lb_kind DR
    persistence_timeout 5
    protocol TCP
    real_server 10.10.10.41 80 {{
        weight 50
        TCP_CHECK {{
            connect_timeout 3
        }}
    }}
    real_server 10.10.10.42 80 {{
        weight 50
        TCP_CHECK {{
            connect_timeout 3
        }}
    }}
}}
"""


@dataclass(frozen=True)
class Both:
    """What asks through the directors, and what asks past them at the same time."""

    through: Asking
    direct: Asking

    def steps(self, name: str) -> Steps:
        """How long nobody was answered, in milliseconds: in all, and longer than past them."""
        gap = self.through.replies.longest_gap() * 1000
        meanwhile = self.direct.replies.longest_gap() * 1000
        return {
            name: gap,
            f"{name} past them": meanwhile,
            f"{name} of theirs": max(0.0, gap - meanwhile),
        }


def job(kind: str, side: str) -> Job:
    """What is measured of one side."""
    return f"{kind}, {side}", LOAD


def measure(_rounds: int, samples: Samples, pace: Pace) -> None:
    """Make the cluster, and let each side fail over and reload in turn."""
    began = time.monotonic()
    names = (MASTER, *DIRECTORS, "rs1", "rs2", "client")
    with Lab({name: HOSTS[name] for name in names}) as lab, _cluster(lab) as cluster:
        print(f"a cluster in {time.monotonic() - began:.0f} s", flush=True)
        gaps = Gaps(cluster)
        for number in range(TURNS * len(gaps.sides)):
            side = list(gaps.sides)[number % len(gaps.sides)]
            gaps.become(side)
            for kind in KINDS * EACH:
                slow = pace.is_slow()
                steps = gaps.sides[side][kind]()
                samples.add(job(kind, side), steps, disturbed=pace.is_slow() or slow)
                shown = ", ".join(f"{step} {value:.0f}" for step, value in steps.items())
                print(f"  {side}, {kind}: {shown}", flush=True)
    print(f"{TURNS} turns in {time.monotonic() - began:.0f} s", flush=True)


@contextmanager
def _cluster(lab: Lab) -> Iterator[SaltCluster]:
    with closing(cluster_of(lab)) as cluster:
        pillar = cluster.master.read(PILLAR)
        cluster.master.write(PILLAR, pillar.replace(*QUICK))
        returned = cluster.highstate()
        failed = [
            state["comment"]
            for states in returned.values()
            for state in states.values()
            if state["result"] is False
        ]
        if failed:
            raise RuntimeError(f"the highstate failed: {failed}")
        yield cluster


class Gaps:
    """Makes the directors one side or the other, and measures."""

    def __init__(self, cluster: SaltCluster) -> None:
        self.cluster = cluster
        self.lab = cluster.lab
        self.client = Client(self.lab["client"])
        self.ours = {name: self.lab[name].read(CONFIG) for name in DIRECTORS}
        stop, kill = partial(self._fail, _stop), partial(self._fail, _kill)
        self.sides: Mapping[str, Mapping[str, Callable[[], Steps]]] = {
            "ours": {"stop": stop, "kill": kill, "reload": self._reload_ours},
            "plain": {"stop": stop, "kill": kill, "reload": self._reload_plain},
        }
        self._reloads = 0

    def become(self, side: str) -> None:
        """Have both directors be of a side, and lb1 hold the VIP."""
        for name, state, priority in (("lb1", "MASTER", 150), ("lb2", "BACKUP", 50)):
            host = self.lab[name]
            plain = PLAIN.format(name=name, state=state, priority=priority)
            _service(host, "salt-minion", "stop")
            _stop(host)
            host.run(["ipvsadm", "-C"], check=True)
            host.write(CONFIG, self.ours[name] if side == "ours" else plain, mode=0o600)
            if side == "ours":
                _service(host, "saltext-lvs-ipvs", "start")
                _service(host, "salt-minion", "start")
            _service(host, "keepalived", "start")
        if side == "ours":
            self.cluster.wait()
            self._apply()
        self._settled()

    def _settled(self) -> None:
        _wait_for(self.lab, "lb1")
        until(self._serves, "the VIP to be served", seconds=30, pause=0.5)
        time.sleep(1)

    def _serves(self) -> bool:
        return not self.client.get(VIP, sources=CLIENTS, requests=8).errors

    def _fail(self, harm: Callable[[Host], None]) -> Steps:
        """lb1's keepalived ends, and comes back: how long clients had no answer each time."""
        with self._asking(TIMEOUT_SECONDS) as away:
            time.sleep(1)
            harm(self.lab["lb1"])
            _wait_for(self.lab, "lb2")
            time.sleep(0.5)
        with self._asking(TIMEOUT_SECONDS) as back:
            services.start(self.lab["lb1"], "keepalived")
            _wait_for(self.lab, "lb1")
            time.sleep(0.5)
        return {**away.steps("gap"), **back.steps("back")}

    @contextmanager
    def _asking(self, timeout: float) -> Iterator[Both]:
        """The VIP, and a real server by its own address."""
        with (
            self._keep_asking(REAL_SERVER, timeout) as direct,
            self._keep_asking(VIP, timeout) as through,
        ):
            yield Both(through, direct)

    def _keep_asking(self, address: str, timeout: float) -> Asking:
        return self.client.keep_asking(
            address, sources=CLIENTS, per_second=PER_SECOND, timeout=timeout
        )

    def _reload_plain(self) -> Steps:
        host = self.lab["lb1"]
        text = host.read(CONFIG)
        return self._reload(lambda: self._replace_and_reload(host, text))

    def _replace_and_reload(self, host: Host, text: str) -> None:
        host.write(CONFIG, _other_priority(text), mode=0o600)
        host.run(["kill", "-HUP", host.read("/run/keepalived.pid").strip()], check=True)

    def _reload_ours(self) -> Steps:
        self.cluster.master.write(PILLAR, _other_priority(self.cluster.master.read(PILLAR)))
        return self._reload(self._apply)

    def _apply(self) -> None:
        states = self.cluster.salt("lb1", "state.apply", "lvs.director", timeout=300)["lb1"]
        failed = [state["comment"] for state in states.values() if state["result"] is False]
        if failed:
            raise RuntimeError(f"it did not apply: {failed}")

    def _reload(self, act: Callable[[], None]) -> Steps:
        with self._asking(RELOAD_TIMEOUT_SECONDS) as asking:
            time.sleep(1)
            act()
            time.sleep(2)
        return {**asking.steps("gap"), "failed": len(asking.through.replies.errors)}


def _other_priority(text: str) -> str:
    """150, or 140 where it is that already: more than the other's in either case."""
    old, new = ("150", "140") if "150" in text else ("140", "150")
    return text.replace(f"priority {old}", f"priority {new}").replace(
        f"priority: {old}", f"priority: {new}"
    )


def _service(host: Host, name: str, action: str) -> None:
    host.run(["service", name, action], check=True)


def _stop(director: Host) -> None:
    _service(director, "keepalived", "stop")
    services.wait_until_gone(director, "keepalived")


def _kill(director: Host) -> None:
    director.run(["kill", "-KILL", director.read("/run/keepalived.pid").strip()], check=True)
    services.wait_until_gone(director, "keepalived")


def _wait_for(lab: Lab, director: str) -> None:
    """Wait until this director alone has the VIP on its card."""
    show = ["ip", "-brief", "address", "show", "dev", "eth0"]

    def holders() -> list[str]:
        return [name for name in DIRECTORS if f"{VIP}/32" in lab[name].run(show).stdout]

    until(lambda: holders() == [director], f"{director} to hold the VIP", seconds=60, pause=0.2)


WORDS = {
    ("stop", "gap"): "keepalived stopped on the master: clients get no answer for",
    ("kill", "gap"): "keepalived killed on the master: clients get no answer for",
    ("stop", "back of theirs"): "it is back and takes the VIP: clients wait longer than past it by",
    ("kill", "back of theirs"): "the same after a kill: clients wait longer than past it by",
    ("reload", "gap of theirs"): "a reload: clients wait longer than past the director by",
}


def results(samples: Samples) -> list[Result]:
    """The gaps of ours, beside those of keepalived alone."""
    rows = [
        result(
            f"{words}, against keepalived alone",
            MILLISECONDS,
            Numbers(*(samples.median(*job(kind, side), step) for side in ("ours", "plain"))),
            no_longer(),
        )
        for (kind, step), words in WORDS.items()
    ]
    failed = sum(samples.all(*job("reload", "ours"), "failed"))
    return [
        *rows,
        result(
            "requests that failed during our reloads", "in all", Numbers(failed), at_most(0, "none")
        ),
    ]


def no_longer() -> Goal:
    """No longer than the peer's, within noise."""
    return Goal(
        f"at most {NOISE:g} times, or {NOISE_MS} ms more than, keepalived alone",
        lambda numbers: (
            numbers.peer is not None
            and numbers.ours <= max(NOISE * numbers.peer, numbers.peer + NOISE_MS)
        ),
    )
