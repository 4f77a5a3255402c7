"""Measured results: one form for every measure, its file, and its table for people.

The file is a list of objects. Ratios are ours over the other's: below 1, ours takes less. What does
not apply is null, and so is ``met`` where there is no goal.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Numbers:
    """What was measured, all in one unit in which less is better."""

    ours: float
    peer: float | None = None
    floor: float | None = None

    @property
    def ratio_to_peer(self) -> float | None:
        return self.ours / self.peer if self.peer else None

    @property
    def ratio_to_floor(self) -> float | None:
        return self.ours / self.floor if self.floor else None


@dataclass(frozen=True)
class Goal:
    """What the numbers should be, in words and as a test of them."""

    words: str
    is_met: Callable[[Numbers], bool]


@dataclass(frozen=True)
class Result:
    """One measure, as the file has it."""

    name: str
    unit: str
    ours: float
    peer: float | None
    floor: float | None
    ratio_to_peer: float | None
    ratio_to_floor: float | None
    goal: str | None
    met: bool | None


def result(name: str, unit: str, numbers: Numbers, *goals: Goal) -> Result:
    """A measure and whether all its goals are met."""
    return Result(
        name,
        unit,
        numbers.ours,
        numbers.peer,
        numbers.floor,
        numbers.ratio_to_peer,
        numbers.ratio_to_floor,
        " and ".join(goal.words for goal in goals) or None,
        all(goal.is_met(numbers) for goal in goals) if goals else None,
    )


def faster(times: float, peer: str) -> Goal:
    """At least so many times faster than the peer."""
    return Goal(
        f"at least {times:g} times faster than {peer}",
        lambda numbers: numbers.peer is not None and numbers.ours * times <= numbers.peer,
    )


def within_floor(times: float) -> Goal:
    """At most so many times the floor."""
    return Goal(
        f"at most {times:g} times the floor",
        lambda numbers: numbers.floor is not None and numbers.ours <= numbers.floor * times,
    )


def at_most(limit: float, words: str) -> Goal:
    """At most a number, which the words name."""
    return Goal(f"at most {words}", lambda numbers: numbers.ours <= limit)


def write(path: Path, results: Iterable[Result], *, keep: bool = False) -> None:
    """Write results to the file; whoever reads it sees the old ones or the new ones.

    keep
        Keep what the file has of other names, for measures that were not made this time.
    """
    rows = {row["name"]: row for row in _read(path)} if keep else {}
    rows |= {row.name: asdict(row) for row in results}
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".new")
    scratch.write_text(json.dumps([_rounded(row) for row in rows.values()], indent=2) + "\n")
    scratch.replace(path)


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    rows: list[dict[str, Any]] = json.loads(path.read_text())
    return rows


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {
        key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()
    }


# In docs/performance.md, where the numbers of a run stand.
PAGE_START = "<!-- from here on written by: make bench BENCH=--docs -->"
PAGE_END = "<!-- until here -->"

COLUMNS = ("ours", "peer", "floor", "of peer", "of floor")


def table(results: Sequence[Result]) -> str:
    """The results for people, a line each."""
    width = max(len(f"{row.name} ({row.unit})") for row in results)
    lines = [" " * width + "".join(f"{title:>10}" for title in COLUMNS) + "  goal"]
    lines.extend(_line(row, width) for row in results)
    return "\n".join(lines)


def _line(row: Result, width: int) -> str:
    numbers = (row.ours, row.peer, row.floor, row.ratio_to_peer, row.ratio_to_floor)
    cells = "".join(f"{_figure(number):>10}" for number in numbers)
    verdict = "" if row.met is None else f"  {'met' if row.met else 'MISSED'}: {row.goal}"
    return f"{f'{row.name} ({row.unit})':<{width}}{cells}{verdict}"


def _figure(number: float | None) -> str:
    """Three digits that count, or all before the point."""
    if number is None:
        return "-"
    return f"{number:,.0f}" if number >= 100 else f"{number:#.3g}".rstrip(".")


def markdown(results: Iterable[Result]) -> str:
    """The results as a table for a page."""
    head = ("", "unit", "ours", "peer", "ours / peer", "floor", "ours / floor", "goal")
    rows = [
        (
            row.name,
            row.unit,
            *map(_figure, (row.ours, row.peer, row.ratio_to_peer, row.floor, row.ratio_to_floor)),
            "" if row.met is None else f"{row.goal}: {'met' if row.met else 'missed'}",
        )
        for row in results
    ]
    rule = ("---", "---", *["--:"] * 5, "---")
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


def into_page(page: str, text: str) -> str:
    """A page with its text between PAGE_START and PAGE_END replaced."""
    before, start, rest = page.partition(PAGE_START)
    _, end, after = rest.partition(PAGE_END)
    if not (start and end):
        raise ValueError(f"the page has no {PAGE_START} ... {PAGE_END}")
    return f"{before}{start}\n{text}\n{end}{after}"


def missed(results: Iterable[Result]) -> list[Result]:
    """The results whose goal is not met."""
    return [row for row in results if row.met is False]
