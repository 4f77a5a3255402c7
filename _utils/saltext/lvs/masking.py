"""Text that holds passwords, and what of it may be shown.

A line that sets a password is shown up to the password. A line that merely contains one, wherever
it comes from, is not shown at all: stars on the password alone would point at the rest of the line.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from saltext.lvs import matching
from saltext.lvs.errors import MASK

# The shortest password that is looked for inside words; a shorter one is a part of too many.
_SHORTEST_PART = 4
# How many unchanged lines a diff shows around a change, as diff -u does.
_CONTEXT_LINES = 3

_PASSWORD_KEYWORD = re.compile(r"(?i)pass|hmac|secret")
# "auth_pass X" and "$PASS=X", also behind others on a line; a block's name may hold such a word.
_PASSWORD_LINE = re.compile(
    r"(?i)^(?P<keyword>.*?(?:pass|hmac|secret)\w*(?:\s*=\s*|\s+))(?!\{\s*$)(?P<password>\S.*)$"
)

_DEFINITION = re.compile(r"\s*\$(?P<name>\w+)=(?P<value>.*)")
_PARAMETER = re.compile(r"\$\{?(\w+)")


def is_password_keyword(keyword: str) -> bool:
    """Whether a keyword by its name sets a password."""
    return bool(_PASSWORD_KEYWORD.search(keyword))


def masked(text: str, passwords: Collection[str] = ()) -> str:
    """Return the text, line by line as it may be shown.

    passwords
        Known ones; those that a keyword sets are found without being known.
    """
    return "".join(_masked_line(line, passwords) for line in _lines(text))


def holds(line: str, passwords: Iterable[str]) -> bool:
    """Whether a line contains one of the passwords."""
    return any(
        _contains(line, spelling) for password in passwords for spelling in _spellings(password)
    )


def diff(old: str, new: str, passwords: Collection[str], name: str) -> str:
    """Return what ``diff -u`` would say, with both sides as they may be shown.

    A password that changes shows as two lines that look alike. Empty if the texts are equal.

    name
        The file's name, for the head of the diff.
    """
    known = {*passwords, *_passwords_in(old)}
    was, now = _lines(old), _lines(new)
    shown_was = [_masked_line(line, known) for line in was]
    shown_now = [_masked_line(line, known) for line in now]
    lines: list[str] = []
    matcher = matching.Matcher(was, now)
    for group in matcher.get_grouped_opcodes(_CONTEXT_LINES):
        lines.append(_hunk_head(group))
        for tag, old_from, old_to, new_from, new_to in group:
            if tag == "equal":
                lines.extend(" " + line for line in shown_was[old_from:old_to])
            else:
                lines.extend("-" + line for line in shown_was[old_from:old_to])
                lines.extend("+" + line for line in shown_now[new_from:new_to])
    return "".join(_ended(line) for line in [f"--- {name}\n", f"+++ {name}\n", *lines] if lines)


def _lines(text: str) -> list[str]:
    """The lines of a text with their ends; only a newline ends one, as keepalived reads it."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _ended(line: str) -> str:
    return line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def _masked_line(line: str, passwords: Iterable[str]) -> str:
    body = line.removesuffix("\n")
    end = line[len(body) :]
    found = _PASSWORD_LINE.match(body)
    if found and not holds(found["keyword"], passwords):
        return f"{found['keyword']}{MASK}{end}"
    if holds(body, passwords):
        return MASK + end
    return line


def _contains(line: str, password: str) -> bool:
    if len(password) >= _SHORTEST_PART:
        return password in line
    return password in re.split(r"[\s\"']+", line)


def _spellings(password: str) -> set[str]:
    """A password as it stands, and as a program quotes it."""
    return {password, repr(password)[1:-1]} if password else set()


def _passwords_in(text: str) -> set[str]:
    """The words that password keywords set in a text, by way of parameters too, without those too
    short to look for.
    """
    lines = _joined_lines(text)
    found = (_PASSWORD_LINE.match(line) for line in lines)
    words = {word for match in found if match for word in _words(match["password"])}
    definitions = [match for match in map(_DEFINITION.match, lines) if match]
    # A definition may take its words from another one, above or below.
    for _ in definitions:
        named = {name for word in words for name in _PARAMETER.findall(word)}
        more = {
            word for one in definitions if one["name"] in named for word in _words(one["value"])
        }
        if more <= words:
            break
        words |= more
    return {word for word in words if len(word) >= _SHORTEST_PART}


def _joined_lines(text: str) -> list[str]:
    """The lines of a text as keepalived joins them: a backslash at the end goes on in the next."""
    return [line.rstrip() for line in re.sub(r"\\[ \t]*\r?\n", " ", text).split("\n")]


def _words(text: str) -> list[str]:
    return re.split(r"[\s\"']+", text)


def _hunk_head(group: Sequence[tuple[str, int, int, int, int]]) -> str:
    first, last = group[0], group[-1]
    old, new = _range(first[1], last[2]), _range(first[3], last[4])
    return f"@@ -{old} +{new} @@\n"


def _range(start: int, stop: int) -> str:
    """A range of lines as unified diffs write it: the first from 1, and how many unless one."""
    length = stop - start
    if length == 1:
        return str(start + 1)
    return f"{start + 1 if length else start},{length}"
