"""`orchestrator events`: the catalogue of what flows can wait for."""

from __future__ import annotations

import json

import click

from orchestrator.events.event import Attribute, EventSpec
from orchestrator.events.origins import origin_of
from orchestrator.flow.expr.types import parse_type
from orchestrator.flow.language.packages import known_events
from orchestrator.flow.language.suggest import meant


@click.command(short_help="List the events for flows, with their attributes.")
@click.argument("names", nargs=-1, metavar="[EVENT]...")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(names: tuple[str, ...], form: str) -> None:
    """The events that flows can subscribe to, with the attributes of each, and where each attribute comes from."""
    specs = [_find(name) for name in names] or list(known_events())
    if form == "json":
        click.echo(json.dumps([_as_object(spec) for spec in specs], indent=2))
    else:
        click.echo("\n\n".join(_as_text(spec) for spec in specs))


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
