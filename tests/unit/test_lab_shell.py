"""``make lab``'s shell, as a person at a terminal has it; without the cluster, for speed."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.machine import CHECKOUT
from tests.lab.remains import Holdings, mounts
from tests.lab.waiting import until

COMMAND = [sys.executable, "-m", "tests.lab", "shell", "--hosts-only", "--mem=1G"]
PROMPT = "lab# "


class Terminal:
    """A terminal with a program on it, and a person who types and reads."""

    def __init__(self, command: list[str], scratch: Path) -> None:
        self._ours, self.theirs = pty.openpty()
        self.process = subprocess.Popen(
            command,
            cwd=CHECKOUT,
            env={**os.environ, "TMPDIR": str(scratch), "TERM": "dumb"},
            stdin=self.theirs,
            stdout=self.theirs,
            stderr=self.theirs,
            start_new_session=True,
        )

    def read_until(self, words: str, seconds: float = 60) -> str:
        """What comes to the screen before ``words``."""
        read, end = "", time.monotonic() + seconds
        while not read.endswith(words):
            ready, _, _ = select.select([self._ours], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"{words!r} did not come in {seconds:g} s, but:\n{read}"
            read += os.read(self._ours, 1).decode()
            # How lines end, and what bash tells modern terminals about pasting.
            read = re.sub(r"\r|\x1b\[\?2004[hl]", "", read)
        return read.removesuffix(words)

    def type(self, line: str) -> str:
        """Type a command; returns what it printed."""
        os.write(self._ours, f"{line}\n".encode())
        return self.read_until(PROMPT).partition("\n")[2]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self.theirs)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    if os.geteuid() != 0:
        pytest.fail("the lab makes namespaces and mounts: these tests must run as root (try sudo)")
    terminal = Terminal(COMMAND, tmp_path)
    yield terminal
    terminal.close()


def test_a_person_commands_hosts_and_their_power_and_leaves_nothing(
    terminal: Terminal, tmp_path: Path
) -> None:
    settings, before = termios.tcgetattr(terminal.theirs), mounts()
    screen = terminal.read_until(PROMPT)
    assert re.match(r"Booting 6 hosts \.{3,} \d+ s\n", screen)
    assert "in one of: master, lb1, lb2, rs1, rs2, client" in screen
    holdings = Holdings.of(terminal.process.pid, before)

    assert terminal.type("on rs1 hostname") == "rs1\n"
    assert terminal.type("on lb1 sh -c 'echo kept >/root/disk'; echo $?") == "0\n"
    assert terminal.type("power lb1 off") == "lb1 is off\n"
    assert terminal.type("on lb1 hostname") == (
        "lb1 is not on; these are: client lb2 master rs1 rs2\n"
    )
    assert terminal.type("power lb1 on; on lb1 cat /root/disk") == "lb1 is on\nkept\n"
    assert terminal.type("power lb3 off") == (
        "power HOST off|on, where HOST is one of master, lb1, lb2, rs1, rs2, client\n"
    )
    assert terminal.type("ask 2") == ("2 requests from 16 addresses to 10.10.10.10: nobody 2\n")

    os.write(terminal._ours, b"exit\n")
    assert terminal.process.wait(timeout=30) == 0
    until(lambda: holdings.left() == [], f"nothing to be left of {holdings.left()}", seconds=10)
    assert termios.tcgetattr(terminal.theirs) == settings
    assert list(tmp_path.iterdir()) == []


def test_without_a_terminal_it_says_so() -> None:
    if os.geteuid() != 0:
        pytest.fail("the lab makes namespaces and mounts: these tests must run as root (try sudo)")
    done = subprocess.run(
        COMMAND, cwd=CHECKOUT, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    said = "lab: this needs a terminal on standard input\n"
    assert (done.returncode, done.stdout, done.stderr) == (70, "", said)
