"""What waits to be sent: in order, with pauses, and each parcel once, whoever is killed."""

from __future__ import annotations

import logging
import os
import random
import re
import signal
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from saltext.lvs import outbox
from saltext.lvs.errors import InvalidConfig
from saltext.lvs.journal import Journal, JournalError
from saltext.lvs.outbox import Delivery, Outbox, Parcel, Queue

NOW = 1_795_000_000.0
DONE = Delivery(done=True)
DAY = 24 * 3600.0


@pytest.fixture
def box(tmp_path: Path) -> Outbox:
    return Outbox(Journal(str(tmp_path / "cache" / "incidents.sqlite")))


def parcel(body: bytes | str = b"a letter", lane: str = "mail", **values: object) -> Parcel:
    body = body.encode() if isinstance(body, str) else body
    right = {"lane": lane, "way": "mail", "address": {"to": ["noc"]}, "queued_at": NOW}
    return Parcel(**{**right, **values, "body": body})


def queue(box: Outbox, *parcels: Parcel) -> None:
    with box.journal.writing() as pen:
        for one in parcels:
            pen.queue(one)


class Relay:
    """A way that remembers what it was given, and answers as it is told to."""

    def __init__(self, answer: Callable[[Parcel], Delivery] = lambda parcel: DONE) -> None:
        self.got: list[str] = []
        self.answer = answer

    def __call__(self, parcel: Parcel) -> Delivery:
        self.got.append(parcel.body.decode())
        return self.answer(parcel)


def fails(words: str = "nobody there") -> Callable[[Parcel], Delivery]:
    return lambda parcel: Delivery(done=False, later=words)


def forked(work: Callable[[], object]) -> int:
    """A child that does this and ends; its number."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(0)
    return child


def bare(one: Parcel) -> Parcel:
    return replace(one, body=b"")


# --------------------------------------------------------------------------------------------------
# What is due

addresses = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=5,
)


@given(
    st.binary(max_size=300),
    st.dictionaries(st.text(max_size=9), addresses, max_size=3),
    st.text(max_size=9),
    st.floats(0, 2 * NOW),
)
def test_a_parcel_is_given_out_as_it_was_queued(tmp_path_factory, body, address, lane, at):
    box = Outbox(Journal(str(tmp_path_factory.mktemp("book") / "incidents.sqlite")))
    queued = Parcel(lane, "webhook", address, body, "an incident", at)

    queue(box, queued)

    assert box.due(lane, at) == replace(queued, id=1)
    assert box.pending(9) == (replace(queued, id=1, body=b""),)


def test_each_lane_leaves_in_its_order_one_parcel_to_a_round(box):
    queue(box, *(parcel(f"{lane}{n}", lane) for n in range(3) for lane in ("mail", "chat")))
    queue(box, parcel("event0", "event"))
    relay = Relay()

    rounds = []
    while outbox.deliver(box, {"mail": relay}, NOW):
        rounds.append(relay.got.copy())
        relay.got.clear()

    assert rounds == [["mail0", "chat0", "event0"], ["mail1", "chat1"], ["mail2", "chat2"]]
    assert box.next_at() is None


def test_a_lane_that_fails_holds_up_itself_and_no_other(box):
    queue(box, parcel("bad1", "bad"), parcel("bad2", "bad"), parcel("good1"), parcel("good2"))
    relay = Relay(lambda one: DONE if one.lane == "mail" else fails()(one))

    assert [outbox.deliver(box, {"mail": relay}, NOW) for _ in range(3)] == [1, 1, 0]

    assert relay.got == ["bad1", "good1", "good2"]
    assert box.lanes_due(NOW + 4.9) == ()
    assert box.lanes_due(NOW + 5) == ("bad",)
    assert box.next_at() == NOW + 5


def test_a_lane_waits_twice_as_long_after_each_failure_up_to_five_minutes(box):
    queue(box, parcel("first"), parcel("second"))
    relay, now, pauses = Relay(fails()), NOW, []
    for _ in range(9):
        outbox.deliver(box, {"mail": relay}, now)
        pauses.append(box.next_at() - now)
        now = box.next_at()
    relay.answer = lambda one: DONE
    outbox.deliver(box, {"mail": relay}, now)
    outbox.deliver(box, {"mail": relay}, now)

    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert relay.got == ["first"] * 10 + ["second"]


@given(st.integers(1, 10**6))
def test_no_pause_is_longer_than_five_minutes(tries):
    assert 5 <= outbox.pause_seconds(tries) <= 300


def test_a_clock_that_was_set_back_holds_up_nothing(box):
    queue(box, parcel())
    outbox.deliver(box, {"mail": Relay(fails())}, NOW + 2 * DAY)

    assert box.lanes_due(NOW) == ("mail",)


def test_what_has_waited_for_longest_goes_first(box):
    queue(
        box, parcel(lane="a", next_at=3), parcel(lane="b", next_at=1), parcel(lane="c", next_at=2)
    )

    assert box.lanes_due(NOW) == ("b", "c", "a")


# --------------------------------------------------------------------------------------------------
# What came of it


def test_what_is_sent_is_kept_without_its_body(box):
    queue(box, parcel("one", incident="a"), parcel("two", incident="b"))

    assert outbox.deliver(box, {"mail": Relay()}, NOW + 1) == 1

    one = parcel("", incident="a", id=1, outcome=outbox.SENT, done_at=NOW + 1)
    assert box.history(9) == box.history(9, incident="a") == (one,)
    assert box.history(9, incident="b") == ()
    assert box.pending(9) == (parcel("", incident="b", id=2),)


@pytest.mark.parametrize(
    ("deliveries", "expected"),
    [
        pytest.param([DONE], {"outcome": "sent"}, id="all have it"),
        pytest.param(
            [Delivery(done=True, refused="sales: no such user")],
            {"outcome": "refused", "refused": "sales: no such user"},
            id="one refused it",
        ),
        pytest.param(
            [
                Delivery(False, "boss: busy", "sales: no such user", {"to": ["boss"]}),
                Delivery(False, "nobody there"),
                DONE,
            ],
            {
                "outcome": "refused",
                "refused": "sales: no such user",
                "why": "nobody there",
                "tries": 2,
                "next_at": NOW + 15,
                "address": {"to": ["boss"]},
            },
            id="one refused it before the others had it",
        ),
        pytest.param(
            [
                Delivery(False, "busy", "sales: no such user", {"to": ["noc", "boss"]}),
                Delivery(True, refused="boss:\r\n gone\x00"),
            ],
            {
                "outcome": "refused",
                "refused": "sales: no such user; boss: gone",
                "why": "busy",
                "tries": 1,
                "next_at": NOW + 5,
                "address": {"to": ["noc", "boss"]},
            },
            id="one after the other refused it",
        ),
        pytest.param(
            [Delivery(done=False), DONE],
            {"outcome": "sent", "tries": 1, "next_at": NOW + 5, "why": "no reason was given"},
            id="it failed without a word",
        ),
    ],
)
def test_what_became_of_a_parcel_is_told(box, deliveries, expected):
    queue(box, parcel())
    answers = iter(deliveries)
    relay = Relay(lambda one: next(answers))

    now = NOW
    for _ in deliveries:
        outbox.deliver(box, {"mail": relay}, now)
        done_at, now = now, box.next_at() or now

    assert box.history(9) == (parcel("", id=1, done_at=done_at, **expected),)
    assert relay.got == ["a letter"] * len(deliveries)


def test_only_those_who_still_have_to_get_it_are_tried_again(box):
    queue(box, parcel(address={"to": ["noc", "boss"], "from": "lvs"}))
    left = {"to": ["boss"], "from": "lvs"}

    outbox.deliver(box, {"mail": lambda one: Delivery(False, "busy", left=left)}, NOW)

    assert box.due("mail", NOW + 5) == parcel(
        id=1, address=left, tries=1, next_at=NOW + 5, why="busy"
    )


def test_who_cannot_be_told_for_three_days_is_given_up_and_the_next_has_its_turn(box, caplog):
    queue(box, parcel("old", queued_at=NOW - 3 * DAY), parcel("new", queued_at=NOW - 2 * DAY))
    relay = Relay(fails())

    assert outbox.deliver(box, {"mail": relay}, NOW - 1) == 0
    assert [one.tries for one in box.pending(9)] == [1, 0]
    assert outbox.deliver(box, {"mail": relay}, NOW + 4) == 0
    assert outbox.deliver(box, {"mail": relay}, NOW + 4) == 0

    assert relay.got == ["old", "old", "new"]
    assert [(one.outcome, one.why, one.tries, one.done_at) for one in box.history(9)] == [
        (outbox.GIVEN_UP, "nobody there", 2, NOW + 4)
    ]
    assert [one.tries for one in box.pending(9)] == [1]
    assert [one.levelname for one in caplog.records] == ["WARNING", "ERROR", "WARNING"]


def raises(error: Exception) -> Callable[[Parcel], Delivery]:
    def way(one: Parcel) -> Delivery:
        raise error

    return way


HERE = os.path.basename(__file__)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param(
            InvalidConfig("lvs:alerts", 7, "a name"),
            r"lvs:alerts is 7; it should be a name",
            id="ours is written for the operator",
        ),
        pytest.param(
            ConnectionRefusedError(111, "Connection refused"),
            r"ConnectionRefusedError: Connection refused",
            id="the system's is known",
        ),
        pytest.param(
            ValueError("Invalid header value b'Bearer SECRET\\n'"),
            rf"ValueError at {HERE}:\d+",
            id="another's may quote a password",
        ),
        pytest.param(
            ConnectionError("https://chat/hooks/SECRET"),
            rf"ConnectionError at {HERE}:\d+",
            id="so may one that only looks like the system's",
        ),
    ],
)
def test_a_way_that_raises_fails_and_stops_no_other_lane(box, caplog, error, expected):
    queue(box, parcel(lane="bad", way="webhook"), parcel("good"))
    relay = Relay()
    caplog.set_level(logging.DEBUG)

    assert outbox.deliver(box, {"mail": relay, "webhook": raises(error)}, NOW) == 1

    assert relay.got == ["good"]
    (bad,) = box.pending(9)
    assert bad.next_at == NOW + 5
    assert re.fullmatch(expected, bad.why)
    assert "SECRET" not in caplog.text and bad.why in caplog.text


def test_a_way_that_nobody_knows_waits(box):
    queue(box, parcel(lane="x", way="pigeon"), parcel("good"))

    assert outbox.deliver(box, {"mail": Relay()}, NOW) == 1
    assert [one.why for one in box.pending(9)] == ["nothing here sends by 'pigeon'"]


def test_words_of_any_kind_are_kept_short_and_on_one_line(box):
    queue(box, parcel())

    outbox.deliver(box, {"mail": Relay(fails("no\r\n\x1b[2J\udcff" + "x" * 10**6))}, NOW)

    (one,) = box.pending(9)
    assert one.why == "no [2J " + "x" * 990 + "..."


def test_an_address_that_somebody_has_broken_stops_no_other_lane(box):
    queue(box, parcel("bad", "bad"), parcel("good"))
    with box.journal.writing() as pen:
        pen.change("UPDATE outbox SET address = '[' WHERE lane = 'bad'")
    relay = Relay(lambda one: Delivery(done=bool(one.address["to"])))

    assert outbox.deliver(box, {"mail": relay}, NOW) == 1
    assert [(one.lane, one.address, one.why[:8]) for one in box.pending(9)] == [
        ("bad", {}, "KeyError")
    ]


def test_the_body_is_not_shown_by_chance():
    assert "SECRET" not in repr(parcel("SECRET"))


# --------------------------------------------------------------------------------------------------
# For persons


def test_the_summary_says_what_waits_in_each_lane_and_why(box):
    queue(
        box,
        parcel(queued_at=NOW - 9),
        parcel(queued_at=NOW - 8),
        parcel(lane="chat", way="webhook"),
        parcel(lane="event", way="event"),
    )
    ways = {"mail": Relay(fails("busy")), "webhook": Relay(fails("410")), "event": Relay()}
    outbox.deliver(box, ways, NOW)

    assert box.summary() == (
        Queue("chat", "webhook", 1, NOW, 1, NOW + 5, "410"),
        Queue("mail", "mail", 2, NOW - 9, 1, NOW + 5, "busy"),
    )
    assert [one.id for one in box.pending(2)] == [1, 2]


# --------------------------------------------------------------------------------------------------
# Threads and processes


def test_a_lane_with_a_thread_of_its_own_is_sent_until_nothing_is_due(box):
    queue(box, *(parcel(f"{n}") for n in range(5)), parcel("other", "chat"))
    relay = Relay()

    assert outbox.deliver_lane(box, "mail", {"mail": relay}, lambda: NOW, lambda: False) == 5
    assert relay.got == ["0", "1", "2", "3", "4"]
    assert box.lanes_due(NOW) == ("chat",)


def test_a_lane_that_fails_lets_its_thread_go(box):
    queue(box, parcel("1"), parcel("2"), parcel("3"))
    relay = Relay(lambda one: DONE if one.id == 1 else fails()(one))

    assert outbox.deliver_lane(box, "mail", {"mail": relay}, lambda: NOW, lambda: False) == 1
    assert relay.got == ["1", "2"]


def test_a_thread_that_is_told_to_stop_ends_before_the_next_parcel(box):
    queue(box, *(parcel(f"{n}") for n in range(5)))
    relay = Relay()
    stop = lambda: len(relay.got) == 2  # noqa: E731

    assert outbox.deliver_lane(box, "mail", {"mail": relay}, lambda: NOW, stop) == 2


def test_a_pause_begins_when_the_attempt_has_ended(box):
    queue(box, parcel())
    clock = iter((NOW, NOW + 60, NOW + 60)).__next__

    outbox.deliver_lane(box, "mail", {"mail": Relay(fails())}, clock, lambda: False)

    assert box.next_at() == NOW + 65


def test_two_threads_never_send_in_one_lane_and_a_slow_lane_holds_up_no_other(box):
    queue(box, parcel("slow"), parcel("quick", "chat"))
    begun, go_on = threading.Event(), threading.Event()

    def slow(one: Parcel) -> Delivery:
        begun.set()
        return Delivery(done=go_on.wait(10))

    relay, quick = Relay(slow), Relay()
    arguments = (box, "mail", {"mail": relay}, lambda: NOW, lambda: False)
    thread = threading.Thread(target=outbox.deliver_lane, args=arguments)
    thread.start()
    assert begun.wait(10)

    assert outbox.deliver_lane(*arguments) == 0
    assert outbox.deliver(box, {"mail": quick}, NOW) == 1
    go_on.set()
    thread.join()

    assert (relay.got, quick.got) == (["slow"], ["quick"])
    assert outbox.deliver(box, {"mail": quick}, NOW) == 0
    assert len(box.history(9)) == 2


def test_many_lanes_are_sent_by_threads_while_more_is_queued(box):
    relay = Relay()
    lanes = [f"lane{n}" for n in range(4)]

    def send(lane: str) -> None:
        end = time.monotonic() + 20
        while sum(one.startswith(lane) for one in relay.got) < 10 and time.monotonic() < end:
            outbox.deliver_lane(box, lane, {"mail": relay}, lambda: NOW, lambda: False)

    threads = [threading.Thread(target=send, args=(lane,)) for lane in lanes]
    for thread in threads:
        thread.start()
    for number in range(10):
        queue(box, *(parcel(f"{lane} {number}", lane) for lane in lanes))
    for thread in threads:
        thread.join()

    by_lane = {lane: [one for one in relay.got if one.startswith(lane)] for lane in lanes}
    assert by_lane == {lane: [f"{lane} {number}" for number in range(10)] for lane in lanes}


def test_one_process_sends(box):
    with box.sender() as ours, box.sender() as again:
        child = forked(lambda: os._exit(int(_is_sender(box))))
        assert (ours, again) == (True, False)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    assert _is_sender(box)


def _is_sender(box: Outbox) -> bool:
    with box.sender() as ours:
        return ours


def test_when_the_sender_is_killed_another_one_can_be(box):
    tell, told = os.pipe()

    def send() -> None:
        with box.sender() as ours:
            os.write(told, b"%d" % ours)
            time.sleep(20)

    child = forked(send)
    try:
        assert os.read(tell, 1) == b"1"
        assert not _is_sender(box)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(tell)
        os.close(told)

    assert _is_sender(box)


# --------------------------------------------------------------------------------------------------
# Killed, and what cannot be written down


def test_each_parcel_is_sent_once_unless_a_kill_fell_before_that_was_noted(box, tmp_path):
    lanes = ("mail", "chat", "event")
    wanted = [f"{lane} {number}" for number in range(60) for lane in lanes]
    queue(box, *(parcel(f"{one}\n", one.split()[0]) for one in wanted))
    received = os.open(tmp_path / "received", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    chance = random.Random(21)

    def take(one: Parcel) -> Delivery:
        os.write(received, one.body)
        return DONE

    def send() -> None:
        while outbox.deliver(box, {"mail": take}, NOW):
            pass

    kills = 0
    for _ in range(20):
        child = forked(send)
        time.sleep(chance.uniform(0.005, 0.03))
        os.kill(child, signal.SIGKILL)
        kills += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    send()
    os.close(received)

    got = (tmp_path / "received").read_text().splitlines()
    counted = Counter(got)
    assert kills >= 5
    assert set(counted) == set(wanted)
    assert sum(counted.values()) - len(wanted) <= kills
    for lane in lanes:
        firsts = list(dict.fromkeys(one for one in got if one.startswith(lane)))
        assert firsts == [one for one in wanted if one.startswith(lane)]
    assert len(box.history(10**6)) == len(wanted)


def test_a_parcel_that_is_sent_again_is_the_same_to_the_byte(box):
    body = bytes(range(256)) * 100
    queue(box, parcel(body))
    seen = []

    def take(one: Parcel) -> Delivery:
        seen.append((one.id, one.body))
        return fails()(one)

    for now in (NOW, NOW + 5, NOW + 15):
        outbox.deliver(Outbox(Journal(box.journal.path)), {"mail": take}, now)

    assert seen == [(1, body)] * 3


@pytest.mark.parametrize(
    ("answer", "left"),
    [
        pytest.param(DONE, 2, id="what was sent"),
        pytest.param(Delivery(done=False, later="busy"), 3, id="what was not sent"),
    ],
)
def test_while_nothing_can_be_written_down_nothing_more_is_sent(box, monkeypatch, answer, left):
    queue(box, parcel("1"), parcel("2"), parcel("3", "chat"))
    relay = Relay(lambda one: answer)
    prepared = Journal._prepared

    def read_only(self, held, where):
        connection = prepared(self, held, where)
        connection.execute("PRAGMA query_only = 1")
        return connection

    monkeypatch.setattr(Journal, "_prepared", read_only)
    for _ in range(3):
        with pytest.raises(JournalError, match="read-only"):
            outbox.deliver(box, {"mail": relay}, NOW)
    assert relay.got == ["1"]

    monkeypatch.undo()
    relay.answer = fails()
    outbox.deliver(box, {"mail": relay}, NOW)

    # What came of the first is written down before anything else is sent.
    assert relay.got[:2] == ["1", "2" if answer is DONE else "3"]
    assert len(box.pending(9)) == left
    assert sorted(relay.got) == (["1", "2", "3"] if answer is DONE else ["1", "3"])


def test_what_came_of_a_parcel_of_a_book_that_is_no_more_is_no_other_parcels(box):
    queue(box, parcel("old", queued_at=NOW - 60))
    old = box.due("mail", NOW)
    os.unlink(box.journal.path)
    queue(box, parcel("new"))

    box.sent(old, NOW)

    assert box.due("mail", NOW) == parcel("new", id=1)


def test_what_is_done_with_stays_so(box):
    queue(box, parcel())
    one = box.due("mail", NOW)
    box.sent(one, NOW)

    box.put_off(one, "late", NOW)
    box.give_up(one, "late", NOW + 9)

    assert [(done.outcome, done.done_at) for done in box.history(9)] == [(outbox.SENT, NOW)]


# --------------------------------------------------------------------------------------------------
# Much


def test_ten_thousand_parcels_are_read_one_at_a_time(box):
    body = os.urandom(5000)
    queue(box, *(parcel(body, queued_at=NOW + n) for n in range(10_000)))
    sizes: Counter[int] = Counter()

    def take(one: Parcel) -> Delivery:
        sizes[len(one.body)] += 1
        return DONE

    stop = lambda: sizes.total() >= 500  # noqa: E731
    tracemalloc.start()
    try:
        outbox.deliver_lane(box, "mail", {"mail": take}, lambda: NOW, stop)
        box.lanes_due(NOW), box.next_at(), box.summary(), box.pending(100)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert sizes == {5000: 500}
    assert peak < 1_000_000
    assert [one.waiting for one in box.summary()] == [9500]


def test_a_long_lane_does_not_make_the_look_for_what_is_due_slow(box):
    queue(box, *(parcel(b"", f"lane{n % 3}") for n in range(30_000)))
    with box.journal.reading() as book:
        plan = " ".join(row["detail"] for row in book.rows(f"EXPLAIN QUERY PLAN {outbox.FIRSTS}"))

    assert box.lanes_due(NOW) == ("lane0", "lane1", "lane2")
    assert "SCAN outbox" not in plan
    assert "SCAN its" not in plan
