"""What an operator may do to a running server, for the API and the console: each is one turn of the engine, or work of
the server around it. What cannot be done is a `Problem`.

A turn is awaited for a moment only: a server that does not come to it says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from gevent import Timeout
from gevent.event import AsyncResult
from loguru import logger

from orchestrator.api.problems import Problem, unknown
from orchestrator.core.engine import Engine
from orchestrator.errors import InputError, MalformedMessage, OrchestratorError, SipError
from orchestrator.events.received import NoRoom, NoSuchCall, NoSuchEvent, Received
from orchestrator.history import BY_OPERATOR
from orchestrator.runtime.incoming import Incoming
from orchestrator.runtime.pushes import Busy, HandPushes, NobodyRegistered, WrongPush
from orchestrator.sip.binding import Binding, Change
from orchestrator.sip.grammar import unescape
from orchestrator.sip.server import ServerTransaction
from orchestrator.sip.uri import parse_uri
from orchestrator.views.call_list import call_details, find_call
from orchestrator.views.gateway_list import gateways
from orchestrator.views.registration_list import contact_id, registration

PATIENCE: Final = 10.0
"""Seconds for a turn to come, and for the location store to write."""
EXPIRES, LONGEST = 3600, 10 * 365 * 86_400
"""Seconds a contact stays registered unless asked otherwise, and at most."""
LEVELS: Final = ("debug", "info", "warning", "error")
_MOST_CONTACT: Final = 1000
"""Characters of an address of record, octets of a contact."""

Turn = Callable[..., None]
"""`turn(receive, …)` has `receive(…, now)` done in a turn of the reactor."""


class ReloadOutcome(Protocol):
    """What a reload has put in force."""

    @property
    def flows(self) -> int: ...
    @property
    def version(self) -> str: ...
    @property
    def restart_needed(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True)
class Operations:
    """What the server around an engine does. `reload` raises OrchestratorError."""

    reload: Callable[[], ReloadOutcome]
    level: Callable[[], str]
    set_level: Callable[[str], None]
    stopping: Callable[[], bool]
    """Somebody has told the process to end."""


class Actions:
    """Those of one server."""

    def __init__(
        self, engine: Engine, turn: Turn, incoming: Incoming, pushes: HandPushes, operations: Operations
    ) -> None:
        self.engine = engine
        self.pushes = pushes
        self.incoming = incoming
        self._operations = operations
        self._turn = turn

    def _do(self, act: Callable[[float], Any]) -> Any:
        """Do it in a turn and return what it returns, or raise what it raises. Raises Problem."""
        done: AsyncResult[Any] = AsyncResult()

        def turn(now: float) -> None:
            self.engine.run_timers(now)
            try:
                done.set(act(now))
            except Problem as problem:
                done.set(problem)
            finally:
                if not done.ready():
                    done.set(Problem(500, "fault", "a bug", "this has failed, and the log says more"))

        self._turn(turn)
        return _result(done)

    # --- calls --------------------------------------------------------------------------------------------------------

    def hang_up(self, id: str, reason: str = "") -> dict[str, Any]:
        """End a call: BYE where it is answered, 480 (487 without a flow) where it rings. Returns what it was."""

        def act(now: float) -> dict[str, Any]:
            call = find_call(self.engine, id)
            if call is None:
                raise unknown("call", id, "GET /api/v1/calls lists those that live")
            told = call_details(self.engine, call, now)
            if isinstance(call, ServerTransaction):
                call.user.cancel()
            else:
                call.hangup(reason or BY_OPERATOR, None)
            return told

        return dict(self._do(act))

    # --- registrations ------------------------------------------------------------------------------------------------

    def remove_registration(self, aor: str, contact: str = "") -> dict[str, Any]:
        """Take out the contacts of an address of record, or the one with this URI or id. Returns what is left."""
        aor = self.engine.network.home_aor(aor)

        def meant(binding: Binding) -> bool:
            return contact in ("", binding.uri, binding.shown, contact_id(binding))

        changes = self._write(lambda done: self.engine.registrations.remove(aor, meant, done))
        if not changes:
            what = f"{contact} of {aor}" if contact else aor
            raise unknown("registration", what, "GET /api/v1/registrations lists those that are there")
        return registration(self.engine, aor, self.engine.now)

    def add_registration(self, aor: str, contact: str, expires: float = EXPIRES, q: float = 1.0) -> dict[str, Any]:
        """Register a contact for so many seconds. Returns all that are there."""
        user, at, host = aor.removeprefix("sip:").rpartition("@")
        if (
            not (user and at and host)
            or len(aor) > _MOST_CONTACT
            or not aor.isprintable()
            or any(c in aor for c in ' <>"')
        ):
            raise Problem(400, "body.invalid", "no address of record", f"{aor[:100]!r}: write bob@example.com")
        aor = self.engine.network.home_aor(f"{user}@{host.lower()}")
        octets = _contact(contact)
        wall = self.engine.wall
        binding = Binding(
            aor=aor,
            contact=octets,
            expires_at=wall + expires,
            q=q,
            call_id=b"operator-" + self.engine.tokens.token(),
            cseq=1,
            transport=_transport(octets),
            registered_at=wall,
        )
        self._write(lambda done: self.engine.registrations.add(binding, done))
        return registration(self.engine, aor, self.engine.now)

    def _write(self, begin: Callable[[Callable[..., None]], None]) -> Sequence[Change]:
        """Change the location table and wait until that is stored. Raises Problem."""
        done: AsyncResult[Any] = AsyncResult()

        def told(changes: Sequence[Change], error: SipError | None) -> None:
            if error is None:
                done.set(changes)
            else:
                status = 503 if error.sip_status >= 500 else 409
                done.set(Problem(status, "registration.refused", "not registered", error.reason))

        self._do(lambda now: begin(told))
        changes: Sequence[Change] = _result(done)
        return changes

    # --- gateways -----------------------------------------------------------------------------------------------------

    def enable_gateway(self, name: str) -> dict[str, Any]:
        """Send calls there again."""
        return self._gateway(name, self.engine.gateways.enable)

    def disable_gateway(self, name: str) -> dict[str, Any]:
        """Send no more calls there until it is enabled, or we start again."""
        return self._gateway(name, self.engine.gateways.disable)

    def probe_gateway(self, name: str) -> dict[str, Any]:
        """Send it OPTIONS now."""
        return self._gateway(name, self._probe)

    def _probe(self, name: str) -> None:
        if not self.engine.flows.program.resources.gateways[name].get("probe"):
            raise Problem(
                409, "gateway.not_probed", "it is not probed", f"{name} is judged by calls alone", "set  probe: 30s"
            )
        self.engine.gateways.prober.probe(name)

    def _gateway(self, name: str, act: Callable[[str], object]) -> dict[str, Any]:
        def turn(now: float) -> dict[str, Any]:
            if name not in self.engine.flows.program.resources.gateways:
                raise unknown("gateway", name, "GET /api/v1/gateways lists them")
            act(name)
            return next(found for found in gateways(self.engine) if found["name"] == name)

        return dict(self._do(turn))

    # --- events, pushes, bans -----------------------------------------------------------------------------------------

    def raise_event(self, received: Received) -> int:
        """Raise an event; returns how many subscriptions took it."""
        try:
            return self.incoming.take(received)
        except NoSuchEvent as error:
            cure = "GET /api/v1/events/catalogue lists them"
            raise Problem(404, "event.unknown", "unknown event", str(error), cure) from None
        except ValueError as error:
            raise Problem(400, "event.invalid", "not an event", str(error)) from None
        except NoSuchCall as error:
            raise Problem(404, "call.unknown", "unknown call", str(error)) from None
        except NoRoom as error:
            raise busy(str(error)) from None

    def push(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """Push to the phones of an address (`runtime.pushes`)."""
        try:
            return self.pushes.push(told)
        except WrongPush as error:
            raise Problem(400, "body.invalid", "not a push", str(error)) from None
        except NobodyRegistered as error:
            raise Problem(404, "registration.unknown", "not registered", str(error)) from None
        except Busy:
            raise busy("the server has not come to it") from None

    def lift_ban(self, source: str) -> None:
        """End the ban of a source, by its name or an address of it."""
        if not self._do(lambda now: self.engine.admission.lift(source, now)):
            raise unknown("ban", source, "GET /api/v1/bans lists those that last")
        logger.bind(address=source).info("source_ban_lifted")

    # --- the server ---------------------------------------------------------------------------------------------------

    def reload(self) -> dict[str, Any]:
        """Read configuration, users and flows again."""
        try:
            done = self._operations.reload()
        except OrchestratorError as error:
            found = error.diagnostics if isinstance(error, InputError) else ()
            raise Problem(
                422,
                "reload.refused",
                "reload refused",
                str(error).partition("\n")[0],
                "mend the files and reload again; what was in force still is",
                diagnostics=[
                    {
                        "file": mistake.file,
                        "line": mistake.line,
                        "col": mistake.column,
                        "length": mistake.length,
                        "code": mistake.code,
                        "severity": mistake.severity,
                        "message": mistake.message,
                        "help": mistake.help or None,
                        "notes": list(mistake.notes),
                    }
                    for mistake in found
                ],
            ) from None
        return {"flows": done.flows, "version": done.version, "restart_needed": list(done.restart_needed)}

    def log_level(self) -> str:
        """From which level on the log is written."""
        return self._operations.level()

    def set_log_level(self, level: object) -> str:
        """Write the log from this level on, until we start again."""
        if level not in LEVELS:
            raise Problem(400, "body.invalid", "no level", f"level is one of {', '.join(LEVELS)}")
        self._operations.set_level(str(level))
        return str(level)

    def drain(self) -> None:
        """Take no new calls and registrations; what is in progress goes on."""
        self._turn(self.engine.drain)
        self._do(lambda now: None)

    def undrain(self) -> None:
        """Take them again."""
        if self._operations.stopping():
            raise Problem(409, "server.stopping", "the server stops", "somebody has told the process to end")

        def act(now: float) -> None:
            self.engine.draining = False

        self._do(act)


def _result(done: AsyncResult[Any]) -> Any:
    try:
        found = done.get(timeout=PATIENCE)
    except Timeout:
        raise busy("the server has not come to it in time, and may yet do it") from None
    if isinstance(found, Problem):
        raise found
    return found


def busy(detail: str) -> Problem:
    """503: try again."""
    return Problem(503, "busy", "busy", detail, "try again in a moment", headers={"Retry-After": "1"})


def _contact(contact: str) -> bytes:
    """A Contact URI. Raises Problem."""
    octets = contact.encode("utf-8", "replace")
    try:
        if len(octets) > _MOST_CONTACT or any(octet <= 32 or octet == 127 for octet in octets):
            raise MalformedMessage("a URI has no blanks and no control characters")
        uri = parse_uri(octets)
        if not uri.is_sip or not unescape(uri.host) or b"?" in octets or b"<" in octets:
            raise MalformedMessage("no SIP URI")
    except MalformedMessage as error:
        raise Problem(
            400, "body.invalid", "no contact", f"contact: {error.reason}", "write sip:bob@192.0.2.7:5060"
        ) from None
    return octets


def _transport(contact: bytes) -> str:
    """By which transport a contact is reached."""
    return (parse_uri(contact).params.get(b"transport") or b"udp").decode("ascii", "replace").lower()
