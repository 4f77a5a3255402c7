"""Raw keepalived keywords from the pillar, as lines of its configuration: for what the model does
not know.

========================= ====================================================
In the pillar             In the file
========================= ====================================================
``keyword: value``        ``keyword value``
``keyword: True``         ``keyword`` alone; the same for no value
``keyword: {a: 1}``       a block
``keyword: [a, b]``       the keyword twice, once with each
========================= ====================================================

A line means to keepalived what it seems to mean: what would start a comment, open or close a block,
or carry on in the next line is refused outside double quotes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from saltext.lvs.errors import MASK, InvalidConfig
from saltext.lvs.masking import is_password_keyword

_INDENT = "    "
# Conditions, definitions and loops of keepalived's own language begin a line with these.
_LINE_MAGIC = "@$~"
# Anything that begins so names another file, whose lines stand in its place.
_INCLUDE = "include"
PLAIN_BEGINNING = f"not begun with one of {' '.join(_LINE_MAGIC)}, or with {_INCLUDE}"
# keepalived 2.2 takes a brace that is a word of its own for a block's end even within quotes.
_QUOTED_BRACE = re.compile(r'(?:^|\s)"[{}]"(?:\s|$)')
_QUOTED = re.compile(r'"[^"]*"')


def lines(tree: Any, path: str) -> list[str]:
    """Return the lines for a mapping of keywords, indented.

    path
        Where the mapping stands in the pillar.

    Raises :class:`~saltext.lvs.errors.InvalidConfig` for what cannot be a line.
    """
    if not isinstance(tree, Mapping):
        raise InvalidConfig(path, tree, "a mapping of keywords")
    found: list[str] = []
    for keyword, value in tree.items():
        word = _keyword(keyword, path)
        at = f"{path}:{word}"
        for item in value if isinstance(value, list) else [value]:
            found.extend(_entry(word, item, at))
    return found


def _entry(keyword: str, value: Any, path: str) -> list[str]:
    if value is None or value is True:
        return [keyword]
    if isinstance(value, Mapping):
        return [f"{keyword} {{", *(_INDENT + line for line in lines(value, path)), "}"]
    return [f"{keyword} {_value(keyword, value, path)}"]


def _keyword(keyword: Any, path: str) -> str:
    text = str(keyword) if type(keyword) in (str, int, float) else ""
    if not is_sound(text) or text[0] in _LINE_MAGIC:
        raise InvalidConfig(
            path,
            keyword,
            f"keywords that are plain words, and do not begin with one of {' '.join(_LINE_MAGIC)}",
        )
    return text


def _value(keyword: str, value: Any, path: str) -> str:
    shown = MASK if is_password_keyword(path) else value
    if value is False:
        raise InvalidConfig(
            path, shown, f"left out, or 'off' in quotes where {keyword} takes on and off"
        )
    if type(value) not in (str, int, float):
        raise InvalidConfig(path, shown, "a text, a number, True, a mapping or a list of these")
    text = str(value)
    if not is_sound(text):
        raise InvalidConfig(
            path, shown, 'one line of printable text, with { } # ! in "double quotes" only'
        )
    return text


def begins_plainly(line: str) -> bool:
    """Whether keepalived takes a line for one of the block that it is in."""
    first = line.split(maxsplit=1)[0].strip('"')
    return first[:1] not in (*_LINE_MAGIC, "") and not first.startswith(_INCLUDE)


def is_sound(text: str) -> bool:
    """Whether keepalived reads the text as the words that it shows, and the line ends with it."""
    outside = _QUOTED.sub("", text)
    return (
        text.strip() == text != ""
        and text.isprintable()
        and not re.search(r'["{}#!]', outside)
        and not _QUOTED_BRACE.search(text)
        and '\\"' not in text
        and not text.endswith("\\")
    )
