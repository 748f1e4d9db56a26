"""How commands show what a server says: tables, or JSON for programs; once, or again and again.

A table takes the width of the terminal, and folds what is longer. In a pipe or a file it is as wide as it needs to be:
one line for each row, nothing is cut. What comes from outside is text, never a control sequence or markup.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import click

from orchestrator.cli._admin import AdminError
from orchestrator.cli._output import plain

EVERY: Final = 2.0
"""Seconds between two looks of --watch."""
NOTHING: Final = "-"
STYLES: Final[Mapping[str, str]] = {
    "ready": "green", "up": "green", "answered": "green", "yes": "green",
    "degraded": "yellow", "draining": "yellow", "ringing": "yellow", "held": "yellow", "disabled": "yellow",
    "untried": "dim", "-": "dim",
    "not_ready": "red", "down": "red", "no": "red",
}  # fmt: skip
"""Colours of words, on a terminal."""

json_option: Callable[[Any], Any] = click.option("--json", "as_json", is_flag=True, help="One JSON document.")


def _interval(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    try:
        seconds = float(value.removesuffix("s"))
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 3600:
        raise click.BadParameter(f"{value!r} is not a number of seconds from 0.1 to 3600; write --watch=2")
    return seconds


watch_option: Callable[[Any], Any] = click.option(
    "--watch",
    is_flag=False,
    flag_value=f"{EVERY:g}",
    callback=_interval,
    metavar="[=SECONDS]",
    help=f"Show it again every {EVERY:g} s, or every SECONDS; Ctrl-C ends it.",
)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: `show` gives the text of a row, or None for nothing."""

    title: str
    show: Callable[[Mapping[str, Any]], object]
    right: bool = False


def field(name: str) -> Callable[[Mapping[str, Any]], object]:
    """The value of a row under this name."""
    return lambda row: row.get(name)


def text_of(value: object) -> str:
    """A value for people."""
    if value is None or value == "":
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.3f}".rstrip("0").rstrip(".")
    return plain(f"{value:,}" if isinstance(value, int) else str(value))


def clock(seconds: float | None) -> str | None:
    """64 → `1:04`, 3700 → `1:01:40`, 90,000 → `1d 1:00:00`."""
    if seconds is None:
        return None
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours}:{minutes:02}:{rest:02}"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def moment(iso: str | None) -> str | None:
    """A time of the API without its milliseconds: `2026-11-30T18:00:00Z`."""
    if iso is None:
        return None
    try:
        return datetime.fromisoformat(iso).strftime("%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        return iso


def table(columns: Sequence[Column], rows: Iterable[Mapping[str, Any]], width: int | None) -> list[str]:
    """The lines of a table, its titles first; `width` of a terminal, which gets colours, None for one that is as wide
    as it needs."""
    cells = [[text_of(column.show(row)) for column in columns] for row in rows]
    if width is None:
        return _aligned(columns, cells)
    return _drawn(columns, cells, width)


def _aligned(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> list[str]:
    from rich.cells import cell_len

    titles = [column.title.upper() for column in columns]
    widths = [max(map(cell_len, values)) for values in zip(titles, *cells, strict=True)]
    lines = []
    for row in (titles, *cells):
        padded = []
        for column, text, wide in zip(columns, row, widths, strict=True):
            space = " " * (wide - cell_len(text))
            padded.append(space + text if column.right else text + space)
        lines.append("  ".join(padded).rstrip())
    return lines


def _drawn(columns: Sequence[Column], cells: Sequence[Sequence[str]], width: int) -> list[str]:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        drawn.add_column(column.title.upper(), justify="right" if column.right else "left", overflow="fold")
    for row in cells:
        drawn.add_row(*(Text(text, STYLES.get(text, ""), overflow="fold") for text in row))
    console = Console(width=width, force_terminal=True, highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        console.print(drawn)
    return captured.get().rstrip("\n").split("\n")


def pairs(values: Iterable[tuple[str, object]], width: int | None) -> list[str]:
    """Names and values, one pair on each line."""
    found = [(name, text_of(value)) for name, value in values]
    wide = max((len(name) for name, _ in found), default=0)
    lines = []
    for name, text in found:
        style = STYLES.get(text, "")
        shown = click.style(text, fg=style) if style and style != "dim" and width is not None else text
        lines.append(f"{name:<{wide}}  {shown}")
    return lines


def terminal_width() -> int | None:
    """Of stdout; None where it is no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


Lines = Callable[[Any, int | None], Sequence[str]]
"""The lines that show an answer in a width."""


def show(ask: Callable[[], Any], lines: Lines, as_json: bool, watch: float | None = None) -> None:
    """Show what `ask()` gives, as JSON or as lines; with `watch` again and again, until Ctrl-C."""
    if watch is None:
        answer = ask()
        click.echo(json.dumps(answer, indent=2) if as_json else "\n".join(lines(answer, terminal_width())))
        return
    try:
        while True:
            _look(ask, lines, as_json, watch)
            time.sleep(watch)
    except KeyboardInterrupt:
        return


def _look(ask: Callable[[], Any], lines: Lines, as_json: bool, watch: float) -> None:
    """Once; a server that is away for a while is waited for."""
    width = terminal_width()
    at = datetime.now(UTC).strftime("%H:%M:%SZ")
    try:
        answer = ask()
    except AdminError as error:
        if error.code:  # it has answered, and will say the same again
            raise
        answer, shown = None, error.message.splitlines()[:1]
    else:
        shown = [] if as_json else list(lines(answer, width))
    if as_json:
        if answer is not None:
            click.echo(json.dumps(answer))
        return
    head = f"{at}, every {watch:g} s; Ctrl-C ends it"
    if width is None:
        click.echo("\n".join([head, *shown, ""]))
        return
    room = max(3, shutil.get_terminal_size().lines - 2)
    if len(shown) > room:
        shown = [*shown[: room - 1], f"... {len(shown) - room + 1} more lines"]
    click.echo("\x1b[H" + "".join(f"{line}\x1b[K\n" for line in [head, *shown]) + "\x1b[J", nl=False)
    sys.stdout.flush()
