"""One job on a real server's VIPs, in a process and a network of its own.

``python -m tests.bench.watching JOB VIPS TIMES`` prints the milliseconds of each step of the job as
a JSON object; of a step that is done several times, a list of them. After each act on the kernel
the interface must hold what it should, as ``ip`` shows it.
"""

from __future__ import annotations

import ipaddress
import json
import queue
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.hand import Hand
from tests.bench.realserver import Load
from tests.bench.worker import timed
from tests.lab import namespaces
from tests.lab.waiting import until

CHECKOUT = Path(__file__).resolve().parents[2]
ADDRESS = "10.10.10.41"
INTERFACE = "dummy0"
FIRST_VIP = ipaddress.IPv4Address("10.77.0.1")
VIPS = ("10.10.10.10", "fd00::10")
# How long a look may take to say something, and how long the kernel is left alone after it: it
# takes an interface apart in the background.
PATIENCE_SECONDS = 5.0
REST_SECONDS = 0.02
CALLS = 200

Steps = dict[str, float | list[float]]
Events = list[dict[str, Any]]


def main() -> None:
    """Do the job that the command line names, and print its steps."""
    name, vips, times = sys.argv[1:]
    with real_server():
        steps = JOBS[name](Load(int(vips), int(times)))
    json.dump(steps, sys.stdout)


@contextmanager
def real_server() -> Iterator[None]:
    """The network of a real server: its card, with its address, quiet on ARP."""
    from saltext.lvs import arp

    with namespaces.own_network():
        ip("link add eth0 type veth peer name far")
        ip(f"address add {ADDRESS}/24 dev eth0")
        ip("link set far up")
        ip("link set eth0 up")
        arp.silence()
        yield


def ip(command: str) -> None:
    """Run the program of that name."""
    subprocess.run(["ip", *command.split()], check=True, stdout=subprocess.DEVNULL)


def check(vips: Sequence[str]) -> None:
    """Fail unless the interface holds these addresses, and no other that is not the kernel's."""
    show = ["ip", "-json", "address", "show", "dev", INTERFACE, "scope", "global"]
    (interface,) = json.loads(subprocess.run(show, check=True, stdout=subprocess.PIPE).stdout)
    # Of what another scope keeps out, an empty entry stays.
    held = sorted(entry["local"] for entry in interface["addr_info"] if entry)
    if held != sorted(vips):
        raise SystemExit(f"{INTERFACE} holds {len(held)} addresses instead of {len(vips)}")


# --------------------------------------------------------------------------------------------------
# Lost, told, put back


class Told:
    """Takes a watcher's events, and keeps when each batch came."""

    def __init__(self) -> None:
        self._batches: queue.Queue[tuple[float, Events]] = queue.Queue()

    def take(self, events: Events) -> None:
        """What the watcher hands its events to."""
        self._batches.put((time.monotonic(), events))

    def wait(self, now: str) -> float:
        """When an event was handed over that has a VIP ``lost`` or ``restored``."""
        while True:
            at, events = self._batches.get(timeout=PATIENCE_SECONDS)
            changes = (change for event in events for change in event.get("changes", ()))
            if any(change.get("now") == now for change in changes):
                return at


def local(load: Load) -> Steps:
    """The interface is deleted, and the watcher puts it back."""
    return _lost(load, heals=True)


def reactor(load: Load) -> Steps:
    """The interface is deleted, and the watcher only tells."""
    return _lost(load, heals=False)


def _lost(load: Load, heals: bool) -> Steps:
    from saltext.lvs import dummywatch, links, realserver, watch

    own = ipaddress.ip_address(ADDRESS)
    duty = links.Duty("prod", INTERFACE, links.as_vips(VIPS), own, heals)
    realserver.present(duty)
    dummywatch.REPAIRS_IN_A_MINUTE = load.times + 1
    told, queued, back = Told(), [], []
    watcher = watch.Watcher(dummywatch.Memory(duty=duty), "rs1", told.take)
    links.preload()
    watcher.start(repeat=3600)
    with Hand(VIPS) as hand:
        for _ in range(load.times):
            time.sleep(REST_SECONDS)
            began = hand.strike()
            queued.append((told.wait("lost") - began) * 1000)
            if not heals:
                realserver.present(duty)
            back.append((hand.back() - began) * 1000)
            check(VIPS)
    watcher.stop()
    return {"queued": queued, "back": back} if heals else {"queued": queued}


# --------------------------------------------------------------------------------------------------
# Many VIPs


def many(load: Load) -> Steps:
    """Put many VIPs on a new interface, and look again: as the state does, from the pillar."""
    call = _salt(pillar(load))
    call["dummy.present"]("dummy9", ["10.10.10.10"], persist=False)
    steps: Steps = {"create": timed(call["dummy.present"])}
    check(vips(load))
    steps["nothing"] = timed(call["dummy.plan"])
    return steps


def ip_batch(load: Load) -> Steps:
    """The same with one ``ip -batch``; addresses are replaced, so that it may be run again."""
    lines = "\n".join([*_create_lines(), *_address_lines(load)])
    steps: Steps = {"create": timed(lambda: _batch(lines))}
    check(vips(load))
    again = "\n".join(_address_lines(load))
    steps["nothing"] = timed(lambda: _batch(again))
    return steps


def one_ip_each(load: Load) -> Steps:
    """The same with one ``ip`` for each address."""
    lines = [*_create_lines(), *_address_lines(load)]
    steps: Steps = {"create": timed(lambda: [ip(line) for line in lines])}
    check(vips(load))
    steps["nothing"] = timed(lambda: [ip(line) for line in _address_lines(load)])
    return steps


def vips(load: Load) -> list[str]:
    """The addresses of a load."""
    return [str(FIRST_VIP + number) for number in range(load.vips)]


def pillar(load: Load) -> dict[str, Any]:
    """A cluster with a virtual server on each VIP."""
    servers = {
        f"web{number}": {"address": vip, "port": 80, "real_servers": ["rs1"]}
        for number, vip in enumerate(vips(load))
    }
    cluster = {
        "name": "prod",
        "directors": {"lb1": {"router_id": "LVS_PRI"}},
        "real_servers": {"rs1": {"address": ADDRESS}},
        "virtual_servers": servers,
    }
    return {"lvs": cluster}


def _create_lines() -> list[str]:
    return [f"link add {INTERFACE} type dummy", f"link set {INTERFACE} up arp off"]


def _address_lines(load: Load) -> list[str]:
    return [f"address replace {vip}/32 dev {INTERFACE} noprefixroute" for vip in vips(load)]


def _batch(lines: str) -> None:
    subprocess.run(["ip", "-batch", "-"], input=lines, text=True, check=True)


# --------------------------------------------------------------------------------------------------
# Nothing happens


def idle(load: Load) -> Steps:
    """What the beacon computes while nothing happens, in percent of a processor: a look of its
    thread, and a call of its function, of which there is one each second.

    Both are done without a pause, and counted: user-mode Linux knows a thread's own time only in
    hundredths of a second.
    """
    from saltext.lvs import rtnetlink, watch

    functions = _salt(pillar(load))
    functions["dummy.present"](persist=False)
    check(vips(load))
    watch.LOOK_EVERY_SECONDS = watch.LOOKS_APART_SECONDS = 0.0
    looks = Calls(rtnetlink.Listener, "wait")
    beacon = _beacon(functions)
    beacon()
    until(lambda: looks.number, "the watcher")
    looks.number = 0
    time.sleep(load.times)
    look = load.times / looks.number
    functions["dummy.unwatch"]()
    watch.LOOK_EVERY_SECONDS = 3600.0
    beacon()
    call = median(timed(beacon) for _ in range(CALLS)) / 1000
    functions["dummy.unwatch"]()
    return {"look": 100 * look, "call": 100 * call, "both": 100 * (look + call)}


class Calls:
    """Counts the calls of a method."""

    def __init__(self, owner: type, name: str) -> None:
        self.number = 0
        method = getattr(owner, name)

        def counted(*arguments: Any) -> Any:
            self.number += 1
            return method(*arguments)

        setattr(owner, name, counted)


def _beacon(functions: Any) -> Callable[[], object]:
    """The beacon, called as the minion does it."""
    import salt.loader

    beacons = salt.loader.beacons(functions.opts, functions)
    config = [{"interval": 1}, {"_beacon_name": "dummy"}]
    return lambda: beacons["dummy.beacon"](config)


def _salt(own_pillar: dict[str, Any]) -> Any:
    """Salt's functions as a minion has them, with a pillar."""
    import salt.config
    import salt.loader

    opts = salt.config.minion_config(None)
    opts.update(
        id="rs1",
        file_client="local",
        module_dirs=[str(CHECKOUT)],
        enable_fqdns_grains=False,
        enable_gpu_grains=False,
    )
    opts["grains"] = salt.loader.grains(opts)
    opts["pillar"] = own_pillar
    return salt.loader.minion_mods(opts)


JOBS: dict[str, Callable[[Load], Steps]] = {
    "local": local,
    "reactor": reactor,
    "many": many,
    "ip -batch": ip_batch,
    "one ip each": one_ip_each,
    "idle": idle,
}


if __name__ == "__main__":
    main()
