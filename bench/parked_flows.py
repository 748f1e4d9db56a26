"""What a waiting call costs: octets per parked run, microseconds to start one and to resume it.

`ring_user` is the push wake-up scenario without the push: listen for registrations of the called address, relay, wait.
Run: python -m bench.parked_flows [count]
"""

from __future__ import annotations

import argparse
import gc
import os
import time
import tracemalloc
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gevent

import orchestrator.flow.actions  # noqa: F401  fills ACTIONS
from bench.figures import Figure
from orchestrator.events.bus import Bus
from orchestrator.events.event import Event
from orchestrator.events.registry import EventRegistry
from orchestrator.flow.language.program import Flow, Place, Program, Step, Trigger, Where
from orchestrator.flow.language.registry import ACTIONS
from orchestrator.flow.run.effects import Inject, Relay
from orchestrator.flow.run.engine import PENDING, FlowEngine, Run, Ticket
from orchestrator.timers import Timers

PLACE = Place("bench.flow.yaml", 1, 1)
MOST_OCTETS = 4_096.0
RELAY_RESULT = {"outcome": "answered", "code": 200, "reason": "OK", "contact": None, "gateway": None, "tried": []}


@dataclass(frozen=True, slots=True)
class Expression:
    """What the compiler makes: a function of the environment."""

    evaluate: Any
    source: str = ""


@dataclass(slots=True)
class BenchHost:
    """Relays wait, everything else is done at once."""

    tickets: list[Ticket] = field(default_factory=list)

    def perform(self, run: Run, ticket: Ticket, effect: Any) -> Any:
        if type(effect) is Relay:
            self.tickets.append(ticket)
            return PENDING
        return {"added": 1, "reason": ""} if type(effect) is Inject else None

    def names(self, program: Program) -> Mapping[str, Any]:
        return {}


def step(action: str, **args: Any) -> Step:
    return Step(ACTIONS[action], args, PLACE, source=action)


def constant(value: Any) -> Expression:
    return Expression(lambda env: value)


def wakeup() -> Flow:
    inject = step("inject", to=Expression(lambda env: env["event"]["uri"]))
    counted = step("set", values={"woken": Expression(lambda env: env["vars"]["woken"] + 1)})
    same_aor = Where({"aor": Expression(lambda env: env["call"]["to"]["aor"])}, None)
    unique = Expression(lambda env: env["event"]["contact"], "event.contact")
    listen = step(
        "subscribe",
        event="registered",
        where=same_aor,
        unique_by=unique,
        do=(inject, counted),
        **{"for": constant(20.0)},
    )
    relay = step("relay", to=constant("registered"), ring=constant(40.0), keep_open=constant(20.0), on={"else": ()})
    return Flow("ring_user", Trigger("invite"), (listen, relay), PLACE, vars={"woken": constant(0)})


def simple() -> Flow:
    return Flow("simple", Trigger("invite"), (step("relay", to=constant("registered")),), PLACE)


class Bench:
    """An engine with one flow and calls whose views cost nothing here."""

    def __init__(self, flow: Flow, count: int) -> None:
        self.timers = Timers()
        self.bus = Bus(self.timers)
        self.host = BenchHost()
        self.flow = flow
        self.engine = FlowEngine(Program((flow,), EventRegistry().specs), self.bus, self.timers, self.host)
        self.calls = [
            {"id": f"c{n}", "state": "new", "from": {"aor": "alice@example.com"}, "to": {"aor": f"u{n}@example.com"}}
            for n in range(count)
        ]
        self.runs: list[Run] = []

    def start(self) -> float:
        """Start a run for each call; microseconds each."""
        begun = time.perf_counter()
        for call in self.calls:
            self.runs.append(self.engine.start(self.flow, call=call))
        return (time.perf_counter() - begun) / len(self.calls) * 1e6

    def register(self) -> float:
        """One event for each, handled by its run; microseconds each."""
        events = [
            Event("registered", {"aor": f"u{n}@example.com", "contact": f"sip:u{n}@h", "uri": f"sip:u{n}@h"})
            for n in range(len(self.calls))
        ]
        begun = time.perf_counter()
        for event in events:
            assert self.bus.publish(event) == 1
        return (time.perf_counter() - begun) / len(self.calls) * 1e6

    def answer(self) -> float:
        """Resume each relay with an answer; microseconds each, to the end of the main steps."""
        begun = time.perf_counter()
        for ticket in self.host.tickets:
            self.engine.resume(ticket, RELAY_RESULT)
        return (time.perf_counter() - begun) / len(self.calls) * 1e6

    def end(self) -> float:
        """End each call; microseconds each, nothing is left."""
        begun = time.perf_counter()
        for run in self.runs:
            self.engine.call_ended(run, "caller", "normal")
        spent = (time.perf_counter() - begun) / len(self.calls) * 1e6
        assert not any(self.engine.live().values()), self.engine.live()
        return spent


def weight(flow: Flow, count: int) -> float:
    """Octets per parked run with all that belongs to it; the call's own view and the host's relay are not counted."""
    bench = Bench(flow, count)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    bench.start()
    octets = (tracemalloc.get_traced_memory()[0] - before) / count
    tracemalloc.stop()
    return octets


def greenlet_weight(count: int) -> float:
    """Octets resident per greenlet that waits for an event of its own: what a flow written as a function would be."""
    from gevent.event import Event as Happened

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    gc.collect()
    before = resident()
    waiting = [gevent.spawn(Happened().wait) for _ in range(count)]
    gevent.sleep(0)
    octets = (resident() - before) / count
    gevent.killall(waiting)
    return octets


def times(flow: Flow, count: int, *measures: str) -> dict[str, float]:
    """Microseconds of each measure, best of five."""
    best: dict[str, float] = {}
    for _ in range(5):
        bench = Bench(flow, count)
        gc.collect()
        gc.freeze()
        for measure in measures:
            spent = getattr(bench, measure)()
            best[measure] = min(best.get(measure, spent), spent)
        gc.unfreeze()
    return best


def figures(count: int = 10_000) -> Iterator[Figure]:
    """The push wake-up flow without the SIP below it."""
    flow = wakeup()
    found = times(flow, count, "start", "register")
    octets, greenlet = weight(flow, count), greenlet_weight(count)
    yield Figure("one parked flow, without its call", octets, "octets", most=MOST_OCTETS)
    yield Figure("the same beside a greenlet that waits for an event", octets / greenlet, "x")
    yield Figure("start a flow to its first wait", found["start"], "µs")
    yield Figure("event to the flow's next wait", found["register"], "µs")


QUICK = {"count": 2_000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", nargs="?", type=int, default=100_000)
    count = parser.parse_args().count
    for flow, measures in ((simple(), ("start", "answer", "end")), (wakeup(), ("start", "register", "answer", "end"))):
        found = times(flow, min(count, 10_000), *measures)
        shown = ", ".join(f"{name} {spent:.1f} µs" for name, spent in found.items())
        print(f"{flow.name}: {weight(flow, count):.0f} octets per parked run ({count} of them); {shown}")


if __name__ == "__main__":
    main()
