"""Transfers with nothing replaced: the command line's server carries out on a real FreeSWITCH what phones ask for by
REFER."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from media_server import PATIENCE, MediaServer, needs_freeswitch, orchestrator

from orchestrator.testing.phone import PhoneCall
from orchestrator.testing.sockets import SocketPhone, wait_until

pytestmark = needs_freeswitch

FLOW = """
flowlang: 1
flows:
  calls:
    on: invite
    do: [relay: {to: registered, via: fs1, ring: 60s}]
  transfers:
    on: refer
    when: call != null
    do: [transfer: '${refer.to.uri}']
"""


class Office:
    """alice, bob and carol are registered and answer every call."""

    def __init__(self, port: int) -> None:
        self.phones = {
            name: SocketPhone(f"{name}@example.com", ("127.0.0.1", port)) for name in ["alice", "bob", "carol"]
        }
        for phone in self.phones.values():
            phone.on_invite = PhoneCall.answer
            phone.register()
            assert wait_until(lambda phone=phone: phone.registered == [200], PATIENCE)

    def talk(self, caller: str, callee: str) -> tuple[PhoneCall, PhoneCall]:
        """A call that both have; each as it knows it."""
        there = self.phones[callee]
        before = len(there.calls)
        call = self.phones[caller].invite(f"{callee}@example.com")
        assert wait_until(lambda: call.state == "answered" and len(there.calls) > before, PATIENCE)
        assert wait_until(lambda: there.calls[-1].acknowledged, PATIENCE)
        return call, there.calls[-1]

    def in_call(self) -> dict[str, int]:
        found = {name: sum(c.state == "answered" for c in phone.calls) for name, phone in self.phones.items()}
        return {name: number for name, number in found.items() if number}

    def comes_to(self, **calls: int) -> bool:
        return wait_until(lambda: self.in_call() == calls, PATIENCE)

    def close(self) -> None:
        for phone in self.phones.values():
            phone.close()


@pytest.fixture(scope="module")
def office(server: MediaServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    with orchestrator(server, tmp_path_factory.mktemp("transfers"), FLOW) as port:
        office = Office(port)
        yield office
        office.close()


def news(office: Office, name: str) -> list[bytes]:
    """What this phone has heard of the transfer it asked for last."""
    phone = office.phones[name]
    assert wait_until(lambda: len(phone.news) == 2, PATIENCE), phone.news
    told = phone.news
    phone.requests.clear()
    return told


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_either_party_sends_the_other_one_on(office: Office, who: str) -> None:
    caller, callee = office.talk("alice", "bob")
    (caller if who == "alice" else callee).refer("sip:carol@example.com")
    assert news(office, who) == [b"SIP/2.0 100 Trying", b"SIP/2.0 200 OK"]
    other = "bob" if who == "alice" else "alice"
    assert office.comes_to(carol=1, **{other: 1})
    office.phones["carol"].calls[-1].hangup()
    assert office.comes_to()


@pytest.mark.parametrize("first", ["alice calls bob", "bob calls alice"])
def test_a_party_puts_two_others_through(office: Office, first: str) -> None:
    one = office.talk("alice", "bob")[0] if first == "alice calls bob" else office.talk("bob", "alice")[1]
    two, _ = office.talk("alice", "carol")
    one.refer("sip:carol@example.com", two)
    assert news(office, "alice")[-1] == b"SIP/2.0 200 OK"
    assert office.comes_to(bob=1, carol=1)
    office.phones["bob"].calls[-1].hangup()
    assert office.comes_to()


def test_a_new_party_that_hangs_up_at_once_leaves_nobody_alone(office: Office) -> None:
    """FreeSWITCH may not have joined the two yet, and would park the one that is left."""
    carol = office.phones["carol"]
    carol.on_invite = lambda call: (call.answer(), call.hangup())
    caller, _ = office.talk("alice", "bob")
    caller.refer("sip:carol@example.com")
    assert news(office, "alice")[0] == b"SIP/2.0 100 Trying"
    carol.on_invite = PhoneCall.answer
    assert office.comes_to()


def test_one_that_fails_is_told_and_nobody_is_left_alone(office: Office) -> None:
    office.phones["carol"].on_invite = lambda call: call.reject(486)
    _, callee = office.talk("alice", "bob")
    callee.refer("sip:carol@example.com")
    assert news(office, "bob") == [b"SIP/2.0 100 Trying", b"SIP/2.0 486 Busy Here"]
    assert office.comes_to()
