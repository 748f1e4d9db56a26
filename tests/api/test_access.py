"""Who gets through: tokens, scopes, origins, hosts, wrong tokens counted, sessions and their CSRF tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from loguru import logger

from orchestrator.api import access as access_module
from orchestrator.api.access import COOKIE, LASTS, SESSIONS, WRONG
from orchestrator.testing.api_stage import READ_TOKEN, TOKEN, ApiStage

READS = (
    "status",
    "calls",
    "registrations",
    "flows",
    "runs",
    "subscriptions",
    "gateways",
    "servers",
    "bans",
    "loglevel",
)
WRITES = (
    ("DELETE", "calls/x"),
    ("DELETE", "registrations/bob@example.com"),
    ("POST", "registrations/bob@example.com"),
    ("POST", "gateways/x/disable"),
    ("POST", "events"),
    ("POST", "/events"),
    ("POST", "push"),
    ("POST", "/push"),
    ("DELETE", "bans?source=x"),
    ("POST", "reload"),
    ("PUT", "loglevel"),
    ("POST", "drain"),
    ("DELETE", "drain"),
)


@pytest.fixture
def stage() -> ApiStage:
    return ApiStage()


@pytest.fixture
def lines() -> Iterator[list[dict[str, Any]]]:
    found: list[dict[str, Any]] = []
    handler = logger.add(
        lambda message: found.append({"message": message.record["message"], **message.record["extra"]})
    )
    yield found
    logger.remove(handler)


# --- tokens and scopes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_three_paths_need_no_token(stage: ApiStage, path: str) -> None:
    assert stage.get(path, token=None).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        *READS,
        "/",
        "/api",
        "/healthz/",
        "//healthz",
        "/healthz/../api/v1/status",
        "/HEALTHZ",
        "/x",
        "/static/../x",
        "/%2e",
    ],
)
def test_everything_else_does(stage: ApiStage, path: str) -> None:
    answer = stage.get(path, token=None)
    assert (answer.status_code, answer.json["code"]) == (401, "token.required")
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="orchestrator"' and answer.json["cure"]


@pytest.mark.parametrize("path", READS)
def test_both_tokens_read(stage: ApiStage, path: str) -> None:
    for token in (TOKEN, READ_TOKEN):
        answer = stage.get(path, token=token)
        assert answer.status_code == 200 and answer.json["node"] == "node1"


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_the_read_token_writes_nothing(stage: ApiStage, method: str, path: str) -> None:
    answer = stage.ask(method, path, {}, token=READ_TOKEN)
    assert (answer.status_code, answer.json["code"]) == (403, "token.scope")
    assert stage.ask(method, path, {}, token=None).status_code == 401


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER   "])
def test_the_scheme_in_any_case(stage: ApiStage, scheme: str) -> None:
    assert stage.get("status", token=None, headers={"Authorization": scheme + TOKEN}).status_code == 200


@pytest.mark.parametrize(
    "value",
    ["", "Bearer", "Bearer ", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN} x", "Bearer \xff"],
)
def test_what_is_no_token_of_ours(stage: ApiStage, value: str) -> None:
    assert stage.get("status", token=None, headers={"Authorization": value}).status_code == 401


def test_without_any_token_the_api_is_closed() -> None:
    stage = ApiStage(token=None, read_token=None)
    answer = stage.get("status")
    assert (answer.status_code, answer.json["code"]) == (403, "token.none") and "token_file" in answer.json["cure"]
    assert stage.get("/healthz").status_code == 200


def test_ten_wrong_tokens_in_a_minute_are_enough(stage: ApiStage) -> None:
    for _ in range(WRONG):
        assert stage.get("status", token="wrong").status_code == 401
    assert stage.get("status").status_code == 200, "nobody shuts out the right token"
    limited = stage.get("status", token="wrong")
    assert (limited.status_code, limited.json["code"]) == (429, "rate.limited")
    assert 1 <= int(limited.headers["Retry-After"]) <= 61
    assert stage.get("status", token=None).status_code == 401, "no token is no guess"
    other = stage.client.simulate_get(
        "/api/v1/status", headers={"Authorization": f"Bearer {TOKEN}", "Host": "localhost"}, remote_addr="192.0.2.1"
    )
    assert other.status_code == 200
    stage.world.run(61)
    assert stage.get("status", token="wrong").status_code == 401
    assert stage.access.refused["rate"] == 1 and stage.access.refused["wrong_token"] == WRONG + 1


def test_clients_that_guess_are_bounded(stage: ApiStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_module, "_CLIENTS", 3)
    for number in range(10):
        assert stage.access.scope_of_token("wrong", f"192.0.2.{number}") is None
    assert len(stage.access._wrong) == 3


# --- hosts and origins ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evil.example:1"])
def test_a_name_that_is_not_ours(stage: ApiStage, host: str) -> None:
    answer = stage.get("status", headers={"Host": host})
    assert (answer.status_code, answer.json["code"]) == (421, "host.unknown")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:9999"},
        {"Origin": "http://localhost.evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
    ],
)
def test_a_foreign_page_writes_nothing_whatever_it_bears(stage: ApiStage, headers: dict[str, str]) -> None:
    answer = stage.ask("POST", "drain", headers=headers)
    assert (answer.status_code, answer.json["code"]) == (403, "origin.foreign")
    assert not stage.world.engine.draining


@pytest.mark.parametrize(
    "headers", [{}, {"Origin": "http://localhost"}, {"Origin": "https://LOCALHOST"}, {"Sec-Fetch-Site": "same-origin"}]
)
def test_a_page_of_ours_or_a_program_does(stage: ApiStage, headers: dict[str, str]) -> None:
    assert stage.ask("POST", "drain", headers=headers).status_code == 200


# --- sessions ---------------------------------------------------------------------------------------------------------


def signed_in(stage: ApiStage, token: str = TOKEN) -> tuple[dict[str, str], str]:
    """The header of a browser that has signed in, and its CSRF token."""
    session = stage.access.sign_in(token, "127.0.0.1")
    assert session is not None
    return {"Cookie": f"{COOKIE}={session.id}"}, session.csrf


def test_a_session_reads_and_writes_with_its_csrf_token(stage: ApiStage) -> None:
    cookie, csrf = signed_in(stage)
    assert stage.get("status", token=None, headers=cookie).status_code == 200
    refused = stage.ask("POST", "drain", token=None, headers=cookie)
    assert (refused.status_code, refused.json["code"]) == (403, "csrf.invalid")
    wrong = stage.ask("POST", "drain", token=None, headers={**cookie, "X-CSRF-Token": csrf + "x"})
    assert wrong.status_code == 403
    right = stage.ask("POST", "drain", token=None, headers={**cookie, "X-CSRF-Token": csrf})
    assert right.status_code == 200
    form = {**cookie, "Content-Type": "application/x-www-form-urlencoded"}
    assert stage.ask("DELETE", "drain", f"csrf={csrf}".encode(), token=None, headers=form).status_code == 200
    assert stage.ask("POST", "drain", b"csrf=x", token=None, headers=form).status_code == 403


def test_the_session_of_a_reader_writes_nothing(stage: ApiStage) -> None:
    cookie, csrf = signed_in(stage, READ_TOKEN)
    answer = stage.ask("POST", "drain", token=None, headers={**cookie, "X-CSRF-Token": csrf})
    assert (answer.status_code, answer.json["code"]) == (403, "token.scope")


def test_a_csrf_token_is_of_one_session(stage: ApiStage) -> None:
    cookie, _ = signed_in(stage)
    _, other = signed_in(stage)
    assert stage.ask("POST", "drain", token=None, headers={**cookie, "X-CSRF-Token": other}).status_code == 403


def test_sessions_end(stage: ApiStage, monkeypatch: pytest.MonkeyPatch) -> None:
    cookie, _ = signed_in(stage)
    stage.world.run(LASTS + 1)
    assert stage.get("status", token=None, headers=cookie).status_code == 401
    first, _ = signed_in(stage)
    for _ in range(SESSIONS):
        signed_in(stage)
    assert stage.get("status", token=None, headers=first).status_code == 401, "the oldest has made room"
    assert stage.access.sign_in("wrong", "127.0.0.1") is None


@pytest.mark.parametrize(
    "cookie", [f"{COOKIE}=", f"{COOKIE}=x", f"{COOKIE}=\xff", f"{COOKIE}=a; {COOKIE}=b", ";;;=", "x" * 5000]
)
def test_odd_cookies_are_no_session(stage: ApiStage, cookie: str) -> None:
    assert stage.get("status", token=None, headers={"Cookie": cookie}).status_code == 401


# --- the audit --------------------------------------------------------------------------------------------------------


def test_each_write_leaves_one_line_without_bodies_and_tokens(stage: ApiStage, lines: list[dict[str, Any]]) -> None:
    stage.ask("POST", "drain")
    stage.ask("PUT", "loglevel", {"level": "secret-in-a-body"})
    stage.ask("POST", "reload", token=READ_TOKEN)
    stage.ask("POST", "/events", {}, token="wrong")
    stage.get("status")
    stage.get("/healthz")
    written = [line for line in lines if line["message"] == "admin_write"]
    assert [(line["method"], line["path"], line["who"], line["status"]) for line in written] == [
        ("POST", "/api/v1/drain", "full", 200),
        ("PUT", "/api/v1/loglevel", "full", 400),
        ("POST", "/api/v1/reload", "read", 403),
        ("POST", "/events", "nobody", 401),
    ]
    assert {line["source"] for line in written} == {"127.0.0.1"}
    assert not any(secret in str(lines) for secret in (TOKEN, READ_TOKEN, "secret-in-a-body", "wrong"))
