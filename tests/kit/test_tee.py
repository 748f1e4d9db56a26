"""`orchestrator record`: the recorder on octets, the tee on sockets with a FreeSWITCH and our own link at its ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import gevent
import pytest
from gevent import socket
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import EslProtocolError, ListenError
from orchestrator.runtime.esl_link import EslLink, EslServer
from orchestrator.testing.freeswitch import FakeFreeSwitch
from orchestrator.testing.recorder import CommandDecoder, Recorder
from orchestrator.testing.recordings import Recording
from orchestrator.testing.redaction import HIDDEN, Redaction
from orchestrator.testing.tee import EslTee

FIXTURES = Path(__file__).parents[1] / "fixtures" / "esl"
RAW = sorted(FIXTURES.glob("*.esl"))


def recorded(stream: bytes, cuts: list[int], form: str = "esl", redaction: Redaction | None = None) -> bytes:
    """What a recorder writes of a server's stream that arrives in these pieces."""
    out = bytearray()
    recorder = Recorder(out.extend, form, redaction or Redaction(), 0.0)  # type: ignore[arg-type]
    begin = 0
    for end in [*sorted(cuts), len(stream)]:
        recorder.from_server(stream[begin:end], 1.0)
        begin = end
    assert recorder.broken == ""
    return bytes(out)


# --- the recorder -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", RAW, ids=lambda file: file.stem)
def test_a_stream_without_secrets_is_written_as_it_came(file: Path) -> None:
    stream = file.read_bytes()
    source = Recording.load(file)
    assert len(source) > 0
    assert recorded(stream, [len(stream) // 3, len(stream) // 2]) == source.raw


@given(st.lists(st.integers(0, 5000), max_size=12))
def test_pieces_do_not_matter(cuts: list[int]) -> None:
    stream = (FIXTURES / "commands.esl").read_bytes()[:5000]
    assert recorded(stream, cuts) == recorded(stream, [])


def test_a_masked_recording_can_be_read_and_tells_the_same_story(tmp_path: Path) -> None:
    source = Recording.load(FIXTURES / "via_bridge.esl")
    redaction = Redaction(numbers=True, addresses=True)
    file = tmp_path / "masked.esl"
    file.write_bytes(recorded((FIXTURES / "via_bridge.esl").read_bytes(), [], redaction=redaction))
    masked = Recording.load(file)
    assert [event.key for event in masked.events] == [event.key for event in source.events]
    assert [event.uuid for event in masked.events] == [event.uuid for event in source.events]
    digits = [event.get("DTMF-Digit") for event in masked.events if event.key == "DTMF"]
    assert digits == [event.get("DTMF-Digit") for event in source.events if event.key == "DTMF"] != []
    call_ids = {event.get("variable_sip_call_id") for event in masked.events} - {""}
    assert len(call_ids) == len({event.get("variable_sip_call_id") for event in source.events} - {""})


def test_json_lines_hold_both_directions_and_times(tmp_path: Path) -> None:
    lines: list[bytes] = []
    recorder = Recorder(lines.append, "eslrec", Redaction(), 10.0, {"server": "fs1"})
    recorder.from_server(b"Content-Type: auth/request\n\n", 10.0)
    recorder.from_client(b"auth s3cret\n\nevent plain DTMF\n\n", 10.25)
    recorder.from_server(b"Content-Length: 3\nContent-Type: api/response\n\n\xff\xfeb", 11.5)
    assert [json.loads(line) for line in lines] == [
        {"format": "eslrec/1", "server": "fs1"},
        {"t": 0.0, "dir": "s2c", "head": "Content-Type: auth/request"},
        {"t": 0.25, "dir": "c2s", "head": f"auth {HIDDEN}"},
        {"t": 0.25, "dir": "c2s", "head": "event plain DTMF"},
        {"t": 1.5, "dir": "s2c", "head": "Content-Length: 3\nContent-Type: api/response", "body": "\udcff\udcfeb"},
    ]
    file = tmp_path / "x.eslrec"
    file.write_bytes(b"".join(lines))
    assert Recording.load(file)[-1].frame.body == b"\xff\xfeb"


def test_a_stream_that_cannot_be_cut_ends_the_recording_and_nothing_else() -> None:
    out = bytearray()
    recorder = Recorder(out.extend, "esl", Redaction(), 0.0)
    recorder.from_server(b"Content-Type: auth/request\n\nContent-Length: x\n\n", 0.0)
    assert recorder.frames == 1
    recorder.from_server(b"Content-Type: auth/request\n\n", 0.0)
    recorder.from_client(b"auth x\n\n", 0.0)
    assert "Content-Length" in recorder.broken and recorder.frames == 1 and recorder.commands == 0


COMMANDS = b"\n\r\nauth x\r\n\r\nsendmsg u\ncontent-length: 4\n\na\n\nbapi status\n\nexit\n\n"


@given(st.lists(st.integers(0, len(COMMANDS)), max_size=8))
def test_commands_in_any_pieces(cuts: list[int]) -> None:
    decoder, found, begin = CommandDecoder(), [], 0
    for end in [*sorted(cuts), len(COMMANDS)]:
        found += decoder.feed(COMMANDS[begin:end])
        begin = end
    assert found == [("auth x", ""), ("sendmsg u\ncontent-length: 4", "a\n\nb"), ("api status", ""), ("exit", "")]


@pytest.mark.parametrize("length", ["-1", "x", "999999999", "٣"])
def test_a_command_with_an_impossible_length(length: str) -> None:
    with pytest.raises(EslProtocolError):
        list(CommandDecoder().feed(f"sendmsg u\ncontent-length: {length}\n\n".encode()))


# --- the tee ----------------------------------------------------------------------------------------------------------


def until(true: Callable[[], object]) -> None:
    with gevent.Timeout(5):
        while not true():
            gevent.sleep(0.005)


def tee(switch: FakeFreeSwitch, out: Path, form: str = "eslrec", **masks: bool) -> EslTee:
    return EslTee(("127.0.0.1", switch.port), ("127.0.0.1", 0), out, form, Redaction(**masks))  # type: ignore[arg-type]


def test_our_link_works_through_it_and_the_file_holds_what_passed(tmp_path: Path) -> None:
    out = tmp_path / "call.eslrec"
    dtmf = Recording.load(FIXTURES / "dtmf.esl").find("DTMF")
    heard: list[str] = []
    with FakeFreeSwitch(password="s3cret") as switch, tee(switch, out, digits=True) as recording:
        link = EslLink(
            EslServer("fs1", *recording.address, "s3cret"),
            lambda: frozenset({"DTMF"}),
            lambda name, event: heard.append(event.get("DTMF-Digit")),
            lambda name, state: None,
            lambda name, seen: None,
        )
        link.start()
        switch.wait_subscribed("DTMF")
        switch.emit(dtmf)
        until(lambda: heard)
        link.stop(0.2)
        switch.wait_gone()
        until(lambda: "exit" in out.read_text() or recording.recorders[0].frames)
    assert heard == [dtmf.get("DTMF-Digit")], "the client sees the digit"
    assert b"s3cret" not in out.read_bytes()
    entries = [json.loads(line) for line in out.read_text().splitlines()]
    assert entries[0]["format"] == "eslrec/1"
    heads = [entry["head"] for entry in entries[1:] if entry["dir"] == "c2s"]
    assert heads[0] == f"auth {HIDDEN}" and any(head.startswith("event plain") for head in heads)
    kept = Recording.load(out)
    assert [event.get("DTMF-Digit") for event in kept.events if event.key == "DTMF"] == ["0"]


def test_what_it_wrote_plays_on_a_fake_server(tmp_path: Path) -> None:
    out = tmp_path / "call.esl"
    source = Recording.load(FIXTURES / "dtmf.esl")
    with (
        FakeFreeSwitch(password="x") as switch,
        tee(switch, out, "esl") as recording,
        socket.create_connection(recording.address) as client,
    ):
        client.sendall(b"auth x\n\nevent plain ALL\n\n")
        switch.wait_subscribed("DTMF")
        count = switch.play(source)
        until(lambda: recording.recorders[0].frames >= count + 3)
    assert [event.key for event in Recording.load(out).events] == [event.key for event in source.events]


def test_each_connection_has_a_file_of_its_own(tmp_path: Path) -> None:
    with FakeFreeSwitch() as switch, tee(switch, tmp_path / "x.esl", "esl") as recording:
        clients = [socket.create_connection(recording.address) for _ in range(2)]
        assert all(client.recv(100) for client in clients)
        for client in clients:
            client.close()
        switch.wait_gone()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x-2.esl", "x.esl"]


def test_the_end_of_one_side_is_the_end_of_the_other(tmp_path: Path) -> None:
    with (
        FakeFreeSwitch() as switch,
        tee(switch, tmp_path / "x.esl", "esl") as recording,
        socket.create_connection(recording.address) as client,
    ):
        client.recv(100)
        switch.cut()
        with gevent.Timeout(5):
            while client.recv(100):
                pass


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    told: list[str] = []
    out = tmp_path / "x.esl"
    with (
        EslTee(("127.0.0.1", 1), ("127.0.0.1", 0), out, "esl", Redaction(), told.append) as recording,
        socket.create_connection(recording.address) as client,
        gevent.Timeout(5),
    ):
        assert client.recv(100) == b""
    assert told == ["cannot reach 127.0.0.1:1: Connection refused"] and not out.exists()


def test_an_address_in_use(tmp_path: Path) -> None:
    with FakeFreeSwitch() as switch, pytest.raises(ListenError):
        EslTee(("127.0.0.1", 1), ("127.0.0.1", switch.port), tmp_path / "x.esl", "esl", Redaction())


def test_octets_no_recorder_can_read_pass_all_the_same(tmp_path: Path) -> None:
    with (
        FakeFreeSwitch() as switch,
        tee(switch, tmp_path / "x.esl", "esl") as recording,
        socket.create_connection(recording.address) as client,
    ):
        client.recv(100)
        switch.write(b"Content-Length: nonsense\n\nand more")
        got = b""
        with gevent.Timeout(5):
            while not got.endswith(b"and more"):
                got += client.recv(100)
        until(lambda: recording.recorders[0].broken)
