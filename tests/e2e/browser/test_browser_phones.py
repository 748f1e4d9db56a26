"""Phones in a browser: the pages that docs/transports.md shows, in Chromium, over WSS.

JsSIP, SIP.js and what puts a page into one file come from npm by the lock file beside this one, once, into pytest's
cache. Without Node, a registry or Chromium (Debian's package `chromium`) these tests are skipped and say so.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import Chromium, Page, chromium_path
from click.testing import CliRunner
from gevent.pywsgi import WSGIServer
from npm_packages import npm_packages

from orchestrator.cli.certificate import command as certificate
from orchestrator.testing.phone import PhoneCall
from orchestrator.testing.sockets import SocketPhone, wait_until

pytestmark = pytest.mark.browser

HERE = Path(__file__).parent
PAGE = (HERE.parents[2] / "docs" / "transports.md").read_text()

FLOW = """
flowlang: 1
flows:
  registration:
    on: register
    do:
      - auth: {realm: example.com, users: local}
        if: request.to.user in ['bob', 'erin']
      - register
  wakeup:
    on: invite
    when: call.target.user == 'bob'
    do:
      - subscribe: registered
        where: {aor: '${call.target.aor}'}
        for: 90s
        unique_by: event.contact
        do: [inject: '${event.uri}']
      - relay: {to: registered, ring: 90s, keep_open: 90s}
"""

SDP = (
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\nc=IN IP4 127.0.0.1\r\n"
    "a=rtpmap:0 PCMU/8000\r\na=mid:0\r\na=sendrecv\r\na=rtcp-mux\r\na=ice-ufrag:abcd\r\na=ice-pwd:" + "0" * 24 + "\r\n"
    "a=fingerprint:sha-256 " + ":".join(["AB"] * 32) + "\r\na=setup:{setup}\r\n"
)
"""What a browser takes for a description of WebRTC; nobody sends media here."""

WATCH = {
    "jssip": """
window.seen = [];
phone.on('registered', () => seen.push('registered'));
phone.on('registrationFailed', ({cause}) => seen.push(`not registered: ${cause}`));
phone.on('newRTCSession', ({session}) => {
  window.session = session;
  for (const name of ['progress', 'confirmed', 'ended', 'failed'])
    session.on(name, ({originator, cause}) => seen.push([name, originator, cause].filter(Boolean).join(' ')));
});
window.dial = user => { phone.call(`sip:${user}@example.com`, audio); };
window.hangUp = () => session.terminate();
window.connection = () => session.connection;
""",
    "sip.js": """
window.seen = ['registered'];
Object.assign(phone.delegate, {
  onCallAnswered: () => seen.push('confirmed'),
  onCallHangup: () => seen.push('ended'),
});
window.dial = user => phone.call(`sip:${user}@example.com`);
window.hangUp = () => phone.hangup();
window.connection = () => phone.session.sessionDescriptionHandler.peerConnection;
""",
}
"""What the tests add to a page: what they want to know, and what a person would click at."""


HEARD = """
connection().getStats().then(all => [...all.values()].some(one => one.type === 'inbound-rtp' && one.packetsReceived > 0)
  && document.querySelector('audio').currentTime > 0)
"""
"""Sound has come from the other side, and is played."""


@pytest.fixture(scope="module")
def modules(request: pytest.FixtureRequest) -> Path:
    """A folder with node_modules."""
    if chromium_path() is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium): phones in browsers are not tested")
    return npm_packages(HERE, request, "JsSIP and SIP.js", seconds=100)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    assert CliRunner().invoke(certificate, [str(folder)]).exit_code == 0
    return folder


@pytest.fixture(scope="module")
def browser(modules: Path, tls: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("profile"), tls / "certificate.pem") as browser:
        yield browser


@pytest.fixture(scope="module")
def server(serve_all: Callable[..., Any], modules: Path, tls: Path) -> Any:
    (tls / "flow.flow.yaml").write_text(FLOW)
    (tls / "users.yaml").write_text("bob: secret of bob\nerin: secret of erin\n")
    return serve_all(
        listen=["wss"],
        sip={"tls": {"certificate": str(tls / "certificate.pem"), "key": str(tls / "key.pem")}},
        flows=[str(tls / "flow.flow.yaml")],
        users={"local": {"file": str(tls / "users.yaml")}},
    )


@pytest.fixture
def show(browser: Chromium, modules: Path, server: Any, tmp_path: Path) -> Iterator[Callable[[str, str], Page]]:
    """`show('jssip', 'bob')`: the page of docs/transports.md with this library, as this user's phone."""

    def serve_file(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        name = environ["PATH_INFO"].strip("/")
        script = name.endswith(".js")
        start_response("200 OK", [("Content-Type", "text/javascript" if script else "text/html")])
        html = f"<!doctype html><audio autoplay></audio><script type=module src=/{name}.js></script>"
        return [(tmp_path / name).read_bytes() if script else html.encode()]

    web = WSGIServer(("127.0.0.1", 0), serve_file, log=None)
    web.start()
    pages: list[Page] = []

    def open_page(library: str, user: str) -> Page:
        (shown,) = re.findall(rf"^```js\n([^`]*'{re.escape(library)}'.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
        shown = shown.replace("wss://sip.example.com:8443", f"wss://127.0.0.1:{server.ports['wss']}")
        shown = shown.replace("alice", user)
        source = modules / f"{user}.js"
        source.write_text(shown + WATCH[library])
        bundle = ["node_modules/.bin/esbuild", source.name, "--bundle", "--format=esm"]
        subprocess.run([*bundle, f"--outfile={tmp_path / user}.js"], cwd=modules, check=True, capture_output=True)
        pages.append(browser.page(f"http://127.0.0.1:{web.server_port}/{user}"))
        return pages[-1]

    yield open_page
    for page in pages:
        page.close()
    web.stop()


@pytest.fixture
def alice(server: Any) -> Iterator[SocketPhone]:
    """A phone on UDP; to a browser it looks like one that speaks WebRTC."""
    phone = SocketPhone("alice@example.com", server.sip)
    yield phone
    phone.close()


def sdp(setup: str) -> bytes:
    return SDP.format(setup=setup).encode()


def wait_for(page: Page, *events: str) -> None:
    """Until the page has seen these, in this order, at the end of all it has seen."""
    seen: list[str] = []

    def as_wanted() -> bool:
        seen[:] = page.run("window.seen || []")
        return seen[-len(events) :] == list(events)

    assert wait_until(as_wanted, 60), seen


def test_jssip_is_woken_is_called_and_calls(show: Callable[[str, str], Page], alice: SocketPhone) -> None:
    alice.register()
    assert wait_until(lambda: alice.registered == [200])

    alice.sdp = sdp("actpass")
    call = alice.invite("bob@example.com")  # nobody is there: the call waits
    assert wait_until(lambda: call.statuses == [100])
    bob = show("jssip", "bob")  # registers, with his password, and answers whoever calls
    assert wait_until(lambda: call.state == "answered", 60), (call.statuses, bob.run("window.seen"))
    wait_for(bob, "confirmed remote")
    call.hangup()  # over UDP to the browser's connection
    wait_for(bob, "ended remote Terminated")

    alice.sdp = sdp("active")
    alice.on_invite = PhoneCall.answer
    bob.run("dial('alice')")
    wait_for(bob, "confirmed local")
    assert wait_until(lambda: alice.calls[-1].acknowledged)
    bob.run("hangUp()")
    assert wait_until(lambda: alice.calls[-1].state == "ended")
    wait_for(bob, "ended local Terminated")


def test_sip_js_calls_jssip_and_they_hear_each_other(show: Callable[[str, str], Page]) -> None:
    bob, erin = show("jssip", "bob"), show("sip.js", "erin")
    wait_for(bob, "registered")
    wait_for(erin, "registered")
    erin.run("dial('bob')")
    wait_for(erin, "confirmed")
    wait_for(bob, "confirmed remote")
    for page in (bob, erin):
        assert wait_until(lambda page=page: page.run(HEARD), 60)
    bob.run("hangUp()")
    wait_for(erin, "confirmed", "ended")
