"""A director's IPVS table at the next boot: there before keepalived starts, and without Salt.

The table as it was applied last is kept in ipvsadm's own words, in a file of our own, and a service
of our own has ipvsadm read it. Nothing of Salt's is needed for that, and nothing of Python.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping

from saltext.lvs import files, ipvsadm, persistence
from saltext.lvs.model import VirtualServer
from saltext.lvs.persistence import Change, File

NAME = "saltext-lvs-ipvs"
RULES = "/var/lib/saltext-lvs/ipvs.rules"
INIT_SCRIPT = f"/etc/init.d/{NAME}"
UNIT = f"{persistence.UNITS}/{NAME}.service"
# sd_booted(3)
SYSTEMD = "/run/systemd/system"

IPVSADM = "/sbin/ipvsadm"
HEAD = "# Salt writes this file (ipvs.at_boot): the IPVS table for the next boot."
DESCRIPTION = "IPVS table as Salt has applied it last"
# A table that is there already is newer than the file.
RESTORE = f"{IPVSADM} --save --numeric | grep -q . || {IPVSADM} --restore < {RULES}"

SCRIPT_MODE = 0o755


def files_of(
    servers: Iterable[VirtualServer], timeouts: Mapping[str, int], systemd: bool
) -> Iterator[File]:
    """The files that bring a table back.

    servers
        What is to be there; the virtual servers that keepalived keeps it makes itself.

    timeouts
        IPVS's timeouts by name (``tcp``, ``tcpfin``, ``udp``) in seconds, as far as they are to be
        set.

    systemd
        Whether the machine boots with systemd; otherwise it gets a script of System V's.
    """
    yield File(RULES, ipvsadm.write(servers), files.PRIVATE)
    commands = [RESTORE]
    if timeouts:
        # 0 leaves a timeout as it is: ipvsadm(8), --set.
        seconds = (str(timeouts.get(name, 0)) for name in ("tcp", "tcpfin", "udp"))
        commands.append(f"{IPVSADM} --set {' '.join(seconds)}")
    yield _unit(commands) if systemd else _script(commands)


def _unit(commands: Iterable[str]) -> File:
    lines = [
        HEAD,
        "[Unit]",
        f"Description={DESCRIPTION}",
        "# Who takes the VIPs comes after.",
        "After=local-fs.target systemd-modules-load.service systemd-sysctl.service",
        "Before=keepalived.service",
        f"ConditionPathExists={RULES}",
        "",
        "[Service]",
        "Type=oneshot",
        "RemainAfterExit=yes",
        *(f"ExecStart=/bin/sh -c '{command}'" for command in commands),
        "",
        "[Install]",
        "WantedBy=multi-user.target",
        "",
    ]
    return File(UNIT, "\n".join(lines))


def _script(commands: Iterable[str]) -> File:
    lines = [
        "#!/bin/sh",
        HEAD,
        "### BEGIN INIT INFO",
        f"# Provides:          {NAME}",
        "# Required-Start:    $local_fs $remote_fs",
        "# Required-Stop:",
        "# X-Start-Before:    keepalived",
        "# Default-Start:     2 3 4 5",
        "# Default-Stop:",
        f"# Short-Description: {DESCRIPTION}",
        "### END INIT INFO",
        'case "$1" in',
        "    start)",
        f"        [ -e {RULES} ] || exit 0",
        *(f"        {command}" for command in commands),
        "        ;;",
        "esac",
        "",
    ]
    return File(INIT_SCRIPT, "\n".join(lines), SCRIPT_MODE)


def plan(servers: Iterable[VirtualServer], timeouts: Mapping[str, int]) -> tuple[Change, ...]:
    """What would change among the files.

    Raises :class:`~saltext.lvs.errors.CommandFailed` for one that cannot be read.
    """
    wanted = files_of(servers, timeouts, os.path.isdir(SYSTEMD))
    return persistence.changes(wanted, _current())


def plan_absent() -> tuple[Change, ...]:
    """What would change for there to be none."""
    return persistence.changes((), _current())


def _current() -> list[File]:
    found = (persistence.read_file(path) for path in (RULES, UNIT, INIT_SCRIPT))
    return [file for file in found if file is not None]


def write(planned: Iterable[Change]) -> None:
    """Make the changes; see :func:`saltext.lvs.persistence.write`."""
    files.make_folder(os.path.dirname(RULES), 0o700)
    persistence.write(planned)
