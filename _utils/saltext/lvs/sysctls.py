"""The kernel settings that each role needs, and why.

Names and meanings are those of Documentation/networking/ip-sysctl.rst and ipvs-sysctl.rst in the
kernel's sources.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from saltext.lvs.model import Cluster, Hypervisor, Role
from saltext.lvs.reading import IPVS_SYSCTLS, as_ipvs_sysctls


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


# --------------------------------------------------------------------------------------------------
# IPVS's own settings, on directors


@dataclass(frozen=True, slots=True)
class Untouched:
    """A kernel setting that stays as the kernel has it, and when to think of it.

    default
        The kernel's; empty where it goes by the machine.
    """

    name: str
    default: str
    reason: str


IPVS = IPVS_SYSCTLS
IPVS_FOLDER = "/proc/sys/net/ipv4/vs"

# There since Linux 2.6, and right on any director.
DIRECTOR = (
    Sysctl(
        f"{IPVS}expire_nodest_conn",
        1,
        "When a real server is taken out of the table, end its connections with their next packet: "
        "or their clients wait in silence until they give up.",
    ),
    Sysctl(
        f"{IPVS}expire_quiescent_template",
        1,
        "Forget which real server a persistent client had once that one's weight is 0: or the "
        "client's new connections still go to it, drained or dead, for as long as the client "
        "comes back within the persistence time.",
    ),
)

# By what one may want to change together.
DIRECTOR_UNTOUCHED = (
    Untouched(
        f"{IPVS}conn_reuse_mode",
        "1",
        "A client that takes the same port again gets a real server anew once its old connection "
        "is over. 0 sends it to the old one, even if that is drained. Before Linux 5.9 such a "
        "client waited a second where conntrack is 1.",
    ),
    Untouched(
        f"{IPVS}conntrack",
        "0",
        "1 shows IPVS's connections to stateful firewall rules on the director; it costs memory "
        "and time for each, and of direct routing it sees one half only.",
    ),
    Untouched(
        f"{IPVS}sloppy_tcp",
        "0",
        "1 takes on TCP connections from their middle: after a failover without a sync daemon "
        "clients keep them if sh or mh sends them to the real server that they had. Other "
        "schedulers do not, and a flood of single packets can fill the table.",
    ),
    Untouched(f"{IPVS}sloppy_sctp", "0", "The same for SCTP."),
    Untouched(
        f"{IPVS}backup_only",
        "0",
        "1 for directors that are each other's real servers and have a sync daemon: as a backup, "
        "one then keeps what the master sends it, where else it would send it back, round and "
        "round. A director that runs both daemons would direct nothing.",
    ),
    Untouched(
        f"{IPVS}drop_entry",
        "0",
        "1 drops half-open connections when memory runs low, 3 always: against floods of SYNs. "
        "Some clients lose, too. SYN cookies on the real servers are the better remedy.",
    ),
    Untouched(
        f"{IPVS}drop_packet",
        "0",
        "1 drops a part of all packets when memory runs low, 3 always: better let clients see a "
        "slow site.",
    ),
    Untouched(
        f"{IPVS}secure_tcp",
        "0",
        "1 judges the state of TCP connections more strictly when memory runs low, 3 always: "
        "behind masq a half-open one no longer counts as open.",
    ),
    Untouched(
        f"{IPVS}am_droprate", "10", "One of how many packets drop_packet drops where it is 3."
    ),
    Untouched(
        f"{IPVS}amemthresh",
        "1024",
        "Below how many free pages of memory the three defences above begin where they are 1.",
    ),
    Untouched(
        f"{IPVS}run_estimation",
        "1",
        "0 stops the counters of ipvs.stats, not only its rates, and saves next to nothing.",
    ),
    Untouched(f"{IPVS}est_cpulist", "", "Which CPUs gather the counters (Linux 6.2)."),
    Untouched(f"{IPVS}est_nice", "0", "With which priority they do (Linux 6.2)."),
    Untouched(
        f"{IPVS}sync_threshold",
        "3 50",
        "After how many packets a connection is first told to the backups, and again after how "
        "many more. A connection that is shorter, they never know.",
    ),
    Untouched(
        f"{IPVS}sync_refresh_period",
        "0",
        "Seconds in which a busy connection that has not changed is told once: less traffic.",
    ),
    Untouched(
        f"{IPVS}sync_retries", "0", "How often that is told again, against losses; 3 at most."
    ),
    Untouched(
        f"{IPVS}sync_persist_mode",
        "0",
        "1 tells backups of clients and not of connections where there is persistence: less "
        "traffic, but then the backups need sloppy_tcp.",
    ),
    Untouched(
        f"{IPVS}sync_ports",
        "1",
        "Over how many ports and kernel threads the traffic is spread; the same on all directors.",
    ),
    Untouched(f"{IPVS}sync_qlen_max", "", "How many messages may wait to be sent."),
    Untouched(
        f"{IPVS}sync_sock_size", "0", "Bytes of the sockets' buffers; 0 is the system's own."
    ),
    Untouched(f"{IPVS}sync_version", "1", "0 only for a backup that knows no newer one."),
    Untouched(
        f"{IPVS}schedule_icmp",
        "0",
        "1 also sends on ICMP messages that belong to no connection here: for directors that "
        "share a VIP by equal routes.",
    ),
    Untouched(
        f"{IPVS}nat_icmp_send",
        "0",
        "1 tells real servers behind masq that IPVS no longer knows their connection.",
    ),
    Untouched(
        f"{IPVS}snat_reroute",
        "1",
        "0 spares a look into the routes for answers of real servers behind masq; wrong where "
        "there are routing rules.",
    ),
    Untouched(
        f"{IPVS}pmtu_disc",
        "1",
        "0 cuts packets that do not fit into a tunnel, where clients cannot be told to send "
        "smaller ones.",
    ),
    Untouched(
        f"{IPVS}ignore_tunneled",
        "0",
        "1 for a director that unwraps other directors' tunnels as a real server of theirs.",
    ),
    Untouched(f"{IPVS}cache_bypass", "0", "For transparent web caches."),
    Untouched(
        f"{IPVS}lblc_expiration",
        "86400",
        "Seconds after which the scheduler lblc forgets who served a destination; there once "
        "ip_vs_lblc is loaded.",
    ),
    Untouched(f"{IPVS}lblcr_expiration", "86400", "The same for lblcr."),
    Untouched(
        f"{IPVS}conn_max", "", "How many connections there may be (Linux 7.2); a limit of memory."
    ),
    Untouched(
        f"{IPVS}conn_lfactor",
        "",
        "How full the table of connections gets before it grows (Linux 7.1).",
    ),
    Untouched(f"{IPVS}svc_lfactor", "", "The same for virtual servers (Linux 7.1)."),
    Untouched(f"{IPVS}debug_level", "0", "For kernel developers, in kernels built for them."),
)


def of_director(settings: Mapping[str, Any] | None = None) -> dict[str, str]:
    """The settings to keep on a director by name: :data:`DIRECTOR`, and what the operator says.

    settings
        Values by name, with or without ``net.ipv4.vs.``: a whole number, or text of whole numbers
        (``3 50``); None leaves one as it is.

    Raises :class:`~saltext.lvs.errors.InvalidConfig`.
    """
    wanted: dict[str, str | None] = {line.name: str(line.value) for line in DIRECTOR}
    wanted.update(as_ipvs_sysctls(settings, "sysctls"))
    return {name: value for name, value in wanted.items() if value is not None}


def read_ipvs() -> dict[str, str]:
    """IPVS's settings in the calling thread's network namespace; none where it is not loaded."""
    try:
        names = sorted(os.listdir(IPVS_FOLDER))
    except FileNotFoundError:
        return {}
    return {f"{IPVS}{name}": _read(f"{IPVS_FOLDER}/{name}") for name in names}


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return " ".join(file.read().split())


# --------------------------------------------------------------------------------------------------
# By machine


def of_real_server(interfaces: Iterable[str]) -> tuple[Sysctl, ...]:
    """The settings of a real server: for all, and for the interfaces that VIPs are asked for on.

    Of an interface's own value and all's, the kernel takes the larger one, and a larger one is not
    always a stronger one.
    """
    own = (
        Sysctl(f"net.ipv4.conf.{escaped(interface)}.{name}", value, "As for all, and no more.")
        for interface in interfaces
        for name, value in (("arp_ignore", 1), ("arp_announce", 2))
    )
    return *REAL_SERVER, *own


def of_path_checks(interfaces: Iterable[str]) -> tuple[Sysctl, ...]:
    """The settings of a director whose keepalived checks real servers through the VIP.

    interfaces
        Those by which real servers answer.
    """
    return tuple(
        Sysctl(
            f"net.ipv4.conf.{escaped(interface)}.accept_local",
            1,
            "Take a real server's answer to a check through the VIP: it comes from the VIP, which "
            "is an address of the director itself as long as it is master.",
        )
        for interface in interfaces
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


def for_minion(
    cluster: Cluster, minion_id: str, ingress: Iterable[str] = ()
) -> dict[Role, tuple[Sysctl, ...]]:
    """The settings that a minion's roles ask for, by role; a director has IPVS's own besides, see
    :func:`of_director`.

    ingress
        The interfaces on which a real server may be asked for its VIPs, or by which a director
        reaches real servers.
    """
    wanted: dict[Role, tuple[Sysctl, ...]] = {}
    roles = cluster.roles(minion_id)
    if Role.REAL_SERVER in roles and cluster.vips_served_by(minion_id):
        wanted[Role.REAL_SERVER] = of_real_server(ingress)
    if Role.DIRECTOR in roles and cluster.path_addresses(4):
        wanted[Role.DIRECTOR] = of_path_checks(ingress)
    if Role.HYPERVISOR in roles:
        wanted[Role.HYPERVISOR] = of_hypervisor(cluster.hypervisors[minion_id])
    return wanted


def escaped(interface: str) -> str:
    """An interface's name within a sysctl's: there a dot is written as a slash (sysctl(8))."""
    return interface.replace(".", "/")
