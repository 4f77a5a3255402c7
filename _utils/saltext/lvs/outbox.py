"""What waits to be sent, in the master's book: mails, posts to webhooks, events.

A parcel is written down with all that it says before anybody tries to send it, so that one that is
sent again after a crash is the same to the byte, with the same Message-ID. Parcels of one lane
leave in their order; a lane whose first parcel cannot be sent waits, and holds up no other lane.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from saltext.lvs import files, locking
from saltext.lvs.errors import LvsError
from saltext.lvs.journal import FOLDER_MODE, Journal, short

log = logging.getLogger(__name__)

# After a failure the lane waits, each time twice as long.
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 5.0, 300.0
# Who could not be told for so long is told no more.
GIVE_UP_SECONDS = 3 * 24 * 3600.0

# What became of a parcel: all took it, some or all of those it is for refused it, or nobody could
# be reached for too long.
SENT, REFUSED, GIVEN_UP = "sent", "refused", "given up"

# The first that waits in each lane, found by one step in the index for each: GROUP BY would read
# all that waits.
FIRSTS = """
    WITH RECURSIVE lanes (lane) AS (
        SELECT min(lane) FROM outbox WHERE done_at IS NULL
        UNION ALL
        SELECT (SELECT min(lane) FROM outbox WHERE done_at IS NULL AND lane > lanes.lane)
        FROM lanes WHERE lane IS NOT NULL)
    SELECT outbox.lane, outbox.next_at FROM lanes JOIN outbox ON outbox.id = (
        SELECT min(id) FROM outbox AS its WHERE its.done_at IS NULL AND its.lane = lanes.lane)
    ORDER BY outbox.next_at, outbox.id"""
WITHOUT_BODY = """
    id, lane, way, incident, queued_at, tries, next_at, why, refused, outcome, done_at, address,
    NULL AS body"""


@dataclass(frozen=True, slots=True)
class Parcel:
    """Something that is to be sent.

    lane
        Parcels of one lane leave in their order.

    way
        How it leaves: ``mail``, ``webhook``, ``event``.

    address
        Whereto, as JSON can say it, without secrets: they are not written down.

    body
        What is sent; not kept once that is done, and empty in lists.

    incident
        The id of the one that it tells of, if there is one.

    queued_at
        Seconds since 1970.

    id
        Given by the book.

    tries, next_at, why
        How often it could not be sent; when it is tried again, in seconds since 1970; and why the
        last time.

    refused
        Who does not take it, in words.

    outcome, done_at
        What became of it (:data:`SENT`, :data:`REFUSED` or :data:`GIVEN_UP`), and when; empty and
        None while it waits.
    """

    lane: str
    way: str
    address: Mapping[str, Any]
    body: bytes = field(repr=False)
    incident: str = ""
    queued_at: float = 0.0
    id: int = 0
    tries: int = 0
    next_at: float = 0.0
    why: str = ""
    refused: str = ""
    outcome: str = ""
    done_at: float | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """What came of an attempt to send a parcel.

    done
        It need not be tried again: everybody has it, or has refused it.

    later
        Why it must be tried again, in words.

    refused
        Who does not take it, and why, in words.

    left
        The address of those who still have to get it; None if that is the same as before.
    """

    done: bool
    later: str = ""
    refused: str = ""
    left: Mapping[str, Any] | None = None


Way = Callable[[Parcel], Delivery]


@dataclass(frozen=True, slots=True)
class Queue:
    """What waits in one lane for one way.

    oldest
        When the first of them was queued, in seconds since 1970.

    tries, next_at, why
        Of the one that holds up the others.
    """

    lane: str
    way: str
    waiting: int
    oldest: float
    tries: int
    next_at: float
    why: str


class Outbox:
    """What waits to be sent; for any number of threads of the one process that sends.

    All methods raise :py:class:`~saltext.lvs.journal.JournalError` where the book cannot be used.
    """

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self._guard = threading.Lock()
        self._lanes: set[str] = set()
        # What came of parcels and could not be written down.
        self._owed: dict[int, tuple[Parcel, dict[str, Any]]] = {}

    @contextlib.contextmanager
    def sender(self) -> Iterator[bool]:
        """Whether this is the one process that sends, from now until this is left.

        Without waiting: whoever gets False asks again later, as the other one may end.
        Raises :class:`~saltext.lvs.errors.NotAvailable` or
        :class:`~saltext.lvs.errors.CommandFailed` where nobody can have the lock.
        """
        files.make_folder(os.path.dirname(self.journal.path), FOLDER_MODE)
        with locking.exclusive(f"{self.journal.path}.sender", wait=False) as ours:
            yield ours

    # ----------------------------------------------------------------------------------------------
    # What is due

    def lanes_due(self, now: float) -> tuple[str, ...]:
        """The lanes whose first parcel may be sent, that which has waited for longest first.

        now
            Seconds since 1970.
        """
        rows = self._firsts()
        return tuple(row["lane"] for row in rows if _is_due(row["next_at"], now))

    def due(self, lane: str, now: float) -> Parcel | None:
        """The first parcel of a lane, with its body, if it may be sent now.

        What came of earlier ones is on the disk when this returns one: otherwise nothing would keep
        them from being sent over and over while the disk is full.
        """
        self._settle()
        with self.journal.reading() as book:
            rows = book.rows(
                "SELECT * FROM outbox WHERE done_at IS NULL AND lane = ? ORDER BY id LIMIT 1", lane
            )
        if not rows or not _is_due(rows[0]["next_at"], now):
            return None
        return _parcel(rows[0])

    def next_at(self) -> float | None:
        """When something is due, in seconds since 1970; None if nothing waits."""
        rows = self._firsts()
        return float(rows[0]["next_at"]) if rows else None

    def _firsts(self) -> list[sqlite3.Row]:
        with self.journal.reading() as book:
            return book.rows(FIRSTS)

    @contextlib.contextmanager
    def at_work(self, lane: str) -> Iterator[bool]:
        """Whether no other thread of this process sends in that lane, until this is left."""
        with self._guard:
            free = lane not in self._lanes
            self._lanes |= {lane}
        try:
            yield free
        finally:
            if free:
                with self._guard:
                    self._lanes -= {lane}

    # ----------------------------------------------------------------------------------------------
    # What came of it

    def sent(self, parcel: Parcel, now: float, refused: str = "") -> None:
        """It need not be sent again.

        refused
            Who does not take it, and why; empty where all have it.
        """
        told = _joined(parcel.refused, refused)
        outcome = REFUSED if told else SENT
        self._note(parcel, {"outcome": outcome, "done_at": now, "refused": told, "body": None})

    def give_up(self, parcel: Parcel, why: str, now: float) -> None:
        """It is not tried again, although nobody has refused it."""
        ended = {"outcome": GIVEN_UP, "done_at": now, "body": None}
        self._note(parcel, {**ended, "tries": parcel.tries + 1, "why": short(why)})

    def put_off(
        self,
        parcel: Parcel,
        why: str,
        now: float,
        left: Mapping[str, Any] | None = None,
        refused: str = "",
    ) -> None:
        """It is tried again later, and its lane waits for that.

        left
            The address of those who still have to get it; None if that is the same as before.
        """
        changed = {
            "tries": parcel.tries + 1,
            "next_at": now + pause_seconds(parcel.tries + 1),
            "why": short(why),
            "refused": _joined(parcel.refused, refused),
        }
        if left is not None:
            changed["address"] = json.dumps(dict(left), allow_nan=False)
        self._note(parcel, changed)

    def _note(self, parcel: Parcel, changed: dict[str, Any]) -> None:
        with self._guard:
            self._owed[parcel.id] = parcel, changed
        self._settle()

    def _settle(self) -> None:
        """Write down what came of parcels."""
        with self._guard:
            owed = list(self._owed.values())
        if not owed:
            return
        with self.journal.writing() as pen:
            for parcel, changed in owed:
                names = ", ".join(f"{name} = ?" for name in changed)
                # In a book that was begun anew, the id may be another parcel's.
                pen.change(
                    f"UPDATE outbox SET {names}"
                    " WHERE id = ? AND lane = ? AND queued_at = ? AND done_at IS NULL",
                    *(*changed.values(), parcel.id, parcel.lane, parcel.queued_at),
                )
        with self._guard:
            for parcel, changed in owed:
                if self._owed.get(parcel.id) == (parcel, changed):
                    del self._owed[parcel.id]

    # ----------------------------------------------------------------------------------------------
    # For persons

    def pending(self, limit: int) -> tuple[Parcel, ...]:
        """What waits, in the order in which it was queued; without bodies."""
        return self._listed("WHERE done_at IS NULL ORDER BY id LIMIT ?", max(0, limit))

    def history(self, limit: int, incident: str | None = None) -> tuple[Parcel, ...]:
        """What was sent or given up last, newest first; of one incident, if that is given."""
        return self._listed(
            "WHERE done_at IS NOT NULL AND (?1 IS NULL OR incident = ?1)"
            " ORDER BY done_at DESC, id DESC LIMIT ?2",
            incident,
            max(0, limit),
        )

    def summary(self) -> tuple[Queue, ...]:
        """What waits, by lane and way."""
        with self.journal.reading() as book:
            rows = book.rows(
                "SELECT lane, way, waiting, oldest, tries, next_at, why FROM"
                " (SELECT lane AS its, way AS by, count(*) AS waiting, min(queued_at) AS oldest,"
                " min(id) AS first FROM outbox WHERE done_at IS NULL GROUP BY lane, way)"
                " JOIN outbox ON id = first ORDER BY lane, way"
            )
        return tuple(Queue(**dict(row)) for row in rows)

    def _listed(self, which: str, *values: Any) -> tuple[Parcel, ...]:
        with self.journal.reading() as book:
            rows = book.rows(f"SELECT {WITHOUT_BODY} FROM outbox {which}", *values)
        return tuple(map(_parcel, rows))


def pause_seconds(tries: int) -> float:
    """For how long a lane waits after so many failures, at least one."""
    return float(min(FIRST_PAUSE_SECONDS * 2 ** min(tries - 1, 30), LONGEST_PAUSE_SECONDS))


# --------------------------------------------------------------------------------------------------
# Sending


def deliver(outbox: Outbox, ways: Mapping[str, Way], now: float) -> int:
    """Send what is due, the first parcel of each lane; returns how many need not be sent again.

    A parcel whose way fails is put off, and given up after :data:`GIVE_UP_SECONDS`.

    now
        Seconds since 1970.

    Raises :py:class:`~saltext.lvs.journal.JournalError` where the book cannot be used; nothing more
    is sent then, until it can.
    """
    return sum(
        _deliver_first(outbox, lane, ways, lambda: now) or 0 for lane in outbox.lanes_due(now)
    )


def deliver_lane(
    outbox: Outbox,
    lane: str,
    ways: Mapping[str, Way],
    clock: Callable[[], float],
    stop: Callable[[], bool],
) -> int:
    """Send what is due in one lane, until nothing is; returns how many need not be sent again.

    For a thread of its own: a way may take a minute for each parcel. Where another thread sends in
    the lane already, this returns at once.

    clock
        Tells the seconds since 1970.

    stop
        Whether to end before the next parcel.

    Raises what :func:`deliver` does.
    """
    done = 0
    while not stop() and (sent := _deliver_first(outbox, lane, ways, clock)) is not None:
        done += sent
    return done


def _deliver_first(
    outbox: Outbox, lane: str, ways: Mapping[str, Way], clock: Callable[[], float]
) -> int | None:
    """Try the first parcel of a lane: 1 if it is done with; None if there was nothing to try."""
    with outbox.at_work(lane) as free:
        parcel = outbox.due(lane, clock()) if free else None
        if parcel is None:
            return None
        delivery = _attempt(parcel, ways)
        _note(outbox, parcel, delivery, clock())
        return int(delivery.done)


def _attempt(parcel: Parcel, ways: Mapping[str, Way]) -> Delivery:
    if parcel.way not in ways:
        return Delivery(done=False, later=f"nothing here sends by {parcel.way!r}")
    try:
        return ways[parcel.way](parcel)
    except Exception as error:  # noqa: BLE001 -- whatever it is, the other lanes are to be sent
        return Delivery(done=False, later=_words_of(error))


def _note(outbox: Outbox, parcel: Parcel, delivery: Delivery, now: float) -> None:
    if delivery.done:
        outbox.sent(parcel, now, delivery.refused)
        return
    why = delivery.later or "no reason was given"
    if now - parcel.queued_at >= GIVE_UP_SECONDS:
        log.error("Parcel %s (%s) is given up: %s", parcel.id, parcel.lane, short(why))
        outbox.give_up(parcel, why, now)
        return
    log.warning("Parcel %s (%s) is to be tried again: %s", parcel.id, parcel.lane, short(why))
    outbox.put_off(parcel, why, now, delivery.left, delivery.refused)


def _words_of(error: Exception) -> str:
    """What an exception says, where it can be no secret: others quote what they were given, which
    may be a password in a header or in an address.
    """
    if isinstance(error, LvsError):
        return str(error)
    kind = type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        return f"{kind}: {error.strerror}"
    frame = sys.exc_info()[2]
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    place = (
        f"{os.path.basename(frame.tb_frame.f_code.co_filename)}:{frame.tb_lineno}" if frame else "?"
    )
    return f"{kind} at {place}"


def _is_due(next_at: float, now: float) -> bool:
    """A moment that no pause leads to comes of a clock that was set back since."""
    return not now < next_at <= now + LONGEST_PAUSE_SECONDS


def _joined(*words: str) -> str:
    return short("; ".join(one for one in words if one))


def _parcel(row: sqlite3.Row) -> Parcel:
    values = dict(row)
    return Parcel(**{**values, "address": _address(row["address"]), "body": row["body"] or b""})


def _address(text: str) -> dict[str, Any]:
    """An empty one where somebody has edited it: its way will say what it lacks."""
    try:
        found = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
