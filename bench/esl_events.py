"""Events per CPU second: our Event Socket link with translation, beside stock greenswitch, on the same stream.

A server process replays a recording of 20 calls again and again, each time with other uuids and sequence numbers, as
fast as it is read. Each client runs in a process of its own and only its own CPU time counts. Stock reads five
headers of each event; ours reads what it needs to keep the channel table, drop duplicates and make the typed events.
A 10 ms ticker runs beside, as SIP timers would; its worst delay is printed.

    python -m bench.esl_events [--events 20000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from time import monotonic, process_time
from typing import Any

from bench.children import ends_with_us
from bench.figures import Figure, Skipped, middle, ratios

RECORDING = Path(__file__).parent.parent / "tests/fixtures/esl/burst20.esl"
PASSWORD = "ClueCon"
LEAST = 4.0
HEADERS = ("Unique-ID", "Call-Direction", "Event-Sequence", "DTMF-Digit", "variable_sip_call_id")
END = "bench::end"
FLOWS = ("dtmf", "execute_done")
"""Events of the language that the flows of this bench use; the stream holds what they make the link subscribe to."""

Begin = Callable[[], None]


def build_stream(events: int) -> tuple[bytes, str]:
    """The octets of `events` events and a last one that says so; and the Core-UUID they carry."""
    from orchestrator.esl.translate import needed
    from orchestrator.testing.recordings import Recording, build_frame, rewrite

    names = needed(FLOWS)
    recorded = [event for event in Recording.load(RECORDING).events if event.name in names]
    frames = []
    for number in range(events):
        turn, position = divmod(number, len(recorded))
        event = recorded[position]
        ids = {event.uuid, event.get("Other-Leg-Unique-ID")} - {""}
        block = rewrite(
            event.block, {"Event-Sequence": str(number + 1)}, {uuid: f"{turn:04x}{uuid[4:]}" for uuid in ids}
        )
        frames.append(build_frame("text/event-plain", block))
    last = {"Event-Name": "CUSTOM", "Event-Subclass": END, "Event-Sequence": "999999999", "Unique-ID": None}
    frames.append(build_frame("text/event-plain", rewrite(recorded[0].block, last)))
    return b"".join(frames), recorded[0].core_uuid


def serve(events: int) -> None:
    """Print where we are, stream to whoever says `api start`, and end when our standard input does."""
    import gevent
    from gevent.fileobject import FileObject

    from orchestrator.testing.freeswitch import FakeFreeSwitch

    octets, core_uuid = build_stream(events)
    with FakeFreeSwitch(password=PASSWORD) as fs:
        fs.core_uuid = core_uuid
        fs.on("api start").reply("+OK").then(lambda: gevent.spawn(fs.write, octets))
        print(json.dumps({"port": fs.port, "octets": len(octets)}), flush=True)
        FileObject(sys.stdin.fileno(), "rb", closefd=False).read()


def run(begin: Begin, done: Any, seen: list[int]) -> dict[str, float]:
    """Time one stream: `begin` starts it, `done` is the event set at its end, `seen[0]` counts."""
    import gevent

    worst = due = 0.0

    def tick() -> None:
        nonlocal worst, due
        while True:
            due = monotonic() + 0.010
            gevent.sleep(0.010)
            worst = max(worst, monotonic() - due)

    ticker = gevent.spawn(tick)
    wall, cpu = monotonic(), process_time()
    begin()
    if not done.wait(300):
        raise SystemExit("the stream did not end")
    wall, cpu = monotonic() - wall, process_time() - cpu
    worst = max(worst, monotonic() - due)  # where it was starved it has not come back yet
    ticker.kill()
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"events": seen[0], "wall": wall, "cpu": cpu, "tick_ms": worst * 1000, "rss_mb": rss}


def ours(port: int) -> dict[str, float]:
    """EslLink, Translator and its channel table."""
    from gevent.event import Event
    from loguru import logger

    from orchestrator.esl.channels import ChannelTable
    from orchestrator.esl.codec import EslEvent
    from orchestrator.esl.translate import Translator, needed
    from orchestrator.runtime.esl_link import EslLink, EslServer

    logger.remove()
    translator, done, seen = Translator(ChannelTable()), Event(), [0]

    def receive(server: str, event: EslEvent) -> None:
        translator.translate(server, event, monotonic())
        seen[0] += 1
        if event.key == END:
            done.set()

    link = EslLink(EslServer("fs1", "127.0.0.1", port, PASSWORD), lambda: needed(FLOWS, [END]), receive)
    link.start()
    if not link.wait_up(10):
        raise SystemExit("the link did not come up")
    result = run(lambda: void(link.api("start")), done, seen)
    link.stop()
    return result


def stock(port: int) -> dict[str, float]:
    """greenswitch as it comes, one handler for all events."""
    import greenswitch
    from gevent.event import Event

    done, seen = Event(), [0]

    def receive(event: Any) -> None:
        for name in HEADERS:
            event.headers.get(name)
        seen[0] += 1
        if event.headers.get("Event-Subclass") == END:
            done.set()

    client = greenswitch.InboundESL("127.0.0.1", port, PASSWORD)
    client.connect()
    client.register_handle("*", receive)
    client.send("event plain ALL")
    result = run(lambda: void(client.send("api start")), done, seen)
    client.stop()
    return result


def void(_: object) -> None:
    """Forget a result."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--role", choices=("serve", "ours", "stock"), help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role == "serve":
        serve(options.events)
    elif options.role:
        print(json.dumps((ours if options.role == "ours" else stock)(options.port)))
    else:
        compare(options.events, options.rounds)


def figures(events: int = 20_000, rounds: int = 3) -> Iterator[Figure]:
    """Ratio of the rates, and ours."""
    if find_spec("greenswitch") is None:
        raise Skipped("greenswitch is not installed")
    with redirect_stdout(sys.stderr):
        rates = compare(events, rounds)
    yield middle("events per CPU second, beside greenswitch", ratios(rates["ours"], rates["stock"]), "x", least=LEAST)
    yield middle("FreeSWITCH events with translation", rates["ours"], "per CPU second")
    yield middle("events of greenswitch", rates["stock"], "per CPU second")


QUICK = {"events": 5_000, "rounds": 2}


def compare(events: int, rounds: int) -> dict[str, list[float]]:
    """Both clients in turn, `rounds` times, against one server process; events per CPU second of each round."""
    me = [sys.executable, "-m", "bench.esl_events"]
    serving = [*me, "--role", "serve", "--events", str(events)]
    server = subprocess.Popen(
        serving, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=ends_with_us()
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        place = json.loads(server.stdout.readline())
        print(f"{events} events, {place['octets'] / events:.0f} octets each on average")
        rates: dict[str, list[float]] = {"stock": [], "ours": []}
        for _ in range(rounds):
            for role, figures in rates.items():
                client = [*me, "--role", role, "--port", str(place["port"])]
                result = json.loads(
                    subprocess.run(client, capture_output=True, text=True, timeout=400, check=True).stdout
                )
                figures.append(result["events"] / result["cpu"])
                print(
                    f"{role:5}  {result['events']:6.0f} events  {figures[-1]:7.0f} per CPU second  "
                    f"{1e6 / figures[-1]:5.0f} us each  {result['wall']:5.2f} s  "
                    f"ticker late by up to {result['tick_ms']:5.0f} ms  {result['rss_mb']:4.0f} MB"
                )
        print(f"ratio ours/stock: median {statistics.median(ratios(rates['ours'], rates['stock'])):.1f}")
        return rates
    finally:
        server.stdin.close()
        server.wait(10)


if __name__ == "__main__":
    main()
