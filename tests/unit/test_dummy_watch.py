"""The envelope of events, the turns of repairs, and what a watcher keeps between two looks."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from saltext.lvs import dummywatch, events, links, locking, watch
from saltext.lvs.errors import InvalidConfig

PILLAR = {
    "lvs": {
        "name": "prod",
        "directors": {"lb1": {}},
        "real_servers": {"rs1": {"address": "10.10.10.41"}},
        "virtual_servers": {
            "web": {"address": "10.10.10.10", "port": 80, "real_servers": {"rs1": {}}}
        },
    }
}


def test_an_event_is_known_by_who_tells_it_the_boot_and_its_number() -> None:
    first = events.event("change", "rs1", "prod", 1795350411.543, changes=[])
    second = events.event("state", "rs1", "prod", 1795350412.0, quiet=True)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert first == {
        "tag": "change",
        "id": "rs1",
        "cluster": "prod",
        "boot_id": boot,
        "seq": second["seq"] - 1,
        "at": 1795350411.543,
        "changes": [],
    }


def test_numbers_go_on_above_those_of_an_earlier_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_numbers", None)
    earlier = [events.next_number() for _ in range(3)]
    # A minion takes far longer than this to start anew.
    time.sleep(0.01)
    monkeypatch.setattr(events, "_numbers", None)
    later = [events.next_number() for _ in range(3)]
    assert [*earlier, *later] == sorted({*earlier, *later})


def test_a_pillar_is_asked_for_once_in_five_seconds() -> None:
    memory = dummywatch.Memory()
    asked = [now for now in (0.0, 1.0, 4.9, 5.0, 9.0, 11.0) if watch.should_ask(memory, now)]
    assert asked == [0.0, 5.0, 11.0]


def test_a_watcher_learns_its_duty_from_the_pillar() -> None:
    memory = dummywatch.Memory()
    dummywatch.brief(memory, PILLAR, "rs1")
    assert memory.duty is not None
    assert memory.duty.cluster == "prod"
    assert memory.duty.interface == "dummy0"
    assert memory.duty.vips == links.as_vips(["10.10.10.10"])
    assert str(memory.duty.address) == "10.10.10.41"


def test_a_wrong_pillar_is_told_once_and_the_last_right_one_kept_to() -> None:
    memory = dummywatch.Memory()
    dummywatch.brief(memory, PILLAR, "rs1")
    right = memory.duty
    wrong = {"lvs": {"vip_interface": "an interface with spaces"}}
    with pytest.raises(InvalidConfig):
        dummywatch.brief(memory, wrong, "rs1")
    dummywatch.brief(memory, wrong, "rs1")
    dummywatch.brief(memory, {}, "rs1")
    assert memory.duty == right


def test_a_new_object_of_the_same_pillar_is_no_new_pillar() -> None:
    memory = dummywatch.Memory()
    wrong = {"vip_interface": "an interface with spaces"}
    with pytest.raises(InvalidConfig):
        dummywatch.brief(memory, {"lvs": wrong}, "rs1")
    dummywatch.brief(memory, {"lvs": dict(wrong)}, "rs1")


def test_who_must_hold_no_vip_has_nothing_to_tell() -> None:
    memory = dummywatch.Memory()
    assert list(dummywatch.look(memory, "lb1", repeat=30)) == []
    dummywatch.brief(memory, PILLAR, "lb1")
    assert list(dummywatch.look(memory, "lb1", repeat=30)) == []


def test_one_is_at_work_one_in_line_and_the_next_goes_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "lock")
    asked, go_on = threading.Semaphore(0), threading.Event()
    turns: list[bool] = []
    locked = locking._locked

    def noted(descriptor: int, wait: bool) -> bool:
        if wait:
            asked.release()
        return locked(descriptor, wait)

    def work() -> None:
        with locking.turn(path) as ours:
            turns.append(ours)
            go_on.wait(10)

    monkeypatch.setattr(locking, "_locked", noted)
    workers = [threading.Thread(target=work) for _ in range(2)]
    try:
        for worker in workers:
            worker.start()
            assert asked.acquire(timeout=5)
            # The first has to be at work before there is a line to stand in.
            _wait_until(lambda: bool(turns))
        with locking.turn(path) as third:
            assert third is False
        assert turns == [True]
    finally:
        go_on.set()
        for worker in workers:
            worker.join(10)
    assert turns == [True, True]


def _wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.001)


def _is_free(path: str) -> bool:
    with locking.exclusive(path, wait=False) as got:
        return got


def test_a_lock_that_a_fork_has_inherited_is_free_when_it_is_given_back(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    with locking.exclusive(path):
        child = os.fork()
        if not child:
            time.sleep(30)
            os._exit(0)
        assert not _is_free(path)
    try:
        assert _is_free(path)
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_what_fails_for_good_is_tried_ever_more_seldom_and_never_stops_being_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise InvalidConfig("x", 1, "2")

    monkeypatch.setattr(dummywatch.realserver, "heal", refuse)
    memory = dummywatch.Memory(duty=links.Duty("prod", "dummy0", ()))
    pauses = []
    for _ in range(3000):
        dummywatch._healed(memory, links.Duty("prod", "dummy0", ()), {dummywatch.Harm.VIPS})
        pauses.append(round(memory.again - time.monotonic()))
    assert pauses[:8] == [10, 20, 40, 80, 160, 320, 600, 600]
    assert set(pauses[8:]) == {600}
