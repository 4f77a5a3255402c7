"""What each watcher knows and runs: one registry for the process, by beacon name.

What a watcher knows lives as long as the library in memory: a refresh of the pillar or of the
modules is no news. A :class:`Watcher` looks as soon as the kernel says that an interface or an
address has changed, and once a second besides, because the kernel says nothing of sysctls.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from saltext.lvs import arp, events, links, losses, model, realserver, rtnetlink
from saltext.lvs.errors import LvsError
from saltext.lvs.links import Duty

log = logging.getLogger(__name__)

Events = list[dict[str, Any]]

# Salt makes its beacons anew when it is asked to; before there is a master that changes nothing.
_ASK_EVERY_SECONDS = 5
LOOK_EVERY_SECONDS = 1.0
# A machine with a thousand containers changes its addresses all the time.
LOOKS_APART_SECONDS = 0.01
# Without a beacon that asks for it nobody wants it any more: Salt does not always say so.
DESERTED_SECONDS = 600.0
# Whoever takes a VIP away again and again means it, or will not be stopped by us.
REPAIRS_IN_A_MINUTE = 3
MINUTE_SECONDS = 60.0
AFTER_FAILURE_SECONDS = 10.0
# The daemons that are known to take away addresses that they did not put there.
RIVALS = ("systemd-network", "NetworkManager", "dhcpcd", "netplan", "wickedd", "connmand")
END_WITHIN_SECONDS = 5.0
# The minion's loop stands still meanwhile.
UNWATCH_SECONDS = 1.0


@dataclass(slots=True)
class Memory:
    """What one watcher remembers.

    pillar
        The pillar's ``lvs`` that the duty was read from.

    duty
        What should be, from the last pillar that was right; ``None`` before there was one.

    asked
        When a pillar was last asked for, on a clock that is never set.

    repairs
        When lost VIPs were put back here lately, on the same clock.

    again
        Not before then, after a repair that failed.
    """

    known: losses.Known = field(default_factory=losses.Known)
    pillar: object = None
    duty: Duty | None = None
    asked: float = float("-inf")
    repairs: deque[float] = field(default_factory=deque)
    again: float = float("-inf")


memories: dict[str, Memory] = {}
watchers: dict[str, Watcher] = {}


def memory(beacon: str) -> Memory:
    """What the watcher of a beacon remembers; nothing at first."""
    return memories.setdefault(beacon, Memory())


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


def should_ask(memory: Memory, now: float) -> bool:
    """Whether it is time to ask for a pillar again, which then counts as asked for.

    now
        Seconds on a clock that is never set.
    """
    if now - memory.asked < _ASK_EVERY_SECONDS:
        return False
    memory.asked = now
    return True


def look(memory: Memory, minion_id: str, repeat: float, heal: bool = False) -> Events:
    """Look once at a real server's VIPs and return the events that follow.

    repeat
        Seconds between two tellings of the whole state.

    heal
        Put back what is lost, if the pillar makes that this machine's duty.
    """
    duty = realserver.due(memory.duty) if memory.duty else None
    if duty is None or not duty.vips:
        return []
    sight, at = see(duty), round(time.time(), 3)
    step = _step(memory, sight, at, repeat)
    changes = list(step.changes)
    # From here on nothing may fail: what was news is known now, and would never be told.
    acted = heal and duty.heals and _lost(memory) and _healed(memory, duty, changes)
    if acted:
        changes += _after_repair(memory, duty, repeat)
    told: Events = []
    if changes:
        content = {"acted": acted, "changes": changes}
        told.append(events.event("change", minion_id, duty.cluster, at, **content))
    if step.whole:
        whole = losses.whole_state(memory.known, sight)
        told.append(events.event("state", minion_id, duty.cluster, at, **whole))
    return told


def _step(memory: Memory, sight: losses.Sight, at: float, repeat: float) -> losses.Step:
    step = losses.step(memory.known, sight, at, time.monotonic(), repeat)
    memory.known = step.known
    return step


def _after_repair(memory: Memory, duty: Duty, repeat: float) -> list[Mapping[str, Any]]:
    """What a repair has changed; where that cannot be seen now, the next look tells it."""
    try:
        sight = see(duty)
    except (LvsError, OSError) as error:
        log.warning("Cannot see what was put back on %s: %s", duty.interface, error)
        return []
    after = _step(memory, sight, round(time.time(), 3), repeat)
    return [{**change, "repaired": True} for change in after.changes]


def _lost(memory: Memory) -> bool:
    return not all(vip.held for vip in memory.known.vips.values())


def _healed(memory: Memory, duty: Duty, changes: list[Mapping[str, Any]]) -> bool:
    """Put back what is lost, unless that was done too often; says in *changes* why it was not.

    Returns whether something was put back.
    """
    now = time.monotonic()
    while memory.repairs and now - memory.repairs[0] >= MINUTE_SECONDS:
        memory.repairs.popleft()
    if len(memory.repairs) >= REPAIRS_IN_A_MINUTE:
        problem = f"put back {REPAIRS_IN_A_MINUTE} times in a minute{_suspects()}"
        _explain(changes, problem, gave_up=True)
        return False
    if now < memory.again:
        return False
    try:
        outcome = realserver.heal(duty)
    except Exception as error:  # pyroute2 may raise whatever it likes
        memory.again = now + AFTER_FAILURE_SECONDS
        log.exception("Cannot put back the VIPs of %s", duty.interface)
        _explain(changes, str(error))
        return False
    # None: a repair is at work already, and will see what this one would.
    if outcome is None or not outcome.ops:
        return False
    memory.repairs.append(now)
    return True


def _explain(changes: list[Mapping[str, Any]], problem: str, **more: Any) -> None:
    """Say of each loss that is told now why it stays."""
    for index, change in enumerate(changes):
        if change.get("now") == losses.LOST:
            log.error("%s lost %s: %s", change["interface"], change["address"], problem)
            changes[index] = {**change, "problem": problem, **more}


def _suspects() -> str:
    """Who on this machine may have taken a VIP away."""
    running = sorted({name for name in _programs() for rival in RIVALS if name.startswith(rival)})
    return f"; it may be {' or '.join(running)} that removes it" if running else ""


def _programs() -> Iterable[str]:
    for process in os.listdir("/proc"):
        if process.isdigit():
            # A name is cut off at 15 bytes, whatever letter that is in.
            with contextlib.suppress(OSError), open(f"/proc/{process}/comm", "rb") as file:
                yield file.read().decode("utf-8", "replace").strip()


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


# --------------------------------------------------------------------------------------------------
# At once


class Watcher:
    """A thread that looks whenever something has changed, and sends what it has to tell.

    memory
        What it knows and keeps; while it runs, nobody else may look with it.

    send
        Takes events and gets them out at once; what it raises leaves them for the next
        :meth:`poll`.

    Raises :class:`~saltext.lvs.errors.LvsError` or OSError where it cannot be started.
    """

    def __init__(self, memory: Memory, minion_id: str, send: Callable[[Events], None]) -> None:
        self._memory = memory
        self._minion_id = minion_id
        self._send = send
        self._repeat = float("inf")
        self._process = os.getpid()
        self._unsent: deque[dict[str, Any]] = deque(maxlen=1000)
        self._polled = time.monotonic()
        self._stopping = False
        self._trouble = ""
        self._listener = rtnetlink.Listener()
        self._thread = threading.Thread(target=self._run, name="lvs-dummy-watch", daemon=True)

    def start(self, repeat: float) -> None:
        """Begin to look."""
        self._repeat = repeat
        try:
            self._thread.start()
        except RuntimeError:
            self._listener.close()
            raise

    def poll(self, repeat: float) -> Events:
        """Say that somebody still listens, and return what could not be sent."""
        self._polled = time.monotonic()
        self._repeat = repeat
        return [self._unsent.popleft() for _ in range(len(self._unsent))]

    def alive(self) -> bool:
        """Whether it runs, in this process."""
        return not self.elsewhere() and self._thread.is_alive()

    def elsewhere(self) -> bool:
        """Whether it belongs to another process: a fork has the object, but not the thread."""
        return self._process != os.getpid()

    def stop(self, seconds: float = END_WITHIN_SECONDS) -> bool:
        """End it, wait for that so long, and say whether it has ended; of another process there is
        nothing to end.
        """
        if self.elsewhere():
            return True
        self._stopping = True
        if self._thread.is_alive():
            self._listener.wake()
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._ended():
                self._look()
                self._listener.wait(LOOK_EVERY_SECONDS)
        finally:
            self._listener.close()

    def _ended(self) -> bool:
        return self._stopping or time.monotonic() - self._polled > DESERTED_SECONDS

    def _look(self) -> None:
        began = time.monotonic()
        try:
            told = look(self._memory, self._minion_id, self._repeat, heal=True)
        except Exception as error:  # a watcher that dies sees nothing any more
            if str(error) != self._trouble:
                log.exception("Cannot look at the VIPs of this machine")
            self._trouble = str(error)
            self._rest(LOOK_EVERY_SECONDS)
            return
        self._trouble = ""
        if told:
            self._tell(told)
        self._rest(LOOKS_APART_SECONDS - (time.monotonic() - began))

    def _tell(self, told: Events) -> None:
        try:
            self._send([dict(event) for event in told])
        except Exception as error:  # noqa: BLE001 -- whatever Salt's bus may raise
            log.debug("Events wait for the next tick: %s", error)
            self._unsent.extend(told)

    def _rest(self, seconds: float) -> None:
        if seconds > 0 and not self._stopping:
            time.sleep(seconds)


def watch(beacon: str, minion_id: str, repeat: float, send: Callable[[Events], None]) -> Events:
    """Keep a watcher running for a beacon, and return what it could not send itself.

    Where it cannot run, this call looks in its place, and only tells.
    """
    watcher = watchers.get(beacon)
    if watcher is not None and watcher.elsewhere():
        return []  # a job, forked from the minion whose watcher it is
    if watcher is None or not watcher.alive():
        try:
            watcher = watchers[beacon] = Watcher(memory(beacon), minion_id, send)
            watcher.start(repeat)
        except (LvsError, OSError, RuntimeError) as error:
            log.error("Beacon %s looks once a second only: %s", beacon, error)
            watchers.pop(beacon, None)
            # Without repairs: they may wait, and this is the minion's own loop.
            return look(memory(beacon), minion_id, repeat)
    return watcher.poll(repeat)


def unwatch(beacon: str) -> None:
    """End the watcher of a beacon, or have it end as soon as it can; what it knew stays."""
    watcher = watchers.get(beacon)
    if watcher is not None and watcher.stop(UNWATCH_SECONDS):
        watchers.pop(beacon)


def release() -> None:
    """End all watchers of this process: the library is about to be replaced.

    Raises RuntimeError if one does not end.
    """
    ended = {beacon: watcher.stop() for beacon, watcher in watchers.items()}
    watchers.clear()
    running = [beacon for beacon, has_ended in ended.items() if not has_ended]
    if running:
        raise RuntimeError(f"the watchers of {', '.join(running)} are still at work")
