"""Machines lose their power and boot: the cluster comes back to full service by itself, and mail
tells what happened in one thread, or not at all.

A boot is a new kernel's empty network and the daemons that are enabled, on the disk as it was.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from tests.integration import alerting
from tests.integration.alerting import subject
from tests.integration.highstate import Highstate
from tests.lab import Lab, services
from tests.lab import lab as labs
from tests.lab.client import Client
from tests.lab.cluster import MINIONS, SaltCluster
from tests.lab.host import Host
from tests.lab.lab import HOSTS, VIP
from tests.lab.waiting import until

pytestmark = pytest.mark.timeout(900)

CLIENTS = [f"10.10.10.{number}" for number in range(101, 117)]
SERVED_WITHIN_SECONDS = 60.0
PEACE_WITHIN_SECONDS = 180.0
SERVERS = "  virtual_servers:\n"
# What a machine with systemd has for its network.
NETWORKD = """\
install -d -o systemd-network /run/systemd/netif && exec /lib/systemd/systemd-networkd"""
# How long the power is away.
DARK_SECONDS = 10.0
FULL = {"10.10.10.41:80": 50, "10.10.10.42:80": 50}


@dataclass(frozen=True)
class Story:
    """Who loses the power, who boots only when clients are served again, and whether anybody is
    sure to be told of so short a time.
    """

    hosts: Sequence[str]
    later: Sequence[str] = ()
    told: bool = True


STORIES = {
    "a real server": Story(["rs1"]),
    "the director in reserve": Story(["lb2"], told=False),
    "the director that serves": Story(["lb1"]),
    "the master": Story(["master"], told=False),
    "all at once": Story(["master", *MINIONS], told=False),
    "all at once, the master last": Story(MINIONS, later=["master"], told=False),
}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with alerting.lab_of(*HOSTS) as lab:
        yield lab


@pytest.fixture(scope="module")
def cluster(lab: Lab) -> Iterator[SaltCluster]:
    with alerting.cluster_in(lab) as cluster:
        keep_vips_by_networkd(cluster)
        yield cluster


def keep_vips_by_networkd(cluster: SaltCluster) -> None:
    """Have systemd-networkd run on real servers, and bring their VIPs back at a boot."""
    text = cluster.master.read(alerting.PILLAR)
    assert SERVERS in text
    text = text.replace(SERVERS, f"  vip_persistence: systemd-networkd\n{SERVERS}", 1)
    cluster.master.write(alerting.PILLAR, text)
    for name in ("rs1", "rs2"):
        services.install(cluster.lab[name], "lab-network", ["/bin/sh", "-c", NETWORKD])
    assert Highstate.run(cluster, "rs*").failed() == {}


def weights(host: Host) -> dict[str, int]:
    """The kernel's weights, by real server."""
    found = {}
    for line in host.run(["ipvsadm", "-Sn"]).stdout.splitlines():
        if line.startswith("-a"):
            words = line.split()
            found[words[words.index("-r") + 1]] = int(words[words.index("-w") + 1])
    return found


def served(client: Client) -> bool:
    """Whether every request is answered."""
    return client.get(VIP, sources=CLIENTS, requests=32).errors == []


def expect_full_service(client: Client) -> None:
    """Every request is answered, and both real servers have their part."""
    replies = client.get(VIP, sources=CLIENTS, requests=32)
    assert replies.errors == []
    assert set(replies.by_server()) == {"rs1", "rs2"}


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES.keys())
def test_what_lost_its_power_comes_back_to_full_service_by_itself(
    story: Story, cluster: SaltCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    alerting.begin_anew(cluster)
    lab, client = cluster.lab, Client(cluster.lab["client"])
    expect_full_service(client)
    for name in (*story.hosts, *story.later):
        lab[name].power_cut()
    time.sleep(DARK_SECONDS)
    began = time.monotonic()
    labs.boot(*(lab[name] for name in story.hosts))
    until(lambda: served(client), "clients to be served", seconds=SERVED_WITHIN_SECONDS, pause=0.5)
    after = time.monotonic() - began
    if story.later:
        labs.boot(*(lab[name] for name in story.later))
    alerting.wait_for_the_master(cluster)

    for name in ("lb1", "lb2"):
        until(
            lambda: weights(lab[name]) == FULL,  # noqa: B023
            f"full weights on {name}",
            seconds=PEACE_WITHIN_SECONDS,
        )
    held = [name for name in ("lb1", "lb2") if f" {VIP}/" in addresses(lab[name])]
    assert held == ["lb1"]
    alerting.wait_for_peace(cluster, PEACE_WITHIN_SECONDS)
    until(
        lambda: cluster.salt_run("lvs.outbox")["waiting"] == [],
        "all mail to be sent",
        seconds=PEACE_WITHIN_SECONDS,
        pause=1,
    )
    found = alerting.threads(cluster.mails())
    with capsys.disabled():
        lines = [f"\n      {subject(mail)}" for thread in found for mail in thread]
        print(f" [served {after:.1f} s after the boot began]{''.join(lines)}", end="", flush=True)
    assert len(found) <= 1
    assert found or not story.told
    for thread in found:
        # It says what began, and that it is over.
        assert 1 <= len(thread) <= 3
    assert Highstate.run(cluster, "*", test=True).changing() == {name: [] for name in MINIONS}
    expect_full_service(client)


def addresses(host: Host) -> str:
    return host.run(["ip", "-o", "address"]).stdout
