"""One JSON document to one URL, by POST (RFC 9110), so that it is known whether it was taken."""

from __future__ import annotations

import contextlib
import http.client
import re
import ssl
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from saltext.lvs.deadlines import Deadline
from saltext.lvs.errors import MASK, InvalidConfig
from saltext.lvs.reading import Section
from saltext.lvs.relays import cleaned, finish, is_loopback, reason, verifying

TIMEOUT_SECONDS = 10.0
# RFC 9110 section 5.6.2.
HEADER = re.compile("[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
VALUE = re.compile("[\x20-\x7e]{0,4000}")
URL = re.compile(r"https?://[\x21-\x7e]{1,2000}")
# What a server says when it may take it another time.
AGAIN = frozenset({408, 425, 429, *range(500, 600)})
MOST_ANSWER = 4096
# They say where a document ends, which is not for the configuration to say.
FRAMING = frozenset({"content-length", "transfer-encoding"})


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where documents are posted to.

    url, headers
        May have secrets, and are left out of ``repr``.

    ca_file
        Who may have signed its certificate; empty for whom the system trusts.

    timeout_seconds
        For all of one exchange.
    """

    name: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    ca_file: str = ""
    timeout_seconds: float = TIMEOUT_SECONDS


@dataclass(frozen=True, slots=True)
class Reply:
    """Whether it was taken, whether it is worth another try, and in which words."""

    taken: bool
    again: bool = False
    words: str = ""


def webhook_of(name: str, value: Any) -> Webhook:
    """What the master's configuration says of a webhook.

    Raises :class:`~saltext.lvs.errors.InvalidConfig`, which never shows the URL or a header.
    """
    section = Section(value, f"lvs_alerts:webhooks:{name}")
    found = Webhook(
        name,
        _url(section),
        _headers(section),
        section.text("ca_file", "/.+", "an absolute path", ""),
        section.number("timeout", 0.1, 300, TIMEOUT_SECONDS),
    )
    finish(section)
    return found


def _url(section: Section) -> str:
    expected = "an https address, or an http one of this machine itself"
    url = section.secret("url", URL.pattern, expected)
    try:
        parts = urllib.parse.urlsplit(url)
        # A port that is none shows when it is asked for, a host that is none when it is encoded.
        host, _ = parts.hostname or "", parts.port
        host.encode("idna")
    except ValueError:
        raise InvalidConfig(section.at("url"), MASK, expected) from None
    if not host or parts.username is not None or (parts.scheme == "http" and not is_loopback(host)):
        raise InvalidConfig(section.at("url"), MASK, expected)
    return url


def _headers(section: Section) -> dict[str, str]:
    found = section.raw("headers", {})
    expected = "a mapping of header names to texts in ASCII"
    if not isinstance(found, Mapping):
        raise InvalidConfig(section.at("headers"), MASK, expected)
    for name, text in found.items():
        right = isinstance(name, str) and HEADER.fullmatch(name) and isinstance(text, str)
        if not right or not VALUE.fullmatch(text) or name.lower() in FRAMING:
            raise InvalidConfig(section.at("headers"), MASK, expected)
    return dict(found)


def post(webhook: Webhook, body: bytes) -> Reply:
    """Post a JSON document; redirections are not followed."""
    parts = urllib.parse.urlsplit(webhook.url)
    host = parts.hostname or ""
    with Deadline(webhook.timeout_seconds) as deadline:
        try:
            code = _code(webhook, parts, body, deadline)
        except (OSError, http.client.HTTPException) as error:
            words = "no answer in time" if deadline.passed else _why(error)
            return Reply(False, True, cleaned(f"{host}: {words}"))
    if 200 <= code < 300:
        return Reply(True)
    return Reply(False, code in AGAIN, cleaned(f"{host}: {_said(code)}"))


def _code(
    webhook: Webhook, parts: urllib.parse.SplitResult, body: bytes, deadline: Deadline
) -> int:
    """What the server answers; what else it says may repeat the URL, and is not kept."""
    with contextlib.closing(_connection(webhook, parts, deadline)) as connection:
        target = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
        connection.request("POST", target, body, _sent_headers(webhook))
        response = connection.getresponse()
        # It is decided by now; to hang up on who still talks is impolite, no more.
        with contextlib.suppress(OSError, http.client.HTTPException):
            response.read(MOST_ANSWER)
        return response.status


def _sent_headers(webhook: Webhook) -> dict[str, str]:
    own = {key: text for key, text in webhook.headers.items() if key.lower() != "content-type"}
    return {"User-Agent": "saltext-lvs", **own, "Content-Type": "application/json"}


def _connection(
    webhook: Webhook, parts: urllib.parse.SplitResult, deadline: Deadline
) -> http.client.HTTPConnection:
    host, seconds = parts.hostname or "", webhook.timeout_seconds
    if parts.scheme == "http":
        plain = http.client.HTTPConnection(host, parts.port or 80)
        plain.sock = deadline.connect(host, plain.port, seconds)
        return plain
    context = _context(webhook)
    sealed = http.client.HTTPSConnection(host, parts.port or 443, context=context)
    link = deadline.connect(host, sealed.port, seconds)
    # This takes the descriptor over, and closes it where it fails.
    sealed.sock = context.wrap_socket(link, server_hostname=host)
    return sealed


def _context(webhook: Webhook) -> ssl.SSLContext:
    try:
        return verifying(webhook.ca_file)
    except OSError as error:
        raise OSError(f"ca_file: {reason(error)}") from None


def _said(code: int) -> str:
    words = f"{code} {http.client.responses.get(code, '')}".strip()
    return f"{words}; redirections are not followed" if 300 <= code < 400 else words


def _why(error: Exception) -> str:
    hung_up = isinstance(error, http.client.RemoteDisconnected)
    known = hung_up or not isinstance(error, http.client.HTTPException)
    # Another's text has what the server wrote.
    return reason(error) if known else "its answer is not HTTP"
