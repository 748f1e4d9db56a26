"""What is outside of a story, where its jobs go: web services, push services, FreeSWITCH commands, effects of
packages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from orchestrator.core.jobs import FindUser, Job, Resolve, Write
from orchestrator.errors import StepError
from orchestrator.flow.run.charging import Authorise, Report
from orchestrator.flow.run.effects import EslCommand, EslExecute, Http
from orchestrator.flow.run.traits import PoolEffect
from orchestrator.sip.push import Push, Pushed
from orchestrator.testing.billing import Billing
from orchestrator.testing.facts import EffectRule, EslRule, HttpRule, PushRule, Seen, fields_of
from orchestrator.testing.switch.channel import Told
from orchestrator.testing.switch.server import VirtualFreeSwitch, result_of
from orchestrator.testing.world import World, perform_write


class Outside:
    """Answers the jobs of a world by the rules of a test, and puts what was asked for into `seen`."""

    def __init__(
        self,
        world: World,
        switches: Mapping[str, VirtualFreeSwitch],
        seen: list[Seen],
        http: Iterable[HttpRule],
        esl: Iterable[EslRule],
        effects: Iterable[EffectRule],
        push: Iterable[PushRule],
        wake: Callable[[Push, str], None],
        billing: Billing | None = None,
    ) -> None:
        """`wake` has the phone that was pushed to register, from this contact or ('') its own."""
        self.http, self.esl, self.effects, self.push = list(http), list(esl), list(effects), list(push)
        self.billing = billing
        self.unanswered: list[str] = []
        """Requests to web services that no rule fits."""
        self.unperformed: list[str] = []
        """Effects of packages that no rule fits."""
        self._world = world
        self._switches = switches
        self._seen = seen
        self._wake = wake

    def answer(self, job: Job) -> Any:
        """The result of a job, or `World.LATER`."""
        effect, now = job.effect, self._world.now
        if isinstance(effect, Http):
            self._seen.append(Seen(now, "http", "http", effect.method, effect.url, effect))
            return self._answer_http(job, effect)
        if isinstance(effect, Push):
            self._seen.append(Seen(now, "push", "push", effect.kind, effect.aor, effect, effect.call))
            return self._answer_push(job, effect)
        if isinstance(effect, Authorise | Report) and self.billing is not None and self._rule_for(effect) is None:
            return self._charge(job, effect, self.billing)
        if isinstance(effect, PoolEffect):
            return self._perform_effect(job, effect)
        if isinstance(effect, Resolve):
            return None
        if isinstance(effect, EslCommand):
            self._seen.append(Seen(now, "esl", "esl", effect.kind, effect.command, effect))
            return self._ask_freeswitch(job, effect, effect.command)
        if isinstance(effect, Write):
            return perform_write(effect)
        if isinstance(effect, FindUser):
            return StepError("auth.down", f"a test asks no database: give it the users of {effect.table!r}")
        command = f"{effect.app} {effect.args}".strip()
        self._seen.append(Seen(now, "esl", "esl", "execute", command, effect))
        return self._ask_freeswitch(job, effect, command)

    def _ask_freeswitch(self, job: Job, effect: EslCommand | EslExecute, command: str) -> Any:
        """What the test says, else what it would do."""
        switch = self._switches.get(effect.server)
        if switch is None:
            return StepError("esl.down", f"there is no FreeSWITCH server {effect.server!r}")
        rule = next((rule for rule in self.esl if rule.fits(command)), None)
        if rule is None:
            return switch.perform(job)
        if isinstance(effect, EslCommand):
            return result_of("+OK" if rule.reply is None else rule.reply)
        return switch.perform(job, Told(rule.reply or "", rule.variables))

    def _answer_http(self, job: Job, effect: Http) -> Any:
        rules = (rule for rule in self.http if fnmatchcase(effect.url, rule.url))
        rule = next((rule for rule in rules if fnmatchcase(effect.method, rule.method)), None)
        if rule is None:
            self.unanswered.append(f"{effect.method} {effect.url}")
            return StepError("http.connect", f"no http: rule of the test fits {effect.method} {effect.url}")
        answer, delay = rule.answer(effect), rule.delay
        if rule.error == "timeout" or delay > effect.timeout:  # the client gives up by its own clock
            answer, delay = StepError("http.timeout", "timeout (as the test says)"), effect.timeout
        return self._answer_later(job, answer, delay)

    def _answer_push(self, job: Job, push: Push) -> Any:
        """What the push service says, and what the phone does."""
        rule = next((rule for rule in self.push if rule.fits(push)), PushRule())
        if rule.delay > push.ttl:  # its supervisor gives up
            return self._answer_later(job, Pushed("failed", "timeout (as the test says)"), push.ttl)
        if rule.outcome == "sent" and rule.wakes is not None and push.kind != "cancel":
            due = self._world.now + rule.delay + rule.wakes
            self._world.call_at(due, lambda: self._wake(push, rule.contact))
        return self._answer_later(job, rule.answer(), rule.delay)

    def _rule_for(self, effect: PoolEffect) -> EffectRule | None:
        return next((rule for rule in self.effects if rule.fits(effect)), None)

    def _charge(self, job: Job, effect: Authorise | Report, billing: Billing) -> Any:
        what = "authorise" if isinstance(effect, Authorise) else effect.what
        self._seen.append(Seen(self._world.now, "cgrates", "cgrates", what, effect.charged.account, effect))
        return self._answer_later(job, billing.answer(effect), billing.delay_of(effect))

    def _perform_effect(self, job: Job, effect: PoolEffect) -> Any:
        """What the test says becomes of an effect of a package."""
        about = " ".join(f"{name}={value!r}" for name, value in fields_of(effect).items())
        self._seen.append(Seen(self._world.now, "effect", "effect", effect.name, about, effect))
        rule = self._rule_for(effect)
        if rule is None:
            self.unperformed.append(f"{effect.name} {about}".rstrip())
            return StepError(f"{effect.name}.failed", f"no effects: rule of the test fits {effect.name}")
        if rule.delay > effect.timeout:  # its pool breaks it off
            return self._answer_later(job, StepError(f"{effect.name}.timeout", "no result in time"), effect.timeout)
        return self._answer_later(job, rule.answer(), rule.delay)

    def _answer_later(self, job: Job, answer: Any, delay: float) -> Any:
        if not delay:
            return answer
        world = self._world
        world.call_at(world.now + delay, lambda: world.engine.complete(job.id, answer, world.now))
        return World.LATER
