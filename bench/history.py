"""What the history of calls costs a call of a flow of one step.

INVITE, 180, 200, ACK, BYE, 200 go through the core as the reactor drives it, without sockets. Engines take calls by
turns, one with a history, one without messages, one without any.

    python -m bench.history [--calls 2000] [--rounds 7]
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random
from time import thread_time

from bench.figures import Figure, render
from orchestrator.core.engine import Engine
from orchestrator.core.settings import CoreSettings
from orchestrator.flow.loader import load_program
from orchestrator.history import MessageIn, MessageOut
from orchestrator.sip.location import Binding, Location
from orchestrator.sip.points import Hop, ListenPoint
from orchestrator.store.memory import MemoryStore
from orchestrator.views.call_history import CallHistory, HistoryBounds

FLOW = "flowlang: 1\nflows:\n  main:\n    on: invite\n    do:\n      - relay: registered\n"
MOST = 20.0
"""Per cent that the history may add to a call that does nothing else; measured 13, without messages 5 to 6."""
QUICK = {"calls": 200, "rounds": 2}
BATCH = 20
"""Calls of one side in a row."""
SDP = b"v=0\r\no=- 1 1 IN IP4 10.0.0.2\r\ns=-\r\nc=IN IP4 10.0.0.2\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0 8 101\r\n" * 2
REQUEST = (
    b"%b sip:%b SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.2:5060;branch=z9hG4bK%d%b;rport\r\nMax-Forwards: 70\r\n%b"
    b"From: <sip:alice@example.com>;tag=a%d\r\nTo: <sip:bob@example.com>%b\r\nCall-ID: call%d@10.0.0.2\r\n"
    b"CSeq: %d %b\r\nContact: <sip:alice@10.0.0.2:5060>\r\nUser-Agent: Bench\r\nContent-Length: %d\r\n\r\n%b"
)


class Side:
    """One engine and what drives it."""

    def __init__(self, folder: Path, bounds: HistoryBounds | None) -> None:
        path = folder / "main.flow.yaml"
        path.write_text(FLOW)
        location = Location(MemoryStore())
        point = ListenPoint("10.0.0.1", 5060)
        settings = CoreSettings(points=(point,), domains=("example.com",), entropy=Random(1).randbytes)
        self.engine = Engine(settings, location, load_program([path])[0])
        location.save(
            "bob@example.com", [Binding("bob@example.com", b"sip:bob@10.0.0.3:5060", 1e12, call_id=b"x", cseq=1)], 0.0
        )
        self.history = CallHistory(self.engine, bounds) if bounds is not None else None
        self.alice, self.bob = (Hop(self.engine.network.points[0], f"10.0.0.{n}", 5060) for n in (2, 3))
        self.now = 1.0
        self.seconds = 0.0

    def turn(self, data: bytes, hop: Hop) -> list[bytes]:
        """As `Reactor.receive` does; returns what leaves."""
        engine, history, now = self.engine, self.engine.history, self.now
        began = thread_time()
        if MessageIn in history.told:
            history.tell(MessageIn.at(data, hop, now))
        wire = history.wire
        if wire is not None:
            wire(True, data, hop, now)
        engine.receive(data, hop, now)
        out = engine.datagrams
        for sent, destination in out:
            if MessageOut in history.told:
                history.tell(MessageOut.at(sent, destination, now))
            wire = history.wire
            if wire is not None:
                wire(False, sent, destination, now)
        self.seconds += thread_time() - began
        left = [sent for sent, _ in out]
        out.clear()
        return left

    def call(self, number: int) -> None:
        """One call, from its INVITE to its last answer."""

        def request(method: bytes, uri: bytes, cseq: int, body: bytes, to: bytes = b"", route: bytes = b"") -> bytes:
            return REQUEST % (method, uri, number, method, route, number, to, number, cseq, method, len(body), body)

        invite = self.turn(request(b"INVITE", b"bob@example.com", 1, SDP), self.alice)[-1]
        self.turn(answer(invite, b"180 Ringing"), self.bob)
        ok = self.turn(answer(invite, b"200 OK", SDP), self.bob)[-1]
        route = ok.partition(b"Record-Route: ")[2].partition(b"\r\n")[0]
        inside = (b";tag=b", b"Route: %b\r\n" % route)
        self.turn(request(b"ACK", b"bob@10.0.0.3:5060", 1, b"", *inside), self.alice)
        bye = self.turn(request(b"BYE", b"bob@10.0.0.3:5060", 2, b"", *inside), self.alice)[-1]
        (last,) = self.turn(answer(bye, b"200 OK"), self.bob)
        assert last.startswith(b"SIP/2.0 200 OK"), last
        self.now += 0.001


def answer(request: bytes, status: bytes, body: bytes = b"") -> bytes:
    """What bob says to a request that came to him."""
    lines = request.split(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    kept = [
        line for line in lines if line.split(b":")[0] in (b"Via", b"Record-Route", b"From", b"To", b"Call-ID", b"CSeq")
    ]
    kept = [line + b";tag=b" if line.startswith(b"To:") and b"tag=" not in line else line for line in kept]
    kept += [b"Contact: <sip:bob@10.0.0.3:5060>", b"Content-Length: %d" % len(body), b"", body]
    return b"\r\n".join((b"SIP/2.0 " + status, *kept))


def figures(calls: int = 2_000, rounds: int = 7) -> Iterator[Figure]:
    """Microseconds of a call without a history, and what it adds, in per cent: of the quieter half of many short rounds
    by turns, for the machine is not alone."""
    with tempfile.TemporaryDirectory() as folder:
        sides = {
            "without": Side(Path(folder), None),
            "with": Side(Path(folder), HistoryBounds()),
            "no messages": Side(Path(folder), HistoryBounds(messages=False)),
        }
        gc.disable()
        number, times = 0, {name: list[float]() for name in sides}
        for _ in range(rounds):
            for _ in range(calls // BATCH):
                for name, side in sides.items():
                    side.seconds = 0.0
                    for _ in range(BATCH):
                        number += 1
                        side.call(number)
                    times[name].append(side.seconds / BATCH * 1e6)
            for side in sides.values():
                side.now += 40.0
                side.engine.run_timers(side.now)
            gc.collect()
        gc.enable()
    quiet = {name: statistics.fmean(sorted(found)[: len(found) // 2]) for name, found in times.items()}
    yield Figure("a call without a history", quiet["without"], "µs")
    for name, most in (("with", MOST), ("no messages", None)):
        yield Figure(f"what the history adds ({name})", 100 * (quiet[name] / quiet["without"] - 1), "%", most=most)


QUICK = {"calls": 400, "rounds": 3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    found = list(figures(args.calls, args.rounds))
    print(render([("history", found)]))
    sys.exit(not all(figure.met for figure in found))


if __name__ == "__main__":
    main()
