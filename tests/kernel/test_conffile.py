"""keepalived itself, asked how it reads a file: it names the first word of each statement that it
does not know, and the line.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from saltext.lvs import conffile
from saltext.lvs.conffile import Node

SAID = re.compile(r"\((?:\S+: )?Line (\d+)\) Unknown keyword '(.*)'")


def seen_by_keepalived(text: str) -> list[tuple[int, str]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "keepalived.conf"
        path.write_text(text)
        done = subprocess.run(
            ["keepalived", "-t", "-i", "me", "-f", str(path)],
            stderr=subprocess.PIPE,
            encoding="utf-8",
            check=False,
        )
    # Several of its processes read the file, each of them says all of it.
    own = [line for line in done.stderr.split("\n") if line.startswith("(Line ")]
    found = [match for match in map(SAID.fullmatch, own) if match]
    return [(int(match[1]), match[2]) for match in found if match[2] != "}"]


def seen_by_us(text: str) -> list[tuple[int, str]]:
    return list(flat(conffile.parse(text, "me").nodes))


def flat(nodes: tuple[Node, ...]) -> Iterator[tuple[int, str]]:
    for node in nodes:
        yield node.where.line, node.keyword
        yield from flat(node.children or ())


words = st.from_regex(r"x[a-z0-9]{0,3}", fullmatch=True)
parameters = st.sampled_from(["$A", "${A}", "$B", "${B}x", "x${A}${B}", "$C", "$A,"])
quoted = st.sampled_from(['"a b"', '"# no"', '"{ }"', "'a'", '"}"a'])
lines = st.one_of(
    st.tuples(words | parameters, st.lists(words | parameters | quoted, max_size=3)).map(
        lambda parts: " ".join([parts[0], *parts[1]])
    ),
    st.tuples(words, words | parameters).map(lambda two: f"{two[0]} {{ {two[1]} }}"),
    st.tuples(words, words, words).map(lambda three: "{} {{\n{} # no\n{} }}".format(*three)),
    st.tuples(words, words).map(lambda two: f"{two[0]}\n{{ {two[1]}\n}}"),
    st.tuples(st.sampled_from("AB"), words | st.just("")).map(lambda two: f"${two[0]}={two[1]}"),
    st.tuples(st.sampled_from(["@me", "@you", "@^me", "@^you"]), words | parameters).map(" ".join),
    st.tuples(words, st.sampled_from(["! no", "# no { }", "!", '#"'])).map(" ".join),
    st.lists(words | st.just("$B=xq"), max_size=3).map(
        lambda many: "$C= \\\n" + " \\\n".join([*many, "xe"])
    ),
    st.tuples(st.integers(-3, 4), words).map(lambda two: f"~SEQ(A, {two[0]}) {two[1]}${{A}}"),
    st.tuples(st.integers(-3, 4), st.integers(1, 3), st.integers(-3, 4)).map(
        lambda three: "~SEQ(B, {}, {}, {}) xs${{B}}t".format(*three)
    ),
    st.lists(words, min_size=1, max_size=3).map(
        lambda many: f"~LST(A, {', '.join(many)}) $A ~LST ${{A}}b"
    ),
    st.sampled_from(["", "   ", "# no", "~LST({A,B},{xa,xb},{xc,xd}) ${A}${B}", "$C"]),
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(lines, max_size=12))
def test_keepalived_sees_the_same_statements_in_the_same_lines(given: list[str]) -> None:
    # Of what is defined nowhere the program sees the braces; we say that it is not defined.
    text = "\n".join(["$A=xa", "$B=xb xc", "$C=xd", *given, ""])
    assert seen_by_us(text) == seen_by_keepalived(text)
