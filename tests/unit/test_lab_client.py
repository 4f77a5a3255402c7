"""What a batch of replies tells."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import asdict
from http.server import ThreadingHTTPServer

import pytest

from tests.lab import client, web
from tests.lab.client import Replies, Reply

ANSWERED = Reply(0.0, 0.1, "10.10.10.101", "rs1", "10.10.10.10")
REFUSED = Reply(1.0, 1.2, "10.10.10.102", error="ConnectionRefusedError: no")
OTHER = Reply(2.0, 2.1, "10.10.10.101", "rs2", "10.10.10.10")
LATE = Reply(2.5, 5.5, "10.10.10.103", error="TimeoutError: timed out")


def test_replies_by_who_answered_and_who_asked() -> None:
    replies = Replies((ANSWERED, REFUSED, OTHER))
    assert replies.errors == [REFUSED]
    assert replies.by_server() == {"rs1": 1, "rs2": 1}
    assert replies.by_source() == {"10.10.10.101": {"rs1", "rs2"}, "10.10.10.102": set()}


GAPS = {
    "no requests, no gap": ((), 0.0),
    "between two answers": ((ANSWERED, REFUSED, OTHER), 2.0),
    "from the beginning to the first answer": ((OTHER,), 2.1),
    "from the last answer to the end": ((ANSWERED, OTHER, LATE), 3.4),
    "no answer at all": ((REFUSED, LATE), 5.5),
}


@pytest.mark.parametrize(("replies", "seconds"), GAPS.values(), ids=GAPS)
def test_the_longest_gap_is(replies: tuple[Reply, ...], seconds: float) -> None:
    assert Replies(replies).longest_gap() == pytest.approx(seconds)


def test_replies_come_in_the_order_in_which_the_requests_began() -> None:
    lines = [json.dumps(asdict(reply)) + "\n" for reply in (OTHER, LATE, ANSWERED)]
    assert client._replies([*lines, "\n"]).all == (ANSWERED, OTHER, LATE)


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    """The web server of the lab's real servers, on this machine's loopback."""

    class Local(web.Server):
        def server_bind(self) -> None:
            socket.socket.bind(self.socket, ("127.0.0.1", 0))

    server = Local(("127.0.0.1", 0), web.Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_request_learns_who_answered_it_and_at_which_address(server: ThreadingHTTPServer) -> None:
    port = server.socket.getsockname()[1]
    reply = client._ask("127.0.0.1", port, "127.0.0.9", timeout=5, start=0)
    assert (reply.server, reply.destination) == (socket.gethostname(), "127.0.0.1")
    assert (reply.source, reply.error) == ("127.0.0.9", "")
    assert 0 < reply.began < reply.ended


def test_a_request_that_nobody_answers_says_why() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        reply = client._ask("127.0.0.1", unused.getsockname()[1], "", timeout=5, start=0)
    assert (reply.server, reply.error) == (
        "",
        "ConnectionRefusedError: [Errno 111] Connection refused",
    )
