"""The kind of sink `amqp`: events to an exchange, with confirms of the broker for many at once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import Annotated, Any

import gevent
from pydantic import Field

from orchestrator.integrations.amqp.broker import BrokerSettings, connect, discard, failures, reason_of
from orchestrator.packages.setting_types import Switch
from orchestrator.packages.sink import Outgoing, SinkContext, SinkKind, Undelivered

EXCHANGE = "orchestrator.events"
BLOCKED = "RabbitMQ takes nothing: it is short of memory or disk"
TURN = 20
"""Messages that are written before others run: half a millisecond."""


class PublishSettings(BrokerSettings):
    """Keys of a sink of `type: amqp`."""

    exchange: Annotated[str, Field(max_length=255)] = EXCHANGE
    """'' for the default exchange, which leads to the queue that the routing key names."""
    declare: Switch = True
    """Whether we make the exchange: a durable topic exchange."""
    routing_key: Annotated[str, Field(max_length=255)] | None = None
    """None: event, domain and node."""
    persistent: Switch = True
    confirm: Annotated[int, Field(ge=1, le=1000)] = 100
    """Events that may wait for a confirm."""


class Publisher:
    """One connection and one channel, made when they are needed."""

    def __init__(self, context: SinkContext, settings: PublishSettings) -> None:
        self.batch = settings.confirm
        self._context = context
        self._settings = settings
        self._connection: Any = None
        self._channel: Any = None
        self._unconfirmed: set[int] = set()
        self._refused: set[int] = set()
        self._published = 0
        self._blocked = False
        """The broker has said that it takes nothing: it is short of memory or of disk."""

    def send(self, events: Sequence[Outgoing]) -> None:
        first = 0
        try:
            if self._connection is None:
                self._open()
            first = self._published + 1
            self._publish(events)
        except failures() as error:
            taken = self._confirmed(first, len(events)) if first else 0
            blocked = self._blocked and isinstance(error, TimeoutError)
            self._drop()
            raise Undelivered(BLOCKED if blocked else reason_of(error), taken) from None
        except BaseException:
            self._drop()
            raise
        if self._refused:
            taken = min(self._refused) - first
            self._drop()  # what follows comes again, on a channel that counts from one
            raise Undelivered("the broker could not take it over", taken)

    def _publish(self, events: Sequence[Outgoing]) -> None:
        from amqp import Message

        settings, publish = self._settings, self._channel.basic_publish
        mode = 2 if settings.persistent else 1
        for number, event in enumerate(events, 1):
            if number % TURN == 0:
                gevent.sleep(0)  # a socket that takes everything lets nobody else run
            self._published += 1
            self._unconfirmed.add(self._published)
            message = Message(
                event.body,
                content_type=self._context.content_type,
                delivery_mode=mode,
                message_id=event.id,
                timestamp=int(event.time),
                type=event.name[:255],
                app_id="orchestrator",
            )
            key = settings.routing_key
            publish(message, settings.exchange, routing_key(event, self._context.node) if key is None else key)
        deadline = monotonic() + settings.timeout
        while self._unconfirmed:
            self._connection.drain_events(timeout=max(0.001, deadline - monotonic()))

    def _confirmed(self, first: int, count: int) -> int:
        """So many of the front of a batch that failed are known to have been taken."""
        missing = self._unconfirmed | self._refused
        return next((n for n in range(count) if first + n > self._published or first + n in missing), count)

    def _open(self) -> None:
        settings = self._settings
        self._blocked = False
        self._connection = connect(settings, f"{self._context.node} sink {self._context.name}")
        self._connection.on_blocked = self._now_blocked
        self._connection.on_unblocked = self._now_unblocked
        # Else py-amqp looks for a word of the broker before each message. One that takes nothing ends in a timeout.
        self._connection.client_properties.get("capabilities", {}).pop("connection.blocked", None)
        self._channel = channel = self._connection.channel()
        if settings.declare and settings.exchange:
            channel.exchange_declare(settings.exchange, "topic", durable=True, auto_delete=False)
        self._published = 0
        self._unconfirmed.clear()
        self._refused.clear()
        channel.events["basic_ack"].add(self._acked)
        channel.events["basic_nack"].add(self._nacked)
        channel.confirm_select()

    def _now_blocked(self, reason: str) -> None:
        self._blocked = True

    def _now_unblocked(self) -> None:
        self._blocked = False

    def _acked(self, tag: int, multiple: bool) -> None:
        if multiple:
            self._unconfirmed -= {waiting for waiting in self._unconfirmed if waiting <= tag}
        else:
            self._unconfirmed.discard(tag)

    def _nacked(self, tag: int, multiple: bool) -> None:
        refused = {waiting for waiting in self._unconfirmed if waiting == tag or (multiple and waiting < tag)}
        self._refused |= refused
        self._unconfirmed -= refused

    def _drop(self) -> None:
        if self._connection is not None:
            discard(self._connection)
        self._connection = self._channel = None

    def close(self) -> None:
        if self._connection is not None:
            with suppress(*failures()):
                self._connection.close()
        self._drop()


def routing_key(event: Outgoing, node: str) -> str:
    """`event.domain.node`: three words, so that a queue can be bound to `registered.*.*` or `*.example_com.#`."""
    return ".".join(_word(word) for word in (event.name, event.domain, node))


def _word(text: str) -> str:
    """A word of a routing key. Full stops become `_`, which no domain has; an empty word is `-`."""
    return text.replace(".", "_").encode("ascii", "replace").decode().replace("*", "_").replace("#", "_")[:80] or "-"


SINK = SinkKind("amqp", "Events to a RabbitMQ exchange, with confirms.", Publisher, PublishSettings)
