"""What is written to FreeSWITCH, and above all what is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import EslInjection
from orchestrator.esl.commands import (
    EVENT_NAMES,
    MAX_BODY,
    MAX_COMMAND,
    api,
    bgapi,
    encode,
    esl_name,
    originate_variables,
    quote_argument,
    safe_argument,
    sendmsg_execute,
    subscriptions,
)

HOSTILE = ["a\nb", "a\rb", "a\0b", "Bob\n\napi fsctl shutdown now", "\r\n\r\n"]


def test_shape_of_a_command() -> None:
    assert encode("event plain DTMF") == b"event plain DTMF\n\n"
    assert encode("sendmsg u", {"call-command": "hangup"}) == b"sendmsg u\ncall-command: hangup\n\n"
    assert encode("sendmsg u", {"a": "b"}, "ö") == b"sendmsg u\na: b\nContent-Length: 2\n\n\xc3\xb6"
    assert api("status") == b"api status\n\n"
    assert bgapi("status", "j-1") == b"bgapi status\nJob-UUID: j-1\n\n"


@pytest.mark.parametrize("evil", HOSTILE)
def test_line_breaks_are_refused_everywhere(evil: str) -> None:
    """S21: `uuid_setvar u n <caller's name>` must not become two commands."""
    for make in (
        lambda: encode(f"api uuid_setvar u n {evil}"),
        lambda: encode("sendmsg u", {"x": evil}),
        lambda: encode("sendmsg u", {evil: "x"}),
        lambda: api(evil),
        lambda: bgapi("status", evil),
        lambda: sendmsg_execute("u", "playback", evil),
        lambda: sendmsg_execute(evil, "playback"),
        lambda: quote_argument(evil),
        lambda: safe_argument(evil),
        lambda: originate_variables({"a": evil}),
        lambda: subscriptions([evil]),
    ):
        with pytest.raises(EslInjection):
            make()


def test_a_refusal_names_the_command_but_no_secret() -> None:
    with pytest.raises(EslInjection) as caught:
        encode("auth s3cret\npassword")
    assert caught.value.command == "auth"
    assert "s3cret" not in str(caught.value)


@given(st.text(), st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=2))
def test_one_command_stays_one_command(line: str, headers: dict[str, str]) -> None:
    try:
        wire = encode(line, headers)
    except EslInjection:
        return
    assert wire.count(b"\n\n") == 1
    assert wire.endswith(b"\n\n")
    assert wire.count(b"\n") == 2 + len(headers)
    assert b"\r" not in wire
    assert b"\0" not in wire


@pytest.mark.parametrize("line", ["", "  ", "\ud800"])
def test_what_is_no_command_is_refused(line: str) -> None:
    with pytest.raises(EslInjection):
        encode(line)


def test_limits_of_freeswitch() -> None:
    with pytest.raises(EslInjection, match="octets"):
        encode("x" * MAX_COMMAND)
    with pytest.raises(EslInjection, match="octets"):
        encode("sendmsg u", body=b"x" * (MAX_BODY + 1))


@pytest.mark.parametrize("value", ["1000", "+4930123", "call-4cfc5694@127.0.0.1", "a_b.c:5060", "7614fd7d-ae09-4b8b"])
def test_safe_arguments_pass(value: str) -> None:
    assert safe_argument(value) == value


@pytest.mark.parametrize(
    "value",
    [
        "",
        "${system(id)}",
        "$${x}",
        "a b",
        "a,b",
        "a'b",
        'a"b',
        "a\\b",
        "{a}",
        "[a]",
        "^^:a",
        "a|b",
        "-bleg",
        "a;b",
        "ü",
        "a\n",
    ],
)
def test_everything_a_parser_could_read_into_is_refused(value: str) -> None:
    """S22."""
    with pytest.raises(EslInjection):
        safe_argument(value)


def test_quoting_for_one_level() -> None:
    assert quote_argument("plain") == "plain"
    assert quote_argument("set fax_seen=true 10") == "'set fax_seen=true 10'"
    assert quote_argument("it's\\") == "'it\\'s\\\\'"
    with pytest.raises(EslInjection):
        quote_argument("a ${system(id)}")


@given(st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"])))
def test_what_was_quoted_is_read_back_as_one_argument(text: str) -> None:
    """Reads as cleanup_separated_string does (switch_utils.c): a backslash takes the next character as it is."""
    if not text or "${" in text:
        return
    quoted = quote_argument(text)
    if quoted == text:
        assert " " not in text
        return
    assert quoted[0] == quoted[-1] == "'"
    read, inner = "", iter(quoted[1:-1])
    for character in inner:
        assert character != "'"
        read += next(inner) if character == "\\" else character
    assert read == text


def test_originate_variables() -> None:
    assert originate_variables({}) == ""
    assert originate_variables({"a": "1", "name": "Bob Smith"}) == "{a=1,name='Bob Smith'}"


@pytest.mark.parametrize(
    "value", ["a,b", "x' evil='1", "}park", "{", "^^:a", "${x}", "a  b", " a", "a\\'b", "a[b]", "u|v"]
)
def test_originate_variables_refuse_what_a_dial_string_reads(value: str) -> None:
    with pytest.raises(EslInjection):
        originate_variables({"a": value})


@pytest.mark.parametrize("name", ["a=b", "a b", "a,b", "", "a}"])
def test_names_of_originate_variables(name: str) -> None:
    with pytest.raises(EslInjection):
        originate_variables({name: "1"})


def test_execute() -> None:
    assert sendmsg_execute("u-1", "playback", "/tmp/a b.wav", "e-1", lock=True) == (
        b"sendmsg u-1\ncall-command: execute\nexecute-app-name: playback\nexecute-app-arg: /tmp/a b.wav\n"
        b"event-uuid: e-1\nevent-lock: true\n\n"
    )
    assert sendmsg_execute("u-1", "answer") == b"sendmsg u-1\ncall-command: execute\nexecute-app-name: answer\n\n"


def test_subscriptions_are_sorted_and_custom_ones_apart() -> None:
    names = ["DTMF", "CUSTOM sofia::register", "CHANNEL_CREATE", "CUSTOM avmd::beep", "DTMF"]
    assert subscriptions(names) == ["event plain CHANNEL_CREATE DTMF", "event plain CUSTOM avmd::beep sofia::register"]
    assert subscriptions([]) == []
    assert subscriptions(["ALL"]) == ["event plain ALL"]


@pytest.mark.parametrize(
    "name", ["dtmf", "DTMFF", "CUSTOM", "CUSTOM ", "CUSTOM a b", "avmd::beep", "DTMF CHANNEL_CREATE", ""]
)
def test_unknown_events_are_refused_before_freeswitch_ignores_them(name: str) -> None:
    with pytest.raises(EslInjection):
        subscriptions([name])


def test_names_of_flows() -> None:
    assert [esl_name(name) for name in ("DTMF", "avmd::beep", "CUSTOM a::b")] == [
        "DTMF",
        "CUSTOM avmd::beep",
        "CUSTOM a::b",
    ]


def test_every_event_of_the_recordings_is_known(recording) -> None:
    for name in ("burst20", "via_bridge", "fax_cng", "avmd_beep", "pickup_intercept"):
        assert {event.name for event in recording(name).events} <= EVENT_NAMES
