"""What a server says in its log about its files and its store, each line with the keys of docs/log.md."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from orchestrator.app import Server
from orchestrator.errors import StoreError
from orchestrator.runtime.admin import Admin, Health
from orchestrator.runtime.metrics import Metrics
from orchestrator.settings import read_settings
from orchestrator.sip.points import Hop
from orchestrator.site import read_site

CONFIG = """\
sip: {listen: 'udp:127.0.0.1:0', trust: 0.0.0.0/0, open_relay: on}
location: 'memory:'
flows: FOLDER
admin: {listen: '127.0.0.1:0'}
"""
FLOW = """\
flowlang: 1
secrets: {KEY: {env: NOT_SET}}
freeswitch: {fs2: {host: 192.0.2.3, password: {env: NO_PASSWORD}}}
flows:
  asks:
    on: invite
    when: call.target.user == 'web'
    do:
      - http: {url: 'https://web.example/', headers: {Authorization: 'Bearer ${secrets.KEY}'}}
      - reply: 480
  rests:
    on: invite
    do: [reply: 404]
"""

INVITE = "\r\n".join(
    [
        "INVITE sip:web@example.com SIP/2.0",
        "Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1",
        "Max-Forwards: 70",
        "From: <sip:alice@example.com>;tag=a",
        "To: <sip:web@example.com>",
        "Call-ID: one",
        "CSeq: 1 INVITE",
        "Contact: <sip:alice@192.0.2.1>",
        "Content-Length: 0",
        "",
        "",
    ]
).encode()


@pytest.fixture
def lines() -> Iterator[dict[str, dict[str, Any]]]:
    """Event → the keys of its last line."""
    found: dict[str, dict[str, Any]] = {}

    def keep(message: Any) -> None:
        record = message.record
        found[record["message"]] = {"level": record["level"].name, **record["extra"]}

    sink = logger.add(keep, level="DEBUG")
    yield found
    logger.remove(sink)


@pytest.fixture
def server(tmp_path: Path, lines: dict[str, dict[str, Any]]) -> Iterator[Server]:
    (tmp_path / "a.flow.yaml").write_text(FLOW)
    settings = read_settings("o.yml", CONFIG.replace("FOLDER", str(tmp_path)), {})
    with ExitStack() as stack:
        yield Server(read_site(settings, {}), stack)


def test_a_flow_without_its_secret_is_left_out(server: Server, lines: dict[str, dict[str, Any]]) -> None:
    line = lines["flow_left_out"]
    assert (line["level"], line["flow"], line["unset"]) == ("WARNING", "asks", "KEY")
    assert line["place"].endswith("a.flow.yaml:5:3")
    engine = server.engine
    engine.receive(INVITE, Hop(engine.network.points[0], "192.0.2.1", 5060), engine.timers.now)
    answer = engine.datagrams[-1][0]
    assert answer.startswith(b"SIP/2.0 404 "), "the next flow takes the call"


def test_what_is_missing_is_named(server: Server, lines: dict[str, dict[str, Any]]) -> None:
    assert lines["configuration_incomplete"]["problem"] == (
        "secret KEY has no value: environment variable NOT_SET is not set"
    )
    assert list(server.links.by_name) == [], "no link to a server without a password"


def test_a_warning_of_the_check_is_a_line(server: Server, lines: dict[str, dict[str, Any]]) -> None:
    assert lines["file_warning"]["place"].startswith("o.yml:1:")


def test_a_store_that_fails_and_writes_again_is_two_lines(server: Server, lines: dict[str, dict[str, Any]]) -> None:
    location = server.engine.location
    location.note(StoreError("disk full"))
    assert lines["location_unwritable"] == {"level": "ERROR", "reason": "disk full"}
    assert server.health.degradations()["location"] == "registrations cannot be stored"
    location.note(None)
    assert lines["location_writable"] == {"level": "INFO"}
    assert "location" not in server.health.degradations()


def test_an_admin_interface_that_the_network_reaches_is_a_warning(lines: dict[str, dict[str, Any]]) -> None:
    Admin("127.0.0.1", 0, Health(), Metrics()).close()
    assert "admin_open_to_network" not in lines
    Admin("0.0.0.0", 0, Health(), Metrics()).close()
    assert lines["admin_open_to_network"]["listen"] == "http://0.0.0.0:0"
