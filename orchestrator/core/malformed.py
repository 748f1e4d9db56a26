"""Datagrams that are no SIP message: answer what can be answered, and no more."""

from __future__ import annotations

from orchestrator.core.node import Node
from orchestrator.core.sender import Sender
from orchestrator.errors import MalformedMessage
from orchestrator.sip.admission import MALFORMED
from orchestrator.sip.message import build_response, salvage_request
from orchestrator.sip.points import Hop
from orchestrator.sip.routing import response_destination
from orchestrator.sip.shown import shown
from orchestrator.sip.stun import binding_response

_KEEPALIVE = 4
"""Octets up to which a datagram of line ends is a keep-alive (RFC 5626 §3.5.1)."""


def refuse_malformed(node: Node, sender: Sender, data: bytes, error: MalformedMessage, hop: Hop) -> None:
    """Answer what can be answered (RFC 3261 §8.2, RFC 4475); the rest gets silence and a counter."""
    if len(data) <= _KEEPALIVE and not data.strip(b"\r\n\0"):
        node.count("keepalive")
        return
    pong = None if hop.point.reliable else binding_response(data, hop.host, hop.port)
    if pong is not None:
        node.count("keepalive")
        node.send(pong, hop)
        return
    node.count("malformed")
    sender.charge(MALFORMED)
    first = shown(data[:1000].split(b"\r\n", 1)[0])
    node.tell("malformed", source=hop.host, port=hop.port, reason=error.reason, first=first)
    request = salvage_request(data) if error.sip_status else None
    if request is None or request.method == b"ACK":
        return
    request.stamp_source(hop.host.encode(), hop.port)
    answer = build_response(request, error.sip_status, error.reason, b"malformed")
    answer = sender.fitting(answer)
    if sender.is_proved or len(answer) <= sender.room:  # nobody is owed an answer to what he garbled
        node.send(answer, response_destination(request.via, hop, node.settings.nat))
