"""The registrar: a REGISTER in, its answer and the changes it made out (RFC 3261 §10.3, RFC 3327 Path, RFC 5626
outbound, RFC 8599 push).

Who may register what is not decided here; a flow has done so, or nobody was asked to. Nor is it stored here: the store
may take its time, and the order is the promise: it has the binding before there is a 200. So a REGISTER is read into
what it asks for, which then says what that changes in the bindings that stand, and what the answer is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.errors import MalformedMessage, SipError
from orchestrator.sip.admission import source_name
from orchestrator.sip.binding import Binding, Change, decide_removal
from orchestrator.sip.grammar import COMMA, NUL, is_token, quote
from orchestrator.sip.headers import parse_name_addr, split_commas
from orchestrator.sip.location import Location
from orchestrator.sip.message import Request
from orchestrator.sip.points import Hop
from orchestrator.sip.push import asks_for_push
from orchestrator.sip.push_offer import PushOffer, Wish, named_upstream
from orchestrator.sip.routing import Addresses, is_elsewhere
from orchestrator.sip.uri import NameAddr, Uri

_DATED = b"Contact: <%b>%b;expires=%d"
_addresses = Addresses()
_MAX_BINDING = 4_096
"""Octets of all that a phone has us keep with one contact. Push tokens take a few hundred, a Path a hundred for each
proxy; a contact of 64 KB is an attack on memory."""
_MAX_USER_AGENT = 256
_SUPPORTED = (b"path", b"gruu", b"outbound")
"""Option tags that may stand in the Require of a REGISTER."""


@dataclass(frozen=True, slots=True)
class RegisterPolicy:
    """Bounds for one REGISTER; times in seconds. A shorter expiry than `min_expires` is refused with 423, a longer one
    cut."""

    min_expires: int = 60
    max_expires: int = 7200
    bounded: bool = False
    """`max_expires` holds for phones that a push can wake as well: a flow has said so (`PushPolicy.max_expires`)."""
    default_expires: int = 3600
    max_contacts: int | None = None
    replace: bool = False
    """A phone too many takes the place of the oldest instead of being refused."""
    raise_short: bool = False
    """An expiry that is too short is raised to `min_expires` instead of being refused."""
    headers: tuple[bytes, ...] = ()
    """Whole lines to add to the 200."""
    extra: Mapping[str, str] | None = None
    """What to keep with each contact."""
    flow_timer: int = 0
    """Seconds after which a phone that keeps its flow open (RFC 5626) is to send a keep-alive; 0: as it likes."""


@dataclass(frozen=True, slots=True)
class RegisterAnswer:
    """What to answer, and what has changed; `changes` is empty unless `status` is 200."""

    status: int
    reason: str
    headers: tuple[bytes, ...] = ()
    changes: Sequence[Change] = ()


def refusal(error: SipError) -> RegisterAnswer:
    """The answer to a REGISTER that nothing is done for."""
    return RegisterAnswer(error.sip_status, error.reason, _explained(error))


def _explained(error: SipError) -> tuple[bytes, ...]:
    if isinstance(error, _Refused):
        return (error.header,)
    return (b"Retry-After: 5",) if error.sip_status == 503 else ()


class _Refused(SipError):
    """Refused with a header line that says how to do better."""

    def __init__(self, sip_status: int, reason: str, header: bytes) -> None:
        super().__init__(sip_status, reason)
        self.header = header


@dataclass(frozen=True, slots=True)
class Asked:
    """What one REGISTER asks for, at the time `at`."""

    aor: str
    at: float
    bindings: Sequence[Binding]
    """One for each contact; none to ask for what stands."""
    star: tuple[bytes, int] | None
    """Call-ID and CSeq of one that removes all contacts."""
    path: tuple[bytes, ...]
    """Of the answer."""
    policy: RegisterPolicy
    gruus: Callable[[Binding], bytes] | None = None
    """Gives the GRUUs of a contact, where they are asked for."""
    outbound: bool = False
    """The phone registers a flow (RFC 5626): it is called over what the REGISTER came over."""
    features: tuple[bytes, ...] = ()
    """Feature-Caps lines of the answer."""

    def changes(self, location: Location, standing: Sequence[Binding]) -> Sequence[Change]:
        """What it changes in the bindings that stand (§10.3, steps 6 and 7). Raises SipError."""
        if self.star is not None:
            return decide_removal(standing, *self.star)
        if not self.bindings:
            return ()
        return location.plan(standing, self.bindings, self.at, self.policy.max_contacts, self.policy.replace)

    def answer(self, changes: Sequence[Change], standing: Sequence[Binding], wall: float) -> RegisterAnswer:
        """§10.3 step 8: all current bindings with their parameters and what is left of each; the Path that was
        stored (RFC 3327 §5.3)."""
        gruus = self.gruus or (lambda binding: b"")
        lines = [
            _DATED % (binding.contact, binding.parameters + gruus(binding), max(1, round(binding.expires_at - wall)))
            for binding in standing
            if binding.expires_at > wall
        ]
        flow = _flow_headers(self.policy) if self.outbound else ()
        paths = (b"Path: " + value for value in self.path)
        headers = (*lines, *paths, *flow, *self.features, *self.policy.headers)
        return RegisterAnswer(200, "OK", headers, changes)


class Registrar:
    """Reads REGISTERs; `aor` names the address of record of a To URI."""

    def __init__(
        self,
        aor: Callable[[Uri], str] | None = None,
        at_source: Callable[[Uri, str], bool] | None = None,
        transports: Collection[bytes] = (b"udp",),
        gruus: Callable[[Binding], bytes] | None = None,
        push: PushOffer | None = None,
    ) -> None:
        """`at_source(uri, host)`: whether a contact that came from this address is reached there; see
        `sip.contact_guard`. `transports`: what we send by, in lower case. `gruus(binding)`: parameters of its Contact
        in the 200 (`sip.gruu`), None where phones get none. `push`: what is said about push services; None: nothing."""
        self._gruus = gruus
        self._push = push
        self._at_source = at_source or (lambda uri, host: False)
        self._transports = frozenset(transports)
        self._aor = aor or (lambda uri: uri.aor)

    def read(self, request: Request, hop: Hop, wall: float, policy: RegisterPolicy) -> Asked:
        """What a REGISTER from `hop` asks for; `wall` is the time in seconds since the epoch. Raises SipError."""
        unknown = [tag for tag in request.require() if tag.lower() not in _SUPPORTED]
        if unknown:
            raise _Refused(420, "Bad Extension", b"Unsupported: " + b", ".join(unknown))
        path = _path(request) if b"path" in request.tokens(b"supported") else ()
        gruus = self._gruus if b"gruu" in request.tokens(b"supported") else None
        contacts, aor = request.contacts(), self._aor(request.to.parsed)
        if contacts and contacts[0].star:
            if request.expires != 0:
                raise MalformedMessage("Contact * Needs Expires 0")
            return Asked(aor, wall, (), (request.call_id, request.cseq), path, policy, gruus)
        outbound = _is_outbound(request, contacts)
        if self._push is None or not any(asks_for_push(contact.uri or b"") for contact in contacts):
            bindings = [self._binding(request, aor, contact, hop, wall, policy, outbound, None) for contact in contacts]
            return Asked(aor, wall, bindings, None, path, policy, gruus, outbound)
        upstream = named_upstream(request)
        wishes = [self._push.wish_of(contact, upstream) for contact in contacts]
        bindings = [
            self._binding(request, aor, contact, hop, wall, policy, outbound, wish)
            for contact, wish in zip(contacts, wishes, strict=True)
        ]
        asked = tuple(zip(wishes, bindings, strict=True))
        self._push.check((wish for wish, binding in asked if binding.expires_at > wall), upstream)
        features = self._push.lines(asked, upstream, wall)
        return Asked(aor, wall, bindings, None, path, policy, gruus, outbound, features)

    def _binding(
        self,
        request: Request,
        aor: str,
        contact: NameAddr,
        hop: Hop,
        wall: float,
        policy: RegisterPolicy,
        outbound: bool,
        wish: Wish | None,
    ) -> Binding:
        lifetime = _lifetime(request, contact, policy, *self._bounds(wish, policy))
        uri = contact.parsed
        params = contact.params
        path = _path(request)
        source, away = (hop.host, hop.port), bool(hop.connection) or (outbound and not path)
        if lifetime > 0:  # whoever removes a contact calls nobody there
            away = self._at_source(uri, source[0]) or away
            if path and self._at_source(parse_name_addr(path[0]).parsed, source[0]):
                raise SipError(403, "Path Is Not Where You Are")
        received = source if away or is_elsewhere(request, uri, source, _addresses) else None
        if lifetime > 0 and not (uri.is_sip and (path or self._is_reachable(uri, received is not None))):
            raise SipError(400, "Contact Cannot Be Reached")
        instance = params.get(b"+sip.instance")
        address, parameters = contact.uri or b"", _written(params)
        kept = (aor, address, request.call_id, parameters, *path)
        if sum(map(len, kept)) > _MAX_BINDING:
            raise MalformedMessage("Contact Too Long")
        return Binding(
            aor=aor,
            contact=address,
            expires_at=wall + lifetime,
            q=contact.q,
            call_id=request.call_id,
            cseq=request.cseq,
            path=path,
            received=received,
            transport=request.via.transport.decode("ascii", "replace").lower(),
            user_agent=(request.get(b"user-agent") or b"")[:_MAX_USER_AGENT].decode("utf-8", "replace"),
            instance=instance.strip(b"<>").decode("utf-8", "replace") if instance else None,
            reg_id=_flow_number(params),
            registered_at=wall,
            extra=policy.extra,
            source=source_name(source[0]),
            parameters=parameters,
            point=hop.point.name,
            connection=hop.connection,
            woken_upstream=wish is not None and wish.upstream and wish.address is not None,
        )

    def _bounds(self, wish: Wish | None, policy: RegisterPolicy) -> tuple[int, int]:
        """Seconds that a binding lasts at least and at most."""
        if wish is None or self._push is None:
            return policy.min_expires, policy.max_expires
        return self._push.bounds(wish, policy.min_expires, policy.max_expires, policy.bounded)

    def _is_reachable(self, uri: Uri, seen: bool) -> bool:
        """Whether we have the transport that a contact without a Path names; one that is reached where it was `seen`
        needs none. `sips:` means TLS on every hop (§26.2.2)."""
        transport = (uri.params.get(b"transport") or b"udp").lower()
        if uri.scheme == b"sips":
            return _SECURE.get(transport, b"") in self._transports
        return transport in self._transports or (seen and transport in _SECURE)


_SECURE = {b"udp": b"tls", b"tcp": b"tls", b"tls": b"tls", b"ws": b"wss", b"wss": b"wss"}
"""The transports of SIP, and what each is in a `sips:` URI (§19.1.2, RFC 7118 §5)."""

_QUOTED = frozenset(
    b"audio automata class duplex data control mobility description events priority methods schemes application video "
    b"language type isfocus actor text extensions".split()
)
"""Feature tags of RFC 3840 §9; their values, and those of `+…`, are always quoted."""


def _written(params: Mapping[bytes, bytes | None]) -> bytes:
    """The parameters of a Contact as they go back, without `expires`."""
    written = []
    for name, value in params.items():
        if name == b"expires" or (value is not None and _CONTROL.search(value)):
            continue
        if value is None:
            written.append(b";" + name)
        else:
            bare = is_token(value) and name not in _QUOTED and name[:1] != b"+"
            written.append(b";%b=%b" % (name, value if bare else quote(value)))
    return b"".join(written)


def _is_outbound(request: Request, contacts: Sequence[NameAddr]) -> bool:
    """Whether a REGISTER is for a flow (RFC 5626 §6): the phone says `outbound`, names its instance and the flow, and
    nobody stands between it and us who does not keep flows, which is what `ob` in a Path says. Raises SipError 439."""
    if b"outbound" not in request.tokens(b"supported") and b"outbound" not in request.tokens(b"require"):
        return False
    if not any(b"+sip.instance" in contact.params and _flow_number(contact.params) for contact in contacts):
        return False
    shape = request.shape
    if shape.vias == 1 and COMMA not in request.lines[shape.via]:
        return True
    if any(b"ob" in parse_name_addr(value).parsed.params for value in _path(request)):
        return True
    raise SipError(439, "First Hop Lacks Outbound Support")


def _flow_number(params: Mapping[bytes, bytes | None]) -> int | None:
    """`reg-id`, a number from 1 to 2^31 - 1 (RFC 5626 §4.2); None for anything else."""
    value = params.get(b"reg-id") or b""
    number = int(value) if value.isdigit() and len(value) <= 10 else 0
    return number if 0 < number < 2**31 else None


def _flow_headers(policy: RegisterPolicy) -> tuple[bytes, ...]:
    timer = (b"Flow-Timer: %d" % policy.flow_timer,) if policy.flow_timer else ()
    return (b"Require: outbound", *timer)


_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


def _path(request: Request) -> tuple[bytes, ...]:
    """The Path values, one by one: they become Route values of what is sent to the contact (RFC 3327 §5.3).

    Raises MalformedMessage.
    """
    values = tuple(piece for line in request.get_all(b"path") for piece in split_commas(line))
    for value in values:
        parse_name_addr(value)
        if NUL in value:  # quoted, which is legal, but it could not be put into a message of ours
            raise MalformedMessage("Control Character in Path")
    return values


def _lifetime(request: Request, contact: NameAddr, policy: RegisterPolicy, least: int, most: int) -> int:
    """Seconds granted for those asked for: the Contact's own, the header's, the default (§10.2.1.1); 0 removes. Raises
    SipError."""
    asked = contact.expires
    if asked is None:
        asked = request.expires
    if asked is None:
        asked = policy.default_expires
    if 0 < asked < least:
        if not policy.raise_short:
            raise _Refused(423, "Interval Too Brief", b"Min-Expires: %d" % least)
        asked = least
    return min(asked, most)
