"""`orchestrator run`: serve until a signal ends it."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli._output import config_option, settings_of


@click.command(short_help="Serve: SIP, registrations, FreeSWITCH links, flows.")
@config_option
def command(config: Path | None) -> int:
    """Serve: SIP, registrations, FreeSWITCH links and flows.

    Prints `ready` with its addresses on stderr when it serves. SIGHUP loads the flows anew, SIGTERM drains and ends.
    """
    from orchestrator.runtime.patch import patch

    patch()  # before anything else imports what waits
    settings = settings_of(config)

    from orchestrator.app import serve

    return serve(settings)
