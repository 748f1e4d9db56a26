"""A REGISTER being served: saved by the default or by a flow, answered once, then told to the world as events."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from orchestrator.errors import StepError
from orchestrator.events.event import Event
from orchestrator.sip.contact import Contact
from orchestrator.sip.location import Binding, Change
from orchestrator.sip.message import Request, build_response
from orchestrator.sip.reasons import reason_phrase
from orchestrator.sip.registrar import RegisterPolicy
from orchestrator.sip.server import ServerTransaction

if TYPE_CHECKING:
    from orchestrator.core.engine import Engine
    from orchestrator.core.views import RequestView
    from orchestrator.flow.run.run import Run


class Registration:
    """One REGISTER transaction."""

    __slots__ = ("engine", "request", "server", "source", "view", "run")

    def __init__(self, engine: Engine, request: Request, server: ServerTransaction, source: tuple[str, int]) -> None:
        self.engine = engine
        self.request = request
        self.server = server
        self.source = source
        server.user = self
        self.run: Run | None = None
        """Of the flow that serves it, if any."""
        self.view: RequestView = engine.views.request(request, source)

    @property
    def user(self) -> str | None:
        """Who the sender is, as far as flows know."""
        return self.view.user

    @user.setter
    def user(self, name: str | None) -> None:
        self.view.user = name

    @property
    def answered(self) -> bool:
        return self.server.answered

    @property
    def attended(self) -> bool:
        """A server transaction that is no INVITE has a deadline of its own."""
        return True

    def fail(self) -> None:
        """A bug has struck: 500."""
        self.server.fail()

    def save(self, policy: RegisterPolicy | None = None) -> None:
        """Change the bindings and answer; the events follow the answer. Raises StepError `call.state` when it is
        answered."""
        if self.answered:
            raise StepError("call.state", "the REGISTER is already answered")
        engine = self.engine
        answer = engine.registrar.register(self.request, self.source, engine.wall, policy or engine.settings.register)
        self.reply(answer.status, answer.reason, answer.headers)
        if answer.changes:
            announce(engine, answer.changes, self.source[0])

    def reply(self, code: int, reason: str = "", headers: tuple[bytes, ...] = ()) -> None:
        """Answer the REGISTER. Raises StepError `call.state` when it is answered."""
        if self.answered:
            raise StepError("call.state", "the REGISTER is already answered")
        tag = self.engine.network.tokens.token()
        if code >= 400 and not (code == 401 and b"authorization" not in self.request.names):  # the first challenge
            aor = self.engine.network.aor(self.request.to.parsed)
            self.engine.tell("register_refused", source=self.source[0], aor=aor, code=code, reason=reason)
        data = build_response(self.request, code, reason or reason_phrase(code), tag, headers)
        self.server.respond(code, data)


def announce(engine: Engine, changes: Iterable[Change], source_ip: str = "") -> None:
    """Publish what a REGISTER, or the passing of time, has changed."""
    bus, now = engine.bus, engine.timers.now
    engine.watch_expiry()
    for change in changes:
        binding = change.binding
        if change.kind == "added":
            engine.tell("registered", source=source_ip, aor=binding.aor, contact=binding.uri)
        elif not change.stands:
            engine.tell("unregistered", source=source_ip, aor=binding.aor, contact=binding.uri, reason=change.kind)
        if change.stands:
            if bus.hears("registered"):
                attributes = registered_attributes(binding, change.kind == "added", source_ip, engine.wall)
                bus.publish(Event("registered", attributes, time=now))
        elif bus.hears("unregistered"):
            gone = {"aor": binding.aor, "contact": Contact(binding), "reason": change.kind}
            bus.publish(Event("unregistered", gone, time=now))


def registered_attributes(binding: Binding, is_new: bool, source_ip: str, wall: float) -> dict[str, Any]:
    """The attributes of `registered` (FLOWLANG §4.4). `contact` is the URI without parameters, `uri` the whole of
    it; both lead to this binding where a flow makes a destination of them."""
    return {
        "aor": binding.aor,
        "contact": Contact(binding, short=True),
        "uri": Contact(binding),
        "expires": max(0, round(binding.expires_at - wall)),
        "user_agent": binding.user_agent,
        "source_ip": source_ip,
        "path": ", ".join(value.decode("utf-8", "replace") for value in binding.path) or None,
        "mobile": binding.mobile,
        "is_new": is_new,
        "instance": binding.instance,
    }
