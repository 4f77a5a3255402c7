"""Every kind of check, from the pillar's words to a real server that is ill in a way of its own.

A director, a real server with services that go wrong, and a machine that attacks it.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import ipaddress
import itertools
import re
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path as File
from typing import Any

import pytest
import yaml
from saltext.lvs import checksets, fresh, model, probe
from saltext.lvs.frames import Aim

from tests.lab.lab import Lab, LabHost, boot
from tests.lab.waiting import until
from tests.unit.test_probe import certify

HOSTS = {"lb1": ["10.10.10.11/24"], "rs1": ["10.10.10.41/24"], "client": ["10.10.10.100/24"]}
VIP, RS1 = "10.10.10.10", "10.10.10.41"
MAC1 = "02:00:0a:0a:0a:29"
SYN_RECV = "03"
NOBODY = "02:00:0a:0a:0a:ff"
STRANGERS = [f"10.10.10.{last}" for last in range(200, 250)]
Told = list[tuple[str, bool | None, str]]
Serve = Callable[[socket.socket], None]


# --------------------------------------------------------------------------------------------------
# The lab


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(HOSTS) as machines:
        yield machines


@pytest.fixture
def cluster(lab: Lab) -> Lab:
    """The machines as they should be, whatever the test before did to them."""
    for host in lab:
        host.power_cut()
    boot(*lab)
    ip(lab["lb1"], f"address add {VIP}/32 dev eth0")
    sysctl(lab["rs1"], "net.ipv4.conf.all.arp_ignore=1", "net.ipv4.conf.all.arp_announce=2")
    ip(
        lab["rs1"],
        "link add dummy0 type dummy",
        "link set dummy0 up arp off",
        f"address add {VIP}/32 dev dummy0",
    )
    return lab


def ip(host: LabHost, *commands: str) -> None:
    host.run(["ip", "-batch", "-"], input="\n".join(commands), check=True)


def sysctl(host: LabHost, *settings: str) -> None:
    host.run(["sysctl", "-q", "-w", *settings], check=True)


@contextlib.contextmanager
def serving(host: LabHost, port: int, serve: Serve, backlog: int = 128) -> Iterator[None]:
    """A service on each of a host's addresses, for one client at a time."""
    stop = threading.Event()
    address = ("0.0.0.0", port)
    listener = host.in_network(lambda: socket.create_server(address, backlog=backlog))

    def work() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError):
                link, _ = listener.accept()
                link.settimeout(5)
                with link:
                    serve(link)

    listener.settimeout(0.05)
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        listener.close()


def pillar(check: dict[str, Any], port: int = 80) -> model.Cluster:
    return model.from_pillar(
        {
            "lvs": {
                "directors": ["lb1"],
                "real_servers": {"rs1": RS1},
                "virtual_servers": {
                    "web": {"address": VIP, "port": port, "check": check, "real_servers": ["rs1"]}
                },
            }
        }
    )


def told(cluster: Lab, words: str, port: int = 80) -> Told:
    """What the director says, asked as the pillar's ``check`` says."""
    lb1 = cluster["lb1"]
    asked = pillar(yaml.safe_load(words) or {}, port)
    found = lb1.in_network(lambda: fresh.ask(asked, "web"))
    return [(check["check"], check["ok"], check["reason"]) for check in found["rs1"]["checks"]]


# --------------------------------------------------------------------------------------------------
# Services


def closes(link: socket.socket) -> None:
    """Takes the connection and gives it back."""


def says(data: bytes, after: float = 0) -> Serve:
    def serve(link: socket.socket) -> None:
        time.sleep(after)
        with contextlib.suppress(OSError):
            link.sendall(data)
            link.recv(1000)

    return serve


def obeys(link: socket.socket) -> None:
    """Says back what it is told."""
    said = link.recv(1000)
    link.sendall(b"+PONG\r\n" if said == b"PING\r\n" else b"-ERR unknown command\r\n")


PAGE = b"all is well\n"
PAGES = {
    b"/health": (b"200 OK", PAGE),
    b"/broken": (b"503 Service Unavailable", b"no database"),
    b"/moved": (b"302 Found", b""),
}


def pages(link: socket.socket) -> None:
    """A web server of one site; of another one it knows nothing."""
    request = link.recv(4000)
    if not request:
        return
    path = request.split(b" ")[1]
    known = b"\r\nHost: www.example.com\r\n" in request
    status, body = PAGES.get(path, (b"404 Not Found", b"")) if known else (b"421 Whose", b"")
    length = b"Content-Length: %d\r\n" % len(body)
    link.sendall(b"HTTP/1.1 " + status + b"\r\n" + length + b"\r\n" + body)


def sealed(folder: File, serve: Serve) -> Serve:
    """By TLS, with a certificate for each name that is asked for."""
    by_name = {name: _context(folder / name) for name in ("good", "old")}

    def choose(inner: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: object) -> None:
        inner.context = by_name["good" if name == "www.example.com" else "old"]

    by_name["good"].set_servername_callback(choose)

    def serve_sealed(link: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            by_name["good"].wrap_socket(link, server_side=True) as inner,
        ):
            serve(inner)

    return serve_sealed


def _context(name: File) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(name.with_suffix(".pem"), name.with_suffix(".key"))
    return context


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> File:
    """One that is good and one that has expired, each its own authority."""
    folder = tmp_path_factory.mktemp("tls")
    now = datetime.datetime.now(datetime.timezone.utc)
    day = datetime.timedelta(days=1)
    certify(folder / "good", now - day, now + day)
    certify(folder / "old", now - 2 * day, now - day, "old.example.com")
    return folder


# --------------------------------------------------------------------------------------------------
# tcp

WEB = f"{RS1}:80"
SERVES = ("path", True, f"{RS1} serves {VIP}:80")

TCP: dict[str, tuple[Serve, str, Told]] = {
    "one that takes connections": (
        says(b""),
        "{connect_timeout: 5}",
        [SERVES, ("tcp", True, f"{WEB} took the connection")],
    ),
    "one that takes them and gives them back, which a connection alone does not see": (
        closes,
        "{connect_timeout: 5}",
        [SERVES, ("tcp", True, f"{WEB} took the connection")],
    ),
    "one that gives them back, where an answer is expected": (
        closes,
        "{connect_timeout: 5, expect: ^220}",
        [SERVES, ("tcp", False, f"{WEB} closed the connection and said nothing")],
    ),
    "one that says what it should": (
        says(b"220 mx.example.com ready\r\n"),
        "{connect_timeout: 5, expect: '^220 [a-z.]+ ready'}",
        [SERVES, ("tcp", True, f"{WEB} said what was expected")],
    ),
    "one that says something else": (
        says(b"554 go away\r\n" * 1000),
        "{types: [tcp], connect_timeout: 5, expect: ^220}",
        [
            (
                "tcp",
                False,
                f"{WEB} said something else: {'554 go away..' * 4}554 go a...",
            )
        ],
    ),
    "one that says it too late": (
        says(b"220 ready\r\n", after=1.5),
        "{types: [tcp], connect_timeout: 0.5, expect: ^220}",
        [
            (
                "tcp",
                False,
                f"{WEB} took the connection, but what was expected did not come within 0.5 s",
            )
        ],
    ),
    "one that answers what it is asked": (
        obeys,
        '{types: [tcp], connect_timeout: 5, send: "PING\\r\\n", expect: "^[+]PONG"}',
        [("tcp", True, f"{WEB} said what was expected")],
    ),
    "one that answers that it does not understand": (
        obeys,
        '{types: [tcp], connect_timeout: 5, send: "HELLO\\r\\n", expect: "^[+]PONG"}',
        [("tcp", False, f"{WEB} closed the connection after -ERR unknown command..")],
    ),
}


def test_a_port_is_asked_as_the_pillar_says(cluster: Lab) -> None:
    found = {}
    for title, (serve, words, _) in TCP.items():
        with serving(cluster["rs1"], 80, serve):
            found[title] = told(cluster, words)
    assert found == {title: expected for title, (_, _, expected) in TCP.items()}


def test_a_port_that_nobody_serves(cluster: Lab) -> None:
    assert told(cluster, "{connect_timeout: 5}") == [
        ("path", False, f"nothing listens on {VIP}:80 at {RS1}: it was refused (RST)"),
        ("tcp", False, f"nothing listens on {WEB}: the connection was refused"),
    ]


# --------------------------------------------------------------------------------------------------
# http and https

HTTP: dict[str, tuple[str, tuple[bool | None, str]]] = {
    "the right page": (
        "{path: /health, host: www.example.com, status: [200], body: ^all is well$}",
        (True, f"{WEB} answered 200 OK, with the body that was expected"),
    ),
    "the right digest": (
        f"{{path: /health, host: www.example.com, digest: {hashlib.sha256(PAGE).hexdigest()}}}",
        (True, f"{WEB} answered 200 OK, with the body that was expected"),
    ),
    "keepalived's digest, of another page": (
        f"{{path: /health, host: www.example.com, digest: {hashlib.md5(b'').hexdigest()}}}",
        (
            False,
            f"{WEB} answered 200 OK, but its body's md5 is {hashlib.md5(PAGE).hexdigest()}",
        ),
    ),
    "the wrong page": (
        "{path: /health, host: www.example.com, body: OK}",
        (False, f"{WEB} answered 200 OK, but its body is not as expected: all is well."),
    ),
    "the wrong status": (
        "{path: /broken, host: www.example.com}",
        (False, f"{WEB} answered 503 Service Unavailable, which is not right"),
    ),
    "a redirect is not followed": (
        "{path: /moved, host: www.example.com}",
        (False, f"{WEB} answered 302 Found, which is not right"),
    ),
    "a redirect may be right": (
        "{path: /moved, host: www.example.com, status: 300-399}",
        (True, f"{WEB} answered 302 Found"),
    ),
    "no page": (
        "{path: /else, host: www.example.com}",
        (False, f"{WEB} answered 404 Not Found, which is not right"),
    ),
    "another site": (
        "{path: /health, host: other.example.com}",
        (False, f"{WEB} answered 421 Whose, which is not right"),
    ),
}


def test_a_page_is_asked_for_as_the_pillar_says(cluster: Lab) -> None:
    with serving(cluster["rs1"], 80, pages):
        found = {
            title: told(cluster, f"{{types: [http], connect_timeout: 5, http: {words}}}")
            for title, (words, _) in HTTP.items()
        }
    assert found == {title: [("http", *expected)] for title, (_, expected) in HTTP.items()}


@pytest.mark.parametrize(
    ("serve", "reason"),
    [
        (closes, f"{WEB} closed the connection after nothing|{WEB} reset the connection"),
        (says(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), f"{WEB} answered no HTTP: SSH-2.0-OpenSSH_9.2...."),
        (
            says(b"HTTP/1.1 200 OK\r\n\r\n", after=1.5),
            f"{WEB} took the connection, but an answer to GET / did not come within 0.5 s",
        ),
    ],
    ids=["gives connections back", "is something else", "is slow"],
)
def test_one_that_takes_connections_and_does_not_serve(
    cluster: Lab, serve: Serve, reason: str
) -> None:
    """All of these are well by a connection alone."""
    with serving(cluster["rs1"], 80, serve):
        found = told(cluster, "{types: [path, tcp, http], connect_timeout: 0.5}")
    assert [ok for _, ok, _ in found] == [True, True, False]
    assert found[2][2] in reason.split("|")


def test_a_certificate_is_judged_as_the_pillar_says(cluster: Lab, certificates: File) -> None:
    trusted = f"authorities: {certificates}/good.pem"
    former = f"authorities: {certificates}/old.pem"
    asked = {
        "good": f"http: {{host: www.example.com, path: /health}}, tls: {{{trusted}}}",
        "of that name": f"tls: {{name: www.example.com, {trusted}}}, "
        "http: {host: www.example.com, path: /health}",
        "expired": f"http: {{host: old.example.com}}, tls: {{{former}}}",
        "of somebody unknown": "http: {host: www.example.com}",
        "nobody looks": "http: {host: old.example.com}, tls: {verify: False}",
        "no such authorities": "tls: {name: a.example.com, authorities: /nowhere.pem}",
    }
    with serving(cluster["rs1"], 443, sealed(certificates, pages)):
        found = {
            title: told(cluster, f"{{types: [https], connect_timeout: 10, {words}}}", 443)[0][1:]
            for title, words in asked.items()
        }
    where = f"{RS1}:443"
    wrong = f"{where}: its certificate is not right"
    assert found == {
        "good": (True, f"{where} answered 200 OK"),
        "of that name": (True, f"{where} answered 200 OK"),
        "expired": (False, f"{wrong}: certificate has expired"),
        "of somebody unknown": (False, f"{wrong}: self-signed certificate"),
        "nobody looks": (False, f"{where} answered 421 Whose, which is not right"),
        "no such authorities": (
            None,
            f"{where} could not be asked: [Errno 2] No such file or directory",
        ),
    }


# --------------------------------------------------------------------------------------------------
# exec

PROGRAM = """
import os, socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5) as link:
    said = link.recv(100).decode()
print(sys.argv[3], os.environ["LVS_REAL_SERVER"], said)
sys.exit(0 if said == "well" else 3)
"""


@pytest.mark.parametrize(("said", "ok", "status"), [("well", True, 0), ("ill", False, 3)])
def test_a_program_asks_in_its_own_way(
    cluster: Lab, tmp_path: File, said: str, ok: bool, status: int
) -> None:
    """No shell sees its arguments."""
    program = tmp_path / "ask.py"
    program.write_text(PROGRAM)
    words = [sys.executable, str(program), "{address}", "{port}", "$HOME;{vip}"]
    with serving(cluster["rs1"], 80, says(said.encode())):
        found = told(
            cluster, yaml.safe_dump({"types": ["exec"], "connect_timeout": 10, "command": words})
        )
    expected = f"{sys.executable} ended with exit status {status}: $HOME;{VIP} rs1 {said}"
    assert found == [("exec", ok, expected)]


# --------------------------------------------------------------------------------------------------
# The network


def test_packets_that_are_lost(cluster: Lab) -> None:
    """No RST, no ICMP: neither a service nor a host would be that silent."""
    rs1 = cluster["rs1"]
    with serving(rs1, 80, says(b"")):
        assert [ok for _, ok, _ in told(cluster, "{connect_timeout: 5}")] == [True, True]
        rs1.run(["tc", "qdisc", "add", "dev", "eth0", "root", "netem", "loss", "100%"], check=True)
        found = told(cluster, "{connect_timeout: 0.5}")
    assert found == [
        (
            "path",
            False,
            f"the host is gone: no answer to a SYN for {VIP}:80, nor to ARP for {RS1} on eth0",
        ),
        ("tcp", False, f"no answer from {WEB} within 0.5 s"),
    ]


def test_packets_that_are_slow(cluster: Lab) -> None:
    """Right within the time that there is, and not a moment later."""
    rs1 = cluster["rs1"]
    with serving(rs1, 80, says(b"")):
        told(cluster, "{connect_timeout: 5}")
        rs1.run(
            ["tc", "qdisc", "add", "dev", "eth0", "root", "netem", "delay", "400ms"], check=True
        )
        asked = pillar({"connect_timeout": 4})
        patient = cluster["lb1"].in_network(lambda: fresh.ask(asked, "web"))["rs1"]
        hasty = told(cluster, "{connect_timeout: 0.2}")
    assert patient["ok"] is True
    assert all(400 <= check["ms"] < 3000 for check in patient["checks"])
    assert [ok for _, ok, _ in hasty] == [False, False]
    assert hasty[1] == ("tcp", False, f"no answer from {WEB} within 0.2 s")


def test_a_host_that_answers_arp_no_more(cluster: Lab) -> None:
    """IPVS could not send to it either."""
    lb1, rs1 = cluster["lb1"], cluster["rs1"]
    with serving(rs1, 80, says(b"")):
        sysctl(rs1, "net.ipv4.conf.all.arp_ignore=8")
        ip(lb1, f"neighbour flush to {RS1}")
        found = told(cluster, "{connect_timeout: 5}")
        sysctl(rs1, "net.ipv4.conf.all.arp_ignore=1")
        again = told(cluster, "{connect_timeout: 5}")
    assert found == [
        ("path", False, f"the host is gone: nobody answers ARP for {RS1} on eth0"),
        ("tcp", False, f"the host is gone: nobody answers for the address of {WEB}"),
    ]
    assert [ok for _, ok, _ in again] == [True, True]


@pytest.mark.parametrize("cookies", [1, 0], ids=["which helps itself", "which has no room left"])
def test_thousands_of_connections_that_nobody_completes(cluster: Lab, cookies: int) -> None:
    """A SYN flood: with SYN cookies it goes on serving, and without them clients get no answer."""
    rs1 = cluster["rs1"]
    sysctl(
        rs1,
        f"net.ipv4.tcp_syncookies={cookies}",
        "net.ipv4.tcp_max_syn_backlog=16384",
        "net.core.somaxconn=2048",
    )
    # Or they are forgotten as soon as nobody answers ARP for them.
    ip(
        rs1,
        *(f"neighbour replace {one} dev eth0 lladdr {NOBODY} nud permanent" for one in STRANGERS),
    )
    with serving(rs1, 80, says(b""), backlog=2048):
        told(cluster, "{connect_timeout: 5}")
        with flooding(cluster["client"]):
            until(lambda: half_open(rs1) >= 2000, "thousands of them")
            found = told(cluster, f"{{connect_timeout: {5 if cookies else 0.9}}}")
    assert [ok for _, ok, _ in found] == [bool(cookies)] * 2
    if not cookies:
        assert found[0][2].startswith(f"VIP {VIP} is gone from {RS1}, or a firewall drops")
        assert found[1][2] == f"no answer from {WEB} within 0.9 s"


@contextlib.contextmanager
def flooding(host: LabHost) -> Iterator[None]:
    """Connections from machines that there are not, more and more of them."""
    stop = threading.Event()
    mac, own = (bytes.fromhex(text.replace(":", "")) for text in (MAC1, "02:00:0a:0a:0a:64"))
    vip = ipaddress.ip_address(VIP)
    aims = [Aim(mac, own, ipaddress.ip_address(one), vip, 80) for one in STRANGERS]

    def work() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
            wire.bind(("eth0", 0))
            for port in itertools.cycle(range(1024, 30000)):
                if stop.wait(0.01):
                    break
                for aim in aims:
                    wire.send(aim.syn(port, 1))

    thread = threading.Thread(target=lambda: host.in_network(work))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def half_open(host: LabHost) -> int:
    lines = host.run(["cat", "/proc/net/tcp"], check=True).stdout.splitlines()
    return sum(line.split()[3] == SYN_RECV for line in lines)


# --------------------------------------------------------------------------------------------------
# Again and again

SEVERAL = f"""
lvs:
  directors: [lb1]
  real_servers: {{rs1: {RS1}}}
  virtual_servers:
    a: {{address: {VIP}, port: 80, check: {{interval: 0.2, warmup: 0}}, real_servers: [rs1]}}
    b:
      address: {VIP}
      port: 81
      check:
        types: [http, exec]
        interval: 0.5
        warmup: 0
        fall: 3
        delay_before_retry: 0.1
        port: 80
        http: {{path: /health, host: www.example.com}}
        command: [/bin/sleep, "0"]
      real_servers: [rs1]
"""


def test_an_engine_asks_a_whole_pillar_each_check_at_its_pace(cluster: Lab) -> None:
    checks = checksets.of(model.from_pillar(yaml.safe_load(SEVERAL)))

    def work() -> list[tuple[Any, bool | None]]:
        engine = probe.Engine()
        engine.set(checks)
        found: list[tuple[Any, bool | None]] = []
        end = time.monotonic() + 4
        while time.monotonic() < end:
            found += [(verdict.key, verdict.ok) for verdict in engine.step(0.1)]
        engine.close()
        return found

    with serving(cluster["rs1"], 80, pages):
        found = cluster["lb1"].in_network(work)
    times = {check.key: sum(key == check.key for key, _ in found) for check in checks}
    assert {ok for _, ok in found} == {True}
    asked = [re.sub(r"^.*/", "", f"{key.virtual_server} {key.kind}") for key in times]
    assert asked == ["a path", "a tcp", "b http", "b exec"]
    assert all(3 <= times[key] <= 24 for key in list(times)[:2])
    assert all(2 <= times[key] <= 10 for key in list(times)[2:])
