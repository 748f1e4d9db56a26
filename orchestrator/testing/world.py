"""A world in memory: the real engine, virtual wires, a clock that stands still until it is told to move.

Everything that happens at one instant happens before the clock moves: datagrams are delivered in the order they were
sent, jobs are answered by whoever the test puts in their place. So a race is an ordinary test, and the same seed gives
the same run.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from heapq import heappop, heappush
from typing import Any

from orchestrator.core.engine import Engine
from orchestrator.core.jobs import Job, Resolve, Write
from orchestrator.core.settings import CoreSettings, Site
from orchestrator.errors import StoreError
from orchestrator.flow.language.program import Program
from orchestrator.flow.run.triggers import Starter
from orchestrator.history import MessageIn, MessageOut
from orchestrator.sip.location import Binding, Location
from orchestrator.sip.points import Hop, ListenPoint
from orchestrator.sip.stores import LocationStore
from orchestrator.store.memory import MemoryStore
from orchestrator.testing.peer import Peer
from orchestrator.testing.phone import Address, Phone
from orchestrator.testing.streams import Connection, Streams

PROXY: Address = ("10.0.0.1", 5060)
Wire = tuple[bytes, Address, Address] | tuple[bytes, Address, Address, Connection]
"""A datagram under way: octets, from, to; with a connection, octets of a stream."""

WALL = 1_800_000_000.0
"""Seconds since 1970 at which a world begins, unless told otherwise: 2027-01-15 08:00 UTC, a Friday."""


_OF_SITE = frozenset(field.name for field in fields(Site))


def perform_write(effect: Write) -> StoreError | None:
    """Carry out a write of the location store; the result of its job."""
    try:
        effect.work()
    except StoreError as error:
        return error
    return None


class World:
    """One engine at `10.0.0.1:5060` and the phones around it.

    `sent` holds every datagram that arrived: (time, from, to, octets). `on_job` is asked to answer each job
    at once: return a value or a StepError, or `World.LATER` to answer by `world.engine.complete` yourself.
    """

    LATER: Any = object()

    def __init__(
        self,
        program: Program | None = None,
        *,
        points: Sequence[ListenPoint] = (ListenPoint(*PROXY),),
        domains: Sequence[str] = ("example.com",),
        store: LocationStore | None = None,
        seed: int = 1,
        wall: float | None = None,
        **settings: Any,
    ) -> None:
        self.site = Site(**{name: settings.pop(name) for name in _OF_SITE & settings.keys()})
        self.random = random.Random(seed)  # noqa: S311  # repeatable on purpose
        self.settings = CoreSettings(
            points=tuple(points),
            domains=tuple(domains),
            entropy=self.random.randbytes,
            wall_offset=WALL if wall is None else wall,
            **settings,
        )
        self.now = 0.0
        self.location = Location(store or MemoryStore())
        self.engine = Engine(self.settings, self.location, program or Program(), site=self.site)
        self._points: dict[Address, int] = {
            (point.host, point.port): n for n, point in enumerate(points) if point.transport.lower() == "udp"
        }
        self._homes = tuple((point.host, point.port) for point in points)
        self.streams = Streams(points)
        self.refusing: set[Address] = set()
        """Where nobody listens and the machine says so: ICMP for a datagram."""
        self.phones: dict[Address, Phone] = {}
        self.peers: dict[Address, Peer] = {}
        self.sent: list[tuple[float, Address, Address, bytes]] = []
        self.jobs: list[Job] = []
        self.on_job: Callable[[Job], Any] = self._answer_job
        self.fate: Callable[[bytes, Address, Address], Sequence[float]] = lambda data, source, target: (0.0,)
        """What the wires do to a datagram: the delays, in seconds, of the copies that arrive. `()` loses it."""
        self._acts: list[tuple[float, int, Callable[[], object]]] = []
        self._order = 0
        self._wires: deque[Wire] = deque()
        self._landed: deque[Wire] = deque()
        self._ends: dict[Address, Callable[[bytes, Address], None]] = {}

    def _answer_job(self, job: Job) -> Any:
        """No name is known; a store that answers later does so at once."""
        if isinstance(job.effect, Write):
            return perform_write(job.effect)
        return None if isinstance(job.effect, Resolve) else self.LATER

    def reload_site(self, **changed: Any) -> None:
        """Reload with the same program and another site: `users`, `secrets`, `freeswitch` or `server_times`."""
        self.site = replace(self.site, **changed)
        self.engine.load(self.engine.flows.program, self.site)

    def phone(
        self, aor: str, host: str, port: int = 5060, parameters: str = "", transport: str = "udp", listens: bool = True
    ) -> Phone:
        """A new phone on the wires; it does nothing yet. For `transport` and `listens` see `peer`."""
        address = (host, port)
        if transport != "udp":
            parameters += f";transport={transport}"
        post = self._post_by(transport, address, listens)
        self.phones[address] = phone = Phone(aor, address, PROXY, post, parameters, transport=transport.upper())
        return phone

    def registered_phone(self, aor: str, host: str, port: int = 5060) -> Phone:
        """A phone that has registered some time ago, whatever flows say about registrations now."""
        phone = self.phone(aor, host, port)
        wall = self.engine.wall
        contact = phone.contact.strip(b"<>")
        binding = Binding(aor, contact, wall + 3600, call_id=b"before", cseq=1, registered_at=wall)
        self.location.save(aor, [binding], wall)
        self.engine.registrations.watch_expiry()
        return phone

    def peer(self, name: str, host: str, port: int = 5060, transport: str = "udp", listens: bool = True) -> Peer:
        """A new endpoint that does only what it is told. Over a stream it connects when it first speaks, and takes
        connections where it `listens`."""
        address = (host, port)
        post = self._post_by(transport, address, listens)
        peer = self.peers[address] = Peer(name, address, PROXY, post, transport)
        self.attach(address, peer.receive)
        return peer

    def cut(self, *peers: Peer | Phone) -> None:
        """All connections of these end, with what is under way on them; the engine hears of it."""
        for peer in peers:
            for connection in self.streams.open_of(peer.address):
                connection.open = False
                hop = Hop(connection.point, *connection.remote, connection.number)
                self.engine.connection_lost(hop, self.now)

    def _post_by(self, transport: str, address: Address, listens: bool) -> Callable[[bytes, Address], None]:
        """How somebody at an address sends, who takes connections there if he `listens`."""
        if transport == "udp":
            return self.post_from(address)
        if listens:
            self.streams.listening[transport, address] = address

        def post(data: bytes, _: Address) -> None:
            connection = self.streams.dial(address, transport, self.engine.network.points.__getitem__)
            self._wires.append((data, address, self._homes[connection.point.index], connection))

        return post

    def attach(self, address: Address, receive: Callable[[bytes, Address], None]) -> None:
        """An endpoint of the test's own: `receive(octets, source)` gets what is sent to its address."""
        self._ends[address] = receive

    def post_from(self, address: Address) -> Callable[[bytes, Address], None]:
        """A function that puts `(octets, target)` on the wires, coming from this address."""
        return lambda data, target: self._wires.append((data, address, target))

    # --- time ---------------------------------------------------------------------------------------------------------

    def call_at(self, time: float, act: Callable[[], object]) -> None:
        """Do something at that time, after what the engine's timers do then; at once when the time is past."""
        self._order += 1
        heappush(self._acts, (max(time, self.now), self._order, act))

    @property
    def planned(self) -> float | None:
        """When the last of the planned acts is due, None when there is none."""
        return max((entry[0] for entry in self._acts), default=None)

    def run(self, seconds: float = 0.0) -> None:
        """Let everything of this instant happen, then move on, from timer to timer and from act to act."""
        end = self.now + seconds
        self._settle()
        while True:
            due = self.engine.timers.next_due()
            act = self._acts[0][0] if self._acts else None
            if due is not None and due <= end and (act is None or due <= act):
                self.now = max(self.now, due)
                self.engine.run_timers(self.now)
            elif act is not None and act <= end:
                self.now = max(self.now, act)
                self.engine.run_timers(self.now)
                heappop(self._acts)[2]()
            else:
                break
            self._settle()
        self.now = end
        self.engine.run_timers(end)
        self._settle()

    def _settle(self) -> None:
        """Deliver until nothing is under way."""
        self._collect()
        while self._wires or self._landed:
            if self._landed:
                self.deliver(*self._landed.popleft())
            else:
                self._carry(self._wires.popleft())
            self._collect()

    def _carry(self, wire: Wire) -> None:
        for delay in self.fate(*wire[:3]):
            if delay:
                self.engine.timers.after(delay, self._landed.append, wire)
            else:
                self.deliver(*wire)

    def deliver(self, data: bytes, source: Address, target: Address, connection: Connection | None = None) -> None:
        """One datagram arrives, or one message of a stream."""
        if connection is not None and not connection.open:
            return
        self.sent.append((self.now, source, target, data))
        if connection is not None and source == connection.home:
            self._hear(data, Hop(connection.point, *connection.remote, connection.number))
        elif target in self._points:
            self._hear(data, Hop(self.engine.network.points[self._points[target]], *source))
        elif target in self.phones:
            self.phones[target].receive(data, source)
        elif target in self._ends:
            self._ends[target](data, source)

    def _hear(self, data: bytes, hop: Hop) -> None:
        if self.engine.history.hears(MessageIn):
            self.engine.history.tell(MessageIn.at(data, hop, self.now))
        if self.engine.history.wire is not None:
            self.engine.history.wire(True, data, hop, self.now)
        self.engine.receive(data, hop, self.now)

    def _collect(self) -> None:
        """Take the engine's outputs."""
        engine = self.engine
        while engine.datagrams or engine.jobs:
            sent, engine.datagrams[:] = engine.datagrams[:], []
            for data, hop in sent:
                if engine.history.hears(MessageOut):
                    engine.history.tell(MessageOut.at(data, hop, self.now))
                if engine.history.wire is not None:
                    engine.history.wire(False, data, hop, self.now)
                self._leave(data, hop)
            jobs, engine.jobs = engine.jobs, []
            for job in jobs:
                self.jobs.append(job)
                result = self.on_job(job)
                if result is not self.LATER:
                    engine.complete(job.id, result, self.now)

    def _leave(self, data: bytes, hop: Hop) -> None:
        """What the runtime does with octets of the engine."""
        source, target = self._homes[hop.point.index], (hop.host, hop.port)
        if not hop.point.reliable and target not in self.refusing:
            self._wires.append((data, source, target))
            return
        connection = None
        if hop.point.reliable:
            streams = self.streams
            connection = streams.numbered(hop.connection) if hop.connection else streams.toward(hop.point, target)
        if connection is None:
            self.engine.transport_failed(hop, data, self.now)
        else:
            self._wires.append((data, source, connection.home, connection))

    # --- what is left -------------------------------------------------------------------------------------------------

    def leftovers(self) -> dict[str, int]:
        """What should be nothing once every call is over and 64*T1 have passed."""
        engine = self.engine
        return {
            "transactions": len(engine.layer),
            "calls": len(engine.calls),
            "runs": len(engine.flows.runs),
            "subscriptions": sum(not isinstance(subscription.owner, Starter) for subscription in engine.bus),
        }
