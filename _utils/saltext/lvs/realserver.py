"""A real server's VIPs: hold them, see whether they are held, put them back, let go of them.

Here the parts come together: what should be (:class:`~saltext.lvs.links.Duty`), what the kernel has
(:mod:`~saltext.lvs.rtnetlink`), what would be heard of it (:mod:`~saltext.lvs.arp`), and who needs
it (:mod:`~saltext.lvs.sockets`).
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

from saltext.lvs import arp, files, links, locking, persistence, routes, rtnetlink, sockets
from saltext.lvs.errors import CommandFailed, InUse
from saltext.lvs.links import Action, Duty, Op
from saltext.lvs.model import Address, Interface

REPAIR = f"{locking.FOLDER}/dummy-repair"
ASKED = f"{locking.FOLDER}/dummy-repair-asked"
REPAIRED = f"{locking.FOLDER}/dummy-repaired"
# An event can be forged, and every one starts a repair: this bounds how often one touches anything.
SECONDS_BETWEEN_REPAIRS = 3.0
# A VIP that is no longer wanted stays until nobody has used it for so long. The directors may be
# told later than this machine: until then they go on sending clients here.
LEAVE_AFTER_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Leaving:
    """A VIP that is no longer wanted, and stays until nobody uses it.

    connections
        How many connections this machine has with it.

    since
        When it was last seen used, or was given up, in seconds since 1970.
    """

    vip: Interface
    connections: int
    since: float

    def __str__(self) -> str:
        if self.connections:
            plural = "s" if self.connections > 1 else ""
            return f"{self.vip} stays for now: {self.connections} open connection{plural}"
        return (
            f"{self.vip} stays for now: it goes once nobody has used it for "
            f"{LEAVE_AFTER_SECONDS:g} seconds"
        )


@dataclass(frozen=True, slots=True)
class Planned:
    """What has to be done for a real server to hold its VIPs, and what has to wait.

    given_up
        Those of the leaving ones that no apply has given up before.

    unwatched
        Wanted VIPs that are held and that no apply has noted, so that nobody would miss them.

    foreign
        Addresses on the interface that are neither wanted nor ours.

    existing
        Whether the interface is there without us, and only the VIPs on it are ours.
    """

    ops: tuple[Op, ...]
    leaving: tuple[Leaving, ...] = ()
    given_up: tuple[Interface, ...] = ()
    unwatched: tuple[Interface, ...] = ()
    foreign: tuple[Interface, ...] = ()
    existing: bool = False


@dataclass(frozen=True, slots=True)
class Outcome(links.Outcome):
    """What was done to a real server.

    leaving
        The VIPs that are no longer wanted and stay for now.

    given_up, unwatched, foreign
        As of :class:`Planned`.

    silenced
        Whether ARP had to be set right.
    """

    leaving: tuple[Leaving, ...] = ()
    given_up: tuple[Interface, ...] = ()
    unwatched: tuple[Interface, ...] = ()
    foreign: tuple[Interface, ...] = ()
    silenced: bool = False


# --------------------------------------------------------------------------------------------------
# Hold


def plan(duty: Duty, force: bool = False) -> Planned:
    """What has to be done for a real server to hold its VIPs, and no others of ours.

    force
        Let go of VIPs that are no longer wanted although they may be in use.
    """
    return _plan(duty, ours(duty.interface), force)


def _plan(duty: Duty, mine: Collection[Interface], force: bool) -> Planned:
    link, record = rtnetlink.read(duty.interface), recorded(duty.interface)
    existing = is_existing(duty.interface, link)
    if link is None:
        _expect_ours_to_make(duty.interface, record)
        return Planned(links.plan(duty.interface, None, duty.vips), existing=existing)
    leaving = () if force else _leaving(duty, links.unneeded(link, duty.vips, mine))
    held = {item.address for item in link.addresses}
    return Planned(
        ops=_ops(duty, link, mine, leaving),
        leaving=leaving,
        given_up=tuple(item.vip for item in leaving if str(item.vip) not in record.leaving),
        unwatched=tuple(vip for vip in duty.vips if vip in held and str(vip) not in record.names),
        foreign=links.foreign(link, {*mine, *duty.vips}),
        existing=existing,
    )


def is_existing(interface: str, link: rtnetlink.Link | None) -> bool:
    """Whether an interface is there without us, so that only the VIPs on it are ours."""
    if link is None:
        return links.is_named_by_kernel(interface) or recorded(interface).existing
    return links.is_existing(link)


def _expect_ours_to_make(interface: str, record: Record) -> None:
    """Not to put a dummy interface in the place of somebody else's that is gone for a moment."""
    if record.existing and not links.is_named_by_kernel(interface):
        raise links.NotOurs(f"{interface} is gone, which others make: only the VIPs on it are ours")


def _ops(
    duty: Duty,
    link: rtnetlink.Link | None,
    mine: Collection[Interface],
    leaving: Collection[Leaving],
) -> tuple[Op, ...]:
    return links.plan(duty.interface, link, duty.vips, mine, {item.vip for item in leaving})


def _leaving(duty: Duty, given_up: Iterable[Interface]) -> tuple[Leaving, ...]:
    """Those of the VIPs that are no longer wanted that are not free to go yet."""
    named = {vip.ip for vip in duty.vips}
    # One with another prefix makes room for the same VIP: no packet goes astray.
    asked = [vip for vip in given_up if vip.ip not in named]
    if not asked:
        return ()
    now = time.time()
    used = sockets.connections({vip.ip for vip in asked})
    known = recorded(duty.interface).leaving
    found = []
    for vip in asked:
        count = used.get(vip.ip, 0)
        # A clock that was set back in between must not make it stay for long.
        since = now if count else min(known.get(str(vip), now), now)
        if count or now - since < LEAVE_AFTER_SECONDS:
            found.append(Leaving(vip, count, since))
    return tuple(found)


def ours(interface: str) -> frozenset[Interface]:
    """VIPs that we put there, or had put there: a kernel before 5.18 keeps no marks, and a boot by
    somebody else's hand makes none.
    """
    record = recorded(interface)
    return persistence.recorded(interface).union(_interfaces((*record.vips, *record.leaving)))


def touched(link: rtnetlink.Link) -> bool:
    """Whether we have put something on an interface."""
    record = recorded(link.name)
    return bool(record.vips or record.leaving) or any(held.ours for held in link.addresses)


def faults(duty: Duty) -> tuple[arp.Fault, ...]:
    """The ARP settings that would let a VIP be heard now."""
    return arp.faults(settings(duty)) if duty.has_ipv4 else ()


def settings(duty: Duty) -> dict[arp.Setting, int]:
    """The ARP settings that matter, as they are."""
    return arp.read(ingress(duty))


def ingress(duty: Duty) -> tuple[str, ...]:
    """The interfaces on which somebody may ask for a VIP: those that are known to face directors
    and clients, and every one to the outside where none is.
    """
    return facing(duty) or arp.ingress(rtnetlink.read_all(), None)


def facing(duty: Duty) -> tuple[str, ...]:
    """The interfaces that are known to face directors and clients; none where that is not known."""
    if duty.address is None and not duty.directors:
        return ()
    _, holders = rtnetlink.glance(duty.interface, duty.address)
    return (*holders, *toward(duty.directors, holders))


def toward(directors: Iterable[Address], known: Collection[str]) -> tuple[str, ...]:
    """The interfaces besides those that are known by which this machine reaches directors."""
    found: dict[str, None] = {}
    for director in directors:
        route = routes.lookup(director)
        if isinstance(route, routes.Route) and route.kind == "unicast":
            found.setdefault(route.interface)
    return tuple(interface for interface in found if interface not in known)


def present(duty: Duty, check_arp: bool = True, force: bool = False) -> Outcome:
    """Make a real server hold its VIPs; what is told besides the operations is of the plan.

    check_arp
        Refuse to add an IPv4 VIP while this machine would answer ARP for it.

    force
        As for :func:`plan`.

    Raises :class:`~saltext.lvs.arp.Noisy` for that, and what :func:`saltext.lvs.links.apply` does.
    """
    links.expect_there(duty.interface)
    with locking.exclusive(REPAIR):
        mine = ours(duty.interface)
        planned = _plan(duty, mine, force)
        if check_arp and _adds_ipv4(planned.ops):
            _expect_silence(duty)
        leaving = planned.leaving
        # What is about to go is out of the record first: who watches must not put it back. Until it
        # is gone it counts as ours.
        record, wanted = recorded(duty.interface), {str(vip) for vip in duty.vips}
        going = {vip: time.time() for vip in record.vips if vip not in wanted}
        noted = Record(
            tuple(vip for vip in record.vips if vip in wanted),
            {**going, **record.leaving, **_times(leaving)},
            planned.existing,
        )
        _note(duty.interface, noted)
        try:
            outcome = links.apply(lambda: _ops(duty, rtnetlink.read(duty.interface), mine, leaving))
        finally:
            # Also where it broke off: what is there is to be watched.
            _note(duty.interface, _after(duty, noted))
    return Outcome(
        outcome.ops, outcome.left, leaving, planned.given_up, planned.unwatched, planned.foreign
    )


def _after(duty: Duty, noted: Record) -> Record:
    """What is to be known of an interface after an apply, however it ended."""
    link = rtnetlink.read(duty.interface)
    held = {str(item.address) for item in link.addresses} if link is not None else set()
    wanted = [str(vip) for vip in duty.vips]
    return Record(
        tuple(vip for vip in wanted if vip in held or vip in noted.names),
        {vip: at for vip, at in noted.leaving.items() if vip in held and vip not in wanted},
        noted.existing,
    )


def absent(duty: Duty, force: bool = False) -> links.Outcome:
    """Take a dummy interface away, or our VIPs from another one; arguments and errors as for
    :func:`plan_absent`.
    """
    with locking.exclusive(REPAIR):
        mine = ours(duty.interface).union(duty.vips)
        _plan_absent(duty, mine, force)
        record = recorded(duty.interface)
        # They stay ours until the last is gone, and nobody puts them back meanwhile.
        going = {**dict.fromkeys(record.vips, time.time()), **record.leaving}
        _note(duty.interface, Record((), going, record.existing))
        return links.apply(lambda: _plan_absent(duty, mine, force))


def forget(interface: str) -> None:
    """Know nothing more of an interface: its VIPs are gone, and its files for the next boot."""
    with locking.exclusive(REPAIR):
        _note(interface, Record())


def plan_absent(
    duty: Duty, force: bool = False, elsewhere: Collection[Interface] = ()
) -> tuple[Op, ...]:
    """What has to be done for a dummy interface to be gone, or for another one to be without our
    VIPs.

    force
        Although it holds addresses that are not ours, and although VIPs on it are in use.

    elsewhere
        VIPs that another interface is to hold before.

    Raises :class:`~saltext.lvs.errors.InUse` if connections need a VIP that no other interface
    holds, and what :func:`saltext.lvs.links.plan_absent` does.
    """
    return _plan_absent(duty, ours(duty.interface).union(duty.vips), force, elsewhere)


def _plan_absent(
    duty: Duty, mine: Collection[Interface], force: bool, elsewhere: Collection[Interface] = ()
) -> tuple[Op, ...]:
    ops = links.plan_absent(rtnetlink.read(duty.interface), mine, force)
    going = {op.address.ip for op in ops if op.address is not None}
    if going and not force:
        _expect_unused(going - _held_elsewhere(duty.interface) - {vip.ip for vip in elsewhere})
    return ops


def _held_elsewhere(interface: str) -> set[Address]:
    others = (link for link in rtnetlink.read_all() if link.name != interface)
    return {held.address.ip for link in others for held in link.addresses}


def _expect_unused(addresses: Collection[Address]) -> None:
    used = sockets.connections(addresses) if addresses else {}
    told = [f"{address} ({count})" for address, count in used.items() if count]
    if told:
        raise InUse(
            f"connections need the VIPs that would go: {', '.join(told)}. Drain this real server "
            "and wait until they have ended, or use force=True"
        )


def _expect_silence(duty: Duty) -> None:
    found = faults(duty)
    if found:
        raise arp.Noisy(f"no VIP is added while {'; '.join(map(str, found))}")


def _adds_ipv4(ops: Iterable[Op]) -> bool:
    return any(
        op.action is Action.ADD and op.address is not None and op.address.version == 4 for op in ops
    )


# --------------------------------------------------------------------------------------------------
# What was put there

# On disk, because a VIP that a reboot took is lost too.
RECORD = "/var/lib/saltext-lvs/dummy.json"


@dataclass(frozen=True)
class Record:
    """What applies have done to one interface.

    vips
        The VIPs that the last one put there.

    leaving
        Those that it gave up and left for now, and when they were last seen used.

    existing
        Whether the interface was there without us.
    """

    vips: tuple[str, ...] = ()
    leaving: Mapping[str, float] = field(default_factory=dict)
    existing: bool = False

    @cached_property
    def names(self) -> frozenset[str]:
        """The VIPs, to look one up in."""
        return frozenset(self.vips)

    def as_data(self) -> dict[str, Any]:
        """As it is written."""
        return {"vips": list(self.vips), "leaving": dict(self.leaving), "existing": self.existing}


NOTHING = Record()


def recorded(interface: str) -> Record:
    """What is known of an interface; nothing of one that no apply has touched."""
    return _records().get(interface, NOTHING)


def former_interfaces(current: str, served: Collection[Interface]) -> list[str]:
    """The interfaces on which an apply has put VIPs that belong elsewhere now, or nowhere.

    current, served
        The interface of the pillar, and the VIPs that this machine serves by it. What is on other
        interfaces and not of the pillar is a state's of its own. Where nothing is served any more,
        the pillar's interface counts as well.
    """
    texts = {str(vip) for vip in served}
    moved = [
        name
        for name, record in _records().items()
        if name != current and texts.intersection((*record.vips, *record.leaving))
    ]
    here = recorded(current)
    return sorted(moved) + ([current] if not served and (here.vips or here.leaving) else [])


# Who watches asks every second: what was read last, and the file's number and time then.
_last: tuple[object, dict[str, Record]] = (None, {})


def _records() -> dict[str, Record]:
    global _last
    try:
        found = os.stat(RECORD)
        version = (RECORD, found.st_ino, found.st_mtime_ns, found.st_size)
    except OSError:
        return _read_records()
    if _last[0] != version:
        _last = (version, _read_records())
    return _last[1]


def _read_records() -> dict[str, Record]:
    """What the file says; one that is not as we write it says nothing, and is written anew by the
    next apply, which finds its VIPs unwatched.
    """
    found = files.read(RECORD)
    try:
        records = json.loads(found[0]) if found else {}
    except ValueError:
        records = {}
    if not isinstance(records, dict):
        return {}
    return {interface: _as_record(value) for interface, value in records.items()}


def _as_record(value: object) -> Record:
    if not isinstance(value, dict):
        return NOTHING
    vips, leaving = value.get("vips"), value.get("leaving")
    return Record(
        _canonical(vips) if isinstance(vips, list) else (),
        {vip: float(leaving[vip]) for vip in _canonical(leaving) if _is_time(leaving[vip])}
        if isinstance(leaving, dict)
        else {},
        value.get("existing") is True,
    )


def _canonical(texts: Iterable[object]) -> tuple[str, ...]:
    """Those that are VIPs as we write them."""
    return tuple(text for text in texts if isinstance(text, str) and str(_interface(text)) == text)


def _is_time(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _interfaces(texts: Iterable[str]) -> list[Interface]:
    """The VIPs of the record."""
    found = (_interface(text) for text in texts)
    return [vip for vip in found if vip is not None]


@lru_cache(maxsize=8192)
def _interface(text: str) -> Interface | None:
    """Kept, because the same VIPs are asked for again and again."""
    try:
        return ipaddress.ip_interface(text)
    except ValueError:
        return None


# Who watches asks every second, mostly with the same two.
_last_due: tuple[Duty, Record, Duty] | None = None


def due(duty: Duty, record: Record) -> Duty:
    """What of a duty can be lost: the VIPs that the pillar asks for and that were put there.

    A minion's pillar may be older or newer than the last apply. A VIP that it names before it was
    ever applied is not lost yet, and one that an apply has taken away is not lost either.
    """
    global _last_due
    last = _last_due
    if last is not None and last[0] is duty and last[1] is record:
        return last[2]
    found = replace(
        duty,
        vips=tuple(vip for vip in duty.vips if str(vip) in record.names),
        # A pillar that is newer than the last apply may want one again.
        leaving=tuple(set(_interfaces(record.leaving)).difference(duty.vips)),
    )
    _last_due = (duty, record, found)
    return found


def _times(leaving: Iterable[Leaving]) -> dict[str, float]:
    return {str(item.vip): item.since for item in leaving}


def _note(interface: str, record: Record) -> None:
    before = _records()
    after = {**before, interface: record}
    if not (record.vips or record.leaving):
        after.pop(interface)
    if after == before:
        return
    data = {name: known.as_data() for name, known in after.items()}
    files.make_folder(os.path.dirname(RECORD), 0o700)
    files.write(RECORD, json.dumps(data, sort_keys=True) + "\n")


# --------------------------------------------------------------------------------------------------
# Put back, and let go


def repair(duty: Duty) -> Outcome | None:
    """Put back what a real server lacks now, and set ARP right before that.

    ``None`` if another repair is in line already: it will see whatever is lacking now. Where the
    last one was a moment ago, it waits a little, then looks again.
    """
    # A line of its own: who watches this machine must not wait while this one does.
    with locking.turn(ASKED) as mine:
        if not mine:
            return None
        if not lacks(duty):
            return Outcome(())
        locking.pace(REPAIRED, SECONDS_BETWEEN_REPAIRS)
        return heal(duty)


def heal(duty: Duty, vips: bool = True, silence: bool = True) -> Outcome:
    """The same at once, for who watches this machine and counts how often.

    vips, silence
        Whether to put VIPs back, and whether to set ARP right.
    """
    with locking.exclusive(REPAIR):
        duty = due(duty, recorded(duty.interface))
        silenced = silence and _silenced(duty)
        # What was looked at just now need not be looked at again.
        known_quiet = silence and not silenced
        done = _put_back(duty, known_quiet) if vips and duty.vips else links.Outcome(())
        return Outcome(done.ops, done.left, silenced=silenced)


def _put_back(duty: Duty, known_quiet: bool = False) -> links.Outcome:
    """Add what lacks, and take nothing away: that is an apply's."""
    if duty.has_ipv4 and not known_quiet:
        _expect_silence(duty)
    named = {vip.ip for vip in duty.vips}

    def lacking() -> tuple[Op, ...]:
        link = rtnetlink.read(duty.interface)
        if link is None:
            _expect_ours_to_make(duty.interface, recorded(duty.interface))
            links.expect_there(duty.interface)
        planned = links.plan(duty.interface, link, duty.vips)
        return tuple(op for op in planned if not _takes_away(op, named))

    return links.apply(lacking)


def _silenced(duty: Duty) -> bool:
    """Set ARP right where it is not, and say whether that was so."""
    if not faults(duty):
        return False
    arp.silence(ingress(duty))
    return True


def _takes_away(op: Op, named: Collection[Address]) -> bool:
    """Whether an operation is no repair; a VIP with another prefix may have to make room."""
    return op.action is Action.REMOVE and op.address is not None and op.address.ip not in named


def lacks(duty: Duty) -> tuple[str, ...]:
    """What :func:`repair` would set right now, as sentences; none where nothing lacks."""
    duty = due(duty, recorded(duty.interface))
    missing = links.lacking(rtnetlink.read(duty.interface), duty.vips)
    return (
        *(f"{duty.interface} does not hold {vip}" for vip in missing),
        *(str(fault) for fault in faults(duty)),
    )


# Often enough for a later apply to know that a VIP was in use lately.
NOTED_EVERY_SECONDS = 5.0


def release(duty: Duty) -> Outcome:
    """Take away the VIPs that an apply has given up and that nobody has used for a while now; for
    who watches this machine.
    """
    with locking.exclusive(REPAIR, wait=False) as alone:
        record = recorded(duty.interface)
        given_up = due(duty, record).leaving
        if not alone or not given_up:
            return Outcome(())
        leaving = _leaving(duty, given_up)
        gone = set(given_up).difference(item.vip for item in leaving)
        outcome = links.apply(lambda: _removals(duty.interface, gone))
        if gone or any(_news(item, record) for item in leaving):
            noted = replace(record, leaving=_times(leaving))
            # What is gone is gone, and to be told; a later look notes it.
            with contextlib.suppress(CommandFailed):
                _note(duty.interface, noted)
        return Outcome(outcome.ops, outcome.left, leaving)


def _news(leaving: Leaving, record: Record) -> bool:
    # Also a clock that was set back: against that time it would stay for ever.
    return abs(leaving.since - record.leaving[str(leaving.vip)]) > NOTED_EVERY_SECONDS


def _removals(interface: str, vips: Collection[Interface]) -> tuple[Op, ...]:
    link = rtnetlink.read(interface)
    held = [item.address for item in link.addresses] if link is not None else []
    return tuple(Op(Action.REMOVE, interface, vip) for vip in held if vip in vips)
