"""Events to RabbitMQ: how many in a second, what each costs, and how late the loop is meanwhile.

    python -m bench.events_out [--events 20000] [--rounds 3]

Ours is the whole way of an event: JSON, the spool on disk, the exchange, confirms for a hundred at once. py-amqp is its
library alone. pika and amqpstorm publish the same bodies, under gevent as the server would have to run them, with a
confirm for each, which is what their blocking interfaces offer, and pika without any. All run in turns against one
broker. `late` is the worst delay of a tick of 5 ms: what calls would have waited. It needs rabbitmq-server
and, for the last rows, `pip install pika amqpstorm`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.figures import Absent, Figure, Skipped, middle, ratios, render
from bench.rabbit import PROGRAM, Rabbit

EVENTS = 20_000
SLOW = {"pika, confirms": 10, "amqpstorm, confirms": 20}
"""Publishers that are given so many times fewer events."""
ATTRIBUTES = {
    "aor": "bob@example.com", "contact": "sip:bob@192.0.2.9:5060", "uri": "sip:bob@192.0.2.9:5060", "expires": 3600,
    "user_agent": "Snom", "source_ip": "192.0.2.9", "path": None, "mobile": False, "is_new": True, "instance": None,
}  # fmt: skip
BODY = json.dumps({"specversion": "1.0", "id": "0" * 20, "type": "registered", "data": ATTRIBUTES}).encode()

Publish = Callable[[int, int], None]


def ours(port: int, count: int) -> None:
    """An outbox with everything that a sink has."""
    from time import time

    import gevent

    from orchestrator.integrations.amqp.publish import Publisher, PublishSettings
    from orchestrator.integrations.sinks.formats import Formatter, fresh_ids
    from orchestrator.integrations.sinks.outbox import MEMORY, Outbox
    from orchestrator.integrations.sinks.spool import Spool

    class Context:
        name, node, content_type = "bench", "n1", "application/cloudevents+json"

        def log(self, level: str, text: str, **facts: Any) -> None:
            print(level, text, facts, file=sys.stderr)

    with tempfile.TemporaryDirectory() as folder:
        context = Context()
        publisher = Publisher(context, PublishSettings.model_validate({"port": port}))
        box = Outbox(Spool(Path(folder) / "spool.db", 10**9, 1e6), publisher, context.log)
        greenlets = [gevent.spawn(box.write), gevent.spawn(box.deliver)]
        make = Formatter("cloudevents", "n1", (), fresh_ids()).make
        for number in range(count):
            box.put(make("registered", ATTRIBUTES, "", time()))
            if number % 50 == 49:
                gevent.sleep(0)  # a turn ends
            while box.waiting > MEMORY // 2:
                gevent.sleep(0.001)
        while box.delivered < count:
            gevent.sleep(0.001)
        gevent.killall(greenlets)
        box.close()


def py_amqp(port: int, count: int) -> None:
    import amqp

    connection = amqp.Connection(f"127.0.0.1:{port}")
    connection.connect()
    channel = connection.channel()
    channel.exchange_declare("orchestrator.events", "topic", durable=True, auto_delete=False)
    open_: set[int] = set()

    def acked(tag: int, multiple: bool) -> None:
        if multiple:
            open_.difference_update([waiting for waiting in open_ if waiting <= tag])
        else:
            open_.discard(tag)

    channel.events["basic_ack"].add(acked)
    channel.confirm_select()
    for number in range(1, count + 1):
        open_.add(number)
        channel.basic_publish(amqp.Message(BODY, delivery_mode=2), "orchestrator.events", "registered.example_com.n1")
        while open_ and (number % 100 == 0 or number == count):
            connection.drain_events(timeout=10)


def pika_plain(port: int, count: int, confirms: bool = False) -> None:
    import pika

    connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port))
    channel = connection.channel()
    channel.exchange_declare("orchestrator.events", "topic", durable=True)
    if confirms:
        channel.confirm_delivery()
    properties = pika.BasicProperties(delivery_mode=2)
    for _ in range(count):
        channel.basic_publish("orchestrator.events", "registered.example_com.n1", BODY, properties)
    connection.close()


def pika_confirms(port: int, count: int) -> None:
    pika_plain(port, count, confirms=True)


def amqpstorm(port: int, count: int) -> None:
    import amqpstorm as library

    with library.Connection("127.0.0.1", "guest", "guest", port=port) as connection:
        channel = connection.channel()
        channel.exchange.declare("orchestrator.events", "topic", durable=True)
        channel.confirm_deliveries()
        for _ in range(count):
            channel.basic.publish(BODY, "registered.example_com.n1", "orchestrator.events", {"delivery_mode": 2})


PUBLISHERS: dict[str, tuple[str, Publish]] = {
    "ours, spool and confirms": ("amqp", ours),
    "py-amqp, confirms": ("amqp", py_amqp),
    "pika, no confirms": ("pika", pika_plain),
    "pika, confirms": ("pika", pika_confirms),
    "amqpstorm, confirms": ("amqpstorm", amqpstorm),
}


def measure(name: str, port: int, count: int) -> dict[str, float]:
    """Run one publisher in this process, which is patched, with a tick beside it."""
    from time import perf_counter, process_time

    import gevent

    late = [0.0]

    def tick() -> None:
        before = perf_counter()
        while True:
            gevent.sleep(0.005)
            now = perf_counter()
            late[0] = max(late[0], now - before - 0.005)
            before = now

    publish = PUBLISHERS[name][1]
    publish(port, 200)  # imports, connections
    gevent.spawn(tick)
    gevent.sleep(0.02)
    late[0] = 0.0
    wall, cpu = perf_counter(), process_time()
    publish(port, count)
    wall, cpu = perf_counter() - wall, process_time() - cpu
    return {"rate": count / wall, "cpu": cpu / count * 1e6, "late": late[0] * 1e3}


def play(name: str, port: int, count: int) -> dict[str, float]:
    """One publisher in a process of its own."""
    command = [sys.executable, "-m", "bench.events_out", "--measure", name, "--port", str(port), "--events", str(count)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=120, env=dict(os.environ), check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def figures(events: int = EVENTS, rounds: int = 3) -> Iterator[Figure | Absent]:
    """Ours and each of the others. Raises Skipped."""
    if not PROGRAM.exists():
        raise Skipped("RabbitMQ is not installed (Debian: rabbitmq-server)")
    if find_spec("amqp") is None:
        raise Skipped("the extra `amqp` is not installed")
    here = [name for name, (library, _) in PUBLISHERS.items() if find_spec(library) is not None]
    for library in {library for library, _ in PUBLISHERS.values()}:
        if find_spec(library) is None:
            yield Absent(library, f"pip install {library}")
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in here}
    with tempfile.TemporaryDirectory() as folder:
        rabbit = Rabbit(Path(folder))
        try:
            rabbit.start()
            for _ in range(rounds):
                for name in here:
                    runs[name].append(play(name, rabbit.port, events // SLOW.get(name, 1)))
        finally:
            rabbit.close()
    own = [run["cpu"] for run in runs[here[0]]]
    for name, found in runs.items():
        yield middle(f"{name}: events", (run["rate"] for run in found), "a second")
        yield middle(f"{name}: CPU", (run["cpu"] for run in found), "µs per event")
        yield middle(f"{name}: the loop is late by up to", (run["late"] for run in found), "ms")
        if name != here[0]:
            yield middle(f"CPU of ours beside {name}", ratios(own, [run["cpu"] for run in found]), "x")


QUICK = {"events": 4_000, "rounds": 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", choices=PUBLISHERS, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        from gevent import monkey

        monkey.patch_all()
        print(json.dumps(measure(options.measure, options.port, options.events)))
    else:
        print(render([("events_out", list(figures(options.events, options.rounds)))]))


if __name__ == "__main__":
    main()
