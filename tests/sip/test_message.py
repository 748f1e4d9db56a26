"""Whole messages: reading, answering, forwarding, and what is refused."""

from __future__ import annotations

import pytest

from orchestrator.sip.message import (
    MalformedMessage,
    Request,
    Response,
    build_response,
    forward_request,
    forward_response,
    header_line,
    parse_message,
    salvage_request,
)

VIA = b"Via: SIP/2.0/UDP 192.0.2.10:5061;rport;branch=z9hG4bKin"
OUR_VIA = b"Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKout"
FROM, TO = b'From: "Alice" <sip:alice@example.com>;tag=f1', b"To: <sip:bob@example.com>"
CALL_ID, CSEQ, HOPS, LENGTH = b"Call-ID: c1@h", b"CSeq: 7 INVITE", b"Max-Forwards: 70", b"Content-Length: 0"
HEADERS = (VIA, HOPS, FROM, TO, CALL_ID, CSEQ, LENGTH)
INVITE = b"INVITE sip:bob@example.com SIP/2.0"


def octets(*headers: bytes, start: bytes = INVITE, body: bytes = b"") -> bytes:
    return b"\r\n".join((start, *headers)) + b"\r\n\r\n" + body


def changed(old: bytes, *new: bytes, start: bytes = INVITE, body: bytes = b"") -> bytes:
    """The plain INVITE with one header line replaced by any number of others."""
    lines: list[bytes] = []
    for line in HEADERS:
        lines += new if line == old else (line,)
    return octets(*lines, start=start, body=body)


def request(data: bytes) -> Request:
    message = parse_message(data)
    assert isinstance(message, Request)
    return message


def response(data: bytes) -> Response:
    message = parse_message(data)
    assert isinstance(message, Response)
    return message


def status_of(data: bytes) -> int:
    with pytest.raises(MalformedMessage) as caught:
        parse_message(data)
    return caught.value.sip_status


def lines_of(data: bytes) -> list[bytes]:
    return data.partition(b"\r\n\r\n")[0].split(b"\r\n")


PLAIN = octets(*HEADERS)

# --- reading --------------------------------------------------------------------------------------------------------


def test_a_plain_request() -> None:
    invite = request(PLAIN)
    assert (invite.method, invite.uri, invite.max_forwards) == (b"INVITE", b"sip:bob@example.com", 70)
    assert (invite.call_id, invite.cseq, invite.cseq_method) == (b"c1@h", 7, b"INVITE")
    assert (invite.via.transport, invite.via.host, invite.via.port) == (b"UDP", b"192.0.2.10", 5061)
    assert invite.via.branch == b"z9hG4bKin"
    assert (invite.from_.display, invite.from_.uri, invite.from_.tag) == (b"Alice", b"sip:alice@example.com", b"f1")
    assert (invite.to.parsed.aor, invite.to.tag) == ("bob@example.com", None)
    assert invite.parsed_uri.host == b"example.com"
    assert invite.names == (b"via", b"max-forwards", b"from", b"to", b"call-id", b"cseq", b"content-length")
    assert invite.lines == list(HEADERS)
    assert invite.start_line == INVITE
    assert "sip:bob@example.com" in repr(invite)


def test_a_plain_response() -> None:
    answer = response(octets(VIA, FROM, TO, CALL_ID, CSEQ, LENGTH, start=b"SIP/2.0 486 Busy Here"))
    assert (answer.status, answer.reason, answer.cseq_method) == (486, b"Busy Here", b"INVITE")
    assert (answer.via.branch, answer.max_forwards) == (b"z9hG4bKin", None)
    assert answer.start_line == b"SIP/2.0 486 Busy Here"
    assert "486" in repr(answer)


@pytest.mark.parametrize(
    ("start", "reason"), [(b"SIP/2.0 100 ", b""), (b"SIP/2.0 100", b""), (b"SIP/2.0 200 a  b", b"a  b")]
)
def test_reason_phrases(start: bytes, reason: bytes) -> None:
    assert response(octets(*HEADERS, start=start)).reason == reason


def test_compact_forms_and_any_case_are_the_long_names() -> None:
    data = octets(
        b"v:SIP/2.0/UDP h;branch=z9hG4bK1", b"MAX-forwards:  5", b"f:<sip:a@h>;tag=1", b"T : sip:b@h", b"i:c",
        b"cseq: 1 BYE", b"L:0", b"k: replaces , timer", start=b"BYE sip:b@h SIP/2.0",
    )  # fmt: skip
    bye = request(data)
    assert bye.names == (b"via", b"max-forwards", b"from", b"to", b"call-id", b"cseq", b"content-length", b"supported")
    assert (bye.max_forwards, bye.call_id, bye.to.uri) == (5, b"c", b"sip:b@h")
    assert bye.tokens(b"supported") == [b"replaces", b"timer"]


def test_folded_lines_are_kept_and_read_unfolded() -> None:
    folded = b"Subject: I know\r\n you're\r\n\t there"
    invite = request(changed(HOPS, HOPS, folded))
    assert invite.get(b"subject") == b"I know you're there"
    assert folded in invite.lines
    assert len(invite.names) == len(invite.lines) == 8


def test_get_and_get_all() -> None:
    invite = request(changed(HOPS, HOPS, b"X-A: 1, 2", b"x-a:3", b"Subject:"))
    assert invite.get(b"x-a") == b"1, 2"
    assert invite.get_all(b"x-a") == [b"1, 2", b"3"]
    assert invite.get(b"subject") == b""
    assert invite.get(b"x-b") is None
    assert invite.get_all(b"x-b") == []


def test_lists_of_addresses_and_tokens() -> None:
    invite = request(
        changed(
            HOPS, HOPS,
            b"Route: <sip:a;lr>, <sip:b>", b"Route: <sip:c;lr>", b"Record-Route: <sip:d;lr>",
            b'Contact: "x, y" <sip:e@h>;q=0.3', b"Require: 100rel,", b"Proxy-Require: foo, bar", b"Expires: 60",
        )
    )  # fmt: skip
    assert [route.uri for route in invite.routes()] == [b"sip:a;lr", b"sip:b", b"sip:c;lr"]
    assert [route.uri for route in invite.record_routes()] == [b"sip:d;lr"]
    assert [(contact.display, contact.q) for contact in invite.contacts()] == [(b"x, y", 0.3)]
    assert invite.require() == [b"100rel"]
    assert invite.proxy_require() == [b"foo", b"bar"]
    assert invite.expires == 60


def test_absent_lists_are_empty() -> None:
    invite = request(PLAIN)
    assert invite.routes() == invite.record_routes() == invite.contacts() == []
    assert invite.require() == invite.proxy_require() == invite.tokens(b"allow") == []
    assert invite.expires is None


@pytest.mark.parametrize("value", [b"sip:a@h?x=y", b"<sip:a@h:0>", b"<sip:a@h>,", b"<sip:a@h>;;", b""])
def test_malformed_lists_raise_when_they_are_asked_for(value: bytes) -> None:
    invite = request(changed(HOPS, HOPS, b"Contact: " + value, b"Route: " + value))
    for read in (invite.contacts, invite.routes):
        with pytest.raises(MalformedMessage):
            read()


def test_all_vias_in_order() -> None:
    invite = request(changed(VIA, VIA, b"v: SIP/2.0/TCP a, SIP/2.0/UNKNOWN b;branch=2"))
    assert [(via.transport, via.host) for via in invite.vias()] == [
        (b"UDP", b"192.0.2.10"),
        (b"TCP", b"a"),
        (b"UNKNOWN", b"b"),
    ]


def test_messages_take_no_new_attributes() -> None:
    for message in (request(PLAIN), request(PLAIN).via, request(PLAIN).to, request(PLAIN).parsed_uri):
        with pytest.raises(AttributeError):
            message.anything = 1  # type: ignore[union-attr]


# --- body -----------------------------------------------------------------------------------------------------------


def test_the_body_is_what_content_length_counts() -> None:
    with_length = changed(LENGTH, b"Content-Length: 4", body=b"abcdINVITE sip:x SIP/2.0\r\n\r\n")
    assert request(with_length).body == b"abcd"
    assert request(changed(LENGTH, body=b"to the end")).body == b"to the end"
    assert request(changed(LENGTH, b"l: 0000", body=b"noise")).body == b""


@pytest.mark.parametrize(
    "value",
    [
        b"5", b"4294967295", b"99999999999999999999", b"1" * 30, b"-999", b"+0", b"1_0", b"0 0", b"0x0", b"", b"0,0",
        "٣".encode(), b"\xb2",
    ],
)  # fmt: skip
def test_content_lengths_that_are_refused(value: bytes) -> None:
    assert status_of(changed(LENGTH, b"Content-Length: " + value, body=b"abcd")) == 400


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [VIA, FROM, TO, CALL_ID, CSEQ])
def test_mandatory_headers(missing: bytes) -> None:
    assert status_of(changed(missing)) == 400


def test_the_reason_names_the_missing_header() -> None:
    with pytest.raises(MalformedMessage, match="400 Missing Call-ID Header"):
        parse_message(changed(CALL_ID))


@pytest.mark.parametrize("twice", [FROM, TO, CALL_ID, CSEQ, HOPS])
@pytest.mark.parametrize("beside", [(), (VIA,), (VIA, b"Record-Route: <sip:a;lr>", b"Record-Route: <sip:b;lr>")])
def test_single_headers_come_once(twice: bytes, beside: tuple[bytes, ...]) -> None:
    assert status_of(changed(twice, twice, *beside, twice)) == 400


def test_lists_may_stand_on_several_lines() -> None:
    route = b"Record-Route: <sip:a;lr>"
    message = request(changed(HOPS, VIA, HOPS, route, route, route, b"Allow: A", b"Allow: B"))
    assert message.tokens(b"allow") == [b"A", b"B"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (VIA, b"Via: SIP/2.0/UDP 192.0.2.15;;,;,,"),
        (VIA, b"Via: SIP/2.0/UDP h:0;branch=z9hG4bK1"),
        (VIA, b"Via: SIP/2.0/UDP h:99999;branch=z9hG4bK1"),
        (VIA, b"Via: \xff\xfe"),
        (VIA, b"Via:"),
        (FROM, b'From: "Alice <sip:alice@example.com>;tag=1'),
        (FROM, b"From: <sip:alice@example.com>;tag=1, <sip:b@h>"),
        (TO, b"To: Watson, Thomas <sip:t.watson@example.org>"),
        (TO, b"To: <sip:bob@example.com>;tag=" + b"\0"),
        (TO, b"To:"),
        (TO, b"To: isbn:298379\x0c"),
        (TO, b"To: <sip:bob@example.com>;tag"),
        (TO, b'To: <sip:bob@example.com>;tag=""'),
        (CALL_ID, b"Call-ID:"),
        (CALL_ID, b"Call-ID: a b"),
        (CALL_ID, b"Call-ID: \xff"),
        (CSEQ, b"CSeq: INVITE"),
        (CSEQ, b"CSeq: 1"),
        (CSEQ, b"CSeq: 4294967296 INVITE"),
        (CSEQ, b"CSeq: 36893488147419103232 INVITE"),
        (CSEQ, b"CSeq: -1 INVITE"),
        (CSEQ, b"CSeq: 1 BYE"),
        (CSEQ, b"CSeq: 1 invite"),
        (HOPS, b"Max-Forwards: 256"),
        (HOPS, b"Max-Forwards: 300"),
        (HOPS, b"Max-Forwards: ten"),
        (HOPS, b"no colon here"),
        (HOPS, b"Subject"),
        (HOPS, b": no name"),
        (HOPS, b"X Y: blank in the name"),
        (HOPS, b"X-A: b\nP-Asserted-Identity: <sip:evil@h>"),
        (HOPS, b"X-A: b\rP-Asserted-Identity: <sip:evil@h>"),
        (HOPS, b"X-A: b\r\r"),
        (HOPS, b"X-A: folded\r\n too, and\n bare"),
    ],
)
def test_malformed_headers_are_answered_400(old: bytes, new: bytes) -> None:
    assert status_of(changed(old, new)) == 400


@pytest.mark.parametrize(
    ("start", "status"),
    [
        (b"INVITE  sip:bob@example.com SIP/2.0", 400),
        (b"INVITE sip:bob@example.com  SIP/2.0", 400),
        (b" INVITE sip:bob@example.com SIP/2.0", 400),
        (b"INVITE <sip:bob@example.com> SIP/2.0", 400),
        (b"INVITE sip:bob@example.com; lr SIP/2.0", 400),
        (b"INVITE sip:bob@example.com?Route=%3Csip:x%3E SIP/2.0", 400),
        (b"INVITE sip:bob@example.com:70000 SIP/2.0", 400),
        (b"INVITE sip:bob@example.com", 400),
        (b"INVITE sip:bob@example.com HTTP/1.1", 400),
        (b"INVITE sip:bob@example.com SIP/2.0\r\n folded: 1", 400),
        (b"INV\xffTE sip:bob@example.com SIP/2.0", 400),
        (b"INVITE sip:bob@example.com SIP/7.0", 505),
        (b"INVITE sip:bob@example.com SIP/2.1", 505),
        (b"INVITE sip:" + b"u" * 10_000 + b"@example.com SIP/2.0", 414),
    ],
)
def test_request_lines_that_are_refused(start: bytes, status: int) -> None:
    assert status_of(octets(*HEADERS, start=start)) == status


def test_version_compares_without_case_and_leaves_in_upper_case() -> None:
    message = request(octets(*HEADERS, start=b"INVITE sip:bob@example.com sip/2.0"))
    assert message.start_line == INVITE


def test_methods_compare_with_case() -> None:
    lower = octets(VIA, HOPS, FROM, TO, CALL_ID, b"CSeq: 7 invite", LENGTH, start=b"invite sip:b@h SIP/2.0")
    assert request(lower).method == b"invite"


@pytest.mark.parametrize(
    "start",
    [
        b"SIP/2.0 4294967301 better not break the receiver",
        b"SIP/2.0 099 x",
        b"SIP/2.0 700 x",
        b"SIP/2.0 20 x",
        b"SIP/3.0 200 OK",
        b"SIP/2.0 200 nul\0",
        b"SIP/2.0",
    ],
)
def test_malformed_responses_are_met_with_silence(start: bytes) -> None:
    data = octets(*HEADERS, start=start)
    assert status_of(data) == 0
    assert salvage_request(data) is None


def test_silence_also_for_a_response_with_a_bad_header() -> None:
    assert status_of(changed(CSEQ, b"CSeq: 9292394834772304023312 INVITE", start=b"SIP/2.0 200 OK")) == 0


@pytest.mark.parametrize("data", [b"", b"\r\n", b"\r\n\r\n", b"\0", b"\0\0\0\0", b"\xff" * 100, b"\r\n\r\n\0"])
def test_keep_alives_and_noise_are_never_answered(data: bytes) -> None:
    status_of(data)
    assert salvage_request(data) is None


def test_empty_lines_before_the_start_line_are_ignored() -> None:
    assert request(b"\r\n\r\n" + PLAIN).lines == list(HEADERS)


def test_a_head_without_end() -> None:
    assert status_of(PLAIN[:-2]) == 400


# --- sizes ----------------------------------------------------------------------------------------------------------


def test_sizes_at_their_limits() -> None:
    assert len(request(changed(HOPS, HOPS, *([b"X-A: 1"] * 120))).names) == 127
    assert status_of(changed(HOPS, HOPS, *([b"X-A: 1"] * 121))) == 400
    assert request(changed(HOPS, HOPS, b"X-A: " + b"a" * 8187)).get(b"x-a") == b"a" * 8187
    assert status_of(changed(HOPS, HOPS, b"X-A: " + b"a" * 8188)) == 400
    assert status_of(changed(LENGTH, body=b"b" * 65_535)) == 513


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (HOPS, b"X-A: " + b"v" * 60_000),
        (HOPS, b"\r\n".join([b"X-A: 1"] * 5_000)),
        (HOPS, b"\r\n".join([VIA] * 500)),
        (CSEQ, b"CSeq: 1 " + b"M" * 20_000),
        (FROM, b"From: " + b'"\\' * 15_000),
        (HOPS, b"X-A: 1\r\n " * 5_000 + b"2"),
        (HOPS, b"\r\n".join([b"X-A"] * 10_000)),
    ],
)
def test_bombs_are_answered_400(old: bytes, new: bytes) -> None:
    assert status_of(changed(old, new)) == 400


def test_long_but_honest_values_pass() -> None:
    tag, branch = b"t" * 500, b"z9hG4bK" + b"b" * 1_000
    invite = request(octets(b"Via: SIP/2.0/UDP h;branch=" + branch, HOPS, FROM, TO + b";tag=" + tag, CALL_ID, CSEQ))
    assert (invite.via.branch, invite.to.tag) == (branch, tag)


# --- source ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "stamped"),
    [
        (VIA, b"Via: SIP/2.0/UDP 192.0.2.10:5061;rport=9;received=192.0.2.99;branch=z9hG4bKin"),
        (b"v: SIP/2.0/UDP h", b"Via: SIP/2.0/UDP h;received=192.0.2.99"),
        (b"v: SIP/2.0/UDP h , SIP/2.0/UDP i", b"Via: SIP/2.0/UDP h;received=192.0.2.99, SIP/2.0/UDP i"),
        (
            b"Via: SIP/2.0/UDP h;branch=z9hG4bK1, SIP/2.0/UDP i;branch=z9hG4bK1",
            b"Via: SIP/2.0/UDP h;branch=z9hG4bK1;received=192.0.2.99, SIP/2.0/UDP i;branch=z9hG4bK1",
        ),
        (b"Via: SIP/2.0/UDP h\r\n ;branch=1\r\n ;rport", b"Via: SIP/2.0/UDP h;branch=1;rport=9;received=192.0.2.99"),
        (b"Via: SIP/2.0/UDP 192.0.2.99;branch=1", b"Via: SIP/2.0/UDP 192.0.2.99;branch=1"),
    ],
)
def test_the_source_is_noted_in_the_top_via(line: bytes, stamped: bytes) -> None:
    invite = request(changed(VIA, line, VIA))
    invite.stamp_source(b"192.0.2.99", 9)
    index = invite.names.index(b"via")
    assert invite.lines[index : index + 2] == [stamped, VIA]
    reread = request(octets(*invite.lines))
    assert [via.params for via in reread.vias()] == [via.params for via in invite.vias()]
    assert reread.via.params == invite.via.params


# --- answering ------------------------------------------------------------------------------------------------------


def test_a_response_copies_what_identifies_the_request() -> None:
    second = b"Via: SIP/2.0/UDP second;branch=z9hG4bK0"
    invite = request(changed(VIA, VIA, second, b"Record-Route: <sip:p;lr>", b"Timestamp: 54"))
    data = build_response(invite, 404, "Not Found", b"t0")
    assert lines_of(data) == [
        b"SIP/2.0 404 Not Found", VIA, second, FROM, TO + b";tag=t0", CALL_ID, CSEQ, b"Content-Length: 0",
    ]  # fmt: skip
    answer = response(data)
    assert (answer.status, answer.to.tag, answer.via.branch) == (404, b"t0", b"z9hG4bKin")


@pytest.mark.parametrize(
    ("status", "method", "copied"),
    [
        (100, b"INVITE", False),
        (180, b"INVITE", True),
        (200, b"INVITE", True),
        (302, b"INVITE", False),
        (200, b"SUBSCRIBE", True),
        (200, b"BYE", False),
        (200, b"REGISTER", False),
    ],
)
def test_record_route_goes_back_where_a_dialog_may_form(status: int, method: bytes, copied: bool) -> None:
    data = changed(CSEQ, b"CSeq: 7 " + method, b"Record-Route: <sip:p;lr>", start=method + b" sip:b@h SIP/2.0")
    answer = build_response(request(data), status, "x")
    assert (b"\r\nRecord-Route: <sip:p;lr>\r\n" in answer) is copied


def test_trying_copies_the_timestamp_and_adds_no_tag() -> None:
    invite = request(changed(HOPS, HOPS, b"Timestamp: 54"))
    lines = lines_of(build_response(invite, 100, "Trying"))
    assert b"Timestamp: 54" in lines
    assert TO in lines


@pytest.mark.parametrize("to", [b"To: sip:b@h;tag=t9", b"t: <sip:b@h>\r\n ;TAG = t9"])
def test_a_to_with_a_tag_keeps_it(to: bytes) -> None:
    assert response(build_response(request(changed(TO, to)), 200, "OK", b"new")).to.tag == b"t9"


@pytest.mark.parametrize("to", [b"To: <sip:tag@h;tag=1>", b'To: ";tag=1" <sip:b@h>', b"To: sip:b@h;x=tag"])
def test_what_only_looks_like_a_tag_is_none(to: bytes) -> None:
    assert response(build_response(request(changed(TO, to)), 200, "OK", b"new")).to.tag == b"new"


def test_headers_and_body_of_a_response() -> None:
    answer = response(
        build_response(request(PLAIN), 200, "Grüße", b"t", [b"Contact: <sip:x@h>", b"Content-Type: a/b"], b"hi")
    )
    assert (answer.body, answer.get(b"contact"), answer.reason) == (b"hi", b"<sip:x@h>", "Grüße".encode())
    assert answer.get(b"content-length") == b"2"


@pytest.mark.parametrize("evil", ["a\r\nb", "a\nb", "a\rb", "a\0b"])
def test_line_breaks_are_never_put_into_a_message(evil: str) -> None:
    invite, raw = request(PLAIN), evil.encode()
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        build_response(invite, 200, evil)
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        build_response(invite, 200, "OK", headers=[raw])
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        header_line(b"X", raw)
    for put_in in ({"uri": raw}, {"via": raw}, {"record_routes": [raw]}, {"routes": [raw]}, {"headers": [raw]}):
        with pytest.raises(ValueError, match="CR, LF or NUL"):
            forward_request(invite, **{"uri": b"sip:b@h", "via": OUR_VIA, "max_forwards": 1, **put_in})  # type: ignore[arg-type]


def test_header_line() -> None:
    assert header_line(b"Reason", b"SIP;cause=200") == b"Reason: SIP;cause=200"


# --- answering what cannot be read ----------------------------------------------------------------------------------


def salvaged_lines(data: bytes) -> list[bytes]:
    with pytest.raises(MalformedMessage) as caught:
        parse_message(data)
    request = salvage_request(data)
    assert request is not None
    return lines_of(build_response(request, caught.value.sip_status, caught.value.reason, b"t0"))


def test_a_malformed_request_is_answered_with_what_is_there() -> None:
    bad_from = b'From: "open <sip:alice@example.com>'
    assert salvaged_lines(changed(FROM, bad_from)) == [
        b"SIP/2.0 400 Malformed Address", VIA, bad_from, TO + b";tag=t0", CALL_ID, CSEQ, b"Content-Length: 0",
    ]  # fmt: skip


def test_a_request_without_dialog_headers_is_answered_by_its_via() -> None:
    assert salvaged_lines(octets(VIA)) == [b"SIP/2.0 400 Missing Call-ID Header", VIA, b"Content-Length: 0"]


def test_copies_of_single_headers_are_answered_once() -> None:
    lines = salvaged_lines(changed(CALL_ID, CALL_ID, b"i: other"))
    assert lines.count(CALL_ID) == 1
    assert b"i: other" not in lines


def test_a_bare_line_feed_does_not_come_back_as_a_header() -> None:
    lines = salvaged_lines(changed(TO, b"To: <sip:bob@example.com>\nContact: <sip:evil@h>"))
    assert not any(b"evil" in line for line in lines)


def test_a_salvaged_request_knows_its_source() -> None:
    salvaged = salvage_request(changed(CSEQ, b"CSeq: nonsense"))
    assert salvaged is not None
    salvaged.stamp_source(b"203.0.113.5", 1234)
    assert salvaged.via.received == b"203.0.113.5"
    assert b"received=203.0.113.5" in build_response(salvaged, 400, "Malformed CSeq")
    assert (salvaged.cseq, salvaged.cseq_method, salvaged.call_id) == (0, b"INVITE", b"c1@h")


@pytest.mark.parametrize(
    "data",
    [
        octets(*HEADERS[:-1], start=b"ACK sip:bob@example.com SIP/2.0"),
        changed(VIA),
        changed(VIA, b"Via: garbage"),
        changed(VIA, b"Via: SIP/2.0/UDP h:0"),
        octets(*HEADERS, start=b"INVITE"),
        octets(*HEADERS, start=b"GE(T) / HTTP/1.1"),
    ],
)
def test_what_cannot_or_must_not_be_answered(data: bytes) -> None:
    assert salvage_request(data) is None


# --- forwarding -----------------------------------------------------------------------------------------------------


def test_a_request_is_forwarded_by_splicing() -> None:
    route = b"Route: <sip:us;lr>, <sip:next;lr>"
    odd = b"x-ODD :  kept \r\n\t as it came "
    data = changed(HOPS, route, odd, b"max-forwards : 70", b"P-Secret: 1", LENGTH[:0] or b"Subject: s")
    invite = request(data.replace(LENGTH, b"Content-Length: 4") + b"body")
    forwarded = forward_request(
        invite,
        uri=b"sip:bob@192.0.2.20",
        via=OUR_VIA,
        max_forwards=69,
        record_routes=(b"Record-Route: <sip:us;lr>",),
        drop_routes=1,
        remove=(b"p-secret", b"subject"),
        headers=[b"X-New: 1"],
    )
    assert forwarded == b"\r\n".join(
        (
            b"INVITE sip:bob@192.0.2.20 SIP/2.0", OUR_VIA, b"Record-Route: <sip:us;lr>", VIA, b"Route: <sip:next;lr>",
            odd, b"Max-Forwards: 69", FROM, TO, CALL_ID, CSEQ, b"Content-Length: 4", b"X-New: 1", b"", b"body",
        )
    )  # fmt: skip
    assert invite.lines[1] == route


def test_what_is_missing_is_added() -> None:
    invite = request(octets(VIA, FROM, TO, CALL_ID, CSEQ, body=b"body"))
    lines = lines_of(forward_request(invite, uri=invite.uri, via=OUR_VIA, max_forwards=70))
    assert lines == [INVITE, OUR_VIA, b"Max-Forwards: 70", VIA, FROM, TO, CALL_ID, CSEQ, b"Content-Length: 4"]


@pytest.mark.parametrize(
    ("drop", "left"),
    [
        (0, [b"<sip:a>", b"<sip:b;x=1>", b"<sip:c>", b"<sip:d>"]),
        (1, [b"<sip:b;x=1>", b"<sip:c>", b"<sip:d>"]),
        (2, [b"<sip:c>", b"<sip:d>"]),
        (3, [b"<sip:d>"]),
        (4, []),
        (9, []),
    ],
)
def test_route_values_are_dropped_across_lines(drop: int, left: list[bytes]) -> None:
    routes = (b"Route: <sip:a> , <sip:b;x=1>", b"route: <sip:c>", b"ROUTE: <sip:d>")
    invite = request(changed(HOPS, *routes, HOPS))
    data = forward_request(invite, uri=invite.uri, via=OUR_VIA, max_forwards=1, drop_routes=drop)
    assert [b"<%s>" % (route.uri or b"") for route in request(data).routes()] == left


def test_routes_are_put_in_front() -> None:
    invite = request(changed(HOPS, HOPS, b"Route: <sip:own;lr>,<sip:old;lr>"))
    data = forward_request(
        invite, uri=invite.uri, via=OUR_VIA, max_forwards=1, drop_routes=1, routes=[b"<sip:p1;lr>", b"<sip:p2;lr>"]
    )
    assert [route.uri for route in request(data).routes()] == [b"sip:p1;lr", b"sip:p2;lr", b"sip:old;lr"]


def test_removed_names_cover_compact_forms_folds_and_blanks() -> None:
    secrets = (b"k: a", b"SUPPORTED : b", b"Supported\t:\r\n c", b"supported:d")
    invite = request(changed(HOPS, HOPS, *secrets))
    data = forward_request(invite, uri=invite.uri, via=OUR_VIA, max_forwards=1, remove={b"supported"})
    assert request(data).names == (b"via", *request(PLAIN).names)


def test_a_request_that_lost_its_content_length_gets_one() -> None:
    data = forward_request(
        request(PLAIN), uri=b"sip:b@h", via=OUR_VIA, max_forwards=1, remove={b"content-length", b"max-forwards"}
    )
    forwarded = request(data)
    assert (forwarded.get(b"content-length"), forwarded.max_forwards) == (b"0", 1)


@pytest.mark.parametrize(
    ("vias", "left"),
    [
        ([OUR_VIA, VIA], [VIA]),
        (
            [b"v: SIP/2.0/UDP us;branch=1 , SIP/2.0/UDP a, SIP/2.0/UDP b", VIA],
            [b"Via: SIP/2.0/UDP a, SIP/2.0/UDP b", VIA],
        ),
        ([b'Via: SIP/2.0/UDP us;x="a,b"', VIA], [VIA]),
        ([b"Via: SIP/2.0/UDP us\r\n , SIP/2.0/UDP a"], [b"Via: SIP/2.0/UDP a"]),
        ([OUR_VIA], []),
    ],
)
def test_a_response_is_forwarded_without_our_via(vias: list[bytes], left: list[bytes]) -> None:
    answer = response(octets(FROM, *vias, TO, CALL_ID, CSEQ, b"l: 4", start=b"SIP/2.0 200 Fine", body=b"body!"))
    data = forward_response(answer)
    assert lines_of(data) == [b"SIP/2.0 200 Fine", FROM, *left, TO, CALL_ID, CSEQ, b"l: 4"]
    assert data.endswith(b"\r\n\r\nbody")
    assert answer.via.branch != VIA


def test_a_forwarded_response_gets_a_content_length() -> None:
    answer = response(octets(OUR_VIA, VIA, FROM, TO, CALL_ID, CSEQ, start=b"SIP/2.0 183 x", body=b"early"))
    assert response(forward_response(answer)).get(b"content-length") == b"5"
