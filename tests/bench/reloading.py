"""What a large configuration costs, and what its reload costs clients: nothing.

Two directors whose keepalived keeps 500 virtual servers with 5,000 real servers, all of them on one
host; a client that asks all the time, and connections that last.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from tests.bench import lasting
from tests.bench.adverts import Adverts
from tests.bench.big import DIRECTORS, WEIGHT, Kept
from tests.bench.lasting import Lasting
from tests.bench.realserver import within
from tests.bench.results import Goal, Numbers, Result, at_most, result
from tests.bench.suite import CHECKOUT, MILLISECONDS, Job, Pace, Samples, Steps, run
from tests.lab import Lab, services
from tests.lab.client import Client
from tests.lab.host import Host
from tests.lab.waiting import until
from tests.lab.web import PORT as WEB_PORT

SIZE = Kept(50, 10, 10)
LIBRARY: Job = ("library", SIZE)
SALT: Job = ("salt", SIZE)
RELOAD: Job = ("reload", SIZE)
RELOADS = 5
CONFIG_ROUNDS = 3
CLIENTS = [f"10.10.10.{number}" for number in range(101, 105)]
PER_SECOND = 20
# To each of the ports that are not the web server's.
CONNECTIONS = 3
MASTER = "lb1"
# A backup takes over after three advertisements of 1 s, and its skew.
ADVERT_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 3 * ADVERT_SECONDS


def measure(_rounds: int, samples: Samples, pace: Pace) -> None:
    """Render and check, then reload and reload."""
    run([LIBRARY, SALT], CONFIG_ROUNDS, samples, pace)
    began = time.monotonic()
    hosts = {
        **{name: [f"{address}/24"] for name, address in DIRECTORS.items()},
        "rs1": ["10.10.10.41/24", *(f"{address}/24" for address in SIZE.real())],
        "client": [f"10.10.10.{number}/24" for number in range(100, 105)],
    }
    with Lab(hosts) as lab, _serving(lab["rs1"]):
        _start(lab)
        print(f"{SIZE} in {time.monotonic() - began:.0f} s", flush=True)
        with Adverts(lab["client"]) as adverts:
            for number in range(RELOADS):
                slow = pace.is_slow()
                steps = _reload(lab, adverts, reweighted=number % 2 == 0)
                samples.add(RELOAD, steps, disturbed=pace.is_slow() or slow)
    print(f"{RELOADS} reloads in {time.monotonic() - began:.0f} s", flush=True)


@contextmanager
def _serving(host: Host) -> Iterator[None]:
    """The host that is all real servers: the VIPs, quiet, and a server on each port."""
    quiet = [f"net.ipv4.conf.all.{name}" for name in ("arp_ignore=1", "arp_announce=2")]
    host.run(["sysctl", "-qw", *quiet], check=True)
    host.run(["ip", "link", "add", "dummy0", "type", "dummy"], check=True)
    host.run(["ip", "link", "set", "dummy0", "up"], check=True)
    lines = "".join(f"address add {vip}/32 dev dummy0\n" for vip in SIZE.addresses())
    host.run(["ip", "-batch", "-"], check=True, input=lines)
    web = [sys.executable, str(CHECKOUT / "tests/lab/web.py")]
    ports = [port for port in SIZE.port_numbers() if port != WEB_PORT]
    with host.running(web):
        server = lasting.serve(host, ports)
        try:
            yield
        finally:
            server.kill()
            server.communicate()


def _start(lab: Lab) -> None:
    """keepalived on both directors, as our own function configures it, with all of them up."""
    for name in DIRECTORS:
        lab[name].run(["apt-get", "install", "-y", "keepalived", "ipvsadm"], check=True)
        _apply(lab[name], "plain")
        services.start(lab[name], "keepalived")
    for name in DIRECTORS:
        until(partial(_is_plain, lab[name]), f"{name}'s table", seconds=120)
    until(lambda: len(_held(lab[MASTER])) == SIZE.vips, "the VIPs", seconds=60)


def _is_plain(director: Host) -> bool:
    return _weights(director) == {WEIGHT}


def _apply(director: Host, which: str) -> Steps:
    """Give a director a configuration, by Salt's function; how long that took."""
    command = [
        *("env", f"PYTHONPATH={CHECKOUT}:{CHECKOUT / '_utils'}", sys.executable),
        *("-m", "tests.bench.configuring", which, *map(str, SIZE.numbers), director.name),
    ]
    steps: Steps = json.loads(director.run(command, check=True).stdout)
    return steps


def _reload(lab: Lab, adverts: Adverts, *, reweighted: bool) -> Steps:
    """Change 1 % of the weights, while clients ask and connections last."""
    director, client = lab[MASTER], lab["client"]
    vip = SIZE.addresses()[0]
    ports = [port for port in SIZE.port_numbers() if port != WEB_PORT]
    pid = director.read("/run/keepalived.pid")
    since = time.monotonic()
    with (
        Client(client).keep_asking(vip, sources=CLIENTS, per_second=PER_SECOND) as asking,
        Lasting(client, vip, ports, CONNECTIONS) as connections,
    ):
        time.sleep(1)
        steps = _apply(director, "reweighted" if reweighted else "plain")
        time.sleep(2)
    _expect(director.read("/run/keepalived.pid") == pid, "keepalived was restarted")
    _expect(len(_held(director)) == SIZE.vips, "the master has lost VIPs")
    _expect((len(_weights(director)) == 2) == reweighted, "the weights are not the new ones")
    return {
        **steps,
        "failed": len(asking.replies.errors),
        "gap": asking.replies.longest_gap() * 1000,
        "lost": connections.held.lost,
        "other masters": len(set(adverts.sources(since)) - {director.address}),
        "pause": adverts.longest_pause(since) * 1000,
    }


def _expect(fact: bool, otherwise: str) -> None:
    if not fact:
        raise RuntimeError(otherwise)


def _held(director: Host) -> set[str]:
    shown = director.run(["ip", "-brief", "address", "show", "dev", "eth0"], check=True).stdout
    return {word.partition("/")[0] for word in shown.split()} & set(SIZE.addresses())


def _weights(director: Host) -> set[int]:
    """The weights in the kernel, or nothing as long as it has not all of the real servers."""
    lines = director.run(["ipvsadm", "-Sn"]).stdout.splitlines()
    own = [line.split() for line in lines if line.startswith("-a -t")]
    return {int(words[-1]) for words in own} if len(own) == SIZE.real_servers else set()


def results(samples: Samples) -> list[Result]:
    """What it costs."""
    at = samples.median
    two_seconds = within(2000)
    rows = [
        _row(
            f"render and check {SIZE}, by the library",
            at(*LIBRARY, "render", "check"),
            two_seconds,
        ),
        _row(f"keepalived.plan_config of {SIZE}", at(*SALT, "plan"), two_seconds),
        _row("keepalived.apply_config that reloads them, all of it", at(*RELOAD, "apply")),
    ]
    counts = {
        "failed": f"requests that failed during {RELOADS} reloads",
        "lost": f"connections that were lost by {RELOADS} reloads",
        "other masters": f"directors that became master by {RELOADS} reloads",
    }
    rows += [
        result(name, "in all", Numbers(sum(samples.all(*RELOAD, step))), at_most(0, "none"))
        for step, name in counts.items()
    ]
    pauses: Sequence[tuple[str, str, float]] = (
        ("pause", "longest pause of the master's advertisements", LONGEST_PAUSE_SECONDS * 1000),
        ("gap", "longest time without an answer during a reload", 1000),
    )
    rows += [
        _row(name, max(samples.all(*RELOAD, step)), within(limit)) for step, name, limit in pauses
    ]
    return rows


def _row(name: str, milliseconds: float, *goals: Goal) -> Result:
    return result(name, MILLISECONDS, Numbers(milliseconds), *goals)
