"""What goes through IPVS, as the kernel counts it: statistics, connections, and the settings that
decide what becomes of them. Real clients, real servers, one machine.
"""

from __future__ import annotations

import contextlib
import re
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from saltext.lvs import connections, ipvs, namespaces, settings, stats
from saltext.lvs.errors import KernelError, NotAvailable
from saltext.lvs.model import Forward
from saltext.lvs.settings import SyncDaemon, SyncState
from saltext.lvs.stats import Counters, Rates

from tests.kernel.commands import run
from tests.unit.tables import key, real_server, table, virtual_server

pytestmark = pytest.mark.usefixtures("netns")

VIP, VIP6 = "10.10.10.10", "fd00::10"
WEB, WEB6, DNS = f"tcp {VIP}:80", f"tcp [{VIP6}]:80", f"udp {VIP}:53"
RS1 = real_server("127.0.0.1:8001", 1, Forward.MASQ)
RS2 = real_server("127.0.0.1:8002", 1, Forward.MASQ)
RS6 = real_server("[::1]:8001", 1, Forward.MASQ)
SECONDS = 10
# The kernel gathers its counters every two seconds.
GATHERED = 2.5


class Echo(socketserver.BaseRequestHandler):
    """Says its own port, then everything again."""

    request: socket.socket

    def handle(self) -> None:
        self.request.sendall(b"%d\n" % self.server.server_address[1])
        with contextlib.suppress(ConnectionError):
            while data := self.request.recv(1024):
                self.request.sendall(data)


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


class Server6(Server):
    address_family = socket.AF_INET6


@pytest.fixture(autouse=True)
def real_servers(netns: None) -> Iterator[None]:
    """Three of them, on this machine, and the VIPs."""
    run("modprobe ip_vs")
    run(f"ip address add {VIP}/32 dev lo")
    run(f"ip address add {VIP6}/128 dev lo nodad")
    servers = [
        Server(("127.0.0.1", 8001), Echo),
        Server(("127.0.0.1", 8002), Echo),
        Server6(("::1", 8001), Echo),
    ]
    for server in servers:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield
    for server in servers:
        server.shutdown()
        server.server_close()


def connect(address: str = VIP) -> tuple[socket.socket, int]:
    """A connection through the VIP, and the port of the real server that took it."""
    link = socket.create_connection((address, 80), timeout=SECONDS)
    return link, int(link.makefile().readline())


def exchange(times: int = 1, address: str = VIP) -> None:
    for _ in range(times):
        link, _ = connect(address)
        link.close()


def until(holds: Callable[[], object], what: str) -> None:
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end, f"{what} did not come within {SECONDS} s"
        time.sleep(0.1)


def counters(of: str = WEB) -> Counters:
    return stats.measure(only=key(of)).stats[key(of), None].counters


# --------------------------------------------------------------------------------------------------
# Statistics


def test_counters_are_those_of_ipvsadm() -> None:
    ipvs.apply(table(virtual_server(WEB, RS1, RS2, scheduler="rr"), virtual_server(WEB6, RS6)))
    exchange(6)
    exchange(3, VIP6)
    until(lambda: counters().connections == 6 and counters(WEB6).connections == 3, "the counters")
    told = [
        (words[1], [int(word) for word in words[2:]])
        for words in map(str.split, run("ipvsadm -Ln --stats --exact").splitlines()[3:])
    ]
    reading = stats.measure()
    ours = [
        (str(server or service).rpartition(" ")[2], list(found.counters.as_data().values()))
        for (service, server), found in reading.stats.items()
    ]
    assert sorted(ours) == sorted(told)
    by_server = {
        str(server): found.counters.connections
        for (service, server), found in reading.stats.items()
        if service == key(WEB)
    }
    assert by_server == {"None": 6, "127.0.0.1:8001": 3, "127.0.0.1:8002": 3}


def test_the_kernels_own_rates_are_those_of_ipvsadm() -> None:
    ipvs.apply(table(virtual_server(WEB, RS1)))
    exchange(400)
    until(lambda: counters().connections == 400, "the counters")
    found = stats.measure().stats[key(WEB), None].rates
    told = int(run("ipvsadm -Ln --rate").splitlines()[3].split()[2])
    # The rate falls by now, and may have been gathered once more between the two.
    assert 0 < told <= found.connections <= 2 * told


def test_rates_over_an_interval_are_what_came_in_it() -> None:
    ipvs.apply(table(virtual_server(WEB, RS1)))
    stop = threading.Event()
    sent: list[float] = []

    def ask() -> None:
        # A steady ten a second, counted from when they began.
        while not stop.wait(0.1):
            exchange()
            sent.append(time.monotonic())

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        time.sleep(GATHERED)
        found = stats.measure(4)
    finally:
        stop.set()
        asking.join()
    span = sent[-1] - sent[0]
    rate = (len(sent) - 1) / span
    measured = found.stats[key(WEB), None].rates
    assert measured.connections == pytest.approx(rate, rel=0.5)
    assert measured == found.stats[key(WEB), RS1.key].rates
    assert measured.incoming_bytes > 40 * measured.incoming_packets > 0


def test_zeroed_counters_begin_again_and_those_of_others_go_on() -> None:
    ipvs.apply(table(virtual_server(WEB, RS1), virtual_server(WEB6, RS6)))
    exchange(2)
    exchange(3, VIP6)
    until(lambda: counters().connections == 2 and counters(WEB6).connections == 3, "the counters")
    settings.zero(key(WEB))
    assert (counters(), counters(WEB6).connections) == (Counters(), 3)
    settings.zero()
    assert counters(WEB6) == Counters()
    exchange()
    until(lambda: counters().connections == 1, "the counters")


def test_without_estimation_the_counters_stand_still() -> None:
    ipvs.apply(table(virtual_server(WEB, RS1)))
    run("sysctl -qw net.ipv4.vs.run_estimation=0")
    exchange(3)
    time.sleep(GATHERED)
    assert counters() == Counters()
    run("sysctl -qw net.ipv4.vs.run_estimation=1")
    until(lambda: counters().connections == 3, "the counters")


def test_what_is_not_in_the_table_has_no_statistics() -> None:
    assert stats.measure().stats == {}
    with pytest.raises(KernelError) as caught:
        stats.measure(only=key(WEB))
    assert str(caught.value) == (
        "cannot read tcp 10.10.10.10:80: No such process (ESRCH); there is no such virtual server"
    )


def test_a_new_virtual_server_has_counted_nothing() -> None:
    ipvs.apply(table(virtual_server(WEB)))
    found = stats.measure().stats
    assert found == {(key(WEB), None): stats.Stats(Counters(), Rates())}


# --------------------------------------------------------------------------------------------------
# Connections


def told_connections() -> list[tuple[str, ...]]:
    """ipvsadm's list: protocol, state, client, virtual server and real server of each."""
    lines = run("ipvsadm -Lnc").splitlines()[2:]
    return sorted(
        (words[0].lower(), words[2], *words[3:6]) for words in (line.split() for line in lines)
    )


def ours(listing: connections.Listing) -> list[tuple[str, ...]]:
    return sorted(
        (
            found.protocol,
            found.state,
            found.client,
            found.virtual_server.rpartition(" ")[2],
            found.real_server,
        )
        for found in listing.page
    )


def test_connections_are_those_of_ipvsadm() -> None:
    ipvs.apply(
        table(
            virtual_server(WEB, RS1, scheduler="rr", persistence=300),
            virtual_server(WEB6, RS6),
            virtual_server(DNS, real_server("127.0.0.1:8053", 1, Forward.MASQ)),
        )
    )
    exchange(3)
    links = [connect(), connect(VIP6)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as question:
        question.sendto(b"?", (VIP, 53))
    until(lambda: connections.look().by_state.get("TIME_WAIT") == 3, "the end of the closed ones")
    listing = connections.look()
    assert ours(listing) == told_connections()
    assert listing.by_state == {"ASSURED": 1, "ESTABLISHED": 2, "TIME_WAIT": 3, "UDP": 1}
    assert listing.by_real_server == {
        "127.0.0.1:8001": {"ASSURED": 1, "ESTABLISHED": 1, "TIME_WAIT": 3},
        "127.0.0.1:8053": {"UDP": 1},
        "[::1]:8001": {"ESTABLISHED": 1},
    }
    assert (listing.total, listing.templates) == (7, 1)
    for link, _ in links:
        link.close()


FILTERS: dict[str, tuple[dict[str, str], int]] = {
    "a state": ({"state": "established"}, 3),
    "a client": ({"client": VIP}, 2),
    "a network": ({"client": "fd00::/64"}, 1),
    "a virtual server": ({"virtual_server": WEB6}, 1),
    "a real server": ({"real_server": "127.0.0.1:8001"}, 1),
    "a protocol that nobody speaks": ({"protocol": "sctp"}, 0),
}


def test_filters_find_what_they_name() -> None:
    ipvs.apply(table(virtual_server(WEB, RS1, RS2, scheduler="rr"), virtual_server(WEB6, RS6)))
    links = [connect(), connect(), connect(VIP6)]
    found = {
        name: connections.look(connections.filters(**wanted)).total
        for name, (wanted, _) in FILTERS.items()
    }
    assert found == {name: number for name, (_, number) in FILTERS.items()}
    for link, _ in links:
        link.close()


def test_the_time_until_a_connection_is_forgotten_is_its_timeout() -> None:
    settings.set_timeouts({"tcp": 1234})
    ipvs.apply(table(virtual_server(WEB, RS1)))
    link, _ = connect()
    (found,) = connections.look().page
    assert (found.state, found.expires) == ("ESTABLISHED", pytest.approx(1233, abs=1))
    link.close()


def test_a_firewall_marks_client_is_told_with_the_mark() -> None:
    ipvs.apply(table(), purge=True)
    run("ipvsadm -A -f 7 -s rr -p 60")
    run("ipvsadm -a -f 7 -r 127.0.0.1:8001 -m")
    link = socket.socket()
    # SO_MARK: as a firewall rule would mark the packets of such clients.
    link.setsockopt(socket.SOL_SOCKET, 36, 7)
    link.settimeout(SECONDS)
    link.connect((VIP, 8001))
    listing = connections.look(connections.filters(virtual_server="fwmark 7"))
    assert [(found.protocol, found.virtual_server) for found in listing.page] == [
        ("ip", "fwmark 7")
    ]
    assert connections.look(connections.filters(virtual_server=f"tcp {VIP}:8001")).total == 1
    link.close()


def test_a_page_is_no_more_than_was_asked_for() -> None:
    ipvs.apply(table(virtual_server(WEB, RS1)))
    exchange(30)
    pages = [connections.look(offset=offset, limit=10) for offset in (0, 10, 20, 30)]
    assert [(page.total, len(page.page)) for page in pages] == [(30, 10)] * 3 + [(30, 0)]
    assert len({found.client for page in pages for found in page.page}) == 30


# --------------------------------------------------------------------------------------------------
# Synchronization


@pytest.fixture
def other_director() -> Iterator[None]:
    """A second director in a namespace of its own, and a cable between the two."""
    run("ip netns add backup")
    run("ip link add eth0 type veth peer name eth0 netns backup")
    run("ip address add 10.10.20.11/24 dev eth0")
    run("ip address add fd00:20::11/64 dev eth0 nodad")
    run("ip link set eth0 up")
    run("ip -n backup address add 10.10.20.12/24 dev eth0")
    run("ip -n backup address add fd00:20::12/64 dev eth0 nodad")
    run("ip -n backup link set eth0 up")
    yield
    settings.stop_sync_daemon(SyncState.MASTER)
    namespaces.within("backup", lambda: settings.stop_sync_daemon(SyncState.BACKUP))
    run("ip netns delete backup")


DAEMONS: dict[str, tuple[dict[str, object], dict[str, object], bool]] = {
    "with the same number": ({"syncid": 10}, {"syncid": 10}, True),
    "whatever the master's number": ({"syncid": 10}, {"syncid": 0}, True),
    "not with another number": ({"syncid": 10}, {"syncid": 11}, False),
    "in a group and on a port of their own": (
        {"multicast_group": "239.1.2.3", "port": 9000, "maxlen": 1200},
        {"multicast_group": "239.1.2.3", "port": 9000},
        True,
    ),
    "in an IPv6 group": ({"multicast_group": "ff02::81"}, {"multicast_group": "ff02::81"}, True),
    "not on another port": ({"port": 9000}, {"port": 9001}, False),
}


@pytest.mark.usefixtures("other_director")
@pytest.mark.parametrize(("master", "backup", "learns"), DAEMONS.values(), ids=DAEMONS.keys())
def test_a_backup_learns_the_masters_connections(
    master: dict[str, object], backup: dict[str, object], learns: bool
) -> None:
    both = {"interface": "eth0"}
    wanted = SyncDaemon.from_data({"state": "backup", **both, **backup})
    namespaces.within("backup", lambda: settings.start_sync_daemon(wanted))
    settings.start_sync_daemon(SyncDaemon.from_data({"state": "master", **both, **master}))
    ipvs.apply(table(virtual_server(WEB, RS1)))
    link, _ = connect()
    for _ in range(5):
        link.sendall(b"more packets")
        link.recv(1024)
    found = connections.look().page

    def learnt() -> list[tuple[str, str]]:
        listing = namespaces.within("backup", connections.look)
        return [(connection.client, connection.real_server) for connection in listing.page]

    if learns:
        until(learnt, "the connection to the backup")
        assert learnt() == [(connection.client, connection.real_server) for connection in found]
    else:
        # The master sends what it has every two seconds at the latest.
        time.sleep(3)
        assert learnt() == []
    link.close()


# --------------------------------------------------------------------------------------------------
# What the recommended kernel settings do


@pytest.mark.parametrize(("value", "moves"), [(0, False), (1, True)])
def test_a_persistent_client_of_a_drained_real_server_moves(value: int, moves: bool) -> None:
    run(f"sysctl -qw net.ipv4.vs.expire_quiescent_template={value}")
    both = virtual_server(WEB, RS1, RS2, scheduler="rr", persistence=300)
    ipvs.apply(table(both))
    link, first = connect()
    link.close()
    drained = [
        real_server(f"127.0.0.1:{port}", port != first, Forward.MASQ) for port in (8001, 8002)
    ]
    ipvs.apply(table(virtual_server(WEB, *drained, scheduler="rr", persistence=300)))
    link, second = connect()
    link.close()
    assert (second != first) is moves


@pytest.mark.parametrize(("value", "ends"), [(0, False), (1, True)])
def test_a_connection_to_a_real_server_that_is_gone_ends(value: int, ends: bool) -> None:
    run(f"sysctl -qw net.ipv4.vs.expire_nodest_conn={value}")
    ipvs.apply(table(virtual_server(WEB, RS1)))
    link, _ = connect()
    ipvs.apply(table(virtual_server(WEB, RS2)))
    link.settimeout(1)
    link.sendall(b"still there?")
    # The packet that finds nobody is lost; the one that TCP sends after it ends the connection.
    with pytest.raises(ConnectionError if ends else TimeoutError):
        link.recv(1)
    link.close()


def test_a_backup_that_keeps_to_itself_directs_nothing() -> None:
    ipvs.apply(table(virtual_server(WEB, RS1)))
    run("sysctl -qw net.ipv4.vs.backup_only=1")
    exchange()
    for state in ("master", "backup"):
        settings.start_sync_daemon(SyncDaemon.from_data({"state": state, "interface": "lo"}))
    with pytest.raises(ConnectionRefusedError):
        connect()
    settings.stop_sync_daemon(SyncState.BACKUP)
    exchange()
    settings.stop_sync_daemon(SyncState.MASTER)


def test_there_are_no_connections_without_ipvs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "PATH", "/proc/thread-self/net/nothing")
    with pytest.raises(NotAvailable, match=re.escape(ipvs.NOT_LOADED)):
        connections.look()
