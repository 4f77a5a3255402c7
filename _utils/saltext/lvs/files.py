"""Files that change at once or not at all, and that nobody else can read at any moment."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

from saltext.lvs.errors import CommandFailed

PRIVATE = 0o600


@dataclass(frozen=True, slots=True)
class Access:
    """Who may do what with a file."""

    mode: int
    user: int
    group: int

    @classmethod
    def private(cls) -> Access:
        """For this process's own user alone: root, where a minion runs as it should."""
        return cls(PRIVATE, os.geteuid(), os.getegid())

    def changes(self, new: Access) -> dict[str, dict[str, str]]:
        """What changes from this to another, as Salt reports it."""
        pairs = {
            "mode": (f"{self.mode:04o}", f"{new.mode:04o}"),
            "user": (str(self.user), str(new.user)),
            "group": (str(self.group), str(new.group)),
        }
        return {name: {"old": a, "new": b} for name, (a, b) in pairs.items() if a != b}


def read(path: str) -> tuple[str, Access] | None:
    """Return a file's text and access; ``None`` if there is none.

    Bytes that are not UTF-8 are read as question marks.
    """
    try:
        with open(path, encoding="utf-8", errors="replace", newline="") as file:
            status = os.fstat(file.fileno())
            return file.read(), Access(stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CommandFailed(f"cannot read {path}: {error.strerror}") from error


def set_access(path: str, access: Access) -> None:
    """Give a file to a user and take it from all others."""
    try:
        os.chmod(path, access.mode)
        os.chown(path, access.user, access.group)
    except OSError as error:
        raise CommandFailed(f"cannot change who may read {path}: {error.strerror}") from error


@contextlib.contextmanager
def beside(path: str, text: str) -> Iterator[str]:
    """Give the name of a new private file with that text; gone at the end, unless moved.

    It is in the folder of *path*, so that it can take the place of *path* at once, and that what it
    includes by a relative path is found from it too.
    """
    folder, name = os.path.split(path)
    try:
        # Readable by its owner alone from its first moment: mkstemp makes it with mode 0600.
        descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
    except OSError as error:
        raise CommandFailed(f"cannot write to {folder}: {error.strerror}") from error
    try:
        _fill(descriptor, text, folder)
        yield temporary
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _fill(descriptor: int, text: str, folder: str) -> None:
    try:
        with open(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise CommandFailed(f"cannot write to {folder}: {error.strerror}") from error


def move(temporary: str, path: str) -> None:
    """Put a file in another's place, in the same folder: a power cut leaves one of the two."""
    try:
        os.replace(temporary, path)
        folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise CommandFailed(f"cannot replace {path}: {error.strerror}") from error


def write(path: str, text: str, access: Access | None = None) -> None:
    """Write a file anew, whole or not at all: private, unless *access* says otherwise."""
    with beside(path, text) as temporary:
        if access is not None:
            set_access(temporary, access)
        move(temporary, path)


def make_folder(folder: str, mode: int) -> None:
    """Make a folder and those above it; one that is there is left as it is."""
    try:
        os.makedirs(folder, mode=mode, exist_ok=True)
    except OSError as error:
        raise CommandFailed(f"cannot make {folder}: {error.strerror}") from error
