"""A flow engine with a manual clock, a host that writes down what it is asked, and steps built by hand.

`step("reply", 480)` is a Step with the short field set; other keys by name, those of Python's words with a `_` behind.
Plain values become constants, functions of the environment become expressions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orchestrator.flow.actions  # noqa: F401  fills ACTIONS
from orchestrator.errors import StepError
from orchestrator.events.bus import Bus
from orchestrator.events.event import Event, EventSpec
from orchestrator.events.registry import BUILTIN_EVENTS, custom_event
from orchestrator.flow.language.program import Branch, Catch, Flow, Place, Program, Resources, Step, Trigger, Where
from orchestrator.flow.language.registry import ACTIONS, Kind
from orchestrator.flow.run import effects
from orchestrator.flow.run.engine import PENDING, FlowEngine, Limits, Run, Ticket
from orchestrator.flow.run.trace import Trace, render
from orchestrator.timers import Timers

Env = Mapping[str, Any]
IDLE = {"runs": 0, "tasks": 0, "subscriptions": 0, "timers": 0}
_AS_GIVEN = {
    Kind.STEPS,
    Kind.OUTCOMES,
    Kind.BRANCHES,
    Kind.CASES,
    Kind.CATCHES,
    Kind.EVENT,
    Kind.WHERE,
    Kind.FLOW,
    Kind.GATEWAYS,
    Kind.SERVER,
    Kind.USERS,
    Kind.ENDPOINT,
    Kind.SUBSCRIPTION,
    Kind.NAME,
    Kind.ENUM,
    Kind.FAILOVER,
}
_MAPS = {Kind.ASSIGN, Kind.MAP, Kind.DATA}


@dataclass(frozen=True)
class Value:
    """A constant or a function of the environment, as the expression compiler would have made it."""

    given: Any
    source: str = "expression"
    reads: frozenset[tuple[str, ...]] = frozenset()

    def evaluate(self, env: Env) -> Any:
        return self.given(env) if callable(self.given) else self.given


def value(given: Any) -> Value:
    """`given` as an Evaluable."""
    return given if isinstance(given, Value) else Value(given)


def missing(env: Env) -> Any:
    """An expression that fails when it is evaluated."""
    raise StepError("expr.missing", "call.headers['X-Id'] is missing")


def where(rest: Callable[[Env], Any] | None = None, **equals: Any) -> Where:
    """A filter: attributes that must be equal, and a condition over `event`."""
    return Where({name: value(given) for name, given in equals.items()}, None if rest is None else value(rest))


def step(action: str, short: Any = None, **keys: Any) -> Step:
    """One step of a flow; `line=` is where it stands."""
    found = ACTIONS[action] if action != "if" else None
    line = keys.pop("line", 1)
    common = {
        "condition": keys.pop("if_", None),
        "result": keys.pop("as_", None),
        "id": keys.pop("id", None) if action != "unsubscribe" else None,
        "on_error": keys.pop("on_error", None),
        "timeout": keys.pop("timeout", None) if action not in ("http", "collect") else None,
    }
    common["condition"] = None if common["condition"] is None else value(common["condition"])
    common["timeout"] = None if common["timeout"] is None else value(common["timeout"])
    given = {name.rstrip("_"): key for name, key in keys.items()}
    if found is not None and short is not None:
        given[found.short or "values"] = short
    args: dict[str, Any] = {}
    for name, key in given.items():
        known = found.field(name) if found is not None else None
        kind = known.kind if known is not None else Kind.STEPS
        if kind in _MAPS:
            args[name] = {inner: value(one) for inner, one in key.items()}
        else:
            args[name] = key if kind in _AS_GIVEN else value(key)
    return Step(
        found,
        args,
        Place("test.flow.yaml", line, 1),
        source=action if short is None or callable(short) else f"{action}: {short}",
        **common,
    )


def steps(*given: Step) -> tuple[Step, ...]:
    return given


def if_(condition: Callable[[Env], Any], then: Sequence[Step], else_: Sequence[Step] | None = None) -> Step:
    """The block form."""
    keys = {"then": tuple(then)} | ({} if else_ is None else {"else_": tuple(else_)})
    return step("if", if_=condition, **keys)


def catch(error: str, *do: Step) -> Catch:
    return Catch(error, do)


def on_wait(event: str, *do: Step, **keys: Any) -> Branch:
    """A branch of first_of that waits for an event."""
    return Branch(step("wait", event, **keys), None, do)


def after(seconds: float, *do: Step) -> Branch:
    return Branch(None, value(seconds), do)


def flow(*do: Step, name: str = "main", on: str = "invite", **keys: Any) -> Flow:
    """A flow; `on` is a kind of trigger or the name of an event, `vars` plain first values."""
    place = Place("test.flow.yaml", keys.pop("line", 1), 1)
    kinds = ("invite", "register", "start", "call")
    where_ = keys.pop("where", None)
    if "every" in keys:
        trigger = Trigger("every", every=keys.pop("every"))
    else:
        trigger = Trigger(on) if on in kinds else Trigger("event", on, where_)
    for key in ("when", "key"):
        if key in keys:
            keys[key] = value(keys[key])
    keys["vars"] = {name: value(given) for name, given in keys.get("vars", {}).items()}
    return Flow(name, trigger, do, place, **keys)


CUSTOM = (
    custom_event("ping", {"n": "optional number"}),
    custom_event("pong", {"n": "optional number"}),
    custom_event("pickup", {"group": "optional digits", "picker": "digits"}),
)
EVENTS: dict[str, EventSpec] = {spec.name: spec for spec in (*BUILTIN_EVENTS, *CUSTOM)}

DTMF = {"digit": "1", "ms": 100, "leg": "callee", "source": "RTP", "uuid": None}
REGISTERED = {
    "aor": "bob@example.com",
    "contact": "sip:bob@10.0.0.5",
    "uri": "sip:bob@10.0.0.5:5060",
    "expires": 3600,
    "user_agent": "",
    "source_ip": "10.0.0.5",
    "path": None,
    "mobile": True,
    "is_new": True,
    "instance": None,
}
EXAMPLES: dict[str, dict[str, Any]] = {
    "dtmf": DTMF,
    "registered": REGISTERED,
    "hangup": {"leg": "caller", "cause": "normal", "code": None},
    "ping": {"n": None},
    "pong": {"n": None},
    "pickup": {"group": None, "picker": "101"},
}


@dataclass
class Served:
    """What a run serves."""

    host: FakeHost
    run: int

    @property
    def replied(self) -> bool:
        return bool(self.host.finals.get(self.run))


@dataclass
class Waiting:
    """What a step waits for."""

    host: FakeHost
    ticket: Ticket

    def undo(self) -> None:
        self.host.abandoned.append(self.host.waiting.pop(self.ticket)[1])


@dataclass
class FakeHost:
    """Writes down every effect, keeps the promises a host makes, and answers relays and jobs when the test says so.

    `finals` are the final replies each call has got, 200 from a relay included: more than one is a bug of the engine.
    """

    names_: dict[str, Any] = field(default_factory=lambda: {"now": 0})
    done: list[Any] = field(default_factory=list)
    waiting: dict[Ticket, tuple[Run, Any]] = field(default_factory=dict)
    abandoned: list[Any] = field(default_factory=list)
    finals: dict[int, list[int]] = field(default_factory=dict)
    engine: FlowEngine = field(init=False)

    def perform(self, run: Run, ticket: Ticket, effect: Any) -> Any:
        self.done.append(effect)
        run.subject = Served(self, run.id)
        on_call = isinstance(effect, effects.Relay | effects.Reply | effects.Inject | effects.Hangup)
        if on_call and run.call is None and run.flow.trigger.kind != "register":
            raise StepError("call.state", "this run has no call")
        match effect:
            case effects.Reply():
                return self._reply(run, effect)
            case effects.Relay() | effects.EslCommand():
                if isinstance(effect, effects.Relay) and (self.finals.get(run.id) or self.relays_of(run)):
                    raise StepError("call.state", "the call has a final reply, or another relay")
                return self._wait(run, ticket, effect)
            case effects.Http() if not effect.background:
                return self._wait(run, ticket, effect)
            case effects.EslExecute() if effect.wait:
                return self._wait(run, ticket, effect)
            case effects.EslExecute():
                return {"response": ""}
            case effects.Hangup():
                self.end(run, "engine", effect.reason, effect.code or 487)
            case effects.Inject():
                return {"added": len(effect.to) or 1, "reason": ""}
            case effects.SaveContact() | effects.Answer() | effects.Media(answer=True):
                self.finals.setdefault(run.id, []).append(200)
            case effects.Lookup():
                return [{"uri": f"sip:bob@10.0.0.{n}", "contact": f"bob{n}", "mobile": n == 2} for n in (1, 2)]
        return None

    def _reply(self, run: Run, effect: effects.Reply) -> None:
        if self.finals.get(run.id) or (run.call is not None and run.call["state"] == "ended"):
            raise StepError("call.state", "a final reply is out already")
        if effect.code >= 200:
            self.finals.setdefault(run.id, []).append(effect.code)
            for ticket in self.relays_of(run):
                del self.waiting[ticket]
                self.engine.resume(ticket, {"outcome": "cancelled", "code": 487, "reason": ""})

    def relays_of(self, run: Run) -> list[Ticket]:
        """Relays of this call that have not ended."""
        return [ticket for ticket, other, _ in self.pending(effects.Relay) if other is run]

    def _wait(self, run: Run, ticket: Ticket, effect: Any) -> Any:
        self.waiting[ticket] = (run, effect)
        ticket.work = Waiting(self, ticket)
        return PENDING

    def names(self, program: Program) -> Mapping[str, Any]:
        resources = program.resources
        self.names_ |= {"const": resources.const, "groups": resources.groups}
        self.names_["secrets"] = dict.fromkeys(resources.secrets, "test")
        return self.names_

    def end(self, run: Run, by: str, reason: str = "normal", code: int = 487) -> None:
        """The call is over: a caller who has no final reply yet gets one, as a proxy would see to."""
        if run.call is None or run.call["state"] == "ended":
            return
        if not self.finals.get(run.id):
            self.finals.setdefault(run.id, []).append(code)
        run.call["state"] = "ended"
        self.engine.call_ended(run, by, reason)

    def pending(self, kind: type) -> Iterator[tuple[Ticket, Run, Any]]:
        """Those who wait for such an effect; an answer may take others off the list."""
        for ticket, (run, effect) in list(self.waiting.items()):
            if isinstance(effect, kind) and ticket in self.waiting:
                yield ticket, run, effect

    def asked(self, kind: type) -> list[Any]:
        return [effect for effect in self.done if isinstance(effect, kind)]


class World:
    """An engine and all that is around it, at virtual time."""

    def __init__(
        self, *flows: Flow, limits: Limits | None = None, program: Program | None = None, **resources: Any
    ) -> None:
        self.timers = Timers()
        self.bus = Bus(self.timers)
        self.host = FakeHost()
        self.program = program or Program(flows, EVENTS, Resources(**resources), hash="v1")
        self.engine = self.host.engine = FlowEngine(self.program, self.bus, self.timers, self.host, limits)
        self._calls = 0

    def invite(self, name: str = "", **call: Any) -> Run:
        """A call that starts the first fitting flow, or the one named."""
        self._calls += 1
        view = {
            "id": f"c{self._calls}",
            "state": "new",
            "from": {"aor": "alice@example.com", "user": "alice"},
            "to": {"aor": "bob@example.com", "user": "bob"},
            **call,
        }
        found = self.program.flow(name) if name else self.engine.choose("invite", {"call": view})
        assert found is not None
        return self.engine.start(found, call=view)

    def event(self, name: str, call: Run | None = None, /, **attributes: Any) -> int:
        """Something happens outside; attributes not given have plausible values."""
        values = {**EXAMPLES.get(name, {}), **attributes}
        return self.bus.publish(Event(name, values, call.call_id if call is not None else "", self.timers.now))

    def at(self, seconds: float) -> None:
        """Let time pass until then."""
        self.timers.run_due(seconds)

    def relayed(self, outcome: str = "answered", code: int = 200, **result: Any) -> None:
        """All relays that wait come to this end."""
        for ticket, run, _ in self.host.pending(effects.Relay):
            del self.host.waiting[ticket]
            if outcome == "answered":
                self.host.finals.setdefault(run.id, []).append(code)
                run.call["state"] = "answered"
            answer: dict[str, Any] = {"reason": "", "contact": None, "gateway": None, "tried": []}
            self.engine.resume(ticket, {**answer, "outcome": outcome, "code": code, **result})

    def answered(self, kind: type, answer: Any) -> None:
        """All effects of this kind that wait get this answer, an error if it is one."""
        for ticket, _, _ in self.host.pending(kind):
            del self.host.waiting[ticket]
            if isinstance(answer, StepError):
                self.engine.throw(ticket, answer)
            else:
                self.engine.resume(ticket, answer)

    def hang_up(self, run: Run, by: str = "caller") -> None:
        self.host.end(run, by)

    @property
    def logs(self) -> list[str]:
        return [effect.text for effect in self.host.done if isinstance(effect, effects.Log)]

    @property
    def replies(self) -> list[int]:
        return [effect.code for effect in self.host.done if isinstance(effect, effects.Reply)]

    def trace(self, run: Run) -> list[str]:
        """The texts of the trace, without times."""
        return [record.text for record in Trace.of(run).records]

    def rendered(self, run: Run) -> list[str]:
        return list(render(Trace.of(run)))

    def assert_idle(self) -> None:
        """Nothing is left of any run."""
        assert self.engine.live() == IDLE, (self.engine.live(), list(self.engine.runs.values()))
        assert not self.host.waiting
