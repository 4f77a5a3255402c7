"""From a letter to what is sent: to whom, by which relays and webhooks, and in which words.

Who is told is in the pillar. How relays are reached, with which credentials, and where webhooks
lead, is in the master's configuration alone: nothing of that is written into the outbox.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from saltext.lvs import incidents, mails, relays, webhooks
from saltext.lvs.alertwords import AlertsBy, email, zone_of
from saltext.lvs.desk import title
from saltext.lvs.errors import InvalidConfig
from saltext.lvs.incidents import Letter
from saltext.lvs.journal import Action
from saltext.lvs.model import Cluster
from saltext.lvs.outbox import Delivery, Parcel, Way
from saltext.lvs.reading import Section, as_name
from saltext.lvs.relays import Relay
from saltext.lvs.webhooks import Webhook

DAY_SECONDS = 24 * 3600.0
MEGABYTE = 10**6
# What a master that a person looks at has in its configuration.
PLACE = "lvs_alerts"
# An incident of thousands of troubles is told with the first of them.
MOST_PARTS = 200


@dataclass(frozen=True, slots=True)
class Office:
    """What the master's configuration says.

    mailer
        Whether this master sends anything; incidents are kept in any case.

    relays
        What is said of each, by its host name in lower case. Left out of ``repr``, as it has
        passwords.

    journal
        The book's absolute path; empty for the usual place.

    keep_seconds, most_bytes
        How long, and up to which size, the book keeps what is over.
    """

    mailer: bool = True
    relays: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    webhooks: Mapping[str, Webhook] = field(default_factory=dict, repr=False)
    journal: str = ""
    keep_seconds: float = 90 * DAY_SECONDS
    most_bytes: int = 100 * MEGABYTE


def read(value: Any) -> Office:
    """What ``lvs_alerts`` says in the master's configuration.

    Raises :class:`~saltext.lvs.errors.InvalidConfig` for the first thing that is wrong.
    """
    section = Section(value, PLACE)
    found = Office(
        mailer=section.flag("mailer", True),
        relays=dict(_relays(section)),
        webhooks=dict(_webhooks(section)),
        journal=section.text("journal", "/.+", "an absolute path", ""),
        keep_seconds=section.number("keep_days", 1, 36500, 90) * DAY_SECONDS,
        most_bytes=section.integer("keep_megabytes", 1, 100_000, 100) * MEGABYTE,
    )
    section.finish()
    return found


def _relays(section: Section) -> Iterator[tuple[str, Mapping[str, Any]]]:
    named = Section(section.raw("relays"), section.at("relays"))
    for name in section.raw("relays", {}):
        settings = relays.settings_of(named.section(str(name)))
        # What is wrong with it is to be known now, and not when the first mail is to be sent.
        relays.relay_of(str(name), **settings)
        yield str(name).lower(), settings


def _webhooks(section: Section) -> Iterator[tuple[str, Webhook]]:
    named = Section(section.raw("webhooks"), section.at("webhooks"))
    for name in section.raw("webhooks", {}):
        path = named.at(name)
        yield as_name(name, path), webhooks.webhook_of(str(name), named.raw(str(name)))


def place(office: Office, cache: str) -> str:
    """The book's path.

    cache
        The master's ``cachedir``.
    """
    return office.journal or os.path.join(cache, "saltext-lvs", "incidents.sqlite")


def known(path: str) -> str:
    """The file beside a book in which the clusters that are looked at are kept."""
    return f"{path}.clusters"


# --------------------------------------------------------------------------------------------------
# What is sent


def parcels(letter: Letter, cluster: Cluster, office: Office, master: str) -> list[Parcel]:
    """What is to be sent of a letter.

    master
        What this master is called.
    """
    document = as_document(letter)
    found = [_event(letter, cluster, document)]
    if office.mailer and cluster.alerts.by is AlertsBy.SALT:
        found += _mails(letter, cluster, master)
        found += [
            Parcel(
                lane=f"webhook {name}",
                way="webhook",
                address={"webhook": name},
                body=document,
                incident=letter.incident.id,
                queued_at=letter.at,
            )
            for name in cluster.alerts.webhooks
        ]
    return found


def as_document(letter: Letter) -> bytes:
    """A letter as JSON, for programs: an incident as :func:`saltext.lvs.incidents.as_data` has it,
    with what the letter tells of it.
    """
    incident = letter.incident
    parts = sorted(incident.parts, key=lambda part: not part.lasts)
    short = incidents.as_data(_with(incident, tuple(parts[:MOST_PARTS])))
    told = {
        "kind": letter.kind.value,
        "number": letter.number,
        "at": letter.at,
        "subject": mails.subject_of(letter, incident.cluster),
        "in_service": {
            one.virtual_server: {"in_service": one.in_service, "of": one.of}
            for one in letter.standings
        },
        "more_parts": max(0, len(parts) - MOST_PARTS),
    }
    return json.dumps({**told, "incident": short}).encode("ascii")


def _with(incident: incidents.Incident, parts: tuple[incidents.Part, ...]) -> incidents.Incident:
    return replace(incident, parts=parts)


def _event(letter: Letter, cluster: Cluster, document: bytes) -> Parcel:
    return Parcel(
        lane="event",
        way="event",
        address={"tag": f"lvs/incident/{title(cluster)}/{letter.kind.value}"},
        body=document,
        incident=letter.incident.id,
        queued_at=letter.at,
    )


def remediation(action: Action) -> Parcel:
    """What is told of something that was put right automatically: an event alone."""
    told = {field.name: getattr(action, field.name) for field in fields(Action)}
    told.pop("id")
    return Parcel(
        lane="event",
        way="event",
        address={"tag": f"lvs/remediation/{action.cluster}/{action.minion}"},
        body=json.dumps(told).encode("ascii"),
        incident=action.incident,
        queued_at=action.at,
    )


def recipients(letter: Letter, cluster: Cluster) -> tuple[str, ...]:
    """Who is told of an incident: those of its virtual servers, or of the cluster."""
    found: dict[str, None] = {}
    for name in {part.trouble.virtual_server for part in letter.incident.parts}:
        config = cluster.virtual_servers.get(name)
        own = config.notification_email if config is not None else ()
        found.update(dict.fromkeys(own or cluster.alerts.notification_email))
    return tuple(sorted(found))


def _mails(letter: Letter, cluster: Cluster, master: str) -> Iterator[Parcel]:
    alerts, to = cluster.alerts, recipients(letter, cluster)
    if not to:
        return
    words = words_of(cluster, to, master)
    yield Parcel(
        lane=f"mail of {words.cluster} by {', '.join(alerts.smtp_server)}",
        way="mail",
        address={
            "sender": words.sender,
            "recipients": list(to),
            "relays": list(alerts.smtp_server),
            "seconds": alerts.smtp_connect_timeout,
        },
        body=mails.compose(letter, words),
        incident=letter.incident.id,
        queued_at=letter.at,
    )


def trial(
    cluster: Cluster, office: Office, master: str, to: Sequence[Any] | None, at: float
) -> relays.Outcome:
    """Send a mail that only says that mail gets through.

    to
        Other addresses than the cluster's.

    Raises :class:`~saltext.lvs.errors.InvalidConfig` where there is no address, or what is none.
    """
    alerts = cluster.alerts
    given = alerts.notification_email if to is None else [email(one, "to") for one in to]
    if not given:
        path, expected = "lvs:alerts:notification_email", "a list of at least one mail address"
        raise InvalidConfig(path, None, expected)
    words = words_of(cluster, given, master)
    usable = relays_of(alerts.smtp_server, office, alerts.smtp_connect_timeout)
    number = f"{at:.6f}".replace(".", "-")
    return relays.send(mails.trial(words, at, number), words.sender, given, usable)


def _own_address() -> str:
    """An address at this machine, whose name may be none that a mail can have."""
    own = f"lvs@{socket.getfqdn()}"
    return own if relays.is_address(own) else "lvs@localhost"


def words_of(cluster: Cluster, to: Sequence[str], master: str) -> mails.Words:
    """What a cluster's mails say of themselves."""
    alerts = cluster.alerts
    return mails.Words(
        sender=alerts.notification_email_from or _own_address(),
        recipients=tuple(to),
        cluster=title(cluster),
        time_zone=zone_of(alerts.time_zone),
        master=master,
    )


# --------------------------------------------------------------------------------------------------
# How it is sent


def ways(office: Office, fire: Callable[[str, Mapping[str, Any]], None]) -> dict[str, Way]:
    """How parcels leave, by their way."""

    def by_event(parcel: Parcel) -> Delivery:
        fire(parcel.address["tag"], json.loads(parcel.body))
        return Delivery(done=True)

    return {
        "mail": lambda parcel: by_mail(parcel, office),
        "webhook": lambda parcel: by_webhook(parcel, office),
        "event": by_event,
    }


def relays_of(names: Sequence[str], office: Office, seconds: float) -> list[Relay]:
    """The relays of a pillar, with what the master's configuration has of them."""
    found = []
    for name in names:
        host = relays.relay_of(name).host.lower()
        settings = office.relays.get(name.lower()) or office.relays.get(host) or {}
        found.append(relays.relay_of(name, **{"timeout_seconds": seconds, **settings}))
    return found


def by_mail(parcel: Parcel, office: Office) -> Delivery:
    """Send a mail to those who have not got it."""
    told = parcel.address
    try:
        usable = relays_of(told["relays"], office, told["seconds"])
    except InvalidConfig as error:
        return Delivery(done=False, later=str(error))
    outcome = relays.send(parcel.body, told["sender"], told["recipients"], usable)
    refused = "; ".join(f"{who}: {why}" for who, why in outcome.refused.items())
    if not outcome.later:
        return Delivery(done=True, refused=refused)
    left = {**told, "recipients": sorted(outcome.later)}
    words = "; ".join(dict.fromkeys(outcome.later.values()))
    return Delivery(done=False, later=words, refused=refused, left=left)


def by_webhook(parcel: Parcel, office: Office) -> Delivery:
    """Post a document."""
    webhook = office.webhooks.get(parcel.address["webhook"])
    if webhook is None:
        why = (
            f"lvs_alerts:webhooks has no {parcel.address['webhook']} in the master's configuration"
        )
        return Delivery(done=True, refused=why)
    reply = webhooks.post(webhook, parcel.body)
    if reply.taken:
        return Delivery(done=True)
    return Delivery(
        done=not reply.again,
        later=reply.words if reply.again else "",
        refused="" if reply.again else reply.words,
    )
