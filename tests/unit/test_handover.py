"""What keepalived will find in the kernel, as it is to be then."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from saltext.lvs import events, handover, ipvs, model, overlay, wishes
from saltext.lvs import table as tables
from saltext.lvs.overlay import Found, Verdicts
from saltext.lvs.policy import Wish
from saltext.lvs.trackfiles import DRAINED, Weight

from tests.unit.test_trackfiles import cluster

WEB = tables.virtual_server_key("tcp 10.10.10.10:80")
NONE: frozenset[model.VirtualServerKey] = frozenset()


def test_what_it_takes_over_has_the_pillars_settings_and_the_weights_in_effect() -> None:
    wanted = cluster(servers="rs1 rs2")
    weights = {("web", "rs1"): Weight(50, DRAINED, True), ("web", "rs2"): Weight(50, -40, True)}
    adopted = handover.adopted(wanted, weights, {WEB}, NONE)
    ours = cluster(servers="rs1 rs2", kept="salt").table()[WEB]
    assert adopted[WEB].settings() == ours.settings()
    assert {str(real.key): real.weight for real in adopted[WEB].real_servers} == {
        "10.10.10.41:80": 0,
        "10.10.10.42:80": 10,
    }


def test_what_is_not_there_and_what_it_keeps_already_are_its_own_matter() -> None:
    assert handover.adopted(cluster(), {}, NONE, NONE) == {}
    assert handover.adopted(cluster(), {}, {WEB}, {WEB}) == {}
    assert handover.adopted(cluster(kept="salt"), {}, {WEB}, NONE) == {}


def test_what_a_keepalived_keeps_whose_text_is_not_to_be_seen_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = cluster()
    weights = {("web", "rs1"): Weight(50, 0, True)}
    monkeypatch.setattr(ipvs, "loaded", lambda: True)
    monkeypatch.setattr(ipvs, "read", lambda keys: SimpleNamespace(table=dict.fromkeys(keys)))
    assert handover.moves(wanted, weights, "").to_keepalived.keys() == {WEB}
    assert handover.moves(wanted, weights, None) == handover.Moves(frozenset(), {})


@pytest.mark.parametrize(
    ("found", "wished"),
    [
        ({("web", "rs1"): Found("down", False, 1), ("web", "rs2"): Found("up", True, 1)}, {}),
        ({}, {("*", "rs1"): Wish(drain=True)}),
    ],
    ids=["a dead one", "a drained one"],
)
def test_what_keepalived_gave_up_comes_back_with_the_weights_decided_on(
    found: dict[tuple[str, str], Found],
    wished: dict[tuple[str, str], Wish],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = cluster(servers="rs1 rs2", kept="salt")
    monkeypatch.setattr(overlay, "HEALTH", str(tmp_path / "health.json"))
    monkeypatch.setattr(wishes, "WISHES", str(tmp_path / "wishes" / "wishes.json"))
    monkeypatch.setattr(ipvs, "loaded", lambda: False)
    monkeypatch.setattr(ipvs, "read", lambda keys: SimpleNamespace(table=wanted.table()))
    overlay.write(Verdicts(events.boot_id(), overlay.clock(), found), overlay.HEALTH)
    wishes.change(wished, wishes.WISHES)
    moved = handover.moves(wanted, {}, "virtual_server 10.10.10.10 80 {\n protocol TCP\n}\n")
    assert moved.to_salt == {WEB}
    kept = handover.decided(wanted, moved.to_salt)
    assert {str(real.key): real.weight for real in kept[WEB].real_servers} == {
        "10.10.10.41:80": 0,
        "10.10.10.42:80": 50,
    }
