"""What the real servers are asked where nobody watches, and what is made of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import pytest
from saltext.lvs import events, ipvs, locking, operating, overlay, probe
from saltext.lvs.checks import Check, Verdict
from saltext.lvs.overlay import Found, Verdicts

from tests.unit.test_overlay import DOWN, UP, cluster


@pytest.fixture
def health(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    path = str(tmp_path / "health.json")
    monkeypatch.setattr(overlay, "HEALTH", path)
    monkeypatch.setattr(operating, "TURNS", str(tmp_path / "turns"))
    monkeypatch.setattr(ipvs, "loaded", lambda: False)
    monkeypatch.setattr(locking, "pace", lambda path, seconds: None)
    return path


def known(health: str, **found: Found) -> None:
    """Write what somebody found long ago."""
    servers = {("web", name): one for name, one in found.items()}
    overlay.write(Verdicts(events.boot_id(), 0, servers, watched=False), health)


def test_what_has_no_checks_any_more_is_forgotten(health: str) -> None:
    known(health, rs1=UP, rs2=DOWN)
    operating.reweight(cluster(check={"types": []}), None, None)
    found = overlay.read(health)
    assert found is not None
    assert found.servers == {}


@pytest.mark.parametrize(
    ("before", "answers", "asked", "serves"),
    [
        (UP, [True], 1, True),
        (UP, [False, True], 2, True),
        (UP, [False, False, False], 3, False),
        (DOWN, [False], 1, False),
        (DOWN, [True], 1, True),
    ],
)
def test_one_bad_answer_takes_nobody_out(
    health: str,
    monkeypatch: pytest.MonkeyPatch,
    before: Found,
    answers: Sequence[bool],
    asked: int,
    serves: bool,
) -> None:
    left, turns = list(answers), []

    def ask(checks: Collection[Check], within: float) -> list[Verdict]:
        ok = left.pop(0)
        turns.append(len(checks))
        return [Verdict(check.key, ok, "refused", 1, 0) for check in checks]

    monkeypatch.setattr(probe, "ask", ask)
    monkeypatch.setattr(operating, "AGAIN_SECONDS", 0)
    known(health, rs1=before)
    one = cluster(check={"types": ["tcp"], "fall": 3}, real_servers={"rs1": {"weight": 50}})
    operating.reweight(one, None, None)
    found = overlay.read(health)
    assert found is not None
    assert turns == [1] * asked
    assert found.servers["web", "rs1"].serves is serves


def test_who_begins_to_watch_meanwhile_knows_better(
    health: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = cluster(check={"types": ["tcp"]}, real_servers={"rs1": {"weight": 50}})

    def ask(checks: Collection[Check], within: float) -> list[Verdict]:
        watched = Verdicts(events.boot_id(), overlay.clock(), {("web", "rs1"): DOWN})
        overlay.write(watched, health)
        return [Verdict(check.key, True, "answers", 1, 0) for check in checks]

    monkeypatch.setattr(probe, "ask", ask)
    operating.reweight(one, None, None)
    found = overlay.read(health)
    assert found is not None
    assert found.servers["web", "rs1"].serves is False
