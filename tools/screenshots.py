"""The pictures of docs/console.md: each page of the console, as Chromium shows it, with calls of phones of our own.

    python -m tools.screenshots [folder]

Writes docs/console/*.png anew, at most 100 KB each. It starts a server with a configuration of its own, on ports the
system chooses, and needs Debian's package chromium and what `pip install -e '.[dev]'` brings.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from orchestrator.testing.phone import PhoneCall
from tools.phones_in_thread import Phones

FOLDER = Path("docs/console")
LARGEST = 100_000
"""Octets of a picture."""
COLOURS = 96
TOKEN = "only-for-these-pictures"  # noqa: S105
FLOWS = """\
flowlang: 1
description: Ring the phones; the flat's phone only after the door has been opened.

events:
  door_open: {door: text, floor: number, wide: optional bool}

flows:
  registration:
    on: register
    do: [register]
  flat:
    on: invite
    when: call.target.user == 'flat'
    do:
      - reply: 183
      - subscribe: registered
        where: {aor: '${call.target.aor}'}
        for: 120s
        do: [inject: '${event.uri}']
      - wait: door_open
        where: {door: front}
        for: 120s
      - relay: {to: registered, ring: 60s}
        on:
          busy: [reply: 486]
  office:
    on: invite
    do:
      - relay: {to: registered, ring: 60s}
"""
PAGES = {
    "overview": "/",
    "calls": "/calls",
    "ended": "/archive",
    "registrations": "/registrations",
    "registration": "/registrations/bob@example.com",
    "gateways": "/gateways",
    "flows": "/flows",
    "flow": "/flows/office",
    "events": "/catalogue",
    "operations": "/operations",
}
"""Picture → page."""


@contextmanager
def served(folder: Path) -> Iterator[tuple[tuple[str, int], str]]:
    """A server; its SIP address, and the URL of its console."""
    (folder / "site.flow.yaml").write_text(FLOWS)
    settings = {
        "node": "node1",
        "sip": {"listen": ["udp:127.0.0.1:0"], "domains": ["example.com"]},
        "location": "memory:",
        "freeswitch": {},
        "gateways": {"carrier": {"uri": "sip:192.0.2.10"}, "second": {"uri": "sip:192.0.2.20"}},
        "flows": ["site.flow.yaml"],
        "stop": {"ringing": "100ms", "setup": "100ms"},
        "admin": {"listen": "127.0.0.1:0", "token": TOKEN},
    }
    (folder / "orchestrator.yml").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "orchestrator", "run", "-c", "orchestrator.yml"]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        ready = next((line for line in process.stderr if line.startswith("ready ")), "")
        sip, web = re.search(r"udp:127\.0\.0\.1:(\d+)", ready), re.search(r"http://\S+", ready)
        if sip is None or web is None:
            raise SystemExit("the server has not started")
        process.stderr.close()
        yield ("127.0.0.1", int(sip[1])), web[0]
    finally:
        process.terminate()
        process.wait(30)


def call(phones: Phones, caller: str, to: str, answered: bool = False) -> PhoneCall:
    """One call, answered or not."""
    made: PhoneCall = phones.do(lambda: phones.phones[caller].invite(f"{to}@example.com"))
    phones.until(lambda: 180 in made.statuses or 183 in made.statuses)
    if answered:
        phones.do(lambda: phones.phones[to].calls[-1].answer())
        phones.until(lambda: made.state == "answered")
    return made


def hang_up(phones: Phones, made: PhoneCall) -> None:
    phones.do(made.hangup)
    phones.until(lambda: made.state == "ended")


def busy(phones: Phones) -> None:
    """What happens before anybody looks: calls that end, one that goes on, one that rings, one that waits."""
    for caller, to in (("alice", "bob"), ("dave", "erin"), ("bob", "alice")):
        hang_up(phones, call(phones, caller, to, answered=True))
    phones.do(lambda: phones.phones["erin"].calls.clear())
    call(phones, "dave", "erin", answered=True)
    call(phones, "alice", "bob")
    call(phones, "dave", "flat")


def shoot(page: Page, file: Path, whole: bool = False) -> None:
    """One picture."""
    picture = Image.open(io.BytesIO(page.screenshot(full_page=whole))).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(file, optimize=True)
    if file.stat().st_size > LARGEST:
        raise SystemExit(f"{file} has {file.stat().st_size} octets, more than {LARGEST}")
    print(f"{file} {file.stat().st_size}")


def pictures(page: Page, web: str, phones: Phones, folder: Path) -> None:
    """All of them."""
    page.goto(web)
    shoot(page, folder / "sign-in.png")
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Sign in").click()
    busy(phones)
    page.wait_for_timeout(8000)  # the charts get a past
    for name, path in PAGES.items():
        page.goto(web + path)
        page.wait_for_timeout(1500)
        shoot(page, folder / f"{name}.png")
    page.goto(web + "/calls?of=flat")
    page.locator("#calls-rows a").click()
    expect(page.locator("#call-source .lit")).to_be_visible()
    shoot(page, folder / "call-waits.png", whole=True)
    page.goto(web + "/archive?code=200")
    page.locator("tbody a").first.click()
    page.locator("#call-ladder [data-message]").nth(3).press("Enter")
    expect(page.locator("#message pre")).to_be_visible()
    page.emulate_media(color_scheme="dark")
    shoot(page, folder / "call-dark.png", whole=True)
    page.set_viewport_size({"width": 375, "height": 760})
    page.goto(web + "/calls")
    page.wait_for_timeout(500)
    shoot(page, folder / "phone.png")


def main(folder: str = "") -> int:
    """Write them; returns the exit status."""
    chromium: Any = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        print("Chromium is not installed: sudo apt-get install chromium")
        return 1
    to = Path(folder) if folder else FOLDER
    to.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as site, served(Path(site)) as (sip, web), sync_playwright() as playwright:
        phones = Phones(sip, "alice", "bob", "dave", "erin", "flat")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1200, "height": 800}, color_scheme="light")
        page.set_default_timeout(60_000)
        pictures(page, web, phones, to)
        browser.close()
        phones.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
