"""Services on many addresses of this machine, in a process of their own, which is told to close and
open them: ``python ports.py FIRST COUNT``.

Each line of its input, ``close FIRST COUNT`` or ``open FIRST COUNT``, is answered with when that
began, in seconds of ``time.monotonic()``.
"""

from __future__ import annotations

import contextlib
import ipaddress
import select
import socket
import sys
import time

PORT = 80


def main() -> None:
    """Serve until the input ends."""
    first = ipaddress.ip_address(sys.argv[1])
    listeners: dict[int, socket.socket] = {}
    by_descriptor: dict[int, socket.socket] = {}
    with select.epoll() as poll:
        poll.register(sys.stdin.fileno(), select.EPOLLIN)

        def opened(number: int) -> None:
            listener = socket.create_server((str(first + number), PORT), backlog=256)
            listener.setblocking(False)
            listeners[number] = by_descriptor[listener.fileno()] = listener
            poll.register(listener.fileno(), select.EPOLLIN)

        def closed(number: int) -> None:
            listener = listeners.pop(number)
            del by_descriptor[listener.fileno()]
            listener.close()

        acts = {"open": opened, "close": closed}
        for number in range(int(sys.argv[2])):
            opened(number)
        print(time.monotonic(), flush=True)
        while True:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if sys.stdin.fileno() in ready:
                # A line at a time: each is answered before the next is written.
                line = sys.stdin.readline()
                if not line:
                    return
                act, start, count = line.split()
                began = time.monotonic()
                for number in range(int(start), int(start) + int(count)):
                    acts[act](number)
                print(began, flush=True)
            for descriptor in ready & by_descriptor.keys():
                with contextlib.suppress(OSError):
                    while True:
                        by_descriptor[descriptor].accept()[0].close()


if __name__ == "__main__":
    main()
