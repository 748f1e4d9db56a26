"""A REFER served by a flow (RFC 3515): inside a call, or outside of one.

What the flow leaves goes on to the other side of its dialog, or to the phone that it names. A flow that accepts it
(2xx) owes its sender news: NOTIFY with a `message/sipfrag` that says what has become of the transfer, the first at once
and one final one (§2.4.4, §2.4.5). Inside a call they go in the dialog of the call, numbered by us (`core.calls.
numbering`); outside, in the dialog that the 2xx makes. A sender that wants no news (RFC 4488) gets none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from orchestrator.core.calls.call import OUTLIVE, Call
from orchestrator.core.calls.numbering import Numbering
from orchestrator.core.node import Node
from orchestrator.core.refer_view import Asked
from orchestrator.core.request_view import RequestView
from orchestrator.core.steps.other_request import OtherRequest
from orchestrator.core.switches.executions import command, ignore
from orchestrator.errors import StepError
from orchestrator.esl.channels import Channel
from orchestrator.sip.client import ClientTransaction
from orchestrator.sip.dialog import Leg
from orchestrator.sip.message import Request, Response, build_response
from orchestrator.sip.points import Hop
from orchestrator.sip.reasons import reason_phrase
from orchestrator.sip.routing import request_uri
from orchestrator.sip.server import ServerTransaction
from orchestrator.sip.target import Target

EXPIRES = 180
"""Seconds that news are promised for: a transfer that takes longer has failed."""

_SIPFRAG = b"Content-Type: message/sipfrag;version=2.0"


@dataclass(frozen=True, slots=True)
class Inside:
    """Where a REFER inside a dialog stands: how it goes on, and whose call that is, as far as we know."""

    onward: Callable[[], Target]
    """Its way to the other side of the dialog."""
    drop_routes: int
    call: Call | None = None
    side: str = ""
    """The party of the call that has sent it: caller or callee."""
    leg: Leg | None = None
    """The same as we speak to it."""


class News:
    """The NOTIFYs of one accepted REFER."""

    __slots__ = ("_node", "_leg", "_contact", "_headers", "_over", "_last", "on_over")

    def __init__(self, node: Node, leg: Leg, contact: bytes, event: bytes, on_over: Callable[[], object]) -> None:
        self._node = node
        self._leg = leg
        self._contact = contact
        self._last = b""
        self.on_over = on_over
        """Called when nothing more will be told."""
        self._headers = (b"Contact: <%b>" % contact, b"Event: " + event, _SIPFRAG)
        self._over = False

    def tell(self, code: int, reason: str = "") -> None:
        """How it goes; a final code is the last word. Idempotent behind it."""
        if self._over:
            return
        phrase = "".join(c for c in reason or reason_phrase(code) if c.isprintable())
        self._last = f"SIP/2.0 {code} {phrase}\r\n".encode()
        self._send(b"noresource" if code >= 200 else b"")

    def asked_again(self, request: Request, destination: Hop) -> None:
        """A SUBSCRIBE of who gets the news: how it is now, and no more of it if he wants none (RFC 6665 §4.2.1)."""
        left = EXPIRES if request.expires is None else min(request.expires, EXPIRES)
        headers = (b"Contact: <%b>" % self._contact, b"Expires: %d" % left)
        server = self._node.layer.open_server(request, destination)
        server.respond(200, build_response(request, 200, "OK", None, headers))
        self._send(b"" if left else b"timeout")

    def _send(self, ended: bytes) -> None:
        state = b"terminated;reason=" + ended if ended else b"active;expires=%d" % EXPIRES
        headers = (*self._headers, b"Subscription-State: " + state)
        self._node.send_in_dialog(self._leg, b"NOTIFY", headers, self, body=self._last)
        if ended:
            self._end()

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self.on_over()

    # --- transaction user ---------------------------------------------------------------------------------------------

    def on_response(self, client: ClientTransaction, response: Response) -> None:
        if response.status == 481:  # it does not listen any more (RFC 6665 §4.2.2)
            self._end()

    def on_timeout(self, client: ClientTransaction) -> None:
        self._end()

    def on_unreachable(self, client: ClientTransaction) -> None:
        self._end()


class Referred(OtherRequest):
    """One such transaction."""

    __slots__ = ("asked", "inside", "stranded", "moved", "_numbering", "_news")

    def __init__(
        self,
        node: Node,
        request: Request,
        view: RequestView,
        server: ServerTransaction,
        source: tuple[str, int],
        default: Callable[[ServerTransaction], object],
        asked: Asked,
        inside: Inside | None,
        numbering: Numbering,
    ) -> None:
        super().__init__(node, request, view, server, source, default)
        self.asked = asked
        self.inside = inside
        self._numbering = numbering
        self.stranded: Call | None = None
        """A caller whose transfer has failed: FreeSWITCH has him, and nobody else does."""
        self.moved: Channel | None = None
        """The leg of a callee who has been moved to a call of his own, which is the run's."""
        self._news: News | None = None
        if inside is not None:
            self._context.drop_routes = inside.drop_routes

    def reply(self, code: int, reason: str = "", headers: tuple[bytes, ...] = ()) -> None:
        """Answer it; with a 2xx the sender hears how it goes from now on. Raises StepError `call.state`."""
        if not 200 <= code < 300 or self.replied:
            super().reply(code, reason, headers)
            return
        self.undo()
        tag, contact = self._node.tokens.token(), self._contact
        wanted = (self.request.get(b"refer-sub") or b"").strip().lower() != b"false"
        leg = self._leg_with(tag) if wanted else None
        more = (b"Contact: <%b>" % contact, *(() if leg is not None else (b"Refer-Sub: false",)))
        answer = build_response(self.request, code, reason or reason_phrase(code), tag, (*more, *headers))
        self.server.respond(code, answer)
        if leg is not None:
            known, request = self._numbering.subscriptions, self.request
            dialog = (request.call_id, request.from_tag, request.to_tag or tag)
            news = known[dialog] = News(self._node, leg, contact, self._event(leg), partial(known.pop, dialog, None))
            self._news = news
            news.tell(100)

    def accept(self) -> None:
        """202, unless it is answered already."""
        if not self.replied:
            self.reply(202)

    def tell(self, code: int, reason: str = "") -> None:
        """How the transfer goes, for its sender, if it was accepted."""
        if self._news is not None:
            self._news.tell(code, reason)

    def finish(self, failed: bool) -> None:
        """The flow is done: the last word, where none was said. A caller who is still alone is hung up."""
        self.tell(500 if failed else 200)
        call, self.stranded = self.stranded, None
        if call is not None and not call.over and call.relay is None and call.held:
            call.hangup("transfer failed", None)
        if self.moved is not None:
            self._node.timers.after(OUTLIVE, self._end_channel, self.moved)

    def _end_channel(self, channel: Channel) -> None:
        """The call of a moved callee is over, and FreeSWITCH has not hung him up: it had not joined the two yet."""
        if not channel.destroyed:
            self._node.job(command(channel.server, f"uuid_kill {channel.uuid}"), ignore)

    @property
    def _contact(self) -> bytes:
        """Where the sender reaches us in the dialog. Inside a call that stays what it is: this would be a new target of
        the call, too (RFC 6665 §4.5.2)."""
        return self.request.uri if self.inside is not None else self.server.destination.point.uri

    def _leg_with(self, tag: bytes) -> Leg | None:
        """The sender, as we speak to it; None where it does not say how. Raises StepError `call.state`."""
        request = self.request
        if self.inside is not None:
            if self.inside.leg is None:
                raise StepError("call.state", "only a REFER of a call that a flow has taken can be accepted")
            self._numbering.begin(self.inside.leg, request.from_tag)
            return self.inside.leg
        contacts = request.contacts()
        if not contacts or not contacts[0].uri:
            return None
        hop = self.server.destination
        return Leg(
            request.call_id,
            (request.get(b"to") or b"") + b";tag=" + tag,
            request.get(b"from") or b"",
            request_uri(contacts[0].uri),
            [b"<%b>" % (route.uri or b"") for route in request.record_routes()],
            0,
            hop.point,
            self._node.network.seen_elsewhere(request, self.hop),
        )

    def _event(self, leg: Leg) -> bytes:
        """The second REFER of a dialog, and those behind it, are told apart by the number (RFC 3515 §2.4.6)."""
        leg.refers += 1
        return b"refer" if leg.refers == 1 else b"refer;id=%d" % self.request.cseq

    def onward(self, headers: Sequence[bytes]) -> list[list[Target]]:
        """The other side of its dialog, as the one destination of a relay. Raises StepError `call.state`."""
        assert self.inside is not None
        target = self.inside.onward()
        target.headers = tuple(headers)
        return [[target]]
