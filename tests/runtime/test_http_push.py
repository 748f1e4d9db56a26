"""Push services that are told by a template: read from a configuration, against an HTTP server on loopback."""

from __future__ import annotations

import json
from typing import Any

import pytest
from web import Web, answer, drop, web

from orchestrator.packages.push_service import PushDown, PushSender
from orchestrator.settings import read_settings
from orchestrator.sip.push import Push, PushAddress, Pushed


def push(token: str = "tok", **changes: Any) -> Push:
    values: dict[str, Any] = {
        "service": "acme",
        "address": PushAddress("acme", "p", token, app="com.example", team="T", tokens={"": token}),
        "kind": "call",
        "ttl": 19.2,
        "aor": "bob@example.com",
        "call": "c1",
        "collapse": "c1",
        "data": {"from": 'sip:"a"@example.com', "nested": {"n": 1}},
        "options": {"sound": "bell"},
    }
    return Push(**values | changes)


def sender(served: Web, text: str, **environ: str) -> PushSender:
    written = f"push:\n  services:\n    acme:\n      type: http\n      url: {served.url}/{text}"
    chosen = read_settings("o.yml", written, environ).push.services["acme"]
    return chosen.kind.open(chosen.settings)


def test_a_template_is_filled_in() -> None:
    text = """v2/${push.token}/${push.app}?to=${push.aor}
      method: PUT
      headers: {authorization: {env: ACME}, x-call: 'call ${push.call}'}
      query: {team: '${push.team}', sound: "${push.options['sound'] ?? 'none'}"}
      json:
        kind: ${push.kind}
        ttl: ${push.ttl}
        n: 7
        digits: "0049"
        from: ${push.data['from'] ?? ''}
        all: ${push.data}
        list: [a, '${push.sandbox}']
"""
    with web(answer()) as served:
        acme = sender(served, text, ACME="Bearer ${x}")
        assert acme.check() == []
        acme.start()
        assert acme.send(push("a/../b?c=d&e")) == Pushed("sent")
        acme.stop()
    (exchange,) = served.exchanges
    assert exchange.method == "PUT"
    assert exchange.target == "/v2/a%2F..%2Fb%3Fc%3Dd%26e/com.example?to=bob%40example.com&team=T&sound=bell"
    assert exchange.headers["authorization"] == "Bearer ${x}"  # the environment's values are taken as they are
    assert exchange.headers["x-call"] == "call c1"
    assert json.loads(exchange.body) == {
        "kind": "call",
        "ttl": 20,
        "n": 7,
        "digits": "0049",
        "from": 'sip:"a"@example.com',
        "all": {"from": 'sip:"a"@example.com', "nested": {"n": 1}},
        "list": ["a", False],
    }


@pytest.mark.parametrize(
    ("text", "kind", "body"),
    [
        ("\n      form: {t: '${push.token}', k: '${push.kind}', b: true}", "application/x-www-form-urlencoded",
         b"t=%22%0D%0A%26a%3Db&k=call&b=true"),
        ("\n      headers: {content-type: application/json}\n      body: '{\"t\": ${push.token}}'", "application/json",
         b'{"t": "\\"\\r\\n&a=b"}'),
        ("\n      headers: {content-type: text/plain}\n      body: 'wake ${push.token}'", "text/plain",
         b'wake "\r\n&a=b'),
    ],
)  # fmt: skip
def test_text_of_a_phone_stays_one_value(text: str, kind: str, body: bytes) -> None:
    with web(answer()) as served:
        acme = sender(served, text)
        acme.send(push('"\r\n&a=b'))
        acme.stop()
    assert (served.exchanges[0].headers["content-type"], served.exchanges[0].body) == (kind, body)


def test_a_header_is_one_line() -> None:
    with web(answer()) as served:
        acme = sender(served, "\n      headers: {x-token: 'a ${push.token}'}\n      auth: {user: u, password: p}")
        acme.send(push("b\r\nX-Evil: 1"))
        acme.stop()
    assert served.exchanges[0].headers["x-token"] == "a b  X-Evil: 1"
    assert served.exchanges[0].headers["authorization"] == "Basic dTpw"
    assert "x-evil" not in served.exchanges[0].headers


STATUSES = "\n      expect: [409, 3xx]\n      dead: [404, 410]"


@pytest.mark.parametrize(
    ("text", "status", "pushed"),
    [
        ("", 202, Pushed("sent")),
        ("", 410, Pushed("dead", "410")),
        ("", 404, Pushed("failed", "404")),  # which may be a mistake in url:
        ("", 302, Pushed("failed", "302")),
        (STATUSES, 409, Pushed("sent")),
        (STATUSES, 302, Pushed("sent")),
        (STATUSES, 404, Pushed("dead", "404")),
        (STATUSES, 400, Pushed("failed", "400")),
        ("\n      dead: 4xx", 418, Pushed("dead", "418")),
    ],
)
def test_statuses(text: str, status: int, pushed: Pushed) -> None:
    with web(answer(status, location="http://169.254.169.254/")) as served:
        acme = sender(served, text)
        assert acme.send(push()) == pushed
        acme.stop()
    assert len(served.exchanges) == 1


@pytest.mark.parametrize(("status", "wait"), [(429, 30.0), (503, 30.0), (500, 30.0)])
def test_a_service_that_is_busy(status: int, wait: float) -> None:
    with web(answer(status, retry_after="30")) as served:
        acme = sender(served, "")
        with pytest.raises(PushDown) as caught:
            acme.send(push())
        acme.stop()
    assert (caught.value.reason, caught.value.retry_after) == (str(status), wait)


def test_a_service_that_is_not_there() -> None:
    with web(drop) as served:
        acme = sender(served, "")
        with pytest.raises(PushDown, match="the connection broke"):
            acme.send(push())
        acme.stop()
