"""Hints come in, machines are asked, and what they answer is written down and told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from saltext.lvs import desk, posting, senders, sightings
from saltext.lvs.desk import Desk, Hint
from saltext.lvs.errors import InvalidConfig
from saltext.lvs.incidents import Letter
from saltext.lvs.journal import Action, Journal
from saltext.lvs.model import Cluster
from saltext.lvs.outbox import Delivery, Outbox, Parcel
from saltext.lvs.remedies import Claim

from tests.unit.test_sightings import BACKUP, CLUSTER, DOWN, VIP, health, status


class World:
    """A master's minions, as far as a desk sees them."""

    def __init__(self) -> None:
        self.answers: dict[str, dict[str, Any]] = {
            "lb1": {"lvs.health": health(), "keepalived.status": status()},
            "lb2": {"lvs.health": health(), "keepalived.status": BACKUP},
            "rs1": {"dummy.check": {"ok": True, "findings": [], "lacking": []}},
        }
        self.cluster: Cluster | None = CLUSTER
        self.clusters: dict[str, Cluster] = {}
        self.looked_up: list[str] = []
        self.asked: list[list[str]] = []
        self.others: list[list[str]] = []
        self.fired: list[tuple[str, Any]] = []
        self.fails: Exception | None = None

    def cluster_of(self, minion_id: str) -> Cluster | None:
        self.looked_up.append(minion_id)
        if minion_id in self.clusters:
            return self.clusters[minion_id]
        return self.cluster if minion_id in ("lb1", "lb2", "rs1", "rs2") else None

    def ask(
        self, minion_ids: Sequence[str], others: Collection[str]
    ) -> Mapping[str, Mapping[str, Any]]:
        self.asked.append(list(minion_ids))
        self.others.append(sorted(others))
        if self.fails is not None:
            raise self.fails
        return {name: self.answers[name] for name in minion_ids if name in self.answers}

    def fire(self, tag: str, data: Mapping[str, Any]) -> None:
        self.fired.append((tag, data))


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def book(tmp_path: Path) -> Journal:
    return Journal(str(tmp_path / "incidents.sqlite"))


def post(letter: Letter, _: Cluster) -> list[Parcel]:
    return [Parcel("mail", "mail", {"kind": letter.kind.value}, b"x", letter.incident.id)]


@pytest.fixture
def at_desk(world: World, book: Journal, tmp_path: Path) -> Iterator[Desk]:
    made = Desk(book, world, post, str(tmp_path / "known"), lambda: None, posting.remediation)
    made.start()
    yield made
    made.stop()


def until(true: Callable[[], Any], seconds: float = 10.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "it has not come to pass"
        time.sleep(0.01)
    return found


def kinds(book: Journal) -> list[str]:
    return [one.address["kind"] for one in Outbox(book).pending(100)]


def titles(book: Journal) -> list[str]:
    return [part.trouble.title for one in book.open_incidents("prod") for part in one.lasting]


def test_a_hint_makes_it_look_and_what_it_finds_is_written_down(
    at_desk: Desk, world: World, book: Journal
) -> None:
    world.answers["lb1"]["lvs.health"] = health(rs1=DOWN)
    began = time.monotonic()
    at_desk.hint(Hint("lb2", news=True))
    until(lambda: titles(book) == ["rs1:80 OUT of web"])
    assert time.monotonic() - began < 1
    assert kinds(book) == ["opened"]
    assert world.asked[0] == ["lb1", "lb2"]


def test_who_plays_no_part_makes_nobody_look_and_is_looked_up_once(
    at_desk: Desk, world: World, book: Journal
) -> None:
    for _ in range(50):
        at_desk.hint(Hint("stranger", news=True))
    until(lambda: world.looked_up)
    time.sleep(0.2)
    assert (world.looked_up, world.asked, book.history(10)) == (["stranger"], [], ())


def test_what_has_settled_is_told_without_another_look(
    at_desk: Desk, world: World, book: Journal
) -> None:
    alerts = replace(CLUSTER.alerts, settle=1.0)
    world.cluster = replace(CLUSTER, alerts=alerts)
    world.answers["lb1"]["lvs.health"] = health(rs1=DOWN)
    at_desk.hint(Hint("lb2", news=True))
    until(lambda: titles(book))
    world.answers["lb1"]["lvs.health"] = health()
    at_desk.hint(Hint("lb2", news=True))
    until(lambda: not titles(book))
    looks = len(world.asked)
    until(lambda: kinds(book) == ["opened", "closed"], 5)
    assert len(world.asked) == looks


def test_hints_without_end_make_it_look_ever_more_seldom(at_desk: Desk, world: World) -> None:
    end = time.monotonic() + 4
    while time.monotonic() < end:
        at_desk.hint(Hint("lb1", news=True))
        time.sleep(0.002)
    assert 2 <= len(world.asked) <= 6


def test_what_was_over_before_anybody_looked_is_told_once(
    at_desk: Desk, world: World, book: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "LONGEST_PAUSE_SECONDS", 0.5)
    world.cluster = replace(CLUSTER, alerts=replace(CLUSTER.alerts, settle=1.0))
    at_desk.hint(Hint("lb1", news=True))
    until(lambda: world.asked)
    for times in (1, 2, 3):
        looks = len(world.asked)
        world.answers["lb1"]["lvs.health"] = health(falls={"rs1": times})
        at_desk.hint(Hint("lb1", news=True))
        until(lambda: len(world.asked) > looks)  # noqa: B023
    until(lambda: kinds(book) == ["passed"], 20)
    (incident,) = book.history(10)
    (part,) = incident.parts
    assert (part.trouble.title, part.times, part.lasts) == ("rs1:80 OUT of web", 3, False)


def test_news_amid_a_flood_are_found(at_desk: Desk, world: World, book: Journal) -> None:
    over = threading.Event()

    def flood() -> None:
        while not over.wait(0.002):
            at_desk.hint(Hint("rs2", news=True))
            at_desk.hint(Hint("nobody", news=True))

    flooding = threading.Thread(target=flood)
    flooding.start()
    try:
        time.sleep(2)
        world.answers["lb1"]["lvs.health"] = health(rs1=DOWN)
        until(lambda: titles(book) == ["rs1:80 OUT of web"], 10)
    finally:
        over.set()
        flooding.join()


def test_a_vip_in_trouble_may_be_a_fail_over_for_a_while(
    at_desk: Desk, world: World, book: Journal
) -> None:
    world.answers["lb2"]["keepalived.status"] = status()
    at_desk.hint(Hint("lb1", news=True))
    until(lambda: len(world.asked) > 2)
    assert titles(book) == []
    until(lambda: titles(book) == [f"{VIP} held by lb1 AND lb2"], 10)


def nobody_holds(world: World, apart: float) -> None:
    """Both directors say that they do not hold the VIP, so many seconds after each other."""
    for name, at in (("lb1", 100.0), ("lb2", 100.0 + apart)):
        world.answers[name] |= {"keepalived.status": BACKUP, "answered": at}


@pytest.mark.parametrize(("apart", "looks"), [(1.9, 1), (2.1, 6)])
def test_directors_that_answer_far_apart_do_not_say_together_that_nobody_holds_a_vip(
    apart: float,
    looks: int,
    at_desk: Desk,
    world: World,
    book: Journal,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sightings, "patience", lambda *_: 0.0)
    monkeypatch.setattr(desk, "LONGEST_PAUSE_SECONDS", 0.5)
    nobody_holds(world, apart)
    while not titles(book):
        at_desk.hint(Hint("lb1", news=True))
        time.sleep(0.05)
        assert len(world.asked) < 10
    assert titles(book) == [f"{VIP} held by NO director"]
    assert len(world.asked) == looks


def test_a_real_server_that_told_is_asked_and_until_it_is_well(
    at_desk: Desk, world: World, book: Journal
) -> None:
    lost = {"ok": False, "findings": ["no VIP"], "lacking": [VIP]}
    world.answers["rs1"]["dummy.check"] = lost
    at_desk.hint(Hint("rs1", news=True))
    until(lambda: titles(book) == ["rs1 lacks its VIP"])
    assert "rs1" in world.asked[0]
    world.answers["rs1"]["dummy.check"] = {"ok": True, "findings": []}
    at_desk.hint(Hint("lb1", news=True))
    until(lambda: titles(book) == [])


def test_who_was_silent_is_not_waited_for_the_next_time(at_desk: Desk, world: World) -> None:
    del world.answers["lb2"]
    at_desk.hint(Hint("lb1", news=True))
    until(lambda: world.asked)
    at_desk.hint(Hint("lb1", news=True))
    until(lambda: len(world.asked) > 1)
    assert world.others[:2] == [[], ["lb2"]]


def test_no_real_server_can_hold_up_a_look_and_one_that_was_silent_is_asked_once_more(
    at_desk: Desk, world: World
) -> None:
    del world.answers["rs1"]
    at_desk.hint(Hint("rs1", news=True))
    until(lambda: world.asked)
    for looks in (2, 3):
        at_desk.hint(Hint("lb1", news=True))
        until(lambda: len(world.asked) == looks)  # noqa: B023
    assert world.asked == [["lb1", "lb2", "rs1"], ["lb1", "lb2", "rs1"], ["lb1", "lb2"]]
    assert world.others[0] == ["rs1"]


def test_a_master_that_has_begun_gives_minions_time_to_find_it(
    at_desk: Desk, world: World, book: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = ["director lb2 does not answer"]
    monkeypatch.setattr(desk, "RECONNECT_SECONDS", 2.0)
    missing = world.answers.pop("lb2")
    began = time.monotonic()
    at_desk.hint(Hint("lb1", news=True))
    until(lambda: len(world.asked) > 1)
    assert titles(book) == []
    until(lambda: titles(book) == gone)
    assert time.monotonic() - began > 2
    world.answers["lb2"] = missing
    at_desk.hint(Hint("lb1", news=True))
    until(lambda: titles(book) == [])
    # It had found it, so this is another matter.
    monkeypatch.setattr(desk, "RECONNECT_SECONDS", 60.0)
    del world.answers["lb2"]
    at_desk.hint(Hint("lb1", news=True))
    until(lambda: titles(book) == gone)


def test_after_a_restart_it_looks_by_itself(
    at_desk: Desk, world: World, book: Journal, tmp_path: Path
) -> None:
    world.answers["lb1"]["lvs.health"] = health(rs1=DOWN)
    at_desk.hint(Hint("lb1", news=True))
    until(lambda: titles(book))
    at_desk.stop()
    world.answers["lb1"]["lvs.health"] = health()
    again = Desk(book, world, post, str(tmp_path / "known"), lambda: None, posting.remediation)
    again.start()
    until(lambda: titles(book) == [])
    again.stop()
    assert kinds(book) == ["opened"]


def other_cluster() -> Cluster:
    """Another one, of the same name."""
    directors = {"lb9": CLUSTER.directors["lb1"]}
    return replace(CLUSTER, directors=directors, real_servers={})


def test_of_two_clusters_with_one_name_the_second_is_refused_aloud(
    at_desk: Desk, world: World
) -> None:
    at_desk.hint(Hint("lb1", news=True))
    until(lambda: world.asked)
    world.clusters["lb9"] = other_cluster()
    at_desk.hint(Hint("lb9", news=True))
    tag, content = until(lambda: world.fired and world.fired[0])
    assert tag == "lvs/alerts/prod/trouble"
    assert content["reason"] == (
        "two clusters are called prod, of lb1, lb2 and of lb9: the second is not looked at; give it"
        " another lvs:name"
    )
    at_desk.hint(Hint("lb1", news=True))
    until(lambda: len(world.asked) > 1)
    assert {name for asked in world.asked for name in asked} == {"lb1", "lb2"}


def test_a_cluster_whose_directors_are_all_replaced_is_looked_at_all_the_same(
    at_desk: Desk, world: World
) -> None:
    at_desk.hint(Hint("lb1", news=True))
    until(lambda: world.asked)
    world.cluster = None
    world.clusters["lb9"] = other_cluster()
    at_desk.hint(Hint("lb9", news=True))
    until(lambda: world.asked[-1] == ["lb9"])
    assert world.fired == []


def test_a_look_that_fails_is_not_the_last_one(at_desk: Desk, world: World, book: Journal) -> None:
    world.fails = OSError("no bus")
    at_desk.hint(Hint("lb1", news=True))
    tag, content = until(lambda: world.fired and world.fired[0])
    assert tag == "lvs/alerts/prod/trouble"
    assert content == {"cluster": "prod", "reason": "a look at it failed: OSError"}
    world.fails = None
    world.answers["lb1"]["lvs.health"] = health(rs1=DOWN)
    at_desk.hint(Hint("lb1", news=True))
    until(lambda: titles(book))


def test_a_broken_book_is_put_aside_and_a_new_one_begun(
    at_desk: Desk, world: World, book: Journal, tmp_path: Path
) -> None:
    world.answers["lb1"]["lvs.health"] = health(rs1=DOWN)
    Path(book.path).write_bytes(b"nothing that is a book" * 500)
    at_desk.hint(Hint("lb1", news=True))
    until(lambda: list(tmp_path.glob("*.broken-*")))
    at_desk.hint(Hint("lb1", news=True))
    until(lambda: titles(Journal(book.path)))


ACTION = Action(1.0, "", "rs1", "dummy", "the minion itself", "why", "changed: all", changed=True)
CLAIM = Claim(ACTION)


def test_what_was_done_automatically_is_noted_with_the_incident_and_told(
    at_desk: Desk, world: World, book: Journal
) -> None:
    lost = {"ok": False, "findings": ["no VIP"], "lacking": [VIP]}
    world.answers["rs1"]["dummy.check"] = lost
    at_desk.hint(Hint("rs1", news=True))
    until(lambda: titles(book))
    at_desk.claim(CLAIM)
    (noted,) = until(lambda: book.actions(10))
    (incident,) = book.open_incidents("prod")
    assert (noted.cluster, noted.incident, noted.result) == ("prod", incident.id, "changed: all")
    told = Outbox(book).pending(10)[-1]
    assert told.address == {"tag": "lvs/remediation/prod/rs1"}
    assert json.loads(posting.remediation(noted).body)["result"] == "changed: all"


def by_director(name: str, real_server: str) -> Claim:
    """What a director has done with the weight of a real server."""
    return Claim(replace(ACTION, minion=name, subject="real_server"), (("web", real_server),))


def incidents(book: Journal) -> dict[str, str]:
    """Which incident each minion's action belongs to."""
    return {one.minion: one.incident for one in book.actions(10)}


@pytest.mark.parametrize("name", ["lb1", "lb2"])
def test_what_was_done_before_the_look_that_finds_why_belongs_to_what_it_finds(
    name: str, at_desk: Desk, world: World, book: Journal
) -> None:
    at_desk.hint(Hint("lb1", news=True))
    until(lambda: world.asked)
    # Of the director that does not serve as well, whose word on the real server does not count.
    at_desk.claim(by_director(name, "rs1"))
    time.sleep(1)
    assert book.actions(10) == ()
    world.answers["lb1"]["lvs.health"] = health(rs1=DOWN)
    at_desk.hint(Hint("lb1", news=True))
    until(lambda: book.actions(10))
    (incident,) = book.open_incidents("prod")
    assert incidents(book) == {name: incident.id}


def test_what_was_done_for_one_real_server_belongs_to_no_incident_of_another_one(
    at_desk: Desk, world: World, book: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "CLAIM_SECONDS", 1.0)
    monkeypatch.setattr(desk, "LONGEST_PAUSE_SECONDS", 0.5)
    world.answers["lb1"]["lvs.health"] = health(rs1=DOWN)
    at_desk.hint(Hint("lb1", news=True))
    until(lambda: titles(book))
    at_desk.claim(by_director("lb1", "rs2"))
    at_desk.claim(by_director("lb2", "nobody"))
    until(lambda: len(book.actions(10)) == 2)
    assert incidents(book) == {"lb1": "", "lb2": ""}


def test_what_was_done_when_it_ends_is_written_down_at_once(
    at_desk: Desk, world: World, book: Journal
) -> None:
    at_desk.hint(Hint("lb1", news=True))
    until(lambda: world.asked)
    at_desk.claim(by_director("lb1", "rs1"))
    at_desk.stop()
    assert incidents(book) == {"lb1": ""}


def test_what_somebody_unknown_claims_is_not_noted(
    at_desk: Desk, book: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "CLAIM_SECONDS", 0.5)
    monkeypatch.setattr(desk, "LONGEST_PAUSE_SECONDS", 0.5)
    at_desk.hint(Hint("lb1", news=True))
    until(lambda: at_desk.world.asked)  # type: ignore[attr-defined]
    at_desk.claim(Claim(replace(ACTION, minion="nobody")))
    at_desk.claim(Claim(replace(ACTION, minion="lb2")))
    (noted,) = until(lambda: book.actions(10))
    assert (noted.minion, noted.incident) == ("lb2", "")


def test_while_the_book_is_broken_what_was_done_is_kept(
    at_desk: Desk, book: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "CLAIM_SECONDS", 0.5)
    at_desk.hint(Hint("lb1", news=True))
    until(lambda: at_desk.world.asked)  # type: ignore[attr-defined]
    Path(book.path).write_bytes(b"nothing that is a book" * 500)
    at_desk.claim(CLAIM)
    until(lambda: list(tmp_path.glob("*.broken-*")))
    until(lambda: Journal(book.path).actions(10), 15)


def test_what_a_cluster_is_called() -> None:
    assert desk.title(CLUSTER) == "prod"


# --------------------------------------------------------------------------------------------------
# The threads that send


def parcel(lane: str, body: bytes = b"x") -> Parcel:
    return Parcel(lane, "mail", {}, body, queued_at=time.time())


def queue(book: Journal, *parcels: Parcel) -> None:
    with book.writing() as pen:
        for one in parcels:
            pen.queue(one)


def test_a_lane_that_hangs_holds_up_nobody_else(book: Journal) -> None:
    sent: list[str] = []
    hangs = threading.Event()

    def way(one: Parcel) -> Delivery:
        if one.lane == "slow":
            hangs.wait(20)
        sent.append(one.lane)
        return Delivery(done=True)

    sender = senders.Sender(book, {"mail": way}, time.time)
    queue(book, parcel("slow"), parcel("quick"))
    sender.start()
    until(lambda: sent == ["quick"])
    for number in range(2, 12):
        began = time.monotonic()
        queue(book, parcel("quick"))
        sender.wake()
        until(lambda: len(sent) == number)  # noqa: B023
        assert time.monotonic() - began < 1
    hangs.set()
    until(lambda: "slow" in sent)
    sender.stop()


def test_of_two_senders_one_sends_and_the_other_takes_over(book: Journal) -> None:
    sent: list[tuple[int, int]] = []

    def way(number: int) -> Callable[[Parcel], Delivery]:
        def send(one: Parcel) -> Delivery:
            sent.append((number, one.id))
            return Delivery(done=True)

        return send

    first, second = (senders.Sender(book, {"mail": way(n)}, time.time) for n in range(2))
    for sender in (first, second):
        sender.LOOK_SECONDS = 0.2  # type: ignore[misc]
    first.start()
    queue(book, parcel("a"))
    first.wake()
    until(lambda: len(sent) == 1)
    second.start()
    for _ in range(10):
        queue(book, parcel("a"))
        first.wake()
        second.wake()
    until(lambda: len(sent) == 11)
    assert {number for number, _ in sent} == {0}
    first.stop()
    queue(book, parcel("a"))
    until(lambda: len(sent) == 12)
    assert sent[-1][0] == 1
    assert len({name for _, name in sent}) == 12
    second.stop()


# --------------------------------------------------------------------------------------------------
# What the master's configuration says


def test_what_the_master_says_is_read(tmp_path: Path) -> None:
    office = posting.read(
        {
            "mailer": False,
            "journal": "/srv/book.sqlite",
            "keep_days": 7,
            "keep_megabytes": 5,
            "relays": {"Mail.example.com": {"username": "lvs", "password": "SECRET"}},
            "webhooks": {"chat": {"url": "https://chat.example.com/SECRET"}},
        }
    )
    assert (office.mailer, office.keep_seconds, office.most_bytes) == (False, 604800, 5_000_000)
    assert posting.place(office, "/cache") == "/srv/book.sqlite"
    assert posting.place(posting.Office(), "/cache") == "/cache/saltext-lvs/incidents.sqlite"
    assert "SECRET" not in repr(office)
    (relay,) = posting.relays_of(["mail.example.com 587"], office, 5)
    assert (relay.port, relay.username, relay.password) == (587, "lvs", "SECRET")
    (other,) = posting.relays_of(["mail2.example.com"], office, 5)
    assert (other.username, other.timeout_seconds) == ("", 5)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        pytest.param({"mailer": "no"}, "mailer is 'no'; it should be True or False", id="a word"),
        pytest.param({"journal": "book"}, "journal is 'book'; it should be an abs", id="a path"),
        pytest.param({"relay": {}}, "relay is {}; it should be left out", id="misspelt"),
        pytest.param({"relays": ["a"]}, "relays is ", id="a list"),
        pytest.param({"relays": {"a b c": {}}}, "it should be a host name", id="no host"),
        pytest.param({"relays": {"a": {"tls": "x"}}}, "relays:a:tls is 'x'", id="no such TLS"),
        pytest.param({"webhooks": {"a": {}}}, "webhooks:a:url is", id="no address"),
    ],
)
def test_what_is_wrong_in_it_is_named(value: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidConfig) as raised:
        posting.read(value)
    assert message in str(raised.value)
