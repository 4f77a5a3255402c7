"""keepalived's answer about itself: both of its layouts, and what is not taken for an answer."""

from __future__ import annotations

import ipaddress
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from saltext.lvs import running
from saltext.lvs.errors import CommandFailed
from saltext.lvs.running import Instance, State, Vip

PASSWORD = "MY_PASS"
# As keepalived 2.2.7 writes it, without most of what is not read.
DATA: dict[str, Any] = {
    "iname": "VirtIP_10",
    "vmac_ifname": "",
    "ifp_ifname": "eth0",
    "last_transition": 1795395181.555110,
    "vrid": 10,
    "base_priority": 150,
    "effective_priority": 130,
    "vipset": True,
    "adver_int": 1,
    "state": 2,
    "wantstate": 1,
    "vips": ["10.10.10.10 dev eth0 scope global set", "fd00::10/64 dev eth1@eth0 label eth1:1"],
    "evips": ["10.10.10.11"],
    "auth_type": 1,
    "auth_data": PASSWORD,
}
STATS = {"advert_rcvd": 3, "advert_sent": 2, "become_master": 1}
ONE = {"data": DATA, "stats": STATS}
READ = Instance(
    name="VirtIP_10",
    state=State.MASTER,
    wanted=State.BACKUP,
    interface="eth0",
    virtual_router_id=10,
    base_priority=150,
    priority=130,
    vips=(
        Vip(ipaddress.ip_address("10.10.10.10"), "eth0"),
        Vip(ipaddress.ip_address("fd00::10"), "eth1"),
        Vip(ipaddress.ip_address("10.10.10.11"), "eth0"),
    ),
    vips_set=True,
    last_transition=1795395181.555110,
    advert_seconds=1.0,
    counters=STATS,
)


def without(key: str) -> dict[str, Any]:
    return {"data": {name: value for name, value in DATA.items() if name != key}, "stats": STATS}


ANSWERS: dict[str, tuple[Any, Any]] = {
    "the first layout": ([ONE], {"VirtIP_10": READ}),
    "the second layout": ({"vrrp": [ONE], "track_process": []}, {"VirtIP_10": READ}),
    "no instance": ([], {}),
    "an instance without its name is left out": ([without("iname"), ONE], {"VirtIP_10": READ}),
    "a state that it has no number for": ([{"data": {**DATA, "state": 9}}], {}),
    "a VIP that is none": ([{"data": {**DATA, "vips": ["nowhere"]}}], {}),
    "no list": ({"vrrp": {}}, None),
    "a number": (7, None),
}


@pytest.mark.parametrize(("written", "read"), ANSWERS.values(), ids=ANSWERS.keys())
def test_an_answer_is_read_in_both_layouts(written: Any, read: Any) -> None:
    assert running.parse(json.dumps(written).encode()) == read


def test_no_part_of_an_answer_is_one() -> None:
    whole = json.dumps([ONE]).encode()
    assert [running.parse(whole[:length]) for length in range(len(whole))] == [None] * len(whole)


@given(st.binary() | st.text().map(lambda text: json.dumps([{"data": text}]).encode()))
def test_nothing_that_is_written_there_raises(text: bytes) -> None:
    found = running.parse(text)
    assert found is None or isinstance(found, dict)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda some: st.lists(some, max_size=3) | st.dictionaries(st.text(), some, max_size=3),
    max_leaves=5,
)


@given(key=st.sampled_from(sorted(DATA)), value=values)
def test_no_value_of_any_field_raises(key: str, value: Any) -> None:
    running.parse(json.dumps([{"data": {**DATA, key: value}, "stats": value}]).encode())


def test_the_password_is_not_in_what_was_read() -> None:
    assert PASSWORD not in repr(running.parse(json.dumps([ONE]).encode()))


# --------------------------------------------------------------------------------------------------
# The file


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    return tmp_path / "keepalived.json"


def test_an_answer_is_taken_away(dump: Path) -> None:
    dump.write_text(json.dumps([ONE]))
    assert running._read_dump(str(dump), None) == {"VirtIP_10": READ}
    assert not dump.exists()


def test_half_an_answer_is_waited_for(dump: Path) -> None:
    dump.write_text(json.dumps([ONE])[:-1])
    assert running._read_dump(str(dump), None) is None
    assert dump.exists()


def test_the_answer_to_an_earlier_question_is_none(dump: Path) -> None:
    dump.write_text(json.dumps([ONE]))
    before = running._mark(str(dump))
    assert running._read_dump(str(dump), before) is None
    replaced = dump.with_suffix(".new")
    replaced.write_text(json.dumps([ONE]))
    replaced.rename(dump)
    assert running._read_dump(str(dump), before) == {"VirtIP_10": READ}


def a_link(dump: Path) -> None:
    secret = dump.with_name("elsewhere")
    secret.write_text(json.dumps([ONE]))
    dump.symlink_to(secret)


def a_second_name(dump: Path) -> None:
    other = dump.with_name("elsewhere")
    other.write_text(json.dumps([ONE]))
    os.link(other, dump)


def a_pipe(dump: Path) -> None:
    os.mkfifo(dump)


def a_strangers(dump: Path) -> None:
    dump.write_text(json.dumps([ONE]))
    os.chown(dump, 65534, 65534)


TRAPS = {
    "a symbolic link": a_link,
    "a hard link": a_second_name,
    "a pipe": a_pipe,
    "a folder": Path.mkdir,
}
if os.geteuid() == 0:
    TRAPS["another user's file"] = a_strangers


@pytest.mark.parametrize("trap", TRAPS.values(), ids=TRAPS.keys())
def test_what_somebody_else_has_put_there_is_not_read(trap: Any, dump: Path) -> None:
    trap(dump)
    with pytest.raises(CommandFailed, match="is not keepalived's"):
        running._read_dump(str(dump), None)
    assert os.path.lexists(dump)


def test_an_address_without_an_interface_counts_anywhere() -> None:
    address = ipaddress.ip_address("10.10.10.10")
    held = {Vip(address, "vrrp.10")}
    assert running.holds(held, Vip(address, ""))
    assert not running.holds(held, Vip(address, "eth0"))
    assert not running.holds(set(), Vip(address, ""))


# --------------------------------------------------------------------------------------------------
# Which of several is ours

OURS = "/etc/keepalived/keepalived.conf"
# By pid file: the number in it, and the configuration file of that process, if it is to be seen.
Running = dict[str, tuple[int, str | None]]
FOUND: dict[str, tuple[Running, str, int | None]] = {
    "none": ({}, "", None),
    "one without a name": ({"keepalived.pid": (7, OURS)}, "", 7),
    "one without a name, with another file": ({"keepalived.pid": (7, "/etc/x")}, "", 7),
    "one in the folder": ({"run/keepalived.pid": (7, OURS)}, "", 7),
    "its name": ({"run/keepalived_a.pid": (7, OURS)}, "a", 7),
    "its name, with another file": ({"run/keepalived_a.pid": (7, "/etc/x")}, "a", 7),
    "a name that it has still": ({"run/keepalived_a.pid": (7, OURS)}, "", 7),
    "a name that it has not yet": ({"keepalived.pid": (7, OURS)}, "b", 7),
    "a name that changes": ({"run/keepalived_a.pid": (7, OURS)}, "b", 7),
    "another one's name": ({"run/keepalived_a.pid": (7, "/etc/x")}, "", None),
    "another one without a name": ({"keepalived.pid": (7, "/etc/x")}, "a", None),
    "one whose file is not to be seen": ({"keepalived.pid": (7, None)}, "a", 7),
    "its name, and another one": (
        {"keepalived.pid": (7, "/etc/x"), "run/keepalived_a.pid": (8, OURS)},
        "a",
        8,
    ),
}


@pytest.mark.parametrize(("those", "instance", "pid"), FOUND.values(), ids=FOUND.keys())
def test_the_one_of_the_pillar_is_found_whatever_its_name(
    those: Running, instance: str, pid: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    for name, (number, _) in those.items():
        (tmp_path / name).write_text(f"{number}\n")
    sources = dict(those.values())
    monkeypatch.setattr(running, "PID_FILE", str(tmp_path / "keepalived.pid"))
    monkeypatch.setattr(running, "PID_FILE_IN_FOLDER", str(tmp_path / "run/keepalived.pid"))
    monkeypatch.setattr(running, "INSTANCE_FOLDER", str(tmp_path / "run"))
    monkeypatch.setattr(running, "is_keepalived", lambda number: number in sources)
    monkeypatch.setattr(running, "source_of", sources.get)
    assert running.process(running.PID_FILE, instance, OURS) == pid


@pytest.mark.parametrize("written", ["foo", '"foo"', " foo ", "foo bar", '"foo" bar'])
def test_a_name_is_read_as_keepalived_reads_it(written: str) -> None:
    assert running.instance_in(written) == "foo"


def test_the_file_that_it_runs_with_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf, link, held = tmp_path / "a.conf", tmp_path / "link.conf", tmp_path / "held"
    conf.write_text("")
    link.symlink_to(conf)
    held.write_text(f"# {link}\nglobal_defs {{\n}}\n")
    monkeypatch.setattr(running, "consolidated", lambda _: str(held))
    assert running.source_of(os.getpid()) == str(link)
    assert running.runs_with(os.getpid(), str(conf)) is True
    assert running.runs_with(os.getpid(), str(tmp_path / "b.conf")) is False
    monkeypatch.setattr(running, "consolidated", lambda _: None)
    assert running.runs_with(os.getpid(), str(conf)) is None
