"""The sockets that the configuration asks for, with what they share: connections and certificates."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from time import time

import gevent

from orchestrator.core.engine import Engine
from orchestrator.packages.transport import Transport
from orchestrator.runtime import gauges
from orchestrator.runtime.admin import Health
from orchestrator.runtime.interfaces import address_text
from orchestrator.runtime.metrics import Metrics
from orchestrator.runtime.reactor import Reactor
from orchestrator.runtime.streams.connections import Connections
from orchestrator.runtime.streams.limits import StreamLimits
from orchestrator.runtime.streams.tls import Certificates, TlsFiles
from orchestrator.runtime.streams.websocket import WebSocketRules
from orchestrator.runtime.transports import Context, transport_kind
from orchestrator.server_log import log_of_certificates
from orchestrator.settings import Settings
from orchestrator.settings.values import Listen


class Listening:
    """Those of one server, bound at once; `stack` closes them.

    Raises:
        OrchestratorError: an address is in use (ListenError), or the certificates cannot be used.
    """

    def __init__(self, settings: Settings, stack: ExitStack) -> None:
        self._sip = settings.sip
        self._message = settings.limits.message
        browsers = settings.sip.websocket
        self._browsers = WebSocketRules(browsers.path or "", frozenset(browsers.origins), self._message, browsers.ping)
        self.connections = Connections(StreamLimits(**settings.sip.streams.model_dump()))
        stack.callback(self.connections.close)
        tls = settings.sip.tls
        self._certificates = None if tls.certificate is None else Certificates(TlsFiles(**tls.model_dump()))
        self.transports: list[Transport] = []
        for listen in settings.sip.listen:
            transport = self._bind(listen)
            self.transports.append(transport)
            stack.callback(transport.close)

    def _bind(self, listen: Listen) -> Transport:
        kind, address = transport_kind(listen.transport), listen.address
        own = self._sip.transports.get(listen.transport) or kind.settings()
        context = Context(self.connections, self._certificates, own, self._message, self._browsers)
        return kind.open(address.host, address.port, context)

    def start(self, reactor: Reactor, engine: Engine) -> None:
        """Begin to receive: for the core, at its points."""
        network = engine.network
        self.connections.source_of = lambda host: engine.admission.source_of(host, reactor.clock())
        for index, transport in enumerate(self.transports):
            transport.start(reactor, network.points[index], partial(network.point_at, index))

    def look_at_certificates(self) -> None:
        """Files that have changed are for the connections that come from now on. Called in a greenlet."""
        certificates = self._certificates
        if certificates is not None and gevent.get_hub().threadpool.apply(certificates.look):
            log_of_certificates(certificates.trouble)

    def export(self, metrics: Metrics, health: Health) -> None:
        """What /metrics and /readyz say about them."""
        gauges.export_transports(metrics, self.transports)
        gauges.export_connections(metrics, self.connections)
        certificates = self._certificates
        if certificates is not None:
            gauges.export_certificates(metrics, certificates)
            health.add_degradation("tls", lambda: certificates.complaint(time()))

    @property
    def received(self) -> int:
        """Messages, of all of them."""
        return sum(transport.received for transport in self.transports)

    @property
    def bound(self) -> list[tuple[str, int]]:
        """Addresses and ports, with those that the system chose where it was asked to."""
        return [transport.address for transport in self.transports]

    @property
    def addresses(self) -> list[str]:
        """The same as people write them: `udp:127.0.0.1:5060`."""
        listens = zip(self._sip.listen, self.transports, strict=True)
        return [f"{listen.transport}:{address_text(transport.address)}" for listen, transport in listens]
