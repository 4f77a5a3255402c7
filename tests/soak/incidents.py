"""Incidents, one after the other, while what should tell of them is killed at random: the master,
its process that tells, minions, the mail relay.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tests.integration import alerting
from tests.lab import LabError, until
from tests.lab.cluster import MINIONS, SaltCluster
from tests.soak import books
from tests.soak.books import Death, Received, Subject, Truth

# Noticed, or over: a master that was killed needs a quarter of it to be there again.
WITHIN_SECONDS = 240.0
# After something has begun or ended, somebody is killed within this time, and is away for this.
KILL_WITHIN_SECONDS, AWAY_SECONDS = 4.0, 4.0
JOURNAL = "/var/cache/salt/master/saltext-lvs/incidents.sqlite"
READ = """\
import json, sys
sys.path.insert(0, "/srv/salt/_utils")
from saltext.lvs import incidents, journal, outbox
book = journal.Journal(sys.argv[1])
waiting = len(outbox.Outbox(book).pending(1000))
print(json.dumps({"all": list(map(incidents.as_data, book.history(10000))), "waiting": waiting}))
"""
# The process that has the outbox, as it alone sends.
ENGINE = f"""\
for one in /proc/[0-9]*; do
    ls -l $one/fd 2>/dev/null | grep -q '{JOURNAL}.sender' && exec kill -KILL ${{one#/proc/}}
done
exit 1
"""
# Patterns of whole command lines, of which the host's first process has all services' names.
MASTER, REACTOR = "bin/salt-master|^EventPublisher", "bin/salt-master .*Reactor-"
MINION, RELAY = "bin/salt-minion", "smtpd.py"
FULL = {"rs1": 50, "rs2": 50}


@dataclass(frozen=True)
class Trouble:
    """What goes wrong: a service of a host ends.

    subject
        What the journal is to call it.

    without
        Who is not to be killed meanwhile.
    """

    host: str
    service: str
    subject: Subject
    without: Collection[str] = ()


TROUBLES = {
    "the web server ends on rs1": Trouble("rs1", "lab-web", ("servers", "rs1:80 of web")),
    "the web server ends on rs2": Trouble("rs2", "lab-web", ("servers", "rs2:80 of web")),
    "keepalived ends on lb2": Trouble("lb2", "keepalived", ("director lb2", "keepalived")),
    "keepalived ends on lb1": Trouble("lb1", "keepalived", ("director lb1", "keepalived")),
    "the minion ends on lb2": Trouble("lb2", "salt-minion", ("director lb2", "answer"), ("lb2",)),
}


@dataclass(frozen=True)
class Round:
    """One trouble: what it was, who was killed in it, in order, and what was wrong at once."""

    name: str
    deaths: tuple[str, ...]
    seconds: float
    problems: tuple[str, ...]


class Incidents:
    """Has things go wrong in a cluster of :mod:`tests.integration.alerting`.

    seed
        What decides who is killed, and when.
    """

    def __init__(self, cluster: SaltCluster, seed: int) -> None:
        self.cluster, self.lab = cluster, cluster.lab
        self._random = random.Random(seed)
        self._began = time.time()
        self.truths: list[Truth] = []
        self.deaths: list[Death] = []
        self._kill_by: dict[str, Callable[[], None]] = {
            "master": self._kill_master,
            "engine": lambda: self._run("master", ["sh", "-c", ENGINE]),
            "reactor": lambda: self._run("master", ["pkill", "-KILL", "-f", REACTOR]),
            "relay": lambda: self._kill_service("master", RELAY, "lab-mail"),
            "lb1": lambda: self._kill_service("lb1", MINION, "salt-minion"),
            "lb2": lambda: self._kill_service("lb2", MINION, "salt-minion"),
        }

    def rounds(self, count: int) -> Iterator[Round]:
        """Have so many things go wrong; each comes once before any comes again."""
        left: list[str] = []
        for _ in range(count):
            left = left or self._random.sample(list(TROUBLES), len(TROUBLES))
            yield self._round(left.pop())

    def _round(self, name: str) -> Round:
        trouble, known = TROUBLES[name], len(self.deaths)
        host, wrong, began = self.lab[trouble.host], [], time.time()
        alerting.service(host, trouble.service, "stop")
        try:
            self._kill_somebody(trouble)
            self._wait(lambda: self._is_open(trouble.subject), f"{name}: nobody has noticed")
            if trouble.service == "lab-web":
                self._wait(lambda: self._is_out(trouble.host), f"{name}: it has its weight")
            self._kill_somebody(trouble)
        except LabError as error:
            wrong.append(str(error))
        ended = time.time()
        self.truths.append(Truth(trouble.subject, began, ended))
        alerting.service(host, trouble.service, "start")
        try:
            self._kill_somebody(trouble)
            self._wait(lambda: not self._is_open(trouble.subject), f"{name}: it is not over")
        except LabError as error:
            wrong.append(str(error))
        deaths = tuple(death.victim for death in self.deaths[known:])
        return Round(name, deaths, time.time() - began, tuple(wrong))

    def judged(self) -> tuple[list[str], int]:
        """What is wrong with journal, mails and weights, once all is quiet; and how many mails
        came again.
        """
        wrong = []
        try:
            alerting.wait_for_the_master(self.cluster)
            self._wait(lambda: self._book()["waiting"] == 0, "mail waits to be sent")
            self._wait(self._is_well, "incidents are not over")
            self._wait(
                lambda: all(self._weights(name) == FULL for name in ("lb1", "lb2")),
                "weights are not what they should be",
            )
            time.sleep(10)
            self._wait(lambda: self._book()["waiting"] == 0, "mail waits to be sent")
        except LabError as error:
            wrong.append(str(error))
        found = [one for one in self._book()["all"] if one["opened"] >= self._began]
        mails = [
            Received(str(mail["Message-ID"]), str(mail["X-LVS-Incident"]))
            for mail in self.cluster.mails()
        ]
        wrong += books.problems(found, mails, self.truths, self.deaths)
        return wrong, books.repeated(mails)

    # Killing

    def _kill_somebody(self, trouble: Trouble) -> None:
        time.sleep(self._random.uniform(0, KILL_WITHIN_SECONDS))
        victim = self._random.choice([one for one in self._kill_by if one not in trouble.without])
        self.deaths.append(Death(victim, time.time()))
        self._kill_by[victim]()

    def _kill_master(self) -> None:
        self._kill_service("master", MASTER, "salt-master")
        self.cluster.close()

    def _kill_service(self, host: str, pattern: str, service: str) -> None:
        self._run(host, ["pkill", "-KILL", "-f", pattern])
        # Nothing is started beside what has not ended yet.
        look = ["pgrep", "-f", pattern]
        until(lambda: self.lab[host].run(look).returncode, f"{service} to be gone", pause=0.1)
        time.sleep(self._random.uniform(0, AWAY_SECONDS))
        alerting.service(self.lab[host], service, "start")

    def _run(self, host: str, kill: Sequence[str]) -> None:
        """Kill who is there, or will soon be there again."""
        until(
            lambda: self.lab[host].run(kill).returncode == 0,
            f"somebody to kill: {' '.join(kill)}",
            seconds=WITHIN_SECONDS,
        )

    # Looking

    def _wait(self, fact: Callable[[], bool], otherwise: str) -> None:
        until(fact, f"the end of: {otherwise}", seconds=WITHIN_SECONDS, pause=0.5)

    def _book(self) -> dict[str, Any]:
        done = self.cluster.master.run([sys.executable, "-c", READ, JOURNAL], check=True)
        return dict(json.loads(done.stdout))

    def _is_open(self, subject: Subject) -> bool:
        return any(
            subject in books.subjects(one) for one in self._book()["all"] if one["closed"] is None
        )

    def _is_well(self) -> bool:
        return all(one["closed"] is not None for one in self._book()["all"])

    def _is_out(self, name: str) -> bool:
        return self._weights("lb1").get(name) == 0

    def _weights(self, director: str) -> dict[str, int]:
        """The kernel's weights on a director, by real server."""
        names = {self.lab[name].address: name for name in MINIONS}
        lines = self.lab[director].run(["ipvsadm", "-Sn"]).stdout.splitlines()
        found = {}
        for words in (line.split() for line in lines if line.startswith("-a")):
            address = words[words.index("-r") + 1].partition(":")[0]
            found[names[address]] = int(words[words.index("-w") + 1])
        return found
