"""Mails as a person gets them, and what no name or reason can make of them.

Whole mails are in ``tests/data/mails``. ``python -m tests.unit.test_mails`` writes them anew: read
what has changed before it is committed.
"""

from __future__ import annotations

import email
import email.policy
import re
import string
import zoneinfo
from dataclasses import replace
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from saltext.lvs import mails
from saltext.lvs.incidents import (
    Incident,
    Kind,
    Letter,
    Moment,
    Part,
    Severity,
    Standing,
    Subject,
    Trouble,
)
from saltext.lvs.mails import Words

AT = 1795447451.0  # 2026-11-23 15:24:11 UTC
WORDS = Words(
    "lvs@example.com",
    ("noc@example.com", "shop@example.com"),
    "prod",
    zoneinfo.ZoneInfo("Europe/Berlin"),
    "salt1",
)


def trouble(name: str = "rs1:80", reason: str = "connection refused", **more: Any) -> Trouble:
    given: dict[str, Any] = {
        "subject": Subject("servers", f"{name} of web"),
        "severity": Severity.WARNING,
        "title": f"{name} OUT of web",
        "over": f"{name} back in web",
        "reason": reason,
        "virtual_server": "web",
        "told_by": ("lb1",),
        "done": "it gets no new clients any more from lb1, and its weight back by itself",
        "advice": "Look at the service and the host.",
        "commands": (f"salt lb1 lvs.check_now web {name[:3]}", "salt lb1 lvs.health web"),
    }
    return Trouble(**{**given, **more})


def letter(kind: Kind, *parts: Part, number: int = 1, **more: Any) -> Letter:
    given: dict[str, Any] = {
        "closed": AT + 250 if kind in (Kind.CLOSED, Kind.PASSED) else None,
        "moments": (Moment(AT, "rs1:80 OUT of web (connection refused)"),),
    }
    incident = Incident(
        "20261123-152411-ab12cd34", "prod", "servers", AT, parts, **{**given, **more}
    )
    at = {Kind.OPENED: AT + 1, Kind.REMINDER: AT + 4 * 3600}.get(kind, AT + 280)
    return Letter(kind, incident, at, number, (Standing("web", 3, 4), Standing("db", 0, 2)))


ONE = Part(trouble(), AT)
OVER = replace(ONE, until=AT + 250)
TWO = Part(trouble("rs2:80", "timed out"), AT)
DB = Part(
    trouble(
        "db1:5432",
        subject=Subject("servers", "db1:5432 of db"),
        title="db1:5432 OUT of db",
        over="db1:5432 back in db",
        virtual_server="db",
    ),
    AT,
)
CRITICAL = Part(
    trouble("web", "all 4 failed", title="web has NO real server", severity=Severity.CRITICAL), AT
)
DIRECTOR = Part(
    Trouble(
        Subject("director lb2", "answer"),
        Severity.WARNING,
        "director lb2 does not answer",
        "director lb2 answers again",
        "it does not answer the master",
        advice="Look at the machine, then at its salt-minion.",
        commands=("salt lb2 test.ping",),
        urgent=False,
    ),
    AT,
)
VIP = Part(
    Trouble(
        Subject("vips", "10.10.10.10"),
        Severity.CRITICAL,
        "10.10.10.10 held by lb1 AND lb2",
        "10.10.10.10 held by one director again",
        "lb1: MASTER of VirtIP_10; lb2: MASTER of VirtIP_10",
        told_by=("lb1", "lb2"),
        advice="They do not hear each other's advertisements: look at the network between them and "
        "at firewalls (VRRP is IP protocol 112), then at virtual_router_id and passwords.",
        commands=("salt lb1 keepalived.status", "salt lb2 keepalived.status"),
    ),
    AT,
)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        pytest.param(
            letter(Kind.OPENED, ONE),
            "[lvs prod] rs1:80 OUT of web (connection refused); 3 of 4 in service",
            id="one is out",
        ),
        pytest.param(
            letter(Kind.CLOSED, OVER, number=2),
            "[lvs prod] rs1:80 back in web after 4 min 10 s; 3 of 4 in service",
            id="it is back",
        ),
        pytest.param(
            letter(Kind.CLOSED, replace(OVER, times=5), number=2),
            "[lvs prod] rs1:80 back in web after 4 min 10 s (5 times); 3 of 4 in service",
            id="it is back after some flaps",
        ),
        pytest.param(
            letter(Kind.PASSED, OVER),
            "[lvs prod] it passed: rs1:80 back in web after 4 min 10 s; 3 of 4 in service",
            id="it was out, and nobody was told",
        ),
        pytest.param(
            letter(Kind.AGAIN, replace(ONE, times=2), number=3),
            "[lvs prod] again: rs1:80 OUT of web (connection refused, 2 times); 3 of 4 in service",
            id="it is out again",
        ),
        pytest.param(
            letter(Kind.REMINDER, ONE, number=2),
            "[lvs prod] still, for 4 h 00 min: rs1:80 OUT of web (connection refused); "
            "3 of 4 in service",
            id="it is still out",
        ),
        pytest.param(
            letter(Kind.OPENED, ONE, TWO),
            "[lvs prod] 2 real servers OUT of web (rs1:80, rs2:80); 3 of 4 in service",
            id="two are out",
        ),
        pytest.param(
            letter(Kind.MORE, *[Part(trouble(f"rs{n}:80"), AT) for n in range(9)], number=2),
            "[lvs prod] 9 real servers OUT of web (rs0:80, rs1:80, rs2:80 and 6 more); "
            "3 of 4 in service",
            id="many are out",
        ),
        pytest.param(
            letter(Kind.OPENED, ONE, TWO, CRITICAL),
            "[lvs prod] web has NO real server (all 4 failed), and 2 more; 3 of 4 in service",
            id="the worst comes first",
        ),
        pytest.param(
            letter(Kind.CLOSED, OVER, replace(TWO, until=AT + 200), number=2),
            "[lvs prod] 2 real servers back in web after 4 min 10 s; 3 of 4 in service",
            id="both are back",
        ),
        pytest.param(
            letter(Kind.CLOSED, replace(OVER, times=3), replace(DIRECTOR, until=AT + 200)),
            "[lvs prod] all 2 troubles over after 4 min 10 s (up to 3 times); 3 of 4 in service",
            id="what is over is of different kinds",
        ),
        pytest.param(
            letter(Kind.OPENED, ONE, DB),
            "[lvs prod] 2 real servers OUT (rs1:80 of web, db1:5432 of db); db: 0 of 2 in service",
            id="of two virtual servers the one that is worse off",
        ),
        pytest.param(
            letter(Kind.OPENED, ONE, DIRECTOR),
            "[lvs prod] 2 in trouble (rs1:80 OUT of web, director lb2 does not answer); "
            "3 of 4 in service",
            id="troubles of different kinds",
        ),
        pytest.param(
            letter(Kind.OPENED, DIRECTOR),
            "[lvs prod] director lb2 does not answer (it does not answer the master)",
            id="a trouble that is no virtual server's",
        ),
        pytest.param(
            letter(Kind.REMINDER, replace(ONE, until=AT + 9), replace(TWO, since=AT + 3600)),
            "[lvs prod] still, for 3 h 00 min: rs2:80 OUT of web (timed out); 3 of 4 in service",
            id="only what lasts is still so, and for as long as it does",
        ),
        pytest.param(
            letter(Kind.MORE, ONE, replace(DB, until=AT + 9)),
            "[lvs prod] rs1:80 OUT of web (connection refused); 3 of 4 in service",
            id="in service is said of what is still in trouble",
        ),
        pytest.param(
            letter(Kind.OPENED, Part(trouble(reason=""), AT)),
            "[lvs prod] rs1:80 OUT of web; 3 of 4 in service",
            id="nobody knows why",
        ),
        pytest.param(
            letter(Kind.OPENED, Part(trouble(reason="x" * 150), AT)),
            f"[lvs prod] rs1:80 OUT of web ({'x' * 69}…); 3 of 4 in service",
            id="of what is long first the reason is cut",
        ),
        pytest.param(
            letter(Kind.OPENED, Part(trouble(title="x" * 95), AT)),
            f"[lvs prod] {'x' * 89}…; 3 of 4 in service",
            id="then what it is",
        ),
        pytest.param(
            letter(Kind.CLOSED, replace(OVER, times=5, trouble=trouble(over="x" * 300))),
            f"[lvs prod] {'x' * 62}… after 4 min 10 s (5 times); 3 of 4 in service",
            id="but never for how long it was, nor what is in service",
        ),
        pytest.param(
            letter(Kind.OPENED, Part(trouble(reason="=?utf-8?q?x?=\r\n\u202eno"), AT)),
            "[lvs prod] rs1:80 OUT of web (= ?utf-8?q?x?= \ufffdno); 3 of 4 in service",
            id="what is not meant for eyes is shown",
        ),
    ],
)
def test_a_subject_says_what_matters_first(told: Letter, expected: str) -> None:
    assert mails.subject_of(told, "prod") == expected


def test_how_long_it_was_is_not_said_of_what_was_over_when_somebody_looked() -> None:
    told = letter(Kind.PASSED, replace(OVER, times=2))
    told = replace(told, incident=replace(told.incident, closed=told.incident.opened))
    said = mails.subject_of(told, "prod")
    assert said == "[lvs prod] it passed: rs1:80 back in web (2 times); 3 of 4 in service"


TEXT = """\
Now: rs1:80 OUT of web (connection refused), for 1 s.

What:
  rs1:80 OUT of web (connection refused): since 2026-11-23 16:24:11 CET, told by lb1

Done automatically:
  it gets no new clients any more from lb1, and its weight back by itself

In service:
  web: 3 of 4 in service

What you may do:
  Look at the service and the host.

To look further:
  salt lb1 lvs.check_now web rs1
  salt lb1 lvs.health web

Course (CET is UTC+01:00):
  2026-11-23 16:24:11 CET  rs1:80 OUT of web (connection refused)

Incident 20261123-152411-ab12cd34, told by salt1:
  salt-run lvs.incidents 20261123-152411-ab12cd34
"""


def parsed(told: Letter) -> EmailMessage:
    return read(mails.compose(told, WORDS))


def read(raw: bytes) -> EmailMessage:
    """A mail as its reader has it, if its lines are as RFC 5322 wants them."""
    assert raw.isascii() and b"\0" not in raw
    assert max(map(len, raw.split(b"\r\n"))) <= 78
    assert not set(raw.replace(b"\r\n", b"")) & set(b"\r\n")
    found = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(found, EmailMessage)
    assert [one.defects for one in found.walk()] == [[]] * 3
    assert [value.defects for one in found.walk() for value in one.values() if value.defects] == []
    return found


def said(mail: EmailMessage) -> list[str]:
    """The text and the page, with the lines of a text file."""
    return [part.get_content().replace("\r\n", "\n") for part in mail.iter_parts()]


HEADERS = {
    "From": "lvs@example.com",
    "To": "noc@example.com, shop@example.com",
    "Subject": "[lvs prod] rs1:80 OUT of web (connection refused); 3 of 4 in service",
    "Date": "Mon, 23 Nov 2026 15:24:12 +0000",
    "Auto-Submitted": "auto-generated",
    "X-Auto-Response-Suppress": "All",
    "Message-ID": "<20261123-152411-ab12cd34.1@example.com>",
    "X-LVS-Cluster": "prod",
    "X-LVS-Incident": "20261123-152411-ab12cd34",
    "X-LVS-Severity": "warning",
    "MIME-Version": "1.0",
}


def test_a_mail_is_whole() -> None:
    mail = parsed(letter(Kind.OPENED, ONE))
    assert {key: value for key, value in mail.items() if key != "Content-Type"} == HEADERS
    kinds = [(part.get_content_type(), part.get_content_charset()) for part in mail.walk()]
    assert kinds == [
        ("multipart/alternative", None),
        ("text/plain", "utf-8"),
        ("text/html", "utf-8"),
    ]
    text, page = said(mail)
    assert text == TEXT
    assert ">rs1:80 OUT of web</td>" in page


def test_the_same_letter_is_the_same_mail() -> None:
    one = letter(Kind.OPENED, ONE)
    assert mails.compose(one, WORDS) == mails.compose(one, WORDS)


def test_the_mails_of_an_incident_are_one_thread() -> None:
    threads = [
        (mail["Message-ID"], mail["In-Reply-To"], mail["References"])
        for mail in (parsed(letter(Kind.MORE, ONE, number=number)) for number in (1, 2, 3))
    ]
    name = "20261123-152411-ab12cd34"
    assert threads == [
        (f"<{name}.1@example.com>", None, None),
        (f"<{name}.2@example.com>", f"<{name}.1@example.com>", f"<{name}.1@example.com>"),
        (
            f"<{name}.3@example.com>",
            f"<{name}.2@example.com>",
            f"<{name}.1@example.com> <{name}.2@example.com>",
        ),
    ]


@pytest.mark.parametrize(
    ("incident", "sender", "expected"),
    [
        pytest.param("a-1", "lvs@example.com", "<a-1.7@example.com>", id="as it is"),
        pytest.param("a>..\r\nü", "lvs@example.com", "<a------.7@example.com>", id="not atoms"),
        pytest.param("x" * 99, "lvs@example.com", f"<{'x' * 60}.7@example.com>", id="long"),
        pytest.param("a", "lvs@", "<a.7@localhost>", id="a sender without a domain"),
    ],
)
def test_a_message_id_is_one_whatever_it_is_made_of(
    incident: str, sender: str, expected: str
) -> None:
    assert mails.message_id(incident, 7, sender) == expected


def test_what_is_critical_is_marked_until_it_is_over() -> None:
    over = replace(CRITICAL, until=AT + 250)
    marks = [
        (mail["X-LVS-Severity"], mail["Importance"])
        for mail in (parsed(letter(Kind.OPENED, CRITICAL)), parsed(letter(Kind.CLOSED, over)))
    ]
    assert marks == [("critical", "high"), ("critical", None)]


def test_what_is_long_is_told_by_its_beginning_and_the_place_where_all_of_it_is() -> None:
    many = [Part(trouble(f"rs{n}:80"), AT + n) for n in range(500)]
    moments = tuple(Moment(AT + n, f"the {n}th") for n in range(60))
    text = mails.text_of(letter(Kind.MORE, *many, moments=moments, omitted=940, number=2), WORDS)
    assert text.count("connection refused") == 20
    further = "salt-run lvs.incidents 20261123-152411-ab12cd34"
    assert f"  and 480 more: {further}\n" in text
    assert re.findall("the [0-9]+th|.* more, .*", text) == [
        *(f"the {n}th" for n in range(20)),
        "  and 965 more, of which not all are kept",
        *(f"the {n}th" for n in range(45, 60)),
    ]


def test_a_course_of_which_all_is_kept_says_where_the_rest_is() -> None:
    moments = tuple(Moment(AT + n, f"the {n}th") for n in range(42))
    text = mails.text_of(letter(Kind.MORE, ONE, moments=moments, number=2), WORDS)
    assert re.findall("the [0-9]+th|and .* more.*", text) == [
        *(f"the {n}th" for n in range(20)),
        "and 7 more: salt-run lvs.incidents 20261123-152411-ab12cd34",
        *(f"the {n}th" for n in range(27, 42)),
    ]


@pytest.mark.parametrize("one", ["x", " ", "&", "=", "?=", "\0", "ü", "\u202e", "😀"])
def test_no_mail_is_much_larger_than_100_kilobytes(one: str) -> None:
    long = [one * 5000 + str(n) for n in range(60)]

    def bad(n: int) -> Trouble:
        said = f"{n} {one * 5000}"
        return trouble(
            said,
            title=said,
            over=said,
            reason=said,
            told_by=(said,) * 50,
            done=said,
            advice=said,
            virtual_server=said,
            commands=(*long, said),
        )

    moments = tuple(Moment(AT, text) for text in long)
    told = letter(Kind.OPENED, *[Part(bad(n), AT) for n in range(100)], moments=moments, omitted=9)
    standings = tuple(Standing(part.trouble.virtual_server, 0, 9) for part in told.incident.parts)
    raw = mails.compose(replace(told, standings=standings), replace(WORDS, master=long[0]))
    assert len(raw) < 120_000
    read(raw)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        pytest.param(
            letter(Kind.OPENED, ONE, TWO),
            "Now: 2 real servers OUT of web (rs1:80, rs2:80), for 1 s.",
            id="it began",
        ),
        pytest.param(
            letter(Kind.REMINDER, ONE, number=2),
            "Still: rs1:80 OUT of web (connection refused), for 4 h 00 min.",
            id="it lasts",
        ),
        pytest.param(
            letter(Kind.AGAIN, replace(ONE, times=2), number=3),
            "Again: rs1:80 OUT of web (connection refused, 2 times), first 4 min 40 s ago.",
            id="it came back",
        ),
        pytest.param(
            letter(Kind.CLOSED, replace(OVER, times=5), number=2),
            "It is over: rs1:80 back in web after 4 min 10 s (5 times).",
            id="it is over",
        ),
        pytest.param(
            letter(Kind.PASSED, OVER),
            "It was over before anybody was told: rs1:80 back in web after 4 min 10 s.",
            id="nobody was told",
        ),
    ],
)
def test_the_first_sentence_says_what_is_so(told: Letter, expected: str) -> None:
    text, page = mails.text_of(told, WORDS), mails.html_of(told, WORDS)
    assert text.partition("\n")[0] == expected
    assert f"<p><b>{expected}</b></p>\n" in page


def test_the_end_asks_nothing_more_of_anybody() -> None:
    text = mails.text_of(letter(Kind.CLOSED, replace(OVER, times=5), number=2), WORDS)
    assert re.findall("^(.*):\n(.*)\n", text, re.MULTILINE) == [
        (
            "What",
            "  rs1:80 OUT of web (connection refused, 5 times): "
            "2026-11-23 16:24:11 CET to 2026-11-23 16:28:21 CET, told by lb1",
        ),
        (
            "Done automatically",
            "  it gets no new clients any more from lb1, and its weight back by itself",
        ),
        ("In service", "  web: 3 of 4 in service"),
        (
            "Course (CET is UTC+01:00)",
            "  2026-11-23 16:24:11 CET  rs1:80 OUT of web (connection refused)",
        ),
        (
            "Incident 20261123-152411-ab12cd34, told by salt1",
            "  salt-run lvs.incidents 20261123-152411-ab12cd34",
        ),
    ]


def test_what_lasts_comes_first_and_of_that_the_worst_and_none_in_service() -> None:
    text = mails.text_of(letter(Kind.MORE, replace(TWO, until=AT + 9), DB, CRITICAL), WORDS)
    assert re.findall("^  (.*): since|^  (.*): 2026|^  (.* in service)", text, re.MULTILINE) == [
        ("web has NO real server (all 4 failed)", "", ""),
        ("db1:5432 OUT of db (connection refused)", "", ""),
        ("", "rs2:80 OUT of web (timed out)", ""),
        ("", "", "db: NONE of 2 in service"),
        ("", "", "web: 3 of 4 in service"),
    ]


@pytest.mark.parametrize(
    ("zone", "opened", "expected"),
    [
        pytest.param("UTC", AT, "UTC", id="UTC"),
        pytest.param("Europe/Berlin", AT, "CET is UTC+01:00", id="winter"),
        pytest.param("Asia/Kolkata", AT, "IST is UTC+05:30", id="half an hour"),
        pytest.param("America/Sao_Paulo", AT, "-03 is UTC-03:00", id="a zone without a name"),
        pytest.param(
            "Europe/Berlin",
            AT - 40 * 86400,
            "CEST is UTC+02:00, CET is UTC+01:00",
            id="the clock was put back meanwhile",
        ),
    ],
)
def test_how_a_clock_differs_from_utc_is_said_once(zone: str, opened: float, expected: str) -> None:
    told = letter(Kind.OPENED, ONE)
    told = replace(told, incident=replace(told.incident, opened=opened))
    text = mails.text_of(told, replace(WORDS, time_zone=zoneinfo.ZoneInfo(zone)))
    assert re.findall(r"Course \((.*)\):", text) == [expected]


def test_a_mail_for_trying_out() -> None:
    mail = read(mails.trial(replace(WORDS, cluster="prod\r\nX: ü"), AT, "17-5"))
    assert mail["Subject"] == "[lvs prod X: ü] mail gets through"
    assert mail["Message-ID"] == "<test-17-5.1@example.com>"
    text = "salt1 can send mail about prod X: ü.\n\nNothing is wrong."
    assert said(mail) == [f"{text}\n", f"<p>{text}</p>\n"]


@pytest.mark.parametrize(
    "address", ["", "a@b\r\nBcc: c@d", "a@b, c@d", "a b@c", "A <a@b>", "ä@b", "a@b\0", "a@b\n"]
)
def test_what_is_no_address_comes_into_no_header(address: str) -> None:
    with pytest.raises(ValueError, match="is no mail address"):
        replace(WORDS, sender=address)
    with pytest.raises(ValueError, match="is no mail address"):
        replace(WORDS, recipients=("noc@example.com", address))


# --------------------------------------------------------------------------------------------------
# Whole mails

MAILS = Path(__file__).parent.parent / "data" / "mails"
STORM = [Part(trouble(f"rs{n}:80", f"rack {n % 2}: no route to host"), AT) for n in range(23)]
NOBODY = Part(replace(CRITICAL.trouble, reason="all 23 failed"), AT + 5)
NASTY_NAME = "x\r\nBcc: evil@example.com\r\n\r\n=?utf-8?q?=0D=0A?= \u202e</td><script>&amp;\0 ü"
SAMPLES = {
    "one_out": letter(Kind.OPENED, ONE),
    "back_after_flaps": letter(
        Kind.CLOSED,
        replace(OVER, times=5),
        moments=(
            Moment(AT, "rs1:80 OUT of web (connection refused)"),
            Moment(AT + 60, "rs1:80 back in web"),
            Moment(AT + 100, "rs1:80 OUT of web again (connection refused)"),
        ),
        omitted=7,
        number=2,
    ),
    "storm": replace(
        letter(Kind.MORE, *STORM, NOBODY, replace(DB, until=AT + 20), number=2),
        standings=(Standing("web", 0, 23), Standing("db", 2, 2)),
    ),
    "vip_twice": letter(
        Kind.REMINDER,
        VIP,
        number=3,
        moments=(Moment(AT, "10.10.10.10 held by lb1 AND lb2"),),
    ),
    "hostile": letter(
        Kind.OPENED,
        Part(trouble(title=NASTY_NAME, reason=NASTY_NAME, told_by=(NASTY_NAME,)), AT),
        moments=(Moment(AT, NASTY_NAME),),
    ),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_whole_mail(name: str) -> None:
    mail = mails.compose(SAMPLES[name], WORDS)
    read(mail)
    expected = (MAILS / f"{name}.eml").read_bytes()
    assert mail.replace(b"\r\n", b"\n").decode() == expected.decode()


def test_every_whole_mail_is_one_of_these() -> None:
    assert {path.stem for path in MAILS.iterdir()} == set(SAMPLES)


def write_samples() -> None:
    """Write the whole mails as they are now, with the lines of a text file."""
    for name, told in SAMPLES.items():
        (MAILS / f"{name}.eml").write_bytes(mails.compose(told, WORDS).replace(b"\r\n", b"\n"))


# --------------------------------------------------------------------------------------------------
# Words


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (60, "1 min 0 s"),
        (250, "4 min 10 s"),
        (3 * 3600 + 300, "3 h 05 min"),
        (86400, "1 day 0 h"),
        (2 * 86400 + 4 * 3600, "2 days 4 h"),
        (-5, "0 s"),
    ],
)
def test_durations(seconds: float, expected: str) -> None:
    assert mails.duration(seconds) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("rs1:80 OUT of web", "rs1:80 OUT of web", id="plain words"),
        pytest.param("für 日本 😀", "für 日本 😀", id="other letters"),
        pytest.param(" a\r\n\tb\u2028c\u00a0d \x1f e", "a b c d e", id="whatever ends a line"),
        pytest.param("a\0b\x7fc\x9bd", "a\ufffdb\ufffdc\ufffdd", id="control characters"),
        pytest.param("\u202ea\u2066b\u061c", "\ufffda\ufffdb\ufffd", id="directions"),
        pytest.param("a\u200bb\u00adc\ufeffd", "a\ufffdb\ufffdc\ufffdd", id="no width"),
        pytest.param("a\u3164b\u034fc\u2800", "a\ufffdb\ufffdc\ufffd", id="unseen letters"),
        pytest.param("\ud800a", "\ufffda", id="half a letter"),
        pytest.param("=?utf-8?b?eA==?=", "= ?utf-8?b?eA== ?=", id="an encoded word"),
        pytest.param("x" * 20, "x" * 20, id="as long as may be"),
        pytest.param("x" * 21, "x" * 17 + "…", id="too long"),
        pytest.param("ü" * 11, "ü" * 8 + "…", id="too many octets"),
        pytest.param("a" + " " * 99 + "b", "a…", id="blanks that push out of sight"),
    ],
)
def test_what_is_shown_of_a_text(text: str, expected: str) -> None:
    assert mails.clean(text, 20) == expected


# --------------------------------------------------------------------------------------------------
# Laws

NASTY = st.text(
    st.characters() | st.sampled_from("\r\n\0\x7f\x1b=?<>&\"'\u202e\u2066\u200b\u2028\x85 "),
    max_size=80,
) | st.sampled_from(
    [
        "x\r\nBcc: evil@example.com\r\n\r\nbody",
        "=?utf-8?q?=0D=0ABcc:_evil@example.com?=",
        "=?utf-8?b?RVZJTA==?=",
        "=" * 40 + "?" * 40,
        "</td><script>alert(1)</script>",
        "\u202etxt.exe",
        "\r\n.\r\nMAIL FROM:<evil@example.com>",
        "From here",
        "--=_20261123-152411-ab12cd34.1example.com",
        "ü" * 500,
        "a" * 3000,
        "a b " * 300,
    ]
)


@given(NASTY, NASTY, NASTY, NASTY, st.sampled_from(list(Kind)), st.integers(1, 3))
def test_whatever_machines_say_the_mail_is_the_one_that_was_meant(
    title: str, reason: str, other: str, cluster: str, kind: Kind, number: int
) -> None:
    bad = trouble(
        title=title,
        over=other,
        reason=reason,
        virtual_server=other,
        told_by=(other,),
        done=other,
        advice=reason,
        commands=(title,),
    )
    over = kind in (Kind.CLOSED, Kind.PASSED)
    parts = [Part(bad, AT, AT + 250 if over else None)] * number
    told = letter(kind, *parts, number=number, moments=(Moment(AT, reason),))
    told = replace(told, standings=(Standing(other, 1, 2),))
    words = replace(WORDS, cluster=cluster, master=other)
    mail = read(mails.compose(told, words))
    thread = ["In-Reply-To", "References"] if number > 1 else []
    assert sorted(mail.keys()) == sorted([*HEADERS, "Content-Type", *thread])
    fixed = HEADERS.keys() - {"Subject", "Date", "Message-ID", "X-LVS-Cluster"}
    assert {name: mail[name] for name in fixed} == {name: HEADERS[name] for name in fixed}
    assert mail["X-LVS-Cluster"] == mails.clean(cluster)
    subject = mails.subject_of(told, cluster)
    # A reader takes blanks away from the end of a header; what is shown has one at a time.
    assert mail["Subject"] == " ".join(subject.split())
    assert subject.startswith("[lvs ") and subject.endswith("1 of 2 in service")
    assert len(subject) <= mails.MOST_SUBJECT
    assert "=?" not in subject
    text, page = said(mail)
    assert [text, page] == [mails.text_of(told, words), mails.html_of(told, words)]
    assert text.replace("\n", "").isprintable()
    tags = {"html", "body", "p", "b", "br", "table", "tr", "th", "td"}
    assert set(re.findall("<[/]?([^ >]*)", page)) <= tags


@given(NASTY, st.integers(3, 400))
def test_what_is_clean_stays_as_it_is_and_within_its_octets(text: str, most: int) -> None:
    shown = mails.clean(text, most)
    assert len(shown.encode()) <= most
    assert mails.clean(shown, most) == shown
    assert shown.isprintable() and "=?" not in shown


@given(st.text(string.printable, max_size=300))
def test_what_is_ascii_stays_so_in_a_header_if_its_words_fit_a_line(text: str) -> None:
    value = mails._header("Subject", text)
    words = mails.clean(text).split()
    if mails.clean(text).isascii() and all(len(word) < 60 for word in words):
        assert value.replace("\r\n ", " ") == mails.clean(text)
    assert max(map(len, f"Subject: {value}".split("\r\n"))) <= 78


if __name__ == "__main__":
    write_samples()
