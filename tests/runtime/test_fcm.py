"""Firebase Cloud Messaging against an HTTP server on loopback that is both FCM and Google's token endpoint.

The answers are those of https://firebase.google.com/docs/cloud-messaging/error-codes, and such as FCM gives besides.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import gevent
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import SecretStr
from web import Exchange, Web, answer, drop, web

from orchestrator.packages.push_service import PushDown
from orchestrator.push.fcm import Fcm, FcmAccount, message_of
from orchestrator.push.service_account import UnusableAccount, read_account
from orchestrator.sip.push import Push, PushAddress, Pushed

START = 1_800_000_000.0
"""Now, in seconds since the epoch."""
FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"

Behaviour = Callable[[Exchange, Any], None]


@cache
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def pem(private: Any) -> str:
    return str(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())


def account(**changes: Any) -> str:
    said = {
        "type": "service_account",
        "project_id": "phones-1",
        "private_key_id": "k1",
        "private_key": pem(key()),
        "client_email": "pusher@phones-1.iam.gserviceaccount.com",
        "token_uri": "https://oauth2.googleapis.com/token",
    }
    return json.dumps({name: value for name, value in (said | changes).items() if value is not None})


def push(**changes: Any) -> Push:
    values: dict[str, Any] = {
        "service": "fcm",
        "address": PushAddress("fcm", "123", "d:APA91b", app="123", tokens={"": "d:APA91b"}),
        "kind": "call",
        "ttl": 19.2,
        "aor": "bob@example.com",
        "call": "c1",
        "collapse": "c1",
        "data": {"call": "c1", "from": "sip:alice@example.com", "display_name": "Alice"},
    }
    return Push(**values | changes)


def error(status: int, state: str, code: str = "", message: str = "", *violations: str, **headers: str) -> Behaviour:
    details: list[Any] = [{"@type": FCM_ERROR, "errorCode": code}] if code else []
    if violations:
        details.append({"@type": BAD_REQUEST, "fieldViolations": [{"field": name} for name in violations]})
    said = {"error": {"code": status, "message": message, "status": state, "details": details}}
    return answer(status, json.dumps(said).encode(), content_type="application/json", **headers)


SENT = answer(200, b'{"name": "projects/phones-1/messages/0:15%25abc"}', content_type="application/json")


@dataclass
class Google:
    """FCM, with answers in turn, and the token endpoint."""

    fcm: list[Behaviour] = field(default_factory=list)
    tokens: list[Behaviour] = field(default_factory=list)
    life: int = 3599
    handed_out: int = 0
    served: Web = field(init=False)

    def __call__(self, exchange: Exchange, sock: Any) -> None:
        if exchange.target != "/token":
            (self.fcm.pop(0) if self.fcm else SENT)(exchange, sock)
        elif self.tokens:
            self.tokens.pop(0)(exchange, sock)
        else:
            self.handed_out += 1
            said = {"access_token": f"ya29.{self.handed_out}", "expires_in": self.life, "token_type": "Bearer"}
            answer(200, json.dumps(said).encode(), content_type="application/json")(exchange, sock)

    def asked(self, target: str) -> list[Exchange]:
        return [exchange for exchange in self.served.exchanges if exchange.target == target]

    @property
    def pushes(self) -> list[Exchange]:
        return self.asked("/v1/projects/phones-1/messages:send")


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def google() -> Iterator[Google]:
    google = Google()
    with web(google) as google.served:
        yield google


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def fcm(google: Google, clock: Clock) -> Iterator[Fcm]:
    said = account(token_uri=google.served.url + "/token")
    fcm = Fcm(FcmAccount(SecretStr(said), google.served.url), clock=clock, wall=lambda: START)
    fcm.start()
    yield fcm
    fcm.stop()


def down(fcm: Fcm) -> PushDown:
    with pytest.raises(PushDown) as caught:
        fcm.send(push())
    return caught.value


# --- what is sent -----------------------------------------------------------------------------------------------------


def test_a_push_is_a_data_message_of_high_priority(fcm: Fcm, google: Google) -> None:
    assert fcm.send(push()) == Pushed("sent", id="0:15%25abc")
    (exchange,) = google.pushes
    assert exchange.method == "POST"
    assert exchange.headers["authorization"] == "Bearer ya29.1"
    assert exchange.headers["content-type"] == "application/json"
    assert json.loads(exchange.body) == {
        "message": {
            "token": "d:APA91b",
            "data": {
                "kind": "call",
                "aor": "bob@example.com",
                "call": "c1",
                "call-id": "c1",
                "sip_from": "sip:alice@example.com",
                "display_name": "Alice",
            },
            "android": {"priority": "high", "ttl": "20s", "collapse_key": "c1"},
        }
    }


def test_the_token_is_asked_for_with_a_jwt_of_the_account(fcm: Fcm, google: Google) -> None:
    fcm.send(push())
    (exchange,) = google.asked("/token")
    form = {name: value for name, (value,) in parse_qs(exchange.body.decode()).items()}
    assert exchange.headers["content-type"] == "application/x-www-form-urlencoded"
    assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    assert jwt.get_unverified_header(form["assertion"]) == {"alg": "RS256", "typ": "JWT", "kid": "k1"}
    claims = jwt.decode(
        form["assertion"],
        key().public_key(),
        algorithms=["RS256"],
        audience=google.served.url + "/token",
        options={"verify_iat": False, "verify_exp": False},
    )
    assert claims == {
        "iss": "pusher@phones-1.iam.gserviceaccount.com",
        "scope": "https://www.googleapis.com/auth/firebase.messaging",
        "aud": google.served.url + "/token",
        "iat": START,
        "exp": START + 3600,
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [("x", "x"), (7, "7"), (True, "true"), (None, ""), ({"a": (1, "ü")}, '{"a": [1, "\\u00fc"]}'), ([1.5], "[1.5]")],
)
def test_values_are_texts(value: Any, text: str) -> None:
    assert message_of(push(data={"n": value}))["data"]["n"] == text


@pytest.mark.parametrize("name", ["from", "message_type", "gcm", "gcm.x", "google", "google.a", "googlex"])
def test_names_that_fcm_keeps_for_itself_are_written_otherwise(name: str) -> None:
    """FCM refuses the whole message with 400 (reference of `Message.data`)."""
    data = message_of(push(data={name: "1"}, call=""))["data"]
    assert data == {"kind": "call", "aor": "bob@example.com", f"sip_{name}": "1"}


def test_what_the_step_says_goes_over_what_we_say_map_by_map() -> None:
    options = {
        "android": {"priority": "normal", "notification": {"title": "Hi"}},
        "apns": {"headers": {"apns-priority": "5"}},
        "data": {"from": 7},
        "token": "of-somebody-else",
        "topic": "all",
        "condition": "'all' in topics",
    }
    assert message_of(push(collapse="", ttl=-1.0, options=options, data={}, call="")) == {
        "token": "d:APA91b",
        "data": {"kind": "call", "aor": "bob@example.com", "sip_from": "7"},
        "android": {"priority": "normal", "ttl": "0s", "notification": {"title": "Hi"}},
        "apns": {"headers": {"apns-priority": "5"}},
    }


def test_a_ttl_of_months_is_four_weeks() -> None:
    assert message_of(push(ttl=1e9))["android"]["ttl"] == "2419200s"


def test_a_project_in_the_url_is_one_segment(google: Google) -> None:
    said = account(token_uri=google.served.url + "/token", project_id="example.com:a/b")
    fcm = Fcm(FcmAccount(SecretStr(said), google.served.url + "/emulator/"))
    fcm.send(push())
    assert google.served.exchanges[-1].target == "/emulator/v1/projects/example.com%3Aa%2Fb/messages:send"
    fcm.stop()


# --- what comes back --------------------------------------------------------------------------------------------------

NOT_VALID = "The registration token is not a valid FCM registration token"


@pytest.mark.parametrize(
    ("said", "pushed"),
    [
        (error(404, "NOT_FOUND", "UNREGISTERED", "Requested entity was not found."), ("dead", "404 UNREGISTERED")),
        (error(403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH"), ("dead", "403 SENDER_ID_MISMATCH")),
        (
            error(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", NOT_VALID),
            ("dead", f"400 INVALID_ARGUMENT: {NOT_VALID}"),
        ),
        (
            error(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", "An invalid argument.", "message.token"),
            ("dead", "400 INVALID_ARGUMENT: An invalid argument."),
        ),
        (
            error(400, "INVALID_ARGUMENT", "", "Invalid value", "message.data[0].value"),
            ("failed", "400 INVALID_ARGUMENT: Invalid value"),
        ),
        (
            error(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", "Two things", "message.token", "message.android.ttl"),
            ("failed", "400 INVALID_ARGUMENT: Two things"),
        ),
        (
            error(400, "INVALID_ARGUMENT", "", "Request contains an invalid argument."),  # a payload that is too large
            ("failed", "400 INVALID_ARGUMENT: Request contains an invalid argument."),
        ),
        (answer(400, b"<html>"), ("failed", "400")),
    ],
)
def test_answers_about_the_phone(fcm: Fcm, google: Google, said: Behaviour, pushed: tuple[Any, str]) -> None:
    google.fcm = [said]
    assert fcm.send(push()) == Pushed(*pushed)
    assert len(google.pushes) == 1


@pytest.mark.parametrize(
    ("said", "reason", "retry_after", "final"),
    [
        (error(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", retry_after="30"), "429 QUOTA_EXCEEDED", 30.0, False),
        (error(503, "UNAVAILABLE", "UNAVAILABLE", retry_after="7"), "503 UNAVAILABLE", 7.0, False),
        (error(503, "UNAVAILABLE", "UNAVAILABLE"), "503 UNAVAILABLE", None, False),
        (error(503, "UNAVAILABLE", retry_after="Fri, 15 Jan 2027 08:00:20 GMT"), "503 UNAVAILABLE", 20.0, False),
        (error(503, "UNAVAILABLE", retry_after="Fri, 15 Jan 2027 07:00:00 GMT"), "503 UNAVAILABLE", 0.0, False),
        (error(503, "UNAVAILABLE", retry_after="99999999999999999999"), "503 UNAVAILABLE", 3600.0, False),
        (error(503, "UNAVAILABLE", retry_after="soon"), "503 UNAVAILABLE", None, False),
        (error(500, "INTERNAL", "INTERNAL"), "500 INTERNAL", None, False),
        (answer(502, b"<!DOCTYPE html>"), "502", None, False),
        (answer(302, location="http://169.254.169.254/"), "302", None, True),
        (error(403, "PERMISSION_DENIED", "", "The API is disabled"), "403 PERMISSION_DENIED: The API is disabled", None, True),  # noqa: E501
        (error(404, "NOT_FOUND", "", "No such project"), "404 NOT_FOUND: No such project", None, True),
        (answer(404, b"<html>"), "404", None, True),
    ],
)  # fmt: skip
def test_answers_about_the_service(
    fcm: Fcm, google: Google, said: Behaviour, reason: str, retry_after: float | None, final: bool
) -> None:
    """The project is wrong, not the phone: no binding may go for it."""
    google.fcm = [said]
    found = down(fcm)
    assert (found.reason, found.retry_after, found.final) == (reason, retry_after, final)
    assert (len(google.pushes), google.handed_out) == (1, 1)


def quota(message: str, *violations: str) -> Behaviour:
    details = [
        {"@type": FCM_ERROR, "errorCode": "QUOTA_EXCEEDED"},
        {
            "@type": "type.googleapis.com/google.rpc.QuotaFailure",
            "violations": [{"description": v} for v in violations],
        },
    ]
    said = {"error": {"code": 429, "message": message, "status": "RESOURCE_EXHAUSTED", "details": details}}
    return answer(429, json.dumps(said).encode(), content_type="application/json", retry_after="60")


@pytest.mark.parametrize(
    ("said", "of_phone"),
    [
        (quota("Device message rate exceeded"), True),
        (quota("Resource has been exhausted.", "Device message rate limit exceeded"), True),
        (quota("Resource has been exhausted.", "Topic message rate"), False),
        (quota("Quota exceeded for 'Send requests per minute' of consumer 'project_number:1'", "device"), False),
        (quota(""), False),
    ],
)
def test_too_many_pushes_to_one_phone_stop_no_others(fcm: Fcm, google: Google, said: Behaviour, of_phone: bool) -> None:
    google.fcm = [said]
    if of_phone:
        assert fcm.send(push()) == Pushed("failed", "429 QUOTA_EXCEEDED")
    else:
        assert down(fcm).retry_after == 60.0


def test_an_iphone_behind_firebase_takes_no_android_phone_with_it(fcm: Fcm, google: Google) -> None:
    """The project's key for Apple is wrong: that is no failure of Firebase, whose circuit stays closed."""
    google.fcm = [error(401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR", "x")]
    assert fcm.send(push()) == Pushed("failed", "401 THIRD_PARTY_AUTH_ERROR: x")
    assert (len(google.pushes), google.handed_out) == (1, 1)


def test_a_connection_that_breaks_says_nothing_about_the_phone(fcm: Fcm, google: Google) -> None:
    google.fcm = [drop]
    assert not down(fcm).final
    assert fcm.send(push()).outcome == "sent"


@pytest.mark.parametrize("body", [b"[]", b'{"error": 5}', b'{"error": {"details": 5}}', b'{"error": {"details": [5]}}'])
def test_answers_of_another_shape(fcm: Fcm, google: Google, body: bytes) -> None:
    google.fcm = [answer(400, body), answer(404, body), answer(200, body)]
    assert fcm.send(push()) == Pushed("failed", "400")
    assert down(fcm).reason == "404"
    assert fcm.send(push()) == Pushed("sent")


def test_what_the_service_says_is_one_short_line(fcm: Fcm, google: Google) -> None:
    google.fcm = [error(400, "INVALID_ARGUMENT", "", "a\r\n\x1b[31m" + "x" * 5_000)]
    reason = fcm.send(push()).reason
    assert reason.isprintable() and len(reason) < 300


# --- access tokens ----------------------------------------------------------------------------------------------------


def test_a_token_is_used_until_shortly_before_its_end(fcm: Fcm, google: Google, clock: Clock) -> None:
    fcm.send(push())
    clock.now += 3599 - 301
    fcm.send(push())
    assert google.handed_out == 1
    clock.now += 2
    fcm.send(push())
    assert google.handed_out == 2
    assert [exchange.headers["authorization"] for exchange in google.pushes] == [
        "Bearer ya29.1",
        "Bearer ya29.1",
        "Bearer ya29.2",
    ]


def test_a_token_of_a_short_life_is_used_for_half_of_it(fcm: Fcm, google: Google, clock: Clock) -> None:
    google.life = 60
    for passed in (0.0, 29.0, 2.0):
        clock.now += passed
        fcm.send(push())
    assert google.handed_out == 2


def test_401_gets_a_new_token_once(fcm: Fcm, google: Google) -> None:
    google.fcm = [error(401, "UNAUTHENTICATED")]
    assert fcm.send(push()).outcome == "sent"
    assert [exchange.headers["authorization"] for exchange in google.pushes] == ["Bearer ya29.1", "Bearer ya29.2"]
    google.fcm = [error(401, "UNAUTHENTICATED", "", "no"), error(401, "UNAUTHENTICATED", "", "no")]
    found = down(fcm)
    assert (found.reason, found.final) == ("401 UNAUTHENTICATED: no", True)
    assert len(google.pushes) == 4


def test_many_pushes_ask_for_one_token(fcm: Fcm, google: Google) -> None:
    jobs = [gevent.spawn(fcm.send, push()) for _ in range(20)]
    gevent.joinall(jobs, timeout=60, raise_error=True)
    assert [job.value.outcome for job in jobs] == ["sent"] * 20
    assert google.handed_out == 1


def test_a_token_that_cannot_be_renewed_is_used_to_its_end(fcm: Fcm, google: Google, clock: Clock) -> None:
    fcm.send(push())
    clock.now += 3400
    google.tokens = [answer(503, retry_after="20"), answer(503)]
    assert fcm.send(push()).outcome == "sent"
    clock.now += 19
    assert fcm.send(push()).outcome == "sent"
    assert len(google.asked("/token")) == 2
    clock.now += 2
    assert fcm.send(push()).outcome == "sent"
    assert len(google.asked("/token")) == 3
    clock.now += 6
    fcm.send(push())
    assert google.handed_out == 2


def test_a_token_endpoint_that_hangs_holds_up_one_push_while_the_token_is_good(
    fcm: Fcm, google: Google, clock: Clock
) -> None:
    fcm.send(push())
    clock.now += 3400
    google.tokens = [lambda exchange, sock: gevent.sleep(1)] * 2
    with gevent.Timeout(0.05, False):
        fcm.send(push())
    for _ in range(3):
        assert fcm.send(push()).outcome == "sent"
    assert len(google.asked("/token")) == 2
    clock.now += 5
    google.tokens = []
    assert fcm.send(push()).outcome == "sent"
    assert google.handed_out == 2


@pytest.mark.parametrize("life", [10**400, -(10**400), 1e308, True, "soon", None])
def test_a_life_of_a_token_that_is_none(fcm: Fcm, google: Google, life: Any) -> None:
    google.life = life
    assert fcm.send(push()).outcome == "sent"


REFUSED = answer(
    400,
    b'{"error": "invalid_grant", "error_description": "Invalid JWT Signature."}',
    content_type="application/json",
)


@pytest.mark.parametrize(
    ("said", "reason", "final"),
    [
        (REFUSED, "token: 400 invalid_grant Invalid JWT Signature.", True),
        (answer(503, b"sorry"), "token: 503", False),
        (answer(429), "token: 429", False),
        (answer(200, b"{}"), "token: the answer has none", True),
        (answer(200, b'{"access_token": "a\\r\\nb"}'), "token: the answer has none", True),
    ],
)
def test_without_a_token_nothing_is_sent(fcm: Fcm, google: Google, said: Behaviour, reason: str, final: bool) -> None:
    google.tokens = [said]
    found = down(fcm)
    assert (found.reason, found.final) == (reason, final)
    assert not google.pushes


def test_the_token_endpoint_is_left_alone_for_a_while(fcm: Fcm, google: Google, clock: Clock) -> None:
    google.tokens = [REFUSED]
    first = down(fcm)
    second = down(fcm)
    assert second.reason == first.reason and second is not first
    assert len(google.asked("/token")) == 1
    clock.now += 5
    assert fcm.send(push()).outcome == "sent"


# --- the account ------------------------------------------------------------------------------------------------------


def test_an_account_is_read_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "account.json"
    file.write_text(account())
    assert Fcm(FcmAccount(file)).check() == []
    assert read_account(file).project == "phones-1"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("{", "is not JSON"),
        ("[]", "is not the file of a service account"),
        ('{"project_info": {}}', "is not the file of a service account: it is the app's own file"),
        (account(type="authorized_user"), "is not the file of a service account"),
        (account(project_id=None), "has no project_id"),
        (account(client_email=5), "has no client_email"),
        (account(private_key=""), "has no private_key"),
        (account(private_key_id=None), "has no private_key_id"),
        (account(private_key="abc"), "private_key in {} is not a private key in PEM"),
        (account(private_key=pem(ec.generate_private_key(ec.SECP256R1()))), "private_key in {} is not an RSA key"),
        (account(token_uri="file:///etc/passwd"), "token_uri in {} is not an https: URL"),
    ],
)
def test_an_account_that_cannot_be_used(tmp_path: Path, said: str, reason: str) -> None:
    file = tmp_path / "account.json"
    file.write_text(said)
    expected = reason.format(file) if "{}" in reason else f"{file} {reason}"
    fcm = Fcm(FcmAccount(file))
    (problem,) = fcm.check()
    assert problem.startswith(expected)
    fcm.start()
    assert down(fcm).final
    assert "BEGIN" not in problem


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UnusableAccount, match=r"cannot read .*none.json: No such file"):
        read_account(tmp_path / "none.json")
