"""Operators' wishes: which one counts, when they end, and how they are kept."""

import json
import os
import stat
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from saltext.lvs import wishes
from saltext.lvs.errors import CommandFailed, DamagedState
from saltext.lvs.policy import Wish
from saltext.lvs.wishes import EVERYWHERE, Wishes

NOW = 1_795_000_000.0
WEB = ("web", "rs1")
HOST = (EVERYWHERE, "rs1")

times = st.floats(1, 2 * NOW)
wish = st.builds(
    Wish,
    drain=st.booleans(),
    weight=st.none() | st.integers(0, 65535),
    until=st.none() | times,
    maintenance=st.booleans(),
    served=st.booleans(),
    why=st.text(st.characters(codec="utf-8"), max_size=20),
    at=times,
)
names = st.sampled_from(["rs1", "rs2", "ein-Rechner.example", "ß"])
keys = st.tuples(st.sampled_from([EVERYWHERE, "web", "mail"]), names)
mappings = st.dictionaries(keys, wish, max_size=6)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "state" / "wishes.json")


DRAIN = Wish(drain=True)
MAINTENANCE = Wish(maintenance=True)
WEIGHT = Wish(weight=20)
SERVED = Wish(served=True)


@pytest.mark.parametrize(
    ("here", "host", "expected"),
    [
        pytest.param(None, None, None, id="nothing is wished"),
        pytest.param(DRAIN, None, DRAIN, id="one virtual server alone"),
        pytest.param(None, DRAIN, DRAIN, id="the host everywhere"),
        pytest.param(SERVED, DRAIN, SERVED, id="an exception from the host's drain"),
        pytest.param(WEIGHT, DRAIN, DRAIN, id="a weight does not end the host's drain"),
        pytest.param(WEIGHT, WEIGHT, WEIGHT, id="a weight stands before the host's"),
        pytest.param(DRAIN, WEIGHT, DRAIN, id="a drain here stands before the host"),
        pytest.param(SERVED, MAINTENANCE, MAINTENANCE, id="no exception from maintenance"),
        pytest.param(WEIGHT, MAINTENANCE, MAINTENANCE, id="a weight does not end maintenance"),
        pytest.param(Wish(drain=True, until=NOW), DRAIN, DRAIN, id="what has ended does not count"),
        pytest.param(Wish(drain=True, until=NOW), None, None, id="it ends at its moment"),
        pytest.param(
            Wish(drain=True, until=NOW + 1),
            None,
            Wish(drain=True, until=NOW + 1),
            id="it lasts until its moment",
        ),
        pytest.param(
            Wish(drain=True, weight=20, until=NOW - 1),
            None,
            DRAIN,
            id="of a weight and a drain only the weight ends",
        ),
        pytest.param(
            Wish(served=True, weight=20, until=NOW),
            DRAIN,
            SERVED,
            id="of a weight and an exception only the weight ends",
        ),
        pytest.param(SERVED, Wish(drain=True, until=NOW), SERVED, id="the host's has ended"),
    ],
)
def test_the_nearer_wish_counts(here, host, expected):
    known = {key: said for key, said in ((WEB, here), (HOST, host)) if said is not None}

    assert wishes.of(Wishes(known), "web", "rs1", NOW) == expected
    assert wishes.of(Wishes(known), "web", "rs2", NOW) is None


@given(mappings, times)
def test_a_host_in_maintenance_is_so_everywhere(known, now):
    known = {**known, HOST: Wish(maintenance=True)}

    assert wishes.of(Wishes(known), "web", "rs1", now).maintenance


@given(mappings, times)
def test_the_next_end_changes_something_and_no_moment_before_it_does(known, now):
    end = wishes.next_end(Wishes(known), now)

    def in_force(moment):
        return {key: wishes.of(Wishes({key: known[key]}), *key, moment) for key in known}

    if end is None:
        assert in_force(now) == in_force(10 * NOW)
    else:
        assert in_force(now) == in_force(max(now, end - (end - now) / 2))
        assert in_force(now) != in_force(end)


def test_without_a_file_nothing_is_wished(path):
    assert wishes.read(path) == Wishes()
    assert not os.path.exists(os.path.dirname(path))


def test_wishes_are_kept_for_root_alone(path):
    said = wishes.change({WEB: DRAIN, HOST: WEIGHT}, path, NOW)

    assert said == wishes.read(path) == Wishes({WEB: DRAIN, HOST: WEIGHT})
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700


def test_a_change_leaves_the_others_and_forgets_what_is_over(path):
    wishes.change({WEB: DRAIN, ("mail", "rs1"): WEIGHT, HOST: Wish(weight=3, until=NOW)}, path, 0)

    changed = wishes.change({WEB: None, ("web", "rs2"): MAINTENANCE}, path, NOW)

    assert changed.wishes == {("mail", "rs1"): WEIGHT, ("web", "rs2"): MAINTENANCE}
    assert wishes.read(path) == changed


def test_nothing_is_written_where_nothing_changes(path):
    wishes.change({WEB: DRAIN}, path, NOW)
    before = os.stat(path).st_ino, os.stat(path).st_mtime_ns

    assert wishes.change({WEB: DRAIN, HOST: None}, path, NOW).wishes == {WEB: DRAIN}

    assert (os.stat(path).st_ino, os.stat(path).st_mtime_ns) == before


@given(mappings)
def test_what_is_written_is_read_again(tmp_path_factory, known):
    path = str(tmp_path_factory.mktemp("wishes") / "wishes.json")

    assert wishes.change(known, path, 0).wishes == known
    assert wishes.read(path).wishes == known


def row(**values):
    right = {
        "virtual_server": "web",
        "real_server": "rs1",
        "drain": True,
        "weight": None,
        "until": None,
        "maintenance": False,
        "served": False,
        "why": "",
        "at": 0,
    }
    return {**right, **values}


def text(*rows, **values):
    return json.dumps({"format": 1, "wishes": list(rows), **values})


def less(name):
    return {key: value for key, value in row().items() if key != name}


DAMAGED = {
    "an empty file": "",
    "half a file": text(row())[:-20],
    "no mapping": "[]",
    "nothing at all": "null",
    "no list of wishes": text(wishes={"web": "rs1"}),
    "a list of words": text("rs1"),
    "a newer version's": text(format=2),
    "without a version": json.dumps({"wishes": []}),
    "without its drain": text(less("drain")),
    "without its real server": text(less("real_server")),
    "an unknown word": text(row(drian=True)),
    "a drain that is a word": text(row(drain="yes")),
    "a weight that is a word": text(row(weight="1")),
    "a weight that is no number": text(row(weight=True)),
    "a weight below none": text(row(weight=-1)),
    "a weight that no kernel takes": text(row(weight=65536)),
    "a time that never comes": text(row(until=float("nan"))),
    "a time without end": text(row(until=float("inf"))),
    "a time in words": text(row(at="now")),
    "a reason that is a list": text(row(why=[])),
    "a nameless real server": text(row(real_server="")),
    "a number for a name": text(row(virtual_server=1)),
    "said twice": text(row(), row(drain=False)),
    "a million brackets": "[" * 1_000_000,
}


@pytest.mark.parametrize("damaged", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_file_is_an_error_and_stays_as_it_is(path, damaged):
    os.makedirs(os.path.dirname(path))
    with open(path, "w") as file:
        file.write(damaged)

    with pytest.raises(DamagedState, match=f"^{path} is damaged .*drains and weights"):
        wishes.read(path)
    with pytest.raises(DamagedState):
        wishes.change({WEB: DRAIN}, path, NOW)

    with open(path) as file:
        assert file.read() == damaged


def test_the_right_row_is_no_damage(path):
    os.makedirs(os.path.dirname(path))
    with open(path, "w") as file:
        file.write(text(row()))

    assert wishes.read(path).wishes == {WEB: DRAIN}


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        pytest.param(HOST, Wish(weight=-1), id="a weight below none"),
        pytest.param(HOST, Wish(weight=70000), id="a weight that no kernel takes"),
        pytest.param(HOST, Wish(drain=True, until=float("nan")), id="a time that never comes"),
        pytest.param(HOST, Wish(drain=True, until=float("inf")), id="a time without end"),
        pytest.param(("web", ""), Wish(drain=True), id="a nameless real server"),
    ],
)
def test_a_wish_that_could_not_be_read_again_is_not_written(path, key, wrong):
    wishes.change({WEB: DRAIN}, path, NOW)

    with pytest.raises(ValueError, match="cannot be|is no name"):
        wishes.change({key: wrong}, path, NOW)

    assert wishes.read(path).wishes == {WEB: DRAIN}


def test_a_file_that_cannot_be_read_is_an_error(path):
    os.makedirs(path)

    with pytest.raises(CommandFailed, match=f"^cannot read {path}: "):
        wishes.read(path)


def test_changes_at_the_same_time_are_all_kept(path):
    def drain(number):
        wishes.change({("web", f"rs{number}"): DRAIN}, path, NOW)

    threads = [threading.Thread(target=drain, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wishes.read(path).wishes == {("web", f"rs{number}"): DRAIN for number in range(12)}


def test_who_changes_a_wish_by_what_it_is_sees_what_others_have_said(path):
    def heavier(said):
        before = said.get(WEB, Wish(weight=0))
        return {WEB: Wish(weight=before.weight + 1)}

    threads = [threading.Thread(target=wishes.revise, args=(heavier, path)) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wishes.read(path).wishes == {WEB: Wish(weight=12)}
