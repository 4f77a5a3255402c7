"""
Tell people of what is wrong with clusters: by mail, by webhooks, and by events.

The master runs it where its configuration says so, as that of the state ``lvs.alerts`` does:

.. code-block:: yaml

    engines:
      - lvs_alerts: {}

It hears what minions of clusters tell, asks their directors and real servers how they are, and
writes down in the master's book what is wrong. See docs/alerts.md for who is told, when, and how.
"""

import logging
import re
import time

import salt.client
import salt.pillar
import salt.utils.event
import salt.utils.minions
import saltext.lvs

saltext.lvs.refresh(__file__)

# The library as it is now on disk.
from saltext.lvs import (  # noqa: E402
    desk,
    errors,
    journal,
    model,
    posting,
    reading,
    remedies,
    senders,
)

log = logging.getLogger(__name__)

__virtualname__ = "lvs_alerts"

BEACON = re.compile(r"salt/beacon/([^/]+)/(real_server|keepalived_vrrp|dummy)/(change|state)")
PAUSE_SECONDS = 1.0
PRUNE_SECONDS = 3600.0


def __virtual__():
    return __virtualname__


def start():
    """
    Listen to the master's events until the master ends.

    What it reads is ``lvs_alerts`` in the master's configuration: see docs/alerts.md.
    """
    office = posting.read(__opts__.get("lvs_alerts"))
    book = journal.Journal(posting.place(office, __opts__["cachedir"]))
    world = World(__opts__)
    sender = senders.Sender(book, posting.ways(office, world.fire), time.time)
    master = __opts__["id"].removesuffix("_master")
    at_desk = desk.Desk(
        book,
        world,
        lambda letter, cluster: posting.parcels(letter, cluster, office, master),
        posting.known(book.path),
        sender.wake,
        posting.remediation,
    )
    claims = remedies.Claims()
    sender.start()
    at_desk.start()
    pruned = time.monotonic() - PRUNE_SECONDS
    try:
        with salt.utils.event.get_master_event(__opts__, __opts__["sock_dir"]) as bus:
            while True:
                event = bus.get_event(wait=PAUSE_SECONDS, full=True, auto_reconnect=True)
                if event:
                    _heard(at_desk, claims, event.get("tag"), event.get("data"))
                if time.monotonic() - pruned > PRUNE_SECONDS:
                    pruned = time.monotonic()
                    _prune(book, office)
    finally:
        at_desk.stop()
        sender.stop()


def _heard(at_desk, claims, tag, data):
    if not isinstance(tag, str) or not isinstance(data, dict):
        return
    claim = None
    found = BEACON.fullmatch(tag)
    if found is not None and data.get("id") == found[1]:
        is_news = found[3] == "change"
        at_desk.hint(desk.Hint(found[1], is_news))
        claim = claims.of_beacon(found[1], found[2], data, time.time()) if is_news else None
    elif tag.startswith("salt/job/"):
        claim = claims.of_job(tag, data, time.time())
    if claim is not None:
        at_desk.claim(claim)


def _prune(book, office):
    try:
        book.prune(time.time(), office.keep_seconds, office.most_bytes)
    except journal.JournalError as error:
        log.error("The book of incidents cannot be made smaller: %s", error)


class World:
    """
    Salt, for :py:mod:`saltext.lvs.desk`.
    """

    def __init__(self, opts):
        self.opts = opts

    def cluster_of(self, minion_id):
        """
        The cluster of an accepted minion, by its pillar as the master compiles it.
        """
        if not reading.NAME.fullmatch(minion_id) or not self._is_accepted(minion_id):
            return None
        _, grains, _ = salt.utils.minions.get_minion_data(minion_id, self.opts)
        grains = grains or {"id": minion_id}
        pillar = salt.pillar.Pillar(self.opts, grains, minion_id, None).compile_pillar()
        if "lvs" not in pillar:
            if pillar.get("_errors"):
                raise errors.CommandFailed(f"the pillar of {minion_id} cannot be compiled now")
            return None
        cluster = model.from_pillar(pillar)
        parts = (model.Role.DIRECTOR, model.Role.REAL_SERVER)
        return cluster if set(cluster.roles(minion_id)) & set(parts) else None

    def _is_accepted(self, minion_id):
        checked = salt.utils.minions.CkMinions(self.opts).check_minions([minion_id], "list")
        return minion_id in checked["minions"]

    def ask(self, minion_ids, others):
        """
        What minions answer, each asked by a job of its own: who gets no job's id cannot answer it.
        """
        answers = {}
        with salt.utils.event.get_event("master", opts=self.opts, listen=True) as bus:
            with salt.client.get_local_client(mopts=self.opts) as client:
                pending = dict(self._asked(client, minion_ids))
            end = time.monotonic() + desk.ANSWER_SECONDS
            while pending and (left := end - time.monotonic()) > 0:
                if set(pending.values()) <= set(others):
                    end, others = min(end, time.monotonic() + desk.OTHERS_SECONDS), ()
                event = bus.get_event(
                    wait=min(left, PAUSE_SECONDS),
                    tag="salt/job/",
                    match_type="startswith",
                    full=True,
                    auto_reconnect=True,
                )
                _take(event, pending, answers)
        return answers

    def _asked(self, client, minion_ids):
        for minion_id in minion_ids:
            published = client.pub(
                [minion_id], desk.REPORT, tgt_type="list", timeout=int(desk.ANSWER_SECONDS)
            )
            if published and published.get("jid"):
                yield published["jid"], minion_id

    def fire(self, tag, data):
        """
        An event on the master's bus.
        """
        with salt.utils.event.get_master_event(
            self.opts, self.opts["sock_dir"], listen=False
        ) as bus:
            bus.fire_event(data, tag)


def _take(event, pending, answers):
    """Take an answer that is waited for."""
    data = event.get("data") if event else None
    if not isinstance(data, dict) or not isinstance(data.get("jid"), str):
        return
    minion_id = pending.get(data["jid"])
    if minion_id is None or event["tag"] != f"salt/job/{data['jid']}/ret/{minion_id}":
        return
    del pending[data["jid"]]
    answer = data.get("return")
    told = answer if isinstance(answer, dict) else {}
    # By our clock, whatever the minion says.
    answers[minion_id] = {**told, desk.ANSWERED: time.monotonic()}
