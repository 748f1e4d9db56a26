"""Phones that listen to an MQTT broker while they sleep: door stations, meters, machines (MQTT 5, OASIS standard).

    push:
      services:
        mqtt: {host: 127.0.0.1, user: orchestrator, password: {env: MQTT_PASSWORD}, prefix: phones}

A phone registers with `pn-provider=mqtt;pn-prid=NAME` and has subscribed to `phones/NAME`. A push is a message
of quality of service 1: sent when the broker has acknowledged it, failed when nobody is subscribed.
"""

from __future__ import annotations

import json
import socket
import struct
from math import ceil

from gevent.lock import BoundedSemaphore
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from orchestrator.packages.push_service import PushDown, PushServiceKind
from orchestrator.sip.push import Push, Pushed

CONNECT, CONNACK, PUBLISH, PUBACK = 0x10, 0x20, 0x32, 0x40
"""Types of packets, §2.1.2; PUBLISH with quality of service 1."""
NOBODY = 0x10
"""Reason code of PUBACK: no matching subscribers."""
LONGEST = 65_536
"""Octets of a packet that we read."""


class MqttSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str
    port: int = Field(default=1883, ge=1, le=65_535)
    user: str | None = None
    password: SecretStr | None = None
    prefix: str = "phones"
    """What stands in front of the name of a phone in its topic."""


class Mqtt:
    """One broker, one connection, one message at a time."""

    def __init__(self, settings: MqttSettings) -> None:
        self._settings = settings
        self._socket: socket.socket | None = None
        self._busy = BoundedSemaphore()
        self._number = 0

    def check(self) -> list[str]:
        settings = self._settings
        if settings.password is not None and settings.user is None:
            return ["password: is of no use without user:"]
        return []

    def start(self) -> None:
        """Nothing to do: it connects when there is something to send."""

    def server_of(self, push: Push) -> str:
        return ""

    def send(self, push: Push) -> Pushed:
        name = push.address.prid
        if not name or len(name) > 200 or not name.isprintable() or any(mark in name for mark in "/+#"):
            return Pushed("failed", "pn-prid is not the name of a topic")  # a phone must not choose any topic it likes
        payload = json.dumps({"kind": push.kind, **push.data}, default=str).encode()
        with self._busy:
            try:
                reason = self._publish(f"{self._settings.prefix}/{name}", payload, max(1, ceil(push.ttl)))
            except (
                BaseException
            ) as trouble:  # its time may be over, too: what comes later must not be taken for an answer
                self.stop()
                if isinstance(trouble, OSError):
                    raise PushDown(f"broker: {trouble}") from None
                raise
        if reason == NOBODY:
            return Pushed("failed", "nobody is subscribed to its topic")
        return Pushed("failed", f"the broker refuses it: {reason:#04x}") if reason >= 0x80 else Pushed("sent")

    def stop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    # --- MQTT ---------------------------------------------------------------------------------------------------------

    def _publish(self, topic: str, payload: bytes, seconds: int) -> int:
        """The reason code of the acknowledgement. Raises OSError, PushDown."""
        wire = self._socket or self._connect()
        self._number = self._number % 65_535 + 1
        number = struct.pack("!H", self._number)
        expiry = b"\x05\x02" + struct.pack("!L", seconds)  # one property of five octets: message expiry interval
        wire.sendall(_packet(PUBLISH, _text(topic) + number + expiry + payload))
        kind, body = _read(wire)
        if kind != PUBACK or body[:2] != number:
            raise ConnectionError(f"packet {kind:#04x} in place of an acknowledgement")
        return body[2] if len(body) > 2 else 0

    def _connect(self) -> socket.socket:
        settings = self._settings
        wire = self._socket = socket.create_connection((settings.host, settings.port))
        flags, login = 0x02, b""  # a new session
        if settings.user is not None:
            flags, login = flags | 0x80, _text(settings.user)
        if settings.user is not None and settings.password is not None:
            flags, login = flags | 0x40, login + _text(settings.password.get_secret_value())
        wire.sendall(_packet(CONNECT, _text("MQTT") + bytes([5, flags, 0, 0, 0]) + _text("") + login))
        kind, body = _read(wire)
        if kind != CONNACK or len(body) < 2:
            raise ConnectionError(f"packet {kind:#04x} in place of a welcome")
        if body[1]:
            raise PushDown(f"the broker lets us not in: {body[1]:#04x}", final=True)
        return wire


def _text(text: str) -> bytes:
    octets = text.encode()
    return struct.pack("!H", len(octets)) + octets


def _packet(kind: int, body: bytes) -> bytes:
    """With its length in seven bits an octet (§1.5.5)."""
    length, left = b"", len(body)
    while True:
        left, low = left >> 7, left & 0x7F
        length += bytes([low | 0x80 if left else low])
        if not left:
            return bytes([kind]) + length + body


def _read(wire: socket.socket) -> tuple[int, bytes]:
    kind, length, shift = _octets(wire, 1)[0], 0, 0
    while True:
        octet = _octets(wire, 1)[0]
        length |= (octet & 0x7F) << shift
        shift += 7
        if not octet & 0x80:
            break
        if shift > 21:
            raise ConnectionError("a length that is none")
    if length > LONGEST:
        raise ConnectionError(f"a packet of {length} octets")
    return kind, _octets(wire, length)


def _octets(wire: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        piece = wire.recv(count - len(found))
        if not piece:
            raise ConnectionError("the broker has closed the connection")
        found += piece
    return found


SERVICE = PushServiceKind("mqtt", "Phones that listen to an MQTT broker.", Mqtt, MqttSettings, concurrency=1)
