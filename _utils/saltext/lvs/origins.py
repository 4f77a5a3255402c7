"""Where in the pillar a line of a rendered keepalived.conf comes from.

keepalived complains of lines; who mends it changes the pillar. The file itself tells the way: its
blocks have the pillar's names, and a comment stands above each virtual server and real server.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from saltext.lvs import grammar

# Above the raw keywords of lvs:keepalived:extra, see the template.
EXTRA_COMMENT = "From lvs:keepalived:extra."

_SECTIONS = {keyword: key for key, (keyword, _) in grammar.SECTIONS.items()}
_GLOBAL: Mapping[str, str] = {
    "router_id": "lvs:directors",
    "lvs_sync_daemon": "lvs:sync_daemon",
    **{
        keyword: f"lvs:alerts:{keyword}"
        for keyword in (
            "notification_email",
            "notification_email_from",
            "smtp_server",
            "smtp_connect_timeout",
        )
    },
}
# Where the pillar has another word than keepalived.
_SERVER_WORDS: Mapping[str, str] = {
    "lvs_sched": "scheduler",
    "lvs_method": "forward",
    "persistence_timeout": "persistence",
    "persistence_granularity": "netmask",
    "ops": "one_packet",
    "inhibit_on_failure": "on_failure",
    "delay_loop": "check:interval",
    "uthreshold": "upper_threshold",
    "lthreshold": "lower_threshold",
}


@dataclass(frozen=True, slots=True)
class _Block:
    """A block that is open, or the line itself.

    named
        What the comment above it says.
    """

    keyword: str
    argument: str
    named: str


def path(text: str, number: int) -> str:
    """The pillar path that a line comes from, as far as the file tells; empty where it does not.

    number
        The line, from 1.
    """
    inside, in_extra = _blocks(text.split("\n"), number)
    if not inside:
        return ""
    if in_extra:
        return ":".join(["lvs:keepalived:extra", *(block.keyword for block in inside)])
    head, *rest = inside
    if head.keyword == "global_defs":
        return _of_global(rest)
    if head.keyword == "vrrp_instance":
        return _of_instance(head.argument, rest)
    if head.keyword == "virtual_server":
        return _of_virtual_server(head, rest)
    if head.keyword in _SECTIONS:
        found = ["lvs:keepalived", _SECTIONS[head.keyword], head.argument, *_words(rest)]
        return ":".join(word for word in found if word)
    return ""


def _blocks(lines: list[str], number: int) -> tuple[list[_Block], bool]:
    """The blocks that are open at a line, with the line itself; and whether it is a raw one."""
    inside: list[_Block] = []
    comment, in_extra = "", False
    for line in (text.strip() for text in lines[: number - 1]):
        if line.startswith("#"):
            comment = line.lstrip("# ")
            in_extra = in_extra or comment == EXTRA_COMMENT
        elif line.endswith("{"):
            inside.append(_block(line, comment))
            comment = ""
        elif line == "}":
            del inside[-1:]
        elif line:
            comment = ""
    line = lines[number - 1].strip() if 0 < number <= len(lines) else ""
    if line and line[0] not in "#}":
        inside.append(_block(line, comment))
    return inside, in_extra


def _block(line: str, comment: str) -> _Block:
    keyword, _, argument = line.rstrip("{ ").partition(" ")
    return _Block(keyword, argument, comment)


def _words(blocks: Iterable[_Block]) -> Iterator[str]:
    return (block.keyword for block in blocks if not _is_value(block.keyword))


def _is_value(word: str) -> bool:
    """Whether a line begins with a value, as those of lists do, and with no keyword."""
    return not word.replace("_", "").isalnum() or not word[0].isalpha()


def _of_global(rest: list[_Block]) -> str:
    if not rest:
        return "lvs:keepalived:global_defs"
    word = rest[0].keyword
    return _GLOBAL.get(word, f"lvs:keepalived:global_defs:{word}")


def _of_instance(name: str, rest: list[_Block]) -> str:
    if rest and rest[0].keyword == "authentication":
        return f"lvs_secrets:vrrp_instances:{name}:auth_pass"
    return ":".join([f"lvs:vrrp_instances:{name}", *_words(rest[:1])])


def _of_virtual_server(head: _Block, rest: list[_Block]) -> str:
    if not head.named:
        return "lvs:virtual_servers"
    found = [f"lvs:virtual_servers:{head.named}"]
    if rest and rest[0].keyword == "real_server" and rest[0].named:
        found.append(f"real_servers:{rest[0].named}")
        rest = rest[1:]
    word = next(_words(rest), "")
    if word:
        found.append("check" if word in grammar.CHECKERS else _SERVER_WORDS.get(word, word))
    return ":".join(found)
