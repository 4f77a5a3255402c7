"""What each golden pillar becomes on each of its directors, to the letter."""

from __future__ import annotations

import pytest

from tests.golden.cases import EXAMPLES, Case, cases, folders

CASES = list(cases())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_file_is_the_golden_one(case: Case) -> None:
    assert case.rendered() == case.expected.read_text(encoding="utf-8")


def test_every_file_is_of_a_case() -> None:
    found = {
        path for folder in folders() for path in folder.iterdir() if path.name != "pillar.yaml"
    }
    assert found == {case.expected for case in CASES}


def test_every_example_environment_is_a_case() -> None:
    environments = {path.name for path in EXAMPLES.iterdir() if path.is_dir()}
    assert environments <= {folder.name for folder in folders()}
