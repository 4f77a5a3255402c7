"""Weights that keepalived reads from files: an operator's stay, ``enabled`` comes on top."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from saltext.lvs import locking, model, trackfiles
from saltext.lvs.errors import InvalidConfig, NotAvailable, WrongState
from saltext.lvs.trackfiles import DISABLED, DRAINED, Weight


def cluster(
    weight: int = 50, enabled: bool = True, kept: str = "keepalived", servers: str = "rs1"
) -> model.Cluster:
    shares: dict[str, Any] = {name: {"weight": weight} for name in servers.split()}
    return model.from_pillar(
        {
            "lvs": {
                "directors": ["lb1"],
                "real_servers": {
                    "rs1": {"address": "10.10.10.41", "enabled": enabled},
                    "rs2": {"address": "10.10.10.42"},
                },
                "vrrp_instances": {
                    "V": {
                        "interface": "eth0",
                        "virtual_router_id": 10,
                        "virtual_ipaddress": ["10.10.10.10"],
                    }
                },
                "virtual_servers": {
                    "web": {
                        "address": "10.10.10.10",
                        "port": 80,
                        "managed_by": kept,
                        "check": {"types": ["tcp"]},
                        "real_servers": shares,
                    }
                },
            }
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """Where the files are to be; not there yet."""
    return str(tmp_path / "weights")


def applied(wanted: model.Cluster, folder: str) -> list[str]:
    planned = trackfiles.plan(wanted, folder)
    trackfiles.write(planned, folder)
    return [str(change) for change in planned]


def content(folder: str) -> dict[str, str]:
    found = Path(folder).rglob("*")
    return {str(path.relative_to(folder)): path.read_text() for path in found if path.is_file()}


def test_what_is_missing_is_made_private_and_then_right(folder: str) -> None:
    assert applied(cluster(), folder) == [f"write 0 to {folder}/web/rs1"]
    assert content(folder) == {"web/rs1": "0\n"}
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (Path(folder), *Path(folder).rglob("*"))]
    assert modes == [0o700, 0o700, 0o600]
    assert applied(cluster(), folder) == []


def test_what_salt_keeps_has_no_file(folder: str) -> None:
    assert applied(cluster(kept="salt"), folder) == []
    assert not Path(folder).exists()


def test_an_operators_weight_survives_an_apply_and_a_reset_ends_it(folder: str) -> None:
    applied(cluster(), folder)
    old, new = trackfiles.set_weight(cluster(), "web", "rs1", 10, folder)
    assert (old.effective, new.effective) == (50, 10)
    assert applied(cluster(), folder) == []
    assert content(folder) == {"web/rs1": "-40\n"}
    trackfiles.reset_weight(cluster(), "web", "rs1", folder)
    assert trackfiles.told(trackfiles.weights(cluster(), folder)) == {
        "web": {"rs1": {"configured": 50, "added": 0, "enabled": True, "effective": 50}}
    }


def test_a_drained_one_stays_drained_whatever_weight_the_pillar_gives_it(folder: str) -> None:
    applied(cluster(), folder)
    trackfiles.set_weight(cluster(), "web", "rs1", 0, folder)
    heaviest = cluster(weight=model.MAX_WEIGHT)
    assert applied(heaviest, folder) == []
    assert trackfiles.weights(heaviest, folder)["web", "rs1"].effective == 0


BOTH = "rs1 rs2"


def test_one_that_is_not_enabled_has_no_weight_and_gets_its_own_back(folder: str) -> None:
    on, off = cluster(servers=BOTH), cluster(enabled=False, servers=BOTH)
    applied(on, folder)
    trackfiles.set_weight(on, "web", "rs1", 10, folder)
    assert applied(off, folder) == [f"write {DISABLED - 40} to {folder}/web/rs1"]
    assert applied(off, folder) == []
    assert trackfiles.weights(off, folder)["web", "rs1"] == Weight(50, -40, False)
    assert trackfiles.weights(off, folder)["web", "rs1"].effective == 0
    # What is asked for meanwhile counts when it is enabled again.
    trackfiles.set_weight(off, "web", "rs1", 20, folder)
    assert trackfiles.weights(off, folder)["web", "rs1"].effective == 0
    assert applied(on, folder) == [f"write -30 to {folder}/web/rs1"]


def test_a_new_one_that_is_not_enabled_begins_without_weight(folder: str) -> None:
    assert applied(cluster(enabled=False, servers=BOTH), folder) == [
        f"write {DISABLED} to {folder}/web/rs1",
        f"write 0 to {folder}/web/rs2",
    ]


@pytest.mark.parametrize("text", ["", "fifty\n", "5 0\n", "0x10\n", "99999999999\n"])
def test_what_is_no_number_is_put_right(text: str, folder: str) -> None:
    applied(cluster(), folder)
    path = Path(folder) / "web" / "rs1"
    path.write_text(text)
    planned = trackfiles.plan(cluster(), folder)
    assert [change.as_data() for change in planned] == [{"old": "no number", "new": 0}]
    trackfiles.write(planned, folder)
    assert path.read_text() == "0\n"


def test_files_go_with_what_keepalived_does_not_keep_any_more(folder: str) -> None:
    applied(cluster(servers="rs1 rs2"), folder)
    gone = trackfiles.plan_gone(cluster(servers="rs2"), folder)
    assert [str(change) for change in gone] == [f"take {folder}/web/rs1 away"]
    trackfiles.write(gone, folder)
    assert content(folder) == {"web/rs2": "0\n"}
    trackfiles.write(trackfiles.plan_gone(cluster(kept="salt"), folder), folder)
    assert list(Path(folder).iterdir()) == []


@pytest.mark.parametrize("weight", [-1, 65536, True, "5", 1.5, None], ids=repr)
def test_a_weight_is_a_whole_number_within_limits(weight: Any, folder: str) -> None:
    applied(cluster(), folder)
    with pytest.raises(InvalidConfig, match="it should be a whole number from 0 to 65535"):
        trackfiles.set_weight(cluster(), "web", "rs1", weight, folder)
    assert content(folder) == {"web/rs1": "0\n"}


def test_who_is_not_there_is_named(folder: str) -> None:
    with pytest.raises(InvalidConfig, match="virtual_server is 'ftp'"):
        trackfiles.set_weight(cluster(), "ftp", "rs1", 0, folder)
    with pytest.raises(InvalidConfig, match="real_server is '../rs1'"):
        trackfiles.set_weight(cluster(), "web", "../rs1", 0, folder)
    with pytest.raises(WrongState, match="its weights are set by ipvs.set_weight"):
        trackfiles.set_weight(cluster(kept="salt"), "web", "rs1", 0, folder)
    with pytest.raises(NotAvailable, match="is not there yet"):
        trackfiles.set_weight(cluster(), "web", "rs1", 0, folder)


@given(
    configured=st.integers(0, model.MAX_WEIGHT),
    asked=st.integers(1, model.MAX_WEIGHT) | st.just(0),
    enabled=st.booleans(),
)
def test_what_is_written_is_read_back(configured: int, asked: int, enabled: bool) -> None:
    number = asked - configured if asked else DRAINED
    weight = Weight(configured, number, enabled)
    assert Weight.of(configured, weight.written) == weight
    assert weight.effective == (asked if enabled else 0)
    # As keepalived reckons.
    assert max(configured + weight.written, 0) == weight.effective


def test_a_drain_between_the_look_and_the_writing_stays(folder: str) -> None:
    applied(cluster(), folder)
    planned = trackfiles.plan(cluster(enabled=False), folder)
    trackfiles.set_weight(cluster(), "web", "rs1", 0, folder)
    trackfiles.write(planned, folder)
    assert content(folder) == {"web/rs1": f"{DRAINED + DISABLED}\n"}
    planned = trackfiles.plan(cluster(), folder)
    trackfiles.set_weight(cluster(), "web", "rs1", 60, folder)
    trackfiles.write(planned, folder)
    assert content(folder) == {"web/rs1": "10\n"}


def test_a_number_is_written_by_one_at_a_time(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    applied(cluster(), folder)
    planned = trackfiles.plan(cluster(enabled=False), folder)
    monkeypatch.setattr(locking, "PATIENCE_SECONDS", 0.05)
    with locking.exclusive(f"{folder}.lock"):
        with pytest.raises(NotAvailable, match="has been locked"):
            trackfiles.set_weight(cluster(), "web", "rs1", 0, folder)
        with pytest.raises(NotAvailable, match="has been locked"):
            trackfiles.write(planned, folder)
    assert content(folder) == {"web/rs1": "0\n"}
