"""What a director finds out about real servers, on real machines, from master and backup.

Two directors, of which lb1 holds the VIPs, and two real servers with the VIPs on dummy0.
"""

from __future__ import annotations

import contextlib
import ipaddress
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path as File
from typing import Any

import pytest
import yaml
from saltext.lvs import frames, fresh, ipvs, model, probe
from saltext.lvs.checks import Check, How, Path, Tcp, Verdict
from saltext.lvs.frames import Aim
from saltext.lvs.model import Forward
from saltext.lvs.pacing import Pace

from tests.lab.lab import Lab, LabHost, boot
from tests.lab.waiting import until
from tests.unit.tables import real_server, table, virtual_server

HOSTS = {
    "lb1": ["10.10.10.11/24"],
    "lb2": ["10.10.10.12/24"],
    "rs1": ["10.10.10.41/24"],
    "rs2": ["10.10.10.42/24"],
}
VIP, VIP6 = "10.10.10.10", "fd00::10"
RS1, RS1_6 = "10.10.10.41", "fd00::41"
RS2 = "10.10.10.42"
MAC1, MAC2 = "02:00:0a:0a:0a:29", "02:00:0a:0a:0a:2a"
PORT = 80
TIMEOUT = 0.6
SYN_RECV = "03"


# --------------------------------------------------------------------------------------------------
# The lab


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(HOSTS) as machines:
        changed.update(HOSTS)
        yield machines


# Hosts that are not as they were set up any more.
changed: set[str] = set()


def ip(host: LabHost, *commands: str) -> None:
    changed.add(host.name)
    host.run(["ip", "-batch", "-"], input="\n".join(commands), check=True)


def sysctl(host: LabHost, *settings: str) -> None:
    changed.add(host.name)
    host.run(["sysctl", "-q", "-w", *settings], check=True)


def set_up(host: LabHost) -> None:
    """A director, or a real server with the VIPs."""
    ip(host, f"address add fd00::{host.address.rpartition('.')[2]}/64 dev eth0 nodad")
    if host.name == "lb1":
        ip(
            host,
            f"address add {VIP}/32 dev eth0",
            # As keepalived does: or the kernel may take it for the sender of its own connections.
            f"address add {VIP6}/128 dev eth0 nodad preferred_lft 0",
        )
    if host.name.startswith("rs"):
        sysctl(host, "net.ipv4.conf.all.arp_ignore=1", "net.ipv4.conf.all.arp_announce=2")
        ip(
            host,
            "link add dummy0 type dummy",
            "link set dummy0 up arp off",
            f"address add {VIP}/32 dev dummy0",
            f"address add {VIP6}/128 dev dummy0 nodad",
        )


@pytest.fixture
def cluster(lab: Lab) -> Iterator[Lab]:
    """Every host as it should be, and a service on each real server's every address."""
    again = [host for host in lab if host.name in changed or not host.is_on]
    for host in again:
        host.power_cut()
    boot(*again)
    for host in again:
        set_up(host)
    changed.clear()
    with contextlib.ExitStack() as services:
        for name in ("rs1", "rs2"):
            services.enter_context(listening(lab[name]))
        yield lab


@contextlib.contextmanager
def listening(host: LabHost, address: str = "::", port: int = PORT) -> Iterator[socket.socket]:
    """A service that takes connections, and says nothing."""
    six = ":" in address

    def make() -> socket.socket:
        family = socket.AF_INET6 if six else socket.AF_INET
        return socket.create_server(
            (address, port), family=family, backlog=4096, dualstack_ipv6=address == "::"
        )

    with host.in_network(make) as server:
        yield server


def path(vip: str = VIP, real: str = "", port: int = PORT) -> Path:
    real = real or (RS1_6 if ":" in vip else RS1)
    return Path(ipaddress.ip_address(real), ipaddress.ip_address(vip), port)


def tcp(address: str, port: int = PORT, **options: Any) -> Tcp:
    return Tcp(ipaddress.ip_address(address), port, **options)


def asked(host: LabHost, *hows: How, timeout: float = TIMEOUT) -> list[Verdict]:
    checks = [Check(number, how, timeout=timeout) for number, how in enumerate(hows)]
    return host.in_network(lambda: probe.ask(checks, timeout + 2))


def told(host: LabHost, how: How, timeout: float = TIMEOUT) -> tuple[bool | None, str]:
    (verdict,) = asked(host, how, timeout=timeout)
    return verdict.ok, verdict.reason


def half_open(host: LabHost) -> list[str]:
    """The connections of a host that have begun and are not made."""
    text = host.run(["cat", "/proc/net/tcp", "/proc/net/tcp6"], check=True).stdout
    return [line for line in text.splitlines() if line.split()[3] == SYN_RECV]


FROM = pytest.mark.parametrize("director", ["lb1", "lb2"], ids=["from the master", "from a backup"])
OF = pytest.mark.parametrize("vip", [VIP, VIP6], ids=["IPv4", "IPv6"])
ASKED_BY = {VIP: "ARP", VIP6: "neighbour discovery"}


# --------------------------------------------------------------------------------------------------
# The path


def shown(vip: str) -> str:
    return f"[{vip}]:{PORT}" if ":" in vip else f"{vip}:{PORT}"


def at(vip: str) -> str:
    return RS1_6 if ":" in vip else RS1


@FROM
@OF
def test_one_that_serves_its_vip(cluster: Lab, director: str, vip: str) -> None:
    verdicts = [asked(cluster[director], path(vip), timeout=2)[0] for _ in range(5)]
    assert {(v.ok, v.reason) for v in verdicts} == {(True, f"{at(vip)} serves {shown(vip)}")}
    assert min(v.milliseconds for v in verdicts) < 20
    assert half_open(cluster["rs1"]) == []


@FROM
@OF
def test_its_dummy0_is_deleted(cluster: Lab, director: str, vip: str) -> None:
    ip(cluster["rs1"], "link delete dummy0")
    assert told(cluster[director], path(vip)) == (
        False,
        f"VIP {vip} is gone from {at(vip)}, or a firewall drops what is for it: no answer to a SYN "
        f"for {shown(vip)} within 0.6 s, though the host answers {ASKED_BY[vip]}",
    )
    ip(
        cluster["rs1"],
        "link add dummy0 type dummy",
        "link set dummy0 up",
        f"address add {VIP}/32 dev dummy0",
        f"address add {VIP6}/128 dev dummy0 nodad",
    )
    assert told(cluster[director], path(vip)) == (True, f"{at(vip)} serves {shown(vip)}")


@FROM
@OF
def test_its_vip_has_moved_to_another_real_server(cluster: Lab, director: str, vip: str) -> None:
    """An ordinary check is content; the other one, which has it, is right."""
    prefix = "128" if ":" in vip else "32"
    ip(cluster["rs1"], f"address delete {vip}/{prefix} dev dummy0")
    other = "fd00::42" if ":" in vip else RS2
    found = asked(cluster[director], path(vip), path(vip, other), tcp(at(vip)))
    assert [verdict.ok for verdict in found] == [False, True, True]
    assert found[0].reason.startswith(f"VIP {vip} is gone from {at(vip)}")


@FROM
@OF
def test_its_service_listens_on_its_own_address_alone(
    cluster: Lab, director: str, vip: str
) -> None:
    with listening(cluster["rs1"], at(vip), 8080):
        found = asked(cluster[director], path(vip, port=8080), tcp(at(vip), 8080))
    where = shown(vip).replace("80", "8080")
    assert [(verdict.ok, verdict.reason) for verdict in found] == [
        (False, f"nothing listens on {where} at {at(vip)}: it was refused (RST)"),
        (True, f"{shown(at(vip)).replace(':80', ':8080')} took the connection"),
    ]


def has_link_local(host: LabHost) -> bool:
    words = ["ip", "-6", "address", "show", "dev", "eth0", "scope", "link"]
    text = host.run(words, check=True).stdout
    return "fe80" in text and "tentative" not in text


@FROM
@OF
def test_it_sends_back_what_is_for_a_vip_that_it_lost(
    cluster: Lab, director: str, vip: str
) -> None:
    ip(cluster["rs1"], "link delete dummy0")
    sysctl(cluster["rs1"], "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    # Without one it can ask no neighbour, and so forward nothing.
    until(lambda: has_link_local(cluster["rs1"]), "its link-local address")
    assert told(cluster[director], path(vip), timeout=2) == (
        False,
        f"VIP {vip} is gone from {at(vip)}, which sends what is for it back to the network "
        "(it forwards)",
    )


def test_what_it_sends_back_and_another_one_answers_does_not_count(cluster: Lab) -> None:
    """The master's IPVS gives it to rs2, whose answer is a right one in all but its sender."""
    web = virtual_server(f"tcp {VIP}:80", real_server(f"{RS2}:80", 1, Forward.DIRECT))
    changed.add("lb1")
    cluster["lb1"].in_network(lambda: ipvs.apply(table(web)))
    ip(cluster["rs1"], "link delete dummy0")
    sysctl(
        cluster["rs1"],
        "net.ipv4.ip_forward=1",
        "net.ipv4.conf.all.send_redirects=0",
        "net.ipv4.conf.eth0.send_redirects=0",
    )
    assert told(cluster["lb2"], path()) == (
        False,
        f"VIP {VIP} is gone from {RS1}, which sends what is for it back to the network: "
        f"{MAC2} answered in its place",
    )
    until(lambda: half_open(cluster["rs2"]) == [], "rs2 to forget it", seconds=3)


@FROM
@OF
def test_its_host_is_off(cluster: Lab, director: str, vip: str) -> None:
    assert told(cluster[director], tcp(at(vip)))[0]
    cluster["rs1"].power_cut()
    # The neighbour table still has it.
    assert told(cluster[director], path(vip)) == (
        False,
        f"the host is gone: no answer to a SYN for {shown(vip)}, nor to {ASKED_BY[vip]} for "
        f"{at(vip)} on eth0",
    )
    ip(cluster[director], f"neighbour flush to {at(vip)}")
    assert told(cluster[director], path(vip)) == (
        False,
        f"the host is gone: nobody answers {ASKED_BY[vip]} for {at(vip)} on eth0",
    )


@OF
def test_it_refuses_to_take_what_is_for_the_vip(cluster: Lab, vip: str) -> None:
    """As a firewall would, with ICMP; here by a routing rule that goes before the VIP's own."""
    rs1 = cluster["rs1"]
    sysctl(rs1, "net.ipv4.ip_forward=1")
    rule(rs1, f"to {vip} prohibit")
    assert told(cluster["lb2"], path(vip)) == (
        False,
        f"{at(vip)} refuses {shown(vip)} (ICMP unreachable): a firewall, or no VIP",
    )


def rule(host: LabHost, text: str) -> None:
    """A routing rule before all others, also for what comes in for this machine."""
    changed.add(host.name)
    six = ["-6"] if "fd00" in text else []
    for words in ("add pref 10 lookup local", "delete pref 0", f"add pref 5 {text}"):
        host.run(["ip", *six, "rule", *words.split()], check=True)


@OF
def test_its_mac_address_has_changed(cluster: Lab, vip: str) -> None:
    """The neighbour table has the former one, and IPVS sends there, until the host is heard."""
    lb1 = cluster["lb1"]
    assert told(lb1, path(vip))[0]
    ip(lb1, f"neighbour replace {at(vip)} dev eth0 lladdr {MAC1} nud reachable")
    ip(cluster["rs1"], "link set eth0 address 02:00:0a:0a:0a:99")
    ok, reason = told(lb1, path(vip))
    assert (ok, reason) == (
        False,
        f"no answer for {shown(vip)} from {MAC1}, which the neighbour table has for {at(vip)} on "
        f"eth0: 02:00:0a:0a:0a:99 answers {ASKED_BY[vip]} for it",
    )
    # The kernel has heard that answer too.
    until(lambda: told(lb1, path(vip))[0], "the new address to be used", seconds=5)


def test_answers_that_somebody_forges_do_not_count(cluster: Lab) -> None:
    """One that knows all addresses, and guesses the numbers."""
    ip(cluster["rs1"], "link delete dummy0")
    lb1 = bytes.fromhex("02000a0a0a0b")
    stop = threading.Event()
    sent = Counter[str]()

    def forge() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
            wire.bind(("eth0", 0))
            while not stop.is_set():
                wire.send(forged(lb1, random.choice(frames.OWN_PORTS), random.getrandbits(32)))
                sent["frames"] += 1

    forger = threading.Thread(target=lambda: cluster["rs2"].in_network(forge))
    forger.start()
    try:
        ok, reason = told(cluster["lb1"], path(), timeout=1)
    finally:
        stop.set()
        forger.join()
    assert ok is False and "is gone from" in reason
    assert sent["frames"] > 1000


def forged(to: bytes, port: int, acknowledged: int) -> bytes:
    """A SYN and ACK as rs1 would send it, by another's hand."""
    sender = bytes.fromhex(MAC1.replace(":", ""))
    aim = Aim(to, sender, ipaddress.ip_address(VIP), ipaddress.ip_address("10.10.10.11"), port)
    frame = bytearray(aim.syn(PORT, 1))
    at = 14 + 20
    frame[at + 8 : at + 12] = acknowledged.to_bytes(4, "big")
    frame[at + 13] = 0x12
    return bytes(frame)


@FROM
@OF
def test_nothing_stays_half_open_however_often_one_asks(
    cluster: Lab, director: str, vip: str
) -> None:
    # A listener has room for some half-open connections at a time; on a busy machine they last.
    for _ in range(10):
        found = asked(cluster[director], *[path(vip)] * 50, timeout=5)
        assert {verdict.reason for verdict in found} == {f"{at(vip)} serves {shown(vip)}"}
    assert half_open(cluster["rs1"]) == []


def test_nothing_stays_half_open_where_the_answers_are_lost(cluster: Lab) -> None:
    rs1 = cluster["rs1"]
    ip(cluster["lb1"], f"neighbour replace {RS1} dev eth0 lladdr {MAC1} nud permanent")
    ip(rs1, "neighbour replace 10.10.10.11 dev eth0 lladdr 02:00:0a:0a:0a:0b nud permanent")
    rs1.run(["tc", "qdisc", "add", "dev", "eth0", "root", "netem", "loss", "100%"], check=True)
    changed.add("rs1")
    seen: list[int] = []
    watcher = threading.Timer(TIMEOUT / 2, lambda: seen.append(len(half_open(rs1))))
    watcher.start()
    assert told(cluster["lb1"], path())[0] is False
    watcher.join()
    assert seen == [1], "it was never half open: this proves nothing"
    assert half_open(rs1) == []


def test_an_interface_that_is_down_says_nothing_of_a_real_server(cluster: Lab) -> None:
    ip(cluster["lb2"], "link set eth0 down")
    ok, reason = told(cluster["lb2"], path())
    assert (ok, reason) == (None, f"no path to {RS1}: no route leads there (ENETUNREACH)")


def test_an_interface_that_goes_down_meanwhile_comes_back_by_itself(cluster: Lab) -> None:
    lb2 = cluster["lb2"]
    check = Check("rs1", path(), Pace(0.2, jitter=0), timeout=0.1)
    ups: list[bool | None] = []

    def work() -> None:
        engine = probe.Engine()
        engine.set([check])
        for command in ("up", "down", "up"):
            ip(lb2, f"link set eth0 {command}")
            end = time.monotonic() + 10
            wanted = True if command == "up" else None
            while time.monotonic() < end:
                if any(verdict.ok is wanted for verdict in engine.step(0.1)):
                    ups.append(wanted)
                    break
        engine.close()

    lb2.in_network(work)
    assert ups == [True, None, True]


def test_a_real_server_behind_a_router_has_no_such_path(cluster: Lab) -> None:
    ip(cluster["lb2"], f"route add 192.168.7.0/24 via {RS1}")
    assert told(cluster["lb2"], path(real="192.168.7.1")) == (
        None,
        f"192.168.7.1 is behind the router {RS1}: direct routing needs it on the same network",
    )
    assert told(cluster["lb1"], path(real="10.10.10.11")) == (
        None,
        "10.10.10.11 is no neighbour of this machine, but a local address",
    )


def test_the_network_is_not_asked_before_each_check(cluster: Lab) -> None:
    """Not even by a director whose neighbour table has no real server in it."""
    lb2 = cluster["lb2"]
    ip(lb2, f"neighbour flush to {RS1}")

    def work() -> list[bool | None]:
        engine = probe.Engine()
        engine.set([Check("rs1", path(), Pace(0.1, jitter=0))])
        found: list[bool | None] = []
        until = time.monotonic() + 1
        while time.monotonic() < until:
            found += [verdict.ok for verdict in engine.step(0.1)]
        engine.close()
        return found

    with cluster["rs1"].capture() as packets:
        found = lb2.in_network(work)
    asked = [p for p in packets if p.kind == "arp" and p.source == "10.10.10.12"]
    assert len(found) >= 8 and set(found) == {True}
    # Ours, and at most the kernel's own for what it has to say about answers.
    assert 1 <= len([p for p in asked if p.operation == "request"]) <= 3


def test_no_vip_is_taken_for_the_sender(cluster: Lab) -> None:
    """Even where the kernel would."""
    lb1 = cluster["lb1"]
    ip(lb1, f"route replace 10.10.10.0/24 dev eth0 src {VIP}")
    with cluster["rs1"].capture() as packets:
        assert told(lb1, path())[0]
    assert {p.source for p in packets if p.destination == VIP} == {"10.10.10.11"}


# --------------------------------------------------------------------------------------------------
# What the kernel copies to us


@OF
def test_a_directors_traffic_is_not_copied(cluster: Lab, vip: str) -> None:
    """Clients' requests, from any port, the director's own connections, complaints about it,
    ARP, and a path check: of all that only its answer passes.
    """
    lb1, rs2 = cluster["lb1"], cluster["rs2"]
    own = "fd00::11" if ":" in vip else "10.10.10.11"

    def work() -> tuple[tuple[int, int], int]:
        engine = probe.Engine()
        engine.set([Check("rs1", path(vip), Pace(30, warmup=0))])
        until(lambda: engine.step(0.1), "the first verdict")
        (wire,) = engine.wires()
        first = wire.statistics()
        before = received("eth0")
        rs2.in_network(lambda: chatter(own))
        ip(rs2, f"neighbour flush to {own}")
        chatter("fd00::42" if ":" in vip else RS2)
        complaints("fd00::42" if ":" in vip else RS2)
        heard = wire.statistics(), received("eth0") - before
        engine.close()
        assert first == (2, 0), "its hardware address, and its SYN and ACK"
        return heard

    (passed, lost), packets = lb1.in_network(work)
    assert packets > 1000, "there was no traffic: this proves nothing"
    # The answers to the director's own questions by ARP or neighbour discovery, at most.
    assert passed <= 10 and lost == 0


def chatter(to: str) -> None:
    """Connections from ports of our own range and from others; most are refused."""
    for number in range(300):
        with socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET) as link:
            link.settimeout(1)
            link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if number % 2 and not to.endswith("42"):
                link.bind(("", random.choice(frames.OWN_PORTS)))
            with contextlib.suppress(OSError):
                link.connect((to, PORT))
                link.send(b"hello")


def complaints(to: str) -> None:
    """What brings back ICMP unreachable."""
    with socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_DGRAM) as link:
        for _ in range(20):
            with contextlib.suppress(OSError):
                link.sendto(b"?", (to, 9))


def received(interface: str) -> int:
    lines = File("/proc/thread-self/net/dev").read_text(encoding="ascii").splitlines()
    (line,) = (line for line in lines if line.strip().startswith(f"{interface}:"))
    words = line.partition(":")[2].split()
    return int(words[1]) + int(words[9])


# --------------------------------------------------------------------------------------------------
# The other kinds


def test_connections_in_every_way(cluster: Lab) -> None:
    rs2 = cluster["rs2"]
    cluster["rs1"].power_cut()
    rule(rs2, f"to {RS2} ipproto tcp dport 81 blackhole")
    hows = [tcp(RS2), tcp("fd00::42"), tcp(RS2, 82), tcp(RS2, 81), tcp(RS1), tcp("192.0.2.1")]
    found = asked(cluster["lb1"], *hows, timeout=4)
    assert [(verdict.ok, verdict.reason) for verdict in found] == [
        (True, f"{RS2}:80 took the connection"),
        (True, "[fd00::42]:80 took the connection"),
        (False, f"nothing listens on {RS2}:82: the connection was refused"),
        (False, f"no answer from {RS2}:81 within 4 s"),
        (False, f"the host is gone: nobody answers for the address of {RS1}:80"),
        (None, "192.0.2.1:80 could not be asked: Network is unreachable (ENETUNREACH)"),
    ]


def test_a_check_comes_from_the_address_that_was_chosen(cluster: Lab) -> None:
    ip(cluster["lb2"], "address add 10.10.10.99/24 dev eth0")
    bound = tcp(RS2, bindto=ipaddress.ip_address("10.10.10.99"))
    missing = tcp(RS2, bindto=ipaddress.ip_address("10.10.10.98"))
    with cluster["rs2"].capture() as packets:
        found = asked(cluster["lb2"], bound, missing)
        time.sleep(0.1)
    assert [(verdict.ok, verdict.reason) for verdict in found] == [
        (True, f"{RS2}:80 took the connection"),
        (
            None,
            f"{RS2}:80 could not be asked: Cannot assign requested address (EADDRNOTAVAIL)",
        ),
    ]
    assert {p.source for p in packets if p.destination_port == PORT} == {"10.10.10.99"}


# --------------------------------------------------------------------------------------------------
# What an operator gets

PILLAR = """
lvs:
  directors: {lb1: {priority: 150}, lb2: {priority: 50}}
  real_servers: {rs1: {address: 10.10.10.41}, rs2: {address: 10.10.10.42}}
  vrrp_instances:
    VirtIP_10: {interface: eth0, virtual_router_id: 10, virtual_ipaddress: [10.10.10.10]}
  virtual_servers:
    web: {address: 10.10.10.10, port: 80, check: {connect_timeout: 1}, real_servers: [rs1, rs2]}
"""


@FROM
def test_all_real_servers_of_a_virtual_server_at_once(cluster: Lab, director: str) -> None:
    """rs1 has lost its VIP, which a connection to its own address does not see."""
    ip(cluster["rs1"], "link delete dummy0")
    pillar = model.from_pillar(yaml.safe_load(PILLAR))
    began = time.monotonic()
    found = cluster[director].in_network(lambda: fresh.ask(pillar, "web"))
    assert time.monotonic() - began < 3
    told_of = {
        name: [(c["check"], c["place"], c["ok"], c["reason"].split(",")[0]) for c in of["checks"]]
        for name, of in found.items()
    }
    assert {name: of["ok"] for name, of in found.items()} == {"rs1": False, "rs2": True}
    assert told_of == {
        "rs1": [
            ("path", "10.10.10.10:80", False, f"VIP {VIP} is gone from {RS1}"),
            ("tcp", "10.10.10.41:80", True, f"{RS1}:80 took the connection"),
        ],
        "rs2": [
            ("path", "10.10.10.10:80", True, f"{RS2} serves {VIP}:80"),
            ("tcp", "10.10.10.42:80", True, f"{RS2}:80 took the connection"),
        ],
    }
