"""The two pipes into which keepalived writes its changes, made before it starts.

On a disk: what keepalived finds there it uses and leaves, through reloads, restarts and boots; what
it has to make itself it makes anew each time, away from whoever reads the old one. Its third pipe,
``notify_fifo``, is not used: there a reload of 2.2.7 loses one of its two writers.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from saltext.lvs import files
from saltext.lvs.errors import CommandFailed, WrongState

FOLDER = "/var/lib/saltext-lvs"
# As keepalived.conf names them: vrrp_notify_fifo, lvs_notify_fifo.
VRRP = f"{FOLDER}/vrrp.fifo"
LVS = f"{FOLDER}/lvs.fifo"
PATHS = (VRRP, LVS)

FOLDER_MODE = 0o700


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one pipe.

    replaces
        An empty file is in its place and goes.

    access
        Who may use it, where that changes alone: ``None`` for a pipe that is made.
    """

    path: str
    replaces: bool = False
    access: tuple[files.Access, files.Access] | None = None

    def __str__(self) -> str:
        if self.access:
            return f"give {self.path} to root alone"
        return f"make the pipe {self.path}" + (" in place of an empty file" * self.replaces)

    def as_data(self) -> dict[str, object]:
        """As Salt reports changes."""
        if self.access is None:
            return {"old": "an empty file" if self.replaces else None, "new": "a pipe"}
        old, new = self.access
        return dict(old.changes(new))


def plan(paths: Iterable[str] = PATHS) -> tuple[Change, ...]:
    """What :func:`make` would do now.

    Raises :class:`~saltext.lvs.errors.WrongState` for something else that is in the way: nothing of
    it is thrown away.
    """
    return tuple(change for path in paths for change in _change(path))


def _change(path: str) -> Iterator[Change]:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        yield Change(path)
        return
    except OSError as error:
        raise CommandFailed(f"cannot look at {path}: {error.strerror}") from error
    if stat.S_ISREG(found.st_mode) and found.st_size == 0:
        yield Change(path, replaces=True)
    elif not stat.S_ISFIFO(found.st_mode):
        raise WrongState(f"{path} is {_kind(found.st_mode)}, and should be a pipe: take it away")
    else:
        held = files.Access(stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)
        if held.changes(files.Access.private()):
            yield Change(path, access=(held, files.Access.private()))


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFREG: "a file with something in it",
        stat.S_IFDIR: "a folder",
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "a device")


def make(paths: Iterable[str] = PATHS) -> tuple[Change, ...]:
    """Make the pipes, for root alone; return what was done.

    One that is there stays the same one: whoever reads it goes on.

    Raises what :func:`plan` does, and :class:`~saltext.lvs.errors.CommandFailed`.
    """
    planned = plan(paths)
    for change in planned:
        files.make_folder(os.path.dirname(change.path), FOLDER_MODE)
        if change.access:
            files.set_access(change.path, change.access[1])
        else:
            _make(change)
    return planned


def _make(change: Change) -> None:
    try:
        if change.replaces:
            os.unlink(change.path)
        os.mkfifo(change.path, files.PRIVATE)
    except OSError as error:
        raise CommandFailed(f"cannot make the pipe {change.path}: {error.strerror}") from error
    # The umask may have taken more away.
    files.set_access(change.path, files.Access.private())
