"""Actions and events of other packages: found by their entry points, checked and run like those built in."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

import orchestrator.flow.actions  # noqa: F401  fills ACTIONS
from orchestrator.cli import cli
from orchestrator.errors import InputError, OrchestratorError
from orchestrator.events.event import Attribute, Event, EventSpec
from orchestrator.events.registry import BUILTIN_EVENTS
from orchestrator.flow.language import packages
from orchestrator.flow.language.packages import known_events, load_packages
from orchestrator.flow.language.program import Step
from orchestrator.flow.language.registry import ACTIONS, Action, Actions, Field, Kind
from orchestrator.flow.loader import Source, load_sources
from orchestrator.flow.run import effects
from orchestrator.flow.run.task import Steps, Task
from orchestrator.flow.tools.schema import flow_schema
from orchestrator.packages.groups import ACTION_GROUP, EVENT_GROUP
from orchestrator.testing.world import World

FLOW = """\
flowlang: 1
flows:
  f:
    on: invite
    do:
      - sms: {to: '${call.to.user}', text: missed}
        as: sent
      - log: 'sent: ${string(sent)}'
      - wait: sms_read
        where: {to: '${call.to.user}'}
        for: 10s
        on_timeout: [{reply: 480}, stop]
      - reply: 486
"""


def sms_package() -> ModuleType:
    """A package as somebody else would write it."""
    module = ModuleType("orchestrator_sms")
    send = Action(
        "sms",
        "Send a text message.",
        fields=(Field("to", Kind.TEXT, "Number.", required=True), Field("text", Kind.TEXT, "What to say.")),
        result="sms result",
        waits=True,
    )

    @send.performs
    def sms(task: Task, step: Step) -> Steps:
        answer: Mapping[str, Any] = yield effects.Http("POST", "https://sms.example", json=task.value(step, "to"))
        return answer["status"]

    attributes = {"to": Attribute("to", "digits")}
    module.SEND = send  # type: ignore[attr-defined]
    module.EVENTS = [EventSpec("sms_read", "A message was read.", "global", attributes)]  # type: ignore[attr-defined]
    return module


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EntryPoint]]:
    """The package is installed; what is found can be changed."""
    found = [
        EntryPoint("sms", "orchestrator_sms:SEND", ACTION_GROUP),
        EntryPoint("sms", "orchestrator_sms:EVENTS", EVENT_GROUP),
    ]
    monkeypatch.setitem(sys.modules, "orchestrator_sms", sms_package())
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [e for e in found if e.group == group])
    monkeypatch.setattr(ACTIONS, "_by_name", dict(ACTIONS._by_name))
    known_events.cache_clear()
    yield found
    known_events.cache_clear()


def test_a_flow_uses_an_action_and_an_event_of_a_package(package: list[EntryPoint]) -> None:
    program, warnings = load_sources([Source("f.flow.yaml", FLOW)])
    assert warnings == []
    world = World(program)
    logged: list[str] = []
    world.engine.host.on_log = lambda run, effect: logged.append(effect.text)
    world.on_job = lambda job: {"status": 202}
    ask = world.peer("alice", "10.0.0.2").ask("INVITE", "sip:301@example.com")
    world.run(1)
    assert logged == ["sent: 202"]
    world.engine.bus.publish(Event("sms_read", {"to": "302"}))
    world.run(1)
    assert ask.statuses == [100]
    world.engine.bus.publish(Event("sms_read", {"to": "301"}))
    world.run(1)
    assert ask.final.status == 486


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("text: missed", "txt: missed", "E114"),
        ("{to: '${call.to.user}', text: missed}", "{text: missed}", "E115"),
        ("where: {to:", "where: {from:", "E206"),
        ("sms_read", "sms_red", "E112"),
    ],
)
def test_they_are_checked_like_those_built_in(package: list[EntryPoint], old: str, new: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_sources([Source("f.flow.yaml", FLOW.replace(old, new))])


def test_they_are_looked_for_once(package: list[EntryPoint]) -> None:
    load_sources([Source("f.flow.yaml", FLOW)])
    package.clear()
    load_sources([Source("f.flow.yaml", FLOW)])


def test_schema_and_catalogue_know_them(package: list[EntryPoint]) -> None:
    listed = CliRunner().invoke(cli, ["events", "sms_read"])
    assert listed.exit_code == 0 and "A message was read." in listed.output
    schema = CliRunner().invoke(cli, ["schema"])
    assert '"sms"' in schema.output and "sms_read" in schema.output
    assert json.loads(schema.output) == json.loads(json.dumps(flow_schema(events=known_events())))


def test_without_packages_there_is_what_is_built_in() -> None:
    registry = Actions()
    assert load_packages(lambda group: (), registry) == BUILTIN_EVENTS
    assert list(registry) == []


def test_a_module_may_have_added_its_action_itself(package: list[EntryPoint]) -> None:
    ACTIONS.add(sys.modules["orchestrator_sms"].SEND)
    load_sources([Source("f.flow.yaml", FLOW)])


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (EntryPoint("x", "nowhere_to_be_found:X", ACTION_GROUP), "ModuleNotFoundError: No module named"),
        (EntryPoint("x", "orchestrator_sms:GONE", ACTION_GROUP), "AttributeError: "),
        (EntryPoint("x", "orchestrator_sms:EVENTS", ACTION_GROUP), "it is no Action"),
        (EntryPoint("x", "orchestrator_sms:SEND", EVENT_GROUP), "it is no EventSpec"),
        (EntryPoint("x", "orchestrator.flow.actions.call:LEGS", ACTION_GROUP), "it is no Action"),
        (EntryPoint("x", "orchestrator.events.registry:BUILTIN_EVENTS", EVENT_GROUP), "event 'registered' is defined"),
        (EntryPoint("x", "copied:RELAY", ACTION_GROUP), "action 'relay' is defined twice"),
    ],
    ids=lambda value: getattr(value, "value", None),
)
def test_a_package_that_cannot_be_used_is_named(
    package: list[EntryPoint], monkeypatch: pytest.MonkeyPatch, entry: EntryPoint, reason: str
) -> None:
    copied = ModuleType("copied")
    copied.RELAY = Action("relay", "Somebody else's.")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "copied", copied)
    package.append(entry)
    with pytest.raises(OrchestratorError) as caught:
        packages.known_events()
    assert f"x = {entry.value} ({entry.group}) cannot be used: {reason}" in str(caught.value)


@pytest.mark.parametrize(
    ("field", "hears", "reason"),
    [
        (Field("cases", Kind.CASES, ""), False, "it needs another kind"),
        (Field("event", Kind.EVENT, ""), False, "it needs hears=True"),
        (Field("event", Kind.EVENT, ""), True, ""),
    ],
)
def test_a_key_that_would_be_ignored_is_refused(
    package: list[EntryPoint], monkeypatch: pytest.MonkeyPatch, field: Field, hears: bool, reason: str
) -> None:
    odd = ModuleType("odd")
    odd.ODD = Action("odd", "Odd.", fields=(field,), hears=hears)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "odd", odd)
    package.append(EntryPoint("odd", "odd:ODD", ACTION_GROUP))
    if not reason:
        assert known_events()
        return
    with pytest.raises(OrchestratorError, match=reason):
        known_events()
