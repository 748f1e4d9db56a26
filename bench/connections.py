"""Memory of idle connections: so many stand at a time, each has been served once, and then says nothing.

    python -m bench.connections [--connections 10000]

Octets resident per connection, over TCP and TLS, and how long a request beside them takes to be answered; then the same
of Kamailio. What the kernel
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

from bench.figures import Absent, Figure, Skipped, render
from bench.servers import HOST, Kamailio, Orchestrator, Server, certificate

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


def _measure(server: Server, folder: Path, transport: str, connections: int) -> dict[str, float]:
    """What so many idle connections cost this server, by the words of the table."""
    context = ssl.create_default_context(cafile=str(certificate(folder)[0])) if transport == "tls" else None
    socks = [_connect(number, server.port, context) for number in range(100)]
    before = server.memory()
    begun, cpu = time.monotonic(), server.cpu()
    try:
        socks += [_connect(number, server.port, context) for number in range(100, 100 + connections)]
        took = time.monotonic() - begun
        time.sleep(SETTLES)
        octets = (server.memory() - before) / connections
        each = (server.cpu() - cpu) / connections * 1e6
        idle = server.cpu()
        time.sleep(2)
        busy = (server.cpu() - idle) / 2 * 100
        times = [_ask(socks[number], 10**6 + number) for number in range(SAMPLES)]
    finally:
        for sock in socks:
            sock.close()
    return {
        "resident per connection|octets": octets,
        "connections a second, handshake included|/s": connections / took,
        "CPU per connection|µs": each,
        "CPU while all are idle|% of a core": busy,
        "median answer beside them|ms": statistics.median(times) * 1e3,
    }


def _compared(transport: str, connections: int) -> Iterator[Figure | Absent]:
    """Ours, and Kamailio's where it is installed."""
    found: dict[str, dict[str, float]] = {}
    settings = {"streams": {"connections": connections + 100}, "trust": ["127.0.0.0/8"]}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Orchestrator(folder, transport=transport, sip=settings) as ours:
            found[""] = _measure(ours, folder, transport, connections)
        try:
            with Kamailio(folder, transport) as theirs:
                found["Kamailio: "] = _measure(theirs, folder, transport, connections)
        except Skipped as reason:
            yield Absent(str(reason), "the peer")
    for server, values in found.items():
        for words, value in values.items():
            label, _, unit = words.partition("|")
            yield Figure(f"{server}{transport}: {label}", value, unit)
    if len(found) == 2:
        ours_, theirs_ = found.values()
        for words in list(ours_)[:3:2]:
            yield Figure(f"{transport}: {words.partition('|')[0]}, beside Kamailio", ours_[words] / theirs_[words], "x")


def figures(connections: int = 10_000) -> Iterator[Figure | Absent]:
    """Of TCP, then of TLS. Raises Skipped."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < connections + 300:
        raise Skipped(f"the system allows {hard} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for transport in ("tcp", "tls"):
        yield from _compared(transport, connections)


QUICK = {"connections": 1_000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=10_000)
    options = parser.parse_args()
    print(render([("connections", list(figures(options.connections)))]))


if __name__ == "__main__":
    main()
