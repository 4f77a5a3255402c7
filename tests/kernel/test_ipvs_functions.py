"""Salt's functions and states for what IPVS has beside its table, on the lab's kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError
from saltext.lvs import sysctls

from tests.functional.conftest import Minion, example
from tests.kernel.commands import run

pytestmark = pytest.mark.usefixtures("netns", "table")

ETH0 = {
    "interface": "eth0",
    "syncid": 10,
    "multicast_group": "224.0.0.81",
    "port": 8848,
    "ttl": 1,
    "maxlen": 1472,
}
NODEST, QUIESCENT = (line.name for line in sysctls.DIRECTOR)
KEPT = "keepalived keeps the sync daemon, as the pillar says: change it there"
NOTHING = {
    "connections": 0,
    "incoming_packets": 0,
    "outgoing_packets": 0,
    "incoming_bytes": 0,
    "outgoing_bytes": 0,
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Minion:
    """A minion without a pillar."""
    return Minion("lb1", {}, tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module")
def lb1(tmp_path_factory: pytest.TempPathFactory) -> Minion:
    """A director of the example cluster, where keepalived has a sync daemon, and one virtual server
    more than in the example is keepalived's.
    """
    pillar = example("production")
    web = pillar["lvs"]["virtual_servers"]["web"]
    theirs = {**web, "port": 443, "managed_by": "keepalived"}
    theirs["check"] = {"types": ["tcp"]}
    pillar["lvs"]["virtual_servers"]["theirs"] = theirs
    return Minion("lb1", pillar, tmp_path_factory.mktemp("lb1"))


@pytest.fixture
def table(netns: None) -> None:
    """Two virtual servers by another's hand, and a network card."""
    run("modprobe ip_vs")
    run("ip link add eth0 type dummy")
    run("ip address add 10.10.10.11/24 dev eth0")
    run("ip link set eth0 up")
    for port in (80, 443):
        run(f"ipvsadm -A -t 10.10.10.10:{port} -s wlc")
        run(f"ipvsadm -a -t 10.10.10.10:{port} -r 10.10.10.41:{port} -g")


def applied(minion: Minion, function: str, name: str, **arguments: Any) -> list[dict[str, Any]]:
    """A state in test mode, for real, and for real again: each answer without its name."""
    answers = [
        minion.state(function, name, test=True, **arguments),
        minion.state(function, name, **arguments),
        minion.state(function, name, **arguments),
    ]
    assert {answer.pop("name") for answer in answers} == {name}
    return answers


# --------------------------------------------------------------------------------------------------
# Timeouts


def test_timeouts_are_told_and_set(alone: Minion) -> None:
    assert alone.call("ipvs.timeouts") == {"tcp": 900, "tcpfin": 120, "udp": 300}
    changes = {"udp": {"old": 300, "new": 60}}
    assert alone.call("ipvs.set_timeouts", tcp=900, udp=60, test=True) == {"changes": changes}
    assert alone.call("ipvs.set_timeouts", tcp=900, udp=60) == {"changes": changes}
    assert alone.call("ipvs.set_timeouts", udp=60) == {"changes": {}}
    assert run("ipvsadm -L --timeout") == "Timeout (tcp tcpfin udp): 900 120 60\n"


def test_what_is_no_timeout_is_refused(alone: Minion) -> None:
    with pytest.raises(SaltInvocationError, match="^timeouts:tcp is 0; it should be"):
        alone.call("ipvs.set_timeouts", tcp=0)


def test_the_state_of_timeouts_announces_does_and_then_rests(alone: Minion) -> None:
    changes = {"tcp": {"old": 900, "new": 1800}}
    assert applied(alone, "ipvs.timeouts", "timeouts", tcp=1800, tcpfin=120) == [
        {"result": None, "changes": changes, "comment": "The timeouts would be changed."},
        {"result": True, "changes": changes, "comment": "The timeouts were changed."},
        {"result": True, "changes": {}, "comment": "The timeouts are as they should be."},
    ]
    assert alone.call("ipvs.timeouts") == {"tcp": 1800, "tcpfin": 120, "udp": 300}


def test_the_state_of_timeouts_fails_with_the_reason(alone: Minion) -> None:
    answer = alone.state("ipvs.timeouts", "timeouts", test=True)
    assert (answer["result"], answer["changes"]) == (False, {})
    assert answer["comment"].startswith("timeouts is missing; it should be at least one of tcp")


# --------------------------------------------------------------------------------------------------
# Synchronization daemons


def test_a_daemon_is_started_told_and_stopped(alone: Minion) -> None:
    started = {"master": {"old": None, "new": ETH0}}
    # In test mode the kernel has not chosen a length yet.
    announced = {"master": {"old": None, "new": {**ETH0, "maxlen": 0}}}
    assert alone.call("ipvs.start_sync_daemon", "master", "eth0", syncid=10, test=True) == {
        "changes": announced,
        "comment": "The master sync daemon is to be started.",
    }
    assert alone.call("ipvs.sync_daemons") == {}
    assert alone.call("ipvs.start_sync_daemon", "master", "eth0", syncid=10) == {
        "changes": started,
        "comment": "The master sync daemon was started.",
    }
    assert alone.call("ipvs.start_sync_daemon", "master", "eth0", syncid=10) == {
        "changes": {},
        "comment": "The master sync daemon runs with these settings already.",
    }
    assert alone.call("ipvs.sync_daemons") == {"master": ETH0}
    assert alone.call("ipvs.start_sync_daemon", "master", "eth0", syncid=11) == {
        "changes": {"master": {"old": ETH0, "new": {**ETH0, "syncid": 11}}},
        "comment": "The master sync daemon was started anew, with other settings.",
    }
    stopped = {
        "changes": {"master": {"old": {**ETH0, "syncid": 11}, "new": None}},
        "comment": "The master sync daemon was stopped.",
    }
    announced_stop = {**stopped, "comment": "The master sync daemon is to be stopped."}
    assert alone.call("ipvs.stop_sync_daemon", "master", test=True) == announced_stop
    assert alone.call("ipvs.stop_sync_daemon", "master") == stopped
    assert alone.call("ipvs.stop_sync_daemon", "master") == {
        "changes": {},
        "comment": "The master sync daemon does not run.",
    }


REFUSED: dict[str, tuple[str, tuple[str, ...]]] = {
    "to start": ("ipvs.start_sync_daemon", ("backup", "eth0")),
    "to stop": ("ipvs.stop_sync_daemon", ("backup",)),
}


@pytest.mark.parametrize(("function", "arguments"), REFUSED.values(), ids=REFUSED.keys())
def test_where_keepalived_has_the_daemon_we_refuse(
    lb1: Minion, function: str, arguments: tuple[str, ...]
) -> None:
    with pytest.raises(CommandExecutionError, match=f"^{KEPT}$"):
        lb1.call(function, *arguments)
    assert lb1.call("ipvs.sync_daemons") == {}


def test_a_daemon_without_an_interface_is_refused_by_its_path(alone: Minion) -> None:
    with pytest.raises(SaltInvocationError, match="^sync_daemon:interface is 'no such'"):
        alone.call("ipvs.start_sync_daemon", "backup", "no such")
    with pytest.raises(CommandExecutionError, match="on eth7: No such device"):
        alone.call("ipvs.start_sync_daemon", "backup", "eth7")
    with pytest.raises(SaltInvocationError, match="^state is 'both'; it should be one of"):
        alone.call("ipvs.stop_sync_daemon", "both")


def test_the_state_of_a_daemon_announces_does_and_then_rests(alone: Minion) -> None:
    new = {**ETH0, "maxlen": 1400}
    assert applied(
        alone, "ipvs.sync_daemon", "backup", interface="eth0", syncid=10, maxlen=1400
    ) == [
        {
            "result": None,
            "changes": {"backup": {"old": None, "new": new}},
            "comment": "The backup sync daemon is to be started.",
        },
        {
            "result": True,
            "changes": {"backup": {"old": None, "new": new}},
            "comment": "The backup sync daemon was started.",
        },
        {"result": True, "changes": {}, "comment": "The backup sync daemon runs as it should."},
    ]
    assert applied(alone, "ipvs.sync_daemon_absent", "backup") == [
        {
            "result": None,
            "changes": {"backup": {"old": new, "new": None}},
            "comment": "The backup sync daemon is to be stopped.",
        },
        {
            "result": True,
            "changes": {"backup": {"old": new, "new": None}},
            "comment": "The backup sync daemon was stopped.",
        },
        {"result": True, "changes": {}, "comment": "The backup sync daemon does not run."},
    ]


def test_the_state_of_a_daemon_fails_where_keepalived_has_it(lb1: Minion) -> None:
    answer = lb1.state("ipvs.sync_daemon", "backup", interface="eth0", test=True)
    assert answer == {"name": "backup", "result": False, "changes": {}, "comment": KEPT}


# --------------------------------------------------------------------------------------------------
# Statistics and connections


def test_statistics_are_told_by_server(lb1: Minion) -> None:
    per_second = dict.fromkeys(NOTHING, 0)
    told = {
        f"tcp 10.10.10.10:{port}": {
            **NOTHING,
            "per_second": per_second,
            "real_servers": {f"10.10.10.41:{port}": {**NOTHING, "per_second": per_second}},
        }
        for port in (80, 443)
    }
    assert lb1.call("ipvs.stats") == told
    assert list(lb1.call("ipvs.stats")) == list(told)
    one = {"tcp 10.10.10.10:80": told["tcp 10.10.10.10:80"]}
    assert lb1.call("ipvs.stats", interval=2, virtual_server="web") == one


def test_counters_are_zeroed(lb1: Minion) -> None:
    assert lb1.call("ipvs.zero", "web") is True
    assert lb1.call("ipvs.zero") is True
    with pytest.raises(CommandExecutionError, match="there is no such virtual server$"):
        lb1.call("ipvs.zero", "udp 10.10.10.10:53")


def test_connections_are_counted_by_names_of_the_pillar(lb1: Minion) -> None:
    none = {
        "total": 0,
        "templates": 0,
        "by_state": {},
        "by_real_server": {},
        "connections": [],
    }
    assert lb1.call("ipvs.connections", virtual_server="web", real_server="rs1") == none
    with pytest.raises(SaltInvocationError, match="^real_server is 'rs9'; it should be such as"):
        lb1.call("ipvs.connections", real_server="rs9")
    with pytest.raises(SaltInvocationError, match="^limit is 10001"):
        lb1.call("ipvs.connections", limit=10001)


# --------------------------------------------------------------------------------------------------
# The whole


def test_information_is_told(alone: Minion) -> None:
    told = alone.call("ipvs.info")
    assert (told["loaded"], told["version"]) == (True, "1.2.1")
    assert told["connection_table_size"] >= 256


@pytest.mark.parametrize("confirm", [False, None, 1, "True"])
def test_a_flush_has_to_be_confirmed(alone: Minion, confirm: Any) -> None:
    before = run("ipvsadm -Sn")
    with pytest.raises(SaltInvocationError, match="it should be True: this deletes every"):
        alone.call("ipvs.flush", confirm=confirm)
    assert run("ipvsadm -Sn") == before


def test_a_flush_empties_the_table(alone: Minion) -> None:
    done = alone.call("ipvs.flush", confirm=True)
    assert set(done["operations"]) == {
        "delete virtual server tcp 10.10.10.10:80",
        "delete virtual server tcp 10.10.10.10:443",
    }
    assert (done["left"], run("ipvsadm -Sn")) == ([], "")


def test_a_flush_leaves_what_keepalived_keeps(lb1: Minion) -> None:
    done = lb1.call("ipvs.flush", confirm=True)
    assert done["operations"] == ["delete virtual server tcp 10.10.10.10:80"]
    assert run("ipvsadm -Sn") == (
        "-A -t 10.10.10.10:443 -s wlc\n-a -t 10.10.10.10:443 -r 10.10.10.41:443 -g -w 1\n"
    )


def test_each_function_works_in_another_namespace(alone: Minion) -> None:
    run("ip netns add other")
    run("ip -n other link set lo up")
    try:
        netns = {"netns": "other"}
        assert alone.call("ipvs.set_timeouts", udp=77, **netns)["changes"]["udp"]["new"] == 77
        assert alone.call("ipvs.timeouts", **netns)["udp"] == 77
        assert alone.call("ipvs.timeouts")["udp"] == 300
        alone.call("ipvs.start_sync_daemon", "backup", "lo", **netns)
        assert set(alone.call("ipvs.sync_daemons", **netns)) == {"backup"}
        assert alone.call("ipvs.sync_daemons") == {}
        alone.call("ipvs.stop_sync_daemon", "backup", **netns)
        assert alone.call("ipvs.stats", **netns) == {}
        assert alone.call("ipvs.connections", **netns)["total"] == 0
        assert alone.call("ipvs.info", **netns)["version"] == "1.2.1"
        assert alone.call("ipvs.zero", **netns) is True
        assert alone.call("ipvs.flush", confirm=True, **netns)["operations"] == []
        assert alone.call("ipvs.sysctls", **netns)[NODEST]["now"] == "0"
        assert len(alone.call("ipvs.stats")) == 2
    finally:
        run("ip netns delete other")


# --------------------------------------------------------------------------------------------------
# Kernel settings


def test_kernel_settings_are_told_with_their_reasons(alone: Minion) -> None:
    told = alone.call("ipvs.sysctls", {"sloppy_tcp": 1, "net.ipv4.vs.of_tomorrow": 5})
    reasons = {line.name: line.reason for line in sysctls.DIRECTOR}
    assert told[NODEST] == {
        "now": "0",
        "wanted": "1",
        "default": "0",
        "reason": reasons[NODEST],
    }
    sloppy = told["net.ipv4.vs.sloppy_tcp"]
    assert (sloppy["now"], sloppy["wanted"], sloppy["default"]) == ("0", "1", "0")
    assert told["net.ipv4.vs.sync_threshold"]["now"] == "3 50"
    assert told["net.ipv4.vs.of_tomorrow"] == {
        "now": None,
        "wanted": "5",
        "default": None,
        "reason": "",
    }
    # What this kernel has is told, whether this version knows it or not.
    assert set(sysctls.read_ipvs()) <= set(told)


def changed(old: str, new: str, kept: str | None = None) -> dict[str, dict[str, str | None]]:
    return {"old": {"now": old, "kept": kept}, "new": {"now": new, "kept": new}}


def test_the_state_of_kernel_settings_announces_does_and_then_rests(
    alone: Minion, tmp_path: Path
) -> None:
    config = tmp_path / "sysctl.d" / "60-director.conf"
    changes = {
        NODEST: changed("0", "1"),
        QUIESCENT: changed("0", "1"),
        "net.ipv4.vs.sync_threshold": changed("3 50", "3 100"),
    }
    arguments = {"settings": {"sync_threshold": "3 100"}, "config": str(config)}
    announced = alone.state("ipvs.sysctls", "director", test=True, **arguments)
    assert not config.exists()
    done, again = (alone.state("ipvs.sysctls", "director", **arguments) for _ in range(2))
    head = "IPVS's kernel settings"
    assert [announced, done, again] == [
        {
            "name": "director",
            "result": None,
            "changes": changes,
            "comment": f"{head} would be changed.",
        },
        {
            "name": "director",
            "result": True,
            "changes": changes,
            "comment": f"{head} were changed.",
        },
        {
            "name": "director",
            "result": True,
            "changes": {},
            "comment": f"{head} are as they should be.",
        },
    ]
    now = sysctls.read_ipvs()
    assert [now[name] for name in changes] == ["1", "1", "3 100"]
    kept = [line for line in config.read_text().splitlines() if not line.startswith("#")]
    assert kept == [f"{name} = {change['new']['now']}" for name, change in changes.items()]


HALF: dict[str, tuple[str, dict[str, Any]]] = {
    "right in the kernel and not kept": (
        "sysctl -qw net.ipv4.vs.expire_nodest_conn=1",
        changed("1", "1"),
    ),
    "kept and not in the kernel": (
        "sysctl -qw net.ipv4.vs.expire_nodest_conn=0",
        changed("0", "1", "1"),
    ),
}


@pytest.mark.parametrize(("command", "change"), HALF.values(), ids=HALF.keys())
def test_what_is_half_right_is_made_whole(
    alone: Minion, tmp_path: Path, command: str, change: dict[str, Any]
) -> None:
    config = tmp_path / "60-director.conf"
    if change["old"]["kept"]:
        config.write_text(f"# by hand\n{NODEST}=1\n")
    run(command)
    arguments = {"settings": {"expire_quiescent_template": None}, "config": str(config)}
    announced, done, again = applied(alone, "ipvs.sysctls", "director", **arguments)
    assert announced["changes"] == done["changes"] == {NODEST: change}
    assert again["changes"] == {}
    assert sysctls.read_ipvs()[NODEST] == "1"
    assert sysctls.read_ipvs()[QUIESCENT] == "0"


def test_a_setting_that_this_kernel_has_not_is_told_and_is_no_error(
    alone: Minion, tmp_path: Path
) -> None:
    config = tmp_path / "60-director.conf"
    arguments = {"settings": {"of_tomorrow": 1}, "config": str(config)}
    answers = applied(alone, "ipvs.sysctls", "director", **arguments)
    assert [answer["result"] for answer in answers] == [None, True, True]
    for answer in answers:
        assert answer["comment"].endswith("\nThis kernel has no net.ipv4.vs.of_tomorrow.")
        assert set(answer["changes"]) <= {NODEST, QUIESCENT}
    assert "of_tomorrow" not in config.read_text()


def test_a_value_that_the_kernel_refuses_fails_and_tells_what_was_done(
    alone: Minion, tmp_path: Path
) -> None:
    config = tmp_path / "60-director.conf"
    arguments = {"settings": {"sync_ports": 1000}, "config": str(config)}
    answer = alone.state("ipvs.sysctls", "director", **arguments)
    assert answer["result"] is False
    assert set(answer["changes"]) == {NODEST, QUIESCENT}
    assert "net.ipv4.vs.sync_ports" in answer["comment"]
    assert "sync_ports" not in config.read_text()


NO_SETTINGS: dict[str, tuple[Any, str]] = {
    "a name from elsewhere": (
        {"net.ipv4.ip_forward": 1},
        "sysctls:net.ipv4.ip_forward is 1; it should be a setting below net.ipv4.vs.",
    ),
    "a word": (
        {"sloppy_tcp": "yes"},
        "sysctls:sloppy_tcp is 'yes'; it should be a whole number, or some of them as text",
    ),
    "True": (
        {"sloppy_tcp": True},
        "sysctls:sloppy_tcp is True; it should be a whole number, or some of them as text",
    ),
    "a list": (["sloppy_tcp"], "sysctls is ['sloppy_tcp']; it should be a mapping of names to "),
}


@pytest.mark.parametrize(("settings", "told"), NO_SETTINGS.values(), ids=NO_SETTINGS.keys())
def test_what_is_no_kernel_setting_is_refused(alone: Minion, settings: Any, told: str) -> None:
    answer = alone.state("ipvs.sysctls", "director", settings=settings, test=True)
    assert (answer["result"], answer["changes"]) == (False, {})
    assert answer["comment"].startswith(told)
