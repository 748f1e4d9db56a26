"""The Event Socket links of a server, as the configuration names them now."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import gevent
from loguru import logger

from orchestrator.core.engine import Engine
from orchestrator.errors import EslError
from orchestrator.runtime.esl_link import EslLink, EslServer, Snapshot
from orchestrator.runtime.reactor import Reactor
from orchestrator.settings import FreeSwitchSettings


class FreeSwitchLinks:
    """One link for each FreeSWITCH server; `needed()` names the events that are wanted of it."""

    def __init__(self, engine: Engine, reactor: Reactor, needed: Callable[[], frozenset[str]]) -> None:
        self.by_name: dict[str, EslLink] = {}
        self._engine = engine
        self._reactor = reactor
        self._needed = needed
        self._servers: dict[str, FreeSwitchSettings] = {}
        self._started = False

    def start(self) -> None:
        """Begin to connect."""
        self._started = True
        for link in self.by_name.values():
            link.start()

    def stop(self, hurry: bool) -> None:
        """All at a time; commands under way get a moment unless we are in a hurry."""
        seconds = 0.0 if hurry else 1.0
        gevent.joinall([gevent.spawn(link.stop, seconds) for link in self.by_name.values()])

    def update(self, servers: Mapping[str, FreeSwitchSettings]) -> None:
        """Links as the servers now are: changed ones anew, the others subscribe to what is new. Each by itself, so that
        none waits for a server that says nothing."""
        changed = [name for name, server in self._servers.items() if servers.get(name) != server]
        new = [name for name in servers if name not in self._servers]
        kept = [gevent.spawn(_subscribe_anew, link) for name, link in self.by_name.items() if name not in changed]
        renewed = [gevent.spawn(self._renew, name, servers.get(name)) for name in changed]
        for name in new:
            self._add(name, servers[name])
        gevent.joinall(kept)
        gevent.joinall(renewed)

    def complaint(self) -> str:
        """Why no FreeSWITCH server is ready; '' when one is, or none is configured."""
        trouble = self._troubled()
        if not self.by_name or len(trouble) < len(self.by_name):
            return ""
        connected = any(link.state == "up" for link in self.by_name.values())
        what = "takes our calls" if connected else "is connected"
        return f"no FreeSWITCH server {what}: " + ", ".join(trouble)

    def degradation(self) -> str:
        """Which servers are not ready, where others are."""
        return "" if self.complaint() else ", ".join(self._troubled())

    def _troubled(self) -> list[str]:
        """Those that are not ready, with the reason: `fs1 (timed out)`."""
        found = []
        for name, link in sorted(self.by_name.items()):
            trouble = (link.reason or link.state) if link.state != "up" else self._engine.servers.complaint(name)
            if trouble:
                found.append(f"{name} ({trouble})")
        return found

    def _add(self, name: str, server: FreeSwitchSettings) -> None:
        engine, reactor = self._engine, self._reactor

        def snapshot(name: str, seen: Snapshot) -> None:
            reactor.put(engine.receive_snapshot, name, seen.rows, seen.since, seen.core_uuid)

        link = self.by_name[name] = EslLink(
            EslServer(name, server.host, server.port, server.password.get_secret_value(), server.user or ""),
            self._needed,
            lambda name, event: reactor.put(engine.receive_esl, name, event),
            lambda name, state: reactor.post(engine.link_changed, name, state, link.reason),
            snapshot,
            command_timeout=server.timeout,
            connect_timeout=server.timeout,
            idle=server.silence,
        )
        self._servers[name] = server
        if self._started:
            link.start()

    def _renew(self, name: str, server: FreeSwitchSettings | None) -> None:
        """The old one ends before the new one begins: flows know them by the same name."""
        del self._servers[name]
        self.by_name.pop(name).stop()
        if server is not None:
            self._add(name, server)


def _subscribe_anew(link: EslLink) -> None:
    try:
        link.resubscribe()
    except EslError as error:
        logger.bind(server=link.server.name, reason=str(error)).warning("event_subscription_failed")
