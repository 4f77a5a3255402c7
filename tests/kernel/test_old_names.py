"""The functions and states that Salt had until 3007, on a real table."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError
from saltext.lvs import ipvs
from saltext.lvs import ipvsadm as notation
from saltext.lvs.table import Table

from tests.functional.conftest import Minion, example
from tests.kernel.commands import ip, ipvsadm
from tests.lab.waiting import until

pytestmark = pytest.mark.usefixtures("netns")

WEB = "-A -t 10.10.10.10:80 -s wlc"
RS1 = "-a -t 10.10.10.10:80 -r 10.10.10.41:80 -g -w 10"
RS2 = "-a -t 10.10.10.10:80 -r 10.10.10.42:8080 -m -w 50"
TCP = ("tcp", "10.10.10.10:80")
ON_RS1 = (*TCP, "10.10.10.41:80")


@pytest.fixture(scope="module")
def lb1(tmp_path_factory: pytest.TempPathFactory) -> Minion:
    """A minion without any pillar, as those who use the old names may well have it."""
    return Minion("lb1", {}, tmp_path_factory.mktemp("lb1"))


def given(*lines: str) -> None:
    """Fill the table by the hand of another."""
    ipvsadm("-R", text="".join(f"{line}\n" for line in lines))


def held() -> list[str]:
    return ipvsadm("-Sn").splitlines()


# --------------------------------------------------------------------------------------------------
# Functions that change the table

Call = tuple[str, tuple[Any, ...], dict[str, Any]]


def call(function: str, *args: Any, **kwargs: Any) -> Call:
    return f"lvs.{function}", args, kwargs


# What the table holds, what is called, and what it holds then.
CHANGES: dict[str, tuple[list[str], Call, list[str]]] = {
    "a virtual server": ([], call("add_service", *TCP), [WEB]),
    "a virtual server with another scheduler": (
        [],
        call("add_service", "udp", "10.10.10.10:53", "rr"),
        ["-A -u 10.10.10.10:53 -s rr"],
    ),
    "a virtual server with the name of a service": (
        [],
        call("add_service", "tcp", "10.10.10.10:http"),
        [WEB],
    ),
    "a virtual server by its firewall mark, as a number": (
        [],
        call("add_service", "fwmark", 7, "sh"),
        ["-A -f 7 -s sh"],
    ),
    "a virtual server by its firewall mark for IPv6": (
        [],
        call("add_service", "fwmark", "7 -6"),
        ["-A -f 7 -6 -s wlc"],
    ),
    "a virtual server with an IPv6 address": (
        [],
        call("add_service", "tcp", "[fd00::10]:80"),
        ["-A -t [fd00::10]:80 -s wlc"],
    ),
    "a virtual server for sctp": (
        [],
        call("add_service", "sctp", "10.10.10.10:9"),
        ["-A --sctp-service 10.10.10.10:9 -s wlc"],
    ),
    "a virtual server beside others": (
        [WEB, RS1],
        call("add_service", "udp", "10.10.10.10:80"),
        [WEB, RS1, "-A -u 10.10.10.10:80 -s wlc"],
    ),
    "another scheduler keeps persistence, netmask and real servers": (
        [f"{WEB} -p 5 -M 255.255.255.0", RS1],
        call("edit_service", *TCP, "rr"),
        ["-A -t 10.10.10.10:80 -s rr -p 5 -M 255.255.255.0", RS1],
    ),
    "an edit that names no scheduler keeps the one there is": (
        ["-A -t 10.10.10.10:80 -s rr"],
        call("edit_service", *TCP),
        ["-A -t 10.10.10.10:80 -s rr"],
    ),
    "a virtual server goes with its real servers": ([WEB, RS1], call("delete_service", *TCP), []),
    "a virtual server goes alone": (
        [WEB, RS1, "-A -f 7 -s wlc"],
        call("delete_service", "fwmark", 7),
        [WEB, RS1],
    ),
    "a real server": (
        [WEB],
        call("add_server", *ON_RS1),
        [WEB, "-a -t 10.10.10.10:80 -r 10.10.10.41:80 -g -w 1"],
    ),
    "a real server of weight 0": (
        [WEB],
        call("add_server", *ON_RS1, weight=0),
        [WEB, "-a -t 10.10.10.10:80 -r 10.10.10.41:80 -g -w 0"],
    ),
    "a real server whose weight is text": (
        [WEB],
        call("add_server", *ON_RS1, "dr", "10"),
        [WEB, RS1],
    ),
    "a real server behind network address translation": (
        [WEB],
        call("add_server", *TCP, "10.10.10.42:8080", "nat", 50),
        [WEB, RS2],
    ),
    "a real server in a tunnel": (
        [WEB],
        call("add_server", *ON_RS1, packet_forward_method="tunnel"),
        [WEB, "-a -t 10.10.10.10:80 -r 10.10.10.41:80 -i -w 1 --tun-type ipip"],
    ),
    "a real server with a port that direct routing cannot reach": (
        [WEB],
        call("add_server", *TCP, "10.10.10.41:8080", "dr", 10),
        [WEB, RS1],
    ),
    "a real server of a firewall mark": (
        ["-A -f 7 -s wlc"],
        call("add_server", "fwmark", 7, "10.10.10.41:0"),
        ["-A -f 7 -s wlc", "-a -f 7 -r 10.10.10.41:0 -g -w 1"],
    ),
    "a real server, asked for from the master": (
        [WEB],
        call("add_server", *ON_RS1, "dr", 10, __pub_user="root", __pub_jid="1"),
        [WEB, RS1],
    ),
    "a new weight keeps the way of forwarding": (
        [WEB, RS2],
        call("edit_server", *TCP, "10.10.10.42:8080", weight=1),
        [WEB, "-a -t 10.10.10.10:80 -r 10.10.10.42:8080 -m -w 1"],
    ),
    "weight 0 keeps the rest": (
        [WEB, RS1],
        call("edit_server", *ON_RS1, weight=0),
        [WEB, "-a -t 10.10.10.10:80 -r 10.10.10.41:80 -g -w 0"],
    ),
    "another way of forwarding keeps the weight": (
        [WEB, RS1],
        call("edit_server", *ON_RS1, packet_forward_method="nat"),
        [WEB, "-a -t 10.10.10.10:80 -r 10.10.10.41:80 -m -w 10"],
    ),
    "direct routing instead of translation gives up its port": (
        [WEB, RS2],
        call("edit_server", *TCP, "10.10.10.42:8080", "dr", 50),
        [WEB, "-a -t 10.10.10.10:80 -r 10.10.10.42:80 -g -w 50"],
    ),
    "translation instead of direct routing takes the port": (
        [WEB, "-a -t 10.10.10.10:80 -r 10.10.10.42:80 -g -w 50"],
        call("edit_server", *TCP, "10.10.10.42:8080", "nat"),
        [WEB, RS2],
    ),
    "direct routing instead of a tunnel gives up what the tunnel was made of": (
        [WEB, f"{RS1.replace('-g', '-i')} --tun-type gue --tun-port 6080 --tun-csum"],
        call("edit_server", *ON_RS1, "dr"),
        [WEB, RS1],
    ),
    "a new weight keeps what a tunnel is made of": (
        [WEB, f"{RS1.replace('-g', '-i')} --tun-type gue --tun-port 6080 --tun-csum"],
        call("edit_server", *ON_RS1, weight=0),
        [
            WEB,
            "-a -t 10.10.10.10:80 -r 10.10.10.41:80 -i -w 0 --tun-type gue --tun-port 6080 "
            "--tun-csum",
        ],
    ),
    "a direct real server is found by a port that it cannot have": (
        [WEB, RS1],
        call("edit_server", *TCP, "10.10.10.41:8080", weight=3),
        [WEB, "-a -t 10.10.10.10:80 -r 10.10.10.41:80 -g -w 3"],
    ),
    "an edit of nothing": ([WEB, RS2], call("edit_server", *TCP, "10.10.10.42:8080"), [WEB, RS2]),
    "a real server goes": ([WEB, RS1, RS2], call("delete_server", *ON_RS1), [WEB, RS2]),
    "everything goes": ([WEB, RS1, "-A -f 7 -s wlc"], call("clear"), []),
    "everything goes from a table of nothing": ([], call("clear"), []),
}


@pytest.mark.parametrize(("before", "called", "after"), CHANGES.values(), ids=CHANGES.keys())
def test_a_function_changes_what_it_says(
    lb1: Minion, before: list[str], called: Call, after: list[str]
) -> None:
    given(*before)
    function, args, kwargs = called
    assert lb1.call(function, *args, **kwargs) is True
    assert held() == after
    # What ipvsadm does not show is as if it had been written so from the start.
    assert ipvs.read().table == Table.of(notation.read("\n".join(after)))


def test_thresholds_outlive_an_edit(lb1: Minion) -> None:
    given(WEB, f"{RS1} -x 100 -y 90")
    lb1.call("lvs.edit_server", *ON_RS1, weight=11)
    assert lb1.call("lvs.get_rules").splitlines() == [
        WEB,
        "-a -t 10.10.10.10:80 -r 10.10.10.41:80 -g -w 11 -x 100 -y 90",
    ]


WRONG = SaltInvocationError
FAILED = CommandExecutionError
# What the table holds, what is called, and what is said; the table stays as it is.
REFUSALS: dict[str, tuple[list[str], Call, type[Exception], str]] = {
    "a virtual server that is there": (
        [WEB, RS1],
        call("add_service", *TCP),
        FAILED,
        "there is tcp 10.10.10.10:80 already",
    ),
    "a virtual server that is there just so": (
        [WEB],
        call("add_service", *TCP),
        FAILED,
        "there is tcp 10.10.10.10:80 already",
    ),
    "a virtual server that is not there to edit": (
        [WEB],
        call("edit_service", "udp", "10.10.10.10:80", "rr"),
        FAILED,
        "there is no udp 10.10.10.10:80",
    ),
    "a virtual server that is not there to delete": (
        [WEB],
        call("delete_service", "udp", "10.10.10.10:80"),
        FAILED,
        "there is no udp 10.10.10.10:80",
    ),
    "a virtual server that is not there to list": (
        [WEB],
        call("list", "udp", "10.10.10.10:80"),
        FAILED,
        "there is no udp 10.10.10.10:80",
    ),
    "a virtual server for all ports": (
        [],
        call("add_service", "tcp", "10.10.10.10"),
        WRONG,
        "service_address is '10.10.10.10'; it should be an address with a port",
    ),
    "no protocol": (
        [],
        call("add_service", service_address="10.10.10.10:80"),
        WRONG,
        "protocol is missing; it should be tcp, udp, sctp or fwmark",
    ),
    "options of ipvsadm in an address": (
        [],
        call("add_service", "tcp", "10.10.10.10:80 -s rr"),
        WRONG,
        "service_address is '10.10.10.10:80 -s rr'; it should be ADDRESS:PORT such as "
        "10.10.10.10:80 or [fd00::10]:80, without names of hosts",
    ),
    "options of ipvsadm in a scheduler": (
        [],
        call("add_service", *TCP, "rr -p 5"),
        WRONG,
        "scheduler is 'rr -p 5'; it should be the name of a scheduler such as wlc",
    ),
    "a scheduler that the kernel has not": (
        [],
        call("add_service", *TCP, "nosuch"),
        FAILED,
        "cannot add virtual server tcp 10.10.10.10:80: No such file or directory (ENOENT); is the "
        "scheduler there? modprobe -a ip_vs_nosuch; 0 of 1 operations were carried out; the next "
        "apply completes them",
    ),
    "a real server that is there": (
        [WEB, RS1],
        call("add_server", *ON_RS1),
        FAILED,
        "tcp 10.10.10.10:80 has a real server 10.10.10.41:80 already",
    ),
    "a real server that is there just so": (
        [WEB, RS1],
        call("add_server", *ON_RS1, "dr", 10),
        FAILED,
        "tcp 10.10.10.10:80 has a real server 10.10.10.41:80 already",
    ),
    "a real server without its virtual server": (
        [],
        call("add_server", *ON_RS1),
        FAILED,
        "there is no tcp 10.10.10.10:80",
    ),
    "a real server that is not there to edit": (
        [WEB, RS2],
        call("edit_server", *ON_RS1, weight=0),
        FAILED,
        "tcp 10.10.10.10:80 has no real server 10.10.10.41:80",
    ),
    "a masqueraded real server by another port": (
        [WEB, RS2],
        call("edit_server", *TCP, "10.10.10.42:80", weight=0),
        FAILED,
        "tcp 10.10.10.10:80 has no real server 10.10.10.42:80",
    ),
    "a real server that is not there to delete": (
        [WEB, RS2],
        call("delete_server", *ON_RS1),
        FAILED,
        "tcp 10.10.10.10:80 has no real server 10.10.10.41:80",
    ),
    "a weight below nothing": (
        [WEB, RS1],
        call("edit_server", *ON_RS1, weight=-1),
        WRONG,
        "weight is -1; it should be a whole number from 0 to 2147483647",
    ),
    "a weight that is a truth": (
        [WEB, RS1],
        call("edit_server", *ON_RS1, weight=True),
        WRONG,
        "weight is True; it should be a whole number from 0 to 2147483647",
    ),
    "a way of forwarding that nobody knows": (
        [WEB],
        call("add_server", *ON_RS1, "direct"),
        WRONG,
        "packet_forward_method is 'direct'; it should be dr, tunnel or nat",
    ),
    "an argument that is misspelt": (
        [WEB],
        call("add_server", *ON_RS1, wieght=0),
        WRONG,
        "wieght is 0; it should be left out",
    ),
    "an argument that is misspelt in a check": (
        [WEB],
        call("check_server", *ON_RS1, wieght=0),
        WRONG,
        "wieght is 0; it should be left out, or one of packet_forward_method, weight",
    ),
    "counters of a virtual server that is not there": (
        [WEB],
        call("zero", "udp", "10.10.10.10:80"),
        FAILED,
        "cannot zero the counters of udp 10.10.10.10:80: No such process (ESRCH); there is "
        "no such virtual server",
    ),
}


@pytest.mark.parametrize(
    ("before", "called", "kind", "said"), REFUSALS.values(), ids=REFUSALS.keys()
)
def test_a_function_that_cannot_do_it_raises_and_changes_nothing(
    lb1: Minion, before: list[str], called: Call, kind: type[Exception], said: str
) -> None:
    given(*before)
    function, args, kwargs = called
    with pytest.raises(kind) as caught:
        lb1.call(function, *args, **kwargs)
    assert str(caught.value) == said
    assert held() == before


# --------------------------------------------------------------------------------------------------
# Functions that look

CHECKS: dict[str, tuple[Call, bool]] = {
    "a virtual server that is there": (call("check_service", *TCP), True),
    "one of another protocol": (call("check_service", "udp", "10.10.10.10:80"), False),
    "one whose port begins alike": (call("check_service", "tcp", "10.10.10.10:8"), False),
    "one with its scheduler": (call("check_service", *TCP, scheduler="lblcr"), True),
    "one with a scheduler that begins alike": (
        call("check_service", *TCP, scheduler="lblc"),
        False,
    ),
    "a virtual server, asked for from the master": (
        call("check_service", *TCP, __pub_user="root"),
        True,
    ),
    "a real server that is there": (call("check_server", *ON_RS1), True),
    "one that is not there": (call("check_server", *TCP, "10.10.10.4:80"), False),
    "one by a port that it cannot have": (call("check_server", *TCP, "10.10.10.41:8080"), True),
    "one by a port that it might have": (call("check_server", *TCP, "10.10.10.42:80"), False),
    "one of a virtual server that is not there": (
        call("check_server", "udp", "10.10.10.10:80", "10.10.10.41:80"),
        False,
    ),
    "one with its weight": (call("check_server", *ON_RS1, weight=10), True),
    "one with its weight as text": (call("check_server", *ON_RS1, weight="10"), True),
    "one with a weight that begins alike": (call("check_server", *ON_RS1, weight=1), False),
    "one with weight 0": (call("check_server", *ON_RS1, weight=0), False),
    "one with its way of forwarding": (
        call("check_server", *ON_RS1, packet_forward_method="dr"),
        True,
    ),
    "one with another way of forwarding": (
        call("check_server", *ON_RS1, packet_forward_method="nat"),
        False,
    ),
    "one, asked for from the master": (call("check_server", *ON_RS1, __pub_user="root"), True),
    "one that is this machine, however it is to be reached": (
        call("check_server", *TCP, "127.0.0.1:80", packet_forward_method="dr", weight=7),
        True,
    ),
}


@pytest.mark.parametrize(("called", "answer"), CHECKS.values(), ids=CHECKS.keys())
def test_a_check_is_true_or_false(lb1: Minion, called: Call, answer: bool) -> None:
    given(
        "-A -t 10.10.10.10:80 -s lblcr -p 300",
        RS1,
        RS2,
        "-a -t 10.10.10.10:80 -r 127.0.0.1:80 -g -w 7",
    )
    function, args, kwargs = called
    assert lb1.call(function, *args, **kwargs) is answer


def test_rules_are_those_of_ipvsadm(lb1: Minion) -> None:
    given(f"{WEB} -p", RS1, RS2, "-A -f 7 -s wlc", "-A -t [fd00::10]:80 -s rr -p 5 -M 64")
    assert lb1.call("lvs.get_rules") == ipvsadm("-Sn").rstrip("\n")


def test_lists_are_those_of_ipvsadm(lb1: Minion) -> None:
    given(f"{WEB} -p", RS1, RS2, "-A -f 7 -s wlc", "-A -t [fd00::10]:80 -s rr -p 5 -M 64")
    assert lb1.call("lvs.list") == ipvsadm("-L", "-n").strip()
    assert lb1.call("lvs.list", *TCP) == ipvsadm("-L", "-n", "-t", "10.10.10.10:80").strip()


def test_counters_are_set_to_zero_for_one_virtual_server_or_for_all(lb1: Minion) -> None:
    ports = (8001, 8002, 8003)
    ip("address add 10.10.10.10/32 dev lo")
    for port in ports:
        given(f"-A -t 10.10.10.10:{port}", f"-a -t 10.10.10.10:{port} -r 127.0.0.1:9 -m")
        with socket.socket() as client:
            client.connect_ex(("10.10.10.10", port))
    # The kernel adds them up every two seconds.
    until(lambda: counted() == {8001: 1, 8002: 1, 8003: 1}, "the counters", seconds=20)
    assert lb1.call("lvs.zero", "tcp", "10.10.10.10:8001") is True
    assert counted() == {8001: 0, 8002: 1, 8003: 1}
    assert lb1.call("lvs.zero") is True
    assert counted() == {8001: 0, 8002: 0, 8003: 0}


def counted() -> dict[int, int]:
    """The connections that each virtual server has had, by its port."""
    rows = [line.split() for line in ipvsadm("-L", "-n", "--stats", "--exact").splitlines()]
    return {int(row[1].rpartition(":")[2]): int(row[2]) for row in rows if row[0] == "TCP"}


# --------------------------------------------------------------------------------------------------
# What keepalived keeps


@pytest.fixture(scope="module")
def director(tmp_path_factory: pytest.TempPathFactory) -> Minion:
    """A director whose keepalived keeps tcp 10.10.10.10:80."""
    pillar = example("production")
    web = pillar["lvs"]["virtual_servers"]["web"]
    web["managed_by"] = "keepalived"
    pillar["lvs"]["alerts"] = {"notification_email": ["noc@example.com"]}
    return Minion("lb1", pillar, tmp_path_factory.mktemp("director"))


KEPT = {
    "a scheduler": call("edit_service", *TCP, "rr"),
    "a real server more": call("add_server", *TCP, "10.10.10.43:80"),
    "a weight": call("edit_server", *ON_RS1, weight=0),
    "a real server less": call("delete_server", *ON_RS1),
    "the virtual server": call("delete_service", *TCP),
    "everything": call("clear"),
}


@pytest.mark.parametrize("called", KEPT.values(), ids=KEPT.keys())
def test_what_keepalived_keeps_is_refused(director: Minion, called: Call) -> None:
    given(WEB, RS1, "-A -f 7 -s wlc")
    function, args, kwargs = called
    with pytest.raises(CommandExecutionError) as caught:
        director.call(function, *args, **kwargs)
    assert str(caught.value) == (
        "keepalived keeps tcp 10.10.10.10:80, as the pillar says: change it there; "
        "keepalived.set_weight sets the weight of a real server"
    )
    assert held() == [WEB, RS1, "-A -f 7 -s wlc"]


def test_what_keepalived_does_not_keep_may_be_changed_beside_it(director: Minion) -> None:
    given(WEB, RS1)
    director.call("lvs.add_service", "fwmark", 7)
    assert held() == [WEB, RS1, "-A -f 7 -s wlc"]


def test_a_pillar_of_another_shape_under_the_same_name_is_in_nobodys_way(
    lb1: Minion, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = {"virtual_servers": {"web": {"vip": "10.10.10.10", "rip": ["10.10.10.41"]}}}
    monkeypatch.setitem(lb1.caller.sminion.opts["pillar"], "lvs", theirs)
    assert lb1.call("lvs.add_service", *TCP) is True
    assert held() == [WEB]


# --------------------------------------------------------------------------------------------------
# States

SERVICE = {"protocol": "tcp", "service_address": "10.10.10.10:80"}
SERVER = {**SERVICE, "server_address": "10.10.10.41:80"}
TOLD = "LVS Server rs1 in service 10.10.10.10:80(tcp)"


@pytest.mark.parametrize(
    ("before", "function", "name", "arguments", "change", "comments", "after"),
    [
        pytest.param(
            [],
            "lvs_service.present",
            "web",
            SERVICE,
            "Present",
            ("LVS Service web would be created", "LVS Service web has been created"),
            [WEB],
            id="a virtual server is added",
        ),
        pytest.param(
            [f"{WEB} -p 5", RS1],
            "lvs_service.present",
            "web",
            {**SERVICE, "scheduler": "rr"},
            "Update",
            ("LVS Service web would be updated", "LVS Service web has been updated"),
            ["-A -t 10.10.10.10:80 -s rr -p 5", RS1],
            id="a scheduler is changed",
        ),
        pytest.param(
            [WEB, RS1],
            "lvs_service.absent",
            "web",
            SERVICE,
            "Absent",
            ("LVS Service web would be removed", "LVS Service web has been removed"),
            [],
            id="a virtual server is removed",
        ),
        pytest.param(
            [WEB],
            "lvs_server.present",
            "rs1",
            {**SERVER, "weight": 10},
            "Present",
            (f"{TOLD} would be created", f"{TOLD} has been created"),
            [WEB, RS1],
            id="a real server is added",
        ),
        pytest.param(
            [WEB, RS1],
            "lvs_server.present",
            "rs1",
            {**SERVER, "weight": 0},
            "Update",
            (f"{TOLD} would be updated", f"{TOLD} has been updated"),
            [WEB, "-a -t 10.10.10.10:80 -r 10.10.10.41:80 -g -w 0"],
            id="a real server is drained",
        ),
        pytest.param(
            [WEB, RS1],
            "lvs_server.present",
            "rs1",
            SERVER,
            "Update",
            (f"{TOLD} would be updated", f"{TOLD} has been updated"),
            [WEB, "-a -t 10.10.10.10:80 -r 10.10.10.41:80 -g -w 1"],
            id="a weight becomes 1 from 10",
        ),
        pytest.param(
            [WEB, RS1, RS2],
            "lvs_server.absent",
            "rs1",
            SERVER,
            "Absent",
            (f"{TOLD} would be removed", f"{TOLD} has been removed"),
            [WEB, RS2],
            id="a real server is removed",
        ),
    ],
)
def test_a_state_announces_then_changes_then_is_content(
    lb1: Minion,
    before: list[str],
    function: str,
    name: str,
    arguments: dict[str, Any],
    change: str,
    comments: tuple[str, str],
    after: list[str],
) -> None:
    given(*before)
    announced = lb1.state(function, name, test=True, **arguments)
    assert held() == before
    done = lb1.state(function, name, **arguments)
    assert held() == after
    again = lb1.state(function, name, **arguments)
    base = {"name": name, "changes": {name: change}}
    assert announced == {**base, "result": None, "comment": comments[0]}
    assert done == {**base, "result": True, "comment": comments[1]}
    assert (again["result"], again["changes"]) == (True, {})
    assert held() == after


@pytest.mark.parametrize(
    ("function", "name", "arguments", "comment"),
    [
        pytest.param(
            "lvs_server.present",
            "rs1",
            SERVER,
            f"{TOLD} is not as it should be: there is no tcp 10.10.10.10:80",
            id="a real server without its virtual server",
        ),
        pytest.param(
            "lvs_service.present",
            "web",
            {**SERVICE, "protocol": "icmp"},
            "LVS Service web is not as it should be: protocol is 'icmp'; it should be tcp, udp, "
            "sctp or fwmark",
            id="a protocol that IPVS has not",
        ),
        pytest.param(
            "lvs_service.absent",
            "web",
            {"protocol": "tcp"},
            "LVS Service web cannot be removed: service_address is missing; it should be "
            "ADDRESS:PORT such as 10.10.10.10:80 or [fd00::10]:80, without names of hosts",
            id="no address",
        ),
        pytest.param(
            "lvs_server.absent",
            "rs1",
            {**SERVER, "server_address": "rs1"},
            f"{TOLD} cannot be removed: server_address is 'rs1'; it should "
            "be ADDRESS:PORT such as 10.10.10.10:80 or [fd00::10]:80, without names of hosts",
            id="the name of a real server",
        ),
    ],
)
def test_a_state_that_cannot_be_reached_fails_with_the_reason(
    lb1: Minion, function: str, name: str, arguments: dict[str, Any], comment: str
) -> None:
    assert lb1.state(function, name, **arguments) == {
        "name": name,
        "result": False,
        "changes": {},
        "comment": comment,
    }


def test_the_example_of_the_old_documentation_stays_as_it_is_on_the_second_run(
    lb1: Minion,
) -> None:
    given(WEB)
    arguments = {**SERVICE, "server_address": "10.10.10.41:8080", "weight": 10}
    assert lb1.state("lvs_server.present", "lvsrs", **arguments)["changes"] == {"lvsrs": "Present"}
    assert lb1.state("lvs_server.present", "lvsrs", **arguments)["changes"] == {}
    assert held() == [WEB, RS1]
    assert lb1.state("lvs_server.absent", "lvsrs", **SERVER)["changes"] == {"lvsrs": "Absent"}
    assert held() == [WEB]


# At the end: in one process, Salt runs the states of all minions with the pillar of that one which
# loaded them last.
KEPT_STATES: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "a scheduler": (
        "lvs_service.present",
        "web",
        {**SERVICE, "scheduler": "rr"},
        "LVS Service web is not as it should be",
    ),
    "the virtual server": (
        "lvs_service.absent",
        "web",
        SERVICE,
        "LVS Service web cannot be removed",
    ),
    "a weight": (
        "lvs_server.present",
        "rs1",
        {**SERVER, "weight": 0},
        f"{TOLD} is not as it should be",
    ),
    "a real server less": (
        "lvs_server.absent",
        "rs1",
        SERVER,
        f"{TOLD} cannot be removed",
    ),
}


@pytest.mark.parametrize("test", [True, False], ids=["announced", "done"])
@pytest.mark.parametrize(
    ("function", "name", "arguments", "comment"), KEPT_STATES.values(), ids=KEPT_STATES.keys()
)
def test_a_state_of_what_keepalived_keeps_is_refused_also_in_advance(
    director: Minion,
    function: str,
    name: str,
    arguments: dict[str, Any],
    comment: str,
    test: bool,
) -> None:
    given(WEB, RS1)
    assert director.state(function, name, test=test, **arguments) == {
        "name": name,
        "result": False,
        "changes": {},
        "comment": f"{comment}: keepalived keeps tcp 10.10.10.10:80, as the pillar says: change it "
        "there; keepalived.set_weight sets the weight of a real server",
    }
    assert held() == [WEB, RS1]
