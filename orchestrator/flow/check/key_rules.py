"""Which rule a key of a step has for text from outside: that of its place, which other keys may say more of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.flow.check.shapes import Shape
from orchestrator.flow.expr.template import parts_of
from orchestrator.flow.language import encoders, freeswitch_places, places
from orchestrator.flow.language.places import OUR, Place, Rule, url_behind
from orchestrator.flow.language.registry import Field
from orchestrator.flow.language.yaml import Entries, Scalar

RULES: Mapping[Place, Rule] = {
    Place.URI: places.sip_uri,
    Place.PARTY: places.shown_uri,
    Place.GATEWAY_USER: places.gateway_user,
    Place.HEADER: places.header,
    Place.REASON: places.line,
    Place.URL: url_behind(""),
    Place.BODY: places.web_body(""),
    Place.COMMAND: freeswitch_places.command,
    Place.APPLICATION: places.never("the name of a FreeSWITCH application", "write the name"),
    Place.ARGUMENTS: freeswitch_places.application_arguments(""),
    Place.FILE: places.file_name,
    Place.CONTEXT: places.never("a dialplan context", "write its name"),
    Place.PATTERN: places.never("a pattern", "write it"),
    Place.TRUST: places.never("an address that is trusted", "write the addresses"),
    Place.LOG: places.log,
}

CHECKS: Mapping[Rule | None, encoders.Encoder] = {places.sip_uri: encoders.BUILT_URI}
"""Rules of places whose whole text is looked at once more when something from outside has gone into it."""


def rule_of(field: Field, shape: Shape, endpoints: Mapping[str, Mapping[str, Any]]) -> Rule | None:
    """The rule of a key beside the others of its step; None where any text may stand."""
    match field.place:
        case Place.URI if "gateway" in shape.fields:
            return places.gateway_user
        case Place.URL if "endpoint" in shape.fields:
            return url_behind(_base(endpoints.get(_written(shape, "endpoint"), {}).get("url")))
        case Place.BODY:
            return places.web_body(_content_type(shape, endpoints))
        case Place.ARGUMENTS:
            return freeswitch_places.application_arguments(_written(shape, "app"))
    return RULES.get(field.place)


def _written(shape: Shape, name: str) -> str:
    """The text of another key of the step as it is written."""
    given = shape.fields.get(name)
    return given.value.text.strip() if given is not None and isinstance(given.value, Scalar) else ""


def _content_type(shape: Shape, endpoints: Mapping[str, Mapping[str, Any]]) -> str:
    """The Content-Type that the step writes, else its endpoint; '' for none."""
    given = shape.fields.get("headers")
    if given is not None and isinstance(given.value, Entries):
        for name, value in given.value:
            if name.text.lower() == "content-type":
                return value.text.strip() if isinstance(value, Scalar) else ""
    for name, value in endpoints.get(_written(shape, "endpoint"), {}).get("headers", {}).items():
        if name.lower() == "content-type":
            return str(getattr(value, "source", getattr(value, "value", value))).strip()
    return ""


def _base(url: Any) -> str:
    """What an endpoint's url puts in front."""
    source = getattr(url, "source", "")
    return "".join(OUR if part.code else part.text for part in parts_of(source)) if source else OUR
