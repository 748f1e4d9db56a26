"""The request that `type: http` of `push: services:` makes: the language of flows, compiled when the configuration is
read, with `push` in place of a call.

    acme:
      type: http
      url: https://push.acme.example/v2/devices/${push.token}
      headers: {authorization: {env: ACME_KEY}}
      json: {kind: '${push.kind}', from: "${push.data['from'] ?? ''}", ttl: '${push.ttl}'}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.errors import Diagnostic
from orchestrator.flow.check.kinds import Kinds
from orchestrator.flow.expr.scope import Scope
from orchestrator.flow.expr.types import ANY, BOOL, NUMBER, TEXT, Type, map_of, record, theirs
from orchestrator.flow.language.declarations import Declarations
from orchestrator.flow.language.places import Place, Rule, web_body
from orchestrator.flow.language.registry import Field, Kind
from orchestrator.flow.language.report import Report
from orchestrator.flow.language.written import web_flaw
from orchestrator.flow.language.yaml import Document, Entries, Items, Node, Scalar, Spot
from orchestrator.push.http_service import HttpTemplate

PUSH: Type = record(
    "push",
    {
        "service": TEXT,  # its name in the configuration
        "kind": TEXT,  # call, message, request, cancel, refresh
        "ttl": NUMBER,  # whole seconds
        "sandbox": BOOL,
        "options": map_of(ANY),  # what the step says to this service
        "provider": theirs(TEXT),  # pn-provider
        "token": theirs(TEXT),
        "tokens": theirs(map_of(TEXT)),  # what each is for: voip, remote
        "param": theirs(TEXT),  # pn-param and pn-prid as the phone wrote them
        "prid": theirs(TEXT),
        "app": theirs(TEXT),
        "team": theirs(TEXT),
        "aor": theirs(TEXT),
        "call": theirs(TEXT),
        "collapse": theirs(TEXT),
        "data": theirs(map_of(ANY)),  # call, from, display_name, and data: of the step
    },
)
"""What a template may say of a push; `push.http_service.view` gives it."""

FIELDS = (
    Field("url", Kind.TEXT, "", secret=True, place=Place.URL, check=web_flaw),
    Field("headers", Kind.MAP, "", secret=True, place=Place.HEADER),
    Field("query", Kind.MAP, "", secret=True),
    Field("json", Kind.VALUE, "", secret=True),
    Field("form", Kind.MAP, "", secret=True),
    Field("body", Kind.TEXT, "", secret=True, place=Place.BODY),
)


def compile_push(
    document: Document, nodes: Mapping[str, Node], raw: Mapping[str, Any], **rest: Any
) -> tuple[HttpTemplate | None, list[Diagnostic]]:
    """The template in these keys of a file, and what is wrong with it. `raw` is what the reader has made of them, with
    the values of the environment; `rest` are the keys that are no expressions."""
    before = len(document.diagnostics)
    kinds = Kinds(Report(document), Declarations())
    scope = Scope({"push": PUSH})
    made: dict[str, Any] = {}
    for field in FIELDS:
        if field.name in nodes:
            node = _filled(nodes[field.name], raw.get(field.name))
            rule = _body_rule(raw) if field.place is Place.BODY else None
            value = kinds.compile(field, node, scope, rule)
            made[field.name] = value
    found = document.diagnostics[before:]
    del document.diagnostics[before:]
    if "url" not in made or any(one.severity == "error" for one in found):
        return None, found
    return HttpTemplate(**made, **rest), found


def _body_rule(raw: Mapping[str, Any]) -> Rule:
    headers = raw.get("headers")
    for name, value in headers.items() if isinstance(headers, dict) else ():
        if name.lower() == "content-type" and isinstance(value, str):
            return web_body(value)
    return web_body("")


def _filled(node: Node, raw: Any) -> Node:
    """The tree with what `{env: NAME}` stands for in its place, as it is: nothing is filled into that."""
    if isinstance(node, Entries) and isinstance(raw, str | None):
        return Scalar(str(raw or "").replace("${", "$${"), '"', Spot(node.line, node.column, node.end), node.end)
    if isinstance(node, Entries) and isinstance(raw, dict):
        made = Entries(Spot(node.line, node.column, node.end))
        made.entries = {key.text: (key, _filled(child, raw.get(key.text))) for key, child in node}
        return made
    if isinstance(node, Items) and isinstance(raw, list) and len(raw) == len(node.items):
        items = Items(Spot(node.line, node.column, node.end))
        items.items = [_filled(child, value) for child, value in zip(node, raw, strict=True)]
        return items
    return node
