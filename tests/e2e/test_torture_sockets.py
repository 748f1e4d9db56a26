"""Difficult messages over a real socket, at a running server that does not trust their sender: the status that comes
back fits the verdict of the index, the next request is answered as if nothing had been, and nothing is left."""

from __future__ import annotations

import json
import re
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CORPUS = Path(__file__).parents[1] / "sip" / "corpus"
VERDICTS: list[dict[str, Any]] = json.loads((CORPUS / "index.json").read_text(encoding="utf-8"))["messages"]
HOST = "127.0.0.21"
"""Where the sender lives: an address of its own, for answers go to the port of the Via, 5060."""
PROBE = (
    "OPTIONS sip:{to} SIP/2.0\r\nVia: SIP/2.0/UDP {host}:5060;branch=z9hG4bKprobe{n}\r\nMax-Forwards: 70\r\n"
    "From: <sip:probe@example.com>;tag=p\r\nTo: <sip:{to}>\r\nCall-ID: probe{n}\r\nCSeq: 1 OPTIONS\r\n"
    "Content-Length: 0\r\n\r\n"
)


def bound(wire: socket.socket) -> bool:
    try:
        wire.bind((HOST, 5060))
    except OSError:
        return False
    return True


@pytest.fixture
def wire(port_5060: None) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        deadline = time.monotonic() + 60
        while not bound(wire):
            if time.monotonic() > deadline:
                pytest.skip("another program has port 5060 on all addresses of this machine")
            time.sleep(0.1)
        wire.settimeout(30)
        yield wire


def answers_until_the_probe(wire: socket.socket, data: bytes, to: tuple[str, int], number: int) -> list[bytes]:
    """What the server has said to this message before it answered the OPTIONS sent behind it."""
    wire.sendto(data, to)
    wire.sendto(PROBE.format(to=f"127.0.0.1:{to[1]}", host=HOST, n=number).encode(), to)
    found = []
    while True:
        answer = wire.recv(65535)
        if b"Call-ID: probe%d\r\n" % number in answer:
            assert answer.startswith(b"SIP/2.0 200 "), answer
            return found
        if b"Call-ID: probe" not in answer:
            found.append(answer)


def gauges(server: Any) -> dict[str, float]:
    host, port = server.admin
    with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    return {name: float(value) for name, value in re.findall(r"(?m)^(\w+) ([\d.e+]+)$", text)}


def fits(verdict: dict[str, Any], statuses: set[int]) -> bool:
    """A stranger's request that could be routed is refused for what it wants, never as malformed; a REGISTER for
    another registrar, too."""
    outcomes, finals = set(verdict["outcomes"]), {status for status in statuses if status >= 200}
    if not finals:
        return "drop" in outcomes
    [final] = finals
    if str(final) in outcomes:
        return True
    return "routed" in outcomes and final in (200, 403, 404, 480, 481)


def test_the_corpus_over_a_socket(serve: Callable[..., Any], wire: socket.socket) -> None:
    server = serve(sip={"domains": ["example.com"], "trust": ["127.0.0.9"]})
    before: set[bytes] = set()
    for number, verdict in enumerate(VERDICTS):
        data = (CORPUS / verdict["file"]).read_bytes()
        found = [a for a in answers_until_the_probe(wire, data, server.sip, number) if a not in before]
        before.update(found)
        statuses = {int(answer[8:11]) for answer in found}
        assert fits(verdict, statuses), (verdict["name"], statuses, verdict["outcomes"])
    deadline = time.monotonic() + 60
    while gauges(server)["orchestrator_transactions_unanswered"] and time.monotonic() < deadline:
        time.sleep(0.1)
    found_now = gauges(server)
    assert found_now["orchestrator_transactions_unanswered"] == found_now["orchestrator_calls"] == 0
    assert found_now["orchestrator_turns_failed_total"] == 0


def statuses_over_a_connection(data: bytes, to: tuple[str, int], number: int) -> tuple[set[int], bool]:
    """What the server says to this message before it answers the OPTIONS behind it on the same connection, or ends the
    connection; and whether it does answer that."""
    probe = PROBE.format(to=f"127.0.0.1:{to[1]}", host=HOST, n=number).encode()
    with socket.create_connection(to, 60, (HOST, 0)) as wire:
        wire.sendall(data + probe)
        wire.shutdown(socket.SHUT_WR)
        octets = b""
        while b"Call-ID: probe%d\r\n" % number not in octets and (more := wire.recv(65_535)):
            octets += more
    *answers, last = re.findall(rb"(?ms)^SIP/2\.0 (\d{3}) (.*?)\r\n\r\n", octets)
    is_probe = last[0] == b"200" and b"Call-ID: probe" in last[1]  # else a message without an end swallowed it
    return {int(status) for status, _ in (answers if is_probe else [*answers, last])}, is_probe


TWO_MESSAGES = "octets-after-the-body"
"""Noise behind a datagram's body, and the next message where the transport is a stream (RFC 3261 §18.3)."""


def test_the_corpus_over_connections(serve: Callable[..., Any]) -> None:
    """The same by the same verdicts; a message without a Content-Length is refused, nobody knows where it ends."""
    server = serve(listen=["tcp"], sip={"domains": ["example.com"], "trust": ["127.0.0.9"]})
    to = "127.0.0.1", server.ports["tcp"]
    for number, verdict in enumerate(VERDICTS):
        data = (CORPUS / verdict["file"]).read_bytes()
        statuses, goes_on = statuses_over_a_connection(data, to, number)
        endless = re.search(rb"(?im)^(content-length|l)[ \t]*:", data.partition(b"\r\n\r\n")[0]) is None
        said = verdict["name"], statuses, verdict["outcomes"]
        each = [{status} for status in statuses if status >= 200] if verdict["name"] == TWO_MESSAGES else [statuses]
        assert all(fits(verdict, one) for one in each) or (endless and statuses <= {400}), said
        if not goes_on:
            assert statuses_over_a_connection(b"", to, 10**6 + number)[1], "other connections do"
    deadline = time.monotonic() + 60
    while gauges(server)["orchestrator_transactions_unanswered"] and time.monotonic() < deadline:
        time.sleep(0.1)
    found_now = gauges(server)
    assert found_now["orchestrator_transactions_unanswered"] == found_now["orchestrator_calls"] == 0
    assert found_now["orchestrator_turns_failed_total"] == 0
    assert not [line for line in server.log if "connection_fault" in line]
