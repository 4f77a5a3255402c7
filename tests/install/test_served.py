"""The tree as ``file_roots``: minions and masters sync it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.install.conftest import VALID, Salt, files_of, names_of
from tools.parts import ENVIRONMENTS


@pytest.fixture
def salt(salt_name: str, tree: Path, tmp_path: Path) -> Salt:
    virtualenv = ENVIRONMENTS[salt_name].python.parents[1]
    return Salt(virtualenv, tmp_path, files=tree, pillar=tree / "pillar.example")


def expected(tree: Path, *kinds: str) -> dict[str, list[str]]:
    """What a sync says that it has brought."""
    brought = {kind: [f"{kind}.{name}" for name in ("__init__", *names_of(kind))] for kind in kinds}
    library = (tree / "_utils").rglob("*.py")
    names = [path.relative_to(tree / "_utils").with_suffix("").parts for path in library]
    return {**brought, "utils": [".".join(("utils", *name)) for name in names]}


def brought(answer: dict[str, list[str]]) -> dict[str, list[str]]:
    return {kind: sorted(names) for kind, names in answer.items() if names}


def test_a_minion_syncs_the_tree_and_loads_all_of_it(salt: Salt, tree: Path) -> None:
    kinds = ("modules", "states", "beacons")
    answer = brought(salt.call("saltutil.sync_all"))
    assert answer == brought(expected(tree, *kinds, "engines"))
    synced = salt.extension_modules / "minion" / "extmods"
    files = files_of({kind: synced / kind for kind in kinds})
    # The master's are looked for where the master has its own.
    assert salt.loaded() == {**files, "runners": {}, "engines": {}}
    assert salt.call("lvs.validate") == VALID
    assert "CLI Example" in salt.call("sys.doc", "ipvs.list")["ipvs.list"]


def test_a_master_syncs_the_tree_and_runs_its_runner(salt: Salt, tree: Path) -> None:
    answer = json.loads(salt.run("salt-run", "--out=json", "saltutil.sync_all"))
    assert brought(answer) == brought(expected(tree, "modules", "states", "runners", "engines"))
    judged = json.loads(salt.run("salt-run", "--out=json", "lvs.validate", "lb1"))
    assert judged == {"lb1": VALID}
