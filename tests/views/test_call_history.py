"""The history of calls: what it holds, in which order, within which bounds, and that it costs nothing while no call of
a flow is up."""

from __future__ import annotations

from pathlib import Path

import pytest
from historykit import RELAY, Kept, texts

from orchestrator.errors import TooManyWatchersError
from orchestrator.flow.run.trace import TraceWritten
from orchestrator.history import CallLeg, CallRecord
from orchestrator.sip.points import Hop
from orchestrator.views import call_history
from orchestrator.views.call_history import HistoryBounds

WAITS = RELAY.replace("- relay", "- subscribe: registered\n        do: []\n      - relay")


def tell(kept: Kept, data: bytes) -> None:
    """A message that came from alice."""
    wire, point = kept.world.engine.history.wire, kept.world.engine.network.points[0]
    assert wire is not None
    wire(True, data, Hop(point, "10.0.0.2", 5060), kept.world.now)


def test_a_call_from_its_invite_to_its_last_answer_in_order(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    items = kept.items(kept.whole())
    assert [(item["kind"], item.get("direction", ""), item["text"]) for item in items] == [
        ("message", "received", "INVITE sip:bob@example.com SIP/2.0"),
        ("step", "", "flow main starts for alice@example.com -> bob@example.com"),
        ("step", "", "relay to registered"),
        ("step", "", "SIP >> INVITE to=sip:bob@10.0.0.3:5060"),
        ("message", "sent", "SIP/2.0 100 Trying"),
        ("message", "sent", "INVITE sip:bob@10.0.0.3:5060 SIP/2.0"),
        ("message", "received", "SIP/2.0 180 Ringing"),
        ("step", "", "SIP << 180 from sip:bob@10.0.0.3:5060"),
        ("message", "sent", "SIP/2.0 180 Ringing"),
        ("message", "received", "SIP/2.0 200 OK"),
        ("step", "", "SIP << 200 from sip:bob@10.0.0.3:5060"),
        ("step", "", "relay -> answered 200"),
        ("message", "sent", "SIP/2.0 200 OK"),
        ("message", "received", "ACK sip:bob@10.0.0.3:5060 SIP/2.0"),
        ("message", "sent", "ACK sip:bob@10.0.0.3:5060 SIP/2.0"),
        ("message", "received", "BYE sip:bob@10.0.0.3:5060 SIP/2.0"),
        ("step", "", "call ended by caller: normal"),
        ("message", "sent", "BYE sip:bob@10.0.0.3:5060 SIP/2.0"),
        ("message", "received", "SIP/2.0 200 OK"),
        ("message", "sent", "SIP/2.0 200 OK"),
    ]
    assert len({item["id"] for item in items}) == len(items)
    assert [item["time"] for item in items] == sorted(item["time"] for item in items)
    assert items[0]["time"] == "2027-01-15T08:00:00.110Z" and items[-1]["at"] == 2.12
    assert items[0]["peer"] == "10.0.0.2:5060" and items[0]["transport"] == "udp"
    assert items[2]["line"] == 6 and items[2]["step"].startswith("relay")
    told = kept.history.facts(next(kept.history.ended()).id)
    assert told is not None and not told["live"] and told["run"] == "main#1" and told["dropped"] == 0


def test_the_first_invite_is_whole_though_nobody_listened_when_it_came(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    kept.call()
    (first, *_) = kept.items(kept.id())
    sent = next(data for _, _, _, data in kept.world.sent if data.startswith(b"INVITE"))
    (_, via, *rest), lines = first["message"].split("\r\n"), sent.decode().split("\r\n")
    assert via.startswith(lines[1]) and rest == lines[2:]


def test_a_later_invite_is_octet_for_octet_what_came(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    kept.call()
    first = kept.id()
    carol = kept.world.phone("carol@example.com", "10.0.0.4")
    kept.call(carol)
    (second,) = [call.id for call in kept.world.engine.calls if call.id != first]
    sent = next(data for _, source, _, data in kept.world.sent if source == carol.address)
    assert kept.items(second)[0]["message"] == sent.decode()
    assert "carol" not in str(kept.items(first))


def test_nothing_is_listened_to_until_a_call_of_a_flow_begins_and_some_time_after_the_last(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    told = kept.world.engine.history.told

    def wire() -> object:
        return kept.world.engine.history.wire

    assert wire() is None and not kept.world.engine.bus.watchers
    kept.whole()
    assert wire() is not None and kept.history.live == 0
    kept.world.run(call_history.LINGER)
    kept.bob.register()
    kept.world.run(0.1)
    assert wire() is None and not kept.world.engine.bus.watchers
    assert TraceWritten not in told and not kept.history.listening and len(kept.history) == 1
    kept.whole()
    assert wire() is not None and len(kept.history) == 2


def test_a_call_without_a_flow_leaves_nothing(tmp_path: Path) -> None:
    kept = Kept(tmp_path, "flowlang: 1\nflows:\n  main:\n    on: {event: registered}\n    do: []\n")
    kept.call()
    assert len(kept.history) == 0 and not kept.history.listening


def test_without_messages_steps_stay(tmp_path: Path) -> None:
    kept = Kept(tmp_path, WAITS, HistoryBounds(messages=False))
    items = kept.items(kept.whole())
    assert {item["kind"] for item in items} == {"step"}
    assert kept.world.engine.history.wire is None
    kept.world.run(call_history.LINGER)
    kept.bob.register()
    kept.call()
    kept.bob.register()
    kept.world.run(0.1)
    assert kept.history.listening
    assert {item["kind"] for item in kept.items(kept.id())} == {"step"}


def test_events_of_the_call_stand_where_they_happened(tmp_path: Path) -> None:
    flow = RELAY.replace("      - relay", "      - subscribe: ringing\n        do: [log: it rings]\n      - relay")
    kept = Kept(tmp_path, flow)
    kept.call()
    items = kept.items(kept.id())
    (event,) = [item for item in items if item["kind"] == "event"]
    assert event["text"] == "ringing" and event["attributes"]["code"] == 180
    after = [item["text"] for item in items[items.index(event) :]]
    assert after[:3] == ["ringing", "handler of ringing runs (1)", "log: it rings"]
    assert [found.name for found in kept.history.recent("ringing")] == ["ringing"]


def test_jobs_of_the_call(tmp_path: Path) -> None:
    flow = RELAY.replace(
        "      - relay", "      - http: {url: 'https://x.test/secret'}\n        on_error: continue\n      - relay"
    )
    kept = Kept(tmp_path, flow)
    kept.call()
    kept.world.engine.complete(
        kept.world.jobs[0].id, {"status": 200, "ok": True, "body": None, "headers": {}}, kept.world.now
    )
    kept.world.run(0.1)
    (job,) = [item for item in kept.items(kept.id()) if item["kind"] == "job"]
    assert job["text"] == "http GET" and job["facts"] == {"server.address": "x.test"} and job["seconds"] == 0.09
    assert "secret" not in str(job)


def test_secrets_are_masked_when_shown(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    phone = kept.world.phone("bob@example.com", "10.0.0.9", parameters=";pn-prid=geheim")
    phone.register()
    kept.world.run()
    kept.alice.invite("bob@example.com", headers=(b'Authorization: Digest username="alice", response="deadbeef"',))
    kept.world.run(0.1)
    items = kept.items(kept.id())
    assert "geheim" not in str(items) and "deadbeef" not in str(items) and 'username="alice"' in str(items)


def test_a_challenged_call_keeps_its_own_messages(tmp_path: Path) -> None:
    flow = RELAY.replace("- relay", "- reply: 480\n        if: call.headers['X-Again'] == null\n      - relay")
    kept = Kept(tmp_path, flow)
    first = kept.alice.invite("bob@example.com")
    kept.world.run(0.1)
    (refused,) = kept.history.ended()
    again = kept.alice.invite("bob@example.com", call_id=first.call_id, headers=(b"X-Again: 1",))
    kept.world.run(0.1)
    assert again is not None
    assert texts(kept.items(refused.id), "message")[-1].startswith("ACK ")
    assert "X-Again" in kept.items(kept.id())[0]["message"]


# --- following --------------------------------------------------------------------------------------------------------


def test_who_follows_is_woken_and_gets_each_fact_once(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    call = kept.call()
    id, woken, seen = kept.id(), list[int](), list[dict[str, object]]()

    def take() -> None:
        seen.extend(kept.items(id, str(seen[-1]["id"]) if seen else ""))

    number = kept.history.follow(id, lambda: woken.append(1))
    assert number is not None
    take()
    before = len(woken)
    kept.bob.calls[0].answer()
    kept.world.run(0.1)
    assert len(woken) > before
    take()
    call.hangup()
    kept.world.run(1)
    take()
    assert seen == kept.items(id)
    kept.history.unfollow(number)
    kept.history.unfollow(number)
    assert TraceWritten not in kept.world.engine.history.told


@pytest.mark.parametrize("every", range(20))
def test_from_each_fact_on_it_goes_on_without_a_gap(tmp_path: Path, every: int) -> None:
    kept = Kept(tmp_path)
    items = kept.items(kept.whole())
    assert kept.items(next(kept.history.ended()).id, items[every]["id"]) == items[every + 1 :]


@pytest.mark.parametrize("id", ["x", "1", "1.", ".2", "²." + "9" * 50, "-1.-1", "9" * 60 + ".1"])
def test_a_position_that_is_none_is_the_beginning(tmp_path: Path, id: str) -> None:
    kept = Kept(tmp_path)
    call = kept.whole()
    assert kept.items(call, id) == kept.items(call)


def test_a_call_that_is_not_known_cannot_be_followed(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    assert kept.history.follow("nobody", lambda: None) is None
    assert kept.history.facts("nobody") is None


def test_no_more_followers_than_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_history, "FOLLOWERS", 2)
    kept = Kept(tmp_path)
    id = kept.whole()
    kept.history.follow(id, lambda: None)
    kept.history.follow(id, lambda: None)
    with pytest.raises(TooManyWatchersError):
        kept.history.follow(id, lambda: None)


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_a_long_call_keeps_its_beginning_and_its_end(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    call = kept.call()
    id = kept.id()
    kept.bob.calls[0].answer()
    kept.world.run(0.1)
    for number in range(300):
        tell(kept, b"INFO sip:bob@x SIP/2.0\r\nCall-ID: %b\r\nX: %d\r\n\r\n" % (call.call_id, number))
    told = kept.history.facts(id)
    assert told is not None
    messages = [item for item in told["items"] if item["kind"] == "message"]
    assert len(messages) == call_history.FIRST + call_history.LAST
    assert messages[0]["text"].startswith("INVITE") and "X: 299" in messages[-1]["message"]
    assert told["dropped"] == kept.history.dropped == 300 + 9 - len(messages)


def test_a_call_with_huge_messages_is_bounded_in_octets(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    call = kept.call()
    id = kept.id()
    for _ in range(40):
        data = b"INFO sip:bob@x SIP/2.0\r\nCall-ID: %b\r\n\r\n%b" % (call.call_id, b"x" * 60_000)
        tell(kept, data)
    found = kept.history.find(id)
    assert found is not None and found.octets <= call_history.LARGEST
    assert texts(kept.items(id), "message")[0].startswith("INVITE")


def test_memory_is_bounded_and_the_oldest_ended_call_goes_first(tmp_path: Path) -> None:
    kept = Kept(tmp_path, bounds=HistoryBounds(memory=100_000))
    ids = [kept.whole() for _ in range(12)]
    left = [call.id for call in kept.history.ended()]
    assert kept.history.octets <= 100_000 and left == ids[::-1][: len(left)] and 0 < len(left) < 12
    assert kept.history.facts(ids[0]) is None
    sizes = sum(call.octets for call in kept.history.ended())
    assert kept.history.octets == sizes


def test_where_live_calls_fill_the_memory_they_lose_their_middle(tmp_path: Path) -> None:
    kept = Kept(tmp_path, bounds=HistoryBounds(memory=20_000))
    calls = [kept.call(kept.world.phone(f"a{n}@example.com", f"10.0.1.{n}")) for n in range(8)]
    for call in kept.bob.calls:
        call.answer()
    kept.world.run(0.1)
    assert kept.history.octets <= 20_000 and kept.history.dropped > 0
    for call in calls:
        call.hangup()
    kept.world.run(1)
    assert kept.history.octets == sum(call.octets for call in kept.history.ended()) <= 20_000


def test_ended_calls_are_bounded_in_number(tmp_path: Path) -> None:
    kept = Kept(tmp_path, bounds=HistoryBounds(calls=2))
    ids = [kept.whole() for _ in range(4)]
    assert [call.id for call in kept.history.ended()] == [ids[3], ids[2]]
    assert not kept.history._legs.keys() - {leg for call in kept.history.ended() for leg in call.call_ids}


def test_a_call_that_has_gone_without_a_record_is_swept(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    for number in range(103):
        kept.world.engine.history.tell(CallLeg(f"gone{number}", b"leg%d" % number, b"leg%d" % number))
    assert kept.history.live == 2  # since the sweep


def test_a_record_is_kept_with_its_call(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    records: list[CallRecord] = []
    kept.world.engine.history.listen(CallRecord, records.append)
    kept.whole()
    (ended,) = kept.history.ended()
    assert ended.record == records[0] and ended.run is None and ended.run_name == "main#1"


def test_recent_events_are_bounded_by_octets(tmp_path: Path) -> None:
    """50 of each of 200 names, of 10 KB each, would be 100 MB."""
    heard = WAITS.replace("subscribe: registered", "subscribe: door")
    heard = heard.replace("flows:", "events:\n  door: {front: text}\nflows:")
    kept = Kept(tmp_path, heard)
    kept.call()
    large, small = "x" * 9_000, "y"
    for text in (*[small] * 60, *[large] * 3, *[small] * 4):
        kept.world.engine.publish("door", {"front": text})
    found = [event.attributes["front"] for event in kept.history.recent("door")]
    assert found == [large, large, *[small] * 4]
