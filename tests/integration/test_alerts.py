"""Who is told of what, by mail: real master, engine, minions and mail server.

The tests run in the order in which they stand here.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from email.header import decode_header, make_header
from email.message import Message
from typing import Any

import pytest

from tests.integration.highstate import Highstate
from tests.lab import Lab
from tests.lab.bus import Bus, fire
from tests.lab.cluster import CHECKOUT, SaltCluster
from tests.lab.errors import LabError
from tests.lab.host import Host
from tests.lab.lab import HOSTS, VIP
from tests.lab.waiting import until

# The first test waits for the cluster, which a busy machine makes slowly.
pytestmark = pytest.mark.timeout(600)

DIRECTORS = ("lb1", "lb2")
MINIONS = (*DIRECTORS, "rs1", "rs2")
PILLAR = "/srv/pillar/production/lvs.sls"
FORWARD = "      forward: direct\n"
CHECKED = f"{FORWARD}      check: {{interval: 1, connect_timeout: 2, hold: {{flaps: 0}}}}\n"
SETTLE_SECONDS = 4
RELAY = "    smtp_server: localhost\n"
QUICK = f"""\
{RELAY}    smtp_connect_timeout: 5
    settle: {SETTLE_SECONDS}
    fold: 3
    flap_within: 20
"""
OUT = "[lvs prod] rs1:80 OUT of web "
WITHIN_SECONDS = 60.0


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab({name: HOSTS[name] for name in ("master", *MINIONS)}) as lab:
        for name, place in (("master", "saltext-lvs"), ("alerts", "saltext-lvs-alerts")):
            text = (CHECKOUT / "lvs" / "files" / f"{name}.conf").read_text(encoding="utf-8")
            lab["master"].write(f"/etc/salt/master.d/{place}.conf", text)
        yield lab


@pytest.fixture(scope="module")
def cluster(lab: Lab) -> Iterator[SaltCluster]:
    """A cluster after its first highstate, of which nobody was told anything."""
    with SaltCluster(lab, MINIONS) as cluster:
        text = cluster.master.read(PILLAR).replace("advert_int: 3", "advert_int: 1")
        text = text.replace(FORWARD, CHECKED).replace(RELAY, QUICK)
        cluster.master.write(PILLAR, text)
        failed = Highstate(cluster.highstate()).failed()
        assert failed == {}
        restart_the_master(cluster)
        until(lambda: f" {VIP}/" in lab["lb1"].run(["ip", "-o", "address"]).stdout, "the VIP")
        until(lambda: states(cluster) == {"rs1": "up", "rs2": "up"}, "both up", seconds=90)
        # What was in trouble while all of it began is over.
        until(lambda: opened(cluster) == [], "no incident", seconds=WITHIN_SECONDS)
        time.sleep(SETTLE_SECONDS)
        yield cluster


@pytest.fixture
def whole(cluster: SaltCluster) -> SaltCluster:
    """The cluster, with all at work, and no incident that would come back."""
    service(cluster.master, "lab-mail", "start")
    for name in ("rs1", "rs2"):
        service(cluster.lab[name], "lab-web", "start")
    until(lambda: opened(cluster) == [], "no incident", seconds=WITHIN_SECONDS)
    time.sleep(21)
    cluster.master.run(["sh", "-c", "rm -f /var/mail/lab/*.eml"])
    return cluster


def service(host: Host, name: str, action: str) -> None:
    host.run(["service", name, action], check=True)


def restart_the_master(cluster: SaltCluster) -> None:
    service(cluster.master, "salt-master", "restart")
    cluster.close()
    until(cluster.master_listens, "the master to listen", seconds=120)
    cluster.wait()


def states(cluster: SaltCluster) -> dict[str, str]:
    told = cluster.salt("lb1", "lvs.health", "web")["lb1"]
    real_servers = told["virtual_servers"]["web"]["real_servers"]
    return {name: one["state"] for name, one in real_servers.items()}


def opened(cluster: SaltCluster) -> list[dict[str, Any]]:
    found = cluster.salt_run("lvs.incidents")["open"]
    assert isinstance(found, list)
    return found


def subject(mail: Message) -> str:
    return str(make_header(decode_header(mail["Subject"].replace("\n", ""))))


def subjects(cluster: SaltCluster) -> list[str]:
    return [subject(mail) for mail in cluster.mails()]


def mailed(cluster: SaltCluster, fits: Callable[[str], bool], what: str) -> Message:
    """The mail whose subject fits; waited for."""

    def found() -> Message | None:
        return next((mail for mail in cluster.mails() if fits(subject(mail))), None)

    try:
        return until(found, what, seconds=WITHIN_SECONDS, pause=0.1)
    except LabError as error:
        told = cluster.salt_run("lvs.incidents"), cluster.salt_run("lvs.outbox")
        raise LabError(f"{error}; there are {subjects(cluster)}; {told}") from error


def test_a_dead_real_server_is_one_mail_and_its_return_another_in_its_thread(
    whole: SaltCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    with Bus(whole.master) as bus:
        service(whole.lab["rs1"], "lab-web", "stop")
        first = mailed(whole, lambda it: it.startswith(OUT), "a mail that it is out")
        taken = time.time()
        seen = [event for event in bus.events if event.tag.endswith("/real_server/change")]
        with capsys.disabled():
            print(f" [{taken - seen[0].data['at']:.2f} s after it was seen]", end="", flush=True)
    assert re.fullmatch(r"\[lvs prod\] rs1:80 OUT of web \(.*\); 1 of 2 in service", subject(first))
    (incident,) = opened(whole)
    assert first["X-LVS-Incident"] == incident["id"]
    assert first["X-Envelope-To"] == "noc@example.com"
    service(whole.lab["rs1"], "lab-web", "start")
    second = mailed(whole, lambda it: "rs1:80 back in web after" in it, "a mail that it is back")
    assert subject(second).endswith("; 2 of 2 in service")
    assert second["References"] == first["Message-ID"]
    assert opened(whole) == []
    time.sleep(5)
    assert len(whole.mails()) == 2
    (told,) = whole.salt_run("lvs.incidents", incident["id"][:19])["course"][:1]
    assert "rs1:80 OUT of web" in told


def test_five_flaps_are_two_mails(whole: SaltCluster) -> None:
    for _ in range(5):
        service(whole.lab["rs1"], "lab-web", "stop")
        until(lambda: states(whole)["rs1"] == "down", "it to be down", seconds=WITHIN_SECONDS)
        service(whole.lab["rs1"], "lab-web", "start")
        until(lambda: states(whole)["rs1"] == "up", "it to be up", seconds=WITHIN_SECONDS)
    mailed(whole, lambda it: "back in web" in it, "a mail that it is over")
    assert len(whole.mails()) <= 2


def test_what_minions_forge_is_told_to_nobody(whole: SaltCluster) -> None:
    change = {"virtual_server": "web", "real_server": "rs1", "was": "up", "now": "down"}
    nasty = {**change, "reason": "x\r\nBcc: evil@example.com", "real_server": "\0" * 1000}
    forged: list[tuple[str, Any]] = []
    for minion_id in ("lb1", "lb2", "rs1", "*", "nobody", "a\nb"):
        for beacon in ("real_server", "keepalived_vrrp", "dummy"):
            tag = f"salt/beacon/{minion_id}/{beacon}/change"
            for changes in ([change], [nasty], "x", None):
                content = {"id": minion_id, "changes": changes, "acted": False}
                forged.append((tag, content))
    fire(whole.lab["rs2"], forged)
    time.sleep(15)
    assert (opened(whole), whole.mails()) == ([], [])


def test_while_the_relay_is_away_mail_waits_and_is_sent_once(whole: SaltCluster) -> None:
    service(whole.master, "lab-mail", "stop")
    service(whole.lab["rs1"], "lab-web", "stop")
    waiting = until(
        lambda: [one for one in whole.salt_run("lvs.outbox")["waiting"] if one["tries"]],
        "a mail to wait",
        seconds=WITHIN_SECONDS,
    )
    assert [one["why"] for one in waiting] == ["localhost: connection: Connection refused"]
    # It dies while it waits.
    whole.master.run(["pkill", "-KILL", "-f", "salt-master"])
    restart_the_master(whole)
    service(whole.master, "lab-mail", "start")
    mailed(whole, lambda it: it.startswith(OUT), "the mail that waited")
    time.sleep(8)
    assert [it.startswith(OUT) for it in subjects(whole)] == [True]
    assert whole.salt_run("lvs.outbox")["waiting"] == []


def test_all_that_is_told_is_an_event_too(whole: SaltCluster) -> None:
    with Bus(whole.master) as bus:
        service(whole.lab["rs2"], "lab-web", "stop")
        event = until(
            lambda: next((it for it in bus.events if it.tag == "lvs/incident/prod/opened"), None),
            "an event",
            seconds=WITHIN_SECONDS,
        )
    assert event.data["in_service"] == {"web": {"in_service": 1, "of": 2}}
    assert event.data["incident"]["parts"][0]["trouble"]["title"] == "rs2:80 OUT of web"


def test_a_mail_for_trying_out_arrives(whole: SaltCluster) -> None:
    assert whole.salt_run("lvs.alert", "lb1") == {
        "accepted": ["noc@example.com"],
        "relay": "localhost",
        "refused": {},
        "later": {},
    }
    mailed(whole, lambda it: it == "[lvs prod] mail gets through", "the mail")


def test_a_director_that_is_gone_is_told_once_and_its_return(whole: SaltCluster) -> None:
    service(whole.lab["lb2"], "salt-minion", "stop")
    hint = ("salt/beacon/lb1/keepalived_vrrp/change", {"id": "lb1", "changes": []})
    fire(whole.lab["rs2"], [hint])
    mailed(whole, lambda it: "director lb2 does not answer" in it, "a mail that it is gone")
    service(whole.lab["lb2"], "salt-minion", "start")
    mailed(whole, lambda it: "director lb2 answers again" in it, "a mail that it is back")
    assert len(whole.mails()) == 2
    assert json.dumps(whole.salt_run("lvs.incidents"))
