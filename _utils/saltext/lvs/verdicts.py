"""Is this real server right? What would become of a client's packet here, in an operator's words.

Four questions for each virtual server that the machine serves: would it answer ARP for the VIP,
would the kernel take packets for it, does the service listen there, and would the answer leave with
the VIP as its source. What the kernel can be asked, it is asked (:mod:`~saltext.lvs.routes`,
:mod:`~saltext.lvs.sockets`); what nobody here can know is said to be so.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from saltext.lvs import arp, rtnetlink, sockets, sysctls
from saltext.lvs import routes as routing
from saltext.lvs.model import (
    Address,
    Cluster,
    Forward,
    Interface,
    Protocol,
    Tunnel,
    TunnelType,
    VirtualServerConfig,
    endpoint,
)
from saltext.lvs.reading import as_address
from saltext.lvs.routes import LOCAL, Refusal, Route
from saltext.lvs.rtnetlink import Link
from saltext.lvs.sockets import Listening

ARP, ACCEPTED, LISTENING, SOURCE = "arp", "accepted", "listening", "source"

DUMMY = "dummy"
IPV4 = "/proc/sys/net/ipv4/conf"
IPV6 = "/proc/sys/net/ipv6/conf"
# Documentation/networking/ip-sysctl.rst
STRICT, LOOSE = 1, 2

# How many addresses of a network are tried for one that is not the machine's own.
TRIED = 4096

# Clients that are in nobody's network (RFC 5737, RFC 3849), for asking about those far away.
FAR_AWAY = {
    4: ("192.0.2.1", "198.51.100.1", "203.0.113.1"),
    6: ("2001:db8::1", "3fff::1"),
}


@dataclass(frozen=True, slots=True)
class End:
    """Where packets of a tunnel come out: an interface's kind, the one of that kind that the kernel
    module makes by itself and that takes what no other takes, and that module.
    """

    kind: str
    interface: str
    module: str


IPIP = End("ipip", "tunl0", "ipip")
SIT = End("sit", "sit0", "sit")
IP6TNL = End("ip6tnl", "ip6tnl0", "ip6_tunnel")
GRE = End("gre", "gre0", "ip_gre")
IP6GRE = End("ip6gre", "ip6gre0", "ip6_gre")


# --------------------------------------------------------------------------------------------------
# Values


@dataclass(frozen=True, slots=True)
class Verdict:
    """One thing that is right, or wrong, or that cannot be known from here (None).

    advice
        What to do about it.
    """

    ok: bool | None
    reason: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.reason}: {self.advice}" if self.advice else self.reason

    def as_data(self) -> dict[str, Any]:
        """For an execution module's answer."""
        return {"ok": self.ok, "reason": str(self)}


Verdicts = tuple[Verdict, ...]


@dataclass(frozen=True, slots=True)
class Client:
    """Somebody who asks.

    far
        Whether it stands for any client beyond the machine's own networks; there may be none.
    """

    address: Address
    far: bool = False

    def __str__(self) -> str:
        return str(self.address)


@dataclass(frozen=True, slots=True)
class Service:
    """What a virtual server expects of one real server.

    address, port
        What its packets are sent to when they arrive here: VIP and port, or with masquerading the
        machine's own.

    protocol
        ``None`` for a firewall mark: which packets get one, the pillar does not say.

    own
        The machine's own address: an end of the tunnel.
    """

    name: str
    address: Address
    port: int
    protocol: Protocol | None
    forward: Forward
    tunnel: Tunnel
    own: Address

    @property
    def at(self) -> str:
        """The address and the port."""
        return endpoint(self.address, self.port)


@dataclass(frozen=True)
class Machine:
    """What the verdicts go by.

    interface
        Where the VIPs should be.

    ingress
        The interfaces by which packets from directors come in, be they up or down.

    settings
        Numbers in /proc/sys, by path: the ARP settings, rp_filter, proxy_ndp, forwarding.

    proxied
        What it answers neighbour solicitations for in the place of others, by interface.

    routers
        Addresses of directors, the VIPs that move between them included.

    lookup
        How to ask the kernel for a route: destination, source, interface that it comes in by.
    """

    interface: str
    ingress: tuple[str, ...]
    links: tuple[Link, ...]
    listeners: tuple[Listening, ...]
    settings: Mapping[str, int]
    proxied: frozenset[tuple[str, Address]] = frozenset()
    routers: frozenset[Address] = frozenset()
    lookup: Callable[[Address, Address | None, str | None], Route | Refusal] = field(
        default=routing.lookup
    )

    @cached_property
    def holders(self) -> Mapping[Address, list[Link]]:
        """The interfaces that have an address."""
        found: dict[Address, list[Link]] = {}
        for link in self.links:
            for held in link.addresses:
                found.setdefault(held.address.ip, []).append(link)
        return found

    @cached_property
    def listening(self) -> Mapping[tuple[Protocol, int], list[Listening]]:
        """Who listens, by protocol and port."""
        found: dict[tuple[Protocol, int], list[Listening]] = {}
        for entry in self.listeners:
            found.setdefault((entry.protocol, entry.port), []).append(entry)
        return found

    @cached_property
    def arp_faults(self) -> Verdicts:
        """The ARP settings that would let an IPv4 VIP be heard."""
        values = {
            setting: self.settings[setting.path]
            for interface in (arp.ALL, *self.ingress)
            for setting in (arp.Setting(interface, name) for name in arp.QUIET)
            if setting.path in self.settings
        }
        return tuple(Verdict(False, str(fault)) for fault in arp.faults(values))

    @property
    def open_ingress(self) -> tuple[str, ...]:
        """Those by which packets come in now."""
        up = {link.name for link in self.links if link.up}
        return tuple(name for name in self.ingress if name in up)

    def link(self, name: str) -> Link | None:
        """An interface by its name."""
        return next((link for link in self.links if link.name == name), None)

    def setting(self, path: str) -> int:
        """A number in /proc/sys; 0 where the kernel has no such setting."""
        return self.settings.get(path, 0)


def services(cluster: Cluster, real_server: str) -> tuple[Service, ...]:
    """The virtual servers that a machine serves, in the pillar's order."""
    known = cluster.real_servers.get(real_server)
    if known is None:
        return ()
    return tuple(
        service
        for config in cluster.virtual_servers.values()
        for share in config.real_servers
        if share.name == real_server
        for service in _services(config, share.port, known.address)
    )


def _services(config: VirtualServerConfig, port: int, own: Address) -> Iterator[Service]:
    if config.forward is Forward.MASQ:
        yield _service(config, own, port, own)
        return
    for key in config.keys:
        address = key.address or config.address
        # Of a mark, the pillar need not know what its packets are sent to.
        if address is not None:
            yield _service(config, address, key.port, own)


def _service(config: VirtualServerConfig, address: Address, port: int, own: Address) -> Service:
    return Service(
        name=config.name,
        address=address,
        port=port,
        protocol=config.key.protocol,
        forward=config.forward,
        tunnel=config.tunnel,
        own=own,
    )


def routers(cluster: Cluster) -> frozenset[Address]:
    """The addresses by which a director is reached: its own, and the VIPs that move."""
    own = (director.address for director in cluster.directors.values())
    moving = (vip.ip for instance in cluster.vrrp_instances.values() for vip in instance.vips)
    return frozenset(address for address in (*own, *moving) if address is not None)


# --------------------------------------------------------------------------------------------------
# Read


def read_machine(
    interface: str, ingress: Sequence[str], known_routers: frozenset[Address] = frozenset()
) -> Machine:
    """Read what verdicts go by, but for the routes, which are asked for one by one.

    Raises :class:`~saltext.lvs.errors.KernelError` if the kernel does not answer.
    """
    links = rtnetlink.read_all()
    names = ("all", *(link.name for link in links))
    return Machine(
        interface=interface,
        ingress=tuple(ingress),
        links=links,
        listeners=sockets.listeners(),
        settings=dict(_read_settings(names)),
        proxied=routing.proxied(),
        routers=known_routers,
    )


def _read_settings(interfaces: Iterable[str]) -> Iterator[tuple[str, int]]:
    for interface in interfaces:
        names = [f"{IPV4}/{interface}/{name}" for name in (*arp.QUIET, "rp_filter", "forwarding")]
        names += [f"{IPV6}/{interface}/{name}" for name in ("proxy_ndp", "forwarding")]
        for path in names:
            # Without IPv6, and for an interface that has just gone, there is nothing to read.
            with contextlib.suppress(FileNotFoundError), open(path, encoding="ascii") as file:
                yield path, int(file.read())


def clients(machine: Machine, family: int, asked: Iterable[Address] = ()) -> tuple[Client, ...]:
    """Whom to ask about: those who are named, or one in each network that packets come in from, and
    one that is in none of them.
    """
    named = tuple(Client(address) for address in asked if address.version == family)
    if named:
        return named
    networks = [
        held.address.network
        for link in machine.links
        if link.name in machine.ingress
        for held in link.addresses
        if held.address.version == family and not held.address.is_link_local
    ]
    near = (_neighbour(network, machine.holders) for network in networks)
    far = (ipaddress.ip_address(text) for text in FAR_AWAY[family])
    beyond = (address for address in far if not any(address in network for network in networks))
    found = [Client(address) for address in near if address is not None]
    found += [Client(address, far=True) for address in itertools.islice(beyond, 1)]
    return tuple(dict.fromkeys(found))


def _neighbour(
    network: ipaddress.IPv4Network | ipaddress.IPv6Network, own: Collection[Address]
) -> Address | None:
    """An address in a network that may be somebody else's; none in one that has no room."""
    for number in range(1, min(network.num_addresses - 1, TRIED)):
        host = network[number]
        if host not in own:
            return host
    return None


# --------------------------------------------------------------------------------------------------
# Judge


def judge(
    of: Iterable[Service], machine: Machine, asked: Collection[Address] = ()
) -> dict[str, dict[str, Verdicts]]:
    """Answer the four questions for each virtual server, by its name.

    asked
        Clients' addresses to ask about in the place of made-up ones.
    """
    by_family = {family: clients(machine, family, asked) for family in (4, 6)}
    return {
        service.name: {
            ARP: tuple(_arp(service, machine)),
            ACCEPTED: tuple(_accepted(service, machine, by_family[service.address.version])),
            LISTENING: (_listening(service, machine),),
            SOURCE: tuple(_source(service, machine, by_family[service.address.version])),
        }
        for service in of
    }


def summary(verdicts: Verdicts) -> Verdict:
    """Several verdicts as one: what is wrong counts before what is unknown."""
    ok = min((verdict.ok for verdict in verdicts), key=(False, None, True).index, default=True)
    return Verdict(ok, "; ".join(sentences(verdicts, ok)))


def sentences(verdicts: Iterable[Verdict], ok: bool | None) -> list[str]:
    """What is to be said of those that are right, wrong (False) or unknown (None), each once."""
    return list(dict.fromkeys(str(verdict) for verdict in verdicts if verdict.ok is ok))


def warnings(verdicts: Iterable[Verdict], enabled: bool) -> list[str]:
    """What an operator may look into: doubts about which something can be done, and whether the
    machine serves nobody because the pillar says so.
    """
    doubts = sentences((verdict for verdict in verdicts if verdict.advice), None)
    disabled = (
        "the pillar has this real server disabled: it gives up its VIPs on purpose, and nothing is "
        "asked about them"
    )
    return doubts if enabled else [disabled, *doubts]


def elsewhere(lacking: Iterable[Interface], machine: Machine) -> list[str]:
    """VIPs that are here, but not on the interface that is looked after."""
    return [
        f"{machine.interface} does not hold {vip}; {_listed(holders)} does, which nobody keeps so: "
        "run state.apply, or dummy.present"
        for vip in lacking
        if (holders := [link.name for link in machine.holders.get(vip.ip, ())])
    ]


def as_addresses(value: Any, path: str = "clients") -> tuple[Address, ...]:
    """Addresses from their texts; one text counts as a list of one.

    Raises :class:`~saltext.lvs.errors.InvalidConfig` for what is no address.
    """
    values = value if isinstance(value, (list, tuple)) else [value]
    return tuple(as_address(text, f"{path}:{index}") for index, text in enumerate(values))


def _not_held(service: Service, machine: Machine) -> Verdict | None:
    """Nothing is right without the address; None if it is here."""
    if service.address in machine.holders:
        return None
    if service.forward is Forward.MASQ:
        return Verdict(
            False,
            f"no interface holds {service.address}, which the pillar gives as this machine's own",
            "set it right in the pillar, or on the machine",
        )
    harm = "the kernel drops what clients send to it"
    if machine.setting(f"{_conf(service.address)}/all/forwarding"):
        harm = "this machine forwards, and sends what is meant for it back to the director"
    return Verdict(
        False,
        f"{machine.interface} does not hold {ipaddress.ip_interface(service.address)}, so {harm}",
        "run state.apply, or dummy.present",
    )


def _conf(address: Address) -> str:
    return IPV4 if address.version == 4 else IPV6


# --------------------------------------------------------------------------------------------------
# Would it answer ARP, or a neighbour solicitation?


def _arp(service: Service, machine: Machine) -> Iterator[Verdict]:
    if service.forward is Forward.MASQ:
        yield Verdict(True, "masquerading needs no VIP here")
        return
    wrong = [*_heard(service.address, machine)]
    wrong += machine.arp_faults if service.address.version == 4 else ()
    wrong += _solicited(service.address, machine) if service.address.version == 6 else ()
    yield from wrong
    if not wrong:
        yield Verdict(True, f"nobody hears of {service.address} on {_listed(machine.ingress)}")


def _heard(vip: Address, machine: Machine) -> Iterator[Verdict]:
    """A VIP on an interface to the outside is answered for, whatever the settings are."""
    for link in machine.holders.get(vip, ()):
        if link.arp and not link.loopback and link.kind != DUMMY:
            what = "ARP requests" if vip.version == 4 else "neighbour solicitations"
            yield Verdict(
                False,
                f"{link.name} holds {vip} itself, so this machine answers {what} for it",
                f"take it away there (ip address del {ipaddress.ip_interface(vip)} dev {link.name})"
                f" and leave it to {machine.interface}",
            )


def _solicited(vip: Address, machine: Machine) -> Iterator[Verdict]:
    """A proxy for neighbours answers for what is named to it, where it also forwards."""
    for interface in machine.ingress:
        proxy, forwards = (
            any(machine.setting(f"{IPV6}/{of}/{name}") for of in ("all", interface))
            for name in ("proxy_ndp", "forwarding")
        )
        if proxy and forwards and (interface, vip) in machine.proxied:
            yield Verdict(
                False,
                f"this machine answers neighbour solicitations for {vip} on {interface} as a proxy",
                f"end that: ip -6 neighbour del proxy {vip} dev {interface}",
            )


# --------------------------------------------------------------------------------------------------
# Would the kernel take a packet?


def _accepted(service: Service, machine: Machine, of: Sequence[Client]) -> Iterator[Verdict]:
    missing = _not_held(service, machine)
    if missing is not None:
        yield missing
        return
    if not machine.open_ingress:
        yield Verdict(
            False,
            f"no packet for {service.address} comes in by {_listed(machine.ingress)}, which is "
            "down",
            f"ip link set {' '.join(machine.ingress[:1])} up",
        )
    if service.forward is Forward.TUNNEL:
        yield from _unwrapped(service, machine)
    for interface in _entrances(service, machine):
        for client in of:
            yield from _taken(service, machine, client, interface)


def _entrances(service: Service, machine: Machine) -> tuple[str, ...]:
    """By which interfaces packets with the VIP come in: with a tunnel, where they are unwrapped."""
    if service.forward is Forward.TUNNEL:
        return _ends(service, machine)
    return machine.open_ingress


def _taken(service: Service, machine: Machine, client: Client, interface: str) -> Iterator[Verdict]:
    answer = machine.lookup(service.address, client.address, interface)
    if isinstance(answer, Route) and answer.kind == LOCAL:
        yield Verdict(True, f"the kernel takes packets for {service.address} from {interface}")
    elif isinstance(answer, Route):
        yield Verdict(
            False,
            f"the kernel sends packets for {service.address} that come in by {interface} on by "
            f"{answer.interface}, although this machine holds it",
            "look for a rule or a route of yours that does so: ip rule; ip route show table all",
        )
    else:
        back = machine.lookup(client.address, service.address, None)
        # Whether there are clients that far away is for the last question.
        if not _nowhere(client, back):
            yield _dropped(service, machine, client, interface, answer, back)


def _nowhere(client: Client, back: Route | Refusal) -> bool:
    """Whether a made-up client is out of reach because nobody beyond its networks is in reach."""
    return client.far and isinstance(back, Refusal) and back.number == errno.ENETUNREACH


def _dropped(
    service: Service,
    machine: Machine,
    client: Client,
    interface: str,
    refusal: Refusal,
    back: Route | Refusal,
) -> Verdict:
    """Why the kernel drops a packet: before Linux 6.13 it names the reverse-path filter itself, and
    later it has one number for nearly everything, so the settings and the way back tell.
    """
    lost = f"packets from {client} for {service.address} that come in by {interface} are dropped"
    filtering, blamed = _filter(machine, interface)
    if service.address.version == 4 and filtering in (STRICT, LOOSE):
        setting = f"{blamed} is {filtering}"
        if isinstance(back, Refusal):
            return Verdict(
                False,
                f"{lost}: {setting}, and no way leads back to it, because {back}",
                "give this machine a route to its clients",
            )
        if back.interface != interface:
            return Verdict(
                False,
                f"{lost}: {setting}, and what answers them leaves by {back.interface}",
                _unfilter(machine, interface),
            )
    return Verdict(False, f"{lost}: {refusal}", "look at ip rule and ip route show table all")


def _filter(machine: Machine, interface: str) -> tuple[int, str]:
    """The reverse-path filter of an interface, and the settings that have that value: the kernel
    takes the larger of its own and that of ``all``.
    """
    values = {name: machine.setting(f"{IPV4}/{name}/rp_filter") for name in ("all", interface)}
    effective = max(values.values())
    return effective, " and ".join(
        _filter_name(name) for name, value in values.items() if value == effective
    )


def _filter_name(interface: str) -> str:
    return f"net.ipv4.conf.{sysctls.escaped(interface)}.rp_filter"


def _unfilter(machine: Machine, interface: str) -> str:
    """How to let in what another interface answers. A loose filter still drops everything that
    comes in by an interface without an IPv4 address (fib_validate_source in
    net/ipv4/fib_frontend.c).
    """
    own, link = _filter_name(interface), machine.link(interface)
    if link is not None and any(held.address.version == 4 for held in link.addresses):
        return f"set {own} = {LOOSE} (the kernel takes the larger of it and all's)"
    return (
        f"set both {own} and {_filter_name('all')} = 0 (the kernel takes the larger of the two, "
        f"and {LOOSE} lets nothing in by an interface without an IPv4 address)"
    )


def _end(service: Service) -> End:
    """What unwraps a tunnel's packets; a UDP header (GUE) is taken off before."""
    outer, inner = service.own.version, service.address.version
    if service.tunnel.type is TunnelType.GRE:
        return GRE if outer == 4 else IP6GRE
    if outer == 6:
        return IP6TNL
    return IPIP if inner == 4 else SIT


def _ends(service: Service, machine: Machine) -> tuple[str, ...]:
    """By which interfaces a tunnel's packets come out: the kernel's own one takes them from
    whatever director, others from the director that they name.
    """
    end = _end(service)
    up = [link.name for link in machine.links if link.kind == end.kind and link.up]
    return (end.interface,) if end.interface in up else tuple(up)


def _unwrapped(service: Service, machine: Machine) -> Iterator[Verdict]:
    end = _end(service)
    if not _ends(service, machine):
        there = any(link.kind == end.kind for link in machine.links)
        raising = f"ip link set {end.interface} up"
        yield Verdict(
            False,
            f"no interface that ends a tunnel of kind {end.kind} is "
            + ("up" if there else "here")
            + f", so packets for {service.address} are never unwrapped",
            raising if there else f"modprobe {end.module} && {raising}",
        )
    port = service.tunnel.port
    if service.tunnel.type is TunnelType.GUE and not _hearing(
        machine.listening.get((Protocol.UDP, port), ()), service.own
    ):
        yield Verdict(
            False,
            f"nothing takes packets off UDP port {port}, to which directors send them",
            f"modprobe fou && ip fou add port {port} gue" + " -6" * (service.own.version == 6),
        )


# --------------------------------------------------------------------------------------------------
# Does the service listen?


def _listening(service: Service, machine: Machine) -> Verdict:
    if service.protocol is None:
        return Verdict(None, "a firewall mark says nothing of ports, so none can be looked for")
    if service.protocol is Protocol.SCTP:
        return Verdict(None, f"who listens on SCTP {service.at} is not looked at")
    if not service.port:
        return Verdict(None, "it serves every port, so none can be looked for")
    protocol = service.protocol.value.upper()
    found = machine.listening.get((service.protocol, service.port), ())
    within = ("", *_entrances(service, machine))
    hearing = [entry for entry in _hearing(found, service.address) if entry.device in within]
    if any(_surely(entry, service.address) for entry in hearing):
        return Verdict(True, f"the service listens on {protocol} {service.at}")
    if hearing:
        return Verdict(
            None,
            f"the service listens on {protocol} [::]:{service.port}, and this kernel does not tell "
            "whether that takes IPv4 too",
            f"ask it: a request to {service.at} from this machine itself",
        )
    if not found:
        return Verdict(
            False, f"nothing listens on {protocol} {service.at}", "start the service on it"
        )
    where = _listed(dict.fromkeys(_place(entry) for entry in found))
    return Verdict(
        False,
        f"nothing listens on {protocol} {service.at}, only on {where}",
        f"have the service listen on {service.address}, or on every address",
    )


def _hearing(found: Iterable[Listening], address: Address) -> list[Listening]:
    """Those that hear what is sent to an address, or may."""
    return [
        entry
        for entry in found
        if entry.address == address
        or (entry.address.is_unspecified and entry.address.version == address.version)
        or (entry.address == ipaddress.IPv6Address("::") and not entry.v6only)
    ]


def _surely(entry: Listening, address: Address) -> bool:
    return entry.address.version == address.version or entry.v6only is False


def _place(entry: Listening) -> str:
    place = endpoint(entry.address, entry.port)
    if entry.v6only and entry.address.is_unspecified:
        place += " for IPv6 alone"
    return f"{place} on {entry.device}" if entry.device else place


# --------------------------------------------------------------------------------------------------
# Would the answer leave as it should?


def _source(service: Service, machine: Machine, of: Sequence[Client]) -> Iterator[Verdict]:
    missing = _not_held(service, machine)
    if missing is not None:
        yield missing
        return
    if service.protocol is Protocol.UDP:
        yield from _datagrams(service, machine, of)
    for client in of:
        answer = machine.lookup(client.address, service.address, None)
        if _nowhere(client, answer):
            yield Verdict(
                None,
                "this machine has no route beyond its own networks, so no client there gets an "
                "answer",
                "add a default route if there are such clients",
            )
        elif isinstance(answer, Refusal):
            yield Verdict(
                False,
                f"no answer from {service.address} to {client} can leave, because {answer}",
                "give this machine a route to its clients",
            )
        else:
            yield _leaving(service, machine, client, answer)


def _leaving(service: Service, machine: Machine, client: Client, route: Route) -> Verdict:
    bits = service.address.max_prefixlen
    if route.kind == LOCAL:
        if client.address in machine.holders:
            return Verdict(None, f"{client} is an address of this machine itself")
        return Verdict(
            False,
            f"answers to {client} never leave: this machine takes the address for its own, because "
            f"{route.interface} holds one with a whole network",
            f"let {route.interface} hold VIPs with prefix /{bits} alone",
        )
    link = machine.link(route.interface)
    if link is not None and link.kind == DUMMY:
        return Verdict(
            False,
            f"answers to {client} leave by {route.interface}, where nobody is: it has a route to a "
            "whole network",
            f"let {route.interface} hold VIPs with prefix /{bits} alone, and take the route away "
            f"(ip route show dev {route.interface})",
        )
    if service.forward is Forward.MASQ:
        return _through_director(machine, client, route)
    by = f"answers leave by {route.interface} with {service.address} as their source"
    return Verdict(True, by)


def _through_director(machine: Machine, client: Client, route: Route) -> Verdict:
    """With masquerading a director must see the answer, and gives it the VIP as its source."""
    if route.gateway is None:
        return Verdict(
            None if client.far else False,
            f"answers to {client} leave by {route.interface} straight to it, past the director, "
            "which would make the VIP their source",
            "with masquerading, clients must not be in a real server's own networks",
        )
    if route.gateway in machine.routers:
        return Verdict(True, f"answers go back through the director {route.gateway}")
    return Verdict(
        None,
        f"answers to {client} go through {route.gateway}; whether that is a director, the pillar "
        "does not say",
        "with masquerading it has to be one: make it an address that moves with the VIPs",
    )


def _datagrams(service: Service, machine: Machine, of: Sequence[Client]) -> Iterator[Verdict]:
    """A UDP answer from a socket that is bound to no address gets the machine's own as its source,
    unless the service sees to it (IP_PKTINFO).
    """
    found = _hearing(machine.listening.get((Protocol.UDP, service.port), ()), service.address)
    if not found or any(entry.address == service.address for entry in found):
        return
    unbound = (machine.lookup(client.address, None, None) for client in of)
    own = [route.source for route in unbound if isinstance(route, Route) and route.source]
    if service.forward is not Forward.MASQ:
        yield Verdict(
            None,
            f"the service listens on every address for UDP port {service.port}: unless it sees to "
            f"it itself, its answers bear {own[0] if own else 'the address of an interface'} "
            "instead of the VIP, and clients drop them",
            f"have it listen on {service.address}",
        )


def _listed(names: Iterable[str]) -> str:
    *most, last = [*names] or ["no interface"]
    return f"{', '.join(most)} and {last}" if most else last
