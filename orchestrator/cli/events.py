"""`orchestrator events`: what flows can wait for, here and in a running server, and its events as they happen."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from orchestrator.cli._admin import AdminClient, asks_server
from orchestrator.cli._groups import group_with
from orchestrator.cli._output import plain
from orchestrator.cli._tables import json_option, show
from orchestrator.events.event import Attribute, EventSpec
from orchestrator.events.origins import origin_of
from orchestrator.flow.expr.types import parse_type
from orchestrator.flow.language.packages import known_events
from orchestrator.flow.language.suggest import meant


@group_with("installed", short_help="List the events for flows, with their attributes; follow those of a server.")
def command() -> None:
    """Events that flows can subscribe to. Without a sub-command: the events of this installation, all or those named
    (`orchestrator events registered key`), with the attributes of each, and where each attribute comes from."""


@command.command("installed", short_help="List the events of this installation (the default).")
@click.argument("names", nargs=-1, metavar="[EVENT]...")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def installed(names: tuple[str, ...], form: str) -> None:
    """The events that flows can subscribe to, with the attributes of each, and where each attribute comes from."""
    specs = [_find(name) for name in names] or list(known_events())
    if form == "json":
        click.echo(json.dumps([_as_object(spec) for spec in specs], indent=2))
    else:
        click.echo("\n\n".join(_as_text(spec) for spec in specs))


@command.command("catalogue", short_help="List the events of a running server, those of its flows included.")
@click.argument("names", nargs=-1, metavar="[EVENT]...")
@json_option
@asks_server
def catalogue(names: tuple[str, ...], as_json: bool, client: AdminClient) -> None:
    """List the events that the flows of a running server know: their own (events:) besides those of this installation.
    `orchestrator raise` raises those that are marked."""
    show(lambda: _named(client.listed("events/catalogue", 10_000), names), _catalogued, as_json)


def _named(told: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Of a list of events those that are named, all where none is."""
    if not names:
        return told
    by_name = {item["name"]: item for item in told["items"]}
    for name in names:
        if name not in by_name:
            help = meant(name, by_name)
            raise click.ClickException(f"the server knows no event {name!r}" + (f"; {help}" if help else ""))
    items = [by_name[name] for name in names]
    return {**told, "items": items, "total": len(items)}


def _catalogued(told: Mapping[str, Any], width: int | None) -> Sequence[str]:
    lines: list[str] = []
    for event in told["items"]:
        if lines:
            lines.append("")
        where = "of this call" if event["scope"] == "call" else "of all calls"
        lines.append(f"{event['name']}  ({where}{', may be raised' if event['may_be_raised'] else ''})")
        lines.append(f"  {event['doc']}")
        wide = max((len(attribute["name"]) for attribute in event["attributes"]), default=0)
        for attribute in event["attributes"]:
            kind = "/".join(attribute["values"]) or attribute["type"]
            optional = " or nothing" if attribute["optional"] else ""
            lines.append(f"    {attribute['name']:<{wide}}  {kind}{optional}")
    return [plain(line) for line in lines] or ["no events"]


@command.command("follow", short_help="Show events of a running server as they happen.")
@click.argument("name", default="", metavar="[EVENT]")
@click.option("--call", default="", metavar="ID", help="Only those of this call.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per event.")
@asks_server
def follow(name: str, call: str, as_json: bool, client: AdminClient) -> None:
    """Show each event that is raised, or those called EVENT, until Ctrl-C."""
    try:
        for kind, told in client.stream("events/stream", name=name, call=call):
            click.echo(json.dumps(told) if as_json else plain(_line(kind, told)))
    except KeyboardInterrupt:
        return


def _line(kind: str, told: Mapping[str, Any]) -> str:
    at = str(told.get("time") or "")[11:]
    attributes = told.get("attributes") or {}
    call = [f"call={told['call']}"] if told.get("call") else []
    return "  ".join([at, str(told.get("name") or kind), *call, *_pairs(attributes)]).strip()


def _pairs(attributes: Mapping[str, Any]) -> Iterator[str]:
    for name, value in attributes.items():
        yield f"{name}={value if isinstance(value, str) else json.dumps(value)}"


def _find(name: str) -> EventSpec:
    for spec in known_events():
        if spec.name == name:
            return spec
    help = meant(name, (spec.name for spec in known_events()))
    raise click.UsageError(f"unknown event {name!r}" + (f"; {help}" if help else ""))


def _as_text(spec: EventSpec) -> str:
    where = "of this call" if spec.scope == "call" else "of all calls"
    width = max(map(len, spec.attributes), default=0)
    rows = [f"{spec.name}  ({where})", f"  {spec.doc}"]
    types = [_type(attribute) for attribute in spec.attributes.values()]
    wide = max(map(len, types), default=0)
    for name, type in zip(spec.attributes, types, strict=True):
        rows.append(f"    {name:<{width}}  {type:<{wide}}  {origin_of(spec.name, name)}".rstrip())
    if spec.source:
        rows.append(f"  from: {spec.source}")
    if spec.esl:
        rows.append(f"  from FreeSWITCH: {', '.join(spec.esl)}")
    return "\n".join(rows)


def _type(attribute: Attribute) -> str:
    kind = "/".join(attribute.values) or str(parse_type(attribute.type))
    return f"{kind} or nothing" if attribute.optional else kind


def _as_object(spec: EventSpec) -> dict[str, object]:
    return {
        "name": spec.name,
        "doc": spec.doc,
        "scope": spec.scope,
        "attributes": {
            name: {
                "type": attribute.type,
                "values": list(attribute.values),
                "optional": attribute.optional,
                "from": origin_of(spec.name, name),
            }
            for name, attribute in spec.attributes.items()
        },
        "esl": list(spec.esl),
        "source": spec.source,
    }
