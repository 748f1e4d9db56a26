"""Requests that no client of ours sends: each is refused with a problem, and none is a fault."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import falcon
import pytest
from falcon.testing import create_environ
from loguru import logger

from orchestrator.api.bodies import MOST_FORM, form_of, octets_of
from orchestrator.api.event_feed import EventFeed
from orchestrator.api.problems import Problem
from orchestrator.testing.api_stage import TOKEN, ApiStage

WRITES = (("POST", "drain"), ("DELETE", "calls/x"), ("PUT", "loglevel"), ("POST", "/events"), ("POST", "/metrics"))


@pytest.fixture
def stage() -> Iterator[ApiStage]:
    stage = ApiStage()
    yield stage
    stage.close()


@pytest.mark.parametrize(("method", "path"), WRITES)
@pytest.mark.parametrize("host", ["evil.example.net", "", "[", "127.0.0.1@evil", "a" * 3000])
def test_a_write_to_another_host_is_misdirected(stage: ApiStage, method: str, path: str, host: str) -> None:
    """The check of the host comes before anybody is asked for a token, and the audit bears that."""
    said: list[Any] = []
    sink = logger.add(lambda message: said.append(message.record))
    try:
        answer = stage.ask(method, path, headers={"Host": host})
    finally:
        logger.remove(sink)
    assert (answer.status_code, answer.json["code"]) == (421, "host.unknown")
    (line,) = [record for record in said if record["message"] == "admin_write"]
    assert line["extra"]["who"] == "nobody" and line["extra"]["status"] == 421


@pytest.mark.parametrize(
    "origin", ["http://[::1", "http://[", "http://[evil]", "//", "null", "", "http://", "javascript:x"]
)
def test_an_origin_that_is_none_is_foreign(stage: ApiStage, origin: str) -> None:
    answer = stage.ask("POST", "drain", headers={"Origin": origin, "Host": "localhost"})
    assert (answer.status_code, answer.json["code"]) == (403, "origin.foreign")
    assert not stage.world.engine.draining


class Ends(io.RawIOBase):
    """A body whose sender has gone, as gevent reads it."""

    def read(self, size: int = -1) -> bytes:
        raise OSError("unexpected end of file while reading request at position 10")


def request(body: Any, length: int, kind: str = "application/x-www-form-urlencoded") -> falcon.Request:
    environ = create_environ("/x", method="POST", headers={"Content-Type": kind, "Content-Length": str(length)})
    environ["wsgi.input"] = body
    return falcon.Request(environ)


def test_a_body_that_ends_early_is_no_fault() -> None:
    with pytest.raises(Problem) as refused:
        octets_of(request(Ends(), 100), 100)
    assert (refused.value.status_code, refused.value.problem) == (400, "body.invalid")
    with pytest.raises(Problem):
        form_of(request(Ends(), 100))


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"a=" + b"x" * MOST_FORM, "application/x-www-form-urlencoded", 413),
        (b"&".join(b"f%d=1" % number for number in range(600)), "application/x-www-form-urlencoded", 400),
        (b'{"a":' + b"[" * 30_000, "application/json", 400),
        (b"a=1", "multipart/form-data; boundary=x", 400),
        (b"a=1", "", 400),
    ],
)
def test_a_form_that_is_none_is_refused(body: bytes, kind: str, status: int) -> None:
    with pytest.raises(Problem) as refused:
        form_of(request(io.BytesIO(body), len(body), kind))
    assert refused.value.status_code == status


def test_a_length_that_is_too_large_is_refused_before_the_body_comes() -> None:
    with pytest.raises(Problem) as refused:
        octets_of(request(Ends(), 10**23), 100)
    assert refused.value.status_code == 413


@pytest.mark.parametrize(
    "number", ["1" + "0" * 400, "-1" + "0" * 400, "1e999", "NaN", "-Infinity", "true", "null", '"1"']
)
@pytest.mark.parametrize("name", ["expires", "q"])
def test_a_number_that_is_none_or_has_no_end_is_refused(stage: ApiStage, name: str, number: str) -> None:
    body = f'{{"contact": "sip:bob@192.0.2.7", "{name}": {number}}}'
    headers = {"Content-Type": "application/json", "Host": "localhost", "Authorization": f"Bearer {TOKEN}"}
    answer = stage.client.simulate_post("/api/v1/registrations/bob@example.com", body=body, headers=headers)
    assert (answer.status_code, answer.json["code"]) == (400, "body.invalid")


def test_an_address_of_record_has_an_end(stage: ApiStage) -> None:
    answer = stage.ask("POST", f"registrations/{'b' * 1000}@example.com", {"contact": "sip:bob@192.0.2.7"})
    assert (answer.status_code, answer.json["code"]) == (400, "body.invalid")


def test_of_a_field_that_is_there_twice_the_first_counts() -> None:
    body = b"name=a%20b+c&name=d&empty=&odd=%ff%zz"
    found = form_of(request(io.BytesIO(body), len(body), "Application/X-WWW-Form-Urlencoded; charset=utf-16"))
    assert dict(found) == {"name": "a b c", "empty": "", "odd": "\ufffd%zz"}


@pytest.mark.parametrize(
    "path", ["/api/v1/status", "/api/v1/calls?limit=5", "/api/v1/openapi.json", "/metrics", "/healthz"]
)
def test_head_is_get_without_a_body(stage: ApiStage, path: str) -> None:
    """RFC 9110 §9.3.2: the same fields, Content-Length too."""
    asked, headed = stage.get(path), stage.ask("HEAD", path)
    assert (headed.status_code, headed.content) == (200, b"")
    assert headed.headers["Content-Type"] == asked.headers["Content-Type"]
    assert abs(int(headed.headers["Content-Length"]) - int(asked.headers["Content-Length"])) < 500


@pytest.mark.parametrize(("path", "status"), [("calls/nobody", 404), ("drain", 405), ("calls?limit=x", 400)])
def test_head_is_refused_as_get_is(stage: ApiStage, path: str, status: int) -> None:
    assert (stage.get(path).status_code, stage.ask("HEAD", path).status_code) == (status, status)
    assert stage.ask("HEAD", path, token=None).status_code == 401


def test_head_of_a_stream_begins_none(stage: ApiStage, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[object] = []
    monkeypatch.setattr(EventFeed, "open", lambda *_: lambda: ended.append(1))
    answer = stage.ask("HEAD", "events/stream")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert ended == [1]
