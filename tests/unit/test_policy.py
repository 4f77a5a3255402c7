"""Which weights follow from health, wishes and limits: tables, and laws that always hold."""

from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from saltext.lvs import policy
from saltext.lvs.model import OnFailure
from saltext.lvs.policy import Decision, Limits, Server, Share, Wish

AT = 1000.0
HALF = Limits()
REMOVE = Limits(on_failure=OnFailure.REMOVE)
SORRY = Limits(sorry=True)
SLOW = Limits(slow_start=30)

DRAIN = Wish(drain=True, why="new disk")


def up(name, weight=50, **values):
    return Server(name, weight, True, **{"now": weight, "since": 1.0, **values})


def down(name, since, weight=50, **values):
    return Server(name, weight, False, since, **{"now": weight, "reason": "refused", **values})


def held(name, since=900.0, **values):
    return down(name, since, **{"held": True, "now": 0, "reason": "answers", **values})


def unknown(name, weight=50, **values):
    return Server(name, weight, None, **{"now": weight, **values})


def backup(server=None, **values):
    return replace(server or up("spare", now=0), backup=True, **values)


def shares(servers, limits=HALF, at=AT, had_quorum=True):
    decision = policy.decide(servers, limits, at, had_quorum)
    return {name: (share.weight, share.why) for name, share in decision.shares.items()}


def weights(servers, limits=HALF, at=AT, had_quorum=True):
    return {name: weight for name, (weight, _) in shares(servers, limits, at, had_quorum).items()}


FAILED = "failed: refused"
KEPT = "failed, but kept, as too few others serve: refused"
WAITS = "fails too often, so it has to wait: answers"
BEFORE_ITS_TIME = "back before its time, because too few others serve"
DRAINED = "drained by an operator: new disk"
UNCHECKED = "not checked yet, so it stays as it was"
IDLE = "a backup: others serve"
STANDING_IN = "a backup: too few others serve"
TOO_FEW = "too few serve, so the sorry server does"


# --------------------------------------------------------------------------------------------------
# One real server


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        pytest.param(up("rs2"), (50, ""), id="it serves"),
        pytest.param(up("rs2", now=0), (50, ""), id="it serves again"),
        pytest.param(up("rs2", 0), (0, ""), id="it is not enabled"),
        pytest.param(down("rs2", 5), (0, FAILED), id="it has failed"),
        pytest.param(down("rs2", 5, reason=""), (0, "failed"), id="it has failed, who knows why"),
        pytest.param(down("rs2", 5, 0), (0, ""), id="it is not enabled and has failed"),
        pytest.param(held("rs2"), (0, WAITS), id="it answers, but fails too often"),
        pytest.param(unknown("rs2"), (50, ""), id="unknown, and in the table"),
        pytest.param(unknown("rs2", now=None), (50, ""), id="unknown, and not in the table"),
        pytest.param(unknown("rs2", now=0), (0, UNCHECKED), id="unknown, and out"),
        pytest.param(unknown("rs2", now=5), (5, UNCHECKED), id="unknown, with another weight"),
        pytest.param(unknown("rs2", 0, now=50), (0, ""), id="unknown, and not enabled any more"),
        pytest.param(up("rs2", wish=DRAIN), (0, DRAINED), id="drained"),
        pytest.param(up("rs2", wish=Wish(drain=True)), (0, "drained by an operator"), id="why not"),
        pytest.param(unknown("rs2", wish=DRAIN), (0, DRAINED), id="unknown, and drained"),
        pytest.param(down("rs2", 5, wish=DRAIN), (0, DRAINED), id="drained, and has failed"),
        pytest.param(
            up("rs2", wish=replace(DRAIN, weight=90)), (0, DRAINED), id="drained, weight or not"
        ),
        pytest.param(
            up("rs2", wish=Wish(maintenance=True, drain=True)),
            (0, "in maintenance"),
            id="in maintenance",
        ),
        pytest.param(
            up("rs2", wish=Wish(weight=20)),
            (20, "an operator's weight in place of 50"),
            id="another weight",
        ),
        pytest.param(up("rs2", wish=Wish(weight=50)), (50, ""), id="a weight that is none other"),
        pytest.param(
            up("rs2", wish=Wish(weight=0, why="try")),
            (0, "an operator's weight in place of 50: try"),
            id="another weight, 0",
        ),
        pytest.param(
            down("rs2", 5, wish=Wish(weight=20)), (0, FAILED), id="another weight, and has failed"
        ),
        pytest.param(
            unknown("rs2", wish=Wish(weight=20)),
            (20, "an operator's weight in place of 50"),
            id="unknown, in the table, and another weight",
        ),
        pytest.param(
            unknown("rs2", now=0, wish=Wish(weight=20)),
            (0, UNCHECKED),
            id="unknown and out: another weight does not put it back",
        ),
        pytest.param(up("rs2", wish=Wish()), (50, ""), id="an exception, as configured"),
    ],
)
def test_one_of_two_real_servers(server, expected):
    assert shares([up("rs1"), server]) == {"rs1": (50, ""), "rs2": expected}


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        pytest.param(down("rs2", 5), (None, FAILED), id="it has failed"),
        pytest.param(down("rs2", 5, now=None), (None, FAILED), id="it is out already"),
        pytest.param(held("rs2", now=None), (None, WAITS), id="it answers, but fails too often"),
        pytest.param(up("rs2", now=None), (50, ""), id="it is back"),
        pytest.param(up("rs2", wish=DRAIN), (0, DRAINED), id="a drained one stays in the table"),
        pytest.param(down("rs2", 5, wish=DRAIN), (0, DRAINED), id="drained, and has failed"),
    ],
)
def test_what_has_failed_leaves_the_table_where_the_pillar_says_so(server, expected):
    assert shares([up("rs1"), server], REMOVE) == {"rs1": (50, ""), "rs2": expected}


# --------------------------------------------------------------------------------------------------
# The floor


def four(*servers):
    """Four real servers: those given, and others that serve."""
    given_names = {server.name for server in servers}
    others = [up(name) for name in ("rs1", "rs2", "rs3", "rs4") if name not in given_names]
    return [*servers, *others]


@pytest.mark.parametrize(
    ("servers", "limits", "expected", "kept"),
    [
        pytest.param(
            four(down("rs1", 3), down("rs2", 2), down("rs3", 1)),
            HALF,
            {"rs1": 50, "rs2": 0, "rs3": 0, "rs4": 50},
            ("rs1",),
            id="they go in the order in which they failed",
        ),
        pytest.param(
            four(down("rs2", 1), down("rs1", 1), down("rs3", 1)),
            HALF,
            {"rs1": 0, "rs2": 0, "rs3": 50, "rs4": 50},
            ("rs3",),
            id="at one time they go by name",
        ),
        pytest.param(
            four(*(down(f"rs{n}", n) for n in range(1, 5))),
            HALF,
            {"rs1": 0, "rs2": 0, "rs3": 50, "rs4": 50},
            ("rs3", "rs4"),
            id="a broken checker takes out half",
        ),
        pytest.param(
            four(*(down(f"rs{n}", n) for n in range(1, 5))),
            Limits(min_in_service=1),
            {"rs1": 50, "rs2": 50, "rs3": 50, "rs4": 50},
            ("rs1", "rs2", "rs3", "rs4"),
            id="nobody goes where all must serve",
        ),
        pytest.param(
            four(*(down(f"rs{n}", n) for n in range(1, 5))),
            Limits(min_in_service=0),
            {"rs1": 0, "rs2": 0, "rs3": 0, "rs4": 0},
            (),
            id="all go where nobody must serve",
        ),
        pytest.param(
            four(*(down(f"rs{n}", n) for n in range(1, 5))),
            SORRY,
            {"rs1": 0, "rs2": 0, "rs3": 0, "rs4": 0},
            (),
            id="all go where there is a sorry server",
        ),
        pytest.param(
            [down("rs1", 1, 60), down("rs2", 2, 40)],
            HALF,
            {"rs1": 60, "rs2": 0},
            ("rs1",),
            id="one that is too big stays, a smaller one goes",
        ),
        pytest.param(
            four(up("rs1", wish=DRAIN), up("rs2", wish=DRAIN), down("rs3", 1)),
            HALF,
            {"rs1": 0, "rs2": 0, "rs3": 0, "rs4": 50},
            (),
            id="what a person drains does not count",
        ),
        pytest.param(
            four(*(up(f"rs{n}", wish=DRAIN) for n in range(1, 5))),
            Limits(min_in_service=1),
            {"rs1": 0, "rs2": 0, "rs3": 0, "rs4": 0},
            (),
            id="a person may drain all",
        ),
        pytest.param(
            four(down("rs1", 1, now=0), down("rs2", 2, now=0), up("rs3", wish=DRAIN)),
            HALF,
            {"rs1": 0, "rs2": 0, "rs3": 0, "rs4": 50},
            (),
            id="nobody comes back because a person drains another one",
        ),
        pytest.param(
            [down("rs1", 1, now=None), down("rs2", 2, now=None), up("rs3", wish=DRAIN), up("rs4")],
            REMOVE,
            {"rs1": None, "rs2": None, "rs3": 0, "rs4": 50},
            (),
            id="nobody who was removed comes back for that either",
        ),
        pytest.param(
            [down("rs1", 1, now=None), down("rs2", 2, now=None)],
            REMOVE,
            {"rs1": None, "rs2": 50},
            ("rs2",),
            id="an empty table is filled as far as the floor",
        ),
        pytest.param(
            [down("rs1", 1, now=0), down("rs2", 2, now=0), down("rs3", 3, now=0)],
            HALF,
            {"rs1": 0, "rs2": 50, "rs3": 50},
            ("rs2", "rs3"),
            id="where nobody is left the last ones that failed come back",
        ),
        pytest.param(
            [down("rs1", 1, now=0), up("rs2", wish=DRAIN)],
            HALF,
            {"rs1": 0, "rs2": 0},
            (),
            id="a failed one does not come back when a person drains the last other one",
        ),
        pytest.param(
            [down("rs1", 1, now=5), up("rs2", wish=DRAIN)],
            HALF,
            {"rs1": 5, "rs2": 0},
            ("rs1",),
            id="who is kept keeps its weight",
        ),
        pytest.param(
            [down("rs1", 1, 30, now=50)],
            HALF,
            {"rs1": 30},
            ("rs1",),
            id="who is kept has no more than its weight",
        ),
        pytest.param(
            [up("rs1", wish=Wish(weight=200)), *(down(f"rs{n}", n) for n in (2, 3, 4))],
            HALF,
            {"rs1": 200, "rs2": 0, "rs3": 0, "rs4": 50},
            ("rs4",),
            id="an operator's weight raises no floor, and reaches none",
        ),
        pytest.param(
            [up("rs1", 10), down("rs2", 1, 30)],
            HALF,
            {"rs1": 10, "rs2": 0},
            (),
            id="a single one that failed goes, however heavy",
        ),
        pytest.param(
            [up("rs1", wish=Wish(weight=1)), down("rs2", 1)],
            Limits(min_in_service=1),
            {"rs1": 1, "rs2": 0},
            (),
            id="a single one that failed goes while a canary serves",
        ),
        pytest.param(
            [unknown("rs1", 10), down("rs2", 1, 30)],
            HALF,
            {"rs1": 10, "rs2": 30},
            ("rs2",),
            id="a single one that failed stays where nobody is known to serve",
        ),
        pytest.param(
            [down("rs1", 1, 30, now=0), down("rs2", 2, 10)],
            HALF,
            {"rs1": 30, "rs2": 0},
            ("rs1",),
            id="it comes back when the others fail too",
        ),
        pytest.param(
            [down("rs1", 1), down("rs2", 2), up("rs3")],
            HALF,
            {"rs1": 0, "rs2": 50, "rs3": 50},
            ("rs2",),
            id="of three the second one stays",
        ),
        pytest.param(
            [down("rs1", 1, 60), down("rs2", 2, 33), up("rs3", 7)],
            Limits(min_in_service=0.07),
            {"rs1": 0, "rs2": 0, "rs3": 7},
            (),
            id="the share of the capacity is no victim of rounding",
        ),
    ],
)
def test_no_failure_takes_out_more_than_its_share(servers, limits, expected, kept):
    decision = policy.decide(servers, limits, AT)

    assert {name: share.weight for name, share in decision.shares.items()} == expected
    assert decision.kept == kept


def test_who_is_kept_says_why():
    assert shares([down("rs1", 1), down("rs2", 2)]) == {"rs1": (0, FAILED), "rs2": (50, KEPT)}


@pytest.mark.parametrize(
    ("servers", "limits", "expected"),
    [
        pytest.param(
            [held("rs1"), down("rs2", 950)],
            HALF,
            {"rs1": (50, BEFORE_ITS_TIME), "rs2": (0, FAILED)},
            id="it comes back before a failed one is kept",
        ),
        pytest.param(
            [held("rs1"), up("rs2")],
            HALF,
            {"rs1": (0, WAITS), "rs2": (50, "")},
            id="it waits while enough others serve",
        ),
        pytest.param(
            [held("rs1")],
            Limits(min_in_service=0),
            {"rs1": (50, BEFORE_ITS_TIME)},
            id="the only one that answers does not wait",
        ),
        pytest.param(
            [held("rs1")], SORRY, {"rs1": (0, WAITS)}, id="it waits where there is a sorry server"
        ),
        pytest.param(
            [held("rs1"), up("rs2", backup=True)],
            HALF,
            {"rs1": (0, WAITS), "rs2": (50, STANDING_IN)},
            id="it waits while a backup serves",
        ),
        pytest.param(
            [held("rs1", weight=10), down("rs2", 2, 80), down("rs4", 1, 10), up("rs3", 10)],
            HALF,
            {
                "rs1": (10, BEFORE_ITS_TIME),
                "rs2": (80, KEPT),
                "rs4": (0, FAILED),
                "rs3": (10, ""),
            },
            id="all that answer are there where a failed one is kept",
        ),
        pytest.param(
            [held("rs1"), backup(held("spare", 1))],
            HALF,
            {"rs1": (50, BEFORE_ITS_TIME), "spare": (0, WAITS)},
            id="a backup waits longer than another one",
        ),
    ],
)
def test_who_only_waits_comes_back_first(servers, limits, expected):
    assert shares(servers, limits) == expected


# --------------------------------------------------------------------------------------------------
# Backups, quorum, sorry server


QUORUM = Limits(min_in_service=0, quorum=100, hysteresis=20)


@pytest.mark.parametrize(
    ("servers", "limits", "expected"),
    [
        pytest.param([up("rs1"), backup()], HALF, (0, IDLE), id="the other one serves"),
        pytest.param(
            [down("rs1", 1), backup()], HALF, (50, STANDING_IN), id="the other one has failed"
        ),
        pytest.param(
            [up("rs1", wish=DRAIN), backup()], HALF, (50, STANDING_IN), id="the other is drained"
        ),
        pytest.param(
            [down("rs1", 1), backup(wish=DRAIN)], HALF, (0, DRAINED), id="it is drained itself"
        ),
        pytest.param(
            [down("rs1", 1), backup(down("spare", 2, now=0))],
            HALF,
            (0, FAILED),
            id="it has failed itself",
        ),
        pytest.param(
            [down("rs1", 1), backup(unknown("spare", now=0))],
            HALF,
            (0, UNCHECKED),
            id="nobody knows it, and it is out",
        ),
        pytest.param(
            [up("rs1"), backup(unknown("spare", now=None))],
            HALF,
            (0, IDLE),
            id="nobody knows it, and it is not needed",
        ),
        pytest.param(
            [up("rs1"), backup(unknown("spare"))],
            HALF,
            (50, ""),
            id="nobody knows it, and it is in",
        ),
        pytest.param(
            [up("rs1"), up("rs2"), backup()], QUORUM, (0, IDLE), id="the others have the quorum"
        ),
        pytest.param(
            [up("rs1"), up("rs2", 30), backup()], QUORUM, (0, IDLE), id="hardly below the quorum"
        ),
        pytest.param(
            [up("rs1"), up("rs2", 29), up("rs3", 90, wish=DRAIN), backup()],
            QUORUM,
            (50, STANDING_IN),
            id="well below the quorum",
        ),
        pytest.param(
            [up("rs1"), up("rs2", 69), up("rs3", wish=DRAIN), backup(now=50)],
            QUORUM,
            (50, STANDING_IN),
            id="it stays in until the others clearly have the quorum",
        ),
        pytest.param(
            [up("rs1"), up("rs2", 70), up("rs3", wish=DRAIN), backup(now=50)],
            QUORUM,
            (0, IDLE),
            id="the others clearly have the quorum again",
        ),
        pytest.param(
            [up("rs1"), up("rs2", 60), backup(now=50)],
            QUORUM,
            (0, IDLE),
            id="no more than all others can be asked for",
        ),
        pytest.param(
            [unknown("rs1", now=0), backup(now=50)],
            HALF,
            (50, STANDING_IN),
            id="nobody knows the other one, which is out",
        ),
        pytest.param(
            [unknown("rs1"), backup()],
            HALF,
            (0, IDLE),
            id="nobody knows the other one, which is in",
        ),
    ],
)
def test_a_backup_serves_while_too_few_others_do(servers, limits, expected):
    assert shares(servers, limits)["spare"] == expected


def test_a_backup_comes_in_before_a_quorum_that_was_lost_stays_so():
    servers = [up("rs1", 100), up("rs2", wish=DRAIN), backup()]

    lost = policy.decide(servers, QUORUM, AT, had_quorum=False)

    assert (lost.shares["spare"], lost.quorum) == (Share(50, STANDING_IN), True)


def test_a_backup_takes_the_place_of_those_that_would_be_kept():
    servers = [*(down(f"rs{n}", n) for n in range(1, 4)), up("rs4"), backup()]

    assert policy.decide(servers, HALF, AT).kept == ()
    assert weights(servers) == {"rs1": 0, "rs2": 0, "rs3": 0, "rs4": 50, "spare": 50}


def test_a_backup_that_serves_alone_is_kept_when_it_fails_too():
    servers = [down("rs1", 1, now=0), backup(down("spare", 2, now=50))]

    assert shares(servers) == {"rs1": (0, FAILED), "spare": (50, KEPT)}


def test_a_failed_main_goes_while_its_backup_serves():
    assert policy.decide([down("rs1", 1), backup()], HALF, AT) == Decision(
        {"rs1": Share(0, FAILED), "spare": Share(50, STANDING_IN)}
    )


@pytest.mark.parametrize(
    ("serving", "had_quorum", "expected"),
    [
        pytest.param(100, True, True, id="it has it"),
        pytest.param(80, True, True, id="it has hardly less"),
        pytest.param(79, True, False, id="it has clearly less"),
        pytest.param(100, False, False, id="it gains it with more than that"),
        pytest.param(119, False, False, id="it has hardly more"),
        pytest.param(120, False, True, id="it has clearly more"),
    ],
)
def test_the_quorum_is_lost_and_gained_as_keepalived_does(serving, had_quorum, expected):
    servers = [up("rs1", serving), up("rs2", 200, wish=DRAIN)]

    assert policy.decide(servers, QUORUM, AT, had_quorum).quorum is expected


@pytest.mark.parametrize(
    ("servers", "limits", "had_quorum", "expected"),
    [
        pytest.param([], HALF, True, False, id="nobody is there"),
        pytest.param([up("rs1", wish=DRAIN)], HALF, True, False, id="nobody serves"),
        pytest.param(
            [up("rs1")], QUORUM, False, True, id="all serve, and have less than asked for"
        ),
        pytest.param([down("rs1", 1)], HALF, True, False, id="the one that is kept does not count"),
        pytest.param([held("rs1")], HALF, True, True, id="one that is back before its time counts"),
        pytest.param(
            [down("rs1", 1), backup()], HALF, True, True, id="a backup that serves counts"
        ),
        pytest.param(
            [up("rs1"), backup()],
            QUORUM,
            False,
            True,
            id="all but the backup serve, and have less than asked for",
        ),
        pytest.param([unknown("rs1")], HALF, True, True, id="nobody knows, and it is in"),
        pytest.param([unknown("rs1", now=0)], HALF, True, False, id="nobody knows, and it is out"),
    ],
)
def test_who_counts_for_the_quorum(servers, limits, had_quorum, expected):
    assert policy.decide(servers, limits, AT, had_quorum).quorum is expected


@pytest.mark.parametrize(
    ("servers", "limits", "expected", "sorry"),
    [
        pytest.param(
            [down("rs1", 1), down("rs2", 2)],
            SORRY,
            {"rs1": (0, FAILED), "rs2": (0, FAILED)},
            True,
            id="all have failed",
        ),
        pytest.param(
            [down("rs1", 1), up("rs2")],
            SORRY,
            {"rs1": (0, FAILED), "rs2": (50, "")},
            False,
            id="one is left",
        ),
        pytest.param([up("rs1", wish=DRAIN)], SORRY, {"rs1": (0, DRAINED)}, True, id="all drained"),
        pytest.param(
            [down("rs1", 1), down("rs2", 1), up("rs3")],
            replace(QUORUM, sorry=True),
            {"rs1": (0, FAILED), "rs2": (0, FAILED), "rs3": (0, TOO_FEW)},
            True,
            id="those below the quorum make room for it, and keep their connections",
        ),
        pytest.param(
            [down("rs1", 1), backup()],
            SORRY,
            {"rs1": (0, FAILED), "spare": (50, STANDING_IN)},
            False,
            id="a backup comes first",
        ),
        pytest.param(
            [unknown("rs1", now=0), unknown("rs2", now=0)],
            SORRY,
            {"rs1": (0, UNCHECKED), "rs2": (0, UNCHECKED)},
            True,
            id="nobody knows, and all are out",
        ),
        pytest.param(
            [unknown("rs1", now=5), unknown("rs2", now=0)],
            SORRY,
            {"rs1": (5, UNCHECKED), "rs2": (0, UNCHECKED)},
            False,
            id="nobody knows, and one is in",
        ),
        pytest.param([down("rs1", 1)], HALF, {"rs1": (50, KEPT)}, False, id="there is none"),
    ],
)
def test_the_sorry_server_serves_while_too_few_others_do(servers, limits, expected, sorry):
    assert shares(servers, limits) == expected
    assert policy.decide(servers, limits, AT).sorry is sorry


def test_what_the_sorry_server_replaces_stays_in_the_table_although_failures_are_removed():
    limits = replace(QUORUM, sorry=True, on_failure=OnFailure.REMOVE)

    assert weights([down("rs1", 1), up("rs2"), down("rs3", 1)], limits) == {
        "rs1": None,
        "rs2": 0,
        "rs3": None,
    }


# --------------------------------------------------------------------------------------------------
# Slow start


def back(seconds, weight=50, **values):
    return up("rs1", weight, since=AT - seconds, was_away=True, **values)


@pytest.mark.parametrize(
    ("server", "expected", "again"),
    [
        pytest.param(back(0), (1, "slow start: 1 of 50 so far"), AT + 3, id="at once 1"),
        pytest.param(back(2.9), (1, "slow start: 1 of 50 so far"), AT + 0.1, id="still 1"),
        pytest.param(back(3), (5, "slow start: 5 of 50 so far"), AT + 3, id="a tenth"),
        pytest.param(back(15), (25, "slow start: 25 of 50 so far"), AT + 3, id="half way"),
        pytest.param(back(29), (45, "slow start: 45 of 50 so far"), AT + 1, id="nearly there"),
        pytest.param(back(30), (50, ""), None, id="at the end"),
        pytest.param(back(999), (50, ""), None, id="long back"),
        pytest.param(back(-1), (1, "slow start: 1 of 50 so far"), AT + 4, id="back in a moment"),
        pytest.param(back(0, 1), (1, ""), None, id="a weight of 1 does not grow"),
        pytest.param(back(0, 2), (1, "slow start: 1 of 2 so far"), AT + 30, id="a weight of 2"),
        pytest.param(up("rs1", since=AT), (50, ""), None, id="never away"),
        pytest.param(
            up("rs1", was_away=True, since=0), (50, ""), None, id="back nobody knows when"
        ),
        pytest.param(back(0, in_progress=True), (50, ""), None, id="connections stand on it"),
        pytest.param(
            back(15, wish=Wish(weight=20)),
            (10, "slow start: 10 of 20 so far"),
            AT + 3,
            id="to an operator's weight",
        ),
        pytest.param(back(0, wish=DRAIN), (0, DRAINED), None, id="drained"),
    ],
)
def test_a_weight_grows_after_a_return(server, expected, again):
    servers = [server, up("rs2")]

    assert shares(servers, SLOW)["rs1"] == expected
    decided = policy.decide(servers, SLOW, AT).again
    assert decided == (None if again is None else pytest.approx(again))


def test_a_weight_grows_step_by_step_to_the_whole_one():
    servers, at, seen = [back(0), up("rs2")], AT, []
    while at is not None:
        decision = policy.decide(servers, SLOW, at)
        seen.append(decision.shares["rs1"].weight)
        at = decision.again

    assert seen == [1, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50]


def test_it_must_be_decided_anew_when_the_first_of_several_grows():
    assert policy.decide([back(4), replace(back(1), name="rs2")], SLOW, AT).again == AT + 2


# --------------------------------------------------------------------------------------------------
# Laws

wishes = st.builds(
    Wish,
    drain=st.booleans(),
    weight=st.none() | st.integers(0, 100),
    maintenance=st.booleans(),
    why=st.sampled_from(["", "why"]),
)
some = st.builds(
    Server,
    name=st.just(""),
    weight=st.integers(0, 100),
    serves=st.sampled_from([True, False, None]),
    since=st.sampled_from([0.0, 500.0, 980.0, 990.0, 1000.0]),
    was_away=st.booleans(),
    wish=st.none() | wishes,
    backup=st.booleans(),
    now=st.none() | st.integers(0, 100),
    reason=st.sampled_from(["", "refused"]),
    in_progress=st.booleans(),
    held=st.booleans(),
)
many = st.lists(some, max_size=7).map(
    lambda servers: [replace(one, name=f"rs{n}") for n, one in enumerate(servers)]
)
every_limit = st.builds(
    Limits,
    on_failure=st.sampled_from(OnFailure),
    min_in_service=st.sampled_from([0, 0.07, 0.3, 0.5, 0.99, 1]),
    sorry=st.booleans(),
    slow_start=st.sampled_from([0, 7, 30]),
    quorum=st.sampled_from([1, 50, 150]),
    hysteresis=st.sampled_from([0, 30]),
)


def full(server):
    """Its weight when all is well."""
    wish = server.wish or Wish()
    if wish.drain or wish.maintenance:
        return 0
    return server.weight if wish.weight is None else wish.weight


def applied(servers, decision):
    """The same real servers once the kernel has what was decided."""
    return [replace(one, now=decision.shares[one.name].weight) for one in servers]


@given(many, every_limit, st.booleans())
def test_each_real_server_gets_a_share_and_no_more_than_its_weight(servers, limits, had_quorum):
    decision = policy.decide(servers, limits, AT, had_quorum)

    assert list(decision.shares) == [one.name for one in servers]
    for one in servers:
        most = one.now if one.serves is None and one.now is not None else full(one)
        assert 0 <= (decision.shares[one.name].weight or 0) <= max(most, full(one))


@given(many, every_limit, st.booleans())
def test_nobody_whom_a_person_has_drained_gets_a_weight(servers, limits, had_quorum):
    got = weights(servers, limits, AT, had_quorum)

    assert {got[one.name] for one in servers if not full(one)} <= {0}


@given(many, every_limit, st.booleans(), st.randoms())
def test_the_order_of_real_servers_does_not_matter(servers, limits, had_quorum, random):
    mixed = random.sample(servers, len(servers))

    assert policy.decide(mixed, limits, AT, had_quorum) == policy.decide(
        servers, limits, AT, had_quorum
    )


@given(many, every_limit, st.booleans())
def test_what_nobody_knows_stays_as_it_is(servers, limits, had_quorum):
    got = weights(servers, limits, AT, had_quorum)

    for one in servers:
        if one.serves is None and one.now is not None and one.wish is None and one.weight:
            assert got[one.name] == one.now


@given(many, every_limit, st.booleans())
def test_a_weight_that_is_not_the_configured_one_has_a_reason(servers, limits, had_quorum):
    got = shares(servers, limits, AT, had_quorum)

    for one in servers:
        weight, why = got[one.name]
        assert why or weight == one.weight


@settings(max_examples=300)
@given(many, every_limit, st.booleans())
@example([replace(down("rs0", 1), now=None), replace(down("rs1", 2), now=None)], REMOVE, True)
def test_deciding_again_changes_nothing(servers, limits, had_quorum):
    first = policy.decide(servers, limits, AT, had_quorum)
    second = policy.decide(applied(servers, first), limits, AT, first.quorum)

    assert {name: share.weight for name, share in second.shares.items()} == {
        name: share.weight for name, share in first.shares.items()
    }
    assert (second.kept, second.sorry, second.quorum, second.again) == (
        first.kept,
        first.sorry,
        first.quorum,
        first.again,
    )


def counted(server):
    """What it counts for the floor: a person may take it out, but another weight is none of it."""
    return server.weight if full(server) else 0


def in_service(servers, decision):
    """The configured weights of all that have one."""
    return sum(counted(one) for one in servers if decision.shares[one.name].weight)


def capacity(servers):
    return sum(counted(one) for one in servers if not one.backup)


def is_single(servers, decision):
    """Whether just one has failed, while another one serves."""
    serving = [one for one in servers if one.serves and decision.shares[one.name].weight]
    failed = [one for one in servers if full(one) and one.serves is False and not one.held]
    return bool(serving) and sum(not one.backup or bool(one.now) for one in failed) == 1


def is_answering(server):
    """Whether it would serve, whatever the limits make of it."""
    return server.serves or (server.serves is False and server.held)


def is_taken_out(server, decision):
    """Whether it loses its place in service, and not by a person's wish."""
    return bool(full(server) and server.now and not decision.shares[server.name].weight)


@settings(max_examples=300)
@given(many, every_limit, st.booleans())
def test_no_failure_brings_it_below_the_floor(servers, limits, had_quorum):
    limits = replace(limits, sorry=False)
    decision = policy.decide(servers, limits, AT, had_quorum)

    failed = any(one.serves is False and is_taken_out(one, decision) for one in servers)
    if failed and not is_single(servers, decision):
        least = limits.min_in_service * capacity(servers) - 1e-6
        assert in_service(servers, decision) >= least


verdict = st.tuples(st.integers(0, 5), st.sampled_from(["up", "down", "held"]))


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.integers(1, 100), st.booleans()), min_size=1, max_size=6),
    every_limit,
    st.lists(verdict, max_size=20),
)
def test_whatever_fails_and_returns_the_floor_is_there(configured, limits, verdicts):
    limits, at, quorum = replace(limits, sorry=False), AT, True
    servers = [
        Server(f"rs{n}", weight, True, now=0 if spare else weight, backup=spare)
        for n, (weight, spare) in enumerate(configured)
    ]
    for n, said in verdicts:
        at, n = at + 5, n % len(servers)
        was, now = servers[n].serves, said == "up"
        since = servers[n].since if was is now else at
        servers[n] = replace(
            servers[n],
            serves=now,
            held=said == "held",
            since=since,
            was_away=servers[n].was_away or not was,
        )
        decision = policy.decide(servers, limits, at, quorum)
        servers, quorum = applied(servers, decision), decision.quorum
        least = limits.min_in_service * capacity(servers) - 1e-6
        # One may be out that failed alone.
        heaviest = max(one.weight for one in servers)
        assert in_service(servers, decision) >= least - heaviest
        if not any(map(is_answering, servers)):
            assert in_service(servers, decision) >= least


@given(many, every_limit, st.data())
def test_another_weight_of_an_operator_changes_nothing_for_others_that_fail(servers, limits, data):
    limits, other = replace(limits, sorry=False, quorum=1, hysteresis=0), st.integers(1, 100)
    servers = [replace(one, weight=one.weight or 1, wish=None) for one in servers]
    wished = [
        replace(one, wish=data.draw(st.none() | other.map(lambda weight: Wish(weight=weight))))
        for one in servers
    ]
    assert policy.decide(wished, limits, AT).kept == policy.decide(servers, limits, AT).kept


@given(many, every_limit, st.booleans())
def test_somebody_serves_where_anybody_can(servers, limits, had_quorum):
    decision = policy.decide(servers, limits, AT, had_quorum)

    if any(full(one) and is_answering(one) for one in servers) and not limits.sorry:
        assert any(share.weight for share in decision.shares.values())
    if limits.sorry:
        assert decision.sorry is not decision.quorum


@given(many, every_limit, st.booleans())
def test_nobody_who_answers_is_out_while_one_that_failed_is_kept(servers, limits, had_quorum):
    decision = policy.decide(servers, limits, AT, had_quorum)

    if decision.kept:
        answering = [one for one in servers if full(one) and is_answering(one)]
        assert all(decision.shares[one.name].weight for one in answering)


@given(many, every_limit, st.booleans())
def test_it_is_decided_anew_later_and_something_changes_then(servers, limits, had_quorum):
    decision = policy.decide(servers, limits, AT, had_quorum)

    if decision.again is not None:
        assert AT < decision.again <= AT + limits.slow_start
        later = policy.decide(servers, limits, decision.again, had_quorum)
        assert later.shares != decision.shares
        assert later.again is None or later.again > decision.again
