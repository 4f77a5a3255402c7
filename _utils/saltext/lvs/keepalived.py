"""keepalived: its configuration from the cluster, checked by itself, and what it is doing now.

What is returned or raised here may be shown: passwords are in the text that :func:`render` gives
and nowhere else.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
from saltext.lvs import files, keywords, masking
from saltext.lvs.errors import CommandFailed, NotAvailable
from saltext.lvs.model import Cluster, Role

CONFIG = "/etc/keepalived/keepalived.conf"
PID_FILE = "/run/keepalived.pid"

# A minion that systemd starts may lack the administrator's folders in its PATH.
_PROGRAM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
# Parsing takes 0.3 s for 4,000 real servers; looking up a mail server's name may take the
# resolver's whole time.
_TIMEOUT_SECONDS = 30
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
        The Jinja2 template's text. It is given ``cluster``, ``director`` and ``extra`` (lines of
        raw keywords).

    extra_context
        More names for the template.

    name
        The template's name, for errors.

    Raises :class:`~saltext.lvs.errors.WrongRole` for a minion that is no director,
    :class:`~saltext.lvs.errors.InvalidConfig` for raw keywords that cannot be lines, and
    :class:`~saltext.lvs.errors.CommandFailed` with file and line for a template that fails.
    """
    cluster.expect_role(minion_id, Role.DIRECTOR)
    context = {
        **(extra_context or {}),
        "cluster": cluster,
        "director": cluster.directors[minion_id],
        "extra": keywords.lines(cluster.keepalived_extra, "lvs:keepalived:extra"),
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
    instances = cluster.vrrp_instances.values()
    return frozenset(instance.auth_pass for instance in instances if instance.auth_pass)


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
    environment.filters["number"] = _number
    code = environment.compile(template, name=name, filename=name)
    return environment.template_class.from_code(environment, code, environment.make_globals(None))


def _number(value: float) -> str:
    """A number of seconds as people write it: 10, not 10.0."""
    return str(int(value)) if value == int(value) else str(value)


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
    status, said = _run(["-t", "-f", path])
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


def _run(arguments: Sequence[str]) -> tuple[int, str]:
    """Run keepalived for a moment; return its exit status and what it wrote to both streams."""
    environment = {"LC_ALL": "C", "PATH": _search_path()}
    try:
        done = subprocess.run(
            [_program(), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_TIMEOUT_SECONDS,
            env=environment,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CommandFailed(
            f"keepalived {arguments[0]} did not end within {_TIMEOUT_SECONDS} s"
        ) from None
    except OSError as error:
        raise CommandFailed(f"cannot run keepalived: {error.strerror}") from error
    return done.returncode, done.stdout


def _program() -> str:
    found = shutil.which("keepalived", path=_search_path())
    if found is None:
        raise NotAvailable("keepalived is not installed")
    return found


def _search_path() -> str:
    return os.pathsep.join([os.environ.get("PATH", os.defpath), *_PROGRAM_FOLDERS])


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
    return _file_change(path, text, secrets, act=False)


def apply(path: str, text: str, secrets: Collection[str]) -> FileChange:
    """Give a configuration file this text, and to its owner alone.

    keepalived checks the new text before it takes the old one's place, which is in one step. A text
    that it refuses leaves the old one as it is, but for who may read it.

    Raises :class:`~saltext.lvs.errors.NotAvailable` if keepalived is not installed, and
    :class:`~saltext.lvs.errors.CommandFailed` if the file cannot be read or written.
    """
    return _file_change(path, text, secrets, act=True)


def _file_change(path: str, text: str, secrets: Collection[str], act: bool) -> FileChange:
    # A link stays a link: what it points to is replaced.
    path = os.path.realpath(path)
    private = files.Access.private()
    found = files.read(path)
    old, access = found or ("", private)
    changes: dict[str, Any] = access.changes(private)
    if changes and act:
        # At once, whatever becomes of the text: the old one holds a password too.
        files.set_access(path, private)
    if found is not None and old == text:
        return FileChange(changes)
    difference = {"diff": masking.diff(old, text, secrets, path)}
    try:
        problems = _replace(path, text, secrets, act)
    except NotAvailable:
        if act:
            raise
        return FileChange({**changes, **difference}, checked=False)
    return FileChange(changes if problems else {**changes, **difference}, problems)


def _replace(path: str, text: str, secrets: Collection[str], act: bool) -> tuple[str, ...]:
    """Check a text where the file is; if it shall *act* and nothing is against it, put it there."""
    _program()
    with files.beside(path, text) as temporary:
        problems = tuple(problem.replace(temporary, path) for problem in check(temporary, secrets))
        if act and not problems:
            files.move(temporary, path)
    return problems


# --------------------------------------------------------------------------------------------------
# The running keepalived


def version() -> str:
    """Return the version of the keepalived that is installed, such as ``2.2.7``.

    Raises :class:`~saltext.lvs.errors.NotAvailable` if it is not installed.
    """
    _, said = _run(["-v"])
    found = re.match(r"Keepalived v(\S+)", said)
    if not found:
        raise CommandFailed("keepalived -v does not tell a version")
    return found[1]


def process(pid_file: str = PID_FILE) -> int | None:
    """Return the process id of the running keepalived; ``None`` if none runs."""
    try:
        with open(pid_file, encoding="ascii") as file:
            pid = int(file.read())
        # Not its name in the process table: that is a matter of configuration (process_name).
        program = os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    except (OSError, ValueError):
        return None
    # After a crash the number may be another program's by now; after an upgrade the file is
    # "(deleted)".
    return pid if program.removesuffix(" (deleted)") == "keepalived" else None


def reload(path: str = CONFIG, pid_file: str = PID_FILE) -> None:
    """Make the running keepalived read its configuration again; VIPs and connections stay.

    Raises :class:`~saltext.lvs.errors.CommandFailed` if it does not run, or if it would refuse the
    file: a reload of a wrong one ends it, or takes real servers out.
    """
    problems = check(path)
    if problems:
        raise CommandFailed("\n".join([f"{path} is not loaded:", *problems]))
    pid = process(pid_file)
    if pid is None:
        raise CommandFailed("keepalived does not run")
    os.kill(pid, signal.SIGHUP)


def status(cluster: Cluster, addresses: Iterable[Any], pid_file: str = PID_FILE) -> dict[str, Any]:
    """Return whether keepalived runs, its version, and the VIPs that this machine holds now.

    addresses
        All addresses of this machine's interfaces, as ``ipaddress`` objects without prefixes.
    """
    held = set(addresses)
    pid = process(pid_file)
    return {
        "running": pid is not None,
        "pid": pid,
        "version": _unless_missing(version),
        "vrrp_instances": {
            name: {
                "vips": [str(vip.ip) for vip in instance.virtual_ipaddress],
                "vips_held": [str(vip.ip) for vip in instance.virtual_ipaddress if vip.ip in held],
            }
            for name, instance in cluster.vrrp_instances.items()
        },
    }


def _unless_missing(ask: Callable[[], str]) -> str | None:
    try:
        return ask()
    except NotAvailable:
        return None
