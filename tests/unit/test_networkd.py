"""Which file makes systemd-networkd leave VIPs alone, by what it says of its interfaces."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from saltext.lvs import model, networkd
from saltext.lvs.networkd import Managed

from tests.golden.cases import EXAMPLES
from tests.golden.cases import pillar as pillar_of

FILE = "10-eth0.network"
CONFIGURED = "# This is private data.\nADMIN_STATE=configured\nNETWORK_FILE={}\nDNS=\n"


class Machine:
    """A machine with eth0, number 2, and folders of systemd-networkd's."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folders = tuple(str(root / name) for name in ("etc", "run", "local", "lib"))
        for name in ("etc", "run", "links", "numbers/eth0"):
            (root / name).mkdir(parents=True)
        (root / "numbers/eth0/ifindex").write_text("2\n")

    def uses(self, folder: str, name: str = FILE) -> str:
        """eth0 goes by a file in one of the folders."""
        path = self.root / folder / name
        path.write_text("[Match]\nName=eth0\n[Network]\nAddress=10.10.10.11/24\n")
        (self.root / "links/2").write_text(CONFIGURED.format(path))
        return str(path)

    def write(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def planned(self, *names: str) -> list[str]:
        """The changes, and what their files say in the end."""
        return [
            str(change).replace(str(self.root), "")
            + (f": {change.new.text.splitlines()[-1]}" if change.new else "")
            for change in networkd.plan(names)
        ]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.setattr(networkd, "FOLDERS", made.folders)
    monkeypatch.setattr(networkd, "LINKS", str(tmp_path / "links"))
    monkeypatch.setattr(networkd, "NUMBERS", str(tmp_path / "numbers"))
    return made


WRITTEN = f"write /etc/{FILE}.d/50-saltext-lvs.conf: KeepConfiguration"
BESIDE: dict[str, tuple[Mapping[str, str], list[str]]] = {
    "nobody says anything": ({}, [f"{WRITTEN}=static"]),
    "somebody says no": (
        {f"etc/{FILE}.d/a.conf": "[Network]\nKeepConfiguration=no\n"},
        [f"{WRITTEN}=static"],
    ),
    "somebody keeps leases": (
        {f"etc/{FILE}.d/a.conf": "[Network]\nKeepConfiguration = dynamic-on-stop\n"},
        [f"{WRITTEN}=yes"],
    ),
    "somebody keeps leases in the words of an older version": (
        {f"lib/{FILE}.d/a.conf": "[Network]\nKeepConfiguration=dhcp\n"},
        [f"{WRITTEN}=yes"],
    ),
    "somebody keeps static addresses": (
        {f"run/{FILE}.d/a.conf": "[Network]\nKeepConfiguration=static\n"},
        [],
    ),
    "somebody keeps everything": (
        {f"etc/{FILE}.d/a.conf": "[Network]\nDNS=10.0.0.1\nKeepConfiguration=Yes\n"},
        [],
    ),
    "of two files the one whose name comes last counts": (
        {
            f"run/{FILE}.d/b.conf": "[Network]\nKeepConfiguration=no\n",
            f"etc/{FILE}.d/a.conf": "[Network]\nKeepConfiguration=yes\n",
        },
        [f"{WRITTEN}=static"],
    ),
    "of two files with one name the one in /etc counts": (
        {
            f"run/{FILE}.d/a.conf": "[Network]\nKeepConfiguration=no\n",
            f"etc/{FILE}.d/a.conf": "[Network]\nKeepConfiguration=yes\n",
        },
        [],
    ),
    "another section does not count": (
        {f"etc/{FILE}.d/a.conf": "[Link]\nKeepConfiguration=yes\n"},
        [f"{WRITTEN}=static"],
    ),
    "what completes another file does not count": (
        {"etc/10-eth1.network.d/a.conf": "[Network]\nKeepConfiguration=yes\n"},
        [f"{WRITTEN}=static"],
    ),
}


@pytest.mark.parametrize(("files", "expected"), BESIDE.values(), ids=BESIDE)
def test_what_others_say_is_completed(
    machine: Machine, files: Mapping[str, str], expected: list[str]
) -> None:
    machine.uses("etc")
    for path, text in files.items():
        machine.write(path, text)
    assert machine.planned("eth0") == expected


def test_a_file_that_keeps_vips_by_itself_needs_none_of_ours(machine: Machine) -> None:
    Path(machine.uses("etc")).write_text("[Network]\nKeepConfiguration=static\n")
    assert machine.planned("eth0") == []


def test_a_file_of_netplans_is_completed_in_etc(machine: Machine) -> None:
    machine.uses("run", "10-netplan-eth0.network")
    assert machine.planned("eth0") == [
        "write /etc/10-netplan-eth0.network.d/50-saltext-lvs.conf: KeepConfiguration=static"
    ]


def test_interfaces_with_one_file_need_one_of_ours(machine: Machine) -> None:
    machine.uses("etc", "20-all.network")
    machine.write("numbers/eth1/ifindex", "3\n")
    machine.write("links/3", (machine.root / "links/2").read_text())
    assert machine.planned("eth0", "eth1") == [
        "write /etc/20-all.network.d/50-saltext-lvs.conf: KeepConfiguration=static"
    ]


def test_a_second_run_is_empty_and_what_is_not_needed_goes(machine: Machine) -> None:
    machine.uses("etc")
    networkd.write(networkd.plan(["eth0"]))
    assert machine.planned("eth0") == []
    machine.uses("etc", "20-other.network")
    networkd.write(networkd.plan(["eth0"]))
    found = sorted(path.parent.name for path in machine.root.glob("etc/*.d/*"))
    # The folder that is empty then goes too.
    assert found == ["20-other.network.d"]
    assert not (machine.root / f"etc/{FILE}.d").exists()
    networkd.write(networkd.plan([]))
    assert [*machine.root.glob("etc/*.d")] == []


def test_a_folder_with_other_files_stays(machine: Machine) -> None:
    machine.uses("etc")
    machine.write(f"etc/{FILE}.d/mine.conf", "[Network]\nDNS=10.0.0.1\n")
    networkd.write(networkd.plan(["eth0"]))
    networkd.write(networkd.plan([]))
    assert [path.name for path in machine.root.glob("etc/*.d/*")] == ["mine.conf"]


UNKNOWN = {
    "an interface that is away": ("eth9", None),
    "one that systemd-networkd has not seen yet": ("eth0", ""),
    "one that it has not decided about": ("eth0", "ADMIN_STATE=pending\n"),
    "one that it has not begun with": ("eth0", "ADMIN_STATE=initialized\n"),
}


@pytest.mark.parametrize(("name", "state"), UNKNOWN.values(), ids=UNKNOWN)
def test_nothing_goes_while_it_is_not_known_what_is_needed(
    machine: Machine, name: str, state: str | None
) -> None:
    machine.uses("etc")
    networkd.write(networkd.plan(["eth0"]))
    if state is not None:
        (machine.root / "links/2").unlink()
    if state:
        (machine.root / "links/2").write_text(state)
    assert networkd.read(name) == Managed(name, known=False)
    assert machine.planned(name) == []


def test_an_interface_that_is_left_alone_needs_nothing(machine: Machine) -> None:
    machine.uses("etc")
    networkd.write(networkd.plan(["eth0"]))
    (machine.root / "links/2").write_text("ADMIN_STATE=unmanaged\nOPER_STATE=routable\n")
    assert machine.planned("eth0") == [f"remove /etc/{FILE}.d/50-saltext-lvs.conf"]


def test_without_systemd_networkd_there_is_nothing_to_do(machine: Machine) -> None:
    (machine.root / "links").rmdir()
    assert machine.planned("eth0", "eth9") == []


def test_the_interfaces_are_those_of_the_vrrp_instances() -> None:
    pillar = pillar_of(EXAMPLES / "production")
    cluster = model.from_pillar(pillar)
    assert networkd.interfaces(cluster, "lb1") == ("eth0",)
    assert networkd.interfaces(cluster, "rs1") == ()
    pillar["lvs"]["directors"]["lb1"]["interface"] = "bond0"
    assert networkd.interfaces(model.from_pillar(pillar), "lb1") == ("bond0",)
