"""What flows see of a call: octets of strangers as text, digits of an INFO, the reason of a hangup."""

from __future__ import annotations

import pytest

from orchestrator.core.calls.reason_texts import reason_header
from orchestrator.core.request_view import RequestView
from orchestrator.sip.dtmf import dtmf_of_info
from orchestrator.sip.message import Request, parse_message
from orchestrator.testing.world import World


def request(
    *headers: bytes, method: bytes = b"INVITE", uri: bytes = b"sip:bob@example.com", body: bytes = b""
) -> Request:
    lines = [
        b"%s %s SIP/2.0" % (method, uri),
        b"Via: SIP/2.0/UDP 10.0.0.2;branch=z9hG4bK1",
        b"Max-Forwards: 70",
        b"Call-ID: c1",
        b"CSeq: 1 " + method,
        *headers,
        b"Content-Length: %d\r\n\r\n" % len(body),
    ]
    message = parse_message(b"\r\n".join(lines) + body)
    assert isinstance(message, Request)
    return message


FROM = b'From: "Al\xedce \xf0\x9f\x98\x80" <sip:%61lice@EXAMPLE.com:5070;x=y>;tag=a'
TO = b"To: <sip:bob@example.com>"


def view(message: Request) -> RequestView:
    return RequestView(World().engine, message, ("192.0.2.7", 40000))


# --- requests ---------------------------------------------------------------------------------------------------------


def test_an_address_in_all_its_parts() -> None:
    address = view(request(FROM, TO))["from"]
    expected = {
        "uri": "sip:%61lice@EXAMPLE.com:5070;x=y",
        "scheme": "sip",
        "user": "alice",
        "host": "example.com",
        "port": 5070,
        "aor": "alice@example.com",
        "display": "Al\ufffdce 😀",
    }
    assert {name: address[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("written", "aor"),
    [
        (b"<sip:victim@example.com>;tag=a", "victim@example.com"),
        (b"Vic Tim <sip:victim@example.com>;tag=a", "victim@example.com"),
        (b"<sip:victim@example.com>\t;tag=a", "victim@example.com"),
        (b"sip:mallory@example.com;tag=a", "mallory@example.com"),
        (b'"<sip:victim@example.com>;" <sip:mallory@example.com>;tag=a', "mallory@example.com"),
        (b'"<sip:victim@example.com>" <sip:mallory@example.com>;tag=a', "mallory@example.com"),
        (b'<sip:mallory@example.com>;x="<sip:victim@example.com>";tag=a', "mallory@example.com"),
        (b"<tel:+4930;phone-context=example.com>;tag=a", "tel:+4930;phone-context=example.com"),
    ],
)
def test_an_address_of_record_is_the_same_when_its_uri_was_seen_before(written: bytes, aor: str) -> None:
    node = World().engine
    for seen in (b"<sip:victim@example.com>;tag=b", b"<sip:mallory@example.com>;tag=b", written):
        assert RequestView(node, request(b"From: " + seen, TO), ("192.0.2.7", 40000))["from"]["aor"] != ""
    mail = request(b"From: " + written, b"To: <sip:victim@example.com>")
    again = RequestView(node, mail, ("192.0.2.7", 40000))
    assert (again["from"]["aor"], again["to"]["aor"], again["aor"]) == (aor, "victim@example.com", "victim@example.com")
    assert mail.from_.parsed is not None and node.network.aor(mail.from_.parsed) == aor


def test_where_a_request_came_from_and_what_it_is() -> None:
    seen = view(request(FROM, TO, b"User-Agent: Soft\xffphone", b"Expires: 60"))
    assert (seen["source_ip"], seen["source_port"], seen["transport"]) == ("192.0.2.7", 40000, "udp")
    assert (seen["method"], seen["domain"]) == ("INVITE", "example.com")
    assert seen["user_agent"] == "Soft\ufffdphone"
    assert seen["expires"] == 60
    assert view(request(FROM, TO))["user_agent"] is None


@pytest.mark.parametrize(
    ("uri", "user", "host"),
    [
        (b"sip:%2B4930@example.com", "+4930", "example.com"),
        (b"sip:example.com", "", "example.com"),
        (b"tel:+4930123;phone-context=x", "+4930123", ""),
        (b"sip:a%20b@example.com", "a b", "example.com"),
    ],
)
def test_the_user_somebody_dialled(uri: bytes, user: str, host: str) -> None:
    target = view(request(FROM, TO, uri=uri))["target"]
    assert (target["user"], target["host"]) == (user, host)


def test_headers_are_found_in_any_case_and_by_their_long_name() -> None:
    headers = view(request(FROM, TO, b"s: lunch", b"X-Tenant:  one ", b"X-Tenant: two"))["headers"]
    assert (headers["Subject"], headers["x-tenant"], headers["X-TENANT"]) == ("lunch", "one, two", "one, two")
    assert "x-nothing" not in headers
    assert headers.get("x-nothing") is None
    assert len(headers) == len(list(headers))
    assert "x-tenant" in list(headers)


def test_the_contacts_of_a_register() -> None:
    register = request(FROM, TO, b"Contact: <sip:a@10.0.0.2>, <sip:b@10.0.0.2;ob>", method=b"REGISTER")
    assert view(register)["contacts"] == ["sip:a@10.0.0.2", "sip:b@10.0.0.2;ob"]
    assert view(request(FROM, TO, b"Contact: *", method=b"REGISTER"))["contacts"] == ["*"]


# --- digits in an INFO ------------------------------------------------------------------------------------------------


def info(body: bytes, kind: bytes = b"application/dtmf-relay") -> tuple[str, int] | None:
    return dtmf_of_info(request(FROM, TO, b"Content-Type: " + kind, method=b"INFO", body=body))


@pytest.mark.parametrize(
    ("body", "heard"),
    [
        (b"Signal=5\r\nDuration=160\r\n", ("5", 160)),
        (b"signal= # \nduration = 90", ("#", 90)),
        (b"Signal=*", ("*", 250)),
        (b"Signal=10", ("*", 250)),
        (b"Signal=11", ("#", 250)),
        (b"Signal=a\r\nDuration=1", ("A", 1)),
        (b"Signal=5\r\nDuration=soon", ("5", 250)),
        (b"Signal=5\r\nDuration=-1", ("5", 250)),
        (b"Signal=5\r\nDuration=999999999", ("5", 60_000)),
        (b"Signal=5\r\nDuration=" + b"9" * 5000, ("5", 250)),
        (b"Signal=55", None),
        (b"Signal=", None),
        (b"Duration=5", None),
        (b"", None),
        (b"\xff\xfe=\x00", None),
    ],
)
def test_a_digit_of_dtmf_relay(body: bytes, heard: tuple[str, int] | None) -> None:
    assert info(body) == heard


@pytest.mark.parametrize(("body", "heard"), [(b"7", ("7", 250)), (b" 7\r\n", ("7", 250)), (b"77", None), (b"x", None)])
def test_a_bare_digit(body: bytes, heard: tuple[str, int] | None) -> None:
    assert info(body, b"Application/DTMF; x=y") == heard


def test_an_info_about_something_else_is_no_digit() -> None:
    assert info(b"Signal=5", b"application/media_control+xml") is None
    assert dtmf_of_info(request(FROM, TO, method=b"INFO", body=b"Signal=5")) is None


# --- the reason we give -----------------------------------------------------------------------------------------------


def test_a_reason_cannot_end_its_line_or_its_quotes() -> None:
    assert reason_header("fax detected", 488) == b'Reason: SIP;cause=488;text="fax detected"'
    assert reason_header("done", None) == b'Reason: Q.850;cause=16;text="done"'
    header = reason_header('a"b\\c\r\nBYE sip:x SIP/2.0\r\n\0ü', None)
    assert header == 'Reason: Q.850;cause=16;text="abcBYE sip:x SIP/2.0ü"'.encode()
