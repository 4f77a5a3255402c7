"""What servers say and how it is judged; the engine on this machine's own loopback."""

from __future__ import annotations

import contextlib
import datetime
import errno
import hashlib
import ipaddress
import os
import re
import resource
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path as File

import pytest
from hypothesis import given
from hypothesis import strategies as st
from saltext.lvs import checks, probe, programs, streams
from saltext.lvs.checks import Check, Exec, How, Http, Outcome, Path, Tcp, Tls, Verdict
from saltext.lvs.loop import Loop
from saltext.lvs.pacing import Pace
from saltext.lvs.replies import Expecting, HttpAnswer, readable, request

from tests.unit.certificates import certify

HERE = ipaddress.ip_address("127.0.0.1")
RS1 = ipaddress.ip_address("10.10.10.41")
VIP = ipaddress.ip_address("10.10.10.10")


def told(how: How, timeout: float = 5) -> tuple[bool | None, str]:
    (verdict,) = probe.ask([Check("it", how, timeout=timeout)], timeout + 5)
    return verdict.ok, verdict.reason


# --------------------------------------------------------------------------------------------------
# Values

REFUSED: dict[str, Callable[[], object]] = {
    "a path between families": lambda: Path(RS1, ipaddress.ip_address("fd00::10"), 80),
    "a request that goes on in another line": lambda: Http(RS1, 80, "/ HTTP/1.1\r\nX: y"),
    "a host with a line's end": lambda: Http(RS1, 80, host="a\nb"),
    "a page that is none": lambda: Http(RS1, 80, "index.html"),
    "a method that is none": lambda: Http(RS1, 80, method="get"),
    "a digest that is none": lambda: Http(RS1, 80, digest="abc"),
    "no program": lambda: Exec(()),
    "a program by its name alone": lambda: Exec(("true",)),
    "no time": lambda: Check("it", Tcp(RS1, 80), timeout=0),
    "a negative number of times": lambda: Check("it", Tcp(RS1, 80), retry=-1),
}


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_asked_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="."):
        make()


# --------------------------------------------------------------------------------------------------
# Judging answers

WHERE = "10.10.10.41:80"
PAGE = Http(RS1, 80)
BODY = Http(RS1, 80, body=re.compile(b"al+ right"))
DIGEST = Http(RS1, 80, digest=hashlib.sha256(b"all right").hexdigest())
SHORT = Http(RS1, 80, digest=hashlib.sha256(b"all right").hexdigest(), most=5)
OK_HEAD = b"HTTP/1.1 200 OK\r\n"
ALL = b"all right"
RIGHT = (True, f"{WHERE} answered 200 OK, with the body that was expected")
CHUNKS = b"3\r\nall\r\n6;name=value\r\n right\r\n0\r\n\r\n"
ANSWERS: dict[str, tuple[Http, bytes, Outcome]] = {
    "the right status": (PAGE, OK_HEAD + b"\r\n", (True, f"{WHERE} answered 200 OK")),
    "another that is right by itself": (
        PAGE,
        b"HTTP/1.0 204 \r\n\r\n",
        (True, f"{WHERE} answered 204"),
    ),
    "a status without words": (PAGE, b"HTTP/1.1 200\r\n\r\n", (True, f"{WHERE} answered 200")),
    "a wrong status": (
        PAGE,
        b"HTTP/1.1 503 Service Unavailable\r\n\r\nsorry",
        (False, f"{WHERE} answered 503 Service Unavailable, which is not right"),
    ),
    "a redirect, which is not followed": (
        PAGE,
        b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n",
        (False, f"{WHERE} answered 302 Found, which is not right"),
    ),
    "one that was asked for": (
        Http(RS1, 80, statuses=frozenset({404})),
        b"HTTP/1.1 404 No\r\n\r\n",
        (True, f"{WHERE} answered 404 No"),
    ),
    "something that comes before the answer": (
        PAGE,
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        (True, f"{WHERE} answered 200 OK"),
    ),
    "lines that end as on Unix": (BODY, b"HTTP/1.1 200 OK\nContent-Length: 9\n\n" + ALL, RIGHT),
    "a body of a known length": (BODY, OK_HEAD + b"content-length: 9\r\n\r\n" + ALL, RIGHT),
    "a body in chunks": (BODY, OK_HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS, RIGHT),
    "a body that ends with the connection": (BODY, OK_HEAD + b"\r\n" + ALL, RIGHT),
    "its digest": (DIGEST, OK_HEAD + b"Content-Length: 9\r\n\r\n" + ALL, RIGHT),
    "its digest in chunks": (
        DIGEST,
        OK_HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNKS,
        RIGHT,
    ),
    "another body": (
        BODY,
        OK_HEAD + b"Content-Length: 9\r\n\r\nall wrong",
        (False, f"{WHERE} answered 200 OK, but its body is not as expected: all wrong"),
    ),
    "another digest": (
        DIGEST,
        OK_HEAD + b"Content-Length: 5\r\n\r\nwrong",
        (
            False,
            f"{WHERE} answered 200 OK, but its body's sha256 is "
            "8810ad581e59f2bc3928b261707a71308f7e139eb04820366dc4d5c18d980225",
        ),
    ),
    "more than a digest is made of": (
        SHORT,
        OK_HEAD + b"Content-Length: 9\r\n\r\n" + ALL,
        (False, f"{WHERE} answered 200 OK, but its body is longer than 5 bytes"),
    ),
    "a body that is too short": (
        BODY,
        OK_HEAD + b"Content-Length: 90\r\n\r\n" + ALL,
        (False, f"{WHERE} closed the connection in the middle of its answer"),
    ),
    "chunks that break off": (
        BODY,
        OK_HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nal",
        (False, f"{WHERE} closed the connection in the middle of its answer"),
    ),
    "chunks that are none": (
        BODY,
        OK_HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
        (False, f"{WHERE} answered 200 OK, but its body cannot be read"),
    ),
    "no HTTP": (
        PAGE,
        b"SSH-2.0-OpenSSH_9.2\x1b[2J\r\n\r\n",
        (False, f"{WHERE} answered no HTTP: SSH-2.0-OpenSSH_9.2.[2J...."),
    ),
    "a header without an end": (
        PAGE,
        OK_HEAD + b"X: y\r\n" * 7000,
        (False, f"{WHERE} answered no HTTP: HTTP/1.1 200 OK..{'X: y..' * 7}X..."),
    ),
    "half a header": (
        PAGE,
        b"HTTP/1.1 20",
        (False, f"{WHERE} closed the connection after HTTP/1.1 20"),
    ),
    "nothing": (PAGE, b"", (False, f"{WHERE} closed the connection after nothing")),
}


def fed(how: Http, data: bytes, size: int) -> Outcome:
    talk = HttpAnswer(how)
    for at in range(0, len(data), size):
        outcome = talk.feed(data[at : at + size])
        if outcome is not None:
            return outcome
    return talk.ended()


@pytest.mark.parametrize("size", [1 << 20, 7, 1], ids=["at once", "in parts", "byte by byte"])
@pytest.mark.parametrize(("how", "data", "outcome"), ANSWERS.values(), ids=ANSWERS.keys())
def test_an_answer_is_judged(how: Http, data: bytes, outcome: Outcome, size: int) -> None:
    got = fed(how, data, size)
    if len(data) > 1000 or b"\x1b" in data or b"xyz" in data:
        assert got[0] is outcome[0] and got[1].startswith(outcome[1][:40])
    else:
        assert got == outcome


@given(data=st.binary(max_size=200), head=st.sampled_from([d for _, d, _ in ANSWERS.values()]))
def test_no_answer_whatever_makes_it_fail(data: bytes, head: bytes) -> None:
    for how in (PAGE, BODY, DIGEST, SHORT):
        ok, reason = fed(how, head[:300] + data, 13)
        assert ok in (True, False) and reason.isprintable() and len(reason) < 300


def test_no_more_of_an_answer_is_kept_than_is_looked_at() -> None:
    talk = HttpAnswer(Http(RS1, 80, body=re.compile(b"never"), most=1000))
    assert talk.feed(OK_HEAD + b"\r\n" + b"x" * 999) is None
    ok, reason = talk.feed(b"x" * 10_000_000) or (None, "")
    assert ok is False and reason.endswith("x...")


def test_a_request_is_as_the_standard_says() -> None:
    assert request(Http(RS1, 80, "/health?a=b", "www.example.com", "HEAD")) == (
        b"HEAD /health?a=b HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: saltext-lvs\r\n"
        b"Accept: */*\r\nConnection: close\r\n\r\n"
    )
    six = Http(ipaddress.ip_address("fd00::41"), 80)
    assert b"\r\nHost: [fd00::41]\r\n" in request(six)


def test_what_was_expected_is_found_as_it_comes_and_nothing_else() -> None:
    how = Tcp(RS1, 25, expect=re.compile(rb"^220 "), send=b"EHLO\r\n", most=20)
    talk = Expecting(how)
    assert (talk.unsent(), talk.unsent()) == (b"EHLO\r\n", b"")
    assert talk.feed(b"22") is None
    assert talk.feed(b"0 mail") == (True, "10.10.10.41:25 said what was expected")
    assert Expecting(how).feed(b"554 go away, stranger, now") == (
        False,
        "10.10.10.41:25 said something else: 554 go away, strange",
    )
    other = Expecting(how)
    assert other.ended() == (False, "10.10.10.41:25 closed the connection and said nothing")
    assert other.feed(b"554") is None
    assert other.ended() == (False, "10.10.10.41:25 closed the connection after 554")


@given(st.binary(max_size=200))
def test_what_a_stranger_says_is_made_readable(data: bytes) -> None:
    shown = readable(data)
    assert shown.isprintable() and len(shown) <= 63


# --------------------------------------------------------------------------------------------------
# Servers


@contextlib.contextmanager
def server(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Something that answers connections, one at a time; its port."""
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)

        def work() -> None:
            while not stop.is_set():
                with contextlib.suppress(OSError):
                    link, _ = listener.accept()
                    link.settimeout(5)
                    with link:
                        serve(link)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            stop.set()
            thread.join()


def says(data: bytes) -> Callable[[socket.socket], None]:
    def serve(link: socket.socket) -> None:
        link.recv(1000)
        link.sendall(data)

    return serve


def hangs(link: socket.socket) -> None:
    link.recv(1000)
    time.sleep(0.7)


def test_a_port_that_is_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert told(Tcp(HERE, port)) == (
        False,
        f"nothing listens on 127.0.0.1:{port}: the connection was refused",
    )


def test_a_server_that_takes_connections_and_no_more() -> None:
    with server(hangs) as port:
        where = f"127.0.0.1:{port}"
        assert told(Tcp(HERE, port)) == (True, f"{where} took the connection")
        assert told(Tcp(HERE, port, expect=re.compile(b"220")), 0.2) == (
            False,
            f"{where} took the connection, but what was expected did not come within 0.2 s",
        )
        assert told(Http(HERE, port), 0.2) == (
            False,
            f"{where} took the connection, but an answer to GET / did not come within 0.2 s",
        )
        assert told(Http(HERE, port, tls=Tls()), 0.2) == (
            False,
            f"{where} took the connection, but the TLS handshake did not come within 0.2 s",
        )


def test_a_server_that_closes_at_once() -> None:
    with server(lambda link: None) as port:
        where = f"127.0.0.1:{port}"
        expecting = told(Tcp(HERE, port, expect=re.compile(b"220")))
        assert expecting == (False, f"{where} closed the connection and said nothing")
        assert told(Http(HERE, port)) in (
            (False, f"{where} closed the connection after nothing"),
            (False, f"{where} reset the connection"),
        )


def test_a_server_that_says_what_it_should() -> None:
    with server(says(b"220 mail\r\n")) as port:
        check = Tcp(HERE, port, send=b"EHLO\r\n", expect=re.compile(rb"220 [a-z]+\r\n"))
        assert told(check) == (True, f"127.0.0.1:{port} said what was expected")


def test_a_server_that_talks_without_end() -> None:
    def serve(link: socket.socket) -> None:
        link.recv(1000)
        link.sendall(OK_HEAD + b"\r\n")
        while True:
            link.sendall(b"x" * 100_000)

    with server(serve) as port:
        ok, reason = told(Http(HERE, port, body=re.compile(b"never"), most=1_000_000))
    assert (ok, reason[-13:]) == (False, f"{'x' * 10}...")


# TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> File:
    """An authority, and certificates by it: a good one, and one that has expired."""
    folder = tmp_path_factory.mktemp("tls")
    now = datetime.datetime.now(datetime.timezone.utc)
    day = datetime.timedelta(days=1)
    certify(folder / "good", now - day, now + day)
    certify(folder / "old", now - 2 * day, now - day)
    return folder


@contextlib.contextmanager
def sealed(certificate: File, serve: Callable[[ssl.SSLSocket], None]) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))

    def serve_sealed(link: socket.socket) -> None:
        with contextlib.suppress(OSError), context.wrap_socket(link, server_side=True) as inner:
            serve(inner)

    with server(serve_sealed) as port:
        yield port


def answers(link: ssl.SSLSocket) -> None:
    link.recv(1000)
    link.sendall(OK_HEAD + b"Content-Length: 9\r\n\r\n" + ALL)


def test_a_certificate_must_be_right_unless_told_otherwise(certificates: File) -> None:
    good = certificates / "good.pem"
    with sealed(good, answers) as port:

        def page(tls: Tls, host: str = "www.example.com") -> tuple[bool | None, str]:
            return told(Http(HERE, port, host=host, body=re.compile(b"right"), tls=tls))

        where, trusted = f"127.0.0.1:{port}", str(good)
        right = (True, f"{where} answered 200 OK, with the body that was expected")
        assert page(Tls(authorities=trusted)) == right
        assert page(Tls(authorities=trusted), host="") == right
        assert page(Tls(authorities=trusted), host="www.example.com:8443") == right
        assert page(Tls(name="www.example.com", authorities=trusted), host="other") == right
        assert page(Tls(verify=False)) == right
        wrong = f"{where}: its certificate is not right: "
        assert page(Tls()) == (False, f"{wrong}self-signed certificate")
        assert page(Tls(authorities=trusted), host="other") == (
            False,
            f"{wrong}Hostname mismatch, certificate is not valid for 'other'.",
        )


def test_a_certificate_that_has_expired_is_told(certificates: File) -> None:
    old = certificates / "old.pem"
    with sealed(old, answers) as port:
        assert told(Http(HERE, port, tls=Tls(authorities=str(old)))) == (
            False,
            f"127.0.0.1:{port}: its certificate is not right: certificate has expired",
        )


def test_authorities_that_are_not_there_are_this_machines_fault(certificates: File) -> None:
    with sealed(certificates / "good.pem", answers) as port:
        ok, reason = told(Http(HERE, port, tls=Tls(authorities="/nowhere.pem")))
    assert ok is None and reason.startswith(f"127.0.0.1:{port} could not be asked: ")


def test_what_is_no_tls_is_told() -> None:
    with server(says(b"220 mail\r\n")) as port:
        ok, reason = told(Http(HERE, port, tls=Tls(verify=False)))
    assert ok is False and reason.startswith(f"127.0.0.1:{port}: TLS failed: ")


# Programs


def script(tmp_path: File, text: str) -> Exec:
    path = tmp_path / "check"
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="ascii")
    path.chmod(0o755)
    return Exec((str(path), "$HOME; echo no"))


RUNS: dict[str, tuple[str, bool, str]] = {
    "it is content": ("exit 0", True, "ended with exit status 0"),
    "it is not": ("echo lost; echo more; exit 3", False, "ended with exit status 3: lost"),
    "it tells on the other channel": (
        "echo lost >&2; exit 1",
        False,
        "ended with exit status 1: lost",
    ),
    "it is killed": ("kill -9 $$", False, "was ended by signal 9"),
    "it sees its arguments as they are": (
        'echo "$1"',
        True,
        "ended with exit status 0: $HOME; echo no",
    ),
    "it has no other variables": ("echo $HOME$USER-", True, "ended with exit status 0: -"),
    "it reads nothing": ("read x || echo end", True, "ended with exit status 0: end"),
    "it says more than is kept": (
        "head -c 3000000 /dev/zero | tr '\\0' x",
        True,
        f"ended with exit status 0: {'x' * 120}...",
    ),
}


@pytest.mark.parametrize(("text", "ok", "reason"), RUNS.values(), ids=RUNS.keys())
def test_a_program_says_by_its_exit_status(
    tmp_path: File, text: str, ok: bool, reason: str
) -> None:
    how = script(tmp_path, text)
    assert told(how) == (ok, f"{how} {reason}")


def test_a_program_that_is_too_slow_is_killed_with_all_that_it_has_started(tmp_path: File) -> None:
    how = script(tmp_path, f"sleep 300 & echo $! >{tmp_path}/pid; wait")
    began = time.monotonic()
    assert told(how, 0.5) == (False, f"{how} did not end within 0.5 s, and was killed")
    assert time.monotonic() - began < 3
    assert ends(int((tmp_path / "pid").read_text(encoding="ascii")))


def test_what_a_program_leaves_behind_is_killed_too(tmp_path: File) -> None:
    how = script(tmp_path, f"sleep 300 & echo $! >{tmp_path}/pid")
    assert told(how) == (True, f"{how} ended with exit status 0")
    assert ends(int((tmp_path / "pid").read_text(encoding="ascii")))


def ends(pid: int) -> bool:
    for _ in range(100):
        with contextlib.suppress(FileNotFoundError):
            state = File(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2]
            if state.split()[0] != "Z":
                time.sleep(0.02)
                continue
        return True
    return False


def test_a_program_that_is_not_there_is_this_machines_fault(tmp_path: File) -> None:
    missing = Exec((f"{tmp_path}/none",))
    assert told(missing) == (None, f"{missing} could not be run: there is no such program")
    flat = script(tmp_path, "exit 0")
    File(flat.command[0]).chmod(0o644)
    assert told(flat) == (None, f"{flat} could not be run: it is not executable")


NOT_PROGRAMS: dict[str, Callable[[File], None]] = {
    "an empty file": lambda path: path.touch(0o755),
    "no interpreter is named": lambda path: (path.write_text("exit 0"), path.chmod(0o755))[1],
    "a link to itself": lambda path: path.symlink_to(path),
}


@pytest.mark.parametrize("make", NOT_PROGRAMS.values(), ids=NOT_PROGRAMS)
def test_what_cannot_be_run_says_nothing_of_the_real_server(
    make: Callable[[File], None], tmp_path: File
) -> None:
    make(tmp_path / "check")
    ok, reason = told(Exec((f"{tmp_path}/check",)))
    assert (ok, "could not be run: " in reason) == (None, True)


def test_a_program_is_awaited_without_the_kernels_help_too(
    tmp_path: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(pid: int) -> int:
        raise OSError(errno.ENOSYS, "no such system call")

    monkeypatch.setattr(programs.os, "pidfd_open", missing)
    how = script(tmp_path, "sleep 0.1; exit 4")
    assert told(how) == (False, f"{how} ended with exit status 4")


# --------------------------------------------------------------------------------------------------
# The engine


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def seconds_of(engine: probe.Engine, seconds: float) -> list[Verdict]:
    until = time.monotonic() + seconds
    found: list[Verdict] = []
    while (left := until - time.monotonic()) > 0:
        found += engine.step(left)
    return found


def test_checks_come_again_and_again_and_leave_nothing_open() -> None:
    before = descriptors()
    with server(hangs) as port:
        engine = probe.Engine(seed=1)
        pace = Pace(0.2, jitter=0)
        engine.set(Check(number, Tcp(HERE, port), pace) for number in range(5))
        found = seconds_of(engine, 1.1)
        engine.close()
    assert all(verdict.ok for verdict in found)
    counts = [sum(v.key == key for v in found) for key in range(5)]
    assert all(count in (5, 6) for count in counts), counts
    assert descriptors() == before


def test_a_changed_set_changes_what_differs_and_nothing_else() -> None:
    with server(hangs) as port:
        engine = probe.Engine(seed=1)
        slow = Check("slow", Tcp(HERE, port, expect=re.compile(b"x")), Pace(60, warmup=0), 0.6)
        gone = Check("gone", Tcp(HERE, port, expect=re.compile(b"x")), Pace(60, warmup=0), 0.6)
        engine.set([slow, gone])
        assert seconds_of(engine, 0.3) == [] and engine.busy == 2
        engine.set([slow, Check("new", Tcp(HERE, port), Pace(60, warmup=0))])
        assert engine.busy == 1
        found = seconds_of(engine, 0.6)
        engine.close()
    assert [(verdict.key, verdict.ok) for verdict in found] == [("new", True), ("slow", False)]
    assert 500 < found[1].milliseconds < 800


def test_what_a_changed_check_was_just_asking_is_forgotten() -> None:
    with server(hangs) as port:
        engine = probe.Engine(seed=1)
        engine.set([Check("web", Tcp(HERE, port, expect=re.compile(b"x")), Pace(0.4, 0, 0), 0.3)])
        assert seconds_of(engine, 0.1) == [] and engine.busy == 1
        engine.set([Check("web", Tcp(HERE, port), Pace(0.4, 0, 0), 0.3)])
        assert engine.busy == 0
        found = seconds_of(engine, 0.9)
        engine.close()
    assert {verdict.ok for verdict in found} == {True}


def test_a_bad_answer_is_asked_for_again_soon_and_only_so_often() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    engine = probe.Engine(seed=1)
    engine.set([Check("web", Tcp(HERE, port), Pace(30, 0, 0), retry=2, delay_before_retry=0.1)])
    found = seconds_of(engine, 0.8)
    engine.close()
    assert [verdict.ok for verdict in found] == [False] * 3
    assert [round(later.at - found[0].at, 1) for later in found] == [0.0, 0.1, 0.2]


def test_slow_checks_do_not_pile_up() -> None:
    with server(hangs) as port:
        engine = probe.Engine(seed=1)
        how = Tcp(HERE, port, expect=re.compile(b"x"))
        engine.set([Check("slow", how, Pace(0.05, jitter=0), timeout=0.3)])
        busy = set()
        until = time.monotonic() + 1
        while time.monotonic() < until:
            engine.step(0.02)
            busy.add(engine.busy)
        engine.close()
    assert busy == {0, 1}


def test_who_finds_no_descriptor_free_waits_for_its_turn() -> None:
    with server(hangs) as port:
        engine = probe.Engine(seed=1, descriptors=3)
        how = Tcp(HERE, port, expect=re.compile(b"x"))
        engine.set(Check(n, how, Pace(60, warmup=0), timeout=0.2) for n in range(9))
        most, found = 0, []
        while len(found) < 9:
            found += engine.step(0.05)
            most = max(most, engine.busy)
        engine.close()
    assert most == 3
    assert sorted(verdict.key for verdict in found) == list(range(9))
    assert all(180 < verdict.milliseconds < 500 for verdict in found), "waiting is not asking"


def test_the_processs_limit_is_kept_and_what_others_take_is_waited_for() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with server(hangs) as port, contextlib.ExitStack() as taken:
        checks = [
            Check(n, Tcp(HERE, port, expect=re.compile(b"x")), Pace(60, warmup=0), timeout=0.2)
            for n in range(40)
        ]
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors() + 158, limits[1]))
        taken.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        engine = probe.Engine(seed=1)
        # Somebody else takes all but ten.
        for _ in range(145):
            taken.callback(os.close, os.open("/dev/null", os.O_RDONLY))
        engine.set(checks)
        found: list[Verdict] = []
        most = 0
        while len(found) < 40:
            found += engine.step(0.05)
            most = max(most, engine.busy)
        engine.close()
    assert {verdict.ok for verdict in found} == {False}
    assert 5 <= most <= 15


def test_without_any_descriptor_at_all_it_says_so() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    engine = probe.Engine(seed=1)
    engine.set([Check("web", Tcp(HERE, 9), Pace(60, warmup=0))])
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        (verdict,) = engine.step(0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        engine.close()
    assert (verdict.ok, verdict.reason) == (
        None,
        "127.0.0.1:9 could not be asked: Too many open files (EMFILE)",
    )


def test_asking_once_ends_in_time_whatever_happens() -> None:
    with server(hangs) as port:
        how = Tcp(HERE, port, expect=re.compile(b"x"))
        began = time.monotonic()
        found = probe.ask([Check(1, how, timeout=30), Check(2, Tcp(HERE, port))], within=0.4)
        took = time.monotonic() - began
    assert [(v.key, v.ok) for v in found] == [(1, None), (2, True)]
    assert found[0].reason == "not asked to the end within 0.4 s"
    assert took < 1


def test_programs_that_are_slow_keep_no_one_else_waiting() -> None:
    with server(hangs) as port:
        engine = probe.Engine(seed=1)
        slow = [Check(n, Exec(("/bin/sleep", "5")), Pace(60, warmup=0), 0.5) for n in range(40)]
        engine.set([*slow, Check("web", Tcp(HERE, port), Pace(60, warmup=0))])
        first = engine.step(0.2) or engine.step(0.2)
        waiting = engine.waiting
        found = seconds_of(engine, 1.6)
        engine.close()
    assert [(verdict.key, verdict.ok) for verdict in first] == [("web", True)]
    assert waiting == 40 - probe.MOST_PROGRAMS
    assert sorted(verdict.key for verdict in found) == list(range(40))


def test_nobody_is_asked_twice_at_a_time() -> None:
    flights = probe.Flights(Loop())
    check = Check("web", Exec(("/bin/sleep", "5")))
    flights.begin(check)
    with pytest.raises(ValueError, match="is being asked already"):
        flights.begin(check)
    flights.close()


def test_a_forked_job_that_keeps_descriptors_confuses_nobody() -> None:
    """A job that is forked in the middle has all sockets; the kernel must not tell of them."""
    with server(hangs) as port:
        engine = probe.Engine(seed=1)
        how = Tcp(HERE, port, expect=re.compile(b"x"))
        engine.set(Check(n, how, Pace(60, warmup=0), timeout=0.2) for n in range(20))
        engine.step(0)
        pid = os.fork()
        if pid == 0:
            time.sleep(30)
            os._exit(0)
        try:
            seconds_of(engine, 0.5)
            with socket.create_server(("127.0.0.1", 0)) as listener:
                closed = listener.getsockname()[1]
            shut = Tcp(HERE, closed)
            engine.set(Check(f"new {n}", shut, Pace(60, warmup=0)) for n in range(20))
            found = seconds_of(engine, 0.5)
        finally:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            engine.close()
    assert len(found) == 20 and {verdict.ok for verdict in found} == {False}


def test_public_names_are_told_about() -> None:
    for module in (probe, checks, programs):
        names = [name for name in vars(module) if name[0].isupper() and not name.isupper()]
        own = [getattr(module, name) for name in names]
        assert all(one.__doc__ for one in own if getattr(one, "__module__", "") == module.__name__)


# --------------------------------------------------------------------------------------------------
# What is said by whom


@pytest.mark.parametrize(
    ("number", "ok", "reason"),
    [
        (errno.ENETUNREACH, False, "a router says that no network leads to rs1:80"),
        (errno.EACCES, False, "a firewall refuses what is sent to rs1:80"),
        (errno.ENOBUFS, None, "rs1:80 could not be asked: No buffer space available (ENOBUFS)"),
        (errno.ECONNREFUSED, False, "nothing listens on rs1:80: the connection was refused"),
    ],
)
def test_what_the_network_answers_is_no_fault_of_this_machine(
    number: int, ok: bool | None, reason: str
) -> None:
    assert streams.heard(number, "rs1:80") == (ok, reason)


def test_no_route_from_here_is_a_fault_of_this_machine() -> None:
    ok, _ = streams.outcome_of(errno.ENETUNREACH, "rs1:80")
    assert ok is None


def test_a_name_that_tls_cannot_ask_for_is_told(certificates: File) -> None:
    def serve(link: socket.socket) -> None:
        link.recv(1)

    with server(serve) as port:
        ok, reason = told(Http(HERE, port, tls=Tls(name="a..b")))
    assert (ok, "could not be asked: " in reason) == (None, True)


def test_who_stood_still_takes_nobody_for_dead() -> None:
    """The watching thread may have to wait for a large table that somebody applies."""

    def serve(link: socket.socket) -> None:
        link.recv(1000)
        link.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with server(serve) as port:
        loop = Loop()
        flights = probe.Flights(loop)
        try:
            flights.begin(Check("it", Http(HERE, port), timeout=0.3))
            time.sleep(0.6)
            found: list[Verdict] = []
            until = time.monotonic() + 5
            while not found and time.monotonic() < until:
                found = flights.step(0.1)
        finally:
            flights.close()
            loop.close()
    assert [verdict.ok for verdict in found] == [True]
