"""The whole FreeSWITCH on loopback, as a client of its Event Socket sees it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orchestrator.esl.codec import EslEvent
from orchestrator.runtime.esl_link import EslLink, EslServer
from orchestrator.testing.sockets import SocketPhone, wait_until
from orchestrator.testing.switch.on_sockets import SocketFreeSwitch

KINDS = ["CHANNEL_CREATE", "CHANNEL_ANSWER", "CHANNEL_DESTROY", "CHANNEL_EXECUTE_COMPLETE", "DTMF", "BACKGROUND_JOB"]


class Client:
    """A link, what it has heard, and a phone that FreeSWITCH calls without anybody between them."""

    def __init__(self, freeswitch: SocketFreeSwitch) -> None:
        self.heard: list[str] = []
        self.link = EslLink(
            EslServer("fs1", freeswitch.host, freeswitch.port, freeswitch.password), lambda: KINDS, self._hear
        )
        self.phone = SocketPhone("bob@example.com", freeswitch.wire.address)
        freeswitch.sip.proxy = self.phone.address
        self.link.start()
        freeswitch.wait_subscribed("DTMF")

    def _hear(self, server: str, event: EslEvent) -> None:
        self.heard.append(event.name)

    def close(self) -> None:
        self.link.stop()
        self.phone.close()


@pytest.fixture
def freeswitch() -> Iterator[SocketFreeSwitch]:
    with SocketFreeSwitch() as whole:
        yield whole


@pytest.fixture
def client(freeswitch: SocketFreeSwitch) -> Iterator[Client]:
    made = Client(freeswitch)
    yield made
    made.close()


def test_a_call_is_placed_asked_and_ended(freeswitch: SocketFreeSwitch, client: Client) -> None:
    client.phone.on_invite = lambda call: call.answer()
    said = client.link.bgapi("originate {origination_uuid=u-1}sofia/orchestrator/bob@127.0.0.1 &park()")
    assert said == "+OK u-1\n"
    channel = freeswitch.sip.channels["u-1"]
    channel.press("7")
    done = client.link.run("u-1", "set", "colour=red")
    assert done.get("variable_colour") == "red" and done.get("Application-Response") == "_none_"
    assert client.link.api("uuid_kill u-1") == "+OK\n"
    assert wait_until(lambda: "CHANNEL_DESTROY" in client.heard and client.phone.calls[0].state == "ended")
    assert [name for name in client.heard if name.startswith(("CHANNEL_CREATE", "CHANNEL_ANSWER", "DTMF"))] == [
        "CHANNEL_CREATE",
        "CHANNEL_ANSWER",
        "DTMF",
    ]


def test_a_call_that_is_refused(client: Client) -> None:
    client.phone.on_invite = lambda call: call.reject(486)
    assert client.link.bgapi("originate sofia/orchestrator/bob@127.0.0.1 &park()") == "-ERR USER_BUSY\n"


def test_what_it_does_not_have_it_says_so(freeswitch: SocketFreeSwitch, client: Client) -> None:
    assert client.link.api("uuid_kill nobody") == "-ERR No such channel!\n"
    freeswitch.on("api uuid_kill *").reply("+OK as told\n")
    assert client.link.api("uuid_kill nobody") == "+OK as told\n", "a rule of the test wins"
