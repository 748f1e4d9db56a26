"""Values of keys that are no single expression: constants, and lists and maps with expressions inside.

All of them answer `evaluate(env)` like an expression does (`orchestrator.flow.language.program.Evaluable`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import StepError
from orchestrator.events.checked import WrongValue
from orchestrator.flow.expr.types import ANY, Type
from orchestrator.flow.language.program import Env, Evaluable


@dataclass(frozen=True, slots=True)
class Constant:
    """A value that was written out; most keys of most flows. `source` is what the user wrote."""

    value: Any
    type: Type = ANY
    source: str = ""

    def evaluate(self, env: Env) -> Any:
        return self.value


@dataclass(frozen=True, slots=True)
class ListValue:
    items: Sequence[Evaluable]
    type: Type = ANY

    def evaluate(self, env: Env) -> list[Any]:
        return [item.evaluate(env) for item in self.items]


@dataclass(frozen=True, slots=True)
class MapValue:
    entries: Mapping[str, Evaluable]
    type: Type = ANY

    def evaluate(self, env: Env) -> dict[str, Any]:
        return {name: value.evaluate(env) for name, value in self.entries.items()}


@dataclass(frozen=True, slots=True)
class AsList:
    """One value where a list of them may stand: `cancel: all` is `cancel: [all]`."""

    value: Evaluable

    def evaluate(self, env: Env) -> list[Any]:
        value = self.value.evaluate(env)
        return list(value) if isinstance(value, list | tuple) else [value]


@dataclass(frozen=True, slots=True)
class Checked:
    """A value that has to be an aor, a uri or a tel where it enters: `read` gives it or raises WrongValue."""

    value: Evaluable
    read: Callable[[str], str]
    type: Type
    source: str = ""

    def evaluate(self, env: Env) -> Any:
        value = self.value.evaluate(env)
        try:
            return None if value is None else self.read(value)
        except WrongValue as wrong:
            raise StepError("expr.value", str(wrong)) from None


@dataclass(frozen=True, slots=True)
class ContactTest:
    """`where:` of a lookup: the tests of an event filter, put to `contact` in the environment."""

    equals: Mapping[str, Evaluable]
    rest: Evaluable | None

    def evaluate(self, env: Env) -> bool:
        contact = env["contact"]
        if any(contact[name] != value.evaluate(env) for name, value in self.equals.items()):
            return False
        return self.rest is None or bool(self.rest.evaluate(_Overlay(env, contact)))


class _Overlay(dict[str, Any]):
    """An environment in which `event` is something else."""

    def __init__(self, outer: Env, event: Any) -> None:
        super().__init__(event=event)
        self.outer = outer

    def __missing__(self, name: str) -> Any:
        return self.outer[name]


def constant_of(value: Any) -> Any:
    """The value of something compiled when it is known at load, else None."""
    if isinstance(value, Constant):
        return value.value
    return value.constant if getattr(value, "is_constant", False) else None
