"""Every message sent to a HEP receiver that reads, hangs, is gone and is back: SIP latency, CPU per call, memory.

    python -m bench.homer [--busy 60] [--seconds 5] [--rounds 3]

Counters are read from /metrics at the end: every packet was sent, dropped or waits. See bench.peers for how it is
measured.
"""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from time import sleep

from bench import peers
from bench.figures import Figure
from bench.peers import Trial, metric
from bench.servers import HOST, Orchestrator, free_port, wait_until

BUFFER = 4_000_000


class Receiver:
    """A TCP server that counts the packets it reads."""

    def __init__(self) -> None:
        self.port = free_port(socket.SOCK_STREAM)
        self.packets = 0
        self._reads = True
        self._connections: list[socket.socket] = []
        self.come_back()

    def slow(self) -> None:
        self._reads = False

    def leave(self) -> None:
        self._reads = True
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            connection.close()
        self._connections.clear()

    def come_back(self) -> None:
        self._listener = socket.create_server((HOST, self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        try:
            while True:
                connection = listener.accept()[0]
                self._connections.append(connection)
                threading.Thread(target=self._read, args=(connection,), daemon=True).start()
        except OSError:
            pass

    def _read(self, connection: socket.socket) -> None:
        rest = b""
        try:
            while True:
                while not self._reads:
                    sleep(0.05)
                octets = connection.recv(1 << 18)
                if not octets:
                    return
                rest += octets
                at = 0
                while len(rest) >= at + 6 and len(rest) >= at + (length := int.from_bytes(rest[at + 4 : at + 6])):
                    self.packets += 1
                    at += length
                rest = rest[at:]
        except OSError:
            pass


def make(stack: ExitStack, folder: Path) -> Trial:
    receiver = Receiver()
    more = {"services": {"hep": {"address": f"tcp:{HOST}:{receiver.port}", "buffer": BUFFER}}}

    def counters(server: Orchestrator) -> Iterator[Figure]:
        try:
            wait_until(lambda: not metric(server, "hep_buffer_octets"), 10, "packets wait")
        except TimeoutError:
            pass
        sleep(0.2)
        yield Figure("packets sent", metric(server, "hep_packets_sent_total"), "")
        yield Figure("packets the receiver has read", receiver.packets, "")
        yield Figure("packets dropped", metric(server, "hep_packets_dropped_total"), "")
        yield Figure("octets waiting at the end", metric(server, "hep_buffer_octets"), "", most=0)
        yield Figure("facts taken", metric(server, "events_handled_total"), "")
        yield Figure("facts lost before they were encoded", metric(server, "events_dropped_total"), "", most=0)

    return Trial("HEP", receiver, more, counters)


def figures(rate: int = 0, seconds: int = 5, rounds: int = 3) -> Iterator[Figure]:
    """Raises Skipped."""
    return peers.measured(make, rate, seconds, rounds)


QUICK = {"rate": 100, "seconds": 3, "rounds": 1}

if __name__ == "__main__":
    sys.exit(peers.run("homer", __doc__, {"homer": make}))
