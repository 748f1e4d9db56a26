"""The pages of the console: who may see them, what they show, and that what strangers send is text in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from console_stage import Browser, ConsoleStage, reader

from orchestrator.console.call_list_pages import LiveCalls
from orchestrator.console.event_pages import EventLog
from orchestrator.console.rendering import render, short
from orchestrator.errors import Diagnostic, InputError, OrchestratorError
from orchestrator.runtime.admin_connections import STREAM
from orchestrator.testing.api_stage import TOKEN

FLOW = """
flowlang: 1
events:
  door_open: {door: text, floor: number, wide: optional bool}
flows:
  wakeup:
    on: invite
    when: call.target.user == 'carol'
    do:
      - wait: door_open
        where: {door: front}
        for: 90s
      - relay: {to: registered, ring: 30s}
  main:
    on: invite
    do:
      - relay: {to: registered, ring: 30s}
"""
PAGES = ("/", "/calls", "/archive", "/registrations", "/gateways", "/flows", "/flows/main", "/catalogue", "/operations")


@pytest.fixture
def stage() -> Iterator[ConsoleStage]:
    stage = ConsoleStage(FLOW)
    yield stage
    stage.desk.live.close()


@pytest.fixture
def browser(stage: ConsoleStage) -> Browser:
    return Browser(stage)


def ring(stage: ConsoleStage, to: str = "bob") -> str:
    """A call that rings; its id."""
    world = stage.world
    alice, other = world.registered_phone("alice@example.com", "10.0.0.2"), f"{to}@example.com"
    world.registered_phone(other, "10.0.0.3")
    alice.invite(other)
    world.run()
    (call,) = stage.items("calls")
    return str(call["id"])


# --- who may look -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [*PAGES, "/calls/x", "/overview/samples", "/calls/live"])
def test_a_page_wants_somebody_who_has_signed_in(stage: ConsoleStage, page: str) -> None:
    answer = Browser(stage, "").get(page)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/sign-in")


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_shown_to_a_reader_without_anything_to_press(stage: ConsoleStage, page: str) -> None:
    ring(stage)
    text = reader(stage).page(page)
    assert "read only" in text
    assert re.findall(r'<form method="post" action="([^"]*)"', text) == ["/sign-out"]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_shown_to_an_operator(browser: Browser, page: str) -> None:
    text = browser.page(page)
    assert f'<a href="{"/flows" if page == "/flows/main" else page}" aria-current="page">' in text
    assert text.startswith('<!doctype html>\n<html lang="en"')


def test_a_wrong_token_does_not_sign_in(stage: ConsoleStage) -> None:
    nobody = Browser(stage, "")
    answer = nobody.post("/sign-in", token="wrong")
    assert answer.status_code == 403
    assert "This is not a token of this server." in answer.text
    assert nobody.get("/").status_code == 303
    for _ in range(10):
        answer = nobody.post("/sign-in", token="wrong")
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0
    assert nobody.post("/sign-in", token=TOKEN).status_code == 303


def test_the_cookie_is_kept_from_scripts_and_other_sites(stage: ConsoleStage) -> None:
    answer = Browser(stage, "").post("/sign-in", token=TOKEN)
    cookie = answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert "Secure" not in cookie


@pytest.mark.parametrize(
    "to", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:x", "/a\r\nb", ""]
)
def test_after_the_sign_in_nobody_is_sent_elsewhere(stage: ConsoleStage, to: str) -> None:
    answer = Browser(stage, "").post("/sign-in", token=TOKEN, next=to)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


def test_the_sign_in_leads_to_the_page_that_was_asked_for(stage: ConsoleStage) -> None:
    answer = Browser(stage, "").post("/sign-in", token=TOKEN, next="/calls?of=bob")
    assert answer.headers["location"] == "/calls?of=bob"


def test_who_signs_out_is_out(browser: Browser) -> None:
    assert browser.post("/sign-out").status_code == 303
    assert browser.get("/").status_code == 303


# --- what may be done -------------------------------------------------------------------------------------------------

WRITES = (
    "/calls/x/hang-up", "/registrations", "/registrations/a@b/remove", "/registrations/a@b/push", "/gateways/g/probe",
    "/catalogue/raise", "/operations/reload", "/operations/drain", "/operations/undrain", "/operations/log-level",
    "/operations/lift-ban",
)  # fmt: skip


@pytest.mark.parametrize("path", WRITES)
def test_a_reader_changes_nothing(stage: ConsoleStage, path: str) -> None:
    answer = reader(stage).post(path)
    assert answer.status_code == 403
    assert "read only" in answer.text


@pytest.mark.parametrize("path", WRITES)
def test_a_form_without_the_pages_token_is_refused(browser: Browser, path: str) -> None:
    for browser.csrf in ("", "x" * 43):
        answer = browser.post(path)
        assert answer.status_code == 403
        assert "not from a page of ours" in answer.text


def test_a_form_of_another_site_is_refused(stage: ConsoleStage, browser: Browser) -> None:
    for header in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
        answer = stage.client.simulate_post(
            "/operations/drain",
            body=f"csrf={browser.csrf}",
            headers={"Host": "localhost", "Content-Type": "application/x-www-form-urlencoded", **header},
            cookies=browser.cookies,
        )
        assert answer.status_code == 403, header
    assert not stage.world.engine.draining


def test_an_event_is_raised_with_numbers_of_both_kinds(stage: ConsoleStage, browser: Browser) -> None:
    call = ring(stage, "carol")
    assert "event door_open" in browser.page(f"/calls/{call}")
    answer = browser.post("/catalogue/raise", event="door_open", door="front", floor="1,5")
    assert answer.status_code == 303
    assert "The event has been raised." in browser.page(answer.headers["location"])
    stage.world.run()
    assert "event door_open" not in browser.page(f"/calls/{call}")


def test_what_is_wrong_with_an_event_is_said_beside_the_form(browser: Browser) -> None:
    answer = browser.post("/catalogue/raise", event="door_open", door="<b>", floor="first")
    assert answer.status_code == 400
    assert "is not a number; write 1.5 or 1,5" in answer.text
    assert 'value="&lt;b&gt;"' in answer.text
    assert browser.post("/catalogue/raise", event="nothing").status_code == 404


def test_forms_are_bounded(browser: Browser) -> None:
    assert browser.post("/catalogue/raise", event="door_open", door="x" * 300_000).status_code == 413


# --- what is shown ----------------------------------------------------------------------------------------------------


def test_a_call_is_listed_and_searched(stage: ConsoleStage, browser: Browser) -> None:
    call = ring(stage)
    row = f'<tr id="call-{call}">'
    assert row in browser.page("/calls")
    assert row in browser.page("/calls?of=BOB&state=ringing&flow=main")
    for query in ("of=carol", "state=answered", "flow=wakeup"):
        assert row not in browser.page(f"/calls?{query}")


def test_a_list_in_which_nothing_happens_is_drawn_once_and_sent_once(stage: ConsoleStage, browser: Browser) -> None:
    def rows() -> str:
        return browser.page("/calls").partition("<tbody")[2]

    call = ring(stage, "carol")
    before = rows()
    stage.world.run(7)
    assert rows() == before
    stage.ask("POST", "events", {"name": "door_open", "attributes": {"door": "front", "floor": 1}})
    assert f'<tr id="call-{call}">' in rows() and rows() != before


def test_a_list_is_drawn_anew_when_a_call_begins_or_ends(stage: ConsoleStage) -> None:
    touched: list[None] = []
    stop = LiveCalls(stage.desk)._watch(lambda: touched.append(None))
    ring(stage)
    assert len(touched) == 1
    stage.world.run(60)
    assert len(touched) == 2
    stop()
    stage.world.phone("dave@example.com", "10.0.0.4").invite("bob@example.com")
    stage.world.run(60)
    assert len(touched) == 2


def test_long_lists_come_in_pages(stage: ConsoleStage, browser: Browser) -> None:
    alice = stage.world.registered_phone("alice@example.com", "10.0.0.2")
    stage.world.registered_phone("bob@example.com", "10.0.0.3")
    for _ in range(60):
        alice.invite("bob@example.com")
    stage.world.run()
    first = browser.page("/calls")
    assert first.count("<tr id=") == 50
    (second,) = re.findall(r'href="(\?[^"]*)" rel="next"', first)
    assert browser.page("/calls" + second.replace("&amp;", "&")).count("<tr id=") == 10
    assert browser.page("/calls?cursor=nonsense").count("<tr id=") == 50


def test_the_page_of_a_call_has_its_ladder_flow_source_and_steps(stage: ConsoleStage, browser: Browser) -> None:
    call = ring(stage, "carol")
    text = browser.page(f"/calls/{call}")
    assert re.search(r'<g role="button" tabindex="0" class="arrow request" id="m1" data-message="[\d.]+">', text)
    assert '<span class="row lit" data-line="10"><span class="no">10</span>' in text
    assert "wait for door_open" in text
    assert "has to be front" in text
    assert text.index('id="call-why"') < text.index('id="call-ladder"') < text.index('id="call-events"')
    assert f'action="/calls/{call}/hang-up"' in text


def test_a_message_of_a_call_is_shown(stage: ConsoleStage, browser: Browser) -> None:
    call = ring(stage)
    (message, *_) = re.findall(r'data-message="([\d.]+)"', browser.page(f"/calls/{call}"))
    assert "INVITE sip:bob@example.com SIP/2.0" in browser.page(f"/calls/{call}/messages/{message}")
    assert browser.get(f"/calls/{call}/messages/99.99").status_code == 404


@pytest.mark.parametrize("text", ["a\r\nX-Evil: 1", "\x00", "\u202egnp", "x" * 1001])
def test_a_field_of_a_form_is_held_to_the_rules_of_the_api(stage: ConsoleStage, browser: Browser, text: str) -> None:
    call = ring(stage)
    for path, field in (
        (f"/calls/{call}/hang-up", "reason"),
        ("/registrations/bob@example.com/remove", "contact"),
        ("/operations/lift-ban", "source"),
    ):
        browser.page("/operations")
        answer = browser.post(path, **{field: f"a{text}z"})
        assert answer.status_code == 400 and "printable characters" in answer.text, path
    assert browser.get(f"/calls/{call}").status_code == 200


def test_long_texts_of_a_stranger_take_no_more_room_than_others(stage: ConsoleStage, browser: Browser) -> None:
    """One caller with a name of 64 KB is no reason for the list to be unreadable."""
    world = stage.world
    alice = world.registered_phone("a" * 1000 + "@example.com", "10.0.0.2")
    world.registered_phone("bob@example.com", "10.0.0.3")
    alice.invite("bob@example.com")
    world.run()
    (call,) = stage.items("calls")
    assert call["from"].startswith("a" * 1000), "the API tells it whole"
    for path in ("/calls", f"/calls/{call['id']}"):
        text = browser.page(path)
        shown = re.sub(r"<pre.*?</pre>|<svg.*?</svg>|<ol.*?</ol>", "", text, flags=re.DOTALL)
        assert "a" * 79 + "…" in shown and "a" * 301 not in shown, path


@pytest.mark.parametrize(
    ("value", "shown"), [(None, ""), (486, "486"), ("a" * 80, "a" * 80), ("a" * 81, "a" * 79 + "…")]
)
def test_short(value: object, shown: str) -> None:
    assert short(value) == shown


def test_a_call_that_has_ended_is_found(stage: ConsoleStage, browser: Browser) -> None:
    call = ring(stage)
    stage.world.run(60)
    text = browser.page(f"/calls/{call}")
    assert '<span class="badge ended">ended</span>' in text
    assert "hx-sse:connect" not in text
    assert "not answered" in text
    assert text.index('id="call-events"') < text.index('id="call-ladder"')
    assert f'href="/calls/{call}"' in browser.page("/archive?of=bob&code=408&from=2027-01-15T07:00&to=2027-01-15T09:00")
    assert f'href="/calls/{call}"' not in browser.page("/archive?code=200")
    assert "is not a whole number" in browser.page("/archive?code=busy")


def test_a_reload_that_is_refused_shows_each_mistake(stage: ConsoleStage, browser: Browser) -> None:
    def refuse() -> Any:
        raise InputError([Diagnostic("a.flow.yaml", 3, 7, "E101", "unknown key 'dou'", help="did you mean 'do'?")])

    stage.reload = refuse
    answer = browser.post("/operations/reload")
    assert answer.status_code == 422
    for shown in ("a.flow.yaml:3:7", "unknown key &#39;dou&#39;", "did you mean &#39;do&#39;?"):
        assert shown in answer.text
    stage.reload = lambda: (_ for _ in ()).throw(OrchestratorError("the disk is gone"))
    assert "the disk is gone" in browser.post("/operations/reload").text


def test_a_run_makes_a_test(stage: ConsoleStage, browser: Browser) -> None:
    call = ring(stage)
    (path,) = re.findall(r'href="(/runs/[^"]*/test)"', browser.page(f"/calls/{call}"))
    assert browser.get(path).status_code == 200
    answer = browser.get(path + ".yaml")
    (flows,) = re.findall(r"^flows: (.*)$", answer.text, re.MULTILINE)
    assert "/" not in flows, "it is to lie beside the flow"
    assert answer.headers["content-type"].startswith("text/yaml")
    assert answer.headers["content-disposition"].startswith("attachment")


def test_charts_have_numbers_of_the_last_minutes(stage: ConsoleStage, browser: Browser) -> None:
    for _ in range(3):
        stage.samples.take(stage.world.engine, stage.world.now)
        stage.world.run(1)
    columns = browser.get("/overview/samples").json["columns"]
    assert set(columns) == {"time", "rate", "calls", "registrations", "p50", "p95"}
    assert columns["rate"] == [None, 0, 0]


@pytest.mark.parametrize("path", ["/nothing", "/calls/nobody", "/flows/nothing", "/runs/x%231", "/static/../app.py"])
def test_what_is_not_there_is_said_on_a_page(browser: Browser, path: str) -> None:
    answer = browser.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/html")


LIVE = ("/overview/live", "/calls/live", "/gateways/live", "/catalogue/live", "/flows/main/live")


@pytest.mark.parametrize("path", LIVE)
def test_what_follows_is_a_stream_with_room_of_its_own(stage: ConsoleStage, browser: Browser, path: str) -> None:
    refused = stage.client.simulate_get(
        path, headers={"Host": "localhost"}, cookies=browser.cookies, extras={STREAM: lambda: False}
    )
    assert (refused.status_code, refused.json["code"]) == (503, "streams.full")
    assert stage.desk.live.topics == {}


def test_a_program_is_told_in_json(stage: ConsoleStage) -> None:
    assert stage.get("/calls/nobody").json["code"] == "call.unknown"
    assert stage.get("calls/nobody").json["code"] == "call.unknown"


# --- what browsers are told -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/sign-in", "/static/console.js", "/nothing", "/api/v1/status", "/healthz"])
def test_every_answer_tells_browsers_to_be_careful(browser: Browser, path: str) -> None:
    headers = browser.get(path).headers
    policy = dict(rule.split(" ", 1) for rule in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cross-origin-opener-policy"] == "same-origin"


def test_files_are_kept_by_browsers_as_long_as_they_stay_the_same(browser: Browser) -> None:
    (url,) = re.findall(r'href="(/static/console\.css\?[^"]*)"', browser.page("/"))
    answer = browser.get(url)
    assert "immutable" in answer.headers["cache-control"]
    assert browser.get("/static/console.css").headers["cache-control"] == "no-cache"
    assert browser.get(url, **{"If-None-Match": answer.headers["etag"]}).status_code == 304


def test_pages_are_not_kept(browser: Browser) -> None:
    for page in PAGES:
        assert browser.get(page).headers["cache-control"] == "no-store"


def test_the_switch_of_dark_and_light_is_remembered(browser: Browser) -> None:
    assert "data-theme" not in re.findall("<html[^>]*>", browser.page("/"))[0]
    browser.cookies["orchestrator_theme"] = "dark"
    assert 'data-theme="dark"' in browser.page("/")
    browser.cookies["orchestrator_theme"] = '"><script>'
    assert "data-theme" not in re.findall("<html[^>]*>", browser.page("/"))[0]


# --- what strangers send ----------------------------------------------------------------------------------------------

EVIL = "<script>alert(1)</script>"


class Tags(HTMLParser):
    """The elements and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def check_is_ours(text: str) -> None:
    """Only scripts of ours, nothing that runs in an attribute, no element that a stranger has made."""
    for tag, attributes in Tags(text).tags:
        if tag == "script":
            assert str(attributes.get("src")).startswith("/static/"), attributes
        assert not any(name.startswith("on") or name == "style" for name in attributes), (tag, attributes)
        assert tag not in ("img", "iframe", "b") or str(attributes.get("src")).startswith("/static/"), attributes
    assert "alert(1)</script>" not in text


def test_markup_in_every_field_of_sip_is_text(stage: ConsoleStage, browser: Browser) -> None:
    world = stage.world
    bob = world.registered_phone("bob@example.com", "10.0.0.3")
    mallory = world.peer("mallory", "10.0.0.66")
    lines = [
        "INVITE sip:bob@example.com SIP/2.0",
        f'Via: SIP/2.0/UDP 10.0.0.66:5060;branch=z9hG4bKevil;x="{EVIL}"',
        f'From: "{EVIL}" <sip:%3Cscript%3Ealert(1)%3C/script%3E@example.com>;tag="{EVIL}"',
        f'To: "\'{EVIL}" <sip:bob@example.com>',
        f"Call-ID: {EVIL}@x",
        "CSeq: 1 INVITE",
        f'Contact: "{EVIL}" <sip:mallory@10.0.0.66;x=%3Cscript%3E>',
        "Max-Forwards: 70",
        f"User-Agent: {EVIL}",
        f"Subject: <img src=x onerror=alert(1)>{EVIL}",
        f"X-Evil: {EVIL}\"' onload='alert(1)",
        "Content-Type: text/html",
        f"Content-Length: {len(EVIL)}",
        "",
        EVIL,
    ]
    mallory.send("\r\n".join(lines).encode())
    bob.ask(
        "REGISTER", "sip:example.com", headers=[b"User-Agent: " + EVIL.encode(), b'Contact: <sip:bob@10.0.0.3;x="<b>">']
    )
    world.run()
    (call,) = stage.items("calls")
    pages = [*PAGES, f"/calls?of={EVIL}", f"/calls/{call['id']}", f"/registrations?of={EVIL}"]
    pages += ["/registrations/bob@example.com", f"/registrations/{EVIL}", f"/archive?of={EVIL}&flow={EVIL}&code={EVIL}"]
    pages += [f"/catalogue?event={EVIL}", f"/{EVIL}", f"/sign-in?next=/{EVIL}"]
    for page in pages:
        check_is_ours(browser.get(page).text)
    seen = browser.page(f"/calls/{call['id']}")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in seen
    for message in re.findall(r'data-message="([\d.]+)"', seen):
        check_is_ours(browser.page(f"/calls/{call['id']}/messages/{message}"))
    world.run(120)
    check_is_ours(browser.page("/archive"))
    check_is_ours(browser.page(f"/calls/{call['id']}"))


def test_markup_in_an_event_is_text(stage: ConsoleStage) -> None:
    log = EventLog(stage.world.engine)
    stop = log.watch(lambda: None)
    stage.ask("POST", "events", {"name": "door_open", "attributes": {"door": EVIL, "floor": 1, "wide": None}})
    shown = render("events_log.html", events=log.newest())
    check_is_ours(shown)
    assert "&lt;script&gt;" in shown
    assert stage.world.engine.bus.hears("answered")
    stop()
    assert log.newest() == []
    assert not stage.world.engine.bus.hears("answered")
