"""What a configuration of keepalived's lists, by the names with which keepalived tells of it."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass

from saltext.lvs import loading

_PROTOCOL = re.compile(r"(?<=\]):[a-z]+(?=:)")


@dataclass(frozen=True, slots=True)
class Listed:
    """The names of what is listed.

    groups
        Sync groups.

    servers
        Virtual servers, with None, and their real servers, without protocol.
    """

    groups: frozenset[str]
    servers: frozenset[tuple[str, str | None]]

    def has(self, virtual_server: str, real_server: str | None) -> bool:
        """Whether it lists what keepalived tells of by these names."""
        # Which protocol a real server has in its name depends on its virtual server's kind.
        bare = None if real_server is None else _PROTOCOL.sub("", real_server)
        return (virtual_server, bare) in self.servers


def listed(text: str) -> Listed:
    """What the text of a configuration lists, its includes in place."""
    groups = (_unquoted(name) for name in loading.blocks_of(text, "vrrp_sync_group"))
    return Listed(frozenset(groups), frozenset(_servers(text)))


def _servers(text: str) -> Iterator[tuple[str, str | None]]:
    for head, lines in loading.blocks_of(text, "virtual_server").items():
        said = [line.split() for line in lines]
        protocol = next((words[1].lower() for words in said if words[0] == "protocol"), "tcp")
        with contextlib.suppress(ValueError, IndexError):
            name = _virtual_server(head.split(), protocol)
            yield name, None
            for words in said:
                if words[0] == "real_server":
                    yield name, _written(words[1:], "")


def _virtual_server(words: list[str], protocol: str) -> str:
    """As keepalived's ipwrapper.c writes them: by address, by mark, or by group."""
    if words[0] == "fwmark":
        return f"FWM {int(words[1])}"
    if words[0] == "group":
        return f"[{_unquoted(words[1])}]:0"
    return _written(words, f":{protocol}")


def _written(words: list[str], protocol: str) -> str:
    port = next((int(word) for word in words[1:] if word.isdecimal()), 0)
    return f"[{ipaddress.ip_address(words[0])}]{protocol}:{port}"


def _unquoted(name: str) -> str:
    return name.strip().strip('"')
