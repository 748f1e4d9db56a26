"""Dialplan applications on the channels of a call: `play`, `record`, `collect`, `detect`, `fs.execute` (FLOWLANG §4.3).

Each is an `execute` message to a channel and its end a CHANNEL_EXECUTE_COMPLETE with our own id, so two that run at
once are never mistaken for each other. FreeSWITCH takes such a message on a parked channel, on one of a bridge (the
other side hears nothing meanwhile) and in the middle of a playback, where it would begin inside it: a prompt that plays
in the background is therefore stopped, and its end awaited, before the next application of that leg.

Nobody waits for a cut-off step, but FreeSWITCH would go on with it: `undo` of its work breaks what it runs
(`uuid_break`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from orchestrator.core.calls.call import Call
from orchestrator.core.calls.dialplan_call import SocketCall
from orchestrator.core.node import Node
from orchestrator.core.steps import subjects
from orchestrator.core.steps.performers import Performs
from orchestrator.core.switches.collector import Collector
from orchestrator.core.switches.detectors import SILENCE_LEVEL, Detectors
from orchestrator.core.switches.executions import (
    NOT_PLAYED,
    Application,
    Execution,
    Recording,
    argument,
    channel_of,
    ignore,
    plain,
    terminators,
    whole,
)
from orchestrator.errors import StepError
from orchestrator.esl.channels import Channel
from orchestrator.esl.codec import integer
from orchestrator.flow.run import effects
from orchestrator.flow.run.engine import FlowEngine
from orchestrator.flow.run.run import Run
from orchestrator.flow.run.run_facts import BackgroundFailed, KeyIgnored
from orchestrator.flow.run.signals import PENDING, Ticket
from orchestrator.timers import Timer

CHANNEL_WITHIN = 1.0
"""Seconds the report of a channel may be behind the SIP that made it; up to 20 ms are usual."""
MOST_KEYS = 127
"""More than any number has."""
NO_KEYS = "none"

_PLAYED = {"FILE PLAYED", "", "_none_"}


class Applications:
    """Performs the media effects of one engine's flows; `performs` is its part of the table of performers.

    SIP is some milliseconds faster than the Event Socket: right after a `relay via:` is answered the channel of the
    callee may not have been reported yet. Such a step waits for it, `CHANNEL_WITHIN` seconds at most.
    """

    def __init__(self, node: Node, flows: FlowEngine, detectors: Detectors) -> None:
        self.node = node
        self._flows = flows
        self._handlers: Mapping[type, Callable[[Run, Ticket, Any], Any]] = {
            effects.Play: self._play,
            effects.Record: self._record,
            effects.Collect: self._collect,
            effects.Detect: self._detect,
            effects.EslExecute: self._execute,
        }
        self.performs: Performs = dict.fromkeys(self._handlers, self._perform)
        self._detectors = detectors
        self._early: dict[Call | SocketCall, tuple[AwaitedChannel, ...]] = {}
        """Steps that wait for a channel of their call to be reported."""
        self._background: dict[tuple[str, str], Execution] = {}
        self._queued: dict[tuple[str, str], list[Execution]] = {}

    # --- from outside -------------------------------------------------------------------------------------------------

    def look(self, call: Call | SocketCall) -> None:
        """A channel of this call has been reported, or knows more."""
        for early in self._early.get(call, ()):
            early.retry()

    # --- effects ------------------------------------------------------------------------------------------------------

    def _perform(self, run: Run, ticket: Ticket, effect: Any) -> Any:
        try:
            return self._handlers[type(effect)](run, ticket, effect)
        except NoChannel as error:
            call = subjects.media_call(run)
            if not call.carried:
                raise
            early = ticket.work = AwaitedChannel(self, run, ticket, effect, error, call)
            self._early[call] = (*self._early.get(call, ()), early)
            return PENDING

    def retry(self, early: AwaitedChannel) -> None:
        """Try once more what wanted a channel too early."""
        flows, ticket = self._flows, early.ticket
        try:
            value = self._handlers[type(early.effect)](early.run, ticket, early.effect)
        except NoChannel:
            return
        except StepError as error:
            self.no_longer_early(early)
            flows.throw(ticket, error)
            return
        self.no_longer_early(early)
        if value is not PENDING:
            flows.resume(ticket, value)

    def no_longer_early(self, early: AwaitedChannel) -> None:
        early.timer.cancel()
        others = tuple(other for other in self._early.pop(early.call, ()) if other is not early)
        if others:
            self._early[early.call] = others

    def too_late(self, early: AwaitedChannel) -> None:
        self.no_longer_early(early)
        self._flows.throw(early.ticket, early.error)

    def _play(self, run: Run, ticket: Ticket, effect: effects.Play) -> Any:
        file = plain(effect.file, "play")
        channels = self._channels(run, effect.leg)
        played = _check_played(effect.file)
        if effect.background:
            for channel in channels:
                self._play_behind(run, channel, file, effect, played)
            return None
        wanted = [(channel, Application("playback", file), effect.repeat) for channel in channels]

        def result(results: Sequence[Any]) -> None:
            for each in results:
                played(each)

        return self._run(ticket, wanted, result)

    def _play_behind(
        self, run: Run, channel: Channel, file: str, effect: effects.Play, played: Callable[[Any], None]
    ) -> None:
        key = (channel.server, channel.uuid)

        def done(result: Any) -> None:
            if self._background.get(key) is execution:
                del self._background[key]
            try:
                played(result)
            except StepError as error:
                run.trace(None, BackgroundFailed("play", error.type, error.message))
            for waiting in self._queued.pop(key, ()):
                waiting.start()

        execution = Execution(self.node, Application("playback", file).on(channel), done, effect.repeat)
        self._begin(execution)
        self._background[key] = execution

    def _record(self, run: Run, ticket: Ticket, effect: effects.Record) -> Any:
        (channel, *_) = self._channels(run, "caller" if effect.leg == "both" else effect.leg)
        path = plain(effect.file, "record")
        if effect.leg == "both":
            if effect.silence is not None or effect.stop:
                raise StepError("call.state", "record: silence and stop need one leg; both are recorded until max")
            return self._record_both(ticket, channel, path, effect)
        limits = f"{whole(effect.max or 0)}"
        if effect.silence is not None:
            limits += f" {SILENCE_LEVEL} {max(1, whole(effect.silence))}"
        application = Application("record", f"{argument(path, 'record')} {limits}", ("record_ms",))

        def result(results: Sequence[Any]) -> dict[str, Any]:
            (told,) = results
            if effect.stop:
                self.node.job(terminators(channel, NO_KEYS), ignore)
            return {"file": effect.file, "duration": integer(told["variables"].get("record_ms", "")) / 1000}

        wanted = [(channel, application, 1)]
        return self._with_keys(ticket, channel, effect.stop, lambda: self._run(ticket, wanted, result))

    def _with_keys(self, ticket: Ticket, channel: Channel, keys: str, start: Callable[[], Any]) -> Any:
        """Say which keys end the next application of a channel; FreeSWITCH's default is the star."""

        def set_up(result: Any) -> None:
            if ticket.task is None:
                return
            if isinstance(result, StepError):
                self._flows.throw(ticket, result)
            else:
                start()

        self.node.job(terminators(channel, keys or NO_KEYS), set_up)
        return PENDING

    def _record_both(self, ticket: Ticket, channel: Channel, path: str, effect: effects.Record) -> Any:
        if " " in path:
            raise StepError("esl.command", "record: FreeSWITCH takes no spaces in the name of a file for both legs")
        args = path if effect.max is None else f"{path} +{whole(effect.max)}"
        flows = self._flows

        def ended(result: Any) -> None:
            if isinstance(result, StepError):
                flows.throw(ticket, result)
            else:
                flows.resume(ticket, {"file": effect.file, "duration": result})

        recording = ticket.work = Recording(self.node, channel, path, ended)
        recording.start(Application("record_session", args).on(channel))
        return PENDING

    def _collect(self, run: Run, ticket: Ticket, effect: effects.Collect) -> Any:
        if not 1 <= effect.max <= MOST_KEYS:
            raise StepError("call.state", f"collect: max is {effect.max}, not 1 to {MOST_KEYS}")
        (channel, *_) = self._channels(run, effect.leg)
        plain(effect.prompt, "collect")
        flows = self._flows

        def ended(result: str | StepError) -> None:
            if isinstance(result, StepError):
                flows.throw(ticket, result)
            else:
                flows.resume(ticket, result)

        def ignored(digit: str, why: str) -> None:
            run.trace(None, KeyIgnored(digit, "", why))

        collector = ticket.work = Collector(self.node, channel, effect, self._begin, ended, ignored)
        collector.start()
        return PENDING

    def _detect(self, run: Run, ticket: Ticket, effect: effects.Detect) -> Any:
        call = subjects.media_call(run)
        detectors = [self._detectors.make(call, channel, effect) for channel in self._channels(run, effect.leg)]
        wanted = [(d.channel, application, 1) for d in detectors for application in d.applications]

        def listening(results: Sequence[Any]) -> None:
            for detector in detectors:
                self._detectors.add(detector)

        return self._run(ticket, wanted, listening, queue=False)

    def answer(self, run: Run, ticket: Ticket, channel: Channel) -> Any:
        """Answer a channel that the dialplan has handed over."""
        subjects.media_call(run)
        return self._run(ticket, [(channel, Application("answer", ""), 1)], lambda results: None)

    def _execute(self, run: Run, ticket: Ticket, effect: effects.EslExecute) -> Any:
        channels = self._channels(run, effect.leg)
        application = Application(effect.app, effect.args, tuple(effect.variables), effect.timeout)
        if effect.wait:
            wanted = [(channel, application, 1) for channel in channels]
            return self._run(ticket, wanted, lambda results: {"response": results[0]["response"]})
        jobs = [application.on(channel, wait=False) for channel in channels]
        left = len(jobs)

        def queued(result: Any) -> None:
            nonlocal left
            left -= 1
            if isinstance(result, StepError):
                self._flows.throw(ticket, result)
            elif not left:
                self._flows.resume(ticket, {"response": result["response"]})

        for job in jobs:
            self.node.job(job, queued)
        return PENDING

    # --- channels -----------------------------------------------------------------------------------------------------

    def _channels(self, run: Run, leg: str) -> list[Channel]:
        """The live channels of a leg, or of both. Raises StepError `call.state` where FreeSWITCH does not have them."""
        call = subjects.media_call(run)
        wanted = ("caller", "callee") if leg == "both" else (leg,)
        found = [channel for side in wanted if (channel := channel_of(call, side)) is not None]
        if not found or (leg != "both" and len(found) < len(wanted)):
            which = "this call" if leg == "both" else f"the {leg} of this call"
            raise NoChannel("call.state", f"FreeSWITCH does not have {which}: use media:, or relay: with via:, before")
        return found

    # --- running them -------------------------------------------------------------------------------------------------

    def _run(
        self,
        ticket: Ticket,
        wanted: Sequence[tuple[Channel, Application, int]],
        result: Callable[[Sequence[Any]], Any],
        queue: bool = True,
    ) -> Any:
        """Run applications, one per channel, and answer the ticket with what `result` makes of all their ends.

        `queue`: they wait for what plays in the background; a detector works beside it.
        """
        results: list[Any] = []
        flows = self._flows

        def done(told: Any) -> None:
            if ticket.work is not work:
                return
            results.append(told)
            failure = told if isinstance(told, StepError) else None
            if failure is None and len(results) < len(wanted):
                return
            if failure is not None:
                work.undo()
            try:
                value = None if failure is not None else result(results)
            except StepError as error:
                failure = error
            if failure is not None:
                flows.throw(ticket, failure)
            else:
                flows.resume(ticket, value)

        executions = [Execution(self.node, app.on(channel), done, times) for channel, app, times in wanted]
        work = ticket.work = Executions(executions)
        for execution in executions:
            if queue:
                self._begin(execution)
            else:
                execution.start()
        return PENDING

    def _begin(self, execution: Execution) -> None:
        """Start it, once what plays in the background of its channel has stopped."""
        key = (execution.effect.server, execution.effect.uuid)
        background = self._background.get(key)
        if background is None:
            execution.start()
        else:
            waiting = self._queued.setdefault(key, [])
            waiting.append(execution)
            if len(waiting) == 1:
                background.stop()


class Executions:
    """Applications that one step waits for."""

    __slots__ = ("_executions",)

    def __init__(self, executions: Sequence[Execution]) -> None:
        self._executions = executions

    def undo(self) -> None:
        for execution in self._executions:
            execution.forget()


class NoChannel(StepError):
    """FreeSWITCH does not have the leg, as far as its events have told us."""


class AwaitedChannel:
    """A step whose channel has not been reported yet."""

    __slots__ = ("_applications", "run", "ticket", "effect", "error", "call", "timer")

    def __init__(
        self,
        applications: Applications,
        run: Run,
        ticket: Ticket,
        effect: Any,
        error: StepError,
        call: Call | SocketCall,
    ) -> None:
        self._applications = applications
        self.run = run
        self.ticket = ticket
        self.effect = effect
        self.error = error
        self.call = call
        self.timer: Timer = applications.node.timers.after(CHANNEL_WITHIN, applications.too_late, self)

    def retry(self) -> None:
        self._applications.retry(self)

    def undo(self) -> None:
        self._applications.no_longer_early(self)


def _check_played(file: str) -> Callable[[Any], None]:
    def check(result: Any) -> None:
        if isinstance(result, StepError):
            raise result
        response = result["response"]
        if response not in _PLAYED:
            raise StepError("esl.command", f"play: {file}: {NOT_PLAYED.get(response, response)}")

    return check
