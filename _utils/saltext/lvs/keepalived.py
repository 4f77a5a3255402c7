"""keepalived: its configuration from the cluster, checked by itself, and what it is doing now.

What is returned or raised here may be shown: passwords are in the text that :func:`render` gives
and nowhere else.
"""

from __future__ import annotations

import os
import re
import socket
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jinja2
from saltext.lvs import blocks, fifos, files, grammar, masking, program
from saltext.lvs.errors import CommandFailed, NotAvailable
from saltext.lvs.model import Cluster, Role

CONFIG = program.CONFIG

# "(/etc/keepalived/keepalived.conf: Line 8) Unknown keyword 'x'", "(Line 8) ...": parent and
# children read the file.
_COMPLAINT = re.compile(r"\((?:(?P<file>[^)]*): )?Line (?P<line>\d+)\) (?P<words>.*)")
_SYNC_DAEMON = re.compile(r"\s*lvs_sync_daemon\s+(?P<interface>\S+)")


# --------------------------------------------------------------------------------------------------
# Render


def render(
    cluster: Cluster,
    minion_id: str,
    template: str,
    extra_context: Mapping[str, Any] | None = None,
    name: str = "keepalived.conf.jinja",
) -> str:
    """Return a director's keepalived.conf, with the passwords in it.

    template
        The Jinja2 template's text. It is given ``conf`` (:class:`saltext.lvs.blocks.Conf`),
        ``cluster``, ``director``, ``extra`` (lines of raw keywords) and ``fifos`` (the pipes'
        paths, ``vrrp`` and ``lvs``).

    extra_context
        More names for the template.

    name
        The template's name, for errors.

    Raises :class:`~saltext.lvs.errors.WrongRole` for a minion that is no director,
    :class:`~saltext.lvs.errors.InvalidConfig` for raw keywords that cannot be lines, and
    :class:`~saltext.lvs.errors.CommandFailed` with file and line for a template that fails.
    """
    cluster.expect_role(minion_id, Role.DIRECTOR)
    conf = blocks.of_director(cluster, minion_id)
    context = {
        **(extra_context or {}),
        "conf": conf,
        "cluster": cluster,
        "director": cluster.directors[minion_id],
        "extra": conf.extra,
        "fifos": {"vrrp": fifos.VRRP, "lvs": fifos.LVS},
    }
    try:
        return _compiled(template, name).render(context)
    # A template runs code of its author's: whatever that raises is the template's failure.
    except Exception as error:  # noqa: BLE001
        failure = _template_failure(error, name, passwords(cluster))
    # Raised here, not above: what Jinja says may hold a password, and Python would show it as the
    # cause.
    raise failure


def passwords(cluster: Cluster) -> frozenset[str]:
    """Return what must not be shown of a cluster."""
    found = [instance.auth_pass for instance in cluster.vrrp_instances.values()]
    return frozenset(password for password in (*found, cluster.ssl_password) if password)


def mask(text: str, cluster: Cluster) -> str:
    """Return a configuration as it may be shown."""
    return masking.masked(text, passwords(cluster))


def _compiled(template: str, name: str) -> jinja2.Template:
    # The file that comes out is no HTML: escaping would only spoil it.
    environment = jinja2.Environment(  # noqa: S701
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["number"] = grammar.number
    code = environment.compile(template, name=name, filename=name)
    return environment.template_class.from_code(environment, code, environment.make_globals(None))


def _template_failure(error: Exception, name: str, secrets: Collection[str]) -> CommandFailed:
    if isinstance(error, jinja2.TemplateSyntaxError):
        line: int | None = error.lineno
    else:
        frames = traceback.extract_tb(error.__traceback__)
        line = next((frame.lineno for frame in reversed(frames) if frame.filename == name), None)
    place = name if line is None else f"{name}, line {line}"
    words = f"{type(error).__name__}: {error}".split("\n", 1)[0]
    return CommandFailed(f"{place}: {masking.masked(words, secrets)}")


# --------------------------------------------------------------------------------------------------
# Check


def check(path: str, secrets: Collection[str] = ()) -> tuple[str, ...]:
    """Return what keepalived has against a configuration file, in its own words; empty if nothing.

    secrets
        Passwords that the file holds. Those that a keyword sets need not be named.

    Raises :class:`~saltext.lvs.errors.NotAvailable` if keepalived is not installed.
    """
    return _against_file(path) or _against_content(path, secrets)


def _against_file(path: str) -> tuple[str, ...]:
    """What ``keepalived -t`` lets pass: in these cases it reads nothing, and exits with 0."""
    if not os.path.isfile(path):
        return (f"{path} is not there, or is no file",)
    if os.stat(path).st_mode & 0o111:
        return (f"{path} is executable: keepalived does not read such a file",)
    return ()


def _against_content(path: str, secrets: Collection[str]) -> tuple[str, ...]:
    found = files.read(path)
    if found is None:
        return (f"{path} is not there",)
    text, _ = found
    if not text.strip():
        return (f"{path} is empty",)
    lines = _Lines(text, path, secrets)
    return (*_complaints(lines, path), *lines.explain_all(_without_interface(text)))


def _complaints(lines: _Lines, path: str) -> tuple[str, ...]:
    # Its exit status tells kinds of errors apart, but not errors from warnings: 0 alone means that
    # all is well.
    status, said = program.test(["-f", path])
    if status == 0:
        return ()
    return lines.explain_all(said.splitlines()) or (
        f"keepalived refuses it without a word, with exit status {status}",
    )


def _without_interface(text: str) -> Iterator[str]:
    """Complaints as keepalived might make them, about an interface that it does not look for."""
    for number, line in enumerate(text.split("\n"), start=1):
        found = _SYNC_DAEMON.match(line)
        if found and found["interface"] not in (name for _, name in socket.if_nameindex()):
            yield f"(Line {number}) there is no interface {found['interface']}"


class _Lines:
    """The lines of a file that keepalived complains about, as they may be shown."""

    def __init__(self, text: str, path: str, secrets: Collection[str]) -> None:
        self._path, self._secrets = path, secrets
        self._real = text.split("\n")
        self._shown = masking.masked(text, secrets).split("\n")

    def explain_all(self, said: Iterable[str]) -> tuple[str, ...]:
        """What was said, each thing once: keepalived's processes all read the file."""
        return tuple(dict.fromkeys(self._explain(line) for line in said if line.strip()))

    def _explain(self, said: str) -> str:
        """One line of what was said, with the line of the file that it means."""
        found = _COMPLAINT.fullmatch(said.strip())
        if not found or found["file"] not in (None, self._path):
            return masking.masked(said.strip(), self._secrets)
        number, words = int(found["line"]), found["words"]
        if not 0 < number <= len(self._real):
            return masking.masked(words, self._secrets)
        shown = self._shown[number - 1]
        return f"line {number} ({shown.strip()}): {self._words(words, number - 1)}"

    def _words(self, words: str, index: int) -> str:
        # keepalived quotes what it could not read: on a line with a password that may be a part of
        # it.
        quotes_a_password = self._shown[index] != self._real[index] and re.search("['`\"]", words)
        if quotes_a_password or masking.holds(words, self._secrets):
            return "not as keepalived wants it"
        return words


# --------------------------------------------------------------------------------------------------
# Plan and apply a configuration file


@dataclass(frozen=True, slots=True)
class FileChange:
    """What a configuration file lacks, or what was done to it.

    changes
        As Salt reports them: ``diff`` (masked), ``mode``, ``user``, ``group``.

    problems
        What keepalived has against the new text. With any, the file is not replaced.

    checked
        False if keepalived is not installed, so that nobody has looked.
    """

    changes: Mapping[str, Any]
    problems: tuple[str, ...] = ()
    checked: bool = True


def plan(path: str, text: str, secrets: Collection[str]) -> FileChange:
    """Return what :func:`apply` would do, and leave the file as it is.

    Raises :class:`~saltext.lvs.errors.CommandFailed` if the file cannot be read or its folder not
    be written to.
    """
    return _file_change(path, text, secrets, None)


def apply(
    path: str, text: str, secrets: Collection[str], first: Callable[[], object] | None = None
) -> FileChange:
    """Give a configuration file this text, and to its owner alone.

    keepalived checks the new text before it takes the old one's place, which is in one step. A text
    that it refuses leaves the old one as it is, but for who may read it. The one that is replaced
    is kept beside it, see :func:`previous`.

    first
        Called once the text is accepted, before it is there.

    Raises :class:`~saltext.lvs.errors.NotAvailable` if keepalived is not installed, and
    :class:`~saltext.lvs.errors.CommandFailed` if the file cannot be read or written.
    """
    return _file_change(path, text, secrets, first or _nothing)


def _nothing() -> None:
    """There is nothing to do first."""


def _file_change(
    path: str, text: str, secrets: Collection[str], first: Callable[[], object] | None
) -> FileChange:
    """Plan, or act where there is something to do *first*."""
    # A link stays a link: what it points to is replaced.
    path = os.path.realpath(path)
    private = files.Access.private()
    found = files.read(path)
    old, access = found or ("", private)
    changes: dict[str, Any] = access.changes(private)
    if changes and first:
        # At once, whatever becomes of the text: the old one holds a password too.
        files.set_access(path, private)
    if found is not None and old == text:
        return FileChange(changes)
    changed = {"diff": masking.diff(old, text, secrets, path)}
    try:
        problems = _replace(path, text, secrets, first)
    except NotAvailable:
        if first:
            raise
        return FileChange({**changes, **changed}, checked=False)
    return FileChange(changes if problems else {**changes, **changed}, problems)


def difference(path: str, text: str, secrets: Collection[str]) -> dict[str, str]:
    """What a text would change of a file, as Salt reports it; empty for the same text."""
    path = os.path.realpath(path)
    found = files.read(path)
    changed = masking.diff(found[0] if found else "", text, secrets, path)
    return {"diff": changed} if changed else {}


def _replace(
    path: str, text: str, secrets: Collection[str], first: Callable[[], object] | None
) -> tuple[str, ...]:
    """Check a text where the file is; if nothing is against it, act *first* and put it there."""
    program.path()
    with files.beside(path, text) as temporary:
        problems = tuple(problem.replace(temporary, path) for problem in check(temporary, secrets))
        if first and not problems:
            first()
            _keep(path)
            files.move(temporary, path)
    return problems


def _keep(path: str) -> None:
    """Leave a copy of the file that is about to be replaced, for root alone."""
    found = files.read(path)
    if found is not None:
        files.write(previous(path), found[0])


def previous(path: str) -> str:
    """Where the configuration is kept that was in a file before."""
    return f"{path}.previous"
