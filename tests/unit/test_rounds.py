"""When directors announce VIPs again: never too often, and always after what made it necessary."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from saltext.lvs import garp, rounds
from saltext.lvs.rounds import Book, Round

NOW = 1_800_000_000.0
IDS = frozenset({"rs1", "rs2"})
DIRECTORS = ["lb1", "lb2"]


def after(*causes: float) -> Book:
    """The book after causes at these seconds."""
    book = Book()
    for at in causes:
        book, _ = book.with_cause("prod", DIRECTORS, IDS, NOW + at)
    return book


CAUSES: dict[str, tuple[list[float], float, float | None]] = {
    "the first one": ([], 0.0, 0.0),
    "one long after the last": ([0.0], 7.0, 0.0),
    "one just after a round": ([0.0], 0.5, 4.5),
    "one more, before the second round has begun": ([0.0, 0.5], 4.9, None),
    "one while the second round goes on": ([0.0, 0.5], 6.0, 4.0),
    "one as a round begins": ([0.0], 0.0, 5.0),
}


@pytest.mark.parametrize(("causes", "at", "delay"), CAUSES.values(), ids=CAUSES.keys())
def test_a_cause_is_told_when_its_round_begins(
    causes: list[float], at: float, delay: float | None
) -> None:
    _, told = after(*causes).with_cause("prod", DIRECTORS, IDS, NOW + at)
    assert told == (None if delay is None else pytest.approx(delay))


@pytest.mark.parametrize("cluster", ["staging", "prod"], ids=["another", "one of the same name"])
def test_clusters_do_not_wait_for_each_other(cluster: str) -> None:
    book = after(0.0, 0.1)
    asked, delay = book.with_cause(cluster, ["stage-lb1"], ["stage1"], NOW + 0.2)
    assert delay == 0.0
    assert asked.rounds == {
        **book.rounds,
        "stage-lb1": Round(cluster, NOW + 0.2, frozenset({"stage1"})),
    }


def test_directors_count_whatever_their_order() -> None:
    _, delay = after(0.0, 0.1).with_cause("prod", DIRECTORS[::-1], IDS, NOW + 0.2)
    assert delay is None


times = st.lists(st.floats(0, 60, allow_nan=False), min_size=1, max_size=60).map(sorted)


@given(times=times)
def test_every_cause_gets_a_round_that_begins_after_it_and_soon(times: list[float]) -> None:
    book, begins = Book(), []
    for at in times:
        now = NOW + at
        book, delay = Book.load(book.dump(), now).with_cause("prod", DIRECTORS, IDS, now)
        if delay is not None:
            begins.append(now + delay)
    for at in times:
        assert any(
            NOW + at <= begin <= NOW + at + rounds.SECONDS_BETWEEN + 1e-6 for begin in begins
        )
    gaps = [later - begin for begin, later in itertools.pairwise(begins)]
    assert all(gap >= rounds.SECONDS_BETWEEN - 1e-6 for gap in gaps)


def test_a_real_server_is_known_to_be_covered_only_until_the_round_begins() -> None:
    book = after(0.0, 1.0)
    assert [book.covering("rs2", NOW + at) for at in (1.1, 4.9, 5.0)] == ["prod", "prod", None]
    assert book.covering("rs3", NOW + 1.1) is None
    assert after(0.0).covering("rs1", NOW) is None


TAKEN_BACK = {
    "there was none before": ([], 0.0),
    "the one before went out": ([0.0], 3.0),
}


@pytest.mark.parametrize(("before", "at"), TAKEN_BACK.values(), ids=TAKEN_BACK.keys())
def test_only_the_round_that_nobody_could_be_asked_for_is_forgotten(
    before: list[float], at: float
) -> None:
    booked, _ = after(*before).with_cause("prod", DIRECTORS, IDS, NOW + at)
    assert booked.without(DIRECTORS, booked, after(*before)) == after(*before)


def test_a_later_round_than_the_one_that_failed_stays() -> None:
    failed = after(0.0)
    later = after(0.0, 5.5)
    assert later.without(DIRECTORS, failed, Book()) == later
    assert Book().without(DIRECTORS, failed, Book()) == Book()


STAMPS = {
    "as Salt 3006 and 3007 write it": ("2027-01-15T07:59:59.500000", NOW - 0.5),
    "as Salt 3008 writes it": ("2027-01-15T07:59:59.500000+00:00", NOW - 0.5),
    "another zone": ("2027-01-15T08:59:59+01:00", NOW - 1),
    "still to come": ("2027-01-15T08:00:01", NOW),
    "no time": ("yesterday", NOW),
    "nothing": (None, NOW),
    "a number": (7, NOW),
}


@pytest.mark.parametrize(("stamp", "told"), STAMPS.values(), ids=STAMPS.keys())
def test_an_event_came_when_the_master_says(stamp: object, told: float) -> None:
    assert rounds.told_at(stamp, NOW) == told


def test_a_cause_that_was_told_before_the_last_round_began_is_covered_however_late_it_is() -> None:
    book = after(0.0)
    for told, delay in ((-0.1, None), (0.0, 0.0), (20.0, 0.0)):
        loaded = Book.load(book.dump(), NOW + 59)
        assert loaded.covering("rs1", NOW + told) == ("prod" if delay is None else None)
        assert loaded.with_cause("prod", DIRECTORS, IDS, NOW + 59, NOW + told)[1] == delay


class Looks:
    """Looks at one cluster, each as long as it is told to be, in time that passes here."""

    def __init__(self) -> None:
        self.book, self.now = Book(), NOW
        self.began: list[float] = []
        self.ends: float | None = None
        self.due: list[tuple[float, Round]] = []

    def cause(self, told: float) -> None:
        book, delay = self.loaded.with_cause("prod", DIRECTORS, IDS, self.now, told)
        if delay is not None:
            booked = book.round_of(DIRECTORS)
            assert booked is not None
            self.due.append((self.now + delay, booked))
        self.book = book

    def pass_time(self, until: float, lasting: float, late: float) -> None:
        """Let all that is due by then happen, that much later than it should."""
        while moments := [at + late for at, _ in self.due] + ([self.ends] if self.ends else []):
            if (moment := min(moments)) > until:
                break
            self.now = moment
            if moment == self.ends:
                self.ends, self.book = None, self.loaded.at_work(DIRECTORS, self.now)
            else:
                self._turn(lasting, late)
        self.now = until

    def _turn(self, lasting: float, late: float) -> None:
        at, booked = min(self.due, key=lambda item: item[0])
        self.due.remove((at, booked))
        self.book, waits, seconds = self.loaded.at_turn(DIRECTORS, booked, self.now)
        if waits is None:
            return
        if seconds:
            self.due.append((self.now + seconds, waits))
            return
        assert self.ends is None, "two look at once"
        self.began.append(self.now)
        self.ends = self.now + lasting

    @property
    def loaded(self) -> Book:
        return Book.load(self.book.dump(), self.now)


@given(
    times=times,
    # How long each event waits for the reactor.
    lag=st.floats(0, 20),
    lasting=st.floats(0.1, rounds.BUSY_SECONDS - 0.1),
    late=st.floats(0, 0.5),
)
def test_looks_come_one_by_one_and_each_cause_gets_one_that_begins_after_it(
    times: list[float], lag: float, lasting: float, late: float
) -> None:
    looks = Looks()
    for at in times:
        looks.pass_time(NOW + at + lag, lasting, late)
        looks.cause(NOW + at)
        # Besides the one that is at work.
        assert len(looks.due) <= 1 + (late > 0)
    looks.pass_time(NOW + 1000, lasting, late)
    assert looks.due == []
    for at in times:
        soon = lag + late + max(lasting, rounds.SECONDS_BETWEEN) + rounds.WAIT_SECONDS + late
        assert any(NOW + at <= began <= NOW + at + soon + 1e-3 for began in looks.began)
    gaps = [later - began for began, later in itertools.pairwise(looks.began)]
    assert all(gap >= rounds.SECONDS_BETWEEN - 1e-3 for gap in gaps)
    # Not more for as long as the events waited: only for as long as they came.
    came = times[-1] - times[0]
    assert len(looks.began) <= 2 + came / rounds.SECONDS_BETWEEN


def test_who_is_at_work_and_has_ended_without_a_word_holds_nobody_up_for_long() -> None:
    book = after(0.0)
    began = book.round_of(DIRECTORS)
    assert began is not None
    book, _, _ = book.at_turn(DIRECTORS, began, NOW)
    book, delay = book.with_cause("prod", DIRECTORS, IDS, NOW + 1)
    booked = book.round_of(DIRECTORS)
    assert delay == 4.0
    assert booked is not None
    for at, waits in ((5.0, 1.0), (29.9, 1.0), (30.0, 0.0)):
        book, booked, seconds = Book.load(book.dump(), NOW + at).at_turn(
            DIRECTORS, booked, NOW + at
        )
        assert seconds == waits
        assert booked is not None


def test_a_stranger_is_known_for_a_minute() -> None:
    book = Book().with_stranger("web7", NOW)
    assert book.knows_as_stranger("web7")
    assert not book.knows_as_stranger("web8")
    assert Book.load(book.dump(), NOW + 59).knows_as_stranger("web7")
    assert not Book.load(book.dump(), NOW + 60).knows_as_stranger("web7")


def test_only_so_many_strangers_are_kept_the_newest() -> None:
    book = Book(strangers={f"web{number}": NOW + number for number in range(rounds.STRANGERS)})
    more = book.with_stranger("one-more", NOW + 5000)
    assert len(more.strangers) == rounds.STRANGERS
    assert (more.knows_as_stranger("web0"), more.knows_as_stranger("web1")) == (False, True)
    assert more.knows_as_stranger("one-more")


def test_what_was_written_is_read_again() -> None:
    book = after(0.0, 1.0).with_stranger("web7", NOW)
    assert Book.load(book.dump(), NOW + 2) == book


def test_the_book_holds_no_more_than_what_still_matters() -> None:
    book = Book(
        {
            "lb1 lb2": Round("prod", NOW, IDS),
            "old": Round("prod", NOW - 60, IDS),
            "old, and at work": Round("prod", NOW - 130, IDS, busy_until=NOW + 1),
        },
        {"web7": NOW - 61},
    )
    left = {name: one for name, one in book.rounds.items() if name != "old"}
    assert Book.load(book.dump(), NOW) == Book(left, {})


def test_a_clock_that_was_set_back_blocks_nothing() -> None:
    rounds = {
        "lb1 lb2": Round("prod", NOW + 3600, IDS),
        "lb3": Round("staging", NOW, IDS, busy_until=NOW + 3600),
    }
    book = Book(rounds, {"rs1": NOW + 3600})
    assert Book.load(book.dump(), NOW) == Book()


BROKEN = {
    "nothing": "",
    "half of it": after(0.0).dump()[:-5],
    "a list": "[]",
    "another shape": json.dumps({"rounds": ["prod"], "strangers": {}}),
    "words for times": json.dumps({"rounds": {}, "strangers": {"rs1": "today"}}),
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN.keys())
def test_what_cannot_be_read_is_an_empty_book(text: str) -> None:
    assert Book.load(text, NOW) == Book()


def test_the_master_keeps_to_what_each_director_keeps_to() -> None:
    assert rounds.SECONDS_BETWEEN == garp.SECONDS_BETWEEN
