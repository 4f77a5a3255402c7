"""Which troubles are one incident, and how many letters a person gets of it."""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from saltext.lvs import folding
from saltext.lvs.folding import Rules
from saltext.lvs.incidents import Incident, Kind, Letter, Look, Part, Severity, Subject, Trouble

RS1, RS2, RS3 = (Subject("servers", f"rs{n}:80 of web") for n in (1, 2, 3))
LB1 = Subject("director lb1", "answer")
RULES = Rules()


def bad(
    subject: Subject, severity: Severity = Severity.WARNING, urgent: bool = True, reason: str = ""
) -> Trouble:
    name = subject.name.split()[0]
    return Trouble(subject, severity, f"{name} OUT", f"{name} back", reason, urgent=urgent)


@dataclass
class Course:
    """A cluster over time: looks and ticks go in, letters come out; the clock is ours."""

    rules: Rules = RULES
    at: float = 1000.0
    book: tuple[Incident, ...] = ()
    letters: list[Letter] = field(default_factory=list)
    ids: Iterable[int] = field(default_factory=lambda: itertools.count(1))

    def look(
        self,
        *troubles: Trouble,
        good: Iterable[Subject] = (),
        known: Iterable[Subject] | None = None,
    ) -> list[Letter]:
        look = Look(
            "prod",
            self.at,
            troubles,
            frozenset(good),
            None if known is None else frozenset(known),
        )
        return self._take(folding.step(self.book, look, self.rules, self._id))

    def wait(self, seconds: float) -> list[Letter]:
        """Let time pass, with a tick whenever one is due; never in a circle."""
        end, found = self.at + seconds, []
        for _ in range(1000):
            due = folding.due_at(self.book, self.rules, self.at)
            if due is None or due > end:
                self.at = end
                return found
            assert due >= self.at
            self.at = due
            found += self._take(folding.tick(self.book, self.at, self.rules))
            again = folding.due_at(self.book, self.rules, self.at)
            assert again is None or again > self.at
        raise AssertionError("there is always something due")

    def kinds(self) -> list[Kind]:
        return [letter.kind for letter in self.letters]

    def _id(self) -> str:
        return f"i{next(iter(self.ids))}"

    def _take(self, step: folding.Step) -> list[Letter]:
        before = {one.id: one for one in self.book}
        assert list(step.changed) == [one for one in step.incidents if before.get(one.id) != one]
        assert {letter.incident.id for letter in step.letters} <= {one.id for one in step.changed}
        self.book = folding.forget(step.incidents, self.at, self.rules)
        self.letters += step.letters
        return list(step.letters)


OPENED, MORE, AGAIN = Kind.OPENED, Kind.MORE, Kind.AGAIN
CLOSED, PASSED, REMINDER = Kind.CLOSED, Kind.PASSED, Kind.REMINDER


def test_one_trouble_is_a_letter_when_it_begins_and_one_when_it_is_over() -> None:
    course = Course()
    (opened,) = course.look(bad(RS1, reason="refused"))
    assert (opened.kind, opened.number, opened.at) == (OPENED, 1, 1000.0)
    course.wait(250)
    assert course.look(good=[RS1]) == []
    assert course.wait(29) == []
    (closed,) = course.wait(1)
    assert (closed.kind, closed.number, closed.incident.closed) == (CLOSED, 2, 1250.0)
    assert [(moment.at, moment.text) for moment in closed.incident.moments] == [
        (1000.0, "rs1:80 OUT (refused)"),
        (1250.0, "rs1:80 back"),
    ]
    assert course.wait(10**6) == []


def test_what_was_over_is_over_since_the_first_look_that_saw_it_well() -> None:
    course = Course()
    course.look(bad(RS1))
    for _ in range(3):
        course.look(good=[RS1])
        before = course.book
        course.wait(9)
        course.look(good=[RS1])
        assert course.book == before
    assert course.book[0].well_since == 1000.0
    assert [letter.kind for letter in course.wait(3)] == [CLOSED]


def test_five_quick_flaps_are_two_letters_and_told_as_five() -> None:
    course = Course()
    for _ in range(5):
        course.look(bad(RS1))
        course.wait(5)
        course.look(good=[RS1])
        course.wait(5)
    course.wait(3600)
    assert course.kinds() == [OPENED, CLOSED]
    last = course.letters[-1].incident
    assert (last.parts[0].times, last.returns) == (5, 4)


def test_a_rack_that_dies_in_one_look_is_one_letter() -> None:
    course = Course()
    rack = [bad(Subject("servers", f"rs{n}")) for n in range(500)]
    (opened,) = course.look(*rack)
    assert len(opened.incident.parts) == 500
    assert opened.incident.moments[0].text == (
        "500 in trouble: rs0, rs1, rs10, rs100, rs101 and 495 others"
    )
    course.look(good=[one.subject for one in rack])
    course.wait(100)
    assert course.kinds() == [OPENED, CLOSED]


def test_a_rack_that_dies_over_many_looks_is_three_letters() -> None:
    course = Course()
    rack = [bad(Subject("servers", f"rs{n}")) for n in range(500)]
    for number in range(0, 500, 20):
        course.look(*rack[: number + 20])
        course.wait(0.04)
    course.wait(300)
    course.look(good=[one.subject for one in rack])
    course.wait(100)
    assert course.kinds() == [OPENED, MORE, CLOSED]
    assert len({letter.incident.id for letter in course.letters}) == 1


def test_a_rack_that_comes_back_and_falls_again_bit_by_bit_has_returned_once() -> None:
    course = Course()
    rack = [bad(Subject("servers", f"rs{n}")) for n in range(20)]
    course.look(*rack)
    course.look(good=[one.subject for one in rack])
    for number in range(20):
        course.look(*rack[: number + 1])
        course.wait(0.1)
    assert [one.calm_seconds for one in course.book] == [60]


def test_ten_thousand_at_once_are_quick_and_none_is_lost() -> None:
    course = Course()
    rack = [bad(Subject("servers", f"rs{n}")) for n in range(10_000)]
    begun = time.perf_counter()
    course.look(*rack[1:])
    course.look(*rack)
    seconds = (time.perf_counter() - begun) / 2
    assert [len(one.parts) for one in course.book] == [folding.MOST_PARTS] * 2
    assert course.kinds() == [OPENED, OPENED]
    # Ten times what it takes; what looks through all for each of all takes minutes.
    assert seconds < 3


def test_a_storm_that_goes_on_is_told_ever_more_seldom() -> None:
    course = Course()
    down: list[Trouble] = []
    for number in range(60):
        down.append(bad(Subject("servers", f"rs{number:02}")))
        course.look(*down)
        course.wait(10 if number < 5 else 120)
    assert course.kinds()[0] is OPENED
    assert len(course.letters) <= 9
    assert len({letter.incident.id for letter in course.letters}) == 1


def test_letters_of_an_endless_storm_come_once_an_hour_in_the_end() -> None:
    course = Course(Rules(remind=0))
    for number in range(200):
        course.look(*(bad(Subject("servers", f"rs{n}")) for n in range(number + 6)))
        course.wait(300)
    times = [letter.at for letter in course.letters]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert gaps[:5] == [300, 300, 300, 480, 960]
    assert set(gaps[6:]) == {3600}


def test_a_storm_is_over_when_nothing_has_joined_it_for_ten_times_the_fold() -> None:
    course = Course()
    rack = [bad(Subject("servers", f"rs{n}")) for n in range(7)]
    course.look(*rack[:5])
    course.wait(600)
    course.look(*rack[:6])
    course.wait(601)
    course.look(*rack)
    assert [len(one.parts) for one in course.book] == [6, 1]


def test_what_begins_later_is_an_incident_of_its_own() -> None:
    course = Course()
    course.look(bad(RS1))
    course.wait(61)
    (second,) = course.look(bad(RS1), bad(RS2))
    assert (second.kind, [part.trouble.subject for part in second.incident.parts]) == (
        OPENED,
        [RS2],
    )


def test_troubles_of_two_groups_are_two_incidents() -> None:
    course = Course()
    course.look(bad(RS1), bad(LB1))
    assert sorted(one.group for one in course.book) == ["director lb1", "servers"]


def test_what_is_not_urgent_and_soon_over_is_one_letter() -> None:
    course = Course()
    course.look(bad(LB1, urgent=False))
    course.wait(4)
    course.look(good=[LB1])
    course.wait(1000)
    assert course.kinds() == [PASSED]


def test_what_is_not_urgent_and_lasts_is_told_after_a_while() -> None:
    course = Course()
    course.look(bad(LB1, urgent=False))
    assert course.wait(59) == []
    assert [letter.kind for letter in course.wait(1)] == [OPENED]


def test_what_becomes_worse_is_told_at_once_and_once() -> None:
    course = Course()
    course.look(bad(RS1))
    course.wait(5)
    worse = bad(RS2, Severity.CRITICAL)
    assert [letter.kind for letter in course.look(bad(RS1), worse)] == [MORE]
    course.wait(5)
    assert course.look(bad(RS1), worse, bad(RS3, Severity.CRITICAL)) == []
    assert [letter.kind for letter in course.wait(115)] == [MORE]


def test_what_becomes_worse_but_not_critical_waits_for_the_gap() -> None:
    course = Course()
    course.look(bad(RS1, Severity.INFO))
    course.wait(5)
    assert course.look(bad(RS1, Severity.WARNING)) == []
    assert course.wait(54) == []
    (more,) = course.wait(1)
    assert more.kind is MORE
    assert [moment.text for moment in more.incident.moments] == [
        "rs1:80 OUT",
        "rs1:80 OUT: warning now",
    ]


def test_what_comes_back_worse_is_told_at_once() -> None:
    course = Course()
    course.look(bad(RS1))
    course.look(good=[RS1])
    assert course.look(bad(RS1)) == []
    course.look(good=[RS1])
    assert [letter.kind for letter in course.look(bad(RS1, Severity.CRITICAL))] == [MORE]


def test_of_two_troubles_of_one_subject_the_worse_counts_and_good_is_no_excuse() -> None:
    course = Course()
    worse, other = bad(RS1, Severity.CRITICAL), bad(RS1, Severity.WARNING, reason="refused")
    for _ in range(2):
        course.look(worse, other, good=[RS1], known=[RS2])
    (incident,) = course.book
    assert incident.parts == (Part(worse, 1000.0),)
    assert [moment.text for moment in incident.moments] == ["rs1:80 OUT"]


def test_what_comes_back_soon_is_the_same_incident() -> None:
    course = Course()
    course.look(bad(RS1))
    course.look(good=[RS1])
    course.wait(100)
    course.look(bad(RS1))
    course.wait(100)
    course.look(good=[RS1])
    assert course.wait(59) == []
    course.wait(1)
    assert course.kinds() == [OPENED, CLOSED, AGAIN, CLOSED]
    assert {letter.incident.id for letter in course.letters} == {"i1"}
    assert [letter.number for letter in course.letters] == [1, 2, 3, 4]


def test_what_comes_back_right_after_its_letter_waits_for_the_gap() -> None:
    course = Course()
    course.look(bad(RS1))
    course.look(good=[RS1])
    course.wait(40)
    assert course.look(bad(RS1)) == []
    assert course.wait(49) == []
    assert [letter.kind for letter in course.wait(1)] == [AGAIN]


def test_what_comes_back_and_is_over_before_that_may_be_told_is_one_letter() -> None:
    course = Course()
    course.look(bad(RS1))
    course.look(good=[RS1])
    course.wait(31)
    course.look(bad(RS1))
    course.look(good=[RS1])
    course.wait(3600)
    assert course.kinds() == [OPENED, CLOSED, CLOSED]
    assert course.letters[-1].incident.parts[0].times == 2


def test_nobody_is_told_soon_of_the_end_of_what_he_did_not_know() -> None:
    course = Course(Rules(settle=1))
    course.look(bad(RS1))
    course.look(good=[RS1])
    course.wait(1)
    course.look(bad(RS1))
    course.look(good=[RS1])
    course.wait(300)
    assert [(letter.kind, letter.at - 1000) for letter in course.letters] == [
        (OPENED, 0),
        (CLOSED, 1),
        (CLOSED, 61),
    ]


def test_each_return_after_all_was_over_doubles_the_time_whoever_returns() -> None:
    course = Course()
    calm = []
    course.look(bad(RS1), bad(RS2))
    for who in (RS1, RS2, RS1, RS2, RS1, RS2):
        course.look(good=[RS1, RS2])
        course.look(bad(who))
        calm += [one.calm_seconds for one in course.book]
    assert calm == [60, 120, 240, 480, 900, 900]


OVER_IN_OLD = Incident("old", "prod", "servers", 900.0, (Part(bad(RS1), 900.0, 950.0),))
LASTS_IN_OLD = replace(OVER_IN_OLD, parts=(Part(bad(RS1), 900.0),))
OVER_IN_NEW = replace(OVER_IN_OLD, id="new", opened=901.0)
CLOSED_NEW = replace(OVER_IN_NEW, closed=950.0)
CLOSED_OLD = replace(OVER_IN_OLD, closed=950.0)


@pytest.mark.parametrize(
    ("book", "expected"),
    [
        pytest.param((LASTS_IN_OLD, OVER_IN_NEW), "old", id="it is in the one where it lasts"),
        pytest.param((OVER_IN_OLD, CLOSED_NEW), "old", id="it goes on in the one that is open"),
        pytest.param((CLOSED_NEW, CLOSED_OLD), "new", id="of those that are over the youngest"),
    ],
)
def test_what_was_in_several_incidents_goes_on_in_one(
    book: tuple[Incident, ...], expected: str
) -> None:
    course = Course(book=book)
    course.look(bad(RS1))
    assert [one.id for one in course.book if one.lasting] == [expected]


def test_what_is_not_urgent_and_comes_back_briefly_is_one_letter() -> None:
    course = Course()
    course.look(bad(LB1, urgent=False))
    course.wait(100)
    course.look(good=[LB1])
    course.wait(300)
    course.look(bad(LB1, urgent=False))
    course.wait(20)
    course.look(good=[LB1])
    course.wait(300)
    assert course.kinds() == [OPENED, CLOSED, CLOSED]


def test_what_comes_back_late_is_another_one() -> None:
    course = Course()
    course.look(bad(RS1))
    course.look(good=[RS1])
    course.wait(601)
    course.look(bad(RS1))
    assert [letter.incident.id for letter in course.letters] == ["i1", "i1", "i2"]


def test_nobody_is_told_that_something_is_over_because_nobody_can_see_it() -> None:
    course = Course()
    course.look(bad(RS1))
    course.wait(10)
    course.look()
    course.wait(3600)
    assert course.kinds() == [OPENED]
    assert course.book[0].lasting


def test_what_the_pillar_has_no_more_is_over() -> None:
    course = Course()
    course.look(bad(RS1))
    course.look(known=[RS2])
    course.wait(100)
    assert course.kinds() == [OPENED, CLOSED]
    assert course.letters[-1].incident.moments[-1].text == ("rs1:80 of web is no longer configured")


def test_what_lasts_is_told_again_and_again() -> None:
    course = Course()
    course.look(bad(RS1))
    course.wait(9 * 3600)
    assert [(letter.kind, letter.at - 1000) for letter in course.letters] == [
        (OPENED, 0),
        (REMINDER, 4 * 3600),
        (REMINDER, 8 * 3600),
    ]


def test_who_wants_no_reminders_has_none() -> None:
    course = Course(Rules(remind=0))
    course.look(bad(RS1))
    course.wait(30 * 24 * 3600)
    assert course.kinds() == [OPENED]


def test_a_reminder_comes_in_time_even_where_news_would_come_later() -> None:
    course = Course(Rules(fold=600, remind=300))
    course.look(bad(RS1))
    course.look(bad(RS1), bad(RS2))
    course.wait(1000)
    assert course.kinds() == [OPENED, REMINDER, REMINDER, REMINDER]


def quiet_until(end: float) -> Callable[[Severity, float], float]:
    return lambda severity, at: at if severity is Severity.CRITICAL else max(at, end)


def test_in_quiet_hours_only_what_is_critical_is_told() -> None:
    course = Course(Rules(quiet=quiet_until(5000)))
    assert course.look(bad(RS1), bad(LB1, Severity.CRITICAL)) != []
    assert [letter.incident.group for letter in course.letters] == ["director lb1"]
    course.wait(3000)
    assert [letter.incident.group for letter in course.wait(1000)] == ["servers"]


def test_what_began_and_ended_in_quiet_hours_is_one_letter_in_the_morning() -> None:
    course = Course(Rules(quiet=quiet_until(5000)))
    course.look(bad(RS1))
    course.wait(600)
    course.look(good=[RS1])
    course.wait(10_000)
    assert [(letter.kind, letter.at) for letter in course.letters] == [(PASSED, 5000)]
    assert course.letters[0].incident.closed == 1600


def test_what_was_due_before_quiet_hours_and_comes_too_late_waits_for_their_end() -> None:
    course = Course(Rules(quiet=lambda _, at: 5000.0 if 1059 < at < 5000 else at))
    course.look(bad(RS1))
    course.look(bad(RS1), bad(RS2))
    course.at = 1059.5
    assert folding.tick(course.book, 1059.5, course.rules).letters == ()
    assert folding.due_at(course.book, course.rules, 1059.5) == 5000.0
    assert [(letter.kind, letter.at) for letter in course.wait(4000)] == [(MORE, 5000.0)]


def test_what_may_never_be_told_is_never_due() -> None:
    course = Course(Rules(quiet=lambda severity, at: float("inf")))
    course.look(bad(RS1))
    assert folding.due_at(course.book, course.rules, course.at) is None


YEARS = 10.0**9


def test_what_ended_while_the_clock_was_years_ahead_has_ended() -> None:
    course = Course(at=YEARS)
    course.look(bad(RS1))
    course.look(good=[RS1])
    course.at = 2000.0
    course.wait(31)
    (incident,) = course.book
    assert (incident.opened, incident.closed, incident.parts[0].since) == (2000.0, 2000.0, 2000.0)
    assert {moment.at for moment in incident.moments} == {2000.0}


def test_what_was_closed_while_the_clock_was_years_ahead_does_not_come_back_for_years() -> None:
    course = Course(at=YEARS)
    course.look(bad(RS1))
    course.look(good=[RS1])
    course.wait(30)
    course.at = 2000.0
    course.look()
    assert [one.closed for one in course.book] == [2000.0]


def test_news_of_years_ahead_are_told_by_the_right_clock() -> None:
    course = Course(at=YEARS)
    course.look(bad(RS1))
    course.look(bad(RS1), bad(RS2))
    course.at = 2000.0
    assert [(letter.kind, letter.at) for letter in course.wait(100)] == [(MORE, 2060.0)]


def test_after_a_reminder_of_years_ahead_the_next_one_is_in_time() -> None:
    course = Course()
    course.look(bad(RS1))
    course.at = YEARS
    assert course.look(bad(RS1)) != []
    course.at = 2000.0
    assert [letter.at for letter in course.wait(5 * 3600)] == [2000.0 + 4 * 3600]


def test_a_look_that_is_a_little_late_is_as_of_what_is_known_already() -> None:
    course = Course()
    course.look(bad(RS1))
    course.at = 999.0
    course.look(good=[RS1])
    assert course.book[0].well_since == 1000.0


def test_a_clock_that_is_set_back_makes_no_noise() -> None:
    course = Course()
    course.look(bad(RS1))
    course.wait(500)
    course.at = 10.0
    assert course.look(bad(RS1)) == []
    assert [letter.kind for letter in course.look(bad(RS1), bad(LB1))] == [OPENED]
    course.look(good=[RS1, LB1])
    course.at = 2000.0
    course.wait(100)
    assert Counter(course.kinds()) == {OPENED: 2, CLOSED: 2}


def test_the_course_of_a_long_incident_keeps_how_it_began_and_how_it_goes_on() -> None:
    course = Course()
    for _ in range(100):
        course.look(bad(RS1))
        course.wait(1)
        course.look(good=[RS1])
        course.wait(1)
    (incident,) = course.book
    assert (len(incident.moments), incident.omitted) == (60, 140)
    assert incident.moments[0].at == 1000.0
    assert incident.moments[-1].at == 1199.0


def test_what_happens_to_many_at_once_is_one_moment_of_each_kind() -> None:
    course = Course()
    rack = [bad(Subject("servers", f"rs{n:02}")) for n in range(22)]
    course.look(*rack)
    course.look(good=[one.subject for one in rack[:11]], known=[one.subject for one in rack[:11]])
    course.look(*rack[:10], bad(rack[10].subject, reason="refused"))
    (incident,) = course.book
    assert [moment.text for moment in incident.moments] == [
        "22 in trouble: rs00, rs01, rs02, rs03, rs04 and 17 others",
        "11 well again: rs00, rs01, rs02, rs03, rs04 and 6 others",
        "11 no longer configured: rs11, rs12, rs13, rs14, rs15 and 6 others",
        "11 in trouble again: rs00, rs01, rs02, rs03, rs04 and 6 others",
    ]


def test_a_moment_says_why_and_that_it_is_not_the_first_time() -> None:
    course = Course()
    course.look(bad(RS1, reason="connection refused"))
    course.look(good=[RS1])
    course.look(bad(RS1, reason="timed out"))
    assert [moment.text for moment in course.book[0].moments] == [
        "rs1:80 OUT (connection refused)",
        "rs1:80 back",
        "rs1:80 OUT again (timed out)",
    ]


def test_what_has_been_over_for_long_is_forgotten() -> None:
    course = Course()
    course.look(bad(RS1))
    course.look(good=[RS1])
    course.wait(600)
    assert len(folding.forget(course.book, course.at, RULES)) == 1
    assert folding.forget(course.book, course.at + 1, RULES) == ()


# --------------------------------------------------------------------------------------------------
# Laws

SUBJECTS = (RS1, RS2, RS3, LB1)
# A pause, what each is seen as and how bad, and whether that is urgent.
Seen = tuple[float, dict[Subject, tuple[str, Severity]], bool]
SEEN = st.dictionaries(
    st.sampled_from(SUBJECTS),
    st.tuples(st.sampled_from(["bad", "good", "unknown"]), st.sampled_from(Severity)),
)
PAUSES = st.sampled_from([0.0, 1.0, 29.0, 31.0, 61.0, 250.0, 601.0]) | st.floats(0, 1000)
LOOKS = st.lists(st.tuples(PAUSES, SEEN, st.booleans()), max_size=25)
CLOCKS = st.lists(st.tuples(st.floats(0, 10.0**9), SEEN, st.booleans()), max_size=15)

# What may come after a letter, and what before any.
AFTER = {
    None: {OPENED, PASSED},
    **{kind: {MORE, CLOSED, REMINDER} for kind in (OPENED, MORE, AGAIN, REMINDER)},
    **{kind: {AGAIN, CLOSED} for kind in (CLOSED, PASSED)},
}


def look_at(
    course: Course, seen: dict[Subject, tuple[str, Severity]], urgent: bool
) -> list[Letter]:
    return course.look(
        *(bad(who, severity, urgent) for who, (how, severity) in seen.items() if how == "bad"),
        good=[who for who, (how, _) in seen.items() if how == "good"],
    )


def run(looks: Sequence[Seen], rules: Rules = RULES) -> Course:
    course = Course(rules)
    for pause, seen, urgent in looks:
        course.wait(pause)
        look_at(course, seen, urgent)
    return course


def run_with_clocks(looks: Sequence[Seen]) -> Course:
    """As :func:`run`, with the time of each look in place of a pause."""
    course = Course()
    for at, seen, urgent in looks:
        course.at = at
        look_at(course, seen, urgent)
    return course


def by_incident(letters: Iterable[Letter]) -> dict[str, list[Letter]]:
    found: dict[str, list[Letter]] = {}
    for letter in letters:
        found.setdefault(letter.incident.id, []).append(letter)
    return found


def expect_letters_in_order(course: Course) -> None:
    for letters in by_incident(course.letters).values():
        assert [letter.number for letter in letters] == list(range(1, len(letters) + 1))
        kinds = [None, *(letter.kind for letter in letters)]
        assert all(now in AFTER[before] for before, now in itertools.pairwise(kinds))


def expect_all_over(course: Course) -> None:
    """Nothing is open, and whoever was told that something began was told that it is over."""
    assert not [one for one in course.book if one.closed is None]
    for letters in by_incident(course.letters).values():
        assert letters[-1].kind in (CLOSED, PASSED)


def lasting_after(looks: Sequence[Seen]) -> Counter[Subject]:
    found = set()
    for _, seen, _ in looks:
        found |= {who for who, (how, _) in seen.items() if how == "bad"}
        found -= {who for who, (how, _) in seen.items() if how == "good"}
    return Counter(found)


def lasting_in(course: Course) -> Counter[Subject]:
    return Counter(part.trouble.subject for one in course.book for part in one.lasting)


@given(LOOKS)
def test_what_is_bad_lasts_in_exactly_one_incident(looks: list[Seen]) -> None:
    assert lasting_in(run(looks)) == lasting_after(looks)


@given(LOOKS)
def test_letters_are_numbered_make_sense_and_in_the_end_all_is_over(looks: list[Seen]) -> None:
    course = run(looks)
    course.look(good=SUBJECTS)
    course.wait(20 * 3600)
    expect_letters_in_order(course)
    expect_all_over(course)


@given(CLOCKS)
def test_no_clock_makes_anything_be_lost_or_stay(looks: list[Seen]) -> None:
    course = run_with_clocks(looks)
    assert lasting_in(course) == lasting_after(looks)
    course.at = 5000.0
    course.look(good=SUBJECTS)
    course.wait(20 * 3600)
    expect_letters_in_order(course)
    expect_all_over(course)


@given(LOOKS, st.lists(st.floats(0, 10.0**9), max_size=5))
def test_the_same_look_again_tells_nothing_new_even_if_the_clock_is_set(
    looks: list[Seen], clocks: list[float]
) -> None:
    course = run(looks)
    if looks:
        _, seen, urgent = looks[-1]
        assert look_at(course, seen, urgent) == []
        begun = len(course.letters)
        for course.at in clocks:
            look_at(course, seen, urgent)
        # What waits to be told may be told now, but once.
        news = [one.incident.id for one in course.letters[begun:] if one.kind is not REMINDER]
        assert len(news) == len(set(news))


@given(LOOKS)
def test_each_letter_has_news(looks: list[Seen]) -> None:
    course = run(looks)
    course.look(good=SUBJECTS)
    course.wait(3600)
    for letters in by_incident(course.letters).values():
        assert all(has_news(*pair) for pair in itertools.pairwise(letters))


def has_news(before: Letter, now: Letter) -> bool:
    was, is_now = before.incident, now.incident
    begun = sum(part.times for part in is_now.parts) - sum(part.times for part in was.parts)
    told = max(one.severity.rank for one in was.told)
    match now.kind:
        case Kind.MORE:
            # What had become worse may have become better while that waited to be told.
            worse = any(" now" in moment.text for moment in is_now.moments)
            return len(is_now.parts) > len(was.parts) or is_now.severity.rank > told or worse
        case Kind.REMINDER:
            return now.at - before.at >= RULES.remind and bool(is_now.lasting)
        case Kind.AGAIN:
            return begun > 0 and bool(is_now.lasting)
        case _:
            return not is_now.lasting and (was.closed is None or begun > 0)


@given(LOOKS, st.integers(0, 3600), st.integers(60, 3600))
def test_no_letter_comes_in_quiet_hours_and_nobody_waits_in_a_circle(
    looks: list[Seen], start: int, length: int
) -> None:
    def quiet(severity: Severity, at: float) -> float:
        into = (at - start) % 7200
        is_quiet = into < length and severity is not Severity.CRITICAL
        return at - into + length + 0.001 if is_quiet else at

    course = run(looks, Rules(quiet=quiet))
    course.look(good=SUBJECTS)
    course.wait(20 * 3600)
    assert all(quiet(one.incident.severity, one.at) == one.at for one in course.letters)
    expect_letters_in_order(course)
    expect_all_over(course)


@given(LOOKS, st.randoms(use_true_random=False))
def test_the_order_of_troubles_in_a_look_does_not_matter(
    looks: list[Seen], chance: random.Random
) -> None:
    def shuffled(seen: dict[Subject, tuple[str, Severity]]) -> dict:
        return dict(chance.sample(list(seen.items()), len(seen)))

    other = [(pause, shuffled(seen), urgent) for pause, seen, urgent in looks]
    assert run(looks).letters == run(other).letters


@given(LOOKS, st.lists(st.floats(0, 20_000), max_size=20))
def test_asking_more_often_tells_nothing_else(looks: list[Seen], extra: list[float]) -> None:
    course, other = run(looks), run(looks)
    end = course.at + 20_000
    for at in sorted(extra):
        other.wait(max(0.0, end - 20_000 + at - other.at))
        assert other._take(folding.tick(other.book, other.at, RULES)) == []
    other.wait(end - other.at)
    course.wait(end - course.at)
    assert course.letters == other.letters


def flaps(seconds: float, bad_seconds: float, good_seconds: float) -> Course:
    """A cluster of which one real server goes and comes for so long."""
    course = Course()
    for _ in range(int(seconds / (bad_seconds + good_seconds))):
        course.look(bad(RS1))
        course.wait(bad_seconds)
        course.look(good=[RS1])
        course.wait(good_seconds)
    return course


@given(st.integers(1, 600), st.floats(0.01, 0.99))
@settings(max_examples=60)
def test_five_flaps_are_two_letters_and_two_for_each_time_it_was_over(
    period: int, share: float
) -> None:
    course = flaps(5 * period, period * share, period * (1 - share))
    course.wait(2 * 3600)
    times_over = len({letter.incident.well_since for letter in course.letters} - {None})
    assert len(course.letters) <= 2 * times_over
    if period * (1 - share) < 30:
        assert course.kinds() == [OPENED, CLOSED]
    assert len({letter.incident.id for letter in course.letters}) == 1
    expect_all_over(course)


@given(st.integers(1, 1800), st.floats(0.01, 0.99))
@settings(max_examples=60)
def test_whoever_flaps_for_an_hour_is_told_of_a_few_times_only(period: int, share: float) -> None:
    course = flaps(3600, period * share, period * (1 - share))
    # What is well for longer than flap_within is a new incident each time, of two letters.
    assert len(course.letters) <= (8 if period <= RULES.flap_within else 12)
    course.wait(2 * 3600)
    expect_all_over(course)


@given(st.lists(st.integers(0, 499), max_size=10), st.floats(1, 300), st.randoms())
@settings(max_examples=30)
def test_a_rack_that_dies_within_a_second_is_three_letters_at_most(
    cuts: list[int], seconds_down: float, chance: random.Random
) -> None:
    course = Course()
    rack = [bad(Subject("servers", f"rs{n}")) for n in chance.sample(range(500), 500)]
    for cut in (*sorted(cuts), 500):
        course.look(*rack[:cut])
        course.wait(1 / (len(cuts) + 1))
    course.wait(seconds_down)
    course.look(good=[one.subject for one in rack])
    course.wait(1000)
    assert len(course.letters) <= 3
    assert len({letter.incident.id for letter in course.letters}) == 1
    assert sum(len(one.parts) for one in course.book) == 500
