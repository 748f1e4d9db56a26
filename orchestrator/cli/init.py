"""`orchestrator init`: a folder to begin with, in which `check`, `test` and `run` work."""

from __future__ import annotations

from pathlib import Path

import click

FILES = {
    "config/orchestrator.yml": """\
# The configuration. Keys that are left out have their defaults; docs and defaults of all keys: config/orchestrator.yml
# of the repository.
sip:
  listen:
    - {env: SIP_LISTEN, default: 'udp:0.0.0.0:5060, tcp:0.0.0.0:5060'}
  domains: [example.com]            # besides the addresses of this machine
users:
  local: {file: config/users.yaml}
flows: [flows]
""",
    "config/users.yaml": """\
# Users of `auth:`, one a line:   alice: her password
""",
    "flows/calls.flow.yaml": """\
flowlang: 1
description: Ring the phones of whoever is called.

flows:
  calls:
    on: invite
    do:
      - relay: {to: registered, ring: 30s}
        on:
          busy: [reply: 486]
          else: [reply: 480]
""",
    "tests/calls.test.yaml": """\
flowlang_test: 1
flows: ../flows/calls.flow.yaml
tests:
  - name: bob's phone rings and answers
    given: {registered: {bob@example.com: ['bob@10.0.0.5']}}
    when:
      - {at: 0s, invite: {from: alice@example.com, to: bob@example.com}}
      - {at: 3s, branch: {uri: 'bob@10.0.0.5', reply: 200}}
    expect:
      - sent: {INVITE: 'sip:bob@10.0.0.5*', at: 0s}
      - reply: {code: 200, at: 3s}
""",
}


@click.command(short_help="Create a folder with a configuration, a flow and its test.")
@click.argument("folder", default=".", type=click.Path(path_type=Path, file_okay=False))
def command(folder: Path) -> None:
    """Write a configuration, an empty user table, a flow and its test into FOLDER (default: this one).

    Writes nothing if one of the files exists already.
    """
    there = [name for name in FILES if (folder / name).exists()]
    if there:
        raise click.ClickException(f"{folder / there[0]} exists already; nothing was written")
    for name, text in FILES.items():
        file = folder / name
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        except OSError as error:
            raise click.ClickException(f"cannot write {file}: {error.strerror}") from None
        click.echo(f"{file} written", err=True)
    cd = "" if folder == Path() else f"cd {folder} && "
    click.echo(f"next: {cd}orchestrator check, orchestrator test, orchestrator run", err=True)
