"""keepalived's own check through the VIP: it sees what its check of a real server's address does
not.

Two directors, two real servers, IPv4 and IPv6; `naive` is checked by TCP at the real server's own
address alone.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from saltext.lvs import fifos, keepalived, model, sysctls, trackfiles

from tests.golden.cases import TEMPLATE
from tests.lab.host import Host
from tests.lab.lab import Lab

NUMBERS = {"lb1": 11, "lb2": 12, "rs1": 41, "rs2": 42}
DIRECTORS, REAL_SERVERS = ("lb1", "lb2"), ("rs1", "rs2")
VIPS = {"eth4": "10.10.10.10", "eth6": "fd00::10"}
# Checks every second: some of them, and what an election takes.
SECONDS = 20.0


def pillar(family: int) -> dict[str, Any]:
    """A cluster of one address family."""
    network = "10.10.10." if family == 4 else "fd00::"
    own = {name: f"{network}{number}" for name, number in NUMBERS.items()}
    vip = VIPS[f"eth{family}"]
    server = {
        "address": vip,
        "managed_by": "keepalived",
        "scheduler": "rr",
        "real_servers": list(REAL_SERVERS),
    }
    every_second = {"interval": 1, "connect_timeout": 1}
    return {
        "lvs": {
            "directors": {name: {"address": own[name]} for name in DIRECTORS},
            "real_servers": {name: own[name] for name in REAL_SERVERS},
            "vrrp_instances": {
                "V": {"interface": "eth0", "virtual_router_id": 10, "virtual_ipaddress": [vip]}
            },
            "virtual_servers": {
                "web": {**server, "port": 80, "check": every_second},
                "naive": {**server, "port": 81, "check": {"types": ["tcp"], **every_second}},
            },
        }
    }


def until(holds: Callable[[], object], what: str) -> float:
    """Wait until something holds, with a bound; how long it took."""
    start = time.monotonic()
    while not holds():
        assert time.monotonic() - start < SECONDS, f"{what} did not come within {SECONDS} s"
        time.sleep(0.2)
    return time.monotonic() - start


def table(director: Host) -> list[str]:
    command = [*in_network(director), "ipvsadm", "-Sn"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def weights(director: Host, port: int) -> Mapping[str, int]:
    """The weights of a virtual server's real servers, by their addresses."""
    found: dict[str, int] = {}
    for line in table(director):
        words = line.split()
        if words[0] == "-a" and words[2].endswith(f":{port}"):
            address = words[4].rpartition(":")[0].strip("[]")
            found[address] = int(words[words.index("-w") + 1])
    return found


def become_real_server(host: Host, vip: str) -> None:
    for setting, value in (("arp_ignore", 1), ("arp_announce", 2)):
        host.run(["sysctl", "-qw", f"net.ipv4.conf.all.{setting}={value}"], check=True)
    hold(host, vip)


def hold(host: Host, vip: str) -> None:
    prefix = 128 if ":" in vip else 32
    host.run(["ip", "link", "add", "dummy0", "type", "dummy"], check=True)
    host.run(["ip", "link", "set", "dummy0", "up"], check=True)
    host.run(["ip", "address", "add", f"{vip}/{prefix}", "dev", "dummy0", "nodad"], check=True)


def become_director(host: Host, cluster: model.Cluster, folder: Path) -> list[str]:
    """Prepare a director; the command that runs its keepalived, with this machine's programs."""
    conf = folder / host.name
    conf.write_text(keepalived.render(cluster, host.name, TEMPLATE))
    command = [*in_network(host), "keepalived", "-f", str(conf)]
    assert subprocess.run([*command, "-t"], check=False).returncode == 0
    fifos.make()
    trackfiles.write(trackfiles.plan(cluster))
    for line in sysctls.for_minion(cluster, host.name, ["eth0"]).get(model.Role.DIRECTOR, ()):
        host.run(["sysctl", "-qw", f"{line.name}={line.value}"], check=True)
    pids = [f"{option}{conf}{option}.pid" for option in ("-p", "-r", "-c", "-b")]
    return [*command, "-n", "-l", "-D", *pids]


def in_network(host: Host) -> list[str]:
    return ["nsenter", f"--target={host.process}", "--net"]


def is_master(host: Host, vip: str) -> bool:
    held = host.run(["ip", "-o", "address", "show", "dev", "eth0"], check=True).stdout
    return f" {vip}/" in held


SERVER = """
import socket, sys, threading
def serve(port):
    with socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True) as one:
        while True:
            one.accept()[0].close()
threading.Thread(target=serve, args=(81,), daemon=True).start()
serve(80)
"""


@pytest.fixture(params=[4, 6], ids=["IPv4", "IPv6"], scope="module")
def lab(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Lab, model.Cluster, str]]:
    cluster = model.from_pillar(pillar(request.param))
    vip = VIPS[f"eth{request.param}"]
    folder = tmp_path_factory.mktemp("directors")
    with ExitStack() as stack:
        lab = stack.enter_context(
            Lab({name: [f"10.10.10.{number}/24"] for name, number in NUMBERS.items()})
        )
        for name, number in NUMBERS.items():
            address = f"fd00::{number}/64"
            lab[name].run(["ip", "address", "add", address, "dev", "eth0", "nodad"], check=True)
        for name in REAL_SERVERS:
            become_real_server(lab[name], vip)
            stack.enter_context(lab[name].running([sys.executable, "-c", SERVER]))
        for name in DIRECTORS:
            command = become_director(lab[name], cluster, folder)
            with (folder / f"{name}.log").open("w") as log:
                daemon = subprocess.Popen(command, stdout=log, stderr=log)
            stack.callback(daemon.wait)
            stack.callback(daemon.terminate)
        until(lambda: is_master(lab["lb1"], vip), "the VIP")
        yield lab, cluster, vip


def test_a_real_server_that_lost_its_vip_is_taken_out_on_both_directors_and_comes_back(
    lab: tuple[Lab, model.Cluster, str],
) -> None:
    hosts, cluster, vip = lab
    rs1, rs2 = (str(cluster.real_servers[name].address) for name in REAL_SERVERS)
    everybody, without_rs2 = {rs1: 1, rs2: 1}, {rs1: 1, rs2: 0}
    for name in DIRECTORS:
        until(lambda: weights(hosts[name], 80) == everybody, f"{name}: both in service")  # noqa: B023
    # Not only at first: checks go on, and nothing takes anybody out.
    time.sleep(4)
    assert all(weights(hosts[name], 80) == everybody for name in DIRECTORS)

    hosts["rs2"].run(["ip", "link", "delete", "dummy0"], check=True)
    took = [
        until(lambda: weights(hosts[name], 80) == without_rs2, f"{name}: rs2 out of service")  # noqa: B023
        for name in DIRECTORS
    ]
    assert sum(took) < 8
    assert all(weights(hosts[name], 81) == everybody for name in DIRECTORS)

    hold(hosts["rs2"], vip)
    for name in DIRECTORS:
        until(lambda: weights(hosts[name], 80) == everybody, f"{name}: rs2 back")  # noqa: B023


def test_the_checks_own_virtual_servers_are_known_as_keepaliveds(
    lab: tuple[Lab, model.Cluster, str],
) -> None:
    hosts, cluster, _ = lab
    marks = {int(line.split()[2]) for line in table(hosts["lb1"]) if line.startswith("-A -f")}
    assert marks == set(cluster.path_marks.values())
    assert {key.fwmark for key in cluster.keepalived_keys()} == marks | {0}


def test_a_failover_takes_no_real_server_out(lab: tuple[Lab, model.Cluster, str]) -> None:
    hosts, _, vip = lab
    hosts["lb1"].run(["ip", "link", "set", "eth0", "down"], check=True)
    until(lambda: is_master(hosts["lb2"], vip), "the VIP on lb2")
    for _ in range(15):
        assert 0 not in weights(hosts["lb2"], 80).values()
        time.sleep(0.2)


def test_a_master_hears_the_answers_by_the_setting_that_the_formula_makes(
    lab: tuple[Lab, model.Cluster, str],
) -> None:
    hosts, cluster, vip = lab
    if ":" in vip:
        assert sysctls.for_minion(cluster, "lb2", ["eth0"]) == {}
        return
    assert is_master(hosts["lb2"], vip)
    hosts["lb2"].run(["sysctl", "-qw", "net.ipv4.conf.eth0.accept_local=0"], check=True)
    until(lambda: set(weights(hosts["lb2"], 80).values()) == {0}, "nobody to be heard")
    hosts["lb2"].run(["sysctl", "-qw", "net.ipv4.conf.eth0.accept_local=1"], check=True)
    until(lambda: 0 not in weights(hosts["lb2"], 80).values(), "everybody to be heard")
