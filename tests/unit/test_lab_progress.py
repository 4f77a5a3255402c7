"""What a person who waits for the lab reads."""

from __future__ import annotations

import time

import pytest

from tests.lab import shell
from tests.lab.progress import step


def test_a_step_says_what_it_does_and_how_long_it_took(capsys: pytest.CaptureFixture[str]) -> None:
    with step("Booting 6 hosts", dot_every=0.02):
        time.sleep(0.1)
    words, _, rest = capsys.readouterr().out.partition(" ....")
    assert words == "Booting 6 hosts"
    assert rest.lstrip(".") == " 0 s\n"


def test_a_step_that_fails_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), step("Booting 6 hosts"):
        raise ZeroDivisionError
    assert capsys.readouterr().out == "Booting 6 hosts ... failed\n"


RETURNED = {
    "a: 2 states, 1 of them changed something, 0 failed": {
        "one": {"__id__": "one", "result": True, "changes": {"new": 1}, "comment": ""},
        "two": {"__id__": "two", "result": True, "changes": {}, "comment": ""},
    },
    "a: 1 states, 0 of them changed something, 1 failed\n    one: no such package": {
        "one": {"__id__": "one", "result": False, "changes": {}, "comment": "no such package"},
    },
    "a: Minion did not return.": "Minion did not return.",
}


@pytest.mark.parametrize(("told", "returned"), RETURNED.items(), ids=["done", "failed", "silent"])
def test_a_highstate_is_told_in_a_line_for_each_minion(told: str, returned: object) -> None:
    assert shell._summary("a", returned) == f"  {told}"
