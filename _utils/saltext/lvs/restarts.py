"""What a reload cannot change in keepalived, so that it has to be restarted.

Found in keepalived.conf(5) of 2.2.7 ("cannot be changed on a reload") and by trying each global
keyword. All others that were tried take effect at a reload: pipes, names and priorities of
processes, D-Bus and SNMP, the sync daemon's settings, users of scripts. One is mended by ourselves:
a sync daemon that the file does not name any more, which 2.2.7 leaves running.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from saltext.lvs import loading


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing for which a restart is needed."""

    keyword: str
    words: str

    def __str__(self) -> str:
        return f"{self.keyword}: {self.words}"


# Keywords, and why a reload that changes them would not do. All but the last make 2.2.7 pass over
# the whole reload, with no more than a line in its log.
_NAMESPACE = "keepalived stays in the network namespace that it was started in"
_TABLE = "keepalived keeps the nftables table that it has made"
KEYWORDS: dict[str, str] = {
    # keepalived.conf(5); "Cannot change network namespace at a reload"
    "net_namespace": _NAMESPACE,
    # "Cannot change IPVS network namespace at a reload"
    "net_namespace_ipvs": _NAMESPACE,
    # keepalived.conf(5); "Cannot change instance name at a reload"
    "instance": "it is in the names of keepalived's files",
    # "Cannot change nftables table name at a reload"; Debian's takes the second for the first
    "nftables": _TABLE,
    "vrrp_iptables": _TABLE,
    # "Cannot change IPVS nftables table name at a reload"
    "nftables_ipvs": _TABLE,
    # "Cannot change disable_local_igmp at a reload"
    "disable_local_igmp": "keepalived's sockets are open already",
    # keepalived.conf(5); "Cannot change config_directory at a reload". The reload after that finds
    # an empty configuration, and gives up all VIPs and virtual servers (tried).
    "tmp_config_directory": "keepalived's processes read from there already",
    # Tried: the file of the process id stays where it was, and nothing says so.
    "use_pid_dir": "the numbers of keepalived's processes are in files already",
}


def needed(old: str, new: str) -> tuple[Reason, ...]:
    """Why keepalived has to be restarted for a new text to be in effect whole; empty if not.

    old
        The text that it has loaded.
    """
    return tuple(_reasons(old, new))


def _reasons(old: str, new: str) -> Iterator[Reason]:
    before, after = _global(old), _global(new)
    for keyword, words in KEYWORDS.items():
        if before.get(keyword) != after.get(keyword):
            yield Reason(keyword, words)


def _global(text: str) -> dict[str, list[str]]:
    """The lines outside of all blocks, and those of ``global_defs``, by their keywords."""
    found: dict[str, list[str]] = {}
    blocks: list[str] = []
    for line in loading.normalized(text):
        keyword = line.split()[0]
        if not blocks or blocks == ["global_defs"]:
            found.setdefault(keyword, []).append(line)
        blocks += [keyword] * (line.count("{") - line.count("}"))
        if line.startswith("}"):
            del blocks[-1:]
    return found
