"""What a pillar may say of keepalived, and what it is told when it says something else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from saltext.lvs import grammar, groups, instances, model, sections
from saltext.lvs.errors import InvalidConfig

from tests.unit.test_model import Pillar, at, both, small

TWO = """
lvs:
  directors: {lb1: {address: 10.10.10.11}, lb2: {address: 10.10.10.12}}
  real_servers: {rs1: 10.10.10.41, rs2: 10.10.10.42}
  vrrp_instances:
    VirtIP_10: {interface: eth0, virtual_router_id: 10, virtual_ipaddress: [10.10.10.10]}
  virtual_servers:
    web: {address: 10.10.10.10, port: 80, managed_by: keepalived, real_servers: [rs1, rs2]}
lvs_secrets: {}
"""


@pytest.fixture
def pillar() -> Pillar:
    """Two directors with addresses; keepalived keeps the virtual server."""
    return yaml.safe_load(TWO)


INSTANCE = "lvs:vrrp_instances:VirtIP_10"
WEB = "lvs:virtual_servers:web"
OTHER = {"interface": "eth0", "virtual_router_id": 20, "virtual_ipaddress": ["10.10.10.20"]}
WRONG: dict[str, tuple[Callable[[Pillar], None], list[str]]] = {
    "parts of a second with version 2": (
        at(f"{INSTANCE}:advert_int", 0.5),
        [
            f"{INSTANCE}:advert_int is 0.5; it should be whole seconds, or given with version: 3 "
            "on all directors"
        ],
    ),
    "parts of a second that version 3 cannot say": (
        at(f"{INSTANCE}:advert_int", 0.125),
        [f"{INSTANCE}:advert_int is 0.125; it should be seconds with two decimals at most"],
    ),
    "a password with version 3": (
        both(
            at(f"{INSTANCE}:version", 3),
            at("lvs_secrets:vrrp_instances:VirtIP_10", {"auth_pass": "MY_PASS"}),
        ),
        [
            "lvs_secrets:vrrp_instances:VirtIP_10 is **********; it should be left out: its "
            "version is 3, which knows no password (RFC 5798 section 9)"
        ],
    ),
    "a MASTER that shall not preempt": (
        both(at(f"{INSTANCE}:nopreempt", True), at("lvs:directors:lb1:state", "MASTER")),
        [
            "lvs:directors:lb1:state is 'MASTER'; it should be BACKUP or left out, as VirtIP_10 "
            "has nopreempt or preempt_delay: keepalived takes no other"
        ],
    ),
    "more VIPs than an advertisement has room for": (
        at(f"{INSTANCE}:virtual_ipaddress", [f"10.10.20.{one}" for one in range(256)]),
        [
            f"{INSTANCE}:virtual_ipaddress is '256 VIPs'; it should be at most 255: others can "
            "stand in virtual_ipaddress_excluded"
        ],
    ),
    "a MASTER that all shall be": (
        at(f"{INSTANCE}:state", "MASTER"),
        [
            f"{INSTANCE}:state is 'MASTER'; it should be BACKUP: another director has a higher "
            "priority"
        ],
    ),
    "a peer with a prefix of one's own": (
        at(
            f"{INSTANCE}:virtual_ipaddress",
            [{"address": "10.10.10.10", "prefix": 24, "peer": "10.10.10.9"}],
        ),
        [
            f"{INSTANCE}:virtual_ipaddress:0:prefix is 24; it should be left out: the peer has "
            "the prefix"
        ],
    ),
    "a broadcast address of one address": (
        at(f"{INSTANCE}:virtual_ipaddress", ["10.10.10.10 brd +"]),
        [
            f"{INSTANCE}:virtual_ipaddress:0:brd is '+'; it should be left out, or given with "
            "IPv4 and the prefix of a network"
        ],
    ),
    "a word behind a VIP that keepalived has not": (
        at(f"{INSTANCE}:virtual_ipaddress", ["10.10.10.10 metric 5"]),
        [
            f"{INSTANCE}:virtual_ipaddress:0:metric is '5'; it should be left out, or one of: "
            "address, autojoin, brd, home, interface, label, mngtmpaddr, no_track, nodad, "
            "noprefixroute, peer, preferred_lft, prefix, scope, use_vmac"
        ],
    ),
    "a line break within a keyword's value": (
        at(f"{INSTANCE}:notify_master", "/bin/true\n}"),
        [
            f"{INSTANCE}:notify_master is '/bin/true\\n}}'; it should be one line of printable "
            'text, with { } # ! in "double quotes" only'
        ],
    ),
    "something of a director's own in an instance that is not there": (
        at("lvs:directors:lb1:vrrp_instances", {"VirtIP_11": {"priority": 3}}),
        [
            "lvs:directors:lb1:vrrp_instances:VirtIP_11 is 'VirtIP_11'; it should be the name of "
            "a VRRP instance: VirtIP_10"
        ],
    ),
    "VIPs of a director's own": (
        at(
            "lvs:directors:lb1:vrrp_instances",
            {"VirtIP_10": {"virtual_ipaddress": ["10.10.10.9"]}},
        ),
        [
            "lvs:directors:lb1:vrrp_instances:VirtIP_10:virtual_ipaddress is ['10.10.10.9']; it "
            f"should be left out: it is the same for all directors, and is said in {INSTANCE}"
        ],
    ),
    "one priority for two in one instance": (
        at("lvs:directors:lb2:vrrp_instances", {"VirtIP_10": {"priority": 150}}),
        [
            "lvs:directors:lb2:vrrp_instances:VirtIP_10:priority is 150; it should be another "
            "than that of lb1, or nobody knows who should hold the VIPs"
        ],
    ),
    "unicast to a director that is nobody knows where": (
        both(
            at(f"{INSTANCE}:unicast", True),
            at("lvs:directors:lb2:address", None),
        ),
        [
            "lvs:directors:lb2:address is missing; it should be its own IPv4 address: "
            f"{INSTANCE} has unicast"
        ],
    ),
    "a script that nobody defines": (
        at(f"{INSTANCE}:track_script", ["nginx"]),
        [
            f"{INSTANCE}:track_script is 'nginx'; it should be the name of an entry of "
            "lvs:keepalived:vrrp_scripts; none is defined"
        ],
    ),
    "a sync group of one": (
        at("lvs:keepalived:vrrp_sync_groups", {"g": {"group": ["VirtIP_10"]}}),
        [
            "lvs:keepalived:vrrp_sync_groups:g:group is ['VirtIP_10']; it should be a list of at "
            "least 2 VRRP instances"
        ],
    ),
    "a sync group with a stranger": (
        both(
            at("lvs:vrrp_instances:other", OTHER),
            at(
                "lvs:keepalived:vrrp_sync_groups",
                {"g": {"group": ["VirtIP_10", "other", "VirtIP_11"]}},
            ),
        ),
        [
            "lvs:keepalived:vrrp_sync_groups:g:group is 'VirtIP_11'; it should be the name of a "
            "VRRP instance: VirtIP_10, other"
        ],
    ),
    "a sync group of which each director should have a half": (
        both(
            at("lvs:vrrp_instances:other", OTHER),
            at("lvs:directors:lb2:vrrp_instances", {"other": {"priority": 200}}),
            at("lvs:keepalived:vrrp_sync_groups", {"g": {"group": ["VirtIP_10", "other"]}}),
        ),
        [
            "lvs:keepalived:vrrp_sync_groups:g:group is {'VirtIP_10': 'lb1', 'other': 'lb2'}; it "
            "should be of instances that one director has the highest priority in: they move "
            "together, and would be fought over without end"
        ],
    ),
    "what the pillar says elsewhere": (
        at("lvs:keepalived:global_defs", {"router_id": "x"}),
        [
            "lvs:keepalived:global_defs:router_id is 'x'; it should be said in "
            "lvs:directors:<id>:router_id"
        ],
    ),
    "our own pipe": (
        at("lvs:directors:lb1:keepalived", {"global_defs": {"lvs_notify_fifo": "/tmp/x"}}),
        [
            "lvs:directors:lb1:keepalived:global_defs:lvs_notify_fifo is '/tmp/x'; it should be "
            "left out: it is how keepalived tells us what changes"
        ],
    ),
    "another network than the minion's": (
        at("lvs:keepalived", {"net_namespace": "x"}),
        [f"lvs:keepalived:net_namespace is 'x'; it should be {sections.OTHER_NETWORK}"],
    ),
    "another network's table": (
        at("lvs:directors:lb1:keepalived", {"net_namespace_ipvs": "x"}),
        [
            "lvs:directors:lb1:keepalived:net_namespace_ipvs is 'x'; it should be "
            f"{sections.OTHER_NETWORK}"
        ],
    ),
    "another network among raw keywords": (
        at("lvs:keepalived:extra", {"net_namespace": "x"}),
        [f"lvs:keepalived:extra:net_namespace is 'x'; it should be {sections.OTHER_NETWORK}"],
    ),
    "a password among what all may read": (
        at("lvs:keepalived:ssl", {"password": "MY_PASS"}),
        [
            "lvs:keepalived:ssl:password is **********; it should be in "
            "lvs_secrets:keepalived:ssl:password, in a pillar file that only directors get"
        ],
    ),
    "mail said twice": (
        both(
            at("lvs:alerts", {"by": "keepalived", "notification_email": ["noc@example.com"]}),
            at("lvs:keepalived:global_defs", {"smtp_server": "mail"}),
        ),
        [
            "lvs:keepalived:global_defs:smtp_server is 'mail'; it should be left out: "
            "lvs:alerts:smtp_server says it"
        ],
    ),
    "a sync daemon's group that is one machine": (
        at("lvs:sync_daemon", {"interface": "eth0", "group": "10.10.10.11"}),
        ["lvs:sync_daemon:group is '10.10.10.11'; it should be a multicast address"],
    ),
    "a group that Salt keeps": (
        at("lvs:virtual_servers:more", {"group": ["10.10.10.10 81"]}),
        [
            "lvs:virtual_servers:more:group is ['10.10.10.10 81']; it should be left out, or "
            "given with managed_by: keepalived"
        ],
    ),
    "a group of addresses and marks": (
        at(
            "lvs:virtual_servers:more",
            {"group": ["10.10.10.10 81", "fwmark 3"], "managed_by": "keepalived"},
        ),
        [
            "lvs:virtual_servers:more:group is ['10.10.10.10 81', 'fwmark 3']; it should be "
            "addresses of one family, or marks: keepalived 2.2 cannot send both to one real server"
        ],
    ),
    "a group that has another one's address": (
        at(
            "lvs:virtual_servers:more",
            {
                "group": ["10.10.10.9-11 80"],
                "managed_by": "keepalived",
                "real_servers": ["rs1"],
            },
        ),
        [
            "lvs:virtual_servers:more is 'tcp 10.10.10.10:80'; it should be another protocol, "
            "address or port than those of web"
        ],
    ),
    "a mark without a port to check": (
        at(
            "lvs:virtual_servers:more",
            {"fwmark": 3, "managed_by": "keepalived", "real_servers": ["rs1"]},
        ),
        [
            "lvs:virtual_servers:more:check:port is missing; it should be the port to check: the "
            "virtual server has none of its own"
        ],
    ),
    "a quorum that nobody reaches": (
        at(f"{WEB}:quorum", 3),
        [f"{WEB}:quorum is 3; it should be at most 2, the weights of all real servers"],
    ),
    "a hysteresis as wide as the quorum": (
        at(f"{WEB}:hysteresis", 1),
        [f"{WEB}:hysteresis is 1; it should be below the quorum, 1"],
    ),
    "a sorry server at another port": (
        at(f"{WEB}:sorry_server", {"address": "10.10.10.99", "port": 81}),
        [f"{WEB}:sorry_server:port is 81; it should be 80, the virtual server's"],
    ),
    "a checker that keepalived has not": (
        at(f"{WEB}:checkers", ["LDAP_CHECK"]),
        [
            f"{WEB}:checkers:0 is {{'LDAP_CHECK': None}}; it should be one of TCP_CHECK, "
            "HTTP_GET, SSL_GET, SMTP_CHECK, DNS_CHECK, MISC_CHECK, PING_CHECK, UDP_CHECK, "
            "BFD_CHECK, FILE_CHECK, with its settings"
        ],
    ),
    "a checker of a file that nobody defines": (
        at(f"{WEB}:real_servers", {"rs1": {"checkers": [{"FILE_CHECK": {"track_file": "load"}}]}}),
        [
            f"{WEB}:real_servers:rs1:checkers:0:FILE_CHECK:track_file is 'load'; it should be the "
            "name of an entry of lvs:keepalived:track_files; none is defined"
        ],
    ),
    "a path check of datagrams": (
        both(at(f"{WEB}:protocol", "udp"), at(f"{WEB}:check", {"types": ["path"]})),
        [
            f"{WEB}:check:types is 'path'; it should be tcp where keepalived keeps the virtual "
            "server: the check is a TCP connection to the virtual server's one address"
        ],
    ),
    "two strangers at one place": (
        both(
            at("lvs:real_servers:a", {"address": "10.10.10.43", "minion": False}),
            at("lvs:real_servers:b", {"address": "10.10.10.43", "minion": False}),
            at(f"{WEB}:real_servers", ["a", "b"]),
        ),
        [
            f"{WEB}:real_servers:b is '10.10.10.43:80'; it should be another address or port than "
            "those of a"
        ],
    ),
}


@pytest.mark.parametrize(("spoil", "messages"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_named_with_its_path_and_what_would_be_right(
    pillar: Pillar, spoil: Callable[[Pillar], None], messages: list[str]
) -> None:
    model.from_pillar(pillar)
    spoil(pillar)
    with pytest.raises(InvalidConfig) as caught:
        model.from_pillar(pillar)
    assert [str(problem) for problem in caught.value.problems] == messages
    assert "MY_PASS" not in str(caught.value)


# --------------------------------------------------------------------------------------------------
# Each director's own


def test_an_active_pair_is_one_pillar() -> None:
    pillar = small()
    at("lvs:vrrp_instances:VirtIP_20", OTHER)(pillar)
    at(
        "lvs:directors",
        {
            "lb1": {"priority": 150},
            "lb2": {
                "priority": 100,
                "interface": "ens3",
                "vrrp_instances": {"VirtIP_20": {"priority": 200, "interface": "ens4"}},
            },
        },
    )(pillar)
    directors = model.from_pillar(pillar).directors
    assert {
        (name, of): (one.state and one.state.value, one.priority, one.interface)
        for name, director in directors.items()
        for of, one in director.vrrp_instances.items()
    } == {
        ("lb1", "VirtIP_10"): ("MASTER", 150, "eth0"),
        ("lb1", "VirtIP_20"): ("BACKUP", 150, "eth0"),
        ("lb2", "VirtIP_10"): ("BACKUP", 100, "ens3"),
        ("lb2", "VirtIP_20"): ("MASTER", 200, "ens4"),
    }


def test_who_waits_for_others_begins_as_backup(pillar: Pillar) -> None:
    at(f"{INSTANCE}:preempt_delay", 5)(pillar)
    directors = model.from_pillar(pillar).directors.values()
    assert {one.vrrp_instances["VirtIP_10"].state for one in directors} == {model.VrrpState.BACKUP}


def test_unicast_is_to_the_other_directors(pillar: Pillar) -> None:
    at(f"{INSTANCE}:unicast", True)(pillar)
    at("lvs:directors:lb3", {"address": "10.10.10.13"})(pillar)
    at(
        "lvs:directors:lb2:vrrp_instances",
        {"VirtIP_10": {"unicast_src_ip": "10.10.20.12"}},
    )(pillar)
    found = {
        name: one.vrrp_instances["VirtIP_10"].options
        for name, one in model.from_pillar(pillar).directors.items()
    }
    assert found == {
        "lb1": {"unicast_src_ip": "10.10.10.11", "unicast_peer": ["10.10.10.12", "10.10.10.13"]},
        "lb2": {"unicast_src_ip": "10.10.20.12", "unicast_peer": ["10.10.10.11", "10.10.10.13"]},
        "lb3": {"unicast_src_ip": "10.10.10.13", "unicast_peer": ["10.10.10.11", "10.10.10.12"]},
    }


@pytest.mark.parametrize(
    ("shared", "own", "wanted"),
    [
        ({}, {"a": 1}, {"a": 1}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}, {"a": {"b": 3, "c": 2}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": {"b": 1}}, {"a": True}, {"a": True}),
    ],
    ids=["one more", "mappings are joined", "a list stands instead", "anything else, too"],
)
def test_what_a_director_has_of_its_own_is_laid_over_what_all_have(
    shared: Mapping[str, Any], own: Mapping[str, Any], wanted: Mapping[str, Any]
) -> None:
    joined = sections.laid_over(sections.Keepalived(shared, shared), sections.Keepalived(own, own))
    assert joined == sections.Keepalived(wanted, wanted)


# --------------------------------------------------------------------------------------------------
# VIPs


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("10.10.10.10", "10.10.10.10/32 dev eth0"),
        ("fd00::10", "fd00::10/128 dev eth0"),
        ("10.10.10.10/32", "10.10.10.10/32 dev eth0"),
        (
            "10.10.10.10/24 dev eth1 brd + label eth1:1 scope link no_track",
            "10.10.10.10/24 dev eth1 brd + scope link label eth1:1 no_track",
        ),
        (
            {"address": "10.10.10.10", "peer": "10.10.10.9/24"},
            "10.10.10.10 dev eth0 peer 10.10.10.9/24",
        ),
        (
            "fd00::10 -nodad preferred_lft forever",
            "fd00::10/128 dev eth0 -nodad preferred_lft forever",
        ),
    ],
)
def test_a_vip_in_words_or_keys_is_a_line(said: Any, line: str) -> None:
    entry = {"interface": "eth0", "virtual_router_id": 1, "virtual_ipaddress": [said]}
    (vip,) = instances.read("V", model.Section(entry, "V"), None).virtual_ipaddress
    assert vip.line("eth0") == line


def test_an_excluded_vip_is_held_like_the_others(pillar: Pillar) -> None:
    at(f"{INSTANCE}:virtual_ipaddress_excluded", ["10.10.10.30", "fd00::30"])(pillar)
    at("lvs:virtual_servers:more", {"address": "10.10.10.30", "port": 80})(pillar)
    instance = model.from_pillar(pillar).vrrp_instances["VirtIP_10"]
    assert [str(vip.ip) for vip in instance.vips] == ["10.10.10.10", "10.10.10.30", "fd00::30"]


# --------------------------------------------------------------------------------------------------
# Virtual servers


def test_all_of_a_group_is_kept_by_keepalived_and_held_by_real_servers(pillar: Pillar) -> None:
    at("lvs:virtual_servers", {})(pillar)
    group = ["10.10.10.61 80", "10.10.10.62-63 80"]
    at(
        "lvs:virtual_servers:more",
        {"group": group, "managed_by": "keepalived", "real_servers": ["rs1"]},
    )(pillar)
    cluster = model.from_pillar(pillar)
    vips = ["10.10.10.61", "10.10.10.62", "10.10.10.63"]
    assert sorted(map(str, cluster.keepalived_keys())) == [f"tcp {vip}:80" for vip in vips]
    assert [str(vip.ip) for vip in cluster.vips_of("rs1")] == vips
    assert cluster.table() == {}


@pytest.mark.parametrize(
    ("text", "first", "last", "how_many"),
    [
        ("192.168.200.3-10 80", "192.168.200.3", "192.168.200.10", 8),
        ("192.168.200.250-192.168.201.10 80", "192.168.200.250", "192.168.201.10", 17),
        ("192.168.202.8/29 80", "192.168.202.8", "192.168.202.15", 8),
        ("ae00::2-9 80", "ae00::2", "ae00::9", 8),
        ("ae00::2-1f", "ae00::2", "ae00::1f", 30),
    ],
)
def test_a_range_is_all_of_its_addresses(text: str, first: str, last: str, how_many: int) -> None:
    (entry,) = groups.read([(text, "group:0")])
    found = entry.addresses
    assert (str(found[0]), str(found[-1]), len(found)) == (first, last, how_many)


NO_RANGES = ["10.0.0.1-", "10.0.0.9-3", "10.0.0.1-fd00::1", "10.0.0.0/8", "10.0.0.1 80 90", "80"]


@pytest.mark.parametrize("text", [*NO_RANGES, "10.0.0.1 x", "fwmark 0", "fwmark x", 7, None])
def test_what_is_no_range_is_refused(text: Any) -> None:
    with pytest.raises(InvalidConfig, match="^group:0 is"):
        groups.read([(text, "group:0")])


def test_moving_a_virtual_server_is_a_change_of_one_word(pillar: Pillar) -> None:
    web = pillar["lvs"]["virtual_servers"]["web"]
    web.update(
        quorum=2,
        sorry_server={"address": "10.10.10.99"},
        checkers=["PING_CHECK"],
        extra={"snmp_name": "w"},
        real_servers={"rs1": {"notify_up": "/bin/true", "checkers": []}, "rs2": {}},
    )
    assert model.judge(pillar, "lb1")["warnings"] == []
    web["managed_by"] = "salt"
    del web["extra"]
    assert model.judge(pillar, "lb1")["warnings"] == [
        "these have no effect, as they are words for another managed_by: "
        f"{WEB}:real_servers:rs1:notify_up, {WEB}:real_servers:rs1:checkers, {WEB}:checkers"
    ]


def test_a_vip_that_somebody_else_brings_deserves_a_look(pillar: Pillar) -> None:
    web = pillar["lvs"]["virtual_servers"]["web"]
    web["address"] = "10.10.10.9"
    assert model.judge(pillar, "lb1")["warnings"] == [
        f"{WEB}: no vrrp_instance holds 10.10.10.9: no director answers for it, unless somebody "
        "else brings it there"
    ]
    at("lvs:keepalived:static_ipaddress", ["10.10.10.9/32 dev eth0"])(pillar)
    assert model.judge(pillar, "lb1")["warnings"] == []


def test_no_password_is_in_a_repr(pillar: Pillar) -> None:
    at("lvs_secrets:keepalived:ssl:password", "MY_PASS-is-long")(pillar)
    cluster = model.from_pillar(pillar)
    assert cluster.ssl_password == "MY_PASS-is-long"
    assert "MY_PASS" not in repr(cluster)


# --------------------------------------------------------------------------------------------------
# Checks through the VIP


def test_where_every_director_has_an_address_keepalived_checks_through_the_vip(
    pillar: Pillar,
) -> None:
    cluster = model.from_pillar(pillar)
    assert cluster.virtual_servers["web"].check.types == (model.CheckType.PATH, model.CheckType.TCP)
    assert set(cluster.path_marks) == {"rs1", "rs2"}
    at("lvs:directors:lb2:address", None)(pillar)
    cluster = model.from_pillar(pillar)
    assert cluster.virtual_servers["web"].check.types == (model.CheckType.TCP,)
    assert cluster.path_marks == {}


@given(st.sets(st.integers(1, 200), min_size=1), st.integers(1, 200))
def test_a_mark_stays_when_real_servers_come_and_go(numbers: set[int], other: int) -> None:
    def marks(names: set[int]) -> Mapping[str, int]:
        return model.from_pillar(many(names)).path_marks

    def many(names: set[int]) -> Pillar:
        built = yaml.safe_load(TWO)
        built["lvs"]["real_servers"] = {f"r{one}": f"10.10.20.{one}" for one in names}
        built["lvs"]["virtual_servers"]["web"]["real_servers"] = [f"r{one}" for one in names]
        return dict(built)

    before, after = marks(numbers), marks({*numbers, other})
    assert before.items() <= after.items()
    assert len(set(after.values())) == len(after)


def test_a_mark_keeps_out_of_the_way_of_the_pillars_own(pillar: Pillar) -> None:
    before = model.from_pillar(pillar).path_marks["rs1"]
    at(
        "lvs:virtual_servers:marked",
        {"address": "10.10.10.10", "fwmark": before, "real_servers": ["rs1"]},
    )(pillar)
    assert model.from_pillar(pillar).path_marks["rs1"] == before + 1


def test_the_checks_own_virtual_servers_are_nobody_elses(pillar: Pillar) -> None:
    cluster = model.from_pillar(pillar)
    assert {key.fwmark for key in cluster.keepalived_keys()} == {0, *cluster.path_marks.values()}


# --------------------------------------------------------------------------------------------------
# Kinds


@pytest.mark.parametrize(
    ("kind", "value", "lines"),
    [
        (grammar.Seconds(0, 9), 0.000001, ["k 0.000001"]),
        (grammar.Seconds(0, 9), 5, ["k 5"]),
        (grammar.Flag(), False, []),
        (grammar.Switch(), False, ["k off"]),
        (grammar.Maybe(grammar.Text()), True, ["k"]),
        (grammar.Words(grammar.Text()), [1, "b"], ["k 1 b"]),
        (grammar.Lines(), "a", ["k {", "    a", "}"]),
        (grammar.Tracked(9), ["a"], ["k {", "    a", "}"]),
        (
            grammar.Tracked(9),
            {"a": 1, "b": {"weight": -2, "reverse": True}},
            ["k {", "    a weight 1", "    b weight -2 reverse", "}"],
        ),
    ],
)
def test_a_keywords_lines(kind: grammar.Kind, value: Any, lines: list[str]) -> None:
    assert list(kind.lines("k", kind.read(value, "at"))) == lines
