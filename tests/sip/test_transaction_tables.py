"""The four transaction tables, held against the RFC's figures, for every state and every input.

The expectations below are figures 5 to 8 of RFC 3261 with the changes of RFC 6026, written by hand and in words; the
test brings a real transaction into the state by the way the figure shows, feeds it the input and compares what can be
seen from outside: the next state, what was sent, what the transaction user was told, which timers run then. What stands
in no figure must change nothing: it is counted when a peer may cause it, and a `TransactionError` when only we could
have asked for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from orchestrator.sip.client import INVITE_CLIENT, NON_INVITE_CLIENT, ClientTransaction
from orchestrator.sip.layer import TransactionLayer, server_key
from orchestrator.sip.message import Request, Response, build_response, parse_message
from orchestrator.sip.points import Hop, Point
from orchestrator.sip.server import INVITE_SERVER, NON_INVITE_SERVER, ServerTransaction
from orchestrator.sip.transaction import NETWORK_INPUTS, TERMINATED, Table, Transaction, TransactionError
from orchestrator.timers import Timers

PEER = Hop(Point(0, "udp", "10.0.0.1", 5060), "192.0.2.1", 5060)

# --- the figures ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Then:
    """What an input leads to: next state, octets sent (by name), calls of the transaction user, timers that run."""

    state: str
    sent: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    timers: tuple[str, ...] = ()


END = Then(TERMINATED)

FIGURE_5: Mapping[str, Mapping[str, Then]] = {
    "calling": {
        "timer A": Then("calling", ("INVITE",), timers=("timer A", "timer B")),
        "timer B": Then(TERMINATED, told=("timeout",)),
        "1xx": Then("proceeding", told=("180",), timers=("timer C",)),
        "2xx": Then("accepted", told=("200",), timers=("timer M",)),
        "3xx-6xx": Then("completed", ("ACK",), ("486",), ("timer D",)),
        "transport error": Then(TERMINATED, told=("unreachable",)),
        "abandon": END,
    },
    "proceeding": {
        "1xx": Then("proceeding", told=("180",), timers=("timer C",)),
        "timer C": Then("proceeding", told=("timer C",), timers=("timer C",)),
        "2xx": Then("accepted", told=("200",), timers=("timer M",)),
        "3xx-6xx": Then("completed", ("ACK",), ("486",), ("timer D",)),
        "abandon": END,
    },
    "completed": {
        "3xx-6xx": Then("completed", ("ACK",), timers=("timer D",)),
        "timer D": END,
        "transport error": END,
    },
    "accepted": {
        "2xx": Then("accepted", told=("200",), timers=("timer M",)),
        "timer M": END,
    },
    TERMINATED: {},
}
"""INVITE client. `abandon` is our own: RFC 3261 §16.8 and §9.1 let the transaction user give up on a silent branch.
Timer C is the proxy's (§16.6 step 11); it runs here, so that an INVITE that rings is not without a timer."""

FIGURE_6: Mapping[str, Mapping[str, Then]] = {
    "trying": {
        "timer E": Then("trying", ("OPTIONS",), timers=("timer E", "timer F")),
        "timer F": Then(TERMINATED, told=("timeout",)),
        "1xx": Then("proceeding", told=("180",), timers=("timer E", "timer F")),
        "2xx": Then("completed", told=("200",), timers=("timer K",)),
        "3xx-6xx": Then("completed", told=("486",), timers=("timer K",)),
        "transport error": Then(TERMINATED, told=("unreachable",)),
        "abandon": END,
    },
    "proceeding": {
        "timer E": Then("proceeding", ("OPTIONS",), timers=("timer E", "timer F")),
        "timer F": Then(TERMINATED, told=("timeout",)),
        "1xx": Then("proceeding", told=("180",), timers=("timer E", "timer F")),
        "2xx": Then("completed", told=("200",), timers=("timer K",)),
        "3xx-6xx": Then("completed", told=("486",), timers=("timer K",)),
        "transport error": Then(TERMINATED, told=("unreachable",)),
        "abandon": END,
    },
    "completed": {"timer K": END},
    TERMINATED: {},
}
"""Non-INVITE client."""

FIGURE_7: Mapping[str, Mapping[str, Then]] = {
    "proceeding": {
        "request": Then("proceeding", ("180",), timers=("watch",)),
        "send 1xx": Then("proceeding", ("180",), timers=("watch",)),
        "watch": Then("proceeding", timers=("watch",)),
        "send 2xx": Then("accepted", ("200",), timers=("timer L",)),
        "send 3xx-6xx": Then("completed", ("486",), timers=("timer G", "timer H")),
    },
    "completed": {
        "request": Then("completed", ("486",), timers=("timer G", "timer H")),
        "timer G": Then("completed", ("486",), timers=("timer G", "timer H")),
        "ACK": Then("confirmed", timers=("timer I",)),
        "timer H": END,
        "transport error": END,
    },
    "confirmed": {
        "ACK": Then("confirmed", timers=("timer I",)),
        "request": Then("confirmed", timers=("timer I",)),
        "timer I": END,
    },
    "accepted": {
        "request": Then("accepted", timers=("timer L",)),
        "send 2xx": Then("accepted", ("200",), timers=("timer L",)),
        "timer L": END,
    },
    TERMINATED: {},
}
"""INVITE server. `watch` is our own: an INVITE that nobody looks after any more is answered. An ACK in Accepted is not
the transaction's (RFC 6026 §7.1: it goes to the TU), so it is not listed."""

FIGURE_8: Mapping[str, Mapping[str, Then]] = {
    "trying": {
        "request": Then("trying", timers=("deadline",)),
        "deadline": END,
        "send 1xx": Then("proceeding", ("180",), timers=("deadline",)),
        "send 2xx": Then("completed", ("200",), timers=("timer J",)),
        "send 3xx-6xx": Then("completed", ("486",), timers=("timer J",)),
    },
    "proceeding": {
        "request": Then("proceeding", ("180",), timers=("deadline",)),
        "deadline": END,
        "send 1xx": Then("proceeding", ("180",), timers=("deadline",)),
        "send 2xx": Then("completed", ("200",), timers=("timer J",)),
        "send 3xx-6xx": Then("completed", ("486",), timers=("timer J",)),
        "transport error": END,
    },
    "completed": {
        "request": Then("completed", ("486",), timers=("timer J",)),
        "timer J": END,
        "transport error": END,
    },
    TERMINATED: {},
}
"""Non-INVITE server. `deadline` is our own: by then nobody waits for an answer (RFC 4320 §4.2)."""


@dataclass(frozen=True)
class Figure:
    """A machine: its expectations, its table, and the inputs that lead from its first state to each state."""

    name: str
    method: str
    table: Table
    expected: Mapping[str, Mapping[str, Then]]
    ways: Mapping[str, tuple[str, ...]]


FIGURES = (
    Figure("INVITE client", "INVITE", INVITE_CLIENT, FIGURE_5, {
        "calling": (), "proceeding": ("1xx",), "completed": ("3xx-6xx",), "accepted": ("2xx",),
        TERMINATED: ("timer B",),
    }),
    Figure("non-INVITE client", "OPTIONS", NON_INVITE_CLIENT, FIGURE_6, {
        "trying": (), "proceeding": ("1xx",), "completed": ("2xx",), TERMINATED: ("timer F",),
    }),
    Figure("INVITE server", "INVITE", INVITE_SERVER, FIGURE_7, {
        "proceeding": ("send 1xx",), "completed": ("send 3xx-6xx",), "confirmed": ("send 3xx-6xx", "ACK"),
        "accepted": ("send 2xx",), TERMINATED: ("send 2xx", "timer L"),
    }),
    Figure("non-INVITE server", "OPTIONS", NON_INVITE_SERVER, FIGURE_8, {
        "trying": (), "proceeding": ("send 1xx",), "completed": ("send 3xx-6xx",), TERMINATED: ("send 2xx", "timer J"),
    }),
)  # fmt: skip

ALL_INPUTS = sorted(NETWORK_INPUTS | {what for f in FIGURES for row in f.expected.values() for what in row})
PAIRS = [(figure, state, what) for figure in FIGURES for state in figure.expected for what in ALL_INPUTS]


# --- a transaction under glass ----------------------------------------------------------------------------------------


def request_octets(method: str) -> bytes:
    return (
        f"{method} sip:bob@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bK0a\r\nMax-Forwards: 70\r\n"
        f"From: <sip:alice@example.com>;tag=a\r\nTo: <sip:bob@example.com>\r\nCall-ID: c1\r\nCSeq: 7 {method}\r\n"
        "Content-Length: 0\r\n\r\n"
    ).encode()


STATUS = {"1xx": 180, "2xx": 200, "3xx-6xx": 486}


@dataclass
class Glass:
    """A layer with one transaction, and everything that can be seen of it."""

    figure: Figure
    sent: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    attended: bool = True

    def __post_init__(self) -> None:
        self.layer = TransactionLayer(Timers(), lambda data, to: self.note(data, to))
        parsed = parse_message(request_octets(self.figure.method))
        assert isinstance(parsed, Request)
        self.request = parsed
        self.transaction: Transaction
        if "client" in self.figure.name:
            octets, method = request_octets(self.figure.method), self.figure.method.encode()
            self.transaction = self.layer.open_client(b"z9hG4bK0a", method, octets, PEER, self)
        else:
            self.transaction = self.layer.open_server(self.request, PEER)
            self.transaction.user = self
        self.forget()

    # the wire and the transaction user

    def note(self, data: bytes, to: object) -> None:
        assert to == PEER
        message = parse_message(data)
        self.sent.append(message.method.decode() if isinstance(message, Request) else str(message.status))

    def on_response(self, client: ClientTransaction, response: Response) -> None:
        assert client is self.transaction
        self.told.append(str(response.status))

    def on_timer_c(self, client: ClientTransaction) -> None:
        assert client is self.transaction
        self.told.append("timer C")

    def on_timeout(self, client: ClientTransaction) -> None:
        self.told.append("timeout")

    def on_unreachable(self, client: ClientTransaction) -> None:
        self.told.append("unreachable")

    def fail(self) -> None:
        self.told.append("fail")

    # inputs

    def feed(self, what: str) -> bool:
        """`respond` where we are asked for a response, as the proxy would; `step` for all else."""
        if what.startswith("send "):
            if isinstance(self.transaction, ServerTransaction):
                status = STATUS[what.removeprefix("send ")]
                self.transaction.respond(status, build_response(self.request, status, "X", b"t"))
                return True
            return self.transaction.step(what, b"")
        argument: Any = None
        if what in STATUS:
            argument = parse_message(build_response(self.request, STATUS[what], "X", b"t"))
        return self.transaction.step(what, argument)

    def forget(self) -> None:
        self.sent.clear()
        self.told.clear()

    def timers(self) -> tuple[str, ...]:
        return self.transaction.armed

    def seen(self) -> Then:
        return Then(self.transaction.state, tuple(self.sent), tuple(self.told), self.timers())


def in_state(figure: Figure, state: str) -> Glass:
    glass = Glass(figure)
    for what in figure.ways[state]:
        glass.feed(what)
    glass.forget()
    assert glass.transaction.state == state
    return glass


def name_of(value: object) -> str:
    return value.name if isinstance(value, Figure) else str(value)


# --- the tables are the figures ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("figure", FIGURES, ids=name_of)
def test_a_table_lists_what_its_figure_shows_and_nothing_else(figure: Figure) -> None:
    listed = {state: {what: entry[0] for what, entry in row.items()} for state, row in figure.table.items()}
    shown = {state: {what: then.state for what, then in row.items()} for state, row in figure.expected.items()}
    assert listed == shown


@pytest.mark.parametrize(("figure", "state", "what"), PAIRS, ids=name_of)
def test_every_state_takes_every_input(figure: Figure, state: str, what: str) -> None:
    glass = in_state(figure, state)
    before = glass.seen()
    expected = figure.expected[state].get(what)
    if expected is not None:
        assert glass.feed(what) is True
        assert glass.seen() == expected
        assert glass.layer.ignored.total() == 0
    elif what in NETWORK_INPUTS:
        assert glass.feed(what) is False
        assert glass.seen() == before
        assert glass.layer.ignored == {f"{figure.name} {state} {what}": 1}
    else:
        with pytest.raises(TransactionError, match=f"{figure.method} {state}.*'{what}'"):
            glass.feed(what)
        assert glass.seen() == before
        assert glass.layer.ignored.total() == 0


@pytest.mark.parametrize(("figure", "state"), [(f, s) for f in FIGURES for s in f.expected], ids=name_of)
def test_a_transaction_leaves_its_layer_when_it_terminates_and_not_before(figure: Figure, state: str) -> None:
    glass = in_state(figure, state)
    assert len(glass.layer) == (0 if state == TERMINATED else 1)
    assert len(glass.layer.timers) == len(glass.timers())
    if state == TERMINATED:
        assert glass.transaction.user is None


# --- nothing stays for ever -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("figure", "state"), [(f, s) for f in FIGURES for s in f.table], ids=name_of)
def test_no_state_is_without_a_timer_that_leads_on(figure: Figure, state: str) -> None:
    """One that ends it, that is: what repeats a message does not."""
    glass = in_state(figure, state)
    ends = [name for name in glass.timers() if name not in ("timer A", "timer E", "timer G")]
    assert len(ends) == (0 if state == TERMINATED else 1)
    assert all(name in figure.table[state] for name in glass.timers())


class BrokenError(RuntimeError):
    pass


def breaks(*_: object) -> None:
    raise BrokenError


@pytest.mark.parametrize(("figure", "state", "what"), PAIRS, ids=name_of)
def test_whatever_raises_in_a_transaction_it_keeps_a_timer_or_is_gone(
    figure: Figure, state: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it sends cannot be sent, whoever it tells raises, the timer that led here is used up."""
    if what not in figure.table[state]:
        return
    glass = in_state(figure, state)
    monkeypatch.setattr(glass.layer, "send", breaks)
    for name in ("on_response", "on_timeout", "on_unreachable", "on_timer_c", "fail"):
        monkeypatch.setattr(Glass, name, breaks, raising=False)
    transaction = glass.transaction
    for timer, name in (
        (transaction._resend_timer, transaction._resend_input),
        (transaction._end_timer, transaction._end_input),
    ):
        if timer is not None and name == what:
            timer.cancel()
    try:
        glass.feed(what)
    except BrokenError:
        pass
    ends = [name for name in glass.timers() if name not in ("timer A", "timer E", "timer G")]
    assert ends or len(glass.layer) == 0


def test_an_invite_nobody_looks_after_is_answered_500() -> None:
    for user, told in ((None, []), ("unattended", ["fail"])):
        glass = in_state(FIGURES[2], "proceeding")
        glass.attended = False
        glass.transaction.user = glass if user else None
        glass.layer.timers.run_due(32.51)
        assert glass.told == told
        assert glass.sent == ([] if user else ["500"])


# --- what the figures do not show -------------------------------------------------------------------------------------


def test_a_silent_invite_server_repeats_nothing_before_it_has_said_anything() -> None:
    glass = Glass(FIGURES[2])
    assert glass.feed("request")
    assert glass.seen() == Then("proceeding", timers=("watch",))


def test_open_requests_are_counted_until_their_final_answer() -> None:
    for figure in FIGURES[2:]:
        glass = Glass(figure)
        assert glass.layer.unanswered == 1
        glass.feed("send 1xx")
        assert glass.layer.unanswered == 1
        glass.feed("send 3xx-6xx")
        assert glass.layer.unanswered == 0
        glass.transaction.end()
        assert glass.layer.unanswered == 0


def test_a_server_transaction_given_up_without_an_answer_counts_no_longer() -> None:
    glass = Glass(FIGURES[3])
    assert isinstance(glass.transaction, ServerTransaction)
    glass.transaction.end()
    assert glass.layer.unanswered == 0
    assert glass.transaction.answered, "nobody may answer it any more"


@pytest.mark.parametrize("figure", FIGURES[2:], ids=name_of)
def test_an_answer_too_many_changes_nothing(figure: Figure) -> None:
    glass = in_state(figure, "completed")
    assert isinstance(glass.transaction, ServerTransaction)
    with pytest.raises(TransactionError):
        glass.transaction.respond(200, build_response(glass.request, 200, "OK", b"t"))
    assert (glass.transaction.status, glass.layer.unanswered) == (486, 0)


def test_a_user_that_does_not_care_is_not_told() -> None:
    for what in ("1xx", "2xx", "timer B", "transport error"):
        glass = Glass(FIGURES[0])
        glass.transaction.user = None
        assert glass.feed(what)
        assert glass.told == []


def test_a_finished_request_is_not_kept() -> None:
    """An answered call lingers for 32 seconds; its INVITE, with the body, must not."""
    client = in_state(FIGURES[0], "accepted").transaction
    assert isinstance(client, ClientTransaction)
    assert client.sent == b""
    for state in ("accepted", "confirmed"):
        server = in_state(FIGURES[2], state).transaction
        assert isinstance(server, ServerTransaction)
        assert server.request is None
        assert server.last == b""


def test_a_100_is_repeated_without_being_kept() -> None:
    """A call that waits for its phone has said nothing but 100: thousands of them need not be kept."""
    glass = Glass(FIGURES[2])
    server = glass.transaction
    assert isinstance(server, ServerTransaction)
    octets: list[bytes] = []
    glass.layer.send = lambda data, to: octets.append(data)
    server.respond(100, build_response(glass.request, 100, "Trying"))
    assert server.last == b""
    glass.feed("request")
    assert len(octets) == 2
    assert octets[0] == octets[1]
    server.respond(180, build_response(glass.request, 180, "Ringing", b"t"))
    glass.feed("request")
    assert octets[2] == octets[3]
    assert octets[2].startswith(b"SIP/2.0 180 ")


def test_an_answered_request_that_is_no_invite_keeps_nobody() -> None:
    """Hardly anything is left of a BYE for the 32 seconds in which it may be repeated: its answer."""
    client = in_state(FIGURES[1], "completed").transaction
    assert isinstance(client, ClientTransaction)
    assert (client.sent, client.user) == (b"", None)
    glass = in_state(FIGURES[3], "completed")
    assert isinstance(glass.transaction, ServerTransaction)
    assert (glass.transaction.request, glass.transaction.user) == (None, None)
    assert glass.feed("request")
    assert glass.sent == ["486"]


# --- which transaction a message belongs to (§17.1.3, §17.2.3) --------------------------------------------------------


def parsed(octets: bytes, old: bytes = b"", new: bytes = b"") -> Request:
    assert old in octets
    message = parse_message(octets.replace(old, new))
    assert isinstance(message, Request)
    return message


INVITE = request_octets("INVITE")
OLD_INVITE = INVITE.replace(b";branch=z9hG4bK0a", b";branch=17")
BARE_INVITE = INVITE.replace(b"z9hG4bK0a", b"z9hG4bK")


@pytest.mark.parametrize(
    ("octets", "old", "new", "same"),
    [
        (INVITE, b"Max-Forwards: 70", b"Max-Forwards: 70", True),
        (INVITE, b"Call-ID: c1", b"Call-ID: c2", True),  # the branch alone decides
        (INVITE, b"z9hG4bK0a", b"z9hG4bK0b", False),
        (INVITE, b"192.0.2.9", b"192.0.2.8", False),
        (INVITE, b"192.0.2.9;", b"192.0.2.9:5061;", False),
        (INVITE, b"INVITE", b"OPTIONS", False),
        (INVITE, b"INVITE", b"ACK", True),
        (OLD_INVITE, b"Max-Forwards: 70", b"Max-Forwards: 69", True),
        (OLD_INVITE, b"Call-ID: c1", b"Call-ID: c2", False),
        (OLD_INVITE, b"CSeq: 7", b"CSeq: 8", False),
        (OLD_INVITE, b"tag=a", b"tag=b", False),
        (OLD_INVITE, b"sip:bob@192.0.2.1", b"sip:eve@192.0.2.1", False),
        (OLD_INVITE, b";branch=17", b"", False),
        (OLD_INVITE, b"192.0.2.9", b"192.0.2.8", False),
        (OLD_INVITE, b"INVITE", b"ACK", True),
        (BARE_INVITE, b"Call-ID: c1", b"Call-ID: c2", False),  # RFC 4475 badbranch: the bare cookie names nothing
        (BARE_INVITE, b"INVITE", b"ACK", True),
    ],
)
def test_what_makes_a_request_the_same_request(octets: bytes, old: bytes, new: bytes, same: bool) -> None:
    first, second = parsed(octets), parsed(octets, old, new)
    assert (server_key(first, first.method) == server_key(second, second.method)) is same


def test_a_response_belongs_to_the_client_with_its_branch_and_method() -> None:
    glass = Glass(FIGURES[0])
    layer, answer = glass.layer, build_response(glass.request, 180, "Ringing", b"t")

    def receive(old: bytes = b"", new: bytes = b"") -> bool:
        response = parse_message(answer.replace(old, new))
        assert isinstance(response, Response)
        return layer.receive_response(response)

    assert not receive(b"z9hG4bK0a", b"z9hG4bK0b")
    assert not receive(b";branch=z9hG4bK0a", b"")
    assert not receive(b"7 INVITE", b"7 OPTIONS")
    assert not receive(b"7 INVITE", b"7 CANCEL")
    assert glass.told == []
    assert receive()
    assert glass.told == ["180"]


def test_a_cancel_has_a_transaction_of_its_own_beside_the_invite() -> None:
    glass = in_state(FIGURES[0], "proceeding")
    layer = glass.layer
    invite = glass.transaction
    assert isinstance(invite, ClientTransaction)
    cancel = layer.open_client(invite.branch, b"CANCEL", request_octets("CANCEL"), PEER, None)
    assert len(layer.clients) == 2
    answer = parse_message(build_response(parsed(request_octets("CANCEL")), 200, "OK", b"t"))
    assert isinstance(answer, Response)
    assert layer.receive_response(answer)
    assert (cancel.state, invite.state) == ("completed", "proceeding")
    layer.unreachable(invite.branch, b"CANCEL")
    assert invite.state == "proceeding"
    layer.unreachable(b"z9hG4bKnobody", b"INVITE")


# --- what the layer builds itself -------------------------------------------------------------------------------------

TORTUOUS = (
    b"INVITE sip:bob@example.com;x SIP/2.0\r\n"
    b"Via: SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bKours\r\n"
    b"v:  SIP / 2.0 / UDP 192.0.2.9 ;\r\n  branch = z9hG4bKtheirs\r\n"
    b"T :\r\n sip:bob@example.com\r\n"
    b'f: "A \\" B"   <sip:alice@example.com>\r\n  ;\r\n  tag = a\r\n'
    b"MAX-forwards: 0067\r\n"
    b"i: c1\r\n"
    b"cSEQ: 0009\r\n  INVITE\r\n"
    b"ROUTE:\r\n <sip:next.example.com;lr;x=y>\r\n"
    b"Subject:\r\n folded\r\n"
    b"c: application/sdp\r\nl: 3\r\n\r\nSDP"
)  # fmt: skip


@pytest.mark.parametrize("where", ["before", "inside"])
def test_the_ack_to_a_failure_reads_like_its_invite_however_that_was_written(where: str) -> None:
    """Folded lines, compact names, blanks before colons: the ACK must come out well-formed and with the right
    numbers."""
    sent = TORTUOUS if where == "inside" else TORTUOUS.replace(b"0009\r\n  INVITE", b"\r\n 0009 INVITE")
    layer = TransactionLayer(Timers(), lambda data, to: None)
    failure = parse_message(
        b"SIP/2.0 486 Busy\r\nVia: SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bKours\r\nf: sip:alice@example.com;tag=a\r\n"
        b"t:\r\n <sip:bob@example.com>;tag=callee\r\nCall-ID: c1\r\nCSeq: 9 INVITE\r\nContent-Length: 0\r\n\r\n"
    )
    assert isinstance(failure, Response)
    ack = parsed(layer.build_ack(sent, failure))
    invite = parsed(sent)
    assert (ack.method, ack.uri) == (b"ACK", invite.uri)
    assert (ack.cseq, ack.cseq_method, ack.call_id) == (9, b"ACK", invite.call_id)
    assert (ack.from_.tag, ack.to.tag) == (b"a", b"callee")
    assert [via.branch for via in ack.vias()] == [b"z9hG4bKours"]
    assert [route.uri for route in ack.routes()] == [route.uri for route in invite.routes()]
    assert ack.max_forwards == 67
    assert ack.get(b"subject") is None
    assert ack.get(b"content-type") is None
    assert ack.body == b""
