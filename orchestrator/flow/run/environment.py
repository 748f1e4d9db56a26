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
from typing import Any

ABSENT: Any = object()


class Environment(dict[str, Any]):
    """Names to values, for `Evaluable.evaluate`. Treat it as frozen once a task has it.

    A name that is not here is asked of `outer`; what that does not know either is null: the checker has refused names
    that can never exist, so this one is an `as:` name whose step did not run.
    """

    __slots__ = ("outer",)

    def __init__(self, outer: Mapping[str, Any], names: Mapping[str, Any]) -> None:
        super().__init__(names)
        self.outer = outer

    def __missing__(self, name: str) -> Any:
        return self.outer.get(name)

    def bind(self, name: str, value: Any) -> Environment:
        """A copy in which `name` has this value."""
        env = Environment(self.outer, self)
        env[name] = value
        return env

    def without(self, names: Mapping[str, Any], before: Mapping[str, Any]) -> Environment:
        """A copy in which each of `names` is again what it was in `before`: the end of a block that added them."""
        env = Environment(self.outer, self)
        for name in names:
            if name in before:
                env[name] = before[name]
            else:
                env.pop(name, None)
        return env
