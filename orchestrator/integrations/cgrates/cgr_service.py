"""The service `cgrates`: does what `charge` asks for, and what CGRateS asks of its clients.

CGRateS calls back on the connection: by the names of its protocol below 2.0 (`SessionSv1.*`, and `SMGClientV1.*` before
that) or from 2.0 (`AgentV1.*`); all are answered, so nothing has to be configured for that.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Mapping
from math import inf
from time import monotonic
from typing import Annotated, Any, Literal

from gevent.event import Event
from pydantic import BaseModel, ConfigDict, Field, PlainValidator

from orchestrator.errors import StepError
from orchestrator.flow.run.charging import Alter, Authorise, ChargedCall, Disconnect, LowBalance, Report
from orchestrator.integrations.cgrates.cgr_link import Done, Link, NotAnswered, NotSent, Refused
from orchestrator.integrations.cgrates.charges import SYNC, Speaker, max_usage, session_of, usage_of
from orchestrator.packages.service import ServerContext, Service
from orchestrator.packages.setting_types import Duration, InvalidValue

PORT = 2014
"""Of CGRateS' bidirectional JSON-RPC: callbacks come on this one only (2012 has none)."""
LAST_LIMIT = 60.0
"""Seconds that the end of a session may take: nobody waits for it, and asking twice may charge twice."""
SYNC_LIMIT = 10.0
"""Seconds that the sync after the start may take."""
SAME_AGAIN = 10.0
"""Seconds in which the same warning of a session, or the same word that it ends, is taken once."""


def parse_engine(value: Any) -> tuple[str, int]:
    """`tcp://host:port`, the port being 2014 where there is none."""
    text = str(value)
    scheme, separator, rest = text.partition("://")
    host, _, port = rest.rpartition(":") if rest.rpartition(":")[2].isdigit() else (rest, "", str(PORT))
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not separator or scheme != "tcp" or not host or "/" in rest or not 0 < int(port) < 65_536:
        raise InvalidValue(f"{text!r} is not the address of a CGRateS", f"write tcp://127.0.0.1:{PORT}")
    return host, int(port)


def parse_engines(value: Any) -> tuple[tuple[str, int], ...]:
    items = value if isinstance(value, list | tuple) else [value]
    if not items:
        raise InvalidValue("address is empty", f"write tcp://127.0.0.1:{PORT}")
    return tuple(item if isinstance(item, tuple) else parse_engine(item) for item in items)


class CgratesSettings(BaseModel):
    """`services: {cgrates: …}`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: Annotated[tuple[tuple[str, int], ...], PlainValidator(parse_engines)] = (("127.0.0.1", PORT),)
    """`tcp://host:port`, or a list of them: the first one that takes a connection is used."""
    tenant: str = ""
    """For calls whose flow names none; the domain that was called unless given."""
    origin_host: str = Field(default_factory=socket.gethostname)
    """`OriginHost`: the name of this node, the same after a restart."""
    on_down: Literal["refuse", "allow"] = "refuse"
    """What becomes of calls while CGRateS does not answer."""
    timeout: Duration = 2.0
    """Seconds to wait for an answer that a call waits for."""
    update: Duration | None = None
    """Seconds of usage to ask for at a time; null has CGRateS debit by its own debit_interval."""
    sync: bool = True
    """After the start, have CGRateS end the sessions that no client has any more."""
    fields: Mapping[str, str] = Field(default_factory=dict)
    """Put into each event, for example {Category: call}."""
    options: Mapping[str, str] = Field(default_factory=dict)
    """`APIOpts` of each request."""
    flags: tuple[str, ...] = ()
    """Set when a session is authorised and opened, for example [ProcessThresholds]."""


class Gate:
    """Work that waits until something of the start is over."""

    def __init__(self, server: ServerContext, wait: Callable[[], object]) -> None:
        self._server = server
        self._wait = wait
        self._work: list[Callable[[], None]] = []

    def enter(self, work: Callable[[], None]) -> None:
        """Have it done as soon as `wait` returns; one greenlet waits for all."""
        self._work.append(work)
        if len(self._work) == 1:
            self._server.spawn(self._open)

    def _open(self) -> None:
        self._wait()
        waiting, self._work = self._work, []
        for work in waiting:
            work()


class Cgrates:
    """The service."""

    def __init__(self, server: ServerContext, settings: CgratesSettings) -> None:
        self.active: dict[str, str] = {}
        """Sessions that are open, or may be → the id of their call."""
        self.outcomes: Counter[tuple[str, str]] = Counter()
        """(what was asked, what became of it)."""
        self._heard: dict[tuple[str, type], float] = {}
        """Session and what was told of it → when, for what need not be told twice."""
        self.callbacks: Counter[str] = Counter()
        self._server = server
        self._settings = settings
        self._speaker = Speaker(
            settings.origin_host, settings.tenant, settings.fields, settings.options, settings.flags
        )
        self._synced = Event()
        """No sync is under way: a session that is opened meanwhile might be taken for one that nobody has."""
        self._sync_asked = not settings.sync
        if self._sync_asked:
            self._synced.set()
        self.link = Link(settings.address, self._called, self._changed)
        self._first = Gate(server, lambda: self.link.begun(settings.timeout))
        self._sync_over = Gate(server, lambda: self._synced.wait(settings.timeout))
        server.begin(Authorise, self.authorise)
        server.begin(Report, self.report)
        server.health(self._complaint)
        server.counter("requests", "Requests to CGRateS.", lambda: self.outcomes, ("request", "outcome"))
        server.counter("callbacks", "Requests of CGRateS.", lambda: self.callbacks, ("method",))
        server.counter("connection_events", "Of the connection.", lambda: self.link.counts, ("event",))
        server.gauge("sessions", "Sessions that are open.", lambda: len(self.active))
        server.gauge("waiting", "Requests without an answer.", lambda: self.link.waiting)
        server.gauge("up", "1 when CGRateS is connected and answers.", lambda: int(not self._complaint()))

    def start(self) -> None:
        self._server.spawn(self.link.run)

    def stop(self) -> None:
        """The connection ends with its greenlet."""

    # --- what charge asks for -----------------------------------------------------------------------------------------

    def authorise(self, effect: Authorise, done: Done) -> None:
        """Ends in StepError `charge.refused`, `charge.down`."""
        settings, link = self._settings, self.link
        limit = settings.timeout if effect.limit is None else min(settings.timeout, effect.limit)
        method, asked = self._speaker.authorise(effect)

        def ended(result: Any) -> None:
            if not isinstance(result, StepError):
                done({"max_usage": result, "portion": settings.update})
            elif self._allows(result):
                done({"max_usage": None, "portion": settings.update, "reason": result.message})
            else:
                done(result)

        if link.tried:
            self._ask("authorise", method, asked, limit, ended)
        else:
            self._first.enter(lambda: self._ask("authorise", method, asked, limit, ended))

    def report(self, effect: Report, done: Done) -> None:
        """Ends in StepError `charge.refused`, `charge.down`."""
        what, session = effect.what, effect.charged.session
        if what == "drop":
            self._forget(session)
            done({})
        elif what == "open" and self.link.up and not self._synced.is_set():
            self._sync_over.enter(lambda: self._report(effect, done))
        else:
            self._report(effect, done)

    def _report(self, effect: Report, done: Done) -> None:
        what, session = effect.what, effect.charged.session
        if what == "open":
            self.active[session] = effect.charged.call
        method, asked = self._speaker.report(effect)

        def ended(result: Any) -> None:
            if isinstance(result, StepError):
                refused = result.type == "charge.refused"
                closed = refused or (what == "open" and result.data.get("sent") is False)
                if what in ("open", "close") and closed:
                    self._forget(session)
                allowed = what in ("open", "update") and self._allows(result)
                done({"max_usage": None} if allowed else result)
                return
            if what == "close":
                self._forget(session)
            done({"max_usage": result})

        limit = self._settings.timeout if what in ("open", "update") else LAST_LIMIT
        self._ask(what, method, asked, limit, ended)

    def _forget(self, session: str) -> None:
        self.active.pop(session, None)
        for kind in (Disconnect, LowBalance):
            self._heard.pop((session, kind), None)

    def _allows(self, error: StepError) -> bool:
        return error.type == "charge.down" and self._settings.on_down == "allow"

    def _ask(self, what: str, method: str, asked: Mapping[str, Any], limit: float, done: Done) -> None:
        """`done` is given the usage that is granted, or a StepError."""

        def ended(result: Any) -> None:
            outcome, usage = _judged(method, result)
            self.outcomes[what, outcome] += 1
            done(usage)

        self.link.begin(method, asked, limit, ended)

    # --- what CGRateS asks for ----------------------------------------------------------------------------------------

    def _called(self, method: str, params: Any) -> tuple[Any, str | None]:
        """Result and error of a callback. Its greenlet reads the connection: nothing here waits."""
        service, _, name = method.rpartition(".")
        act = _CALLBACKS.get(name) if service in ("SessionSv1", "AgentV1", "SMGClientV1") else None
        self.callbacks[method if act is not None else "other"] += 1
        return (None, "NOT_IMPLEMENTED") if act is None else act(self, params)

    def _sessions(self, _: Any) -> tuple[Any, str | None]:
        return [self._speaker.active(session) for session in self.active], None

    def _disconnect(self, params: Any) -> tuple[Any, str | None]:
        return self._tell(params, lambda session, event: Disconnect(session, _reason(event)))

    def _warn(self, params: Any) -> tuple[Any, str | None]:
        return self._tell(params, lambda session, event: LowBalance(session))

    def _alter(self, params: Any) -> tuple[Any, str | None]:
        def made(session: str, event: Mapping[str, Any]) -> Alter:
            usage = event.get("MaxUsage")
            if usage is None:
                return Alter(session, None)
            seconds = usage_of(usage)
            return Alter(session, inf if seconds < 0 else seconds)

        try:
            return self._tell(params, made)
        except ValueError as error:
            return None, str(error)

    def _leave(self, _: Any) -> tuple[Any, str | None]:
        """The server is about to stop: another one, or this one later."""
        self.link.close()
        return "OK", None

    def _tell(self, params: Any, made: Callable[[str, Mapping[str, Any]], Any]) -> tuple[Any, str | None]:
        session, event = session_of(params)
        call = self.active.get(session)
        if call is None:
            return None, "NOT_FOUND"
        message = made(session, event)
        once = (session, type(message)) if isinstance(message, Disconnect | LowBalance) else None
        if once is not None and monotonic() - self._heard.get(once, -inf) < SAME_AGAIN:
            self.callbacks["repeated"] += 1
            return "OK", None
        if not self._server.tell_work(call, ChargedCall, message):
            return None, "SERVER_ERROR: no room"
        if once is not None:
            self._heard[once] = monotonic()
        return "OK", None

    # --- the connection -----------------------------------------------------------------------------------------------

    def _changed(self, up: bool, what: str) -> None:
        if up:
            self._server.log("info", "cgrates_up", address=what)
            if not self._sync_asked:
                self._sync_asked = True
                self._server.spawn(self._sync)
        else:
            self._server.log("warning", "cgrates_down", reason=what)

    def _sync(self) -> None:
        """What the node had before it was killed is nobody's now."""
        try:
            self.link.ask(SYNC, {}, SYNC_LIMIT)
        except (NotSent, NotAnswered, Refused) as error:
            self._server.log("warning", "cgrates_sync_failed", reason=str(error))
        finally:
            self._synced.set()

    def _complaint(self) -> str:
        if not self.link.up:
            return "CGRateS is not connected"
        return "CGRateS does not answer" if self.link.silent else ""


_CALLBACKS: Mapping[str, Callable[[Cgrates, Any], tuple[Any, str | None]]] = {
    "DisconnectSession": Cgrates._disconnect,
    "GetActiveSessionIDs": Cgrates._sessions,
    "AlterSession": Cgrates._alter,
    "DisconnectPeer": Cgrates._leave,
    "WarnDisconnect": Cgrates._warn,
}


def _judged(method: str, result: Any) -> tuple[str, float | StepError | None]:
    """What became of a request, in a word, and the usage that it grants or the error of its step."""
    if isinstance(result, Refused):
        return "refused", StepError("charge.refused", str(result))
    if isinstance(result, NotSent):
        return "unsent", StepError("charge.down", str(result), {"sent": False})
    if isinstance(result, NotAnswered):
        return "unanswered", StepError("charge.down", str(result))
    try:
        return "granted", max_usage(method, result)
    except ValueError as error:
        return "unreadable", StepError("charge.down", f"the answer of CGRateS cannot be read: {error}")


def _reason(event: Mapping[str, Any]) -> str:
    """Below protocol 2.0 `Reason`, from 2.0 `DisconnectCause`."""
    return str(event.get("Reason") or event.get("DisconnectCause") or "disconnected by CGRateS")[:200]


SERVICE = Service("cgrates", "Authorises and bills calls with CGRateS, for charge:.", Cgrates, CgratesSettings)
