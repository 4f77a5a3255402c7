"""Judge what a server says, as it comes: text that must be found, or an answer by HTTP.

Nothing here opens a socket. What a server says is not trusted: it is bounded, and what is told of
it is made readable.
"""

from __future__ import annotations

import hashlib
import re
from typing import Protocol

from saltext.lvs.checks import DIGESTS, Http, Outcome, Tcp

MOST_HEADER_BYTES = 32 * 1024
# A log is read by people.
MOST_SHOWN = 60
STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9][0-9])(?: ([^\r\n]*))?\r?\n")
# The end of the header; a line of it
BLANK = re.compile(rb"\r?\n\r?\n")
FIELD = re.compile(rb"\n([A-Za-z-]+):[ \t]*([^\r\n]*)")
CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[^\r\n]*\r?\n")
LINE_ENDS = (b"\r", b"\n")
LENGTH = re.compile(rb"[0-9]{1,18}")


class Conversation(Protocol):
    """One talk with a server, from this side."""

    awaited: str

    def unsent(self) -> bytes:
        """What is to be sent now; it is handed out once."""

    def feed(self, data: bytes) -> Outcome | None:
        """Take in what the server has said; ``None`` for "go on"."""

    def ended(self) -> Outcome:
        """The server has closed the connection."""


def readable(data: bytes, most: int = MOST_SHOWN) -> str:
    """What a stranger has said, in printable characters and not too many of them."""
    text = data[: most + 1].decode("ascii", "replace")
    shown = "".join(letter if letter.isprintable() else "." for letter in text[:most])
    return f"{shown}..." if len(data) > most else shown


class Expecting:
    """Waits until a server has said what it should."""

    def __init__(self, check: Tcp) -> None:
        if check.expect is None:
            raise ValueError("nothing is expected")
        self._check, self._expect = check, check.expect
        self._unsent, self._said = check.send, b""
        self.awaited = "what was expected"

    def unsent(self) -> bytes:
        """What is to be sent now."""
        unsent, self._unsent = self._unsent, b""
        return unsent

    def feed(self, data: bytes) -> Outcome | None:
        """Right as soon as it is found."""
        self._said = (self._said + data)[: self._check.most]
        if self._expect.search(self._said):
            return True, f"{self._check} said what was expected"
        if len(self._said) < self._check.most:
            return None
        return False, f"{self._check} said something else: {readable(self._said)}"

    def ended(self) -> Outcome:
        """Too soon, or what it said would have been right."""
        if not self._said:
            return False, f"{self._check} closed the connection and said nothing"
        return False, f"{self._check} closed the connection after {readable(self._said)}"


class HttpAnswer:
    """Asks by HTTP/1.1 and reads one answer."""

    def __init__(self, check: Http) -> None:
        self._check = check
        self._unsent = request(check)
        self._said = b""
        self._header: bytes | None = None
        self._status, self._phrase = 0, b""
        self._body: _Body = _Body(check.most)
        self.awaited = f"an answer to {check.method} {check.path}"

    def unsent(self) -> bytes:
        """What is to be sent now."""
        unsent, self._unsent = self._unsent, b""
        return unsent

    def feed(self, data: bytes) -> Outcome | None:
        """An outcome as soon as there is enough of the answer."""
        if self._header is not None:
            return self._more(data)
        # What was searched before has no end in it, but perhaps the beginning of one.
        searched = max(0, len(self._said) - 3)
        self._said += data
        while (end := BLANK.search(self._said, searched)) is not None:
            searched = 0
            head = STATUS_LINE.match(self._said)
            if head is None:
                return False, f"{self._check} answered no HTTP: {readable(self._said)}"
            self._status, self._phrase = int(head[1]), head[2] or b""
            header, self._said = self._said[: end.end()], self._said[end.end() :]
            if self._status >= 200:
                return self._begin(header)
            # 1xx is no answer yet (RFC 9110 section 15.2).
        if len(self._said) > MOST_HEADER_BYTES:
            return False, f"{self._check} answered no HTTP: {readable(self._said)}"
        return None

    def ended(self) -> Outcome:
        """Where the header told no length, this is the end of the body."""
        if self._header is None:
            what = readable(self._said) or "nothing"
            return False, f"{self._check} closed the connection after {what}"
        if self._body.ends_by_closing:
            return self._judged()
        return False, f"{self._check} closed the connection in the middle of its answer"

    def _begin(self, header: bytes) -> Outcome | None:
        if self._status not in self._check.statuses:
            return False, f"{self._told()}, which is not right"
        if not self._check.needs_body:
            return True, self._told()
        self._header = header
        rest, self._said = self._said, b""
        self._body.begin(header)
        return self._more(rest)

    def _more(self, data: bytes) -> Outcome | None:
        if self._body.feed(data):
            return self._judged()
        if self._body.broken:
            return False, f"{self._told()}, but its body cannot be read"
        return None

    def _judged(self) -> Outcome:
        body, check = self._body.data, self._check
        if check.body is not None and not check.body.search(body):
            return False, f"{self._told()}, but its body is not as expected: {readable(body)}"
        if not check.digest:
            return True, f"{self._told()}, with the body that was expected"
        if self._body.cut:
            return False, f"{self._told()}, but its body is longer than {check.most} bytes"
        name = DIGESTS[len(check.digest)]
        found = hashlib.new(name, body, usedforsecurity=False).hexdigest()
        if found != check.digest.lower():
            return False, f"{self._told()}, but its body's {name} is {found}"
        return True, f"{self._told()}, with the body that was expected"

    def _told(self) -> str:
        return f"{self._check} answered {self._status} {readable(self._phrase)}".rstrip()


def request(check: Http) -> bytes:
    """A whole request."""
    host = check.host or (f"[{check.address}]" if check.address.version == 6 else check.address)
    lines = (
        f"{check.method} {check.path} HTTP/1.1",
        f"Host: {host}",
        "User-Agent: saltext-lvs",
        "Accept: */*",
        "Connection: close",
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("ascii")


class _Body:
    """An answer's body: as long as its header says, in chunks, or until the connection ends.

    Names and rules are those of RFC 9112 section 6 and 7.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._length: int | None = None
        self._chunked = False
        self._left = b""
        self._chunk = 0
        self._data = bytearray()
        self.cut = False
        self.broken = False

    @property
    def data(self) -> bytes:
        """What there is of it, as far as it is looked at."""
        return bytes(self._data)

    @property
    def ends_by_closing(self) -> bool:
        return self._length is None and not self._chunked

    def begin(self, header: bytes) -> None:
        fields = {name.lower(): value.strip() for name, value in FIELD.findall(header)}
        self._chunked = fields.get(b"transfer-encoding", b"").lower().endswith(b"chunked")
        length = fields.get(b"content-length", b"")
        if not self._chunked and LENGTH.fullmatch(length):
            self._length = int(length)

    def feed(self, data: bytes) -> bool:
        """Take in more of it; whether that was all, or as much as is looked at."""
        if self._chunked:
            return self._feed_chunks(data)
        self._add(data)
        whole = self._length is not None and len(self._data) >= self._length
        return self.cut or whole

    def _add(self, data: bytes) -> None:
        room = self._most - len(self._data)
        self.cut = self.cut or len(data) > room
        self._data += data[:room]

    def _feed_chunks(self, data: bytes) -> bool:
        # By a place in it, and not by cutting off what is done with: chunks may be a byte each.
        text, at = self._left + data, 0
        while not self.cut and not self.broken:
            if self._chunk:
                part = text[at : at + self._chunk]
                self._add(part)
                at += len(part)
                self._chunk -= len(part)
                if self._chunk:
                    break
            while text[at : at + 1] in LINE_ENDS:
                at += 1
            size = CHUNK.match(text, at)
            if size is None:
                self.broken = b"\n" in text[at:] or len(text) - at > MOST_HEADER_BYTES
                break
            self._chunk, at = int(size[1], 16), size.end()
            if not self._chunk:
                return True
        self._left = text[at:]
        return self.cut
