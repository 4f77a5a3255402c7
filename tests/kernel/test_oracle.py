"""Our codec and a second one agree, both ways, on all that the kernel's IPVS can hold."""

from __future__ import annotations

import subprocess
from socket import AF_INET, AF_INET6, IPPROTO_SCTP, IPPROTO_TCP, IPPROTO_UDP
from typing import Any

import pytest
from saltext.lvs import ipvs, settings
from saltext.lvs.table import Table

from tests.kernel.oracle import Attributes, InformationOracle, Oracle

pytestmark = pytest.mark.usefixtures("netns")

# What a virtual server has where nothing is said, as our plain values and as the kernel's.
SETTINGS = {
    "scheduler": "wlc",
    "persistence": 0,
    "netmask": 32,
    "one_packet": False,
    "scheduler_flags": [],
    "persistence_engine": "",
}
WEB: Attributes = {
    "af": AF_INET,
    "protocol": IPPROTO_TCP,
    "addr": "10.10.10.10",
    "port": 80,
    "sched_name": "wlc",
    "flags": 0,
    "timeout": 0,
    "netmask": "255.255.255.255",
}
WEB6: Attributes = {**WEB, "af": AF_INET6, "addr": "fd00::10", "netmask": 128}
MARK: Attributes = {
    "af": AF_INET,
    "fwmark": 7,
    "sched_name": "wlc",
    "flags": 0,
    "timeout": 0,
    "netmask": "255.255.255.255",
}

# IP_VS_SVC_F_* in linux/ip_vs.h
PERSISTENT, ONE_PACKET, SCHED1, SCHED2, SCHED3 = 1, 4, 8, 16, 32

VIRTUAL_SERVERS = {
    "tcp": ("tcp 10.10.10.10:80", {}, WEB),
    "udp, one packet at a time": (
        "udp 10.10.10.10:53",
        {"scheduler": "rr", "one_packet": True},
        {**WEB, "protocol": IPPROTO_UDP, "port": 53, "sched_name": "rr", "flags": ONE_PACKET},
    ),
    "sctp": (
        "sctp 10.10.10.10:9",
        {"scheduler": "wrr"},
        {**WEB, "protocol": IPPROTO_SCTP, "port": 9, "sched_name": "wrr"},
    ),
    "the highest port": ("tcp 10.10.10.10:65535", {}, {**WEB, "port": 65535}),
    "any port, persistent": (
        "tcp 10.10.10.10:0",
        {"persistence": 300},
        {**WEB, "port": 0, "flags": PERSISTENT, "timeout": 300},
    ),
    "persistent by client": (
        "tcp 10.10.10.10:80",
        {"persistence": 5},
        {**WEB, "flags": PERSISTENT, "timeout": 5},
    ),
    "persistent by network": (
        "tcp 10.10.10.10:80",
        {"persistence": 2_678_400, "netmask": 20},
        {**WEB, "flags": PERSISTENT, "timeout": 2_678_400, "netmask": "255.255.240.0"},
    ),
    "IPv6": ("tcp [fd00::10]:80", {"netmask": 128}, WEB6),
    "IPv6, persistent by network": (
        "tcp [fd00::10]:80",
        {"persistence": 300, "netmask": 64},
        {**WEB6, "flags": PERSISTENT, "timeout": 300, "netmask": 64},
    ),
    "a firewall mark": ("fwmark 7", {}, MARK),
    "the highest firewall mark": (
        "fwmark 4294967295",
        {"scheduler": "sh"},
        {**MARK, "fwmark": 4294967295, "sched_name": "sh"},
    ),
    "a firewall mark for IPv6": (
        "fwmark 7 (IPv6)",
        {"netmask": 128},
        {**MARK, "af": AF_INET6, "netmask": 128},
    ),
    "a scheduler's fallback": (
        "tcp 10.10.10.10:80",
        {"scheduler": "sh", "scheduler_flags": ["fallback"]},
        {**WEB, "sched_name": "sh", "flags": SCHED1},
    ),
    "a scheduler's port": (
        "tcp 10.10.10.10:80",
        {"scheduler": "mh", "scheduler_flags": ["port"]},
        {**WEB, "sched_name": "mh", "flags": SCHED2},
    ),
    "all of a scheduler's flags, and persistence": (
        "tcp 10.10.10.10:80",
        {"scheduler": "mh", "scheduler_flags": ["fallback", "port", "flag-3"], "persistence": 1},
        {
            **WEB,
            "sched_name": "mh",
            "flags": PERSISTENT | SCHED1 | SCHED2 | SCHED3,
            "timeout": 1,
        },
    ),
    "a persistence engine": (
        "udp 10.10.10.10:5060",
        {"persistence": 60, "persistence_engine": "sip"},
        {
            **WEB,
            "protocol": IPPROTO_UDP,
            "port": 5060,
            "flags": PERSISTENT,
            "timeout": 60,
            "pe_name": "sip",
        },
    ),
}

RS1_SETTINGS = {"forward": "direct", "weight": 1, "upper_threshold": 0, "lower_threshold": 0}
RS1: Attributes = {
    "addr_family": AF_INET,
    "addr": "10.10.10.41",
    "port": 80,
    "fwd_method": 3,
    "weight": 1,
    "u_thresh": 0,
    "l_thresh": 0,
    "tun_type": 0,
    "tun_port": 0,
    "tun_flags": 0,
}
IPIP = {"forward": "tunnel", "tunnel_type": "ipip", "tunnel_port": 0, "tunnel_checksum": "none"}
# IP_VS_CONN_F_* in linux/ip_vs.h
MASQ, TUNNEL = 0, 2

REAL_SERVERS = {
    "direct": ("10.10.10.41:80", {}, RS1),
    "masqueraded": ("10.10.10.41:80", {"forward": "masq"}, {**RS1, "fwd_method": MASQ}),
    "masqueraded, to the highest port": (
        "10.10.10.41:65535",
        {"forward": "masq"},
        {**RS1, "port": 65535, "fwd_method": MASQ},
    ),
    "drained": ("10.10.10.41:80", {"weight": 0}, {**RS1, "weight": 0}),
    "as heavy as can be": ("10.10.10.41:80", {"weight": 65535}, {**RS1, "weight": 65535}),
    "with thresholds": (
        "10.10.10.41:80",
        {"upper_threshold": 2_147_483_647, "lower_threshold": 300},
        {**RS1, "u_thresh": 2_147_483_647, "l_thresh": 300},
    ),
    "through IPIP": ("10.10.10.41:80", IPIP, {**RS1, "fwd_method": TUNNEL}),
    "through GUE": (
        "10.10.10.41:80",
        {**IPIP, "tunnel_type": "gue", "tunnel_port": 6080},
        {**RS1, "fwd_method": TUNNEL, "tun_type": 1, "tun_port": 6080},
    ),
    "through GUE with a checksum": (
        "10.10.10.41:80",
        {**IPIP, "tunnel_type": "gue", "tunnel_port": 65535, "tunnel_checksum": "csum"},
        {**RS1, "fwd_method": TUNNEL, "tun_type": 1, "tun_port": 65535, "tun_flags": 1},
    ),
    "through GUE with a remote checksum": (
        "10.10.10.41:80",
        {**IPIP, "tunnel_type": "gue", "tunnel_port": 1, "tunnel_checksum": "remcsum"},
        {**RS1, "fwd_method": TUNNEL, "tun_type": 1, "tun_port": 1, "tun_flags": 2},
    ),
    "through GRE": (
        "10.10.10.41:80",
        {**IPIP, "tunnel_type": "gre"},
        {**RS1, "fwd_method": TUNNEL, "tun_type": 2},
    ),
    "through GRE with a checksum": (
        "10.10.10.41:80",
        {**IPIP, "tunnel_type": "gre", "tunnel_checksum": "csum"},
        {**RS1, "fwd_method": TUNNEL, "tun_type": 2, "tun_flags": 1},
    ),
    "IPv6, through IPIP": (
        "[fd00::41]:80",
        IPIP,
        {**RS1, "addr_family": AF_INET6, "addr": "fd00::41", "fwd_method": TUNNEL},
    ),
}

Kind = tuple[str, dict[str, Any], Attributes]


def plain(virtual: Kind, *real: Kind) -> dict[str, Any]:
    """The plain values of a table with one virtual server."""
    key, settings_, _ = virtual
    servers = {name: {**RS1_SETTINGS, **values} for name, values, _ in real}
    return {key: {**SETTINGS, **settings_, "real_servers": servers}}


def as_we_read_it() -> dict[str, Any]:
    return ipvs.read().table.as_data()


@pytest.mark.parametrize("kind", VIRTUAL_SERVERS.values(), ids=VIRTUAL_SERVERS.keys())
class TestVirtualServer:
    def test_written_by_us_it_is_read_by_the_oracle(self, kind: Kind) -> None:
        ipvs.apply(Table.from_data(plain(kind)))
        with Oracle() as oracle:
            assert oracle.services() == [kind[2]]

    def test_written_by_the_oracle_it_is_read_by_us(self, kind: Kind) -> None:
        with Oracle() as oracle:
            oracle.add(kind[2])
        assert as_we_read_it() == plain(kind)


@pytest.mark.parametrize("kind", REAL_SERVERS.values(), ids=REAL_SERVERS.keys())
@pytest.mark.parametrize("of", ["tcp", "IPv6", "a firewall mark", "a firewall mark for IPv6"])
class TestRealServer:
    def test_written_by_us_it_is_read_by_the_oracle(self, of: str, kind: Kind) -> None:
        virtual, real = VIRTUAL_SERVERS[of], fitting(of, kind)
        ipvs.apply(Table.from_data(plain(virtual, real)))
        with Oracle() as oracle:
            assert oracle.dests(virtual[2]) == [real[2]]

    def test_written_by_the_oracle_it_is_read_by_us(self, of: str, kind: Kind) -> None:
        virtual, real = VIRTUAL_SERVERS[of], fitting(of, kind)
        with Oracle() as oracle:
            oracle.add(virtual[2], real[2])
        assert as_we_read_it() == plain(virtual, real)


def fitting(of: str, kind: Kind) -> Kind:
    """A real server with an address that its virtual server can reach: a tunnel crosses from one
    family to the other, nothing else does.
    """
    _, values, attributes = kind
    if "IPv6" not in of or values.get("forward") == "tunnel":
        return kind
    port = attributes["port"]
    return (
        f"[fd00::41]:{port}",
        values,
        {**attributes, "addr_family": AF_INET6, "addr": "fd00::41"},
    )


def test_a_table_of_all_kinds_at_once_is_read_alike() -> None:
    distinct = {kind[0]: kind for kind in VIRTUAL_SERVERS.values()}
    tunnels = [kind for kind in REAL_SERVERS.values() if kind[1].get("forward") == "tunnel"]
    written = {}
    for number, kind in enumerate(distinct.values()):
        chosen = tunnels[number % len(tunnels)]
        port = kind[2].get("port", 80)
        name = chosen[0].rpartition(":")[0]
        written |= plain(kind, (f"{name}:{port}", chosen[1], {}))
    ipvs.apply(Table.from_data(written))
    with Oracle() as oracle:
        services = oracle.services()
        read = {str(service): oracle.dests(service) for service in services}
    assert as_we_read_it() == written
    by_key = sorted(services, key=str)
    assert by_key == sorted((kind[2] for kind in distinct.values()), key=str)
    assert all(len(dests) == 1 for dests in read.values())


def test_timeouts_are_read_and_written_alike() -> None:
    settings.set_timeouts({"tcp": 901, "tcpfin": 121, "udp": 301})
    with Oracle() as oracle:
        assert oracle.timeouts() == {
            "timeout_tcp": 901,
            "timeout_tcp_fin": 121,
            "timeout_udp": 301,
        }
        oracle.set_timeouts({"timeout_tcp": 902, "timeout_tcp_fin": 122, "timeout_udp": 302})
    assert settings.read_timeouts() == settings.Timeouts(902, 122, 302)


DAEMONS = {
    "a master with the kernel's defaults": (
        {"state": "master", "interface": "eth0", "maxlen": 1400},
        {"state": 1, "mcast_group": "224.0.0.81"},
    ),
    "a backup elsewhere": (
        {
            "state": "backup",
            "interface": "eth0",
            "syncid": 255,
            "multicast_group": "239.1.2.3",
            "port": 9000,
            "ttl": 7,
            "maxlen": 2000,
        },
        {
            "state": 2,
            "sync_id": 255,
            "mcast_group": "239.1.2.3",
            "mcast_port": 9000,
            "mcast_ttl": 7,
            "sync_maxlen": 2000,
        },
    ),
    "a master over IPv6": (
        {"state": "master", "interface": "eth0", "multicast_group": "ff02::51", "maxlen": 1400},
        {"state": 1, "mcast_group6": "ff02::51"},
    ),
}
DAEMON = {
    "mcast_ifn": "eth0",
    "sync_id": 0,
    "sync_maxlen": 1400,
    "mcast_port": 8848,
    "mcast_ttl": 1,
}


@pytest.fixture
def interface(netns: None) -> None:
    """An interface that can multicast, with addresses of both families at once."""
    for command in (
        ["sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0"],
        ["ip", "link", "add", "eth0", "type", "dummy"],
        ["ip", "link", "set", "eth0", "multicast", "on", "up"],
        ["ip", "address", "add", "10.10.10.11/24", "dev", "eth0"],
    ):
        subprocess.run(command, check=True)


@pytest.mark.usefixtures("interface")
@pytest.mark.parametrize(("data", "attributes"), DAEMONS.values(), ids=DAEMONS.keys())
class TestSyncDaemon:
    def test_started_by_us_it_is_read_by_the_oracle(
        self, data: dict[str, Any], attributes: Attributes
    ) -> None:
        settings.start_sync_daemon(settings.SyncDaemon.from_data(data))
        with Oracle() as oracle:
            assert oracle.daemons() == [{**DAEMON, **attributes}]

    def test_started_by_the_oracle_it_is_read_by_us(
        self, data: dict[str, Any], attributes: Attributes
    ) -> None:
        wanted = settings.SyncDaemon.from_data(data)
        with Oracle() as oracle:
            oracle.start_daemon({**DAEMON, **attributes})
        assert settings.read_sync_daemons() == {wanted.state: wanted}


def test_the_version_and_the_size_are_read_alike() -> None:
    ours = settings.read_info()
    with InformationOracle() as oracle:
        theirs = oracle.information()
    major, minor, patch = (theirs["version"] >> shift & 0xFF for shift in (16, 8, 0))
    assert (ours.version, ours.connection_table_size) == (
        f"{major}.{minor}.{patch}",
        theirs["conn_tab_size"],
    )
