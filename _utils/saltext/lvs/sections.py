"""What the pillar says in keepalived's own words: ``lvs:keepalived``, for all and for one director.

:func:`read` checks one of these, :func:`laid_over` joins what one director has of its own to what
all have, and :func:`dangling` finds names that lead nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from saltext.lvs import grammar, keywords
from saltext.lvs.errors import MASK, InvalidConfig
from saltext.lvs.grammar import SECTIONS
from saltext.lvs.instances import VrrpInstance
from saltext.lvs.reading import Section, plain

# What the pillar says at another place, or not at all, by keyword of global_defs.
_OURS = "left out: it is how keepalived tells us what changes"
ELSEWHERE = {
    "router_id": "said in lvs:directors:<id>:router_id",
    "lvs_sync_daemon": "said in lvs:sync_daemon",
    "vrrp_notify_fifo": _OURS,
    "lvs_notify_fifo": _OURS,
    "vrrp_notify_priority_changes": _OURS,
}
OTHER_NETWORK = (
    "left out: Salt looks for VIPs and the IPVS table in the minion's own network namespace, so "
    "keepalived has to run there too"
)
# Outside of all blocks.
NOT_HERE = ("net_namespace", "net_namespace_ipvs")
# What lvs:alerts says where keepalived sends the mail.
MAIL = ("notification_email", "notification_email_from", "smtp_server", "smtp_connect_timeout")
# Where the names that are tracked are defined: keyword, section of the pillar, keyword of its
# blocks.
TRACKED = {
    "track_script": ("vrrp_scripts", "vrrp_script"),
    "track_file": ("track_files", "track_file"),
    "track_process": ("vrrp_track_processes", "vrrp_track_process"),
    "track_bfd": ("bfd_instances", "bfd_instance"),
}


@dataclass(frozen=True, slots=True)
class Keepalived:
    """keepalived's own keywords.

    sections
        By the key of the pillar, as :data:`saltext.lvs.grammar.SECTIONS` has it.

    extra
        Raw keyword trees.
    """

    sections: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def global_defs(self) -> Mapping[str, Any]:
        """What global_defs says."""
        found: Mapping[str, Any] = self.sections.get("global_defs", {})
        return found

    @property
    def vrrp_version(self) -> int:
        """The VRRP version of instances that say none."""
        return int(self.global_defs.get("vrrp_version", 2))

    def names(self, section: str, keyword: str) -> frozenset[str]:
        """The names that a section defines, those in ``extra`` included."""
        raw = (str(key).split() for key in self.extra)
        more = [words[1] for words in raw if len(words) == 2 and words[0] == keyword]
        return frozenset((*self.sections.get(section, {}), *more))


def read(section: Section) -> Keepalived:
    """``lvs:keepalived``, or what a director has of its own; the section is not finished.

    Raises :class:`~saltext.lvs.errors.InvalidConfig`.
    """
    _expect_in_place(section.section("global_defs"))
    _expect_no_password(section.section("ssl"))
    sections = grammar.read(section, {key: kind for key, (_, kind) in SECTIONS.items()})
    extra = plain(section.raw("extra", {}))
    keywords.lines(extra, section.at("extra"))
    _expect_this_network(section, extra)
    return Keepalived(sections, extra)


def _expect_in_place(section: Section) -> None:
    for keyword, place in ELSEWHERE.items():
        if section.has(keyword):
            raise InvalidConfig(section.at(keyword), section.raw(keyword), place)


def _expect_this_network(section: Section, extra: Mapping[str, Any]) -> None:
    for keyword in filter(section.has, NOT_HERE):
        raise InvalidConfig(section.at(keyword), section.raw(keyword), OTHER_NETWORK)
    for key, value in extra.items():
        if key.split()[0] in NOT_HERE:
            raise InvalidConfig(section.at(f"extra:{key}"), value, OTHER_NETWORK)


def _expect_no_password(section: Section) -> None:
    if section.has("password"):
        raise InvalidConfig(
            section.at("password"),
            MASK,
            "in lvs_secrets:keepalived:ssl:password, in a pillar file that only directors get",
        )


def laid_over(shared: Keepalived, own: Keepalived) -> Keepalived:
    """What a director has: mappings are joined, anything else of its own stands instead."""
    return Keepalived(_joined(shared.sections, own.sections), _joined(shared.extra, own.extra))


def _joined(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(below)
    for key, value in above.items():
        under = found.get(key)
        both = isinstance(value, Mapping) and isinstance(under, Mapping)
        found[key] = _joined(under, value) if both and under is not None else value
    return found


# --------------------------------------------------------------------------------------------------
# Relations


def dangling(
    keepalived: Keepalived, instances: Mapping[str, VrrpInstance]
) -> Iterator[InvalidConfig]:
    """Names that nothing has, in what one director has."""
    for name, instance in instances.items():
        yield from _tracking(instance.options, f"lvs:vrrp_instances:{name}", keepalived)
    groups = keepalived.sections.get("vrrp_sync_groups", {})
    for name, options in groups.items():
        path = f"lvs:keepalived:vrrp_sync_groups:{name}"
        yield from _tracking(options, path, keepalived)
        yield from _members(options, path, instances, 2)
    yield from _in_two_groups(groups)
    for name, options in keepalived.sections.get("track_groups", {}).items():
        yield from _members(options, f"lvs:keepalived:track_groups:{name}", instances, 1)


def _tracking(
    options: Mapping[str, Any], path: str, keepalived: Keepalived
) -> Iterator[InvalidConfig]:
    for keyword, (section, block) in TRACKED.items():
        known = keepalived.names(section, block)
        expected = one_of(f"an entry of lvs:keepalived:{section}", known)
        for name in options.get(keyword, ()):
            if name not in known:
                yield InvalidConfig(f"{path}:{keyword}", name, expected)


def _members(
    options: Mapping[str, Any], path: str, instances: Iterable[str], fewest: int
) -> Iterator[InvalidConfig]:
    members = options.get("group", [])
    for name in members:
        if name not in instances:
            yield InvalidConfig(f"{path}:group", name, one_of("a VRRP instance", instances))
    if len(members) < fewest:
        yield InvalidConfig(
            f"{path}:group", members or None, f"a list of at least {fewest} VRRP instances"
        )


def _in_two_groups(groups: Mapping[str, Mapping[str, Any]]) -> Iterator[InvalidConfig]:
    seen: dict[str, str] = {}
    for group, options in groups.items():
        for name in options.get("group", []):
            if name in seen:
                yield InvalidConfig(
                    f"lvs:keepalived:vrrp_sync_groups:{group}:group",
                    name,
                    f"in one sync group only; {seen[name]} has it too",
                )
            seen.setdefault(name, group)


def divided(
    keepalived: Keepalived, by_director: Mapping[str, Mapping[str, VrrpInstance]]
) -> Iterator[InvalidConfig]:
    """Sync groups of which one director should have one half, and another one the other.

    by_director
        The instances as each has them.
    """
    for name, options in keepalived.sections.get("vrrp_sync_groups", {}).items():
        preferred = {
            member: max(by_director, key=lambda one: by_director[one][member].priority or 0)
            for member in options.get("group", [])
            if all(member in instances for instances in by_director.values())
        }
        if by_director and len(set(preferred.values())) > 1:
            yield InvalidConfig(
                f"lvs:keepalived:vrrp_sync_groups:{name}:group",
                preferred,
                "of instances that one director has the highest priority in: they move together, "
                "and would be fought over without end",
            )


def one_of(kind: str, names: Iterable[str]) -> str:
    """What a name should be."""
    known = ", ".join(sorted(names))
    return f"the name of {kind}: {known}" if known else f"the name of {kind}; none is defined"
