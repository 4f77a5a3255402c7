"""The lab: a set of hosts on one network."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType

from tests.lab import base, host
from tests.lab.errors import LabError
from tests.lab.host import Host

BRIDGE = "lan"
VIP = "10.10.10.10"
# The seed's cluster; the client has more addresses, so that persistence can be seen.
HOSTS: Mapping[str, Sequence[str]] = {
    "master": ["10.10.10.5/24"],
    "lb1": ["10.10.10.11/24"],
    "lb2": ["10.10.10.12/24"],
    "rs1": ["10.10.10.41/24"],
    "rs2": ["10.10.10.42/24"],
    "client": [f"10.10.10.{number}/24" for number in range(100, 117)],
}


class Lab:
    """Hosts on a bridge: ``with Lab() as lab: lab["lb1"].run(["ip", "address"])``.

    ``hosts`` maps names to addresses with their prefix lengths. Start it from the main thread: the
    hosts die with the thread that starts them.
    """

    def __init__(self, hosts: Mapping[str, Sequence[str]] = HOSTS) -> None:
        layers = os.environ.get("SALTEXT_LVS_LAB_LAYERS", "/")
        self.hosts = {name: LabHost(name, places, layers) for name, places in hosts.items()}

    def __getitem__(self, name: str) -> LabHost:
        return self.hosts[name]

    def __iter__(self) -> Iterator[LabHost]:
        return iter(self.hosts.values())

    def __enter__(self) -> Lab:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Make the network and boot all hosts from fresh disks."""
        if os.environ.get("SALTEXT_LVS_IN_LAB") != "1":
            raise LabError("hosts need the lab's kernel: python -m tests.lab run -- COMMAND")
        _ip(f"link add {BRIDGE} type bridge", f"link set {BRIDGE} up")
        host.DISKS.mkdir(parents=True)
        _mount_memory(str(host.DISKS))
        _mount_memory_for_base()
        base.build({one.name: one.address for one in self})
        boot(*self)

    def stop(self) -> None:
        """Switch all hosts off and take the network and the disks away."""
        for one in self:
            one.power_cut()
        _ip(f"link delete {BRIDGE}")
        subprocess.run(["umount", host.DISKS, base.FOLDER], check=True)
        host.DISKS.rmdir()
        base.FOLDER.rmdir()


class LabHost(Host):
    """A host with its card in the lab's network."""

    @property
    def _number(self) -> int:
        """The last part of the host's address: its place in the network."""
        return int(self.address.rpartition(".")[2])

    @property
    def _port(self) -> str:
        """The bridge's end of the cable; 15 letters are too few for some hosts' names."""
        return f"port-{self._number}"

    def boot(self) -> None:
        """Switch the host on: same disk, a new kernel's empty network, services as enabled."""
        boot(self)

    def power_cut(self) -> None:
        """Take the power away: nothing is told to stop; the disk stays."""
        if self.is_on:
            self.switch_off()
            _ip(f"link delete {self._port}", may_fail=True)

    def reboot(self) -> None:
        """Stop the services in order, then switch off and on."""
        for service in reversed(host.SERVICES):
            if self.exists(f"/etc/init.d/{service}"):
                self.run([f"/etc/init.d/{service}", "stop"])
        self.power_cut()
        self.boot()

    def plug_in(self) -> Sequence[str]:
        """The ``ip`` commands that put the card in. Its hardware address is always the same."""
        card = f"address 02:00:0a:0a:0a:{self._number:02x} netns {self.process}"
        return (
            f"link add {self._port} type veth peer name eth0 {card}",
            f"link set {self._port} master {BRIDGE} up",
        )

    def link_down(self) -> None:
        """Pull the cable: the host sees its carrier go."""
        _ip(f"link set {self._port} down")

    def isolate(self, isolated: bool) -> None:
        """Have the switch pass on nothing between this host and others that are isolated, or all
        again: each of them still reaches the rest.
        """
        _ip(f"link set {self._port} type bridge_slave isolated {'on' if isolated else 'off'}")

    def link_up(self) -> None:
        """Put the cable back."""
        _ip(f"link set {self._port} up")


def boot(*hosts: LabHost) -> None:
    """Boot hosts side by side and wait until all are up."""
    for one in hosts:
        one.switch_on()
    _ip(*(command for one in hosts for command in one.plug_in()))
    for one in hosts:
        one.let_boot()
    for one in hosts:
        one.wait_until_up()


def _mount_memory(path: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755,size=80%", "lab", path], check=True)


def _mount_memory_for_base() -> None:
    base.FOLDER.mkdir()
    _mount_memory(str(base.FOLDER))


def _ip(*commands: str, may_fail: bool = False) -> None:
    done = subprocess.run(
        ["ip", "-batch", "-"],
        input="\n".join(commands),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode and not may_fail:
        raise LabError(f"ip: {done.stderr.strip()}")
