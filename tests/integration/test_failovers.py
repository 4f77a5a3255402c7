"""Two directors that serve: their configuration is changed and refused, and then they fail over, by
one cause after the other; what clients see of it, and what the master hears.

The failovers are a sample of what ``make soak`` does. The tests run in the order in which they
stand here: each begins with a whole cluster and leaves one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.bench import lasting
from tests.bench.lasting import Held, Lasting
from tests.integration.highstate import Highstate
from tests.lab import Lab
from tests.lab.client import Client, Replies
from tests.lab.cluster import SaltCluster
from tests.lab.lab import VIP
from tests.lab.waiting import until
from tests.soak.failovers import DIRECTORS, PILLAR, Failovers, Round, cluster_of

SEED = 5
# Of the causes, by the seed: each takes some fifteen seconds.
SAMPLE = 5
CLIENTS = [f"10.10.10.{number}" for number in range(101, 105)]
CONFIG = "/etc/keepalived/keepalived.conf"
LASTING, NEW = 7, 8080
CONNECTIONS = 4
SERVERS = "  virtual_servers:\n"
# Beside "web", which clients ask: one for connections that last, kept by Salt too.
ECHO = f"""\
    echo:
      address: {VIP}
      port: {LASTING}
      real_servers: [rs1, rs2]
"""
LATE = f"""\
    late:
      address: {VIP}
      port: {NEW}
      managed_by: keepalived
      check: {{interval: 1}}
      real_servers: [rs1, rs2]
"""
# What a check needs before keepalived takes a real server for alive.
CHECKED_SECONDS = 30


@pytest.fixture(scope="module")
def cluster(lab: Lab) -> Iterator[SaltCluster]:
    """The cluster with the shipped reactors, and one more server to balance; nothing applied."""
    with closing(cluster_of(lab)) as cluster, ExitStack() as servers:
        edit(cluster, SERVERS, SERVERS + ECHO)
        for name in ("rs1", "rs2"):
            process = lasting.serve(lab[name], [LASTING, NEW])
            servers.callback(process.communicate)
            servers.callback(process.kill)
        yield cluster


@pytest.fixture(scope="module")
def failovers(cluster: SaltCluster) -> Failovers:
    """Two directors that fail over quickly, by the first highstate."""
    made = Failovers(cluster, SEED)
    made.prepare()
    return made


@pytest.fixture(scope="module")
def whole(failovers: Failovers) -> SaltCluster:
    """The cluster after its first highstate."""
    return failovers.cluster


@pytest.fixture(scope="module")
def done(failovers: Failovers) -> list[Round]:
    """What came of a sample of failovers, each by another cause."""
    with failovers.listening():
        return list(failovers.rounds(SAMPLE))


def holders(cluster: SaltCluster) -> list[str]:
    show = ["ip", "-brief", "address", "show", "dev", "eth0"]
    return [name for name in DIRECTORS if f"{VIP}/32" in cluster.lab[name].run(show).stdout]


def real_servers(cluster: SaltCluster, port: int) -> dict[str, list[str]]:
    """The real servers of a virtual server that the kernel of each director has."""
    found = {}
    for name in DIRECTORS:
        lines = cluster.lab[name].run(["ipvsadm", "-Sn"]).stdout.splitlines()
        words = [line.split() for line in lines if line.startswith(f"-a -t {VIP}:{port} ")]
        found[name] = sorted(line[4] for line in words)
    return found


def both(port: int) -> dict[str, list[str]]:
    """Both real servers on both directors."""
    return {name: [f"10.10.10.41:{port}", f"10.10.10.42:{port}"] for name in DIRECTORS}


def edit(cluster: SaltCluster, old: str, new: str) -> None:
    pillar = cluster.master.read(PILLAR)
    assert old in pillar
    cluster.master.write(PILLAR, pillar.replace(old, new))


@dataclass
class Seen:
    """What clients saw: their requests, and the connections that lasted."""

    replies: Replies = field(default_factory=lambda: Replies(()))
    held: Held = field(default_factory=lambda: Held(0, 0, 0.0))


@contextmanager
def clients(cluster: SaltCluster) -> Iterator[Seen]:
    """Clients that ask "web" all the time, and hold connections to "echo" open."""
    seen = Seen()
    client = cluster.lab["client"]
    lasting_ones = Lasting(client, VIP, [LASTING], CONNECTIONS)
    asking = Client(client).keep_asking(VIP, sources=CLIENTS, per_second=20, timeout=2)
    with lasting_ones, asking:
        yield seen
    seen.replies, seen.held = asking.replies, lasting_ones.held


def running(cluster: SaltCluster) -> dict[str, Any]:
    """What must not change for clients: keepalived's process, and the director with the VIP."""
    pids = {name: cluster.lab[name].read("/run/keepalived.pid") for name in DIRECTORS}
    return {"pids": pids, "holders": holders(cluster)}


def test_a_changed_priority_and_a_new_virtual_server_are_reloaded_and_clients_see_nothing(
    whole: SaltCluster,
) -> None:
    before = running(whole)
    with clients(whole) as seen:
        edit(whole, "priority: 150", "priority: 140")
        edit(whole, SERVERS, SERVERS + LATE)
        done = Highstate.run(whole)
        assert done.failed() == {}
        for name in DIRECTORS:
            assert "lvs-keepalived-config" in done.changing()[name]
            loaded = done.of(name, "lvs-keepalived-config")["changes"]["loaded"]
            assert loaded["new"] == "this configuration, by a reload"
        until(
            lambda: real_servers(whole, NEW) == both(NEW),
            "the new virtual server",
            seconds=CHECKED_SECONDS,
        )
    assert running(whole) == before
    assert seen.replies.errors == []
    assert (seen.held.connections, seen.held.lost) == (CONNECTIONS, 0)
    status = whole.salt("lb1", "keepalived.status")["lb1"]["vrrp_instances"]["VirtIP_10"]
    assert (status["state"], status["priority"]) == ("MASTER", 140)


def test_then_a_highstate_changes_nothing(whole: SaltCluster) -> None:
    again = Highstate.run(whole)
    assert (again.failed(), again.changing()) == ({}, {name: [] for name in DIRECTORS})


def test_a_configuration_that_keepalived_refuses_leaves_all_running(whole: SaltCluster) -> None:
    before = running(whole)
    files = {name: whole.lab[name].read(CONFIG) for name in DIRECTORS}
    right = whole.master.read(PILLAR)
    # Keywords of keepalived's that nothing but keepalived judges.
    whole.master.write(PILLAR, f"{right}    extra: {{no_such_keyword: 1}}\n")
    with clients(whole) as seen:
        done = Highstate.run(whole, "lb*")
    whole.master.write(PILLAR, right)
    for name in DIRECTORS:
        state = done.of(name, "lvs-keepalived-config")
        assert (state["result"], state["changes"]) == (False, {})
        assert "no_such_keyword" in state["comment"]
        assert "lvs:keepalived:extra" in state["comment"]
        assert whole.lab[name].read(CONFIG) == files[name]
    assert running(whole) == before
    assert real_servers(whole, NEW) == both(NEW)
    assert (seen.replies.errors, seen.held.lost) == ([], 0)


def test_every_transition_of_a_failover_is_told_once_and_in_order(done: list[Round]) -> None:
    assert len({found.cause for found in done}) == SAMPLE
    assert [(found.cause, found.problems) for found in done if found.problems] == []


def test_the_password_is_in_no_log_of_any_host(failovers: Failovers, done: list[Round]) -> None:
    assert failovers.secrets() == []
