"""`auth` in the core: who gets in, what the others are told, and what happens to credentials on their way."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from hashlib import md5, new, sha256
from ipaddress import ip_network
from typing import Any

import pytest

from orchestrator.core.settings import AuthPolicy, CoreLimits
from orchestrator.core.users import HttpUsers, LocalUsers, UserTable
from orchestrator.errors import StepError
from orchestrator.flow.loader import Source, load_sources
from orchestrator.flow.run.effects import Http
from orchestrator.flow.run.step_facts import AuthDone
from orchestrator.flow.run.trace import render
from orchestrator.sip.digest import LIFETIME, Secret
from orchestrator.sip.message import Response
from orchestrator.sip.points import Hop
from orchestrator.testing.peer import Ask, Peer
from orchestrator.testing.world import World

FLOWS = """\
flowlang: 1
users: {local: {file: users.yaml}}
events: {login_failed: {aor: text, ip: text}}
flows:
  register:
    on: register
    do:
      - auth: {realm: example.com, users: local, trust: [10.0.9.0/24, '::1']}
        as: who
        on_fail:
          - raise: login_failed
            data: {aor: '${request.aor}', ip: '${request.source_ip}'}
      - if: who.user != request.to.user
        then:
          - reply: {code: 403, reason: Not your address}
          - stop
      - log: '${request.user ?? "nobody"} in ${who.realm}, trusted: ${string(who.trusted)}'
      - register: {max_contacts: 5}
  call:
    on: invite
    vars: {who: nobody}
    do:
      - call: check
      - set: {who: '${call.user ?? "nobody"}'}
      - relay: {aor: '${call.target.aor}', ring: 30s}
  check:
    do:
      - auth: example.com
      - auth: example.com
  failed:
    on: login_failed
    do:
      - log: 'failed ${event.aor} ${event.ip}'
"""
ALICE = Secret("wonder")
BOB = Secret(ha1={"MD5": md5(b"bob:example.com:builder").hexdigest()})
HASHES: dict[str, Any] = {"MD5": md5, "SHA-256": sha256, "SHA-512-256": partial(new, "sha512_256")}


class Stage:
    """A core with users, and peers that can sign."""

    def __init__(self, table: UserTable | None = None, flows: str = FLOWS, **settings: Any) -> None:
        program, warnings = load_sources([Source("auth.flow.yaml", flows)])
        assert warnings == []
        tables = {"local": table if table is not None else LocalUsers.of({"alice": ALICE})}
        self.world = World(program, users=tables, **settings)
        self.logged: list[str] = []
        self.world.engine.host.on_log = lambda run, effect: self.logged.append(effect.text)
        self.alice = self.world.peer("alice", "10.0.0.2")

    def do(self, ask: Ask) -> Ask:
        self.world.run()
        return ask

    def register(self, peer: Peer, *headers: str, user: str = "alice", cseq: int = 1) -> Ask:
        return self.do(peer.register(f"{user}@example.com", "", 3600, *headers, cseq=cseq))

    def log_in(self, peer: Peer, user: str = "alice", password: str = "wonder", **more: Any) -> Ask:
        """REGISTER twice: challenged, then signed."""
        challenge = self.register(peer, user=more.get("aor", user)).final
        return self.register(peer, sign(challenge, user, password), user=more.get("aor", user), cseq=2)

    @property
    def bindings(self) -> list[str]:
        engine = self.world.engine
        return [
            b.uri for user in ("alice", "bob") for b in engine.location.bindings(f"{user}@example.com", engine.wall)
        ]


def challenge_of(response: Response, algorithm: str = "SHA-256") -> dict[str, str]:
    name = b"www-authenticate" if response.status == 401 else b"proxy-authenticate"
    for value in response.get_all(name):
        pairs = (part.split("=", 1) for part in value.decode().removeprefix("Digest ").split(", "))
        found = {key: text.strip('"') for key, text in pairs}
        if found["algorithm"] == algorithm:
            return found
    raise AssertionError(f"no challenge for {algorithm}")


def sign(
    response: Response,
    user: str,
    password: str,
    /,
    *,
    algorithm: str = "SHA-256",
    uri: str = "sip:example.com",
    method: str = "",
    about: str = "",
    shown: str = "",
    **change: str | None,
) -> str:
    """A header line that answers a challenge; `change` replaces parameters, None leaves one out."""
    asked = challenge_of(response, algorithm)
    fields: dict[str, str | None] = {
        "username": user, "realm": asked["realm"], "nonce": asked["nonce"], "uri": uri, "algorithm": algorithm,
        "qop": "auth", "nc": "00000001", "cnonce": "0a4f113b", **change,
    }  # fmt: skip
    spoken = fields["algorithm"] or "MD5"
    digest = HASHES[spoken.removesuffix("-sess")]

    def hashed(text: str) -> str:
        return digest(text.encode()).hexdigest()

    secret = hashed(f"{user}:{fields['realm']}:{password}")
    if spoken.endswith("-sess"):
        secret = hashed(f"{secret}:{fields['nonce']}:{fields['cnonce']}")
    about = about or hashed(f"{method or response.cseq_method.decode()}:{fields['uri']}")
    middle = f":{fields['nc']}:{fields['cnonce']}:{fields['qop']}" if fields["qop"] else ""
    fields.setdefault("response", hashed(f"{secret}:{fields['nonce']}{middle}:{about}"))
    if shown:
        fields["username"] = shown
    bare = ("algorithm", "qop", "nc")
    parts = [f"{k}={v}" if k in bare else f'{k}="{v}"' for k, v in fields.items() if v is not None]
    name = "Authorization" if response.status == 401 else "Proxy-Authorization"
    return f"{name}: Digest {', '.join(parts)}"


# --- who gets in ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["SHA-256", "MD5"])
def test_a_phone_that_knows_the_password_is_registered(algorithm: str) -> None:
    stage = Stage()
    first = stage.register(stage.alice)
    assert first.statuses == [401] and stage.bindings == []
    asked = challenge_of(first.final, algorithm)
    assert (asked["realm"], asked["qop"]) == ("example.com", "auth") and "stale" not in asked
    again = stage.register(stage.alice, sign(first.final, "alice", "wonder", algorithm=algorithm), cseq=2)
    assert again.statuses == [200]
    assert stage.bindings == ["sip:alice@10.0.0.2:5060"]
    assert stage.logged == ["alice in example.com, trusted: false"]
    stage.world.run(64)
    assert stage.world.leftovers()["runs"] == 0


@pytest.mark.parametrize("order", [("MD5", "SHA-256"), ("SHA-256", "MD5"), ("SHA-256",)])
def test_algorithms_are_offered_as_configured(order: tuple[str, ...]) -> None:
    stage = Stage(digest=order)
    values = stage.register(stage.alice).final.get_all(b"www-authenticate")
    assert [f"algorithm={name}" in value.decode() for name, value in zip(order, values, strict=True)] == [True] * len(
        order
    )


@pytest.mark.parametrize("source", ["10.0.9.7", "::1"])
def test_trusted_networks_are_not_asked(source: str) -> None:
    stage = Stage()
    if ":" in source:  # the world's wires are IPv4; the core is told of the address
        text = stage.alice.ask("REGISTER", "sip:example.com", to="<sip:alice@example.com>", send=False).octets
        stage.world.engine.receive(text, Hop(stage.world.engine.network.points[0], source, 5060), 0.0)
        assert stage.logged == ["alice in example.com, trusted: true"]
        return
    peer = stage.world.peer("alice", source)
    assert stage.register(peer).statuses == [200]
    assert stage.logged == ["alice in example.com, trusted: true"]


def test_a_trusted_phone_is_who_it_says_it_is() -> None:
    stage = Stage()
    peer = stage.world.peer("mallory", "10.0.9.7")
    assert stage.register(peer, user="alice").statuses == [403], "From is mallory"
    assert stage.bindings == []


# --- who does not -----------------------------------------------------------------------------------------------------


def test_a_wrong_password_is_told_the_flow_after_the_reply() -> None:
    stage = Stage()
    refused = stage.log_in(stage.alice, password="guess")
    assert refused.statuses == [401]
    assert stage.logged == ["failed alice@example.com 10.0.0.2"]
    assert stage.bindings == []
    fresh = challenge_of(refused.final)
    assert "stale" not in fresh


def test_the_first_challenge_is_no_failure() -> None:
    stage = Stage()
    stage.register(stage.alice)
    assert stage.logged == []


def test_a_user_who_is_not_there_is_refused_like_a_wrong_password() -> None:
    stage = Stage()
    refused = stage.log_in(stage.alice, user="nobody", password="")
    known = stage.log_in(stage.world.peer("alice2", "10.0.0.4"), password="guess")
    assert refused.statuses == known.statuses == [401]
    assert [len(r.final.get_all(b"www-authenticate")) for r in (refused, known)] == [2, 2]
    assert len(stage.logged) == 2


def test_another_users_password_does_not_open_this_address() -> None:
    stage = Stage(LocalUsers.of({"alice": ALICE, "eve": Secret("x")}))
    eve = stage.world.peer("eve", "10.0.0.3")
    before = stage.bindings
    assert stage.log_in(eve, "eve", "x", aor="alice").statuses == [403]
    assert stage.bindings == before


def test_a_replayed_request_is_challenged_as_stale() -> None:
    stage = Stage()
    first = stage.register(stage.alice).final
    line = sign(first, "alice", "wonder")
    assert stage.register(stage.alice, line, cseq=2).statuses == [200]
    replayed = stage.register(stage.alice, line, cseq=3)
    assert replayed.statuses == [401] and challenge_of(replayed.final)["stale"] == "true"
    counted_on = sign(first, "alice", "wonder", nc="00000002")
    assert stage.register(stage.alice, counted_on, cseq=4).statuses == [200]
    assert stage.logged.count("failed alice@example.com 10.0.0.2") == 0


def test_a_stolen_answer_is_of_no_use_from_elsewhere() -> None:
    stage = Stage()
    line = sign(stage.register(stage.alice).final, "alice", "wonder")
    thief = stage.world.peer("thief", "10.0.0.66")
    refused = stage.register(thief, line, user="alice")
    assert refused.statuses == [401] and stage.bindings == []
    assert stage.logged == [], "a nonce that is not his is nobody's wrong password"


def test_an_old_nonce_is_stale() -> None:
    stage = Stage()
    line = sign(stage.register(stage.alice).final, "alice", "wonder")
    stage.world.run(LIFETIME + 1)
    again = stage.register(stage.alice, line, cseq=2)
    assert again.statuses == [401] and challenge_of(again.final)["stale"] == "true"
    assert stage.register(stage.alice, sign(again.final, "alice", "wonder"), cseq=3).statuses == [200]


def test_who_makes_nonces_up_learns_nothing_and_locks_nobody_out() -> None:
    stage = Stage()
    challenge = stage.register(stage.alice).final
    answers = [
        stage.register(stage.alice, sign(challenge, "alice", password, nonce="0" * 52), cseq=n)
        for n, password in enumerate(("guess", "wonder"), 2)
    ]
    assert [answer.statuses for answer in answers] == [[401], [401]]
    assert [challenge_of(answer.final).get("stale") for answer in answers] == ["true", None], "never twice in a row"
    assert stage.logged == []


@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256"])
def test_a_client_without_qop_is_served_once_for_each_nonce(algorithm: str) -> None:
    """RFC 3261 §22.4, RFC 2069."""
    stage = Stage()
    bare: dict[str, Any] = {"algorithm": algorithm, "qop": None, "nc": None, "cnonce": None}
    line = sign(stage.register(stage.alice).final, "alice", "wonder", **bare)
    assert stage.register(stage.alice, line, cseq=2).statuses == [200]
    replayed = stage.register(stage.alice, line, cseq=3)
    assert replayed.statuses == [401] and challenge_of(replayed.final)["stale"] == "true"
    deaf = stage.register(stage.alice, line, cseq=4)
    assert deaf.statuses == [401] and "stale" not in challenge_of(deaf.final)
    again = sign(deaf.final, "alice", "wonder", **bare)
    assert stage.register(stage.alice, again, cseq=5).statuses == [200]


@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256"])
def test_a_hash_of_one_user_decides_for_nobody_else(algorithm: str) -> None:
    other = {"MD5": "SHA-256", "SHA-256": "MD5"}[algorithm]
    secret = Secret(ha1={algorithm: HASHES[algorithm](b"bob:example.com:builder").hexdigest()})
    stage = Stage(LocalUsers.of({"alice": ALICE, "bob": secret}))
    asked = stage.register(stage.alice).final
    assert [dict(c)["algorithm"] for c in (challenge_of(asked, "MD5"), challenge_of(asked, "SHA-256"))] == [
        "MD5",
        "SHA-256",
    ]
    bob = stage.world.peer("bob", "10.0.0.3")
    first = stage.register(bob, user="bob").final
    again = stage.register(bob, sign(first, "bob", "builder", algorithm=other), user="bob", cseq=2)
    assert again.statuses == [401] and challenge_of(again.final, algorithm)["stale"] == "true"
    assert len(again.final.get_all(b"www-authenticate")) == 1
    assert stage.register(
        bob, sign(again.final, "bob", "builder", algorithm=algorithm), user="bob", cseq=3
    ).statuses == [200]


def test_a_user_whose_only_hash_is_not_offered_is_asked_for_it() -> None:
    secret = Secret(ha1={"SHA-256": sha256(b"bob:example.com:builder").hexdigest()})
    stage = Stage(LocalUsers.of({"alice": ALICE, "bob": secret}), digest=("MD5",))
    bob = stage.world.peer("bob", "10.0.0.3")
    first = stage.register(bob, user="bob").final
    assert len(first.get_all(b"www-authenticate")) == 1
    again = stage.register(bob, sign(first, "bob", "builder", algorithm="MD5"), user="bob", cseq=2).final
    assert stage.register(bob, sign(again, "bob", "builder"), user="bob", cseq=3).statuses == [200]


@pytest.mark.parametrize("change", [{"algorithm": "SHA-1"}, {"qop": "auth-int"}], ids=str)
def test_what_a_new_nonce_would_not_mend_is_not_stale(change: dict[str, str]) -> None:
    stage = Stage()
    asked = stage.register(stage.alice).final
    line = sign(asked, "alice", "wonder", response="0" * 64, **{**change, "algorithm": "SHA-256"})
    if "algorithm" in change:
        line = line.replace("algorithm=SHA-256", "algorithm=SHA-1")
    refused = stage.register(stage.alice, line, cseq=2)
    assert refused.statuses == [401] and "stale" not in challenge_of(refused.final)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"realm": "example.org"}, False),
        ({"algorithm": "MD5"}, False),
        ({"uri": "sip:example.org"}, True),
        ({"method": "INVITE"}, True),
        ({"response": "0" * 64}, True),
        ({"response": ""}, True),
        ({"username": ""}, True),
    ],
    ids=str,
)
def test_answers_that_do_not_fit_the_challenge(change: dict[str, Any], told: bool) -> None:
    """Realm, qop and algorithm changed are no answer to what was asked; the rest is a wrong answer."""
    stage = Stage()
    challenge = stage.register(stage.alice).final
    if change.get("algorithm"):  # the challenge was for SHA-256: the digest is right, only weaker
        nonce = challenge_of(challenge, "SHA-256")["nonce"]
        line = sign(challenge, "alice", "wonder", algorithm="MD5", nonce=nonce)
    else:
        line = sign(challenge, "alice", "wonder", **change)
    assert stage.register(stage.alice, line, cseq=2).statuses == [401]
    assert stage.bindings == []
    assert bool(stage.logged) is told


@pytest.mark.parametrize(
    "value",
    [
        "Digest",
        'Digest username="alice',
        'Digest username="alice", realm="example.com", nonce="x"',
        'Digest username="alice", username="bob", realm="example.com", nonce="x", uri="sip:x", response="1"',
        'Digest username="alice", realm="example.com", nonce="x", uri="sip:x", response="1", qop=auth, nc=1, cnonce=c',
        "Digest \x00\xff",
    ],
)
def test_garbled_credentials_get_a_400(value: str) -> None:
    stage = Stage()
    assert stage.register(stage.alice, f"Authorization: {value}").statuses == [400]
    assert stage.bindings == [] and stage.logged == []


@pytest.mark.parametrize("value", ["", "Basic YWxpY2U6d29uZGVy", "Bearer x"])
def test_other_schemes_are_no_credentials(value: str) -> None:
    stage = Stage()
    assert stage.register(stage.alice, f"Authorization: {value}").statuses == [401]


# --- calls ------------------------------------------------------------------------------------------------------------


def call_stage() -> tuple[Stage, Peer, Ask]:
    """bob is registered; alice calls and is challenged."""
    stage = Stage()
    bob = stage.world.peer("bob", "10.0.9.3")
    assert stage.register(bob, user="bob").statuses == [200]
    bob.received.clear()
    bob.raw.clear()
    ask = stage.do(stage.alice.ask("INVITE", "sip:bob@example.com", call_id="c", branch="z9hG4bK-1"))
    return stage, bob, ask


def test_a_call_is_challenged_as_by_a_proxy() -> None:
    stage, bob, ask = call_stage()
    assert ask.statuses == [100, 407]
    assert ask.final.get(b"www-authenticate") is None
    ask.acknowledge()
    stage.world.run(64)
    assert bob.heard == []
    left = stage.world.leftovers()
    assert (left["calls"], left["runs"], left["transactions"]) == (0, 0, 0)


def test_a_caller_who_is_known_gets_through_without_his_credentials() -> None:
    stage, bob, ask = call_stage()
    ask.acknowledge()
    line = sign(ask.final, "alice", "wonder", uri="sip:bob@example.com")
    other = 'Proxy-Authorization: Digest username="a", realm="next.hop", nonce="n", uri="sip:x", response="1"'
    signed = stage.do(stage.alice.ask("INVITE", "sip:bob@example.com", line, other, call_id="c", cseq=2))
    assert signed.statuses == [100]
    (invite,) = bob.requests("INVITE")
    assert invite.get_all(b"proxy-authorization") == [other.partition(": ")[2].encode()], "only what is for others"
    (run,) = stage.world.engine.flows.runs.values()
    assert run.vars["who"] == "alice"


@pytest.mark.parametrize(
    ("uri", "passes"), [("sip:example.com", True), ("sip:carol@example.com", False), ("sip:elsewhere.example", False)]
)
def test_a_digest_is_about_its_request_or_about_us(uri: str, passes: bool) -> None:
    """SIPp names the server it talks to, without the user it calls."""
    stage, bob, ask = call_stage()
    ask.acknowledge()
    line = sign(ask.final, "alice", "wonder", uri=uri)
    signed = stage.do(stage.alice.ask("INVITE", "sip:bob@example.com", line, call_id="c", cseq=2))
    assert signed.statuses == ([100] if passes else [100, 407])
    assert len(bob.requests("INVITE")) == passes


def test_a_digest_about_us_is_good_for_one_request_of_one_method() -> None:
    """Without a user it covers no callee; so it serves once, and nobody elsewhere (RFC 7616 §3.4.6)."""
    stage, bob, ask = call_stage()
    ask.acknowledge()
    line = sign(ask.final, "alice", "wonder", uri="sip:example.com")
    thief = stage.world.peer("thief", "10.0.0.66")
    stolen = stage.do(thief.ask("INVITE", "sip:bob@example.com", line, call_id="t"))
    assert stolen.statuses == [100, 407], "the nonce is of another address"
    assert stage.do(stage.alice.ask("INVITE", "sip:bob@example.com", line, call_id="c", cseq=2)).statuses == [100]
    again = line.replace("nc=00000001", "nc=00000002")
    for number, credentials in enumerate((line, again)):
        other = stage.do(stage.alice.ask("INVITE", "sip:carol@example.com", credentials, call_id=f"d{number}"))
        assert other.statuses[-1] == 407
    assert len(bob.requests("INVITE")) == 1


def test_the_rest_of_the_dialog_carries_no_credentials_either() -> None:
    stage, bob, ask = call_stage()
    ask.acknowledge()
    line = sign(ask.final, "alice", "wonder", uri="sip:bob@example.com")
    stage.do(stage.alice.ask("INVITE", "sip:bob@example.com", line, call_id="c", cseq=2))
    bob.answer(bob.requests("INVITE")[0], 200)
    stage.world.run()
    tagged = "<sip:bob@example.com>;tag=bob"
    route = f"Route: <{(bob.requests('INVITE')[0].record_routes()[0].uri or b'').decode()}>"
    for method, cseq in (("ACK", 2), ("BYE", 3)):
        stage.do(stage.alice.ask(method, "sip:bob@10.0.9.3:5060", route, line,
                                 to=tagged, call_id="c", cseq=cseq))  # fmt: skip
    assert [request.method for request in bob.requests()] == [b"INVITE", b"ACK", b"BYE"]
    assert all(request.get(b"proxy-authorization") is None for request in bob.requests())


def test_a_challenge_inside_a_called_flow_ends_the_calling_one() -> None:
    stage, bob, _ = call_stage()
    assert bob.heard == [], "the relay behind the call: step was not reached"
    (trace,) = [t for t in stage.world.engine.flows.traces if t.flow == "call"]
    assert trace.error == "" and "relay" not in render(trace)


def test_whom_a_trusted_source_asserts_is_the_user_before_any_auth() -> None:
    flows = (
        "flowlang: 1\nflows: {a: {on: invite, when: call.user != null and call.user == 'carol', do: [reply: 486]}}\n"
    )
    for trusted, status in ((True, 486), (False, 480)):
        stage = Stage(flows=flows, trust=(ip_network("10.0.0.0/24"),) if trusted else ())
        header = 'P-Asserted-Identity: "Carol" <sip:carol@pbx.example.com>'
        assert stage.do(stage.alice.ask("INVITE", "sip:bob@example.com", header)).final.status == status


# --- tables -----------------------------------------------------------------------------------------------------------


def http_stage(answer: Any) -> Stage:
    stage = Stage(HttpUsers("https://users.example.com/lookup"))
    stage.world.on_job = lambda job: answer if isinstance(job.effect, Http) else None
    return stage


def reply(status: int, json: Any = None) -> Mapping[str, Any]:
    return {"status": status, "json": json, "text": "", "headers": {}}


MD5_OF_ALICE = md5(b"alice:example.com:wonder").hexdigest()
SHA_OF_ALICE = sha256(b"alice:example.com:wonder").hexdigest()


@pytest.mark.parametrize(
    ("answer", "status", "failed"),
    [
        (reply(200, {"password": "wonder"}), 200, False),
        (reply(200, {"ha1": [MD5_OF_ALICE, SHA_OF_ALICE.upper()]}), 200, False),
        (reply(200, {"ha1": SHA_OF_ALICE}), 200, False),
        (reply(200, {"password": "other"}), 401, True),
        (reply(404), 401, True),
        (reply(200, {"ha1": "short"}), 503, False),
        (reply(200, {}), 503, False),
        (reply(200, [1]), 503, False),
        (StepError("http.connect", "refused"), 503, False),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_web_service_knows_the_users(answer: Any, status: int, failed: bool) -> None:
    stage = http_stage(answer)
    first = stage.register(stage.alice)
    assert first.statuses == [401] and stage.world.jobs == [], "who sends no credentials is not asked about"
    assert stage.register(stage.alice, sign(first.final, "alice", "wonder"), cseq=2).statuses == [status]
    (job,) = stage.world.jobs
    assert isinstance(job.effect, Http)
    assert (job.effect.url, dict(job.effect.query)) == (
        "https://users.example.com/lookup",
        {"user": "alice", "realm": "example.com"},
    )
    assert bool(stage.logged and stage.logged[0].startswith("failed")) is failed


def test_a_caller_who_hangs_up_while_his_user_is_looked_up() -> None:
    stage = http_stage(World.LATER)
    ask = stage.do(stage.alice.ask("INVITE", "sip:bob@example.com", call_id="c"))
    ask.acknowledge()
    line = sign(ask.final, "alice", "wonder", uri="sip:bob@example.com")
    signed = stage.do(stage.alice.ask("INVITE", "sip:bob@example.com", line, call_id="c", cseq=2))
    stage.do(signed.cancel())
    (job,) = stage.world.jobs
    stage.world.engine.complete(job.id, reply(200, {"password": "wrong"}), stage.world.now)
    stage.world.run()
    assert signed.statuses == [100, 487]
    told = [record.fact for trace in stage.world.engine.flows.traces for record in trace.records]
    assert AuthDone("failed") not in told


def test_a_table_that_could_not_be_read_keeps_everybody_out() -> None:
    stage = Stage()
    stage.world.reload_site(users={})
    assert stage.register(stage.alice).statuses == [503]
    assert stage.bindings == []


def test_tables_read_anew_are_used_at_once() -> None:
    stage = Stage()
    stage.world.reload_site(users={"local": LocalUsers.of({"alice": Secret("changed")})})
    assert stage.log_in(stage.alice).statuses == [401]
    assert stage.log_in(stage.world.peer("alice2", "10.0.0.4"), password="changed").statuses == [200]


def test_realms_made_of_what_strangers_send_are_remembered_in_bounds() -> None:
    flows = FLOWS.replace("realm: example.com, users", 'realm: \'${request.headers["X-Realm"] ?? "x"}\', users')
    stage = Stage(flows=flows, limits=CoreLimits())
    for number in range(300):
        ask = stage.register(stage.alice, f"X-Realm: r{number}", cseq=number + 1)
        assert ask.statuses == [401]
    gate = stage.world.engine.steps.authenticator
    assert len(gate._realms) <= 100


# --- RFC 8760 and RFC 7616 in full ------------------------------------------------------------------------------------

ALL = ("SHA-512-256", "SHA-256", "MD5")


def test_three_challenges_stand_in_the_order_of_the_configuration() -> None:
    stage = Stage(digest=ALL)
    values = stage.register(stage.alice).final.get_all(b"www-authenticate")
    assert [value.decode().split("algorithm=")[1].split(",")[0] for value in values] == list(ALL)


@pytest.mark.parametrize("algorithm", [*ALL, *(f"{name}-sess" for name in ALL)])
def test_each_algorithm_lets_the_right_password_in_and_no_other(algorithm: str) -> None:
    stage = Stage(digest=(*ALL, *(f"{name}-sess" for name in ALL)))
    first = stage.register(stage.alice).final
    assert stage.register(stage.alice, sign(first, "alice", "guess", algorithm=algorithm), cseq=2).statuses == [401]
    first = stage.register(stage.alice, cseq=3).final
    assert stage.register(stage.alice, sign(first, "alice", "wonder", algorithm=algorithm), cseq=4).statuses == [200]


def test_a_session_hash_is_made_of_the_stored_hash() -> None:
    stage = Stage(LocalUsers.of({"bob": BOB}), digest=("MD5-sess",))
    bob = stage.world.peer("bob", "10.0.0.3")
    first = stage.register(bob, user="bob").final
    line = sign(first, "bob", "builder", algorithm="MD5-sess")
    assert stage.register(bob, line, user="bob", cseq=2).statuses == [200]


@pytest.mark.parametrize(("body", "passes"), [(b"v=0\r\n", True), (b"v=1\r\n", False)])
def test_auth_int_covers_the_body(body: bytes, passes: bool) -> None:
    stage = Stage(auth=AuthPolicy(qop=("auth", "auth-int")))
    first = stage.do(stage.alice.ask("INVITE", "sip:bob@example.com", call_id="c"))
    first.acknowledge()
    assert b'qop="auth,auth-int"' in (first.final.get(b"proxy-authenticate") or b"")
    about = sha256(b"INVITE:sip:bob@example.com:" + sha256(b"v=0\r\n").hexdigest().encode()).hexdigest()
    line = sign(first.final, "alice", "wonder", uri="sip:bob@example.com", qop="auth-int", about=about)
    again = stage.do(stage.alice.ask("INVITE", "sip:bob@example.com", line, call_id="c", cseq=2, body=body))
    assert (again.statuses[-1] != 407) is passes, again.statuses


def test_a_name_may_be_sent_as_a_hash_where_that_is_offered() -> None:
    stage = Stage(auth=AuthPolicy(userhash=True))
    first = stage.register(stage.alice).final
    assert challenge_of(first)["userhash"] == "true"
    hashed = sha256(b"alice:example.com").hexdigest()
    line = sign(first, "alice", "wonder", shown=hashed) + ", userhash=true"
    assert stage.register(stage.alice, line, cseq=2).statuses == [200]
    assert stage.logged[-1].startswith("alice in ")
    other = sign(first, "alice", "wonder", shown="0" * 64, nc="00000002") + ", userhash=true"
    assert stage.register(stage.alice, other, cseq=3).statuses == [401]


def test_an_extended_name_is_read() -> None:
    flows = FLOWS.replace("who.user != request.to.user", "1 > 2")
    stage = Stage(LocalUsers.of({"Jürgen": ALICE}), flows)
    first = stage.register(stage.alice).final
    line = sign(first, "Jürgen", "wonder").replace('username="Jürgen"', "username*=UTF-8''J%C3%BCrgen")
    assert stage.register(stage.alice, line, cseq=2).statuses == [200]
    broken = line.replace("UTF-8''", "latin-1'")
    assert stage.register(stage.alice, broken, cseq=3).statuses == [400]


def test_a_nonce_lives_as_long_as_the_configuration_says() -> None:
    stage = Stage(auth=AuthPolicy(nonce=30.0))
    line = sign(stage.register(stage.alice).final, "alice", "wonder")
    stage.world.run(31.0)
    again = stage.register(stage.alice, line, cseq=2)
    assert again.statuses == [401] and challenge_of(again.final)["stale"] == "true"


def test_a_phone_that_moves_is_asked_anew_once() -> None:
    stage = Stage()
    line = sign(stage.register(stage.alice).final, "alice", "wonder")
    assert stage.register(stage.alice, line, cseq=2).statuses == [200]
    moved = stage.world.peer("alice", "10.0.0.77")
    next_count = line.replace("nc=00000001", "nc=00000002")
    refused = stage.register(moved, next_count, user="alice", cseq=3)
    assert refused.statuses == [401] and challenge_of(refused.final)["stale"] == "true"
    assert stage.register(moved, sign(refused.final, "alice", "wonder"), user="alice", cseq=4).statuses == [200]
