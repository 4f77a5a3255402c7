"""Connections that are over in time, to real sockets on loopback."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from saltext.lvs.deadlines import Deadline

HERE = "127.0.0.1"


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """A port whose queue is full: who connects is not answered."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind((HERE, 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def places(*ports: int) -> list[Any]:
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (HERE, port)) for port in ports]


def resolving(monkeypatch: pytest.MonkeyPatch, *ports: int) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: places(*ports))


def test_many_addresses_that_do_not_answer_take_no_longer_than_one_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with silent() as port, Deadline(0.4) as deadline:
        resolving(monkeypatch, *[port] * 12)
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            deadline.connect("mail", 25, 0.15)
        assert 0.3 < time.monotonic() - began < 1
        assert deadline.passed


def test_the_next_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    with silent() as port, socket.create_server((HERE, 0)) as listener, Deadline(2) as deadline:
        resolving(monkeypatch, port, listener.getsockname()[1])
        with deadline.connect("mail", 25, 0.1) as link:
            assert link.getpeername() == listener.getsockname()
            assert not deadline.passed


def test_a_resolver_that_does_not_answer_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = threading.Event()

    def resolve(*_: Any, **__: Any) -> list[Any]:
        ends.wait(10)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    began = time.monotonic()
    with Deadline(0.2) as deadline, pytest.raises(TimeoutError):
        deadline.connect("mail", 25, 5)
    assert time.monotonic() - began < 1
    ends.set()


def test_a_connection_is_shut_when_the_time_is_over_whoever_has_it() -> None:
    with socket.create_server((HERE, 0)) as listener, Deadline(0.3) as deadline:
        link = deadline.connect(HERE, listener.getsockname()[1], 5)
        # As TLS does.
        with socket.socket(fileno=link.detach()) as taken_over:
            taken_over.settimeout(5)
            began = time.monotonic()
            assert taken_over.recv(1) == b""
            assert 0.2 < time.monotonic() - began < 1


def test_a_connection_that_is_done_in_time_leaves_nothing_behind() -> None:
    before = threading.active_count()
    with socket.create_server((HERE, 0)) as listener:
        with Deadline(30) as deadline:
            deadline.connect(HERE, listener.getsockname()[1], 5).close()
        peer, _ = listener.accept()
        with peer:
            peer.settimeout(1)
            assert peer.recv(1) == b""
    assert threading.active_count() <= before


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".example.com"])
def test_a_name_that_cannot_be_one_is_an_error_like_others(host: str) -> None:
    with Deadline(5) as deadline, pytest.raises(OSError, match="is no host name"):
        deadline.connect(host, 25, 5)


def test_what_is_left_for_a_step_is_never_more_than_all() -> None:
    with Deadline(1) as deadline:
        assert deadline.left(0.5) == 0.5
        assert 0.5 < deadline.left(30) <= 1
    with Deadline(0) as over, pytest.raises(TimeoutError):
        over.left(30)
