"""The watcher of a director's keepalived, with the real one: what it does, and what befalls it."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from saltext.lvs import model, running, vrrpwatch, watch
from saltext.lvs.errors import NotAvailable
from saltext.lvs.running import Vip

from tests.kernel.commands import ip
from tests.lab.waiting import until

PASSWORD = "MY_PASS"
NAME, VIP = "VirtIP_10", "10.10.10.10"
DUTY = vrrpwatch.Duty("prod", {NAME: (Vip(ipaddress.ip_address(VIP), "eth0"),)})
CONF = """\
global_defs {{
    router_id lb1
    vrrp_notify_fifo {folder}/vrrp.fifo
    lvs_notify_fifo {folder}/lvs.fifo
    vrrp_notify_priority_changes true
}}

vrrp_instance VirtIP_10 {{
    interface eth0
    virtual_router_id 10
    priority 150
    advert_int {advert}
    authentication {{
        auth_type PASS
        auth_pass MY_PASS
    }}
    virtual_ipaddress {{
        10.10.10.10/32 dev eth0
    }}
}}
"""


@pytest.fixture(autouse=True)
def card(netns: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network card with a cable to nobody, and the pipes."""
    monkeypatch.setattr(running, "LOCK", str(tmp_path / "lock"))
    ip("link add eth0 type veth peer name far")
    ip("link set far up")
    ip("link set eth0 up")
    ip("address add 10.10.10.11/24 dev eth0")
    for name in ("vrrp", "lvs"):
        os.mkfifo(tmp_path / f"{name}.fifo", 0o600)


class Keepalived:
    """A keepalived in this network, with files of its own."""

    def __init__(self, folder: Path, advert: float = 1) -> None:
        self.folder = folder
        self.pid_file = folder / "keepalived.pid"
        self.write(advert)
        (folder / "dumps").mkdir()
        self.process: subprocess.Popen[bytes] | None = None

    def write(self, advert: float = 1, **more: str) -> None:
        text = CONF.format(folder=self.folder, advert=advert)
        for old, new in more.items():
            text = text.replace(old, new)
        (self.folder / "keepalived.conf").write_text(text)

    def start(self) -> None:
        files = {"-p": "keepalived", "-r": "vrrp", "-c": "checkers", "-b": "bfd"}
        options = [w for key, name in files.items() for w in (key, f"{self.folder}/{name}.pid")]
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                ["keepalived", "-n", "-l", "-f", self.folder / "keepalived.conf", *options],
                stdout=log,
                stderr=log,
                env={**os.environ, "TMPDIR": str(self.folder / "dumps")},
            )
        until(lambda: running.process(str(self.pid_file)), "keepalived")

    @property
    def pid(self) -> int:
        assert self.process
        return self.process.pid

    def all(self) -> list[int]:
        return [self.pid, *running.children(self.pid)]

    def signal(self, number: int) -> None:
        for pid in self.all():
            os.kill(pid, number)

    def kill_all(self) -> None:
        """All at once: none has the time to take its VIPs away."""
        pids = self.all()
        self.signal(signal.SIGSTOP)
        for pid in reversed(pids):
            os.kill(pid, signal.SIGKILL)
        self.wait()
        # Here nobody may bury orphans, and keepalived takes what these name for running.
        for path in self.folder.glob("*.pid"):
            path.unlink()

    def terminate(self) -> None:
        assert self.process
        self.process.terminate()
        self.wait()

    def wait(self) -> None:
        assert self.process
        self.process.wait(timeout=15)

    def end(self) -> None:
        if self.process and self.process.poll() is None:
            self.signal(signal.SIGCONT)
            self.terminate()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Keepalived]:
    one = Keepalived(tmp_path)
    yield one
    one.end()


@dataclass
class Told:
    """What a watcher has told, and when."""

    events: list[tuple[float, dict[str, Any]]] = field(default_factory=list)

    def take(self, events: list[dict[str, Any]]) -> None:
        now = time.monotonic()
        # Salt sends nothing that this cannot.
        self.events += [(now, json.loads(json.dumps(event))) for event in events]

    def changes(self) -> list[tuple[float, dict[str, Any]]]:
        return [
            (at, change)
            for at, event in list(self.events)
            if event["tag"] == "change"
            for change in event["changes"]
        ]

    def in_short(self) -> list[tuple[str | None, str, str]]:
        """From which state to which, and by what that was known."""
        return [(one["was"], one["now"], one["by"]) for _, one in self.changes()]

    def problems(self) -> list[str | None]:
        return [one["problem"] for _, one in self.changes() if one["was"] == one["now"]]

    def states(self) -> list[dict[str, Any]]:
        return [event for _, event in list(self.events) if event["tag"] == "state"]

    def clear(self) -> None:
        self.events.clear()


Watch = Callable[..., Told]


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Watch]:
    """Start a watcher, which knows nothing yet; ends all at the end."""
    begun: list[watch.Watcher] = []

    def begin(repeat: float = 3600, duty: vrrpwatch.Duty = DUTY) -> Told:
        told = Told()
        memory = vrrpwatch.Memory(
            duty=duty,
            paths=(str(tmp_path / "vrrp.fifo"), str(tmp_path / "lvs.fifo")),
            pid_file=str(tmp_path / "keepalived.pid"),
        )
        watcher = watch.Watcher(memory, "lb1", told.take)
        begun.append(watcher)
        watcher.start(repeat)
        return told

    def end() -> None:
        while begun:
            watcher = begun.pop()
            assert watcher.stop()
            watcher._teller.end()

    begin.end = end  # type: ignore[attr-defined]
    yield begin
    end()


def is_master(told: Told) -> bool:
    return any(one["now"] == "MASTER" for _, one in told.changes())


@pytest.fixture
def told(daemon: Keepalived, watching: Watch) -> Told:
    """What the watcher of a director tells that is the master now."""
    found = watching()
    daemon.start()
    until(lambda: is_master(found), "the mastership", seconds=10)
    until(lambda: len(found.states()) == 1, "the state", seconds=5)
    found.clear()
    return found


# --------------------------------------------------------------------------------------------------
# What keepalived does


def test_every_transition_is_told_in_order_with_the_vips_that_are_here(
    daemon: Keepalived, watching: Watch
) -> None:
    told = watching()
    daemon.start()
    until(lambda: is_master(told), "the mastership", seconds=10)
    daemon.terminate()
    until(lambda: len(told.changes()) == 3, "its end", seconds=5)
    assert [
        (one["was"], one["now"], one["vips_held"], one["problem"], one["by"])
        for _, one in told.changes()
    ] == [
        (None, "BACKUP", [], None, "fifo"),
        ("BACKUP", "MASTER", [VIP], None, "fifo"),
        ("MASTER", "STOP", [], None, "fifo"),
    ]
    assert {one["priority"] for _, one in told.changes()} == {150}


def test_the_first_state_has_what_keepalived_says(daemon: Keepalived, watching: Watch) -> None:
    daemon.start()
    until(lambda: VIP in addresses(), "the VIP", seconds=10)
    told = watching()
    until(told.states, "the state", seconds=5)
    state = told.states()[0]
    (instance,) = state.pop("vrrp_instances")
    assert (state["running"], state["answers"]) == (True, True)
    assert set(state["pipes"].values()) == {None}
    assert (instance["now"], instance["priority"], instance["base_priority"]) == (
        "MASTER",
        150,
        150,
    )
    assert (instance["vips"], instance["vips_held"], instance["problem"]) == ([VIP], [VIP], None)
    assert time.time() - 20 < instance["last_transition"] < time.time()


def test_a_cable_that_is_pulled_and_put_back_is_told(daemon: Keepalived, told: Told) -> None:
    ip("link set far down")
    until(lambda: told.in_short() == [("MASTER", "FAULT", "fifo")], "the fault", seconds=5)
    ip("link set far up")
    until(lambda: len(told.changes()) == 3, "the mastership", seconds=10)
    assert [now for _, now, _ in told.in_short()] == ["FAULT", "BACKUP", "MASTER"]


def test_a_reload_is_no_news_and_the_pipe_stays(daemon: Keepalived, told: Told) -> None:
    before = (daemon.folder / "vrrp.fifo").stat().st_ino
    os.kill(daemon.pid, signal.SIGHUP)
    time.sleep(2)
    assert told.changes() == []
    assert (daemon.folder / "vrrp.fifo").stat().st_ino == before
    daemon.terminate()
    until(lambda: told.in_short() == [("MASTER", "STOP", "fifo")], "its end", seconds=5)


# --------------------------------------------------------------------------------------------------
# What keepalived does not say


def test_a_keepalived_that_is_killed_is_told_within_a_second(
    daemon: Keepalived, told: Told
) -> None:
    began = time.monotonic()
    os.kill(daemon.pid, signal.SIGKILL)
    until(told.changes, "the event", seconds=5, pause=0.001)
    assert told.changes()[0][0] - began < 1
    daemon.wait()
    until(lambda: told.in_short()[-1][1] == "STOP", "the end of the others", seconds=5)


def test_a_killed_one_that_leaves_its_vips_is_told_within_a_second(
    daemon: Keepalived, told: Told
) -> None:
    began = time.monotonic()
    daemon.kill_all()
    until(told.changes, "the event", seconds=5, pause=0.001)
    at, change = told.changes()[0]
    assert at - began < 1
    assert (change["now"], change["vips_held"], change["problem"]) == (
        "MASTER",
        [VIP],
        "keepalived does not run, and VIPs are here",
    )
    daemon.start()
    until(lambda: len(told.changes()) == 3, "the mastership", seconds=10)
    assert told.in_short()[1:] == [("MASTER", "BACKUP", "fifo"), ("BACKUP", "MASTER", "fifo")]
    assert {change["problem"] for _, change in told.changes()[1:]} == {None}


HANGS: dict[str, Callable[[Keepalived], list[int]]] = {
    "all of it": lambda daemon: daemon.all(),
    "the one that speaks VRRP": lambda daemon: list(running.children(daemon.pid)),
}


@pytest.mark.parametrize("which", HANGS.values(), ids=HANGS.keys())
def test_a_keepalived_that_hangs_is_told_within_some_seconds(
    which: Callable[[Keepalived], list[int]], daemon: Keepalived, told: Told
) -> None:
    pids = which(daemon)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    until(told.changes, "the event", seconds=10)
    assert told.changes()[0][0] - began < 8
    assert told.in_short() == [("MASTER", "MASTER", "process")]
    assert told.problems() == ["keepalived does not answer"]
    time.sleep(3)
    assert len(told.changes()) == 1
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    until(lambda: None in told.problems(), "the end of it", seconds=5)
    # It answers one question, however long it was asked.
    time.sleep(1)
    log = (daemon.folder / "log").read_text()
    assert len(re.findall("Printing VRRP as json", log)) < 6


def test_a_keepalived_whose_vrrp_process_crashes_again_and_again_is_told(
    daemon: Keepalived, told: Told
) -> None:
    end = time.monotonic() + 15
    # It is started anew after 1 s, then 2, then 4.
    while not told.problems() and time.monotonic() < end:
        for pid in running.children(daemon.pid):
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    assert told.problems()[0] == "keepalived does not answer"


def test_a_vip_that_somebody_deletes_is_back_before_it_is_a_problem(told: Told) -> None:
    ip(f"address delete {VIP}/32 dev eth0")
    until(lambda: len(told.changes()) == 2, "the events", seconds=5)
    time.sleep(2)
    assert told.in_short() == [("MASTER", "BACKUP", "fifo"), ("BACKUP", "MASTER", "fifo")]


def test_a_vip_that_somebody_puts_on_a_backup_is_told(tmp_path: Path, watching: Watch) -> None:
    daemon = Keepalived(tmp_path, advert=20)
    told = watching()
    try:
        daemon.start()
        until(lambda: told.in_short() == [(None, "BACKUP", "fifo")], "the start", seconds=5)
        until(told.states, "the state", seconds=5)
        ip(f"address add {VIP}/32 dev eth0")
        until(lambda: len(told.changes()) == 2, "the problem", seconds=5)
        ip(f"address delete {VIP}/32 dev eth0")
        until(lambda: len(told.changes()) == 3, "its end", seconds=5)
    finally:
        daemon.end()
    assert [(one["problem"], one["vips_held"]) for _, one in told.changes()[1:3]] == [
        ("VIPs are held without being master", [VIP]),
        (None, []),
    ]


# --------------------------------------------------------------------------------------------------
# The pipes


def test_a_watcher_that_comes_back_finds_all_that_happened_meanwhile(
    daemon: Keepalived, told: Told, watching: Any
) -> None:
    watching.end()
    ip("link set far down")
    time.sleep(1)
    ip("link set far up")
    until(lambda: VIP in addresses(), "the mastership", seconds=10)
    later = watching()
    until(later.states, "the state", seconds=5)
    assert later.in_short() == [
        (None, "FAULT", "fifo"),
        ("FAULT", "BACKUP", "fifo"),
        ("BACKUP", "MASTER", "fifo"),
    ]


def test_garbage_in_the_pipe_is_passed_over(daemon: Keepalived, told: Told) -> None:
    with (daemon.folder / "vrrp.fifo").open("wb", buffering=0) as pipe:
        pipe.write(b'\0\xff\n\nINSTANCE "' + b"x" * 9000 + b'" MASTER 1\nGARBAGE\nINSTANCE "Virt')
        time.sleep(0.3)
        pipe.write(b'IP_10" MASTER_PRIORITY 40\n')
        until(told.changes, "the line", seconds=5)
    assert [(one["now"], one["priority"]) for _, one in told.changes()] == [("MASTER", 40)]


def test_what_a_full_pipe_has_lost_is_found_by_asking(daemon: Keepalived, watching: Any) -> None:
    """keepalived throws away what has no room: the last lines, which say how it is now."""
    path = daemon.folder / "vrrp.fifo"
    told = watching()
    daemon.start()
    until(lambda: is_master(told), "the mastership", seconds=10)
    watching.end()
    filler = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(filler, b"x\n" * 2000)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(filler, b"\n")
    ip("link set far down")
    until(lambda: VIP not in addresses(), "the fault", seconds=5)
    later = watching(repeat=2)
    os.close(filler)
    until(later.states, "the state", seconds=5)
    assert later.states()[0]["vrrp_instances"][0]["now"] == "FAULT"
    ip("link set far up")
    until(lambda: is_master(later), "the mastership", seconds=10)


def test_lines_that_were_lost_while_it_watched_are_found_by_asking(
    daemon: Keepalived, told: Told
) -> None:
    """Another reader took them: the VIP is gone, and nobody has said why."""
    with thief(daemon.folder / "vrrp.fifo") as stolen:
        ip("link set far down")
        until(told.changes, "the change", seconds=5)
        assert told.in_short()[0][:2] == ("MASTER", "FAULT")
        stolen()


@contextlib.contextmanager
def thief(path: Path) -> Iterator[Callable[[], str]]:
    """Another program that reads the pipe all the time."""
    code = f"while True: print(open({str(path)!r}).readline(), end='', flush=True)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:

        def stolen() -> str:
            process.kill()
            return process.communicate()[0].decode()

        until(lambda: has_open(process.pid, path), "the thief", seconds=5)
        try:
            yield stolen
        finally:
            process.kill()


def has_open(pid: int, path: Path) -> bool:
    folder = Path(f"/proc/{pid}/fd")
    return any(os.path.realpath(one) == str(path) for one in folder.iterdir())


def test_a_second_reader_is_told(daemon: Keepalived, watching: Watch) -> None:
    told = watching(repeat=1)
    daemon.start()
    path = daemon.folder / "vrrp.fifo"
    until(told.states, "the first state", seconds=10)
    with thief(path):
        until(lambda: told.states()[-1]["pipes"][str(path)], "the finding", seconds=5)
        assert re.fullmatch(
            r"process \d+ reads it too, and takes lines away",
            told.states()[-1]["pipes"][str(path)],
        )
    until(lambda: told.states()[-1]["pipes"][str(path)] is None, "its end", seconds=5)


def test_a_second_watcher_leaves_the_lines_to_the_first(
    daemon: Keepalived, told: Told, watching: Watch
) -> None:
    second = watching()
    until(second.states, "the state", seconds=5)
    path = f"{daemon.folder}/vrrp.fifo"
    assert second.states()[0]["pipes"][path] == f"{path} is read by another watcher of this machine"
    daemon.terminate()
    until(told.changes, "its end", seconds=5)
    assert told.in_short() == [("MASTER", "STOP", "fifo")]


def test_without_pipes_it_looks_and_asks_and_says_so(daemon: Keepalived, watching: Watch) -> None:
    for name in ("vrrp", "lvs"):
        (daemon.folder / f"{name}.fifo").unlink()
    daemon.write(vrrp_notify_fifo="! vrrp_notify_fifo", lvs_notify_fifo="! lvs_notify_fifo")
    told = watching()
    daemon.start()
    began = time.monotonic()
    until(lambda: is_master(told), "the mastership", seconds=10)
    assert time.monotonic() - began < 8
    ip("link set far down")
    began = time.monotonic()
    until(lambda: told.in_short()[-1][1] != "MASTER", "the change", seconds=5)
    until(lambda: told.in_short()[-1][1] == "FAULT", "the fault", seconds=5)
    assert {by for _, _, by in told.in_short()} <= {"dump", "netlink"}
    assert told.states()[0]["pipes"] == {
        path: f"{path}: No such file or directory"
        for path in (f"{daemon.folder}/vrrp.fifo", f"{daemon.folder}/lvs.fifo")
    }


def test_pipes_that_come_later_and_pipes_that_are_replaced_are_taken_up(
    daemon: Keepalived, told: Told
) -> None:
    path = daemon.folder / "vrrp.fifo"
    path.rename(path.with_suffix(".old"))
    os.mkfifo(path, 0o600)
    time.sleep(2)
    daemon.terminate()
    until(lambda: told.changes() and told.in_short()[-1][1] == "STOP", "its end", seconds=6)
    told.clear()
    daemon.start()
    until(lambda: is_master(told), "the mastership", seconds=10)
    assert told.in_short() == [("STOP", "BACKUP", "fifo"), ("BACKUP", "MASTER", "fifo")]


def test_a_keepalived_that_does_not_write_into_the_pipe_is_told(
    daemon: Keepalived, watching: Watch
) -> None:
    daemon.write(vrrp_notify_fifo="! vrrp_notify_fifo")
    told = watching(repeat=1)
    daemon.start()
    until(lambda: len(told.states()) > 2, "the states", seconds=10)
    assert told.states()[-1]["pipes"][str(daemon.folder / "vrrp.fifo")] == (
        "keepalived does not write into it; see keepalived.plan_config"
    )


# --------------------------------------------------------------------------------------------------
# The answer


def test_no_answer_and_no_password_stays_behind(daemon: Keepalived, watching: Watch) -> None:
    told = watching(repeat=0.5)
    daemon.start()
    until(lambda: len(told.states()) > 8, "the states", seconds=15)
    watching.end()  # type: ignore[attr-defined]
    assert PASSWORD not in json.dumps(told.events)
    assert list((daemon.folder / "dumps").iterdir()) == []


def test_it_is_asked_where_systemd_gives_it_a_tmp_of_its_own(daemon: Keepalived) -> None:
    script = 'mount -t tmpfs none /tmp && mkdir /tmp/own && exec "$0" "$@"'
    visible = Path("/run") / f"watch-test-{os.getpid()}"
    visible.mkdir()
    conf = visible / "keepalived.conf"
    conf.write_text(
        re.sub(".*notify_fifo.*\n", "", (daemon.folder / "keepalived.conf").read_text())
    )
    files = [w for k in "prcb" for w in (f"-{k}", f"{visible}/{k}.pid")]
    command = ["keepalived", "-n", "-l", "-f", str(conf), *files]
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script, *command],
        env={**os.environ, "TMPDIR": "/tmp/own"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: running.process(str(visible / "p.pid")), "keepalived", seconds=10)
        until(lambda: answered(process.pid), "the answer", seconds=10)
        assert not Path("/tmp/own").exists()
        assert os.listdir(f"/proc/{process.pid}/root/tmp/own") == []
    finally:
        process.terminate()
        process.wait(timeout=15)


def answered(pid: int) -> bool:
    try:
        report = running.ask(pid)
    except NotAvailable:
        return False
    return bool(report) and NAME in report


def test_one_that_has_just_started_is_not_ended_by_a_question(daemon: Keepalived) -> None:
    for _ in range(3):
        assert daemon.process is None or daemon.process.poll() is not None
        daemon.start()
        end = time.monotonic() + 1
        while time.monotonic() < end:
            with contextlib.suppress(NotAvailable):
                running.ask(daemon.pid, 0.01)
        assert daemon.process is not None
        assert daemon.process.poll() is None
        daemon.terminate()


def test_a_question_that_a_reload_makes_it_forget_is_asked_again(daemon: Keepalived) -> None:
    daemon.start()
    until(lambda: answered(daemon.pid), "the first answer", seconds=10)
    for _ in range(10):
        os.kill(daemon.pid, signal.SIGHUP)
        assert running.ask(daemon.pid)


def test_the_status_tells_a_hang_and_the_stats_count(daemon: Keepalived) -> None:
    daemon.start()
    until(lambda: VIP in addresses(), "the VIP", seconds=10)
    until(lambda: answered(daemon.pid), "the answer", seconds=10)
    pid_file, here = str(daemon.pid_file), running.here()
    status = running.status(DUTY.vips, here, pid_file)
    instance = status["vrrp_instances"][NAME]
    assert (status["running"], status["hanging"], status["why"]) == (True, False, "")
    assert (instance["state"], instance["priority"], instance["vips_held"]) == (
        "MASTER",
        150,
        [VIP],
    )
    assert running.stats(pid_file)[NAME]["become_master"] == 1
    assert PASSWORD not in repr(status)
    daemon.signal(signal.SIGSTOP)
    status = running.status(DUTY.vips, here, pid_file)
    assert (status["running"], status["hanging"]) == (True, True)
    assert status["vrrp_instances"][NAME]["vips_held"] == [VIP]


def addresses() -> set[str]:
    return {str(one.address) for one in running.here()}


def test_nothing_is_left_open_when_it_ends(daemon: Keepalived, watching: Any) -> None:
    def once() -> None:
        told = watching()
        until(told.states, "the state", seconds=5)
        watching.end()

    daemon.start()
    once()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        once()
    assert len(os.listdir("/proc/self/fd")) == before


# --------------------------------------------------------------------------------------------------
# Virtual servers that keepalived keeps

PILLAR: dict[str, Any] = {
    "lvs": {
        "name": "prod",
        "directors": {"lb1": {"priority": 150}},
        "real_servers": {
            "rs1": {"address": "10.10.10.41"},
            "rs2": {"address": "10.10.10.42"},
        },
        "vrrp_instances": {
            NAME: {"interface": "eth0", "virtual_router_id": 10, "virtual_ipaddress": [VIP]}
        },
        "virtual_servers": {
            "web": {
                "address": VIP,
                "port": 80,
                "managed_by": "keepalived",
                "real_servers": {"rs1": {}, "rs2": {}},
            }
        },
    }
}
SERVERS = """
virtual_server 10.10.10.10 80 {
    delay_loop 1
    lvs_sched wlc
    lvs_method DR
    protocol TCP
    real_server 10.10.10.41 80 {
        TCP_CHECK {
            connect_timeout 1
        }
    }
    real_server 10.10.10.42 80 {
        TCP_CHECK {
            connect_timeout 1
        }
    }
}
"""


def test_servers_that_keepalived_keeps_are_told_by_the_pillars_names(
    daemon: Keepalived, watching: Watch
) -> None:
    duty = vrrpwatch.duty_of(model.from_pillar(PILLAR), "lb1")
    assert duty
    for number in (41, 42):
        ip(f"address add 10.10.10.{number}/32 dev lo")
    with (daemon.folder / "keepalived.conf").open("a") as file:
        file.write(SERVERS)
    with socket.create_server(("10.10.10.41", 80)), socket.create_server(("10.10.10.42", 80)) as s2:
        told = watching(repeat=1, duty=duty)
        daemon.start()
        until(lambda: is_master(told), "the mastership", seconds=10)
        told.clear()
        s2.close()
        until(lambda: of_servers(told), "the event", seconds=10)
        until(lambda: told.states() and told.states()[-1]["down"], "the state", seconds=5)
    assert of_servers(told)[0] == {
        "virtual_server": "web",
        "real_server": "rs2",
        "was": None,
        "now": "DOWN",
        "by": "fifo",
    }
    (down,) = told.states()[-1]["down"]
    assert (down["virtual_server"], down["real_server"]) == ("web", "rs2")


def without_block(path: Path, head: str) -> None:
    """Take a block out of a configuration file."""
    text = path.read_text()
    start = text.index(head)
    path.write_text(text[:start] + text[text.index("\n}\n", start) + 3 :])


def test_what_is_gone_from_the_configuration_is_told_and_forgotten(
    daemon: Keepalived, watching: Watch
) -> None:
    conf = daemon.folder / "keepalived.conf"
    second = conf.read_text()[conf.read_text().index("vrrp_instance") :]
    second = second.replace(NAME, "Old").replace(VIP, "10.10.10.99")
    second = second.replace("virtual_router_id 10", "virtual_router_id 99")
    group = "vrrp_sync_group Group {\n    group {\n        Old\n    }\n}\n"
    conf.write_text(conf.read_text() + second + "\n" + group + SERVERS)
    real_servers = []
    for address in ("10.10.10.41", "10.10.10.42"):
        ip(f"address add {address}/32 dev lo")
        real_servers.append(socket.create_server((address, 80)))
    told = watching(repeat=1)
    daemon.start()

    def whole() -> dict[str, list[Any]]:
        state = told.states()[-1] if told.states() else {}
        return {key: state.get(key, []) for key in ("vrrp_instances", "sync_groups", "down")}

    def names() -> set[str]:
        return {one["vrrp_instance"] for one in whole()["vrrp_instances"]}

    until(lambda: names() == {NAME, "Old"} and is_master(told), "both instances", seconds=20)
    for real_server in real_servers:
        real_server.close()
    until(lambda: len(whole()["down"]) >= 2, "both real servers to be down", seconds=20)
    assert [one["sync_group"] for one in whole()["sync_groups"]] == ["Group"]
    told.clear()
    for head in ("virtual_server ", "vrrp_sync_group ", "vrrp_instance Old"):
        without_block(conf, head)
    os.kill(daemon.pid, signal.SIGHUP)
    until(
        lambda: told.states() and names() == {NAME} and not whole()["down"],
        "what is left",
        seconds=20,
    )
    until(lambda: told.states() and not whole()["sync_groups"], "no group", seconds=20)
    deleted = [one for _, one in told.changes() if one["now"] == "DELETED"]
    assert {(one.get("vrrp_instance"), one.get("sync_group")) for one in deleted} >= {
        ("Old", None),
        (None, "Group"),
    }
    assert {one.get("real_server") for one in deleted} >= {
        "[10.10.10.41]:tcp:80",
        "[10.10.10.42]:tcp:80",
    }
    # What is left is not told anew.
    assert not [one for one in deleted if one.get("vrrp_instance") == NAME]
    before = len(told.changes())
    time.sleep(5)
    assert len(told.changes()) == before


def test_a_keepalived_without_any_instance_is_not_asked_without_end(
    daemon: Keepalived, watching: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    ask = vrrpwatch.Ears.ask

    def counted(ears: vrrpwatch.Ears) -> bool:
        was_asked = ask(ears)
        asked.extend([time.monotonic()] * was_asked)
        return was_asked

    monkeypatch.setattr(vrrpwatch.Ears, "ask", counted)
    (daemon.folder / "keepalived.conf").write_text(SERVERS)
    told = watching(repeat=2, duty=replace(DUTY, vips={}))
    daemon.start()
    until(lambda: len(told.states()) >= 5, "the state, again and again", seconds=40)
    assert len(asked) <= 2
    assert {state["answers"] for state in told.states()} == {None}
    assert [one for one in told.problems() if one] == []
    # It is asked again when it has an instance, with which it is another one.
    daemon.write()
    daemon.terminate()
    daemon.start()
    until(lambda: told.states()[-1]["answers"], "an answer", seconds=20)


def of_servers(told: Told) -> list[dict[str, Any]]:
    return [one for _, one in told.changes() if "virtual_server" in one and one["now"] == "DOWN"]
