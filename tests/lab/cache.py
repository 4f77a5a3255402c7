"""The cache folder: what the lab downloads once, outside the checkout."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def folder() -> Path:
    """The cache folder, made if it is not there (``SALTEXT_LVS_CACHE`` or the user's cache)."""
    chosen = os.environ.get("SALTEXT_LVS_CACHE")
    if not chosen:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        chosen = str(Path(base) / "saltext-lvs")
    path = Path(chosen).resolve()
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the cache's lock ``name``, waiting for another process that has it."""
    with (folder() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build_once(name: str, fill: Callable[[Path], None], key: str = "") -> Path:
    """The folder ``name`` in the cache; ``fill`` makes its content when it is not there yet.

    ``key`` stands for what the content depends on: for another key it is made anew, and the old one
    removed. It is filled under another name and renamed when complete, so that whoever sees it sees
    it whole. What an interrupted run left half-made is cleared by the next one.
    """
    path = place(name, key)
    if path.is_dir():
        return path
    with locked(name):
        for leftover in folder().glob(f"{name}.part-*"):
            shutil.rmtree(leftover)
        if not path.is_dir():
            part = Path(tempfile.mkdtemp(prefix=f"{name}.part-", dir=folder()))
            part.chmod(0o755)
            try:
                fill(part)
                part.rename(path)
            finally:
                shutil.rmtree(part, ignore_errors=True)
        for outdated in (folder() / name, *folder().glob(f"{name}-*")):
            if outdated != path:
                shutil.rmtree(outdated, ignore_errors=True)
    return path


def place(name: str, key: str = "") -> Path:
    """Where ``build_once`` puts it."""
    return folder() / (f"{name}-{key}" if key else name)
