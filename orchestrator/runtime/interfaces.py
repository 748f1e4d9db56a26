"""Which addresses this machine has, for a socket that is bound to all of them.

`0.0.0.0` in a Via helps nobody: others need an address to answer to, and we need to know which request URIs mean us.
The kernel knows both. Behind NAT it does not know the outer address; that is what `sip.advertise` is for.
"""

from __future__ import annotations

import re
import socket
from ipaddress import IPv6Address, ip_address
from pathlib import Path

from gevent import monkey

FIB_TRIE = Path("/proc/net/fib_trie")
IF_INET6 = Path("/proc/net/if_inet6")

_LOCAL = re.compile(r"\|-- ([0-9.]+)\n\s+/32 host LOCAL")

_plain_socket = monkey.get_original("socket", "socket")

_SOMEWHERE = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}
"""Documentation addresses (RFC 5737, RFC 3849): on no network, so the route to them is the default route."""


def is_wildcard(host: str) -> bool:
    """Whether a socket bound to this address takes datagrams for all of the machine's."""
    return ip_address(host).is_unspecified


def outward_address(wildcard: str) -> str:
    """The address this machine uses towards the rest of the world; its loopback address when it has no other."""
    family = socket.AF_INET6 if ":" in wildcard else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((_SOMEWHERE[family], 9))  # UDP: this chooses a route and sends nothing
            return str(sock.getsockname()[0])
        except OSError:
            return "::1" if family == socket.AF_INET6 else "127.0.0.1"


def source_toward(address: str) -> str:
    """The address this machine sends from to another; '' where it has no way there. A look at its tables (5 µs), never
    a datagram."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock: socket.socket = _plain_socket(family, socket.SOCK_DGRAM)
    with sock:
        try:
            sock.connect((address, 9))
            return str(sock.getsockname()[0])
        except OSError:
            return ""


def own_addresses(wildcard: str) -> tuple[str, ...]:
    """All addresses of this machine in the family of `wildcard`, as the kernel lists them; empty where it does not."""
    try:
        if ":" in wildcard:
            rows = IF_INET6.read_text().splitlines()
            found = {str(IPv6Address(bytes.fromhex(row.split()[0]))) for row in rows}
        else:
            found = set(_LOCAL.findall(FIB_TRIE.read_text()))
    except OSError:
        return ()
    return tuple(sorted(found))


def address_text(address: tuple[str, int]) -> str:
    """`192.0.2.1:5060`, `[2001:db8::1]:5060`."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
