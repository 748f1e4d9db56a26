"""`orchestrator bans`: the sources that a running server does not listen to, and how to end that."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network

import click

from orchestrator.cli._admin import AdminClient, asks_server
from orchestrator.cli._groups import group_with
from orchestrator.cli._output import plain
from orchestrator.cli._tables import moment


@group_with("list", short_help="List banned sources, or end a ban.")
def command() -> None:
    """Sources (an IPv4 address, an IPv6 /64) whose datagrams and connections a running server refuses. Without a
    sub-command: list."""


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per ban.")
@asks_server
def list_bans(as_json: bool, client: AdminClient) -> None:
    """Show each banned source with its reason and the end of its ban, the latest last."""
    bans = client.listed("bans", 100_000)["items"]
    if not bans and not as_json:
        click.echo("no banned sources")
    for ban in bans:
        if as_json:
            click.echo(json.dumps(ban))
            continue
        click.echo(plain(f"{ban['source']:<40} {ban['reason']:<10} until {moment(ban['until'])}"))


def _source(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """An address, or the name of a source as `list` prints it."""
    try:
        if "/" in value:
            ip_network(value, strict=False)
        else:
            ip_address(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not an IP address; write 192.0.2.7 or 2001:db8::/64") from None
    return value


@command.command("remove")
@click.argument("source", metavar="ADDRESS", callback=_source)
@asks_server
def remove_ban(source: str, client: AdminClient) -> None:
    """End the ban of a source, by its name or by an address of it."""
    client.send("DELETE", "bans", source=source)
    click.echo(f"{source} is not banned any more")
