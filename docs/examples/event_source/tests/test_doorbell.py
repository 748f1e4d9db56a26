"""What becomes of a datagram."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from orchestrator_doorbell import DOORBELL, Doorbell, DoorbellSettings

from orchestrator.testing.services import FakeServer


@pytest.fixture
def server() -> FakeServer:
    return FakeServer("doorbell", [DOORBELL])


@pytest.fixture
def bell(server: FakeServer) -> Iterator[Doorbell]:
    bell = Doorbell(server, DoorbellSettings(port=0))
    yield bell
    bell.stop()


def test_a_datagram_becomes_an_event(server: FakeServer, bell: Doorbell) -> None:
    bell.take(b'{"door": "front", "ring": "301"}', ("192.0.2.1", 5000))
    (event,) = server.published
    assert (event.name, event.attributes) == ("doorbell", {"door": "front", "ring": "301"})


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"{}", b'{"door": 5}', b'{"door": "a", "x": 1}', b"[" * 1500])
def test_rubbish_is_counted_and_nothing_raised(server: FakeServer, bell: Doorbell, data: bytes) -> None:
    bell.take(data, ("192.0.2.1", 5000))
    assert (server.published, server.read("malformed")) == ([], 1)
