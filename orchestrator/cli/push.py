"""`orchestrator push`: push to the phones of an address by hand, through a running server."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import click

from orchestrator.cli._admin import AdminClient, asks_server
from orchestrator.cli._output import plain
from orchestrator.flow.expr import seconds as seconds_of
from orchestrator.flow.language.written import aor_flaw
from orchestrator.sip.push import PushKind

KINDS: Sequence[str] = get_args(PushKind)


def _aor(context: click.Context, parameter: click.Parameter, value: str) -> str:
    plain = value.removeprefix("sip:")
    flaw = aor_flaw(plain)
    if flaw is not None:
        raise click.BadParameter(f"{flaw.message}; {flaw.help}")
    return plain


def _data(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    found = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{value!r} is not KEY=VALUE; write from=alice@example.com")
        found[key] = text
    return found


def _ttl(context: click.Context, parameter: click.Parameter, value: str) -> float:
    length = seconds_of(value)
    if length is None or length > 28 * 86400:
        raise click.BadParameter(f"{value!r} is not a time up to 672h; write 30s")
    return length


@click.command(short_help="Push to the phones of an address by hand, and show what the push services say.")
@click.option("--to", metavar="AOR", required=True, callback=_aor, help="The address: bob@example.com.")
@click.option("--kind", type=click.Choice(KINDS), default="call", show_default=True, help="What the app is woken for.")
@click.option("--data", metavar="KEY=VALUE", multiple=True, callback=_data, help="Data for the app; may be repeated.")
@click.option("--ttl", metavar="TIME", default="30s", show_default=True, callback=_ttl, help="How long it is kept.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per phone.")
@asks_server
def command(to: str, kind: str, data: Mapping[str, str], ttl: float, as_json: bool, client: AdminClient) -> int:
    """Push to every phone registered for AOR, whether it sleeps or not. Shows for each phone the push service, the app,
    the token (masked), and the answer of the service with its id of the push.

    Exits with 1 if a push has failed, or no phone could be pushed to.
    """
    asked = {"to": to, "kind": kind, "ttl": ttl, "data": dict(data)}
    phones = client.send("POST", "push", asked)["phones"]
    for phone in phones:
        click.echo(json.dumps(phone) if as_json else plain(_line(phone)))
    outcomes = {phone["outcome"] for phone in phones}
    return int("sent" not in outcomes or not outcomes <= {"sent", "none"})


def _line(phone: Mapping[str, Any]) -> str:
    if "token" not in phone:
        return f"{'-':<10} {phone['contact']}: {phone['reason']}"
    state = "asleep" if phone["asleep"] else "awake"
    said = phone["outcome"] if phone["outcome"] != "none" else "not sent"
    if phone["outcome"] == "pending":
        said = "no answer yet"
    told = ", ".join(text for text in (said, phone["reason"], phone["id"] and f"id {phone['id']}") if text)
    return f"{phone['service'] or '-':<10} {phone['app']} {phone['token']} ({state}): {told}"
