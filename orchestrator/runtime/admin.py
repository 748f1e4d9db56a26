"""The admin's HTTP interface: /healthz, /readyz, /metrics.

`healthz` says that the loop turns: whoever gets an answer knows it. `readyz` says whether this node should get calls,
and if not, why: 503 while it starts or drains, or while a check has a complaint; 200 and `degraded` while it serves
with its last good configuration, because the latest one has a mistake. Others add routes to `app` and say who may ask
for them (`orchestrator.api.routes`), checks to `health` and numbers to `metrics`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

import falcon
from gevent import socket
from loguru import logger

from orchestrator.errors import ListenError
from orchestrator.runtime.admin_connections import AdminServer
from orchestrator.runtime.metrics import Metrics
from orchestrator.runtime.udp import bind_reason

BACKLOG = 4096
"""Connections that the kernel keeps until we come to them, which is soon."""
QUICK = frozenset(("/healthz", "/readyz"))
"""Paths that are answered at once, however many requests wait for their turn."""


class Health:
    """Why this node should not get calls, or serves them with something wrong. A check returns '' or its complaint."""

    def __init__(self) -> None:
        self._checks: dict[str, Callable[[], str]] = {}
        self._degradations: dict[str, Callable[[], str]] = {}

    def add(self, name: str, check: Callable[[], str]) -> None:
        """Have `check` asked at each /readyz."""
        self._checks[name] = check

    def add_degradation(self, name: str, check: Callable[[], str]) -> None:
        """The same for what needs a person but no other node: calls are served."""
        self._degradations[name] = check

    def complaints(self) -> dict[str, str]:
        """Name of the check → complaint, of those that have one."""
        return _complaining(self._checks)

    def degradations(self) -> dict[str, str]:
        """The same of what is wrong while calls are served."""
        return _complaining(self._degradations)


def _complaining(checks: Mapping[str, Callable[[], str]]) -> dict[str, str]:
    found = ((name, check()) for name, check in checks.items())
    return {name: complaint for name, complaint in found if complaint}


class _Alive:
    def on_get(self, _: falcon.Request, response: falcon.Response) -> None:
        response.media = {"status": "ok"}


class _Ready:
    def __init__(self, health: Health) -> None:
        self._health = health

    def on_get(self, _: falcon.Request, response: falcon.Response) -> None:
        complaints = self._health.complaints()
        degradations = self._health.degradations()
        response.status = falcon.HTTP_503 if complaints else falcon.HTTP_200
        status = "not ready" if complaints else "degraded" if degradations else "ready"
        reasons = complaints | degradations
        response.media = {"status": status, "reasons": reasons} if reasons else {"status": status}


class _Exposition:
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def on_get(self, _: falcon.Request, response: falcon.Response) -> None:
        response.content_type = "text/plain; version=0.0.4; charset=utf-8"
        response.data = self._metrics.exposition()


class HostCheck:
    """Requests name this server by an address, by `localhost` or by one of `names`; others get 421 (RFC 9110 §15.5.20).
    A web page of a stranger can make a browser ask us, but only by a name of its own (DNS rebinding)."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = frozenset(("localhost", *(name.lower() for name in names)))

    def process_request(self, request: falcon.Request, _: falcon.Response) -> None:
        host = request.get_header("Host")
        if host is not None and not self.knows(host):
            raise falcon.HTTPError(
                falcon.HTTP_421,
                title="unknown host",
                description="add the name to admin: {names: [...]} of the configuration",
            )

    def knows(self, host: str) -> bool:
        """`host` is a Host header: a name or an address, perhaps with a port."""
        name, bracket, _ = host.strip().lower().removeprefix("[").partition("]")
        if not bracket:
            name = name.rpartition(":")[0] if name.count(":") == 1 else name
        if name.rstrip(".") in self._names:
            return True
        try:
            ip_address(name)
        except ValueError:
            return False
        return True


class AdminApp(falcon.App[Any, Any]):
    """Answers HEAD like GET, without a body (RFC 9110 §9.3.2)."""

    def __init__(self, *middleware: Any) -> None:
        super().__init__(middleware=[_NoStream(), *middleware])

    def add_route(self, uri_template: str, resource: Any, **options: Any) -> None:
        """As falcon has it."""
        if hasattr(resource, "on_get") and not hasattr(resource, "on_head"):
            resource.on_head = resource.on_get
        super().add_route(uri_template, resource, **options)


class _NoStream:
    """A body that goes on is not begun for HEAD: falcon sends none, and does not close it."""

    def process_response(self, request: falcon.Request, response: falcon.Response, *_: object) -> None:
        if request.method == "HEAD" and response.stream is not None:
            close = getattr(response.stream, "close", None)
            if close is not None:
                close()
            response.stream = None


def admin_app(health: Health, metrics: Metrics, names: Sequence[str] = ()) -> AdminApp:
    """What an `Admin` serves before others add to it."""
    app = AdminApp(HostCheck(names))
    app.add_route("/healthz", _Alive())
    app.add_route("/readyz", _Ready(health))
    app.add_route("/metrics", _Exposition(metrics))
    return app


class Admin:
    """The server. Bound at once, so that an address in use is found before anything else runs; it answers from `start`
    on.

    Raises:
        ListenError: the address is in use or not ours.
    """

    def __init__(
        self,
        host: str,
        port: int,
        health: Health,
        metrics: Metrics,
        names: Sequence[str] = (),
        connections: int = 32,
        per_client: int = 16,
        streams: int = 200,
    ) -> None:
        """`names`: host names that requests may use besides addresses and localhost. `connections`: requests that are
        served at a time, `per_client` of them from one address (IPv6: one /64), so that one slow client leaves room for
        others; `streams`: answers that go on (`runtime.admin_connections`)."""
        self.app = admin_app(health, metrics, names)
        name = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        if not _is_loopback(host):
            logger.bind(
                listen=name,
                help="/metrics needs no token; listen on 127.0.0.1, or let only those through who may read it",
            ).warning("admin_open_to_network")
        listener = _listen(name, host, port)
        self.address: tuple[str, int] = listener.getsockname()[:2]
        self._server = AdminServer(listener, self.app, connections, per_client, streams, QUICK)

    @property
    def malformed(self) -> int:
        """Requests that are no HTTP."""
        return self._server.malformed

    @property
    def refused(self) -> int:
        """Connections cut or refused: too many waited, or the turn of a request did not come."""
        return self._server.refused + self._server.waiting.refused

    @property
    def streams(self) -> int:
        """Streams that go on."""
        return len(self._server.streams)

    def start(self) -> None:
        self._server.start()

    def close(self) -> None:
        """Stop listening; requests under way are cut after a moment."""
        self._server.stop(timeout=0.2)


def _listen(name: str, host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise ListenError(name, bind_reason(error)) from None
    try:
        # For TCP this lets a restart follow at once (TIME_WAIT); a second listener is refused all the same.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ListenError(name, bind_reason(error)) from None
    return listener


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
