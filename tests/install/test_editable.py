"""An editable install: Salt finds the tree where it is, through pip's entry point."""

from __future__ import annotations

from pathlib import Path

import saltext.lvs

from tests.install.conftest import KINDS, VALID, Salt, files_of, fresh_virtualenv


def test_salt_finds_all_of_an_editable_install(
    salt_name: str, own_tree: Path, tmp_path: Path
) -> None:
    virtualenv = fresh_virtualenv(tmp_path / "virtualenv", salt_name, "--editable", str(own_tree))
    nothing = tmp_path / "nothing"
    salt = Salt(virtualenv, tmp_path, files=nothing, pillar=own_tree / "pillar.example")
    assert f"saltext-lvs: {saltext.lvs.__version__}" in salt.run("salt", "--versions-report")
    assert salt.loaded() == files_of({kind: own_tree / f"_{kind}" for kind in KINDS})
    assert salt.call("lvs.validate") == VALID
