"""A re-INVITE or UPDATE whose answer crosses something: the dialog stands (RFC 3261 §14.1, §9.2)."""

from __future__ import annotations

import pytest
from scene import BOB, Scene

from orchestrator.sip.message import Request
from orchestrator.testing.peer import Ask


class Talk:
    """alice and bob talk; either sends another request."""

    def __init__(self) -> None:
        self.scene = Scene()
        self.bob = self.scene.phones[0]
        call = self.scene.call(call_id="talk")
        self.scene.answer(self.bob, 200)
        [route] = call.final.record_routes()
        self.route = f"Route: <{(route.uri or b'').decode()}>"
        self.ask("ACK", 1)

    def ask(self, method: str, cseq: int) -> Ask:
        sides = {"sender": "<sip:alice@example.com>;tag=alice", "to": f"<{BOB}>;tag=bob1", "call_id": "talk"}
        ask = self.scene.alice.ask(method, "sip:bob@10.0.0.11", self.route, cseq=cseq, **sides)
        return self.scene.do(ask)

    def got(self, method: str) -> Request:
        return self.bob.requests(method)[-1]

    def answer(self, request: Request, status: int) -> None:
        self.bob.answer(request, status)
        self.scene.run()

    def stands(self) -> None:
        """Nobody was hung up on, and the next request passes."""
        assert not self.bob.requests("BYE")
        assert not self.scene.alice.requests("BYE")
        info = self.ask("INFO", 9)
        self.answer(self.got("INFO"), 200)
        assert info.statuses == [200]


@pytest.mark.parametrize("rings", [True, False])
@pytest.mark.parametrize("status", [200, 487, 500])
@pytest.mark.parametrize("repeated", [1, 3])
def test_both_sides_believe_the_answer_of_a_cancelled_re_invite(rings: bool, status: int, repeated: int) -> None:
    talk = Talk()
    again = talk.ask("INVITE", 2)
    invite = talk.got("INVITE")
    if rings:
        talk.answer(invite, 180)
    cancel = again.cancel()
    talk.scene.run()
    assert cancel.statuses == [200]
    assert max(again.statuses) < 200, "not before the other side has said"
    for _ in range(repeated):
        talk.answer(invite, status)
    assert [s for s in again.statuses if s >= 200] == [status] * (repeated if status == 200 else 1)
    talk.stands()


def test_a_cancelled_re_invite_nobody_answers_ends_with_408() -> None:
    talk = Talk()
    again = talk.ask("INVITE", 2)
    talk.answer(talk.got("INVITE"), 180)
    again.cancel()
    talk.scene.run(64)
    assert {s for s in again.statuses if s >= 200} == {408}
    talk.answer(talk.got("INVITE"), 200)  # far too late
    talk.stands()


def test_a_cancel_behind_the_answer_changes_nothing() -> None:
    talk = Talk()
    again = talk.ask("INVITE", 2)
    talk.answer(talk.got("INVITE"), 200)
    again.cancel()
    talk.scene.run()
    assert [s for s in again.statuses if s >= 200] == [200]
    assert not talk.bob.requests("CANCEL")
    talk.stands()


def test_an_update_answered_after_its_time_is_nobodys_end() -> None:
    talk = Talk()
    talk.ask("UPDATE", 2)
    talk.scene.run(40)
    talk.answer(talk.got("UPDATE"), 200)
    talk.stands()
