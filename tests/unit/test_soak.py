"""How a soak judges what directors told: losses, doubles and disorder show."""

from __future__ import annotations

from typing import Any

import pytest

from tests.soak import books, judge
from tests.soak.books import Death, Received, Truth
from tests.soak.judge import Transition

LOG = """\
1795350411.54 INSTANCE VirtIP_10 BACKUP 150
1795350414.91 INSTANCE VirtIP_10 MASTER 150
1795350415.02 GROUP G1 MASTER 0
1795350419.11 INSTANCE VirtIP_10 MASTER_RX_LOWER_PRI 150
not a line of ours
1795350420.00 INSTANCE VirtIP_10 STOP 150
"""


def event(seq: int, *changes: tuple[str | None, str], boot: str = "b1") -> dict[str, Any]:
    return {
        "id": "lb1",
        "boot_id": boot,
        "seq": seq,
        "at": float(seq),
        "changes": [{"vrrp_instance": "VirtIP_10", "was": was, "now": now} for was, now in changes],
    }


def test_the_log_of_a_notify_script_gives_the_states_that_were() -> None:
    assert judge.done("lb1", LOG) == [
        Transition("lb1", "VirtIP_10", "BACKUP", 1795350411.54),
        Transition("lb1", "VirtIP_10", "MASTER", 1795350414.91),
        Transition("lb1", "VirtIP_10", "STOP", 1795350420.0),
    ]


@pytest.mark.parametrize(
    ("events", "states"),
    [
        pytest.param(
            [event(1, ("BACKUP", "MASTER")), event(1, ("BACKUP", "MASTER"))],
            ["MASTER"],
            id="the same event twice counts once",
        ),
        pytest.param(
            [event(3, ("MASTER", "STOP")), event(2, ("BACKUP", "MASTER"))],
            ["MASTER", "STOP"],
            id="order is that of the numbers",
        ),
        pytest.param(
            [event(9, ("BACKUP", "MASTER")), event(2, (None, "BACKUP"), boot="b2")],
            ["MASTER", "BACKUP"],
            id="a boot begins anew",
        ),
        pytest.param(
            [event(1, ("MASTER", "MASTER"), ("MASTER", "FAULT"))],
            ["FAULT"],
            id="what stays is no transition",
        ),
    ],
)
def test_events_give_the_states_that_were_told(
    events: list[dict[str, Any]], states: list[str]
) -> None:
    assert judge.states(judge.told(events), "lb1") == states


@pytest.mark.parametrize(
    ("heard", "problem"),
    [
        (["BACKUP", "MASTER"], ""),
        (["MASTER"], "it was BACKUP MASTER, and was told as MASTER"),
        (["MASTER", "BACKUP"], "it was BACKUP MASTER, and was told as MASTER BACKUP"),
        ([], "it was BACKUP MASTER, and was told as nothing"),
    ],
    ids=["as it was", "one lost", "in another order", "nothing heard"],
)
def test_what_was_not_told_as_it_was_is_a_problem(heard: list[str], problem: str) -> None:
    assert judge.missing(["BACKUP", "MASTER"], heard) == problem


@pytest.mark.parametrize(
    ("heard", "right"),
    [
        (["STOP", "BACKUP", "MASTER"], True),
        (["BACKUP", "MASTER"], True),
        (["STOP", "STOP", "BACKUP", "MASTER"], False),
        (["STOP", "MASTER"], False),
    ],
    ids=["its end is told", "its end is not told", "its end is told twice", "one lost"],
)
def test_of_a_keepalived_that_was_killed_its_end_may_be_told_too(
    heard: list[str], right: bool
) -> None:
    assert (judge.missing(["BACKUP", "MASTER"], heard, killed=True) == "") is right


# --------------------------------------------------------------------------------------------------
# Incidents

WEB = ("servers", "rs1:80 of web")
GONE = ("director lb2", "answer")


def incident(
    subject: tuple[str, str] = WEB, name: str = "i1", closed: float | None = 30.0, letters: int = 2
) -> dict[str, Any]:
    group, called = subject
    parts = [{"trouble": {"subject": {"group": group, "name": called}}}]
    return {"id": name, "opened": 12.0, "closed": closed, "parts": parts, "told": [{}] * letters}


TRUTH = Truth(WEB, 10.0, 20.0)
MAILS = [Received("<1>", "i1"), Received("<2>", "i1")]
KILLED = [Death("lb2", 5.0)]


def test_a_book_that_tells_what_happened_has_no_problem() -> None:
    missed = incident(GONE, "i2", letters=0)
    for killed in (KILLED, [Death("master", 5.0)]):
        assert books.problems([incident(), missed], [*MAILS, MAILS[1]], [TRUTH], killed) == []
    assert books.repeated([*MAILS, MAILS[1]]) == 1


@pytest.mark.parametrize(
    ("incidents", "mails", "words"),
    [
        pytest.param([], [], "is in 0 incidents: none", id="lost"),
        pytest.param(
            [incident(), incident(name="i2", letters=0)], MAILS, "in 2 incidents: i1, i2", id="two"
        ),
        pytest.param([incident(closed=None)], MAILS, "i1 is not over", id="not over"),
        pytest.param([incident()], MAILS[:1], "2 letters were written, and 1 diff", id="no mail"),
        pytest.param([incident(letters=1)], MAILS, "1 letters were written, and 2", id="a mail"),
        pytest.param(
            [incident()], [*MAILS, Received("<3>", "i3")], "mail came of 'i3'", id="a stray mail"
        ),
        pytest.param(
            [incident(), incident(("vips", "10.10.10.10"), "i2", letters=0)],
            MAILS,
            "i2 tells of what did not happen",
            id="what did not happen",
        ),
        pytest.param(
            [incident(), incident(("director lb1", "answer"), "i2", letters=0)],
            MAILS,
            "i2 tells of what did not happen",
            id="another one died",
        ),
    ],
)
def test_what_is_lost_doubled_or_untrue_shows(
    incidents: list[dict[str, Any]], mails: list[Received], words: str
) -> None:
    (problem,) = books.problems(incidents, mails, [TRUTH], KILLED)
    assert words in problem
