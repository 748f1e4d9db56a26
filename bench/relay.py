"""CPU per relayed call, beside Kamailio with the same job in the same run.

SIPp calls SIPp: INVITE, 180, 200, ACK, BYE, 200 to a registered callee, through the default flow (registrations in
memory, Record-Route, stateful), seven datagrams out for six in. Both servers run all the time, each round takes one
and then the other, and each round's calls are checked: none failed, no unexpected message. What a proxy keeps for a
while after a call (RFC 3261's 32 seconds) costs CPU later; it is waited for at the end and given separately.

The ratio depends on the rate. At a low one both pay for waking up, with caches that others have used meanwhile; the
more datagrams one wake-up finds, the more it is the work alone that counts, and there C is further ahead. So the
target holds for one rate, 300 calls per second, and the ratio at twice that rate stands beside it.

Over TCP and TLS the caller has one connection to the server, which opens one to the callee (registered over UDP).
Debian's SIPp speaks no TLS: tunnels lend it some (`bench.tls_tunnel`), which are no part of the servers.

    python -m bench.relay [--rate 300] [--rounds 5] [--transport udp|tcp|tls]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from bench.figures import Figure, Skipped, render
from bench.servers import (
    BEHIND,
    HOST,
    Kamailio,
    Orchestrator,
    Server,
    certificate,
    free_port,
    on_core,
    tcp_bound,
    udp_bound,
    wait_until,
)
from bench.tls_tunnel import callee_behind, tunnel
from orchestrator.testing.sipp import Sipp, SippResult, run_sipp, sipp_path

SCENARIOS = Path(__file__).parent / "sipp"
LINGER = 34.0
"""Seconds until nothing of a call is left: timer L and J of RFC 3261, 64*T1, and a little."""
TARGET = 2.5
SECONDS = 4
"""Length of a round."""


class Round:
    """One server with a callee of its own, called again and again."""

    def __init__(self, server: Server, port: int, folder: Path, transport: str = "udp") -> None:
        self.server = server
        self.proxy = f"{HOST}:{port}"
        self.remote = f"{BEHIND}:{port}" if transport == "tls" else self.proxy
        """Where the caller connects to."""
        self.folder = folder
        self.transport = "u1" if transport == "udp" else "t1"
        self.callee_port = free_port()
        self.contact = f"{HOST}:{self.callee_port}"
        self.scenario = SCENARIOS / "uas.xml"
        if transport == "tcp":
            self.contact += ";transport=tcp"
        elif transport == "tls":
            self.contact = f"{BEHIND}:{self.callee_port};transport=tls"
            self.scenario = callee_behind(folder, self.contact)
        self.microseconds: list[float] = []
        self.calls = 0
        self.retransmissions = 0

    def register(self) -> None:
        contact = {"contact": self.contact}
        result = run_sipp(
            SCENARIOS / "register.xml", self.proxy, folder=self.folder, host=HOST, keys=contact, seconds=10
        )
        require_clean(self.server.name, result)

    def play(self, calls: int, rate: int) -> float:
        """Make calls; microseconds of the server's CPU for each. Raises RuntimeError when one was not as it should."""
        seconds = calls // rate + 20
        with Sipp(
            self.scenario,
            folder=self.folder,
            calls=calls,
            host=HOST,
            port=self.callee_port,
            seconds=seconds,
            transport=self.transport,
        ) as callee:
            bound = udp_bound if self.transport == "u1" else tcp_bound
            wait_until(lambda: bound(HOST, self.callee_port), 5, "the callee does not listen")
            begun = self.server.cpu()
            caller = run_sipp(
                SCENARIOS / "uac.xml",
                self.remote,
                transport=self.transport,
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


@contextmanager
def tunnels(side: Round, folder: Path, port: int) -> Iterator[None]:
    """TLS for the SIPps of one server."""
    public, key = certificate(folder)
    with (
        tunnel("out", str(public), side.remote, side.proxy),
        tunnel("in", str(public), str(key), f"{BEHIND}:{side.callee_port}", f"{HOST}:{side.callee_port}"),
    ):
        yield


def figures(rate: int = 300, rounds: int = 5, transport: str = "udp") -> Iterator[Figure]:
    """The ratio and what it is made of. Raises Skipped."""
    if sipp_path() is None:
        raise Skipped("SIPp is not installed (Debian: sip-tester)")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sip = {"domains": [BEHIND]} if transport == "tls" else {}
        ours = stack.enter_context(Orchestrator(folder, transport=transport, sip=sip))
        theirs = stack.enter_context(Kamailio(folder, transport))
        stack.enter_context(on_core(-1))  # the SIPps
        folders = [folder / server.name for server in (ours, theirs)]
        for each in folders:
            each.mkdir()
        pair = [
            Round(server, server.port, each, transport) for server, each in zip((ours, theirs), folders, strict=True)
        ]
        for side, server in zip(pair, (ours, theirs), strict=True):
            if transport == "tls":
                stack.enter_context(tunnels(side, folder, server.port))
        for side in pair:
            side.register()
            side.play(rate, rate)  # what is done once: caches, memory
        yield from lone_figures(pair, rate, rounds, TARGET if transport == "udp" else None)
        yield from faster_figures(pair, 2 * rate)
    for side in pair:
        yield Figure(f"{side.server.name}: retransmissions of SIPp", side.retransmissions, f"of {side.calls:,} calls")


def lone_figures(pair: Sequence[Round], rate: int, rounds: int, target: float | None) -> Iterator[Figure]:
    """The ratio at one rate, and with the work that comes when all calls are over."""
    begun = [(side.server.cpu(), side.calls) for side in pair]
    ratios = measure(pair, rate, rounds)
    time.sleep(LINGER)
    whole = [
        (side.server.cpu() - cpu) / (side.calls - calls) * 1e6 for side, (cpu, calls) in zip(pair, begun, strict=True)
    ]
    yield Figure(
        f"CPU per relayed call at {rate} per second, beside Kamailio", statistics.median(ratios), "x", most=target
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
    parser.add_argument("--transport", choices=("udp", "tcp", "tls"), default="udp")
    options = parser.parse_args()
    print(render([(f"relay {options.transport}", list(figures(options.rate, options.rounds, options.transport)))]))


if __name__ == "__main__":
    main()
