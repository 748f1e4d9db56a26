"""`*.test.yaml`: tests of flows, written beside them (FLOWLANG §9.1).

A mistake in a test file is reported like one in a flow file: place, cause, cure. What a file says becomes a `Case`;
`Case.run` tells its story and returns what did not come true.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime
from os.path import normpath
from pathlib import Path
from typing import Any, get_args

from orchestrator.errors import InputError
from orchestrator.flow.check.conditions import steps_in
from orchestrator.flow.language.program import REQUESTS, Place, Program
from orchestrator.flow.language.report import Report
from orchestrator.flow.language.suggest import meant
from orchestrator.flow.language.yaml import Entries, Items, Node, Scalar, parse
from orchestrator.flow.loader import load_program
from orchestrator.sip.push import PushKind
from orchestrator.testing.billing import Billing
from orchestrator.testing.case_acts import ACTS, Act, Acts
from orchestrator.testing.case_sinks import published, sink_rules, types_of
from orchestrator.testing.expectations import KINDS, SENT, Expectation, Failure, judge
from orchestrator.testing.facts import PUSH_OUTCOMES, EffectRule, EslRule, HttpRule, PushOutcome, PushRule
from orchestrator.testing.parties import StoryError
from orchestrator.testing.published import EACH_TYPE, SinkRule
from orchestrator.testing.scenario import Scenario

SUFFIX = ".test.yaml"

_CHARGES = ("authorise", "open", "update", "close", "record")
_CHARGE_FIELDS = ("account", "destination", "tenant", "type", "usage", "cause")
_GIVEN = (
    "registered",
    "answers",
    "http",
    "push",
    "cgrates",
    "sinks",
    "esl",
    "effects",
    "sounds",
    "secrets",
    "users",
    "domains",
    "time",
)
_PUSH_KINDS: tuple[str, ...] = get_args(PushKind)
_PUSH_FIELDS = ("service", "token", "app", "ttl", "data")
_METHODS = ("INVITE", "CANCEL", "BYE", "ACK", "INFO", "REGISTER", *(kind.upper() for kind in REQUESTS))


@dataclass(slots=True)
class Case:
    """One test of a file: what is given, what happens when, what is expected."""

    name: str
    place: Place
    flows: tuple[Path, ...]
    registered: dict[str, list[str]] = field(default_factory=dict)
    http: list[HttpRule] = field(default_factory=list)
    esl: list[EslRule] = field(default_factory=list)
    effects: list[EffectRule] = field(default_factory=list)
    push: list[PushRule] = field(default_factory=list)
    cgrates: Billing | None = None
    sinks: tuple[SinkRule, ...] = EACH_TYPE
    users: dict[str, dict[str, str]] = field(default_factory=dict)
    sounds: dict[str, float] = field(default_factory=dict)
    answers: dict[str, int] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    domains: tuple[str, ...] = ("example.com",)
    wall: float | None = None
    acts: list[tuple[float, Place, Act]] = field(default_factory=list)
    expectations: list[Expectation] = field(default_factory=list)
    allow: list[str] = field(default_factory=list)

    def run(self, program: Program | None = None) -> Outcome:
        """Tell the story. Raises InputError when the flows have mistakes."""
        story = Scenario(
            program or load_program(self.flows)[0],
            registered=self.registered,
            secrets=self.secrets,
            http=self.http,
            esl=self.esl,
            effects=self.effects,
            push=self.push,
            cgrates=None if self.cgrates is None else deepcopy(self.cgrates),
            sinks=self.sinks,
            users=self.users,
            sounds=self.sounds,
            answers=self.answers,
            domains=self.domains,
            wall=self.wall,
        )
        failures: list[Failure] = []
        for time, place, act in self.acts:
            story.at(time, lambda act=act, place=place: _do(story, act, place, failures))  # type: ignore[misc]
        story.finish()
        return Outcome(self, story, failures + judge(story, self.expectations, self.allow))


def _do(story: Scenario, act: Act, place: Place, failures: list[Failure]) -> None:
    try:
        act(story)
    except StoryError as error:
        failures.append(Failure(place, str(error)))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a case: nothing in `failures` means that all of it came true."""

    case: Case
    story: Scenario
    failures: Sequence[Failure]

    @property
    def passed(self) -> bool:
        return not self.failures


def find_cases(paths: Sequence[Path]) -> list[Path]:
    """The test files among files and folders, folders searched all the way down, in order of their paths."""
    found: list[Path] = []
    for path in paths:
        found += sorted(path.rglob(f"*{SUFFIX}")) if path.is_dir() else [path]
    return found


def load_cases(path: Path) -> list[Case]:
    """The cases of one file. Raises InputError with every mistake in it, OSError when it cannot be read."""
    document = parse(str(path), path.read_text(encoding="utf-8"))
    reader = _Reader(Report(document), path.parent)
    cases = [] if document.broken else reader.file(document.root)
    if document.diagnostics:
        raise InputError(document.diagnostics)
    return cases


class _Reader(Acts):
    """Nodes to cases. Each method reads one kind of entry and reports what is wrong with it."""

    def __init__(self, report: Report, folder: Path) -> None:
        super().__init__(report, folder)
        self.program: Program | None = None

    # --- the file -----------------------------------------------------------------------------------------------------

    def file(self, root: Node | None) -> list[Case]:
        top = self.entries(
            root if root is not None else Scalar.nothing(), ("flowlang_test", "flows", "tests"), "a test file"
        )
        if top is None:
            return []
        if self.text(top.get("flowlang_test"), "flowlang_test") != "1":
            self.report.error("E002", "the first line of a test file is flowlang_test: 1", top)
        flows = self.paths(top.get("flows"))
        return [case for node in self.items(top.get("tests"), "tests") if (case := self.case(node, flows)) is not None]

    def paths(self, node: Node | None) -> tuple[Path, ...]:
        nodes = list(node) if isinstance(node, Items) else [] if node is None else [node]
        found = []
        for item in nodes:
            path = Path(normpath(self.folder / self.text(item, "flows")))
            if path.exists():
                found.append(path)
            else:
                self.report.error("E118", f"there is no {path}", item, "paths are relative to the test file")
        return tuple(found)

    def case(self, node: Node, flows: tuple[Path, ...]) -> Case | None:
        entries = self.entries(node, ("name", "flows", "given", "when", "expect", "allow"), "a test")
        if entries is None:
            return None
        own = self.paths(entries.get("flows")) or flows
        if not own:
            self.report.error("E115", "a test needs flows:", entries, "name a flow file here or at the top of the file")
        case = Case(self.text(entries.get("name"), "name", "unnamed"), self.report.place(node), own)
        self.program = _program_of(own)
        self.events = self.program.events if self.program is not None else {}
        self.calls = []
        self.given(case, entries.get("given"))
        for act in self.items(entries.get("when"), "when"):
            self.act(case, act)
        for expectation in self.items(entries.get("expect"), "expect"):
            self.expectation(case, expectation)
        case.allow = [self.text(item, "allow") for item in self.items(entries.get("allow"), "allow")]
        return case

    # --- given --------------------------------------------------------------------------------------------------------

    def given(self, case: Case, node: Node | None) -> None:
        given = self.entries(node, _GIVEN, "given")
        if given is None:
            return
        for key, contacts in self.entries(given.get("registered"), (), "registered") or ():
            case.registered[key.text] = [self.contact(item) for item in self.items(contacts, "the contacts")]
        case.secrets = self.texts(given.get("secrets"), "secrets")
        self.secrets(given.get("secrets"))
        case.http = [self.http_rule(item) for item in self.items(given.get("http"), "http")]
        case.cgrates = self.billing(given.get("cgrates"))
        for key, known in self.entries(given.get("users"), self.tables(), "users") or ():
            case.users[key.text] = self.texts(known, "the users of a table")
        case.sinks = sink_rules(self, given.get("sinks"), self.events)
        case.push = [self.push_rule(item) for item in self.items(given.get("push"), "push")]
        case.esl = [self.esl_rule(item) for item in self.items(given.get("esl"), "esl")]
        case.effects = [self.effect_rule(item) for item in self.items(given.get("effects"), "effects")]
        for key, length in self.entries(given.get("sounds"), (), "sounds") or ():
            case.sounds[key.text] = self.duration(length) or 0.0
        for key, status in self.entries(given.get("answers"), (), "answers") or ():
            case.answers[self.contact(key)] = self.number(status, "a status", 200)
        if "domains" in given:
            case.domains = tuple(self.text(item, "a domain") for item in self.items(given.get("domains"), "domains"))
        case.wall = self.wall(given.get("time"))

    def tables(self) -> tuple[str, ...]:
        """The tables of users that the flows declare; () where these cannot be read."""
        return tuple(self.program.resources.users) if self.program is not None else ()

    def secrets(self, node: Node | None) -> None:
        """Every secret that is given has to be one that the flows declare."""
        if isinstance(node, Entries) and self.program is not None:
            known = self.program.resources.secrets
            for key, _ in node:
                if key.text not in known:
                    self.report.error("E118", f"the flows have no secret {key.text!r}", key, meant(key.text, known))

    def wall(self, node: Node | None) -> float | None:
        if node is None:
            return None
        try:
            return datetime.fromisoformat(self.text(node, "time")).timestamp()
        except ValueError:
            self.report.error("E106", "time is not a date and time", node, "write 2026-11-23 10:00+01:00")
            return None

    def http_rule(self, node: Node) -> HttpRule:
        known = ("url", "method", "status", "json", "text", "headers", "error", "delay")
        entries = self.entries(node, known, "an http rule") or Entries.nothing(Scalar.nothing())
        error = self.text(entries.get("error"), "error")
        if error not in ("", "connect", "timeout"):
            self.report.error("E106", f"unknown error {error!r}", entries, "connect or timeout")
        return HttpRule(
            url=self.text(entries.get("url"), "url", "*"),
            method=self.text(entries.get("method"), "method", "*"),
            status=self.number(entries.get("status"), "status", 200),
            json=self.value(entries.get("json")),
            text=self.text(entries.get("text"), "text"),
            headers=self.texts(entries.get("headers"), "headers"),
            error=error,
            delay=self.duration(entries.get("delay")) or 0.0,
        )

    def billing(self, node: Node | None) -> Billing | None:
        """`{accounts: {alice: 90s, post: unlimited}, down, delay, update}`."""
        if node is None:
            return None
        entries = self.entries(node, ("accounts", "down", "delay", "update"), "cgrates")
        billing = Billing()
        if entries is None:
            return billing
        for name, balance in self.entries(entries.get("accounts"), (), "accounts") or ():
            unlimited = isinstance(balance, Scalar) and balance.text == "unlimited"
            billing.accounts[name.text] = None if unlimited else self.duration(balance) or 0.0
        billing.down = self.value(entries.get("down")) is True
        billing.delay = self.duration(entries.get("delay")) or 0.0
        billing.portion = self.duration(entries.get("update"))
        return billing

    def push_rule(self, node: Node) -> PushRule:
        known = ("to", "service", "kind", "token", "outcome", "reason", "delay", "wakes", "contact")
        entries = self.entries(node, known, "a push rule") or Entries.nothing(Scalar.nothing())
        said = self.choice(entries, "outcome", PUSH_OUTCOMES, "sent")
        outcome: PushOutcome = next((each for each in PUSH_OUTCOMES if each == said), "sent")
        if "contact" in entries and "wakes" not in entries:
            self.report.error("E115", "contact: needs wakes:", entries.key("contact"), "write  wakes: 2s  beside it")
        if "wakes" in entries and outcome != "sent":
            help = "remove  wakes:, or say outcome: sent"
            self.report.error("E114", f"no phone wakes up by a push that is {outcome}", entries.key("wakes"), help)
        return PushRule(
            to=self.text(entries.get("to"), "to", "*"),
            service=self.text(entries.get("service"), "service", "*"),
            kind=self.push_kind(entries),
            token=self.text(entries.get("token"), "token", "*"),
            outcome=outcome,
            reason=self.text(entries.get("reason"), "reason"),
            delay=self.duration(entries.get("delay")) or 0.0,
            wakes=self.duration(entries.get("wakes")),
            contact=self.contact(entries.get("contact")) if "contact" in entries else "",
        )

    def push_kind(self, entries: Entries) -> str:
        return self.choice(entries, "kind", _PUSH_KINDS) or "*" if "kind" in entries else "*"

    def esl_rule(self, node: Node) -> EslRule:
        known = ("command", "reply", "variables")
        entries = self.entries(node, known, "an esl rule") or Entries.nothing(Scalar.nothing())
        reply = self.text(entries.get("reply"), "reply") if "reply" in entries else None
        variables = self.texts(entries.get("variables"), "variables")
        return EslRule(self.text(entries.get("command"), "command", "*"), reply, variables)

    def effect_rule(self, node: Node) -> EffectRule:
        known = ("name", "with", "result", "error", "delay")
        entries = self.entries(node, known, "an effects rule") or Entries.nothing(Scalar.nothing())
        wanted = {key.text: self.value(item) for key, item in self.entries(entries.get("with"), (), "with") or ()}
        return EffectRule(
            name=self.text(entries.get("name"), "name", "*"),
            wanted=wanted,
            result=self.value(entries.get("result")),
            error=self.text(entries.get("error"), "error"),
            delay=self.duration(entries.get("delay")) or 0.0,
        )

    # --- when ---------------------------------------------------------------------------------------------------------

    def act(self, case: Case, node: Node) -> None:
        entries = self.entries(node, ("at", "legs", "call", *ACTS), "a step of when")
        if entries is None:
            return
        kinds = [key.text for key, _ in entries if key.text in ACTS]
        if not kinds and "at" in entries:  # time passes
            case.acts.append((self.duration(entries.get("at")) or 0.0, self.report.place(node), lambda story: None))
            return
        if len(kinds) != 1:
            self.report.error("E113", f"a step of when is one of {', '.join(ACTS)}", node)
            return
        act = getattr(self, f"act_{kinds[0]}")(entries.get(kinds[0]), entries)
        if act is not None:
            case.acts.append((self.duration(entries.get("at")) or 0.0, self.report.place(node), act))

    # --- expect -------------------------------------------------------------------------------------------------------

    def expectation(self, case: Case, node: Node, never: bool = False) -> None:
        entries = self.entries(node, (*KINDS, "never"), "an expectation")
        for key, wanted in entries or ():
            if key.text == "never":
                for item in list(wanted) if isinstance(wanted, Items) else [wanted]:
                    self.expectation(case, item, never=True)
            elif key.text in KINDS:
                found = self.wanted(case, key.text, wanted)
                kind = key.text
                if kind == "sent" and isinstance(wanted, Entries):
                    kind = next((name for name in (*SENT, *types_of(case.sinks)) if name in wanted), kind)
                case.expectations.append(Expectation(kind, found, self.report.place(key), never))

    def wanted(self, case: Case, kind: str, node: Node) -> dict[str, Any]:
        if kind == "sent":
            return self.sent(case, node)
        short = {"reply": "what", "register": "what", "esl": "about", "log": "text", "effect": "what"}.get(kind)
        if isinstance(node, Scalar) and short:
            return {short: node.text}
        if kind == "vars":
            return {key.text: self.value(item) for key, item in self.entries(node, (), "vars") or ()}
        known = {
            "reply": ("code", "reason", "at", "call"),
            "register": ("code", "reason", "at"),
            "http": ("url", "method", "json", "at"),
            "esl": ("command", "kind", "at"),
            "effect": ("name", "with", "at"),
            "handler": ("id", "runs", "skipped"),
            "ends": ("by", "reason", "call"),
            "log": ("text", "level", "at"),
        }[kind]
        names = {
            "code": "what",
            "reason": "about",
            "url": "about",
            "method": "what",
            "command": "about",
            "kind": "what",
            "name": "what",
        }
        wanted = {}
        for key, item in self.entries(node, known, kind) or ():
            name = key.text if kind in ("ends", "handler", "log") else names.get(key.text, key.text)
            wanted[name] = self.duration(item) if key.text == "at" else self.value(item)
            if key.text == "call":
                wanted[name] = self.call_name(item)
            elif (kind, key.text) == ("handler", "id"):
                self.handler(item)
        return wanted

    def handler(self, node: Node) -> None:
        """An `id:` that some subscribe step of the flows has."""
        if self.program is not None and isinstance(node, Scalar):
            flows = self.program.flows
            blocks = [block for flow in flows for block in (flow.do, flow.on_error or (), flow.on_end or ())]
            known = [step.id for step in steps_in(blocks) if step.id]
            if node.text not in known and not node.text.startswith("L"):  # L12: one without an id, by its line
                self.report.error("E118", f"no subscription has the id {node.text!r}", node, meant(node.text, known))

    def sent(self, case: Case, node: Node) -> dict[str, Any]:
        """`{INVITE: glob, at: 4s}`, `{push: glob}`, `{cgrates: open}`, `{amqp: event}`."""
        wanted: dict[str, Any] = {}
        sinks = types_of(case.sinks)
        for key, item in self.entries(node, (*_METHODS, *SENT, *sinks, "at", "call"), "sent") or ():
            if key.text == "push":
                wanted |= self.pushed(item)
            elif key.text == "cgrates":
                wanted |= self.charged(item)
            elif key.text in sinks:
                wanted |= published(self, key.text, item, case.sinks, self.events)
            elif key.text == "call" and isinstance(node, Entries) and any(name in node for name in ("cgrates", *sinks)):
                self.report.error("E114", "call: belongs to SIP messages and pushes", key, "remove call:")
            elif key.text == "at":
                wanted["at"] = self.duration(item)
            elif key.text == "call":
                wanted["call"] = self.call_name(item)
            else:
                wanted["what"], wanted["about"] = key.text, self.text(item, "a URI")
        return wanted

    def charged(self, node: Node) -> dict[str, Any]:
        """What was asked of CGRateS, or `{what, account, …}`."""
        entries = None if isinstance(node, Scalar) else self.entries(node, ("what", *_CHARGE_FIELDS), "cgrates")
        what = node if isinstance(node, Scalar) else None if entries is None else entries.get("what")
        wanted: dict[str, Any] = {"about": "*"}
        if what is not None:
            wanted["what"] = name = self.text(what, "what is asked of CGRateS")
            if name not in _CHARGES:
                self.report.error("E106", f"nothing asks CGRateS to {name!r}", what, meant(name, _CHARGES))
        if entries is not None:
            fields = {name: self.value(entries.get(name)) for name in _CHARGE_FIELDS if name in entries}
            if "usage" in entries:
                fields["usage"] = self.duration(entries.get("usage"))
            wanted["with"] = fields
        return wanted

    def pushed(self, node: Node) -> dict[str, Any]:
        """The address of record, or `{to, kind, …}`."""
        if isinstance(node, Scalar):
            return {"about": node.text}
        entries = self.entries(node, ("to", "kind", *_PUSH_FIELDS), "push")
        if entries is None:
            return {}
        wanted = {name: self.value(entries.get(name)) for name in _PUSH_FIELDS if name in entries}
        if "ttl" in entries:
            wanted["ttl"] = self.duration(entries.get("ttl"))
        return {"about": self.text(entries.get("to"), "to", "*"), "what": self.push_kind(entries), "with": wanted}


def _program_of(flows: Sequence[Path]) -> Program | None:
    """What the flows say; a mistake in them is reported when the case runs."""
    try:
        return load_program(flows)[0] if flows else None
    except InputError:
        return None
