"""`orchestrator trace`: what happened to a call, asked of a running server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from orchestrator.cli._admin import AdminClient, asks_server, part
from orchestrator.cli._output import plain
from orchestrator.cli._tables import moment
from orchestrator.flow.run.trace import render_lines
from orchestrator.testing.case_from_trace import case_from_trace


@click.command(short_help="List the runs of a server, or show each step of one run.")
@click.argument("run", default="")
@click.option(
    "--json", "as_json", is_flag=True, help="For programs: a list of runs, or one line per line of the trace."
)
@click.option("--failed", is_flag=True, help="List only runs that ended in an error.")
@click.option("--flow", default="", help="List only runs of this flow.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000), help="How many runs to list.")
@click.option("--as-test", is_flag=True, help="Write RUN as a *.test.yaml for `orchestrator test`.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Output file of --as-test. Default: stdout.",
)
@asks_server
def command(
    run: str,
    as_json: bool,
    failed: bool,
    flow: str,
    limit: int,
    as_test: bool,
    output: Path | None,
    client: AdminClient,
) -> None:
    """List the last runs of flows, or print what each step of RUN did and why.

    The server keeps the traces of the last runs; it keeps those of failed runs longer. `last` is the newest run.
    """
    if run == "last":
        run = _newest(client, failed, flow)
    if not run:
        if as_test or output:
            raise click.UsageError("--as-test needs the name of a run")
        _list(client, failed, flow, limit, as_json)
        return
    trace = client.get(f"runs/{part(run)}")
    if as_test:
        _write(case_from_trace(trace, output.parent if output is not None else Path()), output)
    elif as_json:
        for record in trace["records"]:
            click.echo(json.dumps(record))
    else:
        _show(trace)


def _newest(client: AdminClient, failed: bool, flow: str) -> str:
    runs = client.listed("runs", 1, failed=str(failed).lower(), flow=flow)["items"]
    if not runs:
        raise click.ClickException("there is no such run yet: only what a flow handles leaves a trace")
    return str(runs[0]["run"])


def _list(client: AdminClient, failed: bool, flow: str, limit: int, as_json: bool) -> None:
    runs = client.listed("runs", limit, failed=str(failed).lower(), flow=flow)["items"]
    if as_json:
        click.echo(json.dumps(runs, indent=2))
        return
    if not runs:
        click.echo("no runs yet" if not (failed or flow) else "no such runs")
    width = max((len(run["run"]) for run in runs), default=0)
    for run in runs:
        click.echo(plain(f"{_when(run)}  {run['run']:<{width}}  {_state(run):<16}  {run['about']}"))


def _when(run: dict[str, Any]) -> str:
    return moment(run["started"]) or " " * 20


def _state(run: dict[str, Any]) -> str:
    return str(run["error"]) or ("goes on" if run["running"] else f"{run['seconds']:.1f}s")


def _show(trace: dict[str, Any]) -> None:
    lines = ((record["time"], record["line"], record["text"]) for record in trace["records"])
    for line in render_lines(trace["run"], lines, trace["dropped"], trace["left_out"]):
        click.echo(plain(line))
    if trace["running"]:
        click.echo(f"{'':8}  {trace['run']:<12}          … goes on", err=True)
    for waiting in trace.get("waiting", ()):
        told = waiting["waits_for"] if waiting["kind"] == "step" else f"{waiting['kind']} {waiting['event']}"
        click.echo(f"{'':8}  {trace['run']:<12}  L{waiting['line']:<4} waits for {told}", err=True)


def _write(text: str, output: Path | None) -> None:
    if output is None:
        click.echo(text, nl=False)
        return
    output.write_text(text, encoding="utf-8")
    click.echo(f"{output} written; `orchestrator test {output}` runs it", err=True)
