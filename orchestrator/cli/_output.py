"""What commands share: the configuration option, and how diagnostics are shown."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from orchestrator.errors import Diagnostic
from orchestrator.flow.language.diagnostics import render_text
from orchestrator.settings import DEFAULT_FILE, Settings, load_settings

config_option: Callable[[Any], Any] = click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"The configuration file. Default: {DEFAULT_FILE} if it exists, else built-in defaults.",
)


def settings_of(config: Path | None) -> Settings:
    """The configuration a command runs with. Raises InputError."""
    if config is None and not DEFAULT_FILE.exists():
        return Settings()
    return load_settings(config or DEFAULT_FILE, os.environ)


def sources_of(diagnostics: Iterable[Diagnostic]) -> dict[str, str]:
    """The texts of the files that diagnostics speak of; one that cannot be read is shown without its lines."""
    texts = {}
    for name in {diagnostic.file for diagnostic in diagnostics}:
        try:
            texts[name] = Path(name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
    return texts


def show(diagnostics: Iterable[Diagnostic]) -> None:
    """Diagnostics for people, on stderr."""
    found = list(diagnostics)
    click.echo(render_text(found, sources_of(found)), err=True, nl=False)


def plain(text: str) -> str:
    """What comes from outside: control characters do nothing to the terminal."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
