"""CPU per relayed call, beside Kamailio with the same job in the same run.

SIPp calls SIPp: INVITE, 180, 200, ACK, BYE, 200 to a registered callee, through the default flow (registrations in
memory, Record-Route, stateful), seven datagrams out for six in. Both servers run all the time, each round takes one
and then the other, and each round's calls are checked: none failed, no unexpected message. What a proxy keeps for a
while after a call (RFC 3261's 32 seconds) costs CPU later; it is waited for at the end and given separately.

The ratio depends on the rate. At a low one both pay for waking up, with caches that others have used meanwhile; the
more datagrams one wake-up finds, the more it is the work alone that counts, and there C is further ahead. So the
target holds for one rate, 300 calls per second, and the ratio at twice that rate stands beside it.

    python -m bench.relay [--rate 300] [--rounds 5]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from bench.figures import Figure, Skipped, render
from bench.servers import HOST, Kamailio, Orchestrator, Server, free_port, on_core, udp_bound, wait_until
from orchestrator.testing.sipp import Sipp, SippResult, run_sipp, sipp_path

SCENARIOS = Path(__file__).parent / "sipp"
LINGER = 34.0
"""Seconds until nothing of a call is left: timer L and J of RFC 3261, 64*T1, and a little."""
TARGET = 2.5
SECONDS = 4
"""Length of a round."""


class Round:
    """One server with a callee of its own, called again and again."""

    def __init__(self, server: Server, port: int, folder: Path) -> None:
        self.server = server
        self.proxy = f"{HOST}:{port}"
        self.folder = folder
        self.callee_port = free_port()
        self.microseconds: list[float] = []
        self.calls = 0
        self.retransmissions = 0

    def register(self) -> None:
        contact = {"contact": f"{HOST}:{self.callee_port}"}
        result = run_sipp(
            SCENARIOS / "register.xml", self.proxy, folder=self.folder, host=HOST, keys=contact, seconds=10
        )
        require_clean(self.server.name, result)

    def play(self, calls: int, rate: int) -> float:
        """Make calls; microseconds of the server's CPU for each. Raises RuntimeError when one was not as it should."""
        seconds = calls // rate + 20
        with Sipp(
            SCENARIOS / "uas.xml", folder=self.folder, calls=calls, host=HOST, port=self.callee_port, seconds=seconds
        ) as callee:
            wait_until(lambda: udp_bound(HOST, self.callee_port), 5, "the callee does not listen")
            begun = self.server.cpu()
            caller = run_sipp(
                SCENARIOS / "uac.xml",
                self.proxy,
                folder=self.folder,
                calls=calls,
                rate=rate,
                host=HOST,
                seconds=seconds,
            )
            spent = (self.server.cpu() - begun) / calls * 1e6
            require_clean(self.server.name, caller)  # the callee still waits where a call did not reach it
            answered = callee.wait(10)
            require_clean(self.server.name, answered)
        self.calls += calls
        self.retransmissions += caller.retransmissions + answered.retransmissions
        self.microseconds.append(spent)
        return spent


def require_clean(server: str, result: SippResult) -> None:
    if not result.clean:
        raise RuntimeError(f"calls through {server} were not clean: {result.problems}")


def figures(rate: int = 300, rounds: int = 5) -> Iterator[Figure]:
    """The ratio and what it is made of. Raises Skipped."""
    if sipp_path() is None:
        raise Skipped("SIPp is not installed (Debian: sip-tester)")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ours = stack.enter_context(Orchestrator(folder))
        theirs = stack.enter_context(Kamailio(folder))
        stack.enter_context(on_core(-1))  # the SIPps
        pair = [Round(ours, ours.port, folder), Round(theirs, theirs.port, folder)]
        for side in pair:
            side.register()
            side.play(rate, rate)  # what is done once: caches, memory
        yield from lone_figures(pair, rate, rounds)
        yield from faster_figures(pair, 2 * rate)
    for side in pair:
        yield Figure(f"{side.server.name}: retransmissions of SIPp", side.retransmissions, f"of {side.calls:,} calls")


def lone_figures(pair: Sequence[Round], rate: int, rounds: int) -> Iterator[Figure]:
    """The ratio at one rate, and with the work that comes when all calls are over."""
    begun = [(side.server.cpu(), side.calls) for side in pair]
    ratios = measure(pair, rate, rounds)
    time.sleep(LINGER)
    whole = [
        (side.server.cpu() - cpu) / (side.calls - calls) * 1e6 for side, (cpu, calls) in zip(pair, begun, strict=True)
    ]
    yield Figure(
        f"CPU per relayed call at {rate} per second, beside Kamailio", statistics.median(ratios), "x", most=TARGET
    )
    yield Figure("the same with what lingers for 32 s", whole[0] / whole[1], "x")
    for side, total in zip(pair, whole, strict=True):
        yield Figure(f"{side.server.name}: median round", statistics.median(side.microseconds), "µs per call")
        yield Figure(f"{side.server.name}: with what lingers", total, "µs per call")


def faster_figures(pair: Sequence[Round], rate: int) -> Iterator[Figure]:
    """The ratio at another rate, where the machine has room for it."""
    try:
        ratios = measure(pair, rate, 3)
    except RuntimeError as error:
        print(f"no figure for {rate} calls per second: {error}", file=sys.stderr)
    else:
        yield Figure(f"the same at {rate} per second", statistics.median(ratios), "x")


def measure(pair: Sequence[Round], rate: int, rounds: int) -> list[float]:
    """Alternate; the ratio of each round. One disturbed by something else (a lost call) is played again, once."""
    for side in pair:
        side.microseconds.clear()
    for number in range(rounds):
        for side in pair:
            spent = retry(partial(side.play, rate * SECONDS, rate))
            print(f"{rate}/s, round {number + 1}: {side.server.name:12} {spent:4.0f} µs per call", file=sys.stderr)
    ours, theirs = pair
    return [mine / other for mine, other in zip(ours.microseconds, theirs.microseconds, strict=True)]


def retry(play: Callable[[], float]) -> float:
    try:
        return play()
    except RuntimeError as error:
        print(f"played again, {error}", file=sys.stderr)
    return play()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=300, help="calls per second")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(render([("relay", list(figures(options.rate, options.rounds)))]))


if __name__ == "__main__":
    main()
