"""Octets of strangers as the log shows them."""

from __future__ import annotations

import pytest

from orchestrator.sip.shown import shown
from orchestrator.testing.world import World


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (b"INVITE sip:bob@example.com SIP/2.0", "INVITE sip:bob@example.com SIP/2.0"),
        (b"\xff\x00\x1b[2J\r\n\t", r"\xff\x00\x1b[2J\x0d\x0a\x09"),
        ("Gr\u00fcs \ufffd".encode(), r"Gr\xc3\xbcs \xef\xbf\xbd"),
        (rb"a\xff", r"a\x5cxff"),
        (b"~ \x7f\x80", r"~ \x7f\x80"),
        (b"x" * 101, "x" * 100 + "…"),
        (b"", ""),
    ],
)
def test_ascii_stays_and_the_rest_is_escaped(octets: bytes, text: str) -> None:
    assert shown(octets) == text


def test_the_first_line_of_a_malformed_message_is_told_octet_by_octet() -> None:
    world = World()
    told: list[object] = []
    world.engine.on_news = lambda event, facts: told.append(facts.get("first"))
    world.peer("x", "192.0.2.1").send(b"INVITE \xff\xfe\x00 \x1b SIP/2.0\r\nVia: x\r\n\r\n")
    world.run()
    assert told == [r"INVITE \xff\xfe\x00 \x1b SIP/2.0"]
