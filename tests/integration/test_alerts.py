"""Who is told of what, by mail: real master, engine, minions and mail server.

The tests run in the order in which they stand here.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.integration import alerting
from tests.integration.alerting import (
    WITHIN_SECONDS,
    mailed,
    opened,
    restart_the_master,
    service,
    states,
    subject,
    subjects,
)
from tests.lab import Lab
from tests.lab.bus import Bus, fire
from tests.lab.cluster import MINIONS, SaltCluster
from tests.lab.lab import VIP
from tests.lab.waiting import until

# The first test waits for the cluster, which a busy machine makes slowly.
pytestmark = pytest.mark.timeout(600)

OUT = "[lvs prod] rs1:80 OUT of web "


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with alerting.lab_of("master", *MINIONS) as lab:
        yield lab


@pytest.fixture(scope="module")
def cluster(lab: Lab) -> Iterator[SaltCluster]:
    """A cluster after its first highstate, of which nobody was told anything."""
    with alerting.cluster_in(lab) as cluster:
        yield cluster


@pytest.fixture
def whole(cluster: SaltCluster) -> SaltCluster:
    """The cluster, with all at work, and no incident that would come back."""
    service(cluster.master, "lab-mail", "start")
    for name in ("rs1", "rs2"):
        service(cluster.lab[name], "lab-web", "start")
    alerting.begin_anew(cluster)
    return cluster


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
    (only,) = subjects(whole)
    assert only.startswith(OUT)
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


def test_a_director_whose_link_flaps_is_one_mail_at_most(whole: SaltCluster) -> None:
    with edited(whole, "    fold: 3\n", "    fold: 30\n"):
        for _ in range(3):
            whole.lab["lb1"].link_down()
            time.sleep(4)
            whole.lab["lb1"].link_up()
            time.sleep(6)
        time.sleep(45)
        alerting.wait_for_peace(whole)
        assert len(subjects(whole)) <= 1, subjects(whole)


@contextmanager
def edited(cluster: SaltCluster, old: str, new: str) -> Iterator[None]:
    """The pillar with something else in it, for the time of a block; the master begins with it."""
    text = cluster.master.read(alerting.PILLAR)
    assert old in text
    cluster.master.write(alerting.PILLAR, text.replace(old, new))
    restart_the_master(cluster)
    try:
        yield
    finally:
        cluster.master.write(alerting.PILLAR, text)
        restart_the_master(cluster)


# --------------------------------------------------------------------------------------------------
# A minion with an accepted key that somebody else has: rs2

CHANGE = {"virtual_server": "web", "real_server": "rs1", "was": "up", "now": "down"}
LOST = {"interface": "dummy0", "address": VIP, "was": "held", "now": "lost"}
TOUCH = "touch /tmp/forged"
TEXTS: dict[str, Any] = {
    "a line's end": f"rs1\r\nBcc: evil@example.com\n- cmd.run: {TOUCH}",
    "a NUL and a DEL": "rs1\0\x7f",
    "Jinja": f"{{{{ salt['cmd.run']('{TOUCH}') }}}}",
    "a shell": f"$({TOUCH}); `{TOUCH}`",
    "another direction": "\u202ersr\u2066\ud83d\ude00",
    "a star": "*",
    "a list": ["rs1", "lb1"],
    "a number": 10**400,
    "a mapping": {"rs1": {"rs1": "rs1"}},
    "nothing": None,
}
NAMES = ("lb1", "rs1", "*", "lb?", "lb1,lb2", "G@os:Debian", "../lb1", "lb1\n", "", "r" * 3000)


def deep(levels: int) -> Any:
    found: Any = "x"
    for _ in range(levels):
        found = [found]
    return found


def forged_events() -> list[tuple[str, Any]]:
    """Events as a minion may make them: of any tag and content."""
    found: list[tuple[str, Any]] = []
    for beacon in ("real_server", "keepalived_vrrp", "dummy"):
        for name in NAMES:
            tag = f"salt/beacon/{name}/{beacon}/change"
            found += [(tag, {"id": name, "acted": False, "changes": [CHANGE, LOST]})]
            found += [(tag, {"id": "rs1", "changes": [CHANGE]})]
        tag = f"salt/beacon/lb1/{beacon}/change"
        for text in TEXTS.values():
            nasty = {**CHANGE, **LOST, "virtual_server": text, "real_server": text, "reason": text}
            found += [(tag, {"id": text, "changes": [nasty]})]
            for acted in (True, False):
                content = {"id": "lb1", "cluster": text, "seq": text, "at": text, "acted": acted}
                found += [(tag, {**content, "changes": [nasty, text]})]
        found += [(tag, {"id": "lb1", "changes": deep(60)}), (tag, {"id": "lb1", "changes": []})]
        found += [(tag, ["lb1"]), (tag, "lb1"), (tag, {"id": "lb1", "changes": "x" * 100_000})]
        found += [(tag, {"id": "lb1", "seq": seq, "changes": [CHANGE]}) for seq in (9, 1, 9, -1)]
    for kind in ("opened", "closed"):
        told = {"incident": {"id": "x", "cluster": "prod"}, "kind": kind}
        found += [(f"lvs/incident/prod/{kind}", told)]
    found += [("lvs/vips/prod/held", {"holders": [one]}) for one in TEXTS.values()]
    found += [("salt/job/20270101000000000000/ret/lb1", returned(one)) for one in TEXTS.values()]
    return found


def returned(answer: Any) -> dict[str, Any]:
    given = [{"automatic": True}]
    return {"fun": "lvs.reweight", "id": "lb1", "return": answer, "fun_args": given}


# What they may cause at most: that somebody looks.
LOOKS = {
    *("lvs.report", "dummy.repair", "lvs.reweight", "lvs.reapply", "keepalived.send_garp"),
    *("test.ping", "saltutil.find_job"),
}


def weights(cluster: SaltCluster) -> dict[str, str]:
    names = ("lb1", "lb2")
    return {name: cluster.lab[name].run(["ipvsadm", "-Sn"]).stdout for name in names}


def test_what_a_minion_forges_changes_nothing_and_tells_nobody(whole: SaltCluster) -> None:
    before = weights(whole)
    with Bus(whole.master) as bus:
        events = forged_events()
        fire(whole.lab["rs2"], [*events, ("forged/last", {})], per_second=30)
        until(lambda: any(it.tag == "forged/last" for it in bus.events), "all of them", seconds=90)
        time.sleep(20)
        whole.wait()
    jobs = bus.jobs()
    assert {name for job in jobs for name in job["minions"]} <= set(MINIONS)
    # None is a list: state.apply fails on a minion that is running such a job.
    assert {str(job["fun"]) for job in jobs} <= LOOKS
    assert weights(whole) == before
    assert (opened(whole), whole.mails()) == ([], [])
    for host in (whole.master, *(whole.lab[name] for name in MINIONS)):
        assert not host.exists("/tmp/forged")


def test_a_field_of_ten_megabytes_stops_nothing(whole: SaltCluster) -> None:
    large = {"id": "lb1", "changes": [{**CHANGE, "reason": "x" * 10_000_000}]}
    fire(whole.lab["rs2"], [("salt/beacon/lb1/real_server/change", large)])
    whole.wait()
    service(whole.lab["rs1"], "lab-web", "stop")
    mailed(whole, lambda it: it.startswith(OUT), "a mail that it is out")


def test_amid_a_flood_of_forged_events_a_true_alert_is_mailed(
    whole: SaltCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = ("real_server", "dummy", "keepalived_vrrp")
    ids = ("lb1", "rs2", "lb2", "nobody", "rs1")
    events = [
        (f"salt/beacon/{name}/{kind}/change", {"id": name, "acted": True, "changes": [CHANGE]})
        for name, kind in zip(ids * 600, kinds * 1000, strict=True)
    ]
    flood = threading.Thread(
        target=fire, args=(whole.lab["rs2"], events), kwargs={"per_second": 50}
    )
    with Bus(whole.master) as bus:
        flood.start()
        until(lambda: len(bus.events) > 500, "the flood", seconds=60)
        began = len(bus.events)
        service(whole.lab["rs1"], "lab-web", "stop")
        stopped = time.time()
        mailed(whole, lambda it: it.startswith(OUT), "a mail that it is out")
        late, heard = time.time() - stopped, len(bus.events) - began
        assert flood.is_alive()
        flood.join()
    with capsys.disabled():
        print(f" [{late:.1f} s after it died, and {heard} events]", end="", flush=True)
    # It has to be seen by the checks first, which takes two of them and their time-out.
    assert late <= 10 + 3
    time.sleep(5)
    assert [it.startswith(OUT) for it in subjects(whole)] == [True]


def test_what_was_done_automatically_is_told_and_kept(whole: SaltCluster) -> None:
    with Bus(whole.master) as bus:
        service(whole.lab["rs1"], "lab-web", "stop")
        mailed(whole, lambda it: it.startswith(OUT), "a mail that it is out")
        # Of the director in reserve as well, whose word on real servers does not count.
        events = [
            until(
                lambda: next((it for it in bus.events if it.tag == tag), None),  # noqa: B023
                "an event of the director's weights",
                seconds=WITHIN_SECONDS,
            )
            for tag in ("lvs/remediation/prod/lb1", "lvs/remediation/prod/lb2")
        ]
    (incident,) = opened(whole)
    for event in events:
        assert event.data["result"].startswith("changed: weight of rs1 in web from ")
        assert event.data["incident"] == incident["id"]
    told = whole.salt_run("lvs.incidents", incident["id"])["actions"]
    for name in ("lb1", "lb2"):
        assert any(f"{name}: the minion itself" in one for one in told)
