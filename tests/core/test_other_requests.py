"""Flows that take requests which begin no call: `on: message | subscribe | publish | options | refer | notify`."""

from __future__ import annotations

from hashlib import md5
from ipaddress import ip_network
from typing import Any

import pytest

from orchestrator.core.users import LocalUsers
from orchestrator.flow.language.program import REQUESTS
from orchestrator.flow.loader import Source, load_sources
from orchestrator.flow.run.effects import Http
from orchestrator.sip.digest import Secret
from orchestrator.sip.message import Request
from orchestrator.testing.peer import Ask, Peer
from orchestrator.testing.world import World

BOB = "sip:bob@example.com"
HEAD = "flowlang: 1\nusers: {local: {file: users.yaml}}\ngateways: {sms: {uri: 'sip:10.0.0.9'}}\nflows:\n"
HEADERS = {
    "subscribe": "Event: presence",
    "publish": "Event: presence",
    "notify": "Event: x",
    "refer": "Refer-To: <sip:x@y>",
}


class Stage:
    """alice and bob's two phones are registered; eve is nobody; a gateway."""

    def __init__(self, flows: str, **settings: Any) -> None:
        program, warnings = load_sources([Source("others.flow.yaml", HEAD + flows)])
        assert warnings == []
        users = {"local": LocalUsers.of({"alice": Secret("wonder")})}
        self.world = World(program, users=users, **settings)
        self.logged: list[str] = []
        self.world.engine.host.on_log = lambda run, effect: self.logged.append(effect.text)
        self.alice = self.world.peer("alice", "10.0.0.2")
        self.bobs = [self.world.peer("bob1", "10.0.0.11"), self.world.peer("bob2", "10.0.0.12")]
        self.eve, self.gateway = self.world.peer("eve", "10.0.0.66"), self.world.peer("gateway", "10.0.0.9")
        self.alice.register("alice@example.com")
        for phone in self.bobs:
            phone.register("bob@example.com")
        self.world.run()
        for peer in (self.alice, *self.bobs):
            peer.received.clear()

    def ask(self, peer: Peer, method: str, uri: str = BOB, *headers: str, **more: Any) -> Ask:
        ask = peer.ask(method, uri, *headers, **more)
        self.world.run()
        return ask

    def answer(self, peer: Peer, status: int) -> Request:
        request = peer.requests()[-1]
        peer.answer(request, status)
        self.world.run()
        return request

    def is_clean(self) -> bool:
        self.world.run(70.0)
        return not any(self.world.leftovers().values())


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_flow_takes_each_of_them_even_from_strangers(kind: str) -> None:
    stage = Stage(f"  take:\n    on: {kind}\n    do: [{{log: '${{request.method}}'}}, {{reply: 202}}]\n")
    for sender in (stage.alice, stage.eve):
        asked = stage.ask(sender, kind.upper(), BOB, HEADERS.get(kind, "X: y"))
        assert asked.statuses == [202]
    assert stage.logged == [kind.upper()] * 2
    other = "MESSAGE" if kind != "message" else "REFER"
    assert stage.ask(stage.eve, other).statuses == [403], "this is nobody's"
    assert stage.is_clean()


def test_what_a_flow_sees_of_it() -> None:
    fields = "from.aor to.aor target.user target.aor domain method aor source_ip transport"
    shown = " ".join(f"${{request.{field}}}" for field in fields.split())
    stage = Stage(
        "  see:\n    on: message\n    when: request.target.user == 'bob' and request.headers['X-Kind'] ?? '' == 'a'\n"
        f"    do:\n      - log: '{shown}'\n"
        "      - log: '${request.content_type ?? \"none\"}: ${request.body}'\n      - reply: 200\n"
    )  # fmt: skip
    asked = stage.ask(stage.eve, "MESSAGE", BOB, "X-Kind: a", "Content-Type: text/plain", body=b"hello \xff\r\nyou")
    assert asked.statuses == [200]
    assert stage.logged == [
        "eve@example.com bob@example.com bob bob@example.com example.com MESSAGE bob@example.com 10.0.0.66 udp",
        "text/plain: hello �\\r\\nyou",
    ]
    assert stage.ask(stage.eve, "MESSAGE", BOB).statuses == [403], "when: does not fit"


def test_what_a_flow_leaves_is_served_as_without_it() -> None:
    stage = Stage(
        "  note:\n    on: message\n    do: [log: '${request.from.user}']\n  ping: {on: options, do: [stop]}\n"
    )
    passed = stage.ask(stage.alice, "MESSAGE")
    stage.answer(stage.bobs[1], 200)
    assert passed.statuses == [200]
    assert [len(phone.requests("MESSAGE")) for phone in stage.bobs] == [1, 1]
    assert stage.ask(stage.alice, "MESSAGE", "sip:nobody@example.com").statuses == [480]
    assert stage.ask(stage.eve, "MESSAGE").statuses == [403]
    assert stage.logged == ["alice", "alice", "eve"]
    answered = stage.ask(stage.eve, "OPTIONS", "sip:example.com")
    assert answered.statuses == [200] and answered.final.get(b"allow") is not None
    assert stage.is_clean()


RELAY = """\
  relay:
    on: message
    do:
      - relay: {how}
        as: sent
        on:
          answered: [log: '${{relay.code}} ${{relay.contact ?? "?"}}']
          else: [log: '${{relay.outcome}} ${{relay.code}} ${{size(relay.tried)}}']
"""


def test_a_relay_forks_and_the_first_answer_is_the_senders() -> None:
    stage = Stage(RELAY.format(how="{to: registered, headers: {X-From: us}}"))
    asked = stage.ask(stage.eve, "MESSAGE", BOB, body=b"hi")
    for phone in stage.bobs:
        [got] = phone.requests("MESSAGE")
        assert (got.body, got.get(b"x-from")) == (b"hi", b"us")
    stage.answer(stage.bobs[0], 200)
    stage.answer(stage.bobs[1], 404)
    assert asked.statuses == [200]
    assert stage.logged == ["200 sip:bob1@10.0.0.11:5060"]
    assert stage.is_clean()


def test_the_best_failure_is_the_answer_unless_the_flow_has_another() -> None:
    stage = Stage(RELAY.format(how="registered"))
    asked = stage.ask(stage.alice, "MESSAGE")
    stage.answer(stage.bobs[0], 415)
    assert asked.statuses == []
    stage.answer(stage.bobs[1], 480)
    assert asked.statuses == [415], "§16.7 step 6 prefers what tells the sender how to mend the request"
    assert stage.logged[0].endswith(" 2")
    kept = Stage(
        RELAY.format(how="registered")
        + "      - reply: {code: 202, reason: Kept for later}\n        if: sent.outcome != 'answered'\n"
    )
    asked = kept.ask(kept.alice, "MESSAGE", "sip:carol@example.com")
    assert asked.statuses == [202] and asked.final.reason == b"Kept for later"
    assert kept.logged == ["unavailable 480 0"]
    assert kept.is_clean()


def test_one_destination_after_the_other() -> None:
    stage = Stage(RELAY.format(how="{to: ['sip:bob@10.0.0.11', 'sip:bob@10.0.0.12'], mode: serial}"))
    asked = stage.ask(stage.eve, "MESSAGE")
    assert stage.bobs[1].requests() == []
    stage.answer(stage.bobs[0], 404)
    stage.answer(stage.bobs[1], 200)
    assert asked.statuses == [200]
    refused = stage.ask(stage.eve, "MESSAGE")
    stage.answer(stage.bobs[0], 603)
    assert refused.statuses == [603] and len(stage.bobs[1].requests()) == 1, "a 6xx ends the search (§16.7)"
    assert stage.is_clean()


def test_it_goes_to_a_gateway_and_never_back_to_the_phone_it_comes_from() -> None:
    stage = Stage(RELAY.format(how="{gateways: sms, number: '+4930123'}"))
    stage.ask(stage.alice, "MESSAGE")
    assert stage.answer(stage.gateway, 202).uri == b"sip:+4930123@10.0.0.9"
    own = Stage(RELAY.format(how="{aor: '${request.target.aor}'}"))
    own.ask(own.bobs[0], "MESSAGE")
    assert [len(phone.requests("MESSAGE")) for phone in own.bobs] == [0, 1]


def test_silence_is_answered_with_silence_and_leaves_nothing() -> None:
    stage = Stage(RELAY.format(how="registered"))
    asked = stage.ask(stage.alice, "MESSAGE")
    stage.world.run(40.0)
    assert asked.statuses == [], "RFC 4320 §4.2"
    assert stage.logged == ["no_answer 408 2"]
    assert stage.is_clean()


def test_auth_challenges_as_a_proxy_and_credentials_end_here() -> None:
    stage = Stage("  check:\n    on: message\n    do:\n      - auth: example.com\n      - relay: registered\n")
    first = stage.ask(stage.eve, "MESSAGE")
    assert first.statuses == [407]
    nonce = (first.final.get(b"proxy-authenticate") or b"").decode().split('nonce="')[1].split('"')[0]
    secret, about = (md5(t.encode()).hexdigest() for t in ("alice:example.com:wonder", f"MESSAGE:{BOB}"))
    response = md5(f"{secret}:{nonce}:00000001:c:auth:{about}".encode()).hexdigest()
    line = (
        f'Proxy-Authorization: Digest username="alice", realm="example.com", nonce="{nonce}", uri="{BOB}", '
        f'response="{response}", algorithm=MD5, qop=auth, nc=00000001, cnonce="c"'
    )
    second = stage.ask(stage.eve, "MESSAGE", BOB, line, cseq=2)
    assert stage.answer(stage.bobs[0], 200).get(b"proxy-authorization") is None
    assert second.statuses == [200]
    assert stage.is_clean()


def test_a_repetition_starts_nothing_new_and_an_error_is_answered() -> None:
    stage = Stage("  bad:\n    on: message\n    do: [log: once, fail: no]\n")
    asked = stage.ask(stage.eve, "MESSAGE")
    asked.again()
    stage.world.run()
    assert asked.statuses == [500, 500] and stage.logged == ["once"]
    assert stage.is_clean()


def test_a_web_service_decides_while_the_sender_waits() -> None:
    stage = Stage(
        "  ask:\n    on: message\n    do:\n      - http: 'http://10.0.0.50/may'\n        as: said\n"
        "      - reply: ${said.status}\n"
    )
    asked = stage.ask(stage.eve, "MESSAGE")
    [job] = [job for job in stage.world.jobs if isinstance(job.effect, Http)]
    assert asked.statuses == []
    stage.world.engine.complete(job.id, {"status": 202, "text": "", "json": None, "headers": {}}, stage.world.now)
    stage.world.run()
    assert asked.statuses == [202]


def test_a_flow_raises_an_event_for_others() -> None:
    stage = Stage(
        "  in: {on: message, do: [{raise: note, data: {body: '${request.body}'}}, {reply: 202}]}\n"
        "  out: {on: note, do: [log: '${event.body}']}\nevents: {note: {body: text}}\n"
    )  # fmt: skip
    assert stage.ask(stage.eve, "MESSAGE", body=b"go").statuses == [202]
    assert stage.logged == ["go"]


def test_a_method_named_like_a_trigger_is_no_trigger() -> None:
    stage = Stage("  every: {on: {every: 1h}, do: [log: x]}\n  called: {do: [log: x]}\n")
    for method in ("EVERY", "CALL", "START", "EVENT"):
        assert stage.ask(stage.eve, method).statuses == [403]
    assert stage.logged == []


def test_a_trusted_source_may_send_one_to_a_foreign_domain_by_a_flow_or_without() -> None:
    stage = Stage(
        "  out:\n    on: message\n    when: request.domain == '10.0.0.12'\n    do: [reply: 202]\n",
        trust=(ip_network("10.0.0.2/32"),),
    )
    assert stage.ask(stage.alice, "MESSAGE", "sip:x@10.0.0.12").statuses == [202]
    stage.ask(stage.alice, "MESSAGE", "sip:x@10.0.0.11")
    assert stage.answer(stage.bobs[0], 200).uri == b"sip:x@10.0.0.11"
    assert stage.ask(stage.eve, "MESSAGE", "sip:x@10.0.0.12").statuses == [403]


def test_a_flow_that_sends_it_back_to_us_ends_with_482() -> None:
    stage = Stage("  round:\n    on: message\n    do: [relay: 'sip:x@10.0.0.1']\n")
    asked = stage.ask(stage.eve, "MESSAGE")
    stage.world.run(5.0)
    assert asked.statuses == [482]
    assert stage.is_clean()
