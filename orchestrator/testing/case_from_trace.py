"""A call that happened becomes a test: `orchestrator trace RUN --as-test` (FLOWLANG §9.3).

The trace of a run says who called whom, which phones rang and what they said, which events the flow took with their
attributes, and how it ended. What came from outside becomes `given` and `when`; what the engine did becomes `expect`.
A contact that rang without having registered during the call was registered before it.

Where the media went through FreeSWITCH, what was heard there becomes an act: keys, beeps, fax tones, and for a verdict
of `detect: decision` the words that lead to it. FreeSWITCH's own SIP is left out: a test has no facts about that.

Every act stands at the moment that gives the run the times it had: keys a little before `collect` was done with them,
sounds as long as the steps that played them took.

A trace knows only what concerned the run. What it cannot know stands in the test as a comment: the answers of web
services beyond their status, keys that no condition has looked at, what applications of FreeSWITCH ended with, and
events that only a recording of FreeSWITCH can bring back (`orchestrator record` keeps those).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator.errors import InputError
from orchestrator.flow.language.program import Program
from orchestrator.flow.loader import load_program
from orchestrator.testing.case_text import pattern_of, quoted, seconds_of
from orchestrator.testing.teller import Teller

_PLACEHOLDER = "https://test.invalid/"
"""The value of every secret: good as a key, and as the URL some secrets are."""


def case_from_trace(trace: Mapping[str, Any], folder: Path) -> str:
    """A `*.test.yaml` for one run. `trace` is the admin interface's JSON of it, `folder` where the test will lie: paths
    are written relative to it."""
    teller = Teller(trace)
    for record in trace["records"]:
        teller.read(record)
    teller.end()
    return "\n".join(_rows(teller, trace, folder)) + "\n"


def _time(started: str | float) -> str:
    """When a run began: as the API says it, or in seconds since 1970."""
    if isinstance(started, str):
        return datetime.fromisoformat(started).isoformat()
    return datetime.fromtimestamp(started, UTC).isoformat()


def _rows(teller: Teller, trace: Mapping[str, Any], folder: Path) -> Iterator[str]:
    program = _program(trace["file"])
    yield f"# {trace['run']}, call {trace['call']}, flows {trace['hash']}"
    if trace["running"] or trace["dropped"]:
        yield "# the trace is not whole: the run goes on, or was longer than what is kept"
    if error := trace["error"]:
        yield f"# the run ended in {error}: this test fails until that is mended, or says  allow: [{error}]"
    if program is None:
        yield "# the flow file was not here when this was written: see to flows: and to given: secrets"
    yield "flowlang_test: 1"
    yield f"flows: {quoted(os.path.relpath(trace['file'], folder))}"
    yield "tests:"
    yield f"  - name: {quoted(trace['about'] or trace['run'])}"
    yield from _given(teller, program)
    if trace.get("started") is not None:  # schedules are to see the same time of day
        yield f"      time: '{_time(trace['started'])}'"
    yield "    when:" if teller.acts else "    when: []"
    yield from (
        f"      - {{at: {seconds_of(at)}{', ' if text else ''}{text}}}"
        for at, text in sorted(teller.acts, key=lambda act: act[0])
    )
    yield from (f"      # {comment}" for comment in teller.comments)
    expected = [*teller.expected, *([teller.ended] if teller.ended else [])]
    yield "    expect:" if expected else "    expect: []"
    yield from (f"      - {text}" for text in expected)


def _given(teller: Teller, program: Program | None) -> Iterator[str]:
    yield "    given:"
    yield f"      domains: [{quoted(teller.called.rpartition('@')[2] or 'example.com')}]"
    if teller.registered:
        yield "      registered:"
        for aor, contacts in teller.registered.items():
            if contacts:
                yield f"        {quoted(aor)}: [{', '.join(quoted(contact) for contact in contacts)}]"
    if teller.answers:
        yield "      answers:"
        yield from (f"        {quoted(contact)}: {status}" for contact, status in teller.answers.items())
    if teller.heard.sounds:
        sounds = (f"{quoted(pattern_of(file))}: {seconds_of(length)}" for file, length in teller.heard.sounds.items())
        yield f"      sounds: {{{', '.join(sounds)}}}"
    if teller.billed.given:
        yield f"      cgrates: {teller.billed.given}"
    if teller.woken.rules:
        yield f"      push: [{', '.join(teller.woken.rules)}]"
    if teller.http or teller.asks_web:
        rules = teller.http[:1] or ["{url: '*', status: 200}"]
        yield f"      http: [{', '.join(rules)}]"
        if len(set(teller.http)) > 1:
            yield f"      # they answered differently: {'; '.join(teller.http)}"
    if program is not None and program.resources.secrets:
        yield f"      secrets: {{{', '.join(f'{name}: {quoted(_PLACEHOLDER)}' for name in program.resources.secrets)}}}"


def _program(file: str) -> Program | None:
    """The flow's file as it is here, if it is."""
    try:
        return load_program([Path(file)])[0] if file else None
    except (InputError, OSError):
        return None
