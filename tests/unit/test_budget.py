"""What a reactor has done often enough is left to a person."""

from __future__ import annotations

from pathlib import Path

import pytest
from saltext.lvs import budget, locking
from saltext.lvs.errors import WrongState

MOST = budget.MOST["repair"]
NOW = 1_795_350_000.0


@pytest.fixture(autouse=True)
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(locking, "FOLDER", str(tmp_path))
    return tmp_path / "budget.json"


def spend(count: int, subject: str = "dummy0", now: float = NOW) -> None:
    for number in range(count):
        budget.note("repair", subject, now + number)


def test_what_was_changed_too_often_is_left_to_a_person() -> None:
    spend(MOST - 1)
    budget.expect_left("repair", "dummy0", NOW + 60)
    spend(1, now=NOW + 59)
    with pytest.raises(WrongState, match=f"dummy0 was changed {MOST} times within an hour"):
        budget.expect_left("repair", "dummy0", NOW + 60)


def test_another_subject_and_another_action_are_not_held_up_by_it() -> None:
    spend(MOST)
    budget.expect_left("repair", "dummy1", NOW + 60)
    budget.expect_left("reapply", "dummy0", NOW + 60)


def test_after_an_hour_it_is_forgotten() -> None:
    spend(MOST)
    budget.expect_left("repair", "dummy0", NOW + 3600)


def test_a_clock_that_was_ahead_holds_up_nothing() -> None:
    spend(MOST, now=NOW + 86400)
    budget.expect_left("repair", "dummy0", NOW)


def test_only_what_changed_something_is_counted() -> None:
    for _ in range(MOST * 2):
        assert budget.within("repair", "dummy0", list, bool) == []
    budget.expect_left("repair", "dummy0")


def test_what_failed_may_have_changed_something() -> None:
    def fail() -> None:
        raise OSError("half-way")

    for _ in range(MOST):
        with pytest.raises(OSError, match="half-way"):
            budget.within("repair", "dummy0", fail, bool)
    with pytest.raises(WrongState):
        budget.within("repair", "dummy0", fail, bool)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"repair dummy0": 7}', '{"x": ["y"]}'])
def test_a_file_that_cannot_be_read_holds_up_nothing(book: Path, text: str) -> None:
    book.write_text(text)
    budget.expect_left("repair", "dummy0")
    spend(MOST)
    with pytest.raises(WrongState):
        budget.expect_left("repair", "dummy0", NOW + 60)


def test_there_are_only_so_many_subjects(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MOST_SUBJECTS", 3)
    for number in range(5):
        budget.note("repair", f"dummy{number}", NOW)
    assert [f"repair dummy{number}" in book.read_text() for number in range(5)] == [
        False,
        False,
        True,
        True,
        True,
    ]
