"""Connections that never block: to a real server's port, and what is said there, also by TLS."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import socket
import ssl
from collections.abc import Callable

from saltext.lvs.checks import Done, Http, Outcome, Tcp, Tls
from saltext.lvs.loop import BROKEN, READABLE, WRITABLE, Loop
from saltext.lvs.model import endpoint
from saltext.lvs.reading import Address
from saltext.lvs.replies import Conversation, Expecting, HttpAnswer

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
KIND = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
# linux/in.h: an address without a port leaves the choice of the port to connect(), which can use
# one port for many servers.
IP_BIND_ADDRESS_NO_PORT = 24
AT_ONCE = 1 << 16

# What is wrong here and not at the real server.
OWN_FAULTS = frozenset(
    {
        errno.EACCES,
        errno.EADDRINUSE,
        errno.EADDRNOTAVAIL,
        errno.EAFNOSUPPORT,
        errno.EAGAIN,
        errno.EINVAL,
        errno.EMFILE,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENFILE,
        errno.ENOBUFS,
        errno.ENODEV,
        errno.ENOMEM,
        errno.ENXIO,
        errno.EPERM,
    }
)
# What the same numbers mean when they come later: somebody on the way has sent an ICMP message.
HEARD = {
    errno.ENETUNREACH: "a router says that no network leads to {}",
    errno.EACCES: "a firewall refuses what is sent to {}",
}
WORDS = {
    errno.ECONNREFUSED: "nothing listens on {}: the connection was refused",
    errno.EHOSTUNREACH: "the host is gone: nobody answers for the address of {}",
    errno.ECONNRESET: "{} reset the connection",
    errno.ETIMEDOUT: "no answer from {}",
}


def outcome_of(number: int, place: str) -> Outcome:
    """What an error number of a socket means for a check."""
    if number in OWN_FAULTS:
        return None, not_asked(number, place)
    words = WORDS.get(number)
    return False, words.format(place) if words else f"{place}: {_named(number)}"


def not_asked(number: int, place: str) -> str:
    """That a check could not be begun, and why."""
    return f"{place} could not be asked: {_named(number)}"


def _named(number: int) -> str:
    return f"{os.strerror(number)} ({errno.errorcode.get(number, number)})"


def heard(number: int, place: str) -> Outcome:
    """:func:`outcome_of` for an error that the network has answered with."""
    words = HEARD.get(number)
    return (False, words.format(place)) if words else outcome_of(number, place)


class Caller:
    """Calls one real server, again and again.

    converse
        Begins what is said there; without it the connection alone counts.
    """

    def __init__(
        self,
        address: Address,
        port: int,
        bindto: Address | None = None,
        converse: Callable[[], Conversation] | None = None,
    ) -> None:
        self.place = endpoint(address, port)
        self.converse = converse
        self._family = FAMILIES[address.version]
        self._end = (str(address), port)
        self._own = (str(bindto), 0) if bindto is not None else None

    @classmethod
    def of(cls, how: Tcp | Http) -> Caller:
        """The caller for a check."""
        return cls(how.address, how.port, how.bindto, _conversation(how))

    def start(self, loop: Loop, timeout: float, done: Done) -> Connection:
        """Begin a connection."""
        # Without what socket.socket does around it in Python, which a check has no use for.
        wire = socket.SocketType(self._family, KIND, socket.IPPROTO_TCP)
        try:
            if self._own is not None:
                wire.setsockopt(socket.SOL_IP, IP_BIND_ADDRESS_NO_PORT, 1)
                wire.bind(self._own)
            number = wire.connect_ex(self._end)
        except OSError as error:
            wire.close()
            # Unlike a missing descriptor this concerns one check alone.
            done(*outcome_of(error.errno or errno.EIO, self.place))
            return Connection(self, loop, wire, timeout, done)
        connection = Connection(self, loop, wire, timeout, done)
        connection.began(number)
        return connection


def _conversation(how: Tcp | Http) -> Callable[[], Conversation] | None:
    if isinstance(how, Tcp):
        return functools.partial(Expecting, how) if how.expect is not None else None
    if how.tls is None:
        return functools.partial(HttpAnswer, how)
    # Whom a certificate is for; Python asks for no name that is an address.
    name = how.tls.name or _without_port(how.host) or str(how.address)
    return functools.partial(_sealed, how, how.tls, name)


def _sealed(how: Http, tls: Tls, name: str) -> Conversation:
    return Sealed(HttpAnswer(how), tls, name, str(how))


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


class Connection:
    """One connection, from its SYN to what is decided by it."""

    __slots__ = ("_caller", "_done", "_loop", "_talk", "_timeout", "_unsent", "_wire")

    def __init__(
        self, caller: Caller, loop: Loop, wire: socket.SocketType, timeout: float, done: Done
    ) -> None:
        self._caller, self._loop, self._wire = caller, loop, wire
        self._timeout, self._done = timeout, done
        self._talk: Conversation | None = None
        self._unsent = b""

    def began(self, number: int) -> None:
        """What connect() said."""
        if number in (0, errno.EINPROGRESS):
            self._loop.once(self._wire.fileno(), WRITABLE, self._connected)
        else:
            self._finish(*outcome_of(number, self._caller.place))

    def expired(self) -> Outcome:
        """Its time is up."""
        self.stop()
        place, within = self._caller.place, f"within {self._timeout:g} s"
        if self._talk is None:
            return False, f"no answer from {place} {within}"
        return False, f"{place} took the connection, but {self._talk.awaited} did not come {within}"

    def stop(self) -> None:
        """Close it."""
        if self._wire.fileno() >= 0:
            self._loop.forget(self._wire.fileno())
            self._wire.close()

    def _finish(self, ok: bool | None, reason: str) -> None:
        self.stop()
        self._done(ok, reason)

    def _connected(self, events: int) -> None:
        # Without an error there is none to ask for.
        number = self._error() if events & BROKEN else 0
        if number:
            self._finish(*heard(number, self._caller.place))
        elif self._caller.converse is None:
            self._finish(True, f"{self._caller.place} took the connection")
        else:
            self._begin(self._caller.converse)

    def _error(self) -> int:
        return self._wire.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def _begin(self, converse: Callable[[], Conversation]) -> None:
        try:
            self._talk = converse()
        except (OSError, ValueError) as error:
            self._finish(None, f"{self._caller.place} could not be asked: {error}")
            return
        self._unsent = self._talk.unsent()
        self._go_on(self._talk)

    def _go_on(self, talk: Conversation) -> None:
        """Send what is to be sent, and wait for more."""
        try:
            while self._unsent:
                self._unsent = self._unsent[self._wire.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError as error:
            # It may have answered before it closed.
            if not self._heard_last(talk):
                self._finish(*heard(error.errno or errno.EIO, self._caller.place))
            return
        events = READABLE | (WRITABLE if self._unsent else 0)
        self._loop.once(self._wire.fileno(), events, self._ready, again=True)

    def _heard_last(self, talk: Conversation) -> bool:
        outcome = None
        with contextlib.suppress(OSError):
            outcome = talk.feed(self._wire.recv(AT_ONCE))
        if outcome is not None:
            self._finish(*outcome)
        return outcome is not None

    def _ready(self, events: int) -> None:
        talk = self._talk
        assert talk is not None
        outcome: Outcome | None = None
        if events & (READABLE | BROKEN):
            try:
                data = self._wire.recv(AT_ONCE)
                outcome = talk.feed(data) if data else talk.ended()
            except BlockingIOError:
                pass
            except OSError as error:
                outcome = heard(error.errno or errno.EIO, self._caller.place)
        if outcome is not None:
            self._finish(*outcome)
            return
        self._unsent += talk.unsent()
        self._go_on(talk)


class Sealed:
    """A conversation within TLS, which is one itself.

    name
        Whose certificate must be shown.
    """

    def __init__(self, inner: Conversation, tls: Tls, name: str, place: str) -> None:
        self._inner, self._place = inner, place
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = _context(tls).wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self._open = False
        self.awaited = "the TLS handshake"
        self._step()

    def unsent(self) -> bytes:
        """What is to be sent now, sealed."""
        return self._outgoing.read()

    def feed(self, data: bytes) -> Outcome | None:
        """Open what the server has said."""
        self._incoming.write(data)
        return self._step()

    def ended(self) -> Outcome:
        """The connection is closed."""
        self._incoming.write_eof()
        return self._step() or self._ended()

    def _ended(self) -> Outcome:
        if self._open:
            return self._inner.ended()
        return False, f"{self._place} closed the connection during the TLS handshake"

    def _step(self) -> Outcome | None:
        try:
            if not self._open:
                self._tls.do_handshake()
                self._open, self.awaited = True, self._inner.awaited
                self._tls.write(self._inner.unsent())
            return self._read()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except ssl.SSLCertVerificationError as error:
            return False, f"{self._place}: its certificate is not right: {error.verify_message}"
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return self._ended()
        except ssl.SSLError as error:
            reason = (error.reason or "unknown reason").replace("_", " ").lower()
            return False, f"{self._place}: TLS failed: {reason}"

    def _read(self) -> Outcome | None:
        while True:
            data = self._tls.read(AT_ONCE)
            if not data:
                return self._inner.ended()
            outcome = self._inner.feed(data)
            if outcome is not None:
                return outcome


@functools.lru_cache(maxsize=64)
def _context(tls: Tls) -> ssl.SSLContext:
    """Kept, because reading the authorities takes longer than a check."""
    context = ssl.create_default_context(cafile=tls.authorities or None)
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
