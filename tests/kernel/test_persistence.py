"""A real server's VIPs after a reboot, put there by the programs that our files are for.

Each runs by itself on a host of the lab, which has no systemd as its first process.
"""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest
from saltext.lvs import persistence, realserver

from tests.functional.conftest import Minion, example
from tests.lab import Lab, until
from tests.lab.host import ENVIRONMENT
from tests.lab.lab import LabHost

CHECKOUT = Path(__file__).parents[2]
# On a host: what a Salt job there would import.
PRELUDE = """
import json
from dataclasses import replace
from saltext.lvs import links, model, persistence, realserver
DUTY = links.Duty("prod", "dummy0", links.as_vips(["10.10.10.10", "fd00::10"]))
def ops(found):
    return [str(op) for op in found]
def plan(kind):
    return persistence.plan("dummy0", DUTY.vips, model.as_vip_persistence(kind))
ON_LO = replace(DUTY, interface="lo")
def plan_lo(kind):
    return persistence.plan("lo", DUTY.vips, model.as_vip_persistence(kind), existing=True)
"""
HELD = {
    "flags": ["NOARP", "UP"],
    "addresses": ["10.10.10.10/32", "fd00::10/128"],
    "unfinished": [],
    "routes": [],
}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab({"rs1": ["10.10.10.41/24"]}) as lab:
        yield lab


@pytest.fixture
def rs1(lab: Lab) -> Iterator[LabHost]:
    """A real server that has just booted, and that nobody has given VIPs."""
    host = lab["rs1"]
    yield host
    host.power_cut()
    host.boot()
    told(host, "persistence.write(plan(False))")
    told(host, "persistence.write(plan_lo(False))")


def told(host: LabHost, expression: str, through: Sequence[str] = ()) -> Any:
    """What the library says on a host, run by a command's arguments where that is needed."""
    script = f"{PRELUDE}\nprint(json.dumps({expression}))"
    environment = {"PYTHONPATH": str(CHECKOUT / "_utils")}
    command = [*through, sys.executable, "-c", script]
    return json.loads(host.run(command, check=True, environment=environment).stdout)


def applied(host: LabHost, kind: str) -> None:
    """What a highstate does there: VIPs now, and files for the next boot."""
    told(host, "ops(realserver.present(DUTY, check_arp=False).ops)")
    told(host, f"persistence.write(plan({kind!r}))")


def state(host: LabHost) -> dict[str, list[str]] | None:
    """What iproute2 says of dummy0, but for what the kernel does by itself; None without it."""
    shown = host.run(["ip", "-json", "address", "show", "dev", "dummy0"])
    if shown.returncode:
        return None
    (link,) = json.loads(shown.stdout)
    held = [item for item in link["addr_info"] if item["scope"] != "link"]
    routes = [
        line.split()[0]
        for family in ("-4", "-6")
        for line in host.run(["ip", family, "route", "show", "dev", "dummy0"]).stdout.splitlines()
    ]
    return {
        "flags": sorted({"UP", "NOARP"} & set(link["flags"])),
        "addresses": sorted(f"{item['local']}/{item['prefixlen']}" for item in held),
        "unfinished": [item["local"] for item in held if {"tentative", "dadfailed"} & set(item)],
        # A route to the VIP alone leads nobody else astray.
        "routes": [
            route for route in routes if not route.startswith("fe80") and route != "fd00::10"
        ],
    }


@contextmanager
def nothing_lost(host: LabHost) -> Iterator[None]:
    """What is done meanwhile takes nothing from dummy0, not even for a moment, but for the
    link-local address that the kernel made by itself.
    """
    command = ["ip", "-oneline", "monitor", "link", "address"]
    with host.running(command, stdout=subprocess.PIPE, text=True) as monitor:
        time.sleep(0.5)
        yield
        time.sleep(0.5)
        monitor.terminate()
        said = monitor.stdout.read()
    deleted = [line for line in said.splitlines() if "Deleted" in line and "dummy0" in line]
    assert [line for line in deleted if "scope link" not in line] == []


# --------------------------------------------------------------------------------------------------
# Who brings it back


SILENT: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
LEAVE_ETH0 = "[keyfile]\nunmanaged-devices=interface-name:eth0\n"


@contextmanager
def bus(host: LabHost) -> Iterator[None]:
    """D-Bus, which systemd-networkd and NetworkManager are asked through."""
    host.run(["mkdir", "-p", "/run/dbus"], check=True)
    daemon = ["dbus-daemon", "--system", "--nofork", "--nopidfile"]
    with host.running(daemon, **SILENT):
        until(lambda: host.exists("/run/dbus/system_bus_socket"), "D-Bus")
        yield
    host.run(["rm", "/run/dbus/system_bus_socket"])


class Keeper(Protocol):
    """Who keeps a machine's network."""

    kind: str

    def boot(self, host: LabHost) -> None:
        """Do what it does at a boot, and come to an end with it."""

    def again(self, host: LabHost) -> None:
        """Do it once more on a machine that is up."""


class Ifupdown:
    kind = "ifupdown"

    def boot(self, host: LabHost) -> None:
        host.run(["apt-get", "install", "-y", "ifupdown"], check=True)
        host.run(["/etc/init.d/networking", "start"], check=True)

    def again(self, host: LabHost) -> None:
        # "--force", because it believes that all is done.
        host.run(["ifup", "--force", "dummy0"], check=True)


class Networkd:
    kind = "systemd-networkd"
    FOLDER = "/run/systemd/netif"

    def boot(self, host: LabHost) -> None:
        with self.running(host):
            self.wait(host)

    @contextmanager
    def running(self, host: LabHost) -> Iterator[None]:
        host.run(["install", "-d", "-o", "systemd-network", self.FOLDER], check=True)
        with bus(host), host.running(["/lib/systemd/systemd-networkd"], **SILENT) as daemon:
            answers = ["networkctl", "status"]
            until(lambda: host.run(answers).returncode == 0, "systemd-networkd to answer")
            yield
            daemon.terminate()
            daemon.wait(10)
        host.run(["rm", "-rf", f"{self.FOLDER}/links"], check=True)

    def wait(self, host: LabHost, interface: str = "dummy0") -> None:
        what = f"systemd-networkd to configure {interface}"
        until(lambda: self._is_through(host, interface), what, seconds=20)

    def again(self, host: LabHost) -> None:
        self.boot(host)

    def _is_through(self, host: LabHost, interface: str) -> bool:
        index = host.run(["cat", f"/sys/class/net/{interface}/ifindex"]).stdout.strip()
        links = host.run(["cat", f"{self.FOLDER}/links/{index}"]).stdout
        return "ADMIN_STATE=configured" in links


class NetworkManager:
    kind = "NetworkManager"

    def boot(self, host: LabHost) -> None:
        host.run(["apt-get", "install", "-y", "network-manager"], check=True)
        # The lab's own card is the lab's.
        host.write("/etc/NetworkManager/conf.d/lab.conf", LEAVE_ETH0)
        host.run(["mkdir", "-p", "/run/NetworkManager"], check=True)
        with bus(host), host.running(["NetworkManager", "--no-daemon"], **SILENT) as daemon:
            started = ["nm-online", "--wait-for-startup", "--quiet", "--timeout=1"]
            until(lambda: host.run(started).returncode == 0, "NetworkManager to start")
            connected = ["nmcli", "--terse", "--fields=DEVICE,CONNECTION", "device"]
            ours = "dummy0:saltext-lvs-vip-dummy0"
            until(lambda: ours in host.run(connected).stdout.splitlines(), f"it to say {ours}")
            daemon.terminate()
            daemon.wait(10)

    def again(self, host: LabHost) -> None:
        self.boot(host)


class Unit:
    kind = "systemd"
    PATH = "/etc/systemd/system/saltext-lvs-vip-dummy0.service"

    def boot(self, host: LabHost) -> None:
        self.carry_out(host, "ExecStart")

    def again(self, host: LabHost) -> None:
        self.boot(host)

    def carry_out(self, host: LabHost, key: str) -> None:
        for command in re.findall(f"^{key}=(.*)$", host.read(self.PATH), re.MULTILINE):
            words = shlex.split(command)
            may_fail = words[0].startswith("-")
            host.run([words[0].lstrip("-"), *words[1:]], check=not may_fail)


KEEPERS = (Ifupdown(), Networkd(), NetworkManager(), Unit())


@pytest.fixture(params=KEEPERS, ids=[keeper.kind for keeper in KEEPERS])
def keeper(request: pytest.FixtureRequest) -> Keeper:
    found: Keeper = request.param
    return found


def test_after_a_reboot_the_vips_are_back_without_salt(rs1: LabHost, keeper: Keeper) -> None:
    applied(rs1, keeper.kind)
    rs1.power_cut()
    rs1.boot()
    assert state(rs1) is None
    keeper.boot(rs1)
    assert state(rs1) == HELD
    assert told(rs1, "ops(realserver.plan(DUTY).ops)") == []
    assert told(rs1, f"ops(plan({keeper.kind!r}))") == []
    # They bear no mark of ours, and are ours all the same.
    fewer = "realserver.present(replace(DUTY, vips=DUTY.vips[:1]), check_arp=False, force=True)"
    assert told(rs1, f"ops({fewer}.ops)") == ["remove fd00::10/128 from dummy0"]


def test_what_salt_has_put_there_is_left_as_it_is(rs1: LabHost, keeper: Keeper) -> None:
    applied(rs1, keeper.kind)
    with nothing_lost(rs1):
        keeper.boot(rs1)
        keeper.again(rs1)
    assert state(rs1) == HELD
    assert told(rs1, "ops(realserver.plan(DUTY).ops)") == []


def test_absent_is_for_good(rs1: LabHost, keeper: Keeper) -> None:
    applied(rs1, keeper.kind)
    rs1.power_cut()
    rs1.boot()
    keeper.boot(rs1)
    told(rs1, "ops(realserver.absent(DUTY).ops)")
    told(rs1, "persistence.write(plan(False))")
    assert state(rs1) is None
    rs1.power_cut()
    rs1.boot()
    assert told(rs1, "ops(persistence.read('dummy0'))") == []


UNIT_OF_LO = Unit()
UNIT_OF_LO.PATH = "/etc/systemd/system/saltext-lvs-vip-lo.service"
KEEPERS_OF_LO = {"ifupdown": Ifupdown(), "systemd": UNIT_OF_LO}


def on_lo(host: LabHost) -> list[str]:
    """What the loopback holds besides its own addresses."""
    (link,) = json.loads(host.run(["ip", "-json", "address", "show", "dev", "lo"]).stdout)
    return sorted(item["local"] for item in link["addr_info"] if item["local"][:4] not in LO_OWN)


LO_OWN = ("127.", "::1")


@pytest.mark.parametrize("keeper_of_lo", KEEPERS_OF_LO.values(), ids=KEEPERS_OF_LO.keys())
def test_vips_on_the_loopback_are_back_after_a_reboot_and_it_outlives_their_end(
    rs1: LabHost, keeper_of_lo: Keeper
) -> None:
    told(rs1, "ops(realserver.present(ON_LO, check_arp=False).ops)")
    told(rs1, f"persistence.write(plan_lo({keeper_of_lo.kind!r}))")
    rs1.power_cut()
    rs1.boot()
    assert on_lo(rs1) == []
    keeper_of_lo.boot(rs1)
    assert on_lo(rs1) == ["10.10.10.10", "fd00::10"]
    assert told(rs1, "ops(realserver.plan(ON_LO).ops)") == []
    assert told(rs1, f"ops(plan_lo({keeper_of_lo.kind!r}))") == []
    if keeper_of_lo is UNIT_OF_LO:
        UNIT_OF_LO.carry_out(rs1, "ExecStop")
        UNIT_OF_LO.carry_out(rs1, "ExecStop")
    else:
        rs1.run(["ifdown", "--force", "lo"], check=True)
        rs1.run(["ifup", "--force", "lo"], check=True)
        assert on_lo(rs1) == ["10.10.10.10", "fd00::10"]
        told(rs1, "ops(realserver.absent(ON_LO).ops)")
    assert on_lo(rs1) == []
    assert "127.0.0.1/8" in rs1.run(["ip", "address", "show", "up", "dev", "lo"]).stdout


@pytest.mark.parametrize("keeper", [Ifupdown(), Unit()], ids=["ifupdown", "systemd"])
def test_a_forced_prefix_makes_no_route_at_a_boot_either(rs1: LabHost, keeper: Keeper) -> None:
    whole = 'replace(DUTY, vips=links.as_vips(["10.10.9.10/24"], force_prefix=True))'
    plan = f'persistence.plan("dummy0", {whole}.vips, model.as_vip_persistence({keeper.kind!r}))'
    told(rs1, f"persistence.write({plan})")
    keeper.boot(rs1)
    found = state(rs1)
    assert found is not None
    assert (found["addresses"], found["routes"]) == (["10.10.9.10/24"], [])


# --------------------------------------------------------------------------------------------------
# Through Salt


@pytest.mark.usefixtures("netns")
def test_the_state_does_now_and_for_the_next_boot_what_its_test_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "interfaces"
    monkeypatch.setattr(persistence, "INTERFACES", str(folder))
    for name in ("REPAIR", "REPAIRED", "RECORD"):
        monkeypatch.setattr(realserver, name, str(tmp_path / name))
    path = f"{folder}.d/saltext-lvs-vip-dummy0"
    rs1 = Minion("rs1", example("production"), tmp_path / "minion")

    def present(*vips: str, test: bool = False) -> Any:
        options = {
            "addresses": list(vips),
            "persist": "ifupdown",
            "check_arp": False,
            "force": True,
        }
        answer = rs1.state("dummy.present", "dummy0", test=test, **options)
        assert answer["result"] is (None if test and answer["changes"] else True)
        return answer["changes"]

    first, second = "10.10.10.10", "10.10.10.11"
    for vips, keys in (
        ([first], ["dummy0", f"{first}/32", path]),
        ([second], [f"{second}/32", f"{first}/32", path]),
    ):
        tested = present(*vips, test=True)
        assert list(tested) == keys
        assert present(*vips) == tested
        assert (present(*vips, test=True), present(*vips)) == ({}, {})
        listed = rs1.call("dummy.list")["dummy0"]["addresses"]
        held = [item["address"] for item in listed if item["ours"]]
        assert held == [f"{vip}/32" for vip in vips]
        assert re.findall(" address replace (.*?) ", Path(path).read_text()) == held
    gone = rs1.state("dummy.absent", "dummy0")
    assert (gone["result"], list(gone["changes"])) == (True, [f"{second}/32", "dummy0", path])
    assert not Path(path).exists()


# --------------------------------------------------------------------------------------------------
# Each by itself


def test_systemd_networkd_adopts_what_is_there_when_told_to_read_its_files(rs1: LabHost) -> None:
    told(rs1, "ops(realserver.present(DUTY, check_arp=False).ops)")
    rs1.run(["ip", "address", "add", "192.0.2.7/32", "dev", "dummy0"], check=True)
    networkd = Networkd()
    with networkd.running(rs1):
        told(rs1, f"persistence.write(plan({networkd.kind!r}))")
        with nothing_lost(rs1):
            rs1.run(["networkctl", "reload"], check=True)
            networkd.wait(rs1)
        # This one takes its own away for a moment, and never somebody else's.
        rs1.run(["networkctl", "reconfigure", "dummy0"], check=True)
        time.sleep(1)
        networkd.wait(rs1)
    assert state(rs1) == {**HELD, "addresses": sorted([*HELD["addresses"], "192.0.2.7/32"])}


def test_ifdown_takes_it_away_and_again_does_no_harm(rs1: LabHost) -> None:
    applied(rs1, "ifupdown")
    Ifupdown().boot(rs1)
    for _ in range(2):
        rs1.run(["ifdown", "--force", "dummy0"], check=True)
        assert state(rs1) is None


def test_a_host_that_boots_with_ifupdown_is_found_out(rs1: LabHost) -> None:
    found = "persistence.choose(model.VipPersistence.AUTO, persistence.read_facts()).value"
    warned = "persistence.warnings(model.VipPersistence.AUTO, 'dummy0', persistence.read_facts())"
    rs1.run(["apt-get", "purge", "-y", "ifupdown"], check=True)
    assert told(rs1, found) == "False"
    assert len(told(rs1, warned)) == 1
    rs1.run(["apt-get", "install", "-y", "ifupdown"], check=True)
    assert told(rs1, found) == "ifupdown"
    assert told(rs1, warned) == []


def test_systemd_finds_nothing_wrong_with_the_unit(rs1: LabHost) -> None:
    applied(rs1, "systemd")
    verify = ["systemd-analyze", "verify", "--man=no", Unit.PATH]
    done = rs1.run(verify)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    # It would say so.
    rs1.write(Unit.PATH, rs1.read(Unit.PATH).replace("Type=oneshot", "Type=never"))
    assert "never" in rs1.run(verify).stderr


@contextmanager
def systemd(host: LabHost) -> Iterator[Sequence[str]]:
    """systemd as the first process of a namespace within the host. It boots what its
    multi-user.target is told to want, and settings before; not the rest, which would take the lab's
    terminal. Gives what a command begins with to run there.
    """
    host.power_cut()
    host.wipe()  # what other tests have installed is enabled
    host.boot()
    units = "/etc/systemd/system"
    wants = f"{units}/multi-user.target.wants"
    host.run(["sh", "-c", f"rm -rf {wants}; ln -sfn {wants} {units}/lab.target.wants"], check=True)
    host.write(f"{units}/lab.target", "[Unit]\nWants=systemd-sysctl.service\n")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add("/usr/bin/systemctl", "systemctl")
    host.unpack(archive.getvalue(), "/usr/bin")
    applied(host, "systemd")
    host.power_cut()
    host.boot()
    mounts = "mount -t cgroup2 cgroup2 /sys/fs/cgroup && mount --bind /dev/null /dev/console"
    command = [
        *("unshare", "--fork", "--kill-child", "--pid", "--mount", "--mount-proc", "--cgroup"),
        *("sh", "-c", f"{mounts} && exec /lib/systemd/systemd --unit=lab.target"),
    ]
    with host.running(command, env={**ENVIRONMENT, "container": "lab"}, **SILENT):
        found = ["pgrep", "--oldest", "--exact", "systemd"]
        process = until(lambda: host.run(found).stdout.strip(), "systemd to start")
        there = ["nsenter", f"--target={process}", "--mount", "--pid", "--cgroup"]
        booted = [*there, "systemctl", "is-active", Path(Unit.PATH).name]
        until(lambda: host.run(booted).returncode == 0, "systemd to boot")
        yield there
    host.run(["rm", "/usr/bin/systemctl"], check=True)


def test_systemd_itself_brings_the_vips_and_says_who_keeps_the_network(rs1: LabHost) -> None:
    unit = Path(Unit.PATH).name
    found = "persistence.choose(model.VipPersistence.AUTO, persistence.read_facts()).value"

    with systemd(rs1) as there:

        def asked(*words: str) -> str:
            return rs1.run([*there, "systemctl", *words], check=True).stdout.strip()

        assert state(rs1) == HELD
        assert asked("is-active", unit) == "active"
        assert asked("is-enabled", unit) == "enabled"
        times = asked("show", "--property=ExecMainStartTimestampMonotonic", "--value", unit)
        sysctl = ("ExecMainExitTimestampMonotonic", "systemd-sysctl.service")
        assert 0 < int(asked("show", f"--property={sysctl[0]}", "--value", sysctl[1])) <= int(times)
        assert told(rs1, found, there) == "systemd"
        assert told(rs1, "ops(realserver.plan(DUTY).ops)") == []
        asked("stop", unit)
        assert state(rs1) is None
        asked("start", unit)
        assert state(rs1) == HELD
        asked("enable", "systemd-networkd")
        assert told(rs1, found, there) == "systemd-networkd"
        asked("disable", "systemd-networkd")


def test_the_units_end_takes_it_away_and_again_does_no_harm(rs1: LabHost) -> None:
    applied(rs1, "systemd")
    for _ in range(2):
        Unit().carry_out(rs1, "ExecStop")
        assert state(rs1) is None


def test_modules_and_settings_come_before_whoever_brings_vips(rs1: LabHost) -> None:
    rs1.run(["apt-get", "install", "-y", "ifupdown"], check=True)
    applied(rs1, "systemd")

    def after(unit: str) -> list[str]:
        lines = re.findall("^After=(.*)$", rs1.read(unit), re.MULTILINE)
        return " ".join(lines).split()

    system = "/lib/systemd/system"
    assert "systemd-modules-load.service" in after(f"{system}/systemd-sysctl.service")
    for unit in (f"{system}/systemd-networkd.service", f"{system}/networking.service", Unit.PATH):
        assert "systemd-sysctl.service" in after(unit), unit
