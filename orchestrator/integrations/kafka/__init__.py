"""The kind of sink `kafka`: events to a topic, each confirmed by the brokers.

librdkafka works in threads of its own and blocks in C, so all calls of it are made in one thread of ours; the greenlet
of the sink waits for that thread, and the loop goes on. It keeps order and removes its own duplicates
(`enable.idempotence`); what is sent again after a failure has the same `id`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from time import monotonic
from typing import Annotated, Any

from gevent.threadpool import ThreadPool
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from orchestrator.packages.setting_types import Duration, InvalidValue
from orchestrator.packages.sink import Outgoing, SinkContext, SinkKind, Undelivered

CLOSING = 3.0
"""Seconds at the end for what is on its way."""
OURS = frozenset({"bootstrap.servers", "client.id", "enable.idempotence", "message.timeout.ms", "sasl.password"})


def _servers(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class KafkaSettings(BaseModel):
    """Keys of a sink of `type: kafka`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    servers: Annotated[tuple[str, ...], BeforeValidator(_servers), Field(min_length=1)]
    topic: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")] = "orchestrator.events"
    timeout: Duration = 10.0
    """For a batch to be confirmed."""
    batch: Annotated[int, Field(ge=1, le=1000)] = 200
    password: SecretStr | None = None
    """`sasl.password`."""
    options: Mapping[str, str] = Field(default_factory=dict)
    """Further properties of librdkafka: `security.protocol`, `sasl.username` …"""

    @model_validator(mode="after")
    def _usable(self) -> KafkaSettings:
        if find_spec("confluent_kafka") is None:
            raise InvalidValue("the library confluent-kafka is not installed", "pip install 'orchestrator[kafka]'")
        if taken := OURS & self.options.keys():
            raise InvalidValue(f"{min(taken)} cannot stand in options:", "use servers:, timeout: and password:")
        return self


class KafkaProducer:
    """One producer of librdkafka. Events of one subject go to one partition: in order there."""

    def __init__(self, context: SinkContext, settings: KafkaSettings) -> None:
        from confluent_kafka import KafkaException, Producer

        self.batch = settings.batch
        self._topic = settings.topic
        self._timeout = settings.timeout
        self._failure: type[Exception] = KafkaException
        self._headers = [("content-type", context.content_type.encode())]
        options: dict[str, Any] = {
            **settings.options,
            "bootstrap.servers": ",".join(settings.servers),
            "client.id": f"orchestrator-{context.node}",
            "enable.idempotence": True,
            "message.timeout.ms": int(settings.timeout * 1000),
            "log_level": 0,
        }
        if settings.password is not None:
            options["sasl.password"] = settings.password.get_secret_value()
        try:
            self._producer = Producer(options)
        except KafkaException as error:
            raise ValueError(_reason(error)) from None
        self._thread = ThreadPool(1)

    def send(self, events: Sequence[Outgoing]) -> None:
        taken, reason = self._thread.apply(self._send, (tuple(events),))
        if reason:
            raise Undelivered(reason, taken)

    def _send(self, events: Sequence[Outgoing]) -> tuple[int, str]:
        """In the thread: how many of the front are confirmed, and why not all. It raises nothing."""
        done: dict[int, str] = {}

        def told(number: int, error: Any, _: Any) -> None:
            done[number] = "" if error is None else _reason(error)

        try:
            for number, event in enumerate(events):
                self._producer.produce(
                    self._topic,
                    event.body,
                    key=event.subject or None,
                    headers=[*self._headers, ("id", event.id.encode()), ("type", event.name.encode())],
                    timestamp=int(event.time * 1000),
                    on_delivery=partial(told, number),
                )
            end = monotonic() + self._timeout + 1
            while len(done) < len(events) and monotonic() < end:
                self._producer.poll(0.1)
        except (self._failure, BufferError, ValueError) as error:
            self._producer.purge()
            self._producer.poll(0)
            return 0, _reason(error)
        for number in range(len(events)):
            if done.get(number, "the brokers do not answer in time"):
                return number, done.get(number) or "the brokers do not answer in time"
        return len(events), ""

    def close(self) -> None:
        self._thread.apply(self._producer.flush, (CLOSING,))
        self._thread.kill()


def _reason(error: Any) -> str:
    """Why, in the words of librdkafka."""
    inner = error.args[0] if getattr(error, "args", None) else error
    told = getattr(inner, "str", None)
    return str(told() if callable(told) else inner)[:200]


SINK = SinkKind("kafka", "Events to a topic of Kafka.", KafkaProducer, KafkaSettings)
