"""VRRP advertisements, as every machine of a network may hear them."""

from __future__ import annotations

import socket
import struct
import threading
import time
from dataclasses import dataclass
from itertools import pairwise
from types import TracebackType

from tests.lab.host import Host

# RFC 5798 sections 5.1.1 and 5.2.4.
PROTOCOL, GROUP = 112, "224.0.0.18"


@dataclass(frozen=True)
class Advert:
    """One advertisement, heard ``at`` seconds of ``time.monotonic()``."""

    at: float
    source: str
    priority: int


class Adverts:
    """Hears them for the time of a ``with`` block, in a host that takes no part in VRRP."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._stop = threading.Event()
        self.all: list[Advert] = []

    def __enter__(self) -> Adverts:
        self._socket = self._host.in_network(self._open)
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()

    def _open(self) -> socket.socket:
        hearing = socket.socket(socket.AF_INET, socket.SOCK_RAW, PROTOCOL)
        member = struct.pack("=4s4s", socket.inet_aton(GROUP), socket.inet_aton(self._host.address))
        hearing.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
        hearing.settimeout(0.1)
        return hearing

    def _collect(self) -> None:
        while not self._stop.is_set():
            try:
                packet, (source, _) = self._socket.recvfrom(65535)
            except TimeoutError:
                continue
            header = (packet[0] & 0x0F) * 4
            self.all.append(Advert(time.monotonic(), source, packet[header + 2]))

    def sources(self, since: float) -> list[str]:
        """Who has spoken since then, each once."""
        return list(dict.fromkeys(one.source for one in self.all if one.at >= since))

    def longest_pause(self, since: float) -> float:
        """The longest time, in seconds, between two advertisements since then."""
        times = [one.at for one in self.all if one.at >= since]
        return max((later - earlier for earlier, later in pairwise(times)), default=0.0)
