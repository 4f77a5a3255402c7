"""The lab's promise: hosts are whole machines, each by itself, with power to lose."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator

import pytest

from tests.lab import Lab, LabError, mail, until
from tests.lab.client import Client
from tests.lab.host import Host

ADDRESSES = {"lb1": ["10.10.10.11/24"], "rs1": ["10.10.10.41/24", "10.10.10.43/24"]}
IPVS_TABLE = "-A -t 10.10.10.10:80 -s wlc\n"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(ADDRESSES) as lab:
        yield lab


@pytest.fixture
def lb1(lab: Lab) -> Host:
    return lab["lb1"]


@pytest.fixture
def rs1(lab: Lab) -> Host:
    return lab["rs1"]


def said(host: Host, command: str) -> str:
    return host.run(["sh", "-c", command], check=True).stdout


def test_a_host_has_its_own_name_processes_and_addresses(lb1: Host, rs1: Host) -> None:
    assert [said(host, "hostname") for host in (lb1, rs1)] == ["lb1\n", "rs1\n"]
    assert said(lb1, "ps -o comm= -p 1") == "sh\n"
    addresses = "ip -brief -4 address show dev eth0 | tr -s ' ' | cut -d ' ' -f 3-"
    assert said(lb1, addresses) == "10.10.10.11/24 \n"
    assert said(rs1, addresses) == "10.10.10.41/24 10.10.10.43/24 \n"


def test_hosts_know_each_other_by_name(lb1: Host) -> None:
    assert said(lb1, "getent hosts rs1").split() == ["10.10.10.41", "rs1"]


def test_what_a_host_writes_is_its_own(lab: Lab, lb1: Host, rs1: Host) -> None:
    lb1.write("/etc/own", "of lb1", mode=0o600)
    assert lb1.read("/etc/own") == "of lb1"
    assert said(lb1, "stat -c %a /etc/own") == "600\n"
    assert not rs1.exists("/etc/own")


def test_the_settings_of_this_machine_do_not_reach_a_host(lb1: Host) -> None:
    assert not lb1.exists("/etc/salt")
    assert not lb1.exists("/usr/sbin/policy-rc.d")
    assert lb1.read("/etc/resolv.conf") == ""
    assert "PIP_" not in said(lb1, "env")


def test_a_director_installs_its_packages_without_a_network(lb1: Host) -> None:
    assert lb1.run(["which", "keepalived", "ipvsadm"]).stdout == ""
    said(lb1, "apt-get update && apt-get install -y keepalived ipvsadm")
    assert said(lb1, "which keepalived ipvsadm") == "/usr/sbin/keepalived\n/usr/sbin/ipvsadm\n"
    assert lb1.exists("/etc/rc2.d/S01keepalived")


def test_a_failing_command_says_where_and_why(lb1: Host) -> None:
    with pytest.raises(LabError, match=r"^lb1: sh -c echo no; exit 3 ended with 3:\nno$"):
        lb1.run(["sh", "-c", "echo no; exit 3"], check=True)


def test_a_client_asks_at_a_steady_rate_however_many_replies_there_are(lab: Lab) -> None:
    # Nobody listens there, so every request is answered at once: "refused".
    with Client(lab["lb1"]).keep_asking("10.10.10.41", 81, per_second=150) as asking:
        time.sleep(5)
    begun = [reply.began for reply in asking.replies.all]
    # Far more than the 480 that a pipe holds, and none waited for another.
    assert len(begun) > 600
    assert max(later - earlier for earlier, later in itertools.pairwise(begun)) < 1


def test_the_ipvs_table_of_one_host_is_not_in_another(lb1: Host, rs1: Host) -> None:
    said(lb1, "modprobe ip_vs")
    said(lb1, "ipvsadm -A -t 10.10.10.10:80 -s wlc")
    assert said(lb1, "ipvsadm -Sn") == IPVS_TABLE
    assert "10.10.10.10" not in said(rs1, "cat /proc/net/ip_vs").lower()
    assert "0A0A0A0A:0050" not in said(rs1, "cat /proc/net/ip_vs")
    assert "0A0A0A0A:0050" in said(lb1, "cat /proc/net/ip_vs")


def test_a_power_cut_keeps_the_disk_and_loses_what_the_kernel_held(lb1: Host) -> None:
    said(lb1, "ip link add dummy0 type dummy; ipvsadm -C; ipvsadm -A -t 10.10.10.10:80 -s wlc")
    said(lb1, "sysctl -qw net.ipv4.conf.all.arp_ignore=1; sleep 1000 >/dev/null 2>&1 & echo")
    lb1.write("/root/kept", "on disk")
    lb1.write("/run/lost", "in memory")
    lb1.power_cut()
    with pytest.raises(LabError, match="^lb1 is switched off$"):
        lb1.run(["true"])
    lb1.boot()
    assert lb1.read("/root/kept") == "on disk"
    assert not lb1.exists("/run/lost")
    assert lb1.run(["ip", "link", "show", "dummy0"]).returncode == 1
    assert said(lb1, "ipvsadm -Sn") == ""
    assert said(lb1, "sysctl -n net.ipv4.conf.all.arp_ignore") == "0\n"
    assert said(lb1, "pgrep -c sleep") == "1\n"  # the first process's own


def test_a_boot_applies_what_is_on_disk(lb1: Host) -> None:
    lb1.write("/etc/sysctl.d/90-own.conf", "net.ipv4.conf.all.arp_announce = 2\n")
    lb1.write("/etc/keepalived/keepalived.conf", "global_defs {\n router_id LVS\n}\n")
    lb1.reboot()
    assert said(lb1, "sysctl -n net.ipv4.conf.all.arp_announce") == "2\n"
    until(lambda: lb1.exists("/run/keepalived.pid"), "keepalived to start")
    lb1.write("/etc/keepalived/keepalived.conf", "")


def test_orphans_are_reaped(lb1: Host) -> None:
    said(lb1, "(sleep 0.1 &) ; true")
    until(lambda: "Z" not in said(lb1, "ps -eo stat="), "no zombies", seconds=5)


def test_a_pulled_cable_is_a_lost_carrier(lab: Lab, rs1: Host) -> None:
    carrier = "cat /sys/class/net/eth0/carrier"
    assert said(rs1, carrier) == "1\n"
    lab["rs1"].link_down()
    assert said(rs1, carrier) == "0\n"
    lab["rs1"].link_up()
    until(lambda: said(rs1, carrier) == "1\n", "the carrier to come back")


def test_a_capture_sees_who_asks_and_who_answers(lb1: Host, rs1: Host) -> None:
    said(lb1, "ip neigh flush dev eth0")
    with rs1.capture() as packets:
        lb1.run(["bash", "-c", "echo >/dev/tcp/10.10.10.41/9"])
    seen = [
        (packet.kind, packet.operation, packet.source, packet.destination, packet.outgoing)
        for packet in packets
        if packet.kind == "arp"
        and {packet.source, packet.destination} == {lb1.address, rs1.address}
    ]
    assert seen[:2] == [
        ("arp", "request", "10.10.10.11", "10.10.10.41", False),
        ("arp", "reply", "10.10.10.41", "10.10.10.11", True),
    ]
    tcp = [(p.source, p.destination_port) for p in packets if p.protocol == "tcp"]
    assert ("10.10.10.11", 9) in tcp


def test_sys_is_read_only_and_modules_are_there(lb1: Host) -> None:
    assert said(lb1, "findmnt -no OPTIONS /sys").startswith("ro,")
    assert said(lb1, "test -d /lib/modules/$(uname -r) && echo yes") == "yes\n"


SEND = """\
import smtplib, sys
with smtplib.SMTP("lb1") as server:
    server.sendmail("lvs@rs1", ["noc@example.com"], "Subject: %s\\r\\n\\r\\nbody" % sys.argv[1])
"""


def test_the_mail_server_keeps_what_it_takes_over_a_reboot(lab: Lab, lb1: Host, rs1: Host) -> None:
    def send(subject: str) -> None:
        until(lambda: lb1.run(["bash", "-c", "echo >/dev/tcp/lb1/25"]).returncode == 0, "SMTP")
        rs1.run([sys.executable, "-c", SEND, subject], check=True)

    assert mail.taken(lb1) == []
    mail.serve(lb1)
    send("first")
    lab["lb1"].reboot()
    send("second")
    taken = [
        (told["X-Envelope-From"], told["X-Envelope-To"], told["Subject"], told.get_payload())
        for told in mail.taken(lb1)
    ]
    assert taken == [
        ("lvs@rs1", "noc@example.com", "first", "body\n"),
        ("lvs@rs1", "noc@example.com", "second", "body\n"),
    ]
