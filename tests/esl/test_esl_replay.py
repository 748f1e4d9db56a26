"""Recorded streams through the whole way in - socket, link, channel table, translation - cut and chopped in every
manner.
"""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import pytest
from gevent.event import Event

from orchestrator.errors import EslError
from orchestrator.esl.backoff import Backoff
from orchestrator.esl.channels import ChannelTable
from orchestrator.esl.codec import EslEvent
from orchestrator.esl.translate import Translation, Translator, needed
from orchestrator.runtime.esl_link import EslLink, EslServer, SafeInboundESL, Snapshot
from orchestrator.testing.freeswitch import FakeFreeSwitch
from orchestrator.testing.recordings import Recording

pytestmark = pytest.mark.usefixtures("logged")

FLOWS = ["dtmf", "fax_tone", "beep", "execute_done"]


class Listener:
    """Link, table and translator, as the core has them."""

    def __init__(self, fs: FakeFreeSwitch, names: frozenset[str]) -> None:
        self.table = ChannelTable()
        self.translator = Translator(self.table)
        self.events: list[EslEvent] = []
        self.found: list[Translation] = []
        self.now = 0.0
        self._more = Event()
        self.link = EslLink(
            EslServer("fs1", fs.host, fs.port, fs.password),
            lambda: names,
            self._event,
            on_snapshot=self._snapshot,
            backoff=Backoff(lambda: 0.0, floor=0.001),
        )
        self.link.start()
        assert self.link.wait_up(5)

    def _event(self, server: str, event: EslEvent) -> None:
        self.now += 0.001
        self.events.append(event)
        self.found += self.translator.translate(server, event, self.now)
        self._more.set()

    def _snapshot(self, server: str, snapshot: Snapshot) -> None:
        self.table.resync(server, snapshot.rows, self.now, since=0.0, core_uuid=snapshot.core_uuid)

    def wait(self, count: int) -> None:
        with gevent.Timeout(20):
            while len(self.events) < count:
                self._more.clear()
                self._more.wait()

    def digits(self) -> dict[str, str]:
        heard: dict[str, str] = {}
        for one in self.found:
            if one.event.name == "dtmf":
                heard[one.uuid] = heard.get(one.uuid, "") + str(one.event.attributes["digit"])
        return heard


@pytest.fixture
def fs(recording) -> Iterator[FakeFreeSwitch]:
    with FakeFreeSwitch() as server:
        yield server


def conversation(recording: Recording, chunk: int) -> list[EslEvent]:
    """What a client gets of a recorded connection that arrives `chunk` octets at a time."""
    events: list[EslEvent] = []
    replies = sum(item.frame.content_type in ("command/reply", "api/response") for item in recording)
    with FakeFreeSwitch(conversation=recording) as fs:
        fs.chunk = chunk
        client = SafeInboundESL(fs.host, fs.port, fs.password, command_timeout=30)
        client.register_handle("*", events.append)
        client.connect()
        for number in range(1, replies):
            client.send(f"api {number}")
        with gevent.Timeout(30):
            while client.connected and len(events) + client.waiting < len(recording.events):
                gevent.sleep(0.001)
        client.end(EslError("enough"))
        assert client.join(5)
    assert client.counters.malformed == client.counters.unsolicited == 0
    return events


@pytest.mark.parametrize(
    ("name", "frames", "chunk"),
    [
        ("commands", None, 1),
        ("commands", None, 61),
        ("dtmf", 12, 1),
        ("dtmf", None, 7),
        ("dtmf", None, 997),
        ("dtmf_json", 12, 1),
        ("dtmf_json", None, 7),
        ("dtmf_json", None, 997),
        ("burst20", None, 1021),
    ],
)
def test_the_same_events_in_whatever_pieces(recording, name: str, frames: int | None, chunk: int) -> None:
    rec = recording(name)[:frames]
    assert [e.headers for e in conversation(rec, chunk)] == [e.headers for e in rec.events]


@pytest.mark.parametrize("name", ["dtmf", "via_bridge", "fax_ced"])
def test_a_connection_cut_behind_every_single_event(fs: FakeFreeSwitch, recording, name: str) -> None:
    """After each event the server is gone and comes back: every event arrives once, and means the same."""
    rec = recording(name)
    fs.core_uuid = rec.core_uuid
    fs.channels = [{"uuid": uuid, "direction": ""} for uuid in {e.uuid for e in rec.events if e.uuid}]
    listener = Listener(fs, needed(FLOWS))
    taken = fs.play(rec, cut_every=1)
    listener.wait(taken)
    listener.link.stop()
    wanted = [e for e in rec.events if e.name in needed(FLOWS)]
    assert [e.headers for e in listener.events] == [e.headers for e in wanted]
    assert listener.link.counters.drops == 2 * taken
    plain = Translator(ChannelTable())
    expected = [one for number, e in enumerate(wanted) for one in plain.translate("fs1", e, float(number))]
    assert [(t.event.name, dict(t.event.attributes)) for t in listener.found] == [
        (t.event.name, dict(t.event.attributes)) for t in expected
    ]


@pytest.mark.parametrize("cut_every", [0, 37])
def test_twenty_calls_at_once_keep_their_digits_in_order(fs: FakeFreeSwitch, recording, cut_every: int) -> None:
    rec = recording("burst20")
    fs.core_uuid = rec.core_uuid
    fs.channels = [{"uuid": uuid, "direction": ""} for uuid in {e.uuid for e in rec.events if e.uuid}]
    listener = Listener(fs, needed(["dtmf"]))
    taken = fs.play(rec, cut_every=cut_every)
    listener.wait(taken)
    listener.link.stop()
    sent: dict[str, str] = {}
    for event in rec.events:
        if event.name == "DTMF":
            sent[event.uuid] = sent.get(event.uuid, "") + event.get("DTMF-Digit")
    assert listener.digits() == sent
    assert sum(map(len, sent.values())) == 240
    assert len({one.sip_call_id for one in listener.found}) == 20


@pytest.mark.parametrize("octets", [0, 1, 17, 45, 52, 53, 54, 200, 1900])
def test_an_event_cut_in_the_middle_is_lost_alone(fs: FakeFreeSwitch, recording, octets: int) -> None:
    keys = recording("dtmf").only("DTMF").events
    fs.core_uuid = keys[0].core_uuid
    fs.channels = [{"uuid": keys[0].uuid, "direction": "inbound"}]
    listener = Listener(fs, needed(["dtmf"]))
    fs.emit(keys[0])
    fs.emit(keys[1], cut_after=octets)
    fs.wait_subscribed("DTMF")
    fs.emit(keys[2])
    listener.wait(2)
    listener.link.stop()
    assert listener.digits() == {keys[0].uuid: "2#"}
    assert listener.link.counters.malformed == 0


def test_a_forging_caller_is_one_channel_with_an_odd_name(fs: FakeFreeSwitch, recording) -> None:
    """S20: exactly one CHANNEL_CREATE, no key press, the line feeds inside the value."""
    created = recording("via_bridge").find("CHANNEL_CREATE")
    name = "bob%0AEvent-Name%3A%20DTMF%0ADTMF-Digit%3A%202%0AUnique-ID%3A%20victim-uuid%0AX%3A%20"
    listener = Listener(fs, needed(["dtmf"]))
    fs.emit(created, {"Caller-Caller-ID-Name": name, "variable_sip_h_X-Evil": name})
    fs.heartbeat()
    listener.wait(2)
    listener.link.stop()
    event = listener.events[0]
    assert [e.name for e in listener.events] == ["CHANNEL_CREATE", "HEARTBEAT"]
    assert event.uuid == created.uuid
    assert event.get("Caller-Caller-ID-Name").split("\n")[1] == "Event-Name: DTMF"
    assert listener.found == []
    assert listener.table.get("fs1", "victim-uuid") is None


def test_a_restart_in_the_middle_of_a_call_loses_it(fs: FakeFreeSwitch, recording) -> None:
    rec = recording("via_bridge")
    fs.core_uuid = rec.core_uuid
    listener = Listener(fs, needed(["dtmf"]))
    taken = fs.play(rec.only("CHANNEL_CREATE", "CHANNEL_ANSWER"))
    listener.wait(taken)
    assert len(listener.table) == 2
    fs.restart()
    fs.wait_subscribed("DTMF")
    fs.emit(rec.find("DTMF"))
    listener.wait(taken + 1)
    listener.link.stop()
    alive = [channel.uuid for channel in listener.table._servers["fs1"].channels.values() if not channel.destroyed]
    assert alive == [rec.find("DTMF").uuid]
    assert listener.table.core_uuid("fs1") == fs.core_uuid != rec.core_uuid
