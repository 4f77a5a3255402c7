"""The lvs module and the formula's SLS under Salt's own compilers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from saltext.lvs import operating, realserver
from saltext.lvs.errors import CommandFailed

from tests.functional.conftest import MinionMaker, example


@pytest.mark.parametrize(
    ("minion_id", "environment", "roles"),
    [
        ("lb1", "production", ["director"]),
        ("rs2", "production", ["realserver"]),
        ("kvm1", "production", ["hypervisor"]),
        ("staging-lb1", "staging", ["director"]),
        ("elsewhere", "production", []),
    ],
)
def test_a_minion_knows_its_roles(
    minion: MinionMaker, minion_id: str, environment: str, roles: list[str]
) -> None:
    assert minion(minion_id, example(environment)).call("lvs.roles") == roles


def test_a_right_pillar_is_valid(minion: MinionMaker) -> None:
    assert minion("lb1").call("lvs.validate") == {
        "valid": True,
        "problems": [],
        "warnings": [],
        "cluster": "prod",
        "roles": ["director"],
    }


def test_the_view_for_the_sls_holds_no_password(minion: MinionMaker) -> None:
    view = minion("lb1").call("lvs.view")
    assert view["roles"] == ["director"]
    assert "MY_PASS" not in str(view)


@pytest.mark.parametrize(
    ("minion_id", "functions"),
    [
        ("lb1", {"lvs.health", "keepalived.status"}),
        ("rs1", {"dummy.check"}),
        ("elsewhere", set()),
    ],
)
def test_a_report_has_what_the_minions_roles_ask_for(
    minion: MinionMaker, minion_id: str, functions: set[str]
) -> None:
    assert set(minion(minion_id).call("lvs.report")) == functions


def test_what_a_report_cannot_have_it_says_and_has_the_rest(
    minion: MinionMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    director = minion("lb1")
    assert director.call("lvs.report")["lvs.health"]["watched"] is False

    def told_of(*_: Any) -> None:
        raise CommandFailed("the disk is full")

    monkeypatch.setattr(operating, "told", told_of)
    told = director.call("lvs.report")
    assert told["lvs.health"] == "lvs.health: the disk is full"
    assert isinstance(told["keepalived.status"], dict)


SLS = {
    "a director gets its table before keepalived": (
        "lb1",
        [
            "lvs-pyroute2",
            "lvs-minion-config",
            "lvs-director-packages",
            "lvs-director-modules",
            "lvs-director-modules-at-boot",
            "lvs-director-sysctls",
            "lvs-ipvs-table",
            "lvs-ipvs-at-boot",
            "lvs-director-vips-kept",
            "lvs-keepalived-config",
            "lvs-keepalived-service",
            "lvs-director-pillar",
        ],
    ),
    "a real server is made quiet before it gets the VIP": (
        "rs1",
        [
            "lvs-pyroute2",
            "lvs-minion-config",
            "net.ipv4.conf.all.arp_ignore",
            "net.ipv4.conf.all.arp_announce",
            "lvs-realserver-modules",
            "lvs-realserver-modules-at-boot",
            "lvs-vip-interface",
            "lvs-vip-watch",
        ],
    ),
    "a stranger is told so": ("elsewhere", ["lvs-no-part"]),
}


def low_ids(minion: Any) -> list[str]:
    """The ids of the formula's states in the order in which they would run."""
    chunks = minion.call("state.show_low_sls", "lvs")
    assert isinstance(chunks[0], dict), chunks
    ordered = sorted(chunks, key=lambda chunk: chunk["order"])
    ids = list(dict.fromkeys(chunk["__id__"] for chunk in ordered))
    return [state_id for state_id in ids if state_id != "lvs-minion-restart"]


@pytest.mark.parametrize(("minion_id", "ids"), SLS.values(), ids=SLS.keys())
def test_the_formula_chooses_by_role(minion: MinionMaker, minion_id: str, ids: list[str]) -> None:
    assert low_ids(minion(minion_id)) == ids


def test_a_director_hears_real_servers_before_keepalived_checks_them_through_the_vip(
    minion: MinionMaker,
) -> None:
    director = minion("kept-lb1", example("by_keepalived"))
    ids = low_ids(director)
    sysctls = [line["name"] for line in director.call("lvs.view")["sysctls"]["director"]]
    # The way to the example's real servers is this machine's own.
    assert sysctls[0] == "net.ipv4.conf.eth0.accept_local"
    at = ids.index("lvs-director-sysctls") + 1
    assert ids[at : at + len(sysctls)] == sysctls
    assert at < ids.index("lvs-keepalived-config")


@pytest.fixture
def held_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An apply has put VIPs on two interfaces."""
    record = tmp_path / "dummy.json"
    held = {"dummy0": {"vips": ["10.10.10.10/32"]}, "dummy7": {"vips": ["192.0.2.1/32"]}}
    record.write_text(json.dumps(held))
    monkeypatch.setattr(realserver, "RECORD", str(record))


def vip_states(minion: Any) -> list[tuple[str, str]]:
    """What the formula does with interfaces that hold VIPs."""
    chunks = minion.call("state.show_low_sls", "lvs")
    return [(chunk["name"], chunk["fun"]) for chunk in chunks if chunk["state"] == "dummy"]


@pytest.mark.parametrize("minion_id", ["elsewhere", "kvm1"])
@pytest.mark.usefixtures("held_before")
def test_who_is_no_real_server_any_more_gives_its_vips_up(
    minion: MinionMaker, minion_id: str
) -> None:
    assert vip_states(minion(minion_id)) == [("dummy0", "absent")]


@pytest.mark.usefixtures("held_before")
def test_vips_that_move_are_on_the_new_interface_before_the_old_one_goes(
    minion: MinionMaker,
) -> None:
    pillar = example("production")
    pillar["lvs"]["real_servers"]["rs1"]["vip_interface"] = "lo"
    rs1 = minion("rs1", pillar)
    assert vip_states(rs1) == [("lo", "present"), ("dummy0", "absent")]
    # The loopback needs no module of the kernel.
    assert "lvs-realserver-modules" not in low_ids(rs1)


def test_who_is_disabled_stays_watched_until_its_vips_are_gone(minion: MinionMaker) -> None:
    pillar = example("production")
    pillar["lvs"]["real_servers"]["rs1"]["enabled"] = False
    rs1 = minion("rs1", pillar)
    assert vip_states(rs1) == [("dummy0", "present")]
    view = rs1.call("lvs.view")
    assert (view["vips"], view["serves"], list(view["beacons"])) == ([], True, ["dummy"])


def test_the_sls_of_a_real_server_can_be_applied_alone(minion: MinionMaker) -> None:
    chunks = minion("rs1").call("state.show_low_sls", "lvs.realserver")
    assert "lvs-pyroute2" in {chunk["__id__"] for chunk in chunks}


def test_the_minion_is_restarted_after_everything_else(minion: MinionMaker) -> None:
    chunks = minion("rs1").call("state.show_low_sls", "lvs")
    assert max(chunks, key=lambda chunk: chunk["order"])["__id__"] == "lvs-minion-restart"


def test_a_wrong_pillar_changes_nothing_and_says_what_is_wrong(minion: MinionMaker) -> None:
    pillar = example("production")
    pillar["lvs"]["virtual_servers"]["web"]["port"] = 70000
    pillar["lvs"]["directors"]["lb1"]["priority"] = 0
    lb1 = minion("lb1", pillar)
    tested = lb1.call("state.apply", "lvs", test=True)
    assert [state["name"] for state in tested.values()] == [
        "lvs:directors:lb1:priority is 0; it should be a whole number from 1 to 255",
        "lvs:virtual_servers:web:port is 70000; it should be a whole number from 1 to 65535",
    ]
    answer = lb1.call("state.apply", "lvs")
    assert [(state["result"], state["changes"], state["comment"]) for state in answer.values()] == [
        (
            False,
            {},
            "lvs:directors:lb1:priority is 0; it should be a whole number from 1 to 255",
        ),
        (
            False,
            {},
            "lvs:virtual_servers:web:port is 70000; it should be a whole number from 1 to 65535",
        ),
    ]


@pytest.mark.parametrize("sls", ["lvs.minion", "lvs.director", "lvs.realserver", "lvs.hypervisor"])
def test_no_part_of_the_formula_works_with_a_wrong_pillar(minion: MinionMaker, sls: str) -> None:
    pillar = example("production")
    pillar["lvs"]["virtual_servers"]["web"]["port"] = 70000
    answer = minion("lb1", pillar).call("state.apply", sls)
    assert [state["result"] for state in answer.values()] == [False]


def test_a_virtualization_host_gets_the_guides_settings_and_those_of_its_interfaces(
    minion: MinionMaker,
) -> None:
    chunks = minion("kvm1").call("state.show_low_sls", "lvs")
    settings = {chunk["name"]: chunk["value"] for chunk in chunks if chunk["state"] == "sysctl"}
    assert settings == {
        "net.ipv4.ip_forward": 1,
        "net.ipv4.conf.all.rp_filter": 1,
        "net.ipv4.icmp_echo_ignore_broadcasts": 1,
        "net.ipv4.conf.default.proxy_arp": 1,
        "net.ipv4.conf.all.promote_secondaries": 1,
        "net.ipv4.conf.all.arp_ignore": 1,
        "net.ipv4.conf.all.arp_announce": 2,
        "net.ipv4.conf.virbr0.arp_ignore": 1,
        "net.ipv4.conf.virbr0.arp_announce": 2,
        "net.ipv4.conf.eth1.arp_announce": 0,
    }


def test_a_minion_that_is_no_service_is_not_restarted(minion: MinionMaker) -> None:
    answer = minion("lb1").call("lvs.restart_minion", "no-such-service")
    assert answer == "no-such-service does not run as a service here; nothing is restarted"


def test_where_no_minion_runs_none_has_to_read_its_pillar_anew(minion: MinionMaker) -> None:
    assert minion("rs1").call("lvs.refresh_pillar") == "No minion runs here that would have to."


def test_the_own_python_is_looked_at_for_pyroute2(minion: MinionMaker) -> None:
    assert minion("lb1").call("lvs.view")["has_pyroute2"] is True


def test_a_real_server_without_virtual_server_needs_no_vip(minion: MinionMaker) -> None:
    pillar = example("production")
    pillar["lvs"]["real_servers"]["rs3"] = {"address": "10.10.10.43"}
    assert low_ids(minion("rs3", pillar)) == ["lvs-pyroute2", "lvs-minion-config"]


def test_each_role_has_its_beacons(minion: MinionMaker) -> None:
    found = {name: minion(name).call("lvs.view")["beacons"] for name in ("lb1", "rs1", "kvm1")}
    assert found == {
        "lb1": {"keepalived_vrrp": [{"interval": 1}], "real_server": [{"interval": 1}]},
        "rs1": {"dummy": [{"interval": 1}]},
        "kvm1": {},
    }
