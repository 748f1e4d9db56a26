"""`orchestrator drain`: take no new calls, before a stop; and take them again."""

from __future__ import annotations

import click

from orchestrator.cli._admin import AdminClient, asks_server


@click.command(short_help="Take no new calls, or take them again.")
@click.option("--undo", is_flag=True, help="Take calls again.")
@asks_server
def command(undo: bool, client: AdminClient) -> None:
    """Have the server refuse new calls and registrations with 503, so that phones and gateways use another one. Calls
    in progress go on; `orchestrator status` counts them. The server does not stop."""
    client.send("DELETE" if undo else "POST", "drain")
    click.echo("new calls are taken again" if undo else "draining: new calls get 503")
