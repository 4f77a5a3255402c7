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
from saltext.lvs import arp, links, realserver, watch
from saltext.lvs.links import Duty

from tests.lab.waiting import until

pytestmark = pytest.mark.usefixtures("netns", "real_server")

VIPS = links.as_vips(["10.10.10.10", "fd00::10"])
DUTY = Duty("prod", "dummy0", VIPS, heals=True)
Sent = list[dict[str, Any]]


def ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True, capture_output=True)


@pytest.fixture
def real_server(netns: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that holds its VIPs, after an apply."""
    monkeypatch.setattr(realserver, "REPAIR", str(tmp_path / "repair"))
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
        watcher = watch.Watcher(watch.Memory(duty=duty), "rs1", send)
        begun.append(watcher)
        watcher.start(repeat=3600)
        until(lambda: watcher._memory.known.vips, "the first look")
        return watcher

    yield begin
    assert all(watcher.stop() for watcher in begun)


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
def test_what_is_lost_is_back_at_once_and_told_in_one_event(
    harm: str, lost: list[str], watching: Callable[..., watch.Watcher], sent: Sent
) -> None:
    watching()
    sent.clear()
    ip(harm)
    until(lambda: changes(sent), "the event", seconds=5)
    (event,) = sent
    assert event["acted"] is True
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


def test_settings_that_are_changed_back_are_seen_within_two_seconds(
    watching: Callable[..., watch.Watcher], sent: Sent
) -> None:
    watching()
    sent.clear()
    Path("/proc/sys/net/ipv4/conf/all/arp_ignore").write_text("0")
    until(lambda: changes(sent), "the event", seconds=3)
    (change,) = changes(sent)
    assert (change["sysctl"], change["now"], change["quiet"]) == (
        "net.ipv4.conf.all.arp_ignore",
        0,
        False,
    )


def test_what_is_taken_away_again_and_again_is_left_alone_and_a_person_told(
    watching: Callable[..., watch.Watcher], sent: Sent
) -> None:
    watching()
    sent.clear()
    for times in range(1, watch.REPAIRS_IN_A_MINUTE + 1):
        ip("link delete dummy0")
        until(lambda: len(sent) == times, f"repair {times}", seconds=5)  # noqa: B023
        assert sent[-1]["acted"] is True
    ip("link delete dummy0")
    until(lambda: len(sent) == watch.REPAIRS_IN_A_MINUTE + 1, "the last event", seconds=5)
    assert sent[-1]["acted"] is False
    for change in sent[-1]["changes"]:
        assert change["now"] == "lost"
        assert change["problem"].startswith("put back 3 times in a minute")
    time.sleep(1.5)
    assert lacking() == VIPS


def test_it_goes_on_when_the_minute_is_over(
    watching: Callable[..., watch.Watcher], sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "MINUTE_SECONDS", 2.0)
    watcher = watching()
    now = time.monotonic()
    watcher._memory.repairs.extend([now] * watch.REPAIRS_IN_A_MINUTE)
    ip("link delete dummy0")
    until(lambda: lacking() == (), "the repair", seconds=6)
    assert time.monotonic() - now >= 2.0


def test_what_cannot_be_sent_comes_with_the_next_tick(
    watching: Callable[..., watch.Watcher],
) -> None:
    def refuse(_: Sent) -> None:
        raise OSError("no bus")

    watcher = watching(send=refuse)
    until(lambda: watcher._unsent, "the first state")
    watcher.poll(3600)
    ip("link delete dummy0")
    until(lambda: watcher._unsent, "the event", seconds=5)
    assert len(changes(watcher.poll(3600))) == 4
    assert watcher.poll(3600) == []


def test_more_changes_than_the_kernel_can_queue_do_not_end_it(
    watching: Callable[..., watch.Watcher], sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = threading.Event()
    looked = watch.look

    def slow_look(*arguments: Any, **more: Any) -> Any:
        held.wait(10)
        return looked(*arguments, **more)

    watcher = watching()
    sent.clear()
    monkeypatch.setattr(watch, "look", slow_look)
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
        watch.watch("again", "rs1", 30, lambda _: None)
        watch.unwatch("again")

    once()
    before, threads = open_now(), threading.active_count()
    for _ in range(50):
        once()
    assert (open_now(), threading.active_count()) == (before, threads)


def test_a_tick_finds_the_one_that_runs_and_the_next_one_after_its_end() -> None:
    try:
        watch.watch("ticks", "rs1", 30, lambda _: None)
        first = watch.watchers["ticks"]
        watch.watch("ticks", "rs1", 30, lambda _: None)
        assert watch.watchers["ticks"] is first
        first.stop()
        watch.watch("ticks", "rs1", 30, lambda _: None)
        assert watch.watchers["ticks"].alive()
        watch.release()
        assert watch.watchers == {}
        assert not any(thread.name == "lvs-dummy-watch" for thread in threading.enumerate())
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
