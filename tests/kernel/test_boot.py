"""A director's table at a boot, brought back by the service's own commands and without Salt."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from saltext.lvs import boot, ipvs, ipvsadm

from tests.kernel.commands import ipvsadm as ipvsadm_says
from tests.kernel.commands import run
from tests.lab import Lab

CHECKOUT = Path(__file__).parents[2]

TABLE = """\
-A -t 10.10.10.10:80 -s wlc -p 300 -M 255.255.255.255
-a -t 10.10.10.10:80 -r 10.10.10.41:80 -g -w 50
-a -t 10.10.10.10:80 -r 10.10.10.42:80 -g -w 0 -x 100 -y 50
-A -u [fd00::10]:53 -s sh -b sh-port
-a -u [fd00::10]:53 -r [fd00::41]:5353 -m -w 3
-A -f 7 -s rr -o
-a -f 7 -r 10.10.10.41:0 -i -w 1 --tun-type gue --tun-port 6080
"""
SERVERS = ipvsadm.read(TABLE)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files of ours in a folder of the test's own."""
    (tmp_path / "init.d").mkdir()
    rules = str(tmp_path / "lib" / "ipvs.rules")
    monkeypatch.setattr(boot, "RESTORE", boot.RESTORE.replace(boot.RULES, rules))
    monkeypatch.setattr(boot, "RULES", rules)
    monkeypatch.setattr(boot, "UNIT", str(tmp_path / "unit"))
    monkeypatch.setattr(boot, "WANTED", str(tmp_path / "wanted"))
    monkeypatch.setattr(boot, "STARTS", str(tmp_path / "S??started"))
    monkeypatch.setattr(boot, "_switch", lambda on: _switch(tmp_path / "S01started", on))
    monkeypatch.setattr(boot, "INIT_SCRIPT", str(tmp_path / "init.d" / boot.NAME))
    monkeypatch.setattr(boot, "SYSTEMD", str(tmp_path / "systemd"))
    return tmp_path


def _switch(start: Path, on: bool) -> None:
    """What update-rc.d does, in the test's own folder."""
    if on:
        start.touch()
    else:
        start.unlink()


def started() -> None:
    """What the boot runs."""
    if Path(boot.SYSTEMD).exists():
        lines = Path(boot.UNIT).read_text().splitlines()
        for line in lines:
            if line.startswith("ExecStart="):
                command = line.removeprefix("ExecStart=/bin/sh -c '").removesuffix("'")
                subprocess.run(["sh", "-c", command], check=True)
    else:
        run(f"{boot.INIT_SCRIPT} start")


@pytest.mark.usefixtures("netns")
@pytest.mark.parametrize("systemd", [False, True], ids=["a script", "a unit"])
def test_the_table_is_back_as_it_was_applied(root: Path, systemd: bool) -> None:
    if systemd:
        (root / "systemd").mkdir()
    planned = boot.plan(SERVERS, {"tcp": 1800})
    boot.write(planned)
    assert boot.plan(SERVERS, {"tcp": 1800}) == ()
    assert Path(boot.RULES).stat().st_mode & 0o777 == 0o600
    started()
    assert {server.key: server for server in SERVERS} == dict(ipvs.read().table)
    assert ipvsadm_says("-l --timeout").split(":")[1].split()[0] == "1800"


@pytest.mark.usefixtures("netns")
def test_a_table_that_is_there_is_newer(root: Path) -> None:
    boot.write(boot.plan(SERVERS, {}))
    ipvsadm_says("-A -t 192.0.2.1:80")
    started()
    assert [str(key.address) for key in ipvs.read().table] == ["192.0.2.1"]


def test_another_boot_system_takes_the_other_ones_files_away(root: Path) -> None:
    boot.write(boot.plan(SERVERS, {}))
    (root / "systemd").mkdir()
    changes = boot.plan(SERVERS, {})
    assert [str(change) for change in changes] == [
        f"write {boot.UNIT}",
        f"write {boot.WANTED}",
        f"remove {boot.INIT_SCRIPT}",
        f"disable {boot.NAME}",
    ]
    boot.write(changes)
    assert boot.plan(SERVERS, {}) == ()
    boot.write(boot.plan_absent())
    assert [path for path in root.rglob("*") if path.is_file()] == []


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    (unit,) = (file for file in boot.files_of(SERVERS, {}, systemd=True) if file.path == boot.UNIT)
    path = tmp_path / Path(boot.UNIT).name
    path.write_text(unit.text)
    verify = ["systemd-analyze", "verify", "--man=no", str(path)]
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    # It would say so.
    path.write_text(unit.text.replace("Type=oneshot", "Type=never"))
    again = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert "never" in again.stderr


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab({"lb1": ["10.10.10.11/24"]}) as lab:
        yield lab


def test_a_boot_the_system_v_way_starts_it_and_its_end_leaves_nothing(lab: Lab) -> None:
    host = lab["lb1"]

    def on_host(expression: str) -> str:
        script = f"from saltext.lvs import boot; print([str(c) for c in {expression}])"
        environment = {"PYTHONPATH": str(CHECKOUT / "_utils")}
        command = [sys.executable, "-c", script]
        return str(host.run(command, check=True, environment=environment).stdout).strip()

    write = "(lambda planned: (boot.write(planned), planned)[1])"
    assert on_host(f"{write}(boot.plan((), {{}}))") == str(
        [f"write {boot.RULES}", f"write {boot.INIT_SCRIPT}", f"enable {boot.NAME}"]
    )
    assert on_host("boot.plan((), {})") == "[]"
    assert f"S01{boot.NAME}" in host.run(["ls", "/etc/rc2.d"]).stdout.split()
    assert on_host(f"{write}(boot.plan_absent())") == str(
        [f"remove {boot.RULES}", f"remove {boot.INIT_SCRIPT}", f"disable {boot.NAME}"]
    )
    assert host.run(["sh", "-c", f"ls /etc/rc?.d/*{boot.NAME}"]).stdout == ""
