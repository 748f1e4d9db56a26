"""Commands with sub-commands of which one is meant where none is named: `orchestrator calls` is `calls list`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click


class WithDefault(click.Group):
    """A group with a command for what names none. Its own `--help` shows all of them."""

    fallback: str = ""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        help_asked = bool(args) and args[0] in ctx.help_option_names
        if not help_asked and (not args or args[0] not in self.commands):
            args = [self.fallback, *args]
        return super().parse_args(ctx, args)


def group_with(fallback: str, short_help: str) -> Callable[[Callable[..., Any]], WithDefault]:
    """A group whose `fallback` is meant where no sub-command is named."""

    def made(function: Callable[..., Any]) -> WithDefault:
        group = click.group(cls=WithDefault, short_help=short_help)(function)
        group.fallback = fallback
        return group

    return made
