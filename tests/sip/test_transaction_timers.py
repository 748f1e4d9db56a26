"""Timers A to M over UDP: what is sent when, to the hundredth of a second (RFC 3261 table 4, RFC 6026).

A manual clock goes from timer to timer, so 32 seconds of retransmission take no time, and "at 31.5 for the last time"
is an equality.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.sip.client import ClientTransaction
from orchestrator.sip.layer import TransactionLayer
from orchestrator.sip.message import Request, Response, build_response, parse_message
from orchestrator.sip.points import Hop, Point
from orchestrator.sip.server import ServerTransaction
from orchestrator.sip.transaction import TERMINATED, TimerValues
from orchestrator.timers import Timers

PEER = Hop(Point(0, "udp", "10.0.0.1", 5060), "192.0.2.1", 5060)

A_SENDS = [0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5]
"""Timer A doubles without a bound: 7 sends before timer B."""
E_SENDS = [0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
"""Timers E and G double up to T2: 11 sends before timer F or H."""


class Bench:
    """A layer, a clock, and what went over the wire and to the transaction user, with the time."""

    def __init__(self, times: TimerValues | None = None) -> None:
        self.timers = Timers()
        self.layer = TransactionLayer(self.timers, self._send, times)
        self.sent: list[tuple[float, str]] = []
        self.told: list[tuple[float, str]] = []

    def _send(self, data: bytes, to: object) -> None:
        message = parse_message(data)
        what = message.method.decode() if isinstance(message, Request) else str(message.status)
        self.sent.append((self.now, what))

    @property
    def now(self) -> float:
        return round(self.timers.now, 6)

    def run(self, until: float) -> None:
        while (due := self.timers.next_due()) is not None and due <= until:
            self.timers.run_due(due)
        self.timers.run_due(until)

    def sends(self, what: str) -> list[float]:
        return [at for at, sent in self.sent if sent == what]

    # the transaction user

    def on_response(self, client: ClientTransaction, response: Response) -> None:
        self.told.append((self.now, str(response.status)))

    def on_timer_c(self, client: ClientTransaction) -> None:
        client.step("abandon")

    def on_timeout(self, client: ClientTransaction) -> None:
        self.told.append((self.now, "timeout"))

    def on_unreachable(self, client: ClientTransaction) -> None:
        self.told.append((self.now, "unreachable"))

    # both sides

    def client(self, method: str) -> ClientTransaction:
        return self.layer.open_client(b"z9hG4bK1", method.encode(), octets(method), PEER, self)

    def server(self, method: str) -> ServerTransaction:
        return self.layer.open_server(request(method), PEER)

    def hear(self, status: int, method: str = "INVITE") -> None:
        response = parse_message(answer(status, method))
        assert isinstance(response, Response)
        assert self.layer.receive_response(response)


def octets(method: str) -> bytes:
    return (
        f"{method} sip:bob@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bK1\r\nMax-Forwards: 70\r\n"
        f"From: <sip:alice@example.com>;tag=a\r\nTo: <sip:bob@example.com>\r\nCall-ID: c1\r\nCSeq: 7 {method}\r\n"
        "Content-Length: 0\r\n\r\n"
    ).encode()


def request(method: str) -> Request:
    message = parse_message(octets(method))
    assert isinstance(message, Request)
    return message


def answer(status: int, method: str) -> bytes:
    return build_response(request(method), status, "X", b"t")


# --- A and B: the INVITE client ---------------------------------------------------------------------------------------


def test_a_and_b_an_invite_is_sent_seven_times_and_given_up_after_32_seconds() -> None:
    bench = Bench()
    client = bench.client("INVITE")
    bench.run(100)
    assert bench.sends("INVITE") == A_SENDS
    assert bench.told == [(32.0, "timeout")]
    assert client.state == TERMINATED
    assert len(bench.layer) == len(bench.timers) == 0


def test_a_stops_at_the_first_provisional_response_and_nothing_ends_the_wait() -> None:
    bench = Bench()
    bench.client("INVITE")
    bench.run(2.0)
    bench.hear(100)
    bench.run(150.0)
    assert bench.sends("INVITE") == [0, 0.5, 1.5]
    assert bench.told == [(2.0, "100")]
    assert len(bench.timers) == 1, "timer C, of which the proxy is told"


@pytest.mark.parametrize("status", [200, 486])
def test_a_stops_at_a_final_response(status: int) -> None:
    bench = Bench()
    bench.client("INVITE")
    bench.run(0.7)
    bench.hear(status)
    bench.run(100)
    assert bench.sends("INVITE") == [0, 0.5]
    assert [what for _, what in bench.told] == [str(status)]


# --- D: Completed -----------------------------------------------------------------------------------------------------


def test_d_each_repeated_failure_is_acknowledged_for_32_seconds_and_told_once() -> None:
    bench = Bench()
    bench.client("INVITE")
    bench.run(1.0)
    for at in [*E_SENDS, 31.9]:
        bench.run(1.0 + at)
        bench.hear(486)
    assert bench.sends("ACK") == [1.0 + at for at in [*E_SENDS, 31.9]]
    assert bench.told == [(1.0, "486")]
    bench.run(33.0)
    assert len(bench.layer) == 0


def test_d_a_late_answer_after_a_failure_is_ignored() -> None:
    bench = Bench()
    bench.client("INVITE")
    bench.hear(486)
    bench.hear(200)
    bench.hear(180)
    assert bench.told == [(0, "486")]
    assert bench.sends("ACK") == [0]
    assert bench.layer.ignored == {"INVITE client completed 2xx": 1, "INVITE client completed 1xx": 1}


# --- M: Accepted (RFC 6026 §7.2) --------------------------------------------------------------------------------------


def test_m_every_2xx_within_32_seconds_of_the_first_is_told() -> None:
    bench = Bench()
    bench.client("INVITE")
    bench.run(3.0)
    bench.hear(180)
    for at in (3.0, 3.5, 20.0, 34.9):
        bench.run(at)
        bench.hear(200)
    bench.hear(486)  # from another fork: nothing to say any more, and no ACK of ours
    assert [at for at, what in bench.told if what == "200"] == [3.0, 3.5, 20.0, 34.9]
    assert bench.sends("ACK") == []
    bench.run(35.0)
    assert len(bench.layer) == 0
    stray = parse_message(answer(200, "INVITE"))
    assert isinstance(stray, Response)
    assert not bench.layer.receive_response(stray), "RFC 6026 §7.3: dropped"


# --- E, F and K: the non-INVITE client --------------------------------------------------------------------------------


def test_e_and_f_a_request_is_sent_eleven_times_and_given_up_after_32_seconds() -> None:
    bench = Bench()
    bench.client("OPTIONS")
    bench.run(100)
    assert bench.sends("OPTIONS") == E_SENDS
    assert bench.told == [(32.0, "timeout")]
    assert len(bench.layer) == len(bench.timers) == 0


def test_e_after_a_provisional_response_a_request_is_repeated_every_t2() -> None:
    bench = Bench()
    bench.client("OPTIONS")
    bench.run(0.6)
    bench.hear(100, "OPTIONS")
    bench.run(100)
    assert bench.sends("OPTIONS") == [0, 0.5, 1.5, 5.5, 9.5, 13.5, 17.5, 21.5, 25.5, 29.5]
    assert bench.told == [(0.6, "100"), (32.0, "timeout")]


def test_k_repeated_answers_are_absorbed_for_t4() -> None:
    bench = Bench()
    bench.client("OPTIONS")
    bench.run(1.0)
    bench.hear(200, "OPTIONS")
    bench.run(5.9)
    bench.hear(200, "OPTIONS")
    assert bench.told == [(1.0, "200")]
    assert bench.layer.ignored == {"non-INVITE client completed 2xx": 1}
    assert len(bench.layer) == 1
    bench.run(6.0)
    assert len(bench.layer) == len(bench.timers) == 0
    assert bench.sends("OPTIONS") == [0, 0.5]


# --- G, H and I: the INVITE server ------------------------------------------------------------------------------------


def test_g_and_h_a_failure_is_sent_eleven_times_until_the_ack_is_given_up() -> None:
    bench = Bench()
    server = bench.server("INVITE")
    server.respond(486, answer(486, "INVITE"))
    bench.run(100)
    assert bench.sends("486") == E_SENDS
    assert len(bench.layer) == len(bench.timers) == 0


def test_h_ends_the_wait_at_32_seconds() -> None:
    bench = Bench()
    bench.server("INVITE").respond(486, answer(486, "INVITE"))
    bench.run(31.99)
    assert len(bench.layer) == 1
    bench.run(32.0)
    assert len(bench.layer) == 0


def test_g_stops_and_i_starts_with_the_ack() -> None:
    bench = Bench()
    server = bench.server("INVITE")
    server.respond(180, answer(180, "INVITE"))
    bench.run(2.0)
    server.respond(486, answer(486, "INVITE"))
    bench.run(4.0)
    server.step("ACK")
    bench.run(8.99)
    server.step("request")
    server.step("ACK")
    assert bench.sends("486") == [2.0, 2.5, 3.5], "an INVITE repeated behind its ACK is old"
    assert len(bench.layer) == 1
    bench.run(9.0)
    assert len(bench.layer) == len(bench.timers) == 0


def test_a_repeated_invite_gets_the_last_answer_again_and_does_not_disturb_g() -> None:
    bench = Bench()
    server = bench.server("INVITE")
    server.respond(100, answer(100, "INVITE"))
    bench.run(0.25)
    server.step("request")
    server.respond(183, answer(183, "INVITE"))
    bench.run(0.5)
    server.step("request")
    assert bench.sent == [(0, "100"), (0.25, "100"), (0.25, "183"), (0.5, "183")]
    bench.run(1.0)
    server.respond(486, answer(486, "INVITE"))
    bench.run(1.2)
    server.step("request")
    bench.run(5.0)
    assert bench.sends("486") == [1.0, 1.2, 1.5, 2.5, 4.5]


# --- L: Accepted (RFC 6026 §7.1) --------------------------------------------------------------------------------------


def test_l_an_answered_invite_is_absorbed_and_its_2xx_relayed_for_32_seconds() -> None:
    bench = Bench()
    server = bench.server("INVITE")
    bench.run(1.0)
    for at in (1.0, 1.5, 32.9):
        bench.run(at)
        server.respond(200, answer(200, "INVITE"))
        server.step("request")
    assert bench.sends("200") == [1.0, 1.5, 32.9], "only what the callee repeats goes out, nothing of our own"
    assert len(bench.layer) == 1
    bench.run(33.0)
    assert len(bench.layer) == len(bench.timers) == 0


# --- J: the non-INVITE server -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 404])
def test_j_the_answer_is_repeated_for_every_repetition_within_32_seconds(status: int) -> None:
    bench = Bench()
    server = bench.server("OPTIONS")
    server.step("request")
    bench.run(1.0)
    server.respond(status, answer(status, "OPTIONS"))
    for at in (1.5, 2.5, 32.9):
        bench.run(at)
        server.step("request")
    assert bench.sent == [(at, str(status)) for at in (1.0, 1.5, 2.5, 32.9)]
    bench.run(33.0)
    assert len(bench.layer) == len(bench.timers) == 0


# --- other values -----------------------------------------------------------------------------------------------------


def test_the_configured_values_are_used_and_everything_follows_t1() -> None:
    times = TimerValues(t1=0.1, t2=0.4, t4=0.5)
    assert times.timeout == pytest.approx(6.4)
    for method, expected in (
        ("INVITE", [0, 0.1, 0.3, 0.7, 1.5, 3.1, 6.3]),
        ("OPTIONS", [0, 0.1, 0.3, *(0.7 + 0.4 * n for n in range(15))]),
    ):
        bench = Bench(times)
        bench.client(method)
        bench.run(100)
        assert bench.sends(method) == pytest.approx(expected)
        assert bench.told == [(6.4, "timeout")]


def _invite_client(bench: Bench) -> None:
    bench.client("INVITE")


def _refused_client(bench: Bench) -> None:
    bench.client("INVITE")
    bench.hear(486)


def _answered_client(bench: Bench) -> None:
    bench.client("INVITE")
    bench.hear(200)


def _request_client(bench: Bench) -> None:
    bench.client("OPTIONS")


def _refused_server(bench: Bench) -> None:
    bench.server("INVITE").respond(486, answer(486, "INVITE"))


def _answered_server(bench: Bench) -> None:
    bench.server("INVITE").respond(200, answer(200, "INVITE"))


def _request_server(bench: Bench) -> None:
    bench.server("OPTIONS").respond(200, answer(200, "OPTIONS"))


@pytest.mark.parametrize(
    "begin",
    [
        _invite_client,
        _refused_client,
        _answered_client,
        _request_client,
        _refused_server,
        _answered_server,
        _request_server,
    ],
)
def test_whatever_a_silent_peer_leaves_behind_is_gone_after_64_t1(begin: Callable[[Bench], None]) -> None:
    bench = Bench()
    begin(bench)
    assert len(bench.layer) == 1
    bench.run(32.0)
    assert len(bench.layer) == len(bench.timers) == 0
    assert bench.timers.next_due() is None
