"""What becomes of a real server that fails: the director takes it out and lets it in again by
itself, whatever else happens meanwhile. Real master, minions, reactors and keepalived.

The tests run in the order in which they stand here.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from tests.integration.highstate import Highstate
from tests.lab import Lab
from tests.lab.bus import Bus
from tests.lab.client import Client
from tests.lab.cluster import CHECKOUT, SaltCluster
from tests.lab.host import Host
from tests.lab.lab import HOSTS, VIP
from tests.lab.waiting import until

# The first test waits for the cluster, which a busy machine makes slowly.
pytestmark = pytest.mark.timeout(600)

MINIONS = ("lb1", "rs1", "rs2")
PILLAR = "/srv/pillar/production/lvs.sls"
FORWARD = "      forward: direct\n"
# Without a hold: who fails as often as here would have to wait for minutes.
CHECKED = f"{FORWARD}      check: {{interval: 1, connect_timeout: 2, hold: {{flaps: 0}}}}\n"
CLIENTS = [f"10.10.10.{number}" for number in range(101, 117)]
TAG = "salt/beacon/lb1/real_server/change"
TABLE = "lvs-ipvs-table"
BOTH = {"rs1": 50, "rs2": 50}
RS1_OUT = {"rs1": 0, "rs2": 50}
RS2_OUT = {"rs1": 50, "rs2": 0}
# A machine that has much else to do.
WITHIN_SECONDS = 90.0
# Two turns of the checks and more: what they would change they have changed by then.
TURNS_SECONDS = 3.0


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """One director is enough here."""
    with Lab({name: HOSTS[name] for name in ("master", *MINIONS, "client")}) as lab:
        yield lab


@pytest.fixture(scope="module")
def cluster(lab: Lab) -> Iterator[SaltCluster]:
    """A cluster after its first highstate, with quick checks, and the VIP on its only director;
    its master answers what the shipped configuration has it answer.
    """
    shipped = (CHECKOUT / "lvs" / "files" / "master.conf").read_text(encoding="utf-8")
    lab["master"].write("/etc/salt/master.d/saltext-lvs.conf", shipped)
    with SaltCluster(lab, MINIONS) as cluster:
        text = cluster.master.read(PILLAR)
        text = re.sub("    lb2: .*\n", "", text).replace("advert_int: 3", "advert_int: 1")
        cluster.master.write(PILLAR, text.replace(FORWARD, CHECKED))
        failed = Highstate(cluster.highstate()).failed()
        assert failed == {}
        until(lambda: f" {VIP}/" in lab["lb1"].run(["ip", "-o", "address"]).stdout, "the VIP")
        yield cluster


@pytest.fixture
def whole(cluster: SaltCluster) -> SaltCluster:
    """The cluster, with both real servers at work, and seen so by their director."""
    returns(cluster, "rs1", "rs2")
    until(lambda: states(cluster) == {"rs1": "up", "rs2": "up"}, "both up", seconds=WITHIN_SECONDS)
    in_kernel(cluster, BOTH)
    return cluster


def weights(director: Host) -> dict[str, int]:
    """The weights in the kernel, as ``ipvsadm`` saves them; no Salt is asked."""
    saved = director.run(["ipvsadm", "-Sn"], check=True).stdout
    found = re.findall(rf"^-a -t {VIP}:80 -r 10\.10\.10\.4(\d):80 .*-w (\d+)", saved, re.MULTILINE)
    return {f"rs{number}": int(weight) for number, weight in found}


def in_kernel(cluster: SaltCluster, wanted: Mapping[str, int]) -> None:
    director = cluster.lab["lb1"]
    until(
        lambda: weights(director) == wanted,
        f"{wanted} in the kernel",
        seconds=WITHIN_SECONDS,
        pause=0.05,
    )


def stays(cluster: SaltCluster, wanted: Mapping[str, int]) -> None:
    """Nothing else is in the kernel for some turns of the checks."""
    end = time.monotonic() + TURNS_SECONDS
    while time.monotonic() < end:
        assert weights(cluster.lab["lb1"]) == wanted
        time.sleep(0.05)


def states(cluster: SaltCluster) -> dict[str, str]:
    told = cluster.salt("lb1", "lvs.health", "web")["lb1"]
    real_servers = told["virtual_servers"]["web"]["real_servers"]
    return {name: one["state"] for name, one in real_servers.items()}


def service(host: Host, name: str, action: str) -> None:
    host.run(["service", name, action], check=True)


def dies(cluster: SaltCluster, *names: str) -> None:
    for name in names:
        service(cluster.lab[name], "lab-web", "stop")


def returns(cluster: SaltCluster, *names: str) -> None:
    for name in names:
        service(cluster.lab[name], "lab-web", "start")


def changes(bus: Bus) -> list[dict[str, Any]]:
    """What lb1 has told, each with ``acted``."""
    events = [event.data for event in bus.events if event.tag == TAG]
    return [{**change, "acted": e["acted"]} for e in events for change in e["changes"]]


def leaves_it(bus: Bus) -> bool:
    """Whether lb1 has told that it sets no weights itself."""
    states = (event.data for event in bus.events if event.tag == TAG.replace("change", "state"))
    return any(state["acts"] is False for state in states)


def told(bus: Bus, what: str, fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The first change that fits; waited for."""
    return until(
        lambda: next(filter(fits, changes(bus)), None),
        f"the master to be told {what}",
        seconds=WITHIN_SECONDS,
    )


def moved(name: str, now: str) -> Callable[[dict[str, Any]], bool]:
    return lambda change: (
        change.get("real_server") == name and change["was"] != change["now"] == now
    )


def expect_served(cluster: SaltCluster, by: set[str]) -> None:
    """Every client gets an answer, and from nobody else."""
    replies = Client(cluster.lab["client"]).get(VIP, sources=CLIENTS, requests=64, timeout=10)
    assert replies.errors == []
    assert set(replies.by_server()) <= by


def highstate(cluster: SaltCluster) -> Highstate:
    done = Highstate.run(cluster, "lb1")
    assert done.failed() == {}
    return done


@contextmanager
def restarted_later(cluster: SaltCluster, name: str, service_name: str) -> Iterator[None]:
    """A service is stopped for the time of the block, which is to start it where that matters."""
    if service_name == "salt-master":
        cluster.close()
    service(cluster.lab[name], service_name, "stop")
    try:
        yield
    finally:
        service(cluster.lab[name], service_name, "start")
        cluster.wait()


# --------------------------------------------------------------------------------------------------


def test_a_dead_one_is_taken_out_and_the_master_told_what_was_done(whole: SaltCluster) -> None:
    with Bus(whole.master) as bus:
        dies(whole, "rs1")
        in_kernel(whole, RS1_OUT)
        change = told(bus, "that rs1 is down", moved("rs1", "down"))
    expected = {
        "virtual_server": "web",
        "real_server": "rs1",
        "was": "up",
        "now": "down",
        "weight_was": 50,
        "weight_now": 0,
        "acted": True,
    }
    assert {key: change[key] for key in expected} == expected
    assert "10.10.10." in change["reason"]


def test_clients_stay_unharmed_while_it_is_out(cluster: SaltCluster) -> None:
    asking = Client(cluster.lab["client"]).keep_asking(
        VIP, sources=CLIENTS, per_second=30, timeout=10
    )
    with asking:
        time.sleep(TURNS_SECONDS)
    assert len(asking.replies.all) > 10
    assert asking.replies.errors == []
    assert set(asking.replies.by_server()) == {"rs2"}


def test_a_highstate_in_the_middle_leaves_it_out_and_says_so(cluster: SaltCluster) -> None:
    for _ in range(2):
        done = highstate(cluster)
        state = done.of("lb1", TABLE)
        assert (state["result"], state["changes"]) == (True, {})
        assert "rs1 of web has weight 0 instead of 50: failed" in state["comment"]
        assert done.changing() == {"lb1": []}
        assert weights(cluster.lab["lb1"]) == RS1_OUT


def test_one_that_is_back_is_let_in_again(cluster: SaltCluster) -> None:
    with Bus(cluster.master) as bus:
        returns(cluster, "rs1")
        in_kernel(cluster, BOTH)
        change = told(bus, "that rs1 is up", moved("rs1", "up"))
    found = {key: change[key] for key in ("was", "weight_was", "weight_now", "acted")}
    assert found == {"was": "down", "weight_was": 0, "weight_now": 50, "acted": True}
    expect_served(cluster, {"rs1", "rs2"})


def test_a_drain_survives_a_highstate_and_the_directors_reboot(whole: SaltCluster) -> None:
    whole.salt("lb1", "lvs.drain", "rs1", "why='new disk'")
    in_kernel(whole, RS1_OUT)
    done = highstate(whole)
    state = done.of("lb1", TABLE)
    assert (state["result"], state["changes"]) == (True, {})
    assert "rs1 of web has weight 0 instead of 50" in state["comment"]
    assert "new disk" in state["comment"]
    whole.lab["lb1"].reboot()
    # What the boot put there, before any minion ran for long.
    in_kernel(whole, RS1_OUT)
    whole.wait()
    until(lambda: states(whole)["rs1"] == "up", "rs1 to be asked", seconds=WITHIN_SECONDS)
    stays(whole, RS1_OUT)
    whole.salt("lb1", "lvs.undrain", "rs1")
    in_kernel(whole, BOTH)


def test_a_minion_that_restarts_in_the_middle_changes_no_weight(whole: SaltCluster) -> None:
    dies(whole, "rs1")
    in_kernel(whole, RS1_OUT)
    director = whole.lab["lb1"]
    seen = []
    with director.running(["service", "salt-minion", "restart"]) as restarting:
        while restarting.poll() is None:
            seen.append(weights(director))
            time.sleep(0.1)
    whole.wait()
    until(lambda: states(whole)["rs1"] == "down", "rs1 to be asked", seconds=WITHIN_SECONDS)
    stays(whole, RS1_OUT)
    assert [one for one in seen if one != RS1_OUT] == []
    returns(whole, "rs1")
    in_kernel(whole, BOTH)


def test_it_needs_no_master(whole: SaltCluster) -> None:
    with restarted_later(whole, "master", "salt-master"):
        dies(whole, "rs1")
        in_kernel(whole, RS1_OUT)
        returns(whole, "rs1")
        in_kernel(whole, BOTH)


def test_a_minion_that_starts_without_a_master_takes_it_out_too(whole: SaltCluster) -> None:
    service(whole.lab["lb1"], "salt-minion", "stop")
    with restarted_later(whole, "master", "salt-master"):
        dies(whole, "rs1")
        stays(whole, BOTH)
        service(whole.lab["lb1"], "salt-minion", "start")
        in_kernel(whole, RS1_OUT)
        returns(whole, "rs1")
        in_kernel(whole, BOTH)


def test_a_lost_dummy0_that_nobody_puts_back_is_seen_through_the_vip(whole: SaltCluster) -> None:
    with restarted_later(whole, "rs2", "salt-minion"), Bus(whole.master) as bus:
        whole.lab["rs2"].run(["ip", "link", "delete", "dummy0"], check=True)
        in_kernel(whole, RS2_OUT)
        change = told(bus, "that rs2 is down", moved("rs2", "down"))
        expect_served(whole, {"rs1"})
    assert VIP in change["reason"]
    # Its own minion has put it back when it came.
    in_kernel(whole, BOTH)


def test_when_everybody_fails_at_once_the_floor_holds_and_is_told(whole: SaltCluster) -> None:
    with Bus(whole.master) as bus:
        dies(whole, "rs1", "rs2")
        change = told(bus, "who is kept", lambda one: bool(one.get("kept")))
        stays(whole, weights(whole.lab["lb1"]))
        left = weights(whole.lab["lb1"])
    assert sorted(left.values()) == [0, 50]
    kept = next(name for name, weight in left.items() if weight)
    assert (change["virtual_server"], change["kept"], change["kept_count"]) == ("web", [kept], 1)
    comment = highstate(whole).of("lb1", TABLE)["comment"]
    assert f"{'rs2' if kept == 'rs1' else 'rs1'} of web has weight 0 instead of 50" in comment
    returns(whole, "rs1", "rs2")
    in_kernel(whole, BOTH)


def test_with_reaction_reactor_the_master_has_it_done(whole: SaltCluster) -> None:
    text = whole.master.read(PILLAR).replace("lvs:\n", "lvs:\n  reaction: reactor\n", 1)
    whole.master.write(PILLAR, text)
    with Bus(whole.master) as bus:
        highstate(whole)
        # The minion reads its pillar when it comes to it.
        until(lambda: leaves_it(bus), "lb1 to leave it to the master", seconds=WITHIN_SECONDS)
        dies(whole, "rs1")
        change = told(bus, "that rs1 is down", moved("rs1", "down"))
        in_kernel(whole, RS1_OUT)
        jobs = until(lambda: bus.jobs("lvs.reweight"), "the reactor's job", seconds=WITHIN_SECONDS)
    # Who does not set weights does not look which there are.
    assert (change["acted"], change["weight_now"]) == (False, None)
    assert {(job["tgt_type"], *job["tgt"]) for job in jobs} == {("list", "lb1")}
    returns(whole, "rs1")
    in_kernel(whole, BOTH)
