"""CPU per relayed call, beside Kamailio with the same job in the same run.

SIPp calls SIPp: INVITE, 180, 200, ACK, BYE, 200 to a registered callee, through the default flow (registrations in
memory, Record-Route, stateful), seven datagrams out for six in. Both servers run all the time, each round takes one
and then the other, and each round's calls are checked: none failed, no unexpected message. What a proxy keeps for a
while after a call (RFC 3261's 32 seconds) costs CPU later; it is waited for at the end and given separately.

The ratio depends on the rate. At a low one both pay for waking up, with caches that others have used meanwhile; the
more datagrams one wake-up finds, the more it is the work alone that counts, and there C is further ahead. So each
rate has a target of its own: 300 calls per second, and 2,400, which is as many as one core does in plain Python with
room to spare.

Over TCP and TLS the caller has one connection to the server, which opens one to the callee (registered over UDP).
Debian's SIPp speaks no TLS: tunnels lend it some (`bench.tls_tunnel`), which are no part of the servers.

    python -m bench.relay [--rates 300 2400] [--rounds 5] [--transport udp|tcp|tls]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from bench.figures import Figure, Skipped, middle, ratios, render
from bench.servers import (
    BEHIND,
    HOST,
    AnyProxy,
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
from orchestrator import BUILD
from orchestrator.testing.sipp import Sipp, SippResult, run_sipp, sipp_path

SCENARIOS = Path(__file__).parent / "sipp"
LINGER = 34.0
"""Seconds until nothing of a call is left: timer L and J of RFC 3261, 64*T1, and a little."""
TARGETS = {300: 2.5, 2_400: 2.0 if BUILD == "plain" else 1.3}
"""Rate → the ratio we mean to stay below."""
WARM = 300
"""Calls, in five seconds, before anything is measured."""
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
        self.service = "bob"
        """Whom the caller calls."""
        self.callee_port = free_port()
        self.contact = f"{HOST}:{self.callee_port}"
        self.caller = SCENARIOS / "uac.xml"
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
            with Sipp(
                self.caller,
                self.remote,
                transport=self.transport,
                folder=self.folder,
                calls=calls,
                rate=rate,
                host=HOST,
                port=free_port(),  # what is late of other calls does not come here
                seconds=seconds,
                service=self.service,
            ) as calling:
                caller = calling.wait(seconds + 10)
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


def figures(
    rates: Sequence[int] = (300, 2_400), rounds: int = 5, transport: str = "udp", linger: float = LINGER
) -> Iterator[Figure]:
    """The ratios and what they are made of. Raises Skipped."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sip = {"domains": [BEHIND]} if transport == "tls" else {}
        ours = stack.enter_context(Orchestrator(folder, transport=transport, sip=sip))
        theirs = stack.enter_context(Kamailio(folder, transport))
        pair = open_sides(stack, folder, [ours, theirs], transport)
        yield from lone_figures(pair, rates[0], rounds, TARGETS.get(rates[0]) if transport == "udp" else None, linger)
        for rate in rates[1:]:
            yield from faster_figures(pair, rate, rounds, TARGETS.get(rate) if transport == "udp" else None)
    for side in pair:
        yield Figure(f"{side.server.name}: retransmissions of SIPp", side.retransmissions, f"of {side.calls:,} calls")


QUICK = {"rates": (300, 1_000), "rounds": 2, "linger": 0.0}


def open_sides(stack: ExitStack, folder: Path, servers: Sequence[AnyProxy], transport: str = "udp") -> list[Round]:
    """Register a callee with each server and play once what is not measured. Raises Skipped."""
    if sipp_path() is None:
        raise Skipped("SIPp is not installed (Debian: sip-tester)")
    stack.enter_context(on_core(-1))  # the SIPps
    sides = []
    for server in servers:
        place = folder / f"sipp-{server.name}"
        place.mkdir()
        side = Round(server, server.port, place, transport)
        if transport == "tls":
            stack.enter_context(tunnels(side, folder, server.port))
        side.register()
        retry(partial(side.play, WARM, WARM // 5))  # what is done once: caches, memory
        sides.append(side)
    return sides


def lone_figures(
    pair: Sequence[Round], rate: int, rounds: int, target: float | None, linger: float = LINGER
) -> Iterator[Figure]:
    """The ratio at one rate, and with the work that comes when all calls are over."""
    begun = [(side.server.cpu(), side.calls) for side in pair]
    compared = measure(pair, rate, rounds)
    yield middle(f"CPU per relayed call at {rate:,} per second, beside Kamailio", compared, "x", most=target)
    for side in pair:
        yield middle(f"{side.server.name}: CPU per call at {rate:,} per second", side.microseconds, "µs")
    if not linger:
        return
    time.sleep(linger)
    whole = [
        (side.server.cpu() - cpu) / (side.calls - calls) * 1e6 for side, (cpu, calls) in zip(pair, begun, strict=True)
    ]
    yield Figure("the same with what lingers for 32 s", whole[0] / whole[1], "x")
    for side, total in zip(pair, whole, strict=True):
        yield Figure(f"{side.server.name}: with what lingers", total, "µs per call")


def faster_figures(pair: Sequence[Round], rate: int, rounds: int, target: float | None) -> Iterator[Figure]:
    """The ratio at another rate, where the machine has room for it."""
    try:
        compared = measure(pair, rate, rounds)
    except RuntimeError as error:
        print(f"no figure for {rate} calls per second: {error}", file=sys.stderr)
    else:
        yield middle(f"CPU per relayed call at {rate:,} per second, beside Kamailio", compared, "x", most=target)
        for side in pair:
            yield middle(f"{side.server.name}: CPU per call at {rate:,} per second", side.microseconds, "µs")


def measure(sides: Sequence[Round], rate: int, rounds: int) -> list[float]:
    """In turns; the ratio of the first to the second of each round. One disturbed by something else (a lost call) is
    played again, twice at most."""
    for side in sides:
        side.microseconds.clear()
    for number in range(rounds):
        for side in sides:
            spent = retry(partial(side.play, rate * SECONDS, rate))
            print(f"{rate}/s, round {number + 1}: {side.server.name:12} {spent:4.0f} µs per call", file=sys.stderr)
    return ratios(sides[0].microseconds, sides[1].microseconds)


def retry(play: Callable[[], float], times: int = 2) -> float:
    for _ in range(times):
        try:
            return play()
        except RuntimeError as error:
            print(f"played again, {error}", file=sys.stderr)
    return play()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", type=int, nargs="+", default=[300, 2_400], help="calls per second")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--transport", choices=("udp", "tcp", "tls"), default="udp")
    options = parser.parse_args()
    print(render([(f"relay {options.transport}", list(figures(options.rates, options.rounds, options.transport)))]))


if __name__ == "__main__":
    main()
