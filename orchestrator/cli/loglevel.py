"""`orchestrator loglevel`: what a running server logs."""

from __future__ import annotations

import click

from orchestrator.cli._admin import AdminClient, asks_server
from orchestrator.cli._output import plain

LEVELS = ("debug", "info", "warning", "error")


@click.command(short_help="Show or change the log level of a running server.")
@click.argument("level", required=False, type=click.Choice(LEVELS))
@asks_server
def command(level: str | None, client: AdminClient) -> None:
    """Show the log level, or set it until the next restart. `debug` logs the first line of each SIP message."""
    answer = client.get("loglevel") if level is None else client.send("PUT", "loglevel", {"level": level})
    click.echo(plain(str(answer["level"])))
