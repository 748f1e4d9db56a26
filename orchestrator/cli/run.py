"""`orchestrator run`: serve until a signal ends it."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli._output import config_option, settings_of
from orchestrator.settings import DEFAULT_FILE


@click.command(short_help="Run the server: SIP, registrations, FreeSWITCH links, flows.")
@config_option
def command(config: Path | None) -> int:
    """Run the server: SIP, registrations, FreeSWITCH links and flows.

    Prints `ready` with its addresses on stderr when it serves. SIGHUP reloads configuration, users and flows;
    SIGTERM drains, then stops.
    """
    from orchestrator.runtime.patch import patch

    patch()  # before anything else imports what waits
    file = config or (DEFAULT_FILE if DEFAULT_FILE.exists() else None)  # one that is gone at a reload is a mistake
    settings = settings_of(file)

    from orchestrator.app import serve

    return serve(settings, reread=lambda: settings_of(file))
