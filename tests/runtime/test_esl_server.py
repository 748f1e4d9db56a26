"""The listener for FreeSWITCH's dialplan on real sockets: a channel to its end, refusals, garbage, lost peers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import gevent
import pytest
from echo_core import wait_until
from gevent import socket

from orchestrator.core.engine import Engine
from orchestrator.core.settings import CoreSettings
from orchestrator.errors import ListenError
from orchestrator.esl.codec import EVENT_PLAIN
from orchestrator.esl.translate import needed
from orchestrator.flow.loader import Source, load_sources
from orchestrator.runtime import esl_server
from orchestrator.runtime.esl_server import EslListener, wanted
from orchestrator.runtime.http import HttpClient
from orchestrator.runtime.http_host import Guard
from orchestrator.runtime.jobs import Jobs
from orchestrator.runtime.reactor import Reactor
from orchestrator.sip.location import Location
from orchestrator.sip.points import ListenPoint
from orchestrator.store.memory import MemoryStore
from orchestrator.testing.recordings import Recording, block_of, build_frame, build_reply, rewrite

FIXTURES = Path(__file__).parents[1] / "fixtures" / "esl"
RECORDING = Recording.load(FIXTURES / "dtmf.esl")
UUID = RECORDING.find("CHANNEL_CREATE").uuid

FLOWS = """\
flowlang: 1
flows:
  menu:
    on: {socket: '47*'}
    do:
      - answer
      - play: /hello.wav
      - wait: dtmf
        timeout: 10s
        as: key
      - log: 'digit ${key.digit}'
      - fs.api: status
        as: said
      - log: '${said.text}'
      - fs.bgapi: version
        as: told
      - log: '${told.text}'
      - hangup: done
    on_end: [{log: 'end ${call.end_reason ?? ""}'}]
  waits:
    on: {socket: '48*'}
    do:
      - play: /long.wav
        on_error: [{log: '${error.type} ${error.message}'}]
    on_end: [{log: 'end ${call.end_reason ?? ""}'}]
"""


class Site:
    """Engine, reactor, jobs and listener, as the server puts them together."""

    def __init__(self) -> None:
        program, _ = load_sources([Source("s.flow.yaml", FLOWS)])
        settings = CoreSettings(points=(ListenPoint("127.0.0.1", 5060),), domains=("example.com",))
        self.engine = Engine(settings, Location(MemoryStore()), program, monotonic())
        self.logs: list[str] = []
        self.peers: list[socket.socket] = []
        self.engine.host.on_log = lambda run, effect: self.logs.append(effect.text)
        self.reactor = Reactor(self.engine, lambda job: self.jobs.start(job))

        def names() -> set[str]:
            return wanted(needed(self.engine.usage.events))

        self.listener = EslListener("127.0.0.1", 0, self.engine, self.reactor, names)

        def answer(job: int, result: object) -> None:
            self.reactor.post(self.engine.complete, job, result)

        self.jobs = Jobs(answer, HttpClient(Guard(())), {}, self.listener.sessions)
        self.listener.start()

    def close(self) -> None:
        self.listener.close()
        for peer in self.peers:
            peer.close()
        gevent.sleep(0.01)
        self.jobs.close()
        self.reactor.close()

    def empty(self) -> bool:
        engine = self.engine
        return not (self.listener.sessions or len(engine.sockets) or len(engine.channels) or len(engine.flows.runs))


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


class Dialplan:
    """FreeSWITCH's end of one outbound socket. It answers as the real one: applications end at once unless `slow`."""

    def __init__(self, site: Site, number: str = "4711", full: bool = True) -> None:
        self.commands: list[str] = []
        self.number, self.full, self.slow = number, full, False
        self.sequence = 900_000
        self.closed = gevent.event.Event()
        self.sock = socket.create_connection(site.listener.address, 5.0)
        site.peers.append(self.sock)
        self.greenlet = gevent.spawn(self._run)

    def _run(self) -> None:
        pending = b""
        try:
            while data := self.sock.recv(65536):
                pending += data
                while b"\n\n" in pending:
                    block, _, pending = pending.partition(b"\n\n")
                    self._answer(block.decode())
        except OSError:
            pass  # we have closed it
        self.closed.set()

    def _answer(self, block: str) -> None:
        lines = block.split("\n")
        command = lines[0]
        headers = dict(line.split(": ", 1) for line in lines[1:])
        self.commands.append(command if "sendmsg" not in command else f"{headers['execute-app-name']}")
        if command == "connect":
            self.sock.sendall(self.channel_data())
        elif not self.full and command.split()[0] in ("event", "filter", "linger", "api"):
            self.sock.sendall(build_reply("-ERR command not found"))
        elif command.startswith("api"):
            self.sock.sendall(build_frame("api/response", b"UP" if "status" in command else b"+OK\n"))
            if "uuid_kill" in command:
                self.hear("CHANNEL_HANGUP_COMPLETE", Hangup_Cause="NORMAL_CLEARING")
                self.hang_up()
        elif command.startswith("bgapi"):
            job = headers["Job-UUID"]
            self.sock.sendall(build_reply(f"+OK Job-UUID: {job}", Job_UUID=job))
            event = f"Event-Name: BACKGROUND_JOB\nJob-UUID: {job}\nContent-Length: 3\n\n1.2".encode()
            self.sock.sendall(build_frame(EVENT_PLAIN, event))
        else:
            self.sock.sendall(build_reply("+OK"))
            if "sendmsg" in command and not self.slow:
                done = {"Application-UUID": headers["event-uuid"], "Application": headers["execute-app-name"]}
                response = "FILE PLAYED" if headers["execute-app-name"] == "playback" else "_none_"
                self.hear(
                    "CHANNEL_CREATE", Event_Name="CHANNEL_EXECUTE_COMPLETE", Application_Response=response, **done
                )

    def channel_data(self) -> bytes:
        given: dict[str, str | None] = {
            "Event-Name": "CHANNEL_DATA", "Event-Sequence": None, "Call-Direction": "inbound",
            "Caller-Destination-Number": self.number,
        }  # fmt: skip
        block = rewrite(block_of(RECORDING.find("CHANNEL_CREATE")), given)
        head = b"Content-Type: command/reply\nReply-Text: %2BOK%0A\n"
        return head + block.rstrip(b"\n") + b"\nControl: full\n\n"

    def hear(self, key: str, **headers: str) -> None:
        """FreeSWITCH raises an event of this channel."""
        self.sequence += 1
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        block = rewrite(
            block_of(RECORDING.find(key)), {"Event-Sequence": str(self.sequence), "Unique-ID": UUID, **given}
        )
        self.sock.sendall(build_frame(EVENT_PLAIN, block))

    def hang_up(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)


def test_a_channel_from_connect_to_hangup(site: Site) -> None:
    dialplan = Dialplan(site)
    wait_until(lambda: "playback" in dialplan.commands)
    gevent.sleep(0.05)
    dialplan.hear("DTMF", DTMF_Digit="5")
    wait_until(lambda: len(site.logs) == 4)
    assert site.logs == ["digit 5", "UP", "1.2", "end done"]
    assert dialplan.commands[:4] == [
        "connect", "linger 5", f"filter Unique-ID {UUID}", "filter Event-Name BACKGROUND_JOB"
    ]  # fmt: skip
    subscribed = next(command for command in dialplan.commands if command.startswith("event plain"))
    assert {"DTMF", "CHANNEL_EXECUTE_COMPLETE", "CHANNEL_HANGUP", "BACKGROUND_JOB"} <= set(subscribed.split())
    assert "HEARTBEAT" not in subscribed
    assert "answer" in dialplan.commands
    wait_until(lambda: f"api uuid_kill {UUID} NORMAL_CLEARING" in dialplan.commands)
    wait_until(site.empty)
    assert site.listener.counters["taken"] == 1


def test_the_caller_hangs_up_while_something_plays(site: Site) -> None:
    dialplan = Dialplan(site, "4800")
    dialplan.slow = True
    wait_until(lambda: "playback" in dialplan.commands)
    dialplan.hear("CHANNEL_HANGUP_COMPLETE", Hangup_Cause="ORIGINATOR_CANCEL")
    wait_until(lambda: "end ORIGINATOR_CANCEL" in site.logs)
    dialplan.hang_up()
    wait_until(site.empty)


def test_a_connection_that_drops_in_the_middle_ends_the_flow(site: Site) -> None:
    dialplan = Dialplan(site, "4800")
    dialplan.slow = True
    wait_until(lambda: "playback" in dialplan.commands)
    dialplan.sock.close()
    wait_until(lambda: any(line.startswith("end ") for line in site.logs))
    wait_until(site.empty)
    assert site.jobs.idle


def test_a_number_no_flow_takes_goes_back_to_the_dialplan(site: Site) -> None:
    dialplan = Dialplan(site, "9999")
    assert dialplan.closed.wait(30)
    wait_until(site.empty)
    assert site.listener.counters["refused"] == 1


def test_a_socket_without_full_is_given_back_with_one_warning(site: Site) -> None:
    dialplan = Dialplan(site, full=False)
    assert dialplan.closed.wait(30)
    wait_until(site.empty)
    assert site.listener.counters["unusable"] == 1


@pytest.mark.parametrize(
    "octets",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"Content-Type: command/reply\nReply-Text: +OK\n\n",
        b"Content-Type: command/reply\nEvent-Name: CHANNEL_DATA\nUnique-ID: a%20b\n\n",
        b"Content-Type: command/reply\nEvent-Name: CHANNEL_DATA\n\n",
        b"Content-Length: 999999999999\n\n",
        b"\x00" * 300_000,
        b"",
    ],
)
def test_garbage_is_counted_and_closed(site: Site, octets: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(esl_server, "TIMEOUT", 0.2)
    stranger = socket.create_connection(site.listener.address, 5.0)
    site.peers.append(stranger)
    stranger.sendall(octets)
    try:
        while stranger.recv(100):
            pass
    except ConnectionResetError:
        pass  # closed with octets unread
    wait_until(lambda: site.listener.counters["garbage"] == 1)
    assert site.empty() and not site.engine.counters


def test_there_is_a_bound(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(esl_server, "CONNECTIONS", 1)
    first = Dialplan(site, "4800")
    first.slow = True
    wait_until(lambda: "playback" in first.commands)
    assert Dialplan(site, "4800").closed.wait(30)
    assert site.listener.counters["full"] == 1
    first.sock.close()
    wait_until(site.empty)
    again = Dialplan(site, "4800")
    wait_until(lambda: "playback" in again.commands)


def test_two_channels_do_not_mix(site: Site) -> None:
    one, two = Dialplan(site), Dialplan(site, "4800")
    two.slow = True
    wait_until(lambda: "playback" in one.commands and "playback" in two.commands)
    gevent.sleep(0.05)
    two.hear("DTMF", DTMF_Digit="9")
    one.hear("DTMF", DTMF_Digit="1")
    wait_until(lambda: len(site.logs) >= 4)
    assert site.logs[0] == "digit 1" and "digit 9" not in site.logs
    assert not two.closed.is_set()


def test_a_stop_leaves_the_channel_to_its_dialplan(site: Site) -> None:
    dialplan = Dialplan(site, "4800")
    dialplan.slow = True
    wait_until(lambda: "playback" in dialplan.commands)
    site.listener.close()
    assert dialplan.closed.wait(30)
    wait_until(site.empty)


def test_an_address_in_use_is_one_clear_error(site: Site) -> None:
    with pytest.raises(ListenError, match="cannot listen on 127"):
        EslListener(*site.listener.address, site.engine, site.reactor, set)


def test_what_is_subscribed_to_has_no_heartbeat() -> None:
    names: Any = wanted(needed(["dtmf"]))
    assert "HEARTBEAT" not in names and {"DTMF", "BACKGROUND_JOB", "CHANNEL_HANGUP"} <= names
