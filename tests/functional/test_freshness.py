"""New modules never run on an old library in memory: what ``saltext.lvs.refresh`` is for."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).parents[2]
KINDS = ("_modules", "_runners", "_engines")
DOORS = sorted(path for kind in KINDS for path in CHECKOUT.glob(f"{kind}/*.py"))
NEWER = {"door": "newer", "library": "newer"}
OLD = {"door": "old", "library": "old"}


def told(story: str, root: Path) -> Any:
    """Let ``freshness.py`` tell one of its stories in a process of its own."""
    command = [sys.executable, "-m", "tests.functional.freshness", story, str(root)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_after_a_sync_the_minion_and_its_jobs_run_the_newer_library(tmp_path: Path) -> None:
    assert told("replaced", tmp_path) == {
        "before": {"minion": OLD, "job": OLD},
        "after": {"first job": NEWER, "minion": NEWER, "second job": NEWER},
    }


def test_a_synced_module_runs_on_the_synced_library_where_another_is_installed(
    tmp_path: Path,
) -> None:
    synced = {"door": "synced", "library": "synced"}
    expected = {"in memory": "installed", "minion": synced, "job": synced}
    assert told("installed_too", tmp_path) == expected


def test_the_old_library_ends_what_it_runs_before_the_newer_one_is_loaded(tmp_path: Path) -> None:
    assert told("released", tmp_path) == {"minion": NEWER, "released": "old"}


def test_a_library_that_cannot_end_what_it_runs_asks_for_a_restart(tmp_path: Path) -> None:
    answer = told("unwilling", tmp_path)
    assert "the old one cannot end: a thread hangs; restart the minion" in answer["minion"]


def test_a_library_that_has_not_changed_is_kept_and_asking_takes_under_a_millisecond(
    tmp_path: Path,
) -> None:
    answer = told("unchanged", tmp_path)
    assert answer["same"]
    assert answer["median_seconds"] < 0.001


@pytest.mark.parametrize("door", DOORS, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_every_door_to_the_library_refreshes_it_before_it_imports_from_it(door: Path) -> None:
    tree = ast.parse(door.read_text(encoding="utf-8"))
    lines = {
        "imports from it": [
            node.lineno
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("saltext.lvs")
        ],
        "refreshes it": [
            node.lineno
            for node in tree.body
            if isinstance(node, ast.Expr) and ast.unparse(node) == "saltext.lvs.refresh(__file__)"
        ],
    }
    if lines["imports from it"]:
        assert lines["refreshes it"], "it never does"
        assert lines["refreshes it"][0] < min(lines["imports from it"])


OTHERS = sorted([*CHECKOUT.glob("_states/*.py"), *CHECKOUT.glob("_beacons/*.py")])


@pytest.mark.parametrize("module", OTHERS, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_states_and_beacons_import_nothing_of_the_library(module: Path) -> None:
    imported = {
        alias.name if isinstance(node, ast.Import) else node.module or ""
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert [name for name in imported if name.startswith("saltext")] == []
