"""The pillar's words for alerts: every wrong one is named, and quiet hours end when they should."""

from __future__ import annotations

import datetime
import zoneinfo
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from saltext.lvs import alertwords
from saltext.lvs.alertwords import Alerts, AlertsBy, Hours
from saltext.lvs.errors import InvalidConfig
from saltext.lvs.incidents import Severity
from saltext.lvs.reading import Section

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")


def read(value: Any) -> Alerts:
    return alertwords.read(Section(value, "lvs:alerts"))


def test_nothing_said_is_the_defaults() -> None:
    assert read(None) == Alerts()


def test_all_that_can_be_said_is_read() -> None:
    assert read(
        {
            "by": "salt",
            "notification_email": ["noc@example.com", "noc@example.com", "a.b+c@example.com"],
            "notification_email_from": "lvs@example.com",
            "smtp_server": ["mail.example.com 587", "10.0.0.5", "[fd00::1]:25"],
            "smtp_connect_timeout": 5,
            "webhooks": ["chat"],
            "settle": 10,
            "flap_within": 300,
            "fold": 20,
            "storm": 9,
            "remind": 0,
            "quiet_hours": {"warning": "22:00-07:30", "info": "00:00-23:59"},
            "time_zone": "Europe/Berlin",
        }
    ) == Alerts(
        by=AlertsBy.SALT,
        notification_email=("noc@example.com", "a.b+c@example.com"),
        notification_email_from="lvs@example.com",
        smtp_server=("mail.example.com 587", "10.0.0.5", "[fd00::1]:25"),
        smtp_connect_timeout=5,
        webhooks=("chat",),
        settle=10,
        flap_within=300,
        fold=20,
        storm=9,
        remind=0,
        quiet_hours={Severity.WARNING: Hours(1320, 450), Severity.INFO: Hours(0, 1439)},
        time_zone="Europe/Berlin",
    )


def test_a_single_address_and_server_may_stand_without_a_list() -> None:
    found = read({"notification_email": "noc@example.com", "smtp_server": "mail"})
    assert (found.notification_email, found.smtp_server) == (("noc@example.com",), ("mail",))


MAIL = "a mail address such as noc@example.com"
HOURS = "hours such as 22:00-07:00"


@pytest.mark.parametrize(
    ("value", "path", "expected"),
    [
        pytest.param(
            {"notification_email": ["noc"]}, "notification_email:0", MAIL, id="an address without @"
        ),
        pytest.param(
            {"notification_email": "a@b\nBcc: x@y"},
            "notification_email:0",
            MAIL,
            id="an address with another header in it",
        ),
        pytest.param(
            {"notification_email": f"{'a' * 250}@b.example"},
            "notification_email:0",
            MAIL,
            id="an address that is too long",
        ),
        pytest.param(
            {"notification_email_from": "LVS <lvs@example.com>"},
            "notification_email_from",
            MAIL,
            id="a sender with a name",
        ),
        pytest.param(
            {"smtp_server": "mail; rm"},
            "smtp_server:0",
            "a host name or an address, with a port after a blank if it is another",
            id="a server that is none",
        ),
        pytest.param({"settle": -1}, "settle", "a number from 0 to 3600", id="a negative time"),
        pytest.param({"storm": 1}, "storm", "a whole number from 2 to 1000", id="a storm of one"),
        pytest.param(
            {"quiet_hours": {"warning": 1320}},
            "quiet_hours:warning",
            HOURS,
            id="hours that YAML took for a number",
        ),
        pytest.param(
            {"quiet_hours": {"warning": "22:00-24:00"}},
            "quiet_hours:warning",
            HOURS,
            id="an hour that no day has",
        ),
        pytest.param(
            {"quiet_hours": {"critical": "08:00-08:00"}},
            "quiet_hours:critical",
            f"{HOURS}, not a whole day or none of it",
            id="hours that are none or all",
        ),
        pytest.param(
            {"quiet_hours": {"urgent": "22:00-07:00"}},
            "quiet_hours:urgent",
            "left out, or one of: critical, info, warning",
            id="a severity that is none",
        ),
        pytest.param(
            {"time_zone": "../../etc/passwd"},
            "time_zone",
            "the name of a time zone such as Europe/Berlin",
            id="a time zone that is a path",
        ),
        pytest.param(
            {"by": "keepalived"},
            "notification_email",
            "a list of at least one mail address for keepalived",
            id="keepalived without an address",
        ),
        pytest.param(
            {"by": "keepalived", "notification_email": "a@b", "smtp_server": ["a", "b"]},
            "smtp_server",
            "one server: keepalived knows no second one",
            id="keepalived with two servers",
        ),
        pytest.param(
            {"by": "keepalived", "notification_email": "a@b", "remind": 60},
            "remind",
            "left out: keepalived has nothing like it",
            id="keepalived with what it cannot",
        ),
    ],
)
def test_what_is_wrong_is_named_with_what_would_be_right(
    value: Any, path: str, expected: str
) -> None:
    with pytest.raises(InvalidConfig) as raised:
        read(value)
    assert str(raised.value).startswith(f"lvs:alerts:{path} is ")
    assert str(raised.value).endswith(f"it should be {expected}")


def at(text: str) -> float:
    return datetime.datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp()


@pytest.mark.parametrize(
    ("hours", "now", "over"),
    [
        pytest.param(Hours(1320, 420), "2026-11-23 21:59:59", None, id="before they begin"),
        pytest.param(
            Hours(1320, 420), "2026-11-23 22:00:00", "2026-11-24 07:00:00", id="as they begin"
        ),
        pytest.param(
            Hours(1320, 420), "2026-11-24 06:59:59", "2026-11-24 07:00:00", id="after midnight"
        ),
        pytest.param(Hours(1320, 420), "2026-11-24 07:00:00", None, id="as they end"),
        pytest.param(
            Hours(720, 780), "2026-11-23 12:30:00", "2026-11-23 13:00:00", id="within one day"
        ),
        pytest.param(
            Hours(1320, 420),
            "2026-10-24 23:00:00",
            "2026-10-25 07:00:00",
            id="over the night in which clocks are put back",
        ),
        pytest.param(
            Hours(1320, 420),
            "2026-03-28 23:00:00",
            "2026-03-29 07:00:00",
            id="over the night in which clocks are put forward",
        ),
    ],
)
def test_quiet_hours_end_by_the_clock_on_the_wall(hours: Hours, now: str, over: str | None) -> None:
    assert hours.over_at(at(now), BERLIN) == at(over or now)


@given(
    st.integers(0, 1439),
    st.integers(1, 1438),
    st.floats(0, 4e9),
    st.sampled_from(["Europe/Berlin", "UTC", "Australia/Lord_Howe", ""]),
)
def test_they_end_within_a_day_and_are_over_then(
    start: int, length: int, now: float, zone: str
) -> None:
    hours, where = Hours(start, (start + length) % 1440), alertwords.zone_of(zone)
    end = hours.over_at(now, where)
    assert now <= end <= now + 25.5 * 3600
    # Where the hour of the end comes twice, the second one may be quiet again, for an hour.
    assert hours.over_at(end + 3601, where) <= end + 3601 + 25.5 * 3600


def test_each_severity_has_hours_of_its_own() -> None:
    alerts = Alerts(quiet_hours={Severity.WARNING: Hours(1320, 420)}, time_zone="Europe/Berlin")
    night = at("2026-11-23 23:00:00")
    assert alerts.quiet_until(Severity.CRITICAL, night) == night
    assert alerts.quiet_until(Severity.WARNING, night) == at("2026-11-24 07:00:00")


def test_a_zone_that_this_machine_does_not_have_is_its_own() -> None:
    now = datetime.datetime.fromtimestamp(1_795_000_000, alertwords.zone_of("Nowhere/Nothing"))
    assert (
        now.isoformat() == datetime.datetime.fromtimestamp(1_795_000_000).astimezone().isoformat()
    )
