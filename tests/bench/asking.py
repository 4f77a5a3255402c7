"""Many real servers asked by one director, in a process and a network of its own.

``python -m tests.bench.asking JOB REAL_SERVERS INTERVAL_MS TIMES`` prints the steps of the job as a
JSON object. The real servers are addresses of the loopback; both sides ask them alike, by TCP.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench.healthy import Asked
from tests.bench.ports import PORT
from tests.lab import namespaces
from tests.lab.waiting import until

FIRST = ipaddress.IPv4Address("127.1.0.1")
FIRST_VIP = ipaddress.IPv4Address("10.30.0.1")
# Of those in a network of their own, which are one machine that has all of these.
FAR, FIRST_FAR = "far", ipaddress.IPv4Address("10.40.0.1")
NEIGHBOURS = 65_536
FAR_NETWORK, VIPS = "10.40.0.0/17", "10.30.0.0/24"
EACH = 100
TIMEOUT_SECONDS = 2
# From when on the first checks, which are spread over an interval, are done.
SETTLED = 2
LOOK_SECONDS = 0.001
CALL_EVERY_SECONDS = 0.1

SERVER = f"""
import socket
with socket.create_server(("", {PORT}), backlog=4096) as listener:
    print("listens", flush=True)
    while True:
        listener.accept()[0].close()
"""

Steps = dict[str, float | list[float]]


def main() -> None:
    """Do the job that the command line names, and print its steps."""
    name, *numbers = sys.argv[1:]
    job, side = name.split(", ")
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
    subprocess.run(["modprobe", "-a", "ip_vs", "ip_vs_wlc"], check=True)
    # Of the whole machine: each real server that is far is a neighbour, none to be forgotten.
    limits = [f"net.ipv4.neigh.default.gc_thresh{number}={NEIGHBOURS}" for number in (3, 2, 1)]
    subprocess.run(["sysctl", "-qw", *limits], check=True)
    with namespaces.own_network():
        steps = JOBS[job](SIDES[side], Asked(*map(int, numbers)))
    json.dump(steps, sys.stdout)


def addresses(load: Asked, first: ipaddress.IPv4Address = FIRST) -> list[str]:
    """Those of the real servers."""
    return [str(first + number) for number in range(load.real_servers)]


def shares(load: Asked, first: ipaddress.IPv4Address = FIRST) -> Iterator[tuple[str, list[str]]]:
    """The VIPs, each with its real servers' addresses."""
    found = addresses(load, first)
    for number in range(0, len(found), EACH):
        yield str(FIRST_VIP + number // EACH), found[number : number + EACH]


# --------------------------------------------------------------------------------------------------
# Sides: who asks


class Side:
    """Who asks: how much processor time it has taken (seconds), and its memory (MB)."""

    def cpu(self) -> float:
        raise NotImplementedError

    def memory(self) -> float:
        raise NotImplementedError

    def call(self) -> None:
        """What a minion's beacon does each second; keepalived has none."""


class Ours(Side):
    """The watcher's thread, as the beacon runs it."""

    def __init__(self, watcher: Any, memory: Any, given: dict[str, Any], before: float) -> None:
        self._thread = watcher._thread.native_id
        self._watcher, self._memory, self._given = watcher, memory, given
        self._before = before

    def call(self) -> None:
        from saltext.lvs import healthwatch

        healthwatch.brief(self._memory, self._given)
        self._watcher.poll(30)

    def asked(self) -> int:
        """How many answers have come."""
        return int(self._memory.asked)

    def cpu(self) -> float:
        return _cpu(Path(f"/proc/self/task/{self._thread}/stat"))

    def memory(self) -> float:
        return _peak() - self._before


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Theirs(Side):
    """keepalived's process for checks."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def cpu(self) -> float:
        return _cpu(Path(f"/proc/{self._pid}/stat"))

    def memory(self) -> float:
        status = Path(f"/proc/{self._pid}/status").read_text()
        return int(re.findall(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)[0]) / 1024


def _cpu(stat: Path) -> float:
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def ours(load: Asked, *types: str) -> Iterator[Ours]:
    """The table from a pillar, and the watcher; asked for *types*, those that are far."""
    from saltext.lvs import healthwatch, ipvs, model, watch

    given = pillar(load, types or ("tcp",), FIRST_FAR if types else FIRST)
    ipvs.apply(model.from_pillar(given).table())
    before = _peak()
    with tempfile.TemporaryDirectory() as folder:
        memory = healthwatch.Memory(
            health=f"{folder}/health.json", wishes_path=f"{folder}/wishes.json"
        )
        healthwatch.brief(memory, given)
        watcher = watch.Watcher(memory, "lb1", lambda events: None)
        watcher.start(repeat=30)
        until(lambda: watcher._thread.native_id, "the watcher")
        yield Ours(watcher, memory, given, before)
        watcher.stop(30)


def pillar(
    load: Asked, types: Sequence[str] = ("tcp",), first: ipaddress.IPv4Address = FIRST
) -> dict[str, Any]:
    """A cluster of these real servers, and no floor: keepalived has none either."""
    names = {address: f"rs{number}" for number, address in enumerate(addresses(load, first))}
    check = {
        "types": list(types),
        "interval": load.interval_ms / 1000,
        "connect_timeout": TIMEOUT_SECONDS,
        "hold": {"flaps": 0},
    }
    servers = {
        f"web{number}": {
            "address": vip,
            "port": PORT,
            "scheduler": "wlc",
            "min_in_service": 0,
            "check": check,
            "real_servers": {names[address]: {"weight": 50} for address in found},
        }
        for number, (vip, found) in enumerate(shares(load, first))
    }
    cluster = {
        "name": "prod",
        "directors": {"lb1": {"router_id": "LVS_PRI"}},
        "real_servers": {name: address for address, name in names.items()},
        "virtual_servers": servers,
    }
    return {"lvs": cluster}


@contextmanager
def keepalived(load: Asked) -> Iterator[Side]:
    """keepalived with its checks alone."""
    with tempfile.TemporaryDirectory() as folder:
        conf = Path(folder) / "keepalived.conf"
        conf.write_text("".join(configuration(load)))
        files = {"-p": "keepalived", "-c": "checkers"}
        options = [word for key, name in files.items() for word in (key, f"{folder}/{name}.pid")]
        command = ["keepalived", "-n", "-C", "-l", "-f", str(conf), *options]
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command, **silent)  # type: ignore[call-overload]
        try:
            pid = until(lambda: _child(process.pid), "keepalived's checks")
            until(lambda: zeros() == (0, load.real_servers), "its table", seconds=120, pause=0.5)
            yield Theirs(pid)
        finally:
            process.terminate()
            process.wait(60)


def configuration(load: Asked) -> Iterator[str]:
    """The same cluster, as one writes it by hand."""
    for vip, found in shares(load):
        yield f"virtual_server {vip} {PORT} {{\n"
        yield f"delay_loop {load.interval_ms / 1000:g}\nlb_algo wlc\nlb_kind DR\nprotocol TCP\n"
        for address in found:
            yield f"real_server {address} {PORT} {{\nweight 50\ninhibit_on_failure\n"
            yield f"TCP_CHECK {{\nconnect_timeout {TIMEOUT_SECONDS}\nretry 0\n}}\n}}\n"
        yield "}\n"


def _child(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else 0


SIDES: dict[str, Callable[[Asked], Any]] = {"ours": ours, "keepalived": keepalived}


# --------------------------------------------------------------------------------------------------
# Jobs


def zeros() -> tuple[int, int]:
    """How many real servers in the kernel's table have weight 0, and how many there are."""
    text = Path("/proc/thread-self/net/ip_vs").read_text()
    # -> 7F010001:0050      Route   50     0          0
    found = [line.split()[3] for line in text.splitlines() if line.startswith("  -> ")]
    weights = [word for word in found if word.isdigit()]
    return weights.count("0"), len(weights)


def opened() -> int:
    """How many connections this network has begun: nobody else does here."""
    text = Path("/proc/thread-self/net/snmp").read_text()
    names, values = (line.split() for line in text.splitlines() if line.startswith("Tcp:"))
    return int(values[names.index("ActiveOpens")])


def cost(side: Callable[[Asked], Any], load: Asked) -> Steps:
    """All are well: what a check costs (µs), the share of a processor (%), memory (MB), and how
    long the beacon's calls took meanwhile (ms).
    """
    with serving(), side(load) as asker:
        time.sleep(SETTLED * load.interval_ms / 1000 + 1)
        cpu, count, began = asker.cpu(), opened(), time.monotonic()
        calls = list(_calls(asker, load.times))
        cpu, count = asker.cpu() - cpu, opened() - count
        passed, memory = time.monotonic() - began, asker.memory()
        _expect_no_deaths()
    return {
        "each": cpu / count * 1e6,
        "share": 100 * cpu / passed,
        "kept up": 100 * count / passed / (load.real_servers / (load.interval_ms / 1000)),
        "memory": memory,
        "calls": calls,
    }


@contextmanager
def serving(*within: str) -> Iterator[None]:
    """A service on every address, in a process of its own: its work is nobody's here."""
    command = [*within, sys.executable, "-c", SERVER]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        server.stdout.readline()
        try:
            yield
        finally:
            server.kill()


def _calls(asker: Side, seconds: float) -> Iterator[float]:
    """What a call takes, ten times a second."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(CALL_EVERY_SECONDS)
        began = time.perf_counter()
        asker.call()
        yield (time.perf_counter() - began) * 1000


def _expect_no_deaths() -> None:
    if zeros()[0]:
        raise SystemExit("somebody was found dead")


def both(_side: Callable[[Asked], Any], load: Asked) -> Steps:
    """Asked by path and by tcp: the share of a processor (%)."""
    with far_away(), serving("ip", "netns", "exec", FAR), ours(load, "path", "tcp") as asker:
        time.sleep(SETTLED * load.interval_ms / 1000 + 1)
        cpu, count, began = asker.cpu(), asker.asked(), time.monotonic()
        time.sleep(load.times)
        cpu, count = asker.cpu() - cpu, asker.asked() - count
        passed = time.monotonic() - began
        _expect_no_deaths()
    due = 2 * load.real_servers / (load.interval_ms / 1000)
    return {"share": 100 * cpu / passed, "kept up": 100 * count / passed / due}


@contextmanager
def far_away() -> Iterator[None]:
    """The network in which the real servers are one machine, by one cable."""
    with namespaces.named_network(FAR):
        _ip(
            (),
            f"link add eth0 type veth peer name eth0 netns {FAR}",
            "link set eth0 up",
            "address add 10.40.255.1/16 dev eth0",
        )
        _ip(
            ("ip", "netns", "exec", FAR),
            "link set lo up",
            "link set eth0 up",
            "address add 10.40.255.2/16 dev eth0",
            f"route add local {FAR_NETWORK} dev lo",
            f"route add local {VIPS} dev lo",
        )
        yield


def _ip(within: Sequence[str], *lines: str) -> None:
    command = [*within, "ip", "-batch", "-"]
    subprocess.run(command, input="\n".join(lines), text=True, check=True, capture_output=True)


class Ports:
    """The program ``ports.py``."""

    def __init__(self, load: Asked) -> None:
        program = str(Path(__file__).with_name("ports.py"))
        self._process = subprocess.Popen(
            [sys.executable, program, str(FIRST), str(load.real_servers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self._heard()

    def __enter__(self) -> Ports:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def _heard(self) -> float:
        assert self._process.stdout is not None
        return float(self._process.stdout.readline())

    def tell(self, act: str, first: int, count: int) -> float:
        """Have it close or open some; when it began to."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{act} {first} {count}\n")
        return self._heard()


def one_dies(side: Callable[[Asked], Any], load: Asked) -> Steps:
    """Again and again one port is closed; the milliseconds until its weight is 0."""
    return _die(side, load, 1)


def half_die(side: Callable[[Asked], Any], load: Asked) -> Steps:
    """Half of all die at once; the milliseconds until all their weights are 0."""
    return _die(side, load, load.real_servers // 2)


def _die(side: Callable[[Asked], Any], load: Asked, count: int) -> Steps:
    took = []
    with Ports(load) as ports, side(load):
        time.sleep(SETTLED * load.interval_ms / 1000 + 1)
        for number in range(load.times):
            # Not in step with whoever asks.
            time.sleep(0.3 + number * 0.37 * load.interval_ms / 1000 % 1)
            first = number * count % load.real_servers
            began = ports.tell("close", first, count)
            until(lambda: zeros()[0] == count, f"{count} at 0", seconds=60, pause=LOOK_SECONDS)
            took.append((time.monotonic() - began) * 1000)
            ports.tell("open", first, count)
            until(lambda: zeros()[0] == 0, "none at 0", seconds=60, pause=0.02)
    return {"took": took}


JOBS: dict[str, Callable[[Callable[[Asked], Any], Asked], Steps]] = {
    "cost": cost,
    "both": both,
    "one dies": one_dies,
    "half die": half_die,
}


if __name__ == "__main__":
    main()
