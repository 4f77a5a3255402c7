"""Set-up: which Python is taken, how pip's settings reach uv, what is pinned."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.lab import cache
from tools import installer, interpreters, requirements

PIP = """\
#!/bin/sh
cat <<END
:env:.cert='/from/the/environment'
global.cert='/from/the/file'
global.extra-index-url='file:///elsewhere'
global.index-url='file:///mirror'
END
"""


def test_our_own_python_is_taken_where_it_is_in_the_range() -> None:
    found = interpreters.find((3, 10), (3, 99))
    assert found == interpreters.own()
    assert found.version == sys.version_info[:2]


def program(folder: Path, name: str, says: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{says}\n")
    path.chmod(0o755)


def test_the_newest_python_in_the_range_that_starts_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "python3.5", "echo 3 5")
    program(tmp_path, "python3.6", "echo 3 6")
    program(tmp_path, "python3.7", "echo not this one >&2; exit 127")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "nothing"))
    found = interpreters.find((3, 5), (3, 7))
    assert found == interpreters.Interpreter(str(tmp_path / "python3.6"), (3, 6))
    assert interpreters.find((3, 1), (3, 2)) is None


def test_uv_is_given_pips_index_and_certificates_the_strongest_source_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SALTEXT_LVS_CACHE", str(tmp_path))
    monkeypatch.delenv("UV_INDEX", raising=False)
    (tmp_path / "uv" / "bin").mkdir(parents=True)
    program(tmp_path / "uv" / "bin", "pip", PIP)
    environment = installer.uv_environment()
    assert environment["SSL_CERT_FILE"] == "/from/the/environment"
    assert environment["UV_DEFAULT_INDEX"] == "file:///mirror"
    assert "UV_INDEX" not in environment
    assert environment["UV_CACHE_DIR"] == f"{cache.folder()}/uv-cache"


@pytest.mark.parametrize("name", ["dev", "salt-3006", "salt-3007", "salt-3008"])
def test_every_package_is_pinned_and_none_is_fetched_by_its_address(name: str) -> None:
    rows = requirements.lines(f"{name}.txt")
    assert [row for row in rows if "==" not in row or "://" in row or "@" in row] == []
    wanted = {row.partition("==")[0].partition(">=")[0] for row in requirements.lines(f"{name}.in")}
    assert wanted <= {row.partition("==")[0] for row in rows}


def test_what_needs_a_compiler_is_left_out() -> None:
    for name in ("dev", "salt-3006", "salt-3007", "salt-3008"):
        rows = requirements.lines(f"{name}.txt")
        assert [row for row in rows if row.split("==")[0] in installer.LEFT_OUT] == []
