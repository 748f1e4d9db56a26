"""Which function compiles which action."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.flow.check import actions, control, events
from orchestrator.flow.check.paths import Path
from orchestrator.flow.check.shapes import Shape
from orchestrator.flow.check.steps import Around, Compiled, Compiler, StepChecker

COMPILERS: Mapping[str, Compiler] = {**actions.COMPILERS, **events.COMPILERS, **control.COMPILERS}
"""Action → the function that compiles it; all others are compiled by their kinds alone."""


def compile_action(checker: StepChecker, shape: Shape, path: Path, around: Around) -> Compiled:
    """The arguments of an action, those of packages included, and the type of its result."""
    assert shape.action is not None
    others = events.hearing if shape.action.hears else actions.generic
    return COMPILERS.get(shape.action.name, others)(checker, shape, path, around)
