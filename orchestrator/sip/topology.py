"""Topology hiding: who stands on the one side of us does not see who stands on the other.

A copy of a request that is hidden carries our Via alone; the others are kept with its transaction, which the response
finds, and come back into it (OpenSIPS' topology_hiding does the same). The Record-Routes of the hops before us would
be needed by the callee for the whole dialog, so they travel with it: enciphered, as a parameter of ours (`hid`), as
Kamailio's topoh does. Those of the hops behind us travel to the caller the same way. A request inside the dialog brings
the parameter back, and its Route goes on from there. So nothing is kept, and the dialog survives our restart.

Whether a dialog is hidden is in the dialog: the parameter is there, maybe with no route in it. A reload changes nothing
for calls that are in progress.

Contact, From, To, Call-ID and bodies pass as they are: they are the phones' own, and a proxy must not change them.

    hid = base64url(tag ‖ routes ⊕ stream)      tag = H("hide", token, routes)      stream = H("veil", tag, 0), …

`token` is the user part of the same Record-Route, which is bound to the dialog (`sip.route_token`).
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from hashlib import blake2b
from hmac import compare_digest
from typing import Final

from orchestrator.errors import MalformedMessage
from orchestrator.sip.headers import split_commas
from orchestrator.sip.message import Message, Response
from orchestrator.sip.model import line_value

PARAMETER: Final = b"hid"
HIDDEN: Final = frozenset((b"via", b"record-route"))
"""Names of headers that a hidden copy has of us only."""
NOTHING: Final[frozenset[bytes]] = frozenset()
_TAG: Final = 12
"""Octets of the hash."""
_MOST: Final = 8_192
"""Octets of the routes of one side; a proxy that adds more would not fit into a message for long."""


class Veil:
    """Enciphers routes; `key` is that of our Record-Routes."""

    __slots__ = ("_tag", "_stream")

    def __init__(self, key: bytes) -> None:
        self._tag = blake2b(key=key, digest_size=_TAG, person=b"hide")
        self._stream = blake2b(key=key, digest_size=64, person=b"veil")

    def hide(self, token: bytes, routes: Sequence[bytes]) -> bytes:
        """The value of the parameter, for Route values in the order of the Route header."""
        plain = b"\n".join(routes)
        tag = self._hash(token, plain)
        return urlsafe_b64encode(tag + self._cipher(tag, plain)).rstrip(b"=")

    def show(self, token: bytes, value: bytes) -> tuple[bytes, ...] | None:
        """The routes again; None when we have not made this for this token."""
        try:
            octets = urlsafe_b64decode(value + b"=" * (-len(value) % 4))
        except ValueError:
            return None
        tag, rest = octets[:_TAG], octets[_TAG:]
        if len(rest) > _MOST:
            return None
        plain = self._cipher(tag, rest)
        if not compare_digest(self._hash(token, plain), tag):
            return None
        return tuple(plain.split(b"\n")) if plain else ()

    def _hash(self, token: bytes, plain: bytes) -> bytes:
        hashed = self._tag.copy()
        hashed.update(b"%b\n%b" % (token, plain))
        return hashed.digest()

    def _cipher(self, tag: bytes, octets: bytes) -> bytes:
        """Encipher or decipher."""
        out = bytearray()
        for block in range(0, len(octets), 64):
            stream = self._stream.copy()
            stream.update(tag + block.to_bytes(4, "big"))
            out += bytes(a ^ b for a, b in zip(octets[block : block + 64], stream.digest(), strict=False))
        return bytes(out)


class Outer:
    """What a hidden request has kept back: the Via and Record-Route lines of the hops before us."""

    __slots__ = ("vias", "record_routes")

    def __init__(self, request: Message) -> None:
        rows = tuple(zip(request.names, request.lines, strict=True))
        self.vias = tuple(line for name, line in rows if name == b"via")
        self.record_routes = tuple(line for name, line in rows if name == b"record-route")

    def routes(self) -> list[bytes]:
        """The Record-Route values, in the order in which the callee would have them in Route."""
        return [value for line in self.record_routes for value in split_commas(line_value(line))]


def veiled(veil: Veil, lines: Sequence[bytes], at: int, routes: Sequence[bytes]) -> tuple[bytes, ...]:
    """Our Record-Route lines with the routes of one side in the one at `at`: of the callee's copy that is the last, of
    the caller's the first, for it is the last that he comes to."""
    line = lines[at]
    token = _token_of(line)
    told = line[:-1] + b";%b=%b>" % (PARAMETER, veil.hide(token, routes))
    return tuple(told if place == at % len(lines) else other for place, other in enumerate(lines))


def upward(
    veil: Veil,
    response: Response,
    outer: Outer,
    ours: Sequence[bytes],
    from_line: bytes | None = None,
    cseq_line: bytes | None = None,
) -> bytes:
    """The response to a hidden request as the hop before us gets it: with its own Vias, and the Record-Routes of its
    own side below ours (`ours`, as the request carried them), which hold those of the other side. From and CSeq as in
    `forward_response`. Routes of the other side that cannot be read are left out."""
    values = response.get_all(b"record-route")
    routes: tuple[bytes, ...] = ()
    if ours and values:
        token = _token_of(ours[0])
        starts = (b"<sip:%b@" % token, b"<sips:%b@" % token)
        beyond: list[bytes] = []
        for value in _pieces(values):
            if value.startswith(starts):
                break
            beyond.append(value)
        routes = (*veiled(veil, ours, 0, beyond[::-1]), *outer.record_routes)
    lines = [response.start_line, *outer.vias, *routes]
    own = {b"from": from_line, b"cseq": cseq_line}
    for name, line in zip(response.names, response.lines, strict=True):
        if name not in HIDDEN:
            lines.append(own.get(name) or line)
    if not response.has(b"content-length"):
        lines.append(b"Content-Length: %d" % len(response.body))
    lines.append(b"\r\n")
    return b"\r\n".join(lines) + response.body


def _pieces(values: Sequence[bytes]) -> list[bytes]:
    """The single values of header values with commas; none where one is malformed."""
    try:
        return [piece for value in values for piece in split_commas(value)]
    except MalformedMessage:
        return []


def _token_of(line: bytes) -> bytes:
    """The token of a Record-Route line of ours."""
    return line.partition(b"<")[2].partition(b"@")[0].partition(b":")[2]
