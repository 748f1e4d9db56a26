"""Where messages go: what arrives is stamped, what leaves finds its next hop (RFC 3261 §16.4, §16.6, §18.2; RFC 3581).

Names are looked up elsewhere: `Resolver.numeric` says at once for an address literal, everything else is a job for the
runtime, because a look-up blocks and the core must not.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from itertools import product
from typing import Final

from orchestrator.errors import MalformedMessage
from orchestrator.sip.grammar import COMMA, QUESTION
from orchestrator.sip.headers import Via
from orchestrator.sip.message import Request
from orchestrator.sip.points import ACCEPTED_ONLY, DEFAULT_PORT, DEFAULT_PORTS, Hop
from orchestrator.sip.uri import Uri, parse_uri

_MAX_REMEMBERED: Final = 10_000
"""Address literals remembered, so that the stream of strangers cannot grow the table without bound."""


class Addresses:
    """Address literals, checked once. None for names and for what a datagram must never be sent to.

    Broadcast, multicast and unspecified addresses in a Via or Contact are an old way to make a proxy shout.
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[bytes, str | None] = {}

    def numeric(self, host: bytes) -> str | None:
        """The IP address a host part spells, None when it is a name or not a unicast address."""
        try:
            return self._known[host]
        except KeyError:
            pass
        if len(self._known) >= _MAX_REMEMBERED:
            self._known.clear()
        address = self._known[host] = unicast(host)
        return address


def unicast(host: bytes) -> str | None:
    """Parse an IPv4 literal or an IPv6 reference in brackets; None for a name or an address no datagram may be sent
    to."""
    address = _literal(host)
    if address is None or address.is_multicast or address.is_unspecified or address == ip_address("255.255.255.255"):
        return None
    return str(address)


def is_literal(host: bytes) -> bool:
    """Whether this host part is an address rather than a name to look up."""
    return host[:1] == b"[" or _literal(host) is not None


def _literal(host: bytes) -> IPv4Address | IPv6Address | None:
    """The address a host part spells; an IPv4 address mapped into IPv6 is the IPv4 address, also where it is none to
    send to. Three colons in a row are two (RFC 5118 §4.10: a slip of RFC 3261's grammar)."""
    try:
        address = ip_address(host.strip(b"[]").replace(b":::", b"::").decode("ascii"))
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


_UNTRANSLATED: Final[dict[bytes, str]] = {b"udp": "udp", b"tcp": "tcp", b"tls": "tls", b"ws": "ws", b"wss": "wss"}
_OVER_TLS: Final = {"": "tls", "tcp": "tls", "tls": "tls", "ws": "wss", "wss": "wss"}
"""What the transport of a `sips:` URI is (§19.1.2, §26.2.2; RFC 7118 §5)."""


def transport_of(uri: Uri) -> str | None:
    """The transport that a SIP URI names, in lower case; '' where it names none, None where it names one that there
    cannot be, `sips:` over UDP, and for other schemes."""
    said = uri.transport
    transport = "" if said is None else _UNTRANSLATED.get(said) or said.decode("ascii", "replace")
    if uri.scheme == b"sip":
        return transport
    return _OVER_TLS.get(transport) if uri.scheme == b"sips" else None


SIPS: Final = frozenset(bytes(letters) for letters in product(b"sS", b"iI", b"pP", b"sS"))
"""The scheme of a `sips:` URI, the first four octets of one that names no other (§25.1: case does not matter)."""


def port_of(uri: Uri) -> int:
    """The port that a SIP URI leads to where its host has no SRV records (§19.1.2)."""
    return uri.port or DEFAULT_PORTS.get(transport_of(uri) or "udp", DEFAULT_PORT)


def request_uri(contact: bytes) -> bytes:
    """A Contact's URI as a request URI: without its headers (§19.1.1 table 1), which are nobody's to add (RFC 4475
    regescrt)."""
    if QUESTION not in contact:
        return contact
    try:
        headers = parse_uri(contact).headers
    except MalformedMessage:  # only a damaged store holds one: it leads nowhere
        return contact
    return contact[: -len(headers) - 1] if headers else contact


_PRIVATE = "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 100.64.0.0/10 169.254.0.0/16 fc00::/7 fe80::/10"
"""Addresses that mean something only within a network (RFC 1918, 6598, 3927, 4193, 4291)."""
_private_networks = tuple(map(ip_network, _PRIVATE.split()))


def is_private(address: str) -> bool:
    """Whether an IP address is one of a private network."""
    parsed = ip_address(address)
    return any(parsed in network for network in _private_networks)


_AFTER_PORT: Final = (b";", b">", b"")


def is_unaware(via: Via) -> bool:
    """Whether the sender believes to be somewhere else than it is: its Via has got another `received`, or the `rport`
    it asked for is another than its own (RFC 3581)."""
    received = via.received
    if received is not None and received.decode("ascii", "replace") != via.host.strip(b"[]").decode("ascii"):
        return True
    rport = via.rport
    return rport is not None and rport != (via.port or DEFAULT_PORT)


def _comes_directly(request: Request) -> bool:
    """Whether its source is its sender, as far as it says: no proxy in between."""
    shape = request.shape
    return shape.vias == 1 and COMMA not in request.lines[shape.via] and not request.has(b"record-route")


def is_elsewhere(request: Request, contact: Uri, source: tuple[str, int], addresses: Addresses) -> bool:
    """Whether this Contact of a request does not lead to its sender, at `source`, though it is meant to: it is behind
    NAT. The one rule for registrations and dialogs.

    One that knows its own address may have its calls served by another machine. A Contact of a private network is
    doubted when the sender is outside of one; one with the sender's address and another port when the sender asked for
    `rport` and learned that his NAT gave him another (STUN behind a symmetric NAT). With a proxy between it and us
    `source` is not the sender.
    """
    if not _comes_directly(request):
        return False
    address = addresses.numeric(contact.host)
    if not contact.is_sip or (address == source[0] and port_of(contact) == source[1]):
        return False
    if address == source[0]:  # then it is its port that it may not know, if its Via shows that it knows the address
        return addresses.numeric(request.via.host) == address and is_unaware(request.via)
    inside = address is not None and is_private(address) and not is_private(source[0])
    return inside or is_unaware(request.via)


def seen_elsewhere(request: Request, source: Hop, addresses: Addresses) -> Hop | None:
    """Where the sender of a request is reached that is not where its first Contact says, which is `source`; None where
    the Contact leads to it, or somewhere we have no reason to doubt."""
    at = request.shape.first.get(b"contact")
    if at is None:
        return None
    if source.connection and _comes_directly(request):
        return source  # nobody else can open it, wherever the Contact leads
    line, here = request.lines[at], b"@%b:%d" % (source.host.encode(), source.port)
    behind = line.find(here) + len(here)
    if behind >= len(here) and line[behind : behind + 1] in _AFTER_PORT:  # at a glance: nearly all say where they are
        return None
    try:
        contact = request.contacts()[0].parsed
    except MalformedMessage:  # the other side will say so
        return None
    if b"ob" in contact.params and _comes_directly(request):
        return source  # it wants to be reached over what it has sent this by (RFC 5626 §4.3)
    return source if is_elsewhere(request, contact, (source.host, source.port), addresses) else None


def _is_behind(name: bytes, host: str) -> bool:
    address = unicast(name)
    return address is not None and is_private(address) and not is_private(host.partition("%")[0])


def response_destination(via: Via, hop: Hop, nat: bool = True) -> Hop:
    """Where responses to a request go (§18.2.2, RFC 3581): its source address, and its sent-by port unless `rport`
    asked otherwise. With `nat`, a private address behind a public source is taken to be behind NAT, where only the
    source port leads back. What came over a connection is answered over it. `hop` is where the request came from."""
    point, host, source_port, connection, _ = hop
    port = via.port or DEFAULT_PORT
    if (
        port == source_port
        or via.wants_rport
        or point.reliable
        or (nat and via.host != host.encode() and _is_behind(via.host, host))
    ):
        return hop
    return Hop(point, host, port, connection)


def via_destination(via: Via, hop: Hop) -> Hop | None:
    """Where a response goes when the connection its request came over is gone: a connection of its own to the address
    of the sender and the port of his Via (§18.2.2). None where nothing can be opened: a browser accepts none, and a
    host name in the Via without `received` is the sender's own claim."""
    point = hop.point
    if point.transport in ACCEPTED_ONLY or not hop.connection:
        return None
    return Hop(point, hop.host, via.port or DEFAULT_PORTS.get(point.transport, DEFAULT_PORT))
