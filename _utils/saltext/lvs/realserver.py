"""A real server's VIPs: hold them, see whether they are held, put them back.

Here the parts come together: what should be (:class:`~saltext.lvs.links.Duty`), what the kernel has
(:mod:`~saltext.lvs.rtnetlink`), what would be heard of it (:mod:`~saltext.lvs.arp`).
"""

from __future__ import annotations

import ipaddress
import json
import os
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from saltext.lvs import arp, files, links, locking, persistence, rtnetlink
from saltext.lvs.errors import CommandFailed
from saltext.lvs.links import Action, Duty, Op, Outcome
from saltext.lvs.model import Address, Interface

REPAIR = f"{locking.FOLDER}/dummy-repair"
REPAIRED = f"{locking.FOLDER}/dummy-repaired"
# An event can be forged, and every one starts a repair: this bounds how often one touches anything.
SECONDS_BETWEEN_REPAIRS = 3.0


def plan(duty: Duty) -> tuple[Op, ...]:
    """What has to be done for a real server to hold its VIPs."""
    return _plan(duty, _ours(duty.interface))


def _plan(duty: Duty, ours: Collection[Interface]) -> tuple[Op, ...]:
    return links.plan(duty.interface, rtnetlink.read(duty.interface), duty.vips, ours)


def _ours(interface: str) -> frozenset[Interface]:
    """VIPs that we put there, or had put there: a kernel before 5.18 keeps no marks, and a boot by
    somebody else's hand makes none.
    """
    put = (as_interface(text) for text in recorded().get(interface, ()))
    return persistence.recorded(interface).union(vip for vip in put if vip is not None)


def faults(duty: Duty) -> tuple[arp.Fault, ...]:
    """The ARP settings that would let a VIP be heard now."""
    return arp.faults(settings(duty)) if duty.has_ipv4 else ()


def settings(duty: Duty) -> dict[arp.Setting, int]:
    """The ARP settings that matter, as they are."""
    return arp.read(arp.ingress(rtnetlink.read_all(), duty.address))


def present(duty: Duty, check_arp: bool = True) -> Outcome:
    """Make a real server hold its VIPs.

    check_arp
        Refuse to add an IPv4 VIP while this machine would answer ARP for it.

    Raises :class:`~saltext.lvs.arp.Noisy` for that, and what :func:`saltext.lvs.links.apply` does.
    """
    if check_arp and _adds_ipv4(plan(duty)):
        found = faults(duty)
        if found:
            raise arp.Noisy(f"no VIP is added while {'; '.join(map(str, found))}")
    with locking.exclusive(REPAIR):
        ours = _ours(duty.interface)
        _forget_others(duty)
        outcome = links.apply(lambda: _plan(duty, ours))
        if not outcome.left:
            _note({**recorded(), duty.interface: [str(vip) for vip in duty.vips]})
    return outcome


def absent(duty: Duty, force: bool = False) -> Outcome:
    """Take a dummy interface away; arguments as for :func:`saltext.lvs.links.plan_absent`."""
    with locking.exclusive(REPAIR):
        ours = _ours(duty.interface).union(duty.vips)
        _plan_absent(duty, ours, force)
        _forget_others(replace(duty, vips=()))
        return links.apply(lambda: _plan_absent(duty, ours, force))


def plan_absent(duty: Duty, force: bool = False) -> tuple[Op, ...]:
    """What has to be done for a dummy interface to be gone."""
    return _plan_absent(duty, _ours(duty.interface).union(duty.vips), force)


def _plan_absent(duty: Duty, ours: Collection[Interface], force: bool) -> tuple[Op, ...]:
    return links.plan_absent(rtnetlink.read(duty.interface), ours, force)


# --------------------------------------------------------------------------------------------------
# What was put there

# On disk, because a VIP that a reboot took is lost too.
RECORD = "/var/lib/saltext-lvs/dummy.json"


def recorded() -> dict[str, list[str]]:
    """The VIPs that :func:`present` has put there last, by interface."""
    found = files.read(RECORD)
    try:
        record = json.loads(found[0]) if found else {}
    except ValueError:  # not ours any more; the next apply writes it anew
        record = {}
    return record if isinstance(record, dict) else {}


def as_interface(text: object) -> Interface | None:
    """A VIP of the record; None for what is none."""
    try:
        return ipaddress.ip_interface(str(text))
    except ValueError:
        return None


def due(duty: Duty) -> Duty:
    """What of a duty can be lost: the VIPs that the pillar asks for and that were put there.

    A minion's pillar may be older or newer than the last apply. A VIP that it names before it was
    ever applied is not lost yet, and one that an apply has taken away is not lost either.
    """
    put = recorded().get(duty.interface, ())
    return replace(duty, vips=tuple(vip for vip in duty.vips if str(vip) in put))


def _forget_others(duty: Duty) -> None:
    """Take out of the record what is about to go: who watches must not put that back."""
    record = recorded()
    held = record.get(duty.interface, [])
    wanted = {str(vip) for vip in duty.vips}
    _note({**record, duty.interface: [vip for vip in held if vip in wanted]})


def _note(record: Mapping[str, Sequence[str]]) -> None:
    kept = {interface: list(vips) for interface, vips in sorted(record.items()) if vips}
    if kept == recorded():
        return
    folder = os.path.dirname(RECORD)
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
    except OSError as error:
        raise CommandFailed(f"cannot make {folder}: {error.strerror}") from error
    with files.beside(RECORD, json.dumps(kept) + "\n") as written:
        files.move(written, RECORD)


# --------------------------------------------------------------------------------------------------
# Put back


def repair(duty: Duty) -> Outcome | None:
    """Put back what a real server lacks now, and set ARP right before that.

    ``None`` if another repair is in line already: it will see whatever is lacking now. Where the
    last one was a moment ago, it waits a little, then looks again.
    """
    with locking.turn(REPAIR) as ours:
        if not ours:
            return None
        if not _lacks(due(duty)):
            return Outcome(())
        time.sleep(rest(REPAIRED, time.time()))
        _touch(REPAIRED)
        return _put_back(duty)


def heal(duty: Duty) -> Outcome | None:
    """The same at once, for who watches this machine and counts how often."""
    with locking.turn(REPAIR) as ours:
        return _put_back(duty) if ours else None


def _put_back(duty: Duty) -> Outcome:
    """Add what lacks of what is due now, and take nothing away: that is an apply's."""
    duty = due(duty)
    if not duty.vips:
        return Outcome(())
    if faults(duty):
        arp.silence()
    if duty.has_ipv4 and (found := faults(duty)):
        raise arp.Noisy(f"no VIP is added while {'; '.join(map(str, found))}")
    named = {vip.ip for vip in duty.vips}
    return links.apply(lambda: tuple(op for op in plan(duty) if not _takes_away(op, named)))


def _takes_away(op: Op, named: Collection[Address]) -> bool:
    """Whether an operation is no repair; a VIP with another prefix may have to make room."""
    return op.action is Action.REMOVE and op.address is not None and op.address.ip not in named


def _lacks(duty: Duty) -> bool:
    return bool(links.lacking(rtnetlink.read(duty.interface), duty.vips))


def _adds_ipv4(ops: Iterable[Op]) -> bool:
    return any(
        op.action is Action.ADD and op.address is not None and op.address.version == 4 for op in ops
    )


def rest(stamp: str, now: float) -> float:
    """The seconds until the next repair may begin, by the time of the last one."""
    try:
        passed = now - os.stat(stamp).st_mtime
    except FileNotFoundError:
        return 0.0
    # A clock that was set back in between must not make it wait for long.
    return min(max(SECONDS_BETWEEN_REPAIRS - passed, 0.0), SECONDS_BETWEEN_REPAIRS)


def _touch(stamp: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(stamp, flags, 0o600)
        try:
            os.utime(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise CommandFailed(f"cannot write {stamp}: {error.strerror}") from error
