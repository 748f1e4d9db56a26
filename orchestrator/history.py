"""What has happened, as typed facts: written once where it happens, read by whoever wants to know.

The trace of a run keeps the facts of its call, call records, the test kit, the SIP trace and the services of packages
listen to the stream. A fact is plain data; `text` is how a person reads it, `facts()` how a program does. Nothing is
formatted, and no fact of the wire is made, while nobody listens.

| kind | what has happened |
|---|---|
| `MessageIn`, `MessageOut` | a SIP message came or left, octet for octet |
| `RequestSent`, `ResponseSent`, `ResponseReceived`, `BranchEnded`, `ByeHeld` | SIP of one call, as its flow sees it |
| `TraceWritten` (`flow.run.trace`) | a line of the trace of a run: a step, a decision, an event, SIP of its call |
| `CallRecord` (`core.calls.cdr`) | a call of a flow has ended |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Final, TypeVar

F = TypeVar("F")


class History:
    """The stream of one engine's facts. Listeners are called within the turn: they keep what they want, and do not
    wait."""

    __slots__ = ("told", "on_fault")

    def __init__(self) -> None:
        self.told: Final[dict[type, tuple[Callable[[Any], object], ...]]] = {}
        """Kind → its listeners, of those that anybody listens to. To be read; the wire looks here for each message."""
        self.on_fault: Callable[[Exception], object] | None = None
        """Told what a listener raises; the turn goes on."""

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


@dataclass(frozen=True, slots=True)
class MessageIn:
    """A SIP message as it came: its octets, the peer's address, and the index of the listening point."""

    data: bytes
    host: str
    port: int
    point: int


@dataclass(frozen=True, slots=True)
class MessageOut:
    """A SIP message as it leaves."""

    data: bytes
    host: str
    port: int
    point: int


# --- SIP of one call --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CallFact:
    """Something about the SIP of one call; `str()` is the line in its trace."""

    @property
    def octets(self) -> int:
        """What its texts take."""
        return sum(len(value) for value in self.facts().values() if isinstance(value, str))

    def facts(self) -> dict[str, Any]:
        """Name → plain value; `kind` says which fact it is."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {"kind": type(self).__name__, **values}


@dataclass(frozen=True, slots=True)
class RequestSent(CallFact):
    """INVITE or CANCEL to a destination, or BYE to a side of the call."""

    method: str
    to: str
    """A contact URI; `caller` or `callee` for a BYE."""
    why: str = ""

    def __str__(self) -> str:
        to = f"to {self.to}" if self.method == "BYE" else f"to={self.to}"
        return f"SIP >> {self.method} {to}" + (f", {self.why}" if self.why else "")


@dataclass(frozen=True, slots=True)
class ResponseSent(CallFact):
    """A response of ours to the caller."""

    code: int
    reason: str = ""
    """The reason phrase, where it is not the usual one."""

    def __str__(self) -> str:
        return f"SIP >> {self.code} {self.reason}".rstrip()


@dataclass(frozen=True, slots=True)
class ResponseReceived(CallFact):
    """A response of a destination."""

    code: int
    contact: str

    def __str__(self) -> str:
        return f"SIP << {self.code} from {self.contact}"


@dataclass(frozen=True, slots=True)
class BranchEnded(CallFact):
    """A destination that has sent no final response is not waited for any more."""

    contact: str
    why: str
    """`is given up`, `has not answered`, or what kept the request from leaving."""

    def __str__(self) -> str:
        return f"SIP -- {self.contact} {self.why}"


@dataclass(frozen=True, slots=True)
class ByeHeld(CallFact):
    """A BYE of ours waits for the caller's ACK (RFC 3261 §15)."""

    def __str__(self) -> str:
        return "SIP -- BYE waits for the ACK"
