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
from fnmatch import fnmatchcase
from typing import Any

from orchestrator.errors import StepError
from orchestrator.flow.language.program import REQUESTS, Flow
from orchestrator.flow.run.account import Account, Phase, Version
from orchestrator.flow.run.effects import Release, Reply, Serve
from orchestrator.flow.run.listen import event_read
from orchestrator.flow.run.run_facts import (
    LastSteps,
    LastStepsCut,
    ReplyImplied,
    ReplyRefused,
    RunBegan,
    RunEnded,
    ServedByDefault,
    StepFailed,
)
from orchestrator.flow.run.scheduler import Scheduler
from orchestrator.flow.run.signals import CallEnded, Cancelled, Steps, Ticket
from orchestrator.flow.run.task import Task, error_record, spawn
from orchestrator.flow.run.trace import Read
from orchestrator.timers import Timer

ERROR_REPLIES: tuple[tuple[str, int], ...] = (("wait.timeout", 480), ("charge.*", 503), ("auth.*", 503), ("*", 500))
"""Error type (glob) → final reply of a call whose flow ended in it; `defaults: replies:` puts others in front."""

NO_RESULT = 480
"""Final reply when no relay failed and nobody replied: RFC 3261 §21.4.18 Temporarily Unavailable."""
NO_REGISTRATION = 403
"""The same for a REGISTER: neither saved nor refused by the flow, and a retry would not change that."""

ANSWERED = ("invite", "register", *REQUESTS)
"""Triggers that are requests which wait for a final reply."""


PHASES: Mapping[Phase, Mapping[str, Phase]] = {
    Phase.MAIN: {"steps done": Phase.OPEN, "broken off": Phase.ENDING},
    Phase.OPEN: {"nothing left": Phase.ENDING, "broken off": Phase.ENDING},
    Phase.ENDING: {"last steps done": Phase.DONE, "broken off": Phase.ENDING},
    Phase.DONE: {},
}
"""Phase → what has happened → next phase. `nothing left`: no task, and neither a call nor a subscription it waits for;
`broken off`: a bug has struck that its tasks did not catch."""


class Run(Account):
    """One run, from its beginning to its end. Hosts read its account and set its `subject`; everything else belongs to
    the engine."""

    __slots__ = ("_grace", "_recovered", "on_done")

    def __init__(self, engine: Scheduler, id: int, flow: Flow, version: Version, names: Mapping[str, Any]) -> None:
        super().__init__(engine, id, flow, version, names)
        self.on_done: Any = None
        """Called with the run when it is done, by whoever started it."""
        self._grace: Timer | None = None
        self._recovered = False

    def _move(self, what: str) -> None:
        """The only place where the phase changes; what the table does not list changes nothing."""
        self.phase = PHASES[self.phase].get(what, self.phase)

    # --- tasks

    def begin(self) -> None:
        """Start the main steps, unless the call was over before. What cannot begin, for a bug, is over."""
        try:
            self._begin()
        except Exception as bug:
            self.engine.collapse(self, bug)

    def _begin(self) -> None:
        flow, env = self.flow, self.env
        self.trace(flow, *_beginning(flow, self.call, env))
        if self.call is not None and self.call["state"] == "ended":
            self._move("steps done")
            self.end("caller", "before the flow started")
            return
        try:
            for name, value in flow.vars.items():
                env["vars"][name] = value.evaluate(env)
        except StepError as error:
            if not error.line:
                error.file, error.line = flow.place.file, flow.place.line
            spawn(self, (), env, "main", _main_done).generator = _failing(error)
        else:
            spawn(self, flow.do, env, "main", _main_done)

    def main_done(self, task: Task, failure: BaseException | None) -> None:
        """The main steps, or those of its `on_error`, have come to their end."""
        self.env = task.env
        on_error = self.flow.on_error
        if isinstance(failure, StepError) and on_error is not None and not self._recovered and self.ended is None:
            self._recovered = True
            self.trace(None, StepFailed(failure.type, failure.message, "on_error of the flow"))
            self.steps = 0  # it may be the limit itself that failed, and this has to run
            env = task.env.bind("error", error_record(failure))
            spawn(self, on_error, env, "on_error", _main_done)
            return
        self._close_main(failure if isinstance(failure, StepError) else None)

    def _close_main(self, error: StepError | None) -> None:
        if error is not None:
            self.failed(None, "flow", error)
            self.engine.stats.failed += 1
        self._move("steps done")
        code = 0
        kind, owes = self.flow.trigger.kind, not self.replied and self.ended is None
        if owes and kind in REQUESTS and error is None and self.failure is None:
            self.trace(None, ServedByDefault())
            self.engine.host.perform(self, Ticket(None), Serve())
        elif owes and kind in ANSWERED:
            code = self._reply(error)
        elif error is not None and self.call is not None and self.ended is None:
            self.engine.host.perform(self, Ticket(None), Release(error.type))
        if error is not None:
            self._tell_failure("flow", error, code)

    def _reply(self, error: StepError | None) -> int:
        """The implicit final reply. Returns its status, 0 when it was not sent."""
        reply = _implicit_reply(self, error)
        self.trace(None, ReplyImplied(reply.code, reply.reason))
        try:
            self.engine.host.perform(self, Ticket(None), reply)
        except StepError as refused:  # a final reply went out after all: the host knows first
            self.trace(None, ReplyRefused(refused.message))
            return self._reply_plainly(reply.code) if reply.reason or reply.headers else 0
        return reply.code

    def _reply_plainly(self, code: int) -> int:
        """Nothing but the code: an answer must not fail for its wording. Returns what `_reply` does."""
        try:
            self.engine.host.perform(self, Ticket(None), Reply(code))
        except StepError as refused:
            self.trace(None, ReplyRefused(refused.message))
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
        self._move("broken off")
        for listener in self.listeners:
            listener.close()
        for task in self.tasks:
            task.on_done = _nobody
        self._finish()

    def end(self, by: str, reason: str) -> None:
        """The call is over: subscriptions go, every task is told at its next waiting point, then `on_end` runs."""
        if self.closing:
            return
        self.ended = CallEnded(by, reason)
        self.trace(None, RunEnded(by, reason, self.call is not None))
        tasks = self.tasks  # taken before: with none of them, closing the last listener begins on_end
        for listener in self.listeners:
            listener.close()
        for task in tasks:
            self.engine.interrupt(task, CallEnded(by, reason))
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
        self._move("nothing left")
        self._disarm()
        if not self.flow.on_end:
            self._finish()
            return
        self.trace(None, LastSteps())
        self.steps = 0
        spawn(self, self.flow.on_end, self.env, "on_end", self._on_end_done)
        self._grace = self.engine.arm(self.engine.limits.grace, self._kill, "on_end")

    def _on_end_done(self, task: Task, result: Any, failure: BaseException | None) -> None:
        if isinstance(failure, StepError):
            self.failed(None, "on_end", failure)
            self.engine.stats.failed += 1
        self._finish()

    def _kill(self, what: str) -> None:
        self.trace(None, LastStepsCut(what, self.engine.limits.grace))
        for task in self.tasks:
            self.engine.kill(task, Cancelled())

    def _finish(self) -> None:
        self._disarm()
        for task in self.tasks:  # branches that on_end left behind
            self.engine.kill(task, Cancelled())
        self._move("last steps done")
        self.engine.forget(self)

    def _disarm(self) -> None:
        if self._grace is not None:
            self.engine.disarm(self._grace)
            self._grace = None

    def __repr__(self) -> str:
        return f"<Run {self.name} {self.phase.value}, {len(self.tasks)} tasks, {len(self.listeners)} subscriptions>"


def _main_done(task: Task, result: Any, failure: BaseException | None) -> None:
    """No bound method of the run: each task would keep one of its own, and they wait in thousands."""
    run = task.run
    assert isinstance(run, Run)
    run.main_done(task, failure)


def _nobody(task: Task, result: Any, failure: BaseException | None) -> None:
    """For tasks of a run that is being broken off."""


def _failing(error: StepError) -> Steps:
    yield from ()
    raise error


def _beginning(flow: Flow, call: Any, env: Mapping[str, Any]) -> tuple[RunBegan, Read]:
    """The first line of a trace, and what began the run: an event, or a request."""
    kind, request = flow.trigger.kind, env.get("request")
    if call is not None and kind in ("invite", "socket"):
        return RunBegan(flow.name, call["from"]["aor"], call["to"]["aor"]), ()
    if kind == "event":
        return RunBegan(flow.name, event=flow.trigger.event), event_read(env.get("event") or {})
    if request is None:
        return RunBegan(flow.name), ()
    contacts = request["contacts"] if kind == "register" else ()
    began = RunBegan(flow.name, request["from"]["aor"], request["to"]["aor"], kind.upper())
    return began, tuple(("request.contact", contact) for contact in contacts[:1])


def _implicit_reply(run: Run, error: StepError | None) -> Reply:
    """What an unanswered request gets: by the error, else the best failure of the last relay, else 480."""
    if error is not None:
        overrides = run.program.resources.defaults.get("replies", {})
        rules = (*overrides.items(), *ERROR_REPLIES)
        return Reply(next(code for pattern, code in rules if fnmatchcase(error.type, pattern)))
    if run.failure is not None and run.failure["code"] >= 300:
        return Reply(run.failure["code"], run.failure["reason"] or "", implicit=True)
    return Reply(NO_REGISTRATION if run.flow.trigger.kind == "register" else NO_RESULT)
