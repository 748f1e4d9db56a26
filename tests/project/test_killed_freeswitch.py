"""A real FreeSWITCH dies in the middle of calls and comes back (F11): SIP goes on, and nobody is left in its calls."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from media_server import MediaServer, media_server, needs_freeswitch, orchestrator
from test_media_flows import Sounding
from test_screening import PATIENCE

pytestmark = needs_freeswitch

FLOW = """
flowlang: 1
flows:
  told:
    on: {event: fs.link}
    do: [log: 'link ${event.state}']
  direct:
    on: invite
    when: call.target.user == 'carol'
    do: [relay: registered]
  through_freeswitch:
    on: invite
    do:
      - relay: {to: registered, via: fs1, ring: 30s}
    on_end: [log: 'ended: ${call.end_reason ?? "?"}']
"""


@pytest.fixture
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MediaServer]:
    """One for this test alone."""
    with media_server(tmp_path_factory.mktemp("mortal")) as server:
        yield server


def connected(caller: Sounding, called: Sounding) -> None:
    """A call from one to the other."""
    user = called.name
    caller.request("INVITE", f"sip:{user}@example.com", f"<sip:{user}@example.com>", 1, [], caller.sdp())
    called.answer(called.expect("INVITE "), "200 OK", called.sdp())
    caller.answered()
    called.expect("ACK ")


def test_it_is_killed_and_comes_back(own_server: MediaServer, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    with orchestrator(own_server, tmp_path, FLOW) as port:
        every = [Sounding(name, port) for name in ("alice", "bob", "carol", "dora", "eve")]
        alice, bob, carol, dora, eve = every
        for phone in (bob, carol):
            phone.register()
        connected(alice, bob)
        own_server.kill()
        assert seen(log, "link down")
        connected(dora, carol)  # SIP goes on
        own_server.start()
        own_server.wait_until_ready()
        assert seen(log, "link up", times=2)
        for phone in (alice, bob):  # the new core has none of the channels of the old one
            phone.farewell()
        assert seen(log, "ended: channel lost")
        connected(eve, bob)  # and the next call goes through it
        assert carol.hears_nothing(), "hers was never its business"
        for phone in every:
            phone.close()


def seen(log: Path, text: str, times: int = 1) -> bool:
    deadline = time.monotonic() + PATIENCE
    while log.read_text().count(text) < times and time.monotonic() < deadline:
        time.sleep(0.02)
    return log.read_text().count(text) >= times
