"""The description of the API (OpenAPI 3.1), made of the table of its endpoints."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from orchestrator import __version__
from orchestrator.api.endpoint import PAGING as PAGING_PARAMETERS
from orchestrator.api.endpoint import Endpoint, Parameter
from orchestrator.api.schemas import COMPONENTS, TEXT, maybe

_NAMES: Final = re.compile(r"\{(\w+)(?::path)?\}")
_CLOSED: Final = "additionalProperties"

REFUSALS: Final = {
    "400": "A parameter or the body is wrong (query.invalid, body.invalid, …).",
    "401": "A token is missing or wrong (token.required).",
    "403": "The token may not do this (token.scope), or a page of another origin asks (origin.foreign).",
    "404": "There is no such thing (call.unknown, gateway.unknown, …).",
    "429": "Too many wrong tokens (rate.limited).",
    "503": "Busy, or too many streams (busy, streams.full).",
}


def openapi(endpoints: Sequence[Endpoint], prefix: str) -> dict[str, Any]:
    """The document."""
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        path = prefix + _NAMES.sub(r"{\1}", endpoint.path)
        paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Orchestrator",
            "version": __version__,
            "description": "What an operator sees of a running server, and what he does to it (docs/api.md).",
        },
        "paths": paths,
        "security": [{"token": []}],
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": COMPONENTS,
        },
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    told: dict[str, Any] = {
        "summary": endpoint.summary,
        "operationId": _identifier(endpoint),
        "description": "Reads." if endpoint.method == "GET" else "Needs the full token.",
        "parameters": _parameters(endpoint),
        "responses": {
            str(endpoint.status): _answer(endpoint),
            **{status: _refusal(doc) for status, doc in REFUSALS.items()},
        },
    }
    for status, doc in endpoint.refusals:
        told["responses"][str(status)] = _refusal(doc)
    if endpoint.body is not None:
        told["requestBody"] = {"required": True, "content": {"application/json": {"schema": endpoint.body}}}
    return told


def _identifier(endpoint: Endpoint) -> str:
    return "_".join([endpoint.method.lower(), *re.findall(r"\w+", endpoint.path.replace(":path", ""))])


def _parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    names = [{"name": name, "in": "path", "required": True, "schema": TEXT} for name in _NAMES.findall(endpoint.path)]
    known = (*endpoint.parameters, *PAGING_PARAMETERS) if endpoint.lists else endpoint.parameters
    return [*names, *(_parameter(parameter) for parameter in known)]


def _parameter(parameter: Parameter) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    if parameter.choices:
        schema = {"enum": list(parameter.choices)}
    elif parameter.kind == "flag":
        schema = {"type": "boolean", "default": False}
    elif parameter.kind == "whole":
        schema = {"type": "integer", "minimum": 1, "maximum": int(parameter.most), "default": int(parameter.default)}
    elif parameter.kind == "seconds":
        schema = {"type": "number", "minimum": 0, "maximum": parameter.most, "default": parameter.default}
    return {
        "name": parameter.name,
        "in": "query",
        "description": parameter.doc,
        "required": parameter.required,
        "schema": schema,
    }


def answer_schema(endpoint: Endpoint) -> dict[str, Any]:
    """JSON schema of the whole answer, with the name of the node."""
    if endpoint.lists:
        return {
            "type": "object",
            "properties": {
                "node": TEXT,
                "items": {"type": "array", "items": endpoint.answer},
                "total": {"type": "integer"},
                "next": maybe(TEXT),
            },
            "required": ["node", "items", "total", "next"],
            _CLOSED: False,
        }
    answer = dict(endpoint.answer)
    if "$ref" in answer:
        answer = dict(COMPONENTS[str(answer["$ref"]).rpartition("/")[2]])
    return {
        **answer,
        "properties": {"node": TEXT, **answer.get("properties", {})},
        "required": ["node", *answer.get("required", ())],
    }


def _answer(endpoint: Endpoint) -> dict[str, Any]:
    if endpoint.status == 204:
        return {"description": "Done."}
    media = endpoint.media.partition(";")[0]
    schema = answer_schema(endpoint) if media == "application/json" else TEXT
    return {"description": endpoint.summary, "content": {media: {"schema": schema}}}


def _refusal(doc: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": doc, "content": {"application/problem+json": {"schema": schema}}}
