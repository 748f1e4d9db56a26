"""What an operator does: hang up, remove and add contacts, gateways, log level, drain, reload; and odd requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from orchestrator.errors import Diagnostic, InputError, OrchestratorError
from orchestrator.testing.api_stage import PREFIX, ApiStage

FLOWS = """\
flowlang: 1
gateways:
  a: {uri: 'sip:10.0.1.1'}
  b: {uri: 'sip:10.0.1.2', user: us, password: secret}
  c: {uri: 'sip:10.0.1.3', probe: 30s}
flows:
  out:
    on: invite
    when: call.target.user == '0049301'
    do:
      - relay: {gateways: [a, b], mode: serial}
  ring_user:
    on: invite
    when: call.target.user == 'bob'
    do:
      - relay: registered
  watch:
    on: {event: gateway_down}
    do: [log: '${event.gateway} down: ${event.reason}']
  watch_up:
    on: {event: gateway_up}
    do: [log: '${event.gateway} up: ${event.reason}']
"""


@pytest.fixture
def stage() -> ApiStage:
    stage = ApiStage(FLOWS)
    stage.logged = []  # type: ignore[attr-defined]
    stage.world.engine.host.on_log = lambda run, effect: stage.logged.append(effect.text)  # type: ignore[attr-defined]
    return stage


def logged(stage: ApiStage) -> list[str]:
    found: list[str] = stage.logged  # type: ignore[attr-defined]
    return found


# --- calls ------------------------------------------------------------------------------------------------------------


def test_a_call_that_rings_and_one_that_is_answered_are_hung_up(stage: ApiStage) -> None:
    world = stage.world
    alice, bob = world.phone("alice@example.com", "10.0.0.2"), world.phone("bob@example.com", "10.0.0.3")
    bob.register()
    world.run()
    for answered in (False, True):
        call = alice.invite("bob@example.com")
        world.run(1)
        if answered:
            bob.calls[-1].answer()
            world.run(1)
        (row,) = stage.items("calls")
        assert (row["state"], row["from"], row["to"], row["flow"]) == (
            "answered" if answered else "ringing", "alice@example.com", "bob@example.com", "ring_user",
        )  # fmt: skip
        answer = stage.ask("DELETE", f"calls/{row['id']}?reason=maintenance")
        assert (answer.status_code, answer.json) == (202, {"node": "node1", "id": row["id"], "state": row["state"]})
        world.run(1)
        assert stage.items("calls") == []
        assert (call.bye is not None) if answered else (call.statuses[-1] == 480)
        again = stage.ask("DELETE", f"calls/{row['id']}")
        assert (again.status_code, again.json["code"]) == (404, "call.unknown")


def test_an_invite_without_a_flow_is_shown_while_it_rings_and_can_be_ended(stage: ApiStage) -> None:
    world = stage.world
    alice, carol = world.phone("alice@example.com", "10.0.0.2"), world.phone("carol@example.com", "10.0.0.3")
    carol.register()
    world.run()
    alice.invite("carol@example.com")
    world.run(1)
    (row,) = stage.items("calls")
    assert (row["state"], row["to"], row["flow"], row["run"]) == ("ringing", "carol@example.com", None, None)
    assert stage.get(f"calls/{row['id']}").json["branches"][0]["state"] == "ringing"
    assert stage.items("calls?flow=ring_user") == [] and len(stage.items("calls?of=carol")) == 1
    assert stage.ask("DELETE", f"calls/{row['id']}").status_code == 202
    world.run(1)
    assert stage.items("calls") == []
    assert any(octets.startswith(b"SIP/2.0 487") for *_, octets in world.sent)


@pytest.mark.parametrize("id", ["..", "..%2F..%2Fetc%2Fpasswd", "%00", "x" * 5000, "%F0%9F%92%A9", "<script>", "%FF"])
def test_a_call_that_nobody_knows(stage: ApiStage, id: str) -> None:
    for method in ("GET", "DELETE"):
        answer = stage.ask(method, f"calls/{id}")
        assert answer.status_code in (400, 404) and answer.headers["Content-Type"] == "application/problem+json"
        assert len(answer.text) < 1000


# --- registrations ----------------------------------------------------------------------------------------------------


def test_contacts_are_added_shown_and_removed(stage: ApiStage) -> None:
    added = stage.ask("POST", "registrations/bob@EXAMPLE.com", {"contact": "sip:bob@10.0.0.9:5070", "expires": 60})
    assert added.status_code == 201 and added.json["aor"] == "bob@example.com"
    (contact,) = added.json["contacts"]
    assert (contact["contact"], contact["expires_in"], contact["q"]) == ("sip:bob@10.0.0.9:5070", 60.0, 1.0)
    again = stage.ask("POST", "registrations/bob@example.com", {"contact": "sip:bob@10.0.0.9:5070", "q": 0.5})
    assert [found["q"] for found in again.json["contacts"]] == [0.5], "a refresh"
    stage.ask("POST", "registrations/bob@example.com", {"contact": "sip:bob@10.0.0.8"})
    assert stage.get("registrations").json["total"] == 1
    id = stage.get("registrations/bob@example.com").json["contacts"][0]["id"]
    left = stage.ask("DELETE", f"registrations/bob@example.com?contact={id}").json["contacts"]
    assert len(left) == 1 and left[0]["id"] != id
    assert stage.ask("DELETE", "registrations/bob@example.com").json["contacts"] == []
    gone = stage.ask("DELETE", "registrations/bob@example.com")
    assert (gone.status_code, gone.json["code"]) == (404, "registration.unknown")
    assert stage.get("registrations/bob@example.com").status_code == 404


def test_an_added_contact_rings_and_expires(stage: ApiStage) -> None:
    world = stage.world
    bob = world.phone("bob@example.com", "10.0.0.9")
    alice = world.phone("alice@example.com", "10.0.0.2")
    stage.ask("POST", "registrations/bob@example.com", {"contact": "sip:bob@10.0.0.9:5060", "expires": 60})
    alice.invite("bob@example.com")
    world.run(1)
    assert len(bob.calls) == 1
    world.run(120)
    assert stage.get("registrations").json["total"] == 0


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"contact": 7},
        {"contact": ""},
        {"contact": "bob"},
        {"contact": "sip:bob@10.0.0.9\r\nX: y"},
        {"contact": "sip:bob@10.0.0.9 x"},
        {"contact": "<sip:bob@10.0.0.9>"},
        {"contact": "http://10.0.0.9/"},
        {"contact": "sip:" + "x" * 5000},
        {"contact": "sip:bob@10.0.0.9", "expires": 0},
        {"contact": "sip:bob@10.0.0.9", "expires": True},
        {"contact": "sip:bob@10.0.0.9", "expires": 1e99},
        {"contact": "sip:bob@10.0.0.9", "q": 2},
        {"contact": "sip:bob@10.0.0.9", "q": "1"},
        {"contact": "sip:bob@10.0.0.9", "x": 1},
        b'{"contact": "sip:bob@10.0.0.9", "q": NaN}',
        b"[]",
        b"{",
        b"\xff\xfe",
        b"[" * 60_000,
    ],
)
def test_odd_contacts_are_refused(stage: ApiStage, body: Any) -> None:
    answer = stage.ask("POST", "registrations/bob@example.com", body)
    assert (answer.status_code, answer.json["code"]) == (400, "body.invalid")
    assert len(stage.world.engine.location) == 0


@pytest.mark.parametrize("aor", ["bob", "@example.com", "bob@", "b%20b@x.com", "bob@ex%0D%0Aample.com", "%3Cbob@x%3E"])
def test_odd_addresses_are_refused(stage: ApiStage, aor: str) -> None:
    assert stage.ask("POST", f"registrations/{aor}", {"contact": "sip:bob@10.0.0.9"}).status_code == 400


def test_a_full_table_says_so() -> None:
    stage = ApiStage()
    stage.world.engine.location.max_bindings = 0
    answer = stage.ask("POST", "registrations/bob@example.com", {"contact": "sip:bob@10.0.0.9"})
    assert (answer.status_code, answer.json["code"]) == (503, "registration.refused")


# --- gateways ---------------------------------------------------------------------------------------------------------


def test_a_disabled_gateway_is_not_tried_until_it_is_enabled(stage: ApiStage) -> None:
    world = stage.world
    gates = {name: world.peer(name, f"10.0.1.{number}") for number, name in ((1, "a"), (2, "b"))}
    alice = world.peer("alice", "10.0.0.2")

    def tried() -> list[str]:
        for gate in gates.values():
            gate.received.clear()
        alice.ask("INVITE", "sip:0049301@example.com")
        world.run(0.1)
        found = [name for name, gate in gates.items() if gate.requests("INVITE")]
        for name in found:
            gates[name].answer(gates[name].requests("INVITE")[0], 600)
        world.run(0.1)
        return found

    assert tried() == ["a"]
    told = stage.ask("POST", "gateways/a/disable").json
    assert (told["state"], told["up"], told["disabled"], told["reason"]) == (
        "disabled",
        False,
        True,
        "disabled by an operator",
    )
    assert tried() == ["b"] and logged(stage) == ["a down: disabled by an operator"]
    stage.ask("POST", "gateways/a/disable")
    assert len(logged(stage)) == 1, "once"
    world.engine.load(world.engine.flows.program, world.engine.site)
    assert tried() == ["b"], "it survives a reload"
    stage.ask("POST", "gateways/b/disable")
    assert tried() == [] and stage.items("calls") == []
    assert alice.heard[-1] == "480"
    assert stage.ask("POST", "gateways/a/enable").json["disabled"] is False
    assert logged(stage)[-1] == "a up: enabled by an operator" and tried() == ["a"]


def test_probes_are_sent_when_asked_for(stage: ApiStage) -> None:
    gate = stage.world.peer("c", "10.0.1.3")
    stage.world.run(20.1)
    gate.answer(gate.requests("OPTIONS")[0], 200)
    stage.world.run(1)
    assert stage.get("gateways").json["items"][2]["state"] == "up"
    gate.received.clear()
    assert stage.ask("POST", "gateways/c/probe").status_code == 200
    stage.world.run(0.1)
    assert [request.method for request in gate.requests()] == [b"OPTIONS"]
    unprobed = stage.ask("POST", "gateways/b/probe")
    assert (unprobed.status_code, unprobed.json["code"]) == (409, "gateway.not_probed")


@pytest.mark.parametrize("what", ["enable", "disable", "probe"])
@pytest.mark.parametrize("name", ["d", "..", "%00", "a%2Fb"])
def test_a_gateway_that_nobody_knows(stage: ApiStage, what: str, name: str) -> None:
    answer = stage.ask("POST", f"gateways/{name}/{what}")
    assert (answer.status_code, answer.json["code"]) in ((404, "gateway.unknown"), (404, "path.unknown"))


def test_no_secret_of_a_gateway_is_shown(stage: ApiStage) -> None:
    assert "secret" not in stage.get("gateways").text


# --- the server -------------------------------------------------------------------------------------------------------


def test_the_level_of_the_log(stage: ApiStage) -> None:
    assert stage.get("loglevel").json["level"] == "info"
    assert stage.ask("PUT", "loglevel", {"level": "debug"}).json["level"] == "debug"
    assert stage.level == "debug"
    for body in ({}, {"level": "loud"}, {"level": 1}, {"level": None}, {"level": ["debug"]}):
        assert stage.ask("PUT", "loglevel", body).json["code"] == "body.invalid"


def test_draining_and_taking_calls_again(stage: ApiStage) -> None:
    alice = stage.world.peer("alice", "10.0.0.2")
    assert stage.ask("POST", "drain").json["draining"] is True
    assert stage.get("status").json["state"] == "draining"
    asked = alice.ask("INVITE", "sip:bob@example.com")
    stage.world.run(1)
    assert asked.final is not None and asked.final.status == 503
    assert stage.ask("DELETE", "drain").json["draining"] is False
    assert stage.get("status").json["state"] == "ready"
    asked = alice.ask("INVITE", "sip:bob@example.com")
    stage.world.run(1)
    assert asked.final is not None and asked.final.status == 480


@dataclass
class Done:
    flows: int = 2
    version: str = "abc"
    restart_needed: tuple[str, ...] = ("sip",)


def test_a_reload_says_what_is_in_force(stage: ApiStage) -> None:
    stage.reload = Done
    assert stage.ask("POST", "reload").json == {
        "node": "node1",
        "flows": 2,
        "version": "abc",
        "restart_needed": ["sip"],
    }


def test_a_reload_that_is_refused_says_where_and_why(stage: ApiStage) -> None:
    def refuse() -> Any:
        raise InputError([Diagnostic("a.flow.yaml", 3, 7, "E101", "unknown key 'dou'", help="did you mean 'do'?")])

    stage.reload = refuse
    answer = stage.ask("POST", "reload")
    assert (answer.status_code, answer.json["code"]) == (422, "reload.refused")
    assert answer.json["diagnostics"] == [
        {
            "file": "a.flow.yaml",
            "line": 3,
            "col": 7,
            "length": 1,
            "code": "E101",
            "severity": "error",
            "message": "unknown key 'dou'",
            "help": "did you mean 'do'?",
            "notes": [],
        }
    ]
    stage.reload = lambda: (_ for _ in ()).throw(OrchestratorError("the disk is gone"))
    assert stage.ask("POST", "reload").json["detail"] == "the disk is gone"


# --- odd requests -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["status", "calls", "flows", "gateways", "calls/x", "registrations/a@b", "loglevel"])
def test_unknown_parameters_are_refused(stage: ApiStage, path: str) -> None:
    answer = stage.get(f"{path}?nope=1")
    assert (answer.status_code, answer.json["code"]) == (400, "query.invalid")


@pytest.mark.parametrize(("method", "path"), [("POST", "push"), ("PUT", "loglevel"), ("POST", "registrations/a@b")])
def test_huge_and_odd_bodies(stage: ApiStage, method: str, path: str) -> None:
    assert stage.ask(method, path, b" " * 300_000).json["code"] == "body.too_large"
    assert stage.ask(method, path, b"\xff\xfe").json["code"] == "body.invalid"
    assert stage.ask(method, path, {}, headers={"Content-Type": "text/plain"}).json["code"] == "body.type"
    assert stage.ask(method, path).json["code"] == "body.type"


@pytest.mark.parametrize("method", ["TRACE", "PATCH", "CONNECT", "FOO"])
def test_other_methods(stage: ApiStage, method: str) -> None:
    assert (
        stage.client.simulate_request(
            "GET", PREFIX + "status", headers={"Host": "localhost", "X-HTTP-Method-Override": method}
        ).status_code
        == 401
    )
    if method in ("PATCH", "TRACE"):
        assert stage.ask(method, "status").status_code == 405


def test_a_turn_that_does_not_come_is_not_waited_for(stage: ApiStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.api.actions.PATIENCE", 0.01)
    monkeypatch.setattr(stage.actions, "_turn", lambda *_: None)
    answer = stage.ask("POST", "gateways/a/disable")
    assert (answer.status_code, answer.json["code"]) == (503, "busy") and answer.headers["Retry-After"] == "1"
