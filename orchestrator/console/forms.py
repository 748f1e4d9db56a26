"""Forms that pages send: small, of our own fields, one value each."""

from __future__ import annotations

import falcon

from orchestrator.api.problems import Problem
from orchestrator.console.inputs import parse_number

MOST = 65_536
"""Octets."""


class Form:
    """The fields of a request. Raises Problem for a body that is no form, and for fields that say nothing."""

    def __init__(self, request: falcon.Request) -> None:
        if (request.content_length or 0) > MOST:
            raise Problem(413, "body.too_large", "too large", f"a form has at most {MOST} octets")
        try:
            found = request.get_media(default_when_empty={})
        except falcon.HTTPError:
            found = None
        if not isinstance(found, dict):
            raise Problem(400, "body.invalid", "not a form", "send the fields of the page as a form")
        self.fields: dict[str, str] = {name: _first(value) for name, value in found.items()}

    def text(self, name: str) -> str:
        """Without spaces around it; '' where it is not there."""
        return self.fields.get(name, "").strip()

    def number(self, name: str, default: float) -> float:
        """A number, written in either way; `default` for an empty field. Raises Problem."""
        text = self.text(name)
        if not text:
            return default
        try:
            return parse_number(text)
        except ValueError as error:
            raise Problem(400, "body.invalid", "not a number", f"{name}: {error}") from None


def _first(value: object) -> str:
    """Of a field that is there several times, the first one counts."""
    if isinstance(value, list):
        value = value[0] if value else ""
    return str(value)
