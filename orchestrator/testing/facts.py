"""What a story keeps and what it is given: what was seen, and rules for what the world outside answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from orchestrator.errors import StepError
from orchestrator.flow.language.program import REQUESTS
from orchestrator.flow.run.charging import Authorise, Report
from orchestrator.flow.run.effects import Http
from orchestrator.flow.run.traits import PoolEffect
from orchestrator.history import MessageOut
from orchestrator.sip.push import Push, Pushed


@dataclass(frozen=True, slots=True)
class Seen:
    """Something that was seen. `stream` is sip, http, esl, effect, push, cgrates or `sink amqp` and the like; `what`
    the method, the status, the kind of command, push or request to CGRateS, or the name of the effect or event."""

    time: float
    stream: str
    kind: str
    """sent (a request to a phone), reply (a status to a caller), register (a status to a REGISTER), http, esl, effect
    (of a package), push, cgrates, the type of a sink."""
    what: str
    about: str
    """The request URI, the reason phrase, the URL, the command, the address of record of a push, the account, the name
    of the sink."""
    data: Any = None
    call: str = ""
    """Call-ID of a SIP message, and of the call that a push is for."""

    def __str__(self) -> str:
        return f"{self.time:.1f}s {self.kind} {self.what} {self.about}".rstrip()


_ANSWERS = {"INVITE": "reply", "REGISTER": "register", **{kind.upper(): "reply" for kind in REQUESTS}}
"""What an answer to a method is in a story."""


def seen_in(time: float, message: MessageOut) -> Seen | None:
    """What a SIP message of ours is for a story; None for what is of no interest (ACK, answers to BYE)."""
    first, _, rest = message.start_line.decode("utf-8", "replace").partition(" ")
    call = message.call_id.decode("utf-8", "replace")
    if first != "SIP/2.0":
        return Seen(time, "sip", "sent", first, rest.rpartition(" ")[0], call=call) if first != "ACK" else None
    status, _, reason = rest.partition(" ")
    kind = _ANSWERS.get(message.cseq_method.decode("utf-8", "replace"), "")
    return Seen(time, "sip", kind, status, reason, call=call) if kind else None


@dataclass(slots=True)
class HttpRule:
    """What a web service answers: the first rule whose globs fit. `error` is connect or timeout."""

    url: str
    method: str = "*"
    status: int = 200
    json: Any = None
    text: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    error: str = ""
    delay: float = 0.0

    def answer(self, effect: Http) -> Any:
        if self.error:
            return StepError(f"http.{self.error}", f"{self.error} (as the test says)")
        expected = any(fnmatchcase(str(self.status), word.replace("x", "?")) for word in effect.expect)
        if not 200 <= self.status < 300 and not expected:
            return StepError("http.status", f"status {self.status}", {"status": self.status})
        return {"status": self.status, "text": self.text, "json": self.json, "headers": dict(self.headers)}


@dataclass(slots=True)
class EslRule:
    """What FreeSWITCH answers to a command, or what an application comes to (its response, channel variables)."""

    command: str
    reply: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)

    def fits(self, command: str) -> bool:
        return fnmatchcase(command, self.command)


@dataclass(slots=True)
class EffectRule:
    """What becomes of an effect of a package that is done in a pool: the first rule that fits. `error` is the type of
    the error it fails with, '' for `result`."""

    name: str
    wanted: Mapping[str, Any] = field(default_factory=dict)
    """Field → what it has to hold at least; texts are globs."""
    result: Any = None
    error: str = ""
    delay: float = 0.0

    def fits(self, effect: PoolEffect) -> bool:
        return fnmatchcase(effect.name, self.name) and contains(fields_of(effect), self.wanted)

    def answer(self) -> Any:
        return StepError(self.error, f"{self.error} (as the test says)") if self.error else self.result


PushOutcome = Literal["sent", "failed", "dead"]
PUSH_OUTCOMES: tuple[PushOutcome, ...] = ("sent", "failed", "dead")


@dataclass(slots=True)
class PushRule:
    """What becomes of a push: the first rule whose globs fit. Without one the push service takes it, and the phone
    sleeps on."""

    to: str = "*"
    """The address of record."""
    service: str = "*"
    kind: str = "*"
    token: str = "*"  # noqa: S105  # a glob
    """Of the phone."""
    outcome: PushOutcome = "sent"
    reason: str = ""
    """In the words of the service."""
    delay: float = 0.0
    """Seconds until the service answers; within its TTL."""
    wakes: float | None = None
    """Seconds after that the phone registers; None: it does not wake up. A push that ends a call wakes nobody."""
    contact: str = ""
    """Where it is then, '' for where it was."""

    def fits(self, push: Push) -> bool:
        token = push.address.token
        pairs = ((push.aor, self.to), (push.service, self.service), (push.kind, self.kind), (token, self.token))
        return all(fnmatchcase(value, pattern) for value, pattern in pairs)

    def answer(self) -> Pushed:
        reason = self.reason or ("" if self.outcome == "sent" else "as the test says")
        return Pushed(self.outcome, reason)


def fields_of(effect: object) -> dict[str, Any]:
    """What an effect of a package, a push or a request to CGRateS asks for, by the names of its fields."""
    if isinstance(effect, Push):
        kept = {name: getattr(effect, name) for name in ("service", "kind", "ttl", "data", "options")}
        return {**kept, "token": effect.address.token, "app": effect.address.app}
    if isinstance(effect, Authorise | Report):
        asked = {each.name: getattr(effect.charged, each.name) for each in fields(effect.charged)}
        return {**asked, "usage": effect.usage, "cause": effect.cause if isinstance(effect, Report) else ""}
    return {each.name: getattr(effect, each.name) for each in fields(effect)} if is_dataclass(effect) else {}


def contains(value: Any, wanted: Any) -> bool:
    """Whether a value holds at least what is wanted: maps as subsets, lists item by item, texts as globs."""
    if isinstance(wanted, Mapping):
        return isinstance(value, Mapping) and all(key in value and contains(value[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list | tuple):
        same = isinstance(value, list | tuple) and len(value) == len(wanted)
        return same and all(contains(one, other) for one, other in zip(value, wanted, strict=True))
    if isinstance(wanted, str):
        return fnmatchcase(str(value), wanted)
    return bool(value == wanted)
