"""Each keyword that the pillar may use is in some golden file, and so keepalived has read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache

import pytest
from saltext.lvs import grammar

from tests.golden.cases import folders

# By the blocks around it, outermost first.
TABLES: dict[tuple[str, ...], grammar.Table] = {
    ("global_defs",): grammar.GLOBAL_DEFS,
    ("vrrp_instance",): grammar.VRRP_INSTANCE,
    ("vrrp_sync_group",): grammar.VRRP_SYNC_GROUP,
    ("vrrp_script",): grammar.VRRP_SCRIPT,
    ("vrrp_track_process",): grammar.VRRP_TRACK_PROCESS,
    ("track_file",): grammar.TRACK_FILE,
    ("bfd_instance",): grammar.BFD_INSTANCE,
    ("garp_group",): grammar.GARP_GROUP,
    ("SSL",): grammar.SSL,
    ("virtual_server",): grammar.VIRTUAL_SERVER,
    ("virtual_server", "real_server"): grammar.REAL_SERVER,
    ("virtual_server", "real_server", "HTTP_GET", "url"): grammar.URL,
    **{("virtual_server", "real_server", kind): table for kind, table in grammar.CHECKERS.items()},
    (): dict.fromkeys(keyword for keyword, _ in grammar.SECTIONS.values()),  # type: ignore[arg-type]
}
# These need a network that the tests have not: another namespace, a VRF.
NOT_SHOWN = {
    (): {"namespace_with_ipsets"},
    ("vrrp_instance",): {"vrf"},
}


@cache
def shown() -> Mapping[tuple[str, ...], frozenset[str]]:
    """The keywords of all golden files, by the blocks around them."""
    found: dict[tuple[str, ...], set[str]] = {}
    for folder in folders():
        for path in folder.glob("*.conf"):
            for blocks, keyword in keywords(path.read_text(encoding="utf-8")):
                found.setdefault(blocks, set()).add(keyword)
    return {blocks: frozenset(names) for blocks, names in found.items()}


def keywords(text: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each line's first word, with those of the blocks that it is in."""
    blocks: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if not words or words[0] == "#":
            continue
        if words == ["}"]:
            blocks.pop()
            continue
        yield tuple(blocks), words[0]
        if words[-1] == "{":
            blocks.append(words[0])


@pytest.mark.parametrize("blocks", TABLES, ids=lambda blocks: ", ".join(blocks) or "outside blocks")
def test_each_keyword_is_in_a_golden_file(blocks: tuple[str, ...]) -> None:
    missing = set(TABLES[blocks]) - shown()[blocks] - NOT_SHOWN.get(blocks, set())
    assert sorted(missing) == []


def test_each_word_behind_a_vip_is_in_a_golden_file() -> None:
    lines = [
        line.split()
        for folder in folders()
        for path in folder.glob("*.conf")
        for line in path.read_text(encoding="utf-8").splitlines()
        if " dev " in line
    ]
    words = {word.removeprefix("-") for line in lines for word in line}
    assert sorted(set(grammar.VIRTUAL_ADDRESS) - words) == []
