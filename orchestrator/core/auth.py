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
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Any, Protocol

from orchestrator.core.users import HttpUsers, LocalUsers, UserTable
from orchestrator.errors import MalformedMessage, StepError
from orchestrator.flow.run.signals import PENDING, Ticket
from orchestrator.sip import digest
from orchestrator.sip.headers import parse_name_addrs
from orchestrator.sip.message import Request
from orchestrator.sip.model import line_value
from orchestrator.sip.uri import Uri, parse_uri

if TYPE_CHECKING:
    from orchestrator.core.engine import Engine
    from orchestrator.flow.run.effects import Authenticate

_MAX_REALMS = 100
"""Realms remembered as ours; a flow may compute them from what a stranger has sent."""


_MAX_STALE = 10_000
"""Clients remembered that were told `stale` and have not passed since."""


class Asker(Protocol):
    """A call or a registration: whose sender is asked about."""

    source: tuple[str, int]
    user: str | None

    @property
    def request(self) -> Request: ...
    def reply(self, code: int, reason: str = "", headers: tuple[bytes, ...] = ()) -> None: ...


class Gate:
    """Performs `auth` for one engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._nonces: digest.Nonces | None = None
        self._realms: set[str] = set()
        self._passed: dict[int, dict[tuple[str, str], Mapping[str, Any]]] = {}
        """Run → what its `auth` steps have found already: a request's credentials are good once."""
        self._stale: OrderedDict[tuple[str, str, str], None] = OrderedDict()
        """Who was told `stale` last. A client that does not learn from it would go on for ever if told so again."""

    def check(self, run: int, asker: Asker, ticket: Ticket, effect: Authenticate) -> Any:
        """The result of the effect, or PENDING.

        Raises:
            StepError: `auth.down`, the user table cannot be read; `call.state`, a final reply is out.
        """
        key = (effect.realm, effect.users)
        known = self._passed.get(run, {}).get(key)
        if known is not None:
            return known
        if _within(asker.source[0], effect.trust):
            user = asserted_user(asker.request) or asker.request.from_.parsed.username
            return self._pass(run, asker, effect, user, trusted=True)
        if len(self._realms) < _MAX_REALMS:
            self._realms.add(effect.realm)
        try:
            found = digest.find_credentials(asker.request.get_all(_asked_in(asker.request)), effect.realm)
        except MalformedMessage as error:
            self.engine.count("auth.malformed")
            asker.reply(400, error.reason)
            return _verdict("malformed", effect)
        table = self._table(effect.users)
        if found is None or not digest.is_readable(found[1]):
            return self._challenge(asker, effect, "challenged")
        credentials = found[1]
        if not digest.acceptable(credentials, self.nonces, self._now, asker.source[0]):
            return self._challenge(asker, effect, "challenged", stale=self._may_say_stale(asker, credentials))
        if isinstance(table, LocalUsers):
            return self._judge(run, asker, effect, credentials, table.users.get(credentials.user))
        return self._ask(run, asker, ticket, effect, credentials, table)

    def forget(self, run: int) -> None:
        """The run is done."""
        self._passed.pop(run, None)

    def consume(self, request: Request) -> None:
        """Take credentials for our realms out of a request that is going on."""
        if b"proxy-authorization" not in request.names or not self._realms:
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
            self._nonces = digest.Nonces(self.engine.settings.entropy(32), self.engine.network.tokens.token)
        return self._nonces

    @property
    def _now(self) -> float:
        return self.engine.timers.now

    def _table(self, name: str) -> UserTable:
        table = self.engine.settings.users.get(name)
        if table is None:
            raise StepError("auth.down", f"user table {name!r} could not be read")
        return table

    def _ask(
        self,
        run: int,
        asker: Asker,
        ticket: Ticket,
        effect: Authenticate,
        credentials: digest.Credentials,
        table: HttpUsers,
    ) -> Any:
        """Look the user up elsewhere and go on when the answer is there, unless nobody waits for it any more."""
        flows = self.engine.flows

        def done(result: Any) -> None:
            if ticket.task is None:
                return
            try:
                if isinstance(result, StepError):
                    raise StepError("auth.down", f"user table {effect.users!r}: {result.message}")
                secret = table.answer(result)
                verdict = self._judge(run, asker, effect, credentials, secret)
            except StepError as error:
                flows.throw(ticket, error)
            else:
                flows.resume(ticket, verdict)

        self.engine.job(table.question(credentials.user, effect.realm), done)
        return PENDING

    def _judge(
        self,
        run: int,
        asker: Asker,
        effect: Authenticate,
        credentials: digest.Credentials,
        secret: digest.Secret | None,
    ) -> Mapping[str, Any]:
        request = asker.request
        if secret is not None and secret.algorithms and credentials.algorithm not in secret.algorithms:
            again = self._may_say_stale(asker, credentials)  # he may know the password: once more, in the other way
            return self._challenge(asker, effect, "challenged", stale=again, only=secret.algorithms)
        if not digest.proves(credentials, secret, request.method, self._meant(request, credentials)):
            return self._challenge(asker, effect, "failed")
        if not self.nonces.use(credentials.nonce, digest.count_of(credentials)):
            self.engine.count("auth.replayed")
            return self._challenge(asker, effect, "challenged", stale=self._may_say_stale(asker, credentials))
        self._stale.pop((asker.source[0], credentials.user, credentials.realm), None)
        admission, now = self.engine.admission, self._now
        admission.prove(admission.source_of(asker.source[0], now), now)
        return self._pass(run, asker, effect, credentials.user, trusted=False)

    def _pass(self, run: int, asker: Asker, effect: Authenticate, user: str, trusted: bool) -> Mapping[str, Any]:
        self.engine.count("auth.passed")
        asker.user = user
        self.consume(asker.request)
        result = _verdict("passed", effect, user, trusted)
        self._passed.setdefault(run, {})[effect.realm, effect.users] = result
        return result

    def _meant(self, request: Request, credentials: digest.Credentials) -> Uri:
        """The URI the digest has to be about: the request's. A REGISTER may name our address instead of our domain."""
        target, network = request.parsed_uri, self.engine.network
        try:
            written = parse_uri(credentials.uri)
        except MalformedMessage:
            return target
        ours = request.method == b"REGISTER" and written.is_sip and target.is_sip and not written.user
        return written if ours and network.is_local(written) and network.is_local(target) else target

    def _may_say_stale(self, asker: Asker, credentials: digest.Credentials) -> bool:
        """Once, until the client has passed."""
        key = (asker.source[0], credentials.user, credentials.realm)
        if key in self._stale:
            return False
        self._stale[key] = None
        if len(self._stale) > _MAX_STALE:
            self._stale.popitem(last=False)
        return True

    def _challenge(
        self,
        asker: Asker,
        effect: Authenticate,
        verdict: str,
        stale: bool = False,
        only: tuple[str, ...] = digest.ALGORITHMS,
    ) -> Mapping[str, Any]:
        """Ask for credentials, anew where there were some. `stale`: they may be right, the nonce is not."""
        self.engine.count(f"auth.{verdict}")
        register = asker.request.method == b"REGISTER"
        name = b"WWW-Authenticate: " if register else b"Proxy-Authenticate: "
        offered = [name for name in self.engine.settings.digest if name in only] or only
        values = digest.challenges(self.nonces, effect.realm, self._now, asker.source[0], stale, offered)
        asker.reply(401 if register else 407, "", tuple(name + value for value in values))
        return _verdict(verdict, effect)


def asserted_user(request: Request) -> str | None:
    """User part of the P-Asserted-Identity; None when there is none that can be read."""
    if b"p-asserted-identity" not in request.names:
        return None
    try:
        addresses = parse_name_addrs(request.get_all(b"p-asserted-identity"))
        return next((address.parsed.username for address in addresses if address.parsed.is_sip), None) or None
    except MalformedMessage:
        return None


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
