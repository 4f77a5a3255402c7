"""Would this machine answer ARP for its VIPs? The settings that decide it: read, judged, set.

A real server shares its VIP with the director, so it must neither answer for it (arp_ignore) nor
name it as sender (arp_announce). IPv6 needs no such setting: there an address is announced only on
the interface that has it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from saltext.lvs import sysctls
from saltext.lvs.errors import KernelError, LvsError
from saltext.lvs.reading import Address
from saltext.lvs.rtnetlink import Link


class Noisy(LvsError):
    """A VIP would be heard where only the director may be."""


ALL = "all"
CONF = "/proc/sys/net/ipv4/conf"

# Which values keep a VIP quiet: arp_ignore() and arp_solicit() in the kernel's net/ipv4/arp.c. A
# greater number is not a stronger one: 3 answers for every address that is not of scope host, 4 to
# 7 and any announcement above 2 mean 0.
QUIET = {"arp_ignore": (1, 2, 8), "arp_announce": (2,)}
HARM = {
    "arp_ignore": "this machine answers ARP requests for its VIPs",
    "arp_announce": "this machine names a VIP as sender in its own ARP requests",
}


@dataclass(frozen=True, slots=True, order=True)
class Setting:
    """One ARP setting: of an interface, or of ``all``."""

    interface: str
    name: str

    def __str__(self) -> str:
        return f"net.ipv4.conf.{sysctls.escaped(self.interface)}.{self.name}"

    @property
    def path(self) -> str:
        """The file that holds it."""
        return f"{CONF}/{self.interface}/{self.name}"


Values = Mapping[Setting, int]


@dataclass(frozen=True, slots=True)
class Fault:
    """A setting that lets a VIP be heard on one interface.

    effective
        The value that the kernel goes by: the larger of the interface's own and all's.

    blamed
        The settings that have it.
    """

    interface: str
    name: str
    effective: int
    blamed: tuple[Setting, ...]

    def __str__(self) -> str:
        blamed = " and ".join(map(str, self.blamed))
        return (
            f"{HARM[self.name]} on {self.interface}: {blamed} is {self.effective}, "
            f"it should be {QUIET[self.name][0]}"
        )


def ingress(links: Iterable[Link], address: Address | None) -> tuple[str, ...]:
    """The interfaces on which somebody may ask for a VIP.

    links
        All interfaces of the machine.

    address
        The real server's own address: directors and clients are where that is. Without it, or where
        no interface holds it, every interface to the outside counts.
    """
    outside = [link for link in links if not link.loopback and link.kind != "dummy"]
    holders = [
        link.name for link in outside if any(held.address.ip == address for held in link.addresses)
    ]
    return tuple(holders or (link.name for link in outside))


def read(interfaces: Sequence[str]) -> dict[Setting, int]:
    """The settings of ``all`` and of these interfaces; one that has just gone is left out."""
    found: dict[Setting, int] = {}
    for interface in (ALL, *interfaces):
        for name in QUIET:
            setting = Setting(interface, name)
            value = _number(setting.path)
            if value is not None:
                found[setting] = value
    return found


def _number(path: str) -> int | None:
    """The number in a file of the kernel's; open() would ask the kernel three times as much."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return int(os.read(descriptor, 32))
    finally:
        os.close(descriptor)


def faults(values: Values) -> tuple[Fault, ...]:
    """What is wrong with settings as of :func:`read`; nothing if every interface is quiet."""
    interfaces = sorted({setting.interface for setting in values} - {ALL})
    found = (_fault(values, interface, name) for interface in interfaces for name in QUIET)
    return tuple(fault for fault in found if fault is not None)


def _fault(values: Values, interface: str, name: str) -> Fault | None:
    settings = [Setting(ALL, name), Setting(interface, name)]
    effective = max(values.get(setting, 0) for setting in settings)
    if effective in QUIET[name]:
        return None
    blamed = tuple(setting for setting in settings if values.get(setting, 0) == effective)
    return Fault(interface, name, effective, blamed)


def silence(interfaces: Iterable[str] = ()) -> None:
    """Set what a real server needs, now and until the next boot: for all, and for those of these
    interfaces whose own value is larger, and counts.

    Raises :class:`~saltext.lvs.errors.KernelError` if the kernel refuses.
    """
    for name, quiet in QUIET.items():
        if _number(Setting(ALL, name).path) not in quiet:
            _set(Setting(ALL, name), quiet[0])
        for interface in interfaces:
            own = _number(Setting(interface, name).path) or 0
            if own > quiet[0] and own not in quiet:
                _set(Setting(interface, name), quiet[0])


def _set(setting: Setting, value: int) -> None:
    try:
        with open(setting.path, "w", encoding="ascii") as file:
            file.write(f"{value}\n")
    except FileNotFoundError:
        return  # the interface has just gone
    except OSError as error:
        raise KernelError(f"set {setting} = {value}", error.errno or 0) from error
