"""VRRP instances: the VIPs that move between directors, as the pillar says them and as one director
has them.

What a director has of its own (priority, state, interface, any keyword) is laid over what all of
them share; :func:`of_director` does that.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from saltext.lvs import grammar
from saltext.lvs.errors import InvalidConfig
from saltext.lvs.grammar import VIRTUAL_ADDRESS, VRRP_INSTANCE
from saltext.lvs.reading import Address, Section, as_address

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface

# 255 is for the router that owns the address (RFC 3768 section 5.3.4): keepalived takes it, and is
# master at once with it.
MAX_PRIORITY = 255
# keepalived 2.2: whole seconds in a byte with VRRP version 2; hundredths of a second, in 12 bits
# (RFC 5798 section 5.2.7), with version 3.
SHORTEST_ADVERT_INT = 0.01
LONGEST_ADVERT_INT = {2: 255.0, 3: 40.95}

# As many as keepalived 2.2 puts into one advertisement.
MOST_VIPS = {4: 255, 6: 83}

# What routers must agree on to understand each other: no director has its own.
SHARED = (
    "virtual_router_id",
    "virtual_ipaddress",
    "virtual_ipaddress_excluded",
    "advert_int",
    "auth_type",
    "unicast",
    "version",
)
_FLAGS = {"-nodad": "nodad"}


class VrrpState(enum.Enum):
    """The state in which a director's VRRP instances start."""

    MASTER = "MASTER"
    BACKUP = "BACKUP"


class AuthType(enum.Enum):
    """How VRRP packets show that the sender knows the password."""

    PASS = "PASS"
    AH = "AH"


@dataclass(frozen=True, slots=True)
class VirtualAddress:
    """One VIP, and how keepalived puts it on an interface.

    address
        With its prefix: a whole one (/32, /128) but where the pillar asks for another.

    interface
        Its own, where that is not the instance's.

    options
        By the keywords of :data:`saltext.lvs.grammar.VIRTUAL_ADDRESS`.
    """

    address: Interface
    interface: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ip(self) -> Address:
        """The address alone."""
        return self.address.ip

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.address.version

    def __str__(self) -> str:
        return str(self.address)

    def line(self, interface: str) -> str:
        """As keepalived.conf has it.

        interface
            The instance's.
        """
        # With a peer, the prefix is that one's.
        shown = self.ip if "peer" in self.options else self.address
        words = grammar.lines(self.options, VIRTUAL_ADDRESS)
        return " ".join(
            [f"{shown} dev {self.interface or interface}"]
            + ["-nodad" if word == "nodad" else word for word in words]
        )


@dataclass(frozen=True, slots=True)
class VrrpInstance:
    """A set of VIPs that move between the directors as one.

    virtual_router_id
        1 to 255, one use on each network (RFC 3768 section 5.2.3).

    advert_int
        Seconds between two advertisements; a failure shows after three of them.

    virtual_ipaddress_excluded
        VIPs that move along but are not advertised; they may be of the other address family.

    state, priority
        Of one director; ``None`` in what the cluster shares, where the pillar does not say it of
        all.

    unicast
        Whether directors tell each other at the addresses that the pillar has of them.

    options
        By the keywords of :data:`saltext.lvs.grammar.VRRP_INSTANCE`.

    auth_pass
        The VRRP password, from ``lvs_secrets``; ``None`` on machines that do not get it. Left out
        of ``repr``.
    """

    name: str
    interface: str
    virtual_router_id: int
    advert_int: float
    virtual_ipaddress: tuple[VirtualAddress, ...]
    virtual_ipaddress_excluded: tuple[VirtualAddress, ...] = ()
    state: VrrpState | None = None
    priority: int | None = None
    unicast: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    auth_type: AuthType = AuthType.PASS
    auth_pass: str | None = field(default=None, repr=False)

    @property
    def vips(self) -> tuple[VirtualAddress, ...]:
        """All that its master holds."""
        return self.virtual_ipaddress + self.virtual_ipaddress_excluded

    @property
    def family(self) -> int:
        """4 or 6: an instance speaks one of the two."""
        return self.virtual_ipaddress[0].version

    def version(self, default: int) -> int:
        """Its VRRP version.

        default
            ``vrrp_version`` of keepalived's global_defs, or 2.
        """
        return 3 if self.family == 6 else int(self.options.get("version", default))

    @property
    def waits(self) -> bool:
        """Whether it lets another master be: keepalived wants it to start as BACKUP then."""
        return bool(self.options.get("nopreempt") or self.options.get("preempt_delay"))

    @property
    def may_begin_as_master(self) -> bool:
        """Whether keepalived takes MASTER as the state to start in."""
        return not self.waits and not (self.auth_type is AuthType.AH and self.auth_pass)

    @property
    def by_unicast(self) -> bool:
        """Whether it speaks to named neighbours only."""
        return self.unicast or bool(self.options.get("unicast_peer"))


# --------------------------------------------------------------------------------------------------
# From the pillar


def read(name: str, section: Section, auth_pass: str | None) -> VrrpInstance:
    """What directors share of an instance.

    Raises :class:`~saltext.lvs.errors.InvalidConfig`.
    """
    _expect_no_password(name, section)
    vips = _vips(section, "virtual_ipaddress")
    if not vips:
        raise InvalidConfig(section.at("virtual_ipaddress"), None, "a list of at least one VIP")
    if len({vip.version for vip in vips}) > 1:
        raise InvalidConfig(
            section.at("virtual_ipaddress"),
            [str(vip) for vip in vips],
            "of one address family; VRRP speaks IPv4 and IPv6 in separate instances",
        )
    most = MOST_VIPS[vips[0].version]
    if len(vips) > most:
        raise InvalidConfig(
            section.at("virtual_ipaddress"),
            f"{len(vips)} VIPs",
            f"at most {most}: others can stand in virtual_ipaddress_excluded",
        )
    instance = VrrpInstance(
        name=name,
        interface=section.interface("interface"),
        virtual_router_id=section.integer("virtual_router_id", 1, 255),
        advert_int=_advert_int(section),
        virtual_ipaddress=vips,
        virtual_ipaddress_excluded=_vips(section, "virtual_ipaddress_excluded"),
        state=_state(section),
        unicast=section.flag("unicast", False),
        options=grammar.read(section, {**VRRP_INSTANCE, **grammar.EXTRA}),
        auth_type=section.choice("auth_type", AuthType, AuthType.PASS),
        auth_pass=auth_pass,
    )
    section.finish()
    return instance


def _expect_no_password(name: str, section: Section) -> None:
    if section.has("auth_pass") or section.has("authentication"):
        raise InvalidConfig(
            section.path,
            {"auth_pass": "..."},
            f"without a password: that belongs in lvs_secrets:vrrp_instances:{name}:auth_pass, "
            "in a pillar file that only directors get",
        )


def _advert_int(section: Section) -> float:
    seconds = section.number("advert_int", SHORTEST_ADVERT_INT, max(LONGEST_ADVERT_INT.values()), 1)
    if round(seconds, 2) != seconds:
        raise InvalidConfig(section.at("advert_int"), seconds, "seconds with two decimals at most")
    return int(seconds) if seconds == int(seconds) else seconds


def _state(section: Section) -> VrrpState | None:
    if not section.has("state"):
        return None
    return section.choice("state", VrrpState, VrrpState.BACKUP)


def _vips(section: Section, key: str) -> tuple[VirtualAddress, ...]:
    value = section.raw(key)
    items = value if isinstance(value, (list, tuple)) else [] if value is None else [value]
    return tuple(_vip(item, f"{section.at(key)}:{index}") for index, item in enumerate(items))


def _vip(value: Any, path: str) -> VirtualAddress:
    """A mapping; or the line of keepalived.conf, which may be the address alone."""
    if isinstance(value, Mapping):
        return _vip_of(Section(value, path))
    words = value.split() if isinstance(value, str) else []
    if len(words) < 2:
        return VirtualAddress(plain_vip(value, path))
    return _vip_of(Section(_in_words(words, path), path))


def plain_vip(value: Any, path: str) -> Interface:
    """A VIP is one address: any other prefix would also make a route to a network through the
    interface.
    """
    text, _, prefix = str(value).partition("/")
    address = as_address(text if isinstance(value, str) else value, path)
    if prefix not in ("", str(address.max_prefixlen)):
        raise InvalidConfig(path, value, f"{address}/{address.max_prefixlen}: a VIP is one address")
    return ipaddress.ip_interface(address)


def _in_words(words: list[str], path: str) -> dict[str, Any]:
    address, _, prefix = words[0].partition("/")
    found: dict[str, Any] = {"address": address}
    if prefix.isdecimal():
        found["prefix"] = int(prefix)
    rest = iter(words[1:])
    for word in rest:
        keyword = _FLAGS.get(word, word)
        if isinstance(VIRTUAL_ADDRESS.get(keyword), grammar.Flag):
            found[keyword] = True
            continue
        following = next(rest, None)
        if following is None:
            raise InvalidConfig(f"{path}:{keyword}", None, "followed by a word")
        found["interface" if keyword == "dev" else keyword] = following
    return found


def _vip_of(section: Section) -> VirtualAddress:
    address = section.address("address")
    prefix = section.integer("prefix", 0, address.max_prefixlen, address.max_prefixlen)
    options = grammar.read(section, VIRTUAL_ADDRESS)
    _expect_fitting(section, prefix, address, options)
    vip = VirtualAddress(
        ipaddress.ip_interface(f"{address}/{prefix}"),
        section.interface("interface", "") or None,
        options,
    )
    section.finish()
    return vip


def _expect_fitting(
    section: Section, prefix: int, address: Address, options: Mapping[str, Any]
) -> None:
    """What keepalived 2.2 says no to."""
    if "peer" in options and section.has("prefix"):
        raise InvalidConfig(section.at("prefix"), prefix, "left out: the peer has the prefix")
    if "brd" in options and (prefix > address.max_prefixlen - 2 or address.version == 6):
        raise InvalidConfig(
            section.at("brd"),
            options["brd"],
            "left out, or given with IPv4 and the prefix of a network",
        )


# --------------------------------------------------------------------------------------------------
# As one director has it


@dataclass(frozen=True, slots=True)
class Override:
    """What a director has of its own in one instance; ``None`` is what it has elsewhere."""

    state: VrrpState | None = None
    priority: int | None = None
    interface: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def read_override(name: str, section: Section) -> Override:
    """One entry of ``lvs:directors:<id>:vrrp_instances``.

    Raises :class:`~saltext.lvs.errors.InvalidConfig`.
    """
    _expect_no_password(name, section)
    for key in SHARED:
        if section.has(key):
            raise InvalidConfig(
                section.at(key),
                section.raw(key),
                f"left out: it is the same for all directors, and is said in "
                f"lvs:vrrp_instances:{name}",
            )
    own = {keyword: kind for keyword, kind in VRRP_INSTANCE.items() if keyword not in SHARED}
    override = Override(
        state=_state(section),
        priority=section.integer("priority", 1, MAX_PRIORITY) if section.has("priority") else None,
        interface=section.interface("interface", "") or None,
        options=grammar.read(section, {**own, **grammar.EXTRA}),
    )
    section.finish()
    return override


def of_director(
    instance: VrrpInstance,
    override: Override,
    interface: str | None,
    address: Address | None,
    others: Iterable[Address | None],
) -> VrrpInstance:
    """An instance as one director has it, but for priority and state.

    interface, address
        The director's own, where the pillar has them.

    others
        The other directors' addresses.
    """
    options = {**instance.options, **override.options}
    if instance.unicast and address is not None:
        peers = [str(other) for other in others if other is not None]
        if peers:
            options = {"unicast_src_ip": str(address), "unicast_peer": peers, **options}
    return replace(
        instance,
        interface=override.interface or interface or instance.interface,
        options=options,
    )
