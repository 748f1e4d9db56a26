"""Events to a real RabbitMQ that is stopped, killed and started anew while they are published, and events from it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import amqp
import pytest
from tls_files import write_authority, write_pair

from bench.rabbit import PROGRAM, Rabbit
from orchestrator.integrations.amqp.publish import Publisher, PublishSettings, routing_key
from orchestrator.packages.sink import Outgoing, Undelivered

Serve = Callable[..., Any]
"""The fixture `serve` of this folder."""
Server = Any

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not PROGRAM.exists(), reason="Debian's package rabbitmq-server is not installed"),
]

REGISTER = (
    "REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bK{n}\r\nMax-Forwards: 70\r\n"
    "From: <sip:u{n}@example.com>;tag=1\r\nTo: <sip:u{n}@example.com>\r\nCall-ID: {n}@test\r\nCSeq: 1 REGISTER\r\n"
    "Contact: <sip:u{n}@127.0.0.1:{port}>\r\nExpires: 3600\r\nContent-Length: 0\r\n\r\n"
)
DOORS = """flowlang: 1
events: {door: {number: number}}
flows:
  rings: {on: {event: door}, do: [log: 'door ${event.number}']}
"""


@pytest.fixture(scope="module")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rabbit]:
    folder = tmp_path_factory.mktemp("rabbit")
    write_pair(folder, "localhost")
    write_authority(folder / "ca.pem")
    rabbit = Rabbit(folder)
    try:
        rabbit.start()
        yield rabbit
    finally:
        rabbit.close()


class Phones:
    """Registers users u0, u1, … one after the other; each 200 is an event that has been raised."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(0.5)
        self.registered = 0

    def register(self, count: int, at: tuple[str, int]) -> None:
        port = self.socket.getsockname()[1]
        for n in range(self.registered, self.registered + count):
            for _ in range(100):
                self.socket.sendto(REGISTER.format(port=port, n=n).encode(), at)
                try:
                    while f"Call-ID: {n}@test".encode() not in self.socket.recv(4000):
                        pass
                    break
                except TimeoutError:
                    continue
            else:
                pytest.fail("no answer to a REGISTER")
        self.registered += count

    def meanwhile(self, count: int, at: tuple[str, int], act: Callable[[], None]) -> None:
        """Register while something is done to the broker."""
        thread = threading.Thread(target=self.register, args=(count, at))
        thread.start()
        act()
        thread.join()


def metric(server: Server, line: str) -> float:
    with urllib.request.urlopen("http://{}:{}/metrics".format(*server.admin), timeout=30) as answer:
        found = re.search(rf"^{re.escape(line)} (\S+)$", answer.read().decode(), re.MULTILINE)
    return float(found[1]) if found is not None else -1.0


def wait(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


def connection(rabbit: Rabbit) -> Any:
    made = amqp.Connection(f"127.0.0.1:{rabbit.port}", confirm_publish=True)
    made.connect()
    return made


def drained(rabbit: Rabbit, queue: str) -> list[Any]:
    """All messages of a queue."""
    with connection(rabbit) as made:
        channel, found = made.channel(), []
        while (message := channel.basic_get(queue, no_ack=True)) is not None:
            found.append(message)
        return found


def test_none_is_lost_whatever_happens_to_broker_and_server(rabbit: Rabbit, serve: Serve, tmp_path: Path) -> None:
    with connection(rabbit) as made:
        channel = made.channel()
        channel.exchange_declare("orchestrator.events", "topic", durable=True, auto_delete=False)
        channel.queue_declare("out", durable=True, auto_delete=False)
        channel.queue_bind("out", "orchestrator.events", "registered.example_com.n1")
    sink = {"type": "amqp", "port": rabbit.port, "timeout": "5s", "events": ["registered"]}
    config = {"node": "n1", "sinks": {"rabbit": sink | {"spool": {"file": str(tmp_path / "spool.db")}}}}
    server = serve(**config)
    phones = Phones()
    phones.register(100, server.sip)
    wait(lambda: metric(server, 'orchestrator_service_sinks_delivered_total{sink="rabbit"}') == 100)

    phones.meanwhile(500, server.sip, rabbit.stop)
    wait(lambda: metric(server, 'orchestrator_service_sinks_up{sink="rabbit"}') == 0)
    time.sleep(0.5)  # what was raised last is on disk
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait()
    server = serve(**config)
    phones.meanwhile(300, server.sip, rabbit.start)
    wait(lambda: metric(server, 'orchestrator_service_sinks_waiting{sink="rabbit"}') == 0)

    phones.meanwhile(500, server.sip, rabbit.kill)
    phones.meanwhile(200, server.sip, rabbit.start)
    wait(lambda: metric(server, 'orchestrator_service_sinks_waiting{sink="rabbit"}') == 0)
    assert metric(server, 'orchestrator_service_sinks_up{sink="rabbit"}') == 1

    phones.socket.close()
    found = drained(rabbit, "out")
    events = [json.loads(message.body) for message in found]
    by_id = {event["id"]: event["data"]["aor"] for event in events}
    expected = {f"u{n}@example.com" for n in range(phones.registered)}
    assert phones.registered == 1600
    assert set(by_id.values()) == expected, "none is lost"
    assert len(by_id) == 1600, "the same event has the same id each time"
    assert [message.properties["message_id"] for message in found] == [event["id"] for event in events]
    one = found[0].properties
    assert (one["content_type"], one["type"], one["delivery_mode"]) == (
        "application/cloudevents+json",
        "registered",
        2,
    )
    order = list(dict.fromkeys(event["data"]["aor"] for event in events))
    assert order == sorted(order, key=lambda aor: int(aor[1:].partition("@")[0])), "in order, duplicates aside"


def test_messages_of_a_queue_are_events(rabbit: Rabbit, serve: Serve, tmp_path: Path) -> None:
    with connection(rabbit) as made:
        channel = made.channel()
        channel.exchange_declare("orchestrator.events", "topic", durable=True, auto_delete=False)
        channel.queue_declare("dead", durable=True, auto_delete=False)
        arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
        channel.queue_declare("in", durable=True, auto_delete=False, arguments=arguments)
        good = [
            {"name": "door", "attributes": {"number": 1}},
            {"specversion": "1.0", "id": "x", "source": "/door", "type": "door", "data": {"number": 2}},
            {"jsonrpc": "2.0", "method": "door", "params": {"number": 3}},
        ]
        bad = [
            b"no JSON",
            b'{"name": "door", "attributes": {"number": "1"}}',
            b'{"name": "dor", "attributes": {}}',
            b'{"name": "gateway_up", "attributes": {"gateway": "a", "reason": "b"}}',
        ]
        for body in [*(json.dumps(told).encode() for told in good), *bad]:
            channel.basic_publish(amqp.Message(body, delivery_mode=2), "", "in")
    (tmp_path / "door.flow.yaml").write_text(DOORS)
    broker = {"port": rabbit.port, "timeout": "5s"}
    sink = broker | {"type": "amqp", "events": ["door"], "spool": {"file": str(tmp_path / "spool.db")}}
    server = serve(
        flows=[str(tmp_path)],
        services={"amqp_in": broker | {"queue": "in", "declare": "off", "exchange": "orchestrator.events"}},
        sinks={"rabbit": sink},
    )

    def outcomes() -> Counter[str]:
        names = ("raised", "rejected", "own", "no_call")
        line = 'orchestrator_service_amqp_in_messages_total{{outcome="{}"}}'
        return Counter({name: int(metric(server, line.format(name))) for name in names})

    wait(lambda: outcomes().total() == 10)
    assert outcomes() == {"raised": 3, "rejected": 4, "own": 3, "no_call": 0}, "what we send ourselves goes round once"
    wait(lambda: sum("door " in line for line in server.log) == 3)
    dead = drained(rabbit, "dead")
    bodies = [message.body for message in dead]
    assert [body.encode() if isinstance(body, str) else bytes(body) for body in bodies] == bad
    assert drained(rabbit, "in") == []


class Context:
    name, node, content_type = "rabbit", "n1.example", "application/cloudevents+json"

    def log(self, level: str, text: str, **facts: Any) -> None:
        raise AssertionError(text)


def event(number: int) -> Outgoing:
    return Outgoing(f"id-{number}", "fs.link", "example.com", "", 0.0, b"%d" % number)


def publisher(**settings: Any) -> Publisher:
    return Publisher(Context(), PublishSettings.model_validate({"timeout": "20s", **settings}))


def reason(sink: Publisher, *numbers: int) -> Undelivered:
    with pytest.raises(Undelivered) as caught:
        sink.send([event(number) for number in numbers])
    sink.close()
    return caught.value


def test_a_routing_key_has_three_words() -> None:
    assert routing_key(event(1), "n1.example") == "fs_link.example_com.n1_example"
    assert routing_key(Outgoing("i", "a", "", "", 0.0, b""), "n") == "a.-.n"
    assert routing_key(Outgoing("i", "a*#", "ü" * 300, "", 0.0, b""), "n") == f"a__.{'?' * 80}.n"


def test_a_broker_proves_who_it_is(rabbit: Rabbit) -> None:
    with connection(rabbit) as made:
        made.channel().queue_declare("secure", durable=True, auto_delete=False)
    to = {"tls": "on", "host": "localhost", "port": rabbit.tls_port, "exchange": "", "routing_key": "secure"}
    ca = str(rabbit.folder / "ca.pem")
    sink = publisher(**to, ca=ca)
    sink.send([event(1)])
    sink.close()
    assert "certificate verify failed" in reason(publisher(**to), 2).reason
    assert "certificate verify failed" in reason(publisher(**(to | {"host": "127.0.0.1"}), ca=ca), 3).reason
    wrong = reason(publisher(**to, ca=ca, password="hidden"), 4).reason
    assert "Login was refused" in wrong and "hidden" not in wrong
    assert [message.properties["message_id"] for message in drained(rabbit, "secure")] == ["id-1"]


def test_what_the_broker_cannot_take_comes_again(rabbit: Rabbit) -> None:
    with connection(rabbit) as made:
        arguments = {"x-max-length": 2, "x-overflow": "reject-publish"}
        made.channel().queue_declare("small", durable=True, auto_delete=False, arguments=arguments)
    sink = publisher(port=rabbit.port, exchange="", routing_key="small")
    with pytest.raises(Undelivered, match="could not take it over") as caught:
        sink.send([event(number) for number in range(5)])
    first = [message.properties["message_id"] for message in drained(rabbit, "small")]
    assert first == [f"id-{number}" for number in range(caught.value.taken)]
    sink.send([event(caught.value.taken)])
    sink.close()
    assert len(drained(rabbit, "small")) == 1


def test_a_broker_that_is_short_of_memory_is_told_by_name_and_loses_nothing(rabbit: Rabbit) -> None:
    with connection(rabbit) as made:
        made.channel().queue_declare("held", durable=True, auto_delete=False)
        sink = publisher(port=rabbit.port, exchange="", routing_key="held", timeout="500ms")
        sink.send([event(1)])
        rabbit.control("set_vm_memory_high_watermark", "0")
        try:
            for _ in range(2):
                with pytest.raises(Undelivered, match="short of memory") as caught:
                    sink.send([event(2), event(3)])
                assert caught.value.taken == 0
        finally:
            rabbit.control("set_vm_memory_high_watermark", "0.6")
        sink.send([event(2), event(3)])
        sink.close()
    assert {message.properties["message_id"] for message in drained(rabbit, "held")} == {"id-1", "id-2", "id-3"}


def test_an_exchange_that_is_not_there_or_of_another_kind(rabbit: Rabbit) -> None:
    missing = reason(publisher(port=rabbit.port, exchange="nowhere", declare="off"), 1)
    assert (missing.taken, "NOT_FOUND" in missing.reason or "no exchange" in missing.reason) == (0, True)
    assert "inequivalent arg 'type'" in reason(publisher(port=rabbit.port, exchange="amq.direct"), 1).reason
