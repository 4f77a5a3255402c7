"""The watcher of a real server's VIPs: at once, by itself, and without leaving anything behind."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from saltext.lvs import arp, dummywatch, links, realserver, watch
from saltext.lvs.links import Duty

from tests.kernel.commands import ip
from tests.lab.waiting import until

pytestmark = pytest.mark.usefixtures("netns", "real_server")

VIPS = links.as_vips(["10.10.10.10", "fd00::10"])
DUTY = Duty("prod", "dummy0", VIPS, heals=True)
Sent = list[dict[str, Any]]


@pytest.fixture
def real_server(netns: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that holds its VIPs, after an apply."""
    monkeypatch.setattr(realserver, "REPAIR", str(tmp_path / "repair"))
    monkeypatch.setattr(realserver, "ASKED", str(tmp_path / "asked"))
    monkeypatch.setattr(realserver, "REPAIRED", str(tmp_path / "repaired"))
    monkeypatch.setattr(realserver, "RECORD", str(tmp_path / "state" / "dummy.json"))
    ip("link add eth0 type veth peer name far")
    ip("link set eth0 up")
    arp.silence()
    realserver.present(DUTY)


@pytest.fixture
def sent() -> Sent:
    """What the watcher has told."""
    return []


@pytest.fixture
def watching(sent: Sent) -> Iterator[Callable[..., watch.Watcher]]:
    """Start the watcher of a duty; it has had its first look when this returns."""
    begun: list[watch.Watcher] = []

    def begin(duty: Duty = DUTY, send: Callable[[Sent], None] = sent.extend) -> watch.Watcher:
        looked = threading.Event()

        def noted(events: Sent) -> None:
            try:
                send(events)
            finally:
                # The state comes last.
                if any(event["tag"] == "state" for event in events):
                    looked.set()

        watcher = watch.Watcher(dummywatch.Memory(duty=duty), "rs1", noted)
        begun.append(watcher)
        watcher.start(repeat=3600)
        assert looked.wait(10)
        return watcher

    yield begin
    assert all(watcher.stop() for watcher in begun)
    for watcher in begun:
        watcher._teller.end()


def changes(sent: Sent) -> list[dict[str, Any]]:
    return [change for event in sent if event["tag"] == "change" for change in event["changes"]]


def in_short(sent: Sent) -> list[tuple[Any, ...]]:
    return [(change["address"], change["now"], change["repaired"]) for change in changes(sent)]


def lacking() -> tuple[links.Interface, ...]:
    return links.lacking(realserver.rtnetlink.read("dummy0"), VIPS)


HARMS = {
    "the interface deleted": ("link delete dummy0", ["10.10.10.10", "fd00::10"]),
    "one VIP removed": ("address delete 10.10.10.10/32 dev dummy0", ["10.10.10.10"]),
    "the interface down: IPv6 is gone": ("link set dummy0 down", ["fd00::10"]),
}


@pytest.mark.parametrize(("harm", "lost"), HARMS.values(), ids=HARMS.keys())
def test_a_loss_is_told_before_it_is_put_right_and_the_return_after(
    harm: str, lost: list[str], watching: Callable[..., watch.Watcher], sent: Sent
) -> None:
    watching()
    sent.clear()
    ip(harm)
    until(lambda: len(sent) == 2, "the events", seconds=5)
    assert [(event["acted"], event["healing"]) for event in sent] == [(False, True), (True, False)]
    assert in_short(sent) == [
        *((address, "lost", False) for address in lost),
        *((address, "restored", True) for address in lost),
    ]
    assert lacking() == ()


def test_who_leaves_it_to_the_reactor_only_tells(
    watching: Callable[..., watch.Watcher], sent: Sent
) -> None:
    watching(replace(DUTY, heals=False))
    sent.clear()
    ip("link delete dummy0")
    until(lambda: changes(sent), "the event", seconds=5)
    time.sleep(1.5)
    assert [(event["acted"], len(event["changes"])) for event in sent] == [(False, 2)]
    assert lacking() == VIPS
    realserver.present(DUTY)
    until(lambda: len(sent) > 1, "the event of the return", seconds=5)
    assert {change["now"] for change in sent[-1]["changes"]} == {"restored"}


ALL_IGNORE, CARD_IGNORE = (
    f"/proc/sys/net/ipv4/conf/{interface}/arp_ignore" for interface in ("all", "eth0")
)
FLIPS = {
    "for all": (ALL_IGNORE, "0", [("all", 1, 0, False), ("all", 0, 1, True)]),
    "on the card alone, to a value that is larger and no stronger": (
        CARD_IGNORE,
        "3",
        [("eth0", 0, 3, False), ("eth0", 3, 1, True)],
    ),
}


@pytest.mark.parametrize(("path", "value", "expected"), FLIPS.values(), ids=FLIPS.keys())
def test_settings_that_are_changed_back_are_right_again_within_two_seconds(
    path: str,
    value: str,
    expected: list[tuple[Any, ...]],
    watching: Callable[..., watch.Watcher],
    sent: Sent,
) -> None:
    watching()
    sent.clear()
    Path(path).write_text(value)
    until(lambda: len(sent) == 2, "the events", seconds=3)
    assert [
        (change["sysctl"], change["was"], change["now"], change["quiet"])
        for change in changes(sent)
    ] == [(f"net.ipv4.conf.{name}.arp_ignore", *more) for name, *more in expected]
    assert [(event["acted"], event["healing"]) for event in sent] == [(False, True), (True, False)]
    assert Path(path).read_text() == "1\n"


def test_who_leaves_it_to_the_reactor_leaves_settings_too(
    watching: Callable[..., watch.Watcher], sent: Sent
) -> None:
    watching(replace(DUTY, heals=False))
    sent.clear()
    Path(ALL_IGNORE).write_text("0")
    until(lambda: changes(sent), "the event", seconds=3)
    time.sleep(1.5)
    assert [(event["acted"], event["healing"]) for event in sent] == [(False, False)]
    assert Path(ALL_IGNORE).read_text() == "0\n"


def test_a_repair_that_fails_is_told_with_the_reason(
    watching: Callable[..., watch.Watcher], sent: Sent
) -> None:
    watching()
    sent.clear()
    ip("link delete dummy0")
    until(lambda: len(sent) == 2 and lacking() == (), "the first repair", seconds=5)
    Path("/proc/sys/net/ipv6/conf/dummy0/disable_ipv6").write_text("1")
    until(lambda: len(sent) == 4, "the events of the failure", seconds=5)
    assert [(event["acted"], event["healing"]) for event in sent[2:]] == [
        (False, True),
        (False, False),
    ]
    (failed,) = sent[3]["changes"]
    assert (failed["address"], failed["was"], failed["now"]) == ("fd00::10", "lost", "lost")
    assert failed["problem"].startswith("cannot add fd00::10/128 to dummy0: Permission denied")


def test_what_is_taken_away_again_and_again_is_left_alone_and_a_person_told(
    watching: Callable[..., watch.Watcher], sent: Sent
) -> None:
    watching()
    sent.clear()
    for times in range(1, dummywatch.REPAIRS_IN_A_MINUTE + 1):
        ip("link delete dummy0")
        until(lambda: len(sent) == 2 * times, f"repair {times}", seconds=5)  # noqa: B023
        assert sent[-1]["acted"] is True
    ip("link delete dummy0")
    until(lambda: len(sent) == 2 * dummywatch.REPAIRS_IN_A_MINUTE + 1, "the last event", seconds=5)
    assert (sent[-1]["acted"], sent[-1]["healing"]) == (False, False)
    for change in sent[-1]["changes"]:
        assert change["now"] == "lost"
        assert change["problem"].startswith("put right 3 times in a minute")
    time.sleep(1.5)
    assert lacking() == VIPS


def test_it_goes_on_when_the_minute_is_over(
    watching: Callable[..., watch.Watcher], sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dummywatch, "MINUTE_SECONDS", 2.0)
    watcher = watching()
    now = time.monotonic()
    watcher._memory.repairs[dummywatch.Harm.VIPS].extend([now] * dummywatch.REPAIRS_IN_A_MINUTE)
    ip("link delete dummy0")
    until(lambda: lacking() == (), "the repair", seconds=6)
    assert time.monotonic() - now >= 2.0


def test_what_cannot_be_sent_comes_with_the_next_tick(
    watching: Callable[..., watch.Watcher],
) -> None:
    def refuse(_: Sent) -> None:
        raise OSError("no bus")

    watcher = watching(send=refuse)
    until(lambda: watcher._teller._unsent, "the first state")
    watcher.poll(3600)
    ip("link delete dummy0")
    until(lambda: len(watcher._teller._unsent) == 2, "the events", seconds=5)
    assert len(changes(watcher.poll(3600))) == 4
    assert watcher.poll(3600) == []


def test_a_bus_that_hangs_holds_up_no_repair(
    watching: Callable[..., watch.Watcher], sent: Sent
) -> None:
    answers = threading.Event()

    def hang(events: Sent) -> None:
        sent.extend(events)
        if changes(events):
            answers.wait(20)

    watcher = watching(send=hang)
    ip("link delete dummy0")
    until(lambda: changes(sent), "the first event", seconds=5)
    until(lambda: lacking() == (), "the repair", seconds=5)
    assert [change["now"] for change in changes(sent)] == ["lost", "lost"]
    answers.set()
    until(lambda: len(changes(sent)) == 4, "the event of the repair", seconds=5)
    assert watcher.poll(3600) == []


def test_a_refresh_while_the_bus_hangs_waits_for_nothing_and_loses_nothing() -> None:
    answers, told = threading.Event(), []

    def hang(events: Sent) -> None:
        answers.wait(20)
        told.extend(event["tag"] for event in events)

    watch.memory("hanging", dummywatch.Memory).duty = DUTY
    threads = threading.active_count()
    began = time.monotonic()
    try:
        for _ in range(5):
            watch.watch("hanging", dummywatch.Memory, "rs1", 30, lambda: hang)
            time.sleep(0.1)
            watch.unwatch("hanging")
        assert time.monotonic() - began < 2.5
        assert threading.active_count() == threads + 1
    finally:
        answers.set()
        watch.release()
        watch.memories.pop("hanging")
    assert told == ["state"]
    assert threading.active_count() == threads


def test_a_bus_that_hangs_for_long_gets_the_later_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "MOST_EVENTS", 3)
    begun, answers, told = threading.Event(), threading.Event(), []

    def hang(events: Sent) -> None:
        begun.set()
        answers.wait(20)
        told.extend(event["seq"] for event in events)

    teller = watch.Teller(hang)
    teller.start()
    teller.tell({"seq": 0})
    assert begun.wait(5)
    for number in range(1, 8):
        teller.tell({"seq": number})
    answers.set()
    teller.end()
    assert teller.ended(5)
    assert told == [0, 5, 6, 7]


def test_more_changes_than_the_kernel_can_queue_do_not_end_it(
    watching: Callable[..., watch.Watcher], sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = threading.Event()
    looked = dummywatch.look

    def slow_look(*arguments: Any, **more: Any) -> Any:
        held.wait(10)
        return looked(*arguments, **more)

    watcher = watching()
    sent.clear()
    monkeypatch.setattr(dummywatch, "look", slow_look)
    ip("link add many type dummy")
    lines = [f"address add 10.77.{n // 250}.{n % 250 + 1}/32 dev many" for n in range(2500)]
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)
    ip("link delete dummy0")
    held.set()
    until(lambda: lacking() == (), "the repair", seconds=10)
    assert watcher.alive()


def test_starting_and_ending_it_leaves_nothing_behind() -> None:
    def open_now() -> int:
        return len(os.listdir("/proc/self/fd"))

    def once() -> None:
        watch.watch("again", dummywatch.Memory, "rs1", 30, lambda: lambda _: None)
        watch.unwatch("again")

    once()
    before, threads = open_now(), threading.active_count()
    for _ in range(50):
        once()
    assert (open_now(), threading.active_count()) == (before, threads)


def test_a_tick_finds_the_one_that_runs_and_the_next_one_after_its_end() -> None:
    try:
        watch.watch("ticks", dummywatch.Memory, "rs1", 30, lambda: lambda _: None)
        first = watch.watchers["ticks"]
        watch.watch("ticks", dummywatch.Memory, "rs1", 30, lambda: lambda _: None)
        assert watch.watchers["ticks"] is first
        first.stop()
        watch.watch("ticks", dummywatch.Memory, "rs1", 30, lambda: lambda _: None)
        assert watch.watchers["ticks"].alive()
        watch.release()
        assert watch.watchers == {}
        assert not any(thread.name.startswith("lvs-") for thread in threading.enumerate())
    finally:
        watch.unwatch("ticks")


def test_without_a_tick_for_long_it_ends_by_itself(
    watching: Callable[..., watch.Watcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = watching()
    monkeypatch.setattr(watch, "DESERTED_SECONDS", 0.0)
    until(lambda: not watcher.alive(), "its end", seconds=5)


def test_a_forked_job_neither_runs_it_nor_ends_it(
    watching: Callable[..., watch.Watcher], sent: Sent
) -> None:
    watcher = watching()
    sent.clear()
    child = os.fork()
    if child == 0:
        os._exit(0 if not watcher.alive() and watcher.stop() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    ip("link delete dummy0")
    until(lambda: changes(sent), "the event", seconds=5)
    assert watcher.alive()
