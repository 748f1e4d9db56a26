"""What the registrar answers about push services (RFC 8599 §5.6.1): which ones there are, which one wakes the phone
that registers, and that nobody serves the one it names.

A contact with `pn-provider` and without `pn-prid` is a query; with both it wants to be woken. What a proxy between the
phone and us has said already (Feature-Caps of the REGISTER) is that proxy's business, and it says so in the answer.
Without a configured service nothing is said, and nobody is refused: such a server knows nothing about pushes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from orchestrator.errors import MalformedMessage, SipError
from orchestrator.sip.binding import Binding
from orchestrator.sip.grammar import parse_params
from orchestrator.sip.headers import split_commas
from orchestrator.sip.message import Request
from orchestrator.sip.push import PushAddress, PushPolicy, PushService, address_of, asks_for_push, service_named
from orchestrator.sip.uri import NameAddr

LEAST_PNSREG: Final = 121
"""Seconds before its end when a phone that wakes itself refreshes its binding at the latest: more than 120
(§5.6.1.1)."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What one contact says about push services."""

    service: str
    """The one it names, as in the IANA registry; '' for a query about all of them."""
    address: PushAddress | None
    """Where it wants to be woken; None for a query."""
    upstream: bool
    """A proxy between the phone and us wakes it, or has answered the query."""
    standard: bool = True
    """It is written as in RFC 8599; whoever writes otherwise does not know what 555 means."""


class PushOffer:
    """Of one engine. `purr(binding)` makes a PURR for its phone, b'' for none."""

    def __init__(self, policy: PushPolicy, purr: Callable[[Binding], bytes]) -> None:
        self._policy = policy
        self._purr = purr
        self._kinds = frozenset(service.service for service in policy.services)

    def wish_of(self, contact: NameAddr, upstream: frozenset[str]) -> Wish | None:
        """What a Contact asks for; None for nothing, and where something that a push needs is missing or unusable."""
        uri = contact.uri
        if uri is None or not asks_for_push(uri):
            return None
        params = contact.parsed.params
        address = address_of(contact.parsed)
        if address is not None:
            return Wish(address.service, address, address.service in upstream, b"pn-provider" in params)
        if b"pn-provider" not in params or b"pn-prid" in params:
            return None
        service = service_named((params[b"pn-provider"] or b"").decode("utf-8", "replace"))
        return Wish(service, None, service in upstream)

    def check(self, wishes: Iterable[Wish | None], upstream: frozenset[str]) -> None:
        """Raises SipError 555: nobody wakes phones through a service that a contact names, neither we nor a proxy
        before us. Nor does anybody behind us: REGISTERs end here."""
        if not self._kinds or upstream or self._policy.unserved == "register":
            return
        for wish in wishes:
            if wish is not None and wish.standard and wish.service and wish.service not in self._kinds:
                raise SipError(555, "Push Notification Service Not Supported")

    def bounds(self, wish: Wish | None, least: int, most: int, bounded: bool) -> tuple[int, int]:
        """Seconds that a binding lasts at least and at most, where others last from `least` to `most`. We must be able
        to wake its phone before its end, and not all the time; and a phone that is without a network for hours is to be
        woken afterwards, unless somebody wants it `bounded`."""
        if wish is None or self._service_of(wish) is None:
            return least, most
        policy = self._policy
        most = most if bounded else max(most, policy.max_expires)
        longer = least + round(policy.refresh) if policy.refresh else least
        return (longer if longer <= most else least), most

    def lines(
        self, asked: Iterable[tuple[Wish | None, Binding]], upstream: frozenset[str], wall: float
    ) -> tuple[bytes, ...]:
        """Feature-Caps of the 200, one for each service (§5.4) that no proxy before us has named."""
        lines: dict[str, bytes] = {}
        for wish, binding in asked:
            if wish is None or wish.upstream:
                continue
            if wish.address is None:
                for service in self._policy.services:
                    if service.service == wish.service or (not wish.service and service.service not in upstream):
                        lines.setdefault(service.service, _line(service))
                continue
            served, left = self._service_of(wish), binding.expires_at - wall
            if served is not None and left > self._policy.refresh:
                lines.setdefault(served.service, _line(served) + self._promises(binding))
        return tuple(lines.values())

    def _service_of(self, wish: Wish) -> PushService | None:
        return None if wish.upstream else self._policy.service_of(wish.address)

    def _promises(self, binding: Binding) -> bytes:
        """What holds for this phone only (§5.6.1.1, §6.2.1)."""
        itself = max(LEAST_PNSREG, round(self._policy.refresh) + 1) if binding.wakes_itself else 0
        purr = self._purr(binding)
        return (b';+sip.pnsreg="%d"' % itself if itself else b"") + (b';+sip.pnspurr="%b"' % purr if purr else b"")


def _line(service: PushService) -> bytes:
    vapid = b';+sip.vapid="%b"' % service.vapid.encode() if service.vapid else b""
    return b'Feature-Caps: *;+sip.pns="%b"%b' % (service.service.encode(), vapid)


NOBODY: Final[frozenset[str]] = frozenset()


def named_upstream(request: Request) -> frozenset[str]:
    """The services that proxies before us wake phones through: `+sip.pns` in Feature-Caps of the REGISTER (RFC 6809).
    What cannot be read says nothing."""
    if not request.has(b"feature-caps"):
        return NOBODY
    found = set()
    for line in request.get_all(b"feature-caps"):
        try:
            pieces = split_commas(line)
        except MalformedMessage:
            continue
        for piece in pieces:
            star, _, rest = piece.strip().partition(b";")
            if star.strip() != b"*":
                continue
            try:
                value = parse_params(b";" + rest).get(b"+sip.pns")
            except MalformedMessage:
                continue
            if value:
                found.add(service_named(value.decode("utf-8", "replace")))
    return frozenset(found)
