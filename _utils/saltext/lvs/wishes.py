"""What operators want of real servers, kept on the director's disk: a drain outlives a reboot.

A wish is for a real server in one virtual server, or everywhere. A file that cannot be understood
is an error and never taken for one without wishes: that would send clients to what was drained.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any

from saltext.lvs import files, locking
from saltext.lvs.errors import DamagedState
from saltext.lvs.model import MAX_WEIGHT
from saltext.lvs.policy import Wish

WISHES = "/var/lib/saltext-lvs/wishes.json"
EVERYWHERE = "*"
FORMAT = 1
FOLDER_MODE = 0o700

# A virtual server or EVERYWHERE, and a real server.
Key = tuple[str, str]
Edit = Callable[[Mapping[Key, Wish]], Mapping[Key, Wish | None]]


@dataclass(frozen=True, slots=True)
class Wishes:
    """All wishes, by virtual server (or :data:`EVERYWHERE`) and real server."""

    wishes: Mapping[Key, Wish] = field(default_factory=lambda: MappingProxyType({}))


# --------------------------------------------------------------------------------------------------
# What is in force


def of(wishes: Wishes, virtual_server: str, real_server: str, now: float) -> Wish | None:
    """What is wished of a real server in a virtual server, if anything is in force.

    What is said of the one virtual server stands before what is said of the host everywhere. But a
    host in maintenance is so everywhere, and its drain ends here only where that is said in so many
    words: another weight does not say it.

    now
        Seconds since 1970.
    """
    here = _left(wishes.wishes.get((virtual_server, real_server)), now)
    host = _left(wishes.wishes.get((EVERYWHERE, real_server)), now)
    if here is None or host is None:
        return here or host
    says_so = here.drain or here.maintenance or here.served
    return host if host.maintenance or (host.drain and not says_so) else here


def next_end(wishes: Wishes, now: float) -> float | None:
    """When the next wish ends, in seconds since 1970; ``None`` if none does by itself."""
    ends = (wish.until for wish in wishes.wishes.values() if wish.until is not None)
    return min((end for end in ends if end > now), default=None)


def _left(wish: Wish | None, now: float) -> Wish | None:
    """What is left of a wish: of one with a weight besides, all but the weight."""
    if wish is None or wish.until is None or wish.until > now:
        return wish
    if wish.weight is None:
        return None
    return or_none(replace(wish, weight=None, until=None))


def or_none(wish: Wish) -> Wish | None:
    """None for a wish that asks for nothing."""
    asks = wish.drain or wish.maintenance or wish.served or wish.weight is not None
    return wish if asks else None


# --------------------------------------------------------------------------------------------------
# On disk


def read(path: str = WISHES) -> Wishes:
    """The wishes on disk; none where there is no file.

    Raises :class:`~saltext.lvs.errors.DamagedState` where the file does not say what they are, and
    :class:`~saltext.lvs.errors.CommandFailed` where it cannot be read.
    """
    found = files.read(path)
    if found is None:
        return Wishes()
    try:
        return Wishes(_parsed(json.loads(found[0])))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DamagedState(
            path, "the operators' drains and weights", f"{type(error).__name__}: {error}"
        ) from error


def change(
    edits: Mapping[Key, Wish | None], path: str = WISHES, now: float | None = None
) -> Wishes:
    """Put wishes in place of others, take those back that are ``None``, and forget what is over.

    As :func:`revise` for what does not hang on the wishes before.
    """
    return revise(lambda said: edits, path, now)


def revise(edit: Edit, path: str = WISHES, now: float | None = None) -> Wishes:
    """Change wishes by what they are, while nobody else can.

    edit
        Gives those that come in place of others, with ``None`` for none.

    now
        Seconds since 1970; by default the system's clock.

    Returns all wishes as they are now. Raises what :func:`read` and
    :func:`saltext.lvs.locking.exclusive` raise, and ValueError for a wish that could not be read
    again; nothing is changed then.
    """
    moment = time.time() if now is None else now
    with locked(path):
        before = read(path)
        edits = edit(before.wishes)
        for key, wish in edits.items():
            _expect_readable(key, wish)
        changed = _edited(before, edits, moment)
        if changed != before:
            files.write(path, _text(changed))
    return changed


@contextlib.contextmanager
def locked(path: str = WISHES) -> Iterator[None]:
    """Keep others from changing wishes, for what must follow from the newest.

    Raises what :func:`saltext.lvs.locking.exclusive` does.
    """
    files.make_folder(os.path.dirname(path), FOLDER_MODE)
    with locking.exclusive(f"{path}.lock"):
        yield


def _edited(before: Wishes, edits: Mapping[Key, Wish | None], now: float) -> Wishes:
    wanted = {**before.wishes, **edits}
    left = {key: _left(wish, now) for key, wish in wanted.items()}
    return Wishes({key: wish for key, wish in left.items() if wish is not None})


def _text(wishes: Wishes) -> str:
    rows = [
        {"virtual_server": key[0], "real_server": key[1], **asdict(wish)}
        for key, wish in sorted(wishes.wishes.items(), key=lambda item: item[0])
    ]
    return json.dumps({"format": FORMAT, "wishes": rows}, indent=1, allow_nan=False) + "\n"


def _expect_readable(key: Key, wish: Wish | None) -> None:
    for name in key:
        _name(name)
    if wish is not None:
        _wish(asdict(wish))


def _parsed(data: Any) -> dict[Key, Wish]:
    if data["format"] != FORMAT:
        raise ValueError(f"format {data['format']!r} is not {FORMAT}; a newer version wrote it")
    found: dict[Key, Wish] = {}
    for row in data["wishes"]:
        values = dict(row)
        key = _name(values.pop("virtual_server")), _name(values.pop("real_server"))
        if key in found:
            raise ValueError(f"{key[1]} in {key[0]} is there twice")
        found[key] = _wish(values)
    return found


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} is no name")
    return value


def _wish(values: dict[str, Any]) -> Wish:
    """A wish with each of its values, and of the right kind: half a wish could undrain."""
    names = {field.name for field in fields(Wish)}
    if values.keys() != names:
        raise ValueError(f"{', '.join(sorted(values.keys() ^ names))} missing or unknown")
    wish = Wish(**values)
    right = (
        all(isinstance(word, bool) for word in (wish.drain, wish.maintenance, wish.served)),
        wish.weight is None or (_is_whole(wish.weight) and 0 <= wish.weight <= MAX_WEIGHT),
        wish.until is None or _is_number(wish.until),
        isinstance(wish.why, str),
        _is_number(wish.at),
    )
    if not all(right):
        raise ValueError(f"{wish} cannot be")
    return wish


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))
