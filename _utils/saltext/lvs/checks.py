"""What can be asked of a real server, and what comes of it: values, checked when they are built.

Nothing here opens a socket; :mod:`saltext.lvs.probe` carries them out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Protocol

from saltext.lvs.loop import Loop
from saltext.lvs.model import endpoint
from saltext.lvs.pacing import Pace
from saltext.lvs.reading import Address

# A server that never stops talking is cut off there.
MOST_REPLY_BYTES = 256 * 1024
MOST_GREETING_BYTES = 4096
MOST_OUTPUT_BYTES = 4096
SUCCESS = frozenset(range(200, 300))
# All that a program finds in its environment where nothing else is said.
ENVIRONMENT = (("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),)
# Which digest it is shows from its length in hexadecimal digits; MD5 is keepalived's.
DIGESTS = {32: "md5", 40: "sha1", 64: "sha256", 128: "sha512"}


@dataclass(frozen=True, slots=True)
class Tcp:
    """A connection to a real server's own address; with *expect*, what it says there.

    bindto
        The address of this machine that it comes from; by default the kernel chooses.

    send
        What is said first.

    expect
        A regular expression that must be found in the answer, within its first *most* bytes.
    """

    address: Address
    port: int
    bindto: Address | None = None
    send: bytes = b""
    expect: re.Pattern[bytes] | None = None
    most: int = MOST_GREETING_BYTES

    def __str__(self) -> str:
        return endpoint(self.address, self.port)


@dataclass(frozen=True, slots=True)
class Tls:
    """How a connection is encrypted.

    name
        Whose certificate must be shown, and what is asked for (SNI); by default that of the
        request's host, or the address.

    verify
        Whether the certificate must be valid, and of that name.

    authorities
        A file of certificates in PEM that are trusted; by default the system's.
    """

    name: str = ""
    verify: bool = True
    authorities: str = ""


@dataclass(frozen=True, slots=True)
class Http:
    """A request by HTTP, or HTTPS with *tls*; the first answer counts, redirects are not followed.

    host
        What the request's ``Host`` says; by default the address.

    statuses
        Those that are right.

    body
        A regular expression that must be found in the answer's body, within its first *most* bytes.

    digest
        The body's digest in hexadecimal digits: SHA-256, or by its length SHA-1, SHA-512 or MD5.
    """

    address: Address
    port: int
    path: str = "/"
    host: str = ""
    method: str = "GET"
    statuses: frozenset[int] = SUCCESS
    body: re.Pattern[bytes] | None = None
    digest: str = ""
    tls: Tls | None = None
    bindto: Address | None = None
    most: int = MOST_REPLY_BYTES

    def __post_init__(self) -> None:
        # Any other character would end the line, and begin another one.
        for text in (self.path, self.host, self.method):
            if not re.fullmatch(r"[\x21-\x7e]*", text):
                raise ValueError(f"{text!r} does not fit into a request")
        if not self.path.startswith("/") or not re.fullmatch("[A-Z]+", self.method):
            raise ValueError(f"{self.method} {self.path} is no request")
        if self.digest and len(self.digest) not in DIGESTS:
            raise ValueError(f"{self.digest!r} is no digest")

    def __str__(self) -> str:
        return endpoint(self.address, self.port)

    @property
    def needs_body(self) -> bool:
        """Whether the status alone does not decide."""
        return self.body is not None or bool(self.digest)


@dataclass(frozen=True, slots=True)
class Exec:
    """A program, run without a shell; exit status 0 is right.

    command
        The program's absolute path, and its arguments.

    environment
        All of its variables; by default a PATH alone.

    most
        How many bytes of its output are kept; their first line is told.
    """

    command: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ENVIRONMENT
    most: int = MOST_OUTPUT_BYTES

    def __post_init__(self) -> None:
        if not self.command or not self.command[0].startswith("/"):
            raise ValueError(f"{self.command} does not begin with an absolute path")

    def __str__(self) -> str:
        return self.command[0]


@dataclass(frozen=True, slots=True)
class Path:
    """A SYN for the VIP in a frame for the real server, as IPVS's direct routing sends it.

    address
        The real server's own, by which its hardware address is known.

    interface
        By which it is reached; by default the kernel's route to it says so.
    """

    address: Address
    vip: Address
    port: int
    interface: str = ""

    def __post_init__(self) -> None:
        if self.address.version != self.vip.version:
            raise ValueError(f"{self.address} cannot serve {self.vip}")

    def __str__(self) -> str:
        return endpoint(self.vip, self.port)


How = Tcp | Http | Exec | Path

# Whether it is right (``None``: this machine could not ask), and why, in words.
Outcome = tuple[bool | None, str]
Done = Callable[[bool | None, str], None]


class Flight(Protocol):
    """A check that is being asked."""

    def expired(self) -> Outcome:
        """Its time is up: end it, and say what that means."""

    def stop(self) -> None:
        """End it; nobody wants to know any more."""


class Asker(Protocol):
    """Whatever can carry out one check, as often as it is asked to."""

    def start(self, loop: Loop, timeout: float, done: Done) -> Flight:
        """Begin to ask.

        done
            Called once with the outcome, perhaps before this returns; never after
            :meth:`Flight.expired` or :meth:`Flight.stop`.

        Raises OSError where this machine cannot.
        """


@dataclass(frozen=True, slots=True)
class Check:
    """Something that is asked again and again.

    key
        What makes it that one and no other.

    timeout
        Seconds within which it must be answered.

    retry, delay_before_retry
        After so many bad answers in a row the next one is asked for sooner, after these seconds.
        With 0 every one waits for its turn.
    """

    key: Hashable
    how: How
    pace: Pace = field(default_factory=Pace)
    timeout: float = 3
    retry: int = 0
    delay_before_retry: float = 1

    def __post_init__(self) -> None:
        if not self.timeout > 0 or self.delay_before_retry < 0 or self.retry < 0:
            raise ValueError(f"{self.key}: these times cannot be kept")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a check.

    ok
        ``None`` if this machine could not ask (no route, no free descriptor): that says nothing of
        the real server.

    reason
        In words, also where all is well.

    milliseconds
        How long it took.

    at
        When it was over, on the clock of who asked.
    """

    key: Hashable
    ok: bool | None
    reason: str
    milliseconds: float
    at: float
