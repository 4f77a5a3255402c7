"""What set-up makes, part by part: each knows whether it is ready, and how it is made."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.lab import cache, machine
from tools import debian, installer, interpreters, requirements
from tools.errors import PrepareError
from tools.interpreters import Interpreter, Version

CHECKOUT = Path(__file__).resolve().parents[1]


class Part(Protocol):
    """One thing to set up."""

    @property
    def name(self) -> str: ...

    @property
    def needs_root(self) -> bool: ...

    def is_ready(self) -> bool:
        """Say whether there is nothing to do; quick, for every ``make`` asks."""

    def make(self) -> str:
        """Make it, and say in a few words what was made; raises PrepareError."""


@dataclass(frozen=True)
class Environment:
    """A virtualenv in the cache folder with what ``requirements/<name>.txt`` pins."""

    name: str
    # The Pythons that its Salt supports.
    oldest: Version
    newest: Version
    # Whether to compile it ahead: what a machine in the lab compiles is gone with the machine.
    compiled: bool = False
    needs_root = False

    @property
    def python(self) -> Path:
        return self._folder / "bin" / "python"

    @property
    def salt(self) -> str:
        """The version of Salt in it."""
        return requirements.pinned(f"{self.name}.txt", "salt")

    @property
    def requirements(self) -> Path:
        return requirements.FOLDER / f"{self.name}.txt"

    def unavailable(self) -> str:
        """Return why this machine cannot have it, or nothing; only after it was made."""
        return str(_read_stamp(self._folder).get("unavailable", ""))

    def is_ready(self) -> bool:
        stamp = _read_stamp(self._folder)
        return {**stamp, "unavailable": ""} == self._stamp(self.interpreter)

    def make(self) -> str:
        interpreter = self.interpreter
        stamp = self._stamp(interpreter)
        try:
            installer.make(self._folder, interpreter, "--requirement", str(self.requirements))
        except PrepareError as error:
            if self._supports(interpreter):
                raise
            stamp["unavailable"] = f"Salt {self.salt} does not install on {interpreter}"
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir()
            print(error, file=sys.stderr)
        if self.compiled and not stamp["unavailable"]:
            installer.compile_ahead(self._folder)
        _write_stamp(self._folder, stamp)
        note = "" if self._supports(interpreter) else ", which this Salt does not claim to support"
        return stamp["unavailable"] or f"Salt {self.salt} on {interpreter}{note}"

    @property
    def _folder(self) -> Path:
        return cache.folder() / self.name

    @property
    def interpreter(self) -> Interpreter:
        """The Python to make it with: one that its Salt supports, or else our own."""
        return interpreters.find(self.oldest, self.newest) or interpreters.own()

    def _supports(self, interpreter: Interpreter) -> bool:
        return self.oldest <= interpreter.version <= self.newest

    def _stamp(self, interpreter: Interpreter) -> dict[str, str]:
        content = self.requirements.read_bytes()
        return {
            "requirements": hashlib.sha256(content).hexdigest(),
            "python": interpreter.path,
            "unavailable": "",
        }


@dataclass(frozen=True)
class Wheels:
    """The folder that machines in the lab install pyroute2 from."""

    name: str = "wheels"
    needs_root = False

    def is_ready(self) -> bool:
        return _read_stamp(self._folder) == self._stamp()

    def make(self) -> str:
        shutil.rmtree(self._folder, ignore_errors=True)
        wanted = self._stamp()["wheel"]
        download = ["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        python = ENVIRONMENTS["dev"].python
        command = [str(python), *download, "--dest", str(self._folder), wanted]
        installer.run(command, dict(os.environ))
        _write_stamp(self._folder, self._stamp())
        return wanted

    @property
    def _folder(self) -> Path:
        return cache.folder() / self.name

    def _stamp(self) -> dict[str, str]:
        return {"wheel": f"pyroute2=={requirements.pinned('dev.txt', 'pyroute2')}"}


@dataclass(frozen=True)
class Packages:
    """Debian packages on this machine."""

    name: str = "packages"
    needs_root = True

    def is_ready(self) -> bool:
        return not self._missing()

    def make(self) -> str:
        missing = self._missing()
        debian.install(missing)
        return f"{' '.join(missing)} by apt"

    def _missing(self) -> list[str]:
        return debian.missing(requirements.lines("system.txt"))


@dataclass(frozen=True)
class LabFiles:
    """What the lab downloads for itself: it knows best."""

    name: str = "lab"
    needs_root = True

    def is_ready(self) -> bool:
        return machine.is_prepared()

    def make(self) -> str:
        command = [sys.executable, "-m", "tests.lab", "setup"]
        if subprocess.run(command, cwd=CHECKOUT, check=False).returncode:
            raise PrepareError("the lab could not be set up")
        return "the kernel's own IPVS" if machine.mode() == "native" else "a kernel with IPVS"


ENVIRONMENTS = {
    environment.name: environment
    for environment in (
        Environment("dev", (3, 10), (3, 14), compiled=True),
        Environment("salt-3008", (3, 10), (3, 14), compiled=True),
        Environment("salt-3007", (3, 10), (3, 12)),
        Environment("salt-3006", (3, 10), (3, 11)),
    )
}
# In the order in which they are made.
_IN_ORDER: tuple[Part, ...] = (Packages(), *ENVIRONMENTS.values(), Wheels(), LabFiles())
PARTS = {part.name: part for part in _IN_ORDER}


def _read_stamp(folder: Path) -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads((folder / ".complete.json").read_text())
    except (OSError, ValueError):
        return {}
    return found


def _write_stamp(folder: Path, stamp: dict[str, str]) -> None:
    """Written last, so that what an interrupted run left is not taken for ready."""
    (folder / ".complete.json").write_text(json.dumps(stamp))
