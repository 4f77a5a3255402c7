"""The program keepalived, as it is installed: where it is, and what it says when it is run."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence

from saltext.lvs.errors import CommandFailed, NotAvailable

CONFIG = "/etc/keepalived/keepalived.conf"

# A minion that systemd starts may lack the administrator's folders in its PATH.
_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
# Parsing takes 0.3 s for 4,000 real servers; looking up a mail server's name may take the
# resolver's whole time.
TIMEOUT_SECONDS = 30


def run(arguments: Sequence[str]) -> tuple[int, str]:
    """Run keepalived for a moment; return its exit status and what it wrote to both streams.

    Raises :class:`~saltext.lvs.errors.NotAvailable` if it is not installed, and
    :class:`~saltext.lvs.errors.CommandFailed` if it cannot be run or does not end.
    """
    return _run([path(), *arguments])


def test(arguments: Sequence[str]) -> tuple[int, str]:
    """Have keepalived look at a file (``-t`` and what follows it); as :func:`run`.

    2.2.7 looks whether its parent is process 0 when it has changed its user for a script, and ends
    itself by SIGTERM where it is not; as process 1 of a namespace it is.
    """
    told = run(["-t", *arguments])
    unshare = shutil.which("unshare", path=_search_path())
    if told[0] != -signal.SIGTERM or unshare is None:
        return told
    apart = [unshare, "--pid", "--fork", "--kill-child", path(), "-t", *arguments]
    again = _run(apart)
    return told if again[1].startswith("unshare:") else again


def _run(command: Sequence[str]) -> tuple[int, str]:
    environment = {"LC_ALL": "C", "PATH": _search_path()}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT_SECONDS,
            env=environment,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CommandFailed(
            f"keepalived {_option(command)} did not end within {TIMEOUT_SECONDS} s"
        ) from None
    except OSError as error:
        raise CommandFailed(f"cannot run keepalived: {error.strerror}") from error
    return done.returncode, done.stdout


def _option(command: Sequence[str]) -> str:
    """What it was asked to do."""
    return command[command.index(path()) + 1]


def path() -> str:
    """Where it is.

    Raises :class:`~saltext.lvs.errors.NotAvailable` if it is not installed.
    """
    found = shutil.which("keepalived", path=_search_path())
    if found is None:
        raise NotAvailable("keepalived is not installed")
    return found


def version() -> str:
    """Return its version, such as ``2.2.7``.

    Raises :class:`~saltext.lvs.errors.NotAvailable` if it is not installed.
    """
    _, said = run(["-v"])
    found = re.match(r"Keepalived v(\S+)", said)
    if not found:
        raise CommandFailed("keepalived -v does not tell a version")
    return found[1]


def _search_path() -> str:
    return os.pathsep.join([os.environ.get("PATH", os.defpath), *_FOLDERS])
