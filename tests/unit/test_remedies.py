"""What minions claim to have done: who says it, in which words, and how often it is heard."""

from __future__ import annotations

from typing import Any

import pytest
from saltext.lvs import remedies
from saltext.lvs.journal import Action
from saltext.lvs.remedies import Claims

JOB = "20261123170916000001"
NOW = 1_795_350_000.0
WEIGHT = {"virtual_server": "web", "real_server": "rs1", "weight_was": 50, "weight_now": 0}
BACK = {"address": "10.10.10.10", "was": "lost", "now": "restored", "repaired": True}


def returned(answer: Any, function: str = "dummy.repair", **other: Any) -> dict[str, Any]:
    given = [{"__kwarg__": True, "automatic": True}]
    return {"fun": function, "id": "rs1", "return": answer, "fun_args": given, **other}


def claimed(data: Any, minion_id: str = "rs1") -> Action | None:
    claims = Claims()
    claims.of_job(f"salt/job/{JOB}/new", {"fun": data["fun"]}, NOW)
    claim = claims.of_job(f"salt/job/{JOB}/ret/{minion_id}", data, NOW + 2)
    return claim and claim.action


@pytest.mark.parametrize(
    ("answer", "result", "changed"),
    [
        pytest.param({"operations": ["add a", "add b"]}, "changed: add a; add b", True, id="much"),
        pytest.param({"operations": []}, "nothing was to be changed", False, id="nothing"),
        pytest.param("ERROR: no", "failed: ERROR: no", False, id="an error"),
        pytest.param({"operations": "x"}, "nothing was to be changed", False, id="no list"),
        pytest.param(
            {"operations": ["x"] * 8}, "changed: x; x; x; x; x; and 3 more", True, id="many"
        ),
        pytest.param(
            {"operations": ["a\r\nBcc: b", {"c": "d"}, 7]},
            "changed: a Bcc: b; ?; 7",
            True,
            id="bad",
        ),
        pytest.param(["x" * 10_000_000], "failed: ?", False, id="large"),
    ],
)
def test_what_a_reactor_asked_for_came_to_something(
    answer: Any, result: str, changed: bool
) -> None:
    assert claimed(returned(answer)) == Action(
        at=NOW,
        cluster="",
        minion="rs1",
        subject="dummy.repair",
        what="dummy.repair",
        cause="a reactor asked",
        result=result,
        took_seconds=2.0,
        changed=changed,
    )


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(returned({}, "test.ping"), id="another function"),
        pytest.param(returned({}, ["dummy.repair"]), id="several functions"),
        pytest.param(returned({}, id="rs2"), id="in another one's name"),
        pytest.param(returned({}, fun_args=[]), id="a person asked"),
        pytest.param(returned({}, fun_args=[{"automatic": "True"}]), id="in words"),
        pytest.param(returned({}, fun_args={"automatic": True}), id="no list"),
    ],
)
def test_what_else_minions_return_is_no_claim(data: Any) -> None:
    assert claimed(data) is None


@pytest.mark.parametrize(
    ("beacon", "data", "result"),
    [
        pytest.param(
            "real_server",
            {"acted": True, "changes": [WEIGHT, {**WEIGHT, "weight_now": 50}, "x"]},
            "changed: weight of rs1 in web from 50 to 0",
            id="a weight",
        ),
        pytest.param(
            "dummy",
            {"acted": True, "changes": [BACK, {**BACK, "repaired": False}]},
            "changed: 10.10.10.10 put right",
            id="a VIP",
        ),
        pytest.param("dummy", {"acted": False, "changes": [BACK]}, None, id="left to others"),
        pytest.param("dummy", {"acted": True, "changes": 7}, None, id="no list"),
        pytest.param("keepalived_vrrp", {"acted": True, "changes": [BACK]}, None, id="no doer"),
    ],
)
def test_what_a_beacon_has_done_itself(beacon: str, data: Any, result: str | None) -> None:
    claim = Claims().of_beacon("rs1", beacon, data, NOW)
    action = claim and claim.action
    assert (action and action.result) == result
    assert action is None or (action.what, action.changed) == ("the minion itself", True)


@pytest.mark.parametrize(
    ("change", "servers"),
    [
        pytest.param(WEIGHT, (("web", "rs1"),), id="a weight"),
        pytest.param({**WEIGHT, "virtual_server": "w" * 10_000}, (), id="no name"),
        pytest.param({**WEIGHT, "real_server": ["rs1"]}, (), id="no text"),
        pytest.param({**WEIGHT, "weight_now": 50}, (), id="as it was"),
    ],
)
def test_whose_weight_it_was_is_kept_of_a_claim(change: Any, servers: Any) -> None:
    data = {"acted": True, "changes": [change, {**WEIGHT, "real_server": "rs2"}]}
    claim = Claims().of_beacon("lb1", "real_server", data, NOW)
    assert claim is not None
    assert claim.servers == (*servers, ("web", "rs2"))


def test_of_a_claim_with_changes_without_end_the_first_are_kept() -> None:
    data = {"acted": True, "changes": [{**WEIGHT, "real_server": f"rs{n}"} for n in range(9999)]}
    claim = Claims().of_beacon("lb1", "real_server", data, NOW)
    assert claim is not None
    assert len(claim.servers) == remedies.MOST_SERVERS


def test_who_claims_too_much_is_not_heard_for_a_while_and_others_are() -> None:
    claims = Claims()
    data = {"acted": True, "changes": [BACK]}
    heard = [claims.of_beacon("rs1", "dummy", data, NOW + one) for one in range(200)]
    assert sum(one is not None for one in heard) == remedies.MOST_CLAIMS
    assert claims.of_beacon("rs2", "dummy", data, NOW) is not None
    assert claims.of_beacon("rs1", "dummy", data, NOW + remedies.CLAIMS_SECONDS) is not None


def test_ids_without_end_fill_no_memory() -> None:
    claims = Claims()
    data = {"acted": True, "changes": [BACK]}
    for number in range(remedies.MOST_MINIONS + 500):
        claims.of_beacon(f"forged{number}", "dummy", data, NOW)
        claims.of_job(f"salt/job/{number}/new", {"fun": "dummy.repair"}, NOW)
    assert len(claims._lately) == remedies.MOST_MINIONS
    assert len(claims._begun) == remedies.MOST_JOBS
