"""Boundary values of every keyword in the grammar: what the model takes, keepalived takes too.

Many values go into one file, each in a block of its own, so that the whole takes seconds.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from saltext.lvs import grammar, keepalived, model
from saltext.lvs.errors import InvalidConfig

from tests.golden.cases import TEMPLATE
from tests.kernel.commands import ip

ADDRESSES = (
    *("10.10.10.9", "fd00::9", "0.0.0.0", "::ffff:10.0.0.1", "fe80::1"),
    *("224.0.0.18", "ff02::12"),
)
FRACTIONS = (1.5, 0.05, 1e-7, 0.9999999, 2.999999, 0.1234567)
PILLAR: dict[str, Any] = {
    "directors": {"lb1": {}},
    "real_servers": {"rs1": "10.10.10.41"},
    "vrrp_instances": {},
    "virtual_servers": {},
    "keepalived": {"global_defs": {"script_user": "root", "enable_script_security": True}},
}
INSTANCE = {"interface": "eth0"}
SERVER: dict[str, Any] = {
    "address": "10.10.10.10",
    "managed_by": "keepalived",
    "real_servers": {"rs1": {}},
}
# What a block is nothing without.
NEEDED: dict[str, dict[str, Any]] = {
    "HTTP_GET": {"url": [{"path": "/"}]},
    "SSL_GET": {"url": [{"path": "/"}]},
    "MISC_CHECK": {"misc_path": "/usr/bin/true"},
    "vrrp_scripts": {"script": "/usr/bin/true"},
    "vrrp_track_processes": {"process": "sshd"},
    "track_files": {"file": "/run/weight"},
    "bfd_instances": {"neighbor_ip": "10.10.10.2"},
    "garp_groups": {"interface": "eth0", "garp_interval": 1},
}
UNICAST = ("unicast_src_ip", "check_unicast_src", "unicast_ttl", "old_unicast_checksum")
# Keywords that mean something beside others only.
BESIDE: dict[str, dict[str, Any]] = {
    "vmac_xmit_base": {"use_vmac": True},
    **{keyword: {"unicast_peer": ["10.10.10.2"]} for keyword in UNICAST},
    "sorry_server_inhibit": {"sorry_server": {"address": "10.10.10.99"}},
    "min_reply_length": {"max_reply_length": 65535},
}
Value = tuple[str, Any]


def values(kind: grammar.Kind) -> list[Any]:
    """The ends of what a keyword takes, and what is near them."""
    if isinstance(kind, grammar.Whole):
        return [kind.low, kind.high]
    if isinstance(kind, grammar.Seconds):
        return [kind.low, kind.high, *FRACTIONS]
    if isinstance(kind, grammar.Flag):
        return [True, False]
    if isinstance(kind, grammar.Choice):
        return list(kind.words)
    if isinstance(kind, grammar.Address):
        return list(ADDRESSES)
    if isinstance(kind, grammar.Maybe):
        return [True, *values(kind.kind)]
    return []


def each(table: grammar.Table) -> Iterator[Value]:
    for keyword, kind in table.items():
        for value in values(kind):
            yield keyword, value


def put(pillar: dict[str, Any], where: str, number: int, options: dict[str, Any]) -> None:
    """A block of its own with some options."""
    if where == "vrrp_instance":
        vip = f"10.10.11.{number + 1}"
        router = {"virtual_router_id": number + 1, "virtual_ipaddress": [vip]}
        pillar["vrrp_instances"][f"V{number}"] = {**INSTANCE, **router, **options}
    elif where in grammar.CHECKERS:
        checked = {"checkers": [{where: {**NEEDED.get(where, {}), **options}}]}
        put(pillar, "real_server", number, checked)
    elif where == "real_server":
        put(pillar, "virtual_server", number, {"real_servers": {"rs1": options}})
    elif where == "virtual_server":
        server = copy.deepcopy(SERVER)
        pillar["virtual_servers"][f"s{number}"] = {**server, "port": number + 1, **options}
    elif where == "global_defs":
        pillar["keepalived"]["global_defs"].update(options)
    elif where == "garp_groups":
        pillar["keepalived"][where] = [{**NEEDED[where], **options}]
    else:
        named = pillar["keepalived"].setdefault(where, {})
        named[f"x{number}"] = {**NEEDED[where], **options}


TABLES: dict[str, grammar.Table] = {
    "vrrp_instance": grammar.VRRP_INSTANCE,
    "virtual_server": grammar.VIRTUAL_SERVER,
    "real_server": grammar.REAL_SERVER,
    **{kind: table for kind, table in grammar.CHECKERS.items() if "track_file" not in table},
    "global_defs": grammar.GLOBAL_DEFS,
    "garp_groups": grammar.GARP_GROUP,
    "vrrp_scripts": grammar.VRRP_SCRIPT,
    "vrrp_track_processes": grammar.VRRP_TRACK_PROCESS,
    "track_files": grammar.TRACK_FILE,
    "bfd_instances": grammar.BFD_INSTANCE,
}
del TABLES["BFD_CHECK"]  # it has no number, address or choice but alpha, which others have
# Each of its values is wrong in the blocks above: that is said in tests/unit/test_demands.py.
NEVER: dict[str, set[str]] = {"vrrp_instance": {"use_ipvlan"}}
# How many blocks a file may have; one where there is one only, or its neighbour must be another.
MANY = 200
SINGLE = frozenset(("global_defs", "garp_groups", "bfd_instances"))


def is_right(where: str, options: dict[str, Any]) -> bool:
    pillar = copy.deepcopy(PILLAR)
    put(pillar, "vrrp_instance", 250, {})
    put(pillar, where, 0, options)
    try:
        model.from_pillar({"lvs": pillar})
    except InvalidConfig:
        return False
    return True


def files(where: str) -> Iterator[tuple[list[dict[str, Any]], dict[str, Any]]]:
    """Pillars that have all the values that the model takes, and these."""
    taken = [
        options
        for keyword, value in each(TABLES[where])
        if is_right(where, options := {**BESIDE.get(keyword, {}), keyword: value})
    ]
    size = 1 if where in SINGLE else MANY
    for start in range(0, len(taken), size):
        some = taken[start : start + size]
        pillar = copy.deepcopy(PILLAR)
        put(pillar, "vrrp_instance", 250, {})
        for number, options in enumerate(some):
            put(pillar, where, number, options)
        yield some, pillar


@pytest.fixture(autouse=True)
def card(netns: None) -> None:
    ip("link add eth0 type veth peer name eth0-peer")
    ip("link set eth0-peer up")
    ip("link set eth0 up")
    ip("address add 10.10.10.11/24 dev eth0")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("where", TABLES)
def test_keepalived_takes_each_boundary_that_the_model_takes(where: str, tmp_path: Path) -> None:
    path = tmp_path / "keepalived.conf"
    wrong = []
    for some, pillar in files(where):
        cluster = model.from_pillar({"lvs": pillar})
        path.write_text(keepalived.render(cluster, "lb1", TEMPLATE))
        said = keepalived.check(str(path))
        if said:
            wrong.append((some if len(some) == 1 else where, said))
    assert wrong == []


# A model that refuses all would pass above.
@pytest.mark.parametrize("where", TABLES)
def test_the_model_takes_some_boundary_of_each_keyword(where: str) -> None:
    tried = list(each(TABLES[where]))
    taken = {
        keyword
        for keyword, value in tried
        if is_right(where, {**BESIDE.get(keyword, {}), keyword: value})
    }
    assert {keyword for keyword, _ in tried} - taken == NEVER.get(where, set())
