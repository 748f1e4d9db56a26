"""config/freeswitch in a real FreeSWITCH: it starts, lets only us in, and sends a call back as `relay … via:` needs it.

Skipped where no FreeSWITCH is installed. What stands in for the orchestrator is a UDP socket.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from media_server import CONFIGURATION, EventSocket, MediaServer, media_server, needs_freeswitch

pytestmark = needs_freeswitch


@pytest.fixture
def console(server: MediaServer) -> Iterator[EventSocket]:
    console = server.console()
    yield console
    console.close()


class Orchestrator:
    """Both our ends of a call through FreeSWITCH, on one UDP socket."""

    def __init__(self, server: MediaServer, host: str = "127.0.0.1") -> None:
        self.host = host
        self.freeswitch = (host, server.sip_port)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((host, 0))
        self.socket.settimeout(30)
        self.port = self.socket.getsockname()[1]

    def request(self, method: str, user: str, call_id: str, to_tag: str = "", extra: str = "", body: str = "") -> None:
        number = 2 if method == "BYE" else 1
        branch = "z9hG4bK" + re.sub(r"\W", "", f"{call_id}{number if method != 'ACK' else 'ack'}")
        lines = [
            f"{method} sip:{user}@example.com SIP/2.0",
            f"Via: SIP/2.0/UDP {self.host}:{self.port};branch={branch};rport",
            "Max-Forwards: 69",
            'From: "Alice" <sip:alice@example.com>;tag=a',
            f"To: <sip:{user}@example.com>{to_tag}",
            f"Call-ID: {call_id}",
            f"CSeq: {number} {method}",
            f"Contact: <sip:alice@{self.host}:{self.port}>",
            *([extra] if extra else []),
            *(["Content-Type: application/sdp"] if body else []),
            f"Content-Length: {len(body)}",
        ]
        self.socket.sendto("\r\n".join((*lines, "", body)).encode(), self.freeswitch)

    def respond(self, request: str, status: str, body: str = "") -> None:
        copied = [line for line in request.split("\r\n") if line.startswith(("Via:", "From:", "Call-ID:", "CSeq:"))]
        to = header(request, "To") + ("" if ";tag=" in header(request, "To") else ";tag=b")
        kind = ["Content-Type: application/sdp"] if body else []
        contact = f"Contact: <sip:bob@{self.host}:{self.port}>"
        lines = [f"SIP/2.0 {status}", *copied, f"To: {to}", contact, *kind, f"Content-Length: {len(body)}"]
        self.socket.sendto("\r\n".join((*lines, "", body)).encode(), self.freeswitch)

    def expect(self, start: str) -> str:
        """The next message that begins so; others (100, 180, repetitions) are passed over."""
        seen = []
        for _ in range(20):
            try:
                message = self.socket.recv(65_535).decode()
            except TimeoutError:
                break
            if message.startswith(start):
                return message
            seen.append(f"{message.splitlines()[0]} ({header(message, 'CSeq')})")
        pytest.fail(f"no {start}, but {seen}")


def header(message: str, name: str) -> str:
    match = re.search(rf"^{name}: (.*)\r$", message, re.MULTILINE)
    return match[1] if match else ""


def sdp(port: int) -> str:
    return (
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
        f"m=audio {port} RTP/AVP 8 0 101\r\na=rtpmap:101 telephone-event/8000\r\n"
    )


@pytest.fixture
def orchestrator(server: MediaServer) -> Iterator[Orchestrator]:
    orchestrator = Orchestrator(server)
    yield orchestrator
    orchestrator.socket.close()


def test_all_modules_of_the_configuration_are_there(console: EventSocket) -> None:
    modules = re.findall(
        r'<load module="(\w+)"/>', (CONFIGURATION / "autoload_configs" / "modules.conf.xml").read_text()
    )
    assert {module: console.api(f"module_exists {module}") for module in modules} == dict.fromkeys(modules, "true")


def test_it_starts_without_an_error(server: MediaServer) -> None:
    assert not re.search(r"\[(ERR|CRIT|ALERT)\]", server.output.read_text())


@pytest.mark.parametrize("password", ["ClueCon", "", "wrong"])
def test_another_password_is_refused(server: MediaServer, password: str) -> None:
    stranger = EventSocket(server.esl_port)
    assert stranger.log_in(password) == "-ERR invalid"
    stranger.close()


def test_a_call_comes_back_with_its_header_and_both_legs_carry_their_call_ids(
    orchestrator: Orchestrator, console: EventSocket
) -> None:
    mine = "X-Orchestrator-Call: c-42"
    orchestrator.request("INVITE", "*8", "front@example.com", extra=mine, body=sdp(40_000))
    back = orchestrator.expect(f"INVITE sip:*8@127.0.0.1:{orchestrator.port} SIP/2.0")
    assert header(back, "X-Orchestrator-Call") == "c-42"
    assert header(back, "From").startswith('"Alice" <sip:alice@example.com>')
    assert header(back, "To") == "<sip:*8@example.com>"
    assert header(back, "Route") == ""
    orchestrator.respond(back, "200 OK", sdp(40_002))
    answer = orchestrator.expect("SIP/2.0 200")
    assert header(answer, "Call-ID") == "front@example.com"
    to_tag = ";tag=" + header(answer, "To").partition(";tag=")[2]
    orchestrator.request("ACK", "*8", "front@example.com", to_tag)

    back_id = header(back, "Call-ID")
    for uuid in ("front@example.com", back_id):
        assert console.api(f"uuid_exists {uuid}") == "true"
        assert console.api(f"uuid_getvar {uuid} sip_h_X-Orchestrator-Call") == "c-42"

    orchestrator.request("BYE", "*8", "front@example.com", to_tag)
    assert header(orchestrator.expect("BYE "), "Call-ID") == back_id
    assert console.api("uuid_exists front@example.com") == "false"


def test_the_code_of_a_failure_goes_back_as_it_is(orchestrator: Orchestrator) -> None:
    orchestrator.request("INVITE", "bob", "busy@example.com", extra="X-Orchestrator-Call: c-43", body=sdp(40_004))
    orchestrator.respond(orchestrator.expect("INVITE "), "486 Busy Here")
    failure = orchestrator.expect("SIP/2.0 486")
    orchestrator.request("ACK", "bob", "busy@example.com", ";tag=" + header(failure, "To").partition(";tag=")[2])


def test_what_a_caller_dials_is_never_a_dial_string(orchestrator: Orchestrator) -> None:
    dialled = "bob,sofia%2Forchestrator%2Fx%40127.0.0.1"
    orchestrator.request("INVITE", dialled, "comma@example.com", extra="X-Orchestrator-Call: c-44", body=sdp(40_006))
    back = orchestrator.expect("INVITE ")
    assert back.startswith(f"INVITE sip:call@127.0.0.1:{orchestrator.port} SIP/2.0")
    orchestrator.respond(back, "404 Not Found")
    failure = orchestrator.expect("SIP/2.0 404")
    orchestrator.request("ACK", dialled, "comma@example.com", ";tag=" + header(failure, "To").partition(";tag=")[2])


def test_a_call_that_is_not_ours_is_refused(orchestrator: Orchestrator) -> None:
    orchestrator.request("INVITE", "bob", "stray@example.com", body=sdp(40_008))
    failure = orchestrator.expect("SIP/2.0 603")
    orchestrator.request("ACK", "bob", "stray@example.com", ";tag=" + header(failure, "To").partition(";tag=")[2])


def own_address() -> str:
    """An address of this machine that is not loopback, '' when it has none. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return ""
        host: str = probe.getsockname()[0]
    return "" if host.startswith("127.") else host


def test_phones_outside_of_the_container_are_told_the_outside_address(tmp_path: Path) -> None:
    """As in docker-compose.yml with SIP_ADVERTISE: SIP between neighbours, RTP at the published address."""
    here = own_address()
    if not here:
        pytest.skip("this machine has no address but loopback")
    outside = "203.0.113.7"
    with media_server(tmp_path, FREESWITCH_IP=here, ORCHESTRATOR_NET=f"{here}/32", EXTERNAL_RTP_IP=outside) as server:
        orchestrator = Orchestrator(server, here)
        orchestrator.request("INVITE", "bob", "front", extra="X-Orchestrator-Call: c-42", body=sdp(40_000))
        back = orchestrator.expect(f"INVITE sip:bob@{here}:{orchestrator.port} SIP/2.0")
        orchestrator.respond(back, "200 OK", sdp(40_002))
        answer = orchestrator.expect("SIP/2.0 200")
        for message in (back, answer):
            assert f"c=IN IP4 {outside}" in message
            assert f"@{here}:{server.sip_port}" in header(message, "Contact")
        orchestrator.socket.close()
