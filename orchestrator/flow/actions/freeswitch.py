"""Actions that hand a command to FreeSWITCH over the Event Socket as it is (FLOWLANG §4.3).

FreeSWITCH expands `${…}` in arguments, and `${system(…)}` runs a program. A flow that means it writes `$${…}`; one that
came out of a value, which a stranger may have written, is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from orchestrator.errors import StepError
from orchestrator.flow.actions.call import LEGS
from orchestrator.flow.language.places import Place
from orchestrator.flow.language.program import Step
from orchestrator.flow.language.registry import ACTIONS, Action, Field, Kind
from orchestrator.flow.run import effects
from orchestrator.flow.run.step_facts import FreeSwitchAsked
from orchestrator.flow.run.task import Steps, Task

COMMAND_FIELDS = (
    Field(
        "command", Kind.TEXT, "The command with its arguments, as fs_cli takes it.", required=True, place=Place.COMMAND
    ),
    Field("server", Kind.SERVER, "FreeSWITCH server, by name; default the one that has this call, or least to do."),
    Field(
        "expect",
        Kind.TEXT,
        "Pattern the reply must match, * and ? are wildcards; else esl.command is raised.",
        place=Place.PATTERN,
    ),
)

FS_API = ACTIONS.add(
    Action(
        "fs.api",
        "Run a FreeSWITCH API command.",
        short="command",
        fields=COMMAND_FIELDS,
        result="esl result",
        in_on_end=True,
        waits=True,
    )
)


@FS_API.performs
def fs_api(task: Task, step: Step) -> Steps:
    return (yield from _command(task, step, "api"))


def _command(task: Task, step: Step, kind: str) -> Steps:
    command = _text(task, step, "command")
    task.trace(step, FreeSwitchAsked(kind, command))
    result: Mapping[str, Any] = yield effects.EslCommand(kind, command, step.args.get("server", ""))
    expect = task.value(step, "expect")
    if expect is not None and not fnmatchcase(result["text"].strip(), expect):
        raise StepError("esl.command", f"reply is {result['text'].strip()!r}, expected {expect!r}")
    return result


def _text(task: Task, step: Step, name: str) -> str:
    """The text of a key. Raises StepError `esl.command` when a value has brought a `${` that the flow has not
    written."""
    text: str = task.value(step, name, "")
    written: str = getattr(step.args.get(name), "source", "")
    if text.count("${") > written.count("$${"):
        raise StepError("esl.command", f"{name}: a value holds ${{, which FreeSWITCH would expand: {text[:80]!r}")
    return text


FS_BGAPI = ACTIONS.add(
    Action(
        "fs.bgapi",
        "Run a FreeSWITCH API command in the background; waits for its job result.",
        short="command",
        fields=COMMAND_FIELDS,
        result="esl result",
        in_on_end=True,
        waits=True,
    )
)


@FS_BGAPI.performs
def fs_bgapi(task: Task, step: Step) -> Steps:
    return (yield from _command(task, step, "bgapi"))


FS_EXECUTE = ACTIONS.add(
    Action(
        "fs.execute",
        "Run a FreeSWITCH dialplan application on a leg.",
        short="app",
        fields=(
            Field(
                "app",
                Kind.TEXT,
                "Name of the application: playback, rxfax, set ...",
                required=True,
                place=Place.APPLICATION,
            ),
            Field("args", Kind.TEXT, "Its arguments.", place=Place.ARGUMENTS),
            Field("leg", Kind.ENUM, "Which leg.", values=LEGS),
            Field("wait", Kind.BOOLEAN, "Wait until the application has finished."),
        ),
        result="execute result",
        needs="call",
        waits=True,
        listens=("execute_done",),
    )
)


@FS_EXECUTE.performs
def fs_execute(task: Task, step: Step) -> Steps:
    app, args = task.value(step, "app"), _text(task, step, "args")
    leg, wait = step.args.get("leg", "caller"), task.value(step, "wait", False)
    task.trace(step, FreeSwitchAsked("execute", app, args, leg))
    return (yield effects.EslExecute(app, args, leg, wait))
