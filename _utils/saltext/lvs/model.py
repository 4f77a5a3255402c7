"""What a cluster is: typed, frozen values, checked when they are built.

:func:`from_pillar` turns the pillar's ``lvs`` and ``lvs_secrets`` into one :class:`Cluster`, or
raises :class:`~saltext.lvs.errors.InvalidConfig` with every wrong value's path. Nothing here reads
a clock, opens a file or talks to a kernel.

Two layers share the field's words. :class:`VirtualServer` and :class:`RealServer` are what the
kernel's IPVS table holds; :class:`VirtualServerConfig` and :class:`RealServerConfig` are what the
pillar says about them.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from saltext.lvs import keywords
from saltext.lvs.errors import MASK, InvalidConfig, WrongRole
from saltext.lvs.reading import (
    MAX_PORT,
    REQUIRED,
    Address,
    Section,
    as_address,
    as_ipvs_sysctls,
    as_name,
    plain,
)

T = TypeVar("T")
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface

# ipvsadm(8), option -w: "The valid values of weight are 0 through to 65535".
MAX_WEIGHT = 65535
# The kernel counts connections in an int, and answers EINVAL to a threshold beyond it.
MAX_THRESHOLD = 2**31 - 1
# ipvsadm(8), option -p: persistence is limited to 31 days; keepalived.conf(5) has the same limit.
MAX_PERSISTENCE_SECONDS = 31 * 24 * 3600
# ip_vs_set_timeout() counts in jiffies, in an int: with the finest clock (HZ of 1000) it refuses
# more seconds than these.
MAX_TIMEOUT_SECONDS = (2**31 - 1) // 1000
# A firewall mark is 32 bits; 0 is none.
MAX_FWMARK = 2**32 - 1
# IP_VS_SVC_F_SCHED1 to SCHED3 in linux/ip_vs.h. Each scheduler has its own meaning for them: sh and
# mh call the first two so, and ipvsadm writes the third as flag-3.
SCHEDULER_FLAGS = {"fallback": 0x8, "port": 0x10, "flag-3": 0x20}
# The prefix of a single address, by family.
WHOLE_PREFIX = {4: 32, 6: 128}
# RFC 3768 section 5.3.4: 255 belongs to the router that owns the address, which a director never
# does.
MAX_PRIORITY = 254
# RFC 5798 section 5.2.7: 12 bits of hundredths of a second.
MAX_ADVERT_INT_IPV6 = 40
# RFC 3768 section 5.3.6: authentication data are eight bytes; keepalived cuts what is longer, with
# a warning. Within double quotes keepalived 2.2 reads any printable character but the quote itself,
# with three exceptions: "${" begins a variable, a backslash at the end hides the closing quote, and
# a brace alone closes the block.
AUTH_PASS = r"(?!.*\$\{)(?![{}]\Z)[\x21\x23-\x7e]{0,7}[\x21\x23-\x5b\x5d-\x7e]"


class Protocol(enum.Enum):
    """A virtual server's transport protocol; the values are the words of ipvsadm and keepalived."""

    TCP = "tcp"
    UDP = "udp"
    SCTP = "sctp"


class Forward(enum.Enum):
    """How packets reach a real server: rewritten, in a tunnel, or by its MAC address alone.

    LOCAL is the kernel's own answer for an address of the director itself; nobody can ask for it.
    """

    MASQ = "masq"
    TUNNEL = "tunnel"
    DIRECT = "direct"
    LOCAL = "local"


class TunnelType(enum.Enum):
    """What a tunnel to a real server is made of (IP_VS_CONN_F_TUNNEL_TYPE_* in linux/ip_vs.h)."""

    IPIP = "ipip"
    GUE = "gue"
    GRE = "gre"


class TunnelChecksum(enum.Enum):
    """The checksum in a tunnel's own header (IP_VS_TUNNEL_ENCAP_FLAG_* in linux/ip_vs.h)."""

    NONE = "none"
    FULL = "csum"
    REMOTE = "remcsum"


# What each kind of tunnel can do (net/netfilter/ipvs/ip_vs_xmit.c).
CHECKSUMS_OF = {
    TunnelType.IPIP: (TunnelChecksum.NONE,),
    TunnelType.GUE: tuple(TunnelChecksum),
    TunnelType.GRE: (TunnelChecksum.NONE, TunnelChecksum.FULL),
}


class Scheduler(enum.Enum):
    """How IPVS chooses a real server; one kernel module ``ip_vs_<value>`` each
    (linux/net/netfilter/ipvs).
    """

    RR = "rr"
    WRR = "wrr"
    LC = "lc"
    WLC = "wlc"
    FO = "fo"
    OVF = "ovf"
    LBLC = "lblc"
    LBLCR = "lblcr"
    DH = "dh"
    SH = "sh"
    MH = "mh"
    SED = "sed"
    NQ = "nq"
    TWOS = "twos"


class VrrpState(enum.Enum):
    """The state in which a director's VRRP instances start."""

    MASTER = "MASTER"
    BACKUP = "BACKUP"


class ManagedBy(enum.Enum):
    """Who keeps a virtual server's part of the IPVS table; never both."""

    SALT = "salt"
    KEEPALIVED = "keepalived"


class CheckType(enum.Enum):
    """How a real server's health is tried: through the VIP, or on its own address."""

    PATH = "path"
    TCP = "tcp"


class OnFailure(enum.Enum):
    """What becomes of a real server that fails: weight 0, or out of the table."""

    DRAIN = "drain"
    REMOVE = "remove"


class Reaction(enum.Enum):
    """Who answers a failure: the machine that sees it, the master's reactor, or both."""

    LOCAL = "local"
    REACTOR = "reactor"
    BOTH = "both"


class VipPersistence(enum.Enum):
    """Who brings a real server's VIPs back at a boot; the values are the pillar's words."""

    AUTO = "auto"
    NETWORKD = "systemd-networkd"
    IFUPDOWN = "ifupdown"
    NETWORK_MANAGER = "NetworkManager"
    UNIT = "systemd"
    NONE = "False"


class AlertsBy(enum.Enum):
    """Who sends mail about the cluster."""

    SALT = "salt"
    KEEPALIVED = "keepalived"


class Role(enum.Enum):
    """What a machine is to the cluster; the values name the SLS that make it so."""

    DIRECTOR = "director"
    REAL_SERVER = "realserver"
    HYPERVISOR = "hypervisor"


# --------------------------------------------------------------------------------------------------
# What the kernel holds


@dataclass(frozen=True, slots=True)
class VirtualServerKey:
    """What makes a virtual server that one and no other.

    Either *protocol*, *address* and *port*, or a firewall mark (*fwmark* above 0) with its address
    *family* (4 or 6).
    """

    protocol: Protocol | None
    address: Address | None
    port: int
    fwmark: int = 0
    family: int = 4

    @classmethod
    def of(cls, protocol: Protocol, address: Address, port: int) -> VirtualServerKey:
        """The key of a virtual server that has an address."""
        return cls(protocol, address, port, 0, address.version)

    def __str__(self) -> str:
        if self.protocol is None:
            return f"fwmark {self.fwmark}" + (" (IPv6)" if self.family == 6 else "")
        return f"{self.protocol.value} {endpoint(self.address, self.port)}"

    def sort_key(self) -> tuple[Any, ...]:
        """An order that is the same on every run: by family, then address, port and protocol."""
        address = self.address.packed if self.address is not None else b""
        protocol = self.protocol.value if self.protocol is not None else ""
        return (self.family, self.fwmark, address, self.port, protocol)


@dataclass(frozen=True, slots=True)
class RealServerKey:
    """What makes a real server that one within its virtual server."""

    address: Address
    port: int

    def __str__(self) -> str:
        return endpoint(self.address, self.port)

    def sort_key(self) -> tuple[Any, ...]:
        """An order that is the same on every run."""
        return (self.address.version, self.address.packed, self.port)


@dataclass(frozen=True, slots=True)
class RealServer:
    """One real server of a virtual server, as IPVS holds it.

    weight
        Its share of new connections, 0 to 65535; 0 takes no new ones and keeps those it has.

    upper_threshold, lower_threshold
        Number of connections at which IPVS stops sending new ones, and starts again; 0 is no limit,
        2,147,483,647 the largest one.

    tunnel_type, tunnel_port, tunnel_checksum
        How packets are wrapped, where *forward* is a tunnel: ``ipip`` has neither port nor
        checksum, ``gue`` (generic UDP encapsulation) needs the UDP port on which the real server
        unwraps them, ``gre`` has no port and no ``remcsum``.
    """

    key: RealServerKey
    forward: Forward = Forward.DIRECT
    weight: int = 1
    upper_threshold: int = 0
    lower_threshold: int = 0
    tunnel_type: TunnelType = TunnelType.IPIP
    tunnel_port: int = 0
    tunnel_checksum: TunnelChecksum = TunnelChecksum.NONE


@dataclass(frozen=True, slots=True)
class VirtualServer:
    """One virtual server with its real servers, as IPVS holds it.

    persistence
        Seconds for which a client stays with its real server; 0 is none.

    netmask
        Prefix length up to which clients count as one for persistence: 32 (IPv4) or 128 (IPv6) for
        each its own.

    one_packet
        Schedule each UDP datagram by itself.

    scheduler_flags
        The scheduler's own switches, bits of IP_VS_SVC_F_SCHED1..3 in linux/ip_vs.h.

    persistence_engine
        ``sip`` or empty.

    real_servers
        In the order of their keys; no two with the same key.
    """

    key: VirtualServerKey
    scheduler: str = Scheduler.WLC.value
    persistence: int = 0
    netmask: int = 32
    one_packet: bool = False
    scheduler_flags: int = 0
    persistence_engine: str = ""
    real_servers: tuple[RealServer, ...] = ()

    @classmethod
    def empty(cls, key: VirtualServerKey) -> VirtualServer:
        """A virtual server as the kernel's defaults make it, without real servers."""
        return cls(key, netmask=WHOLE_PREFIX[key.family])

    def settings(self) -> VirtualServer:
        """The same virtual server without its real servers: what SET_SERVICE would say."""
        return replace(self, real_servers=())


def flag_words(flags: int) -> tuple[str, ...]:
    """The pillar's words for a scheduler's flags."""
    return tuple(word for word, bit in SCHEDULER_FLAGS.items() if flags & bit)


def scheduler_words(scheduler: str, flags: int) -> tuple[str, ...]:
    """The words of ipvsadm and keepalived for a scheduler's flags: ``sh-port``, ``flag-3``."""
    own = {"fallback", "port"} if scheduler in (Scheduler.SH.value, Scheduler.MH.value) else set()
    return tuple(
        f"{scheduler}-{word}" if word in own else f"flag-{number}"
        for number, (word, bit) in enumerate(SCHEDULER_FLAGS.items(), 1)
        if flags & bit
    )


def netmask_text(prefix: int, family: int) -> str:
    """A netmask as ipvsadm and keepalived write it: an IPv4 mask, but an IPv6 prefix length."""
    return str(prefix) if family == 6 else str(ipaddress.IPv4Network((0, prefix)).netmask)


def in_order(servers: Iterable[RealServer]) -> tuple[RealServer, ...]:
    """Real servers as a virtual server has them: in the order of their keys."""
    return tuple(sorted(servers, key=lambda server: server.key.sort_key()))


# --------------------------------------------------------------------------------------------------
# What the pillar says


@dataclass(frozen=True, slots=True)
class Director:
    """A load balancer, by its minion id.

    router_id
        Its name in keepalived's mail and logs.

    priority
        Its VRRP priority, 1 to 254; the highest holds the VIPs.

    interface
        Its own network interface for VRRP where that differs from the instance's.

    address
        Its own address, where known: real servers then ask their routes by which interface it
        reaches them.
    """

    minion_id: str
    router_id: str
    state: VrrpState
    priority: int
    interface: str | None = None
    address: Address | None = None


@dataclass(frozen=True, slots=True)
class RealServerConfig:
    """A machine that serves clients.

    enabled
        False takes it out of service: weight 0 everywhere, and it gives up its VIPs.

    minion
        False for a machine that Salt does not run.

    vip_interface
        Where it holds its VIPs, if not where the others do.
    """

    name: str
    address: Address
    enabled: bool = True
    minion: bool = True
    vip_interface: str | None = None


@dataclass(frozen=True, slots=True)
class Hypervisor:
    """A virtualization host that carries directors or real servers.

    bridge
        The bridge that its guests are on, such as ``virbr0``.

    interface
        The host's own interface to the guests' network, such as ``eth1``.
    """

    minion_id: str
    bridge: str | None = None
    interface: str | None = None


@dataclass(frozen=True, slots=True)
class VrrpInstance:
    """A set of VIPs that move between the directors as one.

    virtual_router_id
        1 to 255, one use on each network (RFC 3768 section 5.2.3).

    advert_int
        Seconds between two advertisements; a failure shows after three of them.

    auth_pass
        The VRRP password, from ``lvs_secrets``; ``None`` on machines that do not get it. Left out
        of ``repr``.
    """

    name: str
    interface: str
    virtual_router_id: int
    advert_int: int
    virtual_ipaddress: tuple[Interface, ...]
    auth_pass: str | None = field(default=None, repr=False)

    @property
    def family(self) -> int:
        """4 or 6: an instance speaks one of the two."""
        return self.virtual_ipaddress[0].version


@dataclass(frozen=True, slots=True)
class SyncDaemon:
    """Connection synchronization from the director that holds the VIPs to the others.

    syncid
        0 to 255; only daemons with the same number listen to each other.
    """

    interface: str
    vrrp_instance: str
    syncid: int = 0


@dataclass(frozen=True, slots=True)
class Check:
    """How a virtual server's real servers are checked; times in seconds.

    rise, fall
        How many checks in a row must agree before a real server counts as up, or as down.
    """

    types: tuple[CheckType, ...]
    interval: float = 10
    connect_timeout: float = 3
    rise: int = 1
    fall: int = 1


@dataclass(frozen=True, slots=True)
class RealServerShare:
    """A real server's part in one virtual server: its port there, its weight as configured, and its
    limits in connections.
    """

    name: str
    port: int
    weight: int
    upper_threshold: int = 0
    lower_threshold: int = 0


@dataclass(frozen=True, slots=True)
class Tunnel:
    """How packets to a virtual server's real servers are wrapped; see :class:`RealServer`."""

    type: TunnelType = TunnelType.IPIP
    port: int = 0
    checksum: TunnelChecksum = TunnelChecksum.NONE


@dataclass(frozen=True, slots=True)
class VirtualServerConfig:
    """A virtual server as the pillar says it; what is not told here is as in
    :class:`VirtualServer`.

    address
        The VIP. A firewall mark has one too: real servers must hold what its packets are sent to.

    on_failure, min_in_service, slow_start
        Limits for health checking: what becomes of a failed real server, the share of capacity that
        is never taken out automatically (0 to 1), and the seconds over which a returning one gets
        its weight back.
    """

    name: str
    key: VirtualServerKey
    address: Address
    scheduler: Scheduler
    scheduler_flags: int
    forward: Forward
    tunnel: Tunnel
    persistence: int
    netmask: int
    persistence_engine: str
    one_packet: bool
    managed_by: ManagedBy
    check: Check
    on_failure: OnFailure
    min_in_service: float
    slow_start: float
    real_servers: tuple[RealServerShare, ...]

    @property
    def scheduler_words(self) -> tuple[str, ...]:
        """Its scheduler's flags as keepalived spells them."""
        return scheduler_words(self.scheduler.value, self.scheduler_flags)

    @property
    def granularity(self) -> str:
        """Its netmask as keepalived wants it."""
        return netmask_text(self.netmask, self.address.version)


@dataclass(frozen=True, slots=True)
class Alerts:
    """Who is told by mail, and through which server."""

    by: AlertsBy = AlertsBy.SALT
    notification_email: tuple[str, ...] = ()
    notification_email_from: str | None = None
    smtp_server: str = "localhost"
    smtp_connect_timeout: int = 30


@dataclass(frozen=True, slots=True)
class IpvsSettings:
    """What the kernel's IPVS has beside the table.

    timeouts
        Seconds of silence after which it forgets a connection: ``tcp``, ``tcpfin``, ``udp``; what
        is not named stays.

    sysctls
        Values of ``net.ipv4.vs.*`` by name, beside those that the formula keeps; None leaves one as
        it is.
    """

    timeouts: Mapping[str, int] = field(default_factory=dict)
    sysctls: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cluster:
    """The whole of one pillar: everything that a machine needs to know of its cluster.

    unused
        Settings that are right but that nothing acts on yet, as pillar paths.
    """

    name: str
    directors: Mapping[str, Director]
    real_servers: Mapping[str, RealServerConfig]
    hypervisors: Mapping[str, Hypervisor]
    vrrp_instances: Mapping[str, VrrpInstance]
    sync_daemon: SyncDaemon | None
    vip_interface: str
    vip_persistence: VipPersistence
    reaction: Reaction
    virtual_servers: Mapping[str, VirtualServerConfig]
    purge: bool
    ipvs: IpvsSettings
    alerts: Alerts
    keepalived_template: str
    keepalived_extra: Mapping[str, Any]
    lookup: Mapping[str, Any]
    unused: tuple[str, ...] = ()

    def roles(self, minion_id: str) -> tuple[Role, ...]:
        """The parts that a minion plays; none for a stranger."""
        real_server = self.real_servers.get(minion_id)
        played = {
            Role.DIRECTOR: minion_id in self.directors,
            Role.REAL_SERVER: real_server is not None and real_server.minion,
            Role.HYPERVISOR: minion_id in self.hypervisors,
        }
        return tuple(role for role, plays in played.items() if plays)

    def expect_role(self, minion_id: str, role: Role) -> None:
        """Raise :class:`~saltext.lvs.errors.WrongRole` unless the minion plays that part."""
        if role not in self.roles(minion_id):
            played = ", ".join(part.value for part in self.roles(minion_id)) or "no part"
            raise WrongRole(
                f"{minion_id} is no {role.value} of cluster {self.name}: it plays {played} there"
            )

    def vips_of(self, real_server: str) -> tuple[Interface, ...]:
        """The VIPs that a real server must hold itself: none where it is not enabled.

        With weight 0 it keeps them, because its open connections need them.
        """
        known = self.real_servers.get(real_server)
        return self.vips_served_by(real_server) if known is not None and known.enabled else ()

    def vips_served_by(self, real_server: str) -> tuple[Interface, ...]:
        """The VIPs with which packets reach a real server as long as it is in service.

        That is so for direct routing and for tunnels; with masquerading it sees its own address.
        """
        vips = {
            virtual_server.address
            for virtual_server in self.virtual_servers.values()
            if virtual_server.forward is not Forward.MASQ
            and any(share.name == real_server for share in virtual_server.real_servers)
        }
        return tuple(ipaddress.ip_interface(vip) for vip in sorted(vips, key=_address_order))

    def vip_interface_of(self, real_server: str) -> str:
        """The interface on which a real server holds its VIPs."""
        own = self.real_servers.get(real_server)
        return (own.vip_interface if own else None) or self.vip_interface

    def table(self) -> dict[VirtualServerKey, VirtualServer]:
        """The IPVS table that every director should hold, without what keepalived keeps."""
        return {
            config.key: self._virtual_server(config)
            for config in self.virtual_servers.values()
            if config.managed_by is ManagedBy.SALT
        }

    def keepalived_keys(self) -> frozenset[VirtualServerKey]:
        """The virtual servers that keepalived keeps, and that nobody else may touch."""
        return frozenset(
            config.key
            for config in self.virtual_servers.values()
            if config.managed_by is ManagedBy.KEEPALIVED
        )

    def _virtual_server(self, config: VirtualServerConfig) -> VirtualServer:
        real_servers = [
            RealServer(
                key=RealServerKey(self.real_servers[share.name].address, share.port),
                forward=config.forward,
                weight=share.weight if self.real_servers[share.name].enabled else 0,
                upper_threshold=share.upper_threshold,
                lower_threshold=share.lower_threshold,
                tunnel_type=config.tunnel.type,
                tunnel_port=config.tunnel.port,
                tunnel_checksum=config.tunnel.checksum,
            )
            for share in config.real_servers
        ]
        return VirtualServer(
            key=config.key,
            scheduler=config.scheduler.value,
            persistence=config.persistence,
            netmask=config.netmask,
            one_packet=config.one_packet,
            scheduler_flags=config.scheduler_flags,
            persistence_engine=config.persistence_engine,
            real_servers=in_order(real_servers),
        )


def endpoint(address: Address | None, port: int) -> str:
    """An address and port as people write them: ``10.10.10.10:80``, ``[fd00::10]:80``."""
    return (
        f"[{address}]:{port}"
        if address is not None and address.version == 6
        else f"{address}:{port}"
    )


def _address_order(address: Address) -> tuple[int, bytes]:
    return (address.version, address.packed)


# --------------------------------------------------------------------------------------------------
# From the pillar


def as_vip_persistence(value: Any, path: str = "persist") -> VipPersistence:
    """A word for who brings VIPs back at a boot, in any case, or False; None is ``auto``."""
    if value is None:
        return VipPersistence.AUTO
    for member in VipPersistence:
        if isinstance(value, (str, bool)) and str(value).lower() == member.value.lower():
            return member
    words = ", ".join(member.value for member in VipPersistence)
    raise InvalidConfig(path, value, f"one of {words}")


def from_pillar(pillar: Mapping[str, Any]) -> Cluster:
    """Build the cluster from a minion's whole pillar (its keys ``lvs`` and ``lvs_secrets``).

    Raises :class:`~saltext.lvs.errors.InvalidConfig`, whose ``problems`` hold one error for each
    wrong part.
    """
    if not pillar.get("lvs"):
        raise InvalidConfig("lvs", None, "the cluster's description; see docs/pillar.md")
    return _Builder(plain(pillar["lvs"]), plain(pillar.get("lvs_secrets"))).build()


def judge(pillar: Mapping[str, Any], minion_id: str) -> dict[str, Any]:
    """Say what is wrong with a minion's pillar, and what deserves a look, as plain values without
    passwords.

    Returns ``valid``, ``problems`` and ``warnings`` (sentences), and for a valid pillar ``cluster``
    (its name) and ``roles``.
    """
    try:
        cluster = from_pillar(pillar)
    except InvalidConfig as error:
        return {"valid": False, "problems": [str(p) for p in error.problems], "warnings": []}
    roles = [role.value for role in cluster.roles(minion_id)]
    return {
        "valid": True,
        "problems": [],
        "warnings": list(_warnings(cluster, minion_id, bool(pillar.get("lvs_secrets")))),
        "cluster": cluster.name,
        "roles": roles,
    }


def _warnings(cluster: Cluster, minion_id: str, has_secrets: bool) -> Iterable[str]:
    roles = cluster.roles(minion_id)
    if not roles:
        yield f"{minion_id} plays no part in cluster {cluster.name}"
    if has_secrets and Role.DIRECTOR not in roles:
        yield (
            f"lvs_secrets reaches {minion_id}, which is no director: "
            "let top.sls give it to directors only"
        )
    used = {
        share.name for config in cluster.virtual_servers.values() for share in config.real_servers
    }
    for name in cluster.real_servers:
        if name not in used:
            yield f"lvs:real_servers:{name} serves no virtual server"
    if cluster.unused:
        yield (
            "this version does not check health or send mail by itself, so these have no effect "
            "yet: " + ", ".join(cluster.unused)
        )


def _not_yet(managed_by: ManagedBy) -> tuple[str, ...]:
    """What is accepted and checked, but acted on only once health checking by Salt exists."""
    limits = ("min_in_service", "slow_start")
    return limits if managed_by is ManagedBy.KEEPALIVED else ("on_failure", *limits)


class _Builder:
    """Reads the sections in the order of their dependence and gathers what is wrong in each."""

    def __init__(self, lvs: Any, secrets: Any) -> None:
        self.problems: list[InvalidConfig] = []
        self.unused: list[str] = []
        self.top = Section(lvs, "lvs")
        self.passwords = self._tried(lambda: self._passwords(secrets)) or {}

    def build(self) -> Cluster:
        top = self.top
        name = self._tried(lambda: top.name("name", "lvs")) or ""
        directors = self._directors()
        real_servers = self._each(top, "real_servers", self._real_server)
        hypervisors = self._each(top, "hypervisors", self._hypervisor)
        vrrp_instances = self._each(top, "vrrp_instances", self._vrrp_instance)
        sync_daemon = self._tried(lambda: self._sync_daemon(vrrp_instances))
        self.real_servers, self.vrrp_instances = real_servers, vrrp_instances
        virtual_servers = self._each(top, "virtual_servers", self._virtual_server)
        alerts = self._tried(self._alerts) or Alerts()
        template, extra = self._tried(self._keepalived) or ("", {})
        vip_interface = self._tried(lambda: top.interface("vip_interface", "dummy0")) or ""
        vip_persistence = self._tried(
            lambda: as_vip_persistence(top.raw("vip_persistence"), top.at("vip_persistence"))
        )
        reaction = self._tried(lambda: top.choice("reaction", Reaction, Reaction.BOTH))
        purge = self._tried(lambda: top.flag("purge", False)) or False
        lookup = self._tried(lambda: plain(dict(top.raw("lookup", {})))) or {}
        ipvs = self._tried(self._ipvs) or IpvsSettings()
        self._tried(top.finish)
        cluster = Cluster(
            name=name,
            directors=directors,
            real_servers=real_servers,
            hypervisors=hypervisors,
            vrrp_instances=vrrp_instances,
            sync_daemon=sync_daemon,
            vip_interface=vip_interface,
            vip_persistence=vip_persistence or VipPersistence.AUTO,
            reaction=reaction or Reaction.BOTH,
            virtual_servers=virtual_servers,
            purge=purge,
            ipvs=ipvs,
            alerts=alerts,
            keepalived_template=template,
            keepalived_extra=extra,
            lookup=lookup,
            unused=tuple(self.unused),
        )
        if not self.problems:
            # Relations between parts say nothing useful while a part is wrong in itself.
            self.problems.extend(_contradictions(cluster, self.passwords))
        if self.problems:
            raise InvalidConfig.of(self.problems)
        return cluster

    def _tried(self, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except InvalidConfig as error:
            self.problems.extend(error.problems)
            return None

    def _each(
        self, section: Section, key: str, build: Callable[[str, Any, str], T]
    ) -> dict[str, T]:
        built: dict[str, T] = {}
        for name, value, path in self._tried(lambda: list(section.named(key))) or []:
            item = self._tried(lambda: build(name, value, path))  # noqa: B023 -- called at once
            if item is not None:
                built[name] = item
        return built

    def _passwords(self, secrets: Any) -> dict[str, str]:
        top = Section(secrets, "lvs_secrets")
        found: dict[str, str] = {}
        for name, value, path in top.named("vrrp_instances"):
            section = Section(value, path)
            found[name] = section.secret(
                "auth_pass",
                AUTH_PASS,
                "1 to 8 printable characters without space or double quote, without ${, no "
                "backslash at the "
                "end, and not a brace alone",
            )
            section.finish()
        top.finish()
        return found

    def _directors(self) -> dict[str, Director]:
        given = self._tried(lambda: list(self.top.named("directors"))) or []
        # In a bare list the first is preferred, the next one follows: an order needs no numbers.
        preferred = {name: max(1, 150 - 10 * rank) for rank, (name, _, _) in enumerate(given)}
        directors = self._each(
            self.top,
            "directors",
            lambda name, value, path: self._director(name, value, path, preferred[name]),
        )
        highest = max((director.priority for director in directors.values()), default=0)
        for name, value, _ in given:
            stated = isinstance(value, Mapping) and value.get("state") is not None
            if not stated and name in directors and directors[name].priority == highest:
                directors[name] = replace(directors[name], state=VrrpState.MASTER)
        return directors

    @staticmethod
    def _director(name: str, value: Any, path: str, preferred: int) -> Director:
        section = Section(value, path)
        director = Director(
            minion_id=name,
            router_id=section.name("router_id", name),
            state=section.choice("state", VrrpState, VrrpState.BACKUP),
            priority=section.integer("priority", 1, MAX_PRIORITY, preferred),
            interface=section.interface("interface", "") or None,
            address=section.address("address") if section.has("address") else None,
        )
        section.finish()
        return director

    @staticmethod
    def _real_server(name: str, value: Any, path: str) -> RealServerConfig:
        if not isinstance(value, Mapping):
            return RealServerConfig(name, as_address(value, path))
        section = Section(value, path)
        real_server = RealServerConfig(
            name=name,
            address=section.address("address"),
            enabled=section.flag("enabled", True),
            minion=section.flag("minion", True),
            vip_interface=section.interface("vip_interface", "") or None,
        )
        section.finish()
        return real_server

    @staticmethod
    def _hypervisor(name: str, value: Any, path: str) -> Hypervisor:
        section = Section(value, path)
        hypervisor = Hypervisor(
            minion_id=name,
            bridge=section.interface("bridge", "") or None,
            interface=section.interface("interface", "") or None,
        )
        section.finish()
        return hypervisor

    def _vrrp_instance(self, name: str, value: Any, path: str) -> VrrpInstance:
        section = Section(value, path)
        vips = tuple(
            _vip(item, item_path) for item, item_path in section.items_of("virtual_ipaddress")
        )
        if not vips:
            raise InvalidConfig(section.at("virtual_ipaddress"), None, "a list of at least one VIP")
        if len({vip.version for vip in vips}) > 1:
            raise InvalidConfig(
                section.at("virtual_ipaddress"),
                [str(vip) for vip in vips],
                "of one address family; VRRP speaks IPv4 and IPv6 in separate instances",
            )
        instance = VrrpInstance(
            name=name,
            interface=section.interface("interface"),
            virtual_router_id=section.integer("virtual_router_id", 1, 255),
            advert_int=section.integer("advert_int", 1, 255, 1),
            virtual_ipaddress=vips,
            auth_pass=self.passwords.get(name),
        )
        if instance.family == 6 and instance.advert_int > MAX_ADVERT_INT_IPV6:
            raise InvalidConfig(
                section.at("advert_int"),
                instance.advert_int,
                f"at most {MAX_ADVERT_INT_IPV6} with IPv6, where VRRP is version 3",
            )
        if section.has("auth_pass") or section.has("authentication"):
            raise InvalidConfig(
                path,
                {"auth_pass": "..."},
                f"without a password: that belongs in lvs_secrets:vrrp_instances:{name}:auth_pass, "
                "in a pillar file that only directors get",
            )
        section.finish()
        return instance

    def _sync_daemon(self, instances: Mapping[str, VrrpInstance]) -> SyncDaemon | None:
        if not self.top.has("sync_daemon"):
            return None
        section = self.top.section("sync_daemon")
        instance = section.name("vrrp_instance")
        daemon = SyncDaemon(
            section.interface("interface"), instance, section.integer("syncid", 0, 255, 0)
        )
        section.finish()
        if instance not in instances and not self.problems:
            raise InvalidConfig(
                section.at("vrrp_instance"), instance, _one_of("a VRRP instance", instances)
            )
        return daemon

    def _virtual_server(self, name: str, value: Any, path: str) -> VirtualServerConfig:
        section = Section(value, path)
        address = section.address("address")
        managed_by = section.choice("managed_by", ManagedBy, ManagedBy.SALT)
        key = self._key(section, address, managed_by)
        forward = section.choice("forward", Forward, Forward.DIRECT, without=(Forward.LOCAL,))
        scheduler = section.choice("scheduler", Scheduler, Scheduler.WLC)
        persistence = section.integer("persistence", 0, MAX_PERSISTENCE_SECONDS, 0)
        config = VirtualServerConfig(
            name=name,
            key=key,
            address=address,
            scheduler=scheduler,
            scheduler_flags=_scheduler_flags(section, scheduler),
            forward=forward,
            tunnel=_tunnel(section, forward),
            persistence=persistence,
            netmask=_netmask(section, address, persistence),
            persistence_engine=_persistence_engine(section, key, persistence),
            one_packet=_one_packet(section, key),
            managed_by=managed_by,
            check=self._check(section, forward, managed_by),
            on_failure=section.choice("on_failure", OnFailure, OnFailure.DRAIN),
            min_in_service=section.number("min_in_service", 0, 1, 0.5),
            slow_start=section.number("slow_start", 0, 3600, 0),
            real_servers=self._shares(section, key, forward),
        )
        self.unused.extend(section.at(key) for key in _not_yet(managed_by) if section.has(key))
        section.finish()
        return config

    @staticmethod
    def _key(section: Section, address: Address, managed_by: ManagedBy) -> VirtualServerKey:
        """By protocol, VIP and port, or by a firewall mark in the place of all three."""
        if not section.has("fwmark"):
            port = section.integer("port", 1, MAX_PORT)
            protocol = section.choice("protocol", Protocol, Protocol.TCP)
            return VirtualServerKey.of(protocol, address, port)
        mark = section.integer("fwmark", 1, MAX_FWMARK)
        for key in ("port", "protocol"):
            if section.has(key):
                raise InvalidConfig(
                    section.at(key), section.raw(key), "left out: the fwmark stands in its place"
                )
        if managed_by is ManagedBy.KEEPALIVED:
            raise InvalidConfig(
                section.at("managed_by"),
                managed_by.value,
                "salt where there is a fwmark: that is not written into keepalived.conf",
            )
        return VirtualServerKey(None, None, 0, mark, address.version)

    def _check(self, parent: Section, forward: Forward, managed_by: ManagedBy) -> Check:
        section = parent.section("check")
        types = tuple(_check_type(item, path) for item, path in section.items_of("types"))
        # keepalived's own TCP_CHECK goes to the real server's address; only Salt can send one along
        # the path.
        path_too = forward is Forward.DIRECT and managed_by is ManagedBy.SALT
        check = Check(
            types=types or ((CheckType.PATH, CheckType.TCP) if path_too else (CheckType.TCP,)),
            interval=section.number("interval", 0.05, 86400, 10),
            connect_timeout=section.number("connect_timeout", 0.05, 3600, 3),
            rise=section.integer("rise", 1, 100, 1),
            fall=section.integer("fall", 1, 100, 1),
        )
        section.finish()
        if managed_by is ManagedBy.SALT and parent.has("check"):
            self.unused.append(section.path)
        if managed_by is ManagedBy.KEEPALIVED and check.rise > 1:
            raise InvalidConfig(
                section.at("rise"),
                check.rise,
                "1 where keepalived keeps the virtual server: it knows no other",
            )
        if managed_by is ManagedBy.KEEPALIVED and CheckType.PATH in check.types:
            raise InvalidConfig(
                section.at("types"), "path", "tcp where keepalived keeps the virtual server"
            )
        return check

    def _shares(
        self, parent: Section, of: VirtualServerKey, forward: Forward
    ) -> tuple[RealServerShare, ...]:
        return tuple(
            self._share(name, value, path, of, forward)
            for name, value, path in parent.named("real_servers")
        )

    def _share(
        self, name: str, value: Any, path: str, of: VirtualServerKey, forward: Forward
    ) -> RealServerShare:
        section = Section(value, path)
        upper = section.integer("upper_threshold", 0, MAX_THRESHOLD, 0)
        share = RealServerShare(
            name=name,
            port=section.integer("port", 1, MAX_PORT, of.port),
            weight=section.integer("weight", 0, MAX_WEIGHT, 1),
            upper_threshold=upper,
            lower_threshold=section.integer("lower_threshold", 0, upper, 0),
        )
        section.finish()
        if forward is not Forward.MASQ and share.port != of.port:
            raise InvalidConfig(
                section.at("port"),
                share.port,
                f"{of.port or 'left out'}, the virtual server's: only forward masq can change the "
                "port",
            )
        real_server = self.real_servers.get(name)
        if real_server is None:
            # A real server that is itself wrong has been told of already.
            if not any(p.path.startswith(f"lvs:real_servers:{name}") for p in self.problems):
                raise InvalidConfig(path, name, _one_of("a real server", self.real_servers))
        elif forward is not Forward.TUNNEL and real_server.address.version != of.family:
            raise InvalidConfig(
                path,
                str(real_server.address),
                f"an IPv{of.family} real server, like the VIP: forward {forward.value} cannot "
                "change the address family",
            )
        return share

    def _ipvs(self) -> IpvsSettings:
        section = self.top.section("ipvs")
        found = IpvsSettings(
            timeouts=read_timeouts(section.section("timeouts")),
            sysctls=as_ipvs_sysctls(section.raw("sysctls"), section.at("sysctls")),
        )
        section.finish()
        return found

    def _alerts(self) -> Alerts:
        section = self.top.section("alerts")
        alerts = Alerts(
            by=section.choice("by", AlertsBy, AlertsBy.SALT),
            notification_email=tuple(
                _email(item, path) for item, path in section.items_of("notification_email")
            ),
            notification_email_from=(
                _email(
                    section.raw("notification_email_from"), section.at("notification_email_from")
                )
                if section.has("notification_email_from")
                else None
            ),
            smtp_server=section.name("smtp_server", "localhost"),
            smtp_connect_timeout=section.integer("smtp_connect_timeout", 1, 3600, 30),
        )
        section.finish()
        if alerts.by is AlertsBy.KEEPALIVED and not alerts.notification_email:
            raise InvalidConfig(
                section.at("notification_email"),
                None,
                "a list of at least one mail address for keepalived",
            )
        if self.top.has("alerts") and alerts.by is AlertsBy.SALT:
            self.unused.append(section.path)
        return alerts

    def _keepalived(self) -> tuple[str, dict[str, Any]]:
        section = self.top.section("keepalived")
        template = section.text(
            "template",
            r"(salt://|/)\S+",
            "a salt:// address or an absolute path of a Jinja2 template",
            "salt://lvs/files/keepalived.conf.jinja",
        )
        extra = plain(section.raw("extra", {}))
        keywords.lines(extra, section.at("extra"))
        section.finish()
        return template, extra


def _vip(value: Any, path: str) -> Interface:
    """A VIP is one address: any other prefix would also make a route to a network through the
    interface.
    """
    text, _, prefix = str(value).partition("/")
    address = as_address(text if isinstance(value, str) else value, path)
    if prefix not in ("", str(address.max_prefixlen)):
        raise InvalidConfig(path, value, f"{address}/{address.max_prefixlen}: a VIP is one address")
    return ipaddress.ip_interface(address)


def _scheduler_flags(section: Section, scheduler: Scheduler) -> int:
    flags = read_scheduler_flags(section)
    if flags and scheduler not in (Scheduler.SH, Scheduler.MH):
        raise InvalidConfig(
            section.at("scheduler_flags"),
            section.raw("scheduler_flags"),
            f"left out: scheduler {scheduler.value} has none, but sh and mh do",
        )
    return flags


def read_scheduler_flags(section: Section) -> int:
    """``scheduler_flags`` of a pillar or of a plain table, as bits."""
    flags = 0
    for word, path in section.items_of("scheduler_flags"):
        if not isinstance(word, str) or word not in SCHEDULER_FLAGS:
            raise InvalidConfig(path, word, "one of " + ", ".join(SCHEDULER_FLAGS))
        flags |= SCHEDULER_FLAGS[word]
    return flags


def _netmask(section: Section, address: Address, persistence: int) -> int:
    whole = address.max_prefixlen
    if section.has("netmask") and not persistence:
        raise InvalidConfig(
            section.at("netmask"), section.raw("netmask"), "left out, or given with a persistence"
        )
    return section.integer("netmask", 1, whole, whole)


def _persistence_engine(section: Section, of: VirtualServerKey, persistence: int) -> str:
    engine = section.text("persistence_engine", "sip", "sip, the only one that there is", "")
    if engine and (not persistence or of.protocol in (Protocol.TCP, Protocol.SCTP)):
        raise InvalidConfig(
            section.at("persistence_engine"),
            engine,
            "given with udp and a persistence, or left out",
        )
    return engine


def _one_packet(section: Section, of: VirtualServerKey) -> bool:
    one_packet = section.flag("one_packet", False)
    if one_packet and of.protocol in (Protocol.TCP, Protocol.SCTP):
        raise InvalidConfig(section.at("one_packet"), True, "left out, or given with protocol udp")
    return one_packet


def _tunnel(section: Section, forward: Forward) -> Tunnel:
    """The tunnel's settings from keys that the kernel's plain form has for each real server."""
    tunnel = read_tunnel(section)
    if tunnel != Tunnel() and forward is not Forward.TUNNEL:
        key = "tunnel_type"
        raise InvalidConfig(
            section.at(key), section.raw(key), "left out, or given with forward: tunnel"
        )
    return tunnel


def read_tunnel(section: Section) -> Tunnel:
    """``tunnel_type``, ``tunnel_port`` and ``tunnel_checksum`` of a pillar or of a plain table."""
    kind = section.choice("tunnel_type", TunnelType, TunnelType.IPIP)
    lowest, highest, default = (1, MAX_PORT, REQUIRED) if kind is TunnelType.GUE else (0, 0, 0)
    port = section.integer("tunnel_port", lowest, highest, default)
    checksum = section.choice("tunnel_checksum", TunnelChecksum, TunnelChecksum.NONE)
    if checksum not in CHECKSUMS_OF[kind]:
        words = ", ".join(word.value for word in CHECKSUMS_OF[kind])
        raise InvalidConfig(
            section.at("tunnel_checksum"), checksum.value, f"{words} with tunnel_type {kind.value}"
        )
    return Tunnel(kind, port, checksum)


def read_timeouts(section: Section) -> dict[str, int]:
    """IPVS's timeouts of a pillar or of a function's arguments, in seconds, where they are given.

    The kernel takes 0 for "as it is", so that is refused.
    """
    found = {
        name: section.integer(name, 1, MAX_TIMEOUT_SECONDS)
        for name in ("tcp", "tcpfin", "udp")
        if section.has(name)
    }
    section.finish()
    return found


def _check_type(value: Any, path: str) -> CheckType:
    for member in CheckType:
        if value == member.value:
            return member
    raise InvalidConfig(path, value, "one of " + ", ".join(member.value for member in CheckType))


def _email(value: Any, path: str) -> str:
    if isinstance(value, str) and value.count("@") == 1:
        local, domain = value.split("@")
        if local and domain:
            return as_name(value, path)
    raise InvalidConfig(path, value, "a mail address such as noc@example.com")


def _one_of(kind: str, names: Iterable[str]) -> str:
    known = ", ".join(sorted(names))
    return f"the name of {kind}: {known}" if known else f"the name of {kind}; none is defined"


# --------------------------------------------------------------------------------------------------
# Relations between the parts


def _contradictions(cluster: Cluster, passwords: Mapping[str, str]) -> list[InvalidConfig]:
    """What is wrong between parts that are each right."""
    return [
        *_machines(cluster),
        *_directors_disagree(cluster),
        *_vrrp_clashes(cluster),
        *_virtual_server_clashes(cluster),
        *_misplaced_passwords(cluster, passwords),
    ]


def _machines(cluster: Cluster) -> Iterable[InvalidConfig]:
    seen: dict[Address, str] = {}
    for name, director in cluster.directors.items():
        if director.address is None:
            continue
        if director.address in seen:
            yield InvalidConfig(
                f"lvs:directors:{name}:address",
                str(director.address),
                f"another address than that of director {seen[director.address]}",
            )
        seen.setdefault(director.address, name)
    directors = frozenset(seen)
    for name, real_server in cluster.real_servers.items():
        path = f"lvs:real_servers:{name}"
        if name in cluster.directors:
            yield InvalidConfig(
                path,
                name,
                "a machine that is not also a director: one that holds the VIP answers for it "
                "itself",
            )
        if real_server.address in seen:
            yield InvalidConfig(
                f"{path}:address",
                str(real_server.address),
                "another address than that of "
                f"{'director' if real_server.address in directors else 'real server'} "
                f"{seen[real_server.address]}",
            )
        seen.setdefault(real_server.address, name)


def _directors_disagree(cluster: Cluster) -> Iterable[InvalidConfig]:
    directors = list(cluster.directors.values())
    if directors and not cluster.vrrp_instances and not cluster.virtual_servers:
        yield InvalidConfig(
            "lvs:directors",
            list(cluster.directors),
            "left out, or given something to do: the cluster has no vrrp_instances and no "
            "virtual_servers",
        )
    if len(directors) > 1 and cluster.virtual_servers and not cluster.vrrp_instances:
        yield InvalidConfig(
            "lvs:vrrp_instances",
            {},
            f"at least one, so that {len(directors)} directors agree on who holds the VIPs",
        )
    if not directors and (cluster.vrrp_instances or cluster.virtual_servers):
        yield InvalidConfig("lvs:directors", {}, "at least one: virtual servers need a director")
    by_priority: dict[int, str] = {}
    for director in directors:
        path = f"lvs:directors:{director.minion_id}"
        if director.priority in by_priority:
            yield InvalidConfig(
                f"{path}:priority",
                director.priority,
                f"another than that of {by_priority[director.priority]}, or nobody knows who "
                "should hold the VIPs",
            )
        by_priority.setdefault(director.priority, director.minion_id)
    yield from _two_masters(directors)


def _two_masters(directors: list[Director]) -> Iterable[InvalidConfig]:
    masters = [director for director in directors if director.state is VrrpState.MASTER]
    highest = max((director.priority for director in directors), default=0)
    for director in masters:
        if director.priority < highest:
            yield InvalidConfig(
                f"lvs:directors:{director.minion_id}:state",
                director.state.value,
                "BACKUP: another director has a higher priority",
            )


def _vrrp_clashes(cluster: Cluster) -> Iterable[InvalidConfig]:
    routers: dict[tuple[str, int, int], str] = {}
    holders: dict[Interface, str] = {}
    for name, instance in cluster.vrrp_instances.items():
        path = f"lvs:vrrp_instances:{name}"
        router = (instance.interface, instance.virtual_router_id, instance.family)
        if router in routers:
            yield InvalidConfig(
                f"{path}:virtual_router_id",
                instance.virtual_router_id,
                f"another than that of {routers[router]}, which uses it on {instance.interface} "
                "too",
            )
        routers.setdefault(router, name)
        for vip in instance.virtual_ipaddress:
            if vip in holders:
                yield InvalidConfig(
                    f"{path}:virtual_ipaddress",
                    str(vip.ip),
                    f"in one instance only; {holders[vip]} has it too",
                )
            holders.setdefault(vip, name)
        if instance.auth_pass is not None and instance.family == 6:
            yield InvalidConfig(
                f"lvs_secrets:vrrp_instances:{name}",
                MASK,
                "left out: VRRP for IPv6 is version 3, which knows no password (RFC 5798 section "
                "9)",
            )


def _virtual_server_clashes(cluster: Cluster) -> Iterable[InvalidConfig]:
    held = {
        vip.ip for instance in cluster.vrrp_instances.values() for vip in instance.virtual_ipaddress
    }
    own = {server.address: name for name, server in cluster.real_servers.items()}
    seen: dict[VirtualServerKey, str] = {}
    for name, config in cluster.virtual_servers.items():
        path = f"lvs:virtual_servers:{name}"
        if config.key in seen:
            yield InvalidConfig(
                path,
                str(config.key),
                f"another protocol, address or port than those of {seen[config.key]}",
            )
        seen.setdefault(config.key, name)
        if config.managed_by is ManagedBy.KEEPALIVED and not _has_weight(cluster, config):
            yield InvalidConfig(
                f"{path}:real_servers",
                [share.name for share in config.real_servers],
                "at least one that is enabled and has a weight above 0: keepalived 2.2 does not "
                "keep a virtual server "
                "without",
            )
        if cluster.vrrp_instances and config.address not in held:
            yield InvalidConfig(
                f"{path}:address",
                str(config.address),
                "in some vrrp_instance's virtual_ipaddress, or no director answers for it",
            )
        if config.address in own:
            yield InvalidConfig(
                f"{path}:address",
                str(config.address),
                f"a VIP, not the own address of real server {own[config.address]}",
            )


def _has_weight(cluster: Cluster, config: VirtualServerConfig) -> bool:
    return any(
        share.weight and cluster.real_servers[share.name].enabled for share in config.real_servers
    )


def _misplaced_passwords(cluster: Cluster, passwords: Mapping[str, str]) -> Iterable[InvalidConfig]:
    for name in passwords:
        if name not in cluster.vrrp_instances:
            yield InvalidConfig(
                f"lvs_secrets:vrrp_instances:{name}",
                MASK,
                _one_of("a VRRP instance", cluster.vrrp_instances),
            )


__all__ = [
    "MAX_PORT",
    "MAX_THRESHOLD",
    "MAX_WEIGHT",
    "REQUIRED",
    "Address",
    "Alerts",
    "AlertsBy",
    "Check",
    "CheckType",
    "Cluster",
    "Director",
    "Forward",
    "Hypervisor",
    "Interface",
    "IpvsSettings",
    "ManagedBy",
    "OnFailure",
    "Protocol",
    "Reaction",
    "RealServer",
    "RealServerConfig",
    "RealServerKey",
    "RealServerShare",
    "Role",
    "Scheduler",
    "SyncDaemon",
    "Tunnel",
    "TunnelChecksum",
    "TunnelType",
    "VipPersistence",
    "VirtualServer",
    "VirtualServerConfig",
    "VirtualServerKey",
    "VrrpInstance",
    "VrrpState",
    "as_vip_persistence",
    "endpoint",
    "from_pillar",
    "in_order",
]
