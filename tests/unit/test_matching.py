"""Which lines two texts have in common."""

from __future__ import annotations

import time
from difflib import Match

from hypothesis import given
from hypothesis import strategies as st
from saltext.lvs.matching import Matcher


def test_what_stands_between_lines_that_stand_once_is_compared_by_itself() -> None:
    old = ["x", "rs1", "}", "x", "rs2", "}"]
    new = ["rs1", "}", "y", "rs2", "}", "x", "rs3", "}"]
    assert Matcher(old, new).get_matching_blocks() == [
        Match(1, 0, 2),
        Match(4, 3, 2),
        Match(6, 8, 0),
    ]


def test_lines_that_change_places_keep_the_longest_order() -> None:
    assert Matcher(list("abcde"), list("dabce")).get_matching_blocks() == [
        Match(0, 1, 3),
        Match(4, 4, 1),
        Match(5, 5, 0),
    ]


texts = st.lists(st.sampled_from("abcdef{}"), max_size=30)


@given(texts, texts)
def test_the_runs_are_equal_rising_and_as_long_as_they_can_be(
    old: list[str], new: list[str]
) -> None:
    at_old = at_new = 0
    *runs, end = Matcher(old, new).get_matching_blocks()
    for run in runs:
        assert old[run.a : run.a + run.size] == new[run.b : run.b + run.size]
        assert run.size > 0
        assert run.a >= at_old and run.b >= at_new
        assert (run.a, run.b) != (at_old, at_new) or (at_old, at_new) == (0, 0)
        at_old, at_new = run.a + run.size, run.b + run.size
    assert end == Match(len(old), len(new), 0)


@given(texts)
def test_equal_texts_are_one_run(text: list[str]) -> None:
    runs = [Match(0, 0, len(text))] if text else []
    assert Matcher(text, text).get_matching_blocks() == [*runs, Match(len(text), len(text), 0)]


def test_a_large_configuration_that_changes_everywhere_is_compared_at_once() -> None:
    def configuration(weight: int) -> list[str]:
        servers = range(3000)
        return [
            line
            for server in servers
            for line in (f"server {server} {{", f"  weight {weight}", *("  a b", "  c d", "}"))
        ]

    begin = time.monotonic()
    changed = Matcher(configuration(1), configuration(2)).get_opcodes()
    assert sum(code[0] == "replace" for code in changed) == 3000
    # difflib alone takes 10 s and more.
    assert time.monotonic() - begin < 5
