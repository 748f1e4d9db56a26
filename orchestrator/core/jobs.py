"""Work the core cannot do inside a turn: it is handed out as a `Job` and comes back through `Engine.complete`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orchestrator.flow.run.effects import EslCommand, EslExecute, Http
from orchestrator.flow.run.traits import PoolEffect
from orchestrator.sip.locate import Goal
from orchestrator.sip.push import Push
from orchestrator.sip.stores import StoreWork


@dataclass(frozen=True, slots=True)
class Resolve:
    """Find the servers of a host name. Result: what is found (`sip.locate.Found`), or None when the look-up failed; an
    address as text stands for a name that has nothing else."""

    goal: Goal
    configured: bool = False
    """Whether the configuration names it: it does not wait behind names of callers."""

    @property
    def host(self) -> str:
        return self.goal.name


@dataclass(frozen=True, slots=True)
class Write:
    """Have the location store carry out a write. Result: None when it is stored, else the StoreError."""

    work: StoreWork
    limit: float
    """Seconds it may take."""


@dataclass(slots=True)
class FindUser:
    """Ask a user table that is not a file. Result: a Secret, or None for nobody."""

    table: str
    """Its name in the configuration."""
    chosen: Any
    """Which it is, with its settings; what the application has made of `users:`."""
    user: str
    realm: str
    timeout: float
    """Seconds it may take."""
    given_up: bool = False
    """Nobody waits for it any more."""


JobEffect = Http | EslCommand | EslExecute | Resolve | Write | FindUser | Push | PoolEffect
"""The result of a `Push` is a `sip.push.Pushed`."""


@dataclass(frozen=True, slots=True)
class Job:
    """`Engine.complete(job.id, result or StepError, now)` ends it; a job nobody waits for any more is ignored there."""

    id: int
    effect: JobEffect
