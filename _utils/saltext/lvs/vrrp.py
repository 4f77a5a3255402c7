"""What keepalived tells of its VRRP instances, held against what the kernel has.

:func:`parse` reads a line of one of keepalived's two pipes. :func:`heard` and :func:`seen` are pure
functions of what was known, what is news and the time; whoever listens and looks keeps what they
return.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

MASTER, BACKUP, FAULT, STOP, DELETED = "MASTER", "BACKUP", "FAULT", "STOP", "DELETED"
UP, DOWN = "UP", "DOWN"


class Problem(enum.Enum):
    """What is wrong with an instance without keepalived saying so."""

    DEAD = "keepalived does not run, and VIPs are here"
    HANGING = "keepalived does not answer"
    MISSING = "VIPs are missing on the master"
    SURPLUS = "VIPs are held without being master"


# How long it has to last before it counts, in seconds: while it passes a transition may be under
# way. A VIP that somebody deletes is back after 0.4 s, and hundreds of VIPs take a moment to come
# or go. One that ends takes its VIPs away first, and the question to one that hangs has waited.
SETTLE_SECONDS: Mapping[Problem, float] = {
    Problem.DEAD: 0.0,
    Problem.HANGING: 0.0,
    Problem.MISSING: 1.0,
    Problem.SURPLUS: 1.0,
}
# After the first of its processes is killed the others still tell that they stop.
ENDED_SECONDS = 2.0

# --------------------------------------------------------------------------------------------------
# Lines


class Subject(enum.Enum):
    """What a line is about, by its first word."""

    INSTANCE = "INSTANCE"
    GROUP = "GROUP"
    VIRTUAL_SERVER = "VS"
    REAL_SERVER = "RS"


@dataclass(frozen=True, slots=True)
class Notice:
    """One line.

    name
        The instance, the sync group or the virtual server, as keepalived writes it.

    word
        What it is now, or what has happened.

    priority
        Of an instance.

    real_server
        Of which virtual server's real server the line speaks.
    """

    subject: Subject
    name: str
    word: str
    priority: int | None = None
    real_server: str | None = None


LONGEST_LINE_BYTES = 4096
# keepalived's vrrp_notify.c: the name is quoted, and nothing in it is escaped.
_VRRP = re.compile(r'(INSTANCE|GROUP) "(.+)" ([A-Z_]+|\{UNKNOWN\}) ([0-9]{1,3})')
# Its ipwrapper.c: of a fwmark, the virtual server has a blank in its name.
_VIRTUAL_SERVER = re.compile(r"VS (\S.*) (UP|DOWN)")
_REAL_SERVER = re.compile(r"RS (\S+) (\S.*) (UP|DOWN)")


def parse(line: bytes) -> Notice | None:
    """What a line says; ``None`` if it is none of keepalived's."""
    if len(line) > LONGEST_LINE_BYTES:
        return None
    # Some versions write the NUL at the end too.
    text = line.replace(b"\0", b"").decode("utf-8", "backslashreplace").strip()
    if not text.isprintable():
        return None
    if found := _VRRP.fullmatch(text):
        return Notice(Subject(found[1]), found[2], found[3], int(found[4]))
    if found := _VIRTUAL_SERVER.fullmatch(text):
        return Notice(Subject.VIRTUAL_SERVER, found[1], found[2])
    if found := _REAL_SERVER.fullmatch(text):
        return Notice(Subject.REAL_SERVER, found[2], found[3], real_server=found[1])
    return None


# --------------------------------------------------------------------------------------------------
# What is known

# What a word makes of an instance's state: None, no change.
STATES: Mapping[str, str | None] = {
    MASTER: MASTER,
    BACKUP: BACKUP,
    FAULT: FAULT,
    STOP: STOP,
    DELETED: DELETED,
    "MASTER_PRIORITY": None,
    "BACKUP_PRIORITY": None,
    "MASTER_RX_LOWER_PRI": None,
}
# What a word tells of the state, where nothing else has.
IMPLIED: Mapping[str, str] = {
    "MASTER_PRIORITY": MASTER,
    "BACKUP_PRIORITY": BACKUP,
    "MASTER_RX_LOWER_PRI": MASTER,
}
# Another director with a lower priority said that it is the master.
RIVAL = "MASTER_RX_LOWER_PRI"


@dataclass(frozen=True, slots=True)
class Instance:
    """What is known of one VRRP instance.

    since
        Since when it is in that state as far as it was seen, in seconds since 1970.

    held
        Its VIPs that are on their interface here.

    problem, suspected
        What was told to be wrong; and what is wrong now, and may still pass.

    suspected_at
        When that began, on a clock that is never set.
    """

    state: str | None = None
    priority: int | None = None
    since: float | None = None
    held: tuple[str, ...] = ()
    problem: Problem | None = None
    suspected: Problem | None = None
    suspected_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Simple:
    """What is known of a sync group, a virtual server or a real server."""

    state: str
    since: float


@dataclass(frozen=True, slots=True)
class Known:
    """What is known altogether.

    groups
        By name.

    servers
        By virtual server and, where it is about one, real server.

    ended_at
        Since when keepalived does not run, on a clock that is never set.
    """

    instances: Mapping[str, Instance] = field(default_factory=dict)
    groups: Mapping[str, Simple] = field(default_factory=dict)
    servers: Mapping[tuple[str, str | None], Simple] = field(default_factory=dict)
    ended_at: float | None = None


@dataclass(frozen=True, slots=True)
class Sight:
    """What one look saw.

    vips
        By instance, for each of its VIPs whether it is on its interface.

    running
        Whether keepalived runs.

    answers
        Whether it answers when it is asked; ``None`` where that is not known.

    said
        What it has answered, by instance: state and priority.

    by_vips_alone
        Nobody tells any state: who holds the VIPs is master.
    """

    vips: Mapping[str, Mapping[str, bool]]
    running: bool = True
    answers: bool | None = None
    said: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    by_vips_alone: bool = False

    def held(self, name: str) -> tuple[str, ...]:
        """The VIPs of an instance that are here."""
        return tuple(vip for vip, is_held in self.vips.get(name, {}).items() if is_held)


Change = dict[str, Any]
Key = TypeVar("Key")
Item = TypeVar("Item")


# --------------------------------------------------------------------------------------------------
# Lines


def heard(
    known: Known, notices: Iterable[Notice], sight: Sight, at: float
) -> tuple[Known, tuple[Change, ...]]:
    """Return what is known after lines, and what has changed with them, as an event lists it.

    at
        The time, in seconds since 1970.
    """
    instances, groups = dict(known.instances), dict(known.groups)
    servers = dict(known.servers)
    changes: list[Change] = []
    for notice in notices:
        if notice.subject is Subject.INSTANCE:
            changes += _heard_of_instance(instances, notice, sight, at)
        elif notice.subject is Subject.GROUP:
            subject = {"sync_group": notice.name}
            changes += _heard_of(groups, notice.name, subject, notice.word, at)
        else:
            key = notice.name, notice.real_server
            changes += _heard_of(servers, key, _server(key), notice.word, at)
    after = replace(known, instances=instances, groups=groups, servers=servers)
    return after, tuple(changes)


def _heard_of_instance(
    instances: dict[str, Instance], notice: Notice, sight: Sight, at: float
) -> Iterator[Change]:
    name, before = notice.name, instances.get(notice.name, Instance())
    state = STATES.get(notice.word) or before.state or IMPLIED.get(notice.word)
    since = at if state != before.state else before.since
    now = replace(before, state=state, priority=notice.priority, since=since, held=sight.held(name))
    if _wrong_with(name, now, sight) is None:
        now = replace(now, problem=None)
    instances[name] = now
    if now.state == DELETED:
        del instances[name]
    if notice.word == RIVAL or _told(before) != _told(now):
        change = _change(name, before, now, "fifo")
        yield {**change, "notice": notice.word} if notice.word != state else change


def _heard_of(
    book: dict[Key, Simple], key: Key, subject: Change, state: str, at: float
) -> Iterator[Change]:
    was = book.get(key)
    if was is not None and was.state == state:
        return
    book[key] = Simple(state, at)
    if state == DELETED:
        del book[key]
    yield {**subject, "was": was.state if was else None, "now": state, "by": "fifo"}


def _server(key: tuple[str, str | None]) -> Change:
    virtual_server, real_server = key
    if real_server is None:
        return {"virtual_server": virtual_server}
    return {"virtual_server": virtual_server, "real_server": real_server}


def _change(name: str, before: Instance, now: Instance, by: str) -> Change:
    return {
        "vrrp_instance": name,
        "was": before.state,
        "now": now.state,
        "priority": now.priority,
        "vips_held": list(now.held),
        "problem": now.problem.value if now.problem else None,
        "by": by,
    }


# --------------------------------------------------------------------------------------------------
# Looks


def seen(known: Known, sight: Sight, at: float, clock: float) -> tuple[Known, tuple[Change, ...]]:
    """Return what is known after a look, and what has changed with it, as an event lists it.

    What is there for the first time is no change: the whole state tells it.

    at
        The time, in seconds since 1970.

    clock
        The time on a clock that is never set, in seconds.
    """
    ended_at = None if sight.running else known.ended_at if known.ended_at is not None else clock
    instances: dict[str, Instance] = {}
    changes: list[Change] = []
    for name in dict.fromkeys((*known.instances, *sight.vips, *sight.said)):
        before = known.instances.get(name, Instance())
        state, priority, by = _state(name, before, sight, ended_at, clock)
        since = at if state != before.state else before.since
        now = replace(before, state=state, priority=priority, since=since, held=sight.held(name))
        now = _judged(now, sight, name, clock)
        instances[name] = now
        changes += _news(name, before, now, by)
    return replace(known, instances=instances, ended_at=ended_at), tuple(changes)


def _state(
    name: str, before: Instance, sight: Sight, ended_at: float | None, clock: float
) -> tuple[str | None, int | None, str]:
    """What an instance is, its priority, and by what that is known."""
    if name in sight.said:
        state, priority = sight.said[name]
        return state, priority, "dump"
    held = sight.held(name)
    if ended_at is not None and not held and clock - ended_at >= ENDED_SECONDS:
        return STOP if before.state else None, before.priority, "process"
    if sight.by_vips_alone and sight.running and sight.vips.get(name):
        return MASTER if held else BACKUP, before.priority, "netlink"
    return before.state, before.priority, "netlink"


def _judged(now: Instance, sight: Sight, name: str, clock: float) -> Instance:
    """The same, with what is wrong if that has lasted."""
    wrong = _wrong_with(name, now, sight)
    if wrong != now.suspected:
        now = replace(now, suspected=wrong, suspected_at=clock)
    if wrong is None:
        return replace(now, problem=None)
    if clock - now.suspected_at >= SETTLE_SECONDS[wrong]:
        return replace(now, problem=wrong)
    return now


def _wrong_with(name: str, one: Instance, sight: Sight) -> Problem | None:
    vips = sight.vips.get(name, {})
    some, every = any(vips.values()), all(vips.values())
    if not sight.running:
        return Problem.DEAD if some else None
    if sight.answers is False:
        return Problem.HANGING
    if one.state == MASTER:
        return None if every else Problem.MISSING
    return Problem.SURPLUS if some and one.state is not None else None


def _told(one: Instance) -> tuple[object, ...]:
    return one.state, one.priority, one.problem


def _news(name: str, before: Instance, now: Instance, by: str) -> Iterator[Change]:
    # What is there for the first time has no state before it.
    is_other = before.state is not None and _told(before)[:2] != _told(now)[:2]
    if is_other:
        yield _change(name, before, now, by)
    elif before.problem != now.problem:
        yield _change(name, now, now, "process" if _by_process(before, now) else "netlink")


def _by_process(before: Instance, now: Instance) -> bool:
    about = {before.problem, now.problem}
    return bool(about & {Problem.DEAD, Problem.HANGING})


def without(
    known: Known,
    instances: Collection[str] | None = None,
    groups: Collection[str] | None = None,
    servers: Collection[tuple[str, str | None]] | None = None,
) -> tuple[Known, tuple[Change, ...]]:
    """Return what is known without what is not there any more, and that as an event lists it.

    instances, groups, servers
        All that there are, as :class:`Known` has them; ``None`` where nobody can tell.
    """
    kept_instances, gone_instances = _parted(known.instances, instances)
    kept_groups, gone_groups = _parted(known.groups, groups)
    kept_servers, gone_servers = _parted(known.servers, servers)
    changes = [
        _change(name, one, replace(one, state=DELETED, held=(), problem=None), "dump")
        for name, one in gone_instances.items()
        if one.state is not None
    ]
    changes += [_gone({"sync_group": name}, one) for name, one in gone_groups.items()]
    changes += [_gone(_server(key), one) for key, one in gone_servers.items()]
    after = replace(known, instances=kept_instances, groups=kept_groups, servers=kept_servers)
    return after, tuple(changes)


def _parted(
    known: Mapping[Key, Item], there: Collection[Key] | None
) -> tuple[Mapping[Key, Item], Mapping[Key, Item]]:
    """What is there, and what is gone."""
    if there is None:
        return known, {}
    kept = {key: one for key, one in known.items() if key in there}
    return kept, {key: one for key, one in known.items() if key not in there}


def _gone(subject: Change, one: Simple) -> Change:
    return {**subject, "was": one.state, "now": DELETED, "by": "dump"}


def without_servers(known: Known) -> Known:
    """The same for another keepalived: it finds out anew which servers are up."""
    return replace(known, servers={})


def is_new_suspicion(before: Known, after: Known) -> bool:
    """Whether something may be wrong now that was not before: worth a question."""
    return any(
        one.suspected is not None and one.suspected != _suspected(before, name)
        for name, one in after.instances.items()
    )


def _suspected(known: Known, name: str) -> Problem | None:
    one = known.instances.get(name)
    return one.suspected if one else None


# --------------------------------------------------------------------------------------------------
# The whole


def whole_state(known: Known, sight: Sight) -> dict[str, Any]:
    """What is known altogether, as an event tells it: of virtual and real servers, what is down."""
    down = {key: one for key, one in known.servers.items() if one.state == DOWN}
    return {
        "vrrp_instances": [
            {
                "vrrp_instance": name,
                "now": one.state,
                "since": one.since,
                "priority": one.priority,
                "vips": list(sight.vips.get(name, {})),
                "vips_held": list(one.held),
                "problem": one.problem.value if one.problem else None,
            }
            for name, one in known.instances.items()
        ],
        "sync_groups": [
            {"sync_group": name, "now": one.state, "since": one.since}
            for name, one in known.groups.items()
        ],
        "down": [{**_server(key), "since": one.since} for key, one in down.items()],
    }
