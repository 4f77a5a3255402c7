"""A letter as a mail: what matters first, and nothing in it but what was meant.

All mails of an incident are one thread by their References (RFC 5322 section 3.6.4). Their subjects
differ: each says what is so now, because that is what a telephone shows. Programs that also want
equal subjects for a thread show them one by one.

Names and reasons come from machines that may be hostile: they are cleaned, cut and escaped before
they get anywhere.
"""

from __future__ import annotations

import datetime
import email.header
import email.message
import email.policy
import email.utils
import html
import re
import textwrap
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from saltext.lvs.folding import FIRST_MOMENTS
from saltext.lvs.incidents import Incident, Kind, Letter, Part, Severity, Standing

MOST_SUBJECT = 120
# RFC 5322 section 2.1.1 wants lines of 78 at most, RFC 2047 section 2 and RFC 2045 section 6.7 76.
LINE = 76
# In octets of UTF-8, of which each becomes up to six in both parts of a mail.
MOST_WORDS, MOST_TITLE, MOST_REASON, MOST_NAME = 300, 100, 120, 40
MOST_SENTENCE, MOST_MOMENT = 200, 120
# An incident may have thousands.
MOST_PARTS, MOST_STANDINGS, MOST_COMMANDS, MOST_SENTENCES, MOST_NAMED = 20, 10, 10, 5, 3
# As many after those with which it began.
LAST_MOMENTS = 15
POLICY = email.policy.EmailPolicy(linesep="\r\n", cte_type="7bit", max_line_length=LINE)
# RFC 5322 section 2.2.3
_FOLD = "\r\n "
_ENDS = (Kind.CLOSED, Kind.PASSED)
# What is not seen although it counts as a letter or a mark (Unicode, Default_Ignorable_Code_Point).
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
# What would be another header, or another address.
_NO_ADDRESS = re.compile(r"[^!-~]|[,;<>]")


@dataclass(frozen=True, slots=True)
class Words:
    """What a cluster's mails say of themselves.

    sender, recipients
        Mail addresses.

    time_zone
        That of times in the text.

    master
        Who tells it.

    Raises ValueError for an address that cannot stand in a header.
    """

    sender: str
    recipients: tuple[str, ...]
    cluster: str
    time_zone: datetime.tzinfo
    master: str

    def __post_init__(self) -> None:
        for address in (self.sender, *self.recipients):
            if not address or _NO_ADDRESS.search(address):
                raise ValueError(f"{address!r} is no mail address")


# --------------------------------------------------------------------------------------------------
# The message


def compose(letter: Letter, words: Words) -> bytes:
    """The whole message, in 7-bit ASCII with lines ended by CRLF, as smtplib sends it."""
    incident = letter.incident
    headers = _headers(subject_of(letter, words.cluster), words, letter.at)
    headers["Message-ID"] = message_id(incident.id, letter.number, words.sender)
    if letter.number > 1:
        # The thread's first, and the one before this.
        numbers = dict.fromkeys((1, letter.number - 1))
        before = [message_id(incident.id, number, words.sender) for number in numbers]
        headers["In-Reply-To"] = before[-1]
        headers["References"] = _FOLD.join(before)
    headers["X-LVS-Cluster"] = _header("X-LVS-Cluster", words.cluster)
    headers["X-LVS-Incident"] = _header("X-LVS-Incident", incident.id)
    headers["X-LVS-Severity"] = incident.severity.value
    if incident.severity is Severity.CRITICAL and letter.kind not in _ENDS:
        headers["Importance"] = "high"
    return _message(headers, text_of(letter, words), html_of(letter, words))


def trial(words: Words, at: float, number: str) -> bytes:
    """A mail that only tells that mail gets through.

    at
        Seconds since 1970.

    number
        What makes it that one.
    """
    headers = _headers(f"{_before(words.cluster)}mail gets through", words, at)
    headers["Message-ID"] = message_id(f"test-{number}", 1, words.sender)
    text = f"{clean(words.master)} can send mail about {clean(words.cluster)}.\n\nNothing is wrong."
    return _message(headers, f"{text}\n", f"<p>{_escaped(text)}</p>\n")


def message_id(incident: str, number: int, sender: str) -> str:
    """That of one letter of an incident (RFC 5322 section 3.6.4)."""
    safe = re.sub("[^A-Za-z0-9-]", "-", incident)[:60]
    return f"<{safe}.{number}@{sender.rpartition('@')[2] or 'localhost'}>"


def _headers(subject: str, words: Words, at: float) -> dict[str, str]:
    date = datetime.datetime.fromtimestamp(at, datetime.timezone.utc)
    return {
        "From": words.sender,
        "To": f",{_FOLD}".join(words.recipients),
        "Subject": _header("Subject", subject),
        "Date": email.utils.format_datetime(date),
        # RFC 3834: nobody's holiday notice answers it.
        "Auto-Submitted": "auto-generated",
        "X-Auto-Response-Suppress": "All",
    }


def _header(name: str, text: str) -> str:
    """The folded value of a header: as it is where that can be, else encoded words (RFC 2047)."""
    safe = clean(text)
    if safe.isascii() and all(len(f"{name}: {word}") < LINE for word in safe.split()):
        lines = textwrap.wrap(
            f"{name}: {safe}", LINE - 1, break_long_words=False, break_on_hyphens=False
        )
        return _FOLD.join(lines).removeprefix(f"{name}:").removeprefix(" ")
    coded = email.header.Header(safe, "utf-8", maxlinelen=LINE, header_name=name)
    return coded.encode(linesep="\r\n")


def _message(headers: Mapping[str, str], text: str, page: str) -> bytes:
    mail = email.message.EmailMessage(POLICY)
    mail.set_content(text, cte="quoted-printable")
    mail.add_alternative(page, subtype="html", cte="quoted-printable")
    # Not by chance, so that a repeat is the same; quoted-printable has no line that begins so.
    mail.set_boundary(f"=_{re.sub('[^A-Za-z0-9.-]', '', headers['Message-ID'])[:60]}")
    # The email package's own folding loses blanks between encoded words.
    before = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return before.encode("ascii") + mail.as_bytes()


# --------------------------------------------------------------------------------------------------
# The subject


class _Said(NamedTuple):
    """What a letter says in one line; of too long a line first *why* is cut, and then *what*."""

    lead: str
    what: str
    why: str
    tail: str

    def within(self, most: int) -> str:
        """As one line of so many characters."""
        room = most - len(self.lead) - len(self.tail)
        what = _short(self.what, room)
        left = room - len(what) - len(" ()")
        why = f" ({_short(self.why, left)})" if self.why and left > 0 else ""
        return f"{self.lead}{what}{why}{self.tail}"


def subject_of(letter: Letter, cluster: str) -> str:
    """What matters first: ``[lvs prod] rs1:80 OUT of web (refused); 3 of 4 in service``."""
    before, after = _before(cluster), _in_service(letter)
    return before + _said(letter).within(MOST_SUBJECT - len(before) - len(after)) + after


def _before(cluster: str) -> str:
    return f"[lvs {_short(clean(cluster), 40)}] "


def _said(letter: Letter) -> _Said:
    if letter.kind in _ENDS:
        return _over(letter)
    parts = letter.incident.lasting or letter.incident.parts
    what, why, tail = _wrong(parts)
    return _Said(_lead(letter, parts), what, why, tail)


def _lead(letter: Letter, parts: Sequence[Part]) -> str:
    if letter.kind is Kind.REMINDER:
        return f"still, for {_lasts(letter, parts)}: "
    return "again: " if letter.kind is Kind.AGAIN else ""


def _lasts(letter: Letter, parts: Sequence[Part]) -> str:
    return duration(letter.at - min(part.since for part in parts))


def _wrong(parts: Sequence[Part]) -> tuple[str, str, str]:
    """What is wrong, why or which, and what is to be said after it."""
    worst = max(parts, key=lambda part: part.trouble.severity.rank)
    if len(parts) == 1 or worst.trouble.severity is Severity.CRITICAL:
        more = f", and {len(parts) - 1} more" if len(parts) > 1 else ""
        return _title(worst), _why(worst), more
    titles = [_title(part) for part in parts]
    where, names = _servers(parts, titles, "OUT of")
    if where:
        return f"{len(parts)} real servers {where}", _first_of(names), ""
    return f"{len(parts)} in trouble", _first_of(titles), ""


def _over(letter: Letter) -> _Said:
    incident, parts = letter.incident, letter.incident.parts
    end = letter.at if incident.closed is None else incident.closed
    often = max(part.times for part in parts)
    up_to = "up to " if len(parts) > 1 else ""
    times = f" ({up_to}{often} times)" if often > 1 else ""
    lead = "it passed: " if letter.kind is Kind.PASSED else ""
    lasted = end - incident.opened
    # Of what was between two looks nobody knows how long it was.
    after = f" after {duration(lasted)}" if lasted else ""
    return _Said(lead, _well(parts), "", f"{after}{times}")


def _well(parts: Sequence[Part]) -> str:
    overs = [clean(part.trouble.over, MOST_TITLE) for part in parts]
    if len(parts) == 1:
        return overs[0]
    where, _ = _servers(parts, overs, "back in")
    return f"{len(parts)} real servers {where}" if where else f"all {len(parts)} troubles over"


def _servers(parts: Sequence[Part], said: Sequence[str], words: str) -> tuple[str, list[str]]:
    """Where the real servers are of which all of it is said, and which; nothing if it is not."""
    names = [clean(part.trouble.virtual_server, MOST_NAME) for part in parts]
    ends = [f" {words} {name}" if name else "\n" for name in names]
    if not all(one.endswith(end) for one, end in zip(said, ends, strict=True)):
        return "", []
    labels = [one.removesuffix(end) for one, end in zip(said, ends, strict=True)]
    if len(set(names)) == 1:
        return f"{words} {names[0]}", labels
    return words.split()[0], [
        f"{label} of {name}" for label, name in zip(labels, names, strict=True)
    ]


def _title(part: Part) -> str:
    return clean(part.trouble.title, MOST_TITLE)


def _why(part: Part) -> str:
    times = f"{part.times} times" if part.times > 1 else ""
    return ", ".join(filter(None, (clean(part.trouble.reason, MOST_REASON), times)))


def _first_of(names: Sequence[str]) -> str:
    """The first few of some names, and how many there are besides."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def _in_service(letter: Letter) -> str:
    """How many serve, of the virtual server that is worst off of those that it is about."""
    found = _concerned(letter, letter.incident.lasting or letter.incident.parts)
    if not found:
        return ""
    name = f"{_short(clean(found[0].virtual_server), 20)}: " if len(found) > 1 else ""
    return f"; {name}{found[0].in_service} of {found[0].of} in service"


def _concerned(letter: Letter, parts: Sequence[Part]) -> list[Standing]:
    """How the virtual servers stand that these are about; what is worst off comes first."""
    concerned = {part.trouble.virtual_server for part in parts}
    found = [one for one in letter.standings if one.virtual_server in concerned]
    return sorted(found, key=lambda one: one.in_service / max(one.of, 1))


# --------------------------------------------------------------------------------------------------
# The text


def text_of(letter: Letter, words: Words) -> str:
    """The plain text, in the order in which a person asks."""
    blocks = [_first_words(letter), *(_paragraph(*block) for block in _blocks(letter, words))]
    return "\n\n".join(blocks) + "\n"


def _paragraph(heading: str, lines: Sequence[str]) -> str:
    return "\n".join([f"{heading}:", *(f"  {line}" for line in lines)])


def _first_words(letter: Letter) -> str:
    """One sentence: what is wrong now, or what was and is over."""
    said = _said(letter)
    # Nothing of it has to be cut here.
    whole = said._replace(lead="").within(2 * MOST_WORDS)
    if letter.kind in _ENDS:
        return f"{_NOW[letter.kind]}: {whole}."
    parts = letter.incident.lasting or letter.incident.parts
    again = letter.kind is Kind.AGAIN
    lasts = f"first {_lasts(letter, parts)} ago" if again else f"for {_lasts(letter, parts)}"
    return f"{_NOW.get(letter.kind, 'Now')}: {whole}, {lasts}."


_NOW = {
    Kind.AGAIN: "Again",
    Kind.REMINDER: "Still",
    Kind.CLOSED: "It is over",
    Kind.PASSED: "It was over before anybody was told",
}


def _blocks(letter: Letter, words: Words) -> Iterator[tuple[str, list[str]]]:
    """The rest, each with its heading."""
    incident, zone = letter.incident, words.time_zone
    shown = _shown(incident)
    more = [part for part in shown if part.lasts]
    further = f"salt-run lvs.incidents {clean(incident.id)}"
    left = len(incident.parts) - len(shown)
    for heading, lines in (
        ("What", [_part_line(part, zone) for part in shown] + _and_more(left, further)),
        ("Done automatically", _sentences([part.trouble.done for part in shown])),
        ("In service", _standings(letter)),
        ("What you may do", _sentences([part.trouble.advice for part in more])),
        ("To look further", _commands(more)),
        (f"Course ({_zone_names(letter, zone)})", _course(incident, zone, further)),
        (f"Incident {clean(incident.id)}, told by {clean(words.master)}", [further]),
    ):
        if lines:
            yield heading, lines


def _shown(incident: Incident) -> list[Part]:
    """The troubles that a mail names: first those that last, and of those the worst."""
    by = sorted(incident.parts, key=lambda part: (not part.lasts, -part.trouble.severity.rank))
    return by[:MOST_PARTS]


def _and_more(number: int, further: str) -> list[str]:
    return [f"and {number} more: {further}"] if number else []


def _part_line(part: Part, zone: datetime.tzinfo) -> str:
    why = f" ({_why(part)})" if _why(part) else ""
    who = f", told by {_tellers(part)}" if part.trouble.told_by else ""
    since = moment(part.since, zone)
    when = f"since {since}" if part.until is None else f"{since} to {moment(part.until, zone)}"
    return f"{_title(part)}{why}: {when}{who}"


def _tellers(part: Part) -> str:
    return _first_of([clean(one, MOST_NAME) for one in part.trouble.told_by])


def _sentences(sentences: Sequence[str]) -> list[str]:
    found = dict.fromkeys(clean(one, MOST_SENTENCE) for one in sentences if one)
    return list(found)[:MOST_SENTENCES]


def _standings(letter: Letter) -> list[str]:
    found = _concerned(letter, letter.incident.parts)
    return [_standing(one) for one in found[:MOST_STANDINGS]]


def _standing(standing: Standing) -> str:
    serving = f"{standing.in_service}" if standing.in_service else "NONE"
    return f"{clean(standing.virtual_server, MOST_NAME)}: {serving} of {standing.of} in service"


def _commands(parts: Sequence[Part]) -> list[str]:
    found = dict.fromkeys(one for part in parts for one in part.trouble.commands)
    return [clean(one, MOST_MOMENT) for one in list(found)[:MOST_COMMANDS]]


def _course(incident: Incident, zone: datetime.tzinfo, further: str) -> list[str]:
    """How it began, and how it went on in the end."""
    lines = [f"{moment(one.at, zone)}  {clean(one.text, MOST_MOMENT)}" for one in incident.moments]
    first, later = lines[:FIRST_MOMENTS], lines[FIRST_MOMENTS:]
    last = later[-LAST_MOMENTS:]
    left = len(later) - len(last)
    if not incident.omitted:
        return [*first, *_and_more(left, further), *last]
    return [*first, f"and {incident.omitted + left} more, of which not all are kept", *last]


def _zone_names(letter: Letter, zone: datetime.tzinfo) -> str:
    """How its clock differs from UTC; in two ways, if it was changed meanwhile."""
    ends = [datetime.datetime.fromtimestamp(at, zone) for at in (letter.incident.opened, letter.at)]
    offsets = {_zone_name(end): end.strftime("%z") for end in ends}
    return ", ".join(
        name if name == "UTC" else f"{name} is UTC{offset[:3]}:{offset[3:5]}"
        for name, offset in offsets.items()
    )


# --------------------------------------------------------------------------------------------------
# The page

_HEADS = ("What", "Why", "Since", "Until", "Told by")
_CELL = 'style="padding:2px 12px 2px 0;text-align:left"'


def html_of(letter: Letter, words: Words) -> str:
    """The same as a page: nothing in it is fetched, and nothing acts."""
    blocks = list(_blocks(letter, words))
    shown = _shown(letter.incident)
    # What the text says of those that the table does not have.
    left = "".join(f"<p>{_escaped(line)}</p>\n" for line in blocks[0][1][len(shown) :])
    rest = "".join(_section(*block) for block in blocks[1:])
    return (
        '<html><body style="font-family:sans-serif;font-size:14px">\n'
        f"<p><b>{_escaped(_first_words(letter))}</b></p>\n"
        f"{_table(shown, words.time_zone)}{left}{rest}</body></html>\n"
    )


def _table(parts: Sequence[Part], zone: datetime.tzinfo) -> str:
    heads = "".join(f"<th {_CELL}>{head}</th>" for head in _HEADS)
    rows = "".join(_row(part, zone) for part in parts)
    return f'<table style="border-collapse:collapse">\n<tr>{heads}</tr>\n{rows}</table>\n'


def _row(part: Part, zone: datetime.tzinfo) -> str:
    until = "" if part.until is None else moment(part.until, zone)
    cells = (_title(part), _why(part), moment(part.since, zone), until, _tellers(part))
    return "<tr>" + "".join(f"<td {_CELL}>{_escaped(one)}</td>" for one in cells) + "</tr>\n"


def _section(heading: str, lines: Sequence[str]) -> str:
    said = "<br>\n".join(map(_escaped, lines))
    return f"<p><b>{_escaped(heading)}</b><br>\n{said}</p>\n"


def _escaped(text: str) -> str:
    # Between tags alone; nothing of it stands in an attribute.
    return html.escape(text, quote=False)


# --------------------------------------------------------------------------------------------------
# Words


def clean(text: str, most: int = MOST_WORDS) -> str:
    """One line of visible text: nothing that ends a line, turns its direction, hides, or looks like
    an encoded word of RFC 2047.

    most
        Octets of UTF-8.
    """
    line = " ".join(text[:most].split())
    seen = "".join(one if _is_seen(one) else "\N{REPLACEMENT CHARACTER}" for one in line)
    octets = seen.replace("=?", "= ?").encode()
    if len(text) <= most and len(octets) <= most:
        return octets.decode()
    return octets[: most - len("…".encode())].decode(errors="ignore") + "…"


def _is_seen(one: str) -> bool:
    return one == " " or not (unicodedata.category(one)[0] in "CZ" or _UNSEEN.match(one))


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: max(most - 1, 0)] + "…"


def duration(seconds: float) -> str:
    """``12 s``, ``4 min 10 s``, ``3 h 05 min``, ``2 days 4 h``."""
    whole = max(0, round(seconds))
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} day{'s' * (days > 1)} {hours} h"
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def moment(at: float, zone: datetime.tzinfo) -> str:
    """A time on the clock of a time zone: ``2026-11-23 16:04:11 CET``."""
    there = datetime.datetime.fromtimestamp(at, zone)
    return f"{there.strftime('%Y-%m-%d %H:%M:%S')} {_zone_name(there)}"


def _zone_name(there: datetime.datetime) -> str:
    return clean(there.tzname() or there.strftime("%z"), MOST_NAME)
