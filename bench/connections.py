"""Memory of idle connections: so many stand at a time, each has been served once, and then says nothing.

    python -m bench.connections [--connections 10000]

Octets resident per connection, over TCP and TLS, and how long a call beside them takes to be answered. What the kernel
keeps for a socket is not in it.
"""

from __future__ import annotations

import argparse
import resource
import socket
import ssl
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.figures import Figure, Skipped, render
from bench.servers import HOST, Orchestrator, certificate

OPTIONS = (
    b"OPTIONS sip:%b SIP/2.0\r\nVia: SIP/2.0/TCP 192.0.2.1;branch=z9hG4bK%d\r\nMax-Forwards: 70\r\n"
    b"From: <sip:a@example.com>;tag=%d\r\nTo: <sip:example.com>\r\nCall-ID: %d\r\nCSeq: 1 OPTIONS\r\n"
    b"Content-Length: 0\r\n\r\n"
)
SETTLES = 35.0
"""Seconds until the transactions of the first requests are gone: 64*T1 and a little."""
SAMPLES = 50


def _connect(number: int, port: int, context: ssl.SSLContext | None) -> socket.socket:
    """A connection from an address that it shares with few, served once."""
    source = f"127.{10 + number // 62_500}.{number // 250 % 250}.{number % 250 + 1}"
    sock: socket.socket = socket.create_connection((HOST, port), 30, (source, 0))
    if context is not None:
        sock = context.wrap_socket(sock, server_hostname=HOST)
    _ask(sock, number)
    return sock


def _ask(sock: socket.socket, number: int) -> float:
    """Seconds until it is answered."""
    begun = time.monotonic()
    sock.sendall(OPTIONS % (HOST.encode(), number, number, number))
    if not sock.recv(4096).startswith(b"SIP/2.0 "):
        raise RuntimeError("a connection was not served")
    return time.monotonic() - begun


def _measure(folder: Path, transport: str, connections: int) -> Iterator[Figure]:
    context = ssl.create_default_context(cafile=str(certificate(folder)[0])) if transport == "tls" else None
    settings = {"streams": {"connections": connections + 100}, "trust": ["127.0.0.0/8"]}
    with Orchestrator(folder, transport=transport, sip=settings) as server:
        socks = [_connect(number, server.port, context) for number in range(100)]
        before = server.memory()
        begun, cpu = time.monotonic(), server.cpu()
        try:
            socks += [_connect(number, server.port, context) for number in range(100, 100 + connections)]
            took = time.monotonic() - begun
            time.sleep(SETTLES)
            yield Figure(f"{transport}: resident per connection", (server.memory() - before) / connections, "octets")
            yield Figure(f"{transport}: connections a second, handshake included", connections / took, "/s")
            yield Figure(f"{transport}: CPU per connection", (server.cpu() - cpu) / connections * 1e6, "µs")
            idle = server.cpu()
            time.sleep(2)
            yield Figure(f"{transport}: CPU while all are idle", (server.cpu() - idle) / 2 * 100, "% of a core")
            times = [_ask(socks[number], 10**6 + number) for number in range(SAMPLES)]
            yield Figure(f"{transport}: median answer beside them", statistics.median(times) * 1e3, "ms")
        finally:
            for sock in socks:
                sock.close()


def figures(connections: int = 10_000) -> Iterator[Figure]:
    """Of TCP, then of TLS. Raises Skipped."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < connections + 300:
        raise Skipped(f"the system allows {hard} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for transport in ("tcp", "tls"):
        with tempfile.TemporaryDirectory() as folder:
            yield from _measure(Path(folder), transport, connections)


QUICK = {"connections": 1_000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=10_000)
    options = parser.parse_args()
    print(render([("connections", list(figures(options.connections)))]))


if __name__ == "__main__":
    main()
