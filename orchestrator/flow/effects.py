"""What a flow asks of the world. A handler yields one of these; the host performs it and answers (FLOWLANG §4.3).

Effects hold plain values, already evaluated. The host (orchestrator.core) either answers at once or later, through
`FlowEngine.resume(ticket, value)` or `FlowEngine.throw(ticket, StepError)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Reply:
    """Answer the request that started the run. Answers at once: None. Error `call.state` when a final reply went
    before."""

    code: int
    reason: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    implicit: bool = False
    """The flow has ended without a reply and its last relay failed: the best response of the branches may be sent as
    it came."""


@dataclass(slots=True)
class Relay:
    """Send the call on. Answers later with a `relay result` mapping: outcome, code, reason, contact, gateway, tried.

    `to`: 'registered', 'original' or URIs; exactly one of to, aor, gateways is set. Durations are seconds.
    """

    to: Sequence[Any] = ()
    registered: bool = False
    original: bool = False
    aor: str = ""
    gateways: Sequence[str] = ()
    mode: str = "parallel"
    ring: float | None = None
    each: float | None = None
    keep_open: float | None = None
    failover_on: Sequence[str] = ()
    via: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    from_: str = ""


@dataclass(slots=True)
class Inject:
    """Add a destination to the ringing call. Answers at once with an `inject result`: added (number), reason (text)."""

    to: Sequence[Any] = ()
    aor: str = ""
    cancel_others: bool = False
    last: bool = False
    ring: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Cancel:
    """Stop ringing branches: 'all', or the branches named. Answers at once: None."""

    branches: Sequence[str] = ("all",)


@dataclass(slots=True)
class Hangup:
    """End the call by what fits: final reply, CANCEL, BYE to both sides. Answers at once: None; the call ends by
    'engine'."""

    reason: str = ""
    code: int | None = None
    leg: str = "both"


@dataclass(slots=True)
class SaveContact:
    """Store the contacts of this REGISTER and answer 200 (or 4xx). Answers at once: None."""

    min_expires: float | None = None
    max_expires: float | None = None
    max_contacts: int | None = None
    extra: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Lookup:
    """Read the registered contacts of an address. Answers at once: list of contact mappings (uri, contact, expires,
    …)."""

    aor: str


@dataclass(slots=True)
class Http:
    """One HTTP exchange, retries included. Answers later: `http result` mapping (status, text, json, headers).

    Errors: `http.connect`, `http.timeout`, `http.status`. `background` effects are answered at once with None and
    never fail the run; they outlive it.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    form: Mapping[str, str] | None = None
    body: str | None = None
    auth: tuple[str, str] | None = None
    timeout: float = 5.0
    retries: int = 0
    backoff: float = 0.2
    expect: Sequence[str] = ()
    background: bool = False


@dataclass(slots=True)
class EslCommand:
    """A FreeSWITCH command. kind: 'api', 'bgapi'. Answers later: `esl result` mapping (ok, text); errors `esl.*`.

    An empty `server` means the server that has a channel of this call, else the only or first one.
    """

    kind: str
    command: str
    server: str = ""
    timeout: float = 5.0


@dataclass(slots=True)
class EslExecute:
    """Run a dialplan application on a leg. Answers later: `execute result` (response), at once when not `wait`."""

    app: str
    args: str = ""
    leg: str = "caller"
    wait: bool = False
    server: str = ""
    uuid: str = ""
    """Channel of the leg; the core fills in both."""


@dataclass(slots=True)
class Log:
    """A line in the log and the trace. Answers at once."""

    text: str
    level: str = "info"
    data: Mapping[str, Any] = field(default_factory=dict)
