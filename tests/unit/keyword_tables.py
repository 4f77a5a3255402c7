"""The tables of docs/keywords.md, by heading: keepalived's keywords, as the grammar has them."""

from __future__ import annotations

from collections.abc import Mapping

from saltext.lvs import grammar
from saltext.lvs.grammar import Block, Kind, Line, Named, Repeated, Table, Text

SECTIONS: Mapping[str, Table] = {
    "lvs:keepalived": {key: kind for key, (_, kind) in grammar.SECTIONS.items()},
    "lvs:keepalived:global_defs": grammar.GLOBAL_DEFS,
    "lvs:vrrp_instances:<name>": grammar.VRRP_INSTANCE,
    "VIPs": grammar.VIRTUAL_ADDRESS,
    "lvs:keepalived:vrrp_sync_groups:<name>": grammar.VRRP_SYNC_GROUP,
    "lvs:keepalived:vrrp_scripts:<name>": grammar.VRRP_SCRIPT,
    "lvs:keepalived:vrrp_track_processes:<name>": grammar.VRRP_TRACK_PROCESS,
    "lvs:keepalived:track_files:<name>": grammar.TRACK_FILE,
    "lvs:keepalived:bfd_instances:<name>": grammar.BFD_INSTANCE,
    "lvs:keepalived:garp_groups": grammar.GARP_GROUP,
    "lvs:keepalived:ssl": grammar.SSL,
    "lvs:virtual_servers:<name>": grammar.VIRTUAL_SERVER,
    "lvs:virtual_servers:<name>:real_servers:<name>": grammar.REAL_SERVER,
    **grammar.CHECKERS,
    "url": grammar.URL,
}


def shown(kind: Kind) -> str:
    """What a keyword takes, as the page says it."""
    if isinstance(kind, Named):
        return "mappings by name"
    if isinstance(kind, Block):
        return "a mapping"
    if isinstance(kind, Repeated) and isinstance(kind.of, Block):
        return "a list of mappings"
    return kind.takes.replace(Line().takes, "line").replace(Text().takes, "text")
