"""A SIP phone without a network: octets in, octets out through `send`. For virtual wires, real sockets and the demo
alike.

It registers, calls, rings, answers, refuses, presses keys (SIP INFO) and hangs up, always when it is told to; what it
saw stands in `calls`. It does not retransmit: give it wires that lose nothing, or SIPp.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from orchestrator.errors import MalformedMessage
from orchestrator.sip.message import Request, Response, build_response, parse_message
from orchestrator.sip.reasons import reason_phrase
from orchestrator.sip.replaces import parse_replaces
from orchestrator.sip.uri import parse_name_addr
from orchestrator.testing.login import answer_to

Address = tuple[str, int]
Send = Callable[[bytes, Address], None]

SDP = (
    b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    b"m=audio 40000 RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\n"
)


def _escaped(value: bytes) -> bytes:
    """As a header inside a URI (RFC 3261 §19.1.1)."""
    return b"".join(b"%c" % octet if chr(octet).isalnum() else b"%%%02X" % octet for octet in value)


class PhoneCall:
    """One call of a phone. `state`: calling, ringing, answered, ended; `statuses` are the responses seen (caller
    side)."""

    def __init__(self, phone: Phone, request: Request | None, call_id: bytes, remote_uri: bytes) -> None:
        self.phone = phone
        self.invite = request
        self.call_id = call_id
        self.state = "calling" if request is None else "ringing"
        self.statuses: list[int] = []
        self.responses: list[Response] = []
        self.incoming = request is not None
        self.cancelled = False
        self.cancel_reason = ""
        self.bye: Request | None = None
        self.acknowledged = False
        self.remote_uri = remote_uri
        self.local = b""
        self.remote = b""
        self.routes: list[bytes] = []
        self.cseq = 1
        self.invite_cseq = 1
        """Of the INVITE that has been answered last."""
        self.branch = b""
        self._tag = phone.word()

    # --- the called side ----------------------------------------------------------------------------------------------

    def ring(self, status: int = 180) -> None:
        self._respond(status)

    def early(self) -> None:
        """183 with SDP: there is something to hear before anybody has answered."""
        self._respond(183, self.phone.sdp)

    def answer(self) -> None:
        """200 with SDP."""
        self.state = "answered"
        self._respond(200, self.phone.sdp)

    def reject(self, status: int = 486) -> None:
        self.state = "ended"
        self._respond(status)

    def _respond(self, status: int, body: bytes = b"") -> None:
        assert self.invite is not None
        headers = [b"Contact: " + self.phone.contact]
        if body:
            headers.append(b"Content-Type: application/sdp")
        tag = None if status == 100 else self._tag
        self.phone.reply(self.invite, status, tag, headers, body)

    # --- both sides ---------------------------------------------------------------------------------------------------

    def hangup(self) -> None:
        """BYE, or CANCEL while the call we made still rings."""
        if not self.incoming and self.state in ("calling", "ringing"):
            self.phone.send_lines(
                b"CANCEL", self.remote_uri, self.branch, self.local, self.remote, self, b"", self.cseq
            )
            return
        self.state = "ended"
        self.cseq += 1
        self.phone.send_in_dialog(self, b"BYE")

    def press(self, digit: str, ms: int = 160) -> None:
        """A key, as SIP INFO (application/dtmf-relay)."""
        self.cseq += 1
        body = f"Signal={digit}\r\nDuration={ms}\r\n".encode()
        self.phone.send_in_dialog(self, b"INFO", body, [b"Content-Type: application/dtmf-relay"])

    def ask(self, method: str, headers: Sequence[bytes] = (), body: bytes = b"") -> None:
        """A request inside the dialog: UPDATE, INFO, REFER and so on."""
        self.cseq += 1
        self.phone.send_in_dialog(self, method.encode(), body, headers)

    def refer(self, to: str, instead_of: PhoneCall | None = None) -> None:
        """Ask the other side, or whoever takes it, to call a SIP URI; `instead_of` another call of this phone, which
        that party then replaces (RFC 3891)."""
        uri = to.encode()
        if instead_of is not None:
            mine, theirs = instead_of.tags
            replaces = b"%b;to-tag=%b;from-tag=%b" % (instead_of.call_id, theirs, mine)
            uri += b"?Replaces=" + _escaped(replaces)
        self.ask("REFER", [b"Refer-To: <%b>" % uri, b"Contact: " + self.phone.contact])

    @property
    def tags(self) -> tuple[bytes, bytes]:
        """Of this phone, and of the other side."""
        return self._tag, parse_name_addr(self.remote).tag or b""

    def __repr__(self) -> str:
        way = "from" if self.incoming else "to"
        return f"<PhoneCall {self.phone.user} {way} {self.remote_uri.decode('utf-8', 'replace')} {self.state}>"


class Phone:
    """A phone of `user@domain` at an address, using one proxy. `on_invite` decides what a call makes it do; ringing by
    default. `here`: what it calls itself in Via and Contact instead of its address; `transport` stands in Via."""

    def __init__(
        self,
        aor: str,
        address: Address,
        proxy: Address,
        send: Send,
        parameters: str = "",
        *,
        transport: str = "UDP",
        here: str = "",
    ) -> None:
        self.user, _, self.domain = aor.partition("@")
        self.address = address
        self.proxy = proxy
        self.send = send
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        self.here = (here or f"{host}:{address[1]}").encode()
        self.transport = transport.encode()
        self.contact = b"<sip:%b@%b%b>" % (self.user.encode(), self.here, parameters.encode())
        self.login, self.password = self.user, ""
        """What it answers challenges with (401, 407), each request once; '' for a phone that cannot."""
        self.sdp = SDP
        """What it offers and answers with."""
        self.calls: list[PhoneCall] = []
        self.registered: list[int] = []
        """Statuses of the answers to our REGISTERs."""
        self.requests: list[Request] = []
        """Every request received, in order, repetitions included."""
        self.status = 200
        """The answer to requests that begin no call."""
        self.replies: dict[bytes, list[int]] = {}
        """Statuses of the responses to requests other than INVITE and REGISTER, by method."""
        self.on_invite: Callable[[PhoneCall], None] = PhoneCall.ring
        self._words = 0
        self._register_call_id = b"register-%b-%b" % (self.user.encode(), self.here)
        self._register_cseq = 0
        self._sent: dict[bytes, PhoneCall | None] = {}
        self._again: dict[bytes, Callable[[bytes], None]] = {}
        """Branch of a request → what sends it again with this header."""

    def word(self) -> bytes:
        """A word no other phone of the test uses: for tags, branches and Call-IDs."""
        self._words += 1
        return b"%b-%d-%d" % (self.user.encode(), self.address[1], self._words)

    # --- what the person does -----------------------------------------------------------------------------------------

    def register(self, expires: int = 3600, contact: bytes | None = None, headers: Sequence[bytes] = ()) -> None:
        aor = b"<sip:%b@%b>" % (self.user.encode(), self.domain.encode())
        self._register_cseq += 1
        branch = b"z9hG4bK" + self.word()
        self._sent[branch] = None
        if self.password and not headers:
            self._again[branch] = lambda header: self.register(expires, contact, [header])
        lines = [
            b"REGISTER sip:%b SIP/2.0" % self.domain.encode(),
            b"Via: SIP/2.0/%b %b;branch=%b" % (self.transport, self.here, branch),
            b"Max-Forwards: 70",
            b"From: %b;tag=%b" % (aor, self.word()),
            b"To: " + aor,
            b"Call-ID: " + self._register_call_id,
            b"CSeq: %d REGISTER" % self._register_cseq,
            b"Contact: %b;expires=%d" % (contact or self.contact, expires),
            b"User-Agent: test phone",
            *headers,
            b"Content-Length: 0\r\n\r\n",
        ]
        self.send(b"\r\n".join(lines), self.proxy)

    def is_now_at(self, other: Phone) -> None:
        """The phone has another address, port or transport, and is `other` there, which goes on with its REGISTERs."""
        other._register_call_id, other._register_cseq = self._register_call_id, self._register_cseq

    def invite(
        self,
        to: str,
        headers: Sequence[bytes] = (),
        body: bytes | None = None,
        call_id: bytes | None = None,
        *,
        sender: str = "",
        called: str = "",
    ) -> PhoneCall:
        """Call `user@domain`, with `sdp` where no body is given. `sender` and `called`: other addresses for From and To
        than our own and `to`."""
        body = self.sdp if body is None else body
        target = b"sip:" + to.encode()
        call = PhoneCall(self, None, call_id or self.word() + b"@" + self.here, target)
        call.local = b"<sip:%b>;tag=%b" % ((sender or f"{self.user}@{self.domain}").encode(), call._tag)
        call.remote = b"<sip:%b>" % called.encode() if called else b"<%b>" % target
        call.branch = b"z9hG4bK" + self.word()
        self.calls.append(call)
        extra = [b"Contact: " + self.contact, b"Content-Type: application/sdp", *headers]
        self.send_lines(b"INVITE", target, call.branch, call.local, call.remote, call, body, 1, extra)
        return call

    def ask(self, method: str, to: str, headers: Sequence[bytes] = (), body: bytes = b"") -> bytes:
        """Send `user@domain` (or a domain) a request that begins no call; returns its Call-ID."""
        target, call_id = b"sip:" + to.encode(), self.word() + b"@" + self.here
        call = PhoneCall(self, None, call_id, target)
        local = b"<sip:%b@%b>;tag=%b" % (self.user.encode(), self.domain.encode(), call._tag)
        lines = [b"Contact: " + self.contact, *headers]
        self.send_lines(
            method.upper().encode(), target, b"z9hG4bK" + self.word(), local, b"<%b>" % target, call, body, 1, lines
        )
        return call_id

    @property
    def news(self) -> list[bytes]:
        """What NOTIFY has said about transfers that this phone has asked for: status lines, repetitions left out."""
        told = {(r.call_id, r.cseq): r.body.strip() for r in self.requests if r.method == b"NOTIFY"}
        return list(told.values())

    # --- wire ---------------------------------------------------------------------------------------------------------

    def receive(self, data: bytes, source: Address) -> None:
        """One datagram."""
        try:
            message = parse_message(data)
        except MalformedMessage:
            return
        if isinstance(message, Request):
            self.requests.append(message)
            self._on_request(message)
        else:
            self._on_response(message)

    def reply(
        self, request: Request, status: int, tag: bytes | None, headers: Sequence[bytes] = (), body: bytes = b""
    ) -> None:
        data = build_response(request, status, reason_phrase(status), tag, headers, body)
        via = request.via
        self.send(data, (via.host.decode(), via.port or 5060))

    def send_in_dialog(
        self, call: PhoneCall, method: bytes, body: bytes = b"", headers: Sequence[bytes] = (), cseq: int | None = None
    ) -> None:
        branch = b"z9hG4bK" + self.word()
        extra = [*(b"Route: " + route for route in call.routes), *headers]
        number = call.cseq if cseq is None else cseq
        self.send_lines(method, call.remote_uri, branch, call.local, call.remote, call, body, number, extra)

    def send_lines(
        self,
        method: bytes,
        uri: bytes,
        branch: bytes,
        local: bytes,
        remote: bytes,
        call: PhoneCall,
        body: bytes,
        cseq: int,
        headers: Sequence[bytes] = (),
    ) -> None:
        if method not in (b"ACK", b"CANCEL"):
            self._sent[branch] = call
            if self.password and not any(b"uthorization: Digest" in header for header in headers):

                def again(header: bytes) -> None:
                    call.cseq = max(call.cseq, cseq + 1)
                    anew = b"z9hG4bK" + self.word()
                    if method == b"INVITE":
                        call.branch, call.invite_cseq, call.state = anew, call.cseq, "calling"
                    self.send_lines(method, uri, anew, local, remote, call, body, call.cseq, [*headers, header])

                self._again[branch] = again
        lines = [
            b"%b %b SIP/2.0" % (method, uri),
            b"Via: SIP/2.0/%b %b;branch=%b" % (self.transport, self.here, branch),
            b"Max-Forwards: 70",
            b"From: " + local,
            b"To: " + remote,
            b"Call-ID: " + call.call_id,
            b"CSeq: %d %b" % (cseq, method),
            *headers,
            b"Content-Length: %d\r\n\r\n" % len(body),
        ]
        self.send(b"\r\n".join(lines) + body, self.proxy)

    # --- requests -----------------------------------------------------------------------------------------------------

    def _on_request(self, request: Request) -> None:
        call = self._call_of(request)
        if request.method == b"INVITE" and not request.to.tag:
            if call is None:
                self._ring_for(request)
        elif request.method == b"ACK":
            if call is not None:
                call.acknowledged = True
        elif request.method == b"CANCEL":
            self._on_cancel(request, call)
        elif call is None:
            self.reply(request, 481 if request.to.tag else self.status, self.word())
        else:
            if request.method == b"BYE":
                call.state, call.bye = "ended", request
            self.reply(request, 200, None)

    def _call_of(self, request: Request) -> PhoneCall | None:
        return next((call for call in reversed(self.calls) if call.call_id == request.call_id), None)

    def _ring_for(self, request: Request) -> None:
        contacts = request.contacts()
        call = PhoneCall(self, request, request.call_id, (contacts[0].uri if contacts else None) or request.uri)
        call.local = (request.get(b"to") or b"") + b";tag=" + call._tag
        call.remote = request.get(b"from") or b""
        call.routes = [b"<%b>" % (route.uri or b"") for route in request.record_routes()]
        call.cseq = 100
        replaced = self._replaced(request)
        if replaced is None and b"replaces" in request.names:
            call.reject(481)  # RFC 3891 §3
            return
        self.calls.append(call)
        if replaced is None:
            self.on_invite(call)
        else:
            call.answer()
            replaced.hangup()

    def _replaced(self, request: Request) -> PhoneCall | None:
        """The answered call that an INVITE takes the place of."""
        value = request.get(b"replaces")
        if value is None:
            return None
        dialog = parse_replaces(value)
        for call in self.calls:
            if (call.call_id, *call.tags) == (dialog.call_id, dialog.local_tag, dialog.remote_tag):
                return call if call.state == "answered" else None
        return None

    def _on_cancel(self, request: Request, call: PhoneCall | None) -> None:
        self.reply(request, 200 if call is not None else 481, self.word())
        if call is not None and call.state == "ringing":
            call.cancelled = True
            call.cancel_reason = (request.get(b"reason") or b"").decode("utf-8", "replace")
            call.reject(487)

    # --- responses ----------------------------------------------------------------------------------------------------

    def _on_response(self, response: Response) -> None:
        branch = response.via.branch or b""
        call = self._sent.get(branch)
        if response.status >= 200 and (again := self._again.pop(branch, None)) is not None:
            header = answer_to(response, self.login, self.password, self._uri_of(response, call))
            if header:
                if response.cseq_method == b"INVITE" and call is not None:
                    self._acknowledge(call, response)
                again(header)
                return
        if response.cseq_method == b"REGISTER":
            self.registered.append(response.status)
        elif response.cseq_method == b"INVITE" and call is not None:
            self._on_invite_response(call, response)
        else:
            self.replies.setdefault(response.cseq_method, []).append(response.status)

    def _on_invite_response(self, call: PhoneCall, response: Response) -> None:
        call.statuses.append(response.status)
        call.responses.append(response)
        if response.status < 200:
            if response.status > 100 and call.state == "calling":
                call.state = "ringing"
            return
        call.remote = response.get(b"to") or call.remote
        if response.status >= 300:
            call.state = "ended"
            self._acknowledge(call, response)
            return
        if call.state != "ended":
            call.state = "answered"
        contacts = response.contacts()
        call.remote_uri = (contacts[0].uri if contacts else None) or call.remote_uri
        call.routes = [b"<%b>" % (route.uri or b"") for route in reversed(response.record_routes())]
        self.send_in_dialog(call, b"ACK", cseq=call.invite_cseq)

    def _acknowledge(self, call: PhoneCall, response: Response) -> None:
        """A final response that is no success (RFC 3261 §17.1.1.3)."""
        to = response.get(b"to") or call.remote
        self.send_lines(b"ACK", call.remote_uri, call.branch, call.local, to, call, b"", call.invite_cseq)

    def _uri_of(self, response: Response, call: PhoneCall | None) -> bytes:
        return b"sip:" + self.domain.encode() if call is None else call.remote_uri
