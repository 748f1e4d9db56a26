"""The command line: `orchestrator COMMAND`, one module of this package per command.

A module `x.py` holds the click command `command` and is `orchestrator x`; adding the file adds the command. Only the
one asked for is imported: `run` has to patch the standard library before anything else is loaded, and `check` in an
editor should not wait for a server's imports.

What a user got wrong is said once, on stderr, with its place and its cure, and ends with status 1 (the input) or 2 (the
command line). A traceback is a bug of ours.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Sequence

import click

from orchestrator import BUILD, __version__
from orchestrator.errors import InputError, OrchestratorError

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it: 128 + SIGINT."""


class Commands(click.Group):
    """The modules of this package that do not begin with `_`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.list_commands(ctx):
            return None
        command = importlib.import_module(f"{__name__}.{name}").command
        assert isinstance(command, click.Command)
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(f"{__version__} ({BUILD})", prog_name="orchestrator")
def cli() -> None:
    """An event-driven SIP routing engine programmed in YAML."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script. Ends the process with the command's status."""
    sys.exit(_status(arguments))


def _status(arguments: Sequence[str] | None) -> int:
    try:
        status = cli.main(arguments, prog_name="orchestrator", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except InputError as error:
        return _refused(error)
    except OrchestratorError as error:
        click.echo(f"error: {error}", err=True)
        return 1
    return status if isinstance(status, int) else 0


def _refused(error: InputError) -> int:
    from orchestrator.cli._output import show

    if error.diagnostics:
        show(error.diagnostics)
    else:
        click.echo(f"error: {error}", err=True)
    return 1
