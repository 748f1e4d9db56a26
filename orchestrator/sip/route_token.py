"""What our Record-Route says about its dialog: that it is one of ours, and where a phone behind NAT was seen.

The user part of the URI that we put into Record-Route (RFC 3261 §16.6 step 4) is a token. It comes back in the Route of
every request inside the dialog, from either side, octet for octet (§12.2.1.1), so it is a memory that costs us nothing
and survives our restart. RFC 5626 §5.3 has edge proxies do the same.

*A dialog of ours.* A To tag and a Route to us can be written by anybody. The token holds a keyed hash over what no
request of the dialog can leave out and both sides know: the Call-ID and the caller's tag, which is in From or in To,
depending on who speaks. A request whose token does not verify is in no dialog that was made through us. What the hash
does not bind is the Request-URI, for a target may be refreshed at any time (§12.2.2): who has a call through us may
send its requests on to wherever he likes.

*Where a phone was seen.* A phone behind NAT says in its Contact where it believes to be, and a proxy must not correct
that. So the addresses of the caller and the callee, as far as they were seen elsewhere than they say, are in the
token, and a request goes there instead of to its Request-URI. That is known when the INVITE is forwarded: where it came
from, and where it goes to. The other party has no business with these addresses: they are enciphered.

*Whose gateway it is.* A gateway that has got our account may challenge requests of the dialog, too, also after our
restart. So its mark, a short keyed hash of its name, stands behind the sides, and is told of requests of the caller's
side only. So does the second its call was begun: whoever had a call once may not use our account for ever.

    token = hex(tag ‖ sides ⊕ stream)     tag = H("tag", Call-ID, caller's tag, sides)     stream = H("stream", tag)

The tag is the nonce of its own cipher (the idea of SIV, RFC 5297): the same dialog has the same token, so that nothing
random is needed. Without NAT and gateway `sides` is empty and the token is the tag: 16 digits, one hash to make and one
or two to check, under a microsecond each.
"""

from __future__ import annotations

import ipaddress
from hashlib import blake2b
from hmac import compare_digest
from typing import Final

from orchestrator.sip.points import Hop

KEY_SIZE: Final = 32
"""Octets of the key: drawn once, kept for as long as dialogs made with it may last."""
_TAG: Final = 8
"""Octets of the hash: who tries a million forgeries a second for a year has a chance of a few in a million."""
SHORTEST: Final = 2 * _TAG
"""Digits of a token that says nothing else."""
_MARK: Final = 4
"""Octets of a gateway's mark: it tells a few apart, and is authenticated by the hash."""
_SECOND: Final = 4
"""Octets of the second behind a mark."""
_CONNECTED: Final = 0x10
_MAX_SIDES: Final = 2 * (4 + 16 + 4) + _MARK + _SECOND
_ABSENT: Final = b"\0"


Place = tuple[str, int, int]
"""Address, port, connection."""


class Passage:
    """A request that is inside a dialog of ours; `seen` is where its receiver was seen (address, port, connection),
    None when he is where he says. The point he is reached from is the one that our Route names. `gateway` is the mark
    of the gateway that was called, b'' for none and for requests that come from there; `second` is when it was called
    (`second_of`)."""

    __slots__ = ("seen", "gateway", "second")

    def __init__(self, seen: Place | None, gateway: bytes = b"", second: int = 0) -> None:
        self.seen = seen
        self.gateway = gateway
        self.second = second

    def __repr__(self) -> str:
        return f"<Passage {self.seen or 'as its Request-URI says'}>"


_AS_IT_SAYS: Final = Passage(None)


class RouteTokens:
    """Makes and reads tokens with a key of `KEY_SIZE` octets."""

    __slots__ = ("_tag", "_stream")

    def __init__(self, key: bytes) -> None:
        self._tag = blake2b(key=key, digest_size=_TAG, person=b"tag")
        self._stream = blake2b(key=key, digest_size=_MAX_SIDES, person=b"stream")

    def make(
        self,
        call_id: bytes,
        caller_tag: bytes | None,
        caller: Hop | None = None,
        callee: Hop | None = None,
        gateway: str = "",
        wall: float = 0.0,
    ) -> bytes:
        """The token for a dialog that an INVITE may form; `caller` and `callee` are where they were seen, if elsewhere
        than they say; `gateway` is the name of one that has our account, called at `wall` (seconds since the epoch)."""
        sides = _pack(caller) + _pack(callee) if caller is not None or callee is not None or gateway else b""
        if gateway:
            sides += self.mark(gateway) + second_of(wall).to_bytes(_SECOND, "big")
        tag = self._hash(call_id, caller_tag, sides)
        return (tag + self._cipher(tag, sides) if sides else tag).hex().encode()

    def read(self, token: bytes, call_id: bytes, from_tag: bytes | None, to_tag: bytes | None) -> Passage | None:
        """What the token says about a request with these identifiers; None when it is not of this dialog."""
        try:
            octets = bytes.fromhex(token.decode("ascii"))
        except ValueError:
            return None
        tag, sides = octets[:_TAG], octets[_TAG:]
        if len(sides) > _MAX_SIDES:
            return None
        if sides:
            sides = self._cipher(tag, sides)
        if compare_digest(self._hash(call_id, from_tag, sides), tag):
            return Passage(*_unpack(sides)[1:]) if sides else _AS_IT_SAYS
        if compare_digest(self._hash(call_id, to_tag, sides), tag):
            return Passage(_unpack(sides)[0]) if sides else _AS_IT_SAYS
        return None

    def mark(self, gateway: str) -> bytes:
        """What a token says about the gateway of this name."""
        hashed = self._tag.copy()
        hashed.update(b"\n" + gateway.encode())  # no Call-ID is empty
        return hashed.digest()[:_MARK]

    def _hash(self, call_id: bytes, caller_tag: bytes | None, sides: bytes) -> bytes:
        hashed = self._tag.copy()
        hashed.update(b"%b\n%b\n%b" % (call_id, caller_tag or b"", sides))  # LF stands in no header
        return hashed.digest()

    def _cipher(self, tag: bytes, sides: bytes) -> bytes:
        """Encipher or decipher."""
        stream = self._stream.copy()
        stream.update(tag)
        return bytes(a ^ b for a, b in zip(sides, stream.digest(), strict=False))


def _pack(side: Hop | None) -> bytes:
    """Version of the address, an octet that is free, port, address, connection where there is one; a single 0 for a
    side that is where it says."""
    if side is None:
        return _ABSENT
    _, host, port, connection, _ = side
    address = ipaddress.ip_address(host)
    version = address.version | (_CONNECTED if connection else 0)
    packed = bytes((version, 0)) + port.to_bytes(2, "big") + address.packed
    return packed + (connection & 0xFFFFFFFF).to_bytes(4, "big") if connection else packed


def second_of(wall: float) -> int:
    """Whole seconds since the epoch, as far as four octets hold them: to 2106."""
    return min(max(0, int(wall)), 0xFFFFFFFF)


def _unpack(sides: bytes) -> tuple[Place | None, Place | None, bytes, int]:
    """Caller, callee, the mark of a gateway and its second. Only for what has verified: we have packed it ourselves."""
    caller, rest = _unpack_one(sides)
    callee, rest = _unpack_one(rest)
    return caller, callee, rest[:_MARK], int.from_bytes(rest[_MARK:], "big")


def _unpack_one(sides: bytes) -> tuple[Place | None, bytes]:
    version = sides[0]
    if not version:
        return None, sides[1:]
    end = 8 if version & ~_CONNECTED == 4 else 20
    host, port, connection = str(ipaddress.ip_address(sides[4:end])), int.from_bytes(sides[2:4], "big"), 0
    if version & _CONNECTED:
        connection, end = int.from_bytes(sides[end : end + 4], "big"), end + 4
    return (host, port, connection), sides[end:]
