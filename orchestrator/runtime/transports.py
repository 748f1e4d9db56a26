"""The transports that come with the server, and how the configuration finds one: ours, else one of a package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel

from orchestrator.errors import OrchestratorError
from orchestrator.packages.service import NoSettings
from orchestrator.packages.transport import TransportKind, find_transport
from orchestrator.runtime.streams.connections import Connections
from orchestrator.runtime.streams.layers import Layers
from orchestrator.runtime.streams.limits import StreamLimits
from orchestrator.runtime.streams.listener import StreamTransport
from orchestrator.runtime.streams.tls import Certificates
from orchestrator.runtime.streams.websocket import WebSocketRules, WebSocketServer
from orchestrator.runtime.udp import UdpTransport
from orchestrator.sip.framing import StreamFramer


@dataclass(frozen=True, slots=True)
class Context:
    """The `TransportContext` of one transport."""

    connections: Connections = field(default_factory=lambda: Connections(StreamLimits()))
    """Shared by all of a server."""
    certificates: Certificates | None = None
    """Of the transports that encipher."""
    settings: BaseModel = field(default_factory=NoSettings)
    message: int = 65_535
    websocket: WebSocketRules = field(default_factory=WebSocketRules)

    @property
    def number(self) -> Callable[[], int]:
        return self.connections.number


def _open_udp(host: str, port: int, context: Any) -> UdpTransport:
    return UdpTransport(host, port)


def _open_tcp(host: str, port: int, context: Context) -> StreamTransport:
    layers = Layers(lambda ours: StreamFramer(context.message))
    return StreamTransport("tcp", host, port, context.connections, layers)


def _open_tls(host: str, port: int, context: Context) -> StreamTransport:
    assert context.certificates is not None
    layers = Layers(lambda ours: StreamFramer(context.message), context.certificates.cipher)
    return StreamTransport("tls", host, port, context.connections, layers)


def _open_ws(host: str, port: int, context: Context) -> StreamTransport:
    layers = Layers(lambda ours: WebSocketServer(context.websocket), connects=False)
    return StreamTransport("ws", host, port, context.connections, layers)


def _open_wss(host: str, port: int, context: Context) -> StreamTransport:
    assert context.certificates is not None
    layers = Layers(lambda ours: WebSocketServer(context.websocket), context.certificates.cipher, connects=False)
    return StreamTransport("wss", host, port, context.connections, layers)


BUILT_IN: Final = {
    kind.name: kind
    for kind in (
        TransportKind("udp", "RFC 3261 §18.1.", _open_udp, reliable=False, secure=False, default_port=5060),
        TransportKind("tcp", "RFC 3261 §18.1.", _open_tcp, reliable=True, secure=False, default_port=5060),
        TransportKind("tls", "RFC 3261 §26.2.1.", _open_tls, reliable=True, secure=True, default_port=5061),
        TransportKind("ws", "WebSocket (RFC 7118).", _open_ws, reliable=True, secure=False, default_port=80),
        TransportKind("wss", "The same over TLS.", _open_wss, reliable=True, secure=True, default_port=443),
    )
}
"""By name."""


def transport_kind(name: str) -> TransportKind:
    """The transport of that name. Raises OrchestratorError: there is none, or it cannot be used."""
    kind = BUILT_IN.get(name) or find_transport(name)
    if kind is None:
        raise OrchestratorError(f"no installed package has a transport {name!r}")
    return kind
