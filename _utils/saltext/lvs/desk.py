"""Where hints come in, clusters are looked at, and incidents are written down.

An event of a minion is a hint: it may be forged, and it says no more than where to look. What is
written down, and told, is what the machines of that cluster answer when they are asked. Each
cluster has a thread of its own, so that one whose director is silent keeps nobody waiting.
"""

from __future__ import annotations

import json
import logging
import math
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from saltext.lvs import files, folding, sightings
from saltext.lvs.errors import LvsError
from saltext.lvs.incidents import Incident, Letter, Look, Standing, Subject, Trouble
from saltext.lvs.journal import Action, Journal, JournalError, Unreadable
from saltext.lvs.model import Cluster
from saltext.lvs.outbox import Parcel
from saltext.lvs.remedies import Claim

log = logging.getLogger(__name__)

# Between two looks that hints cause: the first follows at once, and where hints go on and on
# without anything new to be seen, each later one comes after twice the time.
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 4.0
# A look without a hint: where there is trouble, and where there is none.
TROUBLED_SECONDS, WELL_SECONDS = 30.0, 300.0
# What machines repeat every half a minute causes a look where none was made for so long.
REPEATED_SECONDS = 60.0
# After this, the pillar is compiled anew.
PILLAR_SECONDS = 60.0
# For a director's answer; and, once all have answered, for that of a real server, or of a director
# that was silent the last time.
ANSWER_SECONDS, OTHERS_SECONDS = 10.0, 1.0
# When an answer came, in seconds of time.monotonic(), is added to it by who asks; and how far apart
# directors' answers may be that together say who holds a VIP: within a fail-over, what one says is
# not true any more when the other one answers.
ANSWERED = "answered"
# After so many looks in a row nothing better is to be had.
APART_SECONDS, MOST_APART = 2.0, 5
# For minions to find a master again that was away.
RECONNECT_SECONDS = 60.0
# Real servers that are asked at one look; the others have their turn at the next one.
MOST_CHECKS = 50
# Who claims to be somebody is looked up so often.
STRANGER_SECONDS = 60.0
MOST_STRANGERS = 10_000
MOST_CLUSTERS = 100
# What minions say that they have done, and is not written down yet; and for how long that waits for
# the incident it belongs to: a look is a while off, and its answers are on their way.
MOST_CLAIMS, CLAIM_SECONDS = 500, LONGEST_PAUSE_SECONDS + ANSWER_SECONDS
COMPLAIN_SECONDS = 60.0
# Between two turns, whatever a clock does.
LEAST_SECONDS = 0.02

# What minions are asked. One function: while a job of several runs, state.apply fails, as Salt's
# saltutil.is_running takes a function's name for text.
REPORT = "lvs.report"


class World(Protocol):
    """What a desk needs of Salt."""

    def cluster_of(self, minion_id: str) -> Cluster | None:
        """The cluster in which an accepted minion is a director or a real server, by the pillar
        that the master compiles for it; None if it plays no such part.
        """

    def ask(
        self, minion_ids: Sequence[str], others: Collection[str]
    ) -> Mapping[str, Mapping[str, Any]]:
        """What minions answer to ``lvs.report``, asked in this order and each by a job of its own,
        so that none of them can answer for another one; and when, as :data:`ANSWERED`.

        others
            Those of them who are waited for only while the rest is, and :data:`OTHERS_SECONDS`.
        """

    def fire(self, tag: str, data: Mapping[str, Any]) -> None:
        """An event on the master's bus."""


# What is sent of a letter, for a cluster.
Post = Callable[[Letter, Cluster], Iterable[Parcel]]


@dataclass(frozen=True, slots=True)
class Hint:
    """That somebody told something.

    news
        Whether it says that something has changed; otherwise it repeats how it is.
    """

    minion_id: str
    news: bool


def title(cluster: Cluster) -> str:
    """What a cluster is called in incidents: its name, or, where the pillar gives none, its
    directors'.
    """
    directors = "+".join(sorted(cluster.directors))
    return directors if cluster.name == "lvs" and directors else cluster.name


class Desk:
    """Takes hints, and has the clusters looked at.

    journal
        Where incidents are, and what waits to be sent.

    post
        Makes of a letter what is to be sent.

    known
        A file in which the clusters' directors are kept, so that after a restart somebody looks
        before anybody gives a hint.

    sends
        Called when something waits to be sent.

    tell
        Makes of what was done automatically the event that tells it.
    """

    def __init__(
        self,
        journal: Journal,
        world: World,
        post: Post,
        known: str,
        sends: Callable[[], None],
        tell: Callable[[Action], Parcel],
    ) -> None:
        self.journal, self.world, self.post, self.sends = journal, world, post, sends
        self.tell = tell
        self._known_file = known
        self._clusters: dict[str, _Watched] = {}
        self._of: dict[str, str] = {}
        self._strangers: dict[str, float] = {}
        self._waiting: dict[str, bool] = {}
        self._wakes = threading.Condition()
        self._over = False
        self._thread = threading.Thread(target=self._introduce, name="lvs-desk", daemon=True)

    def start(self) -> None:
        """Begin, with the clusters that were known before."""
        for minion_id in _directors_in(self._known_file):
            self.hint(Hint(minion_id, news=True))
        self._thread.start()

    def stop(self) -> None:
        """End all threads; returns when they are done with what they are at."""
        with self._wakes:
            self._over = True
            self._wakes.notify_all()
        for watched in list(self._clusters.values()):
            watched.stop()
        self._thread.join(ANSWER_SECONDS * 2)

    def hint(self, hint: Hint) -> None:
        """Take a hint; this never waits, whoever gives it, and however often."""
        watched = self._clusters.get(self._of.get(hint.minion_id, ""))
        if watched is not None:
            watched.hint(hint)
            return
        with self._wakes:
            if len(self._waiting) < MOST_STRANGERS:
                self._waiting[hint.minion_id] = hint.news or self._waiting.get(
                    hint.minion_id, False
                )
                self._wakes.notify_all()

    def claim(self, claim: Claim) -> None:
        """Take what a minion says that it has put right; of one that is not known, nothing is
        noted.
        """
        watched = self._clusters.get(self._of.get(claim.action.minion, ""))
        if watched is not None:
            watched.claim(claim)

    # ----------------------------------------------------------------------------------------------

    def _introduce(self) -> None:
        """Look up who is not known yet."""
        while True:
            with self._wakes:
                while not self._waiting and not self._over:
                    self._wakes.wait()
                if self._over:
                    return
                minion_id = next(iter(self._waiting))
                hint = Hint(minion_id, self._waiting.pop(minion_id))
            try:
                self._meet(hint)
            except Exception:
                # One that cannot be looked up must not keep the others from being so.
                log.exception("Minion %r could not be looked up", minion_id)

    def _meet(self, hint: Hint) -> None:
        now = time.monotonic()
        seen = self._strangers.get(hint.minion_id)
        if seen is not None and now - seen < STRANGER_SECONDS:
            return
        cluster = self.world.cluster_of(hint.minion_id)
        if cluster is None:
            if len(self._strangers) >= MOST_STRANGERS:
                self._strangers.clear()
            self._strangers[hint.minion_id] = now
            return
        name = title(cluster)
        watched, is_new = self._clusters.get(name), name not in self._clusters
        if watched is not None and not self._is_same(watched, cluster):
            self._strangers[hint.minion_id] = now
            self._refuse(watched.cluster, cluster)
            return
        if watched is None:
            if len(self._clusters) >= MOST_CLUSTERS:
                log.error("Cluster %s: not looked at, %s are already", name, MOST_CLUSTERS)
                return
            watched = self._clusters[name] = _Watched(self, cluster)
        self.learn(cluster)
        watched.hint(hint)
        if is_new:
            watched.start()

    def _is_same(self, watched: _Watched, cluster: Cluster) -> bool:
        """Whether a cluster is the one that is looked at by its name. One that shares no director
        with it may be it all the same, if all have been replaced.
        """
        if watched.cluster.directors.keys() & cluster.directors.keys():
            return True
        before = map(self.world.cluster_of, watched.cluster.directors)
        if any(one is not None and title(one) == watched.name for one in before):
            return False
        watched.cluster = cluster
        return True

    def _refuse(self, one: Cluster, other: Cluster) -> None:
        """Say that two clusters cannot be told from one another."""
        name, directors = title(one), [", ".join(sorted(it.directors)) for it in (one, other)]
        why = (
            f"two clusters are called {name}, of {directors[0]} and of {directors[1]}: the second"
            " is not looked at; give it another lvs:name"
        )
        log.error("%s", why)
        self.world.fire(f"lvs/alerts/{name}/trouble", {"cluster": name, "reason": why})

    def learn(self, cluster: Cluster) -> None:
        """Note who belongs to a cluster."""
        name = title(cluster)
        members = {*cluster.directors, *cluster.real_servers}
        for minion_id in [one for one, its in self._of.items() if its == name]:
            if minion_id not in members:
                del self._of[minion_id]
        self._of.update(dict.fromkeys(members, name))
        wanted = {**_read(self._known_file), name: sorted(cluster.directors)}
        if wanted != _read(self._known_file):
            files.write(self._known_file, json.dumps(wanted))


class _Watched:
    """One cluster, and the thread that looks at it."""

    def __init__(self, desk: Desk, cluster: Cluster) -> None:
        self.desk, self.cluster, self.name = desk, cluster, title(cluster)
        self._compiled_at = time.monotonic()
        self._wakes = threading.Condition()
        self._news = self._repeated = self._over = False
        self._servers: dict[str, None] = {}
        self._doubted: dict[Subject, float] = {}
        self._silent: frozenset[str] = frozenset()
        self._unheard: frozenset[str] = frozenset()
        self._too_far_apart = 0
        self._falls: sightings.Falls = {}
        # Who has answered since the master began.
        self._met: set[str] = set()
        self._standings: tuple[Standing, ...] = ()
        self._looked_at = -REPEATED_SECONDS
        self._pause = FIRST_PAUSE_SECONDS
        self._due: float | None = None
        self._troubled = True
        self._complained = -COMPLAIN_SECONDS
        # Each with the time after which it waits no longer; and when they are looked through next.
        self._claims: deque[tuple[float, Claim]] = deque(maxlen=MOST_CLAIMS)
        self._claims_at = 0.0
        self._thread = threading.Thread(target=self._run, name=f"lvs {self.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with self._wakes:
            self._over = True
            self._wakes.notify_all()
        self._thread.join(ANSWER_SECONDS * 2)

    def hint(self, hint: Hint) -> None:
        with self._wakes:
            self._news |= hint.news
            self._repeated = True
            server = self.cluster.real_servers.get(hint.minion_id)
            if server is not None and server.minion and hint.news:
                self._servers[hint.minion_id] = None
            self._wakes.notify_all()

    def claim(self, claim: Claim) -> None:
        with self._wakes:
            self._claims_at = time.monotonic()
            self._claims.append((self._claims_at + CLAIM_SECONDS, claim))
            self._wakes.notify_all()

    def _run(self) -> None:
        while self._goes_on():
            try:
                if self._looks_at() <= time.monotonic():
                    self._look_now()
                elif self._is_due():
                    self._tick()
                self._note_claims(time.monotonic())
            except JournalError as error:
                self._complain(str(error), error)
            except Exception as error:
                # The thread must outlive whatever a look brings up: nobody else looks.
                log.exception("Cluster %s: a look at it failed", self.name)
                self._complain(f"a look at it failed: {type(error).__name__}", error)

        try:
            self._note_claims(math.inf)
        except Exception:
            log.exception("Cluster %s: what was done automatically is not noted", self.name)

    def _goes_on(self) -> bool:
        """Whether there is something to do, for which this waits, or all is over."""
        with self._wakes:
            while not self._over and (seconds := self._left()) > 0:
                self._wakes.wait(seconds)
            return not self._over

    def _left(self) -> float:
        """Seconds until something is to be done."""
        ends = [self._looks_at() - time.monotonic()]
        if self._due is not None:
            ends.append(self._due - time.time())
        if self._claims:
            ends.append(self._claims_at - time.monotonic())
        return min(ends)

    def _is_due(self) -> bool:
        return self._due is not None and self._due <= time.time()

    def _looks_at(self) -> float:
        every = TROUBLED_SECONDS if self._troubled else WELL_SECONDS
        if self._news or self._doubted:
            every = self._pause
        elif self._repeated:
            every = min(every, REPEATED_SECONDS)
        return self._looked_at + every

    def _tick(self) -> None:
        self._step(lambda book: folding.tick(book, time.time(), self._rules, self._standings))

    def _note_claims(self, now: float) -> None:
        """Write down what minions say that they have done, and have it told as events: as soon as
        it is known to which incident it belongs, or when that has been waited for.
        """
        with self._wakes:
            claims, self._claims = self._claims, deque(maxlen=MOST_CLAIMS)
            self._claims_at = time.monotonic() + LONGEST_PAUSE_SECONDS
        if not claims:
            return
        waiting = list(claims)
        try:
            waiting = self._write_claims(claims, now)
        finally:
            with self._wakes:
                self._claims.extendleft(reversed(waiting))
        if len(waiting) < len(claims):
            self.desk.sends()

    def _write_claims(
        self, claims: Iterable[tuple[float, Claim]], now: float
    ) -> list[tuple[float, Claim]]:
        """Write down some of them; returns those that wait."""
        book = self.desk.journal.open_incidents(self.name)
        noted, waiting = [], []
        for ends, claim in claims:
            incident = _of_what(claim, self.cluster, book)
            if not incident and ends > now:
                waiting.append((ends, claim))
                continue
            noted.append(replace(claim.action, cluster=self.name, incident=incident))
        if noted:
            with self.desk.journal.writing() as pen:
                for action in noted:
                    pen.act(action)
                    pen.queue(self.desk.tell(action))
        return waiting

    def _look_now(self) -> None:
        with self._wakes:
            hinted, self._news, self._repeated = self._news, False, False
            servers = list(self._servers)[:MOST_CHECKS]
            for name in servers:
                del self._servers[name]
        self._looked_at = time.monotonic()
        self._refresh()
        look = self._patient(self._look(servers))
        self._standings = look.standings or self._standings
        letters = self._step(lambda book: folding.step(book, look, self._rules, _new_id))
        log.debug(
            "Cluster %s: a look took %.2f s; in trouble: %s; no answer from: %s",
            self.name,
            time.monotonic() - self._looked_at,
            len(look.bad),
            ", ".join(sorted(self._silent)) or "nobody",
        )
        quiet = hinted and not letters
        self._pause = min(self._pause * 2, LONGEST_PAUSE_SECONDS) if quiet else FIRST_PAUSE_SECONDS

    @property
    def _rules(self) -> folding.Rules:
        alerts = self.cluster.alerts
        return folding.Rules(
            settle=alerts.settle,
            flap_within=alerts.flap_within,
            fold=alerts.fold,
            storm=alerts.storm,
            remind=alerts.remind,
            quiet=alerts.quiet_until,
        )

    def _refresh(self) -> None:
        """Have the pillar of now, if that can be compiled."""
        if time.monotonic() - self._compiled_at < PILLAR_SECONDS:
            return
        self._compiled_at = time.monotonic()
        for minion_id in sorted(self.cluster.directors):
            try:
                cluster = self.desk.world.cluster_of(minion_id)
            except LvsError as error:
                log.warning("Cluster %s: its pillar of before is used: %s", self.name, error)
                return
            if cluster is not None and title(cluster) == self.name:
                self.cluster = cluster
                self.desk.learn(cluster)
                return

    def _look(self, servers: Iterable[str]) -> Look:
        cluster, at = self.cluster, time.time()
        directors = sorted(cluster.directors)
        real_servers = [
            one for one in servers if one in cluster.real_servers and one not in directors
        ]
        # No real server can hold up what directors tell, by its silence.
        others = self._silent | set(real_servers)
        found = self.desk.world.ask([*directors, *real_servers], others)
        self._silent = frozenset(directors) - set(found)
        unheard = frozenset(real_servers) - set(found)
        with self._wakes:
            # Those have their turn again, once.
            self._servers.update(dict.fromkeys(sorted(unheard - self._unheard)))
        self._unheard = unheard
        self._met |= set(found)

        def told(function: str, by: Iterable[str]) -> dict[str, Any]:
            return {name: found[name].get(function) if name in found else None for name in by}

        answers = sightings.Answers(
            told("lvs.health", directors),
            told("keepalived.status", directors),
            told("dummy.check", [one for one in servers if one in cluster.real_servers]),
        )
        seen = sightings.look(cluster, answers, at)
        seen = replace(seen, meanwhile=sightings.between(cluster, self._falls, answers))
        self._falls = sightings.falls(cluster, answers)
        apart = _apart(found[name] for name in directors if name in found)
        self._too_far_apart = self._too_far_apart + 1 if apart > APART_SECONDS else 0
        if 0 < self._too_far_apart <= MOST_APART:
            seen = sightings.without_vips(seen)
        return replace(seen, cluster=self.name)

    def _patient(self, look: Look) -> Look:
        """A look without what may be a fail-over that is not over yet, or a minion that has not
        found the master again yet.
        """
        now = time.monotonic()
        unmet = {sightings.answering(one) for one in self.cluster.directors if one not in self._met}
        patience = {
            one.subject: RECONNECT_SECONDS
            if one.subject in unmet
            else sightings.patience(self.cluster, one.subject)
            for one in look.bad
        }
        since = {subject: self._doubted.get(subject, now) for subject in patience}
        self._doubted = {
            subject: began for subject, began in since.items() if now - began < patience[subject]
        }
        # What is known to be in trouble stays so, with what it is now.
        known = {part.trouble.subject for incident in self._book() for part in incident.lasting}
        doubted = self._doubted.keys() - known
        self._doubted = {subject: self._doubted[subject] for subject in doubted}
        bad = tuple(one for one in look.bad if one.subject not in doubted)
        return replace(look, bad=bad)

    def _book(self) -> tuple[Incident, ...]:
        since = time.time() - self.cluster.alerts.flap_within
        return self.desk.journal.open_incidents(self.name, since)

    def _step(self, change: Callable[[Sequence[Incident]], folding.Step]) -> tuple[Letter, ...]:
        step = change(self._book())
        if step.changed or step.letters:
            parcels = [
                one for letter in step.letters for one in self.desk.post(letter, self.cluster)
            ]
            with self.desk.journal.writing() as pen:
                for incident in step.changed:
                    pen.keep(incident)
                for parcel in parcels:
                    pen.queue(parcel)
            if parcels:
                self.desk.sends()
        now = time.time()
        due = folding.due_at(step.incidents, self._rules, now)
        self._due = None if due is None else max(due, now + LEAST_SECONDS)
        lasting = [part for one in step.incidents for part in one.lasting]
        self._troubled = bool(lasting)
        # Who said that its own VIP lacks is asked until it has it.
        for part in lasting:
            place = sightings.real_server_of(part.trouble.subject)
            if place:
                self._servers.setdefault(place)
        return step.letters

    def _complain(self, why: str, error: Exception) -> None:
        """Say on the bus and in the log that nobody can be told, now and again."""
        self._due = time.time() + FIRST_PAUSE_SECONDS * 10
        if isinstance(error, Unreadable) and (aside := self.desk.journal.renew()):
            log.error("%s; it was put aside as %s", why, aside)
        if time.monotonic() - self._complained < COMPLAIN_SECONDS:
            return
        self._complained = time.monotonic()
        log.error("Cluster %s: nobody is told of its troubles: %s", self.name, why)
        self.desk.world.fire(
            f"lvs/alerts/{self.name}/trouble", {"cluster": self.name, "reason": why}
        )


def _apart(answers: Iterable[Mapping[str, Any]]) -> float:
    """How many seconds lie between the first of some answers and the last."""
    times = [answer[ANSWERED] for answer in answers if ANSWERED in answer]
    return max(times, default=0.0) - min(times, default=0.0)


def _of_what(claim: Claim, cluster: Cluster, book: Sequence[Incident]) -> str:
    """The id of the youngest incident of that which a minion has put right; empty for none."""
    minion_id = claim.action.minion
    subjects = {
        sightings.server_subject(name, label)
        for name, config in cluster.virtual_servers.items()
        for real_server, label in sightings.labels(config).items()
        if real_server == minion_id or (name, real_server) in claim.servers
    }
    subjects.add(sightings.place(minion_id))
    found = _youngest(book, lambda trouble: trouble.subject in subjects)
    return found if found or claim.servers else _of_whom(minion_id, book)


def _of_whom(minion_id: str, book: Sequence[Incident]) -> str:
    """The id of the youngest incident of which a minion told; empty for none."""
    return _youngest(book, lambda trouble: minion_id in trouble.told_by)


def _youngest(book: Sequence[Incident], fits: Callable[[Trouble], bool]) -> str:
    for incident in sorted(book, key=lambda one: one.opened, reverse=True):
        if any(fits(part.trouble) for part in incident.parts):
            return incident.id
    return ""


def _new_id() -> str:
    """Sorts by time, and is nobody else's."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"


def _read(path: str) -> dict[str, list[str]]:
    found = files.read(path)
    try:
        written = json.loads(found[0]) if found else {}
        return {str(name): [str(one) for one in ids] for name, ids in written.items()}
    except (ValueError, AttributeError, TypeError):
        return {}


def _directors_in(path: str) -> list[str]:
    return sorted({minion_id for ids in _read(path).values() for minion_id in ids})
