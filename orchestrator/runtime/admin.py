"""The admin's HTTP interface: /healthz, /readyz, /metrics.

`healthz` says that the loop turns: whoever gets an answer knows it. `readyz` says whether this node should get calls,
and if not, why: 503 while it starts or drains, or while a check has a complaint; 200 and `degraded` while it serves
with its last good configuration, because the latest one has a mistake. Others add routes to `app` and say who may ask
for them (`orchestrator.api.routes`), checks to `health` and numbers to `metrics`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

import falcon
from gevent import Timeout, socket
from gevent.pool import Pool
from gevent.pywsgi import WSGIHandler, WSGIServer
from loguru import logger

from orchestrator.errors import ListenError
from orchestrator.runtime.metrics import Metrics
from orchestrator.runtime.udp import bind_reason
from orchestrator.sip.admission import source_name

HEAD = 5.0
"""Seconds a client has for the head of a request, however it spreads its octets, and for which an idle one is kept."""

PATIENCE = 30.0
"""Seconds a connection may stay silent: a client that never ends its request must not keep one of the connections."""


UNREAD = 262_144
"""Octets of a body that nobody has read, most often of a request that was refused, which are read to use the connection
again. A client that has more to say, or takes longer than HEAD, is cut."""


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


class _Rest:
    """What is left of the body of a request. gevent would read all of it, a terabyte or an octet a minute."""

    def __init__(self, handler: _Handler, body: Any) -> None:
        self._handler = handler
        self._body = body

    def _discard(self) -> None:
        """Called by gevent when the answer has been sent."""
        body = self._body
        body.send_100_continue_enabled = False
        over = Timeout.start_new(HEAD)
        try:
            left = UNREAD
            while left > 0 and not body._chunked_input_error:
                if not (octets := body.read(16_384)):
                    return
                left -= len(octets)
        except Timeout as timeout:
            if timeout is not over:
                raise
        finally:
            over.close()
        self._handler.close_connection = True


class _Handler(WSGIHandler):
    """Gives up on connections that stay silent, and on those that take too long over the head of a request."""

    def __init__(self, sock: Any, address: Any, server: Any) -> None:
        sock.settimeout(PATIENCE)
        self._head = Timeout(HEAD)
        super().__init__(sock, address, server)

    def handle_one_request(self) -> Any:
        """None closes the connection."""
        head = self._head = Timeout.start_new(HEAD)
        try:
            return super().handle_one_request()
        except Timeout as over:
            if over is not head:
                raise
            return None
        finally:
            head.close()

    def get_environ(self) -> Any:
        environ = super().get_environ()
        # `environ` has the body itself.
        self.wsgi_input = _Rest(self, self.wsgi_input)  # type: ignore[assignment]
        return environ

    def handle_one_response(self) -> None:
        self._head.close()  # the head has been read; an answer may be a stream of minutes
        super().handle_one_response()


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


def admin_app(health: Health, metrics: Metrics, names: Sequence[str] = ()) -> falcon.App[Any, Any]:
    """What an `Admin` serves before others add to it."""
    app: falcon.App[Any, Any] = falcon.App(middleware=[HostCheck(names)])
    app.add_route("/healthz", _Alive())
    app.add_route("/readyz", _Ready(health))
    app.add_route("/metrics", _Exposition(metrics))
    return app


class _Server(WSGIServer):
    """Serves so many connections of one client at a time, and refuses further ones."""

    _FULL = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

    def __init__(self, listener: socket.socket, app: Any, connections: int, per_client: int) -> None:
        self.refused = 0
        self._per_client = per_client
        self._clients: Counter[str] = Counter()
        errors = logging.getLogger("orchestrator.admin")
        super().__init__(listener, app, log=None, error_log=errors, spawn=Pool(connections), handler_class=_Handler)

    def do_handle(self, sock: Any, address: Any) -> None:
        """Called for each accepted connection, in the loop: nothing here may wait."""
        client = source_name(address[0])
        if self._clients[client] >= self._per_client:
            self.refused += 1
            self._refuse(sock)
            return
        self._clients[client] += 1
        try:
            super().do_handle(sock, address)
        except BaseException:
            self._ended(client)
            raise

    def handle(self, sock: Any, address: Any) -> None:
        try:
            super().handle(sock, address)
        finally:
            self._ended(source_name(address[0]))

    def _refuse(self, sock: Any) -> None:
        try:
            sock.setblocking(False)
            sock.send(self._FULL)
        except OSError:
            pass
        finally:
            sock.close()

    def _ended(self, client: str) -> None:
        self._clients[client] -= 1
        if not self._clients[client]:
            del self._clients[client]


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
    ) -> None:
        """`names`: host names that requests may use besides addresses and localhost. `connections` are served at a
        time, `per_client` of them from one address (IPv6: one /64), so that one slow client leaves room for others."""
        self.app = admin_app(health, metrics, names)
        name = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        if not _is_loopback(host):
            logger.bind(
                listen=name,
                help="/metrics needs no token; listen on 127.0.0.1, or let only those through who may read it",
            ).warning("admin_open_to_network")
        listener = _listen(name, host, port, connections)
        self.address: tuple[str, int] = listener.getsockname()[:2]
        self._server = _Server(listener, self.app, connections, per_client)

    @property
    def refused(self) -> int:
        """Connections refused because their client had `per_client` already."""
        return self._server.refused

    def start(self) -> None:
        self._server.start()

    def close(self) -> None:
        """Stop listening; requests under way are cut after a moment."""
        self._server.stop(timeout=0.2)


def _listen(name: str, host: str, port: int, backlog: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise ListenError(name, bind_reason(error)) from None
    try:
        # For TCP this lets a restart follow at once (TIME_WAIT); a second listener is refused all the same.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(backlog)
    except OSError as error:
        listener.close()
        raise ListenError(name, bind_reason(error)) from None
    return listener


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
