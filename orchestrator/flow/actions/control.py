"""Actions that steer the flow itself: variables, sub-flows, choices, loops, errors, pauses (FLOWLANG §4.3)."""

from __future__ import annotations

from orchestrator.flow.registry import ACTIONS, Action, Effect, Field, Kind

SET = ACTIONS.add(
    Action(
        "set",
        "Change flow variables (declared under vars:).",
        fields=(Field("values", Kind.ASSIGN, "The whole map: variable, new value.", required=True),),
        in_on_end=True,
    )
)

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

RETURN = ACTIONS.add(
    Action(
        "return",
        "End this flow and hand a value back to the caller.",
        short="value",
        fields=(Field("value", Kind.VALUE, "The value; ${...} keeps its type."),),
        in_on_end=True,
        effect=Effect.ENDS_FLOW,
    )
)

STOP = ACTIONS.add(Action("stop", "End this flow here.", in_on_end=True, effect=Effect.ENDS_FLOW))

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

BREAK = ACTIONS.add(
    Action("break", "Leave the innermost foreach or repeat.", needs="loop", in_on_end=True, effect=Effect.LEAVES_LOOP)
)

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
        effect=Effect.ENDS_FLOW,
    )
)

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

LOG = ACTIONS.add(
    Action(
        "log",
        "Write to the log and the trace.",
        short="text",
        fields=(
            Field("text", Kind.TEXT, "The line.", required=True),
            Field("level", Kind.ENUM, "Its level.", values=("debug", "info", "warning", "error")),
            Field("data", Kind.MAP, "Values to put beside it."),
        ),
        in_on_end=True,
    )
)
