"""What the demo makes of the replies that it gets, and how it tells what does not hold."""

from __future__ import annotations

from typing import Any, cast

import pytest

from tests.demo import Outage, Shown, Teller
from tests.lab.bus import Bus, Event
from tests.lab.client import Replies, Reply


def reply(source: str, began: float, ended: float, server: str = "") -> Reply:
    return Reply(began, ended, source, server, error="" if server else "TimeoutError: timed out")


# A failure at 2 s: .101 is served throughout, .102 from 5 s on.
REPLIES = Replies(
    (
        reply("10.10.10.101", 1.0, 1.5),
        reply("10.10.10.102", 1.0, 1.1, "rs1"),
        reply("10.10.10.101", 2.5, 2.6, "rs2"),
        reply("10.10.10.102", 2.5, 3.0),
        reply("10.10.10.101", 3.2, 3.3, "rs2"),
        reply("10.10.10.102", 3.2, 3.7),
        reply("10.10.10.101", 4.5, 4.6, "rs2"),
        reply("10.10.10.102", 4.5, 5.0, "rs1"),
    )
)


def test_an_outage_lasts_until_who_got_no_answer_gets_one() -> None:
    assert Outage(REPLIES, 2.0).lasted() == {"10.10.10.102": 3.0}


def test_an_outage_that_does_not_end_lasts_for_ever() -> None:
    assert Outage(Replies(REPLIES.all[:6]), 2.0).lasted() == {"10.10.10.102": float("inf")}


def test_what_failed_before_is_no_part_of_an_outage() -> None:
    assert Outage(Replies(REPLIES.all[:3]), 2.0).lasted() == {}


def test_the_table_tells_what_held_and_what_did_not(capsys: pytest.CaptureFixture[str]) -> None:
    shown = Shown()
    shown.note("requests answered", "400", True)
    shown.note("served after", "61.0 s", False)
    assert shown.table() == (
        "  held  what was shown     figure\n"
        "  yes   requests answered  400\n"
        "  NO    served after       61.0 s"
    )
    assert shown.broken == ["served after: 61.0 s"]
    assert capsys.readouterr().out == (
        "  requests answered: 400\n  THIS DID NOT HOLD: served after: 61.0 s\n"
    )


def transition(director: str, was: str, now: str, problem: str | None = None) -> dict[str, Any]:
    change = {"vrrp_instance": "VirtIP_10", "was": was, "now": now, "problem": problem}
    return {"id": director, "changes": [{"sync_group": "G1", "was": was, "now": now}, change]}


class Heard:
    """A bus on which all has been said."""

    def __init__(self) -> None:
        self.events: list[Event] = []


def test_what_directors_tell_is_said_once_with_its_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    bus = Heard()
    tag = "salt/beacon/{}/keepalived_vrrp/change"
    bus.events.append(Event(9.0, tag.format("lb1"), transition("lb1", "BACKUP", "MASTER")))
    teller = Teller(cast(Bus, bus), 10.0)
    bus.events += [
        Event(10.25, tag.format("lb1"), transition("lb1", "MASTER", "STOP")),
        Event(10.5, "salt/job/1/new", {"fun": "test.ping"}),
    ]
    assert teller.told() is True
    late = transition("lb2", "BACKUP", "MASTER", "VIPs are missing on the master")
    bus.events.append(Event(12.5, tag.format("lb2"), late))
    teller.told()
    assert capsys.readouterr().out == (
        "     0.25 s  lb1  VirtIP_10  MASTER -> STOP\n"
        "     2.50 s  lb2  VirtIP_10  BACKUP -> MASTER  (VIPs are missing on the master)\n"
    )
    assert teller.transitions == [
        ("lb1", "MASTER", "STOP", 0.25),
        ("lb2", "BACKUP", "MASTER", 2.5),
    ]
