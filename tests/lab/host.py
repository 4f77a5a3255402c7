"""A host: a whole machine in small, with a disk, a network card and processes of its own."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tests.lab import capture, namespaces
from tests.lab.errors import LabError

SCRIPT = Path(__file__).parent / "scripts" / "host.sh"
DISKS = Path("/run/lab/disks")
PROCESSES = Path("/run/lab/processes")
CONSOLES = Path("/run/lab/consoles")
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
    "DEBIAN_FRONTEND": "noninteractive",
}
# What a boot starts of what is enabled in the run level, in this order: the rest of this machine's
# services has no part in the lab.
SERVICES = (
    "lab-network",
    "saltext-lvs-ipvs",
    "keepalived",
    "lab-web",
    "lab-mail",
    "salt-master",
    "salt-minion",
)
NAMESPACES = ("--mount", "--uts", "--ipc", "--net", "--pid")

Result = TypeVar("Result")


class Host:
    """One machine of the lab; ``Lab`` makes it and puts its card into the network."""

    def __init__(self, name: str, addresses: Sequence[str], layers: str) -> None:
        self.name = name
        self.addresses = tuple(addresses)
        self.address = self.addresses[0].partition("/")[0]
        self._layers = layers
        self._unshare: subprocess.Popen[str] | None = None
        self._process = 0

    def __repr__(self) -> str:
        return f"Host({self.name!r})"

    # Power

    @property
    def process(self) -> int:
        """The number of the host's first process, as the lab sees it."""
        if not self._process:
            raise LabError(f"{self.name} is switched off")
        return self._process

    @property
    def is_on(self) -> bool:
        """Whether the host is switched on."""
        return bool(self._process)

    def switch_on(self) -> None:
        """Start the first process; it waits for its network card, then for ``let_boot``."""
        if self._unshare:
            raise LabError(f"{self.name} is on already")
        addresses, services = " ".join(self.addresses), " ".join(SERVICES)
        CONSOLES.mkdir(exist_ok=True)
        console = (CONSOLES / self.name).open("w")
        self._unshare = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig", "KILL", "unshare", "--fork", "--kill-child"),
                *(*NAMESPACES, "sh", str(SCRIPT)),
                *(self.name, str(DISKS / self.name), addresses, self._layers, services),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=console,
            text=True,
            env=ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
        console.close()
        self._process = int(self._hear())
        PROCESSES.mkdir(exist_ok=True)
        (PROCESSES / self.name).write_text(f"{self._process}\n")

    def let_boot(self) -> None:
        """Tell the host that its network card is in."""
        assert self._unshare is not None
        assert self._unshare.stdin is not None
        self._unshare.stdin.write("\n")
        self._unshare.stdin.close()

    def wait_until_up(self) -> None:
        """Wait until the host has started everything that it starts at boot."""
        if self._hear() != "up":
            raise LabError(f"{self.name} did not boot")

    def _hear(self) -> str:
        """The next line that the first process says."""
        assert self._unshare is not None
        assert self._unshare.stdout is not None
        line = self._unshare.stdout.readline().strip()
        if not line:
            console = (CONSOLES / self.name).read_text()
            raise LabError(f"{self.name}: its first process ended:\n{console}")
        return line

    def switch_off(self) -> None:
        """Kill the first process, and so all others, as when the power fails."""
        if not self._unshare:
            return
        namespaces.kill(self._unshare)
        for pipe in (self._unshare.stdin, self._unshare.stdout):
            if pipe:
                pipe.close()
        self._unshare = None
        self._process = 0
        (PROCESSES / self.name).unlink(missing_ok=True)

    def wipe(self) -> None:
        """Throw the disk away."""
        shutil.rmtree(DISKS / self.name, ignore_errors=True)

    # Commands and files

    def run(
        self,
        command: Sequence[str | Path],
        *,
        check: bool = False,
        input: str | None = None,  # noqa: A002 - as in subprocess.run
        timeout: float = 120,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run ``command`` in the host and return it with its output, as text.

        With ``check`` a failure raises ``LabError`` with all that the command said. After
        ``timeout`` seconds the command is killed.
        """
        source: dict[str, Any] = (
            {"stdin": subprocess.DEVNULL} if input is None else {"input": input}
        )
        done = subprocess.run(
            self._inside(command),
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**ENVIRONMENT, **(environment or {})},
            check=False,
            **source,
        )
        if check and done.returncode:
            said = f"{done.stdout}{done.stderr}".strip()
            words = " ".join(map(str, command))
            raise LabError(f"{self.name}: {words} ended with {done.returncode}:\n{said}")
        return done

    def popen(self, command: Sequence[str | Path], **options: Any) -> subprocess.Popen[Any]:
        """Start ``command`` in the host; ``options`` are those of ``subprocess.Popen``."""
        options.setdefault("env", ENVIRONMENT)
        return subprocess.Popen(self._inside(command), **options)

    def _inside(self, command: Sequence[str | Path]) -> list[str]:
        return [
            *("nsenter", f"--target={self.process}", *NAMESPACES, "--root", "--wd"),
            # So that killing nsenter, whose child the command is, kills the command.
            *("setpriv", "--pdeathsig", "KILL", *map(str, command)),
        ]

    def read(self, path: str | Path) -> str:
        """The text of the file ``path``."""
        return self.run(["cat", path], check=True).stdout

    def write(self, path: str | Path, text: str, mode: int = 0o644) -> None:
        """Make the file ``path``, and its folders, with ``text`` in it."""
        script = 'mkdir -p "${1%/*}" && : >>"$1" && chmod "$2" "$1" && cat >"$1"'
        self.run(["sh", "-c", script, "sh", path, f"{mode:o}"], check=True, input=text)

    def unpack(self, archive: bytes, folder: str | Path) -> None:
        """Unpack a tar archive into ``folder``, which is made if it is not there."""
        script = 'mkdir -p "$1" && tar -x -C "$1"'
        command = self._inside(["sh", "-c", script, "sh", folder])
        subprocess.run(command, input=archive, check=True, env=ENVIRONMENT)

    def exists(self, path: str | Path) -> bool:
        """Whether there is a file or folder ``path``."""
        return self.run(["test", "-e", path]).returncode == 0

    # Network

    def capture(self, interface: str = "eth0") -> capture.Capture:
        """A context manager: the list of packets that ``interface`` sends and receives."""
        return capture.Capture(self.process, interface)

    def in_network(self, function: Callable[[], Result]) -> Result:
        """Call ``function`` here, in Python, but in the host's network (to make a socket in it)."""
        return namespaces.in_network_of(self.process, function)

    @contextmanager
    def running(self, command: Sequence[str | Path], **options: Any) -> Iterator[Any]:
        """``popen`` for the time of a ``with`` block; the command is killed at its end."""
        process = self.popen(command, **options)
        try:
            yield process
        finally:
            process.kill()
            process.wait()
