"""The example's other environment: one director, other addresses, by the same formula."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.highstate import Highstate
from tests.lab import Lab
from tests.lab.client import Client
from tests.lab.cluster import SaltCluster
from tests.lab.waiting import until

VIP = "10.10.20.10"
REAL_SERVERS = ("staging-rs1", "staging-rs2")
MINIONS = ("staging-lb1", *REAL_SERVERS)
ADDRESSES = {
    "master": ["10.10.20.5/24"],
    "staging-lb1": ["10.10.20.11/24"],
    "staging-rs1": ["10.10.20.41/24"],
    "staging-rs2": ["10.10.20.42/24"],
    "client": [f"10.10.20.{number}/24" for number in range(100, 109)],
}
CLIENTS = [f"10.10.20.{number}" for number in range(101, 109)]
TABLE = """\
-A -t 10.10.20.10:80 -s wlc -p 5
-a -t 10.10.20.10:80 -r 10.10.20.41:80 -g -w 10
-a -t 10.10.20.10:80 -r 10.10.20.42:80 -g -w 30
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(ADDRESSES) as lab:
        yield lab


@pytest.fixture(scope="module")
def cluster(lab: Lab) -> Iterator[SaltCluster]:
    with SaltCluster(lab, minions=MINIONS, web_servers=REAL_SERVERS) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def first(cluster: SaltCluster) -> Highstate:
    """The first highstate; the minions have restarted themselves after it, and answer."""
    return Highstate(cluster.highstate())


@pytest.fixture
def applied(first: Highstate, cluster: SaltCluster) -> SaltCluster:
    """The cluster as the first highstate made it."""
    until(lambda: director_holds_vip(cluster), "the director to hold the VIP")
    return cluster


def director_holds_vip(cluster: SaltCluster) -> bool:
    addresses = ["ip", "-brief", "address", "show", "dev", "eth0"]
    return f"{VIP}/32" in cluster.lab["staging-lb1"].run(addresses).stdout


def test_the_first_highstate_makes_each_machine_what_staging_says(first: Highstate) -> None:
    assert first.failed() == {}
    assert {name: "lvs-ipvs-table" in ids for name, ids in first.changing().items()} == {
        "staging-lb1": True,
        "staging-rs1": False,
        "staging-rs2": False,
    }


def test_the_kernel_of_the_director_holds_stagings_table(applied: SaltCluster) -> None:
    assert applied.lab["staging-lb1"].run(["ipvsadm", "-Sn"]).stdout == TABLE


def test_clients_reach_both_real_servers_by_the_vip(applied: SaltCluster) -> None:
    replies = Client(applied.lab["client"]).get(VIP, sources=CLIENTS, requests=32)
    assert replies.errors == []
    assert {reply.destination for reply in replies.all} == {VIP}
    assert set(replies.by_server()) == set(REAL_SERVERS)


def test_the_second_highstate_changes_nothing(applied: SaltCluster) -> None:
    second = Highstate.run(applied)
    assert (second.failed(), second.changing()) == ({}, {name: [] for name in MINIONS})
