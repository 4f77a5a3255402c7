"""What has systemd-networkd leave a director's VIPs alone, to the letter: a folder of ``vips_kept``
each. ``case.yaml`` says beside which file; ours is there with its whole path.

``python -m tests.golden.test_vips_kept`` writes them anew, to be looked at in the diff.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from saltext.lvs import networkd

HERE = Path(__file__).parent / "vips_kept"
FOLDERS = sorted(path for path in HERE.iterdir() if path.is_dir())


def rendered(folder: Path) -> tuple[str, str]:
    """The path and the text of what a case becomes now."""
    case = yaml.safe_load((folder / "case.yaml").read_text(encoding="utf-8"))
    file = networkd.file_of(**case)
    return file.path.lstrip("/"), file.text


def golden(folder: Path) -> list[tuple[str, str]]:
    return [
        (str(path.relative_to(folder)), path.read_text(encoding="utf-8"))
        for path in folder.rglob("*")
        if path.is_file() and path.name != "case.yaml"
    ]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name.replace("_", " "))
def test_the_file_is_the_golden_one(folder: Path) -> None:
    assert [rendered(folder)] == golden(folder)


if __name__ == "__main__":
    for one in FOLDERS:
        name, text = rendered(one)
        (one / name).parent.mkdir(parents=True, exist_ok=True)
        (one / name).write_text(text, encoding="utf-8")
