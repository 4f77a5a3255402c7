"""Adopt a director that has a keepalived.conf of its own: its pillar, and the passwords in a file
for the master's operator, which never travel in an answer.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from saltext.lvs import conffile, fifos, files, importing, masking, model, program
from saltext.lvs.errors import InvalidConfig, NotAvailable
from saltext.lvs.importing import Note

SECRETS = f"{fifos.FOLDER}/lvs_secrets.sls"
# The first line of a pillar file that is plain YAML: a password may look like a template.
_PLAIN = "#!yaml"
_HEAD = (
    f"{_PLAIN}\n"
    "# The passwords of a keepalived.conf, for the pillar of directors alone. Move this file to\n"
    "# the master's pillar_roots, and remove it here.\n"
)
_SAID = re.compile(r"\((?:(?P<file>[^)]*): )?Line (?P<line>\d+)\) (?P<words>.*)")
_UNKNOWN = re.compile(r"Unknown keyword '(?P<keyword>.*)'")


def adopt(
    path: str,
    minion_id: str,
    names: Mapping[str, str] | None = None,
    config_id: str | None = None,
    secrets: str = SECRETS,
) -> dict[str, Any]:
    """Read a configuration and return its pillar without passwords; those go into a file that only
    root can read.

    config_id
        What keepalived's option ``-i`` says; by default the first part of this machine's name.

    secrets
        The file for the passwords. One that is there is replaced at once, a link not followed.

    Returns ``pillar``; ``notes``, each with ``file``, ``line``, ``words`` and ``why``; and
    ``secrets``, the file, or None where there is no password.

    Raises :class:`~saltext.lvs.conffile.Unreadable`,
    :class:`~saltext.lvs.errors.InvalidConfig` for wrong *names*, and
    :class:`~saltext.lvs.errors.CommandFailed` where the file cannot be written.
    """
    if not os.path.isabs(secrets):
        raise InvalidConfig("secrets", secrets, "an absolute path")
    config_id = os.uname().nodename.partition(".")[0] if config_id is None else config_id
    tree = conffile.read(path, config_id)
    said = list(_complaints(path, config_id))
    found = importing.to_pillar(tree, minion_id, names, _unknown(said, path))
    passwords = set(_texts(found.secrets))
    notes = (*found.notes, *_told(said, path), *_wrong(found, path))
    return {
        "pillar": found.pillar,
        "notes": [_shown(note, passwords) for note in notes],
        "secrets": _written(found.secrets, secrets),
    }


def _complaints(path: str, config_id: str) -> Iterator[re.Match[str]]:
    """What the director's own keepalived says of the file; nothing where it is not installed."""
    try:
        _, said = program.test(["-i", config_id, "-f", path])
    except NotAvailable:
        return
    # Several of its processes read the file, and say the same.
    for line in dict.fromkeys(said.splitlines()):
        found = _SAID.fullmatch(line.strip())
        if found:
            yield found


def _unknown(said: list[re.Match[str]], path: str) -> Iterator[tuple[str, int, str]]:
    for found in said:
        keyword = _UNKNOWN.fullmatch(found["words"])
        if keyword:
            yield found["file"] or path, int(found["line"]), keyword["keyword"]


def _told(said: list[re.Match[str]], path: str) -> Iterator[Note]:
    """What else keepalived has against the file, each thing once."""
    notes = [
        Note(found["file"] or path, int(found["line"]), "", f"keepalived says: {found['words']}")
        for found in said
        if not _UNKNOWN.fullmatch(found["words"])
    ]
    yield from dict.fromkeys(notes)


def _wrong(found: importing.Imported, path: str) -> Iterator[Note]:
    """What the pillar does not allow although keepalived did."""
    try:
        model.from_pillar(importing.joined(found.pillar, found.secrets))
    except InvalidConfig as error:
        for problem in error.problems:
            yield Note(path, 0, "", f"the pillar is to be corrected: {problem}")


def _shown(note: Note, passwords: set[str]) -> dict[str, Any]:
    """A note as it may leave the director."""
    return {
        "file": note.file,
        "line": note.line,
        "words": masking.masked(note.words, passwords),
        "why": masking.masked(note.why, passwords),
    }


def _texts(tree: Any) -> Iterator[str]:
    """The values in a tree."""
    if isinstance(tree, Mapping):
        for value in tree.values():
            yield from _texts(value)
    else:
        yield str(tree)


def _written(found: Mapping[str, Any], path: str) -> str | None:
    if not found:
        return None
    files.make_folder(os.path.dirname(path), fifos.FOLDER_MODE)
    files.write(path, as_pillar_file(found, _HEAD))
    return path


def as_pillar_file(tree: Mapping[str, Any], head: str = f"{_PLAIN}\n") -> str:
    """A tree as a pillar file, in which nothing is taken for a template."""
    return head + "".join(f"{line}\n" for line in _lines(tree, ""))


def _lines(tree: Any, indent: str) -> Iterator[str]:
    for key, value in tree.items():
        name = key if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", str(key)) else json.dumps(key)
        # These are booleans to YAML.
        name = json.dumps(key) if str(key).lower() in ("on", "off", "yes", "no", "y", "n") else name
        if isinstance(value, Mapping) and value:
            yield f"{indent}{name}:"
            yield from _lines(value, f"{indent}  ")
        elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            yield f"{indent}{name}:"
            yield from (f"{indent}  - {json.dumps(item)}" for item in value)
        else:
            yield f"{indent}{name}: {json.dumps(value)}"


__all__ = ["SECRETS", "adopt", "as_pillar_file"]
