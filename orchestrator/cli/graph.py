"""`orchestrator graph`: a flow as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

import click

from orchestrator.cli._output import config_option, settings_of
from orchestrator.flow.language.suggest import meant
from orchestrator.flow.loader import load_sources, read_sources
from orchestrator.flow.tools.graph import graph_of, mermaid
from orchestrator.flow.tools.svg import svg
from orchestrator.resources import known_resources


@click.command(short_help="Draw a flow: Mermaid or SVG.")
@click.argument("flow")
@click.option(
    "--flows",
    "paths",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Flow files or folders. Default: those of the configuration.",
)
@click.option("--format", "form", type=click.Choice(["mermaid", "svg"]), default="mermaid", show_default=True)
@click.option("-o", "--output", type=click.File("w", encoding="utf-8", lazy=True), default="-", help="Default: stdout.")
@config_option
def command(flow: str, paths: tuple[Path, ...], form: str, output: TextIO, config: Path | None) -> None:
    """Draw FLOW, by its name, as a Mermaid flowchart (for Markdown) or as SVG.

    Solid lines show the order of steps. Dashed lines show handlers and error paths.
    """
    settings = settings_of(config)
    program, _ = load_sources(read_sources(paths or settings.flows), known_resources(settings))
    found = next((one for one in program.flows if one.name == flow), None)
    if found is None:
        names = [one.name for one in program.flows]
        help = meant(flow, names)
        raise click.BadParameter(f"there is no flow {flow!r}" + (f"; {help}" if help else ""), param_hint="FLOW")
    graph = graph_of(found)
    output.write(svg(graph) if form == "svg" else mermaid(graph))
