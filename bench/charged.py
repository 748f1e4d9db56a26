"""Calls charged with CGRateS, which answers at once, late, not at all, and again: SIP latency, CPU per call, sessions.

    python -m bench.charged [--busy 60] [--seconds 5] [--rounds 3]

The peer is a stub that grants everything. While it is gone, calls are let through (`on_down: allow`), and what they owe
is told when it is back. See bench.peers for how it is measured.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import threading
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from time import monotonic

from bench import peers
from bench.figures import Figure
from bench.peers import Trial, metric
from bench.servers import HOST, Orchestrator, free_port, wait_until

LATE = 0.5
"""Seconds that a slow CGRateS takes to answer."""
FLOW = """\
flowlang: 1
flows:
  charged:
    on: invite
    do:
      - charge: {account: '${call.from.user}', destination: '${call.target.user}'}
        on:
          denied: [{reply: 402}, stop]
          error: [{reply: 503}, stop]
      - relay: registered
"""


class Billing:
    """CGRateS as far as its answers go; one thread for each connection."""

    def __init__(self) -> None:
        self.port = free_port(socket.SOCK_STREAM)
        self.asked: Counter[str] = Counter()
        self.open: set[str] = set()
        self.delay = 0.0
        self._connections: list[socket.socket] = []
        self.come_back()

    def slow(self) -> None:
        self.delay = LATE

    def leave(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            connection.shutdown(socket.SHUT_RDWR)
        self._connections.clear()

    def come_back(self) -> None:
        self.delay = 0.0
        self._listener = socket.create_server((HOST, self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        try:
            while True:
                connection = listener.accept()[0]
                self._connections.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()
        except OSError:
            pass

    def _serve(self, connection: socket.socket) -> None:
        rest, late = b"", deque[tuple[float, bytes]]()
        try:
            while True:
                wait = max(0.0, late[0][0] - monotonic()) if late else None
                if select.select([connection], [], [], wait)[0]:
                    octets = connection.recv(1 << 18)
                    if not octets:
                        return
                    *lines, rest = (rest + octets).split(b"\n")
                    due = monotonic() + self.delay
                    late.extend((due, self._answer(line)) for line in lines if line)
                now, ready = monotonic(), []
                while late and late[0][0] <= now:
                    ready.append(late.popleft()[1])
                if ready:
                    connection.sendall(b"".join(ready))
        except OSError:
            pass
        finally:
            connection.close()

    def _answer(self, line: bytes) -> bytes:
        request = json.loads(line)
        name = request["method"].partition(".")[2]
        self.asked[name] += 1
        event = request["params"][0].get("Event") or {}
        if name == "InitiateSession":
            self.open.add(event["OriginID"])
        elif name == "TerminateSession":
            self.open.discard(event["OriginID"])
        granted = name in ("AuthorizeEvent", "InitiateSession", "UpdateSession")
        result = '{"MaxUsage":3600000000000}' if granted else '"OK"'
        return b'{"id":%d,"result":%s,"error":null}\n' % (request["id"], result.encode())


def make(stack: ExitStack, folder: Path) -> Trial:
    billing = Billing()
    more = {"services": {"cgrates": {"address": f"tcp://{HOST}:{billing.port}", "on_down": "allow"}}}

    def counters(server: Orchestrator) -> Iterator[Figure]:
        try:
            wait_until(lambda: not metric(server, "cgrates_sessions"), 90, "sessions stay open")
        except TimeoutError:
            pass
        yield Figure("sessions open here at the end", metric(server, "cgrates_sessions"), "", most=0)
        yield Figure("sessions open in CGRateS at the end", len(billing.open), "", most=0)
        for name in ("AuthorizeEvent", "InitiateSession", "TerminateSession", "ProcessCDR"):
            yield Figure(f"{name} asked", billing.asked[name], "")

    return Trial("charging", billing, more, counters, FLOW)


def figures(rate: int = 0, seconds: int = 5, rounds: int = 3) -> Iterator[Figure]:
    """Raises Skipped."""
    return peers.measured(make, rate, seconds, rounds)


QUICK = {"rate": 100, "seconds": 3, "rounds": 1}

if __name__ == "__main__":
    sys.exit(peers.run("charged", __doc__, {"charged": make}))
