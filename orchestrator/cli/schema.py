"""`orchestrator schema`: what an editor needs to complete and explain flow files."""

from __future__ import annotations

import json
from typing import TextIO

import click

from orchestrator.flow.language.packages import known_events
from orchestrator.flow.tools.schema import flow_schema


@click.command(short_help="Print a JSON Schema of flow files, for your editor.")
@click.option("-o", "--output", type=click.File("w", encoding="utf-8", lazy=True), default="-", help="Default: stdout.")
def command(output: TextIO) -> None:
    """Print the JSON Schema (draft-07) of flow files.

    Editors with yaml-language-server read it when a file begins with

    \b
        # yaml-language-server: $schema=flowlang-1.schema.json

    The schema gives completion and explanations; `orchestrator check` finds the errors.
    """
    click.echo(json.dumps(flow_schema(events=known_events()), indent=2), file=output)
