"""Templates, and how values are shown: always the same way, whatever language the browser has.

Everything is escaped unless it is markup of ours: what comes from SIP is text.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from orchestrator.console.assets import assets

NARROW: Final = " "
"""Parts thousands (ISO 80000-1); no comma or point, which mean two things."""
NOTHING: Final = "–"


@cache
def environment() -> Environment:
    """The templates of this package."""
    made = Environment(
        loader=PackageLoader("orchestrator.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= {
        "number": number,
        "seconds": seconds,
        "duration": duration,
        "clock": clock,
        "moment": moment,
        "since": since,
        "plain": plain,
        "short": short,
    }
    made.globals["static"] = static
    return made


def render(template: str, **values: Any) -> str:
    """A template with these values."""
    return environment().get_template(template).render(values)


def static(name: str) -> str:
    """URL of a file in `static/`."""
    return assets()[name].url


# --- how values are shown ---------------------------------------------------------------------------------------------


def number(value: float | None, digits: int = 0) -> str:
    """`12 345`, `0.25`; `–` where there is none."""
    if value is None:
        return NOTHING
    value = round(value, digits) + 0.0  # no `-0`
    return f"{value:,.{digits}f}".replace(",", NARROW)


def seconds(value: float | None) -> str:
    """`85 ms`, `3.25 s`, `4:07`."""
    if value is None:
        return NOTHING
    if value < 0.9995:
        return f"{value * 1000:.0f} ms"
    return f"{value:.2f} s" if value < 60 else duration(value)


def duration(value: float | None) -> str:
    """How long something took or takes: `0:07`, `1:02:03`, `3 d 1:02:03`."""
    if value is None:
        return NOTHING
    minutes, rest = divmod(max(0, int(value)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    day = f"{days} d " if days else ""
    return f"{day}{hours}:{minutes:02}:{rest:02}" if hours or days else f"{minutes}:{rest:02}"


def _time(value: Any) -> datetime | None:
    """From ISO 8601 or seconds since 1970."""
    if value is None or value == "":
        return None
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC)
    return datetime.fromisoformat(str(value)).astimezone(UTC)


def clock(value: Any) -> str:
    """Time of the day to the millisecond: `18:03:59.250`, UTC."""
    at = _time(value)
    return NOTHING if at is None else at.strftime("%H:%M:%S.") + f"{at.microsecond // 1000:03}"


def moment(value: Any) -> str:
    """`2026-11-30 18:03:59`, UTC."""
    at = _time(value)
    return NOTHING if at is None else at.strftime("%Y-%m-%d %H:%M:%S")


def since(value: Any) -> str:
    """Milliseconds since 1970: what pages count from."""
    at = _time(value)
    return "" if at is None else str(round(at.timestamp() * 1000))


def short(value: Any, most: int = 80) -> str:
    """The beginning of a text of a stranger, where a row or a heading has room for it; nothing for None."""
    text = "" if value is None else str(value)
    return text if len(text) <= most else text[: most - 1] + "…"


def plain(value: Any) -> str:
    """A value of an event or a step, in one line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(plain, value))}]"
    return str(value)
