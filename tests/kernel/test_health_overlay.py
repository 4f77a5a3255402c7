"""What checks have found and operators wish, against a highstate, on a real table."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError
from saltext.lvs import boot, description, events, model, operating, overlay, wishes
from saltext.lvs.overlay import Found, Verdicts

from tests.functional.conftest import Minion, example, minion
from tests.kernel.commands import ip, run

pytestmark = pytest.mark.usefixtures("netns")
__all__ = ["minion"]

RIGHT = "The IPVS table is as it should be."
FILES = (overlay.HEALTH, wishes.WISHES, description.PATH, boot.RULES, f"{operating.TURNS}.stamp")


@pytest.fixture(autouse=True)
def nothing_known() -> Iterator[None]:
    """A machine that knows nothing yet of health and wishes."""
    _forget()
    yield
    _forget()


def _forget() -> None:
    for path in FILES:
        Path(path).unlink(missing_ok=True)


@pytest.fixture
def lb1(minion: Callable[..., Minion]) -> Minion:
    """A director of the production example, its table as the pillar says."""
    run("modprobe -a ip_vs ip_vs_wlc")
    director = minion("lb1")
    director.call("ipvs.apply")
    return director


def weights(director: Minion) -> dict[str, int]:
    servers = director.call("ipvs.get", "web")["real_servers"]
    return {name.partition(":")[0][-2:]: server["weight"] for name, server in servers.items()}


def found(seconds_ago: float = 0, **servers: Found) -> None:
    """Note what a watcher would have."""
    known = {("web", name): one for name, one in servers.items()}
    overlay.write(Verdicts(events.boot_id(), overlay.clock() - seconds_ago, known))


def up() -> Found:
    return Found("up", True, overlay.clock() - 600, "answers")


def down() -> Found:
    return Found("down", False, overlay.clock() - 60, "connection refused")


def managed(director: Minion, **arguments: Any) -> dict[str, Any]:
    answer = director.state("ipvs.managed", "the table", **arguments)
    del answer["name"]
    return answer


RS2_FAILED = "rs2 of web has weight 0 instead of 50: failed: connection refused"


def test_a_highstate_in_an_outage_leaves_the_dead_one_out_and_says_so(lb1: Minion) -> None:
    found(rs1=up(), rs2=down())
    lb1.call("ipvs.set_weight", "web", "rs2", 0)
    right = {"result": True, "changes": {}, "comment": f"{RIGHT}\n{RS2_FAILED}"}
    assert managed(lb1) == right
    assert managed(lb1, test=True) == right
    assert weights(lb1) == {"41": 50, "42": 0}


def test_a_highstate_takes_out_what_is_known_to_be_dead(lb1: Minion) -> None:
    found(rs1=up(), rs2=down())
    changes = {
        "tcp 10.10.10.10:80 -> 10.10.10.42:80": {"old": {"weight": 50}, "new": {"weight": 0}}
    }
    operation = "- change real server 10.10.10.42:80 of tcp 10.10.10.10:80"
    assert managed(lb1, test=True) == {
        "result": None,
        "changes": changes,
        "comment": f"The IPVS table would be changed:\n{operation}\n{RS2_FAILED}",
    }
    assert weights(lb1) == {"41": 50, "42": 50}
    assert managed(lb1) == {
        "result": True,
        "changes": changes,
        "comment": f"The IPVS table was changed:\n{operation}\n{RS2_FAILED}",
    }
    assert weights(lb1) == {"41": 50, "42": 0}
    assert lb1.call("ipvs.apply") == {
        "operations": [],
        "changes": {},
        "left": [],
        "notes": [RS2_FAILED],
    }


def test_who_is_unknown_after_a_restart_is_neither_put_back_nor_taken_out(lb1: Minion) -> None:
    unknown = Found("unknown", None, overlay.clock(), "not asked yet")
    found(rs1=unknown, rs2=unknown)
    lb1.call("ipvs.set_weight", "web", "rs2", 0)
    assert lb1.call("ipvs.apply")["operations"] == []
    assert weights(lb1) == {"41": 50, "42": 0}


def test_without_verdicts_the_pillar_counts(lb1: Minion) -> None:
    lb1.call("ipvs.set_weight", "web", "rs2", 0)
    assert managed(lb1)["result"] is True
    assert weights(lb1) == {"41": 50, "42": 50}


def test_verdicts_of_another_boot_are_none(lb1: Minion) -> None:
    overlay.write(Verdicts("another", overlay.clock(), {("web", "rs2"): down()}))
    assert lb1.call("ipvs.apply")["notes"] == []
    assert weights(lb1) == {"41": 50, "42": 50}


@pytest.mark.parametrize("weight", [0, 50])
def test_with_stale_verdicts_what_stands_stays(lb1: Minion, weight: int) -> None:
    lb1.call("ipvs.set_weight", "web", "rs2", weight)
    found(seconds_ago=600, rs1=up(), rs2=down())
    answer = managed(lb1)
    assert (answer["result"], answer["changes"]) == (True, {})
    assert answer["comment"].split("\n")[:2] == [
        RIGHT,
        "the real servers were last checked 10 minutes ago: what was found then holds, until the "
        "beacon real_server runs again",
    ]
    assert weights(lb1) == {"41": 50, "42": weight}


def test_damaged_verdicts_change_nothing(lb1: Minion) -> None:
    found(rs1=up(), rs2=down())
    lb1.call("ipvs.set_weight", "web", "rs2", 0)
    Path(overlay.HEALTH).write_text("{")
    answer = managed(lb1)
    assert answer["result"] is False
    assert f"{overlay.HEALTH} is damaged" in answer["comment"]
    assert weights(lb1) == {"41": 50, "42": 0}


# --------------------------------------------------------------------------------------------------
# Wishes


def test_a_drain_outlives_highstates_and_boots(lb1: Minion) -> None:
    lb1.state("ipvs.at_boot", "the boot")
    done = lb1.call("lvs.drain", "rs1", why="new disk")
    assert done == {
        "operations": ["change real server 10.10.10.41:80 of tcp 10.10.10.10:80"],
        "changes": {
            "tcp 10.10.10.10:80 -> 10.10.10.41:80": {"old": {"weight": 50}, "new": {"weight": 0}}
        },
        "left": [],
        "drained": True,
        "active_connections": {"web": 0},
        "progress": [{"after": 0.0, "active_connections": {"web": 0}}],
    }
    note = "rs1 of web has weight 0 instead of 50: drained by an operator: new disk"
    assert managed(lb1) == {"result": True, "changes": {}, "comment": f"{RIGHT}\n{note}"}
    assert lb1.call("ipvs.plan_at_boot")["operations"] == []
    # A boot: nothing in the kernel, nothing known of health, and no Salt yet.
    run("ipvsadm -C")
    with open(boot.RULES, encoding="ascii") as rules:
        subprocess.run(["ipvsadm", "-R"], stdin=rules, check=True)
    assert weights(lb1) == {"41": 0, "42": 50}
    assert managed(lb1)["changes"] == {}
    assert lb1.call("lvs.undrain", "rs1")["operations"] == done["operations"]
    assert weights(lb1) == {"41": 50, "42": 50}
    assert managed(lb1) == {"result": True, "changes": {}, "comment": RIGHT}
    assert lb1.call("ipvs.plan_at_boot")["operations"] == []


def test_a_drained_one_that_is_well_stays_out(lb1: Minion) -> None:
    found(rs1=up(), rs2=up())
    lb1.call("lvs.drain", "rs1", "web")
    lb1.call("lvs.reweight")
    assert weights(lb1) == {"41": 0, "42": 50}
    lb1.call("lvs.undrain", "rs1")
    assert weights(lb1) == {"41": 50, "42": 50}


def test_a_host_that_is_drained_may_serve_in_one_virtual_server(lb1: Minion) -> None:
    lb1.call("lvs.drain", "rs1")
    lb1.call("lvs.undrain", "rs1", "web")
    assert weights(lb1) == {"41": 50, "42": 50}
    lb1.call("lvs.undrain", "rs1")
    assert wishes.read().wishes.keys() <= {("web", "rs1")}


def test_maintenance_goes_before_all(lb1: Minion) -> None:
    lb1.call("lvs.set_weight", "web", "rs1", 7)
    lb1.call("lvs.maintenance", "rs1", why="kernel")
    assert weights(lb1) == {"41": 0, "42": 50}
    lb1.call("lvs.maintenance", "rs1", False)
    assert weights(lb1) == {"41": 7, "42": 50}
    lb1.call("lvs.set_weight", "web", "rs1", None)
    assert weights(lb1) == {"41": 50, "42": 50}
    assert wishes.read().wishes == {}


def test_a_weight_ends_with_its_time(lb1: Minion) -> None:
    lb1.call("lvs.set_weight", "web", "rs1", 7, seconds=0.5)
    assert weights(lb1) == {"41": 7, "42": 50}
    run("sleep 0.6")
    assert lb1.call("ipvs.apply")["notes"] == []
    assert weights(lb1) == {"41": 50, "42": 50}


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("lvs.drain", ["rs9"], "real_server is 'rs9'; it should be the name of one in the pillar"),
        ("lvs.drain", ["rs1", "mail"], "virtual_server is 'mail'"),
        ("lvs.drain", ["rs1", None, -1], "wait is -1"),
        ("lvs.set_weight", ["web", "rs1", 70000], "weight is 70000"),
        ("lvs.set_weight", ["web", "rs1", True], "weight is True"),
        ("lvs.maintenance", ["rs1", "off"], "on is 'off'"),
        ("lvs.health", ["mail"], "virtual_server is 'mail'"),
        ("lvs.reweight", ["mail"], "virtual_server is 'mail'"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    lb1: Minion, function: str, arguments: list[Any], message: str
) -> None:
    with pytest.raises(SaltInvocationError, match=message.replace("[", "\\[")):
        lb1.call(function, *arguments)
    assert not os.path.exists(wishes.WISHES)
    assert weights(lb1) == {"41": 50, "42": 50}


def test_a_real_server_has_no_table_to_drain(minion: Callable[..., Minion]) -> None:
    with pytest.raises(CommandExecutionError, match="rs1 is no director"):
        minion("rs1").call("lvs.drain", "rs1")


def test_a_drain_waits_for_open_connections(minion: Callable[..., Minion]) -> None:
    director = served(minion)
    with socket.create_connection(("10.10.10.10", 80), 5):
        done = director.call("lvs.drain", "rs1", wait=1)
    assert (done["drained"], done["active_connections"]) == (False, {"web": 1})
    assert done["progress"] == [{"after": 0.0, "active_connections": {"web": 1}}]


def served(minion: Callable[..., Minion], **settings: Any) -> Minion:
    """A director, and a real server on the same machine: masqueraded, on addresses of its own."""
    run("modprobe -a ip_vs ip_vs_wlc ip_vs_rr")
    for address in ("10.10.10.10", "10.20.0.41", "10.20.0.42"):
        ip(f"address add {address}/32 dev lo")
    global _listener
    _listener = socket.create_server(("10.20.0.41", 8080))
    pillar = example("production")
    pillar["lvs"]["real_servers"] = {"rs1": "10.20.0.41", "rs2": "10.20.0.42"}
    pillar["lvs"]["virtual_servers"] = {
        "web": {
            "address": "10.10.10.10",
            "port": 80,
            "forward": "masq",
            "scheduler": "rr",
            "min_in_service": 0,
            "check": {"types": ["tcp"], "connect_timeout": 1},
            "real_servers": {"rs1": {"port": 8080}, "rs2": {"port": 8080, "weight": 0}},
            **settings,
        }
    }
    director = minion("lb1", pillar)
    director.call("ipvs.apply")
    return director


_listener: socket.socket | None = None


def test_without_a_watcher_reweight_asks_and_remembers(minion: Callable[..., Minion]) -> None:
    both = {"rs1": {"port": 8080, "weight": 5}, "rs2": {"port": 8080, "weight": 5}}
    director = served(minion, real_servers=both)
    assert director.call("lvs.reweight")["changes"] == {
        "tcp 10.10.10.10:80 -> 10.20.0.42:8080": {"old": {"weight": 5}, "new": {"weight": 0}}
    }
    assert weights(director) == {"41": 5, "42": 0}
    assert managed(director)["changes"] == {}
    health = director.call("lvs.health")
    assert (health["watched"], health["virtual_servers"]["web"]["quorum"]) == (False, True)
    told = health["virtual_servers"]["web"]["real_servers"]
    assert [(one["state"], one["weight"], one["configured"]) for one in told.values()] == [
        ("up", 5, 5),
        ("down", 0, 5),
    ]


def test_nobody_knows_anything_before_the_first_check(lb1: Minion) -> None:
    told = lb1.call("lvs.health")
    assert (told["watched"], told["age"]) == (False, None)
    rs1 = told["virtual_servers"]["web"]["real_servers"]["rs1"]
    assert {key: rs1[key] for key in ("state", "since", "weight", "configured", "why", "wish")} == {
        "state": "unknown",
        "since": None,
        "weight": 50,
        "configured": 50,
        "why": "",
        "wish": None,
    }


SORRY = {
    "sorry_server": {"address": "10.10.10.49"},
    "real_servers": {"rs1": {"weight": 50}, "rs2": {"weight": 50}},
}


@pytest.mark.parametrize("on_failure", ["drain", "remove"])
def test_the_sorry_server_comes_when_all_have_failed_and_goes_again(
    minion: Callable[..., Minion], on_failure: str
) -> None:
    run("modprobe -a ip_vs ip_vs_wlc")
    pillar = example("production")
    pillar["lvs"]["virtual_servers"]["web"].update(SORRY, on_failure=on_failure)
    director = minion("lb1", pillar)
    director.call("ipvs.apply")
    found(rs1=down(), rs2=down())
    dead = {"41": 0, "42": 0} if on_failure == "drain" else {}
    director.call("lvs.reweight")
    assert weights(director) == {**dead, "49": 1}
    assert managed(director)["changes"] == {}
    found(rs1=up(), rs2=up())
    director.call("lvs.reweight")
    assert weights(director) == {"41": 50, "42": 50}
    assert managed(director) == {"result": True, "changes": {}, "comment": RIGHT}


def test_the_description_is_kept_without_passwords(lb1: Minion) -> None:
    lb1.state("ipvs.at_boot", "the boot")
    kept = description.read()
    assert kept is not None
    again, pillar = model.from_pillar(kept), model.from_pillar(example("production"))
    assert (again.virtual_servers, again.real_servers) == (
        pillar.virtual_servers,
        pillar.real_servers,
    )
    assert list(again.directors) == ["lb1"]
    assert "MY_PASS" not in Path(description.PATH).read_text()
    assert Path(description.PATH).stat().st_mode & 0o777 == 0o600
