"""Events of packages that FreeSWITCH raises: subscribed to as their specs say, read by the package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from orchestrator.esl.channels import ChannelTable
from orchestrator.esl.codec import EslEvent
from orchestrator.esl.translate import Translator, needed
from orchestrator.events.event import Attribute, EventSpec
from orchestrator.events.registry import BUILTIN_EVENTS
from orchestrator.flow.language.usage import usage_of
from orchestrator.flow.loader import Source, load_sources
from orchestrator.testing.world import World

FLOW = """flowlang: 1
flows:
  f:
    on: {event: mail_left}
    do:
      - log: 'mail for ${event.box}'
"""


def read(headers: Mapping[str, str], body: str, leg: str) -> Mapping[str, Any] | None:
    if headers.get("VM-Action") == "bug":
        raise KeyError("a bug of the package")
    return {"box": headers["VM-User"]} if headers.get("VM-Action") == "leave-message" else None


MAIL = EventSpec("mail_left", "", "global", {"box": Attribute("box", "text")}, "", ("CUSTOM vm::maintenance",), read)


def event(action: str, user: str = "301") -> EslEvent:
    head = "Event-Name: CUSTOM\nEvent-Subclass: vm%3A%3Amaintenance\n"
    return EslEvent.plain(f"{head}VM-Action: {action}\nVM-User: {user}\n\n".encode())


def test_its_subscription_follows_its_spec() -> None:
    program, _ = load_sources([Source("f.flow.yaml", FLOW)], events=(*BUILTIN_EVENTS, MAIL))
    assert "CUSTOM vm::maintenance" in needed(usage_of(program).events, (), program.events)
    assert "CUSTOM vm::maintenance" not in needed([], (), program.events)


@pytest.mark.parametrize(
    ("action", "texts", "faults"), [("leave-message", ["mail for 301"], 0), ("read", [], 0), ("bug", [], 1)]
)
def test_a_freeswitch_event_becomes_the_event_of_the_package(action: str, texts: list[str], faults: int) -> None:
    program, _ = load_sources([Source("f.flow.yaml", FLOW)], events=(*BUILTIN_EVENTS, MAIL))
    world = World(program)
    world.engine.flows.launch()
    logged: list[str] = []
    world.engine.host.on_log = lambda run, effect: logged.append(effect.text)
    world.engine.faults.told = lambda fault: None
    world.engine.receive_esl("fs1", event(action), 0.0)
    world.run(1)
    assert (logged, world.engine.faults.count) == (texts, faults)


def test_without_a_reader_nothing_is_raised() -> None:
    translator = Translator(ChannelTable())
    translator.load(BUILTIN_EVENTS, ())
    assert translator.translate("fs1", event("leave-message"), 0.0) == []
