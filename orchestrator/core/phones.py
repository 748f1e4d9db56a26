"""What registered phones may send each other besides calls: MESSAGE, SUBSCRIBE, REFER, NOTIFY, INFO, OPTIONS.

A phone is known by its registration: the sender of the request is one of our addresses, and it comes from where that
address is registered. Whoever could register there (a flow with `auth` decides) may send.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Final

from orchestrator.errors import MalformedMessage
from orchestrator.sip.headers import parse_name_addr
from orchestrator.sip.location import Binding
from orchestrator.sip.message import Request
from orchestrator.sip.points import Hop
from orchestrator.sip.routing import port_of, unicast
from orchestrator.sip.target import Target
from orchestrator.sip.uri import Uri, parse_uri

PHONE_EVENTS: Final = (b"presence", b"dialog", b"refer", b"conference", b"kpml", b"talk", b"hold")
"""Event packages that phones serve themselves; one that does not says so itself."""


def package_of(request: Request) -> bytes:
    """The event package of a SUBSCRIBE or PUBLISH, b'' where none is named."""
    return (request.get(b"event") or b"").partition(b";")[0].strip().lower()


def allow_events(served: Mapping[str, str]) -> bytes:
    """The header line that says which packages may be subscribed to (RFC 6665 §8.3.2)."""
    names = dict.fromkeys([*(name.encode() for name in served), *PHONE_EVENTS])
    return b"Allow-Events: " + b", ".join(names)


def is_registered_at(binding: Binding, hop: Hop) -> bool:
    """Whether a request from this hop may be of the phone that has made the binding."""
    host, port = hop.host, hop.port
    if binding.point and binding.point != hop.point.name:  # another network may have the same addresses
        return False
    if binding.received is not None:
        return (host, port) == binding.received
    try:
        first = parse_name_addr(binding.path[0]).parsed if binding.path else parse_uri(binding.contact)
    except MalformedMessage:
        return False
    return _is_host(first, host)


def _is_host(uri: Uri, host: str) -> bool:
    address = unicast(uri.host)
    return address is not None and ip_address(address) == ip_address(host)


def leads_to(target: Target, hop: Hop) -> bool:
    """Whether a request to this target would go back to where another one came from."""
    point, host, port = hop.point, hop.host, hop.port
    if target.point is not None and target.point is not point:
        return False
    if target.hop is not None:
        return (target.hop.host, target.hop.port) == (host, port)
    try:
        uri = target.first_hop()
    except MalformedMessage:
        return False
    return _is_host(uri, host) and port_of(uri) == port
