"""The book of incidents: what is written stays, whoever is killed, and whatever the disk does."""

from __future__ import annotations

import contextlib
import glob
import json
import logging
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from saltext.lvs import incidents, journal, locking
from saltext.lvs.incidents import Incident, Kind, Moment, Part, Severity, Subject, Told, Trouble
from saltext.lvs.journal import Action, Ambiguous, Journal, JournalError, Unreadable
from saltext.lvs.outbox import Outbox, Parcel

NOW = 1_795_000_000.0
DAY = 24 * 3600.0
LIBRARY = str(Path(journal.__file__).parents[2])


@pytest.fixture
def book(tmp_path: Path) -> Journal:
    return Journal(str(tmp_path / "cache" / "incidents.sqlite"))


def incident(name: str = "a", opened: float = NOW, **values: object) -> Incident:
    trouble = Trouble(
        Subject("servers", "rs1:80 of web"),
        Severity.WARNING,
        "rs1:80 OUT of web",
        "rs1:80 back in web",
        told_by=("lb1",),
        commands=("salt lb1 lvs.health",),
    )
    right = {"cluster": "prod", "group": "servers", "parts": (Part(trouble, opened),)}
    return Incident(**{**right, "id": name, "opened": opened, **values})


def parcel(body: bytes = b"a letter", **values: object) -> Parcel:
    right = {"lane": "mail", "way": "mail", "address": {"to": ["noc@example.com"]}, "body": body}
    return Parcel(**{**right, "queued_at": NOW, **values})


def action(at: float = NOW, **values: object) -> Action:
    right = {"cluster": "prod", "minion": "rs1", "subject": "vip", "what": "dummy.repair"}
    return Action(**{**right, "at": at, **values})


def keep(book: Journal, *several: Incident) -> None:
    with book.writing() as pen:
        for one in several:
            pen.keep(one)


def act(book: Journal, *several: Action) -> None:
    with book.writing() as pen:
        for one in several:
            pen.act(one)


def names(found: tuple[Incident, ...]) -> list[str]:
    return [one.id for one in found]


def forked(work: Callable[[], object]) -> int:
    """A child that does this and ends, with 1 if it fails; its number."""
    child = os.fork()
    if not child:
        ends = 1
        try:
            work()
            ends = 0
        finally:
            os._exit(ends)
    return child


def ending(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def edit(book: Journal, statement: str, *values: object) -> None:
    """As somebody with the sqlite3 program does it."""
    with contextlib.closing(sqlite3.connect(book.path)) as connection, connection:
        connection.execute(statement, values)


# --------------------------------------------------------------------------------------------------
# What is written is read

texts = st.text(max_size=20)
times = st.floats(0, 2 * NOW)
subjects = st.builds(Subject, texts, texts)
troubles = st.builds(
    Trouble,
    subjects,
    st.sampled_from(Severity),
    texts,
    texts,
    texts,
    told_by=st.lists(texts, max_size=2).map(tuple),
    commands=st.lists(texts, max_size=2).map(tuple),
)
parts = st.builds(Part, troubles, times, st.none() | times, st.integers(1, 9))
whole = st.builds(
    Incident,
    id=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20),
    cluster=texts,
    group=texts,
    opened=times,
    parts=st.lists(parts, min_size=1, max_size=3).map(tuple),
    closed=st.none() | times,
    moments=st.lists(st.builds(Moment, times, texts), max_size=2).map(tuple),
    told=st.lists(st.builds(Told, st.sampled_from(Kind), times), max_size=2).map(tuple),
    calm_seconds=times,
    news_at=st.none() | times,
)


@given(st.lists(whole, max_size=4, unique_by=lambda one: one.id))
def test_what_is_written_is_read_again_whatever_minions_say(tmp_path_factory, several):
    book = Journal(str(tmp_path_factory.mktemp("book") / "incidents.sqlite"))

    keep(book, *several)

    assert {one.id: one for one in book.history(10)} == {one.id: one for one in several}
    assert {one.id: book.incident(one.id) for one in several} == {one.id: one for one in several}


def test_text_that_is_no_unicode_can_be_written(book):
    strange = incident(cluster="pr\udcffod")
    odd = action(
        cluster="\udcff", minion="rs\udcff", subject="v\x00ip", result="no\n\x1b[31m\u202eyes"
    )

    keep(book, strange)
    act(book, odd)

    assert book.history(9) == book.open_incidents("pr\udcffod") == (strange,)
    assert book.actions(9, minion="rs\udcff") == (
        replace(odd, id=1, cluster="?", minion="rs?", result="no [31m yes"),
    )


def test_a_result_of_any_size_is_cut(book):
    act(book, action(result="x" * 10**7))

    assert book.actions(1)[0].result == "x" * 997 + "..."


def test_without_a_book_there_is_nothing_and_none_is_made_by_looking(book):
    assert book.open_incidents("prod") == book.history(9) == book.actions(9) == ()
    assert book.incident("a") is None
    assert book.spent("rs1", "vip", 0) == 0
    assert book.prune(NOW, DAY, 10**6) == 0
    assert Outbox(book).lanes_due(NOW) == Outbox(book).pending(9) == Outbox(book).summary() == ()
    assert Outbox(book).next_at() is None
    assert not os.path.exists(os.path.dirname(book.path))


def test_an_incident_takes_the_place_of_what_was_known_of_it(book):
    keep(book, incident())
    later = incident(closed=NOW + 60, omitted=3)

    keep(book, later)

    assert book.history(9) == (later,)
    assert book.open_incidents("prod") == ()


def test_all_of_a_transaction_or_nothing_is_written(book):
    keep(book, incident("before"))

    def write_and_fail() -> None:
        with book.writing() as pen:
            pen.keep(incident("after"))
            pen.queue(parcel())
            pen.act(action())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()

    assert names(book.history(9)) == ["before"]
    assert book.actions(9) == Outbox(book).pending(9) == ()


def test_what_cannot_be_written_is_an_error_and_changes_nothing(book):
    with pytest.raises(ValueError, match="JSON"):
        keep(book, incident("first"), incident("second", opened=float("nan")))

    assert book.history(9) == ()


# --------------------------------------------------------------------------------------------------
# What is found

OPEN_OLD = incident("1-open", opened=NOW - 500)
CLOSED_OLD = incident("2-closed", opened=NOW - 400, closed=NOW - 300)
CLOSED_LATELY = incident("3-closed", opened=NOW - 350, closed=NOW - 100)
OPEN_NEW = incident("4-open", opened=NOW - 50)
OTHERS = incident("5-other", opened=NOW - 20, cluster="staging")
ALL = (OPEN_NEW, OPEN_OLD, CLOSED_LATELY, CLOSED_OLD, OTHERS)


@pytest.mark.parametrize(
    ("ask", "expected"),
    [
        pytest.param(
            lambda book: book.open_incidents("prod"),
            (OPEN_OLD, OPEN_NEW),
            id="open ones, the oldest first",
        ),
        pytest.param(
            lambda book: book.open_incidents("prod", NOW - 100),
            (OPEN_OLD, CLOSED_LATELY, OPEN_NEW),
            id="and those that were closed at a moment or later",
        ),
        pytest.param(
            lambda book: book.open_incidents("prod", 0),
            (OPEN_OLD, CLOSED_OLD, CLOSED_LATELY, OPEN_NEW),
            id="and all",
        ),
        pytest.param(lambda book: book.open_incidents("pro"), (), id="none of an unknown cluster"),
        pytest.param(
            lambda book: book.history(9),
            (OTHERS, OPEN_NEW, CLOSED_LATELY, CLOSED_OLD, OPEN_OLD),
            id="the history, the newest first",
        ),
        pytest.param(
            lambda book: book.history(2), (OTHERS, OPEN_NEW), id="as many as are asked for"
        ),
        pytest.param(lambda book: book.history(0), (), id="none where none is asked for"),
        pytest.param(lambda book: book.history(-1), (), id="and never all by a slip"),
        pytest.param(
            lambda book: book.history(2, cluster="prod"),
            (OPEN_NEW, CLOSED_LATELY),
            id="of one cluster",
        ),
        pytest.param(
            lambda book: book.history(9, is_open=True),
            (OTHERS, OPEN_NEW, OPEN_OLD),
            id="the history of what is open",
        ),
        pytest.param(
            lambda book: book.history(1, is_open=False),
            (CLOSED_LATELY,),
            id="the history of what is not",
        ),
        pytest.param(
            lambda book: book.history(9, "prod", before=NOW - 350),
            (CLOSED_OLD, OPEN_OLD),
            id="of before a moment",
        ),
        pytest.param(lambda book: book.incident("3-closed"), CLOSED_LATELY, id="by the whole id"),
        pytest.param(lambda book: book.incident("3"), CLOSED_LATELY, id="by how the id begins"),
        pytest.param(lambda book: book.incident("closed"), None, id="not by how it ends"),
        pytest.param(lambda book: book.incident("%"), None, id="a wildcard is none"),
        pytest.param(lambda book: book.incident(""), None, id="not by nothing"),
    ],
)
def test_incidents_are_found(book, ask, expected):
    keep(book, *ALL)

    assert ask(book) == expected


def test_an_id_that_begins_several_names_them(book):
    keep(book, *(incident(f"20261123-{number}") for number in range(7)), incident("20261123"))

    assert book.incident("20261123").id == "20261123"
    with pytest.raises(Ambiguous) as caught:
        book.incident("2026112")
    assert str(caught.value) == (
        "'2026112' begins several ids: "
        "20261123, 20261123-0, 20261123-1, 20261123-2, 20261123-3, ..."
    )


def test_actions_are_found_and_counted(book):
    done = (
        action(NOW - 30, changed=True, incident="a"),
        action(NOW - 20),
        action(NOW - 10, changed=True, took_seconds=1.5, cause="lost", result="put back"),
        action(NOW, minion="rs2", changed=True),
        action(NOW, subject="arp", changed=True, cluster="staging"),
    )
    act(book, *done)
    first, second, third, fourth, fifth = (replace(one, id=i) for i, one in enumerate(done, 1))

    assert book.actions(9) == (fifth, fourth, third, second, first)
    assert book.actions(2) == (fifth, fourth)
    assert book.actions(9, cluster="staging") == (fifth,)
    assert book.actions(9, minion="rs1", subject="vip") == (third, second, first)
    assert book.actions(9, incident="a") == (first,)
    assert book.spent("rs1", "vip", NOW - 30) == 2
    assert book.spent("rs1", "vip", NOW - 29) == 1
    assert book.spent("rs1", "vip", NOW) == 0


# --------------------------------------------------------------------------------------------------
# What somebody has edited


def document(**values: object) -> str:
    return json.dumps({**incidents.as_data(incident("b")), **values})


def with_part(**values: object) -> str:
    return document(parts=[{**incidents.as_data(incident("b"))["parts"][0], **values}])


EDITED = {
    "nothing": "",
    "half of it": document()[:-30],
    "a list": "[]",
    "a number": "7",
    "a million brackets": "[" * 1_000_000,
    "bytes that are no text": b"\xff\xfe{",
    "another one's": json.dumps(incidents.as_data(incident("c"))),
    "another cluster's": document(cluster="staging"),
    "an unknown key": document(colour="red"),
    "no trouble": document(parts=[]),
    "a trouble of an unknown severity": with_part(
        trouble={**incidents.as_data(incident())["parts"][0]["trouble"], "severity": "bad"}
    ),
    "a title that is a number": with_part(
        trouble={**incidents.as_data(incident())["parts"][0]["trouble"], "title": 7}
    ),
    "a beginning in words": document(opened="yesterday"),
    "a trouble since True": with_part(since=True),
    "an end that never comes": document(closed=float("inf")),
}


@pytest.mark.parametrize("edited", EDITED.values(), ids=EDITED.keys())
def test_what_cannot_be_read_back_is_left_out_with_a_word_and_stops_no_other(book, edited, caplog):
    keep(book, incident("a"), incident("b"), incident("c"))
    edit(book, "UPDATE incidents SET document = ? WHERE id = 'b'", edited)

    # SQLite keeps bytes as text where it is told that they are.
    edit(book, "UPDATE incidents SET document = CAST(document AS TEXT)")

    assert names(book.open_incidents("prod")) == ["a", "c"]
    assert names(book.history(9)) == ["c", "a"]

    assert list(book.unreadable) == ["b"]
    assert [one.levelno for one in caplog.records] == [logging.WARNING]
    with pytest.raises(JournalError, match=f"^incident b in {book.path} cannot be read: "):
        book.incident("b")


def test_what_is_right_again_is_read(book):
    keep(book, incident("a"))
    edit(book, "UPDATE incidents SET document = 'x'")
    assert book.history(9) == ()

    keep(book, incident("a"))

    assert names(book.history(9)) == ["a"]
    assert book.unreadable == {}


# --------------------------------------------------------------------------------------------------
# Who may read it


def modes(book: Journal) -> dict[str, int]:
    folder = os.path.dirname(book.path)
    return {name: stat.S_IMODE(os.stat(f"{folder}/{name}").st_mode) for name in os.listdir(folder)}


def test_nobody_else_can_read_any_of_its_files(book):
    before = os.umask(0)
    try:
        with book.writing() as pen:
            pen.keep(incident())
            meanwhile = modes(book)
    finally:
        os.umask(before)

    name = "incidents.sqlite"
    assert meanwhile == dict.fromkeys((name, f"{name}-wal", f"{name}-shm", f"{name}.lock"), 0o600)
    assert modes(book) == dict.fromkeys((name, f"{name}.lock"), 0o600)
    assert stat.S_IMODE(os.stat(os.path.dirname(book.path)).st_mode) == 0o700


def test_a_book_that_others_could_read_is_taken_from_them(book):
    keep(book, incident())
    os.chmod(book.path, 0o644)

    with book.writing():
        assert set(modes(book).values()) == {0o600}


def test_the_senders_lock_makes_a_folder_for_root_alone_too(book):
    with Outbox(book).sender() as ours:
        assert ours

    assert stat.S_IMODE(os.stat(os.path.dirname(book.path)).st_mode) == 0o700


# --------------------------------------------------------------------------------------------------
# Many at a time


def test_threads_and_processes_all_write(book):
    def write(writer: int) -> None:
        for number in range(10):
            with book.writing() as pen:
                pen.keep(incident(f"{writer}-{number}"))
                pen.queue(parcel())
            assert book.incident(f"{writer}-{number}") is not None

    children = [forked(lambda writer=writer: write(writer)) for writer in (1, 2)]
    threads = [threading.Thread(target=write, args=(writer,)) for writer in (3, 4, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [ending(child) for child in children] == [0, 0]

    assert sorted(names(book.history(99))) == sorted(
        f"{writer}-{number}" for writer in range(1, 6) for number in range(10)
    )
    assert len(Outbox(book).pending(99)) == 50


def test_children_that_are_forked_while_threads_write_can_write(book):
    over = threading.Event()

    def write_on() -> None:
        while not over.is_set():
            act(book, action())

    threads = [threading.Thread(target=write_on) for _ in range(2)]
    for thread in threads:
        thread.start()
    children = [forked(lambda name=name: keep(book, incident(name))) for name in "abcdefgh"]
    endings = [ending(child) for child in children]
    over.set()
    for thread in threads:
        thread.join()

    assert endings == [0] * 8
    assert sorted(names(book.history(9))) == list("abcdefgh")
    edit(book, "PRAGMA integrity_check")


def test_a_child_that_is_forked_amid_a_transaction_leaves_it_to_its_parent(book):
    keep(book, incident("before"))
    child = -1
    with contextlib.suppress(ZeroDivisionError), book.writing() as pen:
        pen.keep(incident("undone"))
        child = os.fork()
        if child:
            assert ending(child) == 0
            raise ZeroDivisionError
    if not child:
        try:
            book.history(9)
        except RuntimeError:
            os._exit(0)
        finally:
            os._exit(1)

    assert names(book.history(9)) == ["before"]


def test_a_book_that_is_open_is_not_opened_by_the_same_thread_again(book):
    with book.writing() as pen:
        pen.keep(incident())
        with pytest.raises(RuntimeError, match="open in this thread already"):
            book.history(9)

    assert names(book.history(9)) == ["a"]


def test_another_program_that_has_it_locked_is_told_of(book, monkeypatch):
    monkeypatch.setattr(journal, "BUSY_SECONDS", 0.05)
    keep(book, incident())
    with contextlib.closing(sqlite3.connect(book.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")

        with pytest.raises(JournalError) as caught:
            keep(book, incident("b"))

    assert str(caught.value) == (
        f"the book of incidents {book.path} cannot be used: another program has had it locked for "
        "5 seconds: end that"
    )
    keep(book, incident("b"))
    assert names(book.history(9)) == ["b", "a"]


def test_a_process_of_ours_that_is_stuck_is_named(book, monkeypatch):
    monkeypatch.setattr(locking, "PATIENCE_SECONDS", 0.1)
    keep(book, incident())
    tell, told = os.pipe()

    def stay() -> None:
        with book.writing():
            os.write(told, b"x")
            time.sleep(20)

    child = forked(stay)
    os.read(tell, 1)
    try:
        with pytest.raises(JournalError, match=f"locked for .* by process {child}; is it stopped"):
            book.history(9)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(tell)
        os.close(told)

    assert names(book.history(9)) == ["a"]


# --------------------------------------------------------------------------------------------------
# Killed


def keeps_and_acknowledges(book: Journal, first: int, told: int) -> None:
    for number in range(first, first + 10_000):
        with book.writing() as pen:
            pen.keep(incident(f"{number:06}"))
            pen.queue(parcel(f"opened {number}".encode(), incident=f"{number:06}"))
            pen.queue(parcel(f"again {number}".encode(), incident=f"{number:06}", lane="chat"))
        os.write(told, b"%d\n" % number)


def test_what_was_acknowledged_outlives_a_kill_at_any_moment_with_its_letters(book):
    chance = random.Random(20)
    acknowledged: set[str] = set()
    for kill in range(20):
        tell, told = os.pipe()
        child = forked(
            lambda first=kill * 10_000, told=told: keeps_and_acknowledges(book, first, told)
        )
        os.close(told)
        begun = os.read(tell, 1)
        time.sleep(chance.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(tell, "rb") as rest:
            acknowledged |= {f"{int(line):06}" for line in (begun + rest.read()).split()}

    kept = names(book.history(10**6))
    letters = sorted((one.incident, one.lane) for one in Outbox(book).pending(10**6))

    assert len(acknowledged) >= 20
    assert acknowledged <= set(kept)
    # One at most for each kill was written and could not be acknowledged any more.
    assert len(kept) - len(acknowledged) <= 20
    assert letters == sorted((name, lane) for name in kept for lane in ("mail", "chat"))


# --------------------------------------------------------------------------------------------------
# A full disk, and a file that cannot be written

FILLS = """
    import os, resource, sys, threading
    from saltext.lvs import journal
    sys.path.insert(0, sys.argv[2])
    from tests.unit.test_journal import incident, keep, names
    path, here, how = sys.argv[1:4]
    book = journal.Journal(path)
    keep(book, incident("before"))
    if how == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
    kept = 0
    try:
        for number in range(10_000):
            keep(book, incident(f"{number:05}", group="x" * 20_000))
            kept += 1
    except journal.JournalError as error:
        print(type(error).__name__, error)
    if how == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    else:
        os.unlink(path + ".ballast")
    keep(book, incident("after"))
    found = names(book.history(10_000))
    print(kept > 1, sorted(found) == sorted(["before", "after", *(f"{n:05}" for n in range(kept))]))
"""


def fills(path: str, how: str, *before: str) -> list[str]:
    """What a process says that writes until it cannot, and once more when there is room."""
    here = str(Path(__file__).parents[2])
    program = [sys.executable, "-c", textwrap.dedent(FILLS), path, here, how]
    done = subprocess.run(
        [*before, *program],
        env={**os.environ, "PYTHONPATH": f"{LIBRARY}:{here}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_file_that_may_not_grow_loses_nothing_and_goes_on_when_it_may(book):
    said = fills(book.path, "limit")

    assert said[1:] == ["True True"]
    assert said[0].startswith(f"JournalError the book of incidents {book.path} cannot be used: ")
    assert any(journal.ADVICE[sign] in said[0] for sign in ("disk is full", "I/O error"))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small file system")
def test_a_full_disk_loses_nothing_and_the_book_goes_on_when_there_is_room(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode:
        pytest.skip("needs a mount namespace")
    path = f"{small}/incidents.sqlite"
    mounts = f"mount -t tmpfs -o size=1m none {small} && head -c 300000 /dev/zero > {path}.ballast"

    said = fills(path, "mount", "unshare", "--mount", "sh", "-c", f'{mounts} && exec "$@"', "sh")

    assert said[1:] == ["True True"]
    assert said[0].startswith(f"JournalError the book of incidents {path} cannot be used: ")
    assert any(journal.ADVICE[sign] in said[0] for sign in ("disk is full", "I/O error"))


def test_sqlites_word_for_a_full_disk_is_known(book, monkeypatch):
    keep(book, incident())
    prepared = Journal._prepared

    def small(self, held, where):
        connection = prepared(self, held, where)
        connection.execute("PRAGMA max_page_count = 20")
        return connection

    monkeypatch.setattr(Journal, "_prepared", small)
    with pytest.raises(JournalError) as caught:
        keep(book, incident("b"), incident("c", group="x" * 500_000))
    monkeypatch.undo()

    assert str(caught.value) == (
        f"the book of incidents {book.path} cannot be used: its disk is full: make room there"
    )
    assert names(book.history(9)) == ["a"]


def test_a_path_where_no_file_can_be_is_told_of(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(
        JournalError, match=f"book of incidents {tmp_path}/file/book cannot be used"
    ):
        keep(Journal(str(tmp_path / "file" / "book")), incident())
    with pytest.raises(JournalError, match=f"book of incidents {tmp_path} cannot be used"):
        keep(Journal(str(tmp_path)), incident())


def test_a_folder_that_cannot_be_read_is_no_empty_book(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(JournalError, match="Not a directory"):
        Journal(str(tmp_path / "file" / "book")).history(9)


# --------------------------------------------------------------------------------------------------
# Other versions


def test_a_newer_versions_book_is_refused_and_stays_as_it_is(book):
    keep(book, incident())
    edit(book, f"PRAGMA user_version = {journal.VERSION + 1}")

    for use in (lambda: keep(book, incident("b")), lambda: book.history(9), book.renew):
        with pytest.raises(JournalError) as caught:
            use()
        assert type(caught.value) is JournalError
        assert str(caught.value) == (
            f"the book of incidents {book.path} has format 2, and this version of saltext-lvs "
            "knows 1: install the version that wrote it, or move it away"
        )

    edit(book, f"PRAGMA user_version = {journal.VERSION}")
    assert names(book.history(9)) == ["a"]


def test_another_programs_database_is_refused_and_stays_as_it_is(book):
    os.makedirs(os.path.dirname(book.path))
    edit(book, "CREATE TABLE theirs (x)")
    before = Path(book.path).read_bytes()

    with pytest.raises(JournalError, match="is another program's database"):
        keep(book, incident())

    assert Path(book.path).read_bytes() == before


def test_a_book_whose_making_was_cut_short_is_made(book):
    os.makedirs(os.path.dirname(book.path))
    Path(book.path).write_bytes(b"")
    assert book.history(9) == ()

    keep(book, incident())

    assert names(book.history(9)) == ["a"]


# --------------------------------------------------------------------------------------------------
# Damaged


def scribble(path: str) -> None:
    """Leave the header, and break what is behind it."""
    size = os.path.getsize(path)
    with open(path, "r+b") as file:
        file.seek(100)
        file.write(b"\xa5" * (size - 100))


def cut(path: str) -> None:
    os.truncate(path, os.path.getsize(path) // 2)


def overwrite(path: str) -> None:
    Path(path).write_bytes(b"no database at all\n" * 1000)


@pytest.mark.parametrize("damage", [scribble, cut, overwrite])
def test_a_damaged_book_is_put_aside_and_a_new_one_begun(book, damage):
    keep(book, *(incident(f"{number}", group="x" * 5000) for number in range(30)))
    damage(book.path)
    damaged = Path(book.path).read_bytes()

    with pytest.raises(Unreadable, match=f"^the book of incidents {book.path} is damaged"):
        book.history(99)
    aside = book.renew()
    keep(book, incident("new"))

    assert names(book.history(99)) == ["new"]
    assert aside.startswith(f"{book.path}.broken-2")
    assert Path(aside).read_bytes() == damaged
    assert glob.glob(f"{glob.escape(book.path)}.broken-*") == [aside]
    assert set(modes(book).values()) == {0o600}


def test_a_damaged_book_is_found_to_be_so_by_who_renews_it(book):
    keep(book, incident())
    scribble(book.path)

    assert os.path.exists(book.renew())
    assert book.history(9) == ()


def test_a_sound_book_is_not_put_aside(book):
    keep(book, incident())

    assert book.renew() == ""
    assert names(book.history(9)) == ["a"]


def test_of_several_who_find_it_damaged_one_puts_it_aside(book):
    keep(book, incident())
    overwrite(book.path)
    other = Journal(book.path)
    for one in (book, other):
        with pytest.raises(Unreadable):
            one.history(9)

    aside = book.renew()
    keep(book, incident("new"))

    assert other.renew() == ""
    assert book.renew() == aside
    assert names(other.history(9)) == ["new"]


def test_each_damaged_book_gets_a_name_of_its_own(book):
    asides = []
    for _ in range(3):
        keep(book, incident())
        overwrite(book.path)
        asides.append(book.renew())

    assert len(set(asides)) == 3
    assert all(map(os.path.exists, asides))


def test_the_log_of_a_damaged_book_does_not_get_into_the_new_one(book):
    """Whoever is killed amid a transaction leaves one."""
    tell, told = os.pipe()

    def write() -> None:
        keep(book, incident("old"))
        with book.writing() as pen:
            pen.keep(incident("older"))
            pen._connection.execute("COMMIT")
            os.write(told, b"x")
            time.sleep(20)

    child = forked(write)
    os.read(tell, 1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(tell)
    os.close(told)
    assert os.path.getsize(f"{book.path}-wal") > 0
    book._damaged = book._identity()

    aside = book.renew()

    assert book.history(9) == ()
    assert names(Journal(aside).history(9)) == ["older", "old"]


# --------------------------------------------------------------------------------------------------
# Forgetting


def test_what_has_been_over_for_long_is_forgotten_and_what_is_not_over_never(book):
    with book.writing() as pen:
        pen.keep(incident("open", opened=NOW - 900 * DAY))
        pen.keep(incident("over", opened=NOW - 95 * DAY, closed=NOW - 91 * DAY))
        pen.keep(incident("lately", opened=NOW - 95 * DAY, closed=NOW - 89 * DAY))
        pen.act(action(NOW - 91 * DAY))
        pen.act(action(NOW - 89 * DAY))
        for _ in range(3):
            pen.queue(parcel(queued_at=NOW - 95 * DAY))
    box = Outbox(book)
    box.sent(box.due("mail", NOW), NOW - 91 * DAY)
    box.give_up(box.due("mail", NOW), "nobody there", NOW - 89 * DAY)

    assert book.prune(NOW, 90 * DAY, 10**9) == 3

    assert names(book.history(9)) == ["lately", "open"]
    assert [one.at for one in book.actions(9)] == [NOW - 89 * DAY]
    assert [one.id for one in box.history(9)] == [2]
    assert [one.id for one in box.pending(9)] == [3]


def test_a_book_that_is_too_large_forgets_what_has_been_over_for_longest_and_gets_smaller(book):
    with book.writing() as pen:
        for number in range(300):
            opened = NOW - 400 + number
            closed = None if number % 10 == 0 else opened + 1
            pen.keep(incident(f"{number:03}", opened, closed=closed, group="x" * 10_000))
        pen.queue(parcel(b"x" * 100_000, queued_at=NOW - 500))
        pen.act(action(NOW - 500, changed=True))
    before = os.path.getsize(book.path)

    forgotten = book.prune(NOW, 90 * DAY, 1_500_000)

    left = names(book.history(999))
    closed = [name for name in left if not name.endswith("0")]
    assert before > 3_000_000 > 1_500_000 >= os.path.getsize(book.path) > 1_000_000
    assert len(left) == 300 - forgotten
    assert [name for name in left if name.endswith("0")] == [f"{n:03}" for n in range(290, -1, -10)]
    assert closed == [f"{n:03}" for n in range(299, 0, -1) if n % 10][: len(closed)] != []
    assert len(Outbox(book).pending(9)) == 1
    assert book.spent("rs1", "vip", NOW - 500) == 1


def test_the_actions_of_a_day_stay_however_short_all_else_is_kept(book):
    act(book, action(NOW - 2 * DAY), action(NOW - DAY / 2))
    keep(book, incident(closed=NOW - DAY / 2))

    assert book.prune(NOW, 3600, 10**9) == 2
    assert [one.at for one in book.actions(9)] == [NOW - DAY / 2]


def test_a_book_of_open_incidents_alone_stays_as_large_as_it_is(book):
    keep(book, *(incident(f"{number}", group="x" * 10_000) for number in range(50)))

    assert book.prune(NOW + 1000 * DAY, DAY, 1000) == 0
    assert len(book.history(99)) == 50


def test_others_write_while_much_is_forgotten(book, monkeypatch):
    monkeypatch.setattr(journal, "BATCH", 10)
    with book.writing() as pen:
        for number in range(2000):
            pen.keep(incident(f"{number}", NOW - 99 * DAY, closed=NOW - 98 * DAY))
    thread = threading.Thread(target=book.prune, args=(NOW, 90 * DAY, 10**9))
    thread.start()
    keep(book, incident("meanwhile"))
    left = len(book.history(9999))
    thread.join()

    assert names(book.history(9)) == ["meanwhile"]
    assert left > 1
