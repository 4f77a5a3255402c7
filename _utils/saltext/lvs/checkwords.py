"""The pillar's words for how a virtual server's real servers are checked.

What is asked of whom, :mod:`saltext.lvs.checksets` makes of them.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from typing import Any

from saltext.lvs.errors import InvalidConfig
from saltext.lvs.reading import MAX_PORT, Address, Section

MAX_RETRIES = 100
# A byte of a request's line or of a header: any other would end it.
VISIBLE = r"[\x21-\x7e]"
# RFC 1035 2.3.4, and underscores: what is no such name cannot be asked for in TLS.
LABEL = "[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
HOST_NAME = rf"{LABEL}(?:\.{LABEL})*\.?"
IPV6 = "(?=[0-9A-Fa-f.]*:)[0-9A-Fa-f:.]{2,45}"
NAME = rf"(?=.{{1,253}}$)(?:{HOST_NAME}|{IPV6})"
HOST = rf"(?=.{{1,260}}$)(?:{HOST_NAME}|\[{IPV6}\])(?::[0-9]{{1,5}})?"
MOST_TEXT = 1000
METHODS = ("GET", "HEAD", "OPTIONS")
SUCCESS = frozenset(range(200, 300))
STATUSES = re.compile("([1-5][0-9][0-9])-([1-5][0-9][0-9])")
# Which digest it is shows from its length in hexadecimal digits.
DIGEST = "(?:[0-9a-fA-F]{32}|[0-9a-fA-F]{40}|[0-9a-fA-F]{64}|[0-9a-fA-F]{128})"
# What stands for the real server in a program's arguments.
PLACEHOLDERS = ("address", "port", "real_server", "vip", "virtual_server")
PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


class CheckType(enum.Enum):
    """How a real server's health is tried: through the VIP, on its own address, or by a program."""

    PATH = "path"
    TCP = "tcp"
    HTTP = "http"
    HTTPS = "https"
    EXEC = "exec"


BY_HTTP = frozenset({CheckType.HTTP, CheckType.HTTPS})
# keepalived has others too, but by its own words.
KEEPALIVED_TYPES = (CheckType.PATH, CheckType.TCP)


@dataclass(frozen=True, slots=True)
class HttpWords:
    """What is asked for by HTTP, and which answer is right.

    host
        Whose site it is; empty for the real server's address.

    body
        A regular expression that must be found in the body; empty for any.

    digest
        The body's MD5, SHA-1, SHA-256 or SHA-512, in hexadecimal digits; empty for any.
    """

    path: str = "/"
    host: str = ""
    method: str = "GET"
    status: frozenset[int] = SUCCESS
    body: str = ""
    digest: str = ""


@dataclass(frozen=True, slots=True)
class TlsWords:
    """How HTTPS is spoken.

    name
        Whose certificate must be shown, and what is asked for (SNI); empty for the HTTP host.

    authorities
        A file of certificates in PEM that are trusted; empty for the system's.
    """

    name: str = ""
    verify: bool = True
    authorities: str = ""


@dataclass(frozen=True, slots=True)
class Hold:
    """How long one is kept out that fails again and again; times in seconds.

    flaps, within
        The fall with which there are so many within these seconds makes the return wait; 0 is
        never.

    first, longest
        How long the first time, and at most: each further fall doubles it.
    """

    flaps: int = 3
    within: float = 300
    first: float = 30
    longest: float = 600


@dataclass(frozen=True, slots=True)
class Check:
    """How a virtual server's real servers are checked; times in seconds.

    types
        As the pillar says them, or by default those that fit.

    told
        Whether the pillar says them.

    rise, fall
        How many checks in a row must agree before a real server counts as up, or as down.

    port
        To which they connect, where it is not the real server's in the virtual server.

    retry, delay_before_retry
        After so many bad answers in a row the next try comes after these seconds; ``None`` for the
        interval.

    warmup
        Within which the first one comes; ``None`` for the interval.

    bindto
        From which they come, but for ``path``; ``None`` for the kernel's choice.

    send, expect
        What ``tcp`` says first, and a regular expression that must be found in the answer.

    command
        The program of ``exec`` and its arguments.
    """

    types: tuple[CheckType, ...] = ()
    interval: float = 10
    connect_timeout: float = 3
    rise: int = 1
    fall: int = 1
    port: int | None = None
    told: bool = False
    retry: int = 0
    delay_before_retry: float | None = None
    warmup: float | None = None
    bindto: Address | None = None
    send: str = ""
    expect: str = ""
    http: HttpWords = field(default_factory=HttpWords)
    tls: TlsWords = field(default_factory=TlsWords)
    command: tuple[str, ...] = ()
    hold: Hold = field(default_factory=Hold)


def read(section: Section) -> Check:
    """A virtual server's ``check``; without types where it names none.

    Raises :class:`~saltext.lvs.errors.InvalidConfig` for the first that is wrong.
    """
    retry, fall = _tries(section)
    check = Check(
        types=tuple(dict.fromkeys(_type(item, at) for item, at in section.items_of("types"))),
        interval=section.number("interval", 0.05, 86400, 10),
        connect_timeout=section.number("connect_timeout", 0.05, 3600, 3),
        rise=section.integer("rise", 1, 100, 1),
        fall=fall,
        port=section.integer("port", 1, MAX_PORT) if section.has("port") else None,
        told=section.has("types"),
        retry=retry,
        delay_before_retry=_seconds(section, "delay_before_retry"),
        warmup=_seconds(section, "warmup"),
        bindto=section.address("bindto") if section.has("bindto") else None,
        send=_text(section, "send"),
        expect=_pattern(section, "expect"),
        http=_http(section.section("http")),
        tls=_tls(section.section("tls")),
        command=_command(section),
        hold=_hold(section.section("hold")),
    )
    section.finish()
    _expect_used(section, check)
    _expect_whole(section, check)
    return check


def _type(value: Any, path: str) -> CheckType:
    for member in CheckType:
        if value == member.value:
            return member
    raise InvalidConfig(path, value, "one of " + ", ".join(member.value for member in CheckType))


def _tries(section: Section) -> tuple[int, int]:
    """``retry`` and ``fall``, of which one follows from the other."""
    if not section.has("retry"):
        fall = section.integer("fall", 1, 100, 1)
        return (fall - 1 if section.has("delay_before_retry") else 0), fall
    retry = section.integer("retry", 0, MAX_RETRIES - 1)
    fall = section.integer("fall", 1, 100, retry + 1)
    if retry >= fall:
        raise InvalidConfig(section.at("retry"), retry, f"below fall, {fall}")
    return retry, fall


def _seconds(section: Section, key: str) -> float | None:
    return section.number(key, 0, 86400) if section.has(key) else None


def _text(section: Section, key: str) -> str:
    expected = f"text of {MOST_TEXT} characters at most"
    return section.text(key, rf"(?s:.{{1,{MOST_TEXT}}})", expected, "")


def _pattern(section: Section, key: str) -> str:
    text = _text(section, key)
    try:
        re.compile(text.encode())
    except (re.error, OverflowError, RecursionError) as error:
        raise InvalidConfig(section.at(key), text, f"a regular expression: {error}") from None
    return text


def _http(section: Section) -> HttpWords:
    found = HttpWords(
        path=section.text(
            "path", rf"/{VISIBLE}{{0,1000}}", "a path such as /health, without spaces", "/"
        ),
        host=section.text("host", HOST, "a host name such as www.example.com", ""),
        method=section.text(
            "method", "|".join(METHODS), f"one of {', '.join(METHODS)}", METHODS[0]
        ),
        status=_statuses(section),
        body=_pattern(section, "body"),
        digest=section.text(
            "digest", DIGEST, "an MD5, SHA-1, SHA-256 or SHA-512 in hexadecimal digits", ""
        ),
    )
    section.finish()
    for key in ("body", "digest"):
        if section.has(key) and found.method == "HEAD":
            raise InvalidConfig(section.at(key), section.raw(key), "left out: HEAD brings no body")
    return found


def _statuses(section: Section) -> frozenset[int]:
    if not section.has("status"):
        return SUCCESS
    found = [_status(item, at) for item, at in section.items_of("status")]
    if not found:
        raise InvalidConfig(section.at("status"), [], "at least one, or left out")
    return frozenset().union(*found)


def _status(value: Any, path: str) -> frozenset[int]:
    span = STATUSES.fullmatch(value) if isinstance(value, str) else None
    low, high = (int(span[1]), int(span[2])) if span else (value, value)
    if type(low) is int and 200 <= low <= high <= 599:
        return frozenset(range(low, high + 1))
    raise InvalidConfig(path, value, "a status from 200 to 599, or a range such as 200-399")


def _tls(section: Section) -> TlsWords:
    found = TlsWords(
        name=section.text("name", NAME, "the host name of a certificate", ""),
        verify=section.flag("verify", True),
        authorities=section.text(
            "authorities", r"/[^\0\n]{0,4000}", "the absolute path of a file in PEM", ""
        ),
    )
    section.finish()
    if found.authorities and not found.verify:
        raise InvalidConfig(
            section.at("authorities"), found.authorities, "left out, as verify is False"
        )
    return found


def _command(section: Section) -> tuple[str, ...]:
    words = section.items_of("command")
    if not words:
        if section.has("command"):
            raise InvalidConfig(section.at("command"), [], "a program and its arguments")
        return ()
    (program, at), arguments = words[0], words[1:]
    if not (_is_word(program) and re.fullmatch(r"/\S+", program)):
        raise InvalidConfig(
            at, program, "the absolute path of a program; its arguments are items of their own"
        )
    return (program, *(_argument(*word) for word in arguments))


def _argument(value: Any, path: str) -> str:
    text = str(value) if type(value) in (int, float) else value
    if not _is_word(text):
        raise InvalidConfig(path, value, "text, or a number")
    for name in PLACEHOLDER.findall(text):
        if name not in PLACEHOLDERS:
            known = ", ".join(f"{{{word}}}" for word in PLACEHOLDERS)
            raise InvalidConfig(path, value, f"without {{{name}}}, or one of {known}")
    return str(text)


def _is_word(value: Any) -> bool:
    """Whether a program can be given it."""
    return isinstance(value, str) and "\0" not in value and len(value) <= MOST_TEXT


def _hold(section: Section) -> Hold:
    first = section.number("first", 0, 86400, 30)
    found = Hold(
        flaps=section.integer("flaps", 0, 100, 3),
        within=section.number("within", 1, 86400, 300),
        first=first,
        longest=section.number("longest", first, 86400, max(first, 600)),
    )
    section.finish()
    return found


# What says more of some types, and is a mistake without them.
_OF_TYPES: dict[str, tuple[CheckType, ...]] = {
    "send": (CheckType.TCP,),
    "expect": (CheckType.TCP,),
    "http": (CheckType.HTTP, CheckType.HTTPS),
    "tls": (CheckType.HTTPS,),
    "command": (CheckType.EXEC,),
}


def _expect_used(section: Section, check: Check) -> None:
    for key, of in _OF_TYPES.items():
        wanted = (*check.types, *(() if check.told else KEEPALIVED_TYPES))
        if section.has(key) and not set(of) & set(wanted):
            words = " or ".join(one.value for one in of)
            raise InvalidConfig(
                section.at(key), section.raw(key), f"left out, or given with {words} in types"
            )


def _expect_whole(section: Section, check: Check) -> None:
    if check.send and not check.expect:
        raise InvalidConfig(section.at("expect"), None, "what the answer to send must have in it")
    if CheckType.EXEC in check.types and not check.command:
        raise InvalidConfig(section.at("command"), None, "the program of exec and its arguments")
    named = check.tls.name or check.http.host
    if CheckType.HTTPS in check.types and check.tls.verify and not named:
        raise InvalidConfig(
            f"{section.at('tls')}:name",
            None,
            "the host name of the certificate (http:host does too), or verify: False",
        )


def expect_keepalived_can(section: Section, check: Check) -> None:
    """Refuse what keepalived's checks have no words for, or other ones."""
    if check.rise > 1:
        raise InvalidConfig(
            section.at("rise"),
            check.rise,
            "1 where keepalived keeps the virtual server: it knows no other",
        )
    for number, kind in enumerate(check.types):
        if kind not in KEEPALIVED_TYPES:
            raise InvalidConfig(
                f"{section.at('types')}:{number}",
                kind.value,
                "path or tcp where keepalived keeps the virtual server: it has checkers for others",
            )
    for key in ("send", "expect", "hold"):
        if section.has(key):
            raise InvalidConfig(
                section.at(key),
                section.raw(key),
                "left out where keepalived keeps the virtual server",
            )


__all__ = [
    "BY_HTTP",
    "PLACEHOLDERS",
    "Check",
    "CheckType",
    "Hold",
    "HttpWords",
    "TlsWords",
    "expect_keepalived_can",
    "read",
]
