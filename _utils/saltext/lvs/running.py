"""The keepalived that runs: its processes, and what it says of itself when it is asked.

It is asked by a signal, and answers into a file (keepalived's ``vrrp_json.c``), which has the VRRP
passwords in clear: fields are chosen one by one, and the file goes. Where no answer comes in time,
it hangs: that is an answer too.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import glob
import ipaddress
import json
import os
import re
import signal
import stat
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from saltext.lvs import locking, program, rtnetlink
from saltext.lvs.errors import CommandFailed, LvsError, NotAvailable
from saltext.lvs.model import Address, Cluster, VrrpInstance

CONFIG = program.CONFIG
PID_FILE = "/run/keepalived.pid"
# keepalived.conf(5): where `use_pid_dir` has it.
PID_FILE_IN_FOLDER = "/run/keepalived/keepalived.pid"
# One with a name (`instance`), whatever `use_pid_dir` says.
INSTANCE_FOLDER = "/run/keepalived"
VRRP_PID_FILES = ("/run/keepalived/vrrp.pid", "/run/keepalived_vrrp.pid", "/run/vrrp.pid")

# One at a time asks: keepalived has one file for all.
LOCK = "/run/saltext-lvs/keepalived.lock"
DUMP = "keepalived.json"
# It takes some milliseconds, and a loaded machine is no keepalived that hangs.
PATIENCE_SECONDS = 2.0
POLL_SECONDS = 0.005
AGAIN_SECONDS = 0.5
# An instance is described in about a thousand bytes.
LARGEST_DUMP_BYTES = 16 << 20
MOST_PROC_BYTES = 1 << 20
_QUOTED = re.compile(r'"([^"]*)"')
# What the kernel calls the file without a name: in memory, or where tmp_config_directory says.
_CONSOLIDATED = re.compile(r"/memfd:/keepalived/.*|/.*/#\d+ \(deleted\)")
_HEAD = b"# "
# A file of the operator's choice, from 2.3 on.
_DUMP_FILE = re.compile(rb"^\s*json_dump_file\s+\"?([^\s\"]+)", re.MULTILINE)


class State(enum.Enum):
    """What a VRRP instance is, by keepalived's number for it (``vrrp.h``)."""

    INIT = 0
    BACKUP = 1
    MASTER = 2
    FAULT = 3


@dataclass(frozen=True, slots=True)
class Vip:
    """An address that an instance puts on an interface while it is master."""

    address: Address
    interface: str


@dataclass(frozen=True, slots=True)
class Instance:
    """A VRRP instance, as keepalived describes it.

    state, wanted
        What it is, and what it is about to become.

    base_priority, priority
        As configured, and after what is tracked has changed it.

    vips_set
        Whether keepalived believes that it has put the VIPs there.

    last_transition
        In seconds since 1970.

    advert_seconds
        Between two advertisements, by its configuration.

    counters
        Since it started, by keepalived's names.
    """

    name: str
    state: State
    wanted: State
    interface: str
    virtual_router_id: int
    base_priority: int
    priority: int
    vips: tuple[Vip, ...]
    vips_set: bool
    last_transition: float
    advert_seconds: float
    counters: Mapping[str, int] = field(default_factory=dict)


Report = Mapping[str, Instance]


# --------------------------------------------------------------------------------------------------
# Its processes


def process(pid_file: str = PID_FILE, instance: str = "", conf: str = CONFIG) -> int | None:
    """Return the process id of the running keepalived; ``None`` if none runs.

    pid_file
        Where its number is. Only with the usual one the other places count too.

    instance
        Its name, as it is to be. Until it is restarted it may have another one, or none.

    conf
        Its configuration file: several may run, and who has another name is known by it.
    """
    if pid_file != PID_FILE:
        return next(_alive([pid_file]), None)
    unnamed = [pid_file, PID_FILE_IN_FOLDER]
    named = os.path.join(INSTANCE_FOLDER, f"keepalived_{glob.escape(instance)}.pid")
    own = next(_alive(glob.glob(named) if instance else unnamed), None)
    if own is not None:
        return own
    others = glob.glob(os.path.join(INSTANCE_FOLDER, "keepalived_*.pid"))
    found = _alive([*unnamed, *sorted(others)])
    return next((pid for pid in found if runs_with(pid, conf) is not False), None)


def _alive(pid_files: Iterable[str]) -> Iterator[int]:
    for number in map(_number_in, pid_files):
        # After a crash the number may be another program's by now.
        if number is not None and is_keepalived(number):
            yield number


def instance_of(cluster: Cluster, minion_id: str) -> str:
    """The name of a director's keepalived, as the pillar has it; empty for none."""
    own = cluster.directors[minion_id].keepalived
    return instance_in(str(own.sections.get("instance") or own.extra.get("instance") or ""))


def instance_in(argument: str) -> str:
    """The name that is meant by what follows the keyword ``instance``."""
    quoted = _QUOTED.match(argument.strip())
    return quoted[1] if quoted else "".join(argument.split()[:1])


def is_keepalived(pid: int) -> bool:
    """Whether a process is one of keepalived's, and has not ended."""
    try:
        # Not its name in the process table: that is a matter of configuration (process_name).
        found = os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    except OSError:
        return False
    # After an upgrade the file is "(deleted)".
    return found.removesuffix(" (deleted)") == "keepalived"


def children(pid: int) -> tuple[int, ...]:
    """The processes that the running keepalived has started: for VRRP, for checks, for scripts."""
    try:
        text = _proc(pid, f"task/{pid}/children")
    except OSError:
        return ()
    return tuple(int(word) for word in text.split() if word.isdigit())


def vrrp_process(pid: int) -> int | None:
    """The one of them that speaks VRRP; ``None`` where it cannot be told, or is not there yet."""
    known = children(pid)
    named = (_number_in(f"/proc/{pid}/root{path}") for path in _vrrp_pid_files(pid))
    return next((number for number in named if number in known), None)


def switches(pid: int) -> int | None:
    """How often a process has gone to sleep, which one that works does for each timer and each
    packet; ``None`` if it has ended.
    """
    return _status(pid).get("voluntary_ctxt_switches")


def runs_with(pid: int, conf: str) -> bool | None:
    """Whether a running keepalived has this configuration file; ``None`` where that is not to be
    seen.
    """
    source = source_of(pid)
    if source is None:
        return None
    if os.path.realpath(source) == os.path.realpath(conf):
        return True
    try:
        # It may have other file systems.
        return os.path.samefile(f"/proc/{pid}/root{source}", conf)
    except OSError:
        return False


def source_of(pid: int) -> str | None:
    """The path of the configuration file that a running keepalived has read; ``None`` where it is
    not to be seen.
    """
    path = consolidated(pid)
    try:
        if path is not None:
            with open(path, "rb") as file:
                first = os.fsdecode(file.readline(MOST_PROC_BYTES))
            return os.path.join(_folder(pid), first.removeprefix(_HEAD.decode()).rstrip("\n"))
    except OSError:
        pass
    return None


def consolidated(pid: int) -> str | None:
    """Where a running keepalived keeps what it has read, its includes in place; ``None`` where that
    is not to be found.
    """
    for path in glob.glob(f"/proc/{pid}/fd/*"):
        with contextlib.suppress(OSError):
            if _CONSOLIDATED.fullmatch(os.readlink(path)) and _begins_with_a_name(path):
                return path
    return None


def _begins_with_a_name(path: str) -> bool:
    """Whether it is the right one of files without a name: it begins with that of its source."""
    with open(path, "rb") as file:
        return file.read(len(_HEAD)) == _HEAD


def _vrrp_pid_files(pid: int) -> Iterator[str]:
    with contextlib.suppress(OSError):
        words = [os.fsdecode(word) for word in _proc(pid, "cmdline").split(b"\0")]
        for option, value in zip(words, [*words[1:], ""], strict=True):
            if option in ("-r", "--vrrp_pid"):
                yield os.path.join(_folder(pid), value)
            elif option.startswith("--vrrp_pid="):
                yield os.path.join(_folder(pid), option.partition("=")[2])
    yield from VRRP_PID_FILES
    root = f"/proc/{pid}/root"
    for path in glob.glob(f"{root}{INSTANCE_FOLDER}/vrrp_*.pid"):
        yield path.removeprefix(root)


def _folder(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/cwd")


def _number_in(path: str) -> int | None:
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read(32))
    except (OSError, ValueError):
        return None


def _proc(pid: int, name: str) -> bytes:
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return file.read(MOST_PROC_BYTES)


def _status(pid: int) -> dict[str, int]:
    """The numbers among what the kernel says of a process; signals as it writes them."""
    found = {}
    with contextlib.suppress(OSError):
        for line in _proc(pid, "status").decode("ascii", "replace").splitlines():
            name, _, value = line.partition(":")
            with contextlib.suppress(ValueError):
                found[name] = int(value, 16 if name.startswith(("Sig", "Shd")) else 10)
    return found


# --------------------------------------------------------------------------------------------------
# Ask it


class Question:
    """One question to the running keepalived, from the signal to the answer.

    While it is open nobody else asks. Whoever opens one closes it, in the same thread.

    pid
        That of keepalived's first process.

    Raises :class:`~saltext.lvs.errors.NotAvailable` where it cannot be asked, and
    :class:`BlockingIOError` if somebody else is asking, and *wait* is False.
    """

    def __init__(self, pid: int, wait: bool = True) -> None:
        self.pid = pid
        self.asked_at = time.monotonic()
        self._closing = ExitStack()
        with ExitStack() as opening:
            if not opening.enter_context(locking.exclusive(LOCK, wait)):
                raise BlockingIOError
            self.asked_at = time.monotonic()
            self._paths = _dump_paths(pid)
            # It replaces whatever else is in its way.
            if os.path.isdir(self._paths[0]):
                raise NotAvailable(f"keepalived cannot answer: {self._paths[0]} is a folder")
            self._before = {path: _mark(path) for path in self._paths}
            self._sent_at = self.asked_at
            send(pid, signal_number())
            self._closing = opening.pop_all()

    def answer(self) -> Report | None:
        """What it has answered; ``None`` while that is not there, or not there as a whole.

        A reload makes keepalived forget the question: it is asked again.

        Raises :class:`~saltext.lvs.errors.CommandFailed` for a file that is not keepalived's, and
        :class:`~saltext.lvs.errors.NotAvailable` where it has ended.
        """
        for path in self._paths:
            found = _read_dump(path, self._before[path])
            if found is not None:
                return found
        if time.monotonic() - self._sent_at > AGAIN_SECONDS:
            self._sent_at = time.monotonic()
            send(self.pid, signal_number())
        return None

    def passed(self) -> float:
        """For how many seconds it has been open."""
        return time.monotonic() - self.asked_at

    def close(self) -> None:
        """Let others ask."""
        self._closing.close()

    def __enter__(self) -> Question:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def ask(pid: int, seconds: float = PATIENCE_SECONDS) -> Report | None:
    """Ask keepalived how its VRRP instances are; ``None`` if it has not answered in time: it hangs.

    One without any VRRP instance never answers.

    pid
        That of keepalived's first process.

    seconds
        How long to wait for the answer.

    Raises :class:`~saltext.lvs.errors.NotAvailable` where it cannot be asked: it has ended or has
    not yet started all its processes, or was built without JSON.
    """
    with Question(pid) as question:
        while True:
            found = question.answer()
            if found is not None or question.passed() > seconds:
                return found
            if not is_keepalived(pid):
                raise NotAvailable("keepalived has ended")
            time.sleep(POLL_SECONDS)


def signal_number() -> int:
    """The signal for a dump in JSON: its number is keepalived's own matter.

    Raises :class:`~saltext.lvs.errors.NotAvailable` for a keepalived that knows of none.
    """
    path = program.path()
    # A newer one may have another.
    number = _signal_number(path, os.stat(path).st_mtime_ns)
    if number is None:
        raise NotAvailable("this keepalived cannot be asked: it was built without JSON")
    return number


@functools.lru_cache(maxsize=4)
def _signal_number(path: str, changed: int) -> int | None:
    status, said = program.run(["--signum=JSON"])
    number = said.strip()
    if status or not number.isdigit() or not 0 < int(number) < signal.NSIG:
        return None
    return int(number)


def send(pid: int, number: int) -> None:
    """Send keepalived a signal, unless that would do harm or do nothing.

    pid
        That of keepalived's first process.

    Raises :class:`~saltext.lvs.errors.NotAvailable` for one that has ended, and for one that has
    just started: it would be ended by a signal that it does not handle yet.
    """
    mask = 1 << (number - 1)
    for one in (pid, *children(pid)):
        status = _status(one)
        if one == pid and not mask & (status.get("SigBlk", 0) | status.get("SigCgt", 0)):
            raise NotAvailable("keepalived has not started yet, or has ended")
        # What hangs gets no more than one: it would answer them all, some time.
        if mask & (status.get("SigPnd", 0) | status.get("ShdPnd", 0)):
            return
    try:
        handle = os.pidfd_open(pid)
    except OSError as error:
        raise NotAvailable("keepalived has ended") from error
    try:
        # The number may have become another program's: from here on it cannot.
        if not is_keepalived(pid):
            raise NotAvailable("keepalived has ended")
        signal.pidfd_send_signal(handle, number)
    except OSError as error:
        raise NotAvailable(f"keepalived cannot be asked: {error.strerror}") from error
    finally:
        os.close(handle)


def _dump_paths(pid: int) -> tuple[str, ...]:
    """Where the dump comes, as seen from here: systemd gives keepalived a /tmp of its own."""
    try:
        variables = dict(
            line.partition(b"=")[::2] for line in _proc(pid, "environ").split(b"\0") if line
        )
    except OSError as error:
        raise NotAvailable("keepalived has ended") from error
    folder = os.fsdecode(variables.get(b"TMPDIR") or b"/tmp")
    found = [os.path.join(folder, DUMP)]
    with contextlib.suppress(OSError):
        found += map(os.fsdecode, _DUMP_FILE.findall(_configuration(pid)))
    return tuple(f"/proc/{pid}/root{path}" for path in found if path.startswith("/"))


def _configuration(pid: int) -> bytes:
    """What it has read; nothing where it is not to be found."""
    path = consolidated(pid)
    if path is None:
        return b""
    with open(path, "rb") as file:
        return file.read(LARGEST_DUMP_BYTES)


Mark = tuple[int, int, int]


def _mark(path: str) -> Mark | None:
    """What tells one dump from the next."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_ctime_ns


def _read_dump(path: str, before: Mark | None) -> Report | None:
    """Take away the dump that has come since, if it is there as a whole."""
    if _mark(path) in (None, before):
        return None
    try:
        # In a folder where anybody may write, what has the name may be anybody's.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CommandFailed(f"{path} is not keepalived's: {error.strerror}") from error
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink > 1:
        os.close(descriptor)
        raise CommandFailed(f"{path} is not keepalived's: it is no file of root's own")
    with open(descriptor, "rb") as file:
        report = parse(file.read(LARGEST_DUMP_BYTES))
    if report is not None:
        with contextlib.suppress(OSError):
            os.unlink(path)
    return report


# --------------------------------------------------------------------------------------------------
# Read its answer


def parse(text: bytes) -> Report | None:
    """The instances in a dump, in either of its two layouts; ``None`` for one that is not whole."""
    try:
        written = json.loads(text)
    except (ValueError, RecursionError):
        return None
    # {"vrrp": [...]} with `json_version 2`, from 2.2.8 on; [...] otherwise.
    listed = written.get("vrrp") if isinstance(written, dict) else written
    if not isinstance(listed, list):
        return None
    found = (_instance(item) for item in listed)
    return {item.name: item for item in found if item is not None}


def _instance(item: object) -> Instance | None:
    data = item.get("data") if isinstance(item, dict) else None
    if not isinstance(item, dict) or not isinstance(data, dict):
        return None
    try:
        return Instance(
            name=str(data["iname"]),
            state=State(data["state"]),
            wanted=_state(data.get("wantstate"), data["state"]),
            interface=str(data.get("ifp_ifname", "")),
            virtual_router_id=int(data["vrid"]),
            base_priority=int(data["base_priority"]),
            priority=int(data["effective_priority"]),
            vips=tuple(_vips(data)),
            vips_set=bool(data.get("vipset")),
            last_transition=float(data["last_transition"]),
            advert_seconds=float(data["adver_int"]),
            counters=_counters(item.get("stats")),
        )
    except (LookupError, TypeError, ValueError, OverflowError):
        return None


def _state(number: object, otherwise: int) -> State:
    try:
        return State(number)
    except ValueError:
        return State(otherwise)


def _vips(data: Mapping[str, Any]) -> Iterator[Vip]:
    """From ``10.10.10.10/24 dev eth0 scope global label eth0:1 set``."""
    for text in [*data.get("vips", ()), *data.get("evips", ())]:
        words = str(text).split()
        device = words[words.index("dev") + 1] if "dev" in words[:-1] else data["ifp_ifname"]
        yield Vip(ipaddress.ip_interface(words[0]).ip, str(device).partition("@")[0])


def _counters(stats: object) -> dict[str, int]:
    if not isinstance(stats, dict):
        return {}
    return {str(name): value for name, value in stats.items() if type(value) is int}


# --------------------------------------------------------------------------------------------------
# Status


def planned(cluster: Cluster, minion_id: str) -> dict[str, tuple[Vip, ...]]:
    """The VIPs that a director holds as master, by VRRP instance, as the pillar has them."""
    instances = cluster.directors[minion_id].vrrp_instances
    return {name: tuple(_planned(one)) for name, one in instances.items()}


def _planned(instance: VrrpInstance) -> Iterator[Vip]:
    # They are on an interface of keepalived's own making then.
    elsewhere = any(instance.options.get(word) for word in ("use_vmac", "use_ipvlan"))
    for vip in instance.vips:
        interface = vip.interface or ("" if elsewhere else instance.interface)
        yield Vip(vip.ip, interface)


def here() -> frozenset[Vip]:
    """All addresses that this machine's interfaces hold.

    Raises :class:`~saltext.lvs.errors.KernelError` if the kernel does not answer.
    """
    return frozenset(
        Vip(held.address.ip, link.name) for link in rtnetlink.read_all() for held in link.addresses
    )


def holds(held: Collection[Vip], vip: Vip) -> bool:
    """Whether an address is where it belongs; anywhere, where no interface is named."""
    return vip in held or (not vip.interface and any(vip.address == one.address for one in held))


def status(
    wanted: Mapping[str, Sequence[Vip]],
    held: Collection[Vip],
    pid_file: str = PID_FILE,
    seconds: float = PATIENCE_SECONDS,
    instance: str = "",
) -> dict[str, Any]:
    """Return how keepalived is: whether it runs and answers, and how its VRRP instances are.

    wanted
        The VIPs by instance as the pillar has them, for as long as keepalived has not said its own.

    held
        All addresses of this machine.

    seconds
        How long to wait for keepalived.

    instance
        keepalived's own name, see :func:`process`.
    """
    pid = process(pid_file, instance)
    report, why = _asked(pid, seconds)
    vips = {**wanted} | {name: one.vips for name, one in (report or {}).items()}
    return {
        "running": pid is not None,
        "hanging": pid is not None and report is None and not why,
        "pid": pid,
        "version": _unless_missing(program.version),
        "why": why,
        "vrrp_instances": {
            name: {
                **_told((report or {}).get(name)),
                "vips": [str(vip.address) for vip in some],
                "vips_held": [str(vip.address) for vip in some if holds(held, vip)],
            }
            for name, some in vips.items()
        },
    }


def _asked(pid: int | None, seconds: float) -> tuple[Report | None, str]:
    """What it has answered, and why it could not be asked."""
    if pid is None:
        return None, "keepalived does not run"
    try:
        report = ask(pid, seconds)
    except LvsError as error:
        return None, str(error)
    if report is None and vrrp_process(pid) is None and not children(pid):
        return None, "keepalived has no VRRP instance"
    return report, ""


def _told(one: Instance | None) -> dict[str, Any]:
    if one is None:
        return {"state": None, "priority": None, "last_transition": None}
    return {
        "state": one.state.name,
        "priority": one.priority,
        "base_priority": one.base_priority,
        "interface": one.interface,
        "last_transition": one.last_transition,
        "advertisements_sent": one.counters.get("advert_sent"),
        "advertisements_received": one.counters.get("advert_rcvd"),
    }


def stats(
    pid_file: str = PID_FILE, seconds: float = PATIENCE_SECONDS, instance: str = ""
) -> dict[str, dict[str, int]]:
    """Return what keepalived has counted since it started, by VRRP instance and its own names.

    Raises :class:`~saltext.lvs.errors.NotAvailable` where it does not run or cannot be asked, and
    :class:`~saltext.lvs.errors.CommandFailed` where it does not answer.
    """
    report, why = _asked(process(pid_file, instance), seconds)
    if why:
        raise NotAvailable(why)
    if report is None:
        raise CommandFailed(f"keepalived does not answer within {seconds:g} s: it hangs")
    return {name: dict(one.counters) for name, one in report.items()}


def _unless_missing(ask: Callable[[], str]) -> str | None:
    try:
        return ask()
    except NotAvailable:
        return None
