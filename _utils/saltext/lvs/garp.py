"""Tell neighbours which MAC address a VIP has, by gratuitous ARP and neighbour advertisements.

A neighbour that has once heard another machine answer for a VIP keeps that machine's MAC address.
What is sent here makes it take that of the interface that holds the VIP. The frames are our own, on
a packet socket (packet(7)), because nothing in the kernel sends them when they are asked for.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from dataclasses import dataclass

from saltext.lvs import locking, rtnetlink
from saltext.lvs.errors import InvalidConfig, KernelError
from saltext.lvs.frames import (
    ARP,
    ARPHRD_ETHER,
    ARPOP_REPLY,
    ARPOP_REQUEST,
    BROADCAST,
    ETH_P_ARP,
    ETH_P_IP,
    ETH_P_IPV6,
    ETHERNET,
    HOP_LIMIT,
    ICMPV6,
    IPV6,
    NEIGHBOR_ADVERTISEMENT,
    NOBODY,
    PSEUDO,
    TARGET_LINK_LAYER_ADDRESS,
    checksum,
)
from saltext.lvs.model import Address, Cluster
from saltext.lvs.rtnetlink import Link

# RFC 4861 section 4.4, and the checksum's pseudo-header: RFC 8200 section 8.1.
FLAG_ROUTER = 1 << 31
FLAG_OVERRIDE = 1 << 29
ALL_NODES = ipaddress.IPv6Address("ff02::1")
ALL_NODES_MAC = bytes.fromhex("333300000001")  # RFC 2464 section 7

ADVERTISEMENT = struct.Struct("!BBHI16sBB6s")

# MAX_NEIGHBOR_ADVERTISEMENT and RETRANS_TIMER of RFC 4861 section 10: so many, so far apart. Only
# the first one has to arrive, and it is sent at once. But Linux before 4.13 does not let go of what
# it has learnt by ARP less than a second ago (locktime), so a later one must come after that.
ROUNDS = 3
PAUSE_SECONDS = 1.0
NOT_HELD = "no interface of this machine holds it"

TURN = f"{locking.FOLDER}/garp"
ANNOUNCED = f"{locking.FOLDER}/garp-announced"
# An event can be forged, and each may end here: this bounds how often the network hears of it.
SECONDS_BETWEEN = 5.0


@dataclass(frozen=True, slots=True)
class Announced:
    """What neighbours were told, and what not.

    frames
        How many frames were sent, by VIP and interface.

    silent
        Of each VIP of which nothing was sent: why.
    """

    frames: Mapping[Address, Mapping[str, int]]
    silent: Mapping[Address, str]


def vips(cluster: Cluster, address: object = None) -> tuple[Address, ...]:
    """The VIPs of a cluster, or the one of them that is asked for.

    Raises :class:`~saltext.lvs.errors.InvalidConfig` for one that is not among them.
    """
    instances = cluster.vrrp_instances.values()
    found = [vip.ip for instance in instances for vip in instance.vips]
    found += [vip for server in cluster.virtual_servers.values() for vip in server.addresses]
    if address is None:
        return tuple(dict.fromkeys(found))
    for vip in found:
        if _is_written(vip, address):
            return (vip,)
    known = ", ".join(map(str, dict.fromkeys(found))) or "it has none"
    raise InvalidConfig("address", address, f"a VIP of cluster {cluster.name}: {known}")


def _is_written(vip: Address, text: object) -> bool:
    try:
        return isinstance(text, str) and ipaddress.ip_address(text) == vip
    except ValueError:
        return False


def in_turn(vips: Collection[Address], stand_in: bool = True) -> Announced | None:
    """:func:`announce`, once in :data:`SECONDS_BETWEEN` on a machine; who comes sooner waits.

    stand_in
        Whether another caller who is in line already may do it for this one, which is answered
        ``None`` then: that one has announced nothing yet. False where it may be there for other
        VIPs than these.
    """
    with locking.turn(TURN) if stand_in else locking.exclusive(TURN) as ours:
        if not ours:
            return None
        locking.pace(ANNOUNCED, SECONDS_BETWEEN)
        return announce(vips)


def announce(
    vips: Collection[Address],
    rounds: int = ROUNDS,
    pause: float = PAUSE_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> Announced:
    """Announce those of some VIPs that this machine holds, where neighbours can hear it.

    Before each round the kernel is asked again who holds what: a VIP that has moved to another
    machine meanwhile is that one's to announce.

    rounds, pause
        How often, and how many seconds apart; a round in which nothing can be sent is the last.

    Raises :class:`~saltext.lvs.errors.KernelError` without the right to send (CAP_NET_RAW), and
    where the kernel does not tell its interfaces.
    """
    frames: dict[Address, dict[str, int]] = {}
    silent: dict[Address, str] = {}
    for number in range(rounds):
        if number:
            sleep(pause)
        sent, silent = _round(vips)
        for (vip, interface), count in sent.items():
            by_interface = frames.setdefault(vip, {})
            by_interface[interface] = by_interface.get(interface, 0) + count
        if not sent:
            break  # a backup has nothing to repeat
    return Announced(
        {vip: frames[vip] for vip in vips if vip in frames},
        {vip: silent[vip] for vip in vips if vip not in frames},
    )


def _round(vips: Collection[Address]) -> tuple[dict[tuple[Address, str], int], dict[Address, str]]:
    """Announce once; how many frames went out, by VIP and interface, and why none did."""
    sent: dict[tuple[Address, str], int] = {}
    silent = dict.fromkeys(vips, NOT_HELD)
    for link in rtnetlink.read_all():
        here = {held.address.ip for held in link.addresses}
        held = [vip for vip in vips if vip in here]
        why = inaudible(link)
        if held and not why:
            counts, why = _tell(held, link.name)
            sent.update({(vip, link.name): count for vip, count in counts.items()})
        if why:
            silent.update(dict.fromkeys(held, why))
    return sent, silent


def inaudible(link: Link) -> str:
    """Why nobody could hear of an address on an interface; empty where somebody can."""
    if link.loopback:
        return f"{link.name} holds it, which is a loopback interface: nobody is there to hear"
    if link.kind == "dummy":
        return f"{link.name} holds it, which is a dummy interface: nobody is there to hear"
    if not link.arp:
        return f"{link.name} holds it, which has ARP off (NOARP)"
    if not link.up:
        return f"{link.name} holds it, which is down"
    return ""


def _tell(vips: Collection[Address], interface: str) -> tuple[dict[Address, int], str]:
    """Announce VIPs on an interface that holds them; how many frames went out, and what stopped
    them.
    """
    counts: dict[Address, int] = {}
    try:
        # One socket for all, because the kernel takes its time (an RCU grace period) to close one.
        # Protocol 0 receives nothing.
        with closing(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)) as wire:
            wire.bind((interface, 0))
            # From the socket that sends: the interface may have got another MAC a moment ago.
            _, _, _, kind, mac = wire.getsockname()
            if kind != ARPHRD_ETHER:
                return {}, f"{interface} holds it, which is no Ethernet"
            router = _forwards(interface)
            for vip in vips:
                frames = frames_for(vip, mac, router)
                counts[vip] = sum(wire.send(frame) > 0 for frame in frames)
    except OSError as error:
        number = error.errno or errno.EIO
        if number in (errno.EPERM, errno.EACCES):
            hint = "this needs root (CAP_NET_RAW)"
            raise KernelError(f"announce VIPs on {interface}", number, hint) from error
        # The interface has just gone, or down: of no concern to VIPs on others.
        return counts, str(KernelError(f"announce it on {interface}", number))
    return counts, ""


def _forwards(interface: str) -> bool:
    """Whether the kernel itself would call this machine a router there (net/ipv6/ndisc.c).

    To say no where it says yes would make neighbours drop it from their routers.
    """
    try:
        with open(f"/proc/sys/net/ipv6/conf/{interface}/forwarding", encoding="ascii") as file:
            return file.read().strip() != "0"
    except FileNotFoundError:
        return False


# --------------------------------------------------------------------------------------------------
# Frames


def frames_for(vip: Address, mac: bytes, router: bool = False) -> tuple[bytes, ...]:
    """The frames of one round, from the Ethernet header on.

    mac
        The hardware address that neighbours shall send to.

    router
        Whether the sender forwards packets of IPv6.
    """
    if isinstance(vip, ipaddress.IPv6Address):
        return (neighbor_advertisement(vip, mac, router),)
    return gratuitous_request(vip, mac), gratuitous_reply(vip, mac)


def gratuitous_request(vip: ipaddress.IPv4Address, mac: bytes) -> bytes:
    """An ARP announcement (RFC 5227 section 3): a request in which the sender asks for itself."""
    return _arp(ARPOP_REQUEST, vip, mac, NOBODY)


def gratuitous_reply(vip: ipaddress.IPv4Address, mac: bytes) -> bytes:
    """The same as a reply, for neighbours that heed only those.

    Its target is the sender too, hardware address and all (RFC 5944 section 4.6): Linux does not
    take it for gratuitous otherwise.
    """
    return _arp(ARPOP_REPLY, vip, mac, mac)


def _arp(operation: int, vip: ipaddress.IPv4Address, mac: bytes, target: bytes) -> bytes:
    body = ARP.pack(ARPHRD_ETHER, ETH_P_IP, 6, 4, operation, mac, vip.packed, target, vip.packed)
    return ETHERNET.pack(BROADCAST, mac, ETH_P_ARP) + body


def neighbor_advertisement(vip: ipaddress.IPv6Address, mac: bytes, router: bool = False) -> bytes:
    """An unsolicited neighbour advertisement to all nodes (RFC 4861 section 7.2.6).

    It comes from the VIP itself, as the kernel's own do, and overrides what is in caches.
    """
    flags = FLAG_OVERRIDE | (FLAG_ROUTER if router else 0)
    message = _advertisement(0, flags, vip, mac)
    pseudo = PSEUDO.pack(vip.packed, ALL_NODES.packed, len(message), ICMPV6)
    message = _advertisement(checksum(pseudo + message), flags, vip, mac)
    header = IPV6.pack(6 << 28, len(message), ICMPV6, HOP_LIMIT, vip.packed, ALL_NODES.packed)
    return ETHERNET.pack(ALL_NODES_MAC, mac, ETH_P_IPV6) + header + message


def _advertisement(check: int, flags: int, vip: ipaddress.IPv6Address, mac: bytes) -> bytes:
    # The option's length is in units of eight bytes.
    option = (TARGET_LINK_LAYER_ADDRESS, 1, mac)
    return ADVERTISEMENT.pack(NEIGHBOR_ADVERTISEMENT, 0, check, flags, vip.packed, *option)
