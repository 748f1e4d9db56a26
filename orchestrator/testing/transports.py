"""A server for the tests of a transport: it keeps what the transport brings, on the loop of the test.

inputs = FakeInputs()
transport = KIND.open("127.0.0.1", 0, FakeContext(KIND.settings()))
transport.start(inputs, Point(0, KIND.name, *transport.address), None)
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from time import monotonic
from typing import Any

import gevent
from pydantic import BaseModel

from orchestrator.errors import MalformedMessage
from orchestrator.packages.service import NoSettings
from orchestrator.packages.transport import Transport
from orchestrator.sip.points import Hop


class FakeContext:
    """A `TransportContext`."""

    def __init__(self, settings: BaseModel | None = None, message: int = 65_535) -> None:
        self.settings: Any = settings if settings is not None else NoSettings()
        self.message = message
        self._numbers = count(1)

    def number(self) -> int:
        return next(self._numbers)


class FakeInputs:
    """`Inputs` without a server; the lists say what came, in order."""

    def __init__(self) -> None:
        self.loop: Any = gevent.get_hub().loop
        self.clock: Callable[[], float] = monotonic
        self.messages: list[tuple[bytes, Hop]] = []
        self.malformed: list[tuple[bytes, MalformedMessage, Hop]] = []
        self.unsent: list[tuple[bytes, Hop]] = []
        self.connections_lost: list[Hop] = []
        self.settled = 0

    def attach(self, transport: Transport) -> int:
        return 0

    def receive(self, data: bytes, hop: Hop, now: float) -> None:
        self.messages.append((data, hop))

    def receive_malformed(self, data: bytes, error: MalformedMessage, hop: Hop, now: float) -> None:
        self.malformed.append((data, error, hop))

    def settle(self) -> None:
        self.settled += 1

    def failed(self, destination: Hop, data: bytes) -> None:
        self.unsent.append((data, destination))

    def lost(self, hop: Hop) -> None:
        self.connections_lost.append(hop)

    def wait(self, condition: Callable[[], object], seconds: float = 20.0) -> None:
        """Let the loop turn until the condition holds. Raises TimeoutError."""
        deadline = monotonic() + seconds
        while not condition():
            if monotonic() > deadline:
                raise TimeoutError("it did not happen in time")
            gevent.sleep(0.001)
