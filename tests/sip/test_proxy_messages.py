"""Requests other than INVITE through the proxy: no CANCEL, no dialog, and silence where nobody has answered (RFC
4320)."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

from scene import BOB, Scene

TRUSTED: dict[str, Any] = {"trust": (ip_network("10.0.0.0/24"),)}


def test_a_message_is_answered_by_the_first_phone_that_takes_it_and_nothing_is_cancelled() -> None:
    """§9.1: CANCEL is for INVITE."""
    scene = Scene(3, **TRUSTED)
    message = scene.do(scene.alice.ask("MESSAGE", BOB, body=b"hello"))
    assert message.statuses == []
    first, second, third = scene.phones
    first.answer(first.requests()[0], 100)
    scene.run()
    second.answer(second.requests()[0], 200)
    scene.run()
    third.answer(third.requests()[0], 100)
    scene.run()
    assert message.statuses == [200]
    scene.run(40.0)
    assert {word for phone in scene.phones for word in phone.heard} == {"MESSAGE"}
    assert message.statuses == [200]
    scene.quiet()


def test_a_second_2xx_to_a_message_goes_nowhere() -> None:
    scene = Scene(2, **TRUSTED)
    message = scene.do(scene.alice.ask("MESSAGE", BOB))
    for phone in scene.phones:
        phone.answer(phone.requests()[0], 200)
    scene.run()
    assert message.statuses == [200]


def test_a_message_nobody_answers_is_not_answered_either() -> None:
    """RFC 4320 §4.2: by then the sender has given up, and a 408 would only blacklist us."""
    scene = Scene(2, **TRUSTED)
    message = scene.do(scene.alice.ask("MESSAGE", BOB))
    scene.run(40.0)
    assert message.statuses == []
    scene.quiet()


def test_a_message_that_one_phone_refuses_while_the_other_is_silent_is_refused() -> None:
    scene = Scene(2, **TRUSTED)
    message = scene.do(scene.alice.ask("MESSAGE", BOB))
    scene.phones[0].answer(scene.phones[0].requests()[0], 415)
    scene.run(32.0)
    assert message.statuses == [415]
    scene.quiet()


def test_a_message_makes_no_dialog() -> None:
    scene = Scene(1, **TRUSTED)
    scene.do(scene.alice.ask("MESSAGE", BOB))
    assert scene.phones[0].requests()[0].record_routes() == []
