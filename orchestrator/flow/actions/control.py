"""Actions that steer the flow itself: variables, sub-flows, choices, loops, errors, pauses (FLOWLANG §4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from orchestrator.errors import StepError
from orchestrator.flow.language.places import Place
from orchestrator.flow.language.program import Block, Catch, Step
from orchestrator.flow.language.registry import ACTIONS, Action, CallChange, Field, Kind
from orchestrator.flow.run import effects
from orchestrator.flow.run.children import Children
from orchestrator.flow.run.environment import Environment
from orchestrator.flow.run.run_facts import Caught, Switched
from orchestrator.flow.run.signals import Break, Cancelled, FlowSignal, Return, Stop
from orchestrator.flow.run.step_facts import Logged, Stepped
from orchestrator.flow.run.task import Steps, Task, error_record
from orchestrator.flow.run.trace import cut

SET = ACTIONS.add(
    Action(
        "set",
        "Change flow variables (declared under vars:).",
        fields=(Field("values", Kind.ASSIGN, "The whole map: variable, new value.", required=True),),
        in_on_end=True,
    )
)


@SET.computes
def set_(task: Task, step: Step) -> None:
    """All values are worked out before the first is stored; nothing else runs in between."""
    values = task.values(step, "values")
    task.env["vars"].update(values)
    task.trace(step, Stepped("set", ", ".join(values)))


CALL = ACTIONS.add(
    Action(
        "call",
        "Run another flow and wait for it.",
        short="flow",
        fields=(Field("flow", Kind.FLOW, "Name of a flow without on:.", required=True),),
        beside=(Field("with", Kind.DATA, "Its params."),),
        result="returned value",
        in_on_end=True,
        waits=True,
    )
)


@CALL.performs
def call(task: Task, step: Step) -> Steps:
    """Runs in this task, with names of its own: params, its vars, and the call if there is one."""
    run = task.run
    flow = run.version.flows[step.args["flow"]]
    if task.nesting >= run.engine.limits.nesting:
        raise StepError("flow.limit", f"flows called more than {run.engine.limits.nesting} deep")
    before = task.env
    names = {name: before[name] for name in ("request", "refer") if name in before}
    variables: dict[str, Any] = {}
    task.trace(step, Stepped("call", flow.name))
    inside = Environment(before.outer, {**names, "params": _params(task, step, flow.params)}, before.call, variables)
    task.env, task.nesting = inside, task.nesting + 1
    try:
        for name, value in flow.vars.items():
            variables[name] = value.evaluate(inside)
        return (yield from _called(task, flow.do, flow.on_error))
    finally:
        task.env, task.nesting = before, task.nesting - 1


def _params(task: Task, step: Step, declared: Any) -> dict[str, Any]:
    """What is not given is null; the checker has seen to it that only optional ones are not."""
    return {**dict.fromkeys(declared), **task.values(step, "with")}


def _called(task: Task, block: Block, on_error: Block | None) -> Steps:
    """The steps of a called flow; `stop` and `return` end it, and it only."""
    failed = None
    try:
        yield from task.walk(block)
    except Return as signal:
        return signal.value
    except Stop:
        return None
    except StepError as error:
        if on_error is None:
            raise
        failed = error_record(error)
    if failed is not None and on_error is not None:
        task.env = task.env.bind("error", failed)
        return (yield from _called(task, on_error, None))
    return None


RETURN = ACTIONS.add(
    Action(
        "return",
        "End this flow and hand a value back to the caller.",
        short="value",
        fields=(Field("value", Kind.VALUE, "The value; ${...} keeps its type."),),
        in_on_end=True,
        effect=CallChange.ENDS_FLOW,
    )
)


@RETURN.computes
def return_(task: Task, step: Step) -> None:
    raise Return(task.value(step, "value"))


STOP = ACTIONS.add(Action("stop", "End this flow here.", in_on_end=True, effect=CallChange.ENDS_FLOW))


@STOP.computes
def stop(task: Task, step: Step) -> None:
    task.trace(step, Stepped("stop"))
    raise Stop


SWITCH = ACTIONS.add(
    Action(
        "switch",
        "Pick one of several step lists by value.",
        short="value",
        fields=(Field("value", Kind.EXPRESSION, "The expression to look at.", required=True),),
        beside=(
            Field("cases", Kind.CASES, "Value: steps; several values may share one entry (a, b:).", required=True),
            Field("default", Kind.STEPS, "Steps when no case fits."),
        ),
        in_on_end=True,
    )
)


@SWITCH.performs
def switch(task: Task, step: Step) -> Steps:
    text = _as_written(task.value(step, "value"))
    block = step.args["cases"].get(text)
    task.trace(step, Switched(text, block is None))
    yield from task.walk(step.args.get("default", ()) if block is None else block)


def _as_written(value: Any) -> str:
    """A value as the key of a case writes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


FOREACH = ACTIONS.add(
    Action(
        "foreach",
        "Run steps for each item of a list.",
        short="in",
        fields=(Field("in", Kind.EXPRESSION, "The list.", required=True),),
        beside=(
            Field("item", Kind.NAME, "Name of the item inside do:, default item."),
            Field("do", Kind.STEPS, "Steps to run.", required=True),
            Field("until", Kind.CONDITION, "Leave the loop after a pass that made this true."),
        ),
        in_on_end=True,
    )
)


@FOREACH.performs
def foreach(task: Task, step: Step) -> Steps:
    items = task.value(step, "in")
    if not isinstance(items, Sequence) or isinstance(items, str):
        raise StepError("expr.value", "foreach: needs a list")
    name, until = step.args.get("item", "item"), step.args.get("until")
    task.trace(step, Stepped("foreach", f"over {len(items)}"))
    for item in tuple(items):
        task.run.count_step()
        try:
            yield from task.scoped(step.args["do"], {name: item})
        except Break:
            return
        if until is not None and until.evaluate(task.env.bind(name, item)) is True:
            return


REPEAT = ACTIONS.add(
    Action(
        "repeat",
        "Run steps several times.",
        short="times",
        fields=(Field("times", Kind.NUMBER, "How many times.", required=True),),
        beside=(
            Field("every", Kind.DURATION, "Start a pass each time this much has passed."),
            Field("until", Kind.CONDITION, "Leave the loop after a pass that made this true."),
            Field("do", Kind.STEPS, "Steps to run.", required=True),
        ),
        in_on_end=True,
    )
)


@REPEAT.performs
def repeat(task: Task, step: Step) -> Steps:
    """With `every:`, passes begin that far apart; one that took longer is followed at once."""
    timers, until = task.run.engine.timers, step.args.get("until")
    begun, every = timers.now, task.value(step, "every")
    for number in range(task.value(step, "times")):
        task.run.count_step()
        if number and every is not None and begun + number * every > timers.now:
            task.step = step
            yield from task.sleep(begun + number * every - timers.now)
        try:
            yield from task.walk(step.args["do"])
        except Break:
            return
        if until is not None and until.evaluate(task.env) is True:
            return


BREAK = ACTIONS.add(
    Action(
        "break", "Leave the innermost foreach or repeat.", needs="loop", in_on_end=True, effect=CallChange.LEAVES_LOOP
    )
)


@BREAK.computes
def break_(task: Task, step: Step) -> None:
    raise Break


PARALLEL = ACTIONS.add(
    Action(
        "parallel",
        "Run step lists at the same time.",
        short="branches",
        fields=(Field("branches", Kind.BRANCHES, "A list of step lists.", required=True),),
        beside=(Field("wait_for", Kind.ENUM, "Go on after all of them or after the first.", values=("all", "first")),),
        in_on_end=True,
        waits=True,
    )
)


@PARALLEL.performs
def parallel(task: Task, step: Step) -> Steps:
    """The first error, stop or break of a branch ends the others and is this step's; they unwind before it goes on."""
    blocks: tuple[Block, ...] = step.args["branches"]
    wanted = min(1, len(blocks)) if step.args.get("wait_for") == "first" else len(blocks)
    children = Children(task)
    failure: StepError | FlowSignal | None = None
    task.trace(step, Stepped("parallel", f"{len(blocks)} branches"))
    try:
        for block in blocks:
            children.start(block, "branch")
        for _ in range(wanted):
            child: Task = yield from children.next()
            task.adopt(child)
    except (StepError, FlowSignal) as ended:
        failure = ended
    finally:
        left = children.cancel()
    if left:
        yield from task.give_way()
    if failure is not None:
        raise failure


TRY = ACTIONS.add(
    Action(
        "try",
        "Run steps and catch their errors.",
        short="do",
        fields=(Field("do", Kind.STEPS, "Steps to run.", required=True),),
        beside=(
            Field("catch", Kind.CATCHES, "What to do for which error; error is known in the steps."),
            Field("finally", Kind.STEPS, "Steps that run in any case, also when the call has ended."),
        ),
        in_on_end=True,
    )
)


@TRY.performs
def try_(task: Task, step: Step) -> Steps:
    """`catch` sees errors, `finally` runs for signals too; nothing in it can bring back a flow whose call has ended."""
    ended: StepError | FlowSignal | None = None
    try:
        yield from task.walk(step.args["do"])
    except (StepError, FlowSignal) as failure:
        ended = failure
    catch = _catch(step, ended)
    if catch is not None and isinstance(ended, StepError):
        task.trace(step, Caught(ended.type, ended.message))
        error, ended = error_record(ended), None
        try:
            yield from task.scoped(catch.do, {"error": error})
        except (StepError, FlowSignal) as failure:
            ended = failure
    if "finally" in step.args:
        yield from _finally(task, step, ended)
    if ended is not None:
        raise ended


def _catch(step: Step, error: BaseException | None) -> Catch | None:
    catches: tuple[Catch, ...] = step.args.get("catch", ())
    if not isinstance(error, StepError):
        return None
    return next((catch for catch in catches if fnmatchcase(error.type, catch.error)), None)


def _finally(task: Task, step: Step, ended: BaseException | None) -> Steps:
    """Its own error or stop replaces what ended `do:`, unless that was the end of the call or of the task."""
    try:
        yield from task.walk(step.args["finally"])
    except StepError as error:
        if not isinstance(ended, Cancelled):
            raise
        task.run.failed(step, "finally", error)
    except FlowSignal:
        if not isinstance(ended, Cancelled):
            raise


FAIL = ACTIONS.add(
    Action(
        "fail",
        "Raise an error of your own.",
        short="message",
        fields=(
            Field("message", Kind.TEXT, "What went wrong.", required=True),
            Field("type", Kind.NAME, "Error type for catch; user. is put in front."),
        ),
        in_on_end=True,
        effect=CallChange.ENDS_FLOW,
    )
)


@FAIL.computes
def fail(task: Task, step: Step) -> None:
    raise StepError(f"user.{step.args.get('type', 'error')}", task.value(step, "message"))


SLEEP = ACTIONS.add(
    Action(
        "sleep",
        "Pause.",
        short="for",
        fields=(Field("for", Kind.DURATION, "How long.", required=True),),
        in_on_end=True,
        waits=True,
    )
)


@SLEEP.performs
def sleep(task: Task, step: Step) -> Steps:
    seconds = task.value(step, "for")
    task.trace(step, Stepped("sleep", f"{seconds:g}s"))
    yield from task.sleep(seconds)


LOG = ACTIONS.add(
    Action(
        "log",
        "Write to the log and the trace.",
        short="text",
        fields=(
            Field("text", Kind.TEXT, "The line, cut at 2000 characters.", required=True, place=Place.LOG),
            Field("level", Kind.ENUM, "Its level.", values=("debug", "info", "warning", "error")),
            Field("data", Kind.MAP, "Values to put beside it."),
        ),
        in_on_end=True,
    )
)


@LOG.performs
def log(task: Task, step: Step) -> Steps:
    text = cut(task.value(step, "text"))
    task.trace(step, Logged(text))
    data = {name: cut(value) if isinstance(value, str) else value for name, value in task.values(step, "data").items()}
    yield effects.Log(text, step.args.get("level", "info"), data)
