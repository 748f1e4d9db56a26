"""Calls to gateways: one after the other, with our account there, as the program of the call knows them; `from:`,
`inject … ring:` and the other keys of a relay that a phone can see."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import md5
from ipaddress import ip_network
from typing import Any

import pytest

from orchestrator.core.engine import Engine
from orchestrator.errors import InputError
from orchestrator.flow.language.program import Program
from orchestrator.flow.loader import Source, load_sources
from orchestrator.sip.location import Location
from orchestrator.sip.message import Request
from orchestrator.testing.peer import Ask, Peer
from orchestrator.testing.world import World

CHALLENGE = 'Proxy-Authenticate: Digest realm="gw", nonce="n1", qop="auth", opaque="o"'


def program(relay: str, extra: str = "", gateways: str = "") -> Program:
    text = f"""\
flowlang: 1
gateways:
  a: {{uri: 'sip:10.0.1.1:5070'}}
  b: {{uri: 'sip:10.0.1.2'}}
  c: {{uri: 'sip:10.0.1.3', user: us, password: secret{gateways}}}
flows:
  out:
    on: invite
    vars: {{outcome: '', code: 0, gateway: '', tried: ''}}
    do:
      {extra or "- log: out"}
      - relay: {relay}
        as: out
      - set: {{outcome: '${{out.outcome}}', code: '${{out.code}}', gateway: '${{out.gateway ?? "-"}}',
               tried: '${{out.tried.join(" ")}}'}}
"""
    found, warnings = load_sources([Source("out.flow.yaml", text)])
    assert warnings == []
    return found


class Stage:
    def __init__(self, relay: str, **more: str) -> None:
        self.world = World(program(relay, **more))
        self.alice = self.world.peer("alice", "10.0.0.2")
        self.gates = {name: self.world.peer(name, f"10.0.1.{n}", port) for name, n, port in
                      (("a", 1, 5070), ("b", 2, 5060), ("c", 3, 5060))}  # fmt: skip
        self.vars: Mapping[str, Any] = {}

    def call(self, *headers: str, uri: str = "sip:0049301@example.com", **more: Any) -> Ask:
        ask = self.alice.ask("INVITE", uri, *headers, **more)
        self.world.run()
        runs = list(self.world.engine.flows.runs.values())
        self.vars = runs[-1].vars if runs else {}
        return ask

    def invites(self, name: str) -> list[Request]:
        return self.gates[name].requests("INVITE")

    def answer(self, name: str, status: int, *headers: str, nth: int = -1) -> None:
        peer = self.gates[name]
        peer.answer(self.invites(name)[nth], status, *headers)
        self.world.run()

    def rung(self) -> str:
        return "".join(name for name in self.gates if self.invites(name))


# --- order and failover -----------------------------------------------------------------------------------------------

SERIAL = "{gateways: [a, b, c], mode: serial, each: 8s, failover_on: [408, 5xx, timeout]}"


def test_gateways_are_called_one_after_the_other() -> None:
    stage = Stage(SERIAL)
    call = stage.call()
    assert stage.rung() == "a"
    assert stage.invites("a")[0].uri == b"sip:0049301@10.0.1.1:5070"
    stage.answer("a", 500)
    assert stage.rung() == "ab"
    stage.answer("b", 200)
    assert stage.rung() == "ab"
    assert call.statuses == [100, 200]
    assert dict(stage.vars) == {"outcome": "answered", "code": 200, "gateway": "b", "tried": "a b"}


@pytest.mark.parametrize(
    ("status", "goes_on"), [(408, True), (500, True), (503, True), (480, False), (486, False), (603, False)]
)
def test_failover_on_says_after_which_failure(status: int, goes_on: bool) -> None:
    stage = Stage(SERIAL)
    call = stage.call()
    stage.answer("a", status)
    assert stage.rung() == ("ab" if goes_on else "a")
    if not goes_on:
        assert stage.vars["code"] == status and call.final.status == status


@pytest.mark.parametrize("wanted, rung", [("timeout", "ab"), ("408", "ab"), ("4xx", "ab"), ("5xx", "a")])
def test_each_is_a_time_out_for_failover(wanted: str, rung: str) -> None:
    stage = Stage(f"{{gateways: [a, b], mode: serial, each: 8s, failover_on: {wanted}}}")
    stage.call()
    stage.answer("a", 180)
    stage.world.run(8.1)
    assert "CANCEL" in stage.gates["a"].heard
    assert stage.rung() == rung
    if rung == "a":
        assert (stage.vars["outcome"], stage.vars["code"]) == ("no_answer", 408)


def test_a_gateway_that_says_nothing_is_passed_over() -> None:
    stage = Stage(SERIAL)
    call = stage.call()
    stage.world.run(8.1)
    assert stage.rung() == "ab"
    stage.world.run(16.1)
    assert stage.rung() == "abc"
    assert (stage.vars["outcome"], stage.vars["tried"]) == ("no_answer", "a b c")
    assert call.final.status == 408


def test_without_failover_on_every_failure_is_one() -> None:
    stage = Stage("{gateways: [a, b], mode: serial}")
    stage.call()
    stage.answer("a", 486)
    assert stage.rung() == "ab"
    stage.answer("b", 480)
    assert (stage.vars["outcome"], stage.vars["code"]) == ("unavailable", 480)


def test_at_once_is_possible_too() -> None:
    stage = Stage("{gateways: [a, b]}")
    stage.call()
    assert stage.rung() == "ab"


def test_failover_needs_an_order() -> None:
    with pytest.raises(InputError, match="E115: failover_on: needs mode: serial"):
        program("{gateways: [a, b], failover_on: 5xx}")


def test_a_number_dialled_as_tel_reaches_the_gateway() -> None:
    stage = Stage("{gateways: a}")
    stage.world = World(program("{gateways: a}"), trust=(ip_network("10.0.0.0/24"),))
    stage.alice = stage.world.peer("alice", "10.0.0.2")
    stage.gates["a"] = stage.world.peer("a", "10.0.1.1", 5070)
    stage.call(uri="tel:+4930123;phone-context=x")
    assert stage.invites("a")[0].uri == b"sip:+4930123@10.0.1.1:5070"


# --- our account ------------------------------------------------------------------------------------------------------


def fields_of(request: Request, name: bytes = b"proxy-authorization") -> dict[str, str]:
    value = (request.get(name) or b"").decode().removeprefix("Digest ")
    return {key: text.strip('"') for key, text in (part.split("=", 1) for part in value.split(", "))}


def test_a_gateways_challenge_is_answered_with_our_account() -> None:
    stage = Stage("{gateways: c}")
    call = stage.call(body=b"v=0\r\n")
    assert stage.invites("c")[0].get(b"proxy-authorization") is None
    stage.answer("c", 407, CHALLENGE)
    first, second = stage.invites("c")
    assert call.statuses == [100], "the caller hears nothing of it"
    assert stage.gates["c"].heard == ["INVITE", "ACK", "INVITE"]
    assert second.via.branch != first.via.branch
    assert (second.call_id, second.get(b"from"), second.body) == (first.call_id, first.get(b"from"), first.body)
    found = fields_of(second)
    secret = md5(b"us:gw:secret").hexdigest()
    about = md5(b"INVITE:sip:0049301@10.0.1.3").hexdigest()
    wanted = md5(f"{secret}:n1:00000001:{found['cnonce']}:auth:{about}".encode()).hexdigest()
    assert found["response"] == wanted
    assert (found["username"], found["uri"], found["opaque"]) == ("us", "sip:0049301@10.0.1.3", "o")
    stage.answer("c", 180)
    stage.answer("c", 200)
    assert call.statuses == [100, 180, 200]
    assert stage.vars["gateway"] == "c"


def test_a_401_is_answered_in_its_own_header() -> None:
    stage = Stage("{gateways: c}")
    stage.call()
    stage.answer("c", 401, 'WWW-Authenticate: Digest realm="gw", nonce="n"')
    assert fields_of(stage.invites("c")[1], b"authorization")["username"] == "us"


def test_a_wrong_password_is_a_failure_and_not_a_loop() -> None:
    stage = Stage("{gateways: [c, a], mode: serial}")
    stage.call()
    stage.answer("c", 407, CHALLENGE)
    stage.answer("c", 407, CHALLENGE.replace("n1", "n2"))
    assert len(stage.invites("c")) == 2
    assert stage.rung() == "ac", "and the next one is tried"


def test_a_nonce_that_has_grown_old_is_no_failure() -> None:
    stage = Stage("{gateways: c}")
    stage.call()
    stage.answer("c", 407, CHALLENGE)
    stage.answer("c", 407, CHALLENGE.replace("n1", "n2") + ", stale=true")
    stage.answer("c", 407, CHALLENGE.replace("n1", "n2") + ", stale=true")
    assert [fields_of(invite)["nonce"] for invite in stage.invites("c")[1:]] == ["n1", "n2"]


def test_another_realm_than_the_one_given_is_not_answered() -> None:
    stage = Stage("{gateways: c}", gateways=", realm: telco.example")
    call = stage.call()
    stage.answer("c", 407, CHALLENGE)
    assert len(stage.invites("c")) == 1
    assert call.final.status == 407 and stage.vars["outcome"] == "rejected"


def test_only_a_gateway_with_an_account_gets_one() -> None:
    """CVE-2021-41158: a digest for whoever asks is a password to be guessed at leisure."""
    stage = Stage("{gateways: a}")
    call = stage.call()
    stage.answer("a", 407, CHALLENGE)
    assert stage.gates["a"].heard == ["INVITE", "ACK"]
    assert call.final.status == 407 and call.final.get(b"proxy-authenticate") is not None


@pytest.mark.parametrize("method", ["BYE", "INVITE", "UPDATE", "INFO"])
@pytest.mark.parametrize("wrong", [False, True])
def test_a_challenge_inside_the_dialog_is_answered_with_the_gateways_account(method: str, wrong: bool) -> None:
    stage = Stage("{gateways: c}")
    call = stage.call(call_id="c1")
    stage.answer("c", 407, CHALLENGE)
    stage.answer("c", 200)
    assert call.final.status == 200
    route = f"Route: <{(call.final.record_routes()[0].uri or b'').decode()}>"
    asked = stage.alice.ask(method, "sip:c@10.0.1.3", route,
                            to="<sip:0049301@example.com>;tag=c", call_id="c1", cseq=2)  # fmt: skip
    stage.world.run()
    gate = stage.gates["c"]
    before = len(gate.requests(method))
    gate.answer(gate.requests(method)[-1], 407, CHALLENGE)
    stage.world.run()
    again = gate.requests(method)[-1]
    assert len(gate.requests(method)) == before + 1
    assert again.get(b"proxy-authorization") is not None
    gate.answer(again, 407 if wrong else 200, *([CHALLENGE] if wrong else []))
    stage.world.run()
    assert [status for status in asked.statuses if status >= 200] == [407 if wrong else 200]


def restarted(stage: Stage) -> None:
    """Another engine at the same place, which knows no call."""
    world = stage.world
    location = Location(world.location.store)
    location.load(world.engine.wall)
    world.engine = Engine(world.settings, location, world.engine.flows.program, world.now, site=world.site)


@pytest.mark.parametrize("restart", [True, False])
@pytest.mark.parametrize(
    ("way", "challenged", "answered"),
    [
        ("caller", "c", True),
        ("elsewhere", "b", False),  # he chooses where his requests go, not who gets our account
        ("by another proxy", "b", False),
        ("callee", "alice", False),
    ],
)
@pytest.mark.parametrize("method", ["BYE", "INVITE", "UPDATE"])
def test_only_the_gateway_that_was_called_gets_our_account(
    method: str, way: str, challenged: str, answered: bool, restart: bool
) -> None:
    """Also after a restart of ours: what is left then is the token of our Record-Route."""
    stage = Stage("{gateways: c}")
    call = stage.call("Contact: <sip:alice@10.0.0.2>", call_id="c1")
    stage.answer("c", 407, CHALLENGE)
    stage.answer("c", 200)
    if restart:
        restarted(stage)
    route = f"Route: <{(call.final.record_routes()[0].uri or b'').decode()}>"
    asking = {"to": "<sip:0049301@example.com>;tag=c", "call_id": "c1", "cseq": 2}
    peers = {**stage.gates, "alice": stage.alice}
    if way == "callee":
        sender, uri = stage.gates["c"], "sip:alice@10.0.0.2"
        invite = stage.invites("c")[-1]
        asking |= {"to": (invite.get(b"from") or b"").decode(), "sender": "<sip:0049301@example.com>;tag=c"}
    else:
        sender, uri = stage.alice, "sip:c@10.0.1.2" if way == "elsewhere" else "sip:c@10.0.1.3"
    if way == "by another proxy":
        route += ", <sip:10.0.1.2;lr>"
    sender.ask(method, uri, route, **asking)
    stage.world.run()
    peer = peers[challenged]
    before = len(peer.requests(method))
    peer.answer(peer.requests(method)[-1], 407, CHALLENGE)
    stage.world.run()
    assert len(peer.requests(method)) == before + answered
    if answered:
        assert fields_of(peer.requests(method)[-1])["username"] == "us"


@pytest.mark.parametrize(
    ("ended", "restart", "later", "answered"),
    [(True, False, 60, False), (False, True, 11 * 3600, True), (False, True, 13 * 3600, False)],
)
def test_who_had_a_call_has_our_account_no_longer_than_the_call(
    ended: bool, restart: bool, later: float, answered: bool
) -> None:
    """The route of a call that is over, sent again with another number: no flow has allowed that call."""
    stage = Stage("{gateways: c}")
    stage.world.run(2)
    call = stage.call("Contact: <sip:alice@10.0.0.2>", call_id="c1")
    stage.answer("c", 407, CHALLENGE)
    stage.answer("c", 200)
    route = f"Route: <{(call.final.record_routes()[0].uri or b'').decode()}>"
    gate, asking = stage.gates["c"], {"to": "<sip:0049301@example.com>;tag=c", "call_id": "c1"}
    if ended:
        stage.alice.ask("BYE", "sip:c@10.0.1.3", route, cseq=2, **asking)
        stage.world.run()
        gate.answer(gate.requests("BYE")[-1], 200)
    if restart:
        restarted(stage)
    stage.world.run(later)
    stage.alice.ask("INVITE", "sip:00900123@10.0.1.3", route, cseq=3, **asking)
    stage.world.run()
    before = len(stage.invites("c"))
    stage.answer("c", 407, CHALLENGE)
    assert len(stage.invites("c")) == before + answered


def test_a_dialog_without_a_gateway_opens_none() -> None:
    """bob and alice have a call; what she sends to a gateway under its name goes without our account."""
    stage = Stage("registered")
    bob = stage.world.registered_phone("bob@example.com", "10.0.0.3")
    bob.on_invite = lambda call: call.answer()
    call = stage.call("Contact: <sip:alice@10.0.0.2>", uri="sip:bob@example.com", call_id="c1")
    restarted(stage)
    route = f"Route: <{(call.final.record_routes()[0].uri or b'').decode()}>"
    to = (call.final.get(b"to") or b"").decode()
    stage.alice.ask("INVITE", "sip:00900123@10.0.1.3", route, to=to, call_id="c1", cseq=2)
    stage.world.run()
    stage.answer("c", 407, CHALLENGE)
    assert len(stage.invites("c")) == 1


def test_a_gateway_may_challenge_our_own_bye() -> None:
    stage = Stage("{gateways: c}")
    stage.call(call_id="c1")
    stage.answer("c", 407, CHALLENGE)
    stage.answer("c", 200)
    [call] = stage.world.engine.calls
    call.on_confirmed()
    call.hangup("enough", None, "both")
    stage.world.run()
    gate = stage.gates["c"]
    gate.answer(gate.requests("BYE")[0], 401, CHALLENGE.replace("Proxy-Authenticate", "WWW-Authenticate"))
    stage.world.run()
    first, second = gate.requests("BYE")
    assert second.get(b"authorization") is not None
    assert second.cseq == first.cseq + 1
    gate.answer(second, 401, CHALLENGE.replace("Proxy-Authenticate", "WWW-Authenticate"))
    stage.world.run()
    assert len(gate.requests("BYE")) == 2, "once"


def test_a_caller_who_has_hung_up_is_not_logged_in() -> None:
    stage = Stage("{gateways: c}")
    call = stage.call()
    stage.answer("c", 100)
    call.cancel()
    stage.world.run()
    gate = stage.gates["c"]
    gate.answer(gate.requests("CANCEL")[0], 200)
    stage.answer("c", 407, CHALLENGE)
    assert len(stage.invites("c")) == 1


def test_a_cancel_after_the_answer_to_the_challenge_means_the_second_invite() -> None:
    stage = Stage("{gateways: c}")
    call = stage.call()
    stage.answer("c", 407, CHALLENGE)
    stage.answer("c", 180)
    call.cancel()
    stage.world.run()
    (cancel,) = stage.gates["c"].requests("CANCEL")
    assert cancel.via.branch == stage.invites("c")[1].via.branch
    stage.answer("c", 487)
    call.acknowledge()
    stage.world.run(64)
    assert stage.world.leftovers()["transactions"] <= 1, "only the CANCEL nobody answered"


def test_late_answers_to_the_first_invite_change_nothing() -> None:
    stage = Stage("{gateways: c}")
    call = stage.call()
    stage.answer("c", 407, CHALLENGE)
    stage.answer("c", 407, CHALLENGE, nth=0)
    assert len(stage.invites("c")) == 2
    stage.answer("c", 200)
    assert call.statuses == [100, 200]


# --- the program of the call ------------------------------------------------------------------------------------------


def test_a_running_call_keeps_the_gateways_of_its_program() -> None:
    stage = Stage("{gateways: a}", extra="- sleep: 5s")
    stage.call()
    text = "flowlang: 1\ngateways: {a: {uri: 'sip:10.0.1.2'}}\nflows: {f: {on: invite, do: [relay: {gateways: a}]}}"
    stage.world.engine.load(load_sources([Source("new.flow.yaml", text)])[0], stage.world.site)
    stage.world.run(6)
    assert stage.rung() == "a"
    stage.call()
    assert stage.rung() == "ab", "the next call runs the new one"


# --- from, and injected branches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("written", ["sales@example.com", "sip:sales@example.com"])
def test_the_calling_party_shown_is_the_flows(written: str) -> None:
    stage = Stage(f"{{gateways: a, from: '{written}'}}")
    call = stage.call()
    (invite,) = stage.invites("a")
    assert invite.get_all(b"from") == [b"<sip:sales@example.com>;tag=alice"]
    for status in (180, 200, 200):
        stage.answer("a", status)
    assert {response.get(b"from") for response in call.responses} == {b"<sip:alice@example.com>;tag=alice"}


def test_a_failure_shows_the_caller_his_own_from_too() -> None:
    stage = Stage("{gateways: a, from: sales@example.com}")
    call = stage.call()
    stage.answer("a", 486)
    assert call.final.get(b"from") == b"<sip:alice@example.com>;tag=alice"
    (ack,) = stage.gates["a"].requests("ACK")
    assert ack.get(b"from") == b"<sip:sales@example.com>;tag=alice"


def test_a_calling_party_that_is_none_fails_the_step() -> None:
    stage = Stage("{gateways: a, from: '${call.target.user}'}")
    call = stage.call()
    assert call.final.status == 500 and stage.rung() == ""


INJECT = "- subscribe: registered\n        do: [inject: {to: '${event.uri}', ring: 5s}]"


def registered(stage: Stage) -> Peer:
    bob = stage.world.peer("bob", "10.0.0.3")
    ask = bob.ask("REGISTER", "sip:example.com", f"Contact: {bob.contact};expires=60", to="<sip:bob@example.com>")
    stage.world.run()
    assert ask.statuses == [200]
    return bob


def test_an_injected_branch_inherits_from_and_rings_for_its_own_time() -> None:
    stage = Stage("{to: original, from: sales@example.com, ring: 60s, keep_open: 60s}", extra=INJECT)
    stage.call(uri="sip:bob@example.com")
    bob = registered(stage)
    (invite,) = bob.requests("INVITE")
    assert invite.get(b"from") == b"<sip:sales@example.com>;tag=alice"
    bob.answer(invite, 180)
    stage.world.run(4.9)
    assert bob.requests("CANCEL") == []
    stage.world.run(0.2)
    assert len(bob.requests("CANCEL")) == 1
    assert len(stage.world.engine.flows.runs) == 1, "the relay is still open"


def test_what_is_injected_before_the_relay_gets_its_headers_and_from_as_well() -> None:
    relay = "{gateways: a, headers: {X-Queue: sales}, from: sales@example.com}"
    stage = Stage(relay, extra="- inject: 'sip:bob@10.0.0.3'")
    bob = stage.world.peer("bob", "10.0.0.3")
    stage.call()
    (invite,) = bob.requests("INVITE")
    assert (invite.get(b"x-queue"), invite.get(b"from")) == (b"sales", b"<sip:sales@example.com>;tag=alice")


# --- the number that is called ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "dialled", "called"),
    [
        ("strip: 1", "00301234", "0301234"),
        ("prefix: '0049'", "301234", "0049301234"),
        ("strip: 2, prefix: '+'", "0049301234", "+49301234"),
        ("number: \"'+49' + number.drop(1)\"", "030123", "+4930123"),
        ("number: \"number.startsWith('00') ? '+' + number.drop(2) : number\"", "117", "117"),
        ("strip: 0", "0049%2a1", "0049%2a1"),  # nothing to change: to the letter
        ("prefix: '9'", "a%40b", "9a%40b"),  # an escape stays one
    ],
)
def test_a_gateway_has_rules_for_the_number(keys: str, dialled: str, called: str) -> None:
    program_text = f"flowlang: 1\ngateways: {{a: {{uri: 'sip:10.0.1.1:5070', {keys}}}}}\n"
    program_text += "flows: {f: {on: invite, do: [relay: {gateways: a}]}}"
    stage = Stage("{gateways: a}")
    stage.world.engine.load(load_sources([Source("n.flow.yaml", program_text)])[0], stage.world.site)
    stage.call(uri=f"sip:{dialled}@example.com")
    assert stage.invites("a")[0].uri == f"sip:{called}@10.0.1.1:5070".encode()


def test_a_flow_gives_the_number() -> None:
    stage = Stage("{gateways: a, number: '+49301'}")
    stage.call()
    assert stage.invites("a")[0].uri == b"sip:+49301@10.0.1.1:5070"


def test_the_rules_of_the_gateway_apply_to_the_number_of_a_flow() -> None:
    text = """flowlang: 1
gateways: {a: {uri: 'sip:10.0.1.1:5070', strip: 1, prefix: '00'}}
flows: {f: {on: invite, do: [relay: {gateways: a, number: '+49${call.target.user.drop(4)}'}]}}"""
    stage = Stage("{gateways: a}")
    stage.world.engine.load(load_sources([Source("n.flow.yaml", text)])[0], stage.world.site)
    stage.call(uri="sip:0049301@example.com")
    assert stage.invites("a")[0].uri == b"sip:0049301@10.0.1.1:5070"


def test_a_number_from_outside_stays_a_user_part() -> None:
    """`@`, `;` and `?` in it are escaped: the call goes to the gateway and nowhere else."""
    stage = Stage("{gateways: a, number: '${call.target.user}'}")
    stage.call(uri="sip:x%4010.9.9.9%3a5060%3b%3f@example.com")
    assert stage.invites("a")[0].uri == b"sip:x%4010.9.9.9%3A5060%3B%3F@10.0.1.1:5070"


def test_a_number_of_which_nothing_is_left_fails_the_step() -> None:
    text = "flowlang: 1\ngateways: {a: {uri: 'sip:10.0.1.1:5070', strip: 9}}\n"
    stage = Stage("{gateways: a}")
    stage.world.engine.load(
        load_sources([Source("n.flow.yaml", text + "flows: {f: {on: invite, do: [relay: {gateways: a}]}}")])[0],
        stage.world.site,
    )
    call = stage.call(uri="sip:12@example.com")
    assert call.final.status == 500 and stage.rung() == ""


@pytest.mark.parametrize(
    ("gateway", "mistake"),
    [
        ("strip: 1, number: number", "strip: cannot stand beside number:"),
        ("number: 'numbr'", "numbr"),
        ("number: '${number}'", "number: is an expression already"),
        ("number: size(number)", "text"),
        ("strip: -1", "'-1' is not a number"),
    ],
)
def test_rules_with_a_mistake_do_not_load(gateway: str, mistake: str) -> None:
    text = f"flowlang: 1\ngateways: {{a: {{uri: 'sip:10.0.1.1', {gateway}}}}}\n"
    with pytest.raises(InputError, match=mistake):
        load_sources([Source("n.flow.yaml", text + "flows: {f: {on: invite, do: [relay: {gateways: a}]}}")])


def test_number_needs_gateways() -> None:
    with pytest.raises(InputError, match="E115: number: needs gateways:"):
        program("{to: registered, number: '1'}")


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("Sales <sip:sales@example.com>", b'"Sales" <sip:sales@example.com>;tag=alice'),
        ('"Sales, Berlin" <sales@example.com>', b'"Sales, Berlin" <sip:sales@example.com>;tag=alice'),
        (r'"a \" b" <sip:sales@example.com>', rb'"a \" b" <sip:sales@example.com>;tag=alice'),
    ],
)
def test_a_calling_party_may_have_a_name(written: str, sent: bytes) -> None:
    stage = Stage(f"{{gateways: a, from: '{written}'}}")
    stage.call()
    assert stage.invites("a")[0].get(b"from") == sent
