"""Connections and listeners of real sockets, from both of the kernel's sources."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator

import pytest
from saltext.lvs import sockets
from saltext.lvs.model import Address, Protocol
from saltext.lvs.sockets import Listening

pytestmark = pytest.mark.usefixtures("netns")

Open = Callable[[socket.socket], socket.socket]


def address(text: str) -> Address:
    return ipaddress.ip_address(text)


VIP, OTHER, CLIENT = address("10.10.10.10"), address("10.10.10.11"), address("10.10.10.100")
VIP6, CLIENT6 = address("fd00::10"), address("fd00::100")
ANYWHERE, ANYWHERE6 = address("0.0.0.0"), address("::")


@pytest.fixture(autouse=True)
def addresses(netns: object) -> None:
    for held in (VIP, OTHER, CLIENT, VIP6, CLIENT6):
        command = ["ip", "address", "add", str(held), "dev", "lo"]
        subprocess.run([*command, "nodad"] if held.version == 6 else command, check=True)


@pytest.fixture(params=["socket diagnosis", "the files of /proc", "every socket, unfiltered"])
def source(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where it is read from."""
    if request.param == "the files of /proc":

        def refused() -> socket.socket:
            raise OSError(errno.EPROTONOSUPPORT, "Protocol not supported")

        monkeypatch.setattr(sockets, "_connected", refused)
    if request.param == "every socket, unfiltered":
        monkeypatch.setattr(sockets, "FILTERED", 0)
    return str(request.param)


@pytest.fixture
def opened() -> Iterator[Open]:
    """Closes sockets at the end of a test."""
    with contextlib.ExitStack() as stack:
        yield lambda made: stack.enter_context(contextlib.closing(made))


def server(to: Address, port: int, v6only: bool = False) -> socket.socket:
    made = socket.socket(socket.AF_INET if to.version == 4 else socket.AF_INET6)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if to.version == 6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
    made.bind((str(to), port))
    made.listen()
    return made


def call(to: Address, port: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
    family, source = (socket.AF_INET, CLIENT) if to.version == 4 else (socket.AF_INET6, CLIENT6)
    made = socket.socket(family, kind)
    made.bind((str(source), 0))
    made.settimeout(5)
    made.connect((str(to), port))
    return made


def counts() -> dict[str, int]:
    return {str(of): count for of, count in sockets.connections([VIP, OTHER, VIP6]).items()}


NONE = {"10.10.10.10": 0, "10.10.10.11": 0, "fd00::10": 0}


def test_a_connection_counts_from_its_first_to_its_last_moment(source: str, opened: Open) -> None:
    listening = opened(server(VIP, 80))
    assert counts() == NONE
    client = opened(call(VIP, 80))
    waiting = counts()
    accepted = opened(listening.accept()[0])
    held = counts()
    client.shutdown(socket.SHUT_WR)
    half_closed = counts()
    # The one that closes first is in TIME_WAIT afterwards: that is the client.
    accepted.close()
    client.close()
    assert (waiting, held, half_closed) == ({**NONE, "10.10.10.10": 1},) * 3
    assert counts() == NONE


def test_a_server_that_closed_first_leaves_nothing_to_wait_for(source: str, opened: Open) -> None:
    listening = opened(server(VIP, 80))
    client = opened(call(VIP, 80))
    opened(listening.accept()[0]).close()
    assert counts() == {**NONE, "10.10.10.10": 1}
    client.close()
    assert "TIME-WAIT" in subprocess.run(["ss", "-tan"], capture_output=True, text=True).stdout
    assert counts() == NONE


def half_open(source: Address, to: Address, port: int) -> None:
    """Send the first packet of a handshake whose answer goes nowhere."""
    segment = struct.pack("!HHIIBBHHH", 40000, port, 1, 0, 5 << 4, 0x02, 1024, 0, 0)
    pseudo = source.packed + to.packed + struct.pack("!HH", socket.IPPROTO_TCP, len(segment))
    total = sum(struct.unpack(f"!{len(pseudo + segment) // 2}H", pseudo + segment))
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    segment = segment[:16] + struct.pack("!H", checksum) + segment[18:]
    head = struct.pack("!BBHHHBBH", 0x45, 0, 0, 0, 0, 64, socket.IPPROTO_TCP, 0)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as wire:
        wire.sendto(head + source.packed + to.packed + segment, (str(to), 0))


def test_a_connection_in_the_middle_of_its_handshake_counts(source: str, opened: Open) -> None:
    subprocess.run(["ip", "link", "add", "nowhere", "up", "type", "dummy"], check=True)
    subprocess.run(["ip", "route", "add", "10.98.0.0/24", "dev", "nowhere"], check=True)
    opened(server(VIP, 80))
    half_open(address("10.98.0.1"), VIP, 80)
    assert counts() == {**NONE, "10.10.10.10": 1}
    calling = opened(socket.socket())
    calling.bind((str(OTHER), 0))
    calling.setblocking(False)
    with pytest.raises(BlockingIOError):
        calling.connect(("10.98.0.1", 80))
    assert counts() == {**NONE, "10.10.10.10": 1, "10.10.10.11": 1}


def test_an_ipv4_client_of_an_ipv6_socket_counts_as_ipv4(source: str, opened: Open) -> None:
    opened(server(ANYWHERE6, 80))
    for to in (VIP, VIP, OTHER, VIP6):
        opened(call(to, 80))
    assert counts() == {"10.10.10.10": 2, "10.10.10.11": 1, "fd00::10": 1}


def test_a_udp_socket_counts_when_it_has_a_peer(source: str, opened: Open) -> None:
    for of, peer in ((VIP, CLIENT), (VIP6, CLIENT6)):
        family = socket.AF_INET if of.version == 4 else socket.AF_INET6
        for port in (53, 54):
            made = opened(socket.socket(family, socket.SOCK_DGRAM))
            made.bind((str(of), port))
        made.connect((str(peer), 9))
    assert counts() == {"10.10.10.10": 1, "10.10.10.11": 0, "fd00::10": 1}


@pytest.mark.parametrize("family", [4, 6])
def test_the_kernel_picks_one_address_of_many(opened: Open, family: int) -> None:
    opened(server(ANYWHERE6, 80))
    opened(server(VIP, 81))
    for to, port in ((VIP, 80), (VIP, 81), (OTHER, 80), (VIP6, 80)):
        opened(call(to, port))
    base = int(VIP if family == 4 else VIP6)
    for size in (1, 2, 3, sockets.FILTERED - 1, sockets.FILTERED, sockets.FILTERED + 1, 200):
        for first in (0, 1 - size):
            wanted = [ipaddress.ip_address(base + first + step) for step in range(size)]
            expected = dict.fromkeys(wanted, 0)
            known = {VIP: 2, OTHER: 1, CLIENT: 3, VIP6: 1, CLIENT6: 1}
            expected.update({of: count for of, count in known.items() if of in expected})
            assert sockets.connections(wanted) == expected


def test_listeners_are_what_was_opened(source: str, opened: Open) -> None:
    unknown = None if source == "the files of /proc" else False
    sure = None if source == "the files of /proc" else True
    opened(server(ANYWHERE, 80))
    opened(server(VIP, 443))
    opened(server(ANYWHERE6, 80, v6only=True))
    opened(server(ANYWHERE6, 81))
    opened(server(VIP6, 443))
    opened(server(address("::ffff:10.10.10.10"), 82))
    for port in (53, 54):
        made = opened(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        made.bind((str(VIP), port))
    made.connect((str(CLIENT), 9))
    bound = opened(server(OTHER, 90))
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo\0")
    device = "" if source == "the files of /proc" else "lo"
    opened(call(VIP, 80))
    assert sockets.listeners() == (
        Listening(Protocol.TCP, ANYWHERE, 80),
        Listening(Protocol.TCP, VIP, 82),
        Listening(Protocol.TCP, VIP, 443),
        Listening(Protocol.TCP, OTHER, 90, device=device),
        Listening(Protocol.TCP, ANYWHERE6, 80, v6only=sure),
        Listening(Protocol.TCP, ANYWHERE6, 81, v6only=unknown),
        Listening(Protocol.TCP, VIP6, 443, v6only=sure),
        Listening(Protocol.UDP, VIP, 53),
    )
