"""`orchestrator explain`: why did nothing happen?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from orchestrator.cli._admin import AdminClient, asks_server
from orchestrator.cli._output import plain
from orchestrator.flow.expr import seconds as seconds_of
from orchestrator.flow.run.waits import waiting_lines


@click.command(short_help="Show what a run or subscription waits for, and the events that nearly matched.")
@click.argument("target", metavar="RUN|SUBSCRIPTION|FLOW")
@click.option(
    "--for", "length", default="30s", show_default=True, metavar="TIME", help="How long to watch; at most 10m."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@asks_server
def command(target: str, length: str, as_json: bool, client: AdminClient) -> int:
    """Show what a RUN (ring_user#17), a SUBSCRIPTION (its id:, or ring_user#17/late_phone) or a FLOW waits for; then
    watch the events of those names and show whether each one matches, and if not, why.

    The trace of the run also lists events that did not match. Exits with 1 if nothing waits.
    """
    seconds = seconds_of(length)
    if seconds is None or not 0 <= seconds <= 600:
        raise click.BadParameter(f"{length!r} is not a time up to 10m; write 30s", param_hint="--for")
    waiting = client.listed("subscriptions", 10_000, of=target)["items"]
    for subscription in waiting:
        click.echo(json.dumps(subscription) if as_json else "\n".join(map(plain, _described(subscription))))
    if not waiting and not _goes_on(client, target):
        click.echo(
            f"nothing waits under the name {target!r}: the run has ended, or has not come to its subscribe", err=True
        )
        return 1
    if seconds:
        click.echo(f"watching for {length}; Ctrl-C ends it", err=True)
        _watch(client, target, seconds, as_json)
    return 0


def _goes_on(client: AdminClient, target: str) -> bool:
    """A run between two waits is worth watching."""
    runs = client.listed("runs", 10_000)["items"]
    return any(run["running"] and target in (run["run"], run["flow"]) for run in runs)


def _described(subscription: dict[str, Any]) -> Iterator[str]:
    if subscription["kind"] == "step":
        yield from waiting_lines(subscription)
        return
    head = f"{subscription['name']}  {subscription['kind']} {subscription['event']}"
    yield f"{head}  ({subscription['file']}:{subscription['line']})"
    for name, value in subscription["wanted"].items():
        yield f"    {name} must be {value!r}"
    if subscription["condition"]:
        yield f"    and {subscription['condition']}"
    yield "    of this call" if subscription["call"] else "    of any call"
    left, expires = subscription["left"], subscription["expires_in"]
    bounds = [f"{left} more" if left is not None else "", f"{expires:.1f}s more" if expires is not None else ""]
    ends = ", ".join(bound for bound in bounds if bound)
    yield f"    took {subscription['taken']}" + (f", takes {ends}" if ends else "")


def _watch(client: AdminClient, target: str, seconds: float, as_json: bool) -> None:
    for verdict in client.follow("explain", of=target, seconds=f"{seconds:g}"):
        if as_json:
            click.echo(json.dumps(verdict))
        elif "end" in verdict:
            dropped = f", {verdict['dropped']} more came too fast to be shown" if verdict["dropped"] else ""
            click.echo(f"{verdict['told']} events looked at{dropped}", err=True)
        else:
            answer = "fits" if verdict["fits"] else f"not for us: {verdict['why']}"
            click.echo(plain(f"{verdict['subscription']}  {verdict['event']}  {answer}"))
