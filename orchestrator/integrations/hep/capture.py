"""Which call a message belongs to, and whether it is captured.

All legs of a call have one correlation id, the Call-ID of its first INVITE. A leg behind FreeSWITCH has a Call-ID of
its own; the server says whose it is (`CallLeg`). What belongs to no call of a flow has its own Call-ID.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from zlib import crc32

from orchestrator.fact_kinds import CallLeg, SipMessage

LINGER = 64.0
"""Seconds that a call is remembered after its end: retransmissions take 32 (64*T1), `on_end` steps some more."""
MOST = 200_000
"""Calls remembered; beyond, the oldest one is forgotten."""

_KEEP_ALIVE = 4
"""Octets of a keep-alive at most: a CRLF twice."""


class Correlation:
    """SIP Call-IDs and our call ids → correlation id."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._legs: dict[bytes, bytes] = {}
        """Call-ID of a further leg → that of the first one."""
        self._calls: dict[str, list[bytes]] = {}
        """Id of a call → Call-IDs of its legs, the first one first."""
        self._ended: deque[tuple[float, str]] = deque()

    def tie(self, leg: CallLeg) -> None:
        """A leg of a call."""
        known = self._calls.get(leg.call)
        if known is None:
            known = self._calls[leg.call] = [leg.first]
            if len(self._calls) > self._most:
                self._forget(next(iter(self._calls)))
        if leg.call_id not in known:
            known.append(leg.call_id)
            self._legs[leg.call_id] = leg.first

    def end(self, call: str, time: float) -> None:
        """A call has ended; those that ended long before are forgotten."""
        self._ended.append((time, call))
        while self._ended and self._ended[0][0] < time - LINGER:
            self._forget(self._ended.popleft()[1])

    def of(self, call_id: bytes) -> bytes:
        """For a SIP message."""
        return self._legs.get(call_id, call_id)

    def of_call(self, call: str) -> bytes:
        """For a call of a flow; b'' for one that is not known."""
        found = self._calls.get(call)
        return found[0] if found else b""

    def _forget(self, call: str) -> None:
        for call_id in self._calls.pop(call, [b""])[1:]:
            self._legs.pop(call_id, None)

    def __len__(self) -> int:
        return len(self._calls)


class Choice:
    """Which messages are captured: by method, and of all calls a share."""

    def __init__(self, methods: Collection[str] = (), without: Collection[str] = (), share: float = 1.0) -> None:
        """`methods`: only these, all where there is none; `without`: not these. A response has the method of its
        request. `share`: of all calls, 0 to 1."""
        self._methods = frozenset(name.upper().encode() for name in methods)
        self._without = frozenset(name.upper().encode() for name in without)
        self._all = not self._methods and not self._without
        self._below = round(share * 0x1_0000_0000)

    def takes_call(self, correlation: bytes) -> bool:
        """Whether a call is one of the share: all of its messages, at each node of a site, after a restart."""
        return self._below > 0xFFFFFFFF or crc32(correlation) < self._below

    def takes(self, message: SipMessage) -> bool:
        """Whether the method is asked for. Keep-alives are no messages."""
        if len(message.data) <= _KEEP_ALIVE:
            return False
        if self._all:
            return True
        method = message.cseq_method.upper()
        return method not in self._without and (not self._methods or method in self._methods)
