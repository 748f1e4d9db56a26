"""Actions on registrations: check who asks, save a contact, read the contacts of an address (FLOWLANG §4.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.flow.language.places import Place
from orchestrator.flow.language.program import Step, Where
from orchestrator.flow.language.registry import ACTIONS, Action, CallChange, Field, Kind
from orchestrator.flow.language.written import aor_flaw
from orchestrator.flow.run import effects
from orchestrator.flow.run.signals import Refused
from orchestrator.flow.run.step_facts import AuthDone, ContactsSaved, LookedUp
from orchestrator.flow.run.task import Steps, Task

AUTH = ACTIONS.add(
    Action(
        "auth",
        "Check digest credentials; challenges and ends the flow when they are missing or wrong.",
        short="realm",
        fields=(
            Field("realm", Kind.TEXT, "Digest realm.", required=True, place=Place.REASON),
            Field("users", Kind.USERS, "User table, by name; default the only one."),
            Field("trust", Kind.LIST, "Addresses and networks that need no credentials.", place=Place.TRUST),
        ),
        beside=(Field("on_fail", Kind.STEPS, "Steps after wrong credentials; the reply is out already."),),
        result="auth result",
        needs="request",
        waits=True,
    )
)


@AUTH.performs
def auth(task: Task, step: Step) -> Steps:
    """Who cannot say who he is gets his answer from the host; the flow ends here then, after `on_fail` for wrong
    credentials."""
    effect = effects.Authenticate(
        realm=task.value(step, "realm"),
        users=step.args.get("users") or next(iter(task.run.program.resources.users)),
        trust=tuple(task.value(step, "trust", ())),
    )
    found: Mapping[str, Any] = yield effect
    verdict = found["verdict"]
    if verdict == "passed":
        task.trace(step, AuthDone(verdict, found["user"], found["trusted"]))
        return {"user": found["user"], "realm": found["realm"], "trusted": found["trusted"]}
    task.trace(step, AuthDone(verdict))
    if verdict == "failed":
        yield from task.walk(step.args.get("on_fail", ()))
    raise Refused


REGISTER = ACTIONS.add(
    Action(
        "register",
        "Save the contact of this REGISTER and answer 200.",
        short="max_expires",
        fields=(
            Field("max_expires", Kind.DURATION, "Longest registration; asked for more, this is granted."),
            Field("min_expires", Kind.DURATION, "Shortest registration; asked for less, the answer is 423."),
            Field("max_contacts", Kind.NUMBER, "Most contacts of one address."),
            Field("extra", Kind.MAP, "Values to keep with the contact; lookup gives them back as contact.extra."),
        ),
        needs="register",
        effect=CallChange.REPLIES,
    )
)


@REGISTER.performs
def register(task: Task, step: Step) -> Steps:
    task.trace(step, ContactsSaved())
    yield effects.SaveContact(
        min_expires=task.value(step, "min_expires"),
        max_expires=task.value(step, "max_expires"),
        max_contacts=task.value(step, "max_contacts"),
        extra=task.values(step, "extra"),
    )


LOOKUP = ACTIONS.add(
    Action(
        "lookup",
        "Read the registered contacts of an address.",
        short="aor",
        fields=(Field("aor", Kind.TEXT, "The address: user@domain.", required=True, check=aor_flaw),),
        beside=(Field("where", Kind.WHERE, "Which contacts: attributes to match, or a condition over contact."),),
        result="contacts",
        in_on_end=True,
    )
)


@LOOKUP.performs
def lookup(task: Task, step: Step) -> Steps:
    aor = task.value(step, "aor")
    contacts: list[Mapping[str, Any]] = yield effects.Lookup(aor)
    where: Where | None = step.args.get("where")
    if where is not None:
        equals = {name: value.evaluate(task.env) for name, value in where.equals.items()}
        contacts = [contact for contact in contacts if _fits(task, where, equals, contact)]
    task.trace(step, LookedUp(aor, len(contacts)))
    return contacts


def _fits(task: Task, where: Where, equals: Mapping[str, Any], contact: Mapping[str, Any]) -> bool:
    if any(contact[name] != value for name, value in equals.items()):
        return False
    return where.rest is None or where.rest.evaluate(task.env.bind("contact", contact)) is True
