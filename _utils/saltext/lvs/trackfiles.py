"""Weights of the real servers that keepalived keeps, each in a small file that it watches.

keepalived adds the number in the file to the weight of its configuration, within milliseconds and
without a reload, and goes on from it after a reload, a restart, or a real server's recovery. What
is no number counts as 0 for it, which gives a drained real server clients again: so a file is
written whole and put in place by a rename, or not at all.

What operators wish (:mod:`saltext.lvs.wishes`) the files follow: when it is said, when a file is
begun, and at every apply. A number of which no wish says anything stays as it is.

A real server that the pillar has not enabled gets its own number plus :data:`DISABLED`: when it is
enabled again, what an operator wanted is there still.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from saltext.lvs import files, locking
from saltext.lvs import wishes as wishing
from saltext.lvs.errors import CommandFailed, InvalidConfig, NotAvailable, WrongState
from saltext.lvs.fifos import FOLDER as HOME
from saltext.lvs.model import MAX_WEIGHT, Cluster, ManagedBy
from saltext.lvs.policy import Wish

FOLDER = f"{HOME}/weights"
FOLDER_MODE = 0o700

# Below any weight: keepalived takes what comes out below 0 for 0. Not the weight itself, so that a
# real server stays drained when the pillar gives it more.
DRAINED = -(MAX_WEIGHT + 1)
# So far below that no number of an operator's reaches it.
DISABLED = -200_000

_NUMBER = re.compile(r"\s*(-?[0-9]{1,10})\s*")

Name = tuple[str, str]


def path(virtual_server: str, real_server: str, folder: str = FOLDER) -> str:
    """Where a real server's number is; the names are those of the pillar."""
    return os.path.join(folder, virtual_server, real_server)


@dataclass(frozen=True, slots=True)
class Weight:
    """What becomes of a real server's weight.

    configured
        In the pillar.

    number
        What the file adds to it, without what ``enabled`` asks; ``None`` where there is no number
        in it, or no file.

    enabled
        Whether the file lets it have clients.
    """

    configured: int
    number: int | None
    enabled: bool

    @property
    def effective(self) -> int:
        """The weight that keepalived gives it as long as it is up."""
        if not self.enabled:
            return 0
        return min(max(self.configured + (self.number or 0), 0), MAX_WEIGHT)

    @classmethod
    def of(cls, configured: int, written: int | None) -> Weight:
        """From what is in the file."""
        if written is None:
            return cls(configured, None, True)
        enabled = written >= DISABLED // 2
        return cls(configured, written if enabled else written - DISABLED, enabled)

    @property
    def written(self) -> int:
        """What is to be in the file."""
        return (self.number or 0) + (0 if self.enabled else DISABLED)


def read(virtual_server: str, real_server: str, folder: str = FOLDER) -> int | None:
    """The number in a real server's file; ``None`` where there is no file, or no number in it."""
    return _read(path(virtual_server, real_server, folder))


def _read(place: str) -> int | None:
    found = files.read(place)
    number = _NUMBER.fullmatch(found[0]) if found else None
    return int(number[1]) if number else None


def names_of(cluster: Cluster) -> dict[Name, int]:
    """The configured weights of all real servers that have a file, by virtual and real server."""
    return {
        (config.name, share.name): share.weight
        for config in cluster.virtual_servers.values()
        if config.managed_by is ManagedBy.KEEPALIVED
        for share in config.real_servers
    }


def weights(cluster: Cluster, folder: str = FOLDER) -> dict[Name, Weight]:
    """What each is now."""
    return {
        name: Weight.of(configured, read(*name, folder))
        for name, configured in names_of(cluster).items()
    }


# --------------------------------------------------------------------------------------------------
# By an operator


def set_weight(
    cluster: Cluster, virtual_server: str, real_server: str, weight: int, folder: str = FOLDER
) -> tuple[Weight, Weight]:
    """Give a real server another weight than the pillar's, until it is reset; return old and new.

    weight
        From 0 to 65535. 0 drains it, whatever the pillar's weight will be; any other is kept as a
        difference from the pillar's.

    Raises :class:`~saltext.lvs.errors.InvalidConfig` for a wrong weight or name,
    :class:`~saltext.lvs.errors.WrongState` where there is no file yet, and
    :class:`~saltext.lvs.errors.CommandFailed` where it cannot be written.
    """
    if type(weight) is not int or not 0 <= weight <= MAX_WEIGHT:
        raise InvalidConfig("weight", weight, f"a whole number from 0 to {MAX_WEIGHT}")
    configured = _configured(cluster, virtual_server, real_server)
    return _put(virtual_server, real_server, configured, _added(weight, configured), folder)


def reset_weight(
    cluster: Cluster, virtual_server: str, real_server: str, folder: str = FOLDER
) -> tuple[Weight, Weight]:
    """Give a real server the pillar's weight again; as :func:`set_weight`."""
    configured = _configured(cluster, virtual_server, real_server)
    return _put(virtual_server, real_server, configured, 0, folder)


def expect(cluster: Cluster, virtual_server: str, real_server: str, folder: str = FOLDER) -> None:
    """Raise what :func:`set_weight` does for one whose file cannot be written."""
    _configured(cluster, virtual_server, real_server)
    _expect_file(path(virtual_server, real_server, folder))


def number_of(wish: Wish | None, configured: int) -> int | None:
    """What an operator's wish adds to a weight; ``None`` where it says nothing of it.

    A weight for a time is none here: nobody would end it.
    """
    if wish is None:
        return None
    if wish.drain or wish.maintenance:
        return DRAINED
    if wish.weight is None or wish.until is not None:
        return None
    return _added(wish.weight, configured)


def _added(weight: int, configured: int) -> int:
    return weight - configured if weight else DRAINED


@dataclass(frozen=True, slots=True)
class Given:
    """What became of a real server's weight."""

    virtual_server: str
    real_server: str
    old: Weight
    new: Weight

    def __str__(self) -> str:
        return (
            f"have keepalived give {self.real_server} of {self.virtual_server} weight "
            f"{self.new.effective}"
        )

    def as_changes(self) -> dict[str, dict[str, object]]:
        """As Salt reports them."""
        pair: dict[str, object] = {
            "old": {"weight": self.old.effective},
            "new": {"weight": self.new.effective},
        }
        return {f"{self.virtual_server} -> {self.real_server}": pair}


def follow(cluster: Cluster, virtual_server: str, real_server: str, folder: str = FOLDER) -> Given:
    """Give a real server the weight that operators wish now, or the pillar's.

    Raises what :func:`set_weight` and :func:`saltext.lvs.wishes.read` do.
    """
    configured = _configured(cluster, virtual_server, real_server)
    place = path(virtual_server, real_server, folder)
    _expect_file(place)
    with _alone(folder):
        # Here, so that of two jobs at the same time none writes what was wished before.
        said = wishing.read(wishing.WISHES)
        wish = wishing.of(said, virtual_server, real_server, time.time())
        pair = _written(place, configured, number_of(wish, configured) or 0)
    return Given(virtual_server, real_server, *pair)


def _configured(cluster: Cluster, virtual_server: str, real_server: str) -> int:
    config = cluster.virtual_servers.get(virtual_server)
    if config is None:
        raise InvalidConfig("virtual_server", virtual_server, "one of lvs:virtual_servers")
    if config.managed_by is not ManagedBy.KEEPALIVED:
        raise WrongState(
            f"Salt keeps {virtual_server}, not keepalived: its weights are set by ipvs.set_weight"
        )
    for share in config.real_servers:
        if share.name == real_server:
            return share.weight
    expected = f"one of lvs:virtual_servers:{virtual_server}:real_servers"
    raise InvalidConfig("real_server", real_server, expected)


def _put(
    virtual_server: str, real_server: str, configured: int, number: int, folder: str
) -> tuple[Weight, Weight]:
    place = path(virtual_server, real_server, folder)
    _expect_file(place)
    with _alone(folder):
        return _written(place, configured, number)


def _expect_file(place: str) -> None:
    if not os.path.exists(place):
        raise NotAvailable(f"{place} is not there yet, and keepalived watches it only from a start")


def _written(place: str, configured: int, number: int) -> tuple[Weight, Weight]:
    old = Weight.of(configured, _read(place))
    new = Weight(configured, number, old.enabled)
    if old != new:
        _write(place, new.written)
    return old, new


def _alone(folder: str) -> AbstractContextManager[bool]:
    """Keep others from writing a number between its being read and written."""
    return locking.exclusive(f"{folder}.lock")


def _write(place: str, number: int) -> None:
    files.write(place, f"{number}\n")


# --------------------------------------------------------------------------------------------------
# By the state


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one file; ``None`` is none.

    repaired
        There was something else than a number in it.
    """

    path: str
    old: int | None
    new: int | None
    repaired: bool = False

    def __str__(self) -> str:
        if self.new is None:
            return f"take {self.path} away"
        reason = ", in place of what is no number" if self.repaired else ""
        return f"write {self.new} to {self.path}{reason}"

    def as_data(self) -> dict[str, object]:
        """As Salt reports changes."""
        return {"old": "no number" if self.repaired else self.old, "new": self.new}


def plan(cluster: Cluster, folder: str = FOLDER) -> tuple[Change, ...]:
    """What the files lack: those that are missing, what operators wish and what ``enabled`` asks; a
    number of which no wish says anything stays.

    Raises what :func:`saltext.lvs.wishes.read` does.
    """
    return lacking(cluster, weights(cluster, folder), folder)


def lacking(
    cluster: Cluster, now: Mapping[Name, Weight], folder: str = FOLDER
) -> tuple[Change, ...]:
    """The same where it is known what they are *now*."""
    return tuple(_lacking(cluster, now, folder))


def wanted(cluster: Cluster, now: Mapping[Name, Weight]) -> dict[Name, Weight]:
    """What they are when nothing lacks."""
    said, moment = wishing.read(wishing.WISHES) if now else wishing.Wishes(), time.time()
    return {
        name: replace(
            weight,
            number=_number(weight, wishing.of(said, *name, moment)),
            enabled=cluster.real_servers[name[1]].enabled,
        )
        for name, weight in now.items()
    }


def _number(weight: Weight, wish: Wish | None) -> int:
    wished = number_of(wish, weight.configured)
    return (weight.number or 0) if wished is None else wished


def _lacking(cluster: Cluster, now: Mapping[Name, Weight], folder: str) -> Iterator[Change]:
    for name, new in wanted(cluster, now).items():
        old, place = now[name], path(*name, folder)
        if old.number is None:
            yield Change(place, None, new.written, os.path.exists(place))
        elif old != new:
            yield Change(place, old.written, new.written)


def plan_gone(cluster: Cluster, folder: str = FOLDER) -> tuple[Change, ...]:
    """The files of real servers that keepalived does not keep any more; to be taken away after it
    has been told so.
    """
    kept = {path(*name, folder) for name in names_of(cluster)}
    return tuple(Change(place, None, None) for place in _present(folder) if place not in kept)


def _present(folder: str) -> list[str]:
    places = (
        os.path.join(at, name) for at, _, names in os.walk(folder) for name in names if at != folder
    )
    return sorted(places)


def write(changes: Iterable[Change], folder: str = FOLDER) -> None:
    """Make changes. A number that an operator has given since they were planned stays.

    Raises :class:`~saltext.lvs.errors.CommandFailed`, and
    :class:`~saltext.lvs.errors.NotAvailable` where somebody else does not end writing.
    """
    changes = tuple(changes)
    if changes:
        make_folders(changes, folder)
        with _alone(folder):
            for change in changes:
                _make(change)


def _make(change: Change) -> None:
    if change.new is None:
        _remove(change.path)
    elif change.new or change.repaired or change.old is not None:
        now, planned = _read(change.path), Weight.of(0, change.new)
        given_since = now is not None and now != change.old
        number = Weight.of(0, now).number if given_since else planned.number
        _write(change.path, Weight(0, number, planned.enabled).written)
    else:
        _begin(change.path)


def make_folders(changes: Iterable[Change], folder: str = FOLDER) -> None:
    """Make the folders that files need: keepalived 2.3 does not accept a file without."""
    places = (os.path.dirname(change.path) for change in changes if change.new is not None)
    for place in dict.fromkeys(places):
        if not os.path.isdir(place):
            files.make_folder(folder, FOLDER_MODE)
            files.make_folder(place, FOLDER_MODE)


def _begin(place: str) -> None:
    """Make a file with 0 in it, which a power cut may take: without, it counts as 0 too. Writing
    thousands of them to the disk one by one would take seconds.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        with open(os.open(place, flags, files.PRIVATE), "w", encoding="ascii") as file:
            file.write("0\n")
    except OSError as error:
        raise CommandFailed(f"cannot write {place}: {error.strerror}") from error


def _remove(place: str) -> None:
    try:
        os.unlink(place)
        if not os.listdir(os.path.dirname(place)):
            os.rmdir(os.path.dirname(place))
    except FileNotFoundError:
        return
    except OSError as error:
        raise CommandFailed(f"cannot remove {place}: {error.strerror}") from error


def told(now: Mapping[Name, Weight], only: Collection[str] = ()) -> dict[str, dict[str, object]]:
    """Weights for people, by virtual and real server."""
    answer: dict[str, dict[str, object]] = {}
    for (virtual_server, real_server), weight in now.items():
        if not only or virtual_server in only:
            answer.setdefault(virtual_server, {})[real_server] = as_data(weight)
    return answer


def as_data(weight: Weight) -> dict[str, object]:
    """One weight for people."""
    return {
        "configured": weight.configured,
        "added": weight.number,
        "enabled": weight.enabled,
        "effective": weight.effective,
    }
