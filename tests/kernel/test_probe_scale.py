"""Thousands of real servers from one thread: spread over time, whole, and at what cost.

The figures that it prints are of the lab's kernel, where a system call costs 4 µs and more.
"""

from __future__ import annotations

import ipaddress
import select
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pytest
from saltext.lvs import probe
from saltext.lvs.checks import Check, How, Path, Tcp, Verdict
from saltext.lvs.pacing import Pace

from tests.lab import namespaces

pytestmark = pytest.mark.usefixtures("netns")

FAR = "far"
PORT = 80
INTERVAL = 4.0
VIP, VIP6 = ipaddress.ip_address("10.20.0.10"), ipaddress.ip_address("fd20::10")
# The kernel's side: no limit of open files is meant to play a part here.
TARGETS = 5000
PATHS = 2000


def ip(*commands: str) -> None:
    text = "\n".join(commands)
    subprocess.run(["ip", "-batch", "-"], input=text, text=True, check=True, capture_output=True)


SERVICE = f"""
import socket
with socket.create_server(("", {PORT}), backlog=4096) as listener:
    print("listens", flush=True)
    while True:
        listener.accept()[0].close()
"""


@contextmanager
def accepting() -> Iterator[None]:
    """A service on every address, in a process of its own: its work is not ours."""
    command = [sys.executable, "-c", SERVICE]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as service:
        assert service.stdout is not None
        service.stdout.readline()
        try:
            yield
        finally:
            service.kill()


def watched(hows: Iterable[How], seconds: float) -> tuple[list[Verdict], float]:
    """The verdicts of some time, and the processor time that this thread took for them."""
    engine = probe.Engine(seed=1)
    pace = Pace(INTERVAL, jitter=0.1)
    engine.set(Check(n, how, pace, timeout=3) for n, how in enumerate(hows))
    until, began = time.monotonic() + seconds, time.thread_time()
    found: list[Verdict] = []
    while (left := until - time.monotonic()) > 0:
        found += engine.step(left)
    took = time.thread_time() - began
    engine.close()
    return found, took


def expect_spread(found: list[Verdict], count: int) -> None:
    """Everyone in every interval, and about as many in each part of it.

    The first turn has no jitter: the part in which the second one begins has half of its share,
    the other half comes a part later. A machine that was busy elsewhere may upset two parts more.
    """
    begun = [verdict.at - verdict.milliseconds / 1000 for verdict in found]
    first = min(begun)
    turns = Counter(verdict.key for verdict in found)
    assert len(turns) == count
    assert min(turns.values()) >= 2 and max(turns.values()) <= 4
    parts = Counter(int((at - first) / (INTERVAL / 10)) for at in begun)
    share = count / 10
    odd = {part: parts[part] for part in range(25) if not share * 0.5 < parts[part] < share * 2}
    assert odd.pop(10, share) > share * 0.25, parts
    assert len(odd) <= 2 and max(parts.values()) < share * 4, odd


def bare(hows: list[Tcp]) -> float:
    """Seconds of processor time for one connection each, as little as Python can do for it."""
    began = time.thread_time()
    with select.epoll() as poll:
        for start in range(0, len(hows), 20):
            links: dict[int, socket.socket] = {}
            for how in hows[start : start + 20]:
                link = socket.socket(type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
                link.connect_ex((str(how.address), how.port))
                poll.register(link.fileno(), select.EPOLLOUT | select.EPOLLONESHOT)
                links[link.fileno()] = link
            while links:
                for descriptor, _ in poll.poll(1):
                    links.pop(descriptor).close()
    return time.thread_time() - began


def test_thousands_of_connections_are_spread_and_none_is_lost() -> None:
    first = ipaddress.ip_address("127.1.0.1")
    hows = [Tcp(first + number, PORT) for number in range(TARGETS)]
    with accepting():
        found, took = watched(hows, INTERVAL * 3)
        least = bare(hows)
    assert {verdict.ok for verdict in found} == {True}
    expect_spread(found, TARGETS)
    each, least_each = took / len(found), least / len(hows)
    assert each < least_each * 4
    print(
        f"\ntcp: {len(found)} checks, {each * 1e6:.0f} µs of processor time each; a bare loop: "
        f"{least_each * 1e6:.0f}"
    )


def test_thousands_of_paths_are_spread_and_none_is_lost() -> None:
    """Real servers that are one machine, which has all their addresses and the VIP."""
    with namespaces.named_network(FAR):
        ip(
            f"link add eth0 type veth peer name eth0 netns {FAR}",
            "link set eth0 up",
            "address add 10.20.0.1/16 dev eth0",
        )
        far = ["ip", "netns", "exec", FAR, "ip", "-batch", "-"]
        lines = (
            "link set eth0 up",
            "address add 10.20.0.2/16 dev eth0",
            f"address add {VIP}/32 dev lo",
            "route add local 10.20.128.0/17 dev lo",
        )
        subprocess.run(far, input="\n".join(lines), text=True, check=True)
        there = subprocess.Popen(["ip", "netns", "exec", FAR, "sleep", "300"])
        try:
            time.sleep(0.3)
            listener = namespaces.in_network_of(
                there.pid, lambda: socket.create_server(("", PORT), backlog=4096)
            )
            with listener:
                first = ipaddress.ip_address("10.20.128.1")
                hows = [Path(first + number, VIP, PORT) for number in range(PATHS)]
                found, took = watched(hows, INTERVAL * 3)
                half_open = namespaces.in_network_of(there.pid, in_syn_recv)
        finally:
            there.kill()
            there.wait()
    assert {verdict.reason.split()[1] for verdict in found} == {"serves"}
    expect_spread(found, PATHS)
    assert half_open == 0
    print(f"\npath: {len(found)} checks, {took / len(found) * 1e6:.0f} µs of processor time each")


def in_syn_recv() -> int:
    with open("/proc/thread-self/net/tcp", encoding="ascii") as lines:
        return sum(line.split()[3] == "03" for line in lines)


def test_a_rack_that_dies_at_once_is_judged_within_one_interval_and_the_timeout() -> None:
    first = ipaddress.ip_address("127.1.0.1")
    hows = [Tcp(first + number, PORT) for number in range(500)]
    engine = probe.Engine(seed=1)
    engine.set(Check(n, how, Pace(1.0), timeout=3) for n, how in enumerate(hows))
    with accepting():
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            engine.step(0.1)
    died = time.monotonic()
    dead: set[object] = set()
    while len(dead) < 500 and time.monotonic() < died + 10:
        dead |= {verdict.key for verdict in engine.step(0.1) if verdict.ok is False}
    took = time.monotonic() - died
    engine.close()
    print(f"\n500 that refuse: all judged after {took:.2f} s")
    assert took < 1.0 * 1.1 + 0.5
