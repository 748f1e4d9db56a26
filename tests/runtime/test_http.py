"""HTTP exchanges against a real server on loopback: what is sent, what comes back, and every way to fail (F17, S26)."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from time import monotonic
from types import MappingProxyType
from typing import Any

import gevent
import pytest
from echo_core import wait_until
from web import Exchange, answer, drip, drop, hang, in_turn, web

from orchestrator.errors import StepError
from orchestrator.flow.run.effects import Http
from orchestrator.runtime import http_host
from orchestrator.runtime.http import HttpClient
from orchestrator.runtime.http_host import MAX_ANSWER, REST, TRIP_AFTER, Circuit, Guard
from orchestrator.runtime.pool import Pool


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def client(pauses: list[float]) -> Iterator[HttpClient]:
    client = HttpClient(sleep=pauses.append, jitter=lambda: 0.5)
    yield client
    client.close()


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def failure(client: HttpClient, effect: Http) -> StepError:
    with pytest.raises(StepError) as caught:
        client.perform(effect)
    return caught.value


# --- what is sent -----------------------------------------------------------------------------------------------------


def test_get(client: HttpClient) -> None:
    with web(answer(200, b"hi", X_Id="7", content_type="text/plain")) as server:
        result = client.perform(Http("GET", server.url + "/v1?a=1", query={"b": "x y&z"}))
    assert (result["status"], result["text"], result["json"]) == (200, "hi", None)
    assert result["headers"]["x-id"] == "7"
    request = server.exchanges[0]
    assert (request.method, request.target, request.body) == ("GET", "/v1?a=1&b=x+y%26z", b"")
    assert request.headers["host"] == f"127.0.0.1:{server.port}"
    assert request.headers["user-agent"].startswith("orchestrator/")
    assert "authorization" not in request.headers


def test_json_keeps_types(client: HttpClient) -> None:
    view: Mapping[str, Any] = MappingProxyType({"aor": "bob@example.com", "tried": ("a", "b")})
    with web(answer(200, b'{"id": [1, null]}', content_type="application/json; charset=utf-8")) as server:
        result = client.perform(Http("POST", server.url, json={"n": 1, "t": True, "x": None, "call": view, "u": "ü"}))
    assert result["json"] == {"id": [1, None]}
    request = server.exchanges[0]
    assert request.headers["content-type"] == "application/json"
    assert json.loads(request.body) == {
        "n": 1,
        "t": True,
        "x": None,
        "call": {"aor": "bob@example.com", "tried": ["a", "b"]},
        "u": "ü",
    }


@pytest.mark.parametrize(
    ("effect", "kind", "body"),
    [
        (Http("POST", "", form={"a": "1 2", "b": "ü"}), "application/x-www-form-urlencoded", b"a=1+2&b=%C3%BC"),
        (Http("PUT", "", body="grüß"), "text/plain; charset=utf-8", "grüß".encode()),
        (Http("POST", "", body="<a/>", headers={"Content-Type": "text/xml"}), "text/xml", b"<a/>"),
    ],
)
def test_bodies(client: HttpClient, effect: Http, kind: str, body: bytes) -> None:
    with web(answer()) as server:
        effect.url = server.url
        client.perform(effect)
    assert server.exchanges[0].headers["content-type"] == kind
    assert server.exchanges[0].body == body


def test_method_follows_from_the_body_when_not_said(client: HttpClient) -> None:
    with web(answer()) as server:
        client.perform(Http("", server.url))
        client.perform(Http("", server.url, body="x"))
        client.perform(Http("HEAD", server.url))
    assert [exchange.method for exchange in server.exchanges] == ["GET", "POST", "HEAD"]


def test_auth_and_headers(client: HttpClient) -> None:
    with web(answer()) as server:
        client.perform(Http("GET", server.url, auth=("Aladdin", "open sesame"), headers={"X-Key": "k"}))
        client.perform(Http("GET", server.url, auth=("a", "b"), headers={"Authorization": "Bearer t"}))
    first, second = server.exchanges
    assert first.headers["authorization"] == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="  # RFC 7617 §2
    assert first.headers["x-key"] == "k"
    assert second.headers["authorization"] == "Bearer t"


@pytest.mark.parametrize("auth", [("a:b", "c"), ("a\r\nX: y", "c"), ("a", "c\0")])
def test_credentials_that_would_be_read_as_others_are_not_sent(client: HttpClient, auth: tuple[str, str]) -> None:
    """RFC 7617 §2: a colon in the user name would be the start of the password."""
    with web(answer()) as server:
        assert failure(client, Http("GET", server.url, auth=auth)).type == "expr.value"
        assert server.exchanges == []


# --- statuses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [300, 301, 304, 400, 404, 410])
def test_other_statuses_are_errors_and_not_tried_again(client: HttpClient, status: int) -> None:
    with web(answer(status, b"" if status == 304 else b"no")) as server:
        error = failure(client, Http("GET", server.url, retries=3))
    assert error.type == "http.status"
    assert error.message == f"127.0.0.1:{server.port} answered {status}"
    assert error.data["status"] == status
    assert len(server.exchanges) == 1


@pytest.mark.parametrize("status", [429, 500, 503, 599])
def test_busy_servers_are_tried_again(client: HttpClient, pauses: list[float], status: int) -> None:
    with web(in_turn(answer(status), answer(status), answer(201))) as server:
        result = client.perform(Http("POST", server.url, json={}, retries=3, backoff=0.2))
    assert result["status"] == 201
    assert pauses == [pytest.approx(0.2), pytest.approx(0.4)]  # jitter 0.5 is the middle
    assert client.retries == 2
    assert client.outcomes == {f"{status // 100}xx": 2, "2xx": 1}


def test_retries_end(client: HttpClient, pauses: list[float]) -> None:
    with web(answer(503, b"sorry")) as server:
        error = failure(client, Http("GET", server.url, retries=2))
    assert (error.type, error.data["text"]) == ("http.status", "sorry")
    assert len(server.exchanges) == 3 and len(pauses) == 2


def test_jitter_spreads_by_half_and_pauses_are_bounded() -> None:
    low = HttpClient(jitter=lambda: 0.0)
    high = HttpClient(jitter=lambda: 1.0)
    assert (low._pause(0.2, 1), high._pause(0.2, 1)) == (pytest.approx(0.2), pytest.approx(0.6))
    assert low._pause(0.2, 500) == pytest.approx(15.0)


@pytest.mark.parametrize(
    ("expect", "status"), [(("404",), 404), (("4xx",), 410), (("5xx", "404"), 503), (("302",), 302)]
)
def test_expected_statuses_are_results(client: HttpClient, expect: tuple[str, ...], status: int) -> None:
    with web(answer(status, b"x")) as server:
        result = client.perform(Http("GET", server.url, expect=expect, retries=2))
    assert result["status"] == status
    assert len(server.exchanges) == 1


@pytest.mark.parametrize("target", ["http://169.254.169.254/latest/meta-data", "http://127.0.0.1:1/", "/again"])
def test_redirects_are_not_followed(client: HttpClient, target: str) -> None:
    with web(answer(302, Location=target)) as server:
        error = failure(client, Http("GET", server.url, retries=1))
    assert (error.type, error.data["status"]) == ("http.status", 302)
    assert len(server.exchanges) == 1


# --- what comes back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "body", "text", "parsed"),
    [
        ("application/json", b"not json", "not json", None),
        ("application/json", b"[" * 50_000, "[" * 50_000, None),
        ("application/problem+json", b'{"a":1}', '{"a":1}', {"a": 1}),
        ("text/html", b'{"a":1}', '{"a":1}', None),
        ("text/plain; charset=iso-8859-1", b"gr\xfc\xdf", "grüß", None),
        ("text/plain; charset=klingon", b"gr\xc3\xbc", "grü", None),
        ("text/plain", b"\xff\xfe", "\ufffd\ufffd", None),
    ],
)
def test_text_and_json(client: HttpClient, kind: str, body: bytes, text: str, parsed: Any) -> None:
    with web(answer(200, body, content_type=kind)) as server:
        result = client.perform(Http("GET", server.url))
    assert (result["text"], result["json"]) == (text, parsed)


def test_answer_of_64_kib_fits_and_one_octet_more_does_not(client: HttpClient) -> None:
    with web(in_turn(answer(200, b"x" * MAX_ANSWER), answer(200, b"x" * (MAX_ANSWER + 1)))) as server:
        assert len(client.perform(Http("GET", server.url))["text"]) == MAX_ANSWER
        error = failure(client, Http("GET", server.url, retries=3))
    assert error.type == "http.status"
    assert error.message.endswith("answered 200 with more than 65536 octets")
    assert len(server.exchanges) == 2


def test_ten_megabytes_are_not_read(client: HttpClient) -> None:
    written = 0

    def pour(exchange: Exchange, sock: Any) -> None:
        nonlocal written
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10485760\r\n\r\n")
        while written < 10_485_760:
            written += sock.send(b"x" * 65_536)

    with web(pour) as server:
        began = monotonic()
        assert failure(client, Http("GET", server.url)).type == "http.status"
        gevent.sleep(0.05)
    assert monotonic() - began < 2
    assert written < 10_000_000


def test_compressed_answers_are_not_asked_for_nor_blown_up(client: HttpClient) -> None:
    with web(answer(200, b"\x1f\x8b bomb", content_encoding="gzip")) as server:
        result = client.perform(Http("GET", server.url))
    assert server.exchanges[0].headers["accept-encoding"] == "identity"
    assert result["text"].startswith("\x1f")


# --- no answer --------------------------------------------------------------------------------------------------------


def test_refused_connection_is_tried_again(client: HttpClient, pauses: list[float]) -> None:
    port = closed_port()
    error = failure(client, Http("POST", f"http://127.0.0.1:{port}/secret?key=s3cret", retries=2, backoff=1))
    assert (error.type, error.message) == ("http.connect", f"127.0.0.1:{port}: connection refused")
    assert pauses == [1, 2]


@pytest.mark.parametrize("behave", [hang, drip])
def test_timeout_bounds_the_whole_try_and_is_not_repeated(client: HttpClient, behave: Any) -> None:
    """A request that may have been served is not sent twice."""
    with web(behave) as server:
        began = monotonic()
        error = failure(client, Http("POST", server.url, json={}, timeout=0.15, retries=5))
        took = monotonic() - began
    assert (error.type, error.message) == ("http.timeout", f"no answer from 127.0.0.1:{server.port} within 0.15s")
    assert took >= 0.15
    assert len(server.exchanges) == 1


def test_slow_look_up_counts_as_not_connected(client: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_host.socket, "getaddrinfo", lambda *args: gevent.sleep(5))
    error = failure(client, Http("GET", "http://push.example.com/", timeout=0.05, retries=1))
    assert (error.type, error.message) == ("http.connect", "no connection to push.example.com:80 within 0.05s")
    assert client.outcomes["http.connect"] == 2


def test_name_that_does_not_exist(client: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(http_host.socket, "getaddrinfo", unknown)
    error = failure(client, Http("GET", "http://nowhere.invalid/"))
    assert (error.type, error.message) == ("http.connect", "nowhere.invalid:80: the name cannot be looked up")


def test_connection_that_breaks(client: HttpClient) -> None:
    def half(exchange: Exchange, sock: Any) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        drop(exchange, sock)

    for behave in (drop, half):
        with web(behave) as server:
            error = failure(client, Http("POST", server.url, json={}, retries=3))
        assert error.type == "http.connect"
        assert "broke before the answer was complete" in error.message
        assert len(server.exchanges) == 1  # it may have been served: not sent again


def test_garbage_instead_of_http(client: HttpClient) -> None:
    with web(lambda exchange, sock: sock.sendall(b"SSH-2.0-OpenSSH\r\n\r\n")) as server:
        assert failure(client, Http("GET", server.url)).type == "http.connect"


@pytest.mark.parametrize(
    "url",
    ["", "push.example.com/x", "ftp://example.com/", "file:///etc/passwd", "http://", "http://[::1/", "http://a:b/"],
)
def test_what_is_no_url(client: HttpClient, url: str) -> None:
    error = failure(client, Http("GET", url, retries=3))
    assert (error.type, error.message) == ("http.connect", "this is not an http: or https: URL")


@pytest.mark.parametrize(
    "effect",
    [
        Http("GET", "", headers={"X-Name": "bob\r\nX-Evil: 1"}),
        Http("GET", "", headers={"X\r\nEvil": "1"}),
        Http("GET\r\nX-Evil: 1\r\n", ""),
    ],
)
def test_line_breaks_cannot_smuggle_a_header(client: HttpClient, effect: Http) -> None:
    with web(answer()) as server:
        effect.url = server.url
        error = failure(client, effect)
    assert error.type == "http.connect"
    assert server.exchanges == []


def test_line_breaks_in_the_url_are_escaped(client: HttpClient) -> None:
    with web(answer()) as server:
        client.perform(Http("GET", server.url + "/a\r\nX-Evil: 1\r\n\r\n"))
    assert server.exchanges[0].target == "/a%0D%0AX-Evil:%201%0D%0A%0D%0A"


@pytest.mark.parametrize("value", [float("nan"), "cycle"])
def test_what_json_cannot_say(client: HttpClient, value: Any) -> None:
    if value == "cycle":
        value = []
        value.append(value)
    assert failure(client, Http("POST", "http://127.0.0.1/", json={"x": value})).message == (
        "the body cannot be written as JSON"
    )


def test_environment_does_not_choose_a_proxy(client: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{closed_port()}")
    with web(answer()) as server:
        assert client.perform(Http("GET", server.url))["status"] == 200


# --- connections ------------------------------------------------------------------------------------------------------


def test_connections_are_kept_and_a_stale_one_costs_nothing(client: HttpClient) -> None:
    """A server may close an idle connection just as we use it: that request was not served, it is sent on a new one."""

    def close_second(exchange: Exchange, sock: Any) -> None:
        (drop if len(server.exchanges) == 3 else answer(200, b"ok"))(exchange, sock)

    with web(close_second) as server:
        for _ in range(3):
            assert client.perform(Http("POST", server.url, body="x"))["status"] == 200
    assert [exchange.connection for exchange in server.exchanges] == [1, 1, 1, 2]
    assert client.outcomes == {"2xx": 3}


def test_unread_rest_of_an_answer_is_not_taken_for_the_next(client: HttpClient) -> None:
    with web(in_turn(answer(200, b"HTTP/1.1 200 OK\r\n\r\n" * 10_000), answer(200, b"fresh"))) as server:
        failure(client, Http("GET", server.url))
        assert client.perform(Http("GET", server.url))["text"] == "fresh"
    assert [exchange.connection for exchange in server.exchanges] == [1, 2]


def test_hosts_are_remembered_within_bounds(client: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.runtime.http.MAX_HOSTS", 3)
    for number in range(6):
        failure(client, Http("GET", f"http://127.0.0.1:{closed_port()}/{number}"))
    assert len(client._hosts) == 3


# --- circuit ----------------------------------------------------------------------------------------------------------


def test_circuit_opens_after_five_failures_and_closes_by_one_success() -> None:
    now = 100.0
    client = HttpClient(clock=lambda: now, sleep=lambda seconds: None)
    behave = in_turn(*[drop] * TRIP_AFTER, answer(200))
    with web(behave) as server:
        effect = Http("GET", server.url)
        for _ in range(TRIP_AFTER):
            failure(client, effect)
        assert client.open_circuits == 1
        assert "failed 5 times in a row" in failure(client, effect).message
        assert len(server.exchanges) == TRIP_AFTER  # not even asked
        now += REST
        assert client.perform(effect)["status"] == 200
        assert client.open_circuits == 0
    client.close()


def test_statuses_are_not_failures_of_the_host(client: HttpClient) -> None:
    with web(answer(500)) as server:
        for _ in range(TRIP_AFTER + 1):
            assert failure(client, Http("GET", server.url)).type == "http.status"
    assert client.open_circuits == 0


def test_half_open_circuit_lets_one_try() -> None:
    circuit = Circuit()
    for _ in range(TRIP_AFTER):
        assert not circuit.refuses(0.0)
        circuit.failed(0.0)
    assert circuit.refuses(REST - 0.1)
    assert not circuit.refuses(REST)
    assert circuit.refuses(REST)  # the others wait for what the first one finds
    circuit.failed(REST + 1)
    assert circuit.refuses(2 * REST)
    circuit.succeeded()
    assert not circuit.refuses(2 * REST)


# --- where not to connect (S26) ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "address", "refused"),
    [
        ("push.example.com", "203.0.113.7", False),
        ("push", "10.0.0.5", False),
        ("push", "fd00::5", False),
        ("127.0.0.1", "127.0.0.1", False),
        ("::1", "::1", False),
        ("localhost", "127.0.0.1", False),
        ("push.example.com", "127.0.0.1", True),
        ("push.example.com", "::1", True),
        ("push.example.com", "::ffff:127.0.0.1", True),
        ("169.254.169.254", "169.254.169.254", True),
        ("metadata", "169.254.169.254", True),
        ("metadata", "::ffff:169.254.169.254", True),
        ("push", "fe80::1", True),
        ("push", "0.0.0.0", True),
        ("push", "::", True),
        ("push", "224.0.0.1", True),
        ("push", "255.255.255.255", True),
        ("push", "240.0.0.1", True),
    ],
)
def test_guard(host: str, address: str, refused: bool) -> None:
    assert bool(Guard().refusal(host, http_host.ip_address(address))) is refused


def test_guard_with_a_list_permits_nothing_else() -> None:
    guard = Guard(allow=(http_host.IPv4Network("203.0.113.0/24"),))
    assert guard.refusal("push", http_host.ip_address("203.0.113.9")) == ""
    for address in ("198.51.100.1", "127.0.0.1", "::1"):
        assert guard.refusal(address, http_host.ip_address(address)) == "is not in an allowed network"


def test_name_that_leads_to_this_machine_is_not_connected_to(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with web(answer()) as server:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port))]
        monkeypatch.setattr(http_host.socket, "getaddrinfo", lambda *args: found)
        error = failure(client, Http("GET", f"http://push.example.com:{server.port}/"))
    assert error.message.endswith("127.0.0.1 is this machine, where no other name may lead")
    assert server.connections == 0


def test_next_address_is_tried_when_one_fails(client: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with web(answer()) as server:
        ports = (closed_port(), server.port)
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in ports]
        monkeypatch.setattr(http_host.socket, "getaddrinfo", lambda *args: found)
        assert client.perform(Http("GET", "http://localhost/"))["status"] == 200


# --- together with the pool -------------------------------------------------------------------------------------------


def test_hanging_server_costs_a_few_tries_and_nobody_waits_for_ever(client: HttpClient) -> None:
    """Four workers time out, the next four make the circuit open, the rest is told at once."""
    answers: list[tuple[int, Any]] = []
    pool = Pool("http", client.perform, lambda job, result: answers.append((job, result)), size=4, backlog=10)
    with web(hang) as server:
        for job in range(20):
            pool.submit(job, Http("GET", server.url, timeout=0.1))
            gevent.sleep(0)
        wait_until(lambda: len(answers) == 20)
        assert server.connections == 8
    assert sorted(job for job, _ in answers) == list(range(20))
    assert {error.type for _, error in answers} == {"flow.limit", "http.timeout", "http.connect"}
    pool.close()


# --- answers that lie -------------------------------------------------------------------------------------------------


def raw(*lines: str, body: bytes = b"") -> Any:
    head = "\r\n".join(["HTTP/1.1 200 OK", *lines, "", ""]).encode()

    def behave(exchange: Exchange, sock: Any) -> None:
        sock.sendall(head + body)
        sock.shutdown(socket.SHUT_RDWR)
        raise OSError

    return behave


@pytest.mark.parametrize(
    "charset",
    [
        "a\0b",
        "no-such",
        "base64",
        "punycode",
        "idna",
        "undefined",
        "zlib",
        "unicode_escape",
        "x" * 10_000,
        "cp99999",
        ";",
    ],
)
def test_a_character_set_that_is_none_is_taken_for_utf_8(client: HttpClient, charset: str) -> None:
    with web(raw(f"Content-Type: text/plain; charset={charset}", "Content-Length: 5", body="grüs".encode())) as server:
        assert client.perform(Http("GET", server.url))["text"] == "grüs"


@pytest.mark.parametrize(
    ("charset", "text"), [("ISO-8859-1", "ü"), ("windows-1252", "ü"), ("'utf-16'", "ü"), ("big5", "中")]
)
def test_usual_character_sets_are_read(client: HttpClient, charset: str, text: str) -> None:
    body = text.encode(charset.strip("'"))
    with web(raw(f"Content-Type: text/plain; charset={charset}", f"Content-Length: {len(body)}", body=body)) as server:
        assert client.perform(Http("GET", server.url))["text"] == text


CHUNKED = "Transfer-Encoding: chunked"


@pytest.mark.parametrize(
    ("lines", "body"),
    [
        (["Content-Length: 50"], b"too short"),
        (["Content-Length: 5", "Content-Length: 6"], b"hello!"),
        (["Content-Length: 5, 6"], b"hello!"),
        ([CHUNKED], b"-5\r\nhello\r\n0\r\n\r\n"),
        ([CHUNKED], b"-1\r\n" + b"x" * 1_000_000),
        ([CHUNKED], b"zz\r\nhello\r\n0\r\n\r\n"),
        ([CHUNKED], b"\r\nhello\r\n0\r\n\r\n"),
        ([CHUNKED], b"FFFFFFFFFFFFFFFFFFFF\r\nhello"),
        ([CHUNKED], b"1" * 70_000 + b"\r\nhello"),
        ([CHUNKED], b"5\r\nhel"),
    ],
)
def test_lengths_that_lie_are_errors_of_the_step(client: HttpClient, lines: list[str], body: bytes) -> None:
    with web(raw(*lines, body=body)) as server:
        error = failure(client, Http("GET", server.url))
    assert error.type in ("http.connect", "http.status") and len(error.message) < 200


@pytest.mark.parametrize("length", ["-1", "-5", "abc", "", "0x5", "9" * 5_000, "٥", "5.0", "+5"])
def test_a_length_that_is_none_is_an_error_of_the_step(client: HttpClient, length: str) -> None:
    with web(raw(f"Content-Length: {length}", body=b"hello")) as server:
        assert failure(client, Http("GET", server.url)).type == "http.connect"


ODD_HOSTS = (
    "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0", "0.0.0.0", "[::]", "169.254.169.254",
    "[::ffff:169.254.169.254]", "0xa9fea9fe", "2852039166",
)  # fmt: skip


@pytest.mark.parametrize("host", ODD_HOSTS)
def test_no_other_writing_of_an_address_gets_around_the_guard(client: HttpClient, host: str) -> None:
    error = failure(client, Http("GET", f"http://{host}/", timeout=2.0))
    assert error.type == "http.connect"
    if "::ffff:127" not in host:
        assert "is this machine" in error.message or "is not the address of a web service" in error.message, (
            error.message
        )
