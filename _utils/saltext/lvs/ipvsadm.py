"""ipvsadm's own notation: the text that ``ipvsadm -S -n`` writes and ``ipvsadm -R`` takes.

:func:`read` and :func:`write` turn that text into virtual servers and back, :func:`listing` writes
what ``ipvsadm -L -n`` shows, and :func:`virtual_server_key` and :func:`real_server_key` read single
addresses. What is said of ipvsadm here is what version 1.31 does; its manual is wrong in places.
"""

from __future__ import annotations

import enum
import ipaddress
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from saltext.lvs.errors import InvalidConfig
from saltext.lvs.model import (
    CHECKSUMS_OF,
    MAX_FWMARK,
    MAX_PERSISTENCE_SECONDS,
    MAX_PORT,
    MAX_THRESHOLD,
    SCHEDULER_FLAGS,
    WHOLE_PREFIX,
    Address,
    Forward,
    Protocol,
    RealServer,
    RealServerKey,
    Scheduler,
    TunnelChecksum,
    TunnelType,
    VirtualServer,
    VirtualServerKey,
    endpoint,
    in_order,
    netmask_text,
    scheduler_words,
)
from saltext.lvs.reading import port_number, split_endpoint
from saltext.lvs.table import HEAVIEST, MODULE_NAME, settled

# Makes the error of what would be right.
Fault = Callable[[str], InvalidConfig]
# The number of a service's port, as socket.getservbyname: raises OSError for an unknown one.
PortOf = Callable[[str, str], int]

# Of a bare -p: IPVS_SVC_PERSISTENT_TIMEOUT in ipvsadm's source. Its manual says 300.
BARE_PERSISTENCE_SECONDS = 360

FORWARD_OPTIONS = {Forward.DIRECT: "-g", Forward.TUNNEL: "-i", Forward.MASQ: "-m"}
FORWARD_NAMES = {
    Forward.DIRECT: "Route",
    Forward.TUNNEL: "Tunnel",
    Forward.MASQ: "Masq",
    Forward.LOCAL: "Local",
}
PROTOCOL_OPTIONS = {Protocol.TCP: "-t", Protocol.UDP: "-u", Protocol.SCTP: "--sctp-service"}

ENDPOINT = "ADDRESS:PORT such as 10.10.10.10:80 or [fd00::10]:80, without names of hosts"
SERVICE_OPTIONS = "-t, -u, --sctp-service or -f"


# --------------------------------------------------------------------------------------------------
# Addresses


def virtual_server_key(
    protocol: object, address: object, port_of: PortOf = socket.getservbyname
) -> VirtualServerKey:
    """The virtual server that a protocol and an address in ipvsadm's notation mean.

    protocol
        ``tcp``, ``udp``, ``sctp`` or ``fwmark``.

    address
        ``ADDRESS:PORT``, or a firewall mark: a number, or ``7 -6`` for IPv6.

    Raises :class:`InvalidConfig` with the path ``protocol`` or ``service_address``.
    """
    fault = partial(InvalidConfig, "service_address", address)
    if protocol == "fwmark":
        return _fwmark_key(_word(address), fault)
    for known in Protocol:
        if protocol == known.value:
            return _address_key(known, _word(address), port_of, fault)
    raise InvalidConfig("protocol", protocol, "tcp, udp, sctp or fwmark")


def real_server_key(
    address: object, of: VirtualServerKey, port_of: PortOf = socket.getservbyname
) -> RealServerKey:
    """The real server that an address in ipvsadm's notation means; without a port, its virtual
    server's is taken.

    Raises :class:`InvalidConfig` with the path ``server_address``.
    """
    return _real_server_key(
        _word(address), of, port_of, partial(InvalidConfig, "server_address", address)
    )


def find(server: VirtualServer, key: RealServerKey) -> RealServer | None:
    """The real server that an address means in a virtual server: the one that has it, or else one
    that could not have another port (see :func:`saltext.lvs.table.settled`).
    """
    there = {real.key: real for real in server.real_servers}
    if key in there:
        return there[key]
    real = there.get(settled(key, Forward.DIRECT, server.key))
    return real if real and real.forward is not Forward.MASQ else None


def _word(value: object) -> str:
    # A firewall mark is a number in YAML and on Salt's command line.
    return str(value) if type(value) in (str, int) else ""


def _fwmark_key(text: str, fault: Fault) -> VirtualServerKey:
    found = re.fullmatch(r"(-?[0-9]{1,10})( -6)?", text.strip())
    # ipvsadm prints marks above 2**31 as negative numbers.
    mark = int(found[1]) % 2**32 if found and int(found[1]) >= -(2**31) else 0
    if not found or not mark or int(found[1]) > MAX_FWMARK:
        raise fault(f"a firewall mark from 1 to {MAX_FWMARK}")
    return VirtualServerKey(None, None, 0, mark, 6 if found[2] else 4)


def _address_key(protocol: Protocol, text: str, port_of: PortOf, fault: Fault) -> VirtualServerKey:
    address, port = _endpoint(text, protocol, port_of, fault)
    return VirtualServerKey.of(protocol, address, port or 0)


def _real_server_key(
    text: str, of: VirtualServerKey, port_of: PortOf, fault: Fault
) -> RealServerKey:
    address, port = _endpoint(text, of.protocol or Protocol.TCP, port_of, fault)
    return RealServerKey(address, of.port if port is None else port)


def _endpoint(
    text: str, protocol: Protocol, port_of: PortOf, fault: Fault
) -> tuple[Address, int | None]:
    """An address, and its port if one is given."""
    try:
        _, address, port = split_endpoint(text)
    except ValueError:
        raise fault(ENDPOINT) from None
    number = None if port is None else _port(port, protocol, port_of, fault)
    return ipaddress.ip_address(address), number


def _port(text: str, protocol: Protocol, port_of: PortOf, fault: Fault) -> int:
    with suppress(ValueError):
        return port_number(text)
    try:
        return port_of(text, protocol.value)
    except OSError:
        known = f"the name of a service that this machine knows for {protocol.value}"
        raise fault(f"ADDRESS:PORT with a port from 0 to {MAX_PORT}, or {known}") from None


# --------------------------------------------------------------------------------------------------
# The options of a line


class _Value(enum.Enum):
    NONE = enum.auto()
    OPTIONAL = enum.auto()
    REQUIRED = enum.auto()


@dataclass(frozen=True)
class _Option:
    """An option of ipvsadm; of those with the same role a line has one."""

    short: str
    role: str
    value: _Value = _Value.NONE


_OPTIONS = {
    "add-service": _Option("A", "command"),
    "edit-service": _Option("E", "command"),
    "add-server": _Option("a", "command"),
    "edit-server": _Option("e", "command"),
    "tcp-service": _Option("t", "service", _Value.REQUIRED),
    "udp-service": _Option("u", "service", _Value.REQUIRED),
    "sctp-service": _Option("", "service", _Value.REQUIRED),
    "fwmark-service": _Option("f", "service", _Value.REQUIRED),
    "ipv6": _Option("6", "ipv6"),
    "scheduler": _Option("s", "scheduler", _Value.REQUIRED),
    "persistent": _Option("p", "persistence", _Value.OPTIONAL),
    "netmask": _Option("M", "netmask", _Value.REQUIRED),
    "ops": _Option("o", "one packet"),
    "pe": _Option("", "persistence engine", _Value.REQUIRED),
    "sched-flags": _Option("b", "flags", _Value.REQUIRED),
    "real-server": _Option("r", "real server", _Value.REQUIRED),
    "gatewaying": _Option("g", "forward"),
    "ipip": _Option("i", "forward"),
    "masquerading": _Option("m", "forward"),
    "weight": _Option("w", "weight", _Value.REQUIRED),
    "u-threshold": _Option("x", "upper threshold", _Value.REQUIRED),
    "l-threshold": _Option("y", "lower threshold", _Value.REQUIRED),
    "tun-type": _Option("", "tunnel type", _Value.REQUIRED),
    "tun-port": _Option("", "tunnel port", _Value.REQUIRED),
    "tun-nocsum": _Option("", "tunnel checksum"),
    "tun-csum": _Option("", "tunnel checksum"),
    "tun-remcsum": _Option("", "tunnel checksum"),
}
_LONG_NAMES = {option.short: name for name, option in _OPTIONS.items() if option.short}
_PROTOCOLS = {f"{protocol.value}-service": protocol for protocol in Protocol}
_FORWARDS = {
    "gatewaying": Forward.DIRECT,
    "ipip": Forward.TUNNEL,
    "masquerading": Forward.MASQ,
}
_CHECKSUMS = {
    "tun-nocsum": TunnelChecksum.NONE,
    "tun-csum": TunnelChecksum.FULL,
    "tun-remcsum": TunnelChecksum.REMOTE,
}
_OF_ALL = {"command", "service", "ipv6"}
_OF_VIRTUAL_SERVERS = _OF_ALL | {
    "scheduler",
    "persistence",
    "netmask",
    "one packet",
    "persistence engine",
    "flags",
}
_OF_REAL_SERVERS = _OF_ALL | {
    "real server",
    "forward",
    "weight",
    "upper threshold",
    "lower threshold",
    "tunnel type",
    "tunnel port",
    "tunnel checksum",
}


class _Line:
    """One line of the text: its command, and its options by their role."""

    def __init__(self, words: list[str], fault: Fault, port_of: PortOf) -> None:
        self.fault = fault
        self.port_of = port_of
        self._given: dict[str, tuple[str, str]] = {}
        for name, value in _options(words, fault):
            role = _OPTIONS[name].role
            if not self._given and role != "command":
                raise fault("one that begins with -A, -E, -a or -e")
            if role in self._given:
                earlier = _shown(self._given[role][0])
                raise fault(f"one without {_shown(name)} after {earlier}: one {role} is enough")
            self._given[role] = (name, value)
        self.command = self._given["command"][0]
        self.of_real_server = self.command.endswith("-server")
        allowed = _OF_REAL_SERVERS if self.of_real_server else _OF_VIRTUAL_SERVERS
        for role, (name, _) in self._given.items():
            if role not in allowed:
                raise fault(f"one without {_shown(name)}, which {_shown(self.command)} has not")

    def has(self, role: str) -> bool:
        return role in self._given

    def option(self, role: str) -> str:
        """The long name of the option that was given, or nothing."""
        return self._given.get(role, ("", ""))[0]

    def value(self, role: str) -> str:
        return self._given.get(role, ("", ""))[1]

    def wrong(self, role: str) -> Fault:
        """Errors about one option."""
        return lambda expected: self.fault(
            f"one whose {_shown(self.option(role))} is {expected}, not {self.value(role)!r}"
        )

    def number(self, role: str, low: int, high: int, default: int) -> int:
        if not self.has(role):
            return default
        text = self.value(role)
        if not re.fullmatch(r"[0-9]{1,10}", text) or not low <= int(text) <= high:
            raise self.wrong(role)(f"a whole number from {low} to {high}")
        return int(text)

    def name(self, role: str, default: str) -> str:
        """The name of a kernel module, without its prefix."""
        value = self.value(role) if self.has(role) else default
        if value != default and not re.fullmatch(MODULE_NAME, value):
            raise self.wrong(role)("a name of at most 15 small letters, digits, _ and -")
        return value


def _shown(name: str) -> str:
    option = _OPTIONS[name]
    return f"-{option.short}" if option.short else f"--{name}"


def _options(words: Iterable[str], fault: Fault) -> Iterator[tuple[str, str]]:
    """The options with their values, in all spellings that popt knows: ``-t X``, ``-tX``,
    ``-At X``, ``--tcp-service X`` and ``--tcp-service=X``.
    """
    rest = list(words)
    while rest:
        name, attached = _name(rest.pop(0), fault)
        takes = _OPTIONS[name].value
        if takes is _Value.NONE:
            if attached.startswith("="):
                raise fault(f"one whose {_shown(name)} has no value")
            if attached:
                rest.insert(0, f"-{attached}")
            yield name, ""
        elif attached:
            yield name, attached.removeprefix("=")
        elif rest and (takes is _Value.REQUIRED or not rest[0].startswith("-")):
            yield name, rest.pop(0)
        elif takes is _Value.OPTIONAL:
            yield name, ""
        else:
            raise fault(f"one whose {_shown(name)} has a value")


def _name(word: str, fault: Fault) -> tuple[str, str]:
    """The long name of the option in a word, and what is attached to it."""
    if not re.match("-.", word):
        raise fault(f"one without {word!r}, which belongs to no option")
    if word.startswith("--"):
        name, equals, value = word[2:].partition("=")
        attached = equals + value
    else:
        name, attached = _LONG_NAMES.get(word[1], ""), word[2:]
    if name not in _OPTIONS:
        raise fault(f"one without {word}: only lines of -A, -E, -a and -e describe a table")
    return name, attached


# --------------------------------------------------------------------------------------------------
# Read


def read(text: str, port_of: PortOf = socket.getservbyname) -> tuple[VirtualServer, ...]:
    """The virtual servers that a text describes, in its order, as ``ipvsadm -R`` would make them in
    an empty table.

    Empty lines are passed over, and so are comments (lines that begin with ``#``), of which ipvsadm
    itself knows nothing. Options may come in any order. What ipvsadm leaves out, it means as its
    manual says, but for a bare ``-p``. IPv4 netmasks must be such as a prefix can express.

    port_of
        Knows the ports of services by name and protocol.

    Raises :class:`InvalidConfig` for all lines that are wrong, each with a path such as ``line 3``,
    the line and what would be right.
    """
    table: _Drafts = {}
    problems: list[InvalidConfig] = []
    for number, written in enumerate(text.split("\n"), 1):
        words = written.split()
        if words[:1] == ["ipvsadm"]:
            del words[0]
        if not words or words[0].startswith("#"):
            continue
        fault = partial(InvalidConfig, f"line {number}", written.strip())
        try:
            _carry_out(_Line(words, fault, port_of), table, broken=bool(problems))
        except InvalidConfig as error:
            problems.append(error)
    if problems:
        raise InvalidConfig.of(problems)
    return tuple(
        replace(draft.settings, real_servers=in_order(draft.real_servers.values()))
        for draft in table.values()
    )


@dataclass
class _Draft:
    """A virtual server about which more lines may come."""

    settings: VirtualServer
    real_servers: dict[RealServerKey, RealServer]


_Drafts = dict[VirtualServerKey, _Draft]


def _carry_out(line: _Line, table: _Drafts, *, broken: bool) -> None:
    """Do to a table what a line says; *broken* when earlier lines were wrong."""
    key = _key_of(line)
    current = table.get(key)
    if line.command == "add-service":
        if current:
            raise line.fault(f"one for another virtual server: there is {key} already")
        table[key] = _Draft(_virtual_server(line, key), {})
    elif current is None:
        # If a line was wrong, the missing one may be just that.
        if not broken:
            raise line.fault(f"behind a line that adds {key} with -A")
    elif line.of_real_server:
        _carry_out_real_server(line, current)
    else:
        current.settings = _virtual_server(line, key)


def _key_of(line: _Line) -> VirtualServerKey:
    option = line.option("service")
    if not option:
        raise line.fault(f"one with {SERVICE_OPTIONS}")
    if option == "fwmark-service":
        key = _fwmark_key(line.value("service"), line.wrong("service"))
        return replace(key, family=6) if line.has("ipv6") else key
    if line.has("ipv6"):
        raise line.fault("one without -6, which is for firewall marks")
    protocol = _PROTOCOLS[option]
    return _address_key(protocol, line.value("service"), line.port_of, line.wrong("service"))


def _virtual_server(line: _Line, key: VirtualServerKey) -> VirtualServer:
    scheduler = line.name("scheduler", Scheduler.WLC.value)
    server = VirtualServer(
        key=key,
        scheduler=scheduler,
        persistence=_persistence(line),
        netmask=_netmask(line, key),
        one_packet=line.has("one packet"),
        scheduler_flags=_flags(line, scheduler),
        persistence_engine=line.name("persistence engine", ""),
    )
    if key.protocol and not key.port and not server.persistence:
        raise line.fault("one with a port, or with -p: only persistence may be for all ports")
    if server.one_packet and key.protocol not in (Protocol.UDP, None):
        raise line.fault("one without -o, which is for udp and firewall marks")
    return server


def _persistence(line: _Line) -> int:
    if line.has("persistence") and not line.value("persistence"):
        return BARE_PERSISTENCE_SECONDS
    return line.number("persistence", 1, MAX_PERSISTENCE_SECONDS, 0)


def _netmask(line: _Line, key: VirtualServerKey) -> int:
    whole = WHOLE_PREFIX[key.family]
    if key.family == 6:
        return line.number("netmask", 1, whole, whole)
    if not line.has("netmask"):
        return whole
    expected = "a mask such as 255.255.255.0, its ones before its noughts"
    try:
        mask = int(ipaddress.IPv4Address(line.value("netmask")))
    except ValueError:
        raise line.wrong("netmask")(expected) from None
    length = mask.bit_count()
    if mask != (2**32 - 1) ^ (2 ** (32 - length) - 1):
        raise line.wrong("netmask")(expected)
    return length


def _flags(line: _Line, scheduler: str) -> int:
    # The words of any scheduler, and its own.
    known = {
        word: bit
        for whose in ("", scheduler)
        for bit in SCHEDULER_FLAGS.values()
        for word in scheduler_words(whose, bit)
    }
    flags = 0
    for name in line.value("flags").split(","):
        if name and name not in known:
            raise line.wrong("flags")(f"made of {', '.join(known)} (for -s {scheduler})")
        flags |= known.get(name, 0)
    return flags


def _carry_out_real_server(line: _Line, draft: _Draft) -> None:
    key, adds = draft.settings.key, line.command == "add-server"
    server = _real_server(line, key)
    if (server.key in draft.real_servers) is adds:
        known = "has it already" if adds else "has none such before this line"
        raise line.fault(f"one for another real server: {key} {known}")
    draft.real_servers[server.key] = server


def _real_server(line: _Line, of: VirtualServerKey) -> RealServer:
    if not line.has("real server"):
        raise line.fault("one with -r")
    wrong = line.wrong("real server")
    key = _real_server_key(line.value("real server"), of, line.port_of, wrong)
    forward = _FORWARDS.get(line.option("forward"), Forward.DIRECT)
    if forward is not Forward.TUNNEL and key.address.version != of.family:
        raise line.fault(f"one with -i, or with an IPv{of.family} address behind -r")
    tunnel_type, tunnel_port, tunnel_checksum = _tunnel(line, forward)
    upper = line.number("upper threshold", 0, MAX_THRESHOLD, 0)
    return RealServer(
        key=settled(key, forward, of),
        forward=forward,
        weight=line.number("weight", 0, HEAVIEST, 1),
        upper_threshold=upper,
        lower_threshold=line.number("lower threshold", 0, upper, 0),
        tunnel_type=tunnel_type,
        tunnel_port=tunnel_port,
        tunnel_checksum=tunnel_checksum,
    )


def _tunnel(line: _Line, forward: Forward) -> tuple[TunnelType, int, TunnelChecksum]:
    roles = ("tunnel type", "tunnel port", "tunnel checksum")
    given = [line.option(role) for role in roles if line.has(role)]
    if given and forward is not Forward.TUNNEL:
        raise line.fault(f"one with -i, or without --{given[0]}")
    words = {kind.value: kind for kind in TunnelType}
    kind = words.get(line.value("tunnel type") or TunnelType.IPIP.value)
    if kind is None:
        raise line.wrong("tunnel type")(f"one of {', '.join(words)}")
    if line.has("tunnel port") is not (kind is TunnelType.GUE):
        need = "with" if kind is TunnelType.GUE else "without"
        raise line.fault(f"one {need} --tun-port, as its tunnel is of type {kind.value}")
    checksum = _CHECKSUMS.get(line.option("tunnel checksum"), TunnelChecksum.NONE)
    bare = kind is TunnelType.IPIP and line.has("tunnel checksum")
    if bare or checksum not in CHECKSUMS_OF[kind]:
        option = line.option("tunnel checksum")
        raise line.fault(f"one without --{option}, as its tunnel is of type {kind.value}")
    return kind, line.number("tunnel port", 1, MAX_PORT, 0), checksum


# --------------------------------------------------------------------------------------------------
# Write


def write(servers: Iterable[VirtualServer]) -> str:
    """Virtual servers as ``ipvsadm -S -n`` writes them, a line each, and in the same order.

    What ipvsadm keeps to itself is written too, so that :func:`read` gives the same table:
    thresholds (``-x``, ``-y``), netmasks without persistence, ``flag-3`` of sh and mh. A real
    server on this machine itself (``local``) is written as ``-g``, as ipvsadm does: the kernel
    knows its own addresses.
    """
    return "".join(f"{line}\n" for server in _as_listed(servers) for line in _written(server))


def _as_listed(servers: Iterable[VirtualServer]) -> list[VirtualServer]:
    return sorted(servers, key=lambda server: _order(server.key))


def _order(key: VirtualServerKey) -> tuple[int, int, int, bytes, int]:
    """As ipvsadm sorts, but for addresses that differ by 128.0.0.0 or more, where it errs."""
    protocol = list(Protocol).index(key.protocol) if key.protocol else 0
    address = key.address.packed if key.address else b""
    return (key.fwmark, key.family, protocol, address, key.port)


def _written(server: VirtualServer) -> Iterator[str]:
    service = _service(server.key)
    words = [f"-A {service} -s {server.scheduler}"]
    if server.persistence:
        words.append(f"-p {server.persistence}")
    if _netmask_tells(server):
        words.append(f"-M {netmask_text(server.netmask, server.key.family)}")
    if server.persistence_engine:
        words.append(f"--pe {server.persistence_engine}")
    if server.one_packet:
        words.append("-o")
    if server.scheduler_flags:
        words.append(f"-b {_flags_text(server)}")
    yield " ".join(words)
    for real in server.real_servers:
        yield f"-a {service} {_real_server_options(real)}"


def _service(key: VirtualServerKey) -> str:
    if key.protocol is None:
        return f"-f {key.fwmark}" + (" -6" if key.family == 6 else "")
    return f"{PROTOCOL_OPTIONS[key.protocol]} {endpoint(key.address, key.port)}"


def _netmask_tells(server: VirtualServer) -> bool:
    return server.netmask != WHOLE_PREFIX[server.key.family]


def _flags_text(server: VirtualServer) -> str:
    return ",".join(scheduler_words(server.scheduler, server.scheduler_flags))


def _real_server_options(real: RealServer) -> str:
    forward = FORWARD_OPTIONS.get(real.forward, "-g")
    words = [f"-r {real.key} {forward} -w {real.weight}"]
    if real.upper_threshold:
        words.append(f"-x {real.upper_threshold}")
    if real.lower_threshold:
        words.append(f"-y {real.lower_threshold}")
    if real.forward is Forward.TUNNEL:
        words.append(f"--tun-type {real.tunnel_type.value}")
        if real.tunnel_type is TunnelType.GUE:
            words.append(f"--tun-port {real.tunnel_port}")
        if real.tunnel_type is not TunnelType.IPIP:
            options = {checksum: option for option, checksum in _CHECKSUMS.items()}
            words.append(f"--{options[real.tunnel_checksum]}")
    return " ".join(words)


LISTING_HEAD = (
    "Prot LocalAddress:Port Scheduler Flags",
    "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn",
)


def listing(
    servers: Iterable[VirtualServer],
    connections: Mapping[tuple[VirtualServerKey, RealServerKey], tuple[int, int]],
) -> str:
    """Virtual servers as ``ipvsadm -L -n`` shows them, without its first line.

    connections
        The active and the inactive ones of each real server; one that is missing has none.
    """
    lines = [*LISTING_HEAD]
    for server in _as_listed(servers):
        lines.append(_listed(server))
        for real in server.real_servers:
            active, inactive = connections.get((server.key, real.key), (0, 0))
            lines.append(
                f"  -> {real.key!s:<28} {FORWARD_NAMES[real.forward]:<7} {real.weight:<6} "
                f"{active:<10} {inactive:<10}"
            )
    return "".join(f"{line}\n" for line in lines)


def _listed(server: VirtualServer) -> str:
    key = server.key
    if key.protocol is None:
        words = [f"FWM  {key.fwmark}" + (" IPv6" if key.family == 6 else "")]
    else:
        words = [f"{key.protocol.value.upper():<4} {endpoint(key.address, key.port)}"]
    words.append(server.scheduler)
    if server.scheduler_flags:
        words.append(f"({_flags_text(server)})")
    if server.persistence:
        words.append(f"persistent {server.persistence}")
        if _netmask_tells(server):
            words.append(f"mask {netmask_text(server.netmask, key.family)}")
        if server.persistence_engine:
            words.append(f"pe {server.persistence_engine}")
    if server.one_packet:
        words.append("ops")
    return " ".join(words)
