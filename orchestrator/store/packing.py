"""A binding as a mapping of JSON values, for stores that keep text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from orchestrator.sip.binding import Binding

_OCTETS = ("contact", "call_id", "parameters")
_FIELDS = tuple(field.name for field in fields(Binding) if field.name != "connection")  # none outlives the server


def pack(binding: Binding) -> dict[str, Any]:
    """What `unpack` makes the same binding of; octets stand as Latin-1."""
    row = {name: getattr(binding, name) for name in _FIELDS}
    for name in _OCTETS:
        row[name] = row[name].decode("latin-1")
    row["path"] = [value.decode("latin-1") for value in binding.path]
    row["extra"] = None if binding.extra is None else dict(binding.extra)
    return row


def unpack(row: Mapping[str, Any]) -> Binding:
    """A binding that `pack` has taken apart, also one of another version: what it does not know is left out, what is
    missing has its default. Raises TypeError, ValueError or AttributeError for anything else."""
    known = {name: row[name] for name in _FIELDS if name in row}
    for name in _OCTETS:
        if name in known:
            known[name] = known[name].encode("latin-1")
    if "path" in known:
        known["path"] = tuple(value.encode("latin-1") for value in known["path"])
    if known.get("received") is not None:
        host, port = known["received"]
        known["received"] = (host, port)
    return Binding(**known)
