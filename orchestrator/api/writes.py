"""What the API lets a person or a program change: the endpoints with the scope `full`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

from loguru import logger

from orchestrator.api.endpoint import Asked, Endpoint, Parameter
from orchestrator.api.problems import Problem, unknown
from orchestrator.core.engine import Engine
from orchestrator.events.received import MOST_OCTETS, NoRoom, NoSuchCall, NoSuchEvent, read_event
from orchestrator.runtime.incoming import Incoming
from orchestrator.runtime.pushes import Busy, HandPushes, NobodyRegistered, WrongPush

MOST_PUSH = 16_384
"""Octets of the request of a push."""


@dataclass(frozen=True, slots=True)
class Changed:
    """What is changed: one engine, and what stands around it."""

    engine: Engine
    incoming: Incoming
    pushes: HandPushes
    clock: Callable[[], float] = monotonic


def write_endpoints(changed: Changed) -> tuple[Endpoint, ...]:
    """Those of one server."""
    writes = _Writes(changed)
    source = Parameter("source", "Its address (IPv6: its /64).", required=True)
    return (
        Endpoint("POST", "events", "Raise an event.", writes.raise_event, body={"type": "object"}),
        Endpoint("POST", "push", "Push to the phones of an address.", writes.push, body={"type": "object"}),
        Endpoint("DELETE", "bans", "End the ban of a source.", writes.lift_ban, (source,), status=204),
    )


class _Writes:
    def __init__(self, changed: Changed) -> None:
        self._changed = changed
        self._engine = changed.engine

    def raise_event(self, asked: Asked) -> dict[str, Any]:
        octets = asked.octets(MOST_OCTETS)
        try:
            taken = self._changed.incoming.take(read_event(octets))
        except NoSuchEvent as error:
            raise Problem(
                404, "event.unknown", "unknown event", str(error), "GET /api/v1/events/catalogue lists them"
            ) from None
        except ValueError as error:
            raise Problem(400, "event.invalid", "not an event", str(error)) from None
        except NoSuchCall as error:
            raise Problem(404, "call.unknown", "unknown call", str(error)) from None
        except NoRoom as error:
            raise _busy(str(error)) from None
        return {"taken": taken}

    def push(self, asked: Asked) -> dict[str, Any]:
        told: Mapping[str, Any] = asked.body(MOST_PUSH)
        try:
            return self._changed.pushes.push(told)
        except WrongPush as error:
            raise Problem(400, "body.invalid", "not a push", str(error)) from None
        except NobodyRegistered as error:
            raise Problem(404, "registration.unknown", "not registered", str(error)) from None
        except Busy:
            raise _busy("the server has not come to it") from None

    def lift_ban(self, asked: Asked) -> None:
        source = asked.text("source")
        if not self._engine.admission.lift(source, self._changed.clock()):
            raise unknown("ban", source, "GET /api/v1/bans lists those that last")
        logger.bind(address=source).info("source_ban_lifted")


def _busy(detail: str) -> Problem:
    return Problem(503, "busy", "busy", detail, "try again in a moment", headers={"Retry-After": "1"})
