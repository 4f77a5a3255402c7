"""Documents posted to real servers on loopback, good and bad ones."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from saltext.lvs import webhooks
from saltext.lvs.deadlines import Deadline
from saltext.lvs.errors import InvalidConfig
from saltext.lvs.webhooks import Reply, Webhook

from tests.unit.certificates import certify

BODY = b'{"kind": "opened"}'
SECONDS = 0.5


@contextlib.contextmanager
def serving(
    answer: Callable[[socket.socket], None], context: ssl.SSLContext | None = None
) -> Iterator[tuple[int, list[bytes]]]:
    """A server that reads one request and then does as it is told."""
    asked: list[bytes] = []

    def serve(link: socket.socket) -> None:
        with contextlib.suppress(OSError), link:
            inner = context.wrap_socket(link, server_side=True) if context else link
            text = b""
            while not text.endswith(BODY):
                got = inner.recv(65536)
                if not got:
                    return
                text += got
            asked.append(text)
            answer(inner)
            inner.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                link, _ = listener.accept()
                threading.Thread(target=serve, args=(link,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1], asked
        listener.shutdown(socket.SHUT_RDWR)


def says(text: str) -> Callable[[socket.socket], None]:
    return lambda link: link.sendall(text.encode() + b"\r\nContent-Length: 0\r\n\r\n")


def drips(link: socket.socket) -> None:
    link.sendall(b"HTTP/1.1 200 OK\r\n")
    for number in range(100):
        link.sendall(b"X-%d: y\r\n" % number)
        time.sleep(0.1)


def drips_after(head: str) -> Callable[[socket.socket], None]:
    def answer(link: socket.socket) -> None:
        link.sendall(head.encode() + b"\r\n\r\n")
        for _ in range(100):
            link.sendall(b"x")
            time.sleep(0.1)

    return answer


def webhook(port: int, **settings: Any) -> Webhook:
    given = {"url": f"http://127.0.0.1:{port}/hook/TOKEN?key=SECRET", "timeout_seconds": SECONDS}
    return Webhook("chat", **{**given, **settings})


def test_the_document_arrives_whole_with_the_headers() -> None:
    with serving(says("HTTP/1.1 204 No Content")) as (port, asked):
        reply = webhooks.post(webhook(port, headers={"Authorization": "Bearer x"}), BODY)
    assert reply == Reply(True)
    head, _, body = asked[0].partition(b"\r\n\r\n")
    assert body == BODY
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /hook/TOKEN?key=SECRET HTTP/1.1"
    assert {"Authorization: Bearer x", "Content-Type: application/json"} <= set(lines)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param(
            says("HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:1/"),
            Reply(False, False, "127.0.0.1: 301 Moved Permanently; redirections are not followed"),
            id="a redirection is not followed",
        ),
        pytest.param(
            says("HTTP/1.1 404 no /hook/TOKEN?key=SECRET"),
            Reply(False, False, "127.0.0.1: 404 Not Found"),
            id="a wrong address stays one, and is not repeated",
        ),
        pytest.param(
            says("HTTP/1.1 429 Slow down"),
            Reply(False, True, "127.0.0.1: 429 Too Many Requests"),
            id="too many is for later",
        ),
        pytest.param(
            says("HTTP/1.1 503 \x1b[31mBroken"),
            Reply(False, True, "127.0.0.1: 503 Service Unavailable"),
            id="broken is for later, in our words",
        ),
        pytest.param(
            lambda link: link.sendall(b"hello\r\n\r\n"),
            Reply(False, True, "127.0.0.1: its answer is not HTTP"),
            id="no HTTP",
        ),
        pytest.param(
            lambda link: None,
            Reply(False, True, "127.0.0.1: it hung up"),
            id="it hangs up",
        ),
        pytest.param(
            lambda link: time.sleep(2 * SECONDS),
            Reply(False, True, "127.0.0.1: no answer in time"),
            id="it stalls",
        ),
        pytest.param(
            says("HTTP/1.1 799 what"), Reply(False, False, "127.0.0.1: 799"), id="a code of its own"
        ),
        pytest.param(
            says("HTTP/1.1 408 x"),
            Reply(False, True, "127.0.0.1: 408 Request Timeout"),
            id="too slow is for later",
        ),
        pytest.param(
            says("HTTP/1.1 425 x"),
            Reply(False, True, "127.0.0.1: 425 Too Early"),
            id="too early is for later",
        ),
        pytest.param(
            drips_after("HTTP/1.1 500 x\r\nConnection: close"),
            Reply(False, True, "127.0.0.1: 500 Internal Server Error"),
            id="its words drip, and are not waited for",
        ),
        pytest.param(
            lambda link: link.sendall(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
            ),
            Reply(True),
            id="what it says after it took it may be garbled",
        ),
        pytest.param(
            lambda link: link.sendall(b"HTTP/1.1 100 Continue\r\n\r\n"),
            Reply(False, True, "127.0.0.1: it hung up"),
            id="it goes no further than to say go on",
        ),
        pytest.param(drips, Reply(True), id="it drips, after it has said that it took it"),
    ],
)
def test_what_becomes_of_it_otherwise(
    answer: Callable[[socket.socket], None], expected: Reply
) -> None:
    with serving(answer) as (port, _):
        began = time.monotonic()
        assert webhooks.post(webhook(port), BODY) == expected
        assert time.monotonic() - began < SECONDS * 3


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert webhooks.post(webhook(port), BODY) == Reply(False, True, "127.0.0.1: Connection refused")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    now, day = datetime.datetime.now(datetime.timezone.utc), datetime.timedelta(days=1)
    certify(folder / "good", now - day, now + day, "localhost")
    certify(folder / "other", now - day, now + day, "www.example.com")
    certify(folder / "old", now - 2 * day, now - day, "localhost")
    return folder


def context_of(certificates: Path, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / f"{name}.pem", certificates / f"{name}.key")
    return context


@pytest.mark.parametrize(
    ("shown", "trusted", "words"),
    [
        pytest.param("good", "good", "", id="a right one"),
        pytest.param("good", "", "self-signed certificate", id="of nobody"),
        pytest.param("old", "old", "certificate has expired", id="expired"),
        pytest.param("other", "other", "Hostname mismatch, certificate is n", id="of another name"),
    ],
)
def test_a_certificate_must_be_right(
    shown: str, trusted: str, words: str, certificates: Path
) -> None:
    context = context_of(certificates, shown)
    with serving(says("HTTP/1.1 200 OK"), context) as (port, asked):
        ca_file = str(certificates / f"{trusted}.pem") if trusted else ""
        url = f"https://localhost:{port}/SECRET"
        reply = webhooks.post(webhook(port, url=url, ca_file=ca_file, timeout_seconds=3), BODY)
    assert (reply.taken, reply.again, len(asked)) == (
        (False, True, 0) if words else (True, False, 1)
    )
    assert reply.words.startswith(f"localhost: its certificate is not right: {words}" * bool(words))
    assert "SECRET" not in reply.words


def test_a_slow_handshake_does_not_buy_more_time(certificates: Path) -> None:
    class Slow(ssl.SSLContext):
        def wrap_socket(self, *args: Any, **settings: Any) -> ssl.SSLSocket:
            time.sleep(SECONDS * 0.8)
            return super().wrap_socket(*args, **settings)

    context = Slow(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "good.pem", certificates / "good.key")
    with serving(drips_after("HTTP/1.1 200"), context) as (port, _):
        url, ca_file = f"https://localhost:{port}/", str(certificates / "good.pem")
        began = time.monotonic()
        webhooks.post(webhook(port, url=url, ca_file=ca_file), BODY)
        assert time.monotonic() - began < SECONDS * 2


def test_a_file_of_authorities_that_is_missing_is_named() -> None:
    reply = webhooks.post(
        webhook(1, url="https://localhost:1/SECRET", ca_file="/nowhere/own.pem"), BODY
    )
    assert reply == Reply(False, True, "localhost: ca_file: No such file or directory")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        pytest.param("http://[::1]/x", ("::1", 80), id="IPv6"),
        pytest.param("https://[fd00::1]/x", ("fd00::1", 443), id="IPv6 and TLS"),
        pytest.param("https://chat.example.com", ("chat.example.com", 443), id="a name"),
        pytest.param("https://chat.example.com:8443/x", ("chat.example.com", 8443), id="a port"),
    ],
)
def test_which_port_is_meant(
    url: str, expected: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def connect(_: Deadline, host: str, port: int, most_seconds: float) -> socket.socket:
        asked.append((host, port))
        raise ConnectionRefusedError

    monkeypatch.setattr(Deadline, "connect", connect)
    assert webhooks.post(webhook(1, url=url), BODY).again
    assert asked == [expected]


def test_what_the_document_is_has_one_header() -> None:
    with serving(says("HTTP/1.1 200 OK")) as (port, asked):
        assert webhooks.post(webhook(port, headers={"content-type": "text/plain"}), BODY).taken
    head = asked[0].lower().partition(b"\r\n\r\n")[0]
    assert [line for line in head.split(b"\r\n") if line.startswith(b"content-type")] == [
        b"content-type: application/json"
    ]


def test_what_the_master_says_is_read_and_not_shown() -> None:
    found = webhooks.webhook_of(
        "chat",
        {"url": "https://chat.example.com/SECRET", "headers": {"X-Key": "SECRET"}, "timeout": 3},
    )
    assert found == Webhook("chat", "https://chat.example.com/SECRET", {"X-Key": "SECRET"}, "", 3)
    assert "SECRET" not in repr(found)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        pytest.param({}, "url is \\*+; it should be an https", id="no URL"),
        pytest.param({"url": "http://chat.example.com/SECRET"}, "url is \\*", id="plain text"),
        pytest.param({"url": "https://a:SECRET@b/"}, "url is \\*", id="a password in it"),
        pytest.param({"url": "https://b:99999/SECRET"}, "url is \\*", id="a port that is none"),
        pytest.param({"url": "https://b/\r\nX: SECRET"}, "url is \\*", id="another line"),
        pytest.param({"url": "https://a..b/SECRET"}, "url is \\*", id="a host that is none"),
        pytest.param(
            {"url": "https://b", "headers": {"Content-Length": "5"}},
            "headers is \\*",
            id="where it ends is not to be said",
        ),
        pytest.param({"url": "file:///SECRET"}, "url is \\*", id="a file"),
        pytest.param(
            {"url": "https://b", "headers": {"X": "SECRET\r\n"}}, "headers is \\*", id="a header"
        ),
        pytest.param(
            {"url": "https://b", "headers": ["SECRET"]}, "headers is \\*", id="no headers"
        ),
        pytest.param(
            {"url": "https://b", "header": "SECRET"}, "header is \\*+; it should be left", id="typo"
        ),
        pytest.param({"url": "https://b", "timeout": 0}, "timeout is 0; it should", id="no time"),
    ],
)
def test_what_is_wrong_is_told_without_secrets(value: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidConfig, match=f"^lvs_alerts:webhooks:chat:{message}") as raised:
        webhooks.webhook_of("chat", value)
    assert "SECRET" not in str(raised.value)
