"""One message of a corpus of difficult SIP messages through the whole core, and whether the outcome fits the verdict.

The world is set up so that the expected outcome can show: the sender is trusted, names lead to one gateway, and for a
REGISTER we are its registrar.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from orchestrator.sip.message import Request, parse_message
from orchestrator.sip.points import ListenPoint
from orchestrator.testing.phone import Address
from orchestrator.testing.world import PROXY, World

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "torture"

SENDER: Address = ("192.0.2.99", 5060)
GATEWAY = "203.0.113.99"
"""Where every name leads."""
V6 = ListenPoint("2001:db8:ffff::1", 5060)


@dataclass(frozen=True)
class Message:
    name: str
    data: bytes
    verdict: dict[str, Any]

    @property
    def outcomes(self) -> set[str]:
        return set(self.verdict["outcomes"])


def messages(*indexes: Path) -> dict[str, Message]:
    """The messages of these index files, by name."""
    found = {}
    for index in indexes:
        for verdict in json.loads(index.read_text(encoding="utf-8"))["messages"]:
            data = (index.parent / verdict["file"]).read_bytes()
            found[verdict["name"]] = Message(verdict["name"], data, verdict)
    return found


RFC = messages(*sorted(FOLDER.glob("*/index.json")))
"""The messages of RFC 4475 and RFC 5118; empty in a clone without the folder."""
OWN = messages(Path(__file__).parents[1] / "sip" / "corpus" / "index.json")
"""Our own messages for the same kinds."""
MESSAGES = RFC | OWN


class Stage:
    """A world, one message delivered to it, and what came of that."""

    def __init__(self, name: str) -> None:
        self.message = MESSAGES[name]
        everybody = (ip_network("0.0.0.0/0"), ip_network("::/0"))
        points = (ListenPoint(*PROXY), V6)
        self.world = World(points=points, trust=everybody, domains=self.domains())
        self.world.on_job = lambda job: GATEWAY
        self.deliver(self.message.data)

    def domains(self) -> tuple[str, ...]:
        """A REGISTER is for us; everything else passes through."""
        if self.message.verdict.get("method") != "REGISTER":
            return ()
        registrar = re.match(rb"REGISTER\s+sips?:(\[[^\]]+\]|[^;:\s]+)", self.message.data)
        return ("example.com", registrar[1].decode()) if registrar else ("example.com",)

    def deliver(self, data: bytes) -> None:
        self.world.deliver(data, SENDER, PROXY)
        self.world.run()

    @property
    def out(self) -> list[tuple[Address, bytes]]:
        homes = {(point.host, point.port) for point in self.world.settings.points}
        return [(target, data) for _, source, target, data in self.world.sent if source in homes]

    @property
    def answers(self) -> list[tuple[int, bytes]]:
        """Responses sent: (status, octets). They may hold what the peer has written wrong, so they are not parsed."""
        return [(int(data[8:11]), data) for _, data in self.out if data.startswith(b"SIP/2.0 ")]

    @property
    def forwarded(self) -> list[Request]:
        parsed = [parse_message(data) for _, data in self.out if not data.startswith(b"SIP/2.0 ")]
        assert all(isinstance(message, Request) for message in parsed)
        return [message for message in parsed if isinstance(message, Request)]

    @property
    def outcome(self) -> str:
        """In the words of the index: a status, "routed" (sent on, or taken by the registrar), or "drop"."""
        finals = [status for status, _ in self.answers if status >= 200]
        if self.forwarded or (self.message.verdict.get("method") == "REGISTER" and finals == [200]):
            return "routed"
        return str(finals[0]) if finals else "drop"

    @property
    def copy(self) -> Request:
        """The one copy that was sent on."""
        [copy] = self.forwarded
        return copy


MUST_NOT: dict[str, Callable[[Stage], bool]] = {
    "forward": lambda stage: bool(stage.forwarded),
    "forward with <>": lambda stage: any(b"<" in copy.uri for copy in stage.forwarded),
    "forward with LWS": lambda stage: bool(stage.forwarded),
    "forward with double SP": lambda stage: any(b"  " in data.split(b"\r\n")[0] for _, data in stage.out),
    "forward with trailing SP": lambda stage: any(data.split(b"\r\n")[0].endswith(b" ") for _, data in stage.out),
    "forward with ?Route or Route: sip:example.com": lambda stage: bool(stage.forwarded),
    "forward with the error": lambda stage: bool(stage.forwarded),
    "forward to To URI": lambda stage: bool(stage.forwarded),
    "200 as REGISTER": lambda stage: len(stage.world.location) > 0 or any(status == 200 for status, _ in stage.answers),
    "any reply or forward for the INVITE": lambda stage: any(b"INVITE" in data for _, data in stage.out),
    "binding whose headers become a Route": lambda stage: len(stage.world.location) > 0,
    "sendto broadcast": lambda stage: any(target[0] == "255.255.255.255" for target, _ in stage.out),
    "two such requests sharing one transaction": lambda stage: shares_a_transaction(stage),
    "crash": lambda stage: False,  # it would have raised before anybody asks
}  # fmt: skip


def shares_a_transaction(stage: Stage) -> bool:
    """The same branch with another Call-ID is another request: it has to be sent on too."""
    before = len(stage.forwarded)
    call_id = re.search(rb"(?im)^(?:Call-ID|i)\s*:\s*(\S+)", stage.message.data)
    assert call_id is not None
    stage.deliver(stage.message.data.replace(call_id[1], b"another"))
    return len(stage.forwarded) == before


def does(stage: Stage, forbidden: str) -> bool:
    if forbidden.isdigit():
        return int(forbidden) in [status for status, _ in stage.answers]
    return MUST_NOT[forbidden](stage)
