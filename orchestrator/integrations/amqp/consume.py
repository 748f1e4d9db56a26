"""The service `amqp_in`: messages of a queue become events, checked as `raise:` checks them.

A message is acknowledged when the turn of its event is over. One that is no event, or none that others may raise, is
rejected: it goes to the dead-letter exchange of the queue, if it has one, and is counted. While the server has no room
for more, or the broker is away, messages stay in the queue.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import Annotated, Any

import gevent
from pydantic import BeforeValidator, Field

from orchestrator.events.received import NoRoom, NoSuchCall, Received, may_be_raised, read_event
from orchestrator.integrations.amqp.broker import BrokerSettings, connect, discard, failures, reason_of
from orchestrator.packages.service import Events, ServerContext, Service, SettingMistake
from orchestrator.packages.setting_types import Switch
from orchestrator.packages.sink import source_of

HEARTBEAT = 20.0
"""Seconds: a broker that says nothing for twice as long is away."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds between two attempts to connect, twice as many each time."""
NO_ROOM_PAUSE = 0.2
"""Seconds until a message is tried again that the server had no room for."""


def _one(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Words = Annotated[tuple[Annotated[str, Field(min_length=1, max_length=255)], ...], BeforeValidator(_one)]


class ConsumeSettings(BrokerSettings):
    """What stands under `services: {amqp_in: {...}}`."""

    queue: Annotated[str, Field(min_length=1, max_length=255)]
    declare: Switch = True
    """Whether we make the queue: a durable one."""
    exchange: Annotated[str, Field(max_length=255)] = ""
    """That the queue is bound to; '' for none."""
    keys: Words = ("#",)
    """Routing keys that it is bound with."""
    events: Words = ("*",)
    """Which events may come from there: names and globs."""
    prefetch: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Messages that may be on their way to us."""


class Consumer:
    """One connection, made anew for as long as the server runs."""

    def __init__(self, server: ServerContext, settings: ConsumeSettings) -> None:
        self.outcomes: Counter[str] = Counter({"raised": 0, "rejected": 0, "no_call": 0, "own": 0})
        self.trouble = "not connected yet"
        self._server = server
        self._settings = settings
        self._connection: Any = None
        server.counter("messages", "Messages of the queue.", lambda: dict(self.outcomes), ("outcome",))
        server.gauge("up", "1 while the broker delivers.", lambda: not self.trouble)
        server.health(lambda: self.trouble)

    def start(self) -> None:
        self._server.spawn(self._run)

    def _run(self) -> None:
        pause, told = FIRST_PAUSE, False
        while True:
            try:
                self._open()
                if told:
                    self._server.log("info", "amqp_in_up")
                pause, told, self.trouble = FIRST_PAUSE, False, ""
                self._consume()
            except failures() as error:
                self.trouble = reason_of(error)
                if not told:
                    self._server.log("warning", "amqp_in_down", reason=self.trouble)
                told = True
            finally:
                self._drop()
            gevent.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - so that many do not come at once
            pause = min(2 * pause, LONGEST_PAUSE)

    def _open(self) -> None:
        settings = self._settings
        self._connection = connect(settings, f"service {self._server.name}", HEARTBEAT)
        channel = self._connection.channel()
        if settings.declare:
            channel.queue_declare(settings.queue, durable=True, auto_delete=False)
        if settings.exchange:
            for key in settings.keys:
                channel.queue_bind(settings.queue, settings.exchange, key)
        channel.basic_qos(0, settings.prefetch, False)
        channel.basic_consume(settings.queue, callback=self._take)

    def _consume(self) -> None:
        """Until the broker is away."""
        while True:
            with suppress(TimeoutError):
                self._connection.drain_events(timeout=HEARTBEAT / 4)
            self._connection.heartbeat_tick()

    def _take(self, message: Any) -> None:
        """One message, to its end: acknowledged or rejected."""
        body = message.body
        try:
            received = read_event(body if isinstance(body, bytes) else str(body).encode())
            if not any(fnmatchcase(received.name, pattern) for pattern in self._settings.events):
                raise ValueError(f"event {received.name[:80]!r} is not one of events:")
            self._raise(received)
        except ValueError as error:
            self.outcomes["rejected"] += 1
            self._server.log("warning", "amqp_in_rejected", reason=str(error)[:200])
            message.channel.basic_reject(message.delivery_tag, requeue=False)
            return
        message.channel.basic_ack(message.delivery_tag)

    def _raise(self, received: Received) -> None:
        """What we have sent ourselves goes round no second time."""
        if received.source == source_of(self._server.node):
            self.outcomes["own"] += 1
            return
        while True:
            try:
                self._server.take(received)
            except NoRoom:
                gevent.sleep(NO_ROOM_PAUSE)
                continue
            except NoSuchCall:  # its call is over: nobody can take it any more
                self.outcomes["no_call"] += 1
                return
            self.outcomes["raised"] += 1
            return

    def _drop(self) -> None:
        if self._connection is not None:
            discard(self._connection)
            self._connection = None

    def stop(self) -> None:
        self._drop()


def check(settings: ConsumeSettings, events: Events) -> Iterator[SettingMistake]:
    """Patterns that stand for no event that others may raise."""
    known = [name for name, spec in events.items() if may_be_raised(spec)]
    for position, pattern in enumerate(settings.events):
        if pattern == "*" or any(fnmatchcase(name, pattern) for name in known):
            continue
        if pattern in events:
            message = f"the server raises {pattern!r} itself, others may not"
        else:
            message = f"no event fits {pattern!r}" if "*" in pattern or "?" in pattern else f"no event {pattern!r}"
            message += " that others may raise"
        yield SettingMistake(("events", position), message, pattern, known)


SERVICE = Service("amqp_in", "Raises events that come from a RabbitMQ queue.", Consumer, ConsumeSettings, check)
