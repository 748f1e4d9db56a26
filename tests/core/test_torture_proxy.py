"""RFC 4475 and RFC 5118 message by message through the whole core: what it answers, what it sends on, what it must not
do.

The messages and the verdicts lie in a folder beside the repository; without it these tests are skipped. The world is
set up so that the expected outcome can show: the sender is trusted, names lead to one gateway, and for a REGISTER we
are its registrar.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.settings import ListenPoint
from orchestrator.sip.message import Request, Response, build_response, parse_message
from orchestrator.testing.phone import Address
from orchestrator.testing.world import PROXY, World

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "torture"

SENDER: Address = ("192.0.2.99", 5060)
GATEWAY = "203.0.113.99"
"""Where every name leads."""
V6 = ListenPoint("2001:db8:ffff::1", 5060)


@dataclass(frozen=True)
class Message:
    name: str
    data: bytes
    verdict: dict[str, Any]

    @property
    def outcomes(self) -> set[str]:
        return set(self.verdict["outcomes"])


def messages() -> dict[str, Message]:
    found = {}
    for index in sorted(FOLDER.glob("*/index.json")):
        for verdict in json.loads(index.read_text(encoding="utf-8"))["messages"]:
            data = (index.parent / verdict["file"]).read_bytes()
            found[verdict["name"]] = Message(verdict["name"], data, verdict)
    return found


MESSAGES = messages()
pytestmark = [
    pytest.mark.torture,
    pytest.mark.skipif(not MESSAGES, reason="the torture messages are not beside the repository"),
]


class Stage:
    """A world, one message delivered to it, and what came of that."""

    def __init__(self, name: str) -> None:
        self.message = MESSAGES[name]
        everybody = (ip_network("0.0.0.0/0"), ip_network("::/0"))
        points = (ListenPoint(*PROXY), V6)
        self.world = World(points=points, trust=everybody, domains=self.domains())
        self.world.on_job = lambda job: GATEWAY
        self.deliver(self.message.data)

    def domains(self) -> tuple[str, ...]:
        """A REGISTER is for us; everything else passes through."""
        if self.message.verdict.get("method") != "REGISTER":
            return ()
        registrar = re.match(rb"REGISTER\s+sips?:(\[[^\]]+\]|[^;:\s]+)", self.message.data)
        return ("example.com", registrar[1].decode()) if registrar else ("example.com",)

    def deliver(self, data: bytes) -> None:
        self.world.deliver(data, SENDER, PROXY)
        self.world.run()

    @property
    def out(self) -> list[tuple[Address, bytes]]:
        homes = {(point.host, point.port) for point in self.world.settings.points}
        return [(target, data) for _, source, target, data in self.world.sent if source in homes]

    @property
    def answers(self) -> list[tuple[int, bytes]]:
        """Responses sent: (status, octets). They may hold what the peer has written wrong, so they are not parsed."""
        return [(int(data[8:11]), data) for _, data in self.out if data.startswith(b"SIP/2.0 ")]

    @property
    def forwarded(self) -> list[Request]:
        parsed = [parse_message(data) for _, data in self.out if not data.startswith(b"SIP/2.0 ")]
        assert all(isinstance(message, Request) for message in parsed)
        return [message for message in parsed if isinstance(message, Request)]

    @property
    def outcome(self) -> str:
        """In the words of the index: a status, "routed" (sent on, or taken by the registrar), or "drop"."""
        finals = [status for status, _ in self.answers if status >= 200]
        if self.forwarded or (self.message.verdict.get("method") == "REGISTER" and finals == [200]):
            return "routed"
        return str(finals[0]) if finals else "drop"

    @property
    def copy(self) -> Request:
        """The one copy that was sent on."""
        [copy] = self.forwarded
        return copy


MUST_NOT: dict[str, Callable[[Stage], bool]] = {
    "forward": lambda stage: bool(stage.forwarded),
    "forward with <>": lambda stage: any(b"<" in copy.uri for copy in stage.forwarded),
    "forward with LWS": lambda stage: bool(stage.forwarded),
    "forward with double SP": lambda stage: any(b"  " in data.split(b"\r\n")[0] for _, data in stage.out),
    "forward with trailing SP": lambda stage: any(data.split(b"\r\n")[0].endswith(b" ") for _, data in stage.out),
    "forward with ?Route or Route: sip:example.com": lambda stage: bool(stage.forwarded),
    "forward with the error": lambda stage: bool(stage.forwarded),
    "forward to To URI": lambda stage: bool(stage.forwarded),
    "200 as REGISTER": lambda stage: len(stage.world.location) > 0 or any(status == 200 for status, _ in stage.answers),
    "any reply or forward for the INVITE": lambda stage: any(b"INVITE" in data for _, data in stage.out),
    "binding whose headers become a Route": lambda stage: len(stage.world.location) > 0,
    "sendto broadcast": lambda stage: any(target[0] == "255.255.255.255" for target, _ in stage.out),
    "two such requests sharing one transaction": lambda stage: shares_a_transaction(stage),
    "crash": lambda stage: False,  # it would have raised before anybody asks
}  # fmt: skip


def shares_a_transaction(stage: Stage) -> bool:
    """The same branch with another Call-ID is another request: it has to be sent on too."""
    before = len(stage.forwarded)
    call_id = re.search(rb"(?im)^(?:Call-ID|i)\s*:\s*(\S+)", stage.message.data)
    assert call_id is not None
    stage.deliver(stage.message.data.replace(call_id[1], b"another"))
    return len(stage.forwarded) == before


def does(stage: Stage, forbidden: str) -> bool:
    if forbidden.isdigit():
        return int(forbidden) in [status for status, _ in stage.answers]
    return MUST_NOT[forbidden](stage)


# --- every message ----------------------------------------------------------------------------------------------------


def test_the_corpora_are_complete() -> None:
    assert len(MESSAGES) == 49 + 12


@pytest.mark.parametrize("name", MESSAGES)
def test_the_verdict_is_that_of_the_index(name: str) -> None:
    stage = Stage(name)
    assert stage.outcome in stage.message.outcomes
    for forbidden in stage.message.verdict.get("must_not", ()):
        assert not does(stage, forbidden), forbidden


@pytest.mark.parametrize("name", MESSAGES)
def test_nothing_remains_of_it(name: str) -> None:
    stage = Stage(name)
    stage.world.run(70.0)
    assert not any(stage.world.leftovers().values())
    for _, data in stage.out:
        if stage.message.verdict["valid"] == "valid":
            parse_message(data)


@pytest.mark.parametrize("name", MESSAGES)
def test_its_repetition_is_no_second_request(name: str) -> None:
    stage = Stage(name)
    before = len(stage.forwarded), len(stage.world.location)
    stage.deliver(stage.message.data)
    assert (len(stage.forwarded), len(stage.world.location)) == before


PASSED_ON = [n for n, m in MESSAGES.items() if m.outcomes == {"routed"} and m.verdict.get("method") != "REGISTER"]


@pytest.mark.parametrize("name", PASSED_ON)
def test_an_answer_finds_its_way_back_with_every_via(name: str) -> None:
    """What the sender wrote into its Vias comes back octet for octet, but for the source we noted in the first."""
    stage = Stage(name)
    copy = stage.copy
    vias = [via.tail for via in copy.vias()[1:]]
    copy_to = next(target for target, data in stage.out if not data.startswith(b"SIP/2.0 "))
    home = (V6.host, V6.port) if ":" in copy_to[0] else PROXY
    stage.world.deliver(build_response(copy, 404, "Not Found", b"t"), copy_to, home)
    stage.world.run()
    status, octets = next(item for item in stage.answers if item[0] >= 200)
    answer = parse_message(octets)
    assert status == 404
    assert isinstance(answer, Response)
    assert [via.tail for via in answer.vias()] == vias
    assert (answer.call_id, answer.cseq, answer.cseq_method) == (copy.call_id, copy.cseq, copy.cseq_method)


def test_what_is_answered_400_names_the_reason_and_never_us() -> None:
    for name, message in MESSAGES.items():
        for status, data in Stage(name).answers:
            if status >= 300:
                phrase = data.split(b"\r\n")[0].split(b" ", 2)[2]
                assert re.fullmatch(rb"[A-Za-z0-9 *-]+", phrase), (name, phrase)
                assert b"Traceback" not in data
                assert len(data) < 1.2 * len(message.data) + 100


# --- what the copies look like ----------------------------------------------------------------------------------------


def test_wsinv_follows_its_route_and_keeps_what_it_does_not_know() -> None:
    copy = Stage("wsinv").copy
    assert copy.max_forwards == 67
    assert [route.uri for route in copy.routes()] == [b"sip:services.example.com;lr;unknownwith=value;unknown-no-value"]
    assert copy.get(b"unknownheaderwithunusualvalue") == b";;,,;;,;"
    assert copy.get(b"newfangledheader") == b"newfangled value continued newfangled value"
    assert len(copy.vias()) == 4
    assert len(copy.body) == 150


UNTOUCHED = ["intmeth", "esc01", "esc02", "mpart01", "semiuri", "invut", "sdp01", "baddate", "ipv6-in-sdp"]


@pytest.mark.parametrize("name", UNTOUCHED)
def test_a_copy_differs_from_the_original_only_where_a_proxy_changes_something(name: str) -> None:
    stage = Stage(name)
    original = parse_message(stage.message.data)
    assert isinstance(original, Request)
    copy = stage.copy
    assert (copy.method, copy.uri, copy.body) == (original.method, original.uri, original.body)
    ours = (b"via", b"max-forwards", b"record-route", b"content-length")

    def lines(message: Request) -> list[bytes]:
        return [line for key, line in zip(message.names, message.lines, strict=True) if key not in ours]

    assert lines(copy) == lines(original)


def test_esc02_is_no_register() -> None:
    stage = Stage("esc02")
    assert stage.copy.method == b"RE%47IST%45R"
    assert len(stage.copy.contacts()) == 2


def test_longreq_is_answered_with_all_its_vias() -> None:
    stage = Stage("longreq")
    trying = parse_message(stage.answers[0][1])
    assert len(trying.vias()) == 34
    assert len(stage.copy.vias()) == 35


def test_inv2543_gets_a_max_forwards_and_a_length() -> None:
    copy = Stage("inv2543").copy
    assert copy.max_forwards == 70
    assert copy.get(b"content-length") == b"%d" % len(copy.body)
    assert copy.body.endswith(b"m=audio 49217 RTP/AVP 0\r\n")


def test_bext01_names_what_the_proxy_does_not_know() -> None:
    [(_, data)] = Stage("bext01").answers
    assert parse_message(data).get(b"unsupported") == b"noProxiesSupportThis, norDoAnyProxiesSupportThis"


# --- what the registrar has understood --------------------------------------------------------------------------------


def registered(name: str) -> list[bytes]:
    return sorted(binding.contact for binding in Stage(name).world.location)


def test_escnull_registers_two_contacts_for_a_user_with_a_nul() -> None:
    stage = Stage("escnull")
    assert registered("escnull") == [b"sip:%00%00@host5.example.com", b"sip:%00@host5.example.com"]
    assert {binding.aor for binding in stage.world.location} == {"null-\0-null@example.com"}


def test_dblreq_registers_one_contact_and_the_rest_is_noise() -> None:
    stage = Stage("dblreq")
    assert len(stage.world.location) == 1
    assert len(stage.out) == 1


def test_cparam_tells_parameters_of_the_header_from_those_of_the_uri() -> None:
    assert registered("cparam01") == [b"sip:+19725552222@gw1.example.net"]
    assert registered("cparam02") == [b"sip:+19725552222@gw1.example.net;unknownparam"]


def test_regescrt_keeps_the_escaped_header_and_rings_without_it() -> None:
    stage = Stage("regescrt")
    [binding] = stage.world.location
    assert binding.contact == b"sip:user@example.com?Route=%3Csip:sip.example.com%3E"
    caller = stage.world.peer("caller", "192.0.2.50")
    caller.ask("INVITE", "sip:user@example.com")
    stage.world.run()
    copy = stage.copy
    assert copy.uri == b"sip:user@example.com"
    assert copy.routes() == []


# --- RFC 5118 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("port-unambiguous", ("2001:db8::10", 5070)),
        ("via-received-param-with-delim", ("2001:db8::10", 5060)),
        ("via-received-param-no-delim", ("2001:db8::10", 5060)),
        ("ipv6-in-sdp", ("2001:db8::10", 5060)),
        ("ipv6-bug-abnf-3-colons", ("2001:db8::c000:201", 5060)),
        ("ipv6-correct-abnf-2-colons", ("2001:db8::c000:201", 5060)),
    ],
)
def test_an_ipv6_reference_leads_to_its_address_without_a_lookup(name: str, target: Address) -> None:
    stage = Stage(name)
    if MESSAGES[name].verdict["method"] == "REGISTER":
        stage.world = World(points=(ListenPoint(*PROXY), V6), trust=(ip_network("192.0.2.0/24"),), domains=())
        stage.deliver(stage.message.data)
    assert [to for to, data in stage.out if not data.startswith(b"SIP/2.0 ")] == [target]
    assert stage.world.jobs == []
    assert stage.copy.via.host == b"[2001:db8:ffff::1]"


def test_a_received_with_or_without_brackets_is_the_same_address() -> None:
    for name in ("via-received-param-with-delim", "via-received-param-no-delim"):
        message = parse_message(MESSAGES[name].data)
        assert any(via.received == b"2001:db8::9:255" for via in message.vias())


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_cut_off_anywhere_is_refused_or_ignored(name: str) -> None:
    stage = Stage(name)
    stage.world.sent.clear()
    head = stage.message.data.find(b"\r\n\r\n")
    for end in range(5, head if head > 0 else len(stage.message.data), 7):
        stage.deliver(stage.message.data[:end])
    assert stage.forwarded == []
    assert {status for status, _ in stage.answers} <= {400, 505}
