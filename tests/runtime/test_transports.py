"""How the configuration finds a transport: one of ours, or one of a package with settings of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from orchestrator.errors import InputError, OrchestratorError
from orchestrator.listening import Listening
from orchestrator.packages import transport as packages
from orchestrator.packages.transport import TransportKind, find_transport
from orchestrator.runtime import transports
from orchestrator.settings import read_settings, reader, values
from orchestrator.sip.points import Hop, Point


class Pigeons(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    colour: str = "grey"


class Loft:
    def __init__(self, host: str, port: int, context: Any) -> None:
        self.name = f"pigeon:{host}:{port}"
        self.address = host, port
        self.received = self.sent = 0
        self.errors: Counter[str] = Counter()
        self.settings, self.message, self.numbers = context.settings, context.message, [context.number() for _ in "ab"]
        self.closed = False

    def start(self, inputs: Any, point: Point, at: Callable[[str], Point] | None) -> None: ...
    def send(self, data: bytes, hop: Hop) -> None: ...
    def revive(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True


PIGEON = TransportKind("pigeon", "RFC 1149.", Loft, reliable=False, secure=True, default_port=1149, settings=Pigeons)


class Entry:
    def __init__(self, name: str, stands_for: Any) -> None:
        self.name, self.value, self._stands_for = name, "loft:PIGEON", stands_for

    def load(self) -> Any:
        return self._stands_for


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> TransportKind | None:
        return packages.find_transport(name, lambda group: [Entry("pigeon", PIGEON)])

    monkeypatch.setattr(transports, "find_transport", find)
    monkeypatch.setattr(reader, "find_transport", find)
    for module in (values, reader):
        monkeypatch.setattr(module, "transport_names", lambda: ["pigeon"])


@pytest.mark.usefixtures("installed")
def test_a_transport_of_a_package_is_opened_with_its_settings() -> None:
    text = "sip: {listen: ['pigeon:127.0.0.1:7'], transports: {pigeon: {colour: white}}}\nlimits: {message: 2000}"
    with ExitStack() as stack:
        listening = Listening(read_settings("o.yml", text, {}), stack)
        (loft,) = listening.transports
        assert isinstance(loft, Loft)
        assert loft.settings == Pigeons(colour="white") and loft.message == 2000
        assert len(set(loft.numbers)) == 2 and 0 not in loft.numbers
        assert listening.addresses == ["pigeon:127.0.0.1:7"]
    assert loft.closed


@pytest.mark.usefixtures("installed")
def test_its_settings_are_held_against_its_model() -> None:
    with pytest.raises(InputError) as refused:
        read_settings("o.yml", "sip: {transports: {pigeon: {color: white}}}", {})
    (found,) = refused.value.diagnostics
    assert (found.message, found.help) == ("unknown key 'color'", "did you mean 'colour'?")


def test_a_transport_that_is_not_installed_is_named() -> None:
    with pytest.raises(InputError) as refused:
        read_settings("o.yml", "sip: {transports: {pigeon: {}}}", {})
    assert "no installed package has a transport 'pigeon'" in refused.value.diagnostics[0].message
    with pytest.raises(OrchestratorError, match="no installed package has a transport 'pigeon'"):
        transports.transport_kind("pigeon")


def test_what_is_no_kind_is_refused() -> None:
    with pytest.raises(OrchestratorError, match="it is no TransportKind"):
        find_transport("pigeon", lambda group: [Entry("pigeon", "a bird")])


@pytest.mark.parametrize("kind", transports.BUILT_IN.values(), ids=lambda kind: kind.name)
def test_ours_are_kinds_like_any_other(kind: TransportKind) -> None:
    assert transports.transport_kind(kind.name) is kind
    assert kind.reliable is (kind.name != "udp")
    assert kind.secure is (kind.name in values.SECURE)
