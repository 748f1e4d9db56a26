"""`orchestrator demo`: the three scenarios, happening."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(short_help="Run the three scenarios on this machine; needs nothing else.")
@click.option(
    "--flows",
    "folder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder with push_wakeup, dtmf_screening and call_pickup. Default: the shipped flows.",
)
def command(folder: Path | None) -> int:
    """Start the server, a fake FreeSWITCH that replays a recording of a real one, and three phones, and show
    each call: every message of the phones, every step of the flows. Exits with 1 if a scenario does not end as
    expected."""
    from orchestrator.runtime.patch import patch

    patch()
    from orchestrator.testing.demo import Demo

    return Demo(folder or _shipped()).run()


def _shipped() -> Path:
    """The flows beside this package, whatever folder the command is called in."""
    for folder in (Path(__file__).parents[2] / "flows", Path("flows")):
        if (folder / "push_wakeup.flow.yaml").exists():
            return folder
    raise click.UsageError("the shipped flows are not here; name their folder with --flows")
