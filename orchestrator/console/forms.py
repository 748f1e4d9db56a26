"""Forms that pages send: small, of our own fields, one value each."""

from __future__ import annotations

import falcon

from orchestrator.api.bodies import form_of
from orchestrator.api.problems import Problem
from orchestrator.console.inputs import parse_number


class Form:
    """The fields of a request. Raises Problem for a body that is no form, and for fields that say nothing."""

    def __init__(self, request: falcon.Request) -> None:
        self.fields = form_of(request)

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
