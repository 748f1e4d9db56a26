"""`orchestrator test`: run the tests of flows, on virtual wires and a virtual clock."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli._output import show
from orchestrator.errors import InputError


@click.command(short_help="Run *.test.yaml: flows on a virtual network and a virtual clock.")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path, exists=True), metavar="[FILE|FOLDER]...")
@click.option("-k", "only", default="", metavar="TEXT", help="Run only tests whose name contains this text.")
@click.option("-v", "--verbose", is_flag=True, help="Print the trace of every test, not only of failed ones.")
@click.option("--cover", is_flag=True, help="List the lines of the flows that no test has run.")
def command(paths: tuple[Path, ...], only: str, verbose: bool, cover: bool) -> int:
    """Run test files and folders of them; without any, the folder tests. No socket is opened and no time is spent.

    Exits with 0 if all tests pass, with 1 if one fails or a file has an error, with 5 if there are no tests.
    """
    from orchestrator.flow.run.trace import render
    from orchestrator.testing.case_files import Case, Outcome, find_cases, load_cases
    from orchestrator.testing.coverage import FlowCoverage

    cases: list[Case] = []
    broken = 0
    if not paths and not Path("tests").is_dir():
        click.echo("error: there is no folder tests here; name test files or folders", err=True)
        return 5
    for file in find_cases(paths or (Path("tests"),)):
        try:
            cases += [case for case in load_cases(file) if only in case.name]
        except InputError as error:
            show(error.diagnostics)
            broken += 1
    coverage = FlowCoverage()
    failed = 0
    for case in cases:
        try:
            outcome: Outcome = case.run()
        except InputError as error:
            click.echo(f"{case.place}: {click.style('ERROR', fg='red')} {case.name}")
            show(error.diagnostics)
            failed += 1
            continue
        coverage.add(outcome.story.world.engine.flows.program, outcome.story.ran)
        failed += not outcome.passed
        verdict = click.style("ok    ", fg="green") if outcome.passed else click.style("FAILED", fg="red")
        click.echo(f"{verdict} {case.name}")
        if verbose or not outcome.passed:
            for trace in outcome.story.traces():
                click.echo("\n".join(f"    {line}" for line in render(trace)))
        for failure in outcome.failures:
            click.echo(f"  {failure}")
    if cover:
        click.echo("\n".join(coverage.report()))
    click.echo(f"{len(cases) - failed} passed, {failed + broken} failed")
    return 1 if failed or broken else 0 if cases else 5
