"""The master's book of incidents: what is written down survives a kill and a power cut.

One SQLite file holds the incidents, what was put right automatically, and what waits to be sent
(:py:mod:`saltext.lvs.outbox`), so that an incident and the letters of it are written down together
or not at all. Nobody has the file open for longer than one transaction, and one at a time has it:
so a fork inherits no connection, which SQLite could not bear, and a damaged file can be put aside
while nobody writes to it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from saltext.lvs import files, incidents, locking
from saltext.lvs.errors import CommandFailed, LvsError, NotAvailable
from saltext.lvs.incidents import Incident

if TYPE_CHECKING:
    from saltext.lvs.outbox import Parcel

log = logging.getLogger(__name__)

FOLDER_MODE = 0o700
# "LVSj" in the file's header: the book is never written into another program's database.
APPLICATION = 0x4C56536A
VERSION = 1
# For other programs that have the file open; ours keep one another out by a lock beside it.
BUSY_SECONDS = 5.0
# What one transaction of prune takes away, and how many pages it gives back.
BATCH, SIZE_BATCH, PAGES = 500, 20, 1000
# How many remediations there were lately limits how many more there may be: those stay, whatever
# the size.
ACTIONS_SECONDS = 24 * 3600.0
MOST_CHARACTERS = 1000

TABLES = (
    """CREATE TABLE incidents (
        id TEXT PRIMARY KEY NOT NULL, cluster TEXT NOT NULL, opened REAL NOT NULL, closed REAL,
        document TEXT NOT NULL)""",
    "CREATE INDEX incidents_by_cluster ON incidents (cluster, closed)",
    "CREATE INDEX incidents_by_opened ON incidents (opened, id)",
    "CREATE INDEX incidents_by_closed ON incidents (closed) WHERE closed IS NOT NULL",
    """CREATE TABLE actions (
        id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, cluster TEXT NOT NULL,
        minion TEXT NOT NULL, subject TEXT NOT NULL, what TEXT NOT NULL, cause TEXT NOT NULL,
        result TEXT NOT NULL, took_seconds REAL NOT NULL, changed INTEGER NOT NULL,
        incident TEXT NOT NULL)""",
    "CREATE INDEX actions_by_at ON actions (at)",
    "CREATE INDEX actions_by_subject ON actions (minion, subject, at)",
    # An id is never used again, and the body is last: the other columns are read without it.
    """CREATE TABLE outbox (
        id INTEGER PRIMARY KEY AUTOINCREMENT, lane TEXT NOT NULL, way TEXT NOT NULL,
        incident TEXT NOT NULL, queued_at REAL NOT NULL, tries INTEGER NOT NULL,
        next_at REAL NOT NULL, why TEXT NOT NULL, refused TEXT NOT NULL, outcome TEXT NOT NULL,
        done_at REAL, address TEXT NOT NULL, body BLOB)""",
    "CREATE INDEX outbox_waiting ON outbox (lane, id) WHERE done_at IS NULL",
    "CREATE INDEX outbox_done ON outbox (done_at) WHERE done_at IS NOT NULL",
)
# All that may be forgotten, and since when it has been over.
OVER = """
    SELECT 'incidents' AS kind, rowid AS key, closed AS at FROM incidents WHERE closed IS NOT NULL
    UNION ALL SELECT 'actions', id, at FROM actions
    UNION ALL SELECT 'outbox', id, done_at FROM outbox WHERE done_at IS NOT NULL"""

# SQLite's own words (Python 3.10 does not hand on its error codes), and what they come to.
DAMAGED = ("malformed", "not a database", "unsupported file format")
ADVICE = {
    "disk is full": "its disk is full: make room there",
    "readonly": "it, its folder or its file system is read-only",
    "unable to open": "it, or its folder, cannot be opened by this user",
    "locked": f"another program has had it locked for {BUSY_SECONDS:g} seconds: end that",
    "I/O error": "its disk is full, or fails: make room there, and see the kernel's log",
}


class JournalError(LvsError):
    """The book cannot be read, or be written to; what was to be written is not in it."""


class Unreadable(JournalError):
    """The book is damaged; :py:meth:`Journal.renew` puts it aside."""


class Ambiguous(LvsError):
    """Several incidents have an id that begins so."""


@dataclass(frozen=True, slots=True)
class Action:
    """Something that was put right automatically, or was to be.

    at, took_seconds
        When it began, in seconds since 1970, and how long it took.

    subject, what, cause, result
        Of what, what was done, why, and what came of it.

    changed
        Whether it changed something: such actions are counted by :py:meth:`Journal.spent`.

    incident
        The id of the one that it belongs to, if there is one.

    id
        Given by the book.
    """

    at: float
    cluster: str
    minion: str
    subject: str
    what: str
    cause: str = ""
    result: str = ""
    took_seconds: float = 0.0
    changed: bool = False
    incident: str = ""
    id: int = 0


class Reader:
    """The book while it is open."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def rows(self, statement: str, *values: Any) -> list[sqlite3.Row]:
        """What a statement finds."""
        return self._connection.execute(statement, tuple(map(_storable, values))).fetchall()

    def number(self, statement: str, *values: Any) -> int:
        """The one number that a statement finds."""
        return int(self.rows(statement, *values)[0][0])


class Pen(Reader):
    """Writes one transaction."""

    def change(self, statement: str, *values: Any) -> sqlite3.Cursor:
        """Do as a statement says."""
        return self._connection.execute(statement, tuple(map(_storable, values)))

    def keep(self, incident: Incident) -> None:
        """Write an incident down, in the place of what is there of it."""
        self.change(
            "INSERT OR REPLACE INTO incidents VALUES (?, ?, ?, ?, ?)",
            incident.id,
            incident.cluster,
            incident.opened,
            incident.closed,
            json.dumps(incidents.as_data(incident), allow_nan=False),
        )

    def queue(self, parcel: Parcel) -> int:
        """Have a parcel sent; returns the id that it gets."""
        values = {
            "lane": parcel.lane,
            "way": parcel.way,
            "incident": parcel.incident,
            "queued_at": parcel.queued_at,
            "tries": parcel.tries,
            "next_at": parcel.next_at,
            "why": short(parcel.why),
            "refused": short(parcel.refused),
            "outcome": "",
            "address": json.dumps(dict(parcel.address), allow_nan=False),
            "body": parcel.body,
        }
        return self._insert("outbox", values)

    def act(self, action: Action) -> int:
        """Write an action down; returns the id that it gets."""
        values = {field.name: getattr(action, field.name) for field in fields(Action)}
        values.pop("id")
        long = {name: short(values[name]) for name in ("what", "cause", "result")}
        return self._insert("actions", {**values, **long})

    def _insert(self, table: str, values: Mapping[str, Any]) -> int:
        marks = ", ".join("?" * len(values))
        statement = f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})"
        return int(self.change(statement, *values.values()).lastrowid or 0)


class Journal:
    """The book in a file; for any number of threads and processes.

    Without a file, there is nothing in it; the first that is written makes the file, and its folder
    if there is none, for this user alone. All methods raise :py:class:`JournalError` where the book
    cannot be used, and :py:class:`Unreadable` where it is damaged.

    path
        An absolute path.
    """

    def __init__(self, path: str) -> None:
        # SQLite names its other files after the real one, wherever links lead to it.
        self.path = os.path.realpath(path)
        self._unreadable: dict[str, str] = {}
        self._damaged: tuple[int, int] | None = None
        self._aside = ""

    # ----------------------------------------------------------------------------------------------
    # Writing

    @contextlib.contextmanager
    def writing(self) -> Iterator[Pen]:
        """One transaction: all that is written with the pen, or nothing if an error leaves this.

        Be quick, and do not use the book otherwise meanwhile: everybody else waits. When this is
        left, all is on the disk.
        """
        with self._transaction(make=True) as pen:
            yield pen

    @contextlib.contextmanager
    def _transaction(self, make: bool) -> Iterator[Pen]:
        owner = os.getpid()
        with self._open(make) as connection:
            connection.execute("BEGIN IMMEDIATE")
            # Who does not get as far as the commit closes the connection, which rolls back.
            yield Pen(connection)
            if owner == os.getpid():
                connection.execute("COMMIT")

    # ----------------------------------------------------------------------------------------------
    # Reading

    @contextlib.contextmanager
    def reading(self) -> Iterator[Reader]:
        """The book, to look at; be quick, everybody else waits."""
        with self._open(make=False) as connection:
            yield Reader(connection)

    @property
    def unreadable(self) -> Mapping[str, str]:
        """The incidents that the last readings left out, by id, and what is wrong with them."""
        return dict(self._unreadable)

    def open_incidents(self, cluster: str, since: float | None = None) -> tuple[Incident, ...]:
        """A cluster's open incidents, oldest first.

        since
            Seconds since 1970: those too that were closed then or later.
        """
        return self._incidents(
            "WHERE cluster = ? AND (closed IS NULL OR closed >= ?) ORDER BY opened, id",
            cluster,
            math.inf if since is None else since,
        )

    def history(
        self,
        limit: int,
        cluster: str | None = None,
        before: float | None = None,
        is_open: bool | None = None,
    ) -> tuple[Incident, ...]:
        """The last incidents, newest first.

        before
            Seconds since 1970: only what was opened earlier.

        is_open
            Only those that are open, or only those that are not.
        """
        return self._incidents(
            "WHERE (?1 IS NULL OR cluster = ?1) AND opened < ?2"
            " AND (?3 IS NULL OR ?3 = (closed IS NULL))"
            " ORDER BY opened DESC, id DESC LIMIT ?4",
            cluster,
            math.inf if before is None else before,
            is_open,
            max(0, limit),
        )

    def incident(self, start: str) -> Incident | None:
        """The incident with an id, or with the only one that begins so; None if there is none.

        Raises :py:class:`Ambiguous` where several ids begin so, and :py:class:`JournalError` where
        it is there and cannot be read.
        """
        name = self._full_id(start)
        if name is None:
            return None
        found = self._incidents("WHERE id = ?", name)
        if not found and name in self._unreadable:
            raise JournalError(
                f"incident {name} in {self.path} cannot be read: {self._unreadable[name]}"
            )
        return found[0] if found else None

    def actions(
        self,
        limit: int,
        cluster: str | None = None,
        minion: str | None = None,
        subject: str | None = None,
        incident: str | None = None,
    ) -> tuple[Action, ...]:
        """The last actions, newest first; of one cluster, minion, subject, incident."""
        wanted = {"cluster": cluster, "minion": minion, "subject": subject, "incident": incident}
        given = {name: value for name, value in wanted.items() if value is not None}
        where = "".join(f" AND {name} = ?" for name in given)
        names = ", ".join(field.name for field in fields(Action))
        statement = f"SELECT {names} FROM actions WHERE 1{where} ORDER BY at DESC, id DESC LIMIT ?"
        with self.reading() as book:
            rows = book.rows(statement, *given.values(), max(0, limit))
        return tuple(Action(**{**dict(row), "changed": bool(row["changed"])}) for row in rows)

    def spent(self, minion: str, subject: str, since: float) -> int:
        """How many actions have changed something there, at that time or later.

        since
            Seconds since 1970; what is over for more than a day may be forgotten.
        """
        with self.reading() as book:
            return book.number(
                "SELECT count(*) FROM actions"
                " WHERE minion = ? AND subject = ? AND at >= ? AND changed",
                minion,
                subject,
                since,
            )

    def _full_id(self, start: str) -> str | None:
        if not start:
            return None
        with self.reading() as book:
            rows = book.rows(
                "SELECT id FROM incidents WHERE id >= ?1 AND id < ?1 || char(0x10FFFF)"
                " ORDER BY id LIMIT 6",
                start,
            )
        found = [str(row["id"]) for row in rows]
        if len(found) > 1 and found[0] != start:
            more = ", ..." if len(found) > 5 else ""
            raise Ambiguous(f"{start!r} begins several ids: {', '.join(found[:5])}{more}")
        return found[0] if found else None

    def _incidents(self, which: str, *values: Any) -> tuple[Incident, ...]:
        with self.reading() as book:
            rows = book.rows(f"SELECT id, cluster, document FROM incidents {which}", *values)
        read = (self._read_back(*row) for row in rows)
        return tuple(incident for incident in read if incident is not None)

    def _read_back(self, name: Any, cluster: Any, document: Any) -> Incident | None:
        try:
            incident = incidents.from_data(json.loads(document))
            _expect_sound(incident, name, cluster)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            self._leave_out(str(name), f"{type(error).__name__}: {error}")
            return None
        self._unreadable.pop(str(name), None)
        return incident

    def _leave_out(self, name: str, why: str) -> None:
        if name not in self._unreadable:
            log.warning(
                "Incident %r in %s is left out, it cannot be read: %s", name, self.path, why
            )
        self._unreadable[name] = short(why)

    # ----------------------------------------------------------------------------------------------
    # Keeping it small

    def prune(self, now: float, keep_seconds: float, most_bytes: int) -> int:
        """Forget what has been over for long, and if the file is too large, more than that.

        Open incidents and what waits to be sent always stay, and so do the actions of a day.

        now
            Seconds since 1970.

        keep_seconds
            For how long closed incidents, actions and what was sent are kept.

        most_bytes
            The size of the file above which what has been over for longest goes.

        Returns how much is forgotten: incidents, actions and parcels.
        """
        forgotten = 0
        old, lately = now - keep_seconds, now - ACTIONS_SECONDS
        while (gone := self._forget(old, min(old, lately), BATCH)) > 0:
            forgotten += gone
        while self._used() > most_bytes and (gone := self._forget(math.inf, lately, SIZE_BATCH)):
            forgotten += gone
        while self._shrinks():
            pass
        return forgotten

    def _forget(self, until: float, actions_until: float, most: int) -> int:
        """Take away some of what was over before; how much that was."""
        with self._transaction(make=False) as pen:
            rows = pen.rows(
                f"SELECT kind, key FROM ({OVER})"
                " WHERE at < ? AND (kind <> 'actions' OR at < ?) ORDER BY at LIMIT ?",
                until,
                actions_until,
                most,
            )
            for kind, key in rows:
                pen.change(f"DELETE FROM {kind} WHERE rowid = ?", key)
        _let_others_in()
        return len(rows)

    def _used(self) -> int:
        """The size that the file has without what is free in it, in bytes."""
        with self.reading() as book:
            pages = book.number("PRAGMA page_count") - book.number("PRAGMA freelist_count")
            return pages * book.number("PRAGMA page_size")

    def _shrinks(self) -> bool:
        """Give some of what is free back to the disk; whether that has to go on."""
        with self.reading() as book:
            free = book.number("PRAGMA freelist_count")
            book.rows(f"PRAGMA incremental_vacuum({PAGES})")
            left = book.number("PRAGMA freelist_count")
        _let_others_in()
        return 0 < left < free

    # ----------------------------------------------------------------------------------------------
    # When it is damaged

    def renew(self) -> str:
        """Put a damaged book aside, so that a new one begins.

        What was in it is lost: the incidents, and what waited to be sent. One that is sound stays,
        as somebody else may have been here first.

        Returns the name under which it is now; empty if it is sound and this object has put none
        aside.
        """
        if self._damaged is None:
            self._look_through()
        with self._words(), _alone(), locking.exclusive(self._lock):
            if self._damaged is not None and self._damaged == self._identity():
                self._aside = self._put_aside()
            self._damaged = None
        return self._aside

    def _look_through(self) -> None:
        with contextlib.suppress(Unreadable), self.reading() as book:
            found = str(book.rows("PRAGMA quick_check(1)")[0][0])
            if found != "ok":
                raise sqlite3.DatabaseError(f"malformed: {short(found)}")

    def _put_aside(self) -> str:
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        first = f"{self.path}.broken-{stamp}"
        names = (first, *(f"{first}-{number}" for number in range(2, 1000)))
        aside = next(name for name in names if not os.path.lexists(name))
        # The log goes first: a new book must never find it beside itself.
        for suffix in ("-wal", "-shm", ""):
            with contextlib.suppress(FileNotFoundError):
                os.stat(self.path + suffix)
                files.move(self.path + suffix, aside + suffix)
        return aside

    # ----------------------------------------------------------------------------------------------
    # The file

    @property
    def _lock(self) -> str:
        return f"{self.path}.lock"

    def _identity(self) -> tuple[int, int] | None:
        """Which file it is; None if there is none."""
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino

    @contextlib.contextmanager
    def _open(self, make: bool) -> Iterator[sqlite3.Connection]:
        """The book for this thread alone.

        make
            Make it if there is none; otherwise an empty one in memory takes its place.
        """
        with ExitStack() as held:
            with self._words():
                held.enter_context(_alone())
                connection = self._connected(held, make)
            try:
                yield connection
            except sqlite3.Error as error:
                raise self._in_words(error) from error

    def _connected(self, held: ExitStack, make: bool) -> sqlite3.Connection:
        if not make and self._identity() is None:
            return self._prepared(held, ":memory:")
        files.make_folder(os.path.dirname(self.path), FOLDER_MODE)
        held.enter_context(locking.exclusive(self._lock))
        if self._identity() is None:
            files.write(self.path, "")
        self._take_from_others()
        return self._prepared(held, self.path)

    def _take_from_others(self) -> None:
        """SQLite gives its other files the access that the book has."""
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                if os.stat(self.path + suffix).st_mode & 0o077:
                    os.chmod(self.path + suffix, files.PRIVATE)

    def _prepared(self, held: ExitStack, where: str) -> sqlite3.Connection:
        connection = sqlite3.connect(where, timeout=BUSY_SECONDS, isolation_level=None)
        _connections.append(connection)
        held.callback(_close, connection, os.getpid())
        connection.row_factory = sqlite3.Row
        # What somebody has edited must not keep the rest from being read.
        connection.text_factory = lambda value: value.decode("utf-8", "replace")
        connection.execute("PRAGMA synchronous = FULL")
        self._expect_ours(connection)
        return connection

    def _expect_ours(self, connection: sqlite3.Connection) -> None:
        book = Reader(connection)
        application = book.number("PRAGMA application_id")
        version = book.number("PRAGMA user_version")
        if (application, version) == (APPLICATION, VERSION):
            return
        if application == APPLICATION:
            raise JournalError(
                f"the book of incidents {self.path} has format {version}, and this version of "
                f"saltext-lvs knows {VERSION}: install the version that wrote it, or move it away"
            )
        if book.number("SELECT count(*) FROM sqlite_master"):
            raise JournalError(
                f"{self.path} is another program's database: give the book of incidents another "
                "path"
            )
        _begin(connection)

    @contextlib.contextmanager
    def _words(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._in_words(error) from error
        except OSError as error:
            raise self._error(f"{error.strerror or type(error).__name__}") from error
        except (CommandFailed, NotAvailable) as error:
            raise self._error(str(error)) from error

    def _in_words(self, error: sqlite3.Error) -> JournalError:
        words = str(error)
        if any(sign in words for sign in DAMAGED):
            self._damaged = self._identity()
            return Unreadable(f"the book of incidents {self.path} is damaged ({words})")
        return self._error(next((ADVICE[sign] for sign in ADVICE if sign in words), words))

    def _error(self, why: str) -> JournalError:
        return JournalError(f"the book of incidents {self.path} cannot be used: {why}")


def short(text: str) -> str:
    """Somebody else's words, fit to be kept and shown: printable, on one line, and not too long."""
    text = text[: MOST_CHARACTERS * 4]
    shown = " ".join("".join(one if one.isprintable() else " " for one in text).split())
    return shown if len(shown) <= MOST_CHARACTERS else f"{shown[: MOST_CHARACTERS - 3]}..."


def _storable(value: Any) -> Any:
    """SQLite takes no text that is not UTF-8, which a file name or an answer may be."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _begin(connection: sqlite3.Connection) -> None:
    """Begin a book in an empty file."""
    # These two count before there is a table, and outside of a transaction.
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    for statement in TABLES:
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")


def _expect_sound(incident: Incident, name: object, cluster: object) -> None:
    """What can be read is not yet an incident: one text for a time would stop every later step."""
    if (_storable(incident.id), _storable(incident.cluster)) != (name, cluster):
        raise ValueError("it is written down as another one")
    if not incident.parts:
        raise ValueError("it has no trouble")
    if not all(map(_is_time, _times(incident))):
        raise ValueError("a time in it is none")
    for part in incident.parts:
        told = part.trouble
        texts = (told.subject.group, told.subject.name, told.title, told.over, told.reason)
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("a text in it is none")


def _times(incident: Incident) -> Iterable[object]:
    yield from (incident.opened, incident.calm_seconds)
    yield from (one for one in (incident.closed, incident.news_at) if one is not None)
    yield from (part.since for part in incident.parts)
    yield from (part.until for part in incident.parts if part.until is not None)
    yield from (moment.at for moment in incident.moments)
    yield from (told.at for told in incident.told)


def _is_time(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------------------
# One at a time in this process

# Who has a book open, has this: a fork waits for it, as SQLite's own locks would be held for ever
# in the child.
_busy = threading.RLock()
_connections: list[sqlite3.Connection] = []


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    with _busy:
        if _connections:
            raise RuntimeError("the book is open in this thread already, or was when it forked")
        yield


def _close(connection: sqlite3.Connection, owner: int) -> None:
    """Close a connection, except in a child that was forked meanwhile: it is the parent's."""
    if owner == os.getpid():
        _connections.remove(connection)
        connection.close()


def _let_others_in() -> None:
    """Between two transactions of many: a lock does not by itself go to whoever waits for it."""
    time.sleep(0.001)


os.register_at_fork(
    before=_busy.acquire, after_in_parent=_busy.release, after_in_child=_busy.release
)
