"""CPU and latency of a wake-up with few and with many calls parked, beside OpenSIPS; and what a parked call weighs.

Real servers, with 300, 10,000 and 30,000 calls that wait for phones which are not registered. In turn, phones of each
register, one at a time: the flow hears of it and sends the waiting INVITE on, the phone rings, the caller hears that.
The same number of phones wakes up in all, calls woken are ended and replaced outside of the measurement. So the CPU
per wake-up must not depend on how many others wait: a bus that searches its subscriptions grows with them. The same
for a REGISTER that nobody waits for, beside a server without calls.

OpenSIPS does the same with `notify_on_event` and `t_inject_branches` (bench/opensips.cfg) where the environment names
its program: `OPENSIPS=/usr/sbin/opensips`. It is started with `-a F_MALLOC`; its default allocator is one for
debugging, several times slower, and so is one built with -O0 (its Makefile.conf as it comes). Its configuration keeps
the fast one fast.

The weight of a parked call is the growth of resident memory while the calls are parked, after a first few hundred have
come and gone.

    python -m bench.wakeup [--counts 300 10000 30000] [--rounds 5]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.figures import Absent, Figure, middle, ratios, render
from bench.phones import Population
from bench.servers import HOST, OpenSips, Orchestrator, Server, on_core
from bench.waiting import Side
from orchestrator import BUILD

FLOW = """flowlang: 1
flows:
  park:
    on: invite
    do:
      - subscribe: registered
        where: {aor: '${call.target.aor}'}
        for: 1h
        do: [inject: '${event.uri}']
      - relay: {to: registered, ring: 1h, keep_open: 1h}
        on:
          busy: [reply: 486]
          else: [reply: 480]
"""
GROUP = 300
"""Phones woken in a round of one server."""

LIMITS = ("runs", "runs_per_flow", "transactions", "subscriptions", "bindings", "bindings_per_source")
MANY = 300_000
"""What each of these limits is raised to. No call is logged, as the peer logs none."""

MOST_GROWTH, MOST_MISSED, MOST_OCTETS, MOST_PARKING = 1.15, 1.1, 4_096.0, 1.5
BESIDE = {300: 1.3, 10_000: 0.3, 30_000: 0.12} if BUILD == "compiled" else {}
"""Calls that wait → CPU per wake-up of ours beside OpenSIPS that we mean to stay below."""


def open_side(stack: ExitStack, kind: type[Orchestrator] | type[OpenSips], waiting: int) -> Side[Population]:
    """Raises Skipped."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    server: Server
    if kind is OpenSips:
        server = stack.enter_context(OpenSips(folder))
    else:
        flow = folder / "park.flow.yaml"
        flow.write_text(FLOW)
        more = {"limits": dict.fromkeys(LIMITS, MANY), "log": {"level": "warning"}}
        server = stack.enter_context(Orchestrator(folder, [flow], more=more))
    phones = stack.enter_context(Population(HOST, (HOST, server.port)))
    return Side(server, phones, waiting)


def figures(counts: Sequence[int] = (300, 10_000, 30_000), rounds: int = 5) -> Iterator[Figure | Absent]:
    """Ratios of the CPU per wake-up, latencies, weight."""
    kinds: list[type[Orchestrator] | type[OpenSips]] = [Orchestrator]
    if OpenSips.program():
        kinds.append(OpenSips)
    else:
        yield Absent("OpenSIPS, the peer, is not installed", "OPENSIPS=<path of the program>, 3.4 or newer")
    with ExitStack() as stack:
        stack.enter_context(on_core(-1))
        sides = {kind: [open_side(stack, kind, waiting) for waiting in counts] for kind in kinds}
        idle = {kind: open_side(stack, kind, 0) for kind in kinds}
        for side in [side for row in zip(*sides.values(), strict=True) for side in row]:
            side.park(GROUP)
            side.wake(GROUP)
            side.park(side.waiting)
            side.parking.clear()
            side.forget()
        for number in range(rounds):
            for kind in kinds:
                for side in sides[kind]:
                    side.wake(GROUP)
                    weight = side.weight
                    side.park(GROUP)
                    side.weight = weight
                    spent = side.microseconds[-1]
                    print(
                        f"round {number + 1}: {side.server.name:12} {side.waiting:6} parked  {spent:5.0f} µs a wake-up",
                        file=sys.stderr,
                    )
                sides[kind][-1].miss(GROUP)
                idle[kind].miss(GROUP)
    yield from judge(sides[Orchestrator], idle[Orchestrator])
    if OpenSips in sides:
        yield from compare(sides[Orchestrator], sides[OpenSips], idle[OpenSips])


QUICK = {"counts": (300, 2_000), "rounds": 2}


def judge(sides: Sequence[Side[Population]], idle: Side[Population]) -> Iterator[Figure]:
    """Ours: the shapes, which must be flat."""
    few, many = sides[0], sides[-1]
    for side in sides[1:]:
        grown = ratios(side.microseconds, few.microseconds)
        most = MOST_GROWTH if side is many else None
        yield middle(f"CPU per wake-up, {side.waiting:,} calls parked beside {few.waiting}", grown, "x", most=most)
    missed = ratios(many.missed, idle.missed)
    yield middle(
        f"CPU per REGISTER that none of {many.waiting:,} waits for, beside none", missed, "x", most=MOST_MISSED
    )
    yield Figure("memory per parked call", many.weight, "octets", most=MOST_OCTETS)
    for side in sides:
        yield from side.figures()
    yield middle("CPU to park a call", many.parking, "µs")


def compare(
    ours: Sequence[Side[Population]], theirs: Sequence[Side[Population]], idle: Side[Population]
) -> Iterator[Figure]:
    """Beside OpenSIPS."""
    for mine, other in zip(ours, theirs, strict=True):
        beside = ratios(mine.microseconds, other.microseconds)
        most = BESIDE.get(mine.waiting)
        yield middle(f"CPU per wake-up beside OpenSIPS, {mine.waiting:,} calls parked", beside, "x", most=most)
    parking = ratios(ours[-1].parking, theirs[-1].parking)
    yield middle("CPU to park a call, beside OpenSIPS", parking, "x", most=MOST_PARKING)
    yield Figure("memory per parked call, beside OpenSIPS", ours[-1].weight / theirs[-1].weight, "x")
    many = theirs[-1]
    yield middle(
        f"OpenSIPS: CPU per REGISTER that none of {many.waiting:,} waits for", ratios(many.missed, idle.missed), "x"
    )
    for side in theirs:
        yield from side.figures()
    yield middle("OpenSIPS: CPU to park a call", many.parking, "µs")
    yield Figure("OpenSIPS: memory per parked call", many.weight, "octets")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[300, 10_000, 30_000], help="calls parked")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(render([("wakeup", list(figures(options.counts, options.rounds)))]))


if __name__ == "__main__":
    main()
