"""ipvsadm's notation against ipvsadm itself: one text, one table, one listing."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from saltext.lvs import ipvs, ipvsadm
from saltext.lvs.errors import InvalidConfig
from saltext.lvs.model import VirtualServer
from saltext.lvs.table import Table

from tests.kernel import commands
from tests.unit.tables import tables

pytestmark = pytest.mark.usefixtures("netns")


def read(text: str) -> Table:
    return Table.of(ipvsadm.read(text))


WEB = "-A -t 10.10.10.10:80 -s wlc"
TEXTS = {
    "defaults": "-A -t 10.10.10.10:80\n-a -t 10.10.10.10:80 -r 10.10.10.41",
    "direct routing to a port that it cannot have": f"{WEB}\n"
    "-a -t 10.10.10.10:80 -r 10.10.10.41:8080 -g",
    "a tunnel to a port that it cannot have": f"{WEB}\n-a -t 10.10.10.10:80 -r 10.10.10.41:81 -i",
    "masquerading with and without a port": f"{WEB}\n"
    "-a -t 10.10.10.10:80 -r 10.10.10.41:8080 -m -w 3\n-a -t 10.10.10.10:80 -r 10.10.10.42 -m",
    "persistence of no stated length": "-A -t 10.10.10.10:80 -p",
    "persistence by network": "-A -t 10.10.10.10:80 -s lc -p 300 -M 255.255.240.0",
    "persistence of all clients": "-A -t 10.10.10.10:80 -p 300 -M 0.0.0.0",
    "persistence for all ports": "-A -t 10.10.10.10 -p 20",
    "IPv6": "-A -t [fd00::10]:80 -p 20 -M 64\n"
    "-a -t [fd00::10]:80 -r [fd00::41]:80\n-a -t [fd00::10]:80 -r fd00::42 -w 0",
    "IPv6 for all ports": "-A -t fd00::10 -p 20",
    "udp, sctp and firewall marks": "-A -u 10.10.10.10:53 -s rr -o\n"
    "-A --sctp-service 10.10.10.10:9 -s wrr\n-A -f 3 -s sh -p 60\n-A -f 7 -s rr\n"
    "-A -f 7 -6 -s rr\n-a -f 7 -r 10.10.10.41\n-a -f 7 -6 -r [fd00::41]:8080",
    "the highest firewall mark": "-A -f 4294967295",
    "a port by its name": "-A -t 10.10.10.10:http\n-a -t 10.10.10.10:80 -r 10.10.10.41:http -m",
    "a scheduler's own switches": "-A -t 10.10.10.10:80 -s sh -b sh-port,sh-fallback\n"
    "-A -t 10.10.10.10:81 -s mh -b mh-port\n-A -t 10.10.10.10:82 -s rr -b flag-1,flag-3",
    "a persistence engine": "-A -u 10.10.10.10:5060 -s rr -p 60 --pe sip -o",
    "tunnels of all kinds": f"{WEB}\n"
    "-a -t 10.10.10.10:80 -r 10.10.10.41 -i\n"
    "-a -t 10.10.10.10:80 -r 10.10.10.42 -i --tun-type gue --tun-port 6080\n"
    "-a -t 10.10.10.10:80 -r 10.10.10.43 -i --tun-type gue --tun-port 6080 --tun-csum\n"
    "-a -t 10.10.10.10:80 -r 10.10.10.44 -i --tun-type gue --tun-port 6080 --tun-remcsum\n"
    "-a -t 10.10.10.10:80 -r 10.10.10.45 -i --tun-type gre\n"
    "-a -t 10.10.10.10:80 -r 10.10.10.46 -i --tun-type gre --tun-csum\n"
    "-a -t 10.10.10.10:80 -r [fd00::41]:80 -i",
    "the heaviest real server": f"{WEB}\n-a -t 10.10.10.10:80 -r 10.10.10.41 -w 2147483647",
    "a real server that is this machine": f"{WEB}\n-a -t 10.10.10.10:80 -r 127.0.0.1",
    "all spellings of options": "--add-service --tcp-service=10.10.10.10:80 --scheduler rr -p20\n"
    "-at 10.10.10.10:80 --real-server 10.10.10.41:8080 -mw4\nipvsadm -A -t=10.10.10.10:81",
    "edits": f"{WEB} -p 5\n-a -t 10.10.10.10:80 -r 10.10.10.41:8080 -m -w 5\n"
    "-e -t 10.10.10.10:80 -r 10.10.10.41:8080 -m\n-E -t 10.10.10.10:80 -s rr",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_a_text_means_to_us_what_it_means_to_ipvsadm(text: str) -> None:
    commands.ipvsadm("-R", text=text + "\n")
    held = as_asked_for(ipvs.read().table)
    assert read(text) == held
    saved = commands.ipvsadm("-Sn")
    assert read(saved) == held
    assert sorted(ipvsadm.write(held.values()).splitlines()) == sorted(
        saved.replace("-f -1 ", "-f 4294967295 ").splitlines()
    )


def as_asked_for(table: Table) -> Table:
    """A table without what the kernel decides by itself: which addresses are its own."""
    return read(ipvsadm.write(table.values()))


# Without thresholds: ipvsadm takes them, but saves none.
THRESHOLDS = f"{WEB}\n-a -t 10.10.10.10:80 -r 10.10.10.41:80 -g -w 1 -x 100 -y 90\n"


def test_thresholds_that_ipvsadm_takes_but_does_not_save_are_read_and_written() -> None:
    commands.ipvsadm("-R", text=THRESHOLDS)
    held = ipvs.read().table
    assert read(THRESHOLDS) == held
    assert ipvsadm.write(held.values()) == THRESHOLDS


REFUSED_BY_BOTH = {
    "a persistence of nothing": "-A -t 10.10.10.10:80 -p 0",
    "a persistence beyond 31 days": "-A -t 10.10.10.10:80 -p 2678401",
    "all ports without persistence": "-A -t 10.10.10.10",
    "a scheduler's name that is too long": "-A -t 10.10.10.10:80 -s thisnameistoolongforit",
    "another scheduler's switch": "-A -t 10.10.10.10:80 -s rr -b sh-port",
    "one packet at a time for tcp": "-A -t 10.10.10.10:80 -o",
    "no firewall mark": "-A -f 0",
    "a port too high": "-A -t 10.10.10.10:65536",
    "two weights": f"{WEB}\n-a -t 10.10.10.10:80 -r 10.10.10.41 -w 1 -w 2",
    "a weight too high": f"{WEB}\n-a -t 10.10.10.10:80 -r 10.10.10.41 -w 2147483648",
    "a lower threshold above the upper one": f"{WEB}\n"
    "-a -t 10.10.10.10:80 -r 10.10.10.41 -x 5 -y 6",
    "a lower threshold alone": f"{WEB}\n-a -t 10.10.10.10:80 -r 10.10.10.41 -y 6",
    "a GUE tunnel without its port": f"{WEB}\n"
    "-a -t 10.10.10.10:80 -r 10.10.10.41 -i --tun-type gue",
    "a GRE tunnel with a port": f"{WEB}\n"
    "-a -t 10.10.10.10:80 -r 10.10.10.41 -i --tun-type gre --tun-port 6080",
    "an IPIP tunnel with checksums": f"{WEB}\n-a -t 10.10.10.10:80 -r 10.10.10.41 -i --tun-csum",
    "a tunnel without a tunnel": f"{WEB}\n-a -t 10.10.10.10:80 -r 10.10.10.41 --tun-type ipip",
    "a real server of the other family": f"{WEB}\n-a -t 10.10.10.10:80 -r [fd00::41]:80",
    "a real server twice": f"{WEB}\n" + 2 * "-a -t 10.10.10.10:80 -r 10.10.10.41\n",
    "a virtual server twice": f"{WEB}\n{WEB}",
}


@pytest.mark.parametrize("text", REFUSED_BY_BOTH.values(), ids=REFUSED_BY_BOTH.keys())
def test_what_ipvsadm_refuses_is_refused(text: str) -> None:
    with pytest.raises(InvalidConfig):
        ipvsadm.read(text)
    with pytest.raises(subprocess.CalledProcessError):
        commands.ipvsadm("-R", text=text + "\n")


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(tables)
def test_ipvsadm_makes_any_table_of_what_we_write(
    table: Table,
) -> None:
    commands.ipvsadm("-C")
    commands.ipvsadm("-R", text=ipvsadm.write(table.values()))
    assert ipvs.read().table == table


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(tables)
def test_any_table_is_listed_as_ipvsadm_lists_it(
    table: Table,
) -> None:
    commands.ipvsadm("-C")
    ipvs.apply(Table.of(telling(server) for server in table.values()))
    held = ipvs.read().table.values()
    head, _, listed = commands.ipvsadm("-L", "-n").partition("\n")
    assert head.startswith("IP Virtual Server version 1.2.1 (size=")
    assert by_virtual_server(ipvsadm.listing(held, {})) == by_virtual_server(
        listed.replace("FWM  -1 ", "FWM  4294967295 ")
    )


def telling(server: VirtualServer) -> VirtualServer:
    """The same, without the switch of sh and mh that ipvsadm cannot name."""
    flags = server.scheduler_flags & ~(32 if server.scheduler in ("sh", "mh") else 0)
    return replace(server, scheduler_flags=flags)


def by_virtual_server(listed: str) -> dict[str, list[str]]:
    """Real servers by virtual server, in no order: ipvsadm's own is wrong for some addresses."""
    found: dict[str, list[str]] = {}
    virtual_server = ""
    for line in listed.splitlines():
        if line.startswith("  "):
            found[virtual_server] = sorted([*found[virtual_server], line])
        else:
            virtual_server = line
            found[virtual_server] = []
    return found
