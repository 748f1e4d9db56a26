"""A run: one flow for one call, request or event, with everything that belongs to it and dies with it (FLOWLANG §5).

```
            main steps done                call over, all tasks unwound           on_end done
  MAIN ───────────────────────► OPEN ───────────────────────────────────► ENDING ─────────────► DONE
    │  implicit final reply     │ subscriptions and handlers go on            grace
    └── call over: CallEnded into every task, subscriptions gone ──┘
```

A run with a call is open until the call has ended. One without (event, timer, REGISTER) is open until its handlers are
done and nothing is subscribed any more. An INVITE is never left without a final reply: when the main steps are done and
none was sent, the run sends one and says so in the trace.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from orchestrator.errors import StepError
from orchestrator.flow.language.program import REQUESTS, Block, Flow, Program, Step
from orchestrator.flow.run.effects import Release, Reply, Serve
from orchestrator.flow.run.environment import Environment
from orchestrator.flow.run.signals import CallEnded, Cancelled, Ticket
from orchestrator.flow.run.task import Done, Steps, Task, error_record
from orchestrator.flow.run.trace import KEPT_LINES, Read, Record

if TYPE_CHECKING:
    from orchestrator.flow.run.engine import FlowEngine
    from orchestrator.flow.run.listen import Listener
    from orchestrator.timers import Timer

ERROR_REPLIES: tuple[tuple[str, int], ...] = (("wait.timeout", 480), ("charge.*", 503), ("auth.*", 503), ("*", 500))
"""Error type (glob) → final reply of a call whose flow ended in it; `defaults: replies:` puts others in front."""

NO_RESULT = 480
"""Final reply when no relay failed and nobody replied: RFC 3261 §21.4.18 Temporarily Unavailable."""
NO_REGISTRATION = 403
"""The same for a REGISTER: neither saved nor refused by the flow, and a retry would not change that."""


@dataclass(frozen=True, slots=True)
class Version:
    """A program as loaded: what its runs keep when another one is loaded."""

    program: Program
    names: Mapping[str, Any]
    """Names of the program for expressions, from the host."""
    flows: Mapping[str, Flow]


class Phase(Enum):
    MAIN = "main"
    OPEN = "open"
    ENDING = "ending"
    DONE = "done"


class Run:
    """Facts of one run. Hosts read `flow`, `program`, `call_id`, `vars` and set `replied` when they send a final
    reply on their own; everything else belongs to the engine."""

    __slots__ = (
        "_grace",
        "_recovered",
        "call",
        "call_id",
        "chain",
        "dropped",
        "ended",
        "engine",
        "env",
        "error",
        "failure",
        "flow",
        "handlers",
        "id",
        "left_out",
        "listeners",
        "max_forwards",
        "on_done",
        "phase",
        "records",
        "replied",
        "steps",
        "tasks",
        "vars",
        "version",
    )

    def __init__(self, engine: FlowEngine, id: int, flow: Flow, version: Version, names: Mapping[str, Any]) -> None:
        self.engine = engine
        self.id = id
        self.flow = flow
        self.version = version
        self.call: Any = names.get("call")
        self.chain: tuple[str, ...] = (flow.name,)
        """The flows whose runs have led to this one, itself the last: what starts what, also over waits."""
        self.max_forwards = 70
        """Hops that calls it places have left: what begins elsewhere and comes back ends by them (RFC 7332)."""
        self.call_id: str = self.call["id"] if self.call is not None else ""
        self.vars: dict[str, Any] = {}
        self.env = Environment(version.names, {**names, "vars": self.vars})
        """The names of the main steps: at their start, then at their end (for on_end)."""
        self.phase = Phase.MAIN
        self.tasks: list[Task] = []
        self.listeners: list[Listener] = []
        self.handlers: dict[str, list[int]] | None = None
        """Id of a subscribe step → [events handled, events skipped]; None as long as there was none."""
        self.steps = 0
        self.replied = False
        """A final reply is out, by whomever."""
        self.failure: Mapping[str, Any] | None = None
        """`relay result` of the last relay that failed: what the caller is told if nobody says otherwise."""
        self.ended: CallEnded | None = None
        self.error = ""
        """Type of the error that ended the main steps, or of the last one that ended a handler."""
        self.records: list[Record] = []
        self.dropped = 0
        self.left_out = 0
        """Lines behind the first one that have made room for others."""
        self.on_done: Any = None
        """Called with the run when it is done, by whoever started it."""
        self._grace: Timer | None = None
        self._recovered = False

    @property
    def name(self) -> str:
        return f"{self.flow.name}#{self.id}"

    @property
    def closing(self) -> bool:
        """The call is over, or `on_end` has begun: nothing new is listened to."""
        return self.ended is not None or self.phase in (Phase.ENDING, Phase.DONE)

    @property
    def program(self) -> Program:
        return self.version.program

    # --- trace and accounts

    def trace(self, step: Step | Flow | None, template: str, *values: Any, read: Read = ()) -> None:
        """Add a line.

        `{}` in the template stand for the values, which must not change later; `read` is what a condition looked at.
        """
        engine = self.engine
        if len(self.records) + self.left_out < engine.limits.records:
            record = Record(engine.timers.now, step, template, values, read)
            if self.phase is not Phase.DONE:  # else the trace is kept already: this is for who listens now
                if engine.trace_memory.take(record.octets):
                    self.records.append(record)
                else:
                    self.dropped += 1
            engine.host.trace(self, record)
        else:
            self.dropped += 1

    def shorten(self) -> int:
        """Let go of older lines, but for the first; returns the octets that are free now."""
        gone = self.records[1:-KEPT_LINES]
        del self.records[1 : 1 + len(gone)]
        self.left_out += len(gone)
        return sum(record.octets for record in gone)

    def ignored_key(self, digit: str, leg: str) -> None:
        """A key was pressed that no step has taken: neither a `collect` nor a filter."""
        self.trace(None, "key {} of the {} ignored: no step takes it now", digit, leg)

    def count_step(self) -> None:
        """One more step; raises StepError `flow.limit` beyond the bound."""
        self.steps += 1
        if self.steps > self.engine.limits.steps:
            raise StepError("flow.limit", f"more than {self.engine.limits.steps} steps in one run")

    def count_handler(self, step: Step, skipped: bool) -> int:
        """One more event of a subscribe step; returns how many it has handled, or skipped, now."""
        if self.handlers is None:
            self.handlers = {}
        counts = self.handlers.setdefault(step.id or f"L{step.place.line}", [0, 0])
        counts[skipped] += 1
        return counts[skipped]

    def failed(self, step: Step | None, what: str, error: StepError) -> None:
        """Put an error nobody caught into trace and accounts."""
        self.error = error.type
        line = f" (line {error.line})" if error.line else ""
        self.trace(step, "{} failed, {}: {}{}", what, error.type, error.message, line)
        if what != "flow":  # that of the main steps is told with the answer it led to
            self._tell_failure(what, error, 0)

    def _tell_failure(self, what: str, error: StepError, code: int) -> None:
        if self.engine.on_failure is not None:
            self.engine.on_failure(self, what, error, code)

    # --- tasks

    def spawn(self, block: Block, env: Environment, label: str, on_done: Done, nesting: int = 0) -> Task:
        """Start a task of this run; it runs when the engine comes to it, not inside this call."""
        if len(self.tasks) >= self.engine.limits.tasks:
            raise StepError("flow.limit", f"more than {self.engine.limits.tasks} tasks in one run")
        task = Task(self, env, label, on_done, nesting)
        task.chain = self.chain
        task.generator = task.walk(block)
        self.tasks.append(task)
        self.engine.ready(task)
        return task

    def begin(self) -> None:
        """Start the main steps, unless the call was over before. What cannot begin, for a bug, is over."""
        try:
            self._begin()
        except Exception as bug:
            self.engine.collapse(self, bug)

    def _begin(self) -> None:
        flow, env = self.flow, self.env
        self.trace(flow, *_announcement(flow, self.call))
        if self.call is not None and self.call["state"] == "ended":
            self.phase = Phase.OPEN
            self.end("caller", "before the flow started")
            return
        try:
            for name, value in flow.vars.items():
                self.vars[name] = value.evaluate(env)
        except StepError as error:
            if not error.line:
                error.file, error.line = flow.place.file, flow.place.line
            self.spawn((), env, "main", self._main_done).generator = _failing(error)
        else:
            self.spawn(flow.do, env, "main", self._main_done)

    def _main_done(self, task: Task, result: Any, failure: BaseException | None) -> None:
        self.env = task.env
        on_error = self.flow.on_error
        if isinstance(failure, StepError) and on_error is not None and not self._recovered and self.ended is None:
            self._recovered = True
            self.trace(None, "failed, {}: {}; on_error of the flow", failure.type, failure.message)
            self.steps = 0  # it may be the limit itself that failed, and this has to run
            env = task.env.bind("error", error_record(failure))
            self.spawn(on_error, env, "on_error", self._main_done)
            return
        self._close_main(failure if isinstance(failure, StepError) else None)

    def _close_main(self, error: StepError | None) -> None:
        if error is not None:
            self.failed(None, "flow", error)
            self.engine.stats.failed += 1
        self.phase = Phase.OPEN
        code = 0
        kind, owes = self.flow.trigger.kind, not self.replied and self.ended is None
        if owes and kind in REQUESTS and error is None and self.failure is None:
            self.trace(None, "no reply: served as if there were no flow")
            self.replied = True
            self.engine.host.perform(self, Ticket(None, hosted=True), Serve())
        elif owes and kind in ("invite", "register", *REQUESTS):
            code = self._reply(error)
        elif error is not None and self.call is not None and self.ended is None:
            self.engine.host.perform(self, Ticket(None, hosted=True), Release(error.type))
        if error is not None:
            self._tell_failure("flow", error, code)

    def _reply(self, error: StepError | None) -> int:
        """The implicit final reply. Returns its status, 0 when it was not sent."""
        reply = _implicit_reply(self, error)
        self.trace(None, "implicit reply {} {}", reply.code, reply.reason)
        self.replied = True
        try:
            self.engine.host.perform(self, Ticket(None, hosted=True), reply)
        except StepError as refused:  # a final reply went out after all: the host knows first
            self.trace(None, "implicit reply not sent: {}", refused.message)
            return self._reply_plainly(reply.code) if reply.reason or reply.headers else 0
        return reply.code

    def _reply_plainly(self, code: int) -> int:
        """Nothing but the code: an answer must not fail for its wording. Returns what `_reply` does."""
        try:
            self.engine.host.perform(self, Ticket(None, hosted=True), Reply(code))
        except StepError as refused:
            self.trace(None, "implicit reply not sent: {}", refused.message)
            return 0
        return code

    # --- the end

    @property
    def attended(self) -> bool:
        """Some step is at work or has something to wait for."""
        return bool(self.tasks)

    @property
    def bounded(self) -> bool:
        """It is over, or has heard so and is given the time for its last steps."""
        return self.phase is Phase.DONE or (self._grace is not None and self._grace.armed)

    def abort(self) -> None:
        """End where it stands, without another step: a bug has struck that its tasks did not catch. Idempotent."""
        if self.phase is Phase.DONE:
            return
        self.ended = self.ended or CallEnded("engine", "internal error")
        self.phase = Phase.ENDING
        for listener in list(self.listeners):
            listener.close()
        for task in list(self.tasks):
            task.on_done = _nobody
        self._finish()

    def end(self, by: str, reason: str) -> None:
        """The call is over: subscriptions go, every task is told at its next waiting point, then `on_end` runs."""
        if self.closing:
            return
        self.ended = CallEnded(by, reason)
        self.trace(None, "call ended by {}: {}" if self.call is not None else "ended by {}: {}", by, reason)
        tasks = list(self.tasks)  # taken before: with none of them, closing the last listener begins on_end
        for listener in list(self.listeners):
            listener.close()
        for task in tasks:
            task.interrupt(CallEnded(by, reason))
        if self.tasks and self.phase in (Phase.MAIN, Phase.OPEN):
            self._grace = self.engine.arm(self.engine.limits.grace, self._kill, "finally steps")
        self.settle()

    def settle(self) -> None:
        """Go on to `on_end` when nothing is left to run or to wait for."""
        if self.phase is not Phase.OPEN or self.tasks:
            return
        if self.ended is None and self.call is not None and self.call["state"] == "ended":
            self.end(self.call["ended_by"] or "engine", self.call["end_reason"] or "")  # a step has refused the call
            return
        if self.ended is None and (self.call is not None or self.listeners):
            return
        self.phase = Phase.ENDING
        self._disarm()
        if not self.flow.on_end:
            self._finish()
            return
        self.trace(None, "on_end")
        self.steps = 0
        self.spawn(self.flow.on_end, self.env, "on_end", self._on_end_done)
        self._grace = self.engine.arm(self.engine.limits.grace, self._kill, "on_end")

    def _on_end_done(self, task: Task, result: Any, failure: BaseException | None) -> None:
        if isinstance(failure, StepError):
            self.failed(None, "on_end", failure)
            self.engine.stats.failed += 1
        self._finish()

    def _kill(self, what: str) -> None:
        self.trace(None, "{} cut after {:g}s", what, self.engine.limits.grace)
        for task in list(self.tasks):
            self.engine.kill(task, Cancelled())

    def _finish(self) -> None:
        self._disarm()
        for task in list(self.tasks):  # branches that on_end left behind
            self.engine.kill(task, Cancelled())
        self.phase = Phase.DONE
        self.engine.forget(self)

    def _disarm(self) -> None:
        if self._grace is not None:
            self.engine.disarm(self._grace)
            self._grace = None

    def __repr__(self) -> str:
        return f"<Run {self.name} {self.phase.value}, {len(self.tasks)} tasks, {len(self.listeners)} subscriptions>"


def _nobody(task: Task, result: Any, failure: BaseException | None) -> None:
    """For tasks of a run that is being broken off."""


def _failing(error: StepError) -> Steps:
    yield from ()
    raise error


def _announcement(flow: Flow, call: Any) -> tuple[str, ...]:
    if call is not None and flow.trigger.kind in ("invite", "socket"):
        return "flow {} starts for {} -> {}", flow.name, call["from"]["aor"], call["to"]["aor"]
    if flow.trigger.kind == "event":
        return "flow {} starts on {}", flow.name, flow.trigger.event
    return "flow {} starts", flow.name


def _implicit_reply(run: Run, error: StepError | None) -> Reply:
    """What an unanswered request gets: by the error, else the best failure of the last relay, else 480."""
    if error is not None:
        overrides = run.program.resources.defaults.get("replies", {})
        rules = (*overrides.items(), *ERROR_REPLIES)
        return Reply(next(code for pattern, code in rules if fnmatchcase(error.type, pattern)))
    if run.failure is not None and run.failure["code"] >= 300:
        return Reply(run.failure["code"], run.failure["reason"] or "", implicit=True)
    return Reply(NO_REGISTRATION if run.flow.trigger.kind == "register" else NO_RESULT)
