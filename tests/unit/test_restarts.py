"""What a reload cannot change."""

from __future__ import annotations

import pytest
from saltext.lvs import restarts

BASE = "global_defs {\n    router_id lb1\n}\nvrrp_instance V {\n    interface eth0\n}\n"


def with_global(line: str) -> str:
    return BASE.replace("    router_id lb1\n", f"    router_id lb1\n    {line}\n")


def keywords(old: str, new: str) -> list[str]:
    return [reason.keyword for reason in restarts.needed(old, new)]


@pytest.mark.parametrize("keyword", restarts.KEYWORDS)
def test_each_is_needed_when_it_comes_changes_and_goes(keyword: str) -> None:
    one, other = (f"{keyword} one\n{BASE}", f"{keyword} other\n{BASE}")
    for old, new in ((BASE, one), (one, other), (other, BASE)):
        assert keywords(old, new) == [keyword]
    assert keywords(one, one) == []
    assert keywords(with_global(f"{keyword} one"), with_global(f"{keyword} one")) == []


def test_what_takes_effect_at_a_reload_needs_none() -> None:
    new = with_global("enable_dbus").replace("eth0", "eth1").replace("lb1", "lb2")
    assert keywords(BASE, new) == []


def test_the_same_word_within_a_block_is_another() -> None:
    new = BASE.replace("interface eth0", "interface eth0\n    instance x")
    assert keywords(BASE, new) == []


def test_a_reason_is_said_with_its_keyword() -> None:
    reasons = restarts.needed(BASE, f"instance x\n{BASE}")
    assert list(map(str, reasons)) == ["instance: it is in the names of keepalived's files"]
