"""What is masked in a recording, that the same is masked the same way, and that nothing else changes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.esl.codec import EslEvent, Frame, FrameDecoder
from orchestrator.testing.recordings import build_frame, url_encode
from orchestrator.testing.redaction import HIDDEN, Redaction, with_length

EVERYTHING = {"numbers": True, "addresses": True, "digits": True}


def redacted(redaction: Redaction, **headers: str) -> EslEvent:
    """An event with these headers (`_` for `-` where no `variable_`), after it went through."""
    names = {name if name.startswith("variable_") else name.replace("_", "-"): value for name, value in headers.items()}
    block = b"".join(name.encode() + b": " + url_encode(value) + b"\n" for name, value in names.items()) + b"\n"
    (frame,) = FrameDecoder().feed(build_frame("text/event-plain", block))
    head, body = redaction.frame(frame)
    (back,) = FrameDecoder().feed(f"{head}\n\n{body}".encode("utf-8", "surrogateescape"))
    event = back.event()
    assert event is not None
    return event


# --- secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("variable_sip_auth_password", "hunter2"),
        ("variable_api_key", "k"),
        ("Password", "p"),
        ("variable_sip_h_X-Auth-Token", "t"),
        ("variable_sip_auth_response", "0123"),
        ("variable_sip_h_Proxy-Authorization", 'Digest username="x"'),
        ("variable_voicemail_pin", "1234"),
    ],
)
def test_values_of_secret_headers_go(name: str, value: str) -> None:
    assert Redaction().value(name, value) == HIDDEN


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (
            "{sip_auth_username=bob,sip_auth_password=hunter2}sofia/x",
            f"{{sip_auth_username=bob,sip_auth_password={HIDDEN}}}sofia/x",
        ),
        ('password: "a b"', f'password: "{HIDDEN} b"'),
        ("http://x/?token=abc&n=1", f"http://x/?token={HIDDEN}&n=1"),
        ("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:c2VjcmV0", f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{HIDDEN}"),
        ("a=ice-pwd:asd88fgpdd777uzjYhagZg", f"a=ice-pwd:{HIDDEN}"),
        ("Authorization: Bearer abc.def", f"Authorization: Bearer {HIDDEN}"),
        ("<sip:b@h;pn-prid=abc:x;pn-param=T.id>", f"<sip:b@h;pn-prid={HIDDEN};pn-param={HIDDEN}>"),
        ("<sip:b@h;pn-prid=T1:remote&T2:voip;pn-tok=T>", f"<sip:b@h;pn-prid={HIDDEN};pn-tok={HIDDEN}>"),
        ("<sip:b@h;pn-prid=T;pn-auth=T>", f"<sip:b@h;pn-prid={HIDDEN};pn-auth={HIDDEN}>"),
        ("a=rtpmap:101 telephone-event/8000", "a=rtpmap:101 telephone-event/8000"),
    ],
)
def test_secrets_inside_texts_go(text: str, left: str) -> None:
    assert Redaction().text(text) == left


@pytest.mark.parametrize(
    ("command", "left"),
    [
        ("auth ClueCon", f"auth {HIDDEN}"),
        ("AUTH  p w", f"AUTH  {HIDDEN}"),
        ("userauth bob@x:s3cret", f"userauth bob@x:{HIDDEN}"),
        ("event plain ALL", "event plain ALL"),
        ("api uuid_setvar u sip_auth_password x", "api uuid_setvar u sip_auth_password x"),
    ],
)
def test_passwords_of_the_connection_go(command: str, left: str) -> None:
    assert Redaction().command(command, "") == (left, "")


def test_an_empty_secret_stays_empty() -> None:
    assert Redaction().value("variable_password", "") == ""


def test_without_being_asked_nothing_else_goes() -> None:
    event = redacted(Redaction(), Caller_Caller_ID_Number="1000", FreeSWITCH_IPv4="10.1.2.3", DTMF_Digit="5")
    assert [event.get(name) for name in event.headers] == ["1000", "10.1.2.3", "5"]


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_a_number_is_the_same_other_one_everywhere() -> None:
    redaction = Redaction(numbers=True)
    event = redacted(
        redaction,
        Caller_Caller_ID_Number="49301234",
        Caller_Destination_Number="1000",
        Channel_Name="sofia/external/49301234",
        variable_sip_from_uri="49301234@10.0.0.1",
        variable_sip_contact_uri="sip:1000@10.0.0.2:5060;x=1",
        variable_sip_call_id="1000@pbx",
    )
    caller = event.get("Caller-Caller-ID-Number")
    called = event.get("Caller-Destination-Number")
    assert len(caller) == 8 and caller != "49301234" and len(called) == 4 and called != "1000"
    assert event.get("Channel-Name") == f"sofia/external/{caller}"
    assert event.get("variable_sip_from_uri") == f"{caller}@10.0.0.1"
    assert event.get("variable_sip_contact_uri") == f"sip:{called}@10.0.0.2:5060;x=1"
    assert event.get("variable_sip_call_id") == f"{called}@pbx"
    assert redaction.command("api originate user/1000 49301234", "")[0] == f"api originate user/{called} {caller}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Event-Date-Timestamp", "1795385642580103"),
        ("Channel-Read-Codec-Rate", "8000"),
        ("Event-Calling-Line-Number", "626"),
        ("Channel-State-Number", "200"),
        ("Unique-ID", "403bffce-75c0-4134-9c7f-37d90cee328f"),
        ("variable_switch_r_sdp", "m=audio 40000 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n"),
        ("Caller-Caller-ID-Name", "Alice 2000"),
    ],
)
def test_what_only_looks_like_a_number_stays(name: str, value: str) -> None:
    redaction = Redaction(numbers=True)
    redaction.value("Caller-Destination-Number", "8000")
    assert redaction.value(name, value) == value


def test_numbers_keep_their_form() -> None:
    redaction = Redaction(numbers=True)
    numbers = ["+49301234", "0049301234", "101", "102", "1000"]
    masked = [redaction.value("Caller-ANI", number) for number in numbers]
    assert [len(one) for one in masked] == [len(one) for one in numbers]
    assert masked[0].startswith("+") and len(set(masked)) == len(masked)


def test_uuids_in_commands_stay_whole() -> None:
    command = "bgapi uuid_kill 403bffce-75c0-4134-9c7f-371234567890"
    assert Redaction(numbers=True).command(command, "")[0] == command


# --- addresses and digits ---------------------------------------------------------------------------------------------


def test_addresses_are_those_of_the_documentation() -> None:
    redaction = Redaction(addresses=True)
    event = redacted(
        redaction,
        FreeSWITCH_Hostname="pbx.customer.example",
        FreeSWITCH_IPv4="10.1.2.3",
        FreeSWITCH_IPv6="fd00::12",
        variable_sip_via_host="10.1.2.4",
        variable_sdp="c=IN IP4 10.1.2.3\r\nc=IN IP4 127.0.0.1",
    )
    assert [event.get(name) for name in event.headers] == [
        "freeswitch",
        "192.0.2.1",
        "2001:db8::2",
        "192.0.2.3",
        "c=IN IP4 192.0.2.1\r\nc=IN IP4 127.0.0.1",
    ]


@pytest.mark.parametrize(
    "text", ["12:30:59", "0.0.0.0", "::1", "127.0.0.1:8021", "300.1.1.1", "1.2.3", "00:11:22:33:44:55"]
)
def test_what_is_no_address_stays(text: str) -> None:
    assert Redaction(addresses=True).text(text) == text


def test_many_addresses() -> None:
    redaction = Redaction(addresses=True)
    masked = {redaction.text(f"10.{n // 250}.{n % 250}.1") for n in range(2000)}
    assert len(masked) == 2000 and all(one.startswith(("192.0.2.", "198.", "203.0.113.")) for one in masked)


def test_digits_when_asked() -> None:
    redaction = Redaction(digits=True)
    event = redacted(redaction, DTMF_Digit="5", DTMF_Duration="2000", variable_digits_received="1234#")
    assert [event.get(name) for name in event.headers] == ["0", "2000", "00000"]
    uuid = "403bffce-75c0-4134-9c7f-37d90cee328f"
    assert redaction.command(f"api uuid_send_dtmf {uuid} 12w3", "")[0] == f"api uuid_send_dtmf {uuid} 0000"
    assert redaction.text("Signal=5\r\nDuration=160") == "Signal=0\r\nDuration=160"


# --- form -------------------------------------------------------------------------------------------------------------


def test_lengths_are_those_of_what_is_written() -> None:
    inner = b"Job-Command: x\nContent-Length: 21\n\npassword=averylongone"
    (frame,) = FrameDecoder().feed(build_frame("text/event-plain", b"Event-Name: BACKGROUND_JOB\n" + inner))
    head, body = Redaction().frame(frame)
    (back,) = FrameDecoder().feed(f"{head}\n\n{body}".encode())
    event = back.event()
    assert event is not None and event.body == f"password={HIDDEN}" and event.get("Content-Length") == "12"


def test_events_as_json() -> None:
    fields = {
        "Event-Name": "DTMF",
        "DTMF-Digit": "5",
        "variable_password": "x",
        "list": ["10.0.0.1"],
        "_body": "token=t",
    }
    (frame,) = FrameDecoder().feed(build_frame("text/event-json", json.dumps(fields).encode()))
    _, body = Redaction(**EVERYTHING).frame(frame)
    assert json.loads(body) == {
        "Event-Name": "DTMF",
        "DTMF-Digit": "0",
        "variable_password": HIDDEN,
        "list": ["192.0.2.1"],
        "_body": f"token={HIDDEN}",
    }


@pytest.mark.parametrize("body", [b"{", b"[1]", b"\xff", b"[" * 100_000])
def test_json_that_is_none_is_text(body: bytes) -> None:
    head, text = Redaction(**EVERYTHING).frame(Frame("text/event-json", b"Content-Length: 1\n", body))
    assert text.encode("utf-8", "surrogateescape") == body
    assert head == f"Content-Length: {len(body)}"


def test_replies_and_command_headers() -> None:
    redaction = Redaction(numbers=True)
    redaction.value("Caller-ANI", "1000")
    (frame,) = FrameDecoder().feed(b"Content-Type: command/reply\nReply-Text: +OK sip:1000@x password=y\n\n")
    assert redaction.frame(frame)[0] == f"Content-Type: command/reply\nReply-Text: +OK sip:5001@x password={HIDDEN}"
    head, body = redaction.command("sendmsg u\ncall-command: execute\nexecute-app-arg: 1000\ncontent-length: 4", "1000")
    assert (head.split("\n")[2], body) == ("execute-app-arg: 5001", "5001")


def test_with_length_touches_lengths_only() -> None:
    assert with_length("Content-Length: 9\nX: Content-Length: 9", "ab") == "Content-Length: 2\nX: Content-Length: 9"


texts = st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=60)


@given(st.dictionaries(st.sampled_from(["Caller-ANI", "X", "variable_x", "DTMF-Digit", "FreeSWITCH-IPv4"]), texts))
def test_masking_twice_changes_nothing_more(headers: dict[str, str]) -> None:
    redaction = Redaction(**EVERYTHING)
    for name, value in headers.items():
        once = redaction.value(name, value)
        assert redaction.value(name, once) == once


@given(st.binary(max_size=200))
def test_any_octets_come_through_a_frame_that_holds_no_secret(octets: bytes) -> None:
    body = (
        octets.replace(b"o", b"0")
        .replace(b"O", b"0")
        .replace(b"i", b"1")
        .replace(b"I", b"1")
        .replace(b"a", b"4")
        .replace(b"A", b"4")
    )
    frame = Frame("api/response", b"Content-Type: api/response\nContent-Length: %d\n" % len(body), body)
    head, text = Redaction().frame(frame)
    assert text.encode("utf-8", "surrogateescape") == body and head.endswith(f": {len(body)}")
