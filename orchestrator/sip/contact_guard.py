"""Where a registered contact may lead: a phone says so itself, and what it says may be somebody else's address.

Never to us, to a gateway or to a FreeSWITCH server (calls would go there past the flow that guards it), never to
loopback from outside, and never where no datagram may be sent at all. Beyond that `allow` says how far a contact is
believed: `source`, it is reached at the address the REGISTER came from, whatever it names; `private`, within a private
network it is reached where it names; `any`, it is reached where it names. A Path that does not begin
where the REGISTER came from is refused then.

A phone behind NAT names a private address and is reached where it was seen, with each of them.

What a REGISTER names is looked at once more whenever a call is sent there, for two things change meanwhile: a host name
leads to another address, and the configuration gives an address to a gateway.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Literal

from orchestrator.errors import SipError
from orchestrator.sip.admission import source_name
from orchestrator.sip.routing import is_literal, is_private, unicast
from orchestrator.sip.uri import Uri

Allow = Literal["source", "private", "any"]


class ContactGuard:
    """`is_own(uri)`: host and port are ours. `is_ours(address)`: the address is one of this machine.
    `is_peer(address)`: it is a gateway's or a FreeSWITCH server's. `is_known(name)`: the host name of any of these."""

    def __init__(
        self,
        allow: Allow,
        is_own: Callable[[Uri], bool],
        is_ours: Callable[[str], bool],
        is_peer: Callable[[str], bool],
        is_known: Callable[[bytes], bool],
    ) -> None:
        self._allow = allow
        self._is_own = is_own
        self._is_ours = is_ours
        self._is_peer = is_peer
        self._is_known = is_known

    def at_source(self, uri: Uri, host: str) -> bool:
        """Whether a contact, or the first hop of a Path, that came from `host` is to be reached there and not where it
        names. Raises SipError 400 and 403."""
        if not uri.is_sip:
            return False
        if b"method" in uri.params:  # RFC 3261 §19.1.1, table 1
            raise SipError(400, "Method In Contact")
        self._check(uri, uri.host, host)
        relay = uri.params.get(b"maddr")
        if relay is not None:
            self._check(uri, relay, host)
        if self._allow == "any":
            return self._is_inside(uri.host, host)
        address = unicast(uri.host)
        if address is None or source_name(address) == source_name(host):
            return address is None
        if ip_address(address).is_loopback and ip_address(host.partition("%")[0]).is_loopback:
            return False  # all on this machine
        if self._allow == "private":
            return not (is_private(address) and is_private(host.partition("%")[0]))
        return True

    def may_ring(self, address: str, source: str) -> bool:
        """Whether a call may go to this IP address for a contact that the address `source` has registered, '' where it
        is not known."""
        address = address.partition("%")[0]
        if self._is_peer(address):
            return False
        if not source:
            return True
        here = self._is_ours(source) or bool(ip_address(source).is_loopback)
        if self._is_ours(address) or bool(ip_address(address).is_loopback):
            return here
        return here or not is_private(address) or is_private(source)

    def _is_inside(self, name: bytes, host: str) -> bool:
        """A private address that means nothing out here."""
        address = unicast(name)
        return address is not None and is_private(address) and not is_private(host.partition("%")[0])

    def _check(self, uri: Uri, name: bytes, host: str) -> None:
        address = unicast(name)
        if address is None:
            if is_literal(name) or name.rstrip(b".").rpartition(b".")[2][:1].isdigit():  # 127.1, 0x7f000001 (§25.1)
                raise SipError(400, "Contact Cannot Be Reached")
            if self._is_known(name.rstrip(b".").lower()) or self._is_own(uri):
                raise SipError(403, "Contact Is Not Yours")
            return
        if ip_address(address).is_loopback and not ip_address(host.partition("%")[0]).is_loopback:
            raise SipError(403, "Contact Is Loopback")
        theirs = self._is_peer(address) or (self._is_ours(address) and not self._is_ours(host))
        if theirs or self._is_own(uri):
            raise SipError(403, "Contact Is Not Yours")
