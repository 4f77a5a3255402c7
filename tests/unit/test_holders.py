"""Who holds each VIP: said right for every set of reports, told once, and not before a fail-over is
over.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from saltext.lvs import holders, model
from saltext.lvs.holders import Report, Standing, Verdict

VIP, INSTANCE = "10.10.10.10", "VirtIP_10"
CLUSTER = model.from_pillar(
    {
        "lvs": {
            "name": "prod",
            "directors": {"lb1": None, "lb2": None},
            "vrrp_instances": {
                INSTANCE: {
                    "interface": "eth0",
                    "virtual_router_id": 10,
                    "advert_int": 3,
                    "virtual_ipaddress": [VIP],
                }
            },
        }
    }
)


def status(state: str = "BACKUP", *held: str, priority: int = 150) -> dict[str, Any]:
    """What ``keepalived.status`` returns, as far as it matters here."""
    instance = {"state": state, "priority": priority, "vips": [VIP], "vips_held": list(held)}
    return {"running": True, "vrrp_instances": {INSTANCE: instance}}


def reports(lb1: Any, lb2: Any) -> list[Report]:
    return [holders.report("lb1", lb1, CLUSTER), holders.report("lb2", lb2, CLUSTER)]


MASTER = status("MASTER", VIP)
LOOKS: dict[str, tuple[Any, Any, Verdict, tuple[str, ...], str]] = {
    "one holds it": (
        MASTER,
        status(),
        Verdict.HELD,
        ("lb1",),
        "10.10.10.10 (VirtIP_10) is held by lb1",
    ),
    "both hold it": (
        MASTER,
        status("MASTER", VIP, priority=50),
        Verdict.SEVERAL,
        ("lb1", "lb2"),
        "10.10.10.10 (VirtIP_10) is held by lb1 and lb2 at once (lb1: MASTER (priority 150); "
        "lb2: MASTER (priority 50)): they do not hear each other's advertisements. Look at the "
        "network between them and at firewalls (VRRP is IP protocol 112), then at "
        "virtual_router_id and passwords",
    ),
    "nobody holds it": (
        status("FAULT"),
        status(),
        Verdict.NOBODY,
        (),
        "10.10.10.10 (VirtIP_10) is held by no director (lb1: FAULT (priority 150); lb2: BACKUP "
        "(priority 150)). Look at keepalived on each: salt 'LB*' keepalived.status",
    ),
    "one holds it, the other is silent": (
        MASTER,
        None,
        Verdict.HELD,
        ("lb1",),
        "10.10.10.10 (VirtIP_10) is held by lb1",
    ),
    "one does not hold it, the other is silent": (
        status(),
        None,
        Verdict.UNKNOWN,
        (),
        "10.10.10.10 (VirtIP_10) is held by no director that answers; no answer from lb2",
    ),
    "an error in the place of an answer": (
        MASTER,
        "ERROR: keepalived.status is not there",
        Verdict.HELD,
        ("lb1",),
        "10.10.10.10 (VirtIP_10) is held by lb1",
    ),
}


@pytest.mark.parametrize(
    ("lb1", "lb2", "verdict", "who", "words"), LOOKS.values(), ids=LOOKS.keys()
)
def test_a_vip_stands_as_the_directors_report(
    lb1: Any, lb2: Any, verdict: Verdict, who: tuple[str, ...], words: str
) -> None:
    (standing,) = holders.standings(CLUSTER, reports(lb1, lb2))
    assert (standing.verdict, standing.holders, str(standing)) == (verdict, who, words)


HOSTILE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(["vrrp_instances", INSTANCE, "vips_held", "state", "priority"])
            | st.text(),
            inner,
        )
    ),
)


@given(HOSTILE)
def test_whatever_a_director_answers_no_more_is_taken_from_it_than_may_be_there(
    answer: Any,
) -> None:
    found = holders.report("lb1", answer, CLUSTER)
    assert found.held is None or found.held <= {VIP}
    assert set(found.states) | set(found.priorities) <= {INSTANCE}
    assert set(found.states.values()) <= {"MASTER", "BACKUP", "FAULT", "STOP"}


class Clock:
    """Time that passes where somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


def settled(looks: Iterable[Sequence[Report]]) -> tuple[Standing, float]:
    """What it settles to, and after how many seconds."""
    clock = Clock()
    left: Iterator[Sequence[Report]] = iter(looks)
    (standing,) = holders.settle(CLUSTER, lambda: next(left), clock, clock.sleep)
    return standing, clock.now


def for_ever(look: Sequence[Report]) -> Iterator[Sequence[Report]]:
    while True:
        yield look


WELL = reports(MASTER, status())
SPLIT = reports(MASTER, status("MASTER", VIP))
NOBODY = reports(status(), status())


def test_what_is_well_needs_no_second_look() -> None:
    standing, seconds = settled([WELL])
    assert (standing.verdict, seconds) == (Verdict.HELD, 0)


def test_a_fail_over_is_waited_for() -> None:
    standing, seconds = settled([NOBODY, NOBODY, SPLIT, WELL])
    assert (standing.verdict, seconds) == (Verdict.HELD, 3)


@pytest.mark.parametrize(
    ("look", "verdict", "seconds"),
    [
        pytest.param(SPLIT, Verdict.SEVERAL, 7, id="two advertisements, and a second"),
        pytest.param(NOBODY, Verdict.NOBODY, 13, id="four advertisements, and a second"),
    ],
)
def test_what_lasts_longer_than_a_fail_over_is_trouble(
    look: list[Report], verdict: Verdict, seconds: float
) -> None:
    standing, after = settled(for_ever(look))
    assert (standing.verdict, after) == (verdict, seconds)


@pytest.mark.parametrize(
    ("known", "seconds"),
    [
        pytest.param({VIP: "split_brain"}, 0, id="is told already"),
        pytest.param({VIP: "unheld"}, 7, id="is another one than before"),
        pytest.param({"10.9.9.9": "split_brain"}, 7, id="is another VIP's"),
    ],
)
def test_trouble_is_waited_for_unless_it(known: dict[str, str], seconds: float) -> None:
    clock = Clock()
    holders.settle(CLUSTER, lambda: SPLIT, clock, clock.sleep, known)
    assert clock.now == seconds


@given(st.lists(st.sampled_from([WELL, SPLIT, NOBODY, reports(None, None)]), min_size=1))
def test_no_disorder_is_waited_out_for_ever(looks: list[Sequence[Report]]) -> None:
    def again() -> Iterator[Sequence[Report]]:
        while True:
            yield from looks

    _, seconds = settled(again())
    assert seconds <= 2 * holders.LONGEST_SECONDS


def look(lb1: Any, lb2: Any) -> tuple[Standing, ...]:
    return holders.standings(CLUSTER, reports(lb1, lb2))


@pytest.mark.parametrize(
    ("before", "found", "troubles", "told"),
    [
        pytest.param({}, look(MASTER, status()), {}, [], id="well, as before"),
        pytest.param(
            {}, look(MASTER, MASTER), {VIP: "split_brain"}, [Verdict.SEVERAL], id="a new trouble"
        ),
        pytest.param(
            {VIP: "split_brain"},
            look(MASTER, MASTER),
            {VIP: "split_brain"},
            [],
            id="a known trouble is not told again",
        ),
        pytest.param(
            {VIP: "unheld"},
            look(MASTER, MASTER),
            {VIP: "split_brain"},
            [Verdict.SEVERAL],
            id="another trouble than before",
        ),
        pytest.param({VIP: "split_brain"}, look(MASTER, status()), {}, [Verdict.HELD], id="over"),
        pytest.param(
            {VIP: "split_brain"},
            look(MASTER, None),
            {VIP: "split_brain"},
            [],
            id="one that is silent may hold it still",
        ),
        pytest.param({}, look(status(), None), {}, [], id="what nobody knows is no alarm"),
        pytest.param({"10.9.9.9": "unheld"}, look(MASTER, status()), {}, [], id="no VIP any more"),
    ],
)
def test_trouble_is_told_once_and_its_end_once(
    before: dict[str, str],
    found: tuple[Standing, ...],
    troubles: dict[str, str],
    told: list[Verdict],
) -> None:
    news = holders.news(before, found)
    assert (news.troubles, [standing.verdict for standing in news.told]) == (troubles, told)


@pytest.mark.parametrize("text", ["", "[]", "nonsense", '{"a": 1}', "null"])
def test_a_damaged_file_knows_nothing(text: str) -> None:
    assert holders.load(text) == {}


def test_what_was_written_is_read_again() -> None:
    known = {"lb1 lb2": {VIP: "split_brain"}, "lb3": {}}
    assert holders.load(holders.dump(known)) == {"lb1 lb2": {VIP: "split_brain"}}


# --------------------------------------------------------------------------------------------------
# What the last look saw

NOW = 1_800_000_000.0


def test_what_a_look_saw_is_kept_of_each_director_until_a_look_is_due_again() -> None:
    first = holders.seen("", CLUSTER, reports(MASTER, None), NOW)
    assert first == {
        "lb1": {"at": NOW, "vips": [VIP], "held": [VIP]},
        "lb2": {"at": NOW, "vips": [VIP], "held": None},
    }
    others = {"lb9": {**first["lb1"], "at": NOW + 1}, "lb8": {**first["lb1"], "at": NOW - 1}}
    written = json.dumps({**first, **others})
    later = NOW + holders.LOOK_EVERY_SECONDS
    assert holders.seen(written, CLUSTER, reports(status(), MASTER), later) == {
        "lb9": others["lb9"],
        "lb1": {"at": later, "vips": [VIP], "held": []},
        "lb2": {"at": later, "vips": [VIP], "held": [VIP]},
    }


@pytest.mark.parametrize("text", ["", "[]", "nonsense", '{"lb9": 1}', '{"lb9": {}}', "null"])
def test_what_cannot_be_read_was_not_seen(text: str) -> None:
    assert list(holders.seen(text, CLUSTER, WELL, NOW)) == ["lb1", "lb2"]
