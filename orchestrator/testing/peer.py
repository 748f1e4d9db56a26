"""A SIP endpoint that says what the test tells it and nothing else.

A `Phone` behaves like one; a `Peer` does not: it sends what it is asked to, as often as it is asked to, answers nothing
by itself and keeps all it hears. That is what tests of races, repetitions and misbehaviour need.
"""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.sip.layer import derive_request
from orchestrator.sip.message import Request, Response, build_response, parse_message
from orchestrator.sip.reasons import reason_phrase
from orchestrator.testing.phone import Address


class Ask:
    """A request that a peer has sent, and the responses to it so far."""

    def __init__(self, peer: Peer, method: str, branch: str, octets: bytes) -> None:
        self.peer = peer
        self.method = method.encode()
        self.branch = branch.encode()
        self.octets = octets

    @property
    def responses(self) -> list[Response]:
        """What was answered, in order, repetitions included."""
        found = (m for m in self.peer.received if isinstance(m, Response) and m.cseq_method == self.method)
        return [response for response in found if response.via.branch == self.branch]

    @property
    def statuses(self) -> list[int]:
        return [response.status for response in self.responses]

    @property
    def final(self) -> Response:
        """The first final response. Raises StopIteration where there is none."""
        return next(response for response in self.responses if response.status >= 200)

    def again(self) -> None:
        """The same octets once more: a retransmission."""
        self.peer.send(self.octets)

    def cancel(self, *headers: str) -> Ask:
        """A CANCEL of this request (RFC 3261 §9.1)."""
        lines = tuple(line.encode() for line in headers)
        return self._derived("CANCEL", derive_request(self.octets, b"CANCEL", headers=lines))

    def acknowledge(self) -> Ask:
        """The ACK to the failure this request was answered with (§17.1.1.3)."""
        to = b"To: " + (self.final.get(b"to") or b"")
        return self._derived("ACK", derive_request(self.octets, b"ACK", to_line=to))

    def _derived(self, method: str, octets: bytes) -> Ask:
        ask = Ask(self.peer, method, self.branch.decode(), octets)
        ask.again()
        return ask

    def __repr__(self) -> str:
        return f"<Ask {self.method.decode()} {self.statuses}>"


class Peer:
    """An endpoint `name` at an address; `post(octets, target)` puts a datagram on the wires."""

    def __init__(
        self,
        name: str,
        address: Address,
        proxy: Address,
        post: Callable[[bytes, Address], None],
        transport: str = "udp",
    ) -> None:
        self.name = name
        self.address = address
        self.proxy = proxy
        self.received: list[Request | Response] = []
        """Every message that came, in order."""
        self.raw: list[bytes] = []
        """The octets of the same."""
        self._post = post
        self._words = 0
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        self.here = f"{host}:{address[1]}"
        self.transport = transport
        self.contact = f"<sip:{name}@{self.here}{'' if transport == 'udp' else f';transport={transport}'}>"

    # --- hearing ------------------------------------------------------------------------------------------------------

    def receive(self, data: bytes, source: Address) -> None:
        """One datagram: kept. Raises MalformedMessage, because what comes from the engine must be well-formed."""
        self.raw.append(data)
        self.received.append(parse_message(data))

    def requests(self, method: str = "") -> list[Request]:
        """Requests received, in order, of one method or of all."""
        found = [message for message in self.received if isinstance(message, Request)]
        return [request for request in found if not method or request.method == method.encode()]

    @property
    def heard(self) -> list[str]:
        """Methods and statuses of all that was received, in order: to be held against a script."""
        return [m.method.decode() if isinstance(m, Request) else str(m.status) for m in self.received]

    # --- speaking -----------------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Octets to the proxy."""
        self._post(data, self.proxy)

    def word(self) -> str:
        """A word this peer has not used yet."""
        self._words += 1
        return f"{self.name}{self._words}"

    def ask(
        self,
        method: str,
        uri: str,
        *headers: str,
        to: str = "",
        sender: str = "",
        call_id: str = "",
        cseq: int = 1,
        branch: str = "",
        max_forwards: int | None = 70,
        body: bytes = b"",
        send: bool = True,
    ) -> Ask:
        """Send a request, or with `send` false only write it: `Ask.again` sends it then.

        `to` and `sender` are header values, `headers` whole lines; what is not given is made up. An INVITE gets a
        Contact unless `headers` have one.
        """
        branch = branch or "z9hG4bK" + self.word()
        if method == "INVITE" and not any(line.lower().startswith("contact") for line in headers):
            headers = (f"Contact: {self.contact}", *headers)
        lines = [
            f"{method} {uri} SIP/2.0",
            f"Via: SIP/2.0/{self.transport.upper()} {self.here};branch={branch}",
            *([] if max_forwards is None else [f"Max-Forwards: {max_forwards}"]),
            f"From: {sender or f'<sip:{self.name}@example.com>;tag={self.name}'}",
            f"To: {to or f'<{uri}>'}",
            f"Call-ID: {call_id or self.word()}",
            f"CSeq: {cseq} {method}",
            *headers,
            f"Content-Length: {len(body)}",
        ]
        ask = Ask(self, method, branch, "\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        if send:
            ask.again()
        return ask

    def answer(
        self, request: Request, status: int, *headers: str, tag: str = "", contact: str | None = None, body: bytes = b""
    ) -> bytes:
        """Send a response and return its octets; `contact` is our own for a 2xx to an INVITE unless given ("" for
        none)."""
        lines = [line.encode() for line in headers]
        if contact is None and request.method == b"INVITE" and 200 <= status < 300:
            contact = self.contact
        if contact:
            lines.append(b"Contact: " + contact.encode())
        to_tag = None if status == 100 else (tag or self.name).encode()
        data = build_response(request, status, reason_phrase(status), to_tag, lines, body)
        self.send(data)
        return data

    def register(self, aor: str, contact: str = "", expires: int = 3600, *headers: str, cseq: int = 1) -> Ask:
        """REGISTER a contact, our own unless given."""
        address, domain = f"<sip:{aor}>", aor.rpartition("@")[2]
        lines = (f"Contact: {contact or self.contact};expires={expires}", *headers)
        call_id = f"register-{aor}-{self.name}"
        return self.ask("REGISTER", f"sip:{domain}", *lines, to=address, call_id=call_id, cseq=cseq)

    def __repr__(self) -> str:
        return f"<Peer {self.name} {self.here}>"
