"""Opening hours: which days and times are open, which dates are closed, in one time zone (section `schedules:`).

A schedule is asked about instants (`schedules.office.open` is "open now"), but written in local time. So an instant
is turned into local time first and compared there; days of a time change need no special case. A range that ends
before it starts (`22:00-06:00`) belongs to the day it starts on and runs into the next one; a closed date closes what
starts on it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

MINUTES = 24 * 60

_TIME = r"([01]?[0-9]|2[0-4]):([0-5][0-9])"
_RANGE = re.compile(rf"{_TIME}-{_TIME}")
_DATE = r"([0-9]{4}-[0-9]{2}-[0-9]{2})"
_DATES = re.compile(rf"{_DATE}(?:\.\.{_DATE})?")

Hours = tuple[int, int]
"""Minutes since midnight: from (included) and to (excluded); to <= from means the next day."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Opening hours by weekday (0 is Monday) and closed dates, both ends included."""

    zone: ZoneInfo
    hours: Mapping[int, Sequence[Hours]]
    closed: Sequence[tuple[date, date]] = ()

    def is_open(self, at: float) -> bool:
        """Whether it is open at an instant, seconds since 1970."""
        local = datetime.fromtimestamp(at, self.zone)
        minute = local.hour * 60 + local.minute
        today, yesterday = local.date(), local.date() - timedelta(days=1)
        return self._open(today, minute) or self._open(yesterday, minute + MINUTES)

    def _open(self, day: date, minute: int) -> bool:
        if any(first <= day <= last for first, last in self.closed):
            return False
        return any(
            start <= minute < (end if end > start else end + MINUTES)
            for start, end in self.hours.get(day.weekday(), ())
        )


class ScheduleViews:
    """What expressions see as `schedules`: `schedules.<name>.open` now, by a wall clock in seconds since 1970."""

    __slots__ = ("_clock", "_schedules")

    def __init__(self, schedules: Mapping[str, Schedule], clock: Callable[[], float]) -> None:
        self._schedules = schedules
        self._clock = clock

    def __getitem__(self, name: str) -> Mapping[str, bool]:
        return {"open": self._schedules[name].is_open(self._clock())}


def parse_zone(name: str) -> ZoneInfo:
    """A time zone of the IANA database; raises ValueError when there is none of that name."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name!r} is not a time zone") from None


def parse_days(text: str) -> tuple[int, ...]:
    """`mon`, `mon-thu`, `sat, sun`, `daily` to weekdays; a range may run over the end of the week (`fri-mon`).

    Raises:
        ValueError: a word that is no day.
    """
    found: list[int] = []
    for part in text.lower().split(","):
        first, dash, last = part.strip().partition("-")
        if first == "daily" and not dash:
            found += range(7)
            continue
        start, end = _day(first), _day(last) if dash else _day(first)
        found += ((start + i) % 7 for i in range((end - start) % 7 + 1))
    return tuple(dict.fromkeys(found))


def _day(word: str) -> int:
    short = word.strip()[:3]
    if short not in DAYS or word.strip() not in (short, _LONG[DAYS.index(short)]):
        raise ValueError(f"{word.strip()!r} is not a day")
    return DAYS.index(short)


_LONG = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def parse_hours(text: str) -> tuple[Hours, ...]:
    """`09:00-17:30`, several with commas; raises ValueError."""
    found = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        hours = tuple(int(number) for number in match.groups()) if match else ()
        if not hours or hours[0] * 60 + hours[1] >= MINUTES or hours[2] * 60 + hours[3] > MINUTES:
            raise ValueError(f"{part.strip()!r} is not a time range")
        found.append((hours[0] * 60 + hours[1], hours[2] * 60 + hours[3]))
    return tuple(found)


def parse_dates(text: str) -> tuple[date, date]:
    """`2027-01-01` or `2026-12-24..2026-12-26`; raises ValueError."""
    match = _DATES.fullmatch(text.strip())
    try:
        first = date.fromisoformat(match[1]) if match else None
        last = date.fromisoformat(match[2]) if match and match[2] else first
    except ValueError:
        first = last = None
    if first is None or last is None or last < first:
        raise ValueError(f"{text.strip()!r} is not a date or a range of dates")
    return first, last
