"""What a lab holds on the machine while it runs, and what is left of it after: for its own tests.

Other labs may be running beside it: they are not counted.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.lab import cache
from tests.lab.machine import CHECKOUT

KINDS = ("net", "mnt", "pid", "uts", "ipc")
# Two hosts with something of everything: kernel modules, interfaces, files, processes.
HOSTS_UP = """\
import sys, time
from tests.lab import Lab
with Lab({"lb1": ["10.10.10.11/24"], "rs1": ["10.10.10.41/24"]}) as lab:
    lab["lb1"].run(["modprobe", "ip_vs"], check=True)
    lab["rs1"].run(["ip", "link", "add", "dummy0", "type", "dummy"], check=True)
    lab["rs1"].write("/root/file", "on disk")
    sleeper = lab["rs1"].popen(["sleep", "600"])
    print("up", flush=True)
    time.sleep(float(sys.argv[1]))
sys.exit(7)
"""


@dataclass(frozen=True)
class Process:
    """A process, which its number alone does not tell: numbers are used again."""

    number: int
    started: str
    parent: int
    state: str
    command: str

    @classmethod
    def all(cls) -> Iterator[Process]:
        """All processes of the machine."""
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                name, _, rest = (folder / "stat").read_text().rpartition(")")
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (FileNotFoundError, ProcessLookupError):
                continue
            fields = rest.split()
            command = command.strip() or name.partition("(")[2]
            yield cls(int(folder.name), fields[19], int(fields[1]), fields[0], command)

    @property
    def is_alive(self) -> bool:
        """Whether it still does something: one that nobody asked for its status yet does not."""
        return self.state not in "ZX"

    def namespaces(self) -> frozenset[str]:
        """The namespaces that it is in, as ``net:[4026531833]``."""
        try:
            return frozenset(os.readlink(f"/proc/{self.number}/ns/{kind}") for kind in KINDS)
        except OSError:  # it has ended, or is one that nobody may look at
            return frozenset()


@dataclass(frozen=True)
class Holdings:
    """A running lab's processes, and the namespaces that are its own."""

    processes: tuple[Process, ...]
    namespaces: frozenset[str]
    mounts_before: frozenset[str]

    @classmethod
    def of(cls, outer: int, mounts_before: frozenset[str]) -> Holdings:
        """What the lab whose outer process is number ``outer`` holds now."""
        children: dict[int, list[Process]] = {}
        for one in Process.all():
            children.setdefault(one.parent, []).append(one)
        found, numbers = [], [outer]
        while numbers:
            below = children.get(numbers.pop(), [])
            found += below
            numbers += [one.number for one in below]
        ours = frozenset(os.readlink(f"/proc/self/ns/{kind}") for kind in KINDS)
        namespaces = frozenset().union(*(one.namespaces() for one in found)) - ours
        return cls(tuple(found), namespaces, mounts_before)

    def running(self, words: str) -> list[Process]:
        """Those of its processes whose command has ``words`` in it."""
        return [one for one in self.processes if words in one.command]

    def left(self) -> list[str]:
        """What of it is still there, in words."""
        known = {(one.number, one.started) for one in self.processes}
        processes = [
            f"process {one.number}: {one.command}"
            for one in Process.all()
            if (one.number, one.started) in known or one.namespaces() & self.namespaces
            if one.is_alive
        ]
        # A namespace that is mounted somewhere (ip netns does that) lives without processes.
        signs = (*self.namespaces, str(cache.place("kernel")), "/run/lab")
        new = [line for line in mounts() - self.mounts_before if any(s in line for s in signs)]
        return processes + [f"mount: {line}" for line in sorted(new)]


def mounts() -> frozenset[str]:
    """What is mounted, as we see it."""
    return frozenset(Path("/proc/self/mountinfo").read_text().splitlines())


class OuterProcess:
    """``python -m tests.lab run`` with two hosts up, for the time of a ``with`` block."""

    def __init__(self, scratch: Path, seconds: float = 600, mode: str = "") -> None:
        """``scratch`` is for its temporary files; it ends with status 7 after ``seconds``."""
        command = [sys.executable, "-c", HOSTS_UP, str(seconds)]
        self._mounts_before = mounts()
        chosen = {"SALTEXT_LVS_LAB": mode} if mode else {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.lab", "run", "--mem=1G", "--", *command],
            cwd=CHECKOUT,
            env={**os.environ, "TMPDIR": str(scratch), **chosen},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A process group, which is what Ctrl-C goes to.
            start_new_session=True,
        )
        self.number = self._process.pid

    def __enter__(self) -> OuterProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def holdings(self) -> Holdings:
        """What it holds when the hosts are up."""
        assert self._process.stdout is not None
        lines = []
        for line in self._process.stdout:
            lines.append(line)
            if line == "up\n":
                return Holdings.of(self.number, self._mounts_before)
        raise AssertionError(f"no hosts came up:\n{''.join(lines)}")

    def send(self, number: signal.Signals) -> None:
        """Send a signal to it, and to nothing that it has started."""
        os.killpg(self.number, number)

    def wait(self) -> int:
        """Wait until it has ended and all that could still print; returns its status."""
        self._process.communicate(timeout=60)
        return self._process.returncode
