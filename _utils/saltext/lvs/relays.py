"""One mail to one of several SMTP relays, so that what became of it is known (RFC 5321).

A relay that is to be trusted with a mail shows a certificate that is right for its name. There is
no falling back to plain text, and credentials are never sent in it.
"""

from __future__ import annotations

import contextlib
import enum
import ipaddress
import re
import smtplib
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from saltext.lvs.alertwords import ADDRESS, MOST_ADDRESS
from saltext.lvs.deadlines import Deadline
from saltext.lvs.errors import MASK, InvalidConfig
from saltext.lvs.reading import Section, port_number

# RFC 5321 section 4.5.3.2 has minutes; whoever waits here is a person who should be told.
TIMEOUT_SECONDS = 30.0
# For the whole of a mail, in times of that for one answer.
ALL_ANSWERS = 5
MOST_WORDS = 200
# An answer is a few lines; RFC 5321 section 4.5.3.1.5 has 512 octets for one.
MOST_LINES = 100
MOST_LINE = 8192
_REPLY = re.compile(rb"(?P<code>[2-5][0-9]{2})(?P<more>[ -]|(?=\r?\n))(?P<text>.*)")
_LABEL = "[A-Za-z0-9_-]{1,63}"
_HOST = re.compile(
    r"(?P<bare6>[0-9A-Fa-f]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)"
    rf"|(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>{_LABEL}(?:\.{_LABEL})*\.?))"
    r"(?:[: ](?P<port>[0-9]{1,5}))?"
)


class Security(enum.Enum):
    """How a relay is spoken to."""

    NONE = "none"
    STARTTLS = "starttls"
    TLS = "tls"


_PORTS = {Security.NONE: 25, Security.STARTTLS: 25, Security.TLS: 465}


@dataclass(frozen=True, slots=True)
class Relay:
    """Where mail is handed to.

    username, password
        What it is told who we are; empty for nothing. Left out of ``repr``.

    ca_file
        Who may have signed its certificate; empty for whom the system trusts.

    timeout_seconds
        For a connection, and for each answer; for the whole of a mail it is
        :data:`ALL_ANSWERS` times as long.

    helo
        What we call ourselves; empty for this machine's name.
    """

    host: str
    port: int = 25
    security: Security = Security.STARTTLS
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    ca_file: str = ""
    timeout_seconds: float = TIMEOUT_SECONDS
    helo: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a mail.

    accepted
        Whom it reaches, as far as a relay knows.

    refused, later
        Who will not get it, and who may when it is tried again; with the relays' words.

    relay, reply
        Which one took it, and with which words; empty for none.
    """

    accepted: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    later: Mapping[str, str] = field(default_factory=dict)
    relay: str = ""
    reply: str = ""


def is_loopback(host: str) -> bool:
    """Whether a name or an address is this machine's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def settings_of(section: Section) -> dict[str, Any]:
    """What the master's configuration says of a relay, for :func:`relay_of`."""
    visible, names = "[\x20-\x7e]{1,200}", "1 to 200 ASCII characters"
    found: dict[str, Any] = {}
    if section.has("port"):
        found["port"] = section.integer("port", 1, 65535)
    if section.has("tls"):
        found["security"] = section.choice("tls", Security, Security.STARTTLS)
    if section.has("username") or section.has("password"):
        found["username"] = section.text("username", visible, names)
        found["password"] = section.secret("password", visible, names)
    if section.has("ca_file"):
        found["ca_file"] = section.text("ca_file", "/.+", "an absolute path")
    if section.has("helo"):
        found["helo"] = section.text("helo", "[A-Za-z0-9.-]{1,253}", "a host name")
    finish(section)
    return found


def finish(section: Section) -> None:
    """As the section's own, but what is left over may be a misspelt password, and is not shown."""
    try:
        section.finish()
    except InvalidConfig as error:
        raise InvalidConfig(error.path, MASK, error.expected) from None


def relay_of(text: str, **settings: Any) -> Relay:
    """The relay that the pillar names: ``localhost``, ``mail.example.com 587``, ``[fd00::1]:25``.

    settings
        Fields of :class:`Relay`.

    Raises :class:`~saltext.lvs.errors.InvalidConfig` for another text, and where credentials would
    be sent in plain text.
    """
    found = _HOST.fullmatch(text.strip())
    try:
        if found is None:
            raise ValueError(text)
        port = None if found["port"] is None else port_number(found["port"])
        if port == 0 or not _is_right(found["v6"] or found["bare6"]):
            raise ValueError(text)
    except ValueError:
        expected = "a host name or an address, with a port after a blank if it is another"
        raise InvalidConfig("lvs:alerts:smtp_server", text, expected) from None
    host = found["name"] or found["v6"] or found["bare6"]
    default = Security.NONE if is_loopback(host) else Security.STARTTLS
    security = settings.pop("security", default)
    usual = settings.pop("port", _PORTS[security])
    relay = Relay(host, usual if port is None else port, security, **settings)
    if relay.username and relay.security is Security.NONE and not is_loopback(host):
        raise InvalidConfig(
            f"lvs_alerts:relays:{host}:tls", "none", "starttls or tls: its password would be read"
        )
    return relay


def _is_right(address: str | None) -> bool:
    with contextlib.suppress(ValueError):
        return address is None or ipaddress.ip_address(address).version == 6
    return False


def is_address(text: str) -> bool:
    """Whether an envelope may have it (RFC 5321 section 4.1.2, and no quoting)."""
    short = len(text) <= MOST_ADDRESS and ".." not in text
    return short and ADDRESS.fullmatch(text) is not None


# --------------------------------------------------------------------------------------------------


class _Kind(enum.Enum):
    """What a relay's word means for one recipient."""

    TAKEN = enum.auto()
    # This recipient, for good.
    REFUSED = enum.auto()
    # This mail, for good.
    UNWANTED = enum.auto()
    LATER = enum.auto()
    UNREACHED = enum.auto()
    # It had the whole mail, and did not say what became of it.
    UNKNOWN = enum.auto()


_FOR_GOOD = frozenset({_Kind.REFUSED, _Kind.UNWANTED})
_NEXT = frozenset({_Kind.UNWANTED, _Kind.LATER, _Kind.UNREACHED})


@dataclass(frozen=True, slots=True)
class _Word:
    kind: _Kind
    text: str
    relay: str


def send(mail: bytes, sender: str, recipients: Sequence[str], relays: Sequence[Relay]) -> Outcome:
    """Hand a mail to the first relay that takes it.

    mail
        The whole message, in 7-bit ASCII.

    Who is refused for good by one relay is asked of no other. Where a relay is gone after it had
    the whole mail, no other one is tried now: it may have taken it. Nothing is refused for good as
    long as one relay was not there or put it off: it may be the one that takes it.

    Raises ValueError for an address that is none.
    """
    for address in (sender, *recipients):
        if not is_address(address):
            raise ValueError(f"{address!r} is no mail address")
    heard: dict[str, list[_Word]] = {who: [] for who in recipients}
    left = list(heard)
    for relay in relays:
        if not left:
            break
        for who, word in _try(relay, mail, sender, left).items():
            heard[who].append(word)
        left = [who for who in left if heard[who][-1].kind in _NEXT]
    return _outcome(heard)


def _outcome(heard: Mapping[str, Sequence[_Word]]) -> Outcome:
    taken: dict[str, _Word] = {}
    refused: dict[str, str] = {}
    later: dict[str, str] = {}
    for who, words in heard.items():
        why = "; ".join(f"{one.relay}: {one.text}" for one in words) or "there is no relay"
        kinds = {one.kind for one in words}
        if _Kind.TAKEN in kinds:
            taken[who] = words[-1]
        elif kinds and kinds <= _FOR_GOOD:
            refused[who] = words[0].text if words[0].kind is _Kind.REFUSED else why
        else:
            later[who] = why
    first = next(iter(taken.values()), None)
    relay, reply = (first.relay, first.text) if first else ("", "")
    return Outcome(tuple(taken), refused, later, relay, reply)


@dataclass(slots=True)
class _Stage:
    """How far a conversation has come.

    greeted
        Whether it has said anything.

    of_the_mail
        Whether what is refused now is this mail, and not us.

    sent
        Whether all of the mail has left, and no answer has come.

    told
        What has been said of single recipients.
    """

    name: str = "connection"
    greeted: bool = False
    of_the_mail: bool = False
    sent: bool = False
    told: dict[str, tuple[_Kind, str]] = field(default_factory=dict)


def _try(relay: Relay, mail: bytes, sender: str, recipients: Sequence[str]) -> dict[str, _Word]:
    stage = _Stage()
    with Deadline(relay.timeout_seconds * ALL_ANSWERS) as deadline:
        try:
            with _connected(relay, stage, deadline) as client:
                rest = _converse(client, relay, mail, sender, recipients, stage)
        except (smtplib.SMTPException, OSError, UnicodeError) as error:
            rest = _kind(error, stage), _words(error, stage, deadline)
    return {who: _Word(*stage.told.get(who, rest), relay.host) for who in recipients}


def _kind(error: Exception, stage: _Stage) -> _Kind:
    if stage.sent:
        return _Kind.UNKNOWN
    if not stage.greeted:
        return _Kind.UNREACHED
    said = isinstance(error, smtplib.SMTPResponseException) and error.smtp_code >= 500
    return _Kind.UNWANTED if said and stage.of_the_mail else _Kind.LATER


def _words(error: Exception, stage: _Stage, deadline: Deadline) -> str:
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return f"offers no {stage.name}"
    if isinstance(error, smtplib.SMTPAuthenticationError):
        # Its own words may repeat what it was sent.
        return f"refuses the credentials ({error.smtp_code})"
    if isinstance(error, smtplib.SMTPResponseException):
        return f"{stage.name}: {_said(error.smtp_code, error.smtp_error)}"
    words = f"{stage.name}: {'no answer in time' if deadline.passed else reason(error)}"
    return f"{words}{'; it may have taken it' * stage.sent}"


class _Client(smtplib.SMTP):
    """smtplib's, but an answer that is none, or has no end, is never taken for one of the relay's:
    smtplib makes a 500 of its own out of a line that is too long.
    """

    def getreply(self) -> tuple[int, bytes]:
        """Read one answer: its code, and its lines."""
        lines = []
        for _ in range(MOST_LINES):
            found = _REPLY.match(self._line())
            if found is None:
                raise smtplib.SMTPException("its answer is not SMTP")
            lines.append(found["text"].strip())
            if found["more"] != b"-":
                return int(found["code"]), b"\n".join(lines)
        raise smtplib.SMTPException("its answer has no end")

    def _line(self) -> bytes:
        if self.sock is None:
            raise smtplib.SMTPServerDisconnected
        if self.file is None:
            self.file = self.sock.makefile("rb")
        line: bytes = self.file.readline(MOST_LINE)
        if not line.endswith(b"\n") and len(line) < MOST_LINE:
            raise smtplib.SMTPServerDisconnected
        return line if line.endswith(b"\n") else b""


@contextlib.contextmanager
def _connected(relay: Relay, stage: _Stage, deadline: Deadline) -> Iterator[smtplib.SMTP]:
    context = _context_for(relay, stage)
    client = _Client(
        local_hostname=relay.helo or socket.gethostname(), timeout=relay.timeout_seconds
    )
    # What STARTTLS compares the certificate with.
    client._host = relay.host  # type: ignore[attr-defined]
    try:
        client.sock = deadline.connect(relay.host, relay.port, relay.timeout_seconds)
        if relay.security is Security.TLS:
            assert context is not None
            client.sock = context.wrap_socket(client.sock, server_hostname=relay.host)
        code, words = client.getreply()
        stage.greeted = True
        if code != 220:
            raise smtplib.SMTPConnectError(code, words)
        stage.name = "greeting"
        client.ehlo_or_helo_if_needed()
        if relay.security is Security.STARTTLS:
            stage.name = "STARTTLS"
            client.starttls(context=context)
            client.ehlo_or_helo_if_needed()
        yield client
    finally:
        client.close()


def _context_for(relay: Relay, stage: _Stage) -> ssl.SSLContext | None:
    if relay.security is Security.NONE:
        return None
    stage.name = "ca_file"
    context = verifying(relay.ca_file)
    stage.name = "connection"
    return context


def verifying(ca_file: str) -> ssl.SSLContext:
    """TLS with whom a certificate vouches for.

    ca_file
        Who may have signed it; empty for whom the system trusts.

    Raises OSError for a file that cannot be used.
    """
    context = ssl.create_default_context(cafile=ca_file or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _converse(
    client: smtplib.SMTP,
    relay: Relay,
    mail: bytes,
    sender: str,
    recipients: Sequence[str],
    stage: _Stage,
) -> tuple[_Kind, str]:
    if relay.username:
        stage.name = "AUTH"
        _log_in(client, relay)
    stage.name, stage.of_the_mail = "MAIL", True
    _expect(client.mail(sender))
    for address in recipients:
        _recipient(client, address, stage)
    if len(stage.told) == len(recipients):
        return _Kind.LATER, "nobody was accepted"
    words = _hand_over(client, mail, stage)
    _say_goodbye(client)
    return _Kind.TAKEN, words


def _log_in(client: smtplib.SMTP, relay: Relay) -> None:
    assert client.sock is not None
    sealed = isinstance(client.sock, ssl.SSLSocket)
    if not sealed and not is_loopback(client.sock.getpeername()[0]):
        raise smtplib.SMTPException("credentials are not sent in plain text")
    client.login(relay.username, relay.password)


def _expect(answer: tuple[int, bytes]) -> None:
    if not 200 <= answer[0] < 300:
        raise smtplib.SMTPResponseException(*answer)


def _recipient(client: smtplib.SMTP, address: str, stage: _Stage) -> None:
    stage.name = f"RCPT {address}"
    code, words = client.rcpt(address)
    if not 200 <= code < 300:
        kind = _Kind.REFUSED if code >= 500 else _Kind.LATER
        stage.told[address] = kind, _said(code, words)


def _hand_over(client: smtplib.SMTP, mail: bytes, stage: _Stage) -> str:
    stage.name = "DATA"
    code, words = client.docmd("DATA")
    if code != 354:
        raise smtplib.SMTPDataError(code, words)
    # A lone CR or LF may end the mail where one relay is followed by a laxer one.
    lines = re.sub(rb"\r\n|\r|\n", b"\r\n", mail)
    # RFC 5321 section 4.5.2: a line that begins with a dot gets another one.
    stuffed = re.sub(rb"(?m)^\.", b"..", lines)
    end = b".\r\n" if stuffed.endswith(b"\r\n") else b"\r\n.\r\n"
    client.send(stuffed + end)
    stage.sent = True
    code, words = client.getreply()
    stage.sent = False
    _expect((code, words))
    return _said(code, words)


def _say_goodbye(client: smtplib.SMTP) -> None:
    # It has the mail: what it says now changes nothing.
    with contextlib.suppress(smtplib.SMTPException, OSError):
        client.quit()


def _said(code: int, words: Any) -> str:
    text = words.decode("ascii", "replace") if isinstance(words, bytes) else str(words)
    return cleaned(f"{code} {text}")


def reason(error: Exception) -> str:
    """Why a connection came to nothing, in words that have nothing of what was sent."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return cleaned(f"its certificate is not right: {error.verify_message}")
    if isinstance(error, TimeoutError) or isinstance(error.__context__, TimeoutError):
        return "no answer in time"
    if isinstance(error, (smtplib.SMTPServerDisconnected, ConnectionResetError, BrokenPipeError)):
        return "it hung up"
    if isinstance(error, UnicodeError):
        return "what it is to be told is not ASCII"
    if isinstance(error, OSError) and error.strerror:
        return cleaned(error.strerror)
    return cleaned(str(error)) or type(error).__name__


def cleaned(text: str) -> str:
    """Somebody else's words in one line, without what a terminal or a mail would act on."""
    return "".join(c if c.isprintable() else " " for c in text)[:MOST_WORDS].strip()
