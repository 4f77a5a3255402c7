"""Install the Debian packages that are missing, and start none of their daemons."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.errors import PrepareError

# Maintainer scripts ask this program before they start a daemon; 101 means: do not.
POLICY = Path("/usr/sbin/policy-rc.d")
REFUSAL = "#!/bin/sh\n# saltext-lvs: while packages are installed, no daemon starts\nexit 101\n"


def missing(packages: Iterable[str]) -> list[str]:
    """Return the packages that are not installed."""
    wanted = list(packages)
    if shutil.which("dpkg-query") is None:
        raise PrepareError(f"no dpkg here: install {' '.join(wanted)} or what they are called here")
    query = ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", *wanted]
    answer = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    rows = (line.split() for line in answer.splitlines())
    installed = {row[0] for row in rows if row[1:] == ["installed"]}
    return [package for package in wanted if package not in installed]


def install(packages: list[str]) -> None:
    """Install packages with apt; its lists are fetched only where it does not know a package."""
    if os.geteuid() != 0:
        raise PrepareError(f"needs root to install {' '.join(packages)} (try sudo)")
    apt = ["apt-get", "--quiet", "--quiet"]
    task = [*apt, "install", "--yes", "--no-install-recommends", *packages]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with _no_daemons():
        done = _run(task, environment)
        if done.returncode:
            _run([*apt, "update"], environment)
            done = _run(task, environment)
    if done.returncode:
        raise PrepareError(f"{' '.join(task)} failed:\n{done.stdout}")


def _run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


@contextmanager
def _no_daemons() -> Iterator[None]:
    """Let apt start no daemon; a machine that has a rule of its own keeps it."""
    if POLICY.exists() and POLICY.read_text() != REFUSAL:
        yield
        return
    POLICY.write_text(REFUSAL)
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()
