"""Comma lists, Via and the small grammar under them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import MalformedMessage
from orchestrator.sip.grammar import (
    drop_params,
    is_token,
    parse_number,
    parse_params,
    read_number,
    unescape,
    unquote,
)
from orchestrator.sip.headers import Via, parse_contacts, parse_name_addrs, parse_via, split_commas, split_first
from orchestrator.sip.names import LONG_NAMES, SPELLINGS, canonical_name

# --- comma lists ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "pieces"),
    [
        (b"", [b""]),
        (b"a", [b"a"]),
        (b"a,b , c", [b"a", b"b", b"c"]),
        (b'"a,b" <sip:x,y@h>;p="1,2",b', [b'"a,b" <sip:x,y@h>;p="1,2"', b"b"]),
        (b'"\\",\\\\",b', [b'"\\",\\\\"', b"b"]),
        (b'<a"b>,c', [b'<a"b>', b"c"]),
    ],
)
def test_split_commas(value: bytes, pieces: list[bytes]) -> None:
    assert split_commas(value) == pieces
    assert split_first(value)[0] == pieces[0]


@pytest.mark.parametrize("value", [b"a,", b",a", b"a,,b", b'"a,b', b"<a,b", b'a,"b\\",c', b","])
def test_lists_that_are_none(value: bytes) -> None:
    with pytest.raises(MalformedMessage):
        split_commas(value)


def test_split_first_leaves_the_rest_unread() -> None:
    assert split_first(b'a , "unbalanced, b') == (b"a", b'"unbalanced, b')
    with pytest.raises(MalformedMessage):
        split_first(b'"unbalanced, b')


ELEMENT = st.sampled_from([b"a", b'"x,y"', b"<sip:a,b@c>", b'"\\"" <sip:q@h>', b"p=1;q", b'"\\\\"'])


@given(st.lists(ELEMENT, min_size=1, max_size=6))
def test_a_joined_list_splits_into_its_elements(elements: list[bytes]) -> None:
    assert split_commas(b" , ".join(elements)) == elements
    first, rest = split_first(b",".join(elements))
    assert first == elements[0]
    assert (split_commas(rest) if rest else []) == elements[1:]


def test_contacts() -> None:
    assert [contact.uri for contact in parse_contacts([b"<sip:a@h>, sip:b@h;q=0.5", b"<sip:c@h>"])] == [
        b"sip:a@h",
        b"sip:b@h",
        b"sip:c@h",
    ]
    (star,) = parse_contacts([b"*"])
    assert star.star
    assert star.uri is None
    with pytest.raises(MalformedMessage):
        _ = star.parsed
    for mixed in ([b"*, <sip:a@h>"], [b"*", b"<sip:a@h>"], [b"*", b"*"], [b"*;expires=0"]):
        with pytest.raises(MalformedMessage):
            parse_contacts(mixed)


def test_name_addrs_over_several_lines() -> None:
    values = parse_name_addrs([b"<sip:a;lr>,<sip:b;lr>", b"<sip:c>"])
    assert [b"lr" in value.parsed.params for value in values] == [True, True, False]


# --- Via ------------------------------------------------------------------------------------------------------------


def test_via_of_the_usual_kind() -> None:
    via = parse_via(b"SIP/2.0/UDP 192.0.2.1:5061;rport;branch=z9hG4bKabc")
    assert (via.transport, via.host, via.port, via.branch) == (b"UDP", b"192.0.2.1", 5061, b"z9hG4bKabc")
    assert via.params == {b"rport": None, b"branch": b"z9hG4bKabc"}
    assert (via.received, via.rport, via.wants_rport, via.has_cookie) == (None, None, True, True)


def test_via_with_blanks_everywhere_and_another_behind() -> None:
    via = parse_via(b"SIP  / 2.0  / tcp     spindle.example.com  : 5070 ; Branch  =   z9hG4bK9ikj8  , SIP/2.0/UDP x")
    assert (via.transport, via.host, via.port) == (b"TCP", b"spindle.example.com", 5070)
    assert via.branch == b"z9hG4bK9ikj8"


@pytest.mark.parametrize("received", [b"[2001:db8::9:255]", b"2001:db8::9:255"])
def test_received_with_and_without_brackets(received: bytes) -> None:
    via = parse_via(b"SIP/2.0/UDP [2001:db8::9:1];received=" + received + b";branch=z9hG4bKas3")
    assert via.host == b"[2001:db8::9:1]"
    assert via.received == b"2001:db8::9:255"


def test_answered_rport() -> None:
    via = parse_via(b"SIP/2.0/UDP h;branch=z9hG4bK1;rport=1025;received=192.0.2.7")
    assert (via.rport, via.received) == (1025, b"192.0.2.7")
    assert parse_via(b"SIP/2.0/UDP h;rport=70000").rport is None
    assert parse_via(b"SIP/2.0/UDP h;rport=0").rport is None


@pytest.mark.parametrize(
    ("branch", "cookie"),
    [(b";branch=z9hG4bK1", True), (b";branch=z9hG4bK", False), (b";branch=1", False), (b"", False)],
)
def test_cookie(branch: bytes, cookie: bool) -> None:
    assert parse_via(b"SIP/2.0/UDP h" + branch).has_cookie is cookie


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"SIP/2.0/UDP",
        b"SIP/2.0/UDP ",
        b"SIP/2.0 192.0.2.15",
        b"SIP/2.0/UDP 192.0.2.15;;,;,,",
        b"SIP/2.0/UDP h:0;branch=z9hG4bK1",
        b"SIP/2.0/UDP h:99999;branch=z9hG4bK1",
        b"SIP/2.0/UDP h:5060x;branch=z9hG4bK1",
        b"SIP/2.0/UDP h;branch=",
        b"SIP/2.0/UDP h;branch=a;branch=b",
        b"SIP/2.0/UDP h;branch=a:b",
        b"SIP/2.0/UDP 2001:db8::1;branch=z9hG4bK1",
        b"SIP/2.0/UDP h x;branch=z9hG4bK1",
        b"SIP/2.0/UDP h;branch=z9hG4bK1\n",
    ],
)
def test_malformed_via(value: bytes) -> None:
    with pytest.raises(MalformedMessage):
        parse_via(value)


SOURCE = (b"198.51.100.7", 4567)


@pytest.mark.parametrize(
    ("tail", "stamped"),
    [
        (b";rport;branch=z9hG4bK1", b";rport=4567;received=198.51.100.7;branch=z9hG4bK1"),
        (b";branch=z9hG4bK1;rport", b";branch=z9hG4bK1;rport=4567;received=198.51.100.7"),
        (b";rport", b";rport=4567;received=198.51.100.7"),
        (b";branch=z9hG4bK1", b";branch=z9hG4bK1;received=198.51.100.7"),
        (b"", b";received=198.51.100.7"),
        (
            b";RPORT ;branch=z9hG4bK1;received=203.0.113.1",
            b";branch=z9hG4bK1;rport=4567;received=198.51.100.7",
        ),
        (b";branch=z9hG4bK1;received=203.0.113.1", b";branch=z9hG4bK1;received=198.51.100.7"),
        (b";rport=1;branch=z9hG4bK1", b";branch=z9hG4bK1;rport=4567;received=198.51.100.7"),
        (b';x=";rport";branch=z9hG4bK1', b';x=";rport";branch=z9hG4bK1;received=198.51.100.7'),
    ],
)
def test_a_via_is_stamped_with_its_source(tail: bytes, stamped: bytes) -> None:
    via = parse_via(b"SIP/2.0/UDP 10.0.0.1:5060" + tail)
    result = via.stamped(*SOURCE)
    assert result.tail == stamped
    assert (result.host, result.port, result.branch) == (via.host, via.port, via.branch)
    assert result.received == SOURCE[0]
    assert result.rport == (SOURCE[1] if via.wants_rport else None)


@pytest.mark.parametrize("tail", [b";branch=z9hG4bK1", b"", b";branch=z9hG4bK1;alias"])
def test_a_via_that_tells_its_address_is_left_alone(tail: bytes) -> None:
    via = parse_via(b"SIP/2.0/UDP 198.51.100.7:5060" + tail)
    assert via.stamped(*SOURCE) is via
    bracketed = parse_via(b"SIP/2.0/UDP [2001:db8::1]" + tail)
    assert bracketed.stamped(b"2001:db8::1", 5060) is bracketed


PARAMETER = st.sampled_from(
    [b";rport", b";branch=z9hG4bK1", b";received=1.2.3.4", b";ttl=1", b';x="a;rport=5"', b"; y = z ",
     b"; RPort ", b";xrport", b";rports=1"]
)  # fmt: skip


@given(st.lists(PARAMETER, max_size=5, unique_by=lambda text: text.strip(b"; ").lower().split(b"=")[0]))
def test_stamping_tells_exactly_the_source(parameters: list[bytes]) -> None:
    via = parse_via(b"SIP/2.0/UDP h" + b"".join(parameters))
    assert via.wants_rport == (b"rport" in via.params)
    stamped = via.stamped(*SOURCE)
    again = parse_via(b"SIP/2.0/UDP h" + stamped.tail)
    kept = {name: value for name, value in via.params.items() if name not in (b"rport", b"received")}
    expected = kept | {b"received": b"198.51.100.7"} | ({b"rport": b"4567"} if via.wants_rport else {})
    assert again.params == stamped.params == expected


def test_repr_shows_what_matters() -> None:
    assert "192.0.2.1" in repr(Via(b"UDP", b"192.0.2.1", None, None, b";x"))


# --- parameters -----------------------------------------------------------------------------------------------------


def test_parameters() -> None:
    assert parse_params(b"") == {}
    assert parse_params(b';a=1; B = "x;\\"y" ;c;d=""') == {b"a": b"1", b"b": b'x;"y', b"c": None, b"d": b""}


@pytest.mark.parametrize(
    "tail", [b"a", b";;", b";=1", b";a==", b";a=1;A=2", b';a="x', b";a=1 b", b";a b=1", b";a,b", b";a=\0"]
)
def test_malformed_parameters(tail: bytes) -> None:
    with pytest.raises(MalformedMessage):
        parse_params(tail)


def test_drop_params_knows_quotes() -> None:
    assert drop_params(b';x=";rport=1";RPORT=2;y', (b"rport",)) == b';x=";rport=1";y'


# --- numbers, tokens, escapes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "number"), [(b"0", 0), (b"0009", 9), (b"4294967295", 2**32 - 1)])
def test_numbers(text: bytes, number: int) -> None:
    assert parse_number(text, "X") == read_number(text) == number


@pytest.mark.parametrize(
    "text",
    [b"", b"+0", b"-1", b"1_0", b" 5", b"5 ", "٣".encode(), b"\xb2", b"0x5", b"4294967296", b"1" * 21, b"1" * 5000],
)
def test_what_is_no_number(text: bytes) -> None:
    with pytest.raises(MalformedMessage):
        parse_number(text, "X")


def test_read_number_caps_and_forgives() -> None:
    assert read_number(None) is None
    assert read_number(b"soon") is None
    assert read_number(b"99999999999") == 2**32 - 1


def test_tokens() -> None:
    assert is_token(b"!interesting-Method0123456789_*+`.%indeed'~")
    for text in (b"", b"a b", b"a:", b"a\n", b"(a)", "ä".encode()):
        assert not is_token(text)


def test_unescape_happens_once() -> None:
    assert unescape(b"value%25%34%31") == b"value%41"
    assert unescape(b"%Z%45") == b"%ZE"
    assert unescape(b"%00") == b"\0"
    assert unquote(b'"a\\\\\\"b"') == b'a\\"b'
    assert unquote(b"a") == b"a"
    assert unquote(b'"') == b"" == unquote(b'""')  # octets that end before they start


# --- header names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"Via", b"via"),
        (b"v", b"via"),
        (b"V", b"via"),
        (b"vIa  ", b"via"),
        (b"V\t", b"via"),
        (b"MaX-fOrWaRdS", b"max-forwards"),
        (b"CALL-ID", b"call-id"),
        (b"i", b"call-id"),
        (b"X-Anything", b"x-anything"),
        (b"C%6Fntact", b"c%6fntact"),
        (b"extensionHeader-!.%*+_`'~", b"extensionheader-!.%*+_`'~"),
    ],
)
def test_canonical_names(raw: bytes, name: bytes) -> None:
    assert canonical_name(raw) == name


@pytest.mark.parametrize("raw", [b"", b" ", b" Via", b"Via\r\n", b"a b", b"a\0", b"(x)", "Vía".encode()])
def test_names_that_are_none(raw: bytes) -> None:
    with pytest.raises(MalformedMessage):
        canonical_name(raw)


def test_the_table_of_spellings_folds_to_itself() -> None:
    for spelling, name in SPELLINGS.items():
        assert canonical_name(spelling.swapcase()) == name
        assert SPELLINGS[name] == name
        assert LONG_NAMES[name].lower().encode() == name
