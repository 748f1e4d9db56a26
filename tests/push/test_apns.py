"""Pushes to Apple over HTTP/2, to a server that speaks as Apple's does: what is sent, what its answers mean, and what
happens to pushes when a connection does not do what it should."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic, time
from typing import Any

import gevent
import pytest

pytest.importorskip("h2", reason="the extra `push` is not installed")

import jwt
from apns_server import DROP, REFUSE, RESET, STALL, ApnsServer, Reply, Request, reason
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from tls_files import write_authority, write_pair

from orchestrator.packages.push_service import PushDown
from orchestrator.push import h2_link
from orchestrator.push.apns import Apns, ApnsAccount, collapse_id
from orchestrator.push.apns_account import OFTEN, RENEW
from orchestrator.push.supervisor import Pushes
from orchestrator.settings import read_settings
from orchestrator.settings.values import Address
from orchestrator.sip.push import Push, PushAddress, Pushed, address_of
from orchestrator.sip.uri import parse_uri

TEAM = "DEF123GHIJ"
APP = "com.example.app"
TOKEN = "ab" * 32


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("apns")
    write_authority(folder / "ca.pem")
    write_pair(folder, "127.0.0.1", "localhost")
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "AuthKey.p8").write_bytes(pem)
    return folder


@pytest.fixture
def server(files: Path) -> Iterator[ApnsServer]:
    made = ApnsServer((files / "certificate.pem", files / "key.pem"))
    yield made
    made.close()


@pytest.fixture
def account(files: Path, server: ApnsServer) -> ApnsAccount:
    return ApnsAccount(
        host=Address("127.0.0.1", server.port),
        sandbox_host=Address("localhost", server.port),
        key=files / "AuthKey.p8",
        key_id="ABC123DEFG",
        team=TEAM,
        ca=files / "ca.pem",
    )


@pytest.fixture
def apns(account: ApnsAccount) -> Iterator[Apns]:
    made = Apns(account)
    yield made
    made.stop()


def address(contact: str) -> PushAddress:
    found = address_of(parse_uri(contact.encode()))
    assert found is not None
    return found


CALLS = address(f"sip:bob@192.0.2.1;pn-provider=apns;pn-param={TEAM}.{APP}.voip;pn-prid={TOKEN}")
BOTH = address(f"sip:bob@192.0.2.1;pn-provider=apns;pn-param={TEAM}.{APP}.remote&voip;pn-prid=cd:remote&ef:voip")
TEXTS = address(f"sip:bob@192.0.2.1;pn-provider=apns;pn-param={TEAM}.{APP};pn-prid={TOKEN}")


def push(to: PushAddress = CALLS, kind: Any = "call", **more: Any) -> Push:
    return Push("apns", to, kind, more.pop("ttl", 20.0), "sip:bob@example.com", **more)


def at_once(apns: Apns, pushes: Sequence[Push]) -> list[Any]:
    """What came of several pushes that are sent at the same time; errors as they are."""

    def one(push: Push) -> Any:
        try:
            return apns.send(push)
        except PushDown as down:
            return down

    jobs = [gevent.spawn(one, push) for push in pushes]
    gevent.joinall(jobs, timeout=30)
    return [job.value for job in jobs]


def until(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    end = monotonic() + seconds
    while not condition():
        assert monotonic() < end
        gevent.sleep(0.01)


# --- what is sent -----------------------------------------------------------------------------------------------------


def test_a_push_for_a_call(apns: Apns, server: ApnsServer, files: Path) -> None:
    said = {"call": "a@b", "from": "sip:alice@example.com", "display_name": "Alice", "room": 7}
    sent = apns.send(push(call="a@b", collapse="a@b", data=said))
    (request,) = server.requests
    assert sent == Pushed("sent", id=request.headers["apns-id"])
    headers = request.headers
    assert (headers[":method"], headers[":scheme"]) == ("POST", "https")
    assert headers[":path"] == f"/3/device/{TOKEN}"
    assert headers["apns-push-type"] == "voip"
    assert headers["apns-topic"] == f"{APP}.voip"
    assert headers["apns-priority"] == "10"
    assert headers["apns-collapse-id"] == "a@b"
    assert abs(int(headers["apns-expiration"]) - (time() + 20)) < 10
    assert request.json == {"aps": {"call-id": "a@b"}, "kind": "call", "aor": "sip:bob@example.com", **said}
    scheme, _, token = headers["authorization"].partition(" ")
    assert scheme == "bearer"
    key = load_pem_private_key((files / "AuthKey.p8").read_bytes(), None)
    claims = jwt.decode(token, key.public_key(), ["ES256"])  # type: ignore[arg-type]
    assert claims.keys() == {"iss", "iat"}
    assert claims["iss"] == TEAM
    assert abs(claims["iat"] - time()) < 60
    assert jwt.get_unverified_header(token) == {"alg": "ES256", "kid": "ABC123DEFG", "typ": "JWT"}


@pytest.mark.parametrize(
    ("to", "kind", "type", "topic", "priority", "token"),
    [
        (BOTH, "call", "voip", f"{APP}.voip", "10", "ef"),
        (BOTH, "message", "alert", APP, "10", "cd"),
        (BOTH, "cancel", "background", APP, "5", "cd"),
        (BOTH, "refresh", "background", APP, "5", "cd"),
        (BOTH, "request", "background", APP, "5", "cd"),
        (TEXTS, "call", "alert", APP, "10", TOKEN),
        (TEXTS, "message", "alert", APP, "10", TOKEN),
    ],
)
def test_each_kind_has_its_type(
    apns: Apns, server: ApnsServer, to: PushAddress, kind: str, type: str, topic: str, priority: str, token: str
) -> None:
    assert apns.send(push(to, kind, data={"from": "sip:a@b"})).outcome == "sent"
    (request,) = server.requests
    headers = request.headers
    found = headers["apns-push-type"], headers["apns-topic"], headers["apns-priority"], request.token
    assert found == (type, topic, priority, token)
    aps = {
        "voip": {},
        "alert": {"alert": {"title": "sip:a@b"}, "sound": "default"},
        "background": {"content-available": 1},
    }
    assert request.json["aps"] == aps[type]
    assert "apns-collapse-id" not in headers


@pytest.mark.parametrize("kind", ["message", "cancel", "refresh", "request"])
def test_a_phone_with_a_token_for_calls_only_gets_nothing_else(apns: Apns, server: ApnsServer, kind: str) -> None:
    failed = apns.send(push(CALLS, kind))
    assert failed.outcome == "failed"
    assert "pn-prid has only one for calls" in failed.reason
    assert server.requests == []


def test_the_sandbox_is_where_the_phone_says(apns: Apns, server: ApnsServer) -> None:
    apns.send(push(replace(CALLS, sandbox=True)))
    apns.send(push(CALLS))
    assert [r.headers[":authority"] for r in server.requests] == [
        f"localhost:{server.port}",
        f"127.0.0.1:{server.port}",
    ]


@pytest.mark.parametrize(
    ("host", "port", "authority", "name"),
    [
        ("api.push.apple.com", 443, "api.push.apple.com", "api.push.apple.com:443"),
        ("api.push.apple.com", 2197, "api.push.apple.com:2197", "api.push.apple.com:2197"),
        ("::1", 443, "[::1]", "[::1]:443"),
    ],
)
def test_the_authority_of_a_server(host: str, port: int, authority: str, name: str) -> None:
    client = h2_link.H2Client(host, port, lambda: 1 / 0, one_first=bool)  # type: ignore[arg-type, return-value]
    assert (client.authority, client.name) == (authority, name)


@pytest.mark.parametrize(("said", "host"), [("on", "localhost"), ("off", "127.0.0.1")])
def test_or_where_the_configuration_says(account: ApnsAccount, server: ApnsServer, said: str, host: str) -> None:
    apns = Apns(replace(account, sandbox=said))
    for sandbox in (True, False):
        one = push(replace(CALLS, sandbox=sandbox))
        apns.send(one)
        assert apns.server_of(one) == f"{host}:{server.port}"
    assert {r.headers[":authority"] for r in server.requests} == {f"{host}:{server.port}"}
    apns.stop()


def test_a_step_may_say_more(apns: Apns, server: ApnsServer) -> None:
    options = {
        "payload": {"aps": {"sound": "ring.caf"}, "x": [1]},
        "push_type": "alert",
        "topic": "com.example.other",
        "priority": 1,
    }
    assert apns.send(push(BOTH, options=options)).outcome == "sent"
    (request,) = server.requests
    assert request.json["aps"] == {"alert": {"title": "sip:bob@example.com"}, "sound": "ring.caf"}
    assert request.json["x"] == [1]
    assert (request.headers["apns-topic"], request.headers["apns-priority"]) == ("com.example.other", "1")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"soud": "x"}, "unknown option 'soud' for Apple: known are payload, push_type, topic, priority"),
        ({"payload": [1]}, "payload: is a map"),
        ({"payload": {"x": float("nan")}}, "the payload is no JSON"),
        ({"payload": {"x": object()}}, "the payload is no JSON"),
        ({"payload": {"x": "y" * 6000}}, "PayloadTooLarge"),
        ({"priority": 7}, "BadPriority"),
        ({"topic": "a b"}, "BadTopic"),
        ({"topic": "a\r\nx: y"}, "BadTopic"),
        ({"push_type": "a\nb"}, "InvalidPushType"),
    ],
)
def test_what_cannot_be_sent_fails_here(apns: Apns, server: ApnsServer, options: Mapping[str, Any], told: str) -> None:
    failed = apns.send(push(BOTH, "message", options=options))
    assert failed.outcome == "failed"
    assert failed.reason.startswith(told)
    assert server.requests == []


@pytest.mark.parametrize("token", ["../../4/x", "a b", "a\0b", "é", "x" * 201, "a?b", "a%0d%0a"])
def test_a_token_that_is_none_is_dead(apns: Apns, server: ApnsServer, token: str) -> None:
    assert apns.send(push(replace(CALLS, tokens={"voip": token}))) == Pushed("dead", "BadDeviceToken")
    assert server.requests == []


@pytest.mark.parametrize("app", ["", "a\r\nb: c", "x" * 200, "ü"])
def test_an_app_that_is_none_is_no_topic(apns: Apns, server: ApnsServer, app: str) -> None:
    failed = apns.send(push(replace(TEXTS, app=app), "message"))
    assert failed == Pushed("failed", "BadTopic")
    assert server.requests == []


def test_a_caller_with_a_long_name_keeps_nobody_asleep(apns: Apns, server: ApnsServer) -> None:
    said = {"from": "sip:" + "a" * 9000, "display_name": "🦊\udc80" * 9000}
    assert apns.send(push(BOTH, "message", data=said)).outcome == "sent"
    assert len(server.requests[0].body) <= 4096


@pytest.mark.parametrize("call", ["x" * 65, "a b", "é", "a\r\nb", ""])
def test_a_collapse_id_always_fits(call: str) -> None:
    made = collapse_id(call)
    assert len(made) == 64
    assert made.isascii()
    assert made == collapse_id(call)
    assert collapse_id("a" * 64) == "a" * 64


# --- what answers mean ------------------------------------------------------------------------------------------------

FAILED = [
    (400, "BadCollapseId"),
    (400, "BadExpirationDate"),
    (400, "BadMessageId"),
    (400, "BadPriority"),
    (400, "BadTopic"),
    (400, "DeviceTokenNotForTopic"),
    (400, "DuplicateHeaders"),
    (400, "InvalidPushType"),
    (400, "MissingDeviceToken"),
    (400, "MissingTopic"),
    (400, "PayloadEmpty"),
    (400, "TopicDisallowed"),
    (404, "BadPath"),
    (405, "MethodNotAllowed"),
    (413, "PayloadTooLarge"),
]


@pytest.mark.parametrize(("status", "said"), FAILED)
def test_answers_about_a_push(apns: Apns, server: ApnsServer, status: int, said: str) -> None:
    server.say = lambda request: reason(status, said)
    failed = apns.send(push())
    assert (failed.outcome, failed.reason) == ("failed", said)
    assert failed.id == server.requests[0].headers["apns-id"]


@pytest.mark.parametrize(
    ("reply", "since"),
    [
        (reason(400, "BadDeviceToken"), None),
        (reason(410, "Unregistered", timestamp=1454948015990), 1454948015.99),
        (reason(410, "ExpiredToken", timestamp=1454948015990), 1454948015.99),
        (reason(410, "Unregistered", timestamp="soon"), None),
        (reason(410, "Unregistered", timestamp=10**400), None),
        (reason(410, "Unregistered", timestamp=-(10**400)), None),
        (reason(410, "Unregistered", timestamp=float("inf")), None),
        (reason(410, "Unregistered", timestamp=float("nan")), None),
        (Reply(410), None),
    ],
)
def test_answers_about_a_phone_that_is_gone(apns: Apns, server: ApnsServer, reply: Reply, since: float | None) -> None:
    server.say = lambda request: reply
    dead = apns.send(push())
    assert (dead.outcome, dead.since) == ("dead", since)
    assert dead.reason == (json.loads(reply.body)["reason"] if reply.body else "410")


def test_too_many_to_one_phone_says_nothing_about_the_service(apns: Apns, server: ApnsServer) -> None:
    server.say = lambda request: reason(429, "TooManyRequests")
    assert apns.send(push()).reason == "429 TooManyRequests"


@pytest.mark.parametrize(
    ("reply", "told", "wait", "final"),
    [
        (reason(500, "InternalServerError"), "InternalServerError", None, False),
        (reason(503, "ServiceUnavailable", ("retry-after", "7")), "ServiceUnavailable", 7.0, False),
        (reason(503, "Shutdown"), "Shutdown", None, False),
        (Reply(502, b"<html>"), "502", None, False),
        (Reply(503, b"[]", (("retry-after", "Thu, 01 Jan 1970 00:00:00 GMT"),)), "503", 0.0, False),
        (Reply(503, b"", (("retry-after", "soon"),)), "503", None, False),
        (reason(429, "TooManyProviderTokenUpdates", ("retry-after", "9")), "TooManyProviderTokenUpdates", 9.0, False),
        (reason(400, "IdleTimeout"), "IdleTimeout", None, False),
        (reason(403, "BadCertificate"), "BadCertificate", None, True),
        (reason(403, "BadCertificateEnvironment"), "BadCertificateEnvironment", None, True),
        (reason(403, "Forbidden"), "Forbidden", None, True),
        (reason(403, "InvalidProviderToken"), "InvalidProviderToken", None, True),
        (reason(403, "MissingProviderToken"), "MissingProviderToken", None, True),
        (reason(403, "UnrelatedKeyIdInToken"), "UnrelatedKeyIdInToken", None, True),
        (reason(403, "BadEnvironmentKeyIdInToken"), "BadEnvironmentKeyIdInToken", None, True),
    ],
)
def test_answers_about_the_service_or_us(
    apns: Apns, server: ApnsServer, reply: Reply, told: str, wait: float | None, final: bool
) -> None:
    server.say = lambda request: reply
    with pytest.raises(PushDown) as down:
        apns.send(push())
    assert (down.value.reason, down.value.retry_after, down.value.final) == (told, wait, final)
    assert len(server.requests) == 1


# --- tokens -----------------------------------------------------------------------------------------------------------


class Clocks:
    def __init__(self) -> None:
        self.mono, self.wall = 100.0, time()

    def go(self, seconds: float) -> None:
        self.mono += seconds
        self.wall += seconds


@pytest.fixture
def clocks(apns: Apns) -> Clocks:
    made = Clocks()
    assert apns.tokens is not None
    apns.tokens._clock, apns.tokens._wall = lambda: made.mono, lambda: made.wall
    return made


def tokens(server: ApnsServer) -> list[str]:
    return [request.headers["authorization"] for request in server.requests]


def test_a_token_is_used_again_until_it_is_old(apns: Apns, server: ApnsServer, clocks: Clocks) -> None:
    for seconds in (0.0, RENEW - 1, 2.0, RENEW - 1):
        clocks.go(seconds)
        apns.send(push())
    one, two, three, four = tokens(server)
    assert one == two != three == four
    assert OFTEN < RENEW < 3600


def test_a_token_that_is_refused_is_made_anew_once(apns: Apns, server: ApnsServer, clocks: Clocks) -> None:
    apns.send(push())
    clocks.go(OFTEN + 1)
    old = tokens(server)[0]
    server.say = lambda r: reason(403, "ExpiredProviderToken") if r.headers["authorization"] == old else Reply()
    assert apns.send(push()).outcome == "sent"
    assert apns.tokens is not None
    assert (len(server.requests), apns.tokens.made) == (3, 2)


def test_many_pushes_with_a_refused_token_make_one_new(apns: Apns, server: ApnsServer, clocks: Clocks) -> None:
    apns.send(push())
    clocks.go(OFTEN + 1)
    old = tokens(server)[0]
    server.say = lambda r: reason(403, "ExpiredProviderToken") if r.headers["authorization"] == old else Reply()
    assert {each.outcome for each in at_once(apns, [push()] * 20)} == {"sent"}
    assert apns.tokens is not None
    assert apns.tokens.made == 2


def test_no_token_is_made_too_soon_after_another(apns: Apns, server: ApnsServer, clocks: Clocks) -> None:
    server.say = lambda request: reason(403, "ExpiredProviderToken")
    for _ in range(3):
        with pytest.raises(PushDown, match="ExpiredProviderToken"):
            apns.send(push())
    assert apns.tokens is not None
    assert (apns.tokens.made, len(server.requests)) == (1, 3)


@pytest.mark.parametrize("jump", [-86_400.0, 86_400.0])
def test_but_at_once_when_the_clock_was_set(apns: Apns, server: ApnsServer, clocks: Clocks, jump: float) -> None:
    apns.send(push())
    old = tokens(server)[0]
    clocks.wall += jump
    server.say = lambda r: reason(403, "InvalidProviderToken") if r.headers["authorization"] == old else Reply()
    assert apns.send(push()).outcome == "sent"
    assert apns.tokens is not None
    assert apns.tokens.made == 2


def test_a_clock_that_jumps_makes_no_token_by_itself(apns: Apns, server: ApnsServer, clocks: Clocks) -> None:
    for jump in (0.0, 1e6, -2e6, 3600.0):
        clocks.wall += jump
        apns.send(push())
    assert len(set(tokens(server))) == 1


# --- connections ------------------------------------------------------------------------------------------------------


def test_one_connection_serves_all(apns: Apns, server: ApnsServer) -> None:
    for _ in range(3):
        assert {each.outcome for each in at_once(apns, [push()] * 50)} == {"sent"}
    assert (len(server.connections), len(server.requests)) == (1, 150)


def test_one_push_goes_first_until_a_token_was_taken(apns: Apns, server: ApnsServer) -> None:
    held: list[Request] = []

    def say(request: Request) -> Any:
        if len(server.requests) <= 2:
            held.append(request)
            return STALL
        return Reply()

    server.say = say
    jobs = [gevent.spawn(at_once, apns, [push()]) for _ in range(10)]
    until(lambda: held)
    gevent.sleep(0.05)
    assert len(server.requests) == 1, "the others wait"
    held[0].connection.reply(held[0], reason(403, "MissingProviderToken"))
    until(lambda: len(held) == 2)
    gevent.sleep(0.05)
    assert len(server.requests) == 2, "still"
    held[1].connection.reply(held[1], Reply())
    gevent.joinall(jobs, timeout=20)
    assert [job.value[0].outcome for job in jobs if isinstance(job.value[0], Pushed)] == ["sent"] * 9
    assert len(server.connections) == 1


def test_no_more_at_a_time_than_the_server_allows(apns: Apns, server: ApnsServer) -> None:
    server.streams = 3
    assert {each.outcome for each in at_once(apns, [push()] * 30)} == {"sent"}
    assert server.connections[0].most <= 3
    server.say = lambda request: STALL
    jobs = [gevent.spawn(at_once, apns, [push()]) for _ in range(8)]
    until(lambda: len(server.connections[0].open) == 3)
    server.connections[0].more_streams(6)
    until(lambda: len(server.connections[0].open) == 6)
    server.say = lambda request: Reply()
    for request in list(server.connections[0].open.values()):
        request.connection.reply(request, Reply())
    gevent.joinall(jobs, timeout=20)
    assert {job.value[0].outcome for job in jobs} == {"sent"}


def test_bodies_wait_for_the_window(apns: Apns, server: ApnsServer) -> None:
    server.window, server.consume = 1_000, False
    job = gevent.spawn(at_once, apns, [push(data={"text": "x" * 4_000})])
    until(lambda: server.connections and any(r.body for r in server.connections[0].open.values()))
    (request,) = server.connections[0].open.values()
    assert len(request.body) == 1_000
    assert server.requests == []
    server.connections[0].give_window(request, 500)
    until(lambda: len(request.body) == 1_500)
    server.connections[0].give_window(request, 9_000)
    job.join(timeout=20)
    assert job.value[0].outcome == "sent"
    assert server.requests[0].json["text"] == "x" * 4_000


def test_after_goaway_what_was_not_taken_goes_out_again(apns: Apns, server: ApnsServer) -> None:
    apns.send(push())
    server.say = lambda request: STALL if request.connection.number == 1 else Reply()
    jobs = [gevent.spawn(at_once, apns, [push()]) for _ in range(10)]
    until(lambda: len(server.connections[0].open) == 10)
    first = server.connections[0]
    last = sorted(first.open)[5]
    taken = [request for stream, request in first.open.items() if stream <= last]
    first.go_away(last)
    until(lambda: len(server.requests) == 15)
    assert [request.connection.number for request in server.requests[11:]] == [2] * 4
    for request in taken:
        first.reply(request, Reply())
    gevent.joinall(jobs, timeout=20)
    assert {job.value[0].outcome for job in jobs} == {"sent"}
    until(lambda: first.closed)
    assert len({request.headers["apns-id"] for request in server.requests}) == 11, "each push has one id"


def test_goaway_again_and_again_loses_and_doubles_nothing(apns: Apns, server: ApnsServer) -> None:
    """A server that goes away after each 40 pushes, and looks at none above its last stream."""
    last: dict[int, int] = {}
    handled: list[str] = []

    def say(request: Request) -> Any:
        connection = request.connection
        if request.stream > last.get(connection.number, 2**31):
            return STALL
        handled.append(request.headers["apns-id"])
        if len(handled) % 40 == 0:
            last[connection.number] = request.stream
            connection.go_away(request.stream)
        return Reply()

    server.say = say
    found: list[Any] = []
    for _ in range(4):
        found += at_once(apns, [push()] * 60)
    assert {each.outcome for each in found} == {"sent"}
    assert len(handled) == len(set(handled)) == 240
    assert len(server.connections) == 6


def test_goaway_and_answers_in_one_piece(apns: Apns, server: ApnsServer) -> None:
    """h2 takes no frames after GOAWAY; what it answered before counts."""
    apns.send(push())

    def say(request: Request) -> Any:
        if request.connection.number == 1:
            connection = request.connection
            connection.h2.send_headers(request.stream, [(":status", "200"), ("apns-id", "7")], end_stream=True)
            answer = connection.h2.data_to_send()
            payload = request.stream.to_bytes(4) + bytes(4) + b'{"reason":"Shutdown"}'
            connection._socket.sendall(len(payload).to_bytes(3) + b"\x07\x00" + bytes(4) + payload + answer)
            connection.open.clear()
            return STALL
        return Reply()

    server.say = say
    assert apns.send(push()) == Pushed("sent", id="7")
    assert apns.send(push()).outcome == "sent"
    assert len(server.connections) == 2


def test_a_server_that_only_says_goodbye_fails_the_push(apns: Apns, server: ApnsServer) -> None:
    def say(request: Request) -> Any:
        request.connection.go_away(0, b'{"reason":"BadCertificate"}')
        return STALL

    server.say = say
    with pytest.raises(PushDown, match="BadCertificate"):
        apns.send(push())
    assert len(server.connections) == h2_link.AGAIN


def test_a_refused_stream_goes_out_again_and_a_reset_one_fails(apns: Apns, server: ApnsServer) -> None:
    says = [REFUSE, Reply(), RESET]
    server.say = lambda request: says.pop(0)
    assert apns.send(push()).outcome == "sent"
    with pytest.raises(PushDown, match="INTERNAL_ERROR"):
        apns.send(push())
    assert len(server.connections) == 1


def test_a_connection_that_breaks_off_fails_what_was_under_way(apns: Apns, server: ApnsServer) -> None:
    says: list[Any] = [Reply(), DROP, Reply()]
    server.say = lambda request: says.pop(0)
    apns.send(push())
    with pytest.raises(PushDown, match="closed the connection"):
        apns.send(push())
    assert apns.send(push()).outcome == "sent"
    assert len(server.connections) == 2


def test_nobody_listens(account: ApnsAccount, server: ApnsServer) -> None:
    server.close()
    apns = Apns(account)
    with pytest.raises(PushDown, match=r"^127.0.0.1:[0-9]+: .*refused"):
        apns.send(push())
    apns.stop()


def test_a_server_that_nobody_vouches_for(account: ApnsAccount, server: ApnsServer) -> None:
    apns = Apns(replace(account, ca=None))
    with pytest.raises(PushDown, match="certificate verify failed"):
        apns.send(push())
    apns.stop()


def test_a_server_that_speaks_something_else(apns: Apns, server: ApnsServer) -> None:
    server.context.set_alpn_protocols(["http/1.1"])
    with pytest.raises(PushDown, match=r"does not speak HTTP/2|alert"):
        apns.send(push())


def test_a_server_that_says_nothing(apns: Apns, server: ApnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h2_link, "CONNECT", 0.3)
    server.silent = True
    with pytest.raises(PushDown, match=r"no connection within 0\.3 s"):
        apns.send(push())


@pytest.mark.parametrize(
    "octets",
    [
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
        b"\xff" * 70_000,
        bytes(9) * 100,
        b"\x00\x00\x01\x04\x00\x00\x00\x00\x00x",  # SETTINGS of one octet
        b"\x00\x00\x04\x08\x00\x00\x00\x00\x00" + bytes(4),  # WINDOW_UPDATE of 0
        b"\x00\x00\x05\x01\x04\x00\x00\x00\x01" + b"\x88" * 5,  # HEADERS on a stream that is not open
    ],
)
def test_a_server_that_talks_nonsense(apns: Apns, server: ApnsServer, octets: bytes) -> None:
    server.says_first = octets
    with pytest.raises(PushDown):
        apns.send(push())
    server.says_first = b""
    assert apns.send(push()).outcome == "sent"


def test_nonsense_in_the_middle(apns: Apns, server: ApnsServer) -> None:
    apns.send(push())

    def say(request: Request) -> Any:
        request.connection._socket.sendall(b"\x00\x00\x01\x04\x00\x00\x00\x00\x00x")
        return STALL

    server.say = say
    with pytest.raises(PushDown):
        apns.send(push())
    server.say = lambda request: Reply()
    assert apns.send(push()).outcome == "sent"


def _frame(kind: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, 0]) + stream.to_bytes(4) + payload


@pytest.mark.parametrize(
    "frame",
    [_frame(4, 0, b"\0\4\0\0\0\1"), _frame(6, 0, bytes(8)), _frame(8, 0, b"\0\0\0\1")],
    ids=["SETTINGS", "PING", "WINDOW_UPDATE"],
)
def test_a_server_that_sends_frames_and_no_answers_is_left(apns: Apns, server: ApnsServer, frame: bytes) -> None:
    """RFC 9113 §10.5: each of them costs us more than it costs the server."""
    server.says_first = b""
    apns.send(push())

    def floods(request: Request) -> Any:
        request.connection._socket.sendall(frame * 6_000)
        return STALL

    server.say = floods
    with pytest.raises(PushDown, match="frames and no answers"):
        apns.send(push())
    server.say = lambda request: Reply()
    assert apns.send(push()).outcome == "sent"


def test_a_window_that_opens_a_little_is_no_work_for_those_it_is_not_for(apns: Apns, server: ApnsServer) -> None:
    """1,000 bodies wait for the window of the connection; each update lets one octet go, and asks one of them."""
    link = h2_link.Link(("127.0.0.1", 9), ssl_context_of_nobody, lambda status: False, lambda link: None)
    link._h2.initiate_connection()
    link._one_first = None
    link._receive(_frame(4, 0, b"\0\3\0\0\x27\x10"))
    headers = [(":method", "POST"), (":path", "/"), (":scheme", "https"), (":authority", "a")]
    link._waiting.extend(h2_link._Exchange(headers, b"x" * 1_000) for _ in range(1_000))
    link._pump()
    asked: list[Any] = []
    send = link._send_body

    def counted(one: Any) -> None:
        asked.append(one)
        send(one)

    link._send_body = counted  # type: ignore[method-assign]
    link._receive(_frame(8, 0, b"\0\0\0\1") * 100)
    assert 100 <= len(asked) <= 300
    link.end("over", h2_link.LinkDown)


def ssl_context_of_nobody() -> Any:
    raise OSError("nobody connects")


def test_goaway_that_is_too_short(apns: Apns, server: ApnsServer) -> None:
    apns.send(push())
    server.connections[0]._socket.sendall(b"\x00\x00\x00\x07\x00" + bytes(4))
    assert apns.send(push()).outcome == "sent"


def test_a_body_that_no_json_reader_survives(apns: Apns, server: ApnsServer) -> None:
    server.say = lambda request: Reply(400, b"[" * 4_000)
    assert apns.send(push()).reason == "400"
    server.say = lambda request: Reply(400, b'{"reason": "a\\nb\\u0000c"}')
    assert apns.send(push()).reason == "a b c"


def test_a_path_that_is_lost_is_found_out(apns: Apns, server: ApnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h2_link, "STALL", 0.2)
    apns.send(push())
    server.connections[0].frozen = True
    with pytest.raises(PushDown, match="does not answer"):
        apns.send(push())
    assert apns.send(push()).outcome == "sent"
    assert len(server.connections) == 2


def test_a_server_that_answers_pings_and_no_requests_is_left(
    apns: Apns, server: ApnsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One machine behind Apple's balancer hangs: the next connection leads to another one."""
    monkeypatch.setattr(h2_link, "STALL", 0.1)
    apns.send(push())
    server.say = lambda request: STALL if request.connection.number == 1 else Reply()
    with gevent.Timeout(0.3, False):
        apns.send(push())
    assert server.connections[0].pings
    assert apns.send(push()).outcome == "sent"
    assert len(server.connections) == 2
    until(lambda: server.connections[0].closed)


def test_a_quiet_connection_is_asked_with_the_next_push(
    apns: Apns, server: ApnsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(h2_link, "STALL", 0.2)
    apns.send(push())
    monkeypatch.setattr(h2_link, "QUIET", 0.0)
    apns.send(push())
    until(lambda: server.connections[0].pings == 1)
    assert apns.send(push()).outcome == "sent"
    assert len(server.connections) == 1


def test_an_idle_connection_is_kept_open(apns: Apns, server: ApnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h2_link, "STALL", 0.1)
    monkeypatch.setattr(h2_link, "IDLE", 0.05)
    apns.send(push())
    until(lambda: server.connections[0].pings >= 3)
    assert apns.send(push()).outcome == "sent"
    assert len(server.connections) == 1


def test_a_push_that_is_given_up_leaves_nothing(apns: Apns, server: ApnsServer) -> None:
    apns.send(push())
    server.say = lambda request: STALL
    for _ in range(3):
        with gevent.Timeout(0.05, False):
            apns.send(push())
    until(lambda: server.connections[0].resets == 3)
    link = apns.clients[False]._link
    assert link is not None
    assert (link._streams, list(link._waiting), link._blocked) == ({}, [], set())
    server.say = lambda request: Reply()
    assert apns.send(push()).outcome == "sent"
    assert len(server.connections) == 1


def test_answers_of_any_length_are_read(apns: Apns, server: ApnsServer) -> None:
    server.say = lambda request: Reply(400, b'{"reason": "Bad' + b"x" * 30_000)
    for _ in range(3):
        assert apns.send(push()).reason == "400"


def test_streams_that_run_out_make_a_new_connection(
    apns: Apns, server: ApnsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(h2_link, "LAST_STREAM", 5)
    for _ in range(7):
        assert apns.send(push()).outcome == "sent"
    assert len(server.connections) == 3
    until(lambda: server.connections[0].closed)


def test_the_end_ends_all(apns: Apns, server: ApnsServer) -> None:
    apns.send(push())
    server.say = lambda request: STALL
    job = gevent.spawn(at_once, apns, [push()])
    until(lambda: len(server.requests) == 2)
    apns.stop()
    job.join(timeout=10)
    assert job.value[0].reason == f"127.0.0.1:{server.port}: closed"
    until(lambda: server.connections[0].closed)


# --- with its supervisor ----------------------------------------------------------------------------------------------


def test_from_the_configuration_to_the_answer(files: Path, server: ApnsServer) -> None:
    """A push that nobody answers goes out again; of those that are sent at the same time each has its answer."""
    text = (
        f"push: {{services: {{apns: {{key: {files}/AuthKey.p8, key_id: ABC123DEFG, team: {TEAM}, ca: {files}/ca.pem,"
        f" host: '127.0.0.1:{server.port}', timeout: 1s}}}}}}"
    )
    answers: dict[int, Any] = {}
    pushes = Pushes(read_settings("o.yml", text, {}).push.services.values(), answers.__setitem__)
    pushes.start()
    says: list[Any] = [Reply(), STALL, DROP, reason(503, "ServiceUnavailable"), reason(410, "Unregistered")]
    server.say = lambda request: says.pop(0) if says else Reply()
    pushes.submit(0, push())
    until(lambda: answers)
    for job in range(1, 30):
        pushes.submit(job, push())
    until(lambda: len(answers) == 30)
    assert sorted(pushed.outcome for pushed in answers.values()) == ["dead", *["sent"] * 29]
    supervisor = pushes.supervisors["apns"]
    assert supervisor.outcomes == {"sent": 29, "dead": 1}
    assert supervisor.retries >= 3
    assert pushes.trouble == ""
    pushes.close()
