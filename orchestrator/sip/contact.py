"""A Contact URI as flows hold it: text that remembers the binding it was read from.

A URI alone does not say whose it is: anybody may register anybody's Contact under an address of his own, and behind
NAT the same private URI means a different phone in each house. So `lookup`, the events and the results of `relay` give
flows this text, and a destination made of it is that binding and no other. Text that a flow puts together is plain
text, and a plain URI is only a URI.
"""

from __future__ import annotations

from orchestrator.sip.location import Binding


class Contact(str):
    """The URI of `binding` as text; with `short` without its parameters. Equal to any text of the same characters."""

    __slots__ = ("binding",)

    binding: Binding

    def __new__(cls, binding: Binding, short: bool = False) -> Contact:
        uri = binding.uri
        at = uri.rfind("@") + 1  # a user part may have a semicolon of its own
        contact = super().__new__(cls, uri[:at] + uri[at:].split(";", 1)[0] if short else uri)
        contact.binding = binding
        return contact

    @property
    def unique_key(self) -> object:
        """What `unique_by` tells phones apart by: the contact of an address, and where it was seen (NAT, Path)."""
        binding = self.binding
        return str(self), binding.aor, binding.received, binding.path
