"""`orchestrator calls`: calls that live in a running server, one of them whole, and how to end one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from orchestrator.cli._admin import AdminClient, asks_server, part
from orchestrator.cli._groups import group_with
from orchestrator.cli._output import plain
from orchestrator.cli._tables import Column, clock, field, json_option, moment, pairs, show, table, watch_option


def _waits(call: Mapping[str, Any]) -> object:
    waits = call.get("waits_for")
    return None if waits is None else f"L{waits['line']} {waits['text']}"


COLUMNS = (
    Column("id", field("id")),
    Column("state", field("state")),
    Column("time", lambda call: clock(call["duration"] if call.get("answered") else None), right=True),
    Column("from", field("from")),
    Column("to", field("to")),
    Column("flow", field("flow")),
    Column("waits for", _waits),
    Column("contact", field("contact")),
)


@group_with("list", short_help="List live calls, show one, hang one up.")
def command() -> None:
    """Calls that live in a running server. Without a sub-command: list."""


@command.command("list", short_help="List live calls.")
@click.argument("of", default="", metavar="[TEXT]")
@click.option("--state", type=click.Choice(["ringing", "answered", "held"]), default=None, help="Only those.")
@click.option("--flow", default="", metavar="NAME", help="Only calls of this flow.")
@click.option("--limit", default=1000, show_default=True, type=click.IntRange(1, 100_000), help="How many at most.")
@json_option
@watch_option
@asks_server
def list_calls(
    of: str, state: str | None, flow: str, limit: int, as_json: bool, watch: float | None, client: AdminClient
) -> None:
    """List calls, or those whose addresses have TEXT: a user, a number, a part of one."""
    show(lambda: client.listed("calls", limit, of=of, state=state or "", flow=flow), _rows, as_json, watch)


def _rows(told: Mapping[str, Any], width: int | None) -> Sequence[str]:
    shown, total = len(told["items"]), told["total"]
    if not shown:
        return ["no calls"]
    left = [f"{shown} of {total} calls; --limit shows more"] if shown < total else []
    return [*table(COLUMNS, told["items"], width), *left]


@command.command("show", short_help="Show all that is known of one call.")
@click.argument("id")
@json_option
@watch_option
@asks_server
def show_call(id: str, as_json: bool, watch: float | None, client: AdminClient) -> None:
    """Show one call: its parties, legs, ringing phones, channels of FreeSWITCH, and where its flow waits."""
    show(lambda: client.get(f"calls/{part(id)}"), _whole, as_json, watch)


def _whole(call: Mapping[str, Any], width: int | None) -> Sequence[str]:
    return pairs(_facts(call), width)


def _facts(call: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    for name in ("id", "state", "from", "from_name", "to", "user", "source", "user_agent", "sip_call_id"):
        if name in call:
            yield name.replace("_", " "), call[name]
    yield "started", moment(call.get("started"))
    yield "answered", moment(call.get("answered"))
    yield "duration", clock(call.get("duration"))
    yield "flow", call.get("run") or call.get("flow")
    waits = call.get("waits_for")
    if waits is not None:
        yield "waits at", f"{waits.get('file', '')}:{waits['line']} {waits['text']}".lstrip(":")
    yield "contact", call.get("contact")
    yield "FreeSWITCH", call.get("server")
    for kind in ("legs", "branches", "channels"):
        for found in call.get(kind) or ():
            yield kind.removesuffix("es" if kind == "branches" else "s"), _described(found)
    for name, value in (call.get("record") or {}).items():
        yield f"record {name}", value


def _described(found: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in found.items() if value not in (None, ""))


@command.command("hangup", short_help="End a call.")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--reason", default="", metavar="TEXT", help="For the record of the call, and its flow.")
@asks_server
def hang_up(ids: Sequence[str], reason: str, client: AdminClient) -> None:
    """End calls: BYE to both sides of one that is answered, a failure to a caller whose call rings."""
    for id in ids:
        client.send("DELETE", f"calls/{part(id)}", reason=reason)
        click.echo(f"{plain(id)} is hung up")
