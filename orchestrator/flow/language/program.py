"""A checked flow, ready to run: what the loader makes and the engine walks. No YAML is left in it; a program keeps the
text of its files to be shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from orchestrator.events.event import EventSpec
from orchestrator.flow.language.registry import Action
from orchestrator.flow.language.written import TRANSPORTS

Env = Mapping[str, Any]
"""Root names of an expression (call, event, vars, as-names …) to their values."""


REQUESTS = ("message", "subscribe", "publish", "options", "refer", "notify")
"""Triggers that are requests outside of dialogs which begin no call: their methods, in lower case."""


class Evaluable(Protocol):
    """A constant, an expression or a text with ${…}: every value of a key that is not made of steps."""

    def evaluate(self, env: Env) -> Any: ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands in the user's file; counts from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Where:
    """A compiled filter of `subscribe`, `wait` or an event trigger.

    `equals` are the tests that become the bus's hash key: attribute → value that does not look at the event; `rest` is
    what is left, evaluated with `event` in the environment, or None.
    """

    equals: Mapping[str, Evaluable]
    rest: Evaluable | None


@dataclass(frozen=True, slots=True)
class Catch:
    error: str
    """A glob over the error type: `http.*`."""
    do: Block


@dataclass(frozen=True, slots=True)
class Branch:
    """One branch of first_of: a wait step, or `after` (duration) when `wait` is None."""

    wait: Step | None
    after: Evaluable | None
    do: Block


@dataclass(frozen=True, slots=True)
class Step:
    """One step. `args` holds the keys under and beside the action by field name, each compiled after its Kind:

    STEPS → tuple of Step; OUTCOMES, CASES → {name: tuple of Step} (a case of several names is stored under each);
    BRANCHES → tuple of Branch (first_of) or of tuples of Step (parallel); CATCHES → tuple of Catch; WHERE → Where;
    ASSIGN, MAP, DATA → {name: Evaluable}; EVENT, NAME, FLOW, SERVER, USERS, ENDPOINT, SUBSCRIPTION, ENUM → str;
    GATEWAYS, FAILOVER → tuple of str; everything else → Evaluable. A key that is not written is not in `args`.

    The block form (`if` + `then`/`else` without an action) has action None and args `then`, `else`.
    """

    action: Action | None
    args: Mapping[str, Any]
    place: Place
    condition: Evaluable | None = None
    result: str | None = None
    id: str | None = None
    on_error: Block | None = None
    """None: the error goes on; () for `on_error: continue`."""
    timeout: Evaluable | None = None
    note: str = ""
    source: str = ""
    """One line for traces: the action and its short value as written."""
    made: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """What its action has worked out that is the same in all runs: thousands of them wait in it."""


Block = tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Trigger:
    """`on:` of a flow. kind: invite, register, socket, start, every, event, or call for sub-flows (`on:` absent)."""

    kind: str
    event: str = ""
    where: Where | None = None
    every: float = 0.0
    """Seconds."""
    pattern: str = ""
    """Glob over the dialled number, of `socket`."""


@dataclass(frozen=True, slots=True)
class Flow:
    name: str
    trigger: Trigger
    do: Block
    place: Place
    when: Evaluable | None = None
    vars: Mapping[str, Evaluable] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    """Parameter → type word (sub-flows)."""
    on_error: Block | None = None
    on_end: Block | None = None
    mode: str = "parallel"
    max: int = 0
    """0: no bound."""
    key: Evaluable | None = None
    max_duration: Evaluable | None = None
    """Seconds an answered call may last."""
    description: str = ""
    chain: tuple[str, ...] = field(init=False, repr=False, compare=False)
    """Its name, as runs have it that no other flow has led to: one for all of them."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "chain", (self.name,))


@dataclass(frozen=True, slots=True)
class Resources:
    """What flows refer to by name; each value as checked by the loader, secrets still unresolved."""

    freeswitch: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    gateways: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    users: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    schedules: Mapping[str, Any] = field(default_factory=dict)
    endpoints: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    secrets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Name → {env: NAME} or {file: path}."""
    const: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    transports: tuple[str, ...] = TRANSPORTS
    """By which requests leave: what is listened on."""
    push_services: tuple[str, ...] | None = None
    """Names under `push: services:` of the configuration; None where that is not known."""


@dataclass(frozen=True, slots=True)
class Program:
    """A set of files that passed the check: flows in order of choice, the events they know, the resources they name."""

    flows: tuple[Flow, ...] = ()
    events: Mapping[str, EventSpec] = field(default_factory=dict)
    resources: Resources = field(default_factory=Resources)
    hash: str = ""
    """Digest of the files; stands in each trace so that a run names the version it ran."""
    unsafe: tuple[tuple[Place, str], ...] = ()
    """Where the writer of a flow vouches for text from outside, and the text that has it."""
    sources: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    """File → its text as it was read, to be shown."""

    def flow(self, name: str) -> Flow:
        return next(flow for flow in self.flows if flow.name == name)
