"""A copy of the tree, the wheel built from it, and the Salts to try them on."""

from __future__ import annotations

import json
import shutil
import subprocess
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tools import installer
from tools.parts import CHECKOUT, ENVIRONMENTS

SALTS = ("salt-3008", "salt-3007", "salt-3006")
KINDS = ("modules", "states", "beacons", "runners", "engines")
# What lvs.validate says of the director lb1 in pillar.example.
VALID = {
    "valid": True,
    "cluster": "prod",
    "roles": ["director"],
    "problems": [],
    "warnings": [],
}

CONFIG = """\
id: lb1
root_dir: {root}
file_client: local
file_roots:
  base: [{files}]
pillar_roots:
  base: [{pillar}]
  production: [{pillar}/production]
  staging: [{pillar}/staging]
enable_gpu_grains: False
enable_fqdns_grains: False
"""


class Salt:
    """A virtualenv with Salt, and a configuration for the minion ``lb1`` and its master."""

    def __init__(self, virtualenv: Path, root: Path, *, files: Path, pillar: Path) -> None:
        self.virtualenv = virtualenv
        self.extension_modules = root / "var" / "cache" / "salt"
        self._config = root / "config"
        self._config.mkdir(parents=True)
        # A master makes it when it starts; runners only use it.
        (root / "var" / "cache" / "salt" / "master" / "proc").mkdir(parents=True)
        for daemon in ("minion", "master"):
            text = CONFIG.format(root=root, files=files, pillar=pillar)
            (self._config / daemon).write_text(text, encoding="utf-8")

    def run(self, program: str, *arguments: str, cwd: Path | None = None) -> str:
        """Run one of Salt's programs and return what it prints."""
        command = [self.virtualenv / "bin" / program, "-c", self._config, *arguments]
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{done.stdout}{done.stderr}"
        return done.stdout

    def call(self, *arguments: str, cwd: Path | None = None) -> Any:
        """Return what ``salt-call --local`` answers."""
        return json.loads(self.run("salt-call", "--local", "--out=json", *arguments, cwd=cwd))[
            "local"
        ]

    def loaded(self, *module_dirs: Path) -> dict[str, dict[str, str]]:
        """Return the files that Salt loads, of those that we have, by kind and name."""
        script = Path(__file__).with_name("loaded.py")
        names = json.dumps({kind: sorted(names_of(kind)) for kind in KINDS})
        command = [self.virtualenv / "bin" / "python", script, self._config, names, *module_dirs]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found: dict[str, dict[str, str]] = json.loads(done.stdout)
        return found


def names_of(kind: str) -> set[str]:
    """Return the names of our Salt modules of one kind."""
    return {path.stem for path in (CHECKOUT / f"_{kind}").glob("[!_]*.py")}


def files_of(folders: Mapping[str, Path]) -> dict[str, dict[str, str]]:
    """Return where our Salt modules are, given the folder of each kind."""
    return {
        kind: {name: str(folder / f"{name}.py") for name in names_of(kind)}
        for kind, folder in folders.items()
    }


@pytest.fixture(scope="session", params=SALTS)
def salt_name(request: pytest.FixtureRequest) -> str:
    """The name of a virtualenv with Salt, one after the other."""
    name: str = request.param
    reason = ENVIRONMENTS[name].unavailable()
    if reason:
        pytest.skip(reason)
    return name


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What git tracks or would track: a checkout as others get it."""
    folder = tmp_path_factory.mktemp("tree")
    listing = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    names = subprocess.run(listing, cwd=CHECKOUT, check=True, capture_output=True).stdout.split(
        b"\0"
    )
    for name in (bytes(name).decode() for name in names if name):
        if (CHECKOUT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((CHECKOUT / name).read_bytes())
    return folder


@pytest.fixture
def own_tree(tree: Path, tmp_path: Path) -> Path:
    """A copy for one test that leaves things in it: compiled files, an installation's notes."""
    return Path(shutil.copytree(tree, tmp_path / "tree"))


def build(source: Path, kind: str, target: Path) -> Path:
    """Build a ``wheel`` or an ``sdist`` and return its file."""
    python = str(ENVIRONMENTS["dev"].python)
    options = ["-m", "build", "--no-isolation", f"--{kind}", "--outdir", str(target)]
    subprocess.run([python, *options, str(source)], check=True, capture_output=True)
    (file,) = target.iterdir()
    return file


@pytest.fixture(scope="session")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tree, "wheel", tmp_path_factory.mktemp("wheel"))


def contents(wheel: Path) -> dict[str, bytes]:
    """Return what is in a wheel, by name."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def fresh_virtualenv(folder: Path, salt_name: str, *packages: str) -> Path:
    """Make a virtualenv with Salt, pyroute2 and some packages more."""
    salt = ENVIRONMENTS[salt_name]
    installer.make(
        folder, salt.interpreter, "--requirement", str(salt.requirements), "pyroute2", *packages
    )
    return folder
