"""What the watcher of a director's real servers asks, decides and tells.

It asks all of them by itself, and what it finds goes into the kernel before it is told: the master,
and the way to it, may be away.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from saltext.lvs import (
    checksets,
    description,
    events,
    healthnews,
    ipvs,
    model,
    overlay,
    policy,
    probe,
    watch,
)
from saltext.lvs import wishes as wishing
from saltext.lvs.checks import Check
from saltext.lvs.errors import SECRETS, DamagedState, InvalidConfig, LvsError
from saltext.lvs.health import Rules, State
from saltext.lvs.healthnews import MOST_LISTED, Edit, Standing
from saltext.lvs.model import ManagedBy, Reaction, VirtualServer, VirtualServerConfig
from saltext.lvs.observed import Move, Observed
from saltext.lvs.overlay import Verdicts

log = logging.getLogger(__name__)

# So often others can tell by the file that somebody watches still.
WRITE_EVERY_SECONDS = 20.0
# A file of ten thousand real servers takes a while: one part in twenty of the time, at most.
WRITES_APART_SECONDS = 0.25
WRITING_SHARE = 20
AGAIN_SECONDS = 1.0
# A decision that asks for another one at once would leave no time to ask anybody.
SOONEST_AGAIN_SECONDS = 0.05
GATHER_SECONDS = 0.1
# Nobody is asked meanwhile: those that are left wait for the next look, which comes at once.
SLICE_SECONDS = 0.03
# So many changes make one event: Salt's bus throws away what is larger than a megabyte.
MOST_CHANGES = 500
NOT_THERE = "it is not in the kernel's table: an apply of the pillar puts it there"
CAUTIOUS = "what operators wished is not known, so no weight is raised"


# --------------------------------------------------------------------------------------------------
# Duty


@dataclass(frozen=True, slots=True)
class Duty:
    """What a director is to ask, and whether it changes weights itself.

    rules, places
        By virtual server; in which virtual servers each real server is.
    """

    cluster: model.Cluster
    checks: tuple[Check, ...] = ()
    rules: Mapping[str, Rules] = field(default_factory=dict)
    places: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    acts: bool = False

    def keeps(self, virtual_server: str) -> bool:
        """Whether the weights of a virtual server are set here, if only those that time changes."""
        return _is_ours(self.cluster.virtual_servers[virtual_server])


def duty_of(cluster: model.Cluster, minion_id: str) -> Duty | None:
    """What a minion is to ask; ``None`` for one that is no director."""
    if minion_id not in cluster.directors:
        return None
    places: dict[str, list[str]] = {}
    for name, config in cluster.virtual_servers.items():
        for share in config.real_servers:
            places.setdefault(share.name, []).append(name)
    return Duty(
        cluster=cluster,
        checks=checksets.of(cluster),
        rules={
            name: checksets.rules_of(config) for name, config in cluster.virtual_servers.items()
        },
        places={name: tuple(found) for name, found in places.items()},
        acts=cluster.reaction in (Reaction.LOCAL, Reaction.BOTH),
    )


def _is_ours(config: VirtualServerConfig) -> bool:
    return config.managed_by is ManagedBy.SALT


# --------------------------------------------------------------------------------------------------
# Driver


class Driver:
    """Asks, and says when it is time to look.

    Raises OSError where its descriptors cannot be opened.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._closing = threading.Lock()
        self._woken = False
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            self.engine = probe.Engine()
        except BaseException:
            os.close(self._event)
            raise
        self.engine.listen(self._event, self._wake)

    def wait(self, seconds: float) -> bool:
        """Ask until somebody must be decided anew, or for so long; False if nothing came."""
        observed, engine = self._memory.observed, self.engine
        until = time.monotonic() + min(seconds, self._memory.seconds_left())
        left = max(0.0, until - time.monotonic())
        while not self._woken:
            verdicts = engine.step(left)
            if verdicts:
                self._memory.asked += len(verdicts)
                if observed.take(verdicts, overlay.clock()):
                    return True
            left = until - time.monotonic()
            if left <= 0:
                break
        woken, self._woken = self._woken, False
        return woken

    def _wake(self, _: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._event)
        self._woken = True

    def wake(self) -> None:
        """End a wait, from whatever thread; without effect once it is closed."""
        with self._closing:
            if self._event >= 0:
                os.eventfd_write(self._event, 1)

    def close(self) -> None:
        """Ask nobody any more, and give back the descriptors."""
        with self._closing:
            if self._event < 0:
                return
            self.engine.close()
            os.close(self._event)
            # The number may be somebody else's from now on.
            self._event = -1


# --------------------------------------------------------------------------------------------------
# Memory


@dataclass(slots=True)
class Memory(watch.Memory):
    """What one watcher remembers.

    given
        The whole pillar as last handed in by the minion's own thread; the watcher reads it.

    duty
        From the last pillar that was right; ``None`` before there was one.

    wishes, wishes_file
        As last read, and which file that was; ``None`` before they could be read.

    wishes_heeded, wishes_end
        Those by which all were decided, and when the next of them ends, in seconds since 1970.

    decisions, standings
        The last of each virtual server.

    again
        When a virtual server must be decided anew if nothing happens.

    queue, silent
        Virtual servers to be decided by the next looks, and those of them of which nothing has
        changed but the time: the steps of a slow start are no news.

    ended
        Those of them where a wish has ended by itself: nobody else sets what follows.

    retry
        Virtual servers to be looked at once more within a second.

    untold, told
        Changes that no event has told yet, and when the last event was.

    dirty, unwritten
        Whether the file of verdicts is older than what is known, and which virtual servers were
        decided since: whoever read it meanwhile may have set them by it.

    asked
        How many verdicts there were.
    """

    given: Mapping[str, Any] | None = None
    heeded: object = None
    duty: Duty | None = None
    observed: Observed = field(default_factory=Observed)
    driver: Driver | None = None
    in_engine: Duty | None = None
    wishes: wishing.Wishes | None = None
    wishes_file: object = None
    wishes_heeded: wishing.Wishes | None = None
    wishes_end: float | None = None
    wishes_problem: str | None = None
    wall: float = 0.0
    decisions: dict[str, policy.Decision] = field(default_factory=dict)
    standings: dict[str, Standing] = field(default_factory=dict)
    again: dict[str, float] = field(default_factory=dict)
    queue: dict[str, None] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    retry: set[str] = field(default_factory=set)
    retry_at: float = float("inf")
    dirty: bool = False
    unwritten: set[str] = field(default_factory=set)
    write_at: float = 0.0
    written: float = float("-inf")
    untold: list[tuple[bool, dict[str, Any]]] = field(default_factory=list)
    told: float = float("-inf")
    whole_told: float = float("-inf")
    gather: float = GATHER_SECONDS
    asked: int = 0
    problem: str = ""
    health: str = overlay.HEALTH
    wishes_path: str = wishing.WISHES

    def listener(self) -> Driver:
        """What asks while somebody watches."""
        self.driver, self.in_engine = Driver(self), None
        return self.driver

    def lose_track(self) -> None:
        """Decide everything anew."""
        if self.duty is not None:
            self.retry |= self.duty.cluster.virtual_servers.keys()
            self.retry_at = 0.0

    def seconds_left(self) -> float:
        """How long nothing needs to be done but to ask."""
        if self.queue:
            return 0.0
        ticks = (self.observed.next_tick(), min(self.again.values(), default=None))
        times = [self.retry_at, *(at for at in ticks if at is not None)]
        if self.tellable():
            times.append(self.told + self.gather)
        if self.dirty:
            times.append(self.write_at)
        return max(0.0, min(times) - overlay.clock())

    def tellable(self) -> list[tuple[bool, dict[str, Any]]]:
        """What may be told: of what others are to act on, only what they can read in the file."""
        return [one for one in self.untold if one[0] or not self.dirty]

    def untold_later(self) -> list[tuple[bool, dict[str, Any]]]:
        """The rest of it."""
        return [one for one in self.untold if self.dirty and not one[0]]

    def look(
        self, minion_id: str, repeat: float, act: bool, changed: bool
    ) -> Iterator[dict[str, Any]]:
        """Look once; only with *act* is anybody asked, and anything set."""
        self._heed(minion_id)
        if self.duty is None and self.in_engine is not None:
            self._let_go()
        if self.duty is None or not act:
            return
        if self.in_engine is not self.duty:
            self._begin(self.duty)
        yield from _Look(self, self.duty, minion_id).events(repeat)

    # ----------------------------------------------------------------------------------------------

    def _heed(self, minion_id: str) -> None:
        """Learn from the pillar what is to be asked; here, because that may take a while, and the
        minion's own thread must not stand still.
        """
        given = self.given
        if given is None:
            if self.heeded is None:
                self._heed_description(minion_id)
            return
        if given is self.heeded:
            return
        self.heeded = given
        described = given.get("lvs")
        if described is None and "_errors" not in given:
            self.pillar = self.duty = None
        # A refresh makes a new object of what is mostly the same pillar.
        if described is None or described == self.pillar:
            return
        self.pillar = described
        try:
            self.duty = duty_of(model.from_pillar(given), minion_id)
        except InvalidConfig as error:
            log.error("The pillar describes no cluster that can be watched: %s", error)

    def _heed_description(self, minion_id: str) -> None:
        self.heeded = {}
        try:
            described = description.read()
            if described is not None:
                self.duty = duty_of(model.from_pillar(described), minion_id)
        except LvsError as error:
            log.error("What was applied here last cannot be read: %s", error)

    def _begin(self, duty: Duty) -> None:
        assert self.driver is not None
        if not self.observed.found:
            self._remember()
        before = self.observed.found
        self.observed.set_checks((check.key for check in duty.checks), duty.rules)
        # Nothing will come any more that would let these in.
        self.retry |= {
            name[0]
            for name, found in before.items()
            if found.serves is False and name not in self.observed.found
        }
        self.retry_at = 0.0 if self.retry else self.retry_at
        self.driver.engine.set(duty.checks)
        known = duty.cluster.virtual_servers
        for by_name in (self.decisions, self.standings, self.again):
            for name in by_name.keys() - known.keys():
                del by_name[name]
        self.retry &= known.keys()
        self.dirty, self.in_engine = True, duty

    def _let_go(self) -> None:
        """Nobody is to be asked here any more, and nothing is left to be done."""
        assert self.driver is not None
        self.driver.engine.set(())
        self.observed = Observed()
        for left in (self.decisions, self.standings, self.again, self.queue):
            left.clear()
        for names in (self.silent, self.ended, self.retry, self.unwritten):
            names.clear()
        self.untold.clear()
        self.retry_at, self.dirty, self.in_engine = float("inf"), False, None

    def _remember(self) -> None:
        """What was known before this process was started."""
        try:
            before = overlay.read(self.health)
        except LvsError as error:
            log.warning("%s", error)
            return
        if before is not None:
            self.observed.remember(before.servers)
            self.standings |= {name: Standing(quorum) for name, quorum in before.quorum.items()}


def brief(memory: Memory, pillar: Mapping[str, Any]) -> None:
    """Hand in the pillar, of which the watcher then learns what is to be asked; costs nothing while
    it is the same object.
    """
    if not pillar:
        return
    given = {key: pillar[key] for key in ("lvs", SECRETS, "_errors") if key in pillar}
    before = memory.given
    same = before is not None and before.keys() == given.keys()
    if before is None or not same or any(before[key] is not given[key] for key in given):
        memory.given = given


# --------------------------------------------------------------------------------------------------
# Look


class _Look:
    """One look: see who must be decided anew, set it, and tell."""

    def __init__(self, memory: Memory, duty: Duty, minion_id: str) -> None:
        self.memory, self.duty, self.minion_id = memory, duty, minion_id
        self.at, self.wall = overlay.clock(), time.time()

    def events(self, repeat: float) -> Iterator[dict[str, Any]]:
        """Do it, and give out what follows."""
        memory = self.memory
        memory.observed.tick(self.at)
        self._act()
        yield from self._told()
        if self._write():
            # A job that has read the older file may have set what it said.
            self._act()
            yield from self._told()
        if self.at - memory.whole_told >= repeat:
            memory.whole_told = self.at
            yield self._event("state", self._whole())

    def _event(self, tag: str, content: Mapping[str, Any]) -> dict[str, Any]:
        at = round(self.wall, 3)
        return events.event(tag, self.minion_id, self.duty.cluster.name, at, **content)

    # -- who ---------------------------------------------------------------------------------------

    def _act(self) -> None:
        """Decide those anew of which something has changed, and set what follows: as many as the
        time allows.
        """
        memory = self.memory
        self._line_up()
        edits: dict[str, Edit] = {}
        silent: set[str] = set()
        left: set[str] = set()
        until = overlay.clock() + SLICE_SECONDS
        while memory.queue and (not edits or overlay.clock() < until):
            name = next(iter(memory.queue))
            del memory.queue[name]
            if name in memory.silent:
                memory.silent.discard(name)
                silent.add(name)
            whole = self.duty.acts or name in memory.ended
            memory.ended.discard(name)
            if name in self.duty.cluster.virtual_servers and self.duty.keeps(name):
                edits[name] = self._edited(name, whole)
                if not whole:
                    left.add(name)
        self._note(edits, silent, left)

    def _line_up(self) -> None:
        """Put those in the queue of which something has changed, the urgent first."""
        memory, observed = self.memory, self.memory.observed
        later = observed.take_later(self.at)
        found = observed.urgent | later
        wanted = self._wished() | self._retried() | later
        stepped = {name for name, at in memory.again.items() if at <= self.at}
        memory.unwritten |= found
        memory.dirty = memory.dirty or bool(found)
        for name in stepped:
            del memory.again[name]
        memory.silent |= stepped - memory.queue.keys()
        memory.silent -= wanted | observed.urgent
        ordered = (*observed.urgent, *memory.queue, *wanted, *stepped)
        memory.queue = dict.fromkeys(ordered)
        observed.urgent = set()

    def _retried(self) -> set[str]:
        memory = self.memory
        if memory.retry_at > self.at:
            return set()
        retried, memory.retry, memory.retry_at = memory.retry, set(), float("inf")
        return retried

    def _wished(self) -> set[str]:
        """Where operators wish something else than at the last look."""
        memory = self.memory
        self._read_wishes()
        heeded, known = memory.wishes_heeded, memory.wishes
        ended = memory.wishes_end is not None and self.wall >= memory.wishes_end
        set_back = self.wall < memory.wall - 1
        memory.wall = self.wall
        if known is None or not (known is not heeded or ended or set_back):
            return set()
        memory.wishes_heeded = known
        memory.wishes_end = wishing.next_end(known, self.wall)
        before, now = {} if heeded is None else heeded.wishes, known.wishes
        changed = {key for key in before.keys() | now.keys() if before.get(key) != now.get(key)}
        if ended or set_back:
            changed |= {key for key, wish in now.items() if wish.until is not None}
        if ended:
            memory.ended |= {
                name
                for key, wish in {**before, **now}.items()
                if wish.until is not None and wish.until <= self.wall
                for name in self._places(*key)
            }
        names = {name for key in changed for name in self._places(*key)}
        return names | self._cautious()

    def _cautious(self) -> set[str]:
        """Those that were decided while nothing was known of wishes."""
        standings = self.memory.standings.items()
        return {name for name, one in standings if one.problem and one.problem.startswith(CAUTIOUS)}

    def _places(self, virtual_server: str, real_server: str) -> Iterable[str]:
        if virtual_server == wishing.EVERYWHERE:
            return self.duty.places.get(real_server, ())
        return (virtual_server,)

    def _read_wishes(self) -> None:
        """Read them if the file is another one."""
        memory = self.memory
        try:
            status = os.stat(memory.wishes_path)
            file: object = status.st_ino, status.st_size, status.st_mtime_ns
        except FileNotFoundError:
            file = ()
        except OSError as error:
            file = str(error)
        if file == memory.wishes_file:
            return
        memory.wishes_file = file
        try:
            memory.wishes, memory.wishes_problem = wishing.read(memory.wishes_path), None
        except LvsError as error:
            # What is damaged is so until the file is another one; all else may be over soon.
            memory.wishes_file = file if isinstance(error, DamagedState) else None
            if str(error) != memory.wishes_problem:
                log.error("%s", error)
            # What is known of them holds; where nothing is, nobody gets more.
            memory.wishes_problem = str(error)

    # -- set ---------------------------------------------------------------------------------------

    def _edited(self, name: str, whole: bool) -> Edit:
        """Decide a virtual server by what is in the kernel at that moment, and set what follows.

        whole
            Otherwise nobody is taken out or let in, which is the reactor's; but those who are in
            get the weight that is theirs by now, since no event follows that would say so.
        """
        memory, duty = self.memory, self.duty
        config, edit = duty.cluster.virtual_servers[name], Edit()
        quorum = {name: memory.standings.get(name, Standing()).quorum}
        verdicts = Verdicts(events.boot_id(), self.at, memory.observed.found, quorum)

        def changed(held: VirtualServer | None) -> VirtualServer | None:
            # Now, since a job that had the table before may have noted a new one.
            self._read_wishes()
            wishes = memory.wishes or wishing.Wishes()
            edit.before = edit.after = held
            memory.observed.found.update(overlay.busy(config, duty.cluster, verdicts, held))
            edit.decision = overlay.decide(
                config, duty.cluster, verdicts, wishes, held, self.at, self.wall
            )
            if held is None:
                return None
            after = overlay.changed(held, config, edit.decision, duty.cluster)
            after = after if whole else _with_the_same(held, after)
            edit.after = after if memory.wishes is not None else _not_raised(held, after)
            return edit.after

        try:
            outcome = ipvs.edit(config.key, changed)
            if edit.before is None:
                edit.problem = NOT_THERE
            elif outcome.left:
                edit.problem = f"another program works against it: {outcome.left[0]}"
        except (LvsError, OSError) as error:
            edit.problem, edit.after = str(error), edit.before
        return edit

    def _note(self, edits: Mapping[str, Edit], stepped: set[str], left: set[str]) -> None:
        """What has been decided, and what is to be told of it.

        left
            Those of which the reactor sets what follows from verdicts.
        """
        memory = self.memory
        moves: dict[str, list[Move]] = {}
        for move in memory.observed.moves(memory.queue):
            moves.setdefault(move.name[0], []).append(move)
        for name in moves.keys() | edits.keys():
            if name not in self.duty.cluster.virtual_servers:
                continue
            edit = edits.get(name, Edit())
            if name in left:
                edit.problem = None
            changes = healthnews.of_real_servers(
                self.duty.cluster,
                name,
                Edit() if name in left else edit,
                moves.get(name, ()),
                memory.observed.found,
                silent=name in stepped,
            )
            if name in edits:
                changes += self._settled(name, edit)
            acted = name in edits and name not in left and edit.problem is None
            memory.untold += [(acted, change) for change in changes]

    def _settled(self, name: str, edit: Edit) -> list[dict[str, Any]]:
        """What has changed of a virtual server as a whole."""
        memory, decision = self.memory, edit.decision
        before = memory.standings.get(name, Standing())
        problem = edit.problem
        if problem is not None:
            memory.retry.add(name)
            memory.retry_at = min(memory.retry_at, self.at + AGAIN_SECONDS)
        elif memory.wishes is None:
            problem = f"{CAUTIOUS}: {memory.wishes_problem}"
        if decision is None:
            now = Standing(before.quorum, before.sorry, before.kept, problem)
        else:
            memory.decisions[name] = decision
            memory.again.pop(name, None)
            now = Standing(decision.quorum, decision.sorry, decision.kept, problem)
            if decision.again is not None:
                memory.again[name] = max(decision.again, self.at + SOONEST_AGAIN_SECONDS)
        memory.standings[name] = now
        memory.dirty = memory.dirty or now.quorum is not before.quorum
        return healthnews.of_whole(name, before, now)

    # -- tell --------------------------------------------------------------------------------------

    def _told(self) -> Iterator[dict[str, Any]]:
        """What is to be told by now: the first at once, more of it a little later together."""
        memory = self.memory
        ready = memory.tellable()
        if not ready or self.at - memory.told < memory.gather:
            return
        untold, memory.untold, memory.told = ready, memory.untold_later(), self.at
        for done in (True, False):
            changes = [change for acted, change in untold if acted is done]
            for start in range(0, len(changes), MOST_CHANGES):
                some = changes[start : start + MOST_CHANGES]
                yield self._event("change", {"acted": done, "changes": some})

    def _write(self) -> bool:
        """Tell other processes what is known; whether somebody may have gone by the older file."""
        memory = self.memory
        due = memory.dirty or self.at - memory.written >= WRITE_EVERY_SECONDS
        if not due or self.at < memory.write_at:
            return False
        began = overlay.clock()
        quorum = {name: standing.quorum for name, standing in memory.standings.items()}
        memory.observed.refresh()
        verdicts = Verdicts(events.boot_id(), began, memory.observed.found, quorum)
        self._try_to_write(verdicts)
        took = overlay.clock() - began
        memory.written, memory.dirty = began, False
        memory.write_at = began + max(WRITES_APART_SECONDS, WRITING_SHARE * took)
        again, memory.unwritten = memory.unwritten, set()
        memory.retry |= again
        memory.retry_at = 0.0 if again else memory.retry_at
        return bool(again)

    def _try_to_write(self, verdicts: Verdicts) -> None:
        memory = self.memory
        try:
            overlay.write(verdicts, memory.health)
            memory.problem = ""
        except (LvsError, OSError) as error:
            if str(error) != memory.problem:
                log.error("Jobs cannot know what the checks found: %s", error)
            memory.problem = str(error)

    def _whole(self) -> dict[str, Any]:
        """The whole state, as an event tells it."""
        memory, driver = self.memory, self.memory.driver
        found = memory.observed.found
        bad = [name for name, one in found.items() if one.state != State.UP.value]
        memory.observed.refresh(bad)
        states: dict[str, Counter[str]] = {}
        for (name, _), one in found.items():
            states.setdefault(name, Counter())[one.state] += 1
        servers = self.duty.cluster.virtual_servers
        told = [
            healthnews.summary(config, states.get(name, {}), memory.standings.get(name, Standing()))
            for name, config in servers.items()
        ]
        return {
            "acts": self.duty.acts,
            "virtual_servers": told[:MOST_LISTED],
            "virtual_server_count": len(told),
            "not_up": healthnews.not_up(bad, found, memory.decisions, self.wall - self.at),
            "not_up_count": len(bad),
            "checks": len(self.duty.checks),
            "asked": memory.asked,
            "waiting": 0 if driver is None else driver.engine.waiting,
            "problem": memory.wishes_problem or memory.problem or None,
        }


def _not_raised(held: VirtualServer, after: VirtualServer) -> VirtualServer:
    """The same, with nobody in who was not, and no weight above what it is."""
    most = {real.key: real.weight for real in held.real_servers}
    lowered = (
        replace(real, weight=min(real.weight, most[real.key]))
        for real in after.real_servers
        if real.key in most
    )
    return replace(after, real_servers=tuple(lowered))


def _with_the_same(held: VirtualServer, after: VirtualServer) -> VirtualServer:
    """As *held*, with other weights for those who have clients before and after."""
    wanted = {real.key: real.weight for real in after.real_servers if real.weight}
    real_servers = (
        replace(real, weight=wanted.get(real.key, real.weight)) if real.weight else real
        for real in held.real_servers
    )
    return replace(held, real_servers=tuple(real_servers))
