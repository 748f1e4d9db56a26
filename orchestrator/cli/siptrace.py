"""`orchestrator siptrace`: the SIP messages of a phone, a number or an address, as a running server sees them."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import click

from orchestrator.cli._admin import AdminClient, asks_server
from orchestrator.cli._output import plain
from orchestrator.flow.expr import seconds as seconds_of


@click.command(short_help="Print whole SIP messages of a phone, number or address, secrets masked.")
@click.argument("target", metavar="AOR|NUMBER|ADDRESS")
@click.option("--for", "length", default="1m", show_default=True, metavar="TIME", help="Duration; at most 1h.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per message.")
@asks_server
def command(target: str, length: str, as_json: bool, client: AdminClient) -> None:
    """Show each SIP message of an AOR (alice@example.com), a NUMBER (bob, 101) or an ADDRESS (192.0.2.7,
    192.0.2.7:5060), and all messages of each call that matches.

    Passwords, nonces, push tokens and media keys are masked. Ctrl-C ends the trace early.
    """
    seconds = seconds_of(length)
    if seconds is None or not 0 < seconds <= 3600:
        raise click.BadParameter(f"{length!r} is not a time up to 1h; write 5m", param_hint="--for")
    click.echo(f"tracing {target} for {length}; Ctrl-C ends it", err=True)
    for seen in client.follow("siptrace", of=target, seconds=str(seconds)):
        if "end" in seen:
            dropped = f", {seen['dropped']} left out: too many at once" if seen["dropped"] else ""
            click.echo(f"{seen['told']} messages{dropped}", err=True)
        elif as_json:
            click.echo(json.dumps(seen))
        else:
            at = datetime.fromtimestamp(seen["time"], UTC).strftime("%H:%M:%S.%f")[:-3] + "Z"
            click.echo(f"{at} {seen['direction']} {'from' if seen['direction'] == 'received' else 'to'} {seen['peer']}")
            click.echo("".join(f"    {plain(line)}\n" for line in seen["message"].splitlines()))
