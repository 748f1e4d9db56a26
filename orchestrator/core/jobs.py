"""Work the core cannot do inside a turn: it is handed out as a `Job` and comes back through `Engine.complete`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from orchestrator.errors import StepError
from orchestrator.flow.run.effects import EslCommand, EslExecute, Http
from orchestrator.flow.run.traits import PoolEffect
from orchestrator.sip.locate import Goal
from orchestrator.sip.push import Push, Pushed
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


def call_of(effect: JobEffect) -> str:
    """Call-ID of the leg that it is for, '' where it names none."""
    if isinstance(effect, EslExecute):
        return effect.uuid  # of a channel that is named as its leg (config/freeswitch)
    return effect.call if isinstance(effect, Push) else ""


def told_of(effect: JobEffect) -> tuple[str, dict[str, str]]:
    """What an effect is, in some words, and where it goes."""
    if isinstance(effect, Http):
        host = urlsplit(effect.url).netloc.rpartition("@")[2]
        return f"http {effect.method or 'GET'}", {"server.address": host}
    if isinstance(effect, EslCommand):
        return f"fs.{effect.kind} {effect.command.partition(' ')[0]}", {"server.address": effect.server}
    if isinstance(effect, EslExecute):
        return f"fs.execute {effect.app}", {"server.address": effect.server, "leg": effect.leg}
    if isinstance(effect, Push):
        return f"push {effect.service}", {"push.kind": effect.kind}
    return str(getattr(effect, "name", type(effect).__name__)), {}


def error_of(result: Any) -> str:
    """Type of the error that a result is, '' for none."""
    if isinstance(result, StepError):
        return result.type
    if isinstance(result, Pushed) and result.outcome != "sent":
        return f"push.{result.outcome}"
    return ""


@dataclass(frozen=True, slots=True)
class Job:
    """`Engine.complete(job.id, result or StepError, now)` ends it; a job nobody waits for any more is ignored there."""

    id: int
    effect: JobEffect
