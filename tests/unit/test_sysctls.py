"""The kernel settings of directors: what is kept, what may be said, and what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from saltext.lvs import sysctls
from saltext.lvs.errors import InvalidConfig

PAGE = Path(__file__).parents[2] / "docs" / "ipvs.md"
NODEST, QUIESCENT = (line.name for line in sysctls.DIRECTOR)

SETTINGS: dict[str, tuple[Any, dict[str, str]]] = {
    "nothing": (None, {NODEST: "1", QUIESCENT: "1"}),
    "one more, by its short name": (
        {"sloppy_tcp": 1},
        {NODEST: "1", QUIESCENT: "1", "net.ipv4.vs.sloppy_tcp": "1"},
    ),
    "one more, by its full name": (
        {"net.ipv4.vs.conn_lfactor": -4},
        {NODEST: "1", QUIESCENT: "1", "net.ipv4.vs.conn_lfactor": "-4"},
    ),
    "another value": ({"expire_nodest_conn": 0}, {NODEST: "0", QUIESCENT: "1"}),
    "one left as it is": ({"net.ipv4.vs.expire_nodest_conn": None}, {QUIESCENT: "1"}),
    "two numbers": (
        {"sync_threshold": " 3\t100"},
        {NODEST: "1", QUIESCENT: "1", "net.ipv4.vs.sync_threshold": "3 100"},
    ),
    "a list of processors": (
        {"est_cpulist": "0,2-3"},
        {NODEST: "1", QUIESCENT: "1", "net.ipv4.vs.est_cpulist": "0,2-3"},
    ),
}


@pytest.mark.parametrize(("said", "wanted"), SETTINGS.values(), ids=SETTINGS.keys())
def test_what_is_said_comes_on_top_of_what_is_kept(said: Any, wanted: dict[str, str]) -> None:
    assert sysctls.of_director(said) == wanted


NO_SETTINGS: dict[str, Any] = {
    "another part of the kernel": {"net.ipv4.ip_forward": 1},
    "a way out of the folder": {"../ip_forward": 1},
    "no value": {"sloppy_tcp": ""},
    "a word": {"sloppy_tcp": "on"},
    "another line": {"sync_threshold": "3 50\nkernel.panic = 1x"},
    "True": {"sloppy_tcp": True},
    "a list of values": {"sync_threshold": [3, 50]},
    "no mapping": "sloppy_tcp=1",
}


@pytest.mark.parametrize("said", NO_SETTINGS.values(), ids=NO_SETTINGS.keys())
def test_what_is_no_setting_is_refused(said: Any) -> None:
    with pytest.raises(InvalidConfig, match="^sysctls"):
        sysctls.of_director(said)


def test_a_line_break_in_a_value_is_white_space() -> None:
    wanted = sysctls.of_director({"sync_threshold": "3\n50"})
    assert wanted["net.ipv4.vs.sync_threshold"] == "3 50"


def test_the_page_says_of_each_setting_what_the_code_says() -> None:
    section = PAGE.read_text(encoding="utf-8").partition("\n## Kernel settings\n")[2]
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+) \|$", section, re.MULTILINE)
    kept = [(line.name, str(line.value), line.reason) for line in sysctls.DIRECTOR]
    left = [
        (line.name, line.default or "by machine", line.reason)
        for line in sysctls.DIRECTOR_UNTOUCHED
    ]
    assert [(f"{sysctls.IPVS}{name}", *rest) for name, *rest in rows] == kept + left


def test_no_setting_is_both_kept_and_left() -> None:
    names = [line.name for line in (*sysctls.DIRECTOR, *sysctls.DIRECTOR_UNTOUCHED)]
    assert len(set(names)) == len(names)
