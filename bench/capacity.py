"""Calls per core without loss, beside Kamailio and, where it is installed, sippy: a ladder of rates.

Each server has one core, SIPp the other. A rung is `--seconds` of calls at one rate; it holds when every call succeeds
and nothing is repeated. A rung that fails is tried once more, since one stall of the machine is not the server's; the
ladder of a server ends with the first that fails twice, or with SIPp's own ceiling, which is named.

sippy's B2BUA (`pip install sippy`) is two user agents, more than a proxy: its figure says what Python costs where
every message is made of objects, not who is better.

    python -m bench.capacity [--seconds 4] [--first 100] [--last 6000]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from bench.figures import Absent, Figure, render
from bench.relay import Round, open_sides, retry
from bench.servers import HOST, AnyProxy, Kamailio, Orchestrator, Sippy, free_port

STEP = 1.25
LEAST = 0.8
ANSWER = '  <send retrans="500">\n    <![CDATA[\n\n      SIP/2.0 200 OK'
PAUSE = '  <pause milliseconds="50"/>\n'
"""Before the answer of sippy's callee: sippy may hand on a 200 before the 180 that came right before it."""


def rungs(first: int, last: int) -> Sequence[int]:
    """Rates, each a quarter above the one before, in tens."""
    found = [float(first)]
    while found[-1] * STEP <= last:
        found.append(found[-1] * STEP)
    return [round(rate / 10) * 10 for rate in found]


def holds(side: Round, rate: int, seconds: int) -> bool:
    """Whether all calls of a rung succeed, nothing repeated, in one of two tries."""
    for _ in range(2):
        before = side.retransmissions
        try:
            spent = side.play(rate * seconds, rate)
        except (RuntimeError, TimeoutError) as error:
            print(f"{side.server.name}: {rate}/s: {str(error).splitlines()[0]}", file=sys.stderr)
            continue
        repeated = side.retransmissions - before
        print(f"{side.server.name}: {rate}/s: {spent:.0f} µs per call, {repeated} repeated", file=sys.stderr)
        if not repeated:
            return True
    return False


def climb(side: Round, ladder: Sequence[int], seconds: int) -> int:
    """The highest rate that holds; 0 where none does."""
    best = 0
    for rate in ladder:
        if not holds(side, rate, seconds):
            break
        best = rate
    return best


def sippy_side(stack: ExitStack, folder: Path) -> Round:
    """A callee behind sippy. Its Contact has a display name without quotes, which SIPp makes a bad request line of:
    ACK and BYE go to the called URI; and it refuses `;transport=UDP`."""
    hop = free_port()
    side = Round(stack.enter_context(Sippy(folder, f"{HOST}:{hop}")), 0, folder)
    side.proxy = side.remote = f"{HOST}:{side.server.port}"
    side.callee_port = hop
    for name in ("caller", "scenario"):
        shipped = getattr(side, name)
        text = shipped.read_text().replace(";transport=[transport]", "").replace("      [routes]\n", "")
        text = text.replace(ANSWER, PAUSE + ANSWER)
        changed = folder / shipped.name
        changed.write_text(text.replace("[next_url]", "sip:bob@[remote_ip]:[remote_port]"))
        setattr(side, name, changed)
    return side


def figures(seconds: int = 4, first: int = 100, last: int = 6_000) -> Iterator[Figure | Absent]:
    """Raises Skipped."""
    with ExitStack() as stack:
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(4)]
        servers: list[AnyProxy] = [
            stack.enter_context(Orchestrator(folders[0], more={"log": {"level": "warning"}})),
            stack.enter_context(Kamailio(folders[1])),
        ]
        ours, theirs = open_sides(stack, folders[3], servers)
        ladder = rungs(first, last)
        best = {side: climb(side, ladder, seconds) for side in (ours, theirs)}
        yield Figure("calls a second without loss on one core", best[ours], "/s")
        yield Figure("Kamailio: calls a second without loss", best[theirs], "/s")
        if best[theirs]:
            yield Figure("calls per core beside Kamailio", best[ours] / best[theirs], "x", least=LEAST)
        if best[theirs] == ladder[-1]:
            yield Absent("Kamailio's end of the ladder", "SIPp's calls on one core were not enough for it")
        if not Sippy.program():
            yield Absent("sippy's B2BUA", "pip install sippy")
            return
        side = sippy_side(stack, folders[2])
        found = climb(side, rungs(20, 400), seconds)
        yield Figure("sippy's B2BUA: calls a second without loss", found, "/s")
        if found:
            yield Figure("calls per core beside sippy's B2BUA", best[ours] / found, "x")
            yield from at_one_rate(ours, side, max(10, found // 2), seconds)


def at_one_rate(ours: Round, theirs: Round, rate: int, seconds: int) -> Iterator[Figure | Absent]:
    """CPU per call beside sippy, at a rate that it bears well."""
    try:
        spent = [retry(partial(side.play, rate * seconds, rate)) for side in (ours, theirs)]
    except RuntimeError as error:
        yield Absent(f"CPU per call beside sippy at {rate} per second", str(error).splitlines()[0])
    else:
        yield Figure(f"CPU per call at {rate} per second, beside sippy's B2BUA", spent[0] / spent[1], "x")


QUICK = {"seconds": 2, "first": 200, "last": 800}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--first", type=int, default=100)
    parser.add_argument("--last", type=int, default=6_000)
    options = parser.parse_args()
    print(render([("capacity", list(figures(options.seconds, options.first, options.last)))]))


if __name__ == "__main__":
    main()
