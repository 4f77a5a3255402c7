"""The hosts' packages follow from what is installed on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab import cache, packages

STATUS = """\
Package: keepalived
Status: install ok installed
Architecture: amd64
Version: 1:2.2.7-1
Depends: libc6 (>= 2.34),
 libnl-3-200

Package: keepalived-tools
Status: install ok installed
Architecture: all
Version: 1.0
Description: only its name begins alike
 Version: of no package

Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9

Package: libc6
Status: install ok installed
Architecture: i386
Version: 2.36-8

Package: removed
Status: deinstall ok config-files
Architecture: amd64
Version: 3
"""


def test_packages_are_taken_out_whole_and_by_their_full_name() -> None:
    kept = packages.without(STATUS, ("keepalived", "removed"))
    assert kept == "\n\n".join(STATUS.split("\n\n")[1:4])


def test_taking_out_what_is_not_there_changes_nothing() -> None:
    assert packages.without(STATUS, ("ipvsadm", "keepalive")) == STATUS


def test_versions_are_of_what_is_installed() -> None:
    assert packages.versions(STATUS) == {
        "keepalived:amd64": "1:2.2.7-1",
        "keepalived-tools:all": "1.0",
        "libc6:amd64": "2.36-9",
        "libc6:i386": "2.36-8",
    }


@pytest.fixture
def status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dpkg status file and an empty cache folder, in place of this machine's."""
    monkeypatch.setenv("SALTEXT_LVS_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "status"
    path.write_text(STATUS)
    monkeypatch.setattr(packages, "STATUS", path)
    return path


def test_the_cache_is_kept_while_nothing_changes(status: Path) -> None:
    before = fill_cache()
    assert packages.is_fetched()
    # Not whether our own packages are installed here: hosts start without them.
    status.write_text(packages.without(STATUS, ("keepalived",)))
    assert fill_cache() == before


@pytest.mark.parametrize(
    "change",
    [("2.36-9", "2.36-10"), ("deinstall ok config-files", "install ok installed")],
    ids=["a library is upgraded", "a package is installed"],
)
def test_the_cache_is_made_anew_when(status: Path, change: tuple[str, str]) -> None:
    before = fill_cache()
    status.write_text(STATUS.replace(*change))
    assert not packages.is_fetched()
    after = fill_cache()
    assert after != before
    assert list(cache.folder().glob("packages*/")) == [after]


def fill_cache() -> Path:
    """What ``fetch`` does, but for the download."""
    return cache.build_once("packages", lambda part: None, packages._key())


def test_a_folder_that_could_not_be_filled_is_not_taken_for_whole(status: Path) -> None:
    def fail(part: Path) -> None:
        (part / "half").write_text("of it")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cache.build_once("packages", fail)
    assert [path.name for path in cache.folder().iterdir()] == ["packages.lock"]
