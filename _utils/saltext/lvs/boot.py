"""A director's IPVS table at the next boot: there before keepalived starts, and without Salt.

The table as it was applied last is kept in ipvsadm's own words, in a file of our own, and a service
of our own has ipvsadm read it. Nothing of Salt's is needed for that, and nothing of Python.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from saltext.lvs import description, files, ipvsadm, persistence
from saltext.lvs.model import VirtualServer
from saltext.lvs.persistence import Change, File

NAME = "saltext-lvs-ipvs"
RULES = "/var/lib/saltext-lvs/ipvs.rules"
INIT_SCRIPT = f"/etc/init.d/{NAME}"
# Where insserv or update-rc.d has put the script, it starts: with what number is theirs to say.
STARTS = f"/etc/rc[2-5].d/S??{NAME}"
UNIT = f"{persistence.UNITS}/{NAME}.service"
WANTED = f"{persistence.UNITS}/multi-user.target.wants/{NAME}.service"
# sd_booted(3)
SYSTEMD = "/run/systemd/system"

IPVSADM = "/sbin/ipvsadm"
HEAD = "# Salt writes this file (ipvs.at_boot): the IPVS table for the next boot."
DESCRIPTION = "IPVS table as Salt has applied it last"
# A table that is there already is newer than the file.
RESTORE = f"{IPVSADM} --save --numeric | grep -q . || {IPVSADM} --restore < {RULES}"

SCRIPT_MODE = 0o755
SWITCH_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Switch:
    """Whether a boot the System V way starts the service; to systemd a link says so."""

    on: bool
    path: str = NAME

    def __str__(self) -> str:
        return f"{'enable' if self.on else 'disable'} {self.path}"

    def as_data(self) -> dict[str, object]:
        """As Salt reports changes."""
        return {"old": not self.on, "new": self.on}


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
    if systemd:
        yield _unit(commands)
        yield File(WANTED, mode=persistence.LINK_MODE, target=UNIT)
    else:
        yield _script(commands)


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


def plan(
    servers: Iterable[VirtualServer], timeouts: Mapping[str, int], also: Iterable[File] = ()
) -> tuple[Change | Switch, ...]:
    """What would change among the files, and whether the service would be enabled.

    also
        What is kept beside the table: the cluster's description.

    Raises :class:`~saltext.lvs.errors.CommandFailed` for one that cannot be read.
    """
    systemd = os.path.isdir(SYSTEMD)
    wanted = (*files_of(servers, timeouts, systemd), *also)
    changes = persistence.changes(wanted, _current())
    return *changes, *_switched(not systemd)


def keep_table(servers: Iterable[VirtualServer]) -> None:
    """Have the next boot bring back another table, where it brings one back at all.

    Raises :class:`~saltext.lvs.errors.CommandFailed`.
    """
    wanted, held = ipvsadm.write(servers), files.read(RULES)
    if held is not None and held[0] != wanted:
        files.write(RULES, wanted)


def plan_absent() -> tuple[Change | Switch, ...]:
    """What would change for there to be none."""
    return *persistence.changes((), _current()), *_switched(False)


def _current() -> list[File]:
    paths = (RULES, UNIT, WANTED, INIT_SCRIPT, description.PATH)
    found = [persistence.read_file(path) for path in paths]
    return [replace(file, told=file.path != description.PATH) for file in found if file is not None]


def _switched(on: bool) -> Iterator[Switch]:
    if bool(glob.glob(STARTS)) is not on:
        yield Switch(on)


def write(planned: Iterable[Change | Switch]) -> None:
    """Make the changes.

    Raises :class:`~saltext.lvs.errors.CommandFailed`; those before it have been made.
    """
    files.make_folder(os.path.dirname(RULES), 0o700)
    for change in planned:
        if isinstance(change, Switch):
            _switch(change.on)
        else:
            persistence.write([change])


def _switch(on: bool) -> None:
    # "remove" wants the script gone, as it is by then.
    command = ["update-rc.d", NAME, "defaults" if on else "remove"]
    trouble = f"cannot have a boot start {NAME}"
    persistence.run(command, SWITCH_SECONDS, trouble, trouble)
