"""The machine that turns verdicts into a state: its table, counts, holds, and laws."""

import timeit
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from saltext.lvs import health
from saltext.lvs.health import SERVES, TRANSITIONS, WORST, Health, Rules, State

UNKNOWN, UP, FALLING, DOWN, RISING, HELD = State

THREE = Rules(rise=3, fall=3)
# The second fall within a hundred seconds has to wait: 10 s, then 20, 40, and no more.
DAMPED = Rules(flaps=2, within=100, hold=10, longest_hold=40)


def run(rules, verdicts, start=1.0, health_=None, step=1.0):
    """What is known after verdicts one second apart: + good, - bad, ? could not be asked."""
    known, at = health_ or Health(), start
    for sign in verdicts:
        ok = {"+": True, "-": False, "?": None}[sign]
        known, at = health.step(known, rules, ok, f"said {sign}", at, 0.5), at + step
    return known


# --------------------------------------------------------------------------------------------------
# Counts


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        pytest.param("+", UP, id="the first good verdict decides"),
        pytest.param("--", UNKNOWN, id="the first bad verdicts must be enough"),
        pytest.param("---", DOWN, id="enough bad verdicts from the start"),
        pytest.param("--+", UP, id="a good verdict before enough bad ones"),
        pytest.param("???", UNKNOWN, id="nothing is known without an answer"),
        pytest.param("+-", FALLING, id="a bad verdict"),
        pytest.param("+--", FALLING, id="too few bad verdicts"),
        pytest.param("+---", DOWN, id="enough bad verdicts"),
        pytest.param("+--+", UP, id="a good verdict in between"),
        pytest.param("+--+--", FALLING, id="bad verdicts count anew after a good one"),
        pytest.param("+-?-", FALLING, id="what could not be asked is no bad verdict"),
        pytest.param("+-?--", DOWN, id="what could not be asked is no good verdict"),
        pytest.param("+---+", RISING, id="a good verdict after a fall"),
        pytest.param("+---++", RISING, id="too few good verdicts"),
        pytest.param("+---+++", UP, id="enough good verdicts"),
        pytest.param("+---++-", DOWN, id="a bad verdict in between"),
        pytest.param("+---++-++", RISING, id="good verdicts count anew after a bad one"),
        pytest.param("+---+??++", UP, id="what could not be asked does not undo good verdicts"),
        pytest.param("+???????", UP, id="up stays so while nobody can ask"),
        pytest.param("---???????", DOWN, id="down stays so while nobody can ask"),
    ],
)
def test_three_verdicts_in_a_row_change_a_state(verdicts, expected):
    assert run(THREE, verdicts).state is expected


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        pytest.param("+", UP, id="up"),
        pytest.param("-", DOWN, id="down"),
        pytest.param("+-", DOWN, id="down by the first bad verdict"),
        pytest.param("+-+", UP, id="up by the first good verdict"),
    ],
)
def test_one_verdict_is_enough_unless_said_otherwise(verdicts, expected):
    assert run(Rules(), verdicts).state is expected


def test_all_that_is_known_is_told():
    assert run(THREE, "+---++") == Health(
        state=RISING,
        since=4.0,
        reason="said +",
        count=2,
        checked=6.0,
        milliseconds=0.5,
        falls=(4.0,),
    )
    assert run(THREE, "+-??") == Health(
        state=FALLING,
        since=1.0,
        reason="said ?",
        count=1,
        checked=4.0,
        milliseconds=0.5,
        unasked=2,
    )


def test_it_has_served_since_it_began_to_whatever_single_verdicts_said():
    assert [run(THREE, "+++--+++"[:length]).since for length in range(1, 9)] == [1.0] * 8
    assert run(THREE, "---++-++").since == 3.0
    assert run(THREE, "---++-+++").since == 9.0


def test_rules_that_changed_count_what_was_counted_before():
    assert health.step(run(THREE, "+-"), Rules(fall=2), False, "", 9).state is DOWN
    assert health.step(run(THREE, "---+"), Rules(rise=2), True, "", 9).state is UP


def test_the_table_knows_each_state_and_verdict():
    assert set(TRANSITIONS) == {(state, ok) for state in State for ok in (True, False)}
    assert set(SERVES) == set(WORST) == set(State)


@pytest.mark.parametrize(
    ("state", "expected"),
    [(UNKNOWN, None), (UP, True), (FALLING, True), (DOWN, False), (RISING, False), (HELD, False)],
    ids=lambda value: value.value if isinstance(value, State) else str(value),
)
def test_who_may_have_clients(state, expected):
    assert health.serves(state) is expected


# --------------------------------------------------------------------------------------------------
# Holds


def test_a_first_fall_does_not_wait():
    assert run(DAMPED, "+-+").state is UP


def test_the_fall_too_many_waits_before_it_is_back():
    held = run(DAMPED, "+-+-+")

    assert (held.state, held.held_until, held.hold, held.since) == (HELD, 15.0, 10, 4.0)
    assert held.falls == (2.0, 4.0)
    assert run(DAMPED, "+++++++++", 6, held).state is HELD
    assert run(DAMPED, "++++++++++", 6, held) == Health(
        UP, 15.0, "said +", 0, 15.0, 0.5, (2.0, 4.0), None, 10
    )


def test_a_fall_long_ago_does_not_count():
    risen = run(DAMPED, "+-+")

    assert run(DAMPED, "-+", 101, risen).state is HELD
    assert run(DAMPED, "-+", 103, risen).state is UP


def test_without_flaps_nobody_waits():
    never = replace(DAMPED, flaps=0)

    assert run(never, "+" + "-+" * 50) == Health(UP, 101.0, "said +", 0, 101.0, 0.5, (100.0,))


def hold_again(known):
    """It fails, is back, waits to the end, and is up: what is known then."""
    held = run(DAMPED, "-++", known.checked + 1, known)
    assert held.state is HELD
    return health.step(held, DAMPED, True, "", held.held_until, 0.5)


def test_each_wait_is_twice_as_long_as_the_one_before_and_none_is_too_long():
    known, waits = run(DAMPED, "+-+"), []
    for _ in range(4):
        known = hold_again(known)
        assert known.state is UP
        waits.append(known.hold)

    assert waits == [10, 20, 40, 40]


def test_after_it_has_served_long_enough_all_falls_are_forgotten():
    up = hold_again(hold_again(run(DAMPED, "+-+")))

    soon = run(DAMPED, "-", up.since + 99, up)
    late = run(DAMPED, "-", up.since + 100, up)

    assert (soon.hold, late.hold) == (40, 0)
    assert late.falls == (up.since + 100,)


def test_a_failure_while_it_waits_makes_it_wait_anew():
    held = run(DAMPED, "+-+-+")

    down = run(DAMPED, "-", 7, held)
    again = run(DAMPED, "-+", 7, held)

    assert (down.state, down.since, down.held_until, down.hold) == (DOWN, 4.0, None, 20)
    assert (again.state, again.since, again.held_until) == (HELD, 4.0, 28.0)


@pytest.mark.parametrize(
    ("verdicts", "at", "expected"),
    [
        pytest.param("+", 14.9, HELD, id="its time is not over"),
        pytest.param("+", 15.0, UP, id="its time is over"),
        pytest.param("", 99.0, HELD, id="nobody has found it good meanwhile"),
        pytest.param("??", 99.0, HELD, id="nobody could ask meanwhile"),
        pytest.param("+?", 15.0, UP, id="nobody could ask lately"),
        pytest.param("-", 99.0, DOWN, id="it has failed meanwhile"),
    ],
)
def test_a_wait_ends_by_itself_if_it_was_found_good(verdicts, at, expected):
    held = run(DAMPED, verdicts, 6, run(DAMPED, "+-+-+"))

    known = health.tick(held, DAMPED, at)

    assert known.state is expected
    assert (known is held) == (known.state is held.state)
    if expected is UP:
        assert (known.since, known.held_until, known.count) == (at, None, 0)


def test_a_wait_ends_at_once_where_nobody_has_to_wait_any_more():
    held = run(DAMPED, "+-+-+")

    assert health.step(held, replace(DAMPED, flaps=0), True, "", 6).state is UP


# --------------------------------------------------------------------------------------------------
# Several checks


def of(state, since=5.0, **values):
    return Health(state, since, state.value, **values)


@pytest.mark.parametrize(
    ("healths", "expected"),
    [
        pytest.param([], Health(), id="no check at all"),
        pytest.param([of(UP)], of(UP), id="one check"),
        pytest.param([of(UP, 3), of(UP, 7)], of(UP, 7), id="it serves since the last of them"),
        pytest.param([of(UP, 7), of(FALLING, 3)], of(FALLING, 7), id="one of them is falling"),
        pytest.param([of(UP), of(UNKNOWN, 0)], of(UNKNOWN, 0), id="one is not known yet"),
        pytest.param([of(FALLING), of(UNKNOWN, 0)], of(UNKNOWN, 0), id="falling, and not known"),
        pytest.param([of(RISING), of(UNKNOWN, 0)], of(RISING), id="rising, and not known"),
        pytest.param([of(DOWN), of(UNKNOWN, 0)], of(DOWN), id="down, and not known"),
        pytest.param([of(DOWN, 7), of(DOWN, 3)], of(DOWN, 3), id="down since the first of them"),
        pytest.param([of(DOWN, 7), of(HELD, 3)], of(DOWN, 3), id="out since the first of them"),
        pytest.param([of(HELD, 7), of(RISING, 3), of(UP)], of(HELD, 3), id="held, and rising"),
        pytest.param(
            [of(UP), of(UNKNOWN, 0, unasked=2)],
            of(UNKNOWN, 0, unasked=2),
            id="one could not be asked yet",
        ),
        pytest.param(
            [of(UP), of(UNKNOWN, 0, unasked=3)], of(UP), id="one can never be asked, it seems"
        ),
        pytest.param(
            [of(UNKNOWN, 0, unasked=3)], of(UNKNOWN, 0, unasked=3), id="the only one is never asked"
        ),
        pytest.param(
            [of(UP), of(DOWN, unasked=9)], of(DOWN, unasked=9), id="one that failed is not asked"
        ),
    ],
)
def test_the_worst_of_several_checks_decides(healths, expected):
    assert health.overall(healths) == expected
    assert health.overall(reversed(healths)) == expected


# --------------------------------------------------------------------------------------------------
# Laws

rules = st.builds(
    Rules,
    rise=st.integers(1, 4),
    fall=st.integers(1, 4),
    flaps=st.integers(0, 4),
    within=st.sampled_from([5.0, 50.0, 500.0]),
    hold=st.sampled_from([0.0, 2.0, 20.0]),
    longest_hold=st.sampled_from([2.0, 30.0]),
)
oks = st.sampled_from([True, False, None])
histories = st.lists(st.tuples(st.floats(0.1, 30), oks), max_size=60)


def steps(rules, history):
    """Each state of things, with the verdict after which it was so."""
    known, at = Health(), 100.0
    for passed, ok in history:
        at += passed
        before, known = known, health.step(known, rules, ok, "", at)
        yield before, known, ok, at


def after(rules, history):
    """What is known in the end, and when that is."""
    *_, (_, known, _, at) = [(None, Health(), None, 100.0), *steps(rules, history)]
    return known, at


@given(rules, histories)
def test_no_verdict_takes_out_what_it_calls_good_or_brings_back_what_it_calls_bad(rules, history):
    for before, known, ok, _ in steps(rules, history):
        was, now = health.serves(before.state), health.serves(known.state)
        if was is not now:
            assert ok is now


@given(rules, histories)
def test_a_change_needs_enough_verdicts_in_a_row(rules, history):
    said = []
    for before, known, ok, _ in steps(rules, history):
        said += [] if ok is None else [ok]
        if health.serves(before.state) is not health.serves(known.state):
            first = before.state is UNKNOWN and ok
            needed = 1 if first else rules.rise if ok else rules.fall
            assert said[-needed:] == [ok] * needed


@given(rules, histories)
def test_what_cannot_be_asked_changes_no_state(rules, history):
    for before, known, ok, at in steps(rules, history):
        if ok is None:
            told = replace(known, reason=before.reason, checked=before.checked)
            assert replace(told, unasked=before.unasked) == before
            assert (known.checked, known.unasked) == (at, before.unasked + 1)


@given(rules, histories)
def test_it_began_to_serve_when_that_changed_last(rules, history):
    changed = 0.0
    for before, known, _, at in steps(rules, history):
        if health.serves(before.state) is not health.serves(known.state):
            changed = at
        assert known.since == changed


@given(rules, histories)
def test_only_who_waits_has_a_time_to_wait_for_and_that_is_bounded(rules, history):
    for _, known, _, at in steps(rules, history):
        assert (known.held_until is not None) == (known.state is HELD)
        assert known.held_until is None or known.held_until - at <= rules.longest_hold
        assert len(known.falls) <= max(rules.flaps, 1)
        assert known.hold <= rules.longest_hold


@given(rules, histories)
def test_whatever_happened_a_real_server_that_stays_good_is_back(rules, history):
    known, at = after(rules, history)
    for second in range(rules.rise + 31):
        known = health.step(known, rules, True, "", at + 1 + second)

    assert known.state is UP


@given(rules, histories)
def test_whatever_happened_a_real_server_that_stays_bad_is_out(rules, history):
    known, at = after(rules, history)
    for second in range(rules.fall):
        known = health.step(known, rules, False, "", at + 1 + second)

    assert known.state is DOWN


@given(st.lists(st.builds(Health, st.sampled_from(State), st.floats(0, 9)), max_size=5))
def test_several_checks_serve_if_each_of_them_lets_it(healths):
    said = {health.serves(one.state) for one in healths} or {None}

    expected = False if False in said else None if None in said else True
    assert health.serves(health.overall(healths).state) is expected


# --------------------------------------------------------------------------------------------------
# Speed


@pytest.mark.parametrize("ok", [True, False], ids=["up", "down"])
def test_a_verdict_that_says_nothing_new_costs_next_to_nothing(ok):
    """5,000 a second come in; 20 microseconds each would be a tenth of a processor."""
    rules = Rules()
    known = health.step(Health(), rules, ok, "", 1)

    def again():
        health.step(known, rules, ok, "as before", 2.0, 0.5)

    assert min(timeit.repeat(again, number=1000, repeat=20)) / 1000 < 20e-6
