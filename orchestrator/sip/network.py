"""Our own place in the network: how we name ourselves, what we recognise as ourselves, where URIs lead."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from hmac import compare_digest
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final, Protocol

from orchestrator.errors import MalformedMessage
from orchestrator.sip.claims import CALL_HEADER, MEDIA_HEADER
from orchestrator.sip.identity import asserted_user
from orchestrator.sip.layer import TransactionLayer
from orchestrator.sip.location import Binding
from orchestrator.sip.lookups import LookUp, LookUps
from orchestrator.sip.message import Message, Request
from orchestrator.sip.next_hops import NextHops
from orchestrator.sip.own_points import OwnPoints
from orchestrator.sip.points import Hop, ListenPoint, Point, bracketed
from orchestrator.sip.proxy_network import Network
from orchestrator.sip.route_token import Passage, RouteTokens, second_of
from orchestrator.sip.routing import SIPS, Addresses, is_literal, port_of, seen_elsewhere
from orchestrator.sip.session_timer import SessionTimer
from orchestrator.sip.tokens import Tokens
from orchestrator.sip.topology import PARAMETER, Veil
from orchestrator.sip.uri import Uri, parse_uri

NOT_FORWARDED: Final = frozenset((b"max-breadth", CALL_HEADER.lower(), MEDIA_HEADER.lower()))

_KEPT_PRIVATE: Final = NOT_FORWARDED | {b"p-asserted-identity"}

_MAX_SOURCES: Final = 10_000
_MOST_AORS: Final = 2_000
"""Addresses of record that are remembered by their URI; the table starts afresh when full."""
_DISPLAY: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-.!%*_+`'~ \t"
"""Octets of a display name without quotes (RFC 3261 §25.1: tokens and blanks)."""
_RECORD_ROUTE: Final = b"Record-Route: <sip:%b@%b"
_SECURE_RECORD_ROUTE: Final = b"Record-Route: <sips:%b@%b"


class _Limits(Protocol):
    @property
    def call_duration(self) -> float: ...


class NetworkSettings(Protocol):
    """What a network has to know of its surroundings; see `core.settings.CoreSettings`."""

    @property
    def points(self) -> tuple[ListenPoint, ...]: ...
    @property
    def domains(self) -> tuple[str, ...]: ...
    @property
    def trust(self) -> tuple[IPv4Network | IPv6Network, ...]: ...
    @property
    def source_of(self) -> Callable[[str], str] | None: ...
    @property
    def assert_identity(self) -> bool: ...
    @property
    def topology_hiding(self) -> bool: ...
    @property
    def wall_offset(self) -> float: ...
    @property
    def limits(self) -> _Limits: ...
    @property
    def entropy(self) -> Callable[[int], bytes]: ...
    @property
    def failover_after(self) -> float: ...
    @property
    def session_expires(self) -> int: ...
    @property
    def avoid(self) -> float: ...


class SipNetwork(Network):
    """Implements `sip.proxy_network.Network` over the listening points; `look_up(goal, found)` is the engine's job for
    names, `count(name)` its counters."""

    def __init__(
        self,
        settings: NetworkSettings,
        layer: TransactionLayer,
        tokens: Tokens,
        look_up: LookUp,
        key: bytes,
        count: Callable[[str], None] = lambda name: None,
    ) -> None:
        """`key` is that of our Record-Routes, `KEY_SIZE` octets."""
        self.layer = layer
        self.tokens = tokens
        self.count = count
        self.patience = settings.failover_after
        self.session_timer = SessionTimer(settings.session_expires) if settings.session_expires else None
        self._addresses = Addresses()
        self._aors: dict[bytes, str] = {}
        self.names = LookUps(layer.timers, look_up, lambda text: self._addresses.numeric(text.encode()))
        self._route_tokens = RouteTokens(key)
        self.veil = Veil(key)
        self._asserts = settings.assert_identity
        self._believed: Mapping[str, bool] = {}
        """Host name or address of a gateway → whether it is believed who calls, where its entry says so."""
        self._hides_all = settings.topology_hiding
        self._hiding: frozenset[str] = frozenset()
        """Gateways towards which the topology is hidden."""
        self._hiding_at: frozenset[str] = frozenset()
        """Their host names and addresses."""
        points = self._own_points = OwnPoints(settings.points, settings.source_of, layer.timers, self._learn)
        self.points, self.own_route_ends, self.hop_of = points.all, points.by_route_end, points.hop
        self.point_at, self.point_named, self.point_called = points.at, points.named, points.called
        self.transports = frozenset(transport.encode() for transport in self._own_points.transports)
        """What we send by."""
        self._next_hops = NextHops(
            self._own_points, self.names, self._addresses, layer.timers, settings.entropy, settings.avoid
        )
        self._name_ourselves(settings)
        self._trust = settings.trust
        self._wall_offset = settings.wall_offset
        self._longest = settings.limits.call_duration
        """Seconds a call may last."""
        self._started = self._wall
        self._trusted: dict[str, bool] = {}
        self._peers: frozenset[str] = frozenset()
        self.flow_failed = _ignore  # until the registrations say what follows
        self.moved = _stay
        self.call_marks: tuple[bytes, ...] = ()
        """Headers with the Call-ID of a call's first leg on its INVITEs into FreeSWITCH, besides `CALL_HEADER`."""
        self._held_back, self._held_back_private = NOT_FORWARDED, _KEPT_PRIVATE
        self.guard: Callable[[Binding, Hop], bool] | None = None
        """Says whether a call may go to a place for a registered contact; None where any may."""

    def _name_ourselves(self, settings: NetworkSettings) -> None:
        """What hosts, ports and domains are ours."""
        ports = {port for p in settings.points for port in (p.port, p.bound_port) if port}
        hosts = {host.lower().encode() for p in settings.points for host in _names(p)}
        self._own = {(host.lower().encode(), port) for p in settings.points for host in _names(p) for port in _ports(p)}
        self._own_ports = frozenset((None, *ports))
        self._own_hosts = frozenset(hosts)
        self._domains = frozenset(domain.lower().encode() for domain in settings.domains)
        self._own_names = frozenset(name for name in self._domains | hosts if not is_literal(name))
        self._home = settings.domains[0].lower() if settings.domains else ""

    # --- next hops ----------------------------------------------------------------------------------------------------

    def resolve(
        self,
        uri: Uri,
        here: Point,
        found: Callable[..., None],
        source: str = "",
        by: Point | None = None,
        in_order: bool = False,
    ) -> None:
        self._next_hops.resolve(uri, here, found, source, by, in_order)

    def avoid(self, hop: Hop, seconds: float | None = None) -> None:
        self._next_hops.avoid(hop, seconds)

    def answers(self, hop: Hop) -> None:
        self._next_hops.answers(hop)

    def for_long(self, uri: Uri, hop: Hop, further: Sequence[Hop]) -> tuple[Hop, ...]:
        return self._next_hops.for_long(uri, hop, further)

    # --- for the proxy ------------------------------------------------------------------------------------------------

    def withheld(self, message: Message, host: str) -> frozenset[bytes]:
        """Names of headers that a receiver is not told; see `sip.proxy_network.Network`."""
        if not (message.shape.claims and message.has(b"p-asserted-identity")) or self.believes(host):
            return self._held_back
        if self._asserts:
            return self._held_back_private
        if message.has(b"privacy"):
            asked = {word.strip().lower() for line in message.get_all(b"privacy") for word in line.split(b";")}
            if b"id" in asked:
                return self._held_back_private
        return self._held_back

    def mark_calls(self, header: bytes) -> None:
        """One more of `call_marks`: from now on nobody but FreeSWITCH is told it, nor may say it."""
        self.call_marks = (*self.call_marks, header)
        withheld = frozenset(name.lower() for name in self.call_marks)
        self._held_back, self._held_back_private = NOT_FORWARDED | withheld, _KEPT_PRIVATE | withheld

    def ties(self, call: str, call_id: bytes) -> tuple[bytes, ...]:
        """Header lines of an INVITE into FreeSWITCH of the call with this id, whose first leg has that Call-ID."""
        marks = self.call_marks
        line = CALL_HEADER + b": " + call.encode()
        return (line, *(mark + b": " + call_id for mark in marks)) if marks else (line,)

    def hides(self, gateway: str, source: str) -> bool:
        """See `sip.proxy_network.Network`."""
        if self._hides_all or not self._hiding:
            return self._hides_all
        return gateway in self._hiding or any(self._is_at(source, host) for host in self._hiding_at)

    def believe(self, gateways: Mapping[str, bool]) -> None:
        """Whether gateways, by their URIs, are believed who calls; of others `trusts` says it."""
        named = {_host_of(uri).decode("ascii", "replace").strip("[]"): told for uri, told in gateways.items()}
        self._believed = {host: told for host, told in named.items() if host}

    def believes(self, host: str) -> bool:
        """Whether this address is in our trust domain: it is told, and believed, who calls (RFC 3325 §2.3)."""
        for named, told in self._believed.items():
            if self._is_at(host, named):
                return told
        return self.trusts(host)

    def _is_at(self, address: str, host: str) -> bool:
        """Whether an address is that of a configured host, as far as that is known without looking."""
        return address == host or address in self.names.known(host)

    def hide_from(self, gateways: Mapping[str, str]) -> None:
        """Hide the topology from these gateways: name → URI."""
        self._hiding = frozenset(gateways)
        self._hiding_at = frozenset(_host_of(uri).decode("ascii", "replace").strip("[]") for uri in gateways.values())

    def shown(self, token: bytes, uri: Uri) -> tuple[bytes, ...] | None:
        """The routes that stand hidden in a Route value of ours; None when it hides none."""
        value = uri.params.get(PARAMETER)
        return self.veil.show(token, value) if value else None

    def record_routes(
        self, point: Point, request: Request, source: Hop, callee: Hop | None, gateway: str = ""
    ) -> tuple[bytes, ...]:
        caller = seen_elsewhere(request, source, self._addresses)
        begun = self._wall if gateway else 0.0
        token = self._route_tokens.make(request.call_id, request.from_tag, caller, callee, gateway, begun)
        toward, back = point.route_end, source.point.route_end
        if request.uri[:4] in SIPS:
            return self._secure_record_routes(token, point, source.point)
        if toward == back:
            return (_RECORD_ROUTE % (token, toward),)
        return _RECORD_ROUTE % (token, toward), _RECORD_ROUTE % (token, back)

    def _secure_record_routes(self, token: bytes, point: Point, back: Point) -> tuple[bytes, ...]:
        """The same for `sips:` (§16.6 step 4); a side that has come without TLS is not told to use it."""
        ends = dict.fromkeys((point, back))
        return tuple(
            _SECURE_RECORD_ROUTE % (token, end.secure_route_end)
            if end.secure
            else _RECORD_ROUTE % (token, end.route_end)
            for end in ends
        )

    def seen_elsewhere(self, request: Request, source: Hop) -> Hop | None:
        """Where the sender of a request is when its Contact does not lead there; see `sip.routing`."""
        return seen_elsewhere(request, source, self._addresses)

    def passage(self, request: Request, token: bytes) -> Passage | None:
        """What the token of a Route of ours says about a request; None when it is in no dialog of ours."""
        return self._route_tokens.read(token, request.call_id, request.from_tag, request.to_tag)

    def is_marked(self, passage: Passage, gateway: str) -> bool:
        """Whether a request is on its way to this gateway, by the token of a dialog that was begun before our start and
        may still last: the calls begun since are known, and nobody has a call for ever."""
        oldest, begun = second_of(self._wall - self._longest), passage.second
        if not oldest <= begun <= second_of(self._started):
            return False
        return bool(passage.gateway) and compare_digest(passage.gateway, self._route_tokens.mark(gateway))

    @property
    def _wall(self) -> float:
        return self.layer.timers.now + self._wall_offset

    def are_at_one_address(self, one: Uri, other: Uri) -> bool:
        """Whether two URIs lead to the same host, as far as that is known without looking; a domain with several
        servers leads to each of them."""
        mine, theirs = one.host.lower(), other.host.lower()
        return mine == theirs or not self._addresses_of(mine).isdisjoint(self._addresses_of(theirs))

    def _addresses_of(self, host: bytes) -> frozenset[str]:
        if not is_literal(host):
            return self.names.known(host.decode("ascii", "replace"))
        address = self._addresses.numeric(host)
        return frozenset() if address is None else frozenset((address,))

    def _learn(self, point: Point) -> None:
        """The machine has got an address we have not known to be ours."""
        host = bracketed(point.local).encode()
        self._aors.clear()
        self._own |= {(host, point.port), (host, point.local_port)}
        self._own_hosts |= {host}

    def is_own(self, uri: Uri) -> bool:
        """Whether host and port are one of our listening points, however an IPv6 address is spelt."""
        host = uri.host.lower()
        if host[:1] == b"[":
            host = self._spelt_alike(host)
        return host in self._own_hosts and (host, uri.port or port_of(uri)) in self._own

    def _spelt_alike(self, host: bytes) -> bytes:
        address = self._addresses.numeric(host)
        return host if address is None else (b"[%b]" if ":" in address else b"%b") % address.encode()

    def is_own_route(self, uri: Uri, preloaded: bool) -> bool:
        """Whether a Route value means us (RFC 3261 §16.4): any of our addresses with its port, any name of ours and any
        domain we serve with one of our ports or none (its SRV records say which).

        An address without a port is port 5060, which may be another server's on this machine; but as the first value
        of a request outside of dialogs (`preloaded`) it is what a phone was told its outbound proxy is.
        """
        if self.is_own(uri):
            return True
        host = uri.host.lower()
        if host in self._own_names:
            return uri.port in self._own_ports
        return preloaded and uri.port is None and host in self._own_hosts

    # --- for the request handling -------------------------------------------------------------------------------------

    def is_local(self, uri: Uri) -> bool:
        """Whether we are responsible for this URI's domain: a configured domain or one of our own addresses.

        An address without a port is ours whatever port we listen on: it is the domain of phones that were given the
        machine's address, and names no socket there (RFC 3261 §10.2: an address of record is like an e-mail address).
        """
        return uri.host.lower() in self._domains or self._is_ours(uri)

    def _is_ours(self, uri: Uri) -> bool:
        return self.is_own(uri) or (uri.port is None and uri.host.lower() in self._own_hosts)

    def ends_here(self, uri: Uri) -> bool:
        """Whether nobody but us would be found by a request inside a dialog that is sent on to this URI."""
        host = uri.host
        return self.is_own(uri) or (uri.port is None and host.lower() in self._domains and not is_literal(host))

    def aor(self, uri: Uri) -> str:
        """The address of record of a URI: `user@host`, one of our own addresses standing for the first configured
        domain."""
        raw = bytes(uri)
        aor = self._aors.get(raw)
        if aor is None:
            aor = uri.aor
            if self._home and self._is_ours(uri) and uri.host.lower() not in self._domains:
                aor = f"{aor.rpartition('@')[0]}@{self._home}"
            if len(self._aors) >= _MOST_AORS:
                self._aors.clear()
            self._aors[raw] = aor
        return aor

    def aor_of(self, request: Request, header: bytes) -> str:
        """The address of record in From or To of a request: without parsing it where that URI has been seen lately."""
        value = request.get(header) or b""
        begin = value.find(b"<")
        end = value.find(b">", begin)
        plain = begin >= 0 and end > 0 and value[end + 1 : end + 2] in (b"", b";")
        if plain and not value[:begin].translate(None, _DISPLAY):
            aor = self._aors.get(value[begin + 1 : end])
            if aor is not None:
                return aor
        return self.aor((request.from_ if header == b"from" else request.to).parsed)

    def home_address(self, user: str) -> str:
        """The address of record of a user in our first domain; '' where we have none."""
        return f"{user}@{self._home}" if self._home else ""

    def home_aor(self, aor: str) -> str:
        """The same for an address as flows put it together: whoever dials our address means somebody registered here.

        An address of record has no port, so any of our ports will do.
        """
        user, at, host = aor.rpartition("@")
        octets = host.lower().encode()
        if at and self._home and octets in self._own_hosts and octets not in self._domains:
            return f"{user}@{self._home}"
        return aor

    def is_ours(self, address: str) -> bool:
        """Whether an IP address is one of this machine, as far as we listen there."""
        return bracketed(address).encode() in self._own_hosts

    def is_own_place(self, hop: Hop) -> bool:
        """Whether this address and port are one of our listening points."""
        return (bracketed(hop.host).encode(), hop.port) in self._own

    def is_domain(self, name: bytes) -> bool:
        """Whether a host name, in lower case, is a domain we serve or a name of ours."""
        return name in self._domains or name in self._own_hosts

    def names_peer(self, name: bytes) -> bool:
        """Whether this host name, in lower case, is that of a gateway or a FreeSWITCH server."""
        return name.decode("ascii", "replace") in self.names.configured

    def is_peer(self, host: str) -> bool:
        """Whether this IP address is a gateway's or a FreeSWITCH server's, as far as that is known without looking."""
        return host in self._peers or host in self.names.peers

    def know_peers(self, uris: Iterable[str]) -> None:
        """Take the URIs of the gateways and FreeSWITCH servers, whose host names are always looked up."""
        hosts = {host for host in map(_host_of, uris) if host}
        self._peers = frozenset(address for host in hosts if (address := self._addresses.numeric(host)) is not None)
        names = (host for host in hosts if not is_literal(host))
        self.names.configure(frozenset(name.decode("ascii", "replace") for name in names))

    def may_ring(self, binding: Binding, hop: Hop) -> bool:
        """Whether a request for a registered contact may go there; the engine says (`guard`)."""
        return self.guard is None or self.guard(binding, hop)

    def user_of(self, request: Request, host: str) -> str | None:
        """Who a trusted source says the sender is (RFC 3325 §5); None from all others."""
        return asserted_user(request) if self.believes(host) else None

    def trusts(self, host: str) -> bool:
        """Whether a source address may send calls to foreign domains."""
        try:
            return self._trusted[host]
        except KeyError:
            pass
        if len(self._trusted) >= _MAX_SOURCES:
            self._trusted.clear()
        trusted = self._trusted[host] = _within(host, self._trust)
        return trusted


def _ignore(binding: Binding) -> None:
    """Nobody hears of flows that have failed."""


def _stay(hop: Hop, uri: bytes) -> Hop:
    """Nobody knows of phones that move."""
    return hop


def _host_of(text: str) -> bytes:
    """Host of a SIP URI in lower case, b'' of what is none."""
    try:
        return parse_uri(text.encode()).host.lower()
    except MalformedMessage:
        return b""


def _names(point: ListenPoint) -> set[str]:
    names = {point.host, point.bound, *point.aliases} - {""}
    return {bracketed(name) for name in names}


def _ports(point: ListenPoint) -> set[int]:
    return {point.port, point.bound_port or point.port}


def _within(host: str, networks: tuple[IPv4Network | IPv6Network, ...]) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return any(address in network for network in networks if network.version == address.version)
