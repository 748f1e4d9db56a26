"""The scanner in C beside its twin in Python: what it takes it reads alike, and it takes what phones usually send."""

from __future__ import annotations

import random
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_build import extension
from sip_corpus import OWN, torture_messages
from test_parser_fuzz import INTERESTING, mutate

from orchestrator.sip import parser
from orchestrator.sip.header_shapes import shape_of
from orchestrator.sip.message import Request, Response, forward_response, parse_message
from orchestrator.sip.names import SPELLINGS

SHARED = (b"INVITE", b"UDP")


@pytest.fixture(scope="module")
def fast() -> ModuleType:
    module = extension()
    module.prepare(SPELLINGS, SHARED, parser._name_of, shape_of)
    return module


def test_the_table_of_names_never_fills_up(fast: ModuleType) -> None:
    """A search for a name that is not in a full table would never end."""
    with pytest.raises(ValueError, match="too many names"):
        for round in range(3):
            more = {b"X-%d-%d" % (round, number): b"x" for number in range(800)}
            fast.prepare(more, SHARED, parser._name_of, shape_of)
    assert fast.scan(INVITE.replace(b"X-Own", b"X-Other")) is not None


def test_words_are_octets(fast: ModuleType) -> None:
    with pytest.raises(TypeError, match="words are bytes"):
        fast.prepare({}, ("INVITE",), parser._name_of, shape_of)


INVITE = (
    b"INVITE sip:bob@example.com:5070;transport=udp SIP/2.0\r\n"
    b"Via: SIP/2.0/UDP 192.0.2.1:5061;rport;branch=z9hG4bKa\r\n"
    b"v: SIP/2.0/TCP [2001:db8::1]:5060;branch=z9hG4bKb;received=x\r\n"
    b"Max-Forwards: 70\r\n"
    b'From: "Alice, A." <sip:alice@example.com>;tag=a1\r\n'
    b"t: Bob <sips:bob@example.com;lr>\r\n"
    b"Call-ID: c@192.0.2.1\r\n"
    b"CSEQ:\t7 INVITE\r\n"
    b"Contact: <sip:alice@192.0.2.1:5061>\r\n"
    b"X-Own: anything: at all\r\n"
    b"Content-Length: 4\r\n\r\n"
    b"abcdef"
)
RESPONSE = (
    b"SIP/2.0 180 Ringing now\r\n"
    b"Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKa;rport=5061;received=192.0.2.9, SIP/2.0/UDP h\r\n"
    b"From: <sip:alice@example.com>;tag=a1\r\n"
    b"To: <sip:bob@[2001:db8::2]:5060>;tag=b1\r\n"
    b"Call-ID: c@192.0.2.1\r\n"
    b"CSeq: 7 INVITE\r\n"
    b"l: 0\r\n\r\n"
)
USUAL = (INVITE, RESPONSE, RESPONSE.replace(b" Ringing now", b""), INVITE.replace(b"INVITE", b"ACK"))
ORDINARY = [message for message in (*USUAL, *OWN) if b"\r\n\r\n" in message]


def parts(message: Request | Response) -> dict[str, object]:
    """All that a message holds."""
    names = ("names", "lines", "body", "call_id", "cseq", "cseq_method", "max_forwards", "from_tag", "to_tag")
    found: dict[str, object] = {name: getattr(message, name) for name in names}
    for name in ("transport", "host", "port", "branch", "tail", "params"):
        found[f"via.{name}"] = getattr(message.via, name)
    for name in ("from_", "to"):
        found[name] = (getattr(message, name).uri, getattr(message, name).params)
    if isinstance(message, Request):
        found |= {"method": message.method, "uri": message.uri}
        for name in ("scheme", "user", "password", "host", "port", "params", "headers", "opaque", "aor"):
            found[f"uri.{name}"] = getattr(message.parsed_uri, name)
    else:
        found |= {"status": message.status, "reason": message.reason}
    return found


def compare(fast: ModuleType, data: bytes) -> bool:
    """Whether the scanner has taken it; then the twin has read the same."""
    found = fast.scan(data)
    if found is None:
        return False
    read, told = parser.read_scanned(found), parser.parse_plain(data)
    assert type(read) is type(told)
    if isinstance(read, Response) and isinstance(told, Response):
        assert forward_response(read) == forward_response(told)
    assert parts(read) == parts(told)
    return True


@pytest.mark.parametrize("data", USUAL)
def test_it_takes_what_phones_send(fast: ModuleType, data: bytes) -> None:
    assert compare(fast, data)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Max-Forwards: 70\r\n", b""),
        (b"Max-Forwards: 70", b"Max-Forwards: 256"),
        (b"Call-ID: c@192.0.2.1\r\n", b"Call-ID: c@192.0.2.1\r\nCall-ID: c@192.0.2.1\r\n"),
        (b"Call-ID: c@192.0.2.1\r\n", b"Call-ID: c@192.0.2.1\r\nCALL-iD: d\r\n"),
        (b"Contact: ", b"Expires: 1\r\nexpires: 2\r\nContact: "),
        (b"X-Own: anything", b"X Own: anything"),
        (b"X-Own: anything", b"X-Own: any\r\n thing"),
        (b"X-Own: anything", b"X-Own: any\nthing"),
        (b"X-Own: anything", b"X-Own: any\rthing"),
        (b"X-Own: anything", b"X-Own: any\x00thing"),
        (b"X-Own: anything: at all", b"X-Own"),
        (b":5061", b":0"),
        (b":5061", b":65536"),
        (b":5061", b":05061"),
        (b"7 INVITE", b"7 BYE"),
        (b"7 INVITE", b"4294967296 INVITE"),
        (b"Content-Length: 4", b"Content-Length: 7"),
        (b"Content-Length: 4", b"Content-Length: +4"),
        (b"sip:bob@example.com:5070", b"sip:%62ob@example.com:5070"),
        (b"sip:bob@example.com:5070", b"tel:+4912345"),
        (b"sip:bob@example.com:5070", b"sip:bob@" + b"a" * 2_050),
        (b"z9hG4bKa", b"z9hG4bK\xe4"),
        (b"c@192.0.2.1", b"c@192.0.2.1\xe4"),
        (b"\r\n\r\nabcdef", b"\r\n"),
    ],
)
def test_it_leaves_the_unusual_to_its_twin(fast: ModuleType, old: bytes, new: bytes) -> None:
    assert old in INVITE
    assert fast.scan(INVITE.replace(old, new)) is None


def test_it_reads_nothing_behind_the_end(fast: ModuleType) -> None:
    for length in range(len(INVITE)):
        compare(fast, INVITE[:length])


def test_messages_share_words(fast: ModuleType) -> None:
    one, two = fast.scan(INVITE), fast.scan(INVITE)
    assert one[0] is two[0]
    assert one[8] is two[8]


def test_shapes_of_many_kinds_are_told_apart(fast: ModuleType) -> None:
    """More of them than have a place of their own."""
    kinds = [INVITE.replace(b"X-Own", b"X-Own-%d" % number) for number in range(3_000)]
    for data in (*kinds, *kinds[:100]):
        assert fast.scan(data)[8].names == parser.parse_plain(data).names


def test_only_octets_are_scanned(fast: ModuleType) -> None:
    with pytest.raises(TypeError):
        fast.scan("INVITE")


def test_the_corpus_is_read_alike(fast: ModuleType) -> None:
    for data in (*OWN, *(message.data for message in torture_messages())):
        compare(fast, data)


@pytest.mark.parametrize("seed", range(8))
def test_mutated_messages_are_read_alike(fast: ModuleType, seed: int) -> None:
    choose = random.Random(seed)  # repeatable on purpose
    taken = sum(compare(fast, mutate(choose.choice(ORDINARY), choose)) for _ in range(1_500))
    assert taken > 100, "hardly anything was compared"


pieces = st.sampled_from([*INTERESTING, b"a", b"Z", b"9", b"'", b"#", b"/", b";x=y", b" <sip:h>", b"\x7f", b"\x80"])


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(USUAL), st.lists(st.tuples(st.integers(0, 700), st.integers(0, 3), pieces), max_size=3))
def test_spliced_messages_are_read_alike(fast: ModuleType, data: bytes, edits: list[tuple[int, int, bytes]]) -> None:
    for place, dropped, put in edits:
        place %= len(data)
        data = data[:place] + put + data[place + dropped :]
    compare(fast, data)


def test_the_server_reads_what_the_scanner_leaves() -> None:
    request = parse_message(INVITE.replace(b"sip:bob@example.com:5070;transport=udp", b"sip:%62ob@example.com"))
    assert isinstance(request, Request)
    assert request.parsed_uri.aor == "bob@example.com"
    assert isinstance(parse_message(RESPONSE), Response)


OK = b"\r\n".join(
    (
        b"SIP/2.0 200 OK", b"Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1", b"v: SIP/2.0/UDP 192.0.2.2;branch=z9hG4bK2",
        b"From: <sip:a@example.com>;tag=1", b"To: <sip:b@example.com>;tag=2", b"Call-ID: c", b"CSeq: 1 INVITE",
        b"Content-Length: 6", b"", b"v\r\n\r\n.",
    )
)  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "whole"),
    [
        (b"OK", b"OK", True),
        (b"OK", b"", True),
        (b" OK", b"", False),
        (b"K1", b"K1, SIP/2.0/UDP 192.0.2.3;branch=z9hG4bK3", False),
        (b"Length: 6", b"Length: 5", False),
        (b"OK\r\nVia", b"OK\r\nServer: s\r\nVia", False),
    ],
)
def test_a_response_nobody_looks_into_stays_in_one_piece(fast: ModuleType, old: bytes, new: bytes, whole: bool) -> None:
    data = OK.replace(old, new, 1)
    assert compare(fast, data)
    one, other = (parser.read_scanned(fast.scan(data)) for _ in range(2))
    told = parser.parse_plain(data)
    assert isinstance(one, Response) and isinstance(other, Response) and isinstance(told, Response)
    assert (one.behind_us is not None) is whole
    for response in (other, told):
        response.drop_header(b"cseq")
        response.add_line(b"x-own", b"X-Own: a")
    assert forward_response(other) == forward_response(told)
    assert parts(one) == parts(parser.parse_plain(data))
    assert forward_response(one, b"From: x", b"CSeq: 9 INVITE").count(b"\r\n") == forward_response(told).count(b"\r\n")
