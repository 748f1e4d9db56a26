"""The double itself: it answers as the recordings do, and does what a test tells it."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic

import gevent
import pytest

from orchestrator.errors import EslError, EslRefused
from orchestrator.esl.codec import EslEvent, Frame
from orchestrator.runtime.esl_link import SafeInboundESL
from orchestrator.testing.freeswitch import FakeFreeSwitch
from orchestrator.testing.recordings import Recording

pytestmark = pytest.mark.usefixtures("logged")


@pytest.fixture
def fs() -> Iterator[FakeFreeSwitch]:
    with FakeFreeSwitch() as server:
        yield server


class Client:
    """A connected client that keeps its events; `settle` waits until what was sent before has been delivered."""

    def __init__(self, fs: FakeFreeSwitch, subscribe: str = "event plain ALL", **options: str) -> None:
        self.events: list[EslEvent] = []
        self.notices: list[Frame] = []
        self.esl = SafeInboundESL(fs.host, fs.port, options.pop("password", fs.password), **options)
        self.esl.register_handle("*", self.events.append)
        self.esl.register_handle("DISCONNECT", self.notices.append)
        self.esl.connect()
        if subscribe:
            self.esl.send(subscribe)

    def settle(self) -> list[EslEvent]:
        done = gevent.event.Event()
        self.esl.send("api status")
        self.esl.defer(done.set)
        assert done.wait(5)
        return self.events


# --- replies
# ---------------------------------------------------------------------------------------------------------------


def test_its_replies_are_those_of_the_recording(fs: FakeFreeSwitch, recording) -> None:
    """The commands behind commands.esl, asked again: the same replies but for what names a channel or a job."""
    recorded = [item.frame for item in recording("commands") if item.event is None]
    filter_added = next(frame.text for frame in recorded if "filter added" in frame.text)
    client = Client(fs, "")
    asked = {
        "event plain CHANNEL_CREATE": "+OK event listener enabled plain",
        f"filter Unique-ID {filter_added.rpartition('[')[2][:-1]}": filter_added,
        "api uuid_kill nobody": "-ERR No such channel!\n",
        "api nosuchcommand": "-ERR nosuchcommand Command not found!\n",
        "nosuchcommand": "-ERR command not found",
        "sendmsg u": "+OK",
        "filter delete all": "+OK filter deleted. [all][]",
        "nixevent CHANNEL_CREATE": "+OK events nixed",
        "exit": "+OK bye",
    }
    texts = {frame.text for frame in recorded}
    for command, text in asked.items():
        assert client.esl.send(command).text == text
        assert text in texts
    client.esl.join(5)
    assert client.notices[0].body == recorded[-1].body
    assert client.notices[0].head == recorded[-1].head


def test_a_recorded_conversation_is_played_octet_for_octet(recording) -> None:
    for name in ("commands", "dtmf_json", "heartbeat"):
        with FakeFreeSwitch(conversation=recording(name)) as fs:
            client = Client(fs, "")
            replies = [item for item in recording(name) if item.frame.content_type in ("command/reply", "api/response")]
            texts = [client.esl.send(f"api {number}").text for number in range(1, len(replies))]
            assert texts == [item.frame.text for item in replies[1:]]
            client.esl.end(EslError("enough"))
            client.esl.join(5)
            assert len(fs.commands) == len(replies)


def test_passwords_and_users(fs: FakeFreeSwitch) -> None:
    fs.users["u@d"] = "p:w"
    Client(fs, user="u@d", password="p:w").esl.stop()
    for options in ({"password": "wrong"}, {"user": "u@d", "password": "wrong"}, {"user": "x@d", "password": "p:w"}):
        with pytest.raises(EslRefused):
            Client(fs, **options)


def test_nothing_is_answered_before_auth(fs: FakeFreeSwitch) -> None:
    client = SafeInboundESL(fs.host, fs.port, "x")
    client.open()
    assert client.send("api status").text == "-ERR command not found"
    client.stop()


# --- events
# ----------------------------------------------------------------------------------------------------------------


def test_each_connection_gets_what_it_asked_for(fs: FakeFreeSwitch, recording) -> None:
    keys, all_, none = Client(fs, "event plain DTMF"), Client(fs), Client(fs, "")
    fs.play(recording("dtmf"))
    assert [e.get("DTMF-Digit") for e in keys.settle()] == ["2", "5", "#"]
    assert len(all_.settle()) == len(recording("dtmf").events)
    assert none.settle() == []
    for client in (keys, all_, none):
        client.esl.stop()


def test_a_recording_of_plain_events_for_a_client_of_json(fs: FakeFreeSwitch, recording) -> None:
    fs.core_uuid = recording("dtmf").core_uuid
    client = Client(fs, "event json ALL")
    fs.play(recording("dtmf"))
    assert [e.headers for e in client.settle()] == [e.headers for e in recording("dtmf").events]
    client.esl.stop()


def test_filters_apply(fs: FakeFreeSwitch, recording) -> None:
    client = Client(fs)
    client.esl.send("filter DTMF-Digit 5")
    fs.play(recording("dtmf"))
    assert [e.get("DTMF-Digit") for e in client.settle()] == ["5"]
    client.esl.stop()


def test_events_are_tied_to_a_live_call(fs: FakeFreeSwitch, recording) -> None:
    """A key press of the recording becomes one of the call under test."""
    client = Client(fs)
    recorded = recording("via_bridge").find("DTMF")
    fs.play(
        recording("via_bridge").only("DTMF"), substitute={recorded.uuid: "leg-b@test", "1-2239@127.0.0.1": "leg-a@test"}
    )
    one, two = client.settle()
    assert (one.uuid, one.get("Other-Leg-Unique-ID"), two.uuid) == ("leg-b@test", "leg-a@test", "leg-a@test")
    fs.emit(recorded, {"Unique-ID": "x", "DTMF-Digit": "#"}, times=2)
    assert [(e.uuid, e.get("DTMF-Digit")) for e in client.settle()[2:]] == [("x", "#")] * 2
    client.esl.stop()


def test_a_restart_gives_events_another_core(fs: FakeFreeSwitch, recording) -> None:
    cores = []
    for _ in range(2):
        client = Client(fs)
        fs.emit(recording("dtmf").find("DTMF"))
        cores.append(client.settle()[0].core_uuid)
        assert client.esl.send("api global_getvar core_uuid").text == cores[-1] == fs.core_uuid
        client.esl.stop()
        fs.restart()
    assert cores[0] != cores[1]


@pytest.mark.parametrize(("speed", "least", "most"), [(0, 0.0, 1.0), (20, 0.15, 2.0)])
def test_speed(fs: FakeFreeSwitch, recording, speed: float, least: float, most: float) -> None:
    """dtmf's three digits lie 3.3 s apart from the first to the last event."""
    client = Client(fs)
    begin = monotonic()
    fs.play(recording("dtmf"), speed=speed)
    assert least < monotonic() - begin < most
    assert len(client.settle()) == 60 - len([e for e in recording("dtmf") if e.event is None]) + 3
    client.esl.stop()


# --- rules
# -----------------------------------------------------------------------------------------------------------------


def test_rules(fs: FakeFreeSwitch, recording) -> None:
    client = Client(fs, "event plain DTMF BACKGROUND_JOB")
    fs.on("api x *").reply("older")
    fs.on("api x 1").reply("newer").times(1).then_emit(recording("dtmf").find("DTMF"))
    assert [client.esl.send(f"api x {number}").text for number in (1, 1, 2)] == ["newer", "older", "older"]
    assert len(client.settle()) == 1
    fs.on("sendmsg u execute playback *").reply("-ERR no").then_play(recording("dtmf").only("DTMF"))
    headers = {"call-command": "execute", "execute-app-name": "playback", "execute-app-arg": "a b.wav"}
    assert client.esl.send("sendmsg u", headers).text == "-ERR no"
    assert fs.commands[-1].text == "sendmsg u execute playback a b.wav"
    while len(client.events) < 4:
        client.settle()
    client.esl.stop()


def test_reactions_between_parts_of_a_recording(fs: FakeFreeSwitch, recording) -> None:
    """The detector is started by a command and answers with the part of the recording that follows."""
    client = Client(fs)
    fs.on("bgapi uuid_broadcast * spandsp_start_fax_detect*").reply("+OK Message sent\n").then_play(
        recording("fax_cng").only("DETECTED_TONE"), substitute={recording("fax_cng").find("DETECTED_TONE").uuid: "u-1"}
    )
    client.esl.send("bgapi uuid_broadcast u-1 spandsp_start_fax_detect::'set fax=true 10' aleg", {"Job-UUID": "j"})
    while len(client.settle()) < 2:
        pass
    job, tone = client.events
    assert (job.get("Job-UUID"), job.body) == ("j", "+OK Message sent\n")
    assert (job.get("Job-Command"), job.get("Job-Command-Arg")[:17]) == ("uuid_broadcast", "u-1 spandsp_start")
    assert (tone.name, tone.uuid) == ("DETECTED_TONE", "u-1")
    client.esl.stop()


def test_waiting_fails_with_what_is_there(fs: FakeFreeSwitch) -> None:
    client = Client(fs)
    with pytest.raises(AssertionError, match=r"'api nothing' in .*event plain ALL"):
        fs.commands.wait_for("api nothing", timeout=0.01)
    with pytest.raises(AssertionError, match="3 connections"):
        fs.wait_connected(3, timeout=0.01)
    with pytest.raises(AssertionError, match="subscription"):
        Client(fs, "").esl.stop()
        client.esl.send("noevents")
        fs.wait_subscribed("DTMF", timeout=0.01)
    client.esl.stop()
    fs.wait_gone()


def test_waiting_returns_as_soon_as_it_happens(fs: FakeFreeSwitch) -> None:
    waiter = gevent.spawn(fs.commands.wait_for, "api status", 2)
    client = Client(fs)
    client.esl.send("api status")
    assert not waiter.ready()
    client.esl.send("api status")
    assert waiter.get(timeout=5).line == "api status"
    client.esl.stop()


# --- faults
# ----------------------------------------------------------------------------------------------------------------


def test_an_event_can_be_cut_at_any_octet(fs: FakeFreeSwitch, recording) -> None:
    event = recording("dtmf").find("DTMF")
    for octets in (0, 1, 30, 60, 500):
        client = Client(fs)
        fs.emit(event, cut_after=octets)
        assert client.esl.join(5)
        assert client.events == []
        assert client.notices[0].text == "FreeSWITCH closed the connection"


def test_pieces(fs: FakeFreeSwitch, recording) -> None:
    client = Client(fs)
    fs.chunk = 7
    fs.play(recording("dtmf").only("DTMF"))
    fs.chunk = 0
    assert len(client.settle()) == 3
    client.esl.stop()


def test_bodies_with_commands(fs: FakeFreeSwitch) -> None:
    client = Client(fs, "")
    client.esl.send("sendmsg u", {"call-command": "execute"}, "a\n\nb")
    client.esl.send("api status")
    assert [(c.line, c.body) for c in fs.commands[1:]] == [("sendmsg u", b"a\n\nb"), ("api status", b"")]
    client.esl.stop()


def test_an_unused_double_stops(recording: object) -> None:
    assert isinstance(Recording([]), Recording)
    FakeFreeSwitch().stop()


# --- the log ----------------------------------------------------------------------------------------------------------


def test_the_log_goes_to_those_who_asked_for_that_much(fs: FakeFreeSwitch) -> None:
    everything, worst, none = (Client(fs) for _ in range(3))
    lines: dict[str, list[str]] = {"everything": [], "worst": []}
    everything.esl.register_handle("log", lambda frame: lines["everything"].append(frame.text))
    worst.esl.register_handle("log", lambda frame: lines["worst"].append(frame.text))
    assert everything.esl.send("log").text == "+OK log level  [7]"
    assert worst.esl.send("log 2").text == "+OK log level 2 [2]"
    assert none.esl.send("nolog").text == "-ERR not loging"
    assert none.esl.send("log loud").text == "-ERR invalid log level"
    assert fs.log("info", "hello") == 1 and fs.lose(3) == 2
    everything.settle(), worst.settle()
    assert [len(lines["everything"]), len(lines["worst"])] == [2, 1]
    assert "[CRIT] mod_event_socket.c:389 Lost [3] events!" in lines["worst"][0]
    assert worst.esl.send("nolog").text == "+OK no longer logging"
    assert fs.lose(1) == 1
