"""What /metrics says: each figure here is made to move by what it counts, and read from the exposition."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from orchestrator.app import Server
from orchestrator.core.jobs import Job
from orchestrator.errors import StoreError
from orchestrator.flow.run.effects import Http
from orchestrator.settings import read_settings
from orchestrator.sip.points import Hop
from orchestrator.site import read_site

CONFIG = """\
sip: {listen: 'udp:127.0.0.1:0', trust: 192.0.2.1}
location: 'memory:'
freeswitch: {fs1: {host: 127.0.0.1, port: 1, probe: 5s}}
flows: FOLDER
admin: {listen: '127.0.0.1:0'}
cdr: FOLDER/cdr.jsonl
limits: {bindings: 1, runs: 1, http_queue: 1}
sources: {rate: 1, burst: 1, ban: 60s}
"""
FLOW = """\
flowlang: 1
flows:
  main:
    on: invite
    do:
      - wait: registered
        for: 10s
"""


def request(method: str, number: int, *headers: str) -> bytes:
    lines = [
        f"{method} sip:bob@example.com SIP/2.0",
        f"Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK{method}{number}",
        "Max-Forwards: 70",
        f"From: <sip:alice@example.com>;tag=a{number}",
        "To: <sip:bob@example.com>",
        f"Call-ID: {method}{number}",
        f"CSeq: {number} {method}",
        *headers,
        "Content-Length: 0",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "a.flow.yaml").write_text(FLOW)
    with ExitStack() as stack:
        yield Server(read_site(read_settings("o.yml", CONFIG.replace("FOLDER", str(tmp_path)), {}), {}), stack)


def receive(server: Server, data: bytes, host: str = "192.0.2.1") -> None:
    engine = server.engine
    engine.receive(data, Hop(engine.network.points[0], host, 5060), engine.timers.now)


def invite_twice(server: Server) -> None:
    for number in (1, 2):
        receive(server, request("INVITE", number, "Contact: <sip:alice@192.0.2.1>"))


def register_twice(server: Server) -> None:
    for number in (1, 2):
        contact = f"Contact: <sip:p{number}@192.0.2.1>"
        receive(server, request("REGISTER", number, contact, "Expires: 600"))


def refuse_to_write(server: Server) -> None:
    def write(changes: object) -> None:
        raise StoreError("disk full")

    server.engine.location.store.write = write  # type: ignore[method-assign]
    register_twice(server)


def flood(server: Server) -> None:
    for number in range(1, 2000):
        receive(server, request("OPTIONS", number), "203.0.113.5")


def ask_the_web_too_often(server: Server) -> None:
    for number in range(70):
        server.jobs.start(Job(number, Http("GET", "http://127.0.0.1:1/")))


def answer_no_options(server: Server) -> None:
    engine = server.engine
    for second in range(60):
        engine.run_timers(engine.timers.now + 0.5 if second else engine.timers.now)


def answer_options(server: Server) -> None:
    engine = server.engine
    engine.run_timers(engine.timers.now + 1.0)
    request = next(data for data, _ in engine.datagrams if data.startswith(b"OPTIONS "))
    kept = [
        line for line in request.split(b"\r\n") if line.split(b":")[0] in (b"Via", b"From", b"To", b"Call-ID", b"CSeq")
    ]
    answer = b"\r\n".join([b"SIP/2.0 200 OK", *kept, b"Content-Length: 0", b"", b""])
    receive(server, answer, "127.0.0.1")


@pytest.mark.parametrize(
    ("act", "line"),
    [
        (invite_twice, "flow_runs 1.0"),
        (invite_twice, "flow_runs_started_total 1.0"),
        (invite_twice, "flow_runs_refused_total 1.0"),
        (invite_twice, "transactions_unanswered 1.0"),
        (invite_twice, "subscriptions 1.0"),
        (register_twice, "bindings 1.0"),
        (register_twice, 'bindings_refused_total{limit="bindings"} 1.0'),
        (register_twice, "location_up 1.0"),
        (register_twice, "transactions_lingering 2.0"),
        (refuse_to_write, "location_up 0.0"),
        (refuse_to_write, "location_write_failures_total 2.0"),
        (answer_options, 'freeswitch_takes_calls{server="fs1"} 1.0'),
        (answer_no_options, 'freeswitch_takes_calls{server="fs1"} 0.0'),
        (flood, 'source_bans_total{reason="flood"} 1.0'),
        (flood, "sources_banned 1.0"),
        (ask_the_web_too_often, 'jobs_waiting{pool="http"} 1.0'),
        (ask_the_web_too_often, 'jobs_refused_total{pool="http"} 69.0'),
        (lambda server: setattr(server.links.by_name["fs1"], "state", "up"), 'esl_up{server="fs1"} 1.0'),
        (lambda server: setattr(server.cdr, "written", 4), "cdr_written_total 4.0"),
        (lambda server: setattr(server.reactor, "stalls", 3), "reactor_stalls_total 3.0"),
        (lambda server: setattr(server.admin._server, "refused", 5), "admin_connections_refused_total 5.0"),
        (lambda server: setattr(server.engine.network.names, "refused", 6), "lookups_refused_total 6.0"),
    ],
)
def test_a_figure_says_what_has_happened(server: Server, act: Callable[[Server], None], line: str) -> None:
    act(server)
    figures = server.metrics.exposition().decode().splitlines()
    assert f"orchestrator_{line}" in figures, [f for f in figures if f.partition("{")[0].split()[0][13:] in line]


def test_datagrams_that_are_not_read_are_counted_by_reason(server: Server) -> None:
    flood(server)
    unread = [f for f in server.metrics.exposition().decode().splitlines() if "datagrams_unread_total{" in f]
    assert unread and sum(float(figure.split()[-1]) for figure in unread) > 1000
