"""`auth` at work: who sent this request (FLOWLANG §4.3; RFC 3261 §22, RFC 3325).

A REGISTER is answered by us as a user agent server: 401, WWW-Authenticate. Everything else passes through us as a
proxy: 407, Proxy-Authenticate. Credentials for one of our realms end here: what is forwarded does not carry them, in
the request that was checked and in those of its dialog alike, because whoever receives a digest can try passwords
against it.

Without `auth`, the user of a request is whom a trusted source asserts (P-Asserted-Identity, RFC 3325 §5), or nobody.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, Protocol
from urllib.parse import quote

from orchestrator.core.node import Node
from orchestrator.core.steps import subjects
from orchestrator.core.steps.performers import Performs
from orchestrator.core.user_cache import AGAIN, Known, UserCache
from orchestrator.core.users import LocalUsers, RemoteUsers, UserTable
from orchestrator.errors import MalformedMessage, StepError
from orchestrator.flow.run.effects import Authenticate
from orchestrator.flow.run.engine import FlowEngine
from orchestrator.flow.run.run import Run
from orchestrator.flow.run.signals import PENDING, Ticket
from orchestrator.sip import digest
from orchestrator.sip.admission import Admission
from orchestrator.sip.identity import asserted_user
from orchestrator.sip.message import Request
from orchestrator.sip.model import line_value
from orchestrator.sip.uri import Uri, parse_uri

_MAX_REALMS = 100
"""Realms remembered as ours; a flow may compute them from what a stranger has sent."""


_MAX_STALE = 10_000
"""Clients remembered that were told `stale` and have not passed since."""


_LONGEST_NAME = 256


class Asked(Protocol):
    """A call or another request: whose sender is asked about."""

    user: str | None

    @property
    def source(self) -> tuple[str, int]: ...
    @property
    def request(self) -> Request: ...
    def reply(self, code: int, reason: str = "", headers: tuple[bytes, ...] = ()) -> None: ...


class Authenticator:
    """Performs `auth` for one engine. A source that has passed has proved its address to `admission`."""

    def __init__(self, node: Node, flows: FlowEngine, admission: Admission) -> None:
        self._node = node
        self._flows = flows
        self._admission = admission
        self.performs: Performs = {Authenticate: self._authenticate}
        self._nonces: digest.Nonces | None = None
        self._users = UserCache(node, node.settings.auth.cache)
        self._realms: set[str] = set()
        self._passed: dict[int, dict[tuple[str, str], Mapping[str, Any]]] = {}
        """Run → what its `auth` steps have found already: a request's credentials are good once."""
        self._stale: OrderedDict[tuple[str, str, str], None] = OrderedDict()
        """Who was told `stale` last. A client that does not learn from it would go on for ever if told so again."""

    def _authenticate(self, run: Run, ticket: Ticket, effect: Authenticate) -> Any:
        asked = subjects.request_of(run) or subjects.live_call(run)
        return self.check(run.id, asked, ticket, effect)

    def check(self, run: int, asked: Asked, ticket: Ticket, effect: Authenticate) -> Any:
        """The result of the effect, or PENDING.

        Raises:
            StepError: `auth.down`, the user table cannot be read; `call.state`, a final reply is out.
        """
        key = (effect.realm, effect.users)
        known = self._passed.get(run, {}).get(key)
        if known is not None:
            return known
        if _within(asked.source[0], effect.trust):
            user = asserted_user(asked.request) or asked.request.from_.parsed.username
            return self._pass(run, asked, effect, user, trusted=True)
        if len(self._realms) < _MAX_REALMS:
            self._realms.add(effect.realm)
        try:
            found = digest.find_credentials(asked.request.get_all(_asked_in(asked.request)), effect.realm)
        except MalformedMessage as error:
            self._node.count("auth.malformed")
            asked.reply(400, error.reason)
            return _verdict("malformed", effect)
        table, policy = self._table(effect.users), self._node.settings.auth
        if found is None or not digest.is_readable(found[1], policy.qop):
            return self._challenge(asked, effect, "challenged")
        credentials = found[1]
        if not digest.acceptable(credentials, self.nonces, self._now, asked.source[0], policy.qop):
            return self._challenge(asked, effect, "challenged", stale=self._may_say_stale(asked, credentials))
        if isinstance(table, LocalUsers):
            name = credentials.user
            if credentials.hashed:
                name = table.named(name, credentials.realm, digest.base_of(credentials.algorithm)) or ""
                credentials = replace(credentials, user=name)
            return self._judge(run, asked, effect, credentials, table.users.get(name))
        if credentials.hashed:  # which was not asked for
            return self._challenge(asked, effect, "challenged")
        return self._ask(run, asked, ticket, effect, credentials, table)

    def forget(self, run: int) -> None:
        """The run is done."""
        self._passed.pop(run, None)

    def consume(self, request: Request) -> None:
        """Take credentials for our realms out of a request that is going on."""
        if not self._realms or not request.has(b"proxy-authorization"):
            return
        for index in reversed(range(len(request.names))):
            if request.names[index] == b"proxy-authorization":
                try:
                    found = digest.parse_credentials(line_value(request.lines[index]))
                except MalformedMessage:
                    continue
                if found is not None and found.realm in self._realms:
                    request.drop_line(index)

    @property
    def nonces(self) -> digest.Nonces:
        """Made when the first challenge is, with a key that lives as long as the process."""
        if self._nonces is None:
            settings = self._node.settings
            self._nonces = digest.Nonces(settings.entropy(32), self._node.tokens.token, settings.auth.nonce)
        return self._nonces

    @property
    def _now(self) -> float:
        return self._node.timers.now

    def _table(self, name: str) -> UserTable:
        table = self._node.site.users.get(name)
        if table is None:
            raise StepError("auth.down", f"user table {name!r} could not be read")
        return table

    def _ask(
        self,
        run: int,
        asked: Asked,
        ticket: Ticket,
        effect: Authenticate,
        credentials: digest.Credentials,
        table: RemoteUsers,
    ) -> Any:
        """Look the user up elsewhere, or in what is known of him, and go on when the answer is there, unless nobody
        waits for it any more."""
        name = credentials.user
        if not name.isprintable() or len(name) > _LONGEST_NAME:  # no table can have him, and some choke on it
            return self._judge(run, asked, effect, credentials, None)
        flows, began = self._flows, self._now
        verdict: Any = PENDING
        waits = anew = False

        def judge(known: Known | StepError) -> None:
            nonlocal verdict, anew
            if waits and ticket.task is None:
                return
            if (
                not isinstance(known, StepError)
                and known.secret is not None  # `auth: absent` says when one that is not there is asked for again
                and known.at < (began if anew else self._now - AGAIN)
                and not self._fits(asked, credentials, known.secret)
            ):
                if not anew:  # his password may be a new one
                    anew = True
                    self._users.ask(effect.users, table, credentials.user, effect.realm, judge, began)
                    return
                known = StepError("auth.down", f"user table {effect.users!r} cannot be asked")
            try:
                if isinstance(known, StepError):
                    raise known
                verdict = self._judge(run, asked, effect, credentials, known.secret)
            except StepError as error:
                if not waits:
                    raise
                flows.throw(ticket, error)
            else:
                if waits:
                    flows.resume(ticket, verdict)

        self._users.ask(effect.users, table, credentials.user, effect.realm, judge)
        waits = True
        return verdict

    def _fits(self, asked: Asked, credentials: digest.Credentials, secret: digest.Secret | None) -> bool:
        request = asked.request
        meant = self._meant(request, credentials)
        return digest.proves(credentials, secret, request.method, meant, request.body)

    def _judge(
        self,
        run: int,
        asked: Asked,
        effect: Authenticate,
        credentials: digest.Credentials,
        secret: digest.Secret | None,
    ) -> Mapping[str, Any]:
        base = digest.base_of(credentials.algorithm)
        if secret is not None and secret.algorithms and base not in secret.algorithms:
            again = self._may_say_stale(asked, credentials)  # he may know the password: once more, in the other way
            return self._challenge(asked, effect, "challenged", stale=again, only=secret.algorithms)
        if not self._fits(asked, credentials, secret):
            self._admission.failed(self._admission.source_of(asked.source[0], self._now), self._now)
            return self._challenge(asked, effect, "failed")
        if not self.nonces.use(credentials.nonce, digest.count_of(credentials)):
            self._node.count("auth.replayed")
            return self._challenge(asked, effect, "challenged", stale=self._may_say_stale(asked, credentials))
        self._stale.pop((asked.source[0], credentials.user, credentials.realm), None)
        admission, now = self._admission, self._now
        admission.logged_in(admission.source_of(asked.source[0], now), now)
        return self._pass(run, asked, effect, credentials.user, trusted=False)

    def _pass(self, run: int, asked: Asked, effect: Authenticate, user: str, trusted: bool) -> Mapping[str, Any]:
        self._node.count("auth.passed")
        asked.user = user
        self.consume(asked.request)
        if not trusted and self._node.settings.assert_identity:
            self._assert(asked.request, user)
        result = _verdict("passed", effect, user, trusted)
        self._passed.setdefault(run, {})[effect.realm, effect.users] = result
        return result

    def _assert(self, request: Request, user: str) -> None:
        """Say who has sent it to those who are told (RFC 3325 §5): his own From where that is his, else his address in
        our first domain. What he claimed himself was taken out when it came in."""
        if request.method in (b"REGISTER", b"ACK") or request.has(b"p-asserted-identity"):
            return
        network, sender = self._node.network, request.from_.parsed
        own = sender.is_sip and sender.username == user and network.is_local(sender)
        aor = network.aor(sender) if own else network.home_address(user)
        name, at, host = aor.rpartition("@")
        if at:
            request.add_line(b"p-asserted-identity", f"P-Asserted-Identity: <sip:{quote(name)}@{host}>".encode())

    def _meant(self, request: Request, credentials: digest.Credentials) -> Uri:
        """The URI the digest has to be about: the request's. One without a user may name us by another name than it,
        our address or domain: SIPp does so in each request, some phones in REGISTER. The nonce serves one request."""
        target, network = request.parsed_uri, self._node.network
        try:
            written = parse_uri(credentials.uri)
        except MalformedMessage:
            return target
        ours = written.is_sip and target.is_sip and not written.user
        return written if ours and network.is_local(written) and network.is_local(target) else target

    def _may_say_stale(self, asked: Asked, credentials: digest.Credentials) -> bool:
        """Once, until the client has passed."""
        key = (asked.source[0], credentials.user, credentials.realm)
        if key in self._stale:
            return False
        self._stale[key] = None
        if len(self._stale) > _MAX_STALE:
            self._stale.popitem(last=False)
        return True

    def _challenge(
        self,
        asked: Asked,
        effect: Authenticate,
        verdict: str,
        stale: bool = False,
        only: tuple[str, ...] = digest.ALGORITHMS,
    ) -> Mapping[str, Any]:
        """Ask for credentials, anew where there were some. `stale`: they may be right, the nonce is not."""
        self._node.count(f"auth.{verdict}")
        register = asked.request.method == b"REGISTER"
        name = b"WWW-Authenticate: " if register else b"Proxy-Authenticate: "
        policy, host = self._node.settings.auth, asked.source[0]
        offered = [name for name in self._node.settings.digest if digest.base_of(name) in only] or only
        hashed = policy.userhash and isinstance(self._table(effect.users), LocalUsers)
        values = digest.challenges(
            self.nonces, effect.realm, self._now, host, stale, offered, policy.qop, hashed
        )  # fmt: skip
        asked.reply(401 if register else 407, "", tuple(name + value for value in values))
        return _verdict(verdict, effect)


def _asked_in(request: Request) -> bytes:
    return b"authorization" if request.method == b"REGISTER" else b"proxy-authorization"


def _verdict(verdict: str, effect: Authenticate, user: str = "", trusted: bool = False) -> Mapping[str, Any]:
    return {"verdict": verdict, "user": user, "realm": effect.realm, "trusted": trusted}


def _within(host: str, trust: tuple[str, ...] | Any) -> bool:
    address = ip_address(host)
    return any(address in network for network in map(parse_network, trust) if network.version == address.version)


@lru_cache(maxsize=1000)
def parse_network(text: str) -> IPv4Network | IPv6Network:
    """An address or network of `trust:`. Raises StepError `expr.type`."""
    try:
        return ip_network(text)
    except ValueError:
        raise StepError("expr.type", f"trust: {text!r} is neither an address nor a network") from None
