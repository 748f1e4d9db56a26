"""Session timers as a proxy asks for them (RFC 4028 §8): INVITE and UPDATE get a Session-Expires, and where the other
side knows none, the one that does is told to refresh.

A phone that refreshes its session, or waits for the refresh, notices by itself that the other one is gone. We only ask;
who ends dead calls is `core.calls.liveness`. Without configuration nothing is put in or changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from orchestrator.sip.grammar import read_number
from orchestrator.sip.message import Message, Request, Response

TIMED: Final = frozenset((b"INVITE", b"UPDATE"))
"""Methods that begin or refresh a session."""
SHORTEST: Final = 90
"""Seconds below which nobody may ask (§5)."""
EXPIRES: Final = b"session-expires"


@dataclass(frozen=True, slots=True)
class SessionTimer:
    """What we ask for: a refresh at least once in `expires` seconds."""

    expires: int

    def interval(self, request: Request) -> int:
        """The interval of a request as it goes on, in seconds: never longer than it asks for, and never shorter than
        its Min-SE (§8.1)."""
        least = max(SHORTEST, _seconds(request, b"min-se") or 0)
        wanted, own = max(self.expires, least), _seconds(request, EXPIRES)
        return wanted if own is None else min(own, wanted)


def _seconds(message: Message, name: bytes) -> int | None:
    """The number of a Session-Expires or Min-SE header (canonical name); None where there is none that can be read."""
    value = message.get(name)
    return None if value is None else read_number(value.partition(b";")[0].strip())


def expires_line(request: Request, interval: int) -> bytes:
    """The Session-Expires of a request with this interval; who refreshes stays as it is (§8.1)."""
    value = request.get(EXPIRES)
    return b"Session-Expires: %d" % interval + (b"".join(value.partition(b";")[1:]) if value else b"")


def knows_timers(message: Message) -> bool:
    """Whether its sender supports them."""
    return b"timer" in message.tokens(b"supported")


def complete(response: Response, interval: int) -> None:
    """Have a caller who knows timers refresh, where the 2xx of the other side names no interval (§8.2)."""
    if not response.has(EXPIRES):
        response.add_line(EXPIRES, b"Session-Expires: %d;refresher=uac" % interval)
        response.add_line(b"require", b"Require: timer")
