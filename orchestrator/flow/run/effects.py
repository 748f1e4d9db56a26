"""What a flow asks of the world. A handler yields one of these; the host performs it and answers (FLOWLANG §4.3).

Effects hold plain values, already evaluated, and say what kind they are (flow.run.traits). The host (orchestrator.core)
either answers at once or later, through `FlowEngine.resume(ticket, value)` or `FlowEngine.throw(ticket, StepError)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from orchestrator.flow.run.traits import Effect, Waiting, WaitsFor

KEYS = frozenset("0123456789*#ABCD")
"""Of a telephone: what `collect` takes and `dtmf` sends."""


class Sleepers(Protocol):
    """Phones that were pushed."""

    @property
    def contacts(self) -> Sequence[str]:
        """Of those that have not woken up yet, without parameters."""


@dataclass(slots=True)
class Reply(Effect):
    """Answer the request that started the run. Answers at once: None. Error `call.state` when a final reply went
    before."""

    needs_call = True

    code: int
    reason: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    implicit: bool = False
    """The flow has ended without a reply and its last relay failed: the best response of the branches may be sent as
    it came."""


@dataclass(slots=True)
class Serve(Effect):
    """The flow has left its request, which begins no call, as it found it: do what is done without flows."""


@dataclass(slots=True)
class Relay(Waiting):
    """Send the call on. Answers later with a `relay result` mapping: outcome, code, reason, contact, gateway, tried.

    `to`: 'registered', 'original' or URIs; exactly one of to, aor, gateways is set. `number` is called at the gateways
    instead of the dialled one. Durations are seconds.
    """

    needs_call = True

    to: Sequence[Any] = ()
    registered: bool = False
    original: bool = False
    aor: str = ""
    gateways: Sequence[str] = ()
    number: str = ""
    mode: str = "parallel"
    ring: float | None = None
    each: float | None = None
    keep_open: float | None = None
    wake: float | None = None
    """Phones that sleep are pushed, and waited for so long; None: they are rung as they are."""
    failover_on: Sequence[str] = ()
    via: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    from_: str = ""
    sleepers: Sleepers | None = None
    """Who is waited for to wake up; the host says so."""

    def waits_for(self) -> WaitsFor:
        where = f" through {self.via}" if self.via else ""
        ring = "" if self.ring is None else f", who ring for {self.ring:g}s"
        asleep = self.sleepers.contacts if self.sleepers is not None else ()
        wake = (
            f"{len(asleep)} phone{'s' if len(asleep) > 1 else ''} to wake up: {', '.join(asleep)}; " if asleep else ""
        )
        return f"{wake}an answer of those called{where}{ring}", None


@dataclass(slots=True)
class Inject(Effect):
    """Add a destination to the ringing call. Answers at once with an `inject result`: added (number), reason (text)."""

    needs_call = True

    to: Sequence[Any] = ()
    aor: str = ""
    cancel_others: bool | str = False
    """The other branches stop: once this one rings (True, `when_ringing`) or is on its way (`when_sent`)."""
    last: bool = False
    ring: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Cancel(Effect):
    """Stop ringing branches: 'all', or the branches named. Answers at once: None."""

    needs_call = True
    ends_call = True

    branches: Sequence[str] = ("all",)


@dataclass(slots=True)
class Hangup(Effect):
    """End the call by what fits: final reply, CANCEL, BYE to both sides. Answers at once: None; the call ends by
    'engine'."""

    needs_call = True
    ends_call = True

    reason: str = ""
    code: int | None = None
    leg: str = "both"


@dataclass(slots=True)
class Release(Effect):
    """The main steps of an answered call have failed: end it if it has nobody but FreeSWITCH to talk to. Answers at
    once: None."""

    reason: str


@dataclass(slots=True)
class SaveContact(Effect):
    """Store the contacts of this REGISTER and answer 200 (or 4xx). Answers at once or when they are stored: None."""

    needs_call = True

    min_expires: float | None = None
    max_expires: float | None = None
    max_contacts: int | None = None
    extra: Mapping[str, str] = field(default_factory=dict)
    """Values to keep with the contact; `lookup` gives them back."""


@dataclass(slots=True)
class Authenticate(Effect):
    """Find out who sent the request; challenge or refuse him where that fails. Answers at once or later: a mapping.

    `verdict` is passed, challenged (the challenge is out), failed (it is out again after wrong credentials) or
    malformed (a 400 is out); `user`, `realm` and `trusted` are what `auth result` has.
    """

    realm: str
    users: str
    trust: Sequence[str] = ()


@dataclass(slots=True)
class Lookup(Effect):
    """Read the registered contacts of an address. Answers at once: list of contact mappings (uri, contact, expires,
    …)."""

    aor: str


@dataclass(slots=True)
class Http(Effect):
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

    @property
    def waits(self) -> bool:
        return not self.background

    def waits_for(self) -> WaitsFor:
        tries = f", {self.timeout:g}s for each of {self.retries + 1} tries" if self.retries else ""
        return f"the answer to {self.method}{tries}", None if self.retries else self.timeout


@dataclass(slots=True)
class PushTo(Waiting):
    """A push to each phone of an address that sleeps. Answers later with a `push result`: sent, failed, dead (numbers
    of phones); at once where nobody sleeps.

    `ttl`: seconds that push services may keep it, None for as long as calls wait; an empty `kind`: what the run serves.
    `data` is what the app is told, `services` what push services are told, by their names.
    """

    aor: str
    ttl: float | None = None
    kind: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    services: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def waits_for(self) -> WaitsFor:
        return f"push services to take the pushes to {self.aor}", None


@dataclass(slots=True)
class EslCommand(Waiting):
    """A FreeSWITCH command. kind: 'api', 'bgapi'. Answers later: `esl result` mapping (ok, text); errors `esl.*`.

    An empty `server` means the one that has a channel of this call, else that which has least to do. `timeout`: most
    seconds to wait; None for what the server is configured for, and for a job (bgapi) as long as it takes.
    """

    kind: str
    command: str
    server: str = ""
    timeout: float | None = None

    def waits_for(self) -> WaitsFor:
        return f"FreeSWITCH {self.server}".rstrip() + f" to answer {self.kind}", self.timeout


@dataclass(slots=True)
class EslExecute(Waiting):
    """Run a dialplan application on a leg. Answers later: `execute result` (response), at once when not `wait`.

    `leg` is caller, callee or both.
    """

    app: str
    args: str = ""
    leg: str = "caller"
    wait: bool = False
    server: str = ""
    uuid: str = ""
    """Channel of the leg; the core fills in both."""
    variables: Sequence[str] = ()
    """Channel variables wanted with the result, under its key `variables`, as they are when the application has
    ended."""
    timeout: float | None = None
    """Most seconds to wait; None for as long as the channel lives."""

    def waits_for(self) -> WaitsFor:
        return f"the end of {self.app} on the {self.leg}", self.timeout


@dataclass(slots=True)
class Media(Waiting):
    """Have FreeSWITCH take the caller's leg and hold it. Answers later: None, when commands can be given on it.

    With `answer` the caller gets a 200, else early media (183). An empty `server` means that which has least to do.
    """

    needs_call = True

    server: str = ""
    answer: bool = False

    def waits_for(self) -> WaitsFor:
        return f"FreeSWITCH {self.server} to hold the caller".replace("  ", " "), None


@dataclass(slots=True)
class Answer(Waiting):
    """Answer the caller from FreeSWITCH. Answers later: None, when the 200 has passed."""

    needs_call = True

    headers: Mapping[str, str] = field(default_factory=dict)

    def waits_for(self) -> WaitsFor:
        return "the 200 to the caller", None


@dataclass(slots=True)
class Play(Effect):
    """Play a file or tone to a leg. Answers later with None; at once when `background`."""

    needs_call = True

    file: str
    leg: str = "caller"
    repeat: int = 1
    background: bool = False

    @property
    def waits(self) -> bool:
        return not self.background

    def waits_for(self) -> WaitsFor:
        times = f", {self.repeat} times" if self.repeat > 1 else ""
        return f"the end of what is played to the {self.leg}{times}", None


@dataclass(slots=True)
class Record(Waiting):
    """Record a leg, or with `both` the whole conversation, until one of the ends given. Answers later with a
    `recording`: file, duration (seconds)."""

    needs_call = True

    file: str
    leg: str = "caller"
    max: float | None = None
    silence: float | None = None
    stop: str = ""

    def waits_for(self) -> WaitsFor:
        return f"the end of the recording of {self.leg}", self.max


@dataclass(slots=True)
class Collect(Waiting):
    """Collect up to `max` keys. Answers later with the digits, '' for none.

    `timeout` are the seconds to wait for each key, `end` the key that ends the input and is not part of it.
    """

    needs_call = True

    max: int
    leg: str = "caller"
    timeout: float = 5.0
    end: str = ""
    prompt: str = ""

    def waits_for(self) -> WaitsFor:
        end = f", {self.end} ends it" if self.end else ""
        return f"up to {self.max} keys of the {self.leg}, {self.timeout:g}s for each{end}", None


@dataclass(slots=True)
class Detect(Waiting):
    """Start a detector: `fax`, `beep`, `silence` or `decision`. Answers later with None, when it listens.

    `seconds`: nothing is raised after them. `silence`: how many seconds without speech count, `greeting`: within how
    many a person has finished his first words, `level`: the mean sample (16 bits) from which it is speech; None for
    the usual ones.
    """

    needs_call = True

    what: str
    leg: str = "caller"
    seconds: float | None = None
    silence: float | None = None
    greeting: float | None = None
    level: int | None = None

    def waits_for(self) -> WaitsFor:
        return f"FreeSWITCH to start listening for {self.what} on the {self.leg}", None


@dataclass(slots=True)
class Transfer(Waiting):
    """Send a leg that FreeSWITCH has to another destination. Answers later with None, when that has answered."""

    needs_call = True

    to: str
    leg: str = "caller"
    context: str = ""

    def waits_for(self) -> WaitsFor:
        return f"the transfer of the {self.leg}", None


@dataclass(slots=True)
class Originate(Waiting):
    """Have FreeSWITCH place a call, which becomes the call of the run. Answers later with a `relay result`."""

    to: str
    gateways: Sequence[str] = ()
    from_: str = ""
    ring: float | None = None
    via: str = ""
    vars: Mapping[str, str] = field(default_factory=dict)

    def waits_for(self) -> WaitsFor:
        return f"an answer to the call placed through {self.via or 'FreeSWITCH'}", self.ring


@dataclass(slots=True)
class Log(Effect):
    """A line in the log and the trace. Answers at once."""

    text: str
    level: str = "info"
    data: Mapping[str, Any] = field(default_factory=dict)
