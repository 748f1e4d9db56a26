"""CPU per call of a one-step flow with a subscription, beside Kamailio with the same job in Python (KEMI, app_python3).

Ours runs a flow that listens for late phones of the called address and relays to those that are registered; Kamailio
runs bench/kamailio_kemi.py: look up, record the route, relay, and no subscription, which it does not have. Its native
configuration (bench/kamailio.cfg) and our default flow, without a flow file, stand beside them, all in turns.

    python -m bench.one_step [--rates 300 600] [--rounds 5]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.figures import Absent, Figure, Skipped, middle, ratios, render
from bench.relay import measure, open_sides
from bench.servers import AnyProxy, Kamailio, KamailioPython, Orchestrator
from orchestrator import BUILD

FLOW = """flowlang: 1
flows:
  late:
    on: invite
    do:
      - subscribe: registered
        where: {aor: '${call.target.aor}'}
        do: [inject: '${event.uri}']
      - relay: {to: registered, ring: 60s, keep_open: 30s}
        on: {else: [reply: 480]}
"""
MOST = 1.2 if BUILD == "compiled" else None


class OneStep(Orchestrator):
    name = "one step"


def figures(rates: Sequence[int] = (300, 600), rounds: int = 5) -> Iterator[Figure | Absent]:
    """Ours beside each of the others. Raises Skipped."""
    with ExitStack() as stack:
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(5)]
        flow = folders[0] / "late.flow.yaml"
        flow.write_text(FLOW)
        # No call is logged: Kamailio logs none.
        ours = OneStep(folders[0], [flow], more={"log": {"level": "warning"}})
        servers: list[AnyProxy] = [stack.enter_context(ours), stack.enter_context(Orchestrator(folders[1]))]
        for kind, folder in ((KamailioPython, folders[2]), (Kamailio, folders[3])):
            try:
                servers.append(stack.enter_context(kind(folder)))
            except Skipped as reason:
                yield Absent(str(reason), f"the peer {kind.name}")
        if len(servers) == 2:
            raise Skipped("no Kamailio to compare with")
        sides = open_sides(stack, folders[4], servers)
        for rate in rates:
            measure(sides, rate, rounds)
            mine = sides[0]
            yield middle(f"one-step flow: CPU per call at {rate:,} per second", mine.microseconds, "µs")
            for other in sides[1:]:
                name = "our default flow" if other is sides[1] else other.server.name
                most = MOST if other.server.name == KamailioPython.name else None
                compared = ratios(mine.microseconds, other.microseconds)
                yield middle(f"the same at {rate:,} per second beside {name}", compared, "x", most=most)
                yield middle(f"{name}: CPU per call at {rate:,} per second", other.microseconds, "µs")


QUICK = {"rates": (300,), "rounds": 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", type=int, nargs="+", default=[300, 600])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(render([("one_step", list(figures(options.rates, options.rounds)))]))


if __name__ == "__main__":
    main()
