"""The RFC 4475 and RFC 5118 messages beside the repository, and a few of our own for where they are absent."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "torture"

OWN = (
    b"INVITE sip:bob@example.com SIP/2.0\r\n"
    b"Via: SIP/2.0/UDP 192.0.2.10:5061;rport;branch=z9hG4bK-1\r\n"
    b"Record-Route: <sip:192.0.2.9;lr>, <sip:192.0.2.8;lr>\r\n"
    b"Route: <sip:192.0.2.1;lr>,<sip:192.0.2.2;lr>\r\n"
    b"Max-Forwards: 70\r\n"
    b'From: "Alice, A." <sip:alice@example.com>;tag=1\r\n'
    b"To: <sip:bob@example.com>\r\n"
    b"Call-ID: 1@192.0.2.10\r\n"
    b"CSeq: 1 INVITE\r\n"
    b"Contact: <sip:alice@192.0.2.10:5061;transport=udp>;expires=60\r\n"
    b"Content-Type: text/plain\r\n"
    b"Content-Length: 5\r\n\r\nhello",
    b"SIP/2.0 200 OK\r\n"
    b"v: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK-2, SIP/2.0/UDP 192.0.2.10:5061;branch=z9hG4bK-1;received=192.0.2.11\r\n"
    b"f: sip:alice@example.com;tag=1\r\nt: sip:bob@example.com\r\n ;tag=2\r\n"
    b"i: 1@192.0.2.10\r\nCSeq: 1 INVITE\r\nl: 0\r\n\r\n",
)


@dataclass(frozen=True)
class TortureMessage:
    """One message of the corpora; `outcomes` are the acceptable ones: statuses, "routed", "drop"."""

    name: str
    data: bytes
    kind: str
    outcomes: tuple[str, ...]


def torture_messages() -> list[TortureMessage]:
    """All messages of both corpora; empty where the folder is absent."""
    messages = []
    for index in sorted(FOLDER.glob("*/index.json")):
        for entry in json.loads(index.read_text(encoding="utf-8"))["messages"]:
            data = (index.parent / entry["file"]).read_bytes()
            messages.append(TortureMessage(entry["name"], data, entry["kind"], tuple(entry["outcomes"])))
    return messages
