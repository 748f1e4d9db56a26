"""The whole server as a process of its own: start, refusals, work for flows, reload, drain (F15-F20, F23, F29)."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import gevent.ssl
import pytest
from echo_core import received, wait_until
from gevent import socket as cooperative
from gevent.server import StreamServer
from gevent.subprocess import Popen
from loguru import logger
from web import Web, answer, web

from orchestrator.app import Server
from orchestrator.errors import InputError, ListenError, OrchestratorError, StepError
from orchestrator.flow.language.registry import ACTIONS
from orchestrator.flow.run.effects import Http
from orchestrator.settings import read_settings
from orchestrator.site import read_site
from orchestrator.testing.freeswitch import FakeFreeSwitch
from orchestrator.testing.recordings import Recording

DTMF = Path(__file__).parent.parent / "fixtures" / "esl" / "dtmf.esl"

FLOWS = """\
flowlang: 1
secrets:
  KEY: {env: PUSH_KEY}
flows:
  says_status:
    on: invite
    when: call.target.user == 'status'
    do:
      - fs.api: status
        as: said
        on_error:
          - reply: {code: 503, reason: '${error.type}'}
          - stop
      - reply: {code: 486, reason: '${said.text.prefix(7)}'}
  asks_web:
    on: invite
    when: call.target.user == 'web'
    do:
      - http:
          url: 'http://web.invalid/ask?from=${call.from.user}'
          headers: {Authorization: 'key=${secrets.KEY}'}
          json: {call: '${call.id}', n: '${1 + 1}'}
          method: POST
        as: told
        on_error:
          - reply: {code: 503, reason: '${error.type}'}
          - stop
      - reply: {code: 486, reason: '${told.text}'}
  asks_the_dead:
    on: invite
    when: call.target.user == 'dead'
    do:
      - http: http://127.0.0.1:1/
        on_error:
          - reply: {code: 503, reason: '${error.type}'}
  greets:
    on: invite
    when: call.target.user == 'hello'
    do:
      - log: 'hello from ${call.from.display}'
      - reply: {code: 486, reason: first}
"""

CONFIG = """\
sip: {listen: ['udp:127.0.0.1:0'], domains: [example.com]}
location: 'LOCATION'
flows: [FLOWS]
admin: {listen: '127.0.0.1:0'}
FREESWITCH
"""


class Running:
    """One `orchestrator run`; what it writes goes to files, so that it never waits for us."""

    def __init__(self, folder: Path, *, flows: str = FLOWS, config: str = CONFIG, **values: str) -> None:
        self.folder = folder
        self.flows = folder / "flows" / "a.flow.yaml"
        self.flows.parent.mkdir(exist_ok=True)
        self.flows.write_text(flows)
        values = {"LOCATION": "memory:", "FREESWITCH": "", "FLOWS": str(self.flows.parent), **values}
        for name, value in values.items():
            config = config.replace(name, value)
        (folder / "config.yml").write_text(config)
        self.err = folder / f"err-{len(list(folder.iterdir()))}.txt"
        self.process: Any = None
        self.sockets: list[socket.socket] = []
        self.sip = self.admin = ("", 0)

    def start(self, before: Callable[[], None] | None = None) -> Running:
        with self.err.open("w") as err:
            self.process = Popen(
                [sys.executable, "-c", "from orchestrator.cli import main; main()", "run", "-c", "config.yml"],
                cwd=self.folder,
                stderr=err,
                stdout=err,
                stdin=subprocess.DEVNULL,
                preexec_fn=before,
                env={**os.environ, "PUSH_KEY": "s3cret", "PYTHONPATH": str(Path(__file__).parents[2])},
            )
        return self

    def ready(self) -> Running:
        self.start()
        return self.wait_ready()

    def wait_ready(self) -> Running:
        wait_until(lambda: self.line("\nready "), 90)
        line = next(line for line in self.output.splitlines() if line.startswith("ready "))
        udp, http = line.removeprefix("ready ").split()
        self.sip = ("127.0.0.1", int(udp.rpartition(":")[2]))
        self.admin = ("127.0.0.1", int(http.rpartition(":")[2]))
        return self

    def line(self, part: str) -> str:
        assert self.process.poll() is None, self.output
        """The first line with this in it; one that begins with it after a line feed."""
        lines = ("\n" + self.output).split("\n")
        return next((line for line in lines if part in "\n" + line), "")

    @property
    def output(self) -> str:
        return self.err.read_text()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ended(self, seconds: float = 60) -> int:
        return int(self.process.wait(seconds))

    def get(self, target: str) -> tuple[int, str]:
        with cooperative.create_connection(self.admin, timeout=30) as sock:
            sock.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            octets = b""
            while chunk := sock.recv(65_536):
                octets += chunk
        head, _, body = octets.decode().partition("\r\n\r\n")
        return int(head.split()[1]), body

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        for sock in self.sockets:
            sock.close()
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(60)


class Caller:
    """Writes SIP by hand: what is tested is the server around the core."""

    def __init__(self, server: Running) -> None:
        self.server = server
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.sock.setblocking(False)
        server.sockets.append(self.sock)
        self.port = self.sock.getsockname()[1]
        self.calls = 0

    def send(self, method: str, uri: str, call: str, *headers: str, cseq: int = 1, to_tag: str = "") -> None:
        lines = [
            f"{method} {uri} SIP/2.0",
            f"Via: SIP/2.0/UDP 127.0.0.1:{self.port};branch=z9hG4bK{call}{cseq};rport",
            'From: "Al{0}ice" <sip:alice@example.com>;tag=a',
            f"To: <{uri}>{to_tag}",
            f"Call-ID: {call}@127.0.0.1",
            f"CSeq: {cseq} {method}",
            "Max-Forwards: 70",
            f"Contact: <sip:alice@127.0.0.1:{self.port}>",
            *headers,
            "Content-Length: 0",
        ]
        self.sock.sendto("\r\n".join([*lines, "", ""]).encode(), self.server.sip)

    def answer(self, seconds: float = 30.0) -> str:
        """The next final response, whole."""
        data = wait_until(lambda: received(self.sock), seconds)
        return self.answer(seconds) if data.startswith(b"SIP/2.0 1") else data.decode()

    def invite(self, user: str) -> str:
        """Status line of the final answer to a call."""
        self.calls += 1
        uri, call = f"sip:{user}@example.com", f"c{self.port}n{self.calls}"
        self.send("INVITE", uri, call)
        response = self.answer()
        tag = next(line for line in response.split("\r\n") if line.startswith("To:")).partition(";")[2]
        self.send("ACK", uri, call, to_tag=f";{tag}")
        return response.partition("\r\n")[0]


@pytest.fixture(scope="module")
def site() -> Iterator[Web]:
    with web(answer(200, b"told")) as site:
        yield site


@pytest.fixture(scope="module")
def server(site: Web, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for the tests that leave it as it was."""
    with Running(tmp_path_factory.mktemp("shared"), flows=FLOWS.replace("http://web.invalid", site.url)) as running:
        yield running.ready()


@pytest.fixture
def caller(server: Running) -> Caller:
    return Caller(server)


# --- serving ----------------------------------------------------------------------------------------------------------


def test_serves_sip_and_says_so(server: Running, caller: Caller) -> None:
    caller.send("OPTIONS", f"sip:127.0.0.1:{server.sip[1]}", "o1")
    assert caller.answer().startswith("SIP/2.0 200 ")
    assert server.get("/readyz") == (200, '{"status": "ready"}')
    status, metrics = server.get("/metrics")
    assert status == 200
    assert 'orchestrator_datagrams_total{direction="in"} 1.0' in metrics
    assert "orchestrator_turns_failed_total 0.0" in metrics


def test_flow_logs_what_a_caller_wrote_as_text(server: Running, caller: Caller) -> None:
    assert caller.invite("hello") == "SIP/2.0 486 first"
    assert wait_until(lambda: server.line("hello from Al{0}ice"))
    assert "flow=greets" in server.line("hello from")


def test_http_step_in_a_patched_process(server: Running, caller: Caller, site: Web) -> None:
    assert caller.invite("web") == "SIP/2.0 486 told"
    request = site.exchanges[-1]
    assert request.target == "/ask?from=alice"
    assert request.headers["authorization"] == "key=s3cret"
    assert json.loads(request.body)["n"] == 2
    assert 'http_tries_total{outcome="2xx"}' in server.get("/metrics")[1]
    assert "s3cret" not in server.output


def test_dead_web_service_is_the_flow_s_error(caller: Caller) -> None:
    assert caller.invite("dead") == "SIP/2.0 503 http.connect"


def test_no_freeswitch_configured(caller: Caller) -> None:
    assert caller.invite("status") == "SIP/2.0 503 esl.down"


def test_tls_works_and_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patched TLS over our own guarded socket: a trusted certificate is fine, for another name it is not."""
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=x -addext subjectAltName=DNS:localhost"
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    subprocess.run([*command.split(), "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)

    context = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    site = StreamServer(("127.0.0.1", 0), Web(answer(200, b"told")).handle, ssl_context=context)
    site.start()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    port = site.server_port
    flows = FLOWS.replace("http://web.invalid", f"https://localhost:{port}").replace(
        "http://127.0.0.1:1/", f"https://127.0.0.1:{port}/"
    )
    with Running(tmp_path, flows=flows) as server:
        caller = Caller(server.ready())
        assert caller.invite("web") == "SIP/2.0 486 told"
        assert caller.invite("dead") == "SIP/2.0 503 http.connect"
    site.stop(timeout=0)


def test_freeswitch_commands_and_readiness(tmp_path: Path) -> None:
    with FakeFreeSwitch(password="s3cret") as switch:
        configured = f"freeswitch: {{fs1: {{host: 127.0.0.1, port: {switch.port}, password: s3cret, probe: 0s}}}}"
        with Running(tmp_path, FREESWITCH=configured) as server:
            caller = Caller(server.ready())
            wait_until(lambda: server.get("/readyz")[0] == 200)
            assert caller.invite("status").startswith("SIP/2.0 486 UP ")
            assert "api status" in switch.commands.texts
            assert 'orchestrator_esl_up{server="fs1"} 1.0' in server.get("/metrics")[1]
            assert switch.lose(199) == 1
            assert switch.emit(Recording.load(DTMF).find("CHANNEL_ANSWER"), times=2) == 1
            for said in ('lost_events_total{server="fs1"} 199.0', 'events_odd_total{kind="duplicate"} 1.0'):
                wait_until(lambda said=said: f"orchestrator_esl_{said}" in server.get("/metrics")[1])
            switch.stop()
            wait_until(lambda: server.get("/readyz")[0] == 503)
            assert "fs1" in server.get("/readyz")[1]
            assert caller.invite("status") == "SIP/2.0 503 esl.down"  # and SIP goes on
            assert caller.invite("hello") == "SIP/2.0 486 first"
            server.send(signal.SIGTERM)
            assert server.ended() == 0
            assert "Traceback" not in server.output


def test_each_call_leaves_a_record_in_the_file(tmp_path: Path) -> None:
    with Running(tmp_path, config=CONFIG + "cdr: cdr.jsonl\n") as server:
        caller = Caller(server.ready())
        assert caller.invite("hello") == "SIP/2.0 486 first"
        assert caller.invite("dead") == "SIP/2.0 503 http.connect"
        wait_until(lambda: "orchestrator_cdr_written_total 2.0" in server.get("/metrics")[1])
    first, second = map(json.loads, (tmp_path / "cdr.jsonl").read_text().splitlines())
    assert (first["flow"], first["code"], first["to"]) == ("greets", 486, "hello@example.com")
    assert (second["flow"], second["code"], second["answered"]) == ("asks_the_dead", 503, None)


# --- refusing to start ------------------------------------------------------------------------------------------------


def test_second_instance_is_refused_before_it_touches_anything(server: Running, tmp_path: Path) -> None:
    port = server.sip[1]
    config = CONFIG.replace("udp:127.0.0.1:0", f"udp:127.0.0.1:{port}")
    with Running(tmp_path, config=config, LOCATION="sqlite:///x.db") as second:
        second.start()
        assert second.ended() == 1
        wanted = f"error: cannot listen on udp:127.0.0.1:{port}: address in use; is another instance running?\n"
        assert second.output.endswith(wanted) and "ready" not in second.output
        assert not (tmp_path / "x.db").exists()


def test_mistake_in_the_configuration_is_named_with_its_place(tmp_path: Path) -> None:
    with Running(tmp_path, config=CONFIG.replace("admin:", "admln:")) as server:
        server.start()
        assert server.ended() == 1
        assert server.output.startswith("config.yml:4:1: error E101: unknown key 'admln'")


@contextmanager
def opened(tmp_path: Path, text: str, flows: str = FLOWS) -> Iterator[Server]:
    """What `serve` does until it is ready, and back."""
    (tmp_path / "a.flow.yaml").write_text(flows)
    text = text.replace("FLOWS", str(tmp_path)).replace("FREESWITCH", "").replace("LOCATION", "memory:")
    settings = read_settings("config.yml", text, {})
    with ExitStack() as stack:
        yield Server(read_site(settings, {}), stack)


def open_and_close(tmp_path: Path, text: str, flows: str = FLOWS) -> None:
    with opened(tmp_path, text, flows):
        pass


def test_http_steps_stay_within_the_allowed_networks(tmp_path: Path) -> None:
    config = CONFIG + "http: {allow: [203.0.113.0/24]}\n"
    with opened(tmp_path, config) as server, pytest.raises(StepError, match="is not in an allowed network"):
        server.jobs.http.perform(Http("GET", "http://127.0.0.1:1/"))


def test_what_was_opened_is_closed_again(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    for _ in range(2):
        open_and_close(tmp_path, CONFIG.replace("udp:127.0.0.1:0", f"udp:127.0.0.1:{port}"))
    with socket.create_server(("127.0.0.1", 0)) as other:  # and when something later fails
        taken = other.getsockname()[1]
        with pytest.raises(ListenError):
            config = CONFIG.replace("{listen: '127.0.0.1:0'}", f"{{listen: '127.0.0.1:{taken}'}}")
            open_and_close(tmp_path, config.replace("udp:127.0.0.1:0", f"udp:127.0.0.1:{port}"))
    open_and_close(tmp_path, CONFIG.replace("udp:127.0.0.1:0", f"udp:127.0.0.1:{port}"))


def test_mistake_in_a_flow_is_named_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        open_and_close(tmp_path, CONFIG, FLOWS.replace("- fs.api: status", "- fs.apy: status"))
    assert str(caught.value).startswith(f"{tmp_path}/a.flow.yaml:9:9: error E109: unknown action 'fs.apy'")


def test_flow_that_cannot_be_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ACTIONS["fs.api"], "handler", None)
    with pytest.raises(InputError, match=r"a.flow.yaml:9:9: error E119: fs.api: cannot be run by this version"):
        open_and_close(tmp_path, CONFIG)


def test_admin_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ListenError, match=f"cannot listen on http://127.0.0.1:{port}: address in use"):
            open_and_close(
                tmp_path, CONFIG.replace("admin: {listen: '127.0.0.1:0'}", f"admin: {{listen: '127.0.0.1:{port}'}}")
            )


def test_location_store_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(OrchestratorError, match=r"^location store: cannot open /no/such/folder/x\.db"):
        open_and_close(tmp_path, CONFIG.replace("LOCATION", "sqlite:////no/such/folder/x.db"))


def test_damaged_location_store_is_set_aside_and_named(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"this is no database, " * 200)
    lines: list[Any] = []
    sink = logger.add(lambda message: lines.append(message.record), level="ERROR")
    open_and_close(tmp_path, CONFIG.replace("LOCATION", f"sqlite:///{tmp_path}/x.db"))
    logger.remove(sink)
    assert [line["message"] for line in lines] == ["location_set_aside"]
    assert Path(lines[0]["extra"]["file"]).read_bytes().startswith(b"this is no database")


def test_registrations_survive_the_process(tmp_path: Path) -> None:
    with Running(tmp_path, LOCATION="sqlite:///x.db") as server:
        caller = Caller(server.ready())
        caller.send("REGISTER", "sip:alice@example.com", "r1", "Expires: 600")
        assert caller.answer().startswith("SIP/2.0 200 ")
        server.process.kill()  # no goodbye
        server.ended()
    with opened(tmp_path, CONFIG.replace("LOCATION", f"sqlite:///{tmp_path}/x.db")) as again:
        assert b"orchestrator_bindings 1.0\n" in again.metrics.exposition()


# --- reload -----------------------------------------------------------------------------------------------------------


def test_reload_takes_new_flows_and_refuses_broken_ones(server: Running, caller: Caller) -> None:
    loaded = server.flows.read_text()
    assert caller.invite("hello") == "SIP/2.0 486 first"
    server.flows.write_text(loaded.replace("reason: first", "reason: second"))
    server.send(signal.SIGHUP)
    wait_until(lambda: server.line("flows_reloaded"))
    assert caller.invite("hello") == "SIP/2.0 486 second"
    server.flows.write_text(loaded.replace("reply: {code: 486, reason: first}", "reply: {kode: 486}"))
    server.send(signal.SIGHUP)
    line = wait_until(lambda: server.line("reload_refused"))
    assert f'mistake="{server.flows}:41:' in line and "reply" in line
    assert caller.invite("hello") == "SIP/2.0 486 second"
    server.flows.write_bytes(b"\xff")
    server.send(signal.SIGHUP)
    wait_until(lambda: "E003" in server.output)
    assert caller.invite("hello") == "SIP/2.0 486 second"
    server.flows.write_text(loaded)
    server.send(signal.SIGHUP)
    wait_until(lambda: server.output.count("flows_reloaded") == 2)
    assert caller.invite("hello") == "SIP/2.0 486 first"
    assert "Traceback" not in server.output and "greenlet" not in server.output


def test_a_mistake_anywhere_leaves_the_last_good_state_as_a_whole(tmp_path: Path) -> None:
    users = tmp_path / "users.yaml"
    users.write_text("alice: geheim\n")
    config = CONFIG + "users: {local: {file: users.yaml}}\n"
    with Running(tmp_path, config=config) as server:
        caller = Caller(server.ready())
        good = (tmp_path / "config.yml").read_text()
        wrong = {
            users: ("alice: {ha1: 1}\n", "users.yaml:1:14: error E106"),
            tmp_path / "config.yml": (good.replace("admin:", "admln:"), "config.yml:4:1: error E101"),
        }
        flows = server.flows.read_text()
        for file, (text, place) in wrong.items():
            kept = file.read_text()
            file.write_text(text)
            server.flows.write_text(flows.replace("reason: first", "reason: second"))
            server.send(signal.SIGHUP)
            wait_until(lambda place=place: place in server.output)
            wait_until(lambda: "degraded" in server.get("/readyz")[1])
            status, body = server.get("/readyz")
            assert (status, place in body) == (200, True)
            assert caller.invite("hello") == "SIP/2.0 486 first", "nothing of a set with a mistake is taken"
            file.write_text(kept)
            server.flows.write_text(flows)
            server.send(signal.SIGHUP)
            wait_until(lambda: server.get("/readyz") == (200, '{"status": "ready"}'))
        assert "geheim" not in server.output


# --- stopping ---------------------------------------------------------------------------------------------------------


def ringing(server: Running, caller: Caller, count: int, response: str = "180 Ringing") -> None:
    """A phone, registered as bob, that takes `count` calls and lets them ring; without a response it is gone."""
    phone = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    phone.bind(("127.0.0.1", 0))
    phone.setblocking(False)
    server.sockets.append(phone)
    port = phone.getsockname()[1]
    caller.send("REGISTER", "sip:bob@example.com", "reg", "Expires: 600", f"Contact: <sip:bob@127.0.0.1:{port}>")
    assert caller.answer().startswith("SIP/2.0 200 ")
    for number in range(count):
        caller.send("INVITE", "sip:bob@example.com", f"ring{number}")
    for _ in range(count):
        invite = wait_until(lambda: received(phone))
        assert invite.startswith(b"INVITE ")
        if response:
            phone.sendto(respond(invite, response), server.sip)


def respond(request: bytes, status: str) -> bytes:
    """A response by the rules of RFC 3261 §8.2.6."""
    kept = [
        line for line in request.split(b"\r\n") if line.split(b":")[0].lower() in (b"via", b"from", b"call-id", b"cseq")
    ]
    to = next(line for line in request.split(b"\r\n") if line.lower().startswith(b"to:")) + b";tag=phone"
    return b"\r\n".join([f"SIP/2.0 {status}".encode(), *kept, to, b"Content-Length: 0", b"", b""])


def test_stop_lets_ringing_calls_end_and_refuses_new_ones(tmp_path: Path) -> None:
    """Registered phones ring while SIGTERM comes: they may still answer, a new call is told to go elsewhere (F19)."""
    with Running(tmp_path) as server:
        caller = Caller(server.ready())
        # two Contact headers in one REGISTER: alice's own and bob's; both are kept
        ringing(server, caller, 1)
        server.send(signal.SIGTERM)
        wait_until(lambda: server.line("draining"))
        newcomer = Caller(server)
        newcomer.send("INVITE", "sip:hello@example.com", "new")
        response = newcomer.answer()
        assert response.startswith("SIP/2.0 503 ") and "Retry-After:" in response
        assert server.get("/readyz")[0] == 503
        assert server.process.poll() is None
        caller.send("CANCEL", "sip:bob@example.com", "ring0")
        wait_until(lambda: b"487" in received(caller.sock))
        assert server.ended() == 0


def test_a_call_that_nobody_has_responded_to_does_not_hold_up_a_stop(tmp_path: Path) -> None:
    """A phone that is gone: the caller hears 503 after `stop: setup`, one final answer, and the process ends."""
    with Running(tmp_path) as server:
        caller = Caller(server.ready())
        ringing(server, caller, 1, response="")
        server.send(signal.SIGTERM)
        assert wait_until(lambda: b"SIP/2.0 503 " in received(caller.sock))
        assert server.ended() == 0


def test_a_stop_waits_for_ringing_calls_as_long_as_configured(tmp_path: Path) -> None:
    """`stop: ringing`: then the caller hears 503 and the phone a CANCEL, without a second signal."""
    with Running(tmp_path, config=CONFIG + "stop: {setup: 100ms, ringing: 300ms}\n") as server:
        caller = Caller(server.ready())
        ringing(server, caller, 1)
        server.send(signal.SIGTERM)
        assert wait_until(lambda: b"SIP/2.0 503 " in received(caller.sock))
        assert wait_until(lambda: b"CANCEL " in received(server.sockets[-1]))
        assert server.ended() == 0


LASTING = """\
flowlang: 1
flows:
  lasts:
    on: invite
    do:
      - relay: registered
    on_end:
      - sleep: 200ms
      - http: {url: 'http://web.invalid/ended', method: POST, json: {reason: '${call.end_reason}'}}
"""


def test_an_answered_call_gets_its_record_and_its_last_steps_at_a_stop(tmp_path: Path) -> None:
    with web(answer(200, b"told")) as site:
        flows = LASTING.replace("http://web.invalid", site.url)
        with Running(tmp_path, flows=flows, config=CONFIG + "cdr: cdr.jsonl\n") as server:
            caller = Caller(server.ready())
            ringing(server, caller, 1, response="200 OK")
            wait_until(lambda: b"SIP/2.0 200 " in received(caller.sock))
            server.send(signal.SIGTERM)
            assert server.ended() == 0
            assert "Traceback" not in server.output
        assert b'"server stops"' in site.exchanges[-1].body
    (record,) = map(json.loads, (tmp_path / "cdr.jsonl").read_text().splitlines())
    assert (record["code"], record["ended_by"], record["reason"]) == (200, "engine", "server stops")
    assert record["answered"] is not None


def test_second_stop_does_not_wait(tmp_path: Path) -> None:
    with Running(tmp_path) as server:
        caller = Caller(server.ready())
        ringing(server, caller, 3)
        server.send(signal.SIGTERM)
        wait_until(lambda: server.line("draining"))
        gevent.sleep(0.2)
        assert server.process.poll() is None
        server.send(signal.SIGINT)
        assert server.ended() in (0, -signal.SIGALRM), "ends by itself, or by the kernel on a busy machine"


# --- no descriptors left ----------------------------------------------------------------------------------------------


def test_sip_goes_on_when_descriptors_run_out(tmp_path: Path) -> None:
    """With 40 file descriptors and more connections to the admin port than that, calls are still answered (F23)."""
    with Running(tmp_path, flows=FLOWS.replace("http://web.invalid", "http://127.0.0.1:1")) as server:
        server.start(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40)))
        caller = Caller(server.wait_ready())
        greedy = [socket.create_connection(server.admin) for _ in range(60)]
        gevent.sleep(0.1)
        assert caller.invite("hello") == "SIP/2.0 486 first"
        assert caller.invite("web") == "SIP/2.0 503 http.connect"
        for sock in greedy:
            sock.close()
        wait_until(lambda: server.get("/healthz")[0] == 200)
        assert "Traceback" not in server.output
