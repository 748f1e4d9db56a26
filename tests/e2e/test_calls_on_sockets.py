"""The three scenarios on real sockets: phones on UDP, a web server that takes the push, a FreeSWITCH that replays."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.event import Event
from gevent.pywsgi import WSGIServer

from orchestrator.testing.phone import PhoneCall
from orchestrator.testing.sockets import SocketPhone, wait_until
from orchestrator.testing.switch.on_sockets import SocketFreeSwitch

FLOWS = Path(__file__).parents[2] / "flows"
BY_HAND = FLOWS.parent / "docs" / "flows" / "push_by_hand.flow.yaml"
HEARS_INFO = """
flowlang: 1
flows:
  hears_info:
    on: invite
    do:
      - subscribe: dtmf
        where: event.leg == 'callee'
        do: [hangup: 'callee pressed ${event.digit}']
      - relay: registered
"""


class PushService:
    """Takes pushes; `on_push` is what the push wakes."""

    def __init__(self) -> None:
        self.pushes: list[dict[str, Any]] = []
        self.on_push: Callable[[dict[str, Any]], None] = lambda push: None
        self.server = WSGIServer(("127.0.0.1", 0), self._serve, log=None)
        self.server.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/push"

    def _serve(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        push = json.loads(environ["wsgi.input"].read())
        self.pushes.append(push | {"authorization": environ.get("HTTP_AUTHORIZATION")})
        self.on_push(push)
        start_response("200 OK", [("Content-Type", "application/json")])
        return [b"{}"]


@pytest.fixture
def push() -> Iterator[PushService]:
    service = PushService()
    yield service
    service.server.stop()


@pytest.fixture
def phones() -> Iterator[Callable[..., SocketPhone]]:
    made: list[SocketPhone] = []

    def make(aor: str, server: Any, parameters: str = "") -> SocketPhone:
        phone = SocketPhone(aor, server.sip, parameters=parameters)
        made.append(phone)
        return phone

    yield make
    for phone in made:
        phone.close()


def registered(phone: SocketPhone) -> SocketPhone:
    phone.register()
    assert wait_until(lambda: phone.registered == [200])
    return phone


def rings(phone: SocketPhone) -> PhoneCall:
    assert wait_until(lambda: phone.calls), f"{phone.user} was not called"
    return phone.calls[-1]


def arrival(phone: SocketPhone, method: bytes) -> int:
    """When the first request of that method reached the phone, by the kernel's clock."""
    return next(time for time, data in phone.arrivals if data.startswith(method + b" "))


def wake_up(serve: Any, push: PushService) -> Any:
    return serve(flows=[str(BY_HAND)], env={"PUSH_URL": push.url, "PUSH_KEY": "k1"})


class TestPushWakeup:
    def test_a_sleeping_phone_is_pushed_registers_rings_and_answers(
        self, serve: Any, push: PushService, phones: Any
    ) -> None:
        server = wake_up(serve, push)
        alice, bob = phones("alice@example.com", server), phones("bob@example.com", server)
        push.on_push = lambda message: bob.register()
        call = alice.invite("bob@example.com")
        ringing = rings(bob)
        ringing.answer()
        assert wait_until(lambda: call.state == "answered" and ringing.acknowledged)
        assert push.pushes[0]["to"] == "bob@example.com"
        assert push.pushes[0]["from"] == "alice@example.com"
        assert push.pushes[0]["authorization"] == "Bearer k1"
        call.hangup()
        assert wait_until(lambda: ringing.state == "ended")
        assert call.statuses == [100, 180, 200]

    def test_a_phone_that_registers_three_times_rings_once(self, serve: Any, push: PushService, phones: Any) -> None:
        server = wake_up(serve, push)
        alice, bob = phones("alice@example.com", server), phones("bob@example.com", server)
        call = alice.invite("bob@example.com")
        assert wait_until(lambda: push.pushes)
        for expected in (1, 2, 3):
            bob.register()
            assert wait_until(lambda n=expected: len(bob.registered) == n)
        gevent.sleep(0.1)
        assert [request.method for request in bob.requests].count(b"INVITE") == 1
        call.hangup()
        assert wait_until(lambda: call.state == "ended")

    def test_the_phone_that_is_awake_does_not_wait_for_the_push(
        self, serve: Any, push: PushService, phones: Any
    ) -> None:
        server = wake_up(serve, push)
        desk = registered(phones("bob@example.com", server))
        rang, answered = Event(), []

        def wake(message: dict[str, Any]) -> None:
            answered.append(rang.wait(10))

        push.on_push = wake
        call = phones("alice@example.com", server).invite("bob@example.com")
        rings(desk)
        assert answered == [], "the push has no answer yet"
        rang.set()
        call.hangup()
        assert wait_until(lambda: call.state == "ended")


class TestCancel:
    @pytest.mark.parametrize("state", ["nobody to ring", "silent", "ringing", "refused, held open"])
    def test_is_answered_487_at_once(self, state: str, serve: Any, push: PushService, phones: Any) -> None:
        server = wake_up(serve, push)
        alice, bob = phones("alice@example.com", server), phones("bob@example.com", server)
        behaviour = {"silent": lambda call: None, "refused, held open": lambda call: call.reject(486)}
        bob.on_invite = behaviour.get(state, PhoneCall.ring)
        if state != "nobody to ring":
            registered(bob)
        call = alice.invite("bob@example.com")
        if state == "nobody to ring":
            assert wait_until(lambda: call.statuses == [100])
        else:
            rings(bob)
            gevent.sleep(0.05)
        call.hangup()
        assert wait_until(lambda: call.statuses[-1] == 487), "a phone that says nothing is waited for 32 s"
        if state == "ringing":
            assert wait_until(lambda: bob.calls[0].cancelled)


class TestScreening:
    @pytest.mark.parametrize("digit, survives", [("2", True), ("5", False), ("#", False)])
    def test_the_callee_has_to_press_2(self, digit: str, survives: bool, serve: Any, phones: Any) -> None:
        with SocketFreeSwitch() as fs:
            server = serve(flows=[str(FLOWS / "dtmf_screening.flow.yaml")], freeswitch={"fs1": fs.settings()})
            fs.sip.proxy = server.sip
            fs.wait_subscribed("DTMF")
            alice, bob = phones("alice@example.com", server), registered(phones("bob@example.com", server))
            call = alice.invite("88bob@example.com")
            ringing = rings(bob)
            ringing.answer()
            assert wait_until(lambda: call.state == "answered" and ringing.acknowledged)
            channel = fs.sip.channel_of(ringing)
            assert channel is not None
            assert wait_until(lambda: channel.running), "the prompt plays"
            channel.press(digit)
            if survives:
                assert wait_until(lambda: not channel.running), "and the two are connected"
                assert (call.state, ringing.state) == ("answered", "answered")
                call.hangup()
            else:
                assert wait_until(lambda: alice.requests and alice.requests[-1].method == b"BYE")
            assert wait_until(lambda: ringing.state == "ended")

    def test_digits_by_sip_info_are_the_same_event(self, serve: Any, phones: Any, tmp_path: Path) -> None:
        flow = tmp_path / "info.flow.yaml"
        flow.write_text(HEARS_INFO)
        server = serve(flows=[str(flow)])
        alice, bob = phones("alice@example.com", server), registered(phones("bob@example.com", server))
        call = alice.invite("bob@example.com")
        ringing = rings(bob)
        ringing.answer()
        assert wait_until(lambda: ringing.acknowledged)
        call.press("5")  # the caller's digits say nothing about the callee
        gevent.sleep(0.2)
        assert call.state == "answered"
        ringing.press("5")
        assert wait_until(lambda: alice.requests and alice.requests[-1].method == b"BYE")
        assert wait_until(lambda: ringing.bye is not None)


class TestPickup:
    def test_a_picker_takes_the_call_and_a_second_one_finds_nothing(self, serve: Any, phones: Any) -> None:
        server = serve(flows=[str(FLOWS / "call_pickup.flow.yaml")])
        alice, dave, charlie, dora = (
            registered(phones(f"{name}@example.com", server)) for name in ("alice", "dave", "charlie", "101")
        )
        call = alice.invite("dave@example.com")
        rings(dave)
        assert wait_until(lambda: 180 in call.statuses)
        pick = charlie.invite("*8@example.com")
        assert wait_until(lambda: any(c.incoming for c in charlie.calls))
        second = dora.invite("*8@example.com")
        assert wait_until(lambda: second.statuses and second.statuses[-1] == 404)
        assert second.responses[-1].reason == b"Nothing to pick up"
        taken = next(c for c in charlie.calls if c.incoming)
        taken.answer()
        assert wait_until(lambda: call.state == "answered" and taken.acknowledged)
        assert wait_until(lambda: dave.calls[0].cancelled)
        assert "Call completed elsewhere" in dave.calls[0].cancel_reason
        assert arrival(charlie, b"INVITE") < arrival(dave, b"CANCEL")
        assert pick.statuses[-1] == 480
        call.hangup()
        assert wait_until(lambda: taken.state == "ended")
