"""What the state lvs.master does to a master's configuration, and what Salt makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import salt.config

from tests.functional.conftest import CHECKOUT, Minion, MinionMaker, example

OURS = (CHECKOUT / "lvs" / "files" / "master.conf").read_text(encoding="utf-8")
TAGS = [
    "lvs/vips/*/held",
    "salt/beacon/*/dummy/change",
    "salt/beacon/*/keepalived_vrrp/change",
    "salt/beacon/*/keepalived_vrrp/state",
    "salt/beacon/*/real_server/change",
    "salt/minion/*/start",
]
OWN = "reactor:\n  - 'own/tag': [salt://own.sls]\n"

# The main file of a master that gets ours.
FREE = {
    "no main file": None,
    "an empty main file": "",
    "a main file of comments alone": "# reactor: []\n",
    "a main file with other settings": "interface: 127.0.0.1\n#reactor: []\n",
    "a main file that names no reactions": "reactor: []\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a master's configuration is."""
    made = tmp_path / "etc"
    (made / "master.d").mkdir(parents=True)
    return made


@pytest.fixture
def beside(minion: MinionMaker, folder: Path) -> Minion:
    """The minion on that master."""
    return minion("lb1", {**example("production"), "lvs_master_conf_dir": str(folder)})


def applied(beside: Minion, state: str = "lvs.master", **options: Any) -> dict[str, Any]:
    answer = beside.call("state.apply", state, **options)
    assert isinstance(answer, dict), answer
    (only,) = answer.values()
    return {key: only[key] for key in ("__id__", "result", "name")}


def tags(folder: Path) -> list[str]:
    """What a master with this configuration reacts to."""
    reactor = salt.config.master_config(str(folder / "master"))["reactor"]
    return sorted(tag for item in reactor for tag in item)


@pytest.mark.parametrize("main", FREE.values(), ids=FREE.keys())
def test_a_master_gets_our_reactions_beside_those_of_other_files(
    beside: Minion, folder: Path, main: str | None
) -> None:
    if main is not None:
        (folder / "master").write_text(main, encoding="utf-8")
    (folder / "master.d" / "own.conf").write_text(OWN, encoding="utf-8")
    done = applied(beside)
    assert (done["__id__"], done["result"]) == ("lvs-master-config", True)
    assert (folder / "master.d" / "saltext-lvs.conf").read_text(encoding="utf-8") == OURS
    assert tags(folder) == sorted(["own/tag", *TAGS])


@pytest.mark.parametrize("test", [True, False], ids=["asked", "applied"])
def test_reactions_of_the_main_file_are_not_thrown_away(
    beside: Minion, folder: Path, test: bool
) -> None:
    (folder / "master").write_text(f"interface: 127.0.0.1\n{OWN}", encoding="utf-8")
    assert applied(beside, test=test) == {
        "__id__": "lvs-master-reactor-problem",
        "result": False,
        "name": (
            f"{folder}/master has a `reactor:` of its own, which {folder}/master.d/"
            "saltext-lvs.conf would replace: move it into a file of its own in "
            f"{folder}/master.d, and apply this again."
        ),
    }
    assert list((folder / "master.d").iterdir()) == []
    # That is what it is about.
    (folder / "master.d" / "saltext-lvs.conf").write_text(OURS, encoding="utf-8")
    assert tags(folder) == TAGS


# --------------------------------------------------------------------------------------------------
# lvs.alerts


def engines(folder: Path) -> list[str]:
    """What a master with this configuration runs beside itself."""
    configured = salt.config.master_config(str(folder / "master"))["engines"]
    return sorted(name for item in configured for name in item)


@pytest.mark.parametrize("main", ["", "engines: []\n"], ids=["nothing", "no engine"])
def test_a_master_gets_our_engine_beside_those_of_other_files(
    beside: Minion, folder: Path, main: str
) -> None:
    (folder / "master").write_text(main, encoding="utf-8")
    (folder / "master.d" / "own.conf").write_text("engines:\n  - own: {}\n", encoding="utf-8")
    done = applied(beside, "lvs.alerts")
    assert (done["__id__"], done["result"]) == ("lvs-alerts-config", True)
    assert engines(folder) == ["lvs_alerts", "own"]


@pytest.mark.parametrize("test", [True, False], ids=["asked", "applied"])
def test_engines_of_the_main_file_are_not_thrown_away(
    beside: Minion, folder: Path, test: bool
) -> None:
    (folder / "master").write_text("engines:\n  - own: {}\n", encoding="utf-8")
    assert applied(beside, "lvs.alerts", test=test) == {
        "__id__": "lvs-alerts-engines-problem",
        "result": False,
        "name": (
            f"{folder}/master has `engines:` of its own, which {folder}/master.d/"
            "saltext-lvs-alerts.conf would replace: move them into a file of their own in "
            f"{folder}/master.d, and apply this again."
        ),
    }
    assert list((folder / "master.d").iterdir()) == []
