"""CPU and latency of a push wake-up with few and with many calls parked, and what a parked call weighs.

Two real servers run the push wake-up flow, one with 300 calls waiting for phones that sleep, one with 10,000. In turn,
phones of both register, one at a time: the flow hears of it and sends the waiting INVITE on, the phone rings, the
caller hears that. The same number of phones wakes up in both, calls woken are ended and replaced outside of the
measurement, and so are the pushes: the service answers at once and each call is parked before the next round begins.
So the CPU per wake-up must not depend on how many others wait. A bus that searches its subscriptions grows with them.

The weight of a parked call is the growth of resident memory while the calls of the second server are parked, after a
first few hundred have come and gone.

    python -m bench.wakeup [--few 300] [--many 10000] [--rounds 5]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from bench.figures import Figure, render
from bench.phones import Population
from bench.push import PushService
from bench.servers import HOST, ROOT, Orchestrator, on_core, wait_until

FLOW = ROOT / "docs" / "flows" / "push_by_hand.flow.yaml"
PATIENCE = (
    ("for: 20s", "for: 1h"),
    ("ring: 40s", "ring: 1h"),
    ("keep_open: 20s", "keep_open: 1h"),
    ("    when: call.target.user in groups.mobile\n", ""),
)
"""The flow of docs/push.md, but for everybody, and with waits of which none runs out while it is measured."""

WINDOW = 8
"""INVITEs under way while calls are parked."""
PUSHES_UNDER_WAY = 40
"""Pushes the server may lag behind while calls are parked; with more it would rightly call itself overloaded."""
PUSHED_WITHIN = 30.0

MOST_RATIO, MOST_OCTETS = 1.3, 8_192.0


class Side:
    """One server with `waiting` parked calls, woken in groups of the same size on all sides."""

    def __init__(self, server: Orchestrator, population: Population, push: PushService, waiting: int) -> None:
        self.server = server
        self.population = population
        self.push = push
        self.waiting = waiting
        self.microseconds: list[float] = []
        self.latencies: list[float] = []
        self.parking = 0.0
        self._next = self._first = 0

    def park(self, count: int) -> None:
        """Park so many more calls; returns when all pushes are through."""
        before = self.push.pushes

        def keep_up(parked: int) -> None:
            wait_until(lambda: parked - (self.push.pushes - before) < PUSHES_UNDER_WAY, PUSHED_WITHIN, "pushes hang")

        numbers = range(self._next, self._next + count)
        self._next += count
        begun = self.server.cpu()
        self.population.park(numbers, WINDOW, keep_up)
        wait_until(lambda: self.push.pushes - before >= count, PUSHED_WITHIN, "pushes are missing")
        self.parking = (self.server.cpu() - begun) / count * 1e6

    def wake(self, count: int) -> None:
        """Wake the calls parked first and measure it; then end them."""
        numbers = range(self._first, self._first + count)
        self._first += count
        begun = self.server.cpu()
        woken = [self.population.wake(number) for number in numbers]
        self.microseconds.append((self.server.cpu() - begun) / count * 1e6)
        self.latencies += [seconds for seconds, _ in woken]
        for _, invite in woken:
            self.population.refuse(invite)

    def forget(self) -> None:
        """Leave the warm-up out of the figures."""
        self.microseconds.clear()
        self.latencies.clear()

    def latency(self, quantile: float) -> float:
        """Milliseconds from REGISTER to INVITE."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * quantile))] * 1e3


def patient_flow(folder: Path) -> Path:
    """A copy of the flow whose waits outlast the benchmark."""
    text = FLOW.read_text()
    for shipped, patient in PATIENCE:
        assert shipped in text, f"{FLOW.name} has no {shipped!r}"
        text = text.replace(shipped, patient)
    copy = folder / FLOW.name
    copy.write_text(text)
    return copy


def open_side(stack: ExitStack, flow: Path, waiting: int) -> Side:
    push = stack.enter_context(PushService(HOST))
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    server = stack.enter_context(Orchestrator(folder, [flow], {"PUSH_URL": push.url, "PUSH_KEY": "bench"}))
    population = stack.enter_context(Population(HOST, (HOST, server.port)))
    return Side(server, population, push, waiting)


def figures(few: int = 300, many: int = 10_000, rounds: int = 5) -> Iterator[Figure]:
    """Ratio of the CPU per wake-up, latencies, weight."""
    group = min(few, 300)
    with ExitStack() as stack:
        flow = patient_flow(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        stack.enter_context(on_core(-1))
        sides = [open_side(stack, flow, waiting) for waiting in (few, many)]
        for side in sides:
            side.park(group)
            side.wake(group)
            side.forget()
        weight = fill(sides)
        for number in range(rounds):
            for side in sides:
                side.wake(group)
                side.park(group)
                spent = side.microseconds[-1]
                print(f"round {number + 1}: {side.waiting:6} parked  {spent:4.0f} µs per wake-up", file=sys.stderr)
    yield from judge(sides[0], sides[1], weight)


def fill(sides: list[Side]) -> float:
    """Park what each side is to have; octets of resident memory per call of the last one."""
    weight = 0.0
    for side in sides:
        before = side.server.memory()
        side.park(side.waiting)
        weight = (side.server.memory() - before) / side.waiting
    return weight


def judge(few: Side, many: Side, weight: float) -> Iterator[Figure]:
    ratios = [more / less for less, more in zip(few.microseconds, many.microseconds, strict=True)]
    yield Figure(
        f"CPU per wake-up, {many.waiting:,} calls parked beside {few.waiting}",
        statistics.median(ratios),
        "x",
        most=MOST_RATIO,
    )
    yield Figure("memory per parked call", weight, "octets", most=MOST_OCTETS)
    for side in (few, many):
        yield Figure(f"{side.waiting:,} parked: CPU", statistics.median(side.microseconds), "µs per wake-up")
        yield Figure(f"{side.waiting:,} parked: REGISTER to INVITE, median", side.latency(0.5), "ms")
        yield Figure(f"{side.waiting:,} parked: REGISTER to INVITE, 99 %", side.latency(0.99), "ms")
    yield Figure("CPU to park a call, its push included", many.parking, "µs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--few", type=int, default=300, help="calls parked in the first server")
    parser.add_argument("--many", type=int, default=10_000, help="calls parked in the second one")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(render([("wakeup", list(figures(options.few, options.many, options.rounds)))]))


if __name__ == "__main__":
    main()
