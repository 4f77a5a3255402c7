"""A cluster that keepalived.conf describes comes to Salt, by the commands of docs/adopting.md; its
clients ask and hold connections all the while.

The tests run in the order in which they stand here.
"""

from __future__ import annotations

import re
import shlex
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.highstate import Highstate
from tests.lab import Lab
from tests.lab.client import Client
from tests.lab.cluster import SaltCluster
from tests.lab.host import Host
from tests.lab.lab import HOSTS, VIP
from tests.lab.waiting import until

pytestmark = pytest.mark.timeout(600)

CHECKOUT = Path(__file__).parents[2]
ADOPTED = CHECKOUT / "tests" / "data" / "adopted"
PAGE = (CHECKOUT / "docs" / "adopting.md").read_text(encoding="utf-8")
PILLAR = "/srv/pillar/adopted/lvs.sls"
SECRETS = "/var/lib/saltext-lvs/lvs_secrets.sls"
CLIENTS = [f"10.10.10.{number}" for number in range(101, 117)]
HELD = 8


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    names = ("master", "lb1", "lb2", "rs1", "rs2", "client")
    with Lab({name: HOSTS[name] for name in names}) as lab:
        yield lab


@pytest.fixture(scope="module")
def cluster(lab: Lab) -> Iterator[SaltCluster]:
    """Directors as somebody has set them up by hand, and minions that know nothing yet."""
    for name in ("rs1", "rs2"):
        serve_by_hand(lab[name])
    with SaltCluster(lab, ("lb1", "lb2")) as cluster:
        cluster.master.run(["rm", "-r", "/srv/pillar"], check=True)
        cluster.master.write("/srv/pillar/top.sls", "{}\n")
        for name, file in {"lb1": "first_director", "lb2": "second_director"}.items():
            direct_by_hand(cluster, name, (ADOPTED / f"{file}.conf").read_text())
        until(lambda: has_vip(lab["lb1"]), "the VIP on lb1", seconds=60)
        yield cluster


def serve_by_hand(host: Host) -> None:
    for command in (
        "sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2",
        "ip link add dummy0 type dummy",
        "ip link set dummy0 up",
        f"ip address add {VIP}/32 dev dummy0",
    ):
        host.run(command.split(), check=True)


def direct_by_hand(cluster: SaltCluster, name: str, conf: str) -> None:
    installed = cluster.salt(name, "pkg.install", "keepalived", timeout=300)
    assert isinstance(installed[name], dict), installed
    host = cluster.lab[name]
    host.write("/etc/keepalived/keepalived.conf", conf)
    host.run(["modprobe", "ip_vs"])
    assert cluster.salt(name, "service.restart", "keepalived")[name] is True


def has_vip(host: Host) -> bool:
    return f" {VIP}/" in host.run(["ip", "-o", "address"]).stdout


def commands(heading: str) -> list[list[str]]:
    """The commands of a section of the page."""
    (section,) = re.findall(rf"(?ms)^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", PAGE)
    blocks = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


def run(cluster: SaltCluster, command: list[str]) -> Any:
    program, *words = command
    if program == "salt-run":
        return cluster.salt_run(*words)
    if "state.apply" in words:
        return cluster.highstate(*(word for word in words if word != "state.apply"))
    return cluster.salt(*words, timeout=300)


def test_the_files_become_one_pillar(cluster: SaltCluster) -> None:
    sync, command = commands("1. Make a pillar of the files")
    run(cluster, sync)
    cluster.master.run(["mkdir", "-p", "/srv/pillar/adopted"], check=True)
    found = run(cluster, command)
    assert (found["failed"], found["disagreements"]) == ({}, [])
    assert found["secrets"] == {"lb1": SECRETS, "lb2": SECRETS}
    told = {note["why"] for notes in found["notes"].values() for note in notes}
    assert all("deprecated" in why or "Please use" in why for why in told), told
    text = cluster.master.read(PILLAR)
    assert yaml.safe_load(text) == found["pillar"]
    assert "MY_PASS" not in text + str(found)


def test_the_passwords_are_where_root_alone_can_read_them(cluster: SaltCluster) -> None:
    (command,) = commands("2. Take the passwords to the pillar")
    (listed,) = run(cluster, command).values()
    assert listed.startswith("-rw------- 1 root root")
    secrets = cluster.lab["lb1"].read(SECRETS)
    assert secrets == cluster.lab["lb2"].read(SECRETS)
    assert yaml.safe_load(secrets) == {
        "lvs_secrets": {"vrrp_instances": {"VirtIP_10": {"auth_pass": "MY_PASS"}}}
    }
    cluster.master.write("/srv/pillar/adopted/lvs_secrets.sls", secrets)
    (top,) = re.findall(r"```yaml\n(base:.*?)```", PAGE, re.DOTALL)
    cluster.master.write("/srv/pillar/top.sls", top)


def test_the_pillar_is_valid_and_the_new_file_has_no_problems(cluster: SaltCluster) -> None:
    (command,) = commands("3. Look at the pillar")
    judged = run(cluster, command)
    assert {name: (one["valid"], one["problems"]) for name, one in judged.items()} == {
        "lb1": (True, []),
        "lb2": (True, []),
    }
    refresh, plan = commands("4. Compare before you change")
    run(cluster, refresh)

    def planned() -> dict[str, Any]:
        answers = run(cluster, plan)
        return answers if all(isinstance(one, dict) for one in answers.values()) else {}

    until(planned, "the pillar on the directors", seconds=60)
    assert {name: one["problems"] for name, one in planned().items()} == {"lb1": [], "lb2": []}


def test_the_directors_come_over_and_no_client_notices(lab: Lab, cluster: SaltCluster) -> None:
    links = [held_connection(lab, source) for source in CLIENTS[:HELD]]
    before = Client(lab["client"]).keep_asking(VIP, sources=CLIENTS, per_second=50, timeout=2.0)
    with before as asking:
        for command in commands("5. The backup director first"):
            answer = run(cluster, command)
            if "state.apply" in command and "test=True" not in command:
                assert Highstate(answer).failed() == {}
                assert has_vip(lab["lb1"]) and not has_vip(lab["lb2"])
    assert (len(asking.replies.all) > 100, asking.replies.errors) == (True, [])
    assert [answered(link) for link in links] == [True] * HELD
    for name in ("lb1", "lb2"):
        assert lab[name].read("/etc/keepalived/keepalived.conf").startswith("# Managed by Salt")
    assert Highstate.run(cluster, "lb1").failed() == {}
    assert "lvs-keepalived-config" not in Highstate.run(cluster, "lb1").changing()["lb1"]


def held_connection(lab: Lab, source: str) -> socket.socket:
    """A connection with half a request sent."""

    def opened() -> socket.socket:
        return socket.create_connection((VIP, 80), timeout=10, source_address=(source, 0))

    link: socket.socket = lab["client"].in_network(opened)
    link.sendall(b"GET / HTTP/1.1\r\n")
    return link


def answered(link: socket.socket) -> bool:
    """Whether the other half still gets an answer."""
    try:
        link.sendall(b"Host: web\r\n\r\n")
        return link.recv(100).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False
    finally:
        link.close()
