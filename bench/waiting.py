"""Servers with calls that wait for phones: to park calls, to wake phones, and what both cost.

What `bench.wake` and `bench.wakeup` share. The calls parked first are woken first, and nobody is called twice, so that
each REGISTER is a phone's first one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Generic, TypeVar

from bench.figures import Figure, middle
from bench.phones import Population
from bench.servers import Server

P = TypeVar("P", bound=Population)

WINDOW = 8
"""INVITEs, or REGISTERs of the beginning, under way at one time."""


class Side(Generic[P]):
    """One server with `waiting` calls for sleeping phones, and what its rounds have measured."""

    def __init__(self, server: Server, phones: P, waiting: int) -> None:
        self.server = server
        self.phones = phones
        self.waiting = waiting
        self.microseconds: list[float] = []
        """CPU per wake-up, of each round."""
        self.parking: list[float] = []
        """CPU microseconds per parked call, of each round."""
        self.missed: list[float] = []
        """CPU microseconds per REGISTER that no call waits for, of each round."""
        self.latencies: list[float] = []
        """Seconds from REGISTER to INVITE, of each phone."""
        self.weight = 0.0
        """Octets of resident memory per parked call, the last time that they were parked."""
        self._next = self._first = 0

    def park(self, count: int) -> None:
        """Park so many more calls."""
        numbers = range(self._next, self._next + count)
        self._next += count
        begun, memory = self.server.cpu(), self.server.memory()
        self.phones.park(numbers, WINDOW, lambda parked: None)
        self.parking.append((self.server.cpu() - begun) / count * 1e6)
        self.weight = (self.server.memory() - memory) / count

    def wake(self, count: int) -> None:
        """Wake the calls parked first, one at a time, and measure it; then end them."""
        numbers = range(self._first, self._first + count)
        self._first += count
        begun = self.server.cpu()
        woken = [self.phones.wake(number) for number in numbers]
        self.microseconds.append((self.server.cpu() - begun) / count * 1e6)
        self.latencies += [seconds for seconds, _ in woken]
        for _, invite in woken:
            self.phones.refuse(invite)

    def miss(self, count: int) -> None:
        """REGISTERs of phones that no call waits for."""
        begun = self.server.cpu()
        self.phones.enrol_guests(count)
        self.missed.append((self.server.cpu() - begun) / count * 1e6)

    def forget(self) -> None:
        """Leave the warm-up out of the figures."""
        self.microseconds.clear()
        self.parking.clear()
        self.latencies.clear()

    def latency(self, part: float) -> float:
        """Milliseconds from REGISTER to INVITE: a quantile."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * part))] * 1e3

    def figures(self) -> Iterator[Figure]:
        """CPU and latency of its wake-ups."""
        name = f"{self.server.name}: wake-up, {self.waiting:,} waiting"
        yield middle(f"{name}: CPU", self.microseconds, "µs")
        yield Figure(f"{name}: REGISTER to INVITE, median", self.latency(0.5), "ms")
        yield Figure(f"{name}: REGISTER to INVITE, 99 %", self.latency(0.99), "ms")


def changed(flow: Path, changes: Mapping[str, str], folder: Path) -> Path:
    """A copy of a flow with some texts changed: for everybody, and with waits of which none runs out."""
    text = flow.read_text()
    for shipped, ours in changes.items():
        assert shipped in text, f"{flow.name} has no {shipped!r}"
        text = text.replace(shipped, ours)
    copy = folder / flow.name
    copy.write_text(text)
    return copy
