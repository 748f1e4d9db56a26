"""SIP URIs and the name-addr around them (RFC 3261 §19.1, §20).

A URI is what calls are routed by, so its reading is strict: one expression takes the whole text or the URI is malformed. The user
part is everything up to the last possible '@' (it may hold ';', '?' and '/', RFC 4475 semiuri), ports are 1-65535, IPv6 stands in
brackets. Schemes other than sip and sips are kept opaque: a proxy forwards them in headers and answers 416 in a Request-URI.

Escapes are left as they came and resolved once where two URIs are compared or shown (RFC 4475 esc01): `value%25%34%31` is
'value%41'. A user part that is not UTF-8 after that is refused, so that two different users can never read as the same AOR.
"""

from __future__ import annotations

import re
from typing import Final

from orchestrator.errors import MalformedMessage
from orchestrator.sip.grammar import HEX, HOST, PORT, QUOTED, parse_params, unescape, unquote

_USER_CHAR: Final = rb"[A-Za-z0-9\-_.!~*'()&=+$,;?/#]"
_PASSWORD_CHAR: Final = rb"[A-Za-z0-9\-_.!~*'()&=+$,]"
_PARAM_CHAR: Final = rb"[A-Za-z0-9\-_.!~*'()\[\]/:&+$,]"
_HEADER_CHAR: Final = rb"[A-Za-z0-9\-_.!~*'()\[\]/?:+$=&;,@]"


def _escaped(char: bytes, least: bytes = b"+") -> bytes:
    """Repeat of `char` with %HH between; deterministic, because no class holds '%'."""
    body = rb"(?:%" + HEX + rb"{2}" + char + rb"*+)*+"
    return (rb"(?:" + char + rb"++" + body + rb"|%" + HEX + rb"{2}" + char + rb"*+" + body + rb")") if least == b"+" else char + rb"*+" + body


_URI_PARAM: Final = rb";" + _escaped(_PARAM_CHAR) + rb"(?:=" + _escaped(_PARAM_CHAR) + rb")?+"
SIP_URI: Final = (
    rb"([Ss][Ii][Pp][Ss]?):(?:(" + _escaped(_USER_CHAR) + rb")(?::(" + _escaped(_PASSWORD_CHAR, b"*") + rb"))?@)?(" + HOST + rb")(?::("
    + PORT + rb"))?((?:" + _URI_PARAM + rb")*+)(?:\?(" + _escaped(_HEADER_CHAR) + rb"))?"
)  # fmt: skip
"""Groups: scheme, user, password, host, port, params, headers."""
OPAQUE_URI: Final = rb"([A-Za-z][A-Za-z0-9+\-.]*+):([!-;=?-~]++)"

_sip_uri = re.compile(SIP_URI).fullmatch
_opaque_uri = re.compile(OPAQUE_URI).fullmatch
_uri_params = re.compile(rb";([^;=]++)(=?)([^;]*+)").findall
_reserved_escape = re.compile(rb"%(" + HEX + rb"{2})")
_RESERVED: Final = frozenset(b";/?:@&=+$,")


class Uri:
    """One URI. All parts are raw octets, except `params`, whose names (lower-case) and values are unescaped.

    For a scheme other than sip and sips only `scheme` and `opaque` are set. Never changed after it was parsed.
    """

    __slots__ = ("scheme", "user", "password", "host", "port", "headers", "opaque", "_raw", "_tail", "_params")

    def __init__(self, raw: bytes, scheme: bytes, host: bytes, opaque: bytes = b"") -> None:
        self.scheme = scheme
        self.user = b""
        self.password: bytes | None = None
        self.host = host
        self.port: int | None = None
        self.headers = b""
        self.opaque = opaque
        self._raw = raw
        self._tail = b""
        self._params: dict[bytes, bytes | None] | None = None

    @property
    def is_sip(self) -> bool:
        return not self.opaque

    @property
    def params(self) -> dict[bytes, bytes | None]:
        params = self._params
        if params is None:
            params = self._params = _parse_uri_params(self._tail)
        return params

    @property
    def transport(self) -> bytes | None:
        """Value of the transport parameter in lower case, None when absent."""
        value = self.params.get(b"transport") if self._tail else None
        return value.lower() if value else None

    @property
    def lr(self) -> bool:
        """Whether this is a loose router's URI (§19.1.1)."""
        return b"lr" in self.params if self._tail else False

    @property
    def aor(self) -> str:
        """`user@host`, unescaped once, host in lower case, without port and parameters; the host alone when no user is given.

        A URI of another scheme gives its text.
        """
        if self.opaque:
            return (self.scheme + b":" + self.opaque).decode()
        host = self.host.lower().decode()
        return f"{unescape(self.user).decode()}@{host}" if self.user else host

    def __bytes__(self) -> bytes:
        return self._raw

    def __eq__(self, other: object) -> bool:
        return uris_equal(self, other) if isinstance(other, Uri) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # equality of §19.1.4 is not transitive

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


def uri_of_match(raw: bytes, match: re.Match[bytes], first: int = 1) -> Uri:
    """The `Uri` of a match of `SIP_URI` whose groups begin at `first`."""
    scheme, user, password, host, port, tail, headers = match.group(*range(first, first + 7))
    uri = Uri(raw, scheme.lower(), host)
    if user is not None:
        uri.user = user
        uri.password = password
        if b"%" in user:
            _check_user(user)
    if port is not None:
        uri.port = int(port)
    if tail:
        uri._tail = tail
        if tail.count(b";") > 1:
            uri._params = _parse_uri_params(tail)  # only here can a name stand twice
    if headers is not None:
        uri.headers = headers
    return uri


def parse_uri(raw: bytes) -> Uri:
    """Read a whole URI.

    Raises:
        MalformedMessage: it is none, a port is not in 1-65535, a parameter stands twice, a user is not UTF-8.
    """
    match = _sip_uri(raw)
    if match is not None:
        return uri_of_match(raw, match)
    opaque = _opaque_uri(raw)
    if opaque is None or opaque[1].lower() in (b"sip", b"sips"):
        raise MalformedMessage("Malformed URI")
    return Uri(raw, opaque[1].lower(), b"", opaque[2])


def _fold_escapes(text: bytes) -> bytes:
    """Normal form for comparing: an escape of an unreserved octet is that octet (§19.1.4), of a reserved one stays."""

    def resolve(match: re.Match[bytes]) -> bytes:
        code = int(match[1], 16)
        return b"%%%02X" % code if code in _RESERVED or code == 0x25 else bytes([code])

    return _reserved_escape.sub(resolve, text) if b"%" in text else text


_BOTH_OR_NONE: Final = (b"transport", b"user", b"ttl", b"method", b"maddr")


def _params_equal(a: dict[bytes, bytes | None], b: dict[bytes, bytes | None]) -> bool:
    if any((name in a) != (name in b) for name in _BOTH_OR_NONE):
        return False
    return all((a[name] or b"").lower() == (b[name] or b"").lower() for name in a.keys() & b.keys())


def _headers_key(headers: bytes) -> list[bytes]:
    return sorted(_fold_escapes(pair).lower() for pair in headers.split(b"&"))


def uris_equal(a: Uri, b: Uri) -> bool:
    """RFC 3261 §19.1.4: user and password by case, the rest not; other parameters count only where both have them."""
    if a._raw == b._raw:
        return True
    if a.scheme != b.scheme or a.opaque != b.opaque or a.port != b.port or a.host.lower() != b.host.lower():
        return False
    if _fold_escapes(a.user) != _fold_escapes(b.user) or _fold_escapes(a.password or b"") != _fold_escapes(b.password or b""):
        return False
    return _params_equal(a.params, b.params) and _headers_key(a.headers) == _headers_key(b.headers)


class NameAddr:
    """name-addr or addr-spec with the header's parameters: From, To, Contact, Route … (§20.10).

    `uri` is the raw URI, None for `Contact: *`; `display` is without quotes; `params` has lower-case names and unquoted values.
    """

    __slots__ = ("display", "uri", "_tail", "_params", "_parsed")

    def __init__(self, display: bytes, uri: bytes | None, tail: bytes) -> None:
        self.display = display
        self.uri = uri
        self._tail = tail
        self._params: dict[bytes, bytes | None] | None = None
        self._parsed: Uri | None = None

    @property
    def star(self) -> bool:
        return self.uri is None

    @property
    def parsed(self) -> Uri:
        """The URI. Raises MalformedMessage when there is none (`Contact: *`) or it is malformed."""
        parsed = self._parsed
        if parsed is None:
            if self.uri is None:
                raise MalformedMessage("Contact Without URI")
            parsed = self._parsed = parse_uri(self.uri)
        return parsed

    @property
    def params(self) -> dict[bytes, bytes | None]:
        params = self._params
        if params is None:
            params = self._params = parse_params(self._tail)
        return params

    @property
    def tag(self) -> bytes | None:
        return self.params.get(b"tag") if self._tail else None

    @property
    def q(self) -> float:
        """Preference 0.0-1.0; 1.0 when absent or unreadable (§20.10 asks for no more)."""
        value = self.params.get(b"q")
        return float(value) if value and _is_qvalue(value) else 1.0

    @property
    def expires(self) -> int | None:
        """Seconds of the expires parameter, None when absent or unreadable (then §10.2.1.1: as if absent)."""
        value = self.params.get(b"expires")
        return min(int(value), 2**32 - 1) if value and value.isdigit() and len(value) <= 20 else None

    def __repr__(self) -> str:
        return f"<NameAddr {self.display!r} {self.uri!r}{self._tail!r}>"


_is_qvalue = re.compile(rb"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?").fullmatch
_DISPLAY: Final = rb'[^\x00-\x08\x0a-\x1f\x7f"<>,;:@\\]*+'
"""Unquoted display name: tokens by the letter, any printable but separators here. A comma would end the value (RFC 4475 baddn)."""
NAME_ADDR: Final = rb"(" + QUOTED + rb"|" + _DISPLAY + rb")[ \t]*+<([^<>\x00-\x20\x7f]++)>[ \t]*+(;.*)?"
ADDR_SPEC: Final = rb"([A-Za-z][A-Za-z0-9+\-.]*+:[^<>;?,\x00-\x20\x7f\"]++)[ \t]*+(;.*)?"
_name_addr = re.compile(NAME_ADDR, re.DOTALL).fullmatch
_addr_spec = re.compile(ADDR_SPEC, re.DOTALL).fullmatch


def parse_name_addr(value: bytes) -> NameAddr:
    """Read one value (unfolded, stripped, not a comma list). URI and parameters are read, and so checked, at once.

    Outside of <> a URI ends at ';' and must hold no '?' and no ',' (§20: RFC 4475 regbadct).

    Raises:
        MalformedMessage
    """
    match = _name_addr(value)
    if match is not None:
        display, uri, tail = match.groups()
        address = NameAddr(unquote(display.strip()), uri, tail or b"")
    else:
        match = _addr_spec(value)
        if match is None:
            raise MalformedMessage("Malformed Address")
        address = NameAddr(b"", match[1], match[2] or b"")
    address._parsed = parse_uri(address.uri or b"")
    address._params = parse_params(address._tail)
    return address
