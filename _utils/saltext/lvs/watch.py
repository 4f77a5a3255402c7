"""What each watcher knew at its last look: one registry for the process, by beacon name.

It lives as long as the library in memory: a refresh of the pillar or of the modules is no news.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from saltext.lvs import arp, events, links, losses, model, rtnetlink
from saltext.lvs.links import Duty

# Salt makes its beacons anew when it is asked to; before there is a master that changes nothing.
_ASK_EVERY_SECONDS = 5


@dataclass(slots=True)
class Memory:
    """What one watcher remembers.

    pillar
        The pillar's ``lvs`` that the duty was read from.

    duty
        What should be, from the last pillar that was right; ``None`` before there was one.

    asked
        When a pillar was last asked for, on a clock that is never set.
    """

    known: losses.Known = field(default_factory=losses.Known)
    pillar: object = None
    duty: Duty | None = None
    asked: float = float("-inf")


memories: dict[str, Memory] = {}


def memory(beacon: str) -> Memory:
    """What the watcher of a beacon remembers; nothing at first."""
    return memories.setdefault(beacon, Memory())


def brief(memory: Memory, pillar: Mapping[str, Any], minion_id: str) -> None:
    """Learn from the pillar what should be; costs nothing while the pillar is the same object.

    Raises :class:`~saltext.lvs.errors.InvalidConfig`, once for each pillar, and keeps to the last
    one that was right.
    """
    described = pillar.get("lvs")
    if described is None or described is memory.pillar:
        return
    # A refresh makes a new object of what is mostly the same pillar.
    same = described == memory.pillar
    memory.pillar = described
    if same:
        return
    memory.duty = links.duty_of(model.from_pillar(pillar), minion_id)


def should_ask(memory: Memory, now: float) -> bool:
    """Whether it is time to ask for a pillar again, which then counts as asked for.

    now
        Seconds on a clock that is never set.
    """
    if now - memory.asked < _ASK_EVERY_SECONDS:
        return False
    memory.asked = now
    return True


def look(memory: Memory, minion_id: str, repeat: float) -> list[dict[str, Any]]:
    """Look once at a real server's VIPs and return the events that follow.

    repeat
        Seconds between two tellings of the whole state.
    """
    duty = memory.duty
    if duty is None or not duty.vips:
        return []
    sight, at = see(duty), round(time.time(), 3)
    step = losses.step(memory.known, sight, at, time.monotonic(), repeat)
    memory.known = step.known
    told: list[dict[str, Any]] = []
    if step.changes:
        changes = list(step.changes)
        told.append(events.event("change", minion_id, duty.cluster, at, changes=changes))
    if step.whole:
        whole = losses.whole_state(step.known, sight)
        told.append(events.event("state", minion_id, duty.cluster, at, **whole))
    return told


def see(duty: Duty) -> losses.Sight:
    """Read what one look needs: no more, because a beacon holds up the minion."""
    link, ingress = rtnetlink.glance(duty.interface, duty.address)
    if not ingress:
        ingress = arp.ingress(rtnetlink.read_all(), None)
    values = arp.read(ingress)
    faults = arp.faults(values) if duty.has_ipv4 else ()
    faulty = {str(setting) for fault in faults for setting in fault.blamed}
    lacking = set(links.lacking(link, duty.vips))
    return losses.Sight(
        interface=duty.interface,
        vips={str(vip.ip): vip not in lacking for vip in duty.vips},
        settings={str(setting): value for setting, value in values.items()},
        faulty=frozenset(faulty),
    )
