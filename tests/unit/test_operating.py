"""What an operator asks of real servers: what is noted, and what follows from several together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from saltext.lvs import (
    boot,
    description,
    ipvs,
    locking,
    model,
    operating,
    overlay,
    trackfiles,
    wishes,
)
from saltext.lvs.errors import InvalidConfig, NotAvailable, WrongState
from saltext.lvs.policy import Wish

NOW = 1.8e9
REAL_SERVERS = ("rs1", "rs2")


def cluster(**kept: str) -> model.Cluster:
    """Virtual servers by who keeps each; all with the same real servers."""
    return model.from_pillar(pillar(**kept))


def pillar(**kept: str) -> dict[str, Any]:
    shares = {name: {"weight": 50} for name in REAL_SERVERS}
    return {
        "lvs": {
            "directors": ["lb1"],
            "real_servers": {name: f"10.10.10.4{name[-1]}" for name in REAL_SERVERS},
            "virtual_servers": {
                name: {
                    "address": "10.10.10.10",
                    "port": port,
                    "managed_by": manager,
                    "real_servers": shares,
                }
                for port, (name, manager) in enumerate((kept or {"web": "salt"}).items(), 80)
            },
        }
    }


TWO = cluster(web="salt", api="salt")


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A director that nobody has asked for anything yet, without IPVS."""
    monkeypatch.setattr(wishes, "WISHES", str(tmp_path / "wishes.json"))
    monkeypatch.setattr(overlay, "HEALTH", str(tmp_path / "health.json"))
    monkeypatch.setattr(boot, "RULES", str(tmp_path / "ipvs.rules"))
    monkeypatch.setattr(description, "PATH", str(tmp_path / "cluster.json"))
    monkeypatch.setattr(trackfiles, "FOLDER", str(tmp_path / "weights"))
    monkeypatch.setattr(ipvs, "loaded", lambda: False)


def forget() -> None:
    """Nobody has asked for anything."""
    Path(wishes.WISHES).unlink(missing_ok=True)


def weights(of: model.Cluster = TWO, now: float = NOW) -> dict[str, int | None]:
    """What each real server in each virtual server is to weigh, while nobody is checked."""
    known = wishes.read(wishes.WISHES)
    return {
        f"{config.name}/{name}": share.weight
        for config in of.virtual_servers.values()
        for name, share in overlay.decide(config, of, None, known, None, 0, now).shares.items()
    }


def drained() -> dict[wishes.Key, bool]:
    """Who has no clients because somebody took it out."""
    known = wishes.read(wishes.WISHES)
    found = {
        (name, real_server): wishes.of(known, name, real_server, NOW) or Wish()
        for name in TWO.virtual_servers
        for real_server in REAL_SERVERS
    }
    return {place: wish.drain or wish.maintenance for place, wish in found.items()}


# --------------------------------------------------------------------------------------------------
# Several wishes

ALL = {"web/rs1": 50, "web/rs2": 50, "api/rs1": 50, "api/rs2": 50}
RS1_OUT = {**ALL, "web/rs1": 0, "api/rs1": 0}


def test_taking_a_weight_back_undrains_nobody() -> None:
    operating.drain(TWO, "rs1", None, "disk", NOW)
    operating.set_weight(TWO, "web", "rs1", None, None, "", NOW)
    assert weights() == RS1_OUT
    operating.set_weight(TWO, "web", "rs1", 10, None, "", NOW)
    operating.set_weight(TWO, "web", "rs1", None, None, "", NOW)
    assert weights() == RS1_OUT


def test_one_that_serves_in_spite_of_its_hosts_drain_may_get_another_weight_for_a_time() -> None:
    operating.drain(TWO, "rs1", None, "disk", NOW)
    operating.undrain(TWO, "rs1", "web", NOW)
    assert weights() == {**ALL, "api/rs1": 0}
    operating.set_weight(TWO, "web", "rs1", 10, 60, "", NOW)
    assert weights() == {**ALL, "web/rs1": 10, "api/rs1": 0}
    assert weights(now=NOW + 60) == {**ALL, "api/rs1": 0}
    operating.drain(TWO, "rs1", None, "", NOW)
    assert weights() == RS1_OUT
    operating.undrain(TWO, "rs1", None, NOW)
    operating.set_weight(TWO, "web", "rs1", None, None, "", NOW)
    assert (weights(), wishes.read(wishes.WISHES)) == (ALL, wishes.Wishes())


real_servers = st.sampled_from(REAL_SERVERS)
virtual_servers = st.sampled_from(["web", "api"])
asked = st.one_of(
    st.tuples(st.just("drain"), real_servers, st.none() | virtual_servers),
    st.tuples(st.just("undrain"), real_servers, st.none() | virtual_servers),
    st.tuples(st.just("maintain"), real_servers, st.booleans()),
    st.tuples(st.just("set_weight"), real_servers, virtual_servers, st.none() | st.integers(0, 9)),
)


def ask(of: model.Cluster, what: str, real_server: str, *more: Any) -> None:
    if what == "drain":
        operating.drain(of, real_server, more[0], "", NOW)
    elif what == "undrain":
        operating.undrain(of, real_server, more[0], NOW)
    elif what == "maintain":
        operating.maintain(of, real_server, more[0], "", NOW)
    else:
        operating.set_weight(of, more[0], real_server, more[1], None, "", NOW)


@given(st.lists(asked, max_size=6), real_servers, virtual_servers, st.none() | st.integers(0, 9))
def test_another_weight_takes_nobody_out_and_puts_nobody_back(
    before: list[Any], real_server: str, virtual_server: str, weight: int | None
) -> None:
    forget()
    for one in before:
        ask(TWO, *one)
    found = drained()
    operating.set_weight(TWO, virtual_server, real_server, weight, None, "", NOW)
    assert drained() == found


def test_two_at_the_same_time_lose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    read, others = wishes.read, iter([lambda: operating.maintain(TWO, "rs1", True, "", NOW)])

    def late(path: str) -> wishes.Wishes:
        # Whoever waits has its turn as soon as the file is not locked.
        found = read(path)
        with locking.exclusive(f"{path}.lock", wait=False) as free:
            pass
        if free:
            next(others, lambda: None)()
        return found

    monkeypatch.setattr(wishes, "read", late)
    operating.drain(TWO, "rs1", None, "", NOW)
    next(others, lambda: None)()
    (wish,) = read(wishes.WISHES).wishes.values()
    assert (wish.drain, wish.maintenance) == (True, True)


def test_the_table_for_the_next_boot_is_by_the_newest_wishes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free: list[bool] = []

    def keep_table(servers: object) -> None:
        with locking.exclusive(f"{wishes.WISHES}.lock", wait=False) as got:
            free.append(got)

    monkeypatch.setattr(boot, "keep_table", keep_table)
    operating.drain(TWO, "rs1", None, "", NOW)
    assert free == [False]


def test_a_drain_keeps_what_nobody_has_applied_out_of_the_next_boot() -> None:
    applied = pillar(web="salt")
    kept = description.file_of(applied, "lb1")
    Path(kept.path).write_text(kept.text)
    Path(boot.RULES).write_text("# of the last apply\n")
    operating.drain(TWO, "rs1", None, "", NOW)
    rules = Path(boot.RULES).read_text()
    assert ("10.10.10.10:80 " in rules, "10.10.10.10:81 " in rules) == (True, False)
    assert "-r 10.10.10.41:80 -g -w 0" in rules


def test_what_is_wished_of_one_that_has_gone_can_be_ended() -> None:
    operating.drain(TWO, "rs1", None, "disk", NOW)
    operating.maintain(TWO, "rs1", True, "", NOW)
    operating.set_weight(TWO, "api", "rs2", 7, None, "", NOW)
    gone = pillar(web="salt")
    del gone["lvs"]["real_servers"]["rs1"]
    del gone["lvs"]["virtual_servers"]["web"]["real_servers"]["rs1"]
    left = model.from_pillar(gone)
    listed = operating.told(left)["wishes_for_nobody"]
    assert [(one["virtual_server"], one["real_server"]) for one in listed] == [
        ("*", "rs1"),
        ("api", "rs2"),
    ]
    with pytest.raises(InvalidConfig):
        operating.drain(left, "rs1", None, "", NOW)
    operating.undrain(left, "rs1", None, NOW)
    operating.maintain(left, "rs1", False, "", NOW)
    operating.set_weight(TWO, "api", "rs2", None, None, "", NOW)
    assert wishes.read(wishes.WISHES) == wishes.Wishes()
    with pytest.raises(InvalidConfig, match="real_server is 'rs1'"):
        operating.undrain(left, "rs1", None, NOW)


def test_the_end_of_maintenance_leaves_a_drain_its_reason() -> None:
    operating.drain(TWO, "rs1", None, "disk", NOW)
    operating.maintain(TWO, "rs1", True, "", NOW)
    operating.maintain(TWO, "rs1", False, "", NOW)
    (wish,) = wishes.read(wishes.WISHES).wishes.values()
    assert (wish.drain, wish.maintenance, wish.why) == (True, False, "disk")


def test_a_weight_needs_a_virtual_server() -> None:
    with pytest.raises(InvalidConfig, match="virtual_server is missing"):
        operating.set_weight(TWO, None, "rs1", 7, None, "", NOW)  # type: ignore[arg-type]


@pytest.mark.parametrize("seconds", [0, -1, True, "60", float("nan"), 1e9])
def test_a_time_that_is_none(seconds: object) -> None:
    with pytest.raises(InvalidConfig, match="seconds above 0"):
        operating.as_duration("seconds", seconds)


# --------------------------------------------------------------------------------------------------
# Where keepalived keeps a virtual server

BOTH = cluster(web="salt", mail="keepalived")


def begin(of: model.Cluster) -> None:
    """The files of weights as an apply makes them."""
    trackfiles.write(trackfiles.plan(of, trackfiles.FOLDER), trackfiles.FOLDER)


def kept(of: model.Cluster = BOTH) -> dict[str, int]:
    """The weights that keepalived gives."""
    found = trackfiles.weights(of, trackfiles.FOLDER)
    return {f"{name[0]}/{name[1]}": weight.effective for name, weight in found.items()}


@given(st.lists(asked, max_size=6))
def test_keepalived_gives_the_weights_that_salt_would(
    tmp_path_factory: Any, said: list[Any]
) -> None:
    forget()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trackfiles, "FOLDER", str(tmp_path_factory.mktemp("kept") / "weights"))
        begin(BOTH)
        for what, real_server, *more in said:
            # The same in both, as far as it is said of one.
            for name in ("web", "mail") if more[0] in ("web", "api") else (None,):
                ask(BOTH, what, real_server, *([name, *more[1:]] if name else more))
        expected = weights(BOTH)
        assert kept() == {name: expected[name] for name in kept()}
        assert trackfiles.plan(BOTH, trackfiles.FOLDER) == ()
        # The other one changes hands.
        moved = cluster(web="keepalived", mail="keepalived")
        begin(moved)
        assert kept(moved) == expected
        assert weights(cluster(web="salt", mail="salt")) == expected


def test_maintenance_and_drain_do_not_end_each_other() -> None:
    begin(BOTH)
    operating.maintain(BOTH, "rs1", True, "", NOW)
    operating.drain(BOTH, "rs1", None, "", NOW)
    operating.undrain(BOTH, "rs1", None, NOW)
    operating.set_weight(BOTH, "mail", "rs1", 10, None, "", NOW)
    assert kept() == {"mail/rs1": 0, "mail/rs2": 50}
    operating.drain(BOTH, "rs1", None, "", NOW)
    operating.maintain(BOTH, "rs1", False, "", NOW)
    assert kept() == {"mail/rs1": 0, "mail/rs2": 50}
    operating.undrain(BOTH, "rs1", None, NOW)
    assert kept() == {"mail/rs1": 10, "mail/rs2": 50}


def test_a_file_that_is_begun_starts_from_the_wishes() -> None:
    operating.drain(TWO, "rs1", None, "", NOW)
    operating.set_weight(TWO, "web", "rs2", 7, None, "", NOW)
    moved = cluster(web="keepalived", api="salt")
    (rs1, rs2) = trackfiles.wanted(moved, trackfiles.weights(moved, trackfiles.FOLDER)).values()
    assert (rs1.effective, rs2.effective) == (0, 7)
    begin(moved)
    assert kept(moved) == {"web/rs1": 0, "web/rs2": 7}


def test_a_weight_for_keepalived_is_a_wish() -> None:
    begin(BOTH)
    old, new = operating.keepalived_weight(BOTH, "mail", "rs1", 0, NOW)
    assert (old.effective, new.effective) == (50, 0)
    assert weights(cluster(web="salt", mail="salt"))["mail/rs1"] == 0
    old, new = operating.keepalived_weight(BOTH, "mail", "rs1", None, NOW)
    assert (old.effective, new.effective) == (0, 50)
    assert wishes.read(wishes.WISHES) == wishes.Wishes()


def test_what_cannot_be_given_by_keepalived_is_not_noted() -> None:
    with pytest.raises(NotAvailable, match="is not there yet"):
        operating.keepalived_weight(BOTH, "mail", "rs1", 0, NOW)
    with pytest.raises(WrongState, match="Salt keeps web, not keepalived"):
        operating.keepalived_weight(BOTH, "web", "rs1", 0, NOW)
    with pytest.raises(InvalidConfig, match="weight is 70000"):
        operating.keepalived_weight(BOTH, "mail", "rs1", 70000, NOW)
    assert wishes.read(wishes.WISHES) == wishes.Wishes()


def test_the_answer_tells_what_keepalived_gives_now() -> None:
    begin(BOTH)
    told = {
        "operations": ["have keepalived give rs1 of mail weight 0"],
        "changes": {"mail -> rs1": {"old": {"weight": 50}, "new": {"weight": 0}}},
        "left": [],
    }
    nothing = {"operations": [], "changes": {}, "left": []}
    assert operating.drain(BOTH, "rs1", None, "", NOW).as_data() == told
    assert operating.drain(BOTH, "rs1", None, "", NOW).as_data() == nothing


def test_health_tells_what_is_wished_of_keepalived_s() -> None:
    begin(BOTH)
    operating.drain(BOTH, "rs1", "mail", "disk", NOW)
    told = operating.told(BOTH, "mail")["virtual_servers"]["mail"]["real_servers"]
    assert (told["rs1"]["wish"]["why"], told["rs2"]["wish"]) == ("disk", None)


def test_one_that_cannot_be_set_stops_no_other() -> None:
    three = cluster(web="salt", mail="keepalived", api="keepalived")
    begin(cluster(api="keepalived"))
    message = "noted, but could not be set now: mail: .*mail/rs1 is not there yet"
    with pytest.raises(WrongState, match=message):
        operating.drain(three, "rs1", None, "", NOW)
    assert weights(cluster(web="salt", mail="salt", api="salt"))["web/rs1"] == 0
    assert kept(three)["api/rs1"] == 0
    begin(three)
    assert kept(three) == {"mail/rs1": 0, "mail/rs2": 50, "api/rs1": 0, "api/rs2": 50}
