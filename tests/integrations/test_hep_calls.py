"""Whose a message is, and whether it is captured."""

from __future__ import annotations

import pytest

from orchestrator.fact_kinds import CallLeg, MessageIn
from orchestrator.integrations.hep.capture import LINGER, Choice, Correlation


def message(line: str, method: str) -> MessageIn:
    return MessageIn(f"{line}\r\nCall-ID: c\r\nCSeq: 7 {method}\r\n\r\n".encode(), "192.0.2.1", 5060, 0)


def test_all_legs_have_the_id_of_the_first() -> None:
    calls = Correlation()
    calls.tie(CallLeg("1", b"a", b"a"))
    calls.tie(CallLeg("1", b"b", b"a"))
    assert [calls.of(call_id) for call_id in (b"a", b"b", b"other")] == [b"a", b"a", b"other"]
    assert (calls.of_call("1"), calls.of_call("2")) == (b"a", b"")


def test_a_call_is_remembered_for_what_comes_late_and_then_forgotten() -> None:
    calls = Correlation()
    for call in ("1", "2"):
        calls.tie(CallLeg(call, b"a" + call.encode(), b"a" + call.encode()))
        calls.tie(CallLeg(call, b"b" + call.encode(), b"a" + call.encode()))
    calls.end("1", 100.0)
    calls.end("2", 100.0 + LINGER)
    assert calls.of(b"b1") == b"a1"
    calls.end("2", 101.0 + LINGER)
    assert calls.of(b"b1") == b"b1" and calls.of(b"b2") == b"a2"
    assert len(calls) == 1


def test_the_memory_is_bounded() -> None:
    calls = Correlation(most=10)
    for call in range(100):
        calls.tie(CallLeg(str(call), b"b%d" % call, b"a%d" % call))
    assert len(calls) == 10 and calls.of(b"b99") == b"a99" and calls.of(b"b1") == b"b1"
    assert len(calls._legs) == 10


@pytest.mark.parametrize(
    ("methods", "without", "taken"),
    [((), (), "IOR"), (("invite",), (), "I"), ((), ("OPTIONS",), "IR"), (("INVITE", "OPTIONS"), ("OPTIONS",), "I")],
)
def test_methods_choose_requests_and_their_responses(
    methods: tuple[str, ...], without: tuple[str, ...], taken: str
) -> None:
    choice = Choice(methods, without)
    for method in ("INVITE", "OPTIONS", "REGISTER"):
        for line in (f"{method} sip:bob@example.com SIP/2.0", "SIP/2.0 200 OK"):
            assert choice.takes(message(line, method)) == (method[0] in taken)


def test_a_keep_alive_is_no_message() -> None:
    assert not Choice().takes(MessageIn(b"\r\n\r\n", "192.0.2.1", 5060, 0))


def test_a_sample_is_the_same_calls_each_time() -> None:
    first, second, all_of_them = Choice(share=0.1), Choice(share=0.1), Choice(share=1)
    ids = [b"call-%d@example.com" % number for number in range(5000)]
    taken = {id for id in ids if first.takes_call(id)}
    assert taken == {id for id in ids if second.takes_call(id)}
    assert 400 < len(taken) < 600
    assert all(all_of_them.takes_call(id) for id in ids)
    assert taken < {id for id in ids if Choice(share=0.2).takes_call(id)}, "a larger share has the smaller one in it"
