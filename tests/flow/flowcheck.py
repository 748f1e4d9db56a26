"""Checking flow texts in tests: what is said about them, and what they become."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import dedent, indent
from typing import Any

from orchestrator.errors import Diagnostic, InputError
from orchestrator.flow.language.program import Flow, Program, Resources, Step
from orchestrator.flow.loader import Source, load_sources

NAME = "test.flow.yaml"


def diagnose(text: str, known: Resources | None = None) -> Sequence[Diagnostic]:
    """Everything the check has to say about one file."""
    try:
        return load_sources([Source(NAME, dedent(text))], known)[1]
    except InputError as error:
        return error.diagnostics


def said(text: str, known: Resources | None = None) -> list[str]:
    """The same as `line:column CODE message`."""
    return [f"{d.line}:{d.column} {d.code} {d.message}" for d in diagnose(text, known)]


def codes(text: str) -> list[str]:
    """Only the codes, in order of place."""
    return [d.code for d in diagnose(text)]


def load(text: str, known: Resources | None = None) -> Program:
    """The program of a text that has nothing wrong with it."""
    program, warnings = load_sources([Source(NAME, dedent(text))], known)
    assert not warnings, warnings
    return program


def steps(text: str, on: str = "invite", more: str = "") -> str:
    """A file with one flow `main` of these steps, which begin at line 6; `more` are further sections, behind it."""
    flow = f"    do:\n{indent(dedent(text).strip(chr(10)), ' ' * 6)}\n"
    trigger = f"    on: {on}\n" if on else "    description: sub\n"
    return f"flowlang: 1\nflows:\n  main:\n{trigger}{flow}{dedent(more).strip()}\n"


def main_flow(text: str, on: str = "invite", more: str = "") -> Flow:
    return load(steps(text, on, more)).flow("main")


def first_step(text: str, on: str = "invite", more: str = "") -> Step:
    """The first step of a flow of these steps, which must be without mistakes."""
    return main_flow(text, on, more).do[0]


def value(step: Step, name: str, **env: Any) -> Any:
    """What a key of a step is worth in an environment."""
    return step.args[name].evaluate(env)
