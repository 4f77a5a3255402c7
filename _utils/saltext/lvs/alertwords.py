"""The pillar's words for who is told of trouble, how soon, and when not at night.

Credentials are no part of it: those are in the master's own configuration.
"""

from __future__ import annotations

import datetime
import enum
import re
import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from saltext.lvs.errors import InvalidConfig
from saltext.lvs.incidents import Severity
from saltext.lvs.reading import Section, as_name

# RFC 5321 4.5.3.1.3, less the brackets.
MOST_ADDRESS = 254
# RFC 5322 3.2.3, without what a shell, a header or a URL would read otherwise.
ADDRESS = re.compile(r"[A-Za-z0-9_.+&=-]+@[A-Za-z0-9][A-Za-z0-9.-]*")
HOURS = re.compile("([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])")
SERVER = r"[A-Za-z0-9_.:\[\]-]{1,253}( [0-9]{1,5})?"
ZONE = r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}"
DAY_MINUTES = 24 * 60
MONTH_SECONDS = 31 * 24 * 3600


class AlertsBy(enum.Enum):
    """Who tells by mail; never both."""

    SALT = "salt"
    KEEPALIVED = "keepalived"


@dataclass(frozen=True, slots=True)
class Hours:
    """A time of each day, in minutes after midnight; one that begins later than it ends goes over
    midnight.
    """

    start: int
    end: int

    def over_at(self, at: float, zone: datetime.tzinfo) -> float:
        """When they are over for somebody in a time zone; *at* itself, outside of them.

        at
            Seconds since 1970.
        """
        there = datetime.datetime.fromtimestamp(at, zone)
        minute = there.hour * 60 + there.minute
        if not (minute - self.start) % DAY_MINUTES < (self.end - self.start) % DAY_MINUTES:
            return at
        day = there.date() + datetime.timedelta(days=minute >= self.end)
        end = datetime.time(self.end // 60, self.end % 60, tzinfo=zone)
        # Where the clock is put forward meanwhile, it may be over already by the one it was.
        return max(datetime.datetime.combine(day, end).timestamp(), at + 1)


@dataclass(frozen=True, slots=True)
class Alerts:
    """Who is told by mail, through which servers, and how soon.

    webhooks
        Names from the master's configuration.

    settle, flap_within, fold, remind
        Seconds, and *storm* a number of troubles: as in :class:`saltext.lvs.folding.Rules`.

    quiet_hours
        When nothing of a severity is told.

    time_zone
        That of quiet hours and of times in mails; empty for the master's own.
    """

    by: AlertsBy = AlertsBy.SALT
    notification_email: tuple[str, ...] = ()
    notification_email_from: str | None = None
    smtp_server: tuple[str, ...] = ("localhost",)
    smtp_connect_timeout: int = 30
    webhooks: tuple[str, ...] = ()
    settle: float = 30
    flap_within: float = 600
    fold: float = 60
    storm: int = 5
    remind: float = 4 * 3600
    quiet_hours: Mapping[Severity, Hours] = field(default_factory=dict)
    time_zone: str = ""

    def quiet_until(self, severity: Severity, at: float) -> float:
        """The earliest time, in seconds since 1970, at which that may be told."""
        hours = self.quiet_hours.get(severity)
        return at if hours is None else hours.over_at(at, zone_of(self.time_zone))


def zone_of(name: str) -> datetime.tzinfo:
    """A time zone by its name; where this machine has none of that name, or it is empty, its own.

    tzset(3), tzfile(5).
    """
    try:
        if name:
            return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, OSError, ValueError):
        pass
    return _Own()


class _Own(datetime.tzinfo):
    """This machine's time zone: its offset changes over the year, so each time is asked for."""

    def utcoffset(self, when: datetime.datetime | None) -> datetime.timedelta | None:
        return None if when is None else when.replace(tzinfo=None).astimezone().utcoffset()

    def dst(self, when: datetime.datetime | None) -> datetime.timedelta | None:
        return None if when is None else datetime.timedelta(0)

    def tzname(self, when: datetime.datetime | None) -> str | None:
        return None if when is None else when.replace(tzinfo=None).astimezone().tzname()

    def fromutc(self, when: datetime.datetime) -> datetime.datetime:
        local = when.replace(tzinfo=datetime.timezone.utc).astimezone()
        return local.replace(tzinfo=self)


def read(section: Section) -> Alerts:
    """What ``lvs:alerts`` says.

    Raises :class:`~saltext.lvs.errors.InvalidConfig` for the first thing that is wrong.
    """
    found = Alerts(
        by=section.choice("by", AlertsBy, AlertsBy.SALT),
        notification_email=addresses(section, "notification_email"),
        notification_email_from=_sender(section),
        smtp_server=_servers(section),
        smtp_connect_timeout=section.integer("smtp_connect_timeout", 1, 3600, 30),
        webhooks=tuple(as_name(item, path) for item, path in section.items_of("webhooks")),
        settle=section.number("settle", 0, 3600, 30),
        flap_within=section.number("flap_within", 0, 24 * 3600, 600),
        fold=section.number("fold", 0, 3600, 60),
        storm=section.integer("storm", 2, 1000, 5),
        remind=section.number("remind", 0, MONTH_SECONDS, 4 * 3600),
        quiet_hours=_quiet(section.section("quiet_hours")),
        time_zone=section.text(
            "time_zone", ZONE, "the name of a time zone such as Europe/Berlin", ""
        ),
    )
    section.finish()
    if found.by is AlertsBy.KEEPALIVED:
        _expect_keepalived_can(section, found)
    return found


def addresses(section: Section, key: str) -> tuple[str, ...]:
    """The mail addresses under a key, each once."""
    return tuple(dict.fromkeys(email(item, path) for item, path in section.items_of(key)))


def email(value: Any, path: str) -> str:
    """A mail address of those letters that every place which prints it can take."""
    short = isinstance(value, str) and len(value) <= MOST_ADDRESS
    if short and ADDRESS.fullmatch(value) and ".." not in value:
        return str(value)
    raise InvalidConfig(path, value, "a mail address such as noc@example.com")


def _sender(section: Section) -> str | None:
    key = "notification_email_from"
    return email(section.raw(key), section.at(key)) if section.has(key) else None


def _servers(section: Section) -> tuple[str, ...]:
    found = []
    for item, path in section.items_of("smtp_server"):
        if not (isinstance(item, str) and re.fullmatch(SERVER, item)):
            expected = "a host name or an address, with a port after a blank if it is another"
            raise InvalidConfig(path, item, expected)
        found.append(item)
    return tuple(dict.fromkeys(found)) or ("localhost",)


def _quiet(section: Section) -> dict[Severity, Hours]:
    found = {}
    for severity in Severity:
        if section.has(severity.value):
            text = section.text(severity.value, HOURS.pattern, "hours such as 22:00-07:00")
            # A pattern that fits has these four.
            start, start_minute, end, end_minute = map(int, re.findall("[0-9]+", text))
            found[severity] = Hours(start * 60 + start_minute, end * 60 + end_minute)
            if found[severity].start == found[severity].end:
                expected = "hours such as 22:00-07:00, not a whole day or none of it"
                raise InvalidConfig(section.at(severity.value), text, expected)
    section.finish()
    return found


# What keepalived has no word for.
_OURS = ("webhooks", "settle", "flap_within", "fold", "storm", "remind", "quiet_hours", "time_zone")


def _expect_keepalived_can(section: Section, alerts: Alerts) -> None:
    if not alerts.notification_email:
        expected = "a list of at least one mail address for keepalived"
        raise InvalidConfig(section.at("notification_email"), None, expected)
    if len(alerts.smtp_server) > 1:
        expected = "one server: keepalived knows no second one"
        raise InvalidConfig(section.at("smtp_server"), list(alerts.smtp_server), expected)
    for key in _OURS:
        if section.has(key):
            raise InvalidConfig(
                section.at(key), section.raw(key), "left out: keepalived has nothing like it"
            )
