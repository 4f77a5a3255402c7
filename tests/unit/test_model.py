"""What a pillar may say, and what it is told when it says something else."""

from __future__ import annotations

import copy
import ipaddress
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from saltext.lvs import model
from saltext.lvs.errors import InvalidConfig, WrongRole

EXAMPLES = Path(__file__).parents[2] / "pillar.example"
Pillar = dict[str, Any]


def example(environment: str) -> Pillar:
    """The pillar that a director of an example environment gets."""
    pillar: Pillar = {}
    for path in sorted((EXAMPLES / environment).glob("*.sls")):
        pillar.update(yaml.safe_load(path.read_text(encoding="utf-8")))
    return pillar


@pytest.fixture
def pillar() -> Pillar:
    """The production example, to be spoilt."""
    return example("production")


def small() -> Pillar:
    """The least that makes a cluster."""
    return {
        "lvs": {
            "directors": ["lb1", "lb2"],
            "real_servers": {"rs1": "10.10.10.41", "rs2": "10.10.10.42"},
            "vrrp_instances": {
                "VirtIP_10": {
                    "interface": "eth0",
                    "virtual_router_id": 10,
                    "virtual_ipaddress": ["10.10.10.10"],
                }
            },
            "virtual_servers": {
                "web": {"address": "10.10.10.10", "port": 80, "real_servers": ["rs1", "rs2"]}
            },
        }
    }


WEB = model.VirtualServerKey.of(model.Protocol.TCP, ipaddress.ip_address("10.10.10.10"), 80)


def real_server(address: str, weight: int, port: int = 80) -> model.RealServer:
    return model.RealServer(
        model.RealServerKey(ipaddress.ip_address(address), port), model.Forward.DIRECT, weight
    )


def test_the_production_example_gives_the_guides_table(pillar: Pillar) -> None:
    assert model.from_pillar(pillar).table() == {
        WEB: model.VirtualServer(
            WEB,
            scheduler="wlc",
            persistence=5,
            real_servers=(real_server("10.10.10.41", 50), real_server("10.10.10.42", 50)),
        )
    }


def test_five_lines_are_a_cluster() -> None:
    cluster = model.from_pillar(small())
    shared = cluster.vrrp_instances["VirtIP_10"]
    assert cluster.directors == {
        name: model.Director(
            name,
            name,
            state,
            priority,
            vrrp_instances={"VirtIP_10": replace(shared, state=state, priority=priority)},
        )
        for name, state, priority in (
            ("lb1", model.VrrpState.MASTER, 150),
            ("lb2", model.VrrpState.BACKUP, 140),
        )
    }
    assert cluster.table() == {
        WEB: model.VirtualServer(
            WEB, real_servers=(real_server("10.10.10.41", 1), real_server("10.10.10.42", 1))
        )
    }


def test_a_real_server_may_hold_its_vips_elsewhere_than_the_others(pillar: Pillar) -> None:
    pillar["lvs"]["real_servers"]["rs2"]["vip_interface"] = "lo"
    cluster = model.from_pillar(pillar)
    assert [cluster.vip_interface_of(name) for name in ("rs1", "rs2")] == ["dummy0", "lo"]


def test_a_disabled_real_server_gets_weight_0_and_is_to_hold_no_vip(pillar: Pillar) -> None:
    pillar["lvs"]["real_servers"]["rs2"]["enabled"] = False
    cluster = model.from_pillar(pillar)
    assert [server.weight for server in cluster.table()[WEB].real_servers] == [50, 0]
    vips = (ipaddress.ip_interface("10.10.10.10/32"),)
    assert (cluster.vips_of("rs2"), cluster.vips_served_by("rs2")) == ((), vips)


def test_the_director_with_the_highest_priority_is_master_whatever_the_order() -> None:
    pillar = small()
    pillar["lvs"]["directors"] = {"lb2": {"priority": 50}, "lb1": {"priority": 150}}
    directors = model.from_pillar(pillar).directors
    assert {name: director.state.value for name, director in directors.items()} == {
        "lb1": "MASTER",
        "lb2": "BACKUP",
    }


@pytest.mark.parametrize(
    ("minion_id", "roles"),
    [
        ("lb1", ["director"]),
        ("rs1", ["realserver"]),
        ("kvm1", ["hypervisor"]),
        ("elsewhere", []),
    ],
)
def test_a_minion_finds_its_part_by_its_id(
    pillar: Pillar, minion_id: str, roles: list[str]
) -> None:
    assert [role.value for role in model.from_pillar(pillar).roles(minion_id)] == roles


def test_a_real_server_without_minion_has_a_place_in_the_table_and_no_role(
    pillar: Pillar,
) -> None:
    pillar["lvs"]["real_servers"]["rs2"]["minion"] = False
    cluster = model.from_pillar(pillar)
    assert cluster.roles("rs2") == ()
    assert len(cluster.table()[WEB].real_servers) == 2


def test_only_a_director_may_be_asked_for_a_directors_work(pillar: Pillar) -> None:
    with pytest.raises(WrongRole, match="rs1 is no director of cluster prod: it plays realserver"):
        model.from_pillar(pillar).expect_role("rs1", model.Role.DIRECTOR)


def test_with_masquerading_real_servers_hold_no_vip_and_may_use_another_port(
    pillar: Pillar,
) -> None:
    web = pillar["lvs"]["virtual_servers"]["web"]
    web["forward"] = "masq"
    web["real_servers"]["rs1"]["port"] = 8080
    cluster = model.from_pillar(pillar)
    assert cluster.vips_of("rs1") == ()
    assert [server.key.port for server in cluster.table()[WEB].real_servers] == [8080, 80]


def test_a_firewall_mark_stands_for_several_ports_of_a_vip(pillar: Pillar) -> None:
    pillar["lvs"]["virtual_servers"]["marked"] = {
        "address": "10.10.10.10",
        "fwmark": 7,
        "persistence": 300,
        "netmask": 24,
        "real_servers": {"rs1": {"upper_threshold": 9, "lower_threshold": 8}},
    }
    cluster = model.from_pillar(pillar)
    mark = model.VirtualServerKey(None, None, 0, 7, 4)
    assert cluster.table()[mark] == model.VirtualServer(
        mark,
        persistence=300,
        netmask=24,
        real_servers=(
            replace(real_server("10.10.10.41", 1, port=0), upper_threshold=9, lower_threshold=8),
        ),
    )


def test_a_virtual_servers_tunnel_is_that_of_each_of_its_real_servers(pillar: Pillar) -> None:
    web = pillar["lvs"]["virtual_servers"]["web"]
    web.update(forward="tunnel", tunnel_type="gue", tunnel_port=6080, tunnel_checksum="csum")
    for server in model.from_pillar(pillar).table()[WEB].real_servers:
        assert (server.forward, server.tunnel_type, server.tunnel_port, server.tunnel_checksum) == (
            model.Forward.TUNNEL,
            model.TunnelType.GUE,
            6080,
            model.TunnelChecksum.FULL,
        )


def test_what_keepalived_keeps_is_not_in_our_table(pillar: Pillar) -> None:
    pillar["lvs"]["virtual_servers"]["web"]["managed_by"] = "keepalived"
    cluster = model.from_pillar(pillar)
    assert cluster.table() == {}
    assert cluster.keepalived_keys() == {WEB}


def test_a_cluster_may_be_ipv6() -> None:
    pillar = small()
    lvs = pillar["lvs"]
    lvs["real_servers"] = {"rs1": "fd00::41", "rs2": "fd00::42"}
    lvs["vrrp_instances"]["VirtIP_10"]["virtual_ipaddress"] = ["fd00::10"]
    lvs["virtual_servers"]["web"]["address"] = "fd00::10"
    cluster = model.from_pillar(pillar)
    (server,) = cluster.table().values()
    assert (str(server.key), server.netmask) == ("tcp [fd00::10]:80", 128)
    assert cluster.vips_of("rs1") == (ipaddress.ip_interface("fd00::10/128"),)


Spoil = Callable[[Pillar], None]


def at(path: str, value: Any) -> Spoil:
    """Put a value at a pillar path."""

    def spoil(pillar: Pillar) -> None:
        *parents, last = path.split(":")
        place: Any = pillar
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value

    return spoil


def both(*spoils: Spoil) -> Spoil:
    def spoil(pillar: Pillar) -> None:
        for each in spoils:
            each(pillar)

    return spoil


WRONG = {
    "nobody who could bring VIPs back": (
        at("lvs:vip_persistence", "wicked"),
        "lvs:vip_persistence is 'wicked'; it should be one of auto, systemd-networkd, ifupdown, "
        "NetworkManager, systemd, False",
    ),
    "a port beyond 65535": (
        at("lvs:virtual_servers:web:port", 70000),
        "lvs:virtual_servers:web:port is 70000; it should be a whole number from 1 to 65535",
    ),
    "a port as text": (
        at("lvs:virtual_servers:web:port", "80"),
        "lvs:virtual_servers:web:port is '80'; it should be a whole number from 1 to 65535",
    ),
    "a port that YAML reads as truth": (
        at("lvs:virtual_servers:web:port", True),
        "lvs:virtual_servers:web:port is True; it should be a whole number from 1 to 65535",
    ),
    "no port": (
        lambda pillar: pillar["lvs"]["virtual_servers"]["web"].pop("port"),
        "lvs:virtual_servers:web:port is missing; it should be a whole number from 1 to 65535",
    ),
    "an address that is none": (
        at("lvs:virtual_servers:web:address", "10.10.10.300"),
        "lvs:virtual_servers:web:address is '10.10.10.300'; "
        "it should be an IPv4 or IPv6 address such as 10.10.10.10",
    ),
    "a weight beyond 65535": (
        at("lvs:virtual_servers:web:real_servers:rs1:weight", 65536),
        "lvs:virtual_servers:web:real_servers:rs1:weight is 65536; "
        "it should be a whole number from 0 to 65535",
    ),
    "a weight below 0": (
        at("lvs:virtual_servers:web:real_servers:rs1:weight", -1),
        "lvs:virtual_servers:web:real_servers:rs1:weight is -1; "
        "it should be a whole number from 0 to 65535",
    ),
    "a scheduler that IPVS has not": (
        at("lvs:virtual_servers:web:scheduler", "random"),
        "lvs:virtual_servers:web:scheduler is 'random'; it should be one of rr, wrr, lc, wlc, "
        "fo, ovf, lblc, lblcr, dh, sh, mh, sed, nq, twos",
    ),
    "a way of forwarding that nobody can ask for": (
        at("lvs:virtual_servers:web:forward", "local"),
        "lvs:virtual_servers:web:forward is 'local'; it should be one of masq, tunnel, direct",
    ),
    "a port change with direct routing": (
        at("lvs:virtual_servers:web:real_servers:rs1:port", 8080),
        "lvs:virtual_servers:web:real_servers:rs1:port is 8080; it should be 80, the virtual "
        "server's: only forward masq can change the port",
    ),
    "a real server that is not defined": (
        at("lvs:virtual_servers:web:real_servers:rs3", {}),
        "lvs:virtual_servers:web:real_servers:rs3 is 'rs3'; it should be the name of a real "
        "server: rs1, rs2",
    ),
    "a real server named twice": (
        at("lvs:virtual_servers:web:real_servers", ["rs1", "rs1"]),
        "lvs:virtual_servers:web:real_servers is 'rs1'; it should be named only once",
    ),
    "a real server with a director's address": (
        at("lvs:directors:lb1:address", "10.10.10.41"),
        "lvs:real_servers:rs1:address is '10.10.10.41'; it should be another address than that "
        "of director lb1",
    ),
    "two real servers with one address": (
        at("lvs:real_servers:rs2:address", "10.10.10.41"),
        "lvs:real_servers:rs2:address is '10.10.10.41'; it should be another address than that "
        "of real server rs1",
    ),
    "a real server of the other address family": (
        at("lvs:real_servers:rs2:address", "fd00::42"),
        "lvs:virtual_servers:web:real_servers:rs2 is 'fd00::42'; it should be an IPv4 real "
        "server, like the VIP: forward direct cannot change the address family",
    ),
    "a VIP that no VRRP instance holds": (
        at("lvs:virtual_servers:web:address", "10.10.10.11"),
        "lvs:virtual_servers:web:address is '10.10.10.11'; it should be in some vrrp_instance's "
        "virtual_ipaddress, or no director answers for it",
    ),
    "a VIP that is a real server's own address": (
        both(
            at("lvs:virtual_servers:web:address", "10.10.10.41"),
            at("lvs:vrrp_instances:VirtIP_10:virtual_ipaddress", ["10.10.10.41"]),
        ),
        "lvs:virtual_servers:web:address is '10.10.10.41'; it should be a VIP, not the own "
        "address of real server rs1",
    ),
    "a VIP with the prefix of its network": (
        at("lvs:vrrp_instances:VirtIP_10:virtual_ipaddress", ["10.10.10.10/24"]),
        "lvs:vrrp_instances:VirtIP_10:virtual_ipaddress:0 is '10.10.10.10/24'; it should be "
        "10.10.10.10/32: a VIP is one address",
    ),
    "a VRRP instance without VIP": (
        at("lvs:vrrp_instances:VirtIP_10:virtual_ipaddress", []),
        "lvs:vrrp_instances:VirtIP_10:virtual_ipaddress is missing; "
        "it should be a list of at least one VIP",
    ),
    "a VRRP instance of two address families": (
        at("lvs:vrrp_instances:VirtIP_10:virtual_ipaddress", ["10.10.10.10", "fd00::10"]),
        "lvs:vrrp_instances:VirtIP_10:virtual_ipaddress is ['10.10.10.10/32', 'fd00::10/128']; "
        "it should be of one address family; VRRP speaks IPv4 and IPv6 in separate instances",
    ),
    "a virtual_router_id used twice on an interface": (
        at(
            "lvs:vrrp_instances:other",
            {"interface": "eth0", "virtual_router_id": 10, "virtual_ipaddress": ["10.10.10.9"]},
        ),
        "lvs:vrrp_instances:other:virtual_router_id is 10; it should be another than that of "
        "VirtIP_10, which uses it on eth0 too",
    ),
    "a VIP in two VRRP instances": (
        at(
            "lvs:vrrp_instances:other",
            {"interface": "eth0", "virtual_router_id": 9, "virtual_ipaddress": ["10.10.10.10"]},
        ),
        "lvs:vrrp_instances:other:virtual_ipaddress is '10.10.10.10'; it should be in one "
        "instance only; VirtIP_10 has it too",
    ),
    "an interface name that the kernel would not take": (
        at("lvs:vrrp_instances:VirtIP_10:interface", "enterprise-uplink0"),
        "lvs:vrrp_instances:VirtIP_10:interface is 'enterprise-uplink0'; it should be the name "
        "of a network interface (15 characters at most)",
    ),
    "a router_id that would end its line in keepalived.conf": (
        at("lvs:directors:lb1:router_id", "x\n}"),
        "lvs:directors:lb1:router_id is 'x\\n}'; it should be a name of letters, digits and "
        "_ . : @ + - (64 at most)",
    ),
    "two directors with one priority": (
        at("lvs:directors:lb2:priority", 150),
        "lvs:directors:lb2:priority is 150; it should be another than that of lb1, or nobody "
        "knows who should hold the VIPs",
    ),
    "a priority beyond that of the address owner": (
        at("lvs:directors:lb1:priority", 256),
        "lvs:directors:lb1:priority is 256; it should be a whole number from 1 to 255",
    ),
    "a MASTER that is not preferred": (
        at("lvs:directors:lb2:state", "MASTER"),
        "lvs:directors:lb2:state is 'MASTER'; it should be BACKUP: another director has a "
        "higher priority",
    ),
    "a machine that is director and real server": (
        at("lvs:real_servers:lb2", "10.10.10.12"),
        "lvs:real_servers:lb2 is 'lb2'; it should be a machine that is not also a director: one "
        "that holds the VIP answers for it itself",
    ),
    "directors with nothing to do": (
        both(
            at("lvs:virtual_servers", {}),
            at("lvs:vrrp_instances", {}),
            at("lvs:sync_daemon", None),
            at("lvs_secrets", {}),
        ),
        "lvs:directors is ['lb1', 'lb2']; it should be left out, or given something to do: the "
        "cluster has no vrrp_instances and no virtual_servers",
    ),
    "two directors and no VRRP": (
        both(at("lvs:vrrp_instances", {}), at("lvs:sync_daemon", None), at("lvs_secrets", {})),
        "lvs:vrrp_instances is {}; it should be at least one, so that 2 directors agree on who "
        "holds the VIPs",
    ),
    "virtual servers and no director": (
        at("lvs:directors", {}),
        "lvs:directors is {}; it should be at least one: virtual servers need a director",
    ),
    "a second virtual server at the same place": (
        at("lvs:virtual_servers:other", {"address": "10.10.10.10", "port": 80}),
        "lvs:virtual_servers:other is 'tcp 10.10.10.10:80'; it should be another protocol, "
        "address or port than those of web",
    ),
    "a sync daemon for an instance that is not there": (
        at("lvs:sync_daemon:vrrp_instance", "VirtIP_11"),
        "lvs:sync_daemon:vrrp_instance is 'VirtIP_11'; it should be the name of a VRRP "
        "instance: VirtIP_10",
    ),
    "a misspelt key": (
        at("lvs:virtual_servers:web:schedular", "rr"),
        "lvs:virtual_servers:web:schedular is 'rr'; it should be left out, or spelt scheduler, or "
        "a keyword of keepalived's, see docs/pillar.md",
    ),
    "a port beside a firewall mark": (
        at("lvs:virtual_servers:web:fwmark", 7),
        "lvs:virtual_servers:web:port is 80; it should be left out: the fwmark stands in its place",
    ),
    "a firewall mark of 0": (
        at("lvs:virtual_servers:marked", {"address": "10.10.10.10", "fwmark": 0}),
        "lvs:virtual_servers:marked:fwmark is 0; it should be a whole number from 1 to 4294967295",
    ),
    "flags of a scheduler that has none": (
        at("lvs:virtual_servers:web:scheduler_flags", ["port"]),
        "lvs:virtual_servers:web:scheduler_flags is ['port']; it should be left out: scheduler wlc "
        "has none, but sh and mh do",
    ),
    "a flag that no scheduler has": (
        at("lvs:virtual_servers:web:scheduler_flags", "sh-port"),
        "lvs:virtual_servers:web:scheduler_flags:0 is 'sh-port'; it should be one of fallback, "
        "port, flag-3",
    ),
    "a netmask without persistence": (
        both(
            at("lvs:virtual_servers:web:persistence", 0),
            at("lvs:virtual_servers:web:netmask", 24),
        ),
        "lvs:virtual_servers:web:netmask is 24; it should be left out, or given with a persistence",
    ),
    "a persistence engine that reads UDP, for TCP": (
        at("lvs:virtual_servers:web:persistence_engine", "sip"),
        "lvs:virtual_servers:web:persistence_engine is 'sip'; it should be given with udp and a "
        "persistence, or left out",
    ),
    "one packet at a time, for TCP": (
        at("lvs:virtual_servers:web:one_packet", True),
        "lvs:virtual_servers:web:one_packet is True; it should be left out, or given with protocol "
        "udp",
    ),
    "a tunnel's type without a tunnel": (
        at("lvs:virtual_servers:web:tunnel_type", "gre"),
        "lvs:virtual_servers:web:tunnel_type is 'gre'; it should be left out, or given with "
        "forward: tunnel",
    ),
    "a gue tunnel to nowhere": (
        both(
            at("lvs:virtual_servers:web:forward", "tunnel"),
            at("lvs:virtual_servers:web:tunnel_type", "gue"),
        ),
        "lvs:virtual_servers:web:tunnel_port is missing; it should be a whole number from 1 to "
        "65535",
    ),
    "a checksum that gre has not": (
        both(
            at("lvs:virtual_servers:web:forward", "tunnel"),
            at("lvs:virtual_servers:web:tunnel_type", "gre"),
            at("lvs:virtual_servers:web:tunnel_checksum", "remcsum"),
        ),
        "lvs:virtual_servers:web:tunnel_checksum is 'remcsum'; it should be none, csum with "
        "tunnel_type gre",
    ),
    "a lower threshold above the upper one": (
        at("lvs:virtual_servers:web:real_servers:rs1:lower_threshold", 5),
        "lvs:virtual_servers:web:real_servers:rs1:lower_threshold is 5; it should be a whole "
        "number from 0 to 0",
    ),
    "a real server's port for a firewall mark": (
        at(
            "lvs:virtual_servers:marked",
            {"address": "10.10.10.10", "fwmark": 7, "real_servers": {"rs1": {"port": 80}}},
        ),
        "lvs:virtual_servers:marked:real_servers:rs1:port is 80; it should be left out, the "
        "virtual server's: only forward masq can change the port",
    ),
    "a timeout that the kernel takes for none": (
        at("lvs:ipvs:timeouts:tcp", 0),
        "lvs:ipvs:timeouts:tcp is 0; it should be a whole number from 1 to 2147483",
    ),
    "a kernel setting of another family": (
        at("lvs:ipvs:sysctls", {"net.ipv4.ip_forward": 1}),
        "lvs:ipvs:sysctls:net.ipv4.ip_forward is 1; it should be a setting below net.ipv4.vs.",
    ),
    "a kernel setting in words": (
        at("lvs:ipvs:sysctls:sloppy_tcp", True),
        "lvs:ipvs:sysctls:sloppy_tcp is True; it should be a whole number, or some of them as text",
    ),
    "a path check where keepalived checks": (
        both(
            at("lvs:virtual_servers:web:managed_by", "keepalived"),
            at("lvs:virtual_servers:web:check", {"types": ["path"]}),
        ),
        "lvs:virtual_servers:web:check:types is 'path'; it should be tcp where keepalived keeps "
        "the virtual server: each director needs an address of the VIP's family, which "
        "lvs:directors:lb1, lb2 has not",
    ),
    "a mail address that is none": (
        at("lvs:alerts:notification_email", ["noc"]),
        "lvs:alerts:notification_email:0 is 'noc'; it should be a mail address such as "
        "noc@example.com",
    ),
    "a list where a mapping belongs": (
        at("lvs:virtual_servers:web", ["10.10.10.10:80"]),
        "lvs:virtual_servers:web is ['10.10.10.10:80']; it should be a mapping of keys to values",
    ),
    "a password for an instance that is not there": (
        at("lvs_secrets:vrrp_instances:VirtIP_11", {"auth_pass": "OTHER"}),
        "lvs_secrets:vrrp_instances:VirtIP_11 is **********; it should be the name of a VRRP "
        "instance: VirtIP_10",
    ),
    "a password that keepalived would cut": (
        at("lvs_secrets:vrrp_instances:VirtIP_10:auth_pass", "NINECHARS"),
        "lvs_secrets:vrrp_instances:VirtIP_10:auth_pass is **********; it should be 1 to 8 "
        "printable characters without space or double quote, without ${, no backslash at "
        "the end, and not a brace alone",
    ),
    "advertisements rarer than VRRP for IPv6 can say": (
        both(
            at("lvs:vrrp_instances:VirtIP6", {"interface": "eth0", "virtual_router_id": 11}),
            at("lvs:vrrp_instances:VirtIP6:virtual_ipaddress", ["fd00::10"]),
            at("lvs:vrrp_instances:VirtIP6:advert_int", 41),
        ),
        "lvs:vrrp_instances:VirtIP6:advert_int is 41; it should be at most 40.95 with IPv6, "
        "where VRRP is version 3",
    ),
    "a virtual server for keepalived with nobody to serve": (
        both(
            at("lvs:virtual_servers:web:managed_by", "keepalived"),
            at("lvs:virtual_servers:web:real_servers:rs1:weight", 0),
            at("lvs:virtual_servers:web:real_servers:rs2:weight", 0),
        ),
        "lvs:virtual_servers:web:real_servers is ['rs1', 'rs2']; it should be at least one that "
        "has a weight above 0: keepalived 2.2 does not keep a virtual server without",
    ),
    "more good checks than keepalived counts": (
        both(
            at("lvs:virtual_servers:web:managed_by", "keepalived"),
            at("lvs:virtual_servers:web:check", {"rise": 2}),
        ),
        "lvs:virtual_servers:web:check:rise is 2; it should be 1 where keepalived keeps the "
        "virtual "
        "server: it knows no other",
    ),
    "mail by keepalived to nobody": (
        at("lvs:alerts", {"by": "keepalived"}),
        "lvs:alerts:notification_email is missing; it should be a list of at least one mail "
        "address "
        "for keepalived",
    ),
    "raw keywords that are no line": (
        at("lvs:keepalived", {"extra": {"router_id": "a\nb"}}),
        "lvs:keepalived:extra:router_id is 'a\\nb'; it should be one line of printable text, with "
        '{ } # ! in "double quotes" only',
    ),
    "a password beside the settings": (
        at("lvs:vrrp_instances:VirtIP_10:auth_pass", "MY_PASS"),
        "lvs:vrrp_instances:VirtIP_10 is {'auth_pass': '...'}; it should be without a password: "
        "that belongs in lvs_secrets:vrrp_instances:VirtIP_10:auth_pass, in a pillar file that "
        "only directors get",
    ),
    "a password in a misspelt place": (
        at("lvs:directors:lb1:password", "MY_PASS"),
        "lvs:directors:lb1:password is **********; it should be left out, or one of: address, "
        "interface, keepalived, priority, router_id, state, vrrp_instances",
    ),
    "no cluster at all": (
        at("lvs", None),
        "lvs is missing; it should be the cluster's description; see docs/pillar.md",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_value_is_named_with_its_path_and_what_would_be_right(
    pillar: Pillar, spoil: Spoil, message: str
) -> None:
    spoil(pillar)
    with pytest.raises(InvalidConfig) as caught:
        model.from_pillar(pillar)
    assert [str(problem) for problem in caught.value.problems] == [message]
    assert "MY_PASS" not in str(caught.value)


def test_all_wrong_parts_are_told_at_once(pillar: Pillar) -> None:
    at("lvs:virtual_servers:web:port", -1)(pillar)
    at("lvs:directors:lb1:priority", 0)(pillar)
    at("lvs:real_servers:rs1:address", "rs1.example.com")(pillar)
    with pytest.raises(InvalidConfig) as caught:
        model.from_pillar(pillar)
    assert [problem.path for problem in caught.value.problems] == [
        "lvs:directors:lb1:priority",
        "lvs:real_servers:rs1:address",
        "lvs:virtual_servers:web:port",
    ]


def test_an_ipv6_instance_takes_no_password(pillar: Pillar) -> None:
    at("lvs:vrrp_instances:VirtIP_10:virtual_ipaddress", ["fd00::10"])(pillar)
    at("lvs:virtual_servers", {})(pillar)
    with pytest.raises(InvalidConfig, match="VRRP for IPv6 is version 3, which knows no password"):
        model.from_pillar(pillar)


def test_building_a_cluster_leaves_the_pillar_alone(pillar: Pillar) -> None:
    before = copy.deepcopy(pillar)
    model.from_pillar(pillar)
    assert pillar == before


def test_a_password_is_in_no_repr(pillar: Pillar) -> None:
    cluster = model.from_pillar(pillar)
    assert cluster.vrrp_instances["VirtIP_10"].auth_pass == "MY_PASS"
    assert "MY_PASS" not in repr(cluster)


@pytest.mark.parametrize(
    ("minion_id", "environment", "with_secrets", "warnings"),
    [
        pytest.param("lb1", "production", True, [], id="a director with its password"),
        pytest.param(
            "rs1",
            "production",
            True,
            [
                "lvs_secrets reaches rs1, which is no director: let top.sls give it to "
                "directors only"
            ],
            id="a real server that gets the password",
        ),
        pytest.param("rs1", "production", False, [], id="a real server that does not"),
        pytest.param(
            "elsewhere",
            "staging",
            False,
            ["elsewhere plays no part in cluster staging"],
            id="a stranger",
        ),
    ],
)
def test_a_right_pillar_may_still_deserve_a_look(
    minion_id: str, environment: str, with_secrets: bool, warnings: list[str]
) -> None:
    pillar = example(environment)
    if not with_secrets:
        del pillar["lvs_secrets"]
    judged = model.judge(pillar, minion_id)
    assert (judged["valid"], judged["warnings"]) == (True, warnings)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, model.VipPersistence.AUTO),
        ("NetworkManager", model.VipPersistence.NETWORK_MANAGER),
        (False, model.VipPersistence.NONE),
    ],
    ids=["not said", "a program", "nobody"],
)
def test_who_brings_vips_back_at_a_boot(
    pillar: Pillar, value: object, kind: model.VipPersistence
) -> None:
    at("lvs:vip_persistence", value)(pillar)
    assert model.from_pillar(pillar).vip_persistence is kind


def test_keepalived_has_one_list_of_addresses_for_all(pillar: Pillar) -> None:
    at("lvs:virtual_servers:web:notification_email", ["shop@example.com"])(pillar)
    assert model.from_pillar(pillar).virtual_servers["web"].notification_email == (
        "shop@example.com",
    )
    at("lvs:alerts", {"by": "keepalived", "notification_email": "noc@example.com"})(pillar)
    with pytest.raises(model.InvalidConfig) as raised:
        model.from_pillar(pillar)
    assert str(raised.value) == (
        "lvs:virtual_servers:web:notification_email is ['shop@example.com']; it should be left "
        "out, or lvs:alerts:by is salt: keepalived has one list for all"
    )


def test_settings_without_effect_are_said_to_be_so(pillar: Pillar) -> None:
    at("lvs:virtual_servers:web:slow_start", 30)(pillar)
    at("lvs:virtual_servers:web:min_in_service", 0.5)(pillar)
    assert model.judge(pillar, "lb1")["warnings"] == []
    at("lvs:virtual_servers:web:managed_by", "keepalived")(pillar)
    assert model.judge(pillar, "lb1")["warnings"] == [
        "these have no effect, as they are words for another managed_by: "
        "lvs:virtual_servers:web:min_in_service, lvs:virtual_servers:web:slow_start"
    ]
