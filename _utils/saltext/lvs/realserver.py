"""A real server's VIPs: hold them, see whether they are held, put them back.

Here the parts come together: what should be (:class:`~saltext.lvs.links.Duty`), what the kernel has
(:mod:`~saltext.lvs.rtnetlink`), what would be heard of it (:mod:`~saltext.lvs.arp`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

from saltext.lvs import arp, links, locking, persistence, rtnetlink
from saltext.lvs.links import Action, Duty, Op, Outcome

REPAIR = f"{locking.FOLDER}/dummy-repair"
REPAIRED = f"{locking.FOLDER}/dummy-repaired"
# An event can be forged, and every one starts a repair: this bounds how often one touches anything.
SECONDS_BETWEEN_REPAIRS = 3.0


def plan(duty: Duty) -> tuple[Op, ...]:
    """What has to be done for a real server to hold its VIPs."""
    ours = persistence.recorded(duty.interface)
    return links.plan(duty.interface, rtnetlink.read(duty.interface), duty.vips, ours)


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
    return links.apply(lambda: plan(duty))


def absent(duty: Duty, force: bool = False) -> Outcome:
    """Take a dummy interface away; arguments as for :func:`saltext.lvs.links.plan_absent`."""
    return links.apply(lambda: plan_absent(duty, force))


def plan_absent(duty: Duty, force: bool = False) -> tuple[Op, ...]:
    """What has to be done for a dummy interface to be gone."""
    ours = persistence.recorded(duty.interface).union(duty.vips)
    return links.plan_absent(rtnetlink.read(duty.interface), ours, force)


def repair(duty: Duty) -> Outcome | None:
    """Put back what a real server lacks now, and set ARP right before that.

    ``None`` if another repair is in line already: it will see whatever is lacking now. Where the
    last one was a moment ago, it waits a little, then looks again.
    """
    with locking.turn(REPAIR) as ours:
        if not ours:
            return None
        if not _lacks(duty):
            return Outcome(())
        time.sleep(rest(REPAIRED, time.time()))
        _touch(REPAIRED)
        if faults(duty):
            arp.silence()
        return present(duty)


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
    descriptor = os.open(stamp, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.utime(descriptor)
    finally:
        os.close(descriptor)
