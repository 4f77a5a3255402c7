"""Linux namespaces from Python: do something in the network of another process."""

from __future__ import annotations

import ctypes
import os
import select
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

CLONE_NEWNET = 0x40000000  # linux/sched.h

Result = TypeVar("Result")

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(status: int, call: str) -> None:
    if status:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")


def unshare_network() -> None:
    """Move the calling thread into a new, empty network namespace."""
    _checked(_libc.unshare(CLONE_NEWNET), "unshare")


def enter_network(path: Path | str) -> None:
    """Move the calling thread into the network namespace ``path`` (``/proc/<pid>/ns/net``)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _checked(_libc.setns(descriptor, CLONE_NEWNET), "setns")
    finally:
        os.close(descriptor)


def in_network_of(process: int, function: Callable[[], Result]) -> Result:
    """Call ``function`` in the network of ``process``; sockets that it makes stay there."""
    results: list[Result] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            enter_network(f"/proc/{process}/ns/net")
            results.append(function())
        except BaseException as error:  # noqa: BLE001 - handed to the caller below
            errors.append(error)

    # A thread of its own, so that the caller's never leaves its namespace.
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


@contextmanager
def own_network() -> Iterator[None]:
    """Move the calling thread, and the programs that it starts, into a new network for a while.

    Only the loopback interface is there, up.
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        unshare_network()
        if Path("/proc/thread-self/ns/net").readlink() == Path("/proc/1/ns/net").readlink():
            raise RuntimeError("this is still the first network namespace")
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        yield
    finally:
        enter_network(f"/proc/self/fd/{home}")
        os.close(home)


@contextmanager
def named_network(name: str) -> Iterator[None]:
    """Make a network namespace of that name (``ip netns``) for a while, with its loopback up."""
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        yield
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def kill(unshare: subprocess.Popen[Any]) -> None:
    """End the PID namespace that ``unshare --fork --kill-child`` made, and wait until it is empty.

    Its first process dies with unshare, and only when all others in it are gone.
    """
    if unshare.poll() is not None:
        return
    children = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text().split()
    handles = [os.pidfd_open(int(child)) for child in children]
    unshare.kill()
    unshare.wait()
    for handle in handles:
        select.select([handle], [], [])
        os.close(handle)
