"""What docs/ipvs.md shows is run as it stands, and answers what it says."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import salt.utils.args
import yaml

from tests.functional.conftest import Minion, minion
from tests.kernel.commands import ip

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
            # Left out for the reader.
            told = "\n".join(line for line in output.splitlines() if line.strip() != "...")
            shown.append(Shown(tuple(shlex.split(line, comments=True)), told))
    return shown


def with_blocks(language: str) -> list[Any]:
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


# What these hold goes by the clients, of which there are none here.
COUNTED = ("connections", "by_state", "by_real_server", "real_servers")


def same_form(shown: Any, answer: Any) -> bool:
    """Whether an answer has all the parts that the page shows."""
    if not (isinstance(shown, dict) and isinstance(answer, dict)):
        return True
    return all(
        key in answer and (key in COUNTED or same_form(value, answer[key]))
        for key, value in shown.items()
    )


@pytest.fixture(autouse=True)
def card(netns: None) -> None:
    """The network card that the page names, with an address of each family."""
    for command in (
        "link add eth0 type dummy",
        "link set eth0 up multicast on",
        "address add 10.10.10.11/24 dev eth0",
        "address add fd00::11/64 dev eth0 nodad",
    ):
        ip(command)


EXACT = ("Look", "Take a real server out, now")


@pytest.mark.parametrize("section", with_blocks("console"))
def test_a_command_line_answers_what_the_page_says(
    minion: Callable[..., Minion], section: str
) -> None:
    lb1 = minion("lb1")
    lb1.call("ipvs.apply")
    # Without a cluster in its pillar.
    lb3 = minion("lb3", {"other": "things"})
    for shown in commands(section):
        program, target, function, *words = shown.words
        assert program == "salt"
        positional, named = parsed(words)
        answer = (lb3 if target == "lb3" else lb1).call(function, *positional, **named)
        told = yaml.safe_load(shown.output)
        if told and section.startswith(EXACT):
            assert told == {"lb1": answer}
        elif told:
            assert same_form(told, {"lb1": answer}), answer


@pytest.mark.parametrize("section", with_blocks("yaml"))
def test_a_state_does_something_once(
    minion: Callable[..., Minion], section: str, tmp_path: Path
) -> None:
    bare = minion("lb3", {"other": "things"})
    bare.call("ipvs.apply", table={})
    for block in blocks(section, "yaml"):
        if block.startswith("lvs:"):
            continue  # a pillar, which the tests of all pages try
        for name, state in yaml.safe_load(block).items():
            ((function, arguments),) = state.items() if isinstance(state, dict) else [(state, [])]
            given = {key: value for argument in arguments or [] for key, value in argument.items()}
            if function == "ipvs.sysctls":
                given["config"] = str(tmp_path / "sysctl.conf")
            for _ in range(2):
                answer = bare.state(function, given.get("name", name), **without_name(given))
                assert answer["result"] is True, answer
            assert answer["changes"] == {}


def without_name(given: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if key != "name"}
