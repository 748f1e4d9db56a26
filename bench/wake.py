"""Phones that all wake up within a second: does each ring once, how long after its REGISTER, at which cost each?

Two real servers run the push wake-up flow as it is shipped, `relay: {wake: …}`, and push to an HTTP service on
loopback. In each round 300 calls are parked in the one and 1,000 in the other, for phones that sleep, and then all
phones of it register, a thousand a second: each is called and rings, and the caller hears that. Every phone must get
one INVITE. CPU is the server's alone, from the first REGISTER to the last 180.

    python -m bench.wake [--few 300] [--many 1000] [--rate 1000] [--rounds 5]
"""

from __future__ import annotations

import argparse
import select
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from bench.figures import Figure, middle, ratios, render
from bench.phones import PATIENCE, Population, answer, number_of
from bench.push import PushService
from bench.servers import HOST, ROOT, Orchestrator, on_core, wait_until
from bench.waiting import Side, changed

FLOW = ROOT / "flows" / "push_wakeup.flow.yaml"
CHANGES = {
    "wake: 20s": "wake: 4m",
    "ring: 40s": "ring: 5m",
    "    when: call.target.user in groups.mobile\n": "",
}
"""The flow as it is shipped, but for everybody, and with waits of which none runs out while it is measured."""
PUSHED_WITHIN = 30.0
AWAKE = 1.0
"""Seconds that the server takes a phone to be awake after its REGISTER."""
REPEAT = 0.5
"""Seconds after which a phone that was not called registers once more; twice as long the next time (RFC 3261
§17.1.2.2)."""
LINGER = 0.7
"""Seconds to wait for INVITEs too many: more than one repetition takes."""
MOST_RATIO = 1.3


class Sleepers(Population):
    """`user0` … `user<n>`, each with a phone that names a push service."""

    def __init__(self, host: str, server: tuple[str, int]) -> None:
        super().__init__(host, server)
        self._registers = 0
        self.repeated = 0
        """REGISTERs that were lost on the way, or refused for overload."""

    def register(self, number: int) -> None:
        """user<number>'s phone sends a REGISTER."""
        self._registers += 1
        me, server, n = self.phones.address, self.phones.server, self._registers
        self.phones.send(
            b"REGISTER sip:%b SIP/2.0\r\nVia: SIP/2.0/UDP %b;branch=z9hG4bKr%d\r\nMax-Forwards: 70\r\n"
            b"From: <sip:user%d@%b>;tag=r%d\r\nTo: <sip:user%d@%b>\r\nCall-ID: reg-%d@%b\r\nCSeq: %d REGISTER\r\n"
            b"Contact: <sip:user%d@%b;pn-provider=acme;pn-param=app;pn-prid=token%d>\r\nExpires: 3600\r\n"
            b"User-Agent: Bench Phone 5.10.3\r\nContent-Length: 0\r\n\r\n"
            % (server, me, n, number, server, n, number, server, number, me, n, number, me, number)
        )

    def enrol(self, count: int) -> None:
        """Register for the first time, a few at a time."""
        for number in range(count):
            self.register(number)
            self.phones.receive(b"SIP/2.0 200 ")

    def storm(self, count: int, rate: float) -> tuple[list[float], dict[int, bytes]]:
        """All register, so many a second, and ring when they are called; seconds from REGISTER to INVITE, and the
        INVITE of each. Raises AssertionError where one is called twice, TimeoutError where one is not."""
        sent: dict[int, float] = {}
        invites: dict[int, bytes] = {}
        branches: dict[int, set[bytes]] = defaultdict(set)
        latencies: list[float] = []
        heard: set[int] = set()
        begun = time.perf_counter()
        pause = REPEAT
        repeat = begun + count / rate + pause
        while len(heard) < count or time.perf_counter() < begun + count / rate + LINGER:
            now = time.perf_counter()
            if now > begun + count / rate + PATIENCE:
                raise TimeoutError(
                    f"{len(invites)} phones were called and {len(heard)} callers heard it ring, of {count}"
                )
            while len(sent) < count and now >= begun + len(sent) / rate:
                sent[len(sent)] = time.perf_counter()
                self.register(len(sent) - 1)
            if len(sent) == count and now >= repeat:
                pause = min(2 * pause, 4.0)
                repeat = now + pause
                for number in sent.keys() - invites.keys():
                    self.repeated += 1
                    self.register(number)
            ready, _, _ = select.select([self.phones.socket, self.callers.socket], [], [], 0.5 / rate)
            for wire in ready:
                octets = wire.recv(65_535)
                if octets.startswith(b"INVITE "):
                    number = number_of(octets)
                    branches[number].add(octets.partition(b"branch=")[2].partition(b"\r\n")[0])
                    if number not in invites:
                        latencies.append(time.perf_counter() - sent[number])
                        invites[number] = octets
                    self.phones.send(answer(octets, b"180 Ringing"))  # a repeated INVITE, too
                elif octets.startswith(b"SIP/2.0 180 "):
                    heard.add(number_of(octets))
        twice = [number for number, found in branches.items() if len(found) > 1]
        assert not twice, f"called more than once: {twice[:10]}"
        return latencies, invites


class Storm(Side[Sleepers]):
    """One server with `waiting` calls in each round, whose phones all wake up at once."""

    def __init__(self, server: Orchestrator, phones: Sleepers, push: PushService, waiting: int) -> None:
        super().__init__(server, phones, waiting)
        self.push = push

    def round(self, rate: float) -> None:
        """Park, wake all, refuse all."""
        time.sleep(AWAKE + 0.1)
        self._next = 0  # the same phones again
        before = self.push.pushes
        self.park(self.waiting)
        wait_until(lambda: self.push.pushes - before >= self.waiting, PUSHED_WITHIN, "pushes are missing")
        begun = self.server.cpu()
        latencies, invites = self.phones.storm(self.waiting, rate)
        self.microseconds.append((self.server.cpu() - begun) / self.waiting * 1e6)
        self.latencies += latencies
        for invite in invites.values():
            self.phones.refuse(invite)
        assert self.push.pushes - before == self.waiting, "phones were pushed more than once"


def open_side(stack: ExitStack, flow: Path, waiting: int) -> Storm:
    push = stack.enter_context(PushService(HOST))
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    services = {"acme": {"type": "http", "provider": "acme", "url": push.url, "json": {"to": "${push.token}"}}}
    settings = {"services": services, "awake": f"{AWAKE:g}s", "per_phone": 1000}
    server = stack.enter_context(Orchestrator(folder, [flow], more={"push": settings}))
    phones = stack.enter_context(Sleepers(HOST, (HOST, server.port)))
    phones.enrol(waiting)
    return Storm(server, phones, push, waiting)


def figures(few: int = 300, many: int = 1_000, rate: float = 1_000.0, rounds: int = 5) -> Iterator[Figure]:
    """Latency, and the CPU per wake-up of both."""
    with ExitStack() as stack:
        flow = changed(FLOW, CHANGES, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        stack.enter_context(on_core(-1))
        sides = [open_side(stack, flow, waiting) for waiting in (few, many)]
        for side in sides:  # once outside of the figures
            side.round(rate)
            side.forget()
            side.phones.repeated = 0
        for number in range(rounds):
            for side in sides:
                side.round(rate)
                spent = side.microseconds[-1]
                print(f"round {number + 1}: {side.waiting:6} wake up  {spent:4.0f} µs each", file=sys.stderr)
    little, much = sides
    compared = ratios(much.microseconds, little.microseconds)
    yield middle(f"CPU per wake-up, {many:,} at once beside {few}", compared, "x", most=MOST_RATIO)
    yield Figure("REGISTERs that had to be repeated", float(sum(side.phones.repeated for side in sides)))
    for side in sides:
        yield from side.figures()


QUICK = {"many": 600, "rounds": 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--few", type=int, default=300, help="calls parked in the first server")
    parser.add_argument("--many", type=int, default=1_000, help="calls parked in the second one")
    parser.add_argument("--rate", type=float, default=1_000.0, help="phones that wake up in a second")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    found = figures(options.few, options.many, options.rate, options.rounds)
    print(render([("wake", list(found))]))


if __name__ == "__main__":
    main()
