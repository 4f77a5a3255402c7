"""The ipvs module and states through Salt's loader, on a real table."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

from tests.functional.conftest import Minion, example, minion
from tests.kernel.commands import ipvsadm
from tests.lab.namespaces import named_network

pytestmark = pytest.mark.usefixtures("netns")
__all__ = ["minion"]

WEB = "tcp 10.10.10.10:80"
RS1, RS2 = "10.10.10.41:80", "10.10.10.42:80"
Call = Callable[..., Any]


@pytest.fixture
def lb1(minion: Callable[..., Minion]) -> Minion:
    """A director of the production example, its table as the pillar says."""
    director = minion("lb1")
    director.call("ipvs.apply")
    return director


@pytest.fixture
def bare(minion: Callable[..., Minion]) -> Minion:
    """A minion whose pillar knows no cluster."""
    return minion("lb1", {"other": "things"})


def weights(director: Minion) -> dict[str, int]:
    servers = director.call("ipvs.get", "web")["real_servers"]
    return {name: server["weight"] for name, server in servers.items()}


def test_a_virtual_server_is_told_whole(lb1: Minion) -> None:
    told = lb1.call("ipvs.get", "web")
    assert lb1.call("ipvs.list") == {WEB: told}
    assert lb1.call("ipvs.get", WEB) == told
    assert told == {
        "protocol": "tcp",
        "address": "10.10.10.10",
        "port": 80,
        "scheduler": "wlc",
        "persistence": 5,
        "netmask": 32,
        "one_packet": False,
        "scheduler_flags": [],
        "persistence_engine": "",
        "real_servers": {
            name: {
                "address": name.partition(":")[0],
                "port": 80,
                "forward": "direct",
                "weight": 50,
                "upper_threshold": 0,
                "lower_threshold": 0,
                "active_connections": 0,
                "inactive_connections": 0,
                "persistent_connections": 0,
            }
            for name in (RS1, RS2)
        },
    }
    assert json.loads(json.dumps(told)) == told


def test_a_virtual_server_that_is_not_there_is_empty(lb1: Minion) -> None:
    assert lb1.call("ipvs.get", "tcp 10.10.10.10:81") == {}


def test_a_real_server_is_drained_by_name_and_the_next_apply_sets_it_back(lb1: Minion) -> None:
    assert lb1.call("ipvs.set_weight", "web", "rs1", 0) == {
        "operations": [f"change real server {RS1} of {WEB}"],
        "changes": {f"{WEB} -> {RS1}": {"old": {"weight": 50}, "new": {"weight": 0}}},
        "left": [],
    }
    assert weights(lb1) == {RS1: 0, RS2: 50}
    assert lb1.call("ipvs.set_weight", "web", "rs1", 0)["changes"] == {}
    lb1.call("ipvs.apply")
    assert weights(lb1) == {RS1: 50, RS2: 50}


def test_what_is_not_named_stays(lb1: Minion) -> None:
    lb1.call("ipvs.set_virtual_server", "web", scheduler="sh", scheduler_flags=["port"])
    lb1.call("ipvs.set_real_server", "web", RS1, upper_threshold=100)
    lb1.call("ipvs.set_virtual_server", "web", persistence=300)
    lb1.call("ipvs.set_real_server", "web", "rs1", forward="masq")
    assert ipvsadm("-Sn") == (
        "-A -t 10.10.10.10:80 -s sh -p 300 -b sh-port\n"
        "-a -t 10.10.10.10:80 -r 10.10.10.41:80 -m -w 50\n"
        "-a -t 10.10.10.10:80 -r 10.10.10.42:80 -g -w 50\n"
    )
    assert lb1.call("ipvs.get", "web")["real_servers"][RS1]["upper_threshold"] == 100


def test_servers_come_and_go_on_a_minion_without_a_cluster(bare: Minion) -> None:
    bare.call("ipvs.add_virtual_server", "fwmark 7", scheduler="rr")
    bare.call("ipvs.add_virtual_server", "10.10.10.10:80", persistence=60, netmask=24)
    bare.call("ipvs.add_real_server", WEB, "10.10.10.41:8080", weight=5)
    bare.call(
        *("ipvs.add_real_server", "fwmark 7", "10.10.10.41"),
        forward="tunnel",
        tunnel_type="gue",
        tunnel_port=6080,
    )
    assert ipvsadm("-Sn") == (
        "-A -t 10.10.10.10:80 -s wlc -p 60 -M 255.255.255.0\n"
        "-a -t 10.10.10.10:80 -r 10.10.10.41:80 -g -w 5\n"
        "-A -f 7 -s rr\n"
        "-a -f 7 -r 10.10.10.41:0 -i -w 1 --tun-type gue --tun-port 6080 --tun-nocsum\n"
    )
    bare.call("ipvs.delete_real_server", WEB, "10.10.10.41")
    bare.call("ipvs.delete_virtual_server", "fwmark 7")
    assert ipvsadm("-Sn") == "-A -t 10.10.10.10:80 -s wlc -p 60 -M 255.255.255.0\n"
    assert bare.call("ipvs.delete_virtual_server", "fwmark 7")["changes"] == {}
    assert bare.call("ipvs.delete_real_server", WEB, "10.10.10.41")["changes"] == {}


REFUSED = {
    "what is there already": (
        ("ipvs.add_virtual_server", "web"),
        f"{WEB} is there already; ipvs.set_virtual_server changes it",
    ),
    "a real server that is there already": (
        ("ipvs.add_real_server", "web", "rs1"),
        f"{RS1} of {WEB} is there already; ipvs.set_real_server changes it",
    ),
    "a virtual server that is not there": (
        ("ipvs.set_virtual_server", "tcp 10.10.10.10:81"),
        "there is no virtual server tcp 10.10.10.10:81",
    ),
    "a real server that is not there": (
        ("ipvs.set_weight", "web", "10.10.10.49", 5),
        f"10.10.10.49 is no real server of {WEB}",
    ),
}


@pytest.mark.parametrize(("call", "told"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_done_is_refused(lb1: Minion, call: tuple[Any, ...], told: str) -> None:
    with pytest.raises(CommandExecutionError) as caught:
        lb1.call(*call)
    assert str(caught.value) == told
    assert lb1.call("ipvs.plan")["operations"] == []


WRONG = {
    "a weight beyond the kernel's": (
        ("ipvs.set_weight", "web", "rs1", 65536),
        f"{WEB} -> {RS1}:weight is 65536; it should be a whole number from 0 to 65535",
    ),
    "a weight in words": (
        ("ipvs.set_weight", "web", "rs1", "all"),
        f"{WEB} -> {RS1}:weight is 'all'; it should be a whole number from 0 to 65535",
    ),
    "a way to forward that there is not": (
        ("ipvs.add_real_server", "web", "10.10.10.43", "dr"),
        f"{WEB} -> 10.10.10.43:80:forward is 'dr'; it should be one of masq, tunnel, direct, local",
    ),
    "a virtual server of no form": (
        ("ipvs.get", "the web"),
        "virtual_server is 'the web'; it should be 'tcp 10.10.10.10:80', 'udp [fd00::10]:53', "
        "'fwmark 7' or 'fwmark 7 (IPv6)'",
    ),
    "neither a table nor a path": (
        ("ipvs.restore",),
        "table is missing; it should be given, or a path instead",
    ),
    "a table and a path": (
        ("ipvs.restore", {}, "/root/ipvs.json"),
        "table is 'given'; it should be left out where a path is given",
    ),
    "a purge that would leave nothing": (
        ("ipvs.restore", "", None, True),
        "table is missing; it should be a table with one virtual server at least; to delete all: "
        "ipvs.flush confirm=True",
    ),
    "a path that depends on where the minion was started": (
        ("ipvs.save", "ipvs.json"),
        "path is 'ipvs.json'; it should be an absolute path on this minion",
    ),
    "something to delete beside the pillar": (
        ("ipvs.apply", None, True, None, "web"),
        "absent is 'web'; it should be left out, or given with a table",
    ),
    "text that is neither form": (
        ("ipvs.restore", '{"tcp 10.10.10.10:80": '),
        "table is '{\"tcp 10.10.10.10:80\": '; it should be JSON: Expecting value: line 1 column "
        "24 (char 23)",
    ),
    "a file that is not there": (
        ("ipvs.restore", None, "/nowhere"),
        "path is '/nowhere'; it should be a file on this minion",
    ),
}


@pytest.mark.parametrize(("call", "told"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_told(lb1: Minion, call: tuple[Any, ...], told: str) -> None:
    with pytest.raises(SaltInvocationError) as caught:
        lb1.call(*call)
    assert str(caught.value) == told


def test_a_file_that_is_no_table_is_not_quoted(lb1: Minion, tmp_path: Path) -> None:
    path = tmp_path / "shadow"
    for text, place in {
        "root:$y$secret:1:\n": f"{path}, line 1",
        '{"password": "secret"}': str(path),
        '{"password": ': str(path),
    }.items():
        path.write_text(text)
        with pytest.raises(SaltInvocationError) as caught:
            lb1.call("ipvs.restore", path=str(path))
        form = "in the form of ipvs.save or of ipvsadm -S -n"
        assert str(caught.value) == f"{place} is **********; it should be {form}"


def test_one_looks_while_the_pillar_is_wrong(minion: Callable[..., Minion]) -> None:
    pillar = example("production")
    pillar["lvs"]["virtual_servers"]["web"]["port"] = 70000
    director = minion("lb1", pillar)
    ipvsadm("-A", "-t", "10.10.10.10:80", "-s", "rr")
    assert director.call("ipvs.get", WEB)["scheduler"] == "rr"
    assert director.call("ipvs.connections")["total"] == 0
    assert director.call("ipvs.zero", WEB) is not None
    with pytest.raises(SaltInvocationError, match="lvs:virtual_servers:web:port is 70000"):
        director.call("ipvs.set_weight", WEB, "10.10.10.41", 0)


def test_what_keepalived_keeps_is_refused(minion: Callable[..., Minion]) -> None:
    pillar = example("production")
    web = pillar["lvs"]["virtual_servers"]["web"]
    for setting in ("on_failure", "min_in_service", "slow_start", "check"):
        web.pop(setting, None)
    web["managed_by"] = "keepalived"
    director = minion("lb1", pillar)
    ipvsadm("-A", "-t", "10.10.10.10:80", "-s", "rr")
    with pytest.raises(CommandExecutionError, match=f"keepalived keeps {WEB}, as the pillar says"):
        director.call("ipvs.delete_virtual_server", "web")
    for state in (("ipvs.virtual_server", WEB), ("ipvs.absent", WEB)):
        answer = director.state(*state)
        assert (answer["result"], answer["changes"]) == (False, {})
        assert answer["comment"].startswith(f"keepalived keeps {WEB}")
    other = {"tcp 10.10.10.11:80": {"scheduler": "rr"}, WEB: {"scheduler": "wlc"}}
    assert director.call("ipvs.restore", other, purge=True)["left_alone"] == [WEB]
    assert ipvsadm("-Sn") == "-A -t 10.10.10.10:80 -s rr\n-A -t 10.10.10.11:80 -s rr\n"


def test_a_saved_table_is_restored_whole(lb1: Minion, tmp_path: Path) -> None:
    lb1.call("ipvs.set_real_server", "web", "rs1", upper_threshold=9, lower_threshold=8)
    path = str(tmp_path / "table.json")
    saved = lb1.call("ipvs.save")
    assert lb1.call("ipvs.save", path) == path
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
    assert json.loads(Path(path).read_text()) == saved
    ipvsadm("-C")
    ipvsadm("-A", "-t", "10.10.10.11:80")
    planned = lb1.call("ipvs.restore", path=path, purge=True, test=True)
    done = lb1.call("ipvs.restore", path=path, purge=True)
    assert planned == done
    assert done["operations"][-1] == "delete virtual server tcp 10.10.10.11:80"
    assert lb1.call("ipvs.save") == saved
    assert lb1.call("ipvs.restore", saved, purge=True)["operations"] == []


def test_what_ipvsadm_saved_is_restored(lb1: Minion) -> None:
    saved = ipvsadm("-Sn")
    ipvsadm("-C")
    assert len(lb1.call("ipvs.restore", saved)["operations"]) == 3
    assert ipvsadm("-Sn") == saved
    assert lb1.call("ipvs.restore", saved)["operations"] == []


def test_another_network_namespace_is_served(lb1: Minion) -> None:
    with named_network("elsewhere"):
        assert lb1.call("ipvs.list", netns="elsewhere") == {}
        lb1.call("ipvs.apply", netns="elsewhere")
        lb1.call("ipvs.set_weight", "web", "rs1", 7, netns="elsewhere")
        theirs = lb1.call("ipvs.get", "web", netns="elsewhere")
    assert theirs["real_servers"][RS1]["weight"] == 7
    assert weights(lb1) == {RS1: 50, RS2: 50}


# --------------------------------------------------------------------------------------------------
# States

SERVERS = {"10.10.10.41:80": {"weight": 50}, "10.10.10.42": None}
FILLED = {
    WEB: {"old": None, "new": {"scheduler": "rr", "persistence": 5}},
    f"{WEB} -> {RS1}": {"old": None, "new": {"forward": "direct", "weight": 50}},
    f"{WEB} -> {RS2}": {"old": None, "new": {"forward": "direct", "weight": 1}},
}
STEPS = (
    f"- add virtual server {WEB}\n"
    f"- add real server {RS1} of {WEB}\n"
    f"- add real server {RS2} of {WEB}"
)


def test_the_state_of_one_virtual_server(bare: Minion) -> None:
    arguments = {"scheduler": "rr", "persistence": 5, "real_servers": SERVERS}
    state = ("ipvs.virtual_server", WEB)
    assert bare.state(*state, test=True, **arguments) == {
        "name": WEB,
        "result": None,
        "changes": FILLED,
        "comment": f"Virtual server {WEB} would be changed:\n{STEPS}",
    }
    assert ipvsadm("-Sn") == ""
    assert bare.state(*state, **arguments) == {
        "name": WEB,
        "result": True,
        "changes": FILLED,
        "comment": f"Virtual server {WEB} was changed:\n{STEPS}",
    }
    for test in (True, False):
        assert bare.state(*state, test=test, **arguments) == {
            "name": WEB,
            "result": True,
            "changes": {},
            "comment": f"Virtual server {WEB} is as it should be.",
        }


def test_the_state_of_a_virtual_server_that_shall_not_be(bare: Minion) -> None:
    ipvsadm("-A", "-t", "10.10.10.10:80", "-s", "wlc")
    ipvsadm("-A", "-t", "10.10.10.11:80", "-s", "wlc")
    gone = {WEB: {"old": {"scheduler": "wlc"}, "new": None}}
    state = ("ipvs.absent", WEB)
    would = bare.state(*state, test=True)
    assert (would["result"], would["changes"]) == (None, gone)
    done = bare.state(*state)
    assert (done["result"], done["changes"]) == (True, gone)
    assert ipvsadm("-Sn") == "-A -t 10.10.10.11:80 -s wlc\n"
    assert bare.state(*state) == {
        "name": WEB,
        "result": True,
        "changes": {},
        "comment": f"Virtual server {WEB} is absent.",
    }


def test_the_state_of_a_whole_table_that_is_written_in_the_sls(bare: Minion) -> None:
    ipvsadm("-A", "-t", "10.10.10.11:80", "-s", "wlc")
    table = {WEB: {"scheduler": "rr", "persistence": 5, "real_servers": SERVERS}}
    assert bare.state("ipvs.managed", "table", table=table)["changes"] == FILLED
    done = bare.state("ipvs.managed", "table", table=table, purge=True)
    assert done["changes"] == {
        "tcp 10.10.10.11:80": {"old": {"scheduler": "wlc"}, "new": None},
    }
    assert bare.state("ipvs.managed", "table", table=table, purge=True)["changes"] == {}


def test_a_state_with_a_wrong_value_changes_nothing(bare: Minion) -> None:
    answer = bare.state("ipvs.virtual_server", WEB, scheduler="rr", persistence=-1)
    assert answer == {
        "name": WEB,
        "result": False,
        "changes": {},
        "comment": f"table:{WEB}:persistence is -1; it should be a whole number from 0 to 2678400",
    }
    assert ipvsadm("-Sn") == ""


def test_what_was_done_beside_a_refusal_is_reported_and_the_next_run_completes_it(
    bare: Minion,
) -> None:
    other = "tcp 10.10.10.11:80"
    table = {
        WEB: {"scheduler": "nosuch", "real_servers": SERVERS},
        other: {"scheduler": "rr", "real_servers": {"10.10.10.41:80": None}},
    }
    answer = bare.state("ipvs.managed", "table", table=table)
    assert (answer["result"], answer["changes"]) == (
        False,
        {
            other: {"old": None, "new": {"scheduler": "rr"}},
            f"{other} -> {RS1}": {"old": None, "new": {"forward": "direct", "weight": 1}},
        },
    )
    assert "2 of 5 operations were carried out" in answer["comment"]
    table[WEB].update(scheduler="rr", persistence=5)
    assert bare.state("ipvs.managed", "table", table=table)["changes"] == FILLED


def test_a_kernel_that_refuses_is_quoted(bare: Minion) -> None:
    answer = bare.state("ipvs.virtual_server", WEB, scheduler="nosuch")
    assert (answer["result"], answer["changes"]) == (False, {})
    assert answer["comment"] == (
        f"cannot add virtual server {WEB}: No such file or directory (ENOENT); is the scheduler "
        "there? modprobe -a ip_vs_nosuch; 0 of 1 operations were carried out; the next apply "
        "completes them"
    )
