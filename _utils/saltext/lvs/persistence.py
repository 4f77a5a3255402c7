"""What brings a real server's VIPs back at the next boot, before Salt runs or without it.

Whatever keeps a machine's network is told of the dummy interface in its own words, in files of our
own; an interface that is there without us, such as the loopback, only gets its VIPs. They say what
is there already, so that a program that reads them again finds nothing to do; nothing here touches
an interface. :func:`files_of` and :func:`changes` are pure functions.
"""

from __future__ import annotations

import contextlib
import difflib
import fnmatch
import glob
import ipaddress
import os
import re
import stat
import subprocess
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from saltext.lvs import files, links
from saltext.lvs.errors import CommandFailed, InvalidConfig
from saltext.lvs.model import Interface, VipPersistence

# Where every distribution with the usual folders has it; what runs at boot has no search path.
IP = "/sbin/ip"
HEAD = "# Salt writes this file (dummy.present): VIPs for the next boot."
NAME = "saltext-lvs-vip"

NETWORKD = "/etc/systemd/network"
INTERFACES = "/etc/network/interfaces"
KEYFILES = "/etc/NetworkManager/system-connections"
UNITS = "/etc/systemd/system"

LINK_MODE = 0o777
SYSTEMCTL_SECONDS = 10
NOT_TOLD = "not shown, as it may hold what nobody else is to know\n"


# --------------------------------------------------------------------------------------------------
# Which program


# In the order in which they are asked: where two are in use, the earlier one is the more likely to
# keep interfaces that nobody told it of.
SERVICES = {
    VipPersistence.NETWORKD: "systemd-networkd",
    VipPersistence.NETWORK_MANAGER: "NetworkManager",
    VipPersistence.IFUPDOWN: "networking",
}
# systemctl(1), is-enabled: the states in which a unit starts at the next boot.
ENABLED = ("enabled", "enabled-runtime", "alias", "generated", "static")


@dataclass(frozen=True, slots=True)
class Facts:
    """What a machine says of how its network is kept.

    systemd
        Whether it was booted with systemd.

    enabled, running
        Those of the :data:`SERVICES` that start at the next boot, and those that run now.

    interfaces
        The text of ``/etc/network/interfaces``; ``None`` without ifupdown.
    """

    systemd: bool = False
    enabled: frozenset[str] = frozenset()
    running: frozenset[str] = frozenset()
    interfaces: str | None = None


def choose(asked: VipPersistence, facts: Facts, existing: bool = False) -> VipPersistence:
    """Whom to tell: the one that is asked for or, with ``auto``, the one that is in use.

    What is enabled counts, for it is there after a boot; of two that are, the one that runs. Never
    ``auto``; :attr:`~saltext.lvs.model.VipPersistence.NONE` where nothing would listen.

    existing
        The interface is there without us: then a unit of our own adds the VIPs, and ifupdown where
        there is no systemd.

    Raises :class:`~saltext.lvs.errors.InvalidConfig` if another is asked for then.
    """
    if existing:
        return _choose_for_existing(asked, facts)
    if asked is not VipPersistence.AUTO:
        return asked
    for group in (facts.enabled & facts.running, facts.enabled):
        for kind, service in SERVICES.items():
            if service in group:
                return kind
    return VipPersistence.UNIT if facts.systemd else VipPersistence.NONE


def _choose_for_existing(asked: VipPersistence, facts: Facts) -> VipPersistence:
    if asked in (VipPersistence.NETWORKD, VipPersistence.NETWORK_MANAGER):
        raise InvalidConfig(
            "vip_persistence",
            asked.value,
            "systemd, ifupdown or auto for an interface that is there already: in the files of "
            f"{asked.value} one interface has one owner, and that would be ours",
        )
    if asked is not VipPersistence.AUTO:
        return asked
    if facts.systemd:
        return VipPersistence.UNIT
    has_ifupdown = SERVICES[VipPersistence.IFUPDOWN] in facts.enabled
    return VipPersistence.IFUPDOWN if has_ifupdown else VipPersistence.NONE


def warnings(
    asked: VipPersistence, interface: str, facts: Facts, existing: bool = False
) -> tuple[str, ...]:
    """Why the interface might not come back although its files are right, as sentences."""
    kind = choose(asked, facts, existing)
    what = f"{interface} has no VIPs" if existing else f"{interface} stays away"
    stays_away = f"after a reboot {what} until Salt runs"
    if kind is VipPersistence.NONE:
        if asked is VipPersistence.NONE:
            return ()
        return (
            f"{stays_away}: neither systemd nor systemd-networkd, NetworkManager or ifupdown is in "
            "use here",
        )
    found = []
    service = SERVICES.get(kind)
    if service and service not in facts.enabled:
        found.append(f"{stays_away}: the service {service} is not enabled")
    if kind is VipPersistence.UNIT and not facts.systemd:
        found.append(f"{stays_away}: this machine was not booted with systemd")
    if kind is VipPersistence.UNIT and existing and not links.is_named_by_kernel(interface):
        found.append(
            f"{stays_away}, unless {interface} is there before network.target: our unit does not "
            "wait for whatever makes it"
        )
    if kind is VipPersistence.IFUPDOWN and not _is_sourced(interface, facts.interfaces or ""):
        found.append(
            f"{stays_away}: {INTERFACES} does not read the files beside it; it needs a line "
            f"`source {INTERFACES}.d/*`"
        )
    return tuple(found)


def _is_sourced(interface: str, text: str) -> bool:
    """Whether ifupdown's main file reads ours (interfaces(5), "source" and "source-directory")."""
    path = _ifupdown_path(interface)
    for word, pattern in re.findall(r"^\s*(source(?:-directory)?)\s+(\S+)", text, re.MULTILINE):
        place = os.path.join(os.path.dirname(INTERFACES), pattern).rstrip("/")
        target = path if word == "source" else os.path.dirname(path)
        if fnmatch.fnmatchcase(target, place):
            return True
    return False


def read_facts() -> Facts:
    """Ask this machine; it takes one run of systemctl where there is systemd.

    Raises :class:`~saltext.lvs.errors.CommandFailed` if systemd does not answer.
    """
    found = files.read(INTERFACES)
    interfaces = found[0] if found else None
    # sd_booted(3)
    if os.path.isdir("/run/systemd/system"):
        enabled, running = _systemd_services(_systemctl_show())
        return Facts(True, enabled, running, interfaces)
    # Debian's and OpenRC's links to what they start at boot; there ifupdown needs no daemon.
    links = [*glob.glob("/etc/rcS.d/S??networking"), *glob.glob("/etc/runlevels/*/networking")]
    at_boot = any(map(os.path.exists, links))
    ifupdown = frozenset({SERVICES[VipPersistence.IFUPDOWN]} if at_boot else ())
    return Facts(False, ifupdown, ifupdown, interfaces)


def _systemctl_show() -> str:
    units = [f"{service}.service" for service in SERVICES.values()]
    command = ["systemctl", "show", "--property=UnitFileState,ActiveState", *units]
    return run(
        command,
        SYSTEMCTL_SECONDS,
        "cannot ask systemd which services there are",
        "systemd does not say which services there are",
    )


def run(command: Sequence[str], seconds: float, cannot: str, refused: str) -> str:
    """What a program says that must not fail; both texts are the begin of a sentence.

    cannot, refused
        What it means where it cannot be run, and where it fails.

    Raises :class:`~saltext.lvs.errors.CommandFailed`.
    """
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            text=True,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandFailed(f"{cannot}: {error}") from error
    if done.returncode:
        raise CommandFailed(f"{refused}: {done.stderr.strip()}")
    return done.stdout


def _systemd_services(shown: str) -> tuple[frozenset[str], frozenset[str]]:
    """The enabled and the running services, from what ``systemctl show`` says of each."""
    enabled, running = set(), set()
    for service, block in zip(SERVICES.values(), shown.strip().split("\n\n"), strict=True):
        properties = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if properties.get("UnitFileState") in ENABLED:
            enabled.add(service)
        if properties.get("ActiveState") == "active":
            running.add(service)
    return frozenset(enabled), frozenset(running)


# --------------------------------------------------------------------------------------------------
# Which files


@dataclass(frozen=True, slots=True)
class File:
    """A file as it is or should be.

    target
        Where a symbolic link leads; such a "file" has no text.

    told
        Whether its text may be seen by whoever sees what changes.
    """

    path: str
    text: str = ""
    mode: int = 0o644
    target: str | None = None
    told: bool = field(default=True, compare=False)


def files_of(
    kind: VipPersistence, interface: str, vips: Sequence[Interface], existing: bool = False
) -> tuple[File, ...]:
    """The files that make one program bring up a dummy interface with its VIPs; none for ``NONE``.

    vips
        As of :func:`saltext.lvs.links.as_vips`.

    existing
        The interface is there without us: only the VIPs come and go. Without one there is nothing
        to write.
    """
    if existing and not vips:
        return ()
    render = (FOR_EXISTING if existing else RENDERERS).get(kind)
    return tuple(render(interface, vips)) if render else ()


def _stem(interface: str) -> str:
    """Our name for an interface's files: letters, digits, dash and underscore, which every program
    takes (ifupdown passes over other names, "@" has a meaning to systemd).
    """
    encoded = re.sub("[^A-Za-z0-9_]", lambda found: f"-{ord(found[0]):02x}", interface)
    return f"{NAME}-{encoded}"


def _text(*lines: str) -> str:
    return "\n".join([HEAD, *lines, ""])


def _networkd(interface: str, vips: Sequence[Interface]) -> Iterator[File]:
    # The first file that matches an interface has it to itself, in the order of their names: before
    # one that matches them all.
    path = f"{NETWORKD}/05-{_stem(interface)}"
    yield File(f"{path}.netdev", _text("[NetDev]", f"Name={interface}", "Kind=dummy"))
    addresses: list[str] = []
    for vip in vips:
        addresses += ["", "[Address]", f"Address={vip}", "AddPrefixRoute=no"]
        if vip.version == 6:
            addresses.append("DuplicateAddressDetection=none")
    yield File(
        f"{path}.network",
        _text(
            "[Match]",
            f"Name={interface}",
            "",
            "[Link]",
            "ARP=no",
            "RequiredForOnline=no",
            "",
            "[Network]",
            "ConfigureWithoutCarrier=yes",
            "LinkLocalAddressing=no",
            "IPv6AcceptRA=no",
            "# A restart of systemd-networkd takes no address away.",
            "KeepConfiguration=static",
            *addresses,
        ),
    )


def _ifupdown(interface: str, vips: Sequence[Interface]) -> Iterator[File]:
    there = f"{IP} link show dev {interface} >/dev/null 2>&1"
    yield File(
        _ifupdown_path(interface),
        _text(
            f"auto {interface}",
            f"iface {interface} inet manual",
            f"    pre-up {there} || {IP} link add name {interface} type dummy",
            f"    up {IP} link set dev {interface} up arp off",
            *(f"    up {' '.join(command)}" for command in _address_commands(interface, vips)),
            f"    post-down ! {there} || {IP} link delete dev {interface} type dummy",
        ),
    )


def _ifupdown_path(interface: str) -> str:
    return f"{INTERFACES}.d/{_stem(interface)}"


def _network_manager(interface: str, vips: Sequence[Interface]) -> Iterator[File]:
    path = f"{KEYFILES}/{_stem(interface)}.nmconnection"
    lines = [
        "[connection]",
        f"id={_stem(interface)}",
        # NetworkManager wants one that stays the same.
        f"uuid={uuid.uuid5(uuid.NAMESPACE_URL, f'file://{path}')}",
        "type=dummy",
        f"interface-name={interface}",
        "autoconnect=true",
    ]
    for version in (4, 6):
        own = [vip for vip in vips if vip.version == version]
        lines += ["", f"[ipv{version}]"]
        lines += [f"address{number}={vip}" for number, vip in enumerate(own, 1)]
        lines += (
            ["method=manual", "never-default=true", "may-fail=false"]
            if own
            else ["method=disabled"]
        )
    # It reads no file that others may read.
    yield File(path, _text(*lines), files.PRIVATE)


def _ifupdown_existing(interface: str, vips: Sequence[Interface]) -> Iterator[File]:
    # ifupdown carries out all stanzas of one interface: the loopback's own is in the main file.
    yield File(
        _ifupdown_path(interface),
        _text(
            f"auto {interface}",
            f"iface {interface} inet manual",
            f"    up {IP} link set dev {interface} up",
            *(f"    up {' '.join(command)}" for command in _address_commands(interface, vips)),
            *(f"    down {' '.join(command)} || true" for command in _removals(interface, vips)),
        ),
    )


def _unit(interface: str, vips: Sequence[Interface]) -> Iterator[File]:
    start = [
        # The dash: it may be there already.
        ["-" + IP, "link", "add", "name", interface, "type", "dummy"],
        [IP, "link", "set", "dev", interface, "up", "arp", "off"],
        *_address_commands(interface, vips),
    ]
    return _unit_files(
        interface, start, [["-" + IP, "link", "delete", "dev", interface, "type", "dummy"]]
    )


def _unit_existing(interface: str, vips: Sequence[Interface]) -> Iterator[File]:
    start = [[IP, "link", "set", "dev", interface, "up"], *_address_commands(interface, vips)]
    stop = [["-" + command[0], *command[1:]] for command in _removals(interface, vips)]
    return _unit_files(interface, start, stop)


def _unit_files(
    interface: str, start: Iterable[Sequence[str]], stop: Iterable[Sequence[str]]
) -> Iterator[File]:
    name = f"{_stem(interface)}.service"
    yield File(
        f"{UNITS}/{name}",
        _text(
            "[Unit]",
            f"Description=VIPs of a real server on {interface}",
            "# Modules and ARP settings come first; who needs a VIP comes after.",
            "DefaultDependencies=no",
            "After=local-fs.target systemd-modules-load.service systemd-sysctl.service",
            "After=network-pre.target",
            "Before=network.target network-online.target keepalived.service shutdown.target",
            "Wants=network.target",
            "Conflicts=shutdown.target",
            "",
            "[Service]",
            "Type=oneshot",
            "RemainAfterExit=yes",
            *(f"ExecStart={' '.join(command)}" for command in start),
            *(f"ExecStop={' '.join(command)}" for command in stop),
            "",
            "[Install]",
            "WantedBy=multi-user.target",
        ),
    )
    # As `systemctl enable` does it.
    yield File(f"{UNITS}/multi-user.target.wants/{name}", mode=LINK_MODE, target=f"{UNITS}/{name}")


def _address_commands(interface: str, vips: Iterable[Interface]) -> Iterator[list[str]]:
    """What puts VIPs on an interface; "replace" adds one, or finds it there."""
    for vip in vips:
        quiet = ["nodad"] if vip.version == 6 else []
        yield [IP, "address", "replace", str(vip), "dev", interface, "noprefixroute", *quiet]


def _removals(interface: str, vips: Iterable[Interface]) -> Iterator[list[str]]:
    for vip in vips:
        yield [IP, "address", "delete", str(vip), "dev", interface]


Renderer = Callable[[str, Sequence[Interface]], Iterable[File]]
RENDERERS: Mapping[VipPersistence, Renderer] = {
    VipPersistence.NETWORKD: _networkd,
    VipPersistence.IFUPDOWN: _ifupdown,
    VipPersistence.NETWORK_MANAGER: _network_manager,
    VipPersistence.UNIT: _unit,
}
FOR_EXISTING: Mapping[VipPersistence, Renderer] = {
    VipPersistence.IFUPDOWN: _ifupdown_existing,
    VipPersistence.UNIT: _unit_existing,
}


# --------------------------------------------------------------------------------------------------
# What differs


@dataclass(frozen=True, slots=True)
class Change:
    """A file that comes, changes or goes; ``None`` is "not there"."""

    path: str
    old: File | None
    new: File | None

    def __str__(self) -> str:
        return f"write {self.path}" if self.new else f"remove {self.path}"

    def as_data(self) -> dict[str, object]:
        """As Salt reports changes: a ``diff``, and the mode where that changes."""
        found: dict[str, object] = {}
        old, new = _lines(self.old), _lines(self.new)
        if old != new and not all(file.told for file in (self.old, self.new) if file):
            found["diff"] = NOT_TOLD
        elif old != new:
            found["diff"] = "".join(
                difflib.unified_diff(
                    old,
                    new,
                    self.path if self.old else "/dev/null",
                    self.path if self.new else "/dev/null",
                )
            )
        if self.old and self.new and self.old.mode != self.new.mode:
            found["mode"] = {"old": f"{self.old.mode:04o}", "new": f"{self.new.mode:04o}"}
        return found


class Planned(Protocol):
    """Something that changes what the next boot does, as a :class:`Change` does."""

    @property
    def path(self) -> str: ...

    def as_data(self) -> dict[str, object]: ...


def told(planned: Sequence[Planned]) -> dict[str, Any]:
    """Changes as functions return them: ``operations``, sentences, and ``changes``."""
    return {
        "operations": [str(change) for change in planned],
        "changes": {change.path: change.as_data() for change in planned},
    }


def _lines(file: File | None) -> list[str]:
    if file is None:
        return []
    if file.target is not None:
        return [f"link to {file.target}\n"]
    return file.text.splitlines(keepends=True)


def changes(wanted: Iterable[File], current: Iterable[File]) -> tuple[Change, ...]:
    """What has to change for the wanted files to be there, and no other of ours.

    New files come before old ones go: a power cut in between leaves too much rather than nothing.
    """
    old = {file.path: file for file in current}
    new = {file.path: file for file in wanted}
    return (
        *(Change(path, old.get(path), file) for path, file in new.items() if file != old.get(path)),
        *(Change(path, file, None) for path, file in old.items() if path not in new),
    )


# --------------------------------------------------------------------------------------------------
# Read and write


def read(interface: str) -> tuple[File, ...]:
    """The files for an interface that are there, whichever program they are for.

    Raises :class:`~saltext.lvs.errors.CommandFailed` for one that cannot be read.
    """
    paths = [file.path for kind in RENDERERS for file in files_of(kind, interface, ())]
    return tuple(file for file in map(read_file, paths) if file is not None)


def read_file(path: str) -> File | None:
    """A file as it is, or a symbolic link; None where there is none.

    Raises :class:`~saltext.lvs.errors.CommandFailed` for one that cannot be read.
    """
    try:
        if stat.S_ISLNK(os.lstat(path).st_mode):
            return File(path, mode=LINK_MODE, target=os.readlink(path))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        # Who may not look into a folder has not written there either.
        return None
    except OSError as error:
        raise CommandFailed(f"cannot read {path}: {error.strerror}") from error
    found = files.read(path)
    return File(path, found[0], found[1].mode) if found else None


def recorded(interface: str) -> frozenset[Interface]:
    """The VIPs that our files name: at a boot somebody else puts them there, without our mark."""
    return frozenset(vip for file in read(interface) for vip in _vips_in(file.text))


def _vips_in(text: str) -> Iterator[Interface]:
    for word in re.findall(r"(?<![\w.:/])[0-9A-Fa-f:.]+/[0-9]{1,3}(?!\w)", text):
        with contextlib.suppress(ValueError):
            yield ipaddress.ip_interface(word)


def plan(
    interface: str, vips: Sequence[Interface], kind: VipPersistence, existing: bool = False
) -> tuple[Change, ...]:
    """What would change among an interface's files, see :func:`changes`."""
    return changes(files_of(kind, interface, vips, existing), read(interface))


def write(planned: Iterable[Change]) -> None:
    """Make the changes, each at once or not at all.

    Raises :class:`~saltext.lvs.errors.CommandFailed`; those before it have been made.
    """
    for change in planned:
        if change.new is None:
            _remove(change.path)
        elif change.new.target is not None:
            _link(change.path, change.new.target)
        else:
            _write(change.new)


def _write(file: File) -> None:
    _make_folder(file.path)
    with files.beside(file.path, file.text) as temporary:
        files.set_access(temporary, files.Access(file.mode, os.geteuid(), os.getegid()))
        files.move(temporary, file.path)


def _link(path: str, target: str) -> None:
    _make_folder(path)
    temporary = f"{path}.new"
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        os.symlink(target, temporary)
    except OSError as error:
        raise CommandFailed(f"cannot write {path}: {error.strerror}") from error
    files.move(temporary, path)


def _make_folder(path: str) -> None:
    folder = os.path.dirname(path)
    try:
        os.makedirs(folder, mode=0o755, exist_ok=True)
    except OSError as error:
        raise CommandFailed(f"cannot make {folder}: {error.strerror}") from error


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise CommandFailed(f"cannot remove {path}: {error.strerror}") from error
