"""The IPVS table: typed values, plain values, and what is wrong with them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from saltext.lvs import table as tables
from saltext.lvs.errors import InvalidConfig
from saltext.lvs.model import (
    Forward,
    TunnelChecksum,
    TunnelType,
    VirtualServer,
    VirtualServerKey,
)
from saltext.lvs.table import Table

from tests.unit.tables import key, real_server, table, virtual_server
from tests.unit.tables import tables as any_tables

WEB = "tcp 10.10.10.10:80"
RS1 = real_server("10.10.10.41:80", 50)
GUE = replace(
    real_server("10.10.10.42:80", 1, Forward.TUNNEL),
    tunnel_type=TunnelType.GUE,
    tunnel_port=6080,
    tunnel_checksum=TunnelChecksum.FULL,
)


def test_a_table_is_a_mapping_of_typed_values() -> None:
    web = virtual_server(WEB, RS1, persistence=5)
    held = Table.of([web])
    assert held == {key(WEB): web}
    assert held[key(WEB)] == web
    assert list(held) == [key(WEB)]
    assert len(held) == 1
    assert key("tcp 10.10.10.10:81") not in held
    assert held != Table.of([replace(web, persistence=6)])
    assert held != "a table"


def test_two_tables_are_the_same_in_whatever_order_their_real_servers_came() -> None:
    one, other = RS1, real_server("10.10.10.42:80")
    server = virtual_server(WEB)
    assert table(replace(server, real_servers=(one, other))) == table(
        replace(server, real_servers=(other, one))
    )


def test_a_table_as_plain_values_says_everything() -> None:
    servers = table(
        virtual_server(WEB, RS1, GUE, persistence=5, scheduler="sh", scheduler_flags=0x18),
        virtual_server("udp [fd00::10]:53"),
        VirtualServer(VirtualServerKey(None, None, 0, 7, 6), netmask=128),
    )
    assert servers.as_data() == {
        WEB: {
            "scheduler": "sh",
            "persistence": 5,
            "netmask": 32,
            "one_packet": False,
            "scheduler_flags": ["fallback", "port"],
            "persistence_engine": "",
            "real_servers": {
                "10.10.10.41:80": {
                    "forward": "direct",
                    "weight": 50,
                    "upper_threshold": 0,
                    "lower_threshold": 0,
                },
                "10.10.10.42:80": {
                    "forward": "tunnel",
                    "weight": 1,
                    "upper_threshold": 0,
                    "lower_threshold": 0,
                    "tunnel_type": "gue",
                    "tunnel_port": 6080,
                    "tunnel_checksum": "csum",
                },
            },
        },
        **{
            name: {
                "scheduler": "wlc",
                "persistence": 0,
                "netmask": 128,
                "one_packet": False,
                "scheduler_flags": [],
                "persistence_engine": "",
                "real_servers": {},
            }
            for name in ("udp [fd00::10]:53", "fwmark 7 (IPv6)")
        },
    }


@given(any_tables)
def test_plain_values_read_back_to_the_same_table_even_through_json(servers: Table) -> None:
    assert Table.from_data(json.loads(json.dumps(servers.as_data()))) == servers


def test_what_is_left_out_is_the_kernels_default() -> None:
    short = {"10.10.10.10:80": {"real_servers": {"10.10.10.41": None}}, "fwmark 7": None}
    assert Table.from_data(short) == table(
        virtual_server(WEB, real_server("10.10.10.41:80")),
        VirtualServer(VirtualServerKey(None, None, 0, 7, 4)),
    )


SPELLINGS = {
    "with a protocol": ("sctp 10.10.10.10:9", "sctp 10.10.10.10:9"),
    "without one": ("10.10.10.10:80", WEB),
    "IPv6": ("tcp [FD00:0::10]:80", "tcp [fd00::10]:80"),
    "a mark": ("fwmark 7", "fwmark 7"),
    "a mark for IPv6": ("fwmark 4294967295 (IPv6)", "fwmark 4294967295 (IPv6)"),
}


@pytest.mark.parametrize(("text", "means"), SPELLINGS.values(), ids=SPELLINGS.keys())
def test_a_virtual_server_is_spelt(text: str, means: str) -> None:
    assert str(tables.virtual_server_key(text)) == means


NOT_VIRTUAL_SERVERS = [
    *(
        "",
        "web",
        "tcp",
        "tcp 10.10.10.10",
        "tcp 10.10.10:80",
        "tcp 10.10.10.10:",
        "TCP 10.10.10.10:80",
    ),
    *("tcp 10.10.10.10:65536", "tcp 10.10.10.10:٣", "tcp 10.10.10.10:-1", "tcp fd00::10:80"),
    *("tcp [10.10.10.10]:80", "fwmark 0", "fwmark 4294967296", "fwmark 7 IPv6", "fwmark", 7, None),
    *("tcp 10.10.10.10:80\n", " tcp 10.10.10.10:80", "tcp  10.10.10.10:80", "tcp 1.2.3.4:1 -s rr"),
]


@pytest.mark.parametrize("text", NOT_VIRTUAL_SERVERS)
def test_what_is_no_virtual_server_is_refused(text: Any) -> None:
    with pytest.raises(InvalidConfig):
        tables.virtual_server_key(text)


REAL_SPELLINGS = {
    "in full": ("10.10.10.41:8080", Forward.MASQ, "10.10.10.41:8080"),
    "without a port": ("10.10.10.41", Forward.MASQ, "10.10.10.41:80"),
    "IPv6 without a port": ("fd00::41", Forward.MASQ, "[fd00::41]:80"),
    "IPv6 in brackets": ("[fd00::41]", Forward.MASQ, "[fd00::41]:80"),
    "a port that direct routing cannot change": (
        "10.10.10.41:8080",
        Forward.DIRECT,
        "10.10.10.41:80",
    ),
    "a port that a tunnel cannot change": ("10.10.10.41:8080", Forward.TUNNEL, "10.10.10.41:80"),
}


@pytest.mark.parametrize(
    ("text", "forward", "means"), REAL_SPELLINGS.values(), ids=REAL_SPELLINGS.keys()
)
def test_a_real_server_is_spelt(text: str, forward: Forward, means: str) -> None:
    assert str(tables.real_server_key(text, key(WEB), forward)) == means


def test_a_real_server_of_a_mark_keeps_the_port_of_the_packet() -> None:
    mark = VirtualServerKey(None, None, 0, 7, 4)
    assert str(tables.real_server_key("10.10.10.41", mark, Forward.DIRECT)) == "10.10.10.41:0"


SETTLED = {
    "direct routing": (Forward.DIRECT, key(WEB), 80),
    "a tunnel": (Forward.TUNNEL, key(WEB), 80),
    "the kernel's own answer": (Forward.LOCAL, key(WEB), 80),
    "masquerading": (Forward.MASQ, key(WEB), 8080),
    "a firewall mark": (Forward.DIRECT, VirtualServerKey(None, None, 0, 7, 4), 8080),
}


@pytest.mark.parametrize(("forward", "of", "port"), SETTLED.values(), ids=SETTLED.keys())
def test_only_masquerading_and_firewall_marks_keep_a_port_of_their_own(
    forward: Forward, of: VirtualServerKey, port: int
) -> None:
    asked = real_server("10.10.10.41:8080").key
    assert tables.settled(asked, forward, of) == replace(asked, port=port)


@pytest.mark.parametrize(
    "text", ["", "rs1", "10.10.10.41:", ":80", "[fd00::41", "10.10.10.41:x", 5]
)
def test_what_is_no_real_server_is_refused(text: Any) -> None:
    with pytest.raises(InvalidConfig):
        tables.real_server_key(text, key(WEB), Forward.MASQ)


def real(**settings: Any) -> dict[str, Any]:
    return {WEB: {"real_servers": {"10.10.10.41:80": settings}}}


RS = f"table:{WEB}:real_servers:10.10.10.41:80"
WRONG = {
    "no mapping": ([], "table is []; it should be a mapping of keys to values"),
    "a virtual server that is no mapping": (
        {WEB: 5},
        f"table:{WEB} is 5; it should be a mapping of keys to values",
    ),
    "real servers in a list": (
        {WEB: {"real_servers": ["10.10.10.41"]}},
        f"table:{WEB}:real_servers is ['10.10.10.41']; it should be a mapping of keys to values",
    ),
    "a real server that is no mapping": (
        {WEB: {"real_servers": {"10.10.10.41:80": 50}}},
        f"{RS} is 50; it should be a mapping of keys to values",
    ),
    "a weight too large": (
        real(weight=2**31),
        f"{RS}:weight is 2147483648; it should be a whole number from 0 to 2147483647",
    ),
    "a weight that is True, after one that is 1": (
        {
            WEB: {
                "real_servers": {
                    "10.10.10.40:80": {"weight": 1},
                    "10.10.10.41:80": {"weight": True},
                }
            }
        },
        f"{RS}:weight is True; it should be a whole number from 0 to 2147483647",
    ),
    "a lower threshold above the upper one": (
        real(upper_threshold=5, lower_threshold=6),
        f"{RS}:lower_threshold is 6; it should be a whole number from 0 to 5",
    ),
    "a misspelt setting": (
        real(wieght=5),
        f"{RS}:wieght is 5; it should be left out, or one of: forward, lower_threshold, "
        "tunnel_checksum, tunnel_port, tunnel_type, upper_threshold, weight",
    ),
    "the same real server in two spellings": (
        {WEB: {"real_servers": {"10.10.10.41": {}, "10.10.10.41:80": {}}}},
        f"table:{WEB}:real_servers is '10.10.10.41:80'; it should be named only once",
    ),
    "the same virtual server in two spellings": (
        {WEB: {}, "10.10.10.10:80": {}},
        "table is '10.10.10.10:80'; it should be named only once",
    ),
    "a gue tunnel without its port": (
        real(forward="tunnel", tunnel_type="gue"),
        f"{RS}:tunnel_port is missing; it should be a whole number from 1 to 65535",
    ),
    "a checksum that ipip has not": (
        real(forward="tunnel", tunnel_checksum="csum"),
        f"{RS}:tunnel_checksum is 'csum'; it should be none with tunnel_type ipip",
    ),
    "another family without a tunnel": (
        {WEB: {"real_servers": {"[fd00::41]:80": {}}}},
        f"table:{WEB}:real_servers:[fd00::41]:80:forward is 'direct'; it should be tunnel, which "
        "alone can reach a real server of another address family",
    ),
    "a scheduler that is an option": (
        {WEB: {"scheduler": "rr -p"}},
        f"table:{WEB}:scheduler is 'rr -p'; it should be a scheduler such as wlc",
    ),
    "an unknown flag": (
        {WEB: {"scheduler_flags": ["sh-port"]}},
        f"table:{WEB}:scheduler_flags:0 is 'sh-port'; it should be one of fallback, port, flag-3",
    ),
    "a flag that is no word": (
        {WEB: {"scheduler_flags": [{"port": True}]}},
        f"table:{WEB}:scheduler_flags:0 is {{'port': True}}; it should be one of fallback, port, "
        "flag-3",
    ),
    "an empty netmask for IPv6": (
        {"tcp [fd00::10]:80": {"netmask": 0}},
        "table:tcp [fd00::10]:80:netmask is 0; it should be a whole number from 1 to 128",
    ),
    "a netmask for the other family": (
        {WEB: {"netmask": 64}},
        f"table:{WEB}:netmask is 64; it should be a whole number from 0 to 32",
    ),
}


@pytest.mark.parametrize(("data", "told"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_value_is_told_with_its_place(data: Any, told: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        Table.from_data(data)
    assert str(caught.value) == told


def test_settings_that_are_not_named_stay() -> None:
    web = virtual_server(WEB, RS1, GUE, persistence=5, scheduler="sh", scheduler_flags=0x10)
    assert tables.with_settings(web, {"persistence": 9}) == replace(web, persistence=9)
    changed = tables.with_real_server(web, GUE.key, {"weight": 0})
    assert changed == replace(web, real_servers=(RS1, replace(GUE, weight=0)))


def test_a_real_server_that_leaves_its_tunnel_leaves_what_was_the_tunnels() -> None:
    web = virtual_server(WEB, GUE)
    changed = tables.with_real_server(web, GUE.key, {"forward": "masq"})
    assert changed.real_servers == (real_server("10.10.10.42:80", 1, Forward.MASQ),)


def test_a_real_server_comes_and_goes() -> None:
    web = virtual_server(WEB, RS1)
    other = real_server("10.10.10.40:80", 7)
    both = tables.with_real_server(web, other.key, {"weight": 7})
    assert both == replace(web, real_servers=(other, RS1))
    assert tables.without_real_server(both, other.key) == web


FOUND = {
    "by its address alone": ("10.10.10.42", ["10.10.10.42:80"]),
    "in full": ("10.10.10.43:8081", ["10.10.10.43:8081"]),
    "by a port that direct routing does not change": ("10.10.10.41:99", ["10.10.10.41:80"]),
    "two with one address": ("10.10.10.43", ["10.10.10.43:8080", "10.10.10.43:8081"]),
    "not with another port": ("10.10.10.43:80", []),
    "not with another address": ("10.10.10.49", []),
}


@pytest.mark.parametrize(("text", "found"), FOUND.values(), ids=FOUND.keys())
def test_real_servers_are_found(text: str, found: list[str]) -> None:
    masq = [real_server(f"10.10.10.43:{port}", 1, Forward.MASQ) for port in (8080, 8081)]
    web = virtual_server(WEB, RS1, GUE, *masq)
    assert [str(real.key) for real in tables.find_real_servers(web, text)] == found
