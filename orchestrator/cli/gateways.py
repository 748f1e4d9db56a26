"""`orchestrator gateways`: which gateways take calls; take one out of service and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from orchestrator.cli._admin import AdminClient, asks_server, part
from orchestrator.cli._groups import group_with
from orchestrator.cli._output import plain
from orchestrator.cli._tables import Column, field, json_option, show, table, watch_option


def _branches(row: Mapping[str, Any]) -> object:
    return ", ".join(f"{code}: {count}" for code, count in sorted((row.get("branches") or {}).items()))


COLUMNS = (
    Column("name", field("name")),
    Column("state", field("state")),
    Column("uri", field("uri")),
    Column("reason", field("reason")),
    Column("calls by code", _branches),
)


@group_with("list", short_help="List gateways, take one out of service or back, probe one.")
def command() -> None:
    """Gateways of a running server. Without a sub-command: list."""


@command.command("list", short_help="List gateways with their state.")
@json_option
@watch_option
@asks_server
def list_gateways(as_json: bool, watch: float | None, client: AdminClient) -> None:
    """List gateways: whether they take calls, and how the calls to them ended."""
    show(lambda: client.listed("gateways"), _rows, as_json, watch)


def _rows(told: Mapping[str, Any], width: int | None) -> Sequence[str]:
    return table(COLUMNS, told["items"], width) if told["items"] else ["no gateways"]


def _action(name: str, help: str, said: Callable[[str, Mapping[str, Any]], str]) -> None:
    @command.command(name, short_help=help.partition(".")[0] + ".", help=help)
    @click.argument("names", nargs=-1, required=True, metavar="NAME...")
    @asks_server
    def act(names: Sequence[str], client: AdminClient) -> None:
        for gateway in names:
            answer = client.send("POST", f"gateways/{part(gateway)}/{name}")
            click.echo(plain(said(gateway, answer or {})))


def _state(answer: Mapping[str, Any]) -> str:
    state = str(answer.get("state") or "")
    return f" ({state})" if state else ""


_action(
    "disable",
    "Try a gateway for no call until it is enabled. A reload keeps this, a restart does not.",
    lambda name, answer: f"{name} gets no calls",
)
_action("enable", "Use a gateway again.", lambda name, answer: f"{name} gets calls again{_state(answer)}")
_action("probe", "Send OPTIONS to a gateway now.", lambda name, answer: f"{name} is probed{_state(answer)}")
