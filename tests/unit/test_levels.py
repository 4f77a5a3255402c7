"""The runner of the levels: what it counts, what it calls a failure, and that it leaves nothing."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.lab.waiting import until
from tools import levels
from tools.counts import Count, read_failures, read_report
from tools.groups import ENDINGS, Ended, ProcessGroups

REPORT = """\
<testsuites><testsuite>
  <testcase name="passes"/>
  <testcase name="fails"><failure/></testcase>
  <testcase name="is skipped"><skipped/></testcase>
  <testcase name="cannot be set up"><error/></testcase>
  <testcase name="fails, and so does its teardown"><failure/><error/></testcase>
</testsuite></testsuites>
"""


def test_a_report_is_counted_by_how_its_tests_ended(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(REPORT)
    assert read_report(report) == Count(passed=1, failed=3, skipped=1)


def test_what_failed_is_told_in_a_line_each(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuite><testcase classname="tests.unit" name="fails">'
        '<failure message="\nE assert 1 == 2&#10;and more"/></testcase>'
        '<testcase name="cannot be set up"><error/></testcase><testcase name="passes"/></testsuite>'
    )
    assert read_failures(report) == ["tests.unit.fails: E assert 1 == 2", "cannot be set up"]


@pytest.mark.parametrize("text", [None, "", "<testsuites><testcase/>"])
def test_a_report_that_is_missing_or_cut_off_counts_no_test(
    tmp_path: Path, text: str | None
) -> None:
    report = tmp_path / "report.xml"
    if text is not None:
        report.write_text(text)
    assert read_report(report) == Count()


@pytest.mark.parametrize(
    ("status", "count", "judged"),
    [
        pytest.param(0, Count(passed=2), (Count(passed=2), ""), id="all passed"),
        pytest.param(1, Count(1, 1), (Count(1, 1), ""), id="a failure is counted once"),
        pytest.param(
            5, Count(), (Count(failed=1), "ran no test (status 5)"), id="no test is a failure"
        ),
        pytest.param(
            0,
            Count(skipped=3),
            (Count(failed=1, skipped=3), "ran no test (status 0)"),
            id="to skip all is to run none",
        ),
        pytest.param(
            3, Count(passed=2), (Count(2, 1), "ended with status 3"), id="a crash is a failure"
        ),
        pytest.param(
            None,
            Count(passed=2),
            (Count(2, 1), "did not end within 7 minutes"),
            id="to be too slow is a failure",
        ),
    ],
)
def test_a_level_is_judged_by_its_count_and_its_status(
    status: int | None, count: Count, judged: tuple[Count, str]
) -> None:
    assert levels.judge(status, count, 7) == judged


def test_the_sum_is_alone_on_the_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    results = [
        levels.Result("unit", Count(passed=10), 1.25),
        levels.Result("kernel", Count(3, 1, 2), 61.0, "ended with status 3", ["test_a: why"]),
    ]
    assert levels.show(results) == 1
    assert capsys.readouterr().out == (
        "\n"
        "level                     ran  passed  failed  skipped  seconds\n"
        "unit                       10      10       0        0      1.2\n"
        "kernel                      4       3       1        2     61.0  ended with status 3\n"
        "\n"
        "failed:\n"
        "  kernel: test_a: why\n"
        "\n"
        "13 passed, 1 failed, 2 skipped\n"
    )


FAILED = '<testcase classname="{place}" name="a"><failure message="why"/></testcase>'


def failed_report(tmp_path: Path, *places: str) -> Path:
    report = tmp_path / "report.xml"
    cases = "".join(FAILED.format(place=place) for place in places)
    report.write_text(f'<testsuite>{cases}<testcase classname="x" name="b"/></testsuite>')
    return report


@pytest.mark.parametrize(
    ("level", "places", "note", "files"),
    [
        pytest.param(
            "kernel-tables",
            ["tests.kernel.test_boot", "tests.kernel.test_boot.TestClass"],
            "",
            ["tests/kernel/test_boot.py"],
            id="a file",
        ),
        pytest.param("unit", ["tests.unit.test_levels"], "", [], id="not in the lab"),
        pytest.param("kernel-tables", ["tests.kernel.test_boot"], "a crash", [], id="a crash"),
        pytest.param("kernel-tables", ["", "tests.kernel.test_boot"], "", [], id="no file"),
        pytest.param("kernel-tables", [], "", [], id="none"),
        pytest.param(
            "kernel-tables",
            [f"tests.unit.test_{name}" for name in ("desk", "levels", "docs")],
            "",
            [],
            id="in many files",
        ),
    ],
)
def test_a_few_failures_in_the_lab_are_run_once_more(
    tmp_path: Path, level: str, places: list[str], note: str, files: list[str]
) -> None:
    report = failed_report(tmp_path, *places)
    result = levels.Result(level, read_report(report), note=note)
    assert levels.to_repeat(levels.LEVELS[level], result, report) == files


def test_what_passes_the_second_time_is_named_as_unsteady(
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = levels.Result("kernel-tables", Count(5, 1, 2), 9.0, failures=["test_a: why"])
    steady = levels.Result("kernel-tables", Count(passed=3))
    assert levels.show([levels.repeated(first, steady)]) == 0
    told = capsys.readouterr().out
    assert "unsteady, to be mended: failed, and passed when run once more:\n" in told
    assert told.endswith("  kernel-tables: test_a: why\n\n6 passed, 0 failed, 2 skipped\n")


def test_what_fails_twice_has_failed() -> None:
    first = levels.Result("kernel-tables", Count(5, 1), failures=["test_a: why"])
    again = levels.Result("kernel-tables", Count(2, 1), failures=["test_a: again"])
    result = levels.repeated(first, again)
    assert (result.count, result.unsteady) == (Count(5, 1), ())
    assert list(result.failures) == ["test_a: why", "test_a: again"]


def test_a_level_without_failures_is_a_success(capsys: pytest.CaptureFixture[str]) -> None:
    assert levels.show([levels.Result("unit", Count(passed=1, skipped=1))]) == 0


# Ignores Ctrl-C, as what a shell starts in the background does, and has a child that does too.
STUBBORN = "trap '' INT; sleep 1000 & echo $! >child; echo $$ >parent; wait"


def lives(folder: Path, name: str) -> bool:
    return Path("/proc", (folder / name).read_text().strip()).exists()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less between the ways to end a process."""
    endings = [(number, 0.2) for number, _ in ENDINGS]
    monkeypatch.setattr("tools.groups.ENDINGS", endings)


@pytest.mark.usefixtures("quick")
def test_a_command_that_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    status = ProcessGroups().run(
        "slow", ["sh", "-c", STUBBORN], cwd=tmp_path, output=tmp_path / "log", seconds=1
    )
    assert (status, lives(tmp_path, "parent")) == (None, False)
    until(lambda: not lives(tmp_path, "child"), "the child to be gone", seconds=5)


@pytest.mark.usefixtures("quick")
def test_what_runs_ends_with_its_children_when_all_is_ended(tmp_path: Path) -> None:
    groups = ProcessGroups()
    outcome = []

    def run() -> None:
        with pytest.raises(Ended):
            groups.run(
                "slow", ["sh", "-c", STUBBORN], cwd=tmp_path, output=tmp_path / "log", seconds=60
            )
        outcome.append("ended")

    runner = threading.Thread(target=run)
    runner.start()
    until(lambda: (tmp_path / "parent").exists(), "the command to start", seconds=10)
    assert groups.names() == ["slow"]
    groups.end()
    runner.join(10)
    assert (outcome, lives(tmp_path, "parent")) == (["ended"], False)
    until(lambda: not lives(tmp_path, "child"), "the child to be gone", seconds=5)


def test_nothing_starts_any_more_when_all_has_been_ended(tmp_path: Path) -> None:
    groups = ProcessGroups()
    groups.end()
    with pytest.raises(Ended):
        groups.run("late", ["touch", "it"], cwd=tmp_path, output=tmp_path / "log", seconds=60)
    assert not (tmp_path / "it").exists()


def test_a_child_that_a_command_leaves_behind_is_ended(tmp_path: Path) -> None:
    leaving = "sleep 1000 & echo $! >child"
    status = ProcessGroups().run(
        "leaving", ["sh", "-c", leaving], cwd=tmp_path, output=tmp_path / "log", seconds=60
    )
    assert status == 0
    until(lambda: not lives(tmp_path, "child"), "the child to be gone", seconds=5)


def test_the_lab_and_the_rest_share_the_processors() -> None:
    lab, rest = levels.halves({3, 5, 6})
    assert (lab, rest) == ({5, 6}, {3})
    assert levels.halves({2}) == ({2}, {2})
