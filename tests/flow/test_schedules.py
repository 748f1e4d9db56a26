"""Opening hours in local time: weekdays, midnight, closed dates, changes of the clock."""

from __future__ import annotations

from datetime import date, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.flow.language.schedules import (
    Schedule,
    ScheduleViews,
    parse_dates,
    parse_days,
    parse_hours,
    parse_zone,
)

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp()


def schedule(hours: dict[str, str], *closed: str) -> Schedule:
    by_day = {day: list(parse_hours(text)) for days, text in hours.items() for day in parse_days(days)}
    return Schedule(BERLIN, by_day, tuple(parse_dates(text) for text in closed))


OFFICE = schedule({"mon-thu": "09:00-17:30", "fri": "09:00-12:00, 13:00-15:00"}, "2026-12-24..2026-12-26", "2027-01-01")


@pytest.mark.parametrize(
    ("when", "is_open"),
    [
        ("2026-11-23 08:59:59", False),  # a Monday
        ("2026-11-23 09:00:00", True),
        ("2026-11-23 17:29:59", True),
        ("2026-11-23 17:30:00", False),
        ("2026-11-27 12:30:00", False),  # Friday at noon
        ("2026-11-27 13:00:00", True),
        ("2026-11-28 10:00:00", False),  # Saturday
        ("2026-12-24 10:00:00", False),  # Thursday, closed
        ("2026-12-28 10:00:00", True),
        ("2027-01-01 10:00:00", False),
    ],
)
def test_office_hours(when: str, is_open: bool) -> None:
    assert OFFICE.is_open(at(when)) is is_open


def test_hours_are_local_in_summer_and_winter() -> None:
    for day in ("2026-03-27", "2026-03-30", "2026-10-23", "2026-10-26"):  # around both changes of the clock
        assert not OFFICE.is_open(at(f"{day} 08:59:00"))
        assert OFFICE.is_open(at(f"{day} 09:01:00"))


def test_night_belongs_to_the_day_it_starts_on() -> None:
    night = schedule({"fri": "22:00-06:00"}, "2026-12-25")
    assert night.is_open(at("2026-11-27 23:00:00"))
    assert night.is_open(at("2026-11-28 05:59:00"))  # Saturday morning
    assert not night.is_open(at("2026-11-28 06:00:00"))
    assert not night.is_open(at("2026-11-27 05:00:00"))  # Friday morning
    assert not night.is_open(at("2026-12-26 05:00:00"))  # began on a closed date


def test_whole_day() -> None:
    always = schedule({"daily": "00:00-24:00"})
    assert all(always.is_open(at(f"2026-11-23 {hour:02}:00:00")) for hour in range(24))


def test_view_answers_for_now() -> None:
    now = [at("2026-11-23 10:00:00"), at("2026-11-23 20:00:00")]
    views = ScheduleViews({"office": OFFICE}, lambda: now.pop(0))
    assert [views["office"]["open"] for _ in range(2)] == [True, False]
    with pytest.raises(KeyError):
        views["home"]


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("mon", (0,)),
        ("mon-thu", (0, 1, 2, 3)),
        ("fri-mon", (4, 5, 6, 0)),
        ("sat, sun", (5, 6)),
        ("Monday-Wednesday", (0, 1, 2)),
        ("daily", tuple(range(7))),
        ("mon-wed, tue", (0, 1, 2)),
    ],
)
def test_days(text: str, days: tuple[int, ...]) -> None:
    assert parse_days(text) == days


@pytest.mark.parametrize("text", ["", "xyz", "mon-", "mond", "mo", "montag", "daily-fri", "mon tue"])
def test_no_days(text: str) -> None:
    with pytest.raises(ValueError, match="is not a day"):
        parse_days(text)


@pytest.mark.parametrize("text", ["9-17", "09:00", "25:00-26:00", "09:60-10:00", "24:00-24:00", "09:00-24:30", ""])
def test_no_hours(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time range"):
        parse_hours(text)


@pytest.mark.parametrize("text", ["2026-02-30", "24.12.2026", "2026-12-26..2026-12-24", "2026-12-24..", "today"])
def test_no_dates(text: str) -> None:
    with pytest.raises(ValueError, match="is not a date"):
        parse_dates(text)


def test_dates() -> None:
    assert parse_dates("2027-01-01") == (date(2027, 1, 1), date(2027, 1, 1))


@pytest.mark.parametrize("name", ["Europe/Berln", "../../etc/passwd", "/etc/localtime", ""])
def test_no_zone(name: str) -> None:
    with pytest.raises(ValueError, match="is not a time zone"):
        parse_zone(name)


@given(st.integers(0, 23), st.integers(0, 59), st.integers(0, 23), st.integers(0, 59), st.integers(0, 10079))
def test_a_range_is_open_exactly_from_start_to_end(h1: int, m1: int, h2: int, m2: int, minute: int) -> None:
    start, end = h1 * 60 + m1, h2 * 60 + m2
    span = end - start if end > start else end - start + 1440
    one = schedule({"tue": f"{h1:02}:{m1:02}-{h2:02}:{m2:02}"})
    instant = at("2026-11-23 00:00:00") + minute * 60  # a week without a change of the clock
    assert one.is_open(instant) is (1440 + start <= minute < 1440 + start + span)
