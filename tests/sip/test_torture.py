"""RFC 4475 and RFC 5118, message by message: what the parser refuses, and what it must have understood of the rest.

Some verdicts of the corpora are about parsing, others about routing. `REFUSED` are the parser's; `JUDGED_LATER` names
the messages that parse and are refused by the proxy or the registrar, and what of the parsed message they are judged
by. tests/conftest.py leaves this file out where the messages are not there.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sip_corpus import TortureMessage, torture_messages

from orchestrator.sip.message import (
    MalformedMessage,
    Message,
    Request,
    Response,
    build_response,
    forward_request,
    forward_response,
    parse_message,
    salvage_request,
)

MESSAGES = {message.name: message for message in torture_messages()}
pytestmark = pytest.mark.torture

REFUSED = {
    "badinv01": 400, "clerr": 400, "ncl": 400, "scalar02": 400, "quotbal": 400, "ltgtruri": 400, "lwsruri": 400,
    "lwsstart": 400, "escruri": 400, "badaspec": 400, "baddn": 400, "badvers": 505, "mismatch01": 400,
    "mismatch02": 400, "insuf": 400, "multi01": 400, "mcl01": 400, "ipv6-bad": 400, "scalarlg": 0, "bigcode": 0,
}  # fmt: skip
"""Message → status the parser refuses it with; 0 is silence."""

JUDGED_LATER: dict[str, Callable[[Message], bool]] = {
    "unkscm": lambda message: isinstance(message, Request) and not message.parsed_uri.is_sip,  # 416
    "novelsc": lambda message: isinstance(message, Request) and message.parsed_uri.scheme == b"soap.beep",  # 416
    "unksm2": lambda message: not message.to.parsed.is_sip,  # registrar: 400
    "bext01": lambda message: (
        message.proxy_require() == [b"noProxiesSupportThis", b"norDoAnyProxiesSupportThis"]  # 420
        and message.require() == [b"nothingSupportsThis", b"nothingSupportsThisEither"]
    ),
    "zeromf": lambda message: message.max_forwards == 0,  # 483
    "regbadct": lambda message: raises(message.contacts),  # registrar: 400
    "badbranch": lambda message: not message.via.has_cookie,  # RFC 2543 matching
    "bcast": lambda message: message.vias()[1].host == b"255.255.255.255",  # no transaction: dropped
    "unreason": lambda message: isinstance(message, Response),  # no transaction: dropped
    "noreason": lambda message: isinstance(message, Response),
}
"""Messages that parse and are refused, or may be, by who routes: each with what that one sees."""


def raises(call: Callable[[], object]) -> bool:
    try:
        call()
    except MalformedMessage:
        return True
    return False


def parsed(name: str) -> Message:
    return parse_message(MESSAGES[name].data)


def request(name: str) -> Request:
    message = parsed(name)
    assert isinstance(message, Request)
    return message


def test_both_corpora_are_whole() -> None:
    assert len(MESSAGES) == 49 + 12
    assert not (REFUSED.keys() | JUDGED_LATER.keys()) - MESSAGES.keys()


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES.keys())
def test_verdict(message: TortureMessage) -> None:
    """A refusal is one the corpus allows; what the corpus wants refused is refused here or has its judge."""
    if message.name in REFUSED:
        with pytest.raises(MalformedMessage) as caught:
            parse_message(message.data)
        status = caught.value.sip_status
        assert status == REFUSED[message.name]
        assert (str(status) if status else "drop") in message.outcomes
        return
    judge = JUDGED_LATER.get(message.name)
    result = parse_message(message.data)
    assert isinstance(result, Response if message.kind == "response" else Request)
    assert judge is not None or "routed" in message.outcomes
    assert judge is None or judge(result)


@pytest.mark.parametrize("name", [name for name, status in REFUSED.items() if status and name != "badinv01"])
def test_refused_requests_can_be_answered(name: str) -> None:
    salvaged = salvage_request(MESSAGES[name].data)
    assert salvaged is not None
    answer = build_response(salvaged, REFUSED[name], "x", b"t0")
    assert answer.count(b"\r\nVia:") == 1
    assert answer.endswith(b"\r\nContent-Length: 0\r\n\r\n")


def test_the_request_whose_via_cannot_be_read_is_dropped() -> None:
    assert salvage_request(MESSAGES["badinv01"].data) is None


@pytest.mark.parametrize("name", [name for name in MESSAGES if name not in REFUSED])
def test_accepted_messages_survive_being_forwarded(name: str) -> None:
    message = parsed(name)
    if isinstance(message, Request):
        hop = b"Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx"
        data = forward_request(message, uri=message.uri, via=hop, max_forwards=9)
        again = parse_message(data)
        kept = [line for key, line in zip(message.names, message.lines, strict=True) if key != b"max-forwards"]
        assert [line for line in again.lines if line in kept] == kept
    else:
        assert isinstance(message, Response)
        again = parse_message(MESSAGES[name].data)
        lost = len(message.vias()) - 1
        assert forward_response(message).count(b"Via:") == lost
    assert again.body == message.body
    assert (again.call_id, again.cseq, again.cseq_method) == (message.call_id, message.cseq, message.cseq_method)
    assert (again.from_.uri, again.from_.params) == (message.from_.uri, message.from_.params)
    assert (again.to.uri, again.to.params) == (message.to.uri, message.to.params)


# --- what must have been understood ---------------------------------------------------------------------------------


def test_wsinv_reads_through_folds_and_compact_forms() -> None:
    message = request("wsinv")
    assert message.parsed_uri.params == {b"unknownparam": None}
    assert (message.max_forwards, message.cseq, message.cseq_method) == (68, 9, b"INVITE")
    assert (message.to.uri, message.to.tag) == (b"sip:vivekg@chair-dnrc.example.com", b"1918181833n")
    assert (message.from_.display, message.from_.tag) == (b'J Rosenberg \\"', b"98asjd8")
    assert [(via.transport, via.host, via.branch) for via in message.vias()] == [
        (b"UDP", b"192.0.2.2", b"390skdjuw"),
        (b"TCP", b"spindle.example.com", b"z9hG4bK9ikj8"),
        (b"UDP", b"192.168.255.111", b"z9hG4bK30239"),
    ]
    assert not message.via.has_cookie
    assert message.get(b"subject") == b""
    assert message.get(b"newfangledheader") == b"newfangled value continued newfangled value"
    assert message.get(b"unknownheaderwithunusualvalue") == b";;,,;;,;"
    (route,) = message.routes()
    assert b"lr" in route.parsed.params
    (contact,) = message.contacts()
    assert (contact.display, contact.q) == (b'Quoted string ""', 0.33)
    assert contact.params[b"newparam"] == b"newvalue"
    assert len(message.body) == 150


def test_intmeth_takes_every_legal_character() -> None:
    message = request("intmeth")
    assert message.method == message.cseq_method == b"!interesting-Method0123456789_*+`.%indeed'~"
    assert message.parsed_uri.user == b"1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*"
    assert message.parsed_uri.password == b"&it+has=1,weird!*pas$wo~d_too.(doesn't-it)"
    assert message.to.display == b"BEL:\x07 NUL:\0 DEL:\x7f"
    assert message.from_.params[b"fromparam''~+*_!.-%"] == "работающий".encode()
    assert message.from_.tag == b"_token~1'+`*%!-."
    assert message.get(b"extensionheader-!.%*+_`'~") == b"\xef\xbb\xbf" + "大停電".encode()
    assert message.max_forwards == 255


def test_esc01_unescapes_once() -> None:
    message = request("esc01")
    assert message.parsed_uri.aor == "sips:user@example.com@example.net"
    assert message.to.parsed.aor == "user@example.com"
    (contact,) = message.contacts()
    assert contact.parsed.username == "caller"
    assert b"lr" in contact.parsed.params
    assert contact.parsed.params[b"name"] == b"value%41"


def test_escnull_has_two_contacts() -> None:
    assert [contact.parsed.username for contact in request("escnull").contacts()] == ["\0", "\0\0"]


def test_esc02_is_no_register_and_has_two_contacts() -> None:
    message = request("esc02")
    assert message.method == b"RE%47IST%45R"
    assert message.to.display == b"%Z%45"
    assert [contact.parsed.user for contact in message.contacts()] == [b"alias1", b"alias3"]


def test_lwsdisp_needs_no_blank_before_the_bracket() -> None:
    assert request("lwsdisp").from_.display == b"caller"


def test_longreq_keeps_all_vias() -> None:
    message = request("longreq")
    hosts = [via.host for via in message.vias()]
    assert hosts == [*(b"sip%d.example.com" % number for number in range(33, 0, -1)), b"host.example.com"]
    assert message.via.branch is None
    assert len(parse_message(build_response(message, 404, "Not Found")).vias()) == 34


def test_dblreq_ends_where_content_length_says() -> None:
    message = request("dblreq")
    assert message.body == b""
    assert b"joe" not in forward_request(message, uri=message.uri, via=b"Via: SIP/2.0/UDP h", max_forwards=7)


def test_semiuri_has_no_uri_parameter() -> None:
    uri = request("semiuri").parsed_uri
    assert (uri.user, uri.params) == (b"user;par=u%40example.net", {})


def test_transports_are_opaque() -> None:
    assert [via.transport for via in request("transports").vias()] == [b"UDP", b"SCTP", b"TLS", b"UNKNOWN", b"TCP"]


def test_mpart01_keeps_its_octets() -> None:
    message = request("mpart01")
    assert len(message.body) == 553
    assert message.body.count(b"\0") == 2


def test_reason_phrases() -> None:
    unusual, empty = parsed("unreason"), parsed("noreason")
    assert isinstance(unusual, Response) and isinstance(empty, Response)
    assert unusual.reason.decode() == "= 2**3 * 5**2 но сто девяносто девять - простое"
    assert (empty.status, empty.reason) == (100, b"")


def test_inv2543_lacks_what_came_later() -> None:
    message = request("inv2543")
    assert (message.via.branch, message.from_.tag, message.max_forwards) == (None, None, None)
    assert message.body.startswith(b"v=0\r\n")
    forwarded = forward_request(message, uri=message.uri, via=b"Via: SIP/2.0/UDP h", max_forwards=70)
    assert b"\r\nMax-Forwards: 70\r\n" in forwarded
    assert b"\r\nContent-Length: %d\r\n" % len(message.body) in forwarded


def test_contact_and_uri_parameters_are_told_apart() -> None:
    (outside,), (inside,) = request("cparam01").contacts(), request("cparam02").contacts()
    assert (outside.params, outside.parsed.params) == ({b"unknownparam": None}, {})
    assert (inside.params, inside.parsed.params) == ({}, {b"unknownparam": None})


def test_regescrt_keeps_the_escaped_header_in_the_contact() -> None:
    (contact,) = request("regescrt").contacts()
    assert contact.parsed.headers == b"Route=%3Csip:sip.example.com%3E"
    assert request("regescrt").routes() == []


@pytest.mark.parametrize(
    ("name", "host", "port"),
    [
        ("ipv6-good", b"[2001:db8::10]", None),
        ("port-ambiguous", b"[2001:db8::10:5070]", None),
        ("port-unambiguous", b"[2001:db8::10]", 5070),
        ("ipv6-bug-abnf-3-colons", b"[2001:db8:::192.0.2.1]", None),
        ("ipv6-correct-abnf-2-colons", b"[2001:db8::192.0.2.1]", None),
    ],
)
def test_ipv6_references(name: str, host: bytes, port: int | None) -> None:
    uri = request(name).parsed_uri
    assert (uri.host, uri.port) == (host, port)


@pytest.mark.parametrize("name", ["via-received-param-no-delim", "via-received-param-with-delim"])
def test_received_ipv6(name: str) -> None:
    assert parsed(name).via.received == b"2001:db8::9:255"


def test_addresses_of_both_families_in_order() -> None:
    hosts = [(via.host, via.received) for via in parsed("mult-ip-in-header").vias()]
    assert hosts == [(b"[2001:db8::9:1]", None), (b"192.0.2.1", None), (b"[2001:db8::9:255]", b"192.0.2.200")]
    assert parsed("ipv4-mapped-ipv6").via.port == 19823
