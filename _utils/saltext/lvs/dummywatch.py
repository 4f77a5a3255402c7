"""What the watcher of a real server's VIPs sees, tells and puts right.

What it knows lives as long as the library in memory: a refresh of the pillar or of the modules is
no news. It looks as soon as the kernel says that an interface or an address has changed, and once a
second besides, because the kernel says nothing of sysctls.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import logging
import os
import time
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from saltext.lvs import arp, events, links, losses, model, realserver, rtnetlink, watch
from saltext.lvs.errors import LvsError
from saltext.lvs.links import Duty

log = logging.getLogger(__name__)

# The kernel tells of every change to an address; this bounds what nobody has thought of.
READ_EVERY_SECONDS = 30.0
# Whoever takes a VIP away again and again means it, or will not be stopped by us.
REPAIRS_IN_A_MINUTE = 3
MINUTE_SECONDS = 60.0
AFTER_FAILURE_SECONDS = 10.0
SELDOM_SECONDS = 600.0
# A log is read by people.
NAMED = 3
# The daemons that are known to take away addresses that they did not put there.
RIVALS = ("systemd-network", "NetworkManager", "dhcpcd", "netplan", "wickedd", "connmand")


class Harm(enum.Enum):
    """What may be wrong."""

    VIPS = "VIPs are lost"
    ARP = "ARP is not quiet"


@dataclass(slots=True)
class Memory(watch.Memory):
    """What one watcher remembers.

    duty
        What should be, from the last pillar that was right; ``None`` before there was one.

    repairs
        When something was put right here lately, by what it was, on the same clock.

    given_up
        What has come too often and was told so.

    again, pause
        Not before then, after a repair that failed, and the seconds that another failure takes.

    trouble
        Why VIPs that were given up could not be let go of last.

    seen
        What the last look saw, for which duty, and when that was read from the kernel whole.
    """

    known: losses.Known = field(default_factory=losses.Known)
    seen: Seen | None = None
    duty: Duty | None = None
    repairs: dict[Harm, deque[float]] = field(default_factory=lambda: defaultdict(deque))
    given_up: frozenset[Harm] = frozenset()
    again: float = float("-inf")
    pause: float = AFTER_FAILURE_SECONDS
    trouble: str = ""

    def look(
        self, minion_id: str, repeat: float, act: bool, changed: bool
    ) -> Iterator[dict[str, Any]]:
        """As :func:`look`."""
        return look(self, minion_id, repeat, act, changed)

    def lose_track(self) -> None:
        """Read everything anew at the next look."""
        self.seen = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look saw.

    ingress
        The interfaces on which somebody may ask for a VIP.

    at
        When that was, in seconds since 1970.

    read
        When the interfaces were read, on a clock that is never set.
    """

    duty: Duty
    sight: losses.Sight
    ingress: tuple[str, ...]
    at: float
    read: float


def brief(memory: Memory, pillar: Mapping[str, Any], minion_id: str) -> None:
    """Learn from the pillar what should be; costs nothing while the pillar is the same object.

    Raises :class:`~saltext.lvs.errors.InvalidConfig`, once for each pillar, and keeps to the last
    one that was right.
    """
    described = pillar.get("lvs")
    if described is None and pillar and "_errors" not in pillar:
        # There is a pillar, and it knows of no cluster any more.
        memory.pillar = memory.duty = None
    if described is None or described is memory.pillar:
        return
    # A refresh makes a new object of what is mostly the same pillar.
    same = described == memory.pillar
    memory.pillar = described
    if same:
        return
    duty = links.duty_of(model.from_pillar(pillar), minion_id)
    if duty.heals and duty.vips:
        # Here and not in the thread: a job that is forked while a thread imports something waits
        # for ever when it imports the same.
        links.preload()
    memory.duty = duty


def look(
    memory: Memory, minion_id: str, repeat: float, heal: bool = False, changed: bool = True
) -> Iterator[dict[str, Any]]:
    """Look once at a real server's VIPs and give out the events that follow, each as soon as it is
    known: a loss before it is put right.

    repeat
        Seconds between two tellings of the whole state.

    heal
        Put right what is wrong, if the pillar makes that this machine's duty, and let go of VIPs
        that an apply has given up.

    changed
        False if the kernel has said nothing of its interfaces and addresses since the last look:
        then only what it never speaks of is read.
    """
    # Once: the minion's own thread may set it anew meanwhile.
    asked = memory.duty
    if asked is None:
        return
    before = memory.seen
    duty, seen = _looked(memory, asked, changed)
    if not (duty.vips or duty.leaving) and duty.enabled:
        return
    harms = _harms(seen.sight)
    as_before = before is not None and before.sight == seen.sight
    busy = harms or duty.leaving or losses.is_due(memory.known, time.monotonic(), repeat)
    if as_before and not busy:
        return  # what costs is to find that out at length
    step = _step(memory, seen, repeat)
    # From here on nothing may fail: what was news is known now, and would never be told.
    heals = heal and duty.heals and time.monotonic() >= memory.again
    healing = frozenset(harm for harm in harms if heals and not _exhausted(memory, harm))
    given_up = harms - healing if heals else memory.given_up & harms
    changes = [*step.changes, *_untold(memory, step.changes, given_up)]
    problem = _giving_up() if given_up - memory.given_up or (given_up and changes) else {}
    memory.given_up = given_up
    tell = functools.partial(_change, memory, minion_id)
    yield from tell(_explained(changes, problem, given_up), healing=bool(healing))
    if healing:
        problem = _healed(memory, duty, healing)
        yield from tell(_after_repair(memory, duty, repeat), acted=True)
        if problem:
            yield from tell(_explained(_wrong(memory), problem, healing))
    leaving: tuple[realserver.Leaving, ...] = ()
    if heal and duty.leaving:
        released, leaving = _let_go(memory, duty)
        yield from tell(released)
    if step.whole:
        yield _state(memory, minion_id, leaving)


def _looked(memory: Memory, asked: Duty, changed: bool) -> tuple[Duty, Seen]:
    """What can be lost, and whether it is. The record is read again: an apply in between may have
    taken away on purpose what the kernel no longer has.
    """
    while True:
        record = realserver.recorded(asked.interface)
        duty = realserver.due(asked, record)
        seen = _seen(memory, duty, changed)
        if realserver.recorded(asked.interface) == record:
            return duty, seen


def _harms(sight: losses.Sight) -> frozenset[Harm]:
    found = {Harm.VIPS: not all(sight.vips.values()), Harm.ARP: bool(sight.faulty)}
    return frozenset(harm for harm, is_so in found.items() if is_so)


def _harm_of(change: Mapping[str, Any]) -> Harm | None:
    if change["now"] == losses.LOST:
        return Harm.VIPS
    return Harm.ARP if change.get("quiet") is False else None


def _untold(
    memory: Memory, told: Iterable[Mapping[str, Any]], given_up: frozenset[Harm]
) -> list[Mapping[str, Any]]:
    """What is given up only now, although it is as it was at the last look."""
    news = given_up - memory.given_up - {_harm_of(change) for change in told}
    return [change for change in _wrong(memory) if _harm_of(change) in news]


def _last(memory: Memory) -> Seen:
    assert memory.seen is not None
    return memory.seen


def _change(
    memory: Memory,
    minion_id: str,
    changes: Sequence[Mapping[str, Any]],
    acted: bool = False,
    healing: bool = False,
) -> Iterator[dict[str, Any]]:
    if changes:
        seen = _last(memory)
        content = {"acted": acted, "healing": healing, "changes": list(changes)}
        yield events.event("change", minion_id, seen.duty.cluster, seen.at, **content)


def _state(memory: Memory, minion_id: str, leaving: Iterable[realserver.Leaving]) -> dict[str, Any]:
    """The whole truth, with whether this machine is to hold VIPs at all, and those that it still
    has against that.
    """
    seen = _last(memory)
    still = [
        {"address": str(item.vip.ip), "connections": item.connections, "since": item.since}
        for item in leaving
    ]
    content = losses.whole_state(memory.known, seen.sight)
    content.update(enabled=seen.duty.enabled, leaving=still)
    return events.event("state", minion_id, seen.duty.cluster, seen.at, **content)


def _step(memory: Memory, seen: Seen, repeat: float) -> losses.Step:
    step = losses.step(memory.known, seen.sight, seen.at, time.monotonic(), repeat)
    memory.known = step.known
    return step


def _after_repair(memory: Memory, duty: Duty, repeat: float) -> list[Mapping[str, Any]]:
    """What a repair has changed; where that cannot be seen now, the next look tells it."""
    try:
        seen = _seen(memory, duty, changed=True)
    except (LvsError, OSError) as error:
        log.warning("Cannot see what was put right on %s: %s", duty.interface, error)
        return []
    after = _step(memory, seen, repeat)
    return [{**change, "repaired": True} for change in after.changes]


def _let_go(
    memory: Memory, duty: Duty
) -> tuple[list[Mapping[str, Any]], tuple[realserver.Leaving, ...]]:
    """Release what nobody uses any more; the next look tries again where that fails."""
    try:
        outcome = realserver.release(duty)
    except Exception as error:  # pyroute2 may raise whatever it likes
        if str(error) != memory.trouble:
            log.exception("Cannot let go of VIPs on %s", duty.interface)
        memory.trouble = str(error)
        return [], ()
    memory.trouble = ""
    at = round(time.time(), 3)
    gone = [op.address.ip for op in outcome.ops if op.address is not None]
    for address in gone:
        log.info("%s let go of %s, which is no longer wanted", duty.interface, address)
    return [losses.released(duty.interface, str(address), at) for address in gone], outcome.leaving


def _exhausted(memory: Memory, harm: Harm) -> bool:
    """Whether that was put right too often lately."""
    now, repairs = time.monotonic(), memory.repairs[harm]
    while repairs and now - repairs[0] >= MINUTE_SECONDS:
        repairs.popleft()
    return len(repairs) >= REPAIRS_IN_A_MINUTE


def _giving_up() -> dict[str, Any]:
    """Why nothing is put right any more, as an event lists it."""
    return {
        "problem": f"put right {REPAIRS_IN_A_MINUTE} times in a minute{_suspects()}",
        "gave_up": True,
    }


def _healed(memory: Memory, duty: Duty, harms: Collection[Harm]) -> dict[str, Any]:
    """Put right what is wrong; returns why that failed, or nothing."""
    now = time.monotonic()
    try:
        outcome = realserver.heal(duty, Harm.VIPS in harms, Harm.ARP in harms)
    except Exception as error:  # pyroute2 may raise whatever it likes
        # What fails for good is tried, and told, ever more seldom.
        memory.again = now + memory.pause
        memory.pause = min(memory.pause * 2, SELDOM_SECONDS)
        if not isinstance(error, (LvsError, OSError)):
            log.exception("Cannot put right the VIPs of %s", duty.interface)
        return {"problem": str(error)}
    memory.pause = AFTER_FAILURE_SECONDS
    if outcome.ops:
        memory.repairs[Harm.VIPS].append(now)
    if outcome.silenced:
        memory.repairs[Harm.ARP].append(now)
    if outcome.left:
        return {"problem": f"another program takes it away again{_suspects()}"}
    return {}


def _wrong(memory: Memory) -> list[Mapping[str, Any]]:
    """What is wrong still, as an event lists it."""
    return losses.wrong(memory.known, _last(memory).sight)


def _explained(
    changes: Iterable[Mapping[str, Any]], problem: Mapping[str, Any], harms: Collection[Harm]
) -> list[Mapping[str, Any]]:
    """Say of each harm of these kinds why it stays."""
    told, subjects = [], []
    for change in changes:
        if problem and _harm_of(change) in harms:
            subjects.append(str(change.get("sysctl") or change["address"]))
            change = {**change, **problem}
        told.append(change)
    if subjects:
        more = f" and {len(subjects) - NAMED} more" if len(subjects) > NAMED else ""
        named = ", ".join(subjects[:NAMED])
        log.error("Not as it should be: %s%s: %s", named, more, problem["problem"])
    return told


def _suspects() -> str:
    """Who on this machine may work against it."""
    running = sorted({name for name in _programs() for rival in RIVALS if name.startswith(rival)})
    return f"; it may be {' or '.join(running)} that works against it" if running else ""


def _programs() -> Iterable[str]:
    for process in os.listdir("/proc"):
        if process.isdigit():
            # A name is cut off at 15 bytes, whatever letter that is in.
            with contextlib.suppress(OSError), open(f"/proc/{process}/comm", "rb") as file:
                yield file.read().decode("utf-8", "replace").strip()


def _seen(memory: Memory, duty: Duty, changed: bool) -> Seen:
    """Read what one look needs: no more, because a beacon holds up the minion."""
    before, read = memory.seen, time.monotonic()
    if changed or before is None or before.duty != duty or read - before.read > READ_EVERY_SECONDS:
        held, ingress = _held(duty)
    else:
        held, ingress, read = before.sight.vips, before.ingress, before.read
    sight = _judged(duty, held, arp.read(ingress))
    memory.seen = Seen(duty, sight, ingress, round(time.time(), 3), read)
    return memory.seen


def _held(duty: Duty) -> tuple[Mapping[str, bool], tuple[str, ...]]:
    """Which VIPs are held, and the interfaces on which somebody may ask for them."""
    link, ingress = rtnetlink.glance(duty.interface, duty.address)
    lacking = set(links.lacking(link, duty.vips))
    held = {str(vip.ip): vip not in lacking for vip in duty.vips}
    ingress += realserver.toward(duty.directors, ingress)
    return held, ingress or arp.ingress(rtnetlink.read_all(), None)


def _judged(duty: Duty, held: Mapping[str, bool], values: arp.Values) -> losses.Sight:
    faults = arp.faults(values) if duty.has_ipv4 else ()
    return losses.Sight(
        interface=duty.interface,
        vips=held,
        settings={str(setting): value for setting, value in values.items()},
        faulty=frozenset(str(setting) for fault in faults for setting in fault.blamed),
    )
