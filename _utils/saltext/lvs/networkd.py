"""Has systemd-networkd leave a director's VIPs where keepalived put them.

When it starts, or configures an interface anew, systemd-networkd takes away every address that its
files do not name, unless ``KeepConfiguration=`` says otherwise. That is said in a file of our own
beside the one that the interface goes by, which stays as it is. See systemd.network(5).
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from saltext.lvs import files, persistence
from saltext.lvs.model import Cluster
from saltext.lvs.persistence import Change, File

HEAD = "# Salt writes this file (keepalived.keep_vips)."
NAME = "50-saltext-lvs.conf"

# What systemd-networkd says of each interface, by its number; sd-network(3) reads the same.
LINKS = "/run/systemd/netif/links"
NUMBERS = "/sys/class/net"
# Where its files are, and what completes them; of two with the same name the earlier one counts.
FOLDERS = (
    "/etc/systemd/network",
    "/run/systemd/network",
    "/usr/local/lib/systemd/network",
    "/usr/lib/systemd/network",
    "/lib/systemd/network",
)

# Not decided yet which file is the interface's: just plugged in, or systemd-networkd just started.
UNDECIDED = ("pending", "initialized")

STATIC, EVERYTHING = "static", "yes"
# Who keeps more than is needed for VIPs is left alone.
ENOUGH = {STATIC, EVERYTHING, "true", "on", "1", "y", "t"}
DYNAMIC = ("dynamic", "dhcp")


@dataclass(frozen=True, slots=True)
class Managed:
    """How an interface is kept.

    network_file
        The file by which systemd-networkd goes for it; ``None`` if it leaves the interface alone.

    known
        False if that cannot be told now: the interface is away, or not decided about yet.
    """

    interface: str
    network_file: str | None = None
    known: bool = True


def interfaces(cluster: Cluster, director: str) -> tuple[str, ...]:
    """The interfaces on which keepalived puts VIPs on this director; none on who is no director."""
    if director not in cluster.directors:
        return ()
    own = cluster.directors[director].interface
    named = (own or instance.interface for instance in cluster.vrrp_instances.values())
    return tuple(dict.fromkeys(named))


def read(interface: str) -> Managed:
    """Read what systemd-networkd says of an interface.

    Raises :class:`~saltext.lvs.errors.CommandFailed` if that cannot be read.
    """
    if not os.path.isdir(LINKS):
        return Managed(interface)
    number = files.read(f"{NUMBERS}/{interface}/ifindex")
    told = files.read(f"{LINKS}/{number[0].strip()}") if number else None
    if told is None:
        return Managed(interface, known=False)
    state = dict(line.split("=", 1) for line in told[0].splitlines() if "=" in line)
    if state.get("ADMIN_STATE") in UNDECIDED:
        return Managed(interface, known=False)
    return Managed(interface, state.get("NETWORK_FILE") or None)


def plan(names: Iterable[str]) -> tuple[Change, ...]:
    """What has to change for VIPs on these interfaces to stay, and for nothing else to be ours.

    Nothing goes while it cannot be told of an interface which file it needs: see :func:`unknown`.
    """
    managed = [read(name) for name in names]
    paths = [item.network_file for item in managed if item.network_file]
    wanted = [file for path in dict.fromkeys(paths) for file in _files(path)]
    changes = persistence.changes(wanted, ours())
    sure = all(item.known for item in managed)
    return tuple(change for change in changes if change.new is not None or sure)


def unknown(names: Iterable[str]) -> tuple[str, ...]:
    """Those interfaces of which it cannot be told now who keeps them, and by which file."""
    return tuple(name for name in names if not read(name).known)


def write(planned: Iterable[Change]) -> None:
    """Make the changes; what runs is not told, and reads them at its next start or reload.

    Raises :class:`~saltext.lvs.errors.CommandFailed`; those before it have been made.
    """
    for change in planned:
        persistence.write([change])
        if change.new is None:
            # The folder, unless somebody else has files in it too.
            with contextlib.suppress(OSError):
                os.rmdir(os.path.dirname(change.path))


def ours() -> tuple[File, ...]:
    """Our files that are there."""
    paths = sorted(glob.glob(f"{glob.escape(FOLDERS[0])}/*.network.d/{NAME}"))
    found = ((path, files.read(path)) for path in paths)
    return tuple(File(path, text[0], text[1].mode) for path, text in found if text)


def _files(network_file: str) -> Iterator[File]:
    keeping = _needed(_kept(network_file))
    if keeping is not None:
        yield file_of(os.path.basename(network_file), keeping)


def file_of(network_file: str, keeping: str = STATIC) -> File:
    """The file that completes a ``.network`` file, by that one's name."""
    text = "\n".join(
        (
            HEAD,
            "[Network]",
            "# keepalived's VIPs are not in systemd-networkd's own files: it is to leave them.",
            f"KeepConfiguration={keeping}",
            "",
        )
    )
    return File(f"{FOLDERS[0]}/{network_file}.d/{NAME}", text)


def _needed(kept: str) -> str | None:
    """What to say in the place of what others say; ``None`` if that keeps VIPs already."""
    if kept in ENOUGH:
        return None
    # There is no word for both but the one for everything.
    return EVERYTHING if kept.startswith(DYNAMIC) else STATIC


def _kept(network_file: str) -> str:
    """What others say of an interface's addresses: the last word counts."""
    beside: dict[str, str] = {}
    for folder in reversed(FOLDERS):
        pattern = f"{glob.escape(folder)}/{glob.escape(os.path.basename(network_file))}.d/*.conf"
        beside.update({os.path.basename(path): path for path in glob.glob(pattern)})
    beside.pop(NAME, None)
    kept = ""
    for path in (network_file, *(beside[name] for name in sorted(beside))):
        text = files.read(path)
        for value in _values(text[0]) if text else ():
            kept = value
    return kept


def _values(text: str) -> Iterator[str]:
    section = ""
    for line in text.splitlines():
        if heading := re.fullmatch(r"\s*\[(.*)\]\s*", line):
            section = heading[1]
        found = re.fullmatch(r"\s*KeepConfiguration\s*=\s*(.*?)\s*", line)
        if found and section == "Network":
            yield found[1].lower()
