"""What IPVS has beside its table, under Salt's own loader and on a kernel without IPVS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError
from saltext.lvs import sysctls

from tests.functional.conftest import MinionMaker, example

NOT_LOADED = "this kernel has no IPVS loaded; load it with: modprobe ip_vs"


@pytest.fixture(autouse=True)
def no_ipvs(without_ipvs: None) -> None:
    """These are about a machine before its first highstate."""


def without_sync_daemon() -> dict[str, Any]:
    pillar = example("production")
    del pillar["lvs"]["sync_daemon"]
    return pillar


CALLS: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
    "statistics": ("ipvs.stats", (), {}),
    "statistics of one": ("ipvs.stats", (), {"virtual_server": "web", "interval": 2}),
    "connections": ("ipvs.connections", (), {}),
    "zeroed counters": ("ipvs.zero", (), {}),
    "an empty table": ("ipvs.flush", (), {"confirm": True}),
    "timeouts": ("ipvs.timeouts", (), {}),
    "other timeouts": ("ipvs.set_timeouts", (), {"tcp": 900}),
    "sync daemons": ("ipvs.sync_daemons", (), {}),
    # A card that every machine has.
    "a new sync daemon": ("ipvs.start_sync_daemon", ("master", "lo"), {}),
    "no sync daemon": ("ipvs.stop_sync_daemon", ("master",), {}),
}


@pytest.mark.parametrize(("function", "args", "kwargs"), CALLS.values(), ids=CALLS.keys())
def test_without_ipvs_there_are_no(
    minion: MinionMaker, function: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    with pytest.raises(CommandExecutionError, match=f"^{NOT_LOADED}$"):
        minion("lb1", without_sync_daemon()).call(function, *args, **kwargs)


def test_whether_there_is_ipvs_can_be_asked(minion: MinionMaker) -> None:
    assert minion("lb1").call("ipvs.info") == {
        "loaded": False,
        "version": None,
        "connection_table_size": None,
    }


def test_kernel_settings_are_known_before_the_kernel_has_them(minion: MinionMaker) -> None:
    told = minion("lb1").call("ipvs.sysctls")
    known = [line.name for line in (*sysctls.DIRECTOR, *sysctls.DIRECTOR_UNTOUCHED)]
    assert list(told) == known
    assert {line["now"] for line in told.values()} == {None}
    assert {name for name, line in told.items() if line["wanted"]} == {
        line.name for line in sysctls.DIRECTOR
    }


def test_arguments_are_checked_before_the_kernel_is_asked(minion: MinionMaker) -> None:
    lb1 = minion("lb1")
    with pytest.raises(SaltInvocationError, match="^interval is 1; it should be"):
        lb1.call("ipvs.stats", interval=1)
    with pytest.raises(SaltInvocationError, match="^confirm is False; it should be True"):
        lb1.call("ipvs.flush")
    with pytest.raises(SaltInvocationError, match="^netns is '../x'; it should be"):
        lb1.call("ipvs.timeouts", netns="../x")
    with pytest.raises(CommandExecutionError, match="^no network namespace nosuch: "):
        lb1.call("ipvs.timeouts", netns="nosuch")


STATES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "timeouts": (
        "ipvs.timeouts",
        {"udp": 60},
        {"udp": {"old": None, "new": 60}},
    ),
    "a sync daemon": (
        "ipvs.sync_daemon",
        {"interface": "eth0"},
        {
            "master": {
                "old": None,
                "new": {
                    "interface": "eth0",
                    "syncid": 0,
                    "multicast_group": "224.0.0.81",
                    "port": 8848,
                    "ttl": 1,
                    "maxlen": 0,
                },
            }
        },
    ),
    "kernel settings": (
        "ipvs.sysctls",
        {"config": "/nowhere/60-director.conf"},
        {
            line.name: {"old": {"now": None, "kept": None}, "new": {"now": "1", "kept": "1"}}
            for line in sysctls.DIRECTOR
        },
    ),
}


@pytest.mark.parametrize(("function", "arguments", "changes"), STATES.values(), ids=STATES.keys())
def test_test_mode_before_ipvs_is_loaded_announces_what_the_highstate_will_do(
    minion: MinionMaker, function: str, arguments: dict[str, Any], changes: dict[str, Any]
) -> None:
    lb1 = minion("lb1", without_sync_daemon())
    announced = lb1.state(function, "master", test=True, **arguments)
    assert (announced["result"], announced["changes"]) == (None, changes)
    failed = lb1.state(function, "master", **arguments)
    assert (failed["result"], failed["changes"]) == (False, {})
    assert failed["comment"].startswith("this kernel has no IPVS loaded")
    assert not Path("/nowhere").exists()


def test_no_daemon_is_what_a_kernel_without_ipvs_has(minion: MinionMaker) -> None:
    answer = minion("lb1", without_sync_daemon()).state(
        "ipvs.sync_daemon_absent", "backup", test=True
    )
    assert (answer["result"], answer["comment"]) == (True, "The backup sync daemon does not run.")


def test_a_real_server_of_the_cluster_may_have_a_daemon_of_its_own(minion: MinionMaker) -> None:
    planned = minion("rs1").call("ipvs.start_sync_daemon", "backup", "eth0", test=True)
    assert planned["comment"] == "The backup sync daemon is to be started."
