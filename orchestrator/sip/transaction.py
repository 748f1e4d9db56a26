"""Transactions as tables (RFC 3261 §17 as amended by RFC 6026).

A transaction is a state and a table `{state: {input: (next state, effects)}}`. The four tables, in `client.py` and
`server.py`, are RFC figures 5-8 written down: a reviewer can hold one against the other. `step` is the only place
where a state changes.

An input that the table does not list is *ignored and counted* when it came from the network (a peer may send anything
at any time) and a `TransactionError` when it came from us (a timer or the transaction user asked for what cannot be).

Every state but the last has a timer that runs, whatever the peer or our own code does: nothing stays for ever. Effects
that arm one stand first in their entry, so that a later effect that raises does not keep it from being armed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from orchestrator.errors import OrchestratorError
from orchestrator.native import mypyc_attr
from orchestrator.sip.message import Response
from orchestrator.sip.points import Hop
from orchestrator.timers import Timer, Timers

Reaction = Callable[[Any, Any], None]
Table = dict[str, dict[str, tuple[str, tuple[Reaction, ...]]]]

TERMINATED: Final = "terminated"

NETWORK_INPUTS: Final = frozenset({"1xx", "2xx", "3xx-6xx", "request", "ACK", "transport error"})
"""Inputs a peer can cause; their absence from a table is normal. All other inputs are our own."""


class TransactionError(OrchestratorError):
    """We asked a transaction for something its state does not allow: a bug of ours, never a peer's doing."""


@dataclass(frozen=True, slots=True)
class TimerValues:
    """RFC 3261 table 4, in seconds. `c` is the proxy's timer C (§16.6 step 11: more than 3 minutes)."""

    t1: float = 0.5
    t2: float = 4.0
    t4: float = 5.0
    c: float = 180.0
    timeout: float = field(init=False)
    """64*T1: timers B, F, H, J, L, M and, over UDP, at least D."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "timeout", 64 * self.t1)


class Layer(ABC):
    """What transactions need of the layer that they live in (`sip.layer.TransactionLayer`)."""

    timers: Timers
    times: TimerValues
    send: Callable[[bytes, Hop], None]
    unanswered: int
    unattended: int
    answers: dict[tuple[bytes, int], int]
    """A `Counter`."""
    refused: dict[object, Any]

    @abstractmethod
    def forget(self, transaction: Transaction) -> None:
        """It is over."""

    @abstractmethod
    def count_ignored(self, transaction: Transaction, what: str) -> None:
        """An input from the network that its table does not list."""

    @abstractmethod
    def build_ack(self, invite: bytes, response: Response) -> bytes:
        """The ACK to a failure (§17.1.1.3)."""


@mypyc_attr(acyclic=True)
class Transaction:
    """One transaction: state, the two timers any of the machines needs at a time, and the layer it lives in."""

    __slots__ = (
        "layer", "key", "method", "state", "destination", "user", "weight",
        "_resend_timer", "_resend_input", "_end_timer", "_end_input", "_interval",
    )  # fmt: skip

    table: ClassVar[Table]
    kind: ClassVar[str]

    def __init__(self, layer: Layer, key: Any, method: bytes, destination: Hop, state: str) -> None:
        self.layer = layer
        self.key = key
        self.method = method
        self.destination = destination
        self.state = state
        self.user: Any = None
        self.weight = 0
        """Octets that it is counted with: those of the message it began with."""
        self._resend_timer: Timer | None = None
        self._resend_input = self._end_input = ""
        self._end_timer: Timer | None = None
        self._interval = 0.0

    def step(self, what: str, argument: Any = None) -> bool:
        """Feed one input. True when the table knew it; raises TransactionError for an impossible input of our own."""
        entry = self.table[self.state].get(what)
        if entry is None:
            if what not in NETWORK_INPUTS:
                raise TransactionError(f"{self!r} cannot take {what!r}")
            self.layer.count_ignored(self, what)
            return False
        self.state, effects = entry
        try:
            for effect in effects:
                effect(self, argument)
        finally:
            if self.state is TERMINATED:
                self.end()
        return True

    def end(self) -> None:
        """Leave the layer and let go of everything, so that reference counting frees the lot without the collector.

        Idempotent.
        """
        self.state = TERMINATED
        self.stop_timers()
        self.layer.forget(self)
        self.user = None

    # --- timers -------------------------------------------------------------------------------------------------------

    def start_end_timer(self, delay: float, name: str) -> None:
        if self._end_timer is not None:
            self._end_timer.cancel()
        self._end_input = name
        self._end_timer = self.layer.timers.after(delay, _end_due, self)

    def start_resend_timer(self, interval: float, name: str) -> None:
        self._interval = interval
        self._resend_input = name
        self._resend_timer = self.layer.timers.after(interval, _resend_due, self)

    def unless_reliable(self, delay: float) -> float:
        """The time that repetitions are waited for: none over a reliable transport (table 4: timers D, I, J, K)."""
        return 0.0 if self.destination.point.reliable else delay

    def stop_timers(self) -> None:
        if self._resend_timer is not None:
            self._resend_timer.cancel()
            self._resend_timer = None
        if self._end_timer is not None:
            self._end_timer.cancel()
            self._end_timer = None

    @property
    def armed(self) -> tuple[str, ...]:
        """Names of the timers that run."""
        pairs = ((self._resend_timer, self._resend_input), (self._end_timer, self._end_input))
        return tuple(name for timer, name in pairs if timer is not None and timer.armed)

    def __repr__(self) -> str:
        return f"<{self.kind} {self.method.decode('ascii', 'replace')} {self.state}>"


def _resend_due(transaction: Transaction) -> None:
    transaction.step(transaction._resend_input)


def _end_due(transaction: Transaction) -> None:
    transaction.step(transaction._end_input)
