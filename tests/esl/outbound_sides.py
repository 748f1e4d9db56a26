"""FreeSWITCH's outbound socket from both ends: one that calls, and ours and greenswitch's that are called.

The two servers have little in common: greenswitch runs an application per channel, ours tells a core of it. Here both
run an application, so that one scenario can be held against either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from types import SimpleNamespace
from typing import Any, Protocol
from unittest import mock

import gevent
from gevent import socket
from greenswitch.esl import OutboundESLServer, OutboundSession

from orchestrator.history import History
from orchestrator.runtime import esl_server
from orchestrator.runtime.reactor import Reactor
from orchestrator.testing.freeswitch import FakeFreeSwitch
from orchestrator.testing.recordings import build_reply
from orchestrator.timers import Timers

UUID = "u-1"
CHANNEL_DATA = build_reply("%2BOK%0A", Event_Name="CHANNEL_DATA", Unique_ID=UUID)
Address = tuple[str, int]


class CallingFreeSwitch(FakeFreeSwitch):
    """A fake FreeSWITCH that calls by itself. Who calls does not greet, and asks for no password."""

    def __init__(self) -> None:
        super().__init__()
        self.greeting = "silent"
        self.on("*").reply_raw(build_reply("+OK"))
        self.on("connect").reply_raw(CHANNEL_DATA)

    def call(self, address: Address) -> None:
        """What `socket <address> async full` in the dialplan does for one channel."""
        gevent.spawn(self._serve, socket.create_connection(address), None)


@dataclass(frozen=True)
class Channel:
    """One channel, as an application gets it."""

    session: Any
    """Whose `register_handle` both have."""
    run: Callable[..., Any]
    """`run(app, args, timeout)`: have FreeSWITCH run a dialplan application; its CHANNEL_EXECUTE_COMPLETE."""


Application = Callable[[Channel], object]


class Side(Protocol):
    """A server for outbound sockets."""

    def serve(self, application: Application, host: str = "127.0.0.1", port: int = 0, limit: int = 100) -> Address:
        """Run the application for each channel, in a greenlet of its own, for `limit` of them at once."""

    def close(self) -> None: ...


@dataclass
class _Core:
    """Takes every channel and leaves all else to the application."""

    take: Callable[[str], object]
    timers: Timers = field(default_factory=lambda: Timers(monotonic()))
    datagrams: list[Any] = field(default_factory=list)
    jobs: list[Any] = field(default_factory=list)
    history: History = field(default_factory=History)

    def socket_opened(self, name: str, data: object, refuse: object, now: float) -> None:
        self.take(name)

    def socket_closed(self, name: str, reason: str, now: float) -> None:
        pass

    def receive_esl(self, server: str, event: object, now: float) -> None:
        pass


class OurSide:
    """EslListener."""

    def __init__(self) -> None:
        self._closers: list[Callable[[], object]] = []

    def serve(self, application: Application, host: str = "127.0.0.1", port: int = 0, limit: int = 100) -> Address:
        def take(name: str) -> None:
            session = listener.sessions[name]
            gevent.spawn(application, Channel(session, partial(session.run, session.uuid)))

        core: Any = _Core(take)
        reactor = Reactor(core, lambda job: None)
        bound = mock.patch.object(esl_server, "CONNECTIONS", limit)
        listener = esl_server.EslListener(host, port, core, reactor, lambda: esl_server.wanted(()))
        bound.start()
        self._closers += [listener.close, reactor.close, bound.stop]
        listener.start()
        return listener.address

    def close(self) -> None:
        for close in self._closers:
            close()


class StockSide:
    """greenswitch's OutboundESLServer, used as its README says."""

    def serve(self, application: Application, host: str = "127.0.0.1", port: int = 0, limit: int = 100) -> Address:
        def app(session: OutboundSession) -> SimpleNamespace:
            def execute(app: str, args: str, timeout: float | None = None) -> Any:
                return session.call_command(app, args, block=True, response_timeout=timeout)

            def run() -> None:
                session.linger()
                session.myevents()
                application(Channel(session, execute))

            return SimpleNamespace(run=run)

        server = OutboundESLServer(host, port or _free_port(), app, limit)  # it takes no port 0
        gevent.spawn(server.listen)
        while not server._running:
            gevent.sleep(0.001)
        return host, int(server.bound_port)

    def close(self) -> None:
        pass  # its process ends


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])
