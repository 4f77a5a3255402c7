"""Two directors that do not hear each other: the master finds out, and tells it and its end once,
also where it was away when that began, or ended.

A cluster of the master and its two directors, highstated from the example pillar.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from saltext.lvs import rounds

from tests.lab import HOSTS, VIP, Lab, services, until
from tests.lab.bus import Bus, fire
from tests.lab.cluster import SaltCluster

CHECKOUT = Path(__file__).resolve().parents[2]
DIRECTORS = ("lb1", "lb2")
PILLAR = "/srv/pillar/production/lvs.sls"
CONFIG = "/etc/keepalived/keepalived.conf"
CHANGE = "salt/beacon/lb1/keepalived_vrrp/change"
STATE = "salt/beacon/lb2/keepalived_vrrp/state"
STATUS = "keepalived.status"
TRANSITION = {"vrrp_instance": "VirtIP_10", "was": "BACKUP", "now": "MASTER"}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab({name: HOSTS[name] for name in ("master", *DIRECTORS)}) as lab:
        snippet = (CHECKOUT / "lvs/files/master.conf").read_text(encoding="utf-8")
        lab["master"].write("/etc/salt/master.d/saltext-lvs.conf", snippet)
        yield lab


@pytest.fixture(scope="module")
def cluster(lab: Lab) -> Iterator[SaltCluster]:
    with SaltCluster(lab, minions=DIRECTORS, web_servers=()) as cluster:
        pillar = cluster.master.read(PILLAR)
        cluster.master.write(PILLAR, pillar.replace("advert_int: 3", "advert_int: 1"))
        returned = cluster.highstate()
        failed = [
            state["comment"]
            for states in returned.values()
            for state in states.values()
            if state["result"] is False
        ]
        assert failed == []
        until(lambda: holders(cluster) == ["lb1"], "lb1 alone to hold the VIP", seconds=60)
        # The first look of each director is over, and what follows from it.
        time.sleep(10)
        yield cluster


def holders(cluster: SaltCluster) -> list[str]:
    show = ["ip", "-brief", "address", "show", "dev", "eth0"]
    return [name for name in DIRECTORS if f"{VIP}/32" in cluster.lab[name].run(show).stdout]


def told(bus: Bus) -> list[tuple[str, list[str]]]:
    """What was told of the VIP, and who held it."""
    return [
        (event.tag, event.data["holders"])
        for event in list(bus.events)
        if event.tag.startswith("lvs/vips/")
    ]


def reconfigure(cluster: SaltCluster, name: str, old: str, new: str) -> None:
    """Change a director's configuration behind Salt's back, and have keepalived load it."""
    host = cluster.lab[name]
    host.write(CONFIG, host.read(CONFIG).replace(old, new), mode=0o600)
    host.run(["kill", "-HUP", host.read("/run/keepalived.pid").strip()], check=True)


def test_mastership_tells_what_the_directors_say(cluster: SaltCluster) -> None:
    assert cluster.salt_run("lvs.mastership", "lb2") == {
        "cluster": "prod",
        "vips": {
            VIP: {
                "vrrp_instance": "VirtIP_10",
                "verdict": "held",
                "holders": ["lb1"],
                "silent": [],
                "sides": ["lb1: MASTER (priority 150)", "lb2: BACKUP (priority 50)"],
            }
        },
        "problems": [],
    }


def test_a_fail_over_is_no_split_brain_and_two_passwords_are(cluster: SaltCluster) -> None:
    lb1 = cluster.lab["lb1"]
    with Bus(cluster.master) as bus:
        lb1.run(["service", "keepalived", "stop"], check=True)
        until(lambda: holders(cluster) == ["lb2"], "lb2 alone to hold the VIP", seconds=30)
        services.wait_until_gone(lb1, "keepalived")
        services.start(lb1, "keepalived")
        until(lambda: holders(cluster) == ["lb1"], "lb1 alone to hold the VIP", seconds=30)
        time.sleep(15)
        assert told(bus) == []

        reconfigure(cluster, "lb2", "MY_PASS", "NO_PASS")
        until(lambda: told(bus), "the split brain to be told", seconds=40)
        assert told(bus) == [("lvs/vips/prod/split_brain", ["lb1", "lb2"])]
        assert holders(cluster) == ["lb1", "lb2"]

        reconfigure(cluster, "lb2", "NO_PASS", "MY_PASS")
        until(lambda: len(told(bus)) > 1, "its end to be told", seconds=40)
        assert told(bus)[1:] == [("lvs/vips/prod/held", ["lb1"])]
        events = str([event.data for event in bus.events])
    assert "MY_PASS" not in events
    assert "NO_PASS" not in events
    log = cluster.master.read("/var/log/salt/master")
    assert "10.10.10.10 (VirtIP_10) is held by lb1 and lb2 at once" in log
    assert "MY_PASS" not in log


@contextlib.contextmanager
def without_master(cluster: SaltCluster) -> Iterator[None]:
    """No master meanwhile; and what minions were about to tell is lost."""
    cluster.close()
    cluster.master.run(["service", "salt-master", "stop"], check=True)
    yield
    # Their watchers have told by now, in vain: they do not tell it again.
    time.sleep(5)
    for name in DIRECTORS:
        cluster.lab[name].run(["service", "salt-minion", "restart"], check=True)
    cluster.master.run(["service", "salt-master", "start"], check=True)
    until(cluster.master_listens, "the master to listen", seconds=60)


def test_what_begins_and_ends_while_the_master_is_away_is_told_when_it_is_back(
    cluster: SaltCluster,
) -> None:
    with without_master(cluster):
        reconfigure(cluster, "lb2", "MY_PASS", "NO_PASS")
        until(lambda: holders(cluster) == ["lb1", "lb2"], "the split brain", seconds=30)
    with Bus(cluster.master) as bus:
        until(lambda: told(bus), "the split brain to be told", seconds=120)
        assert told(bus) == [("lvs/vips/prod/split_brain", ["lb1", "lb2"])]
    with without_master(cluster):
        reconfigure(cluster, "lb2", "NO_PASS", "MY_PASS")
        until(lambda: holders(cluster) == ["lb1"], "its end", seconds=30)
    with Bus(cluster.master) as bus:
        until(lambda: told(bus), "its end to be told", seconds=120)
        assert told(bus) == [("lvs/vips/prod/held", ["lb1"])]
    cluster.wait()


def quiet(bus: Bus) -> bool:
    """Whether no look was caused for longer than one waits for its turn."""
    began = time.monotonic()
    time.sleep(2 * rounds.SECONDS_BETWEEN)
    jobs = [event for event in list(bus.events) if event.tag.endswith("/new")]
    return all(job.at < began for job in jobs if job.data.get("fun") == STATUS)


def test_what_directors_tell_again_and_again_costs_no_look(cluster: SaltCluster) -> None:
    with Bus(cluster.master) as bus:
        until(lambda: quiet(bus), "the last look", seconds=90)
        begun = len(bus.events)
        time.sleep(65)
        tags = [event.tag for event in bus.events[begun:]]
    for name in DIRECTORS:
        assert tags.count(f"salt/beacon/{name}/keepalived_vrrp/state") >= 2
    assert not any(tag.startswith("salt/run/") for tag in tags)
    assert bus.jobs(STATUS) == []


def test_forged_events_raise_no_alarm_and_cost_few_looks(cluster: SaltCluster) -> None:
    forged: list[tuple[str, Any]] = [
        (CHANGE, {"id": "lb1", "changes": [{**TRANSITION, "vips_held": [VIP]}] * 50})
    ] * 20
    forged += [(STATE, {"id": "lb2", "vrrp_instances": [{"vips_held": [VIP]}]})] * 20
    forged += [
        (CHANGE.replace("lb1", name), {"id": name, "changes": [TRANSITION]})
        for name in ("*", "lb?", "rs1", "../../etc/passwd", "lb1,lb2", "no-such")
    ]
    with Bus(cluster.master) as bus:
        until(lambda: quiet(bus), "the last look", seconds=90)
        before = len(bus.jobs(STATUS))
        fire(cluster.lab["lb2"], forged)
        until(lambda: came(bus, CHANGE.replace("lb1", "no-such")), "the last one", seconds=60)
        until(lambda: len(bus.jobs(STATUS)) > before, "the first look", seconds=60)
        until(lambda: quiet(bus), "the last look", seconds=90)
        asked = bus.jobs(STATUS)[before:]
        assert told(bus) == []
        first, last = came(bus, CHANGE)[0], came(bus, CHANGE.replace("lb1", "no-such"))[0]
    # One at once, one more in five seconds while they come, and one that covers the last.
    assert 1 <= len(asked) <= 2 + (last - first) / rounds.SECONDS_BETWEEN
    assert {tuple(sorted(job["tgt"])) for job in asked} == {DIRECTORS}


def came(bus: Bus, tag: str) -> list[float]:
    """When events of this kind came."""
    return [event.at for event in list(bus.events) if event.tag == tag]
