"""A keepalived.conf as a pillar: what statements become, what is told, and what stays secret."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from saltext.lvs import conffile, grammar, importing, keepalived, model
from saltext.lvs.errors import InvalidConfig
from saltext.lvs.importing import Note

from tests.golden.cases import TEMPLATE

ADOPTED = Path(__file__).parents[1] / "data" / "adopted"
SECURE = "global_defs {\n script_user root\n enable_script_security\n}\n"
INSTANCE = """\
vrrp_instance V {
    interface eth0
    virtual_router_id 9
    virtual_ipaddress { 10.0.0.1 }
    %s
}
"""
SERVER = """\
virtual_server 10.0.0.1 80 {
    protocol TCP
    %s
}
"""
REAL_SERVER = """\
real_server 10.0.0.41 80 {
        %s
    }"""


def imported(text: str, **options: Any) -> importing.Imported:
    return importing.to_pillar(conffile.parse(text, name="k.conf"), "lb1", **options)


def lvs(text: str, **options: Any) -> dict[str, Any]:
    found = imported(text, **options)
    assert found.notes == ()
    part: dict[str, Any] = found.pillar["lvs"]
    return part


def test_a_director_of_a_small_cluster() -> None:
    found = imported((ADOPTED / "first_director.conf").read_text(), names={"10.10.10.41": "rs1"})
    check = {"TCP_CHECK": {"connect_timeout": 3}}
    assert found.pillar == {
        "lvs": {
            "directors": {"lb1": {"router_id": "LVS_PRI", "state": "MASTER", "priority": 150}},
            "real_servers": {
                "rs1": {"address": "10.10.10.41"},
                "rs-10.10.10.42": {"address": "10.10.10.42", "minion": False},
            },
            "vrrp_instances": {
                "VirtIP_10": {
                    "interface": "eth0",
                    "virtual_router_id": 10,
                    "advert_int": 3,
                    "virtual_ipaddress": ["10.10.10.10"],
                    "smtp_alert": True,
                }
            },
            "alerts": {
                "by": "keepalived",
                "notification_email": ["noc@example.com"],
                "notification_email_from": "lvs@example.com",
                "smtp_server": "localhost",
                "smtp_connect_timeout": 30,
            },
            "sync_daemon": {"interface": "eth0", "vrrp_instance": "VirtIP_10", "syncid": 0},
            "virtual_servers": {
                "tcp-10.10.10.10-80": {
                    "address": "10.10.10.10",
                    "protocol": "tcp",
                    "port": 80,
                    "managed_by": "keepalived",
                    "scheduler": "wlc",
                    "forward": "direct",
                    "persistence": 5,
                    "check": {"interval": 10},
                    "on_failure": "remove",
                    "smtp_alert": False,
                    "real_servers": {
                        "rs1": {"port": 80, "weight": 50, "checkers": [check]},
                        "rs-10.10.10.42": {"port": 80, "weight": 50, "checkers": [check]},
                    },
                }
            },
        }
    }
    assert found.secrets == {
        "lvs_secrets": {"vrrp_instances": {"VirtIP_10": {"auth_pass": "MY_PASS"}}}
    }
    assert found.notes == ()
    model.from_pillar({**found.pillar, **found.secrets})


# --------------------------------------------------------------------------------------------------
# Tables

INSTANCES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "a number": ("advert_int 0.5", {"advert_int": 0.5}),
    "a switch without a word": ("lower_prio_no_advert", {"lower_prio_no_advert": True}),
    "a switch that is off": ("smtp_alert no", {"smtp_alert": False}),
    "a flag": ("nopreempt", {"nopreempt": True}),
    "a script with arguments and a user": (
        "notify \"/x a 'b c'\" root",
        {"notify": "\"/x a 'b c'\" root"},
    ),
    "a script with escaped quotes": (
        'notify "/x \\"a b\\" c"',
        {"notify": "'/x \"a b\" c'"},
    ),
    "what is tracked": (
        "track_interface {\n eth1\n eth2 weight -3 reverse\n}",
        {"track_interface": {"eth1": {}, "eth2": {"weight": -3, "reverse": True}}},
    ),
    "tracking in two blocks": (
        "track_interface { eth1 }\n track_interface { eth2 weight 1 }",
        {"track_interface": {"eth1": {}, "eth2": {"weight": 1}}},
    ),
    "excluded VIPs": (
        "virtual_ipaddress_excluded {\n 10.0.0.2/24 dev eth1 label eth1:a -nodad\n fd00::2\n}",
        {
            "virtual_ipaddress_excluded": [
                {
                    "address": "10.0.0.2",
                    "prefix": 24,
                    "interface": "eth1",
                    "label": "eth1:a",
                    "nodad": True,
                },
                "fd00::2",
            ]
        },
    ),
    "a VIP again, under a label": (
        "virtual_ipaddress {\n 10.0.0.1 label eth0:1\n}",
        {"extra": {"virtual_ipaddress": {"10.0.0.1": "label eth0:1"}}},
    ),
    "a keyword of which the pillar knows nothing": (
        "brandnew 1 2\n brandnewer { a b }",
        {"extra": {"brandnew": "1 2", "brandnewer": {"a": "b"}}},
    ),
    "a value that a keyword cannot have": ("version 9", {"extra": {"version": "9"}}),
    "a keyword with two values": (
        "garp_master_delay 1\n garp_master_delay 2",
        {"extra": {"garp_master_delay": ["1", "2"]}},
    ),
    "routes": (
        "virtual_routes { 10.1.0.0/24 via 10.0.0.9 }",
        {"virtual_routes": ["10.1.0.0/24 via 10.0.0.9"]},
    ),
    "a password of AH": ("authentication { auth_type AH }", {"auth_type": "AH"}),
}


@pytest.mark.parametrize(("text", "expected"), list(INSTANCES.values()), ids=list(INSTANCES))
def test_what_a_vrrp_instance_says(text: str, expected: dict[str, Any]) -> None:
    assert lvs(SECURE + INSTANCE % text)["vrrp_instances"]["V"] == {
        "interface": "eth0",
        "virtual_router_id": 9,
        "virtual_ipaddress": ["10.0.0.1"],
        **expected,
    }


OWN: Mapping[str, tuple[str, dict[str, Any]]] = {
    "keepalived's own defaults": ("", {"state": "BACKUP", "priority": 100}),
    "state and priority": ("state MASTER\n priority 7", {"state": "MASTER", "priority": 7}),
    "whom it speaks to": (
        "unicast_src_ip 10.0.0.9\n unicast_peer { 10.0.0.8 }",
        {
            "state": "BACKUP",
            "priority": 100,
            "vrrp_instances": {"V": {"unicast_src_ip": "10.0.0.9", "unicast_peer": ["10.0.0.8"]}},
        },
    ),
}


@pytest.mark.parametrize(("text", "expected"), list(OWN.values()), ids=list(OWN))
def test_what_is_the_directors_own(text: str, expected: dict[str, Any]) -> None:
    assert lvs(INSTANCE % text)["directors"] == {"lb1": expected}


SERVERS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "old words": (
        "lb_algo rr\n lb_kind DR",
        {"scheduler": "rr", "forward": "direct"},
    ),
    "a tunnel": (
        "lvs_method TUN type gue port 6080 remcsum",
        {
            "forward": "tunnel",
            "tunnel_type": "gue",
            "tunnel_port": 6080,
            "tunnel_checksum": "remcsum",
        },
    ),
    "a scheduler's flags": (
        "lvs_sched mh\n mh-port\n mh-fallback",
        {"scheduler": "mh", "scheduler_flags": ["fallback", "port"]},
    ),
    "persistence as keepalived has it by default": ("persistence_timeout", {"persistence": 360}),
    "persistence of networks": (
        "persistence_timeout 50\n persistence_granularity 255.255.0.0",
        {"persistence": 50, "netmask": 16},
    ),
    "draining": ("inhibit_on_failure", {"on_failure": "drain"}),
    "a pace": ("delay_loop 1.5", {"check": {"interval": 1.5}}),
    "a sorry server": (
        "sorry_server 10.0.0.9 8080",
        {"sorry_server": {"address": "10.0.0.9", "port": 8080}},
    ),
    "a quorum": (
        'quorum 2\n alpha\n quorum_up "/x y"',
        {"alpha": True, "quorum": 2, "quorum_up": '"/x y"'},
    ),
    "something new": ("brandnew", {"extra": {"brandnew": True}}),
}


@pytest.mark.parametrize(("text", "expected"), list(SERVERS.values()), ids=list(SERVERS))
def test_what_a_virtual_server_says(text: str, expected: dict[str, Any]) -> None:
    assert lvs(SECURE + SERVER % text)["virtual_servers"] == {
        "tcp-10.0.0.1-80": {
            "address": "10.0.0.1",
            "port": 80,
            "protocol": "tcp",
            "managed_by": "keepalived",
            "scheduler": "wlc",
            "forward": "masq",
            "check": {"interval": 60},
            "on_failure": "remove",
            "real_servers": {},
            **expected,
        }
    }


NAMES = {
    "what it listens on": ("virtual_server 10.0.0.1 80 {", "tcp-10.0.0.1-80"),
    "any port": ("virtual_server 10.0.0.1 {", "tcp-10.0.0.1-any"),
    "IPv6": ("virtual_server fd00::1 80 {", "tcp-fd00::1-80"),
    "a mark": ("virtual_server fwmark 7 {", "fwmark-7"),
    "a group": ("virtual_server_group G { 10.0.0.1 80 }\nvirtual_server group G {", "G"),
    "a word above it": ("# web\nvirtual_server 10.0.0.1 80 {", "web"),
    "no word above it": ("# web servers\nvirtual_server 10.0.0.1 80 {", "tcp-10.0.0.1-80"),
    "a word further above": ("# web\n\nvirtual_server 10.0.0.1 80 {", "tcp-10.0.0.1-80"),
}


@pytest.mark.parametrize(("text", "name"), list(NAMES.values()), ids=list(NAMES))
def test_a_virtual_server_is_named_after(text: str, name: str) -> None:
    assert list(lvs(text + "\n}\n")["virtual_servers"]) == [name]


REAL_SERVERS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "nothing": ("", {"weight": 1, "checkers": []}),
    "a weight and limits": (
        "weight 0\n uthreshold 9\n lthreshold 3",
        {"weight": 0, "upper_threshold": 9, "lower_threshold": 3, "checkers": []},
    ),
    "checkers in their order": (
        "TCP_CHECK { connect_timeout 3 }\n PING_CHECK { }\n TCP_CHECK { connect_port 81 }",
        {
            "weight": 1,
            "checkers": [
                {"TCP_CHECK": {"connect_timeout": 3}},
                {"PING_CHECK": {}},
                {"TCP_CHECK": {"connect_port": 81}},
            ],
        },
    ),
    "requests": (
        "HTTP_GET {\n url { path /a\n status_code 200-299 301 }\n url { path /b }\n"
        " nb_get_retry 2\n}",
        {
            "weight": 1,
            "checkers": [
                {
                    "HTTP_GET": {
                        "retry": 2,
                        "url": [
                            {"path": "/a", "status_code": ["200-299", "301"]},
                            {"path": "/b"},
                        ],
                    }
                }
            ],
        },
    ),
    "something new": (
        "BRANDNEW_CHECK { a }",
        {"weight": 1, "extra": {"BRANDNEW_CHECK": {"a": True}}, "checkers": []},
    ),
}


@pytest.mark.parametrize(("text", "expected"), list(REAL_SERVERS.values()), ids=list(REAL_SERVERS))
def test_what_a_real_server_says(text: str, expected: dict[str, Any]) -> None:
    found = lvs(SERVER % (REAL_SERVER % text))
    (server,) = found["virtual_servers"].values()
    assert server["real_servers"] == {"rs-10.0.0.41": {"port": 80, **expected}}
    assert found["real_servers"] == {"rs-10.0.0.41": {"address": "10.0.0.41", "minion": False}}


def test_a_second_port_of_a_real_server_is_a_real_server_of_its_own() -> None:
    text = SERVER % "real_server 10.0.0.41 80 { }\nreal_server 10.0.0.41 81 { }"
    found = lvs(text, names={"10.0.0.41": "rs1"})
    assert found["real_servers"] == {
        "rs1": {"address": "10.0.0.41"},
        "rs-10.0.0.41-81": {"address": "10.0.0.41", "minion": False},
    }


# --------------------------------------------------------------------------------------------------
# Notes

NOTES = {
    "a pipe of the site": (
        "global_defs {\n vrrp_notify_fifo /run/mine\n}",
        Note(
            "k.conf",
            2,
            "vrrp_notify_fifo /run/mine",
            "not taken over: a pipe of the director takes its place, and what reads this one hears "
            "nothing any more",
        ),
    ),
    "a text that no pillar can say": (
        "global_defs {\n process_name a\\\\\n}",
        Note("k.conf", 2, "process_name a\\\\", "not taken over: the pillar has no way to say it"),
    ),
    "what may mean something else": (
        "global_defs {\n umask ${_RANDOM}\n}",
        Note(
            "k.conf",
            2,
            "umask ${_RANDOM}",
            "not taken over: ${_RANDOM} has no fixed meaning in keepalived 2.2",
        ),
    ),
    "a file that is not there": (
        "include /no/where\n",
        Note("k.conf", 1, "include /no/where", "there is no such file"),
    ),
    "a name that no pillar can have": (
        "vrrp_instance a/b {\n authentication { auth_pass MY_PASS }\n}",
        Note(
            "k.conf",
            1,
            "vrrp_instance a/b {",
            "not taken over: it needs a block and a name of its own",
        ),
    ),
    "a password that is too long": (
        INSTANCE % "authentication { auth_pass 123456789 }",
        Note(
            "k.conf",
            5,
            "auth_pass **********",
            "only the first eight characters count, and are taken over",
        ),
    ),
    "what keepalived clears": (
        INSTANCE % "state MASTER\n nopreempt",
        Note(
            "k.conf",
            6,
            "nopreempt",
            "not taken over: without effect, because the state is MASTER",
        ),
    ),
    "a group without members": (
        "vrrp_sync_group G {\n}",
        Note("k.conf", 1, "vrrp_sync_group G {", "not taken over: the group has no members"),
    ),
    "a real server that is none": (
        SERVER % "real_server 10.0.0.x 80 { }",
        Note(
            "k.conf",
            3,
            "real_server 10.0.0.x 80 {",
            "not taken over: its address is not as in the manual",
        ),
    ),
    "a virtual server for which only raw keywords do": (
        "virtual_server_group G {\n 10.0.0.1 80\n fwmark 1\n}\nvirtual_server group G {\n}",
        Note(
            "k.conf",
            5,
            "virtual_server group G {",
            "taken over as it stands, in extra: the pillar has no other way",
        ),
    ),
}


@pytest.mark.parametrize(("text", "note"), list(NOTES.values()), ids=list(NOTES))
def test_what_is_not_taken_over_is_told_with_its_place(text: str, note: Note) -> None:
    assert imported(text).notes == (note,)


SECURITY: Mapping[str, tuple[str, dict[str, Any], Note]] = {
    "scripts that nobody said anything of": (
        SERVER % "quorum_up /x",
        {"script_user": "root", "enable_script_security": True},
        Note(
            "k.conf",
            3,
            "quorum_up /x",
            "keepalived.global_defs has script_user: root, enable_script_security: True now, "
            "without which scripts are not accepted",
        ),
    ),
    "a user that keepalived finds for itself": (
        "global_defs {\n enable_script_security\n}",
        {"script_user": "keepalived_script", "enable_script_security": True},
        Note(
            "",
            0,
            "enable_script_security",
            "keepalived.global_defs has script_user: keepalived_script now, without which scripts "
            "are not accepted",
        ),
    ),
}


@pytest.mark.parametrize(("text", "expected", "note"), SECURITY.values(), ids=SECURITY)
def test_what_scripts_need_is_put_in_and_told(
    text: str, expected: dict[str, Any], note: Note
) -> None:
    found = imported(text)
    assert found.pillar["lvs"]["keepalived"]["global_defs"] == expected
    assert found.notes == (note,)


ODD_AUTHENTICATION = {
    "a misspelt keyword": "auth_pas s3cr3tpw",
    "a password on the next line": "auth_type PASS\n auth_pass\n s3cr3tpw",
    "two keywords on a line": "auth_type PASS auth_pass s3cr3tpw\n frob s3cr3tpw",
    "a block within": "frob s3cr3tpw {\n s3cr3tpw x\n }",
}


@pytest.mark.parametrize("inside", ODD_AUTHENTICATION.values(), ids=ODD_AUTHENTICATION)
def test_no_word_that_may_be_a_password_is_in_a_note(inside: str) -> None:
    found = imported(INSTANCE % f"authentication {{\n {inside}\n }}")
    assert found.notes
    assert "s3cr3tpw" not in repr((found.notes, found.pillar))


SETTLED: Mapping[str, tuple[str, dict[str, Any], str]] = {
    "a source without neighbours": (
        "unicast_src_ip 10.0.0.9",
        {},
        "without unicast_peer, keepalived speaks by multicast: so here too",
    ),
    "two words on when to preempt": (
        "nopreempt\n preempt_delay 5",
        {"nopreempt": True},
        "not taken over: without effect, because of nopreempt",
    ),
    "unicast from a virtual MAC address": (
        "use_vmac\n unicast_peer {\n 10.0.0.8\n }",
        {"use_vmac": True, "vmac_xmit_base": True},
        "put in: keepalived sets it with use_vmac and unicast_peer",
    ),
    "a password where VRRP is strict": (
        "strict_mode on\n authentication {\n auth_type PASS\n auth_pass x\n }",
        {"strict_mode": True},
        "the password is not taken over: strict VRRP has none",
    ),
}


@pytest.mark.parametrize(("text", "expected", "why"), SETTLED.values(), ids=SETTLED)
def test_what_keepalived_settles_with_a_complaint_is_settled_and_told(
    text: str, expected: dict[str, Any], why: str
) -> None:
    found = imported(INSTANCE % text)
    assert found.pillar["lvs"]["vrrp_instances"]["V"] == {
        "interface": "eth0",
        "virtual_router_id": 9,
        "virtual_ipaddress": ["10.0.0.1"],
        **expected,
    }
    assert [note.why for note in found.notes] == [why]
    assert found.secrets == {}


def test_a_master_without_priority_is_the_owner_of_its_addresses() -> None:
    found = imported(INSTANCE % "state MASTER").pillar["lvs"]["directors"]["lb1"]
    assert found == {"state": "MASTER", "priority": 255}


def test_mail_is_sent_where_a_global_definition_says_so() -> None:
    text = (
        "global_defs {\n notification_email {\n noc@example.com\n }\n smtp_server 10.0.0.5\n"
        " smtp_alert_vrrp on\n}\n" + INSTANCE % "" + SERVER % ""
    )
    found = imported(text).pillar["lvs"]
    assert found["vrrp_instances"]["V"]["smtp_alert"] is True
    assert found["virtual_servers"]["tcp-10.0.0.1-80"]["smtp_alert"] is False


BLOCKS_WITHOUT: Mapping[str, str] = {
    "vrrp_script": "interval 5",
    "vrrp_track_process": "quorum 2",
    "track_file": "weight 1",
    "bfd_instance": "min_rx 10",
}


@pytest.mark.parametrize(("block", "inside"), BLOCKS_WITHOUT.items(), ids=BLOCKS_WITHOUT)
def test_a_block_without_what_it_is_about_is_left_to_keepalived(block: str, inside: str) -> None:
    keyword, value = inside.split()
    assert lvs(f"{block} x {{\n {inside}\n}}")["keepalived"] == {
        "extra": {f"{block} x": {keyword: value}}
    }


def test_a_keyword_that_keepalived_does_not_know_is_left_out_and_told() -> None:
    text = INSTANCE % "brandnew 1\n    brandnew 2"
    found = imported(text, unknown=[("k.conf", 5, "brandnew")])
    assert found.pillar["lvs"]["vrrp_instances"]["V"]["extra"] == {"brandnew": "2"}
    assert [(note.line, note.words, note.why) for note in found.notes] == [
        (5, "brandnew 1", "not taken over: keepalived does not know this keyword")
    ]


def test_names_that_cannot_be_right_are_refused() -> None:
    with pytest.raises(InvalidConfig, match="names"):
        imported("", names={"rs1": "10.0.0.1"})
    with pytest.raises(InvalidConfig, match="names:10.0.0.1"):
        imported("", names={"10.0.0.1": "a b"})


# --------------------------------------------------------------------------------------------------
# Secrets

PASSWORDS = {
    "of VRRP": (
        INSTANCE % "authentication { auth_type PASS\n auth_pass Zq7!x }",
        {"lvs_secrets": {"vrrp_instances": {"V": {"auth_pass": "Zq7!x"}}}},
    ),
    "of a certificate": (
        "SSL {\n password Zq7!x\n ca /x\n}",
        {"lvs_secrets": {"keepalived": {"ssl": {"password": "Zq7!x"}}}},
    ),
    "of a keyword that is new": (
        INSTANCE % "auth_hmac Zq7!x",
        {"lvs": {"vrrp_instances": {"V": {"extra": {"auth_hmac": "Zq7!x"}}}}},
    ),
    "in a block that is new": (
        "brandnew {\n deep { secret Zq7!x }\n}",
        {"lvs": {"keepalived": {"extra": {"brandnew": {"deep": {"secret": "Zq7!x"}}}}}},
    ),
}


@pytest.mark.parametrize(("text", "secrets"), list(PASSWORDS.values()), ids=list(PASSWORDS))
def test_a_password_is_only_among_the_secrets(text: str, secrets: dict[str, Any]) -> None:
    # In quotes: outside of them the exclamation mark begins a comment.
    found = imported(text.replace("Zq7!x", '"Zq7!x"'))
    assert str(found.secrets).replace('"', "") == str(secrets)
    assert "Zq7" not in f"{found.pillar}{found.notes}{found!r}"


# --------------------------------------------------------------------------------------------------
# Laws


def settled(pillar: dict[str, Any]) -> str:
    return keepalived.render(model.from_pillar(pillar), "lb1", TEMPLATE)


@pytest.mark.parametrize("name", ["first_director", "second_director", "everything"])
def test_what_was_taken_over_and_rendered_is_taken_over_as_the_same(name: str) -> None:
    first = importing.to_pillar(conffile.read(str(ADOPTED / f"{name}.conf"), "lb1"), "lb1")
    text = settled(importing.joined(first.pillar, first.secrets))
    second = imported(text)
    assert settled(importing.joined(second.pillar, second.secrets)) == text
    assert second.secrets == first.secrets


def texts() -> st.SearchStrategy[str]:
    word = st.from_regex(r"[A-Za-z0-9/._=-]{1,8}", fullmatch=True)
    return st.lists(word | word.map('"{} x"'.format), min_size=1, max_size=3).map(" ".join)


def values(kind: grammar.Kind) -> st.SearchStrategy[Any]:
    """What a keyword may take."""
    return STRATEGIES[type(kind)](kind)


def seconds(kind: grammar.Seconds) -> st.SearchStrategy[float]:
    return st.floats(kind.low, kind.high, allow_nan=False).map(
        lambda number: min(max(round(number, 3), kind.low), kind.high)
    )


def table(of: grammar.Table) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={key: values(kind) for key, kind in of.items()})


STRATEGIES: Mapping[type, Any] = {
    grammar.Whole: lambda kind: st.integers(kind.low, kind.high),
    grammar.Seconds: seconds,
    grammar.WholeSeconds: lambda kind: st.integers(kind.low, kind.high),
    grammar.Flag: lambda _: st.just(True),
    grammar.Switch: lambda _: st.booleans(),
    grammar.Text: lambda _: texts(),
    grammar.Choice: lambda kind: st.sampled_from(kind.words),
    grammar.Address: lambda _: st.ip_addresses().map(str),
    grammar.Multicast: lambda kind: st.sampled_from(
        [{4: "239.1.1.1", 6: "ff02::99"}[family] for family in kind.families]
    ),
    grammar.Maybe: lambda kind: st.just(True) | values(kind.kind),
    grammar.Words: lambda kind: st.lists(
        values(kind.of) if not isinstance(kind.of, grammar.Text) else st.just("200-299"),
        min_size=1,
        max_size=3,
    ),
    grammar.Repeated: lambda kind: st.lists(values(kind.of), min_size=1, max_size=2),
    grammar.Lines: lambda _: st.lists(
        st.from_regex("[a-z0-9./]{1,9}", fullmatch=True), min_size=1, max_size=3
    ),
    grammar.Tracked: lambda kind: st.dictionaries(
        st.from_regex("[a-z0-9]{1,5}", fullmatch=True),
        table({"weight": grammar.Whole(-kind.limit, kind.limit), "reverse": grammar.Flag()}),
        min_size=1,
        max_size=3,
    ),
    grammar.Block: lambda kind: table(kind.table),
}
TABLES = {
    "global_defs": grammar.GLOBAL_DEFS,
    "vrrp_instance": grammar.VRRP_INSTANCE,
    "vrrp_sync_group": grammar.VRRP_SYNC_GROUP,
    "vrrp_script": grammar.VRRP_SCRIPT,
    "bfd_instance": grammar.BFD_INSTANCE,
    "virtual_server": grammar.VIRTUAL_SERVER,
    "real_server": grammar.REAL_SERVER,
    **grammar.CHECKERS,
}


@pytest.mark.parametrize("name", TABLES)
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_what_a_table_writes_is_read_again(name: str, data: st.DataObject) -> None:
    of = TABLES[name]
    pillar = data.draw(table(of))
    text = "\n".join(grammar.block("x", grammar.lines(pillar, of)))
    (node,) = conffile.parse(text).nodes
    assert importing.read_block(node, of) == (pillar, ())


# --------------------------------------------------------------------------------------------------
# Several directors


def parts() -> dict[str, dict[str, Any]]:
    files = {"lb1": "first_director.conf", "lb2": "second_director.conf"}
    return {
        minion_id: importing.to_pillar(conffile.read(str(ADOPTED / file)), minion_id).pillar
        for minion_id, file in files.items()
    }


def test_two_directors_that_differ_in_what_is_their_own_agree() -> None:
    merged = importing.merge(parts())
    assert merged.disagreements == ()
    assert merged.pillar["lvs"]["directors"] == {
        "lb1": {"router_id": "LVS_PRI", "state": "MASTER", "priority": 150},
        "lb2": {"router_id": "LVS_SEC", "state": "BACKUP", "priority": 50},
    }
    rest = {key: value for key, value in merged.pillar["lvs"].items() if key != "directors"}
    alone = {key: value for key, value in parts()["lb1"]["lvs"].items() if key != "directors"}
    assert rest == alone


def test_what_two_directors_have_of_an_instance_each_for_itself_stays_with_each() -> None:
    both = parts()
    both["lb2"]["lvs"]["vrrp_instances"]["VirtIP_10"].update(interface="ens3", nopreempt=True)
    both["lb2"]["lvs"]["keepalived"] = {"global_defs": {"script_user": "root"}}
    merged = importing.merge(both)
    assert merged.disagreements == ()
    assert merged.pillar["lvs"]["directors"]["lb2"] == {
        "router_id": "LVS_SEC",
        "state": "BACKUP",
        "priority": 50,
        "vrrp_instances": {"VirtIP_10": {"interface": "ens3", "nopreempt": True}},
        "keepalived": {"global_defs": {"script_user": "root"}},
    }
    assert merged.pillar["lvs"]["vrrp_instances"]["VirtIP_10"]["interface"] == "eth0"


def test_where_directors_disagree_is_told() -> None:
    both = parts()
    server = both["lb2"]["lvs"]["virtual_servers"]["tcp-10.10.10.10-80"]
    server["scheduler"] = "rr"
    server["real_servers"]["rs-10.10.10.41"]["weight"] = 5
    both["lb2"]["lvs"]["vrrp_instances"]["W"] = {"interface": "eth1"}
    path = "lvs:virtual_servers:tcp-10.10.10.10-80"
    merged = importing.merge(both)
    assert merged.disagreements == (
        "lvs:vrrp_instances:W: lb1 does not have it",
        f"{path}:scheduler: lb1 has 'wlc'; lb2 has 'rr'",
        f"{path}:real_servers:rs-10.10.10.41:weight: lb1 has 50; lb2 has 5",
    )
    assert merged.pillar["lvs"]["virtual_servers"]["tcp-10.10.10.10-80"]["scheduler"] == "wlc"
