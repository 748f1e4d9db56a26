"""What the actions of the language tell the trace, as typed facts; see `flow.run.run_facts`.

They name no secret: neither URLs and bodies of web requests, nor the values of variables.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.history import RunFact


@dataclass(slots=True)
class Stepped(RunFact):
    """A step without a kind of its own: its action, and the rest of the line."""

    action: str
    what: str = ""

    def __str__(self) -> str:
        return f"{self.action} {self.what}".rstrip()


@dataclass(slots=True)
class AuthDone(RunFact):
    """`auth`: `passed`, `failed` or `challenged`; the `user` of who has passed, and whether his source is trusted."""

    verdict: str
    user: str = ""
    trusted: bool = False

    def __str__(self) -> str:
        if self.verdict != "passed":
            return f"auth -> {self.verdict}"
        return f"auth -> {self.user}{', trusted' if self.trusted else ''}"


@dataclass(slots=True)
class ContactsSaved(RunFact):
    """`register`: the contacts of the REGISTER are saved."""

    def __str__(self) -> str:
        return "register"


@dataclass(slots=True)
class LookedUp(RunFact):
    """`lookup`: contacts found for an address of record."""

    aor: str
    contacts: int

    def __str__(self) -> str:
        return f"lookup {self.aor} -> {self.contacts} contact(s)"


@dataclass(slots=True)
class Replied(RunFact):
    """`reply`."""

    code: int
    reason: str = ""

    def __str__(self) -> str:
        return f"reply {self.code} {self.reason}"


@dataclass(slots=True)
class RelayBegan(RunFact):
    """`relay`: to whom, for how many seconds it stays open, through which FreeSWITCH server, and how many seconds
    phones that sleep have to wake up."""

    to: str
    keep_open: float | None = None
    via: str = ""
    wake: float | None = None

    def __str__(self) -> str:
        keeps = f", open for {self.keep_open:g}s" if self.keep_open else ""
        wakes = f", wakes phones for {self.wake:g}s" if self.wake else ""
        return f"relay to {self.to}{keeps}{wakes}"


@dataclass(slots=True)
class RelayEnded(RunFact):
    """How a relay has ended; `code` is 0 where nobody was reached."""

    outcome: str
    code: int
    why: str = ""

    def __str__(self) -> str:
        return f"relay -> {self.outcome} {self.why or self.code}"


@dataclass(slots=True)
class Injected(RunFact):
    """`inject`: how many branches it has added, and why no more."""

    added: int
    why: str = ""

    def __str__(self) -> str:
        return f"inject {self.added} branch(es){f', {self.why}' if self.why else ''}"


@dataclass(slots=True)
class PlacingBegan(RunFact):
    """`originate`: whom we have FreeSWITCH call."""

    to: str

    def __str__(self) -> str:
        return f"originate to {self.to}"


@dataclass(slots=True)
class PlacingEnded(RunFact):
    """How that has ended."""

    outcome: str
    code: int

    def __str__(self) -> str:
        return f"originate -> {self.outcome} {self.code}"


@dataclass(slots=True)
class Transferred(RunFact):
    """`transfer` of a leg."""

    leg: str
    to: str

    def __str__(self) -> str:
        return f"transfer {self.leg} to {self.to}"


@dataclass(slots=True)
class MediaBegan(RunFact):
    """`media`: FreeSWITCH holds the caller."""

    server: str
    answers: bool

    def __str__(self) -> str:
        return f"media on {self.server}{', answered' if self.answers else ''}"


@dataclass(slots=True)
class PlayBegan(RunFact):
    """`play`."""

    file: str
    leg: str
    background: bool = False
    repeat: int = 1

    def __str__(self) -> str:
        return f"play {self.file} to {self.leg}{' in the background' if self.background else ''}"


@dataclass(slots=True)
class RecordBegan(RunFact):
    """`record`."""

    leg: str
    file: str
    silence: float | None = None
    """Seconds of silence that end it."""
    stop: str = ""
    """Keys that do."""

    def __str__(self) -> str:
        return f"record {self.leg} to {self.file}"


@dataclass(slots=True)
class RecordEnded(RunFact):
    """How many seconds were recorded."""

    seconds: float

    def __str__(self) -> str:
        return f"recorded {self.seconds:.1f}s"


@dataclass(slots=True)
class CollectBegan(RunFact):
    """`collect`: up to `max` keys of a leg, `seconds` for each, after a prompt ('' for none); those in `end` end it."""

    max: int
    leg: str
    seconds: float
    prompt: str = ""
    end: str = ""

    def __str__(self) -> str:
        prompt = f" after {self.prompt}" if self.prompt else ""
        return f"collect up to {self.max} keys from {self.leg}, {self.seconds:g}s each{prompt}"


@dataclass(slots=True)
class CollectEnded(RunFact):
    """How many keys were collected: which ones is nobody's affair, it may be a PIN."""

    keys: int

    def __str__(self) -> str:
        return f"collected {self.keys} keys"


@dataclass(slots=True)
class DetectBegan(RunFact):
    """`detect` on a leg, for so many seconds where it has a bound."""

    what: str
    leg: str
    seconds: float | None = None

    def __str__(self) -> str:
        return f"detect {self.what} on {self.leg}" + ("" if self.seconds is None else f" for {self.seconds:g}s")


@dataclass(slots=True)
class FreeSwitchAsked(RunFact):
    """`fs.api`, `fs.bgapi`, `fs.execute`: a command, or an application with its arguments on a leg."""

    how: str
    command: str
    arguments: str = ""
    leg: str = ""

    def __str__(self) -> str:
        if not self.leg:
            return f"fs.{self.how} {self.command}"
        return f"fs.{self.how} {self.command} {self.arguments} on {self.leg}"


@dataclass(slots=True)
class HttpAsked(RunFact):
    """`http`: a web request."""

    method: str
    background: bool = False

    def __str__(self) -> str:
        return "http in the background" if self.background else f"http {self.method}"


@dataclass(slots=True)
class HttpAnswered(RunFact):
    """Its status."""

    status: int

    def __str__(self) -> str:
        return f"http -> {self.status}"


@dataclass(slots=True)
class PushBegan(RunFact):
    """`push`: to whose phones."""

    to: str

    def __str__(self) -> str:
        return f"push to {self.to}"


@dataclass(slots=True)
class PushDone(RunFact):
    """What has become of the pushes, by phones."""

    sent: int
    failed: int
    dead: int

    def __str__(self) -> str:
        return f"push -> {self.sent} sent, {self.failed} failed, {self.dead} dead"


@dataclass(slots=True)
class Logged(RunFact):
    """`log`."""

    text: str

    def __str__(self) -> str:
        return f"log: {self.text}"
