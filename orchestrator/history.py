"""What has happened, as typed facts: written once where it happens, read by whoever wants to know.

The trace of a run keeps the facts of its call, call records, the test kit, the SIP trace and the services of packages
listen to the stream. A fact is plain data; `text` is how a person reads it, `facts()` how a program does. Nothing is
formatted, and no fact of the wire is made, while nobody listens.

| kind | what has happened |
|---|---|
| `MessageIn`, `MessageOut` | a SIP message came or left, octet for octet |
| `JobDone` | work outside for a call has ended: a web request, a FreeSWITCH command, a push |
| `CallLeg` | a SIP Call-ID belongs to a call of a flow |
| `TraceWritten` (`flow.run.trace`) | a line of the trace of a run: what it did, as one of the facts below |
| `CallRecord` | a call of a flow has ended |

A line of a trace is a `RunFact`: SIP of the call (`CallFact`, here), or a step, a decision, an event, the beginning and
the end of the run (`flow.run.run_facts`, `flow.run.step_facts`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, ClassVar, Final, NamedTuple, Protocol, TypeVar

F = TypeVar("F")
M = TypeVar("M", bound="SipMessage")
BY_OPERATOR: Final = "hung up by an operator"
"""Why a call has ended that an operator hung up without saying why."""


class History:
    """The stream of one engine's facts. Listeners are called within the turn: they keep what they want, and do not
    wait."""

    __slots__ = ("told", "on_fault", "wire")

    def __init__(self) -> None:
        self.told: Final[dict[type, tuple[Callable[[Any], object], ...]]] = {}
        """Kind → its listeners, of those that anybody listens to. To be read; the wire looks here for each message."""
        self.on_fault: Callable[[Exception], object] | None = None
        """Told what a listener raises; the turn goes on."""
        self.wire: Callable[[bool, bytes, Any, float], object] | None = None
        """Told each message that comes (True) or leaves, its octets, its hop and the time: `MessageIn` and `MessageOut`
        without a fact being made. For one who keeps them all, the history of calls; it must not raise."""

    def listen(self, kind: type[F], told: Callable[[F], object]) -> None:
        """Call `told` with each fact of this kind from now on."""
        self.told[kind] = (*self.told.get(kind, ()), told)

    def ignore(self, kind: type[F], told: Callable[[F], object]) -> None:
        """Call it no more."""
        left = tuple(other for other in self.told.pop(kind, ()) if other != told)
        if left:
            self.told[kind] = left

    def hears(self, kind: type) -> bool:
        """Whether anybody listens: else the fact need not be made."""
        return kind in self.told

    def tell(self, fact: object) -> None:
        """A fact, to those who listen to its kind, in the order they came."""
        for told in self.told.get(type(fact), ()):
            try:
                told(fact)
            except Exception as bug:
                if self.on_fault is None:
                    raise
                self.on_fault(bug)


# --- the wire ---------------------------------------------------------------------------------------------------------


class _Point(Protocol):
    """As `sip.points` has it."""

    index: int
    host: str
    local: str
    local_port: int
    transport: str


class _Hop(Protocol):
    @property
    def point(self) -> Any: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...


class SipMessage(NamedTuple):
    """A SIP message on the wire: its octets, the peer's address, our side of it, and when it came or left. What it says
    of itself is read when it is asked for."""

    data: bytes
    host: str
    port: int
    point: int
    """Index of our listening point."""
    local: str = ""
    """Address of ours that it came to or leaves from: a name where only that is known (`sip: advertise:`)."""
    local_port: int = 0
    """The port that point listens on; a connection of our own has another one."""
    transport: str = "udp"
    time: float = 0.0
    """Seconds of the engine's clock."""

    @classmethod
    def at(cls: type[M], data: bytes, hop: _Hop, time: float) -> M:
        """One from or to a hop (`sip.points.Hop`)."""
        point: _Point = hop.point
        return cls(
            data, hop.host, hop.port, point.index, point.local or point.host, point.local_port, point.transport, time
        )

    @property
    def head(self) -> bytes:
        """Start line and header."""
        return self.data.split(b"\r\n\r\n", 1)[0]

    @property
    def start_line(self) -> bytes:
        """`INVITE sip:bob@example.com SIP/2.0`, `SIP/2.0 200 OK`."""
        return self.data.split(b"\r\n", 1)[0]

    @property
    def call_id(self) -> bytes:
        """Value of Call-ID, b'' where there is none."""
        data = self.data
        at = data.find(b"\r\nCall-ID: ")  # as most write it; an expression takes several times as long
        if 0 <= at < data.find(b"\r\n\r\n"):
            return data[at + 11 : data.find(b"\r", at + 11)].strip()
        return _value(_CALL_ID, self.head)

    @property
    def cseq_method(self) -> bytes:
        """The method in CSeq: of a response that of its request; b'' where there is none."""
        return _value(_CSEQ, self.head).rpartition(b" ")[2]


class MessageIn(SipMessage):
    """One that came."""

    __slots__ = ()


class MessageOut(SipMessage):
    """One that leaves."""

    __slots__ = ()


class JobDone(NamedTuple):
    """Work outside for a call has ended: a web request, a FreeSWITCH command, a push, what a package does."""

    number: int
    """Of the job."""
    call: str
    """Id of the call, or the Call-ID of one of its legs."""
    what: str
    """`http GET`, `fs.api uuid_kill`, `push apns`."""
    facts: Mapping[str, str]
    """Where it went. Neither paths, arguments nor bodies: they may hold secrets."""
    started: float
    ended: float
    """Seconds of the engine's clock."""
    error: str
    """Type of the error, '' for none."""


class CallLeg(NamedTuple):
    """A SIP Call-ID belongs to a call of a flow from now on: that of its INVITE, or of a leg behind FreeSWITCH."""

    call: str
    """Id of the call."""
    call_id: bytes
    first: bytes
    """Call-ID of its first INVITE, which names the call on all legs."""


_CALL_ID = re.compile(rb"\n(?:call-id|i)[ \t]*:([^\r\n]*)")
_CSEQ = re.compile(rb"\ncseq[ \t]*:([^\r\n]*)")
"""Both read small letters, and a line feed before the first line: so they take a tenth of the time, and a head may have
64 KB."""


def _value(field: re.Pattern[bytes], head: bytes) -> bytes:
    found = field.search(b"\n" + head.lower())
    return head[found.start(1) - 1 : found.end(1) - 1].strip() if found is not None else b""


# --- calls that are over ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CallRecord:
    """What is known of a call at its end. Times are seconds since 1970, lengths seconds."""

    id: str
    sip_call_id: str
    flow: str
    run: str
    caller: str
    """AOR in From."""
    called: str
    """AOR in the request URI: what was dialled."""
    user: str | None
    """Who the caller has proved to be."""
    source: str
    """Address and port the INVITE came from."""
    started: float
    answered: float | None
    ended: float
    code: int | None
    """Final status the caller got; None where FreeSWITCH's dialplan gave us the call."""
    contact: str | None
    """Contact URI of the phone or gateway that answered."""
    ended_by: str
    """caller, callee or engine."""
    reason: str
    server: str | None
    """FreeSWITCH server that carried the media."""
    caller_uuid: str | None
    callee_uuid: str | None
    pushed: int = 0
    """Phones that were to be woken for it."""
    woken: int = 0
    """Those that have woken up."""

    @property
    def duration(self) -> float:
        """From the answer to the end, as `call.duration`; 0 for a call that was not answered."""
        return 0.0 if self.answered is None else self.ended - self.answered

    def facts(self) -> dict[str, Any]:
        """The record as it is written: plain values, times in ISO 8601 (UTC)."""
        return {
            "id": self.id,
            "sip_call_id": self.sip_call_id,
            "flow": self.flow,
            "run": self.run,
            "from": self.caller,
            "to": self.called,
            "user": self.user,
            "source": self.source,
            "started": _iso(self.started),
            "answered": None if self.answered is None else _iso(self.answered),
            "ended": _iso(self.ended),
            "setup": round((self.ended if self.answered is None else self.answered) - self.started, 3),
            "duration": round(self.duration, 3),
            "code": self.code,
            "contact": self.contact,
            "ended_by": self.ended_by,
            "reason": self.reason,
            "server": self.server,
            "caller_uuid": self.caller_uuid,
            "callee_uuid": self.callee_uuid,
            "pushed": self.pushed,
            "woken": self.woken,
        }


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# --- what runs do ----------------------------------------------------------------------------------------------------


class RunFact:
    """Something about one run; `str()` is the line in its trace. Its kinds are dataclasses with slots, whose fields are
    plain values."""

    __slots__: ClassVar[tuple[str, ...]] = ()
    _texts: ClassVar[tuple[str, Callable[[Any], tuple[Any, ...]]]]
    """A format for the values of its fields, and what reads them: made once for each kind, for all facts are
    weighed."""

    def __init_subclass__(cls) -> None:
        cls._texts = "%s" * len(cls.__slots__), _reader(cls.__slots__)

    @property
    def octets(self) -> int:
        """What its values take as text."""
        form, values = self._texts
        return len(form % values(self))

    def facts(self) -> dict[str, Any]:
        """Name → plain value; `kind` says which fact it is."""
        return {"kind": type(self).__name__, **{name: getattr(self, name) for name in self.__slots__}}


def _reader(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    """What gives the attributes of these names, as a tuple."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda fact: tuple(getattr(fact, name) for name in names)


@dataclass(slots=True)
class Note(RunFact):
    """What an action of a package says of itself."""

    text: str

    def __str__(self) -> str:
        return self.text


class CallFact(RunFact):
    """Something about the SIP of one call."""

    __slots__ = ()


@dataclass(slots=True)
class RequestSent(CallFact):
    """INVITE or CANCEL to a destination, or BYE to a side of the call."""

    method: str
    to: str
    """A contact URI; `caller` or `callee` for a BYE."""
    why: str = ""

    def __str__(self) -> str:
        to = f"to {self.to}" if self.method == "BYE" else f"to={self.to}"
        return f"SIP >> {self.method} {to}" + (f", {self.why}" if self.why else "")


@dataclass(slots=True)
class ResponseSent(CallFact):
    """A response of ours to the caller."""

    code: int
    reason: str = ""
    """The reason phrase, where it is not the usual one."""

    def __str__(self) -> str:
        return f"SIP >> {self.code} {self.reason}".rstrip()


@dataclass(slots=True)
class ResponseReceived(CallFact):
    """A response of a destination."""

    code: int
    contact: str

    def __str__(self) -> str:
        return f"SIP << {self.code} from {self.contact}"


@dataclass(slots=True)
class BranchEnded(CallFact):
    """A destination that has sent no final response is not waited for any more."""

    contact: str
    why: str
    """`is given up`, `has not answered`, or what kept the request from leaving."""

    def __str__(self) -> str:
        return f"SIP -- {self.contact} {self.why}"


@dataclass(slots=True)
class ByeHeld(CallFact):
    """A BYE of ours waits for the caller's ACK (RFC 3261 §15)."""

    def __str__(self) -> str:
        return "SIP -- BYE waits for the ACK"


@dataclass(slots=True)
class PhonePushed(CallFact):
    """A push to a phone that sleeps is on its way to the push service."""

    contact: str
    service: str
    why: str
    """call, message, request; cancel for a call that is over."""

    def __str__(self) -> str:
        return f"push >> {self.why} to={self.contact} by {self.service}"


@dataclass(slots=True)
class PushEnded(CallFact):
    """A push service has not taken a push; `outcome` is failed or dead."""

    contact: str
    outcome: str
    reason: str

    def __str__(self) -> str:
        return f"push << {self.outcome} for {self.contact}: {self.reason}"


@dataclass(slots=True)
class PhoneWoke(CallFact):
    """A phone that was pushed has registered."""

    contact: str
    was: str
    """The contact that it was pushed for."""

    def __str__(self) -> str:
        return f"push -- {self.was} has woken up" + (f" as {self.contact}" if self.contact != self.was else "")


@dataclass(slots=True)
class GatewayPassedOver(RunFact):
    """A gateway that is down is not tried."""

    gateway: str
    why: str

    def __str__(self) -> str:
        return f"gateway {self.gateway} is down, passed over: {self.why}"


@dataclass(slots=True)
class FreeSwitchUnusable(RunFact):
    """A call does not go through a FreeSWITCH server, or did not come back from it."""

    server: str
    why: str

    def __str__(self) -> str:
        return f"FreeSWITCH {self.server} {self.why}"
