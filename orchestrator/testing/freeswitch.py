"""A FreeSWITCH for tests: an Event Socket server on loopback that replays recordings and does as it is told.

It speaks mod_event_socket's side as recorded from a real one: greeting, `auth` and `userauth`, `event`, `nixevent`,
`noevents`, `filter`, `api`, `bgapi`, `sendmsg`, `exit`. What it answers where no rule of the test says otherwise are
the replies of the recordings; events come from recordings only, with other identities where a test asks for it.

    with FakeFreeSwitch() as fs:
        link = EslLink(EslServer("fs1", fs.host, fs.port, fs.password), …)
        fs.on("api uuid_kill *").reply("+OK\\n")
        fs.play(Recording.load("dtmf.esl"), substitute={recorded_uuid: call_id})
        fs.commands.wait_for("api uuid_kill *")

Nothing here waits by sleeping a guessed time: `commands.wait_for`, `wait_connected` and `wait_subscribed` return as
soon as the thing has happened and raise AssertionError when it does not. Everything runs on the gevent loop of the
test.

Faults are set as attributes or called as methods: `greeting` (silent, rude, close), `chunk` (octets per write),
`frozen` (a stopped process: reads nothing, says nothing), `cut`, `disconnect`, `restart`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import gevent
from gevent import socket
from gevent.event import Event
from gevent.server import StreamServer

from orchestrator.esl.codec import EVENT_JSON, EVENT_PLAIN, EslEvent
from orchestrator.testing.esl_connection import Connection, Greeting, build_notice
from orchestrator.testing.esl_listener import LOG_LEVELS, Listener
from orchestrator.testing.esl_rules import WAIT, Command, CommandLog, Rule, wait_until
from orchestrator.testing.recordings import Recording, block_of, build_frame, build_log, json_of, rewrite
from orchestrator.testing.samples import BACKGROUND_JOB, HEARTBEAT, SHUTDOWN, STATUS


class FakeFreeSwitch:
    """The server. A context manager; `start` and `stop` may also be called by hand, and again.

    `recording` gives the Core-UUID it begins with. `users` maps `user@domain` to passwords for `userauth`. With
    `conversation` it plays a recorded connection as it was instead: replies in their order, one per command, events
    at once. `channels` are the rows of `show channels as json`.
    """

    def __init__(
        self,
        recording: Recording | None = None,
        *,
        conversation: Recording | None = None,
        host: str = "127.0.0.1",
        password: str = "ClueCon",  # noqa: S107  FreeSWITCH's own default
        users: Mapping[str, str] | None = None,
    ) -> None:
        self.host = host
        self.password = password
        self.users = dict(users or {})
        self.core_uuid = (recording.core_uuid if recording is not None else "") or str(uuid4())
        self.conversation = conversation
        self.port = 0
        self.commands = CommandLog()
        self.channels: list[dict[str, Any]] = []
        self.greeting: Greeting = "normal"
        self.chunk = 0
        self.frozen = False
        self.accepted = 0
        self.connections: list[Connection] = []
        self._open: set[Connection] = set()
        self._rules: list[Rule] = []
        self._changed = Event()
        self._server: StreamServer | None = None

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Listen: on a free port the first time, on the same one later."""
        self._server = StreamServer((self.host, self.port), self._serve)
        self._server.start()
        self.port = int(self._server.address[1])
        return self

    def stop(self) -> None:
        """Stop listening and cut all connections, as a killed FreeSWITCH does."""
        if self._server is not None:
            self._server.stop(timeout=0)
            self._server = None
        for rule in self._rules:
            rule.release()
        self.cut()
        for connection in list(self._open):
            connection.abort()

    def restart(self, core_uuid: str = "") -> None:
        """Come back as another core: new Core-UUID, no channels, no connections."""
        self.stop()
        self.core_uuid = core_uuid or str(uuid4())
        self.channels = []
        self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    # --- what it says -------------------------------------------------------------------------------------------------

    def on(self, pattern: str) -> Rule:
        """A rule for commands whose text fits the glob; the newest rule that fits counts."""
        rule = Rule(pattern, self)
        self._rules.insert(0, rule)
        return rule

    def emit(
        self,
        event: EslEvent,
        headers: Mapping[str, str | None] | None = None,
        times: int = 1,
        cut_after: int | None = None,
    ) -> int:
        """Send an event to every connection that subscribed to it, with other header values; returns how many took it.

        `times` sends it so often, as FreeSWITCH does on parked channels. `cut_after` sends only so many octets of it
        and cuts those connections.
        """
        block = rewrite(block_of(event), {**(headers or {}), "Core-UUID": self.core_uuid})
        changed = EslEvent.plain(block)
        takers = [connection for connection in self.connections if connection.listener.wants(changed)]
        for connection in takers:
            in_json = connection.listener.format == "json"
            frame = build_frame(EVENT_JSON, json_of(changed)) if in_json else build_frame(EVENT_PLAIN, block)
            connection.write((frame * times)[:cut_after])
            if cut_after is not None:
                connection.close()
        return len(takers)

    def play(
        self,
        recording: Recording,
        speed: float = 0,
        substitute: Mapping[str, str] | None = None,
        cut_every: int = 0,
    ) -> int:
        """Send the events of a recording; returns how many were taken by somebody.

        `speed` 0: at once, 1: with the recorded gaps, N: N times as fast. With `cut_every` the connections are cut
        after each so many events that were taken, and playing goes on when somebody has subscribed to the next one
        again.
        """
        if substitute:
            recording = recording.substituted(substitute)
        taken, last = 0, 0.0
        before: list[Listener] = []
        for item in recording:
            event = item.event
            if event is None:
                continue
            if speed:
                gevent.sleep((item.at - last) / speed)
                last = item.at
            self._wait_back(before)
            before = []
            if self.emit(event):
                taken += 1
                if cut_every and taken % cut_every == 0:
                    before = [connection.listener for connection in self.connections if connection.listener.format]
                    self.cut()
        return taken

    def _wait_back(self, before: list[Listener]) -> None:
        """Until somebody listens to all that these listened to."""
        for old in before:
            wait_until(
                lambda old=old: any(c.listener.covers(old) for c in self.connections),  # type: ignore[misc]
                self._changed,
                WAIT,
                lambda old=old: f"a subscription to {sorted(old.names)}",  # type: ignore[misc]
            )

    def heartbeat(self) -> int:
        """Send a HEARTBEAT."""
        return self.emit(EslEvent.plain(HEARTBEAT))

    def log(self, level: str, text: str, file: str = "switch_core.c") -> int:
        """Send a line of the log to every connection that asked for that much of it; returns how many."""
        number = LOG_LEVELS.index(level)
        frame = build_log(number, file, f"2026-11-28 16:32:31.902523 3.37% [{level.upper()}] {file}:389 {text}\n")
        takers = [connection for connection in self.connections if connection.listener.log_level >= number]
        for connection in takers:
            connection.write(frame)
        return len(takers)

    def lose(self, events: int) -> int:
        """Say that so many events were thrown away, as mod_event_socket does for a listener that does not read."""
        return self.log("crit", f"Lost [{events}] events! Event Queue size: [1/100000]", "mod_event_socket.c")

    def write(self, octets: bytes) -> None:
        """Send raw octets on every connection that subscribed to events, else on all."""
        for connection in [c for c in self.connections if c.listener.format] or self.connections:
            connection.write(octets)

    # --- faults -------------------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Close all connections without a word."""
        for connection in list(self.connections):
            connection.close()

    def disconnect(self, notice: bytes = SHUTDOWN) -> None:
        """Close all connections with a text/disconnect-notice."""
        for connection in list(self.connections):
            connection.write(build_notice(notice))
            connection.close()

    # --- waiting ------------------------------------------------------------------------------------------------------

    def wait_connected(self, count: int = 1, timeout: float = WAIT) -> None:
        """Until so many authenticated connections are there at once."""
        wait_until(
            lambda: sum(c.authenticated for c in self.connections) >= count,
            self._changed,
            timeout,
            lambda: f"{count} connections, there are {self.connections}",
        )

    def wait_subscribed(self, key: str, timeout: float = WAIT) -> None:
        """Until somebody has subscribed to this event name or CUSTOM subclass."""
        wait_until(lambda: self._subscribed(key), self._changed, timeout, lambda: f"a subscription to {key}")

    def wait_gone(self, timeout: float = WAIT) -> None:
        """Until no connection is left."""
        wait_until(lambda: not self.connections, self._changed, timeout, lambda: f"the end of {self.connections}")

    def _subscribed(self, key: str) -> bool:
        listeners = [connection.listener for connection in self.connections if connection.listener.format]
        return any("ALL" in one.names or key in one.names or key in one.subclasses for one in listeners)

    # --- serving ------------------------------------------------------------------------------------------------------

    def _serve(self, sock: socket.socket, _: object) -> None:
        self.accepted += 1
        connection = Connection(self, sock, self.accepted)
        self.connections.append(connection)
        self._open.add(connection)
        try:
            connection.run()
        except OSError:
            pass  # the client went away: nothing to do
        finally:
            connection.abort()
            self._open.discard(connection)

    def gone(self, connection: Connection) -> None:
        """A connection has ended, or will say no more."""
        if connection in self.connections:
            self.connections.remove(connection)
        self._changed.set()

    def received(self, command: Command) -> Rule | None:
        """Note a command; the rule that takes it."""
        self.commands.append(command)
        rule = next((rule for rule in self._rules if rule.takes(command)), None)
        if rule is not None:
            rule.hits += 1
        return rule

    def changed(self) -> None:
        """Wake who waits for a change of connections or subscriptions."""
        self._changed.set()

    def output(self, command: str) -> str:
        """Output of an API command where no rule says otherwise."""
        name, _, argument = command.strip().partition(" ")
        if name == "global_getvar" and argument == "core_uuid":
            return self.core_uuid
        if command.strip() == "show channels as json":
            rows = {"row_count": len(self.channels), **({"rows": self.channels} if self.channels else {})}
            return json.dumps(rows, separators=(",", ":"))
        if name == "status":
            return STATUS
        if name.startswith("uuid_"):
            return "-ERR No such channel!\n"
        return f"-ERR {name} Command not found!\n"

    def job_done(self, job: str, command: str, output: str) -> None:
        """Send the BACKGROUND_JOB of a bgapi."""
        name, _, argument = command.partition(" ")
        headers = {"Job-UUID": job, "Job-Command": name, "Job-Command-Arg": argument or None}
        body = output.encode()
        block = rewrite(BACKGROUND_JOB + body, {**headers, "Content-Length": str(len(body))})
        self.emit(EslEvent.plain(block))
