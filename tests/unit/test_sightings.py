"""What directors and real servers answer, as a look at their cluster, whatever they answer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from saltext.lvs import model, sightings
from saltext.lvs.incidents import Look, Severity, Standing, Subject
from saltext.lvs.sightings import Answers
from saltext.lvs.verdicts import Verdict

VIP = "10.10.10.10"
CLUSTER = model.from_pillar(
    {
        "lvs": {
            "name": "prod",
            "directors": {"lb1": {"priority": 150}, "lb2": {"priority": 50}},
            "real_servers": {
                "rs1": {"address": "10.10.10.41"},
                "rs2": {"address": "10.10.10.42"},
                "db9": {"address": "10.10.10.49", "minion": False},
            },
            "vrrp_instances": {
                "VI_1": {
                    "interface": "eth0",
                    "virtual_router_id": 10,
                    "virtual_ipaddress": [VIP],
                    "advert_int": 1,
                }
            },
            "virtual_servers": {
                "web": {
                    "address": VIP,
                    "port": 80,
                    "real_servers": {"rs1": {"weight": 50}, "rs2": {"weight": 50}, "db9": {}},
                }
            },
        }
    }
)
WEB = Subject("servers", "web")
RS1, RS2, DB9 = (Subject("servers", f"{name}:80 of web") for name in ("rs1", "rs2", "db9"))
ON_VIP = Subject("vips", VIP)


def director(name: str, what: str) -> Subject:
    return Subject(f"director {name}", what)


def health(watched: bool = True, kept: tuple[str, ...] = (), **states: Any) -> dict[str, Any]:
    """``lvs.health``: by real server its state, or its state and reason, and a weight that fits."""
    servers = {}
    for name in ("rs1", "rs2", "db9"):
        state, reason = (
            (states.get(name, "up"), "")
            if isinstance(states.get(name, "up"), str)
            else states[name]
        )
        well = state in ("up", "falling") or name in kept
        servers[name] = {
            "state": state,
            "reason": reason,
            "weight": 50 if well else 0,
            "falls": states.get("falls", {}).get(name, 0),
            "wish": {"maintenance": True} if name in states.get("maintenance", ()) else None,
        }
    return {
        "watched": watched,
        "virtual_servers": {"web": {"kept": list(kept), "real_servers": servers}},
    }


def status(state: str = "MASTER", held: tuple[str, ...] = (VIP,), **more: Any) -> dict[str, Any]:
    """``keepalived.status``."""
    instance = {"state": state, "priority": 150, "vips": [VIP], "vips_held": list(held)}
    return {"running": True, "hanging": False, "vrrp_instances": {"VI_1": instance}, **more}


SERVICE_DOWN = str(Verdict(False, f"nothing listens on TCP {VIP}:80", "start the service on it"))
BACKUP = status("BACKUP", ())


def look(lb1: Any = None, lb2: Any = None, at1: Any = "", at2: Any = "", **checks: Any) -> Look:
    """A look at directors that answer these; by default all is well there."""
    return sightings.look(
        CLUSTER,
        Answers(
            {"lb1": health() if lb1 is None else lb1, "lb2": health() if lb2 is None else lb2},
            {
                "lb1": status() if at1 == "" else at1,
                "lb2": BACKUP if at2 == "" else at2,
            },
            checks,
        ),
        1000.0,
    )


def between(
    before: tuple[Any, Any], after: tuple[Any, Any], at1: Any = "", at2: Any = ""
) -> list[tuple[str, str]]:
    """What was between two looks, by what both directors answered at each."""
    statuses = {"lb1": status() if at1 == "" else at1, "lb2": BACKUP if at2 == "" else at2}
    first, second = (
        Answers(dict(zip(("lb1", "lb2"), both, strict=True)), statuses) for both in (before, after)
    )
    counted = sightings.falls(CLUSTER, first)
    found = sightings.between(CLUSTER, counted, second)
    assert not any(one.urgent or one.done for one in found)
    return [(one.title, one.reason) for one in found]


def titles(found: Look) -> list[str]:
    return [one.title for one in found.bad]


ALL_WELL = frozenset(
    {
        WEB,
        RS1,
        RS2,
        DB9,
        ON_VIP,
        *(
            director(name, what)
            for name in ("lb1", "lb2")
            for what in ("answer", "keepalived", "watch", "reach", "VI_1")
        ),
    }
)


def test_where_all_is_well_all_that_was_asked_about_is() -> None:
    found = look()
    assert (found.bad, found.good) == ((), ALL_WELL)
    assert found.standings == (Standing("web", 3, 3),)
    assert found.known == ALL_WELL | {Subject("servers", f"VIPs on {n}") for n in ("rs1", "rs2")}


def test_a_dead_real_server_is_told_with_all_that_a_person_needs() -> None:
    dead = health(rs1=("down", "connection refused"))
    found = look(dead, dead)
    (trouble,) = found.bad
    assert trouble.subject == RS1
    assert trouble.severity is Severity.WARNING
    assert trouble.urgent
    assert (trouble.title, trouble.over) == ("rs1:80 OUT of web", "rs1:80 back in web")
    assert trouble.reason == "connection refused"
    assert trouble.told_by == ("lb1",)
    assert trouble.done == (
        "it gets no new clients any more from lb1, and its weight back by itself"
    )
    assert trouble.commands == (
        "salt lb1 lvs.check_now web rs1",
        "salt lb1 lvs.health web",
        "salt rs1 dummy.check",
    )
    assert found.good == ALL_WELL - {RS1}
    assert found.standings == (Standing("web", 2, 3),)


DOWN = ("down", "timed out")
NOBODY = health(rs1=DOWN, rs2=DOWN, db9=DOWN)
SERVERS = ["rs1:80 OUT of web", "rs2:80 OUT of web", "db9:80 OUT of web"]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        pytest.param(
            {"lb1": health(rs1="falling")}, [], id="one that is only falling still serves"
        ),
        pytest.param(
            {"lb1": health(rs1="rising")}, SERVERS[:1], id="one that is only rising serves not yet"
        ),
        pytest.param(
            {"lb1": health(rs1="held")}, SERVERS[:1], id="one that is held down for its flapping"
        ),
        pytest.param(
            {"lb2": health(rs1=DOWN)}, [], id="one that only the backup director does not reach"
        ),
        pytest.param(
            {"lb1": health(rs1=DOWN, maintenance=("rs1",))}, [], id="one that is being worked on"
        ),
        pytest.param(
            {"lb1": NOBODY, "lb2": NOBODY},
            [*SERVERS, "web has NO real server that serves"],
            id="all of them",
        ),
        pytest.param(
            {"lb1": NOBODY},
            ["director lb1 reaches no real server, others do"],
            id="a director that is itself cut off",
        ),
        pytest.param(
            {"lb1": "Minion did not return", "at1": "Minion did not return"},
            ["director lb1 does not watch its real servers"],
            id="a director that answers with an error",
        ),
        pytest.param(
            {"lb2": health(watched=False)},
            ["director lb2 does not watch its real servers"],
            id="a director whose beacon does not run",
        ),
        pytest.param(
            {"at1": status("FAULT", ()), "at2": status()},
            ["VI_1 on lb1 is in FAULT"],
            id="an instance in FAULT",
        ),
        pytest.param(
            {"at2": status()}, [f"{VIP} held by lb1 AND lb2"], id="a VIP that two directors hold"
        ),
        pytest.param({"at1": BACKUP}, [f"{VIP} held by NO director"], id="a VIP that nobody holds"),
        pytest.param(
            {"at2": status("BACKUP", (), running=False)},
            ["keepalived on lb2 does not run"],
            id="a keepalived that does not run",
        ),
        pytest.param(
            {"at1": status(hanging=True)},
            ["keepalived on lb1 does not answer"],
            id="a keepalived that hangs",
        ),
        pytest.param(
            {"rs1": {"ok": False, "findings": ["no VIP"], "lacking": [VIP]}},
            ["rs1 lacks its VIP"],
            id="a real server without its VIP",
        ),
        pytest.param(
            {"rs1": {"ok": False, "findings": ["arp_ignore is 0"], "lacking": []}},
            ["rs1 is not right for its VIP"],
            id="a real server that answers ARP",
        ),
        pytest.param(
            {"rs1": {"ok": False, "findings": [SERVICE_DOWN], "lacking": []}},
            [],
            id="a real server whose service is down, which checks tell",
        ),
        pytest.param(
            {"rs1": {"ok": False, "findings": [SERVICE_DOWN, "arp_ignore is 0"], "lacking": []}},
            ["rs1 is not right for its VIP"],
            id="a real server whose service is down, and that answers ARP",
        ),
        pytest.param(
            {"db9": {"ok": False, "findings": ["forged"], "lacking": [VIP]}},
            [],
            id="one that is no minion cannot tell of itself",
        ),
    ],
)
def test_what_is_wrong_is_found(answers: dict[str, Any], expected: list[str]) -> None:
    assert titles(look(**answers)) == expected


def test_a_director_that_does_not_answer_judges_nobody() -> None:
    found = sightings.look(
        CLUSTER,
        Answers({"lb1": None, "lb2": health(rs1=DOWN)}, {"lb1": None, "lb2": BACKUP}),
        1000.0,
    )
    assert titles(found) == ["rs1:80 OUT of web", "director lb1 does not answer"]
    # It may hold the VIP, or not: nobody knows.
    assert ON_VIP not in found.good
    assert [one.told_by for one in found.bad] == [("lb2",), ()]


def test_nobody_answers_so_nothing_is_known_but_that() -> None:
    nobody = {"lb1": None, "lb2": None}
    found = sightings.look(CLUSTER, Answers(nobody, nobody), 1000.0)
    assert titles(found) == ["director lb1 does not answer", "director lb2 does not answer"]
    assert (found.good, found.standings) == (frozenset(), ())
    assert not any(one.urgent for one in found.bad)


def test_what_a_cut_off_director_says_of_real_servers_does_not_count() -> None:
    found = look(NOBODY)
    (trouble,) = found.bad
    assert trouble.severity is Severity.CRITICAL
    assert trouble.urgent
    assert {RS1, RS2, DB9, WEB} <= found.good


def test_one_that_must_stay_for_the_floor_is_told_as_such() -> None:
    kept = health(rs1=DOWN, rs2=DOWN, kept=("rs2",))
    found = look(kept, kept)
    assert found.bad[1].done == (
        "nothing: it keeps its weight, because less than 50% of web serves"
    )


def test_what_another_director_sees_is_said_but_does_not_decide() -> None:
    (trouble,) = look(health(rs1=DOWN)).bad
    assert trouble.reason == "timed out; but lb2 reaches it"


@pytest.mark.parametrize(
    ("subject", "seconds"),
    [
        pytest.param(ON_VIP, 5.0, id="a VIP has the time of a fail-over"),
        pytest.param(RS1, 0.0, id="a real server has none"),
        pytest.param(
            Subject("director lb1", "reach"), 23.0, id="one that reaches nobody has two checks'"
        ),
        pytest.param(Subject("director lb1", "keepalived"), 0.0, id="nor has keepalived"),
    ],
)
def test_how_long_trouble_may_be_over_by_itself(subject: Subject, seconds: float) -> None:
    assert sightings.patience(CLUSTER, subject) == seconds


def test_a_real_server_is_known_by_what_it_said_of_itself() -> None:
    (trouble,) = look(rs1={"ok": False, "findings": ["x"], "lacking": [VIP]}).bad
    assert sightings.real_server_of(trouble.subject) == "rs1"
    assert sightings.real_server_of(RS1) == ""


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("down"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("watched", "virtual_servers", "web", "real_servers", "rs1", "state", "kept"),
                    *("reason", "weight", "wish", "vrrp_instances", "VI_1", "vips_held", "running"),
                    *("ok", "findings", "lacking", "priority"),
                ]
            )
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(ANYTHING, ANYTHING, ANYTHING)
def test_whatever_one_director_answers_what_the_other_says_of_itself_is_heard(
    told: Any, state: Any, check: Any
) -> None:
    answers = Answers(
        {"lb1": health(rs1=DOWN, rs2="up"), "lb2": told},
        {"lb1": status(), "lb2": state},
        {"rs1": check},
    )
    found = sightings.look(CLUSTER, answers, 1000.0)
    assert "rs1:80 OUT of web" in titles(found)
    assert {one.subject for one in found.bad} <= set(found.known or ())
    assert found.good <= (found.known or frozenset())
    assert all(len(one.reason) < 1000 for one in found.bad)


# --------------------------------------------------------------------------------------------------
# Between two looks

ONCE, THRICE = health(falls={"rs1": 1}), health(falls={"rs1": 3})
OUT = "rs1:80 OUT of web"
MOMENT = (OUT, "for a moment")


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        pytest.param((health(), health()), (ONCE, ONCE), [MOMENT], id="once"),
        pytest.param((health(), health()), (ONCE, health()), [MOMENT], id="by who holds the VIP"),
        pytest.param((health(), health()), (health(), ONCE), [], id="by another one alone"),
        pytest.param((ONCE, ONCE), (ONCE, ONCE), [], id="before"),
        pytest.param((THRICE, THRICE), (ONCE, ONCE), [], id="the beacon begins anew"),
        pytest.param(
            (health(), health()), (THRICE, ONCE), [(OUT, "3 times, for a moment each")], id="often"
        ),
        pytest.param((None, None), (ONCE, ONCE), [], id="nothing is known before"),
        pytest.param((health(), health()), (None, ONCE), [MOMENT], id="one is silent"),
        pytest.param(
            (health(rs1=DOWN), health(rs1=DOWN)), (ONCE, ONCE), [], id="it was out, and told"
        ),
        pytest.param(
            (health(), health()),
            (health(rs1=DOWN, falls={"rs1": 1}), ONCE),
            [],
            id="it is out, and told",
        ),
        pytest.param(
            (health(), health()),
            (health(falls={"rs1": 1}, maintenance=("rs1",)),) * 2,
            [],
            id="it is in maintenance",
        ),
        pytest.param(
            (health(), health()),
            (health(falls={"rs1": 1, "rs2": 2, "db9": 1}), health()),
            [],
            id="a director that reached nobody",
        ),
        pytest.param(
            (health(), health()),
            (health(falls={"rs1": 1, "rs2": 2}), health()),
            [MOMENT, ("rs2:80 OUT of web", "2 times, for a moment each")],
            id="several",
        ),
        pytest.param(
            (health(), health()),
            (health(falls={"rs1": True}), health(falls={"rs1": "1"})),
            [],
            id="no number",
        ),
    ],
)
def test_a_real_server_that_was_out_between_two_looks_is_told_of(
    before: tuple[Any, Any], after: tuple[Any, Any], told: list[tuple[str, str]]
) -> None:
    assert between(before, after) == told


def test_where_nobody_holds_the_vip_every_director_tells_what_was_between() -> None:
    assert between((health(), health()), (health(), ONCE), at1=BACKUP) == [MOMENT]
