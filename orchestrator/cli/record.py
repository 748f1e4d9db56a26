"""`orchestrator record`: write down what a FreeSWITCH says, for tests and for tickets."""

from __future__ import annotations

import signal
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Literal, cast

import click

from orchestrator import __version__
from orchestrator.cli._output import config_option, settings_of
from orchestrator.errors import OrchestratorError
from orchestrator.flow.expr import seconds as seconds_of
from orchestrator.flow.language.suggest import meant
from orchestrator.settings import Address, Settings

MASKS = ("numbers", "addresses", "digits")


@click.command(short_help="Record the Event Socket of a FreeSWITCH, secrets masked.")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help=".esl: the raw stream; .eslrec: JSON lines with times and both directions.",
)
@click.option("--server", default="", help="The FreeSWITCH server in the configuration. Default: the only one.")
@click.option("--to", "upstream", default="", metavar="HOST:PORT", help="A server that is not in the configuration.")
@click.option(
    "--listen", default="127.0.0.1:8022", show_default=True, metavar="HOST:PORT", help="Listen address for clients."
)
@click.option("--mask", type=click.Choice([*MASKS, "all"]), multiple=True, help="Mask this, too; may be repeated.")
@click.option("--for", "length", default="", metavar="TIME", help="Stop after this time. Ctrl-C stops earlier.")
@config_option
def command(
    out: Path,
    server: str,
    upstream: str,
    listen: str,
    mask: tuple[str, ...],
    length: str,
    config: Path | None,
) -> None:
    """Act as a proxy between FreeSWITCH's Event Socket and its clients, and record what passes.

    Point the client at this proxy, for example with `port: 8022` in the configuration of `orchestrator run`. The client
    logs in with its own password. Passwords and keys are never recorded. Each further connection gets a file of its own
    (NAME-2.esl). `orchestrator replay` plays a recording to a flow.
    """
    form = out.suffix.removeprefix(".")
    if form not in ("esl", "eslrec"):
        raise click.BadParameter(f"{out} is neither .esl nor .eslrec", param_hint="--out")
    if out.exists():
        raise click.BadParameter(f"{out} exists; recordings are not overwritten", param_hint="--out")
    limit = seconds_of(length) if length else None
    if length and limit is None:
        raise click.BadParameter(f"{length!r} is not a time; write 10m", param_hint="--for")
    name, target = _target(settings_of(config), server, upstream)
    here = _address(listen, "--listen")
    masked = set(MASKS) if "all" in mask else set(mask)
    _record(cast(Literal["esl", "eslrec"], form), out, name, target, here, masked, limit)


def _record(
    form: Literal["esl", "eslrec"],
    out: Path,
    name: str,
    target: Address,
    here: Address,
    masked: set[str],
    limit: float | None,
) -> None:
    import gevent
    from gevent.event import Event

    from orchestrator.testing.redaction import Redaction
    from orchestrator.testing.tee import EslTee

    redaction = Redaction(**{mask: mask in masked for mask in MASKS})
    created = datetime.now(UTC).isoformat(timespec="seconds")
    meta = {
        "created": created,
        "server": name,
        "by": f"orchestrator {__version__}",
        "masked": ", ".join(sorted(masked)),
    }
    tee = EslTee(
        (target.host, target.port),
        (here.host, here.port),
        out,
        form,
        redaction,
        lambda text: click.echo(text, err=True),
        meta,
    )
    if not _is_loopback(here.host):
        click.echo(
            f"warning: {here.host} is open to the network; FreeSWITCH sees this machine's address only", err=True
        )
    with tee:
        click.echo(f"recording {name} at {tee.address[0]}:{tee.address[1]}; Ctrl-C ends it", err=True)
        ended = Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            gevent.signal_handler(number, ended.set)
        ended.wait(limit)
    if not tee.files:
        raise OrchestratorError("nobody has connected: nothing is written")


def _target(settings: Settings, server: str, upstream: str) -> tuple[str, Address]:
    """Name and address of the FreeSWITCH to record."""
    if upstream:
        return server or upstream, _address(upstream, "--to")
    known = settings.freeswitch
    if not known:
        raise click.UsageError("no FreeSWITCH server is configured; name one with --to HOST:PORT")
    name = server or (next(iter(known)) if len(known) == 1 else "")
    if name not in known:
        help = meant(server, known) if server else f"known: {', '.join(known)}"
        raise click.BadParameter(f"unknown server {server!r}; {help}", param_hint="--server")
    return name, Address(known[name].host, known[name].port)


def _address(text: str, option: str) -> Address:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or not int(port) <= 65_535:
        raise click.BadParameter(f"{text!r} is not HOST:PORT", param_hint=option)
    return Address(host.strip("[]"), int(port))


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
