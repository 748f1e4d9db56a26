"""100,000 calls parked in one process: what each weighs, and the longest time that nobody was served meanwhile.

A real server parks calls for phones that are not registered (the flow of bench.wakeup), and a prober asks OPTIONS
every few milliseconds: the longest answer is the longest stall, the garbage collector's included, and so is whatever
else the machine did. The CPU that the server used during it stands beside it. When all are parked, phones register for
a while.

The weight of an answered transaction, which lingers for repetitions (RFC 3261 §17.2.2), is the growth of memory over
many refreshes of one registration.

    python -m bench.parked_calls [--calls 100000] [--answered 20000]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

from bench.figures import Figure, render
from bench.phones import Wire
from bench.servers import HOST, Orchestrator, on_core
from bench.wakeup import open_side

MOST_OCTETS, MOST_LINGERING, MOST_STALL = 4_096.0, 819.0, 20.0
EVERY = 0.005
"""Seconds between two probes."""
WAKE = 300
WARM = 500
"""Calls that come and go first."""


class Prober(threading.Thread):
    """Asks OPTIONS; `worst` is the longest wait for an answer, and the CPU seconds the server used meanwhile."""

    def __init__(self, server: Orchestrator) -> None:
        super().__init__(daemon=True)
        self.worst = (0.0, 0.0)
        self.waits: list[float] = []
        self._begun = time.monotonic()
        self._server = server
        self._wire = Wire(HOST, (HOST, server.port))
        self._over = threading.Event()

    def run(self) -> None:
        number = 0
        while not self._over.wait(EVERY):
            number += 1
            cpu, begun = self._server.cpu(), time.perf_counter()
            self._wire.send(
                b"OPTIONS sip:%b SIP/2.0\r\nVia: SIP/2.0/UDP %b;branch=z9hG4bKo%d\r\nMax-Forwards: 70\r\n"
                b"From: <sip:probe@example.com>;tag=p\r\nTo: <sip:%b>\r\nCall-ID: probe-%d\r\nCSeq: 1 OPTIONS\r\n"
                b"Content-Length: 0\r\n\r\n"
                % (self._wire.server, self._wire.address, number, self._wire.server, number)
            )
            self._wire.receive(b"SIP/2.0 ")
            waited = time.perf_counter() - begun
            self.waits.append(waited)
            used = self._server.cpu() - cpu
            if (waited, used) > self.worst:
                self.worst = waited, used
                at = time.monotonic() - self._begun
                print(f"after {at:.1f} s: {waited * 1e3:.0f} ms, of CPU {used * 1e3:.0f} ms", file=sys.stderr)

    def finish(self) -> None:
        self._over.set()
        self.join()
        self._wire.close()


def lingering(server: Orchestrator, count: int) -> float:
    """Octets of resident memory per answered REGISTER of one phone."""
    wire = Wire(HOST, (HOST, server.port))

    def refresh(first: int, last: int) -> None:
        for number in range(first, last):
            wire.send(
                b"REGISTER sip:%b SIP/2.0\r\nVia: SIP/2.0/UDP %b;branch=z9hG4bKl%d\r\nMax-Forwards: 70\r\n"
                b"From: <sip:one@%b>;tag=l\r\nTo: <sip:one@%b>\r\nCall-ID: linger\r\nCSeq: %d REGISTER\r\n"
                b"Contact: <sip:one@%b>\r\nExpires: 3600\r\nContent-Length: 0\r\n\r\n"
                % (wire.server, wire.address, number, wire.server, wire.server, number, wire.address)
            )
            wire.receive(b"SIP/2.0 200 ")

    refresh(1, WARM)
    before = server.memory()
    begun = time.monotonic()
    refresh(WARM, WARM + count)
    print(f"{count} refreshes in {time.monotonic() - begun:.0f} s, of which 32 s linger", file=sys.stderr)
    lived = min(1.0, 32.0 / (time.monotonic() - begun))
    wire.close()
    return (server.memory() - before) / (count * lived)


def figures(calls: int = 100_000, answered: int = 20_000) -> Iterator[Figure]:
    """The weights and the stall."""
    with ExitStack() as stack:
        stack.enter_context(on_core(-1))
        side = open_side(stack, Orchestrator, calls)
        assert isinstance(side.server, Orchestrator)
        yield Figure(
            "an answered transaction that lingers", lingering(side.server, answered), "octets", most=MOST_LINGERING
        )
        side.park(WARM)
        side.wake(WARM)
        prober = Prober(side.server)
        prober.start()
        side.park(calls)
        side.wake(min(WAKE, calls))
        prober.finish()
    waits = sorted(prober.waits)
    yield Figure(f"memory per parked call, {calls:,} parked", side.weight, "octets", most=MOST_OCTETS)
    yield Figure("longest answer meanwhile", prober.worst[0] * 1e3, "ms", most=MOST_STALL)
    yield Figure("CPU of the server during it", prober.worst[1] * 1e3, "ms")
    yield Figure("median answer meanwhile", statistics.median(waits) * 1e3, "ms")
    yield Figure("99.9 % of the answers within", waits[int(len(waits) * 0.999)] * 1e3, "ms")
    yield Figure("CPU to park a call", side.parking[-1], "µs")


QUICK = {"calls": 3_000, "answered": 3_000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--answered", type=int, default=20_000)
    options = parser.parse_args()
    print(render([("parked_calls", list(figures(options.calls, options.answered)))]))


if __name__ == "__main__":
    main()
