"""How many tests passed, failed and were skipped, and which failed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

WHY_CHARACTERS = 200


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
    return sum((_count(case) for case in _cases(path)), Count())


def read_failures(path: Path) -> list[str]:
    """Return a line for each case of a JUnit report that failed: its name, and why."""
    return [_tell(case) for case in _cases(path) if _count(case).failed]


def read_failed_files(path: Path, checkout: Path) -> list[str]:
    """Return the files, from the checkout on, of whose tests one failed; an empty name stands for
    a file that cannot be told.
    """
    places = {case.get("classname", "") for case in _cases(path) if _count(case).failed}
    return sorted({_file(place.split("."), checkout) for place in places})


def _file(names: list[str], checkout: Path) -> str:
    for end in range(len(names), 0, -1):
        file = "/".join(names[:end]) + ".py"
        if (checkout / file).is_file():
            return file
    return ""


def _cases(path: Path) -> list[ElementTree.Element]:
    try:
        return list(ElementTree.parse(path).iter("testcase"))
    except (OSError, ElementTree.ParseError):
        return []


def _tell(case: ElementTree.Element) -> str:
    reasons = [found.get("message", "") for found in case if found.tag in ("failure", "error")]
    why = next((line.strip() for text in reasons for line in text.splitlines()), "")
    name = ".".join(filter(None, (case.get("classname"), case.get("name"))))
    return f"{name}: {why[:WHY_CHARACTERS]}" if why else name


def _count(case: ElementTree.Element) -> Count:
    """A test can both pass and fail, in its teardown: then it has failed."""
    if case.find("failure") is not None or case.find("error") is not None:
        return Count(failed=1)
    return Count(skipped=1) if case.find("skipped") is not None else Count(passed=1)
