"""The other end of FreeSWITCH's outbound socket: connections that its dialplan opens, one for each channel.

```
FreeSWITCH                                  us
  connects                              ──►
                                        ◄── connect
  CHANNEL_DATA as the reply             ──►     the core is told: a flow takes the channel, or we close
                                        ◄── linger, filter, event plain …
  events of this channel                ──►     to the core, in order
                                        ◄── sendmsg execute …, api …   (the jobs of the flow)
  closes, some seconds after the end    ──►     the core is told
```

`linger` keeps the connection for the last events of a channel that has hung up. Filters and not `myevents` choose the
events: `myevents` holds the session until we leave, and its CHANNEL_DESTROY would never come. A socket without `full`
refuses all of this; one warning says what to write in the dialplan.

Who connects here has no password: the protocol knows none in this direction. So what a stranger can do is bounded.
There are at most `CONNECTIONS`, one that does not answer `connect` with a channel within the timeout is closed, and so
is one that breaks the framing; each is counted. A peer that vanishes is noticed by TCP's keepalive.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from gevent import socket
from gevent.event import Event
from gevent.server import StreamServer
from loguru import logger

from orchestrator.errors import EslDown, EslError, EslInjection, ListenError
from orchestrator.esl.codec import EslEvent, Frame
from orchestrator.esl.commands import safe_uuid, subscriptions
from orchestrator.esl.translate import LINK_EVENTS
from orchestrator.runtime.esl_commands import Commands
from orchestrator.runtime.esl_connection import ConnectionDown, SafeInboundESL
from orchestrator.runtime.reactor import Reactor

PREFIX = "socket:"
"""What the names of connections begin with; no configured server can be called so."""
CONNECTIONS = 1_000
"""Channels at one time. FreeSWITCH itself takes 1,000 sessions as it is shipped."""
LINGER = 5
"""Seconds FreeSWITCH keeps the connection after the channel has hung up: its last events need milliseconds."""
TIMEOUT = 5.0
"""Seconds to answer `connect` and any other command."""

END_EVENTS = frozenset(("CHANNEL_HANGUP", "CHANNEL_HANGUP_COMPLETE"))
"""Where CHANNEL_DESTROY comes too late or not at all: FreeSWITCH may hold the session for this very connection."""


class SocketSession(SafeInboundESL, Commands):
    """One connection that FreeSWITCH has opened. As a link does, it runs commands for the channel (`api`, `execute` …);
    they wait until the events they need are subscribed to."""

    def __init__(self, accepted: socket.socket, host: str, port: int, on_end: Callable[[EslError], None]) -> None:
        Commands.__init__(self)
        SafeInboundESL.__init__(self, host, port, "", TIMEOUT, command_timeout=TIMEOUT, on_end=on_end)
        self.result_timeout = TIMEOUT
        self.uuid = ""
        self._accepted = accepted
        self._ready = Event()
        self.register_handle("*", self._hear)

    def take(self) -> EslEvent:
        """Ask for the channel. Raises EslError for a peer that does not have one."""
        self.adopt(self._accepted)
        event = self.send("connect").event()
        if event is None or event.name != "CHANNEL_DATA" or not event.uuid:
            raise EslError("the peer has no channel", "connect")
        try:
            self.uuid = safe_uuid(event.uuid)
        except EslInjection as error:
            raise EslError(f"unusable uuid: {error}", "connect") from None
        return event

    def subscribe(self, names: Iterable[str]) -> None:
        """From here on events of the channel come, and commands go. Raises EslError."""
        self._must(f"linger {LINGER}")
        self._must(f"filter Unique-ID {self.uuid}")
        self._must("filter Event-Name BACKGROUND_JOB")
        for command in subscriptions(names):
            self._must(command)
        self._ready.set()

    def _must(self, command: str) -> None:
        reply = self.send(command)
        if not reply.ok:
            raise EslError(reply.text.strip(), command)

    # --- commands -----------------------------------------------------------------------------------------------------

    def deliver(self, wire: bytes, label: str, timeout: float | None) -> Frame:
        """Once it is ready."""
        self._ready.wait(TIMEOUT)
        if not self._ready.is_set() or self.error is not None:
            raise EslDown("the socket connection is not there", label)
        return self.request(wire, label, timeout)

    def _hear(self, event: EslEvent) -> None:
        if event.name in ("BACKGROUND_JOB", "CHANNEL_EXECUTE_COMPLETE"):
            self.hear_result(event)
        elif event.name in END_EVENTS or event.name == "CHANNEL_DESTROY":
            self.fail_waiting(EslError("the channel has ended"))

    def end(self, error: EslError, notice: Frame | None = None) -> EslError:
        """As of any connection; besides, applications that were waited for have no result now."""
        ended = super().end(error, notice)
        self._ready.set()
        self.fail_waiting(EslDown("the socket connection has ended"))
        return ended


class EslListener:
    """Takes the connections of FreeSWITCH's dialplan to the core.

    `names()`: Event Socket names the flows need now. `sessions` are the connections whose channel is known, by their
    name; `counters`: connections taken, and why others were not. Raises ListenError for an address that is in use.
    """

    def __init__(self, host: str, port: int, core: Any, reactor: Reactor, names: Callable[[], Iterable[str]]) -> None:
        self.sessions: dict[str, SocketSession] = {}
        self.counters: Counter[str] = Counter()
        self._core = core
        self._reactor = reactor
        self._names = names
        self._open: set[SocketSession] = set()
        self._last = 0
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(256)
        except OSError as error:
            listener.close()
            raise ListenError(f"{host}:{port}", error.strerror or str(error)) from None
        self.address: tuple[str, int] = listener.getsockname()[:2]
        self._server = StreamServer(listener, self._accept)

    def start(self) -> None:
        """Begin to accept; returns at once."""
        self._server.start()

    def close(self) -> None:
        """Accept nothing more and leave every channel to its dialplan."""
        self._server.stop(timeout=0)
        for session in list(self._open):
            session.end(ConnectionDown("stopped"))

    def _accept(self, accepted: socket.socket, peer: tuple[Any, ...]) -> None:
        """One connection, in a greenlet of its own, to its end."""
        if len(self._open) >= CONNECTIONS:
            self.counters["full"] += 1
            accepted.close()
            return
        ended = Event()
        session = SocketSession(accepted, str(peer[0]), int(peer[1]), lambda _: ended.set())
        self._open.add(session)
        try:
            self._serve(session, ended)
        finally:
            session.end(ConnectionDown("done with this channel"))
            self._open.discard(session)

    def _serve(self, session: SocketSession, ended: Event) -> None:
        try:
            data = session.take()
        except EslError as error:
            self.counters["garbage"] += 1
            logger.bind(peer=session.host, reason=str(error)).info("socket_without_channel")
            return
        self._last += 1
        name = f"{PREFIX}{self._last}"
        self.sessions[name] = session
        self.counters["taken"] += 1
        refused = Event()
        core, reactor = self._core, self._reactor

        def refuse() -> None:
            refused.set()
            ended.set()

        reactor.put(core.socket_opened, name, data, refuse)
        try:
            session.register_handle("*", lambda event: reactor.put(core.receive_esl, name, event))
            session.subscribe(self._names())
            ended.wait()
        except EslError as error:
            self._complain(session, error)
        finally:
            session.end(ConnectionDown("no flow takes this channel" if refused.is_set() else "closed"))
            session.join(TIMEOUT)
            if refused.is_set():
                self.counters["refused"] += 1
            reactor.put(core.socket_closed, name, str(session.error))
            del self.sessions[name]

    def _complain(self, session: SocketSession, error: EslError) -> None:
        if session.error is not None:
            return  # it has ended, which is not a complaint
        self.counters["unusable"] += 1
        logger.bind(peer=session.host, reason=str(error), help="write async full in the dialplan").warning(
            "socket_commands_refused"
        )


def wanted(names: Iterable[str]) -> set[str]:
    """What to subscribe to on a socket: all that a link is for, without the heartbeat, and the ends of the channel and
    of its applications."""
    beats = set(LINK_EVENTS) - {"BACKGROUND_JOB"}
    return (set(names) - beats) | END_EVENTS | {"CHANNEL_EXECUTE_COMPLETE"}
