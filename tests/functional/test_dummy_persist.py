"""The dummy module's files for the next boot under Salt's own loader, in folders of the test's own.

No interface is touched here; whether the files do what they are for is at the kernel level.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from salt.exceptions import SaltInvocationError
from saltext.lvs import persistence, realserver

from tests.functional.conftest import Minion, MinionMaker, example

# No machine has it.
INTERFACE = "lvs-test-none"
STEM = "saltext-lvs-vip-lvs-2dtest-2dnone"
PATHS = [f"etc/systemd/network/05-{STEM}.{ending}" for ending in ("netdev", "network")]
IFUPDOWN = f"etc/network/interfaces.d/{STEM}"


@pytest.fixture
def rs1(minion: MinionMaker) -> Minion:
    """A real server of the production example, with an interface that is nowhere."""
    pillar = example("production")
    pillar["lvs"]["vip_interface"] = INTERFACE
    return minion("rs1", pillar)


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folders of whoever keeps the network, elsewhere; systemd-networkd does here."""
    folder = tmp_path / "root"
    for name in ("NETWORKD", "INTERFACES", "KEYFILES", "UNITS"):
        monkeypatch.setattr(persistence, name, f"{folder}{getattr(persistence, name)}")
    monkeypatch.setattr(realserver, "RECORD", str(tmp_path / "dummy.json"))
    service = frozenset({"systemd-networkd"})
    monkeypatch.setattr(
        persistence, "read_facts", lambda: persistence.Facts(True, service, service)
    )
    return folder


def files(root: Path) -> list[str]:
    found = (path for path in root.rglob("*") if not path.is_dir())
    return sorted(str(path.relative_to(root)) for path in found)


def test_files_are_written_as_planned_and_only_once(rs1: Minion, root: Path) -> None:
    planned = rs1.call("dummy.plan_persist")
    assert files(root) == []
    assert planned == {
        "interface": INTERFACE,
        "operations": [f"write {root}/{path}" for path in PATHS],
        "changes": planned["changes"],
        "persisted_by": "systemd-networkd",
        "warnings": [],
    }
    assert list(planned["changes"]) == [f"{root}/{path}" for path in PATHS]
    assert "+Address=10.10.10.10/32\n" in planned["changes"][f"{root}/{PATHS[1]}"]["diff"]
    assert rs1.call("dummy.persist") == planned
    assert files(root) == PATHS
    for function in ("dummy.plan_persist", "dummy.persist"):
        assert rs1.call(function) == {**planned, "operations": [], "changes": {}}


def test_files_for_another_program_go_and_what_is_doubtful_is_said(rs1: Minion, root: Path) -> None:
    rs1.call("dummy.persist")
    changed = rs1.call("dummy.persist", persist="ifupdown")
    assert files(root) == [IFUPDOWN]
    assert changed["operations"] == [
        f"write {root}/{IFUPDOWN}",
        *(f"remove {root}/{path}" for path in PATHS),
    ]
    away = f"after a reboot {INTERFACE} stays away until Salt runs"
    assert changed["warnings"] == [
        f"{away}: the service networking is not enabled",
        f"{away}: {root}/etc/network/interfaces does not read the files beside it; it needs a line "
        f"`source {root}/etc/network/interfaces.d/*`",
    ]


def test_with_false_there_are_none(minion: MinionMaker, root: Path, rs1: Minion) -> None:
    rs1.call("dummy.persist")
    pillar = example("production")
    pillar["lvs"].update(vip_interface=INTERFACE, vip_persistence=False)
    answer = minion("rs2", pillar).call("dummy.persist")
    assert answer["operations"] == [f"remove {root}/{path}" for path in PATHS]
    assert (answer["persisted_by"], answer["warnings"], files(root)) == (None, [], [])


def test_without_a_pillar_who_keeps_the_network_is_found_out(
    minion: MinionMaker, root: Path
) -> None:
    answer = minion("elsewhere", {}).call("dummy.plan_persist", INTERFACE, ["10.10.10.10"])
    assert answer["operations"] == [f"write {root}/{path}" for path in PATHS]


def test_the_state_tells_files_with_the_rest_and_writes_none_in_test_mode(
    rs1: Minion, root: Path
) -> None:
    tested = rs1.state("dummy.present", INTERFACE, test=True)
    assert (tested["result"], list(tested["changes"])) == (
        None,
        [INTERFACE, "10.10.10.10/32", *(f"{root}/{path}" for path in PATHS)],
    )
    assert [line for line in tested["comment"].splitlines() if "write" in line] == [
        f"- write {root}/{path}" for path in PATHS
    ]
    assert files(root) == []


def test_the_states_own_argument_goes_before_the_pillars(rs1: Minion, root: Path) -> None:
    tested = rs1.state("dummy.present", INTERFACE, persist="ifupdown", test=True)
    assert f"- write {root}/{IFUPDOWN}" in tested["comment"].splitlines()
    assert "Beware: after a reboot" in tested["comment"]
    assert not {f"{root}/{path}" for path in PATHS} & set(tested["changes"])
    without = rs1.state("dummy.present", INTERFACE, persist=False, test=True)
    assert list(without["changes"]) == [INTERFACE, "10.10.10.10/32"]


def test_absent_takes_the_files_away_too(rs1: Minion, root: Path) -> None:
    rs1.call("dummy.persist")
    tested = rs1.state("dummy.absent", INTERFACE, test=True)
    assert (tested["result"], list(tested["changes"])) == (
        None,
        [f"{root}/{path}" for path in PATHS],
    )
    assert files(root) == PATHS
    done = rs1.state("dummy.absent", INTERFACE)
    assert (done["result"], done["changes"]) == (True, tested["changes"])
    assert files(root) == []
    assert rs1.state("dummy.absent", INTERFACE)["changes"] == {}


@pytest.mark.parametrize("function", ["dummy.plan", "dummy.plan_persist", "dummy.persist"])
def test_nobody_else_can_be_asked_to_bring_it_back(rs1: Minion, function: str) -> None:
    with pytest.raises(SaltInvocationError, match="persist is 'wicked'; it should be one of auto"):
        rs1.call(function, persist="wicked")
