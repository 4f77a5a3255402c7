"""What a check says of a real server, held against what becomes of a client's real packets.

A director's IPVS, clients and the real server are machines of their own network each; the real
server is this test's own.

     clients (10.10.10.100)     director (.11, VIP .10)     real server (.41, VIP on dummy0)
          |                          |                          |
     -----+--------------------------+--------------------------+-----  10.10.10.0/24, fd00::/64
                                     |                          |
     clients (10.20.20.100) ---------+--------------------------+-----  10.20.20.0/24
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from saltext.lvs import arp, model, rtnetlink, verdicts

from tests.functional.conftest import Minion, example
from tests.lab import namespaces

pytestmark = pytest.mark.usefixtures("netns")

T = TypeVar("T")

DIRECTOR, CLIENT, LAN = "check-director", "check-client", "check-lan"
VIP, VIP6, OWN = "10.10.10.10", "fd00::10", "10.10.10.41"
NEAR, ACROSS = "10.10.10.100", "10.20.20.100"
# A packet that is dropped is waited for that long.
SECONDS = 0.7


def sh(command: str, network: str | None = None) -> str:
    """Run a command in a named network; in the real server's without one."""
    words = [*(("ip", "netns", "exec", network) if network else ()), *command.split()]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def ip(command: str, network: str | None = None) -> str:
    return sh(f"ip {command}", network)


def put(setting: str, value: int, network: str | None = None) -> None:
    sh(f"sysctl -qw {setting}={value}", network)


def inside(network: str, function: Callable[[], T]) -> T:
    """Call a function in a named network."""
    results: list[T] = []
    errors: list[Exception] = []

    def work() -> None:
        try:
            namespaces.enter_network(f"/run/netns/{network}")
            results.append(function())
        except Exception as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


@pytest.fixture(autouse=True)
def network(netns: object) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for name in (LAN, DIRECTOR, CLIENT):
            stack.enter_context(namespaces.named_network(name))
        for name in (None, DIRECTOR, CLIENT):
            # Addresses are there at once.
            put("net.ipv6.conf.default.accept_dad", 0, name)
            put("net.ipv4.conf.default.rp_filter", 0, name)
        put("net.ipv4.conf.all.arp_ignore", 1)
        put("net.ipv4.conf.all.arp_announce", 2)
        ip("link add lan type bridge", LAN)
        ip("link add across type bridge", LAN)
        ip("link set lan up", LAN)
        ip("link set across up", LAN)
        for name, host in ((None, 41), (DIRECTOR, 11), (CLIENT, 100)):
            for interface, bridge, prefix in (
                ("eth0", "lan", "10.10.10"),
                ("eth1", "across", "10.20.20"),
            ):
                port = f"{interface}-{host}"
                ip(f"link add {interface} type veth peer name {port} netns {LAN}", name)
                ip(f"link set {port} master {bridge} up", LAN)
                ip(f"address add {prefix}.{host}/24 dev {interface}", name)
                ip(f"link set {interface} up", name)
            ip(f"address add fd00::{host}/64 dev eth0 nodad", name)
        ip(f"address add {VIP}/32 dev eth0", DIRECTOR)
        ip("link add dummy0 up arp off type dummy")
        ip(f"address add {VIP}/32 dev dummy0 noprefixroute")
        ip(f"address add {VIP6}/128 dev dummy0 nodad")
        # Clients on the other side ask the director, as by a router.
        put("net.ipv4.ip_forward", 1, DIRECTOR)
        yield


# --------------------------------------------------------------------------------------------------
# The service and its clients


def listening(address: str, port: int, v6only: bool = False) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if made.family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
    made.bind((address, port))
    made.listen()
    return made


def bound(address: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((address, port))
    return made


@contextlib.contextmanager
def serving(made: socket.socket) -> Iterator[None]:
    """Answer on a socket, a connection or a datagram at a time, until it is closed."""

    def answer() -> None:
        with contextlib.suppress(OSError):
            while True:
                if made.type == socket.SOCK_DGRAM:
                    _, peer = made.recvfrom(64)
                    if peer is None:  # it was shut down
                        return
                    made.sendto(b"here", peer)
                else:
                    accepted, _ = made.accept()
                    with contextlib.closing(accepted), contextlib.suppress(OSError):
                        accepted.sendall(b"here")

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            made.shutdown(socket.SHUT_RDWR)
        if made.type == socket.SOCK_DGRAM:  # which no shutdown wakes when it has no peer
            with bound("127.0.0.1", 0) as waker:
                waker.sendto(b"", ("127.0.0.1", made.getsockname()[1]))
        made.close()
        thread.join(2)


def asks(source: str = NEAR, port: int = 80, kind: int = socket.SOCK_STREAM) -> str:
    """What a client gets of the VIP: the service's word, or the word for why not."""

    def ask() -> str:
        with socket.socket(socket.AF_INET, kind) as made:
            made.settimeout(SECONDS)
            made.bind((source, 0))
            try:
                made.connect((VIP, port))
                made.send(b"?")
                return made.recv(64).decode()
            except TimeoutError:
                return "silence"
            except ConnectionRefusedError:
                return "refused"
            except OSError as error:
                return errno.errorcode[error.errno or 0]

    return inside(CLIENT, ask)


def forwarding(how: str = "-g", protocol: str = "-t", at: str = VIP, port: int = 80) -> None:
    """Have the director send a virtual server's clients here."""
    sh("ipvsadm -C", DIRECTOR)
    sh(f"ipvsadm -A {protocol} {at}:{port} -s rr", DIRECTOR)
    sh(f"ipvsadm -a {protocol} {at}:{port} -r {OWN}:{port} {how}", DIRECTOR)


# --------------------------------------------------------------------------------------------------
# The check


def cluster(own: str = OWN, **changes: Any) -> model.Cluster:
    """One virtual server with one real server; with changes to the virtual server."""
    virtual_server = {
        "address": VIP,
        "port": 80,
        "protocol": "tcp",
        "scheduler": "rr",
        "forward": "direct",
        "real_servers": {"rs1": {"weight": 1}},
        **changes,
    }
    if "fwmark" in changes:
        del virtual_server["protocol"], virtual_server["port"]
    return model.from_pillar(
        {
            "lvs": {
                "name": "prod",
                "directors": {
                    "lb1": {
                        "router_id": "LB1",
                        "state": "MASTER",
                        "priority": 150,
                        "address": "10.10.10.11",
                    }
                },
                "real_servers": {"rs1": {"address": own}},
                "vrrp_instances": {
                    "V": {
                        "interface": "eth0",
                        "virtual_router_id": 10,
                        "advert_int": 1,
                        "virtual_ipaddress": [virtual_server["address"]],
                    }
                },
                "virtual_servers": {"web": virtual_server},
            }
        }
    )


def checked(*clients: str, **changes: Any) -> dict[str, verdicts.Verdict]:
    """The four answers, for clients in the real server's own network."""
    of = cluster(**changes)
    ingress = arp.ingress(rtnetlink.read_all(), ipaddress.ip_address(OWN))
    machine = verdicts.read_machine("dummy0", ingress, verdicts.routers(of))
    asked = [ipaddress.ip_address(client) for client in clients or (NEAR, "fd00::100")]
    judged = verdicts.judge(verdicts.services(of, "rs1"), machine, asked)
    return {question: verdicts.summary(each) for question, each in judged["web"].items()}


def oks(*clients: str, **changes: Any) -> dict[str, bool | None]:
    return {question: verdict.ok for question, verdict in checked(*clients, **changes).items()}


RIGHT = {"arp": True, "accepted": True, "listening": True, "source": True}


def test_a_right_real_server_is_found_right_and_serves() -> None:
    forwarding()
    with serving(listening(VIP, 80)):
        told = {question: str(verdict) for question, verdict in checked().items()}
        assert oks() == RIGHT
        assert asks() == "here"
    assert told == {
        "arp": "nobody hears of 10.10.10.10 on eth0",
        "accepted": "the kernel takes packets for 10.10.10.10 from eth0",
        "listening": "the service listens on TCP 10.10.10.10:80",
        "source": "answers leave by eth0 with 10.10.10.10 as their source",
    }


# --------------------------------------------------------------------------------------------------
# Held, and accepted


@pytest.mark.parametrize(
    ("forward", "harm"),
    [
        (0, "the kernel drops what clients send to it"),
        (1, "this machine forwards, and sends what is meant for it back to the director"),
    ],
    ids=["of an ordinary machine", "of a machine that forwards"],
)
def test_a_vip_that_is_gone_is_told(forward: int, harm: str) -> None:
    forwarding()
    put("net.ipv4.ip_forward", forward)
    put("net.ipv4.conf.all.arp_ignore", 1)
    with serving(listening("0.0.0.0", 80)):
        assert asks() == "here"
        ip(f"address del {VIP}/32 dev dummy0")
        told = checked()
        assert asks() == "silence"
    gone = f"dummy0 does not hold 10.10.10.10/32, so {harm}: run state.apply, or dummy.present"
    assert {question: (verdict.ok, str(verdict)) for question, verdict in told.items()} == {
        "arp": (True, "nobody hears of 10.10.10.10 on eth0"),
        "accepted": (False, gone),
        "listening": (True, "the service listens on TCP 10.10.10.10:80"),
        "source": (False, gone),
    }


@pytest.mark.parametrize(
    "blamed", [["eth0"], ["all"], ["all", "eth0"]], ids=["its own", "all's", "both"]
)
def test_a_strict_reverse_path_filter_drops_clients_who_are_answered_another_way(
    blamed: list[str],
) -> None:
    forwarding()
    ip(f"route add {VIP} via 10.20.20.11 src {ACROSS}", CLIENT)
    with serving(listening(VIP, 80)):
        assert (oks(ACROSS), asks(ACROSS)) == (RIGHT, "here")
        for name in blamed:
            put(f"net.ipv4.conf.{name}.rp_filter", 1)
        told = checked(ACROSS)["accepted"]
        assert (told.ok, asks(ACROSS)) == (False, "silence")
        settings = " and ".join(f"net.ipv4.conf.{name}.rp_filter" for name in blamed)
        assert str(told) == (
            "packets from 10.20.20.100 for 10.10.10.10 that come in by eth0 are dropped: "
            f"{settings} is 1, and what answers them leaves by eth1: set "
            "net.ipv4.conf.eth0.rp_filter = 2 (the kernel takes the larger of it and all's)"
        )
        put("net.ipv4.conf.eth0.rp_filter", 2)
        assert (oks(ACROSS), asks(ACROSS)) == (RIGHT, "here")


@pytest.mark.parametrize("filtering", [1, 2], ids=["strict", "loose"])
def test_a_filter_wants_a_way_back(filtering: int) -> None:
    ip("address add 192.0.2.7/32 dev lo", CLIENT)
    ip(f"route add {VIP} via 10.10.10.11 src 192.0.2.7", CLIENT)
    forwarding()
    put("net.ipv4.conf.all.rp_filter", filtering)
    with serving(listening(VIP, 80)):
        told = checked("192.0.2.7")
        assert asks("192.0.2.7") == "silence"
        assert (told["accepted"].ok, str(told["accepted"])) == (
            False,
            "packets from 192.0.2.7 for 10.10.10.10 that come in by eth0 are dropped: "
            f"net.ipv4.conf.all.rp_filter is {filtering}, and no way leads back to it, because no "
            "route leads there (ENETUNREACH): give this machine a route to its clients",
        )
        ip("route add default via 10.10.10.100")
        assert (oks("192.0.2.7"), asks("192.0.2.7")) == (RIGHT, "here")


def test_an_interface_that_is_down_takes_nothing() -> None:
    ip("link set eth0 down")
    told = checked()["accepted"]
    assert (told.ok, str(told)) == (
        False,
        "no packet for 10.10.10.10 comes in by eth0, which is down: ip link set eth0 up",
    )


def test_a_rule_that_sends_packets_on_is_told() -> None:
    forwarding()
    put("net.ipv4.ip_forward", 1)
    put("net.ipv4.conf.all.arp_ignore", 1)
    ip("route add default via 10.20.20.11 table 7")
    ip("rule add pref 1 iif lo lookup local")
    ip(f"rule add pref 2 to {VIP} iif eth0 lookup 7")
    ip("rule add pref 3 lookup local")
    ip("rule del pref 0")
    with serving(listening(VIP, 80)):
        told = checked()["accepted"]
        assert (told.ok, asks()) == (False, "EHOSTUNREACH")
    assert str(told) == (
        "the kernel sends packets for 10.10.10.10 that come in by eth0 on by eth1, although this "
        "machine holds it: look for a rule or a route of yours that does so: ip rule; ip route "
        "show table all"
    )


# --------------------------------------------------------------------------------------------------
# Through a tunnel


def tunnel_told(**changes: Any) -> tuple[bool | None, str]:
    told = checked(forward="tunnel", **changes)["accepted"]
    return told.ok, str(told)


FILTERED = (
    False,
    "packets from 10.10.10.100 for 10.10.10.10 that come in by tunl0 are dropped: "
    "net.ipv4.conf.tunl0.rp_filter is {}, and what answers them leaves by eth0: set both "
    "net.ipv4.conf.tunl0.rp_filter and net.ipv4.conf.all.rp_filter = 0 (the kernel takes the "
    "larger of the two, and 2 lets nothing in by an interface without an IPv4 address)",
)
UNWRAPPED = (True, "the kernel takes packets for 10.10.10.10 from tunl0")


def test_a_tunnel_needs_its_end_up_and_unfiltered() -> None:
    forwarding("-i")
    nothing = "so packets for 10.10.10.10 are never unwrapped"
    with serving(listening(VIP, 80)):
        # Without the module, which another test may have loaded, it would not even be there.
        sh("modprobe ipip")
        assert (tunnel_told(), asks()) == (
            (
                False,
                f"no interface that ends a tunnel of kind ipip is up, {nothing}: "
                "ip link set tunl0 up",
            ),
            "refused",
        )
        ip("link set tunl0 up")
        for filtering in (1, 2):
            put("net.ipv4.conf.tunl0.rp_filter", filtering)
            told = (FILTERED[0], FILTERED[1].format(filtering))
            assert (tunnel_told(), asks()) == (told, "silence")
        put("net.ipv4.conf.tunl0.rp_filter", 0)
        assert (tunnel_told(), asks()) == (UNWRAPPED, "here")


def test_a_tunnels_end_that_holds_the_vip_may_be_filtered_loosely() -> None:
    forwarding("-i")
    sh("modprobe ipip")
    ip("link set tunl0 up")
    ip(f"address del {VIP}/32 dev dummy0")
    ip(f"address add {VIP}/32 dev tunl0")
    with serving(listening(VIP, 80)):
        put("net.ipv4.conf.tunl0.rp_filter", 1)
        told = tunnel_told()
        assert (told[0], asks()) == (False, "silence")
        assert told[1].endswith(
            "set net.ipv4.conf.tunl0.rp_filter = 2 (the kernel takes the larger of it and all's)"
        )
        put("net.ipv4.conf.tunl0.rp_filter", 2)
        assert (tunnel_told(), asks()) == (UNWRAPPED, "here")


def test_gue_needs_somebody_to_take_off_its_udp_header() -> None:
    forwarding("-i --tun-type gue --tun-port 5555 --tun-nocsum")
    sh("modprobe ipip")
    sh("modprobe fou")
    ip("link set tunl0 up")
    gue = {"tunnel_type": "gue", "tunnel_port": 5555}
    with serving(listening(VIP, 80)):
        assert (tunnel_told(**gue), asks()) == (
            (
                False,
                "nothing takes packets off UDP port 5555, to which directors send them: "
                "modprobe fou && ip fou add port 5555 gue",
            ),
            "refused",
        )
        ip("fou add port 5555 gue")
        assert (tunnel_told(**gue), asks()) == (UNWRAPPED, "here")


def test_gre_has_an_end_of_its_own() -> None:
    forwarding("-i --tun-type gre --tun-nocsum")
    sh("modprobe ip_gre")
    gre = {"tunnel_type": "gre"}
    with serving(listening(VIP, 80)):
        assert (tunnel_told(**gre)[0], asks()) == (False, "refused")
        ip("link set gre0 up")
        assert (tunnel_told(**gre), asks()) == (
            (True, "the kernel takes packets for 10.10.10.10 from gre0"),
            "here",
        )


# --------------------------------------------------------------------------------------------------
# ARP and neighbour discovery


def who_has(vip: str) -> set[str]:
    """The names of those who answer a client's ARP request for an address."""

    def ask() -> set[str]:
        broadcast, kind = b"\xff" * 6, 0x0806
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(kind)) as wire:
            wire.bind(("eth0", kind))
            own = wire.getsockname()[4]
            head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
            asked = own + socket.inet_aton(NEAR) + bytes(6) + socket.inet_aton(vip)
            wire.send(broadcast + own + struct.pack("!H", kind) + head + asked)
            wire.settimeout(SECONDS)
            answers: set[str] = set()
            with contextlib.suppress(TimeoutError):
                while True:
                    data = wire.recv(2048)
                    if data[20:22] == b"\0\2" and data[28:32] == socket.inet_aton(vip):
                        answers.add(data[22:28].hex(":"))
            return answers

    macs = {mac(name): name or "real server" for name in (None, DIRECTOR)}
    return {macs[answer] for answer in inside(CLIENT, ask)}


def mac(network: str | None) -> str:
    return sh("cat /sys/class/net/eth0/address", network).strip() if network else own_mac()


def own_mac() -> str:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
        wire.bind(("eth0", 0))
        found: bytes = wire.getsockname()[4]
    return found.hex(":")


def test_a_machine_that_answers_arp_for_the_vip_is_told() -> None:
    with serving(listening(VIP, 80)):
        assert (oks(), who_has(VIP)) == (RIGHT, {DIRECTOR})
        put("net.ipv4.conf.all.arp_ignore", 0)
        told = checked()["arp"]
        assert (told.ok, who_has(VIP)) == (False, {DIRECTOR, "real server"})
    assert str(told) == (
        "this machine answers ARP requests for its VIPs on eth0: net.ipv4.conf.all.arp_ignore and "
        "net.ipv4.conf.eth0.arp_ignore is 0, it should be 1"
    )


def test_a_vip_on_an_interface_to_the_outside_is_told() -> None:
    ip(f"address add {VIP}/32 dev eth0")
    told = checked()["arp"]
    assert (told.ok, who_has(VIP)) == (False, {DIRECTOR, "real server"})
    assert str(told) == (
        "eth0 holds 10.10.10.10 itself, so this machine answers ARP requests for it: take it away "
        "there (ip address del 10.10.10.10/32 dev eth0) and leave it to dummy0"
    )


def solicited() -> bool:
    """Whether a client that looks for the IPv6 VIP finds anybody; only the real server has it."""

    def look() -> None:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as made:
            made.sendto(b"?", (VIP6, 9))

    ip("-6 neighbour flush dev eth0", CLIENT)
    inside(CLIENT, look)
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if "lladdr" in ip(f"-6 neighbour show {VIP6}", CLIENT):
            return True
    return False


def heard() -> tuple[bool | None, str]:
    told = checked(address=VIP6, own="fd00::41")["arp"]
    return told.ok, str(told)


def test_an_ipv6_vip_is_heard_of_where_an_outside_interface_has_it() -> None:
    assert (heard(), solicited()) == ((True, "nobody hears of fd00::10 on eth0"), False)
    ip(f"address add {VIP6}/128 dev eth0 nodad")
    assert (heard(), solicited()) == (
        (
            False,
            "eth0 holds fd00::10 itself, so this machine answers neighbour solicitations for it: "
            "take it away there (ip address del fd00::10/128 dev eth0) and leave it to dummy0",
        ),
        True,
    )


def test_an_ipv6_vip_is_heard_of_by_a_proxy_that_is_on() -> None:
    ip(f"-6 neighbour add proxy {VIP6} dev eth0")
    assert (heard()[0], solicited()) == (True, False)
    put("net.ipv6.conf.all.forwarding", 1)
    put("net.ipv6.conf.eth0.proxy_ndp", 1)
    assert (heard(), solicited()) == (
        (
            False,
            "this machine answers neighbour solicitations for fd00::10 on eth0 as a proxy: end "
            "that: ip -6 neighbour del proxy fd00::10 dev eth0",
        ),
        True,
    )


# --------------------------------------------------------------------------------------------------
# Listening

BIND = "have the service listen on 10.10.10.10, or on every address"


@pytest.mark.parametrize(
    ("where", "v6only", "told", "answer"),
    [
        (VIP, False, (True, "the service listens on TCP 10.10.10.10:80"), "here"),
        ("0.0.0.0", False, (True, "the service listens on TCP 10.10.10.10:80"), "here"),
        ("::", False, (True, "the service listens on TCP 10.10.10.10:80"), "here"),
        (
            "::",
            True,
            (
                False,
                "nothing listens on TCP 10.10.10.10:80, only on [::]:80 for IPv6 alone: " + BIND,
            ),
            "refused",
        ),
        (
            OWN,
            False,
            (False, "nothing listens on TCP 10.10.10.10:80, only on 10.10.10.41:80: " + BIND),
            "refused",
        ),
    ],
    ids=["the VIP", "every IPv4 address", "every address", "every IPv6 address", "its own address"],
)
def test_a_service_that_listens_elsewhere_is_told(
    where: str, v6only: bool, told: tuple[bool, str], answer: str
) -> None:
    forwarding()
    with serving(listening(where, 80, v6only)):
        verdict = checked()["listening"]
        assert ((verdict.ok, str(verdict)), asks()) == (told, answer)


def test_no_service_at_all_is_told() -> None:
    forwarding()
    told = checked()["listening"]
    assert (told.ok, asks()) == (False, "refused")
    assert str(told) == "nothing listens on TCP 10.10.10.10:80: start the service on it"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"fwmark": 7},
            "a firewall mark says nothing of ports, so none can be looked for",
        ),
        ({"protocol": "sctp"}, "who listens on SCTP 10.10.10.10:80 is not looked at"),
    ],
    ids=["a firewall mark", "SCTP"],
)
def test_what_cannot_be_known_is_said_to_be_so(changes: dict[str, Any], reason: str) -> None:
    told = checked(**changes)["listening"]
    assert (told.ok, str(told)) == (None, reason)


# --------------------------------------------------------------------------------------------------
# The answer


def test_a_client_that_no_answer_reaches_is_told() -> None:
    forwarding()
    with serving(listening(VIP, 80)):
        ip(f"route add unreachable {NEAR}")
        told = checked()["source"]
        assert (told.ok, asks()) == (False, "silence")
        assert str(told) == (
            "no answer from 10.10.10.10 to 10.10.10.100 can leave, because an unreachable route "
            "refuses it (EHOSTUNREACH): give this machine a route to its clients"
        )


def test_a_vip_with_a_prefix_that_swallows_the_answers_is_told() -> None:
    forwarding()
    ip(f"address del {VIP}/32 dev dummy0")
    ip(f"address add {VIP}/24 dev dummy0")
    with serving(listening(VIP, 80)):
        assert (checked()["source"].ok, asks()) == (True, "here")
        # As a pulled cable does, or a boot that brings dummy0 up first.
        ip("link set eth0 down")
        ip("link set eth0 up")
        told = checked()["source"]
        assert (told.ok, asks()) == (False, "silence")
    assert str(told) == (
        "answers to 10.10.10.100 leave by dummy0, where nobody is: it has a route to a whole "
        "network: let dummy0 hold VIPs with prefix /32 alone, and take the route away (ip route "
        "show dev dummy0)"
    )


def test_a_vip_with_a_prefix_on_the_loopback_is_told() -> None:
    forwarding()
    ip(f"address del {VIP}/32 dev dummy0")
    ip(f"address add {VIP}/24 dev lo")
    with serving(listening(VIP, 80)):
        told = checked()["source"]
        assert (told.ok, asks()) == (False, "silence")
    assert str(told) == (
        "answers to 10.10.10.100 never leave: this machine takes the address for its own, because "
        "lo holds one with a whole network: let lo hold VIPs with prefix /32 alone"
    )


def test_a_machine_without_a_default_route_has_a_doubt_and_no_fault() -> None:
    of = cluster()
    ingress = arp.ingress(rtnetlink.read_all(), ipaddress.ip_address(OWN))
    machine = verdicts.read_machine("dummy0", ingress)
    put("net.ipv4.conf.all.rp_filter", 1)
    judged = verdicts.judge(verdicts.services(of, "rs1"), machine)["web"]
    doubt = (
        "this machine has no route beyond its own networks, so no client there gets an answer: add "
        "a default route if there are such clients"
    )
    assert [(verdict.ok, str(verdict)) for verdict in judged["source"]] == [
        (True, "answers leave by eth0 with 10.10.10.10 as their source"),
        (None, doubt),
    ]
    assert {verdict.ok for verdict in judged["accepted"]} == {True}
    ip("route add default via 10.10.10.100")
    judged = verdicts.judge(verdicts.services(of, "rs1"), machine)["web"]
    assert {verdict.ok for verdict in judged["source"]} == {True}


def test_a_datagram_from_every_address_does_not_come_from_the_vip() -> None:
    forwarding(protocol="-u", port=53)
    udp = {"protocol": "udp", "port": 53}
    with serving(bound("0.0.0.0", 53)):
        told = checked(**udp)
        # The client asked 10.10.10.10 and is answered by 10.10.10.41.
        assert asks(port=53, kind=socket.SOCK_DGRAM) == "silence"
    assert {question: verdict.ok for question, verdict in told.items()} == {**RIGHT, "source": None}
    assert str(told["source"]) == (
        "the service listens on every address for UDP port 53: unless it sees to it itself, its "
        "answers bear 10.10.10.41 instead of the VIP, and clients drop them: have it listen on "
        "10.10.10.10"
    )
    with serving(bound(VIP, 53)):
        assert (oks(**udp), asks(port=53, kind=socket.SOCK_DGRAM)) == (RIGHT, "here")


# --------------------------------------------------------------------------------------------------
# Masqueraded


def test_masquerading_needs_no_vip_but_a_way_back_through_the_director() -> None:
    forwarding("-m")
    ip(f"address del {VIP}/32 dev dummy0")
    ip(f"route add {VIP} via 10.20.20.11 src {ACROSS}", CLIENT)
    put("net.ipv4.conf.all.send_redirects", 0, DIRECTOR)
    ip("route add 10.20.20.100/32 via 10.10.10.100")
    with serving(listening(OWN, 80)):
        told = checked(ACROSS, forward="masq")
        assert asks(ACROSS) == "silence"
        assert {question: verdict.ok for question, verdict in told.items()} == {
            **RIGHT,
            "source": None,
        }
        assert str(told["source"]) == (
            "answers to 10.20.20.100 go through 10.10.10.100; whether that is a director, the "
            "pillar does not say: with masquerading it has to be one: make it an address that "
            "moves with the VIPs"
        )
        ip("route replace 10.20.20.100/32 via 10.10.10.11")
        put("net.ipv4.conf.all.rp_filter", 0)
        told = checked(ACROSS, forward="masq")
        assert {question: verdict.ok for question, verdict in told.items()} == RIGHT
        assert str(told["source"]) == "answers go back through the director 10.10.10.11"
        assert asks(ACROSS) == "here"


def test_a_masqueraded_client_next_door_is_answered_past_the_director() -> None:
    forwarding("-m")
    with serving(listening(OWN, 80)):
        told = checked(forward="masq")["source"]
        assert (told.ok, asks()) == (False, "silence")
    assert str(told) == (
        "answers to 10.10.10.100 leave by eth0 straight to it, past the director, which would make "
        "the VIP their source: with masquerading, clients must not be in a real server's own "
        "networks"
    )


# --------------------------------------------------------------------------------------------------
# Through Salt


@pytest.fixture
def rs1(tmp_path: Path) -> Minion:
    pillar = example("production")
    pillar["lvs"]["vip_persistence"] = False
    return Minion("rs1", pillar, tmp_path)


def test_a_check_gives_findings_warnings_and_four_answers(rs1: Minion) -> None:
    with serving(listening(OWN, 80)):
        told = rs1.call("dummy.check")
    finding = f"nothing listens on TCP 10.10.10.10:80, only on 10.10.10.41:80: {BIND}"
    beyond = (
        "this machine has no route beyond its own networks, so no client there gets an answer: add "
        "a default route if there are such clients"
    )
    assert told == {
        "ok": False,
        "findings": [finding],
        "warnings": [beyond],
        "interface": "dummy0",
        "vips": ["10.10.10.10/32"],
        "lacking": [],
        "foreign": ["fd00::10/128"],
        "enabled": True,
        "sysctls": {
            "net.ipv4.conf.all.arp_announce": 2,
            "net.ipv4.conf.all.arp_ignore": 1,
            "net.ipv4.conf.eth0.arp_announce": 0,
            "net.ipv4.conf.eth0.arp_ignore": 0,
        },
        "virtual_servers": {
            "web": {
                "arp": {"ok": True, "reason": "nobody hears of 10.10.10.10 on eth0"},
                "accepted": {
                    "ok": True,
                    "reason": "the kernel takes packets for 10.10.10.10 from eth0",
                },
                "listening": {"ok": False, "reason": finding},
                "source": {"ok": None, "reason": beyond},
            }
        },
    }
    with serving(listening(VIP, 80)):
        told = rs1.call("dummy.check", NEAR)
    assert (told["ok"], told["findings"], told["warnings"]) == (True, [], [])


def test_a_vip_that_is_elsewhere_serves_but_is_told(rs1: Minion) -> None:
    ip(f"address del {VIP}/32 dev dummy0")
    ip(f"address add {VIP}/32 dev lo")
    with serving(listening(VIP, 80)):
        told = rs1.call("dummy.check", NEAR)
    assert told["findings"] == [
        "dummy0 does not hold 10.10.10.10/32; lo does, which nobody keeps so: run state.apply, or "
        "dummy.present"
    ]
    assert told["virtual_servers"]["web"]["accepted"]["ok"] is True
