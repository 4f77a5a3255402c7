"""Find a Python for a virtualenv: the one we run on where it suits, else another on the machine."""

from __future__ import annotations

import glob
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

Version = tuple[int, int]


@dataclass(frozen=True)
class Interpreter:
    """A Python on this machine and its version."""

    path: str
    version: Version

    def __str__(self) -> str:
        return f"Python {self.version[0]}.{self.version[1]}"


def own() -> Interpreter:
    """Return the Python outside any virtualenv that runs this very code."""
    return Interpreter(os.path.realpath(sys._base_executable), sys.version_info[:2])  # type: ignore[attr-defined]


def find(oldest: Version, newest: Version) -> Interpreter | None:
    """Return our own Python if it is in the range, else the newest in it that really starts."""
    if oldest <= own().version <= newest:
        return own()
    for minor in range(newest[1], oldest[1] - 1, -1):
        for path in _candidates(f"python{newest[0]}.{minor}"):
            if _version(path) == (newest[0], minor):
                return Interpreter(os.path.realpath(path), (newest[0], minor))
    return None


def _candidates(name: str) -> list[str]:
    """Return where a Python of this name may be: on the PATH, and where pyenv keeps its own."""
    folders = os.get_exec_path()
    pyenv = os.environ.get("PYENV_ROOT") or str(Path.home() / ".pyenv")
    paths = [os.path.join(folder, name) for folder in folders]
    paths += sorted(glob.glob(f"{glob.escape(pyenv)}/versions/*/bin/{name}"), reverse=True)
    # A shim is on the PATH for every version, also for those that it then refuses to start.
    return [path for path in paths if os.access(path, os.X_OK) and "/shims/" not in path]


def _version(path: str) -> Version | None:
    code = "import sys; print(*sys.version_info[:2])"
    done = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        return None
    major, minor = done.stdout.split()
    return int(major), int(minor)
