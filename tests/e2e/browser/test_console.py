"""The console as a person uses it: Chromium, driven by Playwright, while phones make calls.

Playwright comes with the extra `test`, axe-core from npm into pytest's cache. Without Chromium (Debian's package
`chromium`) these tests are skipped and say so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import chromium_path
from npm_packages import npm_packages
from playwright.sync_api import Browser, Page, expect, sync_playwright

from orchestrator.testing.phone import PhoneCall
from tools.phones_in_thread import Phones

pytestmark = pytest.mark.browser

HERE = Path(__file__).parent
TOKEN, READ_TOKEN = "console-token-0123", "reading-token-0123"
PATIENCE = 20_000
"""Milliseconds for a page to show something on a busy machine."""

FLOW = """
flowlang: 1
events:
  door_open: {door: text, floor: number}
flows:
  registration:
    on: register
    do: [register]
  wakeup:
    on: invite
    when: call.target.user == 'carol'
    do:
      - reply: 183
      - wait: door_open
        where: {door: front}
        for: 300s
      - relay: {to: registered, ring: 300s}
  main:
    on: invite
    do:
      - relay: {to: registered, ring: 300s}
"""
QUICK = {"resultTypes": ["violations"], "preload": False, "iframes": False}
"""What axe need not do: all our styles are there, and there are no frames."""
PAGES = ("/", "/calls", "/archive", "/registrations", "/registrations/bob@example.com", "/gateways", "/flows",
         "/flows/wakeup", "/catalogue", "/operations")  # fmt: skip


@pytest.fixture(scope="module")
def server(serve_all: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    flow = tmp_path_factory.mktemp("flows") / "console.flow.yaml"
    flow.write_text(FLOW)
    gateways = {"carrier": {"uri": "sip:127.0.0.1:9"}}
    admin = {"listen": "127.0.0.1:0", "token": TOKEN, "read_token": READ_TOKEN}
    return serve_all(flows=[str(flow)], admin=admin, gateways=gateways, stop={"ringing": "100ms", "setup": "100ms"})


@pytest.fixture(scope="module")
def phones(server: Any) -> Iterator[Phones]:
    phones = Phones(server.sip, "alice", "bob", "carol")
    yield phones
    phones.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    if (path := chromium_path()) is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium): the console is not looked at")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def web(server: Any) -> str:
    return f"http://{server.admin[0]}:{server.admin[1]}"


@pytest.fixture(scope="module")
def page(chromium: Browser, web: str) -> Iterator[Page]:
    """A page of somebody who has signed in. What the browser complains about fails the tests."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
    page.goto(web)
    expect(page).to_have_title("Sign in · " + page.title().rpartition("· ")[2])
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
    yield page
    context.close()
    assert complaints == []


def call(phones: Phones, to: str) -> PhoneCall:
    made: PhoneCall = phones.do(lambda: phones.phones["alice"].invite(f"{to}@example.com"))
    return made


def open_call(page: Page, web: str, to: str) -> None:
    """Its page, by the list, which shows the call without a reload."""
    page.get_by_role("row").filter(has_text=f"{to}@example.com").get_by_role("link").first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(f"{to}@example.com")


def test_a_call_appears_progresses_and_ends_by_itself(page: Page, phones: Phones, web: str) -> None:
    page.goto(web + "/calls")
    expect(page.locator("#calls-rows")).to_contain_text("No call is live")
    made = call(phones, "bob")
    row = page.locator("#calls-rows tr").filter(has_text="bob@example.com")
    expect(row.locator(".badge")).to_have_text("ringing")
    open_call(page, web, "bob")
    ladder = page.locator("#call-ladder")
    expect(ladder).to_contain_text("180 Ringing")

    phones.do(lambda: phones.phones["bob"].calls[-1].answer())
    expect(page.locator("#call-head .badge")).to_have_text("answered")
    expect(ladder).to_contain_text("200 OK")
    expect(ladder).to_contain_text("ACK")

    ladder.get_by_role("button").filter(has_text="INVITE").first.click()
    expect(page.locator("#message")).to_contain_text("INVITE sip:bob@example.com SIP/2.0")
    ladder.get_by_role("button").filter(has_text="180 Ringing").first.press("Enter")
    expect(page.locator("#message")).to_contain_text("SIP/2.0 180 Ringing")

    phones.do(made.hangup)
    expect(page.locator("#call-head .badge")).to_have_text("ended")
    expect(page.get_by_role("button", name="Hang up")).to_be_hidden()
    expect(page.locator("#message")).to_contain_text("SIP/2.0 180 Ringing")  # what a person reads stays
    page.goto(web + "/archive")
    expect(page.locator("tbody")).to_contain_text("bob@example.com")


def test_a_call_waits_at_a_line_an_event_wakes_it_and_it_is_hung_up(page: Page, phones: Phones, web: str) -> None:
    made = call(phones, "carol")
    page.goto(web + "/calls")
    open_call(page, web, "carol")
    lit = page.locator("#call-source .lit")
    expect(lit).to_contain_text("wait: door_open")
    expect(page.locator("#call-waits")).to_contain_text("event door_open")
    expect(page.locator("#call-why")).to_contain_text("has to be front")

    other = page.context.new_page()
    other.goto(web + "/catalogue")
    other.get_by_label("door (text)").fill("front")
    other.get_by_label("floor (number)").fill("1,5")
    other.get_by_role("button", name="Raise door_open").click()
    expect(other.get_by_role("status")).to_have_text("The event has been raised.")
    other.close()
    expect(lit).to_contain_text("relay: {to: registered")
    expect(page.locator("#call-events")).to_contain_text("door_open")

    page.get_by_role("button", name="Hang up").click()
    page.get_by_role("dialog").get_by_role("button", name="Hang up").click()
    phones.until(lambda: made.state in ("failed", "ended"))
    expect(page.locator("#call-head .badge")).to_have_text("ended")
    page.get_by_role("link", name="Make this call a test").click()
    expect(page.locator("#case")).to_contain_text("door_open")


def test_keys_go_to_the_search_and_through_the_list(page: Page, phones: Phones, web: str) -> None:
    page.goto(web + "/registrations")
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the content")).to_be_focused()
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("bob")
    expect(page.locator("#found [data-row]")).to_have_count(1)
    page.keyboard.press("Control+a")
    page.keyboard.press("Delete")
    expect(page.locator("#found [data-row]")).to_have_count(3)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#found [data-row]").nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("@example.com")


def test_an_event_is_seen_as_it_happens(page: Page, phones: Phones, web: str) -> None:
    page.goto(web + "/catalogue")
    log = page.locator("#events-log")
    made = call(phones, "bob")
    phones.until(lambda: 180 in made.statuses)
    phones.do(lambda: phones.phones["bob"].calls[-1].answer())
    expect(log).to_contain_text("answered")
    phones.do(made.hangup)


def test_charts_are_drawn(page: Page, web: str) -> None:
    page.goto(web + "/")
    expect(page.locator(".chart canvas")).to_have_count(4)
    expect(page.locator("#state")).to_contain_text("Registrations")


def test_no_serious_fault_on_any_page_in_dark_and_light(
    page: Page, phones: Phones, web: str, request: pytest.FixtureRequest
) -> None:
    axe = npm_packages(HERE / "axe", request, "axe-core", seconds=60) / "node_modules" / "axe-core" / "axe.min.js"
    made = call(phones, "carol")
    page.goto(web + "/calls")
    open_call(page, web, "carol")
    expect(page.locator("#call-source .lit")).to_be_visible()
    found: list[str] = []
    page.evaluate(axe.read_text())
    for path in (page.url.removeprefix(web), *PAGES):
        if page.url != web + path:
            page.goto(web + path)
            page.evaluate(axe.read_text())
        for scheme, rules in (("light", None), ("dark", ["color-contrast"])):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            only = {"runOnly": {"type": "rule", "values": rules}} if rules else {}
            result = page.evaluate("options => axe.run(document, options)", {**only, **QUICK})
            found += [
                f"{path} {scheme}: {fault['id']}: {node['html'][:200]}"
                for fault in result["violations"]
                if fault["impact"] in ("serious", "critical")
                for node in fault["nodes"][:3]
            ]
        page.emulate_media(color_scheme="light")
    phones.do(made.hangup)
    assert found == []


def test_a_page_fits_a_phone(page: Page, web: str) -> None:
    page.set_viewport_size({"width": 375, "height": 700})
    for path in PAGES:
        page.goto(web + path)
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 375, (path, wide)
    page.set_viewport_size({"width": 1280, "height": 900})


def test_a_reader_has_nothing_to_press(chromium: Browser, page: Page, web: str) -> None:
    reader = chromium.new_context().new_page()
    reader.goto(web + "/sign-in?next=/operations")
    reader.get_by_label("Token").fill(READ_TOKEN)
    reader.get_by_role("button", name="Sign in").click()
    expect(reader.get_by_text("read only")).to_be_visible()
    expect(reader.locator("main form[method=post]")).to_have_count(0)
    reader.get_by_role("button", name="Dark").click()
    expect(reader.locator("html")).to_have_attribute("data-theme", "dark")
    reader.reload()
    expect(reader.locator("html")).to_have_attribute("data-theme", "dark")
    reader.get_by_role("button", name="Sign out").click()
    expect(reader.get_by_label("Token")).to_be_visible()
    reader.context.close()
