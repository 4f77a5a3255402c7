"""
What the master can say of Linux Virtual Server clusters.
"""

import logging
import os
import time

import salt.client
import salt.pillar
import salt.utils.minions
import saltext.lvs
from salt.exceptions import CommandExecutionError, SaltInvocationError

saltext.lvs.refresh(__file__)

# The library as it is now on disk.
from saltext.lvs import errors, files, locking, model, reading, rounds  # noqa: E402

log = logging.getLogger(__name__)

__virtualname__ = "lvs"

_salt_errors = errors.raised_as(SaltInvocationError, CommandExecutionError)


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
    Have the directors of a real server's cluster tell all neighbours where its VIPs are.

    For the reactor, which calls this where a real server may have been heard on ARP: neighbours
    then keep its MAC address for a VIP. Which machines are asked, to call
    :py:func:`keepalived.send_garp <saltext.lvs.modules.keepalived.send_garp>`, the pillar of that
    minion says, as the master compiles it. They are asked once in five seconds for each cluster;
    who comes sooner is covered by one more announcement, which begins when these five seconds are
    over. Nobody waits for an answer.

    Returns ``asked``, the directors' minion ids; ``cluster``; ``jid``, the job's, and ``delay``,
    the seconds until they begin; where nobody is asked, ``asked`` is empty and ``why`` says the
    reason, and the exit status is 1 unless an announcement that is still to come covers this one.

    Raises CommandExecutionError where the master's cache cannot be written.

    minion_id
        The real server.

    CLI Example:

    .. code-block:: bash

        salt-run lvs.announce rs1
    """
    if not _is_accepted(minion_id):
        return _nobody("there is no minion of that id whose key is accepted")
    covered = _booked(lambda book, now: (book, _known_of(book, minion_id, now)))
    if covered is not None:
        return covered
    pillar = _pillar(minion_id, None, None)
    try:
        cluster = model.from_pillar(pillar)
        cluster.expect_role(minion_id, model.Role.REAL_SERVER)
    except errors.LvsError as error:
        if pillar.get("_errors"):
            # It may be a real server for all that: the next one that asks is to look again.
            return _nobody(
                f"its pillar cannot be compiled now; `salt-run lvs.validate {minion_id}` says why"
            )
        _booked(lambda book, now: (book.with_stranger(minion_id, now), None))
        return _nobody(str(error))
    return _asked(cluster)


def _asked(cluster):
    """Ask a cluster's directors, unless they are asked already."""
    if not cluster.directors:
        return _nobody(f"cluster {cluster.name} has no directors")
    directors = sorted(cluster.directors)
    ids = [name for name, one in cluster.real_servers.items() if one.minion]

    def cause(book, now):
        booked, delay = book.with_cause(cluster.name, directors, ids, now)
        return booked, (book, booked, delay)

    before, booked, delay = _booked(cause)
    if delay is None:
        return _covered(cluster.name)
    jid = None
    try:
        jid = _publish(directors, delay)
    finally:
        if not jid:
            _booked(lambda book, now: (book.without(directors, booked, before), None))
    if not jid:
        names = ", ".join(directors)
        return _nobody(f"no director of cluster {cluster.name} is a minion of this master: {names}")
    return {
        "asked": directors,
        "cluster": cluster.name,
        "jid": jid,
        "delay": round(delay, 3),
    }


def _is_accepted(minion_id):
    """Whether it is the id of a minion of this master, and one that a pillar may name.

    What an event says may be anything: only a name goes on to where files are looked for.
    """
    if not isinstance(minion_id, str) or not reading.NAME.fullmatch(minion_id):
        return False
    checked = salt.utils.minions.CkMinions(__opts__).check_minions([minion_id], "list")
    return minion_id in checked["minions"]


def _known_of(book, minion_id, now):
    """The answer to a minion of which the book says enough; None if its pillar has to."""
    cluster = book.covering(minion_id, now)
    if cluster is not None:
        return _covered(cluster)
    if book.knows_as_stranger(minion_id):
        return _nobody("it was no real server when the last one asked, less than a minute ago")
    return None


def _covered(cluster):
    why = "an announcement that is still to come covers this one"
    return {"asked": [], "cluster": cluster, "why": why}


def _nobody(why):
    log.info("Nobody is asked to announce VIPs: %s", why)
    __context__["retcode"] = 1
    return {"asked": [], "why": why}


def _booked(change):
    """Change the book of rounds, which all the master's processes share; what else it returns."""
    path = os.path.join(__opts__["cachedir"], "saltext-lvs", "rounds.json")
    with locking.exclusive(f"{path}.lock"):
        now = time.time()
        found = files.read(path)
        before = rounds.Book.load(found[0] if found else "", now)
        after, answer = change(before, now)
        if after != before:
            with files.beside(path, after.dump()) as written:
                files.move(written, path)
    return answer


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
