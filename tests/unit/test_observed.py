"""From verdicts to changes: who must be decided anew, and what is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from saltext.lvs.checks import Verdict
from saltext.lvs.health import Rules
from saltext.lvs.observed import LATER_SECONDS, Observed
from saltext.lvs.overlay import Found


@dataclass(frozen=True)
class Key:
    virtual_server: str
    real_server: str
    kind: str = "tcp"


RS1, RS2 = Key("web", "rs1"), Key("web", "rs2")
PATH1 = Key("web", "rs1", "path")
NAME1, NAME2 = ("web", "rs1"), ("web", "rs2")
NEVER_HELD = Rules(flaps=0)


def observed(*keys: Key, rules: Rules = NEVER_HELD) -> Observed:
    one = Observed()
    one.set_checks(keys or (RS1, RS2), {"web": rules})
    return one


def verdict(key: Key, ok: bool | None) -> Verdict:
    return Verdict(key, ok, f"{key.kind} says {ok}", 1.5, 0.0)


def told(one: Observed) -> list[tuple[str, str, str]]:
    return [(move.name[1], move.was, move.now) for move in one.moves(())]


def all_up(*keys: Key, rules: Rules = NEVER_HELD) -> Observed:
    one = observed(*keys, rules=rules)
    one.take([verdict(key, True) for key in keys or (RS1, RS2)], 100.0)
    one.take_later(1000.0)
    return one


def test_nothing_is_known_before_the_first_verdict() -> None:
    one = observed()
    unknown = Found("unknown", None, 0, "not asked yet")
    assert one.found == {NAME1: unknown, NAME2: unknown}
    assert (told(one), one.urgent, one.take_later(1.0), one.next_tick()) == ([], set(), set(), None)


def test_those_that_are_up_at_first_are_no_news_and_wait_for_one_another() -> None:
    one = observed()
    assert one.take([verdict(RS1, True)], 100.0) is False
    assert one.take_later(100.5) == set()
    assert one.take([verdict(RS2, True)], 100.5) is False
    assert (one.take_later(100.5), one.take_later(100.5), told(one)) == ({"web"}, set(), [])


def test_they_do_not_wait_for_long() -> None:
    one = observed()
    one.take([verdict(RS1, True)], 100.0)
    assert one.take_later(100.0 + LATER_SECONDS) == {"web"}


def test_one_that_is_down_at_first_is_urgent_and_told() -> None:
    one = observed()
    assert one.take([verdict(RS1, False)], 100.0) is True
    assert (one.urgent, told(one)) == ({"web"}, [("rs1", "unknown", "down")])
    found = one.found[NAME1]
    assert found == Found("down", False, 100.0, "tcp says False", True, 100.0, 1.5, 0)
    # It has never served.
    assert found.falls == 0


def test_a_failure_is_urgent_and_told_once_and_so_is_the_return() -> None:
    one = all_up()
    assert one.take([verdict(RS1, False), verdict(RS2, True)], 200.0) is True
    one.urgent.clear()
    assert one.take([verdict(RS1, False)], 201.0) is False
    assert told(one) == [("rs1", "up", "down")]
    assert one.take([verdict(RS1, True)], 202.0) is True
    assert told(one) == [("rs1", "down", "up")]
    back = Found("up", True, 202.0, "tcp says True", True, 202.0, 1.5, 0, falls=1)
    assert one.found[NAME1] == back


def test_how_often_one_has_ceased_to_serve_is_counted() -> None:
    one = all_up()
    for at in (200.0, 210.0, 220.0):
        one.take([verdict(RS1, False), verdict(RS1, False)], at)
        one.refresh()
        one.take([verdict(RS1, True)], at + 5)
    assert (one.found[NAME1].falls, one.found[NAME2].falls) == (3, 0)


def test_one_bad_verdict_of_several_is_no_news() -> None:
    one = all_up(rules=Rules(fall=2, flaps=0))
    assert one.take([verdict(RS1, False)], 200.0) is False
    assert (one.found[NAME1].state, told(one)) == ("falling", [])
    assert one.take([verdict(RS1, True)], 201.0) is False
    assert (one.found[NAME1].state, told(one)) == ("up", [])


def test_what_is_over_before_it_was_told_is_no_news() -> None:
    one = all_up()
    one.take([verdict(RS1, False), verdict(RS1, True)], 200.0)
    assert told(one) == []


def test_news_of_those_that_are_not_decided_yet_wait() -> None:
    one = all_up()
    one.take([verdict(RS1, False)], 200.0)
    assert one.moves({"web"}) == []
    assert told(one) == [("rs1", "up", "down")]


def test_one_failing_check_of_two_decides() -> None:
    one = all_up(RS1, PATH1)
    one.take([verdict(PATH1, False)], 200.0)
    one.take([verdict(RS1, True)], 200.1)
    assert (one.found[NAME1].state, one.found[NAME1].reason) == ("down", "path says False")


def test_a_check_that_can_never_be_asked_keeps_nobody_waiting_for_ever() -> None:
    one = observed(RS1, PATH1)
    one.take([verdict(RS1, True)], 100.0)
    for _ in range(2):
        one.take([verdict(PATH1, None)], 100.0)
    assert one.found[NAME1].state == "unknown"
    one.take([verdict(PATH1, None)], 101.0)
    assert (one.found[NAME1].state, one.take_later(101.0)) == ("up", {"web"})


def test_what_cannot_be_asked_any_more_changes_nothing() -> None:
    one = all_up()
    assert one.take([verdict(RS1, None)] * 5, 200.0) is False
    assert (one.found[NAME1].state, told(one)) == ("up", [])


def test_one_that_fails_again_and_again_is_held_until_its_time_is_over() -> None:
    one = all_up(rules=Rules(flaps=2, within=300, hold=30))
    for at in (200.0, 202.0):
        one.take([verdict(RS1, False)], at)
        one.take([verdict(RS1, True)], at + 1)
    assert told(one) == [("rs1", "up", "held")]
    assert (one.next_tick(), one.found[NAME1].serves) == (233.0, False)
    one.take([verdict(RS1, True)], 210.0)
    one.urgent.clear()
    one.tick(232.9)
    assert (one.urgent, told(one)) == (set(), [])
    one.tick(233.0)
    assert (one.urgent, told(one), one.next_tick()) == ({"web"}, [("rs1", "held", "up")], None)


def test_the_last_verdict_shows_when_it_is_asked_for() -> None:
    one = all_up()
    one.take([verdict(RS1, True)], 200.0)
    assert one.found[NAME1].checked == 100.0
    one.refresh([NAME1])
    assert (one.found[NAME1].checked, one.found[NAME2].checked) == (200.0, 100.0)
    one.take([verdict(RS2, True)], 201.0)
    one.refresh()
    assert one.found[NAME2].checked == 201.0


# --------------------------------------------------------------------------------------------------
# Who watched before

OLD_DOWN = Found("down", False, 50.0, "it was refused", True)
OLD_UP = Found("up", True, 60.0, "it answered", True)


def restarted(**known: Found) -> Observed:
    one = Observed()
    one.remember({("web", name): found for name, found in known.items()})
    one.set_checks((RS1, RS2), {"web": NEVER_HELD})
    return one


def test_one_that_was_down_is_out_still_while_nothing_else_is_known() -> None:
    one = restarted(rs1=OLD_DOWN, rs2=OLD_UP)
    assert one.found[NAME1] == Found("unknown", False, 50.0, "not asked yet", True)
    assert one.found[NAME2] == Found("unknown", None, 0, "not asked yet", True)
    assert (told(one), one.urgent) == ([], set())


EXPECTED: dict[str, tuple[Found, bool, tuple[Any, ...], list[Any]]] = {
    "it is down still": (OLD_DOWN, False, ("down", 50.0, True), []),
    "it is back": (OLD_DOWN, True, ("up", 100.0, True), [("rs1", "down", "up")]),
    "it is up still, in the middle of a slow start": (OLD_UP, True, ("up", 60.0, True), []),
    "it is down by now": (OLD_UP, False, ("down", 100.0, True), [("rs1", "up", "down")]),
}


@pytest.mark.parametrize(
    ("known", "ok", "expected", "news"), EXPECTED.values(), ids=EXPECTED.keys()
)
def test_the_first_verdict_after_a_restart(
    known: Found, ok: bool, expected: tuple[Any, ...], news: list[Any]
) -> None:
    one = restarted(rs1=known)
    one.take([verdict(RS1, ok)], 100.0)
    found = one.found[NAME1]
    assert ((found.state, found.since, found.was_away), told(one)) == (expected, news)
    # After that it counts no more.
    one.take([verdict(RS1, not ok)], 300.0)
    assert one.found[NAME1].since == 300.0


# --------------------------------------------------------------------------------------------------
# Another pillar


def test_a_changed_set_keeps_what_is_known_of_those_that_stay() -> None:
    one = all_up()
    one.take([verdict(RS1, False)], 200.0)
    one.urgent.clear()
    one.set_checks((RS1, Key("web", "rs3")), {"web": NEVER_HELD})
    assert {name[1]: found.state for name, found in one.found.items()} == {
        "rs1": "down",
        "rs3": "unknown",
    }
    assert (one.urgent, told(one)) == (set(), [("rs1", "up", "down")])
    one.set_checks((RS2,), {"web": NEVER_HELD})
    assert one.found[NAME2].state == "unknown"


def test_a_check_that_goes_takes_its_verdict_with_it() -> None:
    one = all_up(RS1, PATH1)
    one.take([verdict(PATH1, False)], 200.0)
    one.urgent.clear()
    one.moves(())
    one.set_checks((RS1,), {"web": NEVER_HELD})
    assert (one.found[NAME1].state, one.urgent) == ("up", {"web"})
    assert told(one) == [("rs1", "down", "up")]


def test_who_is_asked_in_another_way_is_what_it_was_until_it_has_answered() -> None:
    one = all_up()
    one.take([verdict(RS1, False)], 200.0)
    one.set_checks((PATH1, Key("web", "rs2", "path")), {"web": NEVER_HELD})
    found = {name[1]: (one.state, one.serves, one.was_away) for name, one in one.found.items()}
    assert found == {"rs1": ("unknown", False, True), "rs2": ("unknown", None, False)}
    one.take([verdict(PATH1, True)], 300.0)
    assert one.found[NAME1].serves is True


def test_one_more_check_lets_nobody_in_who_is_out() -> None:
    one = all_up(RS1, PATH1)
    one.take([verdict(PATH1, False)], 200.0)
    one.set_checks((RS1, Key("web", "rs1", "http")), {"web": NEVER_HELD})
    assert (one.found[NAME1].state, one.found[NAME1].serves) == ("unknown", False)
    one.take([verdict(Key("web", "rs1", "http"), True)], 300.0)
    assert one.found[NAME1].serves is True
