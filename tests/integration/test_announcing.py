"""From a real server that was heard on ARP to neighbours that are right again; and from a minion
that has just connected to a VIP that is back. Real master, minions, reactor and keepalived.

The tests run in the order in which they stand here: each begins with a whole cluster and leaves
one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.highstate import Highstate
from tests.lab import Lab
from tests.lab.bus import Bus, fire
from tests.lab.capture import Packet
from tests.lab.cluster import CHECKOUT, SaltCluster
from tests.lab.host import Host
from tests.lab.lab import HOSTS, VIP
from tests.lab.waiting import until

# The pillar names lb2 and rs2 too: they are switched off.
MINIONS = ("lb1", "rs1")
LB1 = "02:00:0a:0a:0a:0b"
RS1 = "02:00:0a:0a:0a:29"
CONF = "/proc/sys/net/ipv4/conf"
ANNOUNCE = "keepalived.send_garp"
REAPPLY = "lvs.reapply"
TAG = "salt/beacon/rs1/dummy/change"
QUIET = {
    "sysctl": "net.ipv4.conf.all.arp_ignore",
    "was": 0,
    "now": 1,
    "quiet": True,
    "repaired": True,
}
TRUE_EVENT = (TAG, {"id": "rs1", "cluster": "prod", "acted": True, "changes": [QUIET]})


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A director, a real server, and a master with the shipped reactors."""
    with Lab({name: HOSTS[name] for name in ("master", *MINIONS, "client")}) as lab:
        shipped = (CHECKOUT / "lvs" / "files" / "master.conf").read_text(encoding="utf-8")
        lab["master"].write("/etc/salt/master.d/saltext-lvs.conf", shipped)
        yield lab


@pytest.fixture(scope="module")
def cluster(lab: Lab) -> Iterator[SaltCluster]:
    """The cluster after its first highstate."""
    with SaltCluster(lab, minions=MINIONS, web_servers=("rs1",)) as cluster:
        done = Highstate(cluster.highstate())
        assert done.failed() == {}
        until(lambda: f"{VIP}/32" in addresses(lab["lb1"], "eth0"), "lb1 to hold the VIP")
        yield cluster


@pytest.fixture
def bus(cluster: SaltCluster) -> Iterator[Bus]:
    """What is on the master's bus."""
    with Bus(cluster.master) as bus:
        yield bus


@pytest.fixture
def rested(cluster: SaltCluster) -> None:
    """Long enough after the last announcement for the next to be at once."""
    time.sleep(11)


def addresses(host: Host, interface: str) -> str:
    return host.run(["ip", "-brief", "address", "show", "dev", interface]).stdout


def answers_arp(host: Host, ignore: int) -> None:
    """Set whether a host answers ARP; the larger of the two values counts."""
    script = f"for name in all eth0; do echo {ignore} >{CONF}/$name/arp_ignore; done"
    host.run(["sh", "-c", script], check=True)


def believed(client: Host) -> str:
    """The MAC address that the client has for the VIP."""
    words = client.run(["ip", "neighbour", "show", VIP]).stdout.split()
    return words[words.index("lladdr") + 1] if "lladdr" in words else ""


def announcing(packets: list[Packet]) -> list[Packet]:
    """The gratuitous ones among the ARP packets that a host has sent."""
    return [p for p in packets if p.outgoing and p.kind == "arp" and p.source == p.destination]


# -------------------------------------------------------------------------------------------------
# Heard on ARP


def heard_on_arp(lab: Lab) -> float:
    """Flip rs1's settings, so that the client learns its address; when that was."""
    client, rs1, lb1 = lab["client"], lab["rs1"], lab["lb1"]

    def learnt() -> float:
        # For this moment the director is deaf, or it would be a matter of luck who answers first.
        answers_arp(lb1, 8)
        client.run(["ip", "neighbour", "flush", "all"], check=True)
        answers_arp(rs1, 0)
        flipped = time.monotonic()
        client.run(["bash", "-c", f"echo >/dev/udp/{VIP}/9; sleep 0.1"])
        answers_arp(lb1, 0)
        return flipped if believed(client) == RS1 else 0.0

    return until(learnt, "the client to hear rs1", seconds=60, pause=2)


@pytest.mark.usefixtures("rested")
def test_a_client_that_has_heard_a_real_server_finds_the_director_again(
    cluster: SaltCluster, bus: Bus
) -> None:
    lab = cluster.lab
    with lab["lb1"].capture() as on_lb1:
        flipped = heard_on_arp(lab)
        until(lambda: believed(lab["client"]) == LB1, "the client to find lb1", seconds=30)
        took = time.monotonic() - flipped
        until(lambda: "lb1" in bus.returns(ANNOUNCE), "the director's answer", seconds=60)
    # Quiet again: the larger of all's value and the interface's own counts.
    assert lab["rs1"].read(f"{CONF}/all/arp_ignore") == "1\n"
    # At most a second until it is seen, then event, reactor, runner, job, and the first frame. A
    # client without it sends to rs1 until its own probes fail, which begins after 15 s at least.
    assert took < 12
    assert bus.returns(ANNOUNCE)["lb1"] == {
        "announced": {VIP: {"eth0": 6}},
        "silent": {},
        "queued": False,
    }
    assert {(p.operation, p.source, p.source_mac) for p in announcing(on_lb1)} == {
        ("request", VIP, LB1),
        ("reply", VIP, LB1),
    }


# -------------------------------------------------------------------------------------------------
# Forged events


def quiet(minion_id: Any, *changes: Any) -> dict[str, Any]:
    """The content of an event that would have VIPs announced, of any minion."""
    return {"id": minion_id, "cluster": "prod", "acted": True, "changes": [*changes, QUIET]}


def change(minion_id: Any) -> tuple[str, Any]:
    """A whole event, told in the name of any minion."""
    return f"salt/beacon/{minion_id}/dummy/change", quiet(minion_id)


FORGED: dict[str, tuple[str, Any]] = {
    "a star": change("*"),
    "a glob": change("rs?"),
    "two ids in one": change("rs1,lb1"),
    "a line's end": change("rs1\n"),
    "a NUL": change("rs1\0"),
    "a DEL": change("rs1\x7f"),
    "a way out of the folder": change("../minions/rs1"),
    "a compound target": change("G@os:Debian"),
    "Jinja": change("{{ salt['cmd.run']('touch /tmp/forged') }}"),
    "YAML": change("rs1\n- tgt: '*'"),
    "a minion that nobody knows": change("rs99"),
    "a minion whose key is not there": change("rs2"),
    "a very long name": change("r" * 3000),
    "nobody": change(""),
    "another one's name in the content": (TAG, quiet("lb1")),
    "another one's name in the tag": ("salt/beacon/lb1/dummy/change", quiet("rs1")),
    "another beacon": ("salt/beacon/rs1/real_server/change", quiet("rs1")),
    "a list for a name": ("salt/beacon/['rs1']/dummy/change", quiet(["rs1"])),
    "words for a mapping": (TAG, {"id": "rs1", "changes": "quiet"}),
    "words for the changes": (TAG, {"id": "rs1", "changes": ["quiet", None, 7, ["quiet"]]}),
    "still to be heard, again and again": (
        TAG,
        {"id": "rs1", "changes": [{**QUIET, "quiet": False, "gave_up": True}]},
    ),
    "heard, but no setting": (TAG, {"id": "rs1", "changes": [{"quiet": False}]}),
    "quiet in words": (TAG, {"id": "rs1", "changes": [{**QUIET, "quiet": "True"}]}),
    "quiet, but no setting": (TAG, {"id": "rs1", "changes": [{"quiet": True}]}),
    "a start of all": ("salt/minion/*/start", {"id": "*"}),
    "a start of another one than the tag says": ("salt/minion/rs1/start", {"id": "lb1"}),
    "a start of a list": ("salt/minion/rs1,lb1/start", {"id": "rs1,lb1"}),
    "a start of no name": ("salt/minion/['rs1']/start", {"id": ["rs1"]}),
}


@pytest.mark.usefixtures("rested")
def test_no_forged_event_publishes_anything(cluster: SaltCluster, bus: Bus) -> None:
    rs1 = cluster.lab["rs1"]
    fire(rs1, list(FORGED.values()))
    until(
        lambda: {tag for tag, _ in FORGED.values()} <= {event.tag for event in bus.events},
        "all of them on the master's bus",
        seconds=60,
    )
    time.sleep(5)
    assert bus.jobs() == []
    assert not cluster.master.exists("/tmp/forged")
    # The true one, which comes after them, is heard.
    fire(rs1, [TRUE_EVENT])
    until(lambda: bus.jobs(ANNOUNCE), "the true one", seconds=60)
    (job,) = bus.jobs()
    assert (job["fun"], job["tgt"], job["tgt_type"]) == (ANNOUNCE, ["lb1", "lb2"], "list")


FLOOD = 40


def answered(bus: Bus) -> int:
    """How often the runner has answered."""
    returns = [e.data for e in bus.events if e.tag.startswith("salt/run/") and "/ret" in e.tag]
    return sum(data.get("fun") == "runner.lvs.announce" for data in returns)


@pytest.mark.usefixtures("rested")
def test_a_flood_of_events_costs_one_announcement_in_five_seconds(
    cluster: SaltCluster, bus: Bus
) -> None:
    began = time.monotonic()
    fire(cluster.lab["rs1"], [TRUE_EVENT] * FLOOD)
    until(lambda: answered(bus) == FLOOD, "the runner's answers", seconds=240)
    lasted = time.monotonic() - began
    delays = [part["delay"] for job in bus.jobs(ANNOUNCE) for part in job["arg"] or [{"delay": 0}]]
    assert min(delays) == 0
    assert max(delays) <= 5
    assert 2 <= len(delays) <= 2 + lasted / 5
    assert len(delays) < FLOOD / 2
    state = cluster.master.run(["ls", "/var/cache/salt/master/saltext-lvs"]).stdout.split()
    # Beside what is known of who holds the VIPs.
    others = [f"{name}.json" for name in ("looks", "seen", "standings")]
    known = [*others, *(f"{name}.lock" for name in others)]
    assert [name for name in state if name not in known] == ["rounds.json", "rounds.json.lock"]


# -------------------------------------------------------------------------------------------------
# Connected


def test_a_minion_that_lacks_nothing_costs_one_job_and_no_state_run(
    cluster: SaltCluster, bus: Bus
) -> None:
    for name in MINIONS:
        cluster.lab[name].run(["service", "salt-minion", "restart"], check=True)
    until(lambda: set(bus.returns(REAPPLY)) == set(MINIONS), "their answers", seconds=120)
    time.sleep(3)
    assert bus.returns(REAPPLY) == {
        "lb1": {"needed": False, "why": ["lb1 is no real server"]},
        "rs1": {"needed": False, "why": ["nothing lacks"]},
    }
    jobs = [(job["fun"], job["tgt"], job["tgt_type"]) for job in bus.jobs()]
    # What a director tells of itself may have the master ask who holds the VIPs.
    others = [job for job in jobs if job[0] != "keepalived.status"]
    assert sorted(others) == [(REAPPLY, [name], "list") for name in MINIONS]


def test_a_real_server_that_lost_its_vip_while_it_was_away_gets_it_back(
    cluster: SaltCluster, bus: Bus
) -> None:
    rs1 = cluster.lab["rs1"]
    config = "/etc/salt/minion.d/saltext-lvs.conf"
    rs1.run(["service", "salt-minion", "stop"], check=True)
    # Without its beacon the minion would not put it back by itself.
    rs1.write(config, "disable_beacons: [network_settings]\n")
    rs1.run(["ip", "link", "delete", "dummy0"], check=True)
    began = time.monotonic()
    rs1.run(["service", "salt-minion", "start"], check=True)
    until(lambda: f"{VIP}/32" in addresses(rs1, "dummy0"), "rs1 to hold its VIP", seconds=60)
    took = time.monotonic() - began
    until(lambda: "rs1" in bus.returns(REAPPLY), "the highstate", seconds=180)
    answer = bus.returns(REAPPLY)["rs1"]
    assert answer == {
        "needed": True,
        "why": ["dummy0 does not hold 10.10.10.10/32"],
        "queued": False,
        "repaired": ["create dummy interface dummy0", "add 10.10.10.10/32 to dummy0"],
        "changed": answer["changed"],
        "failed": {},
    }
    # What was lost beside the VIP, the highstate has found.
    assert "lvs-minion-config" in answer["changed"]
    assert "beacons" in rs1.read(config)
    assert took < 45
    # It is restarted with its beacon, connects once more, and nothing lacks.
    until(lambda: not bus.returns(REAPPLY)["rs1"]["needed"], "the restart", seconds=180)
