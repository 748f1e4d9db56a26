"""Events of every call given to RabbitMQ and to a web service that take them, hang, are gone and are back: SIP latency,
CPU per call, memory, and whether each event arrived.

    python -m bench.sinks [amqp] [webhook] [--busy 60] [--seconds 5] [--rounds 3]

RabbitMQ is a node of its own (Debian's rabbitmq-server), stopped with SIGSTOP while it is slow and killed with SIGKILL
to be gone; its queue is read at the end. The web service answers a second late while it is slow. See bench.peers for
how it is measured.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from time import sleep

from bench import peers
from bench.figures import Figure, Skipped
from bench.peers import Trial, metric
from bench.rabbit import PROGRAM, Rabbit
from bench.servers import HOST, Orchestrator, free_port, wait_until

EVENTS = ["ringing", "answered", "hangup", "cdr"]
LATE = 1.0
"""Seconds that a slow web service takes to answer."""
PATIENCE = 120.0
"""Seconds for what has gathered to be delivered at the end."""


class Broker:
    """RabbitMQ with a queue that gets all events."""

    def __init__(self, folder: Path) -> None:
        self.rabbit = Rabbit(folder)
        self.rabbit.start()
        self._queue(declare=True)

    def slow(self) -> None:
        self.rabbit.hang()

    def leave(self) -> None:
        self.rabbit.kill()

    def come_back(self) -> None:
        self.rabbit.start()

    def _queue(self, declare: bool) -> set[str]:
        """Make the queue, or read the ids of all events in it."""
        import amqp

        connection = amqp.Connection(f"127.0.0.1:{self.rabbit.port}")
        connection.connect()
        channel = connection.channel()
        found = set()
        if declare:
            channel.exchange_declare("orchestrator.events", "topic", durable=True, auto_delete=False)
            channel.queue_declare("all", durable=True, auto_delete=False)
            channel.queue_bind("all", "orchestrator.events", "#")
        else:
            while (message := channel.basic_get("all", no_ack=True)) is not None:
                found.add(message.properties["message_id"])
        connection.close()
        return found

    def arrived(self) -> int:
        return len(self._queue(declare=False))


class Web:
    """A web service that counts the events it is sent; one thread for each connection."""

    def __init__(self) -> None:
        self.port = free_port(socket.SOCK_STREAM)
        self.delay = 0.0
        self.ids: set[str] = set()
        self._connections: list[socket.socket] = []
        self.come_back()

    def slow(self) -> None:
        self.delay = LATE

    def leave(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            connection.close()
        self._connections.clear()

    def come_back(self) -> None:
        self.delay = 0.0
        self._listener = socket.create_server((HOST, self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def arrived(self) -> int:
        return len(self.ids)

    def _accept(self, listener: socket.socket) -> None:
        try:
            while True:
                connection = listener.accept()[0]
                self._connections.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()
        except OSError:
            pass

    def _serve(self, connection: socket.socket) -> None:
        rest = b""
        try:
            while True:
                while b"\r\n\r\n" not in rest:
                    octets = connection.recv(1 << 18)
                    if not octets:
                        return
                    rest += octets
                head, _, rest = rest.partition(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
                while len(rest) < length:
                    octets = connection.recv(1 << 18)
                    if not octets:
                        return
                    rest += octets
                body, rest = rest[:length], rest[length:]
                sleep(self.delay)
                self.ids.update(event["id"] for event in json.loads(body))
                connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        except (OSError, ValueError):
            pass


def counted(server: Orchestrator, peer: Broker | Web) -> Iterator[Figure]:
    try:
        wait_until(lambda: not metric(server, "sinks_waiting"), PATIENCE, "events wait")
    except TimeoutError:
        pass
    taken = metric(server, "sinks_taken_total")
    yield Figure("events taken", taken, "")
    yield Figure("events delivered", metric(server, "sinks_delivered_total"), "")
    yield Figure("events that arrived, each counted once", peer.arrived(), "", least=taken)
    yield Figure("events dropped", metric(server, "sinks_dropped_total"), "", most=0)
    yield Figure("events lost before the sink", metric(server, "events_dropped_total"), "", most=0)


def amqp(stack: ExitStack, folder: Path) -> Trial:
    if not PROGRAM.exists():
        raise Skipped("RabbitMQ is not installed (Debian: rabbitmq-server)")
    place = folder / "rabbit"
    place.mkdir()
    broker = Broker(place)
    stack.callback(broker.rabbit.close)
    sink = {"type": "amqp", "host": "127.0.0.1", "port": broker.rabbit.port, "events": EVENTS}
    more = {"sinks": {"bus": {**sink, "timeout": "5s", "spool": {"file": str(folder / "amqp.db")}}}}
    return Trial("AMQP", broker, more, lambda server: counted(server, broker))


def webhook(stack: ExitStack, folder: Path) -> Trial:
    web = Web()
    sink = {"type": "webhook", "url": f"http://{HOST}:{web.port}/events", "batch": 100, "events": EVENTS}
    more = {"sinks": {"hook": {**sink, "spool": {"file": str(folder / "webhook.db")}}}}
    return Trial("webhook", web, more, lambda server: counted(server, web))


MAKERS = {"amqp": amqp, "webhook": webhook}


def figures(rate: int = 0, seconds: int = 5, rounds: int = 3) -> Iterator[Figure]:
    """Raises Skipped."""
    for name, make in MAKERS.items():
        for figure in peers.measured(make, rate, seconds, rounds):
            yield replace(figure, name=f"{name}: {figure.name}")


QUICK = {"rate": 100, "seconds": 3, "rounds": 1}

if __name__ == "__main__":
    sys.exit(peers.run("sinks", __doc__, MAKERS))
