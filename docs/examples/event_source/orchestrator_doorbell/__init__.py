"""The event `doorbell`: somebody is at a door.

Door stations say so in a UDP datagram: {"door": "front", "ring": "301"}.

services:
  doorbell: {listen: 0.0.0.0, port: 9000}
"""

from __future__ import annotations

import json

from gevent import socket
from pydantic import BaseModel, ConfigDict, Field

from orchestrator.events.event import Attribute, EventSpec
from orchestrator.packages.service import ServerContext, Service

DOORBELL = EventSpec(
    "doorbell",
    "Somebody has rung at a door.",
    "global",
    {
        "door": Attribute("door", "text", "Name of the door."),
        "ring": Attribute("ring", "digits", "Whom to ring.", optional=True),
    },
    source="door stations, over UDP",
)


class DoorbellSettings(BaseModel):
    """What stands under `services: {doorbell: {...}}`; values of the file are text, pydantic reads them."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    listen: str = "127.0.0.1"
    port: int = Field(9000, ge=0, le=65_535)


class Doorbell:
    """Listens as long as the server runs."""

    def __init__(self, server: ServerContext, settings: DoorbellSettings) -> None:
        self.server = server
        self.malformed = 0
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((settings.listen, settings.port))  # fails at the start, with the address in the message
        server.counter("malformed", "Datagrams that are no ring of a door.", lambda: self.malformed)

    def start(self) -> None:
        self.server.spawn(self.listen)

    def listen(self) -> None:
        while True:
            data, source = self.socket.recvfrom(2000)
            self.take(data, source)

    def take(self, data: bytes, source: tuple[str, int]) -> None:
        """One datagram of a stranger: whatever is in it, the next one is read."""
        try:
            said = json.loads(data)
            if not isinstance(said, dict):
                raise ValueError("it is not a JSON object")
            self.server.publish("doorbell", said)
        except (ValueError, RecursionError) as error:
            self.malformed += 1
            self.server.log("warning", "doorbell_malformed", address=source[0], reason=str(error)[:200])

    def stop(self) -> None:
        self.socket.close()


SERVICE = Service("doorbell", "Raises doorbell for datagrams of door stations.", Doorbell, DoorbellSettings)
