"""How often a machine changes something because a reactor asks, before a person has to look.

What a reactor calls looks for itself and changes only what is wrong, so asking often does no harm.
But where two work against each other, the same thing is wrong again and again: then it is better to
stop, and to leave it to a person. Only calls that changed something are counted, on the machine
that changed it; a reboot forgets them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TypeVar

from saltext.lvs import files, locking
from saltext.lvs.errors import WrongState

WITHIN_SECONDS = 3600.0
# Of one that comes and goes all day, a real server's own checks have made a held one long before.
MOST = {"repair": 12, "reapply": 6, "reweight": 120}
# The names of virtual servers come from the pillar, and that changes.
MOST_SUBJECTS = 1000

Done = TypeVar("Done")


def within(
    action: str, subject: str, do: Callable[[], Done], changed: Callable[[Done], bool]
) -> Done:
    """Do something, unless it has changed something too often.

    action
        One of :data:`MOST`.

    subject
        What it would change.

    changed
        Whether it has, by what *do* returned; what failed may have.

    Raises :class:`~saltext.lvs.errors.WrongState` if it is left to a person now, and what *do*
    does.
    """
    expect_left(action, subject)
    try:
        done = do()
    except BaseException:
        note(action, subject)
        raise
    if changed(done):
        note(action, subject)
    return done


def expect_left(action: str, subject: str, now: float | None = None) -> None:
    """Return if an action may change something once more.

    action
        One of :data:`MOST`.

    subject
        What it would change.

    Raises :class:`~saltext.lvs.errors.WrongState` if it has done so too often.
    """
    spent = len(_read(time.time() if now is None else now).get(_key(action, subject), ()))
    if spent >= MOST[action]:
        raise WrongState(
            f"{subject} was changed {spent} times within an hour because a reactor asked, so it is "
            "left to a person now: find out what works against it, and call this by hand"
        )


def note(action: str, subject: str, now: float | None = None) -> None:
    """Count one that has changed something."""
    at = time.time() if now is None else now
    with locking.exclusive(f"{_path()}.lock"):
        book = _read(at)
        times = [*book.get(_key(action, subject), ()), at][-MOST[action] :]
        # What was changed last comes last, and what was not for long is dropped.
        book.pop(_key(action, subject), None)
        others = dict(list(book.items())[-MOST_SUBJECTS + 1 :])
        files.write(_path(), json.dumps({**others, _key(action, subject): times}))


def _path() -> str:
    return f"{locking.FOLDER}/budget.json"


def _key(action: str, subject: str) -> str:
    return f"{action} {subject}"


def _read(now: float) -> dict[str, list[float]]:
    """What was changed within the hour; a file that cannot be read says nothing."""
    found = files.read(_path())
    try:
        book = json.loads(found[0]) if found else {}
        lately = {
            str(key): [float(at) for at in times if 0 <= now - at < WITHIN_SECONDS]
            for key, times in book.items()
        }
    except (ValueError, TypeError, AttributeError):
        return {}
    return {key: times for key, times in lately.items() if times}
