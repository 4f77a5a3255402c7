"""The outer side: give a command a kernel with IPVS, and take everything away after it."""

from __future__ import annotations

import fcntl
import os
import shlex
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from tests.lab import cache, kernel, namespaces, packages
from tests.lab.errors import LabError

CHECKOUT = Path(__file__).resolve().parents[2]
SCRIPTS = Path(__file__).parent / "scripts"
# What a command keeps of its caller's environment; the rest is this machine's private matter.
HANDED_OVER = ("PATH", "HOME", "USER", "LANG", "TERM", "CI", "VIRTUAL_ENV", "PYTEST_ADDOPTS")


def run(command: Sequence[str], *, cpu: int | None, memory: str, terminal: bool) -> int:
    """Run ``command`` in the lab and return its exit status.

    ``cpu`` is the processor that user-mode Linux is pinned to (None: one that no other lab uses);
    ``memory`` is its size, such as ``4G``; with ``terminal`` the command gets this terminal.
    """
    if os.geteuid() != 0:
        raise LabError("the lab makes namespaces and mounts, so it must run as root (try sudo)")
    prepare()
    if mode() == "native":
        start = [*_private("--net", "--uts", "--ipc"), "sh", f"{SCRIPTS}/native.sh", str(SCRIPTS)]
        # They may be on a mount of their own, which the layer of memory does not show.
        modules = Path("/lib/modules").resolve()
        settings = _settings(terminal, str(modules) if modules.is_dir() else "")
        return _supervise(start, settings, _job(command), terminal)
    root = kernel.fetch()
    settings = _settings(terminal, f"{root}/usr/lib/uml/modules")
    with _processor(cpu) as number:
        # Unpinned, the kernel's system calls swing between 4 and 55 microseconds.
        start = ["taskset", "--cpu-list", str(number), *_private()]
        start += ["sh", f"{SCRIPTS}/uml.sh", str(root), str(SCRIPTS), memory, f"lab-{os.getpid()}"]
        return _supervise(start, settings, _job(command), terminal)


def prepare() -> None:
    """Download what is not in the cache yet."""
    packages.fetch()
    if mode() == "uml":
        kernel.fetch()


def is_prepared() -> bool:
    """Whether ``prepare`` has nothing to download."""
    return packages.is_fetched() and (mode() == "native" or kernel.is_fetched())


def mode() -> str:
    """``native`` where the running kernel has IPVS and dummy interfaces, else ``uml``."""
    forced = os.environ.get("SALTEXT_LVS_LAB")
    if forced in ("native", "uml"):
        return forced
    if forced:
        raise LabError(f"SALTEXT_LVS_LAB is {forced!r}; it may be native or uml")
    return "native" if _has_ipvs() and _has_dummy() else "uml"


def _has_ipvs() -> bool:
    subprocess.run(["modprobe", "ip_vs"], capture_output=True, check=False)
    return Path("/proc/net/ip_vs").exists()


def _has_dummy() -> bool:
    attempt = ["unshare", "--net", "ip", "link", "add", "type", "dummy"]
    return subprocess.run(attempt, capture_output=True, check=False).returncode == 0


def _private(*namespaces: str) -> list[str]:
    """The command that starts the rest in namespaces of its own, which die with us.

    The kernel kills unshare when we die, and unshare's child when unshare does; that child is the
    first process of a PID namespace, which takes all others in it along.
    """
    return [
        *("setpriv", "--pdeathsig", "KILL"),
        *("unshare", "--fork", "--kill-child", "--pid", "--mount-proc", *namespaces),
    ]


def _settings(terminal: bool, modules: str) -> str:
    values = {
        "LAYERS": ":".join(_layers()),
        "SHARE": str(CHECKOUT),
        "TERMINAL": "yes" if terminal else "no",
        "MODULES": modules,
    }
    return "\n".join(f"{key}={shlex.quote(value)}" for key, value in values.items())


def _layers() -> list[str]:
    """The mount points that hold what the lab needs of this machine; "/" comes first.

    User-mode Linux sees all of the machine as one file system.
    """
    if mode() == "uml":
        return ["/"]
    found = {"/"}
    for path in (CHECKOUT, cache.folder(), Path(sys.prefix)):
        found.add(next(str(place) for place in (path, *path.parents) if place.is_mount()))
    return sorted(found)


def _job(command: Sequence[str]) -> str:
    """The shell script that runs ``command`` where, and with what, its caller stands."""
    variables = {name: os.environ[name] for name in HANDED_OVER if name in os.environ}
    variables |= {k: v for k, v in os.environ.items() if k.startswith("SALTEXT_LVS_")}
    variables |= {
        "SALTEXT_LVS_CACHE": str(cache.folder()),
        "SALTEXT_LVS_IN_LAB": "1",
        "SALTEXT_LVS_LAB_LAYERS": ":".join(_layers()),
        "PYTHONUNBUFFERED": "1",
    }
    columns, lines = os.get_terminal_size() if sys.stdout.isatty() else (100, 40)
    return "\n".join(
        [
            f"[ ! -t 0 ] || stty sane columns {columns} rows {lines}",
            f"cd {shlex.quote(os.getcwd())} || exit 70",
            "env -i "
            + " ".join(shlex.quote(f"{name}={value}") for name, value in variables.items())
            + " "
            + shlex.join(command),
        ]
    )


@contextmanager
def _processor(wanted: int | None) -> Iterator[int]:
    """A processor for one lab: ``wanted``, or else the last one that no other lab holds."""
    allowed = sorted(os.sched_getaffinity(0), reverse=True)
    if wanted is not None:
        yield wanted
        return
    for number in allowed:
        with (cache.folder() / f"processor-{number}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield number
            return
    yield allowed[0]


def _supervise(start: list[str], settings: str, job: str, terminal: bool) -> int:
    """Run the lab's first process; whatever ends us ends it, and we wait until it is gone."""
    environment = {**os.environ, "LAB_SETTINGS": settings, "LAB_JOB": job}
    with _terminal_kept(terminal), _stopped_by_signals():
        process = subprocess.Popen(
            start,
            env=environment,
            stdin=None if terminal else subprocess.DEVNULL,
            # Ctrl-C is for us alone: we stop the lab, its processes need not see the key.
            start_new_session=not terminal,
        )
        try:
            return process.wait()
        finally:
            namespaces.kill(process)


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Turn SIGTERM, SIGHUP and Ctrl-C into an exit with 128 + the signal's number."""

    def stop(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _terminal_kept(terminal: bool) -> Iterator[None]:
    """Give the terminal back as it was: user-mode Linux makes it raw."""
    if not terminal:
        yield
        return
    if not sys.stdin.isatty():
        raise LabError("this needs a terminal on standard input")
    settings = termios.tcgetattr(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, settings)
