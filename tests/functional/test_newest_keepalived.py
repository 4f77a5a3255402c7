"""The newest keepalived that can be had takes the same files as the one that Debian 12 has.

It is run with -t alone, in a network and with folders of its own.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.golden.cases import Case, cases
from tests.lab import newest
from tests.lab.errors import LabError

PREPARE = """
set -e
mount --bind "$1/etc/keepalived" /etc/keepalived
mount -t tmpfs tmpfs /var/lib
ip link add eth0 type veth peer name ens3
ip link set eth0 up
ip link set ens3 up
ip address add 10.10.10.11/24 dev eth0
# The state makes these before keepalived looks at the file: 2.3 wants them to be there.
sed -n "s/^    file \\(.var.lib.*\\)/\\1/p" "$2" | while read -r path; do
    mkdir -p "${path%/*}"
    echo 0 >"$path"
done
shift
"""


@pytest.fixture(scope="module")
def root() -> Path:
    if os.geteuid() or platform.machine() != "x86_64":
        pytest.skip("needs root, and x86-64: it runs Debian's program in a network of its own")
    try:
        return newest.fetch()
    except LabError as error:
        pytest.skip(f"cannot be had here: {error}")


def test_it_is_newer_than_debian_12s(root: Path) -> None:
    said = subprocess.run(
        ["unshare", "-m", "sh", "-c", script(root, "-v"), "sh", str(root), "/dev/null"],
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"Keepalived v(\d+)\.(\d+)", said.stdout + said.stderr)
    assert found
    assert (int(found[1]), int(found[2])) >= (2, 3)


def script(root: Path, *arguments: str) -> str:
    command = [*newest.command(root), *arguments]
    return f'mount --bind "$1/etc/keepalived" /etc/keepalived; exec {shlex.join(command)}'


@pytest.mark.parametrize("case", list(cases()), ids=str)
def test_it_has_nothing_against_a_golden_file(case: Case, root: Path) -> None:
    command = [*newest.command(root), "-t", "-f", str(case.expected)]
    done = subprocess.run(
        [
            *("unshare", "--net", "--mount", "sh", "-c", f"{PREPARE}\nexec {shlex.join(command)}"),
            *("sh", str(root), str(case.expected)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
