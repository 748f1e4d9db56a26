"""Actions on events: listen in the background, wait, take the first of several, raise one (FLOWLANG §4.3, §5).

All of them arm before they return or sleep, so an event caused by the next step cannot be missed.
"""

from __future__ import annotations

from typing import Any

from orchestrator.errors import StepError
from orchestrator.events.checked import WrongValue
from orchestrator.events.registry import build_event
from orchestrator.flow.language.evaluables import constant_of
from orchestrator.flow.language.program import Branch, Step
from orchestrator.flow.language.registry import ACTIONS, Action, Field, Kind
from orchestrator.flow.run.listen import EXPIRED, Listener, Wait, event_read, event_spec
from orchestrator.flow.run.run_facts import (
    EventTaken,
    FirstOfBegan,
    FirstOfTimedOut,
    Raised,
    Subscribed,
    Unsubscribed,
    WaitBegan,
    WaitTimedOut,
)
from orchestrator.flow.run.signals import Cancelled, Ticket
from orchestrator.flow.run.task import Steps, Task

NAME = Field("name", Kind.NAME, "For the event fs: its Event-Name, or the subclass of a CUSTOM event.")
WHERE = Field("where", Kind.WHERE, "Which events: attributes to match (map), or a condition over event.")
ANY_CALL = Field("any_call", Kind.BOOLEAN, "Take the event from any call, not only from this one.")

SUBSCRIBE = ACTIONS.add(
    Action(
        "subscribe",
        "Run steps each time an event arrives, without waiting here.",
        short="event",
        fields=(Field("event", Kind.EVENT, "Name of the event.", required=True),),
        beside=(
            NAME,
            WHERE,
            Field("for", Kind.DURATION, "How long to listen."),
            Field("limit", Kind.NUMBER, "End after so many events."),
            Field("unique_by", Kind.EXPRESSION, "Run the steps once for each value of this expression."),
            Field(
                "run",
                Kind.ENUM,
                "What to do with an event that comes while the steps still run.",
                values=("queue", "parallel", "drop", "restart"),
            ),
            ANY_CALL,
            Field("do", Kind.STEPS, "Steps to run for each event; event is known in them.", required=True),
            Field("on_expire", Kind.STEPS, "Steps to run when for: is over."),
        ),
        hears=True,
    )
)


@SUBSCRIBE.computes
def subscribe(task: Task, step: Step) -> None:
    run = task.run
    if run.closing:
        task.trace(step, Subscribed(step.args["event"], armed=False))
        return
    if len(run.listeners) >= run.engine.limits.subscriptions:
        raise StepError("flow.limit", f"more than {run.engine.limits.subscriptions} subscriptions in one run")
    run.listeners += (Listener(task, step),)
    task.trace(step, step.made.get("subscribed") or _subscribed(task, step))


def _subscribed(task: Task, step: Step) -> Subscribed:
    """The line of the trace: the same for all runs where `for:` is written out."""
    seconds = step.args.get("for")
    fact = Subscribed(step.args["event"], task.value(step, "for"))
    if seconds is None or constant_of(seconds) is not None:
        step.made["subscribed"] = fact
    return fact


UNSUBSCRIBE = ACTIONS.add(
    Action(
        "unsubscribe",
        "End a subscription made earlier (by its id).",
        short="id",
        fields=(Field("id", Kind.SUBSCRIPTION, "The id: of the subscribe step.", required=True),),
    )
)


@UNSUBSCRIBE.computes
def unsubscribe(task: Task, step: Step) -> None:
    id = step.args["id"]
    found = [listener for listener in task.run.listeners if listener.step.id == id]
    for listener in found:
        listener.close()
    task.trace(step, Unsubscribed(id, bool(found)))


WAIT = ACTIONS.add(
    Action(
        "wait",
        "Pause until an event arrives.",
        short="event",
        fields=(Field("event", Kind.EVENT, "Name of the event.", required=True),),
        beside=(
            NAME,
            WHERE,
            Field("for", Kind.DURATION, "Longest wait; then on_timeout runs, or the step fails."),
            Field("meanwhile", Kind.STEPS, "Steps to run once the wait is armed, those that cause the event."),
            ANY_CALL,
            Field("on_timeout", Kind.STEPS, "Steps to run when for: is over."),
        ),
        result="event",
        waits=True,
        hears=True,
    )
)


@WAIT.performs
def wait(task: Task, step: Step) -> Steps:
    """Arms first, then starts `meanwhile:`, whose error (or stop) ends the wait at once."""
    ticket = Ticket(task)
    armed = Wait(task, step, ticket)
    meanwhile: Task | None = None
    task.trace(step, WaitBegan(step.args["event"]))
    try:
        if "meanwhile" in step.args:
            meanwhile = task.spawn(step.args["meanwhile"], "meanwhile", _hand_on(ticket))
        _, event = yield ticket
        if event is not EXPIRED:
            task.caused_by(armed.chain)
    finally:
        armed.subscription.cancel()
        if meanwhile is not None:
            meanwhile.interrupt(Cancelled())
    if meanwhile is not None and meanwhile.generator is not None:
        yield from task.give_way()
    if event is not EXPIRED:
        task.run.trace(step, EventTaken(step.args["event"], "wait"), event_read(event))
        return event
    task.trace(step, WaitTimedOut(step.args["event"]))
    if "on_timeout" not in step.args:
        raise StepError("wait.timeout", f"no event {step.args['event']!r} in time")
    yield from task.walk(step.args["on_timeout"])
    return None


def _hand_on(ticket: Ticket) -> Any:
    """What ends a child early ends the wait of its parent too."""

    def done(child: Task, result: Any, failure: BaseException | None) -> None:
        if failure is not None and ticket.task is not None and not isinstance(failure, Cancelled):
            child.run.engine.throw(ticket, failure)

    return done


FIRST_OF = ACTIONS.add(
    Action(
        "first_of",
        "Wait for whichever comes first; exactly one branch runs.",
        short="branches",
        fields=(Field("branches", Kind.BRANCHES, "Entries of wait: or after:, each with do:.", required=True),),
        waits=True,
    )
)


@FIRST_OF.performs
def first_of(task: Task, step: Step) -> Steps:
    """All branches are armed before it sleeps, and all are disarmed before the steps of the winner run."""
    branches: tuple[Branch, ...] = step.args["branches"]
    engine = task.run.engine
    ticket = Ticket(task)
    waits: list[Wait] = []
    timers = []
    try:
        for position, branch in enumerate(branches):
            if branch.wait is not None:
                waits.append(Wait(task, branch.wait, ticket, position))
            elif branch.after is not None:
                answer = (ticket, (position, EXPIRED))
                timers.append(engine.arm(branch.after.evaluate(task.env), engine.answer, answer))
        task.trace(step, FirstOfBegan(len(branches)))
        position, event = yield ticket
    finally:
        for armed in waits:
            armed.subscription.cancel()
        for timer in timers:
            engine.disarm(timer)
    won = branches[position]
    for armed in waits:
        task.caused_by(armed.chain)
    if won.wait is None:
        task.trace(step, FirstOfTimedOut())
        yield from task.walk(won.do)
        return
    task.run.trace(won.wait, EventTaken(won.wait.args["event"], "first_of"), event_read(event))
    if won.wait.result is not None:
        task.env = task.env.bind(won.wait.result, event)
    yield from task.scoped(won.do, {"event": event})


RAISE = ACTIONS.add(
    Action(
        "raise",
        "Raise an event for other calls and flows.",
        short="event",
        fields=(Field("event", Kind.EVENT, "Name of an event declared under events:.", required=True),),
        beside=(Field("data", Kind.DATA, "Its attributes."),),
        result="raise result",
        in_on_end=True,
    )
)


@RAISE.computes
def raise_(task: Task, step: Step) -> dict[str, int]:
    """Delivers to those who listen now; their steps run when this task waits."""
    run = task.run
    spec = event_spec(run.program, step.args["event"])
    call = run.call_id if spec.scope == "call" else ""
    try:
        event = build_event(spec, task.values(step, "data"), call, run.engine.timers.now)
    except WrongValue as wrong:
        raise StepError("expr.value", str(wrong)) from None
    except ValueError as missing:
        raise StepError("expr.missing", str(missing)) from None
    delivered = task.raise_event(event)
    task.trace(step, Raised(spec.name, delivered))
    return {"delivered": delivered}
