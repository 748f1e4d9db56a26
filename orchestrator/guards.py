"""The guards of the border that a configuration can take away: what they are called, how they are set by default, and
which of them are off.

docs/security.md has the same table, and a test holds both against the model: a default does not change in silence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.flow.language.program import Program
from orchestrator.settings import Settings


@dataclass(frozen=True, slots=True)
class Guard:
    """One of them. `off(settings, program)`: whether nothing of it is left."""

    name: str
    key: str
    """Of the configuration, with dots between sections and keys."""
    off: Callable[[Settings, Program], bool]


def _anyone_registers(settings: Settings, program: Program) -> bool:
    asked = any(flow.trigger.kind == "register" for flow in program.flows)
    return settings.registrar.without_flow == "anyone" and not asked


GUARDS = (
    Guard("open relay", "sip.open_relay", lambda settings, _: settings.sip.open_relay == "on"),
    Guard("registrar", "registrar.without_flow", _anyone_registers),
    Guard("contacts", "contacts.allow", lambda settings, _: settings.contacts.allow == "any"),
    Guard("failed logins", "sources.failures", lambda settings, _: not settings.sources.failures),
    Guard("scanners", "scanners", lambda settings, _: not (settings.scanners.agents or settings.scanners.addresses)),
)


def guards_off(settings: Settings, program: Program) -> list[str]:
    """Keys of the guards that are off."""
    return [guard.key for guard in GUARDS if guard.off(settings, program)]
