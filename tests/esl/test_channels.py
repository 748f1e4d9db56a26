"""The channel table: from recordings of real calls to who is who."""

from __future__ import annotations

import pytest

from orchestrator.esl.channels import LOST, TTL, WINDOW, ChannelTable, parse_channels
from orchestrator.esl.codec import API_RESPONSE, EslEvent
from orchestrator.testing.recordings import Recording, rewrite

CALLER = "1-2239@127.0.0.1"
CALLEE = "b9086ca5-fa13-46e0-9180-46063e449f34"


def event(name: str, uuid: str = "", **headers: str) -> EslEvent:
    lines = {"Event-Name": name, "Unique-ID": uuid or None, **{k.replace("_", "-"): v for k, v in headers.items()}}
    return EslEvent.plain(rewrite(b"Core-UUID: core-1\n\n", lines))


def answers(recording: Recording) -> list[str]:
    """Outputs of the api commands: create_uuid, show channels as json, uuid_dump … json, …"""
    return [item.frame.text for item in recording if item.frame.content_type == API_RESPONSE]


def create(table: ChannelTable, uuid: str, now: float = 0.0, direction: str = "inbound", **headers: str) -> None:
    table.observe("fs1", event("CHANNEL_CREATE", uuid, Call_Direction=direction, **headers), now)


def first(events: list[EslEvent], name: str) -> int:
    return next(number for number, each in enumerate(events) if each.name == name)


def replay(table: ChannelTable, events: list[EslEvent], server: str = "fs1") -> None:
    for number, each in enumerate(events):
        table.observe(server, each, float(number))


# --- learning
# ------------------------------------------------------------------------------------------------------------


def test_the_call_of_relay_via(recording) -> None:
    """uuid is Call-ID on both legs, both carry our header, and each knows the other before anybody answers."""
    table = ChannelTable()
    events = recording("via_bridge").events
    replay(table, events[: first(events, "CHANNEL_ANSWER")])
    caller, callee = table.get("fs1", CALLER), table.get("fs1", CALLEE)
    assert (caller.leg, caller.sip_call_id, caller.x_call) == ("caller", CALLER, "c-42")
    assert (callee.leg, callee.sip_call_id, callee.x_call) == ("callee", CALLEE, "c-42")
    assert table.other(callee) is caller
    assert not caller.answered
    replay(table, events)
    assert caller.answered
    assert callee.answered
    assert table.other(caller) is callee
    assert table.by_call_id(CALLER) == [caller]
    assert (caller.destroyed, caller.hangup_cause) == (True, "NORMAL_CLEARING")


def test_an_outbound_leg_gets_its_call_id_with_the_answer(recording) -> None:
    table = ChannelTable()
    events = recording("dtmf").events
    created = recording("dtmf").find("CHANNEL_CREATE", Call_Direction="outbound")
    table.observe("fs1", created, 0.0)
    channel = table.get("fs1", created.uuid)
    assert channel.sip_call_id == ""
    assert table.by_call_id(created.uuid) == [channel]
    replay(table, events)
    assert channel.sip_call_id == recording("dtmf").find("CHANNEL_ANSWER", Unique_ID=created.uuid).get(
        "variable_sip_call_id"
    )
    assert channel in table.by_call_id(channel.sip_call_id)


def test_every_leg_of_twenty_calls_at_once(recording) -> None:
    table = ChannelTable()
    events = recording("burst20").events
    replay(table, [e for e in events if e.name != "CHANNEL_DESTROY"])
    legs = [table.get("fs1", uuid) for uuid in {e.uuid for e in events if e.uuid}]
    assert len(legs) == 40
    assert sorted(leg.leg for leg in legs) == ["callee"] * 20 + ["caller"] * 20
    assert all(leg.sip_call_id for leg in legs)
    assert len({leg.sip_call_id for leg in legs}) == 20  # both legs of a looped call share the dialog
    assert all(len(table.by_call_id(leg.sip_call_id)) == 2 for leg in legs)


def test_a_failed_call_leaves_its_cause(recording) -> None:
    table = ChannelTable()
    replay(table, recording("call_failed").events)
    channels = [table.get("fs1", e.uuid) for e in recording("call_failed").only("CHANNEL_DESTROY").events]
    assert channels
    assert all(not channel.answered and channel.hangup_cause not in ("", LOST) for channel in channels)


def test_a_channel_met_in_the_middle_of_its_call(recording) -> None:
    """The first event we ever see is a key press: direction and other leg stand in it, the Call-ID does not."""
    table = ChannelTable()
    channel = table.observe("fs1", recording("via_bridge").find("DTMF"), 0.0)
    assert (channel.uuid, channel.leg, channel.other_uuid, channel.sip_call_id) == (CALLEE, "callee", CALLER, "")
    data = EslEvent.json(answers(recording("commands"))[2])  # api uuid_dump … json
    assert data.name == "CHANNEL_DATA"
    learned = table.observe("fs2", data, 0.0)
    assert (learned.sip_call_id, learned.answered) == (data.get("variable_sip_call_id"), True)


def test_an_event_that_says_too_little_starts_no_channel(recording) -> None:
    table = ChannelTable()
    assert table.observe("fs1", recording("avmd_beep").find("avmd::beep"), 0.0) is None
    assert table.observe("fs1", recording("heartbeat").find("HEARTBEAT"), 0.0) is None
    assert len(table) == 0


def test_a_bridge_joins_channels_that_were_not_made_by_each_other(recording) -> None:
    """Intercept: the picker's channel and the caller's, after the ringing leg has gone."""
    table = ChannelTable()
    events = recording("pickup_intercept").events
    bridge = events[first(events, "CHANNEL_BRIDGE")]
    replay(table, events[: first(events, "CHANNEL_BRIDGE") + 1])
    one, two = (table.get("fs1", bridge.get(f"Bridge-{side}-Unique-ID")) for side in "AB")
    assert table.other(one) is two
    assert table.other(two) is one


def test_channel_uuid_moves_the_entry() -> None:
    table = ChannelTable()
    create(table, "a", variable_sip_call_id="call-1")
    create(table, "b", direction="outbound", Other_Leg_Unique_ID="a")
    channel = table.get("fs1", "a")
    table.observe("fs1", event("CHANNEL_BRIDGE", "a", Bridge_A_Unique_ID="a", Bridge_B_Unique_ID="b"), 1.0)
    table.observe("fs1", event("CHANNEL_UUID", "a2", Old_Unique_ID="a", Call_Direction="inbound"), 2.0)
    assert table.get("fs1", "a") is None
    assert table.get("fs1", "a2") is channel
    assert table.get("fs1", "b").other_uuid == "a2"
    assert table.by_call_id("a2") == [channel]
    assert table.by_call_id("a") == []


def test_which_tone_the_detector_was_told_to_hear(recording) -> None:
    for name, tone in (("fax_cng", "cng"), ("fax_ced", "ced")):
        table = ChannelTable()
        replay(table, recording(name).events)
        assert table.get("fs1", recording(name).find("DETECTED_TONE").uuid).fax_tone == tone


# --- the end of a channel
# --------------------------------------------------------------------------------------------------


def test_a_destroyed_channel_is_remembered_for_a_while() -> None:
    table = ChannelTable()
    create(table, "a", variable_sip_call_id="call-1")
    table.observe("fs1", event("CHANNEL_DESTROY", "a", Hangup_Cause="USER_BUSY", Call_Direction="inbound"), 10.0)
    assert table.observe("fs1", event("DTMF", "a", Call_Direction="inbound"), 11.0).hangup_cause == "USER_BUSY"
    assert all(channel.destroyed for channel in table._servers["fs1"].channels.values())
    table.expire(10.0 + TTL)
    assert table.get("fs1", "a") is None
    assert table.by_call_id("call-1") == []
    assert len(table) == 0


def test_a_uuid_used_again_is_a_new_channel() -> None:
    """With uuid = Call-ID a caller that is challenged comes back under the same uuid."""
    table = ChannelTable()
    create(table, "call-1", variable_sip_call_id="call-1")
    table.observe("fs1", event("CHANNEL_DESTROY", "call-1", Call_Direction="inbound"), 1.0)
    create(table, "call-1", 2.0, variable_sip_call_id="call-1")
    channel = table.get("fs1", "call-1")
    assert not channel.destroyed
    table.expire(1.0 + TTL)
    assert table.get("fs1", "call-1") is channel
    assert table.by_call_id("call-1") == [channel]


def test_nothing_is_left_after_all_calls_have_ended(recording) -> None:
    table = ChannelTable()
    for name in ("burst20", "via_bridge", "dtmf", "pickup_intercept", "call_failed"):
        replay(table, recording(name).events, name)
    table.expire(1e9)
    assert len(table) == 0
    assert not table._index


def test_another_core_ends_all_channels_of_that_server() -> None:
    table = ChannelTable()
    create(table, "a", variable_sip_call_id="call-1")
    table.observe("fs2", event("CHANNEL_CREATE", "b", Call_Direction="inbound"), 0.0)
    table.observe("fs1", event("HEARTBEAT", Core_UUID="core-2"), 1.0)
    assert [(channel.uuid, channel.hangup_cause) for channel in table.lost] == [("a", LOST)]
    assert table.get("fs1", "a") is None
    assert table.by_call_id("call-1") == []
    assert table.get("fs2", "b") is not None
    assert table.core_uuid("fs1") == "core-2"


# --- resync
# --------------------------------------------------------------------------------------------------------------


def test_resync_finds_and_loses(recording) -> None:
    rows = parse_channels(answers(recording("commands"))[1])
    assert len(rows) == 2
    table = ChannelTable()
    create(table, "gone")
    create(table, rows[0]["uuid"], direction=rows[0]["direction"])
    lost, found = table.resync("fs1", rows, now=5.0, since=4.0)
    assert [(channel.uuid, channel.hangup_cause) for channel in lost] == [("gone", LOST)]
    assert [(channel.uuid, channel.leg, channel.answered) for channel in found] == [(rows[1]["uuid"], "caller", True)]
    assert table.resync("fs1", rows, now=6.0, since=4.0) == ([], [])


def test_resync_spares_what_was_heard_of_since_the_connect() -> None:
    """The list lags some milliseconds behind the events: a channel just created is missing in it."""
    table = ChannelTable()
    create(table, "new", now=4.5)
    assert table.resync("fs1", [], now=5.0, since=4.0) == ([], [])
    assert table.resync("fs1", [], now=9.0, since=8.0).lost == [table.get("fs1", "new")]


def test_resync_does_not_raise_the_dead() -> None:
    table = ChannelTable()
    create(table, "a")
    table.observe("fs1", event("CHANNEL_DESTROY", "a", Call_Direction="inbound"), 4.5)
    assert table.resync("fs1", [{"uuid": "a", "direction": "inbound"}], now=5.0, since=4.0) == ([], [])
    assert table.get("fs1", "a").destroyed


def test_resync_with_another_core_loses_everything() -> None:
    table = ChannelTable()
    create(table, "a")
    lost, found = table.resync("fs1", [{"uuid": "z", "direction": "outbound", "call_uuid": "y"}], 5.0, 4.0, "core-2")
    assert [channel.uuid for channel in lost] == ["a"]
    assert [(channel.uuid, channel.other_uuid) for channel in found] == [("z", "y")]
    assert table.lost == []


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('{"row_count":0}', []),
        ('{"row_count":1,"rows":[{"uuid":"a"},7]}', [{"uuid": "a"}]),
        ("-ERR no reply", None),
        ("[]", None),
        ('{"rows":5}', None),
        ("", None),
    ],
)
def test_rows_of_show_channels(text: str, rows: object) -> None:
    assert parse_channels(text) == rows


def test_rows_without_a_uuid_are_ignored() -> None:
    assert ChannelTable().resync("fs1", [{}, {"uuid": None}], 1.0, 0.0) == ([], [])


# --- duplicates
# ----------------------------------------------------------------------------------------------------------


def test_a_bare_twin_does_not_eat_the_fuller_one(recording) -> None:
    table = ChannelTable()
    bare, full = recording("tone_detect_parked_duplicate").only("DETECTED_TONE").events
    assert bare.sequence == full.sequence
    assert (bare.uuid, bool(full.uuid)) == ("", True)
    assert [table.duplicate("fs1", e) for e in (bare, full)] == [False, False]
    assert [table.duplicate("fs1", e) for e in (bare, full)] == [True, True]
    other = ChannelTable()
    assert [other.duplicate("fs1", e) for e in (full, bare)] == [False, True]


def test_events_fired_twice_on_a_parked_channel(recording) -> None:
    table = ChannelTable()
    events = recording("avmd_beep_api_parked.eslrec").events
    kept = [e for e in events if not table.duplicate("fs1", e)]
    assert len(kept) < len(events)
    assert len({e.sequence for e in kept if e.uuid}) == len([e for e in kept if e.uuid])
    assert {e.sequence for e in kept} == {e.sequence for e in events}


@pytest.mark.parametrize("name", ["dtmf", "burst20", "via_bridge", "fax_cng"])
def test_no_event_of_an_ordinary_stream_is_a_duplicate(recording, name: str) -> None:
    table = ChannelTable()
    assert not any(table.duplicate("fs1", e) for e in recording(name).events)


def test_sequences_are_told_apart_by_server_and_core() -> None:
    table = ChannelTable()
    first = event("DTMF", "a", Event_Sequence="7")
    assert not table.duplicate("fs1", first)
    assert not table.duplicate("fs2", first)
    assert table.duplicate("fs1", first)
    assert not table.duplicate("fs1", event("DTMF", "a", Event_Sequence="7", Core_UUID="core-2"))
    assert not table.duplicate("fs1", event("X"))
    assert not table.duplicate("fs1", event("X"))


def test_the_window_is_bounded() -> None:
    table = ChannelTable()
    for number in range(5 * WINDOW):
        assert not table.duplicate("fs1", event("DTMF", "a", Event_Sequence=str(number)))
    node = table._servers["fs1"]
    assert len(node.recent) + len(node.older) <= 2 * WINDOW
    assert table.duplicate("fs1", event("DTMF", "a", Event_Sequence=str(4 * WINDOW)))
