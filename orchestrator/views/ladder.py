"""SIP messages of a call as a ladder: who stands where, and an arrow for each message.

A *lifeline* is an address that messages came from or went to; ours is one line whatever its listening points. A message
that is the octet-for-octet repetition of an earlier one, from or to the same peer, is no arrow of its own: the first
one counts them. Data only; `ladder_svg` draws it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from orchestrator.core.engine import Engine
from orchestrator.errors import MalformedMessage
from orchestrator.history import MessageIn, MessageOut, SipMessage
from orchestrator.sip.claims import CALL_HEADER
from orchestrator.sip.points import DEFAULT_PORT
from orchestrator.sip.reasons import reason_phrase
from orchestrator.sip.uri import parse_uri
from orchestrator.views.shown_values import iso

OURSELVES, PHONE, GATEWAY, FREESWITCH = "orchestrator", "phone", "gateway", "freeswitch"
"""What stands on a lifeline."""
LONGEST = 60
"""Characters of a name or a text."""

_REQUEST = re.compile(rb"([^ \r\n]{1,40}) ([^ \r\n]+) SIP/2\.0")
_STATUS = re.compile(rb"SIP/2\.0 ([1-6][0-9][0-9]) ?([^\r\n]*)")
_LINES = re.IGNORECASE | re.MULTILINE
_FROM = re.compile(rb"^(?:From|f)[ \t]*:[^\r\n]*?\b(sips?:[^>;\r\n?\s]+|tel:[^>;\r\n\s]+)", _LINES)
_OF_US = re.compile(rb"^%b[ \t]*:" % CALL_HEADER, _LINES)
_CLASSES = ("provisional", "success", "redirect", "failure", "failure", "failure")


@dataclass(frozen=True, slots=True)
class Peers:
    """What the configuration says of those whom calls are with: hosts (in lower case) and ports to names."""

    gateways: Mapping[tuple[str, int], str] = field(default_factory=dict)
    freeswitch: Mapping[tuple[str, int], str] = field(default_factory=dict)
    server: str = ""
    """The FreeSWITCH server of the call, where its address says nothing."""

    @classmethod
    def of(cls, engine: Engine, server: str = "") -> Peers:
        """Of the program and the site as they are now."""
        known = engine.flows.program.resources.gateways
        gateways = {place: name for name, gateway in known.items() for place in _place(str(gateway.get("uri", "")))}
        servers = {place: name for name, uri in engine.site.freeswitch.items() for place in _place(uri)}
        return cls(gateways, servers, server)

    def gateway(self, host: str, port: int, any_port: bool) -> str | None:
        """The gateway that stands there. `any_port`: its requests come from a port that it does not listen on."""
        found = self.gateways.get((host, port))
        if found is None and any_port:
            there = {name for place, name in self.gateways.items() if place[0] == host}
            found = there.pop() if len(there) == 1 else None
        return found


def _place(uri: str) -> list[tuple[str, int]]:
    """Host and port of a SIP URI; none where there is none."""
    try:
        parsed = parse_uri(uri.encode())
    except MalformedMessage:
        return []
    host = parsed.host.decode("utf-8", "replace").lower().strip("[]")
    return [(host, parsed.port or DEFAULT_PORT)] if host else []


NOBODY = Peers()


def ladder(messages: Iterable[tuple[str, SipMessage]], wall_offset: float, peers: Peers = NOBODY) -> dict[str, Any]:
    """The ladder of these messages, each with the id of its fact. `wall_offset` makes wall clock times.

    `lifelines`: `id`, `kind`, `name`, `address`, ours second, in order of appearance. `arrows`: `n` from 1, `id`,
    `from` and `to` (ids of lifelines), `text`, `kind` (request, provisional, success, redirect, failure), `method`,
    `code` (None for a request), `leg` (number of its Call-ID, from 1), `time`, `at` (seconds since the first one),
    `octets`, `body` (whether it has one), `repeats` and the time of the `last` of these.
    """
    drawing = _Drawing(peers)
    arrows: dict[tuple[bool, str, int, bytes], dict[str, Any]] = {}
    legs: dict[bytes, int] = {}
    origin: float | None = None
    for id, message in messages:
        received = isinstance(message, MessageIn)
        time = iso(message.time + wall_offset)
        key = (received, message.host, message.port, message.data)
        known = arrows.get(key)
        if known is not None:
            known["repeats"] += 1
            known["last"] = time
            continue
        origin = message.time if origin is None else origin
        peer = drawing.peer(message, received)
        ends = (peer, "us") if received else ("us", peer)
        leg = legs.setdefault(message.call_id, len(legs) + 1)
        arrows[key] = {
            "n": len(arrows) + 1,
            "id": id,
            "from": ends[0],
            "to": ends[1],
            **_said(message),
            "leg": leg,
            "time": time,
            "at": round(message.time - origin, 3),
            "octets": len(message.data),
            "body": not message.data.endswith(b"\r\n\r\n"),
            "repeats": 0,
            "last": None,
        }
    return {"lifelines": drawing.lifelines(), "arrows": list(arrows.values())}


def messages_of(facts: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, SipMessage]]:
    """The messages of a history that was written down (`CallHistory.facts`), for `ladder` with an offset of 0."""
    for fact in facts:
        if fact["kind"] == "message":
            host, _, port = fact["peer"].rpartition(":")
            kind = MessageIn if fact["direction"] == "received" else MessageOut
            time = datetime.fromisoformat(fact["time"]).timestamp()
            data = fact["message"].encode("utf-8", "replace")
            yield fact["id"], kind(data, host.strip("[]"), int(port), 0, transport=fact["transport"], time=time)


def _said(message: SipMessage) -> dict[str, Any]:
    """What an arrow says."""
    line, method = message.start_line, message.cseq_method.decode("ascii", "replace")
    status = _STATUS.match(line)
    if status is None:
        request = _REQUEST.match(line)
        text = request[1].decode("ascii", "replace") if request is not None else "?"
        return {"text": text, "kind": "request", "method": text, "code": None}
    code = int(status[1])
    reason = status[2].decode("utf-8", "replace").strip() or reason_phrase(code)
    text = f"{code} {reason}"[:LONGEST]
    if method not in ("INVITE", ""):
        text += f" ({method[:20]})"
    return {"text": text, "kind": _CLASSES[code // 100 - 1], "method": method, "code": code}


class _Drawing:
    """The lifelines of one ladder."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._lines: dict[tuple[str, int], dict[str, Any]] = {}

    def peer(self, message: SipMessage, received: bool) -> str:
        """The lifeline that a message comes from or goes to."""
        place = (message.host, message.port)
        line = self._lines.get(place)
        if line is None:
            address = f"[{place[0]}]:{place[1]}" if ":" in place[0] else f"{place[0]}:{place[1]}"
            line = {"id": f"p{len(self._lines) + 1}", "kind": PHONE, "name": "", "address": address}
            self._lines[place] = line
        if not line["name"] and (found := self._who(message, received)) is not None:
            line["kind"], line["name"] = found[0], found[1][:LONGEST]
        return str(line["id"])

    def _who(self, message: SipMessage, received: bool) -> tuple[str, str] | None:
        """Kind and name of the peer, as far as a request says so."""
        peers, place = self._peers, (message.host.lower(), message.port)
        if place in peers.freeswitch:
            return FREESWITCH, peers.freeswitch[place]
        request = _REQUEST.match(message.start_line)
        if request is None or request[1] != b"INVITE":
            return None
        if _OF_US.search(message.head):
            return FREESWITCH, peers.server or "FreeSWITCH"
        found = _FROM.search(message.head) if received else None
        uri = found[1] if found is not None else request[2]
        asked = next(iter(_place(uri.decode("utf-8", "replace"))), ("", 0))
        gateway = peers.gateway(*(place if received else asked), any_port=received and message.transport != "udp")
        if gateway is not None:
            return GATEWAY, gateway
        return PHONE, _user(uri)

    def lifelines(self) -> list[dict[str, Any]]:
        """The caller, we, and all others."""
        others = list(self._lines.values())
        us = {"id": "us", "kind": OURSELVES, "name": "Orchestrator", "address": ""}
        return [*others[:1], us, *others[1:]]


def _user(uri: bytes) -> str:
    """Who is meant by a URI: the user, else the host."""
    scheme, _, rest = uri.partition(b":")
    if scheme.lower() == b"tel":
        return rest.partition(b";")[0].decode("utf-8", "replace")
    address = rest.partition(b";")[0].partition(b"?")[0]
    user, at, host = address.rpartition(b"@")
    return (user.partition(b":")[0] if at else host).decode("utf-8", "replace")
