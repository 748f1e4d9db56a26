"""How many pushes one phone gets, whoever has registered its token.

Anybody who has seen the token of a phone may register it under an address of his own, or write it a little differently,
and call himself. So what counts is the token, not the address of record or the parameters around it: a phone gets
`MOST_IN_ALL` times the bound, however many addresses it is registered for. Within that each address has its own bound:
one that is called all the time takes no pushes from the others. A phone may have several accounts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from orchestrator.sip.push import PushAddress

MINUTE: Final = 60.0
"""The time that the bound is for, in seconds."""
MOST_IN_ALL: Final = 3
MOST_PHONES = 100_000
"""Phones whose latest pushes are remembered; beyond, those that were pushed longest ago are forgotten first."""


class PushRoom:
    """Of one engine: `most` pushes a minute for each phone and address of record."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._latest: dict[str, tuple[tuple[float, str], ...]] = {}
        """Token → when it was pushed in the last minute, and for which address; whoever was pushed last stands last."""

    def __len__(self) -> int:
        """Tokens that are remembered."""
        return len(self._latest)

    def take(self, address: PushAddress, aor: str, now: float) -> bool:
        """Whether the phone may get one more push for this address now, which is counted then."""
        tokens = tuple(_tokens(address))
        room = all(self._has_room(token, aor, now) for token in tokens)
        if room:
            for token in tokens:
                before = self._latest.pop(token, ())
                self._latest[token] = (*before, (now, aor))[-MOST_IN_ALL * self._most :]  # most are pushed once
        self._forget(now)
        return room

    def last(self, address: PushAddress) -> float | None:
        """When the phone was pushed last, for whichever address; None when that is a minute ago or longer."""
        found = [times[-1][0] for token in _tokens(address) if (times := self._latest.get(token))]
        return max(found, default=None)

    def _has_room(self, token: str, aor: str, now: float) -> bool:
        lately = [of for time, of in self._latest.get(token, ()) if now - time < MINUTE]
        return lately.count(aor) < self._most and len(lately) < MOST_IN_ALL * self._most

    def _forget(self, now: float) -> None:
        latest = self._latest
        while latest:
            oldest = next(iter(latest))
            if len(latest) <= MOST_PHONES and now - latest[oldest][-1][0] < MINUTE:
                break
            del latest[oldest]


def _tokens(address: PushAddress) -> Iterator[str]:
    """What reaches the phone: of Apple's two tokens each one. They are hexadecimal, in capitals or not."""
    for token in sorted(address.keys):
        yield f"{address.service} {token}"
