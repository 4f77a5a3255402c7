"""Locks between processes, some of which are forked while another thread holds one."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from saltext.lvs import locking
from saltext.lvs.errors import CommandFailed, NotAvailable


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "locks" / "table")


def is_free(path: str) -> bool:
    with locking.exclusive(path, wait=False) as got:
        return got


def comes_true(condition: Callable[[], bool]) -> bool:
    """Whether it does within some seconds: a child needs a moment to begin."""
    end = time.monotonic() + 10
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def forked(work: Callable[[], None]) -> int:
    """A child that does this and ends; its number."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(0)
    return child


@contextmanager
def held_by_a_thread(path: str) -> Iterator[None]:
    """Somebody else in this process has the lock."""
    taken, give_back = threading.Event(), threading.Event()

    def hold() -> None:
        with locking.exclusive(path):
            taken.set()
            give_back.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert taken.wait(10)
        yield
    finally:
        give_back.set()
        thread.join()


def dies_while_its_child_lives(path: str, work: Callable[[], None]) -> int:
    """A process that is killed while a thread of it holds the lock; the number of a child that it
    forked meanwhile, which does *work* afterwards.
    """
    tell, told = os.pipe()

    def work_later() -> None:
        time.sleep(0.2)
        work()

    def hold_and_fork() -> None:
        with held_by_a_thread(path):
            child = forked(work_later)
            os.write(told, str(child).encode())
            os.kill(os.getpid(), signal.SIGKILL)

    holder = forked(hold_and_fork)
    os.close(told)
    child = int(os.read(tell, 20))
    os.close(tell)
    assert os.waitstatus_to_exitcode(os.waitpid(holder, 0)[1]) == -signal.SIGKILL
    return child


def test_a_child_that_outlives_a_killed_holder_does_not_keep_its_lock(path: str) -> None:
    child = dies_while_its_child_lives(path, lambda: time.sleep(30))
    try:
        assert comes_true(lambda: is_free(path))
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_child_takes_the_lock_that_its_killed_parent_held(path: str, tmp_path: Path) -> None:
    def take() -> None:
        signal.alarm(20)
        with locking.exclusive(path):
            (tmp_path / "taken").touch()

    dies_while_its_child_lives(path, take)
    assert comes_true((tmp_path / "taken").exists)


def test_a_child_waits_until_the_other_thread_gives_the_lock_back(path: str) -> None:
    tell, told = os.pipe()

    def take() -> None:
        os.write(told, b"free" if is_free(path) else b"kept")
        with locking.exclusive(path):
            os.write(told, b"mine")

    with held_by_a_thread(path):
        child = forked(take)
        assert os.read(tell, 4) == b"kept"
    assert os.read(tell, 4) == b"mine"
    assert os.waitpid(child, 0)[1] == 0
    os.close(tell)
    os.close(told)
    assert is_free(path)


def test_a_child_that_was_forked_in_the_middle_does_not_give_its_parents_lock_back(
    path: str,
) -> None:
    with locking.exclusive(path):
        child = os.fork()
        if child:
            assert os.waitpid(child, 0)[1] == 0
            assert not is_free(path)
    if not child:
        os._exit(0)
    assert is_free(path)


def test_many_forks_during_many_locks_leave_no_descriptor_open(path: str) -> None:
    def descriptors() -> int:
        folder, count = Path("/proc/self/fd"), 0
        for number in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):
                count += os.readlink(folder / number) == path
        return count

    stop = threading.Event()

    def lock_and_give_back() -> None:
        while not stop.is_set():
            is_free(path)

    thread = threading.Thread(target=lock_and_give_back)
    thread.start()
    try:
        for _ in range(100):
            child = os.fork()
            if not child:
                os._exit(descriptors())
            # What the other thread had open is closed in the child.
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        stop.set()
        thread.join()
    assert descriptors() == 0


def test_who_waits_too_long_is_told_who_has_the_lock(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "PATIENCE_SECONDS", 0.3)
    with held_by_a_thread(path), pytest.raises(NotAvailable) as caught, locking.exclusive(path):
        pass
    assert str(caught.value) == (
        f"{path} has been locked for 0.3 seconds by process {os.getpid()}; is it stopped or stuck?"
    )
    with locking.exclusive(path) as got:
        assert got


# --------------------------------------------------------------------------------------------------
# Not too often


@pytest.mark.parametrize(
    ("age", "rest"),
    [(None, 0.0), (10.0, 0.0), (1.0, 2.0), (0.0, 3.0), (-3600.0, 3.0)],
    ids=[
        "there was none",
        "it was long ago",
        "it was a moment ago",
        "it was just now",
        "the clock was set back",
    ],
)
def test_who_is_paced_waits_until_the_last_one_is_a_while_ago(
    age: float | None, rest: float, tmp_path: Path
) -> None:
    stamp = tmp_path / "stamp"
    if age is not None:
        stamp.touch()
        os.utime(stamp, (0, 1_000_000.0 - age))
    assert locking.rest(str(stamp), 3.0, 1_000_000.0) == rest


def test_a_pace_is_noted_for_the_next_one(tmp_path: Path) -> None:
    stamp = str(tmp_path / "stamp")
    locking.pace(stamp, 0.2)
    began = time.monotonic()
    locking.pace(stamp, 0.2)
    assert 0.1 < time.monotonic() - began < 5.0


def test_a_pace_that_cannot_be_noted_is_told(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").touch()
    (tmp_path / "stamp").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CommandFailed, match="cannot write .*/stamp: Too many levels of symbolic"):
        locking.pace(str(tmp_path / "stamp"), 0.0)
