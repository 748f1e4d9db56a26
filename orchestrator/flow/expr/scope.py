"""What an expression may see: names with their types, and what is known about null at this place.

Facts about null are paths. `('event', 'group')` in `known` says that `event.group` is not null here; an expression
exports the facts that hold where it was true or false, and the checker of the flow hands them to the steps that
follow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from orchestrator.flow.expr.origin import Alphabet
from orchestrator.flow.expr.types import Type

Path = tuple[str, ...]
"""`call.headers["X-Id"]` is ('call', 'headers', 'X-Id'); a list index is written '[0]'."""

Facts = frozenset[Path]

VOLATILE: Facts = frozenset(
    {("vars",), ("now",), ("schedules",)}
    | {("call", name) for name in ("state", "user", "duration", "answered", "ended_by", "end_reason", "fs", "branches")}
)
"""Values that change during a call: a filter that reads them is evaluated for each event and never becomes a hash key.
"""


@dataclass(frozen=True, slots=True)
class Scope:
    """Names and facts at one place of a flow.

    `hints(name)` may return the help line for an unknown root name (`sound_prefix`); it is asked when no known name is
    near. `flow` is the flow's name for messages about variables. `secrets` says whether the root `secrets` may be read
    here (E211).
    """

    names: Mapping[str, Type]
    hints: Callable[[str], str | None] | None = None
    known: Facts = field(default=frozenset())
    secrets: bool = False
    volatile: Facts = VOLATILE
    flow: str = ""

    def narrow(self, facts: Iterable[Path]) -> Scope:
        """The same scope where these paths are known not to be null."""
        return replace(self, known=self.known | frozenset(facts))

    def steady(self) -> Scope:
        """The same scope without what tests have shown about the origin of values that may change from here on."""
        kept = (fact for fact in self.known if not (isinstance(fact[-1], Alphabet) and _changes(fact, self.volatile)))
        return replace(self, known=frozenset(kept))

    def extend(self, names: Mapping[str, Type]) -> Scope:
        """The same scope with more names; facts about names given anew are dropped."""
        kept = frozenset(path for path in self.known if path[0] not in names)
        return replace(self, names={**self.names, **names}, known=kept)

    def forget(self, path: Path) -> Scope:
        """The same scope without facts about a path and what lies under it (after `set:`, or after waiting:
        ('vars',)).
        """
        return replace(self, known=frozenset(known for known in self.known if known[: len(path)] != path))


def _changes(fact: Path, volatile: Facts) -> bool:
    return any(fact[: len(path)] == path for path in volatile)


def freeswitch_hint(name: str) -> str:
    """Help for an unknown name inside text that goes to FreeSWITCH, where `${…}` is FreeSWITCH's own notation too."""
    return (
        f"if {name} is a FreeSWITCH channel variable: write $${{{name}}} to let FreeSWITCH fill it in, "
        f"or ${{call.fs.vars['{name}']}} to read it here"
    )
