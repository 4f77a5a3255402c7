"""ipvsadm's notation: read as ipvsadm reads it, and written as ipvsadm writes it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from saltext.lvs import ipvsadm
from saltext.lvs.errors import InvalidConfig
from saltext.lvs.model import (
    Forward,
    RealServer,
    TunnelChecksum,
    TunnelType,
    VirtualServer,
    VirtualServerKey,
)
from saltext.lvs.table import Table

from tests.unit.tables import key, real_server, tables, virtual_server

WEB = "tcp 10.10.10.10:80"
WEB6 = "tcp [fd00::10]:80"
ADD_WEB = "-A -t 10.10.10.10:80 -s wlc"
RS1 = real_server("10.10.10.41:80")
MARK = VirtualServerKey(None, None, 0, 7, 4)
MARK6 = VirtualServerKey(None, None, 0, 7, 6)


def port_of(name: str, protocol: str) -> int:
    """The services of a machine that knows few."""
    ports = {("http", "tcp"): 80, ("domain", "udp"): 53, ("cisco-ipsla", "sctp"): 1167}
    if (name, protocol) not in ports:
        raise OSError("service/proto not found")
    return ports[name, protocol]


def tunnel(kind: TunnelType, port: int, checksum: TunnelChecksum) -> RealServer:
    through = real_server("10.10.10.41:80", 1, Forward.TUNNEL)
    return replace(through, tunnel_type=kind, tunnel_port=port, tunnel_checksum=checksum)


# --------------------------------------------------------------------------------------------------
# Read

VIRTUAL_SERVERS = {
    "all that may be left out is ipvsadm's default": (
        "-A -t 10.10.10.10:80",
        virtual_server(WEB),
    ),
    "udp, one packet at a time": (
        "-A -u 10.10.10.10:53 -s rr -o",
        virtual_server("udp 10.10.10.10:53", scheduler="rr", one_packet=True),
    ),
    "sctp": (
        "-A --sctp-service 10.10.10.10:9 -s wrr",
        virtual_server("sctp 10.10.10.10:9", scheduler="wrr"),
    ),
    "IPv6": ("-A -t [fd00::10]:80", virtual_server(WEB6)),
    "IPv6, persistent by network": (
        "-A -t [fd00::10]:80 -p 300 -M 64",
        virtual_server(WEB6, persistence=300, netmask=64),
    ),
    "IPv4, persistent by network": (
        "-A -t 10.10.10.10:80 -p 5 -M 255.255.240.0",
        virtual_server(WEB, persistence=5, netmask=20),
    ),
    "a netmask before there is persistence": (
        "-A -t 10.10.10.10:80 -M 255.255.255.0",
        virtual_server(WEB, netmask=24),
    ),
    "persistence of no stated length is six minutes": (
        "-A -t 10.10.10.10:80 -p",
        virtual_server(WEB, persistence=360),
    ),
    "persistence of no stated length before another option": (
        "-A -t 10.10.10.10:80 -p -s rr",
        virtual_server(WEB, persistence=360, scheduler="rr"),
    ),
    "persistence for all ports": (
        "-A -t 10.10.10.10 -p 60",
        virtual_server("tcp 10.10.10.10:0", persistence=60),
    ),
    "persistence for all ports of an IPv6 address": (
        "-A -t fd00::10 -p 60",
        virtual_server("tcp [fd00::10]:0", persistence=60),
    ),
    "a persistence engine": (
        "-A -u 10.10.10.10:5060 -p 60 --pe sip",
        virtual_server("udp 10.10.10.10:5060", persistence=60, persistence_engine="sip"),
    ),
    "a scheduler's own switches": (
        "-A -t 10.10.10.10:80 -s sh -b sh-fallback,sh-port",
        virtual_server(WEB, scheduler="sh", scheduler_flags=24),
    ),
    "switches by number": (
        "-A -t 10.10.10.10:80 -s rr -b flag-1,flag-3",
        virtual_server(WEB, scheduler="rr", scheduler_flags=40),
    ),
    "a switch before the scheduler that has it": (
        "-A -b mh-port -t 10.10.10.10:80 -s mh",
        virtual_server(WEB, scheduler="mh", scheduler_flags=16),
    ),
    "a port by its name": ("-A -t 10.10.10.10:http", virtual_server(WEB)),
    "a port by its name for that protocol": (
        "-A -u 10.10.10.10:domain",
        virtual_server("udp 10.10.10.10:53"),
    ),
    "a port by its name for sctp": (
        "-A --sctp-service 10.10.10.10:cisco-ipsla",
        virtual_server("sctp 10.10.10.10:1167"),
    ),
    "a firewall mark": ("-A -f 7 -s sh", VirtualServer(MARK, "sh")),
    "a firewall mark for IPv6": (
        "-A -f 7 -6 -p 60 -M 64",
        VirtualServer(MARK6, persistence=60, netmask=64),
    ),
    "a firewall mark for one packet at a time": (
        "-A -f 7 -o",
        VirtualServer(MARK, one_packet=True),
    ),
    "the highest firewall mark": (
        "-A -f 4294967295",
        VirtualServer(replace(MARK, fwmark=2**32 - 1)),
    ),
    "the highest firewall mark as ipvsadm prints it": (
        "-A -f -1 -s wlc",
        VirtualServer(replace(MARK, fwmark=2**32 - 1)),
    ),
    "the longest persistence": (
        "-A -t 10.10.10.10:80 -p 2678400",
        virtual_server(WEB, persistence=2678400),
    ),
    "a line that begins as on a command line": (
        "ipvsadm -A -t 10.10.10.10:80 -s rr",
        virtual_server(WEB, scheduler="rr"),
    ),
    "long options": (
        "--add-service --tcp-service 10.10.10.10:80 --scheduler=sh --persistent=30"
        " --netmask 255.255.255.0 --sched-flags sh-port",
        virtual_server(WEB, scheduler="sh", persistence=30, netmask=24, scheduler_flags=16),
    ),
    "short options run together": (
        "-At 10.10.10.10:80 -srr -p5",
        virtual_server(WEB, scheduler="rr", persistence=5),
    ),
    "short options with an equals sign": (
        "-A -t=10.10.10.10:80 -s=rr",
        virtual_server(WEB, scheduler="rr"),
    ),
    "white space of any kind": (
        "\t-A   -t 10.10.10.10:80\t-s rr \r",
        virtual_server(WEB, scheduler="rr"),
    ),
}


@pytest.mark.parametrize(("line", "server"), VIRTUAL_SERVERS.values(), ids=VIRTUAL_SERVERS.keys())
def test_a_line_about_a_virtual_server_is_read(line: str, server: VirtualServer) -> None:
    whole = 128 if server.key.family == 6 else 32
    if server.netmask == 32:
        server = replace(server, netmask=whole)
    assert ipvsadm.read(line, port_of) == (server,)


REAL_SERVERS = {
    "all that may be left out is ipvsadm's default": ("-r 10.10.10.41", RS1),
    "direct routing keeps the port": ("-r 10.10.10.41:8080 -g", RS1),
    "a tunnel keeps the port": (
        "-r 10.10.10.41:8080 -i",
        real_server("10.10.10.41:80", 1, Forward.TUNNEL),
    ),
    "masquerading may change the port": (
        "-r 10.10.10.41:8080 -m -w 3",
        real_server("10.10.10.41:8080", 3, Forward.MASQ),
    ),
    "masquerading need not change the port": (
        "-r 10.10.10.41 -m",
        real_server("10.10.10.41:80", 1, Forward.MASQ),
    ),
    "drained": ("-r 10.10.10.41:80 -g -w 0", real_server("10.10.10.41:80", 0)),
    "as heavy as can be": (
        "-r 10.10.10.41:80 -w 2147483647",
        real_server("10.10.10.41:80", 2147483647),
    ),
    "with thresholds": (
        "-r 10.10.10.41:80 -x 100 -y 90",
        replace(RS1, upper_threshold=100, lower_threshold=90),
    ),
    "in a GUE tunnel": (
        "-r 10.10.10.41:80 -i --tun-type gue --tun-port 6080",
        tunnel(TunnelType.GUE, 6080, TunnelChecksum.NONE),
    ),
    "in a GUE tunnel with remote checksums": (
        "-r 10.10.10.41:80 -i -w 1 --tun-type gue --tun-port 6080 --tun-remcsum",
        tunnel(TunnelType.GUE, 6080, TunnelChecksum.REMOTE),
    ),
    "in a GRE tunnel with checksums": (
        "-r 10.10.10.41:80 -i --tun-type gre --tun-csum",
        tunnel(TunnelType.GRE, 0, TunnelChecksum.FULL),
    ),
    "in a GRE tunnel without": (
        "-r 10.10.10.41:80 -i --tun-type gre --tun-nocsum",
        tunnel(TunnelType.GRE, 0, TunnelChecksum.NONE),
    ),
    "of the other address family, in a tunnel": (
        "-r [fd00::41]:80 -i",
        real_server("[fd00::41]:80", 1, Forward.TUNNEL),
    ),
    "long options": (
        "--real-server=10.10.10.41:8080 --masquerading --weight 9 --u-threshold 8 --l-threshold=7",
        replace(
            real_server("10.10.10.41:8080", 9, Forward.MASQ), upper_threshold=8, lower_threshold=7
        ),
    ),
}


@pytest.mark.parametrize(("options", "server"), REAL_SERVERS.values(), ids=REAL_SERVERS.keys())
def test_a_line_about_a_real_server_is_read(options: str, server: RealServer) -> None:
    text = f"{ADD_WEB}\n-a -t 10.10.10.10:80 {options}\n"
    assert ipvsadm.read(text, port_of) == (virtual_server(WEB, server),)


def test_the_real_servers_of_a_firewall_mark_keep_the_port_they_are_given() -> None:
    text = "-A -f 7\n-a -f 7 -r 10.10.10.41\n-a -f 7 -r 10.10.10.42:http\n"
    servers = (real_server("10.10.10.41:0"), real_server("10.10.10.42:80"))
    assert ipvsadm.read(text, port_of) == (VirtualServer(MARK, real_servers=servers),)


def test_a_text_of_many_lines_is_read_in_order_with_comments_and_empty_lines() -> None:
    text = """\
# Written by hand,
#and not by ipvsadm

ipvsadm -A -t 10.10.10.10:80 -s wlc
-a -t 10.10.10.10:80 -r 10.10.10.42 -w 2
  # by its weight
-A -t [fd00::10]:80
-a -t 10.10.10.10:80 -r 10.10.10.41 -w 1
-a -t [fd00::10]:80 -r [fd00::41]:80"""
    assert ipvsadm.read(text) == (
        virtual_server(WEB, RS1, real_server("10.10.10.42:80", 2)),
        virtual_server(WEB6, real_server("[fd00::41]:80")),
    )


def test_a_later_line_edits_an_earlier_one_and_resets_what_it_does_not_name() -> None:
    text = f"""\
{ADD_WEB} -p 5
-a -t 10.10.10.10:80 -r 10.10.10.41:8080 -m -w 5 -x 10
-e -t 10.10.10.10:80 -r 10.10.10.41:8080 -m -y 0
-E -t 10.10.10.10:80 -s rr
"""
    masqueraded = real_server("10.10.10.41:8080", 1, Forward.MASQ)
    assert ipvsadm.read(text) == (virtual_server(WEB, masqueraded, scheduler="rr"),)


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n"], ids=["empty", "lines", "a comment"])
def test_a_text_of_nothing_is_an_empty_table(text: str) -> None:
    assert ipvsadm.read(text) == ()


ENDPOINT = "ADDRESS:PORT such as 10.10.10.10:80 or [fd00::10]:80, without names of hosts"
WRONG = {
    "another command": ("-C", "one without -C: only lines of -A, -E, -a and -e describe a table"),
    "a setting of the kernel": (
        "--set 10 10 10",
        "one without --set: only lines of -A, -E, -a and -e describe a table",
    ),
    "no command": ("-t 10.10.10.10:80 -A", "one that begins with -A, -E, -a or -e"),
    "two commands": (
        "-A -t 10.10.10.10:80 -E",
        "one without -E after -A: one command is enough",
    ),
    "no virtual server": ("-A -s rr", "one with -t, -u, --sctp-service or -f"),
    "two virtual servers": (
        "-A -t 10.10.10.10:80 -u 10.10.10.10:80",
        "one without -u after -t: one service is enough",
    ),
    "a word too many": (
        "-A -t 10.10.10.10:80 rr",
        "one without 'rr', which belongs to no option",
    ),
    "an option without its value": ("-A -t 10.10.10.10:80 -s", "one whose -s has a value"),
    "an option with a value that it has not": (
        "-A -t 10.10.10.10:80 --ops=1",
        "one whose -o has no value",
    ),
    "the name of a host": (
        "-A -t www.example.com:80",
        f"one whose -t is {ENDPOINT}, not 'www.example.com:80'",
    ),
    "the name of a service that nobody knows": (
        "-A -t 10.10.10.10:domain",
        "one whose -t is ADDRESS:PORT with a port from 0 to 65535, or the name of a service that "
        "this machine knows for tcp, not '10.10.10.10:domain'",
    ),
    "a port too high": (
        "-A -t 10.10.10.10:65536",
        "one whose -t is ADDRESS:PORT with a port from 0 to 65535, or the name of a service that "
        "this machine knows for tcp, not '10.10.10.10:65536'",
    ),
    "an address that ipvsadm reads as octal": (
        "-A -t 010.10.10.10:80",
        f"one whose -t is {ENDPOINT}, not '010.10.10.10:80'",
    ),
    "an IPv4 address in brackets, whose port ipvsadm loses": (
        "-A -t [10.10.10.10]:80",
        f"one whose -t is {ENDPOINT}, not '[10.10.10.10]:80'",
    ),
    "an address of one interface": (
        "-A -t [fe80::1%eth0]:80",
        f"one whose -t is {ENDPOINT}, not '[fe80::1%eth0]:80'",
    ),
    "all ports without persistence": (
        "-A -t 10.10.10.10",
        "one with a port, or with -p: only persistence may be for all ports",
    ),
    "no firewall mark": (
        "-A -f 0",
        "one whose -f is a firewall mark from 1 to 4294967295, not '0'",
    ),
    "a firewall mark too high": (
        "-A -f 4294967296",
        "one whose -f is a firewall mark from 1 to 4294967295, not '4294967296'",
    ),
    "IPv6 for what has an address": (
        "-A -t 10.10.10.10:80 -6",
        "one without -6, which is for firewall marks",
    ),
    "a scheduler that is no name": (
        "-A -t 10.10.10.12:80 -s wlc;reboot",
        "one whose -s is a name of at most 15 small letters, digits, _ and -, not 'wlc;reboot'",
    ),
    "no persistence": (
        "-A -t 10.10.10.12:80 -p 0",
        "one whose -p is a whole number from 1 to 2678400, not '0'",
    ),
    "an IPv4 netmask as a prefix, which ipvsadm takes for 0.0.0.24": (
        "-A -t 10.10.10.12:80 -p -M 24",
        "one whose -M is a mask such as 255.255.255.0, its ones before its noughts, not '24'",
    ),
    "an IPv4 netmask with a hole": (
        "-A -t 10.10.10.12:80 -p -M 255.0.255.0",
        "one whose -M is a mask such as 255.255.255.0, its ones before its noughts, not "
        "'255.0.255.0'",
    ),
    "an IPv6 netmask too long": (
        "-A -t [fd00::10]:80 -p -M 129",
        "one whose -M is a whole number from 1 to 128, not '129'",
    ),
    "another scheduler's switch": (
        "-A -t 10.10.10.12:80 -s rr -b sh-port",
        "one whose -b is made of flag-1, flag-2, flag-3 (for -s rr), not 'sh-port'",
    ),
    "one packet at a time for tcp": (
        "-A -t 10.10.10.12:80 -o",
        "one without -o, which is for udp and firewall marks",
    ),
    "a weight of a virtual server": (
        "-A -t 10.10.10.10:80 -w 5",
        "one without -w, which -A has not",
    ),
    "a scheduler of a real server": (
        "-a -t 10.10.10.10:80 -r 10.10.10.41 -s rr",
        "one without -s, which -a has not",
    ),
    "a virtual server that is not there": (
        "-a -t 10.10.10.10:443 -r 10.10.10.41",
        "behind a line that adds tcp 10.10.10.10:443 with -A",
    ),
    "a virtual server that is there": (
        ADD_WEB,
        f"one for another virtual server: there is {WEB} already",
    ),
    "no real server": ("-a -t 10.10.10.10:80", "one with -r"),
    "a real server that is there": (
        "-a -t 10.10.10.10:80 -r 10.10.10.40:81",
        f"one for another real server: {WEB} has it already",
    ),
    "a real server that is not there": (
        "-e -t 10.10.10.10:80 -r 10.10.10.41",
        f"one for another real server: {WEB} has none such before this line",
    ),
    "the name of a real server": (
        "-a -t 10.10.10.10:80 -r rs1:80",
        f"one whose -r is {ENDPOINT}, not 'rs1:80'",
    ),
    "a real server of the other address family": (
        "-a -t 10.10.10.10:80 -r [fd00::41]:80",
        "one with -i, or with an IPv4 address behind -r",
    ),
    "two ways of forwarding": (
        "-a -t 10.10.10.10:80 -r 10.10.10.41 -g -m",
        "one without -m after -g: one forward is enough",
    ),
    "a weight below nothing": (
        "-a -t 10.10.10.10:80 -r 10.10.10.41 -w -1",
        "one whose -w is a whole number from 0 to 2147483647, not '-1'",
    ),
    "a weight too high": (
        "-a -t 10.10.10.10:80 -r 10.10.10.41 -w 2147483648",
        "one whose -w is a whole number from 0 to 2147483647, not '2147483648'",
    ),
    "a lower threshold above the upper one": (
        "-a -t 10.10.10.10:80 -r 10.10.10.41 -x 5 -y 6",
        "one whose -y is a whole number from 0 to 5, not '6'",
    ),
    "a kind of tunnel without a tunnel": (
        "-a -t 10.10.10.10:80 -r 10.10.10.41 -g --tun-type gre",
        "one with -i, or without --tun-type",
    ),
    "a kind of tunnel that nobody knows": (
        "-a -t 10.10.10.10:80 -r 10.10.10.41 -i --tun-type sit",
        "one whose --tun-type is one of ipip, gue, gre, not 'sit'",
    ),
    "a GUE tunnel without its port": (
        "-a -t 10.10.10.10:80 -r 10.10.10.41 -i --tun-type gue",
        "one with --tun-port, as its tunnel is of type gue",
    ),
    "a port of a GRE tunnel": (
        "-a -t 10.10.10.10:80 -r 10.10.10.41 -i --tun-type gre --tun-port 6080",
        "one without --tun-port, as its tunnel is of type gre",
    ),
    "a tunnel port too high": (
        "-a -t 10.10.10.10:80 -r 10.10.10.41 -i --tun-type gue --tun-port 65536",
        "one whose --tun-port is a whole number from 1 to 65535, not '65536'",
    ),
    "checksums of an IPIP tunnel": (
        "-a -t 10.10.10.10:80 -r 10.10.10.41 -i --tun-nocsum",
        "one without --tun-nocsum, as its tunnel is of type ipip",
    ),
    "remote checksums of a GRE tunnel": (
        "-a -t 10.10.10.10:80 -r 10.10.10.41 -i --tun-type gre --tun-remcsum",
        "one without --tun-remcsum, as its tunnel is of type gre",
    ),
}


@pytest.mark.parametrize(("line", "expected"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_line_is_named_with_its_number_and_what_would_be_right(
    line: str, expected: str
) -> None:
    text = f"{ADD_WEB}\n-a -t 10.10.10.10:80 -r 10.10.10.40\n\n {line}\n"
    with pytest.raises(InvalidConfig) as caught:
        ipvsadm.read(text, port_of)
    assert str(caught.value) == f"line 4 is {line!r}; it should be {expected}"


def test_all_wrong_lines_are_named_at_once_but_not_those_that_are_wrong_because_of_others() -> None:
    text = """\
-A -t web:80
-a -t web:80 -r 10.10.10.41
-A -t 10.10.10.10:80 -s wlc -q
-a -t 10.10.10.10:80 -r 10.10.10.41
"""
    with pytest.raises(InvalidConfig) as caught:
        ipvsadm.read(text)
    assert [problem.path for problem in caught.value.problems] == ["line 1", "line 2", "line 3"]


# --------------------------------------------------------------------------------------------------
# Write

WRITTEN = {
    "everything about a virtual server": (
        virtual_server(
            "udp 10.10.10.10:5060",
            scheduler="sh",
            persistence=60,
            netmask=24,
            one_packet=True,
            scheduler_flags=48,
            persistence_engine="sip",
        ),
        "-A -u 10.10.10.10:5060 -s sh -p 60 -M 255.255.255.0 --pe sip -o -b sh-port,flag-3\n",
    ),
    "everything about a real server": (
        virtual_server(
            WEB,
            replace(
                tunnel(TunnelType.GUE, 6080, TunnelChecksum.FULL),
                weight=0,
                upper_threshold=9,
                lower_threshold=8,
            ),
        ),
        f"{ADD_WEB}\n-a -t 10.10.10.10:80 -r 10.10.10.41:80 -i -w 0 -x 9 -y 8"
        " --tun-type gue --tun-port 6080 --tun-csum\n",
    ),
    "a real server that is this machine": (
        virtual_server(WEB, real_server("127.0.0.1:80", 1, Forward.LOCAL)),
        f"{ADD_WEB}\n-a -t 10.10.10.10:80 -r 127.0.0.1:80 -g -w 1\n",
    ),
    "a firewall mark for IPv6": (
        VirtualServer(MARK6, netmask=128, real_servers=(real_server("[fd00::41]:0"),)),
        "-A -f 7 -6 -s wlc\n-a -f 7 -6 -r [fd00::41]:0 -g -w 1\n",
    ),
}


@pytest.mark.parametrize(("server", "text"), WRITTEN.values(), ids=WRITTEN.keys())
def test_a_virtual_server_is_written_as_ipvsadm_does(server: VirtualServer, text: str) -> None:
    assert ipvsadm.write([server]) == text


def test_virtual_servers_are_written_in_ipvsadms_order() -> None:
    text = """\
-A -t 10.10.10.9:443 -s wlc
-A -t 10.10.10.10:80 -s wlc
-A -t 10.10.10.10:443 -s wlc
-A -u 10.10.10.9:53 -s wlc
-A --sctp-service 10.10.10.9:9 -s wlc
-A -t [fd00::10]:443 -s wlc
-A -f 3 -s wlc
-A -f 7 -s wlc
-A -f 7 -6 -s wlc
"""
    assert ipvsadm.write(reversed(ipvsadm.read(text))) == text


@given(tables)
def test_what_is_written_is_read_back(table: Table) -> None:
    assert Table.of(ipvsadm.read(ipvsadm.write(table.values()))) == table


WORDS = st.one_of(
    st.sampled_from(
        [f"--{name}" for name in ipvsadm._OPTIONS]
        + [f"-{letter}" for letter in "AEaetuf6sMpobrgimwxyCDdn"]
        + ["10.10.10.10:80", "[fd00::10]:80", "fd00::10", "7", "-1", "wlc", "sh-port", "gue", "64"]
        + ["=", "-", "--", "[", "[]:", ":", "::", "a:b:c", "255.255.0.0", "\x00", "\u0665"]
    ),
    st.text(max_size=5),
)
LINES = st.lists(st.lists(WORDS, max_size=9).map(" ".join), max_size=4).map("\n".join)


@given(LINES)
def test_any_text_is_a_table_or_a_list_of_wrong_lines(text: str) -> None:
    servers, problems = attempted(text)
    assert all(problem.path.startswith("line ") for problem in problems)
    assert set(ipvsadm.read(ipvsadm.write(servers))) == set(servers)


def attempted(text: str) -> tuple[tuple[VirtualServer, ...], tuple[InvalidConfig, ...]]:
    try:
        return ipvsadm.read(text, port_of), ()
    except InvalidConfig as error:
        return (), error.problems


# --------------------------------------------------------------------------------------------------
# Single addresses

KEYS: dict[str, tuple[object, object, VirtualServerKey]] = {
    "tcp": ("tcp", "10.10.10.10:80", key(WEB)),
    "sctp": ("sctp", "[fd00::10]:9", key("sctp [fd00::10]:9")),
    "a port by its name": ("udp", "10.10.10.10:domain", key("udp 10.10.10.10:53")),
    "all ports": ("tcp", "10.10.10.10", key("tcp 10.10.10.10:0")),
    "a firewall mark as a number": ("fwmark", 7, MARK),
    "a firewall mark as text": ("fwmark", "7", MARK),
    "a firewall mark for IPv6": ("fwmark", "7 -6", MARK6),
}


@pytest.mark.parametrize(("protocol", "address", "expected"), KEYS.values(), ids=KEYS.keys())
def test_a_protocol_and_an_address_are_a_virtual_server(
    protocol: object, address: object, expected: VirtualServerKey
) -> None:
    assert ipvsadm.virtual_server_key(protocol, address, port_of) == expected


WRONG_KEYS: dict[str, tuple[object, object, str]] = {
    "no protocol": (
        None,
        "10.10.10.10:80",
        "protocol is missing; it should be tcp, udp, sctp or fwmark",
    ),
    "a protocol that IPVS has not": (
        "icmp",
        "10.10.10.10:80",
        "protocol is 'icmp'; it should be tcp, udp, sctp or fwmark",
    ),
    "no address": ("tcp", None, f"service_address is missing; it should be {ENDPOINT}"),
    "options of ipvsadm behind an address": (
        "tcp",
        "10.10.10.10:80 -s rr",
        f"service_address is '10.10.10.10:80 -s rr'; it should be {ENDPOINT}",
    ),
    "options of ipvsadm behind a mark": (
        "fwmark",
        "7 -s rr",
        "service_address is '7 -s rr'; it should be a firewall mark from 1 to 4294967295",
    ),
    "a truth for a mark": (
        "fwmark",
        True,
        "service_address is True; it should be a firewall mark from 1 to 4294967295",
    ),
    "a list": (
        "tcp",
        ["10.10.10.10:80"],
        f"service_address is ['10.10.10.10:80']; it should be {ENDPOINT}",
    ),
}


@pytest.mark.parametrize(
    ("protocol", "address", "said"), WRONG_KEYS.values(), ids=WRONG_KEYS.keys()
)
def test_what_names_no_virtual_server_is_refused(
    protocol: object, address: object, said: str
) -> None:
    with pytest.raises(InvalidConfig) as caught:
        ipvsadm.virtual_server_key(protocol, address, port_of)
    assert str(caught.value) == said


def test_a_real_server_without_a_port_has_that_of_its_virtual_server() -> None:
    assert ipvsadm.real_server_key("10.10.10.41", key(WEB)) == RS1.key


def test_what_names_no_real_server_is_refused() -> None:
    with pytest.raises(InvalidConfig) as caught:
        ipvsadm.real_server_key("10.10.10.41:80 -w 9", key(WEB), port_of)
    assert str(caught.value).startswith("server_address is '10.10.10.41:80 -w 9'; it should be ")


# --------------------------------------------------------------------------------------------------
# Listed


def test_a_listing_is_what_ipvsadm_shows() -> None:
    servers = ipvsadm.read("""\
-A -u 10.10.10.10:5060 -s sh -p 60 -M 255.255.255.0 --pe sip -o -b sh-port
-A -t 10.10.10.10:443 -s wrr
-a -t 10.10.10.10:443 -r 10.10.10.41:8443 -m -w 0
-a -t 10.10.10.10:443 -r [fd00::42]:443 -i
-A --sctp-service 10.10.10.10:9
-A -t [fd00::10]:443 -p 360 -M 64
-a -t [fd00::10]:443 -r [fd00:1111:2222:3333:4444:5555:6666:7777]:443 -g
-A -f 7
-A -f 7 -6
""")
    carried = {(key("tcp 10.10.10.10:443"), real_server("10.10.10.41:8443").key): (12, 34567)}
    shown = ipvsadm.listing(servers, carried)
    assert [line.rstrip() for line in shown.splitlines()] == [
        "Prot LocalAddress:Port Scheduler Flags",
        "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn",
        "TCP  10.10.10.10:443 wrr",
        "  -> 10.10.10.41:8443             Masq    0      12         34567",
        "  -> [fd00::42]:443               Tunnel  1      0          0",
        "UDP  10.10.10.10:5060 sh (sh-port) persistent 60 mask 255.255.255.0 pe sip ops",
        "SCTP 10.10.10.10:9 wlc",
        "TCP  [fd00::10]:443 wlc persistent 360 mask 64",
        "  -> [fd00:1111:2222:3333:4444:5555:6666:7777]:443 Route   1      0          0",
        "FWM  7 wlc",
        "FWM  7 IPv6 wlc",
    ]
