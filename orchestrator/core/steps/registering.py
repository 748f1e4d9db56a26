"""`register` and `lookup` at work."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from orchestrator.core.node import Node
from orchestrator.core.registrations import Registration, Registrations, registered_attributes
from orchestrator.core.steps.performers import Performs
from orchestrator.errors import StepError
from orchestrator.flow.run import effects
from orchestrator.flow.run.engine import FlowEngine
from orchestrator.flow.run.run import Run
from orchestrator.flow.run.signals import PENDING, Ticket


class Registering:
    """Stores and finds bindings for one engine's flows."""

    def __init__(self, node: Node, flows: FlowEngine, registrations: Registrations) -> None:
        self._node = node
        self._flows = flows
        self._registrations = registrations
        self.performs: Performs = {effects.SaveContact: self._save, effects.Lookup: self._lookup}

    def _save(self, run: Run, ticket: Ticket, effect: effects.SaveContact) -> Any:
        registration = run.request
        if not isinstance(registration, Registration):
            raise StepError("call.state", "register: this run has no REGISTER")
        default = self._node.settings.register
        registration.save(
            replace(
                default,
                min_expires=default.min_expires if effect.min_expires is None else int(effect.min_expires),
                max_expires=default.max_expires if effect.max_expires is None else int(effect.max_expires),
                bounded=effect.max_expires is not None,
                max_contacts=default.max_contacts if effect.max_contacts is None else effect.max_contacts,
                extra={name: str(value) for name, value in effect.extra.items()} or None,
            )
        )
        if not registration.saving:
            return None
        registration.on_saved = partial(self._flows.resume, ticket, None)
        return PENDING

    def _lookup(self, run: Run, ticket: Ticket, effect: effects.Lookup) -> list[dict[str, Any]]:
        wall = self._node.wall
        bindings = self._registrations.bindings_of(effect.aor)
        return [
            {**registered_attributes(binding, False, "", wall), "q": binding.q, "extra": binding.extra or {}}
            for binding in bindings
        ]
