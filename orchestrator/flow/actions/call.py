"""Actions on the SIP call: answer it, send it on, add and remove destinations, end it (FLOWLANG §4.3).

`relay` is the one that waits; all others are done when the step returns. The state of the call they may meet is
the checker's business (`effect`), and the host checks it once more before any SIP message is sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.errors import UNREACHABLE, StepError
from orchestrator.flow.language.evaluables import constant_of
from orchestrator.flow.language.places import Place
from orchestrator.flow.language.program import Evaluable, Step
from orchestrator.flow.language.registry import ACTIONS, Action, CallChange, Field, Kind
from orchestrator.flow.language.written import aor_flaw, number_flaw, party_flaw
from orchestrator.flow.run import effects
from orchestrator.flow.run.step_facts import (
    Injected,
    PlacingBegan,
    PlacingEnded,
    RelayBegan,
    RelayEnded,
    Replied,
    Stepped,
    Transferred,
)
from orchestrator.flow.run.task import Steps, Task

LEGS = ("caller", "callee", "both")
_LIST = (list, tuple)

RELAY_OUTCOMES = ("answered", "busy", "no_answer", "rejected", "unavailable", "failed", "cancelled")

REPLY = ACTIONS.add(
    Action(
        "reply",
        "Answer the SIP request with a status code; 1xx keeps it open.",
        short="code",
        fields=(
            Field("code", Kind.STATUS, "Status code, 100-699.", required=True),
            Field("reason", Kind.TEXT, "Reason phrase; the RFC's own when it is not given.", place=Place.REASON),
            Field("headers", Kind.MAP, "Header fields to add.", place=Place.HEADER),
        ),
        needs="request",
        effect=CallChange.REPLIES,
    )
)


@REPLY.performs
def reply(task: Task, step: Step) -> Steps:
    code = task.value(step, "code")
    reason = task.value(step, "reason", "")
    task.trace(step, Replied(code, reason))
    yield effects.Reply(code, reason, task.values(step, "headers"))


RELAY = ACTIONS.add(
    Action(
        "relay",
        "Send the call on. Waits until it is answered or has failed everywhere.",
        short="to",
        fields=(
            Field(
                "to", Kind.DESTINATION, "registered, original, a SIP URI, a list of them, or ${...}.", place=Place.URI
            ),
            Field("aor", Kind.TEXT, "Ring the contacts registered for this address: user@domain.", check=aor_flaw),
            Field("gateways", Kind.GATEWAYS, "Gateways to try, by name."),
            Field(
                "number",
                Kind.TEXT,
                "Number to call at the gateways instead of the dialled one.",
                check=number_flaw,
                place=Place.GATEWAY_USER,
            ),
            Field("mode", Kind.ENUM, "How several destinations are rung.", values=("parallel", "serial", "by_q")),
            Field("ring", Kind.DURATION, "How long all of it may ring."),
            Field("each", Kind.DURATION, "How long each destination may ring (serial)."),
            Field("keep_open", Kind.DURATION, "Wait that long for late branches, even with none at all."),
            Field("wake", Kind.DURATION, "Push phones that sleep, and wait that long for them to register."),
            Field(
                "failover_on",
                Kind.FAILOVER,
                "What makes the next gateway be tried: 408, 5xx, timeout.",
                values=("timeout",),
            ),
            Field("via", Kind.SERVER, "Anchor the media on this FreeSWITCH server."),
            Field("headers", Kind.MAP, "Header fields to add to every branch.", place=Place.HEADER),
            Field(
                "from",
                Kind.TEXT,
                "Calling party to show: user@host, a SIP URI, or 'Name <sip:user@host>'.",
                check=party_flaw,
                place=Place.PARTY,
            ),
        ),
        beside=(Field("on", Kind.OUTCOMES, "Steps for each outcome.", values=RELAY_OUTCOMES),),
        result="relay result",
        needs="relay",
        effect=CallChange.RELAYS,
        waits=True,
    )
)


@RELAY.asks
def relay(task: Task, step: Step) -> effects.Relay:
    """Waits for the outcome."""
    effect, began = step.made.get("relay") or _relay_effect(task, step)
    task.trace(step, began)
    return effect


@RELAY.gets
def relayed(task: Task, step: Step, result: Mapping[str, Any]) -> Steps:
    """Run the steps under `on:` for the outcome. `else` is any failure: never an answer."""
    outcome = result["outcome"]
    why = UNREACHABLE if result["reason"] == UNREACHABLE else ""
    task.trace(step, RelayEnded(outcome, result["code"], why))
    if outcome != "answered":
        task.run.failure = result
    if step.result is not None:
        task.env = task.env.bind(step.result, result)
    yield from on_outcome(task, step, "relay", result, None if outcome == "answered" else "else")
    return result


def on_outcome(task: Task, step: Step, name: str, result: Mapping[str, Any], otherwise: str | None) -> Steps:
    """Run the steps under `on:` for this outcome, or else those of `otherwise`, with the result as `name`."""
    outcomes = step.args.get("on", {})
    block = outcomes.get(result["outcome"], outcomes.get(otherwise))
    if block is not None:
        yield from task.scoped(block, {name: result})


def _relay_effect(task: Task, step: Step) -> tuple[effects.Relay, RelayBegan]:
    """What is asked for, and the line of the trace. Where all of it is written out they are the same for all calls."""
    to, registered, original = _destinations(task, step)
    effect = effects.Relay(
        to=to,
        registered=registered,
        original=original,
        aor=task.value(step, "aor", ""),
        gateways=step.args.get("gateways", ()),
        number=_number(task, step),
        mode=step.args.get("mode", "parallel"),
        ring=task.value(step, "ring", task.run.program.resources.defaults.get("ring")),
        each=task.value(step, "each"),
        keep_open=task.value(step, "keep_open"),
        wake=task.value(step, "wake"),
        failover_on=step.args.get("failover_on", ()),
        via=step.args.get("via", ""),
        headers=task.values(step, "headers"),
        from_=task.value(step, "from", ""),
    )
    began = RelayBegan(_target(effect), effect.keep_open, effect.via, effect.wake)
    if effect.wake is None and all(constant_of(value) is not None for value in _evaluated(step)):
        step.made["relay"] = effect, began
    return effect, began


def _evaluated(step: Step) -> Iterator[Evaluable]:
    """The values under the keys of a step that are worked out when it runs."""
    for name, value in step.args.items():
        if name == "headers":
            yield from value.values()
        elif name not in ("gateways", "mode", "failover_on", "via", "on"):
            yield value


def _number(task: Task, step: Step) -> str:
    """`number:`, '' where it is not given. Raises StepError when it is given and empty."""
    number = str(task.value(step, "number", ""))
    if not number and "number" in step.args:
        raise StepError("call.state", "relay: number is empty")
    return number


def _destinations(task: Task, step: Step) -> tuple[tuple[Any, ...], bool, bool]:
    """`to:` as (URIs or contacts, registered, original)."""
    to = task.value(step, "to", ())
    if to in ("registered", "original"):
        return (), to == "registered", to == "original"
    return (tuple(to) if isinstance(to, _LIST) else (to,)), False, False


def _target(effect: effects.Relay) -> str:
    if effect.registered or effect.original:
        return "registered" if effect.registered else "original"
    return effect.aor or ", ".join(effect.gateways) or f"{len(effect.to)} destination(s)"


INJECT = ACTIONS.add(
    Action(
        "inject",
        "Add a destination to this call while it is still ringing.",
        short="to",
        fields=(
            Field("to", Kind.DESTINATION, "A SIP URI, a list of them, or ${...}.", place=Place.URI),
            Field("aor", Kind.TEXT, "Ring the contacts registered for this address: user@domain.", check=aor_flaw),
            Field(
                "cancel_others",
                Kind.BOOLEAN,
                "Cancel the other branches: when_ringing (or true), once the new one rings or answers; when_sent, once "
                "it is on its way.",
                values=("when_ringing", "when_sent"),
            ),
            Field("last", Kind.BOOLEAN, "No further branch is awaited: ends keep_open."),
            Field("ring", Kind.DURATION, "How long the new branch may ring."),
            Field("headers", Kind.MAP, "Header fields to add to the new branch.", place=Place.HEADER),
        ),
        result="inject result",
        needs="call",
    )
)


@INJECT.performs
def inject(task: Task, step: Step) -> Steps:
    to, _, _ = _destinations(task, step)
    result: Mapping[str, Any] = yield effects.Inject(
        to=to,
        aor=task.value(step, "aor", ""),
        cancel_others=task.value(step, "cancel_others", False),
        last=task.value(step, "last", False),
        ring=task.value(step, "ring"),
        headers=task.values(step, "headers"),
    )
    task.trace(step, Injected(result["added"], result["reason"]))
    return result


CANCEL = ACTIONS.add(
    Action(
        "cancel",
        "Stop ringing branches of this call.",
        short="branches",
        fields=(Field("branches", Kind.LIST, "all, or the branches by their name or contact.", required=True),),
        needs="call",
    )
)


@CANCEL.performs
def cancel(task: Task, step: Step) -> Steps:
    branches = tuple(task.value(step, "branches"))
    task.trace(step, Stepped("cancel", ", ".join(branches)))
    yield effects.Cancel(branches)


HANGUP = ACTIONS.add(
    Action(
        "hangup",
        "End the call (CANCEL, BYE or a final reply, whatever fits).",
        short="reason",
        fields=(
            Field("reason", Kind.TEXT, "Why, for the Reason header field and the trace.", place=Place.REASON),
            Field("code", Kind.STATUS, "Status code when the call is not answered yet."),
            Field("leg", Kind.ENUM, "The leg to end.", values=LEGS),
        ),
        needs="call",
        effect=CallChange.ENDS_CALL,
    )
)


@HANGUP.performs
def hangup(task: Task, step: Step) -> Steps:
    reason = task.value(step, "reason", "")
    task.trace(step, Stepped("hangup", reason))
    yield effects.Hangup(reason, task.value(step, "code"), step.args.get("leg", "both"))


ORIGINATE = ACTIONS.add(
    Action(
        "originate",
        "Place an outbound call and run under it.",
        short="to",
        fields=(
            Field("to", Kind.TEXT, "A SIP URI, or a number when gateway: is given.", required=True, place=Place.URI),
            Field("gateway", Kind.GATEWAYS, "Gateway to place the call through."),
            Field(
                "from",
                Kind.TEXT,
                "Calling party to show: user@host, a SIP URI, or 'Name <sip:user@host>'.",
                check=party_flaw,
                place=Place.PARTY,
            ),
            Field("ring", Kind.DURATION, "How long it may ring."),
            Field("via", Kind.SERVER, "FreeSWITCH server that places the call; default that with least to do."),
            Field("vars", Kind.MAP, "FreeSWITCH channel variables to set.", place=Place.VARIABLE),
        ),
        result="relay result",
        provides="call",
        waits=True,
    )
)


@ORIGINATE.performs
def originate(task: Task, step: Step) -> Steps:
    """From here on the run, and the names of this task, have a `call`: the one that was placed."""
    gateways = step.args.get("gateway", ())
    effect = effects.Originate(
        to=task.value(step, "to"),
        gateways=(gateways,) if isinstance(gateways, str) else gateways,
        from_=task.value(step, "from", ""),
        ring=task.value(step, "ring", task.run.program.resources.defaults.get("ring")),
        via=step.args.get("via", ""),
        vars=task.values(step, "vars"),
    )
    task.trace(step, PlacingBegan(effect.to))
    result: Mapping[str, Any] = yield effect
    task.trace(step, PlacingEnded(result["outcome"], result["code"]))
    if task.run.call is not None:
        task.env = task.env.bind("call", task.run.call)
    return result


TRANSFER = ACTIONS.add(
    Action(
        "transfer",
        "Send the (answered) call to another destination; hangs up the old peer. In a flow on: refer: carry out the "
        "transfer that was asked for.",
        short="to",
        fields=(
            Field("to", Kind.DESTINATION, "A SIP URI, or ${...}.", required=True, place=Place.URI),
            Field("leg", Kind.ENUM, "The leg that is sent on.", values=LEGS),
            Field(
                "context",
                Kind.TEXT,
                "FreeSWITCH dialplan context that takes the leg, instead of us.",
                place=Place.CONTEXT,
            ),
        ),
        needs="transfer",
        waits=True,
    )
)


@TRANSFER.performs
def transfer(task: Task, step: Step) -> Steps:
    """Waits until the new destination has answered; a leg given to a `context` of FreeSWITCH is no longer ours."""
    to = task.value(step, "to")
    uri = str(to["uri"] if isinstance(to, Mapping) else to)
    leg = step.args.get("leg", "caller")
    task.trace(step, Transferred(leg, uri))
    yield effects.Transfer(uri, leg, task.value(step, "context", ""))
    task.run.passed_on = True
