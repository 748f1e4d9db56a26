"""What a peer of an integration that is slow, gone and back does to SIP, beside a server without the integration.

Two servers relay calls of SIPp to SIPp. One has the integration, one has not; they take turns, in rounds of some
seconds, while the peer is up, slow, gone and back. Meanwhile a prober asks OPTIONS every few milliseconds: how long
the answers take is how late a turn of the server can be. The figures of each state stand beside those of the server
without it in the same minutes, since a shared machine drifts.

The rate is one at which the server with the integration is busy for `--busy` percent of a core, found by a few calls
before, unless `--rate` gives it: beyond that a machine shared with SIPp measures its own queues.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

from bench.figures import Figure, Skipped, middle, ratios, render
from bench.relay import SCENARIOS, Round
from bench.servers import HOST, Orchestrator, on_core, udp_bound, wait_until
from orchestrator.testing.sipp import Sipp, run_sipp, sipp_path

FLOW = "flowlang: 1\nflows:\n  calls:\n    on: invite\n    do: [relay: registered]\n"
"""Merely relays."""
EVERY = 0.01
"""Seconds between two probes."""
LATER = 1.5
"""p99 with the integration, beside p99 without it in the same minutes: what a busy machine makes of noise."""
STATES = ("up", "slow", "gone", "back")
BUSY = 60
"""Percent of a core."""
GENTLE = 60
"""Calls per second while the rate is looked for."""


class Peer(Protocol):
    """What the integration talks to."""

    def slow(self) -> None:
        """Take nothing, or late, from now on."""

    def leave(self) -> None:
        """Be gone: the connections end, and nobody listens."""

    def come_back(self) -> None:
        """Be as before."""


@dataclass(frozen=True)
class Trial:
    """One integration."""

    name: str
    peer: Peer
    more: Mapping[str, Any]
    """Sections of the configuration of the server that has it."""
    counters: Callable[[Orchestrator], Iterator[Figure]]
    """What the server has counted, at the end."""
    flow: str = FLOW
    """That this server runs; the other one merely relays."""


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


@dataclass
class Found:
    """Of one server in one state, a value for each round."""

    p99: list[float] = field(default_factory=list)
    """Milliseconds."""
    cpu: list[float] = field(default_factory=list)
    """Microseconds for each call."""
    failed: int = 0
    """Calls that were not answered: a machine that is busy with other things has the server refuse some."""


class Side:
    """A server that is called."""

    def __init__(self, server: Orchestrator, folder: Path) -> None:
        self.server = server
        self.phone = Round(server, server.port, folder)
        self.found = {state: Found() for state in STATES}

    def play(self, state: str, rate: int, seconds: int) -> None:
        prober = Prober((HOST, self.server.port))
        prober.start()
        try:
            cpu, failed = self.call(rate * seconds, rate)
        finally:
            seen = prober.finish()
        found = self.found[state]
        found.p99.append(statistics.quantiles(seen, n=100)[98] * 1000)
        found.cpu.append(cpu)
        found.failed += failed

    def call(self, calls: int, rate: int) -> tuple[float, int]:
        """Microseconds of the server's CPU for each call, and how many failed."""
        phone, seconds = self.phone, calls // rate + 20
        port = phone.callee_port
        with Sipp(SCENARIOS / "uas.xml", folder=phone.folder, calls=calls, host=HOST, port=port, seconds=seconds):
            wait_until(lambda: udp_bound(HOST, port), 10, "the callee does not listen")
            begun = self.server.cpu()
            result = run_sipp(
                SCENARIOS / "uac.xml", phone.proxy, folder=phone.folder, calls=calls, rate=rate, host=HOST,
                seconds=seconds,
            )  # fmt: skip
            return (self.server.cpu() - begun) / calls * 1e6, calls - result.successful


def metric(server: Orchestrator, name: str) -> float:
    """A number of a service, summed over its labels; `name` without what all of them begin with."""
    with urllib.request.urlopen(f"http://{HOST}:{server.admin_port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = re.findall(rf"^orchestrator_service_{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
    return sum(float(value) for value in found)


def measured(
    make: Callable[[ExitStack, Path], Trial], rate: int, seconds: int, rounds: int, busy: int = BUSY
) -> Iterator[Figure]:
    """`make(stack, folder)` sets the peer up; `rate` 0 looks for the one that makes the server so busy. Raises
    Skipped."""
    if sipp_path() is None:
        raise Skipped("SIPp is not installed (Debian: sip-tester)")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        with on_core(-1):  # the peers, and the SIPps below
            trial = make(stack, folder)
        sides = [
            _side(stack, folder / name, flow, more)
            for name, flow, more in (("without", FLOW, {}), ("with", trial.flow, trial.more))
        ]
        stack.enter_context(on_core(-1))
        for side in sides:
            side.phone.register()
            side.call(2 * GENTLE, GENTLE)  # what is done once: caches, memory
        rate = rate or max(GENTLE, int(busy * 1e4 / sides[1].call(4 * GENTLE, GENTLE)[0]))
        memory = [sides[1].server.memory() / 1e6]
        for state, change in zip(STATES, (None, trial.peer.slow, trial.peer.leave, trial.peer.come_back), strict=True):
            if change is not None:
                change()
            for number in range(rounds):
                for side in sides:
                    side.play(state, rate, seconds)
                cpu = [side.found[state].cpu[-1] for side in sides]
                told = (
                    f"{trial.name} {state}, round {number + 1}: CPU per call without {cpu[0]:.0f}, with {cpu[1]:.0f} µs"
                )
                print(told, file=sys.stderr)
            memory.append(sides[1].server.memory() / 1e6)
        counted = list(trial.counters(sides[1].server))
    yield from _compared(trial.name, sides, rate)
    for name, value in zip(("before", *STATES), memory, strict=True):
        yield Figure(f"resident memory, {name}", value, "MB")
    yield from counted


def _side(stack: ExitStack, folder: Path, text: str, more: Mapping[str, Any]) -> Side:
    folder.mkdir()
    flow = folder / "calls.flow.yaml"
    flow.write_text(text)
    return Side(stack.enter_context(Orchestrator(folder, [flow], more=more)), folder)


def _compared(name: str, sides: Sequence[Side], rate: int) -> Iterator[Figure]:
    without, ours = sides
    busy = statistics.median(value for found in without.found.values() for value in found.cpu) * rate / 1e4
    yield Figure(f"busy at {rate} calls/s without {name}", busy, "% of a core")
    for side, which in ((without, "without"), (ours, "with")):
        yield Figure(f"calls that failed {which}", sum(found.failed for found in side.found.values()), "")
    for state in STATES:
        base, found = without.found[state], ours.found[state]
        yield middle(f"{state}: busy", (cpu * rate / 1e4 for cpu in found.cpu), "% of a core")
        above = [cpu - plain for cpu, plain in zip(found.cpu, base.cpu, strict=True)]
        yield middle(f"{state}: CPU above that of a call without", above, "µs per call")
        yield middle(f"{state}: p99 of OPTIONS without", base.p99, "ms")
        yield middle(f"{state}: p99 of OPTIONS with", found.p99, "ms")
        yield middle(f"{state}: p99 with beside without", ratios(found.p99, base.p99), "x", most=LATER)


def run(name: str, doc: str | None, makers: Mapping[str, Callable[[ExitStack, Path], Trial]]) -> int:
    """A benchmark as a command; where there are several makers, their names are its argument."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.{name}", description=doc)
    parser.add_argument("--rate", type=int, default=0, help="calls per second; 0, the one that makes it --busy")
    parser.add_argument("--busy", type=int, default=BUSY, help="percent of a core")
    parser.add_argument("--seconds", type=int, default=5, help="length of a round")
    parser.add_argument("--rounds", type=int, default=3)
    if len(makers) > 1:
        parser.add_argument("what", nargs="*", choices=list(makers), default=list(makers), help="all unless given")
    options = parser.parse_args()
    rows = [
        (what, list(measured(makers[what], options.rate, options.seconds, options.rounds, options.busy)))
        for what in getattr(options, "what", None) or makers
    ]
    print(render(rows))
    return 0 if all(figure.met for _, found in rows for figure in found) else 1
