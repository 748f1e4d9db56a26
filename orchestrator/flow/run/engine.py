"""The flow engine: drives tasks from one input to the next.

Inputs are `start` (a request came), events from the bus, `resume`/`throw` (the host answers an effect), timers and
`call_ended`. Each makes some tasks ready; the scheduler below runs them until every one of them waits again. Here are
the programs, the table of runs, and what begins and ends a run.

The engine is pure: effects go to the `Host`, time comes from the shared `Timers`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, Protocol

from orchestrator.errors import StepError
from orchestrator.events.bus import Bus
from orchestrator.flow.language.limits import Limits
from orchestrator.flow.language.program import Flow, Program
from orchestrator.flow.run.account import Version
from orchestrator.flow.run.environment import Environment
from orchestrator.flow.run.listen import Listener, Wait
from orchestrator.flow.run.run import Run
from orchestrator.flow.run.scheduler import Performer, Scheduler, Stats
from orchestrator.flow.run.signals import PENDING, Ticket
from orchestrator.flow.run.task import Task
from orchestrator.flow.run.trace import Trace, TraceMemory, Traces
from orchestrator.flow.run.triggers import Starter
from orchestrator.history import History
from orchestrator.timers import Timers

__all__ = ["PENDING", "FlowEngine", "Host", "Limits", "Run", "Stats", "Task", "Ticket"]


RUNS, RUNS_PER_FLOW = 50_000, 20_000
"""Runs at 7 KB each, their traces included."""


class Host(Performer, Protocol):
    """What performs effects: the composition of SIP, Event Socket and the pool, or a fake in tests."""

    def names(self, program: Program) -> Mapping[str, Any]:
        """What expressions know besides the run: const, groups, schedules, secrets, now. Values may be computed when
        asked for; it is asked with `.get(name)`."""


class FlowEngine(Scheduler):
    """All runs of one process. Not thread-safe: one turn of the reactor at a time."""

    on_fault: Callable[[Run, Exception], object] | None
    on_failure: Callable[[Run, str, StepError, int], object] | None
    on_collapse: Callable[[Run], object] | None

    def __init__(
        self,
        program: Program,
        bus: Bus,
        timers: Timers,
        host: Host,
        limits: Limits | None = None,
        history: History | None = None,
    ) -> None:
        self._limits = limits or Limits()
        super().__init__(bus, timers, self._limits, history or History())
        self.host = host
        self._names_of = host.names
        self.runs: dict[int, Run] = {}
        self.traces = Traces(self._limits.traces, self._limits.failures)
        self.trace_memory = TraceMemory(self.traces, self.runs)
        self.most_runs, self.most_runs_per_flow = RUNS, RUNS_PER_FLOW
        """Most runs of all flows together, and of one flow."""
        self._of_flow: Counter[str] = Counter()
        self._starters: list[Starter] = []
        self._versions: list[Version] = []
        self.load(program)

    # --- programs

    def load(self, program: Program) -> None:
        """Use this program from now on; runs that exist keep theirs. Its event and timer flows replace the old
        ones'."""
        for starter in self._starters:
            starter.close()
        version = Version(program, self._names_of(program), {flow.name: flow for flow in program.flows})
        in_use = {id(run.version) for run in self.runs.values()}
        self._versions = [version for version in self._versions if id(version) in in_use]
        self._versions.append(version)
        self.limits = replace(self._limits, **program.resources.defaults.get("limits", {}))
        self.traces.bound(int(self.limits.traces), int(self.limits.failures))
        triggered = [flow for flow in program.flows if flow.trigger.kind in ("event", "every")]
        self._starters = [Starter(self, version, flow) for flow in triggered]
        for starter in self._starters:
            starter.arm()

    @property
    def program(self) -> Program:
        """The program that new runs get."""
        return self._versions[-1].program

    def launch(self) -> None:
        """Run the flows `on: start`; once, when the system serves."""
        for flow in self.program.flows:
            if flow.trigger.kind == "start":
                self.create(flow, self.program, {}).begin()
        self.drain()

    def choose(self, kind: str, names: Mapping[str, Any], dialled: str = "") -> Flow | None:
        """The first flow, in order of the files, that this request (`invite`, `register`, `socket`) starts.

        `names` are `call` or `request` for the `when:` conditions. A condition that fails at run time does not hold.
        `dialled` is the number that the pattern of a `socket` trigger has to match.
        """
        env = Environment(self._versions[-1].names, names)
        for flow in self.program.flows:
            if flow.trigger.kind == kind and (kind != "socket" or fnmatchcase(dialled, flow.trigger.pattern)):
                try:
                    if flow.when is None or flow.when.evaluate(env) is True:
                        return flow
                except StepError:
                    self.stats.filter_errors += 1
        return None

    # --- runs

    def start(
        self,
        flow: Flow,
        *,
        call: Any = None,
        request: Any = None,
        event: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> Run:
        """Run a flow up to its first wait. `call` and `request` are mapping views; `call["id"]` scopes its events."""
        given = {"call": call, "request": request, "event": event, "params": params}
        names = {name: value for name, value in given.items() if value is not None}
        run = self.create(flow, self.program, names)
        run.begin()
        self.drain()
        return run

    def create(self, flow: Flow, program: Program, names: Mapping[str, Any]) -> Run:
        """A run that has not begun, for hosts that must know it before its first effect; then `run.begin()`, `drain()`.

        `program` is the loaded one, or an older one that still has runs.
        """
        self.stats.runs += 1
        self._of_flow[flow.name] += 1
        version = next(version for version in reversed(self._versions) if version.program is program)
        run = Run(self, self.stats.runs, flow, version, names)
        self.runs[run.id] = run
        return run

    def has_room(self, flow: Flow) -> bool:
        """Whether one more run of this flow may begin; a refusal is counted and told. Asked before `create`."""
        if len(self.runs) >= self.most_runs:
            what = f"{self.most_runs} runs of all flows are there already (limits: runs)"
        elif self._of_flow[flow.name] >= self.most_runs_per_flow:
            what = f"{self.most_runs_per_flow} runs of this flow are there already (limits: runs_per_flow)"
        else:
            return True
        self.stats.refused += 1
        self.tell_bound(flow.name, what)
        return False

    def call_ended(self, run: Run, by: str, reason: str) -> None:
        """The call of this run is over (`by` caller, callee or engine); idempotent, legal inside `Host.perform`."""
        run.end(by, reason)
        self.drain()

    def stop(self, reason: str) -> None:
        """End every run; their `finally` and `on_end` steps still get their time from the timers."""
        self.stopping = True
        for starter in self._starters:
            starter.close()
        for run in list(self.runs.values()):
            run.end("engine", reason)
        self.drain()

    def forget(self, run: Run) -> None:
        """A run is done: only its trace stays."""
        if self.runs.pop(run.id, None) is not None:
            name = run.flow.name
            self._of_flow[name] -= 1
            if not self._of_flow[name]:
                del self._of_flow[name]
        trace = Trace.of(run)
        self.trace_memory.live -= trace.octets
        self.traces.keep(trace)
        if run.on_done is not None:
            run.on_done(run)

    def live(self) -> dict[str, int]:
        """What is held for runs right now: all zero when no call is up. Linear, for tests and gauges."""
        return {
            "runs": len(self.runs),
            "tasks": sum(len(run.tasks) for run in self.runs.values()) + len(self._ready),
            "subscriptions": sum(isinstance(sub.owner, Listener | Wait) for sub in self.bus),
            "timers": self._alarms - sum(starter.ticking for starter in self._starters),
        }
