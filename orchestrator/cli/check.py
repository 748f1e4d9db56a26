"""`orchestrator check`: what is wrong with configuration, users and flows, before a call finds it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click

from orchestrator import __version__
from orchestrator.cli._output import config_option, settings_of, sources_of
from orchestrator.errors import Diagnostic
from orchestrator.flow.language.diagnostics import (
    in_order,
    render_github,
    render_json,
    render_sarif,
    render_text,
    summary,
)
from orchestrator.flow.loader import executable
from orchestrator.site import check_push, check_site


@click.command(short_help="Check configuration, users and flows; report each mistake with place and fix.")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[FILE|FOLDER]...")
@config_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "sarif", "github"]),
    default="text",
    show_default=True,
    help="text for people, json and sarif for tools, github for annotations in a workflow.",
)
@click.option("--unsafe", is_flag=True, help="List every use of unsafe(…) after the check.")
def command(paths: tuple[Path, ...], config: Path | None, form: str, unsafe: bool) -> int:
    """Check the configuration, the user tables and the flows; FILEs and FOLDERs replace the configuration's flows.

    Checks all flow files together, as `run` loads them, and reads the keys and certificates of push services. Exits
    with 1 if there is an error, with 0 if there are only warnings. A valid flow may use an action that this version
    cannot run; a note says so, and `run` rejects it.
    """
    settings = settings_of(config)
    found, program = check_site(settings, os.environ, paths)
    found = in_order([*found, *check_push(settings)])
    click.echo(_rendered(found, form), nl=False)
    if form == "text":
        for missing in executable(program) if program is not None else ():
            click.echo(f"note: {missing.file}:{missing.line}: {missing.message}", err=True)
        click.echo(summary(found), err=True)
    for place, text in program.unsafe if unsafe and program is not None else ():
        click.echo(f"{place}: unsafe: {text}", err=form != "text")
    return int(any(diagnostic.severity == "error" for diagnostic in found))


def _rendered(found: Sequence[Diagnostic], form: str) -> str:
    if form == "json":
        return render_json(found) + "\n"
    if form == "sarif":
        return render_sarif(found, __version__) + "\n"
    if form == "github":
        return render_github(found)
    return render_text(found, sources_of(found))
