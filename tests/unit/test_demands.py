"""What keepalived's keywords demand of each other: each row is a file that ``keepalived -t`` of 2.2
has something against, and the sentence that says so of the pillar.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml
from saltext.lvs import keywords, masking, model
from saltext.lvs.errors import InvalidConfig
from saltext.lvs.grammar import number

from tests.unit.test_model import Pillar, at, both
from tests.unit.test_model_keepalived import INSTANCE, TWO, WEB

GLOBAL = "lvs:keepalived:global_defs"
SECURE = at(GLOBAL, {"script_user": "root", "enable_script_security": True})
CHECKERS = f"{WEB}:checkers"


def section(name: str, **options: Any) -> Callable[[Pillar], None]:
    return at(f"lvs:keepalived:{name}", {"x": options})


def checker(kind: str, **options: Any) -> Callable[[Pillar], None]:
    return both(SECURE, at(CHECKERS, [{kind: options}]))


WRONG: dict[str, tuple[Callable[[Pillar], None], str]] = {
    "a fraction of a second": (
        at(f"{GLOBAL}:vrrp_garp_master_delay", 1.5),
        f"{GLOBAL}:vrrp_garp_master_delay is 1.5; it should be whole seconds from 0 to 4294",
    ),
    "less than a microsecond": (
        at(f"{GLOBAL}:vrrp_garp_interval", 1e-7),
        f"{GLOBAL}:vrrp_garp_interval is 1e-07; it should be seconds from 0.000001 to 4294",
    ),
    "no attempt": (
        at(f"{WEB}:retry", 0),
        f"{WEB}:retry is 0; it should be a whole number from 1 to 2147483647",
    ),
    "a group that is none": (
        at(f"{GLOBAL}:vrrp_mcast_group4", "10.0.0.9"),
        f"{GLOBAL}:vrrp_mcast_group4 is '10.0.0.9'; it should be an IPv4 multicast address",
    ),
    "a group beyond the link": (
        at(f"{GLOBAL}:vrrp_mcast_group6", "ff05::12"),
        f"{GLOBAL}:vrrp_mcast_group6 is 'ff05::12'; it should be a link-local IPv6 multicast "
        "address",
    ),
    "a source of the other family": (
        at(f"{INSTANCE}:mcast_src_ip", "fd00::9"),
        f"{INSTANCE}:mcast_src_ip is 'fd00::9'; it should be an IPv4 address, like the VIPs",
    ),
    "a director's own source of the other family": (
        at("lvs:directors:lb1:vrrp_instances:VirtIP_10", {"mcast_src_ip": "fd00::9"}),
        "lvs:directors:lb1:vrrp_instances:VirtIP_10:mcast_src_ip is 'fd00::9'; it should be an "
        "IPv4 address, like the VIPs",
    ),
    "unicast without neighbours": (
        at(f"{INSTANCE}:unicast_ttl", 0),
        f"{INSTANCE}:unicast_ttl is 0; it should be given with unicast_peer, or left out",
    ),
    "native IPv6 with IPv4": (
        at(f"{INSTANCE}:native_ipv6", True),
        f"{INSTANCE}:native_ipv6 is True; it should be left out: the VIPs are IPv4",
    ),
    "the base of no virtual MAC address": (
        at(f"{INSTANCE}:vmac_xmit_base", True),
        f"{INSTANCE}:vmac_xmit_base is True; it should be given with use_vmac, or left out",
    ),
    "an ipvlan without address": (
        at(f"{INSTANCE}:use_ipvlan", True),
        f"{INSTANCE}:use_ipvlan is True; it should be a name, an IPv4 address, or both; it needs "
        "the address",
    ),
    "a password in strict VRRP": (
        both(
            at(f"{INSTANCE}:strict_mode", True),
            at("lvs_secrets:vrrp_instances", {"VirtIP_10": {"auth_pass": "MY_PASS"}}),
        ),
        "lvs_secrets:vrrp_instances:VirtIP_10 is **********; it should be left out: strict VRRP "
        "(vrrp_strict, strict_mode) knows no password",
    ),
    "a MASTER in strict VRRP": (
        both(at(f"{GLOBAL}:vrrp_strict", True), at("lvs:directors:lb1:state", "MASTER")),
        "lvs:directors:lb1:state is 'MASTER'; it should be BACKUP or left out, as VirtIP_10 is "
        "strict: there only priority 255, the addresses' owner, starts as MASTER",
    ),
    "the other family of a virtual server": (
        at(f"{WEB}:ip_family", "inet6"),
        f"{WEB}:ip_family is 'inet6'; it should be left out: the address is IPv4",
    ),
    "more of a sorry server that is not there": (
        at(f"{WEB}:sorry_server_inhibit", True),
        f"{WEB}:sorry_server_inhibit is True; it should be given with a sorry_server, or left out",
    ),
    "a check from the other family": (
        checker("TCP_CHECK", bindto="fd00::9"),
        f"{CHECKERS}:0:TCP_CHECK:bindto is 'fd00::9'; it should be an IPv4 address, like "
        "10.10.10.41, which it connects to",
    ),
    "a check of a link-local address": (
        checker("TCP_CHECK", connect_ip="fe80::1"),
        f"{CHECKERS}:0:TCP_CHECK:bind_if is missing; it should be the interface by which fe80::1 "
        "is reached, as it is link-local",
    ),
    "a reply that is never long enough": (
        checker("UDP_CHECK", min_reply_length=256),
        f"{CHECKERS}:0:UDP_CHECK:min_reply_length is 256; it should be at most max_reply_length, "
        "255",
    ),
    "a page without a path": (
        checker("HTTP_GET", url=[{"status_code": [200]}]),
        f"{CHECKERS}:0:HTTP_GET:url:0:path is missing; it should be the path to ask for",
    ),
    "a check that runs nothing": (
        checker("MISC_CHECK"),
        f"{CHECKERS}:0:MISC_CHECK:misc_path is missing; it should be the command to run",
    ),
    "neighbours of two families": (
        section("bfd_instances", neighbor_ip="10.0.0.1", source_ip="fd00::1"),
        "lvs:keepalived:bfd_instances:x:source_ip is 'fd00::1'; it should be an IPv4 address, like "
        "neighbor_ip 10.0.0.1",
    ),
    "a pause that is none": (
        at("lvs:keepalived:garp_groups", [{"interface": "eth0"}]),
        "lvs:keepalived:garp_groups:0:garp_interval is missing; it should be the seconds of a "
        "pause",
    ),
    "a script without security": (
        section("vrrp_scripts", script="/usr/bin/true"),
        f"{GLOBAL}:enable_script_security is missing; it should be True, with a script_user: "
        "lvs:keepalived:vrrp_scripts:x is run as root",
    ),
    "security without a user": (
        at(f"{GLOBAL}:enable_script_security", True),
        f"{GLOBAL}:script_user is missing; it should be the user that scripts run as, given with "
        "enable_script_security: keepalived wants to know it even for our pipes",
    ),
    "a line that reads another file": (
        at("lvs:keepalived:static_routes", ["include /etc/x"]),
        "lvs:keepalived:static_routes:0 is 'include /etc/x'; it should be one line of printable "
        'text, with { } # ! in "double quotes" only, and not begun with one of @ $ ~, or with '
        "include",
    ),
}


@pytest.mark.parametrize(("spoil", "expected"), WRONG.values(), ids=WRONG)
def test_what_keepalived_would_refuse_is_refused(
    spoil: Callable[[Pillar], None], expected: str
) -> None:
    pillar = yaml.safe_load(TWO)
    spoil(pillar)
    with pytest.raises(InvalidConfig) as raised:
        model.from_pillar(pillar)
    assert [str(problem) for problem in raised.value.problems] == [expected]


RIGHT: dict[str, Callable[[Pillar], None]] = {
    "a script of a user's own": section("vrrp_scripts", script="/usr/bin/true", user="nobody"),
    "scripts of another user": both(
        at(f"{GLOBAL}:script_user", "nobody"), section("vrrp_scripts", script="/usr/bin/true")
    ),
    "neighbours that are said raw": at(
        INSTANCE,
        {
            "interface": "eth0",
            "virtual_router_id": 10,
            "virtual_ipaddress": ["10.10.10.10"],
            "unicast_ttl": 9,
            "extra": {"unicast_peer": {"10.10.10.12": True}},
        },
    ),
    "strict VRRP without a word of who begins": at(f"{GLOBAL}:vrrp_strict", True),
    "strict VRRP that an instance has not": both(
        at(f"{GLOBAL}:vrrp_strict", True),
        at(f"{INSTANCE}:strict_mode", False),
        at("lvs:directors:lb1:state", "MASTER"),
    ),
    "a link-local address on an interface": checker(
        "TCP_CHECK", connect_ip="fe80::1", bind_if="eth0"
    ),
    "a longer reply": checker("UDP_CHECK", min_reply_length=256, max_reply_length=256),
    "a checker without a second attempt": checker("TCP_CHECK", retry=0),
}


@pytest.mark.parametrize("change", RIGHT.values(), ids=RIGHT)
def test_what_keepalived_takes_is_right(change: Callable[[Pillar], None]) -> None:
    pillar = yaml.safe_load(TWO)
    change(pillar)
    model.from_pillar(pillar)


def test_nobody_begins_as_master_in_strict_vrrp() -> None:
    pillar = yaml.safe_load(TWO)
    at(f"{GLOBAL}:vrrp_strict", True)(pillar)
    directors = model.from_pillar(pillar).directors.values()
    assert {one.vrrp_instances["VirtIP_10"].state for one in directors} == {model.VrrpState.BACKUP}


NUMBERS = {1e-7: "0", 0.9999999: "1", 1e-6: "0.000001", 2.5: "2.5", 10.0: "10", 100: "100"}


@pytest.mark.parametrize(("value", "expected"), NUMBERS.items())
def test_a_number_never_ends_with_a_point(value: float, expected: str) -> None:
    assert number(value) == expected


BEGINNINGS = {
    "10.0.0.0/8 via 10.0.0.1": True,
    "includer /x": False,
    '"include" /x': False,
    "@lb1 x": False,
    "$X=1": False,
    "~SEQ(a,1,9) x": False,
}


@pytest.mark.parametrize(("line", "expected"), BEGINNINGS.items(), ids=BEGINNINGS)
def test_a_line_begins_plainly_or_not(line: str, expected: bool) -> None:
    assert keywords.begins_plainly(line) is expected


DEFINED = {
    "in braces": "$KEY=s3cr3tpw\nauth_pass ${KEY}\n",
    "bare": "$KEY=s3cr3tpw\nauth_pass $KEY\n",
    "by way of another": "$A=s3cr3tpw\n$KEY=${A}\nauth_pass ${KEY}\n",
    "on the next line": "auth_pass \\\n s3cr3tpw\n",
    "in many lines": "$KEY= \\\n auth_pass \\\n s3cr3tpw\n",
}


@pytest.mark.parametrize("old", DEFINED.values(), ids=DEFINED)
def test_a_former_password_that_is_set_in_a_roundabout_way_is_not_shown(old: str) -> None:
    assert "s3cr3tpw" not in masking.diff(old, "", [], "x.conf")
