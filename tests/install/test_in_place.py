"""The tree where it is: ``salt-call --local -m .``, with nothing synced or installed."""

from __future__ import annotations

from pathlib import Path

from tests.install.conftest import KINDS, VALID, Salt, files_of
from tools.parts import ENVIRONMENTS


def test_salt_loads_all_of_the_tree_in_place(
    salt_name: str, own_tree: Path, tmp_path: Path
) -> None:
    virtualenv = ENVIRONMENTS[salt_name].python.parents[1]
    nothing = tmp_path / "nothing"
    salt = Salt(virtualenv, tmp_path, files=nothing, pillar=own_tree / "pillar.example")
    answer = salt.call("-m", ".", "lvs.validate", cwd=own_tree)
    assert answer == VALID
    assert salt.loaded(own_tree) == files_of({kind: own_tree / f"_{kind}" for kind in KINDS})
