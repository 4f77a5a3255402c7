"""What the watcher of a director's keepalived hears, sees and tells.

It hears through keepalived's two pipes what changes, at once; through netlink, which VIPs are here
really; and through a handle on its process, that it has died. It asks keepalived itself now and
then, and as soon as something seems wrong: one that hangs answers nothing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from saltext.lvs import (
    events,
    fifos,
    loading,
    model,
    pipes,
    rtnetlink,
    running,
    vrrp,
    watch,
)
from saltext.lvs.errors import LvsError, NotAvailable
from saltext.lvs.listed import Listed, listed
from saltext.lvs.running import Question, Report, Vip

log = logging.getLogger(__name__)

# The kernel tells of every change to an address; this bounds what nobody has thought of.
READ_EVERY_SECONDS = 30.0
# While keepalived is to answer, somebody looks so often.
ANSWER_LOOK_SECONDS = 0.02
# keepalived that speaks VRRP wakes up for each advertisement; one that sleeps for so much longer is
# asked. (Each question leaves a line in its log, so it is not asked all the time.)
OVERSLEPT_SECONDS = 1.0
# One that has not answered is asked again so soon.
AGAIN_SECONDS = 1.0
# So many lines make one event, and so many servers that are down are listed: Salt's bus throws
# away what is larger than a megabyte.
MOST_CHANGES = 500
MOST_DOWN = 1000


# --------------------------------------------------------------------------------------------------
# Duty


@dataclass(frozen=True, slots=True)
class Duty:
    """What a director is to watch.

    vips
        By VRRP instance, as its pillar has them.

    advert_seconds
        The longest time between two advertisements.

    virtual_servers, real_servers
        Their names in the pillar, by those that keepalived has for them; real servers by that of
        their virtual server, too.

    ignored
        Virtual servers that are none of the pillar's: keepalived checks through them.

    instance
        keepalived's own name, where it has one.
    """

    cluster: str
    vips: Mapping[str, tuple[Vip, ...]]
    advert_seconds: float = 1.0
    virtual_servers: Mapping[str, str] = field(default_factory=dict)
    real_servers: Mapping[tuple[str, str], str] = field(default_factory=dict)
    ignored: frozenset[str] = frozenset()
    instance: str = ""


def duty_of(cluster: model.Cluster, minion_id: str) -> Duty | None:
    """What a minion is to watch; ``None`` for one that is no director."""
    if minion_id not in cluster.directors:
        return None
    instances = cluster.directors[minion_id].vrrp_instances
    return Duty(
        cluster=cluster.name,
        vips=running.planned(cluster, minion_id),
        advert_seconds=max((float(one.advert_int) for one in instances.values()), default=1.0),
        virtual_servers=dict(_virtual_servers(cluster)),
        real_servers=dict(_real_servers(cluster)),
        ignored=frozenset(f"FWM {mark}" for mark in cluster.path_marks.values()),
        instance=running.instance_of(cluster, minion_id),
    )


def _virtual_servers(cluster: model.Cluster) -> Iterator[tuple[str, str]]:
    """As keepalived's ipwrapper.c writes them: by address, by mark, or by group."""
    for name, config in cluster.virtual_servers.items():
        key = config.key
        if config.group:
            yield f"[{name}]:0", name
        elif key.fwmark:
            yield f"FWM {key.fwmark}", name
        else:
            yield _written(key.address, key.protocol, key.port), name


def _real_servers(cluster: model.Cluster) -> Iterator[tuple[tuple[str, str], str]]:
    for written, name in _virtual_servers(cluster):
        config = cluster.virtual_servers[name]
        for share in config.real_servers:
            address = cluster.real_servers[share.name].address
            for protocol in (config.key.protocol, None):
                yield (written, _written(address, protocol, share.port)), share.name


def _written(address: object, protocol: model.Protocol | None, port: int) -> str:
    return f"[{address}]:{protocol.value if protocol else 'none'}:{port}"


# --------------------------------------------------------------------------------------------------
# Ears


class Ears:
    """All that a watcher listens to: netlink, the two pipes, and the end of keepalived.

    Raises :class:`~saltext.lvs.errors.LvsError` or OSError where it cannot be opened.
    """

    def __init__(self, paths: tuple[str, ...], pid_file: str) -> None:
        self._paths, self._pid_file = paths, pid_file
        # As process() of the running keepalived has it.
        self.instance = ""
        self._kernel = rtnetlink.Listener()
        self.pipes: dict[str, pipes.Pipe] = {}
        self.troubles: dict[str, str] = {}
        self.pid: int | None = None
        self._handle = -1
        self.question: Question | None = None
        # The instances of which a pipe has told since the question.
        self.told: set[str] = set()

    def wait(self, seconds: float) -> bool:
        """Wait for news, or for so long, or for an answer to come; False if nothing came."""
        if self.question is None:
            return self._kernel.wait(seconds)
        return self._kernel.wait(min(seconds, ANSWER_LOOK_SECONDS))

    def wake(self) -> None:
        """End a wait, from whatever thread."""
        self._kernel.wake()

    def close(self) -> None:
        """Give back all of it."""
        self.end_question()
        self._kernel.close()
        for pipe in self.pipes.values():
            pipe.close()
        self.pipes = {}
        self._forget_process()

    def attend(self) -> None:
        """Open pipes that have come or were replaced, and find the keepalived that runs now."""
        for path in self._paths:
            self._attend_pipe(path)
        if self.pid is not None and _has_ended(self._handle):
            self._forget_process()
        if self.pid is None:
            self._find_process()

    def _attend_pipe(self, path: str) -> None:
        pipe = self.pipes.get(path)
        if pipe is not None and not pipe.is_current():
            log.warning("%s is another pipe now: what keepalived told meanwhile may be lost", path)
            self._kernel.remove(pipe.descriptor)
            self.pipes.pop(path).close()
            pipe = None
        if pipe is None:
            try:
                pipe = pipes.Pipe(path)
            except LvsError as error:
                self.troubles[path] = str(error)
                return
            self.troubles.pop(path, None)
            self.pipes[path] = pipe
            self._kernel.add(pipe.descriptor)

    def _find_process(self) -> None:
        pid = running.process(self._pid_file, self.instance)
        if pid is None:
            return
        try:
            self._handle = os.pidfd_open(pid)
        except OSError:
            return
        # The number may have become another program's: from here on it cannot.
        if not running.is_keepalived(pid):
            os.close(self._handle)
            self._handle = -1
            return
        self.pid = pid
        self._kernel.add(self._handle)

    def _forget_process(self) -> None:
        if self._handle >= 0:
            with contextlib.suppress(KeyError, ValueError):
                self._kernel.remove(self._handle)
            os.close(self._handle)
        self._handle, self.pid = -1, None
        self.end_question()

    def notices(self) -> list[vrrp.Notice]:
        """What keepalived has told since the last time."""
        parsed = (vrrp.parse(line) for pipe in self.pipes.values() for line in pipe.lines())
        found = [notice for notice in parsed if notice is not None]
        self.told |= {item.name for item in found if item.subject is vrrp.Subject.INSTANCE}
        return found

    def ask(self) -> bool:
        """Begin to ask keepalived; whether that could be done."""
        if self.pid is None or self.question is not None:
            return False
        try:
            self.question = Question(self.pid, wait=False)
        except (BlockingIOError, LvsError, OSError) as error:
            log.debug("keepalived cannot be asked: %s", error)
            return False
        self.told = set()
        return True

    def end_question(self) -> None:
        """Let others ask."""
        if self.question is not None:
            self.question.close()
        self.question = None


def _has_ended(handle: int) -> bool:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(0))


# --------------------------------------------------------------------------------------------------
# Look


@dataclass(slots=True)
class Memory(watch.Memory):
    """What one watcher remembers.

    duty
        What is to be watched, from the last pillar that was right; ``None`` before there was one.

    notices
        What keepalived has written, and no look has told yet.

    report
        What keepalived has answered last, and with which process id.

    answers
        Whether it has answered the last question; ``None`` before there was one.

    is_mute
        Whether it has not answered, and need not: without any VRRP instance it does not.

    ask_again
        Not before then, on a clock that is never set.

    listed
        What its configuration lists, by the hash of the text, while somebody has to know.

    switches, slept_since
        How often its VRRP process has gone to sleep, and since when that has not changed.

    held, read
        What interfaces held, and when that was read, on that clock.

    begun
        When the whole state was asked for, to be told with the answer.
    """

    duty: Duty | None = None
    known: vrrp.Known = field(default_factory=vrrp.Known)
    notices: list[vrrp.Notice] = field(default_factory=list)
    report: Report = field(default_factory=dict)
    pid: int | None = None
    answers: bool | None = None
    is_mute: bool = False
    ask_again: float = float("-inf")
    listed: tuple[int, Listed] | None = None
    switches: int | None = None
    slept_since: float = 0.0
    held: frozenset[Vip] = frozenset()
    read: float = float("-inf")
    whole_told: float = float("-inf")
    begun: float | None = None
    ears: Ears | None = None
    paths: tuple[str, ...] = fifos.PATHS
    pid_file: str = running.PID_FILE

    def listener(self) -> Ears:
        """What is listened to while somebody watches."""
        self.ears = Ears(self.paths, self.pid_file)
        return self.ears

    def lose_track(self) -> None:
        """Read everything anew at the next look."""
        self.read = float("-inf")
        if self.ears is not None:
            self.ears.end_question()

    def look(
        self, minion_id: str, repeat: float, act: bool, changed: bool
    ) -> Iterator[dict[str, Any]]:
        """Look once; only with *act* is keepalived listened to and asked."""
        duty = self.duty
        if duty is None:
            return
        ears = self.ears if act else None
        look = _Look(self, duty, ears, changed)
        changes = look.changes()
        at = round(time.time(), 3)
        for start in range(0, len(changes), MOST_CHANGES):
            some = changes[start : start + MOST_CHANGES]
            yield events.event("change", minion_id, duty.cluster, at, changes=some)
        look.ask_if_needed()
        if look.is_whole_due(repeat):
            yield events.event("state", minion_id, duty.cluster, at, **look.whole())


class _Look:
    """One look: hear, read, compare, and ask where that is needed."""

    def __init__(self, memory: Memory, duty: Duty, ears: Ears | None, changed: bool) -> None:
        self.memory, self.duty, self.ears = memory, duty, ears
        self.clock, self.changed = time.monotonic(), changed
        self.said: dict[str, tuple[str, int]] = {}
        # All instances that there are, where keepalived has just said it.
        self.there: set[str] | None = None
        self.suspicious = False

    def changes(self) -> list[vrrp.Change]:
        """What has changed since the last look, as an event lists it."""
        self._hear()
        self._read()
        memory, at = self.memory, round(time.time(), 3)
        before, sight, lists = memory.known, self._sight(), self._listed()
        # From here on nothing may fail: what was news is known now, and would never be told.
        # What is there no more goes first: the lines may be about what is new.
        known, gone = self._without_gone(before, lists)
        known, told = vrrp.heard(known, memory.notices, sight, at)
        memory.notices = []
        memory.known, found = vrrp.seen(known, sight, at, self.clock)
        self.suspicious = vrrp.is_new_suspicion(before, memory.known)
        changes = (*gone, *told, *found)
        return [self._named(change) for change in changes if not self._is_ignored(change)]

    def _listed(self) -> Listed | None:
        """What keepalived's configuration lists, where that matters now and is to be seen."""
        memory = self.memory
        matters = memory.known.groups or memory.known.servers
        if self.there is None or memory.pid is None or not matters:
            return None
        text = loading.text_of(memory.pid)
        if text is None:
            return None
        # It may have two megabytes, and is the same for weeks.
        if memory.listed is None or memory.listed[0] != hash(text):
            memory.listed = hash(text), listed(text)
        return memory.listed[1]

    def _without_gone(
        self, known: vrrp.Known, lists: Listed | None
    ) -> tuple[vrrp.Known, tuple[vrrp.Change, ...]]:
        if lists is None:
            return vrrp.without(known, self.there)
        servers = {key for key in known.servers if lists.has(*key)}
        return vrrp.without(known, self.there, lists.groups, servers)

    def _hear(self) -> None:
        ears = self.ears
        if ears is None:
            self.memory.pid = running.process(self.memory.pid_file, self.duty.instance)
            return
        ears.instance = self.duty.instance
        ears.attend()
        # What has ended has told everything by now.
        self._attend_process(ears.pid)
        # An answer comes after the lines that keepalived wrote before it.
        self._take_answer(ears)
        self.memory.notices += ears.notices()
        # Of what has changed meanwhile the lines say more.
        self.said = {name: one for name, one in self.said.items() if name not in ears.told}

    def _attend_process(self, pid: int | None) -> None:
        memory = self.memory
        if pid == memory.pid:
            return
        memory.pid, memory.answers, memory.report = pid, None, {}
        memory.is_mute, memory.listed = False, None
        memory.ask_again = self.clock + AGAIN_SECONDS if pid else float("inf")
        memory.switches, memory.slept_since = None, self.clock
        # Each keepalived finds out anew which servers are up.
        memory.known = vrrp.without_servers(memory.known)

    def _take_answer(self, ears: Ears) -> None:
        question, memory = ears.question, self.memory
        if question is None:
            return
        try:
            report = question.answer()
        except LvsError as error:
            log.warning("%s", error)
            ears.end_question()
            memory.ask_again = self.clock + READ_EVERY_SECONDS
            return
        if report is None and question.passed() <= running.PATIENCE_SECONDS:
            return
        ears.end_question()
        memory.is_mute = report is None and not self._has_to_answer()
        memory.answers = None if memory.is_mute else report is not None
        pause = READ_EVERY_SECONDS if memory.is_mute else AGAIN_SECONDS
        memory.ask_again = self.clock + pause
        if report is not None or memory.is_mute:
            memory.report = report or {}
            self.there = {*memory.report, *self.duty.vips, *ears.told}
        if report is not None:
            states = {name: (one.state.name, one.priority) for name, one in report.items()}
            self.said = {name: one for name, one in states.items() if one[0] in vrrp.STATES}

    def _has_to_answer(self) -> bool:
        """Whether it has an instance: without any, nothing in it speaks VRRP."""
        memory = self.memory
        if self.duty.vips or memory.pid is None:
            return bool(self.duty.vips)
        return bool(memory.report) and running.vrrp_process(memory.pid) is not None

    def _read(self) -> None:
        memory = self.memory
        if not self.changed and self.clock - memory.read < READ_EVERY_SECONDS:
            return
        memory.held = running.here()
        memory.read = self.clock

    def _sight(self) -> vrrp.Sight:
        memory = self.memory
        vips = {
            name: {str(vip.address): running.holds(memory.held, vip) for vip in wanted}
            for name, wanted in self._wanted().items()
        }
        return vrrp.Sight(
            vips=vips,
            running=memory.pid is not None,
            answers=memory.answers,
            said=self.said,
            by_vips_alone=self._is_deaf(),
        )

    def _wanted(self) -> dict[str, tuple[Vip, ...]]:
        """The VIPs by instance: keepalived knows best, the pillar before it has said anything."""
        return {**self.duty.vips} | {name: one.vips for name, one in self.memory.report.items()}

    def _is_deaf(self) -> bool:
        return not (self.memory.report or (self.ears and self.memory.paths[0] in self.ears.pipes))

    # ----------------------------------------------------------------------------------------------

    def ask_if_needed(self) -> None:
        """Ask keepalived where something may be wrong, or nothing is known of it."""
        if self.ears is None or self.memory.pid is None:
            return
        overslept = self._has_overslept()
        again = self.clock >= self.memory.ask_again
        unknown = again and (overslept or not self.memory.answers)
        if unknown or (self.suspicious and self.memory.answers):
            self.ears.ask()

    def _has_overslept(self) -> bool:
        """Whether keepalived has not woken up for longer than it may."""
        memory = self.memory
        if memory.pid is None:
            return False
        process = running.vrrp_process(memory.pid)
        switches = running.switches(process) if process else None
        if switches != memory.switches:
            memory.switches, memory.slept_since = switches, self.clock
            return False
        at_work = {vrrp.MASTER, vrrp.BACKUP}
        if not any(one.state in at_work for one in memory.known.instances.values()):
            return False
        return self.clock - memory.slept_since > self._longest_advert() + OVERSLEPT_SECONDS

    def _longest_advert(self) -> float:
        known = [one.advert_seconds for one in self.memory.report.values()]
        return max(known, default=self.duty.advert_seconds)

    # ----------------------------------------------------------------------------------------------

    def is_whole_due(self, repeat: float) -> bool:
        """Whether to tell the whole state now; it waits for keepalived's answer."""
        memory = self.memory
        if self.clock - memory.whole_told < repeat:
            return False
        if self.ears is not None and memory.pid is not None:
            if memory.begun is None:
                memory.begun = self.clock
                if not memory.is_mute or self.clock >= memory.ask_again:
                    self.ears.ask()
            waited = self.clock - memory.begun
            if self.ears.question is not None and waited <= 2 * running.PATIENCE_SECONDS:
                return False
        memory.whole_told, memory.begun = self.clock, None
        return True

    def whole(self) -> dict[str, Any]:
        """The whole state, as an event tells it."""
        memory = self.memory
        told = vrrp.whole_state(memory.known, self._sight())
        told["vrrp_instances"] = [
            {**one, **_details(memory.report.get(one["vrrp_instance"]))}
            for one in told["vrrp_instances"]
        ]
        down = [one for one in told["down"] if not self._is_ignored(one)]
        told["down"] = [self._named(one) for one in down[:MOST_DOWN]]
        return {
            "running": memory.pid is not None,
            "answers": memory.answers,
            "pipes": self._pipes(),
            **told,
            "down_count": len(down),
        }

    def _pipes(self) -> dict[str, Any]:
        """How the pipes are: what is wrong with each, or nothing."""
        if self.ears is None:
            return {}
        told = {}
        for path in self.memory.paths:
            others = pipes.readers(path, _may_have) if path in self.ears.pipes else ()
            reading = f"process {', '.join(map(str, others))} reads it too, and takes lines away"
            told[path] = self.ears.troubles.get(path) or (reading if others else None)
        vrrp_pipe = self.memory.paths[0]
        if told.get(vrrp_pipe) is None and self._writes_elsewhere(vrrp_pipe):
            told[vrrp_pipe] = "keepalived does not write into it; see keepalived.plan_config"
        return told

    def _writes_elsewhere(self, path: str) -> bool:
        process = running.vrrp_process(self.memory.pid) if self.memory.pid is not None else None
        return process is not None and not pipes.has_open(process, path)

    def _named(self, change: vrrp.Change) -> vrrp.Change:
        """The same with the pillar's names, where they are known."""
        if "virtual_server" not in change:
            return change
        written, real_server = change["virtual_server"], change.get("real_server")
        named = {"virtual_server": self.duty.virtual_servers.get(written, written)}
        if real_server is not None:
            key = written, real_server
            named["real_server"] = self.duty.real_servers.get(key, real_server)
        return {**change, **named}

    def _is_ignored(self, change: vrrp.Change) -> bool:
        return change.get("virtual_server") in self.duty.ignored


def _details(one: running.Instance | None) -> dict[str, Any]:
    if one is None:
        return {}
    return {"last_transition": one.last_transition, "base_priority": one.base_priority}


def _may_have(pid: int) -> bool:
    """Whether a process may have the pipes open: keepalived itself, and this one."""
    return pid == os.getpid() or running.is_keepalived(pid)


def brief(memory: Memory, pillar: Mapping[str, Any], minion_id: str) -> None:
    """Learn from the pillar what is to be watched; costs nothing while it is the same object.

    Raises :class:`~saltext.lvs.errors.InvalidConfig`, once for each pillar, and keeps to the last
    one that was right.
    """
    described = pillar.get("lvs")
    if described is None and pillar and "_errors" not in pillar:
        memory.pillar = memory.duty = None
    if described is None or described is memory.pillar:
        return
    same = described == memory.pillar
    memory.pillar = described
    if same:
        return
    memory.duty = duty_of(model.from_pillar(pillar), minion_id)


def ask(memory: Memory) -> None:
    """Ask keepalived now, and wait for its answer: for who looks by hand."""
    pid = running.process(memory.pid_file, memory.duty.instance if memory.duty else "")
    if pid is None:
        return
    with contextlib.suppress(NotAvailable):
        report = running.ask(pid)
        memory.answers, memory.report = report is not None, report or {}
