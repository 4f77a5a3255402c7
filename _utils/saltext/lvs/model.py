"""What a cluster is: typed, frozen values, checked when they are built.

:func:`from_pillar` turns the pillar's ``lvs`` and ``lvs_secrets`` into one :class:`Cluster`, or
raises :class:`~saltext.lvs.errors.InvalidConfig` with every wrong value's path. Nothing here reads
a clock, opens a file or talks to a kernel.

Two layers share the field's words. :class:`VirtualServer` and :class:`RealServer` are what the
kernel's IPVS table holds; :class:`VirtualServerConfig` and :class:`RealServerConfig` are what the
pillar says about them.
"""

from __future__ import annotations

import contextlib
import enum
import ipaddress
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from saltext.lvs import alertwords, checkwords, demands, grammar, groups, instances, sections
from saltext.lvs.alertwords import Alerts, AlertsBy
from saltext.lvs.checkwords import Check, CheckType
from saltext.lvs.errors import MASK, InvalidConfig, WrongRole
from saltext.lvs.groups import Entry
from saltext.lvs.instances import (
    MAX_PRIORITY,
    Interface,
    Override,
    VrrpInstance,
    VrrpState,
)
from saltext.lvs.reading import (
    MAX_PORT,
    REQUIRED,
    Address,
    Section,
    as_address,
    as_ipvs_sysctls,
    plain,
)
from saltext.lvs.sections import Keepalived, one_of

T = TypeVar("T")

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
# RFC 3768 section 5.3.6: authentication data are eight bytes; keepalived cuts what is longer, with
# a warning. Within double quotes keepalived 2.2 reads any printable character but the quote itself,
# with three exceptions: "${" begins a variable, a backslash at the end hides the closing quote, and
# a brace alone closes the block.
_SOUND = r"(?!.*\$\{)(?![{}]\Z)[\x21\x23-\x7e]"
AUTH_PASS = _SOUND + r"{0,7}[\x21\x23-\x5b\x5d-\x7e]"
AUTH_PASS_OF_ANY_LENGTH = _SOUND + r"{0,255}[\x21\x23-\x5b\x5d-\x7e]"
# The marks of path checks: "lp", and below it a place for each name.
DEFAULT_FIRST_PATH_MARK = 0x6C700000
PATH_MARKS = 2**20


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


class ManagedBy(enum.Enum):
    """Who keeps a virtual server's part of the IPVS table; never both."""

    SALT = "salt"
    KEEPALIVED = "keepalived"


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
        reaches them, and keepalived checks them from it.

    vrrp_instances
        The VRRP instances as it has them: with its own state, priority and interface.

    keepalived
        keepalived's own keywords as it has them.
    """

    minion_id: str
    router_id: str
    state: VrrpState
    priority: int
    interface: str | None = None
    address: Address | None = None
    vrrp_instances: Mapping[str, VrrpInstance] = field(default_factory=dict)
    keepalived: Keepalived = field(default_factory=Keepalived)


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
class SyncDaemon:
    """Connection synchronization from the director that holds the VIPs to the others.

    vrrp_instance
        Whose master sends, while the others listen; without one, every director does both.

    syncid
        0 to 255; only daemons with the same number listen to each other.

    maxlen, port, ttl, group
        Bytes of a packet, UDP port, hops and multicast group, where they are not the kernel's.
    """

    interface: str
    vrrp_instance: str | None = None
    syncid: int = 0
    maxlen: int | None = None
    port: int | None = None
    ttl: int | None = None
    group: Address | None = None


# keepalived's checkers in their order: what kind each is, and its settings.
Checkers = tuple[tuple[str, Mapping[str, Any]], ...]


@dataclass(frozen=True, slots=True)
class SorryServer:
    """Who answers when too few real servers are left."""

    address: Address
    port: int


@dataclass(frozen=True, slots=True)
class RealServerShare:
    """A real server's part in one virtual server: its port there, its weight as configured, and its
    limits in connections.

    options
        By the keywords of :data:`saltext.lvs.grammar.REAL_SERVER`.

    checkers
        keepalived's, in place of the virtual server's; ``None`` where nothing is said.

    backup
        Whether it serves only while too few others do.
    """

    name: str
    port: int
    weight: int
    upper_threshold: int = 0
    lower_threshold: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    checkers: Checkers | None = None
    backup: bool = False


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

    key
        What makes it that one; of a group the first, see :attr:`keys`.

    address
        The VIP. A firewall mark may have one too: real servers must hold what its packets are sent
        to. A group has none of its own.

    group
        The addresses and ports, or the marks, that are one virtual server to keepalived.

    options
        By the keywords of :data:`saltext.lvs.grammar.VIRTUAL_SERVER`.

    checkers
        keepalived's, in place of what *check* asks for; ``None`` where nothing is said.

    on_failure, min_in_service, slow_start
        Limits for health checking: what becomes of a failed real server, the share of capacity that
        is never taken out automatically (0 to 1), and the seconds over which a returning one gets
        its weight back.

    notification_email
        Who is told of its real servers by mail, instead of those whom ``lvs:alerts`` names.
    """

    name: str
    key: VirtualServerKey
    address: Address | None
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
    group: tuple[Entry, ...] = ()
    sorry_server: SorryServer | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    checkers: Checkers | None = None
    notification_email: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[VirtualServerKey, ...]:
        """What it is in the kernel: one virtual server, of a group one for each address or mark."""
        protocol = self.key.protocol
        if not self.group:
            return (self.key,)
        return tuple(
            key
            for entry in self.group
            for key in (
                (VirtualServerKey(None, None, 0, entry.fwmark, entry.family),)
                if protocol is None
                else (VirtualServerKey.of(protocol, one, entry.port) for one in entry.addresses)
            )
        )

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Its VIPs, each once; none is known of a mark for which the pillar says none."""
        found = [self.address, *(one for entry in self.group for one in entry.addresses)]
        return tuple(dict.fromkeys(one for one in found if one is not None))

    @property
    def asked(self) -> tuple[CheckType, ...]:
        """How Salt checks its real servers; where the pillar says nothing of it, in all ways that
        need no more than their addresses. Nothing, where nothing can be asked.
        """
        if self.check.told:
            wanted = self.check.types
        elif self.checkers == ():
            return ()
        else:
            wanted = (CheckType.PATH, CheckType.TCP)
        return tuple(kind for kind in wanted if not self.against(kind))

    def against(self, kind: CheckType) -> str:
        """Why real servers cannot be checked in this way; empty where they can."""
        if kind is CheckType.PATH and self.forward is not Forward.DIRECT:
            return f"forward {self.forward.value} has no such check"
        if kind is CheckType.PATH and not self.addresses:
            return "no VIP is known of it"
        if kind is CheckType.EXEC or self.check.port:
            return ""
        if self.key.protocol not in (None, Protocol.TCP):
            return "the check is a TCP connection, and needs a port for it"
        ports = [key.port for key in self.keys]
        if kind is not CheckType.PATH and self.forward is Forward.MASQ:
            ports = [share.port for share in self.real_servers]
        return "" if any(ports) else "the virtual server has no port of its own"

    @property
    def quorum(self) -> int:
        """The weight in service below which it counts as down."""
        return int(self.options.get("quorum", 1))

    @property
    def hysteresis(self) -> int:
        """By how much more than :attr:`quorum` it comes up, and by how much less it goes down."""
        return int(self.options.get("hysteresis", 0))

    @property
    def checked_by_path(self) -> bool:
        """Whether keepalived checks its real servers the way that clients' packets go."""
        return self.managed_by is ManagedBy.KEEPALIVED and CheckType.PATH in self.check.types

    @property
    def scheduler_words(self) -> tuple[str, ...]:
        """Its scheduler's flags as keepalived spells them."""
        return scheduler_words(self.scheduler.value, self.scheduler_flags)

    @property
    def granularity(self) -> str:
        """Its netmask as keepalived wants it."""
        return netmask_text(self.netmask, self.key.family)


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

    path_marks
        The firewall marks, by real server, with which keepalived's checks go the way that clients'
        packets go: for each there is a virtual server of keepalived's own.

    ssl_password
        Of keepalived's own certificate, from ``lvs_secrets``. Left out of ``repr``.
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
    keepalived: Keepalived
    lookup: Mapping[str, Any]
    unused: tuple[str, ...] = ()
    path_marks: Mapping[str, int] = field(default_factory=dict)
    ssl_password: str | None = field(default=None, repr=False)

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
            vip
            for virtual_server in self.virtual_servers.values()
            if virtual_server.forward is not Forward.MASQ
            and any(share.name == real_server for share in virtual_server.real_servers)
            for vip in virtual_server.addresses
        }
        return tuple(ipaddress.ip_interface(vip) for vip in sorted(vips, key=_address_order))

    def vip_interface_of(self, real_server: str) -> str:
        """The interface on which a real server holds its VIPs."""
        own = self.real_servers.get(real_server)
        return (own.vip_interface if own else None) or self.vip_interface

    def table(self) -> dict[VirtualServerKey, VirtualServer]:
        """The IPVS table that every director should hold, without what keepalived keeps."""
        return {
            config.key: self.in_kernel(config)
            for config in self.virtual_servers.values()
            if config.managed_by is ManagedBy.SALT
        }

    def keepalived_keys(self) -> frozenset[VirtualServerKey]:
        """The virtual servers that keepalived keeps, and that nobody else may touch: those of the
        pillar, and those that its path checks go through.
        """
        named = {
            key
            for config in self.virtual_servers.values()
            if config.managed_by is ManagedBy.KEEPALIVED
            for key in config.keys
        }
        return frozenset(named.union(self.path_keys().values()))

    def path_keys(self) -> dict[str, VirtualServerKey]:
        """The virtual servers that keepalived's path checks go through, by real server."""
        return {
            name: VirtualServerKey(None, None, 0, mark, self.real_servers[name].address.version)
            for name, mark in self.path_marks.items()
        }

    def path_addresses(self, family: int) -> tuple[Address, ...]:
        """The real servers of an address family that keepalived checks through the VIP."""
        found = (self.real_servers[name].address for name in self.path_marks)
        return tuple(address for address in found if address.version == family)

    def in_kernel(self, config: VirtualServerConfig) -> VirtualServer:
        """A virtual server as the pillar wants it in the kernel."""
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
    yield from _held_by_nobody(cluster)
    yield from _unchecked(cluster)
    if cluster.unused:
        yield (
            "these have no effect, as they are words for another managed_by: "
            + ", ".join(cluster.unused)
        )


def _unchecked(cluster: Cluster) -> Iterable[str]:
    """Virtual servers whose real servers nobody asks, without the pillar's saying so."""
    for name, config in cluster.virtual_servers.items():
        ours = config.managed_by is ManagedBy.SALT
        if ours and config.real_servers and not config.check.told and not config.asked:
            reason = config.against(CheckType.TCP)
            yield (
                f"lvs:virtual_servers:{name}: its real servers are not checked: {reason}; give it "
                "check:port, or types: [exec] with a command"
            )


def _held_by_nobody(cluster: Cluster) -> Iterable[str]:
    """Virtual servers of keepalived's, which may know of VIPs that the pillar does not."""
    held = _held(cluster)
    for name, config in cluster.virtual_servers.items():
        missing = [str(vip) for vip in config.addresses if vip not in held]
        if config.managed_by is ManagedBy.KEEPALIVED and cluster.vrrp_instances and missing:
            yield (
                f"lvs:virtual_servers:{name}: no vrrp_instance holds {', '.join(missing)}: no "
                "director answers for it, unless somebody else brings it there"
            )


# keepalived's words that mean the same to Salt.
_OF_BOTH = ("quorum", "hysteresis")
# What is accepted and checked, but not acted on by who keeps the virtual server.
_WITHOUT_EFFECT = {
    ManagedBy.KEEPALIVED: ("min_in_service", "slow_start"),
    ManagedBy.SALT: (
        *(word for word in grammar.VIRTUAL_SERVER if word not in _OF_BOTH),
        "checkers",
        "extra",
    ),
}


class _Builder:
    """Reads the sections in the order of their dependence and gathers what is wrong in each."""

    def __init__(self, lvs: Any, secrets: Any) -> None:
        self.problems: list[InvalidConfig] = []
        self.unused: list[str] = []
        self.top = Section(lvs, "lvs")
        self.overrides: dict[str, dict[str, Override]] = {}
        self.own: dict[str, Keepalived] = {}
        self.stated: dict[str, VrrpState | None] = {}
        self.ssl_password: str | None = None
        self.passwords = self._tried(lambda: self._passwords(secrets)) or {}

    def build(self) -> Cluster:
        top = self.top
        name = self._tried(lambda: top.name("name", "lvs")) or ""
        directors = self._directors()
        real_servers = self._each(top, "real_servers", self._real_server)
        hypervisors = self._each(top, "hypervisors", self._hypervisor)
        vrrp_instances = self._each(top, "vrrp_instances", self._vrrp_instance)
        sync_daemon = self._tried(lambda: self._sync_daemon(vrrp_instances))
        template, keepalived, first_mark = self._tried(self._keepalived) or ("", Keepalived(), 1)
        self._expect_known(vrrp_instances)
        directors = self._as_each_has_it(directors, vrrp_instances, keepalived)
        self.directors, self.real_servers = directors, real_servers
        virtual_servers = self._each(top, "virtual_servers", self._virtual_server)
        alerts = self._tried(self._alerts) or Alerts()
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
            keepalived=keepalived,
            lookup=lookup,
            unused=tuple(self.unused),
            path_marks=_path_marks(virtual_servers, first_mark),
            ssl_password=self.ssl_password,
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
        self._keepalived_passwords(top.section("keepalived"))
        top.finish()
        return found

    def _keepalived_passwords(self, section: Section) -> None:
        ssl = section.section("ssl")
        if ssl.has("password"):
            self.ssl_password = ssl.secret(
                "password",
                AUTH_PASS_OF_ANY_LENGTH,
                "printable characters without space or double quote, without ${, no backslash at "
                "the end, and not a brace alone",
            )
        ssl.finish()
        section.finish()

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

    def _director(self, name: str, value: Any, path: str, preferred: int) -> Director:
        section = Section(value, path)
        self.stated[name] = (
            section.choice("state", VrrpState, VrrpState.BACKUP) if section.has("state") else None
        )
        director = Director(
            minion_id=name,
            router_id=section.name("router_id", name),
            state=self.stated[name] or VrrpState.BACKUP,
            priority=section.integer("priority", 1, MAX_PRIORITY, preferred),
            interface=section.interface("interface", "") or None,
            address=section.address("address") if section.has("address") else None,
        )
        self.overrides[name] = self._each(
            section,
            "vrrp_instances",
            lambda of, own, at: instances.read_override(of, Section(own, at)),
        )
        own = section.section("keepalived")
        self.own[name] = sections.read(own)
        own.finish()
        section.finish()
        return director

    def _expect_known(self, vrrp_instances: Mapping[str, VrrpInstance]) -> None:
        """No director has something of its own in an instance that is not there."""
        wrong = any(p.path.startswith("lvs:vrrp_instances") for p in self.problems)
        self.problems.extend(
            InvalidConfig(
                f"lvs:directors:{director}:vrrp_instances:{name}",
                name,
                one_of("a VRRP instance", vrrp_instances),
            )
            for director, own in self.overrides.items()
            for name in own
            if name not in vrrp_instances and not wrong
        )

    def _as_each_has_it(
        self,
        directors: Mapping[str, Director],
        shared: Mapping[str, VrrpInstance],
        keepalived: Keepalived,
    ) -> dict[str, Director]:
        """The directors with their own of what all have."""
        directors = {
            name: replace(
                director,
                keepalived=sections.laid_over(keepalived, self.own.get(name, Keepalived())),
            )
            for name, director in directors.items()
        }
        return {
            name: replace(
                director,
                vrrp_instances={
                    of: self._as_one_has_it(instance, director, directors)
                    for of, instance in shared.items()
                },
            )
            for name, director in directors.items()
        }

    def _as_one_has_it(
        self, instance: VrrpInstance, director: Director, directors: Mapping[str, Director]
    ) -> VrrpInstance:
        own = self._override(director.minion_id, instance.name)
        others = [other.address for other in directors.values() if other is not director]
        mine = instances.of_director(instance, own, director.interface, director.address, others)
        priorities = {
            name: self._override(name, instance.name).priority or other.priority
            for name, other in directors.items()
        }
        priority = priorities[director.minion_id]
        strict = demands.is_strict(mine, director.keepalived) and priority != MAX_PRIORITY
        highest = priority == max(priorities.values())
        preferred = highest and mine.may_begin_as_master and not strict
        state = own.state or instance.state or self.stated.get(director.minion_id)
        default = VrrpState.MASTER if preferred else VrrpState.BACKUP
        return replace(mine, priority=priority, state=state or default)

    def _override(self, director: str, instance: str) -> Override:
        return self.overrides.get(director, {}).get(instance, Override())

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
        return instances.read(name, Section(value, path), self.passwords.get(name))

    def _sync_daemon(self, vrrp_instances: Mapping[str, VrrpInstance]) -> SyncDaemon | None:
        if not self.top.has("sync_daemon"):
            return None
        section = self.top.section("sync_daemon")
        instance = section.name("vrrp_instance") if section.has("vrrp_instance") else None
        daemon = SyncDaemon(
            interface=section.interface("interface"),
            vrrp_instance=instance,
            syncid=section.integer("syncid", 0, 255, 0),
            maxlen=section.integer("maxlen", 1, 65507) if section.has("maxlen") else None,
            port=section.integer("port", 1, MAX_PORT) if section.has("port") else None,
            ttl=section.integer("ttl", 1, 255) if section.has("ttl") else None,
            group=section.address("group") if section.has("group") else None,
        )
        section.finish()
        if daemon.group is not None and not daemon.group.is_multicast:
            raise InvalidConfig(section.at("group"), str(daemon.group), "a multicast address")
        if instance is not None and instance not in vrrp_instances and not self.problems:
            raise InvalidConfig(
                section.at("vrrp_instance"), instance, one_of("a VRRP instance", vrrp_instances)
            )
        return daemon

    def _virtual_server(self, name: str, value: Any, path: str) -> VirtualServerConfig:
        section = Section(value, path)
        managed_by = section.choice("managed_by", ManagedBy, ManagedBy.SALT)
        persistence = section.integer("persistence", 0, MAX_PERSISTENCE_SECONDS, 0)
        group = self._group(section, managed_by)
        address = self._address(section, managed_by, group)
        key = self._key(section, address, group, persistence)
        forward = section.choice("forward", Forward, Forward.DIRECT, without=(Forward.LOCAL,))
        scheduler = section.choice("scheduler", Scheduler, Scheduler.WLC)
        checkers = _checkers(section)
        config = VirtualServerConfig(
            name=name,
            key=key,
            address=address,
            scheduler=scheduler,
            scheduler_flags=_scheduler_flags(section, scheduler),
            forward=forward,
            tunnel=_tunnel(section, forward),
            persistence=persistence,
            netmask=_netmask(section, key.family, persistence),
            persistence_engine=_persistence_engine(section, key, persistence),
            one_packet=_one_packet(section, key),
            managed_by=managed_by,
            check=self._check(section, forward, managed_by, key, address),
            on_failure=section.choice("on_failure", OnFailure, OnFailure.DRAIN),
            min_in_service=section.number("min_in_service", 0, 1, 0.5),
            slow_start=section.number("slow_start", 0, 3600, 0),
            real_servers=self._shares(section, key, forward, managed_by),
            group=group,
            sorry_server=_sorry_server(section, key, forward),
            options=grammar.read(section, {**grammar.VIRTUAL_SERVER, **grammar.EXTRA}),
            checkers=checkers,
            notification_email=alertwords.addresses(section, "notification_email"),
        )
        unused = _WITHOUT_EFFECT[managed_by]
        self.unused.extend(section.at(key) for key in unused if section.has(key))
        section.finish("a keyword of keepalived's, see docs/pillar.md")
        _expect_checkable(config, section)
        self._expect_sources(config, section)
        _expect_quorum(config, section)
        return config

    @staticmethod
    def _group(section: Section, managed_by: ManagedBy) -> tuple[Entry, ...]:
        if not section.has("group"):
            return ()
        if managed_by is not ManagedBy.KEEPALIVED:
            raise InvalidConfig(
                section.at("group"),
                section.raw("group"),
                "left out, or given with managed_by: keepalived",
            )
        for key in ("address", "port", "fwmark"):
            if section.has(key):
                raise InvalidConfig(
                    section.at(key), section.raw(key), "left out: the group stands in its place"
                )
        return groups.read(section.items_of("group"))

    @staticmethod
    def _address(
        section: Section, managed_by: ManagedBy, group: tuple[Entry, ...]
    ) -> Address | None:
        marked = section.has("fwmark") and managed_by is ManagedBy.KEEPALIVED
        if group or (marked and not section.has("address")):
            return None
        return section.address("address")

    def _key(
        self,
        section: Section,
        address: Address | None,
        group: tuple[Entry, ...],
        persistence: int,
    ) -> VirtualServerKey:
        """By protocol, VIP and port, or by a firewall mark in the place of all three."""
        if group:
            return _group_key(section, group, persistence)
        if address is not None and not section.has("fwmark"):
            # No other port than 0 means any; the kernel wants clients to stay then.
            any_port = persistence and section.raw("port") == 0
            port = 0 if any_port else section.integer("port", 1, MAX_PORT)
            return VirtualServerKey.of(
                section.choice("protocol", Protocol, Protocol.TCP), address, port
            )
        mark = section.integer("fwmark", 1, MAX_FWMARK)
        for key in ("port", "protocol"):
            if section.has(key):
                raise InvalidConfig(
                    section.at(key), section.raw(key), "left out: the fwmark stands in its place"
                )
        family = address.version if address is not None else self._family(section)
        return VirtualServerKey(None, None, 0, mark, family)

    def _family(self, section: Section) -> int:
        """The address family of a mark, as keepalived finds it: its own word, or real servers'."""
        if section.has("ip_family"):
            return 6 if section.raw("ip_family") == "inet6" else 4
        names = [name for name, _, _ in section.named("real_servers")]
        known = [self.real_servers[name] for name in names if name in self.real_servers]
        return known[0].address.version if known else 4

    def _check(
        self,
        parent: Section,
        forward: Forward,
        managed_by: ManagedBy,
        key: VirtualServerKey,
        address: Address | None,
    ) -> Check:
        section = parent.section("check")
        check = checkwords.read(section)
        keepalived = managed_by is ManagedBy.KEEPALIVED
        if keepalived:
            checkwords.expect_keepalived_can(section, check)
        if not check.told:
            types = self._types(forward, key, address, keepalived, parent.has("checkers"))
            return replace(check, types=types)
        if keepalived and CheckType.PATH in check.types:
            self._expect_path(section.at("types"), forward, key, address)
        return check

    def _types(
        self,
        forward: Forward,
        key: VirtualServerKey,
        address: Address | None,
        keepalived: bool,
        checkers: bool,
    ) -> tuple[CheckType, ...]:
        """How real servers are checked where the pillar says nothing of it."""
        if not keepalived:
            path = forward is Forward.DIRECT
        elif checkers:
            return ()
        else:
            path = not self._against_path(forward, key, address)
        return (CheckType.PATH, CheckType.TCP) if path else (CheckType.TCP,)

    def _against_path(
        self, forward: Forward, key: VirtualServerKey, address: Address | None
    ) -> str:
        """Why keepalived cannot check the way that clients' packets go; empty where it can."""
        if forward is not Forward.DIRECT:
            return f"forward {forward.value} has no such check"
        if address is None or key.protocol not in (None, Protocol.TCP):
            return "the check is a TCP connection to the virtual server's one address"
        lacking = [
            name
            for name, director in self.directors.items()
            if director.address is None or director.address.version != key.family
        ]
        if lacking or not self.directors:
            return (
                "each director needs an address of the VIP's family, which "
                f"lvs:directors:{', '.join(lacking) or '<id>'} has not"
            )
        return ""

    def _expect_sources(self, config: VirtualServerConfig, section: Section) -> None:
        """Checks come from an address of the real servers' family."""
        bindto = config.check.bindto
        if bindto is None:
            return
        for share in config.real_servers:
            known = self.real_servers.get(share.name)
            if known is not None and known.address.version != bindto.version:
                raise InvalidConfig(
                    f"{section.at('check')}:bindto",
                    str(bindto),
                    f"an IPv{known.address.version} address, like that of {share.name}",
                )

    def _expect_path(
        self, path: str, forward: Forward, key: VirtualServerKey, address: Address | None
    ) -> None:
        reason = self._against_path(forward, key, address)
        if reason:
            raise InvalidConfig(
                path, "path", f"tcp where keepalived keeps the virtual server: {reason}"
            )

    def _shares(
        self, parent: Section, of: VirtualServerKey, forward: Forward, managed_by: ManagedBy
    ) -> tuple[RealServerShare, ...]:
        return tuple(
            self._share(name, value, path, of, forward, managed_by)
            for name, value, path in parent.named("real_servers")
        )

    def _share(
        self,
        name: str,
        value: Any,
        path: str,
        of: VirtualServerKey,
        forward: Forward,
        managed_by: ManagedBy,
    ) -> RealServerShare:
        section = Section(value, path)
        upper = section.integer("upper_threshold", 0, MAX_THRESHOLD, 0)
        share = RealServerShare(
            name=name,
            port=section.integer("port", 1, MAX_PORT, of.port),
            weight=section.integer("weight", 0, MAX_WEIGHT, 1),
            upper_threshold=upper,
            lower_threshold=section.integer("lower_threshold", 0, upper, 0),
            options=grammar.read(section, {**grammar.REAL_SERVER, **grammar.EXTRA}),
            checkers=_checkers(section),
            backup=section.flag("backup", False),
        )
        if share.backup and managed_by is ManagedBy.KEEPALIVED:
            raise InvalidConfig(
                section.at("backup"), True, "left out: keepalived knows no backup real servers"
            )
        if managed_by is ManagedBy.SALT:
            keys = (*grammar.REAL_SERVER, "checkers", "extra")
            self.unused.extend(section.at(key) for key in keys if section.has(key))
        section.finish("a keyword of keepalived's, see docs/pillar.md")
        if of.fwmark and managed_by is ManagedBy.KEEPALIVED and share.port:
            raise InvalidConfig(
                section.at("port"), share.port, "left out: packets keep the port that they have"
            )
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
                raise InvalidConfig(path, name, one_of("a real server", self.real_servers))
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
        return alertwords.read(self.top.section("alerts"))

    def _keepalived(self) -> tuple[str, Keepalived, int]:
        section = self.top.section("keepalived")
        template = section.text(
            "template",
            r"(salt://|/)\S+",
            "a salt:// address or an absolute path of a Jinja2 template",
            "salt://lvs/files/keepalived.conf.jinja",
        )
        found = sections.read(section)
        first_mark = section.integer(
            "path_fwmarks", 1, MAX_FWMARK - PATH_MARKS, DEFAULT_FIRST_PATH_MARK
        )
        section.finish()
        return template, found, first_mark


def _group_key(section: Section, group: tuple[Entry, ...], persistence: int) -> VirtualServerKey:
    """The first of a group's."""
    first = group[0]
    if first.fwmark:
        if section.has("protocol"):
            raise InvalidConfig(
                section.at("protocol"),
                section.raw("protocol"),
                "left out: the fwmark stands in its place",
            )
        return VirtualServerKey(None, None, 0, first.fwmark, first.family)
    for entry in group:
        if not entry.port and not persistence:
            raise InvalidConfig(
                section.at("group"), entry.line, "addresses with a port, or with a persistence"
            )
    protocol = section.choice("protocol", Protocol, Protocol.TCP)
    return VirtualServerKey.of(protocol, first.addresses[0], first.port)


def _checkers(section: Section) -> Checkers | None:
    """keepalived's checkers; an empty list is none, where nothing said is the usual ones."""
    if not section.has("checkers"):
        return None
    kind = grammar.CHECKERS_KIND
    return tuple(kind.read(section.raw("checkers"), section.at("checkers")))


def _sorry_server(parent: Section, of: VirtualServerKey, forward: Forward) -> SorryServer | None:
    if not parent.has("sorry_server"):
        return None
    section = parent.section("sorry_server")
    found = SorryServer(section.address("address"), section.integer("port", 1, MAX_PORT, of.port))
    section.finish()
    own_method = parent.has("sorry_server_lvs_method")
    if forward is Forward.DIRECT and not own_method and found.port != of.port:
        raise InvalidConfig(section.at("port"), found.port, f"{of.port}, the virtual server's")
    if forward is not Forward.TUNNEL and found.address.version != of.family:
        raise InvalidConfig(
            section.at("address"), str(found.address), f"an IPv{of.family} address, like the VIP"
        )
    return found


def _expect_checkable(config: VirtualServerConfig, section: Section) -> None:
    """A real server can be asked as the pillar says."""
    if config.managed_by is ManagedBy.KEEPALIVED:
        _expect_keepalived_can_check(config, section)
        return
    for number, kind in enumerate(config.check.types if config.check.told else ()):
        if reason := config.against(kind):
            raise InvalidConfig(
                f"{section.at('check')}:types:{number}", kind.value, f"left out: {reason}"
            )


def _expect_keepalived_can_check(config: VirtualServerConfig, section: Section) -> None:
    """keepalived's own check of a real server needs a port."""
    ports = {share.port for share in config.real_servers if share.checkers is None}
    by_us = config.checkers is None and 0 in ports and config.key.protocol is not Protocol.SCTP
    if config.check.port:
        return
    if by_us or (config.checked_by_path and not config.key.port):
        raise InvalidConfig(
            f"{section.at('check')}:port",
            None,
            "the port to check: the virtual server has none of its own",
        )


def _expect_quorum(config: VirtualServerConfig, section: Section) -> None:
    """keepalived sets another quorum than one that nobody can reach, and complains."""
    quorum = config.quorum
    total = sum(share.weight for share in config.real_servers)
    if section.has("quorum") and total and quorum > total:
        raise InvalidConfig(
            section.at("quorum"), quorum, f"at most {total}, the weights of all real servers"
        )
    if config.hysteresis >= max(quorum, 1):
        raise InvalidConfig(
            section.at("hysteresis"), config.hysteresis, f"below the quorum, {quorum}"
        )


def _path_marks(virtual_servers: Mapping[str, VirtualServerConfig], first: int) -> dict[str, int]:
    """A mark for each real server that keepalived checks by path.

    One goes by the real server's name, so that it stays when others come and go, and steps aside
    from marks that the pillar uses.
    """
    names = {
        share.name
        for config in virtual_servers.values()
        if config.checked_by_path
        for share in config.real_servers
    }
    taken = set(_marks(virtual_servers))
    found: dict[str, int] = {}
    for name in sorted(names):
        mark = first + zlib.crc32(name.encode()) % PATH_MARKS
        while mark in taken:
            mark = first + (mark + 1 - first) % PATH_MARKS
        taken.add(mark)
        found[name] = mark
    return found


def _marks(virtual_servers: Mapping[str, VirtualServerConfig]) -> Iterable[int]:
    """The firewall marks that the pillar uses."""
    for config in virtual_servers.values():
        yield from (key.fwmark for key in config.keys)
        own = [share.checkers for share in config.real_servers]
        for checkers in (config.checkers, *own):
            yield from (settings.get("fwmark", 0) for _, settings in checkers or ())


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


def _netmask(section: Section, family: int, persistence: int) -> int:
    whole = WHOLE_PREFIX[family]
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


# --------------------------------------------------------------------------------------------------
# Relations between the parts


def _contradictions(cluster: Cluster, passwords: Mapping[str, str]) -> list[InvalidConfig]:
    """What is wrong between parts that are each right."""
    return [
        *_machines(cluster),
        *_directors_disagree(cluster),
        *_vrrp_clashes(cluster),
        *_keepalived_clashes(cluster),
        *_virtual_server_clashes(cluster),
        *_told_elsewhere(cluster),
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
        twice = real_server.address in seen and seen[real_server.address] in cluster.real_servers
        strangers = twice and not (
            real_server.minion or cluster.real_servers[seen[real_server.address]].minion
        )
        if real_server.address in seen and not strangers:
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
    said = cluster.keepalived.sections or cluster.keepalived.extra
    if directors and not (cluster.vrrp_instances or cluster.virtual_servers or said):
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
    seen: dict[str, None] = {}
    for name in cluster.vrrp_instances:
        for problem in _instance_disagrees(cluster, name):
            if str(problem) not in seen:
                seen[str(problem)] = None
                yield problem


def _instance_disagrees(cluster: Cluster, name: str) -> Iterable[InvalidConfig]:
    """What directors want to be in one instance; each wants one thing in most, so that a path may
    come up again and again.
    """
    by_priority: dict[int | None, str] = {}
    mine = {director: own.vrrp_instances[name] for director, own in cluster.directors.items()}
    highest = max((instance.priority or 0 for instance in mine.values()), default=0)
    for director, instance in mine.items():
        general = cluster.directors[director]
        place = f"lvs:directors:{director}"
        at = place if instance.priority == general.priority else f"{place}:vrrp_instances:{name}"
        if instance.priority in by_priority:
            yield InvalidConfig(
                f"{at}:priority",
                instance.priority,
                f"another than that of {by_priority[instance.priority]}, or nobody knows who "
                "should hold the VIPs",
            )
        by_priority.setdefault(instance.priority, director)
        if instance.state is not VrrpState.MASTER:
            continue
        at = place if general.state is VrrpState.MASTER else f"{place}:vrrp_instances:{name}"
        if cluster.vrrp_instances[name].state is VrrpState.MASTER:
            at = f"lvs:vrrp_instances:{name}"
        if (instance.priority or 0) < highest:
            yield InvalidConfig(
                f"{at}:state", "MASTER", "BACKUP: another director has a higher priority"
            )
        if instance.waits:
            yield InvalidConfig(
                f"{at}:state",
                "MASTER",
                f"BACKUP or left out, as {name} has nopreempt or preempt_delay: keepalived takes "
                "no other",
            )
        if demands.strict_master(instance, cluster.directors[director].keepalived):
            yield InvalidConfig(
                f"{at}:state",
                "MASTER",
                f"BACKUP or left out, as {name} is strict: there only priority "
                f"{MAX_PRIORITY}, the addresses' owner, starts as MASTER",
            )


def _vrrp_clashes(cluster: Cluster) -> Iterable[InvalidConfig]:
    routers: dict[tuple[str, int, int], str] = {}
    holders: dict[Address, str] = {}
    for name, instance in cluster.vrrp_instances.items():
        path = f"lvs:vrrp_instances:{name}"
        router = (instance.interface, instance.virtual_router_id, instance.family)
        # Different neighbours, or another group of them, tell two with one number apart.
        alone = instance.by_unicast or "mcast_dst_ip" in instance.options
        if router in routers and not alone:
            yield InvalidConfig(
                f"{path}:virtual_router_id",
                instance.virtual_router_id,
                f"another than that of {routers[router]}, which uses it on {instance.interface} "
                "too",
            )
        if not alone:
            routers.setdefault(router, name)
        for vip in instance.vips:
            if vip.ip in holders:
                key = (
                    "virtual_ipaddress"
                    if vip in instance.virtual_ipaddress
                    else "virtual_ipaddress_excluded"
                )
                yield InvalidConfig(
                    f"{path}:{key}",
                    str(vip.ip),
                    f"in one instance only; {holders[vip.ip]} has it too",
                )
            holders.setdefault(vip.ip, name)
        yield from _version_forbids(instance, cluster.keepalived.vrrp_version)
        if instance.unicast:
            yield from _no_neighbours(cluster, instance)


def _version_forbids(instance: VrrpInstance, default: int) -> Iterable[InvalidConfig]:
    version = instance.version(default)
    path = f"lvs:vrrp_instances:{instance.name}"
    why = "with IPv6, where VRRP is version 3" if instance.family == 6 else "with VRRP version 3"
    longest = instances.LONGEST_ADVERT_INT[version]
    if instance.advert_int > longest:
        yield InvalidConfig(f"{path}:advert_int", instance.advert_int, f"at most {longest:g} {why}")
    if version == 2 and instance.advert_int != int(instance.advert_int):
        yield InvalidConfig(
            f"{path}:advert_int",
            instance.advert_int,
            "whole seconds, or given with version: 3 on all directors",
        )
    if instance.family == 6 and instance.options.get("version") == 2:
        yield InvalidConfig(f"{path}:version", 2, "3 or left out: version 2 has no IPv6")
    if instance.auth_pass is not None and version == 3:
        why = "VRRP for IPv6 is version 3" if instance.family == 6 else "its version is 3"
        yield InvalidConfig(
            f"lvs_secrets:vrrp_instances:{instance.name}",
            MASK,
            f"left out: {why}, which knows no password (RFC 5798 section 9)",
        )


def _no_neighbours(cluster: Cluster, instance: VrrpInstance) -> Iterable[InvalidConfig]:
    """Directors of which the others do not know where they are."""
    for name, director in cluster.directors.items():
        own = director.vrrp_instances[instance.name].options
        known = director.address is not None and director.address.version == instance.family
        if not known and not ("unicast_src_ip" in own and "unicast_peer" in own):
            yield InvalidConfig(
                f"lvs:directors:{name}:address",
                None if director.address is None else str(director.address),
                f"its own IPv{instance.family} address: lvs:vrrp_instances:{instance.name} has "
                "unicast",
            )


def _keepalived_clashes(cluster: Cluster) -> Iterable[InvalidConfig]:
    seen: set[str] = set()
    kept = {
        name: config
        for name, config in cluster.virtual_servers.items()
        if config.managed_by is ManagedBy.KEEPALIVED
    }
    addresses = {name: str(server.address) for name, server in cluster.real_servers.items()}
    for director in cluster.directors.values():
        for problem in (
            *sections.dangling(director.keepalived, director.vrrp_instances),
            *_told_twice(cluster, director),
            *demands.of_sections(director.keepalived),
            *demands.of_instances(director, cluster.vrrp_instances),
            *demands.of_scripts(director, kept),
        ):
            if str(problem) not in seen:
                seen.add(str(problem))
                yield problem
    yield from sections.divided(
        cluster.keepalived,
        {name: director.vrrp_instances for name, director in cluster.directors.items()},
    )
    for name, config in cluster.virtual_servers.items():
        yield from _checkers_lead_nowhere(cluster, config, f"lvs:virtual_servers:{name}")
    for name, config in kept.items():
        yield from demands.of_virtual_server(config, f"lvs:virtual_servers:{name}", addresses)


def _told_elsewhere(cluster: Cluster) -> Iterable[InvalidConfig]:
    """keepalived mails all that it tells to the same persons."""
    if cluster.alerts.by is AlertsBy.KEEPALIVED:
        for name, config in cluster.virtual_servers.items():
            if config.notification_email:
                yield InvalidConfig(
                    f"lvs:virtual_servers:{name}:notification_email",
                    list(config.notification_email),
                    "left out, or lvs:alerts:by is salt: keepalived has one list for all",
                )


def _told_twice(cluster: Cluster, director: Director) -> Iterable[InvalidConfig]:
    told = director.keepalived.global_defs
    path = "lvs:keepalived:global_defs"
    if cluster.alerts.by is AlertsBy.KEEPALIVED:
        for keyword in sections.MAIL:
            if keyword in told:
                yield InvalidConfig(
                    f"{path}:{keyword}", told[keyword], f"left out: lvs:alerts:{keyword} says it"
                )
    if "lvs_timeouts" in told and cluster.ipvs.timeouts:
        yield InvalidConfig(
            f"{path}:lvs_timeouts",
            told["lvs_timeouts"],
            "left out, or lvs:ipvs:timeouts is: both set the same",
        )


def _checkers_lead_nowhere(
    cluster: Cluster, config: VirtualServerConfig, path: str
) -> Iterable[InvalidConfig]:
    """Checkers that read what no section defines."""
    wanted = {"FILE_CHECK": ("track_file", "track_file"), "BFD_CHECK": ("name", "track_bfd")}
    places = [(path, config.checkers)] + [
        (f"{path}:real_servers:{share.name}", share.checkers) for share in config.real_servers
    ]
    for place, checkers in places:
        for number, (kind, settings) in enumerate(checkers or ()):
            if kind not in wanted:
                continue
            key, tracked = wanted[kind]
            section, block = sections.TRACKED[tracked]
            known = cluster.keepalived.names(section, block)
            if settings.get(key) not in known:
                yield InvalidConfig(
                    f"{place}:checkers:{number}:{kind}:{key}",
                    settings.get(key),
                    one_of(f"an entry of lvs:keepalived:{section}", known),
                )


def _held(cluster: Cluster) -> frozenset[Address]:
    """The VIPs that directors hold, be it in turn or all of them always."""
    found = [vip.ip for instance in cluster.vrrp_instances.values() for vip in instance.vips]
    for line in cluster.keepalived.sections.get("static_ipaddress", ()):
        with contextlib.suppress(ValueError):
            found.append(ipaddress.ip_interface(line.split()[0]).ip)
    return frozenset(found)


def _virtual_server_clashes(cluster: Cluster) -> Iterable[InvalidConfig]:
    held = _held(cluster)
    own = {server.address: name for name, server in cluster.real_servers.items()}
    seen: dict[VirtualServerKey, str] = {}
    for name, config in cluster.virtual_servers.items():
        path = f"lvs:virtual_servers:{name}"
        for key in config.keys:
            if key in seen:
                yield InvalidConfig(
                    path,
                    str(key),
                    f"another protocol, address or port than those of {seen[key]}",
                )
            seen.setdefault(key, name)
        if config.managed_by is ManagedBy.KEEPALIVED and not _has_weight(config):
            yield InvalidConfig(
                f"{path}:real_servers",
                [share.name for share in config.real_servers],
                "at least one that has a weight above 0: keepalived 2.2 does not keep a virtual "
                "server without",
            )
        if config.real_servers and all(share.backup for share in config.real_servers):
            yield InvalidConfig(
                f"{path}:real_servers",
                [share.name for share in config.real_servers],
                "at least one that is no backup",
            )
        yield from _twice(cluster, config, path)
        yield from _sorry_among_them(cluster, config, path)
        ours = config.managed_by is ManagedBy.SALT
        for vip in config.addresses:
            if cluster.vrrp_instances and ours and vip not in held:
                yield InvalidConfig(
                    f"{path}:address",
                    str(vip),
                    "in some vrrp_instance's virtual_ipaddress, or no director answers for it",
                )
            if vip in own:
                yield InvalidConfig(
                    f"{path}:{'group' if config.group else 'address'}",
                    str(vip),
                    f"a VIP, not the own address of real server {own[vip]}",
                )
        ports = {entry.port for entry in config.group}
        if len(ports) > 1 and config.forward is not Forward.MASQ:
            yield InvalidConfig(
                f"{path}:group",
                [entry.line for entry in config.group],
                "of one port: only forward masq can change the port",
            )


def _twice(cluster: Cluster, config: VirtualServerConfig, path: str) -> Iterable[InvalidConfig]:
    """Machines that Salt does not run may share an address; the kernel still tells them apart by
    it.
    """
    seen: dict[tuple[Address, int], str] = {}
    for share in config.real_servers:
        own = cluster.real_servers[share.name]
        place = (own.address, share.port)
        if place in seen and not own.minion:
            yield InvalidConfig(
                f"{path}:real_servers:{share.name}",
                endpoint(*place),
                f"another address or port than those of {seen[place]}",
            )
        seen.setdefault(place, share.name)


def _sorry_among_them(
    cluster: Cluster, config: VirtualServerConfig, path: str
) -> Iterable[InvalidConfig]:
    """A real server that is the sorry server too would be taken out with what it stands in for."""
    sorry = config.sorry_server
    if sorry is None or config.managed_by is not ManagedBy.SALT:
        return
    for share in config.real_servers:
        address = cluster.real_servers[share.name].address
        if (address, share.port) == (sorry.address, sorry.port):
            yield InvalidConfig(
                f"{path}:sorry_server:address",
                str(address),
                f"another address than that of real server {share.name}, or it as a backup",
            )


def _has_weight(config: VirtualServerConfig) -> bool:
    return any(share.weight for share in config.real_servers)


def _misplaced_passwords(cluster: Cluster, passwords: Mapping[str, str]) -> Iterable[InvalidConfig]:
    for name in passwords:
        if name not in cluster.vrrp_instances:
            yield InvalidConfig(
                f"lvs_secrets:vrrp_instances:{name}",
                MASK,
                one_of("a VRRP instance", cluster.vrrp_instances),
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
