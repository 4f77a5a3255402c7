"""When checks run: laws of the schedule, on a clock that tests turn."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Hashable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from saltext.lvs.pacing import Pace, Schedule

INTERVALS = st.sampled_from([0.05, 1.0, 2.0, 10.0, 86400.0])
SEEDS = st.integers(0, 2**32)
STEPS = 20


def started(schedule: Schedule, until: float, took: float = 0.0) -> list[tuple[float, Hashable]]:
    """Let time pass, from one turn to the next, up to a moment; every check takes so long."""
    found: list[tuple[float, Hashable]] = []
    running: list[tuple[float, int, Hashable]] = []
    serial = itertools.count()
    while True:
        turn = schedule.next_at()
        ends = running[0][0] if running else float("inf")
        now = min(ends, float("inf") if turn is None else turn)
        if now > until:
            return found
        while running and running[0][0] <= now:
            schedule.done(heapq.heappop(running)[2], now)
        for key in schedule.due(now):
            found.append((now, key))
            heapq.heappush(running, (now + took, next(serial), key))


def schedule_of(count: int, pace: Pace, seed: int = 1) -> Schedule:
    schedule = Schedule(seed)
    schedule.set(dict.fromkeys(range(count), pace), 0.0)
    return schedule


@given(count=st.integers(1, 60), interval=INTERVALS, seed=SEEDS)
def test_every_check_has_one_turn_in_each_interval(count: int, interval: float, seed: int) -> None:
    found = started(
        schedule_of(count, Pace(interval, jitter=0), seed), interval * STEPS * (1 - 1e-12)
    )
    assert Counter(key for _, key in found) == dict.fromkeys(range(count), STEPS)


@given(
    count=st.integers(1, 40),
    interval=INTERVALS,
    jitter=st.floats(0, 1),
    seed=SEEDS,
    slow=st.floats(0, 5),
)
@settings(max_examples=60)
def test_jitter_and_slowness_never_make_turns_more_frequent(
    count: int, interval: float, jitter: float, seed: int, slow: float
) -> None:
    took = slow * interval
    found = started(schedule_of(count, Pace(interval, jitter), seed), interval * STEPS, took)
    for key in range(count):
        times = [when for when, who in found if who == key]
        # Jitter may bring two turns together, but not three.
        assert len(times) <= STEPS + 1
        assert all(later - sooner >= took * 0.999 for sooner, later in itertools.pairwise(times))
        late = max((when % interval for when in times), default=0)
        assert late <= interval


@given(count=st.sampled_from([10, 100, 1000, 5000]), seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_checks_are_spread_evenly_over_the_interval(count: int, seed: int) -> None:
    found = started(schedule_of(count, Pace(10.0, jitter=0), seed), 9.9999999)
    tenths = Counter(int(when) for when, _ in found)
    assert all(abs(tenths[number] - count / 10) <= 3 for number in range(10))


@given(count=st.integers(1, 200), seed=SEEDS, warmup=st.sampled_from([0.0, 0.5, 1.0]))
def test_with_a_warmup_all_begin_within_it_and_are_spread_afterwards(
    count: int, seed: int, warmup: float
) -> None:
    found = started(schedule_of(count, Pace(10.0, jitter=0, warmup=warmup), seed), 30.0)
    assert {key for when, key in found if when <= warmup} == set(range(count))
    tenths = Counter(int(when) for when, _ in found if 20 <= when < 30)
    assert all(abs(tenths[number] - count / 10) <= 3 for number in range(20, 30))


@given(seed=SEEDS, stood=st.floats(2, 1000), count=st.integers(1, 200))
def test_after_a_standstill_nobody_runs_at_once_and_nobody_twice(
    seed: int, stood: float, count: int
) -> None:
    schedule = schedule_of(count, Pace(10.0, jitter=0), seed)
    started(schedule, 25.0)
    woken = 25.0 + stood * 10
    assert schedule.due(woken) == []
    found = started(schedule, woken + 9.99999)
    assert Counter(key for _, key in found) == dict.fromkeys(range(count), 1)
    assert all(abs(n - count / 10) <= 3 for n in Counter(int(w - woken) for w, _ in found).values())


@given(
    seed=SEEDS,
    before=st.sets(st.integers(0, 30)),
    after=st.sets(st.integers(0, 30)),
    at=st.floats(0, 50),
)
def test_another_set_leaves_those_alone_that_are_in_both(
    seed: int, before: set[int], after: set[int], at: float
) -> None:
    pace = Pace(10.0, jitter=0)
    changed, same = Schedule(seed), Schedule(seed)
    for schedule in (changed, same):
        schedule.set(dict.fromkeys(sorted(before), pace), 0.0)
        started(schedule, at)
    changed.set(dict.fromkeys(sorted(after), pace), at)
    found = started(changed, at + 10.0)
    kept = before & after
    assert [(w, k) for w, k in found if k in kept] == [
        (w, k) for w, k in started(same, at + 10.0) if k in kept
    ]
    assert {key for _, key in found} == after
    assert len(changed) == len(after)


def test_one_that_runs_while_its_pace_changes_is_not_begun_twice() -> None:
    schedule = Schedule(1)
    schedule.set({"web": Pace(1.0, jitter=0)}, 0.0)
    assert schedule.due(1.0) == ["web"]
    schedule.set({"web": Pace(0.1, jitter=0)}, 1.0)
    assert (schedule.due(50.0), schedule.next_at()) == ([], None)
    schedule.done("web", 50.0)
    assert schedule.next_at() == pytest.approx(50.05, abs=0.05)


def test_one_that_is_taken_out_while_it_runs_does_not_come_back() -> None:
    schedule = Schedule(1)
    schedule.set({"web": Pace(1.0)}, 0.0)
    assert schedule.due(1.0) == ["web"]
    schedule.set({}, 1.0)
    schedule.done("web", 2.0)
    assert (schedule.due(9.0), schedule.next_at()) == ([], None)


def test_a_bad_one_may_be_asked_again_sooner_and_finds_its_place_again() -> None:
    schedule = Schedule(1)
    schedule.set({"web": Pace(10.0, jitter=0)}, 0.0)
    first = schedule.next_at()
    assert first is not None and schedule.due(first) == ["web"]
    schedule.done("web", first + 1, again_in=2.0)
    assert schedule.next_at() == first + 3
    assert schedule.due(first + 3) == ["web"]
    schedule.done("web", first + 4)
    assert schedule.next_at() == pytest.approx(first + 10)


def test_only_so_many_at_a_time_are_begun() -> None:
    schedule = schedule_of(10, Pace(1.0, warmup=0.0, jitter=0))
    assert [len(schedule.due(0.0, 4)) for _ in range(4)] == [4, 4, 2, 0]


def test_the_same_seed_gives_the_same_turns() -> None:
    ones, others = (started(schedule_of(20, Pace(1.0), seed), 9.0) for seed in (7, 7))
    assert ones == others != started(schedule_of(20, Pace(1.0), 8), 9.0)


@pytest.mark.parametrize(
    ("interval", "jitter", "warmup"),
    [
        (0, 0, None),
        (-1, 0, None),
        (float("nan"), 0, None),
        (1, -0.1, None),
        (1, 1.1, None),
        (1, 0, -1),
    ],
    ids=["no interval", "a negative one", "none at all", "less", "too much jitter", "before"],
)
def test_a_pace_that_cannot_be_kept_is_refused(
    interval: float, jitter: float, warmup: float | None
) -> None:
    with pytest.raises(ValueError, match="cannot be kept"):
        Pace(interval, jitter, warmup)
