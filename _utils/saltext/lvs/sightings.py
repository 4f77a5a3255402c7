"""What the machines of a cluster answer when they are asked, as a look at the cluster.

A minion may answer anything. Nothing of an answer is believed but what may stand there, only a
director's word counts for real servers and VIPs, and no word of one director can hide what another
one says of itself. What nobody could judge is neither well nor in trouble.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from saltext.lvs import holders
from saltext.lvs.health import State
from saltext.lvs.health import serves as is_served
from saltext.lvs.incidents import Look, Severity, Standing, Subject, Trouble
from saltext.lvs.model import Cluster, ManagedBy, VirtualServerConfig

SERVERS, VIPS = "servers", "vips"
# Directors ask at other moments than each other, and what they find is a while on its way.
REASK_TIMES = 2
# An answer's own words, in a mail.
MOST_WORDS = 200
# A service that does not run is what directors' checks find, and tell as a real server that is out
# (the words are those of saltext.lvs.verdicts).
_SERVICE_DOWN = re.compile(r"nothing listens on \S+ \S+: start the service on it")


@dataclass(frozen=True, slots=True)
class Answers:
    """What minions have answered, each by its id; who is not in it was not asked.

    health, status
        Of directors: ``lvs.health`` and ``keepalived.status``; None for no answer.

    checks
        Of real servers: ``dummy.check``; None for no answer.
    """

    health: Mapping[str, Any] = field(default_factory=dict)
    status: Mapping[str, Any] = field(default_factory=dict)
    checks: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Word:
    """What one director says of one real server.

    serves
        None where it does not know.
    """

    director: str
    serves: bool | None
    reason: str
    weight: int | None
    kept: bool
    excused: bool
    falls: int


def look(cluster: Cluster, answers: Answers, at: float) -> Look:
    """What answers tell of a cluster.

    at
        When they were asked for, in seconds since 1970.
    """
    reports = [holders.report(name, answers.status.get(name), cluster) for name in answers.status]
    words = _words(cluster, answers)
    lost = _cut_off(words)
    judged = _Judged(cluster, answers, reports, words, lost)
    bad = [
        *_servers(judged),
        *_vips(judged),
        *_directors(judged),
        *_real_servers(judged),
    ]
    good = frozenset(judged.good) - {one.subject for one in bad}
    return Look(
        cluster.name, at, tuple(bad), good, frozenset(known(cluster)), tuple(_standings(judged))
    )


def without_vips(seen: Look) -> Look:
    """A look that says nothing of VIPs: nobody could judge them."""
    return replace(
        seen,
        bad=tuple(one for one in seen.bad if one.subject.group != VIPS),
        good=frozenset(one for one in seen.good if one.group != VIPS),
    )


@dataclass(slots=True)
class _Judged:
    """All that is known at one look; *good* gathers what was found well."""

    cluster: Cluster
    answers: Answers
    reports: list[holders.Report]
    words: dict[tuple[str, str], list[_Word]]
    lost: frozenset[str]
    good: set[Subject] = field(default_factory=set)

    def deciding(self, virtual_server: str, real_server: str) -> list[_Word]:
        """The words that count: of those that know it, the one's that holds the VIP, or all."""
        known = [
            word
            for word in self.words.get((virtual_server, real_server), ())
            if word.serves is not None and word.director not in self.lost
        ]
        vips = {str(one) for one in self.cluster.virtual_servers[virtual_server].addresses}
        holding = {one.director for one in self.reports if one.held and one.held & vips}
        return [word for word in known if word.director in holding] or known


# --------------------------------------------------------------------------------------------------
# What there is


def server_subject(virtual_server: str, label: str) -> Subject:
    """A real server in a virtual server."""
    return Subject(SERVERS, f"{label} of {virtual_server}")


def labels(config: VirtualServerConfig) -> dict[str, str]:
    """What a person calls each real server of a virtual server: ``rs1:80``."""
    return {
        share.name: f"{share.name}:{share.port}" if share.port else share.name
        for share in config.real_servers
    }


def known(cluster: Cluster) -> Iterator[Subject]:
    """All that can be in trouble."""
    for name, config in cluster.virtual_servers.items():
        yield Subject(SERVERS, name)
        for label in labels(config).values():
            yield server_subject(name, label)
    for name, server in cluster.real_servers.items():
        if server.minion:
            yield place(name)
    for instance in cluster.vrrp_instances.values():
        for vip in instance.vips:
            yield Subject(VIPS, str(vip.ip))
    for name in cluster.directors:
        yield from (_director(name, what) for what in (ANSWER, KEEPALIVED, WATCH, REACH))
        yield from (_director(name, instance) for instance in cluster.vrrp_instances)


ANSWER, KEEPALIVED, WATCH, REACH = "answer", "keepalived", "watch", "reach"


def answering(director: str) -> Subject:
    """That a director answers."""
    return _director(director, ANSWER)


def _director(name: str, what: str) -> Subject:
    return Subject(f"director {name}", what)


def place(real_server: str) -> Subject:
    """A real server's own VIPs."""
    return Subject(SERVERS, f"{_PLACE}{real_server}")


_PLACE = "VIPs on "


def real_server_of(subject: Subject) -> str:
    """The real server whose own VIPs a subject is; empty for any other subject."""
    own = subject.group == SERVERS and subject.name.startswith(_PLACE)
    return subject.name.removeprefix(_PLACE) if own else ""


def patience(cluster: Cluster, subject: Subject) -> float:
    """For how many seconds a trouble may be one that is over by itself: a VIP's a fail-over, and a
    director that reaches nobody one that has not asked all again yet, after those came back.
    """
    if subject in {_director(name, REACH) for name in cluster.directors}:
        asked = [config.check for config in cluster.virtual_servers.values() if config.asked]
        return max(
            (REASK_TIMES * one.interval * one.rise + one.connect_timeout for one in asked),
            default=0.0,
        )
    for instance in cluster.vrrp_instances.values():
        if any(str(vip.ip) == subject.name for vip in instance.vips):
            verdicts = (holders.Verdict.SEVERAL, holders.Verdict.NOBODY)
            return max(holders.patience(instance, one) for one in verdicts)
    return 0.0


# --------------------------------------------------------------------------------------------------
# What directors say of real servers


def _words(cluster: Cluster, answers: Answers) -> dict[tuple[str, str], list[_Word]]:
    found: dict[tuple[str, str], list[_Word]] = {}
    for director in sorted(set(answers.health) & set(cluster.directors)):
        answer = answers.health[director]
        if not isinstance(answer, Mapping) or answer.get("watched") is not True:
            continue
        told = _mapping(answer.get("virtual_servers"))
        for name, config in cluster.virtual_servers.items():
            of_server = _mapping(told.get(name))
            kept = {item for item in _list(of_server.get("kept")) if isinstance(item, str)}
            servers = _mapping(of_server.get("real_servers"))
            for share in config.real_servers:
                item = servers.get(share.name)
                if isinstance(item, Mapping):
                    word = _word(director, item, share.name in kept)
                    found.setdefault((name, share.name), []).append(word)
    return found


def _word(director: str, item: Mapping[Any, Any], kept: bool) -> _Word:
    wish = _mapping(item.get("wish"))
    weight, count = item.get("weight"), item.get("falls")
    return _Word(
        director,
        _SERVES.get(item["state"]) if isinstance(item.get("state"), str) else None,
        _text(item.get("reason")),
        weight if type(weight) is int else None,
        kept,
        wish.get("maintenance") is True,
        count if type(count) is int else 0,
    )


_SERVES = {state.value: is_served(state) for state in State}


def _cut_off(words: Mapping[tuple[str, str], list[_Word]]) -> frozenset[str]:
    """Directors that reach nobody of whom others reach at least half: the trouble is theirs."""
    found = set()
    for director in {word.director for some in words.values() for word in some}:
        own, others = [], []
        for some in words.values():
            mine = [word.serves for word in some if word.director == director]
            if mine and mine[0] is not None:
                own.append(mine[0])
                others.append(any(word.serves for word in some if word.director != director))
        if len(own) > 1 and not any(own) and sum(others) * 2 >= len(own):
            found.add(director)
    return frozenset(found)


# By virtual server and real server, what each director counts of it.
Falls = Mapping[tuple[str, str], Mapping[str, int]]


def falls(cluster: Cluster, answers: Answers) -> Falls:
    """How often each director has found that a real server ceased to serve, of those that serve
    now.
    """
    return {
        place: {word.director: word.falls for word in some if word.serves}
        for place, some in _words(cluster, answers).items()
    }


def between(cluster: Cluster, before: Falls, answers: Answers) -> tuple[Trouble, ...]:
    """Real servers that serve and have served, but were out between two looks: so of one that comes
    and goes quickly nothing is missed.

    before
        What :func:`falls` was at the look before.
    """
    words = _words(cluster, answers)
    more = {
        place: {
            director: count - before[place][director]
            for director, count in counts.items()
            if director in before.get(place, ())
        }
        for place, counts in falls(cluster, answers).items()
    }
    lost = _cut_off(words) | _cut_off_meanwhile(more)
    reports = [holders.report(name, answers.status[name], cluster) for name in answers.status]
    judged = _Judged(cluster, answers, reports, words, lost)
    return tuple(
        _out_meanwhile(judged, place, max(counts))
        for place in words
        if (counts := [more[place].get(word.director, 0) for word in judged.deciding(*place)])
        and max(counts) > 0
        and not any(word.excused for word in words[place])
    )


def _cut_off_meanwhile(more: Falls) -> frozenset[str]:
    """Directors for which all fell while others went on reaching at least half of them."""
    found = set()
    for director in {name for counts in more.values() for name in counts}:
        own = [counts for counts in more.values() if director in counts]
        others = [
            any(count <= 0 for name, count in counts.items() if name != director) for counts in own
        ]
        all_fell = all(counts[director] > 0 for counts in own)
        if len(own) > 1 and all_fell and sum(others) * 2 >= len(own):
            found.add(director)
    return frozenset(found)


def _out_meanwhile(judged: _Judged, place: tuple[str, str], times: int) -> Trouble:
    virtual_server, real_server = place
    config = judged.cluster.virtual_servers[virtual_server]
    subject = server_subject(virtual_server, labels(config)[real_server])
    deciding = [replace(word, reason="") for word in judged.deciding(*place)]
    told = _out(judged, config, real_server, subject, deciding)
    often = "for a moment" if times == 1 else f"{times} times, for a moment each"
    return replace(told, reason=often, done="", urgent=False)


def _servers(judged: _Judged) -> Iterator[Trouble]:
    for name, config in judged.cluster.virtual_servers.items():
        labelled = labels(config)
        serving = known_of = 0
        for share in config.real_servers:
            deciding = judged.deciding(name, share.name)
            if not deciding:
                continue
            known_of += 1
            well = [word for word in deciding if word.serves]
            serving += bool(well)
            subject = server_subject(name, labelled[share.name])
            if well:
                judged.good.add(subject)
            elif not any(word.excused for word in deciding):
                yield _out(judged, config, share.name, subject, deciding)
        if serving:
            judged.good.add(Subject(SERVERS, name))
        elif known_of and known_of == len(config.real_servers):
            yield _all_out(judged.cluster, name, config)


def _out(
    judged: _Judged,
    config: VirtualServerConfig,
    real_server: str,
    subject: Subject,
    deciding: list[_Word],
) -> Trouble:
    label, name = labels(config)[real_server], config.name
    others = [word for word in judged.words[name, real_server] if word not in deciding]
    elsewhere = [word.director for word in others if word.serves]
    reason = next((word.reason for word in deciding if word.reason), "")
    if elsewhere:
        reason += f"; but {_joined(elsewhere)} reaches it"
    first = deciding[0].director
    return Trouble(
        subject,
        Severity.WARNING,
        f"{label} OUT of {name}",
        f"{label} back in {name}",
        reason,
        name,
        tuple(word.director for word in deciding),
        _done(config, deciding),
        _advice(reason),
        (
            f"salt {first} lvs.check_now {name} {real_server}",
            f"salt {first} lvs.health {name}",
            *_looks_at(judged.cluster, real_server),
        ),
    )


def _looks_at(cluster: Cluster, real_server: str) -> Iterator[str]:
    if cluster.real_servers[real_server].minion:
        yield f"salt {real_server} dummy.check"


def _done(config: VirtualServerConfig, deciding: list[_Word]) -> str:
    if any(word.kept for word in deciding):
        share = f"{config.min_in_service:.0%}"
        return f"nothing: it keeps its weight, because less than {share} of {config.name} serves"
    if config.managed_by is ManagedBy.KEEPALIVED:
        return "keepalived takes it out of its table, and back"
    out = [word.director for word in deciding if not word.weight]
    if not out:
        return ""
    return f"it gets no new clients any more from {_joined(out)}, and its weight back by itself"


def _advice(reason: str) -> str:
    if "VIP" in reason:
        return "Apply its states: it has most likely lost the VIP, or its service does not bind it."
    return "Look at the service and the host; nothing more is to be done here when it is back."


def _all_out(cluster: Cluster, name: str, config: VirtualServerConfig) -> Trouble:
    return Trouble(
        Subject(SERVERS, name),
        Severity.CRITICAL,
        f"{name} has NO real server that serves",
        f"{name} has real servers again",
        f"all {len(config.real_servers)} failed",
        name,
        advice="If all failed at once, look first at what they share: a network, a release.",
        commands=tuple(f"salt {one} lvs.health {name}" for one in sorted(cluster.directors)),
    )


def _standings(judged: _Judged) -> Iterator[Standing]:
    for name, config in judged.cluster.virtual_servers.items():
        words = [judged.deciding(name, share.name) for share in config.real_servers]
        if any(words):
            serving = [some for some in words if any(_takes_clients(word) for word in some)]
            yield Standing(name, len(serving), len(config.real_servers))


def _takes_clients(word: _Word) -> bool:
    return bool(word.serves) and word.weight != 0


# --------------------------------------------------------------------------------------------------
# VIPs and directors


def _vips(judged: _Judged) -> Iterator[Trouble]:
    if set(judged.answers.status) < set(judged.cluster.directors):
        return
    for standing in holders.standings(judged.cluster, judged.reports):
        subject = Subject(VIPS, standing.address)
        severals = standing.verdict is holders.Verdict.SEVERAL
        # Who is silent may hold it as well.
        if standing.silent and not severals:
            continue
        if standing.verdict is holders.Verdict.HELD:
            judged.good.add(subject)
            continue
        yield Trouble(
            subject,
            Severity.CRITICAL,
            f"{standing.address} held by {' AND '.join(standing.holders)}"
            if severals
            else f"{standing.address} held by NO director",
            f"{standing.address} held by one director again",
            "; ".join(standing.sides),
            told_by=tuple(one.director for one in judged.reports if one.held is not None),
            advice="They do not hear each other's advertisements: look at the network between them "
            "and at firewalls (VRRP is IP protocol 112), then at virtual_router_id and passwords."
            if severals
            else "Look at keepalived on each director.",
            commands=tuple(
                f"salt {name} keepalived.status" for name in sorted(judged.cluster.directors)
            ),
        )


def _directors(judged: _Judged) -> Iterator[Trouble]:
    reported = {one.director: one for one in judged.reports}
    for name in sorted(judged.cluster.directors):
        if name in judged.answers.health:
            yield from _watching(judged, name, judged.answers.health[name])
        if name in reported:
            yield from _keeping(judged, name, reported[name])


def _watching(judged: _Judged, name: str, answer: Any) -> Iterator[Trouble]:
    subject = answering(name)
    if answer is None:
        yield Trouble(
            subject,
            Severity.WARNING,
            f"director {name} does not answer",
            f"director {name} answers again",
            "it does not answer the master",
            advice="Look at the machine, then at its salt-minion.",
            commands=(f"salt {name} test.ping",),
            urgent=False,
        )
        return
    judged.good.add(subject)
    asks = any(config.asked for config in judged.cluster.virtual_servers.values())
    if asks:
        yield from _watches(judged, name, answer)


def _watches(judged: _Judged, name: str, answer: Any) -> Iterator[Trouble]:
    if _mapping(answer).get("watched") is True:
        judged.good.add(_director(name, WATCH))
    else:
        yield Trouble(
            _director(name, WATCH),
            Severity.WARNING,
            f"director {name} does not watch its real servers",
            f"director {name} watches its real servers again",
            _text(answer) or "its beacon real_server does not run",
            told_by=(name,),
            advice="Apply its states, and look into its minion's log.",
            commands=(f"salt {name} state.apply", f"salt {name} beacons.list"),
            urgent=False,
        )
    if name in judged.lost:
        yield Trouble(
            _director(name, REACH),
            Severity.CRITICAL if _holds(judged, name) else Severity.WARNING,
            f"director {name} reaches no real server, others do",
            f"director {name} reaches real servers again",
            "all its checks fail, those of other directors do not",
            told_by=(name,),
            advice="Look at its network towards the real servers.",
            commands=(f"salt {name} lvs.health",),
            urgent=_holds(judged, name),
        )
    else:
        judged.good.add(_director(name, REACH))


def _holds(judged: _Judged, name: str) -> bool:
    return any(one.held for one in judged.reports if one.director == name)


def _keeping(judged: _Judged, name: str, report: holders.Report) -> Iterator[Trouble]:
    answer = judged.answers.status[name]
    if not isinstance(answer, Mapping) or report.held is None:
        return
    running = answer.get("running") is True and answer.get("hanging") is not True
    if running:
        judged.good.add(_director(name, KEEPALIVED))
    else:
        hangs = answer.get("running") is True
        yield Trouble(
            _director(name, KEEPALIVED),
            Severity.CRITICAL if report.held else Severity.WARNING,
            f"keepalived on {name} " + ("does not answer" if hangs else "does not run"),
            f"keepalived on {name} is back",
            f"it holds {_joined(sorted(report.held))}" if report.held else "it holds no VIP",
            told_by=(name,),
            advice=f"Look into its log there, then restart it on {name}.",
            commands=(f"salt {name} keepalived.status", f"salt {name} service.restart keepalived"),
            urgent=bool(report.held),
        )
    for instance in judged.cluster.vrrp_instances:
        subject = _director(name, instance)
        if report.states.get(instance) == "FAULT":
            yield Trouble(
                subject,
                Severity.WARNING,
                f"{instance} on {name} is in FAULT",
                f"{instance} on {name} is no longer in FAULT",
                "an interface, a script or a process that it tracks has failed",
                told_by=(name,),
                advice="Look at what it tracks: most often a network card or a cable.",
                commands=(f"salt {name} keepalived.status",),
                urgent=False,
            )
        elif instance in report.states:
            judged.good.add(subject)


# --------------------------------------------------------------------------------------------------
# Real servers about themselves


def _real_servers(judged: _Judged) -> Iterator[Trouble]:
    for name, answer in sorted(judged.answers.checks.items()):
        server = judged.cluster.real_servers.get(name)
        if server is None or not server.minion or not isinstance(answer, Mapping):
            continue
        subject = place(name)
        said = [_text(item) for item in _list(answer.get("findings"))]
        findings = [one for one in said if not _SERVICE_DOWN.fullmatch(one)]
        if answer.get("ok") is True or not findings:
            judged.good.add(subject)
            continue
        lacking = [item for item in _list(answer.get("lacking")) if isinstance(item, str)]
        yield Trouble(
            subject,
            Severity.WARNING,
            f"{name} lacks its VIP" if lacking else f"{name} is not right for its VIP",
            f"{name} is right for its VIP again",
            findings[0],
            told_by=(name,),
            advice="Apply its states.",
            commands=(f"salt {name} dummy.check", f"salt {name} state.apply"),
            urgent=bool(lacking),
        )


# --------------------------------------------------------------------------------------------------


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value[:MOST_WORDS] if isinstance(value, str) else ""


def _joined(names: Iterable[str]) -> str:
    return ", ".join(names)
