"""
What the master can say of Linux Virtual Server clusters.
"""

import collections
import json
import logging
import os
import time

import salt.client
import salt.pillar
import salt.utils.event
import salt.utils.minions
import saltext.lvs
from salt.exceptions import CommandExecutionError, SaltInvocationError

saltext.lvs.refresh(__file__)

# The library as it is now on disk.
from saltext.lvs import (  # noqa: E402
    adopting,
    errors,
    files,
    holders,
    importing,
    journal,
    locking,
    model,
    posting,
    reading,
    rounds,
    telling,
)
from saltext.lvs import outbox as sending  # noqa: E402

log = logging.getLogger(__name__)

__virtualname__ = "lvs"

_salt_errors = errors.raised_as(SaltInvocationError, CommandExecutionError)

# What a reactor has a cluster's directors asked for: the book of rounds, who may be the cause, and
# how it is told that nobody is asked.
Errand = collections.namedtuple("Errand", "book roles nobody covered")
ANNOUNCE = Errand(
    "rounds",
    (model.Role.REAL_SERVER, model.Role.DIRECTOR),
    "Nobody is asked to announce VIPs",
    "an announcement that is still to come covers this one",
)
LOOK = Errand(
    "looks",
    (model.Role.DIRECTOR,),
    "Nobody is asked who holds VIPs",
    "another look covers this one",
)
# keepalived itself reads the file too, which takes a second for thousands of real servers.
IMPORT_SECONDS = 60
# What is shown of that which was done automatically because of one incident.
MOST_ACTIONS = 100
PAUSE_SECONDS = 0.01


def __virtual__():
    return __virtualname__


def validate(tgt="*", tgt_type="glob", saltenv=None, pillarenv=None):
    """
    Check the pillar of minions against the cluster's model, as the master compiles it; no minion is
    asked.

    Returns for each minion what :py:func:`lvs.validate <saltext.lvs.modules.lvs.validate>` does; a
    minion whose pillar has no ``lvs`` is left out unless it was named. The exit status is 1 if any
    pillar is wrong.

    tgt, tgt_type
        The minions, as on Salt's command line; of a minion that the master does not know, only its
        id matters.

    saltenv, pillarenv
        Salt's environments; by default the master's.

    CLI Example:

    .. code-block:: bash

        salt-run lvs.validate
        salt-run lvs.validate lb1
    """
    judged = {}
    for minion_id in _minions(tgt, tgt_type):
        pillar = _pillar(minion_id, saltenv, pillarenv)
        if pillar.get("_errors"):
            judged[minion_id] = {
                "valid": False,
                "problems": [str(error) for error in pillar["_errors"]],
                "warnings": [],
            }
        elif pillar.get("lvs") or minion_id == tgt:
            judged[minion_id] = model.judge(pillar, minion_id)
    if not all(answer["valid"] for answer in judged.values()):
        __context__["retcode"] = 1
    return judged


@_salt_errors
def announce(minion_id):
    """
    Have the directors of a minion's cluster tell all neighbours where its VIPs are.

    For the reactors, which call this where a real server may have been heard on ARP, and where a
    VIP is held by one director again after several held it: neighbours may keep another one's MAC
    address for a VIP. Which machines are asked, to call
    :py:func:`keepalived.send_garp <saltext.lvs.modules.keepalived.send_garp>`, the pillar of that
    minion says, as the master compiles it. They are asked once in five seconds for each cluster;
    who comes sooner is covered by one more announcement, which begins when these five seconds are
    over. Nobody waits for an answer.

    Returns ``asked``, the directors' minion ids; ``cluster``; ``jid``, the job's, and ``delay``,
    the seconds until they begin; where nobody is asked, ``asked`` is empty and ``why`` says the
    reason, and the exit status is 1 unless an announcement that is still to come covers this one.

    Raises CommandExecutionError where the master's cache cannot be written.

    minion_id
        The real server, or a director.

    CLI Example:

    .. code-block:: bash

        salt-run lvs.announce rs1
    """
    cluster, nobody = _cluster_of(minion_id, ANNOUNCE)
    return nobody or _asked(cluster)


@_salt_errors
def mastership(minion_id, settle=False):
    """
    Tell which director holds each VIP of a cluster, as its directors say themselves now.

    Returns ``cluster``; ``vips``, for each address its ``vrrp_instance``, ``verdict`` (``held``;
    ``split_brain``, several hold it; ``unheld``, nobody does; ``unknown``, nobody of those that
    answer), ``holders``, ``silent`` (directors that gave no answer) and ``sides`` (what each
    director sees); and ``problems``, sentences. The exit status is 1 if there are any.

    Raises CommandExecutionError for a minion that is no director, or whose pillar is wrong.

    minion_id
        One of the cluster's directors.

    settle
        Where something is wrong, look again until it is right or has been wrong for longer than a
        fail-over takes: two intervals of advertisements where several hold a VIP, four where nobody
        does.

    CLI Example:

    .. code-block:: bash

        salt-run lvs.mastership lb1
        salt-run lvs.mastership lb1 settle=True
    """
    cluster = model.from_pillar(_pillar(minion_id, None, None))
    cluster.expect_role(minion_id, model.Role.DIRECTOR)
    found = _settled(cluster) if settle else holders.standings(cluster, _reports(cluster))
    if any(standing.verdict is not holders.Verdict.HELD for standing in found):
        __context__["retcode"] = 1
    return _standing(cluster, found)


@_salt_errors
def check_mastership(minion_id, stamp=None):
    """
    Find out whether each VIP of a director's cluster is held by exactly one director, and tell
    where that has changed.

    For the reactor, which calls this when a director tells a change of its VRRP state, or another
    state than the last look saw. What that event says does not matter: the directors that the
    compiled pillar names are asked, and where something is wrong that was not told yet, asked again
    until that is longer than a fail-over takes. Of each cluster one look is at work at a time, and
    one more may wait, for five seconds after the last one began and until it is done; whoever comes
    meanwhile is covered by that one.

    A VIP that several hold, or nobody, is told once: as an event ``lvs/vips/<cluster>/split_brain``
    or ``.../unheld``, and in the master's log; and once more when it is held by one again, as
    ``.../held``. A director that gives no answer may hold a VIP as well: then an alarm that was
    told stays.

    Returns what :py:func:`lvs.mastership <saltext.lvs.runners.lvs.mastership>` does, with ``told``,
    the addresses that were told of; where nobody is asked, ``asked`` is empty and ``why`` says the
    reason.

    Raises CommandExecutionError where the master's cache cannot be written.

    minion_id
        The director.

    stamp
        When the master got the event, as Salt's ``_stamp`` says it: a look that began later covers
        it, however long it had to wait. By default now.

    CLI Example:

    .. code-block:: bash

        salt-run lvs.check_mastership lb1
    """
    told = rounds.told_at(stamp, time.time())
    cluster, nobody = _cluster_of(minion_id, LOOK, told)
    if nobody:
        return nobody
    _, booked, delay = _caused(cluster, cluster.directors, LOOK, told)
    if delay is None:
        return _nobody(LOOK, LOOK.covered, cluster.name)
    time.sleep(delay)
    if not _begins(cluster, booked.round_of(cluster.directors)):
        return _nobody(LOOK, LOOK.covered, cluster.name)
    try:
        return _looked(cluster)
    finally:
        _at_work(cluster, 0)


@_salt_errors
def import_config(tgt, names=None, path=None, into=None, tgt_type="glob"):
    """
    Make one pillar of the ``keepalived.conf`` that directors have, each with its own by
    :py:func:`keepalived.import_config <saltext.lvs.modules.keepalived.import_config>`.

    Returns ``pillar``; ``disagreements``, sentences: where directors differ in what a cluster can
    have only once, and the first one's word stands; by director ``notes`` (what an operator must
    look at) and ``secrets`` (the file with the passwords, which stay there); and ``failed``, what
    directors said instead of an answer. The exit status is 1 if one failed. See docs/adopting.md.

    tgt, tgt_type
        The directors, as on Salt's command line.

    names
        Minion ids of real servers by address, such as ``{10.10.10.41: rs1}``.

    path
        Their configuration file, if not ``/etc/keepalived/keepalived.conf``.

    into
        A file on the master for the pillar, which must not be there yet; by default it is only
        returned.

    Raises SaltInvocationError for an *into* that is there, or no absolute path.

    CLI Example:

    .. code-block:: bash

        salt-run lvs.import_config 'lb*' names='{10.10.10.41: rs1, 10.10.10.42: rs2}'
    """
    if into is not None and (not str(into).startswith("/") or os.path.lexists(into)):
        raise errors.InvalidConfig("into", into, "an absolute path at which there is nothing yet")
    given = {key: value for key, value in (("names", names), ("path", path)) if value is not None}
    with salt.client.get_local_client(mopts=__opts__) as client:
        answers = client.cmd(
            tgt,
            "keepalived.import_config",
            tgt_type=tgt_type,
            kwarg=given,
            timeout=IMPORT_SECONDS,
        )
    found = {name: answer for name, answer in sorted(answers.items()) if _is_import(answer)}
    failed = {name: answer for name, answer in answers.items() if name not in found}
    merged = importing.merge({name: answer["pillar"] for name, answer in found.items()})
    if into is not None and found:
        files.write(into, adopting.as_pillar_file(merged.pillar))
    if failed or not found:
        __context__["retcode"] = 1
    return {
        "pillar": merged.pillar,
        "disagreements": list(merged.disagreements),
        "notes": {name: answer["notes"] for name, answer in found.items()},
        "secrets": {name: answer["secrets"] for name, answer in found.items()},
        "failed": failed,
    }


@_salt_errors
def incidents(incident=None, cluster=None, limit=20):
    """
    Tell what is wrong with clusters, and what was, as the engine ``lvs_alerts`` wrote it down.

    Returns ``open`` and ``closed``, newest first; each has its ``id``, ``cluster``, ``severity``,
    ``opened`` and ``closed`` (as times in UTC), ``what`` (what is wrong, or was) and ``letters``,
    how many were sent. With *incident*, that one in full, with its course, and with what minions
    say that they have done automatically.

    incident
        Its id, or how that begins.

    cluster
        Those of one cluster.

    limit
        So many of each, at most.

    Raises SaltInvocationError for an incident that is not there, or not the only one, and for a
    limit that is no number; CommandExecutionError where the book cannot be read.

    CLI Example:

    .. code-block:: bash

        salt-run lvs.incidents
        salt-run lvs.incidents cluster=prod limit=5
    """
    book = _book()
    if incident is not None:
        found = book.incident(str(incident))
        if found is None:
            raise errors.InvalidConfig("incident", incident, "the id of one, or how it begins")
        return telling.in_full(found, book.actions(MOST_ACTIONS, incident=found.id))
    return {
        word: [telling.short(one) for one in book.history(_most(limit), cluster, is_open=is_open)]
        for word, is_open in (("open", True), ("closed", False))
    }


@_salt_errors
def outbox(limit=20):
    """
    Tell what waits to be sent of incidents, and what was not taken.

    Returns ``waiting``, for each relay or webhook how many wait, since when, how often the first of
    them was tried, why that failed and when it is tried next; and ``refused``, the last ones that
    somebody did not take, with the reason.

    limit
        So many that were refused, at most.

    Raises SaltInvocationError for a limit that is no number, and CommandExecutionError where the
    book cannot be read.

    CLI Example:

    .. code-block:: bash

        salt-run lvs.outbox
    """
    box = sending.Outbox(_book())
    return {
        "waiting": [telling.waiting(one) for one in box.summary()],
        "refused": [
            telling.refused(one)
            for one in box.history(_most(limit) * 10)
            if one.outcome != sending.SENT
        ][:limit],
    }


@_salt_errors
def alert(minion_id, to=None):
    """
    Send a mail now that says that mail gets through, as an alert of a cluster would go.

    Returns ``accepted``, the addresses whose mail a relay took, and ``relay``, which one;
    ``refused`` and ``later``, by address what was said where it was not. The exit status is 1 if
    anybody does not get it. Nothing is put into the outbox.

    minion_id
        One of the cluster's minions: the pillar says which relays, and who is told.

    to
        Another address, or a list of them.

    Raises SaltInvocationError for a pillar without addresses, or an address that is none.

    CLI Example:

    .. code-block:: bash

        salt-run lvs.alert lb1
        salt-run lvs.alert lb1 to=noc@example.com
    """
    office = posting.read(__opts__.get("lvs_alerts"))
    cluster = model.from_pillar(_pillar(minion_id, None, None))
    asked = to if isinstance(to, (list, tuple)) else [to] if to is not None else None
    outcome = posting.trial(cluster, office, _master(), asked, time.time())
    if outcome.refused or outcome.later:
        __context__["retcode"] = 1
    return {
        "accepted": list(outcome.accepted),
        "relay": outcome.relay,
        "refused": dict(outcome.refused),
        "later": dict(outcome.later),
    }


def _most(limit):
    if type(limit) is int and 1 <= limit <= 10_000:
        return limit
    raise errors.InvalidConfig("limit", limit, "a number from 1 to 10000")


def _book():
    office = posting.read(__opts__.get("lvs_alerts"))
    return journal.Journal(posting.place(office, __opts__["cachedir"]))


def _master():
    return __opts__["id"].removesuffix("_master")


def _is_import(answer):
    return isinstance(answer, dict) and isinstance(answer.get("pillar"), dict)


def _begins(cluster, booked):
    """Wait until nobody else looks at a cluster; False where another look covers this one."""
    waits, seconds = _turn(cluster, booked)
    while seconds:
        time.sleep(seconds)
        waits, seconds = _turn(cluster, waits)
    return waits is not None


def _turn(cluster, booked):
    def turn(book, now):
        after, *answer = book.at_turn(cluster.directors, booked, now)
        return after, answer

    return _booked(turn, LOOK)


def _at_work(cluster, seconds):
    """Note that somebody looks at a cluster, and does so for some seconds more."""
    _booked(lambda book, now: (book.at_work(cluster.directors, now + seconds), None), LOOK)


def _looked(cluster):
    """Look, and tell what is news; afterwards it is known what was seen."""
    reports = []

    def ask():
        _at_work(cluster, rounds.BUSY_SECONDS)
        reports[:] = _reports(cluster)
        return reports

    found = holders.settle(cluster, ask, time.monotonic, time.sleep, _troubles(cluster))
    told = _news(cluster, found)
    for standing in told:
        _tell(cluster, standing)
    _remember(cluster, reports)
    return {**_standing(cluster, found), "told": [standing.address for standing in told]}


def _troubles(cluster):
    """What was told of a cluster's VIPs, and is not over."""
    return holders.load(_text(_cached("standings.json"))).get(_key(cluster), {})


def _text(path):
    found = files.read(path)
    return found[0] if found else ""


def _remember(cluster, reports):
    """Write down what a look saw, which the reactor reads."""
    path = _cached("seen.json")
    with locking.exclusive(f"{path}.lock"):
        seen = holders.seen(_text(path), cluster, reports, time.time())
        files.write(path, json.dumps(seen))


def _settled(cluster):
    return holders.settle(cluster, lambda: _reports(cluster), time.monotonic, time.sleep)


def _standing(cluster, found):
    wrong = [standing for standing in found if standing.verdict is not holders.Verdict.HELD]
    return {
        "cluster": cluster.name,
        "vips": {standing.address: standing.as_data() for standing in found},
        "problems": [str(standing) for standing in wrong],
    }


def _reports(cluster):
    """What all directors of a cluster say of themselves."""
    directors = sorted(cluster.directors)
    answers = _answers(directors)
    return [holders.report(name, answers.get(name), cluster) for name in directors]


def _answers(directors):
    """What directors have answered in time. Salt's own waiting lasts as long as a minion says that
    it is still at work, which may be for ever.
    """
    found = {}
    end = time.monotonic() + holders.ANSWER_SECONDS
    with salt.client.get_local_client(mopts=__opts__) as client:
        for told in client.cmd_iter_no_block(
            directors, "keepalived.status", tgt_type="list", timeout=holders.ANSWER_SECONDS
        ):
            for name, answer in (told or {}).items():
                if isinstance(answer, dict) and "ret" in answer:
                    found[name] = answer["ret"]
            if len(found) == len(directors) or time.monotonic() > end:
                break
            time.sleep(0 if told else PAUSE_SECONDS)
    return found


def _news(cluster, found):
    """What is news of a cluster's VIPs, which is then known."""
    path = _cached("standings.json")
    with locking.exclusive(f"{path}.lock"):
        book = holders.load(_text(path))
        news = holders.news(book.get(_key(cluster), {}), found)
        files.write(path, holders.dump({**book, _key(cluster): news.troubles}))
    return news.told


def _key(cluster):
    # Two clusters may have one name, which has a default.
    return " ".join(sorted(cluster.directors))


def _tell(cluster, standing):
    """Tell of one VIP: the master's bus, and its log."""
    level = logging.INFO if standing.verdict is holders.Verdict.HELD else logging.ERROR
    log.log(level, "Cluster %s: %s", cluster.name, standing)
    tag = f"lvs/vips/{cluster.name}/{standing.verdict.value}"
    content = {"cluster": cluster.name, "address": standing.address, **standing.as_data()}
    with salt.utils.event.get_master_event(__opts__, __opts__["sock_dir"], listen=False) as bus:
        bus.fire_event({**content, "told": str(standing)}, tag)


def _cluster_of(minion_id, errand, told=None):
    """The cluster in which a minion plays the part of an errand, and None; or None and the answer
    that says why nobody is asked. What an event says may be forged: nonsense costs little.

    When the cause was told decides what covers it; by default that is now.
    """
    if not _is_accepted(minion_id):
        return None, _nobody(errand, "there is no minion of that id whose key is accepted")
    known = _booked(
        lambda book, now: (book, _known_of(book, minion_id, told or now, errand)), errand
    )
    if known is not None:
        return None, known
    pillar = _pillar(minion_id, None, None)
    try:
        cluster = model.from_pillar(pillar)
        if not set(cluster.roles(minion_id)) & set(errand.roles):
            cluster.expect_role(minion_id, errand.roles[0])
    except errors.LvsError as error:
        if pillar.get("_errors"):
            # It may play that part for all that: the next one that asks is to look again.
            look = f"`salt-run lvs.validate {minion_id}` says why"
            return None, _nobody(errand, f"its pillar cannot be compiled now; {look}")
        _booked(lambda book, now: (book.with_stranger(minion_id, now), None), errand)
        return None, _nobody(errand, str(error))
    return cluster, None


def _asked(cluster):
    """Ask a cluster's directors, unless they are asked already."""
    if not cluster.directors:
        return _nobody(ANNOUNCE, f"cluster {cluster.name} has no directors")
    directors = sorted(cluster.directors)
    servers = [name for name, one in cluster.real_servers.items() if one.minion]
    before, booked, delay = _caused(cluster, [*servers, *directors], ANNOUNCE)
    if delay is None:
        return _nobody(ANNOUNCE, ANNOUNCE.covered, cluster.name)
    jid = None
    try:
        jid = _publish(directors, delay)
    finally:
        if not jid:
            _booked(lambda book, now: (book.without(directors, booked, before), None), ANNOUNCE)
    if not jid:
        names = ", ".join(directors)
        why = f"no director of cluster {cluster.name} is a minion of this master: {names}"
        return _nobody(ANNOUNCE, why)
    return {
        "asked": directors,
        "cluster": cluster.name,
        "jid": jid,
        "delay": round(delay, 3),
    }


def _caused(cluster, ids, errand, told=None):
    """Book a round for a cluster: the book before and after, and in how many seconds it begins;
    None if one that is booked covers this cause.
    """

    def cause(book, now):
        booked, delay = book.with_cause(cluster.name, cluster.directors, ids, now, told)
        return booked, (book, booked, delay)

    return _booked(cause, errand)


def _is_accepted(minion_id):
    """Whether it is the id of a minion of this master, and one that a pillar may name.

    What an event says may be anything: only a name goes on to where files are looked for.
    """
    if not isinstance(minion_id, str) or not reading.NAME.fullmatch(minion_id):
        return False
    checked = salt.utils.minions.CkMinions(__opts__).check_minions([minion_id], "list")
    return minion_id in checked["minions"]


def _known_of(book, minion_id, told, errand):
    """The answer to a minion of which the book says enough; None if its pillar has to."""
    cluster = book.covering(minion_id, told)
    if cluster is not None:
        return _nobody(errand, errand.covered, cluster)
    if book.knows_as_stranger(minion_id):
        names = (role.value.replace("realserver", "real server") for role in errand.roles)
        role = " or ".join(names)
        why = f"it was no {role} when the last one asked, less than a minute ago"
        return _nobody(errand, why)
    return None


def _nobody(errand, why, cluster=None):
    """The answer where nobody is asked; with a cluster, because what is still to come will do."""
    if cluster is not None:
        return {"asked": [], "cluster": cluster, "why": why}
    log.info("%s: %s", errand.nobody, why)
    __context__["retcode"] = 1
    return {"asked": [], "why": why}


def _booked(change, errand):
    """Change a book of rounds, which all the master's processes share; what else it returns."""
    path = _cached(f"{errand.book}.json")
    with locking.exclusive(f"{path}.lock"):
        now = time.time()
        before = rounds.Book.load(_text(path), now)
        after, answer = change(before, now)
        if after != before:
            files.write(path, after.dump())
    return answer


def _cached(name):
    return os.path.join(__opts__["cachedir"], "saltext-lvs", name)


def _publish(directors, delay):
    """Have directors announce what they hold; the job's id. Nobody waits for what they answer.

    The id is 0 where none of them is a minion of this master.
    """
    with salt.client.get_local_client(mopts=__opts__) as client:
        return client.cmd_async(
            directors,
            "keepalived.send_garp",
            tgt_type="list",
            kwarg={"delay": round(delay, 3)} if delay else None,
        )


def _minions(tgt, tgt_type):
    if not isinstance(tgt, str):
        raise SaltInvocationError("tgt should be a minion id or a target expression")
    checked = salt.utils.minions.CkMinions(__opts__).check_minions(tgt, tgt_type)
    # Before a minion's key is accepted its pillar can be tried under its future id.
    return sorted(checked["minions"]) or ([tgt] if tgt_type == "glob" and "*" not in tgt else [])


def _pillar(minion_id, saltenv, pillarenv):
    _, grains, _ = salt.utils.minions.get_minion_data(minion_id, __opts__)
    grains = grains or {"id": minion_id}
    pillar = salt.pillar.Pillar(__opts__, grains, minion_id, saltenv, pillarenv=pillarenv)
    return pillar.compile_pillar()
