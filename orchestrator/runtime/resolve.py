"""Host names to addresses, by the system's resolver in gevent's threads (RFC 3263 §4.2, the A and AAAA step)."""

from __future__ import annotations

from collections.abc import Collection

import gevent
from gevent import monkey, socket
from gevent.threadpool import ThreadPool

_getaddrinfo = monkey.get_original("socket", "getaddrinfo")

TIMEOUT = 4.0
"""Seconds for one look-up. The caller of a call to a name is waiting; 64*T1 would be a long silence."""


def resolve(
    host: str, families: Collection[socket.AddressFamily] = (socket.AF_INET,), threads: ThreadPool | None = None
) -> str | None:
    """The first address of `host` in a family we have a socket for, None when there is none in time. `threads` do the
    waiting, those of gevent's resolver unless given."""
    try:
        with gevent.Timeout(TIMEOUT):
            if threads is None:
                found = socket.getaddrinfo(host, 0, 0, socket.SOCK_DGRAM)
            else:
                found = threads.apply(_getaddrinfo, (host, 0, 0, socket.SOCK_DGRAM))
    except (OSError, UnicodeError, gevent.Timeout):
        return None
    return next((str(name[0]) for family, _, _, _, name in found if family in families), None)
