"""The kind of sink `kafka`, against the broker that librdkafka brings for tests: it speaks the protocol on a socket."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.packages.sink import Outgoing, Undelivered

kafka = pytest.importorskip("confluent_kafka")

from orchestrator.integrations.kafka import KafkaProducer, KafkaSettings  # noqa: E402


class Context:
    name, node, content_type = "bus", "n1", "application/cloudevents+json"

    def log(self, level: str, text: str, **facts: Any) -> None:
        raise AssertionError(text)


def settings(**more: Any) -> KafkaSettings:
    return KafkaSettings.model_validate(
        {"servers": "127.0.0.1:1", "topic": "events", "timeout": "20s", "options": {"test.mock.num.brokers": "1"}}
        | more
    )


@pytest.fixture
def sink() -> Iterator[KafkaProducer]:
    sink = KafkaProducer(Context(), settings())
    yield sink
    sink.close()


def event(number: int) -> Outgoing:
    return Outgoing(f"id-{number}", "registered", "", "bob@example.com", 1_767_225_600.5, b"%d" % number)


def test_events_are_records_of_the_topic(sink: KafkaProducer) -> None:
    sink.send([event(1), event(2)])
    sink.send([event(3)])
    (broker,) = sink._producer.list_topics(timeout=20).brokers.values()
    reader = kafka.Consumer(
        {
            "bootstrap.servers": f"{broker.host}:{broker.port}",
            "group.id": "test",
            "auto.offset.reset": "earliest",
            "log_level": 0,
        }
    )
    partitions = reader.list_topics("events", timeout=20).topics["events"].partitions
    reader.assign([kafka.TopicPartition("events", number, 0) for number in partitions])
    found = []
    while len(found) < 3:
        (record,) = reader.consume(1, timeout=20)
        found.append((record.value(), record.key(), record.timestamp()[1], dict(record.headers())))
    reader.close()
    headers = {"content-type": b"application/cloudevents+json", "type": b"registered"}
    assert found == [
        (b"%d" % n, b"bob@example.com", 1_767_225_600_500, headers | {"id": b"id-%d" % n}) for n in (1, 2, 3)
    ]


def test_brokers_that_are_away() -> None:
    sink = KafkaProducer(Context(), settings(timeout="1s", options={}))
    with pytest.raises(Undelivered) as caught:
        sink.send([event(1), event(2)])
    assert caught.value.taken == 0
    assert "Message timed out" in caught.value.reason
    sink.close()


def test_properties_that_are_ours_or_unknown() -> None:
    with pytest.raises(ValidationError, match="cannot stand in options"):
        settings(options={"enable.idempotence": "false"})
    with pytest.raises(ValueError, match="No such configuration property"):
        KafkaProducer(Context(), settings(options={"no.such": "x"}))
