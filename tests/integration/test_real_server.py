"""What may happen to a real server: its clients are served again without a person, and it never
says on the wire that a VIP is its own. Real master, minions, reactors and keepalived.

All that is said of addresses on the LAN is captured, from before the first highstate to the end.
The tests run in the order in which they stand here.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.integration.highstate import Highstate
from tests.lab import Lab
from tests.lab.capture import Capture, Packet
from tests.lab.client import Client, Replies
from tests.lab.cluster import CHECKOUT, SaltCluster
from tests.lab.host import Host
from tests.lab.lab import BRIDGE, HOSTS, VIP
from tests.lab.waiting import until

# The first test waits for the cluster, which a busy machine makes slowly.
pytestmark = pytest.mark.timeout(600)

MINIONS = ("lb1", "rs1", "rs2")
CLIENTS = [f"10.10.10.{number}" for number in range(101, 117)]
MACS = {
    "lb1": "02:00:0a:0a:0a:0b",
    "rs1": "02:00:0a:0a:0a:29",
    "rs2": "02:00:0a:0a:0a:2a",
    "client": "02:00:0a:0a:0a:64",
}
ASK_EVERY_SECONDS = 0.1
DUMMY = "dummy0"
CONF = "/proc/sys/net/ipv4/conf"
# A request that meets the gap fails after this long, or is answered when the client tries again.
TIMEOUT_SECONDS = 1.0
# How long clients are watched when all is well again.
AFTER_SECONDS = 2.0
# The kernel says nothing of a setting that changes, so a real server looks once a second.
HEARD_AT_MOST_SECONDS = 2.0
# Event, reactor, runner, job; and directors announce once in ten seconds.
ANNOUNCED_WITHIN_SECONDS = 25.0


class Wire:
    """What machines on the LAN have said of their addresses."""

    def __init__(self, packets: list[Packet]) -> None:
        self._packets = packets
        self._seen = 0

    def claims(self, name: str) -> list[Packet]:
        """Those in which a machine called the VIP its own, since :meth:`begin`."""
        return [p for p in self._since() if p.source_mac == MACS[name] and _claims_vip(p)]

    def questions(self) -> list[Packet]:
        """Those in which somebody asked who has the VIP, since :meth:`begin`."""
        return [p for p in self._since() if p.operation == "request" and p.destination == VIP]

    def begin(self) -> None:
        """What has come until now belongs to what was before."""
        self._seen = len(self._packets)

    def _since(self) -> list[Packet]:
        return self._packets[self._seen :]


def _claims_vip(packet: Packet) -> bool:
    """Whether it says, as a question or as an answer, that its sender has the VIP."""
    return packet.kind == "arp" and packet.source == VIP


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """One director is enough here."""
    with Lab({name: HOSTS[name] for name in ("master", *MINIONS, "client")}) as lab:
        yield lab


@pytest.fixture(scope="module")
def wire(lab: Lab) -> Iterator[Wire]:
    """All that is said of addresses on the LAN, whoever it is for."""
    subprocess.run(["ip", "link", "set", BRIDGE, "promisc", "on"], check=True)
    with Capture(os.getpid(), BRIDGE, neighbours=True) as packets:
        yield Wire(packets)


@pytest.fixture(scope="module")
def cluster(wire: Wire, lab: Lab) -> Iterator[SaltCluster]:
    """The guide's cluster; its master answers what the shipped configuration has it answer."""
    shipped = (CHECKOUT / "lvs" / "files" / "master.conf").read_text(encoding="utf-8")
    lab["master"].write("/etc/salt/master.d/saltext-lvs.conf", shipped)
    with SaltCluster(lab, minions=MINIONS) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def first(cluster: SaltCluster) -> Highstate:
    """The first highstate, while a client asks for the VIP all the time."""
    with Asker(cluster.lab["client"]):
        done = Highstate(cluster.highstate())
        until(lambda: holds_vip(cluster.lab["lb1"], "eth0"), "lb1 to hold the VIP", seconds=60)
    return done


@pytest.fixture
def whole(first: Highstate, cluster: SaltCluster, wire: Wire) -> SaltCluster:
    """The cluster, with both real servers at work."""
    client = Client(cluster.lab["client"])

    def both_serve() -> bool:
        return len(client.get(VIP, sources=CLIENTS, requests=32).by_server()) == 2

    # Persistence lasts five seconds after a client's last request.
    until(both_serve, "both real servers to have clients", seconds=60, pause=6)
    wire.begin()
    return cluster


def holds_vip(host: Host, interface: str = DUMMY) -> bool:
    shown = host.run(["ip", "-brief", "address", "show", "dev", interface]).stdout
    return f"{VIP}/32" in shown


def setting(host: Host, name: str) -> str:
    return host.read(f"{CONF}/{name}").strip()


class Asker:
    """Asks all the time who has the VIP, in the client's name, as a program of its own would."""

    def __init__(self, client: Host) -> None:
        self._client = client
        own = bytes.fromhex(MACS["client"].replace(":", ""))
        asked = socket.inet_aton(client.address) + bytes(6) + socket.inet_aton(VIP)
        # To all; ARP for Ethernet and IPv4, a request (RFC 826).
        self._frame = b"\xff" * 6 + own + bytes.fromhex("08060001080006040001") + own + asked
        self._stop = threading.Event()

    def __enter__(self) -> Asker:
        self._socket = self._client.in_network(self._open)
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()

    def _open(self) -> socket.socket:
        asking = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        asking.bind(("eth0", 0))
        return asking

    def _ask(self) -> None:
        while not self._stop.wait(ASK_EVERY_SECONDS):
            self._socket.send(self._frame)


def believed(client: Host) -> str:
    """The MAC address that the client has for the VIP."""
    words = client.run(["ip", "neighbour", "show", VIP]).stdout.split()
    return words[words.index("lladdr") + 1] if "lladdr" in words else ""


# --------------------------------------------------------------------------------------------------
# What may happen. Each returns when the harm was done, by time.monotonic().


def run(host: Host, command: str) -> float:
    """Run a command that does harm."""
    began = time.monotonic()
    host.run(command.split(), check=True)
    return began


def delete_dummy0(cluster: SaltCluster) -> float:
    return run(cluster.lab["rs1"], f"ip link delete {DUMMY}")


def take_dummy0_down(cluster: SaltCluster) -> float:
    return run(cluster.lab["rs2"], f"ip link set {DUMMY} down")


def remove_the_vip(cluster: SaltCluster) -> float:
    return run(cluster.lab["rs2"], f"ip address delete {VIP}/32 dev {DUMMY}")


def set_all_to_0(cluster: SaltCluster) -> float:
    return run(cluster.lab["rs2"], "sysctl -q -w net.ipv4.conf.all.arp_ignore=0")


def restart_the_minion(cluster: SaltCluster) -> float:
    """And show that the new one watches too."""
    run(cluster.lab["rs1"], "service salt-minion restart")
    cluster.wait()
    return delete_dummy0(cluster)


def restart_the_master(cluster: SaltCluster) -> float:
    """And take something away while it is not there."""
    cluster.close()
    run(cluster.master, "service salt-master stop")
    began = run(cluster.lab["rs2"], f"ip link delete {DUMMY}")
    run(cluster.master, "service salt-master start")
    return began


def cut_the_master_off(cluster: SaltCluster) -> float:
    """The cable is out while dummy0 goes, and long enough for rs1 to be on its own."""
    cluster.lab["master"].link_down()
    try:
        began = delete_dummy0(cluster)
        until(lambda: holds_vip(cluster.lab["rs1"]), "the VIP without a master", pause=0.01)
    finally:
        cluster.lab["master"].link_up()
    return began


def reboot(cluster: SaltCluster) -> float:
    rs1 = cluster.lab["rs1"]
    began = time.monotonic()
    rs1.power_cut()
    rs1.boot()
    return began


@dataclass(frozen=True)
class Harm:
    """What is done, and how long after it the last request may fail, in seconds.

    A request that was under way counts until it gives up.
    """

    do: Callable[[SaltCluster], float]
    within: float


HARMS = {
    "dummy0 is deleted": Harm(delete_dummy0, 3),
    "dummy0 is taken down, which IPv4 does not mind": Harm(take_dummy0_down, 0),
    "one VIP is removed": Harm(remove_the_vip, 3),
    "arp_ignore of all is 0, where the interface's own counts": Harm(set_all_to_0, 0),
    # It answers before its beacons begin.
    "the minion is restarted, then dummy0 deleted": Harm(restart_the_minion, 8),
    "dummy0 is deleted while the master restarts": Harm(restart_the_master, 3),
    "dummy0 is deleted while the master is cut off": Harm(cut_the_master_off, 3),
    "the real server loses its power, and boots": Harm(reboot, 60),
}


@contextlib.contextmanager
def held(host: Host) -> Iterator[None]:
    """The host's minion stands still."""
    minion = host.read("/run/salt-minion.pid").strip()
    host.run(["kill", "-STOP", minion], check=True)
    try:
        yield
    finally:
        host.run(["kill", "-CONT", minion], check=True)


def failures(replies: Replies, harmed: float, first_reply: float) -> float:
    """The seconds from the harm to the end of the last request that failed; 0 if none did."""
    began = harmed - (first_reply - min(reply.ended for reply in replies.all))
    lasted = max((reply.ended for reply in replies.errors), default=0.0) - began
    return max(lasted, 0.0)


def test_the_first_highstate_says_nothing_of_the_vip_on_real_servers(
    first: Highstate, wire: Wire
) -> None:
    assert first.failed() == {}
    assert wire.questions(), "nobody asked, so their silence says nothing"
    assert wire.claims("lb1"), "the director did not answer: is this capture whole?"
    assert wire.claims("rs1") + wire.claims("rs2") == []


# --------------------------------------------------------------------------------------------------
# The exception: a setting that makes a real server answer. It also proves the capture.

# The larger one of both counts, and 3 is larger than 1 but no stronger.
FLIPS = {
    "of all interfaces": ("rs1", "all/arp_ignore", "3"),
    "of the interface alone": ("rs2", "eth0/arp_ignore", "3"),
}


@pytest.mark.parametrize(("name", "flipped", "value"), FLIPS.values(), ids=FLIPS.keys())
def test_a_flipped_arp_ignore_is_heard_for_a_moment_and_then_forgotten(
    name: str,
    flipped: str,
    value: str,
    whole: SaltCluster,
    wire: Wire,
    capsys: pytest.CaptureFixture[str],
) -> None:
    host, client = whole.lab[name], whole.lab["client"]
    quiet = setting(host, flipped)
    asking = Client(client).keep_asking(VIP, sources=CLIENTS, timeout=TIMEOUT_SECONDS)
    with asking:
        first_reply = time.monotonic()
        with Asker(client):
            # It might be put right before anybody asks.
            with held(host):
                began = run(host, f"sysctl -q -w net.ipv4.conf.{flipped.replace('/', '.')}={value}")
                time.sleep(3 * ASK_EVERY_SECONDS)
            until(lambda: setting(host, flipped) == quiet, "the repair", seconds=5, pause=0.02)
            repaired = time.monotonic()
            time.sleep(0.5)
        # As a client that has heard the wrong one has it. Nothing makes it ask again soon.
        wrong = f"{VIP} lladdr {MACS[name]} dev eth0 nud reachable"
        client.run(["ip", "neighbour", "replace", *wrong.split()], check=True)
        until(
            lambda: believed(client) == MACS["lb1"],
            "the client to find the director again",
            seconds=ANNOUNCED_WITHIN_SECONDS,
        )
        found = time.monotonic()
        client.run(["ip", "neighbour", "flush", "to", VIP], check=True)
        time.sleep(AFTER_SECONDS)
    heard = [packet.at - began for packet in wire.claims(name)]
    with capsys.disabled():
        print(
            f" [heard {len(heard)} times, silent after {max(heard, default=0):.2f} s, put right"
            f" after {repaired - began:.2f} s, the client is right after {found - began:.2f} s]",
            end="",
            flush=True,
        )
    assert heard, "it was made to answer, and this capture has not seen it"
    assert max(heard) < HEARD_AT_MOST_SECONDS
    # A connection that was made with the wrong one breaks when the client finds the director again.
    assert failures(asking.replies, began, first_reply) < found - began + TIMEOUT_SECONDS
    (other,) = {"rs1", "rs2"} - {name}
    assert wire.claims(other) == []


# --------------------------------------------------------------------------------------------------
# Never


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS.keys())
def test_clients_are_served_again_and_no_real_server_says_a_word(
    harm: Harm, whole: SaltCluster, wire: Wire, capsys: pytest.CaptureFixture[str]
) -> None:
    client = whole.lab["client"]
    asking = Client(client).keep_asking(VIP, sources=CLIENTS, timeout=TIMEOUT_SECONDS)
    with Asker(client), asking:
        first_reply = time.monotonic()
        harmed = harm.do(whole)
        for name in ("rs1", "rs2"):
            host = whole.lab[name]
            until(lambda: holds_vip(host), f"{name} to hold the VIP", seconds=harm.within + 10)  # noqa: B023
        time.sleep(AFTER_SECONDS + TIMEOUT_SECONDS)
        ended = time.monotonic()
    lasted = failures(asking.replies, harmed, first_reply)
    with capsys.disabled():
        print(f" [the last request fails after {lasted:.2f} s]", end="", flush=True)
    assert lasted <= harm.within
    assert harmed + lasted < ended - AFTER_SECONDS, "clients are not served to the end"
    assert wire.questions(), "nobody asked, so their silence says nothing"
    assert wire.claims("lb1"), "the director did not answer: is this capture whole?"
    assert wire.claims("rs1") + wire.claims("rs2") == []
