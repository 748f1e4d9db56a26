"""What 100,000 stored registrations cost: the refresh of one beside a server with 1,000, and the start.

Two real servers with SQLite, one with 1,000 bindings, one with 100,000, which were stored before they started. In
turns, phones refresh their registrations, one at a time, each another one: every 200 is sent when the change is on
disk. The start is the time from the command to `ready`, beside one with an empty store, in turns.

    python -m bench.registrar [--few 1000] [--many 100000] [--rounds 5]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from bench.figures import Figure, middle, ratios, render
from bench.phones import Wire
from bench.servers import HOST, Orchestrator, on_core
from orchestrator.sip.binding import Binding, Change
from orchestrator.store.sqlite import SqliteStore

GROUP = 500
"""Refreshes in a round of one server."""
MOST, MOST_START = 1.2, 3.0
BATCH = 1_000
"""Bindings to a transaction of SQLite, before the start."""
LASTS = 7_200
FILE = "registrations.db"


def contact(number: int) -> bytes:
    return b"sip:user%d@192.0.2.%d:5060" % (number, number % 250 + 1)


def fill(folder: Path, count: int) -> None:
    """Store so many bindings, one for each of `user0` …"""
    store = SqliteStore(folder / FILE)
    now = time.time()
    for first in range(0, count, BATCH):
        bindings = [
            Binding(
                f"user{number}@example.com", contact(number), now + LASTS, call_id=b"reg-%d" % number, cseq=1,
                user_agent="Bench Phone 5.10.3", registered_at=now, source=HOST, received=("192.0.2.250", 5062),
            )
            for number in range(first, min(first + BATCH, count))
        ]  # fmt: skip
        store.write([Change("added", binding) for binding in bindings])
    store.close()


def serve(folder: Path) -> Orchestrator:
    """A server on what is stored there."""
    limits = {"bindings": 300_000, "bindings_per_source": 300_000}
    return Orchestrator(folder, more={"location": f"sqlite:///{folder / FILE}", "limits": limits})


class Side:
    """One server, and the phones that are stored there."""

    def __init__(self, stack: ExitStack, count: int) -> None:
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.count = count
        fill(self.folder, count)
        self.server = stack.enter_context(serve(self.folder))
        self.wire = Wire(HOST, (HOST, self.server.port))
        self.microseconds: list[float] = []
        self.milliseconds: list[float] = []
        """From REGISTER to 200, medians of each round."""
        self._sent = 0

    def refresh(self, count: int) -> None:
        begun = self.server.cpu()
        waited = []
        for _ in range(count):
            self._sent += 1
            number = self._sent * 7_919 % self.count  # all over the file
            before = time.perf_counter()
            self.wire.send(
                b"REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP %b;branch=z9hG4bKr%d\r\nMax-Forwards: 70\r\n"
                b"From: <sip:user%d@example.com>;tag=r\r\nTo: <sip:user%d@example.com>\r\nCall-ID: reg-%d\r\n"
                b"CSeq: %d REGISTER\r\nContact: <%b>\r\nExpires: %d\r\nUser-Agent: Bench Phone 5.10.3\r\n"
                b"Content-Length: 0\r\n\r\n"
                % (
                    self.wire.address, self._sent, number, number, number, self._sent + 1, contact(number), LASTS,
                )
            )  # fmt: skip
            self.wire.receive(b"SIP/2.0 200 ")
            waited.append(time.perf_counter() - before)
        self.microseconds.append((self.server.cpu() - begun) / count * 1e6)
        self.milliseconds.append(sorted(waited)[count // 2] * 1e3)


def started(folder: Path) -> tuple[float, float]:
    """Seconds until a server serves, and of its CPU."""
    begun = time.monotonic()
    with serve(folder) as server:
        return time.monotonic() - begun, server.cpu()


def figures(few: int = 1_000, many: int = 100_000, rounds: int = 5) -> Iterator[Figure]:
    """The refresh, then the start."""
    with ExitStack() as stack:
        stack.enter_context(on_core(-1))
        sides = [Side(stack, count) for count in (few, many)]
        for side in sides:  # once outside of the figures
            side.refresh(GROUP)
            side.microseconds.clear()
            side.milliseconds.clear()
        for number in range(rounds):
            for side in sides:
                side.refresh(GROUP)
                print(f"round {number + 1}: {side.count:7,} {side.microseconds[-1]:5.0f} µs", file=sys.stderr)
        little, much = sides
        compared = ratios(much.microseconds, little.microseconds)
        yield middle(f"CPU per refresh, {many:,} bindings in SQLite beside {few:,}", compared, "x", most=MOST)
        for side in sides:
            yield middle(f"CPU per refresh, {side.count:,} bindings", side.microseconds, "µs")
            yield middle(f"REGISTER to 200, {side.count:,} bindings", side.milliseconds, "ms")
        yield Figure(f"resident memory, {many:,} bindings", much.server.memory() / 1e6, "MB")
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory() as empty:
        full = Path(name)
        fill(full, many)
        starts = [(started(full), started(Path(empty))) for _ in range(max(2, rounds // 2))]
    yield middle(f"start with {many:,} stored", (wall for (wall, _), _ in starts), "s", most=MOST_START)
    yield middle(f"CPU of a start with {many:,} stored", (cpu for (_, cpu), _ in starts), "s")
    yield middle("the same with none", (cpu for _, (_, cpu) in starts), "s")


QUICK = {"many": 10_000, "rounds": 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--few", type=int, default=1_000)
    parser.add_argument("--many", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(render([("registrar", list(figures(options.few, options.many, options.rounds)))]))


if __name__ == "__main__":
    main()
