"""Files that change at once or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from saltext.lvs import files
from saltext.lvs.errors import CommandFailed


def test_a_new_file_stands_beside_and_is_private_from_the_first_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.conf"
    modes = []
    real = os.open

    def watched(name: str, *args: int, **kwargs: int) -> int:
        descriptor = real(name, *args, **kwargs)
        if str(name).startswith(str(tmp_path)):
            modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        return descriptor

    monkeypatch.setattr(os, "open", watched)
    umask = os.umask(0)
    try:
        with files.beside(str(path), "new\n") as temporary:
            assert Path(temporary).parent == tmp_path
            assert Path(temporary).read_text() == "new\n"
            assert not path.exists()
    finally:
        os.umask(umask)
    assert modes == [0o600]
    assert list(tmp_path.iterdir()) == []


def test_a_moved_file_takes_the_place_of_the_other(tmp_path: Path) -> None:
    path = tmp_path / "a.conf"
    path.write_text("old\n")
    with files.beside(str(path), "new\n") as temporary:
        files.move(temporary, str(path))
    assert path.read_text() == "new\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_written_file_takes_the_place_of_the_other_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "a.conf"
    path.write_text("old\n")
    path.chmod(0o644)
    files.write(str(path), "new\n")
    assert files.read(str(path)) == ("new\n", files.Access.private())
    assert list(tmp_path.iterdir()) == [path]


def test_a_written_file_is_for_those_who_may_have_it(tmp_path: Path) -> None:
    path = tmp_path / "a.conf"
    everybody = files.Access(0o644, os.geteuid(), os.getegid())
    files.write(str(path), "new\n", everybody)
    assert files.read(str(path)) == ("new\n", everybody)


def test_a_folder_is_made_once_with_those_above_it(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    files.make_folder(str(folder), 0o700)
    files.make_folder(str(folder), 0o755)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_folder_cannot_be_made_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(CommandFailed, match=f"^cannot make {tmp_path}/a/b: Not a directory$"):
        files.make_folder(str(tmp_path / "a" / "b"), 0o700)


def test_an_error_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "a.conf"
    path.write_text("old\n")
    with pytest.raises(ZeroDivisionError), files.beside(str(path), "new\n"):
        raise ZeroDivisionError
    assert path.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_an_error_in_words(tmp_path: Path) -> None:
    path = tmp_path / "no" / "a.conf"
    with (
        pytest.raises(CommandFailed, match=f"^cannot write to {path.parent}: No such file"),
        files.beside(str(path), "new\n"),
    ):
        pass


def test_a_file_that_is_not_there_reads_as_none(tmp_path: Path) -> None:
    assert files.read(str(tmp_path / "a.conf")) is None


def test_a_folder_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match=f"^cannot read {tmp_path}: Is a directory$"):
        files.read(str(tmp_path))


def test_access_is_read_and_set(tmp_path: Path) -> None:
    path = tmp_path / "a.conf"
    path.write_bytes(b"caf\xe9\r\n")
    path.chmod(0o644)
    found = files.read(str(path))
    assert found is not None
    text, access = found
    assert text == "caf\ufffd\r\n"
    private = files.Access.private()
    assert access.changes(private) == {"mode": {"old": "0644", "new": "0600"}}
    files.set_access(str(path), private)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
