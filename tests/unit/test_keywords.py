"""Raw keywords: how a mapping becomes lines, and what cannot be one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from saltext.lvs import keywords
from saltext.lvs.errors import InvalidConfig

LINES: dict[str, tuple[Any, list[str]]] = {
    "nothing": ({}, []),
    "a word and its value": ({"script_user": "root"}, ["script_user root"]),
    "numbers": (
        {"interval": 2, "weight": -20, "garp": 0.5},
        ["interval 2", "weight -20", "garp 0.5"],
    ),
    "a word alone, said with True": ({"nopreempt": True}, ["nopreempt"]),
    "a word alone, said with no value": ({"nopreempt": None}, ["nopreempt"]),
    "a block": ({"vrrp_script chk": {"interval": 2}}, ["vrrp_script chk {", "    interval 2", "}"]),
    "an empty block": ({"TCP_CHECK": {}}, ["TCP_CHECK {", "}"]),
    "blocks in blocks": (
        {"a": {"b": {"c": 1}}},
        ["a {", "    b {", "        c 1", "    }", "}"],
    ),
    "a keyword twice": ({"include": ["/a", "/b"]}, ["include /a", "include /b"]),
    "a block twice": ({"url": [{"path": "/a"}, {}]}, ["url {", "    path /a", "}", "url {", "}"]),
    "a list of nothing": ({"include": []}, []),
    "a line that begins with an address": (
        {"static_ipaddress": {"10.0.0.1/32 dev eth0": None}},
        ["static_ipaddress {", "    10.0.0.1/32 dev eth0", "}"],
    ),
    "a keyword that YAML reads as a number": ({"group": {7: None}}, ["group {", "    7", "}"]),
    "signs of the language within quotes": (
        {"script": "\"/bin/grep -q {a}#! b\\n\" 'x'"},
        ["script \"/bin/grep -q {a}#! b\\n\" 'x'"],
    ),
}


@pytest.mark.parametrize(("tree", "expected"), LINES.values(), ids=LINES.keys())
def test_a_mapping_becomes_lines(tree: Any, expected: list[str]) -> None:
    assert keywords.lines(tree, "extra") == expected


ONE_LINE = 'it should be one line of printable text, with { } # ! in "double quotes" only'
PLAIN = "it should be keywords that are plain words, and do not begin with one of @ $ ~"
WRONG: dict[str, tuple[Any, str]] = {
    "a second line": ({"a": "b\nc d"}, f"x:a is 'b\\nc d'; {ONE_LINE}"),
    "a carriage return": ({"a": "b\rc"}, f"x:a is 'b\\rc'; {ONE_LINE}"),
    "a line separator": ({"a": "b\u2028c"}, f"x:a is 'b\\u2028c'; {ONE_LINE}"),
    "a NUL": ({"a": "b\0"}, f"x:a is 'b\\x00'; {ONE_LINE}"),
    "a block's end": ({"a": "b }"}, f"x:a is 'b }}'; {ONE_LINE}"),
    "a block's beginning": ({"a": "b {"}, f"x:a is 'b {{'; {ONE_LINE}"),
    "a brace alone, in quotes": ({"a": 'b "}"'}, f"x:a is 'b \"}}\"'; {ONE_LINE}"),
    "a comment": ({"a": "b # c"}, f"x:a is 'b # c'; {ONE_LINE}"),
    "the other comment": ({"a": "b !c"}, f"x:a is 'b !c'; {ONE_LINE}"),
    "a quote without its end": ({"a": '"b'}, f"x:a is '\"b'; {ONE_LINE}"),
    "a quote that is hidden": ({"a": '"b\\"'}, f"x:a is '\"b\\\\\"'; {ONE_LINE}"),
    "a line that goes on": ({"a": "b\\"}, f"x:a is 'b\\\\'; {ONE_LINE}"),
    "an empty text": ({"a": ""}, f"x:a is ''; {ONE_LINE}"),
    "white space around a text": ({"a": " b"}, f"x:a is ' b'; {ONE_LINE}"),
    "a keyword with a second line": ({"a\nb": 1}, f"x is 'a\\nb'; {PLAIN}"),
    "a keyword that opens a block": ({"a {": 1}, f"x is 'a {{'; {PLAIN}"),
    "a keyword that is a comment": ({"#a": 1}, f"x is '#a'; {PLAIN}"),
    "an empty keyword": ({"": 1}, f"x is ''; {PLAIN}"),
    "a condition": ({"@lb1 a": 1}, f"x is '@lb1 a'; {PLAIN}"),
    "a definition": ({"$A=b": None}, f"x is '$A=b'; {PLAIN}"),
    "a loop": ({"~SEQ(a, 9)": None}, f"x is '~SEQ(a, 9)'; {PLAIN}"),
    "a keyword that YAML reads as True": ({True: 1}, f"x is True; {PLAIN}"),
    "False, which may have been the word off": (
        {"a": {"b": False}},
        "x:a:b is False; it should be left out, or 'off' in quotes where b takes on and off",
    ),
    "a list in a list": (
        {"a": [["b"]]},
        "x:a is ['b']; it should be a text, a number, True, a mapping or a list of these",
    ),
    "no mapping": (["a"], "x is ['a']; it should be a mapping of keywords"),
    "a password, which is not shown": (
        {"authentication": {"auth_pass": "SECRET }"}},
        f"x:authentication:auth_pass is **********; {ONE_LINE}",
    ),
}


@pytest.mark.parametrize(("tree", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_would_not_be_one_line_is_refused(tree: Any, message: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        keywords.lines(tree, "x")
    assert str(caught.value) == message


leaves = st.none() | st.just(True) | st.integers() | st.text(max_size=8)
trees = st.dictionaries(
    st.text(min_size=1, max_size=6),
    st.recursive(
        leaves,
        lambda inner: (
            st.dictionaries(st.text(min_size=1, max_size=6), inner, max_size=3)
            | st.lists(inner, max_size=3)
        ),
        max_leaves=6,
    ),
    max_size=3,
)


@given(trees)
def test_whatever_is_accepted_keeps_its_blocks(tree: Any) -> None:
    try:
        found = keywords.lines(tree, "x")
    except InvalidConfig:
        return
    depth = 0
    for line in found:
        depth -= line.strip() == "}"
        assert line.startswith("    " * depth)
        assert "\n" not in line
        depth += line.endswith(" {")
    assert depth == 0
