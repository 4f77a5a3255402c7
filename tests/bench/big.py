"""A cluster of two directors in which keepalived keeps many virtual servers, all of them alive on
one host; as a pillar.

A VRRP packet has room for 255 addresses, so each VIP has several ports.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

DIRECTORS = {"lb1": "10.10.10.11", "lb2": "10.10.10.12"}
INSTANCE = "VirtIP_10"
PASSWORD = "MY_PASS"
FIRST_PORT = 80
WEIGHT, OTHER_WEIGHT = 50, 70
# Every hundredth real server is 1 %.
EVERY = 100


@dataclass(frozen=True)
class Kept:
    """How many VIPs a cluster has, how many virtual servers there are on each, and how many real
    servers each of them has.
    """

    worker: ClassVar[str] = "tests.bench.configuring"

    vips: int
    ports: int
    real_servers_each: int

    @property
    def numbers(self) -> tuple[int, int, int]:
        return self.vips, self.ports, self.real_servers_each

    @property
    def virtual_servers(self) -> int:
        return self.vips * self.ports

    @property
    def real_servers(self) -> int:
        return self.virtual_servers * self.real_servers_each

    def __str__(self) -> str:
        return f"{self.virtual_servers:,} virtual servers with {self.real_servers:,} real servers"

    def addresses(self) -> list[str]:
        """The VIPs."""
        return [f"10.10.10.{150 + number}" for number in range(self.vips)]

    def real(self) -> list[str]:
        """The real servers' addresses."""
        return [f"10.10.10.{50 + number}" for number in range(self.real_servers_each)]

    def port_numbers(self) -> list[int]:
        """The ports of each VIP."""
        return [FIRST_PORT + number for number in range(self.ports)]

    def pillar(self, *, reweighted: bool = False) -> dict[str, Any]:
        """The cluster as a pillar; where it is *reweighted*, 1 % of its real servers have another
        weight.
        """
        names = {f"rs{number}": one for number, one in enumerate(self.real(), start=1)}
        places = [(address, port) for address in self.addresses() for port in self.port_numbers()]
        lvs = {
            "name": "prod",
            "directors": {
                name: {"router_id": name, "state": state, "priority": priority}
                for name, state, priority in (("lb1", "MASTER", 150), ("lb2", "BACKUP", 50))
            },
            "real_servers": {
                name: {"address": address, "minion": False} for name, address in names.items()
            },
            "vrrp_instances": {
                INSTANCE: {
                    "interface": "eth0",
                    "virtual_router_id": 10,
                    "advert_int": 1,
                    "virtual_ipaddress": self.addresses(),
                }
            },
            "virtual_servers": {
                f"web-{address}-{port}": _virtual_server(
                    address, port, names, number if reweighted else None
                )
                for number, (address, port) in enumerate(places)
            },
        }
        return {"lvs": lvs, "lvs_secrets": {"vrrp_instances": {INSTANCE: {"auth_pass": PASSWORD}}}}


def _virtual_server(
    address: str, port: int, names: dict[str, str], number: int | None
) -> dict[str, Any]:
    chosen = number is not None and number * len(names) % EVERY == 0
    return {
        "address": address,
        "port": port,
        "managed_by": "keepalived",
        "scheduler": "wlc",
        # So seldom that checking does not keep the lab's one processor busy.
        "check": {"interval": 60},
        "real_servers": {
            name: {"weight": OTHER_WEIGHT if chosen and place == 0 else WEIGHT}
            for place, name in enumerate(names)
        },
    }
