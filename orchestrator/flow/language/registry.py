"""The registry of actions: one entry feeds checker, schema, completion, documentation and engine (FLOWLANG §4.3).

An `Action` says which keys stand under and beside it, of which kind each is, where the action may be used and what it
does to the call. Its handler is a generator, attached with `@ACTION.performs`; an action without one can be checked,
not run. One that computes something, or asks the host a single question, does without (`computes`; `asks` and `gets`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar

from orchestrator.flow.language.places import Place
from orchestrator.flow.language.written import Flaw

Handler = Callable[[Any, Any], Generator[Any, Any, Any]]
Function = Callable[[Any, Any], Any]
Request = Callable[[Any, Any], Any]
Answered = Callable[[Any, Any, Any], Generator[Any, Any, Any]]
"""They are given the task (`flow.run.task.Task`) and the step (`flow.language.program.Step`), which stand above."""
H = TypeVar("H", bound=Handler)
F = TypeVar("F", bound=Function)
R = TypeVar("R", bound=Request)
A = TypeVar("A", bound=Answered)


class Kind(Enum):
    """How a key's value is read. Everything from the YAML is text until its kind says otherwise."""

    TEXT = "text"  # text with ${…}
    CONDITION = "condition"  # bare expression of type true/false
    EXPRESSION = "expression"  # bare expression of any type
    VALUE = "value"  # text, number, true/false, list or map; '${x}' alone keeps the type of x
    NUMBER = "number"  # integer, or ${…} of type number
    BOOLEAN = "true/false"
    DURATION = "duration"  # 30s 500ms 2h, or ${…} of type duration
    STATUS = "SIP status"  # 100-699
    ENUM = "one of"  # Field.values
    DESTINATION = "destination"  # registered | original | sip: URI | list | ${…}
    FAILOVER = "failover codes"  # 408, 5xx, timeout
    STEPS = "steps"
    OUTCOMES = "outcomes"  # outcome[, outcome] → steps; Field.values lists the outcomes, `else` takes the rest
    BRANCHES = "branches"  # list of step lists (parallel) or of wait:/after: entries (first_of)
    CASES = "cases"  # value → steps
    CATCHES = "catches"  # list of {error: glob, do: steps}
    EVENT = "event"  # name of an event
    WHERE = "where"  # map of attributes, or expression over `event`
    DATA = "data"  # attributes of the raised event, or parameters of the called flow
    ASSIGN = "assignments"  # variable → value (set:)
    MAP = "map"  # name → VALUE (headers, json, form, query, vars)
    LIST = "list"
    FLOW = "flow"
    GATEWAYS = "gateways"  # name or list of names
    SERVER = "FreeSWITCH server"
    USERS = "user table"
    ENDPOINT = "endpoint"
    SUBSCRIPTION = "subscription id"
    NAME = "name"  # a bare word: id, loop variable, event name of FreeSWITCH
    NOTHING = "nothing"  # actions without a value: stop, break
    SECRET = "secret"  # noqa: S105  # text, {env: NAME} or {file: path}; resources only


@dataclass(frozen=True, slots=True)
class Field:
    name: str
    kind: Kind
    doc: str
    required: bool = False
    values: tuple[str, ...] = ()
    secret: bool = False
    """Secrets may be put here (http only)."""
    planned: bool = False
    """The language has it, this version does not: written in a flow it is an error (E119), never ignored."""
    check: Callable[[str], Flaw | None] | None = None
    """Whether a value as written can be used at all (E106)."""
    place: Place = Place.PLAIN
    """What its text is put into: how text from outside is encoded there, or refused (E212)."""


class CallChange(Enum):
    """What an action does to the state of the call, for the checker's analysis (new → answered → closed)."""

    NONE = "none"
    REPLIES = "replies"  # final reply if its code is >= 200 (reply) or always (register)
    RELAYS = "relays"  # may answer the call
    ANSWERS = "answers"  # answers the call (answer, media with answer: true)
    ENDS_CALL = "ends the call"  # hangup
    ENDS_FLOW = "ends the flow"  # stop, return, fail
    LEAVES_LOOP = "leaves the loop"  # break


@dataclass(slots=True)
class Action:
    """One action of the language."""

    name: str
    doc: str
    short: str | None = None
    """The field that a bare value stands for; None when the action takes a map of its own (set) or nothing (stop)."""
    fields: tuple[Field, ...] = ()
    beside: tuple[Field, ...] = ()
    result: str | None = None
    """Name of the record type its `as:` gets (flow.language.context), None when there is no result to keep."""
    needs: str = ""
    """'call', 'request' (call or REGISTER), 'register', 'loop' or ''."""
    provides: str = ""
    """'call' when the flow has a call from this step on (originate), else ''."""
    in_on_end: bool = False
    effect: CallChange = CallChange.NONE
    waits: bool = False
    """The flow goes on later: drawn so, and shown by `explain` while it waits."""
    hears: bool = False
    """Its `event` is one that it listens to, not one that it raises."""
    listens: tuple[str, ...] = ()
    """Events of the catalogue, or of the Event Socket by their own names, that it cannot work without."""
    handler: Handler | None = field(default=None, repr=False)
    function: Function | None = field(default=None, repr=False)
    request: Request | None = field(default=None, repr=False)
    answered: Answered | None = field(default=None, repr=False)

    def performs(self, handler: H) -> H:
        """Decorator: `handler(task, step)` is a generator that yields effects and returns the action's result."""
        self.handler = handler
        return handler

    def computes(self, function: F) -> F:
        """Decorator for an action that neither waits nor asks the host: `function(task, step)` returns the result."""

        def handler(task: Any, step: Any) -> Generator[Any, Any, Any]:
            yield from ()
            return function(task, step)

        self.handler = handler
        self.function = function  # spares the engine a generator
        return function

    def asks(self, request: R) -> R:
        """Decorator for an action that asks the host once: `request(task, step)` returns the effect. While the step
        waits, it has no generator."""
        self.request = request
        return request

    def gets(self, answered: A) -> A:
        """Decorator for what such an action does then: `answered(task, step, answer)` is a generator that returns the
        action's result."""
        request = self.request
        assert request is not None

        def handler(task: Any, step: Any) -> Generator[Any, Any, Any]:
            answer = yield request(task, step)
            return (yield from answered(task, step, answer))

        self.handler = handler
        self.answered = answered
        return answered

    def field(self, name: str) -> Field | None:
        """The field of this name, under or beside the action."""
        return next((f for f in (*self.fields, *self.beside) if f.name == name), None)


class Actions:
    """All actions known to one installation; other packages add theirs through the entry point
    `orchestrator.actions`."""

    def __init__(self) -> None:
        self._by_name: dict[str, Action] = {}

    def add(self, action: Action) -> Action:
        if action.name in self._by_name:
            raise ValueError(f"action {action.name!r} is defined twice")
        self._by_name[action.name] = action
        return action

    def __getitem__(self, name: str) -> Action:
        return self._by_name[name]

    def get(self, name: str) -> Action | None:
        return self._by_name.get(name)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __iter__(self) -> Iterator[Action]:
        return iter(self._by_name.values())


ACTIONS = Actions()
