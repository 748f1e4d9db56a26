"""The catalogue is FLOWLANG §4.4, word for word; a registry never mixes the events of two programs."""

from __future__ import annotations

import pytest

from orchestrator.events.event import EventSpec
from orchestrator.events.registry import BUILTIN_EVENTS, EventRegistry, build_event, custom_event

# the table of FLOWLANG §4.4: name, scope, attributes
TABLE = """
registered | global | aor: text, contact: text, uri: text, expires: number, user_agent: text, source_ip: text,
    path: text or nothing, mobile: true/false, is_new: true/false, instance: text or nothing
unregistered | global | aor: text, contact: text, reason: removed/expired/replaced
push_failed | global | aor: text, contact: text, service: text, reason: text, dead: true/false
dtmf | call | digit: digits, ms: number, leg: caller/callee, source: text, uuid: text or nothing
ringing | call | branch: text, code: number, contact: text
answered | call | contact: text, leg: caller/callee
branch_failed | call | branch: text, code: number, reason: text, contact: text
hangup | call | leg: caller/callee, cause: text, code: number or nothing
fax_tone | call | tone: cng/ced, leg: caller/callee
beep | call | frequency: number, ms: number, leg: caller/callee
silence | call | ms: number, leg: caller/callee
decision | call | verdict: human/machine/beep/fax/silence/timeout, ms: number, leg: caller/callee
execute_done | call | app: text, response: text, uuid: text
fs | global | name: text, uuid: text or nothing, headers: map, body: text
fs.link | global | server: text, state: up/down, reason: text or nothing
gateway_down | global | gateway: text, reason: text
gateway_up | global | gateway: text, reason: text
charge_stop | call | reason: text
limit_reached | call | usage: duration
low_balance | call | usage: duration
"""


def described(spec: EventSpec) -> str:
    """A spec in the notation of the table."""
    words = []
    for attribute in spec.attributes.values():
        word = "/".join(attribute.values) or {"bool": "true/false"}.get(attribute.type, attribute.type)
        words.append(f"{attribute.name}: {word}{' or nothing' if attribute.optional else ''}")
    return f"{spec.name} | {spec.scope} | {', '.join(words)}"


def test_builtin_events_are_those_of_the_language() -> None:
    assert [described(spec) for spec in BUILTIN_EVENTS] == TABLE.replace("\n    ", " ").strip().splitlines()


def test_event_socket_names() -> None:
    registry = EventRegistry()
    assert {spec.name: spec.esl for spec in registry if spec.esl} == {
        "registered": ("CUSTOM sofia::register",),
        "dtmf": ("DTMF",),
        "fax_tone": ("DETECTED_TONE", "CHANNEL_EXECUTE_COMPLETE"),
        "beep": ("CUSTOM avmd::beep",),
        "silence": ("RECORD_STOP",),
        "decision": ("RECORD_STOP", "CUSTOM avmd::beep", "DETECTED_TONE", "DTMF"),
        "execute_done": ("CHANNEL_EXECUTE_COMPLETE",),
    }


def test_custom_event() -> None:
    spec = custom_event("pickup", {"group": "optional digits", "picker": "digits"})
    assert spec.scope == "global"
    assert spec.attributes["group"].optional and spec.attributes["group"].type == "digits"
    assert not spec.attributes["picker"].optional


@pytest.mark.parametrize("word", ["txt", "optional", "optional txt", "", "a/b"])
def test_custom_event_with_an_unknown_type_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match="unknown type"):
        custom_event("pickup", {"group": word})


def test_custom_events_stay_with_their_program() -> None:
    registry = EventRegistry()
    extended = EventRegistry((*registry, custom_event("pickup", {"picker": "digits"})))
    assert "pickup" in extended and "pickup" not in registry
    assert len(extended) == len(registry) + 1
    assert extended["pickup"].attributes["picker"].type == "digits"
    assert registry.get("pickup") is None


def test_a_builtin_event_cannot_be_redefined() -> None:
    with pytest.raises(ValueError, match="'dtmf' is defined twice"):
        EventRegistry((*EventRegistry(), custom_event("dtmf", {"digit": "digits"})))


def test_build_fills_in_what_is_optional() -> None:
    event = build_event(EventRegistry()["hangup"], {"leg": "caller", "cause": "normal"}, call="c1", time=3.0)
    assert event.attributes == {"leg": "caller", "cause": "normal", "code": None}
    assert (event.name, event.call, event.time) == ("hangup", "c1", 3.0)


def test_build_keeps_false_and_zero() -> None:
    event = build_event(EventRegistry()["beep"], {"frequency": 0, "ms": 0, "leg": "callee"})
    assert event.attributes["frequency"] == 0


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"leg": "caller"}, "needs attribute 'cause'"),
        ({"leg": "caller", "cause": "x", "legg": "y"}, "no attribute 'legg'"),
    ],
)
def test_build_refuses_what_the_spec_does_not_say(attributes: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_event(EventRegistry()["hangup"], attributes)
