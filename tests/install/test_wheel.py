"""The wheel: what is in it, and that Salt finds all of it in a fresh virtualenv."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
import saltext.lvs

from tests.install.conftest import KINDS, VALID, Salt, build, contents, files_of, fresh_virtualenv

DISTRIBUTION = f"saltext_lvs-{saltext.lvs.__version__}"
# Where each folder of the tree is in the wheel.
SHARED = f"{DISTRIBUTION}.data/data/share/saltext-lvs"
PLACES = {
    "_utils/saltext/lvs": "saltext/lvs",
    **{f"_{kind}": f"saltext/lvs/{kind}" for kind in KINDS},
    **{folder: f"{SHARED}/salt/{folder}" for folder in ("lvs", "_reactors", "orch")},
    "pillar.example": f"{SHARED}/pillar.example",
}


def without_record(wheel: Path) -> dict[str, bytes]:
    """What is in a wheel, but for the list of it."""
    return {name: data for name, data in contents(wheel).items() if not name.endswith("RECORD")}


def test_the_wheel_holds_all_of_the_tree_that_is_served_and_nothing_else(
    wheel: Path, tree: Path
) -> None:
    expected = {
        f"{place}/{path.relative_to(tree / folder)}": path.read_bytes()
        for folder, place in PLACES.items()
        for path in (tree / folder).rglob("*")
        if path.is_file()
    }
    about = f"{DISTRIBUTION}.dist-info/"
    held = {n: data for n, data in contents(wheel).items() if not n.startswith(about)}
    assert sorted(held) == sorted(expected)
    assert held == expected


def test_the_sdist_holds_the_tree_and_builds_the_same_wheel(
    wheel: Path, tree: Path, tmp_path: Path
) -> None:
    sdist = build(tree, "sdist", tmp_path / "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked")
    unpacked = tmp_path / "unpacked" / DISTRIBUTION
    tracked = {path.relative_to(tree) for path in tree.rglob("*") if path.is_file()}
    left_out = {path for path in tracked if not (unpacked / path).is_file()}
    assert {path.parts[0] for path in left_out} <= {".ci", ".gitignore", "build"}
    rebuilt = build(unpacked, "wheel", tmp_path / "rebuilt")
    assert without_record(rebuilt) == without_record(wheel)


@pytest.fixture
def installed(salt_name: str, wheel: Path, tmp_path: Path) -> Salt:
    virtualenv = fresh_virtualenv(tmp_path / "virtualenv", salt_name, str(wheel))
    shared = virtualenv / "share" / "saltext-lvs"
    return Salt(virtualenv, tmp_path, files=shared / "salt", pillar=shared / "pillar.example")


def test_salt_finds_all_of_the_wheel_and_serves_its_sls(installed: Salt) -> None:
    assert f"saltext-lvs: {saltext.lvs.__version__}" in installed.run("salt", "--versions-report")
    (packages,) = installed.virtualenv.glob("lib/python3.*/site-packages")
    library = packages / "saltext" / "lvs"
    assert installed.loaded() == files_of({kind: library / kind for kind in KINDS})
    assert installed.call("lvs.validate") == VALID
    assert "lvs" in installed.call("cp.list_states")
    assert installed.call("state.sls_exists", "lvs.director") is True
