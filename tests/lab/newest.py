"""The newest keepalived that Debian has: fetched once from sid, with its libraries, and only
unpacked.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.lab import cache, kernel
from tests.lab.errors import LabError

LIBRARIES = "usr/lib/x86_64-linux-gnu"


def fetch() -> Path:
    """The folder with the unpacked program, downloaded if the cache has none."""
    return cache.build_once("newest-keepalived", _fill)


def command(root: Path) -> list[str]:
    """How to run it, by its own loader and libraries."""
    libraries = root / LIBRARIES
    loader = libraries / "ld-linux-x86-64.so.2"
    return [str(loader), "--library-path", str(libraries), str(root / "usr/sbin/keepalived")]


def _fill(root: Path) -> None:
    mirror = kernel.debian_mirror()
    print(f"lab: fetching the newest keepalived from {mirror} (once)", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for deb in _download(mirror, Path(scratch)):
            subprocess.run(["dpkg", "-x", deb, root], check=True)


def _download(mirror: str, scratch: Path) -> Sequence[Path]:
    """Let apt find what it needs, as on a machine without anything, and check the signatures."""
    for folder in ("lists", "archives"):
        (scratch / folder / "partial").mkdir(parents=True)
    (scratch / "status").touch()
    sources = scratch / "sources.list"
    sources.write_text(f"deb [signed-by={kernel.KEYRING}] {mirror} sid main\n")
    options = {
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::Lists": scratch / "lists",
        "Dir::State::status": scratch / "status",
        "Dir::Cache::archives": scratch / "archives",
        "APT::Sandbox::User": "root",
    }
    apt = ["apt-get", "-q", "-y", *(f"-o{key}={value}" for key, value in options.items())]
    install = ["--no-install-recommends", "--download-only", "install", "keepalived"]
    for task in (["update"], install):
        done = subprocess.run([*apt, *task], capture_output=True, text=True, check=False)
        if done.returncode:
            raise LabError(f"apt-get {task[0]} for the newest keepalived failed:\n{done.stderr}")
    return sorted((scratch / "archives").glob("*.deb"))
