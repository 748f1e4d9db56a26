"""What is registered: addresses of record with their contacts."""

from __future__ import annotations

from typing import Any

from orchestrator.core.engine import Engine
from orchestrator.sip.binding import Binding
from orchestrator.views.listing import Listing
from orchestrator.views.shown_values import iso, length, opaque


def registrations(engine: Engine, now: float, of: str = "") -> Listing[str]:
    """Addresses of record; `of`: those with this text in the address or in a contact."""
    wanted, location = of.lower(), engine.location
    wall = now + engine.settings.wall_offset

    def match(aor: str) -> bool:
        if wanted in aor.lower():
            return True
        return any(wanted in binding.shown.lower() for binding in location.bindings(aor, wall))

    return Listing(location.addresses(), lambda aor: registration(engine, aor, now), str, match if of else None)


def registration(engine: Engine, aor: str, now: float) -> dict[str, Any]:
    """One address of record; without contacts where nobody is registered as it."""
    wall = now + engine.settings.wall_offset
    return {"aor": aor, "contacts": [_contact(engine, found, wall) for found in engine.location.bindings(aor, wall)]}


def contact_id(binding: Binding) -> str:
    """What names a contact where its URI may not be shown whole."""
    return opaque(binding.key)


def _contact(engine: Engine, binding: Binding, wall: float) -> dict[str, Any]:
    return {
        "id": contact_id(binding),
        "contact": binding.shown,
        "expires": iso(binding.expires_at),
        "expires_in": length(max(0.0, binding.expires_at - wall)),
        "registered": iso(binding.registered_at),
        "q": binding.q,
        "user_agent": binding.user_agent or None,
        "received": None if binding.received is None else f"{binding.received[0]}:{binding.received[1]}",
        "transport": binding.transport,
        "path": [hop.decode("utf-8", "replace") for hop in binding.path],
        "instance": binding.instance,
        "reg_id": binding.reg_id,
        "source": binding.source or None,
        "push": _push(engine, binding),
    }


def _push(engine: Engine, binding: Binding) -> dict[str, Any] | None:
    """How the phone is woken; None for one that nobody wakes."""
    address = binding.push_address
    if address is None:
        return None
    return {
        "service": address.service,
        "app": address.app,
        "token": address.shown,
        "asleep": engine.pusher.sleeps(binding),
    }
