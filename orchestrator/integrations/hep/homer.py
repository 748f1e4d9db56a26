"""The service `hep`: SIP messages and what flows do, to Homer.

services:
  hep: {address: 'udp:homer.example.com:9060', capture_id: 2001}
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import gevent
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, PlainValidator, SecretStr

from orchestrator.fact_kinds import CallLeg, CallRecord, MessageIn, MessageOut, SipMessage, TraceWritten
from orchestrator.integrations.hep.capture import Choice, Correlation
from orchestrator.integrations.hep.delivery import Sender, open_tcp, open_tls, open_udp, tls_context
from orchestrator.integrations.hep.packet import LOG, SIP, TCP, UDP, Encoder
from orchestrator.packages.service import ServerContext, Service
from orchestrator.packages.setting_types import InvalidValue, Switch
from orchestrator.sip.masking import as_long, masked

PORT = 9060
QUEUE = 20_000
"""Facts that may wait for the encoder: it takes them at each pass of the event loop."""
TURN = 50
"""Facts encoded until others have their turn."""
FINISH = 2.0
"""Seconds that a stop may take to send what waits."""

_ADDRESS = re.compile(r"(udp|tcp|tls):(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
_METHOD = re.compile(r"[A-Z]+")


class Receiver(NamedTuple):
    """Where packets go."""

    transport: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.transport}:{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def parse_receiver(value: Any) -> Receiver:
    found = _ADDRESS.fullmatch(value) if isinstance(value, str) else None
    port = int(found[3] or PORT) if found is not None else 0
    if found is None or not 0 < port < 65_536:
        raise InvalidValue(f"{value!r} is not the address of a HEP receiver", "write udp:homer.example.com:9060")
    host = found[2].strip("[]")
    if found[2].startswith("["):
        try:
            ip_address(host)
        except ValueError:
            raise InvalidValue(f"{host!r} is not an IPv6 address", "write udp:[2001:db8::7]:9060") from None
    return Receiver(found[1], host, port)


def parse_method(value: Any) -> str:
    if not isinstance(value, str) or _METHOD.fullmatch(value.upper()) is None:
        raise InvalidValue(f"{value!r} is not a SIP method", "write for example OPTIONS")
    return value.upper()


def parse_header(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or re.fullmatch(r"[Xx]-[A-Za-z0-9-]{1,60}", value) is None:
        raise InvalidValue(f"{value!r} is not a header that can be added", "write X-CID, or null for none")
    if value.lower().startswith("x-orchestrator-"):
        raise InvalidValue(f"{value!r} is used by the server itself", "write X-CID")
    return value


Method = Annotated[str, PlainValidator(parse_method)]
Methods = Annotated[tuple[Method, ...], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]


class HepSettings(BaseModel):
    """What stands under `services: {hep: {...}}`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    address: Annotated[Receiver, PlainValidator(parse_receiver), PlainSerializer(str)]
    capture_id: int = Field(1, ge=1, le=4_294_967_295)
    password: SecretStr = SecretStr("")
    node: str = Field("orchestrator", max_length=100)
    methods: Methods = ()
    without: Methods = ()
    sample: float = Field(1.0, gt=0, le=1)
    steps: Switch = True
    header: Annotated[str | None, PlainValidator(parse_header)] = "X-CID"
    mask: Switch = True
    buffer: int = Field(4_000_000, ge=100_000, le=1_000_000_000)
    ca: Path | None = None
    verify: Switch = True


class Hep:
    """Facts become packets in one greenlet, and another one sends them."""

    def __init__(self, server: ServerContext, settings: HepSettings) -> None:
        self._server = server
        self._settings = settings
        self._encoder = Encoder(settings.capture_id, settings.node, settings.password.get_secret_value())
        self._calls = Correlation()
        self._choice = Choice(settings.methods, settings.without, settings.sample)
        self._masks = settings.mask
        self._home = ("0.0.0.0", 0)  # noqa: S104 - as long as no message says what our address is
        self.left_out = 0
        self.sender = Sender(_opener(settings), settings.address.transport != "udp", settings.buffer, self._told)

    def start(self) -> None:
        server, sender = self._server, self.sender
        if self._settings.header is not None:
            server.mark_calls(self._settings.header)
        kinds: list[type[Any]] = [MessageIn, MessageOut, CallLeg, CallRecord]
        server.follow(kinds if not self._settings.steps else [*kinds, TraceWritten], self.take, QUEUE)
        server.spawn(sender.run)
        server.counter("packets_sent", "Packets sent.", lambda: sender.sent)
        server.counter("packets_dropped", "Packets dropped because the buffer was full.", lambda: sender.dropped)
        server.counter("packets_lost", "Packets that the network refused.", lambda: sender.lost)
        server.counter("messages_left_out", "SIP messages left out by methods or sample.", lambda: self.left_out)
        server.counter("connects", "Connections made to the receiver.", lambda: sender.connects)
        server.gauge("buffer_octets", "Octets waiting for the receiver.", lambda: sender.waiting)
        server.health(lambda: sender.trouble and f"{self._settings.address}: {sender.trouble}")

    def stop(self) -> None:
        """The greenlets are gone."""
        self.sender.finish(FINISH)

    def take(self, facts: list[Any]) -> None:
        """Facts of whole turns. Legs first: the INVITE that a leg begins with was told before whose it is."""
        for fact in facts:
            if type(fact) is CallLeg:
                self._calls.tie(fact)
        for count, fact in enumerate(facts, 1):
            if isinstance(fact, SipMessage):
                self._message(fact)
            elif type(fact) is TraceWritten:
                self._step(fact)
            elif type(fact) is CallRecord:
                self._calls.end(fact.id, fact.ended)
            if count % TURN == 0:
                gevent.sleep(0)

    def _message(self, message: SipMessage) -> None:
        correlation = self._calls.of(message.call_id)
        if not self._choice.takes(message) or not self._choice.takes_call(correlation):
            self.left_out += 1
            return
        ours, theirs = (message.local, message.local_port), (message.host, message.port)
        source, destination = (theirs, ours) if isinstance(message, MessageIn) else (ours, theirs)
        self._home = ours
        data = masked(message.data, as_long) if self._masks else message.data
        protocol = UDP if message.transport == "udp" else TCP
        time = self._server.wall(message.time)
        self.sender.put(self._encoder.packet(SIP, data, source, destination, protocol, time, correlation))

    def _step(self, written: TraceWritten) -> None:
        """A line of a trace, as text. A run without a call belongs nowhere."""
        run, line = written.run, written.line
        correlation = self._calls.of_call(run.call_id)
        if not correlation or not self._choice.takes_call(correlation):
            return
        place = f" L{line.line}" if line.line else ""
        text = f"{run.name}{place} {line.text}".encode("utf-8", "replace")
        time = self._server.wall(line.time)
        self.sender.put(self._encoder.packet(LOG, text, self._home, self._home, UDP, time, correlation))

    def _told(self, trouble: str) -> None:
        address = str(self._settings.address)
        if trouble:
            self._server.log("warning", "hep_down", receiver=address, reason=trouble)
        else:
            self._server.log("info", "hep_up", receiver=address)


def _opener(settings: HepSettings) -> Callable[[], Any]:
    """What connects. Raises OSError: the certificate authorities cannot be read."""
    transport, host, port = settings.address
    if transport == "udp":
        return partial(open_udp, host, port)
    if transport == "tcp":
        return partial(open_tcp, host, port)
    context = tls_context(settings.ca, settings.verify)
    return partial(open_tls, host, port, context)


HEP = Service("hep", "Sends SIP messages and what flows do to Homer.", Hep, HepSettings)
