"""What leaves when a stranger's text is put into each place of FLOWLANG §3.1: octets, read by something else than us.

The text comes in as the user part of a caller's From, percent-encoded, so that any octet can be in it. Either nothing
leaves (the step fails), or what leaves names the same target and has the same shape as for a harmless text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import pytest
from loguru import logger
from mediakit import Stage, media, stage

from orchestrator.errors import StepError
from orchestrator.esl.commands import encode, sendmsg_execute
from orchestrator.flow.run.effects import EslExecute, Http
from orchestrator.runtime.http import HttpClient
from orchestrator.runtime.log import render_json, render_text
from orchestrator.server_log import log_of_flow
from orchestrator.testing.phone import Phone
from tests.runtime.web import answer, web

LONG = "x" * 50_000
HOSTILE = {
    "escaped": "x%40h%3a5060%3f",
    "parameter": "a;b=c",
    "name-addr": '"><sip:x@y>',
    "path": "../../etc/passwd",
    "escaped path": "a%2f..%2fb",
    "application": "&system(id)",
    "variables": "{a=b}user/1",
    "expansion": "${system(id)}",
    "header": "a\r\nB: c",
    "nul": "a\0b",
    "direction": "a\u202eb",
    "long": LONG,
    "quote": 'it\'s "so" \\',
    "list": "a,b|c&d",
}
FAILS = "on_error: [log: '${error.type}', stop]"
X = "${call.from.user}"

hostile = pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())


def caller(text: str) -> str:
    return quote(text, safe="") + "@example.com"


def call(s: Stage, text: str, to: str = "ivr@example.com") -> None:
    s.alice.invite(to, sender=caller(text))
    s.world.run(1)


def dispatched(tmp_path: Path, *steps: str) -> Callable[[str], Stage]:
    """Runs the flow for one text."""

    def run(text: str, made: Callable[..., Stage] = stage) -> Stage:
        s = made(tmp_path, *steps)
        call(s, text)
        return s

    return run


# --- SIP --------------------------------------------------------------------------------------------------------------


def left(s: Stage, method: str) -> list[tuple[str, dict[str, list[str]], tuple[str, int]]]:
    """What our server sent of this method (or status): first line, headers by name, where. Read by RFC 3261's letter:
    lines end with CR LF, the head with an empty one, nothing else is a break."""
    found = []
    for _, source, target, data in s.world.sent:
        if source != ("10.0.0.1", 5060) or not data.startswith(method.encode()):
            continue
        head = data.partition(b"\r\n\r\n")[0]
        assert not re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|(?<!\r)\n", head), head
        first, *lines = head.decode().split("\r\n")
        headers: dict[str, list[str]] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            assert colon and re.fullmatch(r"[A-Za-z0-9-]+", name), line
            headers.setdefault(name.lower(), []).append(value.strip())
        found.append((first, headers, target))
    return found


def gateway(s: Stage) -> Phone:
    return s.world.phone("gw@example.com", "10.0.0.5")


def relayed(tmp_path: Path, step: str, text: str) -> tuple[str, dict[str, list[str]]] | None:
    """First line and headers of the only INVITE that leaves, and it goes to the gateway; None when none does."""
    s = stage(tmp_path, f"relay: {step}\n {FAILS}")
    gateway(s)
    call(s, text)
    invites = {(first, json.dumps(headers), target) for first, headers, target in left(s, "INVITE")}
    assert {target for *_, target in invites} <= {("10.0.0.5", 5060)}
    assert len(invites) <= 1
    return next(((first, json.loads(headers)) for first, headers, _ in invites), None)


USER = r"(?:[A-Za-z0-9\-_.!~*'()&=+$,/]|%[0-9A-Fa-f]{2})+"
"""The user part of RFC 3261 §25.1, without `;` and `?`."""


@hostile
def test_sip_user(tmp_path: Path, text: str) -> None:
    out = relayed(tmp_path, f"'sip:{X}@10.0.0.5'", text)
    assert out is not None or text == LONG
    if out is not None:
        match = re.fullmatch(rf"INVITE sip:({USER})@10\.0\.0\.5(?::5060)? SIP/2\.0", out[0])
        assert match is not None, out[0]
        assert unquote(match[1]) == text


@hostile
def test_sip_parameter(tmp_path: Path, text: str) -> None:
    out = relayed(tmp_path, f"'sip:a@10.0.0.5;x={X};y=1'", text)
    if out is not None:
        match = re.fullmatch(r"INVITE sip:a@10\.0\.0\.5;x=([^;?@<> ]+);y=1 SIP/2\.0", out[0])
        assert match is not None, out[0]
        assert unquote(match[1]) == text


@pytest.mark.parametrize("host", ["198.51.100.7", "198.51.100.7:5060", "example.com.evil.net"])
def test_sip_host_is_where_the_request_is_addressed(tmp_path: Path, host: str) -> None:
    """`call.target.host` may stand as host; a stranger (not trusted) who names a foreign one is refused before that."""
    s = stage(tmp_path, "relay: 'sip:a@${call.target.host}'")
    call(s, "abc", f"x@{host}")
    assert left(s, "INVITE") == [] and [first for first, *_ in left(s, "SIP/2.0 403")] != []


@hostile
def test_sip_header_values(tmp_path: Path, text: str) -> None:
    out = relayed(
        tmp_path,
        f"{{to: 'sip:a@10.0.0.5', headers: {{X-Plain: 'a {X}', X-Quoted: 'q \"{X}\";z=1', "
        f"X-Shown: '{X} <sip:a@b.example>', X-Param: '<sip:a@b.example>;n={X}'}}}}",
        text,
    )
    plain = relayed(tmp_path, "'sip:a@10.0.0.5'", "abc")
    assert plain is not None and (out is not None or text == LONG)
    if out is None:
        return
    first, headers = out
    assert first.startswith("INVITE sip:a@10.0.0.5")
    added = {"x-plain", "x-quoted", "x-shown", "x-param"}
    assert headers.keys() == plain[1].keys() | added
    assert all(len(values) == 1 for name, values in headers.items() if name in added)
    printed = text.replace("\r", " ").replace("\n", " ").replace("\0", " ")
    string = r'"((?:[^"\\]|\\.)*)"'
    quoted = re.fullmatch(rf"q {string};z=1", headers["x-quoted"][0])
    shown = re.fullmatch(rf"{string} <sip:a@b\.example>", headers["x-shown"][0])
    param = re.fullmatch(rf"<sip:a@b\.example>;n={string}", headers["x-param"][0])
    for match in (quoted, shown, param):
        assert match is not None
        assert re.sub(r"\\(.)", r"\1", match[1]) == printed
    assert headers["x-plain"] == [("a " + printed).strip()]


@hostile
def test_sip_reason(tmp_path: Path, text: str) -> None:
    out = dispatched(tmp_path, f"reply: {{code: 404, reason: 'no {X}'}}\n {FAILS}")(text)
    printed = text.replace("\r", " ").replace("\n", " ").replace("\0", " ")
    lines = {first for first, *_ in left(out, "SIP/2.0 404")}
    assert lines == {f"SIP/2.0 404 no {printed}"} or (text == LONG and lines == set())
    assert "b" not in {name for _, headers, _ in left(out, "SIP/2.0") for name in headers}


# --- HTTP -------------------------------------------------------------------------------------------------------------


@hostile
def test_web_request(tmp_path: Path, text: str) -> None:
    """Path, query, header, JSON and form, as a real server reads them."""
    client = HttpClient(sleep=lambda _: None)
    with web(answer()) as server:
        url = f"{server.url}/who/{X}?q={X}&z=1"
        s = stage(
            tmp_path,
            f"http: {{url: '{url}', headers: {{X-A: 'a {X}'}}, json: {{a: '{X}', b: 1}}}}\n {FAILS}",
            f"http: {{url: '{server.url}/', query: {{q: '{X}', z: '1'}}, form: {{a: '{X}', b: '1'}}}}\n {FAILS}",
            f'http: {{url: \'{server.url}/\', body: \'{{"a": "{X}", "b": 1}}\'}}\n {FAILS}',
        )

        def perform(job: Any) -> Any:
            if not isinstance(job.effect, Http):
                return s.switch.perform(job)
            try:
                return client.perform(job.effect)
            except StepError as error:
                return error

        s.world.on_job = perform
        call(s, text)
    client.close()
    assert len(server.exchanges) == 3 or text == LONG
    if len(server.exchanges) < 3:
        return
    first, form, body = server.exchanges
    path, query = urlsplit(first.target).path, urlsplit(first.target).query
    assert [unquote(part) for part in path.split("/")] == ["", "who", text]
    assert not {".", ".."} & set(path.split("/"))
    assert parse_qs(query, strict_parsing=True) == {"q": [text], "z": ["1"]}
    assert json.loads(first.body) == {"a": text, "b": 1} == json.loads(body.body)
    own = {"accept-encoding", "content-length", "content-type", "host", "user-agent"}
    assert first.headers.keys() == own | {"x-a"} and form.headers.keys() == own
    assert parse_qs(urlsplit(form.target).query, strict_parsing=True) == {"q": [text], "z": ["1"]}
    assert parse_qs(form.body.decode(), strict_parsing=True) == {"a": [text], "b": ["1"]}


# --- Event Socket -----------------------------------------------------------------------------------------------------


def commands(tmp_path: Path, step: str, text: str, more: str = "") -> list[str]:
    """The frames that leave for a step, as a FreeSWITCH gets them, without ids of channels."""
    s = media(tmp_path, f"{step}\n {FAILS}", *([more] if more else []))
    if "collect" in step or "record" in step:
        s.switch.slow.update(("playback", "record"))
    call(s, text)
    frames = [encode(f"api {command}") for command in s.switch.commands]
    frames += [
        sendmsg_execute(e.uuid, e.app, e.args, event_uuid="1") for e in s.switch.ran if isinstance(e, EslExecute)
    ]
    for frame in frames:
        assert not re.search(rb"[\x00\r]", frame)
    return [re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|alice-5060-\d+@\S+", "UUID", frame.decode()) for frame in frames]


def changed(tmp_path: Path, step: str, text: str) -> list[str]:
    """What a hostile text changes: frames that a harmless one does not bring. None has one more line than there."""
    tame = commands(tmp_path, step, "abc")
    wild = commands(tmp_path, step, text)
    assert any("abc" in frame for frame in tame), tame
    assert len(wild) <= len(tame)
    lines = {frame.count("\n") for frame in tame}
    new = [frame for frame in wild if frame not in tame]
    assert all(frame.count("\n") in lines for frame in new)
    assert len(new) <= 1
    return new


@hostile
def test_api_argument(tmp_path: Path, text: str) -> None:
    """mod_commands splits at blanks, a quoted word is one; `$` and back-quotes never come."""
    for frame in changed(tmp_path, f"fs.api: 'uuid_setvar UUID name {X}'", text):
        word = frame.removeprefix("api uuid_setvar UUID name ").rstrip("\n")
        assert re.fullmatch(r"'(?:[^'\\]|\\.)*'|[A-Za-z0-9_.@+:*#/=~!%?-]+", word), frame
        assert not set("${}`[]|") & set(word)


@hostile
def test_execute_argument(tmp_path: Path, text: str) -> None:
    for frame in changed(tmp_path, f"fs.execute: {{app: say, args: 'en number {X}'}}", text):
        (args,) = re.findall("^execute-app-arg: en number (.*)$", frame, re.MULTILINE)
        assert not set("${}`[]|'\"\\ ,;&()") & set(args)


@hostile
def test_channel_variable_of_an_execute(tmp_path: Path, text: str) -> None:
    """`set` takes all up to the end of the line; only `$` and backslashes mean something in it."""
    for frame in changed(tmp_path, f"fs.execute: {{app: set, args: 'who={X}'}}", text):
        assert re.findall("^execute-app-arg: who=(.*)$", frame, re.MULTILINE) == [text]
        assert not set("$`\\") & set(text)


@hostile
@pytest.mark.parametrize(
    "step",
    [
        f"play: '/prompts/{X}.wav'",
        f"record: {{file: '/rec/{X}.wav', max: 5s}}",
        f"collect: {{max: 1, prompt: '/p/{X}.wav'}}",
    ],
    ids=["play", "record", "collect"],
)
def test_file_names(tmp_path: Path, step: str, text: str) -> None:
    """None of these texts is one path segment of letters, digits, `. _ -`: FreeSWITCH hears of no file."""
    assert changed(tmp_path, step, text) == []


ORIGINATE = f"""flows:
  main:
    on: invite
    do:
      - raise: due
        data: {{who: '{X}'}}
      - reply: 480
  place:
    on: {{event: due}}
    do:
      - originate: {{to: 'sip:bob@example.com', from: clinic@example.com, via: fs1, vars: {{who: '${{event.who}}'}}}}
        on_error: [log: '${{error.type}}', stop]
events: {{due: {{who: text}}}}
"""


@hostile
def test_originate_variable(tmp_path: Path, text: str) -> None:
    def placed(who: str) -> list[str]:
        s = Stage(ORIGINATE, tmp_path)
        call(s, who)
        return [encode(f"bgapi {c}").decode() for c in s.switch.commands if c.startswith("originate")]

    (tame,) = placed("abc")
    end = tame[tame.rindex("}") :]
    for frame in placed(text):
        assert frame.endswith(end) and frame.count("\n") == tame.count("\n")
        variables = frame[frame.index("{") + 1 : -len(end)]
        assert not set("{}[]$`") & set(variables)
        names = [part.partition("=")[0] for part in _split(variables)]
        assert names == [part.partition("=")[0] for part in _split(tame[tame.index("{") + 1 : tame.rindex("}")])]


def _split(variables: str) -> list[str]:
    """At commas outside of single quotes, as switch_event_create_brackets does."""
    return re.findall(r"(?:'(?:[^'\\]|\\.)*'|\\.|[^,'])+", variables)


# --- log --------------------------------------------------------------------------------------------------------------


@hostile
@pytest.mark.parametrize("render", [render_text, render_json])
def test_log_line(tmp_path: Path, render: Callable[[Any], str], text: str) -> None:
    """One line, no character that moves the cursor or turns the writing; beside it in `data:` neither."""
    lines: list[str] = []
    sink = logger.add(partial(_keep, lines, render), level="INFO")
    try:
        s = stage(tmp_path, f"log: {{text: 'from {X}', data: {{who: '{X}'}}}}")
        s.world.engine.host.on_log = log_of_flow
        call(s, text)
    finally:
        logger.remove(sink)
    if text == LONG:
        assert lines == []  # flow.limit
        return
    (line,) = [line for line in lines if "from " in line and "who" in line]
    assert line.endswith("\n") and line[:-1].isprintable()


def _keep(lines: list[str], render: Callable[[Any], str], message: Any) -> None:
    lines.append(render(message.record))
