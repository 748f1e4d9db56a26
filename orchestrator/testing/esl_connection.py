"""One connection to the FreeSWITCH of the tests (`testing.freeswitch`): commands in, replies out."""

from __future__ import annotations

from typing import Literal, Protocol
from uuid import uuid4

import gevent
from gevent import socket

from orchestrator.esl.codec import API_RESPONSE
from orchestrator.testing.esl_listener import Listener
from orchestrator.testing.esl_rules import Command, Rule
from orchestrator.testing.recordings import Recording, build_frame, build_reply
from orchestrator.testing.samples import GOODBYE, RUDE

Greeting = Literal["normal", "silent", "rude", "close"]


class ConnectedServer(Protocol):
    """The server of a connection, as far as it needs it."""

    password: str
    users: dict[str, str]
    greeting: Greeting
    conversation: Recording | None
    chunk: int
    frozen: bool

    def gone(self, connection: Connection) -> None: ...
    def received(self, command: Command) -> Rule | None: ...
    def changed(self) -> None: ...
    def output(self, command: str) -> str: ...
    def job_done(self, job: str, command: str, output: str) -> None: ...


def build_notice(text: bytes) -> bytes:
    """A text/disconnect-notice frame."""
    return build_frame("text/disconnect-notice", text)


class Connection:
    """The server's end of one connection."""

    def __init__(self, server: ConnectedServer, sock: socket.socket, number: int) -> None:
        self.listener = Listener()
        self.authenticated = False
        self.number = number
        self._server = server
        self._sock = sock
        self._buffer = bytearray()
        self._closing = False
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def run(self) -> None:
        """Greet, and answer commands until one side closes."""
        greeting = self._server.greeting
        if greeting == "rude":
            self.write(build_frame("text/rude-rejection", RUDE))
        if greeting in ("rude", "close"):
            return
        if self._server.conversation is not None:
            self._converse(self._server.conversation)
            return
        if greeting == "normal":
            self.write(b"Content-Type: auth/request\n\n")
        while (command := self._read_command()) is not None:
            if not self._handle(command):
                return

    def write(self, octets: bytes) -> None:
        """Send, in pieces when the server is told so; to a client that has gone, nothing."""
        if self._server.frozen or self._closing:
            return
        size = self._server.chunk or len(octets) or 1
        try:
            for position in range(0, len(octets), size):
                self._sock.sendall(octets[position : position + size])
                if self._server.chunk:
                    gevent.sleep(0)
        except OSError:
            pass  # the client has closed; its end is noticed by the read

    def close(self) -> None:
        """Say no more. What was written still arrives: closing for good with a command unread would throw it away."""
        if not self._closing:
            self._closing = True
            try:
                self._sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # closed already
            self._server.gone(self)

    def abort(self) -> None:
        """Close for good."""
        self.close()
        self._sock.close()

    def _converse(self, recording: Recording) -> None:
        """Play a recorded connection: frames that answer a command wait for one."""
        for item in recording:
            if item.frame.content_type in ("command/reply", API_RESPONSE):
                command = self._read_command()
                if command is None:
                    return
                self._server.received(command)
            self.write(item.raw)
        while recording[-1].frame.content_type != "text/disconnect-notice" and self._read_command() is not None:
            pass

    def _read_command(self) -> Command | None:
        """The next command, None at the end."""
        at = 0
        while (end := self._buffer.find(b"\n\n", at)) < 0:
            at = max(0, len(self._buffer) - 1)
            if not self._more():
                return None
        line, *rest = bytes(self._buffer[:end]).decode("utf-8", "replace").strip("\r\n").replace("\r", "").split("\n")
        del self._buffer[: end + 2]
        if not line and not rest:
            return self._read_command()  # FreeSWITCH skips line breaks in front of a command
        headers = {name.lower(): value for name, _, value in (text.partition(": ") for text in rest)}
        length = int(headers.get("content-length", "0"))
        while len(self._buffer) < length:
            if not self._more():
                return None
        body = bytes(self._buffer[:length])
        del self._buffer[:length]
        return Command(line, headers, body, self.number)

    def _more(self) -> bool:
        """Read on; once we say no more, only to see the client's end."""
        data = self._sock.recv(65536)
        while data and self._closing:
            data = self._sock.recv(65536)
        self._buffer += data
        return bool(data)

    def _handle(self, command: Command) -> bool:
        """Answer one command; False when the connection ends with it."""
        server = self._server
        rule = server.received(command)
        if rule is not None:
            rule.wait()
            if rule.raw is not None:
                self.write(rule.raw)
            elif rule.answers:
                self._answer(command, rule.text)
            for action in rule.actions:
                action()
            return True
        return self._answer(command, None)

    def _answer(self, command: Command, text: str | None) -> bool:
        """The ordinary answer, with another text where the test gives one."""
        verb, _, rest = command.line.strip().partition(" ")
        verb = verb.lower()
        if verb in ("auth", "userauth"):
            return self._authenticate(verb, rest)
        if verb == "exit":
            self.write(build_reply("+OK bye") + build_notice(GOODBYE))
            return False
        if not self.authenticated:
            self.write(build_reply("-ERR command not found"))
        elif verb == "api":
            self.write(build_frame(API_RESPONSE, (self._server.output(rest) if text is None else text).encode()))
        elif verb == "bgapi":
            job = command.headers.get("job-uuid") or str(uuid4())
            self.write(build_reply(f"+OK Job-UUID: {job}", Job_UUID=job))
            self._server.job_done(job, rest, self._server.output(rest) if text is None else text)
        else:
            self.write(build_reply(self._reply_text(verb, rest.split()) if text is None else text))
        self._server.changed()
        return True

    def _authenticate(self, verb: str, secret: str) -> bool:
        if verb == "auth":
            right = secret == self._server.password
        else:
            user, _, password = secret.partition(":")
            right = self._server.users.get(user) == password
        if not right:
            self.write(build_reply("-ERR invalid") + build_notice(GOODBYE))
            return False
        self.authenticated = True
        self.write(build_reply("+OK accepted"))
        self._server.changed()
        return True

    def _reply_text(self, verb: str, words: list[str]) -> str:
        if verb in ("event", "events"):
            return self.listener.event(words)
        if verb == "nixevent":
            return self.listener.nixevent(words)
        if verb == "noevents":
            return self.listener.noevents()
        if verb == "filter":
            return self.listener.filter(words)
        if verb == "log":
            return self.listener.log(words)
        if verb == "nolog":
            return self.listener.nolog()
        return "+OK" if verb == "sendmsg" else "-ERR command not found"

    def __repr__(self) -> str:
        return f"<connection {self.number}{' authenticated' if self.authenticated else ''}>"
