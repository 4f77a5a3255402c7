"""What ours is measured against: ipvsadm, pyroute2's IPVS, and the floor."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from socket import IPPROTO_TCP
from typing import TYPE_CHECKING, Any

from tests.bench.tables import Size, Table, reweighted

if TYPE_CHECKING:
    from pyroute2 import IPVS, IPVSDest, IPVSService

# Where the suite has put the compiled floor.c; the lab's /run is memory.
FLOOR = Path("/run/bench-floor")
DIRECT = 3  # IP_VS_CONN_F_DROUTE in linux/ip_vs.h


def compile_floor() -> None:
    """Compile the floor, for this machine and this run."""
    source = Path(__file__).with_name("floor.c")
    subprocess.run(["gcc", "-O2", "-Wall", "-Werror", "-o", FLOOR, source], check=True)


def floor(size: Size, *arguments: str) -> str:
    """Make a table in this network with the floor program; returns what it prints."""
    numbers = (str(size.virtual_servers), str(size.real_servers_each))
    command = [str(FLOOR), *numbers, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def floor_steps(size: Size) -> dict[str, float]:
    """The milliseconds of each of the floor's steps."""
    steps: dict[str, float] = json.loads(floor(size))
    return steps


def ipvsadm(option: str, rules: Path | str = os.devnull) -> float:
    """Run ipvsadm with a file to read; returns the milliseconds of the whole process.

    What it prints goes nowhere, which is the fastest place.
    """
    with open(rules) as source:
        started = time.perf_counter()
        subprocess.run(["ipvsadm", option], stdin=source, stdout=subprocess.DEVNULL, check=True)
        return (time.perf_counter() - started) * 1000


class Pyroute2:
    """pyroute2's IPVS as its documentation shows it, with one call for each operation."""

    def __init__(self) -> None:
        # Not where it would cost the other sides' processes memory and time.
        from pyroute2 import IPVS

        self._ipvs: IPVS = IPVS()

    def create(self, table: Table) -> None:
        """Make a table."""
        service: IPVSService | None = None
        before = ""
        for vip, server, weight in table.rows():
            if vip != before:
                service = self._service(vip)
                self._ipvs.service("add", service=service)
                before = vip
            self._ipvs.dest("add", service=service, dest=self._dest(server, weight))

    def set_weights(self, size: Size) -> None:
        """Change the weight of every hundredth real server."""
        for vip, server, weight in reweighted(size):
            dest = self._dest(server, weight)
            self._ipvs.dest("set", service=self._service(vip), dest=dest)

    def read(self) -> int:
        """Read the table, as records; returns how many real servers it has."""
        from pyroute2 import IPVSDest, IPVSService

        count = 0
        for message in self._ipvs.service("dump"):
            service = IPVSService.from_message(message)
            dests = [
                IPVSDest.from_message(each) for each in self._ipvs.dest("dump", service=service)
            ]
            count += len(dests)
        return count

    def _service(self, vip: str) -> IPVSService:
        from pyroute2 import IPVSService

        address, _, port = vip.partition(":")
        return IPVSService(addr=address, port=int(port), protocol=IPPROTO_TCP)

    def _dest(self, server: str, weight: int) -> IPVSDest:
        from pyroute2 import IPVSDest

        address, _, port = server.partition(":")
        values: dict[str, Any] = {"fwd_method": DIRECT, "weight": weight}
        return IPVSDest(addr=address, port=int(port), **values)
