"""The ipvs module and state under Salt's own loader, on a kernel without IPVS."""

from __future__ import annotations

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

from tests.functional.conftest import MinionMaker, example

WEB = "tcp 10.10.10.10:80"
FILLING = {
    WEB: {"old": None, "new": {"scheduler": "wlc", "persistence": 5}},
    f"{WEB} -> 10.10.10.41:80": {"old": None, "new": {"forward": "direct", "weight": 50}},
    f"{WEB} -> 10.10.10.42:80": {"old": None, "new": {"forward": "direct", "weight": 50}},
}
OPERATIONS = [
    f"add virtual server {WEB}",
    f"add real server 10.10.10.41:80 of {WEB}",
    f"add real server 10.10.10.42:80 of {WEB}",
]


@pytest.fixture(autouse=True)
def no_ipvs(without_ipvs: None) -> None:
    """These are about a machine before its first highstate."""


def test_a_plan_on_a_machine_without_ipvs_is_for_an_empty_table(minion: MinionMaker) -> None:
    assert minion("lb1").call("ipvs.plan") == {
        "operations": OPERATIONS,
        "changes": FILLING,
        "loaded": False,
        "notes": [],
    }


def test_the_table_of_a_machine_without_ipvs_cannot_be_listed(minion: MinionMaker) -> None:
    with pytest.raises(CommandExecutionError, match="no IPVS loaded; load it with: modprobe ip_vs"):
        minion("lb1").call("ipvs.list")


def test_a_minion_that_is_no_director_has_no_table_to_keep(minion: MinionMaker) -> None:
    with pytest.raises(CommandExecutionError, match="rs1 is no director of cluster prod"):
        minion("rs1").call("ipvs.plan")


def test_a_wrong_pillar_is_named_with_its_path(minion: MinionMaker) -> None:
    pillar = example("production")
    pillar["lvs"]["virtual_servers"]["web"]["port"] = 70000
    with pytest.raises(SaltInvocationError, match="lvs:virtual_servers:web:port is 70000"):
        minion("lb1", pillar).call("ipvs.plan")


def test_a_cluster_may_be_given_instead_of_the_pillar(minion: MinionMaker) -> None:
    cluster = example("production")["lvs"]
    cluster["virtual_servers"]["web"]["real_servers"] = {}
    answer = minion("lb1").call("ipvs.plan", cluster=cluster)
    assert answer["operations"] == OPERATIONS[:1]


def test_the_state_in_test_mode_tells_what_would_change(minion: MinionMaker) -> None:
    assert minion("lb1").state("ipvs.managed", "table", test=True) == {
        "name": "table",
        "result": None,
        "changes": FILLING,
        "comment": "\n".join(
            ["The IPVS table would be changed:", *(f"- {line}" for line in OPERATIONS)]
        ),
    }


def test_the_state_fails_with_the_reason_where_there_is_no_ipvs(minion: MinionMaker) -> None:
    answer = minion("lb1").state("ipvs.managed", "table")
    assert answer == {
        "name": "table",
        "result": False,
        "changes": {},
        "comment": "this kernel has no IPVS loaded; load it with: modprobe ip_vs",
    }


def test_the_state_fails_with_the_reason_on_a_wrong_pillar(minion: MinionMaker) -> None:
    pillar = example("production")
    pillar["lvs"]["virtual_servers"]["web"]["scheduler"] = "random"
    answer = minion("lb1", pillar).state("ipvs.managed", "table")
    assert (answer["result"], answer["changes"]) == (False, {})
    assert answer["comment"].startswith("lvs:virtual_servers:web:scheduler is 'random'")
