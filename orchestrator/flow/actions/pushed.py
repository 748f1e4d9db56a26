"""The action `push`: wake the phones of an address (RFC 8599), or tell them something (FLOWLANG §4.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.flow.language.program import Step
from orchestrator.flow.language.registry import ACTIONS, Action, Field, Kind
from orchestrator.flow.language.written import aor_flaw
from orchestrator.flow.run import effects
from orchestrator.flow.run.step_facts import PushBegan, PushDone
from orchestrator.flow.run.task import Steps, Task

PUSH = ACTIONS.add(
    Action(
        "push",
        "Send a push to the phones of an address that sleep. Waits until the push services have answered.",
        short="to",
        fields=(
            Field("to", Kind.TEXT, "The address: user@domain.", required=True, check=aor_flaw),
            Field("for", Kind.DURATION, "How long phones may take to wake up, default push: wake: or 20s."),
            Field("ttl", Kind.DURATION, "How long the push service may keep the push, default as for:."),
            Field(
                "kind",
                Kind.ENUM,
                "What it is for; default what the flow runs on.",
                values=("call", "message", "request"),
            ),
            Field("data", Kind.MAP, "What the app is told besides call, from and display_name."),
            Field("services", Kind.MAP, "Keys for one kind of push service: {apns: {…}}."),
        ),
        result="push result",
        in_on_end=True,
        waits=True,
    )
)


@PUSH.performs
def push(task: Task, step: Step) -> Steps:
    to = task.value(step, "to")
    task.trace(step, PushBegan(to))
    result: Mapping[str, Any] = yield effects.PushTo(
        aor=to,
        ttl=task.value(step, "ttl", task.value(step, "for")),
        kind=step.args.get("kind", ""),
        data=task.values(step, "data"),
        services=task.values(step, "services"),
    )
    task.trace(step, PushDone(result["sent"], result["failed"], result["dead"]))
    return result
