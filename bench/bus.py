"""What one published event costs with many subscriptions waiting, beside the obvious linear scan, and what one weighs.

Each subscription waits for the registration of its own address, the push wake-up scenario. Run: python -m bench.bus
"""

from __future__ import annotations

import argparse
import gc
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle

from bench.figures import Figure, middle, ratios
from bench.turns import in_turns
from orchestrator.events.bus import Bus, Subscription
from orchestrator.events.event import Event
from orchestrator.timers import Timers

MOST_GROWTH = 3.0
"""Cache misses are all that may grow: three hundred subscriptions fit into the cache, a hundred thousand do not."""
MOST_OCTETS = 500.0
MOST_PUBLISH = 4.0
"""Microseconds, with a million of them."""


def registered(number: int) -> Event:
    aor = f"user{number}@example.com"
    return Event("registered", {"aor": aor, "contact": f"sip:{aor}", "expires": 3600, "mobile": True})


def ignore(event: Event, subscription: Subscription) -> None:
    """A receiver that does nothing: the bus alone is measured."""


def filled(count: int) -> tuple[Bus, list[Subscription]]:
    bus = Bus(Timers())
    return bus, [
        bus.subscribe("registered", ignore, equals={"aor": f"user{n}@example.com"}, expires_in=20.0, owner=n)
        for n in range(count)
    ]


def linear(subscriptions: list[tuple[str, Subscription]], event: Event) -> int:
    """What a bus without index does: look at each subscription."""
    taken = 0
    for aor, subscription in subscriptions:
        if event.attributes["aor"] == aor:
            subscription.deliver(event, subscription)
            taken += 1
    return taken


def per_call(function: Callable[[int], object], rounds: int) -> float:
    """Microseconds per call, best of five."""
    best = float("inf")
    for _ in range(5):
        begun = time.perf_counter()
        for number in range(rounds):
            function(number)
        best = min(best, (time.perf_counter() - begun) / rounds)
    return best * 1e6


def weight(count: int) -> float:
    """Octets per subscription, its timer and its place in the index included, its own address not."""
    names = [f"user{n}@example.com" for n in range(count)]
    bus = Bus(Timers())
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for name in names:
        bus.subscribe("registered", ignore, equals={"aor": name}, expires_in=20.0)
    octets = (tracemalloc.get_traced_memory()[0] - before) / count
    tracemalloc.stop()
    return octets


def publisher(bus: Bus, count: int) -> Callable[[], object]:
    """Publishes an event that one of `count` subscriptions hears, each time another."""
    hits = cycle([registered(n * count // 300) for n in range(300)])
    return lambda: bus.publish(next(hits))


def row(count: int) -> str:
    """One line of the table: microseconds for an event that one hears, one nobody hears, a scan, an arm and disarm."""
    bus, subscriptions = filled(count)
    hits = [registered(n * count // 300) for n in range(300)]
    miss = registered(count + 1)
    pairs = [(f"user{n}@example.com", subscription) for n, subscription in enumerate(subscriptions)]

    def arm(number: int) -> None:
        bus.subscribe("unregistered", ignore, equals={"aor": number}, expires_in=20.0).cancel()

    hit = per_call(lambda n: bus.publish(hits[n % 300]), 20_000)
    missed = per_call(lambda n: bus.publish(miss), 20_000)
    scan = per_call(lambda n: linear(pairs, hits[n % 300]), 5)
    armed = per_call(arm, 5_000)
    return f"{count:>8} {hit:>9.2f} µs {missed:>6.2f} µs {scan:>9.1f} µs {armed:>7.2f} µs {weight(count):>7.0f}"


def figures(counts: Sequence[int] = (300, 100_000, 1_000_000), rounds: int = 7) -> Iterator[Figure]:
    """Whether an event costs the same however many wait, beside a search through a few; what one of them weighs."""
    few, many = counts[:2]
    buses = [filled(count) for count in counts]
    works = {f"{count}": publisher(bus, count) for count, (bus, _) in zip(counts, buses, strict=True)}
    pairs = [(f"user{n}@example.com", subscription) for n, subscription in enumerate(buses[0][1])]
    heard = registered(few // 2)
    works["search"] = lambda: linear(pairs, heard)
    gc.freeze()
    found = in_turns(works, {name: 200 if name == "search" else 10_000 for name in works}, rounds)
    small, searched = found[f"{few}"], found["search"]
    yield middle(
        f"publish with {many:,} subscriptions beside {few}", ratios(found[f"{many}"], small), "x", most=MOST_GROWTH
    )
    for count in counts:
        most = MOST_PUBLISH if count >= 1_000_000 else None
        yield middle(f"publish with {count:,} subscriptions", found[f"{count}"], "µs", most=most)
    yield middle(f"publish with {few}, beside a search through them", ratios(small, searched), "x")
    yield Figure("one subscription, with its timer", weight(many), "octets", most=MOST_OCTETS)


QUICK = {"counts": (300, 100_000), "rounds": 3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("counts", nargs="*", type=int, default=[300, 10_000, 100_000])
    print(f"{'waiting':>8} {'publish hit':>12} {'miss':>9} {'linear':>12} {'subscribe':>10} {'octets':>7}")
    for count in parser.parse_args().counts:
        print(row(count))


if __name__ == "__main__":
    main()
