"""The link to one FreeSWITCH: keeps an Event Socket up, subscribed and in step, and says what state it is in.

`down → connecting → authenticating → syncing → up`, and back to `down` when it is lost; `draining` while it is
stopped. One greenlet per server walks this circle for ever; each round makes new connections, since a
`SafeInboundESL` serves one. There are two of them: one that brings the events, and one for commands, because
FreeSWITCH does nothing else on a connection while it executes an `api` (an `api msleep 1500` holds every event for
1.5 s).

Syncing means: subscribe (the table is asked for again in each round, so a reload counts), read the Core-UUID, and
take a snapshot of the channels. The snapshot and the word `up` go through the queue of events, so whoever listens
sees them between the events that were before and those that came after.

Where FreeSWITCH had to throw events away (esl.losses), the channels are listed once more, so that a call whose end was
among them does not stay for ever.

A peer that vanishes without a word is noticed by silence: after `IDLE` seconds without an octet a command is sent
that has to be answered, and HEARTBEAT has to keep coming, which shows that FreeSWITCH still delivers events and not
only replies.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from time import monotonic, time
from typing import Any, Literal, NoReturn

import gevent
from gevent.event import Event
from greenswitch.esl import NotConnectedError
from loguru import logger

from orchestrator.errors import EslDown, EslError, EslRefused, EslTimeout
from orchestrator.esl.backoff import Backoff
from orchestrator.esl.channels import parse_channels
from orchestrator.esl.codec import EslEvent, Frame, integer
from orchestrator.esl.commands import subscriptions
from orchestrator.esl.losses import LOG_COMMAND, lost_events
from orchestrator.runtime.esl_commands import Commands
from orchestrator.runtime.esl_connection import ConnectionDown, ConnectionRefused, EslCounters, SafeInboundESL

__all__ = [
    "ConnectionDown",
    "ConnectionRefused",
    "EslCounters",
    "EslLink",
    "EslServer",
    "LinkState",
    "NotConnectedError",
    "SafeInboundESL",
    "Snapshot",
]

LinkState = Literal["down", "connecting", "authenticating", "syncing", "up", "draining"]

CONNECT_TIMEOUT = 5.0
COMMAND_TIMEOUT = 5.0
IDLE = 10.0
"""Seconds without an octet after which the peer has to answer a command: with COMMAND_TIMEOUT, down within 15 s."""
HEARTBEAT_TIMEOUT = 60.0
"""Three of FreeSWITCH's intervals (event-heartbeat-interval, 20 s unless configured)."""
CATCH_UP_AFTER = 2.0
"""Seconds from the last word of lost events to a new list of the channels: that list is some milliseconds behind."""
LOG_EVERY = 60.0
"""Seconds between two lines about one unchanging trouble."""


@dataclass(frozen=True, slots=True)
class EslServer:
    """Where and as whom. `user` (`name@domain`) authenticates as a directory user, with the rights set there."""

    name: str
    host: str = "127.0.0.1"
    port: int = 8021
    password: str = field(default="", repr=False)
    user: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The channels of a server when the link came up, for `ChannelTable.resync`.

    `rows` of `show channels as json`; `since`: when the connection began to receive events, on the link's clock.
    """

    core_uuid: str
    rows: list[dict[str, Any]]
    since: float


@dataclass(slots=True)
class Load:
    """What HEARTBEAT last said. `lag`: age of that event in seconds when we had it."""

    sessions: int = 0
    lag: float = 0.0


def _ignore(*_: object) -> None:
    """For callbacks that are not wanted."""


class EslLink(Commands):
    """Supervisor of the connections to one server. `start()` once, `stop()` once; everything else may fail with
    EslError.

    `subscribe()` gives the names to subscribe to (orchestrator.esl.translate.needed). Callbacks run one after the
    other: `on_event(server, event)` for every event; it may wait, then reading stops in time. `on_snapshot(server,
    snapshot)` between them, at each connect. `on_state(server, state)` at each change.
    """

    def __init__(
        self,
        server: EslServer,
        subscribe: Callable[[], Iterable[str]],
        on_event: Callable[[str, EslEvent], None],
        on_state: Callable[[str, LinkState], None] = _ignore,
        on_snapshot: Callable[[str, Snapshot], None] = _ignore,
        *,
        clock: Callable[[], float] = monotonic,
        rng: Callable[[], float] = random.random,
        backoff: Backoff | None = None,
        command_timeout: float = COMMAND_TIMEOUT,
        connect_timeout: float = CONNECT_TIMEOUT,
        idle: float = IDLE,
        heartbeat_timeout: float = HEARTBEAT_TIMEOUT,
        catch_up_after: float = CATCH_UP_AFTER,
    ) -> None:
        super().__init__()
        self.server = server
        self.state: LinkState = "down"
        self.reason = ""
        """Why it went down last; '' once it is up again."""
        self.core_uuid = ""
        self.counters = EslCounters()
        self.load = Load()
        self._subscribe = subscribe
        self._on_event, self._on_state, self._on_snapshot = on_event, on_state, on_snapshot
        self._clock = clock
        self._backoff = backoff if backoff is not None else Backoff(rng)
        self.result_timeout = self._command_timeout = command_timeout
        self._connect_timeout = connect_timeout
        self._idle, self._heartbeat_timeout = idle, heartbeat_timeout
        self._catch_up_after = catch_up_after
        self._catching_up: gevent.Greenlet[..., None] | None = None
        self._lost_events_at = 0.0
        self._connections: list[SafeInboundESL] = []  # for events, for commands
        self._subscribed: set[str] = set()
        self._heartbeat_at = 0.0
        self._halt = Event()
        self._lost = Event()
        self._up = Event()
        self._greenlet: gevent.Greenlet[[], None] | None = None
        self._said: dict[str, float] = {}
        self._log = logger.bind(server=server.name)

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin connecting; returns at once."""
        self._greenlet = gevent.spawn(self._run)

    def wait_up(self, timeout: float | None = None) -> bool:
        """Wait until the link is up; False when it is not by then."""
        return bool(self._up.wait(timeout))

    def stop(self, timeout: float = 2.0) -> None:
        """Refuse new commands, give those under way `timeout` seconds, and end."""
        if self._greenlet is None or self._halt.is_set():
            return
        if self.state == "up":
            self._set("draining")
            deadline = monotonic() + timeout
            while self.busy and (left := deadline - monotonic()) > 0:
                self.settled.clear()
                self.settled.wait(left)
        self._halt.set()
        self._greenlet.kill()
        self._close(None)

    # --- commands -----------------------------------------------------------------------------------------------------

    def deliver(self, wire: bytes, label: str, timeout: float | None) -> Frame:
        """Over the connection for commands."""
        if self.state not in ("syncing", "up"):  # what is heard while we catch up may be answered
            raise EslDown(f"{self.server.name} is {self.state}", label)
        return self._connections[1].request(wire, label, timeout)

    # --- subscriptions ------------------------------------------------------------------------------------------------

    def resubscribe(self) -> None:
        """Ask for the table again and subscribe to what is new. Names no longer wanted stay until the next connect."""
        if self.state == "up":
            self._subscribe_to(self._connections[0])

    def _subscribe_to(self, connection: SafeInboundESL) -> None:
        wanted = set(self._subscribe()) - self._subscribed
        for command in subscriptions(wanted):
            reply = connection.send(command)
            if not reply.ok:
                raise ConnectionRefused(f"{self.server.name}: {reply.text.strip()}", command)
        self._subscribed |= wanted

    # --- the circle ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._halt.is_set():
            try:
                self._session()
            except EslRefused as error:
                delay = self._backoff.refused()
                self._complain(str(error), "event_socket_refused")
                self._close(error)
            except EslError as error:
                delay = self._backoff.failed(self._clock())
                self._complain(str(error), "event_socket_down")
                self._close(error)
            self._halt.wait(delay)

    def _session(self) -> NoReturn:
        """From connecting to the loss of the link, which is the EslError it ends with."""
        self._lost.clear()
        self._set("connecting")
        events = self._connect()
        commands = self._connect()
        events.register_handle("*", self._receive)
        self._set("syncing")
        self._sync(events)
        self.reason = ""
        self._set("up")
        self._up.set()
        self.resubscribe()  # what a reload has asked for since the table was read
        self._backoff.up(self._clock())
        self._said.clear()
        self._log.info("event_socket_up")
        while not self._lost.wait(self._quiet_for(events)):
            pass
        raise events.error or commands.error or EslDown("lost")

    def _connect(self) -> SafeInboundESL:
        server = self.server
        connection = SafeInboundESL(
            server.host,
            server.port,
            server.password,
            self._connect_timeout,
            user=server.user,
            command_timeout=self._command_timeout,
            counters=self.counters,
            on_end=lambda _: self._lost.set(),
        )
        self._connections.append(connection)
        connection.open()
        self._set("authenticating")
        connection.authenticate()
        return connection

    def _sync(self, connection: SafeInboundESL) -> None:
        since = self._clock()
        self._subscribed.clear()
        self._subscribe_to(connection)
        connection.register_handle("log", self._hear_log)
        if not connection.send(LOG_COMMAND).ok:  # a directory user without the right to read the log
            self._log.bind(reason="the log cannot be read: events that FreeSWITCH drops are not detected").info(
                "event_log_denied"
            )
        core = connection.send("api global_getvar core_uuid").text.strip()
        self.core_uuid = "" if core.startswith("-") else core
        self._list_channels(connection, since)
        synced = Event()
        connection.defer(synced.set)
        synced.wait()
        self._heartbeat_at = self._clock()

    def _list_channels(self, connection: SafeInboundESL, since: float) -> None:
        """Ask for the channels; whoever listens gets them behind the events received before."""
        rows = parse_channels(connection.send("api show channels as json").text)
        if rows is None:
            self._complain("no answer to show channels as json: lost calls are not detected", "channel_list_missing")
        else:
            snapshot = Snapshot(self.core_uuid, rows, since)
            connection.defer(lambda: self._on_snapshot(self.server.name, snapshot))

    def _hear_log(self, frame: Frame) -> None:
        lost = lost_events(frame)
        if lost:
            self.counters.lost_events += lost
            self._lost_events_at = self._clock()
            self._complain(f"FreeSWITCH dropped {lost} events that we did not read in time", "events_lost")
            if self._catching_up is None:
                self._catching_up = gevent.spawn(self._catch_up, self._connections[0])

    def _catch_up(self, connection: SafeInboundESL) -> None:
        """Once no more is lost, see which channels there are."""
        try:
            while (left := self._lost_events_at + self._catch_up_after - self._clock()) > 0:
                gevent.sleep(left)
            self._list_channels(connection, self._lost_events_at)
        except EslError:
            pass  # the link is lost, and the next one begins with a list
        finally:
            self._catching_up = None

    def _quiet_for(self, events: SafeInboundESL) -> float:
        """Seconds the link may be left alone, after making sure that the peer is alive; EslTimeout when it is not."""
        silent = monotonic() - events.last_received
        if silent >= self._idle:
            events.send("api status", timeout=self._command_timeout)
            silent = 0.0
        deaf = self._clock() - self._heartbeat_at
        if deaf >= self._heartbeat_timeout:
            if not events.waiting:
                raise EslTimeout(f"no HEARTBEAT for {deaf:.0f} s")
            deaf = 0.0  # it may be among those that wait for our side
        return min(self._idle - silent, self._heartbeat_timeout - deaf)

    def _receive(self, event: EslEvent) -> None:
        name = event.name
        if name in ("BACKGROUND_JOB", "CHANNEL_EXECUTE_COMPLETE"):
            self.hear_result(event)
        elif name == "HEARTBEAT":
            self._beat(event)
        elif name == "CHANNEL_DESTROY":
            self.fail_waiting(EslError("the channel has ended"), event.uuid)
        self._on_event(self.server.name, event)

    def _beat(self, event: EslEvent) -> None:
        self._heartbeat_at = self._clock()
        self.load = Load(
            sessions=integer(event.get("Session-Count")),
            lag=max(0.0, time() - event.timestamp) if event.timestamp else 0.0,
        )

    def _close(self, error: EslError | None) -> None:
        """Down. Everything that waits fails now; what was received is delivered before the next round begins.

        `error` None: we stop, and say goodbye.
        """
        self._up.clear()
        if self._catching_up is not None:
            self._catching_up.kill(block=False)
        self.reason = str(error) if error is not None else "stopped"
        self._set("down")
        self.fail_waiting(EslDown(f"{self.server.name} went down"))
        while self._connections:
            connection = self._connections[-1]  # taken out last: we may be killed while it delivers
            if error is not None:
                connection.end(error)
                connection.join()
            connection.stop()
            self._connections.pop()

    def _set(self, state: LinkState) -> None:
        if state != self.state:
            self.state = state
            self._on_state(self.server.name, state)

    def _complain(self, reason: str, event: str) -> None:
        """At most one warning of each event per minute."""
        now = self._clock()
        if now - self._said.get(event, -LOG_EVERY) >= LOG_EVERY:
            self._said[event] = now
            self._log.bind(reason=reason).warning(event)

    def __repr__(self) -> str:
        return f"<EslLink {self.server.name} {self.state}>"
