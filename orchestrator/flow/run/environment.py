"""What names mean while a flow runs: `call`, `vars`, `event`, the results kept with `as:`.

There is one environment per task, and it is never changed: a step that adds a name makes a new one. So a handler, a
branch or a subscription that waits for an hour keeps the names of its moment by keeping a reference (FLOWLANG §5,
"What a handler inherits"), and a parked call does not pay for a copy. `vars` is the one thing shared on purpose: all
environments of a run hold the same dictionary.

Names that belong to the program and not to the run (`const`, `groups`, `schedules`, `secrets`, `now`) are looked up in
`outer`, a mapping of the host, so that `now` and `schedules.office.open` are live.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

ABSENT: Any = object()
NO_VARS: Final[Mapping[str, Any]] = MappingProxyType({})
"""Of a flow that declares none: nothing can be set then."""


class Environment(dict[str, Any]):
    """Names to values, for `Evaluable.evaluate`. Treat it as frozen once a task has it.

    `call` and `vars`, which nearly all have and which nearly always are all, are attributes: a dictionary of two names
    takes twice the memory, and thousands of calls wait with theirs. A name that is not here is asked of `outer`; what
    that does not know either is null: the checker has refused names that can never exist, so this one is an `as:` name
    whose step did not run.
    """

    __slots__ = ("call", "outer", "vars")

    def __init__(
        self, outer: Mapping[str, Any], names: Mapping[str, Any], call: Any = None, vars: Mapping[str, Any] = NO_VARS
    ) -> None:
        super().__init__(names)
        self.outer = outer
        self.call = call
        self.vars = vars

    def __missing__(self, name: str) -> Any:
        if name == "call":
            return self.call
        return self.vars if name == "vars" else self.outer.get(name)

    def more(self, names: Mapping[str, Any]) -> Environment:
        """A copy in which these names have these values."""
        env = Environment(self.outer, self, self.call, self.vars)
        env.update(names)
        return env

    def bind(self, name: str, value: Any) -> Environment:
        """A copy in which `name` has this value."""
        env = Environment(self.outer, self, self.call, self.vars)
        env[name] = value
        return env

    def without(self, names: Mapping[str, Any], before: Mapping[str, Any]) -> Environment:
        """A copy in which each of `names` is again what it was in `before`: the end of a block that added them."""
        env = self.more({})
        for name in names:
            if name in before:
                env[name] = before[name]
            else:
                env.pop(name, None)
        return env
