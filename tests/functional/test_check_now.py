"""lvs.check_now under Salt's loader: who may ask, and for what."""

from __future__ import annotations

from typing import Any

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError
from saltext.lvs import fresh
from saltext.lvs.checks import Verdict

from tests.functional.conftest import MinionMaker


@pytest.mark.parametrize(
    ("minion_id", "part"),
    [("rs1", "realserver"), ("kvm1", "hypervisor"), ("elsewhere", "no part")],
)
def test_who_is_no_director_does_not_ask(minion: MinionMaker, minion_id: str, part: str) -> None:
    with pytest.raises(CommandExecutionError) as caught:
        minion(minion_id).call("lvs.check_now", "web")
    assert str(caught.value) == (
        f"{minion_id} is no director of cluster prod: it plays {part} there"
    )


REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "no virtual server's name": (
        ("www",),
        "virtual_server is 'www'; it should be the name of one in the pillar: web",
    ),
    "no real server's name": (
        ("web", "rs3"),
        "real_server is 'rs3'; it should be the name of one in the pillar: rs1, rs2",
    ),
    "an address": (
        ("web", "10.10.10.41"),
        "real_server is '10.10.10.41'; it should be the name of one in the pillar: rs1, rs2",
    ),
}


@pytest.mark.parametrize(("names", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_only_what_the_pillar_names_is_asked(
    minion: MinionMaker, names: tuple[Any, ...], words: str
) -> None:
    with pytest.raises(SaltInvocationError) as caught:
        minion("lb1").call("lvs.check_now", *names)
    assert str(caught.value) == words


def test_a_director_asks_and_answers_in_plain_values(
    minion: MinionMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is asked of real machines, tests/kernel shows."""
    asked: list[Any] = []

    def ask(checks: Any, within: float) -> list[Any]:
        asked.extend(check.key for check in checks)
        assert within == fresh.IN_ALL_SECONDS
        return [Verdict(key, key.kind == "tcp", "because", 0.5, 1.0) for key in asked]

    monkeypatch.setattr(fresh.probe, "ask", ask)
    rest = {"reason": "because", "ms": 0.5}
    assert minion("lb2").call("lvs.check_now", "web", real_server="rs2") == {
        "rs2": {
            "ok": False,
            "checks": [
                {"check": "path", "place": "10.10.10.10:80", "ok": False, **rest},
                {"check": "tcp", "place": "10.10.10.42:80", "ok": True, **rest},
            ],
        }
    }
