"""A director's VIPs and the real systemd-networkd: lost at its restart, and kept."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.test_persistence import Networkd
from tests.lab import Lab
from tests.lab.lab import LabHost

CHECKOUT = Path(__file__).parents[2]
VIPS = ["10.10.10.10/32", "fd00::10/128"]
OWN = "10.10.10.11/24"
NETWORK = f"[Match]\nName=eth0\n[Network]\nAddress={OWN}\nIPv6AcceptRA=no\n"
FOLDERS = {
    "a file of the operator's": "/etc/systemd/network/10-eth0.network",
    "a file of netplan's": "/run/systemd/network/10-netplan-eth0.network",
}
NETWORKD = Networkd()


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab({"lb1": [OWN]}) as lab:
        yield lab


@pytest.fixture
def lb1(lab: Lab) -> Iterator[LabHost]:
    """A director on which systemd-networkd behaves as on a machine, and not as in a container:
    there it waits for udev to know an interface before it asks which addresses it has.
    """
    host = lab["lb1"]
    host.run(["mount", "-o", "remount,rw", "/sys"], check=True)
    for interface in ("lo", "eth0"):
        number = host.read(f"/sys/class/net/{interface}/ifindex").strip()
        # As systemd-udevd leaves it in its database.
        host.run(["mkdir", "-p", "/run/udev/data"], check=True)
        host.write(f"/run/udev/data/n{number}", "I:1000\nG:systemd\nQ:systemd\nV:1\n")
    host.write("/run/udev/control", "")
    yield host
    host.power_cut()
    host.boot()
    host.run(["sh", "-c", "rm -rf /etc/systemd/network/*"], check=True)


@pytest.fixture(params=FOLDERS.values(), ids=FOLDERS)
def network_file(request: pytest.FixtureRequest, lb1: LabHost) -> str:
    """The file by which eth0 goes."""
    path = str(request.param)
    lb1.run(["mkdir", "-p", str(Path(path).parent)], check=True)
    lb1.write(path, NETWORK)
    return path


def told(host: LabHost, expression: str) -> Any:
    """What the library says on a host."""
    script = f"import json; from saltext.lvs import networkd; print(json.dumps({expression}))"
    environment = {"PYTHONPATH": str(CHECKOUT / "_utils")}
    command = [sys.executable, "-c", script]
    return json.loads(host.run(command, check=True, environment=environment).stdout)


PLANNED = "[str(change) for change in networkd.plan(['eth0'])]"
WRITTEN = "networkd.write(networkd.plan(['eth0']))"


def put(host: LabHost) -> None:
    """What keepalived does when it becomes master."""
    for vip in VIPS:
        quiet = ["nodad"] if ":" in vip else []
        host.run(["ip", "address", "replace", vip, "dev", "eth0", *quiet], check=True)


def held(host: LabHost) -> list[str]:
    shown = host.run(["ip", "-json", "address", "show", "dev", "eth0"], check=True).stdout
    (link,) = json.loads(shown)
    found = [item for item in link["addr_info"] if item["scope"] != "link"]
    return sorted(f"{item['local']}/{item['prefixlen']}" for item in found)


@contextmanager
def running(host: LabHost) -> Iterator[None]:
    """systemd-networkd, started and through with eth0."""
    with NETWORKD.running(host):
        NETWORKD.wait(host, "eth0")
        # It says so before its last message to the kernel is answered.
        time.sleep(0.5)
        yield


@contextmanager
def taken_away(host: LabHost) -> Iterator[list[str]]:
    """The addresses that eth0 loses meanwhile, be it for a moment."""
    lost: list[str] = []
    command = ["ip", "-oneline", "monitor", "address"]
    with host.running(command, stdout=subprocess.PIPE, text=True) as monitor:
        time.sleep(0.5)
        yield lost
        time.sleep(0.5)
        monitor.terminate()
        lines = [line.split() for line in monitor.stdout.read().splitlines()]
    lost += [words[4] for words in lines if words[0] == "Deleted" and words[2] == "eth0"]


def test_a_restart_takes_vips_away_until_it_is_told_not_to(lb1: LabHost, network_file: str) -> None:
    with running(lb1):
        put(lb1)
    assert held(lb1) == sorted([OWN, *VIPS])
    with taken_away(lb1) as lost, running(lb1):
        assert held(lb1) == [OWN]
        put(lb1)
        ours = f"/etc/systemd/network/{Path(network_file).name}.d/50-saltext-lvs.conf"
        assert told(lb1, PLANNED) == [f"write {ours}"]
        before = [*held(lb1)]
        told(lb1, WRITTEN)
        assert (told(lb1, PLANNED), held(lb1)) == ([], before)
    assert set(VIPS) <= set(lost)
    with taken_away(lb1) as lost, running(lb1):
        assert told(lb1, PLANNED) == []
    assert (lost, held(lb1)) == ([], sorted([OWN, *VIPS]))


def test_a_reload_and_a_new_configuration_leave_vips_too(lb1: LabHost, network_file: str) -> None:
    with running(lb1):
        told(lb1, WRITTEN)
    with running(lb1):
        put(lb1)
        with taken_away(lb1) as lost:
            for command in (["reload"], ["reconfigure", "eth0"]):
                lb1.run(["networkctl", *command], check=True)
                time.sleep(1)
                NETWORKD.wait(lb1, "eth0")
        assert held(lb1) == sorted([OWN, *VIPS])
    # Its own address, which it puts back, is another matter.
    assert set(lost) & set(VIPS) == set()


def test_an_interface_that_it_leaves_alone_needs_no_file(lb1: LabHost, network_file: str) -> None:
    lb1.write(network_file, "[Match]\nName=eth0\n[Link]\nUnmanaged=yes\n")
    put(lb1)
    with NETWORKD.running(lb1):
        time.sleep(2)
        assert told(lb1, PLANNED) == []
    assert set(VIPS) <= set(held(lb1))
