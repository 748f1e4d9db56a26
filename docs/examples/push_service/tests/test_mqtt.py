from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterator

import pytest
from orchestrator_mqtt import SERVICE, Mqtt, MqttSettings
from pydantic import SecretStr

from orchestrator.packages.push_service import PushDown
from orchestrator.sip.push import Push, PushAddress, Pushed

WELCOME = b"\x20\x03\x00\x00\x00"
TAKEN, NOBODY, REFUSED = 0x00, 0x10, 0x97


class Broker:
    """Takes connections in a thread of its own, and says to each message what `reasons` has next; None: it hangs up."""

    def __init__(self) -> None:
        self.welcome = WELCOME
        self.reasons: list[int | None] = []
        self.packets: list[tuple[int, bytes]] = []
        self.connections = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        while True:
            try:
                wire, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            with wire:
                self.talk(wire)

    def talk(self, wire: socket.socket) -> None:
        stream = wire.makefile("rb")
        while head := stream.read(2):
            assert head[1] < 0x80
            body = stream.read(head[1])
            self.packets.append((head[0], body))
            if head[0] == 0x10:
                wire.sendall(self.welcome)
                continue
            reason = self.reasons.pop(0) if self.reasons else TAKEN
            if reason is None:
                return
            number = 2 + struct.unpack("!H", body[:2])[0]
            wire.sendall(b"\x40\x03" + body[number : number + 2] + bytes([reason]))


@pytest.fixture
def broker() -> Iterator[Broker]:
    broker = Broker()
    yield broker
    broker.listener.shutdown(socket.SHUT_RDWR)
    broker.listener.close()
    broker.thread.join(20)


@pytest.fixture
def mqtt(broker: Broker) -> Iterator[Mqtt]:
    mqtt = Mqtt(MqttSettings(host="127.0.0.1", port=broker.port, user="u", password=SecretStr("p")))
    mqtt.start()
    yield mqtt
    mqtt.stop()


def push(name: str = "door-7") -> Push:
    address = PushAddress("mqtt", "", name, tokens={"": name})
    return Push("mqtt", address, "call", 19.2, "door@example.com", "c1", data={"from": "sip:a@example.com"})


def test_a_push_is_a_message(broker: Broker, mqtt: Mqtt) -> None:
    assert mqtt.send(push()) == mqtt.send(push()) == Pushed("sent")
    assert broker.connections == 1
    (_, connect), (kind, publish), _ = broker.packets
    assert connect == b"\x00\x04MQTT\x05\xc2\x00\x00\x00\x00\x00\x00\x01u\x00\x01p"
    topic = b"\x00\x0dphones/door-7"
    assert kind == 0x32 and publish.startswith(topic)
    assert publish[len(topic) :][:8] == b"\x00\x01\x05\x02\x00\x00\x00\x14"  # number 1, for 20 seconds
    assert json.loads(publish[len(topic) + 8 :]) == {"kind": "call", "from": "sip:a@example.com"}


def test_what_the_broker_says(broker: Broker, mqtt: Mqtt) -> None:
    broker.reasons = [NOBODY, REFUSED]
    assert mqtt.send(push()) == Pushed("failed", "nobody is subscribed to its topic")
    assert mqtt.send(push()) == Pushed("failed", "the broker refuses it: 0x97")


def test_a_broker_that_hangs_up_is_connected_to_again(broker: Broker, mqtt: Mqtt) -> None:
    broker.reasons = [None]
    with pytest.raises(PushDown):
        mqtt.send(push())
    assert mqtt.send(push()).outcome == "sent"
    assert broker.connections == 2


def test_a_login_that_is_refused(broker: Broker, mqtt: Mqtt) -> None:
    broker.welcome = b"\x20\x03\x00\x87\x00"
    with pytest.raises(PushDown, match="0x87") as caught:
        mqtt.send(push())
    assert caught.value.final


@pytest.mark.parametrize("name", ["#", "a/b", "+", "a\0b", "x" * 300, ""])
def test_a_phone_does_not_choose_any_topic(broker: Broker, mqtt: Mqtt, name: str) -> None:
    assert mqtt.send(push(name)) == Pushed("failed", "pn-prid is not the name of a topic")
    assert not broker.packets


def test_check() -> None:
    assert Mqtt(MqttSettings(host="h")).check() == []
    assert Mqtt(MqttSettings(host="h", password=SecretStr("p"))).check() == ["password: is of no use without user:"]
    assert SERVICE.name == "mqtt"
