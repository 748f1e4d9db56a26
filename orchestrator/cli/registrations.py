"""`orchestrator registrations`: who is registered at a running server, and how to change it by hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from orchestrator.cli._admin import AdminClient, asks_server, part
from orchestrator.cli._groups import group_with
from orchestrator.cli._output import plain
from orchestrator.cli._tables import Column, clock, field, json_option, pairs, show, table, watch_option
from orchestrator.flow.expr import seconds as seconds_of
from orchestrator.flow.language.written import aor_flaw


def _asleep(row: Mapping[str, Any]) -> object:
    push = row.get("push")
    return None if push is None else f"{push['service']}, {'asleep' if push['asleep'] else 'awake'}"


COLUMNS = (
    Column("aor", field("aor")),
    Column("contact", field("contact")),
    Column("expires in", lambda row: clock(row.get("expires_in")), right=True),
    Column("q", field("q"), right=True),
    Column("received", field("received")),
    Column("transport", field("transport")),
    Column("push", _asleep),
    Column("user agent", field("user_agent")),
)


def _aor(context: click.Context, parameter: click.Parameter, value: str) -> str:
    found = value.removeprefix("sip:")
    flaw = aor_flaw(found)
    if flaw is not None:
        raise click.BadParameter(f"{flaw.message}; {flaw.help}")
    return found


@group_with("list", short_help="List registered contacts, show, remove or add one.")
def command() -> None:
    """Registered addresses (AOR) with their contacts. Without a sub-command: list."""


@command.command("list", short_help="List registered contacts.")
@click.argument("of", default="", metavar="[TEXT]")
@click.option("--limit", default=1000, show_default=True, type=click.IntRange(1, 1_000_000), help="How many addresses.")
@json_option
@watch_option
@asks_server
def list_registrations(of: str, limit: int, as_json: bool, watch: float | None, client: AdminClient) -> None:
    """List all contacts, or those with TEXT in the address or the contact."""
    show(lambda: client.listed("registrations", limit, of=of), _rows, as_json, watch)


def _rows(told: Mapping[str, Any], width: int | None) -> Sequence[str]:
    shown, total = len(told["items"]), told["total"]
    if not shown:
        return ["no registrations"]
    rows = [{"aor": item["aor"], **contact} for item in told["items"] for contact in item["contacts"]]
    left = [f"{shown} of {total} addresses; --limit shows more"] if shown < total else []
    return [*table(COLUMNS, rows, width), *left]


@command.command("show", short_help="Show all that is known of the contacts of one address.")
@click.argument("aor", callback=_aor)
@json_option
@watch_option
@asks_server
def show_registration(aor: str, as_json: bool, watch: float | None, client: AdminClient) -> None:
    """Show the contacts of AOR (bob@example.com). Exits with 1 if nobody is registered for it."""
    show(lambda: client.get(f"registrations/{part(aor)}"), _whole, as_json, watch)


def _whole(told: Mapping[str, Any], width: int | None) -> Sequence[str]:
    lines = [plain(told["aor"])]
    for contact in told["contacts"]:
        lines += ["", *(f"  {line}" for line in pairs(_facts(contact), width))]
    return lines


def _facts(contact: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    for name, value in contact.items():
        if name == "push" and value is not None:
            yield name, ", ".join(f"{key} {text}" for key, text in value.items())
        elif name == "path":
            yield name, ", ".join(value)
        elif name == "expires_in":
            yield "expires in", clock(value)
        else:
            yield name.replace("_", " "), value


@command.command("remove", short_help="Remove contacts of an address.")
@click.argument("aor", callback=_aor)
@click.option("--contact", default="", metavar="URI|ID", help="Only this one, by its URI or its id. Default: all.")
@asks_server
def remove(aor: str, contact: str, client: AdminClient) -> None:
    """Remove the contacts of AOR. A phone comes back with its next REGISTER."""
    client.send("DELETE", f"registrations/{part(aor)}", contact=contact)
    click.echo(f"{plain(contact)} of {aor} is removed" if contact else f"{aor} is not registered any more")


def _expires(context: click.Context, parameter: click.Parameter, value: str) -> float:
    length = seconds_of(value)
    if length is None or length < 1:
        raise click.BadParameter(f"{value!r} is not a time; write 1h")
    return length


@command.command("add", short_help="Register a contact for an address by hand.")
@click.argument("aor", callback=_aor)
@click.argument("contact")
@click.option(
    "--expires", default="1h", show_default=True, metavar="TIME", callback=_expires, help="How long it stays."
)
@click.option("--q", default=1.0, show_default=True, type=click.FloatRange(0, 1), help="Its preference, 0 to 1.")
@asks_server
def add(aor: str, contact: str, expires: float, q: float, client: AdminClient) -> None:
    """Register CONTACT (sip:bob@192.0.2.7:5060) for AOR, such as a phone that cannot register."""
    client.send("POST", f"registrations/{part(aor)}", {"contact": contact, "expires": expires, "q": q})
    click.echo(f"{plain(contact)} is registered for {aor}")
