"""A place: a peer of a UDP socket in octets, as `_fast.c` has it.

Port (2 octets), address (4 or 16), with IPv6 the scope (4), in the order of the network; behind it, where the socket is
bound to all addresses, ours that was asked or is to be sent from (4 or 16).
"""

from __future__ import annotations

import socket
from struct import Struct

_PORT = Struct("!H")
_SCOPE = Struct("!I")
_PLACE4, _PLACE6 = 6, 22


def place_of(address: tuple[str, int] | tuple[str, int, int, int], local: str) -> bytes:
    """The place of a socket address; `local` is ours, '' where the system chooses."""
    port = _PORT.pack(address[1])
    if ":" not in address[0]:
        return port + socket.inet_aton(address[0]) + (socket.inet_aton(local) if local else b"")
    octets = socket.inet_pton(socket.AF_INET6, address[0])
    scope = _SCOPE.pack(address[3] if len(address) == 4 else 0)
    return port + octets + scope + (socket.inet_pton(socket.AF_INET6, local) if local else b"")


def read_place(place: bytes) -> tuple[str, int, str]:
    """Host and port of a place, and the address of ours that was asked, '' where nobody told it. A link-local host has
    its interface behind it (RFC 4007 §11)."""
    port = _PORT.unpack_from(place)[0]
    if len(place) < _PLACE6:
        local = place[_PLACE4:]
        return socket.inet_ntop(socket.AF_INET, place[2:_PLACE4]), port, socket.inet_ntoa(local) if local else ""
    host = socket.inet_ntop(socket.AF_INET6, place[2:18])
    scope = _SCOPE.unpack_from(place, 18)[0]
    local = place[_PLACE6:]
    asked = socket.inet_ntop(socket.AF_INET6, local) if local else ""
    return f"{host}%{scope}" if scope else host, port, asked
