"""What keepalived's keywords demand of each other, and of the addresses that they are about.

Each by itself is right; together ``keepalived -t`` of 2.2 has something against them, and so the
whole file would be refused, often in words that lead to no place in the pillar. What stands in
``extra`` counts as given, but is not looked into.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from saltext.lvs.errors import MASK, InvalidConfig
from saltext.lvs.instances import MAX_PRIORITY, VrrpInstance, VrrpState
from saltext.lvs.sections import Keepalived

if TYPE_CHECKING:
    from saltext.lvs.model import Checkers, Director, VirtualServerConfig

Options = Mapping[str, Any]

_GLOBAL = "lvs:keepalived:global_defs"
# What a block is nothing without, by section of the pillar.
NEEDED = {
    "vrrp_scripts": ("script", "the command to run"),
    "vrrp_track_processes": ("process", "the program that must run"),
    "track_files": ("file", "the file to read"),
    "bfd_instances": ("neighbor_ip", "the neighbour's address"),
}
NEED_UNICAST = ("unicast_src_ip", "check_unicast_src", "unicast_ttl", "old_unicast_checksum")
_NOTIFY = (
    *("notify_master", "notify_backup", "notify_fault", "notify_stop", "notify"),
    *("notify_deleted", "notify_master_rx_lower_pri"),
)
_GLOBAL_SCRIPTS = (
    *("startup_script", "shutdown_script"),
    *("vrrp_notify_fifo_script", "lvs_notify_fifo_script"),
)
_COMMAND = re.compile(r"""(?:"[^"]*"|'[^']*'|\S+)\s*(?P<user>\S*)""")
_LONGEST_REPLY = 255  # bytes that UDP_CHECK looks at where nothing is said
_FAMILY_WORDS = {"inet": 4, "inet6": 6}


def tells(options: Options, keyword: str) -> bool:
    """Whether a block has a keyword, by its own name or raw."""
    value = options.get(keyword)
    if value is not None and value is not False and value != []:
        return True
    return any(str(raw).split()[:1] == [keyword] for raw in options.get("extra") or ())


def _global(keepalived: Keepalived, keyword: str) -> Any:
    """A global definition, by its own name or raw; None where there is none."""
    places = [keepalived.global_defs, keepalived.global_defs.get("extra") or {}]
    places += [
        block
        for name, block in keepalived.extra.items()
        if str(name) == "global_defs" and isinstance(block, Mapping)
    ]
    for place in places:
        if tells(place, keyword) or keyword in place:
            return place.get(keyword, True) if place.get(keyword) is not None else True
    return None


# --------------------------------------------------------------------------------------------------
# Sections


def of_sections(keepalived: Keepalived) -> Iterator[InvalidConfig]:
    """What is wrong within keepalived's own sections, as one director has them."""
    for section, (keyword, what) in NEEDED.items():
        for name, options in keepalived.sections.get(section, {}).items():
            if not tells(options, keyword):
                yield InvalidConfig(f"lvs:keepalived:{section}:{name}:{keyword}", None, what)
    for name, options in keepalived.sections.get("vrrp_track_processes", {}).items():
        yield from _quorum_max(options, f"lvs:keepalived:vrrp_track_processes:{name}")
    yield from _bfd(keepalived.sections.get("bfd_instances", {}))
    yield from _garp_groups(keepalived.sections.get("garp_groups", ()))


def _quorum_max(options: Options, path: str) -> Iterator[InvalidConfig]:
    quorum, most = options.get("quorum", 1), options.get("quorum_max")
    if most is not None and most < quorum:
        yield InvalidConfig(f"{path}:quorum_max", most, f"at least the quorum, {quorum}")


def _bfd(found: Mapping[str, Options]) -> Iterator[InvalidConfig]:
    seen: dict[str, str] = {}
    for name, options in found.items():
        path = f"lvs:keepalived:bfd_instances:{name}"
        neighbour, source = options.get("neighbor_ip"), options.get("source_ip")
        if neighbour in seen:
            yield InvalidConfig(
                f"{path}:neighbor_ip",
                neighbour,
                f"another neighbour than that of bfd_instance {seen[neighbour]}",
            )
        if neighbour is not None:
            seen.setdefault(neighbour, name)
        if neighbour and source and _family(source) != _family(neighbour):
            yield InvalidConfig(
                f"{path}:source_ip",
                source,
                f"an IPv{_family(neighbour)} address, like neighbor_ip {neighbour}",
            )
        hops = options.get("ttl", options.get("hoplimit", 255))
        if options.get("max_hops", 0) > hops:
            yield InvalidConfig(
                f"{path}:max_hops", options["max_hops"], f"at most the ttl or hoplimit, {hops}"
            )


def _garp_groups(groups: Iterable[Options]) -> Iterator[InvalidConfig]:
    seen: set[str] = set()
    for index, options in enumerate(groups):
        path = f"lvs:keepalived:garp_groups:{index}"
        pauses = ("garp_interval", "gna_interval")
        if not any(tells(options, key) and options.get(key) != 0 for key in pauses):
            yield InvalidConfig(
                f"{path}:garp_interval", options.get("garp_interval"), "the seconds of a pause"
            )
        for key in ("interface", "interfaces"):
            names = [options[key]] if key == "interface" and key in options else options.get(key)
            for name in names or ():
                if name in seen:
                    yield InvalidConfig(f"{path}:{key}", name, "in one garp_group only")
                seen.add(name)


# --------------------------------------------------------------------------------------------------
# VRRP instances


def is_strict(instance: VrrpInstance, keepalived: Keepalived) -> bool:
    """Whether keepalived refuses what the RFCs do not have in an instance."""
    default = _global(keepalived, "vrrp_strict") is True
    return bool(instance.options.get("strict_mode", default))


def of_instances(director: Director, shared: Mapping[str, VrrpInstance]) -> Iterator[InvalidConfig]:
    """What is wrong within the VRRP instances of a director.

    shared
        The instances as the pillar has them for all.
    """
    for name, instance in director.vrrp_instances.items():
        at = _Place(name, director.minion_id, instance.options, shared[name].options)
        yield from _families(director, instance, at)
        yield from _unicast(instance, at)
        yield from _virtual_macs(instance, at)
        if is_strict(instance, director.keepalived):
            yield from _strict(instance, at)
        if instance.options.get("nopreempt") and instance.options.get("preempt_delay"):
            yield at.wrong("preempt_delay", "left out, as nopreempt is given")


class _Place:
    """Where one director has the keywords of an instance: its own, or those of all."""

    def __init__(self, name: str, director: str, own: Options, shared: Options) -> None:
        self.name, self._director, self._own, self._shared = name, director, own, shared

    def wrong(self, keyword: str, expected: str, value: Any = None) -> InvalidConfig:
        """A keyword that is not as it should be."""
        value = self._own.get(keyword) if value is None else value
        own = keyword in self._own and self._own[keyword] != self._shared.get(keyword)
        place = f"directors:{self._director}:" if own else ""
        return InvalidConfig(f"lvs:{place}vrrp_instances:{self.name}:{keyword}", value, expected)


def _families(director: Director, instance: VrrpInstance, at: _Place) -> Iterator[InvalidConfig]:
    options, family = instance.options, instance.family
    expected = f"an IPv{family} address, like the VIPs"
    for keyword in ("mcast_src_ip", "unicast_src_ip", "mcast_dst_ip"):
        value = options.get(keyword)
        # The directors' own addresses are told of where they stand.
        ours = instance.unicast and value == str(director.address)
        if value is not None and _family(value) != family and not ours:
            yield at.wrong(keyword, expected)
    for peer in options.get("unicast_peer", ()):
        known = _family_of_text(str(peer).split()[0])
        if not instance.unicast and known not in (None, family):
            yield at.wrong("unicast_peer", expected, peer)
    if options.get("native_ipv6") and family == 4:
        yield at.wrong("native_ipv6", "left out: the VIPs are IPv4")


def _unicast(instance: VrrpInstance, at: _Place) -> Iterator[InvalidConfig]:
    options = instance.options
    if tells(options, "unicast_peer"):
        if "mcast_dst_ip" in options:
            yield at.wrong("mcast_dst_ip", "left out, as unicast_peer is given")
        return
    if "unicast_peer" in options:
        yield at.wrong("unicast_peer", "a list of at least one address, or left out")
    # A director that nobody else is there for has no peers, and needs none.
    for keyword in NEED_UNICAST:
        if tells(options, keyword):
            yield at.wrong(keyword, "given with unicast_peer, or left out")


def _virtual_macs(instance: VrrpInstance, at: _Place) -> Iterator[InvalidConfig]:
    options = instance.options
    vmac, base = tells(options, "use_vmac"), tells(options, "vmac_xmit_base")
    unicast = tells(options, "unicast_peer")
    if base and not vmac:
        yield at.wrong("vmac_xmit_base", "given with use_vmac, or left out")
    if unicast and vmac and not base:
        yield at.wrong("vmac_xmit_base", "True, as use_vmac and unicast_peer are given")
    ipvlan = options.get("use_ipvlan")
    if ipvlan is None or vmac:
        return
    if unicast:
        yield at.wrong("use_ipvlan", "left out, as unicast_peer is given")
    words = [] if ipvlan is True else str(ipvlan).split()
    families = [found for found in map(_family_of_text, words) if found]
    if not families and instance.family == 4:
        yield at.wrong("use_ipvlan", "a name, an IPv4 address, or both; it needs the address")
    if any(family != instance.family for family in families):
        yield at.wrong("use_ipvlan", f"with an IPv{instance.family} address, like the VIPs")


def _strict(instance: VrrpInstance, at: _Place) -> Iterator[InvalidConfig]:
    if tells(instance.options, "vmac_xmit_base"):
        yield at.wrong("vmac_xmit_base", "left out: strict VRRP has none")
    if instance.auth_pass is not None:
        yield InvalidConfig(
            f"lvs_secrets:vrrp_instances:{instance.name}",
            MASK,
            "left out: strict VRRP (vrrp_strict, strict_mode) knows no password",
        )
    first = instance.virtual_ipaddress[0]
    if instance.family == 6 and not first.ip.is_link_local:
        yield at.wrong(
            "virtual_ipaddress",
            "a list that begins with a link-local VIP in strict VRRP",
            str(first),
        )


def strict_master(instance: VrrpInstance, keepalived: Keepalived) -> bool:
    """Whether an instance would start as MASTER where the RFCs let the addresses' owner do so."""
    master = instance.state is VrrpState.MASTER and instance.priority != MAX_PRIORITY
    return master and is_strict(instance, keepalived)


# --------------------------------------------------------------------------------------------------
# Virtual servers


def of_virtual_server(
    config: VirtualServerConfig, path: str, addresses: Mapping[str, str]
) -> Iterator[InvalidConfig]:
    """What is wrong within a virtual server that keepalived keeps.

    addresses
        Those of real servers by name.
    """
    options = config.options
    family = options.get("ip_family")
    if family and _FAMILY_WORDS[family] != config.key.family:
        yield InvalidConfig(
            f"{path}:ip_family", family, f"left out: the address is IPv{config.key.family}"
        )
    for keyword in ("sorry_server_inhibit", "sorry_server_lvs_method"):
        if tells(options, keyword) and not (config.sorry_server or tells(options, "sorry_server")):
            yield InvalidConfig(
                f"{path}:{keyword}", options.get(keyword), "given with a sorry_server, or left out"
            )
    for place, checkers, own in _checkers(config, path, addresses):
        for index, (kind, settings) in enumerate(checkers):
            yield from _checker(kind, settings, f"{place}:checkers:{index}:{kind}", own)


def _checkers(
    config: VirtualServerConfig, path: str, addresses: Mapping[str, str]
) -> Iterator[tuple[str, Checkers, list[str]]]:
    """The lists of checkers, each with the addresses of the real servers that it is for."""
    shared = [addresses[share.name] for share in config.real_servers if share.checkers is None]
    if config.checkers:
        yield path, config.checkers, shared
    for share in config.real_servers:
        if share.checkers:
            yield f"{path}:real_servers:{share.name}", share.checkers, [addresses[share.name]]


def _checker(
    kind: str, settings: Options, path: str, addresses: list[str]
) -> Iterator[InvalidConfig]:
    yield from _connection(settings, path, addresses)
    for index, host in enumerate(settings.get("host", ())):
        yield from _connection(host, f"{path}:host:{index}", addresses)
    if kind == "MISC_CHECK" and not tells(settings, "misc_path"):
        yield InvalidConfig(f"{path}:misc_path", None, "the command to run")
    if kind in ("HTTP_GET", "SSL_GET"):
        yield from _urls(settings, path)
    if kind == "UDP_CHECK":
        yield from _reply(settings, path)


def _connection(settings: Options, path: str, addresses: list[str]) -> Iterator[InvalidConfig]:
    target, source = settings.get("connect_ip"), settings.get("bindto")
    if target and ipaddress.ip_address(target).is_link_local and not tells(settings, "bind_if"):
        yield InvalidConfig(
            f"{path}:bind_if",
            None,
            f"the interface by which {target} is reached, as it is link-local",
        )
    for address in [target] if target else addresses:
        if source and _family(source) != _family(address):
            yield InvalidConfig(
                f"{path}:bindto",
                source,
                f"an IPv{_family(address)} address, like {address}, which it connects to",
            )
            return


def _urls(settings: Options, path: str) -> Iterator[InvalidConfig]:
    if not tells(settings, "url"):
        yield InvalidConfig(f"{path}:url", None, "a list of at least one {path: ...}")
    for index, url in enumerate(settings.get("url", ())):
        if not tells(url, "path"):
            yield InvalidConfig(f"{path}:url:{index}:path", None, "the path to ask for")


def _reply(settings: Options, path: str) -> Iterator[InvalidConfig]:
    longest = settings.get("max_reply_length", _LONGEST_REPLY)
    if settings.get("min_reply_length", 0) > longest:
        yield InvalidConfig(
            f"{path}:min_reply_length",
            settings["min_reply_length"],
            f"at most max_reply_length, {longest}",
        )


# --------------------------------------------------------------------------------------------------
# Scripts


def of_scripts(
    director: Director, kept: Mapping[str, VirtualServerConfig]
) -> Iterator[InvalidConfig]:
    """What keepalived wants to be told before it runs scripts for a director.

    kept
        The virtual servers that keepalived keeps, by name.
    """
    keepalived = director.keepalived
    user = _global(keepalived, "script_user")
    if _global(keepalived, "enable_script_security"):
        if user is None:
            yield InvalidConfig(
                f"{_GLOBAL}:script_user",
                None,
                "the user that scripts run as, given with enable_script_security: keepalived "
                "wants to know it even for our pipes",
            )
        return
    default = str(user or "root").split()[0]
    for path, own in _scripts(director, kept):
        if (own or default) == "root":
            yield InvalidConfig(
                f"{_GLOBAL}:enable_script_security",
                None,
                f"True, with a script_user: {path} is run as root",
            )
            return


def _scripts(
    director: Director, kept: Mapping[str, VirtualServerConfig]
) -> Iterator[tuple[str, str]]:
    """Where scripts stand, and as whom they run if that is said there."""
    keepalived = director.keepalived
    for keyword in _GLOBAL_SCRIPTS:
        yield from _commands(keepalived.global_defs, (keyword,), _GLOBAL)
    for name, options in keepalived.sections.get("vrrp_scripts", {}).items():
        yield f"lvs:keepalived:vrrp_scripts:{name}", str(options.get("user", "")).split(" ")[0]
    for name, options in keepalived.sections.get("vrrp_sync_groups", {}).items():
        yield from _commands(options, _NOTIFY, f"lvs:keepalived:vrrp_sync_groups:{name}")
    for name, instance in director.vrrp_instances.items():
        yield from _commands(instance.options, _NOTIFY, f"lvs:vrrp_instances:{name}")
    for name, config in kept.items():
        yield from _of_servers(config, f"lvs:virtual_servers:{name}")


def _of_servers(config: VirtualServerConfig, path: str) -> Iterator[tuple[str, str]]:
    yield from _commands(config.options, ("quorum_up", "quorum_down"), path)
    for share in config.real_servers:
        own = f"{path}:real_servers:{share.name}"
        yield from _commands(share.options, ("notify_up", "notify_down"), own)
    for place, checkers, _ in _checkers(config, path, _Nowhere()):
        for index, (kind, settings) in enumerate(checkers):
            if kind == "MISC_CHECK":
                at = f"{place}:checkers:{index}:{kind}"
                yield at, str(settings.get("user", "")).split(" ")[0]


class _Nowhere(dict[str, str]):
    """Addresses of which none is wanted."""

    def __missing__(self, key: str) -> str:
        return ""


def _commands(options: Options, keywords: Iterable[str], path: str) -> Iterator[tuple[str, str]]:
    for keyword in keywords:
        value = options.get(keyword)
        found = _COMMAND.match(value) if isinstance(value, str) else None
        if found:
            yield f"{path}:{keyword}", found["user"]


def _family(address: str) -> int:
    return ipaddress.ip_address(address).version


def _family_of_text(word: str) -> int | None:
    """The family of an address; None for another word."""
    try:
        return ipaddress.ip_address(word.partition("/")[0]).version
    except ValueError:
        return None


__all__ = [
    "NEEDED",
    "NEED_UNICAST",
    "is_strict",
    "of_instances",
    "of_scripts",
    "of_sections",
    "of_virtual_server",
    "strict_master",
    "tells",
]
