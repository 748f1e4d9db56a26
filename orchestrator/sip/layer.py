"""The transaction layer: which transaction a message belongs to (RFC 3261 §17.1.3, §17.2.3), and nothing else.

It owns the two tables, hands new requests back to its caller, and builds what only it may send: the ACK to a failure
and the CANCEL. Octets go out through `send(data, destination)`, which the engine gives; time is the shared `Timers`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from orchestrator.sip.client import ClientTransaction, ClientUser, InviteClient, NonInviteClient, client_key
from orchestrator.sip.message import Message, Request, Response
from orchestrator.sip.names import SPELLINGS
from orchestrator.sip.points import Hop
from orchestrator.sip.server import InviteServer, NonInviteServer, ServerTransaction
from orchestrator.sip.transaction import Layer, TimerValues, Transaction
from orchestrator.timers import Timers


class Outbox:
    """What leaves when the turn is over, in this order; emptied by whoever sends it."""

    __slots__ = ("messages",)

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, Hop]] = []

    def send(self, data: bytes, destination: Hop) -> None:
        """Put octets in, for this hop."""
        self.messages.append((data, destination))


class TransactionLayer(Layer):
    """All transactions of one engine."""

    def __init__(self, timers: Timers, send: Callable[[bytes, Hop], None], times: TimerValues | None = None) -> None:
        self.timers = timers
        self.send = send
        self.times = times or TimerValues()
        self.servers: dict[object, ServerTransaction] = {}
        self.clients: dict[bytes, ClientTransaction] = {}
        self.refused = {}
        """INVITEs that a failure was sent to, by what their ACK shares with them beside the branch."""
        self.by_connection: dict[object, set[ClientTransaction]] = {}
        """Client transactions on each connection, by its number, or by where it leads to when anyone may do
        (`connection_key`)."""
        self.unanswered = 0
        """Server transactions without a final response: what is really in progress. The others linger for
        repetitions."""
        self.answers = Counter()
        """Requests answered, by method (`other` for one that is not known) and final status."""
        self.unattended = 0
        """INVITEs that were found with nobody to answer them, and were answered 500."""
        self.octets = 0
        """Size of the messages that all transactions began with: an upper bound of what they keep."""
        self.ignored: Counter[str] = Counter()
        """Inputs from the network that no table listed, by `kind state input`."""

    @property
    def lingering(self) -> int:
        """Transactions that need no decision any more, which others can make us keep: answered ones, and clients."""
        return len(self.servers) + len(self.clients) - self.unanswered

    # --- server side --------------------------------------------------------------------------------------------------

    def find_server(self, request: Request) -> ServerTransaction | None:
        """The transaction this request repeats or acknowledges. For a CANCEL that of the CANCEL itself."""
        return self.servers.get(server_key(request, request.method))

    def find_cancelled(self, cancel: Request) -> InviteServer | None:
        """The INVITE a CANCEL means (§9.2)."""
        found = self.servers.get(server_key(cancel, b"INVITE"))
        return found if isinstance(found, InviteServer) else None

    def find_refused(self, ack: Request) -> ServerTransaction | None:
        """The refused INVITE an ACK means that has a branch of its own, as some phones send it."""
        found: ServerTransaction | None = self.refused.get((ack.call_id, ack.cseq, ack.from_tag))
        return found

    def open_server(self, request: Request, destination: Hop) -> ServerTransaction:
        """A new server transaction; `destination` is where its responses go (§18.2.2)."""
        key = server_key(request, request.method)
        server: ServerTransaction
        if request.method == b"INVITE":
            server = InviteServer(self, key, request, destination)
        else:
            server = NonInviteServer(self, key, request, destination)
        weight = len(request.body)
        for line in request.lines:
            weight += len(line)
        server.weight = weight
        self.octets += server.weight
        self.servers[key] = server
        self.unanswered += 1
        server.start()
        return server

    # --- client side --------------------------------------------------------------------------------------------------

    def open_client(
        self, branch: bytes, method: bytes, data: bytes, destination: Hop, user: ClientUser | None
    ) -> ClientTransaction:
        """Send a request whose topmost Via carries `branch`; `user` hears what becomes of it."""
        client: ClientTransaction
        if method == b"INVITE":
            client = InviteClient(self, branch, method, data, destination)
        else:
            client = NonInviteClient(self, branch, method, data, destination)
        client.user = user
        client.weight = len(data)
        self.octets += client.weight
        self.clients[client.key] = client
        if destination.point.reliable:
            self.by_connection.setdefault(connection_key(destination), set()).add(client)
        client.start()
        return client

    def find_client(self, response: Response) -> ClientTransaction | None:
        """The transaction whose answer this is (§17.1.3)."""
        branch = response.via.branch
        client = self.clients.get(client_key(branch, response.cseq_method)) if branch is not None else None
        return client if client is not None and client.method == response.cseq_method else None

    def receive_response(self, response: Response) -> bool:
        """Hand a response to its transaction. False when it matches none: it is then dropped (RFC 6026 §7.3)."""
        client = self.find_client(response)
        if client is None:
            return False
        status = response.status
        client.step("1xx" if status < 200 else "2xx" if status < 300 else "3xx-6xx", response)
        return True

    def unreachable(self, branch: bytes, method: bytes) -> None:
        """The transport could not send this client transaction's request (§17.1.4)."""
        client = self.clients.get(client_key(branch, method))
        if client is not None:
            client.step("transport error")

    # --- for the transactions -----------------------------------------------------------------------------------------

    def forget(self, transaction: Transaction) -> None:
        table: dict[Any, Any] = self.servers if isinstance(transaction, ServerTransaction) else self.clients
        if table.get(transaction.key) is transaction:
            del table[transaction.key]
            self.octets -= transaction.weight
            if transaction.destination.point.reliable and isinstance(transaction, ClientTransaction):
                self._leave(transaction, connection_key(transaction.destination))

    def _leave(self, client: ClientTransaction, connection: object) -> None:
        on_it = self.by_connection.get(connection, set())
        on_it.discard(client)
        if not on_it:
            self.by_connection.pop(connection, None)

    def clients_on(self, hop: Hop) -> tuple[ClientTransaction, ...]:
        """Client transactions whose answers come over this connection, whether they named it or took what there was."""
        named = self.by_connection.get(hop.connection, ())
        return (*named, *self.by_connection.get(connection_key(hop._replace(connection=0)), ()))

    def count_ignored(self, transaction: Transaction, what: str) -> None:
        self.ignored[f"{transaction.kind} {transaction.state} {what}"] += 1

    def build_ack(self, invite: bytes, response: Response) -> bytes:
        """The hop-by-hop ACK to a final response >= 300: our INVITE's branch, the response's To (§17.1.1.3)."""
        return derive_request(invite, b"ACK", to_line=_line_of(response, b"to"))

    def __len__(self) -> int:
        return len(self.servers) + len(self.clients)


def connection_key(hop: Hop) -> object:
    """What the transactions of one connection share: its number, or the place it leads to."""
    return hop.connection or (hop.point.index, hop.host, hop.port)


def server_key(request: Request, method: bytes) -> object:
    """RFC 3261 §17.2.3: branch, sent-by and method; without the magic cookie the RFC 2543 rule of the same section.

    An ACK is looked up as the INVITE it acknowledges.
    """
    via = request.via
    if method == b"ACK":
        method = b"INVITE"
    if via.has_cookie:
        return via.branch, via.host, via.port, method
    return (
        request.uri,
        request.call_id,
        request.cseq,
        request.from_tag,
        via.branch,
        via.host,
        via.port,
        method,
    )


_DERIVED = frozenset((b"via", b"from", b"to", b"call-id", b"cseq", b"route", b"max-forwards"))
_unfold = re.compile(rb"\r\n[ \t]++").sub


def derive_request(sent: bytes, method: bytes, to_line: bytes | None = None, headers: tuple[bytes, ...] = ()) -> bytes:
    """An ACK (§17.1.1.3) or CANCEL (§9.1) for a request we sent: same request URI, topmost Via, From, Call-ID, CSeq
    number, Route.

    `to_line` replaces the To line (an ACK copies the response's), `headers` are whole lines put before the end.
    """
    head = _unfold(b" ", sent[: sent.index(b"\r\n\r\n")])
    start, *lines = head.split(b"\r\n")
    out = [method + b" " + start.split(b" ", 2)[1] + b" SIP/2.0"]
    has_via = False
    for line in lines:
        name, _, value = line.partition(b":")
        name = name.strip()
        name = SPELLINGS.get(name) or name.lower()
        if name not in _DERIVED or (name == b"via" and has_via):
            continue
        if name == b"via":
            has_via = True
        elif name == b"cseq":
            line = b"CSeq: " + value.split()[0] + b" " + method
        elif name == b"to" and to_line is not None:
            line = to_line
        out.append(line)
    out.extend(headers)
    out.append(b"Content-Length: 0\r\n\r\n")
    return b"\r\n".join(out)


def _line_of(message: Message, name: bytes) -> bytes | None:
    for position, candidate in enumerate(message.names):
        if candidate == name:
            return message.lines[position]
    return None
