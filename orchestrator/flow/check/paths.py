"""Ways through a flow: which names there are at a point, of which type, and whether the point is reached at all.

The checker walks steps in order with one `Path`. Where ways part (`if`, outcomes, cases, a timeout) it forks, where
they meet again it joins: a name that only some ways have set may be missing afterwards, a fact about null holds if
all ways know it. A way that ends (`stop`, `return`, `fail`) takes no part in the meeting.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce

from orchestrator.flow.expr import ANY, Scope, Type, optional, unify
from orchestrator.flow.expr.scope import Facts


@dataclass(slots=True)
class Path:
    """One way. `call` and `request` say that the flow has one here for sure, whoever called it."""

    scope: Scope
    alive: bool = True
    call: bool = False
    request: bool = False

    def fork(self, facts: Facts = frozenset()) -> Path:
        """The same way, to be walked apart from this one, where `facts` are known besides."""
        return Path(self.scope.narrow(facts) if facts else self.scope, self.alive, self.call, self.request)

    def join(self, *ways: Path) -> None:
        """Go on where these ways meet; not alive when none of them arrives."""
        alive = [way for way in ways if way.alive]
        self.alive = bool(alive)
        if not alive:
            return
        self.scope = _meet([way.scope for way in alive])
        self.call = all(way.call for way in alive)
        self.request = all(way.request for way in alive)

    def leave(self, before: Scope, names: Iterable[str]) -> None:
        """The end of a block that had names of its own: they are what they were before it."""
        kept = dict(self.scope.names)
        for name in names:
            if name in before.names:
                kept[name] = before.names[name]
            else:
                kept.pop(name, None)
        known = frozenset(fact for fact in self.scope.known if fact[0] not in set(names) or fact in before.known)
        self.scope = replace(self.scope, names=kept, known=known)


def _meet(scopes: Sequence[Scope]) -> Scope:
    first = scopes[0]
    if all(scope.names is first.names and scope.known == first.known for scope in scopes):
        return first
    order = dict.fromkeys(name for scope in scopes for name in scope.names)
    names = {name: _common([scope.names.get(name) for scope in scopes]) for name in order}
    surely = frozenset((name,) for name in order if all(_is_sure(scope, name) for scope in scopes))
    known = reduce(frozenset.intersection, (scope.known for scope in scopes)) | surely
    return replace(first, names=names, known=known)


def _common(types: Sequence[Type | None]) -> Type:
    """The type of a name after ways have met; None stands for a way that has not set it."""
    there = [type for type in types if type is not None]
    found: Type | None = there[0]
    for type in there[1:]:
        found = found if found is type else unify(found, type) if found else None
    found = found or ANY
    return found if len(there) == len(types) else optional(found)


def _is_sure(scope: Scope, name: str) -> bool:
    """Whether a name is there and not null on a way, although it may be elsewhere."""
    type = scope.names.get(name)
    return type is not None and (not type.optional or (name,) in scope.known)
