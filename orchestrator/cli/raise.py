"""`orchestrator raise`: raise an event in a running server."""

from __future__ import annotations

import click

from orchestrator.cli._admin import AdminClient, asks_server


def _pairs(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{value!r} is not an attribute; write name=value")
        if name in found:
            raise click.BadParameter(f"{name!r} is given twice")
        found[name] = text
    return found


@click.command(short_help="Raise an event in a running server.")
@click.argument("event")
@click.argument("attributes", nargs=-1, metavar="[NAME=VALUE]...", callback=_pairs)
@click.option("--call", default="", metavar="ID", help="The call it belongs to (call.id in flows).")
@asks_server
def command(event: str, attributes: dict[str, str], call: str, client: AdminClient) -> None:
    """Raise EVENT, one of the flows' own (events:) or of a package, with its attributes.

    The server checks names and types, as it does for raise: in a flow; lists and maps are written as JSON.
    `orchestrator events catalogue` lists what may be raised.
    """
    told = {"name": event, "written": attributes, **({"call": call} if call else {})}
    taken = client.send("POST", "events", told)["taken"]
    click.echo(f"{event} raised, taken by {taken} {'subscription' if taken == 1 else 'subscriptions'}")
