"""The description of the API, and each answer held against it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker

from orchestrator.api.openapi import answer_schema
from orchestrator.api.routes import PREFIX
from orchestrator.api.schemas import COMPONENTS
from orchestrator.core.settings import ServerTimes
from orchestrator.errors import Diagnostic, InputError
from orchestrator.sip.admission import SourceLimits
from orchestrator.testing.api_stage import TOKEN, ApiStage

FLOWS = """\
flowlang: 1
gateways:
  a: {uri: 'sip:10.0.1.1', probe: 30s}
events:
  door: {front: text}
flows:
  fails:
    on: invite
    when: call.target.user == 'wrong'
    do: [fail: by design]
  ring_user:
    on: invite
    do:
      - subscribe: door
        do: [log: 'door']
      - relay: registered
"""
PARAMETERS = ";pn-provider=apns;pn-param=DEF123GHIJ.com.example.app.voip;pn-prid=00fc13adff785122b4ad2880"


class Stage(ApiStage):
    """One of everything: a call that rings, one that is answered, one that is over, phones, a gateway, a ban."""

    def __init__(self) -> None:
        super().__init__(
            FLOWS,
            sources=SourceLimits(strangers=1_000_000.0),
            freeswitch={"fs1": "sip:10.0.2.1"},
            server_times={"fs1": ServerTimes()},
        )
        world = self.world
        alice = world.phone("alice@example.com", "10.0.0.2")
        bob = world.phone("bob@example.com", "10.0.0.3", parameters=PARAMETERS)
        bob.register()
        world.run()
        alice.invite("wrong@example.com")
        for answers in (True, False):
            alice.invite("bob@example.com")
            world.run(1)
            if answers:
                bob.calls[-1].answer()
                world.run(1)
        admission = world.engine.admission
        for _ in range(2000):
            source = admission.admit("192.0.2.7", world.now)
            if source is not None:
                admission.charge(source, 5.0, world.now)
        self.samples.take(world.engine, world.now)
        self.reload = Done
        self.id = self.items("calls")[0]["id"]
        self.run = self.items("runs")[0]["run"].replace("#", "%23")


class Done:
    flows, version, restart_needed = 2, "abc", ("sip",)


NAMES = {"{aor:path}": "bob@example.com", "{name}": "ring_user"}
BODIES: dict[tuple[str, str], Any] = {
    ("POST", "registrations/{aor:path}"): {"contact": "sip:bob@10.0.0.9"},
    ("POST", "events"): {"name": "door", "attributes": {"front": "x"}},
    ("POST", "push"): {"to": "bob@example.com"},
    ("PUT", "loglevel"): {"level": "debug"},
}
QUERIES = {("DELETE", "bans"): "?source=192.0.2.7", ("GET", "explain"): "?of=x&seconds=0"}
STREAMS = ("explain", "siptrace", "events/stream")


def validator(schema: dict[str, Any]) -> Draft202012Validator:
    whole = {**schema, "components": {"schemas": COMPONENTS}}
    Draft202012Validator.check_schema(whole)
    return Draft202012Validator(whole, format_checker=FormatChecker())


@pytest.fixture(scope="module")
def stage() -> Stage:
    return Stage()


def test_each_answer_is_as_described(stage: Stage) -> None:
    """Reads first: writes take away what they show."""
    for endpoint in sorted(stage.endpoints, key=lambda found: found.method != "GET"):
        if endpoint.path in STREAMS:
            continue
        path = endpoint.path.replace("{id}", stage.id).replace("{run}", stage.run)
        for name, value in {**NAMES, **({"{name}": "a"} if path.startswith("gateways") else {})}.items():
            path = path.replace(name, value)
        key = endpoint.method, endpoint.path
        answer = stage.ask(endpoint.method, path + QUERIES.get(key, ""), BODIES.get(key))
        assert answer.status_code == endpoint.status, (key, answer.text)
        if endpoint.status == 204:
            continue
        assert answer.headers["content-type"].partition(";")[0] == endpoint.media.partition(";")[0], key
        if endpoint.media == "application/json":
            assert endpoint.answer, f"{key} says nothing of its answer"
            problems = [str(error) for error in validator(answer_schema(endpoint)).iter_errors(answer.json)]
            assert not problems, (key, problems[:2])
            assert not endpoint.lists or answer.json["items"] or endpoint.path == "archive/calls", (
                f"{key} shows nothing"
            )
        if endpoint.body is not None:
            assert validator(endpoint.body).is_valid(BODIES[key])


def test_a_call_that_is_over_is_as_described(stage: Stage) -> None:
    by_path = {(endpoint.method, endpoint.path): endpoint for endpoint in stage.endpoints}
    calls = stage.items("calls")
    for call in calls:
        stage.ask("DELETE", f"calls/{call['id']}")
    stage.world.run(1)
    ended = stage.get("archive/calls").json
    assert len(ended["items"]) >= 2
    validator(answer_schema(by_path["GET", "archive/calls"])).validate(ended)
    one = stage.get(f"calls/{ended['items'][0]['id']}").json
    validator(answer_schema(by_path["GET", "calls/{id}"])).validate(one)


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "calls/x"), ("GET", "nothing"), ("PATCH", "calls"), ("GET", "calls?x=1"), ("POST", "push")],
)
def test_each_refusal_is_a_problem(stage: Stage, method: str, path: str) -> None:
    answer = stage.ask(method, path)
    assert answer.headers["content-type"] == "application/problem+json"
    validator(COMPONENTS["Problem"]).validate(answer.json)
    assert answer.json["status"] == answer.status_code


def test_a_refused_reload_is_as_described() -> None:
    def refuse() -> Any:
        raise InputError([Diagnostic("a.flow.yaml", 3, 7, "E101", "unknown key", notes=("see there",))])

    stage = ApiStage()
    stage.reload = refuse
    told = stage.ask("POST", "reload").json
    assert told["diagnostics"]
    validator(COMPONENTS["Problem"]).validate(told)


def test_the_description_is_served_and_names_every_route(stage: Stage) -> None:
    told = stage.get("openapi.json").json
    assert told["openapi"].startswith("3.1")
    described = {(method.upper(), path) for path, methods in told["paths"].items() for method in methods}
    served = {(endpoint.method, PREFIX + endpoint.path.replace(":path", "")) for endpoint in stage.endpoints}
    assert described == served
    identifiers = [found["operationId"] for methods in told["paths"].values() for found in methods.values()]
    assert len(identifiers) == len(set(identifiers))
    text = json.dumps(told)
    for name in {part.partition('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in told["components"]["schemas"]
    for schema in told["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    assert TOKEN not in text and stage.get("openapi.json", token=None).status_code == 401
    assert stage.get("openapi.json?x=1").status_code == 400
