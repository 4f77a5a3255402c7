"""Failovers of two real directors, one after the other, each by another cause."""

from __future__ import annotations

import random
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.lab import VIP, Lab, LabError, services, until
from tests.lab.bus import Bus
from tests.lab.client import Client
from tests.lab.cluster import CHECKOUT, SaltCluster
from tests.lab.host import Host
from tests.soak import judge
from tests.soak.judge import BEACON, Transition

DIRECTORS = ("lb1", "lb2")
CLIENTS = [f"10.10.10.{number}" for number in range(101, 105)]
PILLAR = "/srv/pillar/production/lvs.sls"
TRUTH = "/var/log/vrrp-truth"
SCRIPT = "/usr/local/sbin/vrrp-truth"
# Writes what keepalived does past us: the beacon reads another way.
NOTIFY = f"""\
#!/bin/sh
echo "$(date +%s.%N) $*" >>{TRUTH}
"""
# keepalived asks for both where it runs a script.
SCRIPTS = """\
  keepalived:
    global_defs: {enable_script_security: True, script_user: root}
"""
# A failover takes three of these and up to a second more; the example's three seconds only cost
# time here.
ADVERT_INT = ("advert_int: 3", f"advert_int: 1\n      notify: {SCRIPT}")
# Who begins as master must have the highest priority, and that changes here.
STATE = ("state: MASTER", "state: BACKUP")
PRIORITY = re.compile(r"(lb1: .*priority: )(\d+)")
# Lower than the other one's.
LOWEST = 40
TAKEOVER_SECONDS = 60
PASSWORD = "MY_PASS"
# Where no host may have it: it belongs into keepalived's configuration and into the pillar. (The
# master caches the pillars of its minions.)
SPOKEN = ("/var/log", "/run", "/etc/salt", "/var/lib/saltext-lvs")
SPOKEN_BY_MINIONS = (*SPOKEN, "/var/cache/salt")
HANGING = "keepalived does not answer"
SPLIT, HELD = "lvs/vips/prod/split_brain", "lvs/vips/prod/held"
# An event that is on its way.
SETTLE_SECONDS = 10
# What the master looks into first: whether it lasts longer than a failover does.
EXPECTED_SECONDS = 30
# Two of the beacon's full states are never further apart.
STATE_SECONDS = 30 + SETTLE_SECONDS


@dataclass(frozen=True)
class Round:
    """One failover: its cause, what is wrong with what was told of it, and how long clients got no
    answer.
    """

    cause: str
    problems: tuple[str, ...]
    gap: float


def cluster_of(lab: Lab) -> SaltCluster:
    """Start a cluster whose minions are the two directors, and whose master answers events as ours
    do, and wait until it answers. The real servers are made by hand: they have no part in this.
    """
    shipped = (CHECKOUT / "lvs/files/master.conf").read_text(encoding="utf-8")
    lab["master"].write("/etc/salt/master.d/saltext-lvs.conf", shipped)
    for name in ("rs1", "rs2"):
        _make_real_server(lab[name])
    cluster = SaltCluster(lab, minions=DIRECTORS)
    cluster.start()
    cluster.wait()
    return cluster


def _make_real_server(host: Host) -> None:
    quiet = [f"net.ipv4.conf.all.{setting}" for setting in ("arp_ignore=1", "arp_announce=2")]
    host.run(["sysctl", "-qw", *quiet], check=True)
    lines = f"link add dummy0 type dummy\nlink set dummy0 up\naddress add {VIP}/32 dev dummy0\n"
    host.run(["ip", "-batch", "-"], check=True, input=lines)


class Failovers:
    """Does failovers on a cluster of two directors, and hears what they tell.

    seed
        What decides about the order of causes.
    """

    def __init__(self, cluster: SaltCluster, seed: int) -> None:
        self.cluster = cluster
        self.lab = cluster.lab
        self.client = Client(cluster.lab["client"])
        self._random = random.Random(seed)
        self._bus: Bus | None = None
        # Whether the master's bus was away in this round.
        self._deaf = False
        self.causes: dict[str, Callable[[str, str], None]] = {
            "keepalived is stopped": self._stopped,
            "keepalived is killed": self._killed,
            "the link goes": self._link,
            "the priority changes": self._priority,
            "keepalived is killed, the other one reloads": self._reload_during,
            "keepalived is killed, the other minion restarts": self._minion_during,
            "keepalived is killed, the master restarts": self._master_during,
            "keepalived hangs": self._hangs,
            "the directors do not hear each other": self._deaf_to_each_other,
            "the VIP is deleted by hand": self._deleted,
        }
        # What a cause has seen by itself that was not as it should be.
        self._seen: list[str] = []
        # Whose keepalived was killed in this round.
        self._killed_one = ""

    def prepare(self) -> None:
        """Give the cluster a pillar that lets failovers be quick, and apply it.

        The master must have the shipped reactors since its start: see :func:`cluster_of`.
        """
        pillar = self.cluster.master.read(PILLAR).replace(*ADVERT_INT).replace(*STATE)
        self.cluster.master.write(PILLAR, pillar + SCRIPTS)
        for name in DIRECTORS:
            self.lab[name].write(SCRIPT, NOTIFY, mode=0o755)
        returned = self.cluster.highstate()
        failed = [
            f"{name}: {state['__id__']}: {state['comment']}"
            for name, states in returned.items()
            for state in states.values()
            if state["result"] is False
        ]
        if failed:
            raise LabError("\n".join(failed))
        self._wait_for_holder("lb1")

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear the master's bus in this block."""
        self._listen()
        # What keepalived did before is told by then.
        time.sleep(SETTLE_SECONDS)
        try:
            yield
        finally:
            self._deafen()

    def rounds(self, count: int) -> Iterator[Round]:
        """Do so many failovers; every cause comes once before any comes again."""
        left: list[str] = []
        for _ in range(count):
            if not left:
                left = self._random.sample(list(self.causes), len(self.causes))
            yield self._round(left.pop())

    def _round(self, cause: str) -> Round:
        self._deaf = False
        self._seen, self._killed_one = [], ""
        began = {name: len(self._done(name)) for name in DIRECTORS}
        assert self._bus is not None
        self._bus.events.clear()
        with self.client.keep_asking(VIP, sources=CLIENTS) as asking:
            time.sleep(1)
            try:
                self.causes[cause]("lb1", "lb2")
                self._wait_for_holder("lb1")
            except (LabError, subprocess.SubprocessError) as error:
                self._seen.append(f"broken off: {str(error)[-300:]}")
                self._mend()
            time.sleep(1)
        were = {name: self._done(name)[number:] for name, number in began.items()}
        problems = [
            f"{name}: {problem}"
            for name in DIRECTORS
            if (problem := self._judged(name, were[name]))
        ]
        problems += [*self._seen, *self._bus_secrets()]
        return Round(cause, tuple(problems), asking.replies.longest_gap())

    def _mend(self) -> None:
        """Have lb1 hold the VIP again, whatever went wrong."""
        self._isolate("off")
        for name in DIRECTORS:
            self.lab[name].link_up()
            self.lab[name].run(["pkill", "-x", "keepalived", "--signal", "CONT"])
            self._start(name)
        self.cluster.wait()
        self._wait_for_holder("lb1")

    def secrets(self) -> list[str]:
        """The files, by host, that hold the password and should not."""
        found = []
        for host in self.lab:
            # What a pipe holds is for its reader; --devices=skip leaves it alone.
            folders = SPOKEN if host is self.cluster.master else SPOKEN_BY_MINIONS
            command = ["grep", "-rlF", "--devices=skip", PASSWORD, *folders]
            said = host.run(command).stdout.split()
            # keepalived answers questions with a file, which holds it.
            script = 'grep -lF -- "$1" /tmp/keepalived* 2>/dev/null'
            said += host.run(["sh", "-c", script, "sh", PASSWORD]).stdout.split()
            found += [f"{host.name}:{path}" for path in said]
        return found

    def _bus_secrets(self) -> list[str]:
        """Events and returns that hold the password, in this round."""
        assert self._bus is not None
        said = [event for event in list(self._bus.events) if PASSWORD in str(event.data)]
        return [f"the password is in {event.tag}" for event in said]

    # Judging

    def _done(self, name: str) -> list[Transition]:
        return judge.done(name, self.lab[name].run(["cat", TRUTH]).stdout)

    def _judged(self, name: str, were: list[Transition]) -> str:
        if self._deaf:
            return self._judged_by_state(name)
        states = [item.state for item in were]
        deadline = time.monotonic() + SETTLE_SECONDS
        killed = self._killed_one == name
        while problem := judge.missing(states, self._told(name), killed=killed):
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)
        return problem and f"{problem} {self._heard(name)}"

    def _heard(self, name: str) -> list[str]:
        """What was heard of a director, in few words, for who looks for the reason."""
        assert self._bus is not None
        tag = f"salt/beacon/{name}/{BEACON}/change"
        return [
            f"{event.data['seq']} at {event.data['at']:.2f}: {change}"
            for event in list(self._bus.events)
            if event.tag == tag
            for change in event.data["changes"]
        ]

    def _told(self, name: str) -> list[str]:
        assert self._bus is not None
        tag = f"salt/beacon/{name}/{BEACON}/change"
        events = [event.data for event in list(self._bus.events) if event.tag == tag]
        return judge.states(judge.told(events), name)

    def _judged_by_state(self, name: str) -> str:
        """What was told while nobody listened must be in the next full state."""
        tag = f"salt/beacon/{name}/{BEACON}/state"
        last = self._done(name)[-1].state
        deadline = time.monotonic() + STATE_SECONDS
        said = "no full state"
        while time.monotonic() < deadline:
            assert self._bus is not None
            states = [event.data for event in list(self._bus.events) if event.tag == tag]
            if states:
                (instance,) = states[-1]["vrrp_instances"]
                said = instance["now"]
                if said == last:
                    return ""
            time.sleep(0.5)
        return f"it is {last}, and the full state says {said}"

    def _listen(self) -> None:
        self._bus = Bus(self.cluster.master)
        self._bus.__enter__()

    def _deafen(self) -> None:
        if self._bus is not None:
            self._bus.__exit__(None, None, None)
        self._bus = None

    # Causes: each ends with everything as before, but for the wait until that is so.

    def _stopped(self, holder: str, other: str) -> None:
        self.lab[holder].run(["service", "keepalived", "stop"], check=True)
        services.wait_until_gone(self.lab[holder], "keepalived")
        self._wait_for_holder(other)
        self._start(holder)

    def _killed(self, holder: str, other: str) -> None:
        self._kill(holder)
        self._wait_for_holder(other)
        self._start(holder)

    def _link(self, holder: str, other: str) -> None:
        self.lab[holder].link_down()
        until(
            lambda: other in self._holders(), f"{other} to hold the VIP", seconds=TAKEOVER_SECONDS
        )
        self.lab[holder].link_up()

    def _priority(self, holder: str, other: str) -> None:
        before = self._set_priority(LOWEST)
        self._wait_for_holder(other)
        self._set_priority(before)

    def _reload_during(self, holder: str, other: str) -> None:
        self._kill(holder)
        pid = self.lab[other].read("/run/keepalived.pid").strip()
        self.lab[other].run(["kill", "-HUP", pid], check=True)
        self._wait_for_holder(other)
        self._start(holder)

    def _minion_during(self, holder: str, other: str) -> None:
        self._kill(holder)
        self.lab[other].run(["service", "salt-minion", "restart"], check=True)
        self._wait_for_holder(other)
        self.cluster.wait()
        self._start(holder)

    def _master_during(self, holder: str, other: str) -> None:
        self._deaf = True
        self._deafen()
        self._kill(holder)
        self.cluster.master.run(["service", "salt-master", "restart"], check=True)
        self._wait_for_holder(other)
        self.cluster.close()
        self.cluster.wait()
        self._listen()
        self._start(holder)

    def _hangs(self, holder: str, other: str) -> None:
        """Its VIP stays where it is, and the other one takes it too."""
        everyone = ["pkill", "-x", "keepalived", "--signal"]
        self.lab[holder].run([*everyone, "STOP"], check=True)
        self._wait_for_both()
        self._expect(lambda: self._problem(holder) == HANGING, f"nobody said: {HANGING}")
        self.lab[holder].run([*everyone, "CONT"], check=True)
        self._wait_for_holder(holder)
        self._expect(
            lambda: self._problem(holder) is None, f"nobody said that it is over: {HANGING}"
        )

    def _deaf_to_each_other(self, holder: str, other: str) -> None:
        """Both take the VIP, and the master says so: nobody else can."""
        self._isolate("on")
        self._wait_for_both()
        answer = self.cluster.salt_run("lvs.mastership", holder, "settle=True", timeout=60)
        said = answer["vips"][VIP]
        if (said["verdict"], sorted(said["holders"])) != ("split_brain", list(DIRECTORS)):
            self._seen.append(f"lvs.mastership says {said}")
        self._expect(lambda: self._fired(SPLIT), f"there was no event {SPLIT}")
        self._isolate("off")
        self._wait_for_holder(holder)
        self._expect(lambda: self._fired(HELD), f"there was no event {HELD}")

    def _deleted(self, holder: str, other: str) -> None:
        delete = ["ip", "address", "delete", f"{VIP}/32", "dev", "eth0"]
        self.lab[holder].run(delete, check=True)
        time.sleep(2)

    def _isolate(self, word: str) -> None:
        """Whether the switch passes on what one director sends to the other."""
        for name in DIRECTORS:
            self.lab[name].isolate(word == "on")

    def _wait_for_both(self) -> None:
        until(
            lambda: self._holders() == list(DIRECTORS),
            "both directors to hold the VIP",
            seconds=TAKEOVER_SECONDS,
        )

    def _expect(self, fact: Callable[[], bool], otherwise: str) -> None:
        """Wait until something was told; if it is not, that is a problem of this round."""
        deadline = time.monotonic() + EXPECTED_SECONDS
        while not fact():
            if time.monotonic() > deadline:
                self._seen.append(otherwise)
                return
            time.sleep(0.1)

    def _problem(self, name: str) -> str | None:
        """The problem that the last change of a director's instance told."""
        assert self._bus is not None
        tag = f"salt/beacon/{name}/{BEACON}/change"
        events = [event.data for event in list(self._bus.events) if event.tag == tag]
        told = [
            change["problem"]
            for event in judge.counted_once(events)
            for change in event["changes"]
            if change.get("vrrp_instance")
        ]
        return told[-1] if told else None

    def _fired(self, tag: str) -> bool:
        assert self._bus is not None
        return any(event.tag == tag for event in list(self._bus.events))

    def _kill(self, name: str) -> None:
        self._killed_one = name
        pid = self.lab[name].read("/run/keepalived.pid").strip()
        self.lab[name].run(["kill", "-KILL", pid], check=True)
        services.wait_until_gone(self.lab[name], "keepalived")

    def _start(self, name: str) -> None:
        services.start(self.lab[name], "keepalived")

    def _set_priority(self, priority: int) -> int:
        """Give lb1 a priority, and return the one that it had."""
        pillar = self.cluster.master.read(PILLAR)
        found = PRIORITY.search(pillar)
        assert found is not None
        new = f"{found[1]}{priority}{pillar[found.end() :]}"
        self.cluster.master.write(PILLAR, pillar[: found.start()] + new)
        returned = self.cluster.salt("lb1", "state.apply", "lvs.director", timeout=300)["lb1"]
        failed = [s["comment"] for s in returned.values() if s["result"] is False]
        if failed:
            raise LabError("\n".join(failed))
        return int(found[2])

    def _wait_for_holder(self, name: str) -> None:
        """Wait until this director alone has the VIP on its card."""
        until(
            lambda: self._holders() == [name],
            f"{name} alone to hold the VIP",
            seconds=TAKEOVER_SECONDS,
        )

    def _holders(self) -> list[str]:
        show = ["ip", "-brief", "address", "show", "dev", "eth0"]
        return [name for name in DIRECTORS if f"{VIP}/32" in self.lab[name].run(show).stdout]
