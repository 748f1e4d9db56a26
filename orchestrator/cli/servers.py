"""`orchestrator servers`: the FreeSWITCH servers of a running server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from orchestrator.cli._admin import AdminClient, asks_server
from orchestrator.cli._tables import Column, field, json_option, show, table, watch_option


def _load(row: Mapping[str, Any]) -> object:
    load = row.get("load")
    return None if load is None else f"{load:.0%}"


COLUMNS = (
    Column("name", field("name")),
    Column("link", field("link")),
    Column("takes calls", field("takes_calls")),
    Column("load", _load, right=True),
    Column("channels", field("channels"), right=True),
    Column("sip", field("sip")),
    Column("reason", field("reason")),
)


@click.command(short_help="List FreeSWITCH servers: link, whether they take calls, load.")
@json_option
@watch_option
@asks_server
def command(as_json: bool, watch: float | None, client: AdminClient) -> None:
    """List the FreeSWITCH servers: the Event Socket link, whether the SIP side takes calls and if not, why."""
    show(lambda: client.listed("servers"), _rows, as_json, watch)


def _rows(told: Mapping[str, Any], width: int | None) -> Sequence[str]:
    return table(COLUMNS, told["items"], width) if told["items"] else ["no FreeSWITCH servers"]
