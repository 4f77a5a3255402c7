"""A cluster whose master mails what is wrong, and how tests read what it mails."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from email.header import decode_header, make_header
from email.message import Message
from typing import Any

from tests.integration.highstate import Highstate
from tests.lab import Lab
from tests.lab.cluster import CHECKOUT, MINIONS, SaltCluster
from tests.lab.errors import LabError
from tests.lab.host import Host
from tests.lab.lab import HOSTS, VIP
from tests.lab.waiting import until

PILLAR = "/srv/pillar/production/lvs.sls"
FORWARD = "      forward: direct\n"
CHECKED = f"{FORWARD}      check: {{interval: 1, connect_timeout: 2, hold: {{flaps: 0}}}}\n"
PERSISTENCE = "      persistence: 5\n"
RELAY = "    smtp_server: localhost\n"
SETTLE_SECONDS = 4
FLAP_SECONDS = 20
QUICK = f"""\
{RELAY}    smtp_connect_timeout: 5
    settle: {SETTLE_SECONDS}
    fold: 3
    flap_within: {FLAP_SECONDS}
"""
WITHIN_SECONDS = 60.0


@contextmanager
def lab_of(*names: str) -> Iterator[Lab]:
    """A lab of some hosts; its master will have the reactors and the engine as they are shipped."""
    with Lab({name: HOSTS[name] for name in names}) as lab:
        for name, place in (("master", "saltext-lvs"), ("alerts", "saltext-lvs-alerts")):
            text = (CHECKOUT / "lvs" / "files" / f"{name}.conf").read_text(encoding="utf-8")
            lab["master"].write(f"/etc/salt/master.d/{place}.conf", text)
        yield lab


@contextmanager
def cluster_in(lab: Lab) -> Iterator[SaltCluster]:
    """A cluster after its first highstate, that is quick, and in no trouble."""
    with SaltCluster(lab, MINIONS) as cluster:
        text = cluster.master.read(PILLAR).replace("advert_int: 3", "advert_int: 1")
        text = text.replace(FORWARD, CHECKED).replace(RELAY, QUICK)
        # Who served a client before must not matter: a persistence outlives its connections, which
        # the kernel keeps for two minutes after their end.
        text = text.replace("scheduler: wlc", "scheduler: rr").replace(PERSISTENCE, "")
        cluster.master.write(PILLAR, text)
        failed = Highstate(cluster.highstate()).failed()
        assert failed == {}
        restart_the_master(cluster)
        until(lambda: f" {VIP}/" in lab["lb1"].run(["ip", "-o", "address"]).stdout, "the VIP")
        until(lambda: states(cluster) == {"rs1": "up", "rs2": "up"}, "both up", seconds=90)
        # What was in trouble while all of it began is over.
        wait_for_peace(cluster)
        time.sleep(SETTLE_SECONDS)
        yield cluster


def begin_anew(cluster: SaltCluster) -> None:
    """Wait until no incident is left, nor one that would come back, and forget the mails."""
    wait_for_peace(cluster)
    time.sleep(FLAP_SECONDS + 1)
    cluster.master.run(["sh", "-c", "rm -f /var/mail/lab/*.eml"])


def wait_for_peace(cluster: SaltCluster, seconds: float = WITHIN_SECONDS) -> None:
    """Wait until no incident is open."""
    until(lambda: opened(cluster) == [], "no incident", seconds=seconds, pause=0.5)


def service(host: Host, name: str, action: str) -> None:
    """Start, stop or restart a service of a host."""
    host.run(["service", name, action], check=True)


def restart_the_master(cluster: SaltCluster) -> None:
    """Restart Salt's master, and wait for all minions."""
    service(cluster.master, "salt-master", "restart")
    wait_for_the_master(cluster)


def wait_for_the_master(cluster: SaltCluster) -> None:
    """Wait for a master that was started, and for all minions."""
    cluster.close()
    until(cluster.master_listens, "the master to listen", seconds=120)
    cluster.wait()


def states(cluster: SaltCluster, director: str = "lb1") -> dict[str, str]:
    """How a director's checks find each real server."""
    told = cluster.salt(director, "lvs.health", "web")[director]
    real_servers = told["virtual_servers"]["web"]["real_servers"]
    return {name: one["state"] for name, one in real_servers.items()}


def opened(cluster: SaltCluster) -> list[dict[str, Any]]:
    """The incidents that are not over."""
    found = cluster.salt_run("lvs.incidents")["open"]
    assert isinstance(found, list)
    return found


def subject(mail: Message) -> str:
    """A mail's subject, as a person reads it."""
    return str(make_header(decode_header(mail["Subject"].replace("\n", ""))))


def subjects(cluster: SaltCluster) -> list[str]:
    """The subjects of all mails, oldest first."""
    return [subject(mail) for mail in cluster.mails()]


def threads(mails: Sequence[Message]) -> list[list[Message]]:
    """Mails by thread, as a mail reader joins them: by what the first of each is."""
    found: dict[str, list[Message]] = {}
    for mail in mails:
        root = (mail["References"] or mail["Message-ID"]).split()[0]
        found.setdefault(root, []).append(mail)
    return list(found.values())


def mailed(cluster: SaltCluster, fits: Callable[[str], bool], what: str) -> Message:
    """The mail whose subject fits; waited for."""

    def found() -> Message | None:
        return next((mail for mail in cluster.mails() if fits(subject(mail))), None)

    try:
        return until(found, what, seconds=WITHIN_SECONDS, pause=0.1)
    except LabError as error:
        told = cluster.salt_run("lvs.incidents"), cluster.salt_run("lvs.outbox")
        raise LabError(f"{error}; there are {subjects(cluster)}; {told}") from error
