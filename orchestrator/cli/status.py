"""`orchestrator status`: how a running server is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from orchestrator.cli._admin import AdminClient, asks_server
from orchestrator.cli._tables import clock, json_option, moment, pairs, show, watch_option


@click.command(short_help="Show how a running server is: state, calls, rates, links.")
@json_option
@watch_option
@asks_server
def command(as_json: bool, watch: float | None, client: AdminClient) -> None:
    """Show whether the server takes calls and if not, why; what it has in hand, how fast calls come and are set up,
    and its links to FreeSWITCH."""
    show(lambda: client.get("status"), lambda told, width: pairs(_rows(told), width), as_json, watch)


def _rows(told: dict[str, Any]) -> Iterator[tuple[str, object]]:
    yield "state", told["state"]
    for check, reason in told.get("reasons", {}).items():
        yield f"  {check}", reason
    yield "node", told.get("node")
    yield "version", f"{told['version']} ({told['build']})"
    yield "started", moment(told["started"])
    yield "up for", clock(told["uptime"])
    yield from told["counts"].items()
    yield "calls a second", told["rates"]["calls"]
    setup = told.get("setup_time") or {}
    for share in ("p50", "p95"):
        seconds = setup.get(share)
        yield f"setup time {share}", None if seconds is None else f"{seconds:.3f} s"
    for name, state in told.get("links", {}).items():
        yield f"link {name}", state
    flows = told.get("flows") or {}
    yield "flows", f"{flows.get('count', 0)}, version {flows.get('version') or '-'}"
