"""Whole SIP messages as they pass, for an address of record, a number or a network address; in short at `debug`.

    GET /api/v1/siptrace?of=alice@example.com&seconds=60      one JSON line for each message, for as long as was asked

The connection is what keeps the trace on, as with /api/v1/explain: when the client goes away or its time is over,
messages cost what they did before. A call that has once matched is followed by its Call-ID. Secrets are masked:
credentials, nonces, push tokens, keys of SRTP and ICE.
"""

from __future__ import annotations

import re
from time import time
from typing import Any

from loguru import logger

from orchestrator.errors import TooManyWatchersError
from orchestrator.history import History, MessageIn, MessageOut, SipMessage
from orchestrator.runtime.jsonlines import Sink
from orchestrator.sip.masking import masked
from orchestrator.sip.shown import shown

WATCHERS = 8
"""Traces at a time."""
_CALLS = 1000
"""Calls that one trace follows."""


def short(data: bytes) -> str:
    """`INVITE sip:bob@example.com SIP/2.0`: the first line."""
    return shown(data[:1000].split(b"\r\n", 1)[0])


class _Watcher:
    """What one client wants to see."""

    def __init__(self, target: str, sink: Sink) -> None:
        self._sink = sink
        self._calls: dict[bytes, None] = {}
        self._host, self._port = _address(target)
        user, at, host = target.removeprefix("sip:").rpartition("@") if "@" in target else (target, "", "")
        quoted = re.escape((f"{user}@{host}" if at else f"{user}@").encode())
        end = rb"(?=[:;>?\s,]|$)" if at else b""
        number = b"" if at else rb"|\btel:" + re.escape(target.encode()) + rb"(?=[;>\s]|$)"
        self._uri = re.compile(rb"\bsips?:" + quoted + end + number, re.IGNORECASE)

    def see(self, seen: dict[str, Any], message: SipMessage) -> None:
        call, here = message.call_id, message.host == self._host and self._port in (0, message.port)
        if not (here or call in self._calls or self._uri.search(message.head)):
            return
        if call and len(self._calls) < _CALLS:
            self._calls[call] = None
        self._sink(seen)


def _address(target: str) -> tuple[str, int]:
    """Host and port of `192.0.2.1`, `192.0.2.1:5060` or `[::1]:5060`; 0 for any port."""
    host, colon, port = target.rpartition(":")
    if colon and port.isdigit() and (host.count(":") == 0 or host.startswith("[")):
        return host.strip("[]"), int(port)
    return target.strip("[]"), 0


class SipTrace:
    """Listens to the messages of a history while somebody looks, or the log is at `debug`."""

    def __init__(self, debug: bool, history: History) -> None:
        self._debug = debug
        self._history = history
        self._watchers: list[_Watcher] = []
        if debug:
            self._listen()

    def debug(self, on: bool) -> None:
        """Whether each message is to stand in the log in short."""
        was, self._debug = self._debug, on
        if on != was and not self._watchers:
            self._listen() if on else self._ignore()

    def _ignore(self) -> None:
        self._history.ignore(MessageIn, self.see)
        self._history.ignore(MessageOut, self.see)

    def _listen(self) -> None:
        self._history.listen(MessageIn, self.see)
        self._history.listen(MessageOut, self.see)

    def see(self, message: SipMessage) -> None:
        """One message, received or sent."""
        data, host, port = message.data, message.host, message.port
        received = isinstance(message, MessageIn)
        if len(data) <= 4:  # a keep-alive
            return
        if self._debug:
            logger.bind(peer=f"{host}:{port}", octets=len(data), first=short(data)).debug(
                "sip_received" if received else "sip_sent"
            )
        if self._watchers:
            seen = {
                "time": time(),
                "direction": "received" if received else "sent",
                "peer": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
                "message": masked(data).decode("utf-8", "replace"),
            }
            for watcher in self._watchers:
                watcher.see(seen, message)

    def open(self, target: str, sink: Sink) -> object:
        """Tell `sink` each message of this address of record, number or address. Raises TooManyWatchersError."""
        if len(self._watchers) >= WATCHERS:
            raise TooManyWatchersError("too many traces")
        watcher = _Watcher(target, sink)
        if not self._watchers and not self._debug:
            self._listen()
        self._watchers.append(watcher)
        return watcher

    def close(self, watcher: object) -> None:
        self._watchers = [other for other in self._watchers if other is not watcher]
        if not self._watchers and not self._debug:
            self._ignore()
