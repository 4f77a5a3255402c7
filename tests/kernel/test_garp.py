"""What a neighbour takes from gratuitous ARP and neighbour advertisements, and from nothing else.

A director and a neighbour on one cable, which has once heard a real server answer for the VIPs.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from saltext.lvs import garp, model
from saltext.lvs.errors import KernelError

from tests.lab import namespaces
from tests.lab.capture import Capture, Packet
from tests.lab.waiting import until

pytestmark = pytest.mark.usefixtures("netns", "cable")

VIP = ipaddress.ip_address("10.10.10.10")
VIP6 = ipaddress.ip_address("fd00::10")
BOTH: tuple[model.Address, ...] = (VIP, VIP6)
LB1 = "02:00:0a:0a:0a:0b"
RS1 = "02:00:0a:0a:0a:29"
FAR = "far"
# From the RFCs, written down by hand; see tests/unit/test_garp.py.
REQUEST = bytes.fromhex(
    "ffffffffffff 02000a0a0a0b 0806 0001 0800 06 04 0001 "
    "02000a0a0a0b 0a0a0a0a 000000000000 0a0a0a0a"
)
REPLY = bytes.fromhex(
    "ffffffffffff 02000a0a0a0b 0806 0001 0800 06 04 0002 "
    "02000a0a0a0b 0a0a0a0a 02000a0a0a0b 0a0a0a0a"
)
ADVERTISEMENT = bytes.fromhex(
    "333300000001 02000a0a0a0b 86dd 60000000 0020 3a ff "
    "fd000000000000000000000000000010 ff020000000000000000000000000001 "
    "88 00 4669 20000000 fd000000000000000000000000000010 02 01 02000a0a0a0b"
)


def ip(*commands: str) -> None:
    """Commands of ip(8), all in one call."""
    text = "\n".join(commands)
    subprocess.run(["ip", "-batch", "-"], input=text, text=True, check=True, capture_output=True)


def far(command: str) -> str:
    """A command at the neighbour's; what it said."""
    words = ["ip", "netns", "exec", FAR, *command.split()]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def cable(netns: None) -> Iterator[None]:
    """The director's card with its VIPs, and the neighbour at the other end."""
    with namespaces.named_network(FAR):
        ip(
            f"link add eth0 address {LB1} type veth peer name eth0 netns {FAR}",
            "link set eth0 up",
            "address add 10.10.10.11/24 dev eth0",
            "address add 10.10.10.10/32 dev eth0",
            "address add fd00::11/64 dev eth0 nodad",
            "address add fd00::10/128 dev eth0 nodad",
        )
        for command in (
            "link set eth0 up",
            "address add 10.10.10.100/24 dev eth0",
            "address add fd00::100/64 dev eth0 nodad",
        ):
            far(f"ip {command}")
        yield


@pytest.fixture
def wrong(cable: None) -> None:
    """What the neighbour believes since it has heard a real server."""
    believe(RS1)


def believe(mac: str, state: str = "stale", interface: str = "eth0") -> None:
    for vip in BOTH:
        far(f"ip neighbour replace {vip} lladdr {mac} dev {interface} nud {state}")


def believed(interface: str = "eth0") -> list[str]:
    """The MAC addresses that the neighbour has for the VIPs."""
    found = []
    for vip in BOTH:
        words = far(f"ip neighbour show {vip} dev {interface}").split()
        found.append(words[words.index("lladdr") + 1])
    return found


@pytest.fixture
def wire() -> Iterator[list[Packet]]:
    """What comes in at the neighbour's."""
    with heard("eth0") as packets:
        yield packets


@contextmanager
def heard(interface: str) -> Iterator[list[Packet]]:
    """What comes in at an interface of the neighbour's."""
    stays = subprocess.Popen(["ip", "netns", "exec", FAR, "sleep", "300"])
    try:
        here = Path("/proc/self/ns/net").readlink()
        until(lambda: Path(f"/proc/{stays.pid}/ns/net").readlink() != here, "the neighbour")
        with Capture(stays.pid, interface) as packets:
            yield packets
    finally:
        stays.kill()
        stays.wait()


def told(packets: Sequence[Packet]) -> list[bytes]:
    """The frames that tell of a VIP."""
    named = {str(vip) for vip in BOTH}
    return [p.frame for p in packets if not p.outgoing and p.source in named]


# -------------------------------------------------------------------------------------------------
# What a neighbour takes


@pytest.mark.usefixtures("wrong")
def test_a_neighbour_that_has_a_real_servers_address_gets_the_directors() -> None:
    assert believed() == [RS1, RS1]
    announced = garp.announce(BOTH, rounds=1)
    assert announced == garp.Announced({VIP: {"eth0": 2}, VIP6: {"eth0": 1}}, {})
    until(lambda: believed() == [LB1, LB1], "the neighbour to take it")


@pytest.mark.parametrize("state", ["stale", "reachable", "delay", "probe"])
def test_it_does_so_whatever_it_thinks_of_what_it_has(state: str) -> None:
    believe(RS1, state)
    garp.announce(BOTH, rounds=1)
    until(lambda: believed() == [LB1, LB1], "the neighbour to take it")


@pytest.mark.usefixtures("wrong")
@pytest.mark.parametrize("frame", [REQUEST, REPLY], ids=["the request", "the reply"])
def test_each_form_is_enough_for_linux(frame: bytes) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
        sender.bind(("eth0", 0))
        sender.send(frame)
    until(lambda: believed() == [LB1, RS1], "the neighbour to take it")


@pytest.mark.usefixtures("wrong")
def test_what_is_fixed_by_hand_stays() -> None:
    believe(RS1, "permanent")
    garp.announce(BOTH, rounds=1)
    time.sleep(0.2)
    assert believed() == [RS1, RS1]


def test_what_was_not_in_a_cache_is_not_put_there() -> None:
    garp.announce(BOTH, rounds=1)
    time.sleep(0.2)
    assert far("ip neighbour show 10.10.10.10") + far("ip neighbour show fd00::10") == ""


# -------------------------------------------------------------------------------------------------
# What is on the wire


def test_the_frames_on_the_wire_are_the_standards_byte_by_byte(wire: list[Packet]) -> None:
    garp.announce(BOTH, rounds=2, pause=0.3)
    until(lambda: len(told(wire)) >= 6, "two rounds")
    assert told(wire) == [REQUEST, REPLY, ADVERTISEMENT] * 2
    packets = [p for p in wire if p.frame == REQUEST]
    assert 0.25 < packets[1].at - packets[0].at < 5


def test_by_itself_it_is_three_rounds_a_second_apart(wire: list[Packet]) -> None:
    pauses: list[float] = []
    garp.announce([VIP6], sleep=pauses.append)
    until(lambda: len(told(wire)) >= 3, "three rounds")
    assert (told(wire), pauses) == ([ADVERTISEMENT] * 3, [1.0, 1.0])


def test_they_are_what_the_kernel_itself_would_send(wire: list[Packet]) -> None:
    """It does so, where it is told to, when an interface gets another hardware address."""
    for path in ("ipv4/conf/eth0/arp_notify", "ipv6/conf/eth0/ndisc_notify"):
        Path(f"/proc/sys/net/{path}").write_text("1\n", encoding="ascii")
    ip("link set eth0 address 02:00:0a:0a:0a:0c", f"link set eth0 address {LB1}")
    until(lambda: {REQUEST, ADVERTISEMENT} <= set(told(wire)), "the kernel's own")


def test_a_router_says_that_it_is_one_as_the_kernel_does(wire: list[Packet]) -> None:
    for path in ("eth0/forwarding", "eth0/ndisc_notify"):
        Path(f"/proc/sys/net/ipv6/conf/{path}").write_text("1\n", encoding="ascii")
    garp.announce([VIP6], rounds=1)
    until(lambda: len(told(wire)) >= 1, "ours")
    (ours,) = told(wire)
    assert ours != ADVERTISEMENT
    ip("link set eth0 address 02:00:0a:0a:0a:0c", f"link set eth0 address {LB1}")
    until(lambda: told(wire).count(ours) == 2, "the kernel's own")


KEEPALIVED = """
global_defs { router_id LB1 vrrp_garp_master_repeat 1 vrrp_garp_master_delay 0 }
vrrp_instance four {
    interface eth0
    virtual_router_id 10
    priority 150
    advert_int 1
    virtual_ipaddress { 10.10.10.10/32 dev eth0 }
}
vrrp_instance six {
    interface eth0
    virtual_router_id 10
    priority 150
    advert_int 1
    virtual_ipaddress { fd00::10/128 dev eth0 }
}
"""
# Where keepalived 2.2 differs: the hardware address that an announcement's target has, of which RFC
# 5227 says that it is ignored and should be zero.
KEEPALIVEDS_TARGET = slice(32, 38)


def test_they_are_what_keepalived_sends_when_it_takes_a_vip(
    wire: list[Packet], tmp_path: Path
) -> None:
    ip("address delete 10.10.10.10/32 dev eth0", "address delete fd00::10/128 dev eth0")
    config = tmp_path / "keepalived.conf"
    config.write_text(KEEPALIVED, encoding="ascii")
    pids = [f"--{name}={tmp_path}/{name}" for name in ("pid", "vrrp_pid", "checkers_pid")]
    running = subprocess.Popen(["keepalived", "-n", "-P", "-f", str(config), *pids])
    try:
        until(lambda: len({len(frame) for frame in told(wire)}) == 2, "both", seconds=30)
    finally:
        running.terminate()
        running.wait(20)
    theirs = set(told(wire))
    (advertisement,) = (frame for frame in theirs if len(frame) > 60)
    (arp,) = theirs - {advertisement}
    assert advertisement == ADVERTISEMENT
    assert without(arp, KEEPALIVEDS_TARGET) == without(REQUEST, KEEPALIVEDS_TARGET)
    assert arp[KEEPALIVEDS_TARGET] == b"\xff" * 6


def without(frame: bytes, part: slice) -> bytes:
    return frame[: part.start] + frame[part.stop :]


# -------------------------------------------------------------------------------------------------
# Which interfaces


def test_a_vlan_announces_in_its_own_network() -> None:
    ip(
        "link add link eth0 name eth0.10 type vlan id 10",
        "link set eth0.10 up",
        "address delete 10.10.10.10/32 dev eth0",
        "address add 10.10.10.10/32 dev eth0.10",
    )
    for command in (
        "link add link eth0 name eth0.10 type vlan id 10",
        "link set eth0.10 up",
    ):
        far(f"ip {command}")
    with heard("eth0.10") as inside:
        assert garp.announce([VIP], rounds=1).frames == {VIP: {"eth0.10": 2}}
        until(lambda: len(told(inside)) == 2, "the frames in the VLAN")
    assert told(inside) == [REQUEST, REPLY]


@pytest.mark.parametrize("kind", ["bridge", "bond"])
@pytest.mark.usefixtures("wrong")
def test_a_bridge_and_a_bond_announce_with_their_own_address(wire: list[Packet], kind: str) -> None:
    made = subprocess.run(["ip", "link", "add", "up0", "type", kind], check=False)
    if made.returncode:
        pytest.skip(f"this kernel has no {kind}")
    ip(
        "address delete 10.10.10.10/32 dev eth0",
        "link set eth0 down",
        "link set eth0 master up0",
        f"link set up0 address {LB1} up",
        "link set eth0 up",
        "address add 10.10.10.10/32 dev up0",
    )

    def announced() -> bool:
        # A bridge's port begins to forward a moment after it is up.
        assert garp.announce([VIP], rounds=1).frames == {VIP: {"up0": 2}}
        return told(wire)[-2:] == [REQUEST, REPLY]

    until(announced, "the frames", seconds=40, pause=0.5)
    assert believed()[0] == LB1


def test_an_interface_of_a_virtual_routers_own_announces_that_ones_address(
    wire: list[Packet],
) -> None:
    """keepalived's use_vmac: the VIP moves with a hardware address of its own."""
    ip(
        "address delete fd00::10/128 dev eth0",
        "link add link eth0 name vrrp.10 address 00:00:5e:00:02:0a type macvlan mode private",
        "link set vrrp.10 up",
        "address add fd00::10/128 dev vrrp.10 nodad",
    )
    assert garp.announce([VIP6], rounds=1).frames == {VIP6: {"vrrp.10": 1}}
    until(lambda: told(wire), "the frame")
    (packet,) = (p for p in wire if p.source == str(VIP6) and p.payload[:1] == b"\x88")
    assert (packet.source_mac, packet.payload[-6:].hex(":")) == ("00:00:5e:00:02:0a",) * 2


DEAF: dict[str, tuple[Sequence[str], str]] = {
    "loopback": (
        ["address add 10.10.10.10/32 dev lo"],
        "lo holds it, which is a loopback interface: nobody is there to hear",
    ),
    "a dummy interface": (
        [
            "link add dummy0 type dummy",
            "link set dummy0 up arp on",
            "address add 10.10.10.10/32 dev dummy0",
        ],
        "dummy0 holds it, which is a dummy interface: nobody is there to hear",
    ),
    "a card without ARP": (
        ["address add 10.10.10.10/32 dev eth0", "link set eth0 arp off"],
        "eth0 holds it, which has ARP off (NOARP)",
    ),
    "a card that is down": (
        ["address add 10.10.10.10/32 dev eth0", "link set eth0 down"],
        "eth0 holds it, which is down",
    ),
    "what is no Ethernet": (
        [
            "link add tun0 type ipip local 10.10.10.11 remote 10.10.10.100",
            "link set tun0 up arp on",
            "address add 10.10.10.10/32 dev tun0",
        ],
        "tun0 holds it, which is no Ethernet",
    ),
    "none": ([], "no interface of this machine holds it"),
}


@pytest.mark.parametrize(("commands", "why"), DEAF.values(), ids=DEAF.keys())
def test_a_vip_that_nobody_would_hear_of_is_passed_over(
    wire: list[Packet], commands: Sequence[str], why: str
) -> None:
    ip("address delete 10.10.10.10/32 dev eth0", *commands)
    assert garp.announce([VIP]) == garp.Announced({}, {VIP: why})
    time.sleep(0.1)
    assert told(wire) == []


def test_an_interface_that_hears_is_enough(wire: list[Packet]) -> None:
    ip("address add 10.10.10.10/32 dev lo")
    assert garp.announce([VIP], rounds=1) == garp.Announced({VIP: {"eth0": 2}}, {})
    until(lambda: told(wire) == [REQUEST, REPLY], "the frames")


# -------------------------------------------------------------------------------------------------
# Meanwhile


def between(*commands: str) -> Callable[[float], None]:
    """What happens between two rounds."""

    def happens(_seconds: float) -> None:
        ip(*commands)

    return happens


def test_a_vip_that_moves_away_is_not_announced_any_more(wire: list[Packet]) -> None:
    gone = between("address delete 10.10.10.10/32 dev eth0")
    assert garp.announce(BOTH, rounds=2, sleep=gone) == garp.Announced(
        {VIP: {"eth0": 2}, VIP6: {"eth0": 2}}, {}
    )
    until(lambda: len(told(wire)) >= 4, "both rounds")
    assert told(wire) == [REQUEST, REPLY, ADVERTISEMENT, ADVERTISEMENT]


def test_a_director_that_has_nothing_left_to_announce_does_not_wait_on(wire: list[Packet]) -> None:
    pauses: list[float] = []

    def goes_down(seconds: float) -> None:
        pauses.append(seconds)
        ip("link set eth0 down")

    assert garp.announce(BOTH, sleep=goes_down).frames == {VIP: {"eth0": 2}, VIP6: {"eth0": 1}}
    assert pauses == [1.0]


def test_without_the_right_to_send_it_is_told_so() -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.setuid(65534)
        try:
            garp.announce(BOTH)
        except KernelError as error:
            os.write(writer, str(error).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with open(reader, encoding="utf-8") as said:
        assert said.read() == (
            "cannot announce VIPs on eth0: Operation not permitted (EPERM); this needs root "
            "(CAP_NET_RAW)"
        )


def test_a_thousand_vips_take_less_than_a_second(wire: list[Packet]) -> None:
    vips = [ipaddress.ip_address(f"10.20.{number >> 8}.{number & 255}") for number in range(1000)]
    ip(*(f"address add {vip}/32 dev eth0" for vip in vips))
    began = time.monotonic()
    announced = garp.announce(vips, rounds=1)
    took = time.monotonic() - began
    assert announced == garp.Announced({vip: {"eth0": 2} for vip in vips}, {})
    sources = {str(vip) for vip in vips}
    until(lambda: sum(p.source in sources for p in wire) == 2000, "all frames")
    assert took < 1.0


def test_nothing_is_left_behind() -> None:
    garp.announce(BOTH, rounds=1)
    before = descriptors()
    for _ in range(5):
        garp.announce(BOTH, rounds=1)
    assert descriptors() == before


def descriptors() -> list[Any]:
    return sorted(os.listdir("/proc/self/fd"))
