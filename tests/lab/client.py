"""A client's requests, made in the host ``client`` by one process and told as JSON.

``Client(host)`` is for tests and the demo. In the host this file runs by itself, with the standard
library alone: ``python client.py URL-HOST PORT JSON`` (see ``_main``).
"""

from __future__ import annotations

import http.client
import itertools
import json
import select
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.lab.host import Host


@dataclass(frozen=True)
class Reply:
    """One request: when it began and ended (seconds since the first), and who answered.

    ``server`` is empty and ``error`` says why if nobody did. ``destination`` is the address that
    the real server saw the request come to.
    """

    began: float
    ended: float
    source: str
    server: str = ""
    destination: str = ""
    error: str = ""


@dataclass(frozen=True)
class Replies:
    """All replies of a batch, in the order in which the requests began."""

    all: tuple[Reply, ...]

    @property
    def errors(self) -> list[Reply]:
        """Those that nobody answered."""
        return [reply for reply in self.all if reply.error]

    def by_server(self) -> dict[str, int]:
        """How many each real server answered."""
        return dict(Counter(reply.server for reply in self.all if reply.server))

    def by_source(self) -> dict[str, set[str]]:
        """The real servers that answered each client address."""
        found: dict[str, set[str]] = {reply.source: set() for reply in self.all}
        for reply in self.all:
            if reply.server:
                found[reply.source].add(reply.server)
        return found

    def longest_gap(self) -> float:
        """The longest time, in seconds, in which no request was answered."""
        ends = sorted(reply.ended for reply in self.all if reply.server)
        last = max((reply.ended for reply in self.all), default=0.0)
        marks = [0.0, *ends, last]
        return max(later - earlier for earlier, later in itertools.pairwise(marks))


class Client:
    """Makes requests from a host of the lab."""

    def __init__(self, host: Host, python: str = sys.executable) -> None:
        self._host = host
        self._python = python

    def get(
        self,
        address: str,
        port: int = 80,
        *,
        sources: Sequence[str] = (),
        requests: int = 1,
        timeout: float = 2.0,
    ) -> Replies:
        """Make ``requests`` requests, taking turns among ``sources``, each within ``timeout`` s."""
        plan = {"sources": list(sources), "requests": requests, "timeout": timeout}
        command = self._command(address, port, plan)
        done = self._host.run(command, check=True, timeout=30 + requests * timeout)
        return _replies(done.stdout.splitlines())

    def keep_asking(
        self,
        address: str,
        port: int = 80,
        *,
        sources: Sequence[str] = (),
        per_second: float = 20,
        timeout: float = 1.0,
        seconds: float = 120,
    ) -> Asking:
        """Ask ``per_second`` times a second in the background, until told to stop."""
        plan = {
            "sources": list(sources),
            "requests": int(per_second * seconds),
            "timeout": timeout,
            "per_second": per_second,
        }
        return Asking(self._host, self._command(address, port, plan))

    def _command(self, address: str, port: int, plan: dict[str, Any]) -> list[str]:
        return [self._python, str(Path(__file__).resolve()), address, str(port), json.dumps(plan)]


class Asking:
    """Requests in the background of a ``with`` block; after it, ``replies`` has them all."""

    def __init__(self, host: Host, command: list[str]) -> None:
        self._host = host
        self._command = command
        self.replies = Replies(())

    def __enter__(self) -> Asking:
        self._process = self._host.popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self._lines = [self._process.stdout.readline()]
        # All the time: a full pipe, after some 480 replies, would hold up the next request.
        self._reader = threading.Thread(target=self._lines.extend, args=(self._process.stdout,))
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()  # tells it to stop
        self._reader.join()
        self._process.stdout.close()
        self._process.wait()
        self.replies = _replies(self._lines)


def _replies(lines: Sequence[str]) -> Replies:
    replies = [Reply(**json.loads(line)) for line in lines if line.strip()]
    return Replies(tuple(sorted(replies, key=lambda reply: reply.began)))


# From here on: inside the host.


def _ask(address: str, port: int, source: str, timeout: float, start: float) -> Reply:
    """Make one request."""
    began = time.monotonic() - start
    bound = (source, 0) if source else None
    connection = http.client.HTTPConnection(address, port, timeout, source_address=bound)
    try:
        connection.request("GET", "/")
        answer = json.loads(connection.getresponse().read())
        found = {"server": answer["server"], "destination": answer["destination"]}
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        found = {"error": f"{type(error).__name__}: {error}"}
    finally:
        connection.close()
    return Reply(began, time.monotonic() - start, source, **found)


def _turns(requests: int, per_second: float) -> Iterator[int]:
    """Numbers of requests, each when it is due; ends early when our input is closed."""
    start = time.monotonic()
    for number in range(requests):
        if per_second:
            pause = max(0.0, start + number / per_second - time.monotonic())
            if select.select([sys.stdin], [], [], pause)[0]:
                return
        yield number


def _main(address: str, port: str, text: str) -> None:
    """Make the requests that ``text`` (JSON) plans; print one JSON line for each reply."""
    plan = json.loads(text)
    sources = plan["sources"] or [""]
    start = time.monotonic()
    # A slow answer must not hold up the next request of a steady rate.
    with ThreadPoolExecutor(max_workers=32 if plan.get("per_second") else 4) as workers:

        def tell(number: int) -> None:
            source = sources[number % len(sources)]
            reply = _ask(address, int(port), source, plan["timeout"], start)
            sys.stdout.write(json.dumps(asdict(reply)) + "\n")
            sys.stdout.flush()

        for number in _turns(plan["requests"], plan.get("per_second", 0)):
            workers.submit(tell, number)


if __name__ == "__main__":
    _main(*sys.argv[1:])
