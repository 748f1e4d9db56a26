"""`orchestrator replay`: what a flow makes of a recorded FreeSWITCH."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli._output import config_option, settings_of


@click.command(short_help="Replay a recording of a FreeSWITCH through a flow and print the trace.")
@click.argument("recording", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--flow", required=True, help="The flow that its calls start; its `when:` is ignored.")
@click.option(
    "--flows",
    "paths",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Flow files or folders. Default: those of the configuration.",
)
@click.option("--from", "caller", default="", metavar="USER@DOMAIN", help="The caller. Default: the recorded one.")
@click.option(
    "--to", "called", default="", metavar="USER@DOMAIN", help="The dialled number. Default: the recorded one."
)
@click.option(
    "--registered", multiple=True, metavar="USER@DOMAIN", help="Registered users; by default the dialled one."
)
@click.option(
    "--leg",
    "legs",
    multiple=True,
    metavar="caller=UUID|callee=UUID",
    help="Map a recorded channel to a leg if the recorded call did not pass through us.",
)
@click.option("--cut", type=click.IntRange(0), default=0, metavar="N", help="Cut the Event Socket after each N events.")
@click.option(
    "--silence", type=click.IntRange(0), default=0, metavar="N", help="FreeSWITCH stops responding after N events."
)
@click.option("--restart", type=click.IntRange(0), default=0, metavar="N", help="Restart FreeSWITCH after N events.")
@click.option("--duplicate", is_flag=True, help="Deliver every event twice.")
@config_option
def command(
    recording: Path,
    flow: str,
    paths: tuple[Path, ...],
    caller: str,
    called: str,
    registered: tuple[str, ...],
    legs: tuple[str, ...],
    cut: int,
    silence: int,
    restart: int,
    duplicate: bool,
    config: Path | None,
) -> int:
    """Play RECORDING (.esl: the raw stream, .eslrec: JSON lines) through the real engine and print what each call's
    flow did. Uses the time of the recording and opens no socket. Exits with 1 if a flow ended in an error or no flow
    ran."""
    from orchestrator.flow.loader import load_sources, read_sources
    from orchestrator.resources import known_resources
    from orchestrator.testing.faults import Faults
    from orchestrator.testing.replay import Replay, UnknownFlow, UnusableRecording, only_flow, recording_with

    settings = settings_of(config)
    program, _ = load_sources(read_sources(paths or settings.flows), known_resources(settings))
    try:
        chosen = only_flow(program, flow)
    except UnknownFlow as error:
        raise click.BadParameter(str(error), param_hint="--flow") from None
    try:
        stream = recording_with(recording, _legs(legs))
    except UnusableRecording as error:
        raise click.BadParameter(str(error), param_hint=error.parameter) from None
    replay = Replay(
        stream,
        chosen,
        caller=caller,
        called=called,
        registered=registered,
        legs=_legs(legs),
        faults=Faults(cut, silence, restart, duplicate),
    )
    if stream.cut_off:
        left_out = f"its last {stream.cut_off} octets are left out"
        click.echo(f"{recording} ends in the middle of a frame: {left_out}", err=True)
    replay.run()
    click.echo("".join(f"{line}\n" for line in replay.report()), nl=False)
    if not replay.traces():
        why = f"flow {flow!r} took none of them" if replay.calls else "the recording has no CHANNEL_CREATE"
        click.echo(f"no flow has run: {len(replay.calls)} calls, and {why}", err=True)
    return int(not replay.traces() or any(trace.error for trace in replay.traces()))


def _legs(given: tuple[str, ...]) -> dict[str, str]:
    legs = {}
    for entry in given:
        leg, equals, uuid = entry.partition("=")
        if leg not in ("caller", "callee") or not equals or not uuid:
            raise click.BadParameter(f"{entry!r}: write caller=UUID or callee=UUID", param_hint="--leg")
        legs[leg] = uuid
    return legs
