"""The kernel settings that each role needs, and why.

Names and meanings are those of Documentation/networking/ip-sysctl.rst in the kernel's sources.
"""

from __future__ import annotations

from dataclasses import dataclass

from saltext.lvs.model import Cluster, Hypervisor, Role


@dataclass(frozen=True, slots=True)
class Sysctl:
    """One kernel setting, and what it is for."""

    name: str
    value: int
    reason: str


# The kernel takes the larger of "all" and the interface's own value, so "all" covers every
# interface, also one that comes later. On the dummy interface alone they do nothing: ARP requests
# arrive on another one.
REAL_SERVER = (
    Sysctl(
        "net.ipv4.conf.all.arp_ignore",
        1,
        "Answer ARP only for addresses of the interface that the request came in on: or the real "
        "servers compete with "
        "the director for the VIP, and one of them gets all clients.",
    ),
    Sysctl(
        "net.ipv4.conf.all.arp_announce",
        2,
        "Never name the VIP as sender in an ARP request of our own: or clients learn this "
        "machine's MAC address for it "
        "from the first answer that it sends them.",
    ),
)

HYPERVISOR = (
    Sysctl("net.ipv4.ip_forward", 1, "Forward packets to and from guests."),
    Sysctl(
        "net.ipv4.conf.all.rp_filter",
        1,
        "Drop packets whose sender could not be reached through the interface they came in on.",
    ),
    Sysctl(
        "net.ipv4.icmp_echo_ignore_broadcasts",
        1,
        "Let nobody list the machines of a network with one ping to its broadcast address.",
    ),
    Sysctl(
        "net.ipv4.conf.default.proxy_arp",
        1,
        "Answer ARP for guests on interfaces that are made from now on, so that routed guests are "
        "found.",
    ),
    Sysctl(
        "net.ipv4.conf.all.promote_secondaries",
        1,
        "Keep an interface's other addresses when its first one is removed.",
    ),
    Sysctl(
        "net.ipv4.conf.all.arp_ignore",
        1,
        "Answer ARP only for addresses of the interface that the request came in on.",
    ),
    Sysctl(
        "net.ipv4.conf.all.arp_announce",
        2,
        "Use the address of the outgoing interface as sender in ARP requests.",
    ),
)


def of_hypervisor(hypervisor: Hypervisor) -> tuple[Sysctl, ...]:
    """The settings of one virtualization host: those above, and those for its bridge and its own
    interface.
    """
    found = list(HYPERVISOR)
    if hypervisor.bridge:
        conf = f"net.ipv4.conf.{escaped(hypervisor.bridge)}"
        found += [
            Sysctl(f"{conf}.arp_ignore", 1, "As for all, on the bridge that guests are on."),
            Sysctl(f"{conf}.arp_announce", 2, "As for all, on the bridge that guests are on."),
        ]
    if hypervisor.interface:
        conf = f"net.ipv4.conf.{escaped(hypervisor.interface)}"
        found.append(
            Sysctl(
                f"{conf}.arp_announce",
                0,
                "The host's own interface has nothing to hide (the kernel still takes the larger "
                "of this and all's).",
            )
        )
    return tuple(found)


def for_minion(cluster: Cluster, minion_id: str) -> dict[Role, tuple[Sysctl, ...]]:
    """The settings that a minion's roles ask for, by role; a director needs none."""
    wanted: dict[Role, tuple[Sysctl, ...]] = {}
    roles = cluster.roles(minion_id)
    if Role.REAL_SERVER in roles and cluster.vips_of(minion_id):
        wanted[Role.REAL_SERVER] = REAL_SERVER
    if Role.HYPERVISOR in roles:
        wanted[Role.HYPERVISOR] = of_hypervisor(cluster.hypervisors[minion_id])
    return wanted


def escaped(interface: str) -> str:
    """An interface's name within a sysctl's: there a dot is written as a slash (sysctl(8))."""
    return interface.replace(".", "/")
