"""Who brings VIPs back at a boot: chosen, warned about, and told in files."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

import pytest
from saltext.lvs import links, model, persistence
from saltext.lvs.errors import CommandFailed
from saltext.lvs.model import VipPersistence
from saltext.lvs.persistence import Facts, File

AUTO, NONE = VipPersistence.AUTO, VipPersistence.NONE
NETWORKD, MANAGER = VipPersistence.NETWORKD, VipPersistence.NETWORK_MANAGER
IFUPDOWN, UNIT = VipPersistence.IFUPDOWN, VipPersistence.UNIT
VIPS = links.as_vips(["10.10.10.10", "fd00::10"])
SOURCED = "source /etc/network/interfaces.d/*\n"
AWAY = "after a reboot dummy0 stays away until Salt runs: "


def facts(enabled: Iterable[str] = (), running: Iterable[str] | None = None) -> Facts:
    """A machine with systemd; what is enabled runs too, unless told otherwise."""
    enabled = frozenset(enabled)
    return Facts(True, enabled, enabled if running is None else frozenset(running), SOURCED)


# --------------------------------------------------------------------------------------------------
# Which program

CHOICES = {
    "a cloud image with systemd-networkd": (facts(["systemd-networkd"]), NETWORKD),
    "a machine with NetworkManager": (facts(["NetworkManager"]), MANAGER),
    "a Debian server with ifupdown": (facts(["networking"]), IFUPDOWN),
    "a desktop with NetworkManager beside ifupdown": (
        facts(["networking", "NetworkManager"]),
        MANAGER,
    ),
    "of two that are enabled, the one that runs": (
        facts(["systemd-networkd", "NetworkManager"], ["NetworkManager"]),
        MANAGER,
    ),
    "one that is enabled but failed": (facts(["networking"], []), IFUPDOWN),
    "one that runs but will not after a boot": (facts([], ["systemd-networkd"]), UNIT),
    "systemd and nothing that keeps the network": (facts(), UNIT),
    "ifupdown without systemd": (
        Facts(False, frozenset({"networking"}), frozenset({"networking"}), SOURCED),
        IFUPDOWN,
    ),
    "neither": (Facts(), NONE),
}


@pytest.mark.parametrize(("machine", "kind"), CHOICES.values(), ids=CHOICES)
def test_who_is_told_is_who_is_there_after_a_boot(machine: Facts, kind: VipPersistence) -> None:
    assert persistence.choose(AUTO, machine) is kind


@pytest.mark.parametrize("asked", set(VipPersistence) - {AUTO}, ids=lambda kind: kind.value)
def test_who_is_asked_for_is_told_whatever_the_machine_has(asked: VipPersistence) -> None:
    assert {persistence.choose(asked, machine) for machine, _ in CHOICES.values()} == {asked}


WARNINGS = {
    "nothing to warn about": (AUTO, facts(["systemd-networkd"]), []),
    "a unit of our own needs nothing": (AUTO, facts(), []),
    "nobody, on purpose": (NONE, Facts(), []),
    "nobody there": (
        AUTO,
        Facts(),
        [f"{AWAY}neither systemd nor systemd-networkd, NetworkManager or ifupdown is in use here"],
    ),
    "somebody who is not there": (
        NETWORKD,
        facts(["networking"]),
        [f"{AWAY}the service systemd-networkd is not enabled"],
    ),
    "a unit where systemd is not": (
        UNIT,
        Facts(),
        [f"{AWAY}this machine was not booted with systemd"],
    ),
    "ifupdown that reads one file only": (
        AUTO,
        Facts(True, frozenset({"networking"}), frozenset(), "auto lo\n"),
        [
            f"{AWAY}/etc/network/interfaces does not read the files beside it; it needs a line "
            "`source /etc/network/interfaces.d/*`"
        ],
    ),
}


@pytest.mark.parametrize(("asked", "machine", "told"), WARNINGS.values(), ids=WARNINGS)
def test_what_would_keep_it_away_is_said(
    asked: VipPersistence, machine: Facts, told: list[str]
) -> None:
    assert list(persistence.warnings(asked, "dummy0", machine)) == told


SOURCES = {
    "Debian's own line": ("source /etc/network/interfaces.d/*", True),
    "a relative path": ("auto lo\nsource interfaces.d/*\niface lo inet loopback", True),
    "the folder": ("source-directory /etc/network/interfaces.d", True),
    "the folder with a slash": ("source-directory /etc/network/interfaces.d/", True),
    "our file alone": ("  source /etc/network/interfaces.d/saltext-lvs-vip-dummy0", True),
    "other names": ("source /etc/network/interfaces.d/*.cfg", False),
    "another folder": ("source /etc/network/extra/*", False),
    "a comment": ("# source /etc/network/interfaces.d/*", False),
    "nothing": ("", False),
}


@pytest.mark.parametrize(("text", "reads"), SOURCES.values(), ids=SOURCES)
def test_whether_ifupdown_reads_the_files_beside_its_own(text: str, reads: bool) -> None:
    machine = Facts(True, frozenset({"networking"}), frozenset(), text)
    assert (persistence.warnings(IFUPDOWN, "dummy0", machine) == ()) is reads


def test_what_systemd_says_of_services_is_understood() -> None:
    shown = (
        "ActiveState=active\nUnitFileState=enabled-runtime\n\n"
        "ActiveState=inactive\nUnitFileState=\n\n"
        "ActiveState=failed\nUnitFileState=enabled\n"
    )
    assert persistence._systemd_services(shown) == (
        {"systemd-networkd", "networking"},
        {"systemd-networkd"},
    )
    off = "ActiveState=active\nUnitFileState=disabled\n"
    assert persistence._systemd_services("\n".join([off, off, off])) == (
        frozenset(),
        set(persistence.SERVICES.values()),
    )


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, AUTO),
        ("auto", AUTO),
        ("networkmanager", MANAGER),
        ("systemd-networkd", NETWORKD),
        (False, NONE),
        ("False", NONE),
    ],
)
def test_who_may_be_said_in_any_case(value: object, kind: VipPersistence) -> None:
    assert model.as_vip_persistence(value) is kind


@pytest.mark.parametrize("value", [True, 1, "wicked", ["auto"]])
def test_other_words_are_refused(value: object) -> None:
    with pytest.raises(model.InvalidConfig) as caught:
        model.as_vip_persistence(value)
    assert caught.value.expected == (
        "one of auto, systemd-networkd, ifupdown, NetworkManager, systemd, False"
    )


# --------------------------------------------------------------------------------------------------
# What differs

A = File("/a", "one\n")
B = File("/b", "two\n")


def test_what_is_right_is_left_alone() -> None:
    assert persistence.changes([A, B], [B, A]) == ()


def test_new_files_come_before_old_ones_go() -> None:
    planned = persistence.changes([B], [A])
    assert [str(change) for change in planned] == ["write /b", "remove /a"]


CHANGED = {
    "a new file": (None, A, {"diff": "--- /dev/null\n+++ /a\n@@ -0,0 +1 @@\n+one\n"}),
    "another text": (
        A,
        File("/a", "two\n"),
        {"diff": "--- /a\n+++ /a\n@@ -1 +1 @@\n-one\n+two\n"},
    ),
    "another mode": (
        A,
        File("/a", "one\n", 0o600),
        {"mode": {"old": "0644", "new": "0600"}},
    ),
    "a file that goes": (A, None, {"diff": "--- /a\n+++ /dev/null\n@@ -1 +0,0 @@\n-one\n"}),
    "a link": (
        None,
        File("/a", target="/b"),
        {"diff": "--- /dev/null\n+++ /a\n@@ -0,0 +1 @@\n+link to /b\n"},
    ),
}


@pytest.mark.parametrize(("old", "new", "told"), CHANGED.values(), ids=CHANGED)
def test_a_change_is_told_as_a_diff(
    old: File | None, new: File | None, told: dict[str, object]
) -> None:
    assert persistence.Change("/a", old, new).as_data() == told


# --------------------------------------------------------------------------------------------------
# On disk


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folders of the programs, elsewhere, and none of them there yet."""
    for name in ("NETWORKD", "INTERFACES", "KEYFILES", "UNITS"):
        monkeypatch.setattr(persistence, name, f"{tmp_path}{getattr(persistence, name)}")
    return tmp_path


def there(root: Path) -> dict[str, int]:
    """The files that are there, and their modes."""
    return {
        str(path.relative_to(root)): stat.S_IMODE(path.lstat().st_mode)
        for path in root.rglob("*")
        if not path.is_dir()
    }


def persist(kind: VipPersistence, interface: str = "dummy0") -> list[str]:
    planned = persistence.plan(interface, VIPS, kind)
    persistence.write(planned)
    return [str(change).replace(persistence.UNITS, "...") for change in planned]


FILES = {
    NETWORKD: {
        "etc/systemd/network/05-saltext-lvs-vip-dummy0.netdev": 0o644,
        "etc/systemd/network/05-saltext-lvs-vip-dummy0.network": 0o644,
    },
    IFUPDOWN: {"etc/network/interfaces.d/saltext-lvs-vip-dummy0": 0o644},
    MANAGER: {"etc/NetworkManager/system-connections/saltext-lvs-vip-dummy0.nmconnection": 0o600},
    UNIT: {
        "etc/systemd/system/saltext-lvs-vip-dummy0.service": 0o644,
        "etc/systemd/system/multi-user.target.wants/saltext-lvs-vip-dummy0.service": 0o777,
    },
    NONE: {},
}


@pytest.mark.parametrize(("kind", "files"), FILES.items(), ids=[kind.value for kind in FILES])
def test_files_are_written_with_their_modes_and_a_second_time_none(
    kind: VipPersistence, files: dict[str, int], root: Path
) -> None:
    before = os.umask(0o027)
    try:
        assert len(persist(kind)) == len(files)
    finally:
        os.umask(before)
    assert there(root) == files
    assert persist(kind) == []


@pytest.mark.parametrize("old", FILES, ids=lambda kind: f"from {kind.value}")
@pytest.mark.parametrize("new", FILES, ids=lambda kind: f"to {kind.value}")
def test_files_for_another_program_go(old: VipPersistence, new: VipPersistence, root: Path) -> None:
    persist(old, "dummy1")
    others = there(root)
    persist(old)
    persist(new)
    assert there(root) == {**others, **FILES[new]}


@pytest.mark.parametrize("kind", persistence.RENDERERS, ids=lambda kind: kind.value)
def test_the_vips_that_files_name_are_found_in_them(kind: VipPersistence, root: Path) -> None:
    assert persistence.recorded("dummy0") == frozenset()
    persist(kind)
    assert persistence.recorded("dummy0") == frozenset(VIPS)
    assert persistence.recorded("dummy1") == frozenset()


def test_the_unit_is_enabled_by_a_link_that_leads_to_it(root: Path) -> None:
    persist(UNIT)
    unit, link = FILES[UNIT]
    assert (root / link).resolve() == root / unit


def test_a_file_that_was_edited_is_written_anew(root: Path) -> None:
    persist(IFUPDOWN)
    path = root / next(iter(FILES[IFUPDOWN]))
    right = path.read_text()
    path.write_text(right.replace("10.10.10.10/32", "10.10.10.99/32"))
    path.chmod(0o600)
    (change,) = persistence.plan("dummy0", VIPS, IFUPDOWN)
    told = change.as_data()
    assert told["mode"] == {"old": "0600", "new": "0644"}
    assert "-    up /sbin/ip address replace 10.10.10.99/32 dev dummy0" in str(told["diff"])
    persist(IFUPDOWN)
    assert (path.read_text(), there(root)) == (right, FILES[IFUPDOWN])


def test_a_folder_that_is_a_file_is_said_in_words(root: Path) -> None:
    (root / "etc").write_text("")
    with pytest.raises(CommandFailed, match="cannot make .*: (Not a directory|File exists)"):
        persist(IFUPDOWN)


@pytest.mark.parametrize(
    "text",
    [
        "Address=10.10.10.10/240",
        "see 10.10.10.10",
        "1.2.3/32",
        "x10.10.10.10/32",
        "10.10.10.10/320",
    ],
)
def test_what_is_no_vip_is_not_taken_for_one(text: str) -> None:
    assert list(persistence._vips_in(text)) == []
