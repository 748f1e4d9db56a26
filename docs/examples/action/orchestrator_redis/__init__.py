"""The action `redis_get`: read a value from Redis while a call waits.

- redis_get: 'forward:${call.to.user}'
  as: target
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO

from gevent import socket

from orchestrator.errors import StepError
from orchestrator.flow.language.program import Step
from orchestrator.flow.language.registry import Action, Field, Kind
from orchestrator.flow.run.task import Steps, Task
from orchestrator.flow.run.traits import PoolEffect

LONGEST = 65_536
"""Octets of a value that a flow may read."""


@dataclass(slots=True)
class RedisGet(PoolEffect):
    """`GET key`. The answer is the value as text, or None when there is no such key."""

    name = "redis_get"
    size = 16
    backlog = 200
    timeout = 2.0
    key: str
    host: str
    port: int

    def perform(self) -> str | None:
        """Runs in a greenlet: it may wait for the network. Raises StepError."""
        key = self.key.encode()
        try:
            with socket.create_connection((self.host, self.port)) as connection:
                connection.sendall(b"*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n" % (len(key), key))
                with connection.makefile("rb") as stream:
                    return _value(stream)
        except OSError as error:
            raise StepError("redis_get.connect", f"{self.host}:{self.port}: {error}") from None


def _value(stream: IO[bytes]) -> str | None:
    """The reply to GET: `$5`, five octets; `$-1`; or `-ERR reason`. Raises StepError."""
    line = stream.readline(1000).rstrip(b"\r\n")
    if line[:1] == b"$" and line[1:].isdigit() and int(line[1:]) <= LONGEST:
        return stream.read(int(line[1:])).decode("utf-8", "replace")
    if line == b"$-1":
        return None
    raise StepError("redis_get.refused", line[:200].decode("utf-8", "replace") or "the connection was closed")


REDIS_GET = Action(
    "redis_get",
    "Read the value of a key from Redis; null when there is none.",
    short="key",
    fields=(
        Field("key", Kind.TEXT, "The key.", required=True),
        Field("host", Kind.TEXT, "Address of the Redis server, default 127.0.0.1."),
        Field("port", Kind.NUMBER, "Its port, default 6379."),
    ),
    result="redis value",  # a type of our own: the checker lets it stand where any value may
    waits=True,
    in_on_end=True,
)


@REDIS_GET.performs
def redis_get(task: Task, step: Step) -> Steps:
    """What `yield` returns is what `perform` has returned; an error of it is raised here."""
    key = task.value(step, "key")
    value: str | None = yield RedisGet(key, task.value(step, "host", "127.0.0.1"), int(task.value(step, "port", 6379)))
    task.trace(step, f"redis_get {key} -> {'null' if value is None else value}")
    return value
