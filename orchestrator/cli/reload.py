"""`orchestrator reload`: have a running server read its flows, users and configuration anew."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import click

from orchestrator.cli._admin import AdminClient, AdminError, asks_server
from orchestrator.cli._output import plain, sources_of
from orchestrator.cli._tables import json_option, show
from orchestrator.errors import Diagnostic
from orchestrator.flow.language.diagnostics import render_text


@click.command(short_help="Read flows, users and configuration anew, or say what is wrong with them.")
@json_option
@asks_server
def command(as_json: bool, client: AdminClient) -> int:
    """Have the server read its flows, users and configuration anew. Calls go on with the flow that they began with.

    With a mistake nothing of it is taken: each is shown with its place and its cure, and the exit status is 1.
    """
    try:
        answer = client.send("POST", "reload")
    except AdminError as error:
        if error.code != "reload.refused" or as_json:
            raise
        _refused(error)
        return 1
    show(lambda: answer, lambda told, width: _said(told), as_json)
    return 0


def _said(told: Mapping[str, Any]) -> list[str]:
    flows = told["flows"]
    lines = [f"{flows} {'flow' if flows == 1 else 'flows'} loaded, version {plain(str(told['version']))}"]
    sections = ", ".join(plain(section) for section in told.get("restart_needed") or ())
    return [*lines, f"changed, but used after a restart only: {sections}"] if sections else lines


def _refused(error: AdminError) -> None:
    found = list(_diagnostics(error.problem.get("diagnostics") or ()))
    if found:
        click.echo(render_text(found, sources_of(found)), err=True, nl=False)
    click.echo(f"refused: {error.message}" if not found else "refused: the server goes on with what it has", err=True)


def _diagnostics(told: Iterable[Mapping[str, Any]]) -> Iterator[Diagnostic]:
    for found in told:
        yield Diagnostic(
            str(found["file"]),
            int(found["line"]),
            int(found.get("column", found.get("col", 1))),
            str(found["code"]),
            str(found["message"]),
            "warning" if found.get("severity") == "warning" else "error",
            str(found.get("help") or ""),
            int(found.get("length", 1)),
            tuple(map(str, found.get("notes") or ())),
        )
