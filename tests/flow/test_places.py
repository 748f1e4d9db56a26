"""Text from outside in each place (FLOWLANG §3.1): refused at load, or encoded so that it stays one value there."""

from __future__ import annotations

import json
import shlex
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from orchestrator.errors import StepError
from orchestrator.events.checked import WrongValue, read_aor, read_tel, read_uri
from orchestrator.flow.expr.origin import alphabet_of
from orchestrator.sip.uri import parse_name_addr
from tests.flow.flowcheck import diagnose, first_step, load, steps

HOSTILE = (
    "x%40h%3a5060%3f",
    "a;b=c",
    '"><sip:x@y>',
    "../../etc/passwd",
    "a%2f..%2fb",
    "&system(id)",
    "{a=b}user/1",
    "${system(id)}",
    "a\r\nB: c",
    "a\0b",
    "a\u202eb",
    "x@h:5060?",
    "..",
    "x" * 65536,
)
RESOURCES = "endpoints: {e: {url: 'https://h.example'}}\nfreeswitch: {fs1: {host: h, password: p}}"


def written(step: str, key: str, text: str, *, inside: str = "") -> str | None:
    """What a step writes for a text of the caller; None when it fails with the error its place has for that."""
    value = first_step(step, more=RESOURCES).args[key]
    value = value[inside] if inside else value
    call = {"from": {"user": text, "display": text}, "target": {"user": text, "host": "example.com"}, "id": "1"}
    try:
        made: str = value.evaluate({"call": call})
    except StepError as error:
        assert error.type in ("esl.argument", "expr.value", "flow.limit"), error.type
        return None
    return made


@pytest.mark.parametrize("text", HOSTILE)
def test_sip_user(text: str) -> None:
    """Taken apart as RFC 3261 §25.1 says: nothing in the user part ends it, and it decodes to what came in."""
    made = written("- relay: 'sip:${call.from.user}@gw.example'", "to", text)
    if made is None:
        assert len(text) > 60000
        return
    assert made.count("@") == 1 and not set(made) & set(';?"<> \r\n\0') and made.isascii()
    user, host = made.removeprefix("sip:").split("@")
    assert (unquote(user), host) == (text, "gw.example")


@pytest.mark.parametrize("text", HOSTILE)
def test_sip_uri_parameter(text: str) -> None:
    made = written("- relay: 'sip:a@gw.example;x=${call.from.user};lr'", "to", text)
    if made is not None:
        first, parameter, last = made.split(";")
        assert (first, last, unquote(parameter)) == ("sip:a@gw.example", "lr", f"x={text}")


@pytest.mark.parametrize("text", HOSTILE)
def test_url(text: str) -> None:
    made = written("- http: 'http://h.example/who/${call.from.user}?q=${call.from.user}&z=1'", "url", text)
    if made is not None:
        url = urlsplit(made)
        assert (url.scheme, url.netloc, url.fragment) == ("http", "h.example", "")
        assert [unquote(part) for part in url.path.split("/")] == ["", "who", text]
        assert parse_qs(url.query, keep_blank_values=True) == {"q": [text], "z": ["1"]}
        assert not {".", ".."} & set(url.path.split("/"))


@pytest.mark.parametrize("text", HOSTILE)
def test_header_display_name_and_reason(text: str) -> None:
    headers = "headers: {X-A: '${call.from.display} <sip:a@b.example>', X-B: 'q \"${call.from.user}\";z'}"
    shown = written(f"- reply: {{code: 404, {headers}}}", "headers", text, inside="X-A")
    quoted = written(f"- reply: {{code: 404, {headers}}}", "headers", text, inside="X-B")
    reason = written("- reply: {code: 404, reason: '${call.from.user}'}", "reason", text)
    for made in (shown, quoted, reason):
        assert made is None or not any(ord(c) < 32 or ord(c) == 127 for c in made)
    if shown is not None and len(text) < 1000:
        assert parse_name_addr(shown.encode()).uri == b"sip:a@b.example"
    if quoted is not None:
        assert quoted.replace("\\\\", "").replace('\\"', "").count('"') == 2


@pytest.mark.parametrize("text", HOSTILE)
def test_one_argument_of_a_freeswitch_command(text: str) -> None:
    made = written("- fs.api: 'uuid_setvar 1 name ${call.from.user}'", "command", text)
    if made is not None:
        assert shlex.split(made.replace("\\'", "")) and len(shlex.split(made)) == 4
        assert "${" not in made and not set("\r\n\0") & set(made)


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_that_expands_reaches_an_application(text: str) -> None:
    for step, key in (
        ("- fs.execute: {app: set, args: 'a=${call.from.user}'}", "args"),
        ("- fs.execute: {app: say, args: 'en number ${call.from.user}'}", "args"),
        ("- fs.api: 'originate sofia/gateway/gw/${call.from.user} &park()'", "command"),
    ):
        made = written(step, key, text)
        assert made is None or ("$" not in made and made.isprintable())
        if made is not None and key == "command":
            assert not set(made.removesuffix(" &park()")) & set("{}[],|&()^")


@pytest.mark.parametrize("text", HOSTILE)
def test_file_name(text: str) -> None:
    made = written("- play: '/prompts/${call.from.user}.wav'", "file", text)
    assert made is None or made == "/prompts/" + "x" * 65536 + ".wav"


@pytest.mark.parametrize("text", HOSTILE)
def test_log(text: str) -> None:
    made = written("- log: '${call.from.user}'", "text", text)
    assert made is not None and made.isprintable()


@pytest.mark.parametrize(
    "step",
    [
        "- relay: '${call.from.uri}'",
        "- relay: '${call.to.uri}'",
        "- relay: 'sip:x@${call.from.host}'",
        "- relay: 'sip:x@a.${call.target.host}'",
        "- relay: '${call.from.user}:x@example.com'",
        "- relay: 'sip:x@h;${call.from.user}=1'",
        "- relay: 'sip:x@h;maddr=${call.from.user}'",
        "- http: '${call.from.user}'",
        "- http: 'http://${call.from.user}/'",
        "- http: 'http://h:${call.from.user}/'",
        "- http: {endpoint: e, url: '${call.from.user}'}",
        "- fs.api: '${call.from.user} x'",
        "- fs.api: 'originate ${call.from.user} &park()'",
        "- fs.api: 'system ls ${call.from.user}'",
        "- fs.api: 'originate user/1 &system(${call.from.user})'",
        "- fs.execute: {app: '${call.from.user}'}",
        "- fs.execute: {app: system, args: 'ls ${call.from.user}'}",
        "- fs.execute: {app: bridge, args: 'user/${call.from.user}'}",
        "- fs.execute: {app: set, args: '${call.from.user}=1'}",
        "- fs.execute: {app: set, args: 'api_hangup_hook=${call.from.user}'}",
        "- originate: {to: 'sip:a@b', vars: {execute_on_answer: '${call.from.user}'}}",
        "- originate: {to: 'sip:a@b', vars: {Execute_On_Ring: '${call.from.user}'}}",
        "- originate: {to: 'sip:a@b', vars: {sip_invite_req_uri: '${call.from.user}'}}",
        "- fs.api: 'SYSTEM ls ${call.from.user}'",
        "- fs.api: 'bg_spawn ls ${call.from.user}'",
        '- fs.api: \'json {"command":"fsapi ${call.from.user}"}\'',
        "- fs.api: 'uuid_setvar 1 ${call.from.user} x'",
        "- fs.api: 'uuid_setvar 1 api_hangup_hook ${call.from.user}'",
        "- fs.bgapi: 'uuid_setvar ${call.id} record_post_process_exec_api ${call.from.user}'",
        "- fs.api: 'uuid_transfer 1 ${call.from.user} inline'",
        "- fs.api: 'uuid_transfer 1 system:${call.from.user} inline'",
        "- fs.api: 'uuid_transfer 1 -both 100 ${call.from.user}'",
        "- fs.api: 'uuid_transfer 1 100 XML ${call.from.user}'",
        "- fs.api: 'uuid_broadcast 1 ${call.from.user} both'",
        "- fs.api: 'uuid_deflect 1 sip:${call.from.user}@a'",
        "- fs.api: 'uuid_record 1 start ${call.from.user}'",
        "- fs.api: 'conference room dial ${call.from.user}'",
        "- fs.api: 'conference room bgdial sofia/internal/1@${call.from.user}'",
        "- fs.api: 'conference room ${call.from.user}'",
        "- fs.api: 'conference room play ${call.from.user}'",
        "- fs.api: 'originate sofia/internal/${call.from.user} &park()'",
        "- fs.api: 'originate sofia/internal/1@${call.from.user} &park()'",
        "- fs.api: 'originate sofia/gateway/${call.from.user}/1 &park()'",
        "- fs.api: 'originate {api_on_answer=${call.from.user}}user/1 &park()'",
        "- fs.api: 'originate user/1,${call.from.user} &park()'",
        "- fs.api: 'originate user/1 ${call.from.user} XML default'",
        "- fs.api: 'callcenter_config agent set contact a ${call.from.user}'",
        "- fs.execute: {app: System, args: 'ls ${call.from.user}'}",
        "- fs.execute: {app: bgsystem, args: 'ls ${call.from.user}'}",
        "- fs.execute: {app: SET, args: 'API_Hangup_Hook=${call.from.user}'}",
        "- fs.execute: {app: export, args: 'nolocal:execute_on_answer=${call.from.user}'}",
        "- fs.execute: {app: push, args: 'execute_on_answer=${call.from.user}'}",
        "- fs.execute: {app: set, args: 'system_on_fax_success=${call.from.user}'}",
        "- fs.execute: {app: set, args: '${call.id}on_answer=${call.from.user}'}",
        "- fs.execute: {app: tone_detect, args: 'a 1100 r 0 ${call.from.user}'}",
        "- fs.execute: {app: spandsp_start_fax_detect, args: '${call.from.user} x'}",
        "- fs.execute: {app: bind_meta_app, args: '1 a s ${call.from.user}'}",
        "- fs.execute: {app: limit_execute, args: 'hash a b 1 ${call.from.user}'}",
        "- fs.execute: {app: conference, args: 'bridge:a:${call.from.user}'}",
        "- fs.execute: {app: eavesdrop, args: '${call.from.user}'}",
        "- fs.execute: {app: set_user, args: '${call.from.user}'}",
        "- fs.execute: {app: playback, args: '${call.from.user}'}",
        "- fs.execute: {app: endless_playback, args: 'http://${call.from.user}/'}",
        "- fs.execute: {app: '${call.id}', args: '${call.from.user}'}",
        "- record: '${call.from.user}'",
        "- collect: {max: 1, prompt: '${call.from.user}'}",
        "- collect: {max: 1, prompt: 'tone_stream://${call.from.user}'}",
        "- play: '${call.from.user}'",
        "- play: 'http://${call.from.user}/a.wav'",
        "- transfer: {to: 'sip:a@b', context: '${call.from.user}'}",
    ],
)
def test_what_nothing_can_make_safe_does_not_load(step: str) -> None:
    """With the place and the cure; `unsafe()` says that it is meant."""
    (wrong,) = diagnose(steps(step, more=RESOURCES))
    assert wrong.code == "E212" and "unsafe(" in wrong.help and wrong.line == 6
    meant = step.replace("${call", "${unsafe(call").replace("}", ")}", 1).replace("{unsafe", "{unsafe", 1)
    if "{" not in step.split("${")[0]:
        assert not [d for d in diagnose(steps(meant, more=RESOURCES)) if d.code == "E212"]


@pytest.mark.parametrize(
    ("step", "made"),
    [
        ("- fs.api: 'uuid_setvar 1 name ${call.from.user}'", "uuid_setvar 1 name 4930"),
        ("- fs.api: 'uuid_transfer 1 -bleg ${call.from.user} XML default'", "uuid_transfer 1 -bleg 4930 XML default"),
        ("- fs.api: 'uuid_transfer 1 playback:${call.from.user} inline'", "uuid_transfer 1 playback:4930 inline"),
        ("- fs.api: 'uuid_record ${call.from.user} start /r/${call.from.user}'", "uuid_record 4930 start /r/4930"),
        ("- fs.api: 'conference ${call.from.user} kick all'", "conference 4930 kick all"),
        ("- fs.api: 'conference a dial user/${call.from.user}'", "conference a dial user/4930"),
        ("- fs.api: 'originate user/${call.from.user}@a &park()'", "originate user/4930@a &park()"),
        ("- fs.api: 'originate {a=${call.from.user}}sofia/in/${call.from.user}@h &park()'",
         "originate {a=4930}sofia/in/4930@h &park()"),
        ("- fs.api: 'callcenter_config agent set status ${call.from.user} Available'",
         "callcenter_config agent set status 4930 Available"),
        ("- fs.api: 'db insert/a/${call.from.user}/1'", "db insert/a/4930/1"),
    ],
)  # fmt: skip
def test_a_number_goes_where_a_number_belongs(step: str, made: str) -> None:
    assert written(step, "command", "4930") == made


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize(
    "step",
    [
        "- fs.api: 'uuid_transfer 1 ${call.from.user} XML default'",
        "- fs.api: 'uuid_record 1 start /r/${call.from.user}.wav'",
        "- fs.api: 'conference ${call.from.user} kick all'",
        "- fs.api: 'conference room dial user/${call.from.user}'",
        "- fs.api: 'conference room play /p/${call.from.user}.wav'",
        "- fs.api: 'originate {a=${call.from.user}}sofia/in/${call.from.user}@h &park()'",
        "- fs.api: 'originate user/1 &playback(/p/${call.from.user})'",
        "- fs.api: 'uuid_display 1 ${call.from.user}'",
    ],
)
def test_what_a_stranger_writes_stays_one_argument(step: str, text: str) -> None:
    made, harmless = written(step, "command", text), written(step, "command", "abc")
    assert harmless is not None
    if made is not None:
        assert made.replace(text, "abc") == harmless or shlex.split(made.replace("\\'", ""))[:2] == harmless.split()[:2]
        assert "$" not in made and made.isprintable()
        assert ("/p/" not in step and "/r/" not in step) or ".." not in made.split("/")


@pytest.mark.parametrize(
    ("body", "good"),
    [
        ("- if: call.from.host in ['a.example']\n  then: [relay: 'sip:x@${call.from.host}']", True),
        ("- relay: 'sip:x@${call.from.host}'\n  if: call.from.host == 'a.example'", True),
        ("- if: call.from.host == 'a.example'\n  then: [log: a]\n- relay: 'sip:x@${call.from.host}'", False),
        ("- if: call.from.host != 'a.example'\n  then: [stop]\n- relay: 'sip:x@${call.from.host}'", True),
        ("- switch: call.from.host\n  cases: {a.example: [relay: 'sip:x@${call.from.host}']}", True),
        ("- play: '${call.from.user}'\n  if: call.from.user.matches('^[a-z0-9]{1,8}$')", True),
        ("- play: '${call.from.user}'\n  if: call.from.user.matches('[a-z0-9]{1,8}')", False),
        ("- play: '${call.from.user}'\n  if: call.from.user.matches('^[^a]+$')", False),
        ("- play: '${call.from.user}'\n  if: call.from.user.matches('^[a-z/:]+$')", False),
        ("- play: '${call.from.user}'\n  if: call.to.user.matches('^[a-z]+$')", False),
    ],
)
def test_a_test_narrows_only_what_it_guards(body: str, good: bool) -> None:
    assert ([d.code for d in diagnose(steps(body))] == []) is good


def flows(text: str) -> list[str]:
    return [d.code for d in diagnose("flowlang: 1\n" + text)]


@pytest.mark.parametrize(
    "source",
    [
        "- set: {h: '${call.from.host}'}\n      - relay: 'sip:x@${vars.h}'",
        "- relay: 'sip:x@${vars.h}'\n      - set: {h: '${call.from.host.lower()}'}",
        "- set: {h: \"${['a', call.from.host].join('')}\"}\n      - relay: 'sip:x@${vars.h}'",
        "- http: 'http://h.example/'\n        as: r\n      - relay: 'sip:x@${r.json.host}'",
        "- foreach: [a, '${call.from.host}']\n        do: [relay: 'sip:x@${item}']",
        "- call: sub\n        with: {h: '${call.from.host}'}",
        '- set: {h: \'${call.headers["X"] ?? "a"}\'}\n      - relay: "${\'sip:x@\' + vars.h}"',
    ],
)
def test_origin_is_carried(source: str) -> None:
    sub = (
        "  sub:\n    params: {h: text}\n    do:\n      - relay: 'sip:x@${params.h}'\n" if "call: sub" in source else ""
    )
    text = f"flows:\n  main:\n    on: invite\n    vars: {{h: 'b.example'}}\n    do:\n      {source}\n{sub}"
    assert "E212" in flows(text)
    assert "E212" not in flows(text.replace("call.from.host", "'c.example'")) or "headers" in text or "json" in text


def test_where_unsafe_stands_is_kept() -> None:
    program = load(steps("- relay: 'sip:x@${unsafe(call.from.host)}'"))
    assert [(place.line, text) for place, text in program.unsafe] == [(6, "sip:x@${unsafe(call.from.host)}")]


def test_checked_types() -> None:
    assert read_aor("Bob@Example.COM") == "Bob@example.com"
    assert read_tel("+4930*1#") == "+4930*1#"
    assert read_uri("sip:a%40b@h.example:5070;lr") == "sip:a%40b@h.example:5070;lr"
    for read in (read_aor, read_tel, read_uri):
        for text in HOSTILE:
            with pytest.raises(WrongValue):
                read(text)


def test_an_event_brings_a_checked_address() -> None:
    text = "events: {due: {to: %s}}\nflows:\n  main:\n    on: {event: due}\n    do: [originate: 'sip:${event.to}']\n"
    assert flows(text % "aor") == [] and flows(text % "text") == ["E212"]


@pytest.mark.parametrize(
    ("pattern", "alphabet"),
    [
        ("^[0-9+]{1,3}$", "0123456789+"),
        ("^(a|b)c?$", "abc"),
        (r"^\d$", "0123456789"),
        ("^a|b$", None),
        ("^.$", None),
        ("^[^a]$", None),
        ("(?m)^a$", None),
        ("(?i)^a$", None),
        ("^[[:alpha:]]$", None),
        ("^a{,2}$", None),
        ("a", None),
    ],
)
def test_the_alphabet_of_a_pattern(pattern: str, alphabet: Any) -> None:
    found = alphabet_of(pattern)
    assert found == (None if alphabet is None else frozenset(alphabet))


# --- the port of the request's own target -----------------------------------------------------------------------------


def called(step: str, port: int | None, key: str = "to") -> str:
    target = {"user": "u", "host": "far.example", "aor": "u@far.example", "uri": "sip:u@far.example"}
    target |= {"port": port} if port else {}
    made: str = (
        first_step(step)
        .args[key]
        .evaluate({"call": {"target": target, "domain": "far.example", "from": {"user": "f"}}})
    )
    return made


@pytest.mark.parametrize(
    ("written", "reached"),
    [
        ("sip:x@${call.target.host}", "sip:x@far.example:5070"),
        ("sip:${call.from.user}@${call.target.host};user=phone", "sip:f@far.example:5070;user=phone"),
        ("sip:x@${call.domain}", "sip:x@far.example:5070"),
        ("sip:${call.target.aor}", "sip:u@far.example:5070"),
        ("${call.target.aor}", "u@far.example:5070"),
        ("sip:${call.target.host}", "sip:far.example:5070"),
        ("${'sip:x@' + call.target.host}", "sip:x@far.example:5070"),
        ("sip:x@${call.target.host}:5062", "sip:x@far.example:5062"),  # the flow has written one
        ("sip:x@${call.target.host}:${call.target.port ?? 5060}", "sip:x@far.example:5070"),
        ("sip:${call.target.host}@gw.example", "sip:far.example@gw.example"),  # no host there
        ("sip:x@gw.example;from=${call.target.host}", "sip:x@gw.example;from=far.example"),
    ],
)
def test_the_host_a_call_is_addressed_to_keeps_its_port(written: str, reached: str) -> None:
    step = f'- relay: {{to: "{written}"}}'
    assert called(step, 5070) == reached
    assert called(step, None) == reached.replace(":5070", "" if "?? 5060" not in written else ":5060")


def test_an_address_of_record_has_no_port() -> None:
    assert called("- relay: {aor: 'x@${call.target.host}'}", 5070, "aor") == "x@far.example"


@pytest.mark.parametrize(
    ("step", "good"),
    [
        ("- relay: '${event.uri}'", True),
        ("- relay: ['${event.contact}', '${event.uri}']", True),
        ("- set: {c: '${event.uri}'}\n        - relay: '${vars.c}'", True),
        ("- relay: '${event.uri};x=1'", True),
        ("- relay: 'sip:a@${event.contact}'", False),
        ("- relay: '${event.uri.lower()}'", False),
        ("- set: {c: 'sip:a@gw;x=${event.contact}'}\n        - relay: '${vars.c}'", False),
        ("- set: {c: \"${'sip:a@gw;x=' + event.contact}\"}\n        - relay: '${vars.c}'", False),
        ('- relay: \'sip:a@${event.contact.split("@")[1] ?? ""}\'', False),
        ('- relay: \'sip:a@${call.target.aor.split("@")[1] ?? ""}\'', False),
        ("- relay: 'sip:a@${call.target.host.drop(1)}'", False),
        ("- relay: 'sip:a@${call.target.host.lower()}'", True),
        ("- http: 'http://${event.contact}/'", False),
        ("- fs.api: 'originate ${event.contact} &park()'", False),
    ],
)
def test_a_contact_is_a_destination_as_a_whole_and_text_elsewhere(step: str, good: bool) -> None:
    head = "flows:\n  main:\n    on: invite\n    vars: {c: ''}\n    do:\n    - subscribe: registered\n      do:\n"
    assert ("E212" not in flows(f"{head}        {step}\n")) is good


def test_the_uri_of_a_contact_is_encoded_in_other_places() -> None:
    """A phone writes what it likes into the user part and the parameters of its Contact."""
    program = load(
        "flowlang: 1\nflows:\n  main:\n    on: {event: registered}\n    do:\n"
        "    - http: 'http://h.example/${event.contact}?q=${event.uri}'\n    - fs.api: 'log info ${event.uri}'\n"
    )
    url, command = program.flows[0].do[0].args["url"], program.flows[0].do[1].args["command"]
    event = {"contact": "sip:a/../b&c@h", "uri": "sip:a@h;x=${system(id)}&y"}
    assert url.evaluate({"event": event}) == (
        "http://h.example/sip%3Aa%2F..%2Fb%26c%40h?q=sip%3Aa%40h%3Bx%3D%24%7Bsystem%28id%29%7D%26y"
    )
    with pytest.raises(StepError):
        command.evaluate({"event": event})


@pytest.mark.parametrize(
    ("value", "good"),
    [
        ("call.from.user.replace('1', 'a')", True),
        ("call.from.user.replace('1', '/')", False),
        ("call.from.user.replace('1', '../')", False),
        ("call.from.user.split('1').join('/')", False),
        ("call.from.user.split('1').join('x')", True),
    ],
)
def test_what_a_function_puts_in_is_no_longer_narrowed(value: str, good: bool) -> None:
    body = f"- play: \"${{{value}}}\"\n  if: call.from.user.matches('^[0-9]+$')"
    assert ([d.code for d in diagnose(steps(body))] == []) is good


BODIES = "- http: {url: 'http://h.example/', body: '%s'}"


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize(
    ("body", "value"),
    [
        ('{"who": "${call.from.user}", "n": 1}', "{}"),
        ('{"who": "a \\" ${call.from.user}", "n": 1}', 'a " {}'),
        ('{"who": ${call.from.user}, "n": 1}', "{}"),
        ('  {"who": "${call.from.user}", "n": ${1}}', "{}"),
    ],
)
def test_json_written_as_text_keeps_its_shape(body: str, value: str, text: str) -> None:
    made = written(BODIES % body, "body", text)
    if made is None:
        assert len(text) > 60000
        return
    assert json.loads(made) == {"who": value.replace("{}", text), "n": 1}


@pytest.mark.parametrize("text", HOSTILE[:-1])
def test_the_content_type_says_how_a_body_is_encoded(text: str) -> None:
    head = "- http: {url: 'http://h.example/', headers: {content-TYPE: '%s'}, body: '%s'}"
    form = written(head % ("application/x-www-form-urlencoded", "a=1&b=${call.from.user}&c=2"), "body", text)
    assert form is not None
    assert parse_qs(form, keep_blank_values=True) == {"a": ["1"], "b": [text], "c": ["2"]}
    of_json = written(head % ("application/vnd.x+json; charset=utf-8", '"${call.from.user}"'), "body", text)
    assert of_json is not None
    assert json.loads(of_json) == text
    assert written(head % ("text/plain; charset=utf-8", "from ${call.from.user}"), "body", text) == f"from {text}"


@pytest.mark.parametrize(
    "step",
    [
        "- http: {url: 'http://h.example/', body: '${call.from.user}'}",
        "- http: {url: 'http://h.example/', body: 'a=${call.from.user}'}",
        "- http: {url: 'http://h.example/', body: '<a>${call.from.user}</a>'}",
        "- http: {url: 'http://h.example/', body: '${call.from.user} {}'}",
        "- http: {url: 'http://h.example/', headers: {Content-Type: application/json}, body: '${call.from.user}'}",
        "- http: {url: 'http://h.example/', headers: {Content-Type: application/xml}, body: '{${call.from.user}}'}",
        "- http: {url: 'http://h.example/', headers: {Content-Type: '${call.id}'}, body: 'a ${call.from.user}'}",
        "- http: {url: 'http://h.example/', headers: {Content-Type: application/x-www-form-urlencoded}, "
        "body: '${call.from.user}=1'}",
    ],
)
def test_a_body_of_no_known_format_takes_no_text_from_outside(step: str) -> None:
    (wrong,) = diagnose(steps(step, more=RESOURCES))
    assert wrong.code == "E212" and "json:" in wrong.help and "unsafe(" in wrong.help
    assert not diagnose(steps(step.replace("${call.from.user}", "${unsafe(call.from.user)}"), more=RESOURCES))


def test_the_content_type_of_an_endpoint_counts_too() -> None:
    more = "endpoints: {e: {url: 'https://h.example', headers: {Content-Type: application/json}}}"
    value = first_step("- http: {endpoint: e, url: /a, body: '\"${call.from.user}\"'}", more=more).args["body"]
    assert json.loads(value.evaluate({"call": {"from": {"user": 'a"b'}}})) == 'a"b'
