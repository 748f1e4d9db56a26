"""Phones that sleep and come back as something else: another address, port, transport, Contact, dialect or token. Each
is one phone, is rung once, and leaves one binding."""

from __future__ import annotations

import random
import re
from itertools import product
from typing import Any

import pytest
from test_connections import EVERY
from wakekit import AOR, Night

from orchestrator.core.jobs import Job
from orchestrator.sip.location import Binding
from orchestrator.sip.push import Push, Pushed, PushPolicy, PushService
from orchestrator.testing.peer import Ask, Peer
from orchestrator.testing.world import World

RFC = "pn-provider=apns;pn-param=DEF123GHIJ.com.example.app.voip;pn-prid={token}"
LINPHONE = "pn-provider=apns.dev;pn-param=DEF123GHIJ.com.example.app.remote&voip;pn-prid=0a{token}:remote&{token}:voip"
LEGACY = "pn-type=apple;app-id=DEF123GHIJ.com.example.app.voip;pn-tok={token}"
DIALECTS = (RFC, LINPHONE, LEGACY)


class Moving(Night):
    def come(self, peer: Peer, params: str, transport: str, tail: str = "", call_id: str = "c1", *headers: str) -> Ask:
        """A REGISTER with a Contact that nobody could call."""
        self.cseq += 1
        contact = f"Contact: <sip:{peer.name}@x{self.cseq}.invalid;transport={transport};{params}>{tail}"
        to = f"<sip:{AOR}>"
        ask = peer.ask("REGISTER", "sip:example.com", contact, *headers, to=to, call_id=call_id, cseq=self.cseq)
        self.world.run()
        assert ask.statuses == [200]
        return ask

    @property
    def bindings(self) -> tuple[Binding, ...]:
        return self.world.location.bindings(AOR, self.engine.wall)


@pytest.mark.parametrize(
    ("first", "second", "how"),
    [
        *product(("tls", "tcp"), ("ws", "tls"), ("dialect", "instance", "token and instance")),
        ("wss", "tcp", "dialect"),
    ],
)
def test_a_phone_that_comes_back_as_something_else_rings_once(first: str, second: str, how: str) -> None:
    night = Moving(points=EVERY)
    named = ';+sip.instance="<urn:uuid:1>"'
    here = night.world.peer("here", "10.0.0.11", 5060, first, listens=False)
    night.come(here, RFC.format(token="aa11"), first, "" if how == "dialect" else named)
    night.world.cut(here)
    call = night.call()
    assert night.pushes == [("call", "aa11")] and call.statuses == [100], "no other way leads to it"
    there = night.world.peer("there", "10.9.9.9", 41000, second, listens=False)
    token = "bb22" if how == "token and instance" else "aa11"
    params = (LINPHONE if how == "dialect" else RFC).format(token=token)
    tail = {"dialect": "", "instance": ';+sip.instance="<urn:uuid:2>"', "token and instance": named}[how]
    for number in range(3):
        night.come(there, params, second, tail, f"new{number}")
    assert night.rung(there) == [1] and len(night.bindings) == 1
    night.reply(there, 486)
    assert call.statuses == [100, 486]
    night.quiet(call)
    assert len(night.pushes) == 1


def test_a_query_or_another_app_does_not_wake_anybody() -> None:
    night = Moving(points=EVERY)
    here = night.world.peer("here", "10.0.0.11", 5060, "tls", listens=False)
    night.come(here, RFC.format(token="aa11"), "tls")
    night.world.cut(here)
    call = night.call("sip:bob@example.com")
    other = night.world.peer("other", "10.0.0.12", 5060, "tls", listens=False)
    night.come(other, RFC.replace("app", "other").format(token="aa11"), "tls", call_id="c2")
    assert night.rung(other) == [1], "a phone of its own"
    night.reply(other, 486)
    assert call.statuses == [100], "the one that was pushed is waited for"
    night.come(here, RFC.format(token="aa11"), "tls")
    assert night.rung(here) == [1]
    night.reply(here, 486)
    night.quiet(call)


@pytest.mark.parametrize("kind", ["pub", "temp"])
def test_a_call_to_a_gruu_wakes_that_phone_alone(kind: str) -> None:
    """RFC 5627 beside RFC 8599: also to a temporary one, which the REGISTER of the phone that wakes up ends."""
    night = Moving(points=EVERY)
    peers = [night.world.peer(f"p{n}", f"10.0.0.1{n}", 5060, "tls", listens=False) for n in (1, 2)]
    gruu = ""
    for number, peer in enumerate(peers):
        params, tail = RFC.format(token=f"aa1{number}"), f';+sip.instance="<urn:uuid:{number}>"'
        answer = night.come(peer, params, "tls", tail, f"c{number}", "Supported: gruu").final
        own = next(line for line in answer.get_all(b"contact") if b"aa1%d" % number in line).decode()
        [gruu] = re.findall(rf'{kind}-gruu="([^"]+)"', own)
    night.world.cut(*peers)
    call = night.call(gruu)
    assert night.pushes == [("call", "aa11")]
    night.come(peers[0], RFC.format(token="aa10"), "tls", ';+sip.instance="<urn:uuid:0>"', "new0")
    night.come(peers[1], RFC.format(token="aa11"), "tls", ';+sip.instance="<urn:uuid:1>"', "new1")
    assert night.rung(*peers) == [0, 1]
    night.reply(peers[1], 486)
    night.quiet(call)


def test_a_phone_behind_a_proxy_that_does_not_wake_it_is_woken_by_us_and_reached_through_the_proxy() -> None:
    night = Moving(points=EVERY)
    edge = night.world.peer("edge", "10.0.0.4")
    params, through = RFC.format(token="aa11"), ("Supported: path", "Path: <sip:10.0.0.4;lr>")
    night.come(edge, params, "tcp", "", "c1", *through)
    night.world.run(31)
    call = night.call()
    assert night.pushes == [("call", "aa11")] and night.rung(edge) == [0]
    night.come(edge, params, "tcp", "", "c2", *through)
    [invite] = edge.requests("INVITE")
    assert [bytes(route.parsed) for route in invite.routes()] == [b"sip:10.0.0.4;lr"]
    night.reply(edge, 486)
    night.quiet(call)


# --- whatever happens, in whatever order ------------------------------------------------------------------------------


class Life:
    """Three phones of bob that live at random for a while."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.world = World(points=EVERY, push=PushPolicy((PushService("apple", "apns"),)), seed=seed)
        self.world.on_job = self._on_job
        self.tokens = ["a1", "b1", "c1"]
        """Of the first two the instance or the Call-ID stays, of the third nothing but the token."""
        self.cseq = 0
        self.pushed = 0

    def _on_job(self, job: Job) -> Any:
        if not isinstance(job.effect, Push):
            return None
        self.pushed += 1
        return self.random.choice((Pushed("sent"), Pushed("failed", "503"), Pushed("dead", "410"), self.world.LATER))

    def register(self) -> None:
        who = self.random.randrange(3)
        transport = self.random.choice(("udp", "tcp", "tls", "ws"))
        host, port = f"10.0.{who}.{self.random.randrange(2, 5)}", self.random.choice((5060, 41000))
        peer = self.world.peers.get((host, port)) or self.world.peer("x", host, port, transport, listens=False)
        if who < 2 and not self.random.randrange(4):
            self.tokens[who] = f"{self.tokens[who]}{self.cseq % 10}"
        uri = f"sip:bob{who}@h{who}.invalid;transport=tcp" if who == 1 else f"sip:bob@{host}:{port};transport=tcp"
        params = self.random.choice(DIALECTS).format(token=self.tokens[who])
        tail = (';+sip.instance="<urn:uuid:a>"', "", "")[who] + self.random.choice(("", ";+sip.pnsreg", ";q=0.3"))
        headers = ["Supported: path, gruu"] + ['Feature-Caps: *;+sip.pns="apns"'] * (not self.random.randrange(6))
        self.cseq += 1
        call_id = "steady" if who == 1 else f"c{self.cseq}"
        ask = peer.ask(
            "REGISTER",
            "sip:example.com",
            f"Contact: <{uri};{params}>{tail};expires={self.random.choice((200, 600))}",
            *headers,
            to=f"<sip:{AOR}>",
            call_id=call_id,
            cseq=self.cseq,
        )
        self.world.run()
        assert ask.statuses == [200]

    def cut(self) -> None:
        if self.world.peers:
            self.world.cut(self.random.choice(list(self.world.peers.values())))

    def fail_a_flow(self) -> None:
        for binding in self.bindings[:1]:
            self.world.engine.registrations.flow_failed(binding)

    def wait(self) -> None:
        self.world.run(self.random.choice((1.0, 29.0, 31.0, 100.0, 500.0)))

    @property
    def bindings(self) -> tuple[Binding, ...]:
        return self.world.location.bindings(AOR, self.world.engine.wall)

    def step(self) -> None:
        self.random.choice((self.register, self.register, self.cut, self.fail_a_flow, self.wait))()
        self.world.run()
        open_now = {c.number for peer in self.world.peers.values() for c in self.world.streams.open_of(peer.address)}
        phones = [binding.contact.partition(b"h1.")[1] or binding.instance or "third" for binding in self.bindings]
        assert len(phones) == len(set(phones)), "each phone has one binding"
        for binding in self.bindings:
            assert not binding.connection or binding.connection in open_now
        for connection in self.world.location._over:
            assert connection in open_now


def test_each_phone_has_one_binding_in_whatever_order_things_happen() -> None:
    pushed = 0
    for seed in range(60):
        life = Life(seed)
        for _ in range(25):
            life.step()
        life.world.run(8000.0)
        assert life.bindings == () and life.world.location._over == {} and life.world.location._from == {}
        assert life.world.engine.faults.count == 0 and len(life.world.engine.refreshes) == 0
        assert not any(life.world.leftovers().values())
        pushed += life.pushed
    assert pushed > 50
