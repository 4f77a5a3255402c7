"""What the real servers of a pillar's virtual server are asked, and how it is told."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from saltext.lvs import fresh, model
from saltext.lvs.checks import Http, Path, Tcp, Verdict
from saltext.lvs.checksets import Key
from saltext.lvs.errors import InvalidConfig

CLUSTER = model.from_pillar(
    yaml.safe_load(
        """
        lvs:
          name: prod
          directors: [lb1]
          real_servers:
            rs1: {address: 10.10.10.41}
            rs2: {address: 10.10.10.42}
            rs6: {address: "fd00::41"}
          vrrp_instances:
            four:
              interface: eth0
              virtual_router_id: 10
              virtual_ipaddress: [10.10.10.10, 10.10.10.20]
            six: {interface: eth0, virtual_router_id: 10, virtual_ipaddress: ["fd00::10"]}
          virtual_servers:
            web:
              address: 10.10.10.10
              port: 80
              check: {connect_timeout: 2}
              real_servers: [rs1, rs2]
            six: {address: "fd00::10", port: 443, real_servers: [rs6]}
            page:
              address: 10.10.10.10
              port: 83
              check: {types: [http]}
              real_servers: [rs1]
            unasked: {address: 10.10.10.10, port: 84, check: {types: []}, real_servers: [rs1]}
            masq:
              address: 10.10.10.10
              port: 81
              forward: masq
              check: {connect_timeout: 3600}
              real_servers: {rs1: {port: 8080}}
            tunnel: {address: 10.10.10.10, port: 82, forward: tunnel, real_servers: [rs1]}
            dns: {address: 10.10.10.20, port: 53, protocol: udp, real_servers: [rs1]}
            marked: {address: 10.10.10.20, fwmark: 7, real_servers: [rs1]}
        """
    )
)

ASKED: dict[str, tuple[tuple[str, ...], list[tuple[str, str, str, type]], float]] = {
    "direct routing: along the path, and at its own address": (
        ("web",),
        [
            ("rs1", "path", "10.10.10.10:80", Path),
            ("rs1", "tcp", "10.10.10.41:80", Tcp),
            ("rs2", "path", "10.10.10.10:80", Path),
            ("rs2", "tcp", "10.10.10.42:80", Tcp),
        ],
        2,
    ),
    "one real server alone": (
        ("web", "rs2"),
        [("rs2", "path", "10.10.10.10:80", Path), ("rs2", "tcp", "10.10.10.42:80", Tcp)],
        2,
    ),
    "IPv6": (
        ("six",),
        [("rs6", "path", "[fd00::10]:443", Path), ("rs6", "tcp", "[fd00::41]:443", Tcp)],
        3,
    ),
    "masquerading: its own port, and no longer than is bearable": (
        ("masq",),
        [("rs1", "tcp", "10.10.10.41:8080", Tcp)],
        10,
    ),
    "what the pillar says": (("page",), [("rs1", "http", "10.10.10.41:83", Http)], 3),
    "a tunnel": (("tunnel",), [("rs1", "tcp", "10.10.10.41:82", Tcp)], 3),
}


@pytest.mark.parametrize(("names", "asked", "timeout"), ASKED.values(), ids=ASKED.keys())
def test_what_is_asked_goes_by_how_packets_reach_a_real_server(
    names: tuple[str, ...], asked: list[tuple[str, str, str, type]], timeout: float
) -> None:
    checks = fresh.checks(CLUSTER, *names)
    assert [(check.key, type(check.how)) for check in checks] == [
        (Key(names[0], name, kind, place), of) for name, kind, place, of in asked
    ]
    assert {check.timeout for check in checks} == {timeout}


REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "a virtual server that there is not": (
        ("www",),
        "virtual_server is 'www'; it should be the name of one in the pillar: web, six, page, "
        "unasked, masq, tunnel, dns, marked",
    ),
    "what is no name": (
        (["web"],),
        "virtual_server is ['web']; it should be the name of one in the pillar: web, six, page, "
        "unasked, masq, tunnel, dns, marked",
    ),
    "a real server of another one": (
        ("web", "rs6"),
        "real_server is 'rs6'; it should be the name of one in the pillar: rs1, rs2",
    ),
    "UDP": (
        ("dns",),
        "virtual_server is 'dns'; it should be one whose real servers are checked: the check is a "
        "TCP connection, and needs a port for it",
    ),
    "a firewall mark": (
        ("marked",),
        "virtual_server is 'marked'; it should be one whose real servers are checked: the virtual "
        "server has no port of its own",
    ),
    "what the pillar says is not to be checked": (
        ("unasked",),
        "virtual_server is 'unasked'; it should be one whose real servers are checked: check:types "
        "or checkers are empty",
    ),
}


@pytest.mark.parametrize(("names", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_asked_is_refused(names: tuple[Any, ...], words: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        fresh.checks(CLUSTER, *names)
    assert str(caught.value) == words


def verdict(kind: str, ok: bool | None) -> Verdict:
    return Verdict(Key("web", "rs1", kind, "there"), ok, "because", 1.23456, 99.0)


@pytest.mark.parametrize(
    ("path", "tcp", "ok"),
    [
        (True, True, True),
        (False, True, False),
        (True, False, False),
        (None, True, None),
        (None, False, False),
    ],
)
def test_one_that_fails_decides_and_what_was_not_asked_leaves_it_open(
    path: bool | None, tcp: bool | None, ok: bool | None
) -> None:
    told = {"place": "there", "reason": "because", "ms": 1.23}
    assert fresh.answer([verdict("path", path), verdict("tcp", tcp)]) == {
        "rs1": {
            "ok": ok,
            "checks": [
                {"check": "path", "ok": path, **told},
                {"check": "tcp", "ok": tcp, **told},
            ],
        }
    }
