"""Make virtualenvs with uv, several times faster than pip, or with pip where there is no uv."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.lab import cache
from tools import debian
from tools.errors import PrepareError
from tools.interpreters import Interpreter

UV = (Path(__file__).resolve().parents[1] / "requirements" / "uv.txt").read_text().strip()

# pip's settings, which uv does not read, and what uv calls them. Extra indexes are left to pip: uv
# takes a version from one of them only, also where that one lacks the wheel for our Python.
PIP_TO_UV = {"index-url": "UV_DEFAULT_INDEX", "cert": "SSL_CERT_FILE"}

# Salt asks for timelib and does without (it reads dates in words). To build it takes a compiler and
# a minute; everything else comes as wheels or is plain Python.
LEFT_OUT = ("timelib",)


def make(folder: Path, interpreter: Interpreter, *packages: str) -> None:
    """Make a virtualenv anew with exactly the given packages, none that they depend on.

    ``packages`` are arguments that pip and uv share: names, wheels, ``--requirement FILE``.
    """
    options = ["install", "--quiet", "--no-deps", *packages]
    python = str(folder / "bin" / "python")
    uv = find_uv()
    if uv is not None:
        try:
            _recreate(
                folder, [uv, "venv", "--quiet", "--python", interpreter.path], uv_environment()
            )
            run([uv, "pip", *options, "--python", python], uv_environment())
            return
        except PrepareError as error:
            print(f"set-up: uv cannot do it, so pip does, slowly: {error}", flush=True)
    _venv(folder, interpreter)
    run([python, "-m", "pip", *options], dict(os.environ))


def compile_ahead(folder: Path) -> None:
    """Compile all that a virtualenv holds."""
    (packages,) = folder.glob("lib/python3.*/site-packages")
    command = [str(folder / "bin" / "python"), "-m", "compileall", "-q", "-q", "-j", "0"]
    # Some packages carry files for other Pythons, which do not compile.
    subprocess.run([*command, str(packages)], check=False)


def find_uv() -> str | None:
    """Return uv in the cache folder, or None where it could not be installed."""
    return shutil.which(cache.folder() / "uv" / "bin" / "uv")


def ensure_uv(interpreter: Interpreter) -> None:
    """Install uv, in a virtualenv of its own, unless the cache folder has the one that we pin."""
    folder = cache.folder() / "uv"
    stamp = folder / "complete"
    if stamp.exists() and stamp.read_text() == UV:
        return
    _venv(folder, interpreter)
    pip = [str(folder / "bin" / "pip"), "install", "--quiet", "--only-binary", ":all:", UV]
    if subprocess.run(pip, capture_output=True, check=False).returncode:
        print(f"set-up: pip finds no {UV} for this machine and does its work, slowly", flush=True)
    stamp.write_text(UV)


def resolve(source: Path, target: Path) -> None:
    """Pin what a requirements file takes on any Python that we support."""
    uv = find_uv()
    if uv is None:
        raise PrepareError("only uv can resolve for several Pythons, and there is none")
    options = ["--quiet", "--universal", "--python-version", "3.10", "--upgrade"]
    plain = ["--no-annotate", "--no-header", *(f"--no-emit-package={name}" for name in LEFT_OUT)]
    files = [str(source), "--output-file", str(target)]
    run([uv, "pip", "compile", *options, *plain, *files], uv_environment())


def prune() -> None:
    """Remove the unpacked sources and other things that uv will not use again."""
    uv = find_uv()
    if uv is not None:
        run([uv, "cache", "prune", "--quiet"], uv_environment())


def uv_environment() -> dict[str, str]:
    """Return our environment with pip's settings in uv's words."""
    settings = {PIP_TO_UV[name]: value for name, value in _pip_settings() if name in PIP_TO_UV}
    private = {"UV_PYTHON_DOWNLOADS": "never", "UV_CACHE_DIR": str(cache.folder() / "uv-cache")}
    return {**os.environ, **settings, **private}


def _pip_settings() -> list[tuple[str, str]]:
    """Return pip's settings, a stronger source after a weaker one."""
    pip = [str(cache.folder() / "uv" / "bin" / "pip"), "config", "list"]
    rows = subprocess.run(pip, capture_output=True, text=True, check=True).stdout.splitlines()
    strength = ("global.", "install.", ":env:.")
    return [
        (row.removeprefix(source).partition("=")[0], row.partition("=")[2].strip("'"))
        for source in strength
        for row in rows
        if row.startswith(source)
    ]


def _venv(folder: Path, interpreter: Interpreter) -> None:
    """Make a virtualenv with pip alone; Debian keeps what that takes in a package of its own."""
    test = [interpreter.path, "-c", "import ensurepip, venv"]
    if subprocess.run(test, capture_output=True, check=False).returncode:
        debian.install([f"python{interpreter.version[0]}.{interpreter.version[1]}-venv"])
    _recreate(folder, [interpreter.path, "-m", "venv"], dict(os.environ))


def _recreate(folder: Path, command: list[str], environment: dict[str, str]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    run([*command, str(folder)], environment)


def run(command: list[str], environment: dict[str, str]) -> None:
    """Run a command that must not fail; what it says is shown if it does."""
    done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise PrepareError(f"{' '.join(command)} failed:\n{done.stdout}")
