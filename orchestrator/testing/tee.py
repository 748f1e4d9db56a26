"""A tee in the Event Socket: clients connect to it instead of FreeSWITCH, and what passes is written down.

It is transparent: octets go on as they came, at once and unchanged, also those no recorder could read. The client
authenticates with its own password; the tee needs none. When one side closes, so does the other.

Each connection is a recording of its own: `out.esl`, then `out-2.esl`, and so on.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, BinaryIO, Self

import gevent
from gevent import socket
from gevent.pool import Pool
from gevent.server import StreamServer

from orchestrator.errors import ListenError
from orchestrator.testing.recorder import Form, Recorder
from orchestrator.testing.redaction import Redaction

CONNECT = 5.0
"""Seconds to reach FreeSWITCH."""

RECEIVE = 64 * 1024


def _private(path: str, flags: int) -> int:
    """For the owner alone: a recording tells who called whom, and what they pressed."""
    return os.open(path, flags, 0o600)


class EslTee:
    """Listens at `address` and passes on to `upstream`. `note(text)` is told what happens, one line each.

    Raises:
        ListenError: the address is in use or not ours.
    """

    def __init__(
        self,
        upstream: tuple[str, int],
        listen: tuple[str, int],
        out: Path,
        form: Form,
        redaction: Redaction,
        note: Callable[[str], object] = lambda text: None,
        meta: dict[str, str] | None = None,
    ) -> None:
        self.upstream = upstream
        self.recorders: list[Recorder] = []
        self.files: list[Path] = []
        self._out = out
        self._form = form
        self._redaction = redaction
        self._note = note
        self._meta = meta or {}
        self._open: set[Any] = set()
        self._listener = _listen(*listen)
        self._server = StreamServer(self._listener, self._serve, spawn=Pool())

    @property
    def address(self) -> tuple[str, int]:
        """Host and port clients connect to."""
        host, port = self._listener.getsockname()[:2]
        return str(host), int(port)

    def start(self) -> Self:
        self._server.start()
        return self

    def stop(self) -> None:
        """Stop listening and close every connection; what has passed is written."""
        for sock in list(self._open):
            _close(sock)
        self._server.stop(timeout=1)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    # --- a connection -------------------------------------------------------------------------------------------------

    def _serve(self, client: Any, peer: Any) -> None:
        try:
            server = socket.create_connection(self.upstream, timeout=CONNECT)
        except OSError as error:
            self._note(f"cannot reach {self.upstream[0]}:{self.upstream[1]}: {error.strerror or error}")
            client.close()
            return
        server.settimeout(None)
        for sock in (client, server):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open.add(sock)
        path = self._next_file()
        self._note(f"{peer[0]}:{peer[1]} connected, written to {path}")
        with open(path, "xb", buffering=0, opener=_private) as file:
            recorder = self._recorder(file)
            pumps = [
                gevent.spawn(_pump, server, client, recorder.from_server),
                gevent.spawn(_pump, client, server, recorder.from_client),
            ]
            gevent.joinall(pumps, count=1)
            _close(server)  # also wakes the other pump
            _close(client)
            gevent.joinall(pumps)
        self._open -= {client, server}
        broken = f"; not all of it: {recorder.broken}" if recorder.broken else ""
        self._note(f"{path}: {recorder.frames} frames, {recorder.commands} commands{broken}")

    def _recorder(self, file: BinaryIO) -> Recorder:
        recorder = Recorder(file.write, self._form, self._redaction, monotonic(), self._meta)
        self.recorders.append(recorder)
        return recorder

    def _next_file(self) -> Path:
        number = len(self.files) + 1
        name = self._out.name if number == 1 else f"{self._out.stem}-{number}{self._out.suffix}"
        self.files.append(self._out.with_name(name))
        return self.files[-1]


def _listen(host: str, port: int) -> Any:
    name = f"tcp:[{host}]:{port}" if ":" in host else f"tcp:{host}:{port}"
    listener = None
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError as error:
        if listener is not None:
            listener.close()
        raise ListenError(name, error.strerror or str(error)) from None
    return listener


def _pump(source: Any, target: Any, record: Callable[[bytes, float], None]) -> None:
    """Octets from one side to the other until either closes; passed on first, then written down."""
    try:
        while data := source.recv(RECEIVE):
            target.sendall(data)
            record(data, monotonic())
    except OSError:
        pass  # one side is gone; the other is closed by whoever started us


def _close(sock: Any) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # closed already
    sock.close()
