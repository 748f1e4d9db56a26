"""FreeSWITCH events to typed events: names, attributes, legs, and whose call it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from orchestrator.esl.channels import ChannelTable
from orchestrator.esl.codec import EslEvent
from orchestrator.esl.commands import subscriptions
from orchestrator.esl.translate import CHANNEL_EVENTS, Headers, Translation, Translator, needed
from orchestrator.events.registry import EventRegistry
from orchestrator.testing.recordings import Recording, rewrite

TYPES: Mapping[str, Any] = {"text": str, "digits": str, "number": (int, float), "bool": bool, "map": Mapping}


def translate(events: list[EslEvent], fs: tuple[str, ...] = ()) -> list[Translation]:
    translator = Translator(ChannelTable(), fs)
    return [found for number, event in enumerate(events) for found in translator.translate("fs1", event, float(number))]


def named(found: list[Translation], name: str) -> list[Translation]:
    return [translation for translation in found if translation.event.name == name]


def test_keys_of_both_legs(recording) -> None:
    callee, caller = named(translate(recording("via_bridge").events), "dtmf")
    assert {**callee.event.attributes, "ms": None} == {
        "digit": "5",
        "ms": None,
        "leg": "callee",
        "source": "APP",
        "uuid": "b9086ca5-fa13-46e0-9180-46063e449f34",
    }
    assert (caller.event.attributes["digit"], caller.event.attributes["leg"]) == ("1", "caller")
    assert (callee.sip_call_id, callee.other_call_id) == (callee.uuid, "1-2239@127.0.0.1")
    assert (caller.sip_call_id, caller.other_call_id) == ("1-2239@127.0.0.1", callee.uuid)
    assert caller.x_call == callee.x_call == "c-42"
    assert (caller.event.call, caller.server) == ("", "fs1")


def test_the_milliseconds_of_a_key(recording) -> None:
    events = recording("dtmf").events
    assert [t.event.attributes["ms"] for t in named(translate(events), "dtmf")] == [260, 260, 260]
    assert {e.get("DTMF-Duration") for e in events if e.name == "DTMF"} == {"2080"}


@pytest.mark.parametrize(("name", "digits"), [("dtmf", "25#"), ("dtmf_json", None), ("dtmf_park.eslrec", None)])
def test_digits_of_a_call(recording, name: str, digits: str | None) -> None:
    rec: Recording = recording(name)
    expected = digits or "".join(event.get("DTMF-Digit") for event in rec.only("DTMF").events)
    found = named(translate(rec.events), "dtmf")
    assert "".join(t.event.attributes["digit"] for t in found) == expected
    assert all(t.sip_call_id and t.event.attributes["leg"] == "caller" for t in found)


def test_each_of_twenty_calls_gets_its_digits_in_order(recording) -> None:
    events = recording("burst20").events
    sent: dict[str, str] = {}
    for event in events:
        if event.name == "DTMF":
            sent[event.uuid] = sent.get(event.uuid, "") + event.get("DTMF-Digit")
    heard: dict[str, str] = {}
    for found in named(translate(events), "dtmf"):
        heard[found.uuid] = heard.get(found.uuid, "") + str(found.event.attributes["digit"])
    assert heard == sent
    assert len(heard) == 20
    assert all(len(digits) == 12 for digits in heard.values())


@pytest.mark.parametrize(("name", "tone"), [("fax_cng", "cng"), ("fax_ced", "ced")])
def test_fax_tones(recording, name: str, tone: str) -> None:
    (found,) = named(translate(recording(name).events), "fax_tone")
    assert dict(found.event.attributes) == {"tone": tone, "leg": "caller"}
    assert found.sip_call_id


@pytest.mark.parametrize(("direction", "leg", "tone"), [("inbound", "caller", "cng"), ("outbound", "callee", "ced")])
def test_the_tone_each_side_would_send_where_nobody_said_which(recording, direction: str, leg: str, tone: str) -> None:
    heard = recording("fax_cng").find("DETECTED_TONE")
    event = EslEvent.plain(rewrite(heard.block, {"Call-Direction": direction}))
    (found,) = translate([event])
    assert dict(found.event.attributes) == {"tone": tone, "leg": leg}


@pytest.mark.parametrize("name", ["tone_detect", "tone_detect_parked_duplicate"])
def test_other_tones_are_no_fax(recording, name: str) -> None:
    assert named(translate(recording(name).events), "fax_tone") == []


def test_a_beep(recording) -> None:
    (found,) = named(translate(recording("avmd_beep").events), "beep")
    assert dict(found.event.attributes) == {"frequency": 1000.011279, "ms": 1299, "leg": "callee"}
    assert found.uuid == "v1"


def test_a_beep_on_an_unknown_channel_is_an_orphan(recording) -> None:
    translator = Translator(ChannelTable())
    assert translator.translate("fs1", recording("avmd_beep").find("avmd::beep"), 0.0) == []
    assert translator.orphans == 1


def test_execute_done(recording) -> None:
    found = named(translate(recording("dtmf").events), "execute_done")
    assert [t.event.attributes["app"] for t in found] == ["answer", "set", "park", "park"]
    assert {t.event.attributes["response"] for t in found} == {""}
    done = recording("dtmf").find("CHANNEL_EXECUTE_COMPLETE")
    assert found[0].event.attributes["uuid"] == done.get("Application-UUID")


REGISTER = {
    "Event-Name": "CUSTOM",
    "Event-Subclass": "sofia::register",
    "from-user": "bob",
    "from-host": "example.com",
    "to-user": "alice",
    "to-host": "example.net",
    "contact": '"B" <sip:bob;x=1@10.0.0.7:5062;transport=udp;pn-provider=apns;fs_nat=yes;fs_path=sip%3A10.0.0.1%3Blr>',
    "expires": "3600",
    "network-ip": "10.0.0.7",
    "user-agent": "phone/1",
}


def test_a_registration_at_freeswitch() -> None:
    event = EslEvent.plain(rewrite(b"Core-UUID: c\n\n", REGISTER))
    (found,) = translate([event])
    assert dict(found.event.attributes) == {
        "aor": "bob@example.com",
        "contact": "sip:bob;x=1@10.0.0.7:5062",
        "uri": "sip:bob;x=1@10.0.0.7:5062;transport=udp;pn-provider=apns",
        "expires": 3600,
        "user_agent": "phone/1",
        "source_ip": "10.0.0.7",
        "path": "sip:10.0.0.1;lr",
        "mobile": True,
        "is_new": True,
        "instance": None,
    }
    assert (found.uuid, found.sip_call_id) == ("", "")


def test_a_refreshed_registration_without_brackets() -> None:
    changed = REGISTER | {"contact": "sip:10.0.0.7", "update-reg": "true"}
    (found,) = translate([EslEvent.plain(rewrite(b"Core-UUID: c\n\n", changed))])
    attributes = found.event.attributes
    assert (attributes["contact"], attributes["uri"], attributes["is_new"]) == ("sip:10.0.0.7", "sip:10.0.0.7", False)
    assert (attributes["mobile"], attributes["path"]) == (False, None)


def test_any_event_as_it_is(recording) -> None:
    found = translate(recording("avmd_beep").events, ("avmd::start", "HEARTBEAT"))
    start, heartbeat = [t for t in found if t.event.name == "fs"]
    if start.event.attributes["name"] == "HEARTBEAT":
        start, heartbeat = heartbeat, start
    assert start.event.attributes["name"] == "avmd::start"
    assert start.event.attributes["uuid"] == "v1"
    assert start.event.attributes["headers"]["Call-command"] == "avmd"
    assert heartbeat.event.attributes["uuid"] is None
    assert heartbeat.sip_call_id == ""


def test_headers_are_a_mapping(recording) -> None:
    event = recording("dtmf").find("DTMF")
    headers = Headers(event)
    assert dict(headers) == event.headers
    assert len(headers) == len(event.headers)
    assert "DTMF-Digit" in headers
    assert "DTMF" not in headers
    assert headers.get("Nope") is None
    with pytest.raises(KeyError):
        headers["Nope"]


def test_a_pair_of_twins_gives_one_event(recording) -> None:
    translator = Translator(ChannelTable(), ["DETECTED_TONE"])
    bare, full = recording("tone_detect_parked_duplicate").only("DETECTED_TONE").events
    found = [t for e in (full, bare, full) for t in translator.translate("fs1", e, 0.0)]
    assert [t.uuid for t in found] == [full.uuid]
    assert translator.duplicates == 2


@pytest.mark.parametrize("digit", ["", "_undef_"])
def test_a_key_without_a_digit_is_none(recording, digit: str) -> None:
    event = EslEvent.plain(rewrite(recording("dtmf").find("DTMF").block, {"DTMF-Digit": digit}))
    assert translate([event]) == []


@pytest.mark.parametrize("duration", ["", "abc", "-8", "9" * 40])
def test_figures_that_are_none_become_zero(recording, duration: str) -> None:
    event = EslEvent.plain(rewrite(recording("dtmf").find("DTMF").block, {"DTMF-Duration": duration}))
    assert translate([event])[0].event.attributes["ms"] == 0


@pytest.mark.parametrize(
    "name", ["dtmf", "dtmf_json", "via_bridge", "fax_cng", "fax_ced", "avmd_beep", "burst20", "pickup_intercept"]
)
def test_everything_raised_is_as_the_catalogue_says(recording, name: str) -> None:
    registry = EventRegistry()
    keys = {event.key for event in recording(name).events}
    for found in translate(recording(name).events, tuple(keys)):
        spec = registry[found.event.name]
        assert found.event.attributes.keys() == spec.attributes.keys()
        for attribute in spec.attributes.values():
            value = found.event.attributes[attribute.name]
            if value is None:
                assert attribute.optional
            else:
                assert isinstance(value, TYPES[attribute.type])
            if attribute.values:
                assert value in attribute.values


def test_what_has_to_be_subscribed_to() -> None:
    assert needed([]) == {*CHANNEL_EVENTS, "BACKGROUND_JOB", "HEARTBEAT"}
    names = needed(["dtmf", "beep", "ringing"], fs=["RECV_INFO", "valet_parking::info"])
    assert names == needed([]) | {"DTMF", "CUSTOM avmd::beep", "RECV_INFO", "CUSTOM valet_parking::info"}
    assert len(subscriptions(names)) == 2


def test_the_catalogue_and_the_translation_name_the_same_subscriptions() -> None:
    for spec in EventRegistry():
        assert needed([spec.name]) == needed([]) | set(spec.esl)


def test_what_is_subscribed_to_suffices(recording) -> None:
    """Only the events a link asks for, instead of all: the same translations."""
    for name in ("via_bridge", "dtmf", "fax_ced", "fax_cng", "avmd_beep", "burst20"):
        events = recording(name).events
        wanted = needed(["dtmf", "fax_tone", "beep", "execute_done"])
        asked = [e for e in events if e.name in wanted or f"CUSTOM {e.subclass}" in wanted]
        assert len(asked) < len(events)
        few = [
            (t.event.name, dict(t.event.attributes), t.sip_call_id, t.other_call_id, t.x_call) for t in translate(asked)
        ]
        all_ = [
            (t.event.name, dict(t.event.attributes), t.sip_call_id, t.other_call_id, t.x_call)
            for t in translate(events)
        ]
        assert few == all_
