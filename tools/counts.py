"""How many tests passed, failed and were skipped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree


@dataclass(frozen=True)
class Count:
    """A number of tests by how they ended."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    @property
    def ran(self) -> int:
        return self.passed + self.failed

    def __add__(self, other: Count) -> Count:
        return Count(
            self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped
        )

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def read_report(path: Path) -> Count:
    """Count the cases of a JUnit report; one that is missing or cut off counts none."""
    try:
        cases = list(ElementTree.parse(path).iter("testcase"))
    except (OSError, ElementTree.ParseError):
        return Count()
    return sum((_count(case) for case in cases), Count())


def _count(case: ElementTree.Element) -> Count:
    """A test can both pass and fail, in its teardown: then it has failed."""
    if case.find("failure") is not None or case.find("error") is not None:
        return Count(failed=1)
    return Count(skipped=1) if case.find("skipped") is not None else Count(passed=1)
