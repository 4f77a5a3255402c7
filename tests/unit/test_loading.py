"""What keepalived has loaded, compared with a text; and what a reload has harmed."""

from __future__ import annotations

import ipaddress
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from saltext.lvs import errors, handover, loading, proving, running
from saltext.lvs import table as tables
from saltext.lvs.proving import Evidence
from saltext.lvs.running import Instance, State, Vip

TEXT = """\
# By us.
global_defs {
    router_id lb1   ! why
    note "a # in quotes"
}

vrrp_instance V {
\tinterface  eth0
}
virtual_server 10.10.10.10 80 {
    protocol TCP
}
virtual_server fd00::10 53 {
    protocol UDP
}
virtual_server fwmark 7 {
    lvs_sched rr
}
virtual_server group G {
    protocol TCP
}
"""


def test_comments_and_spaces_do_not_count() -> None:
    assert loading.normalized(TEXT)[:8] == (
        "global_defs {",
        "router_id lb1",
        'note "a # in quotes"',
        "}",
        "vrrp_instance V {",
        "interface eth0",
        "}",
        "virtual_server 10.10.10.10 80 {",
    )


def test_virtual_servers_are_known_by_what_the_kernel_knows_them_by() -> None:
    names = ("tcp 10.10.10.10:80", "udp [fd00::10]:53", "fwmark 7", "fwmark 7 (IPv6)")
    assert handover.named_in(TEXT) == {tables.virtual_server_key(name) for name in names}


WEB = tables.virtual_server_key("tcp 10.10.10.10:80")
ADDRESS = ipaddress.ip_address("10.10.10.10")
MASTER = Instance(
    name="V",
    state=State.MASTER,
    wanted=State.MASTER,
    interface="eth0",
    virtual_router_id=10,
    base_priority=150,
    priority=150,
    vips=(Vip(ADDRESS, "eth0"),),
    vips_set=True,
    last_transition=1.0,
    advert_seconds=1.0,
    counters={"become_master": 1, "release_master": 0, "advert_rcvd": 0},
)
BEFORE = Evidence(frozenset({2, 3}), {"V": MASTER}, frozenset({ADDRESS}), {WEB: 10})
OTHER = TEXT.replace("eth0", "eth1")
HARM: dict[str, tuple[Evidence, str, tuple[str, ...]]] = {
    "all as before": (BEFORE, TEXT, ()),
    "more connections": (replace(BEFORE, connections={WEB: 11}), TEXT, ()),
    "the time of a reload": (
        replace(BEFORE, report={"V": replace(MASTER, last_transition=2.0)}),
        TEXT,
        (),
    ),
    "another process": (
        replace(BEFORE, children=frozenset({2, 4})),
        TEXT,
        ("a process of keepalived has ended at the reload; keepalived's log has the reason",),
    ),
    "no process for what is gone": (
        replace(BEFORE, children=frozenset({2})),
        TEXT[: TEXT.index("virtual_server")],
        (),
    ),
    "another state": (
        replace(BEFORE, report={"V": replace(MASTER, state=State.BACKUP)}, held=frozenset()),
        TEXT,
        ("VRRP instance V left MASTER, although nothing of it has changed; now it is BACKUP",),
    ),
    "away and back": (
        replace(
            BEFORE, report={"V": replace(MASTER, counters={**MASTER.counters, "become_master": 2})}
        ),
        TEXT,
        ("VRRP instance V left MASTER, although nothing of it has changed; now it is MASTER",),
    ),
    "another state of what has changed": (
        replace(BEFORE, report={"V": replace(MASTER, state=State.BACKUP)}, held=frozenset()),
        OTHER,
        (),
    ),
    "unknown": (
        replace(BEFORE, report={}),
        TEXT,
        ("keepalived does not know VRRP instance V any more",),
    ),
    "unknown, as asked": (replace(BEFORE, report={}), TEXT.replace("V {", "W {"), ()),
    "a VIP on no interface": (
        replace(BEFORE, held=frozenset()),
        TEXT,
        ("10.10.10.10 of VRRP instance V is on no interface any more",),
    ),
    "a virtual server that is gone": (
        replace(BEFORE, connections={}),
        TEXT,
        ("tcp 10.10.10.10:80 is not in the IPVS table any more",),
    ),
    "a virtual server that is gone, as asked": (
        replace(BEFORE, connections={}),
        TEXT.replace("10.10.10.10 80", "10.10.10.10 81"),
        (),
    ),
    "a virtual server that began anew": (
        replace(BEFORE, connections={WEB: 0}),
        TEXT,
        ("tcp 10.10.10.10:80 was deleted and added again: its connections may be cut",),
    ),
}


@pytest.mark.parametrize(("after", "text", "told"), HARM.values(), ids=HARM.keys())
def test_what_a_reload_has_harmed_is_told(
    after: Evidence, text: str, told: tuple[str, ...]
) -> None:
    assert proving.harm(BEFORE, after, TEXT, text) == told


def test_who_changes_its_state_is_told_apart_from_harm() -> None:
    after = replace(BEFORE, report={"V": replace(MASTER, state=State.BACKUP)})
    assert proving.moves(BEFORE, after) == ("V went from MASTER to BACKUP",)
    assert proving.moves(BEFORE, BEFORE) == ()


BACKUP = replace(MASTER, state=State.BACKUP)
SETTLED: dict[str, tuple[Instance, bool, tuple[str, ...]]] = {
    "a master with its VIP": (MASTER, True, ()),
    "a master without": (MASTER, False, ("VRRP instance V is MASTER without 10.10.10.10",)),
    "a backup that hears a master": (
        replace(BACKUP, counters={"advert_rcvd": 1}),
        False,
        (),
    ),
    "a backup that hears nobody": (
        BACKUP,
        False,
        ("VRRP instance V is BACKUP, and no master has been heard",),
    ),
    "a fault": (
        replace(MASTER, state=State.FAULT),
        False,
        ("VRRP instance V is in state FAULT",),
    ),
}


@pytest.mark.parametrize(("instance", "held", "told"), SETTLED.values(), ids=SETTLED.keys())
def test_a_start_is_over_when_every_instance_has_its_place(
    instance: running.Instance, held: bool, told: tuple[str, ...]
) -> None:
    assert proving.unsettled({"V": instance}, {ADDRESS} if held else set()) == told


def test_blocks_are_told_apart_by_more_than_their_heads_and_end_where_they_end() -> None:
    text = """\
virtual_server 10.10.10.10 53 {
    protocol UDP
    quorum_up "/bin/up {"
}
virtual_server 10.10.10.10 53 {
    protocol TCP
}
virtual_server 10.10.10.10 80 {
    protocol TCP
}
"""
    assert sorted(map(str, handover.named_in(text))) == [
        "tcp 10.10.10.10:53",
        "tcp 10.10.10.10:80",
        "udp 10.10.10.10:53",
    ]


def test_one_that_does_not_handle_signals_yet_is_not_ended_by_a_reload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For some milliseconds after its pid file is there, SIGHUP would end it."""
    monkeypatch.setattr(loading, "READ_SECONDS", 0.2)
    monkeypatch.setattr(running, "LOCK", str(tmp_path / "lock"))
    program = shutil.copy(shutil.which("sleep") or "", tmp_path / "keepalived")
    with subprocess.Popen([program, "60"]) as process:
        try:
            with pytest.raises(errors.CommandFailed, match=r"is not ready for a reload within 0.2"):
                loading.reload(process.pid)
            assert process.poll() is None
        finally:
            process.kill()
