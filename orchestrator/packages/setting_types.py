"""How values stand in the settings of packages: the types for their models, and what is said when a value does not fit.

    class HooksSettings(BaseModel):
        timeout: Duration = 5.0

The values of a configuration file come as text, None, lists and maps; pydantic converts whole numbers and choices.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from pydantic import PlainValidator

from orchestrator.flow.expr.lexer import meant_duration, seconds

DURATIONS = "write 500ms, 4s, 3m or 2h"


class InvalidValue(ValueError):
    """A value that does not fit its key; `help` says what would."""

    def __init__(self, message: str, help: str = "") -> None:
        super().__init__(message)
        self.help = help


def parse_text(value: Any) -> str:
    """The text itself. Raises InvalidValue when it is none."""
    if isinstance(value, str):
        return value
    raise InvalidValue("a single value is expected here" if value is not None else "a value is missing here")


def parse_duration(value: Any) -> float:
    """Seconds of `500ms`, `4s`, `3m`, `2h`. Raises InvalidValue, also for 0."""
    text = parse_text(value)
    found = seconds(text)
    if found is None:
        number = text.isascii() and text.isdigit()
        help = f"write {text}ms or {text}s" if number else meant_duration(text) or DURATIONS
        raise InvalidValue(f"{text!r} is not a duration", help)
    if not found:
        raise InvalidValue("a timer of 0 would fire at once", DURATIONS)
    return found


def parse_switch(value: Any) -> bool:
    """`on` or `off`."""
    found = {"on": True, "true": True, "yes": True, "off": False, "false": False, "no": False}.get(parse_text(value))
    if found is None:
        raise InvalidValue(f"{value!r} is not known here", "write on or off")
    return found


Duration: TypeAlias = Annotated[float, PlainValidator(parse_duration)]
"""Seconds; written 500ms, 4s, 3m."""
Switch: TypeAlias = Annotated[bool, PlainValidator(parse_switch)]
"""on or off."""
