"""A pipe into which keepalived writes lines, read so that none is lost and none can do harm.

It is open for writing too, as it is at keepalived's end: so it never ends, and what is in it stays
while the other side is restarted. Whoever else reads from it takes lines away: so of ours only one
may have it open.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import threading
from collections.abc import Callable

from saltext.lvs.errors import WrongState

# The usual 64 KiB are 1,400 lines, and what does not fit keepalived throws away.
BYTES = 1 << 20
# keepalived writes a line in one piece, which a pipe takes up to this length.
LONGEST_LINE_BYTES = 4096
_READ_BYTES = 1 << 16


class Pipe:
    """A pipe that is open; its descriptor can be polled.

    path
        Where it is.

    Raises :class:`~saltext.lvs.errors.WrongState` where there is none, or something else, or
    another of our processes has it.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._rest = b""
        self._skipping = False
        flags = os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self.descriptor = _opened(path, flags)
        except OSError as error:
            raise WrongState(f"{path}: {error.strerror}") from error
        found = os.fstat(self.descriptor)
        self._identity = found.st_dev, found.st_ino
        if not stat.S_ISFIFO(found.st_mode) or found.st_uid != os.geteuid():
            self.close()
            raise WrongState(f"{path} is no pipe of root's own")
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            raise WrongState(f"{path} is read by another watcher of this machine") from error
        with contextlib.suppress(OSError):  # a limit of the system; it is only smaller then
            fcntl.fcntl(self.descriptor, fcntl.F_SETPIPE_SZ, BYTES)

    def lines(self) -> list[bytes]:
        """All whole lines that are in it, without their ends; what no line can be is passed over.

        No more than the pipe holds is read at once: who writes faster waits for the next time.
        """
        found: list[bytes] = []
        left = BYTES
        while left > 0:
            try:
                data = os.read(self.descriptor, _READ_BYTES)
            except BlockingIOError:
                break
            left -= len(data)
            found += self._split(data)
        return found

    def _split(self, data: bytes) -> list[bytes]:
        *whole, self._rest = (self._rest + data).split(b"\n")
        if whole and self._skipping:
            del whole[0]
            self._skipping = False
        if len(self._rest) > LONGEST_LINE_BYTES:
            self._rest, self._skipping = b"", True
        return [line for line in whole if len(line) <= LONGEST_LINE_BYTES]

    def is_current(self) -> bool:
        """Whether it is still the one at its path: keepalived writes into that."""
        try:
            found = os.lstat(self.path)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._identity

    def close(self) -> None:
        """Give it back; it may be closed more than once."""
        if self.descriptor >= 0:
            _close(self.descriptor)
        self.descriptor = -1


# The descriptors that this process has open. A job, which is a fork, must neither read from them
# nor keep the lock of a minion that has ended.
_ours: set[int] = set()
_opening = threading.Lock()


def _opened(path: str, flags: int) -> int:
    with _opening:
        descriptor = os.open(path, flags)
        _ours.add(descriptor)
    return descriptor


def _close(descriptor: int) -> None:
    with _opening:
        if descriptor in _ours:
            _ours.remove(descriptor)
            # A fork that has not come so far yet still has it open, and the lock with it.
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)


def _begin_child() -> None:
    while _ours:
        os.close(_ours.pop())
    _opening.release()


os.register_at_fork(
    before=_opening.acquire, after_in_parent=_opening.release, after_in_child=_begin_child
)


def readers(path: str, is_ours: Callable[[int], bool]) -> tuple[int, ...]:
    """The processes besides ours that have a pipe open for reading.

    is_ours
        Whether a process, by its id, may have it.
    """
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return tuple(pid for pid in pids if has_open(pid, path) and not is_ours(pid))


def has_open(pid: int, path: str) -> bool:
    """Whether a process has a pipe open, and can read from it."""
    path = os.path.realpath(path)
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/{name}") == path and _reads(pid, name):
                    return True
    return False


def _reads(pid: int, name: str) -> bool:
    with open(f"/proc/{pid}/fdinfo/{name}", encoding="ascii") as file:
        flags = next((line.split()[1] for line in file if line.startswith("flags:")), "0")
    return int(flags, 8) & os.O_ACCMODE != os.O_WRONLY
