"""The action `charge`: prepaid and postpaid calls with CGRateS (FLOWLANG §4.3)."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any

from orchestrator.errors import StepError
from orchestrator.flow.actions.call import on_outcome
from orchestrator.flow.language.program import Step
from orchestrator.flow.language.registry import ACTIONS, Action, Field, Kind
from orchestrator.flow.run.charging import Authorise, BeginCharging, Charged, ChargedCall
from orchestrator.flow.run.step_facts import Stepped
from orchestrator.flow.run.task import Steps, Task

UNLIMITED = 24 * 3600.0
"""`max_usage` of a call without a limit, in seconds, where neither `max:` nor `max_duration:` of the flow gives one."""

CHARGE = ACTIONS.add(
    Action(
        "charge",
        "Authorise this call with CGRateS and bill it until it ends.",
        short="account",
        fields=(
            Field("account", Kind.TEXT, "Who pays.", required=True),
            Field("destination", Kind.TEXT, "Number to rate, default the called one."),
            Field(
                "tenant",
                Kind.TEXT,
                "CGRateS tenant, default that of the configuration, else the domain that was called.",
            ),
            Field(
                "type",
                Kind.ENUM,
                "CGRateS request type.",
                values=("prepaid", "postpaid", "pseudoprepaid", "rated"),
            ),
            Field("max", Kind.DURATION, "Longest call to ask for; the call is cut after it."),
        ),
        beside=(Field("on", Kind.OUTCOMES, "Steps for each outcome.", values=("granted", "denied", "error")),),
        result="charge result",
        needs="call",
        waits=True,
    )
)


@CHARGE.performs
def charge(task: Task, step: Step) -> Steps:
    """Waits for the authorisation, then runs the steps under `on:` for it. The session of a call that is granted is
    bound to the call: it begins with the answer."""
    charged, longest = _charged(task, step), task.value(step, "max")
    limit = None if step.timeout is None else 0.9 * step.timeout.evaluate(task.env)  # so that `error:` sees it
    given: Mapping[str, Any] = {}
    try:
        given = yield Authorise(charged, longest, limit)
        outcome, reason = "granted", str(given.get("reason") or "")
    except StepError as error:
        outcome, reason = "denied" if error.type == "charge.refused" else "error", error.message
    most = given.get("max_usage")
    if outcome == "granted" and most is not None and most <= 0:
        outcome, reason = "denied", "no usage left"
    usage = 0.0 if outcome != "granted" else _longest_call(task, longest) if most is None else most
    result = {"outcome": outcome, "max_usage": usage, "reason": reason}
    task.trace(step, Stepped("charge", f"{charged.account} -> {outcome}{f': {reason}' if reason else ''}"))
    if outcome == "granted":
        task.run.charges += 1
        yield BeginCharging(ChargedCall(charged, most, given.get("portion"), longest))
    if step.result is not None:
        task.env = task.env.bind(step.result, result)
    outcomes = step.args.get("on", {})
    if outcome != "granted" and outcome not in outcomes and "else" not in outcomes:
        raise StepError("charge.refused" if outcome == "denied" else "charge.down", reason)
    yield from on_outcome(task, step, "charge", result, None if outcome == "granted" else "else")
    return result


def _charged(task: Task, step: Step) -> Charged:
    call = task.env["call"]
    number = task.run.charges + 1
    return Charged(
        session=call["id"] if number == 1 else f"{call['id']}-{number}",
        call=call["id"],
        sip_call_id=call["sip_call_id"],
        account=str(task.value(step, "account")),
        destination=str(task.value(step, "destination", call["target"]["user"])),
        tenant=str(task.value(step, "tenant", "")),
        domain=call["domain"],
        type=step.args.get("type", "prepaid"),
        setup=call["started_at"],
    )


def _longest_call(task: Task, longest: float | None) -> float:
    """Seconds that a call may last for which the billing server has no limit."""
    most = min(task.run.longest_call(), inf if longest is None else longest)
    return UNLIMITED if most == inf else most
