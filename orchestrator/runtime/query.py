"""The query of a request to the admin interface, read strictly: what is odd is answered 400 and says what is wrong."""

from __future__ import annotations

import re
from typing import Final

import falcon

MOST_CHARACTERS: Final = 1000
"""Of one value."""

_WHOLE = re.compile(r"[0-9]{1,18}")
_DECIMAL = re.compile(r"[0-9]{1,18}(?:\.[0-9]{0,18})?")


class Query:
    """Raises falcon.HTTPInvalidParam for a parameter that is not one of `known`, is there twice, or is too long."""

    def __init__(self, request: falcon.Request, *known: str) -> None:
        self._values: dict[str, str] = {}
        for name, value in request.params.items():
            if name not in known:
                raise _wrong(name, f"There is no such parameter; known: {', '.join(known) or 'none'}.")
            if not isinstance(value, str):
                raise _wrong(name, "It stands there more than once.")
            self._values[name] = checked_text(name, value)

    def text(self, name: str, default: str | None = None) -> str:
        """The value; without a default it is required, and not empty."""
        value = self._values.get(name, default)
        if not value and default is None:
            raise falcon.HTTPMissingParam(name) if value is None else _wrong(name, "The value is empty.")
        return value or ""

    def flag(self, name: str) -> bool:
        """True for 1 and true, False for 0, false and without the parameter."""
        value = self._values.get(name, "false").lower()
        if value not in ("1", "true", "0", "false"):
            raise _wrong(name, "The value must be true or false.")
        return value in ("1", "true")

    def whole(self, name: str, default: int, most: int) -> int:
        """A whole number from 1."""
        return int(self._number(name, default, 1, most, _WHOLE, "whole number"))

    def seconds(self, name: str, default: float, most: float) -> float:
        """A number of seconds from 0."""
        return self._number(name, default, 0, most, _DECIMAL, "number of seconds")

    def _number(
        self, name: str, default: float, least: float, most: float, pattern: re.Pattern[str], what: str
    ) -> float:
        value = self._values.get(name)
        if value is None:
            return default
        if pattern.fullmatch(value) is None or not least <= float(value) <= most:
            raise _wrong(name, f"The value must be a {what} from {least:g} to {most:g}.")
        return float(value)


def checked_text(name: str, value: str) -> str:
    """A value that is a text as people write it: no line ends, no control characters, not too long. Raises
    falcon.HTTPInvalidParam."""
    if len(value) > MOST_CHARACTERS or not value.isprintable() or "\ufffd" in value:
        raise _wrong(name, f"The value is not a text of at most {MOST_CHARACTERS} printable characters.")
    return value


def _wrong(name: str, text: str) -> falcon.HTTPInvalidParam:
    return falcon.HTTPInvalidParam(text, name[:50])
