"""The command lines that docstrings show, to be run as they stand."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
BLOCK = re.compile(r"CLI Example:\s+\.\. code-block:: bash\n\n((?:[ ]+\S.*\n?|\n)+)")


@dataclass(frozen=True)
class Example:
    """One command line: ``salt TARGET FUNCTION ARGUMENT ...`` or ``salt-run FUNCTION ...``."""

    shown_by: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return shlex.join(self.words)


def functions(folder: str) -> Iterator[tuple[str, str]]:
    """The public functions of the modules in a folder: Salt's name for each, and its docstring."""
    for path in sorted((CHECKOUT / folder).glob("[a-z]*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                yield f"{path.stem}.{node.name.rstrip('_')}", ast.get_docstring(node) or ""


def examples(folder: str) -> list[Example]:
    """All examples of a folder, and for a function that shows none an empty one, which fails."""
    found = []
    for name, text in functions(folder):
        block = BLOCK.search(f"{text}\n")
        lines = block.group(1).split("\n") if block else [""]
        commands = [line.strip() for line in lines if line.strip()] or [""]
        found += [Example(name, tuple(shlex.split(command))) for command in commands]
    return found
