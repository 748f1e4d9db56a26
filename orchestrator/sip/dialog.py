"""Dialogs as far as a proxy needs them: enough to end a call from the middle (RFC 3261 §12, §15).

A proxy that ends an answered call speaks to each side as if it were the other one: the dialog's identifiers swapped
for the caller, as they are for the callee. The sequence numbers continue where the side we stand for left off, so a
`Leg` follows the requests that pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

from orchestrator.errors import MalformedMessage
from orchestrator.sip.digest import Account
from orchestrator.sip.message import Request, Response
from orchestrator.sip.parser import SIP_URI
from orchestrator.sip.points import Hop, Point
from orchestrator.sip.routing import request_uri
from orchestrator.sip.uri import NameAddr, Uri, parse_uri

TARGET_REFRESH: Final = (b"INVITE", b"UPDATE")
"""Methods whose Contact is the new remote target (§12.2; RFC 3311 §5.1)."""


class Leg:
    """One side of an answered call, as seen by whoever speaks to it.

    `sender` and `receiver` are the From and To values to use, tags included; `target` the remote target; `routes` the
    route set; `cseq` the last sequence number used towards this side; `point` the one of ours it is
    reached from; `seen` where it is when it is not at its target.
    """

    __slots__ = (
        "call_id", "sender", "receiver", "target", "routes", "cseq", "seen", "account", "point", "missed", "own",
        "own_before_invite", "refers",
    )  # fmt: skip

    def __init__(
        self,
        call_id: bytes,
        sender: bytes,
        receiver: bytes,
        target: bytes,
        routes: Sequence[bytes],
        cseq: int,
        point: Point,
        seen: Hop | None = None,
    ) -> None:
        self.call_id = call_id
        self.sender = sender
        self.receiver = receiver
        self.target = target
        self.routes = tuple(routes)
        self.cseq = cseq
        self.point = point
        self.seen = seen
        self.account: Account | None = None
        """What answers a challenge of this side."""
        self.refers = 0
        """How many REFERs of this side a flow has accepted."""
        self.missed = 0
        """How many pings in a row this side has not answered."""
        self.own = self.own_before_invite = 0
        """How many numbers requests of our own have used up, now and when the other side sent its last INVITE."""

    def request(
        self, method: bytes, via: bytes, headers: Sequence[bytes] = (), counted: bool = True, body: bytes = b""
    ) -> bytes:
        """An in-dialog request; `via` is a whole header line. Uses up one sequence number, but for an ACK and what is
        not `counted`."""
        if counted and method != b"ACK":
            self.cseq += 1
            self.own += 1
        lines = [
            method + b" " + self.target + b" SIP/2.0",
            via,
            b"Max-Forwards: 70",
            *(b"Route: " + route for route in self.routes),
            b"From: " + self.sender,
            b"To: " + self.receiver,
            b"Call-ID: " + self.call_id,
            b"CSeq: %d %b" % (self.cseq, method),
            *headers,
            b"Content-Length: %d\r\n\r\n" % len(body),
        ]
        return b"\r\n".join(lines) + body

    def refresh(self, message: Request | Response) -> None:
        """This side itself has spoken: a re-INVITE or UPDATE, and a 2xx to one, say where it is reached from now on
        (§12.2.1.2, §12.2.2; RFC 3311 §5.2)."""
        self.missed = 0
        self.target = refreshed_target(message) or self.target

    @property
    def hop(self) -> Hop | None:
        """The next hop, where it is known without looking: a proxy of the route set knows better."""
        return None if self.routes else self.seen

    def first_hop(self) -> Uri:
        """The URI whose host the request is sent to. Raises MalformedMessage."""
        return parse_uri(self.routes[0].strip(b"<>") if self.routes else self.target)

    def __repr__(self) -> str:
        return f"<Leg to {self.target.decode('utf-8', 'replace')} cseq={self.cseq}>"


def caller_leg(invite: Request, response: Response, point: Point, seen: Hop | None = None) -> Leg | None:
    """The side that sent the INVITE, addressed as the callee would (§12.1.1: Record-Routes in order). None without a
    Contact."""
    contact = _contact(invite)
    if contact is None:
        return None
    return Leg(
        invite.call_id,
        response.get(b"to") or b"",
        invite.get(b"from") or b"",
        contact,
        [b"<%b>" % (route.uri or b"") for route in invite.record_routes()],
        0,
        point,
        seen,
    )


def callee_leg(response: Response, is_own: Callable[[Uri], bool], point: Point, seen: Hop | None = None) -> Leg | None:
    """The side that answered, addressed as the caller would, from us on (§12.1.2: Record-Routes reversed). None
    without a Contact.

    The response lists the proxies from the callee's side down; those above our own entry lie between us and the callee.
    """
    contact = _contact(response)
    if contact is None:
        return None
    beyond: list[NameAddr] = []
    for route in response.record_routes():
        if is_own(route.parsed):
            break
        beyond.append(route)
    routes = [b"<%b>" % (route.uri or b"") for route in reversed(beyond)]
    return Leg(
        response.call_id,
        response.get(b"from") or b"",
        response.get(b"to") or b"",
        contact,
        routes,
        response.cseq,
        point,
        seen,
    )


def refreshed_target(message: Request | Response) -> bytes | None:
    """The remote target that a request, or a 2xx, inside a dialog makes of its sender; None where it refreshes none."""
    if message.cseq_method not in TARGET_REFRESH:
        return None
    try:
        return _contact(message)
    except MalformedMessage:  # the other side will say so
        return None


_usual_contact = re.compile(rb"[^:\n]++:[ \t]*+[A-Za-z0-9\-.!%*_+`'~ ]*+<(" + SIP_URI + rb")>").fullmatch
"""A Contact without parameters of its own: nothing in it is left to check."""


def _contact(message: Request | Response) -> bytes | None:
    names = message.names
    if names.count(b"contact") == 1:
        usual = _usual_contact(message.lines[names.index(b"contact")])
        if usual is not None:
            return usual[1]
    contacts = message.contacts()
    uri = contacts[0].uri if contacts else None
    return None if uri is None else request_uri(uri)
