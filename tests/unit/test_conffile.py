"""keepalived.conf, read as keepalived reads it. The program itself is asked in tests/kernel."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from saltext.lvs import conffile
from saltext.lvs.conffile import Node, Unreadable


def plain(nodes: tuple[Node, ...]) -> list[Any]:
    """Statements as texts, blocks as pairs of a text and what is in them."""
    return [
        node.text if node.children is None else (node.text, plain(node.children)) for node in nodes
    ]


def parsed(text: str, config_id: str = "lb1") -> list[Any]:
    return plain(conffile.parse(text, config_id).nodes)


TEXTS = {
    "comments with either sign": (
        '! one\n# two\nrouter_id a ! b\nsmtp_server b# c\nscript "/x ! #"\n',
        ["router_id a", "smtp_server b", 'script "/x ! #"'],
    ),
    "a brace on the same line": (
        "global_defs {\nrouter_id a\n}\n",
        [("global_defs", ["router_id a"])],
    ),
    "a brace on the next line": ("a b\n{\nc\n}\n", [("a b", ["c"])]),
    "a brace without space": ("a{\nc}\n", [("a", ["c"])]),
    "a whole block on one line": ("m { a@b c@d }\n", [("m", ["a@b c@d"])]),
    "blocks after each other on one line": (
        "a { b { c } d { } e }",
        [("a", [("b", ["c"]), ("d", []), "e"])],
    ),
    "a brace in quotes": ('a "{ b }" c', ['a "{ b }" c']),
    "windows' line ends": ("a {\r\nb\r\n}\r\n", [("a", ["b"])]),
    "a condition that holds": ("@lb1 a\n@lb2 b\n@^lb1 c\n@^lb2 d\n", ["a", "d"]),
    "a condition before nothing": ("@lb1\n@lb2\n", []),
    "a condition before a block's head": ("@lb1 a {\nb\n}\n", [("a", ["b"])]),
    "a parameter, with and without braces": (
        "$A=1\n$A_2=x y\na $A\nb ${A}${A_2}c $A.d\n",
        ["a 1", "b 1x yc $A.d"],
    ),
    "a parameter in a parameter, replaced late": (
        "$A=10.2.${B}\n$B=0\nx ${A}.1\n$B=9\nx ${A}.1\n",
        ["x 10.2.0.1", "x 10.2.9.1"],
    ),
    "a parameter that makes a condition": ("$M=@lb1\n$M a\n$N=@lb2\n$N b\n", ["a"]),
    "a parameter for one machine": ("@lb1 $P=2\n@lb2 $P=1\np $P\n", ["p 2"]),
    "an empty parameter": ("$A=\nx ${A}y $A\n", ["x y"]),
    "a parameter of many lines": (
        "$I= \\\nv V${N} { \\\n  # no \\\n  a ${N} \\\n}\n\n$N=0\n$I\n$N=1\n$I\n",
        [("v V0", ["a 0"]), ("v V1", ["a 1"])],
    ),
    "a parameter of many lines that begins at once": ("$I=a \\\nb \\\nc\n$I\n", ["a", "b", "c"]),
    "an empty line ends a parameter": ("$I=a \\\nb \\\n\nc\n$I\n", ["c", "a", "b"]),
    "parameters of many lines in each other": (
        "$R= \\\nr ${N} { \\\nw \\\n}\n"
        "$V= \\\nv { \\\n$N=1 \\\n$R \\\n$N=2 \\\n$R \\\nq \\\n}\n$V\n",
        [("v", [("r 1", ["w"]), ("r 2", ["w"]), "q"])],
    ),
    "a parameter of many lines within a line": (
        "$I=a \\\nb\nx $I y\nz $I\n",
        ["x $I y", "z a", "b"],
    ),
    "a definition of one's own": ("$_PWD=/x\na $_PWD\n", ["a /x"]),
    "the machine's name": ("a ${_INSTANCE}\n", ["a lb1"]),
    "a sequence": ("~SEQ(A, 2) x $A\n", ["x 1", "x 2"]),
    "a sequence backwards": ("~SEQ(A, 4, -2, 0) x $A\n", ["x 4", "x 2", "x 0"]),
    "a sequence below zero": ("~SEQ(A, -2) x$A\n", ["x-1", "x-2"]),
    "a hexadecimal sequence": ("~SEQx(A,0x9,11) x::${A}\n", ["x::9", "x::a", "x::b"]),
    "a sequence up to a parameter": ("$E=2\n~SEQ(A, 1, ${E}) x $A\n", ["x 1", "x 2"]),
    "a list": ("~LST(A, a, b c) x $A\n", ["x a", "x b c"]),
    "a list of pairs": ("~LST({A, B}, {1,2},{3, 4}) x $A,${B}\n", ["x 1,2", "x 3,4"]),
    "a list in a sequence": (
        "~SEQ(A,2) ~LST(B,x,y) $A$B ${A}${B}\n",
        ["$Ax 1x", "$Ay 1y", "$Ax 2x", "$Ay 2y"],
    ),
    "a sequence of a parameter": ("$L=~SEQ(A,2) x $A\n$L\n", ["x 1", "x 2"]),
    "a sequence of many lines": (
        "$V= \\\nv ${A} { \\\nb \\\n}\n~SEQ(A,2) $V\n",
        [("v 1", ["b"]), ("v 2", ["b"])],
    ),
    "something like a sequence": ("~seq(A,2) x\n", []),
    "a word that holds a dollar": ('a "$B" $C d$\n', ['a "$B" $C d$']),
}


@pytest.mark.parametrize(("text", "expected"), list(TEXTS.values()), ids=list(TEXTS))
def test_a_text_is_read_as_the_statements_that_it_means(text: str, expected: list[Any]) -> None:
    assert parsed(text) == expected


def test_a_statement_knows_its_words_its_place_and_the_comment_above_it() -> None:
    (_, second) = conffile.parse('a b\n\n! web\nscript "/x y" c"d e"f\n', name="/etc/k.conf").nodes
    assert second.words == ("script", "/x y", "c", "d e", "f")
    assert (second.keyword, second.rest) == ("script", '"/x y" c"d e"f')
    assert (str(second.where), second.comment) == ("/etc/k.conf:4", "web")


DOUBTS = {
    "a random number": ("a ${_RANDOM 1 5}", "${_RANDOM} has no fixed meaning in keepalived 2.2"),
    "a hash that is a parameter": (
        "a ${_HASH}b",
        "${_HASH} has no fixed meaning in keepalived 2.2",
    ),
    "a parameter that nobody defined": ("a ${B} c", "the parameter ${B} is not defined"),
    "an escaped comment sign": (
        r"a b\#c",
        "keepalived takes an escaped # or ! for different things in different places",
    ),
}


@pytest.mark.parametrize(("text", "why"), list(DOUBTS.values()), ids=list(DOUBTS))
def test_what_is_doubtful_stays_whole_and_says_why(text: str, why: str) -> None:
    (node,) = conffile.parse(text).nodes
    assert (node.text, node.why) == (text, why)


def test_a_sequence_that_is_none_is_told() -> None:
    tree = conffile.parse("~SEQ(A) x\n~SEQ(A, 1, 0, 2) y\n~LST({A,B},{1}) z\n~LST() w\n")
    assert [(remark.where.line, remark.why) for remark in tree.remarks] == [
        (1, "this is no ~SEQ or ~LST as keepalived has it"),
        (2, "the numbers of ~SEQ make no sequence"),
        (3, "the values of ~LST do not match its names"),
        (4, "this is no ~SEQ or ~LST as keepalived has it"),
    ]
    assert tree.nodes == ()


WRONG = {
    "a brace too many": ("a {\n}\n}\n", "f:3: there is no block that this } could end"),
    "a brace too few": ("a {\nb {\n}\n", "f:1: the block that begins here does not end"),
    "a brace before any keyword": ("{\n}\n", "f:1: there is no keyword before this {"),
    "a brace after a block": ("a { } { }\n", "f:1: there is no keyword before this {"),
    "one double quote": ('x\na "b\n', "f:2: a double quote has no other one on the same line"),
    "a NUL": ("a\0b", "f is not a text: it has a NUL in it"),
    "an endless line": ("a" * 1023, "f:1: more than 1022 characters in a line"),
    "a parameter that is itself": (
        "$A=$A \nx $A\n",
        "f:2: parameters make the line longer than keepalived can read",
    ),
    "a parameter that grows": (
        "$A=x${B}${B}\n$B=y${A}${A}\nz ${A}\n",
        "f:3: parameters make the line longer than keepalived can read",
    ),
    "a parameter of many lines that is itself": (
        "$A=a \\\n$A\n$A\n",
        "f:3: parameters, lists or sequences are nested too deeply",
    ),
    "blocks in blocks": ("a { " * 40, "f:1: more than 32 blocks within each other"),
    "a sequence of sequences": (
        "~SEQ(A,9999) ~SEQ(B,9999) x\n",
        "f:1: more than 200000 statements",
    ),
}


@pytest.mark.parametrize(("text", "said"), list(WRONG.values()), ids=list(WRONG))
def test_what_cannot_be_read_is_told_with_file_and_line(text: str, said: str) -> None:
    with pytest.raises(Unreadable) as caught:
        conffile.parse(text, name="f")
    assert str(caught.value) == said


# --------------------------------------------------------------------------------------------------
# Files


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.conf").write_text(text)


def test_files_are_included_in_order_and_from_the_including_files_folder(tmp_path: Path) -> None:
    write(
        tmp_path,
        main="include conf.d/*.conf\ninclude {z,y}.conf\ninclude conf.d\nlast ${_PWD}\n",
    )
    (tmp_path / "conf.d").mkdir()
    write(tmp_path / "conf.d", b="b {\n", c="include ../e.conf\n}\n", a="a ${_PWD}\n")
    write(tmp_path, e="e", y="y", z="z")
    tree = conffile.read(str(tmp_path / "main.conf"))
    assert plain(tree.nodes) == [
        f"a {tmp_path}/conf.d",
        ("b", ["e"]),
        "z",
        "y",
        f"last {tmp_path}",
    ]
    assert [node.where.line for node in tree.nodes] == [1, 1, 1, 1, 4]
    assert tree.nodes[0].where.file == f"{tmp_path}/conf.d/a.conf"
    assert [(remark.text, remark.why) for remark in tree.remarks] == [
        (
            "include conf.d",
            f"{tmp_path}/conf.d is left out by keepalived: it is executable, or no regular file",
        )
    ]


def test_an_include_may_depend_on_conditions_and_parameters(tmp_path: Path) -> None:
    write(tmp_path, main="$F=a.conf\n@lb1 include $F\n@lb2 include b.conf\ninclude c.conf\n", a="a")
    tree = conffile.read(str(tmp_path / "main.conf"), "lb1")
    assert plain(tree.nodes) == ["a"]
    assert [remark.text for remark in tree.remarks] == ["include c.conf"]


def test_a_file_that_keepalived_leaves_out_is_told(tmp_path: Path) -> None:
    write(tmp_path, main="include a.conf\ninclude p\n", a="a")
    (tmp_path / "a.conf").chmod(0o755)
    os.mkfifo(tmp_path / "p")
    tree = conffile.read(str(tmp_path / "main.conf"))
    assert tree.nodes == ()
    assert [remark.where.line for remark in tree.remarks] == [1, 2]


def test_files_that_include_each_other_are_refused(tmp_path: Path) -> None:
    write(tmp_path, main="include a.conf", a="include ./main.conf")
    with pytest.raises(Unreadable, match="main.conf includes itself"):
        conffile.read(str(tmp_path / "main.conf"))


@pytest.mark.parametrize(
    "make", [lambda path: None, os.mkfifo, os.mkdir], ids=["none", "fifo", "folder"]
)
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "k")
    with pytest.raises(Unreadable, match="/k"):
        conffile.read(str(tmp_path / "k"))


def test_comments_may_be_in_any_encoding(tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(b"# caf\xe9\na b\n")
    assert plain(conffile.read(str(tmp_path / "k")).nodes) == ["a b"]


# --------------------------------------------------------------------------------------------------
# Laws


@given(st.text(alphabet="ab{}\"'\\#!$@~=() \n\t,SEQLT1", max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(Unreadable):
        assert all(node.text for node in conffile.parse(text).nodes)


trees = st.recursive(
    st.lists(st.from_regex("[a-z]{1,4}( [a-z0-9]{1,3}){0,2}", fullmatch=True), max_size=3),
    lambda inner: st.lists(
        st.tuples(st.from_regex("[a-z]{1,4}( [a-z]{1,3})?", fullmatch=True), inner), max_size=3
    ),
    max_leaves=12,
)


def written(tree: list[Any]) -> str:
    return "\n".join(
        entry if isinstance(entry, str) else f"{entry[0]} {{\n{written(entry[1])}\n}}"
        for entry in tree
    )


@given(trees)
def test_a_tree_that_is_written_is_read_again(tree: list[Any]) -> None:
    assert parsed(written(tree)) == tree
    assert parsed(written(tree).replace("\n{", " {").replace("{\n", "{ ")) == tree
