"""HTTP exchanges for `http:` steps (FLOWLANG §5), performed in the greenlets of a pool.

One `effects.Http` is one exchange: a try, and further tries after a connect error, 429 or 5xx. `timeout` bounds a try
as a whole, from the look-up of the name to the last octet of the body, so neither a name server that hangs nor a server
that drips one octet per second keeps a worker longer than the flow allowed.

What a stranger can influence (a contact's `pn-prid` in a URL, the answer of a service) is kept harmless: no redirect is
followed, so a 302 to the cloud's metadata address is just a status; no proxy is taken from the environment; an address
that is never a web service is not connected to, whatever name it hides behind; an answer is read up to 64 KiB. Messages
name host and port, never the URL, which may hold a secret.

A host that failed several times in a row is left alone for a while: flows that want it get their error at once instead
of waiting for it, and workers stay free for other hosts.
"""

from __future__ import annotations

import codecs
import json
import random
import re
from base64 import b64encode
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any
from urllib.parse import urlencode

import gevent
from urllib3.exceptions import LocationValueError
from urllib3.util import Url, parse_url

from orchestrator import __version__
from orchestrator.errors import StepError
from orchestrator.flow.run.effects import Http
from orchestrator.runtime.http_host import MAX_ANSWER, Answer, ExchangeFailed, Guard, HttpHost, HttpRequest

MAX_PAUSE = 30.0
"""Seconds between two tries at most, however often the backoff has doubled."""

MAX_HOSTS = 256
"""Hosts whose connections and circuit are remembered; the longest unused one makes room."""

_PORTS = {"http": 80, "https": 443}
_CHARSET = re.compile(
    r"utf-?(?:8|16|32)(?:-?[bl]e)?|(?:us-?)?ascii|(?:iso-?8859|windows|cp|koi8|latin|euc|gb|shift|big)[-_a-z0-9]{1,12}"
)
_RETRIED = frozenset({429, *range(500, 600)})


class HttpClient:
    """Performs `effects.Http`. `outcomes` counts tries by status class (`2xx`) or error type, `retries` the further
    ones.
    """

    def __init__(
        self,
        guard: Guard | None = None,
        *,
        clock: Callable[[], float] = monotonic,
        sleep: Callable[[float], object] = gevent.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.outcomes: Counter[str] = Counter()
        self.retries = 0
        self._guard = guard or Guard()
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter
        self._hosts: OrderedDict[tuple[str, str, int], HttpHost] = OrderedDict()

    def perform(self, effect: Http) -> dict[str, Any]:
        """One exchange with its retries. Returns the `http result`: status, text, json, headers (names in lower case).

        Raises:
            StepError: `http.connect`, `http.timeout`, or `http.status` (its data is the result) for a status that is
                neither 2xx nor in `expect`, and for an answer that is too long.
        """
        url = _parse(effect.url)
        request = _prepare(effect, url)
        host = self._host(url)
        retries = max(0, effect.retries)
        for tried in range(retries):
            try:
                return self._try(host, request, effect)
            except _Transient:
                self._sleep(self._pause(effect.backoff, tried))
                self.retries += 1
        return self._try(host, request, effect)

    @property
    def open_circuits(self) -> int:
        """Hosts that are left alone at the moment."""
        return sum(host.circuit.open for host in self._hosts.values())

    def close(self) -> None:
        """Close the connections that are kept open."""
        for host in self._hosts.values():
            host.close()
        self._hosts.clear()

    def _host(self, url: Url) -> HttpHost:
        key = (url.scheme or "", url.host or "", url.port or _PORTS[url.scheme or ""])
        host = self._hosts.get(key)
        if host is None:
            if len(self._hosts) >= MAX_HOSTS:
                self._hosts.popitem(last=False)[1].close()
            host = self._hosts[key] = HttpHost(*key, self._guard)
        self._hosts.move_to_end(key)
        return host

    def _pause(self, backoff: float, tried: int) -> float:
        """Doubled each time and spread by half, lest all flows that failed together come back together."""
        return min(MAX_PAUSE, backoff * 2.0**tried) * (0.5 + self._jitter())

    def _try(self, host: HttpHost, request: HttpRequest, effect: Http) -> dict[str, Any]:
        circuit = host.circuit
        if circuit.refuses(self._clock()):
            self.outcomes["circuit"] += 1
            raise StepError("http.connect", f"{host.name} failed {circuit.failures} times in a row and is given a rest")
        try:
            answer = host.exchange(request, effect.timeout)
        except ExchangeFailed as failure:
            circuit.failed(self._clock())
            self.outcomes[failure.type] += 1
            raise (StepError if failure.sent else _Transient)(failure.type, failure.message) from None
        circuit.succeeded()
        self.outcomes[f"{answer.status // 100}xx"] += 1
        return _judge(host.name, answer, effect.expect)


class _Transient(StepError):
    """Another try may go better: nothing was sent, or the answer was 429 or 5xx."""


# --- effect → request -------------------------------------------------------------------------------------------------


def _parse(text: str) -> Url:
    try:
        url = parse_url(text)
    except LocationValueError:
        url = Url()
    if url.scheme not in _PORTS or not url.host:
        raise StepError("http.connect", "this is not an http: or https: URL")
    return url


def _prepare(effect: Http, url: Url) -> HttpRequest:
    """Method, path with query, headers and body. What the flow says about a header goes before our own."""
    headers = {"user-agent": f"orchestrator/{__version__}", "accept-encoding": "identity"}
    body: bytes | None = None
    if effect.json is not None:
        headers["content-type"] = "application/json"
        body = _json_octets(effect.json)
    elif effect.form is not None:
        headers["content-type"] = "application/x-www-form-urlencoded"
        body = urlencode(effect.form).encode()
    elif effect.body is not None:
        headers["content-type"] = "text/plain; charset=utf-8"
        body = effect.body.encode()
    if effect.auth is not None:
        headers["authorization"] = _basic(*effect.auth)
    headers |= {name.lower(): value for name, value in effect.headers.items()}
    target = url.request_uri
    if effect.query:
        target += ("&" if url.query else "?") + urlencode(effect.query)
    return HttpRequest(effect.method or ("GET" if body is None else "POST"), target, headers, body)


def _basic(user: str, password: str) -> str:
    """Credentials of RFC 7617. Raises StepError: a colon in the user name would move a part of it into the password."""
    if ":" in user or not (user + password).isprintable():
        raise StepError("expr.value", "auth: a user name has no colon, and neither value has control characters")
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


def _json_octets(value: Any) -> bytes:
    try:
        return json.dumps(value, default=_plain, allow_nan=False).encode()
    except (ValueError, RecursionError):
        raise StepError("http.connect", "the body cannot be written as JSON") from None


def _plain(value: Any) -> Any:
    """Views of the core (call, event, contact) are mappings and sequences, though not dicts and lists."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    return str(value)


# --- answer → result --------------------------------------------------------------------------------------------------


def _judge(name: str, answer: Answer, expect: Sequence[str]) -> dict[str, Any]:
    """The `http result`, or the error that this status is."""
    status = answer.status
    if not answer.whole:
        raise StepError("http.status", f"{name} answered {status} with more than {MAX_ANSWER} octets")
    result = {"status": status, "text": _text(answer), "json": _json(answer), "headers": answer.headers}
    if 200 <= status < 300 or str(status) in expect or f"{status // 100}xx" in expect:
        return result
    raise (_Transient if status in _RETRIED else StepError)("http.status", f"{name} answered {status}", result)


def _text(answer: Answer) -> str:
    """The body in the character set that it says it has, in UTF-8 where that is none of the usual ones: the codecs of
    Python include some that are no character sets, and some that take the square of the length in time."""
    _, _, charset = answer.headers.get("content-type", "").lower().partition("charset=")
    name = charset.split(";")[0].strip(" \"'")
    return answer.body.decode(name if _CHARSET.fullmatch(name) and _is_known(name) else "utf-8", "replace")


def _is_known(charset: str) -> bool:
    try:
        codecs.lookup(charset)
    except LookupError:
        return False
    return True


def _json(answer: Answer) -> Any:
    """The body as JSON when it says that it is; null when it is not."""
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        return None
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError):
        return None
