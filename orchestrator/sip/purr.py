"""PURRs: names by which a request inside a dialog finds the phone that has to be woken for it (RFC 8599 §6).

A phone is given one with the 200 to its REGISTER (`+sip.pnspurr`) and writes it into the Contact of its dialogs
(`pn-purr`). Nothing is kept for it: address of record and what the phone is known by stand in it, enciphered. Each 200
has another one, so that nobody else can tell which belong to one phone; all of them hold, after a restart, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from orchestrator.sip.binding import Binding
from orchestrator.sip.topology import Veil
from orchestrator.sip.uri import Uri

PARAMETER: Final = b"pn-purr"
_SEAL: Final = b"purr"
_LONGEST: Final = 256
"""Octets of an address of record; whoever has a longer one gets no PURR, for it would stand in each of his messages."""


@dataclass(frozen=True, slots=True)
class Purr:
    """What a PURR means: a phone of the address `aor`."""

    aor: str
    marks: tuple[bytes, ...]
    """Hashes of what it is known by."""

    def is_of(self, binding: Binding) -> bool:
        """Whether a binding is of this phone: it has the same instance or push token, or registers with the same
        Call-ID where it has no instance."""
        return binding.aor == self.aor and not set(self.marks).isdisjoint(_marks(binding))

    def find(self, bindings: Iterable[Binding]) -> Binding | None:
        """The one of them that is of this phone: what it is known by best goes first."""
        own = [binding for binding in bindings if self.is_of(binding)]
        return next((binding for mark in self.marks for binding in own if mark in _marks(binding)), None)


def make(veil: Veil, binding: Binding, salt: bytes) -> bytes:
    """One for the phone of a binding; b'' for a phone whose address is too long. `salt` is drawn for each one."""
    aor = binding.aor.encode()
    if len(aor) > _LONGEST or b"\n" in aor:
        return b""
    return veil.hide(_SEAL, (salt, aor, *_marks(binding)))


def read(veil: Veil, value: bytes) -> Purr | None:
    """What it means; None when we have not made it."""
    meant = veil.show(_SEAL, value)
    if meant is None or len(meant) < 3:
        return None
    return Purr(meant[1].decode("utf-8", "replace"), meant[2:])


def of_uri(veil: Veil, uri: Uri) -> Purr | None:
    """That of a Request-URI, Route or Contact; None for none and for one that is not ours."""
    value = uri.params.get(PARAMETER)
    return read(veil, value) if value else None


def _marks(binding: Binding) -> tuple[bytes, ...]:
    known = b"instance " + binding.instance.encode() if binding.instance else b"call " + binding.call_id
    address = binding.push_address
    if address is None:
        return (_hash(known),)
    token = address.token.lower() if address.service == "apns" else address.token
    return _hash(known), _hash(f"push {address.service} {token}".encode())


def _hash(text: bytes) -> bytes:
    return blake2b(text, digest_size=6).hexdigest().encode()
