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
        {"lb1 lb2": Round("prod", NOW, IDS), "old": Round("prod", NOW - 5.1, IDS)},
        {"web7": NOW - 61},
    )
    assert Book.load(book.dump(), NOW) == Book({"lb1 lb2": Round("prod", NOW, IDS)}, {})


def test_a_clock_that_was_set_back_blocks_nothing() -> None:
    book = Book({"lb1 lb2": Round("prod", NOW + 3600, IDS)}, {"rs1": NOW + 3600})
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
