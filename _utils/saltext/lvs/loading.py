"""What the running keepalived has loaded, and how it is made to load a file.

keepalived's first process keeps the configuration that it has read last in a file without a name,
from which its children read: comments and indentation are gone, included files are in. So what runs
can be compared with what is on the disk, whoever has reloaded it, and however an apply has ended.

A reload has no answer. That it is over shows in two steps, both tried with keepalived 2.2.7 and 500
virtual servers: the first process writes the text anew, and tells its children at once; then each
child is asked for a dump of its state until it gives one, which it does only between two pieces of
work. (A dump that is asked for together with the reload comes before it, or never: a reload throws
away what a child has in hand.)
"""

from __future__ import annotations

import contextlib
import functools
import glob
import os
import re
import signal
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from saltext.lvs import locking, running
from saltext.lvs.errors import CommandFailed, NotAvailable

# keepalived.conf(5): what SIGUSR1 makes the children write. They hold passwords.
_DUMPS = ("keepalived.data", "keepalived_check.data", "keepalived_bfd.data")
_PARENTS_DUMP = "keepalived_parent.data"

# For keepalived to begin with a reload; it looks up names of mail servers then.
READ_SECONDS = 15.0
# To be through with it: 0.3 s for 5,000 real servers. But 2.2 compares each check with each other
# one: 37,000 of them took it two minutes.
TAKE_OVER_SECONDS = 15.0
SECONDS_PER_LINE = 0.001
_ASK_AGAIN_SECONDS = 0.2
# Between two looks: keepalived needs the processor, unless somebody watches the table meanwhile.
_PAUSE_SECONDS = 0.01
_WATCHING_PAUSE_SECONDS = 0.001


Meanwhile = Callable[[], object]

_QUOTED = re.compile(r'"[^"]*"')


# --------------------------------------------------------------------------------------------------
# What is loaded


def text_of(pid: int) -> str | None:
    """The configuration that a running keepalived has read last, passwords included.

    ``None`` where it is not to be seen: no such process, or none of a keepalived that works so.
    """
    path = running.consolidated(pid)
    if path is None:
        return None
    try:
        with open(path, encoding="utf-8", errors="replace", newline="") as file:
            return file.read()
    except OSError:
        return None


def is_loaded(pid: int, text: str) -> bool | None:
    """Whether a running keepalived has read this text last; ``None`` where that is not to be seen.

    What the text includes is not looked at.
    """
    loaded = text_of(pid)
    if loaded is None:
        return None
    wanted = normalized(text)
    held = normalized(loaded)
    if any(line.startswith("include") for line in wanted):
        lines = set(held)
        return all(line in lines for line in wanted if not line.startswith("include"))
    return wanted == held


# An apply asks for the same two texts again and again, and they may have two megabytes.
@functools.lru_cache(maxsize=4)
def normalized(text: str) -> tuple[str, ...]:
    """The lines of a configuration that count, as keepalived keeps them."""
    lines = (" ".join(_without_comment(line).split()) for line in text.split("\n"))
    return tuple(line for line in lines if line)


def _without_comment(line: str) -> str:
    if "#" not in line and "!" not in line:
        return line
    quoted = False
    for at, character in enumerate(line):
        if character == '"':
            quoted = not quoted
        elif character in "#!" and not quoted:
            return line[:at]
    return line


# --------------------------------------------------------------------------------------------------
# Ask it


def children(pid: int) -> frozenset[int]:
    """The other processes of a running keepalived; not the scripts that it runs."""
    return frozenset(filter(running.is_keepalived, running.children(pid)))


def settle(
    pid: int,
    seconds: float = TAKE_OVER_SECONDS,
    meanwhile: Meanwhile | None = None,
    loaded: str | None = None,
) -> None:
    """Wait until all processes of a running keepalived have done what they were at.

    What they write to show it holds passwords, and is taken away unread.

    seconds
        How long to wait for them.

    meanwhile
        Called again and again while waiting.

    loaded
        The text that it goes by, where that may be being written just now.

    Raises :class:`~saltext.lvs.errors.CommandFailed` if one does not answer in time, or the first
    process ends.
    """
    folder = _dump_folder(pid)
    instance = instance_in((text_of(pid) if loaded is None else loaded) or "")
    answered: set[str] = set()
    asked, pause = 0.0, _ASK_AGAIN_SECONDS
    try:
        _remove(folder, instance)
        otherwise = f"does not answer within {seconds:g} s: it hangs"
        for now in _while_running(pid, seconds, otherwise, _pause(meanwhile)):
            if not asked or now >= asked + pause:
                # One that has ended is seen at the next turn.
                with contextlib.suppress(NotAvailable):
                    running.send(pid, signal.SIGUSR1)
                # One that is long at it would begin anew for ever.
                asked, pause = now, pause * (2 if asked else 1)
            if meanwhile:
                meanwhile()
            those = children(pid)
            names = _named(_DUMPS, instance)
            answered |= {name for name in names if _is_whole(os.path.join(folder, name), those)}
            # One that has just ended, or is about to be started, is for the caller to judge.
            if len(answered) >= len(those):
                break
    finally:
        _remove(folder, instance)


def _while_running(pid: int, seconds: float, otherwise: str, pause: float) -> Iterator[float]:
    """The time, again and again, while a process is there and there is time left."""
    end = time.monotonic() + seconds
    while running.is_keepalived(pid):
        now = time.monotonic()
        if now >= end:
            raise CommandFailed(f"keepalived (process {pid}) {otherwise}")
        yield now
        time.sleep(pause)
    raise CommandFailed(f"keepalived (process {pid}) has ended")


def _pause(meanwhile: Meanwhile | None) -> float:
    return _WATCHING_PAUSE_SECONDS if meanwhile else _PAUSE_SECONDS


def _dump_folder(pid: int) -> str:
    """Where it writes, as this process sees it: it may have a /tmp of its own."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            variables = file.read().split(b"\0")
    except OSError as error:
        raise CommandFailed(f"cannot look at process {pid}: {error.strerror}") from error
    own = next((word[7:].decode() for word in variables if word.startswith(b"TMPDIR=")), "/tmp")
    return f"/proc/{pid}/root{own}"


def _named(dumps: Iterable[str], instance: str) -> list[str]:
    """The names that dumps may have: with ``data_use_instance`` that of keepalived is in them."""
    own = [name.replace(".data", f".{instance}.data") for name in dumps if instance]
    return [*dumps, *own]


def _remove(folder: str, instance: str) -> None:
    for name in _named((*_DUMPS, _PARENTS_DUMP), instance):
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(folder, name))


def _is_whole(path: str, writers: Collection[int]) -> bool:
    """Whether a dump is there, and nobody writes to it any more."""
    try:
        status = os.stat(path, follow_symlinks=False)
    except OSError:
        return False
    return status.st_size > 0 and not any(_has_open(pid, status) for pid in writers)


def _has_open(pid: int, status: os.stat_result) -> bool:
    for path in glob.glob(f"/proc/{pid}/fd/*"):
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(path), status):
                return True
    return False


# --------------------------------------------------------------------------------------------------
# Make it load


def reload(pid: int, meanwhile: Meanwhile | None = None) -> None:
    """Make a running keepalived read its file again, and wait until it goes by it.

    Nobody else asks it anything meanwhile: a reload would throw away their question, and they would
    take it for dead.

    meanwhile
        Called again and again, from the signal to the end.

    Raises :class:`~saltext.lvs.errors.CommandFailed` if it does not begin or does not end, in
    bounded time, or ends itself.
    """
    with locking.exclusive(running.LOCK):
        # What is read while it reads its file is a part of it, or nothing.
        loaded, before = text_of(pid) or "", _read_at(pid)
        _hang_up(pid)
        if before is not None:
            _until_read(pid, before, meanwhile)
        lines = (text_of(pid) or "").count("\n")
        settle(pid, TAKE_OVER_SECONDS + lines * SECONDS_PER_LINE, meanwhile, loaded)


def _hang_up(pid: int) -> None:
    """Tell it to reload, as soon as it is ready for that: before, it would be ended."""
    otherwise = f"is not ready for a reload within {READ_SECONDS:g} s"
    for _ in _while_running(pid, READ_SECONDS, otherwise, _PAUSE_SECONDS):
        with contextlib.suppress(NotAvailable):
            running.send(pid, signal.SIGHUP)
            return


def _until_read(pid: int, before: int, meanwhile: Meanwhile | None) -> None:
    otherwise = f"has not read its file within {READ_SECONDS:g} s: it hangs"
    for _ in _while_running(pid, READ_SECONDS, otherwise, _pause(meanwhile)):
        if meanwhile:
            meanwhile()
        if _read_at(pid) != before:
            return


def _read_at(pid: int) -> int | None:
    path = running.consolidated(pid)
    if path is None:
        return None
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return None


# --------------------------------------------------------------------------------------------------
# What a text describes


def has(text: str, keyword: str) -> bool:
    """Whether some line begins with this keyword."""
    return any(line.split()[0] == keyword for line in normalized(text))


def instance_in(text: str) -> str:
    """The name that a configuration gives keepalived; empty for none."""
    words = (line.partition(" ") for line in normalized(text))
    return next((running.instance_in(rest) for word, _, rest in words if word == "instance"), "")


def blocks_of(text: str, keyword: str) -> dict[str, Sequence[str]]:
    """The blocks of one kind: all of their lines, by the words that follow the keyword; where two
    have the same words, with blanks behind those of the later one.
    """
    blocks: dict[str, list[str]] = {}
    name, depth = None, 0
    for line in normalized(text):
        if depth == 0 and line.split()[0] == keyword:
            name = line[len(keyword) :].rstrip("{ ").strip()
            # One address and port may have a virtual server of each protocol.
            while name in blocks:
                name += " "
            blocks[name] = []
        if name is not None:
            blocks[name].append(line)
        bare = _QUOTED.sub("", line)
        depth += bare.count("{") - bare.count("}")
        if depth <= 0:
            name, depth = None, 0
    return dict(blocks)


def started_at(pid: int) -> str:
    """When a process was started, in the kernel's clock ticks: its number may come again."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            # proc(5): the name may have anything in it.
            return file.read().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
