"""Mail to real servers on loopback: good ones, and all the ways in which a relay can be bad."""

from __future__ import annotations

import base64
import contextlib
import datetime
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as trying
from hypothesis import strategies as st
from saltext.lvs import relays
from saltext.lvs.errors import InvalidConfig
from saltext.lvs.reading import Section
from saltext.lvs.relays import Outcome, Relay, Security

from tests.unit.certificates import certify

MAIL = b"Subject: x\r\n\r\n.a line with a dot\r\n..two\r\n" + b"y" * 900 + b"\r\nend\r\n"
SENDER, NOC, SHOP = "lvs@example.com", "noc@example.com", "shop@example.com"
SECONDS = 0.3
STALL, DROP, DRIP, FLOOD = "stall", "drop", "drip", "flood"
TAKEN = ("127.0.0.1", "250 taken")


@dataclass
class Server:
    """An SMTP server that answers as it is told: a reply, or one of the things that go wrong.

    script
        By the beginning of a command; what is not in it is answered as usual.
    """

    script: Mapping[str, str] = field(default_factory=dict)
    context: ssl.SSLContext | None = None
    from_the_start: bool = False
    auth: str = ""
    mails: list[tuple[str, list[str], bytes]] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    port: int = 0
    sealed: bool = False

    def serve(self, link: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self.from_the_start:
                assert self.context is not None
                link = self.context.wrap_socket(link, server_side=True)
            self._talk(link)
        link.close()

    def _talk(self, link: socket.socket) -> None:
        sender, to, buffered = "", [], b""
        if not self._answer(link, "greeting", "220 here"):
            return
        while True:
            while b"\r\n" not in buffered:
                got = link.recv(65536)
                if not got:
                    return
                buffered += got
            line, _, buffered = buffered.partition(b"\r\n")
            # smtplib writes them in small letters, and more of them in Python 3.13.
            command = re.sub(
                r"(?i)^[a-z]+( (from|to):| plain)?",
                lambda word: word[0].upper(),
                line.decode("ascii", "replace"),
            )
            self.heard.append(command)
            usual = "250 OK"
            if command.startswith("EHLO"):
                features = ["250-here"]
                if self.context and not self.sealed and not self.from_the_start:
                    features.append("250-STARTTLS")
                if self.auth:
                    features.append("250-AUTH PLAIN")
                usual = "\r\n".join([*features, "250 8BITMIME"])
            elif command.startswith("MAIL FROM:"):
                sender = re.findall("<(.*)>", command)[0]
            elif command.startswith("AUTH PLAIN"):
                given = base64.b64decode(command.split()[-1]).decode().lstrip("\0")
                usual = "235 welcome" if given == self.auth else f"535 no {command}"
            elif command == "STARTTLS":
                usual = "220 go on"
            elif command == "DATA":
                usual = "354 go on"
            if not self._answer(link, command, usual):
                return
            if command.startswith("RCPT TO:"):
                to.append(re.findall("<(.*)>", command)[0])
            elif command == "STARTTLS":
                assert self.context is not None
                link = self.context.wrap_socket(link, server_side=True)
                self.sealed = True
            elif command == "DATA" and "DATA" not in self.script:
                while not buffered.endswith(b"\r\n.\r\n"):
                    got = link.recv(65536)
                    if not got:
                        return
                    buffered += got
                if "end" not in self.script:
                    self.mails.append((sender, to, buffered[:-3]))
                buffered = b""
                if not self._answer(link, "end", "250 taken"):
                    return
            elif command == "QUIT":
                return

    def _answer(self, link: socket.socket, command: str, usual: str) -> bool:
        said = next((it for key, it in self.script.items() if command.startswith(key)), usual)
        if said == STALL:
            link.recv(65536)
            return False
        if said == FLOOD:
            for _ in range(2000):
                link.sendall((b"250-" + b"x" * 5000 + b"\r\n") * 20)
            return False
        if said == DROP:
            return False
        if said == DRIP:
            for _ in range(200):
                link.sendall(b"250-x\r\n")
                time.sleep(SECONDS / 8)
            return False
        link.sendall(said.encode() + b"\r\n")
        return True


@contextlib.contextmanager
def serving(server: Server) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server.port = listener.getsockname()[1]

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    link, _ = listener.accept()
                    threading.Thread(target=server.serve, args=(link,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield server
        listener.shutdown(socket.SHUT_RDWR)


def relay(server: Server, **settings: Any) -> Relay:
    given = {"host": "127.0.0.1", "security": Security.NONE, "timeout_seconds": SECONDS}
    return Relay(port=server.port, **{**given, **settings})


def sent(*servers: Server, to: tuple[str, ...] = (NOC,), **settings: Any) -> Outcome:
    return relays.send(MAIL, SENDER, to, [relay(server, **settings) for server in servers])


def test_a_mail_comes_through_byte_by_byte() -> None:
    with serving(Server()) as server:
        outcome = sent(server, to=(NOC, SHOP))
    assert outcome == Outcome((NOC, SHOP), {}, {}, *TAKEN)
    stuffed = MAIL.replace(b"\r\n.", b"\r\n..")
    assert server.mails == [(SENDER, [NOC, SHOP], stuffed)]


def test_every_mail_arrives_in_whole_lines_and_ends_where_it_ends() -> None:
    with serving(Server()) as server:

        @trying(max_examples=60, deadline=None)
        @given(st.lists(st.sampled_from([b".", b"\r", b"\n", b"\r\n", b"x"]), max_size=12))
        def law(parts: list[bytes]) -> None:
            server.mails.clear()
            mail = b"".join(parts)
            there = relay(server, timeout_seconds=3)
            assert relays.send(mail, SENDER, [NOC], [there]).accepted == (NOC,)
            ((_, _, came),) = server.mails
            lines = mail.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
            # The last line is ended for it where it is not.
            whole = lines[:-1] if len(lines) > 1 and not lines[-1] else lines
            arrived = came.removesuffix(b"\r\n").split(b"\r\n")
            assert b"." not in arrived
            assert [line.removeprefix(b".") for line in arrived] == whole

        law()


NEXT = {
    "it refuses the connection": ({"greeting": "554 go away"}, "connection: 554 go away"),
    "it is too busy": ({"greeting": "421 later"}, "connection: 421 later"),
    "it says nothing": ({"greeting": STALL}, "connection: no answer in time"),
    "it hangs up": ({"greeting": DROP}, "connection: it hung up"),
    "its answer has no end": ({"EHLO": FLOOD}, "greeting: its answer has no end"),
    "its answer is too long": ({"MAIL": "250 " + "x" * 9000}, "MAIL: its answer is not SMTP"),
    "its answer is none": ({"MAIL": "hello"}, "MAIL: its answer is not SMTP"),
    "it says goodbye": ({"RCPT": "421 closing"}, "421 closing"),
    "it drips": ({"EHLO": DRIP}, "greeting: no answer in time"),
    "it refuses the sender": ({"MAIL": "550 not you"}, "MAIL: 550 not you"),
    "it stalls at the sender": ({"MAIL": STALL}, "MAIL: no answer in time"),
    "it takes the recipient later": ({"RCPT": "450 greylisted"}, "450 greylisted"),
    "it hangs up at the recipient": ({"RCPT": DROP}, f"RCPT {NOC}: it hung up"),
    "it refuses the data": ({"DATA": "554 no data"}, "DATA: 554 no data"),
    "it stalls before the data": ({"DATA": STALL}, "DATA: no answer in time"),
    "it refuses the mail": ({"end": "554 looks bad"}, "DATA: 554 looks bad"),
    "it takes the mail later": ({"end": "452 full"}, "DATA: 452 full"),
}


@pytest.mark.parametrize(("script", "words"), NEXT.values(), ids=NEXT.keys())
def test_where_one_relay_does_not_take_it_the_next_one_does(
    script: Mapping[str, str], words: str
) -> None:
    with serving(Server(script)) as first, serving(Server()) as second:
        assert sent(first, second) == Outcome((NOC,), {}, {}, *TAKEN)
        assert len(second.mails) == 1
        alone = sent(first)
    told = {**alone.refused, **alone.later}[NOC]
    assert told == f"127.0.0.1: {words}"
    # What is said of this mail for good is for good, if nobody takes it.
    for_good = words[:5] in ("MAIL:", "DATA:") and " 55" in words
    assert bool(alone.refused) is for_good


def test_who_answers_drip_by_drip_is_not_waited_for_for_ever() -> None:
    with serving(Server({"EHLO": DRIP})) as server:
        began = time.monotonic()
        sent(server)
        assert time.monotonic() - began < SECONDS * (relays.ALL_ANSWERS + 2)


MAYBE = {
    "it stalls": (STALL, "no answer in time"),
    "it hangs up": (DROP, "it hung up"),
    "its answer is none": ("hello", "its answer is not SMTP"),
    "its answer is too long": ("250 " + "x" * 9000, "its answer is not SMTP"),
}


@pytest.mark.parametrize(("how", "words"), MAYBE.values(), ids=MAYBE.keys())
def test_one_that_may_have_taken_it_is_the_last_one_that_is_asked(how: str, words: str) -> None:
    with serving(Server({"end": how})) as first, serving(Server()) as second:
        outcome = sent(first, second)
    assert outcome == Outcome(later={NOC: f"127.0.0.1: DATA: {words}; it may have taken it"})
    assert second.mails == []


def test_who_is_refused_for_good_is_asked_of_nobody_else() -> None:
    script = {f"RCPT TO:<{NOC}": "550 no such user", f"RCPT TO:<{SHOP}": "450 greylisted"}
    with serving(Server(script)) as first, serving(Server()) as second:
        outcome = sent(first, second, to=(NOC, SHOP))
    assert outcome == Outcome((SHOP,), {NOC: "550 no such user"}, {}, *TAKEN)
    assert second.mails[0][1] == [SHOP]


def test_what_is_said_of_one_recipient_outlasts_a_mail_that_fails() -> None:
    script = {f"RCPT TO:<{SHOP}": "550 no such user", "end": "554 looks bad"}
    with serving(Server(script)) as first, serving(Server()) as second:
        outcome = sent(first, second, to=(NOC, SHOP))
    assert outcome == Outcome((NOC,), {SHOP: "550 no such user"}, {}, *TAKEN)
    assert second.mails[0][1] == [NOC]


def test_who_was_put_off_is_not_refused_with_the_mail_of_others() -> None:
    with serving(Server({f"RCPT TO:<{SHOP}": "450 greylisted", "end": "554 bad"})) as server:
        outcome = sent(server, to=(NOC, SHOP))
    assert outcome == Outcome(
        refused={NOC: "127.0.0.1: DATA: 554 bad"}, later={SHOP: "127.0.0.1: 450 greylisted"}
    )


def test_where_a_mail_may_be_taken_those_who_were_put_off_are_asked_of_the_next() -> None:
    script = {f"RCPT TO:<{SHOP}": "450 greylisted", "end": DROP}
    with serving(Server(script)) as first, serving(Server()) as second:
        outcome = sent(first, second, to=(NOC, SHOP))
    assert outcome == Outcome(
        (SHOP,), {}, {NOC: "127.0.0.1: DATA: it hung up; it may have taken it"}, *TAKEN
    )


ALL = {
    "each says never": ([{"MAIL": "550 no"}, {"end": "554 bad"}], True),
    "one says never, the other is not there": ([{"greeting": DROP}, {"MAIL": "550 no"}], False),
    "one knows nobody, the other is not there": ([{"greeting": DROP}, {"RCPT": "550 no"}], False),
    "one never takes it, one knows nobody": ([{"MAIL": "550 no"}, {"RCPT": "550 no"}], True),
    "one says never, the other later": ([{"MAIL": "550 no"}, {"MAIL": "451 later"}], False),
    "one says never, the other is busy": ([{"greeting": "421 busy"}, {"MAIL": "550 no"}], False),
    "one says never, the other hangs up": ([{"MAIL": "550 no"}, {"RCPT": DROP}], False),
    "none is there": ([{"greeting": DROP}, {"greeting": STALL}], False),
}


@pytest.mark.parametrize(("scripts", "for_good"), ALL.values(), ids=ALL.keys())
def test_it_is_refused_where_all_of_them_say_never(
    scripts: list[Mapping[str, str]], for_good: bool
) -> None:
    first, second = scripts
    with serving(Server(first)) as one, serving(Server(second)) as two:
        outcome = sent(one, two)
    assert (list(outcome.refused), list(outcome.later)) == (
        ([NOC], []) if for_good else ([], [NOC])
    )
    why = {**outcome.refused, **outcome.later}[NOC]
    assert why.count("127.0.0.1: ") == 2


def test_some_may_have_it_and_others_later() -> None:
    with serving(Server({f"RCPT TO:<{SHOP}": "450 greylisted"})) as server:
        outcome = sent(server, to=(NOC, SHOP))
    assert outcome == Outcome((NOC,), {}, {SHOP: "127.0.0.1: 450 greylisted"}, *TAKEN)


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    there = Relay("127.0.0.1", port, Security.NONE, timeout_seconds=SECONDS)
    assert relays.send(MAIL, SENDER, [NOC], [there]).later == {
        NOC: "127.0.0.1: connection: Connection refused"
    }
    assert relays.send(MAIL, SENDER, [NOC], []).later == {NOC: "there is no relay"}


def test_words_of_a_relay_are_one_line_of_text() -> None:
    with serving(Server({"MAIL": f"450 \x1b[31mred\x07 {'x' * 400}"})) as server:
        words = sent(server).later[NOC]
    assert words.isprintable()
    assert len(words) < 300


@pytest.mark.parametrize(
    "address",
    [
        "a b@c",
        "a@b>\r\nRCPT TO:<x@y",
        "a\0@b",
        "@b",
        "a@",
        "ä@b.example",
        "a@b\n",
        "a..b@c",
        "a@" + "b" * 253,
    ],
)
def test_an_address_that_is_none_is_not_even_tried(address: str) -> None:
    with pytest.raises(ValueError, match="is no mail address"):
        relays.send(MAIL, SENDER, [address], [])


# --------------------------------------------------------------------------------------------------
# TLS and credentials


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    now, day = datetime.datetime.now(datetime.timezone.utc), datetime.timedelta(days=1)
    certify(folder / "good", now - day, now + day, "localhost")
    certify(folder / "other", now - day, now + day, "www.example.com")
    certify(folder / "old", now - 2 * day, now - day, "localhost")
    return folder


def context(certificates: Path, name: str) -> ssl.SSLContext:
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    found.load_cert_chain(certificates / f"{name}.pem", certificates / f"{name}.key")
    return found


@pytest.mark.parametrize("security", [Security.STARTTLS, Security.TLS])
@pytest.mark.parametrize(
    ("shown", "trusted", "words"),
    [
        pytest.param("good", "good", "", id="a right one"),
        pytest.param("good", "", "its certificate is not right: self-signed", id="of nobody"),
        pytest.param(
            "old", "old", "its certificate is not right: certificate has exp", id="expired"
        ),
        pytest.param(
            "other", "other", "its certificate is not right: Hostname", id="of another name"
        ),
    ],
)
def test_a_certificate_must_be_right(
    security: Security, shown: str, trusted: str, words: str, certificates: Path
) -> None:
    with serving(Server(context=context(certificates, shown))) as server:
        server.from_the_start = security is Security.TLS
        outcome = sent(
            server,
            host="localhost",
            security=security,
            ca_file=str(certificates / f"{trusted}.pem") if trusted else "",
            timeout_seconds=3,
        )
    assert bool(server.mails) is not bool(words)
    assert words in outcome.later.get(NOC, "")
    assert bool(outcome.accepted) is not bool(words)


class Slow(Server):
    """Says that TLS may begin when nearly all of the time is over, and begins after that."""

    def _answer(self, link: socket.socket, command: str, usual: str) -> bool:
        if command != "STARTTLS":
            return super()._answer(link, command, usual)
        for _ in range(6):
            link.sendall(b"220-x\r\n")
            time.sleep(SECONDS * 0.75)
        link.sendall(b"220 go on\r\n")
        time.sleep(SECONDS * 0.75)
        return True


def test_a_slow_handshake_does_not_buy_more_time(certificates: Path) -> None:
    ca_file = str(certificates / "good.pem")
    with serving(Slow(context=context(certificates, "good"))) as server:
        began = time.monotonic()
        outcome = sent(server, host="localhost", security=Security.STARTTLS, ca_file=ca_file)
        assert time.monotonic() - began < SECONDS * (relays.ALL_ANSWERS + 1)
    assert outcome.later == {NOC: "localhost: STARTTLS: no answer in time"}


def test_a_file_of_authorities_that_is_missing_is_named() -> None:
    with serving(Server()) as server:
        outcome = sent(server, security=Security.TLS, ca_file="/nowhere/own.pem")
    assert outcome.later == {NOC: "127.0.0.1: ca_file: No such file or directory"}
    assert server.heard == []


def test_credentials_are_not_sent_in_plain_text_to_another_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relays, "is_loopback", lambda host: False)
    with serving(Server(auth="lvs\0right")) as server:
        outcome = sent(server, username="lvs", password="right")
    assert outcome.later == {NOC: "127.0.0.1: AUTH: credentials are not sent in plain text"}
    assert [line.split()[0] for line in server.heard] == ["EHLO"]


def test_credentials_are_sent_to_this_machine_itself() -> None:
    with serving(Server(auth="lvs\0right")) as server:
        assert sent(server, username="lvs", password="right").accepted == (NOC,)


def test_without_starttls_nothing_is_said() -> None:
    with serving(Server()) as server:
        outcome = sent(server, security=Security.STARTTLS)
    assert outcome.later == {NOC: "127.0.0.1: offers no STARTTLS"}
    assert [line.split()[0] for line in server.heard] == ["EHLO"]


def test_credentials_are_told_to_whom_they_belong(certificates: Path) -> None:
    good = {
        "host": "localhost",
        "security": Security.STARTTLS,
        "ca_file": str(certificates / "good.pem"),
        "timeout_seconds": 3,
    }
    server = Server(context=context(certificates, "good"), auth="lvs\0right")
    with serving(server):
        right = sent(server, username="lvs", password="right", **good)
    with serving(Server(context=server.context, auth=server.auth)) as other:
        wrong = sent(other, username="lvs", password="wrong secret", **good)
    assert right.accepted == (NOC,)
    assert wrong.later == {NOC: "localhost: refuses the credentials (535)"}


def test_a_relay_that_asks_for_nothing_gets_no_credentials() -> None:
    with serving(Server()) as server:
        outcome = sent(server, username="lvs", password="secret")
    assert outcome.later == {NOC: "127.0.0.1: offers no AUTH"}


# --------------------------------------------------------------------------------------------------
# Words


@pytest.mark.parametrize(
    ("text", "settings", "expected"),
    [
        pytest.param("localhost", {}, Relay("localhost", 25, Security.NONE), id="here"),
        pytest.param("127.0.0.2", {}, Relay("127.0.0.2", 25, Security.NONE), id="an address here"),
        pytest.param("mail.example.com", {}, Relay("mail.example.com", 25), id="a name"),
        pytest.param("mail 587", {}, Relay("mail", 587), id="a port after a blank"),
        pytest.param("mail:587", {}, Relay("mail", 587), id="a port after a colon"),
        pytest.param("[fd00::1]:26", {}, Relay("fd00::1", 26), id="IPv6 with a port"),
        pytest.param("fd00::1", {}, Relay("fd00::1", 25), id="IPv6 without one"),
        pytest.param(
            "mail",
            {"security": Security.TLS},
            Relay("mail", 465, Security.TLS),
            id="the port of TLS",
        ),
        pytest.param("mail 26", {"port": 27}, Relay("mail", 26), id="the pillar's port counts"),
        pytest.param("mail", {"port": 27}, Relay("mail", 27), id="or else the master's"),
    ],
)
def test_how_relays_are_named(text: str, settings: dict[str, Any], expected: Relay) -> None:
    assert relays.relay_of(text, **settings) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "a b c", "mail 99999", "mail 0", "mail;x", "a@b", "mail\n"),
        *("mail..example.com", ".mail", "x" * 64, "1:2:3", "[10.0.0.1]", "[::1"),
    ],
)
def test_what_is_no_relay(text: str) -> None:
    if text == "mail\n":
        assert relays.relay_of(text).host == "mail"
        return
    with pytest.raises(InvalidConfig, match="it should be a host name or an address"):
        relays.relay_of(text)


def test_a_password_is_never_meant_for_plain_text() -> None:
    settings = {"security": Security.NONE, "username": "lvs", "password": "secret"}
    with pytest.raises(InvalidConfig) as raised:
        relays.relay_of("mail.example.com", **settings)
    assert str(raised.value) == (
        "lvs_alerts:relays:mail.example.com:tls is 'none'; it should be starttls or tls: its "
        "password would be read"
    )
    assert relays.relay_of("localhost", **settings).username == "lvs"
    assert "secret" not in repr(relays.relay_of("localhost", **settings))


def read(value: dict[str, Any]) -> dict[str, Any]:
    return relays.settings_of(Section(value, "lvs_alerts:relays:mail"))


def test_what_the_master_says_of_a_relay_is_read() -> None:
    told = {
        "port": 587,
        "tls": "starttls",
        "username": "lvs",
        "password": "secret",
        "ca_file": "/etc/ssl/own.pem",
        "helo": "salt.example.com",
    }
    found = relays.relay_of("mail", **read(told))
    assert found == Relay(
        "mail", 587, Security.STARTTLS, "lvs", "secret", "/etc/ssl/own.pem", helo="salt.example.com"
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        pytest.param({"tls": "ssl"}, "tls is 'ssl'; it should be one of none, start", id="a word"),
        pytest.param({"username": "lvs"}, "password is \\*+; it should be 1 to 200", id="half"),
        pytest.param({"username": "a", "password": "pä"}, "password is \\*", id="not ASCII"),
        pytest.param(
            {"pasword": "secret"}, "pasword is \\*+; it should be left out", id="misspelt"
        ),
        pytest.param({"ca_file": "own.pem"}, "it should be an absolute path", id="a relative path"),
    ],
)
def test_what_is_wrong_there_is_told_without_the_password(
    value: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidConfig, match=message) as raised:
        read(value)
    assert "secret" not in str(raised.value)
    assert "pä" not in str(raised.value)
