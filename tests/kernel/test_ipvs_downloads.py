"""Who is being served stays served: a download through a director goes on, byte for byte, through
every change that does not take its real server away.

Three networks: client, director (the test's own) and real server, each with a cable to the others.

    client 10.1.0.2 ---- 10.1.0.1 director 10.2.0.1 ---- 10.2.0.2 real server
           10.3.0.1 ------------------------------------ 10.3.0.2 (answers of direct routing)
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from saltext.lvs import ipvs
from saltext.lvs.model import Forward, RealServer, VirtualServer
from saltext.lvs.namespaces import within
from saltext.lvs.table import Table

from tests.kernel.commands import ip, run
from tests.lab.namespaces import named_network
from tests.unit.tables import SCHEDULERS, real_server, table, virtual_server

VIP = "10.10.10.10"
WEB = f"tcp {VIP}:80"
BLOCK_BYTES = 4096
# Between blocks, so that the download lasts as long as the test.
PAUSE_SECONDS = 0.002
# Little on the way, so that it takes no time until what comes was sent after a change.
BUFFER_BYTES = 8192
SECONDS = 20
REAL_SERVER = "10.2.0.2:80"
CABLES = (
    "link add client0 type veth peer name eth0 netns client",
    "link add server0 type veth peer name eth0 netns server",
    "-n client link add eth1 type veth peer name eth1 netns server",
    f"address add {VIP}/32 dev lo",
    "address add 10.1.0.1/24 dev client0",
    "address add 10.2.0.1/24 dev server0",
    "link set client0 up",
    "link set server0 up",
    "-n client address add 10.1.0.2/24 dev eth0",
    "-n client address add 10.3.0.1/24 dev eth1",
    "-n client link set eth0 up",
    "-n client link set eth1 up",
    f"-n client route add {VIP} via 10.1.0.1",
    "-n server address add 10.2.0.2/24 dev eth0",
    "-n server address add 10.3.0.2/24 dev eth1",
    "-n server link set eth0 up",
    "-n server link set eth1 up",
)
# How answers go back: masqueraded ones through the director, others not.
WAYS_BACK = {
    Forward.MASQ: ("-n server route add 10.1.0.0/24 via 10.2.0.1",),
    Forward.DIRECT: (
        f"-n server address add {VIP}/32 dev lo",
        "-n server route add 10.1.0.0/24 via 10.3.0.1",
    ),
    Forward.TUNNEL: (
        f"-n server address add {VIP}/32 dev lo",
        "-n server route add 10.1.0.0/24 via 10.3.0.1",
        "-n server link set tunl0 up",
    ),
}


FORWARDS = {
    "masqueraded": Forward.MASQ,
    "direct": Forward.DIRECT,
    "through a tunnel": Forward.TUNNEL,
}


def block(number: int) -> bytes:
    """A part of what is downloaded; no two are alike."""
    return hashlib.shake_128(str(number).encode()).digest(BLOCK_BYTES)


class Server:
    """The real server's program: sends block after block to whoever connects."""

    def __init__(self) -> None:
        self.sending = 0
        self._listener = within("server", lambda: socket.create_server(("0.0.0.0", 80)))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        self._connection: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            self._connection = self._listener.accept()[0]
            for self.sending in itertools.count():
                self._connection.sendall(block(self.sending))
                time.sleep(PAUSE_SECONDS)

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for end in (self._listener, self._connection):
            if end is not None:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()
        self._thread.join()


class Download:
    """A client that takes block after block, and looks at every byte."""

    def __init__(self) -> None:
        self._connection = within("client", socket.socket)
        self._connection.settimeout(SECONDS)
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        self._connection.connect((VIP, 80))
        self._taken = 0

    def goes_on(self, server: Server) -> None:
        """Take what was begun to be sent from now on; fails for a byte that is wrong, or if none
        comes for a while.
        """
        end = (server.sending + 3) * BLOCK_BYTES
        while self._taken < end:
            number, offset = divmod(self._taken, BLOCK_BYTES)
            data = self._connection.recv(BLOCK_BYTES - offset)
            assert data == block(number)[offset : offset + len(data)] != b""
            self._taken += len(data)

    def stands_still(self) -> bool:
        """Whether nothing comes any more, once what is on the way has come."""
        self._connection.settimeout(2)
        with contextlib.suppress(TimeoutError):
            for _ in range(1000):
                if not self._connection.recv(BLOCK_BYTES):
                    break
            else:
                return False
        return True

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def networks(netns: None) -> Iterator[None]:
    """The director's network, with cables to a client's and a real server's."""
    with named_network("client"), named_network("server"):
        for command in CABLES:
            ip(command)
        run("sysctl -qw net.ipv4.ip_forward=1")
        yield


def web(*servers: RealServer, **settings: object) -> Table:
    return table(virtual_server(WEB, *servers, **settings))


def changes(own: RealServer) -> Iterator[tuple[str, Table]]:
    """Tables that follow each other, each with the real server that serves the download."""
    others = [real_server(f"10.2.0.{number}:80", number, own.forward) for number in range(11, 31)]
    yield "its weight grows", web(replace(own, weight=100))
    yield "its weight shrinks", web(replace(own, weight=1))
    for scheduler in SCHEDULERS:
        yield f"the scheduler {scheduler}", web(own, scheduler=scheduler)
    yield "a scheduler's switches", web(own, scheduler="sh", scheduler_flags=0x18)
    yield "persistence comes", web(own, persistence=300)
    yield "persistence by network", web(own, persistence=5, netmask=24)
    yield "persistence goes", web(own)
    yield "a threshold that it is above", web(replace(own, upper_threshold=1, lower_threshold=0))
    yield "thresholds go", web(own)
    yield "others come", web(own, *others)
    yield "others are drained", web(own, *(replace(other, weight=0) for other in others))
    yield "others go and it is drained", web(replace(own, weight=0), *others[:3])
    yield "it is drained and alone", web(replace(own, weight=0))
    yield "drained, with another scheduler", web(replace(own, weight=0), scheduler="mh")
    yield "it is back", web(own)
    for forward in FORWARDS.values():
        yield f"new ones are {forward.value}", web(replace(own, forward=forward))
        yield f"no longer {forward.value}", web(replace(own, weight=7))


def neighbours(number: int) -> list[VirtualServer]:
    """Other virtual servers, which come and go with each apply."""
    return [
        virtual_server(f"tcp {VIP}:{8000 + (number + more) % 50}", real_server("10.2.0.2:80", 1))
        for more in range(10)
    ]


@pytest.mark.usefixtures("networks")
@pytest.mark.parametrize("forward", FORWARDS.values(), ids=FORWARDS.keys())
def test_a_download_goes_on_through_every_change_but_the_loss_of_its_real_server(
    forward: Forward,
) -> None:
    if forward is Forward.TUNNEL:
        run("modprobe ipip")
    for command in WAYS_BACK[forward]:
        ip(command)
    own = real_server(REAL_SERVER, 1, forward)
    ipvs.apply(web(own))
    with Server() as server, contextlib.closing(Download()) as download:
        download.goes_on(server)
        for number, (change, desired) in enumerate(changes(own)):
            wanted = {**desired, **table(*neighbours(number))}
            outcome = ipvs.apply(wanted, purge=True)
            assert outcome.ops
            assert (outcome.table, outcome.left) == (wanted, ()), change
            download.goes_on(server)
        ipvs.apply(web(real_server("10.2.0.3:80", 1, forward)), purge=True)
        assert download.stands_still()
