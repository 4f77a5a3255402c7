"""What docs/ipvs.md shows is run as it stands, and answers what it says."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import salt.utils.args
import yaml

from tests.functional.conftest import Minion, minion

pytestmark = pytest.mark.usefixtures("netns")
__all__ = ["minion"]

PAGE = (Path(__file__).parents[2] / "docs" / "ipvs.md").read_text(encoding="utf-8")
SECTIONS = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]


@dataclass(frozen=True)
class Shown:
    """A command line of the page, and what it says that it answers."""

    words: tuple[str, ...]
    output: str


def blocks(section: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)


def commands(section: str) -> list[Shown]:
    shown = []
    for block in blocks(section, "console"):
        for command in re.split(r"^# ", block, flags=re.MULTILINE)[1:]:
            line, _, output = command.partition("\n")
            shown.append(Shown(tuple(salt.utils.args.shlex_split(line)), output))
    return shown


def with_lines(language: str) -> list[Any]:
    """The sections that have blocks of a language, by their headings."""
    return [
        pytest.param(section, id=section.partition("\n")[0])
        for section in SECTIONS
        if blocks(section, language)
    ]


def parsed(words: list[str]) -> tuple[list[Any], dict[str, Any]]:
    """Arguments as Salt reads them from a command line: by place, and by name."""
    given = [word for word in words if not word.startswith("--out=")]
    positional, named = salt.utils.args.parse_input(given, condition=False)
    return list(positional), dict(named)


@pytest.mark.parametrize("section", with_lines("console"))
def test_a_command_line_answers_what_the_page_says(
    minion: Callable[..., Minion], section: str
) -> None:
    lb1 = minion("lb1")
    lb1.call("ipvs.apply")
    for shown in commands(section):
        program, _target, function, *words = shown.words
        assert program == "salt"
        positional, named = parsed(words)
        answer = lb1.call(function, *positional, **named)
        if shown.output.strip():
            assert yaml.safe_load(shown.output) == {"lb1": answer}


@pytest.mark.parametrize("section", with_lines("yaml"))
def test_a_state_does_something_once(minion: Callable[..., Minion], section: str) -> None:
    bare = minion("lb1", {"other": "things"})
    for block in blocks(section, "yaml"):
        for name, state in yaml.safe_load(block).items():
            ((function, arguments),) = state.items() if isinstance(state, dict) else [(state, [])]
            given = {key: value for argument in arguments or [] for key, value in argument.items()}
            for _ in range(2):
                answer = bare.state(function, given.pop("name", name), **given)
                assert answer["result"] is True, answer
            assert answer["changes"] == {}
