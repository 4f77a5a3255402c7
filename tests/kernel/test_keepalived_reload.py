"""Reloads of the real keepalived: their end, what they must not harm, what they cannot change."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from saltext.lvs import applying, errors, ipvs, loading, model, proving, running, settings
from saltext.lvs.applying import Job, Outcome

from tests.kernel.commands import ip, ipvsadm
from tests.kernel.keepaliveds import Keepalived, held, started, until

pytestmark = pytest.mark.usefixtures("cards")

PASSWORD = "MY_PASS"
VIP = "10.10.10.10"

CLUSTER = model.from_pillar(
    {
        "lvs": {
            "directors": ["lb1"],
            "vrrp_instances": {
                "V": {"interface": "eth0", "virtual_router_id": 10, "virtual_ipaddress": [VIP]}
            },
        },
        "lvs_secrets": {"vrrp_instances": {"V": {"auth_pass": PASSWORD}}},
    }
)


def conf(
    servers: int = 1,
    real_servers: int = 2,
    *,
    delay: int = 10,
    priority: int = 150,
    top: str = "",
    in_global: str = "",
) -> str:
    """A configuration with one VIP and some virtual servers."""
    lines = [
        top,
        f"global_defs {{\n    router_id lb1\n    {in_global}\n}}",
        "vrrp_instance V {",
        "    interface eth0",
        "    virtual_router_id 10",
        f"    priority {priority}",
        "    advert_int 1",
        "    authentication {",
        "        auth_type PASS",
        f'        auth_pass "{PASSWORD}"',
        "    }",
        f"    virtual_ipaddress {{\n        {VIP}/32 dev eth0\n    }}",
        "}",
    ]
    for number in range(servers):
        lines += [
            f"virtual_server 10.20.{number // 250}.{number % 250 + 1} 80 {{",
            f"    delay_loop {delay}\n    lvs_sched wlc\n    lvs_method DR\n    protocol TCP",
        ]
        for real in range(real_servers):
            lines.append(f"    real_server 10.21.0.{real + 1} 80 {{\n        weight 50\n    }}")
        lines.append("}")
    return "\n".join(lines) + "\n"


@pytest.fixture
def cards(netns: None) -> None:
    ip("link add eth0 type veth peer name eth0-peer")
    ip("link set eth0-peer up")
    ip("link set eth0 up")
    ip("address add 10.10.10.11/16 dev eth0")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Keepalived]:
    """A keepalived that holds the VIP and keeps one virtual server."""
    with started(tmp_path, conf(), VIP) as one:
        yield one


def job(daemon: Keepalived, text: str, path: Path | None = None) -> Job:
    folder = daemon.folder
    return Job(
        path=str(path or daemon.conf),
        text=text,
        cluster=CLUSTER,
        pid_file=daemon.pid_file,
        fifos=(str(folder / "vrrp.fifo"),),
        weights=str(folder / "weights"),
        record=str(folder / "record"),
    )


def applied(daemon: Keepalived, text: str, restart: Callable[[], object] | None = None) -> Outcome:
    return applying.apply(job(daemon, text), restart)


LOADED = {"old": "another configuration", "new": "this configuration, by a reload"}


# --------------------------------------------------------------------------------------------------
# What is loaded


def test_what_runs_is_known_by_its_text(daemon: Keepalived) -> None:
    assert loading.is_loaded(daemon.pid, conf()) is True
    assert loading.is_loaded(daemon.pid, f"# remark\n\n{conf()}\t! another\n") is True
    assert loading.is_loaded(daemon.pid, conf(delay=11)) is False
    assert loading.is_loaded(os.getpid(), conf()) is None


def test_a_new_text_is_written_loaded_and_then_there_is_nothing_to_do(daemon: Keepalived) -> None:
    told = applied(daemon, conf(servers=2))
    assert (told.failures, told.problems, told.restart, told.notes) == ((), (), (), [])
    assert told.changes.keys() == {"diff", "loaded", str(daemon.folder / "vrrp.fifo")}
    assert told.changes["loaded"] == LOADED
    assert loading.is_loaded(daemon.pid, conf(servers=2))
    assert len(ipvs.read().table) == 2
    assert applied(daemon, conf(servers=2)) == Outcome()
    assert applying.plan(job(daemon, conf(servers=2))) == Outcome()


def test_the_one_before_is_kept_for_root_alone(daemon: Keepalived) -> None:
    applied(daemon, conf(delay=11))
    applied(daemon, conf(delay=12))
    previous = Path(f"{daemon.conf}.previous")
    assert previous.read_text() == conf(delay=11)
    assert stat.S_IMODE(previous.stat().st_mode) == 0o600


def test_an_apply_that_was_interrupted_before_the_reload_is_completed(daemon: Keepalived) -> None:
    applied(daemon, conf())
    daemon.conf.write_text(conf(servers=2))
    assert applying.plan(job(daemon, conf(servers=2))).changes == {"loaded": LOADED}
    assert applied(daemon, conf(servers=2)).changes == {"loaded": LOADED}
    assert len(ipvs.read().table) == 2
    assert applied(daemon, conf(servers=2)) == Outcome()


def test_what_somebody_else_has_loaded_since_is_seen(daemon: Keepalived) -> None:
    applied(daemon, conf())
    daemon.conf.write_text(conf(servers=3))
    applying.reload(str(daemon.conf), daemon.pid_file)
    assert len(ipvs.read().table) == 3
    assert applied(daemon, conf()).changes.keys() == {"diff", "loaded"}
    assert len(ipvs.read().table) == 1


# Each is kept by keepalived in other words than it was written in.
OTHER_WORDS = {
    "a parameter of its own": lambda text, folder: f"$DELAY=10\n{text}",
    "an included file": lambda text, folder: f"include {folder}/*.inc\n{text}",
    "a line for another machine": lambda text, folder: f"@lb9 vrrp_track_process p {{\n{text}",
}


@pytest.mark.parametrize("written", OTHER_WORDS.values(), ids=OTHER_WORDS.keys())
def test_a_text_that_keepalived_keeps_in_other_words_is_loaded_once(
    written: Callable[[str, Path], str], daemon: Keepalived
) -> None:
    (daemon.folder / "more.inc").write_text("vrrp_track_process p {\n    process sh\n}\n")
    text = written(conf(delay=12), daemon.folder)
    assert applied(daemon, text).changes["loaded"] == LOADED
    assert applied(daemon, text) == Outcome()


def test_one_that_runs_with_another_file_is_told_and_has_loaded_nothing(
    daemon: Keepalived,
) -> None:
    ours = daemon.folder / "ours.conf"
    asked = job(daemon, conf(priority=90), ours)
    words = f"runs with {daemon.conf}, not with {ours}"
    assert words in applying.plan(asked).failures[0]
    told = applying.apply(asked)
    assert words in told.failures[0]
    assert told.changes.keys() == {"diff", str(daemon.folder / "vrrp.fifo")}
    # The next start may find it; until then it is told each time.
    assert ours.read_text() == conf(priority=90)
    for again in (applying.plan(asked), applying.apply(asked), applying.apply(asked, list)):
        assert (again.changes, again.failures) == ({}, told.failures)
    assert daemon.log.read_text().count("Reloading ...") == 0
    with pytest.raises(errors.CommandFailed, match=words):
        applying.reload(str(ours), daemon.pid_file)
    link = daemon.folder / "link.conf"
    link.symlink_to(daemon.conf)
    assert applying.plan(job(daemon, conf(), link)).failures == ()


def test_one_with_a_name_is_found_and_loads(tmp_path: Path) -> None:
    """The name comes, changes and goes by a restart; what else changes is loaded by a reload."""
    with started(tmp_path, conf(), VIP, own_places=False) as daemon:
        for top in ("instance foo", 'instance "bar"', "use_pid_dir", ""):
            more = {"top": top, "in_global": "data_use_instance"}
            text = conf(**more)
            told = applied(daemon, text)
            assert (told.failures, len(told.restart) > 0) == ((), True)
            told = applied(daemon, text, daemon.restart)
            assert (told.failures, told.restart) == ((), ())
            pid = running.process(running.PID_FILE, "", str(daemon.conf))
            assert pid == daemon.pid
            assert running.vrrp_process(daemon.pid) in loading.children(daemon.pid)
            told = applied(daemon, conf(**more, servers=2))
            assert (told.failures, told.changes["loaded"]) == ((), LOADED)
            assert len(ipvs.read().table) == 2
            assert applied(daemon, conf(**more, servers=2)) == Outcome()
            assert list(daemon.dumps.iterdir()) == []


def test_one_that_has_just_started_is_not_ended_by_a_reload(tmp_path: Path) -> None:
    """Its number is there some milliseconds before it handles signals."""
    with started(tmp_path, conf(), VIP) as daemon:
        for _ in range(10):
            daemon.stop()
            Path(daemon.pid_file).unlink(missing_ok=True)
            daemon.start()
            pid = _as_soon_as_numbered(daemon)
            loading.reload(pid)
            assert daemon.process.poll() is None


def _as_soon_as_numbered(daemon: Keepalived) -> int:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        pid = running.process(daemon.pid_file)
        if pid is not None:
            return pid
    raise AssertionError("no number within 20 s")


# --------------------------------------------------------------------------------------------------
# When it is over


def test_a_reload_is_over_when_keepalived_goes_by_it(daemon: Keepalived) -> None:
    began = time.monotonic()
    told = applied(daemon, conf(servers=500, real_servers=10))
    # The first of them takes the time that the kernel needs for 5,500 additions.
    print(f"500 virtual servers added: {time.monotonic() - began:.2f} s")
    assert told.failures == ()
    assert len(ipvs.read().table) == 500
    for delay in (11, 12, 13):
        text = conf(servers=500, real_servers=10, delay=delay)
        began = time.monotonic()
        assert applied(daemon, text).failures == ()
        print(f"500 virtual servers, another delay: {time.monotonic() - began:.2f} s")
        log = daemon.log.read_text()
        assert log.count("Reload complete") == delay - 9
    assert list(daemon.dumps.iterdir()) == []


def test_a_keepalived_that_hangs_is_said_to_hang(
    daemon: Keepalived, monkeypatch: pytest.MonkeyPatch
) -> None:
    applied(daemon, conf())
    monkeypatch.setattr(running, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(loading, "READ_SECONDS", 0.5)
    with daemon.hanging():
        began = time.monotonic()
        told = applied(daemon, conf(delay=11))
        assert time.monotonic() - began < 10
        assert len(told.failures) == 1
        assert "it hangs" in told.failures[0]
        with pytest.raises(errors.CommandFailed, match=r"has not read its file .* it hangs$"):
            loading.reload(daemon.pid)
    until(lambda: loading.is_loaded(daemon.pid, conf(delay=11)), "the reload after all")


# --------------------------------------------------------------------------------------------------
# What it must not harm


def test_vrrp_vips_and_connections_stay(daemon: Keepalived) -> None:
    applied(daemon, conf())
    before = running.ask(daemon.pid)
    assert before is not None
    assert applied(daemon, conf(servers=5, delay=7)).failures == ()
    after = running.ask(daemon.pid)
    assert after is not None
    assert before["V"].state is after["V"].state is running.State.MASTER
    assert before["V"].counters["become_master"] == after["V"].counters["become_master"] == 1
    assert VIP in held()


def test_a_vip_that_goes_and_a_state_that_changes_as_asked_are_no_failure(
    daemon: Keepalived,
) -> None:
    text = conf().replace(f"{VIP}/32 dev eth0", "10.10.10.12/32 dev eth0").replace("150", "140")
    assert applied(daemon, text).failures == ()
    until(lambda: "10.10.10.12" in held(), "the other VIP")


def test_what_is_lost_while_it_reloads_is_told(daemon: Keepalived) -> None:
    applied(daemon, conf())

    def lose() -> None:
        ipvsadm("-C")
        os.kill(next(iter(loading.children(daemon.pid))), 9)

    with pytest.MonkeyPatch.context() as patch:
        reload = loading.reload

        def with_harm(pid: int, *arguments: object) -> None:
            reload(pid)
            lose()
            until(lambda: len(loading.children(pid)) == 2, "its other process")

        patch.setattr(loading, "reload", with_harm)
        told = applied(daemon, conf(delay=11))
    assert "a process of keepalived has ended at the reload; keepalived's log has the reason" in (
        told.failures
    )


def test_a_table_that_is_empty_after_it_is_told(daemon: Keepalived) -> None:
    applied(daemon, conf())
    with pytest.MonkeyPatch.context() as patch:
        reload = loading.reload
        patch.setattr(loading, "reload", lambda pid, *_: (reload(pid), ipvsadm("-C")))
        told = applied(daemon, conf(delay=11))
    assert told.failures == ("tcp 10.20.0.1:80 is not in the IPVS table any more",)


def test_a_vip_that_is_gone_after_it_is_told(daemon: Keepalived) -> None:
    applied(daemon, conf())
    with pytest.MonkeyPatch.context() as patch:
        gather = proving.gather

        def without_vip(pid: int, text: str) -> proving.Evidence:
            found = gather(pid, text)
            left = frozenset(one for one in found.held if str(one) != VIP)
            return dataclasses.replace(found, held=left) if "delay_loop 11" in text else found

        patch.setattr(proving, "gather", without_vip)
        told = applied(daemon, conf(delay=11))
    assert told.failures == (f"{VIP} of VRRP instance V is on no interface any more",)


# --------------------------------------------------------------------------------------------------
# What it cannot change

NEEDS_A_RESTART: dict[str, str] = {
    "an instance's name": conf(top="instance other", delay=11),
    "a table of nftables": conf(in_global="nftables other", delay=11),
    "IGMP": conf(in_global="disable_local_igmp", delay=11),
    "where its children read from": conf(in_global="tmp_config_directory /tmp", delay=11),
}


@pytest.mark.parametrize("text", NEEDS_A_RESTART.values(), ids=NEEDS_A_RESTART.keys())
def test_what_a_reload_cannot_change_is_written_and_not_loaded_unless_restarted(
    text: str, daemon: Keepalived
) -> None:
    applied(daemon, conf())
    told = applied(daemon, text)
    assert len(told.restart) == 1
    assert told.failures == ()
    assert daemon.conf.read_text() == text
    # No signal was sent: keepalived would be worse off for some of them.
    assert loading.is_loaded(daemon.pid, conf()) is True
    assert daemon.log.read_text().count("Reloading ...") == 0
    with pytest.raises(errors.CommandFailed, match="^keepalived has to be restarted for it:\n"):
        applying.reload(str(daemon.conf), daemon.pid_file)
    # Nor is it forgotten.
    assert applying.plan(job(daemon, text)).restart == told.restart
    before = daemon.pid
    told = applied(daemon, text, daemon.restart)
    assert (told.failures, told.restart, set(told.changes)) == ((), (), {"loaded"})
    assert daemon.pid != before
    assert VIP in held()
    assert applied(daemon, text) == Outcome()


def test_keepalived_itself_passes_over_such_a_reload(daemon: Keepalived) -> None:
    """Why we ask first: it keeps the old configuration and says so in its log alone."""
    daemon.conf.write_text(conf(top="instance other", servers=2))
    daemon.process.send_signal(1)
    until(lambda: "Cannot change instance name" in daemon.log.read_text(), "keepalived's word")
    assert len(ipvs.read().table) == 1


def test_a_sync_daemon_that_goes_is_stopped(daemon: Keepalived) -> None:
    applied(daemon, conf(in_global="lvs_sync_daemon eth0 V id 7"))
    until(lambda: settings.read_sync_daemons(), "the sync daemon")
    told = applied(daemon, conf())
    assert (told.failures, told.notes) == ((), ["the master sync daemon was stopped"])
    assert settings.read_sync_daemons() == {}


def test_a_restart_that_does_not_come_about_is_told(
    daemon: Keepalived, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(applying, "SETTLE_SECONDS", 1.0)
    told = applied(daemon, conf(top="instance other"), daemon.stop)
    assert told.failures == ("keepalived does not run after the restart",)


# --------------------------------------------------------------------------------------------------
# What is wrong touches nothing


def test_a_refused_text_changes_neither_the_file_nor_what_runs(daemon: Keepalived) -> None:
    applied(daemon, conf())
    before = running.ask(daemon.pid)
    broken = conf().replace("priority 150", "prioritty 150")
    told = applied(daemon, broken)
    assert told.problems == (
        "lvs:vrrp_instances:V:prioritty: line 9 (prioritty 150): Unknown keyword 'prioritty'",
    )
    assert told.changes == {}
    assert daemon.conf.read_text() == conf()
    assert running.ask(daemon.pid) == before
    assert daemon.log.read_text().count("Reload") == 0
    assert PASSWORD not in json.dumps(dataclasses.asdict(told))
