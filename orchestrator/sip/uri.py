"""SIP URIs and the name-addr around them (RFC 3261 §19.1, §20).

A URI is what calls are routed by, so its reading is strict: one expression takes the whole text or the URI is
malformed. The user part ends at the only '@' (it may hold ';', '?' and '/', RFC 4475 semiuri), ports are 1-65535, IPv6
stands in brackets. Schemes other than sip and sips are kept opaque: a proxy forwards them in headers and answers 416
to them in a Request-URI.

Escapes are left as they came and resolved once where two URIs are compared or shown (RFC 4475 esc01):
`value%25%34%31` is 'value%41'. A user part that is not UTF-8 after that is refused, so that two different users can
never read as the same AOR.
"""

from __future__ import annotations

import re
from typing import Final

from orchestrator.errors import MalformedMessage
from orchestrator.sip.grammar import (
    BLANKS,
    HEX,
    HOST,
    PERCENT,
    PORT,
    QUOTED,
    parse_params,
    read_number,
    unescape,
    unquote,
)

# --- URI ------------------------------------------------------------------------------------------------------------

USER_CHAR: Final = rb"[A-Za-z0-9\-_.!~*'()&=+$,;?/#]"
"""user of §25.1 without escapes; '#' should be escaped and is not by phones that dial `#31#`."""
PARAM_CHAR: Final = rb"[A-Za-z0-9\-_.!~*'()\[\]/:&+$]"
"""paramchar without escapes."""
_VALUE_CHAR: Final = rb"[A-Za-z0-9\-_.!~*'()\[\]/:&+$,=]"
"""paramchar, and what push tokens hold unescaped in the field."""
_PASSWORD_CHAR: Final = rb"[A-Za-z0-9\-_.!~*'()&=+$,]"
_HEADER_CHAR: Final = rb"[A-Za-z0-9\-_.!~*'()\[\]/?:+$=&;,@]"


def _escaped(chars: bytes) -> bytes:
    """One or more of a class or %HH; deterministic, because no class holds '%'."""
    return rb"(?:" + chars + rb"++|%" + HEX + rb"{2})++"


_USERINFO: Final = rb"(?:(" + _escaped(USER_CHAR) + rb")(?::((?:" + _escaped(_PASSWORD_CHAR) + rb")?+))?+@)?+"
_URI_PARAM: Final = rb";" + _escaped(PARAM_CHAR) + rb"(?:=(?:" + _escaped(_VALUE_CHAR) + rb")?+)?+"
"""`;lr=` is read like `;lr`, and one `;` may be left over at the end (`sip.tolerance`)."""
_sip_uri = re.compile(
    rb"([Ss][Ii][Pp][Ss]?):" + _USERINFO + rb"(" + HOST + rb")(?::(" + PORT + rb"))?+"
    rb"((?:" + _URI_PARAM + rb")*+;?+)(?:\?(" + _escaped(_HEADER_CHAR) + rb"))?+"
).fullmatch  # fmt: skip
_opaque_uri = re.compile(rb"([A-Za-z][A-Za-z0-9+\-.]*+):([!-;=?-~]++)").fullmatch
_uri_params = re.compile(rb";([^;=]++)(=?)([^;]*+)").findall
_transport = re.compile(rb";transport=([^;]++)", re.IGNORECASE).search
_PLAIN_TRANSPORTS: Final = {
    b";transport=" + written: name
    for name in (b"udp", b"tcp", b"tls", b"ws", b"wss")
    for written in (name, name.upper())
}
"""Parameters that most URIs have which name a transport, and that transport."""
_each_escape = re.compile(rb"%(" + HEX + rb"{2})")


class Uri:
    """One URI. Parts are raw octets, but `params`, whose names (lower-case) and values are unescaped.

    For a scheme other than sip and sips only `scheme` and `opaque` are set. Never changed after it was parsed.
    """

    __slots__ = ("scheme", "user", "password", "host", "port", "headers", "opaque", "_raw", "_tail", "_params")

    def __init__(
        self,
        raw: bytes,
        scheme: bytes,
        user: bytes = b"",
        password: bytes | None = None,
        host: bytes = b"",
        port: int | None = None,
        params: bytes = b"",
        headers: bytes = b"",
        opaque: bytes = b"",
    ) -> None:
        """The parts as `parse_uri` cut them; `params` is the raw `;name=value` list."""
        self.scheme = scheme
        self.user = user
        self.password = password
        self.host = host
        self.port = port
        self.headers = headers
        self.opaque = opaque
        self._raw = raw
        self._tail = params
        self._params: dict[bytes, bytes | None] | None = None

    @property
    def is_sip(self) -> bool:
        """Whether the scheme is sip or sips."""
        return not self.opaque

    @property
    def params(self) -> dict[bytes, bytes | None]:
        """URI parameters: name in lower case → value, None for a flag; both unescaped."""
        params = self._params
        if params is None:
            params = self._params = _parse_uri_params(self._tail)
        return params

    @property
    def is_plain(self) -> bool:
        """Whether it has no parameters, or only one that names a transport: at a glance, some others have none, too."""
        return not self._tail or self._tail in _PLAIN_TRANSPORTS

    @property
    def transport(self) -> bytes | None:
        """Value of the transport parameter in lower case, None when absent."""
        tail = self._tail
        if not tail:
            return None
        plain = _PLAIN_TRANSPORTS.get(tail)
        if plain is not None:
            return plain
        if PERCENT in tail:
            value = self.params.get(b"transport")
            return value.lower() if value else None
        match = _transport(tail)
        return match[1].lower() if match is not None else None

    @property
    def username(self) -> str:
        """The user part for humans and flows: unescaped once."""
        return unescape(self.user).decode()

    @property
    def aor(self) -> str:
        """`user@host`, unescaped once, host in lower case, no port, no parameters; the host alone without a user.

        A URI of another scheme gives its text.
        """
        if self.opaque:
            return (self.scheme + b":" + self.opaque).decode("utf-8", "replace")
        host = self.host.lower().decode()
        return f"{self.username}@{host}" if self.user else host

    def __bytes__(self) -> bytes:
        return self._raw

    def __repr__(self) -> str:
        return f"<Uri {self._raw!r}>"


def _parse_uri_params(tail: bytes) -> dict[bytes, bytes | None]:
    found = _uri_params(tail)
    params = {unescape(name).lower(): unescape(value) if equals else None for name, equals, value in found}
    if len(params) != len(found):
        raise MalformedMessage("Duplicate URI Parameter")
    return params


def _check_user(user: bytes) -> None:
    try:
        unescape(user).decode()
    except UnicodeDecodeError:
        raise MalformedMessage("Malformed URI User") from None


def parse_uri(raw: bytes) -> Uri:
    """Read a whole URI.

    Raises:
        MalformedMessage: it is none, a port is not in 1-65535, a parameter stands twice, a user is not UTF-8.
    """
    match = _sip_uri(raw)
    if match is None:
        return _parse_opaque(raw)
    scheme, user, password, host, port, params, headers = match.groups()
    uri = Uri(raw, scheme.lower(), user or b"", password, host, int(port) if port else None, params, headers or b"")
    if PERCENT in uri.user:
        _check_user(uri.user)
    if params.count(b";") > 1:
        uri._params = _parse_uri_params(params)  # only here can a name stand twice
    return uri


_MOST_KNOWN: Final = 2_000
_known: dict[bytes, Uri] = {}


def parse_known_uri(raw: bytes) -> Uri:
    """`parse_uri` for one that is read again and again, as the contact of a phone: the same `Uri`, which never changes.
    Some are remembered; the table starts afresh when full."""
    uri = _known.get(raw)
    if uri is None:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        uri = _known[raw] = parse_uri(raw)
    return uri


def _parse_opaque(raw: bytes) -> Uri:
    match = _opaque_uri(raw)
    if match is None or match[1].lower() in (b"sip", b"sips"):
        raise MalformedMessage("Malformed URI")
    return Uri(raw, match[1].lower(), opaque=match[2])


# --- comparison (§19.1.4) -------------------------------------------------------------------------------------------

_RESERVED: Final = frozenset(b";/?:@&=+$,%")
_BOTH_OR_NONE: Final = (b"transport", b"user", b"ttl", b"method", b"maddr")


def _fold_escape(match: re.Match[bytes]) -> bytes:
    code = int(match[1], 16)
    return match[0].upper() if code in _RESERVED else bytes([code])


def _fold_escapes(text: bytes | None) -> bytes:
    """Normal form: the escape of an unreserved octet is that octet, of a reserved one it stays an escape."""
    return _each_escape.sub(_fold_escape, text or b"")


def _params_equal(a: dict[bytes, bytes | None], b: dict[bytes, bytes | None]) -> bool:
    if any((name in a) != (name in b) for name in _BOTH_OR_NONE):
        return False
    return all((a[name] or b"").lower() == (b[name] or b"").lower() for name in a.keys() & b.keys())


def _headers_key(headers: bytes) -> list[bytes]:
    return sorted(_fold_escapes(pair).lower() for pair in headers.split(b"&"))


def uris_equal(a: Uri, b: Uri) -> bool:
    """RFC 3261 §19.1.4: user and password by case, the rest not; other parameters count only where both have them.

    The relation is not transitive, which is why `Uri` has no `==` of its own.
    """
    if a._raw == b._raw:
        return True
    if (a.scheme, a.opaque, a.port, a.host.lower()) != (b.scheme, b.opaque, b.port, b.host.lower()):
        return False
    if _fold_escapes(a.user) != _fold_escapes(b.user) or _fold_escapes(a.password) != _fold_escapes(b.password):
        return False
    return _params_equal(a.params, b.params) and _headers_key(a.headers) == _headers_key(b.headers)


# --- name-addr ------------------------------------------------------------------------------------------------------

_DISPLAY: Final = rb'[^\x00-\x08\x0a-\x1f\x7f"<>,;:@\\]*+'
"""Unquoted display name: by the letter tokens, here all but separators. A comma ends the value (RFC 4475 baddn)."""
_name_addr = re.compile(
    rb"(" + QUOTED + rb"|" + _DISPLAY + rb")[ \t]*+<([^<>\x00-\x20\x7f]++)>[ \t]*+(;.*)?", re.DOTALL
).fullmatch
_addr_spec = re.compile(rb'([A-Za-z][A-Za-z0-9+\-.]*+:[^<>;?,\x00-\x20\x7f"]++)[ \t]*+(;.*)?', re.DOTALL).fullmatch
_is_qvalue = re.compile(rb"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?").fullmatch


class NameAddr:
    """name-addr or addr-spec with the header's parameters: From, To, Contact, Route … (§20.10).

    `uri` is the raw URI, None for `Contact: *`; `display` is without quotes.
    """

    __slots__ = ("display", "uri", "_parsed", "params")

    def __init__(
        self, display: bytes, uri: bytes | None, parsed: Uri | None, params: dict[bytes, bytes | None]
    ) -> None:
        self.display = display
        self.uri = uri
        self._parsed = parsed
        self.params = params
        """Header parameters: name in lower case → value without quotes, None for a flag."""

    @property
    def star(self) -> bool:
        """Whether this is the `*` of `Contact: *` (§10.2.2)."""
        return self.uri is None

    @property
    def parsed(self) -> Uri:
        """The URI.

        Raises:
            MalformedMessage: there is none (`Contact: *`).
        """
        if self._parsed is None:
            raise MalformedMessage("Contact Without URI")
        return self._parsed

    @property
    def tag(self) -> bytes | None:
        """The tag parameter of a From or To (§19.3)."""
        return self.params.get(b"tag")

    @property
    def q(self) -> float:
        """Preference 0.0-1.0; 1.0 when absent or unreadable (§20.10)."""
        value = self.params.get(b"q")
        return float(value) if value and _is_qvalue(value) else 1.0

    @property
    def expires(self) -> int | None:
        """Seconds of the expires parameter, capped at 2**32-1; None when absent or unreadable (§10.2.1.1)."""
        return read_number(self.params.get(b"expires"))

    def __repr__(self) -> str:
        return f"<NameAddr {self.display!r} {self.uri!r} {self.params!r}>"


def parse_name_addr(value: bytes) -> NameAddr:
    """Read one value (unfolded, stripped, not a comma list), its URI and parameters at once.

    Outside of <> a URI ends at ';' and may hold no '?' and no ',' (§20, RFC 4475 regbadct).

    Raises:
        MalformedMessage: the value, the URI or a parameter is malformed.
    """
    match = _name_addr(value)
    if match is not None:
        display, uri, tail = match.groups()
        return NameAddr(unquote(display.strip(BLANKS)), uri, parse_uri(uri), parse_params(tail or b""))
    match = _addr_spec(value)
    if match is None:
        raise MalformedMessage("Malformed Address")
    return NameAddr(b"", match[1], parse_uri(match[1]), parse_params(match[2] or b""))
