"""Connections that last, through a director: whether they live on, whatever is done to it.

``serve(host, ports)`` and ``Lasting(host, address, ports)`` are for benchmarks and tests. In a host
this file runs by itself, with the standard library alone: ``python lasting.py serve PORT ...``,
``python lasting.py hold ADDRESS NUMBER PORT ...``.
"""

from __future__ import annotations

import json
import select
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.lab.host import Host

READY = "ready"
# How often something is sent on each connection.
EVERY_SECONDS = 0.2


@dataclass(frozen=True)
class Held:
    """What became of connections: how many there were, how many were lost, and the longest time, in
    seconds, that an answer took on one of them.
    """

    connections: int
    lost: int
    longest: float


def serve(host: Host, ports: Sequence[int]) -> subprocess.Popen[Any]:
    """Answer connections to these ports of a host, until that is switched off."""
    process = host.popen(_command("serve", *ports), stdout=subprocess.PIPE, text=True)
    _expect_ready(process)
    return process


class Lasting:
    """Connections from a host to a virtual server, held open for the time of a ``with`` block.

    number
        How many to each port.

    ``held`` says after the block what became of them.
    """

    def __init__(self, host: Host, address: str, ports: Sequence[int], number: int) -> None:
        self._host = host
        self._command = _command("hold", address, number, *ports)
        self.held = Held(0, 0, 0.0)

    def __enter__(self) -> Lasting:
        self._process = self._host.popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        _expect_ready(self._process)
        return self

    def __exit__(self, *_: object) -> None:
        said, _ = self._process.communicate("\n", timeout=30)
        self.held = Held(**json.loads(said))


def _command(action: str, *arguments: object) -> list[str]:
    return [sys.executable, str(Path(__file__).resolve()), action, *map(str, arguments)]


def _expect_ready(process: subprocess.Popen[Any]) -> None:
    assert process.stdout is not None
    if process.stdout.readline().strip() != READY:
        raise RuntimeError("the connections did not come about")


# From here on: inside the host.


def _serve(ports: Sequence[int]) -> None:
    """Give back what comes."""
    chosen = selectors.DefaultSelector()
    for port in ports:
        listening = socket.create_server(("", port), backlog=512)
        chosen.register(listening, selectors.EVENT_READ, True)
    print(READY, flush=True)
    while True:
        for key, _ in chosen.select():
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            if key.data:
                chosen.register(connection.accept()[0], selectors.EVENT_READ, False)
            elif not _gave_back(connection):
                chosen.unregister(connection)
                connection.close()


def _gave_back(connection: socket.socket) -> bool:
    try:
        text = connection.recv(4096)
        connection.sendall(text)
    except OSError:
        return False
    return bool(text)


def _hold(address: str, number: int, ports: Sequence[int]) -> None:
    """Ask on each connection, again and again, until our input ends."""
    living = [
        socket.create_connection((address, port), timeout=5)
        for port in ports
        for _ in range(number)
    ]
    opened, longest = len(living), 0.0
    for connection in living:
        longest = max(longest, _asked(connection))
    print(READY, flush=True)
    while not select.select([sys.stdin], [], [], EVERY_SECONDS)[0]:
        for connection in list(living):
            try:
                longest = max(longest, _asked(connection))
            except OSError:
                living.remove(connection)
    print(json.dumps({"connections": opened, "lost": opened - len(living), "longest": longest}))


def _asked(connection: socket.socket) -> float:
    """Seconds until the answer."""
    began = time.monotonic()
    connection.sendall(b"?")
    if not connection.recv(1):
        raise ConnectionResetError
    return time.monotonic() - began


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        _serve([int(port) for port in sys.argv[2:]])
    else:
        _hold(sys.argv[2], int(sys.argv[3]), [int(port) for port in sys.argv[4:]])
