"""URIs and name-addrs: what is read, what is refused, what equals what."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import MalformedMessage
from orchestrator.sip.uri import Uri, parse_name_addr, parse_uri, uris_equal

# --- reading --------------------------------------------------------------------------------------------------------


def test_all_parts_of_a_uri() -> None:
    uri = parse_uri(b"SIPS:alice:secret@Example.COM:5061;transport=TCP;lr;x=a%20b?subject=hi&priority=urgent")
    assert (uri.scheme, uri.user, uri.password) == (b"sips", b"alice", b"secret")
    assert (uri.host, uri.port) == (b"Example.COM", 5061)
    assert uri.params == {b"transport": b"TCP", b"lr": None, b"x": b"a b"}
    assert uri.headers == b"subject=hi&priority=urgent"
    assert (uri.transport, b"lr" in uri.params, uri.is_sip) == (b"tcp", True, True)
    assert bytes(uri).startswith(b"SIPS:alice:secret@")


def test_a_bare_host() -> None:
    uri = parse_uri(b"sip:example.com")
    assert (uri.user, uri.password, uri.host, uri.port) == (b"", None, b"example.com", None)
    assert (uri.params, uri.headers, uri.transport) == ({}, b"", None)
    assert uri.aor == "example.com"


@pytest.mark.parametrize(
    ("params", "transport"),
    [
        (b";Transport=UDP", b"udp"),
        (b";lr;transport=tcp;x=1", b"tcp"),
        (b";x=transport", None),
        (b";xtransport=tcp", None),
        (b";transport", None),
        (b";transpor%74=t%63p", b"tcp"),
    ],
)
def test_transport_is_read_like_any_other_parameter(params: bytes, transport: bytes | None) -> None:
    uri = parse_uri(b"sip:bob@example.com" + params)
    assert uri.transport == transport
    assert (uri.params.get(b"transport") or b"").lower() == (transport or b"")


@pytest.mark.parametrize(
    ("raw", "host", "port"),
    [
        (b"sip:bob@192.0.2.4:5070", b"192.0.2.4", 5070),
        (b"sip:[2001:db8::10]:5070", b"[2001:db8::10]", 5070),
        (b"sip:[2001:db8::10:5070]", b"[2001:db8::10:5070]", None),
        (b"sip:user@[::ffff:192.0.2.2]", b"[::ffff:192.0.2.2]", None),
        (b"sip:user@[2001:db8:::192.0.2.1]", b"[2001:db8:::192.0.2.1]", None),
        (b"sip:bob@free_switch.internal", b"free_switch.internal", None),
        (b"sip:bob@h:1", b"h", 1),
        (b"sip:bob@h:65535", b"h", 65535),
    ],
)
def test_hosts_and_ports(raw: bytes, host: bytes, port: int | None) -> None:
    uri = parse_uri(raw)
    assert (uri.host, uri.port) == (host, port)


@pytest.mark.parametrize(
    ("raw", "user", "username"),
    [
        (b"sip:user;par=u%40example.net@example.com", b"user;par=u%40example.net", "user;par=u@example.net"),
        (b"sip:%75se%72@example.com", b"%75se%72", "user"),
        (b"sip:value%25%34%31@h", b"value%25%34%31", "value%41"),
        (b"sip:*8@pbx", b"*8", "*8"),
        (b"sip:#31#5551@pbx", b"#31#5551", "#31#5551"),
        (b"sip:+1(555)22@pbx", b"+1(555)22", "+1(555)22"),
        (b"sip:h;x=1?a@b", b"h;x=1?a", "h;x=1?a"),
        (b"sip:%D0%B0@h", b"%D0%B0", "а"),
    ],
)
def test_user_parts(raw: bytes, user: bytes, username: str) -> None:
    uri = parse_uri(raw)
    assert (uri.user, uri.username) == (user, username)
    assert uri.params == {}


def test_escaped_parameter_names_and_values_are_unescaped_once() -> None:
    uri = parse_uri(b"sip:cal%6Cer@host5.example.net;%6C%72;n%61me=v%61lue%25%34%31")
    assert b"lr" in uri.params
    assert uri.params[b"name"] == b"value%41"


def test_push_parameters_with_unescaped_signs() -> None:
    uri = parse_uri(b"sip:bob@10.0.0.2;pn-provider=fcm;pn-param=app;pn-prid=f0:APA91b-x_y==;rinstance=1~2")
    assert uri.params[b"pn-prid"] == b"f0:APA91b-x_y=="
    assert uri.params[b"rinstance"] == b"1~2"


@pytest.mark.parametrize(
    "raw",
    [
        b"tel:+358-555-1234567;postd=pp22",
        b"urn:service:sos",
        b"nobodyKnowsThisScheme:totallyopaquecontent",
        b"soap.beep://192.0.2.103:3002",
        b"http://www.example.com",
    ],
)
def test_other_schemes_are_opaque(raw: bytes) -> None:
    uri = parse_uri(raw)
    scheme, _, opaque = raw.partition(b":")
    assert not uri.is_sip
    assert (uri.scheme, uri.opaque, uri.host, uri.user) == (scheme.lower(), opaque, b"", b"")
    assert uri.aor.endswith(opaque.decode())


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"sip:",
        b"sip:@host",
        b"sip:user@",
        b"bob@example.com",
        b"<sip:user@example.com>",
        b"sip:user@example.com; lr",
        b" sip:user@example.com",
        b"sip:a b@example.com",
        b"sip:a@b@example.com",
        b"sip:2001:db8::10",
        b"sip:user@[2001:db8::10",
        b"sip:user@host:",
        b"sip:user@host:0",
        b"sip:user@host:65536",
        b"sip:user@host:99999",
        b"sip:user@host:700000",
        b"sip:user@host:+5060",
        b"sip:user@host:\xd9\xa3",
        b"sip:user@host;;lr",
        b"sip:user@host;=x",
        b"sip:user@host;lr;LR",
        b"sip:user@host;lr;%6Cr",
        b"sip:100%@host",
        b"sip:%zz@host",
        b"sip:%ff%fe@host",
        b"sip:\xd0\xb0@host",
        b"sip:us\0er@host",
        b'sip:"user"@host',
        b"sip:user@host\r\nX: y",
        b"sip:user@host\n",
        b"sips:",
        b"tel:",
        b"tel:1 2",
        b"1tel:12",
    ],
)
def test_malformed_uris(raw: bytes) -> None:
    with pytest.raises(MalformedMessage) as caught:
        parse_uri(raw)
    assert caught.value.sip_status == 400


# --- address of record ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "aor"),
    [
        (b"sip:Bob@Example.COM:5060;transport=tcp", "Bob@example.com"),
        (b"sips:bob:pw@example.com", "bob@example.com"),
        (b"sip:b%6Fb@example.com", "bob@example.com"),
        (b"sip:null-%00-null@example.com", "null-\0-null@example.com"),
        (b"sip:sips%3Auser%40example.com@example.net", "sips:user@example.com@example.net"),
        (b"tel:+1555", "tel:+1555"),
    ],
)
def test_aor(raw: bytes, aor: str) -> None:
    assert parse_uri(raw).aor == aor


def test_escaped_nulls_make_two_users() -> None:
    assert parse_uri(b"sip:%00@host5.example.com").aor != parse_uri(b"sip:%00%00@host5.example.com").aor


@given(a=st.text(min_size=1, max_size=6), b=st.text(min_size=1, max_size=6))
def test_no_two_users_share_an_aor(a: str, b: str) -> None:
    def escape(user: str) -> bytes:
        return b"".join(b"%%%02X" % octet for octet in user.encode())

    def readable(user: str) -> bool:
        return not any(0xD800 <= ord(char) < 0xE000 for char in user)

    if readable(a) and readable(b):
        same = parse_uri(b"sip:" + escape(a) + b"@h").aor == parse_uri(b"sip:" + escape(b) + b"@h").aor
        assert same == (a == b)


# --- equality: the tables of §19.1.4 --------------------------------------------------------------------------------


def equal(a: bytes, b: bytes) -> bool:
    forth, back = uris_equal(parse_uri(a), parse_uri(b)), uris_equal(parse_uri(b), parse_uri(a))
    assert forth == back
    return forth


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (b"sip:%61lice@atlanta.com;transport=TCP", b"sip:alice@AtLanTa.CoM;Transport=tcp"),
        (b"sip:carol@chicago.com", b"sip:carol@chicago.com;newparam=5"),
        (b"sip:carol@chicago.com;security=on", b"sip:carol@chicago.com;newparam=5"),
        (
            b"sip:biloxi.com;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.com",
            b"sip:biloxi.com;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.com",
        ),
        (
            b"sip:alice@atlanta.com?subject=project%20x&priority=urgent",
            b"sip:alice@atlanta.com?priority=urgent&subject=project%20x",
        ),
        (b"tel:+1555", b"TEL:+1555"),
        (b"sip:a%3bb@h", b"sip:a%3Bb@h"),
    ],
)
def test_equivalent(a: bytes, b: bytes) -> None:
    assert equal(a, b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (b"SIP:ALICE@AtLanTa.CoM;Transport=udp", b"sip:alice@AtLanTa.CoM;Transport=UDP"),
        (b"sip:bob@biloxi.com", b"sip:bob@biloxi.com:5060"),
        (b"sip:bob@biloxi.com", b"sip:bob@biloxi.com;transport=udp"),
        (b"sip:bob@biloxi.com", b"sip:bob@biloxi.com:6000;transport=tcp"),
        (b"sip:carol@chicago.com", b"sip:carol@chicago.com?Subject=next%20meeting"),
        (b"sip:carol@chicago.com;security=on", b"sip:carol@chicago.com;security=off"),
        (b"sip:bob@phone21.boxesbybob.com", b"sip:bob@192.0.2.4"),
        (b"sip:bob@h", b"sips:bob@h"),
        (b"sip:bob:a@h", b"sip:bob:b@h"),
        (b"sip:a;b@h", b"sip:a%3Bb@h"),
        (b"sip:a%2541@h", b"sip:a%41@h"),
        (b"tel:+1555", b"tel:+1556"),
        (b"sip:h;maddr=239.255.255.1", b"sip:h"),
        (b"sip:h;user=phone", b"sip:h"),
    ],
)
def test_not_equivalent(a: bytes, b: bytes) -> None:
    assert not equal(a, b)


# --- name-addr ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "display", "uri", "params"),
    [
        (b"<sip:bob@h>", b"", b"sip:bob@h", {}),
        (b"sip:bob@h;tag=4", b"", b"sip:bob@h", {b"tag": b"4"}),
        (b'"Bob \\"B\\\\" <sip:bob@h;lr>;tag=4', b'Bob "B\\', b"sip:bob@h;lr", {b"tag": b"4"}),
        (b"caller<sip:bob@h>;tag=323", b"caller", b"sip:bob@h", {b"tag": b"323"}),
        (b"T. desk phone <sip:ted@h>", b"T. desk phone", b"sip:ted@h", {}),
        (b"\xd0\x90\xd0\xbd\xd1\x8f <sip:anna@h>", b"\xd0\x90\xd0\xbd\xd1\x8f", b"sip:anna@h", {}),
        (b'"nul \\\0" <sip:a@h>', b"nul \0", b"sip:a@h", {}),
        (b'"a,b;c<d>" <sip:a@h>', b"a,b;c<d>", b"sip:a@h", {}),
        (b"<sip:a@h> ; TAG = 5 ; x", b"", b"sip:a@h", {b"tag": b"5", b"x": None}),
        (
            b'<sip:a@h>;+sip.instance="<urn:uuid:1>";reg-id=1;methods="INVITE, BYE"',
            b"",
            b"sip:a@h",
            {b"+sip.instance": b"<urn:uuid:1>", b"reg-id": b"1", b"methods": b"INVITE, BYE"},
        ),
        (b"<sip:+19725552222@gw1.example.net;unknownparam>", b"", b"sip:+19725552222@gw1.example.net;unknownparam", {}),
        (
            b"sip:+19725552222@gw1.example.net;unknownparam",
            b"",
            b"sip:+19725552222@gw1.example.net",
            {b"unknownparam": None},
        ),
        (b"<name:John_Smith>", b"", b"name:John_Smith", {}),
    ],
)
def test_name_addr(value: bytes, display: bytes, uri: bytes, params: dict[bytes, bytes | None]) -> None:
    address = parse_name_addr(value)
    assert (address.display, address.uri, address.params) == (display, uri, params)
    assert bytes(address.parsed) == uri
    assert address.tag == params.get(b"tag")
    assert not address.star


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"*",
        b"<>",
        b'"Mr. J. User <sip:j.user@example.com>',
        b'"Mr. J. \\" <sip:j.user@example.com>',
        b"Bell, Alexander <sip:a.g.bell@example.com>;tag=43",
        b'"Watson, Thomas" < sip:t.watson@example.org >',
        b"<sip:t.watson@example.org",
        b"sip:user@example.com?Route=%3Csip:sip.example.com%3E",
        b"sip:user@example.com,sip:other@example.com",
        b'"Joe" <sip:joe@example.org>;;;;',
        b"<sip:joe@example.org>;tag=1;tag=2",
        b"<sip:joe@example.org>;tag=1;TAG=1",
        b"<sip:joe@example.org>garbage",
        b'<sip:joe@example.org>;x="open',
        b"<sip:joe@example.org:99999>",
        b"<joe>",
        b'"a" "b" <sip:joe@example.org>',
    ],
)
def test_malformed_name_addr(value: bytes) -> None:
    with pytest.raises(MalformedMessage):
        parse_name_addr(value)


@pytest.mark.parametrize(
    ("text", "q"),
    [
        (b"0.7", 0.7),
        (b"1", 1.0),
        (b"1.000", 1.0),
        (b"0", 0.0),
        (b"0.", 0.0),
        (b"1.5", 1.0),
        (b"nan", 1.0),
        (b"-1", 1.0),
    ],
)
def test_q_values(text: bytes, q: float) -> None:
    assert parse_name_addr(b"<sip:a@h>;q=" + text).q == q


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (b"60", 60),
        (b"0", 0),
        (b"4294967296", 2**32 - 1),
        (b"-5", None),
        (b"1_0", None),
        (b"9" * 21, None),
        (b'"60"', 60),
    ],
)
def test_expires_parameter(text: bytes, seconds: int | None) -> None:
    assert parse_name_addr(b"<sip:a@h>;expires=" + text).expires == seconds


def test_absent_contact_parameters() -> None:
    address = parse_name_addr(b"<sip:a@h>")
    assert (address.q, address.expires, address.tag) == (1.0, None, None)


# --- only MalformedMessage comes out --------------------------------------------------------------------------------

PIECES = [
    b"sip:", b"sips:", b"tel:", b"a", b"@", b":", b";", b"=", b"?", b"&", b"%41", b"%", b"[", b"]", b"::1", b"<", b">",
    b'"', b"\\", b",", b" ", b"\t", b"5060", b"0", b"99999", b"lr", b"tag", b"\xff", b"\0", b"*", b".",
]  # fmt: skip


@given(pieces=st.lists(st.sampled_from(PIECES), max_size=14))
def test_any_text_reads_or_is_malformed(pieces: list[bytes]) -> None:
    text = b"".join(pieces)
    for parse in (parse_uri, parse_name_addr):
        try:
            value = parse(text)
        except MalformedMessage:
            continue
        uri = value if isinstance(value, Uri) else value.parsed
        assert uri.port is None or 1 <= uri.port <= 65535
        assert uris_equal(uri, parse_uri(bytes(uri)))
        assert isinstance(uri.aor, str) and isinstance(uri.params, dict)
