"""The keywords of keepalived.conf that the pillar may use by their own names: what each takes, and
how it is written.

A table lists the keywords of one block, in the order in which they are written. :func:`read` checks
a mapping of the pillar against a table, :func:`lines` makes the block's lines of what was read.
What is here is in keepalived.conf(5) of keepalived 2.2; what is not, a pillar says in ``extra``,
see :mod:`saltext.lvs.keywords`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from saltext.lvs import keywords
from saltext.lvs.errors import InvalidConfig
from saltext.lvs.reading import MAX_PORT, Section, as_address
from saltext.lvs.reading import Address as IPAddress

INDENT = "    "
Table = Mapping[str, "Kind"]
Options = Mapping[str, Any]


class Kind(Protocol):
    """What a keyword takes."""

    def read(self, value: Any, path: str) -> Any:
        """A pillar's value, checked, as a plain value; raises InvalidConfig."""

    def lines(self, keyword: str, value: Any) -> Iterable[str]:
        """The lines for what :meth:`read` returned."""

    @property
    def takes(self) -> str:
        """What it takes, in words: for errors, and for the reference of the pillar."""


def read(section: Section, table: Table) -> dict[str, Any]:
    """Return those keywords of a table that a section has, checked, in the table's order.

    Raises :class:`~saltext.lvs.errors.InvalidConfig` for the first that is wrong.
    """
    return {
        keyword: kind.read(section.raw(keyword), section.at(keyword))
        for keyword, kind in table.items()
        if section.has(keyword)
    }


def lines(options: Options, table: Table) -> list[str]:
    """Return the lines for what :func:`read` returned, without indentation."""
    return [
        line
        for keyword, kind in table.items()
        if keyword in options
        for line in kind.lines(keyword, options[keyword])
    ]


# --------------------------------------------------------------------------------------------------
# Kinds


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number."""

    low: int
    high: int

    def read(self, value: Any, path: str) -> int:
        if type(value) is int and self.low <= value <= self.high:
            return value
        raise InvalidConfig(path, value, self.takes)

    @property
    def takes(self) -> str:
        return f"a whole number from {self.low} to {self.high}"

    def lines(self, keyword: str, value: int) -> list[str]:
        return [f"{keyword} {value}"]


@dataclass(frozen=True, slots=True)
class Seconds:
    """A time in seconds, with fractions up to microseconds, which is what keepalived counts in."""

    low: float
    high: float

    def read(self, value: Any, path: str) -> float:
        if type(value) in (int, float) and self.low <= (rounded := round(value, 6)) <= self.high:
            return float(rounded)
        raise InvalidConfig(path, value, self.takes)

    @property
    def takes(self) -> str:
        return f"seconds from {number(self.low)} to {number(self.high)}"

    def lines(self, keyword: str, value: float) -> list[str]:
        return [f"{keyword} {number(value)}"]


def number(value: float) -> str:
    """A number as people write it: 10, not 10.0; and never 1e-06, which keepalived cannot read."""
    return f"{value:.6f}".rstrip("0").removesuffix(".")


@dataclass(frozen=True, slots=True)
class WholeSeconds(Whole):
    """A time in seconds, without fractions."""

    @property
    def takes(self) -> str:
        return f"whole seconds from {self.low} to {self.high}"


@dataclass(frozen=True, slots=True)
class Flag:
    """A keyword that stands alone, or is not there."""

    def read(self, value: Any, path: str) -> bool:
        if type(value) is bool:
            return value
        raise InvalidConfig(path, value, self.takes)

    @property
    def takes(self) -> str:
        return "True or False"

    def lines(self, keyword: str, value: bool) -> list[str]:
        return [keyword] if value else []


@dataclass(frozen=True, slots=True)
class Switch(Flag):
    """A keyword that takes on and off, so that both can be said."""

    def lines(self, keyword: str, value: bool) -> list[str]:
        return [f"{keyword} {'on' if value else 'off'}"]


@dataclass(frozen=True, slots=True)
class Text:
    """The rest of a line as it stands: words, and "words in quotes"."""

    def read(self, value: Any, path: str) -> str:
        text = str(value) if type(value) in (str, int, float) else ""
        if keywords.is_sound(text):
            return text
        raise InvalidConfig(path, value, self.takes)

    @property
    def takes(self) -> str:
        return 'one line of printable text, with { } # ! in "double quotes" only'

    def lines(self, keyword: str, value: str) -> list[str]:
        return [f"{keyword} {value}"]


@dataclass(frozen=True, slots=True)
class Line(Text):
    """A whole line of a block, which is no line of keepalived's own language."""

    def read(self, value: Any, path: str) -> str:
        # By name: a dataclass with slots is made anew, and knows no super() of its old self.
        text = Text.read(self, value, path)
        if keywords.begins_plainly(text):
            return text
        raise InvalidConfig(path, value, self.takes)

    @property
    def takes(self) -> str:
        return f"{Text().takes}, and {keywords.PLAIN_BEGINNING}"


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some words."""

    words: tuple[str, ...]

    def read(self, value: Any, path: str) -> str:
        if isinstance(value, str) and value in self.words:
            return value
        raise InvalidConfig(path, value, self.takes)

    @property
    def takes(self) -> str:
        return f"one of {', '.join(self.words)}"

    def lines(self, keyword: str, value: str) -> list[str]:
        return [f"{keyword} {value}"]


@dataclass(frozen=True, slots=True)
class Address:
    """An IPv4 or IPv6 address."""

    def read(self, value: Any, path: str) -> str:
        return str(as_address(value, path))

    @property
    def takes(self) -> str:
        return "an IPv4 or IPv6 address"

    def lines(self, keyword: str, value: str) -> list[str]:
        return [f"{keyword} {value}"]


@dataclass(frozen=True, slots=True)
class Multicast(Address):
    """A multicast address of a family that VRRP can speak to."""

    families: tuple[int, ...] = (4, 6)

    def read(self, value: Any, path: str) -> str:
        address = as_address(value, path)
        if address.version not in self.families or not _is_group(address):
            raise InvalidConfig(path, value, self.takes)
        return str(address)

    @property
    def takes(self) -> str:
        kinds = {4: "an IPv4 multicast address", 6: "a link-local IPv6 multicast address"}
        return " or ".join(kinds[family] for family in self.families)


def _is_group(address: IPAddress) -> bool:
    """Whether VRRP may speak to an address: IPv6 groups are link-local (RFC 4291 section 2.7)."""
    link_local = address.version == 4 or address.packed[1] & 0x0F == 2
    return address.is_multicast and link_local


@dataclass(frozen=True, slots=True)
class Maybe:
    """A keyword that may stand alone (True), or with a value."""

    kind: Kind

    def read(self, value: Any, path: str) -> Any:
        return value if value is True else self.kind.read(value, path)

    @property
    def takes(self) -> str:
        return f"True, or {self.kind.takes}"

    def lines(self, keyword: str, value: Any) -> Iterable[str]:
        return [keyword] if value is True else self.kind.lines(keyword, value)


@dataclass(frozen=True, slots=True)
class Words:
    """A list, on one line."""

    of: Kind

    def read(self, value: Any, path: str) -> list[Any]:
        return _list(self.of, value, path)

    @property
    def takes(self) -> str:
        return f"a list; each: {self.of.takes}"

    def lines(self, keyword: str, value: list[Any]) -> list[str]:
        return [" ".join([keyword, *(_word(self.of, item) for item in value)])]


@dataclass(frozen=True, slots=True)
class Repeated:
    """A list, each on a line with the keyword, or each a block of its own."""

    of: Kind

    def read(self, value: Any, path: str) -> list[Any]:
        return _list(self.of, value, path)

    @property
    def takes(self) -> str:
        return f"a list; each: {self.of.takes}"

    def lines(self, keyword: str, value: list[Any]) -> list[str]:
        return [line for item in value for line in self.of.lines(keyword, item)]


@dataclass(frozen=True, slots=True)
class Lines:
    """A block with a line for each item of a list."""

    of: Kind = Line()

    def read(self, value: Any, path: str) -> list[Any]:
        return _list(self.of, value, path)

    @property
    def takes(self) -> str:
        return f"a list; each: {self.of.takes}"

    def lines(self, keyword: str, value: list[Any]) -> list[str]:
        return block(keyword, (_word(self.of, item) for item in value))


@dataclass(frozen=True, slots=True)
class Tracked:
    """What an instance or a group tracks: names, or names with what each weighs.

    A weight of None is that of the thing itself.
    """

    limit: int

    def read(self, value: Any, path: str) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for name, entry, at in Section({"tracked": value}, path).named("tracked"):
            at = at.replace(f"{path}:tracked", path)
            section = Section({"weight": entry} if type(entry) is int else entry, at)
            found[name] = read(section, self._table())
            section.finish()
        return found

    @property
    def takes(self) -> str:
        return (
            f"a list of names, or a mapping of names to weights from {-self.limit} to {self.limit} "
            "or to {weight, reverse}"
        )

    def _table(self) -> Table:
        return {"weight": Whole(-self.limit, self.limit), "reverse": Flag()}

    def lines(self, keyword: str, value: Mapping[str, Mapping[str, Any]]) -> list[str]:
        return block(keyword, (self._line(name, entry) for name, entry in value.items()))

    def _line(self, name: str, entry: Mapping[str, Any]) -> str:
        return " ".join([name, *lines(entry, self._table())])


@dataclass(frozen=True, slots=True)
class Block:
    """A block with keywords of its own."""

    table: Table

    def read(self, value: Any, path: str) -> dict[str, Any]:
        section = Section(value, path)
        found = read(section, {**self.table, **EXTRA})
        section.finish()
        return found

    @property
    def takes(self) -> str:
        return f"a mapping of {', '.join((*self.table, *EXTRA))}"

    def lines(self, keyword: str, value: Options) -> list[str]:
        return block(keyword, lines(value, {**self.table, **EXTRA}))


@dataclass(frozen=True, slots=True)
class Named:
    """Blocks by name."""

    table: Table

    def read(self, value: Any, path: str) -> dict[str, Any]:
        parent, _, key = path.rpartition(":")
        return {
            name: Block(self.table).read(entry, at)
            for name, entry, at in Section({key: value}, parent).named(key)
        }

    @property
    def takes(self) -> str:
        return f"by name, {Block(self.table).takes}"

    def lines(self, keyword: str, value: Mapping[str, Options]) -> list[str]:
        return [
            line
            for name, entry in value.items()
            for line in Block(self.table).lines(f"{keyword} {name}", entry)
        ]


@dataclass(frozen=True, slots=True)
class OneOf:
    """Blocks of several kinds in the order of a list: ``[{TCP_CHECK: {...}}, {PING_CHECK: {}}]``.

    Written without the keyword itself.
    """

    tables: Mapping[str, Table]

    def read(self, value: Any, path: str) -> list[tuple[str, Any]]:
        if not isinstance(value, (list, tuple)):
            raise InvalidConfig(path, value, self.takes)
        return [self._read(item, f"{path}:{index}") for index, item in enumerate(value)]

    def _read(self, item: Any, path: str) -> tuple[str, Any]:
        if isinstance(item, str):
            item = {item: None}
        if not isinstance(item, Mapping) or len(item) != 1 or not item.keys() <= self.tables.keys():
            raise InvalidConfig(path, item, f"one of {', '.join(self.tables)}, with its settings")
        ((kind, settings),) = item.items()
        return kind, Block(self.tables[kind]).read(settings, f"{path}:{kind}")

    @property
    def takes(self) -> str:
        return f"a list of {', '.join(self.tables)}"

    def lines(self, keyword: str, value: list[tuple[str, Any]]) -> list[str]:
        return [
            line
            for kind, settings in value
            for line in Block(self.tables[kind]).lines(kind, settings)
        ]


@dataclass(frozen=True, slots=True)
class Raw:
    """Raw keyword trees; written without the keyword itself."""

    def read(self, value: Any, path: str) -> Any:
        keywords.lines(value, path)
        return value

    @property
    def takes(self) -> str:
        return "a mapping of keywords"

    def lines(self, keyword: str, value: Any) -> list[str]:
        return keywords.lines(value, keyword)


def block(head: str, inside: Iterable[str]) -> list[str]:
    """The lines of a block."""
    return [f"{head} {{", *(INDENT + line if line else "" for line in inside), "}"]


def _list(of: Kind, value: Any, path: str) -> list[Any]:
    items = [value] if isinstance(value, (str, int, float, Mapping)) else value
    if not isinstance(items, (list, tuple)):
        raise InvalidConfig(path, value, "a list")
    return [of.read(item, f"{path}:{index}") for index, item in enumerate(items)]


def _word(of: Kind, item: Any) -> str:
    """An item as it stands in a line, without a keyword."""
    return " ".join(of.lines("", item)).strip()


# --------------------------------------------------------------------------------------------------
# Tables


def _each(names: str, kind: Kind) -> dict[str, Kind]:
    return dict.fromkeys(names.split(), kind)


def _in_order(*groups: Table) -> Iterator[tuple[str, Kind]]:
    for group in groups:
        yield from group.items()


EXTRA: Table = {"extra": Raw()}
# lib/utils.h and the parser of 2.2: times are unsigned 32 bit in microseconds where nothing else is
# said.
LONGEST_SECONDS = 4294
LONGEST_GARP_SECONDS = 2147
MICROSECOND = 0.000001
MAX_INT = 2**31 - 1
_PRIORITY_WEIGHT = 253  # keepalived.conf(5): -253..253, or 254 where 254 means fault
_TRACK = Tracked(_PRIORITY_WEIGHT)
_TRACK_MORE = Tracked(_PRIORITY_WEIGHT + 1)

TRACKING: Table = {
    "track_interface": _TRACK,
    "track_script": _TRACK,
    "track_file": _TRACK_MORE,
    "track_process": _TRACK_MORE,
    "track_bfd": _TRACK,
}
_NOTIFY = _each("notify_master notify_backup notify_fault notify_stop notify", Text())

GLOBAL_DEFS: Table = dict(
    _in_order(
        _each(
            "tmp_config_directory config_save_dir process_name vrrp_process_name "
            "checker_process_name bfd_process_name",
            Text(),
        ),
        {"process_names": Flag()},
        _each("startup_script shutdown_script", Text()),
        _each("startup_script_timeout shutdown_script_timeout", Whole(1, 1000)),
        {"notification_email": Lines(), "notification_email_from": Text(), "smtp_server": Text()},
        {"smtp_helo_name": Text(), "smtp_connect_timeout": Whole(1, LONGEST_SECONDS)},
        _each("smtp_alert smtp_alert_vrrp smtp_alert_checker checker_log_all_failures", Switch()),
        {"no_email_faults": Flag(), "no_checker_emails": Flag(), "rs_init_notifies": Flag()},
        {"vrrp_mcast_group4": Multicast((4,)), "vrrp_mcast_group6": Multicast((6,))},
        {"default_interface": Text(), "lvs_timeouts": Text()},
        {"lvs_flush": Flag(), "lvs_flush_on_stop": Maybe(Choice(("VS",)))},
        _each(
            "vrrp_garp_master_delay vrrp_garp_lower_prio_delay vrrp_garp_master_refresh",
            WholeSeconds(0, LONGEST_SECONDS),
        ),
        _each("vrrp_garp_interval vrrp_gna_interval", Seconds(MICROSECOND, LONGEST_SECONDS)),
        {"vrrp_garp_master_repeat": Whole(1, MAX_INT)},
        {"vrrp_garp_lower_prio_repeat": Whole(0, MAX_INT)},
        {"vrrp_garp_master_refresh_repeat": Whole(1, MAX_INT)},
        {"vrrp_garp_extra_if": Text(), "vrrp_down_timer_adverts": Whole(1, 100)},
        _each("vrrp_min_garp vrrp_lower_prio_no_advert vrrp_higher_prio_send_advert", Switch()),
        {"vrrp_version": Whole(2, 3), "vrrp_startup_delay": Seconds(0.001, LONGEST_SECONDS)},
        {"nftables": Maybe(Text()), "nftables_priority": Whole(-MAX_INT, MAX_INT)},
        _each("nftables_counters nftables_ifindex disable_local_igmp", Flag()),
        {"nftables_ipvs": Maybe(Text()), "nftables_ipvs_priority": Whole(-MAX_INT, MAX_INT)},
        {"nftables_ipvs_start_fwmark": Whole(1, MAX_INT)},
        _each("vrrp_check_unicast_src vrrp_skip_check_adv_addr vrrp_strict", Flag()),
        {"max_auto_priority": Whole(-1, 99), "min_auto_priority_delay": Whole(1, 10_000_000)},
        _each("vrrp_priority checker_priority bfd_priority", Whole(-20, 19)),
        _each("vrrp_no_swap checker_no_swap bfd_no_swap", Flag()),
        _each("vrrp_cpu_affinity checker_cpu_affinity bfd_cpu_affinity", Words(Whole(0, 8191))),
        _each("vrrp_rt_priority checker_rt_priority bfd_rt_priority", Whole(1, 99)),
        _each("vrrp_rlimit_rttime checker_rlimit_rttime bfd_rlimit_rttime", Whole(2, MAX_INT)),
        {"snmp_socket": Text()},
        _each(
            "enable_snmp_vrrp enable_snmp_checker enable_snmp_rfc enable_snmp_rfcv2 "
            "enable_snmp_rfcv3 enable_traps enable_dbus",
            Flag(),
        ),
        {"dbus_service_name": Text(), "script_user": Text(), "enable_script_security": Flag()},
        _each("vrrp_notify_fifo_script lvs_notify_fifo_script", Text()),
        {"fifo_write_vrrp_states_on_reload": Flag()},
        {"dynamic_interfaces": Maybe(Choice(("allow_if_changes",)))},
        _each(
            "vrrp_netlink_cmd_rcv_bufs vrrp_netlink_monitor_rcv_bufs lvs_netlink_cmd_rcv_bufs "
            "lvs_netlink_monitor_rcv_bufs process_monitor_rcv_bufs",
            Whole(1, MAX_INT),
        ),
        _each(
            "vrrp_netlink_cmd_rcv_bufs_force vrrp_netlink_monitor_rcv_bufs_force "
            "lvs_netlink_cmd_rcv_bufs_force lvs_netlink_monitor_rcv_bufs_force "
            "process_monitor_rcv_bufs_force",
            Switch(),
        ),
        {"vrrp_rx_bufs_policy": Text(), "vrrp_rx_bufs_multiplier": Whole(1, MAX_INT)},
        {"umask": Text(), "log_unknown_vrids": Flag(), "vmac_prefix": Text()},
        {"vmac_addr_prefix": Text(), "random_seed": Whole(0, 2**32 - 1)},
        {"reload_check_config": Maybe(Text()), "include_check": Maybe(Text())},
        {"reload_time_file": Text(), "reload_repeat": Flag(), "reload_file": Maybe(Text())},
        {"data_use_instance": Switch()},
    )
)

# What stands behind an address in virtual_ipaddress, on its line.
VIRTUAL_ADDRESS: Table = {
    "brd": Text(),
    "use_vmac": Flag(),
    "scope": Text(),
    "label": Text(),
    "peer": Text(),
    **_each("home nodad mngtmpaddr noprefixroute autojoin no_track", Flag()),
    "preferred_lft": Text(),
}

VRRP_INSTANCE: Table = dict(
    _in_order(
        {"vrf": Text(), "use_vmac": Maybe(Text()), "use_vmac_addr": Flag()},
        {"vmac_xmit_base": Flag(), "use_ipvlan": Maybe(Text()), "native_ipv6": Flag()},
        {"dont_track_primary": Flag()},
        TRACKING,
        {"mcast_src_ip": Address(), "unicast_src_ip": Address(), "mcast_dst_ip": Multicast()},
        {"track_src_ip": Flag(), "version": Whole(2, 3), "check_unicast_src": Flag()},
        {"unicast_peer": Lines(), "unicast_fault_no_peer": Flag(), "unicast_ttl": Whole(0, 255)},
        {"old_unicast_checksum": Maybe(Choice(("never",)))},
        _each(
            "garp_master_delay garp_lower_prio_delay garp_master_refresh",
            WholeSeconds(0, LONGEST_SECONDS),
        ),
        {"garp_master_repeat": Whole(1, MAX_INT), "garp_lower_prio_repeat": Whole(0, MAX_INT)},
        {"garp_master_refresh_repeat": Whole(1, MAX_INT)},
        {"garp_extra_if": Text(), "down_timer_adverts": Whole(1, 100)},
        _each("lower_prio_no_advert higher_prio_send_advert", Switch()),
        {"promote_secondaries": Flag(), "virtual_routes": Lines(), "virtual_rules": Lines()},
        _each("accept no_accept nopreempt preempt", Flag()),
        {"preempt_delay": Seconds(0, 1000), "skip_check_adv_addr": Switch()},
        {"strict_mode": Switch(), "debug": Whole(0, 4)},
        _NOTIFY,
        {"notify_deleted": Maybe(Text()), "notify_master_rx_lower_pri": Text()},
        {"notify_priority_changes": Switch(), "smtp_alert": Switch()},
        {"kernel_rx_buf_size": Whole(1, MAX_INT)},
    )
)

VRRP_SYNC_GROUP: Table = dict(
    _in_order(
        {"group": Lines()},
        TRACKING,
        _NOTIFY,
        {"notify_priority_changes": Switch(), "smtp_alert": Switch()},
        {"sync_group_tracking_weight": Flag()},
    )
)

VRRP_SCRIPT: Table = {
    "script": Text(),
    "interval": Whole(1, LONGEST_SECONDS),
    "timeout": Whole(1, LONGEST_SECONDS),
    "weight": Text(),
    "rise": Whole(1, MAX_INT),
    "fall": Whole(1, MAX_INT),
    "user": Text(),
    "init_fail": Flag(),
}

VRRP_TRACK_PROCESS: Table = {
    "process": Text(),
    "param_match": Choice(("initial", "partial")),
    "weight": Text(),
    "quorum": Whole(1, 65535),
    "quorum_max": Whole(0, 65535),
    "fork_delay": Seconds(MICROSECOND, 3600),
    "terminate_delay": Seconds(MICROSECOND, 3600),
    "delay": Seconds(MICROSECOND, 3600),
    "full_command": Flag(),
}

TRACK_FILE: Table = {"file": Text(), "weight": Text(), "init_file": Maybe(Text())}

BFD_INSTANCE: Table = dict(
    _in_order(
        {"neighbor_ip": Address(), "source_ip": Address()},
        _each("min_rx min_tx", Whole(1, 1000)),  # milliseconds
        {"idle_tx": Whole(1000, 10000), "multiplier": Whole(1, 255), "passive": Flag()},
        _each("ttl hoplimit", Whole(1, 255)),
        {"max_hops": Whole(-1, 255), "weight": Text(), "vrrp": Flag(), "checker": Flag()},
    )
)

GARP_GROUP: Table = {
    "garp_interval": Seconds(0, LONGEST_GARP_SECONDS),
    "gna_interval": Seconds(0, LONGEST_GARP_SECONDS),
    "interface": Text(),
    "interfaces": Lines(),
}

# What a virtual server, a real server and a checker may each say; the nearest one counts.
_ATTEMPTS: Table = {
    "connect_timeout": Seconds(0.001, LONGEST_SECONDS),
    "retry": Whole(0, MAX_INT),
    "delay_before_retry": Seconds(0, LONGEST_SECONDS),
    "warmup": Seconds(0, LONGEST_SECONDS),
}
# Of servers: there keepalived wants at least one, where a checker may have none.
_SERVERS_ATTEMPTS: Table = {**_ATTEMPTS, "retry": Whole(1, MAX_INT)}
_DELAY_LOOP: Table = {"delay_loop": Seconds(0.001, LONGEST_SECONDS)}
_CONNECTION: Table = {
    "connect_ip": Address(),
    "connect_port": Whole(1, MAX_PORT),
    "bindto": Address(),
    "bind_if": Text(),
    "bind_port": Whole(1, MAX_PORT),
    "fwmark": Whole(1, 2**32 - 1),
}
_COMMON: Table = {
    **_CONNECTION,
    "alpha": Switch(),
    **_ATTEMPTS,
    **_DELAY_LOOP,
    "log_all_failures": Switch(),
}
_WITHOUT_CONNECTION: Table = {
    keyword: kind for keyword, kind in _COMMON.items() if keyword not in _CONNECTION
}
URL: Table = dict(
    _in_order(
        _each("path digest", Text()),
        {"status_code": Words(Text()), "virtualhost": Text(), "regex": Text()},
        {"regex_no_match": Flag(), "regex_options": Words(Text()), "regex_stack": Text()},
        _each("regex_min_offset regex_max_offset", Whole(0, MAX_INT)),
    )
)
_HTTP: Table = {
    **_COMMON,
    "http_protocol": Text(),
    "fast_recovery": Switch(),
    "virtualhost": Text(),
    "url": Repeated(Block(URL)),
}
CHECKERS: Mapping[str, Table] = {
    "TCP_CHECK": _COMMON,
    "HTTP_GET": _HTTP,
    "SSL_GET": {**_HTTP, "enable_sni": Flag()},
    "SMTP_CHECK": {**_COMMON, "helo_name": Text(), "host": Repeated(Block(_CONNECTION))},
    "DNS_CHECK": {**_COMMON, "type": Text(), "name": Text()},
    "MISC_CHECK": {
        **{word: kind for word, kind in _WITHOUT_CONNECTION.items() if word != "connect_timeout"},
        "misc_path": Text(),
        "misc_timeout": Whole(1, LONGEST_SECONDS),
        "misc_dynamic": Flag(),
        "user": Text(),
    },
    "PING_CHECK": _COMMON,
    "UDP_CHECK": {
        **_COMMON,
        "payload": Text(),
        "require_reply": Maybe(Text()),
        "min_reply_length": Whole(0, MAX_PORT),
        "max_reply_length": Whole(0, MAX_PORT),
    },
    "BFD_CHECK": {"alpha": Switch(), "name": Text()},
    "FILE_CHECK": {"track_file": Text(), "weight": Text()},
}

VIRTUAL_SERVER: Table = dict(
    _in_order(
        {"ip_family": Choice(("inet", "inet6")), "ha_suspend": Flag(), "smtp_alert": Switch()},
        {"virtualhost": Text(), "snmp_name": Text(), "alpha": Flag(), "omega": Flag()},
        {"quorum": Whole(1, MAX_INT), "hysteresis": Whole(0, MAX_INT)},
        {"quorum_up": Text(), "quorum_down": Text()},
        {"sorry_server_inhibit": Flag(), "sorry_server_lvs_method": Text()},
        _SERVERS_ATTEMPTS,
    )
)

REAL_SERVER: Table = dict(
    _in_order(
        {"lvs_method": Text(), "notify_up": Text(), "notify_down": Text()},
        {"smtp_alert": Switch(), "virtualhost": Text(), "snmp_name": Text()},
        {"alpha": Switch(), "inhibit_on_failure": Switch()},
        _SERVERS_ATTEMPTS,
        _DELAY_LOOP,
    )
)

SSL: Table = {"ca": Text(), "certificate": Text(), "key": Text()}

# By the key of the pillar's ``lvs:keepalived``: the keyword of keepalived.conf, and what it takes.
SECTIONS: Mapping[str, tuple[str, Kind]] = {
    "namespace_with_ipsets": ("namespace_with_ipsets", Flag()),
    "instance": ("instance", Text()),
    "use_pid_dir": ("use_pid_dir", Flag()),
    "linkbeat_use_polling": ("linkbeat_use_polling", Flag()),
    "child_wait_time": ("child_wait_time", Whole(0, MAX_INT)),
    "global_defs": ("global_defs", Block(GLOBAL_DEFS)),
    "linkbeat_interfaces": ("linkbeat_interfaces", Lines()),
    "interface_up_down_delays": ("interface_up_down_delays", Lines()),
    "track_groups": ("track_group", Named({"group": Lines()})),
    "static_ipaddress": ("static_ipaddress", Lines()),
    "static_routes": ("static_routes", Lines()),
    "static_rules": ("static_rules", Lines()),
    "track_files": ("track_file", Named(TRACK_FILE)),
    "vrrp_track_processes": ("vrrp_track_process", Named(VRRP_TRACK_PROCESS)),
    "bfd_instances": ("bfd_instance", Named(BFD_INSTANCE)),
    "vrrp_scripts": ("vrrp_script", Named(VRRP_SCRIPT)),
    "vrrp_sync_groups": ("vrrp_sync_group", Named(VRRP_SYNC_GROUP)),
    "garp_groups": ("garp_group", Repeated(Block(GARP_GROUP))),
    "ssl": ("SSL", Block(SSL)),
}
CHECKERS_KIND = OneOf(CHECKERS)
