"""The names of a program: `const`, `groups`, `schedules`, `secrets` and `now`, as expressions see them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from orchestrator.flow.language.program import Program
from orchestrator.flow.language.schedules import ScheduleViews


class ProgramNames(Mapping[str, Any]):
    """What `FlowEngine` looks up when a name is not the run's own. `schedules.x.open` and `now` are read when asked
    for."""

    def __init__(self, program: Program, wall: Callable[[], float], secrets: Mapping[str, str]) -> None:
        resources = program.resources
        self._wall = wall
        self._fixed: dict[str, Any] = {
            "const": resources.const,
            "groups": resources.groups,
            "schedules": ScheduleViews(resources.schedules, wall),
            "secrets": secrets,
        }

    def __getitem__(self, name: str) -> Any:
        return int(self._wall()) if name == "now" else self._fixed[name]

    def __iter__(self) -> Iterator[str]:
        return iter((*self._fixed, "now"))

    def __len__(self) -> int:
        return len(self._fixed) + 1
