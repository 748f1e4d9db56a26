"""Who may ask what: bearer tokens (RFC 6750) with the scopes `read` and `full`, sessions of the console, and what a
browser may be made to send.

Everything but /healthz, /readyz and /metrics needs a token, on loopback too: a page of a stranger, another user of the
machine and a forwarded port reach that as well. A page of another origin is refused whatever it bears; a write of a
session needs the session's CSRF token besides. Who sends ten wrong tokens in a minute gets no other answer to the next
ones until it is over; a right token is always taken, so that nobody can shut out those who share his address.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from ipaddress import ip_address
from secrets import token_urlsafe
from time import monotonic
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import falcon
from loguru import logger

from orchestrator.api.bodies import FORM, form_of, kind_of
from orchestrator.api.problems import Problem
from orchestrator.sip.admission import source_name

Scope = Literal["read", "full"]

FREE: Final = frozenset(("/healthz", "/readyz", "/metrics"))
"""Paths that need no token."""
READS: Final = frozenset(("GET", "HEAD", "OPTIONS"))
COOKIE: Final = "orchestrator_session"
CSRF_HEADER: Final = "X-CSRF-Token"
CSRF_FIELD: Final = "csrf"

WRONG: Final = 10
"""Wrong tokens of one client in a minute; more of them are answered 429 until that is over."""
MINUTE: Final = 60.0
_CLIENTS: Final = 10_000
"""Clients that are remembered, the latest."""
LASTS: Final = 12 * 3600.0
"""Seconds a session lasts."""
SESSIONS: Final = 200
"""Sessions at a time; a new one ends the oldest."""


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who has signed in to the console."""

    id: str
    scope: Scope
    csrf: str
    ends: float
    """On the monotonic clock."""


@dataclass(frozen=True, slots=True)
class Who:
    """Who asks: with which scope, from which address, and in which session, if any."""

    scope: Scope
    client: str
    session: Session | None = None

    @property
    def may_write(self) -> bool:
        return self.scope == "full"


class Access:
    """The tokens, the sessions, and a middleware of falcon that lets nobody else through.

    `token`, `read_token`: those of the configuration, None for none. `full` is what a request bears to change
    something.
    """

    def __init__(
        self, token: str | None, read_token: str | None = None, clock: Callable[[], float] = monotonic
    ) -> None:
        self.refused: Counter[str] = Counter({"no_token": 0, "wrong_token": 0, "scope": 0, "origin": 0, "rate": 0})
        """Requests refused, by reason."""
        self.sign_in_page = ""
        """Where a person without a session is sent to; '' while there is no console."""
        self.open_paths: Collection[str] = ()
        """Paths besides FREE that need no token: the sign-in page, and what ends in `/` with all below it."""
        self._digests: dict[Scope, bytes] = {}
        if token is not None:
            self._digests["full"] = _digest(token)
        if read_token is not None:
            self._digests["read"] = _digest(read_token)
        self._clock = clock
        self._wrong: OrderedDict[str, tuple[float, int]] = OrderedDict()
        """Client → when its minute began, and its wrong tokens in it."""
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    # --- falcon's middleware ------------------------------------------------------------------------------------------

    def process_request(self, request: falcon.Request, response: falcon.Response) -> None:
        """Find out who asks (`request.context.who`), or refuse. Raises Problem, falcon.HTTPSeeOther."""
        request.context.who = None
        if request.path in FREE:
            return
        if request.method not in READS:
            self.check_origin(request)
        if self._is_open(request.path):
            return
        try:
            who = self.who(request)
        except Problem:
            if self.sign_in_page and not request.path.startswith("/api/") and request.method in ("GET", "HEAD"):
                raise falcon.HTTPSeeOther(self.sign_in_page) from None
            raise
        request.context.who = who
        if request.method not in READS:
            self._check_write(request, who)

    def process_response(
        self, request: falcon.Request, response: falcon.Response, resource: object, succeeded: bool
    ) -> None:
        """One line for each write, those that were refused as well: no body, no token."""
        if request.method in READS:
            return
        who: Who | None = getattr(request.context, "who", None)  # refused before anybody asked who it is
        facts = {
            "method": request.method[:20],
            "path": request.path[:200],
            "who": "nobody" if who is None else who.scope if who.session is None else f"{who.scope} session",
            "source": client_of(request),
            "status": response.status_code,
        }
        logger.bind(**facts).log("INFO" if response.status_code < 400 else "WARNING", "admin_write")

    def _is_open(self, path: str) -> bool:
        return any(path == known or (known.endswith("/") and path.startswith(known)) for known in self.open_paths)

    def _check_write(self, request: falcon.Request, who: Who) -> None:
        if not who.may_write and request.path != "/sign-out":
            self.refused["scope"] += 1
            raise Problem(
                403,
                "token.scope",
                "read only",
                "this token may read, and change nothing",
                "use the token of admin: token",
            )
        if who.session is not None and not self._has_csrf(request, who.session):
            self.refused["origin"] += 1
            raise Problem(
                403,
                "csrf.invalid",
                "not from a page of ours",
                f"{CSRF_HEADER} is missing or old",
                "load the page again",
            )

    def _has_csrf(self, request: falcon.Request, session: Session) -> bool:
        given = request.get_header(CSRF_HEADER)
        if given is None and kind_of(request) == FORM:
            given = form_of(request).get(CSRF_FIELD)
        return given is not None and compare_digest(given.encode("utf-8", "replace"), session.csrf.encode())

    def check_origin(self, request: falcon.Request) -> None:
        """A write is not the idea of a page of somebody else. Raises Problem."""
        site = request.get_header("Sec-Fetch-Site")
        origin = request.get_header("Origin")
        foreign = site not in (None, "same-origin", "none")
        if origin is not None and not foreign:
            foreign = _place_of(origin) != (request.get_header("Host") or "").strip().lower()
        if foreign:
            self.refused["origin"] += 1
            raise Problem(
                403,
                "origin.foreign",
                "foreign origin",
                "a page of another origin may change nothing here",
                "send the request from a program, or from the console itself",
            )

    # --- who asks -----------------------------------------------------------------------------------------------------

    def who(self, request: falcon.Request) -> Who:
        """Raises Problem."""
        client = client_of(request)
        session = self.session_of(request)
        if session is not None and request.get_header("Authorization") is None:
            return Who(session.scope, client, session)
        return Who(self._scope_of(request, client), client)

    def _scope_of(self, request: falcon.Request, client: str) -> Scope:
        if not self._digests:
            self.refused["no_token"] += 1
            raise Problem(
                403,
                "token.none",
                "no token is configured",
                "the API is closed",
                "set admin: {token: {env: ADMIN_TOKEN}} or admin: {token_file: orchestrator.token}",
            )
        scheme, _, token = (request.get_header("Authorization") or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            self.refused["no_token"] += 1
            raise _token_required("send the admin token: Authorization: Bearer ...")
        scope = self.scope_of_token(token.strip(), client)
        if scope is None:
            raise _token_required("this is not the token of this server")
        return scope

    def scope_of_token(self, token: str, client: str) -> Scope | None:
        """What a token allows, None for a wrong one, which is counted. Raises Problem 429 for one too many."""
        given, found = _digest(token), None
        for scope, digest in self._digests.items():
            if compare_digest(given, digest):
                found = scope
        if found is None:
            self._check_rate(client)
            self.refused["wrong_token"] += 1
            self._count_wrong(client)
        return found

    def _check_rate(self, client: str) -> None:
        began, count = self._wrong.get(client, (0.0, 0))
        left = began + MINUTE - self._clock()
        if count >= WRONG and left > 0:
            self.refused["rate"] += 1
            raise Problem(
                429,
                "rate.limited",
                "too many wrong tokens",
                f"{WRONG} wrong tokens came from {client} within a minute",
                "wait, then send the right one",
                headers={"Retry-After": str(int(left) + 1)},
            )

    def _count_wrong(self, client: str) -> None:
        now = self._clock()
        began, count = self._wrong.pop(client, (now, 0))
        self._wrong[client] = (now, 1) if now - began >= MINUTE else (began, count + 1)
        if len(self._wrong) > _CLIENTS:
            self._wrong.popitem(last=False)

    # --- sessions of the console --------------------------------------------------------------------------------------

    def sign_in(self, token: str, client: str) -> Session | None:
        """A new session with the scope of the token, None for a wrong one. Raises Problem 429."""
        scope = self.scope_of_token(token.strip(), client)
        if scope is None:
            return None
        session = Session(token_urlsafe(32), scope, token_urlsafe(32), self._clock() + LASTS)
        self._sessions[session.id] = session
        if len(self._sessions) > SESSIONS:
            self._sessions.popitem(last=False)
        return session

    def sign_out(self, session: Session) -> None:
        """Idempotent."""
        self._sessions.pop(session.id, None)

    def session_of(self, request: falcon.Request) -> Session | None:
        """The session whose cookie a request bears."""
        values = request.get_cookie_values(COOKIE) or []
        session = self._sessions.get(values[0]) if values else None
        if session is not None and session.ends <= self._clock():
            self.sign_out(session)
            return None
        return session

    def set_cookie(self, request: falcon.Request, response: falcon.Response, session: Session) -> None:
        """Have the browser keep the session."""
        response.set_cookie(
            COOKIE,
            session.id,
            max_age=int(LASTS),
            path="/",
            http_only=True,
            same_site="Strict",
            secure=came_over_tls(request),
        )


def came_over_tls(request: falcon.Request) -> bool:
    """Whether the client speaks HTTPS with a proxy on this machine, as that proxy says."""
    return is_loopback(request.remote_addr) and (request.get_header("X-Forwarded-Proto") or "").lower() == "https"


def is_loopback(host: str) -> bool:
    """Whether an address is of this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def client_of(request: falcon.Request) -> str:
    """Whom a request counts for: its address (IPv6: its /64)."""
    return source_name(request.remote_addr)


def who_of(request: falcon.Request) -> Who:
    """Who asks, of a request that has passed `Access`."""
    who: Any = request.context.who
    assert isinstance(who, Who)
    return who


def _place_of(origin: str) -> str | None:
    """Host and port of an Origin; None for one that is none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _digest(token: str) -> bytes:
    """So that the comparison tells nothing of the length either."""
    return sha256(token.encode("utf-8", "replace")).digest()


def _token_required(detail: str) -> Problem:
    return Problem(
        401,
        "token.required",
        "token required",
        detail,
        "the server prints it when it makes one, and keeps it in admin: token_file",
        headers={"WWW-Authenticate": 'Bearer realm="orchestrator"'},
    )
