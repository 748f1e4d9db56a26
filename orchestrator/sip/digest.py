"""Digest authentication: challenges made and checked without memory of who was challenged (RFC 3261 §22, RFC 8760).

A nonce is its time of issue, a random part and an HMAC over both, the algorithm and the address that was challenged.
So nothing is stored for the stranger who asks, and an answer proves that he can hear what we send to that address.
Only what has been *used* is remembered, the counts `nc` of each nonce, in a table with a bound: when it is full the
oldest entry goes, and every nonce as old as that one is declared stale, so that forgetting never lets a replay in.

The order of the checks matters. A nonce that is not ours, or too old, is answered `stale` before any password is
looked at: whoever makes nonces up learns nothing about passwords and cannot have others locked out. The algorithm is
bound to the nonce, so an answer to the SHA-256 challenge cannot be given in MD5. A client of RFC 2069 answers without
`qop` and is served (RFC 3261 §22.4); without a count its nonce is good for one request.

A nonce stays bound to the address. A phone that changes its network answers with a nonce of the old address, is told
`stale` once and answers the new one without asking its user: one round trip, and no answer can be carried elsewhere.
"""

from __future__ import annotations

import hmac
import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from hashlib import md5, new, sha256
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from orchestrator.errors import MalformedMessage
from orchestrator.sip.grammar import QUOTED, TOKEN, unquote
from orchestrator.sip.uri import Uri, parse_uri

_HASHES: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "SHA-512-256": lambda text: new("sha512_256", text).hexdigest().encode(),
    "SHA-256": lambda text: sha256(text).hexdigest().encode(),
    "MD5": lambda text: md5(text, usedforsecurity=False).hexdigest().encode(),
}
ALGORITHMS: Final = tuple(_HASHES)
"""Those we can check, the strongest first, as RFC 8760 §2.4 offers them. Phones that read only the first challenge and
know only MD5 could not register then."""
_SESSION: Final = "-sess"
SPOKEN: Final = (*ALGORITHMS, *(name + _SESSION for name in ALGORITHMS))
"""The same with their `-sess` variants (RFC 7616 §3.4.2)."""
_SPELT: Final = {name.upper(): name for name in SPOKEN}
DEFAULT_ALGORITHMS: Final = ("MD5",)
"""What the configuration offers by default. A phone of RFC 3261 alone may know only MD5, and some of these give up when
any other algorithm is offered beside it, in whatever order: baresip 1.0 with libre 1.1 (Debian 12)."""
LIFETIME: Final = 300.0
"""Seconds a nonce may be used; after that the phone gets a new one without asking its user."""
MAX_NONCES: Final = 20_000
"""Used nonces remembered: one per phone and `LIFETIME`."""
WINDOW: Final = 64
"""Counts of one nonce that may overtake each other, as UDP lets them."""
_CONTROLS: Final = bytes((*range(32), 127))

_WS: Final = rb"[ \t]*+"
_param = re.compile(_WS + rb"(" + TOKEN + rb"++)" + _WS + rb"=" + _WS + rb"(" + QUOTED + rb"|[^\s,\"]++)" + _WS).match
_is_count = re.compile(rb"[0-9A-Fa-f]{8}").fullmatch


def base_of(algorithm: str) -> str:
    """The algorithm that makes the HA1 of a user: MD5 for MD5-sess."""
    return algorithm.removesuffix(_SESSION)


def canonical(algorithm: str) -> str:
    """An algorithm as it is spelt here; in upper case where it is unknown."""
    return _SPELT.get(algorithm.upper(), algorithm.upper())


def _parse(value: bytes) -> dict[bytes, bytes] | None:
    """Parameters of a `Digest …` value by lower-case name, quotes resolved; None for another scheme.

    Raises:
        MalformedMessage: no list of parameters, or a name twice (two readers could pick different ones).
    """
    scheme, _, tail = value.partition(b" ")
    if scheme.lower() != b"digest":
        return None
    found: dict[bytes, bytes] = {}
    at = 0
    while True:
        match = _param(tail, at)
        if match is None:
            raise MalformedMessage("Malformed Credentials")
        name = match[1].lower()
        if name in found:
            raise MalformedMessage("Duplicate Digest Parameter")
        found[name] = unquote(match[2])
        at = match.end()
        if at == len(tail):
            return found
        if tail[at : at + 1] != b",":
            raise MalformedMessage("Malformed Credentials")
        at += 1


# --- credentials ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Credentials:
    """An (Proxy-)Authorization value. `algorithm` is as written, MD5 where it is not."""

    user: str
    realm: str
    nonce: str
    uri: bytes
    response: bytes
    algorithm: str = "MD5"
    qop: str = ""
    cnonce: bytes = b""
    count: bytes = b""
    """`nc` as written: eight hexadecimal digits, checked."""
    hashed: bool = False
    """`user` is H(user:realm) in place of the name (RFC 7616 §3.4.4)."""


def parse_credentials(value: bytes) -> Credentials | None:
    """One Authorization value; None when its scheme is not Digest.

    Raises:
        MalformedMessage: garbled, or a parameter is missing that RFC 3261 §25.1 asks for.
    """
    found = _parse(value)
    if found is None:
        return None
    try:
        if b"username*" in found:
            found.setdefault(b"username", _extended(found[b"username*"]))
        user, realm, nonce = (found[name].decode("utf-8", "replace") for name in (b"username", b"realm", b"nonce"))
        uri, response = found[b"uri"], found[b"response"]
    except KeyError as missing:
        raise MalformedMessage(f"Credentials Without {missing.args[0].decode().title()}") from None
    count, qop = found.get(b"nc", b""), found.get(b"qop", b"").decode("ascii", "replace").lower()
    if qop and (_is_count(count) is None or b"cnonce" not in found):
        raise MalformedMessage("Malformed Nonce Count")
    algorithm, hashed = canonical(found.get(b"algorithm", b"MD5").decode("ascii", "replace")), found.get(b"userhash")
    if algorithm.endswith(_SESSION) and b"cnonce" not in found:
        raise MalformedMessage("Credentials Without Cnonce")
    return Credentials(
        user, realm, nonce, uri, response.lower(), algorithm, qop, found.get(b"cnonce", b""), count,
        hashed is not None and hashed.lower() == b"true",
    )  # fmt: skip


def _extended(value: bytes) -> bytes:
    """The name in a `username*` (RFC 7616 §3.4, RFC 8187). Raises MalformedMessage."""
    charset, quote, rest = value.partition(b"'")
    _, again, text = rest.partition(b"'")
    if not quote or not again or charset.upper() != b"UTF-8":
        raise MalformedMessage("Malformed Username")
    return unquote_to_bytes(text)


def find_credentials(values: Iterable[bytes], realm: str) -> tuple[int, Credentials] | None:
    """The credentials for a realm among all values of a header, with their position; those for others are not ours to
    judge.

    Raises:
        MalformedMessage: one of them is garbled, and nobody can say whose it is.
    """
    for position, value in enumerate(values):
        credentials = parse_credentials(value)
        if credentials is not None and credentials.realm == realm:
            return position, credentials
    return None


def ha1(algorithm: str, user: str, realm: str, password: str) -> bytes:
    """The hash that stands for a password (RFC 7616 §3.4.2), as hexadecimal digits."""
    return _HASHES[base_of(algorithm)](f"{user}:{realm}:{password}".encode())


def user_hash(algorithm: str, user: str, realm: str) -> str:
    """What stands for the name of a user where `userhash` is asked for (RFC 7616 §3.4.4)."""
    return _HASHES[base_of(algorithm)](f"{user}:{realm}".encode()).decode()


def is_hash(algorithm: str, text: Any) -> bool:
    """Whether this is an HA1 of that algorithm, as hexadecimal digits."""
    length = 32 if algorithm == "MD5" else 64
    return isinstance(text, str) and len(text) == length and all(digit in "0123456789abcdefABCDEF" for digit in text)


def response_of(secret: bytes, credentials: Credentials, method: bytes, body: bytes = b"") -> bytes:
    """What `response` has to be for the HA1 `secret` (RFC 7616 §3.4.1), with the qop the credentials name; `body` is
    the message's, for auth-int."""
    digest, nonce = _HASHES[base_of(credentials.algorithm)], credentials.nonce.encode()
    if credentials.algorithm.endswith(_SESSION):
        secret = digest(b":".join((secret, nonce, credentials.cnonce)))
    parts = [secret, nonce]
    if credentials.qop:
        parts += [credentials.count, credentials.cnonce, credentials.qop.encode()]
    about = method + b":" + credentials.uri
    if credentials.qop == "auth-int":
        about += b":" + digest(body)
    return digest(b":".join((*parts, digest(about))))


@dataclass(frozen=True, slots=True)
class Secret:
    """What a user table knows of a user: the password, or hashes of it. `ha1` maps algorithms to hexadecimal digits."""

    password: str | None = None
    ha1: Mapping[str, str] | None = None

    @property
    def algorithms(self) -> tuple[str, ...]:
        """Those this user can be checked with."""
        known = self.ha1 or {}
        return ALGORITHMS if self.password is not None else tuple(name for name in ALGORITHMS if known.get(name))

    def hash(self, algorithm: str, user: str, realm: str) -> bytes | None:
        """HA1 for an algorithm; None when the table has none."""
        algorithm = base_of(algorithm)
        if self.password is not None:
            return ha1(algorithm, user, realm, self.password)
        known = (self.ha1 or {}).get(algorithm)
        return known.lower().encode() if known else None

    def __repr__(self) -> str:
        return "<Secret>"


NOBODY: Final = Secret(password="")
"""Stands in for the user who is not there, so that his absence does not show in the time an answer takes."""


# --- nonces -----------------------------------------------------------------------------------------------------------


class Nonces:
    """Makes nonces and knows its own. `key` is secret, `random()` gives a word; `now` is one monotonic clock."""

    def __init__(self, key: bytes, random: Callable[[], bytes], lifetime: float = LIFETIME, room: int = MAX_NONCES):
        self._key = key
        self._random = random
        self._lifetime = lifetime
        self._room = room
        self._used: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self._floor = -1
        """Nonces issued at this second or before count as used up unless they stand in the table."""

    def make(self, now: float, source: str, algorithm: str) -> str:
        """A nonce for one challenge to an address."""
        head = b"%08x%b" % (int(now), self._random()[:12])
        return (head + self._mark(head, source, algorithm)).decode()

    def _mark(self, head: bytes, source: str, algorithm: str) -> bytes:
        bound = b"%b %b %b" % (head, source.encode(), algorithm.encode())
        return hmac.new(self._key, bound, sha256).hexdigest()[:32].encode()

    def is_fresh(self, nonce: str, now: float, source: str, algorithm: str) -> bool:
        """Whether we made it for this address and algorithm, not longer ago than its lifetime."""
        octets = nonce.encode()
        head = octets[:20]
        if len(octets) != 52 or not hmac.compare_digest(octets[20:], self._mark(head, source, algorithm)):
            return False
        issued = int(head[:8], 16)
        return now - issued <= self._lifetime and (issued > self._floor or nonce in self._used)

    def use(self, nonce: str, count: int) -> bool:
        """Take a count of a fresh nonce; False when it was taken before (a replay)."""
        highest, seen = self._used.get(nonce, (0, 0))
        if count > highest:
            shift = count - highest
            self._used[nonce] = count, ((seen << shift) | 1) & ((1 << WINDOW) - 1) if shift < WINDOW else 1
            self._bound()
            return True
        bit = 1 << (highest - count)
        if highest - count >= WINDOW or seen & bit or not count:
            return False
        self._used[nonce] = highest, seen | bit
        return True

    def _bound(self) -> None:
        while len(self._used) > self._room:
            oldest, _ = self._used.popitem(last=False)
            self._floor = max(self._floor, int(oldest[:8], 16))

    def __len__(self) -> int:
        return len(self._used)


def challenges(
    nonces: Nonces,
    realm: str,
    now: float,
    source: str,
    stale: bool = False,
    algorithms: Iterable[str] = ALGORITHMS,
    qop: Iterable[str] = ("auth",),
    userhash: bool = False,
) -> tuple[bytes, ...]:
    """Values of WWW-Authenticate or Proxy-Authenticate, one per algorithm, in the order given."""
    quoted, asked = _quoted(realm.encode()), ",".join(qop).encode()
    hint = (b", stale=true" if stale else b"") + (b", userhash=true" if userhash else b"")
    return tuple(
        b'Digest realm=%b, nonce="%b", algorithm=%b, qop="%b"%b'
        % (quoted, nonces.make(now, source, algorithm).encode(), algorithm.encode(), asked, hint)
        for algorithm in algorithms
    )


def is_readable(credentials: Credentials, qop: Collection[str] = ("auth",)) -> bool:
    """Whether the credentials are of a kind we can check at all; a new nonce would not help those that are not. `qop`
    is what we ask for."""
    return credentials.algorithm in SPOKEN and (credentials.qop in qop or (not credentials.qop and "auth" in qop))


def acceptable(
    credentials: Credentials, nonces: Nonces, now: float, source: str, qop: Collection[str] = ("auth",)
) -> bool:
    """Whether the credentials answer a challenge of ours that still stands. If not, nobody looks at the password."""
    return is_readable(credentials, qop) and nonces.is_fresh(credentials.nonce, now, source, credentials.algorithm)


def proves(credentials: Credentials, secret: Secret | None, method: bytes, target: Uri, body: bytes = b"") -> bool:
    """Whether the response was made with the password, for this request (RFC 7616 §3.4.6: its URI is checked)."""
    known = secret or NOBODY
    hashed = known.hash(credentials.algorithm, credentials.user, credentials.realm)
    wanted = response_of(hashed or b"-", credentials, method, body)
    right = hmac.compare_digest(wanted, credentials.response)
    return right and secret is not None and hashed is not None and _same_resource(credentials.uri, target)


def _same_resource(written: bytes, target: Uri) -> bool:
    """Scheme, user, host and port are compared; parameters that phones leave out or proxies add are not."""
    try:
        uri = parse_uri(written)
    except MalformedMessage:
        return False
    if not (uri.is_sip and target.is_sip):
        return bytes(uri) == bytes(target)
    return (uri.user, uri.host.lower(), uri.port or 5060) == (target.user, target.host.lower(), target.port or 5060)


def count_of(credentials: Credentials) -> int:
    """`nc` as a number; 1 for a client that does not count, whose nonce is used up by that."""
    return int(credentials.count, 16) if credentials.qop else 1


# --- answering a gateway ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Account:
    """Our user at a gateway. With a `realm` no other realm's challenge is answered."""

    user: str
    password: str
    realm: str = ""

    def answer(
        self, values: Iterable[bytes], method: bytes, uri: bytes, cnonce: bytes, used: Iterable[str] = ()
    ) -> tuple[bytes, str] | None:
        """An Authorization value for the first challenge we can answer, and its nonce; None when there is none.

        A challenge is answered again only when it says `stale` and its nonce is not among the `used`.
        """
        before = tuple(used)
        for value in values:
            try:
                challenge = _parse(value)
            except MalformedMessage:
                continue
            if challenge is None or (before and not _is_stale(challenge, before)):
                continue
            answered = self._answer(challenge, method, uri, cnonce)
            if answered is not None:
                return answered, challenge[b"nonce"].decode("utf-8", "replace")
        return None

    def _answer(self, challenge: Mapping[bytes, bytes], method: bytes, uri: bytes, cnonce: bytes) -> bytes | None:
        realm = challenge.get(b"realm", b"").decode("utf-8", "replace")
        algorithm = canonical(challenge.get(b"algorithm", b"MD5").decode("ascii", "replace"))
        offered = [word.strip().lower() for word in challenge.get(b"qop", b"").split(b",") if word.strip()]
        nonce = challenge.get(b"nonce", b"")
        if (self.realm and realm != self.realm) or algorithm not in SPOKEN or not nonce:
            return None
        if offered and b"auth" not in offered:
            return None
        fields = Credentials(self.user, realm, nonce.decode("utf-8", "replace"), uri, b"", algorithm)
        if offered:
            fields = Credentials(self.user, realm, fields.nonce, uri, b"", algorithm, "auth", cnonce, b"00000001")
        response = response_of(ha1(algorithm, self.user, realm, self.password), fields, method)
        parts = [
            b"username=" + _quoted(self.user.encode()),
            b"realm=" + _quoted(challenge.get(b"realm", b"")),
            b"nonce=" + _quoted(nonce),
            b"uri=" + _quoted(uri),
            b"response=" + _quoted(response),
            b"algorithm=" + algorithm.encode(),
        ]
        if offered:
            parts += [b"qop=auth", b"nc=00000001", b"cnonce=" + _quoted(cnonce)]
        if b"opaque" in challenge:
            parts.append(b"opaque=" + _quoted(challenge[b"opaque"]))
        return b"Digest " + b", ".join(parts)

    def __repr__(self) -> str:
        return f"<Account {self.user}>"


def _is_stale(challenge: Mapping[bytes, bytes], used: tuple[str, ...]) -> bool:
    nonce = challenge.get(b"nonce", b"").decode("utf-8", "replace")
    return challenge.get(b"stale", b"").lower() == b"true" and nonce not in used


def _quoted(text: bytes) -> bytes:
    """A quoted string; control characters, which no realm or user is made of, are left out."""
    text = text.translate(None, _CONTROLS)
    return b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
