"""The pipes that keepalived writes to: made, put right, and nothing thrown away for them."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from saltext.lvs import fifos
from saltext.lvs.errors import WrongState


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    return tmp_path / "state" / "vrrp.fifo"


def made(path: Path) -> None:
    path.parent.mkdir()
    os.mkfifo(path, 0o600)


def told(path: Path) -> list[tuple[str, dict[str, object]]]:
    return [(str(change), change.as_data()) for change in fifos.plan([str(path)])]


def test_a_pipe_is_planned_made_and_then_right(pipe: Path) -> None:
    assert told(pipe) == [(f"make the pipe {pipe}", {"old": None, "new": "a pipe"})]
    assert not pipe.parent.exists()
    umask = os.umask(0o777)
    try:
        assert len(fifos.make([str(pipe)])) == 1
    finally:
        os.umask(umask)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert stat.S_IMODE(pipe.stat().st_mode) == 0o600
    assert fifos.make([str(pipe)]) == ()


def test_a_pipe_that_is_there_stays_the_same_one_with_what_is_in_it(pipe: Path) -> None:
    made(pipe)
    held = os.open(pipe, os.O_RDWR)
    os.write(held, b"line\n")
    pipe.chmod(0o644)
    old_new = {"mode": {"old": "0644", "new": "0600"}}
    assert told(pipe) == [(f"give {pipe} to root alone", old_new)]
    fifos.make([str(pipe)])
    assert stat.S_IMODE(pipe.stat().st_mode) == 0o600
    assert os.read(held, 100) == b"line\n"
    os.close(held)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away, which needs root")
def test_a_stale_pipe_of_somebody_else_is_taken_over(pipe: Path) -> None:
    made(pipe)
    os.chown(pipe, 1, 1)
    old_new = {"user": {"old": "1", "new": "0"}, "group": {"old": "1", "new": "0"}}
    assert told(pipe) == [(f"give {pipe} to root alone", old_new)]
    fifos.make([str(pipe)])
    assert (pipe.stat().st_uid, pipe.stat().st_gid) == (0, 0)


def test_an_empty_file_makes_room(pipe: Path) -> None:
    pipe.parent.mkdir()
    pipe.touch()
    words = f"make the pipe {pipe} in place of an empty file"
    assert told(pipe) == [(words, {"old": "an empty file", "new": "a pipe"})]
    fifos.make([str(pipe)])
    assert stat.S_ISFIFO(pipe.stat().st_mode)


IN_THE_WAY: dict[str, Callable[[Path], object]] = {
    "a file with something in it": lambda path: path.write_text("INSTANCE\n"),
    "a folder": lambda path: path.mkdir(),
    "a symbolic link": lambda path: path.symlink_to("/etc/passwd"),
    "a socket": lambda path: socket.socket(socket.AF_UNIX).bind(str(path)),
}


@pytest.mark.parametrize(("kind", "put"), IN_THE_WAY.items(), ids=IN_THE_WAY.keys())
def test_what_is_in_the_way_is_named_and_stays(
    kind: str, put: Callable[[Path], object], pipe: Path
) -> None:
    pipe.parent.mkdir()
    put(pipe)
    before = pipe.lstat()
    with pytest.raises(WrongState) as caught:
        fifos.make([str(pipe)])
    assert str(caught.value) == f"{pipe} is {kind}, and should be a pipe: take it away"
    assert pipe.lstat() == before
