"""Bodies of requests: read to a bound, and whole, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

import falcon

from orchestrator.api.problems import Problem

FORM: Final = "application/x-www-form-urlencoded"
MOST_FORM: Final = 65_536
"""Octets of a form."""
_FIELDS: Final = 500


def kind_of(request: falcon.Request) -> str:
    """The media type without its parameters, in lower case."""
    return (request.content_type or "").partition(";")[0].strip().lower()


def octets_of(request: falcon.Request, most: int) -> bytes:
    """The body. Raises Problem for one of more octets, and for one that ends before its Content-Length, or comes too
    slowly."""
    if (request.content_length or 0) > most:
        raise _too_large(most)
    try:
        octets = bytes(request.bounded_stream.read(most + 1))
    except OSError:
        raise Problem(400, "body.invalid", "not whole", "the body ends before its Content-Length") from None
    if len(octets) > most:
        raise _too_large(most)
    return octets


def _too_large(most: int) -> Problem:
    return Problem(413, "body.too_large", "too large", f"the body has at most {most} octets")


def form_of(request: falcon.Request) -> Mapping[str, str]:
    """The fields of a form; of one that is there several times the first counts. Raises Problem."""
    known: Mapping[str, str] | None = getattr(request.context, "form", None)
    if known is not None:
        return known
    if request.content_length and kind_of(request) != FORM:
        raise Problem(400, "body.invalid", "not a form", "send the fields of the page as a form")
    text = octets_of(request, MOST_FORM).decode("utf-8", "replace")
    found: dict[str, str] = {}
    try:
        for name, value in parse_qsl(text, keep_blank_values=True, max_num_fields=_FIELDS):
            found.setdefault(name, value)
    except ValueError:
        raise Problem(400, "body.invalid", "not a form", f"a form has at most {_FIELDS} fields") from None
    request.context.form = found
    return found
