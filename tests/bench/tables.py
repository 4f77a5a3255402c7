"""The tables that are measured, in the forms in which each of us takes them.

``floor.c`` makes the same ones by itself: the addresses, the weights, and which real servers change
are the same there.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

FIRST_VIP = ipaddress.IPv4Address("10.10.0.10")
FIRST_REAL_SERVER = ipaddress.IPv4Address("10.128.0.0")
FIRST_REPLACEMENT = ipaddress.IPv4Address("10.192.0.0")
PORT = 80
# As many different ones as an operator might use; a changed one is none of them.
WEIGHTS = 100
OTHER_WEIGHT = 200
# Every hundredth real server is 1 %, and as many virtual servers are touched as can be.
EVERY = 100

# The kernel's table as (virtual server, real server, weight) of each real server.
Held = list[tuple[str, str, int]]


@dataclass(frozen=True)
class Size:
    """How many virtual servers a table has, and how many real servers each of them has."""

    worker: ClassVar[str] = "tests.bench.worker"

    virtual_servers: int
    real_servers_each: int

    @property
    def numbers(self) -> tuple[int, int]:
        return self.virtual_servers, self.real_servers_each

    @property
    def real_servers(self) -> int:
        return self.virtual_servers * self.real_servers_each

    def __str__(self) -> str:
        return f"{self.virtual_servers:,} x {self.real_servers_each:,}"


@dataclass(frozen=True)
class Table:
    """A table of one size; no two real servers have the same address.

    reweighted
        Whether every hundredth real server has another weight.

    replaced
        Whether every hundredth real server is another machine.
    """

    size: Size
    reweighted: bool = False
    replaced: bool = False

    def rows(self) -> Iterator[tuple[str, str, int]]:
        """The virtual server, the real server and the weight of each real server."""
        for number in range(self.size.real_servers):
            chosen = number % EVERY == 0
            first = FIRST_REPLACEMENT if chosen and self.replaced else FIRST_REAL_SERVER
            vip = FIRST_VIP + number // self.size.real_servers_each
            weight = OTHER_WEIGHT if chosen and self.reweighted else 1 + number % WEIGHTS
            yield f"{vip}:{PORT}", f"{first + number}:{PORT}", weight

    def data(self) -> dict[str, Any]:
        """The table as a pillar would hold it."""
        servers: dict[str, Any] = {}
        for virtual_server, real_server, weight in self.rows():
            server = servers.setdefault(
                f"tcp {virtual_server}", {"scheduler": "wlc", "real_servers": {}}
            )
            # A pillar has come through a serializer: its values are objects of their own.
            forward = b"direct".decode()
            server["real_servers"][real_server] = {"forward": forward, "weight": weight}
        return servers

    def rules(self) -> str:
        """The table as ``ipvsadm -R`` reads it."""
        lines: list[str] = []
        before = ""
        for virtual_server, real_server, weight in self.rows():
            if virtual_server != before:
                lines.append(f"-A -t {virtual_server} -s wlc\n")
                before = virtual_server
            lines.append(f"-a -t {virtual_server} -r {real_server} -g -w {weight}\n")
        return "".join(lines)

    def held(self) -> Held:
        """What the kernel shows when it holds this table."""
        return sorted(self.rows())


def stages(size: Size) -> tuple[Table, Table, Table]:
    """A table as it is made, then with 1 % other weights, then with 1 % other real servers too."""
    return Table(size), Table(size, True), Table(size, True, True)


def weight_rules(size: Size) -> str:
    """The change of weights as ``ipvsadm -R`` reads it."""
    return "".join(
        f"-e -t {vip} -r {server} -g -w {weight}\n" for vip, server, weight in reweighted(size)
    )


def reweighted(size: Size) -> Held:
    """The real servers whose weight is changed, with their new ones."""
    return [row for row in Table(size, reweighted=True).rows() if row[2] == OTHER_WEIGHT]


def replacement_rules(size: Size) -> str:
    """The replacement of real servers, after the change of weights, as ``ipvsadm -R`` reads it."""
    _, before, after = stages(size)
    return "".join(
        f"-a -t {vip} -r {new} -g -w {weight}\n-d -t {vip} -r {old}\n"
        for (vip, old, weight), (_, new, _) in zip(before.rows(), after.rows(), strict=True)
        if new != old
    )


def kernels(proc: Path = Path("/proc/thread-self/net/ip_vs")) -> Held:
    """What the kernel shows of its table, read in another way than any of us reads it."""
    held: Held = []
    virtual_server = ""
    for line in proc.read_text().splitlines()[3:]:
        words = line.split()
        if words[0] == "->":
            held.append((virtual_server, _endpoint(words[1]), int(words[3])))
        else:
            virtual_server = _endpoint(words[1])
    return sorted(held)


def _endpoint(text: str) -> str:
    """``0A0A000A:0050`` as ``10.10.0.10:80``."""
    address, _, port = text.partition(":")
    return f"{ipaddress.IPv4Address(int(address, 16))}:{int(port, 16)}"
