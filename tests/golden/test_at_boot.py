"""What brings VIPs back at a boot, to the letter: a folder of ``at_boot`` each.

``case.yaml`` says for whom, which interface and which VIPs, and whether the interface is there
without us; ``access`` lists the files with their
modes, a symbolic link with where it leads; the files are there with their whole paths.

``python -m tests.golden.test_at_boot`` writes them anew, to be looked at in the diff.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from saltext.lvs import links, model, persistence
from saltext.lvs.model import VipPersistence

HERE = Path(__file__).parent / "at_boot"
FOLDERS = sorted(path for path in HERE.iterdir() if path.is_dir())


def rendered(folder: Path) -> dict[str, str]:
    """What a case becomes now: texts by path, and the list of ``access``."""
    case = yaml.safe_load((folder / "case.yaml").read_text(encoding="utf-8"))
    kind = model.as_vip_persistence(case["persist"])
    vips = links.as_vips(case["addresses"])
    files = persistence.files_of(kind, case["interface"], vips, case.get("existing", False))
    access = [
        f"{file.path} -> {file.target}" if file.target else f"{file.path} {file.mode:04o}"
        for file in files
    ]
    texts = {file.path.lstrip("/"): file.text for file in files if not file.target}
    return {"access": "\n".join([*access, ""]), **texts}


def golden(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.is_file() and path.name != "case.yaml"
    }


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name.replace("_", " "))
def test_the_files_are_the_golden_ones(folder: Path) -> None:
    assert rendered(folder) == golden(folder)


@pytest.mark.parametrize(
    ("existing", "renderers"),
    [(False, persistence.RENDERERS), (True, persistence.FOR_EXISTING)],
    ids=["a dummy interface", "an interface that is there"],
)
def test_every_kind_is_a_case(existing: bool, renderers: Mapping[VipPersistence, object]) -> None:
    cases = [yaml.safe_load((folder / "case.yaml").read_text()) for folder in FOLDERS]
    kinds = {case["persist"] for case in cases if case.get("existing", False) is existing}
    assert kinds == {kind.value for kind in renderers}


if __name__ == "__main__":
    for one in FOLDERS:
        for old in one.iterdir():
            if old.is_dir():
                shutil.rmtree(old)
        for path, text in rendered(one).items():
            (one / path).parent.mkdir(parents=True, exist_ok=True)
            (one / path).write_text(text, encoding="utf-8")
