"""The pipes: nothing that is written is lost, and nothing that is no line does harm."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from saltext.lvs import pipes
from saltext.lvs.errors import WrongState
from saltext.lvs.pipes import Pipe


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "vrrp.fifo"
    os.mkfifo(found, 0o600)
    return found


@pytest.fixture
def pipe(path: Path) -> Iterator[Pipe]:
    opened = Pipe(str(path))
    yield opened
    opened.close()


@pytest.fixture
def write(path: Path, pipe: Pipe) -> Iterator[Callable[[bytes], int]]:
    """Write as keepalived does, which never waits."""
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    yield lambda data: os.write(descriptor, data)
    os.close(descriptor)


def test_whole_lines_are_read_and_a_part_waits_for_its_end(
    pipe: Pipe, write: Callable[[bytes], int]
) -> None:
    assert pipe.lines() == []
    write(b"one\ntwo\nthr")
    assert pipe.lines() == [b"one", b"two"]
    write(b"ee\n")
    assert pipe.lines() == [b"three"]


def test_a_line_that_is_too_long_is_passed_over_as_a_whole(
    pipe: Pipe, write: Callable[[bytes], int]
) -> None:
    write(b"before\n" + b"x" * 70_000)
    assert pipe.lines() == [b"before"]
    write(b"x" * 5000 + b"\nafter\n" + b"y" * 5000 + b"\nlast\n")
    assert pipe.lines() == [b"after", b"last"]


def test_a_reader_that_comes_back_finds_what_was_written_meanwhile(path: Path) -> None:
    keepalived = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        first = Pipe(str(path))
        first.close()
        os.write(keepalived, b"meanwhile\n")
        second = Pipe(str(path))
        assert second.lines() == [b"meanwhile"]
        second.close()
    finally:
        os.close(keepalived)


def test_only_one_of_ours_has_it_and_no_job_keeps_it(path: Path) -> None:
    first = Pipe(str(path))
    with pytest.raises(WrongState, match="is read by another watcher of this machine"):
        Pipe(str(path))
    child = os.fork()
    if not child:
        time.sleep(30)
        os._exit(0)
    try:
        first.close()
        Pipe(str(path)).close()
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_a_writer_that_comes_back_finds_what_it_wrote_read(path: Path, pipe: Pipe) -> None:
    for number in range(3):
        keepalived = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        os.write(keepalived, b"%d\n" % number)
        os.close(keepalived)
    assert pipe.lines() == [b"0", b"1", b"2"]


def test_it_takes_the_lines_of_all_servers_of_a_large_cluster(
    pipe: Pipe, write: Callable[[bytes], int]
) -> None:
    lines = [
        b"RS [10.10.%d.%d]:tcp:80 [10.10.10.10]:tcp:80 DOWN" % divmod(number, 250)
        for number in range(6000)
    ]
    for line in lines:
        write(line + b"\n")
    assert pipe.lines() == lines


def test_it_is_replaced_when_another_stands_in_its_place(path: Path, pipe: Pipe) -> None:
    assert pipe.is_current()
    path.rename(path.with_suffix(".old"))
    assert not pipe.is_current()
    os.mkfifo(path)
    assert not pipe.is_current()


def a_file(path: Path) -> None:
    path.write_text("INSTANCE")


def a_link(path: Path) -> None:
    os.mkfifo(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))


def nothing(path: Path) -> None:
    assert not path.exists()


@pytest.mark.parametrize("kind", [a_file, a_link, nothing, Path.mkdir])
def test_what_is_no_pipe_is_refused(kind: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "vrrp.fifo"
    kind(path)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(WrongState, match=str(path)):
        Pipe(str(path))
    assert len(os.listdir("/proc/self/fd")) == before


def test_somebody_else_who_reads_it_is_found(path: Path, pipe: Pipe) -> None:
    code = "import os, sys; os.open(sys.argv[1], os.O_RDONLY | os.O_NONBLOCK); input()"
    writes = code.replace("RDONLY | os.O_NONBLOCK", "WRONLY")
    others = [
        subprocess.Popen([sys.executable, "-c", one, path], stdin=subprocess.PIPE)
        for one in (code, writes)
    ]
    try:
        for other in others:
            while not any(name == str(path) for name in opened(other.pid)):
                assert other.poll() is None
        assert pipes.readers(str(path), lambda pid: pid == os.getpid()) == (others[0].pid,)
        assert set(pipes.readers(str(path), lambda _: False)) == {others[0].pid, os.getpid()}
    finally:
        for other in others:
            other.communicate()


def opened(pid: int) -> list[str]:
    folder = f"/proc/{pid}/fd"
    found = []
    for name in os.listdir(folder):
        try:
            found.append(os.readlink(f"{folder}/{name}"))
        except FileNotFoundError:
            continue
    return found


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=20))
def test_in_whatever_pieces_lines_come_they_are_the_same(path: Path, pieces: list[bytes]) -> None:
    opened, writer = Pipe(str(path)), os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        found = []
        for piece in pieces:
            os.write(writer, piece)
            found += opened.lines()
        assert found == b"".join(pieces).split(b"\n")[:-1]
    finally:
        opened.close()
        os.close(writer)
