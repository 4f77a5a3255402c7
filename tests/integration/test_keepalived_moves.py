"""One virtual server between Salt and keepalived and back, each by one highstate, while clients ask
and hold connections; and its weights while keepalived keeps it.

The tests run in the order in which they stand here.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.highstate import Highstate
from tests.lab import Lab, services
from tests.lab.client import Client
from tests.lab.cluster import SaltCluster
from tests.lab.lab import HOSTS, VIP
from tests.lab.waiting import until

pytestmark = pytest.mark.timeout(600)

MINIONS = ("lb1", "rs1", "rs2")
PILLAR = "/srv/pillar/production/lvs.sls"
OURS = "      forward: direct\n"
# Fast checks, and an election that does not take ten seconds.
BY_SALT = f"{OURS}      check: {{types: [tcp], interval: 1, connect_timeout: 1}}\n"
BY_KEEPALIVED = f"{BY_SALT}      managed_by: keepalived\n"
CLIENTS = [f"10.10.10.{number}" for number in range(101, 117)]
HELD = 8
KEY = f"tcp {VIP}:80"
AWAY_MS = 100.0


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab({name: HOSTS[name] for name in ("master", *MINIONS, "client")}) as lab:
        yield lab


@pytest.fixture(scope="module")
def cluster(lab: Lab) -> Iterator[SaltCluster]:
    """A cluster after its first highstate, with the VIP on its only director."""
    with SaltCluster(lab, MINIONS) as cluster:
        text = cluster.master.read(PILLAR)
        text = re.sub("    lb2: .*\n", "", text).replace("advert_int: 3", "advert_int: 1")
        cluster.master.write(PILLAR, text.replace(OURS, BY_SALT))
        cluster.highstate()
        until(lambda: f" {VIP}/" in lab["lb1"].run(["ip", "-o", "address"]).stdout, "the VIP")
        yield cluster


def applied(cluster: SaltCluster, old: str, new: str) -> Highstate:
    """The director's highstate after a change of the pillar."""
    text = cluster.master.read(PILLAR)
    assert text.count(old) == 1
    cluster.master.write(PILLAR, text.replace(old, new))
    return highstate(cluster)


def highstate(cluster: SaltCluster) -> Highstate:
    return Highstate.run(cluster, "lb1")


def table(cluster: SaltCluster) -> dict[str, int]:
    """The weights of the real servers in the kernel."""
    listed = cluster.salt("lb1", "ipvs.get", "web")["lb1"].get("real_servers", {})
    return {name: real["weight"] for name, real in listed.items()}


def held_connection(lab: Lab, source: str) -> socket.socket:
    """A connection with half a request sent."""

    def opened() -> socket.socket:
        return socket.create_connection((VIP, 80), timeout=10, source_address=(source, 0))

    link: socket.socket = lab["client"].in_network(opened)
    link.sendall(b"GET / HTTP/1.1\r\n")
    return link


def answered(link: socket.socket) -> bool:
    """Whether the other half still gets an answer."""
    try:
        link.sendall(b"Host: web\r\n\r\n")
        return link.recv(100).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False
    finally:
        link.close()


BOTH = {"10.10.10.41:80": 50, "10.10.10.42:80": 50}


def test_a_virtual_server_changes_hands_and_back_and_no_client_notices(
    lab: Lab, cluster: SaltCluster
) -> None:
    links = [held_connection(lab, source) for source in CLIENTS[:HELD]]
    asking = Client(lab["client"]).keep_asking(VIP, sources=CLIENTS, per_second=50, timeout=2.0)
    with asking:
        time.sleep(1)
        given = applied(cluster, BY_SALT, BY_KEEPALIVED)
        assert given.failed() == {}
        assert table(cluster) == BOTH
        assert highstate(cluster).changing() == {"lb1": []}

        taken = applied(cluster, BY_KEEPALIVED, BY_SALT)
        assert taken.failed() == {}
        assert table(cluster) == BOTH
        assert highstate(cluster).changing() == {"lb1": []}
    assert len(asking.replies.all) > 100
    assert [answered(link) for link in links] == [True] * HELD
    assert "virtual_server" not in lab["lb1"].read("/etc/keepalived/keepalived.conf")
    away = re.search(
        rf"{KEY} is kept by Salt now; it was away for (\d+) ms",
        taken.of("lb1", "lvs-keepalived-config")["comment"],
    )
    assert away is not None
    print(f"away for {away[1]} ms; longest gap {asking.replies.longest_gap() * 1000:.0f} ms")
    assert float(away[1]) < AWAY_MS
    # Who asks in those milliseconds is refused: fifty ask in a second.
    assert len(asking.replies.errors) <= 1 + float(away[1]) * 50 / 1000


def test_it_changes_hands_together_with_its_settings(cluster: SaltCluster) -> None:
    text = cluster.master.read(PILLAR).replace("scheduler: wlc", "scheduler: rr")
    cluster.master.write(PILLAR, text)
    assert applied(cluster, BY_SALT, BY_KEEPALIVED).failed() == {}
    assert cluster.salt("lb1", "ipvs.get", "web")["lb1"]["scheduler"] == "rr"
    assert highstate(cluster).changing() == {"lb1": []}


def in_kernel(cluster: SaltCluster, weights: dict[str, int]) -> None:
    until(lambda: table(cluster) == weights, f"{weights} in the kernel", seconds=20)


DRAINED = {**BOTH, "10.10.10.41:80": 0}


def test_a_drain_survives_highstate_reload_restart_and_reboot(
    lab: Lab, cluster: SaltCluster
) -> None:
    said: dict[str, Any] = cluster.salt("lb1", "keepalived.set_weight", "web", "rs1", "0")["lb1"]
    assert (said["old"]["effective"], said["new"]["effective"]) == (50, 0)
    in_kernel(cluster, DRAINED)
    assert highstate(cluster).changing() == {"lb1": []}
    assert table(cluster) == DRAINED
    assert cluster.salt("lb1", "keepalived.reload")["lb1"] is True
    in_kernel(cluster, DRAINED)
    services.restart(lab["lb1"], "keepalived")
    in_kernel(cluster, DRAINED)
    # A real server that fails and comes back is drained still.
    lab["rs1"].run(["service", "lab-web", "stop"], check=True)
    # Until its check has failed, of which nothing shows.
    time.sleep(3)
    lab["rs1"].run(["service", "lab-web", "start"], check=True)
    in_kernel(cluster, DRAINED)
    lab["lb1"].reboot()
    cluster.wait()
    in_kernel(cluster, DRAINED)
    assert cluster.salt("lb1", "keepalived.weights", "web")["lb1"]["web"]["rs1"]["effective"] == 0


def test_another_weight_and_enabled_come_on_top_and_a_reset_ends_it(
    cluster: SaltCluster,
) -> None:
    said: dict[str, Any] = cluster.salt("lb1", "keepalived.set_weight", "web", "rs1", "10")["lb1"]
    assert (said["old"]["effective"], said["new"]["effective"]) == (0, 10)
    in_kernel(cluster, {**BOTH, "10.10.10.41:80": 10})
    enabled, disabled = "{address: 10.10.10.41}", "{address: 10.10.10.41, enabled: False}"
    assert applied(cluster, enabled, disabled).failed() == {}
    in_kernel(cluster, DRAINED)
    assert applied(cluster, disabled, enabled).failed() == {}
    in_kernel(cluster, {**BOTH, "10.10.10.41:80": 10})
    assert cluster.salt("lb1", "keepalived.reset_weight", "web", "rs1")["lb1"]
    in_kernel(cluster, BOTH)


def test_a_raw_change_is_refused_and_names_the_way(cluster: SaltCluster) -> None:
    answer = cluster.salt("lb1", "ipvs.set_weight", "web", "rs1", "0")["lb1"]
    assert "keepalived keeps tcp 10.10.10.10:80" in answer
    assert "keepalived.set_weight" in answer
    assert table(cluster) == BOTH
