"""IPVS beside its table: what we set is what the kernel has, and what ipvsadm sees."""

from __future__ import annotations

import errno
import ipaddress
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given
from hypothesis import settings as hypothesis_settings
from saltext.lvs import ipvs, namespaces, settings, sysctls
from saltext.lvs.errors import KernelError
from saltext.lvs.settings import SyncDaemon, SyncState, Timeouts

from tests.kernel.commands import ipvsadm, run
from tests.unit.tables import key, real_server, table, virtual_server
from tests.unit.test_ipvs_settings import daemons, seconds

pytestmark = pytest.mark.usefixtures("netns", "interface")

WEB = "tcp 10.10.10.10:80"
SEED = table(
    virtual_server(WEB, real_server("10.10.10.41:80", 50), persistence=5),
    virtual_server("tcp 10.10.10.11:80", real_server("10.10.10.41:80", 50)),
)
DEFAULT = Timeouts(900, 120, 300)
bounded = hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def interface(netns: None) -> None:
    """An interface with addresses of both families, and IPVS."""
    run("modprobe ip_vs")
    run("ip link add eth0 type dummy")
    run("ip address add 10.10.10.11/24 dev eth0")
    run("ip address add fd00::11/64 dev eth0 nodad")
    run("ip link set eth0 up")


# --------------------------------------------------------------------------------------------------
# Timeouts


def told_timeouts() -> str:
    return ipvsadm("-L --timeout").strip()


def test_a_new_kernel_has_the_timeouts_that_we_predict() -> None:
    assert settings.read_timeouts() == settings.DEFAULT_TIMEOUTS == DEFAULT
    assert told_timeouts() == "Timeout (tcp tcpfin udp): 900 120 300"


def test_ipvsadm_and_we_read_each_others_timeouts() -> None:
    ipvsadm("--set 1800 60 30")
    assert settings.read_timeouts() == Timeouts(1800, 60, 30)
    settings.set_timeouts({"tcp": 901, "tcpfin": 121, "udp": 301})
    assert told_timeouts() == "Timeout (tcp tcpfin udp): 901 121 301"


@pytest.mark.parametrize("name", ["tcp", "tcpfin", "udp"])
def test_a_timeout_that_is_not_named_stays(name: str) -> None:
    changed = replace(DEFAULT, **{name: 77})
    assert settings.plan_timeouts({name: 77}) == (DEFAULT, changed)
    assert settings.read_timeouts() == DEFAULT
    assert settings.set_timeouts({name: 77}) == (DEFAULT, changed)
    assert settings.read_timeouts() == changed
    assert settings.set_timeouts({name: 77}) == (changed, changed)


@bounded
@given(seconds, seconds, seconds)
def test_any_timeouts_are_taken(tcp: int, tcpfin: int, udp: int) -> None:
    settings.set_timeouts({"tcp": tcp, "tcpfin": tcpfin, "udp": udp})
    assert settings.read_timeouts() == Timeouts(tcp, tcpfin, udp)


# --------------------------------------------------------------------------------------------------
# Synchronization daemons

ETH0 = SyncDaemon(SyncState.MASTER, "eth0")
# Ours, what the kernel makes of it, and ipvsadm's options for the same.
DAEMONS = {
    "a master with nothing said": (
        ETH0,
        replace(ETH0, maxlen=1472),
        "--start-daemon master --mcast-interface eth0",
        "master sync daemon (mcast=eth0, syncid=0, maxlen=1472, group=224.0.0.81, port=8848, "
        "ttl=1)",
    ),
    "a backup with a number": (
        replace(ETH0, state=SyncState.BACKUP, syncid=255),
        replace(ETH0, state=SyncState.BACKUP, syncid=255, maxlen=1472),
        "--start-daemon backup --mcast-interface eth0 --syncid 255",
        "backup sync daemon (mcast=eth0, syncid=255, maxlen=1472, group=224.0.0.81, port=8848, "
        "ttl=1)",
    ),
    "a master with everything said": (
        SyncDaemon(
            SyncState.MASTER, "eth0", 10, ipaddress.ip_address("239.1.2.3"), 9999, 255, 1400
        ),
        SyncDaemon(
            SyncState.MASTER, "eth0", 10, ipaddress.ip_address("239.1.2.3"), 9999, 255, 1400
        ),
        "--start-daemon master --mcast-interface eth0 --syncid 10 --mcast-group 239.1.2.3 "
        "--mcast-port 9999 --mcast-ttl 255 --sync-maxlen 1400",
        "master sync daemon (mcast=eth0, syncid=10, maxlen=1400, group=239.1.2.3, port=9999, "
        "ttl=255)",
    ),
    "a backup in an IPv6 group": (
        replace(ETH0, state=SyncState.BACKUP, multicast_group=ipaddress.ip_address("ff02::81")),
        replace(
            ETH0,
            state=SyncState.BACKUP,
            multicast_group=ipaddress.ip_address("ff02::81"),
            maxlen=1452,
        ),
        "--start-daemon backup --mcast-interface eth0 --mcast-group ff02::81",
        "backup sync daemon (mcast=eth0, syncid=0, maxlen=1452, group=ff02::81, port=8848, ttl=1)",
    ),
    "a master in an IPv6 group beyond the link": (
        replace(ETH0, multicast_group=ipaddress.ip_address("ff05::81"), ttl=3),
        replace(ETH0, multicast_group=ipaddress.ip_address("ff05::81"), ttl=3, maxlen=1452),
        "--start-daemon master --mcast-interface eth0 --mcast-group ff05::81 --mcast-ttl 3",
        "master sync daemon (mcast=eth0, syncid=0, maxlen=1452, group=ff05::81, port=8848, ttl=3)",
    ),
}


@pytest.mark.parametrize(
    ("wanted", "running", "options", "told"), DAEMONS.values(), ids=DAEMONS.keys()
)
def test_ipvsadm_and_we_read_each_others_daemons(
    wanted: SyncDaemon, running: SyncDaemon, options: str, told: str
) -> None:
    ipvsadm(options)
    assert settings.read_sync_daemons() == {running.state: running}
    assert settings.stop_sync_daemon(running.state) == running
    assert ipvsadm("-L --daemon") == ""
    assert settings.start_sync_daemon(wanted) == (None, running)
    assert ipvsadm("-L --daemon").strip() == told


@bounded
@given(daemons())
def test_any_daemon_is_taken(daemon: SyncDaemon) -> None:
    wanted = replace(daemon, interface="eth0")
    try:
        _, running = settings.start_sync_daemon(wanted)
    except KernelError as error:
        # A group of a scope that has no route here.
        assume(error.number not in (errno.ENETUNREACH, errno.EADDRNOTAVAIL))
        raise
    assert wanted.is_met_by(running)
    assert settings.start_sync_daemon(wanted) == (running, running)
    assert settings.stop_sync_daemon(wanted.state) == running
    assert settings.read_sync_daemons() == {}


def sockets() -> list[str]:
    """The inodes of the sockets that daemons on the usual port have: another one, another daemon.

    Their kernel threads would tell the same, but are not seen from another PID namespace.
    """
    port = f":{settings.SYNC_PORT:04X}"
    lines = Path("/proc/thread-self/net/udp").read_text().splitlines()[1:]
    columns = [line.split() for line in lines]
    return [words[9] for words in columns if port in words[1] + words[2]]


@pytest.fixture
def no_daemons() -> Iterator[None]:
    """The daemons of one test are gone before the next: their namespace takes its time to die."""
    yield
    for state in SyncState:
        settings.stop_sync_daemon(state)


@pytest.mark.usefixtures("no_daemons")
def test_a_daemon_that_runs_so_already_is_not_touched() -> None:
    settings.start_sync_daemon(ETH0)
    running = sockets()
    assert len(running) == 1
    assert settings.plan_sync_daemon(ETH0) == settings.start_sync_daemon(ETH0)
    assert sockets() == running


@pytest.mark.usefixtures("no_daemons")
def test_a_daemon_with_other_settings_is_started_anew() -> None:
    _, before = settings.start_sync_daemon(ETH0)
    other = replace(ETH0, syncid=7)
    assert settings.plan_sync_daemon(other) == (before, other)
    assert settings.read_sync_daemons() == {SyncState.MASTER: before}
    running = sockets()
    assert settings.start_sync_daemon(other) == (before, replace(before, syncid=7))
    assert sockets() not in ([], running)


def test_a_daemon_can_be_stopped_before_it_ever_ran() -> None:
    for _ in range(30):
        settings.start_sync_daemon(ETH0)
        settings.stop_sync_daemon(SyncState.MASTER)
        assert settings.read_sync_daemons() == {}
    assert sockets() == []


@pytest.mark.usefixtures("no_daemons")
def test_both_daemons_run_at_the_same_time_and_are_stopped_one_by_one() -> None:
    _, master = settings.start_sync_daemon(ETH0)
    _, backup = settings.start_sync_daemon(replace(ETH0, state=SyncState.BACKUP))
    assert settings.read_sync_daemons() == {SyncState.MASTER: master, SyncState.BACKUP: backup}
    assert settings.plan_no_sync_daemon(SyncState.MASTER) == master
    assert settings.stop_sync_daemon(SyncState.MASTER) == master
    assert settings.stop_sync_daemon(SyncState.MASTER) is None
    assert settings.read_sync_daemons() == {SyncState.BACKUP: backup}


@pytest.mark.usefixtures("no_daemons")
def test_a_daemon_that_cannot_be_started_leaves_the_old_one_running() -> None:
    _, before = settings.start_sync_daemon(ETH0)
    run("sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1")
    group = ipaddress.ip_address("ff02::81")
    with pytest.raises(KernelError, match="^cannot start the master sync daemon on eth0: "):
        settings.start_sync_daemon(replace(ETH0, multicast_group=group))
    assert settings.read_sync_daemons() == {SyncState.MASTER: before}


@pytest.mark.usefixtures("no_daemons")
def test_an_interface_that_is_not_there_is_found_out_before_anything_is_stopped() -> None:
    settings.start_sync_daemon(ETH0)
    running = sockets()
    with pytest.raises(KernelError) as caught:
        settings.start_sync_daemon(replace(ETH0, interface="eth7"))
    assert str(caught.value) == (
        "cannot start the master sync daemon on eth7: No such device (ENODEV)"
    )
    assert sockets() == running


def test_a_table_with_a_mixed_family_is_synchronized_by_nobody() -> None:
    run("ipvsadm -A -t [fd00::10]:80 -s wlc")
    run("ipvsadm -a -t [fd00::10]:80 -r 10.10.10.41 -i")
    with pytest.raises(KernelError) as caught:
        settings.start_sync_daemon(ETH0)
    assert caught.value.number == errno.EINVAL


def test_a_daemon_of_another_namespace_is_not_ours() -> None:
    run("ip netns add other")
    run("ip -n other link set lo up")
    wanted = replace(ETH0, interface="lo")
    try:
        namespaces.within("other", lambda: settings.start_sync_daemon(wanted))
        assert settings.read_sync_daemons() == {}
        assert set(namespaces.within("other", settings.read_sync_daemons)) == {SyncState.MASTER}
        namespaces.within("other", lambda: settings.stop_sync_daemon(SyncState.MASTER))
    finally:
        run("ip netns delete other")


# --------------------------------------------------------------------------------------------------
# Information, and the big levers


def test_version_and_table_size_are_those_of_ipvsadms_headline() -> None:
    ipvs.apply(SEED)
    told = re.search(r"version (\S+) \(size=(\d+)\)", ipvsadm("-Ln"))
    assert told is not None
    assert settings.read_info() == settings.Info(told[1], int(told[2]))


def test_a_flush_deletes_every_virtual_server() -> None:
    ipvs.apply(SEED)
    outcome = settings.flush()
    assert {str(op) for op in outcome.ops} == {
        "delete virtual server tcp 10.10.10.10:80",
        "delete virtual server tcp 10.10.10.11:80",
    }
    assert (dict(outcome.table), outcome.left, ipvsadm("-Sn")) == ({}, (), "")


def test_a_flush_leaves_what_another_keeps() -> None:
    ipvs.apply(SEED)
    outcome = settings.flush(leave={key(WEB)})
    assert [str(op) for op in outcome.ops] == ["delete virtual server tcp 10.10.10.11:80"]
    assert dict(ipvs.read().table) == {key(WEB): SEED[key(WEB)]}


def test_the_counters_of_what_is_not_there_cannot_be_zeroed() -> None:
    with pytest.raises(KernelError) as caught:
        settings.zero(key(WEB))
    assert str(caught.value) == (
        "cannot zero the counters of tcp 10.10.10.10:80: No such process (ESRCH); there is no such "
        "virtual server"
    )


# --------------------------------------------------------------------------------------------------
# Kernel settings


def test_every_setting_of_this_kernel_is_known_with_its_default() -> None:
    # These two schedulers bring settings of their own.
    run("modprobe -a ip_vs_lblc ip_vs_lblcr")
    known = {line.name: line.default for line in sysctls.DIRECTOR_UNTOUCHED}
    known.update({line.name: "0" for line in sysctls.DIRECTOR})
    assert {
        name: value if known.get(name) else "" for name, value in sysctls.read_ipvs().items()
    } == known
