"""What is registered, and each REGISTER being served: saved by the default or by a flow, answered once, then told as
events."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from orchestrator.core.keepalive import Keepalive
from orchestrator.core.location_writes import Writes
from orchestrator.core.moves import Moves
from orchestrator.core.node import Node
from orchestrator.core.request_view import RequestView
from orchestrator.core.served_request import ServedRequest
from orchestrator.core.user_addresses import UserAddresses
from orchestrator.errors import SipError, StepError
from orchestrator.events.event import Event
from orchestrator.sip import gruu, purr
from orchestrator.sip.admission import source_name
from orchestrator.sip.contact import Contact
from orchestrator.sip.gruu import Gruu
from orchestrator.sip.location import Binding, Change, Location
from orchestrator.sip.masking import masked
from orchestrator.sip.message import Request, build_response
from orchestrator.sip.points import Hop
from orchestrator.sip.push_offer import PushOffer
from orchestrator.sip.reasons import reason_phrase
from orchestrator.sip.registrar import Asked, RegisterAnswer, RegisterPolicy, Registrar, refusal
from orchestrator.sip.routing import request_uri
from orchestrator.sip.server import ServerTransaction
from orchestrator.sip.stores import SharedStore
from orchestrator.sip.target import Target, one_flow_each
from orchestrator.sip.uri import Uri, parse_uri
from orchestrator.timers import Timer

Told = Callable[[Sequence[Change], SipError | None], object]
"""Told what has changed, or why nothing has."""

_MOST_ENDED = 10_000
"""Connections that are remembered while the store writes, which is seconds."""


class Registrations:
    """The bindings of one engine, as destinations and as events; `at_source` is the guard of what strangers register
    (`sip.contact_guard`)."""

    def __init__(self, node: Node, location: Location, at_source: Callable[[Uri, str], bool] | None) -> None:
        self.location = location
        self._shared = isinstance(location.store, SharedStore)
        self._node = node
        self._at_source = at_source
        most, live = node.settings.limits.addresses_per_user, self.bindings_of
        self._addresses = UserAddresses(most, lambda aor: bool(live(aor)))
        self.writes = Writes(node, location, self.watch_expiry)
        gruus = partial(gruu.parameters, node.network.veil) if node.settings.gruu else None
        offer = PushOffer(node.settings.push, self._purr_for)
        self._registrar = Registrar(node.network.aor, at_source, node.network.transports, gruus, offer)
        self._expiry_timer: Timer | None = None
        self._ended: dict[int, None] = {}
        """Connections that have ended while the store was writing: what is registered over them may be yet to come.
        The oldest go first."""
        self.hearers: list[Callable[[Sequence[Change]], object]] = []
        """Told of changes when their events have been raised."""
        self.keepalive = Keepalive(node, node.settings.ping, self.bindings_of, self.target_of, self._silent)
        self.keepalive.begin(tuple(location))
        self.moves = Moves(lambda binding: location.standing(binding, node.wall))
        node.network.flow_failed = self.flow_failed
        node.network.moved = self.moved
        self.watch_expiry()

    # --- destinations -------------------------------------------------------------------------------------------------

    def bindings_of(self, aor: str) -> Sequence[Binding]:
        """The live bindings of an address a flow names, best first."""
        node = self._node
        return self.location.bindings(node.network.home_aor(aor), node.wall)

    def targets_of(self, aor: str) -> list[Target]:
        """The contacts registered for an address, as destinations, best first; one flow of each phone."""
        return one_flow_each([self.target_of(binding) for binding in self.bindings_of(aor)])

    def target_of(self, binding: Binding) -> Target:
        """A binding is reached from the point it registered at: through its Path, else where it was seen when that is
        not where it says (NAT), over its connection where it has one. When that connection was of before our start it
        is reached where it says: nobody listens at the other end of a connection."""
        hop, network = None, self._node.network
        point = network.point_called(binding.point)
        over = point is not None and point.reliable
        if binding.received is not None and not binding.path and (binding.connection or not over):
            hop = network.hop_of(*binding.received, binding.connection, point)
        return Target(request_uri(binding.contact), binding.path, hop, binding=binding, point=point)

    def standing(self, binding: Binding) -> Target:
        """The destination of a binding that a flow has kept: what has become of it since."""
        return self.target_of(self.location.standing(binding, self._node.wall))

    def moved(self, hop: Hop, uri: bytes) -> Hop:
        """Where a phone behind NAT is now that was seen at this hop and has this Contact: it may have registered from
        another place since (`core.moves`)."""
        binding = self.moves.of((hop.host, hop.port, hop.connection & 0xFFFFFFFF), uri)
        return hop if binding is None else self.target_of(binding).hop or hop

    # --- one phone of an address (RFC 5627) ---------------------------------------------------------------------------

    def gruu_of(self, request: Request) -> Gruu | None:
        """The phone that its Request-URI means; None when that is no GRUU of ours."""
        uri, network = request.parsed_uri, self._node.network
        if uri.is_plain or request.uri.find(b";gr") < 0:
            return None  # at a glance: it is asked of each request
        return gruu.read(network.veil, uri, network.aor(uri)) if network.is_local(uri) else None

    def targets_at(self, meant: Gruu) -> list[Target]:
        """The contact that a GRUU leads to; none when it is not registered. Of an instance with several flows the
        best."""
        found = [binding for binding in self.bindings_of(meant.aor) if meant.is_of(binding)]
        return [self.target_of(binding) for binding in found[:1]]

    def target_meant(self, request: Request) -> Target | None:
        """The phone that a request means by a GRUU; None for no GRUU, and where nobody is registered."""
        meant = self.gruu_of(request)
        return next(iter(self.targets_at(meant)), None) if meant is not None else None

    def targets_for(self, request: Request, aor: str) -> list[Target]:
        """The contacts of an address as a request for it rings them: only the one that its GRUU means."""
        meant = self.gruu_of(request)
        return self.targets_at(meant) if meant is not None and meant.aor == aor else self.targets_of(aor)

    def is_for_all(self, request: Request) -> bool:
        """Whether a request is for whoever is registered for its address, and not for one phone or one dialog."""
        return self.gruu_of(request) is None and not request.has(b"replaces")

    # --- phones that sleep (RFC 8599) ---------------------------------------------------------------------------------

    def _purr_for(self, binding: Binding) -> bytes:
        node = self._node
        return purr.make(node.network.veil, binding, node.tokens.token()[:8])

    def is_ours(self, binding: Binding) -> bool:
        """Whether its phone registers here: several nodes may write to one store."""
        return not self._shared or self._node.network.point_called(binding.point) is not None

    def phone_of(self, uri: Uri) -> Binding | None:
        """The phone that a request inside a dialog means by the `pn-purr` of this URI; None for none, and where that is
        not registered any more."""
        meant = purr.of_uri(self._node.network.veil, uri)
        return None if meant is None else meant.find(self.bindings_of(meant.aor))

    # --- changes ------------------------------------------------------------------------------------------------------

    def save(
        self,
        request: Request,
        hop: Hop,
        policy: RegisterPolicy | None,
        done: Callable[[RegisterAnswer], None],
        user: str | None = None,
    ) -> None:
        """Change the bindings as a REGISTER asks; `done(answer)` when they are stored, in this turn or a later one.
        `announce` what has changed when it is answered. `user` has sent it, as far as that is known."""
        node = self._node
        try:
            asked = self._registrar.read(request, hop, node.wall, policy or node.settings.register)
            if user and any(binding.expires_at > node.wall for binding in asked.bindings):
                self._take(user, asked.aor)
        except SipError as error:
            done(refusal(error))
        else:
            self.writes.change(asked.aor, partial(asked.changes, self.location), partial(self._stored, asked, done))

    def _take(self, user: str, aor: str) -> None:
        """Count an address for its user. Raises SipError: he has registered too many."""
        if not self._addresses.take(user, aor):
            self.location.refused["user"] += 1
            raise SipError(403, "Too Many Addresses Of This User")

    def _stored(
        self,
        asked: Asked,
        done: Callable[[RegisterAnswer], None],
        changes: Sequence[Change],
        standing: Sequence[Binding],
        error: SipError | None,
    ) -> None:
        done(asked.answer(changes, standing, self._node.wall) if error is None else refusal(error))
        for connection in {change.binding.connection for change in changes if change.stands}.intersection(self._ended):
            self.connection_lost(connection)

    def remove(self, aor: str, meant: Callable[[Binding], bool], done: Told) -> None:
        """Take out what is `meant` of an address, as an operator asks; `done` is told what has changed when that is
        stored, and has been told to flows."""

        def decide(standing: Sequence[Binding]) -> list[Change]:
            return [Change("removed", binding) for binding in standing if meant(binding)]

        self.writes.change(aor, decide, partial(self._operated, done))

    def add(self, binding: Binding, done: Told) -> None:
        """Register a contact, as an operator asks."""

        def decide(standing: Sequence[Binding]) -> list[Change]:
            return self.location.plan(standing, [binding], self._node.wall)

        self.writes.change(binding.aor, decide, partial(self._operated, done))

    def _operated(self, done: Told, changes: Sequence[Change], _: Sequence[Binding], error: SipError | None) -> None:
        if changes and error is None:
            self.announce(changes, why="operator")
        done(changes, error)

    def take(self, change: Change) -> None:
        """What others have changed in the store: into the table and told as events, but not written again."""
        news = self.location.take(change, self._node.wall)
        self.announce(news, _source_of(change.binding))

    def connection_lost(self, connection: int) -> None:
        """What was registered over this connection can be reached no more and is removed, but for phones that a push
        can wake: they only sleep."""
        if self.writes.idle:
            self._ended.clear()
        else:
            self._ended[connection] = None
            if len(self._ended) > _MOST_ENDED:
                del self._ended[next(iter(self._ended))]
        gone = partial(_registered_over, connection, self._stays)
        for aor in self.location.registered_over(connection):
            self.writes.change(aor, gone, partial(self._disconnected, aor, connection))

    def _stays(self, binding: Binding) -> bool:
        """A phone that can be woken; behind a proxy that wakes it, it is not the phone's connection that has ended."""
        return self._is_served(binding) or (binding.woken_upstream and bool(binding.path))

    def _disconnected(
        self, aor: str, connection: int, changes: Sequence[Change], _: Sequence[Binding], error: SipError | None
    ) -> None:
        self.location.disconnect(aor, connection)
        self.announce(changes, why="connection closed")

    def flow_failed(self, binding: Binding) -> None:
        """The edge proxy on the way to a phone says that there is no flow to it any more (430, RFC 5626 §5.3.1). One
        that we can wake only sleeps."""
        if not self._is_served(binding):
            self.writes.change(binding.aor, partial(_without, binding), partial(self._lost, "flow failed"))

    def _is_served(self, binding: Binding) -> bool:
        """A push service of ours can wake the phone."""
        policy = self._node.settings.push
        return bool(policy.services) and policy.service_of(binding.push_address) is not None

    def token_died(self, binding: Binding, since: float) -> None:
        """A push service says that its address of this phone has reached nobody `since` then (seconds since the epoch),
        nor ever will: whoever has registered with it before is gone."""
        self.writes.change(binding.aor, partial(_dead, binding, since), partial(self._lost, "push address is dead"))

    def _silent(self, binding: Binding) -> None:
        """A phone has left our pings without an answer."""
        self.writes.change(binding.aor, partial(_without, binding), partial(self._lost, "no answer to OPTIONS"))

    def _lost(self, why: str, changes: Sequence[Change], standing: Sequence[Binding], error: SipError | None) -> None:
        self.announce(changes, why=why)

    def announce(self, changes: Iterable[Change], source_ip: str = "", why: str = "") -> None:
        """Publish what a REGISTER, the passing of time, or something else (`why`, for the log) has changed."""
        changes = tuple(changes)
        self.keepalive.heard(changes)
        node = self._node
        bus, now = node.bus, node.timers.now
        self.watch_expiry()
        for change in changes:
            self.moves.heard(change)
            binding = change.binding
            if change.stands and (change.previous is None or change.previous.key != binding.key):
                node.tell("registered", source=source_ip, aor=binding.aor, contact=binding.shown)
            elif not change.stands:
                node.tell(
                    "unregistered", source=source_ip, aor=binding.aor, contact=binding.shown, reason=why or change.kind
                )
            if change.stands:
                if bus.hears("registered"):
                    attributes = registered_attributes(binding, change.kind == "added", source_ip, node.wall)
                    bus.publish(Event("registered", attributes, time=now))
            elif bus.hears("unregistered"):
                gone = {"aor": binding.aor, "contact": Contact(binding), "reason": change.kind}
                bus.publish(Event("unregistered", gone, time=now))
        for hear in self.hearers:
            hear(changes)

    def heard(self, event: Event, source_port: int) -> bool:
        """A phone has registered at a FreeSWITCH server, which tells it as an event. What it names passes the same
        guard as with us, and leads to that phone and no other. False where it may lead nowhere: it is counted and
        nobody hears of it."""
        told, wall = event.attributes, self._node.wall
        source = told["source_ip"] or ""
        try:
            uri = parse_uri(told["uri"].encode())
            away = self._at_source is not None and self._at_source(uri, source)
        except (SipError, ValueError):
            self._node.count("contact.refused")
            shown = masked(told["uri"].encode()).decode()
            self._node.tell("contact_refused", source=source, aor=told["aor"], contact=shown, to="")
            return False
        binding = Binding(
            aor=told["aor"],
            contact=told["uri"].encode(),
            expires_at=wall + (told["expires"] or 0),
            received=(source, source_port) if away else None,
            user_agent=told["user_agent"] or "",
            registered_at=wall,
            source=source_name(source),
        )
        event.attributes = {**told, "contact": Contact(binding, short=True), "uri": Contact(binding)}
        return True

    def watch_expiry(self) -> None:
        """Arm the timer for the next binding that runs out."""
        due = self.location.next_expiry
        if due is None:
            return
        delay = max(0.0, due - self._node.wall)
        timers, timer = self._node.timers, self._expiry_timer
        if timer is None or not timer.armed or timer.when > timers.now + delay:
            if timer is not None:
                timer.cancel()
            self._expiry_timer = timers.after(delay, self._expire)

    def _expire(self, _: object) -> None:
        self._expiry_timer = None
        self.announce(self.writes.expire(self._node.wall))


def _registered_over(connection: int, stays: Callable[[Binding], bool], standing: Sequence[Binding]) -> list[Change]:
    """What goes with a connection: contacts of phones that cannot be woken, and the flows of those that have another
    one (RFC 5626 §6)."""
    over = [binding for binding in standing if binding.connection == connection]
    reached = {other.instance for other in standing if other.connection not in (0, connection)}
    return [
        Change("removed", binding)
        for binding in over
        if not stays(binding) or (binding.instance is not None and binding.instance in reached)
    ]


def _without(lost: Binding, standing: Sequence[Binding]) -> list[Change]:
    """Unless the phone has registered again meanwhile."""
    return [Change("removed", binding) for binding in standing if binding == lost]


def _dead(lost: Binding, since: float, standing: Sequence[Binding]) -> list[Change]:
    """Those with its push address, unless they have registered since."""
    address = lost.push_address
    return [
        Change("removed", binding)
        for binding in standing
        if binding.registered_at <= since and binding.push_address == address
    ]


class Registration(ServedRequest):
    """One REGISTER transaction."""

    __slots__ = ("saving", "on_saved", "_registrations")

    def __init__(
        self,
        node: Node,
        registrations: Registrations,
        request: Request,
        server: ServerTransaction,
        source: tuple[str, int],
    ) -> None:
        super().__init__(node, request, RequestView(node, request, source), server, source)
        self._registrations = registrations
        server.user = self
        self.saving = False
        """Its bindings are being stored."""
        self.on_saved: Callable[[], object] | None = None
        """Told once when that has ended and the answer is out."""

    @property
    def replied(self) -> bool:
        """A final answer is out, or will be when the store has the bindings."""
        return self.saving or self.server.answered

    def fail(self) -> None:
        """A bug has struck: 500."""
        self.server.fail()

    def save(self, policy: RegisterPolicy | None = None) -> None:
        """Change the bindings and answer; the events follow the answer. That is `saving` while the store takes its
        time. Raises StepError `call.state` when it is answered or being saved."""
        self._check_open()
        self.saving = True
        sent_to = self.server.destination
        hop = Hop(sent_to.point, *self.source, sent_to.connection)
        try:
            self._registrations.save(self.request, hop, policy, self._saved, self.user)
        except Exception:
            self.saving = False  # a bug has struck: whoever asked for it still owes the answer
            raise

    def _saved(self, answer: RegisterAnswer) -> None:
        """The answer is due, unless the server has stopped or the phone has given up meanwhile: what is stored stands
        all the same."""
        self.saving = False
        if not self.server.answered:
            self._respond(answer.status, answer.reason, answer.headers)
        if answer.changes:
            self._registrations.announce(answer.changes, self.source[0])
        on_saved, self.on_saved = self.on_saved, None
        if on_saved is not None:
            on_saved()

    def reply_best(self) -> bool:
        """Nobody else has been asked."""
        return False

    def reply(self, code: int, reason: str = "", headers: tuple[bytes, ...] = ()) -> None:
        """Answer the REGISTER. Raises StepError `call.state` when it is answered or being saved, and for 1xx (RFC 4320
        §4.1)."""
        self._check_open()
        if code < 200:
            raise StepError("call.state", f"reply: {code} is provisional, and only an INVITE has provisional replies")
        self._respond(code, reason, headers)

    def _check_open(self) -> None:
        if self.server.answered:
            raise StepError("call.state", "the REGISTER is already answered")
        if self.saving:
            raise StepError("call.state", "the contacts of the REGISTER are being saved")

    def _respond(self, code: int, reason: str, headers: tuple[bytes, ...]) -> None:
        tag = self._node.tokens.token()
        if code >= 400 and not (code == 401 and not self.request.has(b"authorization")):  # the first challenge
            aor = self._node.network.aor(self.request.to.parsed)
            self._node.tell("register_refused", source=self.source[0], aor=aor, code=code, reason=reason)
        data = build_response(self.request, code, reason or reason_phrase(code), tag, headers)
        self.server.respond(code, data)


def _source_of(binding: Binding) -> str:
    """The address that a binding of another node came from, as far as it is known."""
    if binding.received is not None:
        return binding.received[0]
    return "" if "/" in binding.source else binding.source


def registered_attributes(binding: Binding, is_new: bool, source_ip: str, wall: float) -> dict[str, Any]:
    """The attributes of `registered` (FLOWLANG §4.4). `contact` is the URI without parameters, `uri` the whole of
    it; both lead to this binding where a flow makes a destination of them."""
    return {
        "aor": binding.aor,
        "contact": Contact(binding, short=True),
        "uri": Contact(binding),
        "expires": max(0, round(binding.expires_at - wall)),
        "user_agent": binding.user_agent,
        "source_ip": source_ip,
        "path": ", ".join(value.decode("utf-8", "replace") for value in binding.path) or None,
        "mobile": binding.mobile,
        "is_new": is_new,
        "instance": binding.instance,
    }
