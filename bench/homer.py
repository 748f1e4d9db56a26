"""SIP latency and memory while every message is sent to a HEP receiver that reads, hangs, is gone and is back.

SIPp calls SIPp at a rate, a flow relays; meanwhile a prober asks OPTIONS every few milliseconds and notes how long
each answer takes. One server sends nothing, the other one sends HEP over TCP to a receiver of ours; rounds take turns.
Counters are read from /metrics at the end: every packet was sent, dropped or waits.

    python -m bench.homer [--rate 500] [--seconds 6] [--rounds 2]
"""

from __future__ import annotations

import argparse
import re
import socket
import statistics
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from time import monotonic, sleep

from bench.figures import Figure, Skipped, render
from bench.relay import Round
from bench.servers import HOST, Orchestrator, free_port, on_core
from orchestrator.testing.sipp import sipp_path

FLOW = "flowlang: 1\nflows:\n  calls:\n    on: invite\n    do: [relay: registered]\n"
BUFFER = 4_000_000
EVERY = 0.01
"""Seconds between two probes."""
LATER = 1.5
"""p99 with HEP, beside p99 without it in the same run: what a busy machine makes of noise."""


class Receiver:
    """A TCP server that counts the packets it reads; `reads` and `listens` say what it does now."""

    def __init__(self) -> None:
        self.port = free_port(socket.SOCK_STREAM)
        self.packets = 0
        self.reads = True
        self._connections: list[socket.socket] = []
        self.listen()

    def listen(self) -> None:
        self._listener = socket.create_server((HOST, self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def leave(self) -> None:
        """Gone: the connection ends, and nobody listens."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            connection.close()
        self._connections.clear()

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
                while not self.reads:
                    sleep(0.05)
                octets = connection.recv(1 << 18)
                if not octets:
                    return
                rest += octets
                while len(rest) >= 6 and len(rest) >= (length := int.from_bytes(rest[4:6])):
                    self.packets += 1
                    rest = rest[length:]
        except OSError:
            pass


class Prober(threading.Thread):
    """Asks OPTIONS one after the other; `seconds` are the times of the answers."""

    def __init__(self, proxy: tuple[str, int]) -> None:
        super().__init__(daemon=True)
        self.seconds: list[float] = []
        self.lost = 0
        self._proxy = proxy
        self._over = threading.Event()

    def run(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((HOST, 0))
            sock.settimeout(1)
            number = 0
            while not self._over.wait(EVERY):
                number += 1
                sock.sendto(self._question(sock.getsockname()[1], number), self._proxy)
                begun = monotonic()
                try:
                    sock.recv(65_536)
                    self.seconds.append(monotonic() - begun)
                except TimeoutError:
                    self.lost += 1

    def _question(self, port: int, number: int) -> bytes:
        host, proxy = f"{HOST}:{port}", "{}:{}".format(*self._proxy)
        return (
            f"OPTIONS sip:{proxy} SIP/2.0\r\nVia: SIP/2.0/UDP {host};rport;branch=z9hG4bKprobe{number}\r\n"
            f"From: <sip:probe@{host}>;tag=p\r\nTo: <sip:{proxy}>\r\nCall-ID: probe-{port}-{number}\r\n"
            f"CSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
        ).encode()

    def finish(self) -> list[float]:
        self._over.set()
        self.join()
        return self.seconds


def p99(values: list[float]) -> float:
    """In milliseconds."""
    return statistics.quantiles(values, n=100)[98] * 1000


def metric(server: Orchestrator, name: str) -> float:
    with urllib.request.urlopen(f"http://{HOST}:{server.admin_port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = re.search(rf"^orchestrator_service_{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found is not None else 0.0


def figures(rate: int = 500, seconds: int = 6, rounds: int = 2) -> Iterator[Figure]:
    """Raises Skipped."""
    if sipp_path() is None:
        raise Skipped("SIPp is not installed (Debian: sip-tester)")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        receiver = Receiver()
        flow = folder / "calls.flow.yaml"
        flow.write_text(FLOW)
        hep = {"hep": {"address": f"tcp:{HOST}:{receiver.port}", "buffer": BUFFER}}
        sides = []
        for name, services in (("plain", {}), ("hep", hep)):
            place = folder / name
            place.mkdir()
            server = stack.enter_context(Orchestrator(place, [flow], more={"services": services}))
            sides.append((server, Round(server, server.port, place)))
        stack.enter_context(on_core(-1))
        for _, side in sides:
            side.register()
            side.play(rate, rate)
        (plain, without), (ours, with_hep) = sides

        def latency(server: Orchestrator, side: Round) -> tuple[float, float]:
            prober = Prober((HOST, server.port))
            prober.start()
            cpu = side.play(rate * seconds, rate)
            return p99(prober.finish()), cpu

        base = [latency(plain, without) for _ in range(rounds)]
        reads = [latency(ours, with_hep) for _ in range(rounds)]
        receiver.reads = False
        hangs = [latency(ours, with_hep) for _ in range(rounds)]
        full = metric(ours, "hep_buffer_octets")
        receiver.leave()
        receiver.reads = True
        gone = [latency(ours, with_hep) for _ in range(rounds)]
        memory = server.memory() / 1e6
        receiver.listen()
        back = [latency(ours, with_hep) for _ in range(rounds)]
        base += [latency(plain, without) for _ in range(rounds)]
        sleep(3)
        sent, dropped = (metric(ours, f"hep_packets_{name}_total") for name in ("sent", "dropped"))
        waiting = metric(ours, "hep_buffer_octets")
        handled, lost = metric(ours, "events_handled_total"), metric(ours, "events_dropped_total")
    before = statistics.median(value for value, _ in base)
    yield Figure(f"p99 of OPTIONS at {rate} calls/s without HEP", before, "ms")
    yield Figure("CPU per call without HEP", statistics.median(cpu for _, cpu in base), "µs")
    for name, found in (("reads", reads), ("hangs", hangs), ("is gone", gone), ("is back", back)):
        value = statistics.median(value for value, _ in found)
        yield Figure(f"p99 while the receiver {name}", value, "ms")
        yield Figure(f"beside that without HEP, {name}", value / before, "x", most=LATER)
        yield Figure(f"CPU per call while it {name}", statistics.median(cpu for _, cpu in found), "µs")
    yield Figure("octets that waited while it hung", full, "", most=BUFFER)
    yield Figure("resident memory while it was gone", memory, "MB")
    yield Figure("packets sent", sent, "")
    yield Figure("packets the receiver has read", receiver.packets, "")
    yield Figure("packets dropped", dropped, "")
    yield Figure("octets waiting at the end", waiting, "", most=0)
    yield Figure("facts taken", handled, "")
    yield Figure("facts lost before they were encoded", lost, "", most=0)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.homer", description=__doc__)
    parser.add_argument("--rate", type=int, default=500)
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    found = list(figures(options.rate, options.seconds, options.rounds))
    print(render([("homer", found)]))
    return 0 if all(figure.met for figure in found) else 1


if __name__ == "__main__":
    sys.exit(main())
