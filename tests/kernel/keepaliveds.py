"""A real keepalived in the network of a test, with files of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from saltext.lvs import loading, rtnetlink, running

SECONDS = 20.0


def until(holds: Callable[[], object], what: str, seconds: float = SECONDS) -> None:
    """Wait until something holds, with a bound."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"{what} did not come within {seconds} s"
        time.sleep(0.02)


def held() -> set[str]:
    """The addresses of this network."""
    return {str(item.address.ip) for link in rtnetlink.read_all() for item in link.addresses}


class Keepalived:
    """A keepalived, its configuration file and its log.

    own_places
        Whether its numbers are in the folder, and not where keepalived has them by itself.
    """

    def __init__(self, folder: Path, *, own_places: bool = True) -> None:
        self.folder = folder
        self.conf = folder / "keepalived.conf"
        self.own_places = own_places
        self.pid_file = str(folder / "keepalived.pid") if own_places else running.PID_FILE
        self.log = folder / "log"
        self.dumps = folder / "dumps"
        self.dumps.mkdir(exist_ok=True)
        self.start()

    def start(self) -> None:
        """Start it, and wait for nothing."""
        files = {"-p": "keepalived", "-r": "vrrp", "-c": "checkers", "-b": "bfd"}
        options = [
            word
            for key, name in files.items()
            for word in (key, f"{self.folder}/{name}.pid")
            if self.own_places
        ]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                ["keepalived", "-n", "-l", "-D", "-f", self.conf, *options],
                stdout=log,
                stderr=log,
                env={**os.environ, "TMPDIR": str(self.dumps)},
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait(self, *vips: str) -> None:
        """Wait until its processes are there, and it holds some VIPs."""
        until(lambda: running.process(self.pid_file, "", str(self.conf)), "keepalived")
        until(lambda: loading.children(self.pid), "its processes")
        until(lambda: set(vips) <= held(), "the VIPs")

    def stop(self) -> None:
        """End it, and its children with it."""
        self.process.terminate()
        self.process.wait(timeout=SECONDS)

    def restart(self) -> None:
        self.stop()
        self.start()

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """It does nothing for a while."""
        everyone = [self.pid, *loading.children(self.pid)]
        for pid in everyone:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in everyone:
                os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def started(folder: Path, text: str, *vips: str, own_places: bool = True) -> Iterator[Keepalived]:
    """A keepalived that runs with this configuration, and holds these VIPs."""
    conf = folder / "keepalived.conf"
    conf.write_text(text)
    conf.chmod(0o600)
    one = Keepalived(folder, own_places=own_places)
    try:
        one.wait(*vips)
        yield one
    finally:
        one.stop()
