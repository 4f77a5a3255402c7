"""The guide's cluster, from the example pillar to packets: real master, minions, keepalived,
kernel.

The tests run in the order in which they stand here: each begins with a whole cluster and leaves
one.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.examples import Example, examples
from tests.integration.highstate import Highstate
from tests.lab.client import Client
from tests.lab.cluster import MINIONS, SaltCluster
from tests.lab.host import Host
from tests.lab.waiting import until

VIP = "10.10.10.10"
PASSWORD = "MY_PASS"
DIRECTORS = ("lb1", "lb2")
REAL_SERVERS = ("rs1", "rs2")
CLIENTS = [f"10.10.10.{number}" for number in range(101, 117)]
SEED_TABLE = """\
-A -t 10.10.10.10:80 -s wlc -p 5
-a -t 10.10.10.10:80 -r 10.10.10.41:80 -g -w 50
-a -t 10.10.10.10:80 -r 10.10.10.42:80 -g -w 50
"""
PILLAR = "/srv/pillar/production/lvs.sls"
# What Salt says instead of an answer.
FAILED = r"ERROR|'.*' is not available|The minion function caused|Passed invalid|Minion did not"


@pytest.fixture(scope="module")
def predicted(cluster: SaltCluster) -> Highstate:
    """What test mode says on machines that have nothing yet."""
    return Highstate.run(cluster, test=True)


@pytest.fixture(scope="module")
def before(predicted: Highstate, cluster: SaltCluster) -> dict[str, str]:
    """A director and a real server after test mode, and before the first highstate."""
    files = "/usr/sbin/keepalived /etc/keepalived /etc/salt/minion.d /etc/sysctl.d"
    looks = f"ls {files}; ip -brief address"
    return {name: cluster.lab[name].run(["sh", "-c", looks]).stdout for name in ("lb1", "rs1")}


@pytest.fixture(scope="module")
def first(before: dict[str, str], cluster: SaltCluster) -> Highstate:
    """The first highstate, on all four minions, and the restart of the minions after it."""
    started = {name: minion_process(cluster, name) for name in MINIONS}
    done = Highstate(cluster.highstate())
    assert all(minion_process(cluster, name) not in ("", started[name]) for name in MINIONS)
    until(lambda: holder(cluster) == ["lb1"], "lb1 to hold the VIP", seconds=30)
    return done


@pytest.fixture
def whole(first: Highstate, cluster: SaltCluster) -> SaltCluster:
    """The cluster as the first highstate made it."""
    until(lambda: holder(cluster) == ["lb1"], "lb1 to hold the VIP", seconds=30)
    return cluster


@pytest.fixture
def client(whole: SaltCluster) -> Client:
    """The client, outside the cluster."""
    return Client(whole.lab["client"])


def minion_process(cluster: SaltCluster, name: str) -> str:
    return cluster.lab[name].run(["cat", "/run/salt-minion.pid"]).stdout.strip()


def holder(cluster: SaltCluster) -> list[str]:
    """The directors that have the VIP on their card."""
    held = {
        name: cluster.lab[name].run(["ip", "-brief", "address", "show", "dev", "eth0"]).stdout
        for name in DIRECTORS
        if cluster.lab[name].is_on
    }
    return [name for name, said in held.items() if f"{VIP}/32" in said]


def keepalived_process(cluster: SaltCluster, name: str) -> str:
    return cluster.lab[name].run(["cat", "/run/keepalived.pid"]).stdout.strip()


# --------------------------------------------------------------------------------------------------
# Before anything is changed


def test_test_mode_on_new_machines_says_what_will_be_done(predicted: Highstate) -> None:
    assert predicted.failed() == {}
    assert {name: "lvs-vip-interface" in ids for name, ids in predicted.changing().items()} == {
        "lb1": False,
        "lb2": False,
        "rs1": True,
        "rs2": True,
    }
    table = predicted.of("lb1", "lvs-ipvs-table")
    assert table["changes"]["tcp 10.10.10.10:80"]["new"] == {"scheduler": "wlc", "persistence": 5}


def test_test_mode_changes_nothing(before: dict[str, str]) -> None:
    assert "keepalived" not in before["lb1"].replace("No such file", "")
    assert "saltext-lvs" not in before["lb1"] + before["rs1"]
    assert "dummy0" not in before["rs1"]


def test_the_master_finds_the_pillar_of_all_its_minions_right(cluster: SaltCluster) -> None:
    judged = cluster.salt_run("lvs.validate")
    assert {name: (answer["valid"], answer["roles"]) for name, answer in judged.items()} == {
        "lb1": (True, ["director"]),
        "lb2": (True, ["director"]),
        "rs1": (True, ["realserver"]),
        "rs2": (True, ["realserver"]),
    }


# --------------------------------------------------------------------------------------------------
# The first highstate, and the second


def test_the_first_highstate_does_everything(first: Highstate, predicted: Highstate) -> None:
    assert first.failed() == {}
    # What test mode announced is what was done: no more, no less. But the lab's hosts share a
    # kernel, where a module that one has loaded is there for all.
    assert without_modules(first) == without_modules(predicted)


def without_modules(highstate: Highstate) -> dict[str, list[str]]:
    loading = {"lvs-director-modules", "lvs-realserver-modules"}
    return {
        name: [state_id for state_id in ids if state_id not in loading]
        for name, ids in highstate.changing().items()
    }


def test_the_second_highstate_changes_nothing(whole: SaltCluster) -> None:
    second = Highstate.run(whole)
    assert (second.failed(), second.changing()) == ({}, {name: [] for name in MINIONS})


def test_test_mode_then_has_nothing_to_announce(whole: SaltCluster) -> None:
    announced = Highstate.run(whole, test=True)
    assert (announced.failed(), announced.changing()) == ({}, {name: [] for name in MINIONS})


@pytest.mark.parametrize("director", DIRECTORS)
def test_the_kernel_of_each_director_holds_the_guides_table(
    whole: SaltCluster, director: str
) -> None:
    assert whole.lab[director].run(["ipvsadm", "-Sn"]).stdout == SEED_TABLE


@pytest.mark.parametrize("director", DIRECTORS)
def test_each_director_has_ipvss_own_settings_now_and_after_a_boot(
    whole: SaltCluster, director: str
) -> None:
    host = whole.lab[director]
    kept = host.read("/etc/sysctl.d/60-saltext-lvs-director.conf")
    assert [line for line in kept.splitlines() if not line.startswith("#")] == [
        "net.ipv4.vs.expire_nodest_conn = 1",
        "net.ipv4.vs.expire_quiescent_template = 1",
    ]
    for name in ("expire_nodest_conn", "expire_quiescent_template"):
        assert host.read(f"/proc/sys/net/ipv4/vs/{name}") == "1\n"


def test_connection_synchronization_runs_from_master_to_backup(whole: SaltCluster) -> None:
    daemons = {
        name: whole.lab[name].run(["ipvsadm", "-L", "--daemon"]).stdout for name in DIRECTORS
    }
    assert daemons == {
        "lb1": "master sync daemon (mcast=eth0, syncid=10)\n",
        "lb2": "backup sync daemon (mcast=eth0, syncid=10)\n",
    } or ("syncid=10" in daemons["lb1"] and "syncid=10" in daemons["lb2"])


@pytest.mark.parametrize("name", REAL_SERVERS)
def test_each_real_server_holds_the_vip_and_is_quiet(whole: SaltCluster, name: str) -> None:
    host = whole.lab[name]
    said = json.loads(host.run(["ip", "-json", "address", "show", "dev", "dummy0"]).stdout)
    (interface,) = said
    held = [
        f"{a['local']}/{a['prefixlen']}" for a in interface["addr_info"] if a["family"] == "inet"
    ]
    assert held == ["10.10.10.10/32"]
    assert {"NOARP", "UP"} <= set(interface["flags"])
    assert host.read("/proc/sys/net/ipv4/conf/all/arp_ignore") == "1\n"
    assert host.read("/proc/sys/net/ipv4/conf/all/arp_announce") == "2\n"
    kept = host.read("/etc/sysctl.d/60-saltext-lvs-realserver.conf")
    assert [line for line in kept.splitlines() if not line.startswith("#")] == [
        "net.ipv4.conf.all.arp_ignore = 1",
        "net.ipv4.conf.all.arp_announce = 2",
        "net.ipv4.conf.eth0.arp_ignore = 1",
        "net.ipv4.conf.eth0.arp_announce = 2",
    ]


# --------------------------------------------------------------------------------------------------
# Requests and packets


def test_clients_reach_both_real_servers_by_the_vip(client: Client) -> None:
    replies = client.get(VIP, sources=CLIENTS, requests=160)
    assert replies.errors == []
    assert {reply.destination for reply in replies.all} == {VIP}
    assert set(replies.by_server()) == set(REAL_SERVERS)
    # Persistence: each client address stays with its real server.
    assert all(len(servers) == 1 for servers in replies.by_source().values())


def test_only_the_director_answers_arp_for_the_vip(whole: SaltCluster, client: Client) -> None:
    lab = whole.lab
    lab["client"].run(["ip", "neighbour", "flush", "all"], check=True)
    with (
        lab["rs1"].capture() as on_rs1,
        lab["rs2"].capture() as on_rs2,
        lab["lb1"].capture() as on_lb1,
    ):
        assert client.get(VIP, sources=CLIENTS, requests=32).errors == []
        lab["client"].run(["ip", "neighbour", "flush", "all"], check=True)
        assert client.get(VIP, sources=CLIENTS, requests=32).errors == []
    asked = [
        p for p in on_rs1 if p.kind == "arp" and p.operation == "request" and p.destination == VIP
    ]
    assert asked, "the question did not reach the real server, so its silence says nothing"
    for packets in (on_rs1, on_rs2):
        spoken = [p for p in packets if p.outgoing and p.kind == "arp" and p.source == VIP]
        assert spoken == []
    answered = [p for p in on_lb1 if p.outgoing and p.kind == "arp" and p.source == VIP]
    assert answered
    served = [p for p in on_rs1 if not p.outgoing and p.protocol == "tcp" and p.destination == VIP]
    assert served, "no packet came to rs1 with the VIP as destination"


# --------------------------------------------------------------------------------------------------
# What the docstrings show


# Functions that refuse in this cluster, where keepalived runs the sync daemons, and Salt keeps the
# table.
REFUSING = {
    "ipvs.start_sync_daemon": "keepalived keeps the sync daemon",
    "ipvs.stop_sync_daemon": "keepalived keeps the sync daemon",
    "keepalived.set_weight": "Salt keeps web, not keepalived",
    "keepalived.reset_weight": "Salt keeps web, not keepalived",
}


@pytest.mark.parametrize("example", examples("_modules"), ids=lambda example: example.shown_by)
def test_the_example_of_a_function_runs_as_it_stands(whole: SaltCluster, example: Example) -> None:
    program, target, function, *arguments = example.words
    assert (program, function) == ("salt", example.shown_by)
    process = minion_process(whole, "lb1")
    returned = whole.salt(target, function, *arguments)
    assert returned, f"{target} means no minion"
    for answer in returned.values():
        if function in REFUSING:
            assert re.search(REFUSING[function], answer)
            continue
        assert not (isinstance(answer, str) and re.match(FAILED, answer)), answer
    if example.shown_by == "lvs.restart_minion":
        until(lambda: minion_process(whole, "lb1") not in ("", process), "the restart", seconds=60)
        whole.wait()


def test_an_apply_sets_right_what_the_examples_did_to_the_table(whole: SaltCluster) -> None:
    whole.salt("lb*", "ipvs.apply", "purge=True")
    for planned in whole.salt("lb*", "ipvs.plan", "purge=True").values():
        assert planned == {"operations": [], "changes": {}, "loaded": True, "notes": []}


def is_held(returned: Any) -> bool:
    """Whether each VIP is held by one director; or a look that is to come will say so."""
    return returned.get("asked") == [] or [
        (vip["verdict"], len(vip["holders"])) for vip in returned["vips"].values()
    ] == [("held", 1)]


# Whether what a runner has returned is right.
RUNNERS: dict[str, Callable[[Any], bool]] = {
    "lvs.alert": lambda returned: returned["accepted"] == ["noc@example.com"],
    "lvs.announce": lambda returned: returned["asked"] == list(DIRECTORS),
    "lvs.check_mastership": is_held,
    "lvs.import_config": lambda returned: (
        sorted(returned["pillar"]["lvs"]["directors"]) == list(DIRECTORS)
        and not returned["failed"]
        and PASSWORD not in str(returned)
    ),
    "lvs.incidents": lambda returned: returned == {"open": [], "closed": []},
    "lvs.mastership": is_held,
    "lvs.outbox": lambda returned: returned == {"waiting": [], "refused": []},
    "lvs.validate": lambda returned: all(answer["valid"] for answer in returned.values()),
}


@pytest.mark.parametrize("example", examples("_runners"), ids=str)
def test_the_example_of_a_runner_runs_as_it_stands(whole: SaltCluster, example: Example) -> None:
    program, function, *arguments = example.words
    assert program == "salt-run"
    assert RUNNERS[function](whole.salt_run(function, *arguments))


# --------------------------------------------------------------------------------------------------
# Secrets


@pytest.mark.parametrize("name", REAL_SERVERS)
def test_a_real_servers_compiled_pillar_holds_no_password(whole: SaltCluster, name: str) -> None:
    done = whole.lab[name].run(["salt-call", "--out=json", "pillar.items"], timeout=120)
    assert "VirtIP_10" in done.stdout
    assert PASSWORD not in done.stdout
    assert "lvs_secrets" not in done.stdout


def test_the_password_is_in_no_answer_and_no_log(first: Highstate, whole: SaltCluster) -> None:
    assert PASSWORD not in json.dumps(first.returned)
    for name in MINIONS:
        folders = ["/var/log", "/var/cache/salt", "/etc/salt", "/run"]
        said = whole.lab[name].run(["grep", "-rlF", PASSWORD, *folders]).stdout
        assert said == "", f"{name} has the password in {said}"
    assert whole.master.run(["grep", "-rlF", PASSWORD, "/var/log"]).stdout == ""


@pytest.mark.parametrize("director", DIRECTORS)
def test_the_configuration_with_the_password_is_for_root_alone(
    whole: SaltCluster, director: str
) -> None:
    command = ["stat", "-c", "%a %U %G", "/etc/keepalived/keepalived.conf"]
    assert whole.lab[director].run(command).stdout == "600 root root\n"
    found = (
        whole.lab[director]
        .run(
            [
                "find",
                "/etc/keepalived",
                "-name",
                "*.conf*",
                "-perm",
                "/077",
                "!",
                "-name",
                "*.sample",
            ]
        )
        .stdout
    )
    assert found == ""


# --------------------------------------------------------------------------------------------------
# Changes to a running cluster


class Edited:
    """A change to the pillar on the master for the time of a ``with`` block."""

    def __init__(self, cluster: SaltCluster, old: str, new: str) -> None:
        self._master = cluster.master
        self._old, self._new = old, new

    def __enter__(self) -> None:
        self._kept = self._master.read(PILLAR)
        assert self._old in self._kept
        self._master.write(PILLAR, self._kept.replace(self._old, self._new))

    def __exit__(self, *_: object) -> None:
        self._master.write(PILLAR, self._kept)


def test_a_changed_configuration_is_reloaded_and_nothing_restarts(
    whole: SaltCluster, client: Client
) -> None:
    process = keepalived_process(whole, "lb1")
    with (
        client.keep_asking(VIP, sources=CLIENTS, per_second=20) as asking,
        Edited(whole, "priority: 150", "priority: 140"),
    ):
        changed = Highstate.run(whole, "lb1")
        assert changed.changing() == {"lb1": ["lvs-director-pillar", "lvs-keepalived-config"]}
        until(
            lambda: "priority 140" in running_configuration(whole, "lb1"), "the reload", seconds=20
        )
    assert keepalived_process(whole, "lb1") == process
    assert holder(whole) == ["lb1"]
    assert asking.replies.errors == []
    Highstate.run(whole, "lb1")


def running_configuration(cluster: SaltCluster, name: str) -> str:
    return cluster.lab[name].read("/etc/keepalived/keepalived.conf")


def test_a_weight_in_the_pillar_becomes_a_weight_in_the_kernel(whole: SaltCluster) -> None:
    with Edited(whole, "rs2: {weight: 50}", "rs2: {weight: 10}"):
        announced = Highstate.run(whole, "lb*", test=True)
        changing = ["lvs-director-pillar", "lvs-ipvs-at-boot", "lvs-ipvs-table"]
        assert announced.changing() == {"lb1": changing, "lb2": changing}
        done = Highstate.run(whole, "lb*")
        for name in DIRECTORS:
            assert done.of(name, "lvs-ipvs-table")["changes"] == {
                "tcp 10.10.10.10:80 -> 10.10.10.42:80": {
                    "old": {"weight": 50},
                    "new": {"weight": 10},
                }
            }
            assert "10.10.10.42:80 -g -w 10" in whole.lab[name].run(["ipvsadm", "-Sn"]).stdout
    Highstate.run(whole, "lb*")
    assert whole.lab["lb1"].run(["ipvsadm", "-Sn"]).stdout == SEED_TABLE


def test_a_wrong_pillar_changes_nothing_anywhere(whole: SaltCluster) -> None:
    with Edited(whole, "port: 80", "port: 70000"):
        done = Highstate.run(whole)
        assert done.changing() == {name: [] for name in MINIONS}
        for name in MINIONS:
            (state,) = done.states(name).values()
            assert (state["result"], state["comment"]) == (
                False,
                "lvs:virtual_servers:web:port is 70000; it should be a whole number from 1 to "
                "65535",
            )
        judged = whole.salt_run("lvs.validate", "lb1")
        assert judged["lb1"]["valid"] is False
    assert whole.lab["lb1"].run(["ipvsadm", "-Sn"]).stdout == SEED_TABLE


def test_a_table_that_another_hand_spoilt_is_put_right(whole: SaltCluster) -> None:
    lb1 = whole.lab["lb1"]
    lb1.run(["ipvsadm", "-C"], check=True)
    lb1.run(["ipvsadm", "-A", "-t", "10.10.10.10:443", "-s", "rr"], check=True)
    Highstate.run(whole, "lb1")
    # What the pillar does not name is left alone, unless it says "purge: True".
    assert lb1.run(["ipvsadm", "-Sn"]).stdout == SEED_TABLE + "-A -t 10.10.10.10:443 -s rr\n"
    with Edited(whole, "  name: prod\n", "  name: prod\n  purge: True\n"):
        Highstate.run(whole, "lb1")
    assert lb1.run(["ipvsadm", "-Sn"]).stdout == SEED_TABLE


# --------------------------------------------------------------------------------------------------
# Failures


def test_when_the_masters_power_fails_the_backup_serves_on_until_it_is_back_with_its_table(
    whole: SaltCluster, client: Client
) -> None:
    lb1 = whole.lab["lb1"]
    with client.keep_asking(VIP, sources=CLIENTS, per_second=20) as asking:
        lb1.power_cut()
        until(lambda: holder(whole) == ["lb2"], "lb2 to take the VIP", seconds=30)
        assert client.get(VIP, sources=CLIENTS, requests=32).errors == []
    # Three advertisements of 3 s are missed, and a skew that goes with the priority (RFC 3768).
    assert asking.replies.longest_gap() < 15
    with client.keep_asking(VIP, sources=CLIENTS, per_second=20) as asking:
        lb1.boot()
        # Nobody applies anything meanwhile.
        assert lb1.run(["ipvsadm", "-Sn"]).stdout == SEED_TABLE
        until(lambda: holder(whole) == ["lb1"], "lb1 to take the VIP back", seconds=40)
        assert client.get(VIP, sources=CLIENTS, requests=32).errors == []
    assert asking.replies.longest_gap() < 3
    whole.wait()
    assert Highstate.run(whole, "lb1").changing() == {"lb1": []}


def vips(host: Host) -> str:
    return host.run(["ip", "-brief", "address", "show", "dev", "dummy0"]).stdout


def holds_vip(host: Host) -> bool:
    return f"{VIP}/32" in vips(host)


def test_a_lost_vip_is_put_back_by_the_machine_itself_even_without_a_master(
    whole: SaltCluster, client: Client
) -> None:
    rs1 = whole.lab["rs1"]
    whole.close()
    whole.master.run(["service", "salt-master", "stop"], check=True)
    with rs1.capture() as packets:
        for harm in (["link", "delete", "dummy0"], ["address", "flush", "dev", "dummy0"]):
            rs1.run(["ip", *harm], check=True)
            until(lambda: holds_vip(rs1), "rs1 to put its VIP back", seconds=5, pause=0.01)
        assert client.get(VIP, sources=CLIENTS, requests=64).errors == []
    assert [p for p in packets if p.outgoing and p.kind == "arp" and p.source == VIP] == []
    whole.master.run(["service", "salt-master", "start"], check=True)
    whole.wait()
    assert Highstate.run(whole, "rs1").changing() == {"rs1": []}


SECOND_VIP = (
    "virtual_ipaddress: [10.10.10.10]\n",
    "virtual_ipaddress: [10.10.10.10, 10.10.10.20]\n",
)
SECOND_SERVER = (
    "  virtual_servers:\n",
    "  virtual_servers:\n    second: {address: 10.10.10.20, port: 80, real_servers: [rs1]}\n",
)


def test_a_vip_that_the_pillar_takes_away_stays_away(whole: SaltCluster) -> None:
    rs1 = whole.lab["rs1"]
    with Edited(whole, *SECOND_VIP), Edited(whole, *SECOND_SERVER):
        assert Highstate.run(whole, "rs1").failed() == {}
        assert "10.10.10.20/32" in vips(rs1)
    assert Highstate.run(whole, "rs1").failed() == {}
    # The directors may learn it later than the real server: it stays a while.
    assert "10.10.10.20/32" in vips(rs1)
    until(lambda: "10.10.10.20/32" not in vips(rs1), "rs1 to let go of it", seconds=50)
    assert Highstate.run(whole, "rs1").changing() == {"rs1": []}
    assert "10.10.10.20/32" not in vips(rs1)


def test_a_disabled_real_server_gives_its_vip_up_when_nobody_uses_it(
    whole: SaltCluster, client: Client
) -> None:
    rs2 = whole.lab["rs2"]
    disabled = ("rs2: {address: 10.10.10.42}", "rs2: {address: 10.10.10.42, enabled: False}")
    with client.keep_asking(VIP, sources=CLIENTS, per_second=20) as asking:
        with Edited(whole, *disabled):
            # The real server first: the directors go on sending clients to it for a while.
            assert Highstate.run(whole, "rs2").failed() == {}
            assert holds_vip(rs2)
            assert Highstate.run(whole, "lb*").failed() == {}
            until(lambda: not holds_vip(rs2), "rs2 to let go of its VIP", seconds=90)
            assert rs2.exists("/etc/systemd/network/05-saltext-lvs-vip-dummy0.netdev") is False
            assert Highstate.run(whole, "rs2").changing() == {"rs2": []}
        assert Highstate.run(whole, "rs2").failed() == {}
        assert holds_vip(rs2)
        assert Highstate.run(whole, "lb*").failed() == {}
    assert asking.replies.errors == []
    assert client.get(VIP, sources=CLIENTS, requests=64).errors == []


def test_a_rebooted_real_server_comes_back_quiet(whole: SaltCluster, client: Client) -> None:
    rs2 = whole.lab["rs2"]
    rs2.power_cut()
    rs2.boot()
    # Kept by /etc/sysctl.d: right before anything could give the machine a VIP.
    assert rs2.read("/proc/sys/net/ipv4/conf/all/arp_ignore") == "1\n"
    whole.wait()
    with rs2.capture() as packets:
        assert Highstate.run(whole, "rs2").failed() == {}
        assert client.get(VIP, sources=CLIENTS, requests=64).errors == []
    assert [p for p in packets if p.outgoing and p.kind == "arp" and p.source == VIP] == []


# --------------------------------------------------------------------------------------------------
# Other roles


def test_the_masters_part_is_written_by_its_own_sls(whole: SaltCluster) -> None:
    def apply() -> dict[str, Any]:
        command = ["salt-call", "--local", "--out=json", "--file-root=/srv/salt", "--id=master"]
        done = whole.master.run([*command, "state.apply", "lvs.master"], timeout=180)
        return dict(json.loads(done.stdout)["local"])

    (once,) = apply().values()
    assert (once["result"], bool(once["changes"])) == (True, True)
    (again,) = apply().values()
    assert (again["result"], again["changes"]) == (True, {})
    shipped = whole.master.read("/srv/salt/lvs/files/master.conf")
    assert whole.master.read("/etc/salt/master.d/saltext-lvs.conf") == shipped


def test_a_vip_whose_loss_is_left_to_the_master_comes_back_by_its_reactor(
    whole: SaltCluster,
) -> None:
    rs1 = whole.lab["rs1"]
    whole.close()
    whole.master.run(["service", "salt-master", "restart"], check=True)
    whole.wait()
    with Edited(whole, "  virtual_servers:\n", "  reaction: reactor\n  virtual_servers:\n"):
        whole.salt("rs1", "saltutil.refresh_pillar", "wait=True")
        # The watcher learns it with the next tick.
        time.sleep(3)
        rs1.run(["ip", "link", "delete", "dummy0"], check=True)
        time.sleep(0.2)
        assert not holds_vip(rs1)
        until(lambda: holds_vip(rs1), "the reactor to put dummy0 back", seconds=60)
    whole.salt("rs1", "saltutil.refresh_pillar", "wait=True")


def test_a_virtualization_host_gets_the_guides_settings(whole: SaltCluster) -> None:
    host = whole.master
    host.write(
        "/etc/salt-kvm1/minion",
        "id: kvm1\nfile_client: local\ncachedir: /var/cache/salt/kvm1\nenable_fqdns_grains: False\n"
        + host.read("/etc/salt/master").partition("file_roots:")[1]
        + host.read("/etc/salt/master").partition("file_roots:")[2],
    )
    for name in ("virbr0", "eth1"):
        host.run(["ip", "link", "add", name, "type", "bridge"], check=True)

    def call(*arguments: str) -> dict[str, Any]:
        command = ["salt-call", "--local", "--config-dir=/etc/salt-kvm1", "--out=json"]
        done = host.run([*command, *arguments], timeout=180)
        answer = json.loads(done.stdout)["local"]
        assert isinstance(answer, dict), answer
        return answer

    def apply() -> dict[str, Any]:
        return call("state.apply", "lvs.hypervisor")

    # A highstate does this by itself; an SLS that is applied by its name does not.
    call("saltutil.sync_all")

    assert {state["result"] for state in apply().values()} == {True}
    settings = "/proc/sys/net/ipv4"
    assert host.read(f"{settings}/conf/virbr0/arp_ignore") == "1\n"
    assert host.read(f"{settings}/conf/all/arp_announce") == "2\n"
    assert host.read(f"{settings}/ip_forward") == "1\n"
    assert [state["changes"] for state in apply().values()] == [{}] * 10
