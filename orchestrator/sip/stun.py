"""STUN on the SIP port: the keep-alive of phones over UDP, which also tells them their address behind NAT (RFC 5626
§3.5.2 and §8, RFC 8489). Binding requests are answered, nothing else; a SIP message never begins with an octet below 4.
"""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import Final
from zlib import crc32

_HEADER: Final = struct.Struct("!HHI12s")
_REQUEST, _SUCCESS, _ERROR = 0x0001, 0x0101, 0x0111
_COOKIE: Final = 0x2112A442
_XOR_MAPPED_ADDRESS, _MAPPED_ADDRESS = 0x0020, 0x0001
_ERROR_CODE, _UNKNOWN_ATTRIBUTES, _FINGERPRINT = 0x0009, 0x000A, 0x8028
_UNDERSTOOD: Final = frozenset((0x0001, 0x0006, 0x0008, 0x0009, 0x000A, 0x0014, 0x0015, 0x0020))
"""Attributes below 0x8000 that a request may carry without asking for what we do not do: credentials are not needed for
a binding, so those that come are ignored (RFC 8489 §6.3)."""
_FINGERPRINT_XOR: Final = 0x5354554E
_MOST_UNKNOWN: Final = 8

LONGEST: Final = 548
"""Octets of a request that is read: the smallest datagram that every path carries (RFC 8489 §6.1)."""


def binding_response(data: bytes, host: str, port: int) -> bytes | None:
    """The answer to a STUN Binding request that came from this IP address and port; None for what is none.

    Requests of RFC 3489, which have no magic cookie, are answered in its way. No answer is longer than its request and
    40 octets.
    """
    size = len(data)
    if size < _HEADER.size or size > LONGEST or data[0] > 3:
        return None
    kind, length, cookie, transaction = _HEADER.unpack_from(data)
    if kind != _REQUEST or length != size - _HEADER.size or length % 4:
        return None
    attributes = _attributes(data)
    if attributes is None or not _is_intact(data, attributes):
        return None
    modern = cookie == _COOKIE
    unknown = [name for name, _ in attributes if name < 0x8000 and name not in _UNDERSTOOD] if modern else []
    if unknown:
        kind, body = _ERROR, _refusal(unknown[:_MOST_UNKNOWN])
    else:
        kind, body = _SUCCESS, _address(host, port, data[4:20] if modern else b"")
    signed = any(name == _FINGERPRINT for name, _ in attributes)
    head = _HEADER.pack(kind, len(body) + (8 if signed else 0), cookie, transaction)
    return _with_fingerprint(head + body) if signed else head + body


def _attributes(data: bytes) -> list[tuple[int, int]] | None:
    """Type and offset of each attribute; None when they do not fill the message."""
    found, offset, size = [], _HEADER.size, len(data)
    while offset < size:
        if offset + 4 > size:
            return None
        name, length = struct.unpack_from("!HH", data, offset)
        found.append((name, offset))
        offset += 4 + (length + 3) // 4 * 4
    return found if offset == size else None


def _is_intact(data: bytes, attributes: list[tuple[int, int]]) -> bool:
    """Whether the FINGERPRINT, if there is one, is right and the last (RFC 8489 §14.7)."""
    for position, (name, offset) in enumerate(attributes):
        if name == _FINGERPRINT:
            last = position == len(attributes) - 1 and len(data) - offset == 8
            return last and data[offset + 4 :] == struct.pack("!I", crc32(data[:offset]) ^ _FINGERPRINT_XOR)
    return True


def _address(host: str, port: int, key: bytes) -> bytes:
    """XOR-MAPPED-ADDRESS under `key`, cookie and transaction id; MAPPED-ADDRESS without one (§14.1, §14.2)."""
    octets = ip_address(host.partition("%")[0]).packed
    number = struct.pack("!H", port)
    if key:
        octets = bytes(a ^ b for a, b in zip(octets, key, strict=False))
        number = bytes(a ^ b for a, b in zip(number, key, strict=False))
    name, family = _XOR_MAPPED_ADDRESS if key else _MAPPED_ADDRESS, 2 if len(octets) == 16 else 1
    return struct.pack("!HHBB", name, 4 + len(octets), 0, family) + number + octets


def _refusal(unknown: list[int]) -> bytes:
    """420 Unknown Attribute (§6.3.1)."""
    reason = b"Unknown Attribute"
    code = struct.pack("!HHHBB", _ERROR_CODE, 4 + len(reason), 0, 4, 20) + reason.ljust(20, b"\0")
    names = b"".join(struct.pack("!H", name) for name in unknown)
    padding = b"\0" * (-len(names) % 4)
    return code + struct.pack("!HH", _UNKNOWN_ATTRIBUTES, len(names)) + names + padding


def _with_fingerprint(message: bytes) -> bytes:
    return message + struct.pack("!HHI", _FINGERPRINT, 4, crc32(message) ^ _FINGERPRINT_XOR)
