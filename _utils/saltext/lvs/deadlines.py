"""A connection that is over in time, whatever the other machine does or leaves undone.

A socket's own timeout is for one wait, and begins anew with each byte that drips in.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from typing import Any


class Deadline:
    """When all of one exchange is over: the name, the connection, TLS, and every answer.

    It begins when it is made, and is used as ``with Deadline(30) as deadline``; its connection is
    to be closed before that ends.

    seconds
        For all of it.
    """

    def __init__(self, seconds: float) -> None:
        self._ends = time.monotonic() + seconds
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Deadline:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def passed(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() >= self._ends

    def left(self, most_seconds: float) -> float:
        """The seconds for a next step; raises TimeoutError if there are none."""
        seconds = self._ends - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        return min(seconds, most_seconds)

    def connect(self, host: str, port: int, most_seconds: float) -> socket.socket:
        """A connection to the first of a host's addresses that takes one; it is shut when the time
        is over, also under TLS.

        most_seconds
            For the name, for each address, and for each wait later.

        Raises OSError; TimeoutError is one.
        """
        trouble: OSError = OSError(f"{host} has no address")
        for family, kind, protocol, _, address in self._addresses(host, port, most_seconds):
            link = socket.socket(family, kind, protocol)
            try:
                link.settimeout(self.left(most_seconds))
                link.connect(address)
            except OSError as error:
                link.close()
                trouble = error
            else:
                link.settimeout(most_seconds)
                self._watch(link)
                return link
        raise trouble

    def _addresses(self, host: str, port: int, most_seconds: float) -> Any:
        # The resolver cannot be interrupted: a thread that waits for it can be left alone.
        found: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def ask() -> None:
            try:
                found.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
            except OSError as error:
                found.put(error)
            except UnicodeError:
                # An empty part of a name, or one of more than 63 letters.
                found.put(OSError(f"{host} is no host name"))

        threading.Thread(target=ask, daemon=True).start()
        try:
            answer = found.get(timeout=self.left(most_seconds))
        except queue.Empty:
            raise TimeoutError from None
        if isinstance(answer, OSError):
            raise answer
        return answer

    def _watch(self, link: socket.socket) -> None:
        # A descriptor of our own: TLS takes the socket over, and http.client lets go of it early.
        ours = self._stack.enter_context(link.dup())

        def over() -> None:
            with contextlib.suppress(OSError):
                ours.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(max(0.0, self._ends - time.monotonic()), over)
        timer.daemon = True
        timer.start()
        # It has ended before the descriptor is closed, and so never shuts another's.
        self._stack.callback(timer.join)
        self._stack.callback(timer.cancel)
