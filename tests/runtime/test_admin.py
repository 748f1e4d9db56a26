"""The admin interface over real HTTP."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.event import Event
from loguru import logger

from orchestrator.errors import ListenError
from orchestrator.runtime import admin_connections
from orchestrator.runtime.admin import Admin, Health
from orchestrator.runtime.metrics import Metrics


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def admin(health: Health, metrics: Metrics) -> Iterator[Admin]:
    admin = Admin("127.0.0.1", 0, health, metrics)
    admin.start()
    yield admin
    admin.close()


def ask(admin: Admin, target: str, method: str = "GET") -> tuple[int, str, str]:
    """Status, content type and body."""
    with socket.create_connection(admin.address, timeout=30) as sock:
        sock.sendall(f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        octets = b""
        while chunk := sock.recv(65_536):
            octets += chunk
    head, _, body = octets.decode().partition("\r\n\r\n")
    kind = next(line.split(": ", 1)[1] for line in head.lower().split("\r\n") if line.startswith("content-type"))
    return int(head.split()[1]), kind, body


def test_health(admin: Admin) -> None:
    status, kind, body = ask(admin, "/healthz")
    assert (status, kind, json.loads(body)) == (200, "application/json", {"status": "ok"})


def test_ready_until_a_check_complains(admin: Admin, health: Health) -> None:
    complaint = ""
    health.add("flows", lambda: "")
    health.add("freeswitch", lambda: complaint)
    assert ask(admin, "/readyz")[0] == 200
    complaint = "fs1 is down"
    status, _, body = ask(admin, "/readyz")
    assert status == 503
    assert json.loads(body) == {"status": "not ready", "reasons": {"freeswitch": "fs1 is down"}}
    complaint = ""
    assert json.loads(ask(admin, "/readyz")[2]) == {"status": "ready"}


def test_metrics_are_read_when_asked(admin: Admin, metrics: Metrics) -> None:
    calls = 1
    metrics.gauge("calls", "Calls.", lambda: calls)
    metrics.counter("datagrams", "Datagrams.", lambda: {"in": 7, "out": 8}, labels=("direction",))
    metrics.counter("esl", "By two labels.", lambda: {("fs1", "DTMF"): 3}, labels=("server", "event"))
    calls = 5
    status, kind, body = ask(admin, "/metrics")
    assert status == 200 and kind.startswith("text/plain")
    lines = body.splitlines()
    assert "orchestrator_calls 5.0" in lines
    assert 'orchestrator_datagrams_total{direction="in"} 7.0' in lines
    assert 'orchestrator_datagrams_total{direction="out"} 8.0' in lines
    assert 'orchestrator_esl_total{event="DTMF",server="fs1"} 3.0' in lines
    assert "# TYPE orchestrator_calls gauge" in lines
    assert any(line.startswith("process_resident_memory_bytes") for line in lines)


def test_metric_that_cannot_be_read_does_not_hide_the_others(admin: Admin, metrics: Metrics) -> None:
    logger.disable("orchestrator.runtime.metrics")
    metrics.gauge("broken", "Broken.", lambda: 1 / 0)
    metrics.gauge("fine", "Fine.", lambda: 1)
    status, _, body = ask(admin, "/metrics")
    logger.enable("orchestrator.runtime.metrics")
    assert status == 200
    assert "orchestrator_fine 1.0" in body and "orchestrator_broken" not in body


def test_names_are_defined_once_and_servers_do_not_share_them(metrics: Metrics) -> None:
    metrics.gauge("calls", "Calls.", lambda: 1)
    with pytest.raises(ValueError, match="'calls' is defined twice"):
        metrics.counter("calls", "Calls.", lambda: 1)
    Metrics().gauge("calls", "Calls.", lambda: 2)


def test_a_connection_that_has_ended_is_freed_at_once(admin: Admin) -> None:
    """Without the collector of cycles, which seldom runs (`runtime.garbage`)."""

    def handlers() -> int:
        return sum(isinstance(each, admin_connections._Handler) for each in gc.get_objects())

    ask(admin, "/metrics")
    gc.collect()
    before = handlers()
    gc.disable()
    try:
        for target in ("/healthz", "/metrics", "/nothing"):
            ask(admin, target)
        gevent.sleep(0.05)
        assert handlers() <= before
    finally:
        gc.enable()


@pytest.mark.parametrize(("target", "method", "status"), [("/nothing", "GET", 404), ("/metrics", "POST", 405)])
def test_the_rest_is_refused(admin: Admin, target: str, method: str, status: int) -> None:
    assert ask(admin, target, method)[0] == status


def test_others_add_routes(admin: Admin) -> None:
    class Calls:
        def on_get(self, request: Any, response: Any) -> None:
            response.media = [1, 2]

    admin.app.add_route("/calls", Calls())
    assert ask(admin, "/calls")[2] == "[1, 2]"


def test_address_in_use(admin: Admin, health: Health, metrics: Metrics) -> None:
    host, port = admin.address
    with pytest.raises(ListenError) as caught:
        Admin(host, port, health, metrics)
    assert str(caught.value).startswith(f"cannot listen on http://{host}:{port}: address in use")


def test_address_of_another_machine(health: Health, metrics: Metrics) -> None:
    with pytest.raises(ListenError, match="this machine has no such address"):
        Admin("192.0.2.1", 8080, health, metrics)


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True)])
def test_open_to_the_network_is_said(health: Health, metrics: Metrics, host: str, warned: bool) -> None:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(message.record["message"]), level="WARNING")
    Admin(host, 0, health, metrics).close()
    logger.remove(sink)
    assert bool(lines) is warned


def test_silent_client_is_given_up(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_connections, "HEAD", 0.05)
    with socket.create_connection(admin.address, timeout=30) as sock:
        sock.sendall(b"GET /healthz HT")
        with gevent.Timeout(30):
            while sock.recv(1000):
                pass  # an error page or nothing: in the end it closes


# --- strangers --------------------------------------------------------------------------------------------------------


def send(admin: Admin, octets: bytes) -> bytes:
    """What comes back for these octets, until the server closes the connection."""
    with socket.create_connection(admin.address, timeout=30) as sock:
        sock.sendall(octets)
        answer = b""
        while chunk := sock.recv(65_536):
            answer += chunk
    return answer


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8080", 200),
        ("localhost.", 200),
        ("127.0.0.1", 200),
        ("192.0.2.7:8080", 200),
        ("[::1]:8080", 200),
        ("[::1]", 200),
        ("named.example.com:80", 200),
        ("rebound.example.net", 421),
        ("rebound.example.net:8080", 421),
        ("localhost.example.net", 421),
        ("127.0.0.1.example.net", 421),
        ("[rebound.example.net]", 421),
        ("", 421),
        ("a" * 4000, 421),
    ],
)
def test_only_known_names_are_served(health: Health, metrics: Metrics, host: str, status: int) -> None:
    admin = Admin("127.0.0.1", 0, health, metrics, ("named.example.com",))
    admin.start()
    try:
        answer = send(admin, f"GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        assert int(answer.split()[1]) == status
    finally:
        admin.close()


def test_a_client_that_drips_its_request_is_cut(monkeypatch: pytest.MonkeyPatch, admin: Admin) -> None:
    """One octet at a time is no silence; the whole head has a time of its own."""
    monkeypatch.setattr(admin_connections, "HEAD", 0.2)
    with socket.create_connection(admin.address, timeout=30) as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ")
        with gevent.Timeout(30):
            try:
                while True:
                    sock.sendall(b"x")
                    gevent.sleep(0.02)
            except OSError:
                pass
    assert ask(admin, "/healthz")[0] == 200


def test_a_body_that_nobody_reads_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch, admin: Admin) -> None:
    """A refused request with a body of a gigabyte costs as much as one with a small one."""
    with socket.create_connection(admin.address, timeout=30) as sock, gevent.Timeout(30):
        sock.sendall(b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n")
        sent = 0
        try:
            while sent < 200_000_000:
                sock.sendall(b"x" * 1_000_000)
                sent += 1_000_000
        except OSError:
            pass
    assert sent < 200_000_000
    monkeypatch.setattr(admin_connections, "HEAD", 0.2)
    for framing in (
        b"Content-Length: 1000",
        b"Transfer-Encoding: chunked",
        b"Content-Length: 9\r\nExpect: 100-continue",
    ):
        with socket.create_connection(admin.address, timeout=30) as sock, gevent.Timeout(30):
            sock.sendall(b"POST /nothing HTTP/1.1\r\nHost: localhost\r\n%b\r\n\r\n" % framing)
            answer = b""
            while chunk := sock.recv(1000):  # until it is cut
                answer += chunk
        assert answer.startswith(b"HTTP/1.1 404 ")


def test_a_small_body_that_nobody_reads_leaves_the_connection_open(admin: Admin) -> None:
    with socket.create_connection(admin.address, timeout=30) as sock:
        for _ in range(2):
            sock.sendall(b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20000\r\n\r\n" + b"x" * 20_000)
            assert sock.recv(9, socket.MSG_WAITALL) == b"HTTP/1.1 "
            gevent.sleep(0.05)
            sock.recv(65_536)


@pytest.mark.parametrize("octets", [b"x\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 101 + b"\r\n"])
def test_what_is_no_http_is_counted(admin: Admin, octets: bytes) -> None:
    assert send(admin, octets).startswith(b"HTTP/1.1 400 ")
    assert admin.malformed == 1


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_a_balancer_may_ask_for_the_head_alone(admin: Admin, path: str) -> None:
    answer = send(admin, f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "octets",
    [
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 50_000 + b"\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\nConnection: close\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500) + b"\r\n\r\n",
        b"GET /%00%ff?%zz=\xff HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"BREW /healthz HTTP/9.9\r\n\r\n",
    ],
    ids=["many headers", "long header", "long target", "negative length", "TLS", "odd escapes", "odd method"],
)
def test_a_bad_request_costs_its_connection_and_no_traceback(
    admin: Admin, octets: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    told: list[str] = []
    sink = logger.add(told.append, level="ERROR")
    try:
        try:
            answer = send(admin, octets)
        except OSError:  # closed before all of it was read
            answer = b""
        assert not answer or (answer.split()[1].startswith((b"2", b"4", b"5")) and b"Traceback" not in answer)
        assert not answer or not answer.split()[1].startswith(b"500")
        assert told == [] and "Traceback" not in capfd.readouterr().err
        assert ask(admin, "/healthz")[0] == 200
    finally:
        logger.remove(sink)


def quick(to: tuple[str, int], path: str = "/healthz", source: str = "127.0.0.1") -> bytes:
    """The status of one request; b'' where the connection is cut."""
    with socket.create_connection(to, timeout=30, source_address=(source, 0)) as sock:
        try:
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            return bytes(sock.recv(100)).split(b" ")[1]
        except (OSError, IndexError):
            return b""


def test_silent_connections_of_one_client_make_room(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go, whether they have sent nothing or the half of a head; whoever speaks is served."""
    monkeypatch.setattr(admin_connections, "OF_ONE", 4)
    held = [socket.create_connection(admin.address, timeout=30) for _ in range(3)]
    half = socket.create_connection(admin.address, timeout=30)
    half.sendall(b"GET /healthz HTT")
    gevent.sleep(0.05)
    held += [socket.create_connection(admin.address, timeout=30) for _ in range(20)]
    try:
        assert quick(admin.address) == b"200"
        assert half.recv(10) == b"" and held[0].recv(10) == b""
        assert admin.refused >= 19
    finally:
        for sock in (*held, half):
            sock.close()


def test_the_client_with_most_connections_makes_room(
    health: Health, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """127.0.0.2 is another client than 127.0.0.1."""
    monkeypatch.setattr(admin_connections, "WAITING", 10)
    admin = Admin("0.0.0.0", 0, health, metrics)
    admin.start()
    to = ("127.0.0.1", admin.address[1])
    other = socket.create_connection(to, timeout=30, source_address=("127.0.0.2", 0))
    held: list[socket.socket] = []
    try:
        gevent.sleep(0.05)
        held += [socket.create_connection(to, timeout=30) for _ in range(50)]
        assert quick(to, source="127.0.0.3") == b"200"
        other.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert other.recv(100).startswith(b"HTTP/1.1 200")
    finally:
        for sock in (*held, other):
            sock.close()
        admin.close()


def test_a_head_that_comes_in_pieces_and_the_next_one_behind_it(admin: Admin) -> None:
    with socket.create_connection(admin.address, timeout=30) as sock:
        for piece in (b"GET /heal", b"thz HTTP/1.1\r\nHost: loc", b"alhost\r\n\r", b"\nGET /readyz HTTP/1.1\r\n"):
            sock.sendall(piece)
            gevent.sleep(0.02)
        sock.sendall(b"Host: localhost\r\nConnection: close\r\n\r\n")
        answer = b""
        while chunk := sock.recv(65_536):
            answer += chunk
    assert answer.count(b"HTTP/1.1 200 OK") == 2 and b'"ok"' in answer and b'"ready"' in answer


class Slow:
    """A route that waits until it is let go, and one that streams."""

    def __init__(self) -> None:
        self.go = Event()
        self.begun = 0

    def on_get(self, request: Any, response: Any) -> None:
        self.begun += 1
        if request.get_param("stream"):
            assert request.env[admin_connections.STREAM]()
        self.go.wait(30)
        response.media = {}


def test_requests_wait_for_their_turn_and_health_does_not(health: Health, metrics: Metrics) -> None:
    admin, slow = Admin("127.0.0.1", 0, health, metrics, (), 2, 2, 3), Slow()
    admin.app.add_route("/slow", slow)
    admin.start()
    asked = [gevent.spawn(quick, admin.address, "/slow") for _ in range(5)]
    with gevent.Timeout(30):
        while slow.begun < 2:
            gevent.sleep(0.01)
        assert quick(admin.address) == b"200" and quick(admin.address, "/readyz") == b"200"
        assert slow.begun == 2
        slow.go.set()
        gevent.joinall(asked)
    assert [greenlet.value for greenlet in asked] == [b"200"] * 5
    admin.close()


def test_a_turn_that_does_not_come_is_503(health: Health, metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_connections, "TURN", 0.05)
    admin, slow = Admin("127.0.0.1", 0, health, metrics, (), 1, 1, 3), Slow()
    admin.app.add_route("/slow", slow)
    admin.start()
    first = gevent.spawn(quick, admin.address, "/slow")
    with gevent.Timeout(30):
        while not slow.begun:
            gevent.sleep(0.01)
        assert quick(admin.address, "/slow") == b"503"
        slow.go.set()
        assert first.get() == b"200"
        assert quick(admin.address, "/slow") == b"200"
    admin.close()


def test_streams_leave_the_turns_to_others_and_have_their_own_bound(health: Health, metrics: Metrics) -> None:
    admin, slow = Admin("127.0.0.1", 0, health, metrics, (), 1, 1, 4), Slow()
    admin.app.add_route("/slow", slow)
    admin.start()
    streams = [gevent.spawn(quick, admin.address, "/slow?stream=1") for _ in range(3)]
    with gevent.Timeout(30):
        while slow.begun < 3:
            gevent.sleep(0.01)
        assert admin.streams == 3
        assert quick(admin.address, "/metrics") == b"200", "streams hold no turn"
        logger.disable("orchestrator")
        assert quick(admin.address, "/slow?stream=1") == b"500", "three quarters are one client's"
        logger.enable("orchestrator")
        slow.go.set()
        gevent.joinall(streams)
        while admin.streams:
            gevent.sleep(0.01)
    admin.close()


def test_an_answer_that_is_not_read_ends(health: Health, metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_connections, "LONGEST", 0.2)
    told: list[str] = []
    sink = logger.add(told.append, level="ERROR")
    admin, slow = Admin("127.0.0.1", 0, health, metrics, (), 1, 1, 3), Slow()
    admin.app.add_route("/slow", slow)
    admin.start()
    with gevent.Timeout(30), socket.create_connection(admin.address, timeout=30) as sock:
        sock.sendall(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while sock.recv(1000):
            pass
        slow.go.set()
        assert quick(admin.address, "/slow") == b"200"
    admin.close()
    logger.remove(sink)
    assert told == []
